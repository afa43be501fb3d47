// The live page: a table of all sensors, the worst first, and a chart of the chosen one. Plain DOM, no library, nothing from elsewhere.
// Names and texts from the network are only ever set as textContent.
"use strict";

const $ = id => document.getElementById(id);
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
let chosen = null;

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(answer.status + " " + path);
  return answer.json();
}

const number = x => x === undefined || x === null ? "" : Number(x.toPrecision(6)).toString();
const odds = p => p === undefined ? "" : p > 0.05 ? "usual" : "1 in " + Math.round(1 / p).toLocaleString("en");
const ago = time => {
  const s = (Date.now() - Date.parse(time)) / 1000;
  return s < 100 ? Math.max(0, s).toFixed(0) + " s ago" : s < 5400 ? (s / 60).toFixed(0) + " min ago" : s < 172800 ? (s / 3600).toFixed(0) + " h ago"
    : new Date(time).toLocaleDateString();
};
const severity = s => s.anomaly_detected ? 2 : s.p !== undefined && s.p < 0.01 ? 1 : 0;

// A line over time; a gap of more than five usual steps is left blank.
function draw(canvas, readings, flagged, wide) {
  const g = canvas.getContext("2d"), w = canvas.width, h = canvas.height, pad = wide ? 45 : 2;
  g.clearRect(0, 0, w, h);
  if (readings.length < 2) return;
  const t = readings.map(r => Date.parse(r.time)), v = readings.map(r => r.value);
  const low = Math.min(...v), high = Math.max(...v), first = t[0], last = t[t.length - 1];
  const x = at => pad + (at - first) / (last - first || 1) * (w - pad - 4);
  const y = value => h - 4 - (wide ? 18 : 0) - (value - low) / (high - low || 1) * (h - (wide ? 30 : 8));
  g.fillStyle = style("--bad");
  g.globalAlpha = 0.3;
  for (const s of flagged || []) {
    const a = Date.parse(s.from), b = Date.parse(s.to);
    if (b >= first && a <= last) g.fillRect(x(Math.max(a, first)), 0, Math.max(2, x(Math.min(b, last)) - x(Math.max(a, first))), h);
  }
  g.globalAlpha = 1;
  const steps = t.slice(1).map((at, i) => at - t[i]).sort((a, b) => a - b);
  const gap = 5 * steps[steps.length >> 1];
  g.strokeStyle = style("--line");
  g.lineWidth = wide ? 1.5 : 1;
  g.beginPath();
  for (let i = 0; i < t.length; i++) i && t[i] - t[i - 1] <= gap ? g.lineTo(x(t[i]), y(v[i])) : g.moveTo(x(t[i]), y(v[i]));
  g.stroke();
  if (!wide) return;
  g.fillStyle = g.strokeStyle = getComputedStyle(document.body).color;
  g.font = "12px system-ui";
  g.fillText(number(high), 0, 14);
  g.fillText(number(low), 0, h - 22);
  g.fillText(new Date(first).toLocaleString(), pad, h - 4);
  const end = new Date(last).toLocaleString();
  g.fillText(end, w - 4 - g.measureText(end).width, h - 4);
}

function row(s) {
  const tr = document.createElement("tr");
  const cell = text => tr.appendChild(Object.assign(document.createElement("td"), {textContent: text}));
  cell("").className = "lamp " + (s.anomaly_detected ? "anomaly" : severity(s) ? "odd" : s.state === "ok" ? "ok" : "");
  cell(s.sensor + (s.synthetic ? " (made up)" : ""));
  cell(number(s.value) + " " + s.unit);
  cell(number(s.forecast));
  cell(s.anomaly_detected ? s.why : odds(s.p));
  cell(s.time ? ago(s.time) : "");
  const spark = document.createElement("canvas");
  spark.width = 120; spark.height = 24;
  cell("").appendChild(spark);
  draw(spark, s.recent || [], s.flagged_stretches, false);
  tr.className = s.sensor === chosen ? "chosen" : "";
  tr.onclick = () => { chosen = s.sensor; refresh(); };
  return tr;
}

async function show(s) {
  $("one").hidden = !s;
  if (!s) return;
  $("name").textContent = s.sensor;
  $("verdict").textContent = s.anomaly_detected ? s.why + ": " + (s.text || "") + ", since " + new Date(s.since).toLocaleString()
    : s.state + (s.hint ? ". " + s.hint : "");
  const history = await get("/api/sensors/" + encodeURIComponent(s.sensor) + "/readings?last=2000");
  draw($("chart"), history.readings, s.flagged_stretches, true);
}

async function refresh() {
  try {
    const all = (await get("/api/status")).sensors;
    all.sort((a, b) => severity(b) - severity(a) || a.sensor.localeCompare(b.sensor));
    $("sensors").replaceChildren(...all.map(row));
    $("none").hidden = all.length > 0;
    $("health").textContent = all.length + " sensors";
    await show(all.find(s => s.sensor === chosen));
  } catch (e) {
    $("health").textContent = "the server does not answer: " + e.message;
  }
}

$("here").textContent = location.origin;
refresh();
setInterval(refresh, 2000);
