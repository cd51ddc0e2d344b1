// Draws the page from its data. Text from files only ever becomes text: nothing here reads markup.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const COLOURS = 8;
  const DASHES = ["", "7 4", "2 4", "9 3 2 3"];
  const byId = (id) => document.getElementById(id);
  let data = JSON.parse(byId("data").textContent);
  // What the reader has chosen; kept when news arrive.
  const chosen = { metric: null, log: false, hidden: new Set(), all: false, epochs: new Map(), at: null };

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
  const fill = (node, ...children) => node.replaceChildren(...children.flat(9).filter((c) => c != null && c !== false));

  // ---- Words and numbers
  const short = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);
  const number = (value) => {
    if (value == null) return "-";
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e7) return String(value);
    return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(5)));
  };
  const plain = (value) => (value == null ? "-" : typeof value === "number" ? number(value) :
    typeof value === "string" ? value.replace(/^([a-z0-9-]+:)?([0-9a-f]{12})[0-9a-f]{52}$/, "$2…") :
    Array.isArray(value) && value.every((v) => typeof v !== "object") ? value.join(", ") : JSON.stringify(value));
  const bytes = (count) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (count >= 1000 && unit + 1 < units.length) { count /= 1000; unit += 1; }
    return (unit === 0 ? count : count.toFixed(1)) + " " + units[unit];
  };
  const duration = (seconds) => {
    if (seconds == null) return "-";
    const t = Math.round(seconds);
    if (t < 60) return (seconds < 10 ? seconds.toFixed(1) : t) + " s";
    if (t < 3600) return `${Math.floor(t / 60)} min ${String(t % 60).padStart(2, "0")} s`;
    return `${Math.floor(t / 3600)} h ${String(Math.floor((t % 3600) / 60)).padStart(2, "0")} min`;
  };
  const time = (text) => {
    const date = new Date(text);
    return Number.isNaN(date.getTime()) ? text : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  };
  const state = (word) => word.replace(/[^a-z]+/g, "-");
  const name = (run) => `${run.stage} ${String(run.number).padStart(3, "0")}`;
  const colour = (index) => `var(--c${index % COLOURS})`;
  const dash = (index) => DASHES[Math.floor(index / COLOURS) % DASHES.length];
  const shown = () => data.runs.map((run, index) => ({ run, index })).filter(({ run }) => !chosen.hidden.has(run.folder));

  // ---- The graph of stages, left to right
  const graph = () => {
    const stages = data.stages;
    const depth = new Map();
    for (const stage of stages) {
      const before = stage.needs.map((need) => (depth.has(need) ? depth.get(need) : -1));
      depth.set(stage.stage, Math.max(-1, ...before) + 1);
    }
    // What needs nothing stands just before the first that needs it, so that no line runs behind other stages.
    for (const stage of stages.filter((x) => x.needs.length === 0)) {
      const after = stages.filter((x) => x.needs.includes(stage.stage)).map((x) => depth.get(x.stage));
      if (after.length) depth.set(stage.stage, Math.min(...after) - 1);
    }
    const W = 190, H = 74, X = 46, Y = 18;
    const rows = new Map(), place = new Map();
    for (const stage of stages) {
      const column = depth.get(stage.stage), row = rows.get(column) || 0;
      rows.set(column, row + 1);
      place.set(stage.stage, { x: column * (W + X), y: row * (H + Y) });
    }
    const width = (Math.max(0, ...depth.values()) + 1) * (W + X) - X + 2;
    const height = Math.max(1, ...rows.values()) * (H + Y) - Y + 2;
    const edges = stages.flatMap((stage) => stage.needs.filter((need) => place.has(need)).map((need) => {
      const from = place.get(need), to = place.get(stage.stage);
      const [x1, y1, x2, y2] = [from.x + W, from.y + H / 2, to.x, to.y + H / 2];
      const bend = Math.max(20, (x2 - x1) / 2);
      return s("path", { class: "edge", d: `M${x1},${y1} C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`, "marker-end": "url(#arrow)" });
    }));
    const nodes = stages.map((stage) => {
      const { x, y } = place.get(stage.stage);
      const took = stage.seconds == null || stage.status === "on demand" ? "" : ", " + duration(stage.seconds);
      return s("g", { class: `node ${state(stage.status)}`, transform: `translate(${x + 1},${y + 1})` },
        s("title", {}, `${stage.stage} (${stage.kind}): ${stage.status}, ${stage.detail}`),
        s("rect", { width: W, height: H, rx: 8 }),
        s("rect", { class: "bar", width: 4, height: H - 16, x: 0, y: 8, rx: 2 }),
        s("text", { x: 14, y: 21, style: "font-weight:600" }, short(stage.stage, 24)),
        s("text", { x: 14, y: 38, class: "faint" }, stage.kind),
        s("text", { x: 14, y: 58, class: "state" }, short(stage.status + took, 28)));
    });
    return h("div", { class: "scroll" }, s("svg", {
      class: "graph", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": "Stages: " + stages.map((x) => `${x.stage} ${x.status}`).join(", "),
    },
    s("defs", {}, s("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      s("path", { d: "M0,0 L8,4 L0,8 z", fill: "var(--faint)" }))), edges, nodes));
  };
  const stageTable = () => h("details", {}, h("summary", {}, "As a table, with reasons"), h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Stage", "Kind", "State", "Time", "Why"].map((t) => h("th", { scope: "col" }, t)))),
    h("tbody", {}, data.stages.map((x) => h("tr", {}, h("th", { scope: "row" }, x.stage), h("td", {}, x.kind),
      h("td", { class: state(x.status) }, h("span", { class: "badge" }, x.status)), h("td", {}, x.status === "on demand" ? "-" : duration(x.seconds)), h("td", {}, x.detail)))))));

  // ---- Curves
  const metrics = () => {
    // What a stage has judged the checkpoints by comes first.
    const judged = [...new Set(data.runs.map((run) => run.monitor))].filter((m) => m.includes("."));
    const order = [...judged, "train_loss", "val_loss", "train_loss_step", "learning_rate"];
    const all = [...new Set(data.runs.flatMap((run) => Object.keys(run.curves)))];
    return all.sort((a, b) => (order.indexOf(a) + 1 || 99) - (order.indexOf(b) + 1 || 99) || a.localeCompare(b));
  };
  const ticks = (low, high, count) => {
    const rough = (high - low) / count || 1;
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= rough);
    const found = [];
    for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-6; t += step) found.push(Number(t.toPrecision(12)));
    return found;
  };
  const logTicks = (low, high) => {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1)
      for (const n of [1, 2, 5]) if (n * 10 ** e >= low && n * 10 ** e <= high) found.push(n * 10 ** e);
    return found;
  };
  const chart = (box) => {
    const metric = chosen.metric;
    const lines = shown().map(({ run, index }) => ({ run, index, points: (run.curves[metric] || []).filter(([, v]) => !chosen.log || v > 0) }))
      .filter((line) => line.points.length > 0);
    if (lines.length === 0) return fill(box, h("p", { class: "faint" }, `No run that is shown has ${metric || "a figure"} yet.`));
    const width = Math.max(280, box.clientWidth || 800), height = width < 520 ? 240 : 320;
    const margin = { left: 56, right: 14, top: 12, bottom: 34 };
    const all = lines.flatMap((line) => line.points);
    const [xLow, xHigh] = [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))];
    let [low, high] = [Math.min(...all.map((p) => p[1])), Math.max(...all.map((p) => p[1]))];
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    if (chosen.log) { low /= 1.05; high *= 1.05; } else { low = low >= 0 && low - room < 0 ? 0 : low - room; high += room; }
    const scale = chosen.log ? Math.log10 : (v) => v;
    const x = (v) => margin.left + (xHigh === xLow ? 0.5 : (v - xLow) / (xHigh - xLow)) * (width - margin.left - margin.right);
    const y = (v) => height - margin.bottom - ((scale(v) - scale(low)) / (scale(high) - scale(low) || 1)) * (height - margin.top - margin.bottom);
    const yTicks = chosen.log ? logTicks(low, high) : ticks(low, high, 5);
    const xTicks = ticks(xLow, xHigh, width < 520 ? 4 : 8).filter((t) => Number.isInteger(t));
    const parts = [
      yTicks.map((t) => [s("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: y(t), y2: y(t) }),
        s("text", { class: "faint", x: margin.left - 8, y: y(t) + 4, "text-anchor": "end" }, number(t))]),
      xTicks.map((t) => s("text", { class: "faint", x: x(t), y: height - margin.bottom + 16, "text-anchor": "middle" }, t)),
      s("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }),
      s("text", { class: "faint", x: width - margin.right, y: height - 4, "text-anchor": "end" }, "epoch"),
      lines.map(({ run, index, points }) => {
        const path = points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("");
        const best = run.best && metric === run.monitor && points.find(([epoch]) => epoch === run.best.epoch);
        return s("g", { colour: colour(index) }, s("path", { class: "curve", d: path, "stroke-dasharray": dash(index), "data-run": run.folder }),
          points.length === 1 && s("circle", { class: "point", cx: x(points[0][0]), cy: y(points[0][1]), r: 4 }),
          best && s("circle", { class: "dot", cx: x(best[0]), cy: y(best[1]), r: 5 }, s("title", {}, `best of ${name(run)}: ${number(best[1])}`)));
      }),
    ];
    const cursor = s("line", { class: "cursor", y1: margin.top, y2: height - margin.bottom, visibility: "hidden" });
    const readout = h("div", { class: "readout", role: "status", hidden: true });
    const nearest = (points, at) => points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
    const places = [...new Set(all.map((p) => p[0]))].sort((a, b) => a - b);
    const show = (at) => {
      chosen.at = at;
      cursor.setAttribute("visibility", at == null ? "hidden" : "visible");
      readout.hidden = at == null;
      if (at == null) return;
      cursor.setAttribute("x1", x(at)); cursor.setAttribute("x2", x(at));
      fill(readout, h("div", {}, `epoch ${number(at)}`), lines.slice(0, 12).map(({ run, index, points }) => {
        const [, value] = nearest(points, at);
        return h("div", {}, h("i", { class: dash(index) ? "swatch ring" : "swatch", colour: colour(index) }), h("span", {}, name(run)), h("b", {}, number(value)));
      }));
      const left = x(at) > width / 2;
      readout.style.left = left ? "auto" : `${x(at) + 12}px`;
      readout.style.right = left ? `${width - x(at) + 12}px` : "auto";
    };
    const move = (event) => {
      const at = xLow + ((event.clientX - svg.getBoundingClientRect().left - margin.left) / (width - margin.left - margin.right)) * (xHigh - xLow);
      show(nearest(places.map((p) => [p]), at)[0]);
    };
    const key = (event) => {
      const at = places.indexOf(chosen.at);
      const next = { ArrowRight: at + 1, ArrowLeft: at < 0 ? places.length - 1 : at - 1, Home: 0, End: places.length - 1 }[event.key];
      if (event.key === "Escape") show(null);
      if (next === undefined) return;
      event.preventDefault();
      show(places[Math.max(0, Math.min(places.length - 1, next))]);
    };
    const svg = s("svg", {
      viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "img",
      "aria-label": `${metric} over epochs; arrow keys read the values. ` + lines.map(({ run, points }) => `${name(run)} ends at ${number(points[points.length - 1][1])}`).join(", "),
      onpointermove: move, onpointerleave: () => show(null), onkeydown: key, onblur: () => show(null),
    }, parts, cursor);
    fill(box, svg, readout);
  };
  const legend = () => h("ul", { class: "legend" }, data.runs.map((run, index) => h("li", {}, h("button", {
    type: "button", "aria-pressed": !chosen.hidden.has(run.folder) ? "true" : "false", title: run.folder,
    onclick: () => {
      if (!chosen.hidden.delete(run.folder)) chosen.hidden.add(run.folder);
      drawRuns();
      byId("legend").querySelectorAll("button")[index].focus();
    },
  }, h("i", { class: dash(index) ? "swatch ring" : "swatch", colour: colour(index) }), h("span", {}, name(run) + (run.note ? ` - ${run.note}` : ""))))));

  // ---- Comparison
  const comparison = () => {
    const runs = shown().map(({ run }) => run);
    if (runs.length === 0) return h("p", { class: "faint" }, "No run is chosen.");
    const last = (run, metric) => { const c = run.curves[metric]; return c && c.length ? c[c.length - 1][1] : null; };
    const speed = (run) => last(run, "images_per_second");
    const best = (run) => (run.best ? run.best.metrics[run.monitor] : null);
    const bests = runs.map(best).filter((v) => v != null);
    const alike = new Set(runs.map((run) => run.kind)).size === 1;
    const comparable = alike && new Set(runs.map((run) => `${run.mode} ${run.monitor}`)).size === 1;
    const top = comparable && bests.length > 1 ? (runs[0].mode === "max" ? Math.max : Math.min)(...bests) : null;
    const results = [
      ["status", (run) => h("span", { class: `badge ${state(run.status)}` }, run.status)],
      ["best", (run) => (best(run) == null ? "-" : h("span", { class: best(run) === top ? "best" : null }, `${number(best(run))} (${run.monitor}, epoch ${run.best.epoch})`))],
      ...[...new Set(["train_loss", "val_loss", ...runs.map((run) => run.monitor)])].filter((m) => runs.some((run) => run.curves[m])).map((m) => [`final ${m}`, (run) => number(last(run, m))]),
      ["epochs", (run) => `${(run.curves.learning_rate || []).length} of ${run.epochs}`],
      ["time", (run) => duration(run.seconds)],
      ["images/s", (run) => number(speed(run) == null ? null : Math.round(speed(run)))],
      ["device", (run) => run.device],
      ["note", (run) => run.note || "-"],
      ["tags", (run) => (run.tags.length ? run.tags.map((tag) => h("span", { class: "tag" }, tag)) : "-")],
    ];
    const keys = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))].sort();
    const differs = (key) => new Set(runs.map((run) => JSON.stringify(run.settings[key]))).size > 1;
    const wanted = chosen.all ? keys : keys.filter(differs);
    const row = (title, cells) => h("tr", {}, h("th", { scope: "row" }, title), cells);
    const group = (text) => h("tr", { class: "group" }, h("th", { scope: "rowgroup", colspan: runs.length + 1 }, text));
    return [h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, ""), runs.map((run) => h("th", { scope: "col", title: run.folder }, name(run))))),
      h("tbody", {}, group("Results"), results.map(([title, cell]) => row(title, runs.map((run) => h("td", {}, cell(run))))),
        group(chosen.all ? "All settings" : "Settings that differ"),
        wanted.map((key) => row(key, runs.map((run) => h("td", {
          class: differs(key) && JSON.stringify(run.settings[key]) !== JSON.stringify(runs[0].settings[key]) ? "changed" : null,
        }, plain(run.settings[key]))))),
        wanted.length === 0 && row("-", h("td", { colspan: runs.length, class: "faint" }, runs.length > 1 ? "no setting differs" : "one run: nothing to compare"))))),
    runs.length > 1 && h("p", { class: "faint" }, `Marked: other than in ${name(runs[0])}.`)];
  };

  // ---- Samples
  const picture = (run, title) => {
    const samples = run.samples;
    const at = () => Math.min(chosen.epochs.has(run.folder) ? chosen.epochs.get(run.folder) : samples.length - 1, samples.length - 1);
    const image = h("img", { alt: "" }), label = h("span", { class: "faint" });
    const show = () => {
      const sample = samples[at()];
      image.src = sample.image;
      const when = sample.step === undefined ? `after epoch ${sample.epoch}` : `after step ${sample.step}`;
      image.alt = `Samples of ${name(run)} ${when}`;
      label.textContent = when;
    };
    show();
    const slider = samples.length > 1 && h("input", {
      type: "range", min: 0, max: samples.length - 1, value: at(), "aria-label": `Epoch of the samples of ${name(run)}`,
      oninput: (event) => { chosen.epochs.set(run.folder, Number(event.target.value)); show(); },
    });
    return h("figure", {}, h("figcaption", {}, h("h3", {}, title || name(run)), label), image, slider,
      run.samples_left_out > 0 && h("p", { class: "faint" }, `${run.samples_left_out} more in ${run.folder}/samples`));
  };
  // What `sample` stages drew.
  const drawn = (all, whose) => all.map((x) => h("figure", {}, h("figcaption", {}, h("h3", {}, `stage ${x.stage}`), h("span", { class: "faint" }, whose || x.path)),
    x.image ? h("img", { alt: `Drawn by stage ${x.stage}`, src: x.image, title: x.path }) : h("p", { class: "faint" }, `too large for this page: ${x.path}`)));
  const pictures = (run, title) => {
    const all = [run.samples.length > 0 && picture(run, title), drawn(run.drawn, title || name(run))].flat().filter(Boolean);
    return all.length ? all : h("p", { class: "faint" }, `${name(run)} drew no samples.`);
  };
  const samples = () => {
    const runs = shown().map(({ run }) => run);
    const find = (folder) => data.runs.find((run) => run.folder === folder);
    const pairs = runs.filter((run) => run.has_base);
    const facts = (run) => {
      const value = (key) => plain(run.settings[key]);
      return h("p", { class: "faint" }, `r ${value("lora.r")}, lora_alpha ${value("lora.lora_alpha")}, targets ${value("lora.target_modules")}, data ${run.dataset.source}`);
    };
    const beside = pairs.map((run) => {
      const base = run.base && find(run.base);
      return h("div", { style: "margin-bottom:1.25rem" }, h("h3", {}, `${name(run)} beside its base${base ? ", " + name(base) : ""}`), facts(run),
        h("div", { class: "pictures" },
          base && pictures(base, `base: ${name(base)}`), pictures(run, `LoRA: ${name(run)}`)));
    });
    const paired = new Set(pairs.flatMap((run) => [run.folder, run.base]));
    const alone = runs.filter((run) => run.samples.length + run.drawn.length > 0 && !paired.has(run.folder));
    if (beside.length + alone.length + data.drawn.length === 0) return h("p", { class: "faint" }, "No run that is shown has samples. A training makes them with `sample_every_n_epochs: 1`.");
    return [beside, h("div", { class: "pictures" }, alone.map((run) => pictures(run)), drawn(data.drawn))];
  };

  // ---- Provenance
  const provenance = () => data.runs.map((run) => {
    const facts = [
      ["folder", run.folder], ["pipeline, stage", `${run.pipeline}, ${run.stage}`], ["status", run.status + (run.message ? `: ${run.message}` : "")],
      ["created", time(run.created_at)], ["changed", time(run.updated_at)], ["pipe", run.version], ["commit of the project", run.git_commit || "-"],
      ["device", run.device], ["seed", run.seed], ["identity", run.identity],
      ...(run.changes || []).map((change) => ["settings changed", change]),
      ["data", `${run.dataset.source}, ${run.dataset.train_images} images to train${run.dataset.validation_images ? `, ${run.dataset.validation_images} to validate` : ""}`],
      ["classes", run.dataset.classes.join(", ")], ["digest of the data", run.dataset.digest],
    ];
    return h("details", {}, h("summary", {}, `${name(run)} - ${run.experiment}`),
      h("dl", {}, facts.map(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Checkpoint", "Epoch", "Size", "Saved", "Digest"].map((t) => h("th", { scope: "col" }, t)))),
        h("tbody", {}, run.checkpoints.map((c) => h("tr", {}, h("td", {}, c.path), h("td", {}, c.epoch), h("td", {}, bytes(c.bytes)), h("td", {}, time(c.saved_at)), h("td", {}, h("code", {}, c.digest))))))),
      run.config && h("details", {}, h("summary", {}, "config.yaml: all settings"), h("pre", { tabindex: 0 }, run.config)));
  });

  // ---- The page
  const nothing = () => data.run ? h("p", {}, "No runs yet. The first is made by ", h("code", {}, data.run), ".") : h("p", {}, "No runs yet.");
  const panel = (id, title, ...children) => h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), children);
  const drawHead = () => {
    byId("title").textContent = data.title;
    const runs = data.runs.length === 1 ? "1 run" : `${data.runs.length} runs`;
    byId("about").textContent = [data.file, runs, `made ${time(data.generated_at)}`, `pipe ${data.version}`].filter(Boolean).join(" · ");
  };
  const drawStages = () => { if (data.stages.length) fill(byId("graph"), graph(), stageTable()); };
  const drawRuns = () => {
    if (!data.runs.length) return;
    chart(byId("chart"));
    fill(byId("legend"), legend());
    fill(byId("comparison"), comparison());
    fill(byId("pictures"), samples());
  };
  const drawAll = () => {
    const known = metrics();
    if (!known.includes(chosen.metric)) chosen.metric = known[0] || null;
    const choose = h("select", { id: "metric", onchange: (e) => { chosen.metric = e.target.value; chart(byId("chart")); } },
      known.map((m) => h("option", { value: m, selected: m === chosen.metric }, m)));
    const box = (label, key, redraw) => h("label", {}, h("input", { type: "checkbox", checked: chosen[key], onchange: (e) => { chosen[key] = e.target.checked; redraw(); } }), label);
    const sections = [
      data.warnings.length && h("section", { class: "warnings", id: "warnings" }, h("h2", {}, "Could not be read"), data.warnings.map((w) => h("p", {}, w))),
      data.stages.length && panel("stages", "Stages", h("div", { id: "graph" })),
      data.runs.length ? [
        panel("curves", "Curves", h("div", { class: "controls" }, h("label", {}, "Figure ", choose), box("logarithmic", "log", () => chart(byId("chart")))),
          h("div", { class: "chart", id: "chart" }), h("div", { id: "legend" })),
        panel("compare", "Comparison", h("div", { class: "controls" }, box("all settings", "all", () => fill(byId("comparison"), comparison()))), h("div", { id: "comparison" })),
        panel("samples", "Samples", h("div", { id: "pictures" })),
        panel("provenance", "Provenance", provenance()),
      ] : panel("runs", "Runs", nothing()),
    ].flat().filter(Boolean);
    fill(byId("main"), sections);
    fill(byId("sections"), sections.filter((x) => x.id).map((x) => h("a", { href: "#" + x.id }, x.querySelector("h2").textContent)));
    drawHead(); drawStages(); drawRuns();
  };

  // ---- Light and dark
  const theme = byId("theme");
  const dark = () => document.documentElement.dataset.theme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => { theme.textContent = dark() ? "Light" : "Dark"; theme.setAttribute("aria-label", dark() ? "Light colours" : "Dark colours"); };
  theme.addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; label(); });
  if (location.hash === "#dark" || location.hash === "#light") document.documentElement.dataset.theme = location.hash.slice(1);
  label();
  drawAll();
  let width = 0;
  if (byId("chart") && window.ResizeObserver) new ResizeObserver(() => {
    const now = byId("main").clientWidth;
    if (now !== width && byId("chart")) { width = now; chart(byId("chart")); }
  }).observe(byId("main"));

  // ---- News from `pipe ui`
  if (document.documentElement.dataset.live) {
    const live = byId("live");
    live.hidden = false;
    let tag = null;
    const ask = async () => {
      try {
        const answer = await fetch("data.json", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
        live.textContent = answer.ok || answer.status === 304 ? "live" : "not connected";
        if (answer.status === 200) {
          tag = answer.headers.get("ETag");
          const open = [...document.querySelectorAll("#provenance > details")].map((d) => d.open);
          const at = scrollY, focused = document.activeElement && document.activeElement.id;
          data = await answer.json();
          drawAll();
          document.querySelectorAll("#provenance > details").forEach((d, i) => { d.open = open[i] || false; });
          if (focused && byId(focused)) byId(focused).focus({ preventScroll: true });
          scrollTo(0, at);
        }
      } catch { live.textContent = "not connected"; }
      setTimeout(ask, 2000);
    };
    setTimeout(ask, 2000);
  }
})();
