// Averages over draws: intervals that stack up and cover the truth in 95 of 100 cases; Z by importance sampling, which does
// not survive the dimension.

import { mixture } from "../engine/index.js";
import { number } from "../frame/dom.js";

const SHOWN = 60, DRAWS = 400;

export default {
  name: "monte_carlo",
  title: "Intervals, and how often they hold the truth",
  hint: "Run, and watch the intervals stack up; drag a mode, or ask for fewer draws. Then raise the dimension below.",
  alt: "Left, a density of two modes. Middle, stacked intervals around averages of x squared, with a line at the truth; those that miss it stand out. Right, estimates of a normalising constant.",
  defaults: { law: { weights: [0.3, 0.7], means: [[-2], [1]], stds: [0.6, 0.9] }, f: "x", n: 30, d: 4, width: 1.4 },
  build(fig) {
    let law, made, covered, logs, sum, squares;
    const own = () => fig.state.law;
    const make = () => (law = mixture(own().means, own().stds, own().weights));
    make();
    const f = (x) => (fig.state.f === "x" ? x : x * x);
    const truth = () =>
      own().weights.reduce((a, w, k) => a + w * (fig.state.f === "x" ? own().means[k][0] : own().means[k][0] ** 2 + own().stds[k] ** 2), 0);
    const xs = Float64Array.from({ length: 241 }, (_, i) => -6 + i / 20);
    const left = fig.plane({
      x: [-5, 5],
      y: [0, 0.6],
      title: "the law, one set of draws",
      label: fig.kind.alt,
      height: 210,
      draw() {
        left.line(xs, law.logDensity(xs).map(Math.exp), { colour: "blue", fill: 0.12 });
        const last = made.at(-1);
        if (last) for (const x of last.draws) left.line([x, x], [0, 0.03], { colour: "orange", width: 1, alpha: 0.7 });
      },
    });
    own().means.forEach((_, k) =>
      left.handle({
        label: `mode ${k + 1}`,
        only: "x",
        get: () => [own().means[k][0], Math.min(0.57, Math.exp(law.logDensity(Float64Array.of(own().means[k][0]))[0]))],
        set: (x) => {
          own().means[k] = [x];
          make();
          fig.start();
        },
        text: () => `mode ${k + 1} at ${own().means[k][0].toFixed(1)}`,
        step: 0.1,
        colour: "blue",
      }),
    );
    const middle = fig.plane({
      x: [0, 8],
      y: [0, SHOWN],
      title: "95 % intervals",
      label: "The last intervals, one above the other, and the truth as a line.",
      height: 210,
      draw() {
        middle.x.domain(fig.state.f === "x" ? [-2, 2] : [0, 8]);
        middle.rule({ x: truth() });
        made.forEach(({ mean, half, holds }, i) => {
          const y = i + 0.5 + SHOWN - made.length;
          middle.line([mean - half, mean + half], [y, y], { colour: holds ? "blue" : "orange", width: holds ? 1.5 : 2.5 });
          middle.points([mean, y], { colour: holds ? "blue" : "orange", size: 3, alpha: 1 });
        });
      },
    });
    const right = fig.plane({
      x: [1, 2000],
      y: [0, 2],
      xLog: true,
      title: "Z by importance sampling",
      xLabel: "steps",
      label: "The running estimate of a normalising constant whose truth is one.",
      height: 210,
      draw() {
        right.rule({ y: 1 });
        right.line(logs.map((_, i) => i + 1), logs, { colour: "orange", width: 1.8 });
      },
    });
    fig.select({ key: "f", label: "average of", options: [["x", "x"], ["x2", "x²"]], restarts: true });
    fig.slider({ key: "n", label: "draws an interval", values: [2, 3, 5, 10, 20, 30, 50, 100, 200, 500], restarts: true });
    fig.slider({ key: "d", label: "dimension of Z", values: [1, 2, 4, 8, 16, 32, 64, 128], restarts: true });
    const coverage = fig.reading({ label: "intervals that hold the truth, all so far" });
    const average = fig.reading({ label: "the average, all draws" });
    const constant = fig.reading({ label: "Z, all draws" });
    const effective = fig.reading({ label: "what these draws are worth" });
    let total, totalSquares, count;

    return {
      start() {
        make();
        [made, covered, logs, sum, squares, total, totalSquares, count] = [[], 0, [], 0, 0, 0, 0, 0];
      },
      changed: make,
      step() {
        const { n, d, width } = fig.state, draws = law.sample(n, fig.rng), true_ = truth();
        let mean = 0, spread = 0;
        for (const x of draws) mean += f(x) / n;
        for (const x of draws) spread += (f(x) - mean) ** 2 / (n - 1);
        const half = student(n - 1) * Math.sqrt(spread / n), holds = Math.abs(mean - true_) <= half;
        for (const x of draws) [total, totalSquares, count] = [total + f(x), totalSquares + f(x) ** 2, count + 1];
        covered += holds;
        made.push({ mean, half, holds, draws });
        if (made.length > SHOWN) made.shift();
        // Z of exp(-|x|^2/2)/(2 pi)^(d/2), which is one, by draws of N(0, width^2 I).
        for (let i = 0; i < DRAWS; i++) {
          let log = d * Math.log(width);
          for (let j = 0; j < d; j++) {
            const z = fig.rng.normal();
            log += 0.5 * z * z * (1 - width ** 2);
          }
          sum += Math.exp(log);
          squares += Math.exp(2 * log);
        }
        if (logs.length < 2000) logs.push(sum / (DRAWS * (logs.length + 1)));
      },
      done: () => fig.steps >= 2000,
      rate: () => 12,
      measure() {
        if (!fig.steps) return [coverage, average, constant, effective].forEach((show) => show({ measured: null }));
        const share = covered / fig.steps, m = DRAWS * fig.steps, z = sum / m;
        coverage({ measured: share, error: Math.sqrt((0.95 * 0.05) / fig.steps), truth: 0.95 });
        const mean = total / count;
        average({ measured: mean, error: Math.sqrt(Math.max(0, totalSquares / count - mean ** 2) / (count - 1)), truth: truth() });
        constant({ measured: z, error: Math.sqrt(Math.max(0, squares / m - z * z) / m), truth: 1 });
        const { d, width } = fig.state;
        // E w = 1 and E w^2 = (width^2 / sqrt(2 width^2 - 1))^d
        const exact = (Math.sqrt(2 * width ** 2 - 1) / width ** 2) ** d, worth = sum ** 2 / squares / m;
        effective({ measured: worth, words: `${number(100 * worth)} % of them; exact ${number(100 * exact)} %` });
      },
    };
  },
};

/** The 0.975 quantile of Student's law with df degrees of freedom, by Cornish and Fisher's expansion; exact for 1 and 2. */
export function student(df) {
  if (df === 1) return 12.706204736;
  if (df === 2) return 4.302652730;
  const z = 1.959963985, g1 = (z ** 3 + z) / 4, g2 = (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96;
  const g3 = (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384;
  const g4 = (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160;
  return z + g1 / df + g2 / df ** 2 + g3 / df ** 3 + g4 / df ** 4;
}
