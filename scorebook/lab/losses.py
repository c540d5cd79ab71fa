"""How a loss is called, whatever callable it is, and what must come back.

A loss is called as ``loss(model, *batch)``, with the data by name where they are a dictionary, and with ``generator=``
where it takes one. In mixed precision the model computes in the lower one, and the loss in float32.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from scorebook.lab.types import Loss

__all__ = ["Objective", "check_fits", "in_place", "scalar", "takes_generator"]


class Objective(nn.Module):
    """The loss as a module with the model inside, which DDP can wrap as a whole.

    It would refuse the model alone to some losses: its wrapper hides ``model.weight``, and it waits for the gradient of
    a bias that an energy's score does not depend on.

    Args:
        model: the module that is trained.
        loss: callable that gives a scalar tensor with a gradient.
        autocast: type in which the model multiplies matrices and convolves; ``None`` for that of its weights.
    """

    def __init__(self, model: nn.Module, loss: Loss, autocast: torch.dtype | None = None):
        super().__init__()
        self.model, self.loss, self.autocast = model, in_place(loss), autocast

    def forward(self, *batch: Any, **keywords: Any) -> Tensor:
        """The loss of a batch, once it is known to be a scalar that depends on the model."""
        with _in_lower_precision(self.model, self.autocast):
            return _with_gradient(self.loss(self.model, *batch, **keywords))


@contextmanager
def _in_lower_precision(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """Within it each call of a model runs under ``torch.autocast``, and what it returns in that type comes as float32.

    Autocast around the loss as a whole would round the products of the loss too, such as those of a divergence.

    Args:
        model: the module that is called.
        dtype: a lower precision; ``None`` changes nothing.
    """
    if dtype is None:
        yield
        return
    entered: list[torch.autocast] = []  # a model may call itself

    def enter(*_: Any) -> None:
        entered.append(torch.autocast(next(model.parameters()).device.type, dtype))
        entered[-1].__enter__()

    def leave(_model: nn.Module, _arguments: Any, result: Any) -> Any:
        entered.pop().__exit__(None, None, None)
        return tree_map_only(Tensor, lambda x: x.float() if x.dtype == dtype else x, result)

    hooks = [model.register_forward_pre_hook(enter), model.register_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        while entered:
            entered.pop().__exit__(None, None, None)


def _with_gradient(loss: Any) -> Tensor:
    if not scalar(loss).requires_grad:
        raise ValueError("loss must depend on the parameters of the model, got a tensor without gradient")
    return loss


def scalar(loss: Any) -> Tensor:
    """What a loss returned, or a ``ValueError`` if that is no scalar tensor."""
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        came = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(f"loss must return a scalar tensor, got {came}")
    return loss


def in_place(loss: Loss) -> Loss:
    """A loss to be called as ``loss(model, *batch)``, also where a ``functools.partial`` has bound what comes between.

    Of ``partial(score_matching_loss, sde=process)``, with places for ``(model, sde, x)``, Python leaves none for ``x``:
    model and batch are handed over by name.
    """
    if not isinstance(loss, functools.partial):
        return loss
    kinds = Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD
    places = [p.name for p in signature(loss.func).parameters.values() if p.kind in kinds][len(loss.args) :]
    free = [name for name in places if name not in loss.keywords]
    if free == places[: len(free)]:
        return loss

    def by_name(model: nn.Module, *batch: Any, **named: Any) -> Tensor:
        if len(batch) >= len(free):
            raise ValueError(
                f"loss has places for {', '.join(free[1:])} beside the model, but a batch of data has {len(batch)} "
                "parts: give the data by name, in a dictionary"
            )
        return loss(**dict(zip(free, (model, *batch), strict=False)), **named)

    return by_name


def check_fits(loss: Any, model: nn.Module, batch: Any, named: dict[str, Any], error: TypeError) -> None:
    """Raise a ``ValueError`` if a loss failed because it does not take what the data give it."""
    try:
        takes = signature(loss)
    except (TypeError, ValueError):
        return
    try:
        takes.bind(model, *batch, **named)
    except TypeError as reason:
        by_name = ", ".join(name for name in named if name != "generator") or "none"
        several = " Points in a list are one tensor: torch.stack(points)." if len(batch) > 3 else ""
        raise ValueError(
            f"data must give what the loss takes, which is {takes}; they give {len(batch)} tensors in order and "
            f"by name {by_name} ({reason}).{several}"
        ) from error


def takes_generator(loss: Loss) -> bool:
    """Whether a loss has an argument ``generator``, or takes any; one that does not say is taken to."""
    try:
        parameters = signature(loss).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == "generator" or p.kind is Parameter.VAR_KEYWORD for p in parameters)
