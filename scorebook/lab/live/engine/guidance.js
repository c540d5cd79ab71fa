// Guidance, from score to score. Mirrors scorebook/controllable_generation.py and scorebook/lab/observations.py.
//
// A score that guides needs the product of a vector with its derivative, transposed: score.derivative(x, t, v, out). For
// an exact score that matrix is symmetric; a network knows its own transposed product.

import { cholesky, flat, product, solveCholesky, transpose } from "./linear.js";
import { denoise } from "./sde.js";

/** LinearObservation(A, y, noise): A an (m, d) array of rows, or a mask of d booleans; y the m numbers seen. */
export function linearObservation(A, y, noise) {
  const rows = typeof A[0] === "boolean" ? A.flatMap((seen, j) => (seen ? [A.map((_, l) => +(l === j))] : [])) : A;
  const m = y.length, a = flat(rows), d = a.length / m, aT = transpose(a, m, d), squares = product(a, aT, m, d, m);
  if (!(noise > 0)) throw new RangeError(`noise must be positive, got ${noise}`);
  if (!Number.isInteger(d) || rows.length !== m) throw new RangeError(`A has ${rows.length} rows, so y must have as many`);
  return {
    a, aT, m, d, noise, y: Float64Array.from(y),

    /** LinearObservation.residual: y - A x, m numbers a point. */
    residual(x) {
      const n = x.length / d, r = product(x, aT, n, d, m);
      for (let i = 0; i < r.length; i++) r[i] = y[i % m] - r[i];
      return r;
    },

    /** LinearObservation.solve: (v A A^T + noise^2 I)^{-1} r. */
    solve(r, variance) {
      const covariance = squares.map((v) => variance * v);
      for (let i = 0; i < m; i++) covariance[i * m + i] += noise ** 2;
      const l = cholesky(covariance, m), w = new Float64Array(r.length);
      for (let i = 0; i < r.length; i += m) w.set(solveCholesky(l, r.subarray(i, i + m), m), i);
      return w;
    },

    /** LinearObservation.log_likelihood: log N(y; A x, noise^2 I) at clean points. */
    logLikelihood(x) {
      const r = this.residual(x), out = new Float64Array(x.length / d);
      for (let i = 0; i < r.length; i++) out[Math.floor(i / m)] -= 0.5 * (r[i] / noise) ** 2;
      return out.map((v) => v - m * Math.log(Math.sqrt(2 * Math.PI) * noise));
    },
  };
}

/**
 * Score at x, the guidance (d A x0hat / dx)^T w, and a number a point. Mirrors _through_denoiser: `weigh` makes of the
 * residual y - A x0hat the weights w and the number. The derivative of x0hat is (I + sigma^2 ds/dx)/alpha.
 */
function throughDenoiser(process, score, observation, x, t, weigh) {
  const s = new Float64Array(x.length), derivative = linearise(score, x, t, s);
  const alpha = process.alpha(t), variance = process.sigma(t) ** 2;
  const denoised = x.map((v, i) => (v + variance * s[i]) / alpha);
  const { m, d, a } = observation, n = x.length / d;
  const [weights, value] = weigh(observation.residual(denoised));
  const back = product(weights, a, n, m, d);
  const guidance = derivative(back, new Float64Array(x.length));
  for (let i = 0; i < x.length; i++) guidance[i] = (back[i] + variance * guidance[i]) / alpha;
  return { s, denoised, guidance, value };
}

/** The score at x, into s, and the product of its transposed derivative there as a function (v, out). */
function linearise(score, x, t, s) {
  if (score.linearised) return score.linearised(x, t, s);
  score(x, t, s);
  return (v, out) => score.derivative(x, t, v, out);
}

/** _bounded: the length of the guidance held below limit sqrt(d)/sigma, point by point. */
function bound(guidance, d, sigma, limit) {
  for (let i = 0; i < guidance.length; i += d) {
    let length = 0;
    for (let j = i; j < i + d; j++) length = Math.hypot(length, guidance[j]);
    const excess = (length * sigma) / (limit * Math.sqrt(d));
    if (excess > 1) for (let j = i; j < i + d; j++) guidance[j] /= excess;
  }
}

function guided(process, score, observation, weigh, bounded = () => {}) {
  const made = (x, t, out) => {
    const { s, guidance } = throughDenoiser(process, score, observation, x, t, (r) => weigh(r, t));
    bounded(guidance, t);
    for (let i = 0; i < x.length; i++) out[i] = s[i] + guidance[i];
    return out;
  };
  return Object.assign(made, { d: observation.d, dataStd: score.dataStd });
}

/** diffusion_posterior: the clean likelihood at the denoised point, its gradient bounded. */
export function diffusionPosterior(process, score, observation, { scale = 1, limit = 1 } = {}) {
  const weigh = (r) => [r.map((v) => (scale * v) / observation.noise ** 2), null];
  const bounded = (guidance, t) => limit && bound(guidance, observation.d, process.sigma(t), limit);
  return guided(process, score, observation, weigh, bounded);
}

/** pseudoinverse_guidance: the clean point uncertain by r^2 = sigma^2 s^2/(sigma^2 + alpha^2 s^2) in each direction. */
export function pseudoinverseGuidance(process, score, observation, { dataStd = 1 } = {}) {
  return guided(process, score, observation, (r, t) => isotropicSpread(process, observation, dataStd, r, t));
}

/** _by_isotropic_spread: weights of a residual, and the log-density that they come from, up to a constant. */
function isotropicSpread(process, observation, dataStd, r, t) {
  const noise = process.sigma(t) ** 2, signal = (process.alpha(t) * dataStd) ** 2, m = observation.m;
  const weights = observation.solve(r, (noise * dataStd ** 2) / (noise + signal));
  const value = new Float64Array(r.length / m);
  for (let i = 0; i < r.length; i++) value[Math.floor(i / m)] -= 0.5 * r[i] * weights[i];
  return [weights, value];
}

/** replace_known, in place: where the mask is true, alpha y + sigma z; at t = 0 the data themselves. */
export function replaceKnown(process, y, mask, x, t, rng) {
  const d = mask.length, alpha = process.alpha(t), sigma = t === 0 ? 0 : process.sigma(t);
  for (let i = 0; i < x.length; i++) {
    const noise = rng.normal();
    if (mask[i % d]) x[i] = alpha * y[i % d] + sigma * noise;
  }
}

/** classifier_free: s + w (s_y - s), with the derivative where both have one. */
export function classifierFree(conditional, unconditional, scale) {
  const blend = (without, given) => without.map((s, i) => s + scale * (given[i] - s));
  const made = (x, t, out) => {
    const given = conditional(x, t, new Float64Array(x.length));
    out.set(blend(unconditional(x, t, new Float64Array(x.length)), given));
    return out;
  };
  if (conditional.derivative && unconditional.derivative) {
    made.linearised = (x, t, s) => {
      const [given, without] = [new Float64Array(x.length), new Float64Array(x.length)];
      const pulls = [linearise(conditional, x, t, given), linearise(unconditional, x, t, without)];
      s.set(blend(without, given));
      return (v, out) => {
        const [pulled, free] = pulls.map((pull) => pull(v, new Float64Array(x.length)));
        out.set(blend(free, pulled));
        return out;
      };
    };
    made.derivative = (x, t, v, out) => made.linearised(x, t, new Float64Array(x.length))(v, out);
  }
  return Object.assign(made, { d: conditional.d, dataStd: unconditional.dataStd });
}

/**
 * twisted_particles with the twist of pseudoinverse guidance: a generator that yields, before each step and at the end,
 * { t, x, size } with the effective size of the cloud; the last `x` are the samples, drawn by their weights and denoised.
 */
export function* twistedParticles(process, score, observation, x, { nSteps, dataStd = 1, tMin = 1e-3, rng }) {
  const d = observation.d, n = x.length / d, grid = evenInAngle(process, nSteps, dataStd, tMin);
  const guide = (state, t) => {
    const weigh = (r) => isotropicSpread(process, observation, dataStd, r, t);
    const { denoised, guidance, value } = throughDenoiser(process, score, observation, state, t, weigh);
    bound(guidance, d, process.sigma(t), 1);
    const noise = process.sigma(t) ** 2, alpha = process.alpha(t);
    return { denoised, push: guidance.map((g) => (noise * g) / alpha), logTwist: value };
  };
  let state = x.slice(), logWeights, now = guide(state, grid[0]);
  logWeights = now.logTwist.slice();
  for (let k = 0; k < nSteps; k++) {
    const size = effectiveSize(logWeights), t = grid[k], u = grid[k + 1];
    yield { t, x: state, size };
    if (size < n / 2) {
      const chosen = systematic(logWeights, rng), mean = logMeanExp(logWeights);
      state = pick(state, chosen, d);
      now = { denoised: pick(now.denoised, chosen, d), push: pick(now.push, chosen, d), logTwist: pick(now.logTwist, chosen, 1) };
      logWeights.fill(mean);
    }
    const { kept, gain, std } = kernel(process, t, u, dataStd), next = new Float64Array(state.length);
    for (let i = 0; i < n; i++)
      for (let j = i * d; j < (i + 1) * d; j++) {
        const z = rng.normal(), push = gain * now.push[j];
        next[j] = kept * state[j] + gain * (now.denoised[j] + now.push[j]) + std * z;
        logWeights[i] -= (push / std) * (z + push / (2 * std));
      }
    state = next;
    const before = now.logTwist;
    if (k + 1 < nSteps) now = guide(state, u);
    else {
      const denoised = denoise(process, score, state, u);
      now = { denoised, push: null, logTwist: observation.logLikelihood(denoised) };
    }
    for (let i = 0; i < n; i++) logWeights[i] += now.logTwist[i] - before[i];
  }
  const size = effectiveSize(logWeights);
  yield { t: grid[nSteps], x: pick(now.denoised, systematic(logWeights, rng), d), size };
}

/** _even_in_angle */
function evenInAngle(process, n, dataStd, tMin) {
  return process.timeGrid(n, { tMin, spacing: "angle", dataStd });
}

/** _kernel: shares of the state and of the denoised point in the mean of a step, and its standard deviation. */
function kernel(process, t, u, dataStd) {
  const alphaT = process.alpha(t), alphaU = process.alpha(u), noiseT = process.sigma(t) ** 2, noiseU = process.sigma(u) ** 2;
  const ratio = alphaT / alphaU, added = noiseT - ratio ** 2 * noiseU;
  const totalT = noiseT + (alphaT * dataStd) ** 2, totalU = noiseU + (alphaU * dataStd) ** 2;
  return { kept: (ratio * noiseU) / noiseT, gain: (alphaU * added) / noiseT, std: Math.sqrt((added * totalU) / totalT) };
}

function logMeanExp(logs) {
  const top = logs.reduce((a, b) => Math.max(a, b));
  return top + Math.log(logs.reduce((sum, v) => sum + Math.exp(v - top), 0) / logs.length);
}

/** 1/sum w^2 of normalised weights. Mirrors _effective_size. */
export function effectiveSize(logWeights) {
  const mean = logMeanExp(logWeights), n = logWeights.length;
  return 1 / logWeights.reduce((sum, v) => sum + (Math.exp(v - mean) / n) ** 2, 0);
}

/** Systematic resampling, as in _drawn_anew: which particles are drawn. */
function systematic(logWeights, rng) {
  const n = logWeights.length, mean = logMeanExp(logWeights), shift = rng.uniform(), chosen = new Int32Array(n);
  let sum = Math.exp(logWeights[0] - mean), k = 0;
  for (let i = 0; i < n; i++) {
    while (shift + i >= sum && k < n - 1) sum += Math.exp(logWeights[++k] - mean);
    chosen[i] = k;
  }
  return chosen;
}

function pick(rows, chosen, d) {
  const picked = new Float64Array(chosen.length * d);
  chosen.forEach((row, i) => picked.set(rows.subarray(row * d, (row + 1) * d), i * d));
  return picked;
}
