"""How a loss is called: whatever arguments are bound, it is the same loss."""

import functools

import pytest
import torch
from small_run import seeded

from scorebook import lab, sde


def test_a_loss_of_which_what_stands_between_model_and_data_is_bound_is_that_loss():
    process, data = sde.VPSDE(), torch.randn(64, 2, generator=seeded())
    labels = torch.arange(64) % 3

    def trained(loss, data):
        model = sde.ScoreModel(lab.TimeMLP(2, width=8, depth=1, n_classes=3, generator=seeded()), process)
        history = lab.fit(model, loss, data, n_steps=3, batch_size=32, generator=seeded(), progress=False)
        return history.loss, lab.held_out_loss(model, loss, data, generator=seeded())

    def written_out(model, x, labels=None, *, generator):
        return sde.score_matching_loss(model, process, x, labels=labels, generator=generator)

    bound = functools.partial(sde.score_matching_loss, sde=process)
    for given in (data, {"x": data, "labels": labels}):
        (losses, held_out), (expected, expected_held_out) = trained(bound, given), trained(written_out, given)
        assert torch.equal(losses, expected)
        assert held_out == expected_held_out
    with pytest.raises(ValueError, match="loss has places for x beside the model, but a batch of data has 2 parts"):
        trained(bound, (data, labels))


def test_a_partial_that_binds_nothing_in_between_is_called_as_ever():
    def loss(model, x, power, *, generator=None):
        return model(x).pow(power).mean()

    def trained(loss):
        model = lab.MLP(2, width=4, depth=1, generator=seeded())
        return lab.fit(model, loss, torch.ones(8, 2), n_steps=2, generator=seeded(), progress=False).loss

    expected = trained(lambda model, x: model(x).pow(2).mean())
    assert torch.equal(trained(functools.partial(loss, power=2)), expected)
    assert torch.equal(trained(functools.partial(functools.partial(loss), power=2)), expected)
