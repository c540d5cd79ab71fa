"""A third pile of homework: scores, divergences, losses, estimates and Langevin samplers, written blind.

At its one reading five answers, of both files, were found to be filed wrongly: what was said of them is true, and leads
to the mistake. They were set right, and those that had no name have since got one.
"""

import math
from collections import deque
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import distributions
from torch.autograd import grad
from torch.func import jacfwd, jacrev, jvp, vmap

from catalogue import Catalogue, third_reading_samplers

catalogue = Catalogue()
catalogue.include(third_reading_samplers.catalogue)
right, wrong = catalogue.right, catalogue.wrong


# Gaussian score


@right("gaussian score")
def whitened_by_cholesky(x, mean, covariance):
    L = torch.linalg.cholesky(covariance)
    centred = (x - mean).unsqueeze(-1)
    u = torch.linalg.solve_triangular(L, centred, upper=False)
    return -torch.linalg.solve_triangular(L.T, u, upper=True).squeeze(-1)


@right("gaussian score")
def in_the_eigenbasis(x, mean, covariance):
    lam, U = np.linalg.eigh(covariance.numpy())
    out = np.empty(tuple(x.shape))
    for b, row in enumerate(x.numpy()):
        coords = U.T @ (row - mean.numpy())
        out[b] = -(U * (1 / lam)) @ coords
    return torch.from_numpy(out)


@right("gaussian score")
def the_distribution_differentiated(x, mean, covariance):
    mvn = distributions.MultivariateNormal(
        mean, covariance_matrix=covariance, validate_args=False
    )  # torch 2.6: under vmap
    return vmap(torch.func.grad(lambda point: mvn.log_prob(point)))(x)


@wrong("gaussian score", "covariance")
def precision_for_covariance(x, mean, covariance):
    mvn = distributions.MultivariateNormal(mean, precision_matrix=covariance)
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(mvn.log_prob(x).sum(), x)[0]


@wrong("gaussian score", "std_for_variance")
def half_way_through_cholesky(x, mean, covariance):
    L = torch.linalg.cholesky(covariance)
    return -torch.linalg.solve_triangular(L, (x - mean).T, upper=False).T


@wrong("gaussian score", "diagonal")
def coordinate_by_coordinate(x, mean, covariance):
    var = covariance.diagonal()
    return torch.stack([(mean[i] - x[:, i]) / var[i] for i in range(x.shape[1])], dim=1)


@wrong("gaussian score", "sign", "no_mean")
def energy_of_a_centred_law(x, mean, covariance):
    prec = torch.inverse(covariance)
    return torch.einsum("ij,bj->bi", prec, x)


# Mixture score


@right("mixture score")
def family_of_independents(x, weights, means, variances):
    d = means.shape[1]
    std = variances.sqrt().unsqueeze(1).expand(-1, d)
    components = distributions.Independent(distributions.Normal(means, std), 1)
    law = distributions.MixtureSameFamily(distributions.Categorical(probs=weights), components)
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        law.log_prob(leaf).sum().backward()
    return leaf.grad


@right("mixture score")
def numpy_with_a_shift(x, weights, means, variances):
    x, weights, means, variances = (a.detach().cpu().numpy() for a in (x, weights, means, variances))
    n, d = x.shape
    logs = np.stack(
        [
            np.log(w) - ((x - m) ** 2).sum(-1) / (2 * v) - d / 2 * np.log(2 * np.pi * v)
            for w, m, v in zip(weights, means, variances, strict=True)
        ],
        axis=-1,
    )
    logs -= logs.max(axis=-1, keepdims=True)
    r = np.exp(logs)
    r /= r.sum(axis=-1, keepdims=True)
    s = np.zeros((n, d))
    for k in range(len(weights)):
        s += r[:, [k]] * (means[k] - x) / variances[k]
    return torch.as_tensor(s)


@wrong("mixture score", "variance_for_std")
def variances_into_normal(x, weights, means, variances):
    log_n = distributions.Normal(means, variances[:, None]).log_prob(x[:, None]).sum(-1)
    r = torch.softmax(log_n + weights.log(), dim=-1)
    return torch.einsum("bk,bkd->bd", r, (means - x[:, None]) / variances[:, None].square())


@wrong("mixture score", "hard")
def hard_assignment(x, weights, means, variances):
    d2 = torch.cdist(x, means).pow(2)
    logits = torch.log(weights) - d2 / (2 * variances) - x.size(1) / 2 * torch.log(variances)
    k = logits.argmax(dim=1)
    return (means[k] - x) / variances[k].unsqueeze(1)


@wrong("mixture score", "coupled")
def softmax_over_the_batch(x, weights, means, variances):
    diff = means[:, None, :] - x[None, :, :]  # (K, B, d)
    log_joint = weights.log()[:, None] - 0.5 * diff.pow(2).sum(-1) / variances[:, None]
    log_joint = log_joint - 0.5 * x.shape[-1] * variances.log()[:, None]
    resp = F.softmax(log_joint, dim=1)
    return (resp[..., None] * diff / variances[:, None, None]).sum(0)


@wrong("mixture score", "weights", "sign")
def a_gradient_to_descend(x, weights, means, variances):
    parts = []
    for m, v in zip(means, variances, strict=True):
        parts.append(-((x - m) ** 2).sum(1) / (2 * v) - x.shape[1] * 0.5 * torch.log(v))
    r = torch.exp(torch.stack(parts) - torch.logsumexp(torch.stack(parts), 0))
    return sum(r[k].unsqueeze(1) * (x - means[k]) / variances[k] for k in range(len(means)))


# Score by autograd


@right("score by autograd")
def one_row_at_a_time(log_prob, x):
    rows = []
    for row in x.detach().split(1):
        leaf = row.clone()
        leaf.requires_grad = True
        log_prob(leaf).squeeze().backward()
        rows.append(leaf.grad)
    return torch.cat(rows, dim=0)


@right("score by autograd")
def five_point_stencil(log_prob, x, h=1e-3):
    gradient = torch.zeros_like(x)
    for i in range(x.shape[1]):
        e = torch.zeros(x.shape[1], dtype=x.dtype)
        e[i] = h
        gradient[:, i] = (8 * (log_prob(x + e) - log_prob(x - e)) - log_prob(x + 2 * e) + log_prob(x - 2 * e)) / (
            12 * h
        )
    return gradient


@wrong("score by autograd", "density")
def gradient_of_the_density(log_prob, x):
    inp = x.clone().detach().requires_grad_(True)
    p = torch.exp(log_prob(inp))
    return torch.autograd.grad(outputs=p, inputs=inp, grad_outputs=torch.ones_like(p))[0]


@wrong("score by autograd", "accumulated")
def never_zeroed(log_prob, x):
    shift = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True)
    scores = []
    for b in range(len(x)):
        log_prob(x[b : b + 1] + shift).sum().backward()
        scores.append(shift.grad.clone())
    return torch.stack(scores)


# Divergence


@right("divergence")
def whole_jacobian_of_the_batch(field, x):
    J = torch.autograd.functional.jacobian(field, x)  # (B, d, B, d)
    return torch.einsum("bibi->b", J)


@right("divergence")
def forward_mode_along_unit_vectors(field, x):
    total = 0
    for e in torch.eye(x.shape[-1], dtype=x.dtype, device=x.device):
        _, tangent = jvp(field, (x,), (e.expand_as(x).contiguous(),))
        total = total + tangent @ e
    return total


@right("divergence")
@torch.no_grad()
def central_differences(field, x):
    h = 1e-5
    out = np.zeros(len(x))
    for i in range(x.shape[1]):
        up, down = x.clone(), x.clone()
        up[:, i] += h
        down[:, i] -= h
        out += ((field(up) - field(down))[:, i] / (2 * h)).numpy()
    return torch.tensor(out)


@wrong("divergence", "all_entries")
def one_backward_is_enough(field, x):
    x = x.detach().requires_grad_()
    g = torch.autograd.grad(field(x).sum(), x)[0]
    return g.sum(dim=1)


@wrong("divergence", "exception")
def the_wrong_axis_of_values(field, x):
    x = x.detach().clone().requires_grad_()
    values = field(x)
    div = torch.zeros(len(x), dtype=x.dtype)
    for i in range(x.shape[1]):
        g = torch.autograd.grad(values[i].sum(), x, retain_graph=True)[0]
        div += g[:, i]
    return div


@wrong("divergence", "determinant")
def as_in_a_normalising_flow(field, x):
    J = vmap(jacrev(lambda z: field(z[None])[0]))(x)
    return torch.linalg.slogdet(J).logabsdet


@wrong("divergence", "unforeseen")
def differences_in_float32(field, x, eps=1e-6):
    with torch.no_grad():
        base = field(x).float()
        div = x.new_zeros(len(x))
        for i in range(x.shape[1]):
            bumped = x.clone()
            bumped[:, i] += eps
            div += (field(bumped).float() - base)[:, i] / eps
    return div


# Differentiable divergence


@right("differentiable divergence")
def traced_under_vmap(field, x):
    def single(z):
        return field(z.unsqueeze(0)).squeeze(0)

    return vmap(lambda z: jacfwd(single)(z).trace())(x)


@right("differentiable divergence")
def jacobian_of_the_summed_field(field, x):
    jac = torch.autograd.functional.jacobian(lambda z: field(z).sum(0), x, create_graph=True)  # (d, B, d)
    return jac.diagonal(dim1=0, dim2=2).sum(-1)


@wrong("differentiable divergence", "detached")
def retained_but_not_created(field, x):
    x = x.clone().requires_grad_(True)
    s = field(x)
    return sum(torch.autograd.grad(s[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.size(1)))


@wrong("differentiable divergence", "detached")
def summed_in_numpy(field, x):
    J = vmap(jacrev(lambda z: field(z[None])[0]))(x)
    traces = np.trace(J.detach().numpy(), axis1=1, axis2=2)
    return torch.tensor(traces, requires_grad=True)


@wrong("differentiable divergence", "all_entries", "detached")
def all_entries_and_detached(field, x):
    x = x.detach().requires_grad_()
    values, total = field(x), 0
    for i in range(values.shape[1]):
        total = total + torch.autograd.grad(values[:, i].sum(), x, create_graph=True)[0].sum(1).detach()
    return total


# Estimate of a divergence


@right("estimate")
def two_orthogonal_probes(field, x, *, generator):
    b, d = x.shape
    q, _ = torch.linalg.qr(torch.randn(b, d, 2, generator=generator, dtype=x.dtype))
    x = x.detach().requires_grad_()
    s = field(x)
    total = 0.0
    for k in range(2):
        v = q[..., k]
        total = total + torch.einsum("bd,bd->b", torch.autograd.grad(s, x, v, retain_graph=True)[0], v)
    return total * d / 2


@right("estimate")
def signs_by_forward_mode(field, x, *, generator):
    eps = torch.empty_like(x).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
    return (jvp(field, (x,), (eps,))[1] * eps).sum(-1)


@right("estimate")
def a_difference_along_v(field, x, *, generator):
    rng = np.random.default_rng(int(torch.randint(2**31 - 1, (1,), generator=generator)))
    acc = torch.zeros(len(x), dtype=x.dtype)
    for _ in range(3):
        v = torch.as_tensor(rng.standard_normal(tuple(x.shape)))
        acc += (v * (field(x + 1e-4 * v) - field(x - 1e-4 * v))).sum(1) / 2e-4
    return acc / 3


@wrong("estimate", "all_entries")
def signs_of_positive_numbers(field, x, *, generator):
    v = torch.sign(torch.rand(x.shape, generator=generator, dtype=x.dtype))
    x = x.detach().requires_grad_(True)
    vJ = torch.autograd.grad(field(x), x, v)[0]
    return (vJ * v).flatten(1).sum(1)


@wrong("estimate", "two_probes")
def a_fresh_draw_on_each_side(field, x, *, generator):
    def noise():
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    x = x.detach().requires_grad_()
    (pulled,) = torch.autograd.grad((field(x) * noise()).sum(), x)
    return (pulled * noise()).sum(1)


@wrong("estimate", "fixed_seed|same_probe")
def reproducible_at_last(field, x, *, generator):
    generator = torch.Generator().manual_seed(42)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    x = x.detach().requires_grad_()
    s = field(x)
    return (torch.autograd.grad(s, x, grad_outputs=v)[0] * v).sum(dim=1)


@wrong("estimate", "unit_projections", "mean_dims|unit_projections")
def unit_directions_averaged(field, x, *, generator):
    v = F.normalize(torch.randn(x.shape, generator=generator, dtype=x.dtype), dim=1)
    x = x.detach().requires_grad_()
    return (torch.autograd.grad((field(x) * v).sum(), x)[0] * v).mean(1)


# Estimate in three dimensions


@right("estimate in 3 dimensions")
def angles_on_the_sphere(field, x, *, generator):
    u = torch.rand(2, len(x), generator=generator, dtype=x.dtype)
    height, phi = 2 * u[0] - 1, 2 * math.pi * u[1]
    radius = (1 - height**2).sqrt()
    v = 3**0.5 * torch.stack([radius * phi.cos(), radius * phi.sin(), height], dim=1)
    x = x.detach().requires_grad_()
    return (v * torch.autograd.grad(field(x), x, v)[0]).sum(1)


@right("estimate in 3 dimensions")
def one_corner_of_the_cube(field, x, *, generator):
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=x.shape[1])), dtype=x.dtype)
    v = corners[torch.randint(len(corners), (len(x),), generator=generator)]
    J = vmap(jacrev(lambda z: field(z[None])[0]))(x)
    return torch.einsum("bi,bij,bj->b", v, J, v)


@wrong("estimate in 3 dimensions", "unforeseen")
def crowded_at_the_poles(field, x, *, generator):
    theta = math.pi * torch.rand(len(x), generator=generator, dtype=x.dtype)
    phi = 2 * math.pi * torch.rand(len(x), generator=generator, dtype=x.dtype)
    v = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos()], 1) * math.sqrt(3)
    x = x.detach().requires_grad_()
    return (v * torch.autograd.grad(field(x), x, v)[0]).sum(1)


@wrong("estimate in 3 dimensions", "sparse_signs")
def minus_one_nought_one(field, x, *, generator):
    v = torch.randint(-1, 2, x.shape, generator=generator).to(x)
    _, pushed = jvp(field, (x,), (v,))
    return torch.linalg.vecdot(v, pushed)


# Explicit loss


@right("explicit loss")
def sum_reduction_by_hand(model, x, score):
    criterion = torch.nn.MSELoss(reduction="sum")
    return criterion(model(x), score(x).detach()) / (2 * x.size(0))


@right("explicit loss")
def the_square_multiplied_out(model, x, score):
    s, t = model(x), score(x)
    cross = torch.einsum("bd,bd->b", s, t)
    return torch.mean(0.5 * torch.einsum("bd,bd->b", s, s) - cross + 0.5 * torch.einsum("bd,bd->b", t, t))


@wrong("explicit loss", "norm")
def distance_for_its_square(model, x, score):
    return 0.5 * torch.linalg.norm(model(x) - score(x), dim=-1).mean()


@wrong("explicit loss", "sum_batch")
def a_loss_per_batch(model, x, score):
    total = 0.0
    for row in x:
        gap = model(row[None]) - score(row[None])
        total = total + 0.5 * (gap @ gap.T).squeeze()
    return total


@wrong("explicit loss", "half|mse", "mean_dims|mse")
def plain_mse_loss(model, x, score):
    return F.mse_loss(model(x), score(x))


# Implicit loss


@right("implicit loss")
def hyvarinen_per_sample(model, x):
    def objective(z):
        def s(u):
            return model(u.unsqueeze(0)).squeeze(0)

        return jacrev(s)(z).diagonal().sum() + 0.5 * s(z) @ s(z)

    return vmap(objective)(x).mean()


@right("implicit loss")
def exact_score_matching_loop(model, samples):
    samples = samples.clone().requires_grad_(True)
    grad1 = model(samples)
    loss1 = torch.norm(grad1, dim=-1) ** 2 / 2.0
    loss2 = torch.zeros(samples.shape[0], device=samples.device, dtype=samples.dtype)
    for i in range(samples.shape[1]):
        grad2 = grad(grad1[:, i].sum(), samples, create_graph=True, retain_graph=True)[0][:, i]
        loss2 += grad2
    return (loss1 + loss2).mean()


@wrong("implicit loss", "detached")
def trace_without_graph(model, x):
    x = x.detach().requires_grad_()
    s = model(x)
    tr = torch.stack([grad(s[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]).sum(0)
    return tr.mean() + 0.5 * s.square().sum(1).mean()


@wrong("implicit loss", "squared_sum")
def square_of_the_sum(model, x):
    x = x.detach().requires_grad_()
    s = model(x)
    div = sum(grad(s[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1]))
    return (div + 0.5 * s.sum(dim=1) ** 2).mean()


@wrong("implicit loss", "all_entries", "half")
def gradient_penalty_style(model, x):
    x = x.clone().requires_grad_(True)
    s = model(x)
    g = grad(outputs=s, inputs=x, grad_outputs=torch.ones_like(s), create_graph=True)[0]
    return (g.sum(1) + s.pow(2).sum(1)).mean()


# Sliced loss


@right("sliced loss")
def particles_in_one_batch(model, samples, *, generator=None, n_particles=4):
    dup = samples.unsqueeze(0).expand(n_particles, *samples.shape).contiguous().view(-1, samples.shape[-1])
    dup = dup.detach().requires_grad_(True)
    vectors = torch.empty_like(dup).normal_(generator=generator)
    grad1 = model(dup)
    gradv = torch.sum(grad1 * vectors)
    loss1 = torch.sum(grad1 * vectors, dim=-1) ** 2 * 0.5
    grad2 = grad(gradv, dup, create_graph=True)[0]
    loss2 = torch.sum(vectors * grad2, dim=-1)
    return (loss1 + loss2).view(n_particles, -1).mean(dim=0).mean()


@right("sliced loss")
def slices_pushed_forward(model, x, *, generator=None):
    v = torch.randint(0, 2, tuple(x.shape), generator=generator).mul(2).sub(1).to(x.dtype)
    s, js = jvp(model, (x,), (v,))
    along = torch.linalg.vecdot(v, s)
    return torch.linalg.vecdot(v, js).mean() + along.square().mean().div(2)


@wrong("sliced loss", "unit_projections")
def unit_vectors_as_on_github(model, samples, *, generator=None):
    samples = samples.detach().clone().requires_grad_(True)
    vectors = torch.randn(samples.shape, generator=generator, dtype=samples.dtype)
    vectors = vectors / torch.norm(vectors, dim=-1, keepdim=True)
    grad1 = model(samples)
    loss1 = torch.sum(grad1 * vectors, dim=-1) ** 2 * 0.5
    grad2 = grad(torch.sum(grad1 * vectors), samples, create_graph=True)[0]
    return (loss1 + torch.sum(vectors * grad2, dim=-1)).mean()


@wrong("sliced loss", "no_square")
def second_term_not_squared(model, x, *, generator=None):
    x = x.detach().requires_grad_()
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    vs = (v * model(x)).sum(1)
    (vJ,) = grad(vs.sum(), x, create_graph=True)
    return ((vJ * v).sum(1) + 0.5 * vs).mean()


@wrong("sliced loss", "no_second_projection")
def v_only_once(model, x, *, generator=None):
    x = x.detach().requires_grad_()
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    proj = torch.einsum("bd,bd->b", v, model(x))
    hess = grad(proj.sum(), x, create_graph=True)[0]
    return (hess.sum(dim=-1) + 0.5 * proj**2).mean()


# Denoising loss


@right("denoising loss")
def anneal_dsm(scorenet, samples, sigmas, *, generator=None, anneal_power=2.0):
    used_sigmas = sigmas.view(samples.shape[0], *([1] * len(samples.shape[1:])))
    noise = torch.empty_like(samples).normal_(generator=generator) * used_sigmas
    perturbed_samples = samples + noise
    target = -1 / (used_sigmas**2) * noise
    scores = scorenet(perturbed_samples, sigmas)
    loss = 1 / 2.0 * ((scores - target) ** 2).sum(dim=-1) * used_sigmas.squeeze(-1) ** anneal_power
    return loss.mean(dim=0)


@right("denoising loss")
def as_a_denoiser(model, x, sigma, *, generator=None):
    s = sigma[:, None]
    noised = torch.addcmul(x, s, torch.randn(x.shape, generator=generator, dtype=x.dtype))
    denoised = noised + s**2 * model(noised, sigma)
    weight = sigma.reciprocal().square()
    return (weight * F.mse_loss(denoised, x, reduction="none").sum(-1)).mean() / 2


@wrong("denoising loss", "clean_input")
def the_clean_point_by_habit(model, x, sigma, *, generator=None):
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    sigma_ = sigma.view(-1, 1)
    x_noisy = x + sigma_ * noise
    residual = sigma_ * model(x, sigma) + (x_noisy - x) / sigma_
    return residual.pow(2).sum(1).mul(0.5).mean()


@wrong("denoising loss", "weight")
def annealed_by_one_power(model, x, sigma, *, generator=None):
    col = sigma.unsqueeze(-1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    score = model(x + col * z, sigma)
    return (0.5 * (score + z / col).square().sum(-1) * sigma).mean()


@wrong("denoising loss", "noise_scale")
def conditioned_on_the_logarithm(model, x, sigma, *, generator=None):
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    c_noise = sigma.log()
    out = model(x + sigma[:, None] * z, c_noise)
    return 0.5 * ((sigma[:, None] * out + z) ** 2).sum(1).mean()


@wrong("denoising loss", "mean_dims", "target_sign")
def noise_prediction_mse(model, x, sigma, *, generator=None):
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    pred = model(x + sigma[:, None] * noise, sigma) * sigma[:, None]
    return 0.5 * F.mse_loss(pred, noise)


# SDE loss


@right("sde loss")
def get_sde_loss_fn(model, sde, batch, *, generator=None):
    eps = 1e-5
    t = torch.rand(batch.shape[0], generator=generator, dtype=batch.dtype) * (1.0 - eps) + eps
    z = torch.randn(batch.shape, generator=generator, dtype=batch.dtype)
    mean, std = sde.alpha(t)[:, None] * batch, sde.sigma(t)
    perturbed_data = mean + std[:, None] * z
    score = model(perturbed_data, t)
    losses = torch.square(score * std[:, None] + z)
    losses = 0.5 * torch.sum(losses.reshape(losses.shape[0], -1), dim=-1)
    return torch.mean(losses)


@right("sde loss")
def squared_times_with_their_weight(model, sde, x, *, generator=None):
    low = 1e-3
    u = torch.rand(len(x), generator=generator, dtype=x.dtype)
    t = low + (1 - low) * u**1.5  # more of the early times, whose density is 1 / (1.5 √u (1 - low))
    weight = 1.5 * u.sqrt()
    a, s = sde.alpha(t).unsqueeze(1), sde.sigma(t).unsqueeze(1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    gap = s * model(a * x + s * z, t) + z
    return 0.5 * torch.einsum("b,bd,bd->", weight, gap, gap) / len(x)


@wrong("sde loss", "time")
def labels_of_a_ddpm(model, sde, x, *, generator=None):
    t = torch.rand(len(x), generator=generator, dtype=x.dtype).clamp(min=1e-4)
    labels = t * 999
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    std = sde.sigma(t)[:, None]
    return 0.5 * (std * model(sde.alpha(t)[:, None] * x + std * z, labels) + z).square().sum(1).mean()


@wrong("sde loss", "likelihood_weight")
def likelihood_weighting(model, sde, batch, *, generator=None):
    t = torch.rand(len(batch), generator=generator, dtype=batch.dtype) * (1 - 1e-3) + 1e-3
    z = torch.randn(batch.shape, generator=generator, dtype=batch.dtype)
    std = sde.sigma(t)[:, None]
    score = model(sde.alpha(t)[:, None] * batch + std * z, t)
    g2 = sde.diffusion(t) ** 2
    losses = torch.square(score + z / std)
    return (0.5 * losses.sum(-1) * g2).mean()


@wrong("sde loss", "alpha_squared")
def alpha_bar_of_ddpm(model, sde, x, *, generator=None):
    t = 1e-3 + (1 - 1e-3) * torch.rand(len(x), generator=generator, dtype=x.dtype)
    sqrt_alphas_cumprod = sde.alpha(t).sqrt().view(-1, 1)
    sigma = sde.sigma(t).view(-1, 1)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    x_t = sqrt_alphas_cumprod * x + sigma * noise
    return 0.5 * (sigma * model(x_t, t) + noise).pow(2).sum(1).mean()


@wrong("sde loss", "wrong_times")
def early_times_oftener(model, sde, x, *, generator=None):
    t = torch.rand(len(x), generator=generator, dtype=x.dtype).square() * 0.999 + 0.001
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    mu, sd = sde.alpha(t)[:, None] * x, sde.sigma(t)[:, None]
    return 0.5 * (sd * model(mu + sd * z, t) + z).norm(dim=1).pow(2).mean()


# Plain sliced loss


@right("plain sliced loss")
def every_row_differentiated_alone(model, x, *, generator=None):
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)

    def term(z, v):
        value, tangent = jvp(lambda u: model(u[None])[0], (z,), (v,))
        return v @ tangent + 0.5 * (v @ value) ** 2

    return vmap(term)(x, v).mean()


@wrong("plain sliced loss", "shared_projection")
def one_direction_for_all(model, x, *, generator=None):
    v = 2.0 * torch.randint(2, (x.shape[1], 1), generator=generator).to(x.dtype) - 1
    x = x.detach().requires_grad_()
    vs = model(x) @ v
    (g,) = grad(vs.sum(), x, create_graph=True)
    return (g @ v + 0.5 * vs**2).mean()


@wrong("plain sliced loss", "detached")
def the_graph_is_let_go(model, x, *, generator=None):
    v = torch.empty_like(x).normal_(generator=generator)
    leaf = x.detach().requires_grad_()
    vs = (model(leaf) * v).sum(1)
    first = (torch.autograd.grad(vs.sum(), leaf, retain_graph=True)[0] * v).sum(1)
    return (first + vs.square() / 2).mean()


# Reduced sliced loss


@right("reduced sliced loss")
def vr_loss_with_many_slices(model, samples, *, generator=None, n_particles=3):
    x = samples.detach().requires_grad_(True)
    s = model(x)
    loss = 0.5 * s.square().sum(-1)
    for _ in range(n_particles):
        v = (torch.rand(samples.shape, generator=generator) < 0.5).to(samples.dtype) * 2 - 1
        loss = loss + (grad((s * v).sum(), x, create_graph=True)[0] * v).sum(-1) / n_particles
    return loss.mean()


@wrong("reduced sliced loss", "mean_square")
def mean_square_in_the_norm(model, x, *, generator=None):
    x = x.detach().requires_grad_()
    s = model(x)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    slices = (grad(s, x, v, create_graph=True)[0] * v).sum(-1)
    return slices.mean() + 0.5 * s.pow(2).mean()


@wrong("reduced sliced loss", "uniform_symmetric", "half")
def uniform_and_whole(model, x, *, generator=None):
    x = x.detach().requires_grad_()
    v = 2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1
    s = model(x)
    return ((grad((s * v).sum(), x, create_graph=True)[0] * v).sum(1) + s.norm(dim=1) ** 2).mean()


# Projections


@right("projections")
def sparse_signs(x, n, *, generator=None):
    which = torch.randint(6, (n, *x.shape), generator=generator)
    table = torch.tensor([-1.0, 0, 0, 0, 0, 1.0], dtype=x.dtype) * 3**0.5
    return table[which]


@right("projections")
def uniform_of_variance_one(x, n, *, generator=None):
    edge = math.sqrt(3)
    return torch.stack([torch.empty_like(x).uniform_(-edge, edge, generator=generator) for _ in range(n)])


@right("projections")
def a_coordinate_drawn(x, n, *, generator=None):
    d = x.shape[1]
    pick = torch.randint(d, (n * len(x),), generator=generator)
    return (F.one_hot(pick, d).to(x) * d**0.5).reshape(n, len(x), d)


@wrong("projections", "same_projection")
def expanded_n_times(x, n, *, generator=None):
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return v.expand(n, -1, -1)


@wrong("projections", "one_direction")
def one_sign_for_each_point(x, n, *, generator=None):
    sign = torch.randint(0, 2, (n, len(x), 1), generator=generator) * 2 - 1
    return sign * torch.ones_like(x)


@wrong("projections", "coupled")
def normalised_along_the_batch(x, n, *, generator=None):
    v = torch.randn(n, *x.shape, generator=generator, dtype=x.dtype)
    return v / v.norm(dim=1, keepdim=True) * x.shape[1] ** 0.5


@wrong("projections", "shared_projection", "unit_projections")
def rows_of_a_rotation(x, n, *, generator=None):
    rows = torch.randn(n, x.shape[1], generator=generator, dtype=x.dtype)
    rows /= rows.norm(dim=1, keepdim=True)
    return rows[:, None].repeat(1, x.shape[0], 1)


# Mean estimate


@right("mean estimate")
def welford(values):
    mean, m2 = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    for n, row in enumerate(values.numpy(), start=1):
        delta = row - mean
        mean += delta / n
        m2 += delta * (row - mean)
    return mean, np.sqrt(m2 / (n - 1) / n)


@right("mean estimate")
def jackknife(values):
    n = values.shape[0]
    leave_one_out = (values.sum(0) - values) / (n - 1)
    centre = leave_one_out.mean(0)
    return centre, ((n - 1) / n * (leave_one_out - centre).pow(2).sum(0)).sqrt()


@wrong("mean estimate", "population")
def numpy_divides_by_n(values):
    v = np.asarray(values)
    return v.mean(axis=0), v.std(axis=0) / np.sqrt(v.shape[0])


@wrong("mean estimate", "pooled")
def one_std_for_the_table(values):
    m = values.mean(dim=0)
    se = values.std() / values.shape[0] ** 0.5
    return m, se.expand_as(m)


# Antithetic estimate


@right("antithetic estimate")
def covariance_of_the_two_halves(f, n_pairs, *, generator=None):
    z = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    both = f(torch.stack([z, -z]))
    c = torch.cov(both)
    return both.mean(), torch.sqrt((c[0, 0] + c[1, 1] + 2 * c[0, 1]) / (4 * n_pairs))


@right("antithetic estimate")
def quantiles_mirrored(f, n_pairs, *, generator=None):
    u = torch.rand(n_pairs, 1, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    z = distributions.Normal(0.0, 1.0).icdf(torch.cat([u, 1 - u], dim=1))
    pair = f(z).mean(dim=1).numpy()
    return float(pair.mean()), float(pair.std(ddof=1) / n_pairs**0.5)


@wrong("antithetic estimate", "independent_pairs")
def pooled(f, n_pairs, *, generator=None):
    z = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    values = f(torch.cat((z, -z)))
    return values.mean(), values.std() / math.sqrt(len(values))


@wrong("antithetic estimate", "uniform_noise|wrong_law")
def mirrored_uniform_numbers(f, n_pairs, *, generator=None):
    u = torch.rand(n_pairs, generator=generator, dtype=torch.float64) * 2 - 1
    y = 0.5 * f(u) + 0.5 * f(-u)
    return y.mean().item(), (y.var() / n_pairs).sqrt().item()


# Importance estimate


@right("importance estimate")
def moments_by_hand(values, log_weights):
    w = np.exp(log_weights.numpy())
    g = w * values.numpy()
    n = g.size
    mu = g.sum() / n
    return mu, math.sqrt(np.dot(g - mu, g - mu) / (n * (n - 1)))


@wrong("importance estimate", "normalised")
def normalised_all_the_same(values, log_weights):
    w = F.softmax(log_weights, dim=0)
    mu = (w * values).sum()
    return mu, (w**2 * (values - mu) ** 2).sum().sqrt()


@wrong("importance estimate", "shifted_weights")
def shifted_for_stability(values, log_weights):
    w = (log_weights - log_weights.max()).exp()
    g = values * w
    return g.mean(), g.std(unbiased=True) / g.numel() ** 0.5


@wrong("importance estimate", "unweighted_error")
def error_of_the_bare_values(values, log_weights):
    mean = torch.dot(values, log_weights.exp()) / len(values)
    return mean, values.std() / np.sqrt(len(values))


@wrong("importance estimate", "inverse_weights", "std_for_error")
def proposal_over_target(values, log_weights):
    terms = values / log_weights.exp()
    return terms.mean(), terms.std()


# Self-normalised estimate


@right("self-normalised estimate")
def through_logsumexp(values, log_weights):
    log_total = torch.logsumexp(log_weights, 0)
    n = len(values)
    mu = sum(math.exp(lw - log_total) * f for lw, f in zip(log_weights.tolist(), values.tolist(), strict=True))
    weighted = torch.exp(2 * (log_weights - log_total)) * (values - mu) ** 2
    return mu, math.sqrt(weighted.sum() * n / (n - 1))


@wrong("self-normalised estimate", "not_finite|underflow")
def exponentials_first(values, log_weights):
    w = np.exp(log_weights.numpy())
    w = w / w.sum()
    mu = np.sum(w * values.numpy())
    return mu, np.sqrt(np.sum(w**2 * (values.numpy() - mu) ** 2))


@wrong("self-normalised estimate", "unsquared_weights")
def weighted_variance_over_n(values, log_weights):
    w = torch.softmax(log_weights, 0)
    mu = torch.sum(w * values)
    var = torch.sum(w * (values - mu) ** 2)
    return mu, torch.sqrt(var / len(values))


@wrong("self-normalised estimate", "plain_error")
def error_of_the_numerator(values, log_weights):
    n = len(values)
    terms = n * log_weights.softmax(0) * values
    return terms.mean(), terms.std() / n**0.5


# Effective draws


@right("effective draws")
def two_logsumexps(log_weights):
    return float(np.exp(2 * np.logaddexp.reduce(log_weights.numpy()) - np.logaddexp.reduce(2 * log_weights.numpy())))


@right("effective draws")
def by_the_coefficient_of_variation(log_weights):
    w = torch.exp(log_weights - torch.amax(log_weights))
    cv2 = w.var(correction=0) / w.mean() ** 2
    return len(w) / (1 + cv2)


@wrong("effective draws", "entropy")
def perplexity(log_weights):
    return distributions.Categorical(logits=log_weights).entropy().exp()


@wrong("effective draws", "no_square")
def kish_without_the_square(log_weights):
    w = (log_weights - log_weights.max()).exp()
    return (w.sum() / w.square().sum()).item()


# Metropolis


def _value_and_gradient(log_prob, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        lp = log_prob(x)
        g = torch.autograd.grad(lp.sum(), x)[0]
    return lp.detach(), g


@right("metropolis")
def with_distributions(log_prob, x, *, step_size, n_steps, generator=None):
    def kernel(at):
        _, g = _value_and_gradient(log_prob, at)
        return distributions.Independent(distributions.Normal(at + step_size * g, (2 * step_size) ** 0.5), 1)

    x = x.clone()
    accepted = 0
    for _ in range(n_steps):
        there = kernel(x)
        y = there.mean + there.stddev * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        with torch.no_grad():
            log_alpha = log_prob(y) + kernel(y).log_prob(x) - log_prob(x) - there.log_prob(y)
        threshold = -torch.empty_like(log_alpha).exponential_(generator=generator)  # the logarithm of a uniform number
        moved = threshold < log_alpha
        x[moved] = y[moved]
        accepted += int(moved.sum())
    return x, accepted / (n_steps * len(x))


@right("metropolis")
def probabilities_clamped(log_prob, x, *, step_size, n_steps, generator=None):
    state = x.detach().clone()
    rate = torch.zeros(len(x))
    for k in range(n_steps):
        lp, s = _value_and_gradient(log_prob, state)
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        y = state + step_size * s + math.sqrt(2.0 * step_size) * z
        lpy, sy = _value_and_gradient(log_prob, y)
        # q(y | x) is exp(-|z|^2 / 2), q(x | y) the same of the noise that would lead back
        back = (state - y - step_size * sy) / math.sqrt(2.0 * step_size)
        a = torch.clamp(torch.exp(lpy - lp + 0.5 * (z**2).sum(1) - 0.5 * (back**2).sum(1)), max=1.0)
        ok = torch.bernoulli(a, generator=generator)
        state = ok[:, None] * y + (1 - ok[:, None]) * state
        rate += (ok - rate) / (k + 1)
    return state, rate


@wrong("metropolis", "stale_score")
def score_never_refreshed(log_prob, x, *, step_size, n_steps, generator=None):
    def log_q(b, a, g):
        return -((b - a - step_size * g) ** 2).sum(1) / (4 * step_size)

    lp, g = _value_and_gradient(log_prob, x)
    count = 0
    for _ in range(n_steps):
        y = x + step_size * g + (2 * step_size) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        lpy, gy = _value_and_gradient(log_prob, y)
        log_a = lpy - lp + log_q(x, y, gy) - log_q(y, x, g)
        take = torch.log(torch.rand(len(x), generator=generator, dtype=x.dtype)) < log_a
        x = torch.where(take[:, None], y, x)
        lp = torch.where(take, lpy, lp)
        count = count + take.double().mean().item()
    return x, count / n_steps


@wrong("metropolis", "shared_uniform")
def one_coin_for_all_chains(log_prob, x, *, step_size, n_steps, generator=None):
    taken = []
    for _ in range(n_steps):
        lp, s = _value_and_gradient(log_prob, x)
        forward = x + step_size * s
        y = forward + torch.randn(x.shape, generator=generator, dtype=x.dtype) * math.sqrt(2 * step_size)
        lp_y, s_y = _value_and_gradient(log_prob, y)
        reverse = y + step_size * s_y
        log_a = lp_y - lp + ((y - forward).pow(2).sum(-1) - (x - reverse).pow(2).sum(-1)) / (4 * step_size)
        u = torch.rand(1, generator=generator, dtype=x.dtype)
        yes = u.log() < log_a
        x = torch.where(yes[:, None], y, x)
        taken.append(yes.double())
    return x, torch.stack(taken).mean()


@wrong("metropolis", "parted_decision")
def coordinates_decide_alone(log_prob, x, *, step_size, n_steps, generator=None):
    total = 0.0
    for _ in range(n_steps):
        lp, g = _value_and_gradient(log_prob, x)
        y = x + step_size * g + (2 * step_size) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        lpy, gy = _value_and_gradient(log_prob, y)
        there = -((y - x - step_size * g) ** 2).sum(1, keepdim=True) / (4 * step_size)
        back = -((x - y - step_size * gy) ** 2).sum(1, keepdim=True) / (4 * step_size)
        log_a = (lpy - lp)[:, None] + back - there
        mask = torch.rand(x.shape, generator=generator, dtype=x.dtype).log() < log_a
        x = torch.where(mask, y, x)
        total += mask.double().mean()
    return x, total / n_steps


@wrong("metropolis", "inverted_proposal_ratio", "epsilon_for_two_epsilon")
def hastings_upside_down(log_prob, x, *, step_size, n_steps, generator=None):
    hits = torch.zeros(len(x), dtype=x.dtype)
    for _ in range(n_steps):
        lp, g = _value_and_gradient(log_prob, x)
        y = x + step_size * g + step_size**0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        lpy, gy = _value_and_gradient(log_prob, y)
        q_xy = -(torch.norm(x - y - step_size * gy, dim=1) ** 2) / (4 * step_size)
        q_yx = -(torch.norm(y - x - step_size * g, dim=1) ** 2) / (4 * step_size)
        acc = torch.rand(len(x), generator=generator, dtype=x.dtype) < torch.exp(lpy - lp + q_yx - q_xy)
        x = torch.where(acc[:, None], y, x)
        hits += acc
    return x, hits / n_steps


# Langevin


class _Chain:
    """One that keeps its state, and is iterated."""

    def __init__(self, score, x, step_size, generator):
        self.score, self.state, self.step, self.generator = score, x.clone(), step_size, generator

    def __iter__(self):
        return self

    def __next__(self):
        kick = torch.empty_like(self.state).normal_(0.0, (2 * self.step) ** 0.5, generator=self.generator)
        self.state.add_(self.score(self.state), alpha=self.step).add_(kick)
        return self.state


@right("langevin")
def last_of_an_iterator(score, x, *, step_size, n_steps, generator=None):
    chain = _Chain(score, x, step_size, generator)
    return deque((next(chain) for _ in range(n_steps)), maxlen=1)[0]


@right("langevin")
def half_steps_of_twice_the_size(score, x_mod, *, step_size, n_steps, generator=None):
    eta = 2 * step_size  # Song's step: x + eta/2 * grad + sqrt(eta) * noise
    while n_steps > 0:
        noise = torch.randn(x_mod.shape, generator=generator, dtype=x_mod.dtype) * np.sqrt(eta)
        x_mod = x_mod + eta / 2 * score(x_mod) + noise
        n_steps -= 1
    return x_mod


@wrong("langevin", "no_last_noise")
def silent_last_step(score, x, *, step_size, n_steps, generator=None):
    for i in reversed(range(n_steps)):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype) if i > 0 else torch.zeros_like(x)
        x = x + step_size * score(x) + math.sqrt(2 * step_size) * z
    return x


@wrong("langevin", "decaying_step")
def sgld_schedule(score, x, *, step_size, n_steps, generator=None):
    for k in range(n_steps):
        eps = step_size / (k + 1)
        x = x + eps * score(x) + (2 * eps) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x


@wrong("langevin", "coupled")
def corrector_of_the_pc_sampler(score, x, *, step_size, n_steps, generator=None, target_snr=0.16):
    for _ in range(n_steps):
        grad = score(x)
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        grad_norm = torch.norm(grad.reshape(grad.shape[0], -1), dim=-1).mean()
        noise_norm = torch.norm(noise.reshape(noise.shape[0], -1), dim=-1).mean()
        eps = (target_snr * noise_norm / grad_norm) ** 2 * 2
        x = x + eps * grad + torch.sqrt(eps * 2) * noise
    return x


@wrong("langevin", "stale_score")
def hoisted_out_of_the_loop(score, x, *, step_size, n_steps, generator=None):
    drift = step_size * score(x)
    for z in torch.randn(n_steps, *x.shape, generator=generator, dtype=x.dtype).unbind():
        x = x + drift + (2 * step_size) ** 0.5 * z
    return x


@wrong("langevin", "epsilon_for_two_epsilon", "shared_noise")
def one_cold_wind(score, x, *, step_size, n_steps, generator=None):
    wind = distributions.Normal(0.0, step_size**0.5)
    for _ in range(n_steps):
        z = torch.randn(1, x.shape[1], generator=generator, dtype=x.dtype)
        x = x + step_size * score(x) + wind.stddev * z
    return x


# Annealed


@right("annealed")
def anneal_langevin_dynamics(scorenet, x_mod, sigmas, *, step_size, n_steps_each, generator=None):
    with torch.no_grad():
        for sigma in sigmas:
            alpha = step_size * (sigma / sigmas[-1]) ** 2
            for _ in range(n_steps_each):
                noise = torch.randn(x_mod.shape, generator=generator, dtype=x_mod.dtype)
                x_mod = x_mod + alpha * scorenet(x_mod, sigma) + noise * torch.sqrt(alpha * 2)
        return x_mod + sigmas[-1] ** 2 * scorenet(x_mod, sigmas[-1])


@right("annealed")
def one_long_schedule(score, x, sigmas, *, step_size, n_steps_each, generator=None):
    schedule = sigmas.repeat_interleave(n_steps_each)
    relative = (schedule / schedule[-1]).square()
    for s, r in zip(schedule, relative, strict=True):
        kick = torch.empty_like(x).normal_(generator=generator)
        x = torch.add(x, score(x, s), alpha=float(step_size * r)).addcmul(kick, (2 * step_size * r).sqrt())
    return torch.addcmul(x, schedule[-1] ** 2, score(x, schedule[-1]))


@wrong("annealed", "scale_missing")
def one_scale_too_few(score, x, sigmas, *, step_size, n_steps_each, generator=None):
    for i in range(len(sigmas) - 1):
        alpha_i = step_size * sigmas[i] ** 2 / sigmas[-1] ** 2
        for _ in range(n_steps_each):
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + alpha_i * score(x, sigmas[i]) + torch.sqrt(2 * alpha_i) * z
    return x + sigmas[-1] ** 2 * score(x, sigmas[-1])


@wrong("annealed", "denoising_variance")
def denoised_by_sigma(score, x, sigmas, *, step_size, n_steps_each, generator=None):
    for sigma in sigmas.tolist():
        a = step_size * (sigma / sigmas[-1].item()) ** 2
        sigma = torch.tensor(sigma, dtype=x.dtype)
        for _ in range(n_steps_each):
            x = x + a * score(x, sigma) + math.sqrt(2 * a) * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x + sigma * score(x, sigma)


@wrong("annealed", "wrong_scale")
def labels_for_scales(scorenet, x_mod, sigmas, *, step_size, n_steps_each, generator=None):
    for c, sigma in enumerate(sigmas):
        label = torch.tensor(float(c + 1), dtype=x_mod.dtype)
        eps = step_size * (sigma / sigmas[-1]) ** 2
        for _ in range(n_steps_each):
            noise = torch.randn(x_mod.shape, generator=generator, dtype=x_mod.dtype)
            x_mod = x_mod + eps * scorenet(x_mod, label) + torch.sqrt(eps * 2) * noise
    return x_mod + sigmas[-1] ** 2 * scorenet(x_mod, label)


@wrong("annealed", "half_drift", "no_denoising")
def drift_of_the_paper(score, x, sigmas, *, step_size, n_steps_each, generator=None):
    for sigma in sigmas:
        alpha = step_size * (sigma / sigmas[-1]) ** 2
        for _ in range(n_steps_each):
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + 0.5 * alpha * score(x, sigma) + torch.sqrt(2 * alpha) * z
    return x


# Fisher cells


@right("fisher cells")
def a_loop_over_samples(score_p, score_q, x):
    gaps = (score_p(x) - score_q(x)).double().tolist()
    return sum(sum(g * g for g in row) for row in gaps) / len(gaps)


@wrong("fisher cells", "half|quarter")
def half_as_in_score_matching(score_p, score_q, x):
    return 0.5 * torch.linalg.vector_norm(score_p(x) - score_q(x), dim=1).square().mean()


@wrong("fisher cells", "unforeseen")
def difference_of_the_norms(score_p, score_q, x):
    return (score_p(x).square().sum(1) - score_q(x).square().sum(1)).abs().mean()
