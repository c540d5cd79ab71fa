"""The surface of ``scorebook.lab.observations``."""

import torch

from scorebook.lab.observations import LinearObservation
from surface import PLANE, Call, Data, Number, beforehand, constant, like, per_row, points

MATRIX = [[1.0, 0.5], [0.0, 1.0]]


@beforehand
def observation(x, noise_std=0.3):
    """Two coordinates seen through a matrix, in the precision of the points."""
    return LinearObservation(like(torch.tensor(MATRIX), x), like(torch.tensor([0.3, -0.2]), x), noise_std)


def halved(x):
    """The simplest map, its own adjoint."""
    return 0.5 * x


@beforehand
def halves(x):
    """Each number of a point seen at half its size, through a map of which autograd finds the adjoint."""
    event = tuple(getattr(x, "shape", ()))[1:]
    return LinearObservation(halved, like(torch.full((1, *event), 0.3), x), 0.3, event_shape=event)


CALLS = {
    "LinearObservation": Call(
        lambda operator, y, x, noise_std: LinearObservation(operator, y, noise_std).residual(x),
        operator=constant(MATRIX[:1]),
        y=Data(lambda random, n, event: random.standard_normal((n, 1))),
        x=points(),
        noise_std=Number(0.3),
        events=PLANE,
        by_row=True,
    ),
    "LinearObservation (a map)": Call(
        lambda y, x: LinearObservation((halved, halved), y, 0.3).residual(x), y=points(), x=points(), by_row=True
    ),
    "LinearObservation.log_likelihood": Call(
        lambda x: observation(x).log_likelihood(x), x=points(), events=PLANE, by_row=True
    ),
    "LinearObservation.log_likelihood (a map)": Call(lambda x: halves(x).log_likelihood(x), x=points(), by_row=True),
    "LinearObservation.predict": Call(lambda x: observation(x).predict(x), x=points(), events=PLANE, by_row=True),
    "LinearObservation.predict (a map)": Call(lambda x: halves(x).predict(x), x=points(), by_row=True),
    "LinearObservation.residual": Call(lambda x: observation(x).residual(x), x=points(), events=PLANE, by_row=True),
    "LinearObservation.residual (a map)": Call(lambda x: halves(x).residual(x), x=points(), by_row=True),
    "LinearObservation.residual_of": Call(
        lambda predicted: halves(predicted).residual_of(predicted), predicted=points(), by_row=True
    ),
    "LinearObservation.solve": Call(
        lambda residual, variance: observation(residual).solve(residual, variance),
        residual=points(),
        variance=per_row(0.1, 2.0),
        events=PLANE,
        by_row=True,
    ),
    "LinearObservation.solve (a map)": Call(
        lambda residual, variance: halves(residual).solve(residual, variance),
        residual=points(),
        variance=per_row(0.1, 2.0),
        by_row=True,
    ),
}

NO_DATA = {"LinearObservation.matrix": "is what was given"}

WITHOUT_DATA = {"LinearObservation.matrix": Call(lambda: observation(None).matrix)}
