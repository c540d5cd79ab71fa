"""Makes the student notebooks from the masters in ``coursework/``, and grades what comes back.

A master is a complete, solved assignment. What a student must not see stands between the markers of nbgrader, found as
nbgrader finds them (anywhere in a line, in capitals), in cells with nbgrader's metadata, so that either this file or
nbgrader can take the masters as they are:

- between ``### BEGIN SOLUTION`` and ``### END SOLUTION``, replaced by a stub;
- between ``### BEGIN HIDDEN TESTS`` and ``### END HIDDEN TESTS``, taken away, and put back for grading;
- between ``### BEGIN MARK SCHEME`` and ``### END MARK SCHEME``, in tasks that are marked by hand, taken away.

Usage: ``make coursework`` writes the student notebooks, ``.venv/bin/python tools/assignments.py grade FILE ...`` gives
points. Grading executes what somebody else has written: do it where that can do no harm.
"""

import surroundings  # noqa: F401 - submissions run without their reader's own settings

# isort: split
import argparse
import ast
import contextlib
import copy
import csv
import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import confinement
import generated
import nbformat
from examination import WAIT, KernelDiedError, Outcome, examination
from sources import files

__all__ = [
    "UNPROTECTED",
    "Mark",
    "grade",
    "main",
    "master_of",
    "masters",
    "read_submission",
    "student_version",
    "write_course",
]

ROOT = Path(__file__).resolve().parent.parent

# Line for line what nbgrader puts there, so that both tools make the same notebook.
STUBS = {"code": ("# YOUR CODE HERE", "raise NotImplementedError()"), "markdown": ("YOUR ANSWER HERE",)}

# What a slip of the pen makes of a marker. Rather a word too many in a text than a secret given away.
_REGION = r"(?:hidden|(?:hidden[\s_:-]*)?tests?|solutions?|mark(?:ing)?[\s_:-]*schemes?)"
_SIDE = r"(?:begin|end|start|stop)"
LIKE_A_MARKER = re.compile(
    rf"(?<![a-z]){_SIDE}[\s_:-]*{_REGION}(?![a-z])"
    rf"|^[\W_]*{_REGION}[\s_:-]*{_SIDE}[\W_]*$"
    r"|^[\W_]*(?:hidden[\s_:-]*tests?|mark(?:ing)?[\s_:-]*schemes?)[\W_]*$",
    re.IGNORECASE,
)

NBGRADER_CONFIG = """\
import os

# One thread: a second one spins while it waits, and on a busy machine that costs many times what it brings.
os.environ.setdefault("OMP_NUM_THREADS", "1")

c = get_config()
c.CourseDirectory.course_id = "scorebook"
c.ExecutePreprocessor.timeout = {seconds}

# A warning or a progress bar is no error; to nbgrader anything on stderr is one.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = "(?s)."
"""

# Processor seconds that one cell of a submission may take. The masters take a tenth of it; a check stops slow code by
# itself.
PATIENCE = 180

# Fails in any kernel where a failing test can fail. `assert` is what a test is made of.
CANARY = "assert False, 'this must fail'"


# Ways to a mark that grading does not bar, in the words of the page for teachers.
UNPROTECTED = (
    "code copied from the book, from another student or from a language model",
    "an object of the book made in a cell beforehand, whose methods do the work",
    "whoever spends a day on hiding the caller of the book's own function",
    "without Landlock (macOS, Linux before 5.13, some containers), files, processes and network of the machine",
    "signals to other processes on Linux before 6.12, TCP connections before 6.7",
    "memory, disk and processes without end",
)


@dataclass(frozen=True)
class Mark:
    """The outcome of one test cell: its name, the points given and to be had, and why points were lost."""

    task: str
    points: float
    out_of: float
    remark: str = ""


def masters(root=ROOT):
    """The master notebooks, in the order of the course."""
    return sorted(files(root / "coursework", "*.ipynb", root), key=_place)


def _place(path):
    """The number before a name, of which 10 stands after 9."""
    number = re.match(r"\d+", path.stem)
    return int(number[0]) if number else math.inf, path.stem


def _nbgrader(cell):
    """What nbgrader's metadata say of a cell, which in a submission may have become anything."""
    marks = cell.metadata.get("nbgrader")
    return marks if isinstance(marks, dict) else {}


def _role(cell):
    """What nbgrader's metadata say that a cell is for: ``"solution"``, ``"test"``, ``"task"`` or None."""
    marks = _nbgrader(cell)
    if marks.get("solution"):
        return "solution"
    return "test" if marks.get("grade") else "task" if marks.get("task") else None


def _without(source, region, stub=()):
    """A cell's source with each marked region replaced by the lines of ``stub``, and whether there was one."""
    kept, inside, found = [], False, False
    for line in source.split("\n"):
        if f"BEGIN {region}" in line:
            if inside:
                raise ValueError(f"BEGIN {region} stands twice without an END in between:\n{source}")
            inside = found = True
            indent = line[: len(line) - len(line.lstrip())]
            kept += [indent + part for part in stub]
        elif f"END {region}" in line:
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
        ValueError: if a marker lacks its partner or stands in a cell whose metadata do not fit it, if a line is left
            that looks like a marker, if two cells have one ``grade_id``, or a secret has a picture attached.
    """
    notebook, names = _named(master, name), set()
    for cell in notebook.cells:
        role, where = _role(cell), f"cell {cell.get('id')} in {name}"
        given = cell.source
        cell.source, solved = _without(cell.source, "SOLUTION", STUBS.get(cell.cell_type, ()))
        cell.source, hidden = _without(cell.source, "HIDDEN TESTS")
        cell.source, scheme = _without(cell.source, "MARK SCHEME")
        if solved != (role == "solution") or (hidden and role != "test") or (scheme and role != "task"):
            raise ValueError(f"the markers of {where} do not fit its metadata:\n{given}")
        left = [line for line in cell.source.split("\n") if LIKE_A_MARKER.search(line)]
        if left:
            raise ValueError(
                f"{where} would go to students with what looks like a marker, expected ### BEGIN SOLUTION, "
                f"HIDDEN TESTS or MARK SCHEME in these capitals, or other words: {left[0].strip()!r}"
            )
        if (solved or hidden or scheme) and cell.get("attachments"):
            raise ValueError(f"{where} would go to students with the pictures attached to it: put them elsewhere")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if role:
            if (grade_id := _nbgrader(cell).get("grade_id")) in names:
                raise ValueError(f"{where} has the grade_id of another cell, {grade_id!r}: its points would be lost")
            names.add(grade_id)
            cell.metadata["deletable"] = False
        if role == "test":
            cell.metadata["editable"] = False
    return notebook


def write_course(folder, root=ROOT):
    """Writes the student notebooks, and beside them a course for nbgrader, into a folder.

    What others have put there stays, and so does what was written before and edited since.

    Returns:
        The student notebooks, in the order of the course, and the files that were left as somebody edited them.

    Raises:
        ValueError: if a master would give a secret away (then nothing is written), or the folder lies below ``_build``.
    """
    if (root / "_build").resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(f"{root / '_build'} is for what make clean may remove, a course must lie elsewhere: {folder}")
    contents = {"nbgrader/nbgrader_config.py": NBGRADER_CONFIG.format(seconds=WAIT * PATIENCE)}
    for path in masters(root):
        master = nbformat.read(path, 4)
        contents[f"student/{path.name}"] = nbformat.writes(student_version(master, path.stem)) + "\n"
        contents[f"nbgrader/source/{path.stem}/{path.name}"] = nbformat.writes(_named(master, path.stem)) + "\n"
    contents = {name: text.encode() for name, text in contents.items()}
    edited = generated.own(folder, contents)
    generated.write(folder, {name: content for name, content in contents.items() if name not in edited})
    edited += generated.prune(folder, contents)
    return [folder / name for name in contents if name.startswith("student/")], [folder / name for name in edited]


def read_submission(path):
    """A submitted notebook, in any encoding and format of which its cells can be made out.

    Only what grading needs is taken over: the metadata, and each cell's kind, source and name.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no notebook.
    """
    raw = path.read_bytes()
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(_unreadable(raw, error)) from error
    cells = [
        {
            "cell_type": cell.get("cell_type"),
            "id": cell.get("id"),
            "source": _text(cell.get("source", cell.get("input"))),
            "metadata": _dictionary(cell.get("metadata")),
        }
        for cell in _cells(content)
        if isinstance(cell, dict)
    ]
    return nbformat.from_dict({"metadata": _dictionary(content.get("metadata")), "cells": cells})


def _unreadable(raw, error):
    """Why a file is no notebook, in words that help whoever handed it in."""
    if not raw.strip():
        return "the file is empty"
    if re.search(rb"^(<<<<<<<|>>>>>>>) ", raw, re.MULTILINE):
        return "not a notebook: the file holds both sides of a merge conflict"
    if raw.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        return "not a notebook: the file is a web page"
    return f"not a notebook: {error}"


def _cells(content):
    """The list of cells, which the formats before the fourth kept in worksheets."""
    if isinstance(content, dict):
        if isinstance(content.get("cells"), list):
            return content["cells"]
        if isinstance(content.get("worksheets"), list):
            return [cell for sheet in content["worksheets"] for cell in _cells(sheet)]
    raise ValueError("not a notebook: the file holds no list of cells")


def _text(source):
    """A source as one string that can be sent: a string, a list of them, or nothing."""
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    return source.encode("utf-8", "replace").decode() if isinstance(source, str) else ""


def _dictionary(value):
    return value if isinstance(value, dict) else {}


def master_of(submission, root=ROOT):
    """The master of a submitted notebook, found by the name in its metadata or, where that is lost, by its cells.

    Raises:
        ValueError: if it names none that is there, and its cells are those of no master, or of more than one.
    """
    name = _dictionary(submission.metadata.get("scorebook")).get("assignment")
    known = {path.stem: nbformat.read(path, 4) for path in masters(root)}
    if isinstance(name, str) and name in known:
        return known[name]
    parts = {path: _parts(master) for path, master in known.items()}
    own = _parts(submission) & set().union(*parts.values())
    alike = [path for path, those in parts.items() if own and own <= those]
    if len(alike) != 1:
        raise ValueError(f"the notebook does not say which assignment it answers, got {name!r}")
    return known[alike[0]]


def _parts(notebook):
    names = (_nbgrader(cell).get("grade_id") for cell in notebook.cells)
    return {name for name in names if isinstance(name, str)}


def grade(submission, master, *, timeout=PATIENCE):
    """Executes a submission in one process, the tests of its master in another, and gives each test its points or none.

    The student's cells supply what the master's solutions define, and nothing else: whatever a test needs beside it,
    helpers and data, comes from the master's own cells. The tests are the master's, whatever the submission holds in
    their place. Each runs where a cell bears its name, and where it fails again at the next such cell. What a cell of
    that name holds beside the test as it was handed out is executed first, as any code of the student's. A test whose
    cell is gone runs after the answer that it tests, and in a notebook that has not kept the order of its master what
    has failed is tried again at the end.

    An exception, or more than ``timeout`` processor seconds (or ten times as many on the wall), costs a test its
    points, and nothing else; a kernel that dies, or that no interrupt stops, costs those of all tests that follow.

    Returns:
        A :class:`Mark` for each test of the master, in its order.
    """
    tests = {_nbgrader(cell).grade_id: cell for cell in master.cells if _role(cell) == "test"}
    steps, in_order = _plan(submission, master)
    if not in_order:
        steps += [("", name) for name in tests]
    outcomes = {}
    try:
        with examination(sorted({name for names in _own_work(master).values() for name in names})) as rooms:
            judge = _Judge(rooms, master, timeout)
            for source, name in steps:
                outcome = outcomes.get(name)
                if name is None or (outcome and (outcome.passed or outcome.late)):
                    rooms.run(source, timeout)
                    continue
                if _needed(source, submission):
                    rooms.run(source, timeout)
                judge.take(name, outcomes)
    except KernelDiedError:
        pass
    died = Outcome(False, "not finished: the kernel died, here or before, or was stopped")
    marks = []
    for name, cell in tests.items():
        outcome, points = outcomes.get(name, died), _nbgrader(cell).points
        marks.append(Mark(name, points if outcome.passed else 0, points, outcome.remark))
    return marks


class _Judge:
    """Runs the master's cells, but for the solutions, in the kernel of the tests: each once, a test when it is due."""

    def __init__(self, rooms, master, timeout):
        self.rooms, self.timeout, self.done, self.asked = rooms, timeout, set(), []
        self.cells, self.names, self.own_work = [], [], _own_work(master)
        answer = None
        for cell in master.cells:
            if cell.cell_type != "code":
                continue
            name, source = None, cell.source
            if _role(cell) == "solution":
                answer = _nbgrader(cell).grade_id
                defined, source = _interface(cell.source)
                self.names += defined
            elif _role(cell) == "test":
                name = _nbgrader(cell).grade_id
            self.cells.append((name, source, answer))

    def take(self, name, outcomes):
        """Executes a test, after all cells above it that have not been executed yet, and notes its outcome."""
        place = next(k for k, (found, _, _) in enumerate(self.cells) if found == name)
        _, source, answer = self.cells[place]
        with self.rooms.answering(self.names, self.own_work.get(answer, ())) as bound:
            for k in sorted({*range(place)} - self.done):
                self.done.add(k)
                self.rooms.prepare(self.cells[k][1], self.timeout)
            self.done.add(place)
            outcomes[name] = self.rooms.prepare(source, self.timeout) if bound.passed else bound
            if outcomes[name].passed and self.rooms.prepare(CANARY, self.timeout).passed:
                outcomes[name] = Outcome(False, "a cell of the tests that must fail did not: look at the master")


def _own_work(master):
    """By answer, the functions of the package that a student is to write and not to call: the master's metadata say."""
    return {
        _nbgrader(cell).grade_id: cell.metadata.get("scorebook", {}).get("own_work", [])
        for cell in master.cells
        if _role(cell) == "solution"
    }


def _interface(source):
    """The names that a solution defines, and the imports beside them."""
    names, imports = [], []
    for part in ast.parse(source).body:
        if isinstance(part, (ast.FunctionDef, ast.ClassDef)):
            names.append(part.name)
        elif isinstance(part, (ast.Import, ast.ImportFrom)):
            imports.append(ast.unparse(part))
        elif isinstance(part, (ast.Assign, ast.AnnAssign)):
            targets = part.targets if isinstance(part, ast.Assign) else [part.target]
            names += [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
    return names, "\n".join(imports)


def _needed(source, submission):
    """Whether a test that students see defines what their other cells speak of."""
    try:
        defined, _ = _interface(source)
    except SyntaxError:
        return True
    others = "\n".join(cell.source for cell in submission.cells if cell.cell_type == "code" and cell.source != source)
    return any(re.search(rf"\b{re.escape(name)}\b", others) for name in defined)


def _plan(submission, master):
    """What to execute, and whether the submission has kept the order and the tests of its master.

    A cell is known by its ``grade_id`` or, where that is lost, by its identity.

    Returns:
        Pairs of a source of the student's and the name of a test or None. The test takes the place of the source,
        until it has passed.
    """
    parts = {_nbgrader(cell).grade_id: cell for cell in master.cells if _role(cell) in ("solution", "test")}
    identities = {cell.get("id"): name for name, cell in parts.items()}
    names = []
    for cell in submission.cells:
        name = _nbgrader(cell).get("grade_id")
        names.append(name if isinstance(name, str) and name in parts else identities.get(cell.get("id")))
    last = {name: i for i, name in enumerate(names)}
    gone, place = {}, None
    for name, part in parts.items():
        if _role(part) == "solution" or name in last:
            place = last.get(name)
        elif place is not None:
            gone.setdefault(place, []).append(name)
    steps, in_order = [], [name for name in names if name is not None] == list(parts)
    for i, (name, cell) in enumerate(zip(names, submission.cells, strict=True)):
        source = cell.source if cell.cell_type == "code" else ""
        if name is None or _role(parts[name]) == "solution":
            steps.append((source, None))
            in_order &= STUBS["code"][-1] not in source  # whoever left the stub may have answered elsewhere
        elif _lines(cell.source) == _lines(_without(parts[name].source, "HIDDEN TESTS")[0]):
            steps.append((source, name))
        else:
            steps += [(source, None), ("", name)]
            in_order = False
        steps += [("", missing) for missing in gone.get(i, [])]
    return steps, in_order


def _lines(source):
    return [line.rstrip() for line in source.strip().splitlines()]


def _generate(arguments):
    try:
        written, edited = write_course(arguments.folder)
    except (OSError, ValueError) as error:
        sys.exit(f"No course was written: {error}")
    for path in written:
        print(f"  {path}{' (yours)' if path in edited else ''}")
    print(f"A course for nbgrader is in {arguments.folder / 'nbgrader'}.")
    for path in edited:
        print(f"Left as somebody edited it: {path}. Move it away to have it written anew.")


def _grade(arguments):
    if not confinement.level():
        print(
            "No Landlock on this machine: a student's code can reach your files. Grade each in a container of its own.",
            file=sys.stderr,
        )
    failed = []
    with contextlib.ExitStack() as stack:
        try:
            record = _table(arguments.csv, stack)
        except OSError as error:
            sys.exit(f"the marks cannot be written: {error}")
        for path in arguments.submissions:
            try:
                submission = read_submission(path)
                marks = grade(submission, master_of(submission), timeout=arguments.timeout)
            except KeyboardInterrupt:
                print(f"{path}: interrupted; this submission and those after it have no marks", file=sys.stderr)
                sys.exit(130)
            # Whatever one submission brings about, the others are still to be graded.
            except Exception as error:
                failed.append(path)
                reason = str(error) or type(error).__name__
                marks = [Mark("", 0, 0, f"could not be graded: {reason}")]
            print(f"{path}: {sum(m.points for m in marks):g} of {sum(m.out_of for m in marks):g} points")
            for mark in marks:
                print(f"  {mark.points:g} of {mark.out_of:g}  {mark.task}")
                print(
                    "".join(f"          {line}".rstrip() + "\n" for line in mark.remark.splitlines()),
                    end="",
                    flush=True,
                )
                record([path, mark.task, mark.points, mark.out_of, mark.remark])
    if failed:
        sys.exit(f"Not graded, and 0 points: {', '.join(map(str, failed))}")


def _table(path, stack):
    """Begins the table of marks, and returns a function that adds a row, there to stay whatever happens next."""
    if path is None:
        return lambda row: None
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size:
        earlier = path.with_name(f"{path.name}~")
        path.replace(earlier)
        print(f"The marks of an earlier run are now in {earlier}.")
    file = stack.enter_context(path.open("w", newline="", encoding="utf-8", errors="backslashreplace"))
    rows = csv.writer(file)

    def record(row):
        rows.writerow(row)
        file.flush()

    record(["submission", "task", "points", "out of", "remark"])
    return record


def _seconds(text):
    """A positive number of seconds, from the command line."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a positive number of seconds, got {text!r}")


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    generate = commands.add_parser("generate", help="write the student notebooks")
    generate.add_argument("folder", nargs="?", type=Path, default=ROOT / "course")
    generate.set_defaults(run=_generate)
    grading = commands.add_parser("grade", help="execute submissions and give points")
    grading.add_argument("submissions", nargs="+", type=Path, metavar="submission")
    grading.add_argument("--csv", type=Path, help="a file for the marks")
    grading.add_argument("--timeout", type=_seconds, default=PATIENCE, help="processor seconds that a cell may take")
    grading.set_defaults(run=_grade)
    given = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="replace")
    given.run(given)


if __name__ == "__main__":
    main()
