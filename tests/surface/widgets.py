"""Why nothing of ``scorebook.lab.widgets`` takes data, and a call of it."""

from matplotlib.figure import Figure

from scorebook.lab import widgets
from surface import Call

NO_DATA = {"explorer": "hands each value to the reader's own function, and shows what that draws"}


def draw(value):
    """A small picture."""
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, value])
    return figure


def frames(widget):
    """Names and pictures of the frames."""
    (play, slider), screen = widget.children[0].children, widget.children[1]
    pages = getattr(screen, "children", [screen])  # ipywidgets 7 has one, which the slider changes
    return [play.value, [str(option) for option in slider.options], [page.value for page in pages]]


WITHOUT_DATA = {"explorer": Call(lambda: frames(widgets.explorer(draw, [0.5, 1.0], "value", interval=200)))}
