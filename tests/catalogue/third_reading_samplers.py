"""A third pile of homework: samplers, flows, likelihoods, classes, DDPM and posteriors.

Written blind, by an author who knew the contracts of the checks and not how they work, and read once before anything
was mended on it.
"""

import functools
import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import integrate
from torchdiffeq import odeint

from catalogue import Catalogue
from scorebook import controllable_generation, probability_flow
from scorebook import sde as continuous
from scorebook.controllable_generation import LinearObservation

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


# SDEs.


@right("sde")
class LogMeanCoefficient:
    """Everything from the log of the mean's factor, its slope by torch.func."""

    beta_0, beta_1 = 0.1, 20.0

    def log_mean_coeff(self, t):
        return -0.25 * t**2 * (self.beta_1 - self.beta_0) - 0.5 * t * self.beta_0

    def slope(self, t):
        return torch.func.vmap(torch.func.grad(self.log_mean_coeff))(t)

    def alpha(self, t):
        return self.log_mean_coeff(t).exp()

    def sigma(self, t):
        return torch.sqrt(-torch.expm1(2 * self.log_mean_coeff(t)))

    def drift(self, x, t):
        return torch.einsum("b,bd->bd", self.slope(t), x)

    def diffusion(self, t):
        return (-2 * self.slope(t)).sqrt()


@right("sde")
class SongsVPSDE:
    """As in the repository of Song, with its names, and adapters below."""

    def __init__(self, beta_min=0.1, beta_max=20, N=1000):
        self.beta_0 = beta_min
        self.beta_1 = beta_max
        self.N = N

    def sde(self, x, t):
        beta_t = self.beta_0 + t * (self.beta_1 - self.beta_0)
        drift = -0.5 * beta_t[:, None] * x
        diffusion = torch.sqrt(beta_t)
        return drift, diffusion

    def marginal_prob(self, x, t):
        log_mean_coeff = -0.25 * t**2 * (self.beta_1 - self.beta_0) - 0.5 * t * self.beta_0
        mean = torch.exp(log_mean_coeff[:, None]) * x
        std = torch.sqrt(1.0 - torch.exp(2.0 * log_mean_coeff))
        return mean, std

    def alpha(self, t):
        return self.marginal_prob(torch.ones(len(t), 1, dtype=t.dtype), t)[0].squeeze(1)

    def sigma(self, t):
        return self.marginal_prob(torch.ones(len(t), 1, dtype=t.dtype), t)[1]

    def drift(self, x, t):
        return self.sde(x, t)[0]

    def diffusion(self, t):
        return self.sde(torch.zeros(len(t), 1, dtype=t.dtype), t)[1]

    def perturb(self, x0, t, *, generator=None):
        z = torch.randn(*x0.shape, generator=generator, dtype=x0.dtype)
        mean, std = self.marginal_prob(x0, t)
        return mean + std[:, None] * z, z


class _VP:
    def beta(self, t):
        return 0.1 + 19.9 * t

    def integral(self, t):
        return 0.1 * t + 9.95 * t.pow(2)

    def alpha(self, t):
        return torch.exp(-self.integral(t) / 2)

    def sigma(self, t):
        return torch.sqrt(1 - self.alpha(t) ** 2)

    def drift(self, x, t):
        return -self.beta(t).view(-1, 1) * x / 2

    def diffusion(self, t):
        return self.beta(t) ** 0.5


@wrong("sde", "shared_noise")
class OneNoiseForAPoint(_VP):
    def perturb(self, x0, t, *, generator=None):
        z = torch.randn(x0.shape[0], 1, generator=generator, dtype=x0.dtype)
        x_t = self.alpha(t)[:, None] * x0 + self.sigma(t)[:, None] * z
        return x_t, z.expand_as(x0)


@wrong("sde", "variance_for_std")
class VarianceForSigma(_VP):
    def sigma(self, t):
        return 1 - self.alpha(t).square()


@wrong("sde", "integral")
class IntegralWithoutHalf(_VP):
    def integral(self, t):
        return t * self.beta(t)


@wrong("sde", "diffusion_for_sigma")
class PerturbsByDiffusion(_VP):
    def perturb(self, x0, t, *, generator=None):
        noise = torch.normal(0.0, 1.0, x0.shape, generator=generator, dtype=x0.dtype)
        return self.alpha(t).unsqueeze(-1) * x0 + self.diffusion(t).unsqueeze(-1) * noise, noise


@wrong(
    "sde",
    "squared_diffusion",
    "half",
)
class TwoSlipsInTheCoefficients(_VP):
    def drift(self, x, t):
        return -self.beta(t)[..., None] * x

    def diffusion(self, t):
        return self.beta(t)


@right("sde alone")
class CosineSchedule:
    """Alpha is cos(c t), sigma sin(c t)."""

    c = 1.4

    def alpha(self, t):
        return torch.cos(self.c * t)

    def sigma(self, t):
        return torch.sin(self.c * t)

    def drift(self, x, t):
        return (x.T * (-self.c * torch.tan(self.c * t))).T

    def diffusion(self, t):
        return torch.sqrt(2 * self.c * torch.tan(self.c * t))


@wrong("sde alone", "variance_slope")
class DiffusionForgetsTheDrift:
    def alpha(self, t):
        return torch.exp(-t)

    def sigma(self, t):
        return torch.sqrt(1 - torch.exp(-2 * t))

    def drift(self, x, t):
        return -x

    def diffusion(self, t):
        d_variance = 2 * torch.exp(-2 * t)
        return d_variance.sqrt()


@wrong("sde alone", "drift_sign")
class OrnsteinUhlenbeckOutwards:
    theta, noise = 3.0, 2.0

    def alpha(self, t):
        return torch.exp(-self.theta * t)

    def sigma(self, t):
        return self.noise * torch.sqrt((1 - torch.exp(-2 * self.theta * t)) / (2 * self.theta))

    def drift(self, x, t):
        return self.theta * x

    def diffusion(self, t):
        return torch.full_like(t, self.noise)


@wrong("sde alone", "sigma_from_alpha")
class OrnsteinUhlenbeckSlowVariance:
    def alpha(self, t):
        return (-t).exp()

    def sigma(self, t):
        return (1 - (-t).exp()).sqrt()

    def drift(self, x, t):
        return -1.0 * x

    def diffusion(self, t):
        return torch.ones_like(t) * math.sqrt(2)


@right("sde alone")
class KarrasSchedule:
    """Noise that grows evenly with time, up to 80."""

    sigma_max = 80.0

    def alpha(self, t):
        return t * 0 + 1

    def sigma(self, t):
        return self.sigma_max * t

    def drift(self, x, t):
        return 0.0 * x

    def diffusion(self, t):
        return self.sigma_max * torch.sqrt(2 * t)


# Whole samplers.


@right("sampler")
def kept_in_place(sde, score, shape, *, n_steps, t_min=1e-3, generator=None):
    """All by operations in place, on a grid of NumPy."""
    grid = np.linspace(1.0, t_min, n_steps + 1)
    x = torch.empty(shape).normal_(generator=generator).mul_(sde.prior_std)
    for k in range(n_steps):
        t = torch.tensor(grid[k], dtype=torch.float32)
        step = float(grid[k] - grid[k + 1])
        g = float(sde.diffusion(t))
        s = score(x.clone(), t)
        x.sub_(sde.drift(x, t), alpha=step)
        x.add_(s, alpha=g * g * step)
        x.add_(torch.empty(shape).normal_(generator=generator), alpha=g * math.sqrt(step))
    last = torch.tensor(grid[-1], dtype=torch.float32)
    return x.add(score(x, last) * sde.sigma(last) ** 2).div(sde.alpha(last))


class _EulerMaruyamaPredictor:
    """The predictor of Song's repository, which works with a positive step and a reverse SDE."""

    def __init__(self, sde, score, n_steps, t_min, generator):
        self.sde, self.score, self.generator = sde, score, generator
        self.step = (1 - t_min) / n_steps

    def reverse(self, x, t):
        diffusion = self.sde.diffusion(t)
        return self.sde.drift(x, t) - diffusion**2 * self.score(x, t), diffusion

    def update_fn(self, x, t):
        dt = -self.step
        z = torch.randn(x.shape, generator=self.generator)
        drift, diffusion = self.reverse(x, t)
        x_mean = x + drift * dt
        return x_mean + diffusion * np.sqrt(-dt) * z, x_mean


@right("sampler")
@torch.no_grad()
def predictor_as_a_class(sde, score, shape, *, n_steps, t_min=1e-3, generator=None):
    predictor = _EulerMaruyamaPredictor(sde, score, n_steps, t_min, generator)
    timesteps = torch.linspace(1, t_min, n_steps + 1)
    x = functools.reduce(
        lambda x, t: predictor.update_fn(x, t)[0],
        timesteps[:-1],
        sde.prior_std * torch.randn(*shape, generator=generator),
    )
    eps = timesteps[-1]
    return x / sde.alpha(eps) + sde.sigma(eps) ** 2 / sde.alpha(eps) * score(x, eps)


@wrong("sampler", "time_reached")
def asks_at_the_end_of_the_step(sde, score, shape, *, n_steps, t_min=1e-3, generator=None):
    ts = torch.linspace(1, t_min, n_steps + 1)
    x = torch.randn(shape, generator=generator) * sde.prior_std
    for t_prev, t in itertools.pairwise(ts):
        dt = t - t_prev
        g = sde.diffusion(t)
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt
        x = x + g * dt.abs().sqrt() * torch.randn(shape, generator=generator)
    return (x + sde.sigma(t) ** 2 * score(x, t)) / sde.alpha(t)


@wrong("sampler", "step_missing")
def one_point_too_few(sde, score, shape, *, n_steps, t_min=1e-3, generator=None):
    times = torch.linspace(1.0, t_min, n_steps)
    dts = torch.diff(times)
    x = sde.prior_std * torch.randn(shape, generator=generator)
    for t, dt in zip(times, dts, strict=False):
        g = sde.diffusion(t)
        drift = sde.drift(x, t) - g * g * score(x, t)
        x = x + drift * dt + g * torch.sqrt(-dt) * torch.randn(shape, generator=generator)
    return (x + sde.sigma(times[-1]) ** 2 * score(x, times[-1])) / sde.alpha(times[-1])


@wrong("sampler", "no_alpha")
def tweedie_of_exploding_variance(sde, score, shape, *, n_steps, t_min=1e-3, generator=None):
    times = torch.linspace(1, t_min, n_steps + 1)
    x = sde.prior_std * torch.randn(shape, generator=generator)
    for i in range(n_steps):
        dt = times[i + 1] - times[i]
        g = sde.diffusion(times[i])
        noise = torch.randn(shape, generator=generator)
        x = x + (sde.drift(x, times[i]) - g**2 * score(x, times[i])) * dt + g * torch.sqrt(torch.abs(dt)) * noise
    return x + sde.sigma(times[-1]).square() * score(x, times[-1])


@wrong("sampler", "same_noise")
def seeds_anew_in_the_loop(sde, score, shape, *, n_steps, t_min=1e-3, generator=None):
    generator = generator or torch.Generator()
    seed = generator.initial_seed()
    x = sde.prior_std * torch.randn(shape, generator=generator)
    times = torch.linspace(1, t_min, n_steps + 1)
    for t, t_next in itertools.pairwise(times):
        generator.manual_seed(seed + 1)
        g, dt = sde.diffusion(t), t_next - t
        z = torch.randn(shape, generator=generator)
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * dt.abs().sqrt() * z
    return (x + sde.sigma(t_next) ** 2 * score(x, t_next)) / sde.alpha(t_next)


@wrong(
    "sampler",
    "no_denoising",
    "dt_for_root",
)
def noisy_end_and_small_kicks(sde, score, shape, *, n_steps, t_min=1e-3, generator=None):
    delta = (1 - t_min) / n_steps
    t = torch.tensor(1.0)
    x = sde.prior_std * torch.randn(shape, generator=generator)
    for _ in range(n_steps):
        g = sde.diffusion(t)
        x = x - delta * (sde.drift(x, t) - g**2 * score(x, t)) + g * delta * torch.randn(shape, generator=generator)
        t = t - delta
    return x


# One step back.


@right("reverse step")
def by_torch_normal(sde, score, x, t, dt, *, generator=None):
    """The law of the step, from which torch.normal draws."""
    h = -dt
    loc = x + h * torch.addcmul(-sde.drift(x, t), score(x, t), sde.diffusion(t).pow(2).expand_as(x))
    scale = (sde.diffusion(t) * h.sqrt()).expand_as(loc)
    return torch.normal(loc, scale, generator=generator)


class _RSDE:
    """Song's nested class: an SDE whose coefficients are those of the reverse one."""

    def __init__(self, sde, score_fn, probability_flow=False):
        self.forward, self.score_fn, self.probability_flow = sde, score_fn, probability_flow

    def sde(self, x, t):
        drift, diffusion = self.forward.drift(x, t), self.forward.diffusion(t)
        score = self.score_fn(x, t)
        drift = drift - diffusion.reshape(-1, 1) ** 2 * score * (0.5 if self.probability_flow else 1.0)
        diffusion = torch.zeros_like(diffusion) if self.probability_flow else diffusion
        return drift, diffusion

    def discretize(self, x, t, step):
        drift, diffusion = self.sde(x, t)
        return drift * step, diffusion * (-step) ** 0.5


@right("reverse step")
def by_discretize(sde, score, x, t, dt, *, generator=None):
    f, G = _RSDE(sde, score).discretize(x, t, dt)
    rows = [torch.randn(x.shape[1], generator=generator, dtype=x.dtype) for _ in x]
    return x + f + G * torch.stack(rows)


@wrong("reverse step", "order")
def first_drift_then_score(sde, score, x, t, dt, *, generator=None):
    g = sde.diffusion(t)
    x = x + sde.drift(x, t) * dt
    x = x - g**2 * score(x, t) * dt
    x = x + g * torch.sqrt(-dt) * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x


@wrong("reverse step", "root_of_diffusion")
def root_over_diffusion(sde, score, x, t, dt, *, generator=None):
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    g = sde.diffusion(t)
    reverse = sde.drift(x, t) - g * g * score(x, t)
    return x + reverse * dt + torch.sqrt(g * abs(dt)) * z


@wrong("reverse step", "shared_noise")
def one_kick_for_the_batch(sde, score, x, t, dt, *, generator=None):
    diffusion = sde.diffusion(t)
    z = torch.randn(x.size(-1), generator=generator, dtype=x.dtype)
    return x + (sde.drift(x, t) - diffusion.square() * score(x, t)) * dt + diffusion * (-dt).sqrt() * z


@wrong(
    "reverse step",
    "half_score",
    "uniform_noise",
)
def half_pull_and_uniform_kick(sde, score, x, t, dt, *, generator=None):
    g = sde.diffusion(t)
    v = sde.drift(x, t) - 0.5 * g**2 * score(x, t)
    return x + v * dt + g * dt.abs() ** 0.5 * torch.rand(x.shape, generator=generator, dtype=x.dtype)


# The flow.


@right("flow")
class VelocityField(torch.nn.Module):
    """A module whose forward takes the time first, as torchdiffeq's tutorials write it."""

    def __init__(self, sde, score):
        super().__init__()
        self.sde, self.score = sde, score

    def forward(self, t, x):
        return torch.sub(self.sde.drift(x, t), self.sde.diffusion(t).square() * self.score(x, t), alpha=0.5)


@wrong("flow", "half_drift")
def half_of_everything(sde, score):
    def field(t, x):
        return 0.5 * (sde.drift(x, t) - sde.diffusion(t) ** 2 * score(x, t))

    return field


@wrong("flow", "time_direction")
def turned_round_for_sampling(sde, score):
    return lambda t, x: 0.5 * sde.diffusion(t).pow(2) * score(x, t) - sde.drift(x, t)


@wrong("flow", "sigma_for_diffusion")
def sigma_for_diffusion(sde, score):
    def ode_fn(t, x):
        sigma = sde.sigma(t)
        return sde.drift(x, t) - sigma**2 * score(x, t) / 2

    return ode_fn


@right("flow")
def mean_of_both_drifts(sde, score):
    """Half way between the drift of the SDE and that of its reverse."""

    def field(t, x):
        return torch.stack([sde.drift(x, t), continuous.reverse_drift(sde, score, x, t)]).mean(0)

    return field


# Likelihoods.


def _velocity(sde, score, x, t):
    return sde.drift(x, t) - 0.5 * sde.diffusion(t) ** 2 * score(x, t)


def _velocity_and_trace(sde, score, x, t):
    """By the Jacobian of the sum over the batch, shape (d, B, d)."""
    jacobian = torch.autograd.functional.jacobian(lambda y: _velocity(sde, score, y, t).sum(0), x)
    return _velocity(sde, score, x, t).detach(), torch.einsum("ibi->b", jacobian)


def _grid(n, x, t_min=1e-3):
    return t_min + (1 - t_min) * torch.linspace(0, 1, n + 1, dtype=x.dtype) ** 2


def _heun(rates, x, times):
    """End of the path and the integral of the rates' second part."""
    total = torch.zeros(len(x), dtype=x.dtype)
    for a, b in itertools.pairwise(times):
        h, b = b - a, b.clamp(max=1.0)
        k1, r1 = rates(x, a)
        k2, r2 = rates(x + h * k1, b)
        x, total = x + h / 2 * (k1 + k2), total + h / 2 * (r1 + r2)
    return x, total


@right("log prob")
def runge_kutta_and_einsum(sde, score, x):
    """The classical method of fourth order, and a trace by einsum."""
    rates = functools.partial(_velocity_and_trace, sde, score)
    log_det = x.new_zeros(x.shape[0])
    for a, b in itertools.pairwise(_grid(40, x).tolist()):
        h, b = b - a, min(b, 1.0)
        a, middle, b = (torch.tensor(t, dtype=x.dtype) for t in (a, (a + b) / 2, b))
        k1, l1 = rates(x, a)
        k2, l2 = rates(x + h / 2 * k1, middle)
        k3, l3 = rates(x + h / 2 * k2, middle)
        k4, l4 = rates(x + h * k3, b)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        log_det = log_det + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
    return sde.prior_log_prob(x) + log_det


@right("log prob")
def songs_likelihood(sde, score, x, *, generator=None):
    """Through scipy's solver and NumPy, with Rademacher probes that are drawn once, as in Song's repository."""
    shape = x.shape
    epsilon = torch.randint(0, 2, shape, generator=generator).to(x.dtype) * 2 - 1

    def ode_func(t, state):
        sample = torch.from_numpy(state[: -shape[0]].copy()).reshape(shape).to(x.dtype).requires_grad_(True)
        t = torch.tensor(t, dtype=x.dtype)
        with torch.enable_grad():
            drift = _velocity(sde, score, sample, t)
            grad_fn_eps = torch.autograd.grad(torch.sum(drift * epsilon), sample)[0]
        logp_grad = torch.sum(grad_fn_eps * epsilon, dim=1)
        return np.concatenate([drift.detach().numpy().reshape(-1), logp_grad.numpy()])

    init = np.concatenate([x.detach().numpy().reshape(-1), np.zeros(shape[0])])
    solution = integrate.solve_ivp(ode_func, (1e-3, 1.0), init, rtol=1e-5, atol=1e-5, method="RK45")
    zp = torch.from_numpy(solution.y[:, -1])
    z, delta_logp = zp[: -shape[0]].reshape(shape).to(x.dtype), zp[-shape[0] :].to(x.dtype)
    return sde.prior_log_prob(z) + delta_logp


@wrong("log prob", "all_entries")
def sum_of_all_slopes(sde, score, x):
    def rates(x, t):
        with torch.enable_grad():
            y = x.detach().clone().requires_grad_(True)
            v = _velocity(sde, score, y, t)
            divergence = torch.autograd.grad(v.sum(), y)[0].sum(dim=1)
        return v.detach(), divergence

    end, integral = _heun(rates, x, _grid(80, x))
    return sde.prior_log_prob(end) + integral


@wrong("log prob", "prior_at_start")
def prior_of_the_data_point(sde, score, x):
    z, trace = _heun(functools.partial(_velocity_and_trace, sde, score), x, _grid(80, x))
    assert z.shape == x.shape
    return sde.prior_log_prob(x) + trace


@wrong("log prob", "uniform_projections")
def uniform_probes(sde, score, x, *, generator=None):
    eps = torch.rand(x.shape, generator=generator, dtype=x.dtype)

    def rates(x, t):
        v, pulled = torch.autograd.functional.vjp(lambda y: _velocity(sde, score, y, t), x, eps)
        return v, (pulled * eps).sum(1)

    z, trace = _heun(rates, x, _grid(80, x))
    return sde.prior_log_prob(z) + trace


@wrong("log prob", "drift_divergence")
def divergence_of_the_score_alone(sde, score, x):
    def rates(x, t):
        jacobian = torch.autograd.functional.jacobian(lambda y: score(y, t).sum(0), x)
        trace = jacobian.diagonal(dim1=0, dim2=2).sum(-1)
        return _velocity(sde, score, x, t).detach(), -0.5 * sde.diffusion(t) ** 2 * trace

    z, trace = _heun(rates, x, _grid(80, x))
    return sde.prior_log_prob(z) + trace


@wrong(
    "log prob",
    "divergence_sign",
    "unit_projections",
)
def minus_the_mean_divergence(sde, score, x):
    def rates(x, t):
        jacobian = torch.autograd.functional.jacobian(lambda y: _velocity(sde, score, y, t).sum(0), x)
        return _velocity(sde, score, x, t).detach(), torch.stack([jacobian[i, :, i] for i in range(x.shape[1])]).mean(0)

    z, trace = _heun(rates, x, _grid(80, x))
    return sde.prior_log_prob(z) - trace


@right("log prob under VE")
def adaptive_with_prior_by_hand(sde, score, x):
    """Both parts of the state in one solver of torchdiffeq; the prior as a distribution of torch."""

    def joint(t, state):
        v, trace = _velocity_and_trace(sde, score, state[0], t.clamp(0, 1))
        return v, trace

    times = torch.tensor([1e-4, 1.0], dtype=x.dtype)
    path, integral = odeint(joint, (x, x.new_zeros(len(x))), times, method="rk4", options={"step_size": 0.01})
    prior = torch.distributions.Independent(torch.distributions.Normal(torch.zeros_like(x), sde.prior_std), 1)
    return prior.log_prob(path[-1]) + integral[-1]


@wrong("log prob under VE", "prior_std")
def prior_without_its_width(sde, score, x):
    z, trace = _heun(functools.partial(_velocity_and_trace, sde, score), x, _grid(100, x))
    n = z.shape[1]
    prior_logp = -n / 2.0 * np.log(2 * np.pi) - torch.sum(z**2, dim=1) / (2 * sde.prior_std**2)
    return prior_logp + trace


@wrong("log prob under VE", "std_for_variance")
def prior_std_as_a_variance(sde, score, x):
    z, trace = _heun(functools.partial(_velocity_and_trace, sde, score), x, _grid(100, x))
    d = x.shape[1]
    prior = torch.distributions.MultivariateNormal(
        torch.zeros(d, dtype=x.dtype), sde.prior_std * torch.eye(d, dtype=x.dtype)
    )
    return prior.log_prob(z) + trace


def _rates_with_graph(sde, score, x, t, *, create_graph=True):
    with torch.enable_grad():
        y = x if x.requires_grad else x.detach().requires_grad_()
        v = _velocity(sde, score, y, t)
        rows = torch.eye(x.shape[1], dtype=x.dtype)
        trace = sum(
            torch.autograd.grad(v, y, row.expand_as(v), create_graph=create_graph, retain_graph=True)[0] @ row
            for row in rows
        )
    return v, trace


@right("differentiable log prob")
def heun_that_keeps_its_graph(sde, score, x):
    z, trace = _heun(functools.partial(_rates_with_graph, sde, score), x, _grid(50, x))
    return sde.prior_log_prob(z) + trace


@right("differentiable log prob")
def odeint_with_a_graph(sde, score, x):
    """A solver of torchdiffeq, through whose steps autograd goes."""

    def joint(t, state):
        return _rates_with_graph(sde, score, state[0], t)

    times = _grid(30, x).clamp(max=1.0)
    path, trace = odeint(joint, (x, torch.zeros_like(x[:, 0])), times, method="rk4")
    return sde.prior_log_prob(path[-1]) + trace[-1]


@wrong("differentiable log prob", "detached")
def path_detached_in_each_step(sde, score, x):
    total = 0.0
    for a, b in itertools.pairwise(_grid(60, x)):
        x = x.detach()
        v, first = _rates_with_graph(sde, score, x, a)
        y = (x + (b - a) * v).detach()
        w, second = _rates_with_graph(sde, score, y, b.clamp(max=1))
        x = x + (b - a) * (v + w) / 2
        total = total + (b - a) * (first + second) / 2
    return sde.prior_log_prob(x) + total


@wrong("differentiable log prob", "detached")
def divergence_without_a_graph(sde, score, x):
    rates = functools.partial(_rates_with_graph, sde, score, create_graph=False)
    z, trace = _heun(rates, x, _grid(50, x))
    return sde.prior_log_prob(z) + trace


@right("bits")
def bits_by_change_of_units(sde, score, x, bin_width):
    """The density in units of a bin, by the book's own likelihood."""
    nats = probability_flow.log_prob(sde, score, x)
    d = x[0].numel()
    in_bins = nats + d * np.log(bin_width)
    return in_bins * (-1 / (d * np.log(2)))


@wrong("bits", "bin_width")
def width_counted_once(sde, score, x, bin_width):
    logp = probability_flow.log_prob(sde, score, x)
    log_mass = logp + math.log(bin_width)
    return -log_mass / math.log(2) / x.shape[-1]


@wrong("bits", "nats")
def width_in_nats(sde, score, x, bin_width):
    nll = -probability_flow.log_prob(sde, score, x)
    bpd = nll / np.log(2) / np.prod(x.shape[1:])
    offset = -np.log(bin_width)
    return bpd + offset


@wrong("bits", "mean_batch")
def divided_by_numel(sde, score, x, bin_width):
    log_prob = probability_flow.log_prob(sde, score, x)
    return -log_prob / (math.log(2) * x.numel()) - math.log2(bin_width)


# Conversions.


@right("v to noise")
def as_a_rotation(x, prediction, alpha_bar):
    """The state and v are the clean point and the noise, turned by an angle."""
    angle = torch.atan2((1 - alpha_bar).sqrt(), alpha_bar.sqrt())
    return torch.complex(x, prediction).mul(torch.polar(torch.ones_like(angle), angle)).imag


def _x0_from_score(x, s, ab):
    return torch.addcmul(x, 1 - ab, s) / torch.sqrt(ab)


@right("score to v")
def by_way_of_both(x, prediction, alpha_bar):
    clean = _x0_from_score(x, prediction, alpha_bar)
    eps = torch.stack([-((1 - a) ** 0.5) * s for a, s in zip(alpha_bar, prediction, strict=True)])
    return alpha_bar**0.5 * eps - (1 - alpha_bar) ** 0.5 * clean


@right("clean to score")
def slope_of_the_kernel(x, prediction, alpha_bar):
    """The gradient of the log-density of the kernel, by autograd."""
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        kernel = torch.distributions.Normal(alpha_bar.sqrt() * prediction, (1 - alpha_bar).sqrt())
        return torch.autograd.grad(kernel.log_prob(y).sum(), y)[0]


@wrong("noise to v", "state_for_clean")
def state_for_clean_point(x, prediction, alpha_bar):
    return alpha_bar.sqrt() * prediction - (1 - alpha_bar).sqrt() * x


@wrong("clean to noise", "no_sigma")
def noise_unscaled(x, prediction, alpha_bar):
    return x - torch.sqrt(alpha_bar) * prediction


@wrong("score to clean", "std_for_variance")
def tweedie_by_sigma(x, prediction, alpha_bar):
    sigma = (1 - alpha_bar).sqrt()
    return (x + sigma * prediction) / alpha_bar.sqrt()


@wrong("v to score", "swapped")
def swapped_roots(x, prediction, alpha_bar):
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return -(a * x + s * prediction) / s


@wrong("noise to clean", "no_root")
def divides_by_alpha_bar(x, prediction, alpha_bar):
    return (x - (1 - alpha_bar).sqrt() * prediction) / alpha_bar


@wrong(
    "score to clean",
    "sign",
    "no_alpha",
)
def tweedie_twice_wrong(x, prediction, alpha_bar):
    return x - (1 - alpha_bar) * prediction


@right("clean to v")
def in_one_line(x, prediction, alpha_bar):
    return (alpha_bar.sqrt() * x - prediction) / torch.sqrt(1.0 - alpha_bar)


# Classes.


@right("label dropping")
def coins_by_bernoulli(labels, p_drop, null, *, generator=None):
    coins = torch.bernoulli(torch.full(labels.size(), float(p_drop)), generator=generator)
    return labels.masked_fill(coins.bool(), null)


@wrong("label dropping", "fixed_share")
def a_fixed_share(labels, p_drop, null, *, generator=None):
    n_drop = int(round(p_drop * len(labels)))  # noqa: RUF046
    index = torch.randperm(len(labels), generator=generator)[:n_drop]
    labels = labels.clone()
    labels[index] = null
    return labels


@wrong("label dropping", "label_zero")
def multiplied_by_a_mask(labels, p_drop, null, *, generator=None):
    context_mask = torch.bernoulli(torch.full(labels.shape, 1.0 - p_drop), generator=generator)
    return labels * context_mask.to(labels.dtype)


@wrong("label dropping", "mutation")
def writes_into_the_batch(labels, p_drop, null, *, generator=None):
    for k in range(labels.shape[0]):
        if torch.rand((), generator=generator).item() < p_drop:
            labels[k] = null
    return labels


@right("label dropping")
def waiting_times(labels, p_drop, null, *, generator=None):
    """A label is dropped if an exponential clock rings in time."""
    rings = torch.empty(len(labels), dtype=torch.float64).exponential_(generator=generator)
    keep = rings.numpy() > -np.log1p(-p_drop)
    return torch.from_numpy(np.where(keep, labels.numpy(), null)).to(labels)


@right("classifier-free")
class CFGDenoiser:
    """A wrapper in the manner of k-diffusion, which starts from the conditional score."""

    def __init__(self, model, labels, null, scale):
        self.inner_model, self.labels, self.scale = model, labels, scale
        self.nothing = torch.tensor([null]).expand_as(labels)

    def __call__(self, x, t):
        cond, uncond = (self.inner_model(x, t, y) for y in (self.labels, self.nothing))
        return cond + (self.scale - 1) * (cond - uncond)


@right("classifier-free")
def one_pass_of_twice_the_batch(model, labels, null, scale):
    """As in diffusers: both halves in one call."""
    context = torch.cat([labels.new_full(labels.shape, null), labels])

    def guided(x, t):
        t = torch.as_tensor(t)
        t_in = t if t.dim() == 0 else torch.cat([t] * 2)
        pred_uncond, pred_text = model(torch.cat([x] * 2), t_in, context).chunk(2)
        return torch.lerp(pred_uncond, pred_text, scale)

    return guided


@wrong("classifier-free", "swapped")
def halves_swapped(model, labels, null, scale):
    both = torch.cat([labels, torch.full_like(labels, null)])

    def guided(x, t):
        t = torch.as_tensor(t)
        pred = model(x.repeat(2, 1), t if t.ndim == 0 else t.repeat(2), both)
        noise_pred_uncond, noise_pred_text = pred.chunk(2)
        return noise_pred_uncond + scale * (noise_pred_text - noise_pred_uncond)

    return guided


@wrong("classifier-free", "rescaled")
def with_rescaling(model, labels, null, scale):
    def guided(x, t):
        cond, uncond = model(x, t, labels), model(x, t, torch.full_like(labels, null))
        cfg = uncond + scale * (cond - uncond)
        return cfg * (cond.std(dim=1, keepdim=True) / cfg.std(dim=1, keepdim=True))

    return guided


@wrong("classifier-free", "detached")
def no_grad_for_the_null_label(model, labels, null, scale):
    def score(x, t):
        with torch.no_grad():
            base = model(x, t, torch.ones_like(labels) * null)
        return (1 - scale) * base + scale * model(x, t, labels)

    return score


@right("classifier guidance")
def by_torch_func(sde, model, classifier, labels, scale):
    """The gradient by torch.func.grad, which outer derivatives pass through."""

    def selected(x, t):
        return -F.cross_entropy(classifier(x, t), labels, reduction="sum")

    def score(x, t):
        return model(x, t) + scale * torch.func.grad(selected)(x, t)

    return score


@wrong("classifier guidance", "probability")
def slope_of_the_probability(sde, model, classifier, labels, scale):
    def score(x, t):
        with torch.enable_grad():
            x_in = x if x.requires_grad else x.detach().requires_grad_(True)
            p = torch.softmax(classifier(x_in, t), dim=-1).gather(1, labels[:, None])
            grad = torch.autograd.grad(p.sum(), x_in, create_graph=True)[0]
        return model(x, t) + scale * grad

    return score


@wrong("classifier guidance", "detached")
def openais_cond_fn(sde, model, classifier, labels, scale):
    def cond_fn(x, t):
        with torch.enable_grad():
            x_in = x.detach().requires_grad_(True)
            logits = classifier(x_in, t)
            log_probs = F.log_softmax(logits, dim=-1)
            selected = log_probs[range(len(logits)), labels.view(-1)]
            return torch.autograd.grad(selected.sum(), x_in)[0] * scale

    return lambda x, t: model(x, t) + cond_fn(x, t)


@right("classifier guidance of noise")
def jacobian_of_the_sum(sde, model, classifier, labels, scale):
    """All three logits' slopes, of which einsum takes what is wanted."""

    def noise(x, t):
        chosen = F.one_hot(labels, 3).to(x.dtype)
        slopes = torch.autograd.functional.jacobian(
            lambda y: (classifier(y, t) - classifier(y, t).logsumexp(1, keepdim=True)).sum(0), x, create_graph=True
        )
        sigma = torch.as_tensor(sde.sigma(t)).reshape(-1, 1)
        return model(x, t) - scale * sigma * torch.einsum("kbd,bk->bd", slopes, chosen)

    return noise


@wrong("classifier guidance of noise", "sigma_from_alpha")
def alpha_for_alpha_bar(sde, model, classifier, labels, scale):
    def eps(x, t):
        with torch.enable_grad():
            y = x if x.requires_grad else x.detach().requires_grad_()
            log_p = classifier(y, t).log_softmax(-1).gather(1, labels.unsqueeze(1)).sum()
            grad = torch.autograd.grad(log_p, y, create_graph=True)[0]
        alpha_bar = sde.alpha(t).reshape(-1, 1)
        return model(x, t) - (1 - alpha_bar).sqrt() * scale * grad

    return eps


@wrong("classifier guidance of noise", "no_sigma")
def gradient_without_sigma(sde, model, classifier, labels, scale):
    def eps(x, t):
        grad = torch.func.grad(lambda y: classifier(y, t).log_softmax(1)[torch.arange(len(y)), labels].sum())(x)
        return model(x, t) - scale * grad

    return eps


@wrong(
    "classifier guidance of noise",
    "mean_batch",
    "guidance_sign",
)
def mean_and_plus(sde, model, classifier, labels, scale):
    def eps(x, t):
        grad = torch.func.grad(lambda y: -F.cross_entropy(classifier(y, t), labels))(x)
        return model(x, t) + scale * torch.as_tensor(sde.sigma(t)).reshape(-1, 1) * grad

    return eps


# DDPM and DDIM.


@right("ddpm step")
def lucidrains_p_sample(model, x, i, betas, *, generator=None):
    """With buffers, a clipped log-variance, and a mask for the last step."""
    alphas = 1.0 - betas
    alphas_cumprod = torch.cumprod(alphas, dim=0)
    alphas_cumprod_prev = F.pad(alphas_cumprod[:-1], (1, 0), value=1.0)
    posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)
    posterior_log_variance_clipped = torch.log(posterior_variance.clamp(min=1e-20))
    coef1 = betas * torch.sqrt(alphas_cumprod_prev) / (1.0 - alphas_cumprod)
    coef2 = (1.0 - alphas_cumprod_prev) * torch.sqrt(alphas) / (1.0 - alphas_cumprod)
    x_start = torch.sqrt(1.0 / alphas_cumprod[i]) * x - torch.sqrt(1.0 / alphas_cumprod[i] - 1) * model(x, i)
    x_start.clamp_(-1.0, 1.0)
    model_mean = coef1[i] * x_start + coef2[i] * x
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) if i > 0 else 0.0
    return model_mean + (0.5 * posterior_log_variance_clipped[i]).exp() * noise


@right("ddpm step")
def product_of_two_gaussians(model, x, i, betas, *, generator=None):
    """The posterior by precisions: the prior of the level below times the likelihood of this one."""
    beta = betas[i].item()
    before = float(np.prod(1 - betas[:i].numpy()))
    now = before * (1 - beta)
    clean = torch.clip((x - math.sqrt(1 - now) * model(x, i)) / math.sqrt(now), -1, 1)
    if i == 0:
        return clean
    precision = 1 / (1 - before) + (1 - beta) / beta
    mean = (math.sqrt(before) * clean / (1 - before) + math.sqrt(1 - beta) * x / beta) / precision
    return mean + torch.randn(x.shape, generator=generator, dtype=x.dtype) / math.sqrt(precision)


@wrong("ddpm step", "no_root")
def log_variance_without_half(model, x, i, betas, *, generator=None):
    alphas = 1 - betas
    bars = alphas.cumprod(0)
    prev = torch.cat([bars.new_ones(1), bars[:-1]])
    x0 = (x / bars[i].sqrt() - (1 / bars[i] - 1).sqrt() * model(x, i)).clamp(-1, 1)
    mean = betas[i] * prev[i].sqrt() / (1 - bars[i]) * x0 + (1 - prev[i]) * alphas[i].sqrt() / (1 - bars[i]) * x
    log_variance = torch.log((betas[i] * (1 - prev[i]) / (1 - bars[i])).clamp(min=1e-20))
    return mean + log_variance.exp() * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@wrong("ddpm step", "last_level")
def index_wraps_round(model, x, i, betas, *, generator=None):
    a_bar = torch.cumprod(1 - betas, dim=0)
    a_t, a_prev, b_t = a_bar[i], a_bar[i - 1], betas[i]
    x0_hat = torch.clamp((x - torch.sqrt(1 - a_t) * model(x, i)) / torch.sqrt(a_t), -1.0, 1.0)
    mu = (a_prev.sqrt() * b_t * x0_hat + (1 - b_t).sqrt() * (1 - a_prev) * x) / (1 - a_t)
    if i == 0:
        return mu
    return mu + torch.sqrt((1 - a_prev) / (1 - a_t) * b_t) * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@wrong("ddpm step", "clipped_state|no_clipping")
def clips_the_state(model, x, i, betas, *, generator=None):
    bars = torch.cumprod(1 - betas, 0)
    prev = bars[i - 1] if i else torch.ones((), dtype=betas.dtype)
    x0 = (x - (1 - bars[i]).sqrt() * model(x, i)) / bars[i].sqrt()
    mean = prev.sqrt() * betas[i] / (1 - bars[i]) * x0 + (1 - betas[i]).sqrt() * (1 - prev) / (1 - bars[i]) * x
    std = ((1 - prev) / (1 - bars[i]) * betas[i]).sqrt()
    return (mean + std * torch.randn(x.shape, generator=generator, dtype=x.dtype)).clip(-1, 1)


@wrong(
    "ddpm step",
    "swapped",
    "no_root",
)
def swapped_and_rootless(model, x, i, betas, *, generator=None):
    bars = torch.cumprod(1 - betas, 0)
    prev = bars[i - 1] if i > 0 else torch.ones_like(bars[0])
    x0 = ((x - (1 - bars[i]).sqrt() * model(x, i)) / bars[i].sqrt()).clamp(-1, 1)
    c0 = prev.sqrt() * betas[i] / (1 - bars[i])
    c1 = (1 - betas[i]).sqrt() * (1 - prev) / (1 - bars[i])
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return c1 * x0 + c0 * x + (1 - prev) / (1 - bars[i]) * betas[i] * z


@right("ddim step")
def ancestral_in_units_of_sigma(model, x, i, j, alpha_bars, *, eta=0.0, generator=None):
    """Katherine Crowson's ancestral Euler step, for the state over the root of alpha_bar."""
    now = alpha_bars[i]
    then = alpha_bars[j] if j >= 0 else alpha_bars.new_tensor(1.0)
    sigma_from, sigma_to = ((1 - now) / now).sqrt(), ((1 - then) / then).sqrt()
    sigma_up = eta * (sigma_to**2 * (sigma_from**2 - sigma_to**2) / sigma_from**2) ** 0.5
    sigma_down = (sigma_to**2 - sigma_up**2).clamp(min=0) ** 0.5
    d = model(x, i)
    y = x / now.sqrt() + d * (sigma_down - sigma_from)
    if eta:
        y = y + torch.randn(x.shape, generator=generator, dtype=x.dtype) * sigma_up
    return y * then.sqrt()


class _DDIMScheduler:
    """After diffusers: the scheduler holds the levels, and its step takes the network's output."""

    def __init__(self, alphas_cumprod):
        self.alphas_cumprod = alphas_cumprod
        self.final_alpha_cumprod = torch.tensor(1.0, dtype=alphas_cumprod.dtype)

    def at(self, level):
        return self.alphas_cumprod[level] if level >= 0 else self.final_alpha_cumprod

    def step(self, model_output, i, j, sample, eta, generator):
        alpha_prod_t, alpha_prod_t_prev = self.at(i), self.at(j)
        beta_prod_t, beta_prod_t_prev = 1 - alpha_prod_t, 1 - alpha_prod_t_prev
        pred_original_sample = (sample - beta_prod_t**0.5 * model_output) / alpha_prod_t**0.5
        variance = (beta_prod_t_prev / beta_prod_t) * (1 - alpha_prod_t / alpha_prod_t_prev)
        std_dev_t = eta * variance**0.5
        pred_sample_direction = (1 - alpha_prod_t_prev - std_dev_t**2) ** 0.5 * model_output
        prev_sample = alpha_prod_t_prev**0.5 * pred_original_sample + pred_sample_direction
        if eta > 0:
            prev_sample = prev_sample + std_dev_t * torch.randn(
                model_output.shape, generator=generator, dtype=sample.dtype
            )
        return prev_sample


@right("ddim step")
def diffusers_scheduler(model, x, i, j, alpha_bars, *, eta=0.0, generator=None):
    return _DDIMScheduler(alpha_bars).step(model(x, i), i, j, x, eta, generator)


@wrong("ddim step", "eta_squared")
def eta_under_the_root(model, x, i, j, alpha_bars, *, eta=0.0, generator=None):
    a_i, a_j = alpha_bars[i], alpha_bars[j] if j >= 0 else torch.ones_like(alpha_bars[i])
    e = model(x, i)
    x0 = (x - (1 - a_i).sqrt() * e) / a_i.sqrt()
    variance = eta * (1 - a_j) / (1 - a_i) * (1 - a_i / a_j)
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return a_j.sqrt() * x0 + (1 - a_j - variance).sqrt() * e + variance.sqrt() * noise


@wrong("ddim step", "off_by_one")
def always_one_level_down(model, x, i, j, alpha_bars, *, eta=0.0, generator=None):
    padded = torch.cat([torch.ones(1, dtype=alpha_bars.dtype), alpha_bars])
    now, then = padded[i + 1], padded[i]
    eps = model(x, i)
    x0 = (x - torch.sqrt(1 - now) * eps) / torch.sqrt(now)
    sigma = eta * torch.sqrt((1 - then) / (1 - now) * (1 - now / then))
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return torch.sqrt(then) * x0 + torch.sqrt(1 - then - sigma**2) * eps + sigma * z


@wrong("ddim step", "clipping")
def clips_as_diffusers_does(model, x, i, j, alpha_bars, *, eta=0.0, generator=None):
    now = alpha_bars[i]
    then = torch.ones_like(now) if j < 0 else alpha_bars[j]
    eps = model(x, i)
    clean = torch.clamp((x - (1 - now) ** 0.5 * eps) / now**0.5, -1, 1)
    std = eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
    out = then**0.5 * clean + (1 - then - std**2) ** 0.5 * eps
    return out if eta == 0 else out + std * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@wrong(
    "ddim step",
    "last_level",
    "std_for_variance",
)
def wraps_and_does_not_square(model, x, i, j, alpha_bars, *, eta=0.0, generator=None):
    now, then = alpha_bars[i], alpha_bars[j]
    eps = model(x, i)
    clean = (x - (1 - now).sqrt() * eps) / now.sqrt()
    std = eta * ((1 - then) / (1 - now) * (1 - now / then).abs()).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then.sqrt() * clean + (1 - then - std).clamp(min=0).sqrt() * eps + std * z


# Guidance by an observation.


@right("guidance")
def pulled_back_by_vjp(score, sde, observation, *, data_std=1.0):
    """The whole covariance as a matrix, and a pull-back of torch.func."""
    A = observation.matrix

    def guided(x, t):
        a, s = sde.alpha(t), sde.sigma(t)
        r2 = 1 / (1 / data_std**2 + a**2 / s**2)

        def denoise(x):
            prior = score(x, t)
            return (x + s**2 * prior) / a, prior

        x0, pull, prior = torch.func.vjp(denoise, x, has_aux=True)
        C = r2 * A @ A.T + observation.noise_std**2 * torch.eye(len(A), dtype=A.dtype)
        w = torch.linalg.solve(C, (observation.y - x0 @ A.T).T).T
        return prior + pull(w @ A)[0]

    return guided


@wrong("guidance", "double_guidance")
def square_without_half(score, sde, observation, *, data_std=1.0):
    A = observation.matrix

    def guided(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        var = sigma**2 * data_std**2 / (sigma**2 + alpha**2 * data_std**2)
        inverse = torch.linalg.inv(var * A @ A.T + observation.noise_std**2 * torch.eye(A.shape[0], dtype=A.dtype))
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            s = score(x, t)
            r = observation.residual((x + sigma**2 * s) / alpha)
            energy = torch.einsum("bi,ij,bj->", r, inverse, r)
            grad = torch.autograd.grad(energy, x)[0]
        return s.detach() - grad

    return guided


@wrong("guidance", "no_jacobian")
def pull_without_the_chain_rule(score, sde, observation, *, data_std=1.0):
    def guided(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        var = sigma**2 * data_std**2 / (sigma**2 + alpha**2 * data_std**2)
        s = score(x, t)
        x0 = (x + sigma**2 * s) / alpha
        w = observation.solve(observation.residual(x0), var)
        return s + w @ observation.matrix

    return guided


@wrong("guidance", "sigma_spread")
def variance_of_a_flat_prior(score, sde, observation, *, data_std=1.0):
    def guided(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            prior = score(y, t)
            clean = (y + sigma**2 * prior) / alpha
            w = observation.solve(observation.residual(clean), (sigma / alpha) ** 2).detach()
            extra = torch.autograd.grad(observation.predict(clean), y, grad_outputs=w)[0]
        return (prior + extra).detach()

    return guided


@right("guidance")
def by_a_multivariate_normal(score, sde, observation, *, data_std=1.0):
    """Bayes' rule as it is written: the gradient of the log-density of y."""
    A = observation.matrix

    def guided(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        r2 = (sigma * data_std) ** 2 / (sigma**2 + (alpha * data_std) ** 2)
        covariance = r2 * (A @ A.mT) + observation.noise_std**2 * torch.eye(len(A)).to(A)
        with torch.enable_grad():
            z = x.detach().clone().requires_grad_()
            prior = score(z, t)
            likelihood = torch.distributions.MultivariateNormal((z + sigma**2 * prior) @ A.mT / alpha, covariance)
            likelihood.log_prob(observation.y).sum().backward()
        return prior.detach() + z.grad

    return guided


@wrong(
    "guidance",
    "std_for_variance",
    "no_data_std|isotropic",
)
def two_variances_missed(score, sde, observation, *, data_std=1.0):
    A = observation.matrix

    def guided(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        r2 = sigma**2 / (sigma**2 + alpha**2)
        cov = r2 * A @ A.T + observation.noise_std * torch.eye(len(A), dtype=A.dtype)
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            prior = score(y, t)
            residual = observation.residual((y + sigma**2 * prior) / alpha)
            loss = 0.5 * (residual * torch.linalg.solve(cov, residual.T).T).sum()
            (grad,) = torch.autograd.grad(loss, y)
        return prior.detach() - grad

    return guided


@right("inpainting guidance")
def entry_by_entry(score, sde, observation, *, data_std=1.0):
    """Each row of the matrix picks one coordinate, so the covariance is a number."""
    known = observation.matrix.argmax(1)

    def guided(x, t):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        total = (1 / data_std**2 + (alpha / sigma) ** 2) ** -1 + observation.noise_std**2
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            prior = score(x, t)
            seen = ((x + sigma**2 * prior) / alpha)[:, known]
            law = torch.distributions.Normal(seen, total.sqrt())
            guidance = torch.autograd.grad(law.log_prob(observation.y.expand_as(seen)).sum(), x)[0]
        return prior.detach() + guidance

    return guided


@wrong("inpainting guidance", "no_noise_variance")
def replacement(score, sde, observation, *, data_std=1.0):
    known = observation.matrix.sum(0).bool()

    def guided(x, t):
        s = score(x, t).clone()
        target = sde.alpha(t) * observation.y.expand(len(x), -1)
        s[:, known] = (target - x[:, known]) / sde.sigma(t) ** 2
        return s

    return guided


@wrong("inpainting guidance", "clean_likelihood")
def likelihood_at_the_noisy_point(score, sde, observation, *, data_std=1.0):
    def guided(x, t):
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            pull = torch.autograd.grad(observation.log_likelihood(y).sum(), y)[0]
        return score(x, t) + pull

    return guided


# Posteriors and their error bars.


@right("posterior")
def in_closed_form(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    """Data that are normal have a normal posterior: no sampler is needed."""
    A, y = observation.matrix, observation.y
    precision = A.T @ A / observation.noise_std**2 + torch.eye(A.shape[1], dtype=A.dtype) / data_std**2
    factor = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve((y @ A / observation.noise_std**2).T, factor).T
    z = torch.randn(n_draws, len(y), A.shape[1], generator=generator, dtype=A.dtype)
    return mean + torch.linalg.solve_triangular(factor.T, z.reshape(-1, A.shape[1]).T, upper=True).T.reshape(z.shape)


@right("posterior")
def rows_repeated_each(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    """All draws of a problem one after the other, and turned at the end."""
    y = torch.stack([row for row in observation.y for _ in range(n_draws)])
    obs = LinearObservation(observation.matrix, y, observation.noise_std)
    guided = controllable_generation.pseudoinverse_guidance(score, sde, obs, data_std=data_std)
    x = sde.sample_prior((len(y), observation.matrix.shape[1]), generator=generator, dtype=y.dtype)
    for t, t_next in itertools.pairwise(sde.time_grid(250, dtype=y.dtype)):
        g, dt = sde.diffusion(t), t_next - t
        x = x + (sde.drift(x, t) - g**2 * guided(x, t)) * dt
        x = (x + g * (-dt).sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)).detach()
    return x.unflatten(0, (-1, n_draws)).transpose(0, 1)


@wrong("posterior", "mixed_problems")
def rows_in_the_wrong_order(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    y = observation.y.repeat_interleave(n_draws, dim=0)
    obs = LinearObservation(observation.matrix, y, observation.noise_std)
    guided = controllable_generation.pseudoinverse_guidance(score, sde, obs, data_std=data_std)
    start = sde.sample_prior((len(y), observation.matrix.shape[1]), generator=generator, dtype=y.dtype)
    return continuous.euler_maruyama(sde, guided, start, n_steps=150, generator=generator).view(
        n_draws, observation.y.shape[0], -1
    )


@wrong("posterior", "no_root|variance_for_std")
def covariance_for_its_root(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    A, y, tau = observation.matrix, observation.y, observation.noise_std
    gain = data_std**2 * A.T @ torch.linalg.inv(data_std**2 * A @ A.T + tau**2 * torch.eye(len(A), dtype=A.dtype))
    mean = y @ gain.T
    covariance = data_std**2 * (torch.eye(A.shape[1], dtype=A.dtype) - gain @ A)
    z = torch.randn(n_draws, *mean.shape, generator=generator, dtype=A.dtype)
    return mean + z @ covariance


@wrong("posterior", "shared_noise")
def noise_shared_by_the_problems(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    y, d = observation.y, observation.matrix.shape[1]
    obs = LinearObservation(observation.matrix, y.repeat(n_draws, 1), observation.noise_std)
    guided = controllable_generation.pseudoinverse_guidance(score, sde, obs, data_std=data_std)

    def draw():
        z = torch.randn(n_draws, 1, d, generator=generator, dtype=y.dtype)
        return z.expand(-1, len(y), -1).reshape(-1, d)

    x = sde.prior_std * draw()
    for t, t_next in itertools.pairwise(sde.time_grid(200, dtype=y.dtype)):
        g, dt = sde.diffusion(t), t_next - t
        x = (x + (sde.drift(x, t) - g**2 * guided(x, t)) * dt + g * (-dt).sqrt() * draw()).detach()
    return x.reshape(n_draws, len(y), d)


@wrong(
    "posterior",
    "no_data_std",
    "std_for_variance",
)
def two_scales_missed(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    y, d = observation.y, observation.matrix.shape[1]
    obs = LinearObservation(observation.matrix, y.repeat(n_draws, 1), observation.noise_std**2)
    guided = controllable_generation.pseudoinverse_guidance(score, sde, obs)
    start = sde.sample_prior((n_draws * len(y), d), generator=generator, dtype=y.dtype)
    x = continuous.euler_maruyama(sde, guided, start, n_steps=150, generator=generator)
    return x.reshape(n_draws, len(y), d)


@right("coverage")
def by_numpy_problem_by_problem(draws, truth, level=0.9):
    shares = []
    for b in range(truth.shape[0]):
        q = np.quantile(draws[:, b].numpy(), [0.5 - level / 2, 0.5 + level / 2], axis=0)
        t = truth[b].numpy()
        shares.append(np.mean((t >= q[0]) & (t <= q[1])))
    return float(np.mean(shares)), float(np.std(shares, ddof=1) / np.sqrt(len(shares)))


@right("coverage")
def by_the_share_of_draws_below(draws, truth, level=0.9):
    """A truth lies in the interval if the share of draws below it does."""
    below = draws.lt(truth).double().mean(dim=0)
    inside = (below - 0.5).abs().le(level / 2 + 1e-9).double()
    problems = inside.mean(dim=1)
    variance, mean = torch.var_mean(problems)
    return mean.item(), variance.div(problems.numel()).sqrt().item()


@wrong("coverage", "full_tails")
def whole_complement_at_each_end(draws, truth, level=0.9):
    q = torch.quantile(draws, torch.tensor([1 - level, level], dtype=draws.dtype), dim=0)
    inside = torch.logical_and(truth > q.min(0).values, truth < q.max(0).values).to(truth.dtype).mean(dim=-1)
    return inside.mean().item(), inside.std().item() / math.sqrt(inside.numel())


@wrong("coverage", "dependent_entries")
def binomial_error(draws, truth, level=0.9):
    lower = torch.quantile(draws, (1 - level) / 2, dim=0)
    upper = torch.quantile(draws, 1 - (1 - level) / 2, dim=0)
    p = ((truth >= lower) & (truth <= upper)).float().mean().item()
    return p, math.sqrt(p * (1 - p) / truth.numel())


@wrong("coverage", "normal_interval")
def normal_interval(draws, truth, level=0.9):
    z = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor((1 + level) / 2)).item()
    hit = ((truth - draws.mean(0)).abs() <= z * draws.std(0)).to(torch.float64)
    per_problem = hit.mean(1)
    return per_problem.mean().item(), (per_problem.std() / len(per_problem) ** 0.5).item()


@right("ranks")
def by_searching_sorted_draws(draws, truth):
    """Where each truth would be put among its own sorted draws."""
    ordered = draws.permute(1, 2, 0).sort(-1).values.contiguous()
    return torch.searchsorted(ordered, truth.unsqueeze(-1).contiguous()).squeeze(-1)


@right("ranks")
def by_heaviside(draws, truth):
    steps = torch.heaviside(truth.unsqueeze(0) - draws, torch.zeros((), dtype=draws.dtype))
    return torch.einsum("nbd->bd", steps)


@wrong("ranks", "from_one")
def counted_from_one(draws, truth):
    company = torch.cat([truth[None], draws])
    return company.argsort(0).argsort(0)[0] + 1


@wrong("ranks", "pooled")
def among_the_draws_of_all(draws, truth):
    _, B, d = draws.shape
    out = torch.empty(B, d)
    for k in range(d):
        everything = np.sort(draws[:, :, k].numpy().ravel())
        out[:, k] = torch.from_numpy(np.searchsorted(everything, truth[:, k].numpy()) / B).round()
    return out


# What cells of the assignments judge.


@right("verdict cells")
def verdict_by_t_statistics(draws, truth):
    n, n_problems, _ = draws.shape
    u = ((draws.numpy() < truth.numpy()).sum(axis=0) + 0.5) / (n + 1) - 0.5

    def t(values):
        return values.mean() / (values.std(ddof=1) / np.sqrt(n_problems))

    t_place, t_width = t(u.mean(axis=1)), t((12 * u**2 - 1).mean(axis=1))
    if np.abs(t_place) > 4:
        return "shifted"
    return {0: "right", 1: "too narrow", -1: "too wide"}[int(np.sign(t_width)) if np.abs(t_width) > 4 else 0]


@wrong("verdict cells", "unforeseen")
def verdict_at_two_errors(draws, truth):
    u = ((draws < truth).sum(0) + 0.5) / (draws.shape[0] + 1) - 0.5
    m, v = u.mean(1), (12 * u**2).mean(1)
    B = truth.shape[0]
    if m.mean().abs() > 2 * m.std() / math.sqrt(B):
        return "shifted"
    if v.mean() > 1 + 2 * v.std() / math.sqrt(B):
        return "too narrow"
    if v.mean() < 1 - 2 * v.std() / math.sqrt(B):
        return "too wide"
    return "right"


@wrong("verdict cells", "unforeseen")
def verdict_upside_down(draws, truth):
    place = ((draws < truth).sum(dim=0) + 0.5).div(len(draws) + 1).sub(0.5)
    first, second = place.mean(1), place.square().mul(12).mean(1)
    errors = [x.std().item() / len(truth) ** 0.5 for x in (first, second)]
    if abs(first.mean().item()) > 4 * errors[0]:
        return "shifted"
    excess = second.mean().item() - 1
    if abs(excess) <= 4 * errors[1]:
        return "right"
    return "too wide" if excess > 0 else "too narrow"


@right("predictor-corrector cells")
def pc_written_out(sde, score, x, *, n_steps, n_corrector_steps=1, snr=0.16, t_min=1e-3, generator=None):
    """No helpers: a clock that runs down, and a loop in a loop."""
    h = (1 - t_min) / n_steps
    for k in range(n_steps):
        now = torch.tensor(1 - k * h, dtype=x.dtype)
        then = torch.tensor(1 - (k + 1) * h, dtype=x.dtype)
        g = sde.diffusion(now).item()
        x = x - h * sde.drift(x, now) + h * g**2 * score(x, now)
        x = x + g * h**0.5 * torch.empty_like(x).normal_(generator=generator)
        r = snr * sde.sigma(then).item()
        for _ in range(n_corrector_steps):
            x = x + 2 * r * r * score(x, then) + 2 * r * torch.empty_like(x).normal_(generator=generator)
    return (x + sde.sigma(then) ** 2 * score(x, then)) / sde.alpha(then)


@wrong("predictor-corrector cells", "unforeseen")
def pc_corrector_first(sde, score, x, *, n_steps, n_corrector_steps=1, snr=0.16, t_min=1e-3, generator=None):
    timesteps = torch.linspace(1, t_min, n_steps + 1, dtype=x.dtype)
    for t, t_next in itertools.pairwise(timesteps):
        eps = 2 * (snr * sde.sigma(t)) ** 2
        for _ in range(n_corrector_steps):
            z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = x + eps * score(x, t) + torch.sqrt(2 * eps) * z
        dt, g = t_next - t, sde.diffusion(t)
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * torch.sqrt(-dt) * z
    return (x + sde.sigma(t_next) ** 2 * score(x, t_next)) / sde.alpha(t_next)


@wrong("predictor-corrector cells", "coupled")
def pc_step_from_norms(sde, score, x, *, n_steps, n_corrector_steps=1, snr=0.16, t_min=1e-3, generator=None):
    timesteps = torch.linspace(1, t_min, n_steps + 1, dtype=x.dtype)
    for t, t_next in itertools.pairwise(timesteps):
        dt, g = t_next - t, sde.diffusion(t)
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x + (sde.drift(x, t) - g**2 * score(x, t)) * dt + g * torch.sqrt(-dt) * z
        for _ in range(n_corrector_steps):
            grad = score(x, t_next)
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
            grad_norm = torch.norm(grad.reshape(grad.shape[0], -1), dim=-1).mean()
            noise_norm = torch.norm(noise.reshape(noise.shape[0], -1), dim=-1).mean()
            step_size = (snr * noise_norm / grad_norm) ** 2 * 2
            x = x + step_size * grad + torch.sqrt(step_size * 2) * noise
    return (x + sde.sigma(t_next) ** 2 * score(x, t_next)) / sde.alpha(t_next)


@right("posterior cells")
def posterior_by_own_loop(sde, score, observation, shape, *, n_steps=200, data_std=1.0, generator=None):
    """Its own steps, guided by the book, at times that crowd where there is little noise."""
    y = observation.y
    posterior = controllable_generation.pseudoinverse_guidance(score, sde, observation, data_std=data_std)
    x = sde.prior_std * torch.randn(shape, generator=generator, dtype=y.dtype)
    for t, s in itertools.pairwise(torch.linspace(1, 1e-3, n_steps + 1, dtype=y.dtype)):
        x = x - (t - s) * continuous.reverse_drift(sde, posterior, x, t)
        x = x + sde.diffusion(t) * (t - s).sqrt() * torch.randn(shape, generator=generator, dtype=y.dtype)
        x = x.detach()
    return sde.denoise(posterior, x, s).detach()


@wrong("posterior cells", "random")
def generator_for_the_starts_only(sde, score, observation, shape, *, n_steps=200, data_std=1.0, generator=None):
    guided = controllable_generation.pseudoinverse_guidance(score, sde, observation, data_std=data_std)
    x_T = sde.sample_prior(shape, generator=generator, dtype=observation.y.dtype)
    return continuous.euler_maruyama(sde, guided, x_T, n_steps=n_steps)


@right("coverage cells")
def coverage_by_sorting(samples, truth, level=0.9):
    """Order statistics by hand, with the linear rule between them."""
    ordered = np.sort(samples.detach().cpu().numpy(), axis=0)

    def quantile(q):
        place = q * (len(ordered) - 1)
        k = min(int(place), len(ordered) - 2)
        return ordered[k] + (place - k) * (ordered[k + 1] - ordered[k])

    t = truth.detach().cpu().numpy()
    return float(((quantile((1 - level) / 2) <= t) & (t <= quantile((1 + level) / 2))).mean())


@wrong("coverage cells", "one_sided")
def coverage_one_sided(samples, truth, level=0.9):
    upper = torch.quantile(samples, level, dim=0)
    return (truth <= upper).double().mean().item()


def _box(x):
    return torch.full((1, 1, 2, 2), 0.25, dtype=x.dtype, device=x.device)


catalogue.add(
    "shrink cells",
    "convolution_and_its_transpose",
    (lambda x: F.conv2d(x, _box(x), stride=2), lambda y: F.conv_transpose2d(y, _box(y), stride=2)),
)


def _takes_every_second(x):
    return x[..., ::2, ::2]


def _puts_back_every_second(y):
    x = torch.zeros(*y.shape[:2], 2 * y.shape[2], 2 * y.shape[3], dtype=y.dtype)
    x[..., ::2, ::2] = y
    return x


catalogue.add(
    "shrink cells",
    "every_second_pixel",
    (_takes_every_second, _puts_back_every_second),
    "unforeseen",
)
