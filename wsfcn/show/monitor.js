// The training monitor: draws what the kernel sends; its buttons only say what is asked for.

const CSS = `
.wsm { --ink: var(--jp-ui-font-color1, var(--vscode-editor-foreground, #1b1b1b)); --soft: var(--jp-ui-font-color2, #595959);
  --paper: var(--jp-layout-color1, var(--vscode-editor-background, #fff)); --tint: var(--jp-layout-color2, #f1f3f5); --edge: var(--jp-border-color1, #bdbdbd);
  color: var(--ink); background: var(--paper); font: 13px/1.45 var(--jp-ui-font-family, system-ui, sans-serif);
  padding: 12px; border: 1px solid var(--edge); border-radius: 8px; max-width: 1100px; box-sizing: border-box; }
.wsm * { box-sizing: border-box; }
.wsm .bar { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; margin-bottom: 8px; }
.wsm button { font: inherit; color: inherit; background: var(--tint); border: 1px solid var(--edge); border-radius: 4px; padding: 3px 12px; cursor: pointer; }
.wsm button:disabled { opacity: .45; cursor: default; }
.wsm :focus-visible { outline: 3px solid #e69f00; outline-offset: 1px; }
.wsm progress { flex: 1 1 140px; height: 14px; accent-color: #0072b2; } .wsm .said { flex: 3 1 300px; }
.wsm .charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 12px; }
.wsm h4 { margin: 0 0 2px; font-size: 13px; } .wsm svg { display: block; width: 100%; height: auto; }
.wsm text { font: 11px var(--jp-ui-font-family, system-ui, sans-serif); fill: var(--soft); } .wsm polyline { fill: none; stroke-width: 2; }
.wsm .grid { stroke: var(--edge); stroke-width: .6; } .wsm .warm { fill: var(--tint); } .wsm circle { stroke: none; }
.wsm .key { display: flex; flex-wrap: wrap; gap: 0 14px; color: var(--soft); } .wsm i { display: inline-block; width: 16px; height: 3px; margin-right: 5px; vertical-align: 4px; }
.wsm .film { margin-top: 10px; } .wsm .film label { display: flex; gap: 10px; align-items: center; margin-bottom: 6px; } .wsm .film input { flex: 1; max-width: 320px; accent-color: #0072b2; }
.wsm table { border-collapse: collapse; width: 100%; table-layout: fixed; margin: 0; } .wsm :is(td, th) { padding: 2px 3px; text-align: left; font-weight: normal; color: var(--soft); background: none; border: 0; } .wsm tr > th { width: 60px; } .wsm td { vertical-align: top; font-size: 12px; }
.wsm canvas { display: block; width: 100%; height: auto; border-radius: 2px; }`;

const CHARTS = [
  ["Training losses", "loss", { classification_loss: ["classification loss", "#0072b2"], mask_loss: ["mask loss", "#d55e00"] }],
  ["Batch gate", "% of the images", { gate_open: ["images with an open gate", "#cc79a7"] }],
  ["Masks of the validation images", "%", { mean_iou: ["mIoU", "#009e73"], pixel_accuracy: ["pixel accuracy", "#0072b2"] }],
];

function el(tag, options = {}, ...children) {
  const svg = ["svg", "polyline", "circle", "line", "rect", "text"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(options)) !svg && name in node ? (node[name] = value) : node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function chart([title, unit, lines], rows, { epochs, warmup }) {
  const W = 330, H = 170, left = 36, bottom = H - 32, scale = unit === "loss" ? 1 : 100;
  const of = (name) => rows.filter((r) => r[name] != null && !(name !== "classification_loss" && unit !== "%" && r.epoch <= warmup)).map((r) => [r.epoch, scale * r[name]]);
  const found = Object.fromEntries(Object.keys(lines).map((name) => [name, of(name)]));
  const top = scale === 100 ? 100 : Math.max(0.1, ...Object.values(found).flat().map((p) => p[1])) * 1.05;
  const x = (v) => left + (v / epochs) * (W - left - 8), y = (v) => bottom - (v / top) * (bottom - 8);
  const svg = el("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" });
  svg.append(el("rect", { class: "warm", x: left, y: 8, width: x(warmup) - left, height: bottom - 8 }));
  for (let n = 0; n <= 4; n++) {
    const v = (top * n) / 4;
    svg.append(el("line", { class: "grid", x1: left, x2: W - 8, y1: y(v), y2: y(v) }), el("text", { x: left - 5, y: y(v) + 4, "text-anchor": "end" }, scale === 100 ? v.toFixed(0) : v.toFixed(2)));
  }
  for (let e = 0; e <= epochs; e += Math.ceil(epochs / 8)) svg.append(el("text", { x: x(e), y: bottom + 14, "text-anchor": "middle" }, `${e}`));
  svg.append(el("text", { x: (left + W) / 2, y: H - 4, "text-anchor": "middle" }, "epoch"));
  if (warmup) svg.append(el("text", { x: left + 4, y: bottom - 6 }, "warm-up"));
  const told = [];
  for (const [name, [label, colour]] of Object.entries(lines)) {
    const points = found[name];
    if (!points.length) continue;
    svg.append(el("polyline", { points: points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" "), stroke: colour }));
    if (points.length < 30) points.forEach(([a, b]) => svg.append(el("circle", { cx: x(a), cy: y(b), r: 2.5, fill: colour })));
    const last = points[points.length - 1][1];
    told.push([label, scale === 100 ? `${last.toFixed(0)} %` : last.toFixed(3), colour]);
  }
  svg.setAttribute("aria-label", `${title}: ${told.map(([label, last]) => `${label} now ${last}`).join(", ") || "nothing yet"}`);
  const key = el("div", { className: "key" }, ...told.map(([label, last, colour]) => el("span", {}, el("i", { style: `background:${colour}` }), `${label}: ${last}`)));
  return el("div", {}, el("h4", {}, `${title}${unit === "loss" ? "" : ", " + unit}`), svg, key);
}

function render({ model, el: root }) {
  const ask = (what) => () => {
    model.set("asked", what);
    model.save_changes();
    buttons();
    clearTimeout(patience);
    patience = setTimeout(() => {
      if (model.get("asked") === what && model.get("state") !== "running") said.textContent = "No kernel answers: run the cell again.";
    }, 4000);
  };
  let patience, follow = true;
  const stop = el("button", { type: "button", onclick: ask("stop") }, "Stop"), resume = el("button", { type: "button", onclick: ask("resume") }, "Resume");
  const progress = el("progress", { ariaLabel: "Training done" }), said = el("output", { className: "said", ariaLive: "polite" });
  const charts = el("div", { className: "charts" }), slider = el("input", { type: "range", min: 1 }), moment = el("output");
  const table = el("table"), film = el("div", { className: "film" }, el("label", {}, "Masks after epoch", slider, moment), table);
  slider.oninput = () => {
    follow = slider.value === slider.max;
    masks();
  };
  root.append(el("div", { className: "wsm", role: "group", ariaLabel: "Training monitor" }, el("style", {}, CSS), el("div", { className: "bar" }, stop, resume, progress, said), charts, film));

  function buttons() {
    const state = model.get("state"), asked = model.get("asked");
    stop.disabled = state !== "running" || asked === "stop";
    resume.disabled = state !== "stopped" || asked === "resume";
  }

  function status() {
    const state = model.get("state"), text = model.get("said"), waits = model.get("asked") === "stop" && state === "running";
    said.textContent = waits ? "stopping at the end of this step" : text ? `${state[0].toUpperCase()}${state.slice(1)}: ${text}` : state;
    if (state === "stopped" && text.startsWith("Stopped")) said.textContent = text;
    buttons();
  }

  function lines() {
    const rows = model.get("rows"), meta = model.get("meta");
    progress.max = meta.epochs;
    progress.value = Math.max(0, ...rows.map((row) => row.epoch));
    charts.replaceChildren(...CHARTS.map((one) => chart(one, rows, meta)));
  }

  function masks() {
    const { shape: [n, h, w], colours, classes } = model.get("meta"), epochs = model.get("epochs"), size = h * w;
    film.hidden = !epochs || model.get("masks").byteLength < (epochs + 1) * n * size;
    if (film.hidden) return;
    const at = slider.value;
    slider.max = epochs;
    slider.value = follow ? epochs : at;
    moment.textContent = `${slider.value} of ${epochs}`;
    const bytes = (name) => new Uint8Array(model.get(name).buffer, model.get(name).byteOffset, model.get(name).byteLength);
    const images = bytes("images"), labels = bytes("masks");
    const row = (title, frame) => el("tr", {}, el("th", { scope: "row" }, title), ...Array.from({ length: n }, (_, i) => {
      const canvas = el("canvas", { width: w, height: h, role: "img" }), context = canvas.getContext("2d"), data = context.createImageData(w, h), count = new Array(256).fill(0);
      for (let p = 0; p < size; p++) {
        const rgb = images.subarray(3 * (i * size + p)), label = frame === null ? 0 : labels[(frame * n + i) * size + p];
        const pale = 140 + 0.42 * (0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2]), share = label === 255 ? 1 : label ? 0.75 : 0;
        count[label]++;
        for (let c = 0; c < 3; c++) data.data[4 * p + c] = frame === null ? rgb[c] : pale + share * ((label === 255 ? 255 : colours[label][c]) - pale);
        data.data[4 * p + 3] = 255;
      }
      context.putImageData(data, 0, 0);
      const names = classes.map((name, k) => [count[k + 1], name]).filter(([c]) => c > size / 100).sort((a, b) => b[0] - a[0]).map(([, name]) => name).join(", ");
      canvas.setAttribute("aria-label", `${title}, scene ${i + 1}: ${names}`);
      return el("td", {}, canvas, names);
    }));
    table.replaceChildren(row("scene", null), row("mask", Number(slider.value)), row("exact", 0));
  }

  const parts = { state: status, said: status, asked: status, rows: lines, meta: lines, masks, epochs: masks };
  for (const [name, draw] of Object.entries(parts)) model.on(`change:${name}`, draw);
  status();
  lines();
  masks();
  return () => Object.entries(parts).forEach(([name, draw]) => model.off?.(`change:${name}`, draw));
}

export default { render };
