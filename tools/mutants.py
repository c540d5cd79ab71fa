"""How many small faults the unit tests notice: ``make mutants`` puts them in one at a time and runs the tests.

``make mutants MODULES="langevin lab/metrics" SAMPLE=40`` draws forty faults for each of the two modules, without
``MODULES`` for all, without ``SAMPLE`` every fault (hours). It works on a copy of the repository and one after the
other, and a run that was cut off goes on where it stopped. A fault is caught where a test fails, or where the tests
take several times the processor's time that they take without it, or stand still.

The tests are those of the module, ``tests/test_<module>.py`` (or what ``TESTS`` names), and what the general laws say
about it: the surface, the keywords, the ``meta`` device, other people's programs. They run in a process that is forked
from one in which PyTorch and the like are already loaded, the quick ones first, up to the first failure; the laws run
only where the module's own tests have noticed nothing, for to collect them takes longer than to run those.

``tests/mutants.json`` keeps what was found, and ``tests/mutants.md`` says which faults survived. One that changes
nothing which a test could see is named in ``tests/equivalent_mutants.toml``, with the reason, and does not count.
"""

import argparse
import contextlib
import difflib
import hashlib
import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from sources import files

__all__ = ["Runner", "changed_lines", "concerned", "figure", "kept", "modules", "read", "report", "resolve"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, EQUIVALENT = "tests/mutants.json", "tests/mutants.md", "tests/equivalent_mutants.toml"
SESSIONS = "_build/mutants"

PACKAGES = ("scorebook", "scorebook/lab", "scorebook/coursework", "benchmarks")
# Of the tools, those that compute what a page shows.
TOOLS = tuple(
    f"tools/{name}.py"
    for name in (
        *("run_record", "benchmark_page", "stopwatch", "mutants", "claimed", "folds", "front_door"),
        *("questions", "self_tests", "situations", "slides", "pretrain"),
    )
)
# General laws, of which the tests that name another module are left out.
LAWS = tuple(f"tests/test_{name}.py" for name in ("surface", "keywords", "meta_device", "other_peoples_programs"))
# Of these what starts processes, which would have to load all of it anew for each fault.
LEFT_OUT = "in_a_process_of_its_own"
# Laws that hold for all chapters at once.
CHAPTERS = tuple(f"tests/test_{name}.py" for name in ("precision", "foreign_callers", "device_reads", "batches"))
# Tests under another name than the module's, or beside it.
TESTS = {
    "scorebook/sde.py": ("tests/test_sde.py", "tests/test_same_sde.py"),
    "scorebook/probability_flow.py": ("tests/test_probability_flow.py", "tests/test_flow_in_use.py"),
    "tools/benchmark_page.py": ("tests/test_benchmarks.py",),
    "tools/claimed.py": ("tests/test_tables.py",),
    "tools/folds.py": ("tests/test_front_door.py",),
    "tools/pretrain.py": ("tests/test_shipped.py",),
    # What ``fit`` is made of, whose laws are those of a whole run.
    **{
        f"scorebook/lab/{part}.py": (f"tests/test_{part}.py", "tests/test_training.py")
        for part in ("losses", "resumption", "weights")
    },
}

# The time that a mutant is given: so many times what the unmutated tests take of a processor, and so many seconds more.
TIMES, MORE_S = 4, 10
STILL_S = 120  # without a hundredth of a second of the processor: it waits for what does not come
MORE_MEMORY = 8 * 2**30  # bytes of address space


def modules(root=ROOT):
    """The modules that are to be tried, as paths from the root."""
    found = [path for package in PACKAGES for path in sorted((root / package).glob("*.py"))]
    names = [path.relative_to(root).as_posix() for path in found if path.name != "__init__.py"]
    return names + [name for name in TOOLS if (root / name).exists()]


def resolve(words, known):
    """The modules that are meant by ``langevin``, ``lab/metrics`` or ``tools/run_record.py``."""
    found = []
    for word in words:
        meant = [name for name in known if f"/{name.removesuffix('.py')}".endswith(f"/{word.removesuffix('.py')}")]
        if not meant:
            raise SystemExit(f"no module is called {word!r}; there are {', '.join(known)}")
        found += meant
    return found


def _key(module):
    """The word by which tests name a module, such as ``sde`` or ``coursework_sde``."""
    folder, name = Path(module).parent.name, Path(module).stem
    return f"coursework_{name}" if folder == "coursework" else name


def concerned(module, root=ROOT):
    """The files of tests that concern a module."""
    own = (f"tests/test_{_key(module)}.py",)
    if module.startswith("benchmarks/"):
        own = ("tests/test_benchmarks.py",)
    elif module.startswith("scorebook/coursework/"):
        own += ("tests/test_coursework.py",)
    own = TESTS.get(module, own) + CHAPTERS * (Path(module).parent.as_posix() == "scorebook")
    own = [name for name in own if (root / name).exists()]
    return own + [name for name in LAWS if module.startswith("scorebook/") and (root / name).exists()]


class Runner:
    """Runs the tests that concern a module in a copy of the repository, with one version of the module after the other.

    Args:
        module: path from the root.
        tests: files of tests, as paths from the root.
        root: the repository, which is only read.
        more_s: seconds of the processor beyond ``TIMES`` times those of the unmutated tests.
        still_s: seconds on the clock in which nothing moves, after which the tests are ended.
    """

    def __init__(self, module, tests, root=ROOT, *, more_s=MORE_S, still_s=STILL_S):
        self.module, self.more_s, self.still_s = module, more_s, still_s
        self.stages = [own for own in ([t for t in tests if t not in LAWS], [t for t in tests if t in LAWS]) if own]
        self.copy = Path(tempfile.mkdtemp(prefix="scorebook-mutants-")).resolve()
        for path in files(root, root=root):
            place = self.copy / path.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)
        self.code = (self.copy / module).read_text(encoding="utf-8")
        self.others = {_key(name) for name in modules(root)} - {_key(module)}
        self.seconds, self.broken, self.limit, self.version = {}, set(), math.inf, 0

    def close(self):
        """Removes the copy."""
        shutil.rmtree(self.copy, ignore_errors=True)

    def prepare(self):
        """Runs the tests without a fault: to load what they load once for all, and to know how long they take.

        Tests that fail without a fault are left out from then on, and named.

        Returns:
            Seconds of the processor.

        Raises:
            SystemExit: if the others do not pass.
        """
        spent = 0.0
        for tests in self.stages:
            how, seconds, told = self._ended(tests, "--maxfail=20", math.inf)
            if self.learned is None:
                raise SystemExit(f"the tests of {self.module} do not run without a fault:\n{told[-3000:]}")
            for name in self.learned["modules"]:
                importlib.import_module(name)
            spent += seconds
            self.seconds |= self.learned["seconds"]
            self.broken |= set(self.learned["failed"])
        if self.broken:
            for name in sorted(self.broken):
                print(f"left out, for it fails without a fault: {name}", flush=True)
            how, spent, told = self.run(self.code)
            if how != "survived":
                raise SystemExit(f"the tests of {self.module} do not pass without a fault:\n{told[-3000:]}")
        self.limit = TIMES * spent + self.more_s
        return spent

    def run(self, code):
        """What becomes of a version of the module: how it ended, seconds of a processor, what the tests said."""
        (self.copy / self.module).write_text(code, encoding="utf-8")
        self.version += 1
        # Each version is of another second, since Python tells compiled files by the second.
        os.utime(self.copy / self.module, (10**9 + self.version,) * 2)
        how, spent, told = "survived", 0.0, ""
        for tests in self.stages:
            if how == "survived":
                how, seconds, told = self._ended(tests, "-x", self.limit - spent)
                spent += seconds
        return how, spent, told

    def _ended(self, tests, until, limit):
        """How some tests end, as :meth:`run` tells it."""
        learned, log = self.copy / ".learned", self.copy / ".log"
        learned.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            self._child(tests, learned, log, until)
        try:
            status, spent = self._wait(child, limit)
        except BaseException:  # interrupted: the child is of another session, which no key reaches
            _end(child)
            raise
        self.learned = json.loads(learned.read_text(encoding="utf-8")) if learned.exists() else None
        told = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        return {"hung": "hung", 0: "survived"}.get(status, "caught"), spent, told

    def _child(self, tests, learned, log, until):
        try:
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(self.copy)
            os.environ |= {"PYTHONPATH": str(self.copy), "MPLBACKEND": "Agg"}
            sys.path[:0] = [str(self.copy)]
            for name in [name for name in sys.modules if name.partition(".")[0] in _own(self.copy)]:
                del sys.modules[name]
            _hold_memory()
            import pytest

            chosen = Chosen(self.others, self.broken, self.seconds)
            options = [until, "-q", "-p", "no:cacheprovider", "-m", "not site", "--tb=short", "--rootdir", "."]
            code = int(pytest.main([*options, *tests], plugins=[chosen]))
            code = 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code  # all are about other modules
            if code in (0, 1):
                seen = {"seconds": chosen.taken, "failed": chosen.failed, "modules": _installed_modules()}
                learned.write_text(json.dumps(seen), encoding="utf-8")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(9)

    def _wait(self, child, limit):
        """The exit status of a child, or ``hung`` once it has had its time, and the seconds of a processor."""
        spent = moved = 0.0
        when = time.monotonic()
        while True:
            ended, status, usage = os.wait4(child, os.WNOHANG)
            if ended:
                _end(child)
                return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            spent = max(spent, _processor_seconds(child))
            if spent > moved + 0.01:
                moved, when = spent, time.monotonic()
            if spent > limit or time.monotonic() - when > self.still_s:
                _end(child)
                os.wait4(child, 0)
                return "hung", spent
            time.sleep(0.02)


class Chosen:
    """A plugin of pytest: leaves out laws about other modules, runs quick tests first, notes how long each took."""

    def __init__(self, others, broken, seconds):
        self.others, self.broken, self.before, self.taken, self.failed = others, broken, seconds, {}, []

    def pytest_collection_modifyitems(self, config, items):
        """Choose and order."""
        kept = [item for item in items if item.nodeid not in self.broken and not self.is_about_another(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = sorted(kept, key=lambda item: self.before.get(item.nodeid, 0.0))

    def is_about_another(self, item):
        """Whether a law is applied to another module: the word in brackets begins with its name."""
        if not any(item.nodeid.startswith(law) for law in LAWS):
            return False
        word = item.nodeid.partition("[")[2].rstrip("]")
        return LEFT_OUT in item.nodeid or word.replace(".", "-").partition("-")[0] in self.others

    def pytest_runtest_logreport(self, report):
        """Note the seconds, those of the fixtures included, and what fails."""
        self.failed += [report.nodeid] if report.failed else []
        self.taken[report.nodeid] = self.taken.get(report.nodeid, 0.0) + report.duration


def _own(root):
    """Top-level names that the repository has, of which a child forgets those that its parent has loaded."""
    places = (root, root / "tools", root / "tests")
    return {path.stem for place in places if place.is_dir() for path in place.iterdir() if path.suffix in ("", ".py")}


def _installed_modules():
    """What is loaded of the packages that are installed, which no mutant changes."""
    names = [
        name for name, module in list(sys.modules.items()) if "site-packages" in (getattr(module, "__file__", 0) or "")
    ]
    return [name for name in names if _can_be_loaded(name)]


def _can_be_loaded(name):
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, AttributeError, ValueError):
        return False


def _hold_memory():
    import resource

    import psutil

    limit = psutil.Process().memory_info().vms + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _processor_seconds(pid):
    """What a process and those that it has started have used."""
    import psutil

    total = 0.0
    try:
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            times = each.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    except psutil.Error:
        pass
    return total


def _end(group):
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def changed_lines(before, after):
    """Where two versions first differ, and the lines there: the number of the line, what was, what became of it."""
    old, new = before.splitlines(), after.splitlines()
    number, was, became = None, [], []
    for kind, start, stop, from_, to in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            number = number or start + 1
            was, became = was + old[start:stop], became + new[from_:to]
    return number, "\n".join(was), "\n".join(became)


def digest(paths):
    """One word for the content of files."""
    return hashlib.sha256(b"\0".join(Path(path).read_bytes() for path in paths)).hexdigest()[:16]


def session(module, tests, root):
    """What is known of the mutants of a module as it stands: their keys, with how each ended.

    A fault that was caught stays caught, for tests are added and not taken away; one that survived is tried again where
    the tests have changed.
    """
    path = root / SESSIONS / f"{module.replace('/', '.')}.json"
    now = {"module": digest([root / module, root / "tools/mutations.py"]), "tests": digest(law_files(tests, root))}
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    ended = known.get("ended", {}) if known.get("module") == now["module"] else {}
    if known.get("tests") != now["tests"]:
        ended = {key: how for key, how in ended.items() if how != "survived"}
    return path, now | {"ended": ended}


def law_files(tests, root):
    """The files of tests, and of what the laws read: how functions are called."""
    beside = ("tests/surface", "tests/meta_device")
    return [root / name for name in tests] + [path for each in beside for path in files(root / each, "*.py", root)]


def judge(runner, mutants, known, keep):
    """Try each mutant that is not known yet, and keep what became of it at once."""
    for number, mutant in enumerate(mutants, 1):
        if mutant.key not in known:
            known[mutant.key] = runner.run(mutant.code)[0]
            keep()
            line, _, became = changed_lines(runner.code, mutant.code)
            print(
                f"{number:4d}/{len(mutants)} {known[mutant.key]:8s} {runner.module}:{line} {became.strip()}", flush=True
            )
    return known


def try_module(module, size, seed, root=ROOT):
    """The record of a module, after all or a sample of its mutants."""
    from mutations import drawn, places

    tests = concerned(module, root)
    if not tests:
        return None
    runner = Runner(module, tests, root)
    try:
        chosen = list(islice(drawn(runner.code, f"{module} {seed}"), size))
        # To write down all for their number alone would take a minute.
        total = len(list(places(runner.code))) if len(chosen) == size else len(chosen)
        path, notes = session(module, tests, root)
        ended = notes["ended"]
        if any(mutant.key not in ended for mutant in chosen):
            spent = runner.prepare()
            print(f"{module}: {len(chosen)} of {total} faults, the tests take {spent:.1f} s without", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        judge(runner, chosen, ended, lambda: path.write_text(json.dumps(notes), encoding="utf-8"))
    finally:
        runner.close()
    lived = [mutant for mutant in chosen if ended[mutant.key] == "survived"]
    lines = [changed_lines(runner.code, mutant.code) for mutant in lived]
    return {
        "commit": _git(root, "rev-parse", "--short=10", "HEAD"),
        "date": datetime.now(UTC).date().isoformat(),
        "seed": seed,
        "mutants": total,
        "tried": len(chosen),
        "hung": sum(ended[mutant.key] == "hung" for mutant in chosen),
        "survivors": [{"line": n, "was": was, "became": became} for n, was, became in sorted(lines)],
    }


def _git(root, *arguments):
    try:
        return subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def read(root=ROOT):
    """Each module that is there, with its record, or None where it was not tried."""
    found = kept(root)
    return {name: found.get(name) for name in modules(root)}


def kept(root=ROOT):
    """The records as they were kept; each survivor has the reason if it is equivalent."""
    path = root / RESULTS
    records = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path = root / EQUIVALENT
    listed = tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", []) if path.exists() else []
    reasons = {(each["module"], each["was"].strip(), each["became"].strip()): each["reason"] for each in listed}
    for name, record in records.items():
        for each in record["survivors"] if record else ():
            each["reason"] = reasons.get((name, each["was"].strip(), each["became"].strip()))
    return records


def figure(record):
    r"""The share of faults that the tests catch, and its standard error.

    With :math:`c` caught of :math:`n` tried, drawn without replacement from :math:`N`, the share is :math:`c / n`, and

    .. math:: \sqrt{\frac{p\,(1 - p)}{n}\;\frac{N - n}{N - 1}} \quad\text{with}\quad p = \frac{c + 1}{n + 2}

    where one more of each kind is counted, so that none missed in a few is not none missed at all.
    Equivalent mutants count in neither; of those not drawn as large a part is taken to be equivalent.
    """
    equivalent = sum(each["reason"] is not None for each in record["survivors"])
    n = record["tried"] - equivalent
    caught = record["tried"] - len(record["survivors"])
    total = record["mutants"] * n / record["tried"] if record["tried"] else 0
    if not n:
        return math.nan, math.nan
    p = (caught + 1) / (n + 2)
    left = (total - n) / (total - 1) if total > 1 else 0.0
    return caught / n, math.sqrt(p * (1 - p) / n * left)


def told(record):
    """How many of the faults were tried, in words."""
    whole = record["tried"] == record["mutants"]
    return f"all {record['mutants']}" if whole else f"{record['tried']} drawn of {record['mutants']}"


def percent(record):
    """The figure as a page shows it."""
    share, error = figure(record)
    if math.isnan(share):
        return "–"
    return f"{100 * share:.0f} %" + (f" ± {100 * error:.0f} %" if error else "")


def report(records):
    """The page that says which faults survived."""
    lines = [
        "# Faults that the unit tests do not notice",
        "",
        "Written by `make mutants`, which puts small faults into the modules and runs the tests, as `tools/mutants.py`",
        "says. A fault that survives is a law that no test states, unless it is equivalent to the code as it stands.",
        "Where laws were added for what had survived, the same faults were tried again: the figure then says what is",
        "caught of these, and flatters the faults that were not drawn.",
        "",
        "| module | caught | tried | survived | equivalent | hung | commit | date |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, record in records.items():
        if record is None:
            lines.append(f"| {name} | not run | | | | | | |")
            continue
        same = sum(each["reason"] is not None for each in record["survivors"])
        cells = [name, percent(record), told(record), len(record["survivors"]) - same, same, record["hung"]]
        lines.append(f"| {' | '.join(map(str, [*cells, record['commit'], record['date']]))} |")
    for name, record in records.items():
        if not record or not record["survivors"]:
            continue
        lines += ["", f"## {name}"]
        for each in sorted(record["survivors"], key=lambda each: each["reason"] is not None):
            word = "equivalent: " + each["reason"] if each["reason"] else "survived"
            lines += ["", f"{name}:{each['line']}, {word}", "", "```diff"]
            lines += [f"- {line}" for line in each["was"].splitlines()]
            lines += [f"+ {line}" for line in each["became"].splitlines()] + ["```"]
    return "\n".join(lines) + "\n"


def write(records, root=ROOT):
    """Writes both files."""
    plain = {
        name: record
        and record | {"survivors": [{k: e[k] for k in ("line", "was", "became")} for e in record["survivors"]]}
        for name, record in records.items()
    }
    (root / RESULTS).write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (root / PAGE).write_text(report(read(root)), encoding="utf-8")


def main(arguments=None):
    """Tries modules and writes what became of their mutants after each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", help="such as langevin, lab/metrics or tools/run_record.py; default all")
    parser.add_argument("--sample", type=int, help="so many mutants of each module, drawn by the seed; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", action="store_true", help="only write the page anew, with what is now equivalent")
    asked = parser.parse_args(arguments)
    if not hasattr(os, "fork"):
        raise SystemExit("mutants are tried in forked processes, which this system does not have")
    os.nice(10)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for module in [] if asked.page else resolve(asked.modules, modules()) or modules():
        record = try_module(module, asked.sample, asked.seed)
        write(read() | {module: record})
        if record:
            print(f"{module}: {percent(read()[module])} caught, {told(record)}", flush=True)
    write(read())


if __name__ == "__main__":
    main()
