"""What a page of the book needs of a figure: letters that can be read, and the same figure for a phone."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text
from matplotlib.typing import ColorType

__all__ = ["CONTRAST", "NARROW", "PHONE", "TEXTS", "make_legible", "stack", "texts"]

TEXTS = "texts"  # where the metadata of a notebook's output says which sizes and colours its letters have
NARROW = "narrow"  # and where it has the same figure for a phone
PHONE = 4.4  # inches, of which the page shows nine tenths on the narrowest phone
CONTRAST = 4.5  # of letters to white, by the rule of WCAG


def _luminance(color: ColorType) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def make_legible(figure: Figure) -> None:
    """Darkens each text that is hard to read on white; white ones stay, for they stand on something dark."""
    for text in figure.findobj(Text):
        color = to_rgb(text.get_color())
        if min(color) > 0.9:
            continue
        while 1.05 / (_luminance(color) + 0.05) < CONTRAST:
            color = tuple(0.97 * part for part in color)  # type: ignore[assignment]
        if color != to_rgb(text.get_color()):
            text.set_color(color)


def texts(figure: Figure) -> list[list[Any]]:
    """What is written in a drawn figure: the size in pixels, at the figure's resolution, and the colour of each text.

    Args:
        figure: a figure that has been drawn or shown.

    Returns:
        Each pair of size and colour once, the smallest first.
    """
    pairs = set()
    for text in figure.findobj(Text):
        seen = text.axes is None or text.axes.get_visible()
        if text.get_visible() and text.get_text().strip() and seen and _is_shown(text):
            pairs.add((round(float(text.get_fontsize()) * figure.dpi / 72, 1), to_hex(text.get_color())))
    return [list(pair) for pair in sorted(pairs)]


def _is_shown(text: Text) -> bool:
    """Whether a text is no part of axes that are off; what was written into such axes by hand is shown."""
    if text.axes is None or text.axes.axison:
        return True
    return text in text.axes.texts or text in (text.axes.title, text.axes._left_title, text.axes._right_title)  # type: ignore[attr-defined]


def stack(figure: Figure, width: float = PHONE) -> bool:
    """Rearrange a drawn figure for a narrow screen: its panels below each other, its letters as large as before.

    Four panels and more that are pictures, such as parts of the plane, make a square. A title that
    is too long for its panel is broken.

    Args:
        figure: a figure that has been drawn; it is changed.
        width: of the new figure, in inches.

    Returns:
        Whether there was anything to do: a figure that is no wider stays.
    """
    old_width, old_height = figure.get_size_inches()
    if old_width <= width:
        return False
    panels = [ax for ax in figure.axes if ax.get_subplotspec() is not None]
    grids = {ax.get_subplotspec().get_gridspec() for ax in panels}  # type: ignore[union-attr]
    boxes = {ax: ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted()) for ax in panels}
    columns = max((grid.ncols for grid in grids), default=1)
    if len(grids) == 1 and columns > 1 and all(len(_cells(ax)) == 1 for ax in panels):
        pictures = all(ax.get_aspect() != "auto" or not ax.axison for ax in panels)
        n = max(1, round(len(panels) ** 0.5)) if pictures and len(panels) >= 4 else 1
        rows = [panels[k : k + n] for k in range(0, len(panels), n)]
        heights = []
        for row in rows:
            room = width / n - (0.75 if row[0].axison else 0.1)
            wanted = [
                boxes[ax].height * room / boxes[ax].width if pictures or ax.get_aspect() != "auto" else 2.4
                for ax in row
            ]
            extra = max(_outside(ax) for ax in row)
            heights.append(max(wanted) + extra)
        grid = GridSpec(len(rows), n, figure=figure, height_ratios=heights)
        for i, row in enumerate(rows):
            for j, ax in enumerate(row):
                ax.set_subplotspec(grid[i, j])
                if j == 0 and ax.axison:
                    _name_again(ax, panels)
        extra = 0.45 if figure.get_suptitle() else 0.0
        figure.set_size_inches(width, sum(heights) + extra)
    else:
        pictures = bool(panels) and all(ax.get_aspect() != "auto" for ax in panels)
        shrunk = old_height * width / old_width
        figure.set_size_inches(width, shrunk if pictures else max(shrunk, min(old_height, 2.8)))
    figure.canvas.draw()
    _break_titles(figure, panels)
    return True


def _cells(ax: Axes) -> list[tuple[int, int]]:
    spec: Any = ax.get_subplotspec()
    return [(i, j) for i in spec.rowspan for j in spec.colspan]


def _outside(ax: Axes) -> float:
    """Inches above and below a panel that its title, its ticks and its label take."""
    above = 0.35 if any(ax.get_title(loc) for loc in ("left", "center", "right")) else 0.1
    return above + (0.55 if ax.axison else 0.05)


def _name_again(ax: Axes, panels: list[Axes]) -> None:
    """A panel that had its neighbour's axis gets the numbers and the name of that axis."""
    if ax.get_shared_y_axes().get_siblings(ax) != [ax]:
        ax.yaxis.set_tick_params(which="both", labelleft=True)
    if not ax.get_ylabel() and ax.yaxis.get_visible() and len(ax.get_yticks()):
        named = [other.get_ylabel() for other in panels if other.get_ylabel()]
        same = len(set(named)) == 1 and panels[0].get_ylabel() == named[0]
        if same and ax.get_ylim() == panels[0].get_ylim():
            ax.set_ylabel(named[0])


def _break_titles(figure: Figure, panels: list[Axes]) -> None:
    """Breaks each title that is wider than its panel, and draws anew where there was one."""
    broken = False
    for ax in panels:
        right = figure.bbox.x1 if ax.get_window_extent().x1 > 0.7 * figure.bbox.x1 else ax.get_window_extent().x1
        for title in (ax.title, ax._left_title, ax._right_title):  # type: ignore[attr-defined]
            room = right - ax.get_window_extent().x0
            words = title.get_text().split(" ")
            if not title.get_text() or title.get_window_extent().width <= room or "\n" in title.get_text():
                continue
            per_word = title.get_window_extent().width / max(len(title.get_text()), 1)
            lines, line = [], ""
            for word in words:
                if line and (len(line) + 1 + len(word)) * per_word > room:
                    lines.append(line)
                    line = word
                else:
                    line = f"{line} {word}".strip()
            title.set_text("\n".join([*lines, line]))
            broken = True
    if broken:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + 0.2)
        figure.canvas.draw()
