"""Why nothing of ``scorebook.coursework.controllable_generation`` takes data, and calls of it on our own code."""

import torch

from scorebook import controllable_generation, sde
from scorebook.coursework import controllable_generation as checks
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.observations import LinearObservation
from surface import Call, beforehand

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {
    "check_guidance": CODE,
}


def observation():
    """One observation of the sum of two coordinates, in double precision."""
    ones = torch.ones(1, 2, dtype=torch.float64)
    return LinearObservation(ones, ones[:, 0], 0.5)


@beforehand
def guided():
    """A guided score that is exact, for standard normal data."""
    prior = GaussianMixture([1.0], torch.zeros(1, 2, dtype=torch.float64), 1.0)
    return controllable_generation.pseudoinverse_guidance(sde.VPSDE().exact_score(prior), sde.VPSDE(), observation())


WITHOUT_DATA = {
    "check_guidance": Call(lambda: checks.check_guidance(guided(), beforehand(observation)(), seed=0)),
}
