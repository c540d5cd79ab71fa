"""Langevin samplers: right ones pass, and each usual mistake is found and called by its name."""

import math

import graded
import numpy as np
import pytest
import torch

from scorebook import coursework, langevin, noise_scales


def normal(x, generator):
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


def uniform(x, generator):
    return torch.rand(x.shape, generator=generator, dtype=x.dtype)


def chain(drift=lambda e: e, noise=lambda e: math.sqrt(2 * e), *, draw=normal, steps=lambda n: n):
    """Student's Langevin sampler, with the place of each usual mistake as an argument."""

    def sampler(score, x, *, step_size, n_steps, generator):
        for _ in range(steps(n_steps)):
            x = x + drift(step_size) * score(x) + noise(step_size) * draw(x, generator)
        return x

    return sampler


def same_noise(score, x, *, step_size, n_steps, generator):
    z = normal(x, generator)
    for _ in range(n_steps):
        x = x + step_size * score(x) + math.sqrt(2 * step_size) * z
    return x


def noise_once(score, x, *, step_size, n_steps, generator):
    for _ in range(n_steps):
        x = x + step_size * score(x)
    return x + math.sqrt(2 * step_size) * normal(x, generator)


def norm_of_the_batch(score, x, *, step_size, n_steps, generator):
    """A step that is measured by norms over the whole batch, as in the published corrector."""
    for _ in range(n_steps):
        z = normal(x, generator)
        step = step_size * (z.norm() / score(x).norm()) ** 2
        x = x + step * score(x) + math.sqrt(2 * step) * z
    return x


def shared(x, generator):
    return torch.randn(x.shape[1:], generator=generator, dtype=x.dtype).expand_as(x)


def one_number(x, generator):
    return torch.randn((len(x), 1), generator=generator, dtype=x.dtype).expand_as(x)


def of_global_seed(score, x, step_size, n_steps):
    for _ in range(n_steps):
        x = x + step_size * score(x) + (2 * step_size) ** 0.5 * torch.randn_like(x)
    return x


def single(score, x, *, step_size, n_steps, generator):
    return chain()(score, x.float(), step_size=step_size, n_steps=n_steps, generator=generator)


def of_numpy(score, x, step_size, n_steps):
    for _ in range(n_steps):
        z = torch.from_numpy(NUMPY.standard_normal(x.shape))
        x = x + step_size * score(x) + (2 * step_size) ** 0.5 * z
    return x


NUMPY = np.random.default_rng(0)
RIGHT = {
    "numpy's noise": of_numpy,
    "single precision": single,
    "the book's": langevin.langevin,
    "by hand": chain(),
    "global seed": of_global_seed,
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_sampler_passes(name):
    graded.passes(lambda seed: coursework.check_langevin(RIGHT[name], seed=seed))


WRONG = {
    "√ε": (chain(noise=math.sqrt), "epsilon_for_two_epsilon"),
    "2ε": (chain(noise=lambda e: 2 * e), "no_root"),
    "ε": (chain(noise=lambda e: e), "no_root"),
    "2√ε": (chain(noise=lambda e: 2 * math.sqrt(e)), "outer_two"),
    "√2 ε": (chain(noise=lambda e: math.sqrt(2) * e), "outer_two"),
    "no noise": (langevin.gradient_ascent, "no_noise"),
    "z": (chain(noise=lambda e: 1.0), "no_scale"),
    "down": (chain(drift=lambda e: -e), "drift_sign"),
    "ε/2, √ε": (chain(lambda e: e / 2, math.sqrt), "half_step"),
    "ε/2": (chain(lambda e: e / 2), "half_drift"),
    "2ε s": (chain(lambda e: 2 * e), "double_drift"),
    "no drift": (chain(lambda e: 0.0), "no_drift"),
    "no step": (chain(lambda e: 1.0), "no_step"),
    "ε²": (chain(lambda e: e**2), "squared_drift"),
    "√(2ε) s": (chain(lambda e: math.sqrt(2 * e)), "root_drift"),
    "n - 1": (chain(steps=lambda n: n - 1), "step_missing"),
    "n + 1": (chain(steps=lambda n: n + 1), "extra_step"),
    "one": (chain(steps=lambda n: 1), "one_step"),
    "same noise": (same_noise, "same_noise"),
    "noise once": (noise_once, "noise_once"),
    "rand": (chain(draw=uniform), "uniform_noise"),
    "rand on [-1, 1]": (chain(draw=lambda x, g: 2 * uniform(x, g) - 1), "uniform_noise"),
    "signs": (chain(draw=lambda x, g: (uniform(x, g) - 0.5).sign()), None),
    "one noise for all": (chain(draw=shared), "shared_noise"),
    "one noise for a chain": (chain(draw=one_number), "shared_noise"),
    "norm of the batch": (norm_of_the_batch, "coupled"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_sampler_is_named(name):
    sampler, mistake = WRONG[name]
    graded.is_named(lambda seed: coursework.check_langevin(sampler, seed=seed), mistake)


def test_a_sampler_that_adjusts_its_step_to_the_batch_is_coupled_even_if_its_moments_are_right():
    def sampler(score, x, *, step_size, n_steps, generator):
        scale = 1 + 1e-6 * float(x.abs().max() > 25)  # no measurable difference, but another chain decides
        return chain()(score, x, step_size=step_size * scale, n_steps=n_steps, generator=generator)

    graded.is_named(lambda seed: coursework.check_langevin(sampler, seed=seed), "coupled")


def annealed(
    drift=lambda a: a,
    noise=lambda a: math.sqrt(2 * a),
    *,
    draw=normal,
    step=lambda e, s, sigmas: e * (s / sigmas[-1]) ** 2,
    order=lambda sigmas: sigmas,
    steps=lambda n: n,
    asked=lambda s, sigmas: s,
    end=lambda score, x, s, generator: x + s**2 * score(x, s),
):
    """Student's annealed Langevin dynamics, with the place of each usual mistake as an argument."""

    def sampler(score, x, sigmas, *, step_size, n_steps_each, generator):
        for s in order(sigmas):
            size = float(step(step_size, s, sigmas))
            for _ in range(steps(n_steps_each)):
                x = x + drift(size) * score(x, asked(s, sigmas)) + noise(size) * draw(x, generator)
        return end(score, x, order(sigmas)[-1], generator)

    return sampler


def no_end(score, x, s, generator):
    return x


def noisy_end(score, x, s, generator):
    return x + s**2 * score(x, s) + math.sqrt(2) * s * normal(x, generator)


RIGHT_ANNEALED = {"the book's": noise_scales.annealed_langevin, "by hand": annealed()}


@pytest.mark.parametrize("name", RIGHT_ANNEALED)
def test_right_annealing_passes(name):
    graded.passes(lambda seed: coursework.check_annealed(RIGHT_ANNEALED[name], seed=seed))


def test_annealing_without_denoising_passes_where_none_is_asked_for():
    graded.passes(lambda seed: coursework.check_annealed(annealed(end=no_end), denoise=False, seed=seed))
    graded.is_named(lambda seed: coursework.check_annealed(annealed(), denoise=False, seed=seed), "denoising")


WRONG_ANNEALED = {
    "no denoising": (annealed(end=no_end), "no_denoising"),
    "√α": (annealed(noise=math.sqrt), "epsilon_for_two_epsilon"),
    "2α": (annealed(noise=lambda a: 2 * a), "no_root"),
    "2√α": (annealed(noise=lambda a: 2 * math.sqrt(a)), "outer_two"),
    "z": (annealed(noise=lambda a: 1.0), "no_scale"),
    "no noise": (annealed(noise=lambda a: 0.0), "no_noise"),
    "down": (annealed(drift=lambda a: -a), "drift_sign"),
    "α/2, √α": (annealed(lambda a: a / 2, math.sqrt), "half_step"),
    "α/2": (annealed(lambda a: a / 2), "half_drift"),
    "constant step": (annealed(step=lambda e, s, sigmas: e), "constant_step"),
    "σᵢ/σ_L": (annealed(step=lambda e, s, sigmas: e * s / sigmas[-1]), "unsquared_step"),
    "upside down": (annealed(step=lambda e, s, sigmas: e * (sigmas[-1] / s) ** 2), "inverse_step"),
    "first scale": (annealed(step=lambda e, s, sigmas: e * (s / sigmas[0]) ** 2), "first_scale"),
    "ascending": (annealed(order=lambda sigmas: sigmas.flip(0)), "ascending"),
    "last left out": (annealed(order=lambda sigmas: sigmas[:-1]), "scale_missing"),
    "first left out": (annealed(order=lambda sigmas: sigmas[1:]), "scale_missing"),
    "last only": (annealed(order=lambda sigmas: sigmas[-1:]), "one_scale"),
    "one step": (annealed(steps=lambda n: 1), "one_step"),
    "a step too few": (annealed(steps=lambda n: n - 1), "step_missing"),
    "a step too many": (annealed(steps=lambda n: n + 1), "extra_step"),
    "σ²": (annealed(asked=lambda s, sigmas: s**2), "variance_for_std"),
    "index": (annealed(asked=lambda s, sigmas: (sigmas == s).nonzero()[0, 0]), "wrong_scale"),
    "last scale throughout": (annealed(asked=lambda s, sigmas: sigmas[-1]), "wrong_scale"),
    "noisy end": (annealed(end=noisy_end), "noisy_end"),
    "σ s at the end": (annealed(end=lambda score, x, s, g: x + s * score(x, s)), "denoising_variance"),
    "rand": (annealed(draw=uniform), "uniform_noise"),
    "one noise for all": (annealed(draw=shared), "shared_noise"),
}


@pytest.mark.parametrize("name", WRONG_ANNEALED)
def test_wrong_annealing_is_named(name):
    sampler, mistake = WRONG_ANNEALED[name]
    graded.is_named(lambda seed: coursework.check_annealed(sampler, seed=seed), mistake)


def test_every_mistake_in_the_catalogue_has_an_author(monkeypatch):
    known = graded.catalogued(monkeypatch, lambda seed: coursework.check_langevin(chain(), seed=seed))
    assert known <= {mistake for _, mistake in WRONG.values()} | graded.authored("langevin")
    known = graded.catalogued(monkeypatch, lambda seed: coursework.check_annealed(annealed(), seed=seed))
    assert known <= {mistake for _, mistake in WRONG_ANNEALED.values()} | graded.authored("annealed", "langevin")
