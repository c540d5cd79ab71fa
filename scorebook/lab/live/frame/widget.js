// Where a figure stands: in a notebook's output, with Python behind it or without, or in a page by itself.

import { figures } from "../figures/index.js";
import { Figure } from "./figure.js";
import style from "./style.css";

function dress() {
  if (document.getElementById("scorebook-live-style")) return;
  const sheet = document.createElement("style");
  sheet.id = "scorebook-live-style";
  sheet.textContent = style;
  document.head.append(sheet);
}

/** Makes an element the figure of that name. A link to a state that no figure can have leads to the first one. */
export function mount(root, name, options = {}) {
  dress();
  const kind = figures[name];
  if (!kind) throw new RangeError(`no figure is named ${name}`);
  try {
    return new Figure(root, kind, options);
  } catch (error) {
    if (!options.linked || !location.hash) throw error;
    history.replaceState(history.state, "", location.pathname + location.search);
    return new Figure(root, kind, options);
  }
}

/** What anywidget calls. The state is Python's: it comes with the model, and goes back when the reader lets go. */
export function render({ model, el }) {
  const root = document.createElement("div");
  el.append(root);
  const bytes = model.get("weights");
  const live = Boolean(model.widget_manager?.kernel ?? model.comm_live);
  let own = false;
  const changed = (figure) => {
    own = true;
    model.set("state", structuredClone(figure.state));
    const crowd = figure.acts.crowd?.();
    if (crowd) model.set("crowd", new DataView(Float64Array.from(crowd).buffer));
    model.save_changes();
    own = false;
  };
  const figure = mount(root, model.get("figure"), {
    state: model.get("state"),
    weights: bytes?.byteLength ? bytes : null,
    changed,
    linked: !live && location.protocol !== "vscode-webview:",
  });
  const told = () => own || figure.restore({ ...figure.first, ...model.get("state") });
  model.on("change:state", told);
  return () => {
    model.off("change:state", told);
    figure.remove();
  };
}

/** Brings to life the elements that a page holds for figures: <div data-live="NAME">. */
function enliven() {
  for (const root of document.querySelectorAll("[data-live]:not(.scorebook-live)")) mount(root, root.dataset.live, { linked: true });
}
if (typeof document !== "undefined") {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", enliven);
  else enliven();
}
