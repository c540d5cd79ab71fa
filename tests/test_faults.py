"""What a student's work survives: processes that are killed, disks that are full, files that are not what they were.

The faults are real: the kernel kills the process, refuses the write, or hands over the bytes that were flipped. What
is stopped is a child process, forked from one that has imported PyTorch already.
"""

import fcntl
import functools
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch
from matplotlib import image
from small_run import DATA, Interrupting, assert_same_run, assert_same_weights, denoising, network, seeded, train
from tqdm import tqdm

from scorebook import lab
from scorebook.lab import checkpoints

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["__main__", "pytest", "scorebook.lab", "torch._dynamo", "torch._refs"])
PATIENCE_S = 1200


@pytest.fixture
def path(tmp_path):
    return tmp_path / "c.pt"


@functools.cache
def unbroken(n_steps):
    return train(n_steps)


def begin(pipe, function, arguments):
    """What a child process does; what it returns goes back through the pipe."""
    lab.use_one_thread()
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a process that is killed would leave behind
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train(2)
    pipe.send(function(pipe, *arguments))


def started(function, *arguments):
    """A child process and the pipe to it."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=begin, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    return process, ours


def received(pipe):
    assert pipe.poll(PATIENCE_S)
    return pipe.recv()


def fresh_files(path):
    """The files of saves that are under way, or were."""
    return list(path.parent.glob(f".{path.name}.*.new"))


def began(value):
    pytest.fail("the training began")


# Stopping a process


def train_until_stopped(pipe, n_steps, loss, seed, settings):
    """Say when the training begins; return the weights that a Ctrl-C has left."""
    model = network()
    pipe.send("begins")
    try:
        train(n_steps, model=model, loss=loss, generator=seeded(seed), **settings)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return numbers_of(model)


def numbers_of(model):
    """The weights as plain numbers: a pipe takes tensors by a memory that ends with their process."""
    return {name: value.tolist() for name, value in model.state_dict().items()}


class Child:
    """A process that trains, from the beginning of the training on."""

    def __init__(self, n_steps, *, loss=denoising, seed=2, **settings):
        self.process, self.pipe = started(train_until_stopped, n_steps, loss, seed, settings)
        assert received(self.pipe) == "begins"

    def wait_for_a_save(self, path):
        """Return while the checkpoint is being written, as well as a process can know that of another."""
        own = path.with_name(f".{path.name}.{self.process.pid}.new")
        while self.process.is_alive():
            with suppress(FileNotFoundError):
                if os.stat(own).st_size > 0:
                    return

    def wait_for_new_checkpoints(self, path, n):
        """Return when the checkpoint has been replaced ``n`` times."""
        before = written = None
        while n >= 0 and self.process.is_alive():
            with suppress(FileNotFoundError):
                written = path.stat().st_mtime_ns
            n -= written != before
            before = written
            time.sleep(0.001)

    def signal(self, *numbers):
        for number in numbers:
            os.kill(self.process.pid, number)

    def exit_code(self):
        self.process.join(PATIENCE_S)
        return self.process.exitcode

    def saves_left(self, path):
        """How many saves this process left half-way: none or one."""
        return sum(f".{self.process.pid}." in file.name and file.stat().st_size > 0 for file in fresh_files(path))


def same(one, other):
    """Whether two states are equal bit for bit, containers of any depth included."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def test_a_run_killed_twenty_times_ends_as_if_nothing_had_happened(path, tmp_path):
    """Every other kill waits for a save; the others come when they come."""
    chance = random.Random(0)
    settings = {"n_steps": 2000, "schedule": "cosine", "checkpoint_every": 7}
    kills = kills_in_a_save = 0
    while kills < 20 or kills_in_a_save < 3:
        assert kills < 60, f"of {kills} kills only {kills_in_a_save} fell into a save"
        child = Child(**settings, checkpoint=path)
        assert len(fresh_files(path)) <= 1
        if kills % 2:
            child.wait_for_a_save(path)
        else:
            child.wait_for_new_checkpoints(path, chance.randrange(4))
            time.sleep(chance.uniform(0, 0.02))
        child.signal(signal.SIGKILL)
        assert child.exit_code() == -signal.SIGKILL
        kills += 1
        kills_in_a_save += child.saves_left(path)
    step = torch.load(path)["step"]
    print(f"{kills} kills, {kills_in_a_save} of them in a save, brought the run to step {step} of 2000")
    assert 100 < step < 2000

    resumed = train(**settings, checkpoint=path)
    undisturbed = train(**settings, checkpoint=tmp_path / "undisturbed.pt")
    assert_same_run(resumed, undisturbed)
    ends = [torch.load(file) | {"seconds": 0} for file in (path, tmp_path / "undisturbed.pt")]
    assert same(*ends)
    assert sorted(os.listdir(tmp_path)) == ["c.pt", "undisturbed.pt"]


class SigintInBackward(torch.autograd.Function):
    """The identity, whose backward pass meets a Ctrl-C."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        os.kill(os.getpid(), signal.SIGINT)
        return slope


def after(seconds):
    def wait(child, path):
        time.sleep(seconds)

    return wait


ONCE, TWICE = (signal.SIGINT,), (signal.SIGINT, signal.SIGINT)


@pytest.mark.parametrize(
    ("wait", "numbers", "loss"),
    [
        pytest.param(after(0.011), ONCE, denoising, id="early"),
        pytest.param(after(0.047), ONCE, denoising, id="later"),
        pytest.param(after(0.037), TWICE, denoising, id="twice"),
        pytest.param(Child.wait_for_a_save, ONCE, denoising, id="in a save"),
        pytest.param(Child.wait_for_a_save, TWICE, denoising, id="twice in a save"),
        pytest.param(after(0), (), Interrupting(9, SigintInBackward.apply), id="in the backward pass"),
    ],
)
def test_control_c_leaves_a_usable_model_and_a_checkpoint_that_resumes_exactly(path, wait, numbers, loss):
    """A second Ctrl-C does not wait for the step, and so may cost it."""
    child = Child(400, loss=loss, checkpoint=path, checkpoint_every=12)
    wait(child, path)
    child.signal(*numbers)
    left = received(child.pipe)
    assert child.exit_code() == 0
    if numbers != TWICE:
        steps = torch.load(path)["step"] if path.exists() else 0  # a slow machine may not have begun the first
        assert left == numbers_of(unbroken(steps)[0] if steps else network())
    assert all(torch.tensor(weight).isfinite().all() for weight in left.values())
    assert os.listdir(path.parent) in (["c.pt"], [])
    assert_same_run(train(400, checkpoint=path), unbroken(400))


@pytest.mark.parametrize("wait", [after(0.05), Child.wait_for_a_save], ids=["at any time", "in a save"])
def test_a_terminated_run_loses_what_came_after_its_last_save_only(path, wait):
    """A cluster, Colab and ``kill`` send SIGTERM, which ends a process as it stands."""
    child = Child(400, checkpoint=path, checkpoint_every=5)
    wait(child, path)
    child.signal(signal.SIGTERM)
    assert child.exit_code() == -signal.SIGTERM
    assert_same_run(train(400, checkpoint=path), unbroken(400))
    assert os.listdir(path.parent) == ["c.pt"]


def test_two_runs_that_share_a_checkpoint_leave_a_whole_one(path):
    """Of which run it is, is left to chance: the last writing wins."""
    ends = [train(60, generator=seeded(seed))[0] for seed in (3, 4)]
    children = [Child(60, checkpoint=path, checkpoint_every=1, resume=False, seed=seed) for seed in (3, 4)]
    read = 0
    while any(child.process.is_alive() for child in children):
        if path.exists():
            assert 1 <= torch.load(path)["step"] <= 60
            read += 1
    assert [child.exit_code() for child in children] == [0, 0]
    assert read > 0
    assert os.listdir(path.parent) == ["c.pt"]
    model, history, _ = train(60, checkpoint=path)
    assert history.n_steps == 60
    assert any(same(model.state_dict(), end.state_dict()) for end in ends)


# A disk that does not take the file


def limit_the_size_of_files(folder):
    """No file of this process may grow beyond a third of a checkpoint: the kernel refuses the write."""
    third = (folder / "c.pt").stat().st_size // 3
    resource.setrlimit(resource.RLIMIT_FSIZE, (third, resource.RLIM_INFINITY))


def fill_the_disk(folder):
    with (folder / "film.mp4").open("wb", buffering=0) as film, suppress(OSError):
        while True:
            film.write(bytes(1024))


def forbid_writing(folder):
    """The superuser may write anywhere, and so becomes nobody first."""
    folder.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)


def remove_the_folder(folder):
    shutil.rmtree(folder)


def put_a_folder_in_its_place(folder):
    (folder / "c.pt").mkdir()


def train_into_trouble(pipe, folder, trouble, also_before):
    """Save a first checkpoint, meet the trouble after 15 steps, and return what it did to a run of 40."""
    path = folder / "c.pt"
    if also_before:
        train(12, checkpoint=path)
    model = network()

    def meet(value):
        trouble(folder)
        return value

    steps_before = 12 if also_before else 0
    try:
        train(40, model=model, loss=Interrupting(15 - steps_before, meet), checkpoint=path, checkpoint_every=20)
    except OSError as error:
        assert not model.training
        return str(error), numbers_of(model)
    raise AssertionError("nothing was raised")


def assert_survived(folder, message, left, reason, also_before):
    earlier = "the one written before is whole" if also_before else "there is no earlier one"
    assert f"checkpoint {folder / 'c.pt'} of step 20 could not be written ({reason}); {earlier}" in message
    assert "Make room there or name another path, and call fit again" in message
    assert left == numbers_of(unbroken(20)[0])


@pytest.fixture
def open_folder():
    """A folder that other users reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder).resolve()
        os.chmod(folder, 0o777)


@pytest.mark.parametrize(
    ("trouble", "reason", "also_before"),
    [
        (limit_the_size_of_files, "File too large", True),
        (forbid_writing, "Permission denied", True),
        (forbid_writing, "Permission denied", False),
        (remove_the_folder, "No such file or directory", False),
        (put_a_folder_in_its_place, "Is a directory", False),
    ],
)
def test_a_save_that_fails_says_so_and_leaves_the_last_one(open_folder, trouble, reason, also_before):
    _, pipe = started(train_into_trouble, open_folder, trouble, also_before)
    message, left = received(pipe)
    assert_survived(open_folder, message, left, reason, also_before)
    path = open_folder / "c.pt"
    open_folder.mkdir(exist_ok=True)
    open_folder.chmod(0o777)
    if path.is_dir():
        path.rmdir()
    assert os.listdir(open_folder) == ["c.pt"] * also_before
    if also_before:
        assert torch.load(path)["step"] == 12
    assert_same_run(train(40, checkpoint=path), unbroken(40))


@pytest.fixture
def small_disk(tmp_path):
    """A disk with room for one checkpoint and a little more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder]
    if not shutil.which("mount") or subprocess.run(mounting, capture_output=True).returncode:
        pytest.skip("this machine has no disk to spare: mounting one is not permitted")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(small_disk):
    message, left = train_into_trouble(None, small_disk, fill_the_disk, True)
    assert_survived(small_disk, message, left, "No space left on device", True)
    path = small_disk / "c.pt"
    assert torch.load(path)["step"] == 12
    (small_disk / "film.mp4").unlink()
    assert os.listdir(small_disk) == ["c.pt"]
    assert_same_run(train(40, checkpoint=path), unbroken(40))


def train_where_nothing_can_be_written(pipe, folder):
    forbid_writing(folder)
    calls = Interrupting(0, None)
    try:
        train(5, loss=calls, checkpoint=folder / "c.pt")
    except ValueError as error:
        return str(error), calls.calls


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(open_folder):
    _, pipe = started(train_where_nothing_can_be_written, open_folder)
    message, calls = received(pipe)
    assert f"folder that exists and can be written, got {open_folder / 'c.pt'} (Permission denied)" in message
    assert calls == 0


def test_a_name_that_the_disk_does_not_take_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(ValueError, match=r"can be written, got .* \(File name too long\)"):
        train(5, loss=Interrupting(1, began), checkpoint=tmp_path / ("c" * 250))


def pipe(folder):
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


@pytest.mark.parametrize("make", [pipe, lambda _: Path("/dev/full"), lambda _: Path("/dev/null")])
def test_a_pipe_or_a_device_is_refused_and_not_read(tmp_path, make):
    path = make(tmp_path)
    kind = stat.S_IFMT(path.stat().st_mode)
    with pytest.raises(ValueError, match="checkpoint must be the path of a file, got the pipe or device"):
        train(5, loss=Interrupting(1, began), checkpoint=path)
    assert stat.S_IFMT(path.stat().st_mode) == kind


@pytest.mark.parametrize("first", [0, 12], ids="{} steps are there".format)
def test_a_link_is_followed_and_stays_a_link(tmp_path, first):
    for name in ("fast", "home"):
        (tmp_path / name).mkdir()
    path, target = tmp_path / "home" / "c.pt", tmp_path / "fast" / "real.pt"
    path.symlink_to(target)
    if first:
        train(first, checkpoint=path)
    assert_same_run(train(40, checkpoint=path), unbroken(40))
    assert path.readlink() == target
    assert not target.is_symlink()
    assert torch.load(target)["step"] == 40
    assert (os.listdir(tmp_path / "home"), os.listdir(tmp_path / "fast")) == (["c.pt"], ["real.pt"])


def test_a_checkpoint_is_on_the_disk_before_it_takes_its_name(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, original=original: (calls.append(name), original(*a)))
    train(12, checkpoint=path, checkpoint_every=6)
    assert calls == ["fsync", "replace"] * 2


def test_what_another_process_is_writing_is_not_taken_for_a_leftover(path):
    stale, busy = (path.with_name(f".c.pt.{n}.new") for n in (1, 2))
    other = path.with_name(".other.pt.1.new")
    for file in (stale, other):
        file.write_bytes(b"half")
    with busy.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        train(3, checkpoint=path)
    assert sorted(os.listdir(path.parent)) == [busy.name, other.name, "c.pt"]


# A file that is not what it was


def complete(path):
    train(12, checkpoint=path)
    return path.read_bytes()


def refuses(path, *, resume=True, match="left as it is"):
    """A run refuses the file by its name, leaves it and the model as they are, and adds nothing beside it."""
    content, beside, model = path.read_bytes(), sorted(os.listdir(path.parent)), network()
    with pytest.raises(ValueError, match=match) as caught:
        train(40, model=model, loss=Interrupting(1, began), checkpoint=path, resume=resume)
    assert f"checkpoint {path} " in str(caught.value)
    assert path.read_bytes() == content
    assert sorted(os.listdir(path.parent)) == beside
    assert_same_weights(model, network())


@pytest.mark.parametrize("fortieth", range(40))
def test_a_truncated_checkpoint_is_refused(path, fortieth):
    """Also where one byte is missing, at the end."""
    content = complete(path)
    path.write_bytes(content[: len(content) * fortieth // 40 if fortieth < 39 else -1])
    refuses(path)


def test_a_flipped_bit_is_noticed_or_changes_nothing(path):
    """Padding and some fields of the archive's directory say nothing; no other bit may differ."""
    content, chance = complete(path), random.Random(0)
    state, names_the_file, harmless = torch.load(path), 0, 0
    for place in chance.sample(range(len(content)), 150):
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            train(12, checkpoint=path)
        except ValueError as error:
            names_the_file += f"checkpoint {path} " in str(error)
        else:
            harmless += same(torch.load(path), state)
        assert path.read_bytes() == flipped
    print(f"of 150 flipped bits {names_the_file} are refused, {harmless} change nothing")
    assert names_the_file + harmless == 150
    assert harmless < 30


def collect_tensors(value, found):
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            collect_tensors(part, found)


@pytest.mark.parametrize("part", ["model", "average", "optimizer", "losses", "order", "generator"])
def test_a_flipped_bit_in_what_matters_is_refused(path, part):
    """Plain torch.load takes each of these files for a good one."""
    content, tensors = bytearray(complete(path)), []
    collect_tensors(torch.load(path)[part], tensors)
    longest = max(tensors, key=lambda tensor: tensor.numel())
    content[content.index(longest.numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    torch.load(path)
    refuses(path, match=r"cannot be read \(.*/data/\d+ is damaged\); it is left as it is")


class Malicious:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def incomplete(path):
    train(12, checkpoint=path)
    state = torch.load(path)
    del state["optimizer"]
    torch.save(state, path)


def with_code_beside_the_weights(path):
    train(12, checkpoint=path)
    torch.save(torch.load(path) | {"seconds": Malicious(path.with_name("hacked"))}, path)


FOREIGN = {
    "empty": lambda path: path.touch(),
    "text": lambda path: path.write_text("my thesis", encoding="utf-8"),
    "picture": lambda path: image.imsave(path, DATA[0].numpy(), format="png"),
    "zip": lambda path: path.write_bytes(bytes.fromhex("504b0506") + bytes(18)),
    "safetensors": lambda path: safetensors.torch.save_file(network().state_dict(), path),
    "weights alone": lambda path: torch.save(network().state_dict(), path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "incomplete": incomplete,
    "pickle with code": lambda path: path.write_bytes(pickle.dumps({"format": Malicious(path.with_name("hacked"))}, 2)),
    "archive with code": with_code_beside_the_weights,
    "old archive with code": lambda path: torch.save(
        {"format": Malicious(path.with_name("hacked"))}, path, _use_new_zipfile_serialization=False
    ),
}


@pytest.mark.parametrize("resume", [True, False], ids=["resume", "anew"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_is_no_checkpoint_is_refused_and_kept(path, kind, resume):
    FOREIGN[kind](path)
    refuses(path, resume=resume)
    assert os.listdir(path.parent) == ["c.pt"]


def test_the_malicious_files_would_do_harm_if_they_were_trusted(path):
    """Else the tests above would pass whatever is done with them."""
    for kind, make in FOREIGN.items():
        if "code" in kind:
            path.unlink(missing_ok=True)
            make(path)
            with suppress(Exception):
                torch.load(path, weights_only=False)
            path.with_name("hacked").unlink()


def test_a_file_that_was_cleared_before_it_had_its_lock_is_written_anew(path, monkeypatch):
    """Another run may take it for a leftover in that moment."""
    flock, cleared = checkpoints.fcntl.flock, []

    def clearing(file, how):
        if not cleared and fresh_files(path):
            cleared.extend(fresh_files(path))
            cleared[0].unlink()
        flock(file, how)

    monkeypatch.setattr(checkpoints.fcntl, "flock", clearing)
    train(10, checkpoint=path)
    assert cleared
    assert torch.load(path)["step"] == 10
    assert fresh_files(path) == []


def test_who_clears_leftovers_spares_the_file_that_took_the_name(path, monkeypatch):
    """Between opening a leftover and locking it, its writer may have renamed it and begun another."""
    leftover, flock = path.with_name(f".{path.name}.1.new"), checkpoints.fcntl.flock
    leftover.write_bytes(b"old")

    def renewing(file, how):
        os.replace(leftover, path.with_name("renamed"))
        leftover.write_bytes(b"live")
        flock(file, how)

    monkeypatch.setattr(checkpoints.fcntl, "flock", renewing)
    checkpoints.clear_leftovers(path)
    assert leftover.read_bytes() == b"live"
