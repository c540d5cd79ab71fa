r"""How far apart are two sets of samples?

Three answers. The sliced Wasserstein distance looks at all one-dimensional shadows; the energy distance compares
pairwise distances and vanishes on average when the laws agree; mode weights count which mode each sample is at.
"""

import math
import numbers

import torch
from torch import Tensor

from scorebook.lab.arguments import positive_integer, standard_normal, two_samples
from scorebook.lab.types import Integer, Number

__all__ = ["energy_distance", "mode_weights", "sliced_wasserstein"]

# Entries of the largest intermediate tensor, so that memory stays bounded whatever the sample size.
_LARGEST_CHUNK = 2**24


def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    *,
    n_projections: Integer = 500,
    p: Number = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Sliced Wasserstein-p distance between two samples.

    .. math::
        \left(\frac1L \sum_{l=1}^L \int_0^1
        \left|F^{-1}_{\langle\theta_l, x\rangle}(u) - F^{-1}_{\langle\theta_l, y\rangle}(u)\right|^p du\right)^{1/p}

    The directions :math:`\theta_l` are uniform on the unit sphere, and :math:`F^{-1}` is the empirical quantile
    function, matched exactly even if the samples differ in size. The unit is that of ``x``; nothing is divided by the
    dimension, so a shift by :math:`\delta` in dimension ``d`` measures :math:`|\delta|/\sqrt d` for ``p = 2`` and
    close to :math:`|\delta|\sqrt{2/(\pi d)}` for ``p = 1``. Two samples of one law are not at distance zero: state
    beside a distance what two real samples of the same size give.

    Args:
        x: samples, shape ``(n, *event)``, flattened to ``(n, d)``.
        y: samples, shape ``(m, *event)``.
        n_projections: number ``L`` of random directions.
        p: order, at least one.
        generator: source of the directions.

    Returns:
        The distance, a scalar tensor, differentiable in ``x`` and ``y``.

    Raises:
        ValueError: if a sample is empty or not finite, the events differ in shape, ``n_projections`` is not a positive
            integer or ``p`` is below one.

    Source: Bonneel, Rabin, Peyré & Pfister (2015), Sliced and Radon Wasserstein barycenters, section 2.
    """
    x, y = two_samples("x", x, "y", y)
    positive_integer("n_projections", n_projections)
    if isinstance(p, bool) or not isinstance(p, numbers.Real) or not 1 <= p < math.inf:
        raise ValueError(f"p must be a number of at least 1, got {p!r}")
    shape = (x.shape[1], n_projections)
    directions = standard_normal(shape, generator=generator, dtype=x.dtype, device=x.device)
    directions = directions / directions.norm(dim=0)
    at_x, at_y, width = (v.to(x.device) for v in _shared_quantiles(len(x), len(y)))
    width = width.to(x.dtype)
    chunks = directions.split(max(1, _LARGEST_CHUNK // len(width)), dim=1)
    powers = [
        width @ ((x @ theta).sort(dim=0).values[at_x] - (y @ theta).sort(dim=0).values[at_y]).abs() ** p
        for theta in chunks
    ]
    return torch.cat(powers).mean() ** (1 / p)


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Energy distance between two samples, estimated without bias.

    .. math:: 2\,E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|

    Each mean runs over pairs of different samples (a U-statistic), so the expectation is exactly the distance of the
    two laws: zero if and only if they agree, and then the estimate scatters around zero and may be negative. The unit
    is that of ``x``; it is the square of a metric. Pairs are taken in chunks: memory stays bounded, time grows as
    ``(n + m)^2 d``.

    Args:
        x: samples, shape ``(n, *event)`` with ``n`` at least 2.
        y: samples, shape ``(m, *event)`` with ``m`` at least 2.

    Returns:
        The estimate, a scalar tensor.

    Raises:
        ValueError: if a sample has fewer than two rows or is not finite, or the events differ in shape.

    Source: Székely & Rizzo (2013), Energy statistics, definition 1.
    """
    x, y = two_samples("x", x, "y", y)
    for name, sample in (("x", x), ("y", y)):
        if len(sample) < 2:
            raise ValueError(f"{name} must hold at least 2 samples, got {len(sample)}")
    n, m = len(x), len(y)
    within = _sum_of_distances(x, x) / (n * (n - 1)) + _sum_of_distances(y, y) / (m * (m - 1))
    return 2 * _sum_of_distances(x, y) / (n * m) - within


def mode_weights(x: Tensor, means: Tensor) -> Tensor:
    r"""Share of the samples that is nearest to each mode, in Euclidean distance.

    Args:
        x: samples, shape ``(n, *event)``.
        means: modes, shape ``(K, *event)``.

    Returns:
        Shares, shape ``(K,)``, with sum one. The standard error of a share ``w`` of independent samples is
        :math:`\sqrt{w(1-w)/n}`.

    Raises:
        ValueError: if ``x`` or ``means`` is empty or not finite, or the events differ in shape.
    """
    x, means = two_samples("x", x, "means", means)
    modes = torch.arange(len(means), device=x.device)
    rows = max(1, _LARGEST_CHUNK // len(means))
    counts = [(_distances(part, means).argmin(1).unsqueeze(1) == modes).sum(0) for part in x.split(rows)]
    return torch.stack(counts).sum(0).to(x.dtype) / len(x)


def _shared_quantiles(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut (0, 1] where either of two empirical quantile functions jumps: an index into each, and the widths."""
    # In integers, on the common scale n * m, so that no rounding splits a cut in two.
    own, other = (torch.arange(1, count + 1, device="cpu") for count in (n, m))
    ends = torch.cat([own * m, other * n]).unique()
    width = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    return (ends - 1) // m, (ends - 1) // n, width


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # The faster way by matrix products loses half the digits between neighbours.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _sum_of_distances(x: Tensor, y: Tensor) -> Tensor:
    rows = max(1, _LARGEST_CHUNK // len(y))
    return torch.stack([_distances(part, y).sum() for part in x.split(rows)]).sum()
