"""Answers on which the checks were mended: what they once refused, let pass or misnamed, and the like of it.

The factories write down an answer once, with the place of each slip as an argument.
"""

import itertools
import math

import numpy as np
import torch
from torch.distributions import Normal
from torchdiffeq import odeint

from catalogue import (
    Catalogue,
    normal,
    tuned_classes,
    tuned_ddpm,
    tuned_estimates,
    tuned_names,
    tuned_samplers,
    tuned_third,
)
from scorebook import controllable_generation, langevin, noise_scales, probability_flow, sliced_score_matching
from scorebook import sde as continuous

catalogue = Catalogue()
catalogue.include(tuned_classes.catalogue)
catalogue.include(tuned_ddpm.catalogue)
catalogue.include(tuned_samplers.catalogue)
catalogue.include(tuned_estimates.catalogue)
catalogue.include(tuned_names.catalogue)
catalogue.include(tuned_third.catalogue)


right = wrong = catalogue.add  # a right answer has no mistakes


def shared_by_halves(x, generator):
    """The second half of the batch gets the noise of the first."""
    half = normal(x[: (len(x) + 1) // 2], generator)
    return torch.cat([half, half])[: len(x)]


def mirrored(x, generator):
    """The second half of the batch gets the noise of the first, with the other sign."""
    half = normal(x[: (len(x) + 1) // 2], generator)
    return torch.cat([half, -half])[: len(x)]


def shared_by_pairs(x, generator):
    """Coordinates 1 and 2, 3 and 4, ... get the same noise."""
    d = x.shape[1]
    z = torch.randn(len(x), (d + 1) // 2, generator=generator, dtype=x.dtype)
    return z.repeat_interleave(2, 1)[:, :d]


def neighbours(x, generator):
    """Rows 1 and 2, 3 and 4, ... get the same noise."""
    return normal(x[: (len(x) + 1) // 2], generator).repeat_interleave(2, 0)[: len(x)]


def for_all_rows(x, generator):
    """All points get the same noise."""
    return torch.randn(x.shape[1], generator=generator, dtype=x.dtype).expand_as(x)


def for_all_coordinates(x, generator):
    """All coordinates of a point get the same noise."""
    return torch.randn(len(x), 1, generator=generator, dtype=x.dtype).expand_as(x)


def of_fixed_seed(x, generator):
    """The same noise in every call."""
    torch.manual_seed(0)
    return torch.randn(x.shape, dtype=x.dtype)


def of_own_generator(x, generator):
    """The same noise in every call, by a generator made inside."""
    return normal(x, torch.Generator().manual_seed(3))


def uniform(x, generator):
    """Noise by ``rand``."""
    return torch.rand(x.shape, generator=generator, dtype=x.dtype)


DEPENDENT = {
    "halves": (shared_by_halves, "shared_noise"),
    "mirrored": (mirrored, "shared_noise"),
    "pairs_of_coordinates": (shared_by_pairs, "shared_noise"),
    "neighbours": (neighbours, "shared_noise"),
    "all_rows": (for_all_rows, "shared_noise"),
    "all_coordinates": (for_all_coordinates, "shared_noise"),
    "fixed_seed": (of_fixed_seed, "fixed_seed"),
    "own_generator": (of_own_generator, "fixed_seed"),
}


# Scores of mixtures: what goes wrong in the responsibilities.


def mixture(log_part=None, pull=None, sign=1.0):
    """Student's score of a mixture of round Gaussians."""

    def score(x, weights, means, variances):
        gaps = means - x[:, None]
        square, d = gaps.square().sum(2), x.shape[1]
        part = weights.log() - square / (2 * variances) - d / 2 * variances.log()
        part = part if log_part is None else log_part(weights, square, variances, d)
        pulls = gaps / variances[:, None] if pull is None else pull(gaps, variances[:, None])
        return sign * (part.softmax(1)[:, :, None] * pulls).sum(1)

    return score


def plain_part(w, sq, v, d):
    return w.log() - sq / (2 * v)


right("mixture score", "by_hand", mixture())
wrong("mixture score", "no_normaliser", mixture(plain_part), "normaliser")
wrong(
    "mixture score",
    "exponent_without_half",
    mixture(lambda w, sq, v, d: w.log() - sq / v - d / 2 * v.log()),
    "exponent",
)
wrong(
    "mixture score",
    "exponent_by_std",
    mixture(lambda w, sq, v, d: w.log() - sq / (2 * v.sqrt()) - d / 2 * v.log()),
    "exponent",
)
wrong("mixture score", "no_weights", mixture(lambda w, sq, v, d: -sq / (2 * v) - d / 2 * v.log()), "weights")
wrong("mixture score", "no_precision", mixture(pull=lambda gaps, v: gaps), "precision")
wrong("mixture score", "sign_of_all", mixture(sign=-1.0), "sign")
wrong("mixture score", "sign_and_no_normaliser", mixture(plain_part, sign=-1.0), "sign", "normaliser")
wrong(
    "mixture score",
    "no_normaliser_and_std",
    mixture(plain_part, lambda g, v: g / v.sqrt()),
    "normaliser",
    "std_for_variance",
)
wrong("mixture score", "no_normaliser_no_precision", mixture(plain_part, lambda g, v: g), "normaliser", "precision")


# Divergences.


def by_differences(field, x):
    """In NumPy, by central differences."""
    points, h = x.numpy(), 1e-5
    total = np.zeros(len(points))
    for i in range(points.shape[1]):
        step = np.zeros_like(points)
        step[:, i] = h
        up, down = (field(torch.from_numpy(points + s * step)).numpy() for s in (1, -1))
        total += (up - down)[:, i] / (2 * h)
    return torch.from_numpy(total)


def exact(field, x, create_graph=True):
    """By one call of autograd for each coordinate."""
    x = x.detach().clone().requires_grad_()
    out = field(x)
    return sum(
        torch.autograd.grad(out[:, i].sum(), x, create_graph=create_graph, retain_graph=True)[0][:, i]
        for i in range(x.shape[1])
    )


right("divergence", "numpy_differences", by_differences)
right("divergence", "with_graph", exact)
right("divergence", "without_graph", lambda field, x: exact(field, x, create_graph=False))
right("differentiable divergence", "with_graph_asked", exact)
right(
    "differentiable divergence",
    "jacrev_under_vmap",
    lambda field, x: torch.func.vmap(lambda r: torch.func.jacrev(lambda v: field(v[None])[0])(r).trace())(x),
)
wrong("differentiable divergence", "detached", lambda field, x: exact(field, x, create_graph=False), "detached")
wrong("differentiable divergence", "detached_at_last", lambda field, x: exact(field, x).detach(), "detached")
wrong("divergence", "sign", lambda field, x: -exact(field, x), "sign")
wrong("divergence", "sign_and_half", lambda field, x: -0.5 * exact(field, x), "sign", "half")
wrong("divergence", "twice_the_mean", lambda field, x: 2 * exact(field, x) / x.shape[1], "twice", "unit_projections")


def along(draw, n=1, after=lambda total, n: total / n, loud=0.0):
    """Student's estimate of a divergence along random directions."""

    def estimate(field, x, *, generator):
        x = x.detach().clone().requires_grad_()
        out, total = field(x), 0.0
        for _ in range(n):
            v = draw(x, generator)
            total = total + (torch.autograd.grad((out * v).sum(), x, retain_graph=True)[0] * v).sum(1)
        return after(total, n) + loud * torch.randn(len(x), generator=generator, dtype=x.dtype)

    return estimate


def signs(x, generator):
    return torch.where(uniform(x, generator) < 0.5, -1.0, 1.0).to(x)


def on_the_sphere(x, generator):
    return torch.nn.functional.normalize(normal(x, generator), dim=1)


right("estimate", "normal_probes", along(normal))
right("estimate", "one_probe_for_the_batch", along(for_all_rows))
right("estimate", "on_a_sphere", along(lambda x, g: on_the_sphere(x, g) * x.shape[1] ** 0.5))
wrong("estimate", "loud", along(signs, loud=1e3), "loud_noise")
wrong("estimate", "noise_of_its_own", along(signs, loud=30.0), "loud_noise")
wrong("estimate", "added_up", along(signs, 3, lambda total, n: total), "projections_added")
wrong("estimate", "ten_added_up", along(normal, 10, lambda total, n: total), "projections_added")
wrong("estimate", "symmetric_uniform", along(lambda x, g: 2 * uniform(x, g) - 1), "uniform_symmetric")
wrong("estimate", "same_probe", along(of_fixed_seed), "fixed_seed|same_probe")
wrong(
    "estimate in 3 dimensions", "symmetric_uniform_in_3", along(lambda x, g: 2 * uniform(x, g) - 1), "uniform_symmetric"
)
wrong("estimate in 3 dimensions", "unit_in_3", along(on_the_sphere), "unit_projections")
wrong("estimate", "sign_and_unit", along(on_the_sphere, after=lambda total, n: -total), "sign", "unit_projections")


# Losses without noise.


def sliced(draw=normal, trace=1.0, square=0.5, n=1, after=lambda total, n: total / n, loud=0.0):
    """Student's sliced loss."""

    def loss(model, x, *, generator):
        x, total = x.detach().clone().requires_grad_(), 0.0
        for _ in range(n):
            v, s = draw(x, generator), model(x)
            (back,) = torch.autograd.grad((s * v).sum(), x, create_graph=True)
            total = total + (trace * (back * v).sum(1) + square * (s * v).sum(1) ** 2).mean()
        return after(total, n) * (1 + loud * torch.randn((), generator=generator))

    return loss


right("sliced loss", "by_hand", sliced())
right("sliced loss", "signs", sliced(signs, n=2))
right("sliced loss", "one_probe_for_the_batch", sliced(for_all_rows))
right("sliced loss", "the_books", sliced_score_matching.sliced_score_matching_loss)
wrong("sliced loss", "loud", sliced(loud=30.0), "loud_noise")
wrong("sliced loss", "added_up", sliced(n=4, after=lambda total, n: total), "projections_added")
wrong("sliced loss", "fixed_seed", sliced(of_fixed_seed), "fixed_seed|same_probe")
wrong("sliced loss", "trace_sign", sliced(signs, trace=-1.0), "trace_sign")
wrong("sliced loss", "half_and_sign", sliced(signs, trace=-1.0, square=1.0), "trace_sign", "half")


def implicit(trace=1.0, square=0.5, create_graph=True, over=lambda s: s.square().sum(1)):
    """Student's implicit loss."""

    def loss(model, x):
        return (trace * exact(model, x, create_graph) + square * over(model(x))).mean()

    return loss


right("implicit loss", "by_hand", implicit())
right(
    "implicit loss",
    "in_chunks",
    lambda model, x: sum(implicit()(model, part) * len(part) for part in x.split(7)) / len(x),
)
wrong("implicit loss", "trace_sign_and_half", implicit(-1.0, 1.0), "trace_sign", "half")
wrong("implicit loss", "detached_and_half", implicit(square=1.0, create_graph=False), "detached", "half")
wrong(
    "implicit loss", "detached_and_norm", implicit(create_graph=False, over=lambda s: s.norm(dim=1)), "detached", "norm"
)
wrong("implicit loss", "detached", implicit(create_graph=False), "detached")
wrong(
    "explicit loss",
    "mean_and_sign",
    lambda model, x, score: 0.5 * (model(x) + score(x)).square().mean(),
    "mean_dims",
    "sign",
)


# Losses with noise.


def denoising(draw=normal, *, add=None, told=None, residual=None, weight=None, factor=0.5, reduce=None):
    """Student's denoising loss."""

    def loss(model, x, sigma, *, generator):
        c, z = sigma[:, None], draw(x, generator)
        s = model(x + (c * z if add is None else add(c, z)), sigma if told is None else told(sigma))
        r = s + z / c if residual is None else residual(s, z, c)
        squares = r.square().sum(1) if reduce is None else reduce(r.square())
        return factor * ((sigma**2 if weight is None else weight(sigma)) * squares).mean()

    return loss


def chunked(model, x, sigma, *, generator):
    """The batch in pieces, for want of memory."""
    parts = zip(x.split(500), sigma.split(500), strict=True)
    return sum(denoising()(model, a, b, generator=generator) * len(a) for a, b in parts) / len(x)


def asked_twice(model, x, sigma, *, generator):
    """A first call to see the shape, and the same point twice."""
    c, z = sigma[:, None], normal(x, generator)
    assert model(x, sigma).shape == x.shape
    with torch.no_grad():
        before = (c * model(x + c * z, sigma) + z).square().sum(1).mean()
    loss = 0.5 * (c * model(x + c * z, sigma) + z).square().sum(1).mean()
    return loss if before.isfinite() else 0 * loss


def vmapped(model, x, sigma, *, generator):
    """The model for one point, mapped over the batch."""
    z = normal(x, generator)

    def one(point, scale, noise):
        return 0.5 * (scale * model((point + scale * noise)[None], scale[None])[0] + noise).square().sum()

    return torch.vmap(one)(x, sigma, z).mean()


def vmapped_bare(model, x, sigma, *, generator):
    """The model itself, mapped over the batch."""
    c, z = sigma[:, None], normal(x, generator)
    return 0.5 * (c * torch.vmap(model)(x + c * z, sigma) + z).square().sum(1).mean()


def fresh_target(model, x, sigma, *, generator):
    """Noise drawn anew for the target."""
    c = sigma[:, None]
    s = model(x + c * normal(x, generator), sigma)
    return 0.5 * (c * s + normal(x, generator)).square().sum(1).mean()


right("denoising loss", "chunked", chunked)
right("denoising loss", "asked_twice", asked_twice)
right("denoising loss", "vmapped", vmapped)
right("denoising loss", "vmapped_bare", vmapped_bare)
right("denoising loss", "the_books", noise_scales.denoising_score_matching_loss)
wrong(
    "denoising loss",
    "column_times_row",
    lambda model, x, sigma, *, generator: denoising(weight=lambda s: s[:, None] ** 2)(
        model, x, sigma, generator=generator
    ),
    "crossed",
)
wrong("denoising loss", "weight_of_the_fourth_power", denoising(weight=lambda s: s**4), "squared_weight")
wrong("denoising loss", "weight_inverse", denoising(weight=lambda s: s**-2), "inverse_weight")
wrong(
    "denoising loss",
    "prediction_of_the_noise",
    denoising(residual=lambda s, z, c: s - z, weight=torch.ones_like),
    "noise_prediction",
)
wrong("denoising loss", "unit_noise", denoising(add=lambda c, z: z), "no_sigma")
wrong("denoising loss", "fresh_target", fresh_target, "fresh_target")
wrong("denoising loss", "sigma_of_variance", denoising(told=torch.square), "variance_for_std")
wrong("denoising loss", "index_for_sigma", denoising(told=lambda s: torch.arange(len(s)).to(s)), "noise_scale")
for name, (draw, key) in DEPENDENT.items():
    wrong("denoising loss", f"noise_{name}", denoising(draw), key)
wrong("denoising loss", "no_half_no_weight", denoising(weight=torch.ones_like, factor=1.0), "half", "unweighted")
wrong(
    "denoising loss",
    "sign_and_mean",
    denoising(residual=lambda s, z, c: s - z / c, reduce=lambda sq: sq.mean(1)),
    "target_sign",
    "mean_dims",
)
wrong(
    "denoising loss",
    "variance_and_half",
    denoising(add=lambda c, z: c**2 * z, residual=lambda s, z, c: s + z / c, factor=1.0),
    "variance_for_std",
    "half",
)
wrong("denoising loss", "rand_and_half", denoising(uniform, factor=1.0), "uniform_noise", "half")


def over_time(draw=normal, *, times=None, alpha=None, sigma=None, told=None, residual=None, weight=None, factor=0.5):
    """Student's loss in continuous time."""

    def loss(model, sde, x, *, generator):
        t = 1e-3 + (1 - 1e-3) * torch.rand(len(x), generator=generator, dtype=x.dtype)
        t = t if times is None else times(t, generator)
        a, c, g = (part(t)[:, None] for part in (sde.alpha, sde.sigma, sde.diffusion))
        z = draw(x, generator)
        size = c if sigma is None else sigma(c, g)
        s = model((a if alpha is None else alpha(a)) * x + size * z, t if told is None else told(sde, t))
        r = s + z / c if residual is None else residual(s, z, c)
        return factor * ((c**2 if weight is None else weight(c, g)) * r.square()).sum(1).mean()

    return loss


def one_time(t, generator):
    return t[:1].expand_as(t)


def importance(model, sde, x, *, generator):
    """Times from a density 2t, and their weight."""
    t = torch.rand(len(x), generator=generator, dtype=x.dtype).sqrt().clamp(min=1e-3)
    a, c, z = sde.alpha(t)[:, None], sde.sigma(t)[:, None], normal(x, generator)
    squares = 0.5 * (c * model(a * x + c * z, t) + z).square().sum(1)
    return (squares / (2 * t)).mean()


def chunked_over_time(model, sde, x, *, generator):
    return sum(over_time()(model, sde, part, generator=generator) * len(part) for part in x.split(600)) / len(x)


right("sde loss", "one_time_for_the_batch", over_time(times=one_time))
right("sde loss", "scalar_time", lambda model, sde, x, *, generator: _scalar_time(model, sde, x, generator))
right("sde loss", "importance_sampled", importance)
right("sde loss", "chunked", chunked_over_time)
right("sde loss", "the_books", continuous.score_matching_loss)


def _scalar_time(model, sde, x, generator):
    t = torch.rand((), generator=generator, dtype=x.dtype).clamp(min=1e-3)
    c, z = sde.sigma(t), normal(x, generator)
    return 0.5 * (c * model(sde.alpha(t) * x + c * z, t) + z).square().sum(1).mean()


wrong("sde loss", "half_for_all", over_time(times=lambda t, g: torch.full_like(t, 0.5)), "fixed_time")
wrong("sde loss", "one_fixed_time", over_time(times=lambda t, g: torch.full_like(t, 0.3)), "fixed_time")
wrong(
    "sde loss",
    "times_of_fixed_seed",
    over_time(times=lambda t, g: uniform(t, torch.Generator().manual_seed(1))),
    "fixed_seed",
)
wrong("sde loss", "times_by_randn", over_time(times=lambda t, g: normal(t, g).abs().clamp(1e-3, 1)), "wrong_times")
wrong("sde loss", "weighted_towards_the_end", over_time(times=lambda t, g: t.sqrt()), "wrong_times")
wrong("sde loss", "alpha_squared", over_time(alpha=torch.square), "alpha_squared")
wrong("sde loss", "g_for_sigma", over_time(sigma=lambda c, g: g), "diffusion_for_sigma")
wrong("sde loss", "told_sigma", over_time(told=lambda sde, t: sde.sigma(t)), "noise_scale")
wrong("sde loss", "told_another_time", over_time(told=lambda sde, t: 1 - t), "wrong_time")
wrong("sde loss", "root_of_alpha", over_time(alpha=torch.sqrt), "alpha_squared")
for name in ("halves", "pairs_of_coordinates", "fixed_seed"):
    wrong("sde loss", f"noise_{name}", over_time(DEPENDENT[name][0]), DEPENDENT[name][1])
wrong("sde loss", "alpha_and_half", over_time(alpha=torch.ones_like, factor=1.0), "no_alpha", "half")
wrong(
    "sde loss",
    "g_for_sigma_and_weight",
    over_time(sigma=lambda c, g: g, weight=lambda c, g: torch.ones_like(c)),
    "diffusion_for_sigma",
    "unweighted",
)
wrong("sde loss", "sign_and_half", over_time(residual=lambda s, z, c: s - z / c, factor=1.0), "target_sign", "half")


# Langevin dynamics.


def chain(drift=lambda e, s: e * s, kick=lambda e: math.sqrt(2 * e), draw=normal, steps=lambda n: n, stale=None):
    """Student's Langevin sampler; ``stale`` says at which state the score is asked."""

    def sampler(score, x, *, step_size, n_steps, generator):
        states = [x]
        for k in range(steps(n_steps)):
            at = states[-1] if stale is None else states[stale(k)]
            z = draw(x, generator)
            states.append(states[-1] + drift(step_size, score(at)) + kick(step_size) * z)
        return states[-1]

    return sampler


def quiet_end(score, x, *, step_size, n_steps, generator):
    """No noise in the last step, as a sampler of DDPM has it."""
    for k in range(n_steps):
        x = x + step_size * score(x) + (math.sqrt(2 * step_size) * normal(x, generator) if k < n_steps - 1 else 0.0)
    return x


right("langevin", "the_books", langevin.langevin)
right("langevin", "by_hand", chain())
wrong("langevin", "quiet_end", quiet_end, "no_last_noise")
wrong("langevin", "score_of_the_start", chain(stale=lambda k: 0), "stale_score")
wrong("langevin", "score_of_the_step_before", chain(stale=lambda k: max(k - 1, 0)), "stale_score")
wrong("langevin", "half_and_bare_noise", chain(lambda e, s: e * s / 2, lambda e: e), "common_factor")
wrong("langevin", "whole_and_bare_noise", chain(lambda e, s: e * s, lambda e: e), "no_root")
for name, (draw, key) in DEPENDENT.items():
    wrong("langevin", f"noise_{name}", chain(draw=draw), "fixed_seed|same_noise" if key == "fixed_seed" else key)
wrong("langevin", "down_and_root", chain(lambda e, s: -e * s, math.sqrt), "drift_sign", "epsilon_for_two_epsilon")
wrong("langevin", "no_noise_and_half", chain(lambda e, s: e * s / 2, lambda e: 0.0), "no_noise", "half_drift")
wrong("langevin", "no_noise_and_extra", chain(kick=lambda e: 0.0, steps=lambda n: n + 1), "no_noise", "extra_step")
wrong(
    "langevin",
    "root_and_step_missing",
    chain(kick=math.sqrt, steps=lambda n: n - 1),
    "epsilon_for_two_epsilon",
    "step_missing",
)


# Annealed Langevin dynamics.


def annealed(
    step=lambda e, s, last: e * (s / last) ** 2, kick=lambda a: math.sqrt(2 * a), draw=normal, level=0, once=None
):
    """Student's annealed sampler: ``level`` is how far off its scales are, ``once`` what noise is drawn once for."""

    def sampler(score, x, sigmas, *, step_size, n_steps_each, generator):
        z = None
        for i, s in enumerate(sigmas):
            a = float(step(step_size, s, sigmas[-1]))
            asked = sigmas[min(max(i + level, 0), len(sigmas) - 1)]
            for k in range(n_steps_each):
                if once is None or z is None or (once == "level" and k == 0):
                    z = draw(x, generator)
                x = x + a * score(x, asked) + kick(a) * z
        return x + sigmas[-1] ** 2 * score(x, sigmas[-1])

    return sampler


right("annealed", "the_books", noise_scales.annealed_langevin)
right("annealed", "by_hand", annealed())
wrong("annealed", "next_level", annealed(level=1), "wrong_scale")
wrong("annealed", "level_before", annealed(level=-1), "wrong_scale")
wrong("annealed", "noise_once", annealed(once="path"), "same_noise")
wrong("annealed", "noise_once_a_level", annealed(once="level"), "same_noise")
wrong("annealed", "step_of_the_variance", annealed(lambda e, s, last: e * s**2), "no_last_scale")
wrong("annealed", "step_of_sigma", annealed(lambda e, s, last: e * s), "no_last_scale")
for name in ("halves", "pairs_of_coordinates", "all_rows", "all_coordinates"):
    wrong("annealed", f"noise_{name}", annealed(draw=DEPENDENT[name][0]), DEPENDENT[name][1])
wrong("annealed", "noise_fixed_seed", annealed(draw=of_fixed_seed), "fixed_seed|same_noise")
wrong(
    "annealed",
    "seed_before_the_loops",
    lambda score, x, sigmas, *, step_size, n_steps_each: _seeded(score, x, sigmas, step_size, n_steps_each),
    "fixed_seed",
)
wrong(
    "annealed",
    "root_and_constant",
    annealed(lambda e, s, last: e, math.sqrt),
    "epsilon_for_two_epsilon",
    "constant_step",
)
wrong("annealed", "level_and_root", annealed(kick=math.sqrt, level=1), "wrong_scale", "epsilon_for_two_epsilon")


def _seeded(score, x, sigmas, step_size, n_steps_each):
    torch.manual_seed(0)
    return annealed()(score, x, sigmas, step_size=step_size, n_steps_each=n_steps_each, generator=None)


# SDEs.


def process(**wrong):
    """A student's VP SDE, with wrong functions in place of its own."""

    class VP:
        def beta(self, t):
            return 0.1 + 19.9 * t

        def integral(self, t):
            return 0.1 * t + 19.9 * t**2 / 2

        def alpha(self, t):
            return torch.exp(-0.5 * self.integral(t))

        def sigma(self, t):
            return torch.sqrt(1 - torch.exp(-self.integral(t)))

        def drift(self, x, t):
            return -0.5 * self.beta(t)[:, None] * x

        def diffusion(self, t):
            return torch.sqrt(self.beta(t))

    for name, function in wrong.items():
        setattr(VP, name, function)
    return VP


def beta_times_t(self, t):
    return self.beta(t) * t


def root_of_one_minus_alpha(self, t):
    return torch.sqrt(1 - self.alpha(t))


def drawn(draw):
    def perturb(self, x0, t, *, generator=None):
        z = draw(x0, generator)
        return self.alpha(t)[:, None] * x0 + self.sigma(t)[:, None] * z, z

    return perturb


for kind in ("sde", "sde alone"):
    right(kind, "by_hand", process())
    right(kind, "with_perturb", process(perturb=drawn(normal)))
    wrong(kind, "beta_times_t", process(integral=beta_times_t), "integral")
    wrong(kind, "root_of_one_minus_alpha", process(sigma=root_of_one_minus_alpha), "sigma_from_alpha")
    wrong(kind, "drift_without_half", process(drift=lambda self, x, t: -self.beta(t)[:, None] * x), "half")
    for name in ("halves", "pairs_of_coordinates", "fixed_seed"):
        wrong(kind, f"noise_{name}", process(perturb=drawn(DEPENDENT[name][0])), DEPENDENT[name][1])
wrong(
    "sde",
    "integral_and_squared",
    process(integral=beta_times_t, diffusion=lambda self, t: self.beta(t)),
    "integral",
    "squared_diffusion",
)
wrong(
    "sde",
    "half_and_root_two",
    process(drift=lambda self, x, t: -self.beta(t)[:, None] * x, diffusion=lambda self, t: (2 * self.beta(t)).sqrt()),
    "half",
    "root_two",
)
wrong(
    "sde",
    "sigma_and_sign",
    process(sigma=root_of_one_minus_alpha, drift=lambda self, x, t: 0.5 * self.beta(t)[:, None] * x),
    "sigma_from_alpha",
    "drift_sign",
)


# Steps back.


def step(
    f=None,
    s=lambda s: s,
    g_of=None,
    kick=lambda g, h: g * h.sqrt(),
    draw=normal,
    asked=lambda t, dt: t,
    size=lambda dt: dt,
):
    """Student's reverse step."""

    def one(sde, score, x, t, dt, *, generator=None):
        g = sde.diffusion(t)
        drift = sde.drift(x, t) if f is None else f(sde, x, t, g)
        squared = g**2 if g_of is None else g_of(g)
        change = (drift - squared * s(score(x, asked(t, dt)))) * size(dt)
        return x + change + kick(g, dt.abs()) * draw(x, generator)

    return one


right("reverse step", "by_hand", step())
right("reverse step", "column_of_times", step(asked=lambda t, dt: t.expand(1)))
wrong("reverse step", "vp_drift_for_all", step(lambda sde, x, t, g: -0.5 * g**2 * x), "own_drift")
wrong("reverse step", "half_of_the_drift", step(lambda sde, x, t, g: sde.drift(x, t) / 2), "half_drift")
wrong("reverse step", "twice_the_drift", step(lambda sde, x, t, g: 2 * sde.drift(x, t)), "double_drift")
wrong("reverse step", "no_drift_at_all", step(lambda sde, x, t, g: 0 * x), "no_drift")
for name, asked in {
    "the_time_reached": lambda t, dt: t + dt,
    "half_for_all": lambda t, dt: torch.full_like(t, 0.5),
    "the_middle": lambda t, dt: t + dt / 2,
    "half_of_it": lambda t, dt: t / 2,
    "none": lambda t, dt: torch.zeros_like(t),
    "what_is_left": lambda t, dt: 1 - t,
}.items():
    wrong("reverse step", f"score_at_{name}", step(asked=asked), "time_reached" if "reached" in name else "wrong_time")
for name, (draw, key) in DEPENDENT.items():
    wrong("reverse step", f"noise_{name}", step(draw=draw), key)
NO_NOISE = {"kick": lambda g, h: 0.0}
wrong("reverse step", "quiet", step(**NO_NOISE), "no_noise")
wrong("reverse step", "quiet_and_no_drift", step(lambda sde, x, t, g: 0 * x, **NO_NOISE), "no_noise", "no_drift")
wrong("reverse step", "quiet_and_score_sign", step(s=lambda s: -s, **NO_NOISE), "no_noise", "score_sign")
wrong("reverse step", "quiet_and_g", step(g_of=lambda g: g, **NO_NOISE), "no_noise", "diffusion_for_squared")
wrong("reverse step", "quiet_and_forward", step(size=torch.abs, **NO_NOISE), "no_noise", "time_direction")
wrong(
    "reverse step", "g_and_dt", step(g_of=lambda g: g, kick=lambda g, h: g * h), "diffusion_for_squared", "dt_for_root"
)
wrong("reverse step", "rand_and_half", step(s=lambda s: s / 2, draw=uniform), "uniform_noise", "half_score")
wrong("reverse step", "no_root_and_sign", step(s=lambda s: -s, kick=lambda g, h: g), "no_root_dt", "score_sign")
wrong(
    "reverse step",
    "vp_drift_and_dt",
    step(lambda sde, x, t, g: -0.5 * g**2 * x, kick=lambda g, h: g * h),
    "own_drift",
    "dt_for_root",
)


# The flow.


def flow(combine=lambda f, g, s: f - 0.5 * g**2 * s, asked=lambda t: t, f=None):
    """Student's velocity."""

    def velocity(sde, score):
        def field(t, x):
            g = sde.diffusion(t)
            return combine(sde.drift(x, t) if f is None else f(x, g), g, score(x, asked(t)))

        return field

    return velocity


right("flow", "by_hand", flow())
right(
    "flow",
    "vmapped_over_points",
    lambda sde, score: lambda t, x: torch.vmap(lambda p: flow()(sde, score)(t, p[None])[0])(x),
)
wrong("flow", "vp_drift_for_all", flow(f=lambda x, g: -0.5 * g**2 * x), "own_drift")
wrong("flow", "twice_the_drift", flow(lambda f, g, s: 2 * f - 0.5 * g**2 * s), "double_drift")
wrong("flow", "half_for_all", flow(asked=lambda t: torch.full_like(t, 0.5)), "wrong_time")
wrong("flow", "score_at_a_fixed_start", flow(asked=lambda t: torch.full_like(t, 1e-3)), "wrong_time")
wrong("flow", "what_is_left", flow(asked=lambda t: 1 - t), "wrong_time")
wrong("flow", "no_half_and_score_sign", flow(lambda f, g, s: f + g**2 * s), "half", "score_sign")
wrong("flow", "half_g_and_no_drift", flow(lambda f, g, s: -0.5 * g * s), "diffusion_for_squared", "no_drift")
wrong(
    "flow",
    "vp_drift_and_no_half",
    flow(lambda f, g, s: f - g**2 * s, f=lambda x, g: -0.5 * g**2 * x),
    "own_drift",
    "half",
)


# Likelihoods.


def traced(field, x, v=None):
    """A field and its divergence, exact or along a probe."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        out = field(x)
        if v is not None:
            return out.detach(), (torch.autograd.grad((out * v).sum(), x)[0] * v).sum(1)
        trace = sum(torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1]))
    return out.detach(), trace.detach()


def likelihood(
    *,
    probe=None,
    trace=traced,
    ends=(1e-3, 1.0),
    velocity=probability_flow.velocity,
    prior=None,
    sign=1.0,
    out=None,
    loud=0.0,
    **solver,
):
    """Student's likelihood by a black-box solver."""
    solver = solver or {"method": "dopri5", "rtol": 1e-5, "atol": 1e-5}

    def log_prob(sde, score, x, *rest, generator=None):
        field = velocity(sde, score)
        v = None if probe is None else probe(x, generator)

        def joint(t, state):
            return (
                trace(lambda x: field(t, x), state[0], v) if v is not None else trace(lambda x: field(t, x), state[0])
            )

        times = torch.tensor(ends, dtype=x.dtype)
        y, total = odeint(joint, (x, torch.zeros(len(x), dtype=x.dtype)), times, **solver)
        end = sde.prior_log_prob(y[-1]) if prior is None else prior(y[-1])
        value = end + sign * total[-1] + loud * torch.randn(len(x), generator=generator, dtype=x.dtype)
        return value if out is None else out(value, x.shape[1], *rest)

    return log_prob


def euler(n):
    """A likelihood by ``n`` steps of Euler."""

    def log_prob(sde, score, x):
        field, total = probability_flow.velocity(sde, score), 0.0
        for t, t_next in itertools.pairwise(torch.linspace(1e-3, 1, n + 1, dtype=x.dtype)):
            v, trace = traced(lambda x, t=t: field(t, x), x)
            x, total = x + (t_next - t) * v, total + (t_next - t) * trace
        return sde.prior_log_prob(x) + total

    return log_prob


def without_the_drifts_part(sde, score, x):
    """The drift is left out of the divergence, and kept in the velocity."""
    field = probability_flow.velocity(sde, score)

    def joint(t, state):
        _, trace = traced(lambda x: -0.5 * sde.diffusion(t) ** 2 * score(x, t), state[0])
        return field(t, state[0]).detach(), trace

    times = torch.tensor([1e-3, 1.0], dtype=x.dtype)
    y, total = odeint(joint, (x, torch.zeros(len(x), dtype=x.dtype)), times, method="rk4", options={"step_size": 0.02})
    return sde.prior_log_prob(y[-1]) + total[-1]


def numpy_differences(sde, score, x):
    """Classical Runge and Kutta, with the divergence by differences in NumPy."""
    field = probability_flow.velocity(sde, score)

    def rhs(t, points):
        v = field(t, torch.from_numpy(points)).numpy()
        trace, h = np.zeros(len(points)), 1e-5
        for i in range(points.shape[1]):
            e = np.zeros_like(points)
            e[:, i] = h
            up, down = (field(t, torch.from_numpy(points + s * e)).numpy() for s in (1, -1))
            trace += (up - down)[:, i] / (2 * h)
        return v, trace

    times = torch.linspace(1e-3, 1, 51, dtype=torch.float64)
    y, total = x.numpy(), np.zeros(len(x))
    for t, t_next in itertools.pairwise(times):
        h, middle = float(t_next - t), (t + t_next) / 2
        k1, d1 = rhs(t, y)
        k2, d2 = rhs(middle, y + h / 2 * k1)
        k3, d3 = rhs(middle, y + h / 2 * k2)
        k4, d4 = rhs(t_next, y + h * k3)
        y, total = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    return sde.prior_log_prob(torch.from_numpy(y)) + torch.from_numpy(total)


RK4 = {"method": "rk4", "options": {"step_size": 0.02}}
right("log prob", "dopri5", likelihood())
right("log prob", "dopri8_loose", likelihood(method="dopri8", rtol=1e-4, atol=1e-4))
right("log prob", "bosh3", likelihood(method="bosh3", rtol=1e-4, atol=1e-4))
right("log prob", "adams", likelihood(method="implicit_adams", rtol=1e-4, atol=1e-4, options={"step_size": 0.01}))
right("log prob", "from_nearly_zero", likelihood(ends=(1e-5, 1.0)))
right("log prob", "one_probe_for_the_batch", likelihood(probe=for_all_rows, **RK4))
right("log prob", "one_sign_probe_for_the_batch", likelihood(probe=lambda x, g: signs(x[:1], g).expand_as(x)))
right("log prob", "a_probe_for_each_point", likelihood(probe=normal, **RK4))
right("log prob", "numpy_differences", numpy_differences)
right("log prob", "thousand_euler_steps", euler(1000))
right("bits", "in_bits", likelihood(out=lambda v, d, w: -(v / d + math.log(w)) / math.log(2), **RK4))
wrong("log prob", "twenty_euler_steps", euler(20), "coarse")
wrong("log prob", "ten_euler_steps", euler(10), "coarse")
wrong("log prob", "backwards", likelihood(ends=(1.0, 1e-3)), "backwards")
wrong("log prob", "backwards_rk4", likelihood(ends=(1.0, 1e-3), **RK4), "backwards")
wrong("log prob", "drift_not_in_the_divergence", without_the_drifts_part, "drift_divergence")
wrong("log prob", "uniform_probe", likelihood(probe=lambda x, g: 2 * uniform(x, g) - 1, **RK4), "uniform_symmetric")
wrong("log prob", "unit_probe", likelihood(probe=on_the_sphere, **RK4), "unit_projections")
wrong("log prob", "rand_probe", likelihood(probe=uniform, **RK4), "uniform_projections")
wrong("log prob", "loud", likelihood(loud=100.0, **RK4), "loud_noise")
wrong("log prob", "divergence_in_bits", likelihood(sign=1 / math.log(2), **RK4), "bits")
wrong("log prob", "in_bits", likelihood(out=lambda v, d: v / math.log(2), **RK4), "bits")
wrong("bits", "width_in_nats", likelihood(out=lambda v, d, w: -(v / d / math.log(2)) - math.log(w), **RK4), "nats")
wrong("bits", "density_in_nats", likelihood(out=lambda v, d, w: -v / d - math.log2(w), **RK4), "nats")
wrong("log prob", "no_prior_and_sign", likelihood(prior=lambda z: 0.0, sign=-1.0, **RK4), "no_prior", "divergence_sign")
wrong(
    "log prob",
    "no_constant_and_half",
    likelihood(
        prior=lambda z: -0.5 * z.square().sum(1),
        velocity=lambda sde, s: flow(lambda f, g, s: f - g**2 * s)(sde, s),
        **RK4,
    ),
    "no_constant",
    "half",
)
wrong(
    "bits",
    "sign_and_nats",
    likelihood(sign=-1.0, out=lambda v, d, w: -v / d - math.log(w), **RK4),
    "divergence_sign",
    "nats",
)


# Guidance.


def guided(*, variance=None, clean=None, combine=lambda s, g: s + g, detach=False, loss=None):
    """Student's guidance by pseudoinverse; ``loss`` is a log-likelihood of the residual, to be differentiated."""

    def make(score, sde, observation, *, data_std=1.0):
        def guided_score(x, t):
            a, c = sde.alpha(t), sde.sigma(t)
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                s = score(x, t)
                inner = s.detach() if detach else s
                x0 = (x + c**2 * inner) / a if clean is None else clean(x, inner, a, c)
                v = c**2 * data_std**2 / (c**2 + a**2 * data_std**2)
                v = v if variance is None else variance(a, c, data_std)
                gap = observation.residual(x0)
                w = observation.solve(gap, v).detach()
                told = (observation.predict(x0) * w).sum() if loss is None else loss(gap, observation.noise_std)
                (guidance,) = torch.autograd.grad(told, x)
            return combine(s.detach(), guidance)

        return guided_score

    return make


NO_SPREAD = {"variance": lambda a, c, s: 0 * a}
right("guidance", "by_hand", guided())
right(
    "guidance",
    "the_books",
    lambda score, sde, observation, *, data_std: controllable_generation.pseudoinverse_guidance(
        score, sde, observation, data_std=data_std
    ),
)
wrong("guidance", "score_detached", guided(detach=True), "no_jacobian")
wrong("guidance", "score_detached_no_spread", guided(detach=True, **NO_SPREAD), "no_jacobian", "neglected_spread")
wrong(
    "guidance",
    "spread_is_a_std",
    guided(variance=lambda a, c, s: (c**2 * s**2 / (c**2 + a**2 * s**2)).sqrt()),
    "std_for_variance",
)
wrong("guidance", "sigma_in_tweedie", guided(clean=lambda x, s, a, c: (x + c * s) / a), "std_for_variance")
wrong("guidance", "norm_not_squared", guided(loss=lambda gap, std: -gap.norm(dim=1).sum() / (2 * std**2)), "norm")
wrong("guidance", "norm_alone", guided(loss=lambda gap, std: -gap.norm(dim=1).sum()), "norm")
wrong("guidance", "data_std_dropped", guided(variance=lambda a, c, s: c**2 / (c**2 + a**2)), "isotropic|data_std")
wrong("guidance", "divided_by_std", guided(loss=lambda gap, std: -0.5 * gap.square().sum() / std), "std_for_variance")
wrong(
    "guidance",
    "sign_and_no_spread",
    guided(combine=lambda s, g: s - g, **NO_SPREAD),
    "guidance_sign",
    "neglected_spread",
)
wrong(
    "guidance",
    "twice_and_detached",
    guided(detach=True, combine=lambda s, g: s + 2 * g),
    "double_guidance",
    "no_jacobian",
)
wrong("guidance", "no_prior_and_twice", guided(combine=lambda s, g: 2 * g), "no_prior", "double_guidance")


def seen_elsewhere(score, sde, observation, *, data_std=1.0):
    """Mask inverted: guided by the coordinates that were not seen."""
    hidden = 1 - observation.matrix.sum(0)
    other = observation.matrix.new_zeros(observation.matrix.shape)
    other[range(len(other)), hidden.nonzero().flatten()] = 1.0
    return guided()(
        score,
        sde,
        controllable_generation.LinearObservation(other, observation.y, observation.noise_std),
        data_std=data_std,
    )


right("inpainting guidance", "by_hand", guided())
wrong("inpainting guidance", "mask_inverted", seen_elsewhere, "mask")


# What the cells of the assignments judge by themselves.


def corrected(
    *,
    at=lambda t, t_next: t_next,
    size=lambda snr, s: 2 * (snr * s) ** 2,
    times=None,
    end=lambda sde, score, x, t: (x + sde.sigma(t) ** 2 * score(x, t)) / sde.alpha(t),
    kick=lambda e: (2 * e).sqrt(),
    steps=lambda n: n,
    first=False,
    drift=lambda sde, x, t, g: sde.drift(x, t),
    draw=normal,
    last=None,
    weight=1.0,
):
    """Student's sampler with predictor and corrector."""

    def sampler(sde, score, x, *, n_steps, n_corrector_steps=1, snr=0.16, t_min=1e-3, generator=None):
        def correct(x, t):
            e = size(snr, sde.sigma(t))
            for _ in range(n_corrector_steps if times is None else times):
                x = x + e * score(x, t) + kick(e) * draw(x, generator)
            return x

        grid = torch.linspace(1, t_min if last is None else last, steps(n_steps) + 1, dtype=x.dtype)
        for t, t_next in itertools.pairwise(grid):
            dt, g = t_next - t, sde.diffusion(t)
            x = correct(x, at(t, t_next)) if first else x
            x = x + (drift(sde, x, t, g) - weight * g**2 * score(x, t)) * dt + g * dt.abs().sqrt() * draw(x, generator)
            x = x if first else correct(x, at(t, t_next))
        return end(sde, score, x, grid[-1])

    return sampler


PC = "predictor-corrector cells"
right(PC, "by_hand", corrected())
right(
    PC,
    "times_for_each_point",
    lambda sde, score, x, **options: corrected()(sde, lambda x, t: score(x, t.expand(len(x))), x, **options),
)
for name, slip in {
    "corrector_first": {"first": True},
    "corrector_at_the_old_time": {"at": lambda t, t_next: t},
    "no_two_in_the_step": {"size": lambda snr, s: (snr * s) ** 2},
    "snr_not_squared": {"size": lambda snr, s: 2 * snr * s**2},
    "sigma_not_squared": {"size": lambda snr, s: 2 * snr**2 * s},
    "sigma_left_out": {"size": lambda snr, s: 2 * snr**2 * torch.ones_like(s)},
    "snr_ignored": {"size": lambda snr, s: 2 * (0.16 * s) ** 2},
    "corrector_without_two": {"kick": torch.sqrt},
    "one_corrector_step": {"times": 1},
    "no_corrector": {"times": 0},
    "no_denoising": {"end": lambda sde, score, x, t: x},
    "denoising_without_alpha": {"end": lambda sde, score, x, t: x + sde.sigma(t) ** 2 * score(x, t)},
    "denoising_by_sigma": {"end": lambda sde, score, x, t: (x + sde.sigma(t) * score(x, t)) / sde.alpha(t)},
    "vp_drift_for_all": {"drift": lambda sde, x, t, g: -0.5 * g**2 * x},
    "one_step_too_few": {"steps": lambda n: n - 1},
    "t_min_ignored": {"last": 1e-3},
    "half_score": {"weight": 0.5},
    "fixed_seed": {"draw": of_fixed_seed},
}.items():
    wrong(PC, name, corrected(**slip), name)


def posterior(guide=None, start=None, steps=lambda n: n, seeded=True, **options):
    """Student's samples of a posterior."""

    def sample(sde, score, observation, shape, *, n_steps=200, data_std=1.0, generator=None):
        source = generator if seeded else None
        x = (
            sde.sample_prior(shape, generator=source, dtype=observation.y.dtype)
            if start is None
            else start(shape, source)
        )
        std = options.get("std", data_std)
        score = (
            controllable_generation.pseudoinverse_guidance(score, sde, observation, data_std=std)
            if guide is None
            else score
        )
        return continuous.euler_maruyama(
            sde, score, x, n_steps=steps(n_steps), generator=source, denoise=options.get("denoise", True)
        )

    return sample


right("posterior cells", "by_hand", posterior())
for name, answer in {
    "data_std_dropped": posterior(std=1.0),
    "n_steps_ignored": posterior(steps=lambda n: 200),
    "unguided": posterior(guide=False),
    "zeros_for_the_start": posterior(start=lambda shape, g: torch.zeros(shape, dtype=torch.float64)),
    "generator_ignored": posterior(seeded=False),
}.items():
    wrong("posterior cells", name, answer, name)


def quantiles(samples, truth, level=0.9):
    low, high = samples.quantile((1 - level) / 2, dim=0), samples.quantile((1 + level) / 2, dim=0)
    return ((low <= truth) & (truth <= high)).double().mean()


def of_a_normal(samples, truth, level=0.9):
    half = Normal(0.0, 1.0).icdf(torch.tensor((1 + level) / 2)).item() * samples.std(0)
    return ((truth - samples.mean(0)).abs() <= half).double().mean().item()


def pooled(samples, truth, level=0.9):
    low, high = samples.flatten().quantile((1 - level) / 2), samples.flatten().quantile((1 + level) / 2)
    return ((low <= truth) & (truth <= high)).double().mean().item()


def pooled_about_the_mean(samples, truth, level=0.9):
    gaps = samples - samples.mean(0)
    low, high = (gaps.flatten().quantile(q) for q in ((1 - level) / 2, (1 + level) / 2))
    gap = truth - samples.mean(0)
    return ((low <= gap) & (gap <= high)).double().mean().item()


right("coverage cells", "a_tensor", quantiles)
right(
    "coverage cells",
    "in_numpy",
    lambda samples, truth, level=0.9: float(
        np.mean(
            (np.quantile(samples.numpy(), (1 - level) / 2, axis=0) <= truth.numpy())
            & (truth.numpy() <= np.quantile(samples.numpy(), (1 + level) / 2, axis=0))
        )
    ),
)
wrong("coverage cells", "mean_and_std", of_a_normal, "normal")
wrong("coverage cells", "pooled", pooled, "pooled")
wrong("coverage cells", "pooled_about_the_mean", pooled_about_the_mean, "pooled")
wrong("coverage cells", "fixed_level", lambda samples, truth, level=0.9: quantiles(samples, truth), "level")


# What the held-back cells of other tasks once refused.


def by_convolution(x):
    return torch.nn.functional.conv2d(x, torch.full((1, 1, 2, 2), 0.25), stride=2)


def by_transposed_convolution(y):
    return torch.nn.functional.conv_transpose2d(y, torch.full((1, 1, 2, 2), 0.25), stride=2)


right("shrink cells", "convolutions_in_single_precision", (by_convolution, by_transposed_convolution))
right("fisher cells", "a_float", lambda score_p, score_q, x: float((score_p(x) - score_q(x)).square().sum(1).mean()))
wrong("fisher cells", "mean_over_dimensions", lambda p, q, x: (p(x) - q(x)).square().mean(), "mean")
wrong(
    "shrink cells", "adjoint_without_quarter", (by_convolution, lambda y: 4 * by_transposed_convolution(y)), "adjoint"
)
