-- `neap bench NAME --device cuda`: the keys it promises, small, on a GPU or on the shim. PYTHON names a python3 with PyTorch; without one neap runs alone.
local helper = require "spec.helper"
local json = require "neap.json"

local function bench(words, python)
    python = python or os.getenv "PYTHON" or "python3"
    local p = assert(io.popen(("'%s' bench %s --device cuda --rounds 1 --python '%s' --json"):format(helper.program(), words, python)))
    local text = p:read "a"
    p:close()
    return json.decode(text)
end

describe("neap bench on a GPU", function()
    it("reports a fleet and one model with the losses of all sides", function()
        for words, python in pairs {["fleet --models 2 --windows 100"] = false, ["train --windows 100"] = "none"} do
            local r = bench(words, python or nil)
            for _, key in ipairs {"samples_per_s", "gflops", "peak_gflops", "share_of_peak", "threads"} do assert.equal("number", type(r[key]), key) end
            assert.equal("cuda", r.isa)
            assert.equal("table", type(r.vs))
            for _, form in ipairs {"ensemble", "ensemble_vmap", "ensemble_graph"} do
                local loss = r.losses[form] -- the same job: PyTorch's loss is ours
                if type(loss) == "number" then assert.is_true(math.abs(loss - r.losses.neap) <= 1e-6, form .. ": " .. loss .. ", neap " .. r.losses.neap) end
            end
        end
    end)

    it("reports scoring and products", function()
        assert.is_true(bench("score --windows 300", "none").samples_per_s > 0)
        assert.is_true(bench("matmul", "none").gflops > 0)
    end)
end)
