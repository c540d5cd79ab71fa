"""The first pile of homework: written before the checks were mended, and never changed to suit them.

As in a pile of homework, the styles differ: loops and einsum, NumPy and torch.func, column vectors and reshapes.
"""

import itertools
import math

import numpy as np
import torch
from torch.distributions import MultivariateNormal, Normal
from torch.nn.functional import mse_loss
from torchdiffeq import odeint

from catalogue import (
    Catalogue,
    held_out_classes,
    held_out_ddpm,
    held_out_estimates,
    held_out_likelihoods,
    held_out_samplers,
    normal,
)
from scorebook import controllable_generation, probability_flow, score_matching
from scorebook import sde as continuous

catalogue = Catalogue()
catalogue.include(held_out_classes.catalogue)
catalogue.include(held_out_ddpm.catalogue)
catalogue.include(held_out_samplers.catalogue)
catalogue.include(held_out_estimates.catalogue)
catalogue.include(held_out_likelihoods.catalogue)
right, wrong = catalogue.right, catalogue.wrong
NUMPY = np.random.default_rng(0)


# Scores.


@right("gaussian score")
def inverse_by_einsum(x, mean, covariance):
    return torch.einsum("ij,bj->bi", torch.linalg.inv(covariance), mean - x)


@right("gaussian score")
def row_by_row(x, mean, covariance):
    precision = covariance.inverse()
    return torch.stack([-precision @ (row - mean) for row in x])


@right("gaussian score")
def cholesky(x, mean, covariance):
    lower = torch.linalg.cholesky(covariance)
    return -torch.cholesky_solve((x - mean).T, lower).T


@right("gaussian score")
def by_torch_distributions(x, mean, covariance):
    x = x.detach().requires_grad_(True)
    MultivariateNormal(mean, covariance).log_prob(x).sum().backward()
    return x.grad


@wrong("gaussian score", "covariance")
def multiplied_by_the_covariance(x, mean, covariance):
    return -(x - mean) @ covariance


@wrong("gaussian score", "sign")
def uphill_is_the_other_way(x, mean, covariance):
    return (x - mean) @ torch.linalg.inv(covariance)


@wrong("gaussian score", "no_mean")
def mean_forgotten(x, mean, covariance):
    return -x @ torch.linalg.inv(covariance)


@wrong("gaussian score", "diagonal")
def variances_only(x, mean, covariance):
    return (mean - x) / covariance.diagonal()


@wrong("gaussian score", "half")
def half_left_over(x, mean, covariance):
    return -0.5 * (x - mean) @ torch.linalg.inv(covariance)


@wrong("gaussian score", "shape")
def one_number_for_a_point(x, mean, covariance):
    return -((x - mean) @ torch.linalg.inv(covariance) * (x - mean)).sum(1) / 2


@wrong("gaussian score", "sign", "covariance")
def wrong_way_and_multiplied(x, mean, covariance):
    return (x - mean) @ covariance


@right("mixture score")
def components_in_a_loop(x, weights, means, variances):
    d, logs, pulls = x.shape[1], [], []
    for w, m, v in zip(weights, means, variances, strict=True):
        logs.append(torch.log(w) - ((x - m) ** 2).sum(-1) / (2 * v) - d / 2 * torch.log(2 * math.pi * v))
        pulls.append((m - x) / v)
    r = torch.softmax(torch.stack(logs), dim=0)
    return sum(r_k[:, None] * pull for r_k, pull in zip(r, pulls, strict=True))


@right("mixture score")
def densities_with_the_greatest_taken_out(x, weights, means, variances):
    logs = -((x[:, None] - means) ** 2).sum(2) / (2 * variances) - x.shape[1] / 2 * variances.log()
    p = weights * torch.exp(logs - logs.max(1, keepdim=True).values)
    r = p / p.sum(1, keepdim=True)
    return torch.einsum("bk,bkd->bd", r / variances, means - x[:, None])


@right("mixture score")
def through_logsumexp(x, weights, means, variances):
    x = x.clone().requires_grad_()
    parts = torch.stack(
        [
            torch.log(w) + MultivariateNormal(m, v * torch.eye(len(m), dtype=x.dtype)).log_prob(x)
            for w, m, v in zip(weights, means, variances, strict=True)
        ]
    )
    return torch.autograd.grad(torch.logsumexp(parts, 0).sum(), x)[0]


def _mixture(x, weights, means, variances, *, logs=None, pull=None, axis=1):
    gaps = means - x[:, None]
    square = gaps.square().sum(2)
    d = x.shape[1]
    logs = weights.log() - square / (2 * variances) - d / 2 * variances.log() if logs is None else logs(square, d)
    pulls = gaps / variances[:, None] if pull is None else pull(gaps)
    return (logs.softmax(axis)[:, :, None] * pulls).sum(1)


@wrong("mixture score", "normaliser")
def root_of_v_for_every_dimension(x, weights, means, variances):
    return _mixture(
        x, weights, means, variances, logs=lambda sq, d: weights.log() - sq / (2 * variances) - 0.5 * variances.log()
    )


@wrong("mixture score", "softmax_axis|coupled")
def softmax_over_the_batch(x, weights, means, variances):
    return _mixture(x, weights, means, variances, axis=0)


@wrong("mixture score", "weights|weights_unlogged")
def weights_without_their_logarithm(x, weights, means, variances):
    return _mixture(
        x, weights, means, variances, logs=lambda sq, d: weights - sq / (2 * variances) - d / 2 * variances.log()
    )


@wrong("mixture score", "std_for_variance")
def pulls_divided_by_the_standard_deviation(x, weights, means, variances):
    return _mixture(x, weights, means, variances, pull=lambda gaps: gaps / variances.sqrt()[:, None])


@wrong("mixture score", "hard")
def nearest_component_only(x, weights, means, variances):
    logs = weights.log() - (x[:, None] - means).square().sum(2) / (2 * variances) - variances.log() * x.shape[1] / 2
    best = logs.argmax(1)
    return (means[best] - x) / variances[best, None]


@wrong("mixture score", "precision", "weights")
def neither_variance_nor_weights(x, weights, means, variances):
    return _mixture(
        x,
        weights,
        means,
        variances,
        logs=lambda sq, d: -sq / (2 * variances) - d / 2 * variances.log(),
        pull=lambda gaps: gaps,
    )


@right("score by autograd")
def by_backward(log_prob, x):
    x = x.detach().clone().requires_grad_(True)
    log_prob(x).sum().backward()
    return x.grad


@right("score by autograd")
def by_vmap_of_grad(log_prob, x):
    return torch.func.vmap(torch.func.grad(lambda row: log_prob(row[None])[0]))(x)


@right("score by autograd")
def ones_as_grad_outputs(log_prob, x):
    z = x.clone().requires_grad_()
    value = log_prob(z)
    return torch.autograd.grad(value, z, grad_outputs=torch.ones_like(value))[0]


@wrong("score by autograd", "mean")
def mean_over_the_batch(log_prob, x):
    z = x.clone().requires_grad_()
    return torch.autograd.grad(log_prob(z).mean(), z)[0]


@wrong("score by autograd", "density")
def gradient_of_the_density(log_prob, x):
    z = x.clone().requires_grad_()
    return torch.autograd.grad(torch.exp(log_prob(z)).sum(), z)[0]


@wrong("score by autograd", "sign")
def gradient_of_the_energy(log_prob, x):
    z = x.clone().requires_grad_()
    return torch.autograd.grad((-log_prob(z)).sum(), z)[0]


# Divergences.


@right("divergence")
def vmap_of_jacrev(field, x):
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: field(row.unsqueeze(0)).squeeze(0)))(x)
    return jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)


@right("divergence")
def functional_jacobian_in_a_loop(field, x):
    return torch.stack(
        [torch.autograd.functional.jacobian(lambda v: field(v[None])[0], row).trace() for row in x.detach()]
    )


@right("divergence")
def forward_mode_along_each_axis(field, x):
    total = torch.zeros(len(x), dtype=x.dtype)
    for i in range(x.shape[1]):
        e = torch.zeros_like(x)
        e[:, i] = 1
        total += torch.func.jvp(field, (x,), (e,))[1][:, i]
    return total


@right("divergence")
def central_differences(field, x):
    h, total = 1e-5, 0.0
    with torch.no_grad():
        for i in range(x.shape[1]):
            step = torch.zeros_like(x)
            step[:, i] = h
            total = total + (field(x + step)[:, i] - field(x - step)[:, i]) / (2 * h)
    return total


def _rows(field, x, dims):
    x = x.clone().requires_grad_()
    out = field(x)
    return [torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0] for i in dims(x.shape[1])]


@wrong("divergence", "all_entries")
def sum_of_the_gradient_of_the_sum(field, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(field(x).sum(), x)[0].sum(1)


@wrong("divergence", "last")
def only_the_last_is_kept(field, x):
    for i, row in enumerate(_rows(field, x, range)):
        total = row[:, i]
    return total


@wrong("divergence", "dimension_missing")
def one_dimension_too_few(field, x):
    return sum(row[:, i] for i, row in enumerate(_rows(field, x, lambda d: range(d - 1))))


@wrong("divergence", "accumulated")
def gradients_that_are_not_cleared(field, x):
    x = x.clone().requires_grad_()
    out, total = field(x), 0.0
    for i in range(x.shape[1]):
        out[:, i].sum().backward(retain_graph=True)
        total = total + x.grad[:, i].clone()
    return total


@wrong("divergence", "coupled|shape")
def summed_over_the_batch_too(field, x):
    rows = _rows(field, x, range)
    return sum(row[:, i].sum() for i, row in enumerate(rows)) * torch.ones(len(x), dtype=x.dtype)


@wrong("divergence", "unit_projections|mean_dims")
def mean_of_the_diagonal(field, x):
    return torch.stack([row[:, i] for i, row in enumerate(_rows(field, x, range))]).mean(0)


@wrong("divergence", "sign", "unit_projections|mean_dims")
def minus_the_mean_of_the_diagonal(field, x):
    return -torch.stack([row[:, i] for i, row in enumerate(_rows(field, x, range))]).mean(0)


def _probe(field, x, v):
    x = x.detach().requires_grad_()
    return (torch.autograd.grad((field(x) * v).sum(), x)[0] * v).sum(-1)


@right("estimate")
def signs_by_randint(field, x, generator=None):
    v = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
    return _probe(field, x, v)


@right("estimate")
def forward_mode_probe(field, x, generator=None):
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return (torch.func.jvp(field, (x,), (v,))[1] * v).sum(1)


@right("estimate")
def mean_of_four_probes(field, x, *, generator):
    return torch.stack([_probe(field, x, normal(x, generator)) for _ in range(4)]).mean(0)


@wrong("estimate", "uniform_projections")
def rand_for_randn(field, x, generator=None):
    return _probe(field, x, torch.rand(x.shape, generator=generator, dtype=x.dtype))


@wrong("estimate", "no_second_projection")
def multiplied_by_the_probe_once(field, x, generator=None):
    v = normal(x, generator)
    z = x.detach().requires_grad_()
    return torch.autograd.grad((field(z) * v).sum(), z)[0].sum(1)


@wrong("estimate", "unit_projections")
def normalised_probe(field, x, generator=None):
    v = torch.nn.functional.normalize(normal(x, generator), dim=1)
    return _probe(field, x, v)


@wrong("estimate", "fixed_seed|same_probe")
def seeded_inside(field, x, generator=None):
    torch.manual_seed(42)
    return _probe(field, x, torch.randn_like(x))


# Losses without noise.


@right("explicit loss")
def half_of_mse_times_d(model, x, score):
    return 0.5 * x.shape[1] * mse_loss(model(x), score(x))


@right("explicit loss")
def norms_squared(model, x, score):
    return torch.linalg.vector_norm(model(x) - score(x), dim=-1).pow(2).mean() / 2


@wrong("explicit loss", "half")
def half_forgotten(model, x, score):
    return ((model(x) - score(x)) ** 2).sum(-1).mean()


@wrong("explicit loss", "norm")
def norm_for_its_square(model, x, score):
    return 0.5 * (model(x) - score(x)).norm(dim=-1).mean()


@wrong("explicit loss", "no_square")
def signed_differences(model, x, score):
    return 0.5 * (model(x) - score(x)).sum(-1).mean()


@wrong("explicit loss", "no_gradient")
def under_no_grad(model, x, score):
    with torch.no_grad():
        return 0.5 * (model(x) - score(x)).square().sum(-1).mean()


def _trace(model, x, create_graph=True):
    x = x.detach().clone().requires_grad_()
    s = model(x)
    trace = sum(
        torch.autograd.grad(s[:, i].sum(), x, create_graph=create_graph, retain_graph=True)[0][:, i]
        for i in range(x.shape[1])
    )
    return s, trace


@right("implicit loss")
def by_jacrev(model, x):
    def per_row(row):
        s = model(row[None])[0]
        return torch.func.jacrev(lambda v: model(v[None])[0])(row).trace() + s @ s / 2

    return torch.func.vmap(per_row)(x).mean()


@right("implicit loss")
def terms_averaged_apart(model, x):
    s, trace = _trace(model, x)
    return trace.mean() + (s**2).sum(1).mean() / 2


@right("implicit loss")
def in_two_chunks(model, x):
    total = 0.0
    for part in x.split(8):
        s, trace = _trace(model, part)
        total = total + (trace + 0.5 * s.square().sum(1)).sum()
    return total / len(x)


@wrong("implicit loss", "trace_sign")
def trace_subtracted(model, x):
    s, trace = _trace(model, x)
    return (0.5 * s.square().sum(1) - trace).mean()


@wrong("implicit loss", "detached")
def graph_not_kept(model, x):
    s, trace = _trace(model, x, create_graph=False)
    return (0.5 * s.square().sum(1) + trace).mean()


@wrong("implicit loss", "mean_square")
def square_averaged(model, x):
    s, trace = _trace(model, x)
    return (trace + 0.5 * s.square().mean(1)).mean()


@wrong("implicit loss", "trace_squared")
def trace_squared(model, x):
    s, trace = _trace(model, x)
    return (trace.square() + 0.5 * s.square().sum(1)).mean()


@wrong("implicit loss", "half", "trace_sign")
def half_and_sign(model, x):
    s, trace = _trace(model, x)
    return (s.square().sum(1) - trace).mean()


def _sliced(model, x, v, *, create_graph=True, square=0.5):
    x = x.detach().clone().requires_grad_()
    along = (model(x) * v).sum(1)
    back = torch.autograd.grad(along.sum(), x, create_graph=create_graph)[0]
    return ((back * v).sum(1) + square * along.square()).mean()


@right("sliced loss")
def three_probes(model, x, *, generator):
    return sum(_sliced(model, x, normal(x, generator)) for _ in range(3)) / 3


@right("sliced loss")
def jvp_of_the_model(model, x, generator=None):
    v = torch.randint(2, x.shape, generator=generator).to(x) * 2 - 1
    s, along = torch.func.jvp(model, (x,), (v,))
    return ((along * v).sum(1) + 0.5 * (s * v).sum(1) ** 2).mean()


@wrong("sliced loss", "no_square")
def second_term_forgotten(model, x, *, generator):
    return _sliced(model, x, normal(x, generator), square=0.0)


@wrong("sliced loss", "same_probe|fixed_seed")
def probe_of_a_fixed_seed(model, x, generator=None):
    return _sliced(model, x, normal(x, torch.Generator().manual_seed(0)))


@wrong("sliced loss", "half")
def half_of_the_square_forgotten(model, x, *, generator):
    return _sliced(model, x, normal(x, generator), square=1.0)


@wrong("sliced loss", "one_probe|shared_noise|all_entries")
def ones_for_a_probe(model, x, *, generator):
    return _sliced(model, x, torch.ones_like(x))


# Losses with noise.


@right("denoising loss")
def regression_on_the_target(model, x, sigma, *, generator=None):
    sigma = sigma.view(-1, *[1] * (x.ndim - 1))
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    noisy = x + noise * sigma
    target = -(noisy - x) / sigma**2
    per_point = ((model(noisy, sigma.view(-1)) - target) ** 2).flatten(1).sum(1)
    return (0.5 * per_point * sigma.view(-1) ** 2).mean()


@right("denoising loss")
def noise_from_torch_normal(model, x, sigma, generator=None):
    noisy = torch.normal(x, sigma[:, None].expand_as(x), generator=generator)
    residual = sigma[:, None] * model(noisy, sigma) + (noisy - x) / sigma[:, None]
    return torch.einsum("bd,bd->", residual, residual) / (2 * len(x))


@right("denoising loss")
def half_the_batch_at_a_time(model, x, sigma, generator=None):
    total = 0.0
    for part, scale in zip(x.chunk(2), sigma.chunk(2), strict=True):
        z = normal(part, generator)
        c = scale[:, None]
        total = total + 0.5 * (c * model(part + c * z, scale) + z).square().sum()
    return total / len(x)


@right("denoising loss")
def numpys_noise(model, x, sigma):
    z = torch.as_tensor(NUMPY.standard_normal(x.shape))
    return 0.5 * (sigma[:, None] * model(x + sigma[:, None] * z, sigma) + z).pow(2).sum(1).mean()


def _denoising(model, x, sigma, generator, *, z=None, add=None, told=None, residual=None, weight=None, factor=0.5):
    c = sigma[:, None]
    z = normal(x, generator) if z is None else z
    s = model(x + (c * z if add is None else add(c, z)), sigma if told is None else told(sigma))
    r = s + z / c if residual is None else residual(s, z, c)
    return factor * ((sigma**2 if weight is None else weight(sigma)) * r.square().sum(1)).mean()


@wrong("denoising loss", "no_sigma|no_scale")
def noise_of_unit_size(model, x, sigma, generator=None):
    return _denoising(model, x, sigma, generator, add=lambda c, z: z)


@wrong("denoising loss", "noise_scale|log_scale")
def logarithm_of_sigma_told(model, x, sigma, generator=None):
    return _denoising(model, x, sigma, generator, told=torch.log)


@wrong("denoising loss", "target_sign")
def target_towards_the_noise(model, x, sigma, generator=None):
    return _denoising(model, x, sigma, generator, residual=lambda s, z, c: s - z / c)


@wrong("denoising loss", "noise_prediction")
def regression_on_the_noise_itself(model, x, sigma, generator=None):
    return _denoising(model, x, sigma, generator, residual=lambda s, z, c: s - z, weight=torch.ones_like)


@wrong("denoising loss", "mse")
def mean_of_all_squares(model, x, sigma, *, generator):
    c, z = sigma[:, None], normal(x, generator)
    return mse_loss(c * model(x + c * z, sigma), -z)


@wrong("denoising loss", "inverse_weight")
def weight_upside_down(model, x, sigma, generator=None):
    return _denoising(model, x, sigma, generator, weight=lambda s: 1 / s**2)


@wrong("denoising loss", "uniform_noise")
def noise_by_rand(model, x, sigma, generator=None):
    return _denoising(model, x, sigma, generator, z=torch.rand(x.shape, generator=generator, dtype=x.dtype))


@wrong("denoising loss", "fixed_seed|same_noise")
def generator_of_its_own(model, x, sigma, generator=None):
    return _denoising(model, x, sigma, torch.Generator().manual_seed(1))


@wrong("denoising loss", "half", "target_sign")
def no_half_and_wrong_target(model, x, sigma, generator=None):
    return _denoising(model, x, sigma, generator, residual=lambda s, z, c: s - z / c, factor=1.0)


@wrong("denoising loss", "uniform_noise", "unweighted")
def rand_and_no_weight(model, x, sigma, generator=None):
    z = torch.rand(x.shape, generator=generator, dtype=x.dtype)
    return _denoising(model, x, sigma, generator, z=z, weight=torch.ones_like)


def _over_time(model, sde, x, generator, *, t=None, alpha=None, sigma=None, told=None, weight=None, residual=None):
    t = 1e-3 + (1 - 1e-3) * torch.rand(len(x), generator=generator, dtype=x.dtype) if t is None else t
    a, c = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    z = normal(x, generator)
    noisy = (a if alpha is None else alpha(a)) * x + (c if sigma is None else sigma(c)) * z
    s = model(noisy, t if told is None else told(t))
    r = s + z / c if residual is None else residual(s, z, c)
    return 0.5 * ((c**2 if weight is None else weight(t)[:, None]) * r.square()).sum(1).mean()


@right("sde loss")
def by_perturb(model, sde, x, *, generator):
    t = torch.rand(len(x), generator=generator, dtype=x.dtype) * 0.999 + 0.001
    x_t, noise = sde.perturb(x, t, generator=generator)
    return 0.5 * (sde.sigma(t)[:, None] * model(x_t, t) + noise).square().sum(1).mean()


@right("sde loss")
def thousand_discrete_times(model, sde, x, generator=None):
    t = (torch.randint(1, 1001, (len(x),), generator=generator) / 1000).to(x)
    return _over_time(model, sde, x, generator, t=t)


@right("sde loss")
def stratified_times(model, sde, x, generator=None):
    n = len(x)
    strata = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    t = (1e-4 + (1 - 1e-4) * strata[torch.randperm(n, generator=generator)]).to(x)
    return _over_time(model, sde, x, generator, t=t)


@wrong("sde loss", "no_alpha")
def clean_point_not_shrunk(model, sde, x, *, generator):
    return _over_time(model, sde, x, generator, alpha=torch.ones_like)


@wrong("sde loss", "time|wrong_times")
def times_of_the_first_half(model, sde, x, *, generator):
    t = 1e-3 + 0.5 * torch.rand(len(x), generator=generator, dtype=x.dtype)
    return _over_time(model, sde, x, generator, t=t)


@wrong("sde loss", "wrong_time")
def model_told_the_time_left(model, sde, x, *, generator):
    return _over_time(model, sde, x, generator, told=lambda t: 1 - t)


@wrong("sde loss", "likelihood_weight")
def weight_of_the_likelihood(model, sde, x, *, generator):
    return _over_time(model, sde, x, generator, weight=lambda t: sde.diffusion(t) ** 2)


@wrong("sde loss", "variance_for_std")
def variance_times_noise(model, sde, x, *, generator):
    return _over_time(model, sde, x, generator, sigma=torch.square)


@wrong("sde loss", "noise_prediction")
def network_predicts_the_noise(model, sde, x, *, generator):
    return _over_time(model, sde, x, generator, residual=lambda s, z, c: s - z, weight=torch.ones_like)


@wrong("sde loss", "no_alpha", "unweighted")
def neither_alpha_nor_weight(model, sde, x, *, generator):
    return _over_time(model, sde, x, generator, alpha=torch.ones_like, weight=torch.ones_like)


# Samplers.


@right("langevin")
def states_in_a_list(score, x, step_size, n_steps, generator=None):
    states = [x.clone()]
    for _ in range(n_steps):
        x = states[-1]
        mean = x + step_size * score(x)
        states.append(Normal(mean, math.sqrt(2 * step_size)).sample())
    return states[-1]


@right("langevin")
def all_noise_drawn_beforehand(score, x, *, step_size, n_steps, generator):
    z = torch.randn((n_steps, *x.shape), generator=generator, dtype=x.dtype) * (2 * step_size) ** 0.5
    for k in range(n_steps):
        x = x + step_size * score(x) + z[k]
    return x


@right("langevin")
def in_place_on_a_copy(score, x, *, step_size, n_steps, generator):
    y = x.clone()
    with torch.no_grad():
        for _ in range(n_steps):
            y.add_(score(y), alpha=step_size)
            y.add_(normal(y, generator), alpha=math.sqrt(2 * step_size))
    return y


def _langevin(score, x, step_size, n_steps, generator, *, drift=None, noise=None, z=None, steps=None):
    for k in range(n_steps if steps is None else steps(n_steps)):
        draw = normal(x, generator) if z is None else z(x, k)
        kick = math.sqrt(2 * step_size) if noise is None else noise(step_size)
        s = score(x)
        x = x + (step_size * s if drift is None else drift(step_size, s)) + kick * draw
    return x


@wrong("langevin", "no_root")
def noise_of_variance_squared(score, x, *, step_size, n_steps, generator):
    return _langevin(score, x, step_size, n_steps, generator, noise=lambda e: 2 * e)


@wrong("langevin", "fixed_seed|same_noise")
def seed_set_before_the_loop(score, x, *, step_size, n_steps):
    torch.manual_seed(0)
    return _langevin(score, x, step_size, n_steps, None)


@wrong("langevin", "same_noise|fixed_seed")
def seed_set_in_the_loop(score, x, *, step_size, n_steps):
    def z(x, k):
        torch.manual_seed(7)
        return torch.randn_like(x)

    return _langevin(score, x, step_size, n_steps, None, z=z)


@wrong("langevin", "normalised_score")
def unit_steps(score, x, *, step_size, n_steps, generator):
    return _langevin(score, x, step_size, n_steps, generator, drift=lambda e, s: e * s / s.norm(dim=1, keepdim=True))


@wrong("langevin", "root_half|noise_scale")
def root_of_half_the_step(score, x, *, step_size, n_steps, generator):
    return _langevin(score, x, step_size, n_steps, generator, noise=lambda e: math.sqrt(e / 2))


@wrong("langevin", "extra_step")
def counted_from_zero_to_n(score, x, *, step_size, n_steps, generator):
    return _langevin(score, x, step_size, n_steps, generator, steps=lambda n: n + 1)


@wrong("langevin", "shared_noise")
def same_kick_for_each_chain(score, x, *, step_size, n_steps, generator):
    z = [torch.randn(x.shape[1], generator=generator, dtype=x.dtype) for _ in range(n_steps)]
    return _langevin(score, x, step_size, n_steps, generator, z=lambda x, k: z[k].expand_as(x))


@wrong("langevin", "shape")
def whole_trajectory(score, x, *, step_size, n_steps, generator):
    return torch.stack([_langevin(score, x, step_size, k, generator) for k in range(n_steps + 1)])


@wrong("langevin", "coupled")
def mean_taken_out(score, x, *, step_size, n_steps, generator):
    return _langevin(score, x, step_size, n_steps, generator, drift=lambda e, s: e * (s - s.mean(0)))


@wrong("langevin", "epsilon_for_two_epsilon", "double_drift")
def two_on_the_wrong_side(score, x, *, step_size, n_steps, generator):
    return _langevin(score, x, step_size, n_steps, generator, drift=lambda e, s: 2 * e * s, noise=math.sqrt)


@wrong("langevin", "no_root", "extra_step")
def no_root_and_one_too_many(score, x, *, step_size, n_steps, generator):
    return _langevin(score, x, step_size, n_steps, generator, noise=lambda e: 2 * e, steps=lambda n: n + 1)


@right("annealed")
def step_as_a_tensor(score, x, sigmas, *, step_size, n_steps_each, generator):
    for sigma in sigmas:
        a = step_size * (sigma / sigmas[-1]) ** 2
        for _ in range(n_steps_each):
            x = x + a * score(x, sigma.expand(len(x))) + torch.sqrt(2 * a) * normal(x, generator)
    return x + sigmas[-1] ** 2 * score(x, sigmas[-1])


@right("annealed")
def loop_over_numbers(score, x, sigmas, step_size, n_steps_each):
    for i in range(len(sigmas)):
        a = step_size * float(sigmas[i]) ** 2 / float(sigmas[-1]) ** 2
        for _ in range(n_steps_each):
            x = x + a * score(x, float(sigmas[i])) + (2 * a) ** 0.5 * torch.randn_like(x)
    return x + float(sigma := sigmas[-1]) ** 2 * score(x, float(sigma))


def _annealed(score, x, sigmas, step_size, n_steps_each, generator, *, step=None, kick=None, order=None, end=None):
    last = sigmas[-1]
    for s in sigmas if order is None else order(sigmas):
        a = float(step_size * (s / last) ** 2 if step is None else step(step_size, s, sigmas))
        for _ in range(n_steps_each):
            x = x + a * score(x, s) + (math.sqrt(2 * a) if kick is None else kick(a, s)) * normal(x, generator)
    return x + last**2 * score(x, last) if end is None else end(x, last)


@wrong("annealed", "constant_step")
def one_step_size_for_all(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, step=lambda e, s, all_: e)


@wrong("annealed", "ascending")
def smallest_scale_first(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, order=lambda s: s.flip(0))


@wrong("annealed", "no_denoising")
def last_step_forgotten(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, end=lambda x, s: x)


@wrong("annealed", "noise_sigma|no_scale")
def noise_of_the_size_of_the_scale(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(score, x, sigmas, step_size, n_steps_each, generator, kick=lambda a, s: math.sqrt(2 * a) * s)


@wrong("annealed", "denoising_half|denoising_variance")
def half_of_the_last_step(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(
        score, x, sigmas, step_size, n_steps_each, generator, end=lambda x, s: x + 0.5 * s**2 * score(x, s)
    )


@wrong("annealed", "epsilon_for_two_epsilon", "no_denoising")
def root_and_end(score, x, sigmas, *, step_size, n_steps_each, generator):
    return _annealed(
        score, x, sigmas, step_size, n_steps_each, generator, kick=lambda a, s: math.sqrt(a), end=lambda x, s: x
    )


# SDEs.


class VP:
    """A student's variance-preserving SDE, right in every part."""

    low, high = 0.1, 20.0

    def beta(self, t):
        return self.low + (self.high - self.low) * t

    def integral(self, t):
        return self.low * t + 0.5 * (self.high - self.low) * t**2

    def alpha(self, t):
        return torch.exp(-0.5 * self.integral(t))

    def sigma(self, t):
        return torch.sqrt(1.0 - self.alpha(t) ** 2)

    def drift(self, x, t):
        return -0.5 * self.beta(t).view(-1, 1) * x

    def diffusion(self, t):
        return self.beta(t) ** 0.5


@right("sde")
class SigmaByExpm1(VP):
    def sigma(self, t):
        return torch.sqrt(-torch.expm1(-self.integral(t)))


@right("sde")
class IntegralByNumbers(VP):
    def integral(self, t):
        grid = torch.linspace(0, 1, 201, dtype=t.dtype)[:, None] * t
        return torch.trapezoid(self.beta(grid), grid, dim=0)


@wrong("sde", "integral")
class IntegralWithoutHalf(VP):
    def integral(self, t):
        return self.low * t + (self.high - self.low) * t**2


@wrong("sde", "squared_diffusion")
class DiffusionIsBeta(VP):
    def diffusion(self, t):
        return self.beta(t)


@wrong("sde", "half")
class DriftWithoutHalf(VP):
    def drift(self, x, t):
        return -self.beta(t)[:, None] * x


@wrong("sde", "alpha_squared")
class AlphaOfTheVariance(VP):
    def alpha(self, t):
        return torch.exp(-self.integral(t))

    def sigma(self, t):
        return torch.sqrt(1.0 - torch.exp(-self.integral(t)))


@wrong("sde", "shape|exception")
class TimesInARow(VP):
    def drift(self, x, t):
        return -0.5 * self.beta(t) * x


@wrong("sde", "beta_max")
class BetaToTwentyOnTop(VP):
    def beta(self, t):
        return self.low + self.high * t

    def integral(self, t):
        return self.low * t + 0.5 * self.high * t**2


@wrong("sde", "drift_sign", "squared_diffusion")
class OutwardsAndSquared(VP):
    def drift(self, x, t):
        return 0.5 * self.beta(t)[:, None] * x

    def diffusion(self, t):
        return self.beta(t)


@right("sde alone")
class Exploding:
    def alpha(self, t):
        return 1.0

    def sigma(self, t):
        return 0.02 * 1000**t

    def drift(self, x, t):
        return torch.zeros_like(x)

    def diffusion(self, t):
        return self.sigma(t) * (2 * math.log(1000)) ** 0.5


@right("sde alone")
class Cosine(VP):
    def alpha(self, t):
        return torch.cos(0.5 * math.pi * t)

    def beta(self, t):
        return math.pi * torch.tan(0.5 * math.pi * t)


@wrong("sde alone", "root_two")
class TwoLostUnderTheRoot(Exploding):
    def diffusion(self, t):
        return self.sigma(t) * math.log(1000) ** 0.5


@wrong("sde alone", "variance_for_std")
class SigmaIsTheVariance(VP):
    def sigma(self, t):
        return 1 - self.alpha(t) ** 2


# Steps back.


@right("reverse step")
def with_positive_steps(sde, score, x, t, dt, *, generator=None):
    h = -dt
    g = sde.diffusion(t)
    mean = x - (sde.drift(x, t) - g**2 * score(x, t)) * h
    return mean + g * torch.sqrt(h) * normal(x, generator)


@right("reverse step")
def one_time_for_each_point(sde, score, x, t, dt, generator=None):
    times = t.expand(len(x))
    g = sde.diffusion(times)[:, None]
    drift = sde.drift(x, times) - g**2 * score(x, times)
    return x + drift * dt + g * torch.sqrt(torch.abs(dt)) * normal(x, generator)


@right("reverse step")
def by_the_packages_drift(sde, score, x, t, dt):
    return torch.normal(
        x + continuous.reverse_drift(sde, score, x, t) * dt, (sde.diffusion(t) * (-dt).sqrt()).expand_as(x)
    )


def _step(sde, score, x, t, dt, generator, *, f=None, s=None, size=None, kick=None, z=None):
    g = sde.diffusion(t)
    f = sde.drift(x, t) if f is None else f(x, g)
    s = score(x, t) if s is None else s(score, x)
    z = normal(x, generator) if z is None else z(x)
    kick = g * dt.abs().sqrt() if kick is None else kick(g, dt)
    return x + (f - g**2 * s) * (dt if size is None else size(dt)) + kick * z


@wrong("reverse step", "wrong_time|time_reached")
def score_at_the_time_reached(sde, score, x, t, dt, *, generator=None):
    return _step(sde, score, x, t, dt, generator, s=lambda score, x: score(x, t + dt))


@wrong("reverse step", "time_reached|noise_time")
def noise_of_the_time_reached(sde, score, x, t, dt, *, generator=None):
    return _step(sde, score, x, t, dt, generator, kick=lambda g, dt: sde.diffusion(t + dt) * dt.abs().sqrt())


@wrong("reverse step", "dt_for_root")
def dt_outside_its_root(sde, score, x, t, dt, *, generator=None):
    return _step(sde, score, x, t, dt, generator, kick=lambda g, dt: g * dt.abs())


@wrong("reverse step", "not_finite")
def root_of_a_negative(sde, score, x, t, dt, *, generator=None):
    return _step(sde, score, x, t, dt, generator, kick=lambda g, dt: g * dt.sqrt())


@wrong("reverse step", "shared_noise")
def one_number_of_noise(sde, score, x, t, dt, *, generator=None):
    return _step(sde, score, x, t, dt, generator, z=lambda x: torch.randn(1, generator=generator, dtype=x.dtype))


@wrong("reverse step", "shared_noise|antithetic")
def second_half_mirrored(sde, score, x, t, dt, *, generator=None):
    def z(x):
        half = normal(x[: (len(x) + 1) // 2], generator)
        return torch.cat([half, -half])[: len(x)]

    return _step(sde, score, x, t, dt, generator, z=z)


@wrong("reverse step", "fixed_seed|same_noise")
def reproducible_at_any_price(sde, score, x, t, dt, *, generator=None):
    torch.manual_seed(0)
    return _step(sde, score, x, t, dt, None)


@wrong("reverse step", "own_drift")
def g_for_its_square_in_the_drift(sde, score, x, t, dt, *, generator=None):
    return _step(sde, score, x, t, dt, generator, f=lambda x, g: -0.5 * g * x)


@wrong("reverse step", "time_direction")
def steps_forward_in_time(sde, score, x, t, dt, *, generator=None):
    return _step(sde, score, x, t, dt, generator, size=torch.abs)


@wrong("reverse step", "no_diffusion", "drift_sign")
def no_g_and_drift_reversed(sde, score, x, t, dt, *, generator=None):
    return _step(sde, score, x, t, dt, generator, f=lambda x, g: -sde.drift(x, t), kick=lambda g, dt: dt.abs().sqrt())


@wrong("reverse step", "half_score", "dt_for_root")
def half_score_and_dt(sde, score, x, t, dt, *, generator=None):
    return _step(sde, score, x, t, dt, generator, s=lambda score, x: 0.5 * score(x, t), kick=lambda g, dt: g * dt.abs())


# The flow.


@right("flow")
def times_for_each_point(sde, score):
    def field(t, x):
        times = torch.as_tensor(t, dtype=x.dtype).repeat(len(x))
        return sde.drift(x, times) - 0.5 * sde.diffusion(times).reshape(-1, 1) ** 2 * score(x, times)

    return field


@right("flow")
def half_of_the_reverse_drift(sde, score):
    return lambda t, x: 0.5 * (sde.drift(x, t) + continuous.reverse_drift(sde, score, x, t))


@wrong("flow", "half")
def drift_of_the_reverse_sde(sde, score):
    return lambda t, x: sde.drift(x, t) - sde.diffusion(t) ** 2 * score(x, t)


@wrong("flow", "own_drift")
def drift_without_its_half(sde, score):
    return lambda t, x: -(sde.diffusion(t) ** 2) * (x + 0.5 * score(x, t))


@wrong("flow", "wrong_time")
def score_at_the_middle(sde, score):
    return lambda t, x: sde.drift(x, t) - 0.5 * sde.diffusion(t) ** 2 * score(x, t / 2)


@wrong("flow", "diffusion_time|wrong_time")
def diffusion_at_the_start(sde, score):
    return lambda t, x: sde.drift(x, t) - 0.5 * sde.diffusion(torch.zeros_like(t)) ** 2 * score(x, t)


@wrong("flow", "half", "drift_sign")
def no_half_and_drift_reversed(sde, score):
    return lambda t, x: -sde.drift(x, t) - sde.diffusion(t) ** 2 * score(x, t)


def _exact(field, x):
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        out = field(x)
        trace = sum(torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1]))
    return out.detach(), trace.detach()


def _solved(sde, score, x, *, t0=1e-3, sign=1.0, traced=_exact, prior=None, **solver):
    field = probability_flow.velocity(sde, score)

    def joint(t, state):
        return traced(lambda x: field(t, x), state[0])

    times = torch.tensor([t0, 1.0], dtype=x.dtype)
    solver = solver or {"method": "dopri5", "rtol": 1e-5, "atol": 1e-5}
    y, total = odeint(joint, (x, torch.zeros(len(x), dtype=x.dtype)), times, **solver)
    return (sde.prior_log_prob(y[-1]) if prior is None else prior(y[-1])) + sign * total[-1]


@right("log prob")
def runge_and_kutta_by_torchdiffeq(sde, score, x):
    return _solved(sde, score, x, method="rk4", options={"step_size": 0.01})


@right("log prob")
def adaptive_solver(sde, score, x):
    return _solved(sde, score, x)


@right("log prob")
def heun_with_many_steps(sde, score, x):
    field = probability_flow.velocity(sde, score)
    times = torch.linspace(1e-3**0.5, 1, 101, dtype=x.dtype) ** 2
    total = torch.zeros(len(x), dtype=x.dtype)
    for t, t_next in itertools.pairwise(times):
        h = t_next - t
        v, trace = _exact(lambda x, t=t: field(t, x), x)
        w, trace_next = _exact(lambda x, t=t_next: field(t, x), x + h * v)
        x, total = x + 0.5 * h * (v + w), total + 0.5 * h * (trace + trace_next)
    return sde.prior_log_prob(x) + total


@right("log prob")
def probe_kept_for_the_path(sde, score, x, generator=None):
    v = torch.randint(2, x.shape, generator=generator).to(x) * 2 - 1

    def traced(field, x):
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            out = field(x)
            return out.detach(), (torch.autograd.grad((out * v).sum(), x)[0] * v).sum(1)

    return _solved(sde, score, x, traced=traced)


@right("log prob")
def standard_normal_prior(sde, score, x):
    return _solved(sde, score, x, prior=lambda z: Normal(0.0, 1.0).log_prob(z).sum(1))


@wrong("log prob", "divergence_sign")
def change_of_variables_backwards(sde, score, x):
    return _solved(sde, score, x, sign=-1.0)


@wrong("log prob", "no_prior")
def prior_forgotten(sde, score, x):
    return _solved(sde, score, x, prior=lambda z: 0.0)


@wrong("log prob", "shape")
def one_prior_for_each_coordinate(sde, score, x):
    return _solved(sde, score, x, prior=lambda z: Normal(0.0, 1.0).log_prob(z).sum())[:1]


@wrong("log prob", "time_range|late_start")
def half_of_the_path(sde, score, x):
    return _solved(sde, score, x, t0=0.3)


@wrong("log prob", "half")
def flow_of_the_reverse_drift(sde, score, x):
    return _solved(sde, lambda x, t: 2 * score(x, t), x)


@wrong("log prob", "no_prior", "divergence_sign")
def divergence_alone_and_reversed(sde, score, x):
    return _solved(sde, score, x, sign=-1.0, prior=lambda z: 0.0)


@right("bits")
def nats_to_bits(sde, score, x, bin_width):
    nats = -(_solved(sde, score, x) + x.shape[1] * math.log(bin_width))
    return nats / math.log(2) / x.shape[1]


@wrong("bits", "nats")
def left_in_nats(sde, score, x, bin_width):
    return -(_solved(sde, score, x) / x.shape[1] + math.log(bin_width))


@wrong("bits", "bin_width")
def bins_forgotten(sde, score, x, bin_width):
    return -_solved(sde, score, x) / (math.log(2) * x.shape[1])


# Guidance.


def _variance(alpha, sigma, s):
    return sigma**2 * s**2 / (sigma**2 + alpha**2 * s**2)


def _guided(score, sde, observation, data_std, *, variance=None, clean=None, combine=None):
    def guided(x, t):
        a, c = sde.alpha(t), sde.sigma(t)
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            prior = score(x, t)
            x0 = (x + c**2 * prior) / a if clean is None else clean(x, prior, a, c)
            v = _variance(a, c, data_std) if variance is None else variance(a, c)
            w = observation.solve(observation.residual(x0), v).detach()
            (guidance,) = torch.autograd.grad((observation.predict(x0) * w).sum(), x)
        return prior.detach() + guidance if combine is None else combine(prior.detach(), guidance)

    return guided


@right("guidance")
def the_formula(score, sde, observation, *, data_std=1.0):
    return _guided(score, sde, observation, data_std)


@right("guidance")
def by_vjp(score, sde, observation, *, data_std=1.0):
    def guided(x, t):
        a, c = sde.alpha(t), sde.sigma(t)

        def clean(x):
            return (x + c**2 * score(x, t)) / a

        seen, back = torch.func.vjp(lambda x: observation.predict(clean(x)), x)
        w = observation.solve(observation.y - seen, _variance(a, c, data_std))
        return score(x, t) + back(w)[0]

    return guided


@wrong("guidance", "guidance_sign")
def away_from_the_observation(score, sde, observation, *, data_std=1.0):
    return _guided(score, sde, observation, data_std, combine=lambda s, g: s - g)


@wrong("guidance", "no_alpha")
def denoised_without_its_alpha(score, sde, observation, *, data_std=1.0):
    return _guided(score, sde, observation, data_std, clean=lambda x, s, a, c: x + c**2 * s)


@wrong("guidance", "clean_likelihood")
def noisy_point_for_the_clean(score, sde, observation, *, data_std=1.0):
    return _guided(score, sde, observation, data_std, clean=lambda x, s, a, c: x, variance=lambda a, c: 0 * a)


@wrong("guidance", "sigma_for_variance|std_for_variance")
def denoised_by_sigma(score, sde, observation, *, data_std=1.0):
    return _guided(score, sde, observation, data_std, clean=lambda x, s, a, c: (x + c * s) / a)


@wrong("guidance", "no_prior")
def guidance_alone(score, sde, observation, *, data_std=1.0):
    return _guided(score, sde, observation, data_std, combine=lambda s, g: g)


@wrong("guidance", "double_guidance", "neglected_spread")
def twice_and_without_spread(score, sde, observation, *, data_std=1.0):
    return _guided(score, sde, observation, data_std, variance=lambda a, c: 0 * a, combine=lambda s, g: s + 2 * g)


# What the cells of the assignments judge by themselves.


def _corrected(sde, score, x, n_steps, n_corrector_steps, snr, t_min, generator, **wrong):
    times = torch.linspace(1, t_min, n_steps + 1, dtype=x.dtype)
    for t, t_next in itertools.pairwise(times):
        dt, g = t_next - t, sde.diffusion(t)
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * dt.abs().sqrt() * normal(x, generator)
        at = wrong.get("at", lambda t, t_next: t_next)(t, t_next)
        e = wrong.get("size", lambda s: 2 * (snr * s) ** 2)(sde.sigma(at))
        for _ in range(wrong.get("times", n_corrector_steps)):
            x = x + e * score(x, at) + (2 * e).sqrt() * normal(x, generator)
    t = times[-1]
    return wrong.get("end", lambda x: (x + sde.sigma(t) ** 2 * score(x, t)) / sde.alpha(t))(x)


@right("predictor-corrector cells")
def predictor_then_corrector(sde, score, x, *, n_steps, n_corrector_steps=1, snr=0.16, t_min=1e-3, generator=None):
    return _corrected(sde, score, x, n_steps, n_corrector_steps, snr, t_min, generator)


@wrong("predictor-corrector cells", "corrector_time")
def corrector_at_the_old_time(sde, score, x, *, n_steps, n_corrector_steps=1, snr=0.16, t_min=1e-3, generator=None):
    return _corrected(sde, score, x, n_steps, n_corrector_steps, snr, t_min, generator, at=lambda t, t_next: t)


@wrong("predictor-corrector cells", "step_size")
def corrector_of_four_times_the_step(
    sde, score, x, *, n_steps, n_corrector_steps=1, snr=0.16, t_min=1e-3, generator=None
):
    return _corrected(
        sde, score, x, n_steps, n_corrector_steps, snr, t_min, generator, size=lambda s: 2 * (2 * snr * s) ** 2
    )


@wrong("predictor-corrector cells", "one_step")
def one_corrector_step_always(sde, score, x, *, n_steps, n_corrector_steps=1, snr=0.16, t_min=1e-3, generator=None):
    return _corrected(sde, score, x, n_steps, n_corrector_steps, snr, t_min, generator, times=1)


@wrong("predictor-corrector cells", "no_denoising")
def denoising_left_out(sde, score, x, *, n_steps, n_corrector_steps=1, snr=0.16, t_min=1e-3, generator=None):
    return _corrected(sde, score, x, n_steps, n_corrector_steps, snr, t_min, generator, end=lambda x: x)


@right("posterior cells")
def by_euler_and_maruyama(sde, score, observation, shape, *, n_steps=200, data_std=1.0, generator=None):
    start = sde.sample_prior(shape, generator=generator, dtype=observation.y.dtype)
    posterior = controllable_generation.pseudoinverse_guidance(score, sde, observation, data_std=data_std)
    return continuous.euler_maruyama(sde, posterior, start, n_steps=n_steps, generator=generator)


@wrong("posterior cells", "no_guidance")
def the_prior_itself(sde, score, observation, shape, *, n_steps=200, data_std=1.0, generator=None):
    start = sde.sample_prior(shape, generator=generator, dtype=observation.y.dtype)
    return continuous.euler_maruyama(sde, score, start, n_steps=n_steps, generator=generator)


@wrong("posterior cells", "prior")
def starts_of_unit_size(sde, score, observation, shape, *, n_steps=200, data_std=1.0, generator=None):
    start = torch.randn(shape, generator=generator, dtype=observation.y.dtype)
    posterior = controllable_generation.pseudoinverse_guidance(score, sde, observation, data_std=data_std)
    return continuous.euler_maruyama(sde, posterior, start, n_steps=n_steps, generator=generator)


@right("coverage cells")
def by_sorting(samples, truth, level=0.9):
    ordered = samples.sort(0).values
    n = len(ordered)
    low, high = ordered[int((1 - level) / 2 * (n - 1))], ordered[math.ceil((1 + level) / 2 * (n - 1))]
    return ((truth > low) & (truth < high)).float().mean().item()


@wrong("coverage cells", "axis")
def quantile_over_the_problems(samples, truth, level=0.9):
    low = samples.quantile((1 - level) / 2, dim=1)
    high = samples.quantile((1 + level) / 2, dim=1)
    return ((low[:, None] <= truth) & (truth <= high[:, None])).double().mean().item()


@wrong("coverage cells", "one_sided")
def one_sided_interval(samples, truth, level=0.9):
    return (truth <= samples.quantile(level, dim=0)).double().mean().item()


@right("divergence")
def the_packages_own(field, x):
    return score_matching.divergence(field, x)


@right("reverse step")
def computed_in_numpy(sde, score, x, t, dt):
    g, h = float(sde.diffusion(t)), float(-dt)
    z = NUMPY.normal(size=tuple(x.shape))
    mean = x.numpy() - (sde.drift(x, t) - g**2 * score(x, t)).detach().numpy() * h
    return torch.from_numpy(mean + g * math.sqrt(h) * z)


@right("flow")
def without_gradients(sde, score):
    def field(t, x):
        with torch.no_grad():
            return sde.drift(x, t) - sde.diffusion(t).square() / 2 * score(x, t)

    return field


@wrong("langevin", "type")
def only_the_mean_comes_back(score, x, *, step_size, n_steps, generator):
    return _langevin(score, x, step_size, n_steps, generator).mean().item()
