"""Why nothing of ``scorebook.lab.checkpoints`` takes data, and calls of it."""

import tempfile
from pathlib import Path

import torch

from scorebook.lab import checkpoints
from surface import Call, beforehand

CARRIED = "carries tensors to a file and back as they are, whatever they hold"

NO_DATA = {
    "HeldInterrupt": "holds signals",
    "clear_leftovers": "takes a path",
    "read": CARRIED,
    "readable": CARRIED,
    "usable_path": "takes a path",
    "write": CARRIED,
}


@beforehand
def weights():
    """Something to keep."""
    return torch.linspace(-1, 1, 5)


def by_way_of_a_file():
    """What was written, as it is read."""
    with tempfile.TemporaryDirectory() as folder:
        path = checkpoints.usable_path(Path(folder) / "run.pt")
        state = {"format": "a run", "step": 3, "weights": weights()}
        checkpoints.write(state, path)
        checkpoints.clear_leftovers(path)
        return checkpoints.read(path, {"a run": state.keys()})


def interrupted(deliver):
    """Whether an interrupt came."""
    with checkpoints.HeldInterrupt() as interrupt:
        if deliver:
            interrupt.deliver()
        return interrupt.came


WITHOUT_DATA = {
    "HeldInterrupt": Call(lambda: interrupted(False)),
    "HeldInterrupt.deliver": Call(lambda: interrupted(True)),
    "clear_leftovers": Call(by_way_of_a_file),
    "read": Call(by_way_of_a_file),
    "readable": Call(lambda: checkpoints.readable("weights", weights())),
    "usable_path": Call(lambda: checkpoints.usable_path("run.pt").name),
    "write": Call(by_way_of_a_file),
}
