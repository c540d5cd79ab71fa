"""The leaderboard of the open project: samplers with few evaluations of the score, on laws that nobody has seen.

Usage: ``make leaderboard FOLDER=entries`` reads every ``*.py`` and ``*.ipynb`` of a folder, runs each in a process of
its own, and writes ``leaderboard.md`` and ``leaderboard.json`` beside it or where ``--to`` says. An entry defines
``sample(score, sde, x, n_evaluations, *, data_std)``, as ``coursework/project/naive.py`` does.

The entry's process knows neither the laws nor the seed of which they are made, and cannot count for itself: both are in
the process of the tests, which ``tools/contest.py`` runs in. What is protected is what a mark of ``assignments.py`` can
rely on.
"""

import surroundings  # noqa: F401 - entries run without their reader's own settings

# isort: split
import argparse
import contextlib
import json
import math
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import confinement
from assignments import read_submission
from examination import KernelDiedError, examination

__all__ = ["Result", "board", "entries", "judge", "main", "ranked", "result"]

ROOT = Path(__file__).resolve().parent.parent
EVALUATIONS = (4, 8, 16)

# Processor seconds for one cell of an entry, and for all of its rounds together.
PATIENCE = 120

# The law on which copies are looked for: in its 64 dimensions fresh draws never lie so near to its points.
DIGITS, MOST_COPIES = "digits in disguise", 0.05


@dataclass(frozen=True)
class Result:
    """What became of an entry.

    Attributes:
        name: of its file.
        ratios: by number of evaluations, the geometric mean over laws of the distance, in units of what as many draws
            of the law itself have; infinite where a law has none.
        copied: the greatest share of copies among samples of the law of digits.
        remark: why it has no place, or an empty string.
    """

    name: str
    ratios: dict
    copied: float
    remark: str

    @property
    def score(self):
        """The geometric mean over numbers of evaluations: less is better, 1 is an exact sampler."""
        return _geometric(self.ratios.values())


def _geometric(values):
    values = list(values)
    return math.exp(sum(map(math.log, values)) / len(values)) if values and max(values) < math.inf else math.inf


def entries(folder):
    """The files of a folder that are entries, in order.

    Raises:
        ValueError: if there is none.
    """
    found = sorted(path for pattern in ("*.py", "*.ipynb") for path in Path(folder).glob(pattern))
    if not found:
        raise ValueError(f"{folder} holds no entry, expected files *.py or *.ipynb")
    return found


def _sources(path):
    if path.suffix == ".py":
        return [path.read_text(encoding="utf-8")]
    return [cell.source for cell in read_submission(path).cells if cell.cell_type == "code"]


def judge(rooms, sources, seed, *, timeout=PATIENCE):
    """Run an entry in the one kernel and its rounds in the other.

    Args:
        rooms: two kernels, of :func:`examination.examination`.
        sources: of the entry's cells.
        seed: of the laws; the entry's process never has it.
        timeout: processor seconds for a cell, and for the rounds.

    Returns:
        The rounds, as ``contest.hold`` wrote them, and a remark where there are none.
    """
    for source in sources:
        outcome = rooms.run(source, timeout)
        if not outcome.passed:
            return [], f"a cell fails: {outcome.remark}"
    contest = (ROOT / "tools" / "contest.py").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, secrets.token_hex(8))
        with rooms.answering(["sample"], []) as bound:
            if not bound.passed:
                return [], bound.remark
            ready = rooms.prepare(contest, timeout)
            held = rooms.prepare(f"hold(sample, {int(seed)}, {str(path)!r})", timeout) if ready.passed else ready
        if not held.passed:
            return [], held.remark
        return json.loads(path.read_text(encoding="utf-8")), ""


def result(name, rounds, remark=""):
    """Sum up the rounds of an entry."""
    ratios = {n: _geometric(r.get("ratio", math.inf) for r in rounds if r["n"] == n) for n in EVALUATIONS}
    copied = max((r["copied"] for r in rounds if r["law"] == DIGITS and "copied" in r), default=0.0)
    if not remark:
        remark = next((f"{r['law']}, n = {r['n']}: {r['remark']}" for r in rounds if r["remark"]), "")
    if not remark and copied > MOST_COPIES:
        remark = f"{100 * copied:.0f} % of its digits are those of which the law is made"
    return Result(name, ratios, copied, " ".join(remark.split())[:300])


def ranked(results):
    """Results in the order of the board: those with a place by their score, then those without."""
    return sorted(results, key=lambda r: (bool(r.remark), r.score, r.name))


def board(results, seed):
    """The table, in Markdown."""
    lines = [
        "# Leaderboard",
        "",
        "Distance to fresh draws of three laws that were made for this run, in units of what as many exact draws have: "
        f"1 is an exact sampler. Geometric means over the laws. The laws are those of seed {seed}.",
        "",
        f"| | entry | {' | '.join(f'{n} evaluations' for n in EVALUATIONS)} | together | copies | remark |",
        f"|---|---|{'---|' * len(EVALUATIONS)}---|---|---|",
    ]
    for place, r in enumerate(ranked(results), start=1):
        numbers = [f"{ratio:.2f}" if math.isfinite(ratio) else "" for ratio in (*r.ratios.values(), r.score)]
        cells = [f"{'–' if r.remark else place}", f"`{r.name}`", *numbers, f"{100 * r.copied:.0f} %"]
        lines.append(f"| {' | '.join(cells)} | {r.remark.replace('|', '/')} |")
    return "\n".join(lines) + "\n"


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="with the entries")
    parser.add_argument("--to", type=Path, help="the table, leaderboard.md beside the folder by default")
    # A seed on the command line could be read by an entry, for the system shows it to all.
    parser.add_argument("--again", type=Path, help="a leaderboard.json: the same laws once more")
    given = parser.parse_args(arguments)
    table = given.to or given.folder.resolve().parent / "leaderboard.md"
    try:
        seed = json.loads(given.again.read_text(encoding="utf-8"))["seed"] if given.again else secrets.randbelow(2**31)
        paths = entries(given.folder)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"no leaderboard: {error}")
    if not confinement.level():
        print("No Landlock on this machine: an entry can reach your files.", file=sys.stderr)
    results, kept = [], {}
    for path in paths:
        rounds, remark = [], "its process died"
        with contextlib.suppress(KernelDiedError):
            try:
                sources = _sources(path)
            except (OSError, ValueError) as error:
                remark = f"cannot be read: {error}"
            else:
                with examination() as rooms:
                    rounds, remark = judge(rooms, sources, seed)
        results.append(result(path.name, rounds, remark))
        kept[path.name] = rounds
        print(f"{path.name}: {results[-1].score:.3g} {results[-1].remark}", flush=True)
    table.write_text(board(results, seed), encoding="utf-8")
    table.with_suffix(".json").write_text(json.dumps({"seed": seed, "rounds": kept}, indent=1), encoding="utf-8")
    print(f"The table is in {table}.")


if __name__ == "__main__":
    main()
