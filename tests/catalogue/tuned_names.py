"""Mistakes that had no name of their own, each in another hand than the answers that showed it."""

import itertools

import torch
from torch.func import jacrev, jvp, vmap

from catalogue import Catalogue
from scorebook import probability_flow
from scorebook.controllable_generation import LinearObservation, pseudoinverse_guidance

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


def _normal(x, generator):
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


@wrong("gaussian score", "diagonal")
def diagonal_of_the_inverse(x, mean, covariance):
    return (mean - x) * torch.linalg.inv(covariance).diagonal()


@wrong("gaussian score", "diagonal", "sign")
def variances_alone_and_downhill(x, mean, covariance):
    return (x - mean) / torch.diag(covariance)


@wrong("gaussian score", "no_mean")
def point_for_its_distance(x, mean, covariance):
    return -torch.linalg.solve(covariance, x.T).T


def _mixture(x, weights, means, variances, logs):
    gaps = means - x[:, None]
    r = torch.softmax(logs(gaps.square().sum(2) / (2 * variances)), 1)
    return (r[:, :, None] * gaps / variances[:, None]).sum(1)


@wrong("mixture score", "weights")
def weights_added_to_the_exponent(x, weights, means, variances):
    d = x.shape[1]
    return _mixture(x, weights, means, variances, lambda half: weights - half - d / 2 * variances.log())


@wrong("mixture score", "normaliser")
def normaliser_of_one_dimension(x, weights, means, variances):
    return _mixture(x, weights, means, variances, lambda half: weights.log() - half - variances.sqrt().log())


def _jacobian(field, x):
    return vmap(jacrev(lambda row: field(row[None])[0]))(x)


@wrong("divergence", "dimension_missing")
def all_but_the_first(field, x):
    return _jacobian(field, x).diagonal(dim1=1, dim2=2)[:, 1:].sum(1)


@wrong("divergence", "dimension_missing")
def all_but_the_last(field, x):
    return _jacobian(field, x).diagonal(dim1=1, dim2=2)[:, :-1].sum(1)


@wrong("divergence", "accumulated")
def upper_triangle(field, x):
    x = x.clone().requires_grad_()
    out, total = field(x), torch.zeros(len(x), dtype=x.dtype)
    for i in range(x.shape[1]):
        out[:, i].backward(torch.ones(len(x), dtype=x.dtype), retain_graph=True)
        total += x.grad[:, i]
    return total


@wrong("estimate", "no_second_projection")
def sum_of_the_product(field, x, *, generator):
    return jvp(field, (x,), (_normal(x, generator),))[1].sum(1)


@wrong("explicit loss", "no_square")
def differences_that_cancel(model, x, score):
    return torch.sum(model(x) - score(x), dim=1).mean() / 2


@wrong("implicit loss", "trace_squared")
def square_of_the_trace(model, x):
    trace = _jacobian(model, x).diagonal(dim1=1, dim2=2).sum(1)
    return (trace**2 + model(x).square().sum(1) / 2).mean()


@wrong("reduced sliced loss", "trace_of_other")
def gradient_of_the_energy_along_v(model, x, *, generator):
    x = x.detach().requires_grad_()
    square = model(x).square().sum(1)
    slope = torch.autograd.grad(square.sum(), x, create_graph=True)[0]
    return ((slope * _normal(x, generator)).sum(1) + square / 2).mean()


@wrong("langevin", "root_half")
def kick_of_half_the_step(score, x, *, step_size, n_steps, generator):
    for _ in range(n_steps):
        x = x + step_size * score(x) + (step_size / 2) ** 0.5 * _normal(x, generator)
    return x


@wrong("langevin", "normalised_score")
def direction_only(score, x, *, step_size, n_steps, generator):
    for _ in range(n_steps):
        s = torch.nn.functional.normalize(score(x), dim=1)
        x = x + step_size * s + (2 * step_size) ** 0.5 * _normal(x, generator)
    return x


@wrong("langevin", "decaying_step")
def step_over_the_root_of_its_number(score, x, *, step_size, n_steps, generator):
    for k in range(n_steps):
        e = step_size / (k + 1) ** 0.5
        x = x + e * score(x) + (2 * e) ** 0.5 * _normal(x, generator)
    return x


def _annealed(score, x, sigmas, step_size, n, generator, kick=lambda a, s: (2 * a) ** 0.5, end=1.0, at=-1):
    for s in sigmas:
        a = step_size * (s / sigmas[-1]) ** 2
        for _ in range(n):
            x = x + a * score(x, s) + kick(a, s) * _normal(x, generator)
    return x + end * sigmas[at] ** 2 * score(x, sigmas[at])


@wrong("annealed", "denoising_scale")
def denoised_from_the_start(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, at=0)


@wrong("annealed", "no_last_noise")
def quiet_at_the_very_end(score, x, sigmas, *, step_size, n_steps_each, generator):
    left = len(sigmas) * n_steps_each
    for s in sigmas:
        a = step_size * (s / sigmas[-1]) ** 2
        for _ in range(n_steps_each):
            left -= 1
            x = x + a * score(x, s) + (left > 0) * (2 * a) ** 0.5 * _normal(x, generator)
    return x + sigmas[-1] ** 2 * score(x, sigmas[-1])


@wrong("annealed", "noise_sigma")
def noise_of_the_scale(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, kick=lambda a, s: s)


@wrong("annealed", "noise_sigma")
def noise_by_the_scale(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, kick=lambda a, s: s * (2 * a) ** 0.5)


@wrong("annealed", "denoising_half")
def half_denoised(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, end=0.5)


@wrong("annealed", "denoising_half")
def twice_denoised(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, end=2.0)


@wrong("sde", "beta_max")
class SlopeOfTheMaximum:
    """Beta from its minimum up by the whole of its maximum."""

    def alpha(self, t):
        return torch.exp(-0.05 * t - 5 * t**2)

    def sigma(self, t):
        return (1 - torch.exp(-0.1 * t - 10 * t**2)).sqrt()

    def drift(self, x, t):
        return -0.5 * (0.1 + 20 * t)[:, None] * x

    def diffusion(self, t):
        return (0.1 + 20 * t).sqrt()


class _Right(SlopeOfTheMaximum):
    def alpha(self, t):
        return torch.exp(-0.05 * t - 4.975 * t**2)

    def sigma(self, t):
        return (1 - torch.exp(-0.1 * t - 9.95 * t**2)).sqrt()

    def drift(self, x, t):
        return -0.5 * (0.1 + 19.9 * t)[:, None] * x

    def diffusion(self, t):
        return (0.1 + 19.9 * t).sqrt()


@wrong("sde", "no_x")
class PullOfNothing(_Right):
    def drift(self, x, t):
        return (-0.5 * (0.1 + 19.9 * t))[:, None].expand(x.shape)


@wrong("sde", "alpha_sign")
class Swelling(_Right):
    def alpha(self, t):
        return torch.exp(0.05 * t + 4.975 * t**2)


@wrong("sde", "diffusion_for_sigma")
class RateForSize(_Right):
    def sigma(self, t):
        return (0.1 + 19.9 * t).sqrt()


@wrong("sde alone", "sigma_slope")
class SlopeForRate(_Right):
    def alpha(self, t):
        return torch.ones_like(t)

    def sigma(self, t):
        return 0.5 + t**2

    def drift(self, x, t):
        return torch.zeros_like(x)

    def diffusion(self, t):
        return 2 * t


@wrong("reverse step", "order")
def shaken_before_it_is_pulled(sde, score, x, t, dt, *, generator):
    shaken = x + sde.diffusion(t) * dt.abs().sqrt() * _normal(x, generator)
    return shaken + dt * (sde.drift(shaken, t) - sde.diffusion(t) ** 2 * score(shaken, t))


@wrong("reverse step", "no_step")
def whole_drift_taken_away(sde, score, x, t, dt, *, generator):
    g = sde.diffusion(t)
    return x - sde.drift(x, t) + g**2 * score(x, t) + g * dt.abs().sqrt() * _normal(x, generator)


@wrong("reverse step", "own_drift")
def drift_of_minus_half_g(sde, score, x, t, dt, *, generator):
    g = sde.diffusion(t)
    return x - (0.5 * g * x + g**2 * score(x, t)) * dt + g * (-dt).sqrt() * _normal(x, generator)


@wrong("flow", "own_drift")
def velocity_with_minus_g_squared(sde, score):
    return lambda t, x: -(sde.diffusion(t) ** 2) * x - 0.5 * sde.diffusion(t) ** 2 * score(x, t)


@wrong("flow", "diffusion_time")
def noise_of_the_end(sde, score):
    def field(t, x):
        g = sde.diffusion(torch.ones_like(t))
        return sde.drift(x, t) - 0.5 * g**2 * score(x, t)

    return field


@wrong("flow", "drift_time")
def drift_of_the_beginning(sde, score):
    return lambda t, x: sde.drift(x, torch.zeros_like(t)) - 0.5 * sde.diffusion(t) ** 2 * score(x, t)


@wrong("score by autograd", "one_row")
def gradient_of_the_last_value(log_prob, x):
    z = x.clone().requires_grad_()
    return torch.autograd.grad(log_prob(z)[-1], z)[0]


@wrong("importance estimate", "product_of_means")
def mean_of_values_times_mean_of_weights(values, log_weights):
    w = torch.exp(log_weights)
    return w.mean() * values.mean(), (w * values).std() / len(values) ** 0.5


@wrong("guidance", "no_noise_variance")
def pseudoinverse_of_an_exact_observation(score, sde, observation, *, data_std=1.0):
    exact = LinearObservation(observation.matrix, observation.y, 1e-5)
    return pseudoinverse_guidance(score, sde, exact, data_std=data_std)


@wrong("noise to v", "swapped")
def noise_and_clean_point_exchanged(x, prediction, alpha_bar):
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    clean = (x - s * prediction) / a
    return s * prediction - a * clean


def _ancestral(model, x, i, betas, generator, weights, clip=lambda m: m):
    bars = torch.cumprod(1 - betas, 0)
    now, before = bars[i], bars[i - 1] if i else torch.ones((), dtype=betas.dtype)
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    a, b = weights(now, before, betas[i])
    std = ((1 - before) / (1 - now) * betas[i]).sqrt()
    return clip(a * clean + b * x + (i > 0) * std * _normal(x, generator))


@wrong("ddpm step", "alpha_bar_for_alpha")
def product_for_the_one_level(model, x, i, betas, *, generator):
    def weights(now, before, beta):
        return before.sqrt() * beta / (1 - now), now.sqrt() * (1 - before) / (1 - now)

    return _ancestral(model, x, i, betas, generator, weights)


@wrong("ddpm step", "clean_only")
def clean_point_at_the_next_level(model, x, i, betas, *, generator):
    return _ancestral(model, x, i, betas, generator, lambda now, before, beta: (before.sqrt(), 0.0))


@wrong("ddpm step", "clipped_state")
def clipped_when_all_is_done(model, x, i, betas, *, generator):
    def weights(now, before, beta):
        return before.sqrt() * beta / (1 - now), (1 - beta).sqrt() * (1 - before) / (1 - now)

    return _ancestral(model, x, i, betas, generator, weights, clip=lambda m: m.clip(-1, 1))


@wrong("ddim step", "same_level")
def noised_to_its_own_level(model, x, i, j, alpha_bars, *, eta, generator):
    a, b = alpha_bars[i], alpha_bars[j] if j >= 0 else torch.ones((), dtype=x.dtype)
    noise, std = model(x, i), eta * ((1 - b) / (1 - a) * (1 - a / b)).sqrt()
    clean = (x - (1 - a).sqrt() * noise) / a.sqrt()
    return a.sqrt() * clean + (1 - a - std**2).clamp(min=0).sqrt() * noise + std * _normal(x, generator)


# Likelihoods.


def _path(sde, score, x, *, start=1e-3, drift=None, traced=None, probes=None, prior=None, generator=None, n=100):
    """End and likelihood by the midpoint rule on steps that are short near the data."""

    def velocity(t, y):
        pull = sde.drift(y, t) if drift is None else drift(t, y)
        return pull - 0.5 * sde.diffusion(t) ** 2 * score(y, t)

    directions = [_normal(x, generator) for _ in range(probes or 0)]

    def divergence(t, y):
        def along(row):
            return (velocity if traced is None else traced)(t, row[None])[0]

        if probes is None:
            return _jacobian(lambda rows: vmap(along)(rows), y).diagonal(dim1=1, dim2=2).sum(1)
        return sum((jvp(lambda rows: velocity(t, rows), (y,), (v,))[1] * v).sum(1) for v in directions)

    times, total = torch.linspace(start**0.5, 1, n + 1, dtype=x.dtype) ** 2, 0.0
    for t, s in itertools.pairwise(times):
        half = (t + s) / 2
        middle = x + (half - t) * velocity(t, x)
        total = total + (s - t) * divergence(half, middle)
        x = x + (s - t) * velocity(half, middle)
    return (sde.prior_log_prob(x) if prior is None else prior(x)) + total


@wrong("log prob", "own_drift")
def drift_of_vp_whatever_the_sde(sde, score, x):
    return _path(sde, score, x, drift=lambda t, y: -0.5 * sde.diffusion(t) ** 2 * y)


@wrong("log prob", "score_divergence")
def trace_of_the_score(sde, score, x):
    return _path(sde, score, x, traced=lambda t, y: score(y, t))


@wrong("log prob", "time_range")
def from_a_twentieth_on(sde, score, x):
    return _path(sde, score, x, start=0.2)


@wrong("log prob", "projections_added")
def four_probes_that_add_up(sde, score, x, *, generator):
    return _path(sde, score, x, probes=4, generator=generator)


@right("log prob under VE")
def midpoints(sde, score, x):
    return _path(sde, score, x, n=200)


@wrong("log prob under VE", "own_drift")
def pulled_where_nothing_pulls(sde, score, x):
    return _path(sde, score, x, drift=lambda t, y: -0.5 * sde.diffusion(t) ** 2 * y)


@wrong("log prob under VE", "prior_std")
def prior_of_unit_size(sde, score, x):
    return _path(sde, score, x, prior=lambda y: torch.distributions.Normal(0.0, 1.0).log_prob(y).sum(1), n=200)


@right("differentiable log prob")
def with_the_graph_of_vmap(sde, score, x):
    return _path(sde, score, x)


@wrong("differentiable log prob", "detached")
def through_the_books_solver_without_its_graph(sde, score, x):
    return probability_flow.log_prob(sde, score, x, rtol=1e-4, atol=1e-4)
