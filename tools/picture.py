"""Takes the README's picture from the tour as the book was last built: ``make picture``."""

import base64
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
MARK = "Four ways from noise to a digit"


def picture(notebook):
    """The PNG that the marked cell of an executed notebook shows."""
    for cell in nbformat.read(notebook, 4).cells:
        if cell.cell_type == "code" and MARK in cell.source:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    raise SystemExit(f"{notebook} has no executed cell that draws {MARK!r}")


if __name__ == "__main__":
    found = sorted((ROOT / "_build" / "jupyter_execute").rglob("tour.ipynb"))
    if not found:
        raise SystemExit("the book is not built yet: run `make book` first")
    target = ROOT / "book" / "_static" / "noise-to-digits.png"
    target.write_bytes(picture(found[0]))
    print(f"{target.relative_to(ROOT)}: {target.stat().st_size} bytes")
