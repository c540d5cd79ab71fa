"""The notebooks of the book as tests, once per device, and the order in which everything runs.

nbmake executes the notebooks. Here each becomes two tests, ``book/tour.ipynb[cpu]`` and ``book/tour.ipynb[cuda]``;
the device reaches the notebook as ``SCOREBOOK_DEVICE``, which ``lab.device`` reads. What the run on the CPU has
produced is handed to the book's cache, so that building the book executes nothing again.
"""

import surroundings  # before all others: Matplotlib reads its settings when it is imported

# isort: split
import re

import nbformat
import pytest
import torch
from execution_cache import environment, store
from nbmake.nb_run import NotebookRun
from nbmake.pytest_items import NotebookFailedException, NotebookFile, NotebookItem
from run_record import budget_of
from sources import ignored
from stopwatch import Cost, measured, note

DEVICES = ("cpu", "cuda")
# On the CPU the masters of the coursework are executed where they are graded, in tests/test_assignments.py.
OF_COURSEWORK = ("cuda",)

CHOSEN = pytest.StashKey()


class NotebookOnDevice(NotebookItem):
    """One notebook executed on one device."""

    def __init__(self, *, parent, device, budget):
        pytest.Item.__init__(self, f"{parent.path.name}[{device}]", parent, nodeid=f"{parent.nodeid}[{device}]")
        self.filename = str(parent.path)
        self.device, self.budget = device, budget

    def runtest(self):
        """Executes the notebook, keeps its outputs and reports its times; no time is a failure."""
        source = nbformat.read(self.path, 4)
        options = self.config.option
        run = NotebookRun(self.path, options.nbmake_timeout, kernel=options.nbmake_kernel)
        began = environment(self.device)
        with pytest.MonkeyPatch.context() as variables:
            variables.setenv("SCOREBOOK_DEVICE", self.device)
            with measured(Cost()) as cost:
                result = run.execute()
        self.user_properties.append(("cost", (cost.seconds, cost.processor_seconds, self.budget)))
        if result.error is not None:
            raise NotebookFailedException(result)
        if self.device == "cpu":
            note(cost, result.nb)
            store(result.nb, source, self.path, seconds=cost.seconds, began=began)


class NotebookOnEachDevice(NotebookFile):
    """A notebook file, one test for each device."""

    def collect(self):
        """Yields the tests; the one for an absent device is there, skipped."""
        budget = budget_of(nbformat.read(self.path, 4))
        all_devices = OF_COURSEWORK if self.path.parent == surroundings.ROOT / "coursework" else DEVICES
        for device in self.config.stash[CHOSEN].get(self.path, all_devices):
            item = NotebookOnDevice.from_parent(self, device=device, budget=budget)
            if device == "cuda" and not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))
            yield item


def pytest_ignore_collect(collection_path, config):
    """Passes over what an editor or Jupyter has left; where the site alone is asked for, over files that name none."""
    root = surroundings.ROOT
    if collection_path.is_relative_to(root) and ignored(collection_path, root):
        return True
    if config.option.markexpr != "site" or not collection_path.is_file():
        return None
    notebook, test = collection_path.suffix == ".ipynb", collection_path.suffix == ".py"
    return True if notebook or (test and "site" not in collection_path.read_text(encoding="utf-8")) else None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    """Puts a test for each device where nbmake would put one."""
    collected = yield
    return [
        NotebookOnEachDevice.from_parent(parent, path=file_path) if isinstance(found, NotebookFile) else found
        for found in collected
    ]


def pytest_configure(config):
    """Refuses another clone's package, and lets a notebook test be run by the name under which a report lists it."""
    if complaint := surroundings.foreign_package():
        raise pytest.UsageError(complaint)
    config.stash[CHOSEN] = {}
    for i, argument in enumerate(config.args):
        if named := re.fullmatch(r"(.+\.ipynb)\[(\w+)\]", argument):
            path = (config.invocation_params.dir / named[1]).resolve()
            config.stash[CHOSEN].setdefault(path, []).append(named[2])
            config.args[i] = named[1]


def pytest_collection_modifyitems(items):
    """Runs what is fast first, and the site last: it is built from the outputs of the notebooks.

    Of the notebooks the long ones come first, so that of two workers none waits long for the other. Of the site that
    which builds it comes first: the other worker has figures to open meanwhile, which need no page of the book. A page
    is opened by one worker, for all of its tests.
    """

    def turn(item):
        if isinstance(item, NotebookItem):
            return 1, -item.budget
        if not item.get_closest_marker("site"):
            return 0, 0
        groups = [mark.args[0] for mark in item.iter_markers("xdist_group")]
        return 2, 0 if "site" in groups else 2 if any(name.startswith("page ") for name in groups) else 1

    for item in items:
        opened = item.callspec.params if hasattr(item, "callspec") else {}
        if "site" in getattr(item, "fixturenames", ()):
            item.add_marker("site")
            page = opened.get("visited")
            item.add_marker(pytest.mark.xdist_group(f"page {page}" if page else "site"))
        elif "shown" in opened:
            item.add_marker(pytest.mark.xdist_group(f"figure {opened['shown']}"))
    items.sort(key=turn)


def pytest_terminal_summary(terminalreporter):
    """Prints what each notebook took beside its budget."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    reports = [report for report in reports if getattr(report, "when", None) == "call"]
    costs = sorted((r.nodeid, value) for r in reports for key, value in r.user_properties if key == "cost")
    if costs:
        terminalreporter.section("notebook times: on the clock, on a processor, budget")
    for name, (seconds, processor_seconds, budget) in costs:
        cost = Cost(seconds, processor_seconds)
        remarks = "".join(f"  {remark}" for remark in cost.remarks(budget))
        terminalreporter.write_line(f"{seconds:6.1f} s {processor_seconds:6.1f} s {budget:4d} s  {name}{remarks}")
