"""Runs every chapter as Colab would: ``make colab``.

A virtual environment with Colab's versions (``tests/colab.txt``), without scorebook; then, for each chapter, the setup
cell installs scorebook from the last commit of this checkout, and all other cells run. Whatever Colab ships must stand
as it did before. ``make colab CHAPTERS="langevin sde"`` runs some of them.
"""

import surroundings  # noqa: F401 - Colab knows nothing of this user's settings

# isort: split
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "colab"
PYTHON = FOLDER / "venv" / "bin" / "python"
KERNEL = FOLDER / "share" / "jupyter" / "kernels" / "colab"
BROUGHT = ("scorebook-diffusion", "torchdiffeq", "anywidget", "psygnal")  # by the setup cell


def pinned():
    """What the environment holds: Colab's versions, and the machine's build of PyTorch."""
    lines = (ROOT / "tests" / "colab.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    locked = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    torch = next(line for line in locked if line.startswith("torch=="))
    return [torch if r.name == "torch" else str(r) for r in wanted if r.name != "python"] + ["ipykernel<7"]


def pip(*arguments):
    """Output of pip in that environment."""
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout


def install():
    """Makes the environment and its kernel."""
    if not PYTHON.exists():
        venv.create(FOLDER / "venv", with_pip=True)
    pip("install", "--quiet", *pinned())
    KERNEL.mkdir(parents=True, exist_ok=True)
    command = [str(PYTHON), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": "Colab", "language": "python", "env": {"PYTHONPATH": ""}}
    (KERNEL / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    del os.environ["PYTHONPATH"]  # the package has to come from the setup cell
    os.environ["JUPYTER_PATH"] = str(FOLDER / "share" / "jupyter")


def standing():
    """Everything installed, but what the setup cell brings."""
    lines = pip("list", "--format=freeze").splitlines()
    return [line for line in lines if line.split("==")[0] not in BROUGHT]


def run(name):
    """Executes one chapter from a machine on which scorebook is not installed."""
    pip("uninstall", "--quiet", "--yes", *BROUGHT)
    notebook = nbformat.read(ROOT / "book" / f"{name}.ipynb", 4)
    address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert address in setup.source
    setup.source = setup.source.replace(address, ROOT.as_uri())
    # A chapter stands alone: no neighbour, and no checkout, in the folder where it runs.
    alone = FOLDER / "run"
    alone.mkdir(exist_ok=True)
    NotebookClient(notebook, timeout=1800, kernel_name="colab", resources={"metadata": {"path": str(alone)}}).execute()


def chapters():
    """Names of the notebooks, in the order of the book."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [page["file"] for part in toc["parts"] for page in part["chapters"]]
    return [name for name in files if (ROOT / "book" / f"{name}.ipynb").exists()]


def main(names):
    """Runs the chapters named, or all; the number of those that failed."""
    if not (ROOT / ".git").exists():
        sys.exit("make colab installs the package from the last commit of a git clone, and this folder is none")
    if subprocess.run(["git", "status", "--porcelain", "scorebook"], cwd=ROOT, stdout=subprocess.PIPE).stdout:
        print("The setup cell installs the last commit: uncommitted changes in scorebook/ are not tried.")
    install()
    before, failed = standing(), 0
    for name in names or chapters():
        begin = time.perf_counter()
        try:
            run(name)
            moved = sorted(set(standing()) ^ set(before))
            outcome = f"MOVED {moved}" if moved else "passed"
        except CellExecutionError as error:
            outcome = f"FAILED\n{error}"
        failed += outcome != "passed"
        print(f"{time.perf_counter() - begin:6.1f} s  {name}  {outcome}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
