"""Modules and programs that ``fit`` has never seen: layers with a state of their own, and contexts around the call.

Whatever a module keeps, a run in parts equals an unbroken one, an interrupted step leaves no trace, and PyTorch's
global generators stay where they were.
"""

import copy
import math
import subprocess
import sys
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from small_run import seeded
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import update_bn

from scorebook.lab.training import fit

X = torch.randn(300, 2, generator=seeded(1))
Y = torch.stack([(3 * X[:, 0]).sin(), X[:, 0] * X[:, 1]], dim=1)


def square_error(model, x, y):
    return (model(x) - y).square().mean()


def train(model, n_steps, *, loss=square_error, data=(X, Y), **settings):
    defaults = {"n_steps": n_steps, "batch_size": 32, "lr": 0.01, "generator": seeded(2), "progress": False}
    return fit(model, loss, data, **(defaults | settings))


def perceptron(*inner, inputs=2):
    return nn.Sequential(nn.Linear(inputs, 16), nn.SiLU(), *inner, nn.Linear(16, 2))


# Layers with a state


class Around(nn.Module):
    """A perceptron with something beside it."""

    def __init__(self):
        super().__init__()
        self.inner = perceptron()

    def forward(self, x):
        return self.inner(x)


class KeepsActivation(Around):
    def forward(self, x):
        self.last = self.inner(x)
        return self.last


class DrawsGlobally(Around):
    def forward(self, x):
        return self.inner(x + 0.1 * torch.randn_like(x))


class DrawsItself(Around):
    def __init__(self):
        super().__init__()
        self.generator = seeded(9)

    def forward(self, x):
        return self.inner(x + 0.1 * torch.randn(x.shape, generator=self.generator))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.one, self.two, self.last = (
            nn.Linear(*sides) for sides in ((2, 16), (16, 16), (16, 16), (16, 2))
        )
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.last(self.two(self.one(self.first(x)).tanh()))


class TwoPrecisions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(2, 16), nn.Linear(16, 16).bfloat16(), nn.Linear(16, 2).double()

    def forward(self, x):
        return self.last(self.inner(self.first(x).tanh().bfloat16()).tanh().double()).float()


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 2, dtype=torch.complex64))
        self.register_buffer("mean", torch.zeros(2, dtype=torch.complex64))

    def forward(self, x):
        out = x.to(torch.complex64) @ self.weight
        self.mean.lerp_(out.detach().mean(0), 0.1)
        return out.abs() - self.mean.abs()


class SparseEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(8, 16, sparse=True), nn.Linear(18, 2)

    def forward(self, x):
        row = ((x[:, 0] > 0).long() * 4 + (x[:, 1] > 0).long()).clamp(max=7)
        return self.last(torch.cat([self.table(row), x], dim=1))


class Grows(Around):
    """A buffer that gets longer, one that is there from the first call on, and one that is no part of the state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(0, 2))
        self.register_buffer("scale", None)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.seen = torch.cat([self.seen, x[:1].detach()])
        self.scale = 1 + self.seen.square().mean().sqrt()
        self.calls += 1
        return self.inner(x / self.scale) + self.calls / 100


class Counts(Around):
    """An extra state that the course of training depends on."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x) / self.calls**0.1

    def get_extra_state(self):
        return {"calls": self.calls, "kind": ("linear", None), "table": torch.arange(3)}

    def set_extra_state(self, state):
        self.calls = state["calls"]


class StaysFrozen(Around):
    """Its norm stays in evaluation mode, however often it is told to train."""

    def __init__(self):
        super().__init__()
        self.inner.append(nn.BatchNorm1d(2))

    def train(self, mode=True):
        super().train(mode)
        self.inner[-1].eval()
        return self


class OwnStatistics(Around):
    """Statistics under names of its own, beside constants that cannot be written to or are infinite."""

    def __init__(self):
        super().__init__()
        self.register_buffer("power", torch.ones(2))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.register_buffer("wide", torch.ones(1).expand(3))

    def forward(self, x):
        if self.training:
            self.power.lerp_(x.detach().square().mean(0), 0.1)
        return self.inner(x / self.power.sqrt()) + self.mask.exp()


def hooked():
    model = perceptron()
    model[0].register_forward_hook(lambda module, inputs, output: output * 1.5)
    model[0].weight.register_hook(lambda gradient: gradient / 2)
    model[2].register_full_backward_hook(lambda module, gradients, of_output: None)
    return model


MODULES = {
    "dropout": lambda: perceptron(nn.Dropout(0.3)),
    "two dropouts": lambda: perceptron(nn.AlphaDropout(0.1), nn.Dropout(0.2), nn.RReLU()),
    "global draws": DrawsGlobally,
    "its own generator": DrawsItself,
    "BatchNorm": lambda: perceptron(nn.BatchNorm1d(16)),
    "BatchNorm by count": lambda: perceptron(nn.BatchNorm1d(16, momentum=None)),
    "its own statistics": OwnStatistics,
    "a norm that stays frozen": StaysFrozen,
    "weight norm": lambda: perceptron(parametrizations.weight_norm(nn.Linear(16, 16))),
    "old weight norm": lambda: perceptron(old(nn.utils.weight_norm)),
    "spectral norm": lambda: perceptron(parametrizations.spectral_norm(nn.Linear(16, 16))),
    "old spectral norm": lambda: perceptron(nn.utils.spectral_norm(nn.Linear(16, 16))),
    "orthogonal": lambda: perceptron(parametrizations.orthogonal(nn.Linear(16, 16))),
    "a kept activation": KeepsActivation,
    "tied weights": Tied,
    "two precisions": TwoPrecisions,
    "complex": Complex,
    "sparse embedding": SparseEmbedding,
    "hooks": hooked,
    "buffers that come and grow": Grows,
    "extra state": Counts,
}


def old(norm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return norm(nn.Linear(16, 16))


def made(name):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return MODULES[name]()


def entries(model):
    """All that a module consists of, by name."""
    held = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    held |= dict(model.named_buffers())
    return held | {"calls": torch.as_tensor(getattr(model, "calls", 0))}


def assert_same(one, other):
    assert entries(one).keys() == entries(other).keys()
    for name, value in entries(one).items():
        assert torch.equal(value, entries(other)[name]), name


@pytest.mark.parametrize("ema_decay", [None, 0.9], ids=["last", "averaged"])
@pytest.mark.parametrize("name", MODULES)
def test_a_run_in_parts_equals_an_unbroken_one(tmp_path, name, ema_decay):
    settings = {"ema_decay": ema_decay, "checkpoint": tmp_path / "c.pt"}
    whole, first, second = (made(name) for _ in range(3))
    history = train(whole, 16, ema_decay=ema_decay)
    train(first, 8, **settings)
    before = torch.get_rng_state()
    torch.rand(7)
    resumed = train(second, 16, **settings)
    torch.set_rng_state(before)
    assert torch.equal(history.loss, resumed.loss)
    assert_same(whole, second)


class Breaks:
    """The loss, whose n-th call is cut off once the model has been called."""

    def __init__(self, n, error=None):
        self.left, self.error = n, error

    def __call__(self, model, x, y):
        value = square_error(model, x, y)
        self.left -= 1
        if self.left == 0:
            if self.error is None:
                return value * math.nan
            raise self.error
        return value


@pytest.mark.parametrize("error", [None, KeyboardInterrupt()], ids=["not finite", "interrupted"])
@pytest.mark.parametrize("ema_decay", [None, 0.9], ids=["last", "averaged"])
@pytest.mark.parametrize("name", [name for name in MODULES if name != "extra state"])
def test_a_step_that_breaks_off_leaves_no_trace(tmp_path, name, ema_decay, error):
    model, until_then = made(name), made(name)
    settings = {"ema_decay": ema_decay, "checkpoint": tmp_path / "c.pt", "checkpoint_every": 4, "changed": "loss"}
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        train(model, 12, loss=Breaks(7, error), **settings)
    train(until_then, 6, ema_decay=ema_decay)
    for one, other in zip(model.parameters(), until_then.parameters(), strict=True):
        assert torch.equal(one, other)
    if not (ema_decay and name.startswith("BatchNorm")):  # whose statistics are taken anew at the end
        assert_same(model, until_then)
    whole, resumed = made(name), made(name)
    train(whole, 12, ema_decay=ema_decay)
    train(resumed, 12, **settings)
    assert_same(whole, resumed)


@pytest.mark.parametrize("name", MODULES)
def test_the_global_generator_is_left_alone(name):
    model, before = made(name), torch.get_rng_state()
    train(model, 3)
    assert torch.equal(before, torch.get_rng_state())


def test_each_step_draws_anew_and_as_the_generator_says():
    """The loss draws nothing, so that the generator moves once an epoch only."""
    masks = {0: [], 1: [], 2: []}
    for k, seed in enumerate((2, 2, 3)):
        model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
        model[1].register_forward_hook(lambda m, i, output, k=k: masks[k].append((output == 0).flatten()))
        train(model, 20, batch_size=100, data=(X, Y), generator=seeded(seed))
    first, again, other = (torch.stack(masks[k]) for k in range(3))
    assert torch.equal(first, again)
    assert len(first.unique(dim=0)) == 20
    assert not (first == other).all(dim=1).any()
    assert abs(first.float().mean() - 0.5) < 4 * 0.5 / first.numel() ** 0.5


def test_the_global_generator_itself_may_be_given():
    with torch.random.fork_rng():
        runs = []
        for _ in range(2):
            torch.manual_seed(4)
            model = perceptron(nn.Dropout(0.3))
            runs.append(train(model, 20, generator=torch.default_generator).loss)
        assert torch.equal(*runs)


# What the averaged model is


def test_statistics_belong_to_the_averaged_weights():
    """The loss is that with the statistics of all rows; those of the last weights make it larger."""

    def made_deeper():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return perceptron(nn.BatchNorm1d(16), nn.Linear(16, 16), nn.BatchNorm1d(16))

    averaged, last = made_deeper(), made_deeper()
    train(averaged, 600, batch_size=128)
    train(last, 600, batch_size=128, ema_decay=None)
    fresh, stale = copy.deepcopy(averaged), copy.deepcopy(averaged)
    update_bn([X], fresh)
    for buffer, of_last in zip(stale.buffers(), last.buffers(), strict=True):
        buffer.copy_(of_last)
    with torch.no_grad():
        ours, exact, mismatched = (square_error(model.eval(), X, Y).item() for model in (averaged, fresh, stale))
    assert ours == pytest.approx(exact, rel=0.15)
    assert mismatched > 1.5 * exact
    assert averaged[2].num_batches_tracked == last[2].num_batches_tracked == 600


@pytest.mark.parametrize("name", ["spectral norm", "old spectral norm"])
def test_a_spectral_norm_keeps_unit_vectors(name):
    model = made(name)
    train(model, 30)
    vectors = [b for n, b in model.named_buffers() if n.endswith(("_u", "_v"))]
    assert len(vectors) == 2
    for vector in vectors:
        assert vector.norm().item() == pytest.approx(1, abs=1e-5)


def test_what_is_constant_stays_as_it_is():
    model = made("its own statistics")
    train(model, 30)
    assert model.mask.tolist() == [0, -math.inf]
    assert model.wide.tolist() == [1, 1, 1]


class OneWeight(nn.Module):
    def __init__(self, dtype, start=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(start, dtype=dtype))
        self.register_buffer("copy", torch.tensor(start, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_an_average_does_not_stall_in_half_precision(dtype):
    """Adam climbs by lr each step, so that weight and average are known; a buffer that follows is averaged alike."""

    def climbing(model, x):
        model.copy.copy_(model.weight.detach())
        return -model.weight

    n, lr, decay = 500, 4e-3, 0.99
    last, averaged = OneWeight(dtype), OneWeight(dtype)
    train(last, n, loss=climbing, data=torch.zeros(1, 1, dtype=dtype), lr=lr, ema_decay=None)
    train(averaged, n, loss=climbing, data=torch.zeros(1, 1, dtype=dtype), lr=lr, ema_decay=decay)
    weights = lr * torch.arange(1, n + 1, dtype=torch.float64)
    mean = weights[0]
    for k, weight in enumerate(weights[1:], start=2):
        d = min(decay, k / (k + 9))
        mean = d * mean + (1 - d) * weight
    # Half a unit in the last place of what is kept, at each step of what is summed, and Adam's 1e-8 under its root.
    rounding = 2 * torch.finfo(dtype).eps + n * torch.finfo(torch.promote_types(dtype, torch.float32)).eps + 1e-6
    assert last.weight.item() == pytest.approx(2.0, abs=rounding)
    assert averaged.weight.item() == pytest.approx(mean.item(), abs=rounding)
    assert averaged.copy.item() == pytest.approx(mean.item() - lr, abs=rounding)


def in_precision(dtype):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return perceptron(nn.BatchNorm1d(16)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_learns_what_single_precision_learns(tmp_path, dtype):
    single, half, second = in_precision(torch.float32), in_precision(dtype), in_precision(dtype)
    data = X.to(dtype), Y.to(dtype)
    train(single, 300)
    history = train(half, 300, data=data)
    train(in_precision(dtype), 150, data=data, checkpoint=tmp_path / "c.pt")
    resumed = train(second, 300, data=data, checkpoint=tmp_path / "c.pt")
    assert torch.equal(history.loss, resumed.loss)
    assert_same(half, second)
    with torch.no_grad():
        ends = [square_error(model.float(), X, Y).item() for model in (single, half)]
    assert ends[1] == pytest.approx(ends[0], rel=0.1)


# Modes


def frozen():
    model = perceptron(nn.BatchNorm1d(16), nn.Linear(16, 16), nn.BatchNorm1d(16))
    model[2].running_mean.fill_(0.5)
    model[2].eval()
    return model


def test_a_frozen_layer_stays_in_evaluation_mode():
    modes = []
    model = frozen()
    model.register_forward_pre_hook(lambda module, inputs: modes.append([m.training for m in module]))
    train(model, 5)
    assert modes[:5] == [[True, True, False, True, True, True]] * 5
    assert model[2].running_mean.eq(0.5).all()
    assert model[4].running_mean.ne(0).all()
    assert not any(module.training for module in model.modules())


def test_a_model_that_was_trained_before_trains_as_a_whole():
    model = perceptron(nn.BatchNorm1d(16)).eval()
    train(model, 5)
    assert model[2].num_batches_tracked == 5


def test_a_checkpoint_remembers_which_layers_are_frozen(tmp_path):
    model = frozen()
    start = copy.deepcopy(model)
    train(model, 10, checkpoint=tmp_path / "c.pt")
    train(model, 20, checkpoint=tmp_path / "c.pt")  # the same object, in evaluation mode as a whole by now
    whole = copy.deepcopy(start)
    train(whole, 20)
    assert_same(model, whole)
    thawed = copy.deepcopy(start).train()
    with pytest.raises(ValueError, match=r"these modules in evaluation mode: \['2'\], not \[\]"):
        train(thawed, 20, checkpoint=tmp_path / "c.pt")
    assert thawed[2].training
    train(thawed, 30, checkpoint=tmp_path / "c.pt", changed="model")
    assert thawed[2].running_mean.ne(0.5).all()


def test_a_refusal_leaves_the_modes(tmp_path):
    (tmp_path / "c.pt").write_text("my thesis", encoding="utf-8")
    for model in (perceptron(), perceptron().eval(), frozen()):
        before = [module.training for module in model.modules()]
        with pytest.raises(ValueError, match="cannot be read"):
            train(model, 5, checkpoint=tmp_path / "c.pt")
        assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize(("n", "sizes"), [(129, [128 + 1]), (130, [128, 2]), (257, [128, 129])])
def test_a_row_alone_joins_the_batch_before_it(n, sizes):
    """A BatchNorm has no statistics of one row; without one, or with a frozen one, batches are as they were."""
    x = torch.randn(n, 2, generator=seeded())
    index = torch.arange(n)
    for model, expected in ((perceptron(nn.BatchNorm1d(16)), sizes), (perceptron(), [128] * (n // 128) + [n % 128])):
        seen = []

        def loss(model, x, index, seen=seen):
            seen.append(index)
            return model(x).square().mean()

        train(model, len(expected), loss=loss, data=(x, index), batch_size=128)
        epoch = seen[: len(expected)]  # after it the statistics are taken anew
        assert [len(rows) for rows in epoch] == expected
        assert torch.equal(torch.cat(epoch).sort().values, index)


@pytest.mark.parametrize(("n", "batch_size"), [(1, 128), (5, 1)])
def test_statistics_of_one_row_are_refused_by_name(n, batch_size):
    with pytest.raises(ValueError, match=rf"batch_size must give a BatchNorm .* two rows.* got 1, of {n} rows by"):
        train(perceptron(nn.BatchNorm1d(16)), 5, data=(X[:n], Y[:n]), batch_size=batch_size)


@pytest.mark.parametrize("layers", [[nn.LazyLinear(2)], [nn.Linear(2, 2), nn.LazyBatchNorm1d()]], ids=["first", "norm"])
def test_a_lazy_layer_is_refused_until_it_has_a_shape(layers):
    model = nn.Sequential(*layers)
    with pytest.raises(ValueError, match=r"model has a lazy layer, whose '\d\.\w+' has no shape yet: call the model"):
        train(model, 5)
    model(X)
    train(model, 5)


# Contexts around the call


def default_dtype(dtype):
    class Within:
        def __enter__(self):
            self.before = torch.get_default_dtype()
            torch.set_default_dtype(dtype)

        def __exit__(self, *exception):
            torch.set_default_dtype(self.before)

    return Within()


def deterministic():
    class Within:
        def __enter__(self):
            torch.use_deterministic_algorithms(True)

        def __exit__(self, *exception):
            torch.use_deterministic_algorithms(False)

    return Within()


class Errors(warnings.catch_warnings):
    def __enter__(self):
        super().__enter__()
        warnings.simplefilter("error")


CONTEXTS = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
    "float64 by default": lambda: default_dtype(torch.float64),
    "meta by default": lambda: torch.device("meta"),
    "deterministic": deterministic,
    "warnings are errors": Errors,
    "anomaly mode": lambda: torch.autograd.detect_anomaly(check_nan=True),
    "autocast, disabled": lambda: torch.autocast("cpu", enabled=False),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", ["two dropouts", "BatchNorm", "complex"])
def test_a_context_around_the_call_changes_nothing(tmp_path, name, context):
    plain, within = made(name), made(name)
    history = train(plain, 8)
    other = made(name)
    with CONTEXTS[context]():
        got = train(within, 8)
        train(other, 4, checkpoint=tmp_path / "c.pt")
        train(other, 8, checkpoint=tmp_path / "c.pt")
    assert got.loss.device.type == "cpu"
    assert not got.loss.is_inference()
    torch.testing.assert_close(got.loss.double(), history.loss.double(), rtol=1e-6, atol=0)
    assert_same(plain, within)
    assert_same(plain, other)


def test_data_that_were_made_in_inference_mode_are_taken():
    plain, within = made("BatchNorm"), made("BatchNorm")
    train(plain, 10)
    with torch.inference_mode():
        train(within, 10, data=(X.clone(), Y.clone()))
    assert_same(plain, within)


def test_a_model_that_was_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        model = perceptron()
        with pytest.raises(ValueError, match=r"model holds '0.weight', made within torch.inference_mode\(\)"):
            train(model, 5)
    train(copy.deepcopy(model), 5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inside", [False, True], ids=["around fit", "also in the loss"])
def test_autocast_around_the_call_trains_and_ruins_nothing(dtype, inside):
    """It keeps cast weights until its end: the course, the average and what comes after must not be made of those."""

    def loss(model, x, y):
        with torch.autocast("cpu", dtype) if inside else nullcontext():
            return square_error(model, x, y).float()

    plain, within = made("BatchNorm"), made("BatchNorm")
    train(plain, 400, ema_decay=0.95)
    with torch.autocast("cpu", dtype):
        within(X)  # casts the first weights
        history = train(within, 400, loss=loss, ema_decay=0.95)
        after = square_error(within, X, Y).item()
    with torch.no_grad():
        ends = [square_error(model, X, Y).item() for model in (plain, within)]
    assert ends[1] == pytest.approx(ends[0], rel=0.1)
    assert after == pytest.approx(ends[1], rel=0.05)
    assert history.loss[-50:].mean().item() == pytest.approx(ends[1], rel=0.3)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "BatchNorm"])
def test_no_cast_weights_outlive_those_that_were_averaged(norm):
    """Neither in what is computed after fit, within the same autocast, nor in the statistics taken at its end."""
    model = made("BatchNorm") if norm else perceptron()
    with torch.autocast("cpu", torch.bfloat16):
        train(model, 40, batch_size=300, ema_decay=0.99)
        after = model(X)
    again = copy.deepcopy(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(again(X), after)
        if norm:
            again.train()
            again[2].reset_running_stats()
            again[2].momentum = None
            again(X)
            # The rows came in another order, and that is all.
            torch.testing.assert_close(model[2].running_mean, again[2].running_mean, rtol=1e-4, atol=1e-5)


def test_a_python_for_which_warnings_are_errors_gives_the_same(tmp_path):
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); import test_foreign_modules as t; "
        "model = t.made('dropout'); t.train(model, 20, checkpoint=sys.argv[2]); "
        "torch.save(model.state_dict(), sys.argv[3])"
    )
    folder = __file__.rpartition("/")[0]
    settings = [folder, str(tmp_path / "c.pt"), str(tmp_path / "weights.pt")]
    subprocess.run([sys.executable, "-W", "error", "-c", code, *settings], check=True)
    expected = made("dropout")
    train(expected, 20)
    for name, value in torch.load(tmp_path / "weights.pt").items():
        assert torch.equal(value, expected.state_dict()[name])


def test_numbers_of_numpy_are_numbers(tmp_path):
    plain = perceptron()
    other = copy.deepcopy(plain)
    settings = {"lr": 0.01, "clip": 1.0, "ema_decay": 0.9, "batch_size": 32, "checkpoint_every": 5}
    of_numpy = {k: np.float64(v) if isinstance(v, float) else np.int64(v) for k, v in settings.items()}
    history = train(plain, 20, **settings)
    got = train(other, np.int64(20), **of_numpy, max_seconds=np.float32(1e6), checkpoint=tmp_path / "c.pt")
    assert torch.equal(history.loss, got.loss)
    assert_same(plain, other)
    train(copy.deepcopy(other), 20, **settings, checkpoint=tmp_path / "c.pt")
