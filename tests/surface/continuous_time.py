"""Why nothing of ``scorebook.coursework.continuous_time`` takes data, and calls of it on the book's own code."""

import torch

from scorebook import controllable_generation, probability_flow, sde
from scorebook.coursework import continuous_time
from scorebook.lab.distributions import GaussianMixture
from surface import Call, beforehand

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_guard spoil in every way"

NO_DATA = {
    "check_guidance": CODE,
    "check_log_prob": CODE,
    "check_probability_flow": CODE,
    "check_reverse_step": CODE,
    "check_sde": CODE,
}


def observation():
    """One observation of the sum of two coordinates, in double precision."""
    ones = torch.ones(1, 2, dtype=torch.float64)
    return controllable_generation.LinearObservation(ones, ones[:, 0], 0.5)


@beforehand
def guided():
    """A guided score that is exact, for standard normal data."""
    prior = GaussianMixture([1.0], torch.zeros(1, 2, dtype=torch.float64), 1.0)
    return controllable_generation.pseudoinverse_guidance(sde.VPSDE().exact_score(prior), sde.VPSDE(), observation())


def euler(process, score, x, t, dt, *, generator):
    """A right step of the reverse-time SDE."""
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x + sde.reverse_drift(process, score, x, t) * dt + process.diffusion(t) * dt.abs().sqrt() * noise


def likelihood(process, score, x):
    """A right likelihood under the probability flow."""
    return probability_flow.log_prob(process, score, x, method="rk4", n_steps=40, t_min=0.009)


WITHOUT_DATA = {
    "check_guidance": Call(lambda: continuous_time.check_guidance(guided(), beforehand(observation)(), seed=0)),
    "check_log_prob": Call(lambda: continuous_time.check_log_prob(likelihood, seed=0)),
    "check_probability_flow": Call(lambda: continuous_time.check_probability_flow(probability_flow.velocity, seed=0)),
    "check_reverse_step": Call(lambda: continuous_time.check_reverse_step(euler, seed=0)),
    "check_sde": Call(lambda: continuous_time.check_sde(sde.SubVPSDE(), seed=0)),
}
