"""Colab keeps to its own versions: the package and the chapters must do with them, and must not move them."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from sources import files

ROOT = Path(__file__).resolve().parent.parent
SETUP = (ROOT / "tools" / "setup_cell.ipy").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHAPTERS = files(ROOT / "book", "*.ipynb")
MODULES = files(ROOT / "scorebook", "*.py")
DISTRIBUTIONS = {"sklearn": "scikit-learn", "PIL": "pillow", "IPython": "ipython"}


def shipped(text=None):
    """Version, or None where it is not recorded, of each package in Colab."""
    lines = (text or (ROOT / "tests" / "colab.txt").read_text(encoding="utf-8")).splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {r.name: next((Version(s.version) for s in r.specifier), None) for r in requirements}


def installed_by_the_setup_cell():
    command = re.search(r"^\s*%pip install (.*)$", SETUP, re.M)[1].split()
    return {word for word in command if re.fullmatch(r"[a-z]+", word)}


def unmet(requirements, versions):
    """Requirements that a set of installed versions does not satisfy."""
    failing = []
    for requirement in map(Requirement, requirements):
        version = versions.get(requirement.name)
        absent = requirement.name not in versions
        if absent or (version is not None and not requirement.specifier.contains(version)):
            failing.append(str(requirement))
    return failing


def imports(code):
    """Top-level names of all modules that a piece of Python imports."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def code_of(path):
    """The Python of a notebook, without magics and commands of the shell."""
    code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return "\n".join(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M) for source in code)


def unknown(names, available):
    """Modules that are neither Python's own nor scorebook's nor among the available distributions."""
    return {
        name
        for name in names - sys.stdlib_module_names - {"scorebook"}
        if DISTRIBUTIONS.get(name, name).lower() not in available
    }


def test_the_setup_cell_moves_nothing_that_colab_ships():
    command = re.search(r"^\s*%pip install (.*)$", SETUP, re.M)[1].split()
    assert "--no-deps" in command
    assert installed_by_the_setup_cell().isdisjoint(shipped())


def test_colab_has_what_the_package_asks_for():
    versions = shipped()
    assert Version("3.13") == versions["python"]
    assert not unmet([f"python{PROJECT['requires-python']}"], versions)
    needed = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["widgets"] + ["mlxtend>=0.23"]
    assert unmet(needed, versions | dict.fromkeys(installed_by_the_setup_cell())) == []


def test_a_requirement_that_colab_does_not_meet_is_seen():
    versions = shipped("numpy==2.1.3\ntorch==2.11.0\npillow\n")
    assert unmet(["numpy>=2.2", "torch>=2.6", "pillow>=10", "einops"], versions) == ["numpy>=2.2", "einops"]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_a_chapter_imports_only_what_is_there(path):
    assert unknown(imports(code_of(path)), set(shipped()) | installed_by_the_setup_cell()) == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_is_there(path):
    optional = {"torchvision", "matplotlib_inline"}  # of full_mnist; of Jupyter, Colab included
    names = imports(path.read_text(encoding="utf-8")) - optional
    assert unknown(names, set(shipped()) | installed_by_the_setup_cell()) == set()


def test_a_module_that_colab_lacks_is_seen():
    assert unknown(imports("import math, torch\nfrom einops import rearrange"), shipped()) == {"einops"}
