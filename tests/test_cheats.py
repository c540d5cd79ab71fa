"""A catalogue of cheats: each would win marks where tests and answers share a process, and wins none where they do not.

The answer of each is wrong. Beside the grading each is tried in the one kernel in which other tools run a notebook, to
see that it is a cheat and no mere failure; those that are none there say why they are tried.
"""

import contextlib
import pkgutil

import assignments
import confinement
import IPython
import nbformat
import pytest
from assignments import UNPROTECTED, grade, student_version
from examination import KernelDiedError, examination
from test_assignments import ROOT, cell, check

pytestmark = pytest.mark.xdist_group("cheats")  # one worker starts the kernels that most of these share

CONFINED = pytest.mark.skipif(
    confinement.level() < 6, reason="without Landlock this is not protected, as the page says"
)

ANSWER = """def double(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION"""

SCORE = """def score(log_prob, x):
    ### BEGIN SOLUTION
    x = x.detach().requires_grad_()
    return torch.autograd.grad(log_prob(x).sum(), x)[0]
    ### END SOLUTION"""

# One test of each style: plain assertions, torch's comparison, numpy's, and a check of the package.
TESTS = {
    "plain": """
truth = [2.0, 4.0]
assert [double(x) for x in (1.0, 2.0)] == truth, "that is not twice"
""",
    "torch": """
points = torch.linspace(0, 1, 5)
truth = 2 * points
given = double(points)
assert torch.allclose(given, truth), "that is not twice"
""",
    "numpy": """
truth = 2 * np.arange(4.0)
np.testing.assert_allclose(double(np.arange(4.0)), truth)
""",
    "check": """
law = lab.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.3).to(torch.float64)
coursework.check_score(lambda x: score(law.log_prob, x), law).require()
""",
}


def an_assignment():
    """Two answers and four tests, all of them held back."""
    answers = [cell(source, solution=True, grade_id=name) for name, source in (("double", ANSWER), ("score", SCORE))]
    answers[1].metadata["scorebook"] = {"own_work": ["scorebook.score_matching.score_of"]}
    tests = [
        check(name, 1, f"# Held back\n### BEGIN HIDDEN TESTS{source}### END HIDDEN TESTS")
        for name, source in TESTS.items()
    ]
    imports = cell("import numpy as np\nimport torch\n\nfrom scorebook import coursework, lab")
    return nbformat.v4.new_notebook(cells=[imports, *answers, *tests])


WRONG = "def double(x):\n    return x\n\ndef score(log_prob, x):\n    return x\n"

# By name: the cell that cheats, and the tests that it wins in one kernel.
CHEATS = {
    "an exception handler of IPython's": (
        WRONG + "get_ipython().set_custom_exc((BaseException,), lambda *arguments, **options: None)",
        [],  # the reply says that the cell failed; what the notebook shows does not
    ),
    "an input transformer": (
        WRONG
        + "def emptied(lines):\n"
        + "    return [] if any('assert' in line or 'require' in line for line in lines) else lines\n"
        + "get_ipython().input_transformers_cleanup.append(emptied)",
        ["plain", "torch", "numpy", "check"],
    ),
    "a transformer of syntax trees": (
        WRONG
        + "import ast\n"
        + "class Deaf(ast.NodeTransformer):\n"
        + "    def visit_Assert(self, node):\n"
        + "        return ast.copy_location(ast.Pass(), node)\n"
        + "get_ipython().ast_transformers.append(Deaf())",
        ["plain", "torch"],
    ),
    "the kernel's own reply": (
        WRONG
        + "from ipykernel.ipkernel import IPythonKernel\n"
        + "async def fine(self, *arguments, **options):\n"
        + "    return {'status': 'ok', 'execution_count': 1, 'payload': [], 'user_expressions': {}}\n"
        + "IPythonKernel.do_execute = fine",
        ["plain", "torch", "numpy", "check"],
    ),
    "a report that never fails": (
        WRONG + "from scorebook.coursework.reports import Report\nReport.require = lambda self: self",
        ["check"],
    ),
    "a check that always passes": (
        WRONG
        + "import scorebook.coursework\n"
        + "from types import SimpleNamespace\n"
        + "passed = SimpleNamespace(require=lambda: None)\n"
        + "scorebook.coursework.check_score = lambda *arguments, **options: passed",
        ["check"],
    ),
    "another scorebook": (
        WRONG
        + "import sys, types\n"
        + "from unittest.mock import MagicMock\n"
        + "sys.modules['scorebook'] = coursework = lab = MagicMock()",
        ["check"],
    ),
    "torch that finds all things close": (
        WRONG + "import torch\ntorch.allclose = lambda *given, **options: True",
        ["torch"],
    ),
    "numpy that finds all things close": (
        WRONG + "import numpy as np\nnp.testing.assert_allclose = lambda *given, **options: None",
        ["numpy"],
    ),
    "a tensor that agrees with everything": (
        "import torch\n"
        "class Yes(torch.Tensor):\n"
        "    @classmethod\n"
        "    def __torch_function__(cls, function, kinds, arguments=(), options=None):\n"
        "        return True\n"
        "def double(x):\n    return x.as_subclass(Yes)\n",
        ["torch"],
    ),
    "an object that equals everything": (
        "class Yes:\n"
        "    def __eq__(self, other):\n        return True\n"
        "    def __array__(self, *given, **options):\n        import numpy\n        return 2 * numpy.arange(4.0)\n"
        "def double(x):\n    return Yes()\n",
        ["plain", "numpy"],
    ),
    "the truth in a caller's frame": (
        "import sys\n"
        "def double(x):\n"
        "    frame, n = sys._getframe(), 0\n"
        "    while frame:\n"
        "        found = {**frame.f_globals, **frame.f_locals}\n"
        "        if 'truth' in found:\n"
        "            truth = found['truth']\n"
        "            return truth[int(x) - 1] if isinstance(x, float) else truth\n"
        "        frame = frame.f_back\n"
        "def score(log_prob, x):\n"
        "    frame = sys._getframe()\n"
        "    while frame:\n"
        "        if 'law' in frame.f_globals:\n"
        "            return frame.f_globals['law'].score(x)\n"
        "        frame = frame.f_back\n",
        ["plain", "torch", "numpy", "check"],
    ),
    "the truth among all objects": (
        "import gc\n"
        "def double(x):\n"
        "    spaces = [d for d in gc.get_objects() if isinstance(d, dict) and d.get('__name__') == '__main__']\n"
        "    truths = [d['truth'] for d in spaces if 'truth' in d]\n"
        "    return truths[0][int(x) - 1] if isinstance(x, float) else truths[0]\n",
        ["plain", "torch", "numpy"],
    ),
    "what the given function is made of": (
        "def score(log_prob, x):\n    return log_prob.__self__.score(x)\n",
        ["check"],
    ),
    "the package's own function": (
        "from scorebook.score_matching import score_of\n\ndef score(log_prob, x):\n    return score_of(log_prob, x)\n",
        ["check"],
    ),
    "the package's own function by another name": (
        "from scorebook import score_matching\n\nscore = vars(score_matching)['score_of']\n",
        ["check"],
    ),
    "a trace that jumps over assertions": (
        WRONG
        + "import sys\n"
        + "def local(frame, event, argument):\n"
        + "    lines = [n for _, _, n in frame.f_code.co_lines() if n]\n"
        + "    if event == 'line' and frame.f_lineno == max(lines):\n"
        + "        frame.f_trace_lines = False\n"
        + "        frame.f_globals['truth'] = frame.f_globals.get('given', [1.0, 2.0])\n"
        + "    return local\n"
        + "def trace(frame, event, argument):\n"
        + "    return local if frame.f_code.co_name == '<module>' else None\n"
        + "sys.settrace(trace)",
        ["plain", "torch"] if IPython.version_info[0] > 7 else [],  # the older one runs a cell line by line
    ),
    "other builtins": (
        WRONG + "import builtins\nbuiltins.AssertionError = type('Mild', (Warning,), {})\nbuiltins.abs = lambda x: 0",
        ["numpy"],  # an assertion does not ask what AssertionError is, numpy does
    ),
    "the end of the process": (
        "import os\ndef double(x):\n    os._exit(0)\ndef score(log_prob, x):\n    os._exit(0)\n",
        [],
    ),
    "the end of the process, asked for": (
        "def double(x):\n    raise SystemExit(0)\ndef score(log_prob, x):\n    raise SystemExit(0)\n",
        [],
    ),
    "something to do at the end": (WRONG + "import atexit\natexit.register(print, '4 of 4 points')", []),
    "a faked output": (WRONG + "print('✓ check_score passed: 4 of 4 points')", []),
    "an exception that is no error": (
        "class Fine(Exception):\n"
        "    def __str__(self):\n        return '✓ passed'\n"
        "def double(x):\n    raise Fine\ndef score(log_prob, x):\n    raise Fine\n",
        [],
    ),
    "a pickle": (
        "class Bomb:\n"
        "    def __reduce__(self):\n        return exec, ('import torch; torch.allclose = lambda *given: True',)\n"
        "def double(x):\n    return Bomb()\n",
        [],  # where answers are pickled on their way, it goes off
    ),
    "another end of the line": (
        WRONG
        + "import _grading, gc, pickle\n"
        + "class Bomb:\n"
        + "    def __reduce__(self):\n        return exec, ('import torch; torch.allclose = lambda *given: True',)\n"
        + "side = next(o for o in gc.get_objects() if type(o).__name__ == 'Student' and hasattr(o, 'wire'))\n"
        + "def forged(message, blobs):\n"
        + "    return {'value': ['value', 0], 'tensors': []}, [pickle.dumps(Bomb())]\n"
        + "side.on_fetch = side.on_call = forged",
        None,
    ),
    "the tests' own side of the line": (
        "import gc\n"
        "def score(log_prob, x):\n"
        "    side = log_prob.__dict__['_peer']\n"
        "    found, _ = side.ask({'kind': 'fetch', 'name': 'law', 'tensors': []}, [])\n"
        "    return found\n",
        None,
    ),
}

# Cheats that need the files or the processes of the machine. The words in braces are put in by the test.
INTRUSIONS = {
    "the master on the disk": (
        "import json\n"
        "cells = json.load(open({master!r}))['cells']\n"
        "import torch\n"
        "for part in cells:\n"
        "    if 'BEGIN SOLUTION' in ''.join(part['source']):\n"
        "        exec(''.join(part['source']))\n"
    ),
    "the grader's files": WRONG + "open({grader!r}, 'w').write('print(10)')",
    "the way to the tests' kernel": (
        WRONG
        + "import glob, json, os\n"
        + "files = glob.glob(os.path.dirname(os.environ['HOME']) + '/../judge/**', recursive=True)\n"
        + "assert any(os.path.isfile(f) and open(f, 'rb').read(1) is not None for f in files), files\n"
        + "open({grader!r}, 'w').write('found')"
    ),
    "the memory of the tests": (
        WRONG
        + "import os\n"
        + "for pid in filter(str.isdigit, os.listdir('/proc')):\n"
        + "    if b'grading_kernel' in open('/proc/' + pid + '/cmdline', 'rb').read() and int(pid) != os.getpid():\n"
        + "        open('/proc/' + pid + '/mem', 'rb+')\n"
        + "        open({grader!r}, 'w').write('found')\n"
    ),
    "a signal to the grader": WRONG + "import os\nos.kill(os.getppid(), 0)\nopen({grader!r}, 'w').write('found')",
}


def handed_in(cheat):
    master = an_assignment()
    submission = student_version(master, "cheated")
    submission.cells[1].source = cheat
    submission.cells[2].source = (
        cheat if "def score" in cheat or "score =" in cheat else "def score(f, x):\n    return x"
    )
    return submission, master


# These leave nothing behind that could be used again; the others are tried one after the other in one process.
DEADLY = ("the kernel's own reply", "the end of the process", "the end of the process, asked for")

# What a cheat replaces in its process is put back behind it: were it not, the next would win what it should not.
KEEP = """
import builtins, gc, sys, numpy, torch, scorebook.coursework, _grading
from scorebook.coursework.reports import Report

owners = [builtins, numpy, numpy.testing, torch, scorebook, scorebook.coursework, Report]
side = next(o for o in gc.get_objects() if type(o).__name__ == "Student" and hasattr(o, "wire"))

def put_back(
    sys=sys,
    shell=get_ipython(),
    transformers=list(get_ipython().input_transformers_cleanup),
    modules=dict(sys.modules),
    kept=[(owner, dict(vars(owner))) for owner in owners],
    side=side,
    own=dict(vars(side)),
):
    sys.settrace(None)
    shell.set_custom_exc((), None)
    shell.input_transformers_cleanup[:] = transformers
    shell.ast_transformers.clear()
    sys.modules.update(modules)
    for owner, names in kept:
        for name, thing in names.items():
            if vars(owner).get(name) is not thing:
                setattr(owner, name, thing)
    for name in set(vars(side)) - set(own):
        delattr(side, name)

_grading.put_back = put_back
"""


@pytest.fixture(scope="module")
def used():
    with examination(["scorebook.score_matching.score_of"]) as rooms:
        assert rooms.run(KEEP, 60).passed
        yield rooms


@pytest.fixture
def rooms(request, monkeypatch):
    """Two kernels, in which the submission is graded."""
    name = request.node.callspec.params["name"] if hasattr(request.node, "callspec") else ""
    with contextlib.ExitStack() as stack:
        if name in DEADLY:
            rooms = stack.enter_context(examination(["scorebook.score_matching.score_of"]))
        else:
            rooms = request.getfixturevalue("used")
            assert rooms.run("%reset -f", 60).passed
            assert rooms.judge.execute("%reset -f", 60).passed
        monkeypatch.setattr(assignments, "examination", lambda own_work: contextlib.nullcontext(rooms))
        yield rooms
        if name not in DEADLY:
            assert rooms.run("__import__('_grading').put_back()", 60).passed


def in_one_kernel(rooms, submission, master):
    """The tests that pass in the kernel of the submission, as other tools run a notebook."""
    passed = []
    with contextlib.suppress(KernelDiedError):
        for part in submission.cells[:3]:
            rooms.run(part.source, 120)
        for part in master.cells[3:]:
            if rooms.run(part.source, 120).passed:
                passed.append(part.metadata.nbgrader.grade_id)
    return passed


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_gains_no_mark(name, rooms):
    source, won = CHEATS[name]
    submission, master = handed_in(source)
    assert [mark.points for mark in grade(submission, master)] == [0, 0, 0, 0]
    if won is not None:
        assert in_one_kernel(rooms, submission, master) == won


@pytest.mark.parametrize("name", ["the package's own function"])
def test_the_books_own_work_is_named_with_the_students_line(name, rooms):
    submission, master = handed_in(CHEATS[name][0])
    remark = " ".join(grade(submission, master)[-1].remark.split())
    assert "here your own work is asked for, and score_matching.score_of is the book's" in remark
    assert "(line 4 of its cell, in score: return score_of(log_prob, x))" in remark


def test_what_students_are_to_write_is_in_the_package():
    for path in assignments.masters():
        for part in nbformat.read(path, 4).cells:
            for name in part.metadata.get("scorebook", {}).get("own_work", []):
                assert callable(pkgutil.resolve_name(name)), name


@CONFINED
@pytest.mark.parametrize("name", INTRUSIONS)
def test_a_cheat_that_needs_the_machine_gains_nothing(name, tmp_path, rooms):
    master, grader = tmp_path / "master.ipynb", tmp_path / "grader.py"
    nbformat.write(an_assignment(), master)
    grader.write_text("untouched", encoding="utf-8")
    submission, solved = handed_in(INTRUSIONS[name].format(master=str(master), grader=str(grader)))
    assert [mark.points for mark in grade(submission, solved)] == [0, 0, 0, 0]
    assert grader.read_text(encoding="utf-8") == "untouched"


def test_the_right_answer_gets_all_marks(rooms):
    master = an_assignment()
    assert [mark.points for mark in grade(master, master)] == [1, 1, 1, 1]


def test_what_is_not_protected_is_said_on_the_page():
    page = " ".join((ROOT / "book" / "coursework.md").read_text(encoding="utf-8").split())
    assert [words for words in UNPROTECTED if words not in page] == []
