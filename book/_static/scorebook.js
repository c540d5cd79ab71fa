// What the theme leaves undone for readers who use a keyboard or do not see the page.
document.addEventListener("DOMContentLoaded", () => {
  // A name that hides the words on the button cannot be spoken to a voice control.
  for (const named of document.querySelectorAll("button.search-button-field[aria-label], summary[aria-label]")) {
    named.removeAttribute("aria-label");
  }

  const theme = document.documentElement;
  const nameModes = () => {
    const mode = { light: "Light", dark: "Dark", auto: "System Settings" }[theme.dataset.mode] ?? "";
    for (const button of document.querySelectorAll(".theme-switch-button")) {
      button.setAttribute("aria-label", `Color mode: ${mode}`);
    }
  };
  nameModes();
  new MutationObserver(nameModes).observe(theme, { attributeFilter: ["data-mode"] });

  // What scrolls sideways must be reachable by keyboard.
  const scrolls = [".scorebook-table-box", ".pst-scrollable-table-container", "div.math", "div.output", "pre"].join();
  const reach = () => {
    for (const box of document.querySelectorAll(scrolls)) {
      const overflows = box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible";
      if (overflows && box.tabIndex < 0) box.tabIndex = 0;
    }
  };
  window.addEventListener("load", reach);
  new ResizeObserver(reach).observe(document.body);
});
