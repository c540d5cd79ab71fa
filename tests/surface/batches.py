"""The surface of ``scorebook.lab.batches``."""

import torch

from scorebook.lab import batches
from surface import Call, labels, points

TYPES = [torch.float32, torch.float64]


def taken(x, label):
    """All rows, in a batch."""
    _, named = batches.rows_of({"x": x, "label": label}, TYPES).take(torch.arange(len(x), device="cpu"), "cpu")
    return [*named.values()]


CALLS = {"rows_of": Call(taken, x=points(name="data"), label=labels(name="data"), own_dtype=True)}

NO_DATA = {"GlobalDraws": "holds generators", "batch_size_of": "takes a whole number"}


def drawn():
    """What the global generators draw, and no sign that they did."""
    draws = batches.GlobalDraws()
    try:
        draws.seed(7)
        return torch.rand(3)
    finally:
        draws.put_back()


WITHOUT_DATA = {
    "GlobalDraws": Call(drawn),
    "GlobalDraws.seed": Call(drawn),
    "GlobalDraws.put_back": Call(drawn),
    "batch_size_of": Call(lambda x: batches.batch_size_of(x, None), x=points()),
}
