"""Calls of every public function on the ``meta`` device; one module here for each module of the package.

``DRIVEN`` maps the name of a public function, method or property (``"langevin"``, ``"VPSDE.perturb"``) to a call of it
with tensors like those below. ``NOT_DRIVEN`` maps a name, or a class for all that it has, to the reason why it cannot
meet tensors without values. A new public name needs a line in one of the two.
"""

import torch

from scorebook.lab.distributions import GaussianMixture


def points(*event):
    """Eight points on the meta device, of shape ``(2,)`` each by default."""
    return torch.empty(8, *(event or (2,)), device="meta")


def times():
    """One time for each of eight points."""
    return torch.empty(8, device="meta")


def labels():
    """One class for each of eight points."""
    return torch.zeros(8, dtype=torch.int64, device="meta")


def generator():
    """A generator on the CPU, where most readers make theirs; it has to serve every device."""
    return torch.Generator().manual_seed(0)


def score(x, *noise_level):
    """A score that any sampler can follow."""
    return -x


def log_prob(x):
    """The log-density to which that score belongs."""
    return -0.5 * x.flatten(1).square().sum(1)


def mixture():
    """A mixture of two Gaussians in the plane, with full covariances."""
    return GaussianMixture(*(torch.empty(shape, device="meta") for shape in ((2,), (2, 2), (2, 2, 2))))


def isotropic_mixture():
    """A mixture of two round Gaussians in the plane."""
    return GaussianMixture(*(torch.empty(shape, device="meta") for shape in ((2,), (2, 2), (2,))))


def rowwise_mixture():
    """A law of its own for each of eight points."""
    return mixture().diffuse(times(), times())
