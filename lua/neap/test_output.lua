--- How `neap test` prints: a line a file, the failures with their places, and a closing line "specs: N passed, N failed". A busted output handler.
return function(options)
    local busted = require "busted"
    local handler = require "busted.outputHandlers.base"()
    local clock, file_start, before

    local function counts() return handler.successesCount, handler.failuresCount + handler.errorsCount end

    local function print_problem(p, word)
        io.write(("\n%s: %s\n"):format(word, p.name or "?"))
        local trace = p.trace or {}
        if trace.short_src then io.write(("  at %s:%d\n"):format(trace.short_src, trace.currentline or 0)) end
        local message = p.message
        if type(message) ~= "string" then message = require("pl.pretty").write(message) end
        io.write("  ", (message:gsub("\n", "\n  ")), "\n")
        if type(trace.traceback) == "string" and options.verbose then io.write((trace.traceback:gsub("\n", "\n  ")), "\n") end
    end

    handler.fileStart = function() file_start, before = clock(), {counts()} return nil, true end

    handler.fileEnd = function(file)
        local ok, bad = counts()
        io.write(("%-40s %4d passed%s  %.1f s\n"):format(file.name, ok - before[1], bad > before[2] and (", %d failed"):format(bad - before[2]) or "",
            clock() - file_start))
        io.flush()
        return nil, true
    end

    handler.problem = function()
        local list, word = handler.failures, "failed"
        if #handler.errors > 0 then list, word = handler.errors, "error" end
        if #list > 0 then print_problem(list[#list], word) end
        io.flush()
        return nil, true
    end

    handler.suiteEnd = function()
        for _, p in ipairs(handler.pendings) do io.write(("left out: %s %s\n"):format(p.name, p.message and tostring(p.message) or "")) end
        local ok, bad = counts()
        io.write(("specs: %d passed, %d failed\n"):format(ok, bad))
        io.flush()
        return nil, true
    end

    clock = require("neap.task").now
    local function on(event, fn) busted.subscribe(event, fn) end
    on({"file", "start"}, handler.fileStart)
    on({"file", "end"}, handler.fileEnd)
    on({"failure"}, function() handler.problem() return nil, true end)
    on({"error"}, function() handler.problem() return nil, true end)
    on({"suite", "end"}, handler.suiteEnd)
    return handler
end
