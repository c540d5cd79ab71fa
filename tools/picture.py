"""Takes the front page's picture from the tour as the book last executed it, for light and for dark: ``make picture``.

The README shows the light one, and a card is made of it.
"""

import io
import os
from pathlib import Path

import nbformat
from execution_cache import cache_path
from generated import write
from jupyter_cache import get_cache
from matplotlib.figure import Figure
from night import drawn, night
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
MARK = "Four ways from noise to a digit"


def picture(notebook):
    """What the marked cell of an executed notebook draws, or None if it draws nothing."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and MARK in cell.source:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return drawn(output.metadata.get("image/png", {}), output.data["image/png"])
    return None


def front_door(shown):
    """The panels of a picture without their title, which the page has in words: as PNG for light and for dark."""
    image = Image.open(io.BytesIO(shown.data))
    lefts, tops, rights, bottoms = zip(*shown.photographs, strict=True)
    shares = (min(lefts), min(tops), max(rights), max(bottoms))
    box = [round(share * side) for share, side in zip(shares, 2 * image.size, strict=True)]
    for each in (image, night(image, shown.photographs)):
        buffer = io.BytesIO()
        each.crop(box).save(buffer, "png", optimize=True)
        yield buffer.getvalue()


def executed(name, device="cpu"):
    """The notebook ``name`` of the book with its outputs, from the cache; raises ``KeyError`` if it is not there."""
    cache = get_cache(str(cache_path(device, ROOT)))
    source = nbformat.read(ROOT / "book" / name, 4)
    return cache.get_cache_bundle(cache.match_cache_notebook(source).pk).nb


def card(png):
    """The picture below the name of the book, 1200 by 630 pixels, as social networks show it beside a link."""
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="white")
    words = {"x": 0.055, "family": "serif", "color": "#14202b"}
    figure.text(y=0.83, s="scorebook", fontsize=54, weight="bold", **words)
    figure.text(y=0.735, s="Score-based generative modelling, measured", fontsize=25, **words)
    axes = figure.add_axes((0.05, 0.05, 0.9, 0.62), anchor="W")
    axes.imshow(Image.open(io.BytesIO(png)), interpolation="lanczos")
    axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, metadata={"Software": None})
    return buffer.getvalue()


if __name__ == "__main__":
    shown = picture(executed("tour.ipynb", os.environ.get("SCOREBOOK_DEVICE", "cpu")))
    if shown is None:
        raise SystemExit(f"the tour has no cell that draws {MARK!r}")
    light, dark = front_door(shown)
    folder = ROOT / "book" / "_static"
    pictures = {"noise-to-digits.png": light, "noise-to-digits-dark.png": dark, "card.png": card(shown.data)}
    try:
        write(folder, pictures)
    except FileExistsError as error:
        raise SystemExit(str(error)) from None
    for name, content in pictures.items():
        print(f"{folder.relative_to(ROOT) / name}: {len(content)} bytes")
