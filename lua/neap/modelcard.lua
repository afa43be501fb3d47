--- A model's file in words: what it was trained on, how good it is, what it cannot see.
--
--     print(modelcard.text(card))          -- card: the plain data that neap.train made and the model file carries

local when = require "neap.when"

local modelcard = {}

local BLIND_SPOTS <const> = {
    "A stuck sensor is the most predictable of all: the forecaster is silent while it lasts. The flatline detector watches that.",
    "A slow drift is followed rather than noticed. The shift detector watches that; `minimum` and `maximum` help.",
    "After a gap it needs a whole window of readings before it scores again.",
}

---@param card table
---@return string
function modelcard.text(card)
    local m, h, s = card.metrics, card.history, card.settings
    local unit = card.unit ~= "" and " " .. card.unit or ""
    local lines = {
        ("Model of sensor '%s'%s"):format(card.sensor, card.synthetic and ", trained on SYNTHETIC readings" or ""),
        ("  trained      %s, neap %s"):format(card.trained_at, card.neap),
        ("  history      %d readings, %s to %s, one every %s; %d gap%s, %d filled, %d out of range"):format(h.readings, h.from, h.to,
            when.human(card.interval), h.gaps, h.gaps == 1 and "" or "s", h.filled, h.out_of_range),
        ("  input        the last %d readings%s"):format(card.window, #card.seasons > 0 and " and the time of day" or ""),
        ("  network      %s neurons, %s loss, stopped at epoch %d, best at %d"):format(table.concat(s.hidden, " + "), s.loss, m.epochs,
            m.best_epoch),
        ("  error        %.4g%s RMSE, %.4g%s mean, on %d newer readings that training never saw"):format(m.rmse, unit, m.mae, unit,
            m.test_readings),
        ("  best naive   %.4g%s RMSE: %s"):format(m.best_naive_rmse, unit, m.best_naive),
        ("  calibration  %.2f %% of those readings had p below 1 %% (1 %% is right)"):format(m.surprises_at_1_percent * 100),
        ("  verdict      %s"):format(card.verdict),
        "  blind spots  " .. table.concat(BLIND_SPOTS, "\n               "),
    }
    return table.concat(lines, "\n")
end

return modelcard
