-- What a server says that it did adds up: under a mixed and hostile load, over two workers, with Redis frozen for a moment, every reading that was
-- sent is accepted, refused, unavailable or unanswered, in /metrics and in /health, and in what the clients were told.
local helper = require "spec.helper"
local http = require "neap.http"
local json = require "neap.json"
local process = require "neap.process"

-- Four clients over raw sockets. Prints what was sent and what was answered.
local CLIENTS <const> = [==[
import json, random, socket, sys, threading
host, port, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
total, lock, faults = {}, threading.Lock(), []
def add(**more):
    with lock:
        for k, v in more.items(): total[k] = total.get(k, 0) + v
def ask(raw, read=True):
    s = socket.create_connection((host, port), timeout=20)
    s.sendall(raw)
    data = b""
    while read:
        piece = s.recv(65536)
        if not piece: break
        data += piece
    s.close()
    return data
def post(path, body, more=""):
    return ("POST %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n" % (path, len(body), more)).encode() + body.encode()
def client(me):
    r = random.Random(me)
    def items(n, bad):
        list = [{"sensor_name": "s%d" % r.randrange(20), "sensor_output": r.random()} for _ in range(n)]
        list += [{"sensor_name": "s1", "sensor_output": "abc"} for _ in range(bad)]
        r.shuffle(list)
        return json.dumps(list)
    for i in range(rounds):
        kind, n = r.randrange(8), r.randrange(1, 30)
        if kind <= 1:
            a = ask(post("/receive", items(n, 0)))
            add(sent=n, accepted=n)
            if b" 200 " not in a[:16]: faults.append(a[:200])
        elif kind == 2:
            bad = r.randrange(1, 5)
            a = ask(post("/receive", items(n, bad)))
            add(sent=n + bad, accepted=n, refused=bad)
            if b'"partial"' not in a: faults.append(a[:200])
        elif kind == 3:
            bad = r.randrange(1, 5)
            a = ask(post("/write", "".join("l%d v=%d\n" % (k % 9, k) for k in range(n)) + "l1 v=\n" * bad))
            add(sent=n + bad, accepted=n, refused=bad)
            if b" 400 " not in a[:16]: faults.append(a[:200])
        elif kind == 4:
            a = ask(post("/receive", '{"half":'))
            add(puzzling=1)
            if b" 400 " not in a[:16]: faults.append(a[:200])
        elif kind == 5:
            a = ask(post("/receive", items(n, 0), "Content-Length: 3\r\n"))
            add(malformed=1)
            if b" 400 " not in a[:16]: faults.append(a[:200])
        elif kind == 6:
            ask(post("/receive", items(n, 0)), read=False)  # leaves without its answer
            add(left=n)
        else:
            s = socket.create_connection((host, port), timeout=20)
            s.sendall(post("/receive", items(n, 0))[:-5])  # leaves in the middle of the body
            s.close()
            add(cut=1)
threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
for t in threads: t.start()
for t in threads: t.join()
total["faults"] = [f.decode("latin1") for f in faults[:3]]
print(json.dumps(total))
]==]

describe("the sums of a server", function()
    local dir, server, url

    before_each(function()
        dir = helper.dir()
        server, url = helper.serve(dir, {"--workers", "2"})
    end)
    after_each(function()
        server:stop()
        helper.remove(dir)
    end)

    it("are what was sent", function()
        helper.write(dir .. "/clients.py", CLIENTS)
        local host, port = url:match "//(.*):(%d+)"
        local socket = http.request({url = url .. "/health"}):json().redis.socket
        local redis = process.run({"redis-cli", "-s", socket, "INFO", "server"}):match "process_id:(%d+)"
        local clients = process.spawn {"python3", dir .. "/clients.py", host, port, "100", stdout = "pipe", stderr = "stdout"}
        local function metric(name)
            local text = http.request({url = url .. "/metrics"}).body
            return tonumber(text:match("\n" .. name:gsub("%p", "%%%0") .. " (%d+)") or 0)
        end
        helper.eventually(function() return metric "neap_readings_total" > 100 end, 20)
        os.execute("kill -STOP " .. redis)
        local seen = metric "neap_readings_total"
        pcall(helper.eventually, function() return metric "neap_readings_total" > seen + 100 end, 5)
        os.execute("kill -CONT " .. redis)
        local said = ""
        for line in clients:lines() do said = said .. line .. "\n" end
        assert.equal(0, (clients:wait(60)), said)
        local sent = json.decode(said)
        assert.same({}, sent.faults)

        local counts
        helper.eventually(function() -- what left early may still be on its way
            counts = http.request({url = url .. "/health"}):json().readings
            return metric "neap_http_requests_in_flight" <= 1 and metric "neap_readings_total" == counts.accepted
        end, 20)
        local sum = counts.accepted + counts.refused + counts.unavailable + counts.unanswered
        assert.is_true(sum >= sent.sent and sum <= sent.sent + sent.left, ("%d of %d to %d"):format(sum, sent.sent, sent.sent + sent.left))
        assert.equal(sent.refused, counts.refused)
        assert.equal(0, counts.unavailable)
        assert.is_true(counts.accepted >= sent.accepted and counts.accepted <= sent.accepted + sent.left)
        assert.equal(counts.refused, metric "neap_readings_refused_total")
        assert.equal(sent.puzzling, metric "neap_batches_not_understood_total")
        assert.equal(sent.malformed, metric 'neap_http_refused_total{why="malformed"}')
        helper.eventually(function() -- and Redis has what was accepted; of the unanswered ones, those that were on their way
            local applied = metric "neap_journal_applied_readings_total"
            return applied >= counts.accepted and applied <= counts.accepted + counts.unanswered
        end, 20)
    end)
end)
