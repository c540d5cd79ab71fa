"""Why nothing of ``scorebook.coursework.posterior`` takes data, and calls of it on right code."""

import torch

from scorebook.controllable_generation import LinearObservation, pseudoinverse_guidance
from scorebook.coursework import posterior as checks
from scorebook.probability_flow import sample
from surface import Call

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {"check_coverage": CODE, "check_posterior": CODE, "check_ranks": CODE}


def draws(sde, score, observation, n_draws, *, data_std, generator):
    """Right draws, by the flow."""
    y, d = observation.y, observation.matrix.shape[1]
    repeated = LinearObservation(observation.matrix, y.repeat(n_draws, 1), observation.noise_std)
    guided = pseudoinverse_guidance(score, sde, repeated, data_std=data_std)
    start = sde.sample_prior((n_draws * len(y), d), generator=generator, dtype=y.dtype)
    return sample(sde, guided, start, n_steps=20).reshape(n_draws, len(y), d)


def covering(draws, truth, level):
    """A right coverage."""
    low, high = draws.quantile((1 - level) / 2, dim=0), draws.quantile((1 + level) / 2, dim=0)
    share = ((low <= truth) & (truth <= high)).double().mean(1)
    return share.mean(), share.std() / len(share) ** 0.5


def ranks(draws, truth):
    """Right ranks."""
    return torch.count_nonzero(draws < truth, dim=0)


WITHOUT_DATA = {
    "check_coverage": Call(lambda: checks.check_coverage(covering, seed=0)),
    "check_posterior": Call(lambda: checks.check_posterior(draws, seed=0)),
    "check_ranks": Call(lambda: checks.check_ranks(ranks, seed=0)),
}
