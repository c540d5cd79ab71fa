"""The assignments: masters that pass their own checks, student notebooks that give nothing away, and marks."""

import contextlib
import csv
import io
import re
import sys
from itertools import pairwise

import assignments
import matplotlib.pyplot as plt
import nbformat
import pytest
from assignments import ROOT, grade, master_of, masters, student_version, write_course
from IPython.core.inputtransformer2 import TransformerManager
from test_notebooks_contract import SETUP, myst_in

MASTERS = [path.stem for path in masters()]


@pytest.fixture(scope="module", params=MASTERS)
def name(request):
    """One assignment after the other."""
    return request.param


@pytest.fixture(scope="module")
def master(name):
    return nbformat.v4.reads((ROOT / "coursework" / f"{name}.ipynb").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def student(master, name):
    return student_version(master, name)


def of_role(notebook, role):
    kinds = {"solution": "solution", "test": "grade"}
    return [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get(kinds[role])]


def marked(notebook, region):
    """The lines that stand between the markers of a region, without their indentation."""
    pattern = rf"### BEGIN {region}\n(.*?)\n\s*### END {region}"
    found = [part for cell in notebook.cells for part in re.findall(pattern, cell.source, re.S)]
    return {line.strip() for part in found for line in part.split("\n")} - {""}


def visible(notebook):
    """All lines outside the marked regions."""
    text = "\n".join(cell.source for cell in notebook.cells)
    for region in ("SOLUTION", "HIDDEN TESTS"):
        text = re.sub(rf"[^\n]*### BEGIN {region}\n.*?### END {region}", "", text, flags=re.S)
    return {line.strip() for line in text.split("\n")}


def chain(error):
    """An exception and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def outcomes(notebook):
    """Executes the code cells in this process: the exception of each, or None."""
    namespace, found = {"__name__": "__main__", "display": print}, {}
    with plt.rc_context():
        for cell in notebook.cells:
            if cell.cell_type != "code":
                continue
            found[cell.id] = None
            try:
                exec(compile(TransformerManager().transform_cell(cell.source), cell.id, "exec"), namespace)
            except Exception as error:
                found[cell.id] = error
        plt.close("all")
    return found


FOUR = ["1_score", "2_loss", "3_sampler", "4_inverse_problem"]


def test_there_are_four_assignments_of_ten_points_and_the_page_names_them():
    assert MASTERS[:4] == FOUR
    page = (ROOT / "book" / "coursework.md").read_text(encoding="utf-8")
    for name in FOUR:
        assert f"| `{name}`" in page
        tests = of_role(nbformat.read(ROOT / "coursework" / f"{name}.ipynb", 4), "test")
        assert sum(cell.metadata.nbgrader.points for cell in tests) == 10


def test_a_master_is_a_clean_notebook_with_the_setup_cell_of_the_book(master):
    nbformat.validate(master)
    assert len({cell.id for cell in master.cells}) == len(master.cells)
    assert re.match(r"# \S", master.cells[0].source)
    code = [cell for cell in master.cells if cell.cell_type == "code"]
    assert code[0].source == SETUP
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []
    assert {
        cell.id: found for cell in master.cells if cell.cell_type == "markdown" and (found := myst_in(cell.source))
    } == {}
    shown = [cell for cell in code if "plt.show()" in cell.source]
    assert [cell.id for cell in shown if not cell.metadata.get("mystnb", {}).get("image", {}).get("alt")] == []


def test_a_master_holds_each_answer_against_a_visible_and_a_held_back_check(master):
    tests = of_role(master, "test")
    names = [cell.metadata.nbgrader.grade_id for cell in of_role(master, "solution") + tests]
    assert len(set(names)) == len(names)
    assert all(cell.metadata.nbgrader.locked and cell.metadata.nbgrader.points > 0 for cell in tests)
    for solution, following in pairwise([*of_role(master, "solution"), None]):
        start = master.cells.index(solution)
        stop = len(master.cells) if following is None else master.cells.index(following)
        checks = [cell.source for cell in master.cells[start:stop] if cell in tests]
        assert any(not check.startswith("# Held back") for check in checks), solution.metadata.nbgrader.grade_id
        assert any("### BEGIN HIDDEN TESTS" in check for check in checks), solution.metadata.nbgrader.grade_id


def test_a_student_sees_no_line_of_a_solution_and_none_of_a_held_back_check(master, student):
    text = {line.strip() for cell in student.cells for line in cell.source.split("\n")}
    for region in ("SOLUTION", "HIDDEN TESTS"):
        secret = marked(master, region)
        assert secret
        assert text & (secret - visible(master)) == set()
        assert not any(region in line for line in text)


def test_a_student_gets_everything_else_as_it_stands_in_the_master(master, student):
    assert [cell.id for cell in student.cells] == [cell.id for cell in master.cells]
    text = {line.strip() for cell in student.cells for line in cell.source.split("\n")}
    assert text == visible(master) | set(assignments.STUB)
    for cell in of_role(student, "solution"):
        assert "raise NotImplementedError()" in cell.source
    assert all(cell.metadata.editable is False for cell in of_role(student, "test"))


def test_a_student_version_fails_at_its_stubs_and_nowhere_else(student):
    found = outcomes(student)
    other = {
        key: error
        for key, error in found.items()
        if error and not any(isinstance(e, NotImplementedError) for e in chain(error))
    }
    assert other == {}
    checks = [cell for cell in of_role(student, "test") if not cell.source.startswith("# Held back")]
    assert [cell.id for cell in checks if found[cell.id] is None] == []
    held_back = [cell for cell in of_role(student, "test") if cell.source.startswith("# Held back")]
    assert [cell.id for cell in held_back if found[cell.id] is not None] == []


KINDS = ("_check", "_held_back")

# Wrong answers of each assignment, and the tests that they lose; a task that loses both of its tests is named once.
WRONG = {
    "the usual slips": (
        "1_score",
        {
            "-torch.linalg.solve": "torch.linalg.solve",
            "weights.log() - 0.5": "-0.5",
            ".square().sum(1).mean()": ".square().mean()",
        },
        ["gaussian_score", "mixture_score", "fisher_divergence_check"],
    ),
    "what only the held-back checks see": (
        "1_score",
        {
            "log_parts.softmax(1)": "log_parts.exp() / log_parts.exp().sum(1, keepdim=True)",
            "x = x.detach().clone().requires_grad_()\n    (gradient,)": "x.requires_grad_()\n    (gradient,)",
        },
        ["mixture_score_held_back", "score_by_autograd_held_back"],
    ),
    "losses": (
        "2_loss",
        {"0.5 * model(x)": "model(x)", "sigma) + z)": "sigma) - z)", "column**2 * score": "column * score"},
        ["implicit_loss", "denoising_loss", "denoise"],
    ),
    "g for its square, dt for its root": (
        "3_sampler",
        {"return (0.1 + 19.9 * t).sqrt()": "return 0.1 + 19.9 * t", "dt.abs().sqrt()": "dt.abs()"},
        ["sde", "sde_reference_check", "reverse_step", "predictor_corrector"],
    ),
    "another SDE": ("3_sampler", {"19.9": "9.9"}, ["sde_reference_check", "sde_held_back"]),
    "the corrector's time": ("3_sampler", {"t=t_next: score": "t=t: score"}, ["predictor_corrector_held_back"]),
    "the corrector's step": ("3_sampler", {"= 2 * (snr": "= (snr"}, ["predictor_corrector_held_back"]),
    "an inverse problem": (
        "4_inverse_problem",
        {
            ".repeat_interleave(2, 3) / 4": ".repeat_interleave(2, 3)",
            "variance = sigma**2 * data_std**2 / (sigma**2 + alpha**2 * data_std**2)": "variance = 0 * sigma",
            "quantile((1 - level) / 2": "quantile(1 - level",
        },
        ["shrink", "guided", "sample_posterior", "coverage"],
    ),
    "data of another scale": (
        "4_inverse_problem",
        {"sigma**2 * data_std**2 / (sigma**2 + alpha**2 * data_std**2)": "sigma**2 / (sigma**2 + alpha**2)"},
        ["guided_held_back"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_answer_loses_the_points_of_its_task_and_no_others(case):
    name, slips, lost = WRONG[case]
    notebook = nbformat.read(ROOT / "coursework" / f"{name}.ipynb", 4)
    for cell in of_role(notebook, "solution"):
        for right, wrong in list(slips.items()):
            if right in cell.source:
                cell.source = cell.source.replace(right, wrong)
                slips = {key: value for key, value in slips.items() if key != right}
    assert slips == {}
    # Training takes long, pictures take time, and neither tells more here.
    notebook.cells = [cell for cell in notebook.cells if not re.search(r"(?<!def )trained\(\)|plt\.show", cell.source)]
    found = outcomes(notebook)
    expected = {task + kind for task in lost for kind in ([""] if task.endswith(KINDS) else KINDS)}
    assert {cell.metadata.nbgrader.grade_id for cell in of_role(notebook, "test") if found[cell.id]} == expected
    assert all(isinstance(error, AssertionError) for error in found.values() if error)


def cell(source, **marks):
    """A code cell with nbgrader's metadata."""
    metadata = {"nbgrader": {"grade": False, "solution": False, "schema_version": 3, **marks}} if marks else {}
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def check(name, points, source):
    return cell(source, grade=True, grade_id=name, points=points, locked=True)


def answer(source):
    return cell(source, solution=True, grade_id="double", locked=False)


SOLVED = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"


def small_master():
    """An assignment of a line, which needs no package."""
    cells = [
        answer(SOLVED),
        check("seen", 1, "assert double(3) == 6, f'double(3) is {double(3)}'"),
        check("unseen", 2, "# Held back\n### BEGIN HIDDEN TESTS\nassert double(5) == 10\n### END HIDDEN TESTS"),
    ]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (answer("### BEGIN SOLUTION\nx = 1"), "no END"),
        (answer("x = 1\n### END SOLUTION"), "without its BEGIN"),
        (answer("### BEGIN SOLUTION\n### BEGIN SOLUTION\nx = 1\n### END SOLUTION"), "stands twice"),
        (cell("### BEGIN SOLUTION\nx = 1\n### END SOLUTION"), "do not fit"),
        (answer("x = 1"), "do not fit"),
        (cell("### BEGIN HIDDEN TESTS\nx = 1\n### END HIDDEN TESTS"), "do not fit"),
        (check("seen", 1, "### BEGIN HIDDEN TESTS\nx = 1"), "no END"),
    ],
)
def test_a_marker_in_the_wrong_place_would_give_a_secret_away_and_is_an_error(broken, words):
    with pytest.raises(ValueError, match=words):
        student_version(nbformat.v4.new_notebook(cells=[broken]), "small")


def test_a_stub_stands_where_the_solution_stood():
    made = student_version(small_master(), "small")
    assert made.cells[0].source == "def double(x):\n    # YOUR CODE HERE\n    raise NotImplementedError()"
    assert made.cells[2].source == "# Held back"
    assert made.metadata.scorebook.assignment == "small"


def handed_in(source):
    """A student's notebook of the small assignment."""
    notebook = student_version(small_master(), "small")
    notebook.cells[0].source = source
    return notebook


def points_of(submission, **options):
    return [mark.points for mark in grade(submission, small_master(), **options)]


def test_marks_are_those_of_the_master_whatever_has_become_of_its_tests():
    memorised = handed_in("def double(x):\n    return 6")
    memorised.cells[1].source = memorised.cells[2].source = "pass"
    memorised.cells.insert(2, memorised.cells[1])
    seen, unseen = grade(memorised, small_master())
    assert (seen.points, seen.out_of, seen.remark) == (1, 1, "")
    assert (unseen.points, unseen.out_of) == (0, 2)

    right = handed_in("def double(x):\n    return x + x")
    del right.cells[1:]
    assert points_of(right) == [1, 2]

    (remark, _) = [mark.remark for mark in grade(handed_in("def double(x):\n    return x"), small_master())]
    assert remark == "double(3) is 3"


def test_code_that_never_ends_or_ends_the_kernel_costs_its_own_points_only(monkeypatch):
    monkeypatch.setattr(assignments, "STUBBORN", 2)
    deadly = "import os\n\ndef double(x):\n    while x == 3:\n        pass\n    os._exit(1)"
    seen, unseen = grade(handed_in(deadly), small_master(), timeout=2)
    assert (seen.points, seen.remark) == (0, "stopped after 2 s")
    assert unseen.points == 0
    assert unseen.remark.startswith("not finished")

    stubborn = (
        "import time\n\ndef double(x):\n"
        "    while x == 5:\n"
        "        try:\n"
        "            time.sleep(60)\n"
        "        except KeyboardInterrupt:\n"
        "            pass\n"
        "    return 2 * x"
    )
    seen, unseen = grade(handed_in(stubborn), small_master(), timeout=2)
    assert (seen.points, unseen.points) == (1, 0)
    assert unseen.remark.startswith("not finished")


def test_from_generation_to_marks(tmp_path, capsys):
    assignments.main(["generate", str(tmp_path)])
    assert [path.stem for path in sorted((tmp_path / "student").iterdir())] == MASTERS
    source = nbformat.read(tmp_path / "nbgrader" / "source" / "1_score" / "1_score.ipynb", 4)
    assert source.cells == nbformat.read(ROOT / "coursework" / "1_score.ipynb", 4).cells

    submission = nbformat.read(tmp_path / "student" / "1_score.ipynb", 4)
    answers = {cell.id: cell.source for cell in of_role(master_of(submission), "solution")}
    for cell in submission.cells:
        cell.source = answers.get(cell.id, cell.source)
        if "def gaussian_score" in cell.source:
            assert "-torch.linalg.solve" in cell.source
            cell.source = cell.source.replace("-torch.linalg.solve", "torch.linalg.solve")
    handed_in = tmp_path / "somebody.ipynb"
    nbformat.write(submission, handed_in)

    assignments.main(["grade", str(handed_in), "--csv", str(tmp_path / "marks.csv")])
    told = " ".join(capsys.readouterr().out.split())
    assert f"{handed_in}: 8 of 10 points" in told
    assert "minus the log-density" in told
    with (tmp_path / "marks.csv").open(encoding="utf-8", newline="") as file:
        lost = {row["task"]: row["remark"] for row in csv.DictReader(file) if row["points"] == "0"}
    assert list(lost) == ["gaussian_score_check", "gaussian_score_held_back"]
    assert all("−1 times" in remark for remark in lost.values())


def test_a_notebook_that_answers_no_assignment_is_refused(tmp_path):
    stranger = tmp_path / "stranger.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), stranger)
    with pytest.raises(SystemExit, match="does not say which assignment"):
        assignments.main(["grade", str(stranger)])


def test_a_course_is_written_anew_and_nothing_old_stays(tmp_path):
    stale = tmp_path / "student" / "9_gone.ipynb"
    stale.parent.mkdir()
    stale.write_text("{}", encoding="utf-8")
    assert [path.stem for path in write_course(tmp_path)] == MASTERS
    assert not stale.exists()


@pytest.mark.parametrize("page", ["coursework.md", "build_your_own.md"])
def test_the_code_of_a_page_for_teachers_runs_and_prints_what_the_page_shows(page, root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", [*sys.path])
    text = (root / "book" / page).read_text(encoding="utf-8")
    namespace, compared = {}, 0
    for block, shown in re.findall(r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", text, re.S | re.M):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, page, "exec"), namespace)
        compared += bool(shown)
        assert printed.getvalue().split() == shown.split()
    assert compared >= 2
