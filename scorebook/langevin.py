r"""Langevin dynamics: samples from a score.

.. math:: x_{k+1} = x_k + \epsilon\, s(x_k) + \sqrt{2\epsilon}\, z_k, \qquad z_k \sim N(0, I)

Without the noise the iteration climbs to a mode (:func:`gradient_ascent`). With it, it is the Euler scheme of

.. math:: dx = \nabla \log \pi(x)\, dt + \sqrt 2\, dw,

whose Fokker-Planck equation :math:`\partial_t p = -\nabla \cdot (p\, \nabla \log \pi) + \Delta p` leaves the target
:math:`\pi` as it is. The step is finite, so the stationary law is the target only up to a bias of order
:math:`\epsilon`: for :math:`N(0, s^2)` its variance is

.. math:: \frac{2 s^4}{2 s^2 - \epsilon}, \qquad \epsilon < 2 s^2 .

:func:`metropolis_adjusted_langevin` takes the bias away by refusing some of the steps (Roberts & Tweedie, 1996).

Much of the literature writes :math:`x + \tfrac{\epsilon'}{2} s + \sqrt{\epsilon'}\, z`: the same step, with
:math:`\epsilon' = 2 \epsilon`.

A run of many steps is worth fewer independent draws than it has states: :func:`autocorrelation` and
:func:`effective_sample_size` say how many.
"""

import functools
import math
import numbers
import warnings

import torch
from torch import Tensor

from scorebook.lab.arguments import (
    at_least_single,
    expand,
    finite,
    floating,
    one_per_row,
    one_read,
    positive,
    positive_integer,
    require,
    same_shape,
    standard_normal,
    sum_over_event,
    uniform,
    vectors,
)
from scorebook.lab.gradients import checked, recording
from scorebook.lab.types import Field, Integer, LogDensity, PerRow

__all__ = [
    "autocorrelation",
    "effective_sample_size",
    "gradient_ascent",
    "langevin",
    "metropolis_adjusted_langevin",
]


@torch.no_grad()
def gradient_ascent(
    score: Field, x: Tensor, *, step_size: PerRow, n_steps: Integer, trajectory: bool = False
) -> Tensor:
    r"""Follow the score uphill, without noise.

    .. math:: x_{k+1} = x_k + \epsilon\, s(x_k)

    It ends on a mode (or, from a set of measure zero, on a saddle), whatever the law around it: no sampler.

    Args:
        score: callable ``x -> tensor like x``, row by row.
        x: start points, shape ``(B, *event)``.
        step_size: :math:`\epsilon`, in the squared units of ``x``; scalar or shape ``(B,)``.
        n_steps: number of steps.
        trajectory: return all states, shape ``(n_steps + 1, B, *event)``, start included.

    Returns:
        The last states, shape ``(B, *event)``, or the trajectory.

    Raises:
        ValueError: if ``x`` is not a finite floating tensor, ``step_size`` not positive, ``n_steps`` no positive
            integer, or the score returns another shape.
        RuntimeError: if a path diverges.
    """
    step = _checked(x, step_size, n_steps)

    def update(state: Tensor) -> Tensor:
        return state + step * _evaluate(score, state, x.dtype)

    return _iterate(update, x, step_size, n_steps, trajectory)


@torch.no_grad()
def langevin(
    score: Field,
    x: Tensor,
    *,
    step_size: PerRow,
    n_steps: Integer,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> Tensor:
    r"""Unadjusted Langevin dynamics: a step uphill and a push of noise.

    .. math:: x_{k+1} = x_k + \epsilon\, s(x_k) + \sqrt{2\epsilon}\, z_k, \qquad z_k \sim N(0, I)

    Each row is a chain by itself. With a score of curvature at most :math:`1/s^2` the chain is stable for
    :math:`\epsilon < 2 s^2`; its stationary law differs from the target by order :math:`\epsilon`.

    Args:
        score: callable ``x -> tensor like x``, row by row.
        x: start points, shape ``(B, *event)``.
        step_size: :math:`\epsilon`, in the squared units of ``x``; scalar or shape ``(B,)``. Where a paper writes
            :math:`x + \tfrac{\epsilon'}{2} s + \sqrt{\epsilon'} z`, give :math:`\epsilon'/2`.
        n_steps: number of steps.
        generator: source of the noise.
        trajectory: return all states, shape ``(n_steps + 1, B, *event)``, start included.

    Returns:
        The last states, shape ``(B, *event)``, or the trajectory.

    Raises:
        ValueError: if ``x`` is not a finite floating tensor, ``step_size`` not positive, ``n_steps`` no positive
            integer, or the score returns another shape.
        RuntimeError: if a chain diverges; the message names the chain, the step, the step size and the largest value.

    Source: Roberts & Tweedie (1996); Song & Ermon (2019), eq. 4, whose step is twice this one.
    """
    step = _checked(x, step_size, n_steps)
    noise_std = (2 * step).sqrt()

    def update(state: Tensor) -> Tensor:
        z = standard_normal(x.shape, generator=generator, dtype=state.dtype, device=x.device)
        return state + step * _evaluate(score, state, x.dtype) + noise_std * z

    return _iterate(update, x, step_size, n_steps, trajectory)


@torch.no_grad()
def metropolis_adjusted_langevin(
    log_prob: LogDensity,
    x: Tensor,
    *,
    step_size: PerRow,
    n_steps: Integer,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""Langevin dynamics that accepts or refuses each step, so that its stationary law is the target exactly (MALA).

    A step of :func:`langevin` proposes :math:`y \sim q(y \mid x) = N(x + \epsilon\, s(x), 2\epsilon I)`, taken with
    probability

    .. math:: \min\left(1, \frac{\pi(y)\, q(x \mid y)}{\pi(x)\, q(y \mid x)}\right);

    otherwise the chain stays where it is. One gradient of ``log_prob`` by autograd per step.

    Args:
        log_prob: callable ``(B, *event) -> (B,)``, differentiable; it need not be normalised, and is ``-inf`` where
            there is no density. A proposal there, or where it is not finite otherwise, is refused.
        x: start points, shape ``(B, *event)``.
        step_size: :math:`\epsilon`, in the squared units of ``x``; scalar or shape ``(B,)``.
        n_steps: number of steps.
        generator: source of the noise and of the decisions.
        trajectory: return all states, shape ``(n_steps + 1, B, *event)``, start included.

    Returns:
        ``(x, acceptance_rate)``: the last states, shape ``(B, *event)``, or the trajectory; and for each chain the
        share of its proposals that it took, shape ``(B,)``.

    Raises:
        ValueError: if ``x`` is not a finite floating tensor, ``step_size`` not positive, ``n_steps`` no positive
            integer, or ``log_prob`` returns another shape, does not depend on ``x`` by autograd, or is not finite, or
            has no finite gradient, at a start point.

    Warns:
        UserWarning: if proposals were refused because ``log_prob`` was NaN or ``inf`` there, or its gradient not
            finite; the message says from which step on, and for how many. A chain that only refuses stands still.

    Source: Roberts & Tweedie (1996); Roberts & Rosenthal (1998) for the choice of the step.
    """
    step = _checked(x, step_size, n_steps)
    noise_std = (2 * step).sqrt()
    dtype, state = x.dtype, at_least_single(x)
    log_p, score = _log_prob_and_score(log_prob, x)
    finite("log_prob at the start", log_p)
    finite("the gradient of log_prob at the start", score)
    accepted, undefined = state.new_zeros(len(x)), []
    states = [x]
    for _ in range(n_steps):
        z = standard_normal(x.shape, generator=generator, dtype=state.dtype, device=x.device)
        # The densities are those of the rounded proposal, and so must be the point that is kept.
        y = (state + step * score + noise_std * z).to(dtype).to(state.dtype)
        log_p_y, score_y = _log_prob_and_score(log_prob, y.to(dtype))
        log_forward = -_squared_norm(y - state - step * score, step)
        log_backward = -_squared_norm(state - y - step * score_y, step)
        log_ratio = log_p_y - log_p + log_backward - log_forward
        # Where the proposal has no finite density or gradient the ratio may be NaN, which no comparison accepts.
        u = uniform((len(x),), generator=generator, dtype=state.dtype, device=x.device)
        take = (u.log() < log_ratio) & torch.isfinite(log_p_y)
        rows = take.reshape(-1, *[1] * (x.ndim - 1))
        state, score = torch.where(rows, y, state), torch.where(rows, score_y, score)
        log_p = torch.where(take, log_p_y, log_p)
        accepted += take
        without = ~torch.isfinite(sum_over_event(score_y)) | ~torch.isfinite(log_p_y)
        undefined.append((without & (log_p_y != -math.inf)).sum())
        if trajectory:
            states.append(state.to(dtype))
    _warn_of_undefined(torch.stack(undefined), len(x))
    return torch.stack(states) if trajectory else state.to(dtype), accepted / int(n_steps)


def _warn_of_undefined(n_rows: Tensor, n_chains: int) -> None:
    if n_rows.is_meta or not bool(n_rows.any()):
        return
    step = int(n_rows.nonzero()[0])
    warnings.warn(
        f"{int(n_rows.sum())} of {len(n_rows) * n_chains} proposals were refused because log_prob or its gradient is "
        f"not a finite number there, first at step {step + 1} of {len(n_rows)}, in {int(n_rows[step])} of {n_chains} "
        "rows: see what log_prob returns; where there is no density it should return -inf",
        stacklevel=4,  # of them one is torch.no_grad's
    )


def autocorrelation(path: Tensor, *, max_lag: Integer | None = None) -> Tensor:
    r"""Correlation between the states of a chain that lie ``k`` steps apart.

    .. math:: \rho_k = \frac{c_k}{c_0}, \qquad
              c_k = \frac{1}{nB} \sum_{b=1}^{B} \sum_{i=1}^{n-k} (x_{i,b} - \bar x)(x_{i+k,b} - \bar x)

    with the mean :math:`\bar x` over all steps and all chains. Chains that stay in different places therefore stay
    correlated with themselves: what they have not explored counts against them. (With one chain, nothing can show
    that.)

    Args:
        path: states, shape ``(n, B, *event)``, a stationary stretch of a trajectory.
        max_lag: the greatest ``k``; ``n - 1`` by default.

    Returns:
        Correlations at lags ``0, ..., max_lag`` for each coordinate, shape ``(max_lag + 1, *event)``.

    Raises:
        ValueError: if ``path`` has fewer than two states or no axis of chains, is not floating or not finite, or has
            a coordinate that never varies; if ``max_lag`` is not in ``0, ..., n - 1``.
    """
    n = _checked_path(path)
    if max_lag is None:
        max_lag = n - 1
    if isinstance(max_lag, bool) or not isinstance(max_lag, numbers.Integral) or not 0 <= max_lag < n:
        raise ValueError(f"max_lag must be an integer from 0 to {n - 1}, got {max_lag!r}")
    deviation = path - path.mean((0, 1))
    # The correlation of a series with itself is a product in frequency; padding keeps its ends apart.
    spectrum = torch.fft.rfft(deviation, n=2 * n, dim=0)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * n, dim=0)[: max_lag + 1].mean(1)
    if not path.is_meta and not bool((covariance[0] > 0).all()):
        raise ValueError("path must vary in every coordinate, got one that is constant over all steps and chains")
    return covariance / covariance[0]


def effective_sample_size(path: Tensor) -> Tensor:
    r"""Number of independent draws that would give the mean of each coordinate as precisely as these chains do.

    .. math:: n_\mathrm{eff} = \frac{n B}{\tau}, \qquad \tau = 1 + 2 \sum_{k \ge 1} \rho_k

    with the :func:`autocorrelation` :math:`\rho_k` over all ``B`` chains of ``n`` states. The sum ends where the sum
    of two neighbours turns negative, and these sums are made to decrease, as they must for a reversible chain. Chains
    that never leave where they started are worth ``B`` draws, however long they run.

    The result exceeds ``n B`` for chains that swing from side to side; :math:`\tau` is kept above
    :math:`1/\log_{10}(nB)`.

    Args:
        path: states, shape ``(n, B, *event)``, a stationary stretch of a trajectory; better several chains than one,
            which cannot know what it has not seen.

    Returns:
        Effective sample size of each coordinate, shape ``(*event)``. The standard error of a mean is
        ``path.std((0, 1)) / effective_sample_size(path).sqrt()``.

    Raises:
        ValueError: if ``path`` has fewer than two states or no axis of chains, is not floating or not finite, or has
            a coordinate that never varies.

    Source: Geyer (1992), the initial monotone sequence; Vehtari et al. (2021) for many chains.
    """
    n = _checked_path(path)
    rho = autocorrelation(path)
    # Not every version of PyTorch has a running minimum on Apple's GPUs.
    rho = rho.cpu() if rho.device.type == "mps" else rho
    pairs = rho[: 2 * (n // 2)].unflatten(0, (n // 2, 2)).sum(1)
    tau = 2 * pairs.cummin(0).values.clamp(min=0).sum(0) - 1
    n_states = n * path.shape[1]
    return (n_states / tau.clamp(min=1 / max(math.log10(n_states), 1))).to(path.device)


def _checked(x: Tensor, step_size: PerRow, n_steps: Integer) -> Tensor:
    """Check what all chains need and return the step shaped to multiply ``x``."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim == 0:
        came = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x must be a floating tensor of shape (B, *event), got {came}")
    finite("x", x)
    positive("step_size", step_size)
    if isinstance(step_size, Tensor) and step_size.ndim > 0 and step_size.shape != (len(x),):
        raise ValueError(f"step_size must be a scalar or have shape ({len(x)},), got {tuple(step_size.shape)}")
    positive_integer("n_steps", n_steps)
    return expand(step_size, at_least_single(x))


def _evaluate(score: Field, state: Tensor, dtype: torch.dtype) -> Tensor:
    return same_shape("score", score(state.to(dtype)), state).to(state.dtype)


def _iterate(update: Field, x: Tensor, step_size: PerRow, n_steps: Integer, trajectory: bool) -> Tensor:
    # Between evaluations a state is kept in single precision at least: in half, small steps would round to none.
    dtype, state = x.dtype, at_least_single(x)
    states = [x]
    for k in range(1, n_steps + 1):
        with one_read():
            before, state = state, update(state)
            rounded = state.to(dtype)
            require(
                torch.isfinite(rounded).all(),
                functools.partial(_divergence, before, rounded, step_size, k, n_steps),
            )
        if trajectory:
            states.append(rounded)
    return torch.stack(states) if trajectory else rounded


def _divergence(before: Tensor, x: Tensor, step_size: PerRow, k: int, n_steps: Integer) -> RuntimeError:
    diverged = (~torch.isfinite(vectors(x))).any(1)
    row = int(diverged.nonzero()[0])
    if isinstance(step_size, Tensor):
        step_size = step_size.expand(len(x))[row].item()
    return RuntimeError(
        f"chain {row} diverged at step {k} of {n_steps} with step_size {step_size:g}: it is no longer finite, like "
        f"{int(diverged.sum()) - 1} others of {len(x)}, and its "
        f"largest value before that step was {before[row].abs().max().item():.4g}. A smaller step_size keeps a chain "
        "bounded, unless the score itself is not finite where the chain stood."
    )


def _log_prob_and_score(log_prob: LogDensity, x: Tensor) -> tuple[Tensor, Tensor]:
    with recording(x.detach()) as x:
        log_p = one_per_row("log_prob", checked("log_prob", log_prob, x), x)
        if not log_p.requires_grad:
            raise ValueError("log_prob must depend on x, got the same number wherever x lies")
        (score,) = torch.autograd.grad(log_p.sum(), x, allow_unused=True, materialize_grads=True)
    return log_p.detach().to(at_least_single(score).dtype), at_least_single(score)


def _squared_norm(difference: Tensor, step: Tensor) -> Tensor:
    """Return ``|difference|^2 / (4 step)``, minus the log of the proposal's density up to a constant."""
    return sum_over_event(difference.square() / (4 * step))


def _checked_path(path: Tensor) -> int:
    floating("path", path)
    if path.dtype not in (torch.float32, torch.float64):  # others have no Fourier transform on a CPU
        raise ValueError(f"path must be of type float32 or float64, got {path.dtype}")
    if path.ndim < 2 or len(path) < 2:
        raise ValueError(f"path must have shape (n, B, *event) with at least two states, got {tuple(path.shape)}")
    finite("path", path)
    return len(path)
