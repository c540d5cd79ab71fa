"""Guidance: right guidance passes, the usual mistakes are named."""

import graded
import pytest
import torch

from scorebook import controllable_generation, coursework, lab, sde
from scorebook.lab.observations import LinearObservation

DOUBLE = torch.float64


VP = sde.VPSDE()
STANDARD = lab.GaussianMixture([1.0], torch.zeros(1, 2, dtype=DOUBLE), 1.0)
MIXTURE = lab.GaussianMixture([0.3, 0.7], torch.tensor([[-1.0, 0.0], [1.0, 1.0]], dtype=DOUBLE), [0.1, 0.2])
OPERATOR = torch.tensor([[1.0, 0.5]], dtype=DOUBLE)
SEEN = LinearObservation(OPERATOR, torch.tensor([1.2], dtype=DOUBLE), 0.3)


def gaussian(
    law,
    *,
    point=None,
    spread=None,
    std=0.3,
    scale=1.0,
    detach=False,
    plain=1.0,
    factor=lambda a: 1 / a,
    power=2,
    norm=None,
):
    """Student's guidance by a Gaussian likelihood around an estimate of the clean point."""
    prior = VP.exact_score(law)

    def score(x, t):
        a, c = VP.alpha(t), VP.sigma(t)
        x = x.clone().requires_grad_()
        s = prior(x, t)
        clean = (x + c**power * s) * factor(a) if point is None else point(x, a)
        if detach:
            clean = x + (clean - x).detach()
        v = c**2 / (c**2 + a**2) if spread is None else spread(a, c)
        gap = 1.2 - clean @ OPERATOR[0]
        log_likelihood = -0.5 * gap**2 / (v * 1.25 + std**2) if norm is None else -norm * gap.abs()
        return plain * s.detach() + scale * torch.autograd.grad(log_likelihood.sum(), x)[0]

    return score


def posterior(law):
    return VP.exact_score(law.condition(OPERATOR, SEEN.y[0], 0.3))


RIGHT_GUIDANCE = {
    "by hand": (gaussian(STANDARD), {}),
    "the book's": (controllable_generation.pseudoinverse_guidance(VP.exact_score(STANDARD), VP, SEEN), {}),
    "exact": (posterior(MIXTURE), {"prior": MIXTURE}),
    "in another SDE": (
        sde.VESDE().exact_score(MIXTURE.condition(OPERATOR, SEEN.y[0], 0.3)),
        {"prior": MIXTURE, "sde": sde.VESDE()},
    ),
}


@pytest.mark.parametrize("name", RIGHT_GUIDANCE)
def test_right_guidance_passes(name):
    score, options = RIGHT_GUIDANCE[name]
    graded.passes(lambda seed: coursework.check_guidance(score, SEEN, seed=seed, **options))


NO_SPREAD = {"spread": lambda a, c: 0.0}
WRONG_GUIDANCE = {
    "clean likelihood": ({"point": lambda x, a: x, **NO_SPREAD}, "clean_likelihood"),
    "clean likelihood of x/α": ({"point": lambda x, a: x / a, **NO_SPREAD}, "clean_likelihood"),
    "none": ({"scale": 0.0}, "no_guidance"),
    "no prior": ({"plain": 0.0}, "no_prior"),
    "sign": ({"scale": -1.0}, "guidance_sign"),
    "twice": ({"scale": 2.0}, "double_guidance"),
    "half": ({"scale": 0.5}, "half_guidance"),
    "no spread": (NO_SPREAD, "neglected_spread"),
    "divided by the standard deviation": ({"scale": 0.3, **NO_SPREAD}, "std_for_variance"),
    "spread by its root": ({"spread": lambda a, c: c / (c**2 + a**2).sqrt()}, "std_for_variance"),
    "σ s for σ² s": ({"power": 1}, "std_for_variance"),
    **{f"norm, {k:g}": ({"norm": k}, "norm") for k in (1.0, 0.5, 1 / 0.09, 0.5 / 0.09, 1 / 0.3, 0.5 / 0.3)},
    "not divided": ({"scale": 0.09, **NO_SPREAD}, "no_noise_variance"),
    "no 1/α": ({"factor": torch.ones_like}, "no_alpha"),
    "detached": ({"detach": True}, "no_jacobian"),
    "(σ/α)²": ({"spread": lambda a, c: (c / a) ** 2}, "sigma_spread"),
}


@pytest.mark.parametrize("name", WRONG_GUIDANCE)
def test_wrong_guidance_is_named(name):
    options, mistake = WRONG_GUIDANCE[name]
    score = gaussian(STANDARD, **options)
    graded.is_named(lambda seed: coursework.check_guidance(score, SEEN, seed=seed), mistake)


def test_pseudoinverse_guidance_is_named_as_an_approximation_for_a_mixture():
    score = gaussian(MIXTURE)
    graded.is_named(lambda seed: coursework.check_guidance(score, SEEN, prior=MIXTURE, seed=seed), "isotropic")


def test_guidance_that_couples_the_batch_is_named():
    def score(x, t):
        return gaussian(STANDARD)(x, t) * (1 + 0.1 * x.mean())

    graded.is_named(lambda seed: coursework.check_guidance(score, SEEN, seed=seed), "coupled")


@pytest.mark.parametrize(
    ("observation", "named"),
    [
        (OPERATOR, "observation must be a LinearObservation"),
        (LinearObservation(OPERATOR, torch.ones(2, 1, dtype=DOUBLE), 0.3), "one y for all"),
        (
            LinearObservation((lambda x: x, lambda y: y), torch.ones(1, 2), 0.3),
            "prior must be given",
        ),
    ],
)
def test_guidance_needs_an_observation_whose_posterior_is_known(observation, named):
    with pytest.raises(ValueError, match=named):
        coursework.check_guidance(gaussian(STANDARD), observation)


CATALOGUES = {
    "guidance": (lambda seed: coursework.check_guidance(gaussian(STANDARD), SEEN, seed=seed), WRONG_GUIDANCE),
}


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_mistake_in_the_catalogue_has_an_author(monkeypatch, name):
    check, wrong = CATALOGUES[name]
    known = graded.catalogued(monkeypatch, check)
    elsewhere = {"isotropic"}  # each has a test of its own
    authors = {mistake for answer in wrong.values() for mistake in answer if isinstance(mistake, str)}
    assert known <= authors | elsewhere | graded.authored(name)
