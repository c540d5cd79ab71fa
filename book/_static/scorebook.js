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

  // Paper is white.
  let shownTheme;
  window.addEventListener("beforeprint", () => {
    shownTheme = theme.dataset.theme;
    theme.dataset.theme = "light";
  });
  window.addEventListener("afterprint", () => {
    if (shownTheme) theme.dataset.theme = shownTheme;
  });

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

  // A table that is wider than its place is set closer, and closer still; on a phone it scrolls under its first column.
  const steps = ["close", "closer"];
  const fit = (box) => {
    const table = box.querySelector("table");
    table.classList.remove(...steps);
    for (const step of innerWidth > 600 ? steps : []) {
      if (box.scrollWidth > box.clientWidth + 1) table.classList.add(step);
    }
  };
  const boxes = [...document.querySelectorAll(".scorebook-table-box")];
  const widths = new Map();
  const watch = new ResizeObserver((entries) => requestAnimationFrame(() => {
    for (const { target } of entries) {
      if (widths.get(target) === target.clientWidth) continue; // what changed is the height, by what was done here
      widths.set(target, target.clientWidth);
      fit(target);
    }
  }));
  boxes.forEach((box) => watch.observe(box));
  window.addEventListener("load", () => boxes.forEach(fit));
  document.fonts.ready.then(() => boxes.forEach(fit));

  // What the search quotes from a page is its text: formulas are left out there, and so is code.
  if (typeof Search === "object" && Search.htmlToText) {
    const textOf = Search.htmlToText;
    Search.htmlToText = (html, anchor) => {
      const page = new DOMParser().parseFromString(html, "text/html");
      page.querySelectorAll(".math").forEach((formula) => formula.replaceWith("…"));
      const asides = ".bd-header-article, .bd-sidebar-secondary, #jb-print-docs-body, details.hide, .at-a-glance, pre";
      page.querySelectorAll(asides).forEach((aside) => aside.remove());
      return textOf(page.documentElement.outerHTML, anchor);
    };
  }

  // A reader who comes back finds the page that was open last.
  const remember = (change) => { try { return change(localStorage); } catch { return null; } };
  const title = document.querySelector(".bd-article h1")?.firstChild?.textContent;
  const doors = document.querySelector(".bd-article .doors");
  if (document.querySelector(".bd-article div.cell")) {
    remember((store) => store.setItem("scorebook-last", JSON.stringify([location.pathname.split("/").pop(), title])));
  } else if (doors) {
    const [page, name] = JSON.parse(remember((store) => store.getItem("scorebook-last")) ?? "[]");
    if (/^\w+\.html$/.test(page ?? "")) {
      const link = doors.appendChild(document.createElement("a"));
      link.className = "continue";
      link.href = page;
      link.textContent = `Go on with ${name}`;
    }
  }

  // A fold stays as the reader left it; the switch moves all of them, on every page.
  const folds = [...document.querySelectorAll(".bd-article details.hide")].filter(
    (fold) => !/the solution|解答/.test(fold.querySelector("summary").textContent),
  );
  if (folds.length) {
    const own = (i) => `scorebook-fold ${location.pathname} ${i}`;
    let shown = remember((store) => store.getItem("scorebook-code")) === "shown";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "scorebook-all-code";
    button.textContent = "Show all code";
    const press = () => {
      button.setAttribute("aria-pressed", String(shown));
      theme.classList.toggle("all-code", shown);
    };
    press();
    folds.forEach((fold, i) => {
      fold.open = (remember((store) => store.getItem(own(i))) ?? (shown ? "open" : "closed")) === "open";
      // It opens after the click.
      fold.querySelector("summary").addEventListener("click", () => {
        remember((store) => store.setItem(own(i), fold.open ? "closed" : "open"));
      });
    });
    button.addEventListener("click", () => {
      shown = !shown;
      press();
      for (const fold of folds) fold.open = shown;
      remember((store) => {
        store.setItem("scorebook-code", shown ? "shown" : "folded");
        Object.keys(store).filter((key) => key.startsWith("scorebook-fold ")).forEach((key) => store.removeItem(key));
      });
    });
    (document.querySelector(".bd-article .at-a-glance") ?? document.querySelector(".bd-article h1"))?.after(button);
  }
});
