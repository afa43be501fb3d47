--- neap.serve_metrics: what a worker's HTTP server, scheduler and memory say to Prometheus and to `neap top`. Counted in C; asked at each scrape.
local metric = require "neap.metric"
local task = require "neap.task"

--- Registers them; `here.server` is looked at when they are asked.
---@param here table
return function(here)
    local function stat(name) return function() return here.server:stats()[name] end end
    metric.counter("neap_http_connections_total", "Connections accepted.", stat "connections")
    metric.counter("neap_http_requests_total", "Requests given to a handler.", stat "requests")
    metric.counter("neap_http_refused_total", "Requests refused before a handler saw them.", {"why"}, function()
        local s = here.server:stats()
        return {malformed = s.refused_bad, too_big = s.refused_big, full = s.refused_full, too_slow = s.timeouts}
    end)
    metric.counter("neap_http_answers_total", "Answers by status, refusals of every kind among them (but for what libmicrohttpd answers by itself: malformed).",
        {"status"}, function() return here.server:answers() end)
    metric.counter("neap_http_waits_total", "Times that new connections were left waiting: too many connections or descriptors.", stat "waits")
    metric.counter("neap_http_gone_total", "Clients that left before their answer.", stat "gone")
    metric.counter("neap_http_received_bytes_total", "Bytes of request bodies.", stat "bytes_in")
    metric.counter("neap_http_sent_bytes_total", "Bytes of answers.", stat "bytes_out")
    metric.gauge("neap_http_open_connections", "Connections now.", stat "open")
    metric.gauge("neap_http_requests_in_flight", "Requests that wait for their answer.", stat "in_flight")
    metric.gauge("neap_tasks", "Live tasks.", function() return #task.list() end)
    metric.gauge("neap_lua_memory_bytes", "Memory of the Lua states.", function() return collectgarbage "count" * 1024 end)
end
