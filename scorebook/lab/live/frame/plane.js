// A plane of a figure: two scales, a canvas on which painters draw, and handles that a reader moves.

import { contours } from "d3-contour";
import { scaleLinear, scaleLog } from "d3-scale";

import { clamp, element, number, set } from "./dom.js";

export class Plane {
  /**
   * @param {Figure} figure
   * @param {object} options x, y: the domains; title, label (for who does not see it); height in pixels, or `equal` for one
   *   unit both ways; xLabel, yLabel; xLog; axes: false for none; draw(plane): paints a frame.
   */
  constructor(figure, { x, y, title = "", label, height = 240, equal = false, most = 420, xLabel = "", yLabel = "", xLog = false, axes = true, draw }) {
    Object.assign(this, { figure, equal, height, most, xLabel, yLabel, axes, draw, handles: [] });
    this.x = (xLog ? scaleLog() : scaleLinear()).domain(x);
    this.y = scaleLinear().domain(y);
    this.xLog = xLog;
    this.canvas = element("canvas", { role: "img", "aria-label": label ?? title });
    this.surface = element("div", { class: "sl-surface" }, this.canvas);
    this.root = element("figure", { class: "sl-plane" }, ...(title ? [element("figcaption", {}, title)] : []), this.surface);
    this.caption = this.root.querySelector("figcaption");
    this.ink = this.canvas.getContext("2d");
    this.observer = new ResizeObserver(() => this.fit());
    this.observer.observe(this.surface);
  }

  fit() {
    const width = this.surface.clientWidth;
    if (!width) return;
    const left = this.axes ? (this.yLabel ? 48 : 34) : 1, bottom = this.axes ? (this.xLabel ? 38 : 22) : 1, top = this.axes ? 6 : 1, right = this.axes ? 8 : 1;
    const [x0, x1] = this.x.domain(), [y0, y1] = this.y.domain();
    let inner = width - left - right, height = this.height;
    if (this.equal) {
      height = Math.min((inner * (y1 - y0)) / (x1 - x0), this.most);
      height = Math.round(height) + top + bottom;
      inner = ((height - top - bottom) * (x1 - x0)) / (y1 - y0);
    }
    const margin = this.equal ? Math.max(0, (width - left - right - inner) / 2) : 0;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    Object.assign(this, { width, ratio, tall: height });
    this.surface.style.height = `${height}px`;
    this.x.range([left + margin, left + margin + inner]);
    this.y.range([height - bottom, top]);
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.paint();
  }

  paint() {
    if (!this.width || !this.figure.ready) return;
    const { ink, ratio } = this;
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    ink.clearRect(0, 0, this.width, this.tall);
    ink.save();
    const [x0, x1] = this.x.range(), [y0, y1] = this.y.range();
    ink.beginPath();
    ink.rect(x0, y1, x1 - x0, y0 - y1);
    ink.clip();
    this.draw?.(this);
    ink.restore();
    if (this.axes) this.drawAxes();
    for (const handle of this.handles) handle.place();
  }

  drawAxes() {
    const { ink, figure } = this, [x0, x1] = this.x.range(), [y0, y1] = this.y.range();
    ink.strokeStyle = figure.colour("muted");
    ink.fillStyle = figure.colour("muted");
    ink.lineWidth = 1;
    ink.font = `12px ${figure.font}`;
    ink.beginPath();
    ink.moveTo(x0, y1);
    ink.lineTo(x0, y0 + 0.5);
    ink.lineTo(x1, y0 + 0.5);
    const xs = this.xLog ? this.x.ticks().filter((t) => Math.abs(Math.log10(t) - Math.round(Math.log10(t))) < 1e-9) : this.x.ticks(Math.max(2, (x1 - x0) / 70));
    const ys = this.y.ticks(Math.max(2, (y0 - y1) / 50));
    ink.textAlign = "center";
    ink.textBaseline = "top";
    for (const tick of xs) {
      const at = this.x(tick);
      ink.moveTo(at, y0);
      ink.lineTo(at, y0 + 4);
      const words = String(tick).replace("-", "−");
      ink.fillText(words, clamp(at, x0 + 4, this.width - ink.measureText(words).width / 2 - 1), y0 + 7);
    }
    ink.textAlign = "end";
    ink.textBaseline = "middle";
    for (const tick of ys) {
      const at = this.y(tick);
      ink.moveTo(x0, at);
      ink.lineTo(x0 - 4, at);
      ink.fillText(String(tick).replace("-", "−"), x0 - 6, clamp(at, y1 + 5, y0 - 5));
    }
    ink.stroke();
    ink.textAlign = "center";
    if (this.xLabel) ink.fillText(this.xLabel, (x0 + x1) / 2, y0 + 30);
    if (this.yLabel) {
      ink.save();
      ink.translate(x0 - 40, (y0 + y1) / 2);
      ink.rotate(-Math.PI / 2);
      ink.fillText(this.yLabel, 0, 0);
      ink.restore();
    }
  }

  /** Values of f(points) on a grid of the plane, for heat() and contours(). Keep it: it is the dear part. */
  sample(f, across = 80) {
    const [x0, x1] = this.x.domain(), [y0, y1] = this.y.domain();
    const rows = this.equal ? Math.round((across * (y1 - y0)) / (x1 - x0)) : across;
    const grid = new Float64Array(across * rows * 2);
    for (let j = 0; j < rows; j++)
      for (let i = 0; i < across; i++) {
        grid[2 * (j * across + i)] = x0 + ((i + 0.5) / across) * (x1 - x0);
        grid[2 * (j * across + i) + 1] = y1 - ((j + 0.5) / rows) * (y1 - y0);
      }
    return { across, down: rows, values: f(grid) };
  }

  /** A wash of colour, strongest where the values are greatest. */
  heat(field, colour = "blue", most = 0.55) {
    const { across, down, values } = field, key = this.figure.colour(colour);
    if (field.picture?.key !== key) {
      const picture = document.createElement("canvas");
      picture.width = across;
      picture.height = down;
      const ink = picture.getContext("2d"), image = ink.createImageData(across, down), [r, g, b] = rgb(key);
      let top = 0;
      for (const value of values) if (value > top) top = value;
      for (let i = 0; i < values.length; i++) image.data.set([r, g, b, 255 * most * Math.sqrt(Math.max(0, values[i]) / (top || 1))], 4 * i);
      ink.putImageData(image, 0, 0);
      field.picture = { key, picture };
    }
    const [x0, x1] = this.x.range(), [y0, y1] = this.y.range();
    this.ink.imageSmoothingEnabled = true;
    this.ink.drawImage(field.picture.picture, x0, y1, x1 - x0, y0 - y1);
  }

  /** Lines of equal value at shares of the greatest. */
  contours(field, { shares = [0.03, 0.1, 0.25, 0.5, 0.8], colour = "blue", width = 1 } = {}) {
    const { across, down, values } = field;
    if (!field.lines) {
      let top = 0;
      for (const value of values) if (value > top) top = value;
      field.lines = contours().size([across, down]).thresholds(shares.map((share) => share * top))(values);
    }
    const [x0, x1] = this.x.range(), [y0, y1] = this.y.range(), { ink } = this;
    ink.strokeStyle = this.figure.colour(colour);
    ink.lineWidth = width;
    ink.globalAlpha = 0.6;
    ink.beginPath();
    for (const line of field.lines)
      for (const polygon of line.coordinates)
        for (const ring of polygon)
          ring.forEach(([i, j], k) => {
            const at = [x0 + (i / across) * (x1 - x0), y1 + (j / down) * (y0 - y1)];
            if (k) ink.lineTo(...at);
            else ink.moveTo(...at);
          });
    ink.stroke();
    ink.globalAlpha = 1;
  }

  /** Points of a flat batch (x, y, x, y, ...); one that is not finite is left out, and the figure says so elsewhere. */
  points(batch, { colour = "orange", size = 2.2, alpha = 0.75, from = 0, to = batch.length / 2, stride = 2, along = null } = {}) {
    const { ink, x, y } = this;
    ink.fillStyle = this.figure.colour(colour);
    ink.globalAlpha = alpha;
    const [a, b] = [x(x.domain()[0]), (x.range()[1] - x.range()[0]) / (x.domain()[1] - x.domain()[0])], x0 = x.domain()[0];
    const [c, d] = [y.range()[0], (y.range()[1] - y.range()[0]) / (y.domain()[1] - y.domain()[0])], y0 = y.domain()[0];
    for (let i = from; i < to; i++) {
      const u = a + b * (batch[stride * i] - x0), v = c + d * ((along ? along[i] : batch[stride * i + 1]) - y0);
      if (u === u && v === v) ink.fillRect(u - size / 2, v - size / 2, size, size);
    }
    ink.globalAlpha = 1;
  }

  /** A curve through points (xs[i], ys[i]). */
  line(xs, ys, { colour = "blue", width = 2, dash = [], alpha = 1, fill = 0 } = {}) {
    const { ink } = this;
    ink.beginPath();
    let open = false;
    for (let i = 0; i < xs.length; i++) {
      if (!Number.isFinite(ys[i]) || !Number.isFinite(xs[i])) open = false;
      else if (open) ink.lineTo(this.x(xs[i]), this.y(ys[i]));
      else {
        ink.moveTo(this.x(xs[i]), this.y(ys[i]));
        open = true;
      }
    }
    ink.strokeStyle = this.figure.colour(colour);
    ink.lineWidth = width;
    ink.setLineDash(dash);
    ink.lineJoin = "round";
    ink.globalAlpha = alpha;
    ink.stroke();
    ink.setLineDash([]);
    if (fill) {
      ink.lineTo(this.x(xs[xs.length - 1]), this.y(0));
      ink.lineTo(this.x(xs[0]), this.y(0));
      ink.fillStyle = this.figure.colour(colour);
      ink.globalAlpha = fill;
      ink.fill();
    }
    ink.globalAlpha = 1;
  }

  /** A horizontal or vertical line across the plane. */
  rule({ x, y, colour = "green", width = 1.5, dash = [5, 4] }) {
    const [x0, x1] = this.x.domain(), [y0, y1] = this.y.domain();
    if (y !== undefined) this.line([x0, x1], [y, y], { colour, width, dash });
    else this.line([x, x], [y0, y1], { colour, width, dash });
  }

  /** A histogram, as a density, of every `stride`-th number of a batch. */
  histogram(values, { bins = 60, colour = "orange", alpha = 0.35, stride = 1, from = 0 } = {}) {
    const [x0, x1] = this.x.domain(), counts = new Float64Array(bins);
    let n = 0;
    for (let i = from; i < values.length; i += stride) {
      n++;
      const bin = Math.floor(((values[i] - x0) / (x1 - x0)) * bins);
      if (bin >= 0 && bin < bins) counts[bin]++;
    }
    const { ink } = this, width = (x1 - x0) / bins, base = this.y(0);
    ink.fillStyle = this.figure.colour(colour);
    ink.globalAlpha = alpha;
    counts.forEach((count, i) => {
      const left = this.x(x0 + i * width), right = this.x(x0 + (i + 1) * width), top = this.y(count / n / width);
      ink.fillRect(left, top, right - left + 0.3, base - top);
    });
    ink.globalAlpha = 1;
  }

  /** Arrows of a field f(points) -> vectors on a grid of `across` columns, `most` units long at most. */
  arrows(field, { colour = "muted", scale = 1, width = 1.2, alpha = 0.85 } = {}) {
    const { ink } = this, { across, down, values } = field, [x0, x1] = this.x.domain(), [y0, y1] = this.y.domain();
    const cell = Math.min((this.x.range()[1] - this.x.range()[0]) / across, (this.y.range()[0] - this.y.range()[1]) / down);
    ink.strokeStyle = this.figure.colour(colour);
    ink.lineWidth = width;
    ink.globalAlpha = alpha;
    ink.beginPath();
    for (let j = 0; j < down; j++)
      for (let i = 0; i < across; i++) {
        const at = 2 * (j * across + i), u = values[at], v = values[at + 1], length = Math.hypot(u, v);
        if (!(length > 0) || !Number.isFinite(length)) continue;
        const drawn = cell * 0.95 * Math.tanh((length * scale) / 2), cx = this.x(x0 + ((i + 0.5) / across) * (x1 - x0)), cy = this.y(y1 - ((j + 0.5) / down) * (y1 - y0));
        const dx = (u / length) * drawn, dy = (-v / length) * drawn, tip = Math.min(4, drawn / 2.5);
        const [ex, ey] = [cx + dx / 2, cy + dy / 2], angle = Math.atan2(dy, dx);
        ink.moveTo(cx - dx / 2, cy - dy / 2);
        ink.lineTo(ex, ey);
        for (const turn of [2.6, -2.6]) {
          ink.moveTo(ex, ey);
          ink.lineTo(ex + tip * Math.cos(angle + turn), ey + tip * Math.sin(angle + turn));
        }
      }
    ink.stroke();
    ink.globalAlpha = 1;
  }

  /** Words at a place of the plane. */
  text(words, x, y, { colour = "text", align = "center", size = 12.5, dy = 0, dx = 0 } = {}) {
    const { ink } = this;
    ink.font = `${size}px ${this.figure.font}`;
    ink.fillStyle = this.figure.colour(colour);
    ink.textAlign = align;
    ink.textBaseline = "middle";
    ink.fillText(words, this.x(x) + dx, this.y(y) + dy);
  }

  /**
   * What a reader drags, by pointer, touch or arrow keys.
   *
   * @param {object} options label; get() -> [x, y]; set(x, y); byKey(x, y): the same, where a key does another thing; only:
   *   "x" or "y" for one direction; text(): what is said of the value; step: of an arrow key, in units of the plane;
   *   press(): what space and enter do; ended(key): when it is let go, by a key or not; colour; square.
   */
  handle({ label, get, set: move, byKey = move, only = null, text, step = null, colour = "text", square = false, press = null, ended = null }) {
    const { figure } = this, along = only === "y" ? 1 : 0;
    const node = element("div", { class: `sl-handle${square ? " sl-square" : ""}`, role: "slider", tabindex: "0", "aria-label": label });
    if (only === "y") node.setAttribute("aria-orientation", "vertical");
    node.style.setProperty("--sl-handle", `var(--sl-${colour})`);
    const scales = [this.x, this.y];
    const to = (x, y, go = move) => {
      const now = get(), wanted = [x, y].map((value, i) => clamp(value, ...scales[i].domain()));
      if (only) wanted[1 - along] = now[1 - along];
      if (!wanted.every(Number.isFinite) || (wanted[0] === now[0] && wanted[1] === now[1])) return;
      go(...wanted);
      figure.touched();
    };
    const spoken = () => {
      const now = get(), [low, high] = scales[along].domain();
      const words = text ? text() : only ? number(now[along]) : `x ${number(now[0])}, y ${number(now[1])}`;
      set(node, "aria-valuetext", words);
      set(node, "aria-valuenow", Number(now[along].toPrecision(6)));
      set(node, "aria-valuemin", low);
      set(node, "aria-valuemax", high);
    };
    let held = null;
    node.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.preventDefault();
      node.focus({ preventScroll: true });
      const box = this.surface.getBoundingClientRect(), [x, y] = get();
      held = [event.clientX - box.left - this.x(x), event.clientY - box.top - this.y(y)];
      node.setPointerCapture(event.pointerId);
      node.classList.add("sl-held");
    });
    node.addEventListener("pointermove", (event) => {
      if (!held) return;
      const box = this.surface.getBoundingClientRect();
      to(this.x.invert(event.clientX - box.left - held[0]), this.y.invert(event.clientY - box.top - held[1]));
    });
    const release = () => {
      if (!held) return;
      held = null;
      node.classList.remove("sl-held");
      spoken();
      ended?.(false);
      figure.settled();
    };
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"]) node.addEventListener(kind, release);
    node.addEventListener("keydown", (event) => {
      const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
      if (only === "x") Object.assign(ways, { ArrowUp: [1, 0], ArrowDown: [-1, 0] });
      if (only === "y") Object.assign(ways, { ArrowLeft: [0, -1], ArrowRight: [0, 1] });
      const way = ways[event.key], pressed = press && (event.key === " " || event.key === "Enter");
      if (!(way || pressed) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      if (pressed) {
        press();
        figure.touched();
      } else {
        const [x, y] = get(), times = event.shiftKey ? 5 : 1;
        const by = scales.map((scale) => (step ?? (scale.domain()[1] - scale.domain()[0]) / 50) * times);
        to(x + way[0] * by[0], y + way[1] * by[1], byKey);
      }
      spoken();
      ended?.(true);
      figure.settled();
    });
    const place = () => {
      const [x, y] = get().map((value, i) => clamp(value, ...scales[i].domain()));
      node.style.transform = `translate(${this.x(x)}px, ${this.y(y)}px)`;
      if (!held && !figure.running) spoken();
    };
    this.surface.append(node);
    this.handles.push({ node, place });
    spoken();
    return node;
  }

  /**
   * A handle on each mode of the figure's law. moved() follows; where the plane shows a mean elsewhere, to(mean) is its
   * place and from(place) the mean.
   */
  modes({ moved, digits = 1, step = 0.25, colours = ["blue"], label = (k) => `mode ${k + 1}`, to = (mean) => mean, from = (place) => place }) {
    const { figure } = this;
    figure.state.law.means.forEach((_, k) =>
      this.handle({
        label: label(k),
        get: () => to(figure.state.law.means[k]),
        set: (...place) => {
          figure.state.law.means[k] = from(place);
          moved();
        },
        text: () => `mode ${k + 1} at ${figure.state.law.means[k].map((v) => v.toFixed(digits)).join(", ")}`,
        step,
        colour: colours[k % colours.length],
      }),
    );
  }

  remove() {
    this.observer.disconnect();
  }
}

const known = new Map();
function rgb(colour) {
  if (!known.has(colour)) {
    const ink = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    ink.fillStyle = colour;
    ink.fillRect(0, 0, 1, 1);
    known.set(colour, [...ink.getImageData(0, 0, 1, 1).data].slice(0, 3));
  }
  return known.get(colour);
}
