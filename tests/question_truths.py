"""What the question bank computes its numbers from: a few lines over the package, named in ``book/questions``."""

import math

import torch

from scorebook import controllable_generation, lab, langevin, monte_carlo, noise_scales, sde, sliced_score_matching

__all__ = [
    "close",
    "coverage",
    "direction_variance",
    "dsm_floor",
    "dsm_loss_of_zero",
    "fisher",
    "gradient_without_create_graph",
    "guidance_scale_one_is_conditional",
    "ito_means",
    "replaced_mean",
    "rest_variance",
    "reversed_variance",
    "variance_after_a_mistake",
    "variance_with_kicks",
]


def seed(number=0):
    return torch.Generator().manual_seed(number)


def close(a, b):
    return math.isclose(a, b, rel_tol=1e-9)


def fisher(weight, other, m):
    """Fisher divergence of two laws with modes at ±m that have other weights, by quadrature."""
    x = torch.linspace(-m - 12, m + 12, 40_001, dtype=torch.float64)[:, None]
    p, q = (
        lab.GaussianMixture([w, 1 - w], torch.tensor([[-m], [m]], dtype=torch.float64), 1.0) for w in (weight, other)
    )
    terms = (p.score(x) - q.score(x)).square()[:, 0] * p.log_prob(x).exp()
    return float(torch.trapezoid(terms, x[:, 0]))


def coverage(n, runs=20_000):
    """Share of runs in which mean ± 1.96 standard errors of n squares of a normal draw hold their mean, and a bit."""
    estimate = monte_carlo.expectation(torch.square, torch.randn(n, runs, generator=seed()))
    share = ((estimate.mean - 1).abs() < 1.96 * estimate.standard_error).double().mean()
    return float(share) + 4 * (0.25 / runs) ** 0.5


def direction_variance(kind, jacobian, n=200_000):
    """Variance of v^T A v over directions, exactly, by a design of the moments that the package's directions have."""
    A = torch.tensor(jacobian, dtype=torch.float64)
    exact = _by_design(kind, A)
    points = torch.zeros(n, 2, dtype=torch.float64)
    v = sliced_score_matching.random_projections(points, 1, kind=kind, generator=seed())[0]
    squares = (((v @ A) * v).sum(1) - A.trace()).square()
    assert abs(float(squares.mean()) - exact) <= 4 * float(squares.std()) / n**0.5 + 1e-12
    return exact


def _by_design(kind, A):
    if kind == "gaussian":  # products of nodes of Gauss and Hermite, exact for polynomials of degree 4
        nodes, weights = torch.tensor([-(3**0.5), 0.0, 3**0.5], dtype=torch.float64), torch.tensor([1.0, 4.0, 1.0]) / 6
    elif kind == "rademacher":
        nodes, weights = torch.tensor([-1.0, 1.0], dtype=torch.float64), torch.tensor([0.5, 0.5])
    else:  # even angles on the circle of length √2
        angles = torch.arange(16, dtype=torch.float64) * 2 * math.pi / 16
        v = 2**0.5 * torch.stack([angles.cos(), angles.sin()], 1)
        return float(((v @ A) * v).sum(1).var(correction=0))
    v = torch.cartesian_prod(nodes, nodes)
    chance = torch.cartesian_prod(weights, weights).prod(1).double()
    values = ((v @ A) * v).sum(1)
    return float(chance @ values.square() - (chance @ values) ** 2)


def gradient_without_create_graph():
    """Whether the loss keeps its value and its gradient becomes that of the square alone."""
    network = lab.MLP(2, width=8, generator=seed()).double()
    data = torch.randn(16, 2, generator=seed(1), dtype=torch.float64)
    v = sliced_score_matching.random_projections(data, 1, generator=seed(2))[0]
    values, gradients = [], []
    for create_graph in (True, False):
        x = data.clone().requires_grad_()
        s = network(x)
        (row,) = torch.autograd.grad((v * s).sum(), x, create_graph=create_graph, retain_graph=True)
        square = 0.5 * s.square().sum(1).mean()
        loss = (row * v).sum(1).mean() + square
        values.append(loss.item())
        gradients.append(torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, retain_graph=True))
    of_square = torch.autograd.grad(square, list(network.parameters()))
    same = all(torch.allclose(a, b) for a, b in zip(gradients[1], of_square, strict=True))
    full = all(torch.allclose(a, b) for a, b in zip(gradients[0][:-1], of_square, strict=False))
    return close(*values) and same and not full


def rest_variance(step, n_chains=200_000):
    """Variance at which Langevin steps on N(0, 1) rest: the fixed point, to which the package's step goes."""
    v = 2 / (2 - step)
    x = v**0.5 * torch.randn(n_chains, 1, generator=seed(), dtype=torch.float64)
    after = langevin.langevin(lambda x: -x, x, step_size=step, n_steps=1, generator=seed(1)).square()
    assert abs(float(after.mean()) - v) < 4 * float(after.std()) / n_chains**0.5
    return v


def variance_after_a_mistake(variance, start, n=40_000):
    """What the reversed SDE makes of a crowd of that variance at a time, on N(0, 1) under VP: in closed form."""
    process = sde.VPSDE()
    exact = 1 - (1 - variance) * float(process.alpha(start)) ** 2
    times = torch.linspace(start, 1e-3, 401, dtype=torch.float64)
    crowd = variance**0.5 * torch.randn(n, 1, generator=seed(), dtype=torch.float64)
    options = {"times": times, "denoise": False, "generator": seed(1)}
    squares = sde.euler_maruyama(process, lambda x, t: -x, crowd, **options).square()
    assert abs(float(squares.mean()) - exact) < 4 * float(squares.std()) / n**0.5
    return exact


def reversed_variance(pull, kicks, sign=1, n=20_000):
    """Variance in the end over that at the start, of N(0, 1) under VP: multiples of g² and g for score and kicks."""
    process = sde.VPSDE()
    x = torch.randn(n, 1, generator=seed(), dtype=torch.float64)
    ends = sde.simulate(
        lambda x, t: sign * (process.drift(x, t) + pull * process.diffusion(t) ** 2 * x),
        lambda x, t: kicks * process.diffusion(t),
        x,
        process.time_grid(400, dtype=torch.float64),
        generator=seed(1),
    )
    return float(ends.var() / x.var())


def variance_with_kicks(variance_per_time, step=0.01, n_steps=500, n=40_000):
    """Variance at which x - step x + kicks rests, from far out."""
    x = 3 * torch.randn(n, 1, generator=seed(), dtype=torch.float64)
    source = seed(1)
    for _ in range(n_steps):
        kick = torch.randn(x.shape, generator=source, dtype=torch.float64)
        x = x - step * x + (variance_per_time * step) ** 0.5 * kick
    return float(x.var())


def replaced_mean(correlation, known, n=4000):
    """Mean that inpainting by replacement gives the second coordinate: the closed form, which the package's has."""
    exact = known / correlation * (1 - (1 - correlation**2) ** 0.5)
    law = torch.tensor([[[1.0, correlation], [correlation, 1.0]]], dtype=torch.float64)
    pair = lab.GaussianMixture([1.0], torch.zeros(1, 2, dtype=torch.float64), law)
    process = sde.VPSDE()
    clue = torch.tensor([known, 0.0], dtype=torch.float64)
    overwrite = controllable_generation.replace_known(process, clue, torch.tensor([True, False]), generator=seed())
    start = process.sample_prior((n, 2), generator=seed(1), dtype=torch.float64)
    options = {"n_steps": 500, "constraint": overwrite, "generator": seed(2)}
    ends = sde.euler_maruyama(process, process.exact_score(pair), start, **options)[:, 1]
    assert abs(float(ends.mean()) - exact) < 4 * float(ends.std()) / n**0.5 + 0.01  # and what 500 steps leave
    return exact


def _dsm(model, s, sigma, d, n_groups=100):
    source = seed()
    batches = [s * torch.randn(2000, d, generator=source, dtype=torch.float64) for _ in range(n_groups)]
    losses = [noise_scales.denoising_score_matching_loss(model, x, sigma, generator=source) for x in batches]
    losses = torch.stack(losses)
    return float(losses.mean()), 4 * float(losses.std()) / n_groups**0.5


def dsm_floor(s, sigma, d):
    """Denoising loss of the exact score of N(0, s² I) in d dimensions, in closed form."""
    exact = d / 2 * s**2 / (s**2 + sigma**2)
    found, four = _dsm(lambda x, sigma: -x / (s**2 + sigma**2), s, sigma, d)
    assert abs(found - exact) < four
    return exact


def dsm_loss_of_zero(s, sigma, d):
    """Denoising loss of a model that returns zero."""
    found, four = _dsm(lambda x, sigma: torch.zeros_like(x), s, sigma, d)
    assert abs(found - d / 2) < four
    return d / 2


def ito_means(end, n=200, n_paths=20_000):
    """Whether the mean of ∫ 2w dw is 0 and that of w² the time, within four standard errors each."""
    dw = (end / n) ** 0.5 * torch.randn(n, n_paths, generator=seed(), dtype=torch.float64)
    w = dw.cumsum(0)
    integral = (2 * (w - dw) * dw).sum(0)
    pairs = [(integral, 0.0), (w[-1] ** 2, end)]
    return all(abs(float(x.mean()) - mean) < 4 * float(x.std()) / n_paths**0.5 for x, mean in pairs)


def guidance_scale_one_is_conditional():
    """Whether the package's scale 1 is the conditional score, and its scale 3 what the right option says."""
    conditional, unconditional = (lambda x, t: -x), (lambda x, t: -x / 4)
    x, t = torch.randn(5, 2, generator=seed(), dtype=torch.float64), torch.tensor(0.5)
    one, three = (controllable_generation.classifier_free(conditional, unconditional, w)(x, t) for w in (1.0, 3.0))
    expected = unconditional(x, t) + 3 * (conditional(x, t) - unconditional(x, t))
    return torch.allclose(one, conditional(x, t)) and torch.allclose(three, expected)


# What an expression in the bank may name.
NAMES = {name: globals()[name] for name in __all__} | {"math": math, "torch": torch, "sde": sde}
