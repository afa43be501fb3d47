--- A network together with what it needs to be used: window, interval, scaler, seasons, and its file.
--
--     local model = forecaster.new(data, {hidden = {64, 32}})     -- data: neap.dataset's
--     model:epoch(data.parts.train, 64)
--     model:forecast({20.1, 20.2, ...}, seconds)                   --> the value expected at that time
--     model:save("temperature.safetensors", card)
--     local model, card = forecaster.load("temperature.safetensors")
--
-- The network sees differences to the window's last value and forecasts the next change; neap.mlp forms these windows from the
-- series in C while it trains. A file holds weights, scaler, sensor, window, calibration and metrics in one safetensors file,
-- written atomically with a checksum; PyTorch and numpy read it too.

local dataset = require "neap.dataset"
local json = require "neap.json"
local mlp = require "neap.mlp"
local tensor = require "neap.tensor"

local forecaster = {}

---@class neap.Forecaster
---@field window integer
---@field interval number
---@field seasons number[]
---@field scaler {loc: number, inv: number, level_inv: number}
local Forecaster = {}
Forecaster.__index = Forecaster

--- The series as the network takes it: relative to its median, because float32 has seven digits for it all.
local function centred(data)
    local values, loc = {}, data.scaler.loc
    for i, v in ipairs(data.series) do values[i] = v - loc end
    return tensor(values)
end

--- A row of season inputs for every reading, or nil when there are none.
local function season_rows(data)
    if #data.seasons == 0 then return nil end
    local rows = {}
    for i, seconds in ipairs(data.seconds) do rows[i] = dataset.season_inputs(seconds, data.seasons) end
    return tensor(rows)
end

--- A new, untrained network for a data set.
---@param data neap.Dataset
---@param opts {hidden?: integer[], learning_rate?: number, weight_decay?: number, loss?: string, seed?: integer, device?: string}
function forecaster.new(data, opts)
    local self = setmetatable({
        data = data, window = data.window, interval = data.interval, seasons = data.seasons, scaler = data.scaler, device = opts.device,
        series = centred(data), extra = season_rows(data), sets = setmetatable({}, {__mode = "k"}),
    }, Forecaster)
    self.mlp = mlp {
        input = data.window + 1 + 2 * #data.seasons, hidden = opts.hidden or {64, 32}, act = "relu", seed = opts.seed or 1,
        lr = opts.learning_rate, weight_decay = opts.weight_decay, loss = opts.loss or "huber",
    }
    return self
end

--- The windows that start at `starts` as neap.mlp takes them, made once for each list.
---@param starts integer[]
function Forecaster:set(starts)
    local set = self.sets[starts]
    if not set then
        set = mlp.windows(self.series, {
            window = self.window, starts = starts, norm = "delta", inv = self.scaler.inv, level_inv = self.scaler.level_inv, extra = self.extra,
        })
        self.sets[starts] = set
    end
    return set
end

--- One pass over the windows in a new random order; the mean loss. Waits, and lets other tasks run.
---@param starts integer[]
---@param batch integer
---@return number loss
function Forecaster:epoch(starts, batch) return self.mlp:epoch(self:set(starts), {batch = batch, device = self.device}) end

---@param starts integer[]
---@return number loss
function Forecaster:loss(starts) return self.mlp:loss(self:set(starts), {device = self.device}) end

--- Remember the present weights; restore() goes back to them.
function Forecaster:keep() self.kept = self.mlp:clone() end
function Forecaster:restore()
    if self.kept then self.mlp, self.kept = self.kept, nil end
end

--- The forecasts for the readings that follow the windows at `starts`, in the sensor's unit.
---@param starts integer[]
---@return number[]
function Forecaster:forecasts(starts)
    local out = self.mlp:predict(self:set(starts), {device = self.device}):reshape(#starts):totable()
    local forecasts = {}
    for i, start in ipairs(starts) do forecasts[i] = self.data.series[start + self.window - 1] + out[i] / self.scaler.inv end
    return forecasts
end

--- The value expected at `seconds`, one interval after the last of `values`.
---@param values number[] exactly `window` of them, one interval apart
---@param seconds number
---@return number
function Forecaster:forecast(values, seconds)
    local n, s, row = self.window, self.scaler, {}
    local last = values[n]
    for i = 1, n do row[i] = (values[i] - last) * s.inv end
    row[n + 1] = (last - s.loc) * s.level_inv
    table.move(dataset.season_inputs(seconds - self.interval, self.seasons), 1, 2 * #self.seasons, n + 2, row)
    local out = self.mlp:predict(row)
    if type(out) ~= "number" then out = out:reshape(1):totable()[1] end
    return last + out / s.inv
end

--- Write model and card to a file, all or nothing.
---@param path string
---@param card table plain data; see neap.train
function Forecaster:save(path, card)
    self.mlp:save(path, {format = "neap forecaster 1", sensor = card.sensor, card = json.encode(card, {sort = true})})
end

--- Read a file that save() wrote. Raises an error that says what is wrong with it.
---@param path string
---@return neap.Forecaster
---@return table card
function forecaster.load(path)
    local network, meta = mlp.load(path)
    if not meta or not meta.card then error(path .. " is not a model of `neap train`: it has no card", 0) end
    local card = json.decode(meta.card)
    local self = setmetatable({window = card.window, interval = card.interval, seasons = card.seasons, scaler = card.scaler, mlp = network},
        Forecaster)
    return self, card
end

return forecaster
