r"""A measured mean and the error that it carries.

.. math:: \bar f_N = \frac1N \sum_{i=1}^N f_i, \qquad
          \mathrm{se} = \sqrt{\frac{1}{N(N-1)} \sum_{i=1}^N \big(f_i - \bar f_N\big)^2}

Where the error comes from and when it may be trusted is told in the chapter on :mod:`scorebook.monte_carlo`.
"""

import numbers
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from scorebook.lab.arguments import finite, floating
from scorebook.lab.tables import plus_minus
from scorebook.lab.types import Number

__all__ = ["Estimate", "mean_of", "standard_error"]

_SHOWN = 6


@dataclass(frozen=True, eq=False, repr=False)
class Estimate:
    r"""A mean over draws and its standard error; prints like ``0.501 ± 0.004 (n=10000)``.

    Attributes:
        mean: the average, any shape, in the units of ``f``; differentiable where the draws' values are.
        standard_error: estimated standard deviation of ``mean``, the same shape and units, without gradient.
            It is infinite after one draw, which says nothing about its own error.
        n: number of draws behind it; a tensor ``(N,)`` where ``mean[k]`` rests on ``n[k]`` draws.

    An index selects entries of all three: ``running[99]`` is the estimate after 100 draws.
    """

    mean: Tensor
    standard_error: Tensor
    n: int | Tensor

    def interval(self, level: Number = 0.95) -> tuple[Tensor, Tensor]:
        r"""Confidence interval that covers the truth with probability ``level``, once ``n`` is large.

        .. math:: \bar f_N \pm \Phi^{-1}\!\left(\tfrac{1 + \text{level}}{2}\right) \mathrm{se}

        Args:
            level: probability of covering the truth, in (0, 1).

        Returns:
            Lower and upper end, each shaped like ``mean``.

        Raises:
            ValueError: if ``level`` is not in (0, 1).
        """
        if not isinstance(level, numbers.Real) or not 0 < level < 1:
            raise ValueError(f"level must be a number between 0 and 1, got {level!r}")
        quantile = NormalDist().inv_cdf((1 + float(level)) / 2)
        half = quantile * self.standard_error
        return self.mean - half, self.mean + half

    def __getitem__(self, index: Any) -> "Estimate":
        n = self.n[index] if isinstance(self.n, Tensor) else self.n
        return Estimate(self.mean[index], self.standard_error[index], n)

    def __repr__(self) -> str:
        if self.mean.is_meta:
            return f"estimate of shape {tuple(self.mean.shape)} on the meta device"
        n = f"{self.n[0]}...{self.n[-1]}" if isinstance(self.n, Tensor) and self.n.ndim else self.n
        if self.mean.ndim > 1 or self.mean.numel() > _SHOWN:
            return f"{self.mean.numel()} estimates of shape {tuple(self.mean.shape)} (n={n})"
        pairs = zip(self.mean.flatten().tolist(), self.standard_error.flatten().tolist(), strict=True)
        texts = [plus_minus(*pair) for pair in pairs]
        return f"{texts[0] if self.mean.ndim == 0 else '[' + ', '.join(texts) + ']'} (n={n})"


def mean_of(values: Tensor) -> Estimate:
    r"""Average of independent values, with its standard error.

    Args:
        values: shape ``(N, *out)``, independent along the first axis only.

    Returns:
        :class:`Estimate` of shape ``(*out)``.

    Raises:
        ValueError: if ``values`` is no floating tensor, holds no value, or NaN or infinity.

    Source: Owen (2013), "Monte Carlo theory, methods and examples", section 2.2.
    """
    floating("values", values)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"values must hold at least one value, shape (N, ...), got {tuple(values.shape)}")
    finite("values", values)
    n = len(values)
    return Estimate(values.mean(0), standard_error(values.detach().var(0, correction=0), n - 1), n)


def standard_error(mean_square: Tensor, freedom: int | Tensor) -> Tensor:
    r"""Error of a mean from the mean squared deviation of its values; infinite where no degree of freedom is left.

    .. math:: \sqrt{\frac{n}{\text{freedom}} \cdot \frac{\text{mean square}}{n}}

    Args:
        mean_square: mean of the squared deviations, any shape.
        freedom: number of values less the number of parameters fitted to them, a number or a tensor that broadcasts.

    Returns:
        The error, shaped like both together.
    """
    freedom = torch.as_tensor(freedom, dtype=mean_square.dtype, device=mean_square.device)
    return torch.where(freedom > 0, (mean_square / freedom.clamp(min=1)).sqrt(), torch.inf)
