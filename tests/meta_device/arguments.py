"""Calls of ``scorebook.lab.arguments`` on the meta device."""

import torch

from meta_device import generator, labels, points, times
from scorebook.lab import arguments


def read_together():
    """Points whose values would be looked at together."""
    with arguments.one_read():
        arguments.finite("x", points())
    return points()


DRIVEN = {
    "one_read": read_together,
    "require": lambda: (points(), arguments.require((points() > 0).all(), ValueError))[0],
    "as_floating": lambda: arguments.as_floating("labels", labels()),
    "double": lambda: arguments.double(points()),
    "levels": lambda: [arguments.levels("t", value, points()) for value in (0.5, times())],
    "one_per_row": lambda: arguments.one_per_row("log_prob", times(), points()),
    "sum_over_event": lambda: arguments.sum_over_event(points(2, 2)),
    "uniform": lambda: [arguments.uniform((8, 2), generator=g, device="meta") for g in (generator(), None)],
    "unit_time": lambda: arguments.unit_time(times()),
    "vectors": lambda: arguments.vectors(points(2, 2)),
    "at_least_single": lambda: [arguments.at_least_single(points().to(dtype)) for dtype in (torch.half, torch.double)],
    "as_given": lambda: arguments.as_given(points()),
    "expand": lambda: [arguments.expand(value, points(3, 2)) for value in (0.5, torch.tensor(0.5), times())],
    "recordable": lambda: arguments.recordable(points()),
    "same_shape": lambda: arguments.same_shape("field", points(), points()),
    "standard_normal": lambda: [
        arguments.standard_normal((8, 2), generator=g, device="meta") for g in (generator(), None)
    ],
    "still_finite": lambda: arguments.still_finite("states", points(), "t", 0.5),
    # The checks return nothing: what they are given is returned here, once they have passed it.
    "batch": lambda: (points(), arguments.batch("x", points()))[0],
    "boolean": lambda: (points(), arguments.boolean("x", points() > 0))[0],
    "fits": lambda: (points(), arguments.fits("x", points(), points()))[0],
    "some_points": lambda: (points(), arguments.some_points("x", points()))[0],
    "two_samples": lambda: arguments.two_samples("x", points(), "y", points()),
    "finite": lambda: (points(), arguments.finite("x", points()))[0],
    "floating": lambda: (points(), arguments.floating("x", points()))[0],
    "integers": lambda: arguments.integers("labels", labels()),
    "non_negative": lambda: (points(), arguments.non_negative("x", points()))[0],
    "positive": lambda: (points(), arguments.positive("x", points()))[0],
    "real": lambda: (points(), arguments.real("x", points()))[0],
}

NOT_DRIVEN = {
    "inner_time": "takes a number",
    "one_of": "takes a name",
    "positive_integer": "takes a number",
}
