// The engine: what the book's Python computes, in the page. Nothing here knows of a page, or of a figure.

export * from "./flow.js";
export * from "./guidance.js";
export * from "./linear.js";
export * from "./metrics.js";
export * from "./mixture.js";
export * from "./network.js";
export * from "./random.js";
export * from "./samplers.js";
export * from "./sde.js";
