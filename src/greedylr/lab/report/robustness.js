  const robustness = JSON.parse(document.getElementById("robustness-contents").textContent);
  const where = [...document.querySelectorAll("[data-where]")];
  const scenes = new Map();  // By perturbation; a page has dozens of them, and a reader looks at a few.

  function scenesOf(perturbation) {
    if (!scenes.has(perturbation)) {
      const text = document.getElementById(`scenes-${perturbation}`)?.textContent ?? "[]";
      scenes.set(perturbation, JSON.parse(text));
    }
    return scenes.get(perturbation);
  }

  function drawTrajectories() {
    const wanted = Object.fromEntries(where.map((select) => [select.dataset.where, select.value]));
    const place = (scene) => ["problem", "optimizer", "multiplier"].every((what) => String(scene[what]) === wanted[what]);
    const scene = scenesOf(wanted.perturbation).find(place);
    const twins = scenesOf("none").find((one) => place(one) && one.steps === scene?.steps);
    document.getElementById("no-scene").hidden = scene !== undefined;
    const steps = scene?.steps ?? 1, count = Math.min(50, steps), visible = shown();
    const x = Array.from({ length: count }, (_, number) => Math.floor((steps * (number + 1)) / count));
    const lines = [], heights = [[], []], starts = [[], []];
    for (const name of robustness.shown.filter((name) => visible.has(name) && scene?.curves[name])) {
      for (const [curves, ofTwin] of [[twins?.curves[name], true], [scene.curves[name], false]]) {
        curves?.forEach((text, row) => {
          const [y] = decoded(text, count);
          const drawn = line(name, x, y, { xaxis: row ? "x2" : "x", yaxis: row ? "y2" : "y" }, {
            hovertemplate: "%{y:.4g} after %{x} steps",
          });
          if (ofTwin) {
            drawn.name += ", undisturbed";
            drawn.line = { ...drawn.line, dash: "dot", width: 1.3 };
          }
          lines.push(drawn);
          heights[row].push(...y.filter(Number.isFinite));
          starts[row].push(...y.filter(Number.isFinite).slice(0, 1));
        });
      }
    }
    const layout = frame();
    layout.uirevision = JSON.stringify(wanted);
    [[0.42, 1], [0, 0.36]].forEach((domain, row) => {
      const at = row ? "2" : "";
      layout["xaxis" + at] = { zeroline: false, range: [0, 1.01 * steps], anchor: "y" + at, showticklabels: row === 1,
                               ...(row ? { matches: "x", title: { text: "step" } } : {}) };
      layout["yaxis" + at] = { zeroline: false, domain, exponentformat: "power", anchor: "x" + at,
                               title: { text: row ? "learning rate" : "clean training loss", standoff: 4 },
                               ...range(heights[row], starts[row], row === 1) };
    });
    if (scene) {
      const [x0, x1] = scene.span;
      layout.shapes = ["y", "y2"].map((axis) => ({
        type: "rect", layer: "below", xref: axis.replace("y", "x"), yref: `${axis} domain`, x0, x1, y0: 0, y1: 1,
        line: { width: 0 }, fillcolor: "rgba(128, 128, 128, 0.18)",
      }));
    }
    Plotly.react(document.getElementById("trajectories"), lines, themed(layout), config);
  }

  function fillRobustness() {
    const rows = robustness.tables[document.getElementById("level").value];
    const multiplier = document.getElementById("level-rate").value;
    const table = document.getElementById("robustness-table");
    for (const body of [...table.tBodies]) body.remove();
    let group = null;
    for (const [rate, title, scheduler, ...cells] of rows) {
      if (String(rate) !== multiplier) continue;
      if (title !== group) {
        group = title;
        const head = table.createTBody().insertRow().appendChild(document.createElement("th"));
        head.scope = "rowgroup";
        head.colSpan = 1 + cells.length;
        head.textContent = title;
      }
      const row = [...table.tBodies].at(-1).insertRow();
      row.classList.toggle("ours", scheduler === contents.names[0]);
      const head = row.appendChild(document.createElement("th"));
      head.scope = "row";
      head.textContent = contents.titles[scheduler];
      for (const text of cells) {
        const [value, interval] = text.split(" [");
        const cell = row.insertCell();
        cell.textContent = value;
        if (interval) cell.appendChild(document.createElement("small")).textContent = interval.slice(0, -1);
      }
    }
  }

  // A learning rate is 1.0 in Python and 1 here: options are compared as numbers are written here.
  for (const option of document.querySelectorAll("#level-rate option, [data-where=multiplier] option")) {
    option.value = String(Number(option.value));
  }
  function goTo(scene) {
    for (const one of where) one.value = String(scene[one.dataset.where]);
  }
  for (const one of where) one.addEventListener("change", () => draw("trajectories"));
  for (const id of ["level", "level-rate"]) document.getElementById(id).addEventListener("change", fillRobustness);
  for (const button of document.querySelectorAll("[data-scene]")) {
    button.addEventListener("click", () => {
      goTo(JSON.parse(button.dataset.scene));
      draw("trajectories");
      document.getElementById("disruptions").scrollIntoView();
      where[0].focus({ preventScroll: true });
    });
  }
  fillRobustness();
  if (robustness.first) goTo(robustness.first);
