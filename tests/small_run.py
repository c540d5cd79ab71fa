"""A training run of a second, which the tests of training stop in many ways; child processes import it too."""

import torch

from scorebook.lab.networks import TimeMLP
from scorebook.lab.training import fit


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


DATA = torch.randn(37, 2, generator=seeded(7)), torch.arange(37) % 3


def network(**kw):
    return TimeMLP(2, width=16, depth=1, n_classes=3, generator=seeded(1), **kw)


def denoising(model, x, label, *, generator):
    t = torch.rand(len(x), generator=generator)
    noise = torch.randn(x.shape, generator=generator)
    return (model(x + t[:, None] * noise, t, label=label) + noise).square().sum(1).mean()


def train(n_steps, *, model=None, loss=denoising, data=DATA, **kw):
    """Run the small problem and return the model, its history and the generator as it was left."""
    model, g = model or network(), seeded(2)
    settings = {"n_steps": n_steps, "batch_size": 8, "generator": g, "changed": "loss"}  # one loss interrupts, or not
    history = fit(model, loss, data, **(settings | kw))
    return model, history, g


class OneWeight(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))


class Interrupting:
    """The denoising loss, which at its n-th call does something else first."""

    def __init__(self, n, act):
        self.n, self.act, self.calls = n, act, 0

    def __call__(self, model, x, label, *, generator):
        self.calls += 1
        value = denoising(model, x, label, generator=generator)
        if self.calls == self.n:
            value = self.act(value) if self.act is not None else value
        return value


def assert_same_weights(one, other):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def assert_same_run(one, other):
    assert_same_weights(one[0], other[0])
    assert torch.equal(one[1].loss, other[1].loss)
    assert torch.equal(one[2].get_state(), other[2].get_state())
