"""What all checks have in common: names, keywords, fresh problems from a seed, and reports that repeat."""

import doctest
import functools
import inspect
import re

import nbformat
import pytest
import torch
from surface import coursework_class_guidance as guides
from surface import coursework_denoising_diffusion as steps
from surface import coursework_posterior as posteriors

from scorebook import (
    controllable_generation,
    coursework,
    lab,
    monte_carlo,
    noise_scales,
    probability_flow,
    score_matching,
    sde,
    sliced_score_matching,
)
from scorebook import langevin as langevin_dynamics
from scorebook.lab.arguments import standard_normal

CHECKS = [name for name in coursework.__all__ if name.startswith("check_")]
MIXTURE = lab.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.3)


def euler(process, score, x, t, dt, *, generator):
    drift = sde.reverse_drift(process, score, x, t)
    noise = standard_normal(x.shape, generator=generator, dtype=x.dtype)
    return x + drift * dt + process.diffusion(t) * dt.abs().sqrt() * noise


def sampler(process, score, shape, *, n_steps, t_min, generator):
    start = process.sample_prior(shape, generator=generator)
    return sde.euler_maruyama(process, score, start, n_steps=n_steps, t_min=t_min, generator=generator)


def observation():
    return controllable_generation.LinearObservation(
        torch.ones(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64), 0.5
    )


def guided():
    prior = lab.GaussianMixture([1.0], torch.zeros(1, 2, dtype=torch.float64), 1.0)
    process = sde.VPSDE()
    return controllable_generation.pseudoinverse_guidance(process.exact_score(prior), process, observation())


# Each check on the book's own code.
BOOK = {
    "check_annealed": lambda seed: coursework.check_annealed(noise_scales.annealed_langevin, seed=seed),
    "check_classifier_free": lambda seed: coursework.check_classifier_free(guides.without_classifier, seed=seed),
    "check_classifier_guidance": lambda seed: coursework.check_classifier_guidance(guides.with_classifier, seed=seed),
    "check_label_dropping": lambda seed: coursework.check_label_dropping(guides.dropped, seed=seed),
    "check_conversion": lambda seed: coursework.check_conversion(steps.minus_over_std, "noise to score", seed=seed),
    "check_ddim_step": lambda seed: coursework.check_ddim_step(steps.implicit, seed=seed),
    "check_ddpm_step": lambda seed: coursework.check_ddpm_step(steps.ancestral, seed=seed),
    "check_coverage": lambda seed: coursework.check_coverage(posteriors.covering, seed=seed),
    "check_divergence": lambda seed: coursework.check_divergence(score_matching.divergence, seed=seed),
    "check_estimate": lambda seed: coursework.check_estimate(
        lambda values: monte_carlo.expectation(lambda x: x, values), "mean", seed=seed
    ),
    "check_guidance": lambda seed: coursework.check_guidance(guided(), observation(), seed=seed),
    "check_langevin": lambda seed: coursework.check_langevin(langevin_dynamics.langevin, seed=seed),
    "check_log_prob": lambda seed: coursework.check_log_prob(
        lambda process, score, x: probability_flow.log_prob(process, score, x, rtol=1e-3, atol=1e-3), seed=seed
    ),
    "check_loss": lambda seed: coursework.check_loss(
        noise_scales.denoising_score_matching_loss, "denoising", seed=seed
    ),
    "check_metropolis": lambda seed: coursework.check_metropolis(
        langevin_dynamics.metropolis_adjusted_langevin, seed=seed
    ),
    "check_probability_flow": lambda seed: coursework.check_probability_flow(probability_flow.velocity, seed=seed),
    "check_projections": lambda seed: coursework.check_projections(sliced_score_matching.random_projections, seed=seed),
    "check_posterior": lambda seed: coursework.check_posterior(posteriors.draws, seed=seed),
    "check_ranks": lambda seed: coursework.check_ranks(posteriors.ranks, seed=seed),
    "check_reverse_step": lambda seed: coursework.check_reverse_step(euler, seed=seed),
    "check_sampler": lambda seed: coursework.check_sampler(sampler, seed=seed),
    "check_score": lambda seed: coursework.check_score(MIXTURE.score, MIXTURE, seed=seed),
    "check_sde": lambda seed: coursework.check_sde(sde.SubVPSDE(), seed=seed),
}


def test_every_check_is_tried_on_the_books_own_code():
    assert sorted(BOOK) == CHECKS


@pytest.mark.parametrize("name", CHECKS)
def test_the_books_own_code_passes_and_the_report_says_what_was_verified(name):
    report = BOOK[name](0)
    assert report.require() is report
    assert report.name == name
    assert report.mistake is None
    assert all(row.holds for row in report.measurements)
    assert repr(report).startswith(f"✓ {name} passed: ")


@pytest.mark.parametrize("name", CHECKS)
def test_a_seed_repeats_its_report_and_another_makes_another_problem(name):
    first, again, other = BOOK[name](1), BOOK[name](1), BOOK[name](2)
    assert first == again
    assert repr(first) == repr(again)
    exact = all(row.measured == row.expected for row in first.measurements)
    assert exact or first.measurements != other.measurements


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_tells_how_it_calls_the_student_and_takes_the_common_keywords(name):
    check = getattr(coursework, name)
    parameters = inspect.signature(check).parameters
    assert parameters["seed"].default == 0
    assert parameters["time_limit"].default in (30.0, 60.0)
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[2:])
    for section in ("Args:", "Returns:", "Source:", ".. math::"):
        assert section in check.__doc__ or (section == ".. math::" and ":math:" in check.__doc__)
    assert re.search(r"student's (callable|guided score|object)", check.__doc__)


def stubbed(*arguments, **options):
    return None


WRONG = {
    "check_annealed": lambda: coursework.check_annealed(stubbed),
    "check_classifier_free": lambda: coursework.check_classifier_free(stubbed),
    "check_classifier_guidance": lambda: coursework.check_classifier_guidance(stubbed),
    "check_label_dropping": lambda: coursework.check_label_dropping(stubbed),
    "check_conversion": lambda: coursework.check_conversion(stubbed, "noise to score"),
    "check_ddim_step": lambda: coursework.check_ddim_step(stubbed),
    "check_ddpm_step": lambda: coursework.check_ddpm_step(stubbed),
    "check_divergence": lambda: coursework.check_divergence(stubbed),
    "estimated divergence": lambda: coursework.check_divergence(stubbed, exact=False),
    "check_guidance": lambda: coursework.check_guidance(stubbed, observation()),
    "check_langevin": lambda: coursework.check_langevin(stubbed),
    "check_log_prob": lambda: coursework.check_log_prob(stubbed),
    "check_metropolis": lambda: coursework.check_metropolis(stubbed),
    "check_probability_flow": lambda: coursework.check_probability_flow(stubbed),
    "check_projections": lambda: coursework.check_projections(stubbed),
    "check_reverse_step": lambda: coursework.check_reverse_step(stubbed),
    "check_sampler": lambda: coursework.check_sampler(stubbed),
    "check_score": lambda: coursework.check_score(stubbed, MIXTURE),
    "check_sde": lambda: coursework.check_sde(stubbed),
} | {
    kind: functools.partial(coursework.check_loss, stubbed, kind)
    for kind in ("explicit", "implicit", "sliced", "plain_sliced", "reduced_sliced", "denoising", "sde")
}
WRONG |= {
    f"{kind} estimate": functools.partial(coursework.check_estimate, stubbed, kind)
    for kind in ("mean", "antithetic", "importance", "self_normalised", "effective_draws")
}


@pytest.mark.parametrize("name", WRONG)
def test_a_report_on_a_wrong_answer_leads_to_a_section_of_a_chapter_that_is_there(name, root):
    found = re.search(r"See “(.+)” in the chapter (.+)\.$", WRONG[name]().diagnosis)
    titles = {}
    for page in (root / "book").glob("*.ipynb"):
        text = "\n".join(cell.source for cell in nbformat.read(page, 4).cells if cell.cell_type == "markdown")
        headings = re.findall(r"^#+ (.+)$", text, re.M)
        titles[headings[0].split(":")[0]] = headings
    assert found[1] in titles[found[2]]


def test_the_example_in_the_modules_docstring_runs():
    assert doctest.testmod(coursework).failed == 0
    assert doctest.testmod(coursework).attempted == 2
