// Two modes on a line: the score hardly knows their weights, the density does. Both divergences are integrals, exact.

import { mixture } from "../engine/index.js";

const AXIS = Float64Array.from({ length: 1601 }, (_, i) => -16 + i / 50), DX = 1 / 50;
const N = 10000, FAR = 11; // draws even between -FAR and FAR, weighed by the density: the void counts too

const law = (weight, distance) => mixture([[-distance], [distance]], [1, 1], [weight, 1 - weight]);

/** KL(p | q) and E_p |s_p - s_q|^2 on the grid, which holds all but 1e-20 of the mass. */
export function divergences(p, q) {
  const [logP, logQ, sP, sQ] = [p.logDensity(AXIS), q.logDensity(AXIS), p.score(AXIS), q.score(AXIS)];
  let kl = 0, fisher = 0;
  for (let i = 0; i < AXIS.length; i++) {
    const mass = Math.exp(logP[i]) * DX;
    kl += mass * (logP[i] - logQ[i]);
    fisher += mass * (sP[i] - sQ[i]) ** 2;
  }
  return { kl, fisher };
}

export default {
  name: "score_matching",
  without: ["anew"],
  title: "What a score knows of the weights",
  hint: "Drag the left mode's top up or down for its weight, the right mode sideways for the distance. Grey: equal weights.",
  alt: "Two panels over one axis. Left, a density with two modes of different weight, beside one with equal weights in grey. Right, their scores, which differ only between the modes.",
  defaults: { weight: 0.2, distance: 4 },
  build(fig) {
    let p, grey, exact, draws;
    const at = (x) => Math.exp(p.logDensity(Float64Array.of(x))[0]);
    const make = () => {
      p = law(fig.state.weight, fig.state.distance);
      grey = law(0.5, fig.state.distance);
      exact = divergences(p, grey);
    };
    make();
    const left = fig.plane({
      x: [-8, 8],
      y: [0, 0.42],
      title: "density",
      label: fig.kind.alt,
      draw() {
        left.line(AXIS, grey.logDensity(AXIS).map(Math.exp), { colour: "muted", width: 1.5, alpha: 0.6 });
        left.line(AXIS, p.logDensity(AXIS).map(Math.exp), { colour: "blue", width: 2, fill: 0.12 });
      },
    });
    const right = fig.plane({
      x: [-8, 8],
      y: [-5, 5],
      title: "score",
      label: "The scores of the two laws, which fall through each mode along the same lines.",
      draw() {
        right.rule({ y: 0, colour: "line", dash: [] });
        right.line(AXIS, grey.score(AXIS), { colour: "muted", width: 1.5, alpha: 0.6 });
        right.line(AXIS, p.score(AXIS), { colour: "blue" });
      },
    });
    left.handle({
      label: "weight of the left mode",
      only: "y",
      get: () => [-fig.state.distance, at(-fig.state.distance)],
      set: (_, y) => fig.set("weight", Math.min(0.98, Math.max(0.02, Number((y * Math.sqrt(2 * Math.PI)).toFixed(3))))),
      text: () => `weight ${fig.state.weight.toFixed(2)}`,
      step: 0.01 / Math.sqrt(2 * Math.PI),
      colour: "blue",
    });
    left.handle({
      label: "distance of the modes from the middle",
      only: "x",
      get: () => [fig.state.distance, at(fig.state.distance)],
      set: (x) => fig.set("distance", Math.min(6, Math.max(0, x))),
      text: () => `distance ${fig.state.distance.toFixed(1)}`,
      step: 0.1,
      colour: "purple",
    });
    fig.slider({ key: "weight", label: "weight of the left mode", min: 0.02, max: 0.98, step: 0.01, format: (v) => v.toFixed(2) });
    fig.slider({ key: "distance", label: "distance", min: 0, max: 6, step: 0.1, format: (v) => v.toFixed(1) });
    const kl = fig.reading({ label: "KL divergence from grey, by 10 000 draws" });
    const fisher = fig.reading({ label: "Fisher divergence from grey, by 10 000 draws" });

    return {
      changed: make,
      start: () => {
        make();
        draws = Float64Array.from({ length: N }, () => FAR * (2 * fig.rng.uniform() - 1));
      },
      measure() {
        // The same draws at each state: the reader's hand moves the number, and chance does not.
        const [logP, logQ, sP, sQ] = [p.logDensity(draws), grey.logDensity(draws), p.score(draws), grey.score(draws)];
        const mass = logP.map((v) => 2 * FAR * Math.exp(v));
        kl({ ...average(mass.map((m, i) => m * (logP[i] - logQ[i]))), truth: exact.kl });
        fisher({ ...average(mass.map((m, i) => m * (sP[i] - sQ[i]) ** 2)), truth: exact.fisher });
      },
    };
  },
};

/** A mean with its standard error. */
export function average(values) {
  const n = values.length, mean = values.reduce((a, b) => a + b, 0) / n;
  const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1);
  return { measured: mean, error: Math.sqrt(variance / n) };
}
