"""Calls of ``scorebook.lab.observations`` on the meta device."""

import torch

from meta_device import points, times
from scorebook.lab.observations import LinearObservation


def observations():
    """The same kind of observation, once by a matrix and once by callables."""
    matrix = torch.empty(1, 2, device="meta")
    pair = (lambda x: x @ matrix.mT, lambda y: y @ matrix)
    observed = torch.empty(1, 1, device="meta")
    return [LinearObservation(operator, observed, 0.1) for operator in (matrix, pair)]


DRIVEN = {
    "LinearObservation.log_likelihood": lambda: [seen.log_likelihood(points()) for seen in observations()],
    "LinearObservation.matrix": lambda: observations()[0].matrix,
    "LinearObservation.predict": lambda: [seen.predict(points()) for seen in observations()],
    "LinearObservation.residual": lambda: [seen.residual(points()) for seen in observations()],
    "LinearObservation.residual_of": lambda: [seen.residual_of(points(1)) for seen in observations()],
    "LinearObservation.solve": lambda: [
        seen.solve(points(1), variance) for seen in observations() for variance in (0.5, times())
    ],
}
