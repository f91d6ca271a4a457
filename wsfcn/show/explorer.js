// The CAM explorer in the browser: typed arrays, one canvas, no kernel and no network.
// Scene computes what explorer.py's State does, from the same whole numbers.

const STAGES = {
  image: ["Image", "The picture. Training says which classes are in it, never where."],
  cam: ["CAM", "A CAM has no background map, so the threshold alone decides."],
  fca: ["FCA attention", "The spatial attention of FCA: 0 leaves the context of a place as it is, 1 doubles it. It is one map for all classes."],
  sf2: ["SF2 flow", "Each arrow starts at a place and points to where the deep, coarse map is sampled for it. Bright: far away."],
  gate: ["Gate", "The masks of the network. The gate mixes a deep and a shallow stream, 7 : 3 at test time unless set otherwise; below you can decode either stream alone."],
  pamr: ["PAMR", "Masks flow between neighbours of similar colour, a step at a time. Step 0 is the gate's mask. Click a pixel to see whom it listens to."],
  crf: ["CRF", "The fully connected CRF, used at test time: it starts at the gate's masks and pulls them to the edges of the picture."],
  truth: ["Ground truth", "The exact mask, for judging only: training never sees it. White pixels are not counted."],
};
const CAMS = {
  classifier: "Where a classifier's features speak for a class: coarse, and brightest on the part that gives the class away.",
  network: "Where the backbone's features speak for a class (gradient times feature): coarse, partial, and beside the object where the flow fetches from afar.",
};
const MASKS = ["cam", "gate", "pamr", "crf"];
const ARROWS = ["↖", "↑", "↗", "←", "→", "↙", "↓", "↘"];
const AROUND = [[-1, -1], [-1, 0], [-1, 1], [0, -1], [0, 1], [1, -1], [1, 0], [1, 1]];
const CIVIDIS = [[0, 34, 78], [26, 56, 111], [67, 78, 108], [97, 101, 111], [125, 124, 120],
  [155, 148, 118], [188, 174, 108], [222, 201, 88], [254, 232, 56]];
const HEAT = Uint8Array.from({ length: 768 }, (_, i) => {
  const at = Math.floor(i / 3) / 255 * 8, low = Math.min(7, Math.floor(at)), c = i % 3;
  return Math.round(CIVIDIS[low][c] + (CIVIDIS[low + 1][c] - CIVIDIS[low][c]) * (at - low));
});
const LONGEST = 768; // px of the canvas
const TALLEST = 520; // px on the page
const CACHED = 100; // results that a picture keeps

/** For each of N places on n cells, corners aligned: the cell before it, and how far beyond. */
function places(n, N) {
  const cell = new Int32Array(N), part = new Float32Array(N);
  for (let i = 1; i < N; i++) {
    const at = i * (n - 1) / (N - 1);
    cell[i] = Math.floor(at);
    part[i] = at - cell[i];
  }
  return [cell, part];
}

/** The argmax of channels enlarged bilinearly from h x w to H x W, corners aligned: how strong it
 *  is, and its number. Of one channel that is the enlarged map itself. A class that leads at the
 *  four corners of a cell leads within, so only cells of several leaders look at all classes. */
function strongest(src, h, w, H, W, channels, numbers) {
  const size = h * w, lead = new Uint8Array(size), first = src.slice(channels[0] * size, (channels[0] + 1) * size);
  for (let k = 1; k < channels.length; k++) {
    for (let i = 0, q = channels[k] * size; i < size; i++, q++) if (src[q] > first[i]) { first[i] = src[q]; lead[i] = k; }
  }
  if (h === H && w === W) return [first, lead.map((k) => numbers[k])];
  const best = new Float32Array(H * W), winner = new Uint8Array(H * W);
  const [left, across] = places(w, W), [top, down] = places(h, H);
  const all = [...channels.keys()], one = all.map((k) => [k]);
  for (let y0 = 0, y1; y0 < H; y0 = y1) {
    for (y1 = y0; y1 < H && top[y1] === top[y0];) y1++;
    const under = top[y0] + 1 < h ? w : 0;
    for (let x0 = 0, x1; x0 < W; x0 = x1) {
      for (x1 = x0; x1 < W && left[x1] === left[x0];) x1++;
      const at = top[y0] * w + left[x0], beside = left[x0] + 1 < w ? 1 : 0, leader = lead[at];
      const same = lead[at + beside] === leader && lead[at + under] === leader && lead[at + under + beside] === leader;
      for (const k of same ? one[leader] : all) {
        const q = channels[k] * size + at, a = src[q], b = src[q + beside];
        const c = src[q + under] - a, d = src[q + under + beside] - b;
        for (let y = y0; y < y1; y++) {
          const l = a + c * down[y], r = b + d * down[y] - l;
          for (let x = x0, i = y * W + x0; x < x1; x++, i++) {
            const value = l + r * across[x];
            if (same || value > best[i]) { best[i] = value; winner[i] = numbers[k]; }
          }
        }
      }
    }
  }
  return [best, winner];
}

const resize = (src, h, w, H, W, channel = 0) => strongest(src, h, w, H, W, [channel], [0])[0];

/** One picture: its maps, and all that follows from them, computed once. */
export class Scene {
  constructor(meta, index, bytes) {
    const entry = meta.pictures[index];
    const view = (m) => bytes.subarray(m.at, m.at + m.shape.reduce((a, b) => a * b, 1));
    [this.H, this.W] = entry.image.shape;
    Object.assign(this, { meta, index, name: entry.name, scores: entry.scores, given: entry.labels });
    this.rgb = view(entry.image);
    this.truth = entry.truth && view(entry.truth);
    this.maps = Object.fromEntries(Object.entries(entry.maps).map(([name, m]) => {
      const [, h, w] = m.shape, unit = (m.high - m.low) / 255;
      return [name, { h, w, unit, low: m.low, high: m.high, channels: m.channels, bytes: view(m) }];
    }));
    this.cache = new Map();
    this.steps = [this.values("gate")];
    this.worker = this.work();
    this.grey = new Uint8Array(this.H * this.W);
    this.photo = new Uint32Array(this.H * this.W);
    for (let i = 0, q = 0; i < this.grey.length; i++, q += 3) {
      const [r, g, b] = [this.rgb[q], this.rgb[q + 1], this.rgb[q + 2]];
      this.grey[i] = 0.3 * r + 0.59 * g + 0.11 * b;
      this.photo[i] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
  }

  once(key, make) {
    const value = this.cache.get(key) ?? make();
    this.cache.delete(key); // what was used last goes last
    this.cache.set(key, value);
    if (this.cache.size > CACHED) this.cache.delete(this.cache.keys().next().value);
    return value;
  }

  has(stage) {
    if (stage === "image") return true;
    return stage === "truth" ? Boolean(this.truth) : this.source({ stage, stream: "gate" }) in this.maps;
  }

  source({ stage, stream }) {
    return { gate: stream, pamr: "gate" }[stage] ?? stage;
  }

  kept(allowed) {
    if (allowed === "given" && this.given) return this.given;
    return this.scores.map((score) => allowed === "all" || score > this.meta.filter);
  }

  /** The values of a map at the resolution of the network, all channels. */
  values(name) {
    const { bytes, low, unit } = this.maps[name];
    return this.once(`values ${name}`, () => {
      const out = new Float32Array(bytes.length);
      for (let i = 0; i < out.length; i++) out[i] = low + bytes[i] * unit;
      return out;
    });
  }

  /** PAMR in small pieces of work, between which events come first: the weights at each place,
   *  neighbour by neighbour, then the gate's maps after each step (wsfcn.weak.pamr). */
  *work() {
    const { h, w } = this.maps.gate, { H, W, rgb, offsets } = this, size = h * w, count = offsets.length;
    const r = Math.max(...this.meta.dilations), width = w + 2 * r, start = offsets.map(([dy, dx]) => (dy + r) * width + dx + r);
    const weights = new Float32Array(count * size), whole = new Float32Array(H * W);
    for (let c = 0; c < 3; c++) {
      for (let i = 0; i < H * W; i++) whole[i] = rgb[3 * i + c] / 255;
      const plane = resize(whole, H, W, h, w), padded = this.pad(plane, 0);
      const total = new Float64Array(size), squares = new Float64Array(size);
      for (const q0 of start) {
        for (let y = 0, p = 0; y < h; y++) {
          for (let x = 0, q = q0 + y * width; x < w; x++, p++, q++) {
            const d = padded[q] - plane[p];
            total[p] += d;
            squares[p] += d * d;
          }
        }
        yield;
      }
      const samples = 9 * this.meta.dilations.length;
      for (let p = 0; p < size; p++) {
        const variance = Math.max(0, squares[p] - total[p] ** 2 / samples) / (samples - 1);
        total[p] = -1 / (3 * (1e-8 + 0.1 * Math.sqrt(variance)));
      }
      for (let n = 0, o = 0; n < count; n++) {
        for (let y = 0, p = 0; y < h; y++) {
          for (let x = 0, q = start[n] + y * width; x < w; x++, q++) weights[o++] += Math.abs(padded[q] - plane[p]) * total[p++];
        }
        yield;
      }
    }
    for (let p = 0; p < size; p++) {
      let most = -Infinity, sum = 0;
      for (let i = p; i < weights.length; i += size) if (weights[i] > most) most = weights[i];
      for (let i = p; i < weights.length; i += size) sum += weights[i] = Math.exp(weights[i] - most);
      for (let i = p; i < weights.length; i += size) weights[i] /= sum;
      if (p % 500 === 0) yield;
    }
    this.affinity = weights;
    while (this.steps.length <= this.meta.iterations) {
      const before = this.steps.at(-1), after = new Float32Array(before.length);
      for (let at = 0; at < before.length; at += size) {
        const padded = this.pad(before, at), sum = after.subarray(at, at + size);
        for (let n = 0, o = 0; n < count; n++) {
          for (let y = 0, p = 0; y < h; y++) {
            for (let x = 0, q = start[n] + y * width; x < w; x++) sum[p++] += weights[o++] * padded[q++];
          }
        }
        yield;
      }
      this.steps.push(after);
      this.winners({ stage: "pamr", step: this.steps.length - 1, allowed: "guessed" });
      yield;
    }
    for (const stage of ["cam", "crf"]) if (this.has(stage)) yield this.winners({ stage, allowed: "guessed" });
  }

  /** Work until something is there. */
  until(ready) {
    while (!ready()) this.worker.next();
  }

  get affinities() {
    this.until(() => this.affinity);
    return this.affinity;
  }

  /** The gate's maps after some steps of PAMR, all channels. */
  refined(step) {
    this.until(() => this.steps.length > step);
    return this.steps[step];
  }

  get offsets() {
    return this.meta.dilations.flatMap((d) => AROUND.map(([y, x]) => [y * d, x * d]));
  }

  /** h x w values with their edges repeated outwards by the largest dilation. */
  pad(src, at) {
    const { h, w } = this.maps.gate, r = Math.max(...this.meta.dilations), width = w + 2 * r;
    const out = new Float32Array((h + 2 * r) * width);
    for (let y = 0; y < h + 2 * r; y++) {
      const row = at + Math.min(h - 1, Math.max(0, y - r)) * w, o = y * width;
      out.fill(src[row], o, o + r).fill(src[row + w - 1], o + r + w, o + width);
      out.set(src.subarray(row, row + w), o + r);
    }
    return out;
  }

  /** [all channels, map] of a view's stage. */
  stored(view) {
    const name = this.source(view);
    return [view.stage === "pamr" ? this.refined(view.step) : this.values(name), this.maps[name]];
  }

  key(view) {
    return `${this.source(view)} ${view.stage === "pamr" ? view.step : ""}`;
  }

  /** One channel at the picture's size; a class that is nowhere has a map of zeros. */
  full(view, channel) {
    return this.once(`full ${this.key(view)} ${channel}`, () => {
      const [values, { h, w, channels }] = this.stored(view), at = channels.indexOf(channel);
      return at < 0 ? new Float32Array(this.H * this.W) : resize(values, h, w, this.H, this.W, at);
    });
  }

  /** [channel, value] of every channel at one pixel. */
  at(view, [row, column]) {
    const [values, { h, w, channels }] = this.stored(view), [top, down] = places(h, this.H), [left, across] = places(w, this.W);
    const under = top[row] + 1 < h ? w : 0, beside = left[column] + 1 < w ? 1 : 0;
    return channels.map((c, k) => {
      const q = k * h * w + top[row] * w + left[column];
      const a = values[q] + (values[q + under] - values[q]) * down[row];
      const b = values[q + beside] + (values[q + under + beside] - values[q + beside]) * down[row];
      return [c, a + (b - a) * across[column]];
    });
  }

  /** How far the flow reaches, in pixels of the picture. */
  flow() {
    return this.once("flow", () => {
      const { h, w } = this.maps.sf2, xy = this.values("sf2"), size = h * w;
      const far = Float32Array.from({ length: size }, (_, i) => Math.hypot(xy[i], xy[size + i]));
      return { far: resize(far, h, w, this.H, this.W), most: far.reduce((a, b) => Math.max(a, b), 1e-6) };
    });
  }

  /** The strongest allowed class at each pixel, how strong it is, and the exponent that the
   *  background's map needs for it to win: best > ground ** exponent. */
  winners(view) {
    return this.once(`winners ${this.key(view)} ${view.allowed}`, () => {
      const [values, { h, w, channels }] = this.stored(view), kept = this.kept(view.allowed);
      const use = [...channels.keys()].filter((at) => channels[at] && kept[channels[at] - 1]);
      if (!use.length) return { best: new Float32Array(this.H * this.W), winner: new Uint8Array(this.H * this.W), needs: new Float32Array(this.H * this.W) };
      const [best, winner] = strongest(values, h, w, this.H, this.W, use, use.map((at) => channels[at]));
      const needs = new Float32Array(best.length);
      if (channels[0] === 0) {
        const ground = resize(values, h, w, this.H, this.W);
        for (let i = 0; i < best.length; i++) needs[i] = Math.log(best[i]) / Math.log(ground[i]);
      }
      return { best, winner, needs };
    });
  }

  /** Label map: the strongest class where it beats the threshold and the background. */
  labels(view) {
    if (view.stage === "truth") return this.truth;
    const { best, winner, needs } = this.winners(view), { threshold, exponent } = view;
    const out = new Uint8Array(best.length);
    for (let i = 0; i < out.length; i++) if (best[i] > threshold && needs[i] < exponent) out[i] = winner[i];
    return out;
  }

  /** IoU of each class (0 background) and their mean at thresholds 0.00, 0.01, ... 1.00. */
  curve(view) {
    const key = `curve ${this.key(view)} ${view.allowed} ${view.exponent}`;
    return this.once(key, () => {
      const { best, winner, needs } = this.winners(view), { truth } = this;
      const N = this.meta.classes.length + 1, B = 102; // bin b: won at the thresholds below b %
      const won = new Float64Array(N * B), right = new Float64Array(N * B), all = new Float64Array(N);
      for (let i = 0; i < truth.length; i++) {
        const t = truth[i];
        if (t === 255) continue;
        all[t]++;
        if (!(needs[i] < view.exponent)) continue;
        const bin = Math.min(B - 1, Math.ceil(best[i] * 100)), at = winner[i] * B + bin;
        won[at]++;
        if (t === winner[i]) right[at]++;
        if (t === 0) right[bin]--; // background that is lost
      }
      const pixels = all.reduce((a, b) => a + b), each = [], mean = [];
      const p = new Float64Array(N), hit = new Float64Array(N);
      p[0] = pixels;
      hit[0] = all[0];
      for (let t = 100; t >= 0; t--) {
        let sum = 0, count = 0;
        each[t] = new Float64Array(N);
        for (let c = N - 1; c >= 0; c--) {
          p[c] += won[c * B + t + 1];
          hit[c] += right[c * B + t + 1];
          if (c > 0) p[0] -= won[c * B + t + 1];
          const union = p[c] + all[c] - hit[c];
          each[t][c] = union > 0 ? hit[c] / union : NaN;
          if (union > 0) { sum += each[t][c]; count++; }
        }
        mean[t] = count ? sum / count : NaN;
      }
      return { each, mean };
    });
  }

  /** Draw a view's stage into pixels (Uint32, RGBA); returns the label map where there is one. */
  paint(view, out) {
    const { H, W, grey, photo } = this, { stage, opacity, shown } = view;
    if (stage === "image") {
      out.set(photo);
      return null;
    }
    const labels = stage === "fca" || stage === "sf2" ? null : this.labels(view);
    const heat = !labels || (shown && stage !== "truth");
    // The tint of what is drawn; over grey, since a tint on colours misleads.
    const red = new Uint8Array(256), green = new Uint8Array(256), blue = new Uint8Array(256), back = new Uint8Array(256);
    for (let i = 0; i < 256; i++) {
      const [r, g, b] = heat ? HEAT.subarray(3 * i) : i === 255 ? [255, 255, 255] : this.meta.colours[i] ?? [0, 0, 0];
      red[i] = r * opacity; green[i] = g * opacity; blue[i] = b * opacity; back[i] = i * (1 - opacity);
    }
    const edge = (i, x, y) => {
      const label = labels[i];
      return (x + 1 < W && labels[i + 1] !== label) || (x > 0 && labels[i - 1] !== label)
        || (y + 1 < H && labels[i + W] !== label) || (y > 0 && labels[i - W] !== label);
    };
    const mix = (q, g) => (255 << 24) | ((blue[q] + g) << 16) | ((green[q] + g) << 8) | (red[q] + g);
    if (heat) {
      const values = stage === "sf2" ? this.flow().far : this.full(view, labels ? shown : 0);
      const scale = 255 / (stage === "sf2" ? this.flow().most : 1);
      for (let y = 0, i = 0; y < H; y++) {
        for (let x = 0; x < W; x++, i++) {
          out[i] = labels && labels[i] === shown && edge(i, x, y) ? 0xffffffff : mix((values[i] * scale + 0.5) & 255, back[grey[i]]);
        }
      }
      return labels;
    }
    const solid = Uint32Array.from({ length: 256 }, (_, c) => {
      const [r, g, b] = this.meta.colours[c] ?? [255, 255, 255];
      return (255 << 24) | (b << 16) | (g << 8) | r;
    });
    for (let y = 0, i = 0; y < H; y++) {
      for (let x = 0; x < W; x++, i++) {
        const label = labels[i];
        out[i] = label === 0 ? photo[i] : label < 255 && edge(i, x, y) ? solid[label] : mix(label, back[grey[i]]);
      }
    }
    return labels;
  }

  /** Row and column in the masks of a pixel of the picture. */
  place([row, column]) {
    const { h, w } = this.maps.gate;
    return [Math.round(row * (h - 1) / Math.max(1, this.H - 1)), Math.round(column * (w - 1) / Math.max(1, this.W - 1))];
  }
}

const percent = (share, digits = 1) => Number.isFinite(share) ? `${(100 * share).toFixed(digits)} %` : "–";

/** An element; strings become text, never markup. */
function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") node.style.cssText = value;
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  // JupyterLab would take keys pressed here for its own.
  if (/^(input|select|button|canvas|section)$/.test(tag)) node.setAttribute("data-lm-suppress-shortcuts", "true");
  node.append(...children);
  return node;
}

export async function inflate(data) {
  const bytes = new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function render({ model, el: root }) {
  const meta = model.get("meta"), names = ["background", ...meta.classes];
  const view = { ...model.get("view") }, slider = {}, shown = {};
  const bytes = await inflate(model.get("data"));
  let scene, order = [], left, right, pending = 0, saving = 0, speaking = 0, writing = 0, dragging = null, gone = false;

  // ---- the page
  const choose = (title, onchange, properties = {}) => el("select", { "aria-label": title, title, onchange, ...properties });
  const picture = choose("Picture", () => set({ picture: Number(picture.value), pixel: null }));
  const inside = (p) => names.filter((_, c) => c && p.labels?.[c - 1]).join(", ");
  picture.append(...meta.pictures.map((p, i) => el("option", { value: i }, p.name + (p.labels ? `: ${inside(p)}` : ""))));
  const classes = choose("Class", () => set({ shown: Number(classes.value) }));
  const allowed = choose("Classes that a pixel may have", () => set({ allowed: allowed.value }));
  const stream = choose("What is decoded", () => set({ stream: stream.value }));
  stream.append(...[["gate", "the gate's mix"], ["deep", "the deep stream alone"], ["shallow", "the shallow stream alone"]]
    .map(([value, text]) => el("option", { value }, text)));
  const beside = choose("Left of the curtain", () => set({ left: beside.value }));
  const radio = {}, group = `stage-${Math.random().toString(36).slice(2)}`;
  const track = el("fieldset", { className: "track" }, el("legend", {}, "Stage"));
  for (const [stage, [title]] of Object.entries(STAGES)) {
    radio[stage] = el("input", { type: "radio", name: group, onchange: () => set({ stage }) });
    track.append(el("label", {}, radio[stage], el("span", {}, title)));
  }
  const rows = {};
  const range = (name, title, low, high, by, text) => {
    slider[name] = el("input", { type: "range", min: low, max: high, step: by, oninput: () => set({ [name]: Number(slider[name].value) }) });
    shown[name] = el("span", { className: "value" });
    shown[name].text = text;
    return rows[name] = el("label", { className: "row" }, el("span", {}, title), slider[name], shown[name]);
  };
  const pick = (name, title, select) => rows[name] = el("label", { className: "row" }, el("span", {}, title), select);
  const canvas = el("canvas", { tabIndex: 0, role: "img" }), context = canvas.getContext("2d");
  const small = document.createElement("canvas"), pixels = small.getContext("2d");
  const about = el("p", { className: "about" }), legend = el("div", { className: "legend" });
  const score = el("div", { className: "score" }), live = el("div", { className: "aside", role: "status", "aria-live": "polite" });
  const svg = (tag, properties) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
    return node;
  };
  const chart = svg("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true" });
  const line = svg("path", { class: "line" }), mark = svg("path", { class: "mark" }), top = svg("path", { class: "top" });
  chart.append(top, line, mark);
  const best = el("div", { className: "best" });
  const inspector = el("div", { className: "inspector" });
  const help = el("p", { className: "help" });
  [["← →", "stage"], ["↑ ↓", "threshold"], ["[ ]", "class, or 1–9 and 0 for all"], [", .", "PAMR step"],
    ["c", "curtain"], ["Shift + arrows", "move the inspected pixel"], ["Esc", "forget it"]]
    .forEach(([keys, what]) => help.append(el("kbd", {}, keys), ` ${what}  `));
  help.append(el("br"), "With the mouse: drag the line, click a pixel.");
  const face = el("section", { className: "wsx", "aria-label": "CAM explorer", onkeydown: press },
    el("style", {}, CSS),
    el("div", { className: "bar" }, el("label", {}, "Picture ", picture), el("label", {}, "Class ", classes), el("label", {}, "Allowed ", allowed)),
    track,
    el("div", { className: "body" },
      el("div", { className: "left" }, canvas, legend),
      el("div", { className: "right" }, about,
        el("div", { className: "judge" }, score, chart, best),
        range("threshold", "Threshold", 0, 1, 0.01, (v) => percent(v, 0)),
        range("exponent", "Background power", 0.25, 8, 0.25, (v) => v.toFixed(2)),
        range("step", "PAMR step", 0, meta.iterations, 1, (v) => `${v} of ${meta.iterations}`),
        pick("stream", "Decoded", stream),
        range("opacity", "Opacity", 0, 1, 0.01, (v) => percent(v, 0)),
        range("curtain", "Curtain", 0, 1, 0.01, (v) => percent(v, 0)),
        pick("left", "Left of it", beside))),
    inspector, help, live);
  root.replaceChildren(face);

  // ---- what follows from the view
  function set(changes) {
    Object.assign(view, changes);
    pending ||= requestAnimationFrame(draw);
    clearTimeout(saving);
    saving = setTimeout(() => { model.set("view", { ...view }); model.save_changes(); }, 300);
  }

  function open() {
    scene = new Scene(meta, view.picture, bytes);
    const { H, W } = scene, scale = LONGEST / Math.max(H, W);
    [small.width, small.height] = [W, H];
    [canvas.width, canvas.height] = [Math.round(W * scale), Math.round(H * scale)];
    canvas.style.maxWidth = `${Math.round(TALLEST * W / H)}px`;
    [left, right] = [0, 1].map(() => {
      const image = new ImageData(W, H);
      return { image, pixels: new Uint32Array(image.data.buffer) };
    });
    order = scene.scores.map((_, k) => k + 1).sort((a, b) => scene.scores[b - 1] - scene.scores[a - 1]);
    classes.replaceChildren(el("option", { value: 0 }, "all, as a label map"), ...order.map((k, i) => el("option", { value: k },
      `${i < 9 ? `${i + 1}: ` : ""}${names[k]}, score ${percent(scene.scores[k - 1], 0)}${scene.given?.[k - 1] ? ", in the picture" : ""}`)));
    const kinds = { guessed: `guessed: score above ${percent(meta.filter, 0)}`, given: "the true image labels", all: "all" };
    allowed.replaceChildren(...Object.entries(kinds).map(([value, text]) => el("option", { value, disabled: value === "given" && !scene.given }, text)));
    beside.replaceChildren(...[["image", "the picture"], ["before", "the stage before"], ["truth", "the ground truth"]]
      .map(([value, text]) => el("option", { value, disabled: value === "truth" && !scene.truth }, text)));
    for (const stage of Object.keys(STAGES)) radio[stage].disabled = !scene.has(stage);
    prepare(scene);
  }

  /** Between events: PAMR. Where it is looked at, each step shows when it is done. */
  function prepare(of) {
    if (gone || of !== scene) return;
    const before = of.steps.length, until = performance.now() + 8;
    let done = false;
    while (!done && performance.now() < until) done = of.worker.next().done;
    if (before !== of.steps.length && view.stage === "pamr" && view.step >= before) pending ||= requestAnimationFrame(draw);
    face.dataset.prepared = done ? "yes" : "no";
    if (!done) setTimeout(() => prepare(of), 4);
  }

  /** The view of what is drawn left of the curtain. */
  function other(now) {
    const stages = Object.keys(STAGES).filter((s) => scene.has(s));
    if (view.left === "truth" && scene.truth) return { ...now, stage: "truth" };
    return { ...now, stage: view.left === "before" ? stages[Math.max(0, stages.indexOf(view.stage) - 1)] : "image" };
  }

  function painted(side, its) {
    const { picture, stage, shown, allowed, threshold, exponent, opacity, stream, step } = its;
    const key = JSON.stringify([picture, stage, ...(stage === "image" ? [] : [shown, allowed, threshold, exponent, opacity, stream, stage === "pamr" && step])]);
    if (side.key !== key) Object.assign(side, { key, labels: scene.paint(its, side.pixels) });
    return side;
  }

  function draw() {
    pending = 0;
    if (gone) return;
    if (scene?.index !== view.picture) open();
    if (!scene.has(view.stage)) view.stage = "image";
    const { H, W } = scene, cut = Math.round(view.curtain * W);
    const now = { ...view, step: Math.min(view.step, scene.steps.length - 1) };
    painted(right, now);
    if (cut > 0) pixels.putImageData(painted(left, other(now)).image, 0, 0, 0, 0, cut, H);
    if (cut < W) pixels.putImageData(right.image, 0, 0, cut, 0, W - cut, H);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    if (view.stage === "sf2") arrows();
    curtain();
    if (view.pixel) inspected();
    clearTimeout(writing); // words come after the picture
    writing = setTimeout(() => refresh(now));
  }

  function stroke(path, width, colour) {
    context.lineCap = "round";
    for (const [w, c] of [[width + 2.5, "#000b"], [width, colour]]) {
      context.lineWidth = w;
      context.strokeStyle = c;
      context.beginPath();
      path(context);
      context.stroke();
    }
  }

  function arrow(x, y, dx, dy, width, colour) {
    const far = Math.hypot(dx, dy), head = Math.min(9, far / 2), angle = Math.atan2(dy, dx);
    stroke((c) => {
      c.moveTo(x, y);
      c.lineTo(x + dx, y + dy);
      for (const turn of [2.6, -2.6]) {
        c.moveTo(x + dx, y + dy);
        c.lineTo(x + dx + head * Math.cos(angle + turn), y + dy + head * Math.sin(angle + turn));
      }
    }, width, colour);
  }

  function flowAt(row, column) {
    const { h, w } = scene.maps.sf2, xy = scene.values("sf2");
    const y = Math.round(row / Math.max(1, scene.H - 1) * (h - 1)), x = Math.round(column / Math.max(1, scene.W - 1) * (w - 1));
    return [xy[y * w + x], xy[h * w + y * w + x]];
  }

  function arrows() {
    const count = 18, gap = Math.max(scene.H, scene.W) / count, scale = canvas.width / scene.W;
    const shorter = Math.min(1, 1.5 * gap / scene.flow().most);
    for (let y = gap / 2; y < scene.H; y += gap) {
      for (let x = Math.max(gap / 2, 0); x < scene.W; x += gap) {
        if (x < view.curtain * scene.W) continue;
        const [dx, dy] = flowAt(y, x).map((v) => v * shorter * scale);
        if (Math.hypot(dx, dy) > 2) arrow(x * scale, y * scale, dx, dy, 1.6, "#fff");
      }
    }
  }

  function curtain() {
    const x = Math.min(canvas.width - 2, Math.max(2, view.curtain * canvas.width)), y = canvas.height / 2;
    stroke((c) => { c.moveTo(x, 0); c.lineTo(x, canvas.height); }, 2, "#fff");
    stroke((c) => c.arc(x, y, 11, 0, 7), 3, "#fff");
    context.fillStyle = "#0072b2";
    context.fill();
    stroke((c) => { for (const s of [-1, 1]) { c.moveTo(x + 3 * s, y - 4); c.lineTo(x + 6.5 * s, y); c.lineTo(x + 3 * s, y + 4); } }, 1, "#fff");
  }

  function weightsAt(pixel) {
    const { h, w } = scene.maps.gate, [y, x] = scene.place(pixel);
    return scene.offsets.map((_, n) => scene.affinities[n * h * w + y * w + x]);
  }

  function inspected() {
    const [row, column] = view.pixel, scale = canvas.width / scene.W, at = [(column + 0.5) * scale, (row + 0.5) * scale];
    if (view.stage === "sf2") {
      const [dx, dy] = flowAt(row, column).map((v) => v * scale);
      arrow(...at, dx, dy, 4, "#fee838");
    } else {
      const { h, w } = scene.maps.gate, [y, x] = scene.place(view.pixel), weights = weightsAt(view.pixel), most = Math.max(...weights);
      scene.offsets.forEach(([dy, dx], n) => {
        const py = Math.min(h - 1, Math.max(0, y + dy)) / Math.max(1, h - 1) * scene.H, px = Math.min(w - 1, Math.max(0, x + dx)) / Math.max(1, w - 1) * scene.W;
        const q = 3 * Math.round(255 * weights[n] / most);
        context.beginPath();
        context.arc(px * scale, py * scale, 2.5 + 9 * Math.sqrt(weights[n] / most), 0, 7);
        context.fillStyle = `rgb(${HEAT[q]} ${HEAT[q + 1]} ${HEAT[q + 2]})`;
        context.fill();
        context.lineWidth = 1.2;
        context.strokeStyle = "#fff";
        context.stroke();
      });
    }
    stroke((c) => {
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) { c.moveTo(at[0] + 5 * dx, at[1] + 5 * dy); c.lineTo(at[0] + 15 * dx, at[1] + 15 * dy); }
    }, 2.5, "#fff");
  }

  // ---- words and controls
  function refresh(now) {
    const { stage } = view, masks = MASKS.includes(stage), heat = view.shown > 0 && masks;
    Object.assign(picture, { value: view.picture });
    Object.assign(classes, { value: view.shown, disabled: !masks });
    Object.assign(allowed, { value: view.allowed, disabled: !masks });
    if (allowed.selectedIndex < 0 || (view.allowed === "given" && !scene.given)) allowed.value = "guessed";
    stream.value = view.stream;
    beside.value = view.left;
    radio[stage].checked = true;
    for (const [name, input] of Object.entries(slider)) {
      if (document.activeElement !== input || Number(input.value) !== view[name]) input.value = view[name];
      shown[name].textContent = shown[name].text(view[name]);
      input.setAttribute("aria-valuetext", shown[name].textContent);
    }
    slider.threshold.disabled = !masks;
    slider.exponent.disabled = !masks || stage === "cam";
    slider.opacity.disabled = stage === "image";
    rows.step.hidden = stage === "gate";
    rows.stream.hidden = stage !== "gate";
    slider.step.disabled = stage !== "pamr";
    about.textContent = `${stage === "cam" ? `${CAMS[meta.cams]} ` : ""}${STAGES[stage][1]}`;
    const told = judge(masks, now);
    describe(heat);
    inspect(now);
    clearTimeout(speaking);
    speaking = setTimeout(() => {
      const found = [...legend.querySelectorAll("[data-name]")].map((e) => e.dataset.name).join(", ");
      live.textContent = told;
      canvas.setAttribute("aria-label", `${scene.name}, ${STAGES[stage][0]}${heat ? `, map of ${names[view.shown]}` : ""}. ${found ? `Shown: ${found}. ` : ""}${told}`);
    }, 400);
  }

  function judge(masks, now) {
    const at = Math.round(view.threshold * 100);
    chart.style.visibility = masks && scene.truth ? "" : "hidden";
    if (!masks || !scene.truth) {
      score.replaceChildren("mIoU ", el("b", {}, "–"));
      best.textContent = masks ? "this picture has no ground truth to compare with" : "this stage has no masks to judge";
      return masks ? "No ground truth, so no IoU." : "";
    }
    const { each, mean } = scene.curve(now);
    const values = view.shown ? each.map((e) => e[view.shown]) : mean, what = view.shown ? `IoU of ${names[view.shown]}` : "mIoU";
    const most = values.reduce((a, v, i) => (v > values[a] ? i : a), 0);
    score.replaceChildren(`${what} `, el("b", {}, percent(values[at])));
    if (view.shown) score.append(el("span", {}, ` (mIoU ${percent(mean[at])})`));
    best.textContent = Number.isFinite(values[most]) ? `by threshold; best ${percent(values[most])} at ${most} %` : "this class is neither found nor there";
    const y = (v) => (28.5 - 27 * (v || 0)).toFixed(2);
    line.setAttribute("d", `M${values.map((v, i) => `${i} ${y(v)}`).join("L")}`);
    mark.setAttribute("d", `M${at} 0V30`);
    top.setAttribute("d", `M0 ${y(values[most])}H100`);
    return `${what} ${percent(values[at])}.`;
  }

  function describe(heat) {
    const swatch = (colour, name, text) => el("span", { "data-name": name }, el("i", { style: `background:rgb(${colour})` }), text);
    const bar = (low, high, what) => el("span", { className: "scale", "data-name": what }, low, el("i", {}), high, el("span", {}, what));
    legend.replaceChildren();
    if (view.stage === "fca") legend.append(bar("0", "1", "spatial attention"));
    else if (view.stage === "sf2") legend.append(bar("0", `${scene.flow().most.toFixed(0)} px`, "from where the deep map is sampled; arrows are shortened"));
    else if (heat) legend.append(bar("0", "1", `map of ${names[view.shown]}; white line: where it wins`));
    else if (right.labels) {
      const counts = new Uint32Array(256);
      for (const label of right.labels) counts[label]++;
      const seen = [...names.keys()].filter((c) => c && counts[c]).sort((a, b) => counts[b] - counts[a]);
      legend.append(...seen.map((c) => swatch(meta.colours[c], names[c], `${names[c]} ${percent(counts[c] / right.labels.length, 0)}`)));
      if (!seen.length) legend.append("No pixel has a class here.");
    } else legend.append(scene.given ? `In the picture: ${inside(meta.pictures[view.picture])}` : "Its classes are not known.");
  }

  function inspect(now) {
    const key = JSON.stringify([view.picture, view.pixel, view.stage, view.stream, now.step]);
    if (inspector.dataset.key === key) return;
    inspector.dataset.key = key;
    inspector.replaceChildren();
    if (!view.pixel) {
      inspector.append(el("p", { className: "hint" }, "Click the picture to inspect a pixel: its class scores, its affinities, its flow."));
      return;
    }
    const [row, column] = view.pixel, i = row * scene.W + column;
    const its = MASKS.includes(view.stage) ? now : { ...view, stage: "gate", stream: "gate" };
    const values = scene.at(its, view.pixel).sort((a, b) => b[1] - a[1]).slice(0, 5);
    const truth = scene.truth ? `, truly ${scene.truth[i] === 255 ? "not counted" : names[scene.truth[i]]}` : "";
    const words = el("div", {}, el("h4", {}, `Pixel ${column} across, ${row} down${truth}`, el("button", { type: "button", onclick: () => set({ pixel: null }), title: "Forget the pixel (Esc)", ariaLabel: "Forget the pixel" }, "×")));
    inspector.append(words);
    const list = el("dl", { "aria-label": `Class scores, ${STAGES[its.stage][0]}` });
    for (const [c, value] of values) {
      const bar = el("i", { style: `width:${Math.round(100 * value)}%;background:rgb(${meta.colours[c]})` });
      list.append(el("dt", {}, names[c]), el("dd", {}, el("div", {}, bar), percent(value)));
    }
    words.append(el("p", {}, `Class scores here, ${STAGES[its.stage][0]}`), list);
    if (scene.maps.sf2) {
      const [dx, dy] = flowAt(row, column);
      words.append(el("p", {}, `Flow: its deep feature is sampled ${Math.abs(dx).toFixed(1)} px ${dx < 0 ? "left" : "right"} and ${Math.abs(dy).toFixed(1)} px ${dy < 0 ? "up" : "down"} of here`));
    }
    const weights = weightsAt(view.pixel), most = Math.max(...weights);
    const table = el("table", {}, el("caption", {}, "PAMR: how much it listens to its neighbours, %, by direction and distance in cells of the mask"), el("tr", {}, el("th", {}, ""), ...ARROWS.map((a) => el("th", { scope: "col" }, a))));
    meta.dilations.forEach((d, r) => {
      table.append(el("tr", {}, el("th", { scope: "row" }, `${d}`), ...ARROWS.map((_, n) => {
        const weight = weights[8 * r + n], q = 3 * Math.round(255 * weight / most);
        return el("td", { style: `background:rgb(${HEAT[q]} ${HEAT[q + 1]} ${HEAT[q + 2]});color:${weight / most > 0.5 ? "#000" : "#fff"}` }, (100 * weight).toFixed(weight < 0.0995 ? 1 : 0));
      })));
    });
    inspector.append(table);
  }

  // ---- mouse and keys
  canvas.onpointerdown = (event) => {
    const box = canvas.getBoundingClientRect();
    dragging = Math.abs(event.clientX - box.left - view.curtain * box.width) < 13 ? "curtain" : "pixel";
    canvas.setPointerCapture(event.pointerId);
    point(event);
  };
  canvas.onpointermove = (event) => { if (dragging) point(event); };
  canvas.onpointerup = canvas.onpointercancel = () => { dragging = null; };

  function point(event) {
    const box = canvas.getBoundingClientRect(), inside = (v) => Math.min(1, Math.max(0, v));
    const x = inside((event.clientX - box.left) / box.width), y = inside((event.clientY - box.top) / box.height);
    if (dragging === "curtain") set({ curtain: Math.round(1000 * x) / 1000 });
    else set({ pixel: [Math.min(scene.H - 1, Math.floor(y * scene.H)), Math.min(scene.W - 1, Math.floor(x * scene.W))] });
  }

  function press(event) {
    const { key, target } = event, change = (name, by, low, high) => set({ [name]: Math.min(high, Math.max(low, Math.round((view[name] + by) * 100) / 100)) });
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[key];
    if (arrow && target.type === "range" && !event.shiftKey) return;
    if (target.tagName === "SELECT" && !/^[\[\],.]$/.test(key)) return;
    const stages = Object.keys(STAGES).filter((s) => scene.has(s)), listed = [0, ...order];
    if (arrow && event.shiftKey) {
      const { h } = scene.maps.gate, by = Math.max(1, Math.round(scene.H / h)), [row, column] = view.pixel ?? [scene.H >> 1, scene.W >> 1];
      const inside = (v, n) => Math.min(n - 1, Math.max(0, v));
      set({ pixel: view.pixel ? [inside(row + arrow[0] * by, scene.H), inside(column + arrow[1] * by, scene.W)] : [row, column] });
    } else if (arrow && arrow[1]) set({ stage: stages[Math.min(stages.length - 1, Math.max(0, stages.indexOf(view.stage) + arrow[1]))] });
    else if (arrow) change("threshold", -arrow[0] * 0.01, 0, 1);
    else if (key === "[" || key === "]") set({ shown: listed[(listed.indexOf(view.shown) + (key === "]" ? 1 : -1) + listed.length) % listed.length] });
    else if (/^\d$/.test(key)) set({ shown: listed[Number(key)] ?? view.shown });
    else if (key === "," || key === ".") change("step", key === "." ? 1 : -1, 0, meta.iterations);
    else if (key === "c") set({ curtain: view.curtain > 0 ? 0 : 0.5 });
    else if (key === "Escape") set({ pixel: null });
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  const follow = () => {
    const theirs = model.get("view");
    if (JSON.stringify(theirs) !== JSON.stringify({ ...theirs, ...view })) set(theirs);
  };
  model.on("change:view", follow);
  draw();
  return () => {
    gone = true;
    model.off?.("change:view", follow);
  };
}

const CSS = `
.wsx { --ink: var(--jp-ui-font-color1, var(--vscode-editor-foreground, #1b1b1b)); --soft: var(--jp-ui-font-color2, var(--vscode-descriptionForeground, #595959));
  --paper: var(--jp-layout-color1, var(--vscode-editor-background, #fff)); --tint: var(--jp-layout-color2, var(--vscode-input-background, #f1f3f5));
  --edge: var(--jp-border-color1, #bdbdbd); --blue: #0072b2; container-type: inline-size; color: var(--ink); background: var(--paper);
  font: 13px/1.45 var(--jp-ui-font-family, system-ui, sans-serif); padding: 12px; border: 1px solid var(--edge); border-radius: 8px; max-width: 1100px; box-sizing: border-box; }
.wsx * { box-sizing: border-box; }
.wsx [hidden] { display: none !important; }
.wsx .bar { display: flex; flex-wrap: wrap; gap: 6px 16px; margin-bottom: 8px; }
.wsx .bar label { display: flex; align-items: center; gap: 6px; min-width: 0; }
.wsx select, .wsx button { font: inherit; color: inherit; background: var(--tint); border: 1px solid var(--edge); border-radius: 4px; padding: 2px 4px; max-width: 100%; min-width: 0; }
.wsx :is(select, input):disabled { opacity: .45; }
.wsx :focus-visible { outline: 3px solid #e69f00; outline-offset: 1px; }
.wsx .track { display: flex; flex-wrap: wrap; border: 0; margin: 0 0 10px; padding: 0; gap: 3px; }
.wsx .track legend, .wsx .aside { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.wsx .track label { flex: 1 1 auto; position: relative; text-align: center; cursor: pointer; }
.wsx .track input { position: absolute; opacity: 0; inset: 0; margin: 0; cursor: inherit; width: 100%; height: 100%; }
.wsx .track span { display: block; padding: 5px 8px; background: var(--tint); border-bottom: 3px solid var(--edge); border-radius: 4px 4px 0 0; white-space: nowrap; }
.wsx .track input:checked + span { background: var(--blue); color: #fff; border-color: #e69f00; font-weight: 600; }
.wsx .track input:disabled + span { opacity: .4; cursor: not-allowed; }
.wsx .track input:focus-visible + span { outline: 3px solid #e69f00; outline-offset: 1px; }
.wsx .body { display: grid; grid-template-columns: minmax(0, 1.55fr) minmax(250px, 1fr); gap: 16px; align-items: start; }
.wsx canvas { display: block; width: 100%; height: auto; border-radius: 4px; cursor: crosshair; touch-action: pan-y; }
.wsx .legend { display: flex; flex-wrap: wrap; gap: 2px 14px; min-height: 1.5em; margin-top: 6px; }
.wsx .legend i { display: inline-block; width: 12px; height: 12px; margin-right: 5px; border: 1px solid #555; vertical-align: -1px; }
.wsx .scale span { margin-left: 12px; }
.wsx .legend .scale i { width: 130px; margin: 0 6px; background: linear-gradient(90deg, ${CIVIDIS.map((c) => `rgb(${c})`).join(", ")}); }
.wsx .about { margin: 0 0 8px; min-height: 5.8em; }
.wsx .judge { background: var(--tint); border-radius: 6px; padding: 6px 10px 4px; margin-bottom: 6px; }
.wsx .score b { font-size: 19px; }
.wsx .score span, .wsx .best, .wsx .hint, .wsx .help { color: var(--soft); }
.wsx svg { display: block; width: 100%; height: 46px; }
.wsx svg path { fill: none; vector-effect: non-scaling-stroke; }
.wsx .line { stroke: var(--ink); stroke-width: 2; } .wsx .mark { stroke: #d55e00; stroke-width: 2; } .wsx .top { stroke: var(--edge); stroke-dasharray: 4 3; }
.wsx .row { display: grid; grid-template-columns: 10.2em minmax(60px, 1fr) 4.2em; gap: 8px; align-items: center; min-height: 27px; }
.wsx .row select { grid-column: 2 / 4; }
.wsx .row input { width: 100%; margin: 0; accent-color: var(--blue); }
.wsx .row .value { text-align: right; font-variant-numeric: tabular-nums; }
.wsx .inspector { border-top: 1px solid var(--edge); margin-top: 10px; padding-top: 8px; display: grid; grid-template-columns: repeat(auto-fit, minmax(270px, 1fr)); gap: 6px 24px; }
.wsx .inspector :is(p, h4, dl) { margin: 0 0 5px; }
.wsx .inspector h4 { display: flex; justify-content: space-between; font-size: 13px; }
.wsx .inspector dl { display: grid; grid-template-columns: 7em 1fr; gap: 2px 8px; }
.wsx dd { margin: 0; display: grid; grid-template-columns: 1fr 4.8em; text-align: right; line-height: 18px; white-space: nowrap; font-variant-numeric: tabular-nums; }
.wsx dd div { background: var(--tint); }
.wsx dd i { display: block; height: 100%; min-width: 1px; }
.wsx .inspector dt { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; float: none; width: auto; font-weight: 400; }
.wsx table { border-collapse: collapse; width: 100%; font-size: 11px; font-variant-numeric: tabular-nums; table-layout: fixed; margin: 0; }
.wsx caption { text-align: left; padding-bottom: 2px; font-size: 13px; color: inherit; }
.wsx :is(td, th) { text-align: center; padding: 1px 0; border: 1px solid var(--paper); background: none; }
.wsx .help { margin: 10px 0 0; font-size: 12px; }
.wsx kbd { font: 11px var(--jp-code-font-family, monospace); border: 1px solid var(--edge); border-radius: 3px; padding: 0 4px; background: var(--tint); color: var(--ink); }
@container (max-width: 680px) { .wsx .body { grid-template-columns: 1fr; } .wsx .about { min-height: 0; } }
`;

export default { render };
