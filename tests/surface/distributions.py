"""The surface of ``scorebook.lab.distributions``."""

import torch

from scorebook.lab.distributions import GaussianMixture, RowwiseMixture
from surface import (
    COVARIANCES,
    MEANS,
    PLANE,
    WEIGHTS,
    Call,
    beforehand,
    constant,
    generator,
    isotropic_mixture,
    like,
    mixture,
    per_row,
    points,
)

FACTORS = per_row(0.2, 1.0)
PARAMETERS = {"weights": constant(WEIGHTS), "means": constant(MEANS)}
OBSERVATION = {"A": constant([[1.0, 0.5]]), "y": constant([0.3]), "noise_std": constant(0.2)}
PROPERTY = "takes none"


@beforehand
def rowwise(alpha, sigma):
    """A law for each row, in the precision of the factors."""
    return like(mixture(), alpha).diffuse(alpha, sigma)


def drawn(law):
    """One point from each law."""
    return law.sample(len(law.alpha), generator=generator())


def parts(law):
    """The tensors that a mixture is known by."""
    return law.weights, law.means, law.covariances, law.mean, law.covariance


def evaluated(law, x):
    """All that a law says of a point."""
    return law.log_prob(x), law.score(x), law.responsibilities(x)


CALLS = {
    "GaussianMixture": Call(
        lambda weights, means, covariances: parts(GaussianMixture(weights, means, covariances)),
        **PARAMETERS,
        covariances=constant(COVARIANCES),
        dtype_of="means",
    ),
    "GaussianMixture (isotropic)": Call(
        lambda weights, means, covariances: parts(GaussianMixture(weights, means, covariances)),
        **PARAMETERS,
        covariances=constant([0.5, 0.8]),
        dtype_of="means",
    ),
    "GaussianMixture.condition": Call(
        lambda A, y, noise_std: parts(like(mixture(), A).condition(A, y, noise_std)), **OBSERVATION
    ),
    "GaussianMixture.diffuse": Call(
        lambda alpha, sigma, x: evaluated(like(isotropic_mixture(), x).diffuse(alpha, sigma), x),
        alpha=FACTORS,
        sigma=FACTORS,
        x=points(),
        events=PLANE,
        by_row=True,
    ),
    "GaussianMixture.log_prob": Call(lambda x: mixture().log_prob(x), x=points(), events=PLANE, by_row=True),
    "GaussianMixture.responsibilities": Call(
        lambda x: mixture().responsibilities(x), x=points(), events=PLANE, by_row=True
    ),
    "GaussianMixture.score": Call(
        lambda x: (mixture().score(x), isotropic_mixture().score(x)), x=points(), events=PLANE, by_row=True
    ),
    "RowwiseMixture.covariance": Call(
        lambda alpha, sigma: rowwise(alpha, sigma).covariance, alpha=FACTORS, sigma=FACTORS, by_row=True
    ),
    "RowwiseMixture.diffuse": Call(
        lambda alpha, sigma, x: evaluated(rowwise(alpha, sigma).diffuse(alpha, sigma), x),
        alpha=FACTORS,
        sigma=FACTORS,
        x=points(),
        events=PLANE,
        by_row=True,
    ),
    "RowwiseMixture.log_prob": Call(
        lambda alpha, sigma, x: rowwise(alpha, sigma).log_prob(x),
        alpha=FACTORS,
        sigma=FACTORS,
        x=points(),
        events=PLANE,
        by_row=True,
    ),
    "RowwiseMixture.mean": Call(
        lambda alpha, sigma: rowwise(alpha, sigma).mean, alpha=FACTORS, sigma=FACTORS, by_row=True
    ),
    "RowwiseMixture.responsibilities": Call(
        lambda alpha, sigma, x: rowwise(alpha, sigma).responsibilities(x),
        alpha=FACTORS,
        sigma=FACTORS,
        x=points(),
        events=PLANE,
        by_row=True,
    ),
    "RowwiseMixture.sample": Call(
        lambda alpha, sigma: drawn(rowwise(alpha, sigma)),
        alpha=FACTORS,
        sigma=FACTORS,
        by_row=True,
        sampler=True,
    ),
    "RowwiseMixture.score": Call(
        lambda alpha, sigma, x: rowwise(alpha, sigma).score(x),
        alpha=FACTORS,
        sigma=FACTORS,
        x=points(),
        events=PLANE,
        by_row=True,
    ),
}

NO_DATA = {
    "GaussianMixture.covariance": PROPERTY,
    "GaussianMixture.device": PROPERTY,
    "GaussianMixture.dim": PROPERTY,
    "GaussianMixture.dtype": PROPERTY,
    "GaussianMixture.mean": PROPERTY,
    "GaussianMixture.sample": "takes a whole number",
    "GaussianMixture.to": "takes a device or a dtype",
    "RowwiseMixture": "made by GaussianMixture.diffuse, which checks what it is given",
    "RowwiseMixture.device": PROPERTY,
    "RowwiseMixture.dim": PROPERTY,
    "RowwiseMixture.dtype": PROPERTY,
    "RowwiseMixture.to": "takes a device or a dtype",
}

WITHOUT_DATA = {
    "GaussianMixture.covariance": Call(lambda: (mixture().covariance, isotropic_mixture().covariance)),
    "GaussianMixture.device": Call(lambda: mixture().device),
    "GaussianMixture.dim": Call(lambda: mixture().dim),
    "GaussianMixture.dtype": Call(lambda: mixture().dtype),
    "GaussianMixture.mean": Call(lambda: mixture().mean),
    "GaussianMixture.sample": Call(
        lambda: [law().sample(5, generator=generator(), labels=True) for law in (mixture, isotropic_mixture)]
    ),
    "GaussianMixture.to": Call(lambda: [parts(law().to(torch.float64)) for law in (mixture, isotropic_mixture)]),
    "RowwiseMixture": Call(
        lambda alpha, sigma, x: evaluated(RowwiseMixture(mixture(), alpha, sigma), x),
        alpha=FACTORS,
        sigma=FACTORS,
        x=points(),
        events=PLANE,
    ),
    "RowwiseMixture.device": Call(lambda: rowwise(0.5, [0.1, 0.2]).device),
    "RowwiseMixture.dim": Call(lambda: rowwise(0.5, [0.1, 0.2]).dim),
    "RowwiseMixture.dtype": Call(lambda: rowwise(0.5, [0.1, 0.2]).dtype),
    "RowwiseMixture.to": Call(lambda: rowwise(0.5, [0.1, 0.2]).to(torch.float64).covariance),
}
