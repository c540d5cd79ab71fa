"""Metropolis adjustment: the right sampler passes on other seeds, and one that takes every step does not."""

import pytest
import torch

from scorebook import coursework, langevin


@pytest.mark.parametrize("seed", [11, 12])
def test_the_books_sampler_passes_on_other_seeds(seed):
    coursework.check_metropolis(langevin.metropolis_adjusted_langevin, seed=seed).require()


def test_unadjusted_chains_are_refused_by_name():
    def unadjusted(log_prob, x, *, step_size, n_steps, generator):
        def score(x):
            return torch_gradient(log_prob, x)

        return langevin.langevin(score, x, step_size=step_size, n_steps=n_steps, generator=generator), 1.0

    report = coursework.check_metropolis(unadjusted)
    assert report.mistake == "always_accepted"
    assert "Accept or refuse" in report.diagnosis


def torch_gradient(log_prob, x):
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        return torch.autograd.grad(log_prob(x).sum(), x)[0]
