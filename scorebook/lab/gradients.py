"""Derivatives by autograd that are right or refused.

PyTorch says of a function that runs under ``torch.no_grad()``, is detached, or takes a gradient without
``create_graph=True`` what it says of a constant: that nothing flows back to ``x``. A divergence then is 0, or lacks a
part, without a word. Here the two are told apart by value. While a function is called, :func:`checked` watches for
operations on ``x`` that autograd does not record. Only where there was one does it compare a finite difference with
what the graph accounts for; a function that is recorded throughout is called once, as ever.
"""

import contextlib
import types
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from scorebook.lab.arguments import floating
from scorebook.lab.types import Field

__all__ = ["checked", "outside_inference_mode", "recording", "unchecked"]

# Share of the change along the finite difference that the graph may leave out.
_UNSEEN = 0.02
# By how much the part that is missing must exceed what rounding and curvature do to the finite difference.
_CERTAINTY = 4
# Of those that were suspected and found right, the ones that a training loop calls again and again.
_REMEMBERED = (nn.Module, types.FunctionType)
_found_right: weakref.WeakSet[object] = weakref.WeakSet()
_INFERENCE_TENSORS = "Inference tensors cannot be saved"
_RAW_ERRORS = {
    "Can't call numpy() on": "leaves PyTorch for NumPy",
    _INFERENCE_TENSORS: "holds tensors made under torch.inference_mode(); make or clone them outside",
    "does not require grad and does not have a grad_fn": "takes a gradient of something that was not recorded",
}


@contextlib.contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leave ``torch.inference_mode()``, inside which nothing can be recorded; gradients stay off if they were."""
    enabled = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(enabled):
        yield


@contextlib.contextmanager
def recording(x: Tensor) -> Iterator[Tensor]:
    """Record with autograd, also under ``torch.no_grad()`` and ``torch.inference_mode()``.

    Yields ``x`` itself if it requires a gradient, otherwise a leaf of the same values that does.

    Raises:
        ValueError: if ``x`` is no floating tensor.
    """
    floating("x", x)
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone() if x.is_inference() else x
        yield x if x.requires_grad else x.detach().requires_grad_()


def unchecked(function: Field, x: Tensor) -> Tensor:
    """Call ``function(x)`` without the looks of :func:`checked`, which it has had.

    Where tensors of inference mode keep it from being recorded, copies take their place.
    """
    try:
        return function(x)
    except RuntimeError as error:
        if _INFERENCE_TENSORS not in str(error):
            raise
    with _Watch():
        return function(x)


def checked(name: str, function: Field, x: Tensor, *, of: object = None, argument: str = "x") -> Tensor:
    r"""Call ``function(x)``, and refuse it if it changes with ``x`` in a way that its graph does not show.

    Where an operation on ``x`` was not recorded, the function is called six times more, near ``x`` and with the same
    random numbers. Let :math:`\delta` be its change by value along a short step :math:`h`, and :math:`J` the Jacobian
    that the graph has: then :math:`\delta^T J h = \delta^T \delta`, and :math:`h^T J h = h^T \delta`. It is refused if
    more than 2 % of that are missing, and more than four times what a step of twice the length, or the same call again,
    makes of it. So rounding, kinks, jumps and random numbers raise no alarm. Nor does a part that is below 2 %, that
    shows only at other points than these, or that half precision hides in its noise; nor a wrong derivative inside a
    ``torch.autograd.Function``, a scripted or compiled function or another library's code, which is not watched. The
    watch costs some microseconds for each operation of the function.

    Args:
        name: of the function, for the message.
        function: callable ``x -> tensor``. Called once, if all of it is recorded.
        x: points that require a gradient, inside :func:`recording`.
        of: function or module that stands for the function, by default itself: once found right, it is not suspected
            again.
        argument: the name of ``x``, for the message.

    Returns:
        What the function returned.

    Raises:
        ValueError: if part of the function is hidden from autograd, with the cause and the cure.
    """
    of = function if of is None else of
    watch = _Watch()
    try:
        with watch:
            value = function(x)
    except RuntimeError as error:
        cause = next((cause for words, cause in _RAW_ERRORS.items() if words in str(error)), None)
        if cause is None:
            raise
        raise ValueError(_refusal(name, cause, argument)) from error
    if isinstance(value, Tensor) and not value.requires_grad and watch.cause is None:
        watch.cause = f"returns a tensor that autograd does not lead back to {argument}"
    if isinstance(value, Tensor) and watch.cause is not None and not _remembered(of):
        right = _accounts_for_change(function, x)
        if right is False:
            raise ValueError(_refusal(name, watch.cause, argument))
        if right and isinstance(of, _REMEMBERED):
            _found_right.add(of)
    return value


def _remembered(of: object) -> bool:
    return isinstance(of, _REMEMBERED) and of in _found_right


def _refusal(name: str, cause: str, argument: str) -> str:
    return (
        f"{name} must be differentiable in {argument} all the way, for the result depends on its derivatives, but it "
        f"{cause}. Let PyTorch record every operation from {argument} to the result: no torch.no_grad(), .detach(), "
        ".item() or NumPy on the way. If it is the gradient of an energy or a log-density, take it with "
        "create_graph=True, or by scorebook.score_matching.score_of"
    )


def _accounts_for_change(function: Field, x: Tensor) -> bool | None:
    """Whether the graph of a function accounts for its change by value near ``x``; ``None`` if there is no telling."""
    if x.is_meta or x.numel() == 0:
        return None
    x = x.detach()
    size = x.abs() + x.float().square().mean().sqrt()
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    direction = (2 * signs.to(x) - 1) * torch.where(size > 0, size, 1)
    rounding = max(torch.finfo(dtype).eps for dtype in (x.dtype, torch.float32))
    try:
        for power in (0.75, 0.5):
            verdict = _verdict(function, x, rounding**power * direction)
            if verdict is not None:
                return verdict
    except Exception:
        pass  # It is defined at x, but not beside it, such as a density with checked support.
    return None


def _verdict(function: Field, x: Tensor, step: Tensor) -> bool | None:
    """Whether the graph accounts for the change along one step, or ``None`` where rounding or curvature hide it."""

    def at(k: int) -> tuple[Tensor, Tensor]:
        # Not at x itself: a point of the data may well sit on a kink, such as that of relu at 0.
        point = (x + (4 + k) * step).requires_grad_()
        devices, kind = ([], "cuda") if x.device.type == "cpu" else ([x.device], x.device.type)
        with torch.random.fork_rng(devices, device_type=kind), _Watch():
            return function(point), point

    value, point = at(0)
    exact = torch.promote_types(value.dtype, torch.float32)
    centre, again, ahead, behind, far_ahead, far_behind = (
        v.detach().to(exact) for v in (value, *(at(k)[0] for k in (0, 1, -1, 2, -2)))
    )
    near, far = ahead - behind, (far_ahead - far_behind) / 2
    scale = near.abs().max()
    if not scale > 0:  # it does not change, or is NaN, for which others are responsible
        return True
    near, far, noise, step = near / scale, far / scale, (again - centre) / scale, step.to(exact) / scale
    length = near.norm()
    curved, unsteady = near - far, noise.norm() / length
    cotangents = [(near / length, (near * curved).sum().abs() / length**2 + unsteady**2)]
    if near.shape == step.shape:  # the trace is a sum of such products, and a projection hides from the first
        cotangents.append((step / step.norm(), curved.norm() / length + unsteady))
    sure = True
    for cotangent, doubtful in cotangents:
        seen: float | Tensor = 0.0
        if value.requires_grad:
            options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
            (product,) = torch.autograd.grad(value, point, cotangent.to(value.dtype), **options)
            seen = 2 * (product.to(exact) * step).sum()
        missing = ((cotangent * near).sum() - seen).abs() / length
        if missing > torch.clamp(_CERTAINTY * doubtful, min=_UNSEEN):
            return False
        sure = sure and bool(missing <= _UNSEEN)
    return True if sure else None


class _Watch(TorchFunctionMode):
    """Notes the first operation that takes a tensor which requires a gradient and returns numbers which do not.

    Tensors made under ``torch.inference_mode()`` cannot be recorded; they are copied where they stand in the way.
    """

    cause: str | None = None
    # Gradients are off inside a torch.autograd.Function too, and rightly. Only a caller switches them off by this.
    switched_off = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            result = func(*args, **kwargs)
        except RuntimeError as error:
            if _INFERENCE_TENSORS not in str(error):
                raise
            args, kwargs = tree_map_only(Tensor, _normal, (args, kwargs))
            result = func(*args, **kwargs)
        if func is torch._C._set_grad_enabled:
            self.switched_off = not args[0]
        elif self.cause is None and not (isinstance(result, Tensor) and result.requires_grad):
            self.cause = self._cause(func, args, kwargs, result)
        return result

    def _cause(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: object) -> str | None:
        name = getattr(func, "__name__", "")
        kept = args[0] if name == "__setitem__" else result
        if not _unrecorded(kept) or name.endswith("_like") or name.startswith("new_"):
            return None
        if not any(map(_requires_grad, (*args, *kwargs.values()))):
            return None
        if func is torch.autograd.grad:
            return "takes torch.autograd.grad without create_graph=True"
        if not torch.is_grad_enabled():
            off = self.switched_off or torch.is_inference_mode_enabled()
            return "runs in part under torch.no_grad() or torch.inference_mode()" if off else None
        if name == "__get__":  # a property: x.data, x.grad
            name = getattr(getattr(func, "__self__", None), "__name__", "property")
        return f"calls .{name}"


def _normal(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


def _requires_grad(argument: object) -> bool:
    if isinstance(argument, (tuple, list)):
        return any(map(_requires_grad, argument))
    # Weights may be normalised or averaged behind the back of autograd: x is not among them.
    return isinstance(argument, Tensor) and argument.requires_grad and not isinstance(argument, nn.Parameter)


def _unrecorded(result: object) -> bool:
    if isinstance(result, Tensor):
        return result.is_floating_point() and not result.requires_grad
    if isinstance(result, (tuple, list)):  # of tensors that are broadcast together, only some may hang on x
        return any(map(_unrecorded, result)) and not any(map(_requires_grad, result))
    return isinstance(result, (float, np.ndarray))
