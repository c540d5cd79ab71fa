"""Calls of ``scorebook.lab.distributions`` on the meta device."""

import torch

from meta_device import generator, isotropic_mixture, mixture, points, rowwise_mixture, times

SINGLE = (mixture, isotropic_mixture)
OPERATOR = torch.empty(1, 2, device="meta")
OBSERVED = torch.empty(1, device="meta")

DRIVEN = {
    "GaussianMixture.condition": lambda: [
        law().condition(OPERATOR, OBSERVED, std) for law in SINGLE for std in (0.1, 0)
    ],
    "GaussianMixture.covariance": lambda: [law().covariance for law in SINGLE],
    "GaussianMixture.diffuse": lambda: [law().diffuse(a, s) for law in SINGLE for a, s in ((0.5, 0.5), (0.5, times()))],
    "GaussianMixture.log_prob": lambda: [law().log_prob(points()) for law in SINGLE],
    "GaussianMixture.mean": lambda: [law().mean for law in SINGLE],
    "GaussianMixture.responsibilities": lambda: [law().responsibilities(points()) for law in SINGLE],
    "GaussianMixture.sample": lambda: [law().sample(8, generator=generator(), labels=True) for law in SINGLE],
    "GaussianMixture.score": lambda: [law().score(points()) for law in SINGLE],
    "GaussianMixture.to": lambda: [law().to(torch.float64) for law in SINGLE],
    "RowwiseMixture.covariance": lambda: rowwise_mixture().covariance,
    "RowwiseMixture.diffuse": lambda: rowwise_mixture().diffuse(0.5, times()),
    "RowwiseMixture.log_prob": lambda: rowwise_mixture().log_prob(points()),
    "RowwiseMixture.mean": lambda: rowwise_mixture().mean,
    "RowwiseMixture.responsibilities": lambda: rowwise_mixture().responsibilities(points()),
    "RowwiseMixture.sample": lambda: rowwise_mixture().sample(8, generator=generator(), labels=True),
    "RowwiseMixture.score": lambda: rowwise_mixture().score(points()),
    "RowwiseMixture.to": lambda: rowwise_mixture().to(torch.float64),
}

NOT_DRIVEN = {
    f"{law}.{name}": "takes and returns no tensor"
    for law in ("GaussianMixture", "RowwiseMixture")
    for name in ("device", "dim", "dtype")
}
