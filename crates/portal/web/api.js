// The page of the API: every route of openapi.json, and a form to try those that only read.

const find = (id) => document.getElementById(id);

function element(tag, keys = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(keys)) {
    if (key === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function table(head, rows) {
  if (rows.length === 0) return null;
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell)))))));
}

/** Fields to fill in and the answer; for routes that change nothing and end. */
function form(path, parameters) {
  const fields = parameters.map((parameter) => [parameter, element("input", { type: "text" })]);
  const answer = element("pre", { class: "answer", hidden: "", tabindex: "0" });
  const send = async () => {
    let target = path;
    const query = new URLSearchParams();
    for (const [parameter, input] of fields) {
      if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      else if (input.value) query.set(parameter.name, input.value);
    }
    const response = await fetch(query.size ? `${target}?${query}` : target);
    const text = await response.text();
    let shown = text;
    try {
      shown = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      // Not every answer is JSON.
    }
    answer.hidden = false;
    answer.textContent = `${response.status} ${response.statusText}\n\n${shown.slice(0, 20000)}`;
  };
  return [
    element("div", { class: "try" },
      ...fields.map(([parameter, input]) => element("label", {}, parameter.name, input)),
      element("button", { type: "button", on: { click: send } }, "Try it")),
    answer,
  ];
}

function route(method, path, operation) {
  const parameters = operation.parameters ?? [];
  const body = operation.requestBody;
  const endless = path === "/ws" || path === "/api/events";
  const responses = Object.entries(operation.responses ?? {});
  return element("details", { class: "route" },
    element("summary", {}, element("span", { class: "verb" }, method.toUpperCase()), element("code", {}, path),
      element("span", { class: "quiet" }, operation.summary ?? "")),
    operation.description ? element("p", {}, operation.description) : null,
    element("p", { class: "quiet" }, `Role: ${operation["x-role"] ?? "none"}`),
    table(["Parameter", "In", "Meaning"], parameters.map((one) => [one.required ? `${one.name} *` : one.name, one.in, one.description ?? ""])),
    body ? element("p", {}, element("b", {}, "Body "), `${Object.keys(body.content ?? {}).join(", ")}: ${body.description ?? ""}`) : null,
    table(["Status", "Answer"], responses.map(([status, answer]) => [status, answer.description ?? ""])),
    ...(method === "get" && !endless ? form(path, parameters.filter((one) => one.in !== "header")) : []));
}

const openapi = await (await fetch("/openapi.json")).json();
find("about").textContent = `${openapi.info.description} Version ${openapi.info.version}.`;
const groups = new Map();
for (const [path, item] of Object.entries(openapi.paths)) {
  for (const [method, operation] of Object.entries(item)) {
    if (!operation.responses) continue;
    const group = operation.tags?.[0] ?? "other";
    groups.set(group, [...(groups.get(group) ?? []), route(method, path, operation)]);
  }
}
find("routes").append(...[...groups].map(([group, routes]) =>
  element("section", { "aria-label": group }, element("h2", {}, group), ...routes)));
