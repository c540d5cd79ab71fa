"""Which run may go on from a checkpoint: it holds enough to know another by; what it is on a disk is in test_faults."""

import copy
import functools
import math
import warnings
from pathlib import Path

import pytest
import torch
from small_run import DATA, assert_same_run, assert_same_weights, denoising, network, seeded, train
from torch import nn

from scorebook import sde
from scorebook.lab.networks import TimeMLP
from scorebook.lab.training import fit


@pytest.fixture
def path(tmp_path):
    return tmp_path / "c.pt"


def as_the_first_version(path):
    """Rewrite a checkpoint as the first version of the package wrote it."""
    state = torch.load(path)
    for name in ("description", "schedule_begins", "precise", "keepsakes", "frozen", "trained"):
        del state[name]
    state["format"] = "scorebook.lab.training, version 1"
    if state["average"] is not None:
        means = {f"module.{name}": mean for name, mean in state["average"].items()}
        state["average"] = {"n_averaged": torch.tensor(state["step"])} | means
    torch.save(state, path)


@pytest.mark.parametrize("settings", [{}, {"ema_decay": None}, {"schedule": "cosine"}], ids=str)
def test_a_checkpoint_of_the_first_version_is_resumed_with_a_warning(path, settings):
    with pytest.raises(KeyboardInterrupt):
        train(20, loss=stopping(12), checkpoint=path, checkpoint_every=4, **settings)
    as_the_first_version(path)
    with pytest.warns(UserWarning, match=r"version 1, which does not say for which data, loss .* not be compared"):
        resumed = train(20, checkpoint=path, **settings)
    assert_same_run(resumed, train(20, **settings))
    assert torch.load(path)["format"] == "scorebook.lab.training, version 2"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(20, checkpoint=path, **settings)


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -0.5]))

    def forward(self, x, c_noise):
        return x * self.weight


def test_a_file_of_the_first_version_goes_on_to_where_that_version_would_have_gone(path):
    """The file holds its first ten steps; it took 25 in one run to the weights and losses that stand here."""

    def loss(model, x, *, generator):
        return sde.score_matching_loss(model, model.sde, x, generator=generator)

    path.write_bytes(Path(__file__).with_name("first_version.checkpoint").read_bytes())
    model = sde.ScoreModel(Line(), sde.VPSDE(), 2.0)
    x = torch.linspace(-2, 2, 22).reshape(11, 2)
    with (
        pytest.warns(UserWarning, match="version 1, which does not say for which data, loss"),
        pytest.warns(UserWarning, match="could not be compared with VPSDE"),
    ):
        history = fit(model, loss, x, n_steps=25, batch_size=4, lr=0.01, generator=seeded(3), checkpoint=path)
    assert model.network.weight.tolist() == pytest.approx([0.3655736744403839, -0.4820092022418976], rel=1e-5)
    assert history.loss[-3:].tolist() == pytest.approx([0.6270958781, 0.2066960335, 0.3255422115], rel=1e-5)


def stopping(n):
    """The denoising loss, which is interrupted at its n-th call."""
    calls = []

    def loss(model, x, label, *, generator):
        calls.append(1)
        if len(calls) == n:
            raise KeyboardInterrupt
        return denoising(model, x, label, generator=generator)

    return loss


# Another run


def by_power(model, x, label, *, power=2, generator):
    t = torch.rand(len(x), generator=generator)
    return (model(x, t, label=label) + x).abs().pow(power).mean()


class Scaled(nn.Module):
    """A model with a number that is no weight."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.inner, self.scale = network(), scale

    def forward(self, x, t, label=None):
        return self.scale * self.inner(x, t, label=label)


def score_model(process=None, data_std=1.0):
    return sde.ScoreModel(network(), process or sde.VPSDE(), data_std)


def with_dropout(p):
    model = Scaled()
    model.inner.trunk.last = nn.Sequential(nn.Dropout(p), model.inner.trunk.last)
    return model


def nudged(number):
    """The same data but for one number of one row."""
    moved = [tensor.clone() for tensor in DATA]
    moved[number][5] += 1
    return tuple(moved)


def only_trained(*untrained):
    model = network()
    for name in untrained:
        model.get_parameter(name).requires_grad_(False)
    return model


class ByPower:
    """A loss with attributes as they are given."""

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def __call__(self, model, x, label, *, generator):
        return by_power(model, x, label, **vars(self), generator=generator)


INNER, OUTER = "trunk.blocks.0.inner.bias", "trunk.blocks.0.outer.bias"  # of the same shape


class Own(sde.VPSDE):
    """The same kernel under another name."""


OTHERS = [
    ("data", {"data": nudged(0)}, {}, r"another data \(data\[0\] was float32 \(37, 2\) \w+, is float32"),
    ("data", {"data": nudged(1)}, {}, r"another data \(data\[1\] was int64 \(37,\) \w+, is int64"),
    ("data", {"data": (DATA[0].flip(0), DATA[1])}, {}, r"another data \(data\[0\] was"),
    ("loss", {"loss": by_power}, {}, r"another loss \(loss was denoising, is by_power\)"),
    (
        "loss",
        {"loss": functools.partial(by_power, power=4)},
        {"loss": functools.partial(by_power, power=2)},
        r"another loss \(loss.keywords\['power'\] was 2, is 4\)",
    ),
    (
        "loss",
        {"loss": functools.partial(by_power, power=4)},
        {"loss": by_power},
        "loss was by_power, is by_power with 0 arguments, power",
    ),
    (
        "loss",
        {"loss": functools.partial(by_power)},
        {"loss": functools.partial(by_power, power=4)},
        "loss was by_power with 0 arguments, power, is by_power with 0 arguments",
    ),
    ("loss", {"loss": ByPower(power=4)}, {"loss": ByPower()}, "loss: attributes was none, is power"),
    ("loss", {"loss": ByPower()}, {"loss": ByPower(power=4)}, "loss: attributes was power, is none"),
    ("model", {"model": only_trained(INNER)}, {}, f"another model .model.{INNER} was trained, is not trained"),
    (
        "model",
        {"model": network()},
        {"model": only_trained(INNER)},
        f"another model .model.{INNER} was not trained, is trained",
    ),
    (
        "model",
        {"model": only_trained(OUTER)},
        {"model": only_trained(INNER)},
        f"another model .model.{INNER} was not trained, is trained",
    ),
    ("model", {"model": Scaled(2.0)}, {"model": Scaled(1.0)}, r"another model \(model.scale was 1.0, is 2.0\)"),
    ("model", {"model": with_dropout(0.5)}, {"model": with_dropout(0.1)}, r"another model \(model.*.p was 0.1, is 0.5"),
    (
        None,
        {"model": score_model(sde.VESDE())},
        {"model": score_model()},
        r"another model: sde is VESDE\(.*\), but the state belongs to VPSDE",
    ),
    (
        None,
        {"model": score_model(data_std=2.0)},
        {"model": score_model()},
        "another model: data_std is 2, but the state belongs to data_std=1",
    ),
    ("model", {"model": score_model(Own())}, {"model": score_model()}, "model.sde was VPSDE, is Own"),
]


@pytest.mark.parametrize(("what", "other", "own", "message"), OTHERS, ids=[f"{k}" for k in range(len(OTHERS))])
def test_a_checkpoint_of_another_run_is_refused(path, what, other, own, message):
    other, own = copy.deepcopy(other), copy.deepcopy(own)
    train(6, checkpoint=path, changed=(), **own)
    content = path.read_bytes()
    before = copy.deepcopy(other.get("model"))
    with pytest.raises(ValueError, match=message) as caught:
        train(12, checkpoint=path, changed=(), **(own | other))
    assert f"checkpoint {path} " in str(caught.value)
    assert what is None or f"changed=['{what}']" in str(caught.value)
    assert path.read_bytes() == content
    if before is not None:
        assert_same_weights(before, other["model"])
        assert other["model"].training


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"loss": functools.partial(by_power, power=4)},
        {"model": Scaled(2.0)},
        {"model": with_dropout(0.1)},
        {"model": score_model(sde.VESDE(), 2.0)},
    ],
    ids=["plain", "partial", "attribute", "dropout", "score model"],
)
def test_the_same_run_is_not_refused(path, own):
    whole = train(12, changed=(), **copy.deepcopy(own))
    train(6, checkpoint=path, changed=(), **copy.deepcopy(own))
    assert_same_run(train(12, checkpoint=path, changed=(), **copy.deepcopy(own)), whole)


def test_what_moves_in_the_course_of_a_run_is_no_setting(path):
    """Neither a count of calls nor a kept activation makes it another run, in one process or the next."""

    class Counting(Scaled):
        def __init__(self):
            super().__init__()
            self.calls, self.last = 0, None

        def forward(self, x, t, label=None):
            self.calls += 1
            self.last = super().forward(x, t, label)
            return self.last

    seen = []

    def loss(model, x, label, *, generator):
        seen.append(len(x))
        return denoising(model, x, label, generator=generator)

    model = Counting()
    train(6, model=model, loss=loss, checkpoint=path, changed=())
    train(12, model=model, loss=loss, checkpoint=path, changed=())
    seen.clear()
    resumed = train(18, model=Counting(), loss=loss, checkpoint=path, changed=())
    assert_same_run(resumed, train(18, model=Counting()))


def test_an_attribute_that_came_in_the_course_of_a_run_is_no_setting(path):
    """Not in the process where it came, which goes on twice, and not in the next one, where it is yet to come."""

    class Caching(Scaled):
        def forward(self, x, t, label=None):
            self.cache = torch.ones(3)
            return super().forward(x, t, label)

    model = Caching()
    for n_steps in (4, 8, 12):
        train(n_steps, model=model, checkpoint=path, changed=())
    assert_same_run(train(16, model=Caching(), checkpoint=path, changed=()), train(16))


# Going on with something else, on purpose


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", 0.01), ("batch_size", 16), ("clip", 0.1), ("clip", None), ("ema_decay", 0.5), ("schedule", "cosine")],
)
def test_a_setting_is_changed_by_its_name(path, name, value):
    """The part before is as it was; what follows is another run, which can be stopped and resumed like any other."""
    first, old = train(10, checkpoint=path), train(20)
    kept = path.read_bytes()
    with pytest.raises(ValueError, match=rf"say changed=\['{name}'\] to go on with the new"):
        train(20, checkpoint=path, **{name: value})
    others = [other for other in ("lr", "batch_size", "clip", "ema_decay", "schedule") if other != name]
    with pytest.raises(ValueError, match=f"was written with {name}="):
        train(20, checkpoint=path, **{name: value}, changed=others)
    whole = train(20, checkpoint=path, **{name: value}, changed=name)
    assert torch.equal(whole[1].loss[:10], first[1].loss)
    assert any(not torch.equal(a, b) for a, b in zip(whole[0].parameters(), old[0].parameters(), strict=True))
    path.write_bytes(kept)
    with pytest.raises(KeyboardInterrupt):
        train(20, loss=stopping(6), checkpoint=path, **{name: value}, changed=[name, "loss"])
    assert_same_run(train(20, checkpoint=path, **{name: value}), whole)


class Weighted:
    """The denoising loss, or so many times it."""

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def __call__(self, model, x, label, *, generator):
        return getattr(self, "weight", 1.0) * denoising(model, x, label, generator=generator)


def test_a_loss_that_was_changed_is_the_one_that_the_next_run_must_have(path):
    """Of the new one all is written down, and not only what the old one had too."""
    train(4, loss=Weighted(), checkpoint=path, changed=())
    train(8, loss=Weighted(weight=2.0), checkpoint=path, changed="loss")
    with pytest.raises(ValueError, match="was written for another loss"):
        train(12, loss=Weighted(weight=3.0), checkpoint=path, changed=())
    train(12, loss=Weighted(weight=2.0), checkpoint=path, changed=())


def test_the_average_can_be_given_up_and_taken_up(path):
    train(10, checkpoint=path)
    last = train(20, ema_decay=None)
    assert_same_weights(train(20, checkpoint=path, ema_decay=None, changed="ema_decay")[0], last[0])
    averaged = train(30, checkpoint=path, ema_decay=0.9, changed=["ema_decay"])
    assert averaged[1].n_steps == 30


def step_sizes(n_steps, **settings):
    from test_training import Watching

    with Watching() as watched:
        train(n_steps, lr=0.02, **settings)
    return watched.step_sizes


def cosine(n):
    return [0.01 * (1 + math.cos(math.pi * k / n)) for k in range(n)]


def test_training_longer_than_first_asked_begins_a_new_half_cosine(path):
    """From the step size that was asked for down to zero over what is left, also if it is stopped on the way."""
    assert step_sizes(10, schedule="cosine", checkpoint=path) == pytest.approx(cosine(10))
    with pytest.raises(ValueError, match="schedule='cosine over 10 steps', not 'cosine over 25 steps'"):
        step_sizes(25, schedule="cosine", checkpoint=path)
    options = {"schedule": "cosine", "checkpoint": path, "changed": ["schedule", "loss"]}
    with pytest.raises(KeyboardInterrupt):
        step_sizes(25, loss=stopping(6), **options)
    assert torch.load(path)["step"] == 15
    assert step_sizes(25, **options) == pytest.approx(cosine(15)[5:])


def test_a_constant_schedule_can_end_in_a_cosine(path):
    assert step_sizes(10, checkpoint=path) == [0.02] * 10
    assert step_sizes(14, checkpoint=path, schedule="cosine", changed="schedule") == pytest.approx(cosine(4))


@pytest.mark.parametrize("n", [37, 50])
def test_other_data_begin_a_new_epoch(path, n):
    def seeing(model, x, label, *, generator):
        seen.append(label)
        return denoising(model, x, label % 3, generator=generator)

    seen = []
    other = torch.randn(n, 2, generator=seeded(8)), torch.arange(n)
    train(7, loss=seeing, checkpoint=path)
    seen.clear()
    train(7 + math.ceil(n / 8), loss=seeing, data=other, checkpoint=path, changed=["data", "loss"])
    assert torch.equal(torch.cat(seen).sort().values, other[1])


def test_what_may_change_is_said_by_name():
    with pytest.raises(ValueError, match=r"changed must be one of 'batch_size', 'lr', .*, got 'learning_rate'"):
        train(5, changed="learning_rate")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_trained_can_be_changed_on_purpose(path, dtype):
    """Moments go by name: what is trained no more stays, what is trained anew starts, and the others go on as ever.

    Each weight has a loss of its own, so that it takes the course that it takes alone.
    """

    class Weights(nn.Module):
        def __init__(self, untrained=""):
            super().__init__()
            for name in "abc":
                self.register_parameter(name, nn.Parameter(torch.ones(2, dtype=dtype), name not in untrained))

    def quartic(model, x):
        return sum(w.float().pow(4).sum() * k for k, w in enumerate(model.parameters(), start=1))

    def go(model, n_steps, **options):
        x = torch.zeros(4, 1, dtype=dtype)
        options = {"lr": 0.05, "clip": None, "ema_decay": None, "progress": False} | options
        fit(model, quartic, x, n_steps=n_steps, generator=seeded(), **options)
        return model

    alone, short = go(Weights(), 20), go(Weights(), 10)
    begun = go(Weights("a"), 10, checkpoint=path)
    assert torch.equal(begun.c, short.c)
    resumed = go(Weights("b"), 20, checkpoint=path, changed="model")
    assert torch.equal(resumed.c, alone.c)
    assert torch.equal(resumed.b, short.b)
    assert torch.equal(resumed.a, short.a)  # its first ten steps


def test_a_first_version_of_other_trained_weights_is_refused(path):
    train(6, checkpoint=path)
    as_the_first_version(path)
    model = only_trained(INNER)
    before = copy.deepcopy(model)
    with (
        pytest.warns(UserWarning, match="version 1"),
        pytest.raises(ValueError, match=r"another model \(it trained 19 parameters, not 18"),
    ):
        train(12, model=model, checkpoint=path)
    assert_same_weights(model, before)


def test_a_model_of_other_weights_is_refused_whatever_is_said(path):
    train(4, checkpoint=path)
    wider = TimeMLP(2, width=24, depth=1, n_classes=3)
    with pytest.raises(ValueError, match=r"belongs to another model \(first difference: trunk"):
        train(8, model=wider, checkpoint=path, changed=["model", "loss", "data"])


@pytest.mark.parametrize("length", [4, 7])
def test_a_buffer_of_another_length_makes_another_model(path, length):
    class Grid(Scaled):
        def __init__(self, n):
            super().__init__()
            self.register_buffer("grid", torch.linspace(0, 1, n))

    fit_options = {"n_steps": 3, "batch_size": 8, "checkpoint": path}
    fit(Grid(5), denoising, DATA, generator=seeded(), **fit_options)
    with pytest.raises(ValueError, match=rf"model.grid was torch.float32 \(5,\), is torch.float32 \({length},\)"):
        fit(Grid(length), denoising, DATA, generator=seeded(), **fit_options)
