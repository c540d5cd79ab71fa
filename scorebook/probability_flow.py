r"""The probability-flow ODE: a deterministic path with the marginals of the SDE.

.. math:: \frac{dx}{dt} = v(x, t) = f(x, t) - \tfrac12\,g(t)^2\,\nabla_x \log p_t(x)

Solved from noise to data it samples, from data to noise it encodes, and the instantaneous change of variables,

.. math:: \log p_{t_{min}}(x(t_{min})) = \log p_1(x(1)) + \int_{t_{min}}^1 \nabla \cdot v(x(t), t)\,dt,

gives likelihoods. Where a tolerance is asked for, solvers are torchdiffeq's, called as black boxes. States are kept in
single precision at least: a score in half precision sees them rounded, and no step or time is lost to that rounding.
A score may be compiled by ``torch.compile``; the solves are not for ``torch.func``, whose ``vmap``, ``jacrev`` and
``jacfwd`` they refuse: take ``differentiable=True`` and ``torch.autograd``. Its transforms serve :func:`velocity`.

Where evaluations of the score are counted, the flow is solved by another clock. With data of standard deviation
:math:`s`, divide by the scale :math:`c = \sqrt{\alpha^2 s^2 + \sigma^2}`, and take for time the angle :math:`\varphi`
between signal and noise, :math:`\tan \varphi = \sigma/(\alpha s)`. Then :math:`u = x/c` is
:math:`\tfrac{x_0}{s} \cos \varphi + z \sin \varphi`, and its velocity is the posterior mean of the derivative,

.. math:: \frac{du}{d\varphi} = E\left[z \cos \varphi - \tfrac{x_0}{s} \sin \varphi \,\middle|\, u\right]
          = -\tan \varphi\,\left[u + \nabla_u \log p_\varphi(u)\right], \qquad
          \nabla_u \log p_\varphi(u) = c\,\nabla_x \log p_t(x) .

It is bounded by data and noise at both ends, where slopes in other clocks grow or stand still: 0 for normal data of
this scale, an even rotation for a single point. ``method="adams"`` solves it by a multistep method with one
evaluation a step, at times even in the share of noise :math:`\sigma/(\alpha s + \sigma)`.

Source: Song et al. (2021), sections 4.3 and D; Chen et al. (2018) for the change of variables; Salimans & Ho (2022),
appendix D, for the angle and the velocity, their ``v``.
"""

import collections
import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from torchdiffeq import odeint

from scorebook.lab.arguments import (
    at_least_single,
    batch,
    expand,
    finite,
    floating,
    inner_time,
    one_of,
    one_read,
    positive,
    positive_integer,
    real,
    require,
    same_shape,
    uniform,
    vectors,
)
from scorebook.lab.calls import at
from scorebook.lab.gradients import checked, outside_inference_mode, recording, unchecked
from scorebook.lab.types import Array, Field, GivenScore, Integer, LogDensity, Number, PerRow, Score, TimeSampler
from scorebook.score_matching import value_and_divergence
from scorebook.sde import SDE, StraightPath, data_std_of, on_grid, same_sde, score_matching_loss, sde_of
from scorebook.sliced_score_matching import random_projections, value_and_slices

__all__ = [
    "bits_per_dim",
    "dequantize",
    "encode",
    "flow_matching_loss",
    "interpolate",
    "log_prob",
    "sample",
    "score_from_velocity",
    "velocity",
]

_ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
# Explicit Runge-Kutta methods: for each stage after the first its share of the step and the weights of the rates so
# far, then the weights of all rates in the step. Hairer, Nørsett & Wanner (1993), section II.1.
_FIXED: dict[str, tuple[Sequence[tuple[float, Sequence[float]]], Sequence[float]]] = {
    "euler": ([], [1]),
    "midpoint": ([(1 / 2, [1 / 2])], [0, 1]),
    "heun2": ([(1, [1])], [1 / 2, 1 / 2]),
    "heun3": ([(1 / 3, [1 / 3]), (2 / 3, [0, 2 / 3])], [1 / 4, 0, 3 / 4]),
    "rk4": ([(1 / 3, [1 / 3]), (2 / 3, [-1 / 3, 1]), (1, [1, -1, 1])], [1 / 8, 3 / 8, 3 / 8, 1 / 8]),
}
_MULTISTEP = "adams"
# So many steps are so long that even the line through two rates leads the last prediction astray.
_FEW_STEPS = 8
# Noise over signal beyond which the angles of two times differ by no more than their roundings.
_DROWNED = 1e8
_Method: TypeAlias = Literal[
    "adams", "euler", "midpoint", "heun2", "heun3", "rk4", "dopri5", "dopri8", "bosh3", "adaptive_heun"
]
_Trace: TypeAlias = Callable[[Field, Tensor], tuple[Tensor, Tensor]]


class _Density(Protocol):
    def log_prob(self, x: Tensor, /) -> Tensor: ...


_Prior: TypeAlias = LogDensity | _Density


class _Solver(TypedDict, total=False):
    method: _Method | None
    rtol: Number
    atol: Number
    t_min: Number
    n_steps: Integer | None
    times: Tensor | None
    data_std: Number | None


class _Likelihood(TypedDict, total=False):
    divergence: Literal["exact", "hutchinson"]
    n_projections: Integer
    prior: _Prior | None
    chunk_size: Integer | None
    generator: torch.Generator | None


class _SolverAndLikelihood(_Solver, _Likelihood, total=False):
    pass


_SOLVER_KEYWORDS, _TRACE_KEYWORDS = tuple(_Solver.__annotations__), tuple(_Likelihood.__annotations__)
# How far beyond [0, 1] the velocity goes on.
_OVERSTEP = 2.0


def velocity(sde: SDE, score: Score) -> Callable[[PerRow, Tensor], Tensor]:
    r"""Velocity of the probability flow, :math:`v(x, t) = f(x, t) - \tfrac12 g(t)^2 s(x, t)`.

    An adaptive solver steps past the last time and interpolates back, and so looks beyond [0, 1], where the SDE has no
    noise level. There the velocity goes on as mirrored in the ends, :math:`v(x, -t) = v(x, t)` and
    :math:`v(x, 1 + t) = v(x, 1 - t)`, and so on, for two units of time. The solution inside does not depend on it, but
    its last state is interpolated across a kink and may miss the tolerance. A solver that is told to stop at the last
    time, as in :func:`sample`, does not look beyond: for torchdiffeq,
    ``options={"step_t": times[-1:], "first_step": 1e-3}``.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.

    Returns:
        Callable ``(t, x) -> dx/dt``: time first, as torchdiffeq and other solvers expect.

    Raises:
        ValueError: if ``score`` belongs to another SDE; on a call, if it returns another shape or ``t`` lies more than
            two units outside [0, 1].

    Source: Song et al. (2021), eq. 13.
    """
    same_sde("score", score, sde)
    field = _velocity(sde, score)

    @one_read()
    def mirrored(t: PerRow, x: Tensor) -> Tensor:
        return field(_mirrored(t), x)

    return mirrored


def _velocity(sde: SDE, score: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def field(t: Any, x: Tensor) -> Tensor:
        return sde.drift(x, t) - 0.5 * expand(sde.diffusion(t), x, "t") ** 2 * same_shape("score", at(score, x, t), x)

    return field


def score_from_velocity(sde: SDE, velocity: Callable[..., Tensor]) -> GivenScore:
    r"""Score of a model of the velocity, :math:`s(x, t) = 2\,(f(x, t) - u(x, t))/g(t)^2`, for all that takes a score.

    The inverse of :func:`velocity`. An error of :math:`u` counts :math:`2/g^2` times in the score, on the straight path
    :math:`\alpha/t` times: it grows towards the data and is forgiven in pure noise.

    Args:
        sde: the SDE whose flow it is, such as :class:`scorebook.sde.StraightPath`.
        velocity: callable ``(x, t, **conditions) -> tensor like x``, such as a network that was trained by
            :func:`flow_matching_loss`; a module gets ``t`` of shape ``(B,)``.

    Returns:
        ``score(x, t, **conditions)``, which says that it belongs to ``sde``.

    Raises:
        ValueError: if ``velocity`` says of itself that it is a score of an SDE; on a call, if it returns another shape
            than that of ``x``, or at a time without noise or diffusion, such as 0.

    Source: Lipman et al. (2023), section 3; Song et al. (2021), eq. 13, solved for the score.
    """
    _check_no_score("velocity", velocity)
    score = functools.partial(_score_from_velocity, "velocity", sde, velocity)
    vars(score).update(sde=sde)
    return score


def _check_no_score(name: str, velocity: object) -> None:
    if (own := sde_of(velocity)) is not None:
        raise ValueError(f"{name} must be a model of dx/dt, got a score of {own!r}, which needs no conversion")


@one_read()
def _score_from_velocity(
    name: str, sde: SDE, velocity: Callable[..., Tensor], x: Tensor, t: PerRow, **conditions: Any
) -> Tensor:
    batch("x", x)
    u = at_least_single(same_shape(name, at(velocity, x, t, **conditions), x))
    state, square = at_least_single(x), sde.diffusion(t) ** 2
    positive("g(t)^2", square)
    return (2 * (sde.drift(state, t) - u) / expand(square, state, "t")).to(x.dtype)


def flow_matching_loss(
    model: Callable[..., Tensor],
    x: Tensor,
    labels: Array | None = None,
    *,
    sde: SDE | None = None,
    p_drop: Number = 0.0,
    sample_times: TimeSampler | None = None,
    generator: torch.Generator | None = None,
    **conditions: Any,
) -> Tensor:
    r"""Flow matching: learn the velocity of the probability flow by least squares, without a score.

    .. math:: L = E_{t, x_0, z}\left\|u_\theta(x_t, t) - (\alpha'(t)\,x_0 + \sigma'(t)\,z)\right\|^2,
              \qquad x_t = \alpha(t)\,x_0 + \sigma(t)\,z

    The norm sums over dimensions, the expectation is a mean over the batch. On the straight path the speed of a line is
    :math:`z - x_0`, but for the little signal that is left. The minimum is the conditional mean of that speed, which is
    the velocity :math:`f - \tfrac12 g^2 \nabla \log p_t`. Since :math:`\alpha' x_0 + \sigma' z` is
    :math:`f(x_t, t) + \tfrac12 g^2 z/\sigma`, the loss is that of denoising under another weight, and computed so:

    .. math:: L = E\left[\tfrac14 g(t)^4 \left\|s_\theta(x_t, t) + \frac{z}{\sigma(t)}\right\|^2\right],
              \qquad s_\theta = \frac{2\,(f - u_\theta)}{g^2}

    ``lab.fit(network, probability_flow.flow_matching_loss, x)`` trains, and :func:`score_from_velocity` makes a score
    of the network, for samplers, likelihoods and guidance. Data far from unit scale want to be standardised first.

    Args:
        model: callable ``(x, t) -> tensor like x``, such as a network; with ``labels`` it is called as
            ``model(x, t, label=...)``, with ``conditions`` as ``model(x, t, **conditions)``.
        x: clean points, shape ``(B, *event)``.
        labels: classes, integer tensor of shape ``(B,)``, or None.
        sde: the SDE whose flow is learned; by default ``StraightPath()``.
        p_drop: probability with which labels and conditions are left out of a row.
        sample_times: callable ``(n, generator) -> (n,)`` times; by default independent and uniform on [0.001, 1].
        generator: source of the times, the noise and the drops.
        conditions: whatever else the model takes, by name; as for :func:`scorebook.sde.score_matching_loss`.

    Returns:
        Scalar tensor, in single precision at least. It is at least the variance of the speeds that meet in a point.

    Raises:
        ValueError: as :func:`scorebook.sde.score_matching_loss`; if the model says of itself that it is a score.

    Source: Lipman et al. (2023), eqs. 5 and 9; Liu et al. (2023), eq. 1; Albergo et al. (2023) for any path.
    """
    sde = StraightPath() if sde is None else sde
    _check_no_score("model", model)
    return score_matching_loss(
        functools.partial(_score_from_velocity, "model", sde, model),
        sde,
        x,
        labels=labels,
        p_drop=p_drop,
        weighting=lambda t: sde.diffusion(t) ** 4 / 2,
        sample_times=sample_times,
        generator=generator,
        **conditions,
    )


def _mirrored(t: PerRow) -> Tensor:
    real("t", t)
    if not isinstance(t, Tensor) or not t.is_floating_point():
        t = torch.as_tensor(t, dtype=torch.float64, device=t.device if isinstance(t, Tensor) else "cpu")
    require(
        ((t >= -_OVERSTEP) & (t <= 1 + _OVERSTEP)).all(),
        lambda: ValueError(
            f"t must lie in [0, 1], or at most {_OVERSTEP:g} beside it for a solver that oversteps, got values from "
            f"{t.min():g} to {t.max():g}; tell an adaptive solver where to begin and to stop: "
            "options={'first_step': 1e-3, 'step_t': times[-1:]} for torchdiffeq"
        ),
    )
    from_zero = torch.abs(t)
    return torch.where(from_zero > 1, (2 - from_zero).abs(), from_zero)


@overload
def sample(
    sde: SDE,
    score: Score,
    x: Tensor,
    *,
    with_log_prob: Literal[False] = ...,
    trajectory: bool = ...,
    differentiable: bool = ...,
    **solver: Unpack[_Solver],
) -> Tensor: ...
@overload
def sample(
    sde: SDE,
    score: Score,
    x: Tensor,
    *,
    with_log_prob: Literal[True],
    trajectory: bool = ...,
    differentiable: bool = ...,
    **solver_and_likelihood: Unpack[_SolverAndLikelihood],
) -> tuple[Tensor, Tensor]: ...
@overload
def sample(
    sde: SDE,
    score: Score,
    x: Tensor,
    *,
    with_log_prob: bool,
    trajectory: bool = ...,
    differentiable: bool = ...,
    **solver_and_likelihood: Unpack[_SolverAndLikelihood],
) -> Tensor | tuple[Tensor, Tensor]: ...
def sample(
    sde: SDE,
    score: Score,
    x: Tensor,
    *,
    method: _Method | None = None,
    rtol: Number = 1e-5,
    atol: Number = 1e-5,
    t_min: Number = 1e-3,
    n_steps: Integer | None = None,
    times: Tensor | None = None,
    data_std: Number | None = None,
    trajectory: bool = False,
    with_log_prob: bool = False,
    differentiable: bool = False,
    **likelihood: Unpack[_Likelihood],
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Sample by the probability flow, from noise at ``t = 1`` to data at ``t = t_min``.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.
        x: states at ``t = 1``, as a rule ``sde.sample_prior(...)``, shape ``(B, *event)``.
        method: name of the solver; by default ``adams`` where ``n_steps`` is given, ``dopri5`` otherwise.

            ``adams``: one evaluation of the score a step, an error of third order; ``n_steps`` are even in the share of
            noise :math:`\sigma/(\alpha s + \sigma)`, with :math:`s` the ``data_std``.

            Fixed steps in ``t``: ``euler``, ``midpoint``, ``heun2``, ``heun3``, ``rk4``. Adaptive, by torchdiffeq:
            ``dopri5``, ``dopri8``, ``bosh3``, ``adaptive_heun``, whose one step size serves the whole batch, so
            batch-mates change a sample within the tolerance.
        rtol: relative tolerance of an adaptive solver.
        atol: its absolute tolerance, in the units of ``x``.
        t_min: last time, in (0, 1).
        n_steps: number of steps of ``adams`` or a fixed solver; with an adaptive solver that is named, the number of
            states that ``trajectory`` returns (50 by default).
        times: a grid instead of ``n_steps`` and ``t_min``, such as ``sde.time_grid(50, spacing="karras")``: the steps
            of ``adams`` or a fixed solver, which is to be named. ``dopri5``, the default here too, chooses its own
            steps and only stops at these times.
        data_std: standard deviation of the data, in their units, by which ``adams`` measures the signal; by default
            what the score says (a ``ScoreModel``, an exact score and what guidance makes of them do), else 1. A wrong
            scale costs accuracy at few steps; no other method asks for it.
        trajectory: return the states at all times of the grid.
        with_log_prob: return the log-density of the samples too, from the same solve, for ``x`` drawn from the prior.
        differentiable: let gradients flow back from the samples to ``x`` and to what the score is made of. Memory then
            grows by a few states an evaluation of the score, not by what is inside it: that is computed again as the
            gradients pass. Otherwise nothing is recorded.
        likelihood: ``divergence``, ``n_projections``, ``prior``, ``chunk_size`` and ``generator``, as for
            :func:`log_prob`, with ``with_log_prob`` only.

    Returns:
        Samples, shape ``(B, *event)``, or the trajectory ``(n_steps + 1, B, *event)``, start included. With
        ``with_log_prob`` a pair of that and the log-densities, shape ``(B,)``, or ``(n_steps + 1, B)``, in nats.

    Raises:
        ValueError: for an unknown method, ``t_min`` outside (0, 1), a fixed solver without steps, bad tolerances, a
            ``data_std`` that is not positive, NaN in ``x``, a score that belongs to another SDE, or one that hides from
            autograd how it depends on ``x`` (:func:`scorebook.lab.gradients.checked`) where its derivatives are needed.
        TypeError: for an unknown keyword.
        RuntimeError: if the flow leaves the finite numbers, or an adaptive solver's step underflows.

    Source: Song et al. (2021), eq. 13; Zhang & Chen (2023) for few steps by a multistep method.
    """
    _known_keywords("sample", likelihood, _TRACE_KEYWORDS)
    if likelihood and not with_log_prob:
        raise TypeError(f"sample takes {next(iter(likelihood))!r} for its log-density, with with_log_prob=True")
    traced: dict[str, Any] = {**likelihood}
    prior = traced.pop("prior", None)
    solver: _Solver = {"method": method, "rtol": rtol, "atol": atol, "t_min": t_min, "n_steps": n_steps}
    solver |= {"times": times, "data_std": data_std}
    with _recorded_if(differentiable):
        trace = _trace(x, **traced) if with_log_prob else None
        path, stretched = _solve(sde, score, x, trace, trajectory=trajectory, **solver)
        if not with_log_prob:
            return path
        start = same_shape("prior", _density(sde, prior)(x), stretched[0] if trajectory else stretched)
        return path, (start - stretched).to(x.dtype)


def encode(
    sde: SDE,
    score: Score,
    x: Tensor,
    *,
    trajectory: bool = False,
    differentiable: bool = False,
    **solver: Unpack[_Solver],
) -> Tensor:
    r"""Follow the probability flow from data at ``t_min`` to the code at ``t = 1``; :func:`sample` decodes it.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.
        x: data, shape ``(B, *event)``.
        trajectory: return the states at all times of the grid.
        differentiable: let gradients flow back, as in :func:`sample`.
        solver: ``method``, ``rtol``, ``atol``, ``t_min``, ``n_steps``, ``times`` and ``data_std``, with the meaning and
            the defaults that they have in :func:`sample`. The grid of ``times`` is the decreasing one of
            :func:`sample`, and is run through backwards.

    Returns:
        Codes, shape ``(B, *event)``, or the trajectory ``(n_steps + 1, B, *event)``, start included.

    Raises:
        ValueError: as :func:`sample`.
        TypeError: for an unknown keyword.
        RuntimeError: as :func:`sample`.

    Source: Song et al. (2021), section D.3.
    """
    _known_keywords("encode", solver)
    with _recorded_if(differentiable):
        return _solve(sde, score, x, forwards=True, trajectory=trajectory, **solver)[0]


def log_prob(
    sde: SDE,
    score: Score,
    x: Tensor,
    *,
    divergence: Literal["exact", "hutchinson"] = "exact",
    n_projections: Integer = 1,
    prior: _Prior | None = None,
    chunk_size: Integer | None = None,
    generator: torch.Generator | None = None,
    differentiable: bool = False,
    **solver: Unpack[_Solver],
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
        differentiable: let gradients flow back to ``x`` and to what the score is made of, as in :func:`sample`; they
            take second derivatives of the score.
        solver: ``method``, ``rtol``, ``atol``, ``t_min`` (the time at which ``x`` is taken to be), ``n_steps``,
            ``times`` and ``data_std``, as for :func:`encode`. An adaptive solver holds the log-density to the same
            tolerances.

    Returns:
        Log-densities in the units of ``x``, shape ``(B,)``.

    Raises:
        ValueError: as :func:`sample`, and for an unknown ``divergence`` or ``n_projections`` below 1.
        TypeError: for an unknown keyword.
        RuntimeError: as :func:`sample`.

    Source: Song et al. (2021), eq. 39; Grathwohl et al. (2019) for the probes.
    """
    _known_keywords("log_prob", solver)
    with _recorded_if(differentiable):
        trace = _trace(x, divergence, n_projections, chunk_size, generator)
        end, stretched = _solve(sde, score, x, trace, forwards=True, **solver)
        return (same_shape("prior", _density(sde, prior)(end), stretched) + stretched).to(x.dtype)


def bits_per_dim(log_prob: Tensor, n_dims: Integer, bin_width: Number) -> Tensor:
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
    n_dims = positive_integer("n_dims", n_dims)
    positive("bin_width", bin_width)
    return -(log_prob / n_dims + math.log(bin_width)) / math.log(2)


def dequantize(x: Tensor, bin_width: Number, *, generator: torch.Generator | None = None) -> Tensor:
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
    u = uniform(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return x + (u - 0.5) * float(bin_width)


def interpolate(
    sde: SDE, score: Score, x_a: Tensor, x_b: Tensor, weights: Array | Number, **solver: Unpack[_Solver]
) -> Tensor:
    r"""Points between two: their codes' directions along a great circle, their lengths in proportion.

    Codes of dimension :math:`d` lie near a sphere of radius :math:`\sqrt d`, which a straight line would leave. With
    :math:`e` the direction of :math:`z_a`, :math:`e'` that of the part of :math:`z_b` across it, and :math:`\theta` the
    angle between the two codes, the point at weight :math:`w` decodes

    .. math:: \big[(1 - w)\,\lVert z_a \rVert + w\,\lVert z_b \rVert\big]\,
              \big[\cos(w\,\theta)\,e + \sin(w\,\theta)\,e'\big] .

    Codes in one direction are joined by a straight line, and so is a code of length 0, which has no direction, with any
    other. Opposite directions are joined by many great circles: :math:`e'` is then the axis most nearly across
    :math:`e`, the first of several. On the line, where there is nothing across, the way is straight through 0.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.
        x_a: points at weight 0, shape ``(B, *event)``.
        x_b: points at weight 1, the same shape.
        weights: numbers in [0, 1], length ``n``.
        solver: ``method``, ``rtol``, ``atol``, ``t_min``, ``n_steps`` or ``times``, and ``data_std``, for
            :func:`encode` and :func:`sample`.

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
    z_a, z_b = (vectors(encode(sde, score, x, **solver)) for x in (x_a, x_b.to(x_a.dtype)))
    z = _on_the_way(z_a, z_b, w)
    return sample(sde, score, z.reshape(-1, *x_a.shape[1:]), **solver).reshape(len(z), *x_a.shape)


def _on_the_way(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """Codes between ``a`` and ``b``, shape ``(B, d)``, for weights of shape ``(n, 1, 1)``; see :func:`interpolate`."""
    if a.shape[1] < 2:
        return (1 - w) * a + w * b
    (length_a, e_a), (length_b, e_b) = ((z.norm(dim=1, keepdim=True), _unit(z)) for z in (a, b))
    e_a, e_b = torch.where(length_a > 0, e_a, e_b), torch.where(length_b > 0, e_b, e_a)
    along = (e_a * e_b).sum(1, keepdim=True)
    across = e_b - along * e_a
    axis = torch.zeros_like(e_a).scatter(1, e_a.abs().argmin(1, keepdim=True), 1)
    opposite = (along < 0) & (across.norm(dim=1, keepdim=True) < 8 * torch.finfo(a.dtype).eps)
    angle = torch.atan2(across.norm(dim=1, keepdim=True), along)
    across = torch.where(opposite, axis - (axis * e_a).sum(1, keepdim=True) * e_a, across)
    direction = torch.cos(w * angle) * e_a + torch.sin(w * angle) * _unit(across)
    return ((1 - w) * length_a + w * length_b) * direction


def _unit(z: Tensor) -> Tensor:
    return torch.nn.functional.normalize(z, dim=1, eps=torch.finfo(z.dtype).tiny)


@contextlib.contextmanager
def _recorded_if(differentiable: bool) -> Iterator[None]:
    """Solve outside of inference mode, and let autograd record only what is asked for."""
    with outside_inference_mode(), torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        yield


def _trace(
    x: Tensor,
    divergence: str = "exact",
    n_projections: Integer = 1,
    chunk_size: Integer | None = None,
    generator: torch.Generator | None = None,
) -> _Trace:
    """Callable that evaluates a field once, for its value and its divergence."""
    batch("x", x)
    one_of("divergence", divergence, ("exact", "hutchinson"))
    positive_integer("n_projections", n_projections)
    if divergence == "exact":
        return lambda field, u: value_and_divergence(field, u, chunk_size=chunk_size, check=False)
    probes = random_projections(x, n_projections, generator=generator)

    def along_probes(field: Field, u: Tensor) -> tuple[Tensor, Tensor]:
        value, slices = value_and_slices(field, u, probes, check=False)
        return value, slices.mean(0)

    return along_probes


def _density(sde: SDE, prior: _Prior | None) -> LogDensity:
    found: Any = sde.prior_log_prob if prior is None else getattr(prior, "log_prob", prior)
    return found


def _known_keywords(function: str, given: Iterable[str], known: tuple[str, ...] = _SOLVER_KEYWORDS) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        others = "" if known is _SOLVER_KEYWORDS else f", those of the log-density {', '.join(known)}"
        raise TypeError(
            f"{function} takes no keyword {unknown[0]!r}; those of the solver are {', '.join(_SOLVER_KEYWORDS)}{others}"
        )


class _Rows:
    """Rows of one tensor as a state: a position, and beside it, if asked for, by how much space has been stretched.

    The stretching is the logarithm of the volume that a unit of volume has become. ``trace`` evaluates a field for its
    value and its divergence, the rate of stretching.
    """

    def __init__(self, x: Tensor, trace: _Trace | None):
        self.shape, self.width, self.dtype, self.trace = x.shape, math.prod(x.shape[1:]), x.dtype, trace

    def start(self, x: Tensor) -> Tensor:
        state = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(len(x), self.width)
        return state if self.trace is None else torch.cat([state, state.new_zeros(len(x), 1)], dim=1)

    def position(self, state: Tensor, scale: float = 1.0) -> Tensor:
        return (scale * state[:, : self.width]).reshape(self.shape).to(self.dtype)

    def stretching(self, state: Tensor, scale: float = 1.0) -> Tensor:
        return state[:, self.width] + self.width * math.log(scale)

    def rate(self, field: Field, state: Tensor) -> Tensor:
        """Rate of the rows under a field of the positions; its inside is not kept for the backward pass."""
        recorded = torch.is_grad_enabled()
        return checkpoint(self._rate, field, state, use_reentrant=False) if recorded else self._rate(field, state)

    def _rate(self, field: Field, state: Tensor) -> Tensor:
        x = state[:, : self.width].reshape(self.shape)
        if self.trace is None:
            return unchecked(field, x).reshape(len(x), self.width)
        value, divergence = self.trace(field, x)
        return torch.cat([value.reshape(len(x), self.width), divergence[:, None]], dim=1)


def _solve(
    sde: SDE,
    score: Score,
    x: Tensor,
    trace: _Trace | None = None,
    *,
    forwards: bool = False,
    method: str | None = None,
    rtol: Number = 1e-5,
    atol: Number = 1e-5,
    t_min: Number = 1e-3,
    n_steps: Integer | None = None,
    times: Tensor | None = None,
    data_std: Number | None = None,
    trajectory: bool = False,
) -> tuple[Tensor, Any]:
    """Where the flow ends and how much it has stretched space by then; with ``trajectory``, at all times."""
    same_sde("score", score, sde)
    if method is None:
        method = "dopri5" if n_steps is None else _MULTISTEP
    data_std = _data_std(score, data_std)
    times = _times(sde, method, t_min, n_steps, times, data_std, trajectory)
    batch("x", x)
    finite("x", x)
    if method in _ADAPTIVE and x.numel() == 0:
        raise ValueError(f"x must hold a point by which {method} can choose its steps, got shape {tuple(x.shape)}")
    positive("rtol", rtol)
    positive("atol", atol)
    times = times.flip(0) if forwards else times
    rows, scales = _Rows(x, trace), [1.0] * len(times)
    states: Iterable[Tensor]
    recorded = torch.is_grad_enabled()
    # Looked at as it is first called, the score need not be called once more for that. But what is called again as
    # gradients pass must do the same each time.
    look_first = trace is not None and not recorded
    look, start = _looked_at if look_first else lambda score: score, rows.start(x)
    if recorded:
        _look_at(score, x, times[0])
    if method == _MULTISTEP:
        scales, states = _turn(sde, score, look, rows, start, times, data_std)
    else:
        slope = _slope(sde, _asked(look(functools.partial(at, score)), x.dtype), rows, start)
        if method in _FIXED:
            states = _runge_kutta(slope, start, times.tolist(), *_FIXED[method])
        else:
            states = _by_torchdiffeq(slope, rows, start, times, method, rtol, atol)
    kept = collections.deque(_finite(states, scales, times), maxlen=None if trajectory else 1)
    path = torch.stack([rows.position(state, scale) for state, scale in kept])
    path = path if trajectory else path[0]
    # Where the data are, the score is steep, and a part that it hides shows.
    if (trace is not None or recorded) and not forwards:
        _look_at(score, path[-1] if trajectory else path, times[-1])
    if trace is None:
        return path, None
    stretched = torch.stack([rows.stretching(state, scale / scales[0]) for state, scale in kept])
    return path, stretched if trajectory else stretched[0]


def _data_std(score: Score, given: Number | None) -> float:
    """The scale of the data: as given, or as the score says, or 1."""
    if given is None:
        given = 1.0 if (said := data_std_of(score)) is None else said
    positive("data_std", given)
    return float(given)


def _asked(score: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    """A score of states, asked in the precision of the points."""
    return lambda x, *t: same_shape("score", score(x.to(dtype), *t), x).to(x.dtype)


def _looked_at(score: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same score, looked at by :func:`checked` as it is called for the first time."""
    first = iter([True])

    def call(x: Tensor, *t: Any) -> Tensor:
        if next(first, False):
            return checked("score", lambda x: score(x, *t), x)
        return score(x, *t)

    return call


def _look_at(score: Score, x: Tensor, t: Tensor) -> None:
    with recording(x.detach()) as inside:
        t = t.to(device=x.device, dtype=torch.promote_types(x.dtype, torch.float32))
        checked("score", lambda x: at(score, x, t), inside)


def _slope(sde: SDE, score: Score, rows: _Rows, start: Tensor) -> Callable[..., Tensor]:
    """Rate of the rows at a time that is a number or a tensor."""
    field = _velocity(sde, score)

    def slope(t: float | Tensor, state: Tensor) -> Tensor:
        if not isinstance(t, Tensor):
            t = torch.full((), t, dtype=start.dtype, device=start.device)
        if rows.trace is None or rows.dtype.itemsize >= start.dtype.itemsize:
            return rows.rate(lambda x: field(t, x), state)
        # What a divergence sends back through a score in half precision must not be g^2, but of the size of its noise.
        size = (sde.diffusion(t) ** 2 / sde.sigma(t).clamp(min=1e-3)).clamp(min=1).to(start.dtype)
        return size * rows.rate(lambda x: field(t, x) / size, state)

    return slope


def _finite(states: Iterable[Tensor], scales: Iterable[float], times: Tensor) -> Iterator[tuple[Tensor, float]]:
    """Hand on each state with its scale, unless some of its rows have left the finite numbers."""
    before, states = times[0], iter(states)
    for t, scale in zip(times, scales, strict=True):
        with one_read():
            state = next(states)
            finite_rows = torch.isfinite(state.detach()).all(1)
            require(finite_rows.all(), functools.partial(_left_the_numbers, finite_rows, before, t))
        before = t
        yield state, scale


def _left_the_numbers(finite_rows: Tensor, before: Tensor, t: Tensor) -> RuntimeError:
    return RuntimeError(
        f"{int((~finite_rows).sum())} of {len(finite_rows)} rows left the finite numbers between t={before:g} and "
        f"t={t:g}: the score is NaN or infinite there, or too steep for the steps. See what it returns near that time; "
        "take more steps, or raise t_min"
    )


def _turn(
    sde: SDE,
    score: Score,
    look: Callable[..., Callable[..., Tensor]],
    rows: _Rows,
    state: Tensor,
    times: Tensor,
    data_std: float,
) -> tuple[list[float], Iterator[Tensor]]:
    """The flow in the angle between signal and noise: the scale at each time, and the states divided by it."""
    ratios, scales = _ratio_and_scale(sde, times, data_std)
    # Of the times at which noise drowns the signal, one is a step's end. From one to the next there is no way to go.
    idle = max(0, min(int((ratios > _DROWNED).sum()) - 1, len(times) - 2))
    forwards = bool(times[0] < times[-1])
    busy = slice(0, len(times) - idle) if forwards else slice(idle, None)
    times, ratios = times[busy], ratios[busy]
    # The rate is a posterior mean, found to a rounding times noise over signal. Where that is coarse, it is taken where
    # noise over signal is one over the root of a rounding: beyond, hardly any way is left.
    coarse = torch.finfo(state.dtype).eps ** -0.5
    asked_at = times.clamp(max=float(sde.time_of(coarse * data_std))) if bool((ratios > coarse).any()) else times
    tangents, radii = (values.tolist() for values in _ratio_and_scale(sde, asked_at, data_std))
    first, *others = on_grid(score, asked_at[:-1].to(device=state.device, dtype=state.dtype))
    scores = [_asked(each, rows.dtype) for each in (look(first), *others)]

    def rate(k: int, state: Tensor) -> Tensor:
        return -tangents[k] * rows.rate(lambda u: u + radii[k] * scores[k](radii[k] * u), state)

    start = torch.cat([state[:, : rows.width] / scales[0].item(), state[:, rows.width :]], dim=1)
    states = _adams(rate, start, torch.arctan(ratios).numpy())
    return scales.tolist(), _idle_at_the_end(states, idle) if forwards else itertools.chain([start] * idle, states)


def _idle_at_the_end(states: Iterable[Tensor], times: int) -> Iterator[Tensor]:
    for state in states:
        yield state
    yield from [state] * times


def _ratio_and_scale(sde: SDE, times: Tensor, data_std: float) -> tuple[Tensor, Tensor]:
    signal, noise = sde.alpha(times) * data_std, sde.sigma(times)
    return noise / signal, torch.hypot(signal, noise)


def _adams(rate: Callable[[int, Tensor], Tensor], state: Tensor, nodes: np.ndarray) -> Iterator[Tensor]:
    r"""Solve ``d state/d node = rate`` by the method of Adams, Bashforth and Moulton; yield all states.

    Predict: integrate the parabola through the last three rates over the next step,
    :math:`y_{k+1} = y_k + \tfrac{h}{12}(23 f_k - 16 f_{k-1} + 5 f_{k-2})` where steps are equal. Evaluate
    :math:`f_{k+1}` there. Correct: now the parabola goes through the rate of arrival too,
    :math:`y_{k+1} = y_k + \tfrac{h}{12}(5 f_{k+1} + 8 f_k - f_{k-1})`. The first steps have fewer rates and lower
    degrees, which costs no order. The last state stays as predicted, so that ``n`` steps cost ``n`` evaluations; what
    no evaluation corrects any more is foretold by a line rather than a parabola, in the last step of eight or fewer by
    the last rate alone.

    Source: Hairer, Nørsett & Wanner (1993), section III.1; Zhao et al. (2023), "UniPC", for the corrector without an
    evaluation of its own.
    """
    rates: list[Tensor] = []
    previous = state
    fewest = 1 if len(nodes) - 1 <= _FEW_STEPS else 2
    for k in range(len(nodes) - 1):
        rates = [*rates[-2:], rate(k, state)]
        known = nodes[k + 1 - len(rates) : k + 1]
        if k > 0:
            state = _integrate(previous, rates, known, nodes[k - 1], nodes[k])
        yield state
        n_used = min(max(len(nodes) - 1 - k, fewest), 3)
        previous, state = state, _integrate(state, rates[-n_used:], known[-n_used:], nodes[k], nodes[k + 1])
    yield state


def _integrate(state: Tensor, rates: Sequence[Tensor], nodes: np.ndarray, start: float, end: float) -> Tensor:
    """The state after the step from ``start`` to ``end``, for the polynomial that has these rates at these nodes."""
    step = end - start
    if step == 0:
        return state
    powers = np.arange(len(nodes))
    # In units of the step the integral of the k-th power is 1/(k + 1); weights must be right for each power.
    weights = np.linalg.solve(((nodes - start) / step) ** powers[:, None], step / (powers + 1))
    for weight, rate in zip(weights.tolist(), rates, strict=True):
        state = torch.add(state, rate, alpha=weight)
    return state


def _runge_kutta(
    slope: Callable[..., Tensor],
    state: Tensor,
    times: list[float],
    stages: Sequence[tuple[float, Sequence[float]]],
    weights: Sequence[float],
) -> Iterator[Tensor]:
    """Solve ``d state/dt = slope(t, state)`` by an explicit method of fixed steps; yield all states."""
    yield state
    for start, end in itertools.pairwise(times):
        rates, step = [slope(start, state)], end - start
        for share, row in stages:
            rates.append(slope(end if share == 1 else start + share * step, _moved(state, step, row, rates)))
        state = _moved(state, step, weights, rates)
        yield state


def _moved(state: Tensor, step: float, weights: Sequence[float], rates: list[Tensor]) -> Tensor:
    for weight, rate in zip(weights, rates, strict=True):
        if weight:
            state = torch.add(state, rate, alpha=weight * step)
    return state


def _by_torchdiffeq(
    slope: Callable[..., Tensor], rows: _Rows, state: Tensor, times: Tensor, method: str, rtol: Number, atol: Number
) -> Tensor:
    """The states at all times, by steps that hold the error of positions and stretching to the tolerances."""
    lately: collections.deque[tuple[Tensor, Tensor]] = collections.deque(maxlen=32)

    @one_read()
    def watched(t: Tensor, state: Tensor) -> Tensor:
        rate = slope(t, state)
        lately.append((t, (~torch.isfinite(rate.detach())).any(1).sum()))
        return rate

    def before_step(t: Tensor, state: Tensor, step: Tensor) -> None:
        # The solver has asserts for this, which python -O takes out: it would try the same step for ever.
        if bool((t + step > t) & (t - step < t)):
            return
        t_bad, n_bad = next(((t, n) for t, n in lately if n > 0), (t, 0))
        cause = (
            f"the velocity is not a number there, for {int(n_bad)} of {len(state)} rows"
            if n_bad
            else f"the velocity is too steep for rtol={rtol:g}, atol={atol:g} in {state.dtype}"
        )
        raise RuntimeError(
            f"the step of {method} shrank to nothing at t={float(t_bad):g}: {cause}. See what the score returns near "
            "that time; raise t_min, loosen the tolerances, use float64, or take fixed steps (method='heun2', "
            "times=sde.time_grid(50, spacing='karras'))."
        )

    vars(watched)["callback_step"] = before_step

    def norm(state: Tensor) -> Any:
        parts = (state[:, : rows.width], state[:, rows.width :])
        return max(part.square().mean().sqrt() for part in parts if part.numel())

    times = times.to(state.device)
    # Left alone, the solver oversteps the last time and interpolates back, and probes far outside [0, 1] for its first
    # step: the SDE has no noise level there.
    options = {"step_t": times[-1:], "first_step": 1e-3 * abs(float(times[-1] - times[0])), "norm": norm}
    return odeint(watched, state, times, rtol=rtol, atol=atol, method=method, options=options)


def _times(
    sde: SDE,
    method: str,
    t_min: Number,
    n_steps: Integer | None,
    times: Tensor | None,
    data_std: float,
    trajectory: bool,
) -> Tensor:
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
        return times.detach().to("cpu", torch.float64, copy=True)
    inner_time("t_min", t_min)
    if method not in _ADAPTIVE and n_steps is None:
        raise ValueError(f"method {method!r} takes fixed steps: give n_steps or times")
    spacing: Literal["share", "uniform"] = "share" if method == _MULTISTEP else "uniform"
    if n_steps is None:
        n_steps = 50 if trajectory else 1
    with torch.device("cpu"):
        return sde.time_grid(n_steps, t_min=t_min, spacing=spacing, data_std=data_std, dtype=torch.float64)
