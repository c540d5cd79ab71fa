r"""Linear observations: what was seen of a point, how likely it was, and how an inverse covariance weighs it.

.. math:: y = A x_0 + \varsigma z, \qquad z \sim N(0, I)

The operator :math:`A` is a matrix, or code whose transpose autograd or the caller knows. Guidance asks three things of
it: the residual :math:`y - A x`, the log-density of :math:`y` given a clean point, and the solution of
:math:`(v\,A A^\top + \varsigma^2 I)\,w = r`.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from scorebook.lab.arguments import (
    at_least_single,
    batch,
    expand,
    finite,
    floating,
    non_negative,
    positive,
    recordable,
    same_shape,
    standard_normal,
    sum_over_event,
    vectors,
)
from scorebook.lab.gradients import outside_inference_mode
from scorebook.lab.types import Field, Number, PerRow

__all__ = ["LinearObservation"]


@final
class LinearObservation:
    r"""An observation :math:`y = A x_0 + \varsigma z` with :math:`z \sim N(0, I)`.

    Args:
        operator: the matrix ``A``, shape ``(m, d)``, which acts on events flattened to ``d`` numbers; or a pair of
            callables, ``A`` from ``(B, *event)`` to ``(B, *observed)`` and its adjoint from there back, both linear and
            row by row; or ``A`` alone, whose adjoint autograd knows, with ``event_shape``. A pair need not be
            differentiable: where autograd does not find the adjoint in the first, it is given the second. Both are
            called in the precision of ``y`` where that is half.
        y: what was observed. For a matrix ``(m,)``, or ``(B, m)`` if each sample has its own; for callables always
            with the axis of samples, ``(1, *observed)``, or ``(B, *observed)`` if each sample has its own, which
            allows for callables that hold something for each of them, such as masks.
        noise_std: :math:`\varsigma`, a positive number in the units of ``y``.
        event_shape: shape of a point; for a callable ``A`` that comes alone.

    Raises:
        ValueError: if the operator is none of these, its shape does not fit ``y``, the second callable is not the
            adjoint of the first, ``noise_std`` is not positive, or a value is not finite.

    The adjoint is held against :math:`\langle A u, v \rangle = \langle u, A^\top v \rangle` for eight random pairs or
    more, to sixteen roundings of ``y``, at best of single precision, in each product of the sum, whose errors add up
    like the noise that they are; a map that is not linear, or that mixes the rows of a batch, fails as well. The
    observation can be pickled where its callables can.
    """

    def __init__(
        self,
        operator: Tensor | Field | Sequence[Field],
        y: Tensor,
        noise_std: Number | Tensor,
        *,
        event_shape: Sequence[int] | None = None,
    ):
        if isinstance(noise_std, Tensor) and noise_std.ndim != 0:
            raise ValueError(f"noise_std must be one number, got shape {tuple(noise_std.shape)}")
        positive("noise_std", noise_std)
        floating("y", y)
        finite("y", y)
        self.y, self.noise_std, self._matrix = y, noise_std, None
        if isinstance(operator, Tensor):
            self._set_matrix(operator)
        elif isinstance(operator, (tuple, list)) and len(operator) == 2 and all(callable(part) for part in operator):
            self._set_callables(*operator)
        elif callable(operator):
            if event_shape is None:
                raise ValueError(
                    "operator comes without its adjoint: give event_shape, the shape of one point, by which autograd "
                    "finds it, or a pair of callables, A and its adjoint"
                )
            self._set_callables(operator, functools.partial(_transposed, operator, tuple(event_shape)))
        else:
            raise ValueError(
                "operator must be a matrix, a pair of callables, A and its adjoint, or a callable with event_shape, "
                f"got {type(operator).__name__}"
            )

    def __repr__(self) -> str:
        kind = "callables" if self.matrix is None else f"matrix {tuple(self.matrix.shape)}"
        return f"LinearObservation({kind}, y {tuple(self.y.shape)}, noise_std={float(self.noise_std):g})"

    @property
    def matrix(self) -> Tensor | None:
        """The matrix ``A``, or ``None`` where the operator is made of callables."""
        return self._matrix

    def _set_matrix(self, matrix: Tensor) -> None:
        if matrix.ndim != 2 or not matrix.is_floating_point() or matrix.numel() == 0:
            raise ValueError(f"operator must be a floating matrix of shape (m, d), got {tuple(matrix.shape)}")
        finite("operator", matrix)
        if self.y.ndim not in (1, 2) or self.y.shape[-1] != len(matrix):
            raise ValueError(
                f"operator has {len(matrix)} rows, so y must have shape ({len(matrix)},) or (B, {len(matrix)}), "
                f"got {tuple(self.y.shape)}"
            )
        self._matrix = matrix
        self.y = self.y.reshape(-1, len(matrix))
        precise = matrix.cpu().double() if matrix.device.type == "mps" else matrix.double()
        squares, axes = torch.linalg.eigh(precise @ precise.mT)
        self._squares, self._axes = squares.clamp(min=0), axes

    def _set_callables(self, forward: Field, adjoint: Field) -> None:
        y = self.y
        if y.ndim == 0:
            raise ValueError(f"y must begin with the axis of samples, (1, *observed) or (B, ...), got {tuple(y.shape)}")
        self._forward, self._adjoint, self._by_autograd = forward, adjoint, True
        draw = torch.Generator("cpu").manual_seed(0)
        n_rows = len(y) if len(y) > 1 else 2  # one row alone could not show that rows are mixed
        precision = max(torch.finfo(dtype).eps for dtype in (y.dtype, torch.float32))
        for _ in range(-(-8 // n_rows)):
            v = standard_normal((n_rows, *y.shape[1:]), generator=draw, dtype=y.dtype, device=y.device)
            back = adjoint(v)
            if not isinstance(back, Tensor) or back.ndim == 0 or len(back) != n_rows:
                came = tuple(back.shape) if isinstance(back, Tensor) else type(back).__name__
                raise ValueError(
                    f"the adjoint of operator must return shape ({n_rows}, *event) for {n_rows} rows of y, got {came}"
                )
            u = standard_normal(back.shape, generator=draw, dtype=y.dtype, device=y.device)
            seen = same_shape("operator", forward(u), v)
            self._by_autograd = self._by_autograd and _is_derivative(forward, u, v, back, 16 * precision)
            seen, v, u, back = (vectors(part.detach()).double() for part in (seen, v, u, back))
            left, right = (seen * v).sum(1), (u * back).sum(1)
            size = (seen * v).norm(dim=1) + (u * back).norm(dim=1)
            if not left.is_meta and bool(((left - right).abs() > 16 * precision * size).any()):
                worst = int((left - right).abs().argmax())
                raise ValueError(
                    "operator needs its adjoint: <A u, v> and <u, A* v> must agree for every u and v, "
                    f"got {left[worst]:.6g} and {right[worst]:.6g}"
                )

    def _apply(self, x: Tensor, *maps: Field) -> Tensor:
        """Apply a map and its adjoint known to autograd, in the precision of ``y`` where that is half."""
        inside = x if self.y.dtype in (torch.float32, torch.float64) else x.to(self.y.dtype)
        return (maps[0](inside) if self._by_autograd else _WithAdjoint.apply(inside, *maps)).to(x.dtype)

    def predict(self, x: Tensor) -> Tensor:
        """Noise-free observation ``A x``, shape ``(B, *observed)``, of points ``(B, *event)``.

        Raises:
            ValueError: if the operator takes points of another shape.
        """
        batch("x", x)
        if self.matrix is None:
            return self._apply(x, self._forward, self._adjoint)
        flat = vectors(x)
        if flat.shape[1] != self.matrix.shape[1]:
            raise ValueError(
                f"operator takes points of {self.matrix.shape[1]} numbers, shape {tuple(self.matrix.shape)}, "
                f"got x of shape {tuple(x.shape)}"
            )
        return flat @ self.matrix.to(x).mT

    def residual(self, x: Tensor) -> Tensor:
        """What the points leave unexplained, ``y - A x``, shape ``(B, *observed)``.

        Raises:
            ValueError: if ``y`` holds another number of observations than one or one per point, or the operator takes
                or returns another shape.
        """
        return self.residual_of(self.predict(x))

    def residual_of(self, predicted: Tensor) -> Tensor:
        """What a prediction leaves unexplained, ``y`` less that, shape ``(B, *observed)``; for :meth:`residual`.

        Raises:
            ValueError: as :meth:`residual`.
        """
        y = self.y
        batch("predicted", predicted)
        if predicted.shape[1:] != y.shape[1:] or len(y) not in (1, len(predicted)):
            raise ValueError(
                f"y must have shape {tuple(predicted.shape)}, or 1 in place of {len(predicted)}, "
                f"to fit what operator makes of x, got {tuple(y.shape)}"
            )
        return y.to(predicted) - predicted

    def log_likelihood(self, x: Tensor) -> Tensor:
        r"""Log-density of the observation given the *clean* point, in nats, shape ``(B,)``.

        .. math:: \log N(y;\ A x,\ \varsigma^2 I)

        Right for :math:`x_0`. For a noisy point it is not the likelihood that guidance needs.

        Raises:
            ValueError: as :meth:`residual`.
        """
        residual = at_least_single(self.residual(x))
        z = vectors(residual / expand(self.noise_std, residual, "noise_std"))
        return -0.5 * z.square().sum(1) - z.shape[1] * math.log(math.sqrt(2 * math.pi) * float(self.noise_std))

    def solve(self, residual: Tensor, variance: PerRow) -> Tensor:
        r"""Weigh a residual by the inverse covariance of an observation whose clean point is uncertain.

        .. math:: w = (v\, A A^\top + \varsigma^2 I)^{-1} r

        By the eigenvectors of :math:`A A^\top` for a matrix, else by conjugate gradients, each row on its own.

        Args:
            residual: :math:`r`, shape ``(B, *observed)``.
            variance: :math:`v`, that of the clean point in each direction, scalar or shape ``(B,)``.

        Returns:
            :math:`w`, shaped like ``residual``.

        Raises:
            ValueError: if ``variance`` is negative.
            RuntimeError: if the conjugate gradients do not converge.
        """
        batch("residual", residual)
        dtype, residual = residual.dtype, at_least_single(residual)
        if residual.shape[1:] != self.y.shape[1:]:
            raise ValueError(f"residual must have shape (B, *{tuple(self.y.shape[1:])}), got {tuple(residual.shape)}")
        non_negative("variance", variance)
        variance = expand(variance, residual, "variance")
        noise = expand(self.noise_std, residual, "noise_std") ** 2
        if self.matrix is None:

            def covariance(w: Tensor) -> Tensor:
                back = self._apply(w, self._adjoint, self._forward)
                return variance * self._apply(back, self._forward, self._adjoint) + noise * w

            rounding = max(torch.finfo(part.dtype).eps for part in (residual, self.y))
            return _conjugate_gradients(covariance, residual, rounding).to(dtype)
        squares, axes = self._squares.to(residual), self._axes.to(residual)
        return (((residual @ axes) / (variance * squares + noise)) @ axes.mT).to(dtype)


@outside_inference_mode()
def _transposed(operator: Field, event_shape: tuple[int, ...], w: Tensor) -> Tensor:
    """The adjoint of a linear map: the derivative of its products with ``w``."""
    w = recordable(w)
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        x = w.new_zeros(len(w), *event_shape).requires_grad_()
        seen = same_shape("operator", operator(x), w)
        if not seen.requires_grad:
            raise ValueError(
                "operator must be differentiable where no adjoint is given, got a result without a gradient"
            )
        return torch.autograd.grad(seen, x, w, create_graph=differentiable, materialize_grads=True)[0]


def _is_derivative(forward: Field, u: Tensor, v: Tensor, back: Tensor, tolerance: float) -> bool:
    """Whether autograd finds the adjoint in a map by itself, and all of it."""
    with torch.enable_grad():
        inside = u.clone().requires_grad_()
        try:
            (found,) = torch.autograd.grad(forward(inside), inside, v, allow_unused=True, materialize_grads=True)
        except RuntimeError:  # it leaves PyTorch, or cuts the graph
            return False
    found, back = vectors(found.double()), vectors(back.double())
    return found.is_meta or bool(((found - back).norm(dim=1) <= tolerance * back.norm(dim=1)).all())


class _WithAdjoint(torch.autograd.Function):
    """A linear map whose derivative is its adjoint, and the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, apply: Field, adjoint: Field) -> Tensor:
        ctx.maps = apply, adjoint
        return apply(x)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor, None, None]:
        apply, adjoint = ctx.maps
        return _WithAdjoint.apply(w, adjoint, apply), None, None


def _conjugate_gradients(apply: Field, b: Tensor, rounding: float) -> Tensor:
    """Solve ``apply(w) = b`` for a symmetric positive map, each row on its own: a row that is done no longer moves."""

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return expand(sum_over_event(u * v), b)

    done = dot(b, b) * rounding**1.5
    w, residual, direction, squared = torch.zeros_like(b), b, b, dot(b, b)
    n_iterations = 1 if b.is_meta else 10 * math.prod(b.shape[1:]) + 10
    for _ in range(n_iterations):
        active = squared > done
        if not b.is_meta and not bool(active.any()):
            return w
        image = apply(direction)
        curvature = torch.where(active, dot(direction, image), 1)
        step = torch.where(active, squared / curvature, 0)
        w, residual = w + step * direction, residual - step * image
        previous, squared = torch.where(active, squared, 1), dot(residual, residual)
        direction = torch.where(active, residual + squared / previous * direction, direction)
    if not b.is_meta and bool((squared > done).any()):
        raise RuntimeError(
            f"conjugate gradients did not converge in {n_iterations} iterations: the observation noise is too small "
            "for the precision; use float64, or a larger noise_std"
        )
    return w
