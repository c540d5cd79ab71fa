"""Seconds to build the book in a fresh clone of the last commit, for each notebook and in all: cold, then once more.

The cold build executes every notebook, a matter of minutes, and is measured once; with nothing changed it is then
repeated as often as asked. Both run in the book's own environment, ``.venv``, and the seconds of a notebook are those
that the build itself has noted.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

__all__ = ["measure"]

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
LIMIT = 3600  # seconds for one build

# Run by the book's Python: this environment has no Jupyter.
TELL = """
import json, pathlib, sys
from jupyter_cache import get_cache
records = [r for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()) for r in get_cache(folder).list_cache_records()]
print(json.dumps({pathlib.Path(r.uri).stem: r.data["execution_seconds"] for r in records}))
"""


def measure(repetitions: int) -> list[dict]:
    """Seconds of one cold build with those of each notebook in it, and of ``repetitions`` builds without a change."""
    if not PYTHON.exists():
        raise RuntimeError(f"{PYTHON} must exist: make book creates it")
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "book"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        if (ROOT / "node_modules").exists():  # they come over the network and are no work of the build's
            shutil.copytree(ROOT / "node_modules", clone / "node_modules", symlinks=True)
        rows = [{"build": "cold", "page": "all", "repetition": 0, "seconds": _build(clone)}]
        told = subprocess.run(
            [PYTHON, "-c", TELL, clone / "_build" / ".jupyter_cache"], check=True, capture_output=True, encoding="utf-8"
        )
        rows += [
            {"build": "cold", "page": page, "repetition": 0, "seconds": seconds}
            for page, seconds in json.loads(told.stdout).items()
        ]
        for repetition in range(repetitions):
            rows.append({"build": "cached", "page": "all", "repetition": repetition, "seconds": _build(clone)})
    return rows


def _build(clone) -> float:
    """Seconds of ``make book``'s command in the clone, whose package the notebooks import."""
    command = [PYTHON.with_name("jupyter-book"), "build", "book", "--config", "_config.yml"]
    command += ["--toc", clone / "_toc.yml", "--path-output", ".", "-W", "-n", "--keep-going"]
    # The measuring process may hold threads down; the book's notebooks choose their own.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["PYTHONPATH"] = str(clone)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, encoding="utf-8", timeout=LIMIT)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"the book does not build:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds
