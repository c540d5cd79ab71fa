// New digits by the shipped network, and a pad on which the reader paints what is known of one.

import { classifierFree, decode, follow, linearObservation, pseudoinverseGuidance, safetensors, scoreModel, timeMLP, times, vp } from "../engine/index.js";

const SIDE = 8, D = SIDE * SIDE, ACROSS = 8, N = 32, EVALUATIONS = 16, DATA_STD = 0.7516158819198608, NOISE = 0.1;
// The mean grey of one digit, by torch, for each label and none: from the code 1.4 sin(1), 1.4 sin(2), ...
const BY_TORCH = [-0.374894, -0.397336, -0.441763, -0.403728, -0.395055, -0.367891, -0.413348, -0.359598, -0.347896, -0.398359, -0.39289];
// The mean grey of the digits that it was trained on, of each label and of all.
const REAL = [-0.3806, -0.3964, -0.3852, -0.4025, -0.39, -0.4047, -0.3935, -0.4046, -0.3536, -0.3896, -0.3902];
const PAINTED = { 10: -1, 11: 0.6, 12: 1, 13: 1, 14: -1, 18: -1, 19: -1, 20: -0.5, 21: 1, 22: -1, 2: -1, 3: -1, 4: -1, 5: -1, 6: -1 };

export default {
  name: "digits",
  weights: "digits",
  width: D,
  autoplay: true,
  title: "Half a digit, and what it may be",
  hint: "Paint on the pad with pointer or finger, or move the square with the arrow keys and paint with the space bar: ink, paper, or grey for what is left to the network. Or clear it, and choose a label.",
  alt: "Left, a pad of eight by eight cells, some painted black or white, the others grey. Right, thirty-two digits that a network has drawn to go with what is painted.",
  defaults: { known: Array.from({ length: D }, (_, i) => PAINTED[i] ?? -2), label: -1, scale: 1, brush: "ink", at: [3.5, 3.5] },
  build(fig) {
    const network = timeMLP(safetensors(fig.weights)), process = vp(), grid = times(process, EVALUATIONS, { dataStd: DATA_STD });
    const modelOf = (label, n) => {
      const all = scoreModel(network, process, DATA_STD), { scale } = fig.state;
      if (label < 0) return all;
      const given = scoreModel(network, process, DATA_STD, { labels: Array(n).fill(label) });
      return scale === 1 ? given : classifierFree(given, all, scale);
    };
    let x, states, k, took, control;
    const known = () => fig.state.known.map((v) => v >= -1);
    const image = document.createElement("canvas");
    const draw = (plane, values, left, top, size) => {
      image.width = image.height = SIDE;
      const ink = image.getContext("2d"), picture = ink.createImageData(SIDE, SIDE), [r, g, b] = channels(fig.colour("text"));
      for (let i = 0; i < D; i++) picture.data.set([r, g, b, 255 * Math.min(1, Math.max(0, (values[i] + 1) / 2))], 4 * i);
      ink.putImageData(picture, 0, 0);
      plane.ink.imageSmoothingEnabled = false;
      const [u, v] = [plane.x(left), plane.y(top)];
      plane.ink.drawImage(image, u, v, plane.x(left + size) - u, plane.y(top - size) - v);
    };
    const pad = fig.plane({
      x: [0, SIDE],
      y: [0, SIDE],
      equal: true,
      axes: false,
      most: 260,
      title: "what is known: paint here",
      label: fig.kind.alt,
      draw() {
        draw(pad, fig.state.known, 0, SIDE, SIDE);
        const { ink } = pad, side = pad.x(1) - pad.x(0);
        fig.state.known.forEach((value, i) => {
          const u = pad.x(i % SIDE), v = pad.y(SIDE - Math.floor(i / SIDE));
          ink.globalAlpha = value < -1 ? 0.28 : 1;
          ink.fillStyle = ink.strokeStyle = fig.colour("muted");
          if (value < -1) ink.fillRect(u, v, side, side);
          ink.globalAlpha = 0.5;
          ink.lineWidth = 0.5;
          ink.strokeRect(u, v, side, side);
          ink.globalAlpha = 1;
        });
      },
    });
    const paint = (u, v) => {
      const i = Math.min(SIDE - 1, Math.max(0, Math.floor(u))), j = Math.min(SIDE - 1, Math.max(0, Math.floor(SIDE - v)));
      fig.state.known[j * SIDE + i] = { ink: 1, paper: -1, unknown: -2 }[fig.state.brush];
    };
    /** Every cell on the straight way from where the brush is: a quick hand is seen at few places. */
    const brush = (u, v) => {
      const [a, b] = fig.state.at, n = Math.max(1, Math.ceil(2 * Math.hypot(u - a, v - b)));
      for (let i = 1; i <= n; i++) paint(a + (i / n) * (u - a), b + (i / n) * (v - b));
      fig.state.at = [u, v];
    };
    const again = () => (fig.start(), fig.run());
    pad.handle({
      label: "brush; the space bar paints",
      get: () => fig.state.at,
      set: brush,
      byKey: (...to) => (fig.state.at = to),
      press: () => (paint(...fig.state.at), again()),
      text: () => {
        const i = Math.min(7, Math.floor(fig.state.at[0])), j = Math.min(7, Math.floor(SIDE - fig.state.at[1]));
        const value = fig.state.known[j * SIDE + i], here = value < -1 ? "unknown" : value > 0 ? "ink" : "paper";
        return `row ${j + 1}, column ${i + 1}: ${here}`;
      },
      step: 1,
      ended: (key) => key || again(),
      square: true,
      colour: "orange",
    });
    // The pad takes the pointer anywhere, not at the brush alone.
    let painting = false;
    const place = (event) => {
      const box = pad.surface.getBoundingClientRect();
      return [pad.x.invert(event.clientX - box.left), pad.y.invert(event.clientY - box.top)].map((v) => Math.min(SIDE, Math.max(0, v)));
    };
    pad.canvas.classList.add("sl-pad");
    pad.canvas.addEventListener("pointerdown", (event) => {
      const [left, right] = pad.x.range();
      if (event.button || event.offsetX < left || event.offsetX > right) return;
      event.preventDefault();
      painting = true;
      pad.canvas.setPointerCapture(event.pointerId);
      fig.state.at = place(event);
      brush(...fig.state.at);
      fig.touched();
    });
    pad.canvas.addEventListener("pointermove", (event) => {
      if (!painting) return;
      brush(...place(event));
      fig.touched();
    });
    for (const kind of ["pointerup", "pointercancel", "lostpointercapture"])
      pad.canvas.addEventListener(kind, () => {
        if (!painting) return;
        painting = false;
        again();
        fig.settled();
      });
    const sheet = fig.plane({
      x: [0, ACROSS],
      y: [0, N / ACROSS],
      equal: true,
      axes: false,
      title: "what it may be",
      label: "Thirty-two digits drawn to go with what is known.",
      draw() {
        for (let i = 0; i < N; i++)
          draw(sheet, x.subarray(i * D, (i + 1) * D), (i % ACROSS) + 0.06, N / ACROSS - Math.floor(i / ACROSS) - 0.06, 0.88);
      },
    });
    fig.select({ key: "brush", label: "brush", options: [["ink", "ink"], ["paper", "paper"], ["unknown", "unknown"]] });
    fig.select({
      key: "label",
      label: "label",
      options: [[-1, "any"], ...Array.from({ length: 10 }, (_, i) => [i, String(i)])],
    });
    fig.slider({ key: "scale", label: "guidance scale of the label", min: 0, max: 6, step: 0.25 });
    fig.button({ label: "Clear the pad", act: () => ((fig.state.known = Array(D).fill(-2)), again()) });
    const grey = fig.reading({ label: "mean grey of the digits (real digits of the label)" });
    const spread = fig.reading({ label: "spread per unknown cell" });
    const one = fig.reading({ label: "one fixed code, mean grey (torch)" });
    const seconds = fig.reading({ label: "seconds for 32 digits, 16 evaluations" });

    return {
      start() {
        x = process.samplePrior(N, D, fig.rng);
        k = took = 0;
        const model = modelOf(fig.state.label, N), seen = known(), y = fig.state.known.filter((v) => v >= -1);
        const score = y.length ? pseudoinverseGuidance(process, model, linearObservation(seen, y, NOISE), { dataStd: DATA_STD }) : model;
        states = follow(process, score, x, { d: D, times: grid, dataStd: DATA_STD });
        states.next();
        // On paper nothing runs: there the digits are finished.
        if (matchMedia("print").matches) while (k < EVALUATIONS) this.step();
      },
      changed(key) {
        if (key === "label" || key === "scale") setTimeout(again);
      },
      rate: () => 30,
      step() {
        const began = performance.now();
        ({ x } = states.next().value);
        took += (performance.now() - began) / 1000;
        k++;
        fig.sound(x, "The digits left the finite numbers: paint less, or guide less.", 1e3);
      },
      done: () => k >= EVALUATIONS,
      measure() {
        const finished = k >= EVALUATIONS, { label } = fig.state, free = fig.state.known.map((v) => v < -1);
        const means = Array.from({ length: N }, (_, i) => x.subarray(i * D, (i + 1) * D).reduce((a, b) => a + b, 0) / D);
        const mean = means.reduce((a, b) => a + b, 0) / N, variance = means.reduce((a, b) => a + (b - mean) ** 2, 0) / (N - 1);
        // Real digits are the truth only where nothing is painted and the label is not pressed.
        const plain = free.every(Boolean) && (label < 0 || fig.state.scale === 1);
        grey(finished ? { measured: mean, error: Math.sqrt(variance / N), truth: plain ? REAL[label < 0 ? 10 : label] : null } : { measured: null });
        let sum = 0, count = 0;
        for (let j = 0; j < D; j++) {
          if (!free[j]) continue;
          let m = 0, s = 0;
          for (let i = 0; i < N; i++) [m, s] = [m + x[i * D + j] / N, s + x[i * D + j] ** 2 / N];
          sum += Math.max(0, s - m * m);
          count++;
        }
        spread({ measured: finished && count ? Math.sqrt(sum / count) : null });
        if (finished && control?.label !== label) {
          const z = Float64Array.from({ length: D }, (_, j) => 1.4 * Math.sin(j + 1));
          const given = scoreModel(network, process, DATA_STD, { labels: label < 0 ? null : [label] });
          const made = decode(process, given, z, { d: D, nSteps: EVALUATIONS, dataStd: DATA_STD });
          control = { label, value: made.reduce((a, b) => a + b, 0) / D };
        }
        one(finished && control ? { measured: control.value, error: 1e-4, truth: BY_TORCH[label < 0 ? 10 : label] } : { measured: null });
        seconds({ measured: finished ? took : null });
      },
      crowd: () => x,
    };
  },
};

function channels(colour) {
  const ink = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  ink.fillStyle = colour;
  ink.fillRect(0, 0, 1, 1);
  return ink.getImageData(0, 0, 1, 1).data;
}
