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


def outside(x):
    """The same numbers, computed outside of inference mode."""
    with gradients.outside_inference_mode():
        return x.clone()


NO_DATA = {"outside_inference_mode": "takes nothing", "unchecked": "takes what has been checked"}

WITHOUT_DATA = {
    "outside_inference_mode": Call(outside, x=points()),
    "unchecked": Call(lambda x: gradients.unchecked(field, x), x=points()),
}
