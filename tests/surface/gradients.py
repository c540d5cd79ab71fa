"""The surface of ``scorebook.lab.gradients``."""

from scorebook.lab import gradients
from surface import Call, field, points


def value(x):
    """The value of a field, recorded for autograd and checked."""
    with gradients.recording(x) as inside:
        return gradients.checked("field", field, inside)


CALLS = {
    "checked": Call(value, x=points(), by_row=True),
    "recording": Call(value, x=points(), by_row=True),
}

NO_DATA = {"outside_inference_mode": "takes nothing"}
