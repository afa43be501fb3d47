-- Redis Cluster from Lua: only the URL differs. The protocol (MOVED, ASK, lost nodes) is tested in spec/c/redis_cluster_test.c.
local redis = require "neap.redis"
local server = require "spec.redis_server"
local task = require "neap.task"

describe("neap.redis on a cluster", function()
    local nodes, r
    setup(function()
        nodes = server.cluster()
        r = redis.connect(nodes.url)
    end)
    teardown(function()
        r:close()
        nodes:stop()
    end)

    it("finds keys wherever they are, in commands and pipelines", function()
        for i = 1, 50 do r:set("k" .. i, i) end
        local all = r:pipeline(function(p) for i = 1, 50 do p:incr("k" .. i) end end)
        for i = 1, 50 do assert.equal(i + 1, all[i]) end
        local ok, e = pcall(r.mget, r, "k1", "k2")
        assert.is_false(ok)
        assert.equal("CROSSSLOT", e.code)
        assert.matches("{tag}", e.message)
    end)

    it("runs transactions, scripts and waits on the node of their keys", function()
        assert.same({1, 2, n = 2}, r:multi(function(p)
            p:incr "{a}n"
            p:incrby("{a}m", 2)
        end))
        assert.same({"OK", n = 1}, r:multi(function(p, c) p:set("{a}n", c:get "{a}n" + 10) end, {watch = "{a}n"}))
        assert.equal("11", r:get "{a}n")
        local get = r:script("return redis.call('GET', KEYS[1])")
        for i = 1, 10 do assert.equal(tostring(i + 1), get("k" .. i)) end
        local items = {}
        task.group(function(g)
            for i = 1, 4 do
                g:spawn(function()
                    local item = r:blpop("queue" .. i, 10)[2]
                    items[i] = item
                end)
            end
            g:spawn(function() for i = 1, 4 do r:rpush("queue" .. i, "item " .. i) end end)
        end)
        assert.same({"item 1", "item 2", "item 3", "item 4"}, items)
    end)

    it("reads streams into tensors, and hears what is published at any node", function()
        for i = 1, 6 do r:xadd("s" .. i, {1000 * i, i}) end
        for i = 1, 6 do assert.same({i}, r:columns("s" .. i).value:totable()) end
        local sub <close> = r:subscribe "news"
        nodes[3].own:publish("news", "hello")
        assert.equal("hello", sub:next(10).data)
    end)
end)
