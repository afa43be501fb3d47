--- Model files: where they live, and which one is in use.
--
--     models.promote(here, result)      -- a trained model that beats the naive forecasts goes to work in `neap serve`
--     local model, card = models.live(here, "temperature")

local forecaster = require "neap.forecaster"
local json = require "neap.json"
local secret = require "neap.secret"

local log = require("neap.log").module "models"

local models = {}

local LONGEST <const> = 200 -- of a file's name, in bytes: file systems take 255, and what is put behind it while it is written needs a few
local SHOWN <const> = 90 -- of a longer one, so much is left to be recognised by

--- A sensor's name as a file's: letters, digits, "-" and "_" stay, everything else becomes %XX. Of a name that gets too long the beginning stays,
--- and behind "~", which no other name has, comes the name's hash.
function models.file_name(sensor)
    local name = sensor:gsub("[^%w%-_]", function(c) return ("%%%02X"):format(c:byte()) end)
    if #name > LONGEST then name = name:sub(1, SHOWN):gsub("%%%x?$", "") .. "~" .. secret.sha256(sensor) end
    return name .. ".safetensors"
end

--- The folder of a path, made if it is missing.
local function make_folder(path)
    local folder = path:match("^(.*)/[^/]*$")
    if folder and folder ~= "" then os.execute(("mkdir -p '%s'"):format(folder:gsub("'", "'\\''"))) end
end

--- Save a model anywhere; parent folders are made.
---@param model neap.Forecaster
---@param card table
---@param path string
function models.write(model, card, path)
    make_folder(path)
    model:save(path, card)
end

--- Why a model's file cannot be used; nil for a good one, and where there is none.
---@param path string
---@return string? why
function models.damaged(path)
    local f = io.open(path, "rb")
    if not f then return nil end
    f:close()
    local ok, why = pcall(forecaster.load, path)
    return not ok and tostring(why) or nil
end

--- Put a trained model to work: only one that beats the naive forecasts, and one trained on made-up readings only as long as
--- there are no real ones.
---@param here neap.Session
---@param result neap.train.Result
---@return string? path
---@return string? why not
function models.promote(here, result)
    local card = result.card
    if not card.promoted then return nil, card.verdict end
    if card.synthetic and here.store:has(card.sensor, "real") then
        return nil, "it knows made-up readings only, and there are real ones"
    end
    local path = here.data .. "/models/" .. models.file_name(card.sensor)
    local bad = models.damaged(path)
    if bad then -- a file that cannot be read is not a model to be replaced but something to be looked at
        os.rename(path, path .. ".bad")
        log.warn("the model's file could not be read; it is kept", {sensor = card.sensor, file = path .. ".bad", why = bad})
    end
    models.write(result.model, card, path)
    if path:sub(1, 1) ~= "/" then path = (os.getenv "PWD" or ".") .. "/" .. path end
    here.store:put(card.sensor, "model", json.encode {file = path, trained_at = card.trained_at, skill = card.metrics.skill})
    return path
end

--- The model in use, its card, and the text that names it (another text: another model). nil when there is none.
---@param here neap.Session
---@param sensor string
function models.live(here, sensor)
    local text = here.store:get(sensor, "model")
    if not text then return nil end
    local model, card = forecaster.load(json.decode(text).file)
    return model, card, text
end

return models
