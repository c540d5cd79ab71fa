"""The surface of ``scorebook.lab.training``."""

import torch

from scorebook.lab import networks, training
from surface import PLANE, Call, Number, generator, labels, like, points


def fitted(x, label, lr):
    """Losses and weights of two steps."""
    model = like(networks.MLP(2, width=8, depth=1, out_dim=3, generator=generator()), x)

    def loss(model, x, label):
        return torch.nn.functional.cross_entropy(model(x), label.long())

    history = training.fit(model, loss, (x, label), n_steps=2, lr=lr, generator=generator(), progress=False)
    return [history.loss, *model.parameters()]


CALLS = {
    "fit": Call(
        fitted, x=points(name="data|x"), label=labels(name="data"), lr=Number(1e-3), events=PLANE, own_dtype=True
    )
}

NO_DATA = {"History": "holds the losses, of which fit lets none pass that is not finite"}
