// Grids of images: those of a training through its epochs, and what stages drew from its checkpoints.
const PICTURES = 12;
const placeOf = (run, sample) => {
  if (sample.epoch !== undefined) return sample.epoch;
  const after = run.timeline.find((p) => p[1] >= sample.step);
  return after ? after[0] - 1 + 0.001 * (sample.step / after[1]) : trained(run);
};
const whenOf = (sample) => (sample.step === undefined ? `epoch ${sample.epoch}` : `step ${sample.step}`);
const gridFigure = (run, heading) => {
  const samples = run.samples;
  const at = () => {
    const own = chosen.epochs.get(run.folder);
    return own === undefined ? samples.length - 1 : Math.min(own, samples.length - 1);
  };
  const image = h("img", { alt: "" }), label = h("span", { class: "faint" });
  const slider = samples.length > 1 && h("input", {
    type: "range", min: 0, max: samples.length - 1, value: at(), "aria-label": `Epoch of the samples of ${name(run)}`, "data-keep": `epoch ${run.folder}`,
    oninput: (event) => { chosen.epochs.set(run.folder, Number(event.target.value)); show(); },
  });
  const show = () => {
    const sample = samples[at()];
    image.src = sample.image;
    image.alt = `Samples of ${name(run)} after ${whenOf(sample)}`;
    label.textContent = `after ${whenOf(sample)}`;
    if (slider) slider.setAttribute("aria-valuetext", whenOf(sample));
  };
  show();
  return h("figure", {}, h("figcaption", {}, h("h3", {}, heading || name(run)), label), image, slider,
    run.samples_left_out > 0 && h("p", { class: "faint" }, `${run.samples_left_out} more in ${run.folder}/samples`));
};
const drawn = (all, whose) => all.map((x) => h("figure", {}, h("figcaption", {}, h("h3", {}, `stage ${x.stage}`), h("span", { class: "faint" }, whose || x.path)),
  x.image ? h("img", { alt: `Drawn by stage ${x.stage}`, src: x.image, title: x.path }) : h("p", { class: "faint" }, `${x.why_not}: ${x.path}`),
  x.others > 0 && h("p", { class: "faint" }, `${x.others} more of other checkpoints beside ${x.path}`)));
const pictures = (run, heading) => {
  const all = [run.samples.length > 0 && gridFigure(run, heading), drawn(run.drawn, heading || name(run))].flat().filter(Boolean);
  return all.length ? all : h("p", { class: "faint" }, `${name(run)} drew no samples.`);
};
// One slider for all grids: each shows its last one up to that epoch.
const allEpochs = (runs) => {
  const places = [...new Set(runs.flatMap((run) => run.samples.map((x) => placeOf(run, x))))].sort((a, b) => a - b);
  if (places.length < 2 || runs.filter((run) => run.samples.length > 1).length < 2) return null;
  const value = h("output", { class: "faint" });
  const slide = h("input", {
    type: "range", id: "all-epochs", min: 0, max: places.length - 1, value: places.length - 1, "data-keep": "all epochs",
    oninput: (e) => {
      const place = places[e.target.value];
      value.textContent = `up to epoch ${number(Math.ceil(place))}`;
      e.target.setAttribute("aria-valuetext", value.textContent);
      for (const run of runs) {
        const until = run.samples.filter((x) => placeOf(run, x) <= place).length;
        if (run.samples.length) chosen.epochs.set(run.folder, Math.max(0, until - 1));
      }
      fill(byId("grids"), grids(runs));
    },
  });
  return h("div", { class: "controls" }, h("label", { class: "wide" }, "All grids at ", slide), value);
};
const grids = (runs) => {
  const find = (folder) => data.runs.find((run) => run.folder === folder);
  const facts = (run) => {
    const value = (key) => plain(run.settings[key]);
    return h("p", { class: "faint" }, `r ${value("lora.r")}, lora_alpha ${value("lora.lora_alpha")}, targets ${value("lora.target_modules")}, data ${run.dataset.source}`);
  };
  const pairs = runs.filter((run) => run.has_base);
  const paired = new Set(pairs.flatMap((run) => [run.folder, run.base]));
  const alone = runs.filter((run) => run.samples.length + run.drawn.length > 0 && !paired.has(run.folder));
  const few = chosen.more ? alone : alone.slice(0, PICTURES);
  const beside = (chosen.more ? pairs : pairs.slice(0, PICTURES)).map((run) => {
    const base = run.base && find(run.base);
    return h("div", { class: "pair" }, h("h3", {}, `${name(run)} beside its base${base ? ", " + name(base) : ""}`), facts(run),
      h("div", { class: "pictures" }, base && pictures(base, `base: ${name(base)}`), pictures(run, `LoRA: ${name(run)}`)));
  });
  const rest = alone.length + pairs.length - few.length - beside.length;
  if (beside.length + alone.length + data.drawn.length === 0) return h("p", { class: "faint" }, "No run that is shown has samples. A training makes them with ", h("code", {}, "sample_every_n_epochs: 1"), ".");
  return [beside, h("div", { class: "pictures" }, few.map((run) => pictures(run)), drawn(data.drawn)),
    rest > 0 && button(`Show ${rest} more`, () => { chosen.more = true; fill(byId("grids"), grids(runs)); })];
};
const samples = () => {
  const runs = shown().map(({ run }) => run);
  return [allEpochs(runs), h("div", { id: "grids" }, [grids(runs)].flat())];
};
