"""The surface of ``scorebook.controllable_generation``."""

import torch

from scorebook import controllable_generation as cg
from scorebook.lab.networks import NoisyClassifier, TimeMLP
from scorebook.sde import VPSDE, ScoreModel
from surface import (
    IMAGES,
    PLANE,
    VECTORS,
    Call,
    Data,
    Number,
    beforehand,
    constant,
    generator,
    labels,
    like,
    log_prob,
    per_row,
    points,
    score,
)

SDE = VPSDE()
TIMES = per_row(0.1, 0.9)
MATRIX = [[1.0, 0.5], [0.0, 1.0]]
# Orthogonal in every precision, without rounding.
HADAMARD = [[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5], [0.5, 0.5, -0.5, -0.5], [0.5, -0.5, -0.5, 0.5]]


@beforehand
def classifier(x):
    """A classifier of noised points, in the precision of the points."""
    network = NoisyClassifier(2, 3, width=8, depth=1, generator=generator())
    torch.nn.init.normal_(network.trunk.last.weight, generator=generator())
    return like(network, x)


@beforehand
def model(x):
    """A score model with class labels, in the precision of the points."""
    network = TimeMLP(2, width=8, depth=1, n_classes=3, generator=generator())
    torch.nn.init.normal_(network.trunk.last.weight, generator=generator())
    return like(ScoreModel(network, SDE), x)


@beforehand
def observation(x):
    """Two coordinates seen through a matrix, in the precision of the points."""
    return cg.LinearObservation(like(torch.tensor(MATRIX), x), like(torch.tensor([0.3, -0.2]), x), 0.3)


CALLS = {
    "LinearObservation": Call(
        lambda operator, y, x, noise_std: cg.LinearObservation(operator, y, noise_std).residual(x),
        operator=constant(MATRIX[:1]),
        y=Data(lambda random, n, event: random.standard_normal((n, 1))),
        x=points(),
        noise_std=Number(0.3),
        events=PLANE,
        by_row=True,
    ),
    "LinearObservation.log_likelihood": Call(
        lambda x: observation(x).log_likelihood(x), x=points(), events=PLANE, by_row=True
    ),
    "LinearObservation.predict": Call(lambda x: observation(x).predict(x), x=points(), events=PLANE, by_row=True),
    "LinearObservation.residual": Call(lambda x: observation(x).residual(x), x=points(), events=PLANE, by_row=True),
    "LinearObservation.solve": Call(
        lambda residual, variance: observation(residual).solve(residual, variance),
        residual=points(),
        variance=per_row(0.1, 2.0),
        events=PLANE,
        by_row=True,
    ),
    "class_log_likelihood": Call(
        lambda labels, x, t: cg.class_log_likelihood(classifier(x), labels)(x, t),
        labels=labels(),
        x=points(),
        t=TIMES,
        events=PLANE,
        by_row=True,
    ),
    "classifier_free": Call(
        lambda scale, x: cg.classifier_free(score, lambda x, t: -2 * x, scale)(x, 0.5),
        scale=per_row(0.0, 2.0),
        x=points(),
        by_row=True,
    ),
    "classifier_loss": Call(
        lambda x, labels: cg.classifier_loss(classifier(x), SDE, x, labels, generator=generator()),
        x=points(),
        labels=labels(),
        events=PLANE,
        accuracy=1e-9,  # the times are drawn in single precision
    ),
    "condition": Call(
        lambda scale, x: cg.condition(score, lambda x, t: log_prob(x), scale=scale)(x, 0.5),
        scale=per_row(0.0, 2.0),
        x=points(),
        by_row=True,
    ),
    "diffusion_posterior": Call(
        lambda scale, x, t, limit: cg.diffusion_posterior(score, SDE, observation(x), scale=scale, limit=limit)(x, t),
        scale=per_row(0.1, 2.0),
        x=points(),
        t=TIMES,
        limit=Number(1.0),
        events=PLANE,
        by_row=True,
    ),
    "given": Call(
        lambda x, t, label: cg.given(model(x), label=label)(x, t),
        x=points(),
        t=TIMES,
        label=labels(),
        events=PLANE,
        by_row=True,
    ),
    "in_basis": Call(
        lambda basis, x: cg.in_basis(score, basis)(x, 0.5),
        basis=constant(HADAMARD),
        x=points(),
        events=((4,), (4, 2, 2)),
        by_row=True,
    ),
    "pseudoinverse_guidance": Call(
        lambda x, t, data_std: cg.pseudoinverse_guidance(score, SDE, observation(x), data_std=data_std)(x, t),
        x=points(),
        t=TIMES,
        data_std=Number(1.0),
        events=PLANE,
        by_row=True,
    ),
    "replace_known": Call(
        lambda y, mask, x, t: cg.replace_known(SDE, y, mask, generator=generator())(x, t),
        y=points(),
        mask=points(dtype=torch.bool),
        x=points(),
        t=TIMES,
        events=VECTORS + IMAGES[:1],
        by_row=True,
        unused=("x", "y"),
    ),
}

NO_DATA = {"colour_basis": "takes none"}

WITHOUT_DATA = {"colour_basis": Call(lambda: cg.colour_basis())}
