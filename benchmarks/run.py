"""Runs the benchmarks, each in a process of its own, and stores what they measured in ``results.json``.

``make bench`` runs all of them, ``make bench ONLY="quality overhead"`` some; what is not run keeps its results. A
benchmark is a module beside this one with a function ``measure(repetitions)`` that returns a list of flat dicts, one
for each repetition of each case, with the key ``"repetition"``.
"""

import argparse
import contextlib
import importlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import scorebook
from benchmarks import summary

__all__ = ["BENCHMARKS", "main", "store"]

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ("overhead", "quality", "digits", "tutorial", "divergence", "book")
PACKAGES = ("scorebook", "azula", "diffusers", "smalldiffusion", "torchdiffeq", "torch", "numpy", "scipy")
LIMIT = 3 * 3600  # seconds for one benchmark, should one of them hang
WITHOUT_PEERS = ("tutorial", "book")  # which ask none of the projects that `make bench` installs
BUSY = 0.25  # processes per core that wait for it already


def main(arguments=None) -> int:
    """Runs what the command line asks for; returns the exit status, 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description="Run the benchmarks.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"from {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--repetitions", type=int, default=5, help="of each measurement (5)")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # the process of a benchmark leaves them there
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in BENCHMARKS:
            parser.error(f"{name!r} is no benchmark; there are {', '.join(BENCHMARKS)}")
    if options.repetitions < 1:
        parser.error("--repetitions must be positive")
    if options.rows:
        (name,) = options.names
        if name not in WITHOUT_PEERS:
            importlib.import_module("benchmarks.peers")  # so that a benchmark may import them as it pleases
        module, start = importlib.import_module(f"benchmarks.{name}"), time.perf_counter()
        rows = module.measure(options.repetitions)
        # What goes on where it was broken off knows how long that took.
        seconds = module.seconds_in_all() if hasattr(module, "seconds_in_all") else time.perf_counter() - start
        options.rows.write_text(json.dumps({"rows": rows, "seconds": seconds}), encoding="utf-8")
        return 0
    failed = [name for name in options.names or BENCHMARKS if not run(name, options.repetitions)]
    if failed:
        print(f"failed, earlier results kept: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def run(name: str, repetitions: int) -> bool:
    """Measures one benchmark and stores it; whether that went well."""
    about = circumstances() | {"repetitions": repetitions}
    load, cores = about["load_before"], about["cores"]
    if load is not None and load > BUSY * cores:
        print(f"This machine is not idle (load {load:.2f} on {cores} cores): times will mislead.", file=sys.stderr)
    print(f"{name}: {repetitions} repetitions, since {datetime.now():%H:%M:%S} ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.run", name, "--repetitions", str(repetitions), "--rows", path]
        try:
            # PyTorch's profiler announces each start and stop unless it is told not to.
            environment = {"KINETO_LOG_LEVEL": "99"} | os.environ
            done = subprocess.run(command, cwd=ROOT, env=environment, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            print(f"{name} did not end within {LIMIT} s", file=sys.stderr)
            return False
        if done.returncode:
            return False
        found = json.loads(path.read_text(encoding="utf-8"))
    rows, about["seconds"] = [without_infinities(row) for row in found["rows"]], round(found["seconds"], 1)
    store(name, about, rows)
    print(f"{name}: {len(rows)} rows in {about['seconds']:.0f} s", flush=True)
    return True


def without_infinities(row: dict) -> dict:
    """The row without numbers that are not finite; what was left out is told in the column ``not_finite``."""
    bad = [name for name, entry in row.items() if isinstance(entry, float) and not math.isfinite(entry)]
    return {name: entry for name, entry in row.items() if name not in bad} | (
        {"not_finite": ", ".join(bad)} if bad else {}
    )


def circumstances() -> dict:
    """Where, when and on what a benchmark is measured."""
    import torch

    from scorebook.lab import devices

    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "processor": devices.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} on {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _installed(name) for name in PACKAGES},
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def store(name: str, about: dict, rows: list[dict], path: Path = summary.RESULTS) -> None:
    """Puts the results of one benchmark into the file, in the place of its earlier ones; all of it or nothing.

    Raises:
        ValueError: if a row is not a flat dict of texts, numbers and truth values, or a number is not finite.
    """
    for row in rows:
        if not all(isinstance(entry, str | int | float | bool) for entry in row.values()):
            raise ValueError(f"rows must be flat dicts of texts and numbers, got {row!r}")
    results = summary.read(path) | {name: {"about": about, "rows": rows}}
    # One row a line, so that a repetition shows as such in a diff.
    sections = []
    for section in sorted(results):
        lines = ",\n".join(f"   {json.dumps(row, allow_nan=False)}" for row in results[section]["rows"])
        head = json.dumps(results[section]["about"], allow_nan=False)
        sections.append(f' {json.dumps(section)}: {{\n  "about": {head},\n  "rows": [\n{lines}\n  ]\n }}')
    text = "{\n" + ",\n".join(sections) + "\n}\n"
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    try:
        os.chmod(file.name, 0o644)  # a temporary file is its owner's alone
        os.replace(file.name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(file.name)
        raise


def commit() -> str | None:
    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
        ).stdout.strip()

    try:
        # The results themselves may have been written by an earlier part of this run.
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results.json")
        return git("rev-parse", "--short=10", "HEAD") + (", with changes that are not committed" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _installed(package: str) -> str:
    try:
        return scorebook.__version__ if package == "scorebook" else metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
