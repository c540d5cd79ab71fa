// A law, one coordinate observed with an error: the exact posterior beside replacement, guidance and particles.

import {
  diffusionPosterior, exactScore, linearObservation, moments, pseudoinverseGuidance, replaceKnown, reverseStep, seeded,
  twistedParticles, vp,
} from "../engine/index.js";
import { distanceTo } from "./distance.js";
import { lawOf } from "../frame/law.js";

const N = 1000, STEPS = 250, T_MIN = 1e-3;

export default {
  name: "controllable_generation",
  title: "What was seen, and what follows from it",
  hint: "Drag the line, which is what was seen of x₂, and the square for its error bar. Choose a method and run.",
  alt: "A plane with three modes, a horizontal band that marks an observation of the second coordinate with its error, and a crowd of points drawn given that observation. Below it, the density of the first coordinate.",
  defaults: {
    law: { weights: [0.5, 0.3, 0.2], means: [[-1.2, -0.2], [1.3, 0.5], [0.5, -1.2]], stds: [0.4, 0.35, 0.3] },
    y: 0.3,
    noise: 0.2,
    method: "pseudoinverse",
  },
  build(fig) {
    let law, post, x, k, score, moving, guided, observation, distance, sized;
    const process = vp(), own = () => fig.state.law, grid = (i) => 1 + (i / STEPS) * (T_MIN - 1);
    const make = () => {
      law = lawOf(own());
      post = law.condition([false, true], [fig.state.y], fig.state.noise);
      score = exactScore(process, law);
      observation = linearObservation([false, true], [fig.state.y], fig.state.noise);
    };
    make();
    const plane = fig.plane({
      x: [-3, 3],
      y: [-2.6, 2.6],
      equal: true,
      label: fig.kind.alt,
      draw() {
        const field = fig.memo("density", own(), () => plane.sample((p) => law.logDensity(p).map(Math.exp), 90));
        plane.heat(field, "blue", 0.4);
        plane.contours(field);
        const { y, noise } = fig.state;
        plane.line([-3, 3], [y, y], { colour: "green" });
        for (const end of [y - noise, y + noise]) plane.line([-3, 3], [end, end], { colour: "green", width: 1, dash: [4, 4] });
        plane.points(x, { colour: "orange" });
      },
    });
    const marginal = fig.plane({
      x: [-3, 3],
      y: [0, 1.3],
      title: "x₁ given what was seen: exact (green), the crowd",
      label: "A histogram of the first coordinate of the crowd beside the exact density given the observation.",
      height: 150,
      draw() {
        marginal.histogram(x, { bins: 50, stride: 2 });
        const xs = Array.from({ length: 201 }, (_, i) => -3 + 0.03 * i);
        const density = xs.map((u) => {
          let p = 0;
          for (let c = 0; c < post.K; c++) {
            const variance = post.componentCovariance(c)[0], m = post.means[2 * c];
            p += (post.weights[c] * Math.exp((-0.5 * (u - m) ** 2) / variance)) / Math.sqrt(2 * Math.PI * variance);
          }
          return p;
        });
        marginal.line(xs, density, { colour: "green" });
      },
    });
    plane.modes({ moved: () => fig.start(), digits: 2, step: 0.05 });
    plane.handle({
      label: "observed x₂",
      only: "y",
      get: () => [-2.6, fig.state.y],
      set: (_, y) => ((fig.state.y = Number(y.toFixed(3))), fig.start()),
      text: () => `observed ${fig.state.y.toFixed(2)}`,
      step: 0.05,
      colour: "green",
    });
    plane.handle({
      label: "error bar",
      only: "y",
      get: () => [2.6, fig.state.y + fig.state.noise],
      set: (_, y) => ((fig.state.noise = Number(Math.min(1.5, Math.max(0.05, y - fig.state.y)).toFixed(3))), fig.start()),
      text: () => `error ${fig.state.noise.toFixed(2)}`,
      step: 0.02,
      colour: "green",
      square: true,
    });
    fig.select({
      key: "method",
      label: "method",
      options: [
        ["exact", "exact posterior"],
        ["replacement", "replacement, taken as exact"],
        ["posterior", "diffusion posterior"],
        ["pseudoinverse", "pseudoinverse guidance"],
        ["particles", "twisted particles"],
      ],
      restarts: true,
    });
    const mean = fig.reading({ label: "mean of x₁" });
    const spread = fig.reading({ label: "standard deviation of x₁" });
    const far = fig.reading({ label: "energy distance to the posterior" });

    return {
      start() {
        make();
        k = 0;
        distance = distanceTo(seeded(fig.state.seed + 77));
        x = process.samplePrior(N, 2, fig.rng);
        const { method } = fig.state;
        moving = sized = null;
        if (method === "particles") {
          moving = twistedParticles(process, score, observation, x, { nSteps: STEPS, dataStd: score.dataStd, rng: fig.rng });
          moving.next();
        }
        guided = {
          exact: () => exactScore(process, post),
          replacement: () => score,
          posterior: () => diffusionPosterior(process, score, observation),
          pseudoinverse: () => pseudoinverseGuidance(process, score, observation, { dataStd: score.dataStd }),
          particles: () => null,
        }[method]();
      },
      rate: () => 90,
      step() {
        const t = grid(k), u = grid(k + 1);
        if (moving) ({ x, size: sized } = moving.next().value);
        else {
          reverseStep(process, guided, x, t, u, fig.rng);
          if (fig.state.method === "replacement") replaceKnown(process, [0, fig.state.y], [false, true], x, u, fig.rng);
        }
        k++;
        fig.sound(x, `The crowd left for infinity at t = ${u.toFixed(3)}.`);
      },
      done: () => k >= STEPS,
      measure() {
        const now = moments(x, 2), exact = post.mean(), covariance = post.covariance();
        // Resampled particles are copies: they count by their effective number.
        const n = sized ? Math.min(N, sized) / 2 : N, sd = Math.sqrt(now.covariance[0]);
        mean({ measured: now.mean[0], error: sd / Math.sqrt(n), truth: exact[0] });
        let fourth = 0;
        for (let i = 0; i < x.length; i += 2) fourth += (x[i] - now.mean[0]) ** 4 / N;
        const ofVariance = Math.sqrt(Math.max(fourth - sd ** 4, 0) / n);
        spread({ measured: sd, error: ofVariance / (2 * sd), truth: Math.sqrt(covariance[0]) });
        if (k === 0 || k >= STEPS || !fig.running) far(distance(x, post, JSON.stringify([own(), fig.state.y, fig.state.noise])));
      },
      crowd: () => x,
    };
  },
};
