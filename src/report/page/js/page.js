// The sections, light and dark, and news from `pipe ui`.
const provenance = () => data.runs.map((run) => fold(`run ${run.folder}`, `${name(run)} - ${run.experiment}`, () => [
  facts([
    ["folder", run.folder], ["pipeline, stage", `${run.pipeline}, ${run.stage}`], ["status", run.status + (run.message ? `: ${run.message}` : "")],
    ["created", time(run.created_at)], ["changed", time(run.updated_at)], ["pipe", run.version], ["commit of the project", run.git_commit || "-"],
    ["device", run.device], ["seed", run.seed], ["identity", run.identity],
    ...(run.changes || []).map((change) => ["settings changed", change]),
    ["data", `${run.dataset.source}, ${run.dataset.train_images} images to train${run.dataset.validation_images ? `, ${run.dataset.validation_images} to validate` : ""}`],
    ["classes", run.dataset.classes.join(", ")], ["digest of the data", run.dataset.digest],
  ]),
  scroll(`Checkpoints of ${name(run)}`, h("table", {}, head(["Checkpoint", "Epoch", "Size", "Saved", "Digest"]),
    h("tbody", {}, run.checkpoints.map((c) => h("tr", {}, h("th", { scope: "row" }, c.path), h("td", {}, c.epoch), h("td", {}, bytes(c.bytes)), h("td", {}, time(c.saved_at)), h("td", {}, h("code", {}, c.digest))))))),
  run.config && fold(`config ${run.folder}`, "config.yaml: all settings", () => h("pre", { tabindex: 0, "aria-label": `Settings of ${name(run)}` }, run.config)),
]));

const now = () => data.runs.filter((run) => run.status === "running").map((run) => h("p", {}, h("b", {}, name(run)), " ", progress(run)));
const panel = (id, heading, ...children) => h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, heading), children);
const drawHead = () => {
  byId("title").textContent = data.title;
  const runs = data.runs.length === 1 ? "1 run" : `${data.runs.length} runs`;
  byId("about").textContent = [data.file, runs, `made ${time(data.generated_at)}`, `pipe ${data.version}`].filter(Boolean).join(" · ");
};
const drawStages = () => {
  if (data.stages.length) { fill(byId("graph"), graph()); fill(byId("stage"), stagePanel()); byId("stage").hidden = !chosen.stage; }
};
const drawNow = () => { if (data.runs.length) { fill(byId("now"), now()); byId("now").hidden = !byId("now").firstChild; } };
// All that depends on which runs are shown.
const drawRuns = () => {
  if (!data.runs.length) return;
  drawTable();
  drawCharts();
  fill(byId("comparison"), comparison());
  fill(byId("pictures"), samples());
  document.querySelectorAll("#stage .link").forEach((b) => { const is = b.dataset.keep === `only ${chosen.only}`; b.setAttribute("aria-pressed", is ? "true" : "false"); });
};
const nothing = () => (data.run ? h("p", {}, "No runs yet. The first is made by ", h("code", {}, data.run), ".") : h("p", {}, "No runs yet."));
const sections = () => [
  data.warnings.length && h("section", { class: "warnings", id: "warnings", "aria-labelledby": "warnings-title" }, h("h2", { id: "warnings-title" }, "Could not be read"), data.warnings.map((w) => h("p", {}, w))),
  data.stages.length && panel("stages", "Stages", h("div", { id: "graph" }), h("div", { id: "stage", role: "region", "aria-label": "The chosen stage", hidden: true }), h("div", { id: "stage-table" })),
  data.runs.length ? [
    panel("runs", "Runs", h("div", { id: "now", hidden: true }), runsPanel()),
    panel("curves", "Curves", curves()),
    panel("samples", "Samples", h("div", { id: "pictures" })),
    panel("compare", "Comparison", comparePanel()),
    panel("provenance", "Provenance", h("div", { id: "origins" })),
  ] : [panel("runs", "Runs", nothing()), data.drawn.length && panel("samples", "Samples", h("div", { class: "pictures" }, drawn(data.drawn)))],
].flat().filter(Boolean);
// The frame is made anew only when other sections are wanted: what is typed or opened there stays.
let frame = null;
const drawAll = () => {
  nameRuns();
  table = columns();
  const wanted = JSON.stringify([data.warnings, data.stages.length > 0, data.runs.length > 0, data.runs.length || data.drawn.length]);
  if (wanted !== frame) {
    frame = wanted;
    const all = sections();
    fill(byId("main"), all);
    fill(byId("sections"), all.filter((x) => x.id).map((x) => h("a", { href: "#" + x.id }, x.querySelector("h2").textContent)));
  }
  drawHead(); drawStages(); drawNow();
  if (data.stages.length) fill(byId("stage-table"), fold("stages", "As a table, with reasons", stageTable));
  if (!data.runs.length) return;
  fill(byId("columns"), columnChooser());
  fill(byId("metrics"), metricChooser());
  drawRuns();
  fill(byId("origins"), provenance());
};

const theme = byId("theme");
const dark = () => document.documentElement.dataset.theme === "dark" ||
  (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
const label = () => { theme.textContent = dark() ? "Light" : "Dark"; theme.setAttribute("aria-label", dark() ? "Light colours" : "Dark colours"); };
theme.addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; label(); });
if (location.hash === "#dark" || location.hash === "#light") document.documentElement.dataset.theme = location.hash.slice(1);
label();
drawAll();
let width = 0;
if (window.ResizeObserver) new ResizeObserver(() => {
  const wide = byId("main").clientWidth;
  if (wide !== width && byId("charts")) { width = wide; drawCharts(); }
}).observe(byId("main"));

if (document.documentElement.dataset.live) {
  const live = byId("live");
  live.hidden = false;
  let tag = null;
  const ask = async () => {
    try {
      const answer = await fetch("data.json", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
      const word = answer.ok || answer.status === 304 ? "live" : "not connected";
      if (live.textContent !== word) live.textContent = word;
      if (answer.status === 200) {
        tag = answer.headers.get("ETag");
        data = await answer.json();
        drawAll();
      } else drawNow();
    } catch { live.textContent = "not connected"; }
    setTimeout(ask, 2000);
  };
  setTimeout(ask, 2000);
}
