// The graph of stages, left to right, and what is known of the one that is clicked.
const FAMILY = 5;
const WORST = ["failed", "running", "partial", "stale", "not run", "done", "on demand"];

// Members of a large matrix are one node.
const units = () => {
  const count = new Map();
  for (const x of data.stages) count.set(stem(x.stage), (count.get(stem(x.stage)) || 0) + 1);
  const id = (stage) => (count.get(stem(stage)) >= FAMILY ? stem(stage) : stage);
  const found = new Map();
  for (const x of data.stages) {
    const key = id(x.stage);
    if (!found.has(key)) found.set(key, { id: key, kind: x.kind, members: [], needs: new Set() });
    const unit = found.get(key);
    unit.members.push(x);
    x.needs.map(id).filter((need) => need !== key).forEach((need) => unit.needs.add(need));
  }
  for (const unit of found.values()) {
    const states = unit.members.map((x) => x.status);
    unit.status = WORST.find((word) => states.includes(word)) || states[0];
    unit.many = unit.members.length > 1;
    const one = unit.members[0];
    unit.words = unit.many
      ? WORST.filter((word) => states.includes(word)).map((word) => `${states.filter((x) => x === word).length} ${word}`).join(", ")
      : one.status + (one.seconds == null || one.status === "on demand" ? "" : ", " + duration(one.seconds));
  }
  return [...found.values()];
};
// What tells a member of a matrix from the others, with short keys.
const variant = (stage) => (stage.split("@")[1] || "").split(",").map((x) => x.replace(/^[^=]*\.(?=[^.=]+=)/, "")).join(", ");
const depths = (all) => {
  const depth = new Map();
  for (const unit of all) depth.set(unit.id, Math.max(-1, ...[...unit.needs].map((need) => (depth.has(need) ? depth.get(need) : -1))) + 1);
  // What needs nothing stands just before the first that needs it, so that no line runs behind other stages.
  for (const unit of all.filter((x) => x.needs.size === 0)) {
    const after = all.filter((x) => x.needs.has(unit.id)).map((x) => depth.get(x.id));
    if (after.length) depth.set(unit.id, Math.min(...after) - 1);
  }
  return depth;
};
// Fonts of the boxes' lines, as the style sheet has them, and the first of some texts that fits.
const FAMILIES = `system-ui, -apple-system, "Segoe UI", Roboto, sans-serif`;
const NAME = `600 12px ${FAMILIES}`, FAINT = `11px ${FAMILIES}`;
const measured = document.createElement("canvas").getContext("2d");
const fitting = (texts, room, font) => {
  measured.font = font;
  const fits = (text) => measured.measureText(text).width <= room;
  let text = texts.filter(Boolean).find(fits);
  if (text != null) return text;
  text = texts.filter(Boolean).pop() || "";
  let length = text.length;
  while (length > 1 && !fits(short(text, length))) length -= 1;
  return short(text, length);
};
const select = (id) => {
  chosen.stage = chosen.stage === id ? null : id;
  drawStages();
  if (chosen.stage) byId("stage").scrollIntoView({ block: "nearest" });
};
const graph = () => {
  const all = units(), depth = depths(all);
  const W = 190, H = 74, X = 46, Y = 18;
  const rows = new Map(), place = new Map();
  for (const unit of all) {
    const column = depth.get(unit.id), row = rows.get(column) || 0;
    rows.set(column, row + 1);
    place.set(unit.id, { x: column * (W + X), y: row * (H + Y) });
  }
  const width = (Math.max(0, ...depth.values()) + 1) * (W + X) - X + 2;
  const height = Math.max(1, ...rows.values()) * (H + Y) - Y + 2;
  // A line that passes stages of other columns runs below one of them, and never behind one.
  const passed = (column, y) => {
    const below = (row) => row * (H + Y) - Y / 2;
    const last = rows.get(column) || 0;
    if (y >= below(last)) return y;
    const gaps = Array.from({ length: last }, (_, row) => below(row + 1));
    return gaps.reduce((best, gap) => (Math.abs(gap - y) < Math.abs(best - y) ? gap : best));
  };
  const line = (from, to, left, right) => {
    let [x, y] = [from.x + W, from.y + H / 2], path = `M${x},${y}`;
    const end = to.y + H / 2;
    const bent = (x2, y2) => {
      const bend = Math.max(20, (x2 - x) / 2);
      path += ` C${x + bend},${y} ${x2 - bend},${y2} ${x2},${y2}`;
      [x, y] = [x2, y2];
    };
    for (let column = left + 1; column < right; column += 1) {
      const place = passed(column, y + (end - y) / (right - column + 1));
      bent(column * (W + X) - 6, place);
      x += W + 12;
      path += ` H${x}`;
    }
    bent(to.x, end);
    return path;
  };
  const edges = all.flatMap((unit) => [...unit.needs].filter((need) => place.has(need)).map((need) =>
    s("path", { class: "edge", d: line(place.get(need), place.get(unit.id), depth.get(need), depth.get(unit.id)), "marker-end": "url(#arrow)" })));
  const nodes = all.map((unit) => {
    const { x, y } = place.get(unit.id);
    const what = unit.many ? [`${unit.kind} × ${unit.members.length}`]
      : [[unit.kind, variant(unit.id)].filter(Boolean).join(" · "), variant(unit.id), variant(unit.id).replace(/[^=, ]+=/g, "")];
    const room = W - 24;
    const lines = [fitting([stem(unit.id)], room, NAME), fitting(what, room, FAINT), fitting([unit.words], room, NAME)];
    return s("g", {
      class: `node ${state(unit.status)}`, transform: `translate(${x + 1},${y + 1})`, role: "button", tabindex: 0, "data-keep": `node ${unit.id}`,
      "aria-expanded": chosen.stage === unit.id ? "true" : "false", "aria-controls": "stage",
      onclick: () => select(unit.id),
      onkeydown: (e) => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); select(unit.id); } },
    },
    s("title", {}, unit.id),
    unit.many && s("rect", { class: "behind", width: W, height: H, x: 4, y: 4, rx: 8 }),
    s("rect", { class: "box", width: W, height: H, rx: 8 }),
    s("rect", { class: "bar", width: 4, height: H - 16, x: 0, y: 8, rx: 2 }),
    s("text", { x: 14, y: 21, class: "name" }, `${lines[0]} `),
    s("text", { x: 14, y: 38, class: "faint" }, `${lines[1]} `),
    s("text", { x: 14, y: 58, class: "state" }, lines[2]));
  });
  const picture = s("svg", { class: "graph", width: width + 4, height: height + 4, viewBox: `0 0 ${width + 4} ${height + 4}`, role: "group", "aria-label": "Stages" },
    s("defs", {}, s("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      s("path", { d: "M0,0 L8,4 L0,8 z", fill: "var(--faint)" }))), edges, nodes);
  return scroll("Graph of the stages", picture);
};
const stageTable = () => scroll("Stages as a table", h("table", {}, head(["Stage", "Kind", "State", "Time", "Why"]),
  h("tbody", {}, data.stages.map((x) => h("tr", {}, h("th", { scope: "row" }, x.stage), h("td", {}, x.kind),
    h("td", {}, badge(x.status)), h("td", {}, x.status === "on demand" ? "-" : duration(x.seconds)), h("td", {}, x.detail))))));

const pair = (settings) => h("table", {}, head(["Setting", "Value"]), h("tbody", {}, Object.entries(settings).map(([key, value]) => h("tr", {}, h("th", { scope: "row" }, key), h("td", {}, plain(value))))));
const stageBody = (x) => {
  const record = x.record || {}, made = record.made || {};
  const runs = data.runs.filter((run) => run.stage === x.stage);
  const images = [...data.runs.flatMap((run) => run.drawn), ...data.drawn].filter((d) => d.stage === x.stage);
  const settings = made.manifest || (runs.length ? runs[runs.length - 1].settings : null);
  const error = x.status === "failed" ? record.message : null;
  const running = runs.find((run) => run.status === "running");
  return [
    error && h("pre", { class: "error", tabindex: 0, "aria-label": "Error" }, error),
    (record.attempts || []).map((a) => h("p", { class: "faint" }, `attempt failed ${time(a.ended_at)}: ${short(a.message || a.failure, 300)}`)),
    running && h("p", {}, progress(running)),
    facts([
      ["why", x.detail], ["begun", record.started_at && `${time(record.started_at)}: ${record.action}${record.reason ? `, ${record.reason}` : ""}`],
      ["last news", x.updated_at && time(x.updated_at)], ["time", x.status === "on demand" ? null : x.seconds == null ? null : duration(x.seconds)],
      ["outcome", !error && record.message], ["needs", x.needs.join(", ")],
      ["job", x.job && `${x.job.id} ${x.job.state || ""} ${x.job.reason || ""} ${x.job.log}`], ["files", (made.outputs || []).map((o) => o.path).join(", ")],
      ["next", record.next && h("code", {}, record.next)],
    ]),
    x.metrics && facts(Object.entries(x.metrics).map(([key, value]) => [key, number(value)])),
    images.length > 0 && h("div", { class: "pictures" }, drawn(images)),
    runs.length > 0 && h("p", {}, "Runs: ", runs.map((run) => [onlyButton(run), " "])),
    x.log.length > 0 && fold(`log ${x.stage}`, `Log: the last ${x.log.length} lines`, () => h("pre", { class: "log", tabindex: 0, "aria-label": `Log of ${x.stage}` }, x.log.map((l) => (l.time ? `${clock(l.time)}  ` : "") + l.text).join("\n")), x.status === "failed"),
    settings && fold(`settings ${x.stage}`, "Settings that decide its result", () => scroll(`Settings of ${x.stage}`, pair(settings))),
  ];
};
const stagePanel = () => {
  const unit = chosen.stage && units().find((x) => x.id === chosen.stage);
  if (!unit) return [];
  const title = h("div", { class: "head" }, h("h3", {}, unit.id, " ", h("span", { class: "faint" }, unit.kind), " ", badge(unit.status)),
    button("Close", () => { const id = chosen.stage; select(id); const node = [...document.querySelectorAll(".node")].find((n) => n.dataset.keep === `node ${id}`); if (node) node.focus(); }));
  return [title, unit.many
    ? h("div", { class: "members" }, [...unit.members].sort((a, b) => WORST.indexOf(a.status) - WORST.indexOf(b.status)).map((x) => fold(`member ${x.stage}`, [badge(x.status), ` ${x.stage.slice(unit.id.length + 1) || x.stage} `, h("span", { class: "faint" }, short(x.detail, 120))], () => stageBody(x))))
    : stageBody(unit.members[0])];
};
