const decode = (text) => new Float64Array(Uint8Array.from(atob(text), (one) => one.charCodeAt(0)).buffer);
const runs = [...document.querySelectorAll("script.run")].map((node) => JSON.parse(node.textContent));
for (const run of runs) {
  for (const name of ["steps", "mean", "low", "high", "lr_steps", "lr"]) run[name] = decode(run[name]);
  run.limit = run.limit.map(decode);
  for (const name of ["loss", "lr"]) run.decisions[name] = decode(run.decisions[name]);
  // Not an object, in which a metric named "constructor" would always be there.
  run.metrics = new Map(Object.entries(run.metrics).map(([name, points]) => [name, points.map(decode)]));
}
const chart = document.getElementById("chart");
const find = (id) => document.getElementById(id);
const hues = { light: ["#2a5db0", "#b0562a", "#5d3fa8", "#227a70", "#a83f78", "#6b6b1f", "#444444", "#8a3030"],
               dark: ["#8ab4f8", "#f6a97a", "#b9a2f5", "#6fd0c4", "#f08cc0", "#d3d07a", "#cccccc", "#f2a0a0"] };
const hue = (number) => hues[dark.matches ? "dark" : "light"][number % 8];
const plain = (text) => new DOMParser().parseFromString(text, "text/html").body.textContent;
let front = 0, chosen = -1;
const hidden = new Set();

const names = [...new Set(runs.flatMap((run) => [...run.metrics.keys()]))];
const first = names.find((name) => /^(val|eval).*loss$/i.test(name)) ?? names.find((name) => /^(val|eval)/i.test(name)) ?? names[0];
for (const name of names) {
  const option = document.createElement("option");
  option.value = name;
  option.textContent = plain(name);
  option.selected = name === first;
  find("metric").append(option);
}
if (!names.length) find("metric").parentElement.hidden = true;

// Where one spike would flatten everything else.
const peaks = runs.flatMap((run) => [...run.high]).filter(Number.isFinite);
const lows = runs.flatMap((run) => [...run.low]).filter(Number.isFinite);
const least = lows.reduce((a, b) => Math.min(a, b), Infinity), most = peaks.reduce((a, b) => Math.max(a, b), -Infinity);
if (least > 0 && most > 50 * least) find("scale").value = "log";

const symbols = { raise: ["triangle-up", "--good"], cut: ["triangle-down", "--bad"], explosion: ["star", "--bad"],
                  nonfinite: ["x", "--bad"], spike: ["circle", "--shade"], reset: ["square", "--quiet"] };

function symbol(look, verdict) {
  const [shape] = symbols[look];
  return verdict === "undecidable" || verdict === "not yet" ? `${shape}-open` : shape;
}

// Moves that stand closer than their symbols are wide are small, and on the learning rate alone; until one zooms in.
const WIDE = 9;

function crowded(run) {
  const { step, look, verdict } = run.decisions;
  const range = chart._fullLayout?.xaxis?.range ?? [0, run.last], room = WIDE * (range[1] - range[0]) / Math.max(chart.clientWidth - 70, 1);
  const telling = (number) => verdict[number] === "refuted" || !["raise", "cut"].includes(look[number]);
  const near = (number, other) => Math.abs((step[other] ?? Infinity) - step[number]) < room;
  return step.map((_, number) => !telling(number) && (near(number, number - 1) || near(number, number + 1)));
}

function sizes(small) {
  return small.map((one, number) => (number === chosen ? 17 : one ? 4 : WIDE));
}

function heights(run, name, small) {
  return name === "lr" ? run.decisions.lr : run.decisions.loss.map((loss, number) => (small[number] && number !== chosen ? NaN : loss));
}

function markers(run, name, axis) {
  const { step, look, verdict, text } = run.decisions, small = crowded(run);
  return {
    type: "scatter", mode: "markers", name: "decisions", x: step, y: heights(run, name, small), yaxis: axis,
    hovertext: text, hoverinfo: "text", visible: !hidden.has(front),
    marker: {
      symbol: look.map((one, number) => symbol(one, verdict[number])),
      color: look.map((one) => css(symbols[one][1])),
      size: sizes(small),
      line: { color: css("--text"), width: verdict.map((one) => (one === "refuted" ? 2.5 : 0)) },
    },
  };
}

function traces() {
  const drawn = [], below = find("metric").value;
  runs.forEach((run, number) => {
    const color = hue(number), ahead = number === front;
    const line = { color, width: ahead ? 1.8 : 1.1 };
    const shared = { type: "scatter", mode: "lines", name: run.name, visible: !hidden.has(number) };
    if (ahead) {
      drawn.push({ ...shared, x: run.steps, y: run.low, line: { width: 0 }, hoverinfo: "skip" });
      drawn.push({ ...shared, x: run.steps, y: run.high, line: { width: 0 }, fill: "tonexty", fillcolor: `${color}22`,
                   hoverinfo: "skip" });
    }
    const words = "%{y:.4g} at step %{x}";
    drawn.push({ ...shared, x: run.steps, y: run.mean, line, hovertemplate: words });
    drawn.push({ ...shared, x: run.lr_steps, y: run.lr, yaxis: "y2", line: { ...line, shape: "hv" }, hovertemplate: words });
    if (ahead && run.limit[0].length) {
      drawn.push({ ...shared, mode: "lines+markers", name: "stability limit", x: run.limit[0], y: run.limit[1], yaxis: "y2",
                   line: { color: css("--bad"), width: 1.1, dash: "dot" }, marker: { size: 4 },
                   hovertemplate: "stability limit %{y:.4g} at step %{x}" });
    }
    if (run.metrics.has(below)) {
      const [x, y] = run.metrics.get(below);
      drawn.push({ ...shared, mode: x.length < 60 ? "lines+markers" : "lines", x, y, yaxis: "y3", line,
                   marker: { size: 5 }, hovertemplate: words });
    }
  });
  const run = runs[front];
  drawn.push(markers(run, "loss", "y"), markers(run, "lr", "y2"));
  return drawn;
}

// Findings have a strip above the charts, a row each.
const ROWS = 6, ROW = .032;
const rows = (run) => Math.min(run.findings.length, ROWS);
const ceiling = (run) => 1 - ROW * rows(run) - (rows(run) ? .01 : 0);

function shapes(run) {
  const vertical = { xref: "x", yref: "paper", y0: 0, y1: ceiling(run), layer: "below" };
  const label = (text, color) => ({ text, textposition: "top left", textangle: 0, font: { size: 10, color } });
  return [
    ...run.phases.map((one) => ({ ...vertical, type: "rect", x0: one.first, x1: one.last, fillcolor: css("--phase"),
                                  opacity: .16, line: { width: 0 }, label: { ...label(one.name, css("--text")), textposition: "bottom left" } })),
    ...run.findings.map((one, number) => ({
      ...vertical, type: "rect", x0: one.first, x1: Math.max(one.last, one.first + run.last / 200), y0: 1 - ROW * (number % ROWS + .9),
      y1: 1 - ROW * (number % ROWS), fillcolor: css(one.serious ? "--bad" : "--shade"), opacity: .3, line: { width: 0 },
    })),
    ...run.marks.map((one) => ({ ...vertical, type: "line", x0: one.step, x1: one.step,
                                 line: { color: css("--quiet"), width: 1, dash: "dash" } })),
  ];
}

function annotations(run) {
  const shared = { xref: "x", yref: "paper", yanchor: "top", showarrow: false };
  const side = (step) => ({ x: step, xanchor: step > .6 * run.last ? "right" : "left" });
  const found = run.findings.map((one, number) => ({
    ...shared, ...side(one.first), y: 1 - ROW * (number % ROWS), text: number < ROWS ? one.name : "•", hovertext: one.text, borderpad: 0,
    font: { size: 11, color: css(one.serious ? "--bad" : "--text") },
  }));
  // Names of marks, on as many lines as keep neighbours apart.
  const many = run.marks.length > 24;
  return [...found, ...run.marks.map((one, number) => ({
    ...shared, ...side(one.step), y: ceiling(run), yshift: -13 * (number % 7), text: many ? "•" : one.name, hovertext: one.name,
    font: { size: 11, color: css("--quiet") },
  }))];
}

// Learning rates of the run before its very end, which an annealing takes over many decades: that may leave the panel.
function lrRange() {
  let least = Infinity, most = 0;
  runs.forEach((run, number) => {
    if (hidden.has(number)) return;
    run.lr.forEach((lr, at) => {
      if (!(lr > 0) || (at && run.lr_steps[at] > .95 * run.last)) return;
      least = Math.min(least, lr);
      most = Math.max(most, lr);
    });
  });
  const room = Math.max(.05 * Math.log10(most / least), .04);
  return most > 0 ? [Math.log10(least) - room, Math.log10(most) + room] : undefined;
}

function layout() {
  const axis = { zeroline: false, automargin: true };
  const below = find("metric").value;
  // The loss and the learning rate are as tall as each other.
  const highest = ceiling(runs[front]), low = below ? .22 : 0, gap = .045, tall = (highest - low - (below ? 2 : 1) * gap) / 2;
  const lr = [highest - 2 * tall - gap, highest - tall - gap], loss = [highest - tall, highest], metric = [0, low];
  const made = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 50, r: 12, t: 8, b: 40 },
    hoverlabel: { align: "left" }, hovermode: "closest", showlegend: false, shapes: shapes(runs[front]), annotations: annotations(runs[front]),
    xaxis: { ...axis, title: { text: "step" }, anchor: below ? "y3" : "y2" },
    yaxis: { ...axis, title: { text: "loss" }, domain: loss, type: find("scale").value },
    yaxis2: { ...axis, title: { text: "LR" }, domain: lr, type: "log", exponentformat: "power", range: lrRange() },
  };
  if (below) made.yaxis3 = { ...axis, title: { text: below }, domain: metric };
  if (chart.layout?.xaxis?.range) made.xaxis.range = chart.layout.xaxis.range;
  return themed(made);
}

function draw() {
  const run = runs[front], shown = run.decisions.step.length, some = [];
  if (shown < run.decisions_in_all) some.push(`${shown} of ${run.decisions_in_all} decisions are shown: reflexes and refuted ones first.`);
  if (run.marks.length < run.marks_in_all) some.push(`${run.marks.length} of ${run.marks_in_all} marks are shown.`);
  if (crowded(run).some(Boolean)) some.push("Moves that stand close together are small, and on the learning rate alone: zoom in to tell them apart.");
  find("some").hidden = !some.length;
  find("some").textContent = some.join(" ");
  document.querySelectorAll("#runs-shown button").forEach((button, number) => {
    button.style.setProperty("--hue", hue(number));
    button.setAttribute("aria-pressed", String(!hidden.has(number)));
  });
  return Plotly.react(chart, traces(), layout(), config);
}

function zoom(range) {
  chart.layout.xaxis.range = range ?? undefined;
  return Plotly.relayout(chart, range ? { "xaxis.range": range } : { "xaxis.autorange": true, "yaxis.autorange": true });
}

function choose(number) {
  const { step, text } = runs[front].decisions;
  if (!step.length) return;
  chosen = Math.max(0, Math.min(number, step.length - 1));
  find("said").textContent = plain(text[chosen]);
  const range = chart._fullLayout.xaxis.range, width = range[1] - range[0];
  draw();
  if (step[chosen] < range[0] || step[chosen] > range[1]) zoom([step[chosen] - width / 2, step[chosen] + width / 2]);
}

find("previous").addEventListener("click", () => choose(chosen < 0 ? 0 : chosen - 1));
find("next").addEventListener("click", () => choose(chosen + 1));
find("whole").addEventListener("click", () => zoom(null));
document.querySelectorAll("#runs-shown button").forEach((button, number) => button.addEventListener("click", () => {
  if (!hidden.delete(number)) hidden.add(number);
  draw();
}));
find("metric").addEventListener("change", draw);
find("scale").addEventListener("change", draw);
find("front")?.addEventListener("change", (event) => { front = Number(event.target.value); chosen = -1; draw(); });
chart.addEventListener("keydown", (event) => {
  const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (move) { event.preventDefault(); choose(chosen < 0 ? 0 : chosen + move); }
});
for (const button of document.querySelectorAll("button[data-run]")) {
  button.addEventListener("click", () => {
    const { run, first, last } = button.dataset;
    front = Number(run);
    chosen = -1;
    if (find("front")) find("front").value = run;
    draw();
    const room = Math.max(Number(last) - Number(first), runs[front].last / 20) / 2;
    zoom([Number(first) - room, Number(last) + room]);
    chart.scrollIntoView({ block: "center" });
    chart.focus({ preventScroll: true });
  });
}
dark.addEventListener("change", draw);
draw().then(() => {
  chart.on("plotly_click", (event) => {
    const point = event.points.find((one) => one.data.name === "decisions");
    if (point) choose(point.pointNumber);
  });
  chart.on("plotly_relayout", (event) => {
    if (!Object.keys(event).some((name) => name.startsWith("xaxis") || name === "autosize")) return;
    const run = runs[front], small = crowded(run), both = [chart.data.length - 2, chart.data.length - 1];
    Plotly.restyle(chart, { y: [heights(run, "loss", small), heights(run, "lr", small)], "marker.size": [sizes(small), sizes(small)] }, both);
  });
});
