"""The equipment of every chapter: known distributions, data, networks, training, metrics, pictures and tables."""

from scorebook.lab.datasets import checkerboard, coloured_digits, digits, full_mnist, hue, mnist, moons, swiss_roll
from scorebook.lab.devices import device, use_one_thread
from scorebook.lab.diagnostics import calibration, copying, coverage, covered, nearest, same_kind, told_apart
from scorebook.lab.distributed import in_chunks, over_ranks, rank
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.live import live
from scorebook.lab.metrics import energy_distance, mode_weights, sliced_wasserstein
from scorebook.lab.networks import MLP, NoisyClassifier, TimeMLP, UNet, initialise
from scorebook.lab.plots import density, image_grid, samples, score_field, trajectories, use_style
from scorebook.lab.predictions import convert_prediction
from scorebook.lab.shipped import pretrained
from scorebook.lab.tables import Claim, claims, table
from scorebook.lab.training import History, fit, held_out_loss
from scorebook.lab.widgets import explorer

__all__ = [
    "MLP",
    "Claim",
    "GaussianMixture",
    "History",
    "NoisyClassifier",
    "TimeMLP",
    "UNet",
    "calibration",
    "checkerboard",
    "claims",
    "coloured_digits",
    "convert_prediction",
    "copying",
    "coverage",
    "covered",
    "density",
    "device",
    "digits",
    "energy_distance",
    "explorer",
    "fit",
    "full_mnist",
    "held_out_loss",
    "hue",
    "image_grid",
    "in_chunks",
    "initialise",
    "live",
    "mnist",
    "mode_weights",
    "moons",
    "nearest",
    "over_ranks",
    "pretrained",
    "rank",
    "same_kind",
    "samples",
    "score_field",
    "sliced_wasserstein",
    "swiss_roll",
    "table",
    "told_apart",
    "trajectories",
    "use_one_thread",
    "use_style",
]
