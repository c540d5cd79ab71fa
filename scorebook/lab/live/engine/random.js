// Random numbers with a seed: d3-random's normals over the generator xoroshiro128+ of pure-rand.

import { randomNormal } from "d3-random";
import { uniformFloat64 } from "pure-rand/distribution/uniformFloat64";
import { xoroshiro128plus } from "pure-rand/generator/xoroshiro128plus";

/** A source of numbers uniform in [0, 1) and of standard normal ones; one seed gives one sequence. */
export function seeded(seed) {
  if (!Number.isInteger(seed)) throw new RangeError(`seed must be an integer, got ${seed}`);
  const generator = xoroshiro128plus(seed);
  const uniform = () => uniformFloat64(generator);
  return { seed, uniform, normal: randomNormal.source(uniform)(0, 1) };
}

/** Fill an array with standard normal numbers. */
export function normals(rng, out) {
  for (let i = 0; i < out.length; i++) out[i] = rng.normal();
  return out;
}
