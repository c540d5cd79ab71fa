"""Where tensors live, and how many cores compute with them: one place decides for the whole book.

``SCOREBOOK_DEVICE`` may be ``cpu``, ``cuda``, ``mps`` or ``auto``. Without it, or with ``auto``, the book runs on
a CUDA device if there is one, else on Apple's ``mps``, else on the CPU. Where ``torchrun`` has started several
processes on a machine, each takes the CUDA device of its own number.

On the CPU the book computes on one core: every notebook calls :func:`use_one_thread` in its setup cell.
"""

import os
import platform
import sys
from pathlib import Path

import torch

from scorebook.lab.arguments import one_of

__all__ = ["device", "is_watched", "processor", "use_one_thread"]

_VARIABLE = "SCOREBOOK_DEVICE"


def device() -> torch.device:
    """Device on which the book runs, as the environment variable ``SCOREBOOK_DEVICE`` asks.

    Returns:
        ``torch.device("cuda")``, ``torch.device("mps")`` or ``torch.device("cpu")``; under ``torchrun``
        ``torch.device("cuda", n)`` in the n-th process of the machine.

    Raises:
        ValueError: if the variable holds none of ``auto``, ``cpu``, ``cuda`` and ``mps``.
        RuntimeError: if it names a device that this machine, or this build of PyTorch, does not have, or if
            ``torchrun`` has started more processes than there are CUDA devices.
    """
    present = _present()
    wanted = os.environ.get(_VARIABLE, "").strip().lower() or "auto"
    one_of(_VARIABLE, wanted, ("auto", "cpu", "cuda", "mps"))
    if wanted == "auto":
        wanted = present[0]
    if wanted not in present:
        raise RuntimeError(
            f"{_VARIABLE} asks for {wanted!r}, which PyTorch {torch.__version__} does not find on this machine; "
            f"available: {', '.join(present)}. Set {_VARIABLE} to one of these, or to 'auto', before you start Python"
        )
    return _own_cuda_device() if wanted == "cuda" else torch.device(wanted)


def processor() -> str:
    """Name of the processor of this machine, as Linux tells it, or else of its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def use_one_thread() -> None:
    """Lets PyTorch use one CPU core in this process, whatever the machine has; work on a GPU is not touched.

    For tensors as small as this book's a second thread gains next to nothing, and it waits by spinning: beside another
    program that wants the core, what takes seconds takes minutes. One thread also adds numbers up in one order, so
    that a result does not hang on the number of cores. Importing scorebook changes nothing; for large networks and
    batches leave the call out, or choose with :func:`torch.set_num_threads`.
    """
    torch.set_num_threads(1)


def _own_cuda_device() -> torch.device:
    number, n = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    if number is None:
        return torch.device("cuda")
    if int(number) >= n:
        raise RuntimeError(
            f"process {number} of this machine finds no CUDA device of its own: there are {n}. Start torchrun with "
            f"--nproc-per-node {n}, or set {_VARIABLE}=cpu"
        )
    return torch.device("cuda", int(number))


def _present() -> list[str]:
    """Names of the devices that are here, the preferred one first."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, is_here in here.items() if is_here]


def is_watched() -> bool:
    """Whether a person sees a progress bar: a terminal, Colab or a live Jupyter, not a page being built or a log.

    Jupyter names the open notebook to the kernels it starts; programs that execute notebooks do not.
    """
    return sys.stderr.isatty() or "google.colab" in sys.modules or "JPY_SESSION_NAME" in os.environ
