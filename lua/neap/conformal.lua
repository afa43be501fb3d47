--- From the size of a forecast error to a probability: "an error this large comes once in so many readings when all is well".
--
--     local calibration = require("neap.conformal").fit(errors)      -- sizes of errors on readings the model was not chosen with
--     calibration:p(0.8)                                             --> 0.004: the false-alarm probability at 0.8
--
-- Split conformal: p = (1 + errors at least as large) / (n + 1), which holds for any distribution as long as the future
-- resembles the calibration part. That cannot fall below 1/(n+1), so the largest errors get a generalised Pareto tail
-- (Hosking and Wallis' probability-weighted moments). Where even the tail has no support p stops at `floor`: show "p < floor".

local conformal = {}

local Calibration = {}
Calibration.__index = Calibration

--- Scale and shape of a generalised Pareto distribution from excesses in rising order.
local function fit_tail(excesses)
    local n, b0, b1 = #excesses, 0, 0
    for i, x in ipairs(excesses) do
        b0 = b0 + x / n
        b1 = b1 + x * (n - i) / (n - 1) / n
    end
    if b0 <= 0 then return nil end
    local shape = b0 > 2 * b1 and 2 - b0 / (b0 - 2 * b1) or 0
    -- A shape below 0 would set a hard end to the errors; above 0.8 the tail says nothing. Both are noise of a small sample.
    shape = math.min(0.8, math.max(0, shape))
    return b0 * (1 - shape), shape
end

--- The share of the calibration errors that are at least `size`, continued by the tail.
---@param size number size of an error, not negative
---@return number p in (0, 1]
function Calibration:p(size)
    local sorted, n = self.sorted, #self.sorted
    if size ~= size then return 1 end
    if self.scale and size > self.threshold then
        local x = (size - self.threshold) / self.scale
        local survival = self.shape > 1e-9 and (1 + self.shape * x) ^ (-1 / self.shape) or math.exp(-x)
        return math.max(self.floor, self.beyond * survival)
    end
    local low, high = 1, n + 1 -- the first error that is not smaller
    while low < high do
        local middle = (low + high) // 2
        if sorted[middle] < size then low = middle + 1 else high = middle end
    end
    return (1 + n + 1 - low) / (n + 1)
end

--- The size of error at which p falls to the given value: half the width of a forecast band.
---@param p number
---@return number
function Calibration:size_at(p)
    local n = #self.sorted
    if self.scale and p < self.beyond then
        local ratio = p / self.beyond
        local x = self.shape > 1e-9 and (ratio ^ -self.shape - 1) / self.shape or -math.log(ratio)
        return self.threshold + self.scale * x
    end
    return self.sorted[math.max(1, math.min(n, math.ceil((n + 1) * (1 - p))))]
end

--- ARGS: errors, any sign. RETURN: a calibration, or nil and why.
---@param errors number[]
function conformal.fit(errors)
    local sorted = {}
    for i, e in ipairs(errors) do sorted[i] = math.abs(e) end
    table.sort(sorted)
    local n = #sorted
    if n < 10 then return nil, ("%d errors are too few to calibrate with; 10 are needed"):format(n) end
    local self = setmetatable({sorted = sorted, floor = 1 / (n + 1)}, Calibration)

    local most = math.max(math.floor(n * 0.02), math.min(50, n // 4)) -- how many of the largest make the tail
    if most >= 10 then
        local threshold, excesses = sorted[n - most], {}
        for i = n - most + 1, n do excesses[#excesses + 1] = sorted[i] - threshold end
        local scale, shape = fit_tail(excesses)
        if scale then
            self.threshold, self.scale, self.shape, self.beyond = threshold, scale, shape, (most + 1) / (n + 1)
            self.floor = 0.05 / (n + 1)
        end
    end
    return self
end

return conformal
