r"""Are these draws what they claim to be?

**Posteriors.** If a truth comes from the prior and the draws from its posterior, the truth is one more draw: its rank
among :math:`m` of them is uniform on :math:`0, \dots, m`. The rank, put at a place drawn uniformly within its share of
:math:`[0, 1]`,

.. math:: u \sim U\!\left[\frac{\#\{\theta_j < \theta\}}{m + 1},\; \frac{\#\{\theta_j \le \theta\} + 1}{m + 1}\right],

is uniform for any :math:`m`, with ties too. An interval of level :math:`q` covers where :math:`u` lies in its middle
share :math:`q` (:func:`coverage`); the whole law of :math:`u` is looked at by :func:`calibration`. Both integrate over
the place instead of drawing it.

**Samples.** Two samples of one law cannot be told apart: not by a classifier (:func:`told_apart`), not by their nearest
neighbours (:func:`same_kind`). A sampler that replays its training data can be told from an honest one, for it is
nearer to them than to data that were held out (:func:`copying`).

The rows of a batch are taken to be independent; the entries of one row may depend on each other in any way, and errors
are those of means over rows.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorebook.lab.arguments import at_least_single, double, positive_integer, some_points, two_samples, vectors
from scorebook.lab.estimates import Estimate, mean_of
from scorebook.lab.types import Integer, Number

__all__ = [
    "Calibration",
    "Copying",
    "calibration",
    "copying",
    "coverage",
    "covered",
    "nearest",
    "same_kind",
    "told_apart",
]

# Entries of the largest matrix of distances, so that memory stays bounded whatever the sample sizes.
_LARGEST_CHUNK = 2**24


@dataclass(frozen=True, eq=False)
class Calibration:
    r"""What :func:`calibration` measures; each number is as expected where the posterior is right.

    Attributes:
        histogram: how often the rank falls into each of the bins, relative to a uniform one: shape ``(n_bins,)``, 1
            expected. Ends that stand out tell of draws that are too sure, a hill in the middle of draws that are too
            vague, a slope of draws that lie too high or too low.
        shift: :math:`\sqrt{12}\, E[u - \tfrac12]`, 0 expected; positive where the truths lie above the draws.
        spread: :math:`12\, E[(u - \tfrac12)^2]`, 1 expected; above 1 where the draws are too narrow, below where they
            are too wide.
    """

    histogram: Estimate
    shift: Estimate
    spread: Estimate


@dataclass(frozen=True, eq=False)
class Copying:
    r"""What :func:`copying` measures, beside what honest samples would give.

    Attributes:
        nearer: share of the samples to which, of training and held-out points together, a training point is nearest.
        stranger: the same share for the held-out points themselves, each left out of its own search: what a sample has
            that knows neither.
        close: share of the samples that lie as near to a training point as the nearest of the held-out points do.
        usual: the share of held-out points that do, for ``close`` to be held against.
        distance: distance from a sample to the nearest training point, over the mean of those from held-out points; 1
            expected.
    """

    nearer: Estimate
    stranger: Estimate
    close: Estimate
    usual: float
    distance: Estimate


def covered(draws: Tensor, truth: Tensor, *, level: Number = 0.9) -> Tensor:
    r"""Whether the central credible interval of each entry holds the truth.

    The interval leaves out the same number of draws below and above. Where :math:`(m + 1)(1 - q)/2` is a whole number
    :math:`k`, it runs from the :math:`k`-th smallest of the :math:`m` draws to the :math:`k`-th greatest, and the
    answer is 0 or 1. Otherwise, or where the truth equals a draw, it lies between: the probability with which a
    randomised interval covers. Its mean is :math:`q` for the exact posterior, however few the draws.

    Args:
        draws: of the posterior, shape ``(m, B, *event)``: ``m`` for each of ``B`` problems.
        truth: what was to be inferred, shape ``(B, *event)``.
        level: of the interval, in (0, 1).

    Returns:
        Numbers in [0, 1], in double precision, shape ``(B, *event)``.

    Raises:
        ValueError: if the shapes do not fit, a number is NaN or infinite, or ``level`` is not in (0, 1).

    Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), theorem 1.
    """
    if isinstance(level, bool) or not isinstance(level, (int, float, np.number)) or not 0 < level < 1:
        raise ValueError(f"level must be a number between 0 and 1, got {level!r}")
    low, high = _place(draws, truth)
    return _share(low, high, len(draws) + 1, (1 - float(level)) / 2, (1 + float(level)) / 2)


def coverage(draws: Tensor, truth: Tensor, *, level: Number = 0.9) -> Estimate:
    r"""Share of the entries whose central credible interval holds the truth.

    The level itself is expected, whatever the posterior: an interval that covers too rarely is too sure. That it covers
    as it should is not yet right, for the prior's interval does so too: look at its width beside it.

    Args:
        draws: of the posterior, shape ``(m, B, *event)``: ``m`` for each of ``B`` problems.
        truth: what was to be inferred, shape ``(B, *event)``.
        level: of the interval, in (0, 1).

    Returns:
        :class:`.Estimate`, a scalar; its error is that of the mean over the ``B`` problems.

    Raises:
        ValueError: as :func:`covered`.

    Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), theorem 1.
    """
    return mean_of(vectors(covered(draws, truth, level=level)).mean(1))


def calibration(draws: Tensor, truth: Tensor, *, n_bins: Integer = 10) -> Calibration:
    r"""Simulation-based calibration: the law of the truth's rank among draws of its posterior.

    Draw a truth from the prior, observe it, draw from the posterior, and see where the truth lies among the draws;
    again and again. Of a quantity other than the entries themselves, hand over its values.

    Args:
        draws: of the posterior, shape ``(m, B, *event)``: ``m`` for each of ``B`` problems.
        truth: what was to be inferred, drawn from the prior, shape ``(B, *event)``.
        n_bins: of the histogram, whatever the number of draws.

    Returns:
        :class:`Calibration`. Its errors are those of means over the ``B`` problems.

    Raises:
        ValueError: if the shapes do not fit, a number is NaN or infinite, or ``n_bins`` is no positive integer.

    Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), algorithm 1.
    """
    n_bins = positive_integer("n_bins", n_bins)
    low, high = _place(draws, truth)
    n_places = len(draws) + 1
    rows = [_share(low, high, n_places, k / n_bins, (k + 1) / n_bins) for k in range(n_bins)]
    histogram = torch.stack([n_bins * vectors(row).mean(1) for row in rows], dim=1)
    # Means of u - 1/2 and of its square, for u uniform between the two ends.
    low, high = low / n_places - 0.5, high / n_places - 0.5
    middle, square = (low + high) / 2, (low**2 + low * high + high**2) / 3
    return Calibration(
        mean_of(histogram),
        mean_of(math.sqrt(12) * vectors(middle).mean(1)),
        mean_of(12 * vectors(square).mean(1)),
    )


def told_apart(x: Tensor, y: Tensor, *, classifier: Any = None, generator: torch.Generator | None = None) -> Estimate:
    r"""Classifier two-sample test: how often a classifier, trained on half of two samples, is right about the rest.

    One half is expected where the laws agree. What is above it, by more than its error, is a difference that can be
    learned from so many points; that nothing is learned proves no more than that.

    Args:
        x: independent samples, shape ``(n, *event)``, flattened to ``(n, d)``.
        y: samples to be told from them, shape ``(m, *event)``. Of the greater sample as many are taken, at random, as
            there are in the other.
        classifier: anything with the ``fit`` and ``predict`` of scikit-learn; a support vector machine with a Gaussian
            kernel on standardised coordinates by default. It is fitted anew.
        generator: decides which are trained on.

    Returns:
        :class:`.Estimate`, a scalar: the accuracy on the points that were kept aside.

    Raises:
        ValueError: if a sample has fewer than 4 points, or is not finite, or the events differ in shape.

    Source: Lopez-Paz & Oquab (2017), section 3.
    """
    x, y = two_samples("x", x, "y", y)
    n = min(len(x), len(y))
    if n < 4:
        raise ValueError(f"x and y must hold at least 4 points each, got {len(x)} and {len(y)}")
    x, y = (points[_order(len(points), generator).to(points.device)[:n]] for points in (x, y))
    half = n // 2
    known, asked = torch.cat([x[:half], y[:half]]), torch.cat([x[half:], y[half:]])
    if x.is_meta:
        return mean_of(asked.new_empty(len(asked), dtype=torch.float64))
    if classifier is None:
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        classifier = make_pipeline(StandardScaler(), SVC(random_state=0))  # else it draws from the global one
    classifier.fit(known.detach().cpu().numpy(), np.repeat([0, 1], half))
    answer = np.asarray(classifier.predict(asked.detach().cpu().numpy()))
    right = torch.from_numpy((answer == np.repeat([0, 1], n - half)).astype(np.float64))
    return mean_of(right)


def same_kind(x: Tensor, y: Tensor) -> Estimate:
    r"""Nearest-neighbour two-sample test: how often the nearest other point of a mix is of a point's own sample.

    Where the laws agree :math:`\frac{n(n-1) + m(m-1)}{(n+m)(n+m-1)}` is expected, close to one half for samples of one
    size. One where they lie apart; less than expected where one sample copies the other.

    Args:
        x: independent samples, shape ``(n, *event)``, flattened to ``(n, d)``.
        y: samples to be told from them, shape ``(m, *event)``.

    Returns:
        :class:`.Estimate`, a scalar. Its error allows for points that are nearest to each other, which are right or
        wrong together.

    Raises:
        ValueError: if a sample is empty or not finite, the two hold fewer than 3 points together, or the events differ
            in shape.

    Source: Schilling (1986); Xu et al. (2018) for samples of generators.
    """
    x, y = two_samples("x", x, "y", y)
    mix = torch.cat([x, y])
    if len(mix) < 3:
        raise ValueError(f"x and y must hold at least 3 points together, got {len(mix)}")
    kind = torch.arange(len(mix), device=mix.device) < len(x)
    _, neighbour = _nearest(mix, mix, itself=True)
    right = double((kind[neighbour] == kind).float())
    # The sizes are given, so chance is what is left of each kind beside its own mean.
    excess = right - torch.where(kind, right[: len(x)].mean(), right[len(x) :].mean())
    mutual = neighbour[neighbour] == torch.arange(len(mix), device=mix.device)
    variance = (excess.square() + mutual * excess * excess[neighbour]).sum().clamp(min=0)
    return Estimate(right.mean(), variance.sqrt() / len(mix), len(mix))


def nearest(x: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    r"""Distance to the nearest of some points, and which it is.

    Args:
        x: shape ``(n, *event)``.
        points: among which is searched, shape ``(m, *event)``.

    Returns:
        Euclidean distances and indices into ``points``, each of shape ``(n,)``.

    Raises:
        ValueError: if either is empty or not finite, or the events differ in shape.
    """
    x, points = two_samples("x", x, "points", points)
    return _nearest(x, points)


def copying(x: Tensor, training: Tensor, held_out: Tensor, *, usual: Number = 0.05) -> Copying:
    r"""Do these samples replay the data that their maker has learned from?

    Two questions are put to each sample, and to each held-out point beside it. Is the nearest of all data one that was
    learned from? And does it lie as near to one as the nearest few of the held-out points do? The second sees a few
    copies among many honest samples, where they hardly move the first.

    Args:
        x: the samples, shape ``(n, *event)``.
        training: the data that were learned from, shape ``(m, *event)``.
        held_out: data of the same law that were not, shape ``(k, *event)`` with ``k`` at least 2.
        usual: the share of held-out points that counts as near, in (0, 1).

    Returns:
        :class:`Copying`. Errors are those of chance in ``x``, and for ``stranger`` in ``held_out``; that these data and
        no others were to be had concerns both alike.

    Raises:
        ValueError: if a batch is empty or not finite, there are fewer than 2 held-out points, the events differ in
            shape, ``usual`` is not in (0, 1), or all held-out points are training points too.

    Source: Meehan, Chaudhuri & Dasgupta (2020), whose test compares the same distances.
    """
    if isinstance(usual, bool) or not isinstance(usual, (int, float, np.number)) or not 0 < usual < 1:
        raise ValueError(f"usual must be a number between 0 and 1, got {usual!r}")
    _, learned_from = two_samples("x", x, "training", training)
    x, held_out = two_samples("x", x, "held_out", held_out)
    if len(held_out) < 2:
        raise ValueError(f"held_out must hold at least 2 points, got {len(held_out)}")
    learned_from = learned_from.to(x)
    learned, own = _nearest(x, learned_from)[0], _nearest(held_out, learned_from)[0]
    other, others = _nearest(x, held_out)[0], _nearest(held_out, held_out, itself=True)[0]
    if not own.is_meta and not bool((own > 0).any()):
        raise ValueError("held_out must hold points that training does not, got training points only")
    near = own.quantile(float(usual))

    def share(holds: Tensor) -> Estimate:
        return mean_of(double(holds.float()))

    return Copying(
        nearer=share(learned < other),
        stranger=share(own < others),
        close=share(learned < near),
        usual=float(usual),
        distance=mean_of(double(learned) / double(own).mean()),
    )


def _place(draws: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the stretch within which the truth lies among ``m`` draws, of a length of ``m + 1``."""
    some_points("draws", draws)
    some_points("truth", truth)
    if draws.shape[1:] != truth.shape:
        raise ValueError(
            f"draws must have shape (m, B, *event) for a truth of shape (B, *event) = {tuple(truth.shape)}, got "
            f"{tuple(draws.shape)}"
        )
    dtype = torch.promote_types(draws.dtype, truth.dtype)
    draws, truth = (at_least_single(value.to(dtype)) for value in (draws, truth))
    below, up_to = (double(counts.float()) for counts in ((draws < truth).sum(0), (draws <= truth).sum(0)))
    return below, up_to + 1


def _share(low: Tensor, high: Tensor, length: int, start: float, stop: float) -> Tensor:
    """How much of the stretch from ``low`` to ``high`` lies between two shares of the whole length."""
    # What should be a whole number is one.
    start, stop = round(length * start, 9), round(length * stop, 9)
    return (high.clamp(max=stop) - low.clamp(min=start)).clamp(min=0) / (high - low)


def _order(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randperm(n, generator=generator, device="cpu" if generator is None else generator.device)


def _nearest(x: Tensor, points: Tensor, *, itself: bool = False) -> tuple[Tensor, Tensor]:
    """Distances and indices of nearest points; with ``itself``, of others than the row itself."""
    distances, indices = [], []
    rows = max(1, _LARGEST_CHUNK // len(points))
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        # The faster way by matrix products loses half the digits between neighbours.
        gap = torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist")
        if itself:
            own = torch.arange(len(part), device=x.device)
            gap[own, start + own] = torch.inf
        found = gap.min(1)
        distances.append(found.values)
        indices.append(found.indices)
    return torch.cat(distances), torch.cat(indices)
