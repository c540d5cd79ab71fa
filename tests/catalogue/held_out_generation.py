"""Answers on which no check was tuned, to what generates: whole samplers, likelihoods, class guidance, DDPM and DDIM.

They were written before the checks, from their contracts alone.
"""

import itertools
import math

import numpy as np
import torch
from torch.nn.functional import one_hot
from torchdiffeq import odeint

from catalogue import Catalogue
from scorebook import lab, probability_flow
from scorebook import sde as continuous

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


# Whole samplers.


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


# Likelihoods under the flow.


def _state(sde, score, x, n_steps, *, graph=False):
    """The end of the path and the integral of the divergence, by Heun's method and rows of the Jacobian."""

    def rates(t, x):
        with torch.enable_grad():
            x = x if graph and x.requires_grad else x.detach().requires_grad_()
            v = sde.drift(x, t) - 0.5 * sde.diffusion(t) ** 2 * score(x, t)
            rows = [
                torch.autograd.grad(v[:, i].sum(), x, create_graph=graph, retain_graph=True)[0][:, i]
                for i in range(x.shape[1])
            ]
        total = torch.stack(rows).sum(0)
        return (v, total) if graph else (v.detach(), total.detach())

    times, integral = 1e-3 ** torch.linspace(1, 0, n_steps + 1, dtype=x.dtype), 0.0
    for t, s in itertools.pairwise(times):
        v, r = rates(t, x)
        w, q = rates(s, x + (s - t) * v)
        x, integral = x + (s - t) * (v + w) / 2, integral + (s - t) * (r + q) / 2
    return x, integral


@right("log prob under VE")
def heun_and_rows(sde, score, x):
    end, integral = _state(sde, score, x, 200)
    return sde.prior_log_prob(end) + integral


@right("log prob under VE")
def normal_of_torch(sde, score, x):
    end, integral = _state(sde, score, x, 200)
    return torch.distributions.Normal(0.0, sde.prior_std).log_prob(end).sum(1) + integral


@wrong("log prob under VE", "prior_std")
def standard_normal_prior(sde, score, x):
    end, integral = _state(sde, score, x, 200)
    return -0.5 * end.square().sum(1) - x.shape[1] / 2 * math.log(2 * math.pi) + integral


@wrong("log prob under VE", "prior_std|no_constant")
def log_std_once(sde, score, x):
    end, integral = _state(sde, score, x, 200)
    s = sde.prior_std
    return -0.5 * (end / s).square().sum(1) - math.log(s) - x.shape[1] / 2 * math.log(2 * math.pi) + integral


@wrong("log prob under VE", "prior_std", "divergence_sign")
def standard_prior_and_minus(sde, score, x):
    end, integral = _state(sde, score, x, 200)
    return -0.5 * end.square().sum(1) - x.shape[1] / 2 * math.log(2 * math.pi) - integral


@right("differentiable log prob")
def with_its_graph(sde, score, x):
    end, integral = _state(sde, score, x.requires_grad_(), 60, graph=True)
    return sde.prior_log_prob(end) + integral


@right("differentiable log prob")
def the_books_own(sde, score, x):
    return probability_flow.log_prob(sde, score, x, rtol=1e-3, atol=1e-3, differentiable=True)


@wrong("differentiable log prob", "detached")
def divergence_without_graph(sde, score, x):
    _, integral = _state(sde, score, x, 60)
    end, _ = _state(sde, score, x.requires_grad_(), 60, graph=True)
    return sde.prior_log_prob(end) + integral


@wrong("differentiable log prob", "detached")
def no_graph_at_all(sde, score, x):
    end, integral = _state(sde, score, x, 100)
    return sde.prior_log_prob(end) + integral


def _by_probes(sde, score, x, draw, n, combine):
    probes = [draw(x) for _ in range(n)]
    velocity = probability_flow.velocity(sde, score)

    def joint(t, state):
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            v = velocity(t, y)
            parts = [(torch.autograd.grad(v, y, p, retain_graph=True)[0] * p).sum(1) for p in probes]
        return v.detach(), combine(torch.stack(parts))

    times = torch.tensor([1e-3, 1.0], dtype=x.dtype)
    end, total = odeint(joint, (x, x.new_zeros(len(x))), times, rtol=1e-4, atol=1e-4)
    return sde.prior_log_prob(end[-1]) + total[-1]


@right("log prob")
def five_probes_averaged(sde, score, x):
    return _by_probes(sde, score, x, torch.randn_like, 5, lambda parts: parts.mean(0))


@wrong("log prob", "projections_added")
def five_probes_added(sde, score, x):
    return _by_probes(sde, score, x, torch.randn_like, 5, lambda parts: parts.sum(0))


@wrong("log prob", "coarse")
def twenty_steps_of_euler(sde, score, x):
    h, total = 0.999 / 20, 0.0
    for k in range(20):
        t = torch.tensor(1e-3 + k * h, dtype=x.dtype)
        y = x.detach().requires_grad_()
        v = sde.drift(y, t) - 0.5 * sde.diffusion(t) ** 2 * score(y, t)
        for i in range(x.shape[1]):
            total = total + h * torch.autograd.grad(v[:, i].sum(), y, retain_graph=True)[0][:, i]
        x = (y + h * v).detach()
    return sde.prior_log_prob(x) + total


@wrong("log prob", "drift_divergence")
def divergence_of_the_score_alone(sde, score, x):
    def rates(t, state):
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            half = -0.5 * sde.diffusion(t) ** 2 * score(y, t)
            r = sum(torch.autograd.grad(half[:, i].sum(), y, retain_graph=True)[0][:, i] for i in range(y.shape[1]))
        return (sde.drift(y, t) + half).detach(), r

    times = torch.tensor([1e-3, 1.0], dtype=x.dtype)
    end, total = odeint(rates, (x, x.new_zeros(len(x))), times, rtol=1e-4, atol=1e-4)
    return sde.prior_log_prob(end[-1]) + total[-1]


@wrong("bits", "nats")
def nats_per_dimension(sde, score, x, bin_width):
    return -heun_and_rows(sde, score, x) / x.shape[1] - math.log(bin_width)


@wrong("bits", "dequantization")
def eight_bits(sde, score, x, bin_width):
    return 8 - heun_and_rows(sde, score, x) / (x.shape[1] * math.log(2))


# Guidance by classes.


@right("label dropping")
def by_where(labels, p_drop, null, *, generator):
    return torch.where(torch.rand(len(labels), generator=generator) < p_drop, null, labels)


@right("label dropping")
def by_bernoulli(labels, p_drop, null, *, generator):
    drop = torch.bernoulli(torch.full(labels.shape, float(p_drop)), generator=generator).bool()
    return labels.masked_fill(drop, null)


@right("label dropping")
def keeping_the_others(labels, p_drop, null):
    kept = torch.rand(labels.shape) >= p_drop
    return kept * labels + ~kept * null


@wrong("label dropping", "whole_batch")
def a_coin_for_the_batch(labels, p_drop, null, *, generator):
    return torch.full_like(labels, null) if torch.rand((), generator=generator) < p_drop else labels.clone()


@wrong("label dropping", "label_zero")
def dropped_to_zero(labels, p_drop, null, *, generator):
    return labels * (torch.rand(labels.shape, generator=generator) >= p_drop)


@wrong("label dropping", "mask")
def keeps_what_should_go(labels, p_drop, null, *, generator):
    return torch.where(torch.rand(len(labels), generator=generator) < p_drop, labels, null)


@wrong("label dropping", "mutation")
def in_place(labels, p_drop, null, *, generator):
    labels[torch.rand(len(labels), generator=generator) < p_drop] = null
    return labels


@wrong("label dropping", "fixed_rows|fixed_share")
def the_first_rows(labels, p_drop, null, *, generator):
    labels = labels.clone()
    labels[: round(p_drop * len(labels))] = null
    return labels


@wrong("label dropping", "mask", "label_zero")
def mask_and_zero(labels, p_drop, null, *, generator):
    return labels * (torch.rand(labels.shape, generator=generator) < p_drop)


@right("classifier-free")
def formula_of_the_book(model, labels, null, scale):
    def score(x, t):
        without = model(x, t, torch.full_like(labels, null))
        return without + scale * (model(x, t, labels) - without)

    return score


@right("classifier-free")
def in_one_batch(model, labels, null, scale):
    def score(x, t):
        t = torch.as_tensor(t, dtype=x.dtype).expand(len(x))
        both = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, torch.full_like(labels, null)]))
        conditional, unconditional = both.chunk(2)
        return scale * conditional + (1 - scale) * unconditional

    return score


@wrong("classifier-free", "one_plus_scale")
def as_ho_and_salimans_write(model, labels, null, scale):
    def score(x, t):
        return (1 + scale) * model(x, t, labels) - scale * model(x, t, torch.full_like(labels, null))

    return score


@wrong("classifier-free", "label_zero")
def class_zero_for_no_class(model, labels, null, scale):
    def score(x, t):
        without = model(x, t, torch.zeros_like(labels))
        return without + scale * (model(x, t, labels) - without)

    return score


@wrong("classifier-free", "unconditional_sign")
def plus_for_minus(model, labels, null, scale):
    def score(x, t):
        return scale * model(x, t, labels) + (scale - 1) * model(x, t, torch.full_like(labels, null))

    return score


@wrong("classifier-free", "swapped")
def the_two_exchanged(model, labels, null, scale):
    def score(x, t):
        with_label, without = model(x, t, labels), model(x, t, torch.full_like(labels, null))
        return with_label + scale * (without - with_label)

    return score


@wrong("classifier-free", "detached")
def under_no_grad(model, labels, null, scale):
    @torch.no_grad()
    def score(x, t):
        without = model(x, t, torch.full_like(labels, null))
        return without + scale * (model(x, t, labels) - without)

    return score


@wrong("classifier-free", "no_base")
def the_difference_alone(model, labels, null, scale):
    return lambda x, t: scale * (model(x, t, labels) - model(x, t, torch.full_like(labels, null)))


@wrong("classifier-free", "one_plus_scale", "label_zero")
def theirs_with_zero(model, labels, null, scale):
    return lambda x, t: (1 + scale) * model(x, t, labels) - scale * model(x, t, 0 * labels)


@right("classifier guidance")
def by_cross_entropy(sde, model, classifier, labels, scale):
    def score(x, t):
        with torch.enable_grad():
            y = x if x.requires_grad else x.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(classifier(y, t), labels, reduction="sum")
            (g,) = torch.autograd.grad(loss, y, create_graph=True)
        return model(x, t) - scale * g

    return score


@right("classifier guidance of noise")
def noise_less_sigma_times_gradient(sde, model, classifier, labels, scale):
    def noise(x, t):
        with torch.enable_grad():
            y = x if x.requires_grad else x.detach().requires_grad_()
            picked = classifier(y, t).log_softmax(-1).gather(1, labels[:, None]).sum()
            (g,) = torch.autograd.grad(picked, y, create_graph=True)
        return model(x, t) - scale * sde.sigma(torch.as_tensor(t)).reshape(-1, 1) * g

    return noise


def _gradient(value, x):
    with torch.enable_grad():
        y = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(value(y), y, create_graph=True)[0]


@wrong("classifier guidance", "mean_batch")
def cross_entropy_as_it_comes(sde, model, classifier, labels, scale):
    def score(x, t):
        g = _gradient(lambda y: torch.nn.functional.cross_entropy(classifier(y, t), labels), x)
        return model(x, t) - scale * g

    return score


@wrong("classifier guidance", "guidance_sign")
def gradient_of_the_loss(sde, model, classifier, labels, scale):
    def score(x, t):
        g = _gradient(lambda y: torch.nn.functional.cross_entropy(classifier(y, t), labels, reduction="sum"), x)
        return model(x, t) + scale * g

    return score


@wrong("classifier guidance", "logits")
def raw_logits(sde, model, classifier, labels, scale):
    def score(x, t):
        return model(x, t) + scale * _gradient(lambda y: (one_hot(labels, 3) * classifier(y, t)).sum(), x)

    return score


@wrong("classifier guidance", "no_log|probability")
def probability_for_its_logarithm(sde, model, classifier, labels, scale):
    def score(x, t):
        g = _gradient(lambda y: classifier(y, t).softmax(1)[torch.arange(len(y)), labels].sum(), x)
        return model(x, t) + scale * g

    return score


@wrong("classifier guidance", "clean_time|wrong_time")
def classifier_at_time_zero(sde, model, classifier, labels, scale):
    def score(x, t):
        g = _gradient(
            lambda y: (
                classifier(y, torch.zeros_like(torch.as_tensor(t))).log_softmax(1)[torch.arange(len(y)), labels].sum()
            ),
            x,
        )
        return model(x, t) + scale * g

    return score


@wrong("classifier guidance", "detached")
def score_without_graph(sde, model, classifier, labels, scale):
    def score(x, t):
        g = _gradient(lambda y: classifier(y, t).log_softmax(1)[torch.arange(len(y)), labels].sum(), x)
        return (model(x, t) + scale * g).detach()

    return score


@wrong("classifier guidance of noise", "score_for_noise")
def noise_guided_like_a_score(sde, model, classifier, labels, scale):
    def noise(x, t):
        g = _gradient(lambda y: classifier(y, t).log_softmax(1)[torch.arange(len(y)), labels].sum(), x)
        return model(x, t) + scale * g

    return noise


@wrong("classifier guidance of noise", "variance_for_std")
def sigma_squared(sde, model, classifier, labels, scale):
    def noise(x, t):
        g = _gradient(lambda y: classifier(y, t).log_softmax(1)[torch.arange(len(y)), labels].sum(), x)
        return model(x, t) - scale * sde.sigma(torch.as_tensor(t)).reshape(-1, 1) ** 2 * g

    return noise


@wrong("classifier guidance of noise", "no_sigma", "mean_batch")
def no_sigma_and_a_mean(sde, model, classifier, labels, scale):
    def noise(x, t):
        return model(x, t) + scale * _gradient(lambda y: torch.nn.functional.cross_entropy(classifier(y, t), labels), x)

    return noise


# Parametrisations, DDPM and DDIM.


@right("noise to score")
def minus_over_std(x, prediction, alpha_bar):
    return -prediction / torch.sqrt(1 - alpha_bar)


@right("v to clean")
def by_the_lab(x, prediction, alpha_bar):
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return a * x - s * prediction


@right("clean to v")
def through_the_noise(x, prediction, alpha_bar):
    a, s = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    noise = (x - a * prediction) / s
    return a * noise - s * prediction


@right("score to clean")
def by_tweedie(x, prediction, alpha_bar):
    return (x + (1 - alpha_bar) * prediction) / alpha_bar.sqrt()


@right("noise to clean")
def one_point_after_the_other(x, prediction, alpha_bar):
    rows = [(p - (1 - a) ** 0.5 * e) / a**0.5 for p, e, a in zip(x, prediction, alpha_bar, strict=True)]
    return torch.stack(rows)


@wrong("noise to score", "no_sigma")
def the_noise_with_a_minus(x, prediction, alpha_bar):
    return -prediction


@wrong("noise to score", "sign")
def over_std(x, prediction, alpha_bar):
    return prediction / (1 - alpha_bar).sqrt()


@wrong("noise to score", "no_root")
def over_variance(x, prediction, alpha_bar):
    return -prediction / (1 - alpha_bar)


@wrong("noise to clean", "no_root")
def without_roots(x, prediction, alpha_bar):
    return (x - (1 - alpha_bar) * prediction) / alpha_bar


@wrong("noise to clean", "no_alpha")
def not_divided(x, prediction, alpha_bar):
    return x - (1 - alpha_bar).sqrt() * prediction


@wrong("v to clean", "v_sign")
def v_with_a_plus(x, prediction, alpha_bar):
    return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * prediction


@wrong("clean to v", "v_sign")
def v_turned(x, prediction, alpha_bar):
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return s * prediction - a * (x - a * prediction) / s


@wrong("v to noise", "swapped")
def cosine_for_sine(x, prediction, alpha_bar):
    return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * prediction


@wrong("score to clean", "no_root", "no_alpha")
def std_and_no_alpha(x, prediction, alpha_bar):
    return x + (1 - alpha_bar).sqrt() * prediction


@right("ddpm step")
def posterior_of_ho(model, x, i, betas, *, generator):
    alphas = 1 - betas
    bar = torch.cumprod(alphas, 0)
    before = torch.cat([torch.ones(1, dtype=betas.dtype), bar[:-1]])
    clean = ((x - (1 - bar[i]).sqrt() * model(x, i)) / bar[i].sqrt()).clamp(-1, 1)
    mean = before[i].sqrt() * betas[i] / (1 - bar[i]) * clean + alphas[i].sqrt() * (1 - before[i]) / (1 - bar[i]) * x
    if i == 0:
        return mean
    variance = betas[i] * (1 - before[i]) / (1 - bar[i])
    return mean + variance.sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@right("ddpm step")
def through_noise_and_std(model, x, i, betas, *, generator):
    """The clean point, noised again by what the two levels leave: DDIM with eta 1."""
    bars = [1.0]
    for b in betas.tolist():
        bars.append(bars[-1] * (1 - b))
    now, before = bars[i + 1], bars[i]
    clean = torch.clip((x - math.sqrt(1 - now) * model(x, i)) / math.sqrt(now), -1.0, 1.0)
    noise = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)
    std = math.sqrt((1 - before) / (1 - now) * (1 - now / before))
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return math.sqrt(before) * clean + math.sqrt(max(1 - before - std**2, 0.0)) * noise + std * z * (i > 0)


def _levels(betas, i):
    bar = torch.cumprod(1 - betas, 0)
    return bar[i], bar[i - 1] if i > 0 else torch.ones((), dtype=betas.dtype), betas[i]


def _ddpm(x, clean, now, before, beta):
    return before.sqrt() * beta / (1 - now) * clean + (1 - beta).sqrt() * (1 - before) / (1 - now) * x


@wrong("ddpm step", "no_clipping")
def in_the_form_of_the_noise(model, x, i, betas, *, generator):
    now, before, beta = _levels(betas, i)
    mean = (x - beta / (1 - now).sqrt() * model(x, i)) / (1 - beta).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return mean if i == 0 else mean + (beta * (1 - before) / (1 - now)).sqrt() * z


@wrong("ddpm step", "beta_for_posterior")
def beta_for_the_variance(model, x, i, betas, *, generator):
    now, before, beta = _levels(betas, i)
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return _ddpm(x, clean, now, before, beta) + (i > 0) * beta.sqrt() * z


@wrong("ddpm step", "noisy_end")
def noise_at_the_end_too(model, x, i, betas, *, generator):
    now, before, beta = _levels(betas, i)
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return _ddpm(x, clean, now, before, beta) + (beta * (1 - before) / (1 - now)).clamp(min=1e-2).sqrt() * z


@wrong("ddpm step", "no_root")
def variance_for_std(model, x, i, betas, *, generator):
    now, before, beta = _levels(betas, i)
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return _ddpm(x, clean, now, before, beta) + beta * (1 - before) / (1 - now) * z


@wrong("ddpm step", "off_by_one")
def the_level_after(model, x, i, betas, *, generator):
    bar = torch.cat([torch.ones(1, dtype=betas.dtype), torch.cumprod(1 - betas, 0)])
    now, before, beta = bar[i], bar[max(i - 1, 0)], betas[max(i - 1, 0)]
    if i == 0:
        return x
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return _ddpm(x, clean, now, before, beta) + (beta * (1 - before) / (1 - now)).sqrt() * z


@wrong("ddpm step", "beta_for_alpha_bar|alpha_for_alpha_bar")
def alpha_without_the_product(model, x, i, betas, *, generator):
    now, before, beta = 1 - betas[i], (1 - betas[i - 1] if i else torch.ones((), dtype=betas.dtype)), betas[i]
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return _ddpm(x, clean, now, before, beta) + (i > 0) * (beta * (1 - before) / (1 - now)).sqrt() * z


@wrong("ddpm step", "no_clipping", "beta_for_posterior")
def improved_ddpm_without_its_clip(model, x, i, betas, *, generator):
    now, _, beta = _levels(betas, i)
    mean = (x - beta / (1 - now).sqrt() * model(x, i)) / (1 - beta).sqrt()
    return mean + (i > 0) * beta.sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@right("ddim step")
def as_song_writes_it(model, x, i, j, alpha_bars, *, eta, generator):
    now, then = alpha_bars[i], alpha_bars[j] if j >= 0 else torch.ones((), dtype=x.dtype)
    noise = model(x, i)
    clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
    std = eta * ((1 - then) / (1 - now)).sqrt() * (1 - now / then).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then.sqrt() * clean + (1 - then - std**2).clamp(min=0).sqrt() * noise + std * z


@right("ddim step")
def with_the_labs_conversions(model, x, i, j, alpha_bars, *, eta, generator):
    bars = [*alpha_bars.tolist(), 1.0]  # level -1 is the last entry
    a, b, noise = bars[i], bars[j], model(x, i)
    levels = {"alpha": torch.tensor(a).sqrt().to(x), "sigma": torch.tensor(1 - a).sqrt().to(x)}
    clean = lab.convert_prediction(noise, x, **levels, source="noise", target="clean")
    if eta == 0:
        return b**0.5 * clean + (1 - b) ** 0.5 * noise
    variance = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
    kept = math.sqrt(max(1 - b - variance, 0))
    return b**0.5 * clean + kept * noise + variance**0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def _clean_of(model, x, i, j, bars):
    now, then = bars[i], bars[j] if j >= 0 else torch.ones((), dtype=x.dtype)
    noise = model(x, i)
    return now, then, noise, (x - (1 - now).sqrt() * noise) / now.sqrt()


@wrong("ddim step", "fresh_noise")
def noised_anew(model, x, i, j, alpha_bars, *, eta, generator):
    _, then, _, clean = _clean_of(model, x, i, j, alpha_bars)
    return then.sqrt() * clean + (1 - then).sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@wrong("ddim step", "eta_ignored")
def always_deterministic(model, x, i, j, alpha_bars, *, eta, generator):
    _, then, noise, clean = _clean_of(model, x, i, j, alpha_bars)
    return then.sqrt() * clean + (1 - then).sqrt() * noise


@wrong("ddim step", "variance_not_taken")
def noise_on_top(model, x, i, j, alpha_bars, *, eta, generator):
    now, then, noise, clean = _clean_of(model, x, i, j, alpha_bars)
    std = eta * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then.sqrt() * clean + (1 - then).sqrt() * noise + std * z


@wrong("ddim step", "no_root")
def roots_left_out(model, x, i, j, alpha_bars, *, eta, generator):
    now, then, noise, _ = _clean_of(model, x, i, j, alpha_bars)
    clean = (x - (1 - now) * noise) / now
    std = eta * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then * clean + (1 - then - std**2).clamp(min=0).sqrt() * noise + std * z


@wrong("ddim step", "same_level|off_by_one")
def back_to_where_it_was(model, x, i, j, alpha_bars, *, eta, generator):
    now, then, noise, clean = _clean_of(model, x, i, j, alpha_bars)
    std = eta * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return now.sqrt() * clean + (1 - now - std**2).clamp(min=0).sqrt() * noise + std * z


@wrong("ddim step", "last_level")
def the_last_entry_for_the_clean_level(model, x, i, j, alpha_bars, *, eta, generator):
    now, then, noise = alpha_bars[i], alpha_bars[j], model(x, i)
    clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
    std = eta * (((1 - then) / (1 - now)) * (1 - now / then)).clamp(min=0).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then.sqrt() * clean + (1 - then - std**2).clamp(min=0).sqrt() * noise + std * z


@wrong("ddim step", "eta_squared", "variance_not_taken")
def eta_under_the_root(model, x, i, j, alpha_bars, *, eta, generator):
    now, then, noise, clean = _clean_of(model, x, i, j, alpha_bars)
    std = (eta * (1 - then) / (1 - now) * (1 - now / then)).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then.sqrt() * clean + (1 - then).sqrt() * noise + std * z
