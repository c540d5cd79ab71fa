"""Tries the make targets where a clone is seldom tried: ``make places``.

Three real clones of the last commit, each with an environment of its own: one of a user who has set up Python, IPython,
Jupyter and Matplotlib, in a folder with spaces and umlauts, among what editors leave; a copy of it; and an archive
without git, of another user who has no home. Each is linted, runs the tests that hang on the place and one chapter, and
builds the book, whose other chapters are not executed. It takes ten minutes on an idle machine.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["main"]

ROOT = Path(__file__).resolve().parent.parent
CHAPTER = "beyond"
TESTS = "architecture audit notebooks_contract package repository"
SETTINGS = {
    ".config/matplotlib/matplotlibrc": "lines.linewidth: 7\nbackend: agg\n",
    ".ipython/profile_default/startup/00-mine.py": "print('hello')\n",
    ".pythonrc.py": "print('hello')\n",
    "site/sitecustomize.py": "import sys; print('hello', file=sys.stderr)\n",
    "site/scorebook/__init__.py": "raise ImportError('the scorebook of another project')\n",
}
LITTER = (".DS_Store", "._langevin.py", "langevin.py~", "Untitled.ipynb", ".ipynb_checkpoints/x-checkpoint.ipynb")


def shell(command, folder, **options):
    """Runs a command of the shell and ends this program where it fails."""
    done = subprocess.run(command, shell=True, cwd=folder, **options)
    if done.returncode:
        sys.exit(f"{command}\nfailed in {folder} with {done.returncode}")


def shorten(clone):
    """Leaves the execution of all chapters but one out of a clone's book."""
    config, others = clone / "_config.yml", sorted((clone / "book").glob("*.ipynb"))
    skipped = ", ".join(path.name for path in others if path.stem != CHAPTER)
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("execute:\n", f"execute:\n  exclude_patterns: [{skipped}]\n"), encoding="utf-8")


def attempt(name, clone, **options):
    """Lints, tests and builds a clone, and says that it did."""
    began = time.perf_counter()
    tests = [f"tests/test_{name}.py" for name in TESTS.split()] + [f"book/{CHAPTER}.ipynb[cpu]"]
    shell("make lint", clone, **options)
    shell(f"make -j4 test book TESTS='-q {' '.join(tests)}'", clone, **options)
    package = subprocess.run(
        [clone / ".venv" / "bin" / "python", "-c", "import scorebook; print(scorebook.__file__)"],
        cwd=clone.parent,
        capture_output=True,
        encoding="utf-8",
    )
    if not Path(package.stdout.strip()).is_relative_to(clone) or not (clone / "_build/html/index.html").exists():
        sys.exit(f"{name}: the package is {package.stdout.strip() or package.stderr}, and the book is not there")
    print(f"{name}: passed in {time.perf_counter() - began:.0f} s", flush=True)


def with_settings(folder):
    """A clone of a user who has set up much."""
    home, clone = folder / "höme", folder / "mit Läerzeichen und 'so'" / "scorebook"
    for name, text in SETTINGS.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    clone.parent.mkdir()
    shell(f"git -c core.autocrlf=true clone --quiet '{ROOT}' scorebook", clone.parent)
    shorten(clone)
    for place in ("scorebook", "scorebook/lab/weights", "book", "tests", "coursework"):
        for name in LITTER:
            (clone / place / name).parent.mkdir(exist_ok=True)
            (clone / place / name).write_text("{", encoding="utf-8")
    temporary = folder / "temporary files"
    temporary.mkdir()
    environment = os.environ | {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(home / "site"),
        "PYTHONSTARTUP": str(home / ".pythonrc.py"),
        "PYTHONUTF8": "0",
        "PYTHONOPTIMIZE": "1",
        "PYTHONIOENCODING": "latin-1",
        "MPLBACKEND": "Agg",
        "PYTEST_ADDOPTS": "-k nothing",
        "PIP_TARGET": str(home / "target"),
        "LC_ALL": "C",
        "LC_NUMERIC": "de_DE.UTF-8",
    }
    environment.setdefault("PIP_CACHE_DIR", str(Path("~/.cache/pip").expanduser()))
    attempt("with settings, spaces and litter", clone, env=environment, umask=0o077)
    return clone


def as_a_copy(folder, original):
    """A copy of that clone, environment included."""
    copy = folder / "copy"
    shutil.copytree(original, copy, symlinks=True)
    attempt("a copy", copy)


def from_an_archive(folder):
    """The files alone, of another user where this one is root."""
    clone = folder / "archive"
    clone.mkdir()
    shell(f"git archive HEAD | tar --extract --directory '{clone}'", ROOT)
    shorten(clone)
    environment = {name: value for name, value in os.environ.items() if name != "HOME"}
    other = {}
    if os.geteuid() == 0:
        folder.chmod(0o755)
        for path in [clone, *clone.rglob("*")]:
            os.chown(path, 65534, 65534)
        other = {"user": 65534, "group": 65534, "extra_groups": []}
    attempt("an archive of another user without a home", clone, env=environment, **other)


def main():
    """Tries all places in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="places-") as name:
        folder = Path(name).resolve()
        original = with_settings(folder)
        as_a_copy(folder, original)
        shutil.rmtree(original.parent)
        from_an_archive(folder)


if __name__ == "__main__":
    main()
