"""Descriptions: the same for the same, in every process; another for whatever makes a difference."""

import copy
import functools
import os
import subprocess
import sys

import pytest
import torch
from small_run import seeded
from torch import nn

from scorebook import sde
from scorebook.lab.fingerprints import describe, difference, fingerprint

X = torch.randn(40, 3, generator=seeded())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.int64, torch.bool])
def test_a_fingerprint_sees_each_value_the_shape_and_the_type(dtype):
    x = (10 * X).to(dtype)
    other = x.clone()
    other[17, 1] = ~other[17, 1] if dtype == torch.bool else other[17, 1] + 1
    assert fingerprint(x) == fingerprint(x.clone()) == fingerprint(x.T.contiguous().T)
    assert len({fingerprint(t) for t in (x, other, x.T, x.reshape(-1), x[:39], x.to(torch.float64))}) == 6


def test_a_fingerprint_needs_no_plain_tensor():
    assert fingerprint(torch.zeros(0, 3)).startswith("float32 (0, 3) ")
    assert fingerprint(torch.eye(3).to_sparse()) == fingerprint(torch.eye(3))
    assert fingerprint(torch.empty(2, device="meta")) == "float32 (2,)"


SCALE, HELPER = 0.5, {"power": 2}


def by_scale(model, x, *, power=2):
    return SCALE * (model(x) ** power).mean()


def closure(scale):
    return lambda model, x: scale * model(x).mean()


class Weighted:
    def __init__(self, weight):
        self.weight, self.itself = weight, self

    def __call__(self, model, x):
        return self.weight * model(x).mean()

    def loss(self, model, x):
        return self(model, x)


def network(p=0.1, activation=nn.SiLU, eps=1e-5):
    return nn.Sequential(nn.Linear(3, 4), activation(), nn.Dropout(p), nn.LayerNorm(4, eps=eps), nn.Linear(4, 3))


DIFFERENT = {
    "a number that is enclosed": (closure(1.0), closure(2.0)),
    "an array that is enclosed": (closure(X), closure(X + 1)),
    "an attribute": (Weighted(1.0), Weighted(2.0)),
    "an attribute behind a method": (Weighted(1.0).loss, Weighted(2.0).loss),
    "a keyword of a partial": (functools.partial(by_scale, power=2), functools.partial(by_scale, power=4)),
    "an argument of a partial": (functools.partial(by_scale, 1), functools.partial(by_scale, 2)),
    "code": (lambda m, x: m(x).mean(), lambda m, x: m(x).sum()),
    "a constant": (lambda m, x: 2 * m(x), lambda m, x: 3 * m(x)),
    "a default": (lambda m, x=1: m, lambda m, x=2: m),
    "a default of a keyword": (lambda m, *, x=1: m, lambda m, *, x=2: m),
    "an SDE": (closure(sde.VPSDE()), closure(sde.VESDE())),
    "an argument of an SDE": (closure(sde.VPSDE()), closure(sde.VPSDE(beta_max=19))),
    "what a function of the package encloses": (
        sde.time_sampler(sde.VPSDE(), t_min=1e-3),
        sde.time_sampler(sde.VPSDE(), t_min=1e-2),
    ),
    "a rate": (network(), network(p=0.2)),
    "a class": (network(), network(activation=nn.ReLU)),
    "a precision": (network(), network(eps=1e-6)),
    "a module more": (network(), network().append(nn.Identity())),
    "a scale of the data": (sde.ScoreModel(network(), sde.VPSDE()), sde.ScoreModel(network(), sde.VPSDE(), 2.0)),
    "an item of a list": (closure([1, {"a": (2, 3)}]), closure([1, {"a": (2, 4)}])),
    "the length of a list": (closure([1]), closure([1, 2])),
    "a key": (closure({"a": 1}), closure({"b": 1})),
    "a set": (closure({"a", "b"}), closure({"a", "c"})),
    "a long text": (closure("a" * 300), closure("a" * 299 + "b")),
}


@pytest.mark.parametrize("kind", DIFFERENT)
def test_a_difference_is_seen_and_no_other(kind):
    one, other = DIFFERENT[kind]
    assert difference(describe("it", one), describe("it", copy.deepcopy(one))) is None
    differing = difference(describe("it", one), describe("it", other))
    assert differing.startswith("it")
    assert " was " in differing
    assert ", is " in differing


def test_a_global_name_is_followed(monkeypatch):
    before = describe("loss", by_scale)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 0.7)
    assert difference(before, describe("loss", by_scale)) == "loss.SCALE was 0.5, is 0.7"


def test_what_is_set_apart_has_no_line():
    model = network()
    enclosing = closure(model)
    assert any("eps" in path for path in describe("loss", enclosing))
    assert not any("eps" in path for path in describe("loss", enclosing, apart_from=model.modules()))


def test_a_tensor_is_read_again_only_if_it_was_written_to():
    read_before, holder = {}, Weighted(X.clone())
    first = describe("it", holder, read_before=read_before)
    assert describe("it", holder, read_before=read_before) == first
    holder.weight[3, 2] += 1
    assert "it.weight was float32 (40, 3)" in difference(first, describe("it", holder, read_before=read_before))


def test_another_process_describes_the_same():
    """Strings hash differently there, and all lies at other addresses."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_fingerprints as t; "
        "print({k: [t.describe('it', v) for v in pair] for k, pair in t.DIFFERENT.items()})"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code, os.path.dirname(__file__)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            encoding="utf-8",
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert said[0].count("VPSDE") > 3
