// One step of each sampler, in place on a flat batch. Mirrors scorebook/langevin.py, noise_scales.py and sde.py.
//
// A score before noise enters is score(x, out); one in time or noise scale is score(x, t, out).

/** langevin.gradient_ascent: x + step s(x). */
export function gradientAscentStep(score, x, step) {
  const s = score(x, new Float64Array(x.length));
  for (let i = 0; i < x.length; i++) x[i] += step * s[i];
}

/** langevin.langevin: x + step s(x) + sqrt(2 step) z. */
export function langevinStep(score, x, step, rng) {
  const s = score(x, new Float64Array(x.length)), noise = Math.sqrt(2 * step);
  for (let i = 0; i < x.length; i++) x[i] += step * s[i] + noise * rng.normal();
}

/**
 * langevin.metropolis_adjusted_langevin: a Langevin step as a proposal y, taken with probability
 * min(1, p(y) q(x | y) / (p(x) q(y | x))), q(y | x) = N(y; x + step s(x), 2 step I).
 *
 * @returns {number} how many points moved.
 */
export function metropolisStep(law, x, step, rng) {
  const d = law.d, n = x.length / d, noise = Math.sqrt(2 * step);
  const s = law.score(x), logP = law.logDensity(x), y = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) y[i] = x[i] + step * s[i] + noise * rng.normal();
  const sY = law.score(y), logPY = law.logDensity(y);
  let moved = 0;
  for (let i = 0; i < n; i++) {
    let forward = 0, backward = 0;
    for (let j = i * d; j < (i + 1) * d; j++) {
      forward += (y[j] - x[j] - step * s[j]) ** 2;
      backward += (x[j] - y[j] - step * sY[j]) ** 2;
    }
    const logRatio = logPY[i] - logP[i] + (forward - backward) / (4 * step);
    // A proposal that is not finite compares as false, and is refused.
    if (Math.log(rng.uniform()) < logRatio && Number.isFinite(logPY[i])) {
      for (let j = i * d; j < (i + 1) * d; j++) x[j] = y[j];
      moved++;
    }
  }
  return moved;
}

/** noise_scales.geometric_noise_scales: n scales in decreasing order, each the same multiple of the next. */
export function geometricNoiseScales(sigmaMax, sigmaMin, n) {
  if (!(0 < sigmaMin && sigmaMin < sigmaMax && n >= 2)) throw new RangeError(`0 < sigmaMin < sigmaMax, n >= 2`);
  return Float64Array.from({ length: n }, (_, i) => sigmaMax * (sigmaMin / sigmaMax) ** (i / (n - 1)));
}

/** noise_scales.annealed_langevin at one scale: a Langevin step of size step (sigma/sigmaLast)^2. */
export function annealedStep(score, x, sigma, sigmaLast, step, rng) {
  langevinStep((points, out) => score(points, sigma, out), x, step * (sigma / sigmaLast) ** 2, rng);
}

/** noise_scales.tweedie: x + sigma^2 s(x, sigma), in place. */
export function tweedie(score, x, sigma) {
  const s = score(x, sigma, new Float64Array(x.length));
  for (let i = 0; i < x.length; i++) x[i] += sigma ** 2 * s[i];
}

/** The score of x_0 + sigma z for a mixture, in noise scale. */
export function noisedScore(mixture) {
  return (x, sigma, out) => mixture.diffuse(1, sigma).score(x, out);
}

/** sde.euler_maruyama: x + (f - g^2 s) dt + g sqrt(|dt|) z from t to u < t. */
export function reverseStep(process, score, x, t, u, rng) {
  const s = score(x, t, new Float64Array(x.length)), dt = u - t;
  const rate = process.drift(t), g = process.diffusion(t), noise = g * Math.sqrt(Math.abs(dt));
  for (let i = 0; i < x.length; i++) x[i] += (rate * x[i] - g * g * s[i]) * dt + noise * rng.normal();
}

/** sde.simulate of the forward SDE: x + f dt + g sqrt(dt) z from t to u > t. */
export function forwardStep(process, x, t, u, rng) {
  const dt = u - t, rate = process.drift(t), noise = process.diffusion(t) * Math.sqrt(dt);
  for (let i = 0; i < x.length; i++) x[i] += rate * x[i] * dt + noise * rng.normal();
}

/** The corrector of sde.predictor_corrector: a Langevin step of size 2 (snr sigma(t))^2. */
export function correctorStep(process, score, x, t, snr, rng) {
  langevinStep((points, out) => score(points, t, out), x, 2 * (snr * process.sigma(t)) ** 2, rng);
}
