r"""Figures that the reader moves, with a kernel and without one.

:func:`explorer` draws every frame beforehand and links ``Play`` and a slider to the stack of frames inside
the browser, so that a published page moves although no Python runs behind it.
"""

import base64
import html
import io
from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, features
from torch import Tensor

from scorebook.lab.arguments import positive, positive_integer
from scorebook.lab.plots import photographs
from scorebook.lab.types import Integer, Number

__all__ = ["explorer"]


def explorer(
    draw: Callable[[Any], Figure | Axes],
    values: Iterable[Any] | Tensor,
    label: str,
    *,
    format: str | Callable[[Any], str] = "{:g}",
    alt: str | None = None,
    interval: Integer = 300,
    start: Integer = 0,
    pixel_ratio: Number = 1.5,
    quality: Integer = 80,
) -> Any:
    """Let the reader move through one figure per value, by mouse or keyboard.

    All frames are drawn here and now, so keep ``values`` to a few dozen; a page should weigh at most 4 MB.

    Args:
        draw: callable that takes one value and returns a new ``Figure`` (or ``Axes``), always of the same
            size. Keep axis limits and colour scales the same too, or the picture jumps.
        values: sequence or one-dimensional tensor of numbers or texts, one frame each.
        label: what the values are, shown beside the slider, such as ``"noise scale σ"``.
        format: how a number is shown, a format string or a callable; texts are shown as they are.
        alt: what the pictures show, for readers who do not see them; the value is added to it. ``label`` if
            None.
        interval: milliseconds from frame to frame while playing.
        start: index of the frame shown first.
        pixel_ratio: pixels of a frame per pixel of the page.
        quality: 1 to 100, of a frame that photographs better than it draws.

    Returns:
        A widget. As the last expression of a cell it shows itself.

    Raises:
        ImportError: if ipywidgets is not installed.
        TypeError: if ``draw`` returns no figure.
        ValueError: if ``values`` is empty, ``start`` is not one of its indices, or frames differ in size.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError("lab.explorer needs ipywidgets: pip install ipywidgets") from error

    values = values.detach().cpu().tolist() if isinstance(values, Tensor) else list(values)
    if not values:
        raise ValueError("values must hold at least one value, got none")
    positive_integer("interval", interval)
    positive("pixel_ratio", pixel_ratio)
    if isinstance(start, bool) or not isinstance(start, Integral) or not -len(values) <= start < len(values):
        raise ValueError(f"start must be an index into {len(values)} values, got {start!r}")
    start = int(start) % len(values)
    names = [_name(value, format) for value in values]
    pages, size = [], None
    for value, name in zip(values, names, strict=True):
        picture, dark = _render(draw(value), pixel_ratio)
        if size is not None and picture.size != size:
            raise ValueError(f"frames must have one size, got {picture.size} at {name} after {size}")
        size = picture.size
        text = f"{label if alt is None else alt} ({label}: {name})"
        pages.append(_page(_encode(picture, quality), text, [round(side / pixel_ratio) for side in size], dark))

    # Two equal names would be one entry of the slider.
    options = [(name if names.count(name) == 1 else f"{name} ({i + 1})", i) for i, name in enumerate(names)]
    slider = ipywidgets.SelectionSlider(
        options=options,
        index=start,
        description=label,
        continuous_update=True,
        style={"description_width": "initial"},
        layout={"flex": "1 1 16rem", "width": "auto", "min_width": "12rem"},
    )
    play = ipywidgets.Play(
        min=0, max=len(values) - 1, step=1, value=start, interval=interval, layout={"flex": "0 0 auto"}
    )
    if hasattr(ipywidgets, "Stack"):
        screen = ipywidgets.Stack([ipywidgets.HTML(page) for page in pages], selected_index=start)
        ipywidgets.jslink((slider, "index"), (screen, "selected_index"))
    else:
        screen = ipywidgets.HTML(pages[start])
        slider.observe(lambda change: setattr(screen, "value", pages[change["new"]]), names="index")
    ipywidgets.jslink((play, "value"), (slider, "index"))
    controls = ipywidgets.HBox(
        [play, slider], layout={"flex_flow": "row wrap", "align_items": "center", "overflow": "visible"}
    )
    whole = ipywidgets.VBox([controls, screen], layout={"overflow": "visible"})
    whole.add_class("scorebook-explorer")
    return whole


def _name(value: Any, format: str | Callable[[Any], str]) -> str:
    if callable(format):
        return str(format(value))
    value = value.item() if isinstance(value, Tensor) or hasattr(value, "item") else value
    return format.format(value) if isinstance(value, Real) else str(value)


def _render(figure: Any, pixel_ratio: Number) -> tuple[Image.Image, bool]:
    """The picture, and whether it may be turned to its negative where the page is dark."""
    figure = figure.figure if isinstance(figure, Axes) else figure
    if not isinstance(figure, Figure):
        raise TypeError(f"draw must return a matplotlib Figure, got {type(figure).__name__}")
    plt.close(figure)
    figure.set_dpi(figure.get_dpi() * float(pixel_ratio))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    paper = Image.new("RGB", pixels.shape[1::-1], "white")
    paper.paste(Image.fromarray(pixels[..., :3].copy()), mask=Image.fromarray(pixels[..., 3].copy()))
    return paper, not photographs(figure)


def _encode(picture: Image.Image, quality: Integer) -> tuple[str, bytes]:
    if not features.check("webp"):
        return "png", _bytes(picture.quantize(256), "png", optimize=True)
    drawn = _bytes(picture, "webp", lossless=True, quality=60, method=4)
    photographed = _bytes(picture, "webp", quality=quality, method=4)
    return "webp", min(drawn, photographed, key=len)


def _bytes(picture: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def _page(encoded: tuple[str, bytes], alt: str, size: list[int], dark: bool) -> str:
    format, data = encoded
    width, height = size
    return (
        f'<img class="{"drawing" if dark else "photographs"}" '
        f'src="data:image/{format};base64,{base64.b64encode(data).decode()}" alt="{html.escape(alt)}" '
        f'width="{width}" height="{height}" style="max-width: 100%; height: auto; display: block">'
    )
