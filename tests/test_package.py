"""What another project gets: a source archive, a wheel built from it, and a package that runs from the wheel alone."""

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
from execution_cache import package_files
from sources import files

pytestmark = pytest.mark.xdist_group("package")  # one worker builds the archives, once

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = [path for path in files(ROOT / "scorebook", "*.py") if path.name != "__init__.py"]


# What editors, systems and Jupyter leave in a clone, for nobody else.
JUNK = (
    ".DS_Store",
    "sde.py~",
    ".ipynb_checkpoints/sde-checkpoint.py",
    "lab/weights/digits.json~",
    "lab/weights/._x.json",
)


def run(*command, cwd, **environment):
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=variables, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A source archive, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("package")
    copy = folder / "source"
    for path in files(ROOT):
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for name in JUNK:
        target = copy / "scorebook" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"left behind")
    run("-c", "from setuptools.build_meta import build_sdist; build_sdist('../dist')", cwd=copy)
    (source,) = (folder / "dist").glob("*.tar.gz")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder / "dist"]
    run("-m", "pip", "wheel", *options, source, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return source, wheel


def shipped():
    return {path.relative_to(ROOT).as_posix() for path in package_files(ROOT)}


def test_the_archives_hold_the_package_its_data_and_its_licences_and_no_half_of_the_tests(archives):
    source, wheel = archives
    with tarfile.open(source) as archive:
        held = {member.name.partition("/")[2] for member in archive if member.isfile()}
    beside = {"LICENSE", "LICENSE-TEXT", "README.md", "pyproject.toml", "MANIFEST.in"}
    made = {
        name for name in held if name in ("PKG-INFO", "setup.cfg") or name.startswith("scorebook_diffusion.egg-info/")
    }
    assert held - made == shipped() | beside
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
        assert [name for name in shipped() if archive.read(name) != (ROOT / name).read_bytes()] == []
    assert shipped() == {name for name in held if name.startswith("scorebook/")}
    assert {Path(name).name for name in held if "licenses/" in name} == {"LICENSE", "LICENSE-TEXT"}
    assert wheel.name.startswith(f"scorebook_diffusion-{PROJECT['version']}-")


def test_the_package_runs_from_the_wheel_alone(archives, tmp_path):
    _, wheel = archives
    home = tmp_path / "home"
    run("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", home, wheel, cwd=tmp_path)
    program = """
from importlib.metadata import version
from pathlib import Path

import torch

import scorebook
from scorebook import controllable_generation, coursework, lab, probability_flow, sde

process = sde.VPSDE()
network, card = lab.pretrained("digits")
model = sde.ScoreModel(network, process, data_std=card["data_std"])
x = sde.euler_maruyama(process, model, process.sample_prior((2, 1, 8, 8)), n_steps=5)
lab.use_style()
law = lab.GaussianMixture([1.0], [[0.0]], 1.0)
coursework.check_score(law.score, law).require()
print(Path(scorebook.__file__).parent.parent)
print(scorebook.__version__, version("scorebook-diffusion"), *x.shape)
"""
    told = run("-c", program, cwd=tmp_path, PYTHONPATH=str(home)).splitlines()
    assert told == [str(home), f"{PROJECT['version']} {PROJECT['version']} 2 1 8 8"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_which_names_are_public(path):
    module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    }
    former = {name for name in defined if (getattr(module, name).__doc__ or "").startswith("The earlier name of")}
    assert defined - former <= set(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
    assert [name for name in defined if not getattr(module, name).__doc__] == []
