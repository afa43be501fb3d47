-- A running server survives an endless loop typed at an attached prompt.
local helper = require "spec.helper"
local http = require "neap.http"
local process = require "neap.process"

describe("an endless loop in a running server", function()
    it("is stopped, named in the log, and the server goes on answering", function()
        local dir = helper.dir()
        local server <close> = process.spawn {helper.program(), "serve", "--listen", "127.0.0.1:0", "--data", dir .. "/data", stdout = "pipe",
            stderr = "file", path = dir .. "/log"}
        local said = ""
        repeat said = said .. assert(server:line(20), helper.read(dir .. "/log")) .. "\n" until said:find "\n  try"
        local url = said:match "(http://[%d.:]+)"
        process.run {helper.program(), "attach", tostring(server.pid), "-e", "while true do pcall(function() while true do end end) end"}
        assert.equal(200, http.request({url = url .. "/health", timeout = 20}).status)
        assert.matches("blocked the loop", helper.read(dir .. "/log"))
        server:stop()
        helper.remove(dir)
    end)
end)
