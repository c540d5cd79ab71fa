"""One variable chooses the device; what it cannot have, it says."""

import pytest
import torch

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
