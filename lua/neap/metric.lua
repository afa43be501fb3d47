--- neap.metric: counters, gauges and histograms, and their text for Prometheus (format 0.0.4).
--
--     local metric = require "neap.metric"
--     local readings = metric.counter("neap_readings_total", "Readings accepted.", {"sensor"})
--     readings:inc(12, {sensor = "oven"})
--     metric.gauge("neap_memory_bytes", "Lua memory.", function() return collectgarbage("count") * 1024 end)
--     metric.histogram("neap_request_seconds", "Time to answer."):observe(0.012)
--     io.write(metric.text())
--
-- Each worker counts for itself and nothing is locked; `/metrics` adds the workers' snapshots up (`metric.text(snapshot, ...)`;
-- a snapshot is plain data that travels between workers). Names are checked where a metric is made, with promtool's rules, so
-- that a mistake shows at start and not in a dashboard. The number of label sets of one metric is capped: sensors and routes may
-- be labels, readings and addresses may not.
local metric = {}

local MAX_SERIES = 5000
local BUCKETS = {.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
local UNITS = {ms = "seconds", milliseconds = "seconds", us = "seconds", microseconds = "seconds", minutes = "seconds", kb = "bytes",
    mb = "bytes",
               kilobytes = "bytes", megabytes = "bytes", percent = "ratio", celcius = "celsius"}

local registry, order = {}, {}

local function check_name(name, kind)
    if type(name) ~= "string" or not name:find("^[a-z_:][a-z0-9_:]*$") then
        error(("metric name '%s': use lower-case letters, digits and _"):format(tostring(name)), 4)
    end
    local total = name:find("_total$") ~= nil
    if kind == "counter" and not total then error(("counter '%s': its name must end in _total"):format(name), 4) end
    if kind ~= "counter" and total then error(("%s '%s': only a counter's name may end in _total"):format(kind, name), 4) end
    for word in name:gmatch("[^_:]+") do
        if word == "counter" or word == "gauge" or word == "histogram" then
            error(("metric name '%s': leave the type '%s' out of the name"):format(name, word), 4)
        end
        if UNITS[word] then error(("metric name '%s': use the base unit '%s' instead of '%s'"):format(name, UNITS[word], word), 4) end
    end
    if kind ~= "histogram" and (name:find("_count$") or name:find("_sum$") or name:find("_bucket$")) then
        error(("metric name '%s': the endings _count, _sum and _bucket belong to histograms"):format(name), 4)
    end
end

local function escape_label(s) return (tostring(s):gsub("\\", "\\\\"):gsub("\n", "\\n"):gsub('"', '\\"')) end

-- {sensor="oven"} -> 'sensor="oven"', in the declared order; the key under which a series is kept.
local function label_key(self, labels)
    if #self.labels == 0 then
        if labels and next(labels) ~= nil then error(("metric '%s' was made without labels"):format(self.name), 4) end
        return ""
    end
    local parts = {}
    for i, name in ipairs(self.labels) do
        local v = labels and labels[name]
        if v == nil then error(("metric '%s' needs the label '%s'"):format(self.name, name), 4) end
        parts[i] = name .. '="' .. escape_label(v) .. '"'
    end
    for name in pairs(labels) do
        if not self.label_set[name] then error(("metric '%s' has no label '%s'"):format(self.name, tostring(name)), 4) end
    end
    return table.concat(parts, ",")
end

-- The series of these labels; past the cap everything lands in one series of label values "other".
local function series(self, labels, make)
    local key = label_key(self, labels)
    local s = self.series[key]
    if s then return s, key end
    if self.n >= MAX_SERIES then
        local other = {}
        for _, name in ipairs(self.labels) do other[name] = "other" end
        key = label_key(self, other)
        if self.series[key] then return self.series[key], key end
    end
    self.n = self.n + 1
    s = make(self)
    self.series[key] = s
    return s, key
end

local function zero() return 0 end

local Counter, Gauge, Histogram = {}, {}, {}
Counter.__index, Gauge.__index, Histogram.__index = Counter, Gauge, Histogram

local function check_number(n, what)
    if type(n) ~= "number" then error(("%s: expected a number, got %s"):format(what, type(n)), 3) end
    return n
end

--- Adds n (default 1, never negative).
function Counter:inc(n, labels)
    n = n == nil and 1 or check_number(n, self.name)
    if not labels and #self.labels == 0 and self.series[""] then -- the usual case
        if n >= 0 then
            self.series[""] = self.series[""] + n
            return
        end
    end
    if n < 0 or n ~= n then error(("counter '%s' cannot go down (by %s); use a gauge"):format(self.name, tostring(n)), 2) end
    local v, key = series(self, labels, zero)
    self.series[key] = v + n
end

--- The present value of a counter or gauge (0 before the first change).
function Counter:get(labels) return self.series[label_key(self, labels)] or 0 end

function Gauge:set(v, labels)
    check_number(v, self.name)
    local _, key = series(self, labels, zero)
    self.series[key] = v
end

function Gauge:add(n, labels)
    local v, key = series(self, labels, zero)
    self.series[key] = v + (n or 1)
end

--- Drops one series, for a thing that no longer exists (a removed sensor).
function Gauge:remove(labels)
    local key = label_key(self, labels)
    if self.series[key] ~= nil then self.series[key], self.n = nil, self.n - 1 end
end

Gauge.get, Counter.remove = Counter.get, Gauge.remove

local function new_histogram(self)
    local h = {sum = 0, n = 0}
    for i = 1, #self.buckets do h[i] = 0 end
    return h
end

function Histogram:observe(v, labels)
    check_number(v, self.name)
    local h = series(self, labels, new_histogram)
    local buckets = self.buckets
    for i = 1, #buckets do
        if v <= buckets[i] then h[i] = h[i] + 1 break end -- counted once here, summed up when written
    end
    h.sum, h.n = h.sum + v, h.n + 1
end

--- The q-quantile (0..1), interpolated inside its bucket; nil before the first observation.
function Histogram:quantile(q, labels)
    local h = self.series[label_key(self, labels)]
    if not h or h.n == 0 then return nil end
    local target, seen, low = q * h.n, 0, 0
    for i, limit in ipairs(self.buckets) do
        if h[i] > 0 and seen + h[i] >= target then return low + (limit - low) * (target - seen) / h[i] end
        seen, low = seen + h[i], limit
    end
    return low
end

local CLASS = {counter = Counter, gauge = Gauge, histogram = Histogram}

local function register(kind, name, help, labels)
    check_name(name, kind)
    if type(help) ~= "string" or help == "" then error(("metric '%s' needs a sentence of help"):format(name), 3) end
    local old = registry[name]
    if old then
        if old.kind ~= kind then error(("metric '%s' is already a %s"):format(name, old.kind), 3) end
        return old
    end
    local self = setmetatable({name = name, help = help, kind = kind, labels = labels or {}, label_set = {}, series = {}, n = 0},
        CLASS[kind])
    for _, label in ipairs(self.labels) do
        if not label:find("^[a-zA-Z_][a-zA-Z0-9_]*$") or label:find("^__") or label == "le" then
            error(("metric '%s': '%s' cannot be a label name"):format(name, label), 3)
        end
        self.label_set[label] = true
    end
    registry[name] = self
    order[#order + 1] = name
    return self
end

-- A counter or gauge, optionally one that is asked for its value: fn() -> number, or {[label value] = number} where it has one label.
local function register_read(kind, name, help, labels, fn)
    if type(labels) == "function" then labels, fn = nil, labels end
    local self = register(kind, name, help, labels)
    self.read = fn or self.read
    return self
end

--- A number that only grows. `labels`: list of label names. A second call with the same name gives the same counter. With a function (in place of the
--- labels or behind them) it is asked at each scrape: fn() -> number, or {[label value] = number} for one label.
function metric.counter(name, help, labels, fn) return (register_read("counter", name, help, labels, fn)) end

--- A number that goes up and down; a function as for counters.
function metric.gauge(name, help, labels, fn) return (register_read("gauge", name, help, labels, fn)) end

--- Observations counted in buckets (upper limits, seconds by default).
function metric.histogram(name, help, labels, buckets)
    local self = register("histogram", name, help, labels)
    if not self.buckets then
        self.buckets = buckets or BUCKETS
        for i = 2, #self.buckets do
            if self.buckets[i] <= self.buckets[i - 1] then error(("histogram '%s': buckets must grow"):format(name), 2) end
        end
    end
    return self
end

--- Plain data of all metrics, for another worker: {{name=, kind=, help=, buckets=, series={[labels]=number|{...}}}, ...}.
function metric.snapshot()
    local out = {}
    for _, name in ipairs(order) do
        local m = registry[name]
        local copy = {}
        if m.read then
            local ok, v = pcall(m.read)
            m.series = {}
            if ok and type(v) == "number" then
                m.series[""] = v
            elseif ok and type(v) == "table" then
                for label, n in pairs(v) do m.series[m.labels[1] .. '="' .. escape_label(label) .. '"'] = n end
            end
        end
        for key, s in pairs(m.series) do copy[key] = type(s) == "table" and table.move(s, 1, #s, 1, {sum = s.sum, n = s.n}) or s end
        out[#out + 1] = {name = name, kind = m.kind, help = m.help, buckets = m.buckets, series = copy}
    end
    return out
end

--- Several snapshots as one: counters, histograms and gauges are added up.
function metric.merge(...)
    local out, by_name = {}, {}
    for _, snapshot in ipairs{...} do
        for _, m in ipairs(snapshot) do
            local into = by_name[m.name]
            if not into then
                into = {name = m.name, kind = m.kind, help = m.help, buckets = m.buckets, series = {}}
                by_name[m.name] = into
                out[#out + 1] = into
            end
            for key, s in pairs(m.series) do
                local have = into.series[key]
                if type(s) == "number" then
                    into.series[key] = (have or 0) + s
                else
                    have = have or {sum = 0, n = 0}
                    for i = 1, #s do have[i] = (have[i] or 0) + s[i] end
                    have.sum, have.n = have.sum + s.sum, have.n + s.n
                    into.series[key] = have
                end
            end
        end
    end
    return out
end

local function show(v)
    if math.type(v) == "integer" then return tostring(v) end
    if v ~= v then return "NaN" elseif v == math.huge then return "+Inf" elseif v == -math.huge then return "-Inf" end
    local s = ("%.15g"):format(v)
    return tonumber(s) == v and s or ("%.17g"):format(v)
end

local function write_histogram(out, m, key, h)
    local comma, count = key ~= "" and "," or "", 0
    for i, limit in ipairs(m.buckets) do
        count = count + h[i]
        out[#out + 1] = ('%s_bucket{%s%sle="%s"} %d'):format(m.name, key, comma, show(limit), count)
    end
    local braces = key ~= "" and "{" .. key .. "}" or ""
    out[#out + 1] = ('%s_bucket{%s%sle="+Inf"} %d'):format(m.name, key, comma, h.n)
    out[#out + 1] = ("%s_sum%s %s"):format(m.name, braces, show(h.sum))
    out[#out + 1] = ("%s_count%s %d"):format(m.name, braces, h.n)
end

--- The text for GET /metrics. Without arguments this worker's metrics, else the sum of the given snapshots.
metric.content_type = "text/plain; version=0.0.4; charset=utf-8"
function metric.text(...)
    local out = {}
    for _, m in ipairs(metric.merge(... and ... or metric.snapshot(), select(2, ...))) do
        local keys = {}
        for key in pairs(m.series) do keys[#keys + 1] = key end
        table.sort(keys)
        if #keys > 0 then
            out[#out + 1] = ("# HELP %s %s"):format(m.name, (m.help:gsub("\\", "\\\\"):gsub("\n", "\\n")))
            out[#out + 1] = ("# TYPE %s %s"):format(m.name, m.kind)
        end
        for _, key in ipairs(keys) do
            local s = m.series[key]
            if m.kind == "histogram" then
                write_histogram(out, m, key, s)
            else
                out[#out + 1] = ("%s%s %s"):format(m.name, key ~= "" and "{" .. key .. "}" or "", show(s))
            end
        end
    end
    return #out > 0 and table.concat(out, "\n") .. "\n" or ""
end

--- Forgets everything; for specs.
function metric.reset() registry, order = {}, {} end

return metric
