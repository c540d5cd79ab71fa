"""Where executed notebooks are kept, as a Sphinx extension and for the test run.

MyST-NB finds a notebook's outputs by its code cells alone: change the package and the page keeps its old numbers.
Here the cache lives in a folder named after everything else that decides the outputs: the package, the pinned
environment, the Python version and the device. A change in any of them opens a new folder, and because the folder
is a Sphinx setting, every page is read again.

The test run executes each notebook through :func:`store` into the same folder, so that building the book after the
tests executes nothing.
"""

import copy
import hashlib
import os
import platform
import shutil
from pathlib import Path

# The first import of matplotlib on a machine announces on stderr that it builds its font cache, and stderr in a
# page fails the build. Importing it here does that before any kernel starts.
import matplotlib.font_manager  # noqa: F401
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

__all__ = ["cache_path", "setup", "store"]

ROOT = Path(__file__).resolve().parent.parent

# Enough to go back and forth between two states of the package, or two devices, without executing again.
KEPT = 4


def cache_path(device, root=ROOT):
    """Folder of the notebooks executed on ``device`` by the package as it stands."""
    digest = hashlib.sha256()
    for path in sorted([root / "requirements.txt", *(root / "scorebook").rglob("*")]):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    digest.update(f"{platform.python_version()}\0{device}".encode())
    return root / "_build" / ".jupyter_cache" / digest.hexdigest()[:16]


def store(executed, source, path, *, seconds, device, root=ROOT):
    """Keeps an executed notebook where the build will look for it.

    Args:
        executed: the notebook with its outputs.
        source: the same notebook as it stands in the file.
        path: the file.
        seconds: how long the execution took.
        device: what it ran on.
        root: the repository.
    """
    notebook = copy.deepcopy(executed)
    # The build looks a notebook up by its code cells and their metadata; execution has added its timings to them.
    for cell, original in zip(notebook.cells, source.cells, strict=True):
        cell.metadata = original.metadata
    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
    get_cache(cache_path(device, root)).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def use_cache(app, config):
    """Points MyST-NB to the folder, and its kernels to the device."""
    device = os.environ.setdefault("SCOREBOOK_DEVICE", "cpu")
    folder = cache_path(device)
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    for old in sorted(folder.parent.iterdir(), key=os.path.getmtime)[:-KEPT]:
        shutil.rmtree(old)
    config.nb_execution_cache_path = str(folder)


def setup(app):
    """Registers the extension."""
    app.connect("config-inited", use_cache)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
