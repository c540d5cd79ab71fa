"""Calls of ``scorebook.lab.diagnostics`` on the meta device."""

import torch

from meta_device import generator, points
from scorebook.lab import diagnostics


def draws():
    return torch.empty(7, *points().shape, device="meta")


DRIVEN = {
    "calibration": lambda: diagnostics.calibration(draws(), points()),
    "copying": lambda: diagnostics.copying(points(), points(), points()),
    "coverage": lambda: diagnostics.coverage(draws(), points()),
    "covered": lambda: diagnostics.covered(draws(), points()),
    "nearest": lambda: diagnostics.nearest(points(), points()),
    "same_kind": lambda: diagnostics.same_kind(points(), points()),
    "told_apart": lambda: diagnostics.told_apart(points(), points(), generator=generator()),
}
