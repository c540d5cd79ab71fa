// All figures by name. A new one is a file beside this and a line here.

import controllable_generation from "./controllable_generation.js";
import digits from "./digits.js";
import home from "./home.js";
import langevin from "./langevin.js";
import monte_carlo from "./monte_carlo.js";
import noise_scales from "./noise_scales.js";
import probability_flow from "./probability_flow.js";
import score_matching from "./score_matching.js";
import sde from "./sde.js";
import sliced from "./sliced.js";

const kinds = [
  home, score_matching, monte_carlo, sliced, langevin, noise_scales, sde, probability_flow, controllable_generation, digits,
];
export const figures = Object.fromEntries(kinds.map((kind) => [kind.name, kind]));
