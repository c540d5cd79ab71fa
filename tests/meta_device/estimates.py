"""Calls of ``scorebook.lab.estimates`` on the meta device."""

from meta_device import points
from scorebook.lab import estimates

DRIVEN = {
    "Estimate.interval": lambda: estimates.mean_of(points()).interval(),
    "mean_of": lambda: estimates.mean_of(points()),
    "standard_error": lambda: estimates.standard_error(points(), 3),
}
