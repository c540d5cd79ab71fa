// How far samples are from where they should be. Mirrors scorebook/lab/metrics.py.

/** mode_weights: the share of the points that is nearest to each of the K means. */
export function modeWeights(x, means, d) {
  const n = x.length / d, K = means.length / d, shares = new Float64Array(K);
  for (let i = 0; i < n; i++) {
    let nearest = 0, least = Infinity;
    for (let k = 0; k < K; k++) {
      let squared = 0;
      for (let j = 0; j < d; j++) squared += (x[i * d + j] - means[k * d + j]) ** 2;
      if (squared < least) [least, nearest] = [squared, k];
    }
    shares[nearest] += 1 / n;
  }
  return shares;
}

/** energy_distance, without bias: 2 E|X - Y| - E|X - X'| - E|Y - Y'|. */
export function energyDistance(x, y, d) {
  const n = x.length / d, m = y.length / d;
  const within = (2 * distances(x, x, d, true)) / (n * (n - 1)) + (2 * distances(y, y, d, true)) / (m * (m - 1));
  return (2 * distances(x, y, d, false)) / (n * m) - within;
}

function distances(x, y, d, pairs) {
  let sum = 0;
  for (let i = 0; i < x.length; i += d)
    for (let j = pairs ? i + d : 0; j < y.length; j += d) {
      let squared = 0;
      for (let l = 0; l < d; l++) squared += (x[i + l] - y[j + l]) ** 2;
      sum += Math.sqrt(squared);
    }
  return sum;
}

/** Mean and covariance of the points: d and d x d numbers. */
export function moments(x, d) {
  const n = x.length / d, mean = new Float64Array(d), covariance = new Float64Array(d * d);
  for (let i = 0; i < x.length; i++) mean[i % d] += x[i] / n;
  for (let i = 0; i < n; i++)
    for (let j = 0; j < d; j++)
      for (let l = 0; l < d; l++) covariance[j * d + l] += ((x[i * d + j] - mean[j]) * (x[i * d + l] - mean[l])) / (n - 1);
  return { mean, covariance };
}
