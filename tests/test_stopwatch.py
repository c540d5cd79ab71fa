"""Times are told, on the clock and on a processor, and fail nothing."""

import os
import shutil
import subprocess
import sys
import time

import nbformat
import pytest
import stopwatch
from run_record import at_a_glance
from stopwatch import Cost, cost_of, execute, measured, setup

COMPUTE = "import time\nwhile time.process_time() < 1.1: pass"


def cost_of_a_process(program):
    with measured(Cost()) as cost:
        subprocess.run([sys.executable, "-c", program], check=True)
    return cost


def test_a_process_that_computes_has_a_processor_and_one_that_waits_has_none():
    assert 1 <= cost_of_a_process(COMPUTE).processor_seconds < 2
    waiting = cost_of_a_process("import time; time.sleep(2)")
    assert waiting.processor_seconds < 1 < 2 <= waiting.seconds
    assert waiting.busy


@pytest.mark.parametrize(
    ("cost", "remarks", "line"),
    [
        (Cost(50.0, 49.5), [], "50 s to run, in this build"),
        (Cost(61.0, 60.5), ["over its budget"], "61 s to run, in this build"),
        (
            Cost(600.2, 49.5),
            ["busy machine"],
            "601 s to run, in this build on a busy machine, 50 s of them on a processor",
        ),
        (
            Cost(600.0, 61.0),
            ["over its budget", "busy machine"],
            "600 s to run, in this build on a busy machine, 61 s of them on a processor",
        ),
        (Cost(40.0, 75.0), [], "40 s to run, in this build"),  # two threads on an idle machine
        (Cost(61.0), ["over its budget"], "61 s to run, in this build"),
    ],
)
def test_what_others_took_is_not_held_against_a_page(cost, remarks, line):
    assert cost.remarks(60) == remarks
    assert at_a_glance(1, cost) == f"1 minute to read · {line}"
    assert at_a_glance(12, cost) == f"12 minutes to read · {line}"


def one_cell(code, budget):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata |= {"kernelspec": {"name": "python3", "display_name": ""}, "scorebook": {"budget_s": budget}}
    return notebook


def test_an_execution_of_the_build_is_measured_and_carries_its_cost(tmp_path):
    notebook = one_cell(COMPUTE, 60)
    result = execute(notebook, cwd=str(tmp_path), timeout=600, allow_errors=False)
    assert result.err is None
    cost = cost_of(notebook, None)
    assert 1 <= cost.processor_seconds < 60
    assert cost.seconds >= result.time


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "two workers"])
def test_a_notebook_over_its_budget_is_told_and_passes(root, tmp_path, workers):
    for name in (".gitignore", "conftest.py", "pyproject.toml", "requirements.txt"):
        shutil.copy(root / name, tmp_path)
    for name in ("scorebook", "tools"):
        shutil.copytree(root / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "book").mkdir()
    nbformat.write(one_cell("1 + 1", 0), tmp_path / "book" / "slow.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "book", *workers]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    (told,) = [line for line in done.stdout.splitlines() if "book/slow.ipynb[cpu]" in line and " s " in line]
    assert told.endswith(("over its budget", "over its budget  busy machine"))


def test_a_cost_begins_at_nothing_and_a_limit_that_is_reached_is_kept():
    assert Cost() == Cost(0.0, None)
    assert Cost(60.0).remarks(60) == []
    assert not Cost(100.0, stopwatch.BUSY * 100).busy


def test_seconds_on_the_clock_are_those_that_passed():
    begin = time.perf_counter()
    cost = cost_of_a_process("import time; time.sleep(0.2)")
    assert 0.2 <= cost.seconds <= time.perf_counter() - begin


def test_pages_are_written_side_by_side_and_read_one_after_the_other():
    assert setup(None) == {"parallel_read_safe": False, "parallel_write_safe": True}
