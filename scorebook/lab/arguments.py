"""What public functions demand of their arguments, how one number meets a whole batch, and what all batches need.

Every check raises with the name of the argument, what came and what was expected. Checks of values are
skipped on the ``meta`` device, where tensors have a shape but no values. To look at a value is to wait for the device:
inside of :func:`one_read` all checks are put off to its end, and wait once.
"""

import contextlib
import contextvars
import functools
import math
import numbers
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from scorebook.lab.types import Array, Integer, Number, PerRow

__all__ = [
    "as_floating",
    "as_given",
    "at_least_single",
    "batch",
    "boolean",
    "double",
    "expand",
    "finite",
    "fits",
    "floating",
    "inner_time",
    "integers",
    "levels",
    "non_negative",
    "one_of",
    "one_per_row",
    "one_read",
    "positive",
    "positive_integer",
    "real",
    "recordable",
    "require",
    "same_shape",
    "some_points",
    "standard_normal",
    "still_finite",
    "sum_over_event",
    "two_samples",
    "uniform",
    "unit_time",
    "vectors",
]

# Solvers that add up their steps end a hair above 1.
_OVERSTEP = 1e-6

_Check: TypeAlias = tuple[Tensor, Callable[[], Exception | None]]
_put_off: contextvars.ContextVar[list[_Check] | None] = contextvars.ContextVar("checks put off", default=None)


@contextlib.contextmanager
def one_read() -> Iterator[list[Any]]:
    """Put off the checks of values inside, and read them from the device at the end, all at once.

    For the body of a step. Inside of another one it does nothing: the outermost reads. If something else fails inside,
    the checks are read first, for what they find may have been the cause.

    Yields:
        A list for scalar tensors that are wanted as numbers. After the block it holds the numbers, from the same read.
    """
    wanted: list[Any] = []
    if _put_off.get() is not None:
        yield wanted
        for _ in _refusals([], wanted):
            pass
        return
    checks: list[_Check] = []
    token = _put_off.set(checks)
    try:
        try:
            yield wanted
        finally:
            _put_off.reset(token)
    except Exception as error:
        for refusal in _refusals(checks, []):
            raise refusal from error
        raise
    for refusal in _refusals(checks, wanted):
        raise refusal


def require(holds: Tensor, refusal: Callable[[], Exception | None]) -> None:
    """Raise an error unless a truth value on the device holds, now or at the end of :func:`one_read`.

    Args:
        holds: a tensor of one truth value; on the ``meta`` device it is not looked at.
        refusal: callable without arguments that returns the error, or ``None`` if it finds none after all.
    """
    if holds.is_meta:
        return
    checks = _put_off.get()
    if checks is not None:
        checks.append((holds, refusal))
    elif not holds and (error := refusal()) is not None:
        raise error


def _refusals(checks: list[_Check], wanted: list[Any]) -> Iterator[Exception]:
    """The errors of the checks that fail, in their order; the wanted scalars become numbers on the way."""
    together = [*wanted, *(holds for holds, _ in checks)]
    on: dict[torch.device, list[Tensor]] = {}
    for value in together:
        on.setdefault(value.device, []).append(value.detach())
    read: dict[torch.device, Iterator[float]] = {}
    for device, values in on.items():
        dtype = functools.reduce(torch.promote_types, (value.dtype for value in values))
        read[device] = iter(_numbers(torch.stack([v.to(dtype) for v in values])))
    numbers_read = [next(read[value.device]) for value in together]
    wanted[:] = numbers_read[: len(wanted)]
    for (_, refusal), held in zip(checks, numbers_read[len(wanted) :], strict=True):
        if not held and (error := refusal()) is not None:
            yield error


def _numbers(values: Tensor) -> list[float]:
    if values.is_meta:  # nothing to read
        return [math.nan] * len(values)
    try:
        return values.tolist()
    except RuntimeError:  # below a transformation of torch.func the older versions give single numbers only
        return [value.item() for value in values]


def at_least_single(x: Tensor) -> Tensor:
    """``x`` itself, or in single precision where its own is coarser: there squares and sums would overflow."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def expand(value: PerRow, x: Tensor, name: str = "value") -> Tensor:
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


def vectors(x: Tensor) -> Tensor:
    """Points as vectors, from shape ``(B, *event)`` to ``(B, d)``; a point that is a number has a length of one."""
    return x.reshape(len(x), math.prod(x.shape[1:]))


def sum_over_event(x: Tensor) -> Tensor:
    """Sum the numbers of each point, from shape ``(B, *event)`` to ``(B,)``, whatever the event."""
    return vectors(x).sum(1)


def levels(name: str, value: PerRow, x: Tensor) -> Tensor:
    """Put times or noise scales on the device of ``x``, in its precision unless that is too coarse for them."""
    real(name, value)
    return torch.as_tensor(value, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)


def unit_time(t: PerRow) -> Tensor:
    """Return times as a floating tensor, in single precision at least; numbers count in double.

    Raises:
        ValueError: if a time lies outside [0, 1], but for what a solver's own sum of steps oversteps.
    """
    t = at_least_single(as_floating("t", t))
    # A number compares in a tenth of a tensor's time.
    if t.ndim == 0 and not t.is_meta and _put_off.get() is None and 0 <= t.item() <= 1 + _OVERSTEP:
        return t
    inside = (t >= 0) & (t <= 1 + _OVERSTEP)
    require(inside.all(), lambda: ValueError(f"t must lie in [0, 1], got values from {t.min():g} to {t.max():g}"))
    return t


def inner_time(name: str, t: Number) -> None:
    """Raise a ``ValueError`` unless a time is a number in (0, 1)."""
    if not 0 < t < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {t!r}")


def standard_normal(
    shape: Iterable[int],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw standard normal numbers on the generator's device, then move them to ``device``.

    A CPU generator thus serves a tensor on any device and gives the same numbers on each.
    """
    return _drawn(torch.randn, shape, generator, dtype, device)


def uniform(
    shape: Iterable[int],
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw numbers uniform in [0, 1) on the generator's device, then move them to ``device``."""
    return _drawn(torch.rand, shape, generator, dtype, device)


def _drawn(
    draw: Callable[..., Tensor],
    shape: Iterable[int],
    generator: torch.Generator | None,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
) -> Tensor:
    source = device if generator is None else generator.device
    return draw(tuple(shape), generator=generator, dtype=dtype, device=source).to(device)


def as_given(value: Array | Number, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor as it is, but for its ``dtype``, and numbers as a tensor on the CPU.

    There a scalar joins tensors of any device. ``torch.as_tensor`` alone would carry both, a tensor too, to the default
    device, if one has been set.
    """
    device = value.device if isinstance(value, Tensor) else "cpu"
    return torch.as_tensor(value, dtype=dtype, device=device)


def as_floating(name: str, value: PerRow) -> Tensor:
    """Return a floating tensor as it is, integers in the default precision, and numbers in double on the CPU.

    Numbers join tensors of any precision without raising it.
    """
    if isinstance(value, Tensor):
        real(name, value)
        return value if value.is_floating_point() else value.to(torch.get_default_dtype())
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")


def double(x: Tensor) -> Tensor:
    """``x`` in double precision, where its device has it."""
    return x if x.device.type == "mps" else x.double()


def recordable(x: Tensor) -> Tensor:
    """Return ``x``, or a copy if it was made in ``torch.inference_mode()`` and may meet autograd now."""
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def real(name: str, value: object) -> None:
    """Raise a ``ValueError`` if ``value`` is a tensor of complex numbers, which PyTorch would cut in half."""
    if isinstance(value, Tensor) and value.is_complex():
        raise ValueError(f"{name} must be real, got {value.dtype}")


def floating(name: str, value: object) -> None:
    """Raise a ``ValueError`` unless ``value`` is a tensor of real floating-point numbers."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"{name} must be a floating tensor, got {getattr(value, 'dtype', type(value).__name__)}")


def batch(name: str, value: Tensor) -> None:
    """Raise a ``ValueError`` unless ``value`` is a floating tensor of shape ``(B, *event)``."""
    floating(name, value)
    if value.ndim == 0:
        raise ValueError(f"{name} must have shape (B, *event), got a scalar")


def some_points(name: str, value: Tensor) -> None:
    """Raise a ``ValueError`` unless ``value`` is a batch of at least one point, all of them finite."""
    batch(name, value)
    if value.numel() == 0:
        raise ValueError(f"{name} must hold at least one point, shape (B, *event), got {tuple(value.shape)}")
    finite(name, value)


def two_samples(name_x: str, x: Tensor, name_y: str, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return two samples as vectors, shapes ``(n, d)`` and ``(m, d)``, in one precision, single at least.

    Half precision is too coarse for sums over samples, and has no distances on a CPU.

    Raises:
        ValueError: if either holds no point or one that is not finite, or the points differ in shape.
    """
    for name, sample in ((name_x, x), (name_y, y)):
        some_points(name, sample)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"{name_x} and {name_y} must agree in all but the first dimension, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
    return vectors(x).to(dtype), vectors(y).to(dtype)


def boolean(name: str, value: object) -> None:
    """Raise a ``ValueError`` unless ``value`` is a tensor of truth values."""
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        raise ValueError(f"{name} must be a boolean tensor, got {getattr(value, 'dtype', type(value).__name__)}")


def integers(name: str, value: Array | Integer) -> Tensor:
    """Return ``value`` as a tensor of ``int64``; raise a ``ValueError`` unless it holds integers."""
    value = as_given(value)
    if value.dtype == torch.bool or value.is_floating_point() or value.is_complex():
        raise ValueError(f"{name} must be integers, got {value.dtype}")
    return recordable(value.long())


def positive(name: str, value: object) -> None:
    """Raise a ``ValueError`` unless a number, or every entry of a tensor, is positive and finite."""
    _check(name, value, lambda v: (v > 0) & torch.isfinite(v), lambda v: v > 0, "positive and finite")


def non_negative(name: str, value: object) -> None:
    """Raise a ``ValueError`` unless a number, or every entry of a tensor, is at least zero and finite."""
    _check(name, value, lambda v: (v >= 0) & torch.isfinite(v), lambda v: v >= 0, "non-negative and finite")


def finite(name: str, value: object) -> None:
    """Raise a ``ValueError`` if a number or tensor holds NaN or infinity."""
    _check(name, value, torch.isfinite, lambda v: True, "finite")


def positive_integer(name: str, value: object) -> int:
    """Return an integer of at least one, Python's or NumPy's, as an ``int``; raise a ``ValueError`` for all else."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def one_of(name: str, value: object, options: Iterable[object]) -> None:
    """Raise a ``ValueError`` unless ``value`` is among ``options``."""
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")


def same_shape(name: str, output: object, x: Tensor) -> Tensor:
    """Return ``output`` if it is a tensor shaped like ``x``; raise a ``ValueError`` otherwise."""
    if not isinstance(output, Tensor):
        raise ValueError(f"{name} must return a tensor of shape {tuple(x.shape)}, got {type(output).__name__}")
    if output.shape != x.shape:
        raise ValueError(f"{name} must return shape {tuple(x.shape)} like its input, got {tuple(output.shape)}")
    if not output.is_floating_point():
        raise ValueError(f"{name} must return real floating-point numbers, got {output.dtype}")
    return output


def one_per_row(name: str, output: object, x: Tensor) -> Tensor:
    """Return ``output`` if it is one number for each row of ``x``; raise a ``ValueError`` otherwise."""
    if not isinstance(output, Tensor) or output.shape != (len(x),):
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"{name} must return one number per row, shape ({len(x)},), got {came}")
    return output


def fits(name: str, value: Tensor, x: Tensor, of: str = "x") -> None:
    """Raise a ``ValueError`` unless a tensor is shaped like ``x``, whose name is ``of``, one row of it, or an event."""
    if value.shape not in (x.shape, x.shape[1:], (1, *x.shape[1:])):
        raise ValueError(
            f"{name} must have the shape of {of}, {tuple(x.shape)}, or of one event of it, got {tuple(value.shape)}"
        )


def still_finite(name: str, x: Tensor, at: str, place: Number | Tensor) -> Tensor:
    """Return ``x`` if it is finite; raise a ``RuntimeError`` that says where it ceased to be, and in how many rows.

    For the states of an iteration: one number is read from the device.

    Args:
        name: what ``x`` is, in the plural.
        x: shape ``(B, *event)``.
        at: name of the place, such as ``"t"`` or ``"step"``.
        place: number or scalar tensor.
    """
    require(torch.isfinite(at_least_single(x).sum()), functools.partial(_not_finite, name, x, at, place))
    return x


def _not_finite(name: str, x: Tensor, at: str, place: PerRow) -> RuntimeError | None:
    bad = ~torch.isfinite(vectors(x)).all(1)
    if not bool(bad.any()):  # it was the sum that overflowed
        return None
    return RuntimeError(
        f"{name} are no longer finite in {int(bad.sum())} of {len(x)} rows at {at}={float(place):g}, first in row "
        f"{int(bad.nonzero()[0])}: see what the score returns there"
    )


def _check(
    name: str,
    value: object,
    tensor_test: Callable[[Tensor], Tensor],
    number_test: Callable[[float], bool],
    expected: str,
) -> None:
    real(name, value)
    if not isinstance(value, Tensor):
        if not isinstance(value, numbers.Real) or isinstance(value, bool):
            raise ValueError(f"{name} must be a number or a tensor, got {value!r}")
        if not (math.isfinite(value) and number_test(float(value))):
            raise ValueError(f"{name} must be {expected}, got {value!r}")
        return
    if value.numel() == 1 and value.is_floating_point() and not value.is_meta and _put_off.get() is None:
        # A number is checked in a tenth of a tensor's time.
        number = value.item()
        if math.isfinite(number) and number_test(number):
            return
    good = tensor_test(value)
    require(
        good.all(),
        lambda: ValueError(
            f"{name} must be {expected}, got {value[~good].flatten()[0].item():g} among {value.numel()} value(s)"
        ),
    )
