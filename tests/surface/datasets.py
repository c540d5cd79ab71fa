"""The surface of ``scorebook.lab.datasets``."""

import sys
from types import SimpleNamespace
from unittest import mock

import torch

from scorebook.lab import datasets
from surface import Call, Number, beforehand, generator, points

READ = "takes a name"

CALLS = {
    "hue": Call(lambda images: datasets.hue(images), images=points(), events=((3, 4, 5), (3, 2, 2)), by_row=True),
    "moons": Call(lambda noise: datasets.moons(4, noise=noise, generator=generator()), noise=Number(0.1)),
    "swiss_roll": Call(lambda noise: datasets.swiss_roll(4, noise=noise, generator=generator()), noise=Number(0.1)),
}

NO_DATA = {
    "checkerboard": "takes a whole number",
    "coloured_digits": READ,
    "digits": READ,
    "full_mnist": READ,
    "mnist": READ,
}


def files():
    """Torchvision, with two images in its files."""
    data = torch.arange(2 * 28 * 28).remainder(256).to(torch.uint8).reshape(2, 28, 28)
    return SimpleNamespace(MNIST=lambda root, train, download: SimpleNamespace(data=data, targets=torch.arange(2)))


def full_mnist():
    """MNIST as it would be read, had it been downloaded."""
    made = beforehand(files)()
    with mock.patch.dict(sys.modules, {"torchvision": SimpleNamespace(datasets=made), "torchvision.datasets": made}):
        return datasets.full_mnist("nowhere")


WITHOUT_DATA = {
    "checkerboard": Call(lambda: datasets.checkerboard(4, generator=generator())),
    "coloured_digits": Call(lambda: datasets.coloured_digits("test")),
    "digits": Call(lambda: datasets.digits("test")),
    "full_mnist": Call(full_mnist),
    "mnist": Call(lambda: datasets.mnist("test")),
}
