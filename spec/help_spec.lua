-- help() and the definitions behind it.
local help = require "neap.help"
local task = require "neap.task"
local plot = require "neap.plot"

describe("help", function()
    it("knows a Lua function by name, by value and by its position", function()
        local by_name, by_value = help.find "plot.line", help.find(plot.line)
        assert.are.equal(by_name, by_value)
        assert.are.equal("plot.line", by_name.name)
        assert.is_truthy(help.text(plot.spark):find("One line of text", 1, true))
    end)

    it("knows a C function from lua/meta", function()
        local entry = help.find(task.sleep)
        assert.are.equal("task.sleep", entry.name)
        assert.are.equal("(seconds)", entry.params)
        assert.is_truthy(help.text("task.sleep"):find("lua/meta/task.lua", 1, true))
    end)

    it("shows a module with what it offers", function()
        local text = help.text(plot)
        assert.is_truthy(text:find("plot.hist", 1, true))
        assert.is_truthy(text:find("pictures of readings", 1, true))
    end)

    it("names the nearest when it knows nothing", function()
        local text, why = help.text "plot.sparc"
        assert.is_nil(text)
        assert.is_truthy(why:find("plot.spark", 1, true), why)
        assert.is_nil(help.text(function() end))
    end)

    it("finds a function by the last part of its name where that is unique", function()
        assert.are.equal("plot.scatter", help.find("scatter").name)
    end)
end)
