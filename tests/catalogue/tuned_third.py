"""What the third pile showed, in other hands: mistakes that got a name by it, and neighbours that keep theirs."""

import itertools
import math

import numpy as np
import torch
from torch.func import jvp

from catalogue import Catalogue
from scorebook import probability_flow

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


def _normal(x, generator):
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


# Scores and divergences.


@wrong("gaussian score", "variance_for_std")
def solved_twice(x, mean, covariance):
    return torch.linalg.solve(covariance, torch.linalg.solve(covariance, (mean - x).T)).T


@wrong("mixture score", "variance_for_std")
def responsibilities_of_variances(x, weights, means, variances):
    gaps = means - x[:, None]
    logs = weights.log() - gaps.square().sum(2) / (2 * variances**2) - x.shape[1] * variances.log()
    return torch.einsum("bk,bkd->bd", logs.softmax(1), gaps / variances[:, None])


@wrong("score by autograd", "accumulated")
def one_leaf_for_all_rows(log_prob, x):
    leaf = torch.nn.Parameter(torch.zeros(x.shape[1], dtype=x.dtype))
    return torch.stack([(log_prob((leaf + row)[None]).backward(), leaf.grad.clone())[1] for row in x])


@wrong("score by autograd", "coupled")
def running_mean_of_the_scores(log_prob, x):
    x = x.clone().requires_grad_()
    score = torch.autograd.grad(log_prob(x).sum(), x)[0]
    return 2 * score - score.cumsum(0) / torch.arange(1, len(x) + 1)[:, None]


@wrong("divergence", "determinant")
def logarithm_of_the_volume(field, x):
    jacobians = [torch.autograd.functional.jacobian(lambda y: field(y[None])[0], row).detach().numpy() for row in x]
    return torch.tensor([np.log(abs(np.linalg.det(jacobian))) for jacobian in jacobians])


@wrong("estimate", "two_probes")
def other_signs_on_the_left(field, x, *, generator):
    right_hand, left_hand = 2.0 * torch.randint(2, (2, *x.shape), generator=generator).to(x) - 1
    return (jvp(field, (x,), (right_hand,))[1] * left_hand).sum(1)


@wrong("estimate", "no_second_projection")
def pushed_forward_and_summed(field, x, *, generator):
    signs = 2.0 * torch.randint(2, x.shape, generator=generator).to(x) - 1
    return jvp(field, (x,), (signs,))[1].sum(1)


@wrong("estimate", "sparse_signs")
def rounded_uniform_numbers(field, x, *, generator):
    v = torch.floor(3 * torch.rand(x.shape, generator=generator, dtype=x.dtype)) - 1
    return (v * jvp(field, (x,), (v,))[1]).sum(1)


@wrong("estimate in 3 dimensions", "uniform_symmetric")
def even_between_minus_one_and_one(field, x, *, generator):
    v = 2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1
    return (v * jvp(field, (x,), (v,))[1]).sum(1)


@wrong("estimate", "uniform_symmetric", "sign")
def even_and_negated(field, x, *, generator):
    v = 2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1
    return -(v * jvp(field, (x,), (v,))[1]).sum(1)


@wrong("estimate", "unit_projections")
def normalised_and_averaged(field, x, *, generator):
    v = _normal(x, generator)
    return (v * jvp(field, (x,), (v,))[1]).mean(1) / x.shape[1]


# Losses and projections.


@wrong("explicit loss", "squared_sum")
def sum_of_the_differences(model, x, score):
    return 0.5 * ((model(x) - score(x)).sum(1) ** 2).mean()


@wrong("implicit loss", "squared_sum")
def outer_product_of_the_score(model, x):
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: model(y[None])[0]))(x)
    s = model(x)
    return (jacobian.diagonal(dim1=1, dim2=2).sum(1) + 0.5 * torch.einsum("bi,bj->b", s, s)).mean()


@wrong("reduced sliced loss", "squared_sum")
def components_added_first(model, x, *, generator):
    v = _normal(x, generator)
    s, along = jvp(model, (x,), (v,))
    return (v * along).sum(1).mean() + 0.5 * torch.einsum("bi,bj->b", s, s).mean()


def _sliced(model, x, v, other):
    s, along = jvp(model, (x,), (v,))
    return ((along * other).sum(1) + 0.5 * (v * s).sum(1) ** 2).mean()


@wrong("sliced loss", "no_second_projection")
def forward_and_summed(model, x, *, generator):
    return _sliced(model, x, _normal(x, generator), torch.ones_like(x))


@wrong("plain sliced loss", "no_second_projection")
def along_v_and_summed(model, x, *, generator):
    return _sliced(model, x, _normal(x, generator), torch.ones_like(x))


@wrong("sliced loss", "two_probes")
def forward_and_another(model, x, *, generator):
    return _sliced(model, x, _normal(x, generator), _normal(x, generator))


@wrong("sliced loss", "no_trace")
def square_of_the_slice_alone(model, x, *, generator):
    return 0.5 * (model(x) * _normal(x, generator)).sum(1).square().mean()


@wrong("sliced loss", "no_square")
def slice_of_the_jacobian_alone(model, x, *, generator):
    v = _normal(x, generator)
    return (v * jvp(model, (x,), (v,))[1]).sum(1).mean()


@wrong("plain sliced loss", "sparse_signs")
def directions_with_zeros(model, x, *, generator):
    v = torch.randint(3, x.shape, generator=generator).to(x) - 1
    return _sliced(model, x, v, v)


@wrong("projections", "sparse_signs")
def thirds(x, n, *, generator):
    u = torch.rand(n, *x.shape, generator=generator, dtype=x.dtype)
    return (u > 2 / 3).to(x) - (u < 1 / 3).to(x)


@wrong("projections", "coupled")
def default_axis_of_normalize(x, n, *, generator):
    v = torch.randn(n, *x.shape, generator=generator, dtype=x.dtype)
    return torch.nn.functional.normalize(v)


# Estimates and Langevin samplers.


@wrong("importance estimate", "shifted_weights")
def largest_weight_is_one(values, log_weights):
    w = np.exp(log_weights.numpy() - log_weights.numpy().max())
    terms = w * values.numpy()
    return float(terms.mean()), float(np.sqrt(terms.var(ddof=1) / len(terms)))


def _metropolis(log_prob, x, step_size, n_steps, generator, decide):
    def pull(at):
        at = at.detach().requires_grad_()
        return torch.autograd.grad(log_prob(at).sum(), at)[0]

    share = 0.0
    for _ in range(n_steps):
        y = x + step_size * pull(x) + math.sqrt(2 * step_size) * _normal(x, generator)
        gaps = (y - x - step_size * pull(x)).square() - (x - y - step_size * pull(y)).square()
        taken = decide(log_prob(y) - log_prob(x) + gaps.sum(1) / (4 * step_size))
        x, share = torch.where(taken, y, x), share + taken.double().mean().item() / n_steps
    return x, share


@wrong("metropolis", "parted_decision")
def a_coin_for_each_coordinate(log_prob, x, *, step_size, n_steps, generator):
    def decide(log_a):
        a = log_a.clamp(max=0).exp()[:, None].expand_as(x)
        return torch.bernoulli(a, generator=generator).bool()

    return _metropolis(log_prob, x, step_size, n_steps, generator, decide)


@right("metropolis")
def a_coin_for_each_chain(log_prob, x, *, step_size, n_steps, generator):
    def decide(log_a):
        return torch.bernoulli(log_a.clamp(max=0).exp()[:, None], generator=generator).bool()

    return _metropolis(log_prob, x, step_size, n_steps, generator, decide)


def _annealed(score, x, sigmas, step_size, n, generator, told, told_last):
    for k, sigma in enumerate(sigmas):
        step = step_size * (sigma / sigmas[-1]) ** 2
        for _ in range(n):
            x = x + step * score(x, torch.tensor(told(k))) + (2 * step).sqrt() * _normal(x, generator)
    return x + sigmas[-1] ** 2 * score(x, told_last)


@wrong("annealed", "wrong_scale")
def numbers_from_nought_to_the_end(score, x, sigmas, *, step_size, n_steps_each, generator):
    last = torch.tensor(len(sigmas) - 1.0)
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, float, last)


@wrong("annealed", "wrong_scale")
def numbers_from_one_and_a_scale_at_the_end(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, lambda k: k + 1.0, sigmas[-1])


# SDEs, steps and flows.


class _Line:
    """A VP SDE whose rate grows from one by four."""

    def alpha(self, t):
        return (-0.5 * t - t**2).exp()

    def sigma(self, t):
        return (1 - (-t - 2 * t**2).exp()).sqrt()

    def drift(self, x, t):
        return -0.5 * (1 + 4 * t)[:, None] * x

    def diffusion(self, t):
        return (1 + 4 * t).sqrt()


@wrong("sde alone", "diffusion_for_sigma")
class NoiseAtTheRate(_Line):
    def perturb(self, x0, t, *, generator=None):
        z = _normal(x0, generator)
        return torch.einsum("b,bd->bd", self.alpha(t), x0) + torch.einsum("b,bd->bd", self.diffusion(t), z), z


@wrong("sde alone", "integral")
class RateTimesTime(_Line):
    def alpha(self, t):
        return (-0.5 * t * (1 + 4 * t)).exp()

    def sigma(self, t):
        return (1 - (-t * (1 + 4 * t)).exp()).sqrt()


@wrong("sde alone", "sigma_from_alpha")
class ConstantRateUnsquared:
    """A constant rate, of which the integral is the rate times time."""

    def alpha(self, t):
        return (-0.7 * t).exp()

    def sigma(self, t):
        return (1 - (-0.7 * t).exp()).sqrt()

    def drift(self, x, t):
        return -0.7 * x

    def diffusion(self, t):
        return torch.full_like(t, 1.4).sqrt()


@wrong("reverse step", "order")
def score_of_the_drifted_state(sde, score, x, t, dt, *, generator):
    drifted = x.add(sde.drift(x, t), alpha=dt.item())
    kick = sde.diffusion(t) * dt.abs().sqrt() * _normal(x, generator)
    return drifted - sde.diffusion(t) ** 2 * dt * score(drifted, t) + kick


@wrong("reverse step", "order", "no_noise")
def drifted_and_silent(sde, score, x, t, dt):
    drifted = x + sde.drift(x, t) * dt
    return drifted - sde.diffusion(t) ** 2 * dt * score(drifted, t)


@wrong("reverse step", "fixed_seed")
def seeded_at_home(sde, score, x, t, dt):
    z = _normal(x, torch.Generator().manual_seed(3))
    return x + (sde.drift(x, t) - sde.diffusion(t) ** 2 * score(x, t)) * dt + sde.diffusion(t) * (-dt).sqrt() * z


@wrong("reverse step", "fixed_seed", "saturated")
def seeded_at_home_and_saturated(sde, score, x, t, dt):
    z = _normal(x, torch.Generator().manual_seed(3))
    pull = 9 * torch.tanh(score(x, t) / 9)
    return x + (sde.drift(x, t) - sde.diffusion(t) ** 2 * pull) * dt + sde.diffusion(t) * (-dt).sqrt() * z


def _step(sde, score, x, t, dt, generator, pull, kick):
    return x + (sde.drift(x, t) - pull**2 * score(x, t)) * dt + kick * _normal(x, generator)


@wrong("reverse step", "root_of_diffusion")
def power_of_a_quarter(sde, score, x, t, dt, *, generator):
    return _step(sde, score, x, t, dt, generator, sde.diffusion(t), (sde.diffusion(t) ** 2 * dt**2) ** 0.25)


@wrong("reverse step", "sigma_for_diffusion")
def sigma_throughout(sde, score, x, t, dt, *, generator):
    return _step(sde, score, x, t, dt, generator, sde.sigma(t), sde.sigma(t) * (-dt).sqrt())


@wrong("reverse step", "no_diffusion")
def brownian_kick(sde, score, x, t, dt, *, generator):
    return _step(sde, score, x, t, dt, generator, sde.diffusion(t), (-dt).sqrt())


@wrong("flow", "sigma_for_diffusion")
class SizeForRate:
    """The size of the noise in place of its rate."""

    def __init__(self, sde, score):
        self.sde, self.score = sde, score

    def __call__(self, t, x):
        return torch.lerp(self.sde.drift(x, t), self.sde.drift(x, t) - self.sde.sigma(t) ** 2 * self.score(x, t), 0.5)


# Likelihoods.


def _path(sde, score, x, prior, n=160):
    """By midpoints, with the exact divergence."""

    def velocity(y, t):
        return sde.drift(y, t) - 0.5 * sde.diffusion(t) ** 2 * score(y, t)

    total = 0.0
    for a, b in itertools.pairwise(torch.logspace(-3, 0, n + 1, dtype=x.dtype)):
        t, h = (a + b) / 2, b - a
        middle = x + h / 2 * velocity(x, a)
        jacobian = torch.autograd.functional.jacobian(lambda y, t=t: velocity(y, t).sum(0), middle)
        x, total = x + h * velocity(middle, t), total + h * torch.einsum("ibi->b", jacobian)
    return prior(x) + total


@wrong("log prob under VE", "std_for_variance")
def variance_for_the_scale(sde, score, x):
    def prior(y):
        return torch.distributions.Normal(0.0, sde.prior_std**2).log_prob(y).sum(1)

    return _path(sde, score, x, prior)


@wrong("bits", "mean_batch")
def share_of_the_batch(sde, score, x, bin_width):
    nats = probability_flow.log_prob(sde, score, x) / len(x)
    return -nats / (x.shape[1] * math.log(2)) - math.log2(bin_width)


@wrong("log prob", "mean_batch")
def divided_by_the_points(sde, score, x):
    return _path(sde, score, x, sde.prior_log_prob) / len(x)


# Levels, classes and posteriors.


@wrong("score to v", "state_for_clean")
def noise_beside_the_state(x, prediction, alpha_bar):
    sigma = (1 - alpha_bar) ** 0.5
    return -sigma * (alpha_bar**0.5 * prediction + x)


@wrong("v to score", "swapped")
def angle_from_the_other_side(x, prediction, alpha_bar):
    angle = torch.asin(alpha_bar.sqrt())
    return -(torch.sin(angle) * x + torch.cos(angle) * prediction) / torch.cos(angle)


@wrong("classifier-free", "rescaled")
def of_the_norm_of_the_conditional(model, labels, null, scale):
    def score(x, t):
        cond, base = model(x, t, labels), model(x, t, torch.full_like(labels, null))
        guided = base + scale * (cond - base)
        return torch.nn.functional.normalize(guided) * torch.linalg.vector_norm(cond, dim=1, keepdim=True)

    return score


@wrong("classifier guidance of noise", "sigma_from_alpha")
def complement_of_alpha(sde, model, classifier, labels, scale):
    def chosen(x, t):
        return torch.nn.functional.log_softmax(classifier(x, t), 1).gather(1, labels[:, None]).sum()

    return lambda x, t: model(x, t) - scale * (1 - sde.alpha(t)) * torch.func.grad(chosen)(x, t)


@wrong("ddpm step", "last_level")
def rolled_levels(model, x, i, betas, *, generator):
    bars = torch.cumprod(1 - betas, 0)
    now, before, beta = bars[i], bars.roll(1)[i], betas[i]
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    mean = before.sqrt() * beta / (1 - now) * clean + (1 - beta).sqrt() * (1 - before) / (1 - now) * x
    return mean if i == 0 else mean + ((1 - before) / (1 - now) * beta).sqrt() * _normal(x, generator)


@wrong("posterior", "no_root")
def covariance_times_noise(sde, score, observation, n_draws, *, data_std, generator):
    A, y = observation.matrix, observation.y
    precision = A.T @ A / observation.noise_std**2 + torch.eye(A.shape[1], dtype=A.dtype) / data_std**2
    mean = torch.linalg.solve(precision, A.T @ y.T).T / observation.noise_std**2
    z = torch.randn(n_draws, *mean.shape, generator=generator, dtype=A.dtype)
    return mean + torch.linalg.solve(precision, z.reshape(-1, A.shape[1]).T).T.reshape(z.shape)


@wrong("ranks", "pooled")
def all_draws_over_the_problems(draws, truth):
    below = torch.stack([(draws < row).sum((0, 1)) for row in truth])
    return below.div(truth.shape[0], rounding_mode="floor")
