// Results side by side, and the settings that differ.
const BESIDE = 6;
const comparison = () => {
  const every = shown().map(({ run }) => run), runs = every.slice(0, BESIDE);
  if (runs.length === 0) return h("p", { class: "faint" }, "No run is shown.");
  const winner = top(runs);
  const speed = (run) => last(run, "images_per_second");
  const results = [
    ["status", (run) => badge(run.status)],
    ["best", (run) => (best(run) == null ? "-" : h("span", { class: best(run) === winner ? "best" : null }, `${number(best(run))} (${run.monitor}, epoch ${run.best.epoch})`))],
    ...[...new Set([...known().filter((m) => m.includes(".")), "train_loss", "val_loss", ...runs.map((run) => run.monitor)])].filter((m) => runs.some((run) => run.curves[m])).map((m) => [`last ${m}`, (run) => number(last(run, m))]),
    ["epochs", (run) => `${trained(run)} of ${run.epochs}`],
    ["time", (run) => duration(run.seconds)],
    ["images/s", (run) => number(speed(run) == null ? null : Math.round(speed(run)))],
    ["device", (run) => run.device],
    ["note", (run) => run.note || "-"],
    ["tags", (run) => (run.tags.length ? run.tags.map((tag) => h("span", { class: "tag" }, tag)) : "-")],
  ];
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))].sort();
  const differ = new Set(differing(runs));
  const wanted = chosen.all ? keys : keys.filter((key) => differ.has(key));
  const line = (label, cells) => h("tr", {}, h("th", { scope: "row" }, label), cells);
  const part = (text, lines) => h("tbody", {}, h("tr", { class: "group" }, h("th", { scope: "rowgroup", colspan: runs.length + 1 }, text)), lines);
  return [scroll("Comparison of runs", h("table", {},
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, h("span", { class: "hidden" }, "Setting or result")), runs.map((run) => h("th", { scope: "col", title: run.folder }, name(run))))),
    part("Results", results.map(([label, cell]) => line(label, runs.map((run) => h("td", {}, cell(run)))))),
    part(chosen.all ? "All settings" : "Settings that differ", [
      wanted.map((key) => line(key, runs.map((run) => {
        const changed = differ.has(key) && JSON.stringify(run.settings[key]) !== JSON.stringify(runs[0].settings[key]);
        return h("td", { class: changed ? "changed" : null }, plain(run.settings[key]));
      }))),
      wanted.length === 0 && line("-", h("td", { colspan: runs.length, class: "faint" }, runs.length > 1 ? "no setting differs" : "one run: nothing to compare")),
    ]))),
  runs.length > 1 && h("p", { class: "faint" }, `Marked: other than in ${name(runs[0])}.`),
  every.length > runs.length && h("p", { class: "faint" }, `The first ${runs.length} of ${every.length} runs that are shown. Choose others in the table of runs.`)];
};
const comparePanel = () => [h("div", { class: "controls" }, check("all settings", chosen.all, (on) => { chosen.all = on; fill(byId("comparison"), comparison()); })), h("div", { id: "comparison" })];
