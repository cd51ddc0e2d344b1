// The table of runs: sorted, filtered, with the columns that are wanted. It chooses what charts and pictures show.
const columns = () => {
  const runs = data.runs, one = new Set(runs.map((run) => run.monitor)).size === 1;
  const setting = (key) => ({ key, title: key, value: (run) => run.settings[key], text: (run) => plain(run.settings[key]) });
  const metric = (key) => ({ key: `last ${key}`, title: isMachine(key) ? title(key) : `last ${title(key)}`, value: (run) => last(run, key), text: (run) => written(key, last(run, key)), names: [key] });
  const metrics = known(), tells = telling(runs).filter((key) => key !== "kind");
  const judged = metrics.filter((m) => m.includes("."));
  const bestTitle = one && runs.length ? `best ${runs[0].monitor}` : "best";
  return [
    { key: "status", title: "status", usual: true, value: (run) => run.status, text: (run) => run.status, cell: (run) => badge(run.status) },
    ...(new Set(runs.map((run) => run.pipeline)).size > 1 ? [{ key: "pipeline", title: "pipeline", usual: true, value: (run) => run.pipeline }] : []),
    { key: "stage", title: "stage", value: (run) => run.stage },
    {
      key: "best", title: bestTitle, names: ["best"], usual: true, value: best,
      text: (run) => (best(run) == null ? "-" : `${number(best(run))} (${one ? "" : `${run.monitor}, `}epoch ${run.best.epoch})`), mark: (run, all) => best(run) != null && best(run) === top(all),
    },
    ...tells.map((key, i) => ({ ...setting(key), usual: i < 4 })),
    ...[...judged, "val_loss", "train_loss"].filter((m) => metrics.includes(m)).map((m) => ({ ...metric(m), usual: m.includes(".") || !(one && runs[0].monitor === m) })),
    { key: "epochs", title: "epochs", usual: true, value: trained, text: (run) => `${trained(run)} of ${run.epochs}` },
    { key: "time", title: "time", usual: true, value: (run) => run.seconds, text: (run) => duration(run.seconds) },
    { key: "note", title: "note", usual: runs.some((run) => run.note), value: (run) => run.note },
    { key: "tags", title: "tags", usual: runs.some((run) => run.tags.length), value: (run) => run.tags.join(", "), cell: (run) => (run.tags.length ? run.tags.map((tag) => h("span", { class: "tag" }, tag)) : "-") },
    { key: "created", title: "begun", value: (run) => run.created_at, text: (run) => time(run.created_at) },
    ...["images_per_second", "cpu_percent", "memory_bytes", "gpu_memory_bytes"].filter((m) => metrics.includes(m)).map(metric),
    { key: "device", title: "device", value: (run) => run.device },
    { key: "seed", title: "seed", value: (run) => run.seed },
    { key: "data", title: "data", value: (run) => run.dataset.source },
    { key: "commit", title: "commit", value: (run) => run.git_commit, text: (run) => short(run.git_commit || "-", 10) },
    ...[...new Set(runs.flatMap((run) => Object.keys(run.settings)))].filter((key) => !tells.includes(key) && key !== "seed").sort().map(setting),
  ];
};
const textOf = (column, run) => (column.text ? column.text(run) : plain(column.value(run)));
const columnsChosen = (all) => all.filter((c) => (chosen.columns ? chosen.columns.has(c.key) : c.usual));

// `failed dim=32 val_loss<0.2`: all of the words, each in some cell, or a comparison with a column.
const passes = (run) => {
  const words = chosen.filter.trim().split(/\s+/).filter(Boolean);
  return words.length === 0 || words.every(tests(run));
};
let table = [];
const tests = (run) => (word) => {
  const found = /^([^=<>]+)([=<>])(.+)$/.exec(word);
  const has = (text, part) => String(text).toLowerCase().includes(part.toLowerCase());
  if (!found) return has(name(run), word) || has(run.folder, word) || table.some((c) => has(textOf(c, run), word));
  const [, key, sign, wanted] = found, low = key.toLowerCase();
  const column = table.find((c) => [c.key, c.title, ...(c.names || [])].some((n) => n.toLowerCase() === low)) || table.find((c) => c.key.toLowerCase().endsWith("." + low));
  if (!column) return false;
  const value = column.value(run), limit = Number(wanted);
  if (sign === "=") return typeof value === "number" && !Number.isNaN(limit) ? value === limit : has(textOf(column, run), wanted);
  return typeof value === "number" && (sign === "<" ? value < limit : value > limit);
};
const sorted = (runs) => {
  const column = chosen.sort && (chosen.sort.key === "run" ? { value: (run) => name(run) } : table.find((c) => c.key === chosen.sort.key));
  if (!column) return runs;
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
  // What has no value stands last, either way.
  return [...runs].sort((x, y) => {
    const [a, b] = [column.value(x.run), column.value(y.run)];
    if (a == null || b == null) return (a == null) - (b == null);
    return compare(a, b) * (chosen.sort.down ? -1 : 1);
  });
};

const show = () => { drawRuns(); };
const onlyButton = (run) => h("button", {
  type: "button", class: "link", "data-keep": `only ${run.folder}`, "aria-pressed": chosen.only === run.folder ? "true" : "false", title: `${run.folder}: show this run only, or all again`,
  onclick: () => { chosen.only = chosen.only === run.folder ? null : run.folder; show(); },
}, name(run).split("=").flatMap((part, i) => (i ? ["=", h("wbr"), part] : [part])));
const heading = (key, text) => {
  const is = chosen.sort && chosen.sort.key === key;
  const sort = () => { chosen.sort = is && chosen.sort.down ? null : { key, down: Boolean(is) }; drawTable(); };
  return h("th", { scope: "col", "aria-sort": is ? (chosen.sort.down ? "descending" : "ascending") : null },
    h("button", { type: "button", class: "sort", "data-keep": `sort ${key}`, onclick: sort }, text, h("span", { "aria-hidden": "true" }, is ? (chosen.sort.down ? " ↓" : " ↑") : "")));
};
const row = (run, index, cells, all) => {
  const isShown = chosen.only ? chosen.only === run.folder : !chosen.hidden.has(run.folder);
  const tick = h("input", {
    type: "checkbox", checked: isShown, "aria-label": `Show ${name(run)}`, "data-keep": `show ${run.folder}`,
    onchange: () => {
      if (chosen.only) { chosen.hidden = new Set(data.runs.map((r) => r.folder).filter((f) => f !== chosen.only)); chosen.only = null; }
      if (!chosen.hidden.delete(run.folder)) chosen.hidden.add(run.folder);
      show();
    },
  });
  return h("tr", { class: isShown ? null : "off", onpointerenter: () => emphasise(run.folder), onpointerleave: () => emphasise(null) },
    h("th", { scope: "row" }, h("div", { class: "run" }, tick, swatch(index), onlyButton(run))),
    cells.map((c) => h("td", {}, c.cell ? c.cell(run) : c.mark && c.mark(run, all) ? h("span", { class: "best" }, textOf(c, run)) : textOf(c, run))));
};
const drawTable = () => {
  table = columns();
  const cells = columnsChosen(table), all = data.runs.map((run, index) => ({ run, index })).filter(({ run }) => passes(run));
  const runs = all.map(({ run }) => run);
  byId("count").textContent = all.length === data.runs.length ? `${all.length} run${all.length === 1 ? "" : "s"}` : `${all.length} of ${data.runs.length} runs`;
  fill(byId("runs-table"), h("div", { class: "scroll tall", role: "region", tabindex: 0, "aria-label": "Table of runs", "data-keep": "scroll runs" },
    h("table", { class: "runs" }, h("caption", { class: "hidden" }, "Runs; the buttons in the first row sort"), h("thead", {}, h("tr", {}, heading("run", "run"), cells.map((c) => heading(c.key, c.title)))),
      h("tbody", {}, sorted(all).map(({ run, index }) => row(run, index, cells, runs)),
        all.length === 0 && h("tr", {}, h("td", { colspan: cells.length + 1 }, "No run is like that."))))));
};
const columnChooser = () => fold("columns", "Choose the columns", () => {
  const all = columns(), on = new Set(columnsChosen(all).map((c) => c.key));
  return h("fieldset", { class: "many" }, h("legend", { class: "hidden" }, "Columns"), all.map((c) => check(c.title, on.has(c.key), (wanted) => {
    const now = new Set(columnsChosen(columns()).map((x) => x.key));
    if (wanted) now.add(c.key); else now.delete(c.key);
    chosen.columns = now;
    drawTable();
  }, `column ${c.key}`)));
});
const runsPanel = () => [
  h("div", { class: "controls" },
    h("label", { class: "wide" }, "Filter ", h("input", { type: "search", id: "filter", value: chosen.filter, placeholder: "failed, dim=32, val_loss<0.2", autocomplete: "off", "aria-describedby": "count", oninput: (e) => { chosen.filter = e.target.value; show(); } })),
    h("span", { id: "count", class: "faint", role: "status" }),
    button("Show all", () => { chosen.hidden.clear(); chosen.only = null; show(); }),
    button("Hide all", () => { chosen.hidden = new Set(data.runs.map((r) => r.folder)); chosen.only = null; show(); })),
  h("div", { id: "columns" }), h("div", { id: "runs-table" }),
  h("p", { class: "faint" }, "A name shows that run only, below; ticks and the filter choose several."),
];
