"""Makes the student notebooks from the masters in ``coursework/``, and grades what comes back.

A master is a complete, solved assignment. What a student must not see stands between the markers of nbgrader, in cells
with nbgrader's metadata, so that either this file or nbgrader can take the masters as they are:

- between ``### BEGIN SOLUTION`` and ``### END SOLUTION``, replaced by a stub;
- between ``### BEGIN HIDDEN TESTS`` and ``### END HIDDEN TESTS``, taken away, and put back for grading.

Usage: ``make coursework`` writes the student notebooks, ``.venv/bin/python tools/assignments.py grade FILE ...`` gives
points. Grading executes what somebody else has written: do it where that can do no harm.
"""

import surroundings  # noqa: F401 - submissions run without their reader's own settings

# isort: split
import argparse
import asyncio
import contextlib
import copy
import csv
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from sources import files

__all__ = ["Mark", "grade", "main", "master_of", "masters", "student_version", "write_course"]

ROOT = Path(__file__).resolve().parent.parent

# Line for line what nbgrader puts there, so that both tools make the same notebook.
STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")

NBGRADER_CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "scorebook"
c.ExecutePreprocessor.timeout = {seconds}
"""

# Seconds that one cell of a submission may take. The masters take a tenth of it; a check stops slow code by itself.
PATIENCE = 180

# Code that swallows its interrupts is ended with its kernel after so many times that long.
STUBBORN = 3

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Mark:
    """The outcome of one test cell: its name, the points given and to be had, and why points were lost."""

    task: str
    points: float
    out_of: float
    remark: str = ""


def masters(root=ROOT):
    """The master notebooks, in the order of the course."""
    return files(root / "coursework", "*.ipynb", root)


def _role(cell):
    """What nbgrader's metadata say that a cell is for: ``"solution"``, ``"test"`` or None."""
    marks = cell.metadata.get("nbgrader", {})
    return "solution" if marks.get("solution") else "test" if marks.get("grade") else None


def _without(source, region, stub=()):
    """A cell's source with each marked region replaced by the lines of ``stub``, and whether there was one."""
    kept, inside, found = [], False, False
    for line in source.split("\n"):
        if f"### BEGIN {region}" in line:
            if inside:
                raise ValueError(f"BEGIN {region} stands twice without an END in between:\n{source}")
            inside = found = True
            indent = line[: len(line) - len(line.lstrip())]
            kept += [indent + part for part in stub]
        elif f"### END {region}" in line:
            if not inside:
                raise ValueError(f"END {region} stands without its BEGIN:\n{source}")
            inside = False
        elif not inside:
            kept.append(line)
    if inside:
        raise ValueError(f"BEGIN {region} has no END:\n{source}")
    return "\n".join(kept), found


def _named(master, name):
    """A copy that says which assignment it is."""
    notebook = copy.deepcopy(master)
    notebook.metadata["scorebook"] = {**notebook.metadata.get("scorebook", {}), "assignment": name}
    return notebook


def student_version(master, name):
    """The notebook that students get: stubs for solutions, no held-back checks, no outputs, tests that are locked.

    Args:
        master: the solved notebook.
        name: of the assignment; a submission is recognised by it, whatever its file is called.

    Raises:
        ValueError: if a marker lacks its partner or stands in a cell whose metadata do not fit it.
    """
    notebook = _named(master, name)
    for cell in notebook.cells:
        role = _role(cell)
        cell.source, solved = _without(cell.source, "SOLUTION", STUB)
        cell.source, hidden = _without(cell.source, "HIDDEN TESTS")
        if solved != (role == "solution") or (hidden and role != "test"):
            raise ValueError(f"the markers of cell {cell.id} in {name} do not fit its metadata:\n{cell.source}")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if role:
            cell.metadata["deletable"] = False
        if role == "test":
            cell.metadata["editable"] = False
    return notebook


def write_course(folder, root=ROOT):
    """Writes the student notebooks, and beside them a course for nbgrader, into a folder.

    Returns:
        The student notebooks, in the order of the course.
    """
    written = []
    shutil.rmtree(folder / "student", ignore_errors=True)
    shutil.rmtree(folder / "nbgrader" / "source", ignore_errors=True)
    for path in masters(root):
        master = nbformat.read(path, 4)
        student = folder / "student" / path.name
        source = folder / "nbgrader" / "source" / path.stem / path.name
        for place in (student, source):
            place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(student_version(master, path.stem), student)
        nbformat.write(_named(master, path.stem), source)
        written.append(student)
    config = folder / "nbgrader" / "nbgrader_config.py"
    config.write_text(NBGRADER_CONFIG.format(seconds=PATIENCE), encoding="utf-8")
    return written


def master_of(submission, root=ROOT):
    """The master of a submitted notebook, found by the name in its metadata.

    Raises:
        ValueError: if it names none, or one that is not there.
    """
    name = submission.metadata.get("scorebook", {}).get("assignment")
    found = [path for path in masters(root) if path.stem == name]
    if not found:
        raise ValueError(f"the notebook does not say which assignment it answers, got {name!r}")
    return nbformat.read(found[0], 4)


def grade(submission, master, *, timeout=PATIENCE):
    """Executes a submission with the tests of its master, and gives each test its points or none.

    The tests are taken from the master, whatever the submission holds in their place; one that is missing is put at
    the end. An exception, or more than ``timeout`` seconds, costs a test its points, and nothing else; a kernel that
    dies, or that no interrupt stops, costs those of all tests that follow.

    Returns:
        A :class:`Mark` for each test of the master, in its order.
    """
    notebook, tests = copy.deepcopy(submission), {}
    for cell in copy.deepcopy(master).cells:
        if _role(cell) == "test":
            tests[cell.metadata.nbgrader.grade_id] = cell
    cells, missing = [], dict(tests)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in tests:
            if name not in missing:  # a second copy of a test
                continue
            cell = missing.pop(name)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
        cells.append(cell)
    notebook.cells = cells + list(missing.values())
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=timeout,
            interrupt_on_timeout=True,
            allow_errors=True,
            shutdown_kernel="immediate",
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        )
        # What was not finished says so below.
        with contextlib.suppress(DeadKernelError, TimeoutError):
            asyncio.run(asyncio.wait_for(client.async_execute(), STUBBORN * timeout))
    return [_mark(name, cell, timeout) for name, cell in tests.items()]


def _mark(name, cell, timeout):
    points = cell.metadata.nbgrader.points
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors and errors[0].ename == "KeyboardInterrupt":
        return Mark(name, 0, points, f"stopped after {timeout} s")
    if errors:
        remark = ANSI.sub("", errors[0].evalue).strip() or errors[0].ename
        return Mark(name, 0, points, remark)
    if "shell.execute_reply" not in cell.metadata.get("execution", {}):
        return Mark(name, 0, points, "not finished: the kernel died, here or before, or was stopped")
    return Mark(name, points, points)


def _generate(arguments):
    for path in write_course(arguments.folder):
        print(f"  {path}")
    print(f"A course for nbgrader is in {arguments.folder / 'nbgrader'}.")


def _grade(arguments):
    rows = []
    for path in arguments.submissions:
        try:
            submission = nbformat.read(path, 4)
            marks = grade(submission, master_of(submission), timeout=arguments.timeout)
        except (OSError, ValueError, nbformat.reader.NotJSONError) as error:
            sys.exit(f"{path}: {error}")
        print(f"{path}: {sum(m.points for m in marks):g} of {sum(m.out_of for m in marks):g} points")
        for mark in marks:
            print(f"  {mark.points:g} of {mark.out_of:g}  {mark.task}")
            print("".join(f"          {line}".rstrip() + "\n" for line in mark.remark.splitlines()), end="")
            rows.append([path, mark.task, mark.points, mark.out_of, mark.remark])
    if arguments.csv:
        with arguments.csv.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["submission", "task", "points", "out of", "remark"], *rows])


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    generate = commands.add_parser("generate", help="write the student notebooks")
    generate.add_argument("folder", nargs="?", type=Path, default=ROOT / "_build" / "coursework")
    generate.set_defaults(run=_generate)
    grading = commands.add_parser("grade", help="execute submissions and give points")
    grading.add_argument("submissions", nargs="+", type=Path, metavar="submission")
    grading.add_argument("--csv", type=Path, help="a file for the marks")
    grading.add_argument("--timeout", type=int, default=PATIENCE, help="seconds that a cell may take")
    grading.set_defaults(run=_grade)
    given = parser.parse_args(arguments)
    given.run(given)


if __name__ == "__main__":
    main()
