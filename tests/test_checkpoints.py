"""What a checkpoint can keep, and reads as it was; what becomes of it on a disk is in test_faults."""

import copy

import pytest
import torch
from small_run import assert_same_run, assert_same_weights, network, train
from torch import nn

from scorebook.lab import checkpoints


@pytest.fixture
def path(tmp_path):
    return tmp_path / "c.pt"


class WithExtraState(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.inner, self._value = network(), value

    def forward(self, x, t, label=None):
        return self.inner(x, t, label=label)

    def get_extra_state(self):
        return self._value

    def set_extra_state(self, state):
        if type(state) is not type(self._value):
            raise TypeError(f"extra state must be a {type(self._value).__name__}, got a {type(state).__name__}")
        self._value = state


class Secret:
    pass


@pytest.mark.parametrize(
    "value", [3, "text", [1, (2.0, None)], {"a": torch.arange(3)}, torch.zeros(2, 2), b"bytes"], ids=str
)
def test_an_extra_state_of_plain_parts_is_kept(path, value):
    train(4, model=WithExtraState(value), checkpoint=path)
    resumed = train(8, model=WithExtraState(value), checkpoint=path)
    assert_same_run(resumed, train(8))
    assert str(resumed[0]._value) == str(value)


@pytest.mark.parametrize("value", [Secret(), {"a": [Secret()]}, lambda: 1], ids=["object", "nested", "lambda"])
def test_an_extra_state_that_could_not_be_read_is_not_written(path, value):
    with pytest.raises(ValueError, match="model: its extra state '_extra_state' cannot be kept in a checkpoint"):
        train(4, model=WithExtraState(value), checkpoint=path)
    assert not path.exists()


def test_a_module_that_refuses_an_extra_state_leaves_all_as_it_was(path):
    train(4, model=WithExtraState(3), checkpoint=path)
    model = WithExtraState("three")
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"another model: extra state must be a str, got a int; it is left"):
        train(8, model=model, checkpoint=path, changed="model")
    assert_same_weights(model, before)
    assert model._value == "three"


@pytest.mark.parametrize("value", [1, "a", None, [torch.ones(2)], {"a": (1, 2.0)}], ids=str)
def test_what_can_be_read_again_is_readable(value):
    checkpoints.readable("it", value)
