r"""Sliced score matching: the trace of the Jacobian from random directions."""

import torch
from torch import Tensor

from scorebook.lab.arguments import one_of, positive_integer, same_shape, standard_normal

__all__ = ["random_projections", "sliced_divergence"]


def random_projections(x: Tensor, n: int, *, kind: str = "rademacher", generator=None) -> Tensor:
    r"""Random directions with :math:`E[v v^T] = I`, so that :math:`E[v^T A v] = \mathrm{tr}\,A`.

    Args:
        x: points, shape ``(B, *event)``; gives shape, dtype and device.
        n: directions per point.
        kind: ``"rademacher"`` (random signs), ``"gaussian"``, or ``"sphere"`` (uniform, of norm :math:`\sqrt d`).
        generator: source of the directions.

    Returns:
        Directions, shape ``(n, B, *event)``.

    Raises:
        ValueError: for an unknown kind or ``n`` that is no positive integer.

    Source: Song et al. (2019), "Sliced score matching", section 3.
    """
    positive_integer("n", n)
    one_of("kind", kind, ("rademacher", "gaussian", "sphere"))
    v = standard_normal((n, *x.shape), generator=generator, dtype=x.dtype, device=x.device)
    if kind == "gaussian":
        return v
    if kind == "rademacher":
        return torch.where(v < 0, -torch.ones_like(v), torch.ones_like(v))
    flat = v.flatten(2)
    return (flat * (flat.shape[2] ** 0.5 / flat.norm(dim=2, keepdim=True))).reshape(v.shape)


def sliced_divergence(field, x: Tensor, v: Tensor) -> Tensor:
    r"""Divergence seen along one direction per point, :math:`v^T (\nabla s(x))\,v`, with one extra backward pass.

    .. math:: v^T \nabla s(x)\, v = v^T\, \nabla_x\!\left(v^T s(x)\right)

    Args:
        field: callable ``x -> tensor like x``, row by row.
        x: points, shape ``(B, *event)``.
        v: directions, the same shape.

    Returns:
        One number per point, shape ``(B,)``; differentiable. Its mean over random projections is the divergence.

    Raises:
        ValueError: if the field or ``v`` has another shape than ``x``.

    Source: Song et al. (2019), "Sliced score matching", eq. 8; Hutchinson (1990).
    """
    if v.shape != x.shape:
        raise ValueError(f"v must have shape {tuple(x.shape)} like x, got {tuple(v.shape)}")
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        output = same_shape("field", field(x), x)
        if not output.requires_grad:  # a constant field
            return x.new_zeros(len(x))
        (gradient,) = torch.autograd.grad(
            (output * v).sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
        )
        return (gradient * v).flatten(1).sum(1)
