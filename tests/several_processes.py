"""What test_distributed.py runs in one process, in two and in three: the same code, as a chapter would have it.

As a script under ``torchrun`` it runs everything that the test of its name asks for and leaves each rank's results in
a file of its own: ``torchrun --nproc-per-node 2 several_processes.py FOLDER NAME...``.
"""

import faulthandler
import os
import runpy
import signal
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from scorebook import lab, probability_flow, sde
from scorebook.lab import training
from scorebook.lab.distributed import n_ranks
from scorebook.score_matching import implicit_score_matching_loss, score_of

PROCESS = sde.VPSDE()
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
LONGEST = 1200  # seconds, on a machine that does much else


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


ROWS = 37, 2
DATA = torch.randn(ROWS, generator=seeded(7), dtype=torch.float64)
LABELS = torch.arange(37) % 3


def outcome(call):
    """The error that a call raises, as text."""
    try:
        call()
    except (Exception, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def weights(model):
    return torch.cat([value.detach().flatten().double() for value in model.state_dict().values()])


def train(model, loss, data=DATA, **settings):
    """Train from a seed; the losses, the weights and what the generator draws next."""
    g = seeded(2 + 10 * lab.rank())  # what counts is that of the first rank
    history = lab.fit(model, loss, data, **({"n_steps": 12, "batch_size": 8, "lr": 1e-2, "generator": g} | settings))
    return {"loss": history.loss, "weights": weights(model), "next": torch.rand(3, generator=g)}


def perceptron(**options):
    # Each rank begins elsewhere: what counts is where the first one does.
    return lab.MLP(2, width=16, depth=1, generator=seeded(1 + 10 * lab.rank()), **options).double()


def score_model():
    network = lab.TimeMLP(2, width=16, depth=1, n_classes=3, generator=seeded(1 + 10 * lab.rank())).double()
    return sde.ScoreModel(network, PROCESS)


# Losses that draw nothing


def shrinking(model, x):
    return (model(x) + 2 * x).square().sum(1).mean()


def implicit(model, x):
    return implicit_score_matching_loss(model, x)


def implicit_energy(model, x):
    return implicit_score_matching_loss(lambda x: score_of(lambda x: -model(x), x), x)


def noise_free(model, x, label):
    """A denoising loss at one time that needs ``model.weight`` and calls the model with a label and without."""
    t = torch.full((len(x),), 0.3, dtype=x.dtype)
    with_label, without = model(x, t, label=label), model(x, t)
    return (model.weight(t) * ((with_label + 2 * x).square() + (without + 2 * x).square()).sum(1)).mean()


class Items(Dataset):
    """The same data, one by one."""

    def __len__(self):
        return len(DATA)

    def __getitem__(self, row):
        return DATA[row], int(LABELS[row])


def deterministic(folder):
    """Every case in which the course must be that of one process."""
    cases = {
        "plain": lambda: train(perceptron(), shrinking),
        "clipped": lambda: train(perceptron(), shrinking, clip=0.05, ema_decay=None),
        "one row a step": lambda: train(perceptron(), shrinking, batch_size=1),
        "all rows": lambda: train(perceptron(), shrinking, batch_size=100, schedule="cosine"),
        "implicit score matching": lambda: train(perceptron(), implicit),
        "an energy": lambda: train(perceptron(out_dim=1), implicit_energy),
        "a score model": lambda: train(score_model(), noise_free, (DATA, LABELS)),
        "by name": lambda: train(score_model(), noise_free, {"x": DATA, "label": LABELS}),
        "items": lambda: train(score_model(), noise_free, Items()),
        "a label that is never given": lambda: train(score_model(), lambda m, x: shrinking(lambda x: m(x, 0.5), x)),
    }
    return {name: case() for name, case in cases.items()}


def wrapped(folder):
    """How DDP fares with the model alone inside, for two steps of each loss."""

    def steps(model, loss, *batch):
        wrapper = DistributedDataParallel(model)
        for _ in range(2):
            loss(wrapper, *batch).backward()

    return {
        "implicit": outcome(lambda: steps(perceptron(), implicit, DATA)),
        "energy": outcome(lambda: steps(perceptron(out_dim=1), implicit_energy, DATA)),
        "weight": outcome(lambda: steps(score_model(), noise_free, DATA, LABELS)),
    }


# Losses that draw


def denoising(model, x, label, *, generator):
    return sde.score_matching_loss(
        model, PROCESS, x, labels=label, p_drop=0.2, weighting=model.weight, generator=generator
    )


def noisy(folder, n_seeds=8):
    """Mean loss of each of some runs with a loss that draws noise."""
    runs = [
        train(score_model(), denoising, (DATA, LABELS), generator=seeded(100 * n_ranks() + s)) for s in range(n_seeds)
    ]
    return {"means": torch.stack([run["loss"].mean() for run in runs]), "weights": runs[0]["weights"]}


def draws(folder):
    """What the loss of each rank draws, and the rows it sees."""
    noise, rows = [], []

    def loss(model, x, index, *, generator):
        noise.append(torch.randn(4, generator=generator))
        rows.append(index)
        return shrinking(model, x)

    train(perceptron(), loss, (DATA, torch.arange(37)), n_steps=5)
    return {"noise": torch.stack(noise), "rows": rows}


class Normalised(nn.Module):
    """A model with statistics of its own, which depend on the rows it sees."""

    def __init__(self):
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(2), nn.Linear(2, 2)

    def forward(self, x):
        return self.last(self.norm(x))


def statistics(folder):
    return train(Normalised().double(), shrinking, batch_size=16)


# Stopping and going on


def resumed(folder):
    """A run in two parts and one without a break, by a loss that draws."""
    path = folder / "resumed.pt"

    def run(n_steps, **more):
        return train(score_model(), denoising, (DATA, LABELS), n_steps=n_steps, **more)

    run(7, checkpoint=path)
    return {"parts": run(12, checkpoint=path), "whole": run(12)}


def relay(folder):
    """The next leg of a run that other numbers of processes have begun: to ten steps more than the checkpoint has."""
    path = folder.parent / "relay.pt"
    steps = torch.load(path)["step"] if path.exists() else 0
    noisy = path.with_name("noisy_relay.pt")
    train(score_model(), denoising, (DATA, LABELS), n_steps=steps + 10, checkpoint=noisy)
    return train(perceptron(), shrinking, n_steps=steps + 10, checkpoint=path)


def spoiling(number, step, act):
    """A loss which does something to its value on one rank, at one step."""
    calls = []

    def loss(model, x):
        calls.append(1)
        value = shrinking(model, x)
        return act(value) if lab.rank() == number and len(calls) == step else value

    return loss


def control_c(value):
    signal.raise_signal(signal.SIGINT)
    return value


def faults(folder):
    """How each rank ends where one of them is at fault, and the steps in the checkpoint."""
    last = n_ranks() - 1
    path = folder / "faults.pt"
    found = {}

    def tried(name, loss=shrinking, **settings):
        model = perceptron()
        settings = {"checkpoint": path, "checkpoint_every": 4} | settings
        found[name] = outcome(lambda: train(model, loss, **settings))
        found[f"{name}: weights"] = weights(model)
        found[f"{name}: steps"] = training.from_first(lambda: torch.load(path)["step"] if path.exists() else None)
        training.from_first(path.unlink, True)

    tried("nan", spoiling(last, 10, lambda value: value * torch.nan))
    tried("infinite gradient", spoiling(last, 10, lambda value: value + (0 * value).sqrt()))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    tried("control-c", spoiling(last, 9, control_c))
    signal.signal(signal.SIGINT, before)
    tried("other settings", lr=1e-2 * (1 + lab.rank()))
    tried("no checkpoint", **({"checkpoint": None} if lab.rank() == last else {}))
    tried("no folder", checkpoint=folder / "nowhere" / "c.pt")
    training.from_first(path.write_text, "my thesis")
    found["text"] = outcome(lambda: train(perceptron(), shrinking, checkpoint=path))
    training.from_first(path.unlink)
    write = training.write
    training.write = no_room
    tried("no room")
    training.write = write
    return found


def no_room(state, path):
    raise OSError("no space left on device")


def who_does_what(folder):
    """Who shows a bar, who writes, and when a clock that is ahead on one rank stops the run."""
    bars, writes, bar, write, watched = [], [], training.tqdm, training.write, training.is_watched
    training.is_watched = lambda: True
    training.tqdm = lambda **options: (bars.append(not options["disable"]), bar(**options | {"disable": True}))[1]
    training.write = lambda state, path: (writes.append(state["step"]), write(state, path))
    train(perceptron(), shrinking, checkpoint=folder / "who.pt", checkpoint_every=4)
    training.is_watched, training.tqdm, training.write = watched, bar, write

    def hurry(value):
        training.time = Ahead()
        return value

    try:
        late = train(perceptron(), spoiling(n_ranks() - 1, 7, hurry), max_seconds=1000)["loss"]
    finally:
        training.time = time
    return {"bars": bars, "writes": writes, "late": len(late)}


class Ahead:
    """A clock that is an hour ahead."""

    @staticmethod
    def perf_counter():
        return time.perf_counter() + 3600


# Sampling and likelihood


def rows(folder):
    """Functions of rows over all ranks."""
    model = score_model()
    train(model, noise_free, (DATA, LABELS), n_steps=3)
    process = PROCESS

    def flow(x):
        return probability_flow.sample(process, model, x, method="heun2", n_steps=5)

    def log_prob(x):
        return probability_flow.log_prob(process, model, x, method="heun2", n_steps=5)

    def reverse(x, generator):
        return sde.euler_maruyama(process, model, x, n_steps=5, generator=generator)

    g = seeded(3 + 10 * lab.rank())
    same = torch.zeros(7, 2, dtype=torch.float64)
    return {
        "flow": lab.over_ranks(flow, DATA[:7]),
        "two rows": lab.over_ranks(flow, DATA[:2]),
        "one row": lab.over_ranks(flow, DATA[:1]),
        "log_prob": lab.over_ranks(log_prob, DATA[:7]),
        "integers": lab.over_ranks(lambda label, x: label + (x[:, 0] > 0), LABELS[:7], DATA[:7]),
        "truths": lab.over_ranks(lambda x: x > 0, DATA[:7]),
        "held out": lab.held_out_loss(model, noise_free, Items(), batch_size=8),
        "reverse": lab.over_ranks(reverse, same, generator=g),
        "reverse again": lab.over_ranks(reverse, same, generator=g),
        "next": torch.rand(3, generator=g),
        "own error": outcome(lambda: lab.over_ranks(fails_on_the_last, DATA[:7])),
        "other shapes": outcome(lambda: lab.over_ranks(lambda x: x.new_zeros(len(x), 1 + lab.rank()), DATA[:7])),
        "too few": outcome(lambda: lab.over_ranks(lambda x: x[:1], DATA[:7])),
        "other rows": outcome(lambda: lab.over_ranks(flow, DATA[: 7 + lab.rank()])),
    }


def fails_on_the_last(x):
    if lab.rank() == n_ranks() - 1:
        raise ZeroDivisionError("the power went off")
    return x


def example(folder):
    """What the example of the book says, run for a few steps in this folder."""
    options = ["--n-steps", 5, "--n-samples", 7, "--batch-size", 65, "--checkpoint", "example.pt"]
    return said_by("train_digits.py", options, folder)


def large_example(folder):
    """What the example with large digits says, in mixed precision."""
    options = ["--n-steps", 3, "--n-samples", 5, "--n-told", 2, "--batch-size", 5, "--width", 8, "--chunk-size", 2]
    return said_by("train_mnist.py", [*options, "--bfloat16", "--checkpoint", "large.pt"], folder)


def said_by(script, options, folder):
    """What a script of the examples says that runs in this folder."""
    arguments, before = sys.argv, Path.cwd()
    os.chdir(folder)
    sys.argv = [script, *map(str, options)]
    try:
        with redirect_stdout(StringIO()) as said:
            runpy.run_path(EXAMPLES / script)
    finally:
        sys.argv = arguments
        os.chdir(before)
    return {"said": said.getvalue()}


def forever(folder):
    """A run without end, to be stopped from outside."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what was started in the background ignores it
    model = perceptron()
    try:
        train(model, shrinking, n_steps=10**7, checkpoint=folder / "forever.pt", checkpoint_every=20)
    except KeyboardInterrupt:
        torch.save(weights(model), folder / f"{lab.rank()}.stopped.pt")
        raise


def main(folder, *names):
    """Leave what each of the named functions returns in a file of this rank."""
    # Whatever goes wrong, no process outlives the test; the limit says where each one stood.
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    lab.use_one_thread()
    own = Path(folder) / os.environ["WORLD_SIZE"]
    if n_ranks() == 3:  # a group that stands already is used as it is
        distributed.init_process_group("gloo")
    own.mkdir(exist_ok=True)
    (own / f"{lab.rank()}.pid").write_text(str(os.getpid()), encoding="utf-8")
    found = {}
    for name in names:
        found[name] = globals()[name](own)
        torch.save(found, own / f"{lab.rank()}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
