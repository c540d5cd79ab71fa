"""Calls of ``scorebook.lab.calls`` on the meta device."""

import torch

from meta_device import points, times
from scorebook.lab import calls

DRIVEN = {
    "at": lambda: calls.at(lambda x, t: t * x, points(), torch.tensor(0.5)),
    "time_per_row": lambda: [calls.time_per_row(t, points()) for t in (0.5, torch.tensor(0.5), times())],
}

NOT_DRIVEN = {
    "layers": "takes a callable",
    "one_time_for_all": "takes a function",
    "takes_one_time": "takes a callable",
}
