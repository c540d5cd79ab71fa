// Linear SDEs, dx = f x dt + g dw, p(x_t | x_0) = N(alpha x_0, sigma^2 I). Mirrors scorebook/sde.py, class by class.
// `drift(t)` is the rate f, which SDE.drift multiplies with x.

/** VPSDE: alpha = e^{-B/2}, sigma^2 = 1 - e^{-B}. */
export function vp(betaMin = 0.1, betaMax = 20) {
  const { beta, integral, inverse, ...linear } = linearBeta(betaMin, betaMax);
  return sde({
    ...linear,
    name: "VP",
    sigma: (t) => Math.sqrt(-Math.expm1(-integral(t))),
    diffusion: (t) => Math.sqrt(beta(t)),
    timeOf: (ratio) =>
      inverse(2 * Math.log(Math.max(ratio, 1)) + Math.log1p((Math.min(ratio, 1) / Math.max(ratio, 1)) ** 2)),
  });
}

/** SubVPSDE: alpha = e^{-B/2}, sigma = 1 - e^{-B}. */
export function subvp(betaMin = 0.1, betaMax = 20) {
  const { beta, integral, inverse, ...linear } = linearBeta(betaMin, betaMax);
  return sde({
    ...linear,
    name: "sub-VP",
    sigma: (t) => -Math.expm1(-integral(t)),
    diffusion: (t) => Math.sqrt(-beta(t) * Math.expm1(-2 * integral(t))),
    timeOf: (ratio) => inverse(2 * Math.asinh(0.5 * ratio)),
  });
}

/** VESDE: alpha = 1, sigma = sigmaMin (sigmaMax/sigmaMin)^t, which at t = 0 is sigmaMin. */
export function ve(sigmaMin = 0.01, sigmaMax = 50) {
  if (!(0 < sigmaMin && sigmaMin < sigmaMax)) throw new RangeError(`0 < sigmaMin < sigmaMax, got ${sigmaMin}, ${sigmaMax}`);
  const logRatio = Math.log(sigmaMax / sigmaMin), sigma = (t) => sigmaMin * Math.exp(logRatio * t);
  return sde({
    name: "VE",
    priorStd: sigmaMax,
    alpha: () => 1,
    sigma,
    drift: () => 0,
    diffusion: (t) => sigma(t) * Math.sqrt(2 * logRatio),
    timeOf: (ratio) => Math.log(ratio / sigmaMin) / logRatio,
  });
}

function linearBeta(betaMin, betaMax) {
  if (!(0 < betaMin && betaMin <= betaMax)) throw new RangeError(`0 < betaMin <= betaMax, got ${betaMin}, ${betaMax}`);
  const beta = (t) => betaMin + t * (betaMax - betaMin);
  const integral = (t) => t * (betaMin + 0.5 * t * (betaMax - betaMin));
  return {
    beta,
    integral,
    inverse: (b) => (2 * b) / (betaMin + Math.sqrt(betaMin ** 2 + 2 * (betaMax - betaMin) * b)),
    priorStd: 1,
    alpha: (t) => Math.exp(-0.5 * integral(t)),
    drift: (t) => -0.5 * beta(t),
  };
}

// _SPACINGS: the functions of noise over signal, over the data's scale, in which a grid's times are even.
const SPACINGS = {
  karras: [(r) => r ** (1 / 7), (e) => e ** 7],
  share: [(r) => 1 / (1 + 1 / r), (e) => e / (1 - e)],
  angle: [Math.atan, Math.tan],
  log: [Math.log, Math.exp],
};

function sde(own) {
  const ratio = (t) => own.sigma(t) / own.alpha(t);
  return {
    ...own,
    ratio,
    timeOf: (wanted) => Math.min(1, Math.max(0, own.timeOf(wanted))),

    /** n + 1 times from 1 down to tMin. Mirrors SDE.time_grid. */
    timeGrid(n, { tMin = 1e-3, spacing = "uniform", dataStd = 1 } = {}) {
      const times = new Float64Array(n + 1);
      const [even, back] = SPACINGS[spacing] ?? [];
      for (let k = 1; k < n; k++) {
        if (!even) times[k] = 1 + (k / n) * (tMin - 1);
        else {
          const [high, low] = [1, tMin].map((t) => even(Math.min(ratio(t) / dataStd, 1e16)));
          times[k] = this.timeOf(back(high + (k / n) * (low - high)) * dataStd);
        }
      }
      times[0] = 1;
      times[n] = tMin;
      return times;
    },

    /** alpha x_0 + sigma z. Mirrors SDE.perturb, without the noise beside it. */
    perturb(x0, t, rng, out = new Float64Array(x0.length)) {
      const alpha = own.alpha(t), sigma = own.sigma(t);
      for (let i = 0; i < x0.length; i++) out[i] = alpha * x0[i] + sigma * rng.normal();
      return out;
    },

    /** n draws of N(0, priorStd^2 I). Mirrors SDE.sample_prior. */
    samplePrior(n, d, rng) {
      const x = new Float64Array(n * d);
      for (let i = 0; i < x.length; i++) x[i] = own.priorStd * rng.normal();
      return x;
    },

    /** Mirrors SDE.prior_log_prob. */
    priorLogProb(x, d) {
      const out = new Float64Array(x.length / d);
      for (let i = 0; i < out.length; i++) {
        let squared = 0;
        for (let j = 0; j < d; j++) squared += (x[i * d + j] / own.priorStd) ** 2;
        out[i] = -0.5 * squared - d * (0.5 * Math.log(2 * Math.PI) + Math.log(own.priorStd));
      }
      return out;
    },
  };
}

/**
 * The score of the diffused law of a mixture, score(x, t, out), with its derivative and its divergence. Mirrors
 * SDE.exact_score; `law(t)` is the diffused mixture itself, kept for the time last asked for.
 */
export function exactScore(process, mixture) {
  let last = NaN, kept = null;
  const law = (t) => {
    if (t !== last) [last, kept] = [t, mixture.diffuse(process.alpha(t), process.sigma(t))];
    return kept;
  };
  const score = (x, t, out) => law(t).score(x, out);
  score.derivative = (x, t, v, out) => law(t).scoreDerivative(x, v, out);
  score.divergence = (x, t, out) => law(t).scoreDivergence(x, out);
  return Object.assign(score, { law, d: mixture.d, dataStd: mixture.std() });
}

/** E[x_0 | x_t] = (x_t + sigma^2 s)/alpha. Mirrors SDE.denoise. */
export function denoise(process, score, x, t, out = new Float64Array(x.length)) {
  const s = score(x, t, new Float64Array(x.length)), alpha = process.alpha(t), variance = process.sigma(t) ** 2;
  for (let i = 0; i < x.length; i++) out[i] = (x[i] + variance * s[i]) / alpha;
  return out;
}
