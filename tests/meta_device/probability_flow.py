"""Calls of ``scorebook.probability_flow`` on the meta device."""

from unittest import mock

import torch

from meta_device import generator, points, score, times
from scorebook import probability_flow
from scorebook.sde import VPSDE

SDE = VPSDE()
SOLVER = {"method": "heun2", "n_steps": 2}


def one_step(field, state, times, **options):
    """One Euler step between all times."""
    single = isinstance(state, torch.Tensor)
    slope = field(times[0], state)
    paths = [
        torch.stack([part + (t - times[0]) * rate for t in times])
        for part, rate in zip((state,) if single else state, (slope,) if single else slope, strict=True)
    ]
    return paths[0] if single else tuple(paths)


def solved(call, *arguments, **options):
    """A call in which one step stands for torchdiffeq, which reads its times and so cannot run here."""
    with mock.patch.object(probability_flow, "odeint", one_step):
        return call(SDE, score, *arguments, **SOLVER, **options)


DRIVEN = {
    "bits_per_dim": lambda: probability_flow.bits_per_dim(times(), 2, 0.125),
    "dequantize": lambda: probability_flow.dequantize(points(), 0.125, generator=generator()),
    "encode": lambda: solved(probability_flow.encode, points(), trajectory=True),
    "interpolate": lambda: solved(probability_flow.interpolate, points(2, 2), points(2, 2), [0.0, 0.5, 1.0]),
    "log_prob": lambda: [
        solved(probability_flow.log_prob, points(), divergence=divergence, generator=generator())
        for divergence in ("exact", "hutchinson")
    ],
    "sample": lambda: [
        solved(probability_flow.sample, points()),
        probability_flow.sample(SDE, score, points(), n_steps=4),
    ],
    "velocity": lambda: [probability_flow.velocity(SDE, score)(t, points()) for t in (0.5, times())],
}
