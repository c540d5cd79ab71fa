"""The book is the same wherever its folder lies and whatever its user has set up there.

Here the situations are imitated, at the cost of a kernel or a command each. ``make places`` tries real clones.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import sources
import surroundings
import yaml
from sphinx.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
HAS_GIT = pytest.mark.skipif(not shutil.which("git"), reason="no git on this machine")
MAKE = shutil.which("make")
HAS_MAKE = pytest.mark.skipif(not MAKE, reason="no make on this machine")

# What lies about in folders in which people work, and what must not be taken for it.
LITTER = [
    ".DS_Store",
    "._langevin.py",
    "langevin.py~",
    ".langevin.py.swp",
    "#langevin.py#",
    ".#langevin.py",
    "langevin.py.orig",
    "Untitled.ipynb",
    "Untitled1.ipynb",
    "untitled.py",
    "langevin-Copy1.ipynb",
    "langevin copy.ipynb",
    "langevin copy 2.py",
    "langevin - Copy.ipynb",
    "langevin (1).ipynb",
    "__MACOSX/langevin.ipynb",
    "langevin.pyc",
    "langevin.ipynb.tmp",
    "langevin.py.save",
    ".ipynb_checkpoints/langevin-checkpoint.ipynb",
    ".ipynb_checkpoints/test_langevin-checkpoint.py",
    "__pycache__/langevin.cpython-311.pyc",
    ".vscode/settings.json",
    "Thumbs.db",
]
KEPT = [
    "langevin.py",
    "langevin.ipynb",
    "digits.json",
    "py.typed",
    "building.py",
    "copy.py",
    "copyright.md",
    "langevin_copy.py",
    "build_your_own.md",
    ".npmrc",
]


# What lies about


@pytest.mark.parametrize(("name", "litter"), [(name, True) for name in LITTER] + [(name, False) for name in KEPT])
@pytest.mark.parametrize("folder", ["scorebook", "book", "coursework", "tests"])
def test_what_is_left_by_programs_is_told_from_what_is_written(folder, name, litter):
    assert sources.ignored(ROOT / folder / name) == litter


@HAS_GIT
def test_git_passes_over_the_same_files(tmp_path):
    shutil.copy(ROOT / ".gitignore", tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for name in LITTER + KEPT:
        (tmp_path / "book" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "book" / name).touch()
    command = ["git", "ls-files", "-z", "--others", "--exclude-standard", "book"]
    listed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, encoding="utf-8").stdout
    assert sorted(listed.split("\0")[:-1]) == [
        path.relative_to(tmp_path).as_posix() for path in sources.files(tmp_path / "book", root=tmp_path)
    ]


@pytest.fixture(scope="module")
def littered(tmp_path_factory):
    """A small copy of the repository, in a folder with a name that few expect, with litter everywhere."""
    copy = tmp_path_factory.mktemp("with späces and 'quotes'") / "o'clone"
    copy.mkdir()
    for name in ("conftest.py", "pyproject.toml", ".gitignore", "Makefile"):
        shutil.copy(ROOT / name, copy)
    for folder in ("scorebook", "tools"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("book", "tests", "coursework"):
        (copy / folder).mkdir()
        shutil.copy(ROOT / "book" / "langevin.ipynb", copy / folder)
    (copy / "tests" / "test_one.py").write_text("def test_one(): pass\n", encoding="utf-8")
    for folder in ("scorebook", "scorebook/lab/weights", "book", "tests", "coursework"):
        for name in LITTER:
            path = copy / folder / name
            path.parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / "book" / "langevin.ipynb", path)
    return copy


def python(*command, cwd=ROOT, **environment):
    """What a command prints, in an environment with some variables of its own; None removes one."""
    variables = {name: value for name, value in (os.environ | environment).items() if value is not None}
    return subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=variables, capture_output=True, encoding="utf-8"
    )


def test_the_tests_are_those_of_the_project(littered):
    done = python("-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", cwd=littered, PYTHONPATH=None)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"^(.+?)(?:::|\[)", done.stdout, re.M)) == {
        "tests/test_one.py",
        "tests/langevin.ipynb",
        "book/langevin.ipynb",
        "coursework/langevin.ipynb",
    }


# Whose package it is


def test_the_package_of_another_clone_is_refused(tmp_path, monkeypatch):
    assert surroundings.foreign_package() is None
    assert str(ROOT / "scorebook" / "__init__.py") in surroundings.foreign_package(tmp_path)
    monkeypatch.setattr(surroundings, "foreign_package", lambda: "another clone's")
    with pytest.raises(ConfigError, match="another clone's"):
        surroundings.stop_at_a_foreign_package(None, None)


def test_the_tests_of_another_clone_do_not_run(littered, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(littered, copy, ignore=shutil.ignore_patterns("scorebook", "._*"))
    done = python("-m", "pytest", "tests/test_one.py", "-p", "no:cacheprovider", cwd=copy, PYTHONPATH=ROOT)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert f"import scorebook finds {ROOT / 'scorebook' / '__init__.py'}, which is not in {copy}" in done.stderr


# What a user has set

CELLS = """
import json, locale, os, sys
import matplotlib.pyplot as plt, numpy
import scorebook
told = {
    "package": scorebook.__file__,
    "line width": plt.rcParams["lines.linewidth"],
    "inline": "inline" in plt.get_backend(),
    "start-up files": sorted(name for name in ("PROFILE", "STARTUP", "CONFIG") if name in globals()),
    "site": hasattr(sys, "SITE"),
    "optimised": sys.flags.optimize,
    "encoding": locale.getpreferredencoding(False),
    "interpreter": sys.prefix,
}
print(json.dumps(told))
"""
EXECUTE = """
import sys; sys.path.insert(0, "tools")
import surroundings, execution_cache, nbformat
from nbclient import NotebookClient
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(open(sys.argv[1], encoding="utf-8").read())])
NotebookClient(notebook, kernel_name="python3").execute()
for output in notebook.cells[0].outputs: print(output.name, output.text, end="")
"""


def hostile(home):
    """Variables of a user who has set up all that can be set up, in files below a home directory."""
    site = home / "site"
    for name, text in {
        ".config/matplotlib/matplotlibrc": "lines.linewidth: 7\n",
        ".ipython/profile_default/startup/00-mine.py": "PROFILE = print('hello')\n",
        ".ipython/profile_default/ipython_config.py": "get_config().InteractiveShellApp.exec_lines = ['CONFIG = 1']\n",
        ".local/share/jupyter/kernels/python3/kernel.json": json.dumps({"argv": ["false"], "display_name": "mine"}),
        ".jupyter/jupyter_config.py": "raise SystemExit\n",
        "pythonrc.py": "STARTUP = print('hello')\n",
        "site/sitecustomize.py": "import sys; sys.SITE = True; print('hello', file=sys.stderr)\n",
        "site/scorebook/__init__.py": "",
    }.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    return {
        "HOME": str(home),
        "IPYTHONDIR": str(home / ".ipython"),
        "JUPYTER_CONFIG_DIR": str(home / ".jupyter"),
        "JUPYTER_PATH": str(home / ".local" / "share" / "jupyter"),
        "JUPYTER_PREFER_ENV_PATH": "0",
        "JPY_SESSION_NAME": "terminal",
        "MATPLOTLIBRC": str(home / ".config" / "matplotlib" / "matplotlibrc"),
        "MPLCONFIGDIR": str(home / ".config" / "matplotlib"),
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(site),
        "PYTHONSTARTUP": str(home / "pythonrc.py"),
        "PYTHONOPTIMIZE": "1",
        "PYTHONWARNINGS": "default",
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": "latin-1",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "TQDM_MININTERVAL": "0",
    }


USERS = {
    "with everything set": hostile,
    # Nobody, not even root, can make a folder below /proc.
    "with a home nobody writes to": lambda home: {"HOME": "/proc/home"},
    "without a home": lambda home: {"HOME": None, "MPLCONFIGDIR": None, "IPYTHONDIR": None},
}


@pytest.mark.parametrize("user", USERS)
def test_a_chapter_is_executed_the_same_for_each_user(littered, tmp_path, user):
    home = tmp_path / "öde höme"
    home.mkdir()
    cells = tmp_path / "cells.py"
    cells.write_text(CELLS, encoding="utf-8")
    variables = USERS[user](home)
    before = sorted(home.rglob("*"))
    done = python("-c", EXECUTE, cells, cwd=littered, **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    stream, _, told = done.stdout.partition(" ")
    assert stream == "stdout", f"a page on which something complains: {done.stdout}"
    assert json.loads(told) == {
        "package": str(littered / "scorebook" / "__init__.py"),
        "line width": 1.5,
        "inline": True,
        "start-up files": [],
        "site": False,
        "optimised": 0,
        "encoding": "utf-8",
        "interpreter": sys.prefix,
    }
    assert sorted(home.rglob("*")) == before


# How texts are read and shown


def nameless(tree):
    """Lines of a module that read or write a text in whatever encoding a machine prefers."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if method else getattr(node.func, "id", None)
        position = {("read_text", True): 0, ("write_text", True): 1, ("open", True): 2, ("open", False): 3}.get(
            (name, method)
        )
        mode = [part.value for part in [*node.args, given.get("mode")] if isinstance(part, ast.Constant)]
        binary = name == "open" and any(re.fullmatch(r"[rwxa+]*b[rwxa+]*", str(part)) for part in mode)
        opener = method and ast.unparse(node.func.value) in ("Image", "tarfile", "gzip", "os")
        piped = any(getattr(given.get(key), "value", False) for key in ("universal_newlines", "text"))
        reads = position is not None and len(node.args) <= position and not binary and not opener
        if (reads or (piped and name in ("run", "Popen", "check_output", "npm", "node"))) and "encoding" not in given:
            yield node.lineno


@pytest.mark.parametrize("path", sources.files(ROOT, "*.py"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_text_is_read_and_written_in_a_named_encoding(path):
    assert list(nameless(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("open(path)", True),
        ("path.open('w')", True),
        ("subprocess.run(command, text=True)", True),
        ("path.read_text(encoding='utf-8')", False),
        ("open(path, 'rb')", False),
        ("path.open('r+b')", False),
        ("os.open(path, os.O_RDONLY)", False),
        ("subprocess.run(command, capture_output=True)", False),
    ],
)
def test_an_encoding_left_to_the_machine_is_seen(line, seen):
    assert bool(list(nameless(ast.parse(line)))) == seen


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_closing_table_is_shown_on_every_terminal(encoding):
    program = "from scorebook import lab; lab.claims([lab.Claim('the law of σ²', 1e-7, at_most=2.0, error=1e-9)])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert "the law of" in done.stdout.decode(encoding)


# What make does


@pytest.fixture
def made(littered, tmp_path):
    """A folder with a Makefile and what looks like an environment, and a function that says what make would do."""
    folder = tmp_path / "ein $HOME mit `späces`"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name, version in {".venv/bin/python": "(3, 11)", "python3": "(3, 11)", "python3.12": "(3, 12)"}.items():
        # Asked without -I, a Python says first what its user's sitecustomize.py has to say.
        script = f"#!/bin/sh\ntest \"$1\" = -I || echo hello >&2\necho '{version}'\n"
        (folder / name).write_text(script, encoding="utf-8")
        (folder / name).chmod(0o755)
    (folder / ".venv" / ".installed").touch()
    config = folder / ".venv" / "pyvenv.cfg"

    def make(*arguments, command=None, **environment):
        config.write_text(f"command = python3 -m venv {command or folder / '.venv'}\n", encoding="utf-8")
        variables = {"PATH": os.environ["PATH"]} | environment
        done = subprocess.run([MAKE, *arguments], cwd=folder, env=variables, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        assert "Error" not in done.stderr, done.stderr
        return done.stdout

    make.folder = folder
    return make


@HAS_MAKE
def test_an_environment_is_made_once(made):
    assert "venv" in made("-n", "book")
    assert "-m venv" not in made("-n", "book")
    assert "pip install" not in made("-n", "book")


@HAS_MAKE
@pytest.mark.parametrize(
    "change",
    [
        lambda made: {"command": "/elsewhere/clone/.venv"},
        lambda made: {"command": f"--clear /elsewhere{made.folder}/.venv"},
        lambda made: (made.folder / ".venv" / "bin" / "python").unlink(),
        lambda made: shutil.rmtree(made.folder / ".venv" / "bin"),
    ],
    ids=["copied or moved", "below a path of the same name", "its Python gone", "unfinished"],
)
def test_an_environment_of_another_place_is_made_anew(made, change):
    said = made("-n", "test", **(change(made) or {}))
    assert (
        said.index("rm -rf .venv") < said.index("-m venv .venv") < said.index("pip install") < said.index("-m pytest")
    )


@HAS_MAKE
@pytest.mark.parametrize(("version", "anew"), [("./python3.12", True), ("./python3", False)])
def test_the_python_that_is_named_is_taken(made, version, anew):
    assert (f"{version} -m venv .venv" in made("-n", "test", f"PYTHON={version}")) == anew
    assert (f"{version} -m venv .venv" in made("-n", "test", PYTHON=version)) == anew


@HAS_MAKE
def test_a_shared_environment_is_left_to_those_who_share_it(made, tmp_path):
    """Where ``.venv`` is a link to another clone's, the link is replaced."""
    shared, link = tmp_path / "shared", made.folder / ".venv"
    shutil.move(link, shared)
    link.symlink_to(shared)
    stand_in = made.folder / "python3"
    stand_in.write_text('#!/bin/sh\n[ "$2" != venv ] || mkdir -p "$3"\n', encoding="utf-8")
    made(".venv-anew", "PYTHON=./python3", command="/elsewhere/.venv")
    assert (shared / "bin" / "python").exists()
    assert not link.is_symlink()
    assert link.is_dir()


def test_no_script_of_the_environment_is_started_by_its_first_line():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    started = re.findall(r"(?:^\t@?(?:test -x )?|[|;&] *|xargs )\$\((?:BIN|BENCH)\)(?:/bin)?/([\w-]+)", text, re.M)
    assert set(started) == {"python"}
    assert len(started) > 10


@HAS_MAKE
def test_what_is_set_for_other_work_does_not_reach_the_commands(made):
    (made.folder / "extra.mk").write_text("show:\n\t@env\n", encoding="utf-8")
    foreign = {
        name: "x" for name in hostile(made.folder / "home") if name not in ("HOME", "LC_ALL", "TQDM_MININTERVAL")
    }
    foreign |= dict.fromkeys(("PYTHONHOME", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"), "x")
    foreign |= dict.fromkeys(("PIP_TARGET", "PIP_USER", "PIP_PREFIX", "PIP_NO_DEPS", "PIP_CONSTRAINT", "GIT_DIR"), "x")
    kept = dict.fromkeys(("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "SCOREBOOK_DEVICE", "HTTPS_PROXY"), "x")
    shown = made("-f", "Makefile", "-f", "extra.mk", "show", **foreign, **kept).splitlines()
    assert {f"{name}=x" for name in kept} <= set(shown)
    assert not {f"{name}=x" for name in foreign} & set(shown)
    assert {"PYTHONUTF8=1", "PYTHONNOUSERSITE=1", "PIP_USER=0"} <= set(shown)


@HAS_MAKE
def test_targets_take_turns_whatever_the_number_of_jobs(made):
    (made.folder / "extra.mk").write_text("one:\n\t@sleep 0.5; echo one\ntwo:\n\t@echo two\n", encoding="utf-8")
    assert made("-j4", "-f", "Makefile", "-f", "extra.mk", "one", "two").split() == ["one", "two"]


# Where it comes from


@HAS_GIT
def test_a_checkout_has_the_same_bytes_on_each_system(tmp_path):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    shutil.copy(ROOT / ".gitattributes", there)
    (there / "run").write_bytes(b"#!/bin/sh\r\necho\r\n")
    (there / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\r\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.autocrlf=true", "-c", "core.safecrlf=false"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"], ["clone", "-q", there, here]):
        subprocess.run([*git, *command], cwd=there, check=True)
    assert (here / "run").read_bytes() == b"#!/bin/sh\necho\n"
    assert (here / "picture.png").read_bytes() == (there / "picture.png").read_bytes()


def test_no_text_of_the_project_ends_its_lines_otherwise():
    texts = [path for path in sources.files(ROOT) if path.suffix not in (".png", ".safetensors", ".checkpoint")]
    assert [path.name for path in texts if b"\r\n" in path.read_bytes()] == []


def test_each_python_that_the_package_names_is_tried():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [name.rpartition(" ")[2] for name in project["classifiers"] if re.search(r"Python :: 3\.\d+$", name)]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["fast"]["strategy"]["matrix"]["python"] == named
    assert project["requires-python"] == f">={named[0]}"
