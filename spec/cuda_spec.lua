-- The compiler's report on the CUDA kernels, where nvcc built them: a change that costs registers or spills shows here, without a GPU. That the device
-- code computes the CPU's bits is proved by spec/c/cuda_test.c.
local helper = require "spec.helper"

describe("neap_cuda.so", function()
    local folder = helper.program():match "^(.*)/" or "."
    local log = io.open(folder .. "/neap_cuda.log")
    local text = log and log:read "a"
    if log then log:close() end

    local function kernels(arch)
        local found = {}
        for name, body in text:gmatch("Compiling entry function '([%w_]+)' for 'sm_" .. arch .. "'(.-)Compile time") do
            found[name] = {registers = tonumber(body:match "Used (%d+) registers"), spill = tonumber(body:match "(%d+) bytes spill stores"),
                static = tonumber(body:match "(%d+) bytes smem" or 0)}
        end
        return found
    end

    it("keeps its kernels in registers, two blocks a multiprocessor where they share one", function()
        if not text then return pending "skipped: no nvcc, the CUDA part was not built" end
        local seen = 0
        for arch in text:gmatch "entry function 'neap_fleet_train_2' for 'sm_(%d+)'" do
            local list = kernels(arch)
            seen = seen + 1
            for _, name in ipairs {"neap_fleet_train_2", "neap_fleet_predict", "neap_tensor_gemm", "neap_tensor_any", "neap_tensor_reduce_long"} do
                local k = assert(list[name], name .. " was not compiled for sm_" .. arch)
                assert.is_true(k.registers <= 128, ("%s takes %d registers on sm_%s"):format(name, k.registers, arch))
            end
            for name, k in pairs(list) do
                assert.equal(0, k.static, name .. " has static shared memory")
                assert.is_true(k.spill <= 16, ("%s spills %d bytes on sm_%s"):format(name, k.spill, arch))
            end
            for _, name in ipairs {"neap_fleet_train_0", "neap_fleet_train_4", "neap_fleet_predict"} do assert.equal(0, list[name].spill, name) end
        end
        assert.is_true(seen > 0, "the compiler's report is empty")
    end)

    it("opens on a machine without a driver and shows one symbol", function()
        if not text then return pending "skipped: no nvcc, the CUDA part was not built" end
        local entry, why = package.loadlib(folder .. "/neap_cuda.so", "neap_cuda_open")
        assert.is_truthy(entry, why)
        assert.is_nil((package.loadlib(folder .. "/neap_cuda.so", "neap_perm_init")))
    end)
end)
