"""Why nothing of ``scorebook.lab.resumption`` takes data, and calls of it."""

from pathlib import Path

import torch

from scorebook.lab import batches, networks, resumption
from surface import Call, beforehand, generator

NO_DATA = {
    "Description": "tells values of any kind apart, NaN and infinity included",
    "of_today": "passes on what was read, whatever it holds",
}


@beforehand
def description():
    """Of a small network, a loss and a few rows."""
    model = networks.MLP(2, width=4, depth=1, generator=generator())
    return resumption.Description(model, square, batches.rows_of(torch.ones(4, 2), [torch.float32]))


def square(model, x):
    """A loss."""
    return model(x).square().mean()


def described():
    """Whether the same is known again, and which lines stay."""
    now = description()
    before = now.constant()
    now.go_on_from(before)
    lines = now.constant()
    return [now.has_other_data(before), now.has_other_data({}), sorted(lines), lines["model"]["model.layers.0.bias"]]


NAMES = ("Description", "Description.constant", "Description.go_on_from", "Description.has_other_data")
WITHOUT_DATA = {name: Call(described) for name in NAMES} | {
    "of_today": Call(lambda: resumption.of_today({"format": resumption.FORMAT, "step": 3}, Path("run.pt"))["step"])
}
