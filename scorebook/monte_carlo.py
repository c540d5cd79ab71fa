r"""Monte Carlo: an expectation from draws, with the error that it carries.

.. math:: E_p[f(x)] = \int f(x)\, p(x)\, dx \;\approx\; \bar f_N = \frac1N \sum_{i=1}^N f(x_i), \qquad x_i \sim p

The average is unbiased, :math:`E[\bar f_N] = E_p[f]`, and for independent draws its variance is
:math:`\mathrm{Var}[f]/N` in any number of dimensions. The draws themselves tell how far off it may be: its standard
error is estimated by

.. math:: \mathrm{se} = \sqrt{\frac{1}{N(N-1)} \sum_{i=1}^N \big(f(x_i) - \bar f_N\big)^2}

and, by the central limit theorem, :math:`\bar f_N \pm 1.96\,\mathrm{se}` covers the truth in about 95 of 100 runs
once :math:`N` is large. Every measured number of this book carries such an error.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from scorebook.lab.arguments import finite, floating, real
from scorebook.lab.estimates import Estimate, mean_of, standard_error
from scorebook.lab.types import Array, Number

__all__ = ["Estimate", "control_variate", "effective_draws", "expectation", "running_expectation"]


def expectation(f: Callable[[Tensor], Tensor], x: Tensor) -> Estimate:
    r"""Average of ``f`` over draws, with its standard error.

    .. math:: E_p[f(x)] \approx \frac1N \sum_i f(x_i)

    Args:
        f: callable ``(N, *event) -> (N, *out)``, row by row. A truth value counts as 0 or 1, so that the mean of a
            condition is its probability.
        x: independent draws from ``p``, shape ``(N, *event)``.

    Returns:
        :class:`.Estimate` of shape ``(*out)``.

    Raises:
        ValueError: if ``x`` holds no draw, ``x`` or ``f(x)`` holds NaN or infinity, or ``f`` does not return one value
            for each draw.

    Source: Owen (2013), "Monte Carlo theory, methods and examples", sections 2.1 and 2.2.
    """
    return mean_of(_values("f", f, _draws(x)))


def running_expectation(f: Callable[[Tensor], Tensor], x: Tensor) -> Estimate:
    r"""The average after 1, 2, ... N draws: entry ``k`` equals ``expectation(f, x[: k + 1])``.

    Args:
        f: callable ``(N, *event) -> (N, *out)``, row by row.
        x: independent draws in their order, shape ``(N, *event)``.

    Returns:
        :class:`.Estimate` of shape ``(N, *out)``, whose ``n`` is the tensor 1, 2, ... N.

    Raises:
        ValueError: as :func:`expectation`.
    """
    values = _values("f", f, _draws(x))
    # Sums of squares cancel, so they run over centred values and in double precision (which Apple's GPUs lack).
    exact = (values.cpu() if values.device.type == "mps" else values).double()
    centre = exact.detach().mean(0)
    n = torch.arange(1, len(exact) + 1, device=exact.device)
    counts = n.reshape(-1, *[1] * (exact.ndim - 1))
    mean = (exact - centre).cumsum(0) / counts
    variance = ((exact - centre).detach().square().cumsum(0) / counts - mean.detach().square()).clamp(min=0)
    error = standard_error(variance, counts - 1)
    return Estimate((centre + mean).to(values), error.to(values), n.to(values.device))


def control_variate(
    f: Callable[[Tensor], Tensor], control: Callable[[Tensor], Tensor], x: Tensor, control_mean: Number | Array
) -> Estimate:
    r"""Average of ``f`` corrected by quantities whose means are known.

    .. math:: E_p[f] \approx \bar f_N - \beta^T (\bar g_N - E_p[g]), \qquad
              \beta = \mathrm{Cov}[g]^{-1}\, \mathrm{Cov}[g, f]

    With :math:`\beta` fitted to the same draws, the variance falls by the factor :math:`1 - R^2`, where :math:`R^2`
    is the share of the variance of ``f`` that a linear function of ``g`` explains. The fit costs a bias of order
    :math:`1/N`, which the standard error of order :math:`1/\sqrt N` covers.

    Args:
        f: callable ``(N, *event) -> (N,)``.
        control: callable ``(N, *event) -> (N,)`` or ``(N, k)`` for ``k`` controls.
        x: independent draws from ``p``, shape ``(N, *event)``.
        control_mean: exact mean of the control, a number or shape ``(k,)``.

    Returns:
        :class:`.Estimate`, a scalar.

    Raises:
        ValueError: if an argument is not as described or holds NaN or infinity, or if there are no more than
            ``k + 1`` draws.

    Source: Owen (2013), sections 8.9 and 8.10.
    """
    x = _draws(x)
    values = _values("f", f, x)
    values = values.to(torch.promote_types(values.dtype, torch.float32))  # half precision has no inverses
    if values.ndim != 1:
        raise ValueError(f"f must return shape ({len(x)},), one number for each draw, got {tuple(values.shape)}")
    controls = _values("control", control, x).to(values.dtype)
    if controls.ndim > 2:
        raise ValueError(f"control must return shape ({len(x)},) or ({len(x)}, k), got {tuple(controls.shape)}")
    controls = controls.reshape(len(x), -1)
    n, k = controls.shape
    real("control_mean", control_mean)
    known = torch.as_tensor(control_mean, dtype=values.dtype, device=values.device)
    if known.shape not in ((), (k,)):
        raise ValueError(f"control_mean must be a number or have shape ({k},), got {tuple(known.shape)}")
    finite("control_mean", known)
    if n <= k + 1:
        raise ValueError(f"x must hold more than {k + 1} draws to fit {k} control(s), got {n}")
    offset, centred = controls.mean(0) - known, controls - controls.mean(0)
    beta = torch.linalg.pinv(centred) @ (values - values.mean())
    residual = values - values.mean() - centred @ beta
    return Estimate(values.mean() - beta @ offset, standard_error(residual.detach().square().mean(), n - k - 1), n)


def effective_draws(log_weights: Tensor) -> Tensor:
    r"""Number of equally weighted draws that weighted draws are worth.

    .. math:: \mathrm{ESS} = \frac{\big(\sum_i w_i\big)^2}{\sum_i w_i^2}, \qquad 1 \le \mathrm{ESS} \le N

    Args:
        log_weights: logarithms of the weights, shape ``(N, *batch)``; a common constant makes no difference, and
            minus infinity is a weight of zero.

    Returns:
        Effective sample size, shape ``(*batch)``.

    Raises:
        ValueError: if there is no weight, one is NaN or infinite, or all are zero.

    Source: Kong (1992); Owen (2013), eq. 9.13.
    """
    floating("log_weights", log_weights)
    if log_weights.ndim == 0 or len(log_weights) == 0:
        raise ValueError(f"log_weights must hold at least one weight, shape (N, ...), got {_described(log_weights)}")
    if not log_weights.is_meta:
        if bool((log_weights.isnan() | (log_weights == torch.inf)).any()):
            raise ValueError("log_weights must be below infinity, got NaN or infinity")
        if bool((log_weights.amax(0) == -torch.inf).any()):
            raise ValueError("log_weights must leave a weight above zero, got minus infinity for each")
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp()


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """The earlier name of :func:`effective_draws`; that of a chain is in :mod:`scorebook.langevin`.

    Warns:
        DeprecationWarning: whenever it is called.
    """
    warnings.warn(
        "monte_carlo.effective_sample_size is called effective_draws now; langevin.effective_sample_size is that of a "
        "chain",
        DeprecationWarning,
        stacklevel=2,
    )
    return effective_draws(log_weights)


def _draws(x: Tensor) -> Tensor:
    if not isinstance(x, Tensor) or x.ndim == 0 or len(x) == 0:
        raise ValueError(f"x must hold at least one draw, shape (N, *event), got {_described(x)}")
    finite("x", x)
    return x


def _values(name: str, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    values = f(x)
    if not isinstance(values, Tensor) or values.ndim == 0 or len(values) != len(x):
        raise ValueError(f"{name} must return one value for each of the {len(x)} draws, got {_described(values)}")
    if values.is_complex():
        raise ValueError(f"{name} must return real values, got {values.dtype}")
    if not values.is_floating_point():
        values = values.to(x.dtype if x.is_floating_point() else torch.get_default_dtype())
    finite(f"{name}(x)", values)
    return values


def _described(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
