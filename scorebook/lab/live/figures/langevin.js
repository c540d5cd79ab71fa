// Langevin dynamics on a law of two modes in the plane: ascent, Langevin, Metropolis; modes, start and step by hand.

import { gradientAscentStep, langevinStep, metropolisStep, mixture, modeWeights } from "../engine/index.js";
import { number, say } from "../frame/dom.js";
import { lawOf } from "../frame/law.js";

const N = 1280;

export default {
  name: "langevin",
  title: "Langevin dynamics, to be moved by hand",
  hint: "Drag the two modes, or the square from which the crowd starts. Then run.",
  alt: "A plane with the density of two modes, of weights one fifth and four fifths, and a crowd of points spread over it.",
  defaults: {
    law: { weights: [0.2, 0.8], means: [[-5, -5], [5, 5]], stds: [1, 1] },
    start: "spread",
    at: [-2, 2],
    weight: 0.8,
    step: 0.1,
    rule: "langevin",
  },
  build(fig) {
    let law, x, moved = 0, proposed = 0, exact = 1;
    const own = () => fig.state.law;
    const make = () => (law = lawOf(own()));
    make();
    fig.state.weight = own().weights[1];
    const plane = fig.plane({
      x: [-9, 9],
      y: [-9, 9],
      equal: true,
      label: fig.kind.alt,
      draw() {
        const field = fig.memo("density", own(), () => plane.sample((p) => law.logDensity(p).map(Math.exp), 90));
        plane.heat(field, "blue", 0.45);
        plane.contours(field);
        plane.points(x, { colour: "orange", size: 2.6 });
      },
    });
    plane.modes({ moved: make });
    plane.handle({
      label: "start of the crowd",
      get: () => fig.state.at,
      set: (...to) => {
        fig.state.at = to;
        fig.state.start = "point";
        fig.start();
      },
      text: () => `start at ${fig.state.at.map((v) => v.toFixed(1)).join(", ")}`,
      step: 0.25,
      colour: "orange",
      square: true,
    });
    // The law of one Gaussian step stands beside it: N(0, 1) at step eps rests at variance 2/(2 - eps).
    let bell;
    const narrow = fig.plane({
      x: [-4, 4],
      y: [0, 0.5],
      title: "the same rule on N(0, 1)",
      label: "A histogram of chains that move by the same rule on a standard normal law, beside its density.",
      height: 220,
      draw() {
        narrow.histogram(bell, { bins: 48 });
        const xs = Array.from({ length: 121 }, (_, i) => -4 + i / 15);
        narrow.line(xs, xs.map((v) => Math.exp(-v * v / 2) / Math.sqrt(2 * Math.PI)), { colour: "blue" });
      },
    });
    const normal = mixture([[0]], [1], [1]);
    fig.select({
      key: "rule",
      label: "rule",
      options: [["ascent", "no noise: gradient ascent"], ["langevin", "Langevin"], ["metropolis", "Langevin, accept or refuse"]],
      restarts: true,
    });
    fig.select({ key: "start", label: "start", options: [["spread", "anywhere"], ["point", "at the square"], ["law", "from the law itself"]], restarts: true });
    fig.slider({ key: "step", label: "step size ε", min: 0.01, max: 2.5, log: true });
    fig.slider({
      key: "weight",
      label: "weight of mode 2",
      min: 0.02,
      max: 0.98,
      step: 0.01,
    });
    const share = fig.reading({ label: "share of the crowd at mode 2" });
    const variance = fig.reading({ label: "variance on N(0, 1)" });
    const accepted = fig.reading({ label: "steps accepted in the plane" });

    return {
      start() {
        make();
        const { state, rng } = fig;
        x = new Float64Array(2 * N);
        if (state.start === "law") x = law.sample(N, rng);
        else if (state.start === "point") for (let i = 0; i < x.length; i++) x[i] = state.at[i % 2];
        else for (let i = 0; i < x.length; i++) x[i] = 16 * rng.uniform() - 8;
        bell = normal.sample(N, rng);
        moved = proposed = 0;
        exact = 1;
      },
      changed(key) {
        if (key === "weight") own().weights = [1 - fig.state.weight, fig.state.weight];
        else fig.state.weight = own().weights[1];
        make();
        if (key === "step") moved = proposed = 0;
      },
      step() {
        const { step, rule } = fig.state;
        for (const [target, crowd] of [[law, x], [normal, bell]]) {
          const score = (p, out) => target.score(p, out);
          if (rule === "ascent") gradientAscentStep(score, crowd, step);
          else if (rule === "langevin") langevinStep(score, crowd, step, fig.rng);
          else {
            const n = metropolisStep(target, crowd, step, fig.rng);
            if (crowd === x) [moved, proposed] = [moved + n, proposed + N];
          }
        }
        for (const crowd of [x, bell])
          if (!fig.sound(crowd, `A step of ${step} is too large: the crowd left for infinity after ${fig.steps + 1} steps.`)) return;
        // The variance of the chains on N(0, 1) in closed form, step by step.
        if (rule !== "metropolis") exact = (1 - step) ** 2 * exact + (rule === "langevin" ? 2 * step : 0);
      },
      measure() {
        const { step, rule } = fig.state, p = modeWeights(x, Float64Array.from(own().means.flat()), 2)[1];
        share({ measured: p, error: Math.sqrt((p * (1 - p)) / N), truth: own().weights[1] });
        let now = 0;
        for (const v of bell) now += v * v / N;
        variance({ measured: now, error: Math.sqrt(2 / N) * exact, truth: exact });
        const limit = rule === "ascent" ? "0" : rule === "metropolis" ? "1" : step < 2 ? `2/(2 − ε) = ${number(2 / (2 - step))}` : "none: ε ≥ 2";
        say(narrow.caption, `the same rule on N(0, 1); limit of the variance ${limit}`);
        accepted(rule === "metropolis" && proposed ? { measured: moved / proposed } : { measured: null });
      },
      crowd: () => x,
    };
  },
};
