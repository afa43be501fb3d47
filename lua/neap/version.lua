--- neap.version: one version of what may change while a server runs: the sensor specs, the user's app.lua with its modules, and the extensions.
--- It is built aside and checked whole; a mistake raises with file and line and leaves what serves as it is. See neap.reload for when.
---
---   local new = version.build(here, opt)       -- reads, compiles, runs app.lua; opt.app, opt.sensors, opt.use
---   new.app:listen{...}  or  new.app:take_over(server)
---   version.commit(here, new)  /  version.drop(new)
local api = require "neap.api"
local ext = require "neap.ext"
local generation = require "neap.generation"
local http = require "neap.http"
local ingest = require "neap.ingest"
local session = require "neap.session"

local version = {}

-- Where nobody is asked for a token, the pages of a visitor's browser are still no devices.
local function keep_strangers_out(app, opt)
    local hosts -- where other machines reach neap (--no-auth), its owner has called it what he likes, and devices know it by that name
    if opt.host:find "^127%." or opt.host == "localhost" or opt.host == "::1" then
        hosts = table.move(opt.allow_host or {}, 1, #(opt.allow_host or {}), 1, {})
        local f = io.open "/proc/sys/kernel/hostname"
        if f then
            hosts[#hosts + 1] = f:read "l"
            f:close()
        end
    end
    local fn = http.same_origin {
        hosts = hosts, pages = opt.allow_host, unsafe = {["/receive"] = true}, -- with --allow-get, or once app.lua says here.query_ingest
        hint = "`neap serve --allow-host NAME` lets a name and its pages in",
    }
    table.insert(app.middleware, 1, {fn = fn})
end

-- What app.lua returned, made into the app that serves: neap's routes with the user's behind them, or the user's own app alone.
local function assemble(view, gen, opt)
    local path = opt.app
    local app = http.app{name = "neap", max_body = "8MB"}
    api.routes(app, view)
    ext.add_routes(app, view)
    local mine = gen and gen.result
    if type(mine) == "function" then
        mine(app, view)
    elseif type(mine) == "table" and mine.listen then
        app = mine
    elseif gen then
        error(path .. " must return function(app, here) ... end, or an app of its own", 0)
    end
    if view.guard then view.guard:protect(app) end
    if not (view.guard and view.guard.tokens) then keep_strangers_out(app, opt) end
    app:compile()
    return app
end

--- ARGS: here (the worker's surroundings), opt (app, sensors, use). RETURN: {specs, specs_path, app, gen}. Raises; nothing has changed then.
function version.build(here, opt)
    local new = {}
    ext.begin()
    local ok, err = pcall(function()
        for _, name in ipairs(opt.use or {}) do neap.use(name) end
        new.gen = opt.app and generation.load(opt.app) or nil
        new.specs, new.specs_path = session.specs(opt.sensors) -- behind the extensions: they may bring keys of specs
        local view = setmetatable({specs = new.specs}, {__index = here})
        function view.receive(list, req) return api.store(here, list, req) end
        new.app = assemble(view, new.gen, opt)
    end)
    new.ext_commit, new.ext_drop = ext.finish()
    if ok then return new end
    version.drop(new)
    error(err, 0)
end

--- Puts a version in force in `here`, and ends what the one before it had running. The app is the caller's to serve.
function version.commit(here, new)
    local old = here.version
    here.version = new
    here.specs, here.store.specs, here.specs_path = new.specs, new.specs, new.specs_path
    here.context.specs, here.context.limits = new.specs, ingest.limits(new.specs)
    new.ext_commit()
    if new.gen then new.gen.loading = false end -- what it starts from now on, requests have started
    if old and old.gen then old.gen:close() end
end

--- Ends what a version that is not wanted had started.
function version.drop(new)
    new.ext_drop()
    if new.gen then new.gen:close "its version was dropped" end
end

--- The files whose change makes a new version: those of the version in force, or of `new`, and those in which a build has just failed.
function version.files(here, opt, new)
    local files, seen = {}, {}
    local function add(path)
        if path and not seen[path] then files[#files + 1], seen[path] = path, true end
    end
    local which = new or here.version
    add(which and which.specs_path or here.specs_path)
    add(opt.app)
    for _, list in ipairs {which and which.gen and which.gen.files or {}, not new and generation.failed or {}} do
        for _, path in ipairs(list) do add(path) end
    end
    return files
end

return version
