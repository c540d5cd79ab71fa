"""What the tests share: where the repository is, and the built book."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Every run draws the same examples, and a busy machine is not a failure.
settings.register_profile("book", deadline=None, derandomize=True)
settings.load_profile("book")

# The tensors of a test are small: a second thread costs more than it does, many times more on a busy machine. The
# notebooks are processes of their own and use all cores.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root():
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def site(root):
    """Folder of the built book, brought up to date. A test that asks for it runs after all others."""
    build = [Path(sys.executable).with_name("jupyter-book"), "build", "book", "--config", "_config.yml"]
    build += ["--toc", root / "_toc.yml", "--path-output", ".", "-W", "-n", "--keep-going"]
    done = subprocess.run(build, cwd=root, capture_output=True, text=True)
    if done.returncode:
        complaints = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
        pytest.fail("the book does not build:\n" + ("\n".join(complaints) or done.stderr[-3000:]), pytrace=False)
    return root / "_build" / "html"
