"""The oldest environment that ``make lowest`` makes is the one that ``pyproject.toml`` promises."""

import tomllib

import lowest
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PYPROJECT = """
[build-system]
requires = ["setuptools>=77"]
[project]
dependencies = ["torch>=2.6", "Pillow>=10"]
[project.optional-dependencies]
widgets = ["ipython>=7.34", "ipywidgets>=7.7"]
data = ["mlxtend>=0.23", "torchvision>=0.21"]
"""
LOCKED = (
    "# the package\npillow==13.0.0\nscipy==1.17.1\ntorch==2.13.0\n\n"
    "# the tests\nIPython==9.18.1\nipykernel==7.4.0\npytest==9.2.0\n"
)


def test_what_is_bounded_is_pinned_to_its_bound_and_the_tools_to_their_pins():
    assert lowest.requirements(PYPROJECT, LOCKED) == [
        *("torch==2.6", "pillow==10", "ipython==7.34", "ipywidgets==7.7", "mlxtend==0.23"),
        *("ipykernel<6.18", "setuptools>=77", "pytest==9.2.0"),
    ]


@pytest.mark.parametrize("unbounded", ["torch", "torch>=2.6,<3", "torch==2.6", "torch~=2.6"])
def test_a_dependency_without_one_lower_bound_is_refused(unbounded):
    with pytest.raises(ValueError, match="one lower bound"):
        lowest.requirements(PYPROJECT.replace("torch>=2.6", unbounded), LOCKED)


def test_every_bound_of_the_project_is_in_its_oldest_environment(root):
    texts = [(root / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "requirements.txt")]
    pins = {r.name: next(iter(r.specifier)).version for r in map(Requirement, lowest.requirements(*texts))}
    project = tomllib.loads(texts[0])["project"]
    extras = project["optional-dependencies"]
    bounds = [*map(Requirement, project["dependencies"] + extras["widgets"] + extras["data"])]
    bounds = [bound for bound in bounds if bound.name not in lowest.LEFT_OUT]
    assert "mlxtend" in pins
    assert all(Version(pins[r.name.lower()]) == Version(next(iter(r.specifier)).version) for r in bounds)
