// All figures by name. A new one is a file beside this and a line here.

import home from "./home.js";
import langevin from "./langevin.js";
import monte_carlo from "./monte_carlo.js";
import score_matching from "./score_matching.js";
import sliced from "./sliced.js";

export const figures = Object.fromEntries([home, score_matching, monte_carlo, sliced, langevin].map((kind) => [kind.name, kind]));
