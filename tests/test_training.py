"""Training: a run is one thing, however often it is stopped; what it cannot trust it refuses.

What happens to processes, disks and files meanwhile is in ``test_faults.py``.
"""

import math
import signal

import pytest
import torch
from small_run import (
    DATA,
    Interrupting,
    OneWeight,
    assert_same_run,
    assert_same_weights,
    denoising,
    network,
    seeded,
    train,
)
from torch.optim.optimizer import register_optimizer_step_pre_hook

from scorebook.lab.networks import TimeMLP, UNet
from scorebook.lab.training import History, fit
from scorebook.score_matching import implicit_score_matching_loss, score_of


def fail(value):
    raise ZeroDivisionError("the power went off")


def control_c(value):
    signal.raise_signal(signal.SIGINT)
    return value


def interrupt_in_loss(value):
    raise KeyboardInterrupt


@pytest.fixture
def own_interrupts():
    """Python's handler of Ctrl-C, which a process that was started in the background does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


# Stopping and going on


@pytest.mark.parametrize("first", [1, 13, 20, 25], ids="after {}".format)
@pytest.mark.parametrize("ema_decay", [None, 0.99])
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, ema_decay, first):
    unbroken = train(40, ema_decay=ema_decay)
    train(first, ema_decay=ema_decay, checkpoint=tmp_path / "c.pt")
    resumed = train(40, ema_decay=ema_decay, checkpoint=tmp_path / "c.pt")
    assert_same_run(resumed, unbroken)
    assert resumed[1].n_steps == 40


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, schedule):
    settings = {"schedule": schedule, "checkpoint": tmp_path / "c.pt", "checkpoint_every": 6}
    with pytest.raises(ZeroDivisionError):
        train(40, loss=Interrupting(23, fail), **settings)
    rest = Interrupting(0, None)
    resumed = train(40, loss=rest, **settings)
    assert rest.calls == 40 - 18
    assert_same_run(resumed, train(40, schedule=schedule))


@pytest.mark.usefixtures("own_interrupts")
@pytest.mark.parametrize(("act", "steps_kept"), [(control_c, 9), (interrupt_in_loss, 8)])
def test_control_c_leaves_a_model_and_a_checkpoint(tmp_path, act, steps_kept):
    model = network()
    with pytest.raises(KeyboardInterrupt):
        train(40, model=model, loss=Interrupting(9, act), checkpoint=tmp_path / "c.pt")
    until_then = train(steps_kept)
    assert_same_weights(model, until_then[0])
    assert torch.load(tmp_path / "c.pt")["step"] == steps_kept
    assert_same_run(train(40, checkpoint=tmp_path / "c.pt"), train(40))


@pytest.mark.usefixtures("own_interrupts")
def test_a_second_control_c_does_not_wait_for_the_step(tmp_path):
    loss = Interrupting(3, lambda value: control_c(control_c(value)) * pytest.fail("the step went on"))
    with pytest.raises(KeyboardInterrupt):
        train(40, loss=loss, checkpoint=tmp_path / "c.pt")
    assert_same_run(train(40, checkpoint=tmp_path / "c.pt"), train(40))


def test_a_foreign_interrupt_handler_is_left_alone():
    def own_handler(number, frame):
        seen.append(number)

    seen = []
    before = signal.signal(signal.SIGINT, own_handler)
    try:
        _, history, _ = train(10, loss=Interrupting(5, control_c))
        assert signal.getsignal(signal.SIGINT) is own_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
    assert history.n_steps == 10


def test_a_complete_run_is_read_and_not_repeated(tmp_path):
    complete = train(12, checkpoint=tmp_path / "c.pt")
    written = (tmp_path / "c.pt").read_bytes()
    again = train(12, loss=Interrupting(1, fail), checkpoint=tmp_path / "c.pt")
    assert_same_run(again, complete)
    assert again[1].seconds == complete[1].seconds
    assert (tmp_path / "c.pt").read_bytes() == written


def test_resume_false_begins_anew(tmp_path):
    train(12, lr=0.1, checkpoint=tmp_path / "c.pt")
    anew = train(12, checkpoint=tmp_path / "c.pt", resume=False)
    assert_same_run(anew, train(12))
    assert torch.load(tmp_path / "c.pt")["settings"]["lr"] == 1e-3


def test_a_run_out_of_time_stops_after_its_step_and_can_go_on(tmp_path):
    _, history, _ = train(40, max_seconds=1e-9, checkpoint=tmp_path / "c.pt")
    assert (history.n_steps, history.stopped_early) == (1, True)
    resumed = train(40, max_seconds=1e6, checkpoint=tmp_path / "c.pt")
    assert resumed[1].stopped_early is False
    assert resumed[1].seconds > history.seconds > 0
    assert_same_run(resumed, train(40))


# Checkpoints of other runs


def wider():
    return TimeMLP(2, width=24, depth=1, n_classes=3)


def deeper():
    return TimeMLP(2, width=16, depth=2, n_classes=3)


@pytest.mark.parametrize(
    ("message", "other"),
    [
        (r"belongs to another model \(first difference: trunk", {"model": wider}),
        (r"belongs to another model \(first difference: trunk.blocks.1", {"model": deeper}),
        ("was written with rows=37, not 36", {"data": (DATA[0][:36], DATA[1][:36])}),
        ("was written with batch_size=8, not 9", {"batch_size": 9}),
        ("was written with lr=0.001, not 0.002", {"lr": 2e-3}),
        ("was written with ema_decay=0.999, not None", {"ema_decay": None}),
        ("was written with clip=1.0, not None", {"clip": None}),
        ("was written with schedule='constant', not 'cosine over 40 steps'", {"schedule": "cosine"}),
        ("n_steps must be at least the 12 steps in", {"n_steps": 11}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path, message, other):
    path = tmp_path / "c.pt"
    train(12, checkpoint=path)
    content = path.read_bytes()
    if "model" in other:
        other = {"model": other["model"]()}
    with pytest.raises(ValueError, match=message) as caught:
        train(**({"n_steps": 40, "checkpoint": path} | other))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_a_cosine_schedule_is_resumed_to_the_same_end_only(tmp_path):
    train(12, schedule="cosine", checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match="schedule='cosine over 12 steps', not 'cosine over 40 steps'"):
        train(40, schedule="cosine", checkpoint=tmp_path / "c.pt")


def test_the_checkpoint_must_have_a_place(tmp_path):
    with pytest.raises(ValueError, match=r"folder that exists and can be written, got .*nowhere"):
        train(5, checkpoint=tmp_path / "nowhere" / "c.pt")
    with pytest.raises(ValueError, match="must be the path of a file, got the folder"):
        train(5, checkpoint=tmp_path)


# What the weights become


REGRESSION_X = torch.randn(64, 3, generator=seeded(4), dtype=torch.float64)
REGRESSION_Y = REGRESSION_X @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64)


def square_error(model, x, y):
    return (model(x) - y).square().mean()


@pytest.mark.parametrize(("batch_size", "noise"), [(64, 1.0), (1000, 1.0), (10, 0.0)])
def test_least_squares_reaches_the_closed_form(batch_size, noise):
    """Full batches end on the solution; so do minibatches, where there is no noise to disagree about."""
    y = REGRESSION_Y + noise * torch.randn(64, 1, generator=seeded(5), dtype=torch.float64)
    model = torch.nn.Linear(3, 1, bias=False).double()
    settings = {"lr": 0.05, "schedule": "cosine", "generator": seeded(), "batch_size": batch_size}
    fit(model, square_error, (REGRESSION_X, y), n_steps=500, **settings)
    exact = torch.linalg.lstsq(REGRESSION_X, y).solution.T
    torch.testing.assert_close(model.weight.detach(), exact, rtol=0, atol=1e-4)


class Watching:
    """Notes the norm of the gradient and the step size at each step of any optimiser."""

    def __enter__(self):
        self.norms, self.step_sizes = [], []
        self.handle = register_optimizer_step_pre_hook(self.note)
        return self

    def note(self, optimizer, args, kwargs):
        gradients = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
        self.norms.append(torch.cat(gradients).norm().item())
        self.step_sizes.append(optimizer.param_groups[0]["lr"])

    def __exit__(self, *exception):
        self.handle.remove()


@pytest.mark.parametrize("clip", [None, 1e9, 1.0, 0.01])
def test_the_gradient_is_clipped_as_a_whole(clip):
    """The first step has the same gradient in each case; it is as long as the limit, or as it was."""
    with Watching() as free:
        train(1, clip=None)
    with Watching() as watched:
        train(5, clip=clip)
    assert free.norms[0] > 1
    assert watched.norms[0] == pytest.approx(min(free.norms[0], clip or math.inf), rel=1e-5)
    assert max(watched.norms) <= (clip or math.inf) * 1.0001


def test_the_constant_schedule_is_constant_and_the_cosine_is_a_cosine():
    with Watching() as constant:
        train(10, lr=0.02)
    with Watching() as cosine:
        train(10, lr=0.02, schedule="cosine")
    assert constant.step_sizes == [0.02] * 10
    assert cosine.step_sizes == pytest.approx([0.01 * (1 + math.cos(math.pi * k / 10)) for k in range(10)])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, value):
    model, path = network(), tmp_path / "c.pt"
    _, until_then, _ = before = train(9)
    with pytest.raises(
        RuntimeError, match=r"the loss is not finite at step 10 .*Try a smaller lr than 0.001"
    ) as caught:
        train(40, model=model, loss=Interrupting(10, lambda v: v * value), checkpoint=path, checkpoint_every=4)
    assert f"last good loss {until_then.loss[-1]:.4g} at step 9" in str(caught.value)
    assert_same_weights(model, before[0])
    assert torch.load(path)["step"] == 8
    assert_same_run(train(40, checkpoint=path), train(40))


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_gradient_that_is_not_finite_stops_the_run_too(clip):
    """The square root of zero is finite and its slope is not."""

    def loss(model, x):
        return (model.weight - 1e-3 * x.mean()).square().sqrt()

    model = OneWeight()
    with pytest.raises(RuntimeError, match=r"the gradient of the loss is not finite at step 1 \(no step was good"):
        fit(model, loss, torch.zeros(3, 1, dtype=torch.float64), n_steps=5, clip=clip)
    assert model.weight.item() == 0


# Data and randomness


@pytest.mark.parametrize(("n", "batch_size"), [(37, 8), (32, 8), (5, 100), (1, 1)])
def test_each_epoch_takes_every_row_once_in_a_new_order(n, batch_size):
    seen = []

    def loss(model, x, index):
        assert torch.equal(x[:, 0].long(), index)
        seen.append(index)
        return model.weight * 1.0

    per_epoch = math.ceil(n / batch_size)
    rows = torch.arange(n)
    fit(
        OneWeight(),
        loss,
        [rows[:, None].double(), rows],
        n_steps=3 * per_epoch,
        batch_size=batch_size,
        generator=seeded(),
    )
    epochs = [torch.cat(seen[i * per_epoch : (i + 1) * per_epoch]) for i in range(3)]
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, rows)
    assert max(map(len, seen)) <= batch_size
    if n > 1:
        assert not torch.equal(epochs[0], epochs[1])
        assert not torch.equal(epochs[1], epochs[2])


def test_all_randomness_comes_from_the_generator():
    before = torch.get_rng_state()
    with torch.random.fork_rng():
        one = train(20)
        torch.manual_seed(99)
        other = train(20)
    assert torch.equal(before, torch.get_rng_state())
    assert_same_run(one, other)
    assert not torch.equal(train(20, generator=seeded(3))[1].loss, one[1].loss)


def test_a_given_generator_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    train(5)
    assert torch.equal(before, torch.get_rng_state())


def test_without_a_generator_the_global_seed_decides():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one = train(5, generator=None)[1].loss
        torch.manual_seed(0)
        again = train(5, generator=None)[1].loss
        other = train(5, generator=None)[1].loss
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_training_learns_what_a_label_means():
    """Each class sits at its own point; without a label the best guess is their mean."""
    places = torch.tensor([[-1.0, 0.0], [0.0, 1.0], [1.0, -1.0]])
    label = torch.arange(300) % 3

    def recover(model, x, label, *, generator):
        hidden = torch.where(torch.rand(len(x), generator=generator) < 0.3, -1, label)
        return (model(torch.zeros_like(x), 0.5, label=hidden) - x).square().sum(1).mean()

    model, _, _ = train(400, loss=recover, data=(places[label], label), batch_size=100, lr=3e-3)
    with torch.no_grad():
        told = model(torch.zeros(3, 2), 0.5, label=torch.arange(3))
        untold = model(torch.zeros(1, 2), 0.5)
    torch.testing.assert_close(told, places, rtol=0, atol=0.02)
    torch.testing.assert_close(untold, places.mean(0, keepdim=True), rtol=0, atol=0.15)


def test_the_history_counts_every_step():
    loss = Interrupting(0, None)
    model, history, _ = train(11, loss=loss)
    assert loss.calls == history.n_steps == len(history.loss) == 11
    assert history.stopped_early is False
    assert history.seconds > 0
    assert model.training is False
    assert all(parameter.grad is None for parameter in model.parameters())


def test_smoothing_is_the_mean_of_the_last_losses():
    loss = torch.rand(30, generator=seeded())
    expected = torch.stack([loss[max(0, i - 6) : i + 1].mean() for i in range(30)])
    torch.testing.assert_close(History(loss, 1.0).smoothed(7), expected)


# What is seen meanwhile


def test_nothing_is_printed_where_no_person_watches(capfd):
    train(20)
    assert capfd.readouterr() == ("", "")


def test_a_person_sees_a_bar_that_goes_away(capfd, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "langevin.ipynb")
    train(20)
    out, err = capfd.readouterr()
    assert out == ""
    assert "20" in err
    assert err.split("\r")[-2].strip() == ""
    train(20, progress=False)
    assert capfd.readouterr() == ("", "")


# Mixed precision


class Watched(torch.nn.Module):
    """Two layers that note in which types they compute, by themselves or called by their own forward."""

    def __init__(self, calls_itself=False):
        super().__init__()
        self.first, self.second = torch.nn.Linear(2, 16), torch.nn.Linear(16, 2)
        self.calls_itself, self.within, self.products = calls_itself, [], []

    def forward(self, x, again=True):
        if self.calls_itself and again:
            return {"field": self(x, again=False)["field"], "rest": (x, 3)}
        hidden = self.first(x).tanh()
        self.within.append(hidden.dtype)
        return {"field": self.second(hidden), "rest": (x, 3)}


@pytest.mark.parametrize("calls_itself", [False, True])
@pytest.mark.parametrize("around", [None, torch.float16], ids=["alone", "within another autocast"])
def test_in_mixed_precision_the_network_alone_is_in_the_lower_one(calls_itself, around):
    seen = []

    def loss(model, x):
        out = model(x)
        product = x.T @ x  # of the loss, which is not rounded
        seen.append((out["field"].dtype, out["rest"][0].dtype, out["rest"][1], product.dtype))
        return (out["field"] + x).square().sum(1).mean() + 0 * product.sum()

    model = Watched(calls_itself)
    with torch.autocast("cpu", around or torch.bfloat16, enabled=around is not None):
        history = fit(model, loss, DATA[0], n_steps=20, lr=1e-2, generator=seeded(2), autocast=torch.bfloat16)
    assert set(model.within) == {torch.bfloat16}
    assert set(seen) == {(torch.float32, torch.float32, 3, around or torch.float32)}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert history.loss[-1] < history.loss[0] / 2
    model(DATA[0])  # afterwards it is as before
    assert model.within[-1] == torch.float32
    assert not model._forward_pre_hooks
    assert not model._forward_hooks


def test_mixed_precision_takes_nearly_the_course_of_full_precision():
    full, mixed = train(60, lr=1e-2), train(60, lr=1e-2, autocast=torch.bfloat16)
    assert not torch.equal(full[1].loss, mixed[1].loss)
    torch.testing.assert_close(mixed[1].loss, full[1].loss, rtol=0.05, atol=0.02)
    # Averaged weights that were kept in bfloat16 would move by steps of a half per cent, or not at all.
    moved = torch.cat([(a - b).flatten() for a, b in zip(mixed[0].parameters(), network().parameters(), strict=True)])
    assert (moved != moved.bfloat16().float()).float().mean() > 0.9


def test_an_energy_is_trained_by_its_score_in_mixed_precision():
    """Its gradient is taken within the loss, and backwards it goes once more."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.SiLU(), torch.nn.Linear(32, 1))

    def loss(model, x):
        return implicit_score_matching_loss(lambda x: score_of(lambda x: model(x).squeeze(1), x), x)

    x = torch.randn(500, 2, generator=seeded(3))
    history = fit(model, loss, x, n_steps=200, lr=1e-2, generator=seeded(2), autocast=torch.bfloat16)
    # The least there is for a Gaussian is -d/2 = -1.
    assert history.loss[-20:].mean().item() == pytest.approx(-1, abs=0.15)


def test_mixed_precision_goes_on_to_the_same_bits_and_is_a_setting_of_the_run(tmp_path):
    def mixed(n, **kw):
        return train(n, autocast=torch.bfloat16, **kw)

    mixed(13, checkpoint=tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"with autocast='bfloat16', not None; .* changed=\['autocast'\]"):
        train(40, checkpoint=tmp_path / "c.pt")
    assert_same_run(mixed(40, checkpoint=tmp_path / "c.pt"), mixed(40))
    train(41, checkpoint=tmp_path / "c.pt", changed=["autocast", "loss"])


def test_a_loss_that_fails_leaves_no_autocast_behind():
    model = Watched()
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(model, lambda model, x: model(x[:, :1])["field"].sum(), DATA[0], n_steps=2, autocast=torch.bfloat16)
    assert not torch.is_autocast_enabled("cpu")
    assert not model._forward_hooks


# Formats of memory


def test_weights_with_channels_last_train_to_the_same_and_stay_so():
    x = torch.randn(12, 2, 8, 8, generator=seeded(4))

    def loss(model, x, generator):
        t = torch.rand(len(x), generator=generator)
        return (model(x, t) + x).square().mean()

    models = [UNet(2, width=8, generator=seeded(5)) for _ in range(2)]
    models[1].to(memory_format=torch.channels_last)
    losses = [fit(m, loss, x, n_steps=6, batch_size=4, lr=1e-2, generator=seeded(6)).loss for m in models]
    torch.testing.assert_close(losses[1], losses[0])
    for plain, last in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(last, plain, rtol=1e-2, atol=1e-3)
        assert last.ndim != 4 or last.is_contiguous(memory_format=torch.channels_last)


# What is refused


def wrong(**kw):
    return lambda: train(**({"n_steps": 3} | kw))


NAN = DATA[0].clone()
NAN[5, 1] = math.nan


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("n_steps must be a positive integer, got 0", wrong(n_steps=0)),
        ("n_steps must be a positive integer, got 3.0", wrong(n_steps=3.0)),
        ("batch_size must be a positive integer, got -8", wrong(batch_size=-8)),
        ("checkpoint_every must be a positive integer, got 0", wrong(checkpoint_every=0)),
        ("lr must be positive and finite, got 0", wrong(lr=0)),
        ("lr must be positive and finite, got nan", wrong(lr=math.nan)),
        ("clip must be positive and finite, got -1.0", wrong(clip=-1.0)),
        ("max_seconds must be positive and finite, got 0", wrong(max_seconds=0)),
        (r"ema_decay must lie in \(0, 1\) or be None, got 1.0", wrong(ema_decay=1.0)),
        (r"ema_decay must lie in \(0, 1\) or be None, got 0", wrong(ema_decay=0)),
        ("schedule must be one of 'constant', 'cosine', got 'linear'", wrong(schedule="linear")),
        ("autocast must be torch.bfloat16 or None, got torch.float16, in which gradients", wrong(autocast=torch.half)),
        ("autocast must be torch.bfloat16 or None, got 'bfloat16'", wrong(autocast="bfloat16")),
        ("autocast must be torch.bfloat16 or None, got torch.float32", wrong(autocast=torch.float32)),
        ("generator must be a torch.Generator or None, got 0", wrong(generator=0)),
        ("model must be a torch.nn.Module, got function", wrong(model=denoising)),
        ("model must have at least one parameter", wrong(model=torch.nn.ReLU())),
        ("data must be a tensor, a tuple or dictionary of tensors, a data set or a DataLoader, got int", wrong(data=3)),
        ("data must be a tensor or hold tensors, got int", wrong(data=(DATA[0], [1, 2]))),
        (r"data must have at least one row, got shapes \[\]", wrong(data=())),
        (r"data must have at least one row, got shapes \[\(0, 2\)\]", wrong(data=torch.zeros(0, 2))),
        (r"data must have at least one row, got shapes \[\(\)\]", wrong(data=torch.tensor(1.0))),
        (r"data must have as many rows in each tensor, got \[37, 36\]", wrong(data=(DATA[0], DATA[1][:36]))),
        ("come out as torch.float32 like the weights of the model, got torch.int64", wrong(data=DATA[1])),
        (r"data must be finite, got nan among 74 value\(s\)", wrong(data=(NAN, DATA[1]))),
        (r"data must be finite, got nan among 74 value\(s\)", wrong(data=(DATA[0], NAN))),
        (
            r"loss must return a scalar tensor, got shape \(8,\)",
            wrong(loss=lambda m, x, y: m(x, 0.5).sum(1)),
        ),
        ("loss must return a scalar tensor, got float", wrong(loss=lambda m, x, y: 1.0)),
        (
            "loss must depend on the parameters of the model",
            wrong(loss=lambda m, x, y: x.mean()),
        ),
    ],
)
def test_arguments_are_checked(message, call):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_checkpoint_of_another_kind_of_generator_is_refused(tmp_path):
    train(12, checkpoint=tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt")
    torch.save(state | {"generator_device": "cuda"}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="was written with a generator on cuda, got one on cpu"):
        train(40, checkpoint=tmp_path / "c.pt")


def test_training_runs_without_values():
    data = torch.empty(37, 2, device="meta"), torch.empty(37, dtype=torch.long, device="meta")

    def loss(model, x, label, *, generator):
        return model(x, 0.5, label=label).square().mean()

    _, history, _ = train(6, model=network().to("meta"), loss=loss, data=data)
    assert history.n_steps == 6
