"""Where executed notebooks are kept, as a Sphinx extension and for the test run.

MyST-NB finds a notebook's outputs by its code cells alone: change the package and the page keeps its old numbers.
Here the cache lives in a folder named after everything else that decides the outputs: the sources of the package, the
versions installed of whatever it runs on, Python, the machine and the device. A change in any of them opens a new
folder, and because the folder is a Sphinx setting, every page is read again. What the name stands for is written into
the folder, so that the status page tells what the notebooks ran on, and not what is installed when it is made.

The test run executes each notebook through :func:`store` into the same folder, so that building the book after the
tests executes nothing.
"""

import copy
import hashlib
import json
import os
import platform
import re
import shutil
import tomllib
from importlib import metadata
from importlib.machinery import all_suffixes
from pathlib import Path

# The first import of matplotlib on a machine announces on stderr that it builds its font cache, and stderr in a
# page fails the build. Importing it here does that before any kernel starts.
import matplotlib.font_manager  # noqa: F401
import torch
from generated import unix
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sphinx.util import logging

from scorebook.lab.devices import device as chosen_device
from scorebook.lab.devices import processor

__all__ = ["cache_path", "environment", "installed", "package_files", "recorded", "setup", "store"]

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent

# Enough to go back and forth between two states of the package, or two devices, without executing again.
KEPT = 4

RECORD = "environment.json"


def package_files(root=ROOT):
    """The files of the package: what can be imported, and the package data that ``pyproject.toml`` names."""
    data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    named = {
        path for name, globs in data.items() for each in globs for path in root.joinpath(*name.split(".")).glob(each)
    }
    importable = {path for path in (root / "scorebook").rglob("*") if _module(path.relative_to(root))}
    return sorted(path for path in named | importable if path.is_file() and not path.name.startswith("."))


def _module(path):
    stems = (path.name.removesuffix(suffix) for suffix in all_suffixes() if path.name.endswith(suffix))
    return all(part.isidentifier() for part in path.parts[:-1]) and any(stem.isidentifier() for stem in stems)


def installed(requirements):
    """Name to version of every installed distribution that some requirements need, themselves and at any remove."""
    found, asked, todo = {}, set(), [(requirement, "") for requirement in requirements]
    while todo:
        requirement, extra = todo.pop()
        requirement = Requirement(requirement)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = distribution.version
        for wanted in {"", *requirement.extras} - {extra for of, extra in asked if of == name}:
            asked.add((name, wanted))
            todo += [(needed, wanted) for needed in distribution.requires or ()]
    return found


def _processor(device):
    gpu = f"{torch.cuda.get_device_name()}, beside " if device == "cuda" and torch.cuda.is_available() else ""
    return f"{gpu}{processor()}, {os.cpu_count()} cores"


def environment(device, root=ROOT):
    """All that decides what a notebook shows, besides its own code: a dictionary that can be written as JSON."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    sources = hashlib.sha256()
    for path in package_files(root):
        content = unix(path.read_bytes())
        sources.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return {
        "scorebook": project["version"],
        "sources": sources.hexdigest(),
        "device": device,
        "processor": _processor(device),
        "system": f"{platform.system()} on {platform.machine()}",
        "python": platform.python_version(),
        "installed": installed([*project["dependencies"], *extras["widgets"], *extras["data"], "ipykernel"]),
    }


def _folder(record, root):
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    return root / "_build" / ".jupyter_cache" / digest[:16]


def cache_path(device, root=ROOT):
    """Folder of the notebooks executed on ``device`` by the package, and on the environment, as they stand."""
    return _folder(environment(device, root), root)


def _opened(record, root):
    """The folder of an environment, made if it is not there, with a record of what its name stands for."""
    folder = _folder(record, root)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    return folder


def recorded(folder):
    """The :func:`environment` in which the notebooks of a cache folder were executed."""
    return json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))


def store(executed, source, path, *, seconds, began, root=ROOT):
    """Keeps an executed notebook where the build will look for it, unless what it ran on has changed meanwhile.

    Args:
        executed: the notebook with its outputs.
        source: the same notebook as it stands in the file.
        path: the file.
        seconds: how long the execution took.
        began: the :func:`environment` before the execution.
        root: the repository.
    """
    if environment(began["device"], root) != began:
        return
    notebook = copy.deepcopy(executed)
    # The build looks a notebook up by its code cells and their metadata; execution has added its timings to them.
    for cell, original in zip(notebook.cells, source.cells, strict=True):
        cell.metadata = original.metadata
    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
    get_cache(_opened(began, root)).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def use_cache(app, config):
    """Points MyST-NB to the folder, and its kernels to the device."""
    os.environ.setdefault("SCOREBOOK_DEVICE", "cpu")
    folder = _opened(environment(chosen_device().type), ROOT)
    os.utime(folder)
    ours = [path for path in folder.parent.iterdir() if re.fullmatch("[0-9a-f]{16}", path.name) and path.is_dir()]
    for old in sorted(ours, key=os.path.getmtime)[:-KEPT]:
        shutil.rmtree(old)
    config.nb_execution_cache_path = str(folder)


def forget_a_mixture(app, error):
    """Keeps nothing of a build during which the package, or what it runs on, has changed."""
    folder = Path(app.config.nb_execution_cache_path)
    if cache_path(chosen_device().type) != folder:
        shutil.rmtree(folder)
        logger.warning("the package, or what it runs on, has changed while the book was built: build it again")


def setup(app):
    """Registers the extension."""
    app.connect("config-inited", use_cache)
    app.connect("build-finished", forget_a_mixture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
