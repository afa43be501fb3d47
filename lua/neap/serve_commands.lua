--- neap.serve_commands: the /commands that `neap attach` has inside a server, besides those of every prompt.
local term = require "neap.term"

--- The commands for a worker with these surroundings (see neap.serve).
---@param here table
---@return table<string, {help: string, args: string?, run: fun(session: table, rest: string): boolean?}>
return function(here)
    local commands = {}

    commands.routes = {help = "the routes, and where each is defined", run = function(session)
        require("neap.repl_commands").show_routes(session, here.version.app)
    end}

    commands.sensors = {args = "[part of a name]", help = "the sensors, their newest value and state", run = function(session, rest)
        for _, name in ipairs(here.store:sensors()) do
            if rest == "" or name:find(rest, 1, true) then
                local time_us, value = here.store:latest(name, here.store:has(name, "real") and "real" or "synthetic")
                session:write(term.pad(name, 28), " ", value and ("%-12.6g"):format(value) or term.pad("", 12), " ", here.specs:get(name).unit, "  ",
                    time_us and os.date("!%Y-%m-%d %H:%M:%S", time_us // 1000000) or "", "\n")
            end
        end
    end}

    commands.reload = {help = "reads sensor specs, app.lua and extensions again", run = function()
        if not here.reload_all then return false end
        return (here.reload_all()) -- what came of it is told to everybody who is attached
    end}

    commands.health = {help = "what GET /health says", run = function(session)
        local answer = here.version.app:test("GET", "/health")
        session:write(require("neap.json").encode(answer.json or answer.body, {pretty = true}), "\n")
        return answer.status == 200
    end}

    return commands
end
