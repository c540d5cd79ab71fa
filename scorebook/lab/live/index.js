// The one bundle of engine, frame and figures: a classic script that leaves one name behind, so that it works from a file
// and in a module alike. Built by `make live`.

import * as engine from "./engine/index.js";
import { figures } from "./figures/index.js";
import { mount, render } from "./frame/widget.js";

globalThis.scorebookLive ??= { engine, figures, mount, render };
