--- neap.ext.serial: boards on a serial port that print `name:value` lines, as the starter kit's do.
---
---   neap.use("serial", {port = "/dev/ttyACM0", deliver = function(reading) ... end})    -- in app.lua: a task that reads for ever
---   neap serial /dev/ttyACM0                                                              -- or a bridge of its own to a running server
---
--- A board that is unplugged is waited for and opened again. Lines that are no reading are counted, and the first few are shown.
local core = require "neap.ext.serial.core"

local serial = {name = "serial", version = "1.0", api = 1, help = "boards on a serial port that print name:value lines"}

--- {sensor =, value =} of one line, or nil and what is wrong with it. Blanks around the parts are allowed; the name may hold colons.
---@param line string
function serial.parse(line)
    local name, value = line:match("^%s*(.-)%s*:%s*([^:]-)%s*$")
    if not name or name == "" then return nil, "expected name:value" end
    if name:find("%c") or not utf8.len(name) or #name > 200 then return nil, "the name is damaged" end
    local number = tonumber(value)
    if not number or value:find("[xX]") or number ~= number or number == math.huge or number == -math.huge then return nil,
        "the value is no number" end
    return {sensor = name, value = number}
end

--- An iterator over the readings of a port: for reading, line, why in serial.lines(port). It ends when the device is gone; a line that
-- is no reading
--- gives false, the line and why. A line may be 4 KiB long at most.
---@param port any what core.open gave
---@param timeout? number raise an error when nothing comes for so long
function serial.lines(port, timeout)
    local held, skip = "", false
    return function()
        while true do
            local line, rest = held:match("^([^\n]*)\n(.*)$")
            if line then
                held = rest
                line = line:gsub("\r$", "")
                local broken = skip
                skip = false
                if not broken and line:find("%S") then
                    local reading, why = serial.parse(line)
                    return reading or false, line, why
                end
            else
                if #held > 4096 then held, skip = "", true end -- noise at the wrong speed: drop it up to the next line
                local chunk = port:read(timeout)
                if not chunk then return nil end
                held = held .. chunk
            end
        end
    end
end

--- Reads a port for ever and hands each reading to deliver(reading); reopens it when it went away. Runs until its task is cancelled.
---@param opts {port: string, baud: integer?, deliver: fun(reading: table), retry: number?}
function serial.run(opts)
    local task = require "neap.task"
    local log = require("neap.log").module "serial"
    local bad, was_gone = 0, false
    while true do
        local ok, port = pcall(core.open, opts.port, opts.baud)
        if ok then
            if was_gone then log.info("the port is back", {port = opts.port}) end
            was_gone = false
            local guard <close> = port -- luacheck: ignore 211
            for reading, line, why in serial.lines(port) do
                if reading then
                    opts.deliver(reading)
                else
                    bad = bad + 1
                    if bad <= 3 then log.warn("skipped a line", {port = opts.port, line = line:sub(1, 60), why = why}) end
                end
            end
        end
        if not was_gone then log.warn("waiting for the port", {port = opts.port, why = not ok and tostring(port) or "it went away"}) end
        was_gone = true
        task.sleep(opts.retry or 2)
    end
end

local function setup(_, opts)
    if not opts.port then return end
    if type(opts.deliver) ~= "function" then
        error("neap.use('serial', {port = .., deliver = function(reading) .. end}): deliver is missing", 0) end
    serial.reader = require("neap.task").spawn(serial.run, opts)
end

local function stop()
    if serial.reader then serial.reader:cancel("the extension was reloaded") end
end

local public = {setup = setup, stop = stop}
for _, field in ipairs{"name", "version", "api", "help"} do public[field] = serial[field] end
public.checks = {
    ports = function(_, say)
        local p = io.popen("ls /dev/ttyACM* /dev/ttyUSB* 2>/dev/null")
        local n = 0
        for path in p:lines() do
            n = n + 1
            local ok, why = pcall(core.open, path)
            say(ok and "ok" or "warn", ok and path .. " can be read" or tostring(why))
        end
        p:close()
        if n == 0 then say("ok", "no serial device is plugged in") end
    end,
}
return setmetatable(public, {__index = serial})
