"""Scores, divergences and losses: right ones pass, and each usual mistake is found and called by its name."""

import math

import graded
import pytest
import torch

from scorebook import coursework, lab, noise_scales, score_matching, sde, sliced_score_matching

MIXTURE = lab.GaussianMixture(
    [0.3, 0.7],
    torch.tensor([[-1.0, 0.0], [1.0, 1.0]], dtype=torch.float64),
    torch.tensor([[[1.0, 0.3], [0.3, 0.5]], [[0.4, 0.0], [0.0, 0.8]]], dtype=torch.float64),
)
NORMAL = lab.GaussianMixture([1.0], torch.zeros(1, 3), torch.tensor([2.0]))


def gradient_of(function):
    """Student's score by autograd of a scalar."""

    def score(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(function(x), x)[0]

    return score


def components(weigh, pull):
    """Student's score of the mixture from its components."""

    def score(x):
        gaps = MIXTURE.means - x[:, None]
        precision = torch.linalg.inv(MIXTURE.covariances)
        logs = -0.5 * torch.einsum("bki,kij,bkj->bk", gaps, precision, gaps) + 0.5 * torch.logdet(precision)
        return (weigh(logs).unsqueeze(2) * pull(gaps, precision)).sum(1)

    return score


def pulled(gaps, precision):
    return torch.einsum("kij,bkj->bki", precision, gaps)


def posterior(logs):
    return (logs + MIXTURE.weights.log()).softmax(1)


def normalised_by_batch(x):
    return MIXTURE.score((x - x.mean(0)) / x.std(0))


RIGHT_SCORES = {
    "closed form": (MIXTURE.score, MIXTURE),
    "by components": (components(posterior, pulled), MIXTURE),
    "by autograd": (gradient_of(lambda x: MIXTURE.log_prob(x).sum()), MIXTURE),
    "single precision inside": (lambda x: MIXTURE.to(torch.float32).score(x.float()), MIXTURE),
    "single precision": (lambda x: -x / 2, NORMAL),
}


@pytest.mark.parametrize("name", RIGHT_SCORES)
def test_a_right_score_passes(name):
    score, law = RIGHT_SCORES[name]
    graded.passes(lambda seed: coursework.check_score(score, law, seed=seed))


WRONG_SCORES = {
    "sign": (lambda x: -MIXTURE.score(x), "sign"),
    "mean": (gradient_of(lambda x: MIXTURE.log_prob(x).mean()), "mean"),
    "half": (lambda x: 0.5 * MIXTURE.score(x), "half"),
    "twice": (lambda x: 2 * MIXTURE.score(x), "twice"),
    "density": (gradient_of(lambda x: MIXTURE.log_prob(x).exp().sum()), "density"),
    "no covariance": (components(posterior, lambda gaps, precision: gaps), "precision"),
    "covariance": (components(posterior, lambda gaps, precision: pulled(gaps, MIXTURE.covariances)), "covariance"),
    "no weights": (components(lambda logs: logs.softmax(1), pulled), "weights"),
    "prior weights": (components(lambda logs: MIXTURE.weights.expand_as(logs), pulled), "prior_weights"),
    "sum of logs": (components(torch.ones_like, pulled), "sum_of_logs"),
    "hard": (components(lambda logs: (posterior(logs) > 0.5).double(), pulled), "hard"),
    "batch normalisation": (normalised_by_batch, "coupled"),
    "one number": (lambda x: MIXTURE.log_prob(x).sum(), "shape"),
    "density's values": (MIXTURE.log_prob, "shape"),
}


@pytest.mark.parametrize("name", WRONG_SCORES)
def test_a_wrong_score_is_named(name):
    score, mistake = WRONG_SCORES[name]
    graded.is_named(lambda seed: coursework.check_score(score, MIXTURE, seed=seed), mistake)


def test_a_standard_deviation_in_place_of_a_variance_is_named():
    graded.is_named(lambda seed: coursework.check_score(lambda x: -x / 2**0.5, NORMAL, seed=seed), "std_for_variance")


def test_an_approximate_score_passes_with_a_tolerance_only():
    def nearly(x):
        return MIXTURE.score(x) * 1.01

    assert not coursework.check_score(nearly, MIXTURE)
    assert coursework.check_score(nearly, MIXTURE, tolerance=0.1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"distribution": object()}, "sample"), ({"distribution": MIXTURE, "tolerance": 0}, "tolerance")],
)
def test_a_check_refuses_what_it_cannot_hold_against(arguments, named):
    with pytest.raises(ValueError, match=named):
        coursework.check_score(MIXTURE.score, **arguments)


def jacobians(field, x):
    """The Jacobian of each row, ``(B, d, d)``, one output at a time."""
    x = x.clone().requires_grad_()
    out = field(x)
    rows = [torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0] for i in range(x.shape[1])]
    return torch.stack(rows, 1)


def trace(jacobian):
    return jacobian.diagonal(dim1=1, dim2=2).sum(1)


def all_entries(field, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(field(x).sum(), x)[0].sum(1)


RIGHT_DIVERGENCES = {
    "the book's": score_matching.divergence,
    "by rows": lambda field, x: trace(jacobians(field, x)),
    "single precision": lambda field, x: trace(jacobians(lambda x: field(x).float(), x.float())),
    "by jacrev": lambda field, x: trace(torch.func.vmap(torch.func.jacrev(lambda v: field(v[None])[0]))(x)),
}


@pytest.mark.parametrize("name", RIGHT_DIVERGENCES)
def test_a_right_divergence_passes(name):
    graded.passes(lambda seed: coursework.check_divergence(RIGHT_DIVERGENCES[name], seed=seed))


def test_a_divergence_of_images_is_checked():
    graded.passes(lambda seed: coursework.check_divergence(score_matching.divergence, event_shape=(1, 2, 2), seed=seed))


WRONG_DIVERGENCES = {
    "sign": (lambda field, x: -trace(jacobians(field, x)), "sign"),
    "all entries": (all_entries, "all_entries"),
    "mean over dimensions": (lambda field, x: trace(jacobians(field, x)) / x.shape[1], "unit_projections"),
    "absolute": (lambda field, x: trace(jacobians(field, x)).abs(), "absolute"),
    "half": (lambda field, x: trace(jacobians(field, x)) / 2, "half"),
    "twice": (lambda field, x: 2 * trace(jacobians(field, x)), "twice"),
    "squared norm": (lambda field, x: jacobians(field, x).square().sum((1, 2)), "frobenius_squared"),
    "first": (lambda field, x: jacobians(field, x)[:, 0, 0], "first"),
    "last": (lambda field, x: jacobians(field, x)[:, -1, -1], "last"),
    "norm": (lambda field, x: jacobians(field, x).square().sum((1, 2)).sqrt(), "frobenius"),
    "no derivative": (lambda field, x: field(x).sum(1).detach(), "no_derivative"),
    "determinant": (lambda field, x: torch.linalg.det(jacobians(field, x)), "determinant"),
    "column": (lambda field, x: trace(jacobians(field, x)).unsqueeze(1), "shape"),
    "table": (lambda field, x: trace(jacobians(field, x)).unsqueeze(1) * torch.ones(len(x)), "shape"),
    "batch mean": (lambda field, x: trace(jacobians(field, x)).mean().expand(len(x)), "coupled"),
}


@pytest.mark.parametrize("name", WRONG_DIVERGENCES)
def test_a_wrong_divergence_is_named(name):
    f, mistake = WRONG_DIVERGENCES[name]
    graded.is_named(lambda seed: coursework.check_divergence(f, seed=seed), mistake)


def slices(draw, factor=1.0, n=1):
    """Student's estimate of the divergence along random directions."""

    def f(field, x, *, generator):
        x = x.clone().requires_grad_()
        out = field(x)
        total = 0
        for _ in range(n):
            v = draw(x, generator)
            total = total + (torch.autograd.grad((v * out).sum(), x, retain_graph=True)[0] * v).sum(1)
        return factor * total / n

    return f


def normal(x, generator):
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


def uniform(x, generator):
    return torch.rand(x.shape, generator=generator, dtype=x.dtype)


def signs(x, generator):
    return torch.where(uniform(x, generator) < 0.5, -1.0, 1.0).to(x.dtype)


def unit(x, generator):
    v = normal(x, generator)
    return v / v.norm(dim=1, keepdim=True)


ESTIMATES = {
    "normal": slices(normal),
    "signs": slices(signs),
    "sphere": slices(lambda x, g: unit(x, g) * math.sqrt(x.shape[1])),
    "two projections": slices(normal, n=2),
}


@pytest.mark.parametrize("name", ESTIMATES)
def test_a_right_estimate_of_the_divergence_passes(name):
    graded.passes(lambda seed: coursework.check_divergence(ESTIMATES[name], exact=False, seed=seed))


WRONG_ESTIMATES = {
    "unit": (slices(unit), "unit_projections"),
    "rand": (slices(uniform), "uniform_projections"),
    "rand on [-1, 1]": (slices(lambda x, g: 2 * uniform(x, g) - 1), "uniform_symmetric"),
    "sign": (slices(normal, -1.0), "sign"),
    "half": (slices(signs, 0.5), "half"),
    "one probe for all": (slices(lambda x, g: torch.ones_like(x)), "all_entries", "same_probe"),
}


@pytest.mark.parametrize("name", WRONG_ESTIMATES)
def test_a_wrong_estimate_of_the_divergence_is_named(name):
    f, *mistakes = WRONG_ESTIMATES[name]
    graded.is_named(lambda seed: coursework.check_divergence(f, exact=False, seed=seed), *mistakes)


def of_length_one(form):
    """Student's estimate of the trace whose projections are of length 1, or which is a mean over dimensions."""

    def estimate(field, x, *, generator):
        d = x.shape[1]
        jacobian = torch.func.vmap(torch.func.jacrev(lambda row: field(row[None])[0]))(x)
        if form == "mean of the trace":
            return jacobian.diagonal(dim1=1, dim2=2).mean(1)
        if form == "one coordinate":
            v = torch.nn.functional.one_hot(torch.randint(d, (len(x),), generator=generator), d).to(x)
        else:
            v = {"sphere": unit, "mean of normal ones": normal, "mean of signs": signs}[form](x, generator)
            v = v if form == "sphere" else v / math.sqrt(d)
        return torch.einsum("bi,bij,bj->b", v, jacobian, v)

    return estimate


@pytest.mark.parametrize("dims", [3, 5])
@pytest.mark.parametrize(
    "form", ["mean of the trace", "one coordinate", "sphere", "mean of normal ones", "mean of signs"]
)
def test_a_trace_divided_by_its_three_dimensions_is_not_taken_for_uniform_projections(form, dims):
    estimate = of_length_one(form)
    graded.is_named(
        lambda seed: coursework.check_divergence(estimate, exact=False, event_shape=(dims,), seed=seed),
        "unit_projections",
    )


def test_projections_uniform_around_zero_are_told_from_short_ones_in_three_dimensions():
    f, name = WRONG_ESTIMATES["rand on [-1, 1]"]
    graded.is_named(lambda seed: coursework.check_divergence(f, exact=False, event_shape=(3,), seed=seed), name)


def explicit(factor=0.5, reduce=lambda squares: squares.sum(1).mean(), sign=-1):
    return lambda model, x, score: factor * reduce((model(x) + sign * score(x)).square())


def traced(model, x, create_graph=True):
    x = x.clone().requires_grad_()
    s = model(x)
    total = 0
    for i in range(x.shape[1]):
        total = total + torch.autograd.grad(s[:, i].sum(), x, create_graph=create_graph, retain_graph=True)[0][:, i]
    return s, total


def implicit(trace=1.0, square=0.5, *, create_graph=True, of_trace=lambda t: t, of_square=lambda s: s.square().sum(1)):
    def loss(model, x):
        s, total = traced(model, x, create_graph)
        return (trace * of_trace(total) + square * of_square(s)).mean()

    return loss


def sliced(draw, trace=1.0, square=0.5, *, reduced=False, create_graph=True):
    def loss(model, x, *, generator):
        x = x.clone().requires_grad_()
        v = draw(x, generator)
        s = model(x)
        along = (s * v).sum(1)
        (back,) = torch.autograd.grad(along.sum(), x, create_graph=create_graph, retain_graph=True)
        second = s.square().sum(1) if reduced else along.square()
        return (trace * (back * v).sum(1) + square * second).mean()

    return loss


def denoising(residual=None, weight=lambda c: c**2, *, noise=normal, scale=lambda c: c, factor=0.5, reduce=None):
    residual = residual or (lambda s, z, c: s + z / c)
    reduce = reduce or (lambda squares: squares.sum(1).mean())

    def loss(model, x, sigma, *, generator):
        c = sigma.unsqueeze(1)
        z = noise(x, generator)
        s = model(x + scale(c) * z, sigma)
        return factor * reduce(weight(c) * residual(s, z, c).square())

    return loss


def over_time(
    residual=None, weight=lambda c, g: c**2, *, noise=normal, scale=lambda c: c, alpha=lambda a: a, times=None
):
    residual = residual or (lambda s, z, c: s + z / c)

    def loss(model, process, x, *, generator):
        t = 1e-3 + (1 - 1e-3) * torch.rand(len(x), generator=generator, dtype=x.dtype)
        t = t if times is None else times(t)
        a, c, g = (f(t).unsqueeze(1) for f in (process.alpha, process.sigma, process.diffusion))
        z = noise(x, generator)
        s = model(alpha(a) * x + scale(c) * z, t)
        return 0.5 * (weight(c, g) * residual(s, z, c).square()).sum(1).mean()

    return loss


def single(loss):
    """The same loss computed in single precision."""

    def f(model, x, *rest, **options):
        def low(x, *level):
            return model(x, *level).float()

        rest = [part.float() if isinstance(part, torch.Tensor) else part for part in rest]
        return loss(low, x.float(), *rest, **options)

    return f


RIGHT_LOSSES = {
    "implicit, single precision": ("implicit", single(implicit())),
    "denoising, single precision": ("denoising", single(denoising())),
    "explicit, the book's": ("explicit", score_matching.explicit_score_matching_loss),
    "explicit": ("explicit", explicit()),
    "implicit, the book's": ("implicit", score_matching.implicit_score_matching_loss),
    "implicit": ("implicit", implicit()),
    "sliced, the book's": ("sliced", sliced_score_matching.sliced_score_matching_loss),
    "sliced": ("sliced", sliced(normal)),
    "sliced, variance-reduced": ("sliced", sliced(signs, reduced=True)),
    "denoising, the book's": ("denoising", noise_scales.denoising_score_matching_loss),
    "denoising": ("denoising", denoising()),
    "denoising, multiplied out": ("denoising", denoising(lambda s, z, c: c * s + z, lambda c: 1.0)),
    "denoising, global seed": (
        "denoising",
        lambda model, x, sigma: denoising()(model, x, sigma, generator=None),
    ),
    "sde, the book's": ("sde", sde.score_matching_loss),
    "sde, low discrepancy": (
        "sde",
        lambda model, process, x, generator: sde.score_matching_loss(
            model, process, x, sample_times=sde.time_sampler(process, t_min=1e-2), generator=generator
        ),
    ),
    "sde": ("sde", over_time()),
}


@pytest.mark.parametrize("name", RIGHT_LOSSES)
def test_a_right_loss_passes(name):
    kind, loss = RIGHT_LOSSES[name]
    graded.passes(lambda seed: coursework.check_loss(loss, kind, seed=seed))


def clean(model, x, sigma, *, generator):
    c = sigma.unsqueeze(1)
    return 0.5 * (c * model(x, sigma) + normal(x, generator)).square().sum(1).mean()


def crossed(model, x, sigma, *, generator):
    c = sigma.unsqueeze(1)
    z = normal(x, generator)
    return 0.5 * torch.cdist(c * model(x + c * z, sigma), -z).square().mean()


def crossed_over_time(model, process, x, *, generator):
    t = 1e-3 + (1 - 1e-3) * torch.rand(len(x), generator=generator, dtype=x.dtype)
    a, c = process.alpha(t).unsqueeze(1), process.sigma(t).unsqueeze(1)
    z = normal(x, generator)
    return 0.5 * torch.cdist(c * model(a * x + c * z, t), -z).square().mean()


def shared(x, generator):
    return torch.randn(x.shape[1:], generator=generator, dtype=x.dtype).expand_as(x)


def one_number(x, generator):
    return torch.randn((len(x), 1), generator=generator, dtype=x.dtype).expand_as(x)


WRONG_LOSSES = {
    "explicit, ½": ("explicit", explicit(1.0), "half"),
    "explicit, mean over dimensions": ("explicit", explicit(0.5, torch.mean), "mean_dims"),
    "explicit, mse": ("explicit", explicit(1.0, torch.mean), "mse"),
    "explicit, sum": ("explicit", explicit(0.5, torch.sum), "sum_batch"),
    "explicit, plus": ("explicit", explicit(sign=1), "sign"),
    "explicit, norm": ("explicit", explicit(1.0, lambda s: s.sum(1).sqrt().mean()), "norm"),
    "explicit, ¼": ("explicit", explicit(0.25), "quarter"),
    "explicit, absolute": ("explicit", explicit(1.0, lambda s: s.sqrt().sum(1).mean()), "absolute"),
    "implicit, ½": ("implicit", implicit(square=1.0), "half"),
    "implicit, sign of the trace": ("implicit", implicit(trace=-1.0), "trace_sign"),
    "implicit, no trace": ("implicit", implicit(trace=0.0), "no_trace"),
    "implicit, no square": ("implicit", implicit(square=0.0), "no_square"),
    "implicit, bars": ("implicit", implicit(of_trace=torch.abs), "absolute"),
    "implicit, no graph": ("implicit", implicit(create_graph=False), "detached"),
    "implicit, norm": ("implicit", implicit(of_square=lambda s: s.norm(dim=1)), "norm"),
    "implicit, mean of squares": ("implicit", implicit(of_square=lambda s: s.square().mean(1)), "mean_square"),
    "implicit, twice": ("implicit", implicit(2.0, 1.0), "half"),
    "implicit, negative": ("implicit", implicit(-1.0, -0.5), "sign"),
    "implicit, halved": ("implicit", implicit(0.5, 0.25), "quarter"),
    "implicit, ½ trace": ("implicit", implicit(0.5), "half_trace"),
    "implicit, mean trace": ("implicit", implicit(0.2), "unit_projections"),
    "implicit, mean over dimensions": ("implicit", implicit(0.2, 0.1), "mean_dims"),
    "implicit, sum": ("implicit", lambda model, x: len(x) * implicit()(model, x), "sum_batch"),
    "implicit, all entries": (
        "implicit",
        lambda model, x: (all_entries_with_graph(model, x) + 0.5 * model(x).square().sum(1)).mean(),
        "all_entries",
    ),
    "implicit, a number": ("implicit", lambda model, x: implicit()(model, x).item(), "type"),
    "implicit, detached": ("implicit", lambda model, x: implicit()(model, x).detach(), "no_gradient"),
    "implicit, one per point": ("implicit", lambda model, x: traced(model, x)[1], "shape"),
    "sliced, ½": ("sliced", sliced(signs, square=1.0), "half"),
    "sliced, sign of the trace": ("sliced", sliced(normal, trace=-1.0), "trace_sign"),
    "sliced, no square": ("sliced", sliced(normal, square=0.0), "no_square"),
    "sliced, unit projections": ("sliced", sliced(unit), "unit_projections"),
    "sliced, unit projections, reduced": ("sliced", sliced(unit, reduced=True), "unit_projections"),
    "sliced, rand": ("sliced", sliced(uniform), "uniform_projections"),
    "sliced, no graph": ("sliced", sliced(signs, reduced=True, create_graph=False), "detached"),
    "denoising, ½": ("denoising", denoising(factor=1.0), "half"),
    "denoising, mean over dimensions": ("denoising", denoising(reduce=torch.mean), "mean_dims"),
    "denoising, mse": ("denoising", denoising(factor=1.0, reduce=torch.mean), "mse"),
    "denoising, sum": ("denoising", denoising(reduce=torch.sum), "sum_batch"),
    "denoising, negative": ("denoising", denoising(factor=-0.5), "sign"),
    "denoising, ¼": ("denoising", denoising(factor=0.25), "quarter"),
    "denoising, norm": ("denoising", denoising(factor=1.0, reduce=lambda s: s.sum(1).sqrt().mean()), "norm"),
    "denoising, −σz": ("denoising", denoising(lambda s, z, c: s + c * z), "target_difference"),
    "denoising, sign of the target": ("denoising", denoising(lambda s, z, c: s - z / c), "target_sign"),
    "denoising, no weight": ("denoising", denoising(weight=lambda c: 1.0), "unweighted"),
    "denoising, weight σ": ("denoising", denoising(weight=lambda c: c), "weight"),
    "denoising, target without 1/σ": ("denoising", denoising(lambda s, z, c: s + z), "target_scale"),
    "denoising, target with 1/σ²": ("denoising", denoising(lambda s, z, c: s + z / c**2), "target_variance"),
    "denoising, σ²z": ("denoising", denoising(scale=lambda c: c**2), "variance_for_std"),
    "denoising, √σz": ("denoising", denoising(scale=torch.sqrt), "root_of_std"),
    "denoising, rand": ("denoising", denoising(noise=uniform), "uniform_noise"),
    "denoising, one noise for all": ("denoising", denoising(noise=shared), "shared_noise"),
    "denoising, one noise for a point": ("denoising", denoising(noise=one_number), "shared_noise"),
    "denoising, clean input": ("denoising", clean, "clean_input"),
    "denoising, all pairs": ("denoising", crossed, "crossed"),
    "sde, all pairs": ("sde", crossed_over_time, "crossed"),
    "sde, sign of the target": ("sde", over_time(lambda s, z, c: s - z / c), "target_sign"),
    "sde, no weight": ("sde", over_time(weight=lambda c, g: 1.0), "unweighted"),
    "sde, weight g²": ("sde", over_time(weight=lambda c, g: g**2), "likelihood_weight"),
    "sde, σ²z": ("sde", over_time(scale=lambda c: c**2), "variance_for_std"),
    "sde, x₀ for α x₀": ("sde", over_time(alpha=torch.ones_like), "no_alpha"),
    "sde, rand": ("sde", over_time(noise=uniform), "uniform_noise"),
    "sde, times on [0, ½]": ("sde", over_time(times=lambda t: t / 2), "wrong_times"),
    "sde, no times near 0": ("sde", over_time(times=lambda t: 0.1 + 0.9 * t), "wrong_times"),
}


def all_entries_with_graph(model, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).sum(), x, create_graph=True)[0].sum(1)


@pytest.mark.parametrize("name", WRONG_LOSSES)
def test_a_wrong_loss_is_named(name):
    kind, loss, mistake = WRONG_LOSSES[name]
    graded.is_named(lambda seed: coursework.check_loss(loss, kind, seed=seed), mistake)


def test_an_unknown_kind_of_loss_is_an_error():
    with pytest.raises(ValueError, match="kind must be one of 'explicit', 'implicit'"):
        coursework.check_loss(explicit(), "implicit_score")


def authored(wrong):
    return {mistake for _, *mistakes in wrong.values() for mistake in mistakes}


def test_every_mistake_in_the_catalogue_has_an_author(monkeypatch):
    known = graded.catalogued(monkeypatch, lambda seed: coursework.check_score(lambda x: x, MIXTURE, seed=seed))
    kinds = "mixture score", "gaussian score", "score by autograd"
    assert known <= authored(WRONG_SCORES) | {"std_for_variance"} | graded.authored(*kinds)
    known = graded.catalogued(
        monkeypatch, lambda seed: coursework.check_divergence(lambda field, x: x.sum(1), seed=seed)
    )
    assert known <= authored(WRONG_DIVERGENCES) | authored(WRONG_ESTIMATES) | graded.authored("divergence", "estimate")


@pytest.mark.parametrize("kind", ["explicit", "implicit", "sliced", "denoising", "sde"])
def test_every_mistake_in_the_catalogue_of_a_loss_has_an_author(monkeypatch, kind):
    loss = next(loss for of, loss in RIGHT_LOSSES.values() if of == kind)
    known = graded.catalogued(monkeypatch, lambda seed: coursework.check_loss(loss, kind, seed=seed))
    # Some kinds share entries with another, whose authors answer for them.
    alike = {"sliced": "implicit", "sde": "denoising"}.get(kind)
    authors = {mistake for of, _, mistake in WRONG_LOSSES.values() if of in (kind, alike)}
    assert known - {"mse"} <= authors | graded.authored(f"{kind} loss", f"{alike} loss")
    assert "mse" in {mistake for _, _, mistake in WRONG_LOSSES.values()}
