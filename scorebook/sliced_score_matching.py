r"""Sliced score matching: the trace of the Jacobian seen along random directions.

The implicit loss of :mod:`scorebook.score_matching` asks for the trace of a Jacobian, one backward pass for each
dimension. Directions with :math:`E[v v^T] = I` give it at the price of one, because
:math:`E[v^T A\, v] = \mathrm{tr}(A\, E[v v^T]) = \mathrm{tr}\,A`:

.. math::
    J(\theta) = E_{x, v}\Big[ v^T \nabla s_\theta(x)\, v + \tfrac12 \big(v^T s_\theta(x)\big)^2 \Big]

This is half of :math:`E\,(v^T s_\theta - v^T \nabla \log p)^2` up to a constant, and equal to the implicit loss. The
second term has a known mean over the directions, :math:`\tfrac12 \lVert s_\theta \rVert^2`; putting it in gives the
variance-reduced form. What it leaves is the variance of the trace estimate. With :math:`S` the symmetric part of the
Jacobian, the only part that a quadratic form sees, that is for one direction

.. math::
    \mathrm{Var}[v^T S v] = \begin{cases}
        2 \lVert S \rVert_F^2 & \text{Gaussian} \\
        2 \lVert S \rVert_F^2 - 2 \sum_i S_{ii}^2 & \text{Rademacher} \\
        \frac{2d}{d + 2} \big(\lVert S \rVert_F^2 - \tfrac1d (\mathrm{tr}\, S)^2\big) & \text{sphere}
    \end{cases}

Source: Song, Garg, Shi & Ermon (2019), "Sliced score matching", section 3; Hutchinson (1990) for the trace.
"""

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from scorebook.lab.arguments import (
    batch,
    floating,
    one_of,
    one_read,
    positive_integer,
    same_shape,
    some_points,
    standard_normal,
    sum_over_event,
)
from scorebook.lab.gradients import checked, outside_inference_mode, recording, unchecked
from scorebook.lab.types import Field, Integer

__all__ = ["random_projections", "sliced_divergence", "sliced_score_matching_loss", "value_and_slices"]

_Kind: TypeAlias = Literal["rademacher", "gaussian", "sphere"]


def random_projections(
    x: Tensor, n: Integer, *, kind: _Kind = "rademacher", generator: torch.Generator | None = None
) -> Tensor:
    r"""Random directions with :math:`E[v v^T] = I`, so that :math:`E[v^T A v] = \mathrm{tr}\,A`.

    Directions on the sphere have the norm :math:`\sqrt d`: with norm 1 they would give :math:`\mathrm{tr}\,A / d`.

    Args:
        x: points, shape ``(B, *event)``; gives shape, dtype and device.
        n: directions per point.
        kind: ``"rademacher"`` (random signs), ``"gaussian"``, or ``"sphere"`` (uniform, of norm :math:`\sqrt d`).
        generator: source of the directions.

    Returns:
        Directions, shape ``(n, B, *event)``, independent of each other.

    Raises:
        ValueError: for an unknown kind, ``n`` that is no positive integer, or ``x`` that is no batch of floating
            points.

    Source: Song et al. (2019), section 3.
    """
    batch("x", x)
    n = positive_integer("n", n)
    one_of("kind", kind, get_args(_Kind))
    v = standard_normal((n, *x.shape), generator=generator, dtype=x.dtype, device=x.device)
    if kind == "gaussian":
        return v
    if kind == "rademacher":
        return torch.where(v < 0, -1.0, 1.0).to(x.dtype)
    n_dims = math.prod(x.shape[1:])
    flat = v.reshape(n * len(x), n_dims)
    norm = flat.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
    return (flat * (math.sqrt(n_dims) / norm)).reshape(v.shape)


@outside_inference_mode()
def sliced_divergence(field: Field, x: Tensor, v: Tensor) -> Tensor:
    r"""Divergence seen along one direction per point, :math:`v^T (\nabla s(x))\,v`, with one extra backward pass.

    .. math:: v^T\, \nabla s(x)\, v = \nabla_x\!\left(v^T s(x)\right) \cdot v

    Args:
        field: callable ``x -> tensor like x``, row by row; called once.
        x: points, shape ``(B, *event)``.
        v: directions, the same shape.

    Returns:
        One number per point, shape ``(B,)``, whose mean over random projections is the divergence. Differentiable, in
        ``x``, ``v`` and the parameters of the field; a plain tensor under ``torch.no_grad()`` or
        ``torch.inference_mode()``.

    Raises:
        ValueError: if the field or ``v`` has another shape than ``x``, the field hides from autograd how it depends on
            ``x`` (:func:`scorebook.lab.gradients.checked`), or ``x`` is no batch of floating points.

    Source: Hutchinson (1990); Song et al. (2019), section 3.
    """
    batch("x", x)
    floating("v", v)
    if v.shape != x.shape:
        raise ValueError(f"v must have shape {tuple(x.shape)} like x, got {tuple(v.shape)}")
    return _value_and_slices("field", field, x, v.to(x.dtype).unsqueeze(0))[1].squeeze(0)


@one_read()
@outside_inference_mode()
def sliced_score_matching_loss(
    model: Field,
    x: Tensor,
    *,
    n_projections: Integer = 1,
    kind: _Kind = "rademacher",
    variance_reduced: bool = True,
    generator: torch.Generator | None = None,
    reduction: Literal["mean", "none"] = "mean",
) -> Tensor:
    r"""Score matching from samples, at a cost that does not grow with the dimension.

    .. math::
        J(\theta) = E_{x, v}\Big[ v^T \nabla s_\theta(x)\, v + \tfrac12 \big(v^T s_\theta(x)\big)^2 \Big]

    The variance-reduced form puts :math:`\tfrac12 \lVert s_\theta(x) \rVert^2` for the second term, its mean over
    :math:`v`. Either has the expectation of ``score_matching.implicit_score_matching_loss``, and so its minimiser.

    Args:
        model: callable ``x -> tensor like x``, row by row, the model's score; called once.
        x: samples, shape ``(B, *event)``.
        n_projections: directions per sample, one extra backward pass each.
        kind: law of the directions, see :func:`random_projections`.
        variance_reduced: whether the mean of the second term is put in.
        generator: source of the directions.
        reduction: ``"mean"``, or ``"none"`` for the terms of the mean, one per sample.

    Returns:
        A scalar, or shape ``(B,)``.

    Raises:
        ValueError: if the model returns another shape or hides from autograd how it depends on ``x``
            (:func:`scorebook.lab.gradients.checked`), ``x`` is empty or not finite, ``n_projections`` is no positive
            integer, or ``kind`` or ``reduction`` is unknown.

    Source: Song et al. (2019), section 3.
    """
    some_points("x", x)
    positive_integer("n_projections", n_projections)
    one_of("reduction", reduction, ("mean", "none"))
    v = random_projections(x, n_projections, kind=kind, generator=generator)
    value, slices = _value_and_slices("model", model, x, v)
    if variance_reduced:
        square = sum_over_event(value.square())
    else:
        square = torch.stack([sum_over_event(value * each) for each in v]).square()
    terms = (slices + 0.5 * square).mean(0)
    return terms.mean() if reduction == "mean" else terms


@outside_inference_mode()
def value_and_slices(field: Field, x: Tensor, v: Tensor, *, check: bool = True) -> tuple[Tensor, Tensor]:
    r"""The field and its divergence seen along several directions, from one call of the field.

    Args:
        field: callable ``x -> tensor like x``, row by row.
        x: points, shape ``(B, *event)``.
        v: directions, shape ``(n, B, *event)``, such as :func:`random_projections`; one extra backward pass each.
        check: look for what the field hides from autograd; false for one that has been looked at.

    Returns:
        The field, shape ``(B, *event)``, and :math:`v^T (\nabla s(x))\,v` for each direction, shape ``(n, B)``.

    Raises:
        ValueError: as :func:`sliced_divergence`.
    """
    batch("x", x)
    floating("v", v)
    if v.shape[1:] != x.shape:
        raise ValueError(f"v must have shape (n, *{tuple(x.shape)}), directions for each x, got {tuple(v.shape)}")
    return _value_and_slices("field", field, x, v.to(x.dtype), check)


def _value_and_slices(
    name: str, field: Field, x: Tensor, directions: Tensor, check: bool = True
) -> tuple[Tensor, Tensor]:
    differentiable = torch.is_grad_enabled()
    with recording(x) as x:
        value = same_shape(name, checked(name, field, x) if check else unchecked(field, x), x)
    directions = directions.clone() if directions.is_inference() else directions
    if not value.requires_grad:  # a constant field
        return value, x.new_zeros(directions.shape[:2])
    options = {"create_graph": differentiable, "allow_unused": True, "materialize_grads": True}
    products = [
        # Gradients with respect to x of the one number v . s, summed over the batch: row by row v^T grad s.
        torch.autograd.grad(value, x, direction, retain_graph=True, **options)[0]
        for direction in directions
    ]
    slices = torch.stack([sum_over_event(product * v) for product, v in zip(products, directions, strict=True)])
    return (value if differentiable else value.detach()), slices
