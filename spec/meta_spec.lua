-- Every function that C gives to Lua is described in lua/meta: editors complete it, help() explains it, and this spec keeps it so.
local help = require "neap.help"

-- Names of the functions of a C module's table.
local function functions(module)
    local names = {}
    for k, v in pairs(module) do
        if type(k) == "string" and type(v) == "function" and debug.getinfo(v, "S").what == "C" then names[#names + 1] = k end
    end
    table.sort(names)
    return names
end

-- Modules whose C half is only called by their Lua face are described there.
local function is_inner(path) return path:find("%.core$") ~= nil or path:find("_core$") ~= nil end

describe("lua/meta", function()
    it("describes every function of every C module", function()
        local missing = {}
        for path in pairs(package.preload) do
            local short = path:match("^neap%.?(.*)$")
            if short and not is_inner(path) then
                local ok, module = pcall(require, path)
                assert.is_true(ok, path .. ": " .. tostring(module))
                if type(module) == "table" then
                    for _, name in ipairs(functions(module)) do
                        local full = (short == "" and "neap" or short) .. "." .. name
                        local entry = help.find(full)
                        if not (entry and entry.documented) or entry.name:gsub(":", ".") ~= full then missing[#missing + 1] = full end
                    end
                end
            end
        end
        table.sort(missing)
        assert.are.equal("", table.concat(missing, " "))
    end)

    it("compiles, so that editors can read it", function()
        local n = 0
        for _, file in ipairs(neap.assets "lua/meta/") do
            assert(load(neap.asset(file), "@" .. file, "t", {}))
            assert.is_truthy(neap.asset(file):find("^%-%-%-@meta"), file .. " begins with ---@meta")
            n = n + 1
        end
        assert.is_true(n >= 3)
    end)

    it("describes nothing that is gone", function()
        local gone = {}
        for _, file in ipairs(neap.assets "lua/meta/") do
            local text = neap.asset(file)
            local path = text:match("^%-%-%-@meta%s+(%S+)")
            local ok, module = pcall(require, path)
            local own = text:match("\nlocal%s+([%a_]%w*)%s*=%s*{}") or "neap"
            for name in text:gmatch("\nfunction " .. own .. "%.([%w_]+)") do
                if ok and type(module) == "table" and module[name] == nil then gone[#gone + 1] = path .. "." .. name end
            end
        end
        assert.are.equal("", table.concat(gone, " "))
    end)
end)
