// The live page: machines, alarms with their reasons, the ledger. State comes from the API; the stream says when to look.

import { words } from "/web/words.js";
import { drawCharts } from "/web/chart.js";

const find = (id) => document.getElementById(id);
const SILENT = ["shelved", "suppressed", "out_of_service"];
const UNANSWERED = ["unacknowledged", "returned_unacknowledged"];
const SHAPES = { critical: "■", warning: "▲", info: "●" };
const RANKS = { critical: 3, warning: 2, info: 1 };
const TILES_MAX = 300;

const state = {
  language: kept("language", ["en", "ko"]) || (navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en"),
  machines: new Map(),
  alarms: [],
  classes: new Map(),
  ledger: null,
  dead: [],
  seq: null,
  chosen: null,
  status: null,
  link: "connecting",
};

// --- words ---

function word(key, holes = {}) {
  let text = words[state.language][key] ?? key;
  for (const [name, value] of Object.entries(holes)) text = text.replace(`{${name}}`, value);
  return text;
}

/** A text in two languages, as the API has it. */
const said = (text) => (text && (text[state.language] || text.en)) || "";

function number(value) {
  if (typeof value !== "number") return "–";
  return value.toLocaleString(state.language, { maximumFractionDigits: Math.abs(value) >= 1000 ? 1 : Math.abs(value) >= 1 ? 2 : 4 });
}

function time(text) {
  if (!text) return "–";
  const at = new Date(text);
  const today = new Date().toDateString() === at.toDateString();
  const day = today ? {} : { year: "numeric", month: "2-digit", day: "2-digit" };
  return at.toLocaleString(state.language, { ...day, hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

function kept(name, allowed) {
  try {
    const value = localStorage.getItem(`millwright.${name}`);
    return allowed.includes(value) ? value : null;
  } catch {
    return null;
  }
}

function keep(name, value) {
  try {
    localStorage.setItem(`millwright.${name}`, value);
  } catch {
    // The choice then holds for this visit.
  }
}

// --- elements ---

function element(tag, keys = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(keys)) {
    if (key === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

/** Replaces what an element holds, without moving the focus away from a button that is drawn again. */
function fill(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  parent.replaceChildren(...children);
  if (focused) [...parent.querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused)?.focus();
}

/** Shape, letter and word: colour is never alone. */
function mark(severity, { blinks = false, silent = false } = {}) {
  const look = `mark ${silent ? "silent" : severity}${blinks ? " blinks" : ""}`;
  return element("span", { class: look },
    element("span", { class: "shape", "aria-hidden": "true" }, SHAPES[severity] || "●"),
    element("span", { "aria-hidden": "true" }, word(`${severity}_letter`)),
    element("span", {}, word(severity)));
}

// --- the API ---

async function ask(path, method = "GET", body) {
  const options = { method, headers: body ? { "content-type": "application/json" } : {}, body: body && JSON.stringify(body) };
  const answer = await fetch(path, options);
  const text = await answer.text();
  const value = text ? JSON.parse(text) : {};
  if (!answer.ok) throw new Error(value.detail || value.title || String(answer.status));
  return value;
}

async function pages(path, key, most) {
  const rows = [];
  let cursor = null;
  do {
    const page = await ask(path + (path.includes("?") ? "&" : "?") + "limit=1000" + (cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""));
    rows.push(...page[key]);
    cursor = page.next_cursor;
  } while (cursor && rows.length < most);
  return rows;
}

const load = {
  async classes() {
    state.classes = new Map((await ask("/api/classes")).classes.map((one) => [one.id, one]));
  },
  async machines() {
    const rows = await pages("/api/machines", "machines", 20000);
    const before = state.machines;
    state.machines = new Map(rows.map((row) => [row.machine_id, { ...before.get(row.machine_id), ...row }]));
  },
  async alarms() {
    state.alarms = await pages("/api/alarms?open=true", "alarms", 2000);
  },
  async ledger() {
    [state.ledger, state.dead] = await Promise.all([
      ask("/api/ledger"),
      ask("/api/dead-letters?limit=5").then((page) => page.dead_letters),
    ]);
  },
};

/** Loads a part soon; many wishes become one. */
const wished = new Map();
function wish(part, delay = 100) {
  if (wished.has(part)) return;
  wished.set(part, setTimeout(async () => {
    wished.delete(part);
    try {
      await load[part]();
      draw(part);
    } catch {
      // The link says that the server is gone; the next wish asks again.
    }
  }, delay));
}

function wishAll() {
  for (const part of ["classes", "machines", "alarms", "ledger"]) wish(part, 0);
}

// --- the stream ---

let pause = 500;
function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/ws${state.seq === null ? "" : `?after=${state.seq}`}`);
  socket.onopen = () => {
    pause = 500;
    say("connected");
    wishAll();
  };
  socket.onmessage = (message) => take(JSON.parse(message.data));
  socket.onclose = () => {
    say("disconnected");
    setTimeout(connect, pause);
    pause = Math.min(pause * 2, 5000);
  };
}

function say(link) {
  state.link = link;
  draw("link");
}

function take(frame) {
  if (typeof frame.seq === "number") state.seq = frame.seq;
  switch (frame.type) {
    case "live":
      for (const one of [frame.data.machines ?? frame.data].flat()) takeLive(one);
      draw("machines");
      break;
    case "alarm":
    case "alert":
      wish("alarms");
      break;
    case "machine":
      wish("machines");
      break;
    default:
      wishAll();
  }
}

function takeLive(live) {
  const machine = state.machines.get(live.machine_id);
  if (!machine) return wish("machines", 500);
  const standing = live.conditions ?? [];
  const worst = standing.map((one) => one.severity).sort((a, b) => RANKS[b] - RANKS[a])[0] ?? null;
  Object.assign(machine, {
    state: live.state, stale: live.stale ?? false, last_seen: live.last_seen, severity: worst,
    conditions: standing.map((one) => one.condition),
  });
}

// --- drawing ---

const waiting = new Set();
/** Draws a part in the next frame, at most a few times a second. */
function draw(part) {
  if (waiting.has(part)) return;
  waiting.add(part);
  setTimeout(() => requestAnimationFrame(() => {
    waiting.delete(part);
    drawing[part]?.();
  }), part === "machines" ? 250 : 0);
}

const drawing = {
  link() {
    const link = find("link");
    link.textContent = word(state.link);
    link.classList.toggle("on", state.link === "connected");
  },
  classes() {
    draw("alarms");
    draw("machines");
  },
  alarms() {
    drawCounts();
    // Laws and quantities have their names from the classes; without them there would be ids.
    if (!state.classes.size) return;
    const notices = state.alarms.filter((alarm) => alarm.notice);
    const lists = ["machine", "sensor", "system"].map((subject) => [
      `list_${subject}`, state.alarms.filter((alarm) => alarm.subject === subject && !alarm.notice),
    ]);
    const drawn = [...lists, ["list_notice", notices]].filter(([, alarms]) => alarms.length > 0).flatMap(([title, alarms]) => [
      element("h3", {}, `${word(title)} (${alarms.length})`),
      element("ul", { class: "alarm-list" }, ...alarms.map(drawAlarm)),
    ]);
    fill(find("alarm-lists"), ...(drawn.length ? drawn : [element("p", { class: "quiet" }, word("no_alarms"))]));
    draw("machines");
  },
  machines() {
    if (!state.classes.size) return;
    drawTiles();
    drawSentence();
  },
  ledger() {
    const rows = state.ledger?.sources ?? [];
    const keys = ["received", "stored", "rejected", "duplicate", "in_flight"];
    fill(find("ledger"), ...rows.map((row) => element("tr", {},
      element("th", { scope: "row" }, row.source),
      ...keys.map((key) => element("td", {}, row[key].toLocaleString(state.language))))));
    const balance = find("balance");
    balance.textContent = state.ledger ? word(state.ledger.balanced ? "balanced" : "unbalanced") : "";
    balance.classList.toggle("wrong", state.ledger?.balanced === false);
    const refused = rows.reduce((sum, row) => sum + row.rejected, 0);
    find("dead-count").textContent = refused
      ? word("dead_count", { n: refused.toLocaleString(state.language) })
      : word("dead_none");
    fill(find("dead"), ...state.dead.map((letter) => element("li", {},
      `${time(letter.arrived_at)} ${letter.error_code}: ${letter.error} `,
      element("code", {}, (letter.payload ?? letter.payload_base64 ?? "").slice(0, 160)))));
  },
};

function drawCounts() {
  const count = (...states) => state.alarms.filter((alarm) => states.includes(alarm.state)).length;
  fill(find("counts"), ...[["unacknowledged", count(...UNANSWERED)], ["acknowledged", count("acknowledged")], ["shelved", count("shelved")]]
    .map(([key, n]) => element("li", {}, `${word(key)} `, element("b", {}, String(n)))));
}

/** What people call a quantity of a class. */
function name(classId, quantity) {
  const known = state.classes.get(classId);
  const found = [...(known?.channels ?? []), ...(known?.derived ?? [])].find((one) => one.id === quantity);
  return said(found?.name) || quantity;
}

function machineName(id) {
  const machine = state.machines.get(id);
  return (machine && (state.language === "ko" ? machine.name_ko || machine.name_en : machine.name_en || machine.name_ko)) || id;
}

function drawAlarm(alarm) {
  const reason = alarm.alert?.reason;
  const classId = alarm.alert?.class;
  const law = state.classes.get(classId)?.laws.find((one) => one.id === (reason?.law ?? alarm.condition));
  const unanswered = UNANSWERED.includes(alarm.state);
  const silent = SILENT.includes(alarm.state);
  const facts = [
    word(alarm.state),
    alarm.priority ? word("priority", { n: alarm.priority }) : "",
    word("since", { time: time(alarm.last_raised) }),
    alarm.count > 1 ? word("raised_times", { n: alarm.count }) : "",
    alarm.found_late ? word("found_late") : "",
    alarm.shelved_until ? word("until", { time: time(alarm.shelved_until) }) : "",
    alarm.reason ?? "",
    alarm.maintenance ? `${word("maintenance")} ${word("until", { time: time(alarm.maintenance.until) })}` : "",
    alarm.acknowledged ? word("by", { who: alarm.acknowledged.by }) : "",
    alarm.acknowledged?.comment ?? "",
  ].filter(Boolean);
  const term = reason?.terms?.[0];
  const to = `${machineName(alarm.machine_id)}: ${word(alarm.severity)}`;
  return element("li", { class: `alarm ${alarm.severity}${silent ? "" : " open"}` },
    element("div", { class: "alarm-head" },
      mark(alarm.severity, { blinks: unanswered, silent }),
      element("strong", {}, alarm.subject === "system" ? alarm.machine_id : element("button", {
        type: "button", "data-key": `show ${alarm.alarm_id}`, on: { click: () => choose(alarm.machine_id) },
      }, machineName(alarm.machine_id))),
      element("span", { class: "quiet" }, facts.join(" · "))),
    // The whole sentence repeats what the lines below say one by one.
    element("p", { class: "text" }, term && law ? said(law.name) : said(alarm.text) || alarm.condition),
    term ? element("p", { class: "numbers" },
      `${name(classId, term.quantity)}: ${word("measured")} ${number(term.measured)} ${term.unit}, `,
      `${word("limit")} ${number(term.limit)} ${term.unit}, ${word(`margin_${term.direction}`, { n: `${number(term.margin)} ${term.unit}` })}`) : null,
    reason?.counterfactual?.length ? element("p", { class: "numbers" },
      element("b", {}, `${word(reason.adjustable === false ? "normal_when" : "clears_when")}: `),
      reason.counterfactual.map((step) => change(classId, step)).join(", ")) : null,
    said(law?.action) ? element("p", {}, element("b", {}, `${word("what_to_do")}: `), said(law.action)) : null,
    element("div", { class: "tools" },
      unanswered && !alarm.notice ? action(alarm, "acknowledge", to, () => askFor(alarm, "ack")) : null,
      ["unacknowledged", "acknowledged", "returned_unacknowledged"].includes(alarm.state) && !alarm.notice
        ? action(alarm, "shelve", to, () => askFor(alarm, "shelve")) : null,
      alarm.state === "shelved" ? action(alarm, "unshelve", to, () => order(alarm, "unshelve", {}).catch(() => wish("alarms"))) : null));
}

function action(alarm, key, about, click) {
  const label = `${word(key)}: ${about}`;
  return element("button", { type: "button", "data-key": `${key} ${alarm.alarm_id}`, "aria-label": label, on: { click } }, word(key));
}

function change(classId, step) {
  const percent = typeof step.change_percent === "number" ? ` (${step.change_percent > 0 ? "+" : ""}${step.change_percent.toLocaleString(state.language, { maximumFractionDigits: 1 })} %)` : "";
  return `${name(classId, step.channel)} ${number(step.from)} → ${number(step.to)} ${step.unit}${percent}`;
}

function drawTiles() {
  const text = find("filter").value.trim().toLowerCase();
  const shown = [...state.machines.values()]
    .filter((machine) => !text || [machine.machine_id, machine.name_en, machine.name_ko, machine.line, machine.cell, machine.class]
      .some((part) => part?.toLowerCase().includes(text)))
    .sort((a, b) => (RANKS[b.severity] ?? 0) - (RANKS[a.severity] ?? 0) || a.machine_id.localeCompare(b.machine_id));
  fill(find("tiles"), ...shown.slice(0, TILES_MAX).map((machine) => element("li", {}, element("button", {
    type: "button", class: `tile ${machine.severity ?? ""}${machine.stale ? " stale" : ""}`, "data-key": machine.machine_id,
    "aria-pressed": machine.machine_id === state.chosen ? "true" : "false", on: { click: () => choose(machine.machine_id) },
  },
  element("b", {}, machineName(machine.machine_id)),
  [machine.line, machine.cell].some(Boolean) ? element("span", { class: "place" }, [machine.line, machine.cell].filter(Boolean).join(" / ")) : null,
  element("span", { class: "state" }, [word(machine.state), machine.stale ? word("stale") : ""].filter(Boolean).join(" · ")),
  machine.severity ? mark(machine.severity) : null,
  machine.conditions?.length ? element("span", { class: "state" }, machine.conditions.map((id) => conditionName(machine.class, id)).join(", ")) : null))));
  const rest = shown.length - TILES_MAX;
  find("more").textContent = shown.length === 0 ? word("no_machines") : rest > 0 ? word("more", { n: rest }) : "";
}

function conditionName(classId, condition) {
  return said(state.classes.get(classId)?.laws.find((law) => law.id === condition)?.name) || condition;
}

// --- one machine ---

function choose(id) {
  state.chosen = id;
  find("machine").hidden = false;
  find("machine-title").textContent = machineName(id);
  find("machine-title").focus();
  history.replaceState(null, "", `#machine=${encodeURIComponent(id)}`);
  drawTiles();
  drawSentence();
  showCharts();
}

function drawSentence() {
  const machine = state.machines.get(state.chosen);
  if (!machine) return;
  find("machine-title").textContent = machineName(state.chosen);
  const holes = {
    machine: machineName(state.chosen),
    state: [word(machine.state), machine.stale ? word("stale") : ""].filter(Boolean).join(", "),
    conditions: (machine.conditions ?? []).map((id) => conditionName(machine.class, id)).join(", "),
  };
  // Laws judge from the first reading on; a class without them has to learn first.
  const status = state.status?.machine_id === state.chosen ? state.status : null;
  const learning = status && status.learned_s < status.baseline_s && !state.classes.get(machine.class)?.laws.length
    ? ` ${word("learning", { done: number(Math.floor(status.learned_s / 3600)), all: number(status.baseline_s / 3600) })}` : "";
  find("sentence").textContent = word(holes.conditions ? "sentence_ill" : "sentence_well", holes) + learning;
}

async function showCharts() {
  const machine = state.machines.get(state.chosen);
  if (!machine) return;
  const channels = state.classes.get(machine.class)?.channels ?? [];
  try {
    state.status = await ask(`/api/machines/${encodeURIComponent(machine.machine_id)}/status`);
    drawSentence();
    await drawCharts(find("charts"), { machine, channels, seconds: Number(find("range").value), ask, element, word, said, number, time,
      wanted: () => state.chosen === machine.machine_id });
  } catch {
    // The link tells; the next round draws.
  }
}

// --- orders ---

let asked = null;
function askFor(alarm, what) {
  asked = { alarm, what };
  const shelve = what === "shelve";
  find("order-title").textContent = word(shelve ? "shelve" : "acknowledge");
  find("order-alarm").textContent = `${machineName(alarm.machine_id)} · ${said(alarm.text) || alarm.condition}`;
  find("order-minutes-row").hidden = !shelve;
  find("order-text-word").textContent = word(shelve ? "reason" : "comment");
  find("order-text").required = shelve;
  find("order-text").value = "";
  find("order-error").textContent = "";
  find("order-send").textContent = word(shelve ? "shelve" : "acknowledge");
  find("order").showModal();
  find("order-text").focus();
}

async function order(alarm, what, body) {
  await ask(`/api/alarms/${alarm.alarm_id}/${what}`, "POST", body);
  wish("alarms", 0);
}

async function send(event) {
  event.preventDefault();
  const text = find("order-text").value;
  const body = asked.what === "shelve" ? { reason: text, minutes: Number(find("order-minutes").value) } : { comment: text };
  try {
    await order(asked.alarm, asked.what, body);
    find("order").close();
  } catch (error) {
    find("order-error").textContent = word("failed", { why: error.message });
  }
}

// --- the page ---

function speak() {
  document.documentElement.lang = state.language;
  for (const one of document.querySelectorAll("[data-word]")) one.textContent = word(one.dataset.word);
  for (const one of document.querySelectorAll("[data-label]")) one.setAttribute("aria-label", word(one.dataset.label));
  find("language").textContent = word("language_short");
  find("filter").placeholder = word("filter");
  for (const part of Object.keys(drawing)) draw(part);
  if (state.chosen) showCharts();
}

find("language").addEventListener("click", () => {
  state.language = state.language === "ko" ? "en" : "ko";
  keep("language", state.language);
  speak();
});
find("theme").addEventListener("click", () => {
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  keep("theme", dark ? "light" : "dark");
});
find("filter").addEventListener("input", () => draw("machines"));
find("range").addEventListener("change", showCharts);
find("close").addEventListener("click", () => {
  state.chosen = null;
  find("machine").hidden = true;
  history.replaceState(null, "", location.pathname);
  drawTiles();
});
find("order-form").addEventListener("submit", send);
find("order-cancel").addEventListener("click", () => find("order").close());

speak();
connect();
// What no frame tells: counts of the ledger, machines that fell silent, the chart of a chosen machine.
setInterval(() => wish("ledger", 0), 3000);
setInterval(() => wish("machines", 0), 10000);
setInterval(showCharts, 5000);
const named = new URLSearchParams(location.hash.slice(1)).get("machine");
if (named) {
  Promise.all([load.classes(), load.machines()]).then(() => choose(named), () => {});
}
