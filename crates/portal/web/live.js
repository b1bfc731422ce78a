// The live page: machines, alarms with their reasons, the ledger. State comes from the API; the stream says when to look.

import { words } from "/web/words.js";
import { drawCharts } from "/web/chart.js";

const find = (id) => document.getElementById(id);
const SILENT = ["shelved", "suppressed", "out_of_service"];
const UNANSWERED = ["unacknowledged", "returned_unacknowledged"];
const SHAPES = { critical: "■", warning: "▲", info: "●" };
const RANKS = { critical: 3, warning: 2, info: 1 };
const TILES_MAX = 300;
const ALARMS_MAX = 2000;
/** Alarms of a list that are drawn at first, and with every wish for more. */
const ALARMS_STEP = 25;
/** A server that answers nothing for so long is gone, whatever its connection says. */
const PATIENCE_MS = 10000;
const byName = new Intl.Collator(undefined, { numeric: true });

const state = {
  language: kept("language", ["en", "ko"]) || (navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en"),
  /** What is null is not known yet, which is not the same as none. */
  machines: null,
  alarms: null,
  drawn: { machine: ALARMS_STEP, sensor: ALARMS_STEP, system: ALARMS_STEP, notice: ALARMS_STEP },
  classes: new Map(),
  ledger: null,
  dead: [],
  seq: null,
  chosen: null,
  /** Key of the button that opened the machine; closing gives the focus back. */
  opener: null,
  status: null,
  link: "connecting",
};

// --- words ---

function word(key, holes = {}) {
  // In one go: what is put in may itself look like a hole.
  return (words[state.language][key] ?? key).replace(/\{(\w+)\}/g, (hole, name) => holes[name] ?? hole);
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

/**
 * Makes an element hold these rows. One that looks as before stays the node that it is, so that a press, a selection or the
 * focus on it outlasts the drawing; the focus of one that changed goes to its next of kin.
 */
function fill(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const key = (child, at) => child.dataset.row ?? String(at);
  const before = new Map([...parent.children].map((child, at) => [key(child, at), child]));
  const rows = children.map((child, at) => {
    const old = before.get(key(child, at));
    return old?.isEqualNode(child) ? old : child;
  });
  const stay = new Set(rows);
  for (const child of [...parent.children]) if (!stay.has(child)) child.remove();
  rows.forEach((row, at) => {
    if (parent.children[at] !== row) parent.insertBefore(row, parent.children[at] ?? null);
  });
  if (!focused || parent.contains(document.activeElement)) return;
  const buttons = [...parent.querySelectorAll("[data-key]")];
  const kin = focused.split(" ").pop();
  (buttons.find((one) => one.dataset.key === focused) ?? buttons.find((one) => one.dataset.key.endsWith(` ${kin}`)) ?? buttons[0])?.focus();
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
  const options = { method, signal: AbortSignal.timeout(PATIENCE_MS), headers: body ? { "content-type": "application/json" } : {}, body: body && JSON.stringify(body) };
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
    state.machines = new Map(rows.map((row) => [row.machine_id, row]));
  },
  async alarms() {
    state.alarms = await pages("/api/alarms?open=true", "alarms", ALARMS_MAX);
  },
  async ledger() {
    [state.ledger, state.dead] = await Promise.all([
      ask("/api/ledger"),
      ask("/api/dead-letters?limit=5").then((page) => page.dead_letters),
    ]);
  },
};

/** Loads a part soon; many wishes become one. One answer is awaited before the next is asked for: none overtakes a newer one. */
const wished = new Set();
const loading = new Set();
const again = new Set();
function wish(part, delay = 100) {
  if (loading.has(part)) return again.add(part);
  if (wished.has(part)) return;
  wished.add(part);
  setTimeout(async () => {
    wished.delete(part);
    loading.add(part);
    let failed = false;
    try {
      await load[part]();
      draw(part);
    } catch (error) {
      failed = true;
      if (error.name === "TimeoutError") lose();
    }
    loading.delete(part);
    // What failed on a standing link nobody would ask for again; a new link asks for everything.
    if (again.delete(part) || (failed && state.link === "connected")) wish(part, failed ? 2000 : 100);
  }, delay);
}

function wishAll() {
  for (const part of ["classes", "machines", "alarms", "ledger"]) wish(part, 0);
}

// --- the stream ---

let pause = 500;
let socket = null;
function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const mine = new WebSocket(`${scheme}//${location.host}/ws${state.seq === null ? "" : `?after=${state.seq}`}`);
  socket = mine;
  mine.onopen = () => {
    pause = 500;
    say("connected");
    wishAll();
  };
  mine.onmessage = (message) => take(JSON.parse(message.data));
  mine.onclose = () => lose(mine);
}

/** Gives a link up and tries again later; once for each link. */
function lose(gone = socket) {
  if (!gone || gone !== socket) return;
  socket = null;
  gone.onmessage = gone.onopen = null;
  gone.close();
  say("disconnected");
  setTimeout(connect, pause);
  pause = Math.min(pause * 2, 5000);
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
  const machine = state.machines?.get(live.machine_id);
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
    link.classList.toggle("lost", state.link === "disconnected");
  },
  classes() {
    draw("alarms");
    draw("machines");
  },
  alarms() {
    drawCounts();
    // Laws and quantities have their names from the classes; without them there would be ids.
    if (!state.classes.size || !state.alarms) return;
    for (const list of document.querySelectorAll("[data-list]")) {
      const kind = list.dataset.list;
      const alarms = state.alarms.filter((alarm) => (alarm.notice ? "notice" : alarm.subject) === kind);
      const [title, rows, more] = list.children;
      list.hidden = alarms.length === 0;
      title.textContent = `${word(`list_${kind}`)} (${alarms.length.toLocaleString(state.language)})`;
      fill(rows, ...alarms.slice(0, state.drawn[kind]).map(drawAlarm));
      const rest = alarms.length - state.drawn[kind];
      more.hidden = rest <= 0;
      more.textContent = word("more_alarms", { n: rest.toLocaleString(state.language) });
    }
    find("no-alarms").hidden = state.alarms.length > 0;
    draw("machines");
  },
  machines() {
    if (!state.classes.size || !state.machines) return;
    drawTiles();
    drawSentence();
  },
  ledger() {
    if (!state.ledger) return;
    const rows = state.ledger.sources;
    const keys = ["received", "stored", "rejected", "duplicate", "in_flight"];
    fill(find("ledger"), ...rows.map((row) => element("tr", { "data-row": row.source },
      element("th", { scope: "row" }, row.source),
      ...keys.map((key) => element("td", {}, row[key].toLocaleString(state.language))))));
    const balance = find("balance");
    balance.textContent = word(state.ledger.balanced ? "balanced" : "unbalanced");
    balance.classList.toggle("wrong", !state.ledger.balanced);
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
  const count = (...states) => state.alarms
    ? state.alarms.filter((alarm) => states.includes(alarm.state)).length.toLocaleString(state.language) + (state.alarms.length >= ALARMS_MAX ? "+" : "")
    : "–";
  fill(find("counts"), ...[["unacknowledged", count(...UNANSWERED)], ["acknowledged", count("acknowledged")], ["shelved", count("shelved")]]
    .map(([key, n]) => element("li", {}, `${word(key)} `, element("b", {}, n))));
}

/** What people call a quantity of a class. */
function name(classId, quantity) {
  const known = state.classes.get(classId);
  const found = [...(known?.channels ?? []), ...(known?.derived ?? [])].find((one) => one.id === quantity);
  return said(found?.name) || quantity;
}

function machineName(id) {
  const machine = state.machines?.get(id);
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
  // Of a law with alternatives, those that hold.
  const terms = (reason?.terms ?? []).filter((term) => term.margin >= 0);
  const to = `${machineName(alarm.machine_id)}: ${word(alarm.severity)}`;
  return element("li", { class: `alarm ${alarm.severity}${silent ? "" : " open"}`, "data-row": alarm.alarm_id },
    element("div", { class: "alarm-head" },
      mark(alarm.severity, { blinks: unanswered, silent }),
      element("strong", {}, alarm.subject === "system" ? alarm.machine_id : element("button", {
        type: "button", "data-key": `show ${alarm.alarm_id}`, on: { click: () => choose(alarm.machine_id) },
      }, machineName(alarm.machine_id))),
      element("span", { class: "quiet" }, facts.join(" · "))),
    // The whole sentence repeats what the lines below say one by one.
    element("p", { class: "text" }, terms.length && law ? said(law.name) : said(alarm.text) || alarm.condition),
    ...terms.map((term) => element("p", { class: "numbers" },
      `${name(classId, term.quantity)}: ${word("measured")} ${number(term.measured)} ${term.unit}, `,
      `${word("limit")} ${number(term.limit)} ${term.unit}, ${word(`margin_${term.direction}`, { n: `${number(term.margin)} ${term.unit}` })}`)),
    reason?.counterfactual?.length ? element("p", { class: "numbers" },
      element("b", {}, `${word(reason.adjustable === false ? "normal_when" : "clears_when")}: `),
      reason.counterfactual.map((step) => change(classId, step)).join(", ")) : null,
    said(law?.action) ? element("p", {}, element("b", {}, `${word("what_to_do")}: `), said(law.action)) : null,
    element("div", { class: "tools" },
      unanswered && !alarm.notice ? action(alarm, "acknowledge", to, () => askFor(alarm, "ack")) : null,
      ["unacknowledged", "acknowledged", "returned_unacknowledged"].includes(alarm.state) && !alarm.notice
        ? action(alarm, "shelve", to, () => askFor(alarm, "shelve")) : null,
      alarm.state === "shelved" ? action(alarm, "unshelve", to, () => order(alarm, "unshelve", {}).catch(() => wish("alarms"))) : null,
      alarm.state === "out_of_service"
        ? action(alarm, "return_to_service", to, () => order(alarm, "return-to-service", {}).catch(() => wish("alarms"))) : null));
}

function action(alarm, key, about, click) {
  const label = `${word(key)}: ${about}`;
  return element("button", { type: "button", "data-key": `${key} ${alarm.alarm_id}`, "aria-label": label, on: { click } }, word(key));
}

/** A change in percent; one that would read 0 tells that it is small. */
function percentText(percent) {
  if (percent !== 0 && Math.abs(percent) < 0.1) return "<0.1";
  return `${percent > 0 ? "+" : ""}${percent.toLocaleString(state.language, { maximumFractionDigits: 1 })}`;
}

function change(classId, step) {
  const percent = typeof step.change_percent === "number" ? ` (${percentText(step.change_percent)}\u00a0%)` : "";
  return `${name(classId, step.channel)} ${number(step.from)} → ${number(step.to)} ${step.unit}${percent}`;
}

function drawTiles() {
  const text = find("filter").value.trim().toLowerCase();
  const shown = [...state.machines.values()]
    .filter((machine) => !text || [machine.machine_id, machine.name_en, machine.name_ko, machine.line, machine.cell, machine.class]
      .some((part) => part?.toLowerCase().includes(text)))
    .sort((a, b) => (RANKS[b.severity] ?? 0) - (RANKS[a.severity] ?? 0) || byName.compare(a.machine_id, b.machine_id));
  fill(find("tiles"), ...shown.slice(0, TILES_MAX).map((machine) => element("li", { "data-row": machine.machine_id }, element("button", {
    type: "button", class: `tile ${machine.severity ?? ""}${machine.stale ? " stale" : ""}`, "data-key": machine.machine_id,
    "aria-pressed": machine.machine_id === state.chosen ? "true" : "false", on: { click: () => choose(machine.machine_id) },
  },
  element("b", {}, machineName(machine.machine_id)),
  [machine.line, machine.cell].some(Boolean) ? element("span", { class: "place" }, [machine.line, machine.cell].filter(Boolean).join(" / ")) : null,
  element("span", { class: "state" }, [word(machine.state), machine.stale ? word("stale") : ""].filter(Boolean).join(" · ")),
  machine.severity ? mark(machine.severity) : null,
  machine.conditions?.length ? element("span", { class: "state" }, machine.conditions.map((id) => conditionName(machine.class, id)).join(", ")) : null))));
  const rest = shown.length - TILES_MAX;
  find("more").textContent = state.machines.size === 0 ? word("no_machines") : shown.length === 0 ? word("no_match") : rest > 0 ? word("more", { n: rest.toLocaleString(state.language) }) : "";
}

function conditionName(classId, condition) {
  const law = said(state.classes.get(classId)?.laws.find((law) => law.id === condition)?.name);
  const [kind, of] = condition.split(":");
  const sensor = `sensor_${kind}`;
  return law || (sensor in words.en ? word(sensor, { channel: of && name(classId, of) }) : condition);
}

// --- one machine ---

function choose(id) {
  state.chosen = id;
  state.opener = document.activeElement?.dataset.key ?? null;
  find("machine").hidden = false;
  find("machine-title").textContent = machineName(id);
  find("machine-title").focus();
  // Until its own are there, none: those of another machine would be taken for its.
  find("charts").replaceChildren();
  history.replaceState(null, "", `#machine=${encodeURIComponent(id)}`);
  drawing.machines();
  showCharts();
}

function drawSentence() {
  if (state.chosen === null) return;
  const machine = state.machines.get(state.chosen);
  find("machine-title").textContent = machineName(state.chosen);
  if (!machine) {
    find("sentence").textContent = word("no_such_machine");
    return;
  }
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
  const machine = state.machines?.get(state.chosen);
  if (!machine) return;
  const seconds = Number(find("range").value);
  const channels = state.classes.get(machine.class)?.channels ?? [];
  try {
    const status = await ask(`/api/machines/${encodeURIComponent(machine.machine_id)}/status`);
    state.status = status;
    drawSentence();
    await drawCharts(find("charts"), { machine, channels, values: status.values, seconds, ask, element, word, said, number, time,
      wanted: () => state.chosen === machine.machine_id && seconds === Number(find("range").value) });
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
  find("order-alarm").textContent = said(alarm.text) || `${machineName(alarm.machine_id)}: ${alarm.condition}`;
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
  // A second press would be a second order.
  find("order-send").disabled = true;
  const body = asked.what === "shelve" ? { reason: text, minutes: Number(find("order-minutes").value) } : { comment: text };
  try {
    await order(asked.alarm, asked.what, body);
    find("order").close();
  } catch (error) {
    find("order-error").textContent = word("failed", { why: error.message });
  } finally {
    find("order-send").disabled = false;
  }
}

// --- the page ---

function speak() {
  document.documentElement.lang = state.language;
  for (const one of document.querySelectorAll("[data-word]")) one.textContent = word(one.dataset.word);
  for (const one of document.querySelectorAll("[data-label]")) one.setAttribute("aria-label", word(one.dataset.label));
  find("language").textContent = word("other_language");
  find("language").lang = state.language === "ko" ? "en" : "ko";
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
for (const list of document.querySelectorAll("[data-list]")) {
  list.lastElementChild.addEventListener("click", () => {
    const shown = state.drawn[list.dataset.list];
    state.drawn[list.dataset.list] += ALARMS_STEP;
    drawing.alarms();
    list.querySelectorAll(".alarm")[shown]?.querySelector("button")?.focus();
  });
}
find("close").addEventListener("click", () => {
  state.chosen = null;
  find("machine").hidden = true;
  history.replaceState(null, "", location.pathname);
  drawTiles();
  ([...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === state.opener) ?? find("filter")).focus();
});
find("order-form").addEventListener("submit", send);
find("order-cancel").addEventListener("click", () => find("order").close());

speak();
connect();
// What no frame tells: counts of the ledger, machines that fell silent, the chart of a chosen machine.
setInterval(() => wish("ledger", 0), 3000);
setInterval(() => wish("machines", 0), 10000);
setInterval(showCharts, 5000);
function chooseNamed() {
  const named = new URLSearchParams(location.hash.slice(1)).get("machine");
  if (named) Promise.all([load.classes(), load.machines()]).then(() => choose(named), () => {});
}
addEventListener("hashchange", chooseNamed);
chooseNamed();
