"""What this package takes and gives, as types: for annotations of your own, and for a type checker.

A score is a function, and so are a density, a loss and a source of times. A plain function, a ``lambda``, a
``functools.partial``, a bound method such as ``mixture.score`` and a ``torch.nn.Module`` are all of them, if they take
these arguments. What only a value can tell, a shape or a sign, is checked by the call::

    def halved(score: Score) -> Score:
        return lambda x, t: 0.5 * score(x, t)
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["Array", "Field", "GivenScore", "Integer", "LogDensity", "Loss", "Number", "PerRow", "Score", "TimeSampler"]

Integer: TypeAlias = int | np.integer[Any]
"""A whole number, Python's or NumPy's."""

Number: TypeAlias = float | np.floating[Any] | np.integer[Any]
"""A real number, Python's or NumPy's."""

PerRow: TypeAlias = Number | Tensor
"""A time, a noise scale or a step, one number for a whole batch or a tensor of shape ``(B,)`` with one for each row."""

Array: TypeAlias = Tensor | np.ndarray[Any, Any] | Sequence[Any]
"""Numbers in rows and columns, as a tensor, an array of NumPy's, or lists."""

Field: TypeAlias = Callable[[Tensor], Tensor]
"""A vector field, from ``x`` of shape ``(B, *event)`` to a tensor like ``x``; a score before noise enters is one."""

LogDensity: TypeAlias = Callable[[Tensor], Tensor]
"""The logarithm of a density, from ``x`` of shape ``(B, *event)`` to shape ``(B,)``."""

Score: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""A score of noised data, from ``x``, ``(B, *event)``, and ``t``, scalar or ``(B,)``, to a tensor like ``x``."""

GivenScore: TypeAlias = Callable[[Tensor, PerRow], Tensor]
"""A score that this package made; it takes a number for ``t``, too."""

Loss: TypeAlias = Callable[..., Tensor]
"""A loss that is trained on, ``(model, *batch, generator=...) -> scalar tensor``; ``generator`` may be missing."""

TimeSampler: TypeAlias = Callable[[int, torch.Generator | None], Tensor]
"""A source of times, from their number ``n`` and a generator to shape ``(n,)``."""
