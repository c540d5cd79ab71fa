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
    Number,
    beforehand,
    constant,
    generator,
    given,
    labels,
    like,
    log_prob,
    per_row,
    points,
    score,
)
from surface.observations import halves, observation

SDE = VPSDE()
GENTLE = VPSDE(0.1, 1.0)  # with it a handful of particles do not collapse
TIMES = per_row(0.1, 0.9)
# Orthogonal in every precision, without rounding.
HADAMARD = [[0.5, 0.5, 0.5, 0.5], [0.5, -0.5, 0.5, -0.5], [0.5, 0.5, -0.5, -0.5], [0.5, -0.5, -0.5, 0.5]]


@beforehand
def classifier(x):
    """A classifier of noised points, in the precision of the points."""
    network = NoisyClassifier(2, 3, width=8, depth=1, generator=generator())
    torch.nn.init.normal_(network.trunk.last.weight, generator=generator())
    return like(network, x)


@given
def distances(x, t):
    """Logits of three classes by the distance from three places on the diagonal."""
    centres = x.new_tensor([-1.0, 0.0, 1.0])
    return -torch.stack([(x - c).reshape(len(x), x[0].numel()).square().sum(1) for c in centres], 1)


@beforehand
def model(x):
    """A score model with class labels, in the precision of the points."""
    network = TimeMLP(2, width=8, depth=1, n_classes=3, generator=generator())
    torch.nn.init.normal_(network.trunk.last.weight, generator=generator())
    return like(ScoreModel(network, SDE), x)


CALLS = {
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
    "classifier_loss (any event)": Call(
        lambda x, labels: cg.classifier_loss(distances, SDE, x, labels, generator=generator()),
        x=points(),
        labels=labels(),
        accuracy=1e-9,
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
    "diffusion_posterior (a map)": Call(
        lambda x, t: cg.diffusion_posterior(score, SDE, halves(x))(x, t), x=points(), t=TIMES, by_row=True
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
    "pseudoinverse_guidance (a map)": Call(
        lambda x, t: cg.pseudoinverse_guidance(score, SDE, halves(x))(x, t), x=points(), t=TIMES, by_row=True
    ),
    "replace_known": Call(
        lambda y, mask, x, t: cg.replace_known(SDE, y, mask, generator=generator())(x, t),
        y=points(),
        mask=points(dtype=torch.bool),
        x=points(),
        t=TIMES,
        events=(*VECTORS, IMAGES[0], ()),
        by_row=True,
        unused=("x", "y"),
    ),
    "tweedie_moment_projection": Call(
        lambda x, t: cg.tweedie_moment_projection(score, SDE, observation(x))(x, t),
        x=points(),
        t=TIMES,
        events=PLANE,
        by_row=True,
    ),
    "tweedie_moment_projection (a map)": Call(
        lambda x, t: cg.tweedie_moment_projection(score, SDE, halves(x))(x, t), x=points(), t=TIMES, by_row=True
    ),
    "twisted_particles": Call(
        lambda x, data_std: cg.twisted_particles(
            score, GENTLE, observation(x, 1.0), x, n_steps=4, data_std=data_std, generator=generator()
        ),
        x=points(),
        data_std=Number(0.7),
        events=PLANE,
        sampler=True,
    ),
}

NO_DATA = {"colour_basis": "takes none"}

WITHOUT_DATA = {"colour_basis": Call(lambda: cg.colour_basis())}
