"""Two kernels for one submission: in the first the student's cells run, in the second the instructor's.

What the student's cells do, they do in their own process, and where Linux offers it that process is shut off from the
files, processes and network of the machine. The tests, what they are made of and the truth they know are in the other.
They meet over one line, on which only numbers come back: see :mod:`remote`.
"""

import contextlib
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager

__all__ = ["Examination", "Kernel", "KernelDiedError", "Outcome", "examination"]

LAUNCHER = Path(__file__).resolve().parent / "grading_kernel.py"

# Times as many seconds on the wall as a cell may compute: a busy machine slows it less, and one that sleeps does not
# hold up the class.
WAIT = 10

# Code whose time is up is interrupted, again after so many seconds (a busy machine takes a few to format a traceback),
# and in the end loses its kernel.
AGAIN = 20
GRACE = 60

# Seconds for a kernel to start, on however busy a machine, and processor seconds to begin and end a conversation.
START = 600
CONNECT = 60

# The ports of a kernel are free when they are chosen, and on a busy machine may be taken when it comes to use them.
STARTS, TAKEN = 5, "Address already in use"

_POLL = 0.25

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: whether without an error, if not why, and whether because its time was up."""

    passed: bool
    remark: str = ""
    late: bool = False


class KernelDiedError(RuntimeError):
    """There is nobody left to execute a cell."""


class _Launched(KernelSpecManager):
    """Knows one kernel, started by our launcher with this Python, whatever the notebook asks for."""

    def __init__(self, arguments):
        super().__init__(kernel_dirs=[])
        self._arguments = arguments

    def get_kernel_spec(self, kernel_name):
        """The command."""
        argv = [sys.executable, "-Xfrozen_modules=off", str(LAUNCHER), *self._arguments, "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


class Kernel:
    """A kernel in a folder of its own, which knows nothing of the profile and the history of whoever grades.

    Args:
        role: ``"student"`` or ``"judge"``.
        folder: an empty folder.
        line: its end of the line between the two.
        own_work: names of the package's functions that a student is to write.
    """

    def __init__(self, role, folder, line, own_work=()):
        self.folder = folder
        for name in ("work", "home", "temporary"):
            (folder / name).mkdir(parents=True)
        options = json.dumps({"folder": str(folder), "own_work": list(own_work)})
        specs = _Launched([role, str(line.fileno()), options])
        self.manager = KernelManager(kernel_spec_manager=specs, connection_file=str(folder / "kernel.json"))
        with (folder / "stderr").open("wb") as stderr:
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": stderr}
            self.manager.start_kernel(
                cwd=str(folder / "work"), env=_environment(folder), pass_fds=[line.fileno()], **streams
            )
        self.client = self.manager.client()
        self.client.start_channels()

    @property
    def pid(self):
        """The process."""
        return self.manager.provisioner.pid

    def ready(self):
        """Waits until cells can be executed; then nobody needs the file any more that says how to reach this kernel."""
        try:
            self.client.wait_for_ready(timeout=START)
        except RuntimeError as error:
            said = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"no kernel could be started: {error}\n{said}") from error
        (self.folder / "kernel.json").unlink()

    def stop(self):
        """Ends the kernel."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def begin(self, source, **options):
        """Asks for a cell to be executed, and returns the request."""
        return self.client.execute(source, allow_stdin=False, stop_on_error=False, **options)

    def reply_to(self, request, wait=_POLL):
        """The content of the reply, or None where there is none yet.

        Raises:
            KernelDiedError: if there is nobody to reply.
        """
        try:
            reply = self.client.get_shell_msg(timeout=wait)
        except queue.Empty:
            if not self.manager.is_alive():
                raise KernelDiedError from None
            return None
        return reply["content"] if reply["parent_header"].get("msg_id") == request else None

    def execute(self, source, timeout, beside=(), deserted=lambda: False):
        """Executes one cell. The kernel's reply says how it ended, whatever the cell displays.

        Args:
            source: of the cell.
            timeout: processor seconds, ten times as many on the wall.
            beside: other kernels that compute for this cell.
            deserted: says whether they have gone away, and the cell waits for nothing.

        Raises:
            KernelDiedError: if the kernel ends, by itself or because nothing else ended the cell.
        """
        if not source.strip():
            return Outcome(True)
        processes = [kernel.pid for kernel in (self, *beside)]
        begun, computed, stopped, interrupts = time.monotonic(), _computed(processes), None, 0
        request = self.begin(source)
        while (content := self.reply_to(request)) is None:
            waited, spent = time.monotonic() - begun, _computed(processes) - computed
            if stopped is None and spent > timeout:
                stopped = waited, f"stopped after {timeout:g} s of computing"
            elif stopped is None and waited > WAIT * timeout:
                stopped = waited, f"stopped after {WAIT * timeout:g} s, of which it computed for {spent:.0f} s"
            elif stopped is None and deserted():
                stopped = waited, "not finished: the notebook's process no longer answers"
            if stopped is not None:
                if waited - stopped[0] > GRACE:
                    raise KernelDiedError
                if waited - stopped[0] >= AGAIN * interrupts:
                    self.manager.interrupt_kernel()
                    interrupts += 1
        if stopped is not None:
            return Outcome(False, stopped[1], late=True)
        if content["status"] == "ok":
            return Outcome(True)
        remark = ANSI.sub("", content.get("evalue", "")).strip() or content.get("ename", content["status"])
        return Outcome(False, remark)

    def wait(self, request):
        """Waits for a cell that should have ended, and interrupts it where it has not.

        Raises:
            KernelDiedError: if nothing ends it.
        """
        begun, interrupts = time.monotonic(), 0
        while self.reply_to(request) is None:
            waited = time.monotonic() - begun
            if waited > GRACE:
                raise KernelDiedError
            if waited >= AGAIN * (interrupts + 0.1):
                self.manager.interrupt_kernel()
                interrupts += 1


class Examination:
    """A submission's kernel and that of the tests, and the line between them."""

    def __init__(self, student, judge):
        self.student, self.judge = student, judge
        self.serving, self.gone = None, False

    def run(self, source, timeout):
        """Executes a cell of the student's."""
        return self.student.execute(source, timeout)

    def prepare(self, source, timeout):
        """Executes a cell of the instructor's that is no test, with the student's functions at hand."""
        return self.judge.execute(source, timeout, [self.student], self._deserted)

    def _deserted(self):
        """Whether the student's kernel has done with what it was asked, though nobody has told it to."""
        if self.serving is not None and not self.gone:
            with contextlib.suppress(KernelDiedError):  # which the tests notice
                self.gone = self.student.reply_to(self.serving, wait=0) is not None
        return self.gone

    @contextlib.contextmanager
    def answering(self, names, own_work):
        """While this lasts, the student's process answers the tests, which find its functions under their names.

        Yields:
            Whether the functions could be found, as an :class:`Outcome`.

        Raises:
            KernelDiedError: if the student's process ends, or goes on when it should not.
        """
        self.gone = False
        self.serving = self.student.begin(f"__import__('_grading').serve({list(own_work)!r})", silent=True)
        yield self.prepare(f"__import__('_grading').bind({list(names)!r}, {self.student.pid})", CONNECT)
        self.judge.execute("__import__('_grading').rest()", CONNECT)
        if not self.gone:
            self.student.wait(self.serving)
        self.serving, self.gone = None, False


@contextlib.contextmanager
def examination(own_work=()):
    """Starts both kernels, and stops them.

    Args:
        own_work: dotted names of the package's functions that raise where a student's code calls them, when asked.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        kernels, stack = _both(Path(folder), own_work)
        with stack:
            yield Examination(*kernels)


def _both(folder, own_work):
    """Both kernels, ready, and what stops them; a port that another process has taken meanwhile is no failure."""
    for number in range(STARTS):
        with contextlib.ExitStack() as stack:
            kernels, lines = [], socket.socketpair()
            for role, line in zip(("student", "judge"), lines, strict=True):
                kernels.append(Kernel(role, folder / f"{number}" / role, line, own_work))
                stack.callback(kernels[-1].stop)
                line.close()
            try:
                for kernel in kernels:
                    kernel.ready()
            except RuntimeError as error:
                if TAKEN not in str(error) or number == STARTS - 1:
                    raise
                continue
            return kernels, stack.pop_all()
    raise AssertionError("unreachable")


def _environment(folder):
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    environment.pop("PYTHONOPTIMIZE", None)  # takes the assertions out of the tests
    ready = environment.get("MPLCONFIGDIR")
    if ready and Path(ready).is_dir():  # with the list of fonts, which takes a while to make
        shutil.copytree(ready, folder / "matplotlib", dirs_exist_ok=True)
    names = {
        "HOME": "home",
        "TMPDIR": "temporary",
        "IPYTHONDIR": "ipython",
        "MPLCONFIGDIR": "matplotlib",
        "JUPYTER_CONFIG_DIR": "jupyter/config",
        "JUPYTER_DATA_DIR": "jupyter/data",
        "JUPYTER_RUNTIME_DIR": "jupyter/runtime",
    }
    return environment | {variable: str(folder / name) for variable, name in names.items()}


def _computed(processes):
    """Processor seconds of processes and of those that they have started."""
    seconds = 0.0
    for pid in processes:
        with contextlib.suppress(psutil.Error):
            for process in (own := psutil.Process(pid), *own.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    seconds += sum(process.cpu_times()[:4])
    return seconds
