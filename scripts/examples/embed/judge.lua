-- judge.lua: what score.c asks of Lua. It learns from the readings that the program already has what the next one should be, then judges each new one.
--   device.history() -> the readings so far, as packed floats; device.again(i) -> reading i taken once more (a wait: the instrument has its own thread)
local mlp = require "neap.mlp"
-- luacheck: globals device judge
local tensor = require "neap.tensor"

local WINDOW = 16
local history = tensor.from_string(device.history())
local scale = history:std()
local data = mlp.windows(history, {window = WINDOW, inv = 1 / scale})
local model = mlp {input = data:inputs(), hidden = {12}, seed = 1}
local loss
for _ = 1, 30 do loss = model:epoch(data, {batch = 16, lr = 0.01}) end

local limit = 6 * loss ^ 0.5 * scale -- how far off is still usual
local recent = history:totable()
table.move(recent, #recent - WINDOW + 1, #recent, 1)

local function expected()
    local last, x = recent[WINDOW], {}
    for i = 1, WINDOW do x[i] = (recent[i] - last) / scale end
    return last + model:predict {x}:item() * scale
end

--- Is this reading unusual, also when taken again? -> flagged, what was expected
function judge(index, value)
    local should = expected()
    local odd = math.abs(value - should) > limit
    table.move(recent, 2, WINDOW, 1)
    recent[WINDOW] = odd and should or value -- an outlier must not spoil the windows after it
    if odd then odd = math.abs(device.again(index) - should) > limit end
    return odd, should
end
