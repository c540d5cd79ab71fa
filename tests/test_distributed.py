"""Two processes and three do what one does: the same course, the same checkpoints, the same samples.

They are started by ``torchrun``, with gloo between them, and do all that is asked here in one go; at the end each is
in a run without end, which is stopped from outside.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import several_processes as alone
import torch

from benchmarks import divergence
from scorebook import lab, probability_flow, sde
from scorebook.lab import distributed
from scorebook.lab.arguments import standard_normal

ROOT = Path(__file__).resolve().parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
EVERYTHING = ["deterministic", "noisy", "draws", "statistics", "resumed", "relay", "faults", "who_does_what", "rows"]
EVERYTHING += ["wrapped", "example", "large_example"]
pytestmark = pytest.mark.xdist_group("ranks")

ALONE = ["deterministic", "noisy", "relay", "rows", "example", "large_example"]


def torchrun(n, *command, log):
    """Start a script in n processes; what it says goes into a file."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SCOREBOOK_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    with log.open("w", encoding="utf-8") as said:
        whole = [*TORCHRUN, str(n), *map(str, command)]
        return subprocess.Popen(whole, env=environment, stdout=said, stderr=said)


def ended(started, log, patience):
    """Exit status of a run; one that does not end is made to, and fails the test."""
    try:
        return started.wait(patience)
    except subprocess.TimeoutExpired:
        started.terminate()
        with_workers = 40  # torchrun gives its workers half a minute
        try:
            started.wait(with_workers)
        except subprocess.TimeoutExpired:
            started.kill()
        pytest.fail(f"the processes did not end:\n{log.read_text(encoding='utf-8')[-3000:]}", pytrace=False)


def all_of(n, names, folder, stop):
    """Results of n processes, one dictionary for each, once they were stopped in a run without end."""
    log = folder / f"{n}.log"
    started = torchrun(n, alone.__file__, folder, *names, "forever", log=log)
    try:
        running = folder / str(n) / "forever.pt"
        waited = time.monotonic() + alone.LONGEST
        while not running.exists() and started.poll() is None and time.monotonic() < waited:
            time.sleep(0.05)
        if not running.exists():
            pytest.fail(
                f"the processes did not get far enough:\n{log.read_text(encoding='utf-8')[-3000:]}", pytrace=False
            )
        started.send_signal(stop)
    finally:
        if started.poll() is None and not running.exists():
            started.terminate()
        ended(started, log, alone.LONGEST)
    return [torch.load(folder / str(n) / f"{rank}.pt") for rank in range(n)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def one(folder, two):
    """The same in this process alone, after two processes have had their turn."""
    (folder / "1").mkdir()
    return {name: getattr(alone, name)(folder / "1") for name in ALONE}


@pytest.fixture(scope="module")
def two(folder):
    return all_of(2, EVERYTHING, folder, signal.SIGINT)


@pytest.fixture(scope="module")
def three(folder, one):
    return all_of(3, ["deterministic", "relay", "rows"], folder, signal.SIGTERM)


@pytest.fixture
def several(request):
    return request.getfixturevalue(request.param)


in_two_and_three = pytest.mark.parametrize("several", ["two", "three"], indirect=True)
CASES = [
    "plain",
    "clipped",
    "one row a step",
    "all rows",
    "implicit score matching",
    "an energy",
    "a score model",
    "by name",
    "items",
    "a label that is never given",
]


# Training


@in_two_and_three
@pytest.mark.parametrize("case", CASES)
def test_the_course_is_that_of_one_process(several, one, case):
    """The last batch of an epoch has 5 rows, which neither two nor three can share evenly."""
    expected = one["deterministic"][case]
    for ranks in several:
        got = ranks["deterministic"][case]
        torch.testing.assert_close(got["loss"], expected["loss"], rtol=1e-6, atol=0)
        torch.testing.assert_close(got["weights"], expected["weights"], rtol=1e-9, atol=1e-12)
        assert torch.equal(got["next"], expected["next"])
    assert expected["loss"][-1] < expected["loss"][0]


@in_two_and_three
@pytest.mark.parametrize("case", CASES)
def test_all_ranks_hold_the_same_bits(several, case):
    for ranks in several[1:]:
        for name, value in several[0]["deterministic"][case].items():
            assert torch.equal(ranks["deterministic"][case][name], value)


def test_every_case_is_looked_at(one):
    assert list(one["deterministic"]) == CASES


def test_with_noise_the_course_is_that_of_one_process_in_distribution(one, two):
    mine, theirs = one["noisy"]["means"].double(), two[0]["noisy"]["means"].double()
    error = ((mine.var() + theirs.var()) / len(mine)).sqrt()
    assert abs(mine.mean() - theirs.mean()) < 4 * error
    assert error < 0.05 * mine.mean()
    assert torch.equal(two[0]["noisy"]["weights"], two[1]["noisy"]["weights"])


def test_ranks_share_the_rows_and_not_the_noise(two):
    noise = torch.cat([rank["draws"]["noise"] for rank in two])
    assert len(noise.unique()) == noise.numel() == 2 * 5 * 4
    epoch = torch.cat([rows for rank in two for rows in rank["draws"]["rows"]])
    assert torch.equal(epoch.sort().values, torch.arange(37))
    assert [len(rows) for rows in two[0]["draws"]["rows"]] == [4, 4, 4, 4, 3]
    assert [len(rows) for rows in two[1]["draws"]["rows"]] == [4, 4, 4, 4, 2]


def test_statistics_that_are_no_weights_are_alike_too(two):
    assert torch.equal(two[0]["statistics"]["weights"], two[1]["statistics"]["weights"])


def test_around_the_model_alone_ddp_would_refuse_two_of_these_losses(two):
    """Why it is wrapped around the loss, as the page says."""
    for rank in two:
        assert rank["wrapped"]["implicit"] == "nothing was raised"
        assert "has no attribute 'weight'" in rank["wrapped"]["weight"]
        assert "Expected to have finished reduction in the prior iteration" in rank["wrapped"]["energy"]


# Checkpoints


def test_a_run_resumed_on_as_many_processes_equals_an_unbroken_one(two):
    for rank in two:
        for name, value in rank["resumed"]["whole"].items():
            assert torch.equal(rank["resumed"]["parts"][name], value)


def test_a_run_goes_from_two_processes_to_one_and_on_to_three(one, two, three, tmp_path):
    expected = alone.train(alone.perceptron(), alone.shrinking, n_steps=30)
    assert [len(runs["relay"]["loss"]) for runs in (two[0], one, three[0])] == [10, 20, 30]
    for ranks in three:
        torch.testing.assert_close(ranks["relay"]["loss"], expected["loss"], rtol=1e-6, atol=0)
        torch.testing.assert_close(ranks["relay"]["weights"], expected["weights"], rtol=1e-9, atol=1e-12)
        assert torch.equal(ranks["relay"]["next"], expected["next"])


def test_a_run_with_noise_goes_from_two_processes_to_one_and_on_to_three(folder, three):
    state = torch.load(folder / "noisy_relay.pt")
    assert state["step"] == len(state["losses"]) == 30
    assert state["losses"].isfinite().all()


def test_the_first_rank_alone_shows_a_bar_and_writes(two):
    assert [rank["who_does_what"]["bars"] for rank in two] == [[True], [False]]
    assert [rank["who_does_what"]["writes"] for rank in two] == [[4, 8, 12], []]


def test_a_clock_that_is_ahead_on_one_rank_stops_all(two):
    assert [rank["who_does_what"]["late"] for rank in two] == [7, 7]


# Faults


@pytest.mark.parametrize(
    ("fault", "message", "steps"),
    [
        ("nan", "RuntimeError: the loss is not finite at step 10 (last good loss", 8),
        ("infinite gradient", "RuntimeError: the gradient of the loss is not finite at step 10 (last good loss", 8),
        ("control-c", "KeyboardInterrupt: ", 9),
        ("other settings", "ValueError: lr must be the same in all processes, got 0.01 in process 0 and 0.02 in", None),
        ("no checkpoint", "ValueError: checkpoint must be the same in all processes, got 'a path' in process 0", None),
        ("no folder", "ValueError: checkpoint must lie in a folder that exists and can be written, got", None),
        ("text", "ValueError: checkpoint ", None),
        ("no room", "OSError: no space left on device", None),
    ],
)
def test_a_fault_on_one_rank_stops_all_with_the_same_error(two, fault, message, steps):
    assert two[0]["faults"][fault].startswith(message)
    assert two[1]["faults"][fault] == two[0]["faults"][fault]
    if fault != "text":
        assert [rank["faults"][f"{fault}: steps"] for rank in two] == [steps, steps]
    if fault in ("nan", "infinite gradient", "control-c"):
        assert torch.equal(two[0]["faults"][f"{fault}: weights"], two[1]["faults"][f"{fault}: weights"])


@in_two_and_three
def test_a_signal_to_torchrun_leaves_a_whole_checkpoint_and_no_process(folder, several):
    n = len(several)
    assert torch.load(folder / str(n) / "forever.pt")["step"] >= 20
    for rank in range(n):
        with pytest.raises(ProcessLookupError):
            os.kill(int((folder / str(n) / f"{rank}.pid").read_text(encoding="utf-8")), 0)


def test_control_c_stops_all_ranks_after_the_same_step(folder, two):
    stopped = [torch.load(folder / "2" / f"{rank}.stopped.pt") for rank in range(2)]
    assert torch.equal(stopped[0], stopped[1])


# Rows


@in_two_and_three
@pytest.mark.parametrize("name", ["flow", "two rows", "one row", "log_prob", "integers", "truths"])
def test_rows_over_ranks_are_those_of_one_process(several, one, name):
    for ranks in several:
        got, expected = ranks["rows"][name], one["rows"][name]
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
        assert torch.equal(got, several[0]["rows"][name])


@in_two_and_three
def test_the_held_out_loss_is_that_of_one_process(several, one):
    for ranks in several:
        assert ranks["rows"]["held out"] == pytest.approx(one["rows"]["held out"], rel=1e-9)


@in_two_and_three
def test_samples_over_ranks_share_no_noise(several):
    drawn = torch.cat([several[0]["rows"]["reverse"], several[0]["rows"]["reverse again"]])
    assert len(drawn.unique()) == drawn.numel() == 2 * 7 * 2
    for ranks in several:
        for name in ("reverse", "reverse again", "next"):
            assert torch.equal(ranks["rows"][name], several[0]["rows"][name])


@in_two_and_three
def test_a_function_that_fails_on_one_rank_fails_on_all(several):
    n = len(several)
    assert several[-1]["rows"]["own error"] == "ZeroDivisionError: the power went off"
    told = f"RuntimeError: process {n - 1} of {n} failed: ZeroDivisionError: the power went off"
    assert [ranks["rows"]["own error"] for ranks in several[:-1]] == [told] * (n - 1)
    for ranks in several:
        assert "function must return rows alike on all ranks" in ranks["rows"]["other shapes"]
        assert "function must return one row for each of" in ranks["rows"]["too few"]
        assert "tensors must be the same in all processes, got '7 rows each'" in ranks["rows"]["other rows"]


# The page


@pytest.mark.parametrize("several", ["one", "two"], indirect=True)
def test_the_example_of_the_page_runs_on_one_process_and_on_two(folder, several):
    first, *others = several if isinstance(several, list) else [several]
    said = first["example"]["said"]
    assert re.fullmatch(r"5 steps, loss \d+\.\d+, held-out bits/dim \d+\.\d+\n", said)
    assert [rank["example"]["said"] for rank in others] == [""] * len(others)
    own = folder / str(1 + len(others))
    assert torch.load(own / "example.pt")["step"] == 5
    samples = torch.load(own / "trained_digits.pt")["samples"]
    assert samples.shape == (7, 1, 8, 8)
    assert len(samples.unique(dim=0)) == 7


@pytest.mark.parametrize("several", ["one", "two"], indirect=True)
def test_the_large_example_runs_on_one_process_and_on_two_in_mixed_precision(folder, several):
    first, *others = several if isinstance(several, list) else [several]
    assert re.fullmatch(r"3 steps, loss \d+\.\d, held-out bits/dim \d+\.\d+\n", first["large_example"]["said"])
    assert [rank["large_example"]["said"] for rank in others] == [""] * len(others)
    own = folder / str(1 + len(others))
    state = torch.load(own / "large.pt")
    assert state["settings"]["autocast"] == "bfloat16"
    weight, mean = (state[of]["network.down_1.inner.weight"] for of in ("model", "average"))
    assert (weight.dtype, mean.dtype) == (torch.float32, torch.float32)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    samples = torch.load(own / "trained_mnist.pt")["samples"]
    assert samples.shape == (5, 1, 28, 28)
    assert len(samples.unique(dim=0)) == 5


def test_the_page_shows_the_example_and_every_command_on_it_runs_that():
    page, example = (ROOT / name for name in ("book/several_devices.md", "examples/train_digits.py"))
    text = page.read_text(encoding="utf-8")
    (shown,) = re.findall(r"\{literalinclude\} (\S+)", text)
    assert (page.parent / shown).resolve() == example
    commands = re.findall(r"^torchrun (?:.*\\\n)*.*", text, re.M)
    assert len(commands) == 5
    scripts = [script for command in commands for script in re.findall(r"\S+\.py", command)]
    assert set(scripts) == {"examples/train_digits.py", "examples/train_mnist.py"}
    (options,) = (command.split()[4:] for command in commands if "mnist" in command)
    said = (ROOT / "examples/train_mnist.py").read_text(encoding="utf-8")
    assert all(f'"{option}"' in said for option in options if option.startswith("--"))


# Some rows at a time


def doubled(x, y):
    return 2 * x + y


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_rows_in_chunks_are_those_of_one_call_in_order(chunk_size):
    x, y, sizes = torch.arange(7.0), torch.ones(7), []

    def function(x, y):
        sizes.append(len(x))
        return doubled(x, y)

    assert torch.equal(lab.in_chunks(function, x, y, chunk_size=chunk_size), doubled(x, y))
    assert sum(sizes) == 7
    assert set(sizes[:-1]) <= {chunk_size}
    assert 1 <= sizes[-1] <= chunk_size


def test_one_chunk_draws_after_the_other_from_one_generator():
    def draw(x, generator):
        return torch.randn(x.shape, generator=generator)

    drawn = lab.in_chunks(draw, torch.zeros(7), chunk_size=3, generator=alone.seeded())
    generator = alone.seeded()
    assert torch.equal(drawn, torch.cat([torch.randn(n, generator=generator) for n in (3, 3, 1)]))


def peak_of_sampling(n, chunk_size):
    """The most that tensors take up while n pictures are drawn, beyond noise and results."""
    vp = sde.VPSDE()
    model = sde.ScoreModel(lab.UNet(1, width=8, generator=alone.seeded()), vp)
    noise = vp.sample_prior((n, 1, 12, 12), generator=alone.seeded())

    def draw(z):
        return probability_flow.sample(vp, model, z, n_steps=2)

    return divergence.peak_bytes(lambda: lab.in_chunks(draw, noise, chunk_size=chunk_size)) - noise.nbytes


def test_the_memory_of_sampling_in_chunks_is_that_of_a_chunk():
    """Beside the results: ten times the rows take no more in chunks, and ten times as much at once."""
    few, many, at_once = peak_of_sampling(20, 20), peak_of_sampling(200, 20), peak_of_sampling(200, 200)
    assert many < 1.1 * few
    assert at_once > 5 * few


def test_a_bar_counts_the_rows_of_the_chunks_where_somebody_watches(monkeypatch):
    class Bar:
        def __init__(self, total, disable, **options):
            self.total, self.shown, self.counted = total, not disable, 0
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.total -= self.counted

        def update(self, n):
            self.counted += n

    bars = []
    monkeypatch.setattr(distributed, "tqdm", Bar)
    x = torch.zeros(7)
    for watched in (True, False):
        monkeypatch.setattr(distributed, "is_watched", lambda watched=watched: watched)
        lab.in_chunks(lambda x: x, x, chunk_size=3)
        lab.in_chunks(lambda x: x, x, chunk_size=3, progress=False)
        lab.in_chunks(lambda x: x, x)  # a single chunk needs none
    assert [bar.shown for bar in bars] == [True] + 5 * [False]
    assert {bar.total for bar in bars} == {0}


@pytest.mark.parametrize(
    ("message", "function", "keywords"),
    [
        ("chunk_size must be a positive integer, got 0", doubled, {"chunk_size": 0}),
        ("function must return one row for each of 3 rows, got shape", lambda x, y: x[:1], {"chunk_size": 3}),
        ("function must return one row for each of 3 rows, got float", lambda x, y: 1.0, {}),
        (
            r"all chunks, got \(1,\) torch.float32 and before \(3,\)",
            lambda x, y: x.expand(len(x), len(x)),
            {},
        ),
        ("torch.float64 and before", lambda x, y: x if x[0] == 0 else x.double(), {}),
    ],
)
def test_what_does_not_fit_together_in_chunks_is_refused(message, function, keywords):
    with pytest.raises(ValueError, match=message):
        lab.in_chunks(function, torch.arange(7.0), torch.ones(7), **({"chunk_size": 3} | keywords))


# One process


def test_alone_a_function_is_called_with_what_is_given():
    def function(x, y, generator):
        return x + y + standard_normal(x.shape, generator=generator)

    x, y = torch.zeros(3), torch.ones(3)
    expected = function(x, y, alone.seeded())
    assert torch.equal(lab.over_ranks(function, x, y, generator=alone.seeded()), expected)
    assert (lab.rank(), distributed.n_ranks()) == (0, 1)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"tensors must be at least one tensor of shape \(N, \*any\), got \[\]", ()),
        (r"tensors must be at least one tensor of shape \(N, \*any\), got \[\(\)\]", (torch.tensor(1.0),)),
        (r"tensors must be at least one tensor of shape \(N, \*any\), got \['int'\]", (3,)),
        (r"tensors must have as many rows each, and at least one, got \[3, 2\]", (torch.zeros(3), torch.zeros(2))),
        (r"tensors must have as many rows each, and at least one, got \[0\]", (torch.zeros(0),)),
    ],
)
def test_arguments_are_checked(message, arguments):
    with pytest.raises(ValueError, match=message):
        lab.over_ranks(lambda *rows: rows[0], *arguments)


@pytest.mark.parametrize(
    ("returned", "came"), [(torch.zeros(2), r"shape \(2,\)"), (torch.tensor(1.0), r"shape \(\)"), (None, "NoneType")]
)
def test_a_function_has_to_return_rows(returned, came):
    with pytest.raises(ValueError, match=f"function must return one row for each of 3 rows, got {came}"):
        lab.over_ranks(lambda x: returned, torch.zeros(3))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_shares_are_the_whole_and_nearly_equal(monkeypatch, n):
    rows, shares = torch.arange(7), []
    monkeypatch.setattr(distributed, "n_ranks", lambda: n)
    for number in range(n):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        shares.append(distributed.share(rows))
    assert torch.equal(torch.cat(shares), rows)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert len(shares[0]) == max(map(len, shares))


def test_under_torchrun_a_device_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (lab.rank(), distributed.n_ranks()) == (0, 2)
    with pytest.raises(
        ValueError, match="tensors must be on a CPU or a CUDA device, got mps; set SCOREBOOK_DEVICE=cpu"
    ):
        distributed.join(torch.device("mps"))
