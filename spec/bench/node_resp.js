// Node as a peer for `neap bench post`: its http server and a hand-written RESP pipeline to Redis (the fastest form that was found).
const http = require("http");
const net = require("net");

const waiting = [];
let head = 0;
const redis = net.connect(process.env.REDIS_SOCKET);
let rest = Buffer.alloc(0);
let out = "";
redis.on("data", (chunk) => {
  // replies here are bulk strings (stream IDs) or errors, one a command
  rest = rest.length ? Buffer.concat([rest, chunk]) : chunk;
  let at = 0;
  for (;;) {
    const end = rest.indexOf("\r\n", at);
    if (end < 0) break;
    let next = end + 2;
    if (rest[at] === 36) {
      next += parseInt(rest.toString("latin1", at + 1, end), 10) + 2;
      if (rest.length < next) break;
    }
    const done = waiting[head];
    waiting[head++] = undefined;
    if (head === 4096) waiting.splice(0, head), (head = 0);
    done(rest[at] === 36);
    at = next;
  }
  rest = rest.subarray(at);
});

function xadd(key, value, done) {
  waiting.push(done);
  const v = String(value);
  if (!out) setImmediate(() => (redis.write(out), (out = "")));
  out += `*8\r\n$4\r\nXADD\r\n$${key.length}\r\n${key}\r\n$6\r\nMAXLEN\r\n$1\r\n~\r\n$6\r\n100000\r\n$1\r\n*\r\n$1\r\nv\r\n$${v.length}\r\n${v}\r\n`;
}

http
  .createServer((req, res) => {
    let body = "";
    req.on("data", (c) => (body += c));
    req.on("end", () => {
      let items;
      try {
        items = JSON.parse(body);
        if (!Array.isArray(items)) throw new Error("not a list");
      } catch (e) {
        res.writeHead(400).end('{"error":"Expected a list of JSON objects"}');
        return;
      }
      let left = items.length;
      for (const item of items) {
        xadd("neap:" + item.sensor_name, Number(item.sensor_output), () => {
          if (--left) return;
          const text = JSON.stringify({ status: "success", data: items });
          res.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) }).end(text);
        });
      }
    });
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
