// Runs before require.js, on pages that have a widget: tells it where the widget manager lies, lends the manager the
// one function of MathJax 2 that it calls, and gives names to the controls of an explorer.
(() => {
  const here = new URL(".", document.currentScript.src).href;
  const dist = "@jupyter-widgets/html-manager/dist";
  // The manager carries these modules inside, and they look for their fonts where their names would lie.
  const paths = { [dist]: dist, anywidget: "anywidget/index" };
  for (const name of ["base", "controls", "output", "html-manager"]) paths[`@jupyter-widgets/${name}`] = `${dist}/${name}`;
  if (document.currentScript.dataset.ownLibraries) window.require = { baseUrl: here, paths };

  document.addEventListener("DOMContentLoaded", () => {
    if (window.MathJax?.typesetPromise) {
      window.MathJax.Hub = {
        Queue: ([, , element]) => window.MathJax.startup.promise.then(() => window.MathJax.typesetPromise([element])),
      };
    }
  });

  const set = (element, name, value) => {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };

  const nameControls = (explorer) => {
    const label = explorer.querySelector(".widget-hslider .widget-label")?.textContent ?? "";
    const [play, stop, repeat] = explorer.querySelectorAll(".widget-play button");
    set(play, "aria-label", play?.querySelector(".fa-pause") ? `Pause: ${label}` : `Play: ${label}`);
    set(stop, "aria-label", `Back to the first frame: ${label}`);
    set(repeat, "aria-label", `Repeat: ${label}`);
    set(repeat, "aria-pressed", String(Boolean(repeat?.classList.contains("mod-active"))));
    for (const button of [play, stop, repeat]) set(button, "title", button?.getAttribute("aria-label").split(":")[0]);
    const handle = explorer.querySelector(".noUi-handle");
    set(handle, "aria-label", label);
    set(handle, "aria-valuetext", explorer.querySelector(".widget-readout")?.textContent ?? "");
  };

  new MutationObserver(() => document.querySelectorAll(".scorebook-explorer").forEach(nameControls)).observe(document, {
    subtree: true,
    childList: true,
    characterData: true,
    attributeFilter: ["class", "aria-valuetext"],
  });
})();
