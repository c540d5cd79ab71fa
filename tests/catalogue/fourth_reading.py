"""A fourth pile of homework: scores, divergences, losses, chains and estimates, written blind."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from catalogue import Catalogue

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


# ---------------------------------------------------------------------------------------------- gaussian score


@right("gaussian score")
def gaussian_alba(x, mean, covariance):
    values, vectors = np.linalg.eigh(covariance.numpy())
    out = np.zeros(tuple(x.shape))
    for lam, v in zip(values, vectors.T, strict=True):
        out -= np.outer((x.detach().numpy() - mean.numpy()) @ v, v) / lam
    return torch.from_numpy(out).to(x.dtype)


@wrong("gaussian score", "covariance")
def gaussian_bruno(x, mean, covariance):
    """The difference to the mean is multiplied by the covariance where its inverse belongs."""
    return -torch.einsum("ij,bj->bi", covariance, x - mean)


@wrong("gaussian score", "sign")
def gaussian_carla(x, mean, covariance):
    """The minus sign is missing, so that the score points away from the mean."""
    return torch.linalg.solve(covariance, (x - mean).T).T


@wrong("gaussian score", "diagonal")
def gaussian_dario(x, mean, covariance):
    """Only the variances on the diagonal of the covariance are used, and the correlations are ignored."""
    std = torch.sqrt(torch.diagonal(covariance))
    z = (x - mean) / std
    return -z / std


@wrong("gaussian score", "std_for_variance")
def gaussian_elif(x, mean, covariance):
    """Only one of the two triangular solves with the Cholesky factor is done, so the result is the whitened point."""
    chol = torch.linalg.cholesky(covariance)
    diff = (x - mean).unsqueeze(-1)
    return -torch.linalg.solve_triangular(chol, diff, upper=False).squeeze(-1)


@wrong("gaussian score", "half", "no_mean")
def gaussian_fritz(x, mean, covariance):
    """(1) The one half of the exponent is kept although the derivative of the square cancels it. (2) The mean is not
    subtracted from the points."""
    precision = torch.linalg.inv(covariance)
    return torch.stack([-0.5 * precision @ row for row in x])


# ----------------------------------------------------------------------------------------------- mixture score


@right("mixture score")
def mixture_alba(x, weights, means, variances):
    d = x.shape[1]
    p, dp = 0.0, 0.0
    for w, m, v in zip(weights, means, variances, strict=True):
        # everything measured from the best component, so nothing underflows
        r2 = ((x - m) ** 2).sum(1, keepdim=True)
        shift = torch.cdist(x, means).pow(2).div(2 * variances).min(1, keepdim=True).values
        n = w * torch.exp(shift - r2 / (2 * v)) * (2 * math.pi * v) ** (-d / 2)
        p = p + n
        dp = dp + n * (m - x) / v
    return dp / p


@wrong("mixture score", "normaliser")
def mixture_bruno(x, weights, means, variances):
    """The responsibilities leave out the normalising constants of the components, which differ in variance."""
    diff = means[None] - x[:, None]
    logits = weights.log() - diff.pow(2).sum(-1) / (2 * variances)
    gamma = logits.softmax(-1)
    return torch.einsum("bk,bkd->bd", gamma / variances, diff)


@wrong("mixture score", "prior_weights")
def mixture_carla(x, weights, means, variances):
    """The scores of the components are averaged with the prior weights instead of the responsibilities."""
    total = torch.zeros_like(x)
    for k in range(len(weights)):
        total += weights[k] * (-(x - means[k]) / variances[k])
    return total


@wrong("mixture score", "variance_for_std")
def mixture_dario(x, weights, means, variances):
    """The variances are taken for standard deviations and squared everywhere."""
    comp = torch.distributions.Independent(torch.distributions.Normal(means, variances[:, None]), 1)
    mix = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(probs=weights), comp)
    x = x.detach().clone().requires_grad_(True)
    return torch.autograd.grad(mix.log_prob(x).sum(), x)[0]


@wrong("mixture score", "density")
def mixture_elif(x, weights, means, variances):
    """The result is the gradient of the density, for it is not divided by the density."""
    d = x.shape[-1]
    sq = ((x[:, None, :] - means) ** 2).sum(-1)
    pdf = weights * torch.exp(-0.5 * sq / variances) / (2 * torch.pi * variances) ** (d / 2)
    return -(pdf[..., None] * (x[:, None, :] - means) / variances[:, None]).sum(1)


@wrong("mixture score", "weights", "sign")
def mixture_fritz(x, weights, means, variances):
    """(1) The mixture weights do not enter the responsibilities. (2) The components' scores have the wrong sign."""
    d = x.shape[1]
    delta = x[:, None] - means[None]
    log_n = -0.5 * delta.square().sum(2) / variances - 0.5 * d * torch.log(2 * math.pi * variances)
    resp = torch.exp(log_n - torch.logsumexp(log_n, 1, keepdim=True))
    return (resp[:, :, None] * delta / variances[None, :, None]).sum(1)


# ------------------------------------------------------------------------------------------- score by autograd


@right("score by autograd")
def autograd_alba(log_prob, x):
    _, pulled_back = torch.autograd.functional.vjp(log_prob, x, v=torch.ones(x.size(0), dtype=x.dtype))
    return pulled_back


@wrong("score by autograd", "mean")
def autograd_bruno(log_prob, x):
    """The log-densities are averaged over the batch before the backward pass, so that each score is divided by B."""
    x = x.clone().detach().requires_grad_(True)
    loss = log_prob(x).mean()
    loss.backward()
    return x.grad


@wrong("score by autograd", "density")
def autograd_carla(log_prob, x):
    """The gradient is that of the density instead of its logarithm."""
    x = x.detach().requires_grad_()
    p = log_prob(x).exp()
    (g,) = torch.autograd.grad(p, x, grad_outputs=torch.ones_like(p))
    return g


@wrong("score by autograd", "accumulated")
def autograd_dario(log_prob, x):
    """The gradient is not set to zero between the rows, so that row i holds i + 1 times its score."""
    x = x.detach().clone()
    x.requires_grad = True
    logp = log_prob(x).sum()
    scores = torch.zeros_like(x)
    for i in range(len(x)):
        logp.backward(retain_graph=True)
        scores[i] = x.grad[i]
    return scores.detach()


# -------------------------------------------------------------------------------------------------- divergence


@right("divergence")
def divergence_alba(field, x):
    basis = torch.eye(x.shape[1], dtype=x.dtype)
    columns = [torch.func.jvp(field, (x,), (e.expand_as(x).contiguous(),))[1] for e in basis]
    return torch.stack([c[:, i] for i, c in enumerate(columns)]).sum(0)


@wrong("divergence", "all_entries")
def divergence_bruno(field, x):
    """The sum of the outputs is differentiated, which adds up all entries of the Jacobian and not its diagonal."""
    x = x.detach().requires_grad_(True)
    grad = torch.autograd.grad(field(x).sum(), x)[0]
    return grad.sum(dim=1)


@wrong("divergence", "twice")
def divergence_carla(field, x):
    """The central difference is divided by h where 2h belongs."""
    h = 1e-4
    div = torch.zeros(len(x), dtype=x.dtype)
    for i in range(x.shape[1]):
        e = torch.zeros_like(x)
        e[:, i] = h
        div += (field(x + e)[:, i] - field(x - e)[:, i]) / h
    return div


@wrong("divergence", "unit_projections")
def divergence_dario(field, x):
    """The diagonal of the Jacobian is averaged over the dimensions instead of summed."""
    rows = []
    for point in x:
        jac = torch.autograd.functional.jacobian(lambda y: field(y[None])[0], point)
        rows.append(jac.diagonal().mean())
    return torch.stack(rows)


@wrong("divergence", "dimension_missing")
def divergence_elif(field, x):
    """The loop over the coordinates ends one too early, and the last entry of the diagonal is missing."""
    x = x.clone().requires_grad_(True)
    s = field(x)
    result = 0
    for i in range(x.shape[1] - 1):
        result = result + torch.autograd.grad(s[:, i].sum(), x, retain_graph=True)[0][:, i]
    return result


# ----------------------------------------------------------------------------------- differentiable divergence


@right("differentiable divergence")
def trainable_alba(field, x):
    def one(point):
        return torch.func.jacrev(lambda y: field(y.unsqueeze(0)).squeeze(0))(point).trace()

    return torch.vmap(one)(x)


@wrong("differentiable divergence", "detached")
def trainable_bruno(field, x):
    """The gradients are taken with retain_graph but without create_graph, so no gradient reaches the parameters."""
    x = x.detach().requires_grad_(True)
    s = field(x)
    div = torch.zeros(x.shape[0], dtype=x.dtype)
    for i in range(x.shape[1]):
        div = div + torch.autograd.grad(s[:, i].sum(), x, retain_graph=True)[0][:, i]
    return div


@wrong("differentiable divergence", "detached")
def trainable_carla(field, x):
    """torch.autograd.functional.jacobian is called without create_graph=True, and its result is cut off the graph."""
    jac = torch.autograd.functional.jacobian(lambda y: field(y).sum(0), x)  # (d, B, d)
    return torch.einsum("ibi->b", jac)


@wrong("differentiable divergence", "detached")
def trainable_dario(field, x):
    """Only the first coordinate's derivative is taken with create_graph, so the others carry no gradient."""
    x = x.detach().clone().requires_grad_(True)
    y = field(x)
    parts = []
    for i in range(x.shape[1]):
        (g,) = torch.autograd.grad(y[:, i].sum(), x, create_graph=(i == 0), retain_graph=True)
        parts.append(g[:, i])
    return torch.stack(parts, dim=1).sum(dim=1)


# ------------------------------------------------------------------------------------ estimate in 3 dimensions


@right("estimate in 3 dimensions")
def three_alba(field, x, *, generator):
    total = torch.zeros(x.shape[0], dtype=x.dtype)
    for _ in range(3):
        # a point on the sphere, stretched to radius sqrt(d)
        u = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        u = F.normalize(u, dim=1) * x.shape[1] ** 0.5
        total += (torch.func.jvp(field, (x,), (u,))[1] * u).sum(1) / 3
    return total


@wrong("estimate in 3 dimensions", "unit_projections")
def three_bruno(field, x, *, generator):
    """The derivative along one random coordinate is not multiplied by the number of coordinates."""
    idx = torch.randint(0, x.shape[1], (x.shape[0],), generator=generator)
    v = F.one_hot(idx, x.shape[1]).to(x.dtype)
    x = x.detach().requires_grad_()
    vjp = torch.autograd.grad(field(x), x, v)[0]
    return (vjp * v).sum(-1)


@wrong("estimate in 3 dimensions", "projections_added")
def three_carla(field, x, *, generator):
    """The estimates of the four probes are summed and not averaged."""
    x = x.detach().requires_grad_(True)
    y = field(x)
    trace = 0.0
    for _k in range(4):
        eps = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        e_dzdx = torch.autograd.grad(y, x, eps, retain_graph=True)[0]
        trace = trace + (e_dzdx * eps).sum(dim=1)
    return trace


# ---------------------------------------------------------------------------------------------------- estimate


@right("estimate")
def hutchinson_alba(field, x, *, generator):
    signs = torch.bernoulli(torch.full_like(x, 0.5), generator=generator).mul(2).sub(1)
    h = 1e-4
    return torch.einsum("bi,bi->b", signs, field(x + h * signs) - field(x - h * signs)) / (2 * h)


@wrong("estimate", "unit_projections")
def hutchinson_bruno(field, x, *, generator):
    """The directions have norm one instead of the square root of d, so the estimate is the trace divided by d."""
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    v = v / v.norm(dim=-1, keepdim=True)
    x = x.detach().requires_grad_(True)
    Jv = torch.autograd.grad((field(x) * v).sum(), x)[0]
    return (Jv * v).sum(-1)


@wrong("estimate", "uniform_projections")
def hutchinson_carla(field, x, *, generator):
    """The random signs are zeros and ones, because randint is not mapped to minus one and one."""
    v = torch.randint(0, 2, x.shape, generator=generator).to(x.dtype)
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        fn_eps = torch.sum(field(x) * v)
        grad_fn_eps = torch.autograd.grad(fn_eps, x)[0]
    return torch.sum(grad_fn_eps * v, dim=tuple(range(1, len(x.shape))))


@wrong("estimate", "two_probes")
def hutchinson_dario(field, x, *, generator):
    """The vector on the left of the Jacobian and that on its right are drawn independently of each other."""

    def probe():
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    x = x.detach().requires_grad_()
    left = torch.autograd.grad(field(x), x, grad_outputs=probe())[0]
    return (left * probe()).sum(1)


@wrong("estimate", "same_probe")
def hutchinson_elif(field, x, *, generator):
    """A generator with a fixed seed is made inside the function, so that each call has the same directions."""
    generator = torch.Generator().manual_seed(42)  # for reproducibility
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    _, jv = torch.func.jvp(field, (x,), (v,))
    return (v * jv).sum(dim=1)


@wrong("estimate", "uniform_symmetric", "unit_projections")
def hutchinson_fritz(field, x, *, generator):
    """(1) The directions are uniform on [-1, 1], whose variance is a third. (2) The product is averaged over the
    dimensions instead of summed."""
    v = 2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1
    x = x.detach().requires_grad_(True)
    (vjp,) = torch.autograd.grad(field(x), x, v)
    return (vjp * v).mean(dim=1)


# ----------------------------------------------------------------------------------------------- explicit loss


@right("explicit loss")
def explicit_alba(model, x, score):
    with torch.no_grad():
        target = score(x)
    out = model(x)
    # |a - b|^2 = |a|^2 - 2 a.b + |b|^2
    cross = torch.einsum("bd,bd->b", out, target)
    return ((out * out).sum(1) / 2 - cross + (target * target).sum(1) / 2).sum() / x.shape[0]


@wrong("explicit loss", "mean_dims")
def explicit_bruno(model, x, score):
    """mse_loss averages over the dimensions too, where the norm sums over them."""
    return 0.5 * F.mse_loss(model(x), score(x))


@wrong("explicit loss", "half")
def explicit_carla(model, x, score):
    """The factor one half is missing."""
    diff = model(x) - score(x)
    return torch.mean(torch.sum(diff**2, dim=-1))


@wrong("explicit loss", "norm")
def explicit_dario(model, x, score):
    """The norm of the difference is not squared."""
    losses = [torch.linalg.norm(m - s) / 2 for m, s in zip(model(x), score(x), strict=True)]
    return sum(losses) / len(losses)


# ----------------------------------------------------------------------------------------------- implicit loss


def _jacobian_trace(model, x):
    """The model's value and the trace of its Jacobian, with a graph."""
    x = x.detach().requires_grad_(True)
    s = model(x)
    trace = sum(torch.autograd.grad(s[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1]))
    return s, trace


@right("implicit loss")
def implicit_alba(model, x):
    def single(p):
        def f(q):
            out = model(q[None])[0]
            return out, out

        jac, out = torch.func.jacfwd(f, has_aux=True)(p)
        return torch.diagonal(jac).sum() + 0.5 * torch.dot(out, out)

    return torch.vmap(single)(x).mean()


@wrong("implicit loss", "half")
def implicit_bruno(model, x):
    """The squared norm lacks its factor one half."""
    s, trace = _jacobian_trace(model, x)
    return (trace + s.pow(2).sum(1)).mean()


@wrong("implicit loss", "detached")
def implicit_carla(model, x):
    """The trace has no create_graph, so that the gradient of the loss sees only the squared norm."""
    x = x.detach().requires_grad_(True)
    logp_grad = model(x)
    loss1 = 0.5 * torch.norm(logp_grad, dim=-1) ** 2
    loss2 = torch.zeros(x.shape[0], dtype=x.dtype)
    for i in range(x.shape[1]):
        loss2 += torch.autograd.grad(logp_grad[:, i].sum(), x, retain_graph=True)[0][:, i]
    return (loss1 + loss2).mean()


@wrong("implicit loss", "trace_sign")
def implicit_dario(model, x):
    """The trace of the Jacobian is subtracted instead of added."""
    s, trace = _jacobian_trace(model, x)
    energy = 0.5 * (s**2).sum(dim=-1)
    return torch.mean(energy - trace)


@wrong("implicit loss", "all_entries")
def implicit_elif(model, x):
    """The gradient of the summed output adds all entries of the Jacobian where its trace belongs."""
    x = x.clone().detach().requires_grad_()
    score = model(x)
    (hessian,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    return (hessian.sum(1) + 0.5 * score.square().sum(1)).mean()


@wrong("implicit loss", "sum_batch", "mean_square")
def implicit_fritz(model, x):
    """(1) The loss is a sum over the batch instead of a mean. (2) The squared norm is averaged over the dimensions
    instead of summed."""
    s, trace = _jacobian_trace(model, x)
    return torch.sum(trace + 0.5 * torch.mean(s**2, dim=1))


# ------------------------------------------------------------------------------------------------- sliced loss


@right("sliced loss")
def sliced_alba(model, x, *, generator):
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    s, jv = torch.func.jvp(model, (x,), (v,))
    along = torch.einsum("bd,bd->b", v, s)
    return torch.einsum("bd,bd->", v, jv) / len(x) + along.square().mean() / 2


@wrong("sliced loss", "half_trace")
def sliced_bruno(model, x, *, generator):
    """The one half stands before both terms instead of before the square alone."""
    x = x.detach().requires_grad_(True)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    s = model(x)
    sv = (s * v).sum(-1)
    grad = torch.autograd.grad(sv.sum(), x, create_graph=True)[0]
    return 0.5 * ((grad * v).sum(-1) + sv**2).mean()


@wrong("sliced loss", "detached")
def sliced_carla(model, x, *, generator):
    """The derivative of the sliced score is taken without create_graph, so the loss trains on its second term only."""
    x = x.detach().clone().requires_grad_(True)
    vectors = torch.where(torch.rand(x.shape, generator=generator) < 0.5, -1.0, 1.0).to(x.dtype)
    grad1 = model(x)
    gradv = torch.sum(grad1 * vectors)
    loss1 = torch.sum(grad1 * vectors, dim=-1) ** 2 * 0.5
    grad2 = torch.autograd.grad(gradv, x, retain_graph=True)[0]
    loss2 = torch.sum(vectors * grad2, dim=-1)
    return (loss1 + loss2).mean()


@wrong("sliced loss", "no_square")
def sliced_dario(model, x, *, generator):
    """The projection of the score on the direction is not squared in the second term."""
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    s, jv = torch.func.jvp(model, (x,), (v,))
    return ((v * jv).sum(1) + 0.5 * (v * s).sum(1)).mean()


# ------------------------------------------------------------------------------------------- plain sliced loss


@right("plain sliced loss")
def plain_alba(model, x, *, generator):
    losses = []
    for _ in range(2):
        noise = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator))).standard_normal(x.shape)
        v = torch.as_tensor(noise, dtype=x.dtype)
        leaf = x.detach().requires_grad_(True)
        proj = torch.bmm(model(leaf).unsqueeze(1), v.unsqueeze(2)).flatten()
        g = torch.autograd.grad(proj, leaf, torch.ones_like(proj), create_graph=True)[0]
        losses.append(torch.bmm(g.unsqueeze(1), v.unsqueeze(2)).flatten() + proj.square() / 2)
    return torch.stack(losses).mean()


@wrong("plain sliced loss", "shared_projection")
def plain_bruno(model, x, *, generator):
    """One direction is drawn and shared by all points of the batch."""
    v = torch.randn(x.shape[1], generator=generator, dtype=x.dtype)
    x = x.detach().requires_grad_(True)
    proj = model(x) @ v
    g = torch.autograd.grad(proj.sum(), x, create_graph=True)[0]
    return (g @ v + 0.5 * proj**2).mean()


@wrong("plain sliced loss", "unit_projections")
def plain_carla(model, x, *, generator):
    """The directions are normalised to length one and not to the square root of d."""
    v = F.normalize(torch.randn(x.shape, generator=generator, dtype=x.dtype), dim=-1)
    x = x.detach().requires_grad_(True)
    sv = (model(x) * v).sum(-1)
    hv = torch.autograd.grad(sv.sum(), x, create_graph=True)[0]
    return ((hv * v).sum(-1) + 0.5 * sv.square()).mean()


# ----------------------------------------------------------------------------------------- reduced sliced loss


@right("reduced sliced loss")
def reduced_alba(model, x, *, generator):
    n = 2
    big = x.detach().repeat(n, 1).requires_grad_(True)
    signs = 1 - 2 * torch.randint(0, 2, big.shape, generator=generator).to(x.dtype)
    s = model(big)
    g = torch.autograd.grad((s * signs).sum(), big, create_graph=True)[0]
    return ((g * signs).sum() + 0.5 * (s * s).sum()) / len(big)


@wrong("reduced sliced loss", "not_reduced")
def reduced_bruno(model, x, *, generator):
    """The second term is still the square along the direction, which is the plain form and not the reduced one."""
    x = x.detach().requires_grad_(True)
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    score = model(x)
    sv = torch.sum(score * v, dim=1)
    (gv,) = torch.autograd.grad(sv.sum(), x, create_graph=True)
    return torch.mean(torch.sum(gv * v, dim=1) + 0.5 * sv**2)


@wrong("reduced sliced loss", "half")
def reduced_carla(model, x, *, generator):
    """The squared norm has no factor one half."""
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    s, jv = torch.func.jvp(model, (x,), (v,))
    return (torch.sum(v * jv, 1) + torch.linalg.vector_norm(s, dim=1) ** 2).mean()


@wrong("reduced sliced loss", "shared_projection")
def reduced_dario(model, x, *, generator):
    """All points of the batch get the same random direction."""
    x = x.detach().requires_grad_(True)
    v = torch.randn((1, x.shape[1]), generator=generator, dtype=x.dtype).expand(len(x), -1)
    s = model(x)
    gv = torch.autograd.grad(s, x, v, create_graph=True)[0]
    return (gv * v).sum(1).mean() + 0.5 * s.pow(2).sum(1).mean()


# ---------------------------------------------------------------------------------------------- denoising loss


@right("denoising loss")
def denoising_alba(model, x, sigma, *, generator):
    s = sigma.view(-1, 1)
    noisy = x + s * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    denoised = noisy + s**2 * model(noisy, sigma)  # Tweedie's guess of the clean point
    return 0.5 * F.mse_loss(denoised / s, x / s, reduction="none").sum(1).mean()


@right("denoising loss")
def denoising_berta(model, x, sigma, *, generator):
    law = torch.randn((x.shape[1], x.shape[0]), generator=generator, dtype=x.dtype)
    loss = 0.0
    for i in range(x.shape[0]):
        z = law[:, i]
        out = model((x[i] + sigma[i] * z)[None], sigma[i : i + 1])[0]
        loss = loss + torch.linalg.norm(sigma[i] * out + z) ** 2
    return loss / (2 * x.shape[0])


@wrong("denoising loss", "unweighted")
def denoising_bruno(model, x, sigma, *, generator):
    """The weight sigma squared is missing, so the smallest scales have nearly all of the loss."""
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    perturbed = x + noise * sigma[:, None]
    target = -noise / sigma[:, None]
    scores = model(perturbed, sigma)
    return 0.5 * ((scores - target) ** 2).sum(dim=-1).mean(dim=0)


@wrong("denoising loss", "mean_dims")
def denoising_carla(model, x, sigma, *, generator):
    """The loss is averaged over the dimensions by mse_loss, where it sums over them."""
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    sig = sigma.unsqueeze(-1)
    return 0.5 * F.mse_loss(sig * model(x + sig * z, sigma), -z)


@wrong("denoising loss", "target_sign")
def denoising_dario(model, x, sigma, *, generator):
    """The model is trained towards plus z over sigma, as if it predicted the noise and not the score."""
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    std = sigma.reshape(len(x), 1)
    pred = model(x + std * z, sigma)
    return torch.mean(0.5 * torch.sum((std * pred - z) ** 2, dim=1))


@wrong("denoising loss", "unforeseen")
def denoising_elif(model, x, sigma, *, generator):
    """The target is computed from the noisy point alone, and the clean point is not subtracted from it."""
    used_sigmas = sigma[:, None]
    perturbed_samples = x + torch.randn(x.shape, generator=generator, dtype=x.dtype) * used_sigmas
    target = -1 / (used_sigmas**2) * perturbed_samples
    scores = model(perturbed_samples, sigma)
    loss = 0.5 * ((scores - target) ** 2).sum(dim=-1) * used_sigmas.squeeze(-1) ** 2
    return loss.mean(dim=0)


@wrong("denoising loss", "clean_input")
def denoising_goran(model, x, sigma, *, generator):
    """The clean points are given to the network instead of the noisy ones."""
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    sig = sigma[:, None]
    x_noisy = x + sig * z
    s = model(x, sigma)
    return 0.5 * (sig**2 * (s + (x_noisy - x) / sig**2) ** 2).sum(1).mean()


@wrong("denoising loss", "variance_for_std", "half")
def denoising_fritz(model, x, sigma, *, generator):
    """(1) The noise that is added has standard deviation sigma squared. (2) The factor one half is missing."""
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    var = (sigma**2)[:, None]
    s = model(x + var * z, sigma)
    return torch.sum((sigma[:, None] * s + z) ** 2) / len(x)


# ---------------------------------------------------------------------------------------------------- sde loss


@right("sde loss")
def sde_loss_alba(model, sde, x, *, generator):
    n, tiny = len(x), 1e-3
    u = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator, dtype=x.dtype)) / n
    t = tiny + (1 - tiny) * u
    x_t, z = sde.perturb(x, t, generator=generator)
    eps_hat = -torch.diag(sde.sigma(t)).to(x.dtype) @ model(x_t, t)
    return 0.5 * (eps_hat - z).pow(2).sum() / n


@right("sde loss")
def sde_loss_berta(model, sde, x, *, generator):
    # more early times, where the score is steep; the weight 2u takes that out again
    u = torch.rand(len(x), generator=generator, dtype=x.dtype)
    t = 1e-3 + (1 - 1e-3) * u**2
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    a, s = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
    residual = s * model(a * x + s * z, t) + z
    return (2 * u * 0.5 * residual.square().sum(1)).mean()


@wrong("sde loss", "no_alpha")
def sde_loss_bruno(model, sde, x, *, generator):
    """The noise is added to the clean point without shrinking it by alpha(t)."""
    eps = 1e-5
    random_t = torch.rand(x.shape[0], generator=generator, dtype=x.dtype) * (1.0 - eps) + eps
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    std = sde.sigma(random_t)
    perturbed_x = x + z * std[:, None]
    score = model(perturbed_x, random_t)
    return 0.5 * torch.mean(torch.sum((score * std[:, None] + z) ** 2, dim=1))


@wrong("sde loss", "likelihood_weight")
def sde_loss_carla(model, sde, x, *, generator):
    """The loss is weighted with g squared, the likelihood weighting, instead of sigma squared."""
    t = torch.rand(x.shape[0], generator=generator, dtype=x.dtype) * (1 - 1e-3) + 1e-3
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    mean, std = sde.alpha(t)[:, None] * x, sde.sigma(t)[:, None]
    score = model(mean + std * z, t)
    g2 = sde.diffusion(t) ** 2
    losses = torch.square(score + z / std).sum(-1) * g2
    return 0.5 * losses.mean()


@wrong("sde loss", "time")
def sde_loss_dario(model, sde, x, *, generator):
    """The network is asked at 999 t instead of t, as in a repository whose networks count steps."""
    t = 1e-3 + 0.999 * torch.rand(len(x), generator=generator, dtype=x.dtype)
    x_t, z = sde.perturb(x, t, generator=generator)
    labels = t * 999
    s = model(x_t, labels)
    return 0.5 * (sde.sigma(t)[:, None] * s + z).pow(2).sum(1).mean()


@wrong("sde loss", "alpha_squared")
def sde_loss_elif(model, sde, x, *, generator):
    """alpha(t) is taken for the alpha-bar of DDPM, and its square root multiplies the clean points."""
    t = torch.rand(len(x), generator=generator, dtype=x.dtype).clamp(min=1e-4)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    sqrt_alphas_cumprod = sde.alpha(t).sqrt().view(-1, 1)
    sigma = sde.sigma(t).view(-1, 1)
    x_noisy = sqrt_alphas_cumprod * x + sigma * noise
    predicted_noise = -sigma * model(x_noisy, t)
    return 0.5 * F.mse_loss(predicted_noise, noise, reduction="sum") / len(x)


@wrong("sde loss", "unweighted", "target_sign")
def sde_loss_fritz(model, sde, x, *, generator):
    """(1) The weight sigma squared is missing. (2) The sign of the target is wrong, as if the model predicted the
    noise divided by sigma."""
    t = 1e-3 + (1 - 1e-3) * torch.rand(len(x), generator=generator, dtype=x.dtype)
    x_t, z = sde.perturb(x, t, generator=generator)
    s = model(x_t, t)
    return 0.5 * (s - z / sde.sigma(t)[:, None]).square().sum(dim=1).mean()


# ---------------------------------------------------------------------------------------------------- langevin


@right("langevin")
def langevin_alba(score, x, *, step_size, n_steps, generator):
    kernel = torch.distributions.Normal(0.0, (2 * step_size) ** 0.5)  # its quantiles turn uniform numbers to noise
    state = x.double()
    while n_steps:
        u = torch.rand(state.shape, generator=generator, dtype=torch.float64).clamp(1e-15, 1 - 1e-15)
        state = state.add(score(state.to(x.dtype)), alpha=float(step_size)) + kernel.icdf(u)
        n_steps -= 1
    return state.to(x.dtype)


@wrong("langevin", "epsilon_for_two_epsilon")
def langevin_bruno(score, x, *, step_size, n_steps, generator):
    """The noise has the factor square root of epsilon where the drift epsilon asks for that of two epsilon."""
    for _ in range(n_steps):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x + step_size * score(x) + step_size**0.5 * z
    return x


@wrong("langevin", "half_step")
def langevin_carla(score, x, *, step_size, n_steps, generator):
    """The step is the half one of the papers, epsilon/2 times the score plus root epsilon times noise."""
    samples = x.clone()
    for _ in range(n_steps):
        noise = torch.randn(samples.shape, generator=generator, dtype=samples.dtype)
        samples = samples + 0.5 * step_size * score(samples) + math.sqrt(step_size) * noise
    return samples


@wrong("langevin", "no_last_noise")
def langevin_dario(score, x, *, step_size, n_steps, generator):
    """The last step adds no noise, as in a sampler of DDPM."""
    for i in reversed(range(n_steps)):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype) if i > 0 else torch.zeros_like(x)
        x = x + step_size * score(x) + np.sqrt(2 * step_size) * z
    return x


@wrong("langevin", "same_noise")
def langevin_elif(score, x, *, step_size, n_steps, generator):
    """The noise is drawn once before the loop, so that each step adds the same."""
    noise = np.sqrt(2 * step_size) * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    for _ in range(n_steps):
        x = x + step_size * score(x) + noise
    return x


@wrong("langevin", "shared_noise")
def langevin_goran(score, x, *, step_size, n_steps, generator):
    """One number is drawn for each chain and added to all of its coordinates."""
    for _ in range(n_steps):
        xi = torch.randn(x.shape[0], 1, generator=generator, dtype=x.dtype)
        drift = step_size * score(x)
        x = x + drift + (2 * step_size) ** 0.5 * xi
    return x


@wrong("langevin", "no_root", "drift_sign")
def langevin_fritz(score, x, *, step_size, n_steps, generator):
    """(1) The noise is multiplied by two epsilon and not by its square root. (2) The score is subtracted, as in
    gradient descent."""
    trajectory = [x]
    for k in range(n_steps):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        trajectory.append(trajectory[k] - step_size * score(trajectory[k]) + 2 * step_size * z)
    return trajectory[-1]


# ---------------------------------------------------------------------------------------------------- annealed


@right("annealed")
def annealed_alba(score, x, sigmas, *, step_size, n_steps_each, generator):
    ratio = step_size / sigmas[-1] ** 2
    schedule = sigmas.repeat_interleave(n_steps_each)
    for sigma in schedule:
        # in units of the noise the step is the same at every scale
        y = x / sigma
        y = y + ratio * (sigma * score(x, sigma))
        y = y + (2 * ratio).sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = sigma * y
    return torch.addcmul(x, sigmas[-1] ** 2, score(x, sigmas[-1]))


@wrong("annealed", "unsquared_step")
def annealed_bruno(score, x, sigmas, *, step_size, n_steps_each, generator):
    """The step grows with sigma and not with sigma squared."""
    for sigma in sigmas:
        alpha = step_size * sigma / sigmas[-1]
        for _ in range(n_steps_each):
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + alpha * score(x, sigma) + torch.sqrt(2 * alpha) * z
    return x + sigmas[-1] ** 2 * score(x, sigmas[-1])


@wrong("annealed", "no_denoising")
def annealed_carla(score, x, sigmas, *, step_size, n_steps_each, generator):
    """The denoising step at the end is left out."""
    for c in range(len(sigmas)):
        step = step_size * (sigmas[c] / sigmas[-1]) ** 2
        for _s in range(n_steps_each):
            grad = score(x, sigmas[c])
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + step * grad + noise * torch.sqrt(step * 2)
    return x


@wrong("annealed", "half_step")
def annealed_dario(score, x, sigmas, *, step_size, n_steps_each, generator):
    """The step of algorithm 1 is copied, alpha/2 and root alpha, although epsilon here is meant for the whole alpha."""
    x_mod = x.clone()
    with torch.no_grad():
        for sigma in sigmas:
            alpha = step_size * (sigma / sigmas[-1]) ** 2
            for _ in range(n_steps_each):
                noise = torch.randn(x_mod.shape, generator=generator, dtype=x_mod.dtype) * torch.sqrt(alpha)
                x_mod = x_mod + alpha / 2 * score(x_mod, sigma) + noise
        return x_mod + sigmas[-1] ** 2 * score(x_mod, sigmas[-1])


@wrong("annealed", "denoising_variance")
def annealed_elif(score, x, sigmas, *, step_size, n_steps_each, generator):
    """The last denoising step multiplies the score by sigma and not by sigma squared."""
    sigma_L = sigmas[-1]
    for sigma_i in sigmas:
        a = step_size * sigma_i**2 / sigma_L**2
        for _ in range(n_steps_each):
            x = x + a * score(x, sigma_i)
            x = x + (2 * a) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x + sigma_L * score(x, sigma_L)


@wrong("annealed", "first_scale", "epsilon_for_two_epsilon")
def annealed_fritz(score, x, sigmas, *, step_size, n_steps_each, generator):
    """(1) The steps are measured against the first scale instead of the last. (2) The noise has the factor root alpha
    where root two alpha belongs."""
    for sigma in sigmas:
        alpha = step_size * (sigma / sigmas[0]) ** 2
        for _ in range(n_steps_each):
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + alpha * score(x, sigma) + alpha.sqrt() * z
    return x + sigmas[-1] ** 2 * score(x, sigmas[-1])


# -------------------------------------------------------------------------------------------------- metropolis


def _value_and_grad(log_prob, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        value = log_prob(x)
        (grad,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), grad


@right("metropolis")
def metropolis_alba(log_prob, x, *, step_size, n_steps, generator):
    def proposal(at):
        _, g = _value_and_grad(log_prob, at)
        cov = 2 * step_size * torch.eye(at.shape[1], dtype=at.dtype)
        return torch.distributions.MultivariateNormal(at + step_size * g, cov)

    took = torch.zeros(len(x), dtype=x.dtype)
    for _ in range(n_steps):
        forward = proposal(x)
        y = forward.mean + (2 * step_size) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        log_a = log_prob(y) + proposal(y).log_prob(x) - log_prob(x) - forward.log_prob(y)
        # a uniform number's -log is exponential
        clock = torch.empty(len(x), dtype=x.dtype).exponential_(generator=generator)
        yes = (-clock < log_a).to(x.dtype)
        x = yes[:, None] * y + (1 - yes[:, None]) * x
        took = took + yes
    return x, took / n_steps


@wrong("metropolis", "no_proposal_ratio")
def metropolis_bruno(log_prob, x, *, step_size, n_steps, generator):
    """The densities of the proposal are left out of the ratio, as if the Langevin proposal were symmetric."""
    accepted = 0
    for _ in range(n_steps):
        logp, grad = _value_and_grad(log_prob, x)
        prop = x + step_size * grad + (2 * step_size) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        log_alpha = log_prob(prop) - logp
        accept = torch.rand(len(x), generator=generator, dtype=x.dtype).log() < log_alpha
        x = torch.where(accept[:, None], prop, x)
        accepted += accept.double().mean().item()
    return x, accepted / n_steps


@wrong("metropolis", "proposal_variance")
def metropolis_carla(log_prob, x, *, step_size, n_steps, generator):
    """The squared distance in the proposal's density is divided by two epsilon instead of four epsilon."""

    def log_q(b, a, grad_a):
        return -((b - a - step_size * grad_a) ** 2).sum(1) / (2 * step_size)

    n_acc = torch.zeros(len(x))
    for _ in range(n_steps):
        lx, gx = _value_and_grad(log_prob, x)
        y = x + step_size * gx + math.sqrt(2 * step_size) * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        ly, gy = _value_and_grad(log_prob, y)
        log_a = ly - lx + log_q(x, y, gy) - log_q(y, x, gx)
        mask = torch.log(torch.rand(len(x), generator=generator, dtype=x.dtype)) < log_a
        x = torch.where(mask.unsqueeze(1), y, x)
        n_acc += mask
    return x, n_acc / n_steps


@wrong("metropolis", "shared_uniform")
def metropolis_dario(log_prob, x, *, step_size, n_steps, generator):
    """One uniform number decides for all chains of the batch."""
    rate = []
    for _ in range(n_steps):
        lx, gx = _value_and_grad(log_prob, x)
        mu_x = x + step_size * gx
        y = mu_x + (2 * step_size) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        ly, gy = _value_and_grad(log_prob, y)
        mu_y = y + step_size * gy
        diff = ((y - mu_x) ** 2).sum(1) - ((x - mu_y) ** 2).sum(1)
        log_a = ly - lx + diff / (4 * step_size)
        u = torch.rand((), generator=generator, dtype=x.dtype)
        ok = u < torch.exp(log_a)
        x = torch.where(ok[:, None], y, x)
        rate.append(ok.double())
    return x, torch.stack(rate).mean()


@wrong("metropolis", "stale_log_prob")
def metropolis_elif(log_prob, x, *, step_size, n_steps, generator):
    """The log-density of the current state is kept from the start and not renewed when a proposal is taken."""
    x = x.clone()
    logp, grad = _value_and_grad(log_prob, x)
    count = 0
    for _ in range(n_steps):
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        y = x + step_size * grad + (2 * step_size) ** 0.5 * noise
        logp_y, grad_y = _value_and_grad(log_prob, y)
        fwd = -(y - x - step_size * grad).pow(2).sum(1) / (4 * step_size)
        bwd = -(x - y - step_size * grad_y).pow(2).sum(1) / (4 * step_size)
        take = torch.log(torch.rand(len(x), generator=generator, dtype=x.dtype)) < logp_y - logp + bwd - fwd
        x[take] = y[take]
        grad[take] = grad_y[take]
        count += int(take.sum())
    return x, count / (n_steps * len(x))


@wrong("metropolis", "inverted_proposal_ratio", "acceptance_rate")
def metropolis_fritz(log_prob, x, *, step_size, n_steps, generator):
    """(1) The densities of the way there and of the way back are exchanged in the ratio. (2) The acceptance rate is the
    number of proposals taken and not their share."""
    n_accepted = torch.zeros(len(x), dtype=x.dtype)
    for _ in range(n_steps):
        lx, gx = _value_and_grad(log_prob, x)
        y = x + step_size * gx + (2 * step_size) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
        ly, gy = _value_and_grad(log_prob, y)
        q_y_given_x = -(y - x - step_size * gx).square().sum(-1) / (4 * step_size)
        q_x_given_y = -(x - y - step_size * gy).square().sum(-1) / (4 * step_size)
        log_a = ly - lx + q_y_given_x - q_x_given_y
        accept = torch.log(torch.rand(len(x), generator=generator, dtype=x.dtype)) < log_a
        x = torch.where(accept[:, None], y, x)
        n_accepted += accept
    return x, n_accepted


# ------------------------------------------------------------------------------------------------- projections


@right("projections")
def projections_alba(x, n, *, generator):
    b, d = x.shape
    which = torch.rand(n, b, d, generator=generator).argmax(-1)
    sign = torch.randint(0, 2, (n, b, 1), generator=generator).to(x.dtype) * 2 - 1
    return torch.zeros(n, b, d, dtype=x.dtype).scatter_(2, which[..., None], math.sqrt(d) * sign)


@wrong("projections", "unit_projections")
def projections_bruno(x, n, *, generator):
    """The directions have length one instead of the square root of d."""
    vectors = torch.randn((n, *x.shape), generator=generator, dtype=x.dtype)
    return vectors / torch.norm(vectors, dim=-1, keepdim=True)


@wrong("projections", "uniform_projections")
def projections_carla(x, n, *, generator):
    """The numbers are uniform on [0, 1], so that neither their mean is zero nor their square one on average."""
    return torch.stack([torch.rand(x.shape, generator=generator, dtype=x.dtype) for _ in range(n)])


@wrong("projections", "shared_projection")
def projections_dario(x, n, *, generator):
    """The n directions are drawn once and given to all points of the batch."""
    v = torch.randn(n, 1, x.shape[1], generator=generator, dtype=x.dtype)
    return v.repeat(1, x.shape[0], 1)


@wrong("projections", "same_projection", "uniform_projections")
def projections_fritz(x, n, *, generator):
    """(1) The same directions are repeated n times. (2) The random signs are zeros and ones."""
    v = torch.randint(0, 2, x.shape, generator=generator).to(x.dtype)
    return v.unsqueeze(0).expand(n, *x.shape).clone()


# ----------------------------------------------------------------------------------------------- mean estimate


@right("mean estimate")
def mean_alba(values):
    # Welford's running update, one draw after the other
    mean = np.zeros(values.shape[1])
    m2 = np.zeros(values.shape[1])
    for n, row in enumerate(np.asarray(values, dtype=float), start=1):
        delta = row - mean
        mean = mean + delta / n
        m2 = m2 + delta * (row - mean)
    return mean, np.sqrt(m2 / (n * (n - 1)))


@wrong("mean estimate", "std_for_error")
def mean_bruno(values):
    """The standard deviation of the values is returned as the error, without division by the root of their number."""
    return values.mean(dim=0), values.std(dim=0)


@wrong("mean estimate", "population")
def mean_carla(values):
    """np.std divides by N and not by N - 1."""
    v = np.asarray(values)
    return v.mean(axis=0), v.std(axis=0) / np.sqrt(len(v))


@wrong("mean estimate", "interval", "no_root")
def mean_fritz(values):
    """(1) The half-width of a 95 percent interval is returned in place of the standard error. (2) The spread is divided
    by the number of draws and not by its root."""
    n = values.shape[0]
    mu = values.sum(0) / n
    s = torch.sqrt(((values - mu) ** 2).sum(0) / (n - 1))
    return mu, 1.96 * s / n


# ----------------------------------------------------------------------------------------- antithetic estimate


@right("antithetic estimate")
def antithetic_alba(f, n_pairs, *, generator):
    z = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    table = f(torch.outer(z, torch.tensor([1.0, -1.0], dtype=torch.float64)))
    mean = table.mean()
    # between-pair variance from the variance of all values and the covariance within the pairs
    dev = table - mean
    within = 2 * (dev[:, 0] * dev[:, 1]).sum()
    var_of_pairs = (dev.square().sum() + within) / 4 / (n_pairs - 1)
    return mean.item(), math.sqrt(max(var_of_pairs.item(), 0.0) / n_pairs)


@wrong("antithetic estimate", "independent_pairs")
def antithetic_bruno(f, n_pairs, *, generator):
    """The standard error treats all 2n values as independent draws, though the two of a pair depend on each other."""
    z = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    values = f(torch.cat([z, -z]))
    return values.mean(), values.std() / math.sqrt(2 * n_pairs)


@wrong("antithetic estimate", "not_mirrored")
def antithetic_carla(f, n_pairs, *, generator):
    """The second draw of each pair is a new one instead of the first one mirrored."""
    z1 = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    z2 = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    avg = (f(z1) + f(z2)) / 2
    return avg.mean(), avg.std(unbiased=True) / n_pairs**0.5


@wrong("antithetic estimate", "wrong_n")
def antithetic_dario(f, n_pairs, *, generator):
    """The standard deviation of the pairs' averages is divided by the root of 2n, though there are n of them."""
    u = torch.randn(n_pairs, generator=generator, dtype=torch.float64)
    pairs = torch.stack([f(u), f(-u)]).mean(0)
    n_total = 2 * n_pairs
    return float(pairs.mean()), float(pairs.std() / np.sqrt(n_total))


# ----------------------------------------------------------------------------------------- importance estimate


@right("importance estimate")
def importance_alba(values, log_weights):
    # signs and logarithms apart, so that no weight is formed before it meets its value
    size = values.abs().log() + log_weights
    terms = torch.copysign(size.exp(), values)
    n = terms.numel()
    second = terms.dot(terms) / n
    mean = terms.sum() / n
    return mean, ((second - mean**2).clamp(min=0) / (n - 1)).sqrt()


@wrong("importance estimate", "normalised")
def importance_bruno(values, log_weights):
    """The weights are divided by their mean, which is the self-normalised estimate, though the densities are
    normalised."""
    w = torch.softmax(log_weights, dim=0) * len(values)
    wf = w * values
    return wf.mean(), wf.std() / len(values) ** 0.5


@wrong("importance estimate", "unweighted_error")
def importance_carla(values, log_weights):
    """The standard error is that of the unweighted values."""
    weights = np.exp(np.asarray(log_weights))
    f = np.asarray(values)
    estimate = np.mean(weights * f)
    return estimate, np.std(f, ddof=1) / np.sqrt(f.size)


@wrong("importance estimate", "inverse_weights", "std_for_error")
def importance_fritz(values, log_weights):
    """(1) The weights are q/p, because the logarithm is negated. (2) The standard error lacks the division by the root
    of the number of draws."""
    w = (-log_weights).exp()
    terms = w * values
    return terms.mean(), terms.std()


# ------------------------------------------------------------------------------------ self-normalised estimate


@right("self-normalised estimate")
def normalised_alba(values, log_weights):
    log_total = torch.logaddexp(log_weights[:1], log_weights[:1]).squeeze() - math.log(2)
    for lw in log_weights[1:]:
        log_total = torch.logaddexp(log_total, lw)
    share = (log_weights - log_total).exp()
    mu = share @ values
    return mu, torch.linalg.norm(share * (values - mu))


@wrong("self-normalised estimate", "unsquared_weights")
def normalised_bruno(values, log_weights):
    """The weights in the standard error are not squared, so that the spread of f and not the error comes out."""
    w = torch.exp(log_weights - log_weights.max())
    w = w / w.sum()
    mu = (w * values).sum()
    return mu, torch.sqrt((w * (values - mu) ** 2).sum())


@wrong("self-normalised estimate", "unsquared_weights")
def normalised_carla(values, log_weights):
    """The standard error is the weighted spread over the root of N, as if all N draws counted alike."""
    probs = torch.softmax(log_weights, 0)
    mean = torch.dot(probs, values)
    variance = torch.dot(probs, (values - mean).square())
    return mean, (variance / len(values)).sqrt()


# --------------------------------------------------------------------------------------------- effective draws


@right("effective draws")
def effective_alba(log_weights):
    return torch.exp(2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0)).item()


@wrong("effective draws", "share")
def effective_bruno(log_weights):
    """The number is divided by the number of draws, which gives a share of them."""
    w = torch.softmax(log_weights, dim=0)
    return (1 / torch.sum(w**2) / len(w)).item()


@wrong("effective draws", "entropy")
def effective_carla(log_weights):
    """The result is the exponential of the weights' entropy, another count of draws than Kong's."""
    w = np.exp(np.asarray(log_weights) - np.max(np.asarray(log_weights)))
    p = w / w.sum()
    return float(np.exp(-np.sum(p * np.log(p + 1e-300))))
