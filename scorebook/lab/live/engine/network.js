// The shipped network of digits in the page. Mirrors TimeMLP in scorebook/lab/networks.py, ScoreModel in scorebook/sde.py
// and the format of scorebook/lab/weights/*.safetensors, half precision, which is read as it is.

const OCTAVES = [-3, -2, -1, 0, 1, 2, 3, 4];
const EPSILON = 1e-5; // of nn.LayerNorm

/** The tensors of a file of safetensors by name: single precision, rows one after the other. */
export function safetensors(buffer) {
  const view = ArrayBuffer.isView(buffer) ? new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength) : new DataView(buffer);
  const header = Number(view.getBigUint64(0, true)), tensors = {};
  const text = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + 8, header));
  for (const [name, { dtype, shape, data_offsets: ends }] of Object.entries(JSON.parse(text))) {
    if (name === "__metadata__") continue;
    const size = { F16: 2, F32: 4 }[dtype], n = (ends[1] - ends[0]) / size, values = new Float32Array(n);
    if (!size) throw new RangeError(`${name} must be stored as F16 or F32, got ${dtype}`);
    const begin = 8 + header + ends[0];
    for (let i = 0; i < n; i++)
      values[i] = size === 2 ? half(view.getUint16(begin + 2 * i, true)) : view.getFloat32(begin + 4 * i, true);
    tensors[name] = { shape, values };
  }
  return tensors;
}

function half(bits) {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : (fraction / 1024) * 2 ** -14);
}

/**
 * TimeMLP from its tensors: network(x, t, labels) for n rows x (Float32Array), one t for all, and one label a row (-1 or
 * null: none). What it returns has the product with the transposed derivative in x too: .back(v).
 */
export function timeMLP(tensors) {
  const layer = (name) => ({ w: tensors[`${name}.weight`], b: tensors[`${name}.bias`]?.values });
  const first = layer("trunk.first"), last = layer("trunk.last"), norm = layer("trunk.norm");
  const embed = [layer("trunk.embed.from_time.0"), layer("trunk.embed.from_time.2")];
  const classes = tensors["trunk.embed.from_label.weight"];
  const blocks = [];
  while (`trunk.blocks.${blocks.length}.inner.weight` in tensors) {
    const name = `trunk.blocks.${blocks.length}`;
    blocks.push({ norm: layer(`${name}.norm`), inner: layer(`${name}.inner`), time: layer(`${name}.time`), outer: layer(`${name}.outer`) });
  }
  const dim = first.w.shape[1], width = first.w.shape[0], none = classes ? classes.shape[0] - 1 : 0;

  /** _Embedding: of one time and one label. */
  function embedding(t, label) {
    if (classes && !(label >= 0 && label < none)) label = none;
    const angles = OCTAVES.map((k) => t * 2 ** k);
    const waves = Float32Array.from([...angles.map(Math.sin), ...angles.map(Math.cos)]);
    const e = linear(silu(linear(waves, embed[0], 1)), embed[1], 1);
    if (classes) for (let j = 0; j < e.length; j++) e[j] += classes.values[label * e.length + j];
    return silu(e);
  }

  return function network(x, t, labels = null) {
    const n = x.length / dim, kept = [], seen = new Map();
    const rows = Array.from({ length: n }, (_, i) => labels?.[i] ?? -1);
    for (const label of rows) {
      if (!seen.has(label)) {
        const e = embedding(t, label);
        seen.set(label, blocks.map((block) => linear(e, block.time, 1)));
      }
    }
    let h = linear(x, first, n);
    blocks.forEach((block, b) => {
      const normed = layerNorm(h, block.norm, n, width);
      const inner = linear(normed.out, block.inner, n);
      rows.forEach((label, i) => {
        const time = seen.get(label)[b];
        for (let j = 0; j < width; j++) inner[i * width + j] += time[j];
      });
      kept.push({ normed, inner });
      const outer = linear(silu(inner), block.outer, n);
      h = h.map((v, i) => v + outer[i]);
    });
    const normed = layerNorm(h, norm, n, width), out = linear(normed.out, last, n);
    return {
      out,
      back(v) {
        let g = layerNormBack(linearBack(v, last, n), normed, norm, n, width);
        for (let b = blocks.length - 1; b >= 0; b--) {
          const block = blocks[b], { normed, inner } = kept[b];
          const through = siluBack(linearBack(g, block.outer, n), inner);
          const change = layerNormBack(linearBack(through, block.inner, n), normed, block.norm, n, width);
          g = g.map((value, i) => value + change[i]);
        }
        return linearBack(g, first, n);
      },
    };
  };
}

/** x W^T + b for n rows. Four rows at a time: a weight once read serves them all. */
export function linear(x, { w, b }, n) {
  const [units, dim] = w.shape, values = w.values, out = new Float32Array(n * units);
  const spare = (n + 3) & ~3, rows = spare === n ? x : new Float32Array(spare * dim);
  if (rows !== x) rows.set(x);
  for (let i = 0; i < n; i += 4) {
    const x0 = i * dim, x1 = x0 + dim, x2 = x1 + dim, x3 = x2 + dim;
    for (let u = 0; u < units; u++) {
      const at = u * dim, bias = b ? b[u] : 0;
      let s0 = bias, s1 = bias, s2 = bias, s3 = bias;
      for (let j = 0; j < dim; j++) {
        const weight = values[at + j];
        s0 += weight * rows[x0 + j];
        s1 += weight * rows[x1 + j];
        s2 += weight * rows[x2 + j];
        s3 += weight * rows[x3 + j];
      }
      out[i * units + u] = s0;
      if (i + 1 < n) out[(i + 1) * units + u] = s1;
      if (i + 2 < n) out[(i + 2) * units + u] = s2;
      if (i + 3 < n) out[(i + 3) * units + u] = s3;
    }
  }
  return out;
}

/** v W for n rows: the transposed product of the linear layer. */
function linearBack(v, { w }, n) {
  const [units, dim] = w.shape;
  w.transposed ??= { shape: [dim, units], values: transposed(w.values, units, dim) };
  return linear(v, { w: w.transposed }, n);
}

function transposed(values, n, m) {
  const out = new Float32Array(n * m);
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) out[j * n + i] = values[i * m + j];
  return out;
}

function silu(x) {
  return x.map((v) => v / (1 + Math.exp(-v)));
}

function siluBack(g, x) {
  return g.map((v, i) => {
    const share = 1 / (1 + Math.exp(-x[i]));
    return v * share * (1 + x[i] * (1 - share));
  });
}

/** nn.LayerNorm over each of n rows; the standardised rows and their deviations are kept for the way back. */
function layerNorm(x, { w, b }, n, width) {
  const out = new Float32Array(x.length), standard = new Float64Array(x.length), deviations = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    let mean = 0, squares = 0;
    for (let j = 0; j < width; j++) mean += x[i * width + j] / width;
    for (let j = 0; j < width; j++) squares += (x[i * width + j] - mean) ** 2 / width;
    const deviation = (deviations[i] = Math.sqrt(squares + EPSILON));
    for (let j = 0; j < width; j++) {
      const z = (standard[i * width + j] = (x[i * width + j] - mean) / deviation);
      out[i * width + j] = z * w.values[j] + b[j];
    }
  }
  return { out, standard, deviations };
}

function layerNormBack(g, { standard, deviations }, { w }, n, width) {
  const out = new Float32Array(g.length);
  for (let i = 0; i < n; i++) {
    let mean = 0, along = 0;
    for (let j = 0; j < width; j++) {
      const scaled = g[i * width + j] * w.values[j];
      mean += scaled / width;
      along += (scaled * standard[i * width + j]) / width;
    }
    for (let j = 0; j < width; j++) {
      const at = i * width + j;
      out[at] = (g[at] * w.values[j] - mean - standard[at] * along) / deviations[i];
    }
  }
  return out;
}

/**
 * ScoreModel: the network as a score of all noise levels, score(x, t, out), closed over one label a row, as
 * controllable_generation.given does. Its derivative is the transposed product.
 *
 * s = -x/total^2 + (alpha s_data/(sigma total)) F(x/total, log(sigma/alpha)/4), total^2 = sigma^2 + alpha^2 s_data^2.
 */
export function scoreModel(network, process, dataStd, { labels = null, d = 64 } = {}) {
  const evaluate = (x, t) => {
    const alpha = process.alpha(t), sigma = process.sigma(t), total = Math.hypot(sigma, alpha * dataStd);
    const inside = Float32Array.from(x, (v) => v / total);
    const made = network(inside, 0.25 * Math.log(sigma / alpha), labels);
    return { total, factor: (alpha * dataStd) / (sigma * total), ...made };
  };
  // The score, into s, and the product of its transposed derivative: one evaluation for both.
  const linearised = (x, t, s) => {
    const { total, factor, out: output, back } = evaluate(x, t);
    for (let i = 0; i < x.length; i++) s[i] = factor * output[i] - x[i] / total ** 2;
    return (v, out) => {
      const pulled = back(Float32Array.from(v));
      for (let i = 0; i < x.length; i++) out[i] = (factor * pulled[i]) / total - v[i] / total ** 2;
      return out;
    };
  };
  const score = (x, t, out) => {
    linearised(x, t, out);
    return out;
  };
  score.linearised = linearised;
  score.derivative = (x, t, v, out) => linearised(x, t, new Float64Array(x.length))(v, out);
  return Object.assign(score, { d, dataStd });
}
