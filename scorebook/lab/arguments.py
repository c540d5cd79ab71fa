"""What public functions demand of their arguments, and how one number meets a whole batch.

Every check raises with the name of the argument, what came and what was expected. Checks of values are
skipped on the ``meta`` device, where tensors have a shape but no values.
"""

import math
import numbers

import torch
from torch import Tensor

__all__ = [
    "as_given",
    "at_least_single",
    "batch",
    "expand",
    "finite",
    "floating",
    "integers",
    "non_negative",
    "one_of",
    "positive",
    "positive_integer",
    "real",
    "recordable",
    "same_shape",
    "standard_normal",
    "still_finite",
]


def at_least_single(x: Tensor) -> Tensor:
    """``x`` itself, or in single precision where its own is coarser: there squares and sums would overflow."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def expand(value, x: Tensor, name: str = "value") -> Tensor:
    """Shape a scalar or a ``(B,)`` tensor so that it multiplies ``x`` of shape ``(B, *event)`` row by row.

    Raises:
        ValueError: if ``x`` is no batch of floating points, or ``value`` is complex, neither a scalar nor of shape
            ``(B,)``; the message calls it by its ``name``.
    """
    batch("x", x)
    real(name, value)
    value = recordable(torch.as_tensor(value, dtype=x.dtype, device=x.device))
    if value.ndim == 0:
        return value
    if value.ndim == 1 and len(value) in (1, len(x)):
        return value.reshape(-1, *[1] * (x.ndim - 1))
    raise ValueError(f"{name} must be a scalar or one value per row, shape ({len(x)},), got {tuple(value.shape)}")


def standard_normal(shape, *, generator=None, dtype=None, device=None) -> Tensor:
    """Draw standard normal numbers on the generator's device, then move them to ``device``.

    A CPU generator thus serves a tensor on any device and gives the same numbers on each.
    """
    source = device if generator is None else generator.device
    return torch.randn(tuple(shape), generator=generator, dtype=dtype, device=source).to(device)


def as_given(value, dtype=None) -> Tensor:
    """Return a tensor as it is, but for its ``dtype``, and numbers as a tensor on the CPU.

    There a scalar joins tensors of any device. ``torch.as_tensor`` alone would carry both, a tensor too, to the default
    device, if one has been set.
    """
    device = value.device if isinstance(value, Tensor) else "cpu"
    return torch.as_tensor(value, dtype=dtype, device=device)


def recordable(x: Tensor) -> Tensor:
    """Return ``x``, or a copy if it was made in ``torch.inference_mode()`` and may meet autograd now."""
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def real(name: str, value) -> None:
    """Raise a ``ValueError`` if ``value`` is a tensor of complex numbers, which PyTorch would cut in half."""
    if isinstance(value, Tensor) and value.is_complex():
        raise ValueError(f"{name} must be real, got {value.dtype}")


def floating(name: str, value) -> None:
    """Raise a ``ValueError`` unless ``value`` is a tensor of real floating-point numbers."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"{name} must be a floating tensor, got {getattr(value, 'dtype', type(value).__name__)}")


def batch(name: str, value) -> None:
    """Raise a ``ValueError`` unless ``value`` is a floating tensor of shape ``(B, *event)``."""
    floating(name, value)
    if value.ndim == 0:
        raise ValueError(f"{name} must have shape (B, *event), got a scalar")


def integers(name: str, value) -> Tensor:
    """Return ``value`` as a tensor of ``int64``; raise a ``ValueError`` unless it holds integers."""
    value = as_given(value)
    if value.dtype == torch.bool or value.is_floating_point() or value.is_complex():
        raise ValueError(f"{name} must be integers, got {value.dtype}")
    return recordable(value.long())


def positive(name: str, value) -> None:
    """Raise a ``ValueError`` unless a number, or every entry of a tensor, is positive and finite."""
    _check(name, value, lambda v: (v > 0) & torch.isfinite(v), lambda v: v > 0, "positive and finite")


def non_negative(name: str, value) -> None:
    """Raise a ``ValueError`` unless a number, or every entry of a tensor, is at least zero and finite."""
    _check(name, value, lambda v: (v >= 0) & torch.isfinite(v), lambda v: v >= 0, "non-negative and finite")


def finite(name: str, value) -> None:
    """Raise a ``ValueError`` if a number or tensor holds NaN or infinity."""
    _check(name, value, torch.isfinite, lambda v: True, "finite")


def positive_integer(name: str, value) -> None:
    """Raise a ``ValueError`` unless ``value`` is an integer of at least one, Python's or NumPy's."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def one_of(name: str, value, options) -> None:
    """Raise a ``ValueError`` unless ``value`` is among ``options``."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")


def same_shape(name: str, output, x: Tensor) -> Tensor:
    """Return ``output`` if it is a tensor shaped like ``x``; raise a ``ValueError`` otherwise."""
    if not isinstance(output, Tensor):
        raise ValueError(f"{name} must return a tensor of shape {tuple(x.shape)}, got {type(output).__name__}")
    if output.shape != x.shape:
        raise ValueError(f"{name} must return shape {tuple(x.shape)} like its input, got {tuple(output.shape)}")
    if not output.is_floating_point():
        raise ValueError(f"{name} must return real floating-point numbers, got {output.dtype}")
    return output


def still_finite(name: str, x: Tensor, at: str, place) -> Tensor:
    """Return ``x`` if it is finite; raise a ``RuntimeError`` that says where it ceased to be, and in how many rows.

    For the states of an iteration: one number is read from the device.

    Args:
        name: what ``x`` is, in the plural.
        x: shape ``(B, *event)``.
        at: name of the place, such as ``"t"`` or ``"step"``.
        place: number or scalar tensor.
    """
    if x.is_meta or math.isfinite(at_least_single(x).sum().item()):
        return x
    bad = ~torch.isfinite(x).reshape(len(x), -1).all(1)
    if not bool(bad.any()):  # it was the sum that overflowed
        return x
    raise RuntimeError(
        f"{name} are no longer finite in {int(bad.sum())} of {len(x)} rows at {at}={float(place):g}, first in row "
        f"{int(bad.nonzero()[0])}: see what the score returns there"
    )


def _check(name, value, tensor_test, number_test, expected) -> None:
    real(name, value)
    if isinstance(value, Tensor):
        if value.numel() == 1 and value.is_floating_point() and not value.is_meta:
            # A sampler checks a time at every step, and a number is checked in a tenth of a tensor's time.
            number = value.item()
            if math.isfinite(number) and number_test(number):
                return
        if not value.is_meta and not bool(tensor_test(value).all()):
            bad = value[~tensor_test(value)].flatten()[0].item()
            raise ValueError(f"{name} must be {expected}, got {bad:g} among {value.numel()} value(s)")
        return
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number or a tensor, got {value!r}")
    if not (math.isfinite(value) and number_test(value)):
        raise ValueError(f"{name} must be {expected}, got {value!r}")
