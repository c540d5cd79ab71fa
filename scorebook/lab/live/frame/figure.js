// A figure that lives: what all of them share. A figure of its own is an object in figures/, see figures/README.md.

import { seeded } from "../engine/index.js";
import { clamp, element, measured, number, say, set } from "./dom.js";
import { Plane } from "./plane.js";

const COLOURS = ["text", "muted", "paper", "wash", "line", "blue", "orange", "green", "purple"];
const BUSY = 12; // milliseconds of a frame that steps may take
const OFTEN = 120; // milliseconds between two readings while a figure runs

const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

export class Figure {
  /**
   * @param {HTMLElement} root the element that becomes the figure.
   * @param {object} kind what figures/NAME.js exports.
   * @param {object} options state: what differs from the kind's defaults; weights: bytes; changed(figure): called when the
   *   state or the crowd may be told to Python; linked: whether the state may stand in the page's address.
   */
  constructor(root, kind, { state = {}, weights = null, changed = null, linked = false } = {}) {
    Object.assign(this, { root, kind, weights, changed, linked });
    this.first = { seed: 0, ...structuredClone(kind.defaults), ...structuredClone(state) };
    const told = linked ? fromAddress(kind.name, this.first) : {};
    this.state = { ...structuredClone(this.first), ...told };
    this.planes = [];
    this.controls = [];
    this.sheets = new Map();
    this.steps = 0;
    this.running = this.seen = this.asked = false;
    root.classList.add("scorebook-live");
    root.dataset.figure = kind.name;
    root.setAttribute("role", "group");
    root.setAttribute("aria-label", kind.title);
    this.parts = {
      planes: element("div", { class: "sl-planes" }),
      hint: element("p", { class: "sl-hint" }, kind.hint ?? ""),
      buttons: element("div", { class: "sl-buttons" }),
      controls: element("div", { class: "sl-controls" }),
      readings: element("div", { class: "sl-readings" }),
      says: element("p", { class: "sl-says", role: "status" }),
    };
    root.replaceChildren(...Object.values(this.parts));
    this.buttons();
    this.acts = kind.build(this) ?? {};
    if (!this.acts.step) for (const name of ["run", "once"]) this.parts[name].remove();
    this.themes = [new MutationObserver(() => this.repaint())];
    this.themes[0].observe(document.documentElement, { attributeFilter: ["data-theme", "data-mode", "class", "style"] });
    this.themes[0].observe(document.body, { attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind", "class"] });
    this.dark = window.matchMedia("(prefers-color-scheme: dark)");
    this.onDark = () => this.repaint();
    this.dark.addEventListener("change", this.onDark);
    this.watcher = new IntersectionObserver(([entry]) => this.look(entry.isIntersecting), { threshold: kind.autoplay ? 0.3 : 0.01 });
    this.watcher.observe(this.parts.planes);
    this.onHidden = () => this.go();
    document.addEventListener("visibilitychange", this.onHidden);
    this.onAddress = () => {
      const other = linked ? fromAddress(kind.name, this.first) : {};
      if (!Object.keys(other).length) return;
      try {
        this.restore({ ...this.first, ...other });
      } catch {
        this.restore(this.first);
      }
      this.comeIntoView();
    };
    window.addEventListener("hashchange", this.onAddress);
    this.repaint();
    this.start();
    root.scorebook = this;
    if (Object.keys(told).length) this.comeIntoView();
  }

  /** To where a link led: its figure, once the page has its shape. */
  comeIntoView() {
    const come = () => requestAnimationFrame(() => this.root.scrollIntoView({ block: "center" }));
    if (document.readyState === "complete") come();
    else window.addEventListener("load", come, { once: true });
  }

  // What a kind uses to build itself.

  plane(options) {
    const plane = new Plane(this, options);
    this.planes.push(plane);
    this.parts.planes.append(plane.root);
    return plane;
  }

  /** A slider for a number of the state. `values` for a list of numbers, `log` for even ratios. */
  slider({ key, label, min = 0, max = 1, step = null, log = false, values = null, format = values ? String : number, restarts = false }) {
    const n = values ? values.length - 1 : 1000;
    const toNumber = (at) => {
      if (values) return values[at];
      const value = log ? min * (max / min) ** (at / n) : min + (at / n) * (max - min);
      return step ? Number((Math.round(value / step) * step).toPrecision(12)) : Number(value.toPrecision(log ? 3 : 6));
    };
    const toPlace = (value) => {
      if (values) return values.reduce((best, other, i) => (Math.abs(other - value) < Math.abs(values[best] - value) ? i : best), 0);
      return Math.round(n * (log ? Math.log(value / min) / Math.log(max / min) : (value - min) / (max - min)));
    };
    const stride = values ? 1 : step && !log ? Math.max(1, Math.round((n * step) / (max - min))) : 10;
    const input = element("input", { type: "range", role: "slider", min: 0, max: n, step: values ? 1 : "any" });
    const shown = element("span", { class: "sl-value", "aria-hidden": "true" });
    const show = () => {
      const value = this.state[key];
      if (Number(input.value) !== toPlace(value) && toNumber(Number(input.value)) !== value) input.value = toPlace(value);
      say(shown, format(value));
      set(input, "aria-valuetext", format(value));
    };
    const take = () => {
      const value = clamp(toNumber(Number(input.value)), values ? -Infinity : min, values ? Infinity : max);
      if (value === this.state[key]) return show();
      this.state[key] = value;
      this.touched(key);
      if (restarts) this.start();
    };
    input.addEventListener("input", take);
    input.addEventListener("change", () => this.settled());
    input.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 5, PageDown: -5 }[event.key];
      if (!way || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      input.value = clamp(toPlace(this.state[key]) + way * stride * (event.shiftKey ? 5 : 1), 0, n);
      take();
      this.settled();
    });
    return this.control(element("label", { class: "sl-slider" }, element("span", { class: "sl-label" }, label), input, shown), show);
  }

  /** A choice among [value, words] for a part of the state. */
  select({ key, label, options, restarts = false }) {
    const input = element("select", {}, ...options.map(([value, words]) => element("option", { value }, words)));
    input.addEventListener("change", () => {
      this.state[key] = options[input.selectedIndex][0];
      this.touched(key);
      if (restarts) this.start();
      this.settled();
    });
    return this.control(element("label", {}, label, input), () => {
      input.selectedIndex = options.findIndex(([value]) => value === this.state[key]);
      if (input.selectedIndex < 0) throw new RangeError(`${key} must be one of ${options.map(([value]) => value)}, got ${this.state[key]}`);
    });
  }

  /** A tick for a truth of the state. */
  tick({ key, label, restarts = false }) {
    const input = element("input", { type: "checkbox" });
    input.addEventListener("change", () => {
      this.state[key] = input.checked;
      this.touched(key);
      if (restarts) this.start();
      this.settled();
    });
    return this.control(element("label", { class: "sl-tick" }, input, label), () => (input.checked = this.state[key]));
  }

  /** A button beside run and reset. */
  button({ label, act, title = null }) {
    const made = element("button", { type: "button", title, click: () => (act(), this.settled()) }, label);
    this.parts.reset.before(made);
    return made;
  }

  control(node, show) {
    this.parts.controls.append(node);
    this.controls.push(show);
    show();
    return node;
  }

  /**
   * A number beside its truth. What it returns is called with { measured, error, truth }, error the standard error where
   * there is one; a number of four of them is what a test allows.
   */
  reading({ label, digits = 3, unit = "" }) {
    const name = element("span", { class: "sl-name" }, label), output = element("output", { "aria-live": "off" }), truth = element("span", { class: "sl-truth" });
    output.setAttribute("aria-label", label);
    this.parts.readings.append(element("div", { class: "sl-reading" }, name, output, truth));
    const show = ({ measured: value, truth: true_ = null, error = 0, words = null }) => {
      if (Number.isNaN(value) && !this.exploded) this.explode(`What is measured, the ${label}, is no number any more.`);
      set(output, "data-measured", value);
      set(output, "data-truth", true_ ?? "");
      set(output, "data-error", error);
      say(output, words ?? (error > 0 ? measured(value, error) : number(value, digits)) + unit);
      say(truth, true_ === null ? "" : `truth ${number(true_, digits)}${unit}`);
      this.told ??= new Map();
      this.told.set(label, { measured: value, truth: true_, error });
    };
    show({ measured: null });
    return show;
  }

  /** What make() gives, made anew when the key has changed. */
  memo(name, key, make) {
    const wanted = typeof key === "string" ? key : JSON.stringify(key);
    const kept = this.sheets.get(name);
    if (kept?.key === wanted) return kept.value;
    const value = make();
    this.sheets.set(name, { key: wanted, value });
    return value;
  }

  colour(name) {
    return this.palette[name] ?? name;
  }

  /** A sentence below the figure; trouble for what went wrong. */
  say(words, { trouble = false } = {}) {
    this.parts.says.classList.toggle("sl-trouble", trouble);
    say(this.parts.says, words);
  }

  /** Stops on numbers that are none, says what happened, and waits for a new start. */
  explode(words) {
    this.exploded = true;
    this.pause();
    this.parts.run.disabled = this.parts.once.disabled = true;
    this.say(`${words} Start anew, or reset.`, { trouble: true });
    set(this.root, "data-exploded", "true");
  }

  /** Whether all numbers of a batch are finite and within the limit; if not, the figure stops and says so. */
  sound(batch, words, limit = 1e6) {
    for (let i = 0; i < batch.length; i++)
      if (!(Math.abs(batch[i]) < limit)) {
        this.explode(words);
        return false;
      }
    return true;
  }

  // What happens.

  /** Begins anew with the state as it is: the crowd, the steps and the random numbers. */
  start() {
    this.rng = seeded(this.state.seed);
    this.steps = 0;
    this.exploded = false;
    this.root.removeAttribute("data-exploded");
    this.parts.run.disabled = this.parts.once.disabled = false;
    this.say("");
    this.acts.start?.();
    this.ready = true;
    this.show();
  }

  /** Takes n steps at once. */
  advance(n = 1) {
    if (!this.acts.step) return;
    for (let i = 0; i < n && !this.exploded && !this.acts.done?.(); i++) {
      this.acts.step();
      this.steps++;
    }
    this.show();
  }

  /** A part of the state has changed by the reader's hand. */
  touched(key = null) {
    this.acts.changed?.(key);
    if (this.running) for (const show of this.controls) show();
    else this.show();
    this.unsaved = true;
  }

  /** The reader's hand has let go. */
  settled() {
    if (!this.unsaved && !this.changed) return;
    this.unsaved = false;
    this.changed?.(this);
  }

  set(key, value) {
    this.state[key] = value;
    this.touched(key);
  }

  restore(state) {
    this.pause();
    this.state = structuredClone(state);
    this.acts.restored?.();
    this.acts.changed?.(null);
    this.start();
    this.changed?.(this);
  }

  run() {
    if (this.exploded || !this.acts.step) return;
    if (this.acts.done?.()) this.start();
    this.asked = true;
    this.go();
  }

  pause() {
    this.asked = false;
    this.go();
  }

  /** Comes into view, or goes out of it. */
  look(seen) {
    this.seen = seen;
    if (seen && this.kind.autoplay && !this.begun && !calm()) {
      this.begun = true;
      this.run();
    }
    this.go();
  }

  /** Runs if it is asked to and anybody can see it. */
  go() {
    const was = this.running;
    this.running = this.asked && this.seen && !document.hidden;
    set(this.parts.run, "aria-pressed", this.asked);
    this.parts.run.title = this.asked ? "Pause" : "Run";
    if (this.running && !was) {
      this.last = performance.now();
      this.owed = 0;
      this.next = requestAnimationFrame((now) => this.frame(now));
    } else if (was && !this.running) {
      cancelAnimationFrame(this.next);
      this.show();
      this.settled();
    }
  }

  frame(now) {
    if (!this.running || !this.root.isConnected) return (this.running = false);
    const rate = this.acts.rate?.() ?? 60;
    this.owed = Math.min(this.owed + (Math.min(now - this.last, 100) * rate) / 1000, Math.max(rate / 8, 1));
    this.last = now;
    const began = performance.now();
    while (this.owed >= 1 && performance.now() - began < BUSY) {
      this.owed--;
      this.acts.step();
      this.steps++;
      if (this.exploded) return;
      if (this.acts.done?.()) {
        this.pause();
        return;
      }
    }
    if (now - (this.measuredAt ?? 0) > OFTEN) this.measure(now);
    for (const plane of this.planes) plane.paint();
    this.next = requestAnimationFrame((next) => this.frame(next));
  }

  measure(now = performance.now()) {
    this.measuredAt = now;
    this.acts.measure?.();
    set(this.root, "data-seed", this.state.seed);
    set(this.root, "data-steps", this.steps);
  }

  /** Everything as it is now; at most once a frame while the reader drags. */
  show() {
    if (this.running || !this.ready) return;
    this.measure();
    for (const show of this.controls) show();
    if (this.painting) return;
    this.painting = requestAnimationFrame(() => {
      this.painting = 0;
      for (const plane of this.planes) plane.paint();
    });
  }

  repaint() {
    const style = getComputedStyle(this.root);
    this.palette = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--sl-${name}`).trim() || "#888"]));
    this.font = style.fontFamily;
    this.show();
    if (this.running) for (const plane of this.planes) plane.paint();
  }

  buttons() {
    const button = (name, label, title, act) => {
      this.parts[name] = element("button", { type: "button", class: `sl-${name}`, title, click: act }, label);
      this.parts.buttons.append(this.parts[name]);
    };
    button("run", "Run", "Run", () => (this.asked ? this.pause() : this.run()));
    set(this.parts.run, "aria-pressed", "false");
    button("once", "Step", "One step", () => (this.pause(), this.advance(1), this.settled()));
    button("anew", "Start anew", "The same settings, from the beginning", () => this.start());
    button("reset", "Reset", "Everything as it was at first", () => this.restore(this.first));
    if (this.linked) button("link", "Link", "Put the state as it is into the page's address", () => this.link());
    const seed = element("input", { type: "number", min: 0, max: 999999, step: 1, inputmode: "numeric" });
    seed.addEventListener("change", () => {
      const value = Number.parseInt(seed.value, 10);
      this.state.seed = Number.isFinite(value) ? clamp(value, 0, 999999) : 0;
      this.touched("seed");
      this.start();
      this.settled();
    });
    this.controls.push(() => document.activeElement !== seed && (seed.value = this.state.seed));
    this.parts.seed = element("label", { class: "sl-seed" }, "seed", seed);
    this.parts.buttons.append(this.parts.seed);
    for (const name of this.kind.without ?? []) this.parts[name]?.remove();
  }

  /** Puts the state into the page's address, and on the clipboard where the browser lets it. */
  async link() {
    const told = Object.fromEntries(Object.entries(this.state).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(this.first[key])));
    history.replaceState(history.state, "", `#${prefix(this.kind.name)}${encode(told)}`);
    try {
      await navigator.clipboard.writeText(location.href);
      this.say("The link is copied, and stands in the page's address.");
    } catch {
      this.say("The link stands in the page's address.");
    }
  }

  remove() {
    this.asked = this.running = false;
    cancelAnimationFrame(this.painting);
    cancelAnimationFrame(this.next);
    this.watcher.disconnect();
    for (const observer of this.themes) observer.disconnect();
    for (const plane of this.planes) plane.remove();
    this.dark.removeEventListener("change", this.onDark);
    document.removeEventListener("visibilitychange", this.onHidden);
    window.removeEventListener("hashchange", this.onAddress);
    this.acts.remove?.();
  }
}

// An address may hold any text; what is no state of this figure is passed over.

const prefix = (name) => `live-${name}-`;

function encode(state) {
  const bytes = new TextEncoder().encode(JSON.stringify(state));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function fromAddress(name, first) {
  const hash = location.hash.slice(1);
  if (!hash.startsWith(prefix(name))) return {};
  try {
    const text = atob(hash.slice(prefix(name).length).replaceAll("-", "+").replaceAll("_", "/"));
    const state = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
    return Object.fromEntries(Object.entries(state ?? {}).filter(([key, value]) => key in first && alike(value, first[key])));
  } catch {
    return {};
  }
}

/** Whether a value has the parts of another, of the same kinds: numbers that are some, as many in a list. */
function alike(value, other) {
  if (typeof value !== typeof other || Array.isArray(value) !== Array.isArray(other)) return false;
  if (typeof value !== "object") return typeof value !== "number" || Number.isFinite(value);
  const keys = Object.keys(other);
  return value !== null && keys.length === Object.keys(value).length && keys.every((key) => alike(value[key], other[key]));
}
