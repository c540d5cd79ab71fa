"""What it costs to execute a notebook: seconds on the clock and on a processor, kept with the outputs.

A chapter computes on one thread, so the two agree on an idle machine. Where they do not, the machine was busy, and only
the processor's seconds say something about the chapter. As a Sphinx extension, this measures the executions of a build;
the test run measures its own by the same function.
"""

import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from myst_nb.core.execute import cache as executing

__all__ = ["Cost", "cost_of", "execute", "measured", "note", "setup"]

KEY = "scorebook_cost"
BUSY = 0.8  # share of the seconds in which an execution had a processor, below which the machine counts as busy


@dataclass
class Cost:
    """Seconds of an execution, the start of the kernel included: on the clock, and on a processor (None: not known)."""

    seconds: float = 0.0
    processor_seconds: float | None = None

    @property
    def busy(self):
        """Whether something else had the processor for a good part of the time."""
        return self.processor_seconds is not None and self.processor_seconds < BUSY * self.seconds

    def remarks(self, budget):
        """What a reader of these times should know; the seconds that others took are not held against the budget."""
        own = self.seconds if self.processor_seconds is None else min(self.seconds, self.processor_seconds)
        return ["over its budget"] * (own > budget) + ["busy machine"] * self.busy


@contextmanager
def measured(cost):
    """Fills in what the child processes that begin and end here have cost."""
    begin, spent = time.perf_counter(), _children()
    try:
        yield cost
    finally:
        cost.seconds, cost.processor_seconds = time.perf_counter() - begin, _children() - spent


def _children():
    times = os.times()
    return times.children_user + times.children_system


def note(cost, notebook):
    """Writes a cost into an executed notebook, which carries it to the page."""
    notebook.metadata[KEY] = asdict(cost)


def cost_of(notebook, seconds):
    """The cost that :func:`note` has written, or the ``seconds`` alone."""
    return Cost(**notebook.metadata.get(KEY, {"seconds": seconds}))


def execute(notebook, **options):
    """Executes a notebook as MyST-NB would, and notes the cost in it."""
    with measured(Cost()) as cost:
        result = _execute(notebook, **options)
    note(cost, notebook)
    return result


_execute = executing.single_nb_execution


def setup(app):
    """Registers the extension."""
    executing.single_nb_execution = execute
    return {"parallel_read_safe": False, "parallel_write_safe": True}
