"""Takes the README's picture from the tour as the book last executed it: ``make picture``."""

import base64
import os
from pathlib import Path

import nbformat
from execution_cache import cache_path
from jupyter_cache import get_cache

ROOT = Path(__file__).resolve().parent.parent
MARK = "Four ways from noise to a digit"


def picture(notebook):
    """The PNG that the marked cell of an executed notebook shows, or None if it shows none."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and MARK in cell.source:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    return None


def executed(name, device="cpu"):
    """The notebook ``name`` of the book with its outputs, from the cache; raises ``KeyError`` if it is not there."""
    cache = get_cache(str(cache_path(device, ROOT)))
    source = nbformat.read(ROOT / "book" / name, 4)
    return cache.get_cache_bundle(cache.match_cache_notebook(source).pk).nb


if __name__ == "__main__":
    png = picture(executed("tour.ipynb", os.environ.get("SCOREBOOK_DEVICE", "cpu")))
    if png is None:
        raise SystemExit(f"the tour has no cell that draws {MARK!r}")
    target = ROOT / "book" / "_static" / "noise-to-digits.png"
    target.write_bytes(png)
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size} bytes")
