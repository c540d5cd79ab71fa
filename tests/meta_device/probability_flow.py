"""Calls of ``scorebook.probability_flow`` on the meta device."""

from meta_device import generator, points, score, times
from scorebook import probability_flow
from scorebook.sde import VPSDE

SDE = VPSDE()
STEPS = [{"method": "heun2", "n_steps": 2}, {"n_steps": 4}]  # adaptive solvers read their errors, and cannot run here


def solved(call, *arguments, **options):
    """A call by both kinds of solvers with fixed steps."""
    return [call(SDE, score, *arguments, **steps, **options) for steps in STEPS]


DRIVEN = {
    "bits_per_dim": lambda: probability_flow.bits_per_dim(times(), 2, 0.125),
    "dequantize": lambda: probability_flow.dequantize(points(), 0.125, generator=generator()),
    "encode": lambda: solved(probability_flow.encode, points(), trajectory=True),
    "flow_matching_loss": lambda: [
        probability_flow.flow_matching_loss(score, points(), sde=process, generator=generator())
        for process in (None, SDE)
    ],
    "interpolate": lambda: solved(probability_flow.interpolate, points(2, 2), points(2, 2), [0.0, 0.5, 1.0]),
    "log_prob": lambda: [
        solved(probability_flow.log_prob, points(), divergence=divergence, generator=generator(), differentiable=kept)
        for divergence in ("exact", "hutchinson")
        for kept in (True, False)
    ],
    "sample": lambda: [
        solved(probability_flow.sample, points()),
        solved(probability_flow.sample, points(), with_log_prob=True),
        solved(probability_flow.sample, points(), differentiable=True),
    ],
    "score_from_velocity": lambda: [
        probability_flow.score_from_velocity(SDE, score)(points(), t) for t in (0.5, times())
    ],
    "velocity": lambda: [probability_flow.velocity(SDE, score)(t, points()) for t in (0.5, times())],
}
