// Small help with the elements of a figure.

/** An element with attributes, properties given as functions are listeners, and children. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Sets an attribute where it is not so already. */
export function set(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Sets the text where it is not so already. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** A number as one reads it: three digits, a true minus; what is no number says so. */
export function number(value, digits = 3) {
  if (value === null || value === undefined) return "—";
  if (!Number.isFinite(value)) return "not a number";
  const size = Math.abs(value);
  if (value !== 0 && (size >= 1e5 || size < 1e-3)) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return `${mantissa} × 10${raised(+exponent)}`.replaceAll("-", "−");
  }
  const after = size === 0 ? digits - 1 : clamp(digits - 1 - Math.floor(Math.log10(size)), 0, digits);
  return value.toFixed(after).replace("-", "−");
}

const raised = (power) => String(power).replace(/./g, (letter) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[letter] ?? "⁻");

/** A measured number with its error, to the error's second digit. */
export function measured(value, error) {
  if (!Number.isFinite(value)) return value === null || value === undefined ? "—" : "not a number";
  if (!(error > 0) || !Number.isFinite(error)) return number(value);
  if (error < 1e-4) {
    const power = Math.floor(Math.log10(Math.max(Math.abs(value), error))), after = clamp(power - Math.floor(Math.log10(error)) + 1, 1, 5);
    return `(${(value / 10 ** power).toFixed(after)} ± ${(error / 10 ** power).toFixed(after)}) × 10${raised(power)}`.replace("-", "−");
  }
  const after = clamp(1 - Math.floor(Math.log10(error)), 0, 6);
  return `${value.toFixed(after)} ± ${error.toFixed(after)}`.replace("-", "−");
}
