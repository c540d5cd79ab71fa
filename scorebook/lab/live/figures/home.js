// The first page: noise becomes data along the probability flow of a law whose modes the reader drags.

import { exactScore, follow, mixture, modeWeights, times, vp } from "../engine/index.js";

const N = 1000, STEPS = 110, REST = 90;

export default {
  name: "home",
  title: "Noise becomes data",
  hint: "Drag a mode: the crowd follows the score to wherever you put it.",
  alt: "A cloud of a thousand points of pure noise, which flows to the three modes of a law, in shares that match their weights.",
  autoplay: true,
  without: ["once", "anew", "seed"],
  defaults: {
    law: { weights: [0.5, 0.3, 0.2], means: [[-2.6, -0.5], [2.2, 1.1], [1.1, -1.35]], stds: [0.3, 0.34, 0.26] },
  },
  build(fig) {
    const process = vp(), own = () => fig.state.law, colours = ["blue", "orange", "green"];
    let law, noise, x, path, t, waits, nearest;
    const make = () => (law = mixture(own().means, own().stds, own().weights));
    make();
    const plane = fig.plane({
      x: [-4.6, 4.6],
      y: [-2.4, 2.4],
      equal: true,
      axes: false,
      most: 380,
      label: fig.kind.alt,
      draw() {
        const alpha = process.alpha(t), sigma = process.sigma(t), now = law.diffuse(alpha, sigma);
        const key = [own(), t > 0.02 ? Math.round(t * 25) : 0];
        const field = fig.memo("density", key, () => plane.sample((p) => now.logDensity(p).map(Math.exp), 64));
        plane.heat(field, "muted", 0.2);
        for (let k = 0; k < 3; k++) {
          const own = x.filter((_, i) => nearest[i >> 1] === k);
          plane.points(own, { colour: colours[k], size: 2.6, alpha: 0.8 });
        }
      },
    });
    plane.modes({
      moved() {
        make();
        replay();
      },
      step: 0.1,
      colours,
      label: (k) => `mode ${k + 1}, weight ${own().weights[k]}`,
    });
    const readings = own().weights.map((_, k) => fig.reading({ label: `share at mode ${k + 1}` }));

    // The way of every point from its noise, and then as many steps of rest at the end of it.
    function replay() {
      const score = exactScore(process, law), dataStd = law.std();
      path = [...follow(process, score, noise, { d: 2, times: times(process, 40, { dataStd }), dataStd })];
      const end = path.at(-1).x;
      nearest = new Int8Array(N);
      for (let i = 0; i < N; i++) {
        let least = Infinity;
        own().means.forEach(([a, b], k) => {
          const far = (end[2 * i] - a) ** 2 + (end[2 * i + 1] - b) ** 2;
          if (far < least) [least, nearest[i]] = [far, k];
        });
      }
      place();
    }

    function place() {
      const way = Math.min(1, (fig.steps - waits) / STEPS) * (path.length - 1), k = Math.min(path.length - 2, Math.floor(way)), u = way - k;
      const [from, to] = [path[k], path[k + 1]];
      t = from.t + u * (to.t - from.t);
      x = from.x.map((v, i) => v + u * (to.x[i] - v));
      if (!fig.sound(x, "The crowd cannot follow: two modes lie on top of each other, or one is gone.")) x = noise;
    }

    return {
      start() {
        make();
        waits = 0;
        noise = process.samplePrior(N, 2, fig.rng);
        replay();
      },
      step() {
        if (fig.steps - waits > STEPS + REST) {
          waits = fig.steps;
          noise = process.samplePrior(N, 2, fig.rng);
          replay();
        }
        place();
      },
      measure() {
        const shares = modeWeights(path.at(-1).x, Float64Array.from(own().means.flat()), 2);
        readings.forEach((show, k) => {
          const w = own().weights[k];
          show({ measured: shares[k], error: Math.sqrt((w * (1 - w)) / N), truth: w });
        });
      },
      crowd: () => x,
    };
  },
};
