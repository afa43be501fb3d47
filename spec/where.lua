--- Where the specs run: the binary, and what build it is.
local i = 0
while arg[i - 1] do i = i - 1 end

--- Is this build under ThreadSanitizer? It delivers signals only at library calls, so a pure Lua loop never sees Ctrl-C there.
local function under_tsan()
    for line in io.lines "/proc/self/maps" do
        if line:find("libtsan", 1, true) then return true end
    end
    return false
end

return {neap = arg[i], tsan = under_tsan()}
