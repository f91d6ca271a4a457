// Explorers without a kernel: each gets its stored state, and its own script draws it, as soon
// as it comes into view. Its picture stays where that fails.

class Model {
  widget_manager = undefined;
  #state;
  #heard = new Map();

  constructor({ state, buffers }) {
    this.#state = state;
    for (const { path, data } of buffers) {
      const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
      const place = path.slice(0, -1).reduce((inner, key) => inner[key], state);
      place[path.at(-1)] = new DataView(bytes.buffer);
    }
  }
  get(name) {
    return this.#state[name];
  }
  set(name, value) {
    if (typeof name === "object") return Object.entries(name).forEach((item) => this.set(...item));
    if (this.#state[name] === value) return;
    this.#state[name] = value;
    for (const event of [`change:${name}`, "change"])
      for (const heard of [...(this.#heard.get(event) ?? [])]) heard(this, value);
  }
  on(events, heard) {
    for (const event of events.split(" "))
      this.#heard.set(event, [...(this.#heard.get(event) ?? []), heard]);
  }
  off(events, heard) {
    for (const event of events ? events.split(" ") : [...this.#heard.keys()])
      this.#heard.set(event, (this.#heard.get(event) ?? []).filter((one) => heard && one !== heard));
  }
  save_changes() {}
  send() {}
}

const models = new Map();

async function load({ id, esm, ...stored }) {
  const address = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
  const module = await import(address);
  URL.revokeObjectURL(address);
  const made = module.default ?? module;
  const widget = typeof made === "function" ? await made() : made;
  const model = new Model(stored);
  await widget.initialize?.({ model });
  return { model, widget };
}

async function show(place) {
  const stored = JSON.parse(place.querySelector("script").textContent);
  const [host, el] = [document.createElement("div"), document.createElement("div")];
  try {
    if (!models.has(stored.id)) models.set(stored.id, load(stored));
    const { model, widget } = await models.get(stored.id);
    const style = document.createElement("style");
    style.textContent = stored.css;
    host.attachShadow({ mode: "open" }).append(style, el); // the page's styles stay outside
    place.append(host);
    await widget.render({ model, el });
    place.querySelector("img")?.remove();
    place.classList.add("live");
  } catch (error) {
    host.remove();
    console.warn("An explorer could not be shown:", error);
  }
}

const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      observer.unobserve(target);
      show(target);
    }
  },
  { rootMargin: "400px" },
);
document.querySelectorAll(".explorer").forEach((place) => observer.observe(place));
