--- neap.reload: a new version built aside in every worker, put in force everywhere or nowhere.
---
---   local reload = require("neap.reload").new{
---       build = function() return value end,            -- reads files, checks, raises with file and line; changes nothing
---       commit = function(value) end,                   -- puts it in force; must not fail
---       drop = function(value) end,                     -- the new one is not wanted (another worker's build failed)
---       files = function(new) return {"app.lua"} end,   -- for watch: of the version that was just built, or else of the one in force; worker 1's
---                                                       -- reload.reported has what another worker said
---       blocked = function() return "worker 2 .." end,  -- a sentence about a worker that cannot answer at present, or nil
---       told = function(ok, message) end,               -- in every worker, after each round
---   }
---   local ok, message = reload:now()                    -- in worker 1
---   reload.last                                         -- {ok=, error=, at=, count=}: for /health and the prompt
---
--- Two phases: worker 1 asks all to build; when all have, it tells all to commit, otherwise to drop. A broken edit therefore leaves the
--- old version serving in every worker, and its error is kept in `last`.
local json = require "neap.json"
local log = require("neap.log").module "reload"
local task = require "neap.task"
local worker = require "neap.worker"

local Reload = {}
Reload.__index = Reload

local ANSWER_S <const> = 20 -- a worker that has not built by then is taken for failed

local function build(self)
    local ok, value = pcall(self.build)
    if ok then
        self.ready, self.has_ready = value, true
        return true
    end
    return false, tostring(value)
end

local function finish(self, good)
    if not self.has_ready then return end
    local value = self.ready
    self.ready, self.has_ready = nil, false
    if good then self.commit(value) elseif self.drop then self.drop(value) end
end

--- ARGS: see above, and workers (their number, default 1). Every worker makes one.
function Reload.new(opts)
    local self = setmetatable({
        build = opts.build, commit = opts.commit, drop = opts.drop, files = opts.files, told = opts.told, blocked = opts.blocked, workers = opts.workers or 1,
        lock = task.mutex(), last = {ok = true, count = 0}, round = 0,
    }, Reload)
    if self.workers > 1 then
        worker.on("reload.build", function(text, from)
            local ok, why = build(self)
            local files = self.files and self.files(self.ready) -- worker 1 may not know them itself
            worker.send(from, "reload.built", json.encode({round = text, ok = ok, why = why, files = files}, {utf8 = "replace"}))
        end)
        worker.on("reload.finish", function(text)
            local verdict = json.decode(text)
            finish(self, verdict.good)
            self.last = verdict.last
            if self.told and verdict.message then self.told(verdict.good, verdict.message) end
        end)
        worker.on("reload.built", function(text)
            local answer = json.decode(text)
            if self.answers and answer.round == tostring(self.round) then self.answers:send(answer) end
        end)
    end
    return self
end

-- Asks the other workers to build; returns true, or false and the first error.
local function others_build(self)
    if self.workers == 1 then return true end
    self.answers = task.channel(self.workers)
    worker.send("all", "reload.build", tostring(self.round))
    local good, why = true, nil
    for _ = 2, self.workers do
        local answer, blocked
        for _ = 1, ANSWER_S do
            answer = self.answers:recv(1)
            blocked = not answer and self.blocked and self.blocked() or nil
            if answer or blocked then break end
        end
        if answer then self.reported = answer.files end
        if not answer or not answer.ok then good, why = false, why or answer and answer.why or blocked or "a worker did not answer in time" end
    end
    self.answers = nil
    return good, why
end

--- Builds in all workers and puts the new version in force, or keeps the old one. Call it in worker 1. Returns true and a sentence, or
-- false and
--- the error. Waits; a second call waits for the first.
---@return boolean ok
---@return string message
---@param still? fun(): boolean asked before the new version is put in force: are the files still what was read?
function Reload:now(still)
    return self.lock:with(function()
        local started = task.now()
        self.round = self.round + 1
        local good, why = build(self)
        if good then good, why = others_build(self) end
        if still and not still() then -- somebody is writing: what was read may be half of it
            finish(self, false)
            if self.workers > 1 then worker.send("all", "reload.finish", json.encode({last = self.last})) end
            return false, "the files change at this moment"
        end
        local ms = (task.now() - started) * 1e3
        self.last = {ok = good, error = why, at = os.time(), count = self.last.count + (good and 1 or 0)}
        local message = good and ("reloaded in %.0f ms, version %d"):format(ms, self.last.count + 1) or why
        finish(self, good)
        if self.workers > 1 then
            worker.send("all", "reload.finish", json.encode({good = good, last = self.last, message = message}, {utf8 = "replace"}))
        end
        if good then
            log.info("reloaded", {ms = math.floor(ms + 0.5), version = self.last.count + 1})
        else
            log.error("the old version goes on: " .. why)
        end
        if self.told then self.told(good, message) end
        return good, message
    end)
end

local function contents(files)
    local out = {}
    for _, path in ipairs(files) do
        local f = io.open(path, "r")
        out[#out + 1] = path .. "\0" .. (f and f:read("a") or "")
        if f then f:close() end
    end
    return table.concat(out, "\0")
end

--- Reloads when one of the files has changed: looks every half second, and waits until an editor has finished writing. Polling a handful
-- of small files
--- costs nothing and understands every editor's way of saving, which file events do not. Returns the task.
function Reload:watch()
    local seen, pending = contents(self.files()), nil -- now, not in the task's first turn: an edit in between would be missed
    return task.spawn(function()
        while true do
            task.sleep(0.5)
            local files = self.files()
            local now = contents(files)
            if now == seen then
                pending = nil
            elseif now == pending then
                pending = nil
                local quiet = true
                self:now(function()
                    quiet = contents(files) == now
                    return quiet
                end)
                if quiet then seen = contents(self.files()) end -- a new version may have other files
            else
                pending = now
            end
        end
    end):quiet():named "watch"
end

return Reload
