// Gaussian mixtures, p(x) = sum_k w_k N(x; mu_k, C_k). Mirrors scorebook/lab/distributions.py: a covariance is decomposed
// once, C_k = Q_k diag(v_k) Q_k^T, and noise moves the eigenvalues alone.
//
// A batch of n points in d dimensions is a flat Float64Array, one point after the other.

import { cholesky, eigen, flat, product, solveCholesky, transpose } from "./linear.js";

const LOG_2PI = Math.log(2 * Math.PI);

/**
 * GaussianMixture(weights, means, covariances), except that isotropic components are given by standard deviations.
 *
 * @param {number[][]} means K means of d numbers each.
 * @param {number | number[] | number[][][]} spread one standard deviation, K of them, or K covariances (d, d).
 * @param {number[]} weights K of them, non-negative, with sum one.
 */
export function mixture(means, spread, weights) {
  const K = means.length, d = means[0]?.length ?? 0;
  if (!(K && d)) throw new RangeError(`means must hold at least one mean of at least one number, got ${K} of ${d}`);
  const mu = flat(means), w = flat(weights);
  if (mu.length !== K * d || !mu.every(Number.isFinite)) throw new RangeError(`means must be ${K} finite points of ${d}`);
  const total = w.reduce((a, b) => a + b, 0);
  if (w.length !== K || !w.every((v) => v >= 0) || !(Math.abs(total - 1) < 1e-6))
    throw new RangeError(`weights must be ${K} non-negative numbers with sum one, got ${Array.from(w)}`);
  if (typeof spread === "number") spread = Array(K).fill(spread);
  if (typeof spread[0] === "number") {
    if (spread.length !== K || !Array.from(spread).every((s) => s > 0 && s < Infinity))
      throw new RangeError(`standard deviations must be ${K} positive numbers, got ${Array.from(spread)}`);
    const variances = new Float64Array(K * d);
    for (let k = 0; k < K; k++) variances.fill(spread[k] ** 2, k * d, (k + 1) * d);
    return new Mixture(w, mu, variances, null, d);
  }
  return fromCovariances(w, mu, spread.map(flat), d);
}

function fromCovariances(weights, means, covariances, d, posterior = false) {
  const K = weights.length, variances = new Float64Array(K * d), axes = new Float64Array(K * d * d);
  for (let k = 0; k < K; k++) {
    const { values, axes: q } = eigen(covariances[k], d);
    const largest = Math.max(...values);
    // Of an exact observation a posterior has no variance in its direction, up to a rounding.
    if (posterior) values.forEach((v, j) => (values[j] = v > 1e-14 * largest ? v : 0));
    else if (!values.every((v) => v > 1e-15 * largest))
      throw new RangeError(`covariances[${k}] must be symmetric positive definite, got eigenvalues ${Array.from(values)}`);
    variances.set(values, k * d);
    axes.set(q, k * d * d);
  }
  return new Mixture(weights, means, variances, axes, d);
}

class Mixture {
  constructor(weights, means, variances, axes, d) {
    const K = weights.length;
    Object.assign(this, { weights, means, variances, axes, d, K });
    const total = weights.reduce((a, b) => a + b, 0);
    // log w_k - (d log 2 pi + log det C_k)/2
    this.constants = new Float64Array(K);
    for (let k = 0; k < K; k++) {
      let logDet = 0;
      for (let j = 0; j < d; j++) logDet += Math.log(variances[k * d + j]);
      this.constants[k] = Math.log(weights[k] / total) - 0.5 * (d * LOG_2PI + logDet);
    }
    this.r = new Float64Array(K);
    this.pulls = new Float64Array(K * d);
    this.offset = new Float64Array(d);
    this.turned = new Float64Array(d);
  }

  /** Refuses a law on a subspace, which has no density until it is diffused. */
  #dense() {
    if (this.variances.includes(0)) throw new RangeError("this law has no density: it was conditioned without noise");
  }

  /** At one point: r_k, the pulls C_k^{-1}(mu_k - x), and the returned log-density. Mirrors _Mixture._evaluate. */
  at(x, i) {
    const { K, d, means, variances, axes, constants, r, pulls, offset, turned } = this;
    let top = -Infinity;
    for (let k = 0; k < K; k++) {
      let squared = 0;
      if (axes === null) {
        for (let j = 0; j < d; j++) {
          const difference = means[k * d + j] - x[i + j], scaled = difference / variances[k * d + j];
          squared += difference * scaled;
          pulls[k * d + j] = scaled;
        }
      } else {
        for (let j = 0; j < d; j++) offset[j] = means[k * d + j] - x[i + j];
        const q = k * d * d;
        for (let j = 0; j < d; j++) {
          let along = 0;
          for (let l = 0; l < d; l++) along += axes[q + l * d + j] * offset[l];
          turned[j] = along / variances[k * d + j];
          squared += along * turned[j];
        }
        for (let l = 0; l < d; l++) {
          let pull = 0;
          for (let j = 0; j < d; j++) pull += axes[q + l * d + j] * turned[j];
          pulls[k * d + l] = pull;
        }
      }
      r[k] = constants[k] - 0.5 * squared;
      if (r[k] > top) top = r[k];
    }
    let sum = 0;
    for (let k = 0; k < K; k++) sum += r[k] = Math.exp(r[k] - top);
    for (let k = 0; k < K; k++) r[k] /= sum;
    return top + Math.log(sum);
  }

  /** log p(x) in nats, one number a point. Mirrors GaussianMixture.log_prob. */
  logDensity(x, out = new Float64Array(x.length / this.d)) {
    this.#dense();
    for (let i = 0; i < out.length; i++) out[i] = this.at(x, i * this.d);
    return out;
  }

  /** p(k | x), K numbers a point. Mirrors GaussianMixture.responsibilities. */
  responsibilities(x, out = new Float64Array((x.length / this.d) * this.K)) {
    this.#dense();
    for (let i = 0; i < x.length / this.d; i++) {
      this.at(x, i * this.d);
      out.set(this.r, i * this.K);
    }
    return out;
  }

  /** s(x) = sum_k r_k C_k^{-1}(mu_k - x). Mirrors GaussianMixture.score. */
  score(x, out = new Float64Array(x.length)) {
    this.#dense();
    const { K, d, r, pulls } = this;
    for (let i = 0; i < x.length; i += d) {
      this.at(x, i);
      for (let j = 0; j < d; j++) {
        let s = 0;
        for (let k = 0; k < K; k++) s += r[k] * pulls[k * d + j];
        out[i + j] = s;
      }
    }
    return out;
  }

  /** The derivative of the score times a vector v a point, which is symmetric: what autograd finds in Python. */
  scoreDerivative(x, v, out = new Float64Array(x.length)) {
    this.#dense();
    const { K, d, r, pulls, variances, axes, turned } = this;
    for (let i = 0; i < x.length; i += d) {
      this.at(x, i);
      let mean = 0;
      const along = new Float64Array(K);
      for (let k = 0; k < K; k++) {
        for (let j = 0; j < d; j++) along[k] += pulls[k * d + j] * v[i + j];
        mean += r[k] * along[k];
      }
      for (let j = 0; j < d; j++) {
        let sum = 0;
        // sum_k r_k u_k (u_k - s).v with s the mean of the u_k
        for (let k = 0; k < K; k++) sum += r[k] * pulls[k * d + j] * (along[k] - mean);
        out[i + j] = sum;
      }
      for (let k = 0; k < K; k++) {
        if (axes === null) {
          for (let j = 0; j < d; j++) out[i + j] -= (r[k] * v[i + j]) / variances[k * d + j];
        } else {
          const q = k * d * d;
          for (let j = 0; j < d; j++) {
            let a = 0;
            for (let l = 0; l < d; l++) a += axes[q + l * d + j] * v[i + l];
            turned[j] = (r[k] * a) / variances[k * d + j];
          }
          for (let l = 0; l < d; l++) for (let j = 0; j < d; j++) out[i + l] -= axes[q + l * d + j] * turned[j];
        }
      }
    }
    return out;
  }

  /** Divergence of the score, sum_k r_k (|u_k|^2 - tr C_k^{-1}) - |s|^2, one number a point. */
  scoreDivergence(x, out = new Float64Array(x.length / this.d)) {
    this.#dense();
    const { K, d, r, pulls, variances } = this;
    for (let i = 0; i < out.length; i++) {
      this.at(x, i * d);
      let sum = 0;
      for (let j = 0; j < d; j++) {
        let s = 0;
        for (let k = 0; k < K; k++) {
          const u = pulls[k * d + j];
          s += r[k] * u;
          sum += r[k] * (u * u - 1 / variances[k * d + j]);
        }
        sum -= s * s;
      }
      out[i] = sum;
    }
    return out;
  }

  /** n draws; into `labels`, if given, their components. Mirrors GaussianMixture.sample. */
  sample(n, rng, labels = null) {
    const { K, d, weights, means, variances, axes, turned } = this;
    const cumulative = Float64Array.from(weights);
    for (let k = 1; k < K; k++) cumulative[k] += cumulative[k - 1];
    const x = new Float64Array(n * d);
    for (let i = 0; i < n; i++) {
      const u = rng.uniform() * cumulative[K - 1];
      let k = 0;
      while (k < K - 1 && u >= cumulative[k]) k++;
      if (labels) labels[i] = k;
      for (let j = 0; j < d; j++) turned[j] = Math.sqrt(variances[k * d + j]) * rng.normal();
      for (let l = 0; l < d; l++) {
        let z = axes === null ? turned[l] : 0;
        if (axes !== null) for (let j = 0; j < d; j++) z += axes[k * d * d + l * d + j] * turned[j];
        x[i * d + l] = means[k * d + l] + z;
      }
    }
    return x;
  }

  /** The law of alpha x_0 + sigma z. Mirrors GaussianMixture.diffuse. */
  diffuse(alpha, sigma) {
    if (!(Number.isFinite(alpha) && sigma >= 0 && sigma < Infinity && (alpha !== 0 || sigma !== 0)))
      throw new RangeError(`alpha and sigma must be finite, sigma not negative, not both zero, got ${alpha}, ${sigma}`);
    const means = this.means.map((m) => alpha * m);
    const variances = this.variances.map((v) => alpha ** 2 * v + sigma ** 2);
    return new Mixture(this.weights, means, variances, this.axes, this.d);
  }

  /** C_k, shape (d, d). */
  componentCovariance(k) {
    const { d, variances, axes } = this;
    const c = new Float64Array(d * d);
    for (let l = 0; l < d; l++)
      for (let m = 0; m < d; m++)
        for (let j = 0; j < d; j++) {
          const q = k * d * d;
          const both = axes === null ? +(l === j && m === j) : axes[q + l * d + j] * axes[q + m * d + j];
          c[l * d + m] += both * variances[k * d + j];
        }
    return c;
  }

  /**
   * The posterior given y = A x + noise z, A of m rows. Mirrors GaussianMixture.condition, by the formulas of its
   * docstring: S_k = A C_k A^T + noise^2 I, the evidence N(y; A mu_k, S_k), the gain C_k A^T S_k^{-1}. `A` may be a
   * mask too, an array of d booleans: then y holds the numbers seen, in order.
   */
  condition(A, y, noise) {
    const { K, d } = this;
    const a = flat(typeof A[0] === "boolean" ? selection(A) : A), m = a.length / d;
    if (y.length !== m || !(noise >= 0)) throw new RangeError(`y must hold ${m} numbers and noise be at least 0`);
    const logs = new Float64Array(K), means = new Float64Array(K * d), covariances = [];
    const aT = transpose(a, m, d);
    for (let k = 0; k < K; k++) {
      const c = this.componentCovariance(k), mu = this.means.subarray(k * d, (k + 1) * d);
      const caT = product(c, aT, d, d, m), s = product(a, caT, m, d, m);
      for (let i = 0; i < m; i++) s[i * m + i] += noise ** 2;
      const l = cholesky(s, m);
      const predicted = product(a, mu, m, d, 1), residual = predicted.map((p, i) => y[i] - p);
      const weighed = solveCholesky(l, residual, m);
      logs[k] = Math.log(this.weights[k]);
      for (let i = 0; i < m; i++) logs[k] -= 0.5 * residual[i] * weighed[i] + Math.log(l[i * m + i]);
      const shift = product(caT, weighed, d, m, 1);
      for (let j = 0; j < d; j++) means[k * d + j] = mu[j] + shift[j];
      const covariance = Float64Array.from(c);
      for (let j = 0; j < d; j++) {
        const gain = solveCholesky(l, caT.subarray(j * m, (j + 1) * m), m);
        for (let i = 0; i < d; i++) for (let q = 0; q < m; q++) covariance[j * d + i] -= gain[q] * caT[i * m + q];
      }
      covariances.push(covariance);
    }
    const top = Math.max(...logs);
    const weights = logs.map((v) => Math.exp(v - top)), total = weights.reduce((p, q) => p + q, 0);
    return fromCovariances(weights.map((v) => v / total), means, covariances, d, true);
  }

  /** Mirrors GaussianMixture.mean. */
  mean() {
    const { K, d, weights, means } = this;
    return product(weights, means, 1, K, d);
  }

  /** Within components plus between them. Mirrors GaussianMixture.covariance. */
  covariance() {
    const { K, d, weights, means } = this;
    const mean = this.mean(), covariance = new Float64Array(d * d);
    for (let k = 0; k < K; k++) {
      const within = this.componentCovariance(k);
      for (let i = 0; i < d; i++)
        for (let j = 0; j < d; j++)
          covariance[i * d + j] +=
            weights[k] * (within[i * d + j] + (means[k * d + i] - mean[i]) * (means[k * d + j] - mean[j]));
    }
    return covariance;
  }

  /** The root of the mean variance: the data_std of SDE.exact_score. */
  std() {
    const covariance = this.covariance();
    let trace = 0;
    for (let j = 0; j < this.d; j++) trace += covariance[j * this.d + j];
    return Math.sqrt(trace / this.d);
  }
}

function selection(mask) {
  const rows = [];
  mask.forEach((seen, j) => seen && rows.push(mask.map((_, l) => +(l === j))));
  return rows;
}
