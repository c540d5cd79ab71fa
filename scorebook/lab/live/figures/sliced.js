// Random directions see the trace of a Jacobian: one probe at a time, Gaussian or signs, in a dimension of one's choice.

import { mixture } from "../engine/index.js";

export default {
  name: "sliced",
  title: "Directions that see the trace",
  hint: "Drag the direction round the circle, or the dot through the plane. Run draws directions at random.",
  alt: "Left, a law of five humps on a ring with a dot and a direction through it. Middle, what a direction sees of the Jacobian against its angle, a wave around the trace. Right, the running average of random directions, beside the trace.",
  defaults: {
    law: {
      weights: [0.2, 0.2, 0.2, 0.2, 0.2],
      means: Array.from({ length: 5 }, (_, k) => [1.5 * Math.cos((2 * Math.PI * k) / 5), 1.5 * Math.sin((2 * Math.PI * k) / 5)].map((v) => Number(v.toFixed(4)))),
      stds: [0.5, 0.5, 0.5, 0.5, 0.5],
    },
    spot: [0.85, 0.85],
    angle: 30,
    kind: "gaussian",
  },
  build(fig) {
    let law, jacobian, v, n, sums, running;
    const own = () => fig.state.law, degrees = Math.PI / 180;
    const make = () => {
      law = mixture(own().means, own().stds, own().weights);
      const at = Float64Array.from(fig.state.spot);
      jacobian = [...law.scoreDerivative(at, Float64Array.of(1, 0)), ...law.scoreDerivative(at, Float64Array.of(0, 1))];
    };
    make();
    const trace = () => jacobian[0] + jacobian[3];
    const seen = ([a, b]) => a * a * jacobian[0] + a * b * (jacobian[1] + jacobian[2]) + b * b * jacobian[3];
    const turned = (angle) => [Math.SQRT2 * Math.cos(angle * degrees), Math.SQRT2 * Math.sin(angle * degrees)];
    const left = fig.plane({
      x: [-3, 3],
      y: [-3, 3],
      equal: true,
      most: 250,
      title: "the law",
      label: fig.kind.alt,
      draw() {
        const field = fig.memo("density", own(), () => left.sample((p) => law.logDensity(p).map(Math.exp), 70));
        left.heat(field, "blue", 0.45);
        const arrows = fig.memo("score", own(), () => left.sample((p) => law.score(p), 13));
        left.arrows(arrows, { scale: 0.6 });
        const [x, y] = fig.state.spot;
        left.line([x - v[0] * 0.7, x + v[0] * 0.7], [y - v[1] * 0.7, y + v[1] * 0.7], { colour: "orange", width: 2.5 });
      },
    });
    left.handle({
      label: "the point",
      get: () => fig.state.spot,
      set: (...to) => {
        fig.state.spot = to;
        make();
        fig.start();
      },
      text: () => `point at ${fig.state.spot.map((u) => u.toFixed(2)).join(", ")}`,
      step: 0.1,
      colour: "orange",
      square: true,
    });
    const tip = () => [0, 1].map((i) => Math.min(3, Math.max(-3, fig.state.spot[i] + turned(fig.state.angle)[i] * 0.7)));
    left.handle({
      label: "direction",
      get: tip,
      set: (x, y) => fig.set("angle", Number(((Math.atan2(y - fig.state.spot[1], x - fig.state.spot[0]) / degrees + 360) % 360).toFixed(1))),
      text: () => `${fig.state.angle.toFixed(0)} degrees`,
      step: 0.1,
      colour: "text",
    });
    const angles = Float64Array.from({ length: 181 }, (_, i) => 2 * i);
    const reach = 14;
    const middle = fig.plane({
      x: [0, 360],
      y: [-reach, reach],
      title: "what a direction sees",
      xLabel: "its angle in degrees",
      height: 250,
      label: "A wave around the line at the trace.",
      draw() {
        middle.rule({ y: trace() });
        middle.line(angles, angles.map((a) => seen(turned(a))), { colour: "blue" });
        middle.points([fig.state.angle, seen(turned(fig.state.angle))], { colour: "orange", size: 8, alpha: 1 });
      },
    });
    const right = fig.plane({
      x: [1, 10000],
      y: [-reach, reach],
      xLog: true,
      title: "average of random directions",
      xLabel: "how many",
      height: 250,
      label: "The running average, which goes to the trace.",
      draw() {
        right.rule({ y: trace() });
        right.line(running.map(([k]) => k), running.map(([, mean]) => mean), { colour: "orange" });
      },
    });
    fig.slider({ key: "angle", label: "angle of v", min: 0, max: 360, step: 1, format: (a) => `${a.toFixed(0)}°` });
    fig.select({ key: "kind", label: "directions", options: [["gaussian", "Gaussian"], ["signs", "signs"], ["sphere", "on the circle"]], restarts: true });
    const estimate = fig.reading({ label: "trace of the Jacobian, by random directions" });
    const spread = fig.reading({ label: "variance of one direction" });

    return {
      start() {
        make();
        [n, sums, running] = [0, [0, 0, 0, 0], []];
        v = turned(fig.state.angle);
      },
      changed(key) {
        make();
        if (key === "angle") v = turned(fig.state.angle);
      },
      step() {
        const { rng } = fig, { kind } = fig.state;
        if (kind === "gaussian") v = [rng.normal(), rng.normal()];
        else if (kind === "signs") v = [rng.uniform() < 0.5 ? -1 : 1, rng.uniform() < 0.5 ? -1 : 1];
        else v = turned(360 * rng.uniform());
        const value = seen(v);
        n++;
        for (let k = 0; k < 4; k++) sums[k] += value ** (k + 1);
        if (n < 200 || n % Math.ceil(n / 100) === 0) running.push([n, sums[0] / n]);
      },
      done: () => n >= 10000,
      rate: () => (n < 100 ? 10 : n < 1000 ? 100 : 600),
      measure() {
        if (n < 2) return [estimate, spread].forEach((show) => show({ measured: null, truth: null }));
        const [mean, m2, m3, m4] = sums.map((value) => value / n), variance = ((m2 - mean * mean) * n) / (n - 1);
        const fourth = m4 - 4 * mean * m3 + 6 * mean ** 2 * m2 - 3 * mean ** 4;
        estimate({ measured: mean, error: Math.sqrt(variance / n), truth: trace() });
        const [a, b, c, e] = jacobian, off = ((b + c) / 2) ** 2;
        // Gaussian 2 |J|^2, signs 2 |J|^2 off the diagonal, on the circle half the wave's height squared.
        const truth = { gaussian: 2 * (a * a + e * e + 2 * off), signs: 4 * off, sphere: ((a - e) ** 2 + 4 * off) / 2 }[fig.state.kind];
        spread({ measured: variance, error: Math.sqrt(Math.max(0, fourth - variance ** 2) / n), truth });
      },
    };
  },
};
