"""Calls of ``scorebook.controllable_generation`` on the meta device."""

import torch

from meta_device import generator, labels, log_prob, points, score, times
from meta_device.observations import observations
from scorebook import controllable_generation
from scorebook.lab.networks import NoisyClassifier, TimeMLP
from scorebook.sde import VPSDE, ScoreModel

SDE = VPSDE()


def model():
    """A score model with class labels."""
    return ScoreModel(TimeMLP(2, n_classes=3).to("meta"), SDE)


def classifier():
    """A classifier of noised points."""
    return NoisyClassifier(2, 3).to("meta")


def each_time(guided):
    """A guided score at one time for all points, and at a time for each."""
    return [guided(points(), t) for t in (0.5, times())]


DRIVEN = {
    "class_log_likelihood": lambda: [
        controllable_generation.class_log_likelihood(classifier(), wanted)(points(), times())
        for wanted in (1, labels())
    ],
    "classifier_free": lambda: each_time(controllable_generation.classifier_free(score, score, times())),
    "classifier_loss": lambda: controllable_generation.classifier_loss(
        classifier(), SDE, points(), labels(), generator=generator()
    ),
    "colour_basis": lambda: controllable_generation.colour_basis(device="meta"),
    "condition": lambda: each_time(controllable_generation.condition(score, lambda x, t: log_prob(x), scale=times())),
    "diffusion_posterior": lambda: [
        each_time(controllable_generation.diffusion_posterior(score, SDE, seen, limit=limit))
        for seen in observations()
        for limit in (1.0, None)
    ],
    "given": lambda: each_time(controllable_generation.given(model(), label=labels())),
    "in_basis": lambda: controllable_generation.in_basis(score, controllable_generation.colour_basis(device="meta"))(
        points(3, 4, 4), times()
    ),
    "pseudoinverse_guidance": lambda: [
        each_time(controllable_generation.pseudoinverse_guidance(score, SDE, seen)) for seen in observations()
    ],
    "replace_known": lambda: [
        controllable_generation.replace_known(
            SDE, points(), torch.ones(shape, dtype=torch.bool, device="meta"), generator=generator()
        )(points(), 0.5)
        for shape in ((2,), (8, 2))
    ],
    "tweedie_moment_projection": lambda: [
        each_time(controllable_generation.tweedie_moment_projection(score, SDE, seen)) for seen in observations()
    ],
    "twisted_particles": lambda: [
        controllable_generation.twisted_particles(
            score, SDE, seen, points(), n_steps=3, twist=twist, generator=generator(), diagnostics=True
        )
        for seen in (*observations(), log_prob)
        for twist in ("pseudoinverse", "tweedie")
    ],
}
