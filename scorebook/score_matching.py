r"""Score matching: the gradient of a log-density, learned from samples."""

import torch
from torch import Tensor

from scorebook.lab.arguments import positive_integer, same_shape

__all__ = ["divergence"]


def divergence(field, x: Tensor, *, chunk_size: int | None = None) -> Tensor:
    r"""Exact divergence of a vector field, the trace of its Jacobian.

    .. math:: \nabla \cdot s(x) = \sum_i \frac{\partial s_i}{\partial x_i}(x)

    One backward pass carries ``chunk_size`` unit vectors at once (batched vector-Jacobian products).

    Args:
        field: callable ``x -> tensor like x``, row by row.
        x: points, shape ``(B, *event)``.
        chunk_size: dimensions per backward pass, which bounds the memory; all at once by default.

    Returns:
        Divergence at each point, shape ``(B,)``; differentiable.

    Raises:
        ValueError: if the field returns another shape, or ``chunk_size`` is no positive integer.
    """
    if chunk_size is not None:
        positive_integer("chunk_size", chunk_size)
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        output = same_shape("field", field(x), x)
        n_dims = x[0].numel()
        total = x.new_zeros(len(x))
        if not output.requires_grad:  # a constant field
            return total
        for start in range(0, n_dims, chunk_size or n_dims):
            columns = torch.arange(start, min(start + (chunk_size or n_dims), n_dims), device=x.device)
            units = x.new_zeros(len(columns), len(x), n_dims)
            units[torch.arange(len(columns)), :, columns] = 1.0
            (rows,) = torch.autograd.grad(
                output,
                x,
                units.reshape(len(columns), *x.shape),
                create_graph=True,
                is_grads_batched=True,
                allow_unused=True,
                materialize_grads=True,
            )
            diagonal = rows.reshape(len(columns), len(x), n_dims)[torch.arange(len(columns)), :, columns]
            total = total + diagonal.sum(0)
        return total
