--- neap token: makes, lists and revokes the tokens that devices show when neap listens to other machines.
local args = require "neap.args"
local session = require "neap.session"
local term = require "neap.term"
local tokens = require "neap.tokens"

local opt = args.parse {
    name = "neap token",
    summary = "The tokens that devices show when neap listens to other machines. A running server sees a change within a second.",
    positional = {
        {"action", choices = {"add", "list", "revoke"}, help = "add, list or revoke"},
        {"name", optional = true, help = "what the token is called: letters, digits, '.', '_' and '-'"},
    },
    options = {
        {"--data", value = "DIR", help = "the server's data directory (default: NEAP_DATA, or neap-data)"},
        {"--sensor", value = "PATTERN", help = "for these sensors only; * stands for any text"},
        {"--only", choices = {"read", "write"}, help = "not for both"},
        {"--stdin", type = "flag", help = "take a token that devices have already from standard input, instead of making one"},
    },
    example = "neap token add kitchen --sensor 'kitchen/*' --only write",
}

local actions = {}

function actions.add(list)
    local text = opt.stdin and (io.read "l" or "") or nil
    local token = list:add {name = opt.name, sensor = opt.sensor, only = opt.only, text = text}
    if text then return print(("added '%s'"):format(opt.name)) end
    print(token)
    io.stderr:write("This is shown once; neap keeps its SHA-256 only. Devices send it as\n    Authorization: Token ", token, "\n")
end

function actions.list(list)
    if #list.list == 0 then print "there are no tokens; make one with: neap token add NAME" end
    for _, one in ipairs(list.list) do
        print(("%s %s %s %s"):format(term.pad(one.name, 20), term.pad(one.only or "read, write", 12), one.created, one.sensor or "all sensors"))
    end
end

function actions.revoke(list)
    local name = opt.name
    if not list:revoke(name) then
        local names = {}
        for i, one in ipairs(list.list) do names[i] = one.name end
        error(("there is no token '%s'%s; `neap token list` names them"):format(name, args.hint(name, names)), 0)
    end
    print(("revoked '%s'"):format(name))
end

if opt.action ~= "list" and not opt.name then args.refuse("neap token", ("which one? neap token %s NAME"):format(opt.action)) end
local ok, why = pcall(function()
    local data = session.directory(opt)
    if opt.action == "add" then os.execute("mkdir -p -m 700 '" .. data:gsub("'", "'\\''") .. "'") end
    actions[opt.action](tokens.open(data))
end)
if not ok then
    io.stderr:write("neap token: ", tostring(why), "\n")
    os.exit(1, true)
end
