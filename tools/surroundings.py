"""The book is executed the same on each machine: what its user has set for Python, IPython and Matplotlib stays out.

A start-up file, a ``matplotlibrc``, a kernel installed under the same name or a ``PYTHONPATH`` would change figures,
numbers and even the package that is shown. Importing this module puts the book's own settings in their place, for this
process and for all kernels and programs that it starts; it has to be imported before Matplotlib, which reads its
settings then. It is also a Sphinx extension, the first of the book's own.
"""

import importlib.util
import os
import re
from pathlib import Path

import namesake
from sphinx.errors import ConfigError

__all__ = ["foreign_package", "isolate", "setup"]

ROOT = Path(__file__).resolve().parent.parent

PERSONAL = re.compile("PYTHON|IPYTHON|JUPYTER|JPY_|MPL|MATPLOTLIB|TQDM_")

# Where bytecode is written, when lines appear and how sets are ordered changes no result.
HARMLESS = {"PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED"}


def isolate(environment, root=ROOT):
    """Replaces a user's settings in an environment by the book's own, whose folders stand in ``_build/.settings``.

    A program started in it imports ``scorebook`` from ``root``, whichever other clone is installed.
    """
    for name in [name for name in environment if PERSONAL.match(name) and name not in HARMLESS]:
        del environment[name]
    folders = {
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "jupyter/config",
        "JUPYTER_DATA_DIR": "jupyter/data",
        "JUPYTER_RUNTIME_DIR": "jupyter/runtime",
        "MPLCONFIGDIR": "matplotlib",
    }
    for variable, name in folders.items():
        folder = root / "_build" / ".settings" / name
        folder.mkdir(parents=True, exist_ok=True)
        environment[variable] = str(folder)
    environment |= {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONNOUSERSITE": "1", "PYTHONPATH": str(root), "PYTHONUTF8": "1"}
    environment["SCOREBOOK_PAGES"] = "1"  # each figure is drawn for a phone too


def foreign_package(root=ROOT):
    """What is wrong where ``import scorebook`` finds another package than the one of ``root``, else None."""
    if complaint := namesake.complaint():
        return complaint
    spec = importlib.util.find_spec("scorebook")
    origin = spec and spec.origin
    if origin and Path(origin).resolve().is_relative_to(root / "scorebook"):
        return None
    return (
        f"import scorebook finds {origin or 'no package'}, which is not in {root / 'scorebook'}: the environment "
        "belongs to another clone, or PYTHONPATH leads there. `make test` and `make book` bring an environment of "
        "their own."
    )


def stop_at_a_foreign_package(app, config):
    """Lets no book be built from another package than its own."""
    if complaint := foreign_package():
        raise ConfigError(complaint)


def setup(app):
    """Registers the extension."""
    app.connect("config-inited", stop_at_a_foreign_package)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


isolate(os.environ)
