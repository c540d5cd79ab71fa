"""The surface of ``scorebook.lab.plots``: what is drawn, as numbers."""

import numpy as np
import torch
from matplotlib import pyplot as plt

from scorebook.lab import plots
from surface import Call, Data, constant, log_prob, points, score


def drawn(ax):
    """The points, lines, bars and pixels of a picture."""
    parts = [np.ma.filled(dots.get_offsets(), np.nan) for dots in ax.collections]
    parts += [line.get_xydata() for line in ax.lines]
    parts += [path.vertices for lines in ax.collections for path in lines.get_paths()]
    parts += [patch.get_path().vertices for patch in ax.patches]
    parts += [np.asarray(image.get_array()) for image in ax.images]
    plt.close(ax.figure)
    return [torch.as_tensor(np.array(part, dtype=float), device="cpu") for part in parts]


def photographs():
    """Where two black images of a figure are."""
    ax = plots.image_grid(-torch.ones(2, 1, 3, 3, device="cpu"))
    ax.figure.canvas.draw()
    places = torch.tensor(plots.photographs(ax.figure), device="cpu", dtype=torch.float64)
    plt.close(ax.figure)
    return places


CALLS = {
    "image_grid": Call(
        lambda images: drawn(plots.image_grid(images)), images=points(), events=((1, 2, 3), (3, 2, 2)), own_dtype=True
    ),
    "samples": Call(lambda x: drawn(plots.samples(x)), x=points(), events=((2,), (), (1,)), own_dtype=True),
    "trajectories": Call(
        lambda path: drawn(plots.trajectories(path)),
        path=Data(lambda random, n, event: random.standard_normal((4, n, *event)), rows=False),
        events=((2,), (), (1,)),
        own_dtype=True,
    ),
    "trajectories (of numbers)": Call(
        lambda path, times: drawn(plots.trajectories(path, times=times)),
        path=constant([[0.0, 1.0], [0.5, 1.5], [2.0, 0.0]]),
        times=constant([0.0, 0.5, 1.0]),
        own_dtype=True,
    ),
}

FIELD = "takes a field, whose values test_plots spoils"
NO_DATA = {"density": FIELD, "score_field": FIELD, "photographs": "takes a figure", "use_style": "takes none"}

WITHOUT_DATA = {
    "density": Call(lambda: drawn(plots.density(log_prob, extent=(-2, 2, -2, 2), resolution=5))),
    "density (of numbers)": Call(lambda: drawn(plots.density(log_prob, extent=(-2.0, 2.0), resolution=5))),
    "score_field": Call(lambda: drawn(plots.score_field(score, extent=(-2, 2, -2, 2), resolution=4))),
    "photographs": Call(photographs),
    "use_style": Call(plots.use_style),
}
