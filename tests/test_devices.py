"""One variable chooses the device; what it cannot have, it says."""

import os
import platform
import re
import subprocess
import sys

import pytest
import torch

from scorebook.lab import devices
from scorebook.lab.devices import device


@pytest.fixture
def machine(monkeypatch):
    """Set the variable, and which accelerators the machine seems to have."""

    def arrange(value, *, cuda=False, mps=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        if value is None:
            monkeypatch.delenv("SCOREBOOK_DEVICE", raising=False)
        else:
            monkeypatch.setenv("SCOREBOOK_DEVICE", value)

    return arrange


@pytest.mark.parametrize("value", [None, "", "auto", " AUTO "])
@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(False, False, "cpu"), (False, True, "mps"), (True, False, "cuda"), (True, True, "cuda")],
)
def test_without_a_wish_the_fastest_device_present_is_taken(machine, value, cuda, mps, expected):
    machine(value, cuda=cuda, mps=mps)
    assert device() == torch.device(expected)


@pytest.mark.parametrize("wish", ["cpu", "cuda", "mps", "CPU"])
def test_a_wish_is_granted_if_it_can_be(machine, wish):
    machine(wish, cuda=True, mps=True)
    assert device() == torch.device(wish.lower())


@pytest.mark.parametrize("wish", ["cuda", "mps"])
def test_an_absent_device_is_an_error_that_says_what_there_is(machine, wish):
    machine(wish)
    with pytest.raises(RuntimeError, match=rf"SCOREBOOK_DEVICE asks for '{wish}'.*available: cpu\. Set .*'auto'"):
        device()


def test_all_that_is_available_is_listed(machine):
    machine("mps", cuda=True)
    with pytest.raises(RuntimeError, match=r"available: cuda, cpu\."):
        device()


@pytest.mark.parametrize("wish", ["gpu", "cuda:1", "tpu"])
def test_an_unknown_device_is_an_error_that_says_what_is_known(machine, wish):
    machine(wish)
    with pytest.raises(ValueError, match=rf"SCOREBOOK_DEVICE must be one of 'auto', 'cpu', .*got '{wish}'"):
        device()


@pytest.mark.parametrize("wish", [None, "cuda"])
def test_under_torchrun_each_process_of_a_machine_takes_a_device_of_its_own(machine, monkeypatch, wish):
    machine(wish, cuda=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for number in range(4):
        monkeypatch.setenv("LOCAL_RANK", str(number))
        assert device() == torch.device("cuda", number)


def test_a_process_too_many_for_the_devices_is_told_so(machine, monkeypatch):
    machine(None, cuda=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(
        RuntimeError, match=r"process 2 .* there are 2\. Start torchrun with --nproc-per-node 2, or set"
    ):
        device()
    machine("cpu", cuda=True)
    assert device() == torch.device("cpu")


def threads_after(*programs, root):
    """Threads that PyTorch uses after each of these in a process of its own, for which two are asked."""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": str(root)}
    told = "import torch; print(torch.get_num_threads())"
    command = [sys.executable, "-c", "; ".join(part for program in programs for part in (program, told))]
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def test_an_import_leaves_the_threads_alone_and_one_call_makes_them_one(root):
    on_their_own = threads_after("pass", root=root)
    imported = "from scorebook import lab, probability_flow, sde, coursework"
    assert threads_after(imported, "lab.use_one_thread()", root=root) == [*on_their_own, 1]


def test_every_notebook_computes_on_one_thread(root):
    """They share the setup cell, so what holds for it holds in the test run, the book, Jupyter and Colab."""
    run = "from IPython.core.interactiveshell import InteractiveShell as Shell; from pathlib import Path; "
    run += "Shell.instance().run_cell(Path('tools/setup_cell.ipy').read_text(encoding='utf-8')).raise_error()"
    assert threads_after(f"import os; os.chdir({str(root)!r}); {run}", root=root) == [1]


NUMBER_OF_THREADS = r"set_num_(interop_)?threads|(OMP|MKL|OPENBLAS)_(NUM_THREADS|WAIT_POLICY)|threadpool_limits"


def test_the_number_of_threads_is_chosen_in_one_place(root):
    paths = [
        path
        for folder in ("book", "coursework", "examples", "scorebook", "tools")
        for path in (root / folder).rglob("*.*")
    ]
    texts = {path: path.read_text(encoding="utf-8") for path in paths if path.suffix in (".ipynb", ".py", ".ipy")}
    assert len(texts) > 50
    choosing = [path.relative_to(root).as_posix() for path, text in texts.items() if re.search(NUMBER_OF_THREADS, text)]
    # A submission may have lost its setup cell, and nbgrader starts kernels of its own: grading sets it from outside.
    assert sorted(choosing) == ["scorebook/lab/devices.py", "tools/assignments.py", "tools/examination.py"]


def test_the_processor_is_called_as_linux_calls_it_or_by_its_kind(monkeypatch):
    told = "processor\t: 0\nmodel name\t: Some: processor\nmodel name\t: another\n"
    monkeypatch.setattr(devices.Path, "read_text", lambda self, encoding: told)
    assert devices.processor() == "Some: processor"

    def absent(self, encoding):
        raise FileNotFoundError

    for read_text in (absent, lambda self, encoding: "processor\t: 0\n"):
        monkeypatch.setattr(devices.Path, "read_text", read_text)
        assert devices.processor() == (platform.processor() or platform.machine())
