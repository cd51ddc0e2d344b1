// What runs are called, and which of them are shown.
const COLOURS = 8;
const DASHES = ["", "7 4", "2 4", "9 3 2 3"];
const colour = (index) => `var(--c${index % COLOURS})`;
const dash = (index) => DASHES[Math.floor(index / COLOURS) % DASHES.length];
const swatch = (index) => h("i", { class: dash(index) ? "swatch ring" : "swatch", colour: colour(index), "aria-hidden": "true" });
const stem = (stage) => stage.split("@")[0];
const family = (run) => `${run.pipeline} ${stem(run.stage)} ${run.kind}`;

// Settings that are not the same in all of these runs.
const differing = (runs) => {
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))].sort();
  return keys.filter((key) => new Set(runs.map((run) => JSON.stringify(run.settings[key]))).size > 1);
};
// Those of them that say something to a reader: the sweep's own first, and no digests.
const telling = (runs) => {
  const swept = new Set(runs.flatMap((run) => (run.stage.split("@")[1] || "").split(",").map((x) => x.split("=")[0])));
  const says = (key) => runs.every((run) => !DIGEST.test(run.settings[key]) && String(JSON.stringify(run.settings[key])).length < 60);
  const isSwept = (key) => [...swept].some((x) => x && (x === key || x.endsWith("." + key) || key.endsWith("." + x)));
  const keys = differing(runs).filter((key) => says(key) && !key.startsWith("content.") && key !== "schedule horizon");
  return [...keys.filter(isSwept), ...keys.filter((key) => !isSwept(key))];
};
// The end of a key that no other of them has too.
const brief = (key, keys) => {
  const parts = key.split(".");
  for (let n = 1; n < parts.length; n += 1) {
    const end = parts.slice(-n).join(".");
    if (keys.filter((k) => k === end || k.endsWith("." + end)).length === 1) return end;
  }
  return key;
};

let called = new Map();
const nameRuns = () => {
  called = new Map();
  const families = Map.groupBy ? Map.groupBy(data.runs, family) : data.runs.reduce((m, r) => m.set(family(r), [...(m.get(family(r)) || []), r]), new Map());
  const stems = new Set(data.runs.map((run) => stem(run.stage))), pipelines = new Set(data.runs.map((run) => run.pipeline));
  for (const runs of families.values()) {
    const keys = telling(runs).slice(0, 3);
    for (const run of runs) {
      const what = keys.map((key) => `${brief(key, keys)}=${short(plain(run.settings[key]), 18)}`).join(", ");
      const whose = [pipelines.size > 1 && run.pipeline, (stems.size > 1 || !what) && stem(run.stage)].filter(Boolean).join(" ");
      called.set(run.folder, `${whose} ${String(run.number).padStart(3, "0")}${what ? ` · ${what}` : ""}`.trim());
    }
  }
};
const name = (run) => called.get(run.folder) || run.folder;

// The last value of a metric, and that of the best checkpoint.
const last = (run, metric) => { const c = run.curves[metric]; return c && c.length ? c[c.length - 1][1] : null; };
const best = (run) => (run.best ? run.best.metrics[run.monitor] : null);
const trained = (run) => (run.timeline.length ? run.timeline[run.timeline.length - 1][0] : 0);
// Which of the best ones is the best, if they can be compared.
const top = (runs) => {
  const bests = runs.map(best).filter((v) => v != null);
  const alike = new Set(runs.map((run) => `${run.kind} ${run.mode} ${run.monitor}`)).size === 1;
  return alike && bests.length > 1 ? (runs[0].mode === "max" ? Math.max : Math.min)(...bests) : null;
};

// Seconds that a running training still takes, by its last epochs and the time since.
const left = (run) => {
  const seconds = (run.curves.epoch_seconds || []).slice(-3).map((p) => p[1]);
  if (run.status !== "running" || seconds.length === 0) return null;
  const each = seconds.reduce((a, b) => a + b, 0) / seconds.length;
  const live = document.documentElement.dataset.live;
  const since = ((live ? Date.now() : Date.parse(data.generated_at)) - Date.parse(run.updated_at)) / 1000;
  return Math.max((run.epochs - trained(run)) * each - Math.min(Math.max(since, 0), each), 0);
};
const progress = (run) => {
  const rest = left(run);
  return h("span", { class: "progress" },
    h("progress", { max: run.epochs, value: trained(run), "aria-label": `${name(run)}: epoch ${trained(run)} of ${run.epochs}` }),
    ` ${trained(run)} of ${run.epochs}`, rest != null && `, about ${duration(rest < 90 ? Math.round(rest) : Math.round(rest / 60) * 60)} left`);
};

// A curve's place in epochs on the axis that is chosen.
const along = (run, epoch) => {
  if (chosen.axis === "epoch") return epoch;
  const column = chosen.axis === "step" ? 1 : 2, line = run.timeline;
  if (line.length === 0) return null;
  let after = line.findIndex((p) => p[0] >= epoch);
  if (after < 0) after = line.length - 1;
  const a = after > 0 ? line[after - 1] : [0, 0, 0], b = line[after];
  return b[0] === a[0] ? b[column] : a[column] + ((epoch - a[0]) / (b[0] - a[0])) * (b[column] - a[column]);
};

// Runs that the filter lets through, and those of them that are ticked.
const shown = () => data.runs.map((run, index) => ({ run, index }))
  .filter(({ run }) => (chosen.only ? chosen.only === run.folder : !chosen.hidden.has(run.folder)) && passes(run));
// Draws the curve of one run before all others.
const emphasise = (folder) => document.querySelectorAll("#charts g[data-run]").forEach((g) => {
  g.classList.toggle("back", Boolean(folder) && g.dataset.run !== folder);
});
