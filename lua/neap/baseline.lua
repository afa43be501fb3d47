--- The forecasts that cost nothing. A model that does not beat the best of them has learnt nothing, and neap says so.
--
--     local naive = require("neap.baseline").measure(data, data.parts.test)
--     naive.best.name, naive.best.rmse      --> "repeat the last value", 0.151

local baseline = {}

--- Root of the mean square, and mean size, of a list of errors.
---@param errors number[]
---@return number rmse
---@return number mae
function baseline.error_of(errors)
    local squares, sum = 0, 0
    for _, e in ipairs(errors) do squares, sum = squares + e * e, sum + math.abs(e) end
    return math.sqrt(squares / #errors), sum / #errors
end

local function mean(series, from, to)
    local sum = 0
    for i = from, to do sum = sum + series[i] end
    return sum / (to - from + 1)
end

-- Each rule: (data, index of the target) -> forecast from readings before it, or nil where it cannot.
local rules = {
    {name = "repeat the last value", forecast = function(data, at) return data.series[at - 1] end},
    {name = "mean of the last 5", forecast = function(data, at) return mean(data.series, at - math.min(5, data.window), at - 1) end},
    {name = "same time one period ago", forecast = function(data, at)
        local lag = data.seasons[1] and math.floor(data.seasons[1] / data.interval + 0.5)
        if not lag or lag < 2 or at - lag < 1 or data.run_of[at - lag] ~= data.run_of[at] then return nil end
        return data.series[at - lag]
    end},
    {name = "mean of the training data", forecast = function(data) return data.train_mean end},
}

---@class neap.baseline.Result
---@field name string
---@field rmse number
---@field mae number

--- Measure every rule on the windows that start at `starts`. A rule that cannot forecast them all is left out.
---@param data neap.Dataset
---@param starts integer[]
---@return {best: neap.baseline.Result, [integer]: neap.baseline.Result}
function baseline.measure(data, starts)
    local train = data.parts.train
    data.train_mean = data.train_mean or mean(data.series, train[1], train[#train] + data.window)
    local results = {}
    for _, rule in ipairs(rules) do
        local errors = {}
        for i, start in ipairs(starts) do
            local at = start + data.window
            local forecast = rule.forecast(data, at)
            if not forecast then break end
            errors[i] = data.series[at] - forecast
        end
        if #errors == #starts and #errors > 0 then
            local rmse, mae = baseline.error_of(errors)
            local one = {name = rule.name, rmse = rmse, mae = mae}
            results[#results + 1] = one
            if not results.best or rmse < results.best.rmse then results.best = one end
        end
    end
    return results
end

return baseline
