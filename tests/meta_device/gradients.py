"""Calls of ``scorebook.lab.gradients`` on the meta device."""

from meta_device import points, score
from scorebook.lab import gradients


def value():
    """The value of a score, recorded for autograd and checked."""
    with gradients.recording(points()) as inside:
        return gradients.checked("score", lambda x: score(x).detach(), inside)


DRIVEN = {
    "checked": value,
    "recording": value,
    "unchecked": lambda: gradients.unchecked(score, points()),
}
NOT_DRIVEN = {"outside_inference_mode": "takes nothing"}
