// The live page: a table of all sensors, the worst first, and a chart of the chosen one. Plain DOM, no library, nothing from elsewhere.
// /api/status fills it once; then /api/live (server-sent events) says what has changed. Names and texts from the network are only ever set as
// textContent.
"use strict";

const $ = id => document.getElementById(id);
const style = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const sensors = new Map(); // name -> verdict with its recent readings
let chosen = null, history = [], fleet = null;

async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(answer.status + " " + path);
  return answer.json();
}

const make = (tag, text, name) => Object.assign(document.createElement(tag), {textContent: text, className: name || ""});
const number = x => x === undefined || x === null ? "" : Number(x.toPrecision(6)).toString();
const ago = time => {
  const s = (Date.now() - Date.parse(time)) / 1000;
  return s < 100 ? Math.max(0, s).toFixed(0) + " s ago" : s < 5400 ? (s / 60).toFixed(0) + " min ago" : s < 172800 ? (s / 3600).toFixed(0) + " h ago"
    : new Date(time).toLocaleDateString();
};
const odd = s => s.p !== undefined && s.p !== null && s.p < 0.01;
const severity = s => s.anomaly_detected ? 2 : odd(s) ? 1 : 0;
// A shape, a word and a colour: [class, text].
const state = s => s.anomaly_detected ? ["anomaly", "▲ " + s.why] : odd(s) ? ["odd", "◆ odd"] : s.state === "ok" ? ["ok", "● ok"]
  : ["dim", "○ " + (s.state === "warming up" ? "learning" : s.state)];

const ADVICE = {
  range: "Is the device calibrated, and are minimum and maximum in sensors.lua what makes sense for it?",
  rate: "A jump faster than max_rate allows is often a loose contact or a glitch of the device.",
  flatline: "A value that never moves is usually a stuck or disconnected sensor: look at the device and its wiring.",
  silence: "Is the device on, and can it reach this server? Nothing is known while nothing arrives.",
  forecast: "Look at what happened at that time. If this is the new normal, the alert ends by itself as the detector learns it.",
  shift: "Something changed slowly: wear, drift, a moved sensor, a new routine. If it is meant to be so, train again: neap train NAME.",
};

function hatch(g) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const t = tile.getContext("2d");
  t.strokeStyle = style("--bad");
  t.lineWidth = 2;
  t.beginPath();
  for (const k of [-8, 0, 8]) { t.moveTo(k, 8); t.lineTo(k + 8, 0); }
  t.stroke();
  return g.createPattern(tile, "repeat");
}

// A line over time; a gap of more than five usual steps is left blank.
function draw(canvas, readings, flagged, wide) {
  const scale = devicePixelRatio || 1, w = canvas.clientWidth || 120, h = canvas.clientHeight || 24, pad = wide ? 48 : 2;
  canvas.width = w * scale;
  canvas.height = h * scale;
  const g = canvas.getContext("2d");
  g.scale(scale, scale);
  if (readings.length < 2) return;
  const t = readings.map(r => Date.parse(r.time)), v = readings.map(r => r.value);
  const low = v.reduce((a, b) => Math.min(a, b)), high = v.reduce((a, b) => Math.max(a, b)), first = t[0], last = t[t.length - 1];
  const x = at => pad + (at - first) / (last - first || 1) * (w - pad - 4);
  const y = value => h - 4 - (wide ? 18 : 0) - (value - low) / (high - low || 1) * (h - (wide ? 30 : 8));
  g.globalAlpha = 0.5;
  g.fillStyle = hatch(g);
  for (const s of flagged || []) {
    const a = Date.parse(s.from), b = Date.parse(s.to);
    if (b >= first && a <= last) g.fillRect(x(Math.max(a, first)) - 1, 0, Math.max(3, x(Math.min(b, last)) - x(Math.max(a, first)) + 2), h - (wide ? 18 : 0));
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
  g.fillStyle = style("--soft");
  g.font = "12px system-ui";
  g.fillText(number(high), 0, 14);
  g.fillText(number(low), 0, h - 22);
  const short = {month: "short", day: "numeric", hour: "2-digit", minute: "2-digit"};
  g.fillText(new Date(first).toLocaleString([], short), pad, h - 4);
  const end = new Date(last).toLocaleString([], short);
  g.fillText(end, w - 4 - g.measureText(end).width, h - 4);
}

function row(s) {
  const tr = document.createElement("tr"), [kind, word] = state(s);
  tr.append(make("td", word, "state " + kind));
  const button = make("button", s.sensor + (s.synthetic ? " (made up)" : ""), "sensor");
  button.onclick = () => choose(s.sensor);
  const name = make("td", "");
  name.append(button);
  tr.append(name, make("td", number(s.value) + (s.unit ? " " + s.unit : ""), "number"), make("td", number(s.forecast), "number wide"),
    make("td", s.time ? ago(s.time) : "", "wide"));
  const spark = make("canvas", ""), cell = make("td", "", "wide");
  cell.append(spark);
  tr.append(cell);
  tr.className = s.sensor === chosen ? "chosen" : "";
  return [tr, () => draw(spark, s.recent || [], s.flagged_stretches, false)];
}

function show(s) {
  $("one").hidden = !s;
  if (!s) return;
  const unit = s.unit ? " " + s.unit : "";
  $("name").textContent = s.sensor;
  const usual = s.forecast === undefined ? "" : " Expected about " + number(s.forecast) + unit + ", got " + number(s.value) + unit + ".";
  $("verdict").textContent = s.anomaly_detected ? s.why + ": " + (s.text || "") + ", since " + new Date(s.since).toLocaleString() + "."
    : state(s)[1].slice(2) + "." + usual + (odd(s) ? " About 1 reading in " + Math.round(1 / s.p).toLocaleString() + " is as odd." : "");
  $("advice").textContent = s.anomaly_detected ? "What to do: " + (ADVICE[s.why] || "") : s.hint || "";
  $("chart").setAttribute("aria-label", history.length + " readings of " + s.sensor + ", " + (s.flagged_stretches || []).length + " flagged stretches");
  draw($("chart"), history, s.flagged_stretches, true);
  const flags = (s.flagged_stretches || []).slice(-5).reverse();
  $("flags").hidden = !flags.length;
  $("flags").tBodies[0].replaceChildren(...flags.map(f => {
    const tr = document.createElement("tr");
    tr.append(make("td", new Date(f.from).toLocaleString()), make("td", f.why), make("td", f.text || ""));
    return tr;
  }));
}

async function choose(name) {
  chosen = name;
  try {
    history = (await get("/api/sensors/" + encodeURIComponent(name) + "/readings?last=2000")).readings;
  } catch (e) {
    history = [];
  }
  render();
}

let waiting = false;
function render() { // at most once a frame, however many events came
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const part = $("find").value.toLowerCase(), all = [...sensors.values()];
    all.sort((a, b) => severity(b) - severity(a) || a.sensor.localeCompare(b.sensor));
    const rows = all.filter(s => s.sensor.toLowerCase().includes(part)).map(row), focus = document.activeElement;
    const at = focus && focus.className === "sensor" ? focus.textContent : null;
    $("sensors").replaceChildren(...rows.map(r => r[0]));
    rows.forEach(r => r[1]());
    if (at) for (const b of document.querySelectorAll("button.sensor")) if (b.textContent === at) b.focus();
    $("filter").hidden = all.length < 10;
    $("none").hidden = all.length > 0;
    $("sensors").parentElement.hidden = all.length === 0;
    const open = all.filter(s => s.anomaly_detected).length, week = Date.now() - 604800e3;
    const raised = all.reduce((n, s) => n + (s.flagged_stretches || []).filter(f => /forecast|shift/.test(f.why) && Date.parse(f.from) > week).length, 0);
    $("summary").textContent = all.length + (all.length === 1 ? " sensor" : " sensors") + ", " + (open ? open + " with an open alert" : "no open alert")
      + "; " + raised + (raised === 1 ? " alert" : " alerts") + " of forecast and shift in 7 days"
      + (fleet ? " (at most " + fleet.false_alarms + " a week may be false)" : "");
    document.title = (open ? "▲ " + open + " " : "") + "neap";
    show(sensors.get(chosen));
  });
}

function news(text) {
  const s = JSON.parse(text), before = sensors.get(s.sensor) || {recent: []};
  s.recent = before.recent;
  s.synthetic = before.synthetic && s.time === undefined;
  if (s.time === undefined) { s.time = before.time; s.value = before.value; }
  const last = s.recent.length ? s.recent[s.recent.length - 1].time : "";
  if (s.time && Date.parse(s.time) > (Date.parse(last) || 0)) {
    s.recent = s.recent.concat({time: s.time, value: s.value}).slice(-60);
    if (s.sensor === chosen) history = history.concat({time: s.time, value: s.value}).slice(-2000);
  }
  sensors.set(s.sensor, s);
  render();
}

async function begin() {
  try {
    const all = await get("/api/status");
    fleet = all.fleet;
    sensors.clear();
    for (const s of all.sensors) sensors.set(s.sensor, s);
    $("away").hidden = true;
    render();
    if (chosen) choose(chosen);
    const live = new EventSource("/api/live");
    live.addEventListener("sensor", e => news(e.data));
    live.onerror = () => { live.close(); away("the live stream ended"); };
  } catch (e) {
    away(e.message);
  }
}

function away(why) {
  $("away").textContent = "The server does not answer (" + why + "). What you see may be old; trying again every 3 s. Is `neap serve` running?";
  $("away").hidden = false;
  setTimeout(begin, 3000);
}

$("try").textContent = "curl -d '[{\"sensor_name\":\"temperature\",\"sensor_output\":65}]' " + location.origin + "/receive";
$("find").oninput = render;
addEventListener("resize", render);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
setInterval(render, 15000); // "12 s ago" moves on
begin();
