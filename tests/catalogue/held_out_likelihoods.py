"""Answers on likelihoods under the probability flow, of the first pile, written before the check."""

import itertools
import math

import torch
from torchdiffeq import odeint

from catalogue import Catalogue
from scorebook import probability_flow

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


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
