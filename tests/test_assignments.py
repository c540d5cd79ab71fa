"""The assignments: masters that pass their own checks, student notebooks that give nothing away, and marks."""

import contextlib
import copy
import csv
import io
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import assignments
import confinement
import examination as examination_module
import matplotlib.pyplot as plt
import nbformat
import pytest
from assignments import ROOT, grade, master_of, masters, read_submission, student_version, write_course
from examination import examination
from IPython.core.inputtransformer2 import TransformerManager
from sources import ignored
from test_notebooks_contract import SETUP, myst_in

# One worker starts the kernels that most of these share.
pytestmark = pytest.mark.xdist_group("assignments")

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


def test_assignments_have_ten_points_and_the_page_names_them():
    page = (ROOT / "book" / "coursework.md").read_text(encoding="utf-8")
    for name in MASTERS:
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
    assert text == visible(master) | set(assignments.STUBS["code"])
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
        ["guided_held_back", "sample_posterior_held_back"],
    ),
    "a whole sampler": (
        "5_whole_sampler",
        {"sde.prior_std * ": "", "(1 + noise**2) / 2": "1"},
        ["sampler", "between"],
    ),
    "errors of averages": (
        "10_monte_carlo",
        {
            "values.std(0) /": "values.std(0, correction=0) /",
            "averages.std() / math.sqrt(n_pairs)": "averages.std() / math.sqrt(2 * n_pairs)",
            "terms.std() / math.sqrt(len(terms))": "terms.std()",
            "weights = log_weights.softmax(0)": "weights = log_weights.exp() / log_weights.exp().sum()",
            "1 / log_weights.softmax(0).square().sum()": "log_weights.exp().sum() / log_weights.exp().square().sum()",
        },
        ["mean_and_error", "antithetic", "importance_check", "self_normalised", "effective_draws"],
    ),
    "the ratio of the proposals": (
        "11_metropolis",
        {"log_p_y - log_p_x + back - forth": "log_p_y - log_p_x"},
        ["log_ratio", "adjusted_langevin", "over_steps"],
    ),
    "a chain that has moved": (
        "11_metropolis",
        {"log_p = torch.where(take, log_p_y, log_p)": "log_p = log_p"},
        ["adjusted_langevin", "over_steps"],
    ),
    "the share that was taken": (
        "11_metropolis",
        {"return x, taken / n_steps": "return x, taken"},
        ["adjusted_langevin", "over_steps_held_back"],
    ),
    "directions and the ½": (
        "12_sliced",
        {"2 * bits.to(x.dtype) - 1": "bits.to(x.dtype)", "0.5 * model(x)": "model(x)"},
        ["projections", "plain_loss", "reduced_loss"],
    ),
    "a slice without its graph": (
        "12_sliced",
        {", create_graph=True)": ")"},
        ["sliced_divergence_held_back", "plain_loss", "reduced_loss"],
    ),
    "less noise without less of the score": (
        "5_whole_sampler",
        {"(1 + noise**2) / 2 * g**2": "g**2"},
        ["between_check", "between_held_back"],
    ),
    "a likelihood": (
        "6_likelihood",
        {
            "return sde.drift(x, t) - 0.5 *": "return sde.drift(x, t) -",
            "return sde.prior_log_prob(x) + integral": "return sde.prior_log_prob(x) - integral",
        },
        ["velocity", "log_prob", "bits_per_dim"],
    ),
    "guidance by classes": (
        "7_classes",
        {
            "torch.full_like(labels, null), labels": "0 * labels, labels",
            "torch.full_like(labels, null))\n": "0 * labels)\n",
            "scale * sde.sigma(t)": "scale",
        },
        ["drop_labels", "classifier_free", "guided_noise"],
    ),
    "posteriors and what is said of them": (
        "9_posterior",
        {
            "y.repeat(n_draws, 1)": "y.repeat_interleave(n_draws, 0)",
            "quantile((1 - level) / 2": "quantile(1 - level",
            "draws < truth": "draws > truth",
        },
        ["draw_posteriors", "coverage", "ranks"],
    ),
    "DDPM and DDIM": (
        "8_ddpm",
        {
            "-prediction": "prediction",
            "std = ((1 - before)": "std = (1 + 0 * (1 - before)",
            "- std**2).clamp": ").clamp",
        },
        ["conversions", "ddpm_step", "ddim_step"],
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
HELD_BACK = "# Held back\n### BEGIN HIDDEN TESTS\nassert double(three + 2) == 10\n### END HIDDEN TESTS"


def small_master():
    """An assignment of a line, which needs no package, and whose second test needs the first."""
    cells = [
        answer(SOLVED),
        check("seen", 1, "three = 3\nassert double(three) == 6, f'double(3) is {double(3)}'"),
        check("unseen", 2, HELD_BACK),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    for name, part in zip(("answer", "seen", "unseen"), cells, strict=True):
        part.id = name
    return notebook


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
        (check("seen", 1, "# BEGIN HIDDEN TESTS\nx = 1"), "no END"),
        (check("seen", 1, "x = 1\n#END HIDDEN TESTS"), "without its BEGIN"),
        (cell("# BEGIN MARK SCHEME\nx = 1\n# END MARK SCHEME"), "do not fit"),
        (answer("# begin solution\nx = 1\n# end solution"), "do not fit"),
    ],
)
def test_a_marker_in_the_wrong_place_would_give_a_secret_away_and_is_an_error(broken, words):
    with pytest.raises(ValueError, match=words):
        student_version(nbformat.v4.new_notebook(cells=[broken]), "small")


@pytest.mark.parametrize("mark", ["### {}", "# {}", "#{}", "    ### {}", "x = 0  # {} (see below)", "%% {} %%", "{}"])
def test_a_marker_is_one_wherever_nbgrader_finds_it(mark):
    begin, end = (mark.format(f"{side} HIDDEN TESTS") for side in ("BEGIN", "END"))
    master = nbformat.v4.new_notebook(cells=[check("seen", 1, f"shown = 1\n{begin}\nsecret = 1\n{end}\nshown = 2")])
    assert student_version(master, "small").cells[0].source == "shown = 1\nshown = 2"


@pytest.mark.parametrize("kind", ["code", "markdown", "raw"])
@pytest.mark.parametrize(
    "line",
    [
        "### begin hidden tests",
        "### Begin Hidden Tests",
        "### BEGIN  HIDDEN TESTS",
        "### BEGIN HIDDEN\u00a0TESTS",
        "### BEGIN_HIDDEN_TESTS",
        "### BEGIN HIDDEN-TEST",
        "### BEGIN HIDDEN TEST",
        "### BEGIN HIDDEN",
        "### BEGIN: SOLUTION",
        "# end solutions",
        "#ENDSOLUTION",
        "### Start solution",
        "### SOLUTION BEGIN",
        "### HIDDEN TESTS",
        "### hidden tests:",
        "### BEGIN TESTS",
        "# End marking scheme",
        "### MARK SCHEME",
    ],
)
def test_a_line_that_looks_like_a_marker_does_not_reach_a_student(line, kind):
    made = nbformat.v4.new_notebook(cells=[getattr(nbformat.v4, f"new_{kind}_cell")(f"x = 1\n{line}\nsecret = 1")])
    with pytest.raises(ValueError, match="looks like a marker"):
        student_version(made, "small")


@pytest.mark.parametrize(
    "line",
    [
        "At the weekend, solutions are discussed.",
        "Your code is held against hidden tests too.",
        "x_end, solution = solve(f, x_start)",
        "The test begins with a look at the solution.",
        "## Solution",
        "legend_tests = 1",
    ],
)
def test_an_ordinary_line_looks_like_no_marker(line):
    made = nbformat.v4.new_notebook(cells=[cell(line)])
    assert student_version(made, "small").cells[0].source == line


def test_two_tests_of_one_name_and_a_secret_picture_are_refused():
    with pytest.raises(ValueError, match="has the grade_id of another cell, 'seen'"):
        student_version(nbformat.v4.new_notebook(cells=[check("seen", 1, "x = 1"), check("seen", 1, "x = 2")]), "small")
    text = "### BEGIN SOLUTION\n![the proof](attachment:proof.png)\n### END SOLUTION"
    written = nbformat.v4.new_markdown_cell(text, attachments={"proof.png": {"image/png": ""}})
    written.metadata["nbgrader"] = {"solution": True, "grade": True, "grade_id": "proof", "points": 3}
    with pytest.raises(ValueError, match="pictures attached"):
        student_version(nbformat.v4.new_notebook(cells=[written]), "small")
    del written["attachments"]
    assert student_version(nbformat.v4.new_notebook(cells=[written]), "small").cells[0].source == "YOUR ANSWER HERE"


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


@pytest.fixture(scope="module")
def two_kernels():
    with examination() as rooms:
        yield rooms


@pytest.fixture
def shared(two_kernels, monkeypatch):
    """Grades in two kernels, emptied before each submission: to start them takes longer than a small notebook."""

    @contextlib.contextmanager
    def emptied(own_work=()):
        assert two_kernels.run("%reset -f", 60).passed
        assert two_kernels.prepare("%reset -f", 60).passed
        yield two_kernels

    monkeypatch.setattr(assignments, "examination", emptied)
    return two_kernels


def points_of(submission, **options):
    return [mark.points for mark in grade(submission, small_master(), **options)]


RIGHT = "def double(x):\n    return x + x"


@contextlib.contextmanager
def two_busy_programs():
    """Two other programs compute all the while."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


BESIDE = {"3_sampler": two_busy_programs}  # it computes longest, and lost points where its time was that of the clock


def test_a_master_gets_all_points_and_a_blank_notebook_none_however_busy_the_machine(
    name, master, student, shared, monkeypatch
):
    ran = {}

    def noted(source, timeout, run=shared.run):
        ran[source] = run(source, timeout)
        return ran[source]

    monkeypatch.setattr(shared, "run", noted)
    with BESIDE.get(name, contextlib.nullcontext)():
        given = grade(master, master)
    assert [mark for mark in given if mark.points < mark.out_of] == []
    assert sum(mark.out_of for mark in given) == 10
    assert [outcome.remark for outcome in ran.values() if not outcome.passed] == []
    blank = grade(student, master)
    assert [mark.points for mark in blank] == [0] * len(given)
    assert [mark for mark in blank if not re.search("no answer yet|NotImplementedError|not defined", mark.remark)] == []


def test_marks_are_those_of_the_master_whatever_has_become_of_its_tests(shared):
    memorised = handed_in("def double(x):\n    return 6")
    memorised.cells[1].source = memorised.cells[2].source = "pass"
    memorised.cells.insert(2, memorised.cells[1])
    seen, unseen = grade(memorised, small_master())
    assert (seen.points, seen.out_of, seen.remark) == (1, 1, "")
    assert (unseen.points, unseen.out_of) == (0, 2)

    (remark, _) = [mark.remark for mark in grade(handed_in("def double(x):\n    return x"), small_master())]
    assert remark == "double(3) is 3"


def also(source, like):
    """A copy of a cell with other contents, as a notebook's editor makes it: the metadata are copied, the id is new."""
    made = copy.deepcopy(like)
    made.source, made.id = source, nbformat.v4.new_code_cell().id
    return made


def arranged(source, arrangement):
    """The cells of a student who answers ``source`` and has rearranged the notebook."""
    notebook = handed_in(source)
    first, seen, unseen = notebook.cells
    two, apart = also("two = 2", seen), cell(source.replace("x + x", "two * x"))
    scratch = also("def double(x):\n    return None", first)
    renamed, strange = copy.deepcopy(seen), also(seen.source, cell(""))
    renamed.metadata.nbgrader.grade_id = "seen-copy1"
    appended, text = copy.deepcopy(seen), nbformat.v4.new_markdown_cell(seen.source, metadata=seen.metadata)
    appended.source = f"{source}\n\n{seen.source}"
    stub = handed_in("raise NotImplementedError()").cells[0]
    notebook.cells = {
        "as handed out": [first, seen, unseen],
        "a copy at the end": [first, seen, unseen, also(seen.source, seen)],
        "a copy before the answer": [also(seen.source, seen), first, seen, unseen],
        "code in a copy above the answer": [two, apart, seen, unseen],
        "code in the tests' place": [first, also("1 / 0", seen), also(source, unseen)],
        "split in two": [also("two = 2\nthree = 3", seen), also(seen.source.split("\n")[1], seen), apart, unseen],
        "the answer written into a test": [stub, appended, unseen],
        "the answer written into the last test": [stub, seen, also(source, unseen)],
        "tests above the answer": [seen, unseen, first],
        "tests in another order": [first, unseen, seen],
        "a test cut and pasted to the end": [first, unseen, cell("three = None"), seen],
        "tests deleted": [first],
        "the first test deleted": [first, unseen],
        "the last test deleted": [first, seen, cell("del double")],
        "a test renamed": [first, renamed, unseen],
        "a test without its metadata and identity": [first, strange, unseen],
        "a test that has become text": [first, text, unseen],
        "the answer in a new cell at the end": [stub, seen, unseen, cell(source)],
        "the answer deleted and written anew": [seen, unseen, cell(source)],
        "nothing but the answer in a new cell": [cell(source)],
        "an answer and a scratch copy of it": [first, seen, unseen, scratch],
        "a scratch copy and an answer": [scratch, first, seen, unseen],
    }[arrangement]
    return copy.deepcopy(notebook)


ARRANGEMENTS = [
    "as handed out",
    "a copy at the end",
    "a copy before the answer",
    "code in a copy above the answer",
    "code in the tests' place",
    "split in two",
    "the answer written into a test",
    "the answer written into the last test",
    "tests above the answer",
    "tests in another order",
    "a test cut and pasted to the end",
    "tests deleted",
    "the first test deleted",
    "the last test deleted",
    "a test renamed",
    "a test without its metadata and identity",
    "a test that has become text",
    "the answer in a new cell at the end",
    "the answer deleted and written anew",
    "nothing but the answer in a new cell",
    "an answer and a scratch copy of it",
    "a scratch copy and an answer",
]


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_rearranging_the_cells_costs_no_point_and_earns_none(arrangement, shared):
    assert points_of(arranged(RIGHT, arrangement)) == [1, 2]
    if arrangement != "code in a copy above the answer":
        assert points_of(arranged("def double(x):\n    return 7 * x + x - x", arrangement)) == [0, 0]


def test_a_notebook_without_cells_earns_nothing(shared):
    notebook = handed_in("")
    notebook.cells = []
    assert points_of(notebook) == [0, 0]


def test_a_traceback_that_is_shown_in_another_way_is_still_an_error():
    notebook = student_version(small_master(), "small")
    notebook.cells.insert(0, cell("from rich.traceback import install\ninstall()"))
    seen, unseen = grade(notebook, small_master())
    for mark in (seen, unseen):
        assert (mark.points, mark.remark.partition(" (")[0]) == (0, "NotImplementedError")


def test_tests_of_a_master_that_cannot_fail_are_worth_nothing(shared):
    master = small_master()
    master.cells.insert(0, cell("get_ipython().set_custom_exc((Exception,), print)\nimport ast"))
    deaf = (
        "class Deaf(ast.NodeTransformer):\n"
        "    def visit_Assert(self, node):\n"
        "        return ast.copy_location(ast.Pass(), node)\n\n"
        "get_ipython().ast_transformers.append(Deaf())"
    )
    master.cells.insert(1, cell(deaf))
    marks = grade(handed_in(RIGHT), master)
    assert shared.prepare("get_ipython().ast_transformers.clear()", 60).passed
    assert [(mark.points, mark.out_of) for mark in marks] == [(0, 1), (0, 2)]
    assert all("that must fail did not" in mark.remark for mark in marks)


def test_assertions_hold_though_the_grader_has_switched_them_off(monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    assert points_of(handed_in(RIGHT)) == [1, 2]  # where no assertion fails the canary would take them all


def test_who_asks_for_input_gets_an_error_and_no_hang(shared):
    asking = handed_in("def double(x):\n    return int(input('two? ')) * x")
    seen, unseen = grade(asking, small_master())
    assert (seen.points, unseen.points) == (0, 0)
    assert "does not support input requests" in seen.remark
    notebook = handed_in(RIGHT)
    notebook.cells[:0] = [cell("name = input()"), cell("import sys\nsys.stdin.read()"), cell("breakpoint()")]
    assert points_of(notebook) == [1, 2]


def test_code_that_never_ends_or_ends_the_kernel_costs_its_own_points_only(monkeypatch):
    monkeypatch.setattr(examination_module, "WAIT", 5)
    monkeypatch.setattr(examination_module, "GRACE", 20)
    monkeypatch.setattr(examination_module, "AGAIN", 4)
    program = (
        "import os, time\n\n"
        "def idle():\n    time.sleep(600)\n\n"
        "def busy():\n    while True:\n        pass\n\n"
        "def fine():\n    time.sleep(0.7)\n\n"  # beyond the limit, but not of computing
        "def stubborn():\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(600)\n"
        "        except KeyboardInterrupt:\n"
        "            pass\n"
    )
    names = ("wrong", "idle", "busy", "fine", "stubborn", "late")
    calls = [check(name, 1, f"{name}()" if name != "late" else "pass") for name in names]
    master = nbformat.v4.new_notebook(cells=[answer(program), *calls])
    wrong, idle, busy, fine, stubborn, late = grade(copy.deepcopy(master), master, timeout=0.5)
    assert wrong.remark == "name 'wrong' is not defined"
    assert idle.remark.startswith("stopped after 2.5 s, of which it computed for 0 s")
    assert busy.remark == "stopped after 0.5 s of computing"
    assert (idle.points, busy.points, fine.points) == (0, 0, 1)
    assert (stubborn.points, late.points) == (0, 0)
    assert stubborn.remark.startswith("stopped after")
    assert late.remark.startswith("not finished")

    seen, unseen = grade(
        handed_in("import os\n\ndef double(x):\n    x == 3 or os._exit(1)\n    return 6"), small_master()
    )
    assert (seen.points, unseen.points) == (1, 0)
    assert unseen.remark.startswith("not finished")


def test_from_generation_to_marks(shared, tmp_path, capsys):
    assignments.main(["generate", str(tmp_path)])
    assert sorted(path.stem for path in (tmp_path / "student").iterdir()) == sorted(MASTERS)
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

    marks = tmp_path / "a folder" / "of marks" / "marks.csv"
    assignments.main(["grade", str(handed_in), "--csv", str(marks)])
    told = " ".join(capsys.readouterr().out.split())
    assert f"{handed_in}: 8 of 10 points" in told
    assert "minus the log-density" in told
    with marks.open(encoding="utf-8", newline="") as file:
        lost = {row["task"]: row["remark"] for row in csv.DictReader(file) if row["points"] == "0"}
    assert list(lost) == ["gaussian_score_check", "gaussian_score_held_back"]
    assert all("−1 times" in remark for remark in lost.values())


def content_of(notebook):
    return nbformat.writes(notebook)


def changed(notebook, **entries):
    """The text of a notebook some of whose entries are others; the path to one is written with double underscores."""
    content = json.loads(content_of(notebook))
    for path, value in entries.items():
        place = content
        *parents, key = [int(part) if part.isdigit() else part for part in path.split("__")]
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[key]
        else:
            place[key] = value
    return json.dumps(content)


def of_format_3(notebook):
    cells = [
        {"cell_type": "code", "input": part.source, "language": "python", "metadata": part.metadata, "outputs": []}
        for part in notebook.cells
    ]
    content = {"nbformat": 3, "nbformat_minor": 0, "metadata": notebook.metadata, "worksheets": [{"cells": cells}]}
    return json.dumps(content)


def readable():
    """Files from which the right answer can be made out, by what is odd about them."""
    notebook = handed_in(RIGHT)
    text = content_of(notebook)
    last = len(notebook.cells)
    extra = copy.deepcopy(notebook)
    extra.cells += [cell("pass"), cell("pass")]
    same = json.loads(text)
    for part in same["cells"]:
        part["id"] = "same"
    return {
        "plain": text,
        "a byte order mark": b"\xef\xbb\xbf" + text.encode(),
        "UTF-16": text.encode("utf-16"),
        "UTF-16, big end first": b"\xfe\xff" + text.encode("utf-16-be"),
        "UTF-16 without its mark": text.encode("utf-16-le"),
        "UTF-32": text.encode("utf-32"),
        "Windows line ends": text.replace("\n", "\r\n"),
        "Windows line ends in the cells": json.dumps(json.loads(text)).replace("\\n", "\\r\\n"),
        "a cell without a source": changed(extra, **{f"cells__{last}__source": None}),
        "a source that is a number": changed(extra, **{f"cells__{last}__source": 5}),
        "metadata that are null": content_of(extra).replace('"metadata": {}', '"metadata": null'),
        "metadata of nbgrader that are text": changed(extra, **{f"cells__{last}__metadata": {"nbgrader": "x"}}),
        "a grade_id that is a list": changed(extra, **{f"cells__{last}__metadata": {"nbgrader": {"grade_id": ["x"]}}}),
        "a cell that is no cell": changed(extra, **{f"cells__{last}": 3}),
        "a cell of no kind": changed(extra, **{f"cells__{last}__cell_type": None}),
        "half a character": changed(extra, **{f"cells__{last}__source": "'\ud800'"}),
        "another kernel": changed(notebook, metadata__kernelspec={"name": "ir", "display_name": "R", "language": "R"}),
        "format 3": of_format_3(notebook),
        "format 5": changed(notebook, nbformat=5, nbformat_minor=0),
        "a huge version": changed(notebook, nbformat=10**400),
        "equal identities": json.dumps(same),
        "a conflict in a cell": changed(extra, **{f"cells__{last}__source": "<<<<<<< HEAD\nx = 1\n=======\nx = 2\n"}),
    }


def unreadable():
    """Files that are no notebook, and words from the remark."""
    text = content_of(handed_in(RIGHT))
    return {
        "empty": ("", "the file is empty"),
        "blank": ("\n \n", "the file is empty"),
        "truncated": (text[: len(text) // 2], "not a notebook"),
        "a web page": ("<!DOCTYPE html>\n<html></html>", "a web page"),
        "a merge conflict": (f"<<<<<<< HEAD\n{text}\n=======\n{text}\n>>>>>>> theirs\n", "merge conflict"),
        "a list": ("[]", "no list of cells"),
        "null": ("null", "no list of cells"),
        "no cells": ("{}", "no list of cells"),
        "cells that are null": ('{"cells": null}', "no list of cells"),
        "a picture": (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "not a notebook"),
        "a number too long": (text.replace('"nbformat": 4', '"nbformat": ' + "9" * 5000), "not a notebook"),
        "too deep": ("[" * 200_000, "not a notebook"),
        "latin-1": (text.replace("double", "doublé", 1).encode("latin-1"), "not a notebook"),
        "of no assignment": (changed(handed_in(RIGHT), metadata={}), "does not say which assignment"),
        "of a strange assignment": (changed(handed_in(RIGHT), metadata__scorebook=["x"]), "does not say which"),
    }


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("oddity", readable())
def test_what_can_be_read_is_graded(oddity, shared, tmp_path):
    submission = read_submission(put(tmp_path / "x.ipynb", readable()[oddity]))
    assert points_of(submission) == [1, 2]


@pytest.fixture
def small_course(shared, monkeypatch):
    """Grading knows the small assignment only."""

    def found(submission, find=assignments.master_of):
        small = submission.metadata.get("scorebook") == {"assignment": "small"}
        return small_master() if small else find(submission)

    monkeypatch.setattr(assignments, "master_of", found)


def rows_of(marks):
    with marks.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_that_cannot_be_read_costs_nobody_else_a_mark(small_course, tmp_path, capsys):
    bad = {put(tmp_path / f"{name}.ipynb", content): words for name, (content, words) in unreadable().items()}
    (tmp_path / "folder.ipynb").mkdir()
    bad[tmp_path / "folder.ipynb"] = "directory"
    bad[tmp_path / "missing.ipynb"] = "No such file"
    good = put(tmp_path / 'a "good", one;\n=1+1 é.ipynb', content_of(handed_in(RIGHT)))
    marks = tmp_path / "new" / "marks.csv"
    with pytest.raises(SystemExit) as stopped:
        assignments.main(["grade", *map(str, [*bad, good]), "--csv", str(marks)])
    assert stopped.value.code not in (0, None)
    rows = rows_of(marks)
    assert [row["submission"] for row in rows] == [*map(str, bad), str(good), str(good)]
    assert [row["points"] for row in rows] == ["0"] * len(bad) + ["1", "2"]
    for row, words in zip(rows, bad.values(), strict=False):
        assert words in row["remark"], row
    assert "3 of 3 points" in capsys.readouterr().out


def test_a_port_that_somebody_else_has_taken_costs_no_start(monkeypatch):
    kernel = examination_module.Kernel
    ready, failures = kernel.ready, [f"zmq.error.ZMQError: {examination_module.TAKEN}"] * 2

    def taken(self):
        if failures:
            raise RuntimeError(failures.pop())
        ready(self)

    monkeypatch.setattr(kernel, "ready", taken)
    with examination() as both:
        assert both.student.execute("answer = 6 * 7", 10).passed
    assert not failures
    failures += ["no memory"] * 2
    with pytest.raises(RuntimeError, match="no memory"), examination():
        pass
    assert len(failures) == 1


@pytest.mark.parametrize(("level", "said"), [(0, True), (1, False)])
def test_a_machine_that_cannot_shut_a_notebook_off_is_named(level, said, small_course, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(confinement, "level", lambda: level)
    assignments.main(["grade", str(put(tmp_path / "a.ipynb", content_of(handed_in(RIGHT))))])
    assert ("a student's code can reach your files" in capsys.readouterr().err) == said


def test_a_file_that_may_not_be_read_is_one_of_them(small_course, tmp_path, monkeypatch):
    closed = put(tmp_path / "closed.ipynb", content_of(handed_in(RIGHT)))

    def refuse(path, read=Path.read_bytes):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SystemExit, match=r"Not graded, and 0 points: .*closed\.ipynb"):
        assignments.main(["grade", str(closed), "--csv", str(tmp_path / "marks.csv")])
    assert "Permission denied" in rows_of(tmp_path / "marks.csv")[0]["remark"]


def test_marks_are_in_the_table_as_soon_as_they_are_known(small_course, tmp_path, monkeypatch):
    files = [str(put(tmp_path / f"{name}.ipynb", content_of(handed_in(RIGHT)))) for name in "abc"]
    marks, seen = tmp_path / "marks.csv", []

    def interrupted(*arguments, grade=assignments.grade, **options):
        seen.append(len(rows_of(marks)))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return grade(*arguments, **options)

    monkeypatch.setattr(assignments, "grade", interrupted)
    with pytest.raises(SystemExit) as stopped:
        assignments.main(["grade", *files, "--csv", str(marks)])
    assert stopped.value.code == 130
    assert seen == [0, 2, 4]
    assert [row["points"] for row in rows_of(marks)] == ["1", "2"] * 2


def test_the_table_is_opened_first_and_an_earlier_one_is_kept(small_course, tmp_path, capsys):
    submission = str(put(tmp_path / "a.ipynb", content_of(handed_in(RIGHT))))
    with pytest.raises(SystemExit, match="marks cannot be written"):
        assignments.main(["grade", submission, "--csv", str(tmp_path)])
    assert capsys.readouterr().out == ""
    marks = put(tmp_path / "marks.csv", "the marks of last week")
    assignments.main(["grade", submission, "--csv", str(marks)])
    assert (tmp_path / "marks.csv~").read_text(encoding="utf-8") == "the marks of last week"
    assert len(rows_of(marks)) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_shows_what_it_can(encoding, tmp_path, monkeypatch):
    path = put(tmp_path / "a.ipynb", content_of(handed_in(RIGHT)))
    remark = "✗ your score is −1 times the true one"
    monkeypatch.setattr(assignments, "master_of", lambda submission: None)
    monkeypatch.setattr(assignments, "grade", lambda *given, **options: [assignments.Mark("seen", 0, 1, remark)])
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with contextlib.redirect_stdout(terminal):
        assignments.main(["grade", str(path), "--csv", str(tmp_path / "marks.csv")])
    terminal.flush()
    assert b"your score is ?1 times the true one" in terminal.buffer.getvalue()
    assert rows_of(tmp_path / "marks.csv")[0]["remark"] == remark


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_course_is_written_where_no_terminal_can_show(encoding, tmp_path):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with contextlib.redirect_stdout(terminal):
        assignments.main(["generate", str(tmp_path / "осень")])
    terminal.flush()
    assert b"/?????/nbgrader" in terminal.buffer.getvalue()
    assert len(list((tmp_path / "осень" / "student").iterdir())) == len(MASTERS)


@pytest.mark.parametrize("metadata", [{}, {"scorebook": None}, {"scorebook": {"assignment": "renamed"}}])
def test_a_notebook_that_has_lost_its_name_is_known_by_its_cells(master, student, metadata):
    """As a master has none, and as an editor may throw it away."""
    for notebook in (master, student):
        nameless = nbformat.from_dict({"metadata": metadata, "cells": notebook.cells})
        assert master_of(nameless).cells == master.cells


def test_what_mixes_two_assignments_is_neither():
    first, second = (nbformat.read(path, 4) for path in masters()[:2])
    mixture = nbformat.from_dict({"metadata": {}, "cells": first.cells + second.cells})
    with pytest.raises(ValueError, match="does not say which assignment"):
        master_of(mixture)


@pytest.mark.parametrize("limit", ["0", "-1", "soon", "nan", "inf"])
def test_a_time_limit_is_a_positive_number_of_seconds(limit, capsys):
    with pytest.raises(SystemExit):
        assignments.main(["grade", "x.ipynb", "--timeout", limit])
    assert f"must be a positive number of seconds, got '{limit}'" in capsys.readouterr().err


def test_a_course_is_written_again_and_keeps_what_others_wrote(tmp_path):
    written, edited = write_course(tmp_path)
    assert [path.stem for path in written] == MASTERS
    assert edited == []
    theirs = {
        "nbgrader/submitted/ada/1_score/1_score.ipynb": "an answer",
        "nbgrader/gradebook.db": "the marks",
        "nbgrader/source/header.ipynb": "a header",
        "student/notes.txt": "notes",
        "student/9_ours.ipynb": "{}",
    }
    for name, content in theirs.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    mended, config = written[0], tmp_path / "nbgrader" / "nbgrader_config.py"
    for path in (mended, config):
        path.write_text(path.read_text(encoding="utf-8") + "# mine", encoding="utf-8")
    written[1].unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    again, edited = write_course(tmp_path)
    assert again == written
    assert sorted(edited) == sorted([mended, config])
    assert {path: path.read_bytes() for path in before} == before
    assert written[1].exists()


def test_what_a_person_has_edited_is_named(tmp_path, capsys):
    assignments.main(["generate", str(tmp_path)])
    capsys.readouterr()
    mended = tmp_path / "student" / "1_score.ipynb"
    mended.write_text("mine", encoding="utf-8")
    assignments.main(["generate", str(tmp_path)])
    assert f"Left as somebody edited it: {mended}." in capsys.readouterr().out
    assert mended.read_text(encoding="utf-8") == "mine"


def test_a_file_of_a_master_that_is_gone_goes_with_it_unless_somebody_edited_it(tmp_path):
    root, course = tmp_path / "root", tmp_path / "course"
    (root / "coursework").mkdir(parents=True)
    for name in ("1_small", "2_small", "3_small"):
        nbformat.write(small_master(), root / "coursework" / f"{name}.ipynb")
    write_course(course, root)
    put(course / "student" / "2_small.ipynb", "mine")
    for name in ("1_small", "2_small"):
        (root / "coursework" / f"{name}.ipynb").unlink()
    written, edited = write_course(course, root)
    assert sorted(path.name for path in (course / "student").iterdir()) == ["2_small.ipynb", "3_small.ipynb"]
    assert [path.name for path in (course / "nbgrader" / "source").iterdir()] == ["3_small"]
    assert (written, edited) == ([course / "student" / "3_small.ipynb"], [course / "student" / "2_small.ipynb"])

    # A master that has changed is written anew, and so is everything where the record is lost but nothing differs.
    changed_master = small_master()
    changed_master.cells[0].source = SOLVED.replace("(x)", "(y)")
    nbformat.write(changed_master, root / "coursework" / "3_small.ipynb")
    assert write_course(course, root)[1] == [course / "student" / "2_small.ipynb"]
    assert "def double(y)" in (course / "student" / "3_small.ipynb").read_text(encoding="utf-8")
    put(course / ".generated", "not JSON")
    assert write_course(course, root)[1] == []


def test_a_master_that_gives_a_secret_away_writes_no_course(tmp_path, capsys):
    root, course = tmp_path / "root", tmp_path / "course"
    (root / "coursework").mkdir(parents=True)
    leaky = small_master()
    leaky.cells[2].source = leaky.cells[2].source.replace("BEGIN", "Begin").replace("END", "End")
    nbformat.write(small_master(), root / "coursework" / "1_small.ipynb")
    nbformat.write(leaky, root / "coursework" / "2_leaky.ipynb")
    with pytest.raises(ValueError, match="cell unseen in 2_leaky would go to students with what looks like a marker"):
        write_course(course, root)
    assert not course.exists()


def test_a_course_lies_where_make_clean_does_not_reach(root):
    for folder in (root / "_build", root / "_build" / "coursework", root / "book" / ".." / "_build" / "x"):
        with pytest.raises(ValueError, match="a course must lie elsewhere"):
            write_course(folder)
    asked = subprocess.run(
        ["make", "-n", "--no-print-directory", "coursework", "FOLDER=a b"],
        cwd=root,
        capture_output=True,
        encoding="utf-8",
    )
    assert asked.stdout.splitlines()[-1].endswith('tools/assignments.py generate "$FOLDER"')
    assert ignored(root / "course" / "student" / "1_score.ipynb", root)


@pytest.mark.parametrize("page", ["coursework.md", "build_your_own.md"])
def test_the_code_of_a_page_for_teachers_runs_and_prints_what_the_page_shows(page, shared, root, monkeypatch):
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
