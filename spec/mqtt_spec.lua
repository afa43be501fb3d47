-- The MQTT extension of rockspec/, built by the real luarocks and tried with a real mosquitto.
local helper = require "spec.helper"
local process = require "neap.process"

local function can_run(command) return select(2, process.run {"sh", "-c", command}) == 0 end
local able = can_run "PATH=$PATH:/usr/sbin command -v mosquitto" and can_run "echo '#include <mosquitto.h>' | cc -E - >/dev/null 2>&1"
local function maybe(title, body)
    if able then it(title, body) else pending(title .. " (mosquitto or libmosquitto-dev is not installed)", function() end) end
end

describe("neap-ext-mqtt", function()
    local dir, program, port, broker

    local function start_broker()
        helper.write(dir .. "/broker.conf", ("listener %d 127.0.0.1\nallow_anonymous true\n"):format(port))
        broker = process.spawn {"sh", "-c", "PATH=$PATH:/usr/sbin exec mosquitto -c " .. dir .. "/broker.conf", stdout = "null", stderr = "null"}
        helper.eventually(function() return can_run(("bash -c 'exec 3<>/dev/tcp/127.0.0.1/%d' 2>/dev/null"):format(port)) end)
    end

    setup(function()
        if not able then return end
        dir, program = helper.dir(), process.run({"readlink", "-f", helper.program()}):gsub("%s+$", "")
        local root = neap.root ~= "" and neap.root or "."
        local out, code = process.run {"sh", "-c", ([[mkdir -p DIR/lua_modules && cp -r ROOT/rockspec/neap-ext-mqtt DIR/rock && cd DIR/rock &&
            HOME=DIR NEAP rocks make --tree DIR/lua_modules]]):gsub("%u+", {DIR = dir, ROOT = root, NEAP = program})}
        assert.equal(0, code, out)
        local probe = require("neap.http").app():listen {port = 0}
        port = probe:port()
        probe:close()
    end)
    teardown(function()
        if not able then return end
        broker:stop()
        helper.remove(dir)
    end)

    maybe("brings readings from a broker, leaves out what is none, and comes back after the broker", function()
        start_broker()
        helper.write(dir .. "/try.lua", ([[
            local mqtt, task = require "neap.ext.mqtt", require "neap.task"
            require("neap.log").sink(function() end)
            local function say(...) print(...) io.stdout:flush() end
            task.spawn(mqtt.run, {port = %d, topics = {"s/#"}, retry = 0.05, deliver = function(readings)
                for _, r in ipairs(readings) do say(r.sensor, r.value) end
            end})
            local function send(topic, payload)
                local conn <close> = mqtt.connect {port = %d}
                conn:publish(topic, payload, 1, true) -- retained: whoever subscribes later gets it too
                conn:pump()
            end
            send("s/temp", "21.5")
            send("s/text", "hello")
            send("s/box", '{"humidity": 40, "value": 2, "note": "x", "deep": {"a": 1}}')
            local input = require("neap.edit").input
            input() -- the broker is being started again
            while not pcall(send, "s/later", "7") do task.sleep(0.02) end
            input()
            print(pcall(mqtt.connect, {port = 1}))
            os.exit(0)
        ]]):format(port, port))
        local p <close> = process.spawn {program, dir .. "/try.lua", cwd = dir, stdin = "pipe", stdout = "pipe"}
        local seen = {}
        local function until_seen(what)
            while not seen[what] do
                seen[assert(p:line(20), what .. " did not come")] = true
            end
        end
        until_seen "s/temp\t21.5"
        until_seen "s/box.humidity\t40"
        until_seen "s/box\t2"
        broker:stop()
        start_broker()
        p:write "go on\n"
        until_seen "s/later\t7"
        p:write "end\n"
        until_seen "false\tmqtt.connect: no connection to the broker"
        assert.is_nil(seen["s/text\thello"])
        assert.equal(0, (p:wait(10)))
    end)

    maybe("names the topic's mistakes, and lets others run while it waits", function()
        helper.write(dir .. "/parse.lua", [[
            local mqtt, task = require "neap.ext.mqtt", require "neap.task"
            for _, payload in ipairs {"nan", "0x10", "[]", "{", '{"a":"b"}', "1e400"} do print(mqtt.readings("t", payload)) end
            print(mqtt.readings("bad\ntopic", "1"))
            local ticks, waiting = 0, task.spawn(pcall, mqtt.connect, {host = "127.0.0.1", port = 1}):quiet()
            for _ = 1, 3 do task.sleep(0.001) ticks = ticks + 1 end
            print(ticks)
            os.exit(0)
        ]])
        local out, code = process.run {program, dir .. "/parse.lua", cwd = dir}
        assert.equal(0, code, out)
        assert.equal(3, select(2, out:gsub("neither a number nor a JSON object", "")))
        assert.equal(2, select(2, out:gsub("no number in it", "")))
        assert.matches("the topic is no sensor's name\n3\n$", out)
    end)
end)
