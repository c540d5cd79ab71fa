"""The surface of ``scorebook.lab.training``."""

import torch

from scorebook.lab import networks, training
from surface import PLANE, Call, Number, beforehand, generator, labels, like, points


@beforehand
def network(x):
    """A classifier, in the precision of the points."""
    return like(networks.MLP(2, width=8, depth=1, out_dim=3, generator=generator()), x)


def classification(model, x, label):
    """The loss of a classifier."""
    return torch.nn.functional.cross_entropy(model(x), label.long())


def fitted(x, label, lr):
    """Losses and weights of two steps."""
    model = network(x)
    history = training.fit(model, classification, (x, label), n_steps=2, lr=lr, generator=generator(), progress=False)
    return [history.loss, *model.parameters()]


def held_out(x, label):
    """A mean and its error, of batches of two."""
    found = training.held_out_loss(network(x), classification, (x, label), batch_size=2, generator=generator())
    return torch.tensor(found, device="cpu")


CALLS = {
    "fit": Call(
        fitted, x=points(name="data|x"), label=labels(name="data"), lr=Number(1e-3), events=PLANE, own_dtype=True
    ),
    "held_out_loss": Call(
        held_out,
        x=points(name="data|x"),
        label=labels(name="data"),
        events=PLANE,
        own_dtype=True,
    ),
}

NO_DATA = {"History": "holds the losses, of which fit lets none pass that is not finite"}


@beforehand
def history():
    """Three steps of a run."""
    return training.History(torch.tensor([3.0, 2.0, 1.0]), 0.5)


WITHOUT_DATA = {
    "History": Call(lambda: training.History(beforehand(torch.ones)(3), 0.5).loss),
    "History.n_steps": Call(lambda: history().n_steps),
    "History.smoothed": Call(lambda: history().smoothed(2)),
}
