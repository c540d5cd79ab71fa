// Puts the words of live figures, explorers and controls into the language of the edition, as they appear and change.
// The dictionary has a field, {1}, for each number in a text, and for what a figure puts into a sentence.
(() => {
  const words = window.scorebookWords ?? {};
  const number = /(?<![A-Za-z_{])[−-]?\d+(?:,\d{3})*(?:\.\d+)?(?: ± \d+(?:\.\d+)?)?(?: × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?/g;
  const fill = (text, values) => text.replace(/\{(\d+)\}/g, (_, i) => values[i - 1]);
  const quoted = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const sentences = Object.keys(words)
    .filter((key) => /\{\d+\}/.test(key) && /[A-Za-z]{2}/.test(key.replace(/\{\d+\}/g, "")))
    .sort((one, other) => other.length - one.length)
    .map((key) => [new RegExp(`^${key.split(/\{\d+\}/).map(quoted).join("(.+?)")}$`), words[key]]);

  const say = (text) => {
    const bare = text.trim().replace(/\s+/g, " ");
    if (!/[A-Za-z]{2}/.test(bare)) return text;
    if (Object.hasOwn(words, bare)) return text.replace(text.trim(), words[bare]);
    const values = [];
    const key = bare.replace(number, (value) => `{${values.push(value)}}`);
    if (Object.hasOwn(words, key)) return fill(words[key], values);
    for (const [sentence, said] of sentences) {
      const found = sentence.exec(bare);
      if (found) return fill(said, found.slice(1).map(say));
    }
    return text;
  };
  window.scorebookSay = say;

  const attributes = ["aria-label", "aria-valuetext", "title", "alt", "placeholder"];
  const places = ".scorebook-live, .scorebook-explorer, .theme-switch-button, .scorebook-all-code, .doors .continue";
  const put = (node) => {
    if (node.nodeType === Node.TEXT_NODE) {
      if (!node.parentElement?.closest(places) || node.parentElement.closest("script, style")) return;
      const said = say(node.data);
      if (said !== node.data) node.data = said;
    } else if (node.nodeType === Node.ELEMENT_NODE) {
      if (node.closest(places)) {
        for (const name of attributes) {
          const value = node.getAttribute(name), said = value && say(value);
          if (said !== value) node.setAttribute(name, said);
        }
      }
      node.childNodes.forEach(put);
      if (node.shadowRoot) watch(node.shadowRoot);
    }
  };
  const watched = new WeakSet();
  const watch = (root) => {
    if (watched.has(root)) return;
    watched.add(root);
    new MutationObserver((changes) => {
      for (const change of changes) {
        if (change.type === "childList") change.addedNodes.forEach(put);
        else if (change.type === "characterData") put(change.target);
        else if (change.target.closest?.(places)) {
          const value = change.target.getAttribute(change.attributeName), said = value && say(value);
          if (said !== value) change.target.setAttribute(change.attributeName, said);
        }
      }
    }).observe(root, { childList: true, characterData: true, attributes: true, attributeFilter: attributes, subtree: true });
    root.childNodes.forEach(put);
  };
  document.addEventListener("DOMContentLoaded", () => watch(document.body));
})();
