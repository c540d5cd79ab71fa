"""The equipment of every chapter: known distributions, data, networks, training, metrics, pictures and tables."""

from scorebook.lab.devices import device
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.metrics import energy_distance, mode_weights, sliced_wasserstein
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
    "device",
    "energy_distance",
    "explorer",
    "fit",
    "image_grid",
    "initialise",
    "mode_weights",
    "samples",
    "score_field",
    "sliced_wasserstein",
    "table",
    "trajectories",
    "use_style",
]
