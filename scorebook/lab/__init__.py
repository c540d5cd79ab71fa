"""The equipment of every chapter: known distributions, data, networks, training, metrics, pictures and tables."""

from scorebook.lab.plots import density, image_grid, samples, score_field, trajectories, use_style
from scorebook.lab.tables import Claim, claims, table
from scorebook.lab.widgets import explorer

__all__ = [
    "Claim",
    "claims",
    "density",
    "explorer",
    "image_grid",
    "samples",
    "score_field",
    "table",
    "trajectories",
    "use_style",
]
