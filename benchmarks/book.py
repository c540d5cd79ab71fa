"""Seconds to build the book in a fresh clone of the last commit, for each notebook and in all: cold, then once more.

The cold build executes every notebook, a matter of minutes, and is measured once; with nothing changed it is then
repeated as often as asked. Both run in the book's own environment, ``.venv``, and the seconds of a notebook are those
that the build itself has noted.

Last, some notebooks are executed alone and beside two processes that never rest. What has been measured of one commit
is kept in ``_build/company``, so that a run that was broken off goes on. To measure that alone, with the book's Python:

    .venv/bin/python -m benchmarks.book langevin sde
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.run import commit

__all__ = ["beside_others", "measure", "ratios"]

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
LIMIT = 3600  # seconds for one build
PAGES = ("langevin", "score_matching", "sde", "tour")  # a network trained, many small tensors, a sampler, all of it
COMPANY = {"alone": 0, "beside two": 2}  # processes that never rest

# Run by the book's Python: this environment has no Jupyter.
TELL = """
import json, pathlib, sys
from jupyter_cache import get_cache
records = [r for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()) for r in get_cache(folder).list_cache_records()]
print(json.dumps({pathlib.Path(r.uri).stem: r.data["execution_seconds"] for r in records}))
"""

EXECUTE = """
import json, sys
sys.path.insert(0, "tools")
import nbformat, stopwatch
notebook = nbformat.read(f"book/{sys.argv[1]}.ipynb", 4)
result = stopwatch.execute(notebook, cwd="book", timeout=3600, allow_errors=False)
if result.err:
    sys.exit(result.exc_string)
cost = stopwatch.cost_of(notebook, None)
print(json.dumps({"seconds": cost.seconds, "processor_seconds": cost.processor_seconds}))
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
    rows += beside_others(PAGES)
    print(ratios(rows), flush=True)
    return rows


def beside_others(pages, python=PYTHON, root=ROOT) -> list[dict]:
    """Seconds of notebooks, on the clock and on a processor, alone and beside two processes that never rest."""
    state = commit() or "unknown"
    kept = root / "_build" / "company" / f"{state[:10]}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    named = state.isalnum() and state != "unknown"  # nothing is known of what was changed since the commit
    rows = json.loads(kept.read_text(encoding="utf-8")) if named and kept.exists() else []
    done = {(row["page"], row["build"]) for row in rows}
    for page in pages:
        for name, n_others in COMPANY.items():
            if (page, name) in done:
                continue
            with busy(n_others):
                cost = _execute(page, python, root)
            rows.append({"build": name, "page": page, "repetition": 0} | cost)
            kept.write_text(json.dumps(rows), encoding="utf-8")
    return [row for row in rows if row["page"] in pages]


def ratios(rows) -> str:
    """A line for each notebook: its seconds alone, beside two processes, and how many times as many."""
    costs = {(row["page"], row["build"]): row for row in rows if row["build"] in COMPANY}
    lines = [f"{'':24}{'on the clock':>24}{'on a processor':>24}"]
    for page in sorted({page for page, _ in costs}):
        line = f"{page:24}"
        for unit in ("seconds", "processor_seconds"):
            alone, beside = (costs[page, name][unit] for name in COMPANY)
            line += f"{alone:8.1f}{beside:8.1f}{beside / alone:7.2f}×"
        lines.append(line)
    return "\n".join(lines)


# It ends with the one that started it, however that ends.
NEVER_REST = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"


@contextlib.contextmanager
def busy(n: int):
    """Beside ``n`` processes that never rest."""
    others = [subprocess.Popen([sys.executable, "-c", NEVER_REST, str(os.getpid())]) for _ in range(n)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _execute(page, python, root) -> dict:
    environment = _environment(root) | {"SCOREBOOK_DEVICE": "cpu"}
    command = [python, "-c", EXECUTE, page]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, encoding="utf-8", timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(f"{page} does not run:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _environment(root) -> dict:
    """The measuring process may hold threads down; the book's notebooks choose their own."""
    return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | {"PYTHONPATH": str(root)}


def _build(clone) -> float:
    """Seconds of ``make book``'s command in the clone, whose package the notebooks import."""
    command = [PYTHON, PYTHON.with_name("jupyter-book"), "build", "book", "--config", "_config.yml"]
    command += ["--toc", clone / "_toc.yml", "--path-output", ".", "-W", "-n", "--keep-going"]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=clone, env=_environment(clone), capture_output=True, encoding="utf-8", timeout=LIMIT
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"the book does not build:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return seconds


if __name__ == "__main__":
    print(ratios(beside_others(sys.argv[1:] or PAGES, python=sys.executable)))
