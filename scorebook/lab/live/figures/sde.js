// Noise added in continuous time and taken away again: time to be scrubbed both ways, three SDEs, any number of steps.

import { exactScore, forwardStep, reverseStep, seeded, subvp, ve, vp } from "../engine/index.js";
import { distanceTo } from "./distance.js";
import { lawOf } from "../frame/law.js";

const N = 1000, SDES = { vp: () => vp(), subvp: () => subvp(), ve: () => ve(0.01, 20) }, T_MIN = 1e-3;

export default {
  name: "sde",
  title: "An SDE, there and back",
  hint: "Move the time, drag a mode, take fewer steps. All is drawn in units of the law's spread at that time.",
  alt: "A plane with the density of three modes, noised, and a crowd of a thousand points that the reverse-time SDE has carried there.",
  defaults: {
    law: { weights: [0.5, 0.3, 0.2], means: [[-1.3, -0.3], [1.2, 0.7], [0.7, -1.1]], stds: [0.2, 0.25, 0.18] },
    process: "vp",
    way: "reverse",
    n: 100,
    t: 0.25,
  },
  build(fig) {
    let law, process, score, path, distance;
    const own = () => fig.state.law;
    const make = () => {
      law = lawOf(own());
      process = SDES[fig.state.process]();
      score = exactScore(process, law);
    };
    make();
    const grid = (k) => 1 + (k / fig.state.n) * (T_MIN - 1);
    const place = () => Math.round(((1 - fig.state.t) / (1 - T_MIN)) * fig.state.n);
    const size = (t) => Math.hypot(process.alpha(t) * score.dataStd, process.sigma(t));
    /** The law at a time, and the states there, over the spread at that time. */
    const seen = (t) => law.diffuse(process.alpha(t) / size(t), process.sigma(t) / size(t));
    const crowd = () => {
      const c = size(grid(place()));
      return path[Math.min(at(), path.length - 1)].map((v) => v / c);
    };
    // States are kept, so that time can be moved both ways; further ones are computed as they are asked for.
    const at = () => (fig.state.way === "reverse" ? place() : fig.state.n - place());
    const reach = () => {
      while (path.length <= at()) {
        const x = path[path.length - 1].slice(), k = path.length - 1, n = fig.state.n;
        if (fig.state.way === "reverse") reverseStep(process, score, x, grid(k), grid(k + 1), fig.rng);
        else forwardStep(process, x, grid(n - k), grid(n - k - 1), fig.rng);
        path.push(x);
        if (!fig.sound(x, `${n} steps are too few: the crowd left for infinity at t = ${grid(k).toFixed(3)}.`, 1e5)) return;
      }
    };
    const plane = fig.plane({
      x: [-3, 3],
      y: [-3, 3],
      equal: true,
      label: fig.kind.alt,
      draw() {
        const t = grid(place());
        const field = fig.memo("density", [own(), t, fig.state.process], () => plane.sample((p) => seen(t).logDensity(p).map(Math.exp), 90));
        plane.heat(field, "blue", 0.45);
        plane.contours(field);
        plane.points(crowd(), { colour: "orange" });
      },
    });
    /** Of the spread of the law at that time, how much a mean is away from zero. */
    const scale = () => {
      const t = grid(place());
      return process.alpha(t) / size(t);
    };
    plane.modes({
      moved: () => fig.start(),
      digits: 2,
      step: 0.05,
      to: (mean) => mean.map((m) => m * scale()),
      from: (seen) => seen.map((v) => Math.max(-5, Math.min(5, v / scale()))),
    });
    fig.slider({ key: "t", label: "time t", min: T_MIN, max: 1, step: 0.001, format: (v) => v.toFixed(3) });
    fig.slider({ key: "n", label: "steps from 1 to 0.001", values: [10, 20, 50, 100, 200, 500], restarts: true });
    fig.select({ key: "process", label: "SDE", options: [["vp", "VP"], ["subvp", "sub-VP"], ["ve", "VE"]], restarts: true });
    fig.select({ key: "way", label: "direction", options: [["reverse", "noise to data, by the score"], ["forward", "data to noise"]], restarts: true });
    const far = fig.reading({ label: "energy distance to the exact law at t" });
    const share = fig.reading({ label: "share at mode 1, by what is likeliest" });
    const end = () => (fig.state.way === "reverse" ? T_MIN : 1);

    return {
      start() {
        make();
        distance = distanceTo(seeded(fig.state.seed + 77));
        const first = fig.state.way === "reverse" ? process.samplePrior(N, 2, fig.rng) : null;
        path = [first ?? process.perturb(law.sample(N, fig.rng), T_MIN, fig.rng)];
        reach();
      },
      changed(key) {
        if (key === "t") reach();
      },
      rate: () => Math.max(30, fig.state.n / 4),
      step() {
        const next = place() + (fig.state.way === "reverse" ? 1 : -1);
        fig.state.t = Math.max(T_MIN, Math.min(1, grid(next)));
        reach();
      },
      done: () => Math.abs(fig.state.t - end()) < 1e-9,
      measure() {
        const t = grid(place()), x = crowd(), at_t = seen(t);
        far(distance(x, at_t, JSON.stringify([t, own(), fig.state.process])));
        // Summed over the crowd, p(mode | x) is an unbiased estimate of the mode's weight at every time.
        const r = at_t.responsibilities(x), K = own().weights.length;
        let sum = 0, squares = 0;
        for (let i = 0; i < N; i++) [sum, squares] = [sum + r[i * K] / N, squares + r[i * K] ** 2 / N];
        share({ measured: sum, error: Math.sqrt(Math.max(squares - sum * sum, 1e-9) / N), truth: own().weights[0] });
      },
      crowd: () => path[Math.min(at(), path.length - 1)],
    };
  },
};
