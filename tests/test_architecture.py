"""What holds for every module: who imports whom, what is public, and that nothing draws from the global seed."""

import ast
import importlib
import pkgutil
import re
import shutil
import subprocess
import sys
from inspect import isclass, isroutine
from pathlib import Path

import public
import pytest

import scorebook

MODULES = sorted(name for _, name, _ in pkgutil.walk_packages(scorebook.__path__, "scorebook."))
# One whose name begins with an underscore is part of the module that imports it, for users and for tests.
PUBLIC = [name for name in MODULES if "._" not in name]
DRAWS = {"bernoulli", "multinomial", "normal", "rand", "rand_like", "randint", "randn", "randn_like", "randperm"}
IN_PLACE = {"bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_"}
# fit() without a generator makes one of its own, from a seed that the user's global generator chooses. While it runs,
# the global generators of NumPy and Python are lent to the data set, seeded and put back.
SEEDING = {("scorebook.lab.training", "randint")}
SEEDING |= {("scorebook.lab.batches", name) for name in ("get_state", "getstate", "seed", "set_state", "setstate")}


def lint_imports(folder):
    command = [sys.executable, Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")


def test_modules_import_only_what_stands_before_them(root):
    done = lint_imports(root)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("lab/metrics.py", "import scorebook.sde"),
        ("score_matching.py", "from scorebook.langevin import langevin"),
        ("sde.py", "from scorebook import coursework"),
        ("new_chapter.py", ""),
    ],
)
def test_the_import_rule_refuses_what_it_should(root, tmp_path, path, line):
    shutil.copytree(root / "scorebook", tmp_path / "scorebook", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    (tmp_path / "scorebook" / "coursework.py").touch()
    with (tmp_path / "scorebook" / path).open("a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert "0 kept, 1 broken" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("name", MODULES)
def test_a_module_says_what_is_public_and_explains_it(name):
    module = importlib.import_module(name)
    assert module.__doc__
    things = {name: getattr(module, name) for name in module.__all__}
    assert not [n for n, thing in things.items() if (isroutine(thing) or isclass(thing)) and not thing.__doc__]


@pytest.mark.parametrize("name", [name for name in PUBLIC if not hasattr(importlib.import_module(name), "__path__")])
def test_a_module_has_tests_of_its_name(root, name):
    assert (root / "tests" / f"test_{public.key(name)}.py").is_file()


@pytest.mark.parametrize("name", PUBLIC)
def test_a_module_is_in_the_reference(root, name):
    assert re.search(
        rf"^\.\. automodule:: {re.escape(name)}$", (root / "book" / "api.md").read_text(encoding="utf-8"), re.M
    )


def unseeded_draws(tree):
    """Names of the calls that draw random numbers without a generator, or that seed everybody's."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = ast.unparse(node.func.value), node.func.attr
        given = any(keyword.arg in ("generator", None) for keyword in node.keywords)
        drawn = (owner == "torch" and name in DRAWS) or name in IN_PLACE
        seeded = (owner, name) == ("torch", "manual_seed")
        of_numpy = owner in ("np.random", "numpy.random", "random") and name != "default_rng" and name.islower()
        if (drawn and not given) or seeded or of_numpy:
            yield name


@pytest.mark.parametrize("name", MODULES)
def test_all_randomness_comes_from_a_generator(name):
    tree = ast.parse(Path(importlib.import_module(name).__file__).read_text(encoding="utf-8"))
    assert [draw for draw in unseeded_draws(tree) if (name, draw) not in SEEDING] == []


@pytest.mark.parametrize(
    "line", ["torch.randn(3)", "x.normal_()", "torch.manual_seed(0)", "np.random.rand(3)", "random.random()"]
)
def test_a_draw_from_the_global_seed_is_seen(line):
    assert list(unseeded_draws(ast.parse(line)))
    assert not list(unseeded_draws(ast.parse("torch.randn(3, generator=g); np.random.default_rng(0).normal()")))


@pytest.mark.parametrize("path", sorted((Path(__file__).parent).glob("test_*.py")), ids=lambda path: path.name)
def test_a_mark_sits_where_pytest_heeds_it(path):
    """On a function that is no test, a mark does nothing."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    marked = {f.name for f in functions if any("mark." in ast.unparse(each) for each in f.decorator_list)}
    assert [name for name in marked if not name.startswith("test_")] == []


def private_names(tree):
    """Private names that a file defines, and those that it uses."""
    defined, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            (used if isinstance(node.ctx, ast.Load) else defined).add(name)
        elif isinstance(node, ast.ImportFrom):
            used |= {alias.name for alias in node.names}
    private = re.compile(r"_(?!_).").match
    return set(filter(private, defined)), set(filter(private, used))


def borrowed(texts):
    """Private names of one file that another uses, by the file that does: ``{path: names}``."""
    found = {path: private_names(ast.parse(text)) for path, text in texts.items()}
    ours = set().union(*(defined for defined, _ in found.values()))
    return {path: used & ours - defined for path, (defined, used) in found.items() if used & ours - defined}


def test_no_file_uses_a_private_name_of_another(root):
    paths = [
        path for folder in ("scorebook", "benchmarks", "tools", "examples") for path in (root / folder).rglob("*.py")
    ]
    texts = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    assert len(texts) > 60
    assert borrowed(texts) == {}


@pytest.mark.parametrize(
    "line",
    ["from scorebook.sde import _kernel", "sde._kernel(1)", "process._rate", "from scorebook.sde import _kernel as k"],
)
def test_a_private_name_of_another_file_is_seen(line):
    owner = "def _kernel(sde): ...\nclass SDE:\n    def __init__(self):\n        self._rate = 1\n"
    assert set(borrowed({"sde.py": owner, "flow.py": line})) == {"flow.py"}
    assert borrowed({"sde.py": owner, "flow.py": "import torch; torch._C; x.__len__(); _kernel = 1; _kernel(2)"}) == {}
