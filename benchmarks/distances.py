"""How far samples are from a law, and where its exact flow leads: the yardsticks of the benchmark of quality."""

import math

import torch
from torchdiffeq import odeint

__all__ = ["exact_flow", "root_mean_square", "sliced_wasserstein_to"]

N_DIRECTIONS = 64
_PRECISE = torch.float64


def sliced_wasserstein_to(law, n_samples, generator):
    """The sliced Wasserstein distance of order 1 of so many samples to the law, along directions that stay the same."""
    directions = torch.randn(law.dim, N_DIRECTIONS, generator=generator, dtype=_PRECISE)
    directions = directions / directions.norm(dim=0)
    quantiles = torch.stack([_quantiles(law, direction, n_samples) for direction in directions.T], dim=1)
    return lambda x: ((x.double() @ directions).sort(0).values - quantiles).abs().mean().item()


def root_mean_square(x, y) -> float:
    """The root mean square distance between two lists of points, row by row."""
    return (x - y).square().sum(1).mean().sqrt().item()


def _quantiles(law, direction, n) -> torch.Tensor:
    """Quantiles of the law along a direction, at the middle of each of ``n`` equal shares."""
    means = law.means @ direction
    if law.covariances.ndim == 1:
        stds = law.covariances.sqrt()
    else:
        stds = torch.einsum("i,kij,j->k", direction, law.covariances, direction).sqrt()
    x = torch.linspace((means - 6 * stds).min(), (means + 6 * stds).max(), 20_001, dtype=_PRECISE)
    shares = (law.weights * torch.special.ndtr((x[:, None] - means) / stds)).sum(1)
    wanted = (torch.arange(n, dtype=_PRECISE) + 0.5) / n
    right = torch.searchsorted(shares, wanted).clamp(1, len(x) - 1)
    left = right - 1
    return x[left] + (x[right] - x[left]) * (wanted - shares[left]) / (shares[right] - shares[left])


def exact_flow(law, start, high, low) -> torch.Tensor:
    """Where the flow leads from noise-to-signal ratio ``high`` to ``low``, in units of the data, by 120 steps of RK4.

    With ``y = x / sqrt(1 + r^2)`` and the angle ``arctan r`` for time it is smooth at both ends.
    """
    first, last = math.atan(high), math.atan(max(low, 1e-5))
    angles = torch.linspace(first, last, 121, dtype=_PRECISE)

    def rate(angle, y):
        r = torch.tan(angle).item()
        scale = math.sqrt(1 + r**2)
        return -r * (y + scale * law.diffuse(1.0, r).score(scale * y))

    return odeint(rate, start.double() * math.cos(first), angles, method="rk4")[-1] / math.cos(last)
