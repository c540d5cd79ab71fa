"""The setup cell of all chapters on machines of every kind: it sets up, or says in one sentence what to do."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import namesake
import pytest
import surroundings

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "https://github.com/someone/a-book"
CELL = (ROOT / "tools" / "setup_cell.ipy").read_text(encoding="utf-8")
PUBLISHED = re.sub(r'(?<=REPOSITORY = ").*(?=")', ADDRESS, CELL)
UNPUBLISHED = re.sub(r'(?<=REPOSITORY = ").*(?=")', "https://nowhere.invalid/scorebook", CELL)

# A kernel in which scorebook is only what the test has put on the path, and pip is the test's own.
KERNEL = """
import json, shutil, sys
from IPython.core.interactiveshell import InteractiveShell
cell, brings, site = json.load(sys.stdin)
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in str(finder)]
sys.path[:] = ["", site, *sys.path[1:]]
asked = []
def pip(line):
    asked.append(line)
    if brings:
        shutil.copytree(brings, site, dirs_exist_ok=True)
    else:
        print("ERROR: Could not resolve host")
shell = InteractiveShell.instance()
shell.register_magic_function(pip, "line", "pip")
done = shell.run_cell(cell, silent=True)
error = done.error_before_exec or done.error_in_exec
lab = sys.modules.get("scorebook.lab")
print("\\n" + json.dumps([getattr(lab, "done", None), asked, error and type(error).__name__, str(error)]))
"""

LAB = "done = []\ndef use_style(): done.append('style')\ndef use_one_thread(): done.append('thread')\n"
OURS = {"scorebook/__init__.py": "__version__ = '0.1.0'", "scorebook/lab/__init__.py": LAB}
FOREIGN = {"scorebook/__init__.py": "import json", "scorebook/evaluate.py": ""}
FOREIGN_INSTALLED = FOREIGN | {
    "scorebook-0.0.20.dist-info/METADATA": "Metadata-Version: 2.4\nName: scorebook\nVersion: 0.0.20\nSummary: A Python "
    "project for LLM evaluation.\n"
}
EARLIER = {
    "scorebook-0.1.0.dist-info/METADATA": "Metadata-Version: 2.4\nName: scorebook\nVersion: 0.1.0\nSummary: "
    "Score-based generative modelling.\n"
}
CLONE = {"scorebook/README.md": "", "scorebook/book/tour.ipynb": "{}"} | {f"scorebook/{k}": v for k, v in OURS.items()}
WITHOUT_TORCHDIFFEQ = OURS | {"scorebook/lab/__init__.py": "import torchdiffeq_that_is_missing"}
PIP = [f"install -q --no-deps git+{ADDRESS} torchdiffeq anywidget psygnal"]


def put(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def run(tmp_path, cell, *, here=(), installed=(), brings=()):
    """What the cell did: what it set up, what it asked of pip, and the kind and the text of its error."""
    for name, files in {"here": here, "site": installed, "brought": brings}.items():
        (tmp_path / name).mkdir()
        put(tmp_path / name, dict(files))
    kernel = [sys.executable, "-W", "error", "-c", KERNEL]
    given = json.dumps([cell, str(tmp_path / "brought") if brings else None, str(tmp_path / "site")])
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"IPYTHONDIR": str(tmp_path / "ipython")}
    done = subprocess.run(
        kernel, cwd=tmp_path / "here", env=variables, input=given, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("there", "pip"),
    [
        pytest.param({"installed": OURS}, [], id="installed"),
        pytest.param({"installed": OURS | EARLIER}, [], id="installed under its earlier name"),
        pytest.param({"brings": OURS}, PIP, id="not installed"),
        pytest.param({"brings": OURS, "here": CLONE}, PIP, id="beside a clone"),
        pytest.param({"brings": OURS, "here": {"scorebook/notes.txt": ""}}, PIP, id="beside a folder"),
        pytest.param({"installed": OURS, "here": CLONE}, [], id="installed, beside a clone"),
    ],
)
def test_it_sets_up(tmp_path, there, pip):
    assert run(tmp_path, PUBLISHED, **there) == [["style", "thread"], pip, None, "None"]


@pytest.mark.parametrize(
    ("there", "pip", "says"),
    [
        pytest.param({"installed": FOREIGN_INSTALLED}, [], "Another project named scorebook", id="another project"),
        pytest.param(
            {"installed": FOREIGN_INSTALLED | OURS}, [], "Another project named scorebook", id="another beside ours"
        ),
        pytest.param(
            {"installed": FOREIGN_INSTALLED | {"scorebook/__init__.py": "import openai_that_is_missing"}},
            [],
            "Another project named scorebook",
            id="another that cannot be imported",
        ),
        pytest.param({"here": FOREIGN}, [], "Another project named scorebook", id="another, not installed"),
        pytest.param({"here": {"scorebook.py": ""}}, [], "Another project named scorebook", id="a file of that name"),
        pytest.param(
            {"installed": WITHOUT_TORCHDIFFEQ}, [], "No module named 'torchdiffeq_that_is_missing'", id="a dependency"
        ),
        pytest.param({"brings": WITHOUT_TORCHDIFFEQ}, PIP, "torchdiffeq_that_is_missing", id="a dependency, after pip"),
        pytest.param({}, PIP, f"could not install the package from {ADDRESS}: is this machine offline?", id="offline"),
    ],
)
def test_it_says_what_is_wrong(tmp_path, there, pip, says):
    _, asked, kind, text = run(tmp_path, PUBLISHED, **there)
    assert (asked, kind) == (pip, "RuntimeError")
    assert says in text


@pytest.mark.parametrize("here", [{}, CLONE], ids=["alone", "beside a clone"])
def test_a_book_without_an_address_installs_nothing(tmp_path, here):
    _, asked, kind, text = run(tmp_path, UNPUBLISHED, here=here)
    assert (asked, kind) == ([], "RuntimeError")
    assert "names no repository" in text


def test_nothing_is_installed_by_the_name_of_the_other_project():
    (command,) = re.findall(r"^\s*%pip (.*)$", CELL, re.M)
    assert not {"scorebook", "scorebook-diffusion"} & set(command.split())


@pytest.mark.parametrize("there", [FOREIGN_INSTALLED, FOREIGN_INSTALLED | OURS], ids=["alone", "beside ours"])
def test_the_build_and_make_refuse_another_project(tmp_path, monkeypatch, there):
    put(tmp_path, there)
    monkeypatch.syspath_prepend(tmp_path)
    assert "Another project named scorebook (version 0.0.20)" in namesake.complaint()
    assert surroundings.foreign_package() == namesake.complaint()
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "namesake.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 1
    assert "Never say pip install scorebook" in done.stderr


def test_what_a_clone_installed_under_the_earlier_name_is_ours(tmp_path, monkeypatch):
    put(tmp_path, EARLIER)
    monkeypatch.syspath_prepend(tmp_path)
    assert "scorebook" in {found.name for found in metadata.distributions(path=[str(tmp_path)])}
    assert namesake.complaint() is None


def test_make_asks_after_each_installation():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert makefile.count("--editable .\n") == makefile.count("/python tools/namesake.py\n") == 3
