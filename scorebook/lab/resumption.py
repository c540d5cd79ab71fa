"""What a checkpoint of a training run holds, and whether a run may go on from it.

Beside the state it holds a description of what the run depends on, line by line (:mod:`scorebook.lab.fingerprints`), so
that a run with other data, another loss or another model is refused by the name of what differs.
"""

import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scorebook.lab.fingerprints import describe, difference
from scorebook.lab.types import Loss

__all__ = ["FORMAT", "PARTS", "Description", "of_today"]

FORMAT, _FIRST_FORMAT = "scorebook.lab.training, version 2", "scorebook.lab.training, version 1"
_PARTS_OF_FIRST = {"format", "settings", "step", "seconds", "losses", "model", "average", "optimizer", "order"}
_PARTS_OF_FIRST |= {"position", "generator", "generator_device"}
PARTS = {
    FORMAT: _PARTS_OF_FIRST | {"description", "schedule_begins", "precise", "keepsakes", "frozen", "trained"},
    _FIRST_FORMAT: _PARTS_OF_FIRST,
}
"""Names of the parts of a checkpoint, by its format."""


class Description:
    """What a run depends on beside its settings: the model, the loss and the data, line by line.

    Args:
        model: the module that is trained.
        loss: as :func:`~scorebook.lab.training.fit` takes it.
        data: rows, as :func:`scorebook.lab.batches.rows_of` makes them.

    Attributes:
        lines: of each of ``"model"``, ``"loss"`` and ``"data"`` what is at each path.
    """

    def __init__(self, model: nn.Module, loss: Loss, data: Any):
        self.model, self.loss, self.data = model, loss, data
        self.read_before: dict[int, tuple[Tensor, int, str]] = {}
        self.lines = self._of_now()
        self.lines["data"] = data.describe()

    def _of_now(self) -> dict[str, dict[str, str]]:
        tensors = [*self.model.parameters(), *self.model.buffers()]
        held = {f"model.{name}": f"{buffer.dtype} {tuple(buffer.shape)}" for name, buffer in self.model.named_buffers()}
        for name, parameter in self.model.named_parameters():
            held[f"model.{name}"] = "trained" if parameter.requires_grad else "not trained"
        known = [*self.model.modules(), *tensors, *self.data.tensors]
        return {
            "model": describe("model", self.model, apart_from=tensors, read_before=self.read_before) | held,
            "loss": describe("loss", self.loss, apart_from=known, read_before=self.read_before),
        }

    def has_other_data(self, written: dict[str, Any]) -> bool:
        """Whether a description that was read is of other data."""
        return difference(written.get("data", {}), self.lines["data"]) is not None

    def go_on_from(self, written: dict[str, Any]) -> None:
        """Leave out what has moved in the course of the run before."""
        for part, lines in self.lines.items():
            if part in written and difference(written[part], lines) is None:
                self.lines[part] = {path: line for path, line in lines.items() if path in written[part]}

    def constant(self) -> dict[str, dict[str, str]]:
        """What is as it was when the run began; the rest is no setting, but a part of the course."""
        now = self._of_now()
        return self.lines | {
            part: {path: line for path, line in self.lines[part].items() if lines.get(path) == line}
            for part, lines in now.items()
        }


def of_today(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """A state that was read, with what the first version did not hold.

    Args:
        state: parts of a checkpoint by name.
        path: where it was read, for the warning.

    Warns:
        UserWarning: if it is of the first version.
    """
    if state["format"] == FORMAT:
        return state
    warnings.warn(
        f"checkpoint {path} is one of {state['format']}, which does not say for which data, loss and attributes of the "
        "model it was written: they could not be compared, nor could the modes of its modules",
        stacklevel=2,
    )
    average = state["average"] or {}
    return state | {
        "description": {},
        "schedule_begins": 0,
        "precise": [],
        "average": {name.removeprefix("module."): mean for name, mean in average.items() if name != "n_averaged"},
        "keepsakes": {"buffers": {}, "generators": {}},
        "frozen": None,
        "trained": None,
    }
