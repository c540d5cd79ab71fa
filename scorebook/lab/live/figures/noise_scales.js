// The law under noise of any scale, and annealed Langevin with a schedule shaped by hand.

import { annealedStep, modeWeights, noisedScore, tweedie } from "../engine/index.js";
import { lawOf } from "../frame/law.js";

const N = 1280, SCALES = 20;

export default {
  name: "noise_scales",
  title: "Every scale of noise, and the way down",
  hint: "Move σ. Shape the schedule by its three marks, and run annealed Langevin down it.",
  alt: "Left, the density of two far modes under noise, with arrows of its score and a crowd of points. Right, a schedule of noise scales that falls from 20 to 0.3, with three marks to shape it.",
  defaults: {
    law: { weights: [0.2, 0.8], means: [[-5, -5], [5, 5]], stds: [1, 1] },
    sigma: 5,
    weight: 0.8,
    schedule: [20, 2.5, 0.3],
    each: 20,
    step: 0.1,
  },
  build(fig) {
    let law, x, k;
    const own = () => fig.state.law;
    const make = () => (law = lawOf(own()));
    make();
    /** Scale i of the schedule: even ratios from mark to mark, never growing. */
    const scale = (i) => {
      const [a, b, c] = fig.state.schedule, u = i / (SCALES - 1);
      return u < 0.5 ? a * (b / a) ** (2 * u) : b * (c / b) ** (2 * u - 1);
    };
    const number = () => Math.min(SCALES - 1, Math.floor(k / fig.state.each));
    const plane = fig.plane({
      x: [-9, 9],
      y: [-9, 9],
      equal: true,
      label: fig.kind.alt,
      draw() {
        const { sigma } = fig.state, noised = law.diffuse(1, sigma);
        const field = fig.memo("density", [own(), sigma], () => plane.sample((p) => noised.logDensity(p).map(Math.exp), 80));
        plane.heat(field, "blue", 0.5);
        plane.contours(field);
        const arrows = fig.memo("score", [own(), sigma], () => plane.sample((p) => noised.score(p), 15));
        plane.arrows(arrows, { scale: Math.hypot(1, sigma) });
        plane.points(x, { colour: "orange" });
      },
    });
    plane.modes({ moved: make });
    const schedule = fig.plane({
      x: [0, SCALES - 1],
      y: [-1.3, 1.6],
      title: "schedule",
      label: "The noise scales in order, as logarithms to base ten; a dot marks the one in use.",
      xLabel: "scale number",
      yLabel: "log₁₀ σ",
      height: 240,
      draw() {
        const i = Array.from({ length: SCALES }, (_, j) => j);
        schedule.line(i, i.map((j) => Math.log10(scale(j))), { colour: "purple" });
        for (const j of i) schedule.points(Float64Array.of(j, Math.log10(scale(j))), { colour: "purple", size: j === number() && k ? 9 : 4, alpha: 1 });
      },
    });
    ["first", "middle", "last"].forEach((word, m) =>
      schedule.handle({
        label: `${word} noise scale`,
        only: "y",
        get: () => [(m * (SCALES - 1)) / 2, Math.log10(fig.state.schedule[m])],
        set: (_, y) => {
          const marks = fig.state.schedule, low = m < 2 ? marks[m + 1] * 1.01 : 0.06, high = m ? marks[m - 1] / 1.01 : 35;
          marks[m] = Number(Math.min(high, Math.max(low, 10 ** y)).toPrecision(4));
          fig.start();
        },
        text: () => `σ = ${fig.state.schedule[m]}`,
        step: 0.05,
        colour: "purple",
      }),
    );
    fig.slider({ key: "sigma", label: "noise σ shown", min: 0.1, max: 35, log: true });
    fig.slider({ key: "each", label: "steps at each scale", values: [1, 2, 5, 10, 20, 50, 100], restarts: true });
    fig.slider({ key: "weight", label: "weight of mode 2", min: 0.02, max: 0.98, step: 0.01, restarts: true });
    const share = fig.reading({ label: "share of the crowd at mode 2" });
    const depth = fig.reading({ label: "pass between the modes, nats below the lower top" });

    return {
      start() {
        make();
        k = 0;
        x = new Float64Array(2 * N);
        for (let i = 0; i < x.length; i++) x[i] = 16 * fig.rng.uniform() - 8;
      },
      changed(key) {
        if (key === "weight") own().weights = [1 - fig.state.weight, fig.state.weight];
        else fig.state.weight = own().weights[1];
        make();
      },
      rate: () => Math.max(60, SCALES * fig.state.each / 8),
      step() {
        const sigma = scale(number()), last = scale(SCALES - 1);
        fig.state.sigma = Number(sigma.toPrecision(3));
        annealedStep(noisedScore(law), x, sigma, last, fig.state.step * last ** 2, fig.rng);
        k++;
        if (k === SCALES * fig.state.each) tweedie(noisedScore(law), x, last);
        fig.sound(x, `The crowd left for infinity at σ = ${sigma.toPrecision(3)}.`);
      },
      done: () => k >= SCALES * fig.state.each,
      measure() {
        const [a, b] = own().means, p = modeWeights(x, Float64Array.from(own().means.flat()), 2)[1];
        share({ measured: p, error: Math.sqrt((p * (1 - p)) / N), truth: own().weights[1] });
        const noised = law.diffuse(1, fig.state.sigma), line = new Float64Array(402);
        for (let i = 0; i <= 200; i++) for (let j = 0; j < 2; j++) line[2 * i + j] = a[j] + (i / 200) * (b[j] - a[j]);
        const logs = noised.logDensity(line), half = logs.indexOf(Math.min(...logs.subarray(20, 181)));
        const lower = Math.min(Math.max(...logs.subarray(0, half + 1)), Math.max(...logs.subarray(half)));
        depth({ measured: Math.max(0, lower - logs[half]) });
      },
      crowd: () => x,
    };
  },
};
