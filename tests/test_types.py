"""What a type checker says of a user's calls: the right ones are accepted, the wrong ones refused, as by the package.

``user_calls/right.py`` is accepted as a whole, and it runs. Of ``user_calls/wrong.py`` each statement behind the mark
is refused, and raises when it is run.
"""

import ast
import importlib
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import public
import pytest

pytestmark = pytest.mark.xdist_group("types")  # one worker asks the type checker, once

RIGHT, WRONG = (Path(__file__).parent / "user_calls" / name for name in ("right.py", "wrong.py"))
MARK = "# Each statement below is wrong.\n"
SOURCE = WRONG.read_text(encoding="utf-8")
STATEMENTS = ast.parse(SOURCE).body
FIRST = SOURCE[: SOURCE.index(MARK)].count("\n") + 1
REFUSED = [node for node in STATEMENTS if node.lineno > FIRST]


@pytest.fixture(scope="module")
def said(root):
    """The lines of each file to which a user's type checker objects, with what it says."""
    done = subprocess.run([sys.executable, "-m", "mypy", RIGHT, WRONG], cwd=root, capture_output=True, encoding="utf-8")
    assert re.search(r"^(Found|Success)", done.stdout, re.M), done.stdout + done.stderr
    objections = re.findall(r"^.*?(\w+\.py):(\d+): error: (.*)$", done.stdout, re.M)
    return {
        path.name: {int(line): what for name, line, what in objections if name == path.name} for path in (RIGHT, WRONG)
    }


def test_right_calls_are_accepted(said):
    assert said["right.py"] == {}


def test_right_calls_run(capsys):
    runpy.run_path(str(RIGHT))


@pytest.mark.parametrize("node", REFUSED, ids=ast.unparse)
def test_a_wrong_call_is_refused(said, node):
    assert said["wrong.py"].keys() & range(node.lineno, node.end_lineno + 1)


def test_what_leads_up_to_the_wrong_calls_is_right(said):
    assert [what for line, what in said["wrong.py"].items() if line < FIRST] == []


@pytest.fixture(scope="module")
def names():
    """What the wrong calls refer to."""
    found = {}
    exec(SOURCE[: SOURCE.index(MARK)], found)
    return found


@pytest.mark.parametrize("node", REFUSED, ids=ast.unparse)
def test_a_wrong_call_raises(names, node):
    with pytest.raises((AttributeError, TypeError, ValueError)):
        exec(ast.unparse(node), dict(names))


# What the package itself says


def parameters(module, name):
    thing = importlib.import_module(public.MODULES[module])
    for part in name.split("."):
        thing = inspect.getattr_static(thing, part) if inspect.isclass(thing) else getattr(thing, part)
    signature = inspect.signature(getattr(thing, "fget", None) or getattr(thing, "__func__", thing))
    yield "return", signature.return_annotation
    yield from (
        (each.name, each.annotation) for each in signature.parameters.values() if each.name not in ("self", "cls")
    )


@pytest.mark.parametrize("module", public.MODULES)
def test_every_public_function_says_what_it_takes_and_gives(module):
    names = public.functions(importlib.import_module(public.MODULES[module]))
    unsaid = [
        f"{name}: {part}"
        for name in names
        for part, hint in parameters(module, name)
        if hint is inspect.Parameter.empty
    ]
    assert unsaid == []
