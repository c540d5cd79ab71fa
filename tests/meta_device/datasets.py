"""Calls of ``scorebook.lab.datasets`` on the meta device."""

from meta_device import points
from scorebook.lab import datasets

MADE = "takes no tensor: makes its points where the generator is, and the reader moves them"
READ = "takes no tensor: reads files"

DRIVEN = {"hue": lambda: datasets.hue(points(3, 8, 8))}

NOT_DRIVEN = {
    "checkerboard": MADE,
    "coloured_digits": READ,
    "digits": READ,
    "full_mnist": READ,
    "mnist": READ,
    "moons": MADE,
    "swiss_roll": MADE,
}
