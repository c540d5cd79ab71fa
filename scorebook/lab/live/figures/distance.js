// The energy distance of a crowd to a law, beside what two samples of the law itself are apart.

import { energyDistance } from "../engine/index.js";

const FEW = 400, PAIRS = 16;

/**
 * A function of a crowd and a law: { measured, truth: 0, error }, the error being twice the scatter between samples
 * of the law: a distance has the tail of a square, not of a normal number.
 *
 * @param {object} rng its own source of draws, lest the figure's sequence depend on what is measured.
 */
export function distanceTo(rng, d = 2) {
  let kept = null;
  return (crowd, law, key) => {
    if (kept?.key !== key) {
      const draws = Array.from({ length: PAIRS + 1 }, () => law.sample(FEW, rng));
      const scatter = draws.slice(1).map((own, i) => energyDistance(own, draws[i], d));
      kept = { key, exact: draws[0], error: 2 * Math.sqrt(scatter.reduce((sum, v) => sum + v * v, 0) / PAIRS) };
    }
    return { measured: energyDistance(crowd.subarray(0, FEW * d), kept.exact, d), truth: 0, error: kept.error };
  };
}
