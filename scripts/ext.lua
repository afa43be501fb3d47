--- neap ext: the installed extensions, and what is wrong with those that do not load.
local args = require "neap.args"
local ext = require "neap.ext"
local term = require "neap.term"

local opt = args.parse{
    name = "neap ext", summary = "Lists the installed extensions. An app turns one on with neap.use \"NAME\".",
    options = {{"--json", type = "flag", help = "as JSON"}},
    more = "Install one with: neap rocks install neap-ext-NAME",
}

local list, bad = {}, 0
for _, found in ipairs(ext.found()) do
    local ok, module = pcall(ext.load, found.name)
    if not ok then bad = bad + 1 end
    list[#list + 1] = {name = found.name, path = found.path, ok = ok, version = ok and module.version or nil, help = ok and module.help
        or nil,
        error = not ok and tostring(module) or nil}
end
if opt.json then
    print(require("neap.json").encode(require("neap.json").array(list), {pretty = true}))
else
    if #list == 0 then print("no extensions are installed (neap rocks install neap-ext-NAME)") end
    for _, e in ipairs(list) do
        print(("%s %s  %s"):format(term.pad(e.name, 12), term.pad(e.version or "", 6), e.ok and e.help or term.paint(e.error, "red")))
    end
end
os.exit(bad > 0 and 1 or 0, true)
