"""Answers on whole samplers, of the first pile, written before the check."""

import itertools

import numpy as np
import torch

from catalogue import Catalogue
from scorebook import sde as continuous

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


@right("sampler")
def with_the_books_parts(sde, score, shape, *, n_steps, t_min, generator):
    start = sde.sample_prior(shape, generator=generator)
    return continuous.euler_maruyama(sde, score, start, n_steps=n_steps, t_min=t_min, generator=generator)


@right("sampler")
def while_loop(sde, score, shape, *, n_steps, t_min, generator):
    x = sde.prior_std * torch.randn(shape, generator=generator, dtype=torch.float64)
    h, k = (1 - t_min) / n_steps, 0
    while k < n_steps:
        t = torch.tensor(1 - k * h, dtype=torch.float64)
        g2 = sde.diffusion(t) ** 2
        x = (
            x
            - h * (sde.drift(x, t) - g2 * score(x, t))
            + (g2 * h) ** 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
        )
        k += 1
    t = torch.tensor(t_min, dtype=torch.float64)
    return (x + sde.sigma(t) ** 2 * score(x, t)) / sde.alpha(t)


@right("sampler")
def time_for_each_row(sde, score, shape, *, n_steps, t_min, generator):
    grid = np.linspace(1.0, t_min, n_steps + 1)
    x = sde.sigma(1.0).item() * torch.randn(*shape, generator=generator)
    ones = torch.ones(shape[0])
    for k in range(n_steps):
        t, dt = ones * grid[k], float(grid[k + 1] - grid[k])
        g = sde.diffusion(t)[:, None]
        x = (
            x
            + dt * (sde.drift(x, t) - g.square() * score(x, t))
            + g * abs(dt) ** 0.5 * torch.randn(x.shape, generator=generator)
        )
    t = ones * t_min
    return (x + sde.sigma(t)[:, None] ** 2 * score(x, t)) / sde.alpha(t)[:, None]


@right("sampler")
def of_the_global_seed(sde, score, shape, n_steps, t_min):
    times = torch.linspace(1, t_min, n_steps + 1)
    x = torch.normal(0.0, float(sde.prior_std), size=tuple(shape))
    for k, t in enumerate(times[:-1]):
        dt = times[k + 1] - t
        dw = torch.randn_like(x) * torch.sqrt(-dt)
        x = x + continuous.reverse_drift(sde, score, x, t) * dt + sde.diffusion(t) * dw
    return sde.denoise(score, x, times[-1])


def _euler(sde, score, x, times, generator):
    for t, s in itertools.pairwise(times):
        g, dt = sde.diffusion(t), s - t
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * dt.abs().sqrt() * z
    return x


def _start(sde, shape, generator):
    return sde.prior_std * torch.randn(shape, generator=generator)


def _clean(sde, score, x, t):
    return (x + sde.sigma(t) ** 2 * score(x, t)) / sde.alpha(t)


@wrong("sampler", "grid_direction")
def from_data_to_noise(sde, score, shape, *, n_steps, t_min, generator):
    times = torch.linspace(t_min, 1, n_steps + 1)
    x = _euler(sde, score, _start(sde, shape, generator), times, generator)
    return _clean(sde, score, x, times[-1])


@wrong("sampler", "prior_std")
def standard_normal_start(sde, score, shape, *, n_steps, t_min, generator):
    times = torch.linspace(1, t_min, n_steps + 1)
    x = _euler(sde, score, torch.randn(shape, generator=generator), times, generator)
    return _clean(sde, score, x, times[-1])


@wrong("sampler", "prior_std")
def variance_of_the_prior(sde, score, shape, *, n_steps, t_min, generator):
    times = torch.linspace(1, t_min, n_steps + 1)
    x = _euler(sde, score, sde.prior_std**2 * torch.randn(shape, generator=generator), times, generator)
    return _clean(sde, score, x, times[-1])


@wrong("sampler", "uniform_noise|prior_law")
def start_from_rand(sde, score, shape, *, n_steps, t_min, generator):
    times = torch.linspace(1, t_min, n_steps + 1)
    x = _euler(sde, score, sde.prior_std * torch.rand(shape, generator=generator), times, generator)
    return _clean(sde, score, x, times[-1])


@wrong("sampler", "shared_noise")
def one_start_for_all(sde, score, shape, *, n_steps, t_min, generator):
    times = torch.linspace(1, t_min, n_steps + 1)
    x = _start(sde, (1, *shape[1:]), generator).repeat(shape[0], 1)
    return _clean(sde, score, _euler(sde, score, x, times, generator), times[-1])


@wrong("sampler", "no_denoising")
def noisy_to_the_last(sde, score, shape, *, n_steps, t_min, generator):
    return _euler(sde, score, _start(sde, shape, generator), torch.linspace(1, t_min, n_steps + 1), generator)


@wrong("sampler", "noisy_end")
def denoised_and_noised(sde, score, shape, *, n_steps, t_min, generator):
    times = torch.linspace(1, t_min, n_steps + 1)
    x = _euler(sde, score, _start(sde, shape, generator), times, generator)
    x = _clean(sde, score, x, times[-1])
    return x + sde.sigma(times[-1]) * torch.randn(shape, generator=generator)


@wrong("sampler", "time_direction")
def positive_dt(sde, score, shape, *, n_steps, t_min, generator):
    x, dt = _start(sde, shape, generator), (1 - t_min) / n_steps
    for t in torch.linspace(1, t_min, n_steps + 1)[:-1]:
        g = sde.diffusion(t)
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * dt**0.5 * torch.randn(shape, generator=generator)
    return _clean(sde, score, x, torch.tensor(t_min))


@wrong("sampler", "dt_for_root")
def noise_times_dt(sde, score, shape, *, n_steps, t_min, generator):
    x, dt = _start(sde, shape, generator), (1 - t_min) / n_steps
    for t in torch.linspace(1, t_min, n_steps + 1)[:-1]:
        g = sde.diffusion(t)
        x = x - (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * dt * torch.randn(shape, generator=generator)
    return _clean(sde, score, x, torch.tensor(t_min))


@wrong("sampler", "time_reached|wrong_time")
def asked_where_it_lands(sde, score, shape, *, n_steps, t_min, generator):
    x, times = _start(sde, shape, generator), torch.linspace(1, t_min, n_steps + 1)
    for t, s in itertools.pairwise(times):
        g, dt = sde.diffusion(t), t - s
        x = x - (sde.drift(x, t) - g**2 * score(x, s)) * dt + g * dt.sqrt() * torch.randn(shape, generator=generator)
    return _clean(sde, score, x, times[-1])


@wrong("sampler", "fixed_steps")
def always_a_hundred(sde, score, shape, *, n_steps, t_min, generator):
    times = torch.linspace(1, t_min, 101)
    return _clean(sde, score, _euler(sde, score, _start(sde, shape, generator), times, generator), times[-1])


@wrong("sampler", "t_min_ignored")
def to_a_thousandth(sde, score, shape, *, n_steps, t_min, generator):
    times = torch.linspace(1, 1e-3, n_steps + 1)
    return _clean(sde, score, _euler(sde, score, _start(sde, shape, generator), times, generator), times[-1])


@wrong("sampler", "step_missing")
def points_for_steps(sde, score, shape, *, n_steps, t_min, generator):
    times = torch.linspace(1, t_min, n_steps)
    return _clean(sde, score, _euler(sde, score, _start(sde, shape, generator), times, generator), times[-1])


@wrong("sampler", "extra_call|double_calls|calls")
def score_for_drift_and_for_print(sde, score, shape, *, n_steps, t_min, generator):
    x, times = _start(sde, shape, generator), torch.linspace(1, t_min, n_steps + 1)
    for t, s in itertools.pairwise(times):
        assert score(x, t).isfinite().all()
        x = _euler(sde, score, x, torch.stack([t, s]), generator)
    return _clean(sde, score, x, times[-1])


@wrong("sampler", "same_noise")
def noise_drawn_before_the_loop(sde, score, shape, *, n_steps, t_min, generator):
    x, z, times = (
        _start(sde, shape, generator),
        torch.randn(shape, generator=generator),
        torch.linspace(1, t_min, n_steps + 1),
    )
    for t, s in itertools.pairwise(times):
        g, dt = sde.diffusion(t), s - t
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * dt.abs().sqrt() * z
    return _clean(sde, score, x, times[-1])


@wrong("sampler", "shared_noise")
def a_row_of_noise_for_the_batch(sde, score, shape, *, n_steps, t_min, generator):
    x, times = _start(sde, shape, generator), torch.linspace(1, t_min, n_steps + 1)
    for t, s in itertools.pairwise(times):
        g, dt, z = sde.diffusion(t), s - t, torch.randn(shape[1], generator=generator)
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * dt.abs().sqrt() * z
    return _clean(sde, score, x, times[-1])


@wrong("sampler", "no_last_step|calls|no_denoising")
def stops_one_before(sde, score, shape, *, n_steps, t_min, generator):
    times = torch.linspace(1, t_min, n_steps + 1)
    x = _euler(sde, score, _start(sde, shape, generator), times[:-1], generator)
    return _clean(sde, score, x, times[-1])


@wrong("sampler", "half_score", "prior_std")
def half_and_standard_start(sde, score, shape, *, n_steps, t_min, generator):
    x, times = torch.randn(shape, generator=generator), torch.linspace(1, t_min, n_steps + 1)
    for t, s in itertools.pairwise(times):
        g, dt, z = sde.diffusion(t), s - t, torch.randn(shape, generator=generator)
        x = x + (sde.drift(x, t) - 0.5 * g**2 * score(x, t)) * dt + g * dt.abs().sqrt() * z
    return _clean(sde, score, x, times[-1])


@wrong("sampler", "no_denoising", "no_root_dt")
def no_root_and_no_end(sde, score, shape, *, n_steps, t_min, generator):
    x, times = _start(sde, shape, generator), torch.linspace(1, t_min, n_steps + 1)
    for t, s in itertools.pairwise(times):
        g, dt, z = sde.diffusion(t), s - t, torch.randn(shape, generator=generator)
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * z
    return x


@wrong("sampler", "denoising_variance", "own_drift")
def vp_only_and_sigma(sde, score, shape, *, n_steps, t_min, generator):
    x, times = _start(sde, shape, generator), torch.linspace(1, t_min, n_steps + 1)
    for t, s in itertools.pairwise(times):
        g2, dt, z = sde.diffusion(t) ** 2, s - t, torch.randn(shape, generator=generator)
        x = x + (-0.5 * g2 * x - g2 * score(x, t)) * dt + (g2 * dt.abs()).sqrt() * z
    return (x + sde.sigma(times[-1]) * score(x, times[-1])) / sde.alpha(times[-1])
