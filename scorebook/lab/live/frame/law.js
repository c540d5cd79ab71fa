// A law as a figure's state has it, { weights, means, stds }: plain JSON, which Python reads as figure.law.

import { mixture } from "../engine/index.js";

export const lawOf = ({ weights, means, stds }) => mixture(means, stds, weights);
