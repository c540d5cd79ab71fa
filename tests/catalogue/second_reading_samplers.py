"""Samplers, SDEs and posteriors of the second pile of homework."""

import math

import numpy as np
import torch
from torch import distributions

from catalogue import Catalogue
from scorebook import controllable_generation as control
from scorebook import probability_flow
from scorebook import sde as continuous
from scorebook.controllable_generation import LinearObservation

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


def _randn(x, generator):
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


# Langevin dynamics.


@right("langevin")
def while_there_are_steps(score, x, *, step_size, n_steps, generator=None):
    left = n_steps
    while left > 0:
        z = torch.empty_like(x).normal_(generator=generator)
        x, left = x + step_size * score(x) + np.sqrt(2.0 * step_size) * z, left - 1
    return x


@right("langevin")
def by_multivariate_normal(score, x, *, step_size, n_steps, generator=None):
    for _ in range(n_steps):
        drifted = x + step_size * score(x)
        spread = 2 * step_size * torch.eye(x.shape[1], dtype=x.dtype)
        x = distributions.MultivariateNormal(drifted, spread).sample()
    return x


@wrong("langevin", "half_step")
def as_in_wellings_paper(score, x, *, step_size, n_steps, generator=None):
    for _ in range(n_steps):
        x = x + 0.5 * step_size * score(x) + step_size**0.5 * _randn(x, generator)
    return x


@wrong("langevin", "noise_once")
def shaken_at_the_end(score, x, *, step_size, n_steps, generator=None):
    for _ in range(n_steps):
        x = x + step_size * score(x)
    return x + (2 * step_size) ** 0.5 * _randn(x, generator)


@wrong("langevin", "uniform_noise")
def noise_of_rand_like(score, x, *, step_size, n_steps, generator=None):
    for _ in range(n_steps):
        x = x + step_size * score(x) + (2 * step_size) ** 0.5 * torch.rand_like(x)
    return x


@wrong("langevin", "decaying_step")
def step_that_shrinks(score, x, *, step_size, n_steps, generator=None):
    for k in range(1, n_steps + 1):
        x = x + step_size / k * score(x) + (2 * step_size / k) ** 0.5 * _randn(x, generator)
    return x


@wrong("langevin", "stale_score")
def score_before_the_loop(score, x, *, step_size, n_steps, generator=None):
    s = score(x)
    for _ in range(n_steps):
        x = x + step_size * s + (2 * step_size) ** 0.5 * _randn(x, generator)
    return x


@wrong("langevin", "half_drift", "uniform_noise")
def half_a_step_and_rand(score, x, *, step_size, n_steps, generator=None):
    for _ in range(n_steps):
        x = x + step_size / 2 * score(x) + (2 * step_size) ** 0.5 * torch.rand_like(x)
    return x


@right("annealed")
def nested_while_loops(score, x, sigmas, *, step_size, n_steps_each, generator=None):
    i = 0
    while i < len(sigmas):
        alpha = step_size * (sigmas[i] / sigmas[-1]).item() ** 2
        for _ in range(n_steps_each):
            x = torch.add(x, score(x, sigmas[i]), alpha=alpha)
            x = torch.add(x, _randn(x, generator), alpha=math.sqrt(2 * alpha))
        i += 1
    return x + score(x, sigmas[-1]) * sigmas[-1] ** 2


def _anneal(score, x, sigmas, step_size, n, generator, size=None, told=None, end=None, quiet=False):
    for i, sigma in enumerate(sigmas):
        a = step_size * (sigma / sigmas[-1]) ** 2 if size is None else size(sigma)
        for k in range(n):
            silent = quiet and k == n - 1 and i == len(sigmas) - 1
            z = 0 if silent else _randn(x, generator)
            x = x + a * score(x, sigma if told is None else told(i)) + (2 * a) ** 0.5 * z
    return x + sigmas[-1] ** 2 * score(x, sigmas[-1]) if end is None else end(x)


@wrong("annealed", "unsquared_step")
def ratio_without_its_square(score, x, sigmas, *, step_size, n_steps_each, generator=None):
    return _anneal(score, x, sigmas, step_size, n_steps_each, generator, size=lambda s: step_size * s / sigmas[-1])


@wrong("annealed", "wrong_scale")
def index_for_the_scale(score, x, sigmas, *, step_size, n_steps_each, generator=None):
    return _anneal(score, x, sigmas, step_size, n_steps_each, generator, told=lambda i: i)


@wrong("annealed", "denoising_scale|denoising_variance")
def denoised_with_the_greatest_scale(score, x, sigmas, *, step_size, n_steps_each, generator=None):
    def end(x):
        return x + sigmas[0] ** 2 * score(x, sigmas[0])

    return _anneal(score, x, sigmas, step_size, n_steps_each, generator, end=end)


@wrong("annealed", "no_last_noise")
def last_step_in_silence(score, x, sigmas, *, step_size, n_steps_each, generator=None):
    return _anneal(score, x, sigmas, step_size, n_steps_each, generator, quiet=True)


# SDEs.


class _VP:
    low, high = 0.1, 20.0

    def _beta(self, t):
        return self.low * (1 - t) + self.high * t

    def _total(self, t):
        return t * (self._beta(t) + self.low) / 2

    def alpha(self, t):
        return 1 / torch.exp(self._total(t)).sqrt()

    def sigma(self, t):
        return (1 - torch.exp(-self._total(t))).sqrt()

    def drift(self, x, t):
        return -(self._beta(t) / 2)[:, None] * x

    def diffusion(self, t):
        return self._beta(t).sqrt()


@right("sde")
class Trapezoids(_VP):
    pass


@wrong("sde", "no_x|drift_without_x")
class DriftThatForgetsThePoint(_VP):
    def drift(self, x, t):
        return -(self._beta(t) / 2)[:, None] * torch.ones_like(x)


@wrong("sde", "alpha_sign")
class AlphaThatGrows(_VP):
    def alpha(self, t):
        return torch.exp(0.5 * self._total(t))


@wrong("sde", "diffusion_for_sigma|sigma_is_diffusion")
class SigmaIsTheRootOfBeta(_VP):
    def sigma(self, t):
        return self._beta(t).sqrt()


@wrong("sde", "integral")
class BetaTimesT(_VP):
    def _total(self, t):
        return self._beta(t) * t


@right("sde alone")
class SubVP(_VP):
    def sigma(self, t):
        return 1 - torch.exp(-self._total(t))

    def diffusion(self, t):
        return (self._beta(t) * (1 - torch.exp(-2 * self._total(t)))).sqrt()


@wrong("sde alone", "sigma_slope|variance_slope")
class SlopeOfSigma:
    def alpha(self, t):
        return torch.ones_like(t)

    def sigma(self, t):
        return 0.1 * 50**t

    def drift(self, x, t):
        return 0 * x

    def diffusion(self, t):
        return self.sigma(t) * math.log(50)


@wrong("sde alone", "drift_sign")
class OutwardCosine(_VP):
    def alpha(self, t):
        return torch.cos(t * math.pi / 2)

    def sigma(self, t):
        return torch.sin(t * math.pi / 2)

    def drift(self, x, t):
        return (math.pi / 2 * torch.tan(math.pi / 2 * t))[:, None] * x

    def diffusion(self, t):
        return (math.pi * torch.tan(math.pi / 2 * t)) ** 0.5


@wrong("sde alone", "root_two", "drift_sign")
class OutwardAndTooLoud(_VP):
    def drift(self, x, t):
        return (self._beta(t) / 2)[:, None] * x

    def diffusion(self, t):
        return (2 * self._beta(t)).sqrt()


# Steps back in time.


@right("reverse step")
def drift_then_noise(sde, score, x, t, dt, *, generator=None):
    g2 = torch.square(sde.diffusion(t))
    x = x + dt * sde.drift(x, t) - dt * g2 * score(x, t)
    return x + torch.sqrt(g2 * -dt) * _randn(x, generator)


@wrong("reverse step", "diffusion_for_squared")
def g_forgot_its_square(sde, score, x, t, dt, *, generator=None):
    g = sde.diffusion(t)
    return x + (sde.drift(x, t) - g * score(x, t)) * dt + g * (-dt).sqrt() * _randn(x, generator)


@wrong("reverse step", "no_diffusion")
def noise_without_g(sde, score, x, t, dt, *, generator=None):
    g = sde.diffusion(t)
    return x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + (-dt).sqrt() * _randn(x, generator)


@wrong("reverse step", "no_step")
def dt_left_out_of_the_drift(sde, score, x, t, dt, *, generator=None):
    g = sde.diffusion(t)
    return x - (sde.drift(x, t) - g**2 * score(x, t)) + g * (-dt).sqrt() * _randn(x, generator)


@wrong("reverse step", "root_two")
def langevins_noise(sde, score, x, t, dt, *, generator=None):
    g = sde.diffusion(t)
    return x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * (-2 * dt).sqrt() * _randn(x, generator)


@wrong("reverse step", "stale_state|order")
def noise_before_the_score(sde, score, x, t, dt, *, generator=None):
    g = sde.diffusion(t)
    x = x + g * (-dt).sqrt() * _randn(x, generator)
    return x + (sde.drift(x, t) - g**2 * score(x, t)) * dt


@wrong("reverse step", "no_drift", "no_diffusion")
def score_and_bare_noise(sde, score, x, t, dt, *, generator=None):
    return x - sde.diffusion(t) ** 2 * score(x, t) * dt + (-dt).sqrt() * _randn(x, generator)


# Whole samplers.


@right("sampler")
def grid_by_counting(sde, score, shape, *, n_steps, t_min, generator):
    x = sde.sample_prior(shape, generator=generator)
    for k in range(n_steps):
        t = 1 + (t_min - 1) * torch.tensor(k / n_steps)
        dt = (t_min - 1) / n_steps
        g = sde.diffusion(t)
        x = x + dt * (sde.drift(x, t) - g**2 * score(x, t)) + g * (-dt) ** 0.5 * _randn(x, generator)
    return sde.denoise(score, x, torch.tensor(t_min))


def _sample(sde, score, shape, times, generator, start=None, end=True, last=True):
    x = sde.sample_prior(shape, generator=generator) if start is None else start(shape)
    for k in range(len(times) - 1):
        t, dt = times[k], times[k + 1] - times[k]
        g = sde.diffusion(t)
        z = _randn(x, generator) if last or k < len(times) - 2 else torch.zeros_like(x)
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * dt.abs().sqrt() * z
    t = times[-1]
    return (x + sde.sigma(t) ** 2 * score(x, t)) / sde.alpha(t) if end else x


@wrong("sampler", "prior_std")
def randn_to_begin_with(sde, score, shape, *, n_steps, t_min, generator):
    grid = torch.linspace(1, t_min, n_steps + 1)
    return _sample(sde, score, shape, grid, generator, start=lambda s: torch.randn(s, generator=generator))


@wrong("sampler", "no_denoising")
def last_state_returned(sde, score, shape, *, n_steps, t_min, generator):
    return _sample(sde, score, shape, torch.linspace(1, t_min, n_steps + 1), generator, end=False)


@wrong("sampler", "wrong_time|grid|t_min|exception")
def ten_times_too_early(sde, score, shape, *, n_steps, t_min, generator):
    return _sample(sde, score, shape, torch.linspace(1, 10 * t_min, n_steps + 1), generator)


@wrong("sampler", "calls|wrong_time|grid|step_missing")
def n_steps_points_on_the_grid(sde, score, shape, *, n_steps, t_min, generator):
    return _sample(sde, score, shape, torch.linspace(1, t_min, n_steps), generator)


@wrong("sampler", "no_last_noise")
def no_noise_before_the_end(sde, score, shape, *, n_steps, t_min, generator):
    return _sample(sde, score, shape, torch.linspace(1, t_min, n_steps + 1), generator, last=False)


@wrong("sampler", "prior_std", "no_denoising")
def unit_start_and_noisy_end(sde, score, shape, *, n_steps, t_min, generator):
    grid = torch.linspace(1, t_min, n_steps + 1)
    return _sample(sde, score, shape, grid, generator, start=lambda s: torch.randn(s, generator=generator), end=False)


# The flow.


@right("flow")
def class_with_a_forward(sde, score):
    class Velocity(torch.nn.Module):
        def forward(self, t, x):
            g = sde.diffusion(t)
            return sde.drift(x, t) - score(x, t).mul(g * g).div(2)

    return Velocity()


@wrong("flow", "no_squared_diffusion")
def half_of_the_score(sde, score):
    return lambda t, x: sde.drift(x, t) - 0.5 * score(x, t)


@wrong("flow", "wrong_time")
def score_at_the_time_that_is_left(sde, score):
    return lambda t, x: sde.drift(x, t) - 0.5 * sde.diffusion(t) ** 2 * score(x, 1 - t)


@wrong("flow", "score_sign")
def half_added(sde, score):
    return lambda t, x: sde.drift(x, t) + 0.5 * sde.diffusion(t) ** 2 * score(x, t)


@wrong("flow", "drift_at_zero|wrong_time|drift_time")
def drift_of_the_other_end(sde, score):
    return lambda t, x: sde.drift(x, 1 - t) - 0.5 * sde.diffusion(t) ** 2 * score(x, t)


# Metropolis.


def _values(log_prob, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = log_prob(x)
        (slope,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), slope


@right("metropolis")
def masks_as_factors(log_prob, x, *, step_size, n_steps, generator):
    taken = 0.0
    for _ in range(n_steps):
        value, slope = _values(log_prob, x)
        y = x + step_size * slope + (2 * step_size) ** 0.5 * _randn(x, generator)
        value_y, slope_y = _values(log_prob, y)
        there = ((y - x - step_size * slope) ** 2).sum(1) / (4 * step_size)
        back = ((x - y - step_size * slope_y) ** 2).sum(1) / (4 * step_size)
        a = torch.exp(value_y - back - value + there)
        m = (torch.rand(len(x), 1, generator=generator, dtype=x.dtype) < a[:, None]).to(x)
        x, taken = m * y + (1 - m) * x, taken + m.mean().item()
    return x, taken / n_steps


def _adjusted(log_prob, x, step_size, n_steps, generator, log_a, decide, rate=lambda share: share):
    taken = 0.0
    for _ in range(n_steps):
        value, slope = _values(log_prob, x)
        y = x + step_size * slope + (2 * step_size) ** 0.5 * _randn(x, generator)
        value_y, slope_y = _values(log_prob, y)
        there = ((y - x - step_size * slope) ** 2).sum(1)
        back = ((x - y - step_size * slope_y) ** 2).sum(1)
        u = torch.rand(len(x), generator=generator, dtype=x.dtype)
        keep = decide(u, log_a(value_y - value, there, back, 4 * step_size))
        x, taken = torch.where(keep[:, None], y, x), taken + keep.double().mean()
    return x, rate(taken / n_steps)


def _right_ratio(gain, there, back, width):
    return gain + (there - back) / width


@wrong("metropolis", "barker")
def sigmoid_of_the_ratio(log_prob, x, *, step_size, n_steps, generator):
    return _adjusted(log_prob, x, step_size, n_steps, generator, _right_ratio, lambda u, a: u < torch.sigmoid(a))


@wrong("metropolis", "greedy")
def only_uphill(log_prob, x, *, step_size, n_steps, generator):
    return _adjusted(log_prob, x, step_size, n_steps, generator, _right_ratio, lambda u, a: a > 0)


@wrong("metropolis", "acceptance_rate")
def rate_in_per_cent(log_prob, x, *, step_size, n_steps, generator):
    return _adjusted(
        log_prob, x, step_size, n_steps, generator, _right_ratio, lambda u, a: u.log() < a, lambda r: 100 * r
    )


@wrong("metropolis", "norm")
def lengths_not_squared(log_prob, x, *, step_size, n_steps, generator):
    def ratio(gain, there, back, width):
        return gain + (there.sqrt() - back.sqrt()) / width

    return _adjusted(log_prob, x, step_size, n_steps, generator, ratio, lambda u, a: u.log() < a)


@wrong("metropolis", "no_proposal_ratio", "greedy")
def uphill_in_density_only(log_prob, x, *, step_size, n_steps, generator):
    return _adjusted(log_prob, x, step_size, n_steps, generator, lambda gain, *_: gain, lambda u, a: a > 0)


# Guidance.


@right("guidance")
def by_explicit_inverse(score, sde, observation, *, data_std=1.0):
    matrix, y, noise = observation.matrix, observation.y, observation.noise_std

    def guided(x, t):
        a, c = sde.alpha(t), sde.sigma(t)
        spread = (c * data_std) ** 2 / (c**2 + (a * data_std) ** 2)
        inverse = torch.linalg.inv(spread * matrix @ matrix.T + noise**2 * torch.eye(len(matrix), dtype=x.dtype))

        def log_likelihood(x):
            gap = y - ((x + c**2 * score(x, t)) / a) @ matrix.T
            return -0.5 * torch.einsum("bi,ij,bj->b", gap, inverse, gap).sum()

        return score(x, t) + torch.func.grad(log_likelihood)(x)

    return guided


def _guide(score, sde, observation, data_std, *, spread=None, clean=None, matrix=None):
    matrix = observation.matrix if matrix is None else matrix

    def guided(x, t):
        a, c = sde.alpha(t), sde.sigma(t)
        r2 = (c * data_std) ** 2 / (c**2 + (a * data_std) ** 2) if spread is None else spread(a, c)
        covariance = r2 * matrix @ matrix.T + observation.noise_std**2 * torch.eye(len(matrix), dtype=x.dtype)

        def log_likelihood(x):
            x0 = (x + c**2 * score(x, t)) / a if clean is None else clean(x, score(x, t), a, c)
            gap = observation.y - x0 @ matrix.T
            return -0.5 * (gap * torch.linalg.solve(covariance, gap.T).T).sum()

        return score(x, t) + torch.func.grad(log_likelihood)(x)

    return guided


@wrong("guidance", "isotropic")
def spread_of_unit_data(score, sde, observation, *, data_std=1.0):
    return _guide(score, sde, observation, 1.0)


@wrong("guidance", "no_jacobian")
def denoised_point_detached(score, sde, observation, *, data_std=1.0):
    return _guide(score, sde, observation, data_std, clean=lambda x, s, a, c: (x + c**2 * s.detach()) / a)


@wrong("guidance", "no_noise_variance")
def observation_taken_for_exact(score, sde, observation, *, data_std=1.0):
    exact = LinearObservation(observation.matrix, observation.y, 1e-6)
    return _guide(score, sde, exact, data_std)


@wrong("guidance", "isotropic", "no_jacobian")
def unit_data_and_detached(score, sde, observation, *, data_std=1.0):
    return _guide(score, sde, observation, 1.0, clean=lambda x, s, a, c: (x + c**2 * s.detach()) / a)


@wrong("inpainting guidance", "mask")
def guided_where_nothing_was_seen(score, sde, observation, *, data_std=1.0):
    hidden = torch.eye(4, dtype=torch.float64)[2:]
    return _guide(score, sde, observation, data_std, matrix=hidden)


# Posteriors, their coverage and their ranks.


def _inverted(sde, score, observation, n_draws, data_std, generator, guided=None):
    b, d = len(observation.y), observation.matrix.shape[1]
    many = LinearObservation(observation.matrix, observation.y.repeat(n_draws, 1), observation.noise_std)
    wrap = control.pseudoinverse_guidance(score, sde, many, data_std=data_std) if guided is None else guided(many)
    start = sde.sample_prior((n_draws * b, d), generator=generator, dtype=many.y.dtype)
    return continuous.euler_maruyama(sde, wrap, start, n_steps=150, generator=generator).reshape(n_draws, b, d)


@right("posterior")
def flow_draw_by_draw(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    b, d = len(observation.y), observation.matrix.shape[1]
    guided = control.pseudoinverse_guidance(score, sde, observation, data_std=data_std)
    draws = []
    for _ in range(n_draws):
        start = sde.sample_prior((b, d), generator=generator, dtype=observation.y.dtype)
        draws.append(probability_flow.sample(sde, guided, start, n_steps=30))
    return torch.stack(draws)


@wrong("posterior", "no_data_std")
def data_of_unit_size(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    return _inverted(sde, score, observation, n_draws, 1.0, generator)


@wrong("posterior", "no_guidance")
def draws_of_the_prior(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    return _inverted(sde, score, observation, n_draws, data_std, generator, guided=lambda many: score)


@wrong("posterior", "mixed_problems")
def problems_and_draws_exchanged(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    draws = _inverted(sde, score, observation, n_draws, data_std, generator)
    n, b, d = draws.shape
    return draws.reshape(b, n, d).transpose(0, 1)


@right("coverage")
def counted_by_hand(draws, truth, level):
    low, high = torch.quantile(draws, torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=draws.dtype), dim=0)
    shares = [((lo <= t) & (t <= hi)).double().mean().item() for lo, t, hi in zip(low, truth, high, strict=True)]
    return np.mean(shares), np.std(shares, ddof=1) / len(shares) ** 0.5


@wrong("coverage", "normal_interval")
def mean_and_multiples_of_the_spread(draws, truth, level):
    width = distributions.Normal(0.0, 1.0).icdf(torch.tensor((1 + level) / 2)).item()
    inside = ((truth - draws.mean(0)).abs() < width * draws.std(0)).double().mean(1)
    return inside.mean(), inside.std() / len(inside) ** 0.5


@wrong("coverage", "dependent_entries")
def every_coordinate_a_case(draws, truth, level):
    low, high = draws.quantile((1 - level) / 2, dim=0), draws.quantile((1 + level) / 2, dim=0)
    inside = ((low <= truth) & (truth <= high)).double()
    return inside.mean(), inside.std() / inside.numel() ** 0.5


@wrong("coverage", "full_tails")
def whole_tail_on_either_side(draws, truth, level):
    low, high = draws.quantile(1 - level, dim=0), draws.quantile(level, dim=0)
    inside = ((low <= truth) & (truth <= high)).double().mean(1)
    return inside.mean(), inside.std() / len(inside) ** 0.5


@wrong("coverage", "binomial|dependent_entries")
def root_of_p_one_minus_p(draws, truth, level):
    low, high = draws.quantile((1 - level) / 2, dim=0), draws.quantile((1 + level) / 2, dim=0)
    share = ((low <= truth) & (truth <= high)).double().mean()
    return share, (share * (1 - share) / len(truth)) ** 0.5


@right("ranks")
def by_searching(draws, truth):
    n, b, d = draws.shape
    ordered = draws.permute(1, 2, 0).reshape(b * d, n).sort(1).values
    return torch.searchsorted(ordered, truth.reshape(-1, 1)).reshape(b, d)


@wrong("ranks", "above")
def how_many_are_greater(draws, truth):
    return torch.sum(draws > truth[None], dim=0)


@wrong("ranks", "share")
def fraction_below(draws, truth):
    return torch.mean((draws < truth[None]).to(truth), dim=0)


# DDPM and DDIM.


def _bars(betas, i):
    bars = torch.cat([torch.ones(1, dtype=betas.dtype), (1 - betas).cumprod(0)])
    return bars[i + 1], bars[i]


@right("ddpm step")
def in_double_loops(model, x, i, betas, *, generator):
    now = before = 1.0
    for k in range(i + 1):
        before, now = now, now * (1 - float(betas[k]))
    beta, noise = float(betas[i]), model(x, i)
    clean = torch.clamp(x / now**0.5 - (1 / now - 1) ** 0.5 * noise, min=-1, max=1)
    mean = (before**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - before) * x) / (1 - now)
    return mean if i == 0 else mean + ((1 - before) / (1 - now) * beta) ** 0.5 * _randn(x, generator)


@wrong("ddpm step", "clean_only")
def noised_clean_point(model, x, i, betas, *, generator):
    now, before = _bars(betas, i)
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    std = ((1 - before) / (1 - now) * betas[i]).sqrt()
    return before.sqrt() * clean + (std * _randn(x, generator) if i > 0 else 0)


@wrong("ddpm step", "alpha_bar_for_alpha|root_of_alpha_bar|alpha_for_alpha_bar")
def alpha_bar_in_place_of_alpha(model, x, i, betas, *, generator):
    now, before = _bars(betas, i)
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    mean = before.sqrt() * betas[i] / (1 - now) * clean + now.sqrt() * (1 - before) / (1 - now) * x
    std = ((1 - before) / (1 - now) * betas[i]).sqrt()
    return mean + (std * _randn(x, generator) if i > 0 else 0)


@wrong("ddpm step", "clipped_state")
def result_clipped(model, x, i, betas, *, generator):
    now, before = _bars(betas, i)
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    mean = before.sqrt() * betas[i] / (1 - now) * clean + (1 - betas[i]).sqrt() * (1 - before) / (1 - now) * x
    std = ((1 - before) / (1 - now) * betas[i]).sqrt()
    return (mean + (std * _randn(x, generator) if i > 0 else 0)).clamp(-1, 1)


@right("ddim step")
def direction_and_noise(model, x, i, j, alpha_bars, *, eta, generator):
    a = alpha_bars[i]
    b = torch.tensor(1.0, dtype=x.dtype) if j == -1 else alpha_bars[j]
    eps = model(x, i)
    variance = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
    x0 = x / a.sqrt() - (1 / a - 1).sqrt() * eps
    return b.sqrt() * x0 + torch.clamp(1 - b - variance, min=0).sqrt() * eps + variance.sqrt() * _randn(x, generator)


def _implicit(model, x, i, j, alpha_bars, eta, generator, direction=1.0, scale=lambda b: b.sqrt()):
    a, b = alpha_bars[i], torch.tensor(1.0, dtype=x.dtype) if j < 0 else alpha_bars[j]
    eps = model(x, i)
    std = eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
    clean = (x - (1 - a).sqrt() * eps) / a.sqrt()
    along = (1 - b - std**2).clamp(min=0).sqrt() * eps
    return scale(b) * clean + direction * along + std * _randn(x, generator)


@wrong("ddim step", "no_direction")
def clean_point_and_noise(model, x, i, j, alpha_bars, *, eta, generator):
    return _implicit(model, x, i, j, alpha_bars, eta, generator, direction=0.0)


@wrong("ddim step", "direction_sign")
def away_from_the_noise(model, x, i, j, alpha_bars, *, eta, generator):
    return _implicit(model, x, i, j, alpha_bars, eta, generator, direction=-1.0)


@wrong("ddim step", "no_alpha")
def clean_point_not_scaled(model, x, i, j, alpha_bars, *, eta, generator):
    return _implicit(model, x, i, j, alpha_bars, eta, generator, scale=torch.ones_like)


@wrong("ddim step", "no_alpha", "direction_sign")
def not_scaled_and_away(model, x, i, j, alpha_bars, *, eta, generator):
    return _implicit(model, x, i, j, alpha_bars, eta, generator, direction=-1.0, scale=torch.ones_like)


# What the cells of the assignments judge by themselves.


@right("coverage cells")
def by_numpy_percentiles(samples, truth, level=0.9):
    low, high = np.percentile(samples.numpy(), [50 - 50 * level, 50 + 50 * level], axis=0)
    return float(np.mean((low <= truth.numpy()) & (truth.numpy() <= high)))


@wrong("coverage cells", "normal")
def normal_theory(samples, truth, level=0.9):
    z = distributions.Normal(0.0, 1.0).icdf(torch.tensor((1 + level) / 2)).item()
    return ((truth - samples.mean(0)).abs() <= z * samples.std(0)).double().mean().item()


@wrong("posterior cells", "data_std")
def unit_prior_assumed(sde, score, observation, shape, *, n_steps=200, data_std=1.0, generator=None):
    start = sde.sample_prior(shape, generator=generator, dtype=observation.y.dtype)
    guided = control.pseudoinverse_guidance(score, sde, observation)
    return continuous.euler_maruyama(sde, guided, start, n_steps=n_steps, generator=generator)


@wrong("fisher cells", "unsquared")
def distance_of_the_scores(score_p, score_q, x):
    return (score_p(x) - score_q(x)).norm(dim=1).mean()


@wrong("verdict cells", "swapped")
def wide_taken_for_narrow(draws, truth):
    below = (draws < truth).double().mean(0) - 0.5
    shift, spread = below.mean(1), 12 * below.square().mean(1)
    if shift.mean().abs() > 4 * shift.std() / len(shift) ** 0.5:
        return "shifted"
    gap = (spread.mean() - 1) / (spread.std() / len(spread) ** 0.5)
    return "right" if gap.abs() < 4 else "too wide" if gap > 0 else "too narrow"
