// Elements, words and numbers. Text from files only ever becomes text: nothing here reads markup.
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
let data = JSON.parse(byId("data").textContent);
// What the reader has chosen; kept when news arrive.
const chosen = {
  metrics: null, axis: "epoch", log: false, smooth: 0, zoom: null, hidden: new Set(), only: null, filter: "", sort: null,
  columns: null, all: false, epochs: new Map(), stage: null, open: new Map(), more: false,
};

const make = (space, name, attributes, children) => {
  const node = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === false || value == null) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "colour") node.style.setProperty("--colour", value);
    else node.setAttribute(key, value === true ? "" : String(value));
  }
  for (const child of children.flat(9)) {
    if (child == null || child === false) continue;
    node.append(child.nodeType ? child : document.createTextNode(String(child)));
  }
  return node;
};
const h = (name, attributes, ...children) => make(null, name, attributes, children);
const s = (name, attributes, ...children) => make(SVG, name, attributes, children);

// Puts new content into an element. What is focused or scrolled there stays so, by `data-keep`.
const fill = (node, ...children) => {
  const focused = node.contains(document.activeElement) && document.activeElement.dataset.keep;
  const scrolled = [...node.querySelectorAll(".scroll[data-keep]")].map((x) => [x.dataset.keep, x.scrollLeft, x.scrollTop]);
  const find = (key) => [...node.querySelectorAll("[data-keep]")].find((x) => x.dataset.keep === key);
  node.replaceChildren(...children.flat(9).filter((c) => c != null && c !== false));
  for (const [key, left, top] of scrolled) {
    const box = find(key);
    if (box) [box.scrollLeft, box.scrollTop] = [left, top];
  }
  if (focused && find(focused)) find(focused).focus({ preventScroll: true });
};

// A part that opens. It is made when it is first opened, and stays open when news arrive.
const fold = (key, title, content, open = false) => {
  const body = h("div", {});
  const show = () => { if (!body.firstChild) fill(body, content()); };
  const node = h("details", { open: chosen.open.has(key) ? chosen.open.get(key) : open }, h("summary", { "data-keep": `fold ${key}` }, title), body);
  if (node.open) show();
  node.addEventListener("toggle", () => { chosen.open.set(key, node.open); if (node.open) show(); });
  return node;
};
// What is wider than the page scrolls in a box of its own, by keyboard too.
const scroll = (label, ...children) => h("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label, "data-keep": `scroll ${label}` }, children);
const head = (titles) => h("thead", {}, h("tr", {}, titles.map((t) => h("th", { scope: "col" }, t))));
const facts = (pairs) => h("dl", {}, pairs.filter(([, value]) => value != null && value !== "" && value !== false).map(([key, value]) => [h("dt", {}, key), h("dd", {}, value)]));
const check = (label, checked, onchange, keep) => h("label", {}, h("input", { type: "checkbox", checked, "data-keep": keep || label, onchange: (e) => onchange(e.target.checked) }), label);
const button = (label, onclick, more) => h("button", { type: "button", "data-keep": label, onclick, ...more }, label);

const short = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);
const number = (value) => {
  if (value == null) return "-";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return String(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(5)));
};
const DIGEST = /^([a-z0-9-]+:)?([0-9a-f]{12})[0-9a-f]{52}$/;
const plain = (value) => (value == null ? "-" : typeof value === "number" ? number(value) :
  typeof value === "string" ? value.replace(DIGEST, "$2…") :
  Array.isArray(value) && value.every((v) => typeof v !== "object") ? value.join(", ") : JSON.stringify(value));
const bytes = (count) => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (count >= 1000 && unit + 1 < units.length) { count /= 1000; unit += 1; }
  return (unit === 0 ? count : Number(count.toFixed(1))) + " " + units[unit];
};
const duration = (seconds) => {
  if (seconds == null) return "-";
  const t = Math.round(seconds);
  if (t < 60) return (seconds < 10 ? Number(seconds.toFixed(1)) : t) + " s";
  if (t < 3600) return `${Math.floor(t / 60)} min` + (t % 60 ? ` ${String(t % 60).padStart(2, "0")} s` : "");
  return `${Math.floor(t / 3600)} h` + (t % 3600 >= 60 ? ` ${String(Math.floor((t % 3600) / 60)).padStart(2, "0")} min` : "");
};
const time = (text) => {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
};
const clock = (text) => {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : date.toLocaleTimeString(undefined, { hour12: false });
};
const state = (word) => word.replace(/[^a-z]+/g, "-");
const badge = (word) => h("span", { class: `badge ${state(word)}` }, word);

// What a metric is called, and how its values are written.
const METRICS = {
  images_per_second: { title: "images/s", value: (v) => number(Number(v.toPrecision(3))) },
  epoch_seconds: { title: "time of an epoch", value: duration },
  data_wait: { title: "waiting for data", value: (v) => `${number(Number((v * 100).toPrecision(3)))} %` },
  cpu_percent: { title: "CPU, of one core", value: (v) => `${Math.round(v)} %` },
  memory_bytes: { title: "main memory", value: bytes },
  gpu_memory_bytes: { title: "GPU memory", value: bytes },
  train_loss_step: { title: "train_loss of steps" },
};
const title = (metric) => (METRICS[metric] || {}).title || metric;
const written = (metric, value) => (value == null ? "-" : ((METRICS[metric] || {}).value || number)(value));
const isMachine = (metric) => Boolean((METRICS[metric] || {}).value);
