r"""How a score is called: a network always gets one time per row.

In training each row :math:`x_i` has a time :math:`t_i` of its own, in sampling all rows share one. To a closed form the
two are alike, since one number broadcasts against any batch. A network is written for what it met in training, such as
``t[:, None]`` or ``torch.cat([x, t.view(-1, 1)], 1)``, and would fail on a scalar. So all that evaluates a score, a
classifier or a network goes through :func:`at`:

=========================================== ============================================================================
what is called                              the time that it gets
=========================================== ============================================================================
a module, such as your network              a tensor of shape ``(B,)``, in training, sampling, guidance, likelihoods
any other callable, such as an exact score  what the caller has: shape ``(B,)``, or ``()`` where all rows share one
=========================================== ============================================================================

A module whose ``forward`` does as well with one time for all rows, and says so (:func:`one_time_for_all`), is spared
the copies: it embeds the time once for the batch.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from scorebook.lab.arguments import real
from scorebook.lab.types import PerRow

__all__ = ["at", "layers", "one_time_for_all", "takes_one_time", "time_per_row"]

_Forward = TypeVar("_Forward", bound=Callable[..., Any])
_WRAPPERS = (DataParallel, DistributedDataParallel, AveragedModel)
_OF_SHAPE = (IndexError, RuntimeError, TypeError)
_NOTE = (
    "Here t came as a scalar tensor, shape (), as it does to all but modules: all rows share one time. If something "
    "inside wants one per row, hand on t.expand(len(x)), or pass the module itself."
)


def at(function: Callable[..., Any], x: Tensor, t: PerRow, **condition: Any) -> Any:
    """Call a score, classifier or likelihood, ``function(x, t, **condition)``, with the time in its shape.

    Args:
        function: callable; a module that does not say otherwise gets ``t`` by :func:`time_per_row`.
        x: states, shape ``(B, *event)``.
        t: time or noise scale, scalar or shape ``(B,)``.
        condition: further keywords of the function.

    Returns:
        What the function returns. An error of a callable that met a scalar time carries a note that says so.
    """
    if _is_module(function) and not takes_one_time(function):
        return function(x, time_per_row(t, x), **condition)
    try:
        return function(x, t, **condition)
    except _OF_SHAPE as error:
        if getattr(t, "shape", None) == () and _NOTE not in getattr(error, "__notes__", ()):
            error.add_note(_NOTE)
        raise


def time_per_row(t: PerRow, x: Tensor) -> Tensor:
    """``t`` as a tensor of shape ``(B,)``, on the device of ``x`` and in its precision, single at least.

    Raises:
        ValueError: if ``t`` is complex, or neither a scalar nor one number per row.
    """
    real("t", t)
    dtype = torch.promote_types(x.dtype, torch.float32)
    if not isinstance(t, Tensor) or t.dtype != dtype or t.device != x.device:
        t = torch.as_tensor(t, dtype=dtype, device=x.device)
    if t.ndim > 1 or (t.ndim == 1 and len(t) not in (1, len(x))):
        raise ValueError(f"t must be a scalar or have shape ({len(x)},), got {tuple(t.shape)}")
    return t if t.shape == (len(x),) else t.expand(len(x)).contiguous()  # which may be written to, as in training


def one_time_for_all(forward: _Forward) -> _Forward:
    """Mark a ``forward(x, t)`` that takes a scalar ``t`` for one that all rows share; a decorator."""
    forward.takes_one_time = True  # type: ignore[attr-defined]
    return forward


def takes_one_time(function: Callable[..., Any]) -> bool:
    """Whether a module, or what wraps one, has a ``forward`` that is marked by :func:`one_time_for_all`."""
    return bool(getattr(getattr(_inmost(function), "forward", None), "takes_one_time", False))


def layers(function: Any) -> Iterator[Any]:
    """Yield a callable and what it wraps, from the outside in.

    Seen through are ``functools.partial``, bound methods such as ``model.forward``, ``torch.compile``, and the wrappers
    of PyTorch that hold the model as their ``module``.
    """
    while function is not None:
        yield function
        function = _inside(function)


def _inside(function: Any) -> Any:
    """What a callable wraps, or ``None``."""
    if isinstance(function, _WRAPPERS):
        return function.module
    if isinstance(function, nn.Module):
        return function._modules.get("_orig_mod")  # where torch.compile keeps what it compiled
    if isinstance(function, functools.partial):
        return function.func
    return function.__self__ if inspect.ismethod(function) else None


def _inmost(function: Any) -> Any:
    while (inside := _inside(function)) is not None:
        function = inside
    return function


def _is_module(function: Any) -> bool:
    return isinstance(_inmost(function), nn.Module)
