"""Calls of ``scorebook.lab.networks`` on the meta device."""

from meta_device import generator, labels, points, times
from scorebook.lab import networks

DRIVEN = {
    "MLP.forward": lambda: [networks.MLP(2, out_dim=n).to("meta")(points()) for n in (None, 1, 3)],
    "NoisyClassifier.forward": lambda: networks.NoisyClassifier(2, 3).to("meta")(points(), times()),
    "TimeMLP.forward": lambda: [
        networks.TimeMLP(2, n_classes=3).to("meta")(points(), t, label)
        for t in (0.5, times())
        for label in (None, labels())
    ],
    "UNet.forward": lambda: [
        networks.UNet(1, n_classes=3).to("meta")(points(1, 6, 8), t, label)
        for t in (0.5, times())
        for label in (None, labels())
    ],
    "initialise": lambda: networks.initialise(networks.UNet(1).to("meta"), generator=generator()),
}
