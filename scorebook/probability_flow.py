r"""The probability-flow ODE: a deterministic path with the marginals of the SDE.

.. math:: \frac{dx}{dt} = v(x, t) = f(x, t) - \tfrac12\,g(t)^2\,\nabla_x \log p_t(x)

Solved from noise to data it samples, from data to noise it encodes, and the instantaneous change of variables,

.. math:: \log p_{t_{min}}(x(t_{min})) = \log p_1(x(1)) + \int_{t_{min}}^1 \nabla \cdot v(x(t), t)\,dt,

gives likelihoods. Where a tolerance is asked for, solvers are torchdiffeq's, called as black boxes.

Where evaluations of the score are counted, half of the work is done on paper. Divide by the scale
:math:`c = \sqrt{\alpha^2 + \sigma^2}`, and take for time the angle :math:`\varphi` between signal and noise,
:math:`\tan \varphi = \sigma/\alpha`. Then :math:`u = x/c` is :math:`x_0 \cos \varphi + z \sin \varphi`, and its flow is

.. math:: \frac{du}{d\varphi} = -\tan \varphi\,\left[u + \nabla_u \log p_\varphi(u)\right], \qquad
          \nabla_u \log p_\varphi(u) = c\,\nabla_x \log p_t(x) .

Drift and diffusion are gone. The right side is the posterior mean of :math:`z \cos \varphi - x_0 \sin \varphi`, smooth
at either end: 0 for standard normal data, an even rotation for a single point. ``method="adams"`` solves it by a
multistep method with one evaluation a step, at times even in the share of noise :math:`\sigma/(\alpha + \sigma)`.

Source: Song et al. (2021), sections 4.3 and D; Chen et al. (2018) for the change of variables; Salimans & Ho (2022),
appendix D, for the angle.
"""

import collections
import math

import numpy as np
import torch
from torch import Tensor
from torchdiffeq import odeint

from scorebook.lab.arguments import (
    batch,
    expand,
    finite,
    floating,
    one_of,
    positive,
    positive_integer,
    real,
    same_shape,
)
from scorebook.score_matching import value_and_divergence
from scorebook.sde import SDE, on_grid, same_sde
from scorebook.sliced_score_matching import random_projections, sliced_divergence

__all__ = ["bits_per_dim", "dequantize", "encode", "interpolate", "log_prob", "sample", "velocity"]

_ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
_FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4")
_MULTISTEP = "adams"
_FEW_STEPS = 10
_SOLVER_KEYWORDS = ("method", "rtol", "atol", "t_min", "n_steps", "times")


def velocity(sde: SDE, score):
    r"""Velocity of the probability flow, :math:`v(x, t) = f(x, t) - \tfrac12 g(t)^2 s(x, t)`.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.

    Returns:
        Callable ``(t, x) -> dx/dt``: time first, as torchdiffeq and other solvers expect.

    Raises:
        ValueError: if ``score`` belongs to another SDE; on a call, if it returns another shape or ``t`` lies outside
            [0, 1].

    Source: Song et al. (2021), eq. 13.
    """
    same_sde("score", score, sde)

    def field(t, x):
        return sde.drift(x, t) - 0.5 * expand(sde.diffusion(t), x, "t") ** 2 * same_shape("score", score(x, t), x)

    return field


@torch.no_grad()
def sample(
    sde: SDE,
    score,
    x: Tensor,
    *,
    method: str | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    t_min: float = 1e-3,
    n_steps: int | None = None,
    times: Tensor | None = None,
    trajectory: bool = False,
) -> Tensor:
    r"""Sample by the probability flow, from noise at ``t = 1`` to data at ``t = t_min``.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.
        x: states at ``t = 1``, as a rule ``sde.sample_prior(...)``, shape ``(B, *event)``.
        method: name of the solver; by default ``adams`` where ``n_steps`` is given, ``dopri5`` otherwise.

            ``adams``: one evaluation of the score a step, an error of third order; ``n_steps`` are even in the share of
            noise :math:`\sigma/(\alpha + \sigma)`, which is meant for data of about unit scale.

            The others are torchdiffeq's. Adaptive: ``dopri5``, ``dopri8``, ``bosh3``, ``adaptive_heun``, whose one step
            size serves the whole batch, so batch-mates change a sample within the tolerance. Fixed steps in ``t``:
            ``euler``, ``midpoint``, ``heun2``, ``heun3``, ``rk4``.
        rtol: relative tolerance of an adaptive solver.
        atol: its absolute tolerance, in the units of ``x``.
        t_min: last time, in (0, 1).
        n_steps: number of steps of ``adams`` or a fixed solver; with an adaptive solver that is named, the number of
            states that ``trajectory`` returns (50 by default).
        times: a grid instead of ``n_steps`` and ``t_min``, such as ``sde.time_grid(50, spacing="karras")``: the steps
            of ``adams`` or a fixed solver, which is to be named. ``dopri5``, the default here too, chooses its own
            steps and only stops at these times.
        trajectory: return the states at all times of the grid.

    Returns:
        Samples, shape ``(B, *event)``, or the trajectory ``(n_steps + 1, B, *event)``, start included.

    Raises:
        ValueError: for an unknown method, ``t_min`` outside (0, 1), a fixed solver without steps, bad tolerances,
            NaN in ``x``, or a score that belongs to another SDE.
        RuntimeError: if an adaptive solver's step underflows.

    Source: Song et al. (2021), eq. 13; Zhang & Chen (2023) for few steps by a multistep method.
    """
    path, _ = _solve(
        sde,
        score,
        x,
        method=method,
        rtol=rtol,
        atol=atol,
        t_min=t_min,
        n_steps=n_steps,
        times=times,
        trajectory=trajectory,
    )
    return path if trajectory else path[-1]


@torch.no_grad()
def encode(sde: SDE, score, x: Tensor, *, trajectory: bool = False, **solver) -> Tensor:
    r"""Follow the probability flow from data at ``t_min`` to the code at ``t = 1``; :func:`sample` decodes it.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.
        x: data, shape ``(B, *event)``.
        trajectory: return the states at all times of the grid.
        solver: ``method``, ``rtol``, ``atol``, ``t_min``, ``n_steps`` and ``times``, with the meaning and the defaults
            that they have in :func:`sample`. The grid of ``times`` is the decreasing one of :func:`sample`, and is run
            through backwards.

    Returns:
        Codes, shape ``(B, *event)``, or the trajectory ``(n_steps + 1, B, *event)``, start included.

    Raises:
        ValueError: as :func:`sample`.
        TypeError: for an unknown keyword.
        RuntimeError: if an adaptive solver's step underflows.

    Source: Song et al. (2021), section D.3.
    """
    _known_keywords("encode", solver)
    path, _ = _solve(sde, score, x, forwards=True, trajectory=trajectory, **solver)
    return path if trajectory else path[-1]


@torch.no_grad()
def log_prob(
    sde: SDE,
    score,
    x: Tensor,
    *,
    divergence: str = "exact",
    n_projections: int = 1,
    prior=None,
    chunk_size: int | None = None,
    generator=None,
    **solver,
) -> Tensor:
    r"""Log-likelihood under the probability flow, in nats.

    .. math:: \log p(x) = \log p_1(x(1)) + \int_{t_{min}}^1 \nabla \cdot v(x(t), t)\,dt

    It is the likelihood of the ODE's model, at ``t_min``; with a learned score, not that of the SDE's model.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.
        x: data, shape ``(B, *event)``.
        divergence: ``"exact"``, or ``"hutchinson"`` for :math:`v^T (\nabla f)\,v` with random signs, unbiased and
            cheaper in high dimension.
        n_projections: probes per sample, drawn once and fixed through the solve: an adaptive solver needs a
            right-hand side that is a function.
        prior: log-density at ``t = 1``, a callable ``x -> (B,)`` or an object with ``log_prob``; by default the SDE's
            prior.
        chunk_size: dimensions per backward pass of the exact divergence.
        generator: source of the probes.
        solver: ``method``, ``rtol``, ``atol``, ``t_min`` (the time at which ``x`` is taken to be), ``n_steps`` and
            ``times``, as for :func:`encode`. An adaptive solver holds the log-density to the same tolerances.

    Returns:
        Log-densities in the units of ``x``, shape ``(B,)``.

    Raises:
        ValueError: as :func:`sample`, and for an unknown ``divergence`` or ``n_projections`` below 1.
        TypeError: for an unknown keyword.
        RuntimeError: if an adaptive solver's step underflows.

    Source: Song et al. (2021), eq. 39; Grathwohl et al. (2019) for the probes.
    """
    batch("x", x)
    one_of("divergence", divergence, ("exact", "hutchinson"))
    positive_integer("n_projections", n_projections)
    _known_keywords("log_prob", solver)
    probes = random_projections(x, n_projections, generator=generator) if divergence == "hutchinson" else None

    def with_divergence(field, x):
        if probes is None:
            return value_and_divergence(field, x, chunk_size=chunk_size)
        return _value_and_sliced_divergence(field, x, probes)

    path, gained = _solve(sde, score, x, with_divergence, forwards=True, **solver)
    end = path[-1]
    terminal = sde.prior_log_prob if prior is None else getattr(prior, "log_prob", prior)
    return same_shape("prior", terminal(end), gained) + gained


def bits_per_dim(log_prob: Tensor, n_dims: int, bin_width: float) -> Tensor:
    r"""Bits per dimension of data that were integers before they were dequantized and scaled.

    .. math:: \mathrm{bits/dim} = -\frac{\log p(x) + d \log \Delta}{d \log 2}

    A bin of width :math:`\Delta` in the units of ``x`` has the probability :math:`p(x)\,\Delta^d`. Forget
    :math:`\log \Delta` and the figure depends on the units: for 256 grey values scaled to [-1, 1] it is off by 7 bits.

    Args:
        log_prob: log-densities in nats, any shape.
        n_dims: number of dimensions :math:`d`.
        bin_width: width :math:`\Delta` of a bin, in the units of ``x``.

    Returns:
        Bits per dimension, shaped like ``log_prob``.

    Raises:
        ValueError: if ``n_dims`` is no positive integer or ``bin_width`` is not positive.

    Source: Theis et al. (2016), section 3.1.
    """
    floating("log_prob", log_prob)
    positive_integer("n_dims", n_dims)
    positive("bin_width", bin_width)
    return -(log_prob / n_dims + math.log(bin_width)) / math.log(2)


def dequantize(x: Tensor, bin_width: float, *, generator=None) -> Tensor:
    r"""Spread each value evenly over its bin: :math:`x + \Delta\,(u - \tfrac12)`, :math:`u \sim U[0, 1)`.

    Args:
        x: discrete values, any shape.
        bin_width: width :math:`\Delta` of a bin, in the units of ``x``.
        generator: source of the noise.

    Returns:
        Values with a density, whose expected log-likelihood bounds that of the discrete data from below.

    Raises:
        ValueError: if ``bin_width`` is not positive.

    Source: Theis et al. (2016), eq. 4.
    """
    floating("x", x)
    positive("bin_width", bin_width)
    source = x.device if generator is None else generator.device
    u = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=source).to(x.device)
    return x + bin_width * (u - 0.5)


def interpolate(sde: SDE, score, x_a: Tensor, x_b: Tensor, weights, **solver) -> Tensor:
    r"""Points between two, along a great circle between their codes.

    Codes of dimension :math:`d` lie near a sphere of radius :math:`\sqrt d`; a straight line would leave it, the
    spherical interpolation :math:`[\sin((1-w)\,\theta)\,z_a + \sin(w\,\theta)\,z_b]/\sin\theta` stays.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.
        x_a: points at weight 0, shape ``(B, *event)``.
        x_b: points at weight 1, the same shape.
        weights: numbers in [0, 1], length ``n``.
        solver: ``method``, ``rtol``, ``atol``, ``t_min``, ``n_steps`` or ``times``, for :func:`encode` and
            :func:`sample`.

    Returns:
        Interpolated points, shape ``(n, B, *event)``.

    Raises:
        ValueError: if the shapes differ or a weight lies outside [0, 1].
        TypeError: for an unknown keyword.

    Source: Song et al. (2021), section D.3; Shoemake (1985).
    """
    _known_keywords("interpolate", solver)
    for name, x in (("x_a", x_a), ("x_b", x_b)):
        batch(name, x)
        finite(name, x)
    if x_a.shape != x_b.shape:
        raise ValueError(f"x_a and x_b must have one shape, got {tuple(x_a.shape)} and {tuple(x_b.shape)}")
    real("weights", weights)
    w = torch.as_tensor(weights, dtype=x_a.dtype, device=x_a.device).reshape(-1, 1, 1)
    if not w.is_meta and not bool(((w >= 0) & (w <= 1)).all()):
        raise ValueError(f"weights must lie in [0, 1], got {w.flatten().tolist()}")
    z_a, z_b = (
        encode(sde, score, x, **solver).reshape(len(x), math.prod(x.shape[1:])) for x in (x_a, x_b.to(x_a.dtype))
    )
    cosine = torch.nn.functional.cosine_similarity(z_a, z_b, dim=1).clamp(-1, 1)
    angle = torch.acos(cosine).clamp(min=1e-4).unsqueeze(1)
    z = (torch.sin((1 - w) * angle) * z_a + torch.sin(w * angle) * z_b) / torch.sin(angle)
    return sample(sde, score, z.reshape(-1, *x_a.shape[1:]), **solver).reshape(len(z), *x_a.shape)


def _value_and_sliced_divergence(field, x, probes) -> tuple[Tensor, Tensor]:
    """The field at ``x``, and the mean of its divergence seen along each probe, from one call per probe."""
    values = []

    def kept(x):
        values.append(field(x))
        return values[-1]

    trace = torch.stack([sliced_divergence(kept, x, probe) for probe in probes]).mean(0)
    return values[0].detach(), trace


def _known_keywords(function: str, solver: dict) -> None:
    unknown = [name for name in solver if name not in _SOLVER_KEYWORDS]
    if unknown:
        raise TypeError(
            f"{function} takes no keyword {unknown[0]!r}; those of the solver are {', '.join(_SOLVER_KEYWORDS)}"
        )


def _solve(
    sde,
    score,
    x,
    with_divergence=None,
    *,
    forwards=False,
    method=None,
    rtol=1e-5,
    atol=1e-5,
    t_min=1e-3,
    n_steps=None,
    times=None,
    trajectory=False,
) -> tuple[Tensor, Tensor | None]:
    """States of the flow, the last of them at the end, and what the log-density gains on the way.

    ``with_divergence`` returns a field at x with its divergence; without it no gain is computed.
    """
    same_sde("score", score, sde)
    if method is None:
        method = "dopri5" if n_steps is None else _MULTISTEP
    times = _times(sde, method, t_min, n_steps, times, trajectory)
    batch("x", x)
    finite("x", x)
    if method in _ADAPTIVE and x.numel() == 0:
        raise ValueError(f"x must hold a point by which {method} can choose its steps, got shape {tuple(x.shape)}")
    positive("rtol", rtol)
    positive("atol", atol)
    times = times.flip(0) if forwards else times
    if method == _MULTISTEP:
        return _turn(sde, score, x, with_divergence, times, trajectory)
    field = velocity(sde, score)
    times = times.to(device=x.device, dtype=x.dtype)

    def joint(t, state):
        return with_divergence(lambda x: field(t, x), state[0])

    if with_divergence is None:
        return _by_torchdiffeq(field, x, times, method, rtol, atol), None
    path, gained = _by_torchdiffeq(joint, (x, x.new_zeros(len(x))), times, method, rtol, atol)
    return path, gained[-1]


def _turn(sde, score, x, with_divergence, times, trajectory) -> tuple[Tensor, Tensor | None]:
    """The flow in the angle between signal and noise; arguments and results are those of :func:`_solve`."""
    times = times.to("cpu", torch.float64)
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    ratios, angles, scales = (sigma / alpha).tolist(), torch.atan2(sigma, alpha), torch.hypot(alpha, sigma).tolist()
    width = math.prod(x.shape[1:])
    scores = on_grid(score, times[:-1].to(device=x.device, dtype=torch.promote_types(x.dtype, torch.float32)))

    def rate(k, state):
        def field(u):
            x = scales[k] * u
            return -ratios[k] * (u + scales[k] * same_shape("score", scores[k](x), x))

        u = state[:, :width].reshape(x.shape)
        if with_divergence is None:
            return field(u).reshape(len(x), width)
        value, divergence = with_divergence(field, u)
        return torch.cat([value.reshape(len(x), width), divergence[:, None]], dim=1)

    start = (x / scales[0]).reshape(len(x), width)
    if with_divergence is not None:
        start = torch.cat([start, start.new_zeros(len(x), 1)], dim=1)
    path = collections.deque(_adams(rate, start, angles.numpy()), maxlen=None if trajectory else 1)
    shown = scales if trajectory else scales[-1:]
    states = torch.stack([c * state[:, :width].reshape(x.shape) for c, state in zip(shown, path, strict=True)])
    if with_divergence is None:
        return states, None
    # A volume in x is c^d times that in u.
    return states, path[-1][:, width] + width * math.log(scales[-1] / scales[0])


def _adams(rate, state, nodes):
    r"""Solve ``d state/d node = rate`` by the method of Adams, Bashforth and Moulton; yield all states.

    Predict: integrate the parabola through the last three rates over the next step,
    :math:`y_{k+1} = y_k + \tfrac{h}{12}(23 f_k - 16 f_{k-1} + 5 f_{k-2})` where steps are equal. Evaluate
    :math:`f_{k+1}` there. Correct: now the parabola goes through the rate of arrival too,
    :math:`y_{k+1} = y_k + \tfrac{h}{12}(5 f_{k+1} + 8 f_k - f_{k-1})`. The first steps have fewer rates and lower
    degrees, which costs no order; the last state stays as predicted, so that ``n`` steps cost ``n`` evaluations.
    With fewer than ten steps the last predictions have lower degrees too: so far out, a parabola goes astray.

    Source: Hairer, Nørsett & Wanner (1993), section III.1; Zhao et al. (2023), "UniPC", for the corrector without an
    evaluation of its own.
    """
    rates, previous = [], state
    for k in range(len(nodes) - 1):
        rates = [*rates[-2:], rate(k, state)]
        known = nodes[k + 1 - len(rates) : k + 1]
        if k > 0:
            state = _integrate(previous, rates, known, nodes[k - 1], nodes[k])
        yield state
        left = len(nodes) - 1 - k
        n_used = left if len(nodes) <= _FEW_STEPS else 3
        previous, state = state, _integrate(state, rates[-n_used:], known[-n_used:], nodes[k], nodes[k + 1])
    yield state


def _integrate(state, rates, nodes, start, end) -> Tensor:
    """The state after the step from ``start`` to ``end``, for the polynomial that has these rates at these nodes."""
    step = end - start
    powers = np.arange(len(nodes))
    # In units of the step the integral of the k-th power is 1/(k + 1); weights must be right for each power.
    weights = np.linalg.solve(((nodes - start) / step) ** powers[:, None], step / (powers + 1))
    for weight, rate in zip(weights.tolist(), rates, strict=True):
        state = torch.add(state, rate, alpha=weight)
    return state


def _by_torchdiffeq(field, state, times, method, rtol, atol):
    """Solve ``d state/dt = field(t, state)`` along the times; a state may be a tuple."""
    options = {}
    if method in _ADAPTIVE:
        # Left alone, the solver oversteps the last time and interpolates back, and probes far outside [0, 1] for its
        # first step: the SDE has no noise level there.
        options = {"step_t": times[-1:], "first_step": 1e-3 * abs(float(times[-1] - times[0]))}
    try:
        return odeint(field, state, times, rtol=rtol, atol=atol, method=method, options=options)
    except AssertionError as error:
        if "underflow in dt" not in str(error):
            raise
        raise RuntimeError(
            f"the step of {method} shrank to nothing between t={float(times[0]):g} and t={float(times[-1]):g}: "
            f"the velocity is not a number there, or too steep for rtol={rtol:g}, atol={atol:g} in {times.dtype}. See "
            "what the score returns near t_min; raise t_min, loosen the tolerances, use float64, or take fixed steps "
            "(method='heun2', times=sde.time_grid(50, spacing='karras'))."
        ) from error


def _times(sde, method, t_min, n_steps, times, trajectory) -> Tensor:
    """Decreasing times at which the solver stops: all steps of a fixed solver, for an adaptive one what is shown."""
    one_of("method", method, (*_ADAPTIVE, *_FIXED, _MULTISTEP))
    if times is not None:
        if n_steps is not None:
            raise ValueError(f"give n_steps or times, not both, got n_steps={n_steps!r}")
        floating("times", times)
        if times.ndim != 1 or len(times) < 2:
            raise ValueError(f"times must hold at least two times, shape (n + 1,), got {tuple(times.shape)}")
        finite("times", times)
        if not bool((times.diff() < 0).all()):
            raise ValueError("times must decrease throughout; encode and log_prob turn them round themselves")
        return times
    if not 0 < t_min < 1:
        raise ValueError(f"t_min must lie in (0, 1), got {t_min!r}")
    if method not in _ADAPTIVE and n_steps is None:
        raise ValueError(f"method {method!r} takes fixed steps: give n_steps or times")
    spacing = "share" if method == _MULTISTEP else "uniform"
    if n_steps is None:
        n_steps = 50 if trajectory else 1
    return sde.time_grid(n_steps, t_min=t_min, spacing=spacing, dtype=torch.float64)
