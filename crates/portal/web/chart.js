// Charts of one machine: a band from minimum to maximum and the mean in it, with the values in a table behind.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600;
const HEIGHT = 110;

function shape(tag, keys) {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(keys)) made.setAttribute(key, value);
  return made;
}

/** Draws every channel of a machine; `wanted` tells whether somebody still looks. */
export async function drawCharts(parent, { machine, channels, values, seconds, ask, element, word, said, number, time, wanted }) {
  const id = encodeURIComponent(machine.machine_id);
  // The range ends at the newest reading, which for replayed data is not now.
  const to = machine.last_seen ? Date.parse(machine.last_seen) + 1 : Date.now();
  const from = to - seconds * 1000;
  const range = `from=${encodeURIComponent(new Date(from).toISOString())}&to=${encodeURIComponent(new Date(to).toISOString())}`;
  const [alerts, ...charts] = await Promise.all([
    ask(`/api/alerts?machine_id=${id}&${range}&limit=200`),
    ...channels.map((channel) => ask(`/api/machines/${id}/chart?channel=${encodeURIComponent(channel.id)}&${range}&points=300`)),
  ]);
  if (!wanted()) return;
  const raised = alerts.alerts.filter((alert) => alert.kind === "raised");
  const tables = () => [...parent.querySelectorAll("details")];
  const open = new Set(tables().filter((one) => one.open).map((one) => one.dataset.channel));
  // Whoever reads a table keeps the place in it.
  const places = new Map(tables().map((one) => [one.dataset.channel, one.querySelector(".scroll").scrollTop]));
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  const reader = focused?.closest("details")?.dataset.channel;
  const drawn = channels.map((channel, at) => {
    const { buckets } = charts[at];
    const label = said(channel.name) || channel.id;
    if (buckets.length === 0) {
      return element("figure", { class: "chart" }, element("figcaption", {}, element("b", {}, label)),
        element("p", { class: "quiet" }, word("no_readings")));
    }
    const low = Math.min(...buckets.map((bucket) => bucket.min));
    const high = Math.max(...buckets.map((bucket) => bucket.max));
    const summary = word("chart_of", { name: label, min: number(low), max: number(high), unit: channel.unit });
    return element("figure", { class: "chart" },
      element("figcaption", {}, element("b", {}, label), element("span", {},
        `${number(values[channel.id]?.last)} ${channel.unit} `, element("span", { class: "quiet" }, `(${number(low)} – ${number(high)})`))),
      plot(buckets, { from, to, low, high, raised, summary }),
      element("div", { class: "ends quiet" }, element("span", {}, time(new Date(from).toISOString())),
        element("span", {}, time(new Date(to).toISOString()))),
      table(channel, buckets, { open: open.has(channel.id), label, element, word, number, time }));
  });
  parent.replaceChildren(...drawn);
  for (const one of tables()) {
    one.querySelector(".scroll").scrollTop = places.get(one.dataset.channel) ?? 0;
    if (one.dataset.channel === reader) one.querySelector(focused.localName).focus({ preventScroll: true });
  }
}

function plot(buckets, { from, to, low, high, raised, summary }) {
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": summary });
  const span = high - low || 1;
  const x = (at) => ((at - from) / (to - from)) * WIDTH;
  const y = (value) => HEIGHT - 6 - ((value - low) / span) * (HEIGHT - 12);
  const point = (bucket, key) => `${x(Date.parse(bucket.from)).toFixed(1)},${y(bucket[key]).toFixed(1)}`;
  svg.append(
    shape("polygon", { class: "band", points: [...buckets.map((bucket) => point(bucket, "max")), ...buckets.toReversed().map((bucket) => point(bucket, "min"))].join(" ") }),
    shape("polyline", { class: "trace", points: buckets.map((bucket) => point(bucket, "mean")).join(" ") }),
    ...raised.map((alert) => {
      const at = x(Date.parse(alert.timestamp)).toFixed(1);
      return shape("line", { class: `raised ${alert.severity}`, x1: at, x2: at, y1: 0, y2: HEIGHT });
    }));
  return svg;
}

function table(channel, buckets, { open, label, element, word, number, time }) {
  // As many rows as a person reads; the newest first.
  const rows = buckets.slice(-60).toReversed().map((bucket) => element("tr", {},
    element("th", { scope: "row" }, time(bucket.from)),
    ...["min", "mean", "max"].map((key) => element("td", {}, number(bucket[key])))));
  return element("details", { "data-channel": channel.id, open },
    element("summary", {}, word("table")),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${label}: ${word("table")}` }, element("table", {},
      element("thead", {}, element("tr", {}, ...["time", "minimum", "mean", "maximum"].map((key) => element("th", { scope: "col" }, word(key))))),
      element("tbody", {}, ...rows))));
}
