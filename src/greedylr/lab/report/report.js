  const contents = JSON.parse(document.getElementById("contents").textContent);
  const selects = [...document.querySelectorAll("[data-choice]")];
  const legends = [...document.querySelectorAll("[data-legend]")];
  const valueOf = (number, select) => contents.cases[number][select.dataset.choice] ?? "none";
  const numberOf = new Map(contents.cases.map((_, number) => [
    JSON.stringify(selects.map((select) => valueOf(number, select))), number]));
  const ROWS = ["training loss", "validation loss", "learning rate"];

  const shown = () => new Set([...document.querySelectorAll(".legend input:checked")].map((box) => box.value));
  const plain = (text) => text.replace(/[&<>"']/g, (one) => `&#${one.charCodeAt(0)};`);  // Plotly takes HTML.
  const clear = (name) => contents.look[name].color + (name === contents.names[0] ? "38" : "1c");

  // 32-bit floats, little end first: the middle, then perhaps the lowest and the highest.
  function decoded(text, points) {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const all = Array.from({ length: bytes.length / 4 }, (_, number) => view.getFloat32(4 * number, true));
    const row = (number) => all.slice(number * points, (number + 1) * points);
    return all.length > points ? [row(0), row(1), row(2)] : [all, null, null];
  }

  function line(name, x, y, axes, more) {
    const { color, dash, width } = contents.look[name];
    return { x, y, mode: "lines", name: plain(contents.titles[name]), showlegend: false, line: { color, dash, width },
             ...axes, ...more };
  }

  function band(name, x, low, high, axes) {
    const there = x.map((_, number) => number).filter((number) => low[number] > -Infinity && high[number] > -Infinity);
    const back = [...there].reverse();
    return { x: [...there, ...back].map((number) => x[number]), mode: "none", showlegend: false, hoverinfo: "skip",
             y: [...there.map((number) => high[number]), ...back.map((number) => low[number])],
             fill: "toself", fillcolor: clear(name), ...axes };
  }

  const frame = () => ({
    template: {}, hovermode: "closest", hoverlabel: { align: "left" }, margin: { l: 58, r: 8, t: 10, b: 40 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "keep",
  });

  // One that is not chosen is there to be compared with, in grey; bands are of the chosen ones.
  function overRates(place, lines, hovertemplate, mark, yaxis, revision) {
    const there = contents.names.filter((name) => lines[name]);
    const column = (name, number) => lines[name].map((point) => point[number]);
    const rates = new Set(there.flatMap((name) => column(name, 0)));
    if (rates.size === 1) {
      overNames(place, there, lines, hovertemplate, mark, yaxis, revision);
      return;
    }
    const grey = there.filter((name) => !shown().has(name)), drawn = there.filter((name) => shown().has(name));
    const traces = grey.map((name) => line(name, column(name, 0), column(name, 1), {}, {
      line: { color: css("--quiet"), width: 1 }, opacity: 0.4, customdata: lines[name], hovertemplate,
    }));
    traces.push(...drawn.map((name) => band(name, column(name, 0), column(name, 2), column(name, 3))));
    traces.push(...drawn.map((name) => line(name, column(name, 0), column(name, 1), {}, {
      mode: "lines+markers", customdata: lines[name], hovertemplate,
      marker: { size: lines[name].map((point) => mark(point) ? 11 : 7), color: contents.look[name].color,
                symbol: lines[name].map((point) => mark(point) ? "x" : "circle") },
    })));
    const ticks = [...new Set(there.flatMap((name) => column(name, 0)))].sort((a, b) => a - b);
    // Labels of a dense grid would collide.
    const text = ticks.map((one, number) => number % Math.ceil(ticks.length / 9) ? "" : String(one));
    const layout = frame();
    layout.xaxis = { type: "log", zeroline: false, tickvals: ticks, ticktext: text,
                     title: { text: contents.charts.absolute ? "learning rate" : "learning rate, as a multiple of the good one" } };
    layout.yaxis = { zeroline: false, ...yaxis };
    layout.uirevision = revision;
    Plotly.react(place, traces, themed(layout), config);
  }

  // At one learning rate, a row for each scheduler, the best first.
  function overNames(place, there, lines, hovertemplate, mark, axis, revision) {
    const point = (name) => lines[name][0];
    const ranked = [...there].sort((one, other) => point(other)[1] - point(one)[1]);
    const traces = ranked.map((name) => ({
      x: [point(name)[1]], y: [plain(contents.titles[name])], mode: "markers", name: plain(contents.titles[name]), showlegend: false,
      customdata: [point(name)], hovertemplate: hovertemplate.replace("%{x:g}: ", "").replace("%{y:", "%{x:"),
      error_x: { type: "data", symmetric: false, array: [point(name)[3] - point(name)[1]], arrayminus: [point(name)[1] - point(name)[2]],
                 thickness: 1.5, width: 4 },
      marker: { size: mark(point(name)) ? 12 : 9, symbol: mark(point(name)) ? "x" : "circle",
                color: shown().has(name) ? contents.look[name].color : css("--quiet") },
    }));
    const layout = frame();
    layout.margin.l = 8;
    layout.xaxis = { zeroline: false, ...axis };
    layout.yaxis = { automargin: true, ticks: "", zeroline: false };
    layout.uirevision = revision;
    Plotly.react(place, traces, themed(layout), config);
  }

  function drawRegret() {
    const of = document.getElementById("regret-of").value;
    overRates(document.getElementById("regret"), contents.charts.regret[of],
              "%{x:g}: %{y:.3g}, interval %{customdata[2]:.3g} … %{customdata[3]:.3g}" +
              "<br>worst of %{customdata[5]}: %{customdata[4]:.3g}; %{customdata[6]} runs failed",
              (point) => point[6] > 0, { type: "log", title: { text: "regret" } }, of);
  }

  function drawFinal() {
    const of = document.getElementById("final-of")?.value ?? Object.keys(contents.charts.final)[0];
    const lines = contents.charts.final[of];
    const positive = Object.values(lines).flat().every((point) => point[2] > 0);
    overRates(document.getElementById("final"), lines,
              "%{x:g}: %{y:.4g}, from %{customdata[2]:.4g} to %{customdata[3]:.4g}" +
              "<br>%{customdata[4]} of %{customdata[5]} runs failed",
              (point) => point[4] > 0, { type: positive ? "log" : "linear", title: { text: "final validation loss" } }, of);
  }

  const chosen = () => numberOf.get(JSON.stringify(selects.map((select) => select.value)));

  function drawCase() {
    const number = chosen();
    document.getElementById("no-case").hidden = number !== undefined;
    const data = number === undefined ? { steps: [1], validation_steps: [0], bands: {}, rows: [] } :
      JSON.parse(document.getElementById(`case-${number}`).textContent);
    drawCurves(data, number);
    fillTable(data.rows);
  }

  function drawCurves(data, number) {
    const xs = [data.steps, data.validation_steps, data.steps];
    const visible = shown(), fills = [], lines = [], heights = [[], [], []], starts = [[], [], []];
    for (const name of contents.names.filter((name) => data.bands[name] && visible.has(name))) {
      data.bands[name].forEach((text, row) => {
        const axes = { xaxis: "x" + (row ? row + 1 : ""), yaxis: "y" + (row ? row + 1 : "") };
        const [middle, low, high] = decoded(text, xs[row].length);
        if (low) fills.push(band(name, xs[row], low, high, axes));
        lines.push(line(name, xs[row], middle, axes, {
          hovertemplate: "%{y:.4g} after %{x} steps",
        }));
        heights[row].push(...middle.filter(Number.isFinite));
        starts[row].push(...middle.filter(Number.isFinite).slice(0, 1));
      });
    }
    const layout = frame();
    layout.uirevision = String(number);
    [[0.7, 1], [0.38, 0.67], [0, 0.35]].forEach((domain, row) => {
      const at = row ? row + 1 : "";
      layout["xaxis" + at] = { zeroline: false, range: [0, 1.01 * data.steps.at(-1)], anchor: "y" + at,
                               ...(row ? { matches: "x" } : {}), showticklabels: row === 2,
                               ...(row === 2 ? { title: { text: "step" } } : {}) };
      layout["yaxis" + at] = { zeroline: false, domain, exponentformat: "power", anchor: "x" + at,
                               title: { text: ROWS[row], standoff: 4 }, ...range(heights[row], starts[row], row === 2) };
    });
    Plotly.react(document.getElementById("curves"), [...fills, ...lines], themed(layout), config);
  }

  // Logarithmic unless something is negative. What diverged, or was annealed to nothing, would squeeze all else together.
  function range(heights, starts, rate) {
    if (!heights.length) return {};
    const cap = 10 * Math.max(...starts.map(Math.abs));
    const high = rate ? Math.max(...heights) : Math.min(Math.max(...heights), cap);
    if (heights.some((one) => one < 0)) {
      const low = Math.min(...heights), room = 0.05 * (high - low);
      return { type: "linear", range: [low - room, high + room] };
    }
    const floor = rate ? Math.max(...starts) / 1000 : 0;
    const low = Math.max(floor, Math.min(...heights.filter((one) => one > 0)));
    return { type: "log", range: [Math.log10(low / 1.2), Math.log10(high * 1.2)] };
  }

  function fillTable(rows) {
    const body = document.querySelector("#case-table tbody");
    body.replaceChildren(...rows.map((row) => {
      const line = document.createElement("tr");
      line.classList.toggle("ours", row.scheduler === contents.names[0]);
      const head = line.appendChild(document.createElement("th"));
      head.scope = "row";
      head.textContent = contents.titles[row.scheduler];
      for (const cell of ["mean", "failed", "benefit", "verdict", "regret", "steps"]) line.insertCell().textContent = row[cell];
      const details = line.insertCell().appendChild(document.createElement("details"));
      details.appendChild(document.createElement("summary")).textContent = "runs";
      details.appendChild(document.createElement("pre")).textContent = row.runs;
      return line;
    }));
  }

  function select(number) {
    for (const one of selects) one.value = valueOf(number, one);
  }

  // Nothing is drawn before it is about to be seen.
  const charts = [["trajectories", () => drawTrajectories()], ["final", drawFinal], ["regret", drawRegret], ["curves", drawCase]];
  const seen = new Map(charts.filter(([id]) => document.getElementById(id)));
  const drawn = new Set();
  const draw = (id) => { if (drawn.has(id)) seen.get(id)(); };
  const drawAll = () => seen.forEach((_, id) => draw(id));
  const watch = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach((one) => {
    watch.unobserve(one.target);
    drawn.add(one.target.id);
    draw(one.target.id);
  }), { rootMargin: "600px" });
  seen.forEach((_, id) => watch.observe(document.getElementById(id)));

  for (const legend of legends) {
    legend.addEventListener("change", (event) => {
      for (const other of legends) other.querySelectorAll("input").forEach((box) => {
        if (box.value === event.target.value) box.checked = event.target.checked;
      });
      drawAll();
    });
  }
  for (const one of selects) one.addEventListener("change", () => draw("curves"));
  document.getElementById("regret-of")?.addEventListener("change", () => draw("regret"));
  document.getElementById("final-of")?.addEventListener("change", () => draw("final"));
  for (const button of document.querySelectorAll("[data-go]")) {
    button.addEventListener("click", () => {
      select(button.dataset.go);
      // Both that the verdict is on are to be seen, in every chart.
      for (const box of document.querySelectorAll(".legend input")) {
        if ([contents.names[0], button.dataset.rival].includes(box.value)) box.checked = true;
      }
      drawAll();
      document.getElementById("case").scrollIntoView();
      selects[0].focus({ preventScroll: true });
    });
  }
  dark.addEventListener("change", drawAll);
  if (contents.cases.length) select(contents.first);
