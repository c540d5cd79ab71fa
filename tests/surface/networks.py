"""The surface of ``scorebook.lab.networks``."""

import copy

import torch

from scorebook.lab import networks
from surface import PLANE, Call, beforehand, generator, labels, like, per_row, points

TIMES = per_row(-1.0, 1.0)
SMALL = {"width": 8, "depth": 1, "generator": generator()}


MLP = networks.MLP(2, **SMALL)
NUMBERS = networks.MLP((), **SMALL)
CLASSIFIER = networks.NoisyClassifier(2, 3, **SMALL)
TIME_MLP = networks.TimeMLP(2, n_classes=3, **SMALL)
UNET = networks.UNet(1, width=8, n_classes=3, generator=generator())
for network in (CLASSIFIER, TIME_MLP):
    torch.nn.init.normal_(network.trunk.last.weight, generator=generator())
torch.nn.init.normal_(UNET.last.weight, generator=generator())


@beforehand
def fitting(network, x):
    """A copy of a network, in the precision of the points."""
    return like(copy.deepcopy(network), x)


def field(network):
    """The call of a network that knows times and labels."""
    return lambda x, t, label: fitting(network, x)(x, t, label)


CALLS = {
    "MLP.forward": Call(lambda x: fitting(MLP, x)(x), x=points(), events=PLANE, by_row=True),
    "MLP.forward (numbers)": Call(lambda x: fitting(NUMBERS, x)(x), x=points(), events=((),), by_row=True),
    "NoisyClassifier.forward": Call(
        lambda x, t: fitting(CLASSIFIER, x)(x, t), x=points(), t=TIMES, events=PLANE, by_row=True
    ),
    "TimeMLP.forward": Call(field(TIME_MLP), x=points(), t=TIMES, label=labels(), events=PLANE, by_row=True),
    "UNet.forward": Call(field(UNET), x=points(), t=TIMES, label=labels(), events=((1, 4, 5), (1, 4, 4)), by_row=True),
}

SIZES = "takes whole numbers"
NO_DATA = {
    "MLP": SIZES,
    "NoisyClassifier": SIZES,
    "TimeMLP": SIZES,
    "UNet": SIZES,
    "initialise": "takes a network",
}

WITHOUT_DATA = {
    "MLP": Call(lambda: networks.MLP(2, width=8, depth=1, generator=generator())),
    "NoisyClassifier": Call(lambda: networks.NoisyClassifier(2, 3, width=8, depth=1, generator=generator())),
    "TimeMLP": Call(lambda: networks.TimeMLP(2, width=8, depth=1, n_classes=3, generator=generator())),
    "UNet": Call(lambda: networks.UNet(1, width=8, n_classes=3, generator=generator())),
    "initialise": Call(lambda: networks.initialise(beforehand(copy.deepcopy)(MLP), generator=generator())),
}
