"""The equipment of every chapter: known distributions, data, networks, training, metrics, pictures and tables."""

from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.networks import MLP, NoisyClassifier, TimeMLP, UNet, initialise
from scorebook.lab.plots import density, image_grid, samples, score_field, trajectories, use_style
from scorebook.lab.tables import Claim, claims, table
from scorebook.lab.training import History, fit
from scorebook.lab.widgets import explorer

__all__ = [
    "MLP",
    "Claim",
    "GaussianMixture",
    "History",
    "NoisyClassifier",
    "TimeMLP",
    "UNet",
    "claims",
    "density",
    "explorer",
    "fit",
    "image_grid",
    "initialise",
    "samples",
    "score_field",
    "table",
    "trajectories",
    "use_style",
]
