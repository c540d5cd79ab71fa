r"""Score matching: a density known up to its normalising constant, fitted without ever computing the constant.

A model :math:`p_\theta = e^{f_\theta} / Z_\theta` is compared with the data through its score, in which the constant
:math:`Z_\theta` does not occur:

.. math:: s_\theta(x) = \nabla_x \log p_\theta(x) = \nabla_x f_\theta(x)

Half the Fisher divergence between data and model, and the same thing up to a constant once the unknown score of the
data has been integrated away by parts, are the two losses of this module:

.. math::
    J(\theta) = \tfrac12\, E_p \lVert s_\theta(x) - \nabla_x \log p(x) \rVert^2
              = E_p\big[ \nabla \cdot s_\theta(x) + \tfrac12 \lVert s_\theta(x) \rVert^2 \big]
              + \tfrac12\, E_p \lVert \nabla_x \log p(x) \rVert^2

The second equality needs :math:`p\, s_\theta \to 0` at every edge of the support, infinity included.

Source: Hyvärinen (2005), theorems 1 and 2.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from scorebook.lab.arguments import (
    batch,
    fits,
    floating,
    one_of,
    one_per_row,
    one_read,
    positive_integer,
    same_shape,
    some_points,
    sum_over_event,
)
from scorebook.lab.gradients import checked, outside_inference_mode, recording, unchecked
from scorebook.lab.types import Field, Integer, LogDensity

__all__ = [
    "divergence",
    "explicit_score_matching_loss",
    "fisher_divergence",
    "implicit_score_matching_loss",
    "integrate_score",
    "score_of",
    "value_and_divergence",
]

# Numbers in one batch of gradients. On a CPU more would leave the cache and cost the time that batching saves; sooner
# where the graph is kept, since a later backward pass goes through everything again.
_NUMBERS_PER_PASS = {"cpu": 2**18}
_NUMBERS_PER_PASS_WITH_GRAPH = {"cpu": 2**17}
_NUMBERS_PER_PASS_ELSEWHERE = 2**24


@outside_inference_mode()
def score_of(log_prob: LogDensity, x: Tensor) -> Tensor:
    r"""Score of a density, the gradient of its logarithm with respect to the point.

    .. math:: s(x) = \nabla_x \log p(x) = \nabla_x f(x) \quad\text{for}\quad p = e^f / Z

    Args:
        log_prob: callable ``(B, *event) -> (B,)``, row by row. It need not be normalised.
        x: points, shape ``(B, *event)``.

    Returns:
        Scores, shape ``(B, *event)``, in inverse units of ``x``. Differentiable, in ``x`` and in the parameters of
        ``log_prob``; a plain tensor under ``torch.no_grad()`` or ``torch.inference_mode()``.

    Raises:
        ValueError: if ``log_prob`` returns another shape than ``(B,)``, hides from autograd how it depends on ``x``
            (:func:`scorebook.lab.gradients.checked`), or ``x`` is no batch of floating points.

    Source: Hyvärinen (2005), section 2.
    """
    batch("x", x)
    differentiable = torch.is_grad_enabled()
    with recording(x) as x:
        values = one_per_row("log_prob", checked("log_prob", log_prob, x), x)
    if not values.requires_grad:  # a constant
        return torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(
        values, x, torch.ones_like(values), create_graph=differentiable, allow_unused=True, materialize_grads=True
    )
    return gradient


def integrate_score(score: Field, x: Tensor, origin: Tensor, *, n_nodes: Integer = 64) -> Tensor:
    r"""Log-density at ``x`` less that at ``origin``, recovered from the score alone.

    .. math:: \log p(x) - \log p(o) = \int_0^1 s\big(o + u\,(x - o)\big) \cdot (x - o)\; du

    The integral runs along the straight segment, by Gauss and Legendre's rule. For a score any other path would give
    the same number; for a field that is no gradient the path matters, and there is no density to recover.

    Args:
        score: callable ``x -> tensor like x``.
        x: end points, shape ``(B, *event)``.
        origin: start points, shape ``(B, *event)``, or one for all, shape ``event``.
        n_nodes: evaluations of the score per segment. The rule is exact for polynomials of degree
            ``2 * n_nodes - 1``; a steep score needs more nodes.

    Returns:
        Differences in nats, shape ``(B,)``.

    Raises:
        ValueError: if the score returns another shape, ``origin`` does not fit ``x``, or ``n_nodes`` is no positive
            integer.
    """
    batch("x", x)
    positive_integer("n_nodes", n_nodes)
    floating("origin", origin)
    fits("origin", origin, x)
    origin = origin.to(x.dtype)
    way = x - origin
    total = x.new_zeros(len(x))
    nodes, weights = np.polynomial.legendre.leggauss(n_nodes)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        slope = same_shape("score", score(origin + 0.5 * (1 + node) * way), x)
        total = total + 0.5 * weight * sum_over_event(slope * way)
    return total


@one_read()
def fisher_divergence(
    score_p: Field, score_q: Field, x: Tensor, *, reduction: Literal["mean", "none"] = "mean"
) -> Tensor:
    r"""Fisher divergence of two laws, estimated from samples of the first.

    .. math:: F(p \,\|\, q) = E_{x \sim p} \lVert \nabla_x \log p(x) - \nabla_x \log q(x) \rVert^2

    Not symmetric, because ``x`` is drawn from ``p``, and not a pure number: it has the unit of ``x`` to the power -2.

    Args:
        score_p: callable ``x -> tensor like x``, score of the law that ``x`` was drawn from.
        score_q: callable ``x -> tensor like x``, score of the other law.
        x: samples of ``p``, shape ``(B, *event)``.
        reduction: ``"mean"``, or ``"none"`` for the terms of the mean, one per sample.

    Returns:
        A scalar, or shape ``(B,)``.

    Raises:
        ValueError: if a score returns another shape, ``x`` is empty or not finite, or ``reduction`` is unknown.

    Source: Hyvärinen (2005), section 2, where half of it is the objective.
    """
    _sample(x, reduction)
    gap = same_shape("score_p", score_p(x), x) - same_shape("score_q", score_q(x), x)
    return _reduced(sum_over_event(gap.square()), reduction)


@one_read()
def explicit_score_matching_loss(
    model: Field, x: Tensor, score: Field, *, reduction: Literal["mean", "none"] = "mean"
) -> Tensor:
    r"""Half the Fisher divergence from data to model, for data whose score is known.

    .. math:: J(\theta) = \tfrac12\, E_p \lVert s_\theta(x) - \nabla_x \log p(x) \rVert^2

    Args:
        model: callable ``x -> tensor like x``, the model's score.
        x: samples of the data's law, shape ``(B, *event)``.
        score: callable ``x -> tensor like x``, the true score.
        reduction: ``"mean"``, or ``"none"`` for the terms of the mean, one per sample.

    Returns:
        A scalar, or shape ``(B,)``.

    Raises:
        ValueError: if model or score returns another shape, ``x`` is empty or not finite, or ``reduction`` is unknown.

    Source: Hyvärinen (2005), section 2.
    """
    _sample(x, reduction)
    gap = same_shape("model", model(x), x) - same_shape("score", score(x), x)
    return _reduced(0.5 * sum_over_event(gap.square()), reduction)


@one_read()
@outside_inference_mode()
def implicit_score_matching_loss(
    model: Field, x: Tensor, *, chunk_size: Integer | None = None, reduction: Literal["mean", "none"] = "mean"
) -> Tensor:
    r"""Score matching from samples alone: the true score has been integrated away by parts.

    .. math:: J(\theta) = E_p\big[ \nabla \cdot s_\theta(x) + \tfrac12 \lVert s_\theta(x) \rVert^2 \big]

    It differs from :func:`explicit_score_matching_loss` by :math:`\tfrac12 E_p \lVert \nabla \log p \rVert^2`, which
    does not depend on the model, provided that :math:`p\, s_\theta \to 0` at every edge of the support. The trace keeps
    its sign: the loss is negative for any good model.

    Args:
        model: callable ``x -> tensor like x``, row by row, the model's score. It need not be a gradient.
        x: samples, shape ``(B, *event)``.
        chunk_size: see :func:`divergence`.
        reduction: ``"mean"``, or ``"none"`` for the terms of the mean, one per sample.

    Returns:
        A scalar, or shape ``(B,)``.

    Raises:
        ValueError: as :func:`divergence`, and if ``x`` is empty or not finite, or ``reduction`` is unknown.

    Source: Hyvärinen (2005), theorem 1.
    """
    _sample(x, reduction)
    value, trace = _value_and_divergence("model", model, x, chunk_size)
    return _reduced(trace + 0.5 * sum_over_event(value.square()), reduction)


@outside_inference_mode()
def divergence(field: Field, x: Tensor, *, chunk_size: Integer | None = None) -> Tensor:
    r"""Exact divergence of a vector field, the trace of its Jacobian.

    .. math:: \nabla \cdot s(x) = \sum_i \frac{\partial s_i}{\partial x_i}(x)

    It takes one vector-Jacobian product for each dimension. A backward pass carries several of them at once, which
    saves time, not work; where a field holds an operation that PyTorch cannot batch, each takes a pass of its own.

    Args:
        field: callable ``x -> tensor like x``, row by row; called once.
        x: points, shape ``(B, *event)``.
        chunk_size: dimensions per pass. Memory then holds one pass at a time, in training too: each pass is repeated
            when gradients flow back, for about half as much time again. By default as many as suit the device, and
            what the gradients need of every pass is kept.

    Returns:
        Divergence at each point, shape ``(B,)``. Differentiable, in ``x`` and in the parameters of the field; a plain
        tensor under ``torch.no_grad()`` or ``torch.inference_mode()``.

    Raises:
        ValueError: if the field returns another shape, hides from autograd how it depends on ``x``
            (:func:`scorebook.lab.gradients.checked`), ``x`` is no batch of floating points, or ``chunk_size`` is no
            positive integer.
    """
    return _value_and_divergence("field", field, x, chunk_size)[1]


@outside_inference_mode()
def value_and_divergence(
    field: Field, x: Tensor, *, chunk_size: Integer | None = None, check: bool = True
) -> tuple[Tensor, Tensor]:
    r"""The field and its divergence at the same points, from one call of the field.

    Args:
        field: as for :func:`divergence`.
        x: as for :func:`divergence`.
        chunk_size: as for :func:`divergence`.
        check: look for what the field hides from autograd; false for one that has been looked at.

    Returns:
        The field, shape ``(B, *event)``, and its divergence, shape ``(B,)``.

    Raises:
        ValueError: as :func:`divergence`.
    """
    return _value_and_divergence("field", field, x, chunk_size, check)


def _value_and_divergence(
    name: str, field: Field, x: Tensor, chunk_size: Integer | None, check: bool = True
) -> tuple[Tensor, Tensor]:
    batch("x", x)
    if chunk_size is not None:
        positive_integer("chunk_size", chunk_size)
    differentiable = torch.is_grad_enabled()
    with recording(x) as x:
        value = same_shape(name, checked(name, field, x) if check else unchecked(field, x), x)
    trace = x.new_zeros(len(x))
    if value.requires_grad:  # otherwise the field is constant
        n_dims = math.prod(x.shape[1:])
        step = chunk_size or _dimensions_per_pass(x)
        repeat = differentiable and chunk_size is not None and chunk_size < n_dims
        for first in range(0, n_dims, step):
            block = (value, x, first, min(first + step, n_dims))
            if repeat:
                trace = trace + checkpoint(_partial_trace, *block, use_reentrant=False, preserve_rng_state=False)
            else:
                trace = trace + _partial_trace(*block)
    return (value if differentiable else value.detach()), trace


def _partial_trace(value: Tensor, x: Tensor, first: int, last: int) -> Tensor:
    """Sum the diagonal entries ``first ... last - 1`` of the Jacobian of ``value`` at ``x``, row by row."""
    units = value.new_zeros(last - first, len(x), math.prod(x.shape[1:]))
    _diagonal(units, first, last).fill_(1)
    rows = _products(value, x, units.reshape(last - first, *x.shape))
    return x.new_zeros(len(x)) if rows is None else _diagonal(rows.reshape(units.shape), first, last).sum(-1)


def _products(value: Tensor, x: Tensor, directions: Tensor) -> Tensor | None:
    """Vector-Jacobian products of ``value`` at ``x`` with all directions, or ``None`` if ``x`` plays no part."""
    differentiable = torch.is_grad_enabled()
    # Written out as a graph, activations have batched derivatives that their fused backward kernels lack: faster even
    # where the graph is dropped at once. A few operations are the other way round, group norm among them.
    for graph in (True,) if differentiable else (True, False):
        if len(directions) > 1:
            try:
                rows = _gradients(value, x, directions, graph, is_grads_batched=True)
                return rows if rows is None or differentiable else rows.detach()
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                pass
    each = [_gradients(value, x, direction, differentiable) for direction in directions]
    found = [row for row in each if row is not None]
    return torch.stack(found) if found else None


def _gradients(value: Tensor, x: Tensor, direction: Tensor, graph: bool, **options: bool) -> Tensor | None:
    return torch.autograd.grad(
        value, x, direction, create_graph=graph, retain_graph=True, allow_unused=True, **options
    )[0]


def _diagonal(block: Tensor, first: int, last: int) -> Tensor:
    """View the entries ``[k, :, first + k]`` of a block of Jacobian rows, shape ``(B, last - first)``."""
    return block[:, :, first:last].diagonal(dim1=0, dim2=2)


def _dimensions_per_pass(x: Tensor) -> int:
    budget = _NUMBERS_PER_PASS_WITH_GRAPH if torch.is_grad_enabled() else _NUMBERS_PER_PASS
    numbers = budget.get(x.device.type, _NUMBERS_PER_PASS_ELSEWHERE)
    return max(1, numbers // max(1, x.numel()))


def _reduced(terms: Tensor, reduction: str) -> Tensor:
    return terms.mean() if reduction == "mean" else terms


def _sample(x: Tensor, reduction: str) -> None:
    some_points("x", x)
    one_of("reduction", reduction, ("mean", "none"))
