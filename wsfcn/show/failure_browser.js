// The failure browser: everything is in the state, so lists and keys need neither kernel nor net.

const CSS = `
.wsf { --ink: var(--jp-ui-font-color1, var(--vscode-editor-foreground, #1b1b1b)); --soft: var(--jp-ui-font-color2, #595959);
  --paper: var(--jp-layout-color1, var(--vscode-editor-background, #fff)); --tint: var(--jp-layout-color2, #f1f3f5); --edge: var(--jp-border-color1, #bdbdbd);
  container-type: inline-size; color: var(--ink); background: var(--paper); font: 13px/1.45 var(--jp-ui-font-family, system-ui, sans-serif);
  padding: 12px; border: 1px solid var(--edge); border-radius: 8px; max-width: 1100px; box-sizing: border-box; }
.wsf * { box-sizing: border-box; }
.wsf .bar { display: flex; flex-wrap: wrap; gap: 6px 16px; align-items: center; margin-bottom: 10px; }
.wsf .bar label { display: flex; gap: 6px; align-items: center; }
.wsf :is(select, button) { font: inherit; color: inherit; background: var(--tint); border: 1px solid var(--edge); border-radius: 4px; padding: 2px 6px; }
.wsf button:disabled { opacity: .45; }
.wsf :focus-visible { outline: 3px solid #e69f00; outline-offset: 1px; }
.wsf .body { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1.25fr); gap: 16px; align-items: start; }
.wsf .wall { display: grid; grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); gap: 6px; max-height: 560px; overflow-y: auto; padding: 4px; margin: 0; list-style: none; }
.wsf .wall button { display: block; width: 100%; padding: 3px; cursor: pointer; border-bottom-width: 4px; text-align: center; }
.wsf .wall button[aria-current] { background: #0072b2; color: #fff; }
.wsf canvas { display: block; width: 100%; height: auto; border-radius: 2px; }
.wsf .four { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.wsf figure { margin: 0; } .wsf figcaption { color: var(--soft); min-height: 1.5em; }
.wsf i { display: inline-block; width: 11px; height: 11px; margin-right: 4px; border: 1px solid #555; vertical-align: -1px; }
.wsf .named { margin-right: 10px; white-space: nowrap; }
.wsf .head { display: flex; gap: 6px; align-items: baseline; margin-bottom: 6px; } .wsf h4 { flex: 1; margin: 0; font-size: 14px; }
.wsf .why { margin: 8px 0 0; padding: 0; list-style: none; } .wsf .why li { margin-bottom: 4px; }
.wsf .why small { display: block; color: var(--soft); margin-left: 15px; font-size: 12px; }
.wsf .help { color: var(--soft); font-size: 12px; margin: 10px 0 0; }
@container (max-width: 640px) { .wsf .body { grid-template-columns: 1fr; } .wsf .wall { max-height: 290px; } }`;

function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) name in node ? (node[name] = value) : node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** The pixels of a picture file, as a canvas; exact, whatever the screen's colours are. */
async function decoded(view, type) {
  const bitmap = await createImageBitmap(new Blob([view], { type }), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = el("canvas", { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, 0, 0);
  return canvas.getContext("2d");
}

async function render({ model, el: root }) {
  // What has an order comes as a list of pairs: a saved notebook sorts the names of an object.
  const meta = model.get("meta"), { classes, colours, sizes, cell } = meta;
  const causes = new Map(meta.causes.map(([name, ...told]) => [name, told])), cases = meta.cases.map((one) => ({ ...one, gains: new Map(one.gains) }));
  const [images, maps] = await Promise.all([decoded(model.get("images"), "image/jpeg"), decoded(model.get("maps"), "image/png")]);
  const columns = Math.min(8, cases.length), rgb = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  const kinds = [[255, 255, 255], ...[...causes.values()].map(([, colour]) => rgb(colour))];
  let shown = [], current = 0;

  /** The picture of a case: as it is, or pale with channel 0 prediction, 1 truth, 2 errors over it. */
  function picture(place, channel = null) {
    const [w, h] = cases[place].size, at = [(place % columns) * cell, Math.floor(place / columns) * cell, w, h];
    const data = images.getImageData(...at), pixels = data.data;
    if (channel !== null) {
      const labels = maps.getImageData(...at).data, table = channel === 2 ? kinds : colours;
      for (let p = 0; p < w * h; p++) {
        const label = labels[4 * p + channel], edge = (p % w < w - 1 && labels[4 * p + 4 + channel] !== label) || (p < w * (h - 1) && labels[4 * (p + w) + channel] !== label);
        const pale = 140 + 0.42 * (0.3 * pixels[4 * p] + 0.59 * pixels[4 * p + 1] + 0.11 * pixels[4 * p + 2]);
        const tint = label === 255 ? [255, 255, 255] : table[label], share = label === 255 ? 1 : label === 0 ? 0 : channel === 2 || edge ? 0.95 : 0.7;
        for (let c = 0; c < 3; c++) pixels[4 * p + c] = pale + share * (tint[c] - pale);
      }
    }
    const canvas = el("canvas", { width: w, height: h });
    canvas.getContext("2d").putImageData(data, 0, 0);
    return canvas;
  }

  function named(place, channel) {
    const [w, h] = cases[place].size, data = maps.getImageData((place % columns) * cell, Math.floor(place / columns) * cell, w, h).data, count = new Array(256).fill(0);
    for (let p = channel; p < data.length; p += 4) count[data[p]]++;
    const found = classes.map((name, k) => [count[k + 1], name, k + 1]).filter(([n]) => n > 0).sort((a, b) => b[0] - a[0]);
    return found.map(([n, name, k]) => el("span", { className: "named" }, el("i", { style: `background:rgb(${colours[k]})` }), `${name} ${(100 * n / (w * h)).toFixed(0)} %`));
  }

  const main = (one) => [...one.gains.keys()][0] ?? "", colour = (cause) => causes.get(cause)?.[1] ?? "#999";
  const list = (label, options) => {
    const select = el("select", { onchange: () => filter() }, el("option", { value: "" }, "all"), ...options.map((o) => el("option", { value: o }, o)));
    return [el("label", {}, label, select), select];
  };
  const present = classes.filter((name) => cases.some((one) => one.names.includes(name)));
  const [byCause, cause] = list("Cause", [...causes.keys()]), [byClass, name] = list("Class", present), [bySize, size] = list("Object", sizes);
  const status = el("output", { ariaLive: "polite" }), wall = el("ul", { className: "wall", ariaLabel: "Images, the worst first" }), detail = el("section", { ariaLabel: "The image and why" });
  const body = el("div", { className: "body" }, wall, detail);
  const help = el("p", { className: "help" }, "Keys: arrows walk over the wall, Home and End to its ends, c the next cause. Colours of the errors: ");
  for (const [name, [, c]] of causes) help.append(el("span", { className: "named" }, el("i", { style: `background:${c}` }), name));
  const box = el("div", { className: "wsf", role: "group", ariaLabel: "Failure browser" }, el("style", {}, CSS), el("div", { className: "bar" }, byCause, byClass, bySize, status), body, help);

  const thumbs = cases.map((one, place) => el("li", {}, el("button", {
    type: "button", onclick: () => open(shown.indexOf(place)), style: `border-bottom-color:${colour(main(one))}`,
    ariaLabel: `${one.id}: mIoU ${one.iou} percent, ${main(one) || "no notable cause"}`, title: `${one.id}: ${main(one) || "no notable cause"}`,
  }, picture(place, 2), `${one.iou} %`)));

  function filter() {
    shown = cases.map((_, place) => place).filter((place) => {
      const one = cases[place];
      return (!cause.value || one.gains.has(cause.value)) && (!name.value || one.names.includes(name.value)) && (!size.value || one.sizes.includes(size.value));
    }).sort((a, b) => (cases[b].gains.get(cause.value) ?? 0) - (cases[a].gains.get(cause.value) ?? 0) || a - b);
    wall.replaceChildren(...shown.map((place) => thumbs[place]));
    open(0);
  }

  function open(place, focus = false) {
    current = Math.max(0, Math.min(shown.length - 1, place));
    shown.forEach((number, i) => {
      const button = thumbs[number].firstChild;
      button.tabIndex = i === current ? 0 : -1;
      i === current ? button.setAttribute("aria-current", "true") : button.removeAttribute("aria-current");
      if (i === current && focus) button.focus();
    });
    if (!shown.length) {
      status.textContent = "no such image";
      return detail.replaceChildren();
    }
    const number = shown[current], one = cases[number];
    status.textContent = `image ${current + 1} of ${shown.length}${cause.value ? `, ${cause.value}` : ""}`;
    const step = (by, text) => el("button", { type: "button", onclick: () => open(current + by), disabled: current + by < 0 || current + by >= shown.length }, text);
    const part = (title, canvas, ...caption) => el("figure", {}, el("b", {}, title), canvas, el("figcaption", {}, ...caption));
    const area = [...one.gains.keys()].map((c) => el("span", { className: "named" }, el("i", { style: `background:${colour(c)}` }), c));
    detail.replaceChildren(
      el("div", { className: "head" }, el("h4", {}, `${one.id}: mIoU ${one.iou} %`), step(-1, "Previous"), step(1, "Next")),
      el("div", { className: "four" },
        part("image", picture(number), one.place ? `ground: ${one.place}` : ""), part("exact mask", picture(number, 1), ...named(number, 1)),
        part("prediction", picture(number, 0), ...named(number, 0)), part("errors by cause", picture(number, 2), ...area)),
      el("ul", { className: "why" }, ...one.why.map((line) => {
        const about = line.split(":")[0];
        return el("li", {}, el("i", { style: `background:${colour(about)}` }), el("b", {}, about), line.slice(about.length), el("small", {}, causes.get(about)[0]));
      })),
    );
    for (const [canvas, text] of [[0, "image"], [1, "exact mask"], [2, "prediction"], [3, "errors by cause"]].map(([i, t]) => [detail.querySelectorAll("canvas")[i], t])) {
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${text} of ${one.id}`);
    }
  }

  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const across = getComputedStyle(wall).gridTemplateColumns.split(" ").length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, Home: -Infinity, End: Infinity }[event.key];
    if (by) open(by === -Infinity ? 0 : by === Infinity ? shown.length - 1 : current + by, true);
    else if (event.key === "c") {
      cause.selectedIndex = (cause.selectedIndex + 1) % cause.options.length;
      filter();
      thumbs[shown[0]]?.firstChild.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  filter();
  root.append(box);
}

export default { render };
