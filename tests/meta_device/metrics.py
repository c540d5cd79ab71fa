"""Calls of ``scorebook.lab.metrics`` on the meta device."""

import torch

from meta_device import generator, points
from scorebook.lab import metrics

DRIVEN = {
    "energy_distance": lambda: metrics.energy_distance(points(), points()),
    "mode_weights": lambda: metrics.mode_weights(points(), torch.empty(3, 2, device="meta")),
    "sliced_wasserstein": lambda: metrics.sliced_wasserstein(points(), points()[:5], generator=generator()),
}
