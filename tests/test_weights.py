"""What of a model moves in a run: the average follows its formula, and what a checkpoint has fits the model or not."""

import pytest
import torch
from small_run import OneWeight, assert_same_run, seeded, train

from scorebook.lab import weights
from scorebook.lab.training import fit


class Noticing:
    """A noisy quadratic that notices the weight at each call."""

    def __init__(self):
        self.weights = []

    def __call__(self, model, x, *, generator):
        self.weights.append(model.weight.item())
        return (model.weight - 1 - torch.randn((), generator=generator, dtype=torch.float64)).square()


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
@pytest.mark.parametrize("n_steps", [1, 2, 60])
def test_the_average_is_the_formula(tmp_path, decay, n_steps):
    model, loss = OneWeight(), Noticing()
    fit(
        model,
        loss,
        torch.zeros(3, 1, dtype=torch.float64),
        n_steps=n_steps,
        lr=0.1,
        ema_decay=decay,
        generator=seeded(),
        checkpoint=tmp_path / "c.pt",
    )
    weights = [*loss.weights[1:], torch.load(tmp_path / "c.pt")["model"]["weight"].item()]
    mean = weights[0]
    for n, weight in enumerate(weights[1:], start=2):
        d = min(decay, n / (n + 9))
        mean = d * mean + (1 - d) * weight
    assert model.weight.item() == pytest.approx(mean, rel=1e-12)


def test_a_short_run_forgets_where_it_began():
    """After 100 steps the plain average of decay 0.999 would still weigh the first weights by 0.9."""

    def climbing(model, x):
        return -model.weight

    model = OneWeight()
    fit(model, climbing, torch.zeros(3, 1, dtype=torch.float64), n_steps=100, lr=0.01, generator=seeded())
    assert 0.85 < model.weight.item() < 1.0


def test_weights_that_were_caught_in_mid_update_are_not_written(tmp_path, monkeypatch):
    def interrupted(average, n):
        if n == 10:
            raise KeyboardInterrupt
        update(average, n)

    update = weights.Average.update
    monkeypatch.setattr(weights.Average, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(40, checkpoint=tmp_path / "c.pt", checkpoint_every=4)
    monkeypatch.undo()
    assert torch.load(tmp_path / "c.pt")["step"] == 8
    assert_same_run(train(40, checkpoint=tmp_path / "c.pt"), train(40))
