// The probability flow, dx/dt = f - g^2 s / 2, solved in few evaluations. Mirrors scorebook/probability_flow.py: the
// Runge-Kutta methods of _FIXED in time, and its default, the method of Adams, Bashforth and Moulton in the angle between
// signal and noise.
//
// A solver is a generator. It yields { t, x, stretching } at each time of the grid, the start included: positions, and
// by how much space has been stretched, the logarithm of a volume, where the divergence is asked for.

// _FIXED: shares of the step and weights of the rates so far, then the weights of all rates in the step.
export const TABLEAUS = {
  euler: [[], [1]],
  midpoint: [[[1 / 2, [1 / 2]]], [0, 1]],
  heun2: [[[1, [1]]], [1 / 2, 1 / 2]],
  heun3: [[[1 / 3, [1 / 3]], [2 / 3, [0, 2 / 3]]], [1 / 4, 0, 3 / 4]],
  rk4: [[[1 / 3, [1 / 3]], [2 / 3, [-1 / 3, 1]], [1, [1, -1, 1]]], [1 / 8, 3 / 8, 3 / 8, 1 / 8]],
};
// _FEW_STEPS
const FEW = 8;

/** probability_flow.velocity: f x - g^2 s(x, t) / 2. */
export function velocity(process, score, x, t, out = new Float64Array(x.length)) {
  const rate = process.drift(t), half = 0.5 * process.diffusion(t) ** 2;
  score(x, t, out);
  for (let i = 0; i < x.length; i++) out[i] = rate * x[i] - half * out[i];
  return out;
}

/**
 * The flow from times[0] to the last of the times, either way.
 *
 * @param {object} process the SDE.
 * @param {function} score score(x, t, out), with .divergence(x, t) where `stretching` is asked for.
 * @param {Float64Array} x where to begin; it is not changed.
 * @param {object} options d; method ("adams", or a name of TABLEAUS); times; dataStd for adams; stretching (boolean).
 */
export function* follow(process, score, x, { d, method = "adams", times, dataStd = score.dataStd ?? 1, stretching = false }) {
  if (method !== "adams" && !(method in TABLEAUS)) throw new RangeError(`method must be adams or one of
    ${Object.keys(TABLEAUS)}, got ${method}`);
  const n = x.length / d, width = x.length;
  // The rows of Python's _Rows as two blocks of one array: all positions, then all stretchings.
  const start = new Float64Array(stretching ? width + n : width);
  start.set(x);
  const rate = (of, t) => {
    const out = new Float64Array(start.length);
    const value = out.subarray(0, width), change = out.subarray(width);
    of(value, change, t);
    return out;
  };
  if (method === "adams") {
    const signal = (t) => process.alpha(t) * dataStd;
    const tangents = Array.from(times, (t) => process.sigma(t) / signal(t));
    const scales = Array.from(times, (t) => Math.hypot(signal(t), process.sigma(t)));
    const slope = (k, u) =>
      rate((value, change) => {
        const c = scales[k], points = u.subarray(0, width).map((v) => c * v);
        score(points, times[k], value);
        for (let i = 0; i < width; i++) value[i] = -tangents[k] * (u[i] + c * value[i]);
        if (!stretching) return;
        const divergence = score.divergence(points, times[k]);
        for (let i = 0; i < n; i++) change[i] = -tangents[k] * (d + c * c * divergence[i]);
      });
    for (let i = 0; i < width; i++) start[i] /= scales[0];
    let k = 0;
    for (const u of adams(slope, start, tangents.map(Math.atan))) {
      const c = scales[k];
      yield {
        t: times[k],
        x: u.slice(0, width).map((v) => c * v),
        stretching: u.slice(width).map((v) => v + d * Math.log(c / scales[0])),
      };
      k++;
    }
  } else {
    const slope = (t, state) =>
      rate((value, change) => {
        const points = state.subarray(0, width);
        velocity(process, score, points, t, value);
        if (!stretching) return;
        const divergence = score.divergence(points, t), half = 0.5 * process.diffusion(t) ** 2;
        for (let i = 0; i < n; i++) change[i] = d * process.drift(t) - half * divergence[i];
      });
    let k = 0;
    for (const state of rungeKutta(slope, start, times, ...TABLEAUS[method]))
      yield { t: times[k++], x: state.slice(0, width), stretching: state.slice(width) };
  }
}

/** Mirrors probability_flow._adams: predict by the parabola through the last three rates, correct on arrival. */
function* adams(rate, state, nodes) {
  const n = nodes.length - 1, fewest = n <= FEW ? 1 : 2;
  let rates = [], previous = state;
  for (let k = 0; k < n; k++) {
    rates = [...rates.slice(-2), rate(k, state)];
    const known = nodes.slice(k + 1 - rates.length, k + 1);
    if (k > 0) state = integrate(previous, rates, known, nodes[k - 1], nodes[k]);
    yield state;
    const used = Math.min(Math.max(n - k, fewest), 3);
    [previous, state] = [state, integrate(state, rates.slice(-used), known.slice(-used), nodes[k], nodes[k + 1])];
  }
  yield state;
}

/** Mirrors _integrate: the step from start to end of the polynomial that has these rates at these nodes. */
function integrate(state, rates, nodes, start, end) {
  const step = end - start;
  if (step === 0) return state;
  const weights = polynomialWeights(nodes.map((node) => (node - start) / step)), moved = Float64Array.from(state);
  rates.forEach((rate, i) => {
    const weight = step * weights[i];
    for (let j = 0; j < moved.length; j++) moved[j] += weight * rate[j];
  });
  return moved;
}

/** The integrals from 0 to 1 of the polynomials of Lagrange at one, two or three nodes. */
function polynomialWeights(nodes) {
  return nodes.map((own, i) => {
    const others = nodes.filter((_, j) => j !== i);
    const scale = others.reduce((product, other) => product * (own - other), 1);
    const sum = others.reduce((a, b) => a + b, 0);
    const integral = [1, 1 / 2 - sum, 1 / 3 - sum / 2 + (others[0] ?? 0) * (others[1] ?? 0)][others.length];
    return integral / scale;
  });
}

/** Mirrors probability_flow._runge_kutta. */
function* rungeKutta(slope, state, times, stages, weights) {
  const moved = (from, step, row, rates) => {
    const to = Float64Array.from(from);
    row.forEach((weight, i) => {
      if (weight) for (let j = 0; j < to.length; j++) to[j] += weight * step * rates[i][j];
    });
    return to;
  };
  yield state;
  for (let k = 0; k + 1 < times.length; k++) {
    const begin = times[k], end = times[k + 1], step = end - begin, rates = [slope(begin, state)];
    for (const [share, row] of stages)
      rates.push(slope(share === 1 ? end : begin + share * step, moved(state, step, row, rates)));
    state = moved(state, step, weights, rates);
    yield state;
  }
}

/** Times of a solve from noise to data. Mirrors probability_flow._times: even in the share of noise for adams. */
export function times(process, n, { method = "adams", tMin = 1e-3, dataStd = 1 } = {}) {
  return process.timeGrid(n, { tMin, spacing: method === "adams" ? "share" : "uniform", dataStd });
}

function solve(process, score, x, options, forwards) {
  const { method = "adams", tMin = 1e-3, nSteps, dataStd = score.dataStd ?? 1 } = options;
  const grid = options.times ?? times(process, nSteps, { method, tMin, dataStd });
  let last;
  for (last of follow(process, score, x, { ...options, method, dataStd, times: forwards ? grid.slice().reverse() : grid }));
  return last;
}

/** probability_flow.sample: codes at t = 1 to data at tMin. Options: d, nSteps or times, method, tMin, dataStd. */
export function decode(process, score, x, options) {
  return solve(process, score, x, options, false).x;
}

/** probability_flow.encode. */
export function encode(process, score, x, options) {
  return solve(process, score, x, options, true).x;
}

/** probability_flow.log_prob, by the exact divergence: log p_1(x(1)) and the stretching on the way there. */
export function logProb(process, score, x, options) {
  const end = solve(process, score, x, { ...options, stretching: true }, true);
  const prior = options.prior ? options.prior(end.x) : process.priorLogProb(end.x, options.d);
  return prior.map((p, i) => p + end.stretching[i]);
}
