"""Calls of ``scorebook.lab.predictions`` on the meta device."""

from meta_device import points, times
from scorebook.lab import predictions

KINDS = ("score", "noise", "clean", "velocity", "flow")

DRIVEN = {
    "convert_prediction": lambda: [
        predictions.convert_prediction(points(2, 2), points(2, 2), alpha, sigma, source=source, target=target)
        for source in KINDS
        for target in KINDS
        for alpha, sigma in ((0.5, 0.5), (times(), times()), (1.0, times()))
    ],
}
