--- The word that somebody probably meant: nearest("minimun", { "minimum", "maximum" }) --> "minimum"

--- Edits between two words: insert, delete, replace, or swap two neighbours.
local function distance(a, b)
    local before
    local previous = {}
    for j = 0, #b do previous[j] = j end
    for i = 1, #a do
        local current = { [0] = i }
        for j = 1, #b do
            local cost = a:byte(i) == b:byte(j) and 0 or 1
            current[j] = math.min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost)
            if before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
                current[j] = math.min(current[j], before[j - 2] + 1)
            end
        end
        before, previous = previous, current
    end
    return previous[#b]
end

--- The nearest of `words` if it is near enough to be a slip (a third of its letters), else nil. A beginning counts as near.
---@param word string
---@param words string[]
---@return string?
return function(word, words)
    local best, best_distance
    local wanted = word:lower()
    for _, candidate in ipairs(words) do
        local d = distance(wanted, candidate:lower())
        if #wanted >= 3 and candidate:lower():sub(1, #wanted) == wanted then d = math.min(d, 1) end
        if not best or d < best_distance then best, best_distance = candidate, d end
    end
    if best and best_distance <= math.max(1, #best // 3) then return best end
    return nil
end
