r"""Pictures of densities, scores, samples, paths and images, all in the book's one style.

Each function takes ``ax=None``, draws on it (or on a new figure) and returns the ``Axes``, so that pictures
can be laid over each other: a density, its score on top, samples on top of both.
"""

import base64
import importlib.util
import math
import numbers
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.typing import ColorType
from torch import Tensor

from scorebook.lab._pages import NARROW, TEXTS, make_legible, stack, texts
from scorebook.lab.arguments import as_given, finite, positive, positive_integer, real
from scorebook.lab.types import Array, Field, Integer, LogDensity, Number

__all__ = ["density", "image_grid", "photographs", "samples", "score_field", "trajectories", "use_style"]

_PAPER_TO_BLUE = LinearSegmentedColormap.from_list(
    "paper_to_blue", ["#ffffff", "#dcebf5", "#a9cfe6", "#5fa8d3", "#0072b2", "#00466e"]
)

_INK = "#22303c"
_BATCH = 65536
_PLACES: WeakKeyDictionary[AxesImage, list[tuple[int, int, int, int]]] = WeakKeyDictionary()
PHOTOGRAPHS = "photographs"  # where the metadata of a notebook's output says where they are


def use_style() -> None:
    """Draw all further figures in the book's style, in a notebook at twice the pixels for sharp screens.

    A notebook shows a label in the colour of a faint curve in a darker shade of it, which can be read on white. Its
    output also tells where the photographs of a figure are, see :func:`photographs`, and which sizes and colours its
    letters have. Where the environment has ``SCOREBOOK_PAGES=1``, as it has while the pages of the book are made, the
    output holds the figure a second time, its panels below each other, for a phone.
    """
    plt.style.use(Path(__file__).with_name("scorebook.mplstyle"))
    if importlib.util.find_spec("IPython") and importlib.util.find_spec("matplotlib_inline"):
        from IPython import get_ipython
        from IPython.core.pylabtools import retina_figure
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        def places(figure: Figure) -> list[list[float]]:
            dpi = figure.dpi
            figure.set_dpi(2 * dpi)  # that of the picture, where letters, and with them its edges, are a little wider
            try:
                return photographs(figure)
            finally:
                figure.set_dpi(dpi)

        def shown(figure: Figure) -> Any:
            make_legible(figure)
            picture = retina_figure(figure, base64=True)
            if not picture:
                return picture
            told = picture[1] | {PHOTOGRAPHS: places(figure), TEXTS: texts(figure)}
            if os.environ.get("SCOREBOOK_PAGES") == "1" and stack(figure):
                data, size = retina_figure(figure)
                told[NARROW] = size | {
                    "png": base64.b64encode(data).decode(),
                    PHOTOGRAPHS: places(figure),
                    TEXTS: texts(figure),
                }
            return picture[0], told

        if hasattr(shell := get_ipython(), "kernel"):
            set_matplotlib_formats("retina")
            shell.display_formatter.formatters["image/png"].for_type(Figure, shown)


def density(
    log_prob: LogDensity,
    *,
    extent: Sequence[Number],
    resolution: Integer = 200,
    ax: Axes | None = None,
    cmap: str | Colormap | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Axes:
    r"""Show a density on a rectangle as colour, or on an interval as a curve.

    The density is :math:`p(x) \propto e^{\mathrm{log\_prob}(x)}`. In two dimensions the colour runs from
    white at zero to dark blue at the highest value on the rectangle, so a missing normalising constant makes
    no difference. In one dimension the curve is :math:`e^{\mathrm{log\_prob}}` itself.

    Args:
        log_prob: callable ``(B, 2) -> (B,)``; ``(B, 1) -> (B,)`` where ``extent`` is an interval.
        extent: ``(x0, x1, y0, y1)``, or ``(x0, x1)`` for one dimension.
        resolution: number of points along each side.
        ax: axes to draw on; a new figure if None.
        cmap: matplotlib colour map for two dimensions.
        device: where ``log_prob`` expects its points; torch's default if None.
        dtype: which precision ``log_prob`` expects; torch's default if None.

    Returns:
        The axes.

    Raises:
        ValueError: if ``extent`` is no interval and no rectangle, or ``log_prob`` returns another shape or
            NaN.
    """
    extent = _extent(extent)
    resolution = positive_integer("resolution", resolution)
    points, sides = _grid(extent, resolution, dtype, device)
    values = _evaluate("log_prob", log_prob, points, ())
    if values.isnan().any():
        raise ValueError(f"log_prob must be a number everywhere, got NaN at {points[values.isnan()][0].tolist()}")
    if len(extent) == 2:
        ax = _axes(ax)
        ax.plot(sides[0].numpy(), values.exp().numpy())
        ax.set(xlim=extent, xlabel="$x$", ylabel="density")
        ax.set_ylim(bottom=0)
        return ax
    ax = _axes(ax, square=True)
    relative = (values - values.max()).exp().reshape(resolution, resolution)
    ax.imshow(
        relative.numpy(),
        extent=(extent[0], extent[1], extent[2], extent[3]),
        origin="lower",
        cmap=_PAPER_TO_BLUE if cmap is None else cmap,
        vmin=0,
        vmax=1,
        interpolation="nearest",
        zorder=0,
    )
    _next_color(ax)  # what is drawn on the blue takes the next colour
    return _plane(ax, extent)


def score_field(
    score: Field,
    *,
    extent: Sequence[Number],
    resolution: Integer = 18,
    ax: Axes | None = None,
    scale: Number | None = None,
    color: ColorType = _INK,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Axes:
    r"""Show a vector field as arrows whose direction is exact and whose length saturates.

    Scores grow without bound away from the data; drawn to scale, all arrows but a few would be dots. An arrow
    has the length :math:`|s| / \sqrt{|s|^2 + m^2}` times the spacing of the grid.

    Args:
        score: callable ``(B, 2) -> (B, 2)``.
        extent: ``(x0, x1, y0, y1)``.
        resolution: number of arrows along each side.
        ax: axes to draw on; a new figure if None.
        scale: :math:`m`, the norm at which an arrow has 0.7 of its full length; the median norm on the grid
            if None. Give it to make two pictures comparable.
        color: colour of the arrows.
        device: where ``score`` expects its points; torch's default if None.
        dtype: which precision ``score`` expects; torch's default if None.

    Returns:
        The axes.

    Raises:
        ValueError: if ``extent`` is no rectangle, ``scale`` is not positive or ``score`` returns another
            shape or values that are not finite.
    """
    extent = _extent(extent, dimensions=(2,))
    resolution = positive_integer("resolution", resolution)
    if scale is not None:
        positive("scale", scale)
    points, sides = _grid(extent, resolution, dtype, device, centred=True)
    field = _evaluate("score", score, points, (2,))
    if not field.isfinite().all():
        raise ValueError(f"score must be finite everywhere, got {field[~field.isfinite()][0]:g} on the grid")
    norm = field.norm(dim=1, keepdim=True)
    middle = norm.median().item() if scale is None else float(scale)
    spacing = min((s[-1] - s[0]).item() / max(len(s) - 1, 1) or 1.0 for s in sides)
    arrows = 0.95 * spacing * field / (norm**2 + (middle or 1.0) ** 2).sqrt()
    x, y = points.cpu().double().unbind(1)
    u, v = arrows.unbind(1)
    ax = _axes(ax, square=True)
    ax.quiver(
        x.numpy(),
        y.numpy(),
        u.numpy(),
        v.numpy(),
        color=color,
        angles="xy",
        scale_units="xy",
        scale=1,
        pivot="middle",
        width=0.0035,
        headwidth=4,
        headlength=4.5,
        headaxislength=4,
        zorder=2,
    )
    return _plane(ax, extent)


def samples(
    x: Array,
    ax: Axes | None = None,
    *,
    color: ColorType | None = None,
    size: Number | None = None,
    alpha: Number | None = None,
    label: str | None = None,
    extent: Sequence[Number] | None = None,
) -> Axes:
    """Show points of the plane as dots, or numbers as a histogram of unit area.

    Args:
        x: points of shape ``(n, 2)``, or numbers of shape ``(n,)`` or ``(n, 1)``.
        ax: axes to draw on; a new figure if None.
        color: colour of the dots or bars; the next of the cycle if None.
        size: area of a dot in square points; fewer points get larger dots if None.
        alpha: opacity between 0 and 1; many points get fainter dots if None.
        label: name for a legend.
        extent: ``(x0, x1, y0, y1)`` or ``(x0, x1)``; the points themselves decide if None.

    Returns:
        The axes.

    Raises:
        ValueError: if ``x`` has another shape or holds no point, or ``extent`` does not fit it.
    """
    x = _numbers("x", x)
    finite("x", x)
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if not (x.ndim == 1 or (x.ndim == 2 and x.shape[1] == 2)) or len(x) == 0:
        raise ValueError(f"x must hold points, shape (n, 2), or numbers, shape (n,), got {tuple(x.shape)}")
    ends = None if extent is None else _extent(extent, dimensions=(x.ndim,))
    if x.ndim == 1:
        ax = _axes(ax)
        sides = None if ends is None else (ends[0], ends[1])
        bins = min(max(math.ceil(2 * len(x) ** (1 / 3)), 10), 100)
        ax.hist(
            x.numpy(),
            bins=bins,
            range=sides,
            density=True,
            color=color,
            alpha=0.5 if alpha is None else alpha,
            label=label,
            histtype="stepfilled",
        )
        ax.set(xlabel="$x$", ylabel="density")
        if sides is not None:
            ax.set_xlim(sides)
        return ax
    ax = _axes(ax, square=True)
    ax.scatter(
        x[:, 0].numpy(),
        x[:, 1].numpy(),
        s=min(max(3000 / len(x), 3.0), 25.0) if size is None else size,
        color=_next_color(ax) if color is None else color,
        alpha=min(max(600 / len(x), 0.35), 0.85) if alpha is None else float(alpha),
        linewidths=0,
        label=label,
        zorder=3,
    )
    return _plane(ax, ends)


def trajectories(
    path: Array,
    ax: Axes | None = None,
    *,
    times: Array | None = None,
    color: ColorType | None = None,
    alpha: Number | None = None,
    extent: Sequence[Number] | None = None,
) -> Axes:
    """Show the paths of many points through the plane, or of many numbers over time.

    In the plane a ring marks each start and a dot each end.

    Args:
        path: states of shape ``(n_steps + 1, B, 2)``, or ``(n_steps + 1, B)`` or ``(n_steps + 1, B, 1)`` for
            numbers.
        ax: axes to draw on; a new figure if None.
        times: for numbers, the time of each state, shape ``(n_steps + 1,)``; the step's index if None.
        color: colour of the paths; the next of the cycle if None.
        alpha: opacity of the lines; many paths get fainter lines if None.
        extent: ``(x0, x1, y0, y1)`` to show; the paths themselves decide if None.

    Returns:
        The axes.

    Raises:
        ValueError: if ``path`` has another shape or ``times`` does not fit it.
    """
    path = _numbers("path", path)
    finite("path", path)
    if path.ndim == 3 and path.shape[2] == 1:
        path = path[:, :, 0]
    if not (path.ndim == 2 or (path.ndim == 3 and path.shape[2] == 2)) or 0 in path.shape:
        raise ValueError(
            "path must have shape (n_steps + 1, B, 2), (n_steps + 1, B, 1) or (n_steps + 1, B), "
            f"got {tuple(path.shape)}"
        )
    alpha = min(max(12 / path.shape[1], 0.08), 0.7) if alpha is None else float(alpha)
    if path.ndim == 2:
        clock = _numbers("times", range(len(path)) if times is None else times)
        if clock.shape != (len(path),):
            raise ValueError(f"times must have shape ({len(path)},) like the steps of path, got {tuple(clock.shape)}")
        finite("times", clock)
        ax = _axes(ax)
        color = _next_color(ax) if color is None else color
        curves = list(torch.stack([clock[:, None].expand_as(path), path], dim=-1).transpose(0, 1).numpy())
        ax.add_collection(LineCollection(curves, colors=[color], alpha=alpha, linewidths=1.1))
        ax.autoscale_view()
        ax.margins(x=0)
        ax.set(xlabel="step" if times is None else "$t$", ylabel="$x$")
        if extent is not None:
            x0, x1, y0, y1 = _extent(extent, dimensions=(2,))
            ax.set(xlim=(x0, x1), ylim=(y0, y1))
        return ax
    if times is not None:
        raise ValueError("times must be None where path moves in the plane, which shows no time axis")
    ax = _axes(ax, square=True)
    color = _next_color(ax) if color is None else color
    curves = list(path.transpose(0, 1).numpy())
    ax.add_collection(LineCollection(curves, colors=[color], alpha=alpha, linewidths=1.0, zorder=2))
    size = min(max(1500 / path.shape[1], 6.0), 30.0)
    (x0, y0), (x1, y1) = (path[k].T.numpy() for k in (0, -1))
    ax.scatter(x0, y0, s=size, facecolors="white", edgecolors=[color], linewidths=0.9, zorder=3)
    ax.scatter(x1, y1, s=size, color=[color], linewidths=0, zorder=4)
    return _plane(ax, None if extent is None else _extent(extent, dimensions=(2,)))


def image_grid(images: Array, *, n_cols: Integer = 10, ax: Axes | None = None, gap: Integer = 1) -> Axes:
    """Show images side by side, row after row, -1 as black and 1 as white (or full colour).

    Args:
        images: shape ``(n, 1, h, w)`` or ``(n, 3, h, w)``, values in ``[-1, 1]``; what lies outside is
            clipped.
        n_cols: number of images in a row.
        ax: axes to draw on; a new figure whose size suits the grid if None.
        gap: white pixels between two images.

    Returns:
        The axes.

    Raises:
        ValueError: if ``images`` has another shape or holds no image.
    """
    images = _numbers("images", images)
    finite("images", images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"images must have shape (n, 1, h, w) or (n, 3, h, w), got {tuple(images.shape)}")
    n_cols = positive_integer("n_cols", n_cols)
    if isinstance(gap, bool) or not isinstance(gap, numbers.Integral) or gap < 0:
        raise ValueError(f"gap must be a non-negative integer, got {gap!r}")
    n, _, h, w = images.shape
    n_cols = min(n_cols, n)
    n_rows = math.ceil(n / n_cols)
    paper = images.new_ones(n_rows * (h + gap) - gap, n_cols * (w + gap) - gap, 3)
    places = []
    for i, image in enumerate(images):
        top, left = i // n_cols * (h + gap), i % n_cols * (w + gap)
        places.append((top, left, top + h, left + w))
        paper[top : top + h, left : left + w] = ((image.clamp(-1, 1) + 1) / 2).permute(1, 2, 0)
    if ax is None:
        width = min(0.62 * n_cols, 7.2)
        _, ax = plt.subplots(figsize=(width, width * paper.shape[0] / paper.shape[1]))
    _PLACES[ax.imshow(paper.numpy(), origin="upper", interpolation="nearest")] = places
    ax.set_axis_off()
    return ax


def _axes(ax: Axes | None, *, square: bool = False) -> Axes:
    if ax is None:
        _, ax = plt.subplots(figsize=(4.4, 4.2) if square else None)
    return ax


def _plane(ax: Axes, extent: tuple[float, ...] | None) -> Axes:
    ax.set_aspect("equal", adjustable="box")
    if extent is not None:
        ax.set(xlim=extent[:2], ylim=extent[2:])
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    return ax


def _next_color(ax: Axes) -> ColorType:
    return ax._get_lines.get_next_color()  # type: ignore[attr-defined]


def _extent(extent: Sequence[Number], *, dimensions: tuple[int, ...] = (1, 2)) -> tuple[float, ...]:
    ends = tuple(float(e) for e in extent)
    shapes = {1: "(x0, x1)", 2: "(x0, x1, y0, y1)"}
    expected = " or ".join(shapes[d] for d in dimensions)
    if len(ends) not in [2 * d for d in dimensions]:
        raise ValueError(f"extent must be {expected}, got {len(ends)} number(s)")
    if not all(math.isfinite(a) and math.isfinite(b) and a < b for a, b in zip(ends[::2], ends[1::2], strict=True)):
        raise ValueError(f"extent must be {expected} with x0 < x1 and y0 < y1, got {ends}")
    return ends


def _grid(
    extent: tuple[float, ...],
    resolution: int,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    *,
    centred: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    sides = []
    for low, high in zip(extent[::2], extent[1::2], strict=True):
        half = (high - low) / (2 * resolution) if centred or len(extent) == 4 else 0.0
        sides.append(torch.linspace(low + half, high - half, resolution, dtype=torch.float64, device="cpu"))
    grids = torch.meshgrid(*sides, indexing="xy")
    points = torch.stack([g.flatten() for g in grids], dim=1)
    target = torch.empty(0).device if device is None else device
    return points.to(device=target, dtype=torch.get_default_dtype() if dtype is None else dtype), sides


def _evaluate(name: str, function: Callable[[Tensor], Tensor], points: Tensor, event: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        parts = [function(part) for part in points.split(_BATCH)]
    for part, given in zip(parts, points.split(_BATCH), strict=True):
        shape = tuple(getattr(part, "shape", ()))
        if shape != (len(given), *event):
            raise ValueError(f"{name} must return shape {(len(given), *event)} for that many points, got {shape}")
    return _numbers(name, torch.cat(parts))


def _numbers(name: str, value: Array) -> Tensor:
    value = as_given(value).detach()
    real(name, value)
    if value.is_meta:
        raise ValueError(
            f"{name} must hold values to be drawn, got a tensor on the meta device; where that is the default device, "
            'give device="cpu"'
        )
    return value.to(device="cpu", dtype=torch.float64)


def photographs(figure: Figure) -> list[list[float]]:
    """Where the photographs of a drawn figure are: left, top, right, bottom, as shares of the picture that is shown.

    A photograph is what :func:`image_grid` has drawn. The picture is the figure cut to what is on it. A page in dark
    colours shows a figure with light and dark exchanged, but the negative of a photograph would be another photograph.

    Args:
        figure: a figure that has been drawn or shown.

    Returns:
        Four numbers for each photograph, from 0 to 1, with the origin at the top on the left.
    """
    canvas: Any = figure.canvas
    renderer = canvas.get_renderer()
    box = figure.get_tightbbox(renderer).padded(plt.rcParams["savefig.pad_inches"])
    places = []
    for image in figure.findobj(AxesImage):
        height, width = image.get_size()
        extent = image.get_window_extent(renderer).transformed(figure.dpi_scale_trans.inverted())
        for top, left, bottom, right in _PLACES.get(image, ()):
            across = [(extent.x0 + x / width * extent.width - box.x0) / box.width for x in (left, right)]
            down = [(box.y1 - extent.y1 + y / height * extent.height) / box.height for y in (top, bottom)]
            places.append([round(share, 5) for share in (across[0], down[0], across[1], down[1])])
    return places
