--- Where things are: the binary that runs the specs.
local i = 0
while arg[i - 1] do i = i - 1 end
return {neap = arg[i]}
