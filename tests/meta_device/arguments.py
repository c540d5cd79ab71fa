"""Calls of ``scorebook.lab.arguments`` on the meta device."""

import torch

from meta_device import generator, labels, points, times
from scorebook.lab import arguments

DRIVEN = {
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
    "finite": lambda: (points(), arguments.finite("x", points()))[0],
    "floating": lambda: (points(), arguments.floating("x", points()))[0],
    "integers": lambda: arguments.integers("labels", labels()),
    "non_negative": lambda: (points(), arguments.non_negative("x", points()))[0],
    "positive": lambda: (points(), arguments.positive("x", points()))[0],
    "real": lambda: (points(), arguments.real("x", points()))[0],
}

NOT_DRIVEN = {
    "one_of": "takes a name",
    "positive_integer": "takes a number",
}
