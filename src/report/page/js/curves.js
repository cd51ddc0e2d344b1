// The charts, and what is chosen for all of them.
const known = () => {
  // What a stage has judged the checkpoints by comes first.
  const order = [...new Set(data.runs.map((run) => run.monitor)), "val_loss", "train_loss", "train_loss_step", "learning_rate"];
  const rank = (m) => (m.includes(".") ? 0 : isMachine(m) ? 98 : order.indexOf(m) + 1 || 97);
  const all = [...new Set(data.runs.flatMap((run) => Object.keys(run.curves)))];
  return all.sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
};
const group = (metric) => (metric.includes(".") ? "Quality" : isMachine(metric) ? "Speed and machine" : "Training");
// What is shown first: what the runs are judged by, and their losses.
const first = (all) => {
  const monitors = new Set(data.runs.map((run) => run.monitor));
  const wanted = all.filter((m) => m.includes(".") || monitors.has(m) || m === "train_loss" || m === "val_loss");
  return new Set((wanted.length ? wanted : all).slice(0, 4));
};
const zoom = (range) => { chosen.zoom = range; drawCharts(); };
const metricsChosen = () => {
  const all = known();
  return all.filter((m) => (chosen.metrics || first(all)).has(m));
};
const metricChooser = () => fold("metrics", "Choose the metrics", () => {
  const all = known(), on = new Set(metricsChosen());
  return [...new Set(all.map(group))].map((word) => h("fieldset", {}, h("legend", {}, word), all.filter((m) => group(m) === word).map((m) =>
    check(title(m), on.has(m), (wanted) => {
      const now = new Set(metricsChosen());
      if (wanted) now.add(m); else now.delete(m);
      chosen.metrics = now;
      drawCharts();
    }, `metric ${m}`))));
});
const curveControls = () => {
  const axis = h("select", { id: "axis", onchange: (e) => { chosen.axis = e.target.value; zoom(null); } },
    [["epoch", "epoch"], ["step", "step"], ["time", "time trained"]].map(([value, text]) => h("option", { value, selected: chosen.axis === value }, text)));
  const smooth = h("input", {
    type: "range", id: "smooth", min: 0, max: 0.99, step: 0.01, value: chosen.smooth,
    oninput: (e) => { chosen.smooth = Number(e.target.value); e.target.setAttribute("aria-valuetext", e.target.value); drawCharts(); },
  });
  return h("div", { class: "controls" }, h("label", {}, "Axis ", axis), h("label", { class: "slide" }, "Smoothing ", smooth),
    check("logarithmic", chosen.log, (on) => { chosen.log = on; drawCharts(); }),
    h("button", { type: "button", id: "unzoom", onclick: () => zoom(null) }, "Whole range"));
};
const curves = () => [curveControls(), h("div", { id: "metrics" }),
  h("p", { id: "chart-keys", class: "faint" }, "Drag over a chart to zoom in, double-click to see all. Keys: ← → read values, + − zoom, 0 sees all."),
  h("div", { id: "charts", class: "charts" }), h("p", { id: "legend", class: "legend" })];

// Few runs are named under the charts; the table names all of them.
const legend = () => {
  const runs = shown();
  return runs.length <= 10 ? runs.map(({ run, index }) => h("span", {}, swatch(index), name(run))) : `${runs.length} runs; the table above says which is which, and its names show one alone.`;
};
const drawCharts = () => {
  const wanted = metricsChosen(), box = byId("charts");
  byId("unzoom").disabled = chosen.zoom == null;
  const names = [...box.children].map((x) => x.dataset.metric);
  if (names.join(" ") !== wanted.join(" ")) {
    fill(box, wanted.map((m) => h("figure", { class: "chart", "data-metric": m }, h("figcaption", {}, title(m)), h("div", { class: "plot" }))));
  }
  if (wanted.length === 0) fill(box, h("p", { class: "faint" }, "No metric is chosen."));
  box.querySelectorAll("figure").forEach((figure) => chart(figure.querySelector(".plot"), figure.dataset.metric));
  fill(byId("legend"), legend());
};
