// What little linear algebra the engine needs, for small dense matrices: rows one after the other in a Float64Array.

/** A nested array of rows as one flat array; a flat one is copied. */
export function flat(rows) {
  return Float64Array.from(Array.isArray(rows) || ArrayBuffer.isView(rows) ? Array.from(rows).flat(Infinity) : [rows]);
}

/** The product of an (n, m) and an (m, p) matrix. */
export function product(a, b, n, m, p) {
  const c = new Float64Array(n * p);
  for (let i = 0; i < n; i++)
    for (let k = 0; k < m; k++) {
      const aik = a[i * m + k];
      for (let j = 0; j < p; j++) c[i * p + j] += aik * b[k * p + j];
    }
  return c;
}

export function transpose(a, n, m) {
  const t = new Float64Array(n * m);
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) t[j * n + i] = a[i * m + j];
  return t;
}

/** Eigenvalues and orthonormal eigenvectors (in columns) of a symmetric (d, d) matrix, by Jacobi's rotations. */
export function eigen(matrix, d) {
  const a = Float64Array.from(matrix);
  const axes = new Float64Array(d * d);
  for (let i = 0; i < d; i++) axes[i * d + i] = 1;
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0, all = 0;
    for (let i = 0; i < d; i++)
      for (let j = 0; j < d; j++) {
        all += a[i * d + j] ** 2;
        if (i !== j) off += a[i * d + j] ** 2;
      }
    if (off <= 1e-32 * all) break;
    for (let p = 0; p < d - 1; p++)
      for (let q = p + 1; q < d; q++) {
        const apq = a[p * d + q];
        if (apq === 0) continue;
        const theta = (a[q * d + q] - a[p * d + p]) / (2 * apq);
        const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
        const c = 1 / Math.hypot(t, 1), s = t * c;
        for (let k = 0; k < d; k++) rotate(a, k * d + p, k * d + q, c, s);
        for (let k = 0; k < d; k++) rotate(a, p * d + k, q * d + k, c, s);
        for (let k = 0; k < d; k++) rotate(axes, k * d + p, k * d + q, c, s);
      }
  }
  return { values: Float64Array.from({ length: d }, (_, i) => a[i * d + i]), axes };
}

function rotate(a, i, j, c, s) {
  const x = a[i], y = a[j];
  a[i] = c * x - s * y;
  a[j] = s * x + c * y;
}

/** Lower factor L of a symmetric positive definite matrix, L L^T; NaN where it is not. */
export function cholesky(matrix, d) {
  const l = new Float64Array(d * d);
  for (let i = 0; i < d; i++)
    for (let j = 0; j <= i; j++) {
      let sum = matrix[i * d + j];
      for (let k = 0; k < j; k++) sum -= l[i * d + k] * l[j * d + k];
      l[i * d + j] = i === j ? Math.sqrt(sum) : sum / l[j * d + j];
    }
  return l;
}

/** Solve L L^T w = b, into a new array. */
export function solveCholesky(l, b, d) {
  const w = Float64Array.from(b);
  for (let i = 0; i < d; i++) {
    for (let k = 0; k < i; k++) w[i] -= l[i * d + k] * w[k];
    w[i] /= l[i * d + i];
  }
  for (let i = d - 1; i >= 0; i--) {
    for (let k = i + 1; k < d; k++) w[i] -= l[k * d + i] * w[k];
    w[i] /= l[i * d + i];
  }
  return w;
}

/** Whether every number is finite: what no figure may draw otherwise. */
export function finite(x) {
  for (let i = 0; i < x.length; i++) if (!Number.isFinite(x[i])) return false;
  return true;
}
