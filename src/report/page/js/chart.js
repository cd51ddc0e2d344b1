// One chart: the curves of a metric. Drag to zoom; arrow keys read values.
const ticks = (low, high, count) => {
  const rough = (high - low) / count || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  return every([1, 2, 5, 10].map((n) => n * unit).find((n) => n >= rough), low, high);
};
const every = (step, low, high) => {
  const found = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-6; t += step) found.push(Number(t.toPrecision(12)));
  return found;
};
// Powers of ten, and what lies between them where there are few.
const logTicks = (low, high) => {
  const decades = Math.log10(high / low);
  if (decades < 0.7) return ticks(low, high, 5).filter((t) => t > 0);
  const found = [], by = Math.ceil(decades / 7), within = decades < 3 ? [1, 2, 5] : [1];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1)
    for (const n of within) if (e % by === 0 && n * 10 ** e >= low && n * 10 ** e <= high) found.push(Number((n * 10 ** e).toPrecision(12)));
  return found;
};
const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
const placeTicks = (low, high, count) => {
  if (chosen.axis === "time") {
    const step = SECONDS.find((t) => t >= (high - low) / count);
    return step ? every(step, low, high) : ticks(low / 86400, high / 86400, count).map((t) => t * 86400);
  }
  return ticks(low, high, count).filter((t) => Number.isInteger(t));
};
const placeText = (at) => (chosen.axis === "time" ? duration(at) : chosen.axis === "step" && at >= 1e4 ? `${number(at / 1000)}k` : number(at));

// An exponential mean that starts without a bias.
const smoothed = (points) => {
  let sum = 0, weight = 0;
  const k = chosen.smooth;
  return k === 0 ? points : points.map(([x, v]) => { sum = k * sum + (1 - k) * v; weight = k * weight + (1 - k); return [x, sum / weight]; });
};
const curvesOf = (metric) => shown().map(({ run, index }) => {
  const raw = (run.curves[metric] || []).map(([epoch, v]) => [along(run, epoch), v, epoch]).filter(([x, v]) => x != null && (!chosen.log || v > 0));
  return { run, index, raw, points: smoothed(raw) };
}).filter((line) => line.raw.length > 0);

// Of so many runs the best are marked, and the curves shown as they were before smoothing.
const FEW = 12;
const bounds = (lines) => {
  const xs = lines.flatMap((line) => line.raw.map((p) => p[0]));
  let x = chosen.zoom || [xs.reduce((a, b) => Math.min(a, b)), xs.reduce((a, b) => Math.max(a, b))];
  const drawn = (line) => (lines.length <= FEW ? [...line.points, ...line.raw] : line.points);
  const inside = lines.flatMap(drawn).filter((p) => p[0] >= x[0] && p[0] <= x[1]);
  const values = (inside.length ? inside : lines.flatMap(drawn)).map((p) => p[1]);
  let [low, high] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  if (chosen.log) { low /= 1.05; high *= 1.05; } else { low = low >= 0 && low - room < 0 ? 0 : low - room; high += room; }
  if (x[0] === x[1]) x = [x[0] - 0.5, x[1] + 0.5];
  return { x, y: [low, high] };
};

const chart = (box, metric) => {
  const lines = curvesOf(metric);
  if (lines.length === 0) return fill(box, h("p", { class: "faint" }, `No run that is shown has ${title(metric)} yet.`));
  const width = Math.max(260, box.clientWidth || 800), height = width < 520 ? 220 : 300;
  const margin = { left: 62, right: 14, top: 12, bottom: 34 };
  const { x: [xLow, xHigh], y: [low, high] } = bounds(lines);
  const scale = chosen.log ? Math.log10 : (v) => v;
  const x = (v) => margin.left + ((v - xLow) / (xHigh - xLow)) * (width - margin.left - margin.right);
  const y = (v) => height - margin.bottom - ((scale(v) - scale(low)) / (scale(high) - scale(low) || 1)) * (height - margin.top - margin.bottom);
  const back = (px) => xLow + ((px - margin.left) / (width - margin.left - margin.right)) * (xHigh - xLow);
  const draw = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("");
  const clip = `clip-${metric.replace(/[^a-z0-9]/gi, "-")}`;
  const curve = ({ run, index, raw, points }) => {
    const mark = lines.length <= FEW && run.best && metric === run.monitor && points.find((p) => p[2] === run.best.epoch || raw[points.indexOf(p)][2] === run.best.epoch);
    return s("g", { colour: colour(index), "data-run": run.folder },
      s("path", { class: "curve", d: draw(points), "stroke-dasharray": dash(index), "data-run": run.folder }),
      chosen.smooth > 0 && lines.length <= FEW && s("path", { class: "raw", d: draw(raw) }),
      points.length === 1 && s("circle", { class: "point", cx: x(points[0][0]), cy: y(points[0][1]), r: 4 }),
      mark && s("circle", { class: "dot", cx: x(mark[0]), cy: y(mark[1]), r: 5 }, s("title", {}, `best of ${name(run)}: ${number(best(run))}`)));
  };
  const drawn = [
    s("defs", {}, s("clipPath", { id: clip }, s("rect", { x: margin.left - 6, y: margin.top - 6, width: width - margin.left - margin.right + 12, height: height - margin.top - margin.bottom + 12 }))),
    (chosen.log ? logTicks : (a, b) => ticks(a, b, 5))(low, high).map((t) => [s("line", { class: "grid", x1: margin.left, x2: width - margin.right, y1: y(t), y2: y(t) }),
      s("text", { class: "faint", x: margin.left - 8, y: y(t) + 4, "text-anchor": "end" }, written(metric, t))]),
    placeTicks(xLow, xHigh, width < 520 ? 4 : 7).map((t) => s("text", { class: "faint", x: x(t), y: height - margin.bottom + 16, "text-anchor": "middle" }, placeText(t))),
    s("line", { class: "axis", x1: margin.left, x2: width - margin.right, y1: height - margin.bottom, y2: height - margin.bottom }),
    s("text", { class: "faint", x: width - margin.right, y: height - 4, "text-anchor": "end" }, chosen.axis === "time" ? "time trained" : chosen.axis),
    s("g", { class: lines.length > FEW ? "many" : null, "clip-path": `url(#${clip})` }, lines.map(curve)),
  ];
  const cursor = s("line", { class: "cursor", y1: margin.top, y2: height - margin.bottom, visibility: "hidden" });
  const band = s("rect", { class: "band", y: margin.top, height: height - margin.top - margin.bottom, visibility: "hidden" });
  const readout = h("div", { class: "readout", hidden: true, "aria-live": "off" });
  const places = [...new Set(lines.flatMap((line) => line.raw.map((p) => p[0])))].filter((p) => p >= xLow && p <= xHigh).sort((a, b) => a - b);
  let at = null, from = null;
  // `height`: where the pointer is. The curves nearest to it are named, or the first ones.
  const show = (place, pointer) => {
    at = place;
    cursor.setAttribute("visibility", at == null ? "hidden" : "visible");
    readout.hidden = at == null;
    if (at == null) return emphasise(null);
    cursor.setAttribute("x1", x(at)); cursor.setAttribute("x2", x(at));
    // Those that had begun and not yet ended there.
    const has = ({ points }) => at >= points[0][0] && at <= points[points.length - 1][0];
    let named = (lines.some(has) ? lines.filter(has) : lines).map(({ run, index, points }) => ({ run, index, value: points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a))[1] }));
    if (pointer != null) named.sort((a, b) => Math.abs(y(a.value) - pointer) - Math.abs(y(b.value) - pointer));
    const nearest = named[0].run.folder, more = named.length - 8;
    named = named.slice(0, 8).sort((a, b) => b.value - a.value);
    emphasise(pointer != null && lines.length > 1 ? nearest : null);
    fill(readout, h("div", { class: "at" }, `${chosen.axis === "time" ? "after" : chosen.axis} ${placeText(at)}`),
      named.map(({ run, index, value }) => h("div", { class: pointer != null && run.folder === nearest ? "near" : null }, swatch(index), h("span", {}, name(run)), h("b", {}, written(metric, value)))),
      more > 0 && h("div", { class: "faint" }, `and ${more} more`));
    const isRight = x(at) > width / 2;
    readout.style.left = isRight ? "auto" : `${x(at) + 12}px`;
    readout.style.right = isRight ? `${width - x(at) + 12}px` : "auto";
    readout.style.maxWidth = `${Math.max(150, (isRight ? x(at) : width - x(at)) - 16)}px`;
  };
  const local = (event) => { const r = svg.getBoundingClientRect(); return [(event.clientX - r.left) * (width / r.width), (event.clientY - r.top) * (height / r.height)]; };
  const move = (event) => {
    const [px, py] = local(event);
    if (from != null && Math.abs(px - from) > 4) {
      band.setAttribute("visibility", "visible");
      band.setAttribute("x", Math.min(px, from)); band.setAttribute("width", Math.abs(px - from));
    }
    const target = back(px);
    readout.setAttribute("aria-live", "off");
    if (places.length) show(places.reduce((a, b) => (Math.abs(b - target) < Math.abs(a - target) ? b : a)), py);
  };
  const release = (event) => {
    if (from == null) return;
    const [a, b] = [from, local(event)[0]].sort((p, q) => p - q);
    from = null;
    band.setAttribute("visibility", "hidden");
    if (b - a > 8) zoom([Math.max(back(a), xLow), Math.min(back(b), xHigh)]);
  };
  const key = (event) => {
    if (event.key === "Escape") return show(null);
    if (event.key === "0") return zoom(null);
    if (event.key === "+" || event.key === "-") {
      const middle = at == null ? (xLow + xHigh) / 2 : at, half = ((xHigh - xLow) / 2) * (event.key === "+" ? 0.5 : 2);
      return zoom([middle - half, middle + half]);
    }
    const i = places.indexOf(at);
    const next = { ArrowRight: i + 1, ArrowLeft: i < 0 ? places.length - 1 : i - 1, Home: 0, End: places.length - 1 }[event.key];
    if (next === undefined || places.length === 0) return;
    event.preventDefault();
    readout.setAttribute("aria-live", "polite");
    show(places[Math.max(0, Math.min(places.length - 1, next))]);
  };
  const ends = lines.slice(0, 10).map(({ run, raw }) => `${name(run)} ends at ${written(metric, raw[raw.length - 1][1])}`).join("; ");
  const svg = s("svg", {
    viewBox: `0 0 ${width} ${height}`, height, tabindex: 0, role: "img", "data-keep": `chart ${metric}`, "aria-describedby": "chart-keys",
    "aria-label": `${title(metric)} by ${chosen.axis}, ${lines.length} runs. ${ends}`,
    onpointermove: move, onpointerleave: () => { if (from == null) show(null); }, onkeydown: key, onblur: () => show(null),
    onpointerdown: (e) => { if (e.button === 0) { from = local(e)[0]; svg.setPointerCapture(e.pointerId); } },
    onpointerup: release, onpointercancel: () => { from = null; band.setAttribute("visibility", "hidden"); }, ondblclick: () => zoom(null),
  }, drawn, band, cursor);
  fill(box, svg, readout);
};
