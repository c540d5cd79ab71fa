// The probability flow: a point and its code, either of them in the reader's hand, and log p by the flow beside the exact.

import { TABLEAUS, exactScore, follow, logProb, times, vp } from "../engine/index.js";
import { lawOf } from "../frame/law.js";

const N = 600, T_MIN = 1e-3;

export default {
  name: "probability_flow",
  without: ["run", "once"],
  title: "A point and its code",
  hint: "Drag the round mark: its code moves. Drag the square: the point does. Both lie on one path of the flow.",
  alt: "Left, the density of three modes with a mark on a point. Right, a round cloud of codes coloured by mode, with a mark on the code of that point. A curve in each shows the path of the flow.",
  defaults: {
    law: { weights: [0.5, 0.3, 0.2], means: [[-1.3, -0.3], [1.2, 0.7], [0.7, -1.1]], stds: [0.25, 0.3, 0.22] },
    point: [0.2, -0.1],
    method: "adams",
    evaluations: 48,
  },
  build(fig) {
    let law, score, prior, data, codes, labels, code, path, held = "point";
    const process = vp(), own = () => fig.state.law, colours = ["orange", "green", "purple"];
    const stages = () => (fig.state.method === "adams" ? 1 : TABLEAUS[fig.state.method][1].length);
    const grid = (n, way) => {
      const all = times(process, Math.max(2, Math.round(n / stages())), { method: fig.state.method, tMin: T_MIN, dataStd: score.dataStd });
      return way === "encode" ? all.reverse() : all;
    };
    const solve = (from, way) =>
      Array.from(follow(process, score, Float64Array.from(from), { d: 2, method: fig.state.method, times: grid(fig.state.evaluations, way) }));
    const walk = () => {
      const { state } = fig;
      const states = held === "point" ? solve(state.point, "encode") : solve(code, "decode");
      const last = Array.from(states[states.length - 1].x);
      if (!fig.sound(last, "The solver left the finite numbers: take more evaluations, or another solver.", 1e3)) return;
      if (held === "point") code = last;
      else state.point = last;
      path = states;
    };
    const make = () => {
      law = lawOf(own());
      score = exactScore(process, law);
      prior = law.diffuse(process.alpha(1), process.sigma(1));
    };
    const trail = (plane) => {
      if (path) plane.line(path.map((s) => s.x[0]), path.map((s) => s.x[1]), { colour: "text", width: 1.5 });
    };
    const crowd = (plane, x) => {
      for (let i = 0; i < N; i++) plane.points(x, { colour: colours[labels[i] % 3], from: i, to: i + 1 });
    };
    make();
    const left = fig.plane({
      x: [-3, 3],
      y: [-3, 3],
      equal: true,
      title: "data",
      label: fig.kind.alt,
      draw() {
        const field = fig.memo("density", own(), () => left.sample((p) => law.logDensity(p).map(Math.exp), 90));
        left.heat(field, "blue", 0.3);
        left.contours(field);
        crowd(left, data);
        trail(left);
      },
    });
    const right = fig.plane({
      x: [-3, 3],
      y: [-3, 3],
      equal: true,
      title: "codes",
      label: "The codes of the points of the left plane, in their colours: one round cloud, cut into slices.",
      draw() {
        crowd(right, codes);
        trail(right);
      },
    });
    left.modes({ moved: () => fig.start(), digits: 2, step: 0.05 });
    left.handle({
      label: "the point",
      get: () => fig.state.point,
      set: (...to) => {
        held = "point";
        fig.state.point = to;
        walk();
      },
      text: () => `point at ${fig.state.point.map((v) => v.toFixed(2)).join(", ")}`,
      step: 0.05,
    });
    right.handle({
      label: "its code",
      get: () => code ?? [0, 0],
      set: (...to) => {
        held = "code";
        code = to;
        walk();
      },
      text: () => `code at ${(code ?? [0, 0]).map((v) => v.toFixed(2)).join(", ")}`,
      step: 0.05,
      square: true,
    });
    fig.select({
      key: "method",
      label: "solver",
      options: [["adams", "Adams, in the angle"], ["euler", "Euler"], ["heun2", "Heun"], ["rk4", "Runge-Kutta 4"]],
      restarts: true,
    });
    fig.slider({ key: "evaluations", label: "evaluations of the score", values: [4, 8, 12, 16, 24, 32, 48, 64, 128, 256], restarts: true });
    const logP = fig.reading({ label: "log p of the point, by the flow" });
    const back = fig.reading({ label: "there and back, distance" });

    const density = (n) =>
      logProb(process, score, Float64Array.from(fig.state.point), {
        d: 2,
        method: fig.state.method,
        times: grid(n, "decode"),
        prior: (x) => prior.logDensity(x),
      })[0];

    return {
      start() {
        make();
        labels = new Int32Array(N);
        data = law.sample(N, fig.rng, labels);
        // The cloud is always well solved; the solver chosen moves the one point.
        for (const state of follow(process, score, data, { d: 2, times: times(process, 24, { dataStd: score.dataStd }).reverse() })) codes = state.x;
        held = "point";
        walk();
      },
      changed(key) {
        if (key === "evaluations" || key === "method") walk();
      },
      measure() {
        const { point, evaluations } = fig.state, n = density(evaluations);
        // The law at t_min, which is where the flow begins. The error is what twice the evaluations change.
        const truth = law.diffuse(process.alpha(T_MIN), process.sigma(T_MIN)).logDensity(Float64Array.from(point))[0];
        logP({ measured: n, error: Math.abs(n - density(2 * evaluations)), truth });
        const states = held === "point" ? solve(code, "decode") : solve(point, "encode"), end = states[states.length - 1].x;
        const from = held === "point" ? point : code;
        back({ measured: Math.hypot(end[0] - from[0], end[1] - from[1]) });
      },
      crowd: () => data,
    };
  },
};
