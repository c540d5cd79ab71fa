"""Velocities and likelihoods of the flow: right ones pass, the usual mistakes are named."""

import math
from itertools import pairwise

import graded
import pytest
import torch
from torchdiffeq import odeint

from scorebook import coursework, probability_flow
from scorebook.sde import VESDE, VPSDE

DOUBLE = torch.float64


def flow(combine=lambda f, g, s: f - 0.5 * g**2 * s, asked=lambda process, t: t):
    def velocity(process, score):
        def field(t, x):
            return combine(process.drift(x, t), process.diffusion(t), score(x, asked(process, t)))

        return field

    return velocity


def single_flow(process, score):
    field = flow()(process, score)
    return lambda t, x: field(t.float(), x.float())


@pytest.mark.parametrize(
    "right", [flow(), probability_flow.velocity, single_flow], ids=["by hand", "the book's", "single precision"]
)
def test_a_right_velocity_passes(right):
    graded.passes(lambda seed: coursework.check_probability_flow(right, seed=seed))


def swapped(process, score):
    return lambda x, t: flow()(process, score)(t, x)


def own_drift(process, score):
    return lambda t, x: -0.5 * process.diffusion(t) ** 2 * (x + score(x, t))


def of_the_batch(process, score):
    return lambda t, x: flow()(process, score)(t, x - x.mean(0))


WRONG_FLOWS = {
    "½": (flow(lambda f, g, s: f - g**2 * s), "half"),
    "½ g": (flow(lambda f, g, s: f - 0.5 * g * s), "diffusion_for_squared"),
    "g": (flow(lambda f, g, s: f - g * s), "diffusion_for_squared"),
    "½ s": (flow(lambda f, g, s: f - 0.5 * s), "no_squared_diffusion"),
    "+": (flow(lambda f, g, s: f + 0.5 * g**2 * s), "score_sign"),
    "backwards": (flow(lambda f, g, s: 0.5 * g**2 * s - f), "time_direction"),
    "no drift": (flow(lambda f, g, s: -0.5 * g**2 * s), "no_drift"),
    "drift's sign": (flow(lambda f, g, s: -f - 0.5 * g**2 * s), "drift_sign"),
    "½ drift": (flow(lambda f, g, s: 0.5 * f - 0.5 * g**2 * s), "half_drift"),
    "2 drift": (flow(lambda f, g, s: 2 * f - 0.5 * g**2 * s), "double_drift"),
    "drift of VP": (own_drift, "own_drift"),
    "σ for t": (flow(asked=lambda process, t: process.sigma(t).clamp(max=1)), "noise_scale"),
    "no score": (flow(lambda f, g, s: f), "no_score"),
    "¼": (flow(lambda f, g, s: f - (0.5 * g) ** 2 * s), "quarter"),
    "(x, t)": (swapped, "argument_order"),
    "batch": (of_the_batch, "coupled"),
    "no callable": (lambda process, score: 0.0, "type"),
}


@pytest.mark.parametrize("name", WRONG_FLOWS)
def test_a_wrong_velocity_is_named(name):
    f, *mistakes = WRONG_FLOWS[name]
    graded.is_named(lambda seed: coursework.check_probability_flow(f, seed=seed), *mistakes)


def traced(field, x, probe=None):
    """Value and divergence of a field: exact, or along one probe."""
    x = x.clone().requires_grad_()
    out = field(x)
    if probe is not None:
        return out.detach(), (torch.autograd.grad((out * probe).sum(), x)[0] * probe).sum(1)
    parts = [torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1])]
    return out.detach(), torch.stack(parts).sum(0)


def likelihood(velocity=None, *, trace=1.0, prior=None, of_trace=traced, ends=lambda start, end: end, n_steps=8):
    """Student's likelihood by Runge and Kutta's rule on a grid that is fine where the noise is small."""
    velocity = velocity or flow()

    def f(process, score, x, generator=None):
        field = velocity(process, score)
        times = process.time_grid(n_steps, spacing="karras", dtype=DOUBLE).flip(0)
        start, total = x, torch.zeros(len(x), dtype=DOUBLE)
        for t, t_next in pairwise(times):
            h, middle = t_next - t, (t + t_next) / 2
            k1, d1 = of_trace(lambda x, t=t: field(t, x), x)
            k2, d2 = of_trace(lambda x, t=middle: field(t, x), x + h / 2 * k1)
            k3, d3 = of_trace(lambda x, t=middle: field(t, x), x + h / 2 * k2)
            k4, d4 = of_trace(lambda x, t=t_next: field(t, x), x + h * k3)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            total = total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        end = ends(start, x)
        return (process.prior_log_prob(end) if prior is None else prior(end)) + trace * total

    return f


def all_entries(field, x):
    x = x.clone().requires_grad_()
    out = field(x)
    return out.detach(), torch.autograd.grad(out.sum(), x)[0].sum(1)


def with_graph(field, x):
    x = x if x.requires_grad else x.clone().requires_grad_()
    out = field(x)
    parts = [torch.autograd.grad(out[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
    return out, torch.stack(parts).sum(0)


def unit_probe(process, score, x, generator):
    v = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    v = v / v.norm(dim=1, keepdim=True)
    return likelihood(of_trace=lambda field, x: traced(field, x, v))(process, score, x)


def estimated(process, score, x, generator):
    return probability_flow.log_prob(
        process, score, x, divergence="hutchinson", generator=generator, method="rk4", n_steps=30
    )


def bits(f=None, offset=None, scale=None):
    offset = offset or (lambda width: math.log2(width))
    scale = scale or (lambda d: -1 / (d * math.log(2)))

    def g(process, score, x, width):
        return scale(x.shape[1]) * (f or likelihood())(process, score, x) - offset(width)

    return g


RIGHT_LIKELIHOODS = {
    "by hand": (likelihood(), {}),
    "the book's": (lambda process, score, x: probability_flow.log_prob(process, score, x, rtol=1e-4, atol=1e-4), {}),
    "estimated": (estimated, {}),
    "bits": (bits(), {"bin_width": 0.1}),
    "under VE": (likelihood(n_steps=16), {"sde": VESDE(0.1, 10.0)}),
    "under VP": (likelihood(), {"sde": VPSDE(0.2, 6.0)}),
    "with its gradient": (likelihood(of_trace=with_graph), {"differentiable": True}),
}


@pytest.mark.parametrize("name", RIGHT_LIKELIHOODS)
def test_a_right_likelihood_passes(name):
    f, options = RIGHT_LIKELIHOODS[name]
    graded.passes(lambda seed: coursework.check_log_prob(f, seed=seed, **options))


WIDTH = {"bin_width": 0.1}
WRONG_LIKELIHOODS = {
    "no prior": (likelihood(prior=lambda x: 0.0), {}, "no_prior"),
    "no divergence": (likelihood(trace=0.0), {}, "no_divergence"),
    "divergence's sign": (likelihood(trace=-1.0), {}, "divergence_sign"),
    "½ divergence": (likelihood(trace=0.5), {}, "half_divergence"),
    "½": (likelihood(flow(lambda f, g, s: f - g**2 * s), n_steps=24), {}, "half"),
    "score's sign": (likelihood(flow(lambda f, g, s: f + 0.5 * g**2 * s)), {}, "score_sign"),
    "no constant": (likelihood(prior=lambda x: -0.5 * x.square().sum(1)), {}, "no_constant"),
    "constant once": (
        likelihood(prior=lambda x: -0.5 * x.square().sum(1) - 0.5 * math.log(2 * math.pi)),
        {},
        "no_constant",
    ),
    "prior at the start": (likelihood(ends=lambda start, end: start), {}, "prior_at_start"),
    "no drift": (likelihood(flow(lambda f, g, s: -0.5 * g**2 * s)), {}, "no_drift"),
    "g": (likelihood(flow(lambda f, g, s: f - 0.5 * g * s)), {}, "diffusion_for_squared"),
    "all entries": (likelihood(of_trace=all_entries), {}, "all_entries"),
    "unit projections": (unit_probe, {}, "unit_projections"),
    "negative": (lambda *problem: -likelihood()(*problem), {}, "negative"),
    "in bits": (lambda *problem: likelihood()(*problem) / math.log(2), {}, "bits"),
    "divergence in bits": (likelihood(trace=1 / math.log(2)), {}, "bits"),
    "prior in bits": (
        likelihood(prior=lambda x: -0.5 * (x.square().sum(1) + x.shape[1] * math.log(2 * math.pi)) / math.log(2)),
        {},
        "bits",
    ),
    "per dimension": (lambda *problem: likelihood()(*problem) / 3, {}, "per_dimension"),
    "mean": (lambda *problem: likelihood()(*problem).mean(), {}, "shape"),
    "no bin width": (bits(offset=lambda width: 0.0), WIDTH, "bin_width"),
    "no bin width of an eighth": (bits(offset=lambda width: 0.0), {"bin_width": 0.125}, "bin_width"),
    "no bin width of eight": (bits(offset=lambda width: 0.0), {"bin_width": 8.0}, "bin_width"),
    "bin width's sign": (bits(offset=lambda width: -math.log2(width)), WIDTH, "bin_width"),
    "bin width once": (bits(offset=lambda width: math.log2(width) / 3), WIDTH, "bin_width"),
    "bin width for its logarithm": (bits(offset=lambda width: width), WIDTH, "bin_width"),
    "bin width in nats": (bits(offset=math.log), WIDTH, "nats"),
    "density in nats": (bits(scale=lambda d: -1 / d), WIDTH, "nats"),
    "8 bits": (bits(offset=lambda width: -8), WIDTH, "dequantization"),
    "7 bits": (bits(offset=lambda width: -7), WIDTH, "dequantization"),
    "not per dimension": (bits(scale=lambda d: -1 / math.log(2), offset=lambda w: 3 * math.log2(w)), WIDTH, "total"),
    "nats": (bits(scale=lambda d: -1 / d, offset=math.log), WIDTH, "nats"),
    "positive": (bits(scale=lambda d: 1 / (d * math.log(2)), offset=lambda w: -math.log2(w)), WIDTH, "negative"),
    "drift of VP": (likelihood(own_drift), {}, "own_drift"),
    "prior of unit size": (
        likelihood(prior=lambda x: -0.5 * (x.square().sum(1) + x.shape[1] * math.log(2 * math.pi)), n_steps=16),
        {"sde": VESDE(0.1, 10.0)},
        "prior_std",
    ),
    "log of the prior's size once": (
        likelihood(
            prior=lambda x: -0.5 * ((x / 10).square().sum(1) + x.shape[1] * math.log(2 * math.pi)) - math.log(10.0),
            n_steps=16,
        ),
        {"sde": VESDE(0.1, 10.0)},
        "prior_std",
    ),
    "no gradient": (likelihood(), {"differentiable": True}, "detached"),
    "gradient of the path alone": (
        likelihood(of_trace=lambda field, x: (field(x), traced(field, x)[1])),
        {"differentiable": True},
        "detached",
    ),
    "bits, divergence's sign": (bits(likelihood(trace=-1.0)), WIDTH, "divergence_sign"),
}


@pytest.mark.parametrize("name", WRONG_LIKELIHOODS)
def test_a_wrong_likelihood_is_named(name):
    f, options, mistake = WRONG_LIKELIHOODS[name]
    graded.is_named(lambda seed: coursework.check_log_prob(f, seed=seed, **options), mistake)


def fresh_probes(method, tolerance=1e-3, n_steps=None):
    """Student's likelihood by a black-box solver, with a new probe in each call."""

    def f(process, score, x, generator):
        field = probability_flow.velocity(process, score)

        def joint(t, state):
            probe = torch.randn(x.shape, generator=generator, dtype=x.dtype).sign()
            return traced(lambda x: field(t, x), state[0], probe)

        times = torch.linspace(1e-3, 1.0, n_steps or 2, dtype=DOUBLE)
        options = None if n_steps else {"step_t": times[-1:], "first_step": 1e-3}
        state = (x, torch.zeros(len(x), dtype=DOUBLE))
        end, total = odeint(joint, state, times, rtol=tolerance, atol=tolerance, method=method, options=options)
        return process.prior_log_prob(end[-1]) + total[-1]

    return f


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
def test_a_new_probe_at_every_call_of_an_adaptive_solver_is_named(tolerance):
    graded.is_named(lambda seed: coursework.check_log_prob(fresh_probes("dopri5", tolerance), seed=seed), "fresh_probe")


def test_new_probes_are_seen_where_two_of_them_agree_by_chance():
    assert coursework.check_log_prob(fresh_probes("dopri5"), seed=104).mistake == "fresh_probe"


def test_a_new_probe_at_every_step_of_a_fixed_solver_passes():
    graded.passes(lambda seed: coursework.check_log_prob(fresh_probes("midpoint", n_steps=60), seed=seed))


def test_a_solver_that_dies_of_its_steps_is_told_to_keep_its_probe():
    def f(process, score, x, generator):
        raise AssertionError("underflow in dt 0.0")

    report = coursework.check_log_prob(f)
    assert report.mistake == "fresh_probe"
    assert "draw a probe once and keep it" in report.diagnosis


CATALOGUES = {
    "flow": (lambda seed: coursework.check_probability_flow(flow(), seed=seed), WRONG_FLOWS),
    "log prob": (lambda seed: coursework.check_log_prob(likelihood(), seed=seed), WRONG_LIKELIHOODS),
    "bits": (lambda seed: coursework.check_log_prob(bits(), seed=seed, **WIDTH), WRONG_LIKELIHOODS),
}


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_mistake_in_the_catalogue_has_an_author(monkeypatch, name):
    check, wrong = CATALOGUES[name]
    known = graded.catalogued(monkeypatch, check)
    authors = {mistake for answer in wrong.values() for mistake in answer if isinstance(mistake, str)}
    assert known <= authors | graded.authored(name, "log prob")
