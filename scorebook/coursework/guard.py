r"""Student code under guard: it may raise, loop for ever, answer nonsense or change its inputs, and a report follows.

A check runs in a thread of its own while the caller watches the clock. A thread cannot be killed from outside, but an
exception can be planted in it, which ends a loop at its next line of Python; code that swallows even that, or sleeps,
is left behind in the thread, which ends with the process, and the report says so. A signal would interrupt more, but
only in the main thread, and would take the alarm from whoever else had set it.

Only time spent in the student's code counts against the limit, and of that only what its thread computes: beside other
jobs a right answer takes longer by the clock on the wall, not by the processor's. Code that waits instead of computing
is given up after ten times the limit on the wall.

The global seed is put back where it was.
"""

import ctypes
import dataclasses
import functools
import inspect
import numbers
import re
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorebook.coursework.reports import Report
from scorebook.lab.types import Number

__all__ = ["Refusal", "Student", "under_guard"]

_POLL = 0.05
_ATTEMPTS = 40

# Times the limit that code may take on the wall: a busy machine slows it less, and it does not sleep for ever.
_PATIENCE = 10


class Refusal(Exception):
    """Student code gave nothing that could be measured.

    Args:
        diagnosis: what is wrong, in plain words.
        mistake: key of the mistake, where it is a known one.
        cause: the exception behind it.
    """

    def __init__(self, diagnosis: str, mistake: str | None = None, cause: BaseException | None = None):
        super().__init__(diagnosis)
        self.diagnosis, self.mistake, self.cause = diagnosis, mistake, cause


class _TimeUp(BaseException):
    """Planted in a thread whose time is up; no ``except Exception`` catches it."""


class _Stopwatch:
    """Adds up what a clock shows between starts and stops; another thread may read it."""

    def __init__(self):
        self._spent, self._running = 0.0, None

    @property
    def seconds(self) -> float:
        running = self._running
        if running is None:
            return self._spent
        clock, since = running
        try:
            return self._spent + clock() - since
        except OSError:  # the clock of a thread that has ended since
            return self._spent

    def start(self, clock):
        self._running = clock, clock()

    def stop(self):
        spent = self.seconds
        self._running, self._spent = None, spent


def _thread_clock():
    """The processor time of the thread that asks, as a function that any thread can call."""
    try:
        clock = time.pthread_getcpuclockid(threading.get_ident())
    except AttributeError:  # macOS and Windows know no clock of another thread
        return time.process_time
    return functools.partial(time.clock_gettime, clock)


def _clock_of(function):
    """The time of this thread and, where a function computes in another process, what that process computes too."""
    here, elsewhere = _thread_clock(), getattr(type(function), "seconds_elsewhere", None)
    return here if elsewhere is None else lambda: here() + elsewhere(function)


class Student:
    """Calls a student's code and refuses what cannot be measured.

    Args:
        signature: how the code is called, in words, for the messages.
        chapter: title of the chapter that treats what is asked for, and of its section; a report on a wrong answer
            leads there.
    """

    def __init__(self, signature: str, chapter: tuple[str, str] | None = None):
        self.signature, self.chapter = signature, chapter
        self._computing, self._waiting = _Stopwatch(), _Stopwatch()
        self._depth = 0

    @property
    def seconds(self) -> float:
        """Processor seconds spent in the student's code so far, the call that now runs included."""
        return self._computing.seconds

    @property
    def wall_seconds(self) -> float:
        """The same by the clock on the wall, what its thread slept or waited for the processor included."""
        return self._waiting.seconds

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function and return what it returns.

        A keyword ``generator`` is passed only if the function takes it; the global seed serves those that do not.

        Raises:
            Refusal: if the code raises, changes a tensor that it was given, or has another signature.
        """
        if "generator" in kwargs and not _takes(function, "generator"):
            kwargs = {name: value for name, value in kwargs.items() if name != "generator"}
        kept = [(value, value.detach().clone()) for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        self._enter(function)
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            raise self._refused(function, args, kwargs, error) from error
        finally:
            self._leave()
        for number, (given, before) in enumerate(kept):
            if given.shape != before.shape or not torch.equal(given.detach(), before):
                name = _name_of(function, args, kwargs, kept[number][0])
                raise Refusal(
                    f"your code changes its argument {name} in place: work on a copy, as in x = x + ..., not x += ...",
                    "mutation",
                )
        return result

    def tensor(self, result: Any, shape: Sequence[int], what: str) -> Tensor:
        """Take a result as a tensor in double precision, without its graph.

        Raises:
            Refusal: if it is no tensor, has another shape than ``shape``, or holds NaN or infinity.
        """
        values = self.connected(result, shape, what).detach()
        bad = int((~torch.isfinite(values)).sum())
        if bad:
            raise Refusal(f"{what} holds NaN or infinity in {bad} of {values.numel()} entries", "not_finite")
        return values.to("cpu", torch.float64)

    def connected(self, result: Any, shape: Sequence[int], what: str) -> Tensor:
        """Take a result as a tensor and leave its graph.

        Raises:
            Refusal: if it is no real tensor or has another shape than ``shape``.
        """
        shape = tuple(shape)
        if result is None:
            raise Refusal(f"{what} is None: is a return statement missing?", "type")
        if not isinstance(result, Tensor):
            raise Refusal(f"{what} must be a tensor of shape {shape}, got {type(result).__name__}", "type")
        if result.is_meta or result.layout != torch.strided:
            raise Refusal(f"{what} must be a plain tensor with values, got {result.layout} on {result.device}", "type")
        if result.is_complex():
            raise Refusal(f"{what} must be real, got {result.dtype}", "type")
        if tuple(result.shape) != shape:
            raise Refusal(f"{what} must have shape {shape}, got {tuple(result.shape)}{_hint(result, shape)}", "shape")
        return result

    def _enter(self, function):
        if self._depth == 0:
            self._computing.start(_clock_of(function))
            self._waiting.start(time.monotonic)
        self._depth += 1

    def _leave(self):
        self._depth -= 1
        if self._depth == 0:
            self._computing.stop()
            self._waiting.stop()

    def _refused(self, function, args, kwargs, error) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, NotImplementedError):
            return Refusal("there is no answer yet: the code raised NotImplementedError", "unanswered", error)
        if isinstance(error, TypeError) and not _fits(function, args, kwargs):
            return Refusal(f"your code could not be called as {self.signature}: {error}", "signature", error)
        text = f"your code raised {type(error).__name__}: {error}{_place(error)}"
        if "underflow in dt" in str(error):
            text += "; an adaptive solver needs a velocity that is a function, so draw a probe once and keep it"
            return Refusal(text, "fresh_probe", error)
        return Refusal(text, "exception", error)


def under_guard(name: str, check: Callable[[], Report], student: Student, *, time_limit: Number | None) -> Report:
    """Run a check on student code and return its report, whatever that code does.

    Args:
        name: the check.
        check: callable without arguments that returns a :class:`~scorebook.coursework.reports.Report`; it calls the
            student's code through ``student``.
        student: the caller of the student's code, whose clock counts.
        time_limit: processor seconds for the student's code, ten times as many on the wall; None for no limit.

    Returns:
        The report of the check, or one that says why there is none.

    Raises:
        ValueError: if ``time_limit`` is neither None nor a positive number.
    """
    if time_limit is not None and (
        isinstance(time_limit, bool) or not isinstance(time_limit, numbers.Real) or not time_limit > 0
    ):
        raise ValueError(f"time_limit must be a positive number of seconds or None, got {time_limit!r}")
    # Not Thread.join: interrupted by the reader, it takes a thread that runs for one that has ended (Python 3.11).
    outcome: dict[str, Any] = {}
    ended = threading.Event()

    def run():
        try:
            outcome["report"] = check()
        except Refusal as refusal:
            outcome["report"] = Report(
                name, False, f"{refusal.diagnosis}.", mistake=refusal.mistake, cause=refusal.cause
            )
        except BaseException as error:
            outcome["error"] = error
        finally:
            ended.set()

    seed = torch.random.get_rng_state()
    default = torch.get_default_dtype()
    thread = threading.Thread(target=run, name=f"scorebook {name}", daemon=True)
    try:
        thread.start()
        while not ended.is_set():
            if time_limit is not None:
                if student.seconds >= time_limit:
                    return _out_of_time(
                        name, f"computed for more than {time_limit:g} seconds (time_limit)", thread, ended
                    )
                if student.wall_seconds >= _PATIENCE * time_limit:
                    waited = f"{_PATIENCE * time_limit:g} seconds ({_PATIENCE} times time_limit), most of them idle"
                    return _out_of_time(name, f"was waited for during {waited}", thread, ended)
            ended.wait(_POLL)
    except BaseException:  # the reader's own interrupt: nobody is left to hear the answer
        _end(thread, ended)
        raise
    finally:
        torch.random.set_rng_state(seed)
        torch.set_default_dtype(default)
    if "error" not in outcome:
        return _leading(outcome["report"], student)
    error = outcome["error"]
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, Exception):
        return Report(name, False, f"the check broke off over what your code returned: {said}.", cause=error)
    return Report(name, False, f"your code ended the program: it raised {said}.", mistake="exit", cause=error)


def _leading(report, student) -> Report:
    """A report that says, if the answer is wrong, where the book treats it."""
    if report.passed or student.chapter is None or report.mistake == "unanswered":
        return report
    chapter, section = student.chapter
    return dataclasses.replace(report, diagnosis=f"{report.diagnosis} See “{section}” in the chapter {chapter}.")


def _out_of_time(name, what, thread, ended) -> Report:
    left = "It could not be stopped and goes on in a thread of its own until this process ends."
    return Report(
        name,
        False,
        f"your code {what} and was given up: is there a loop that never ends, or a wait for nothing?"
        f"{'' if _end(thread, ended) else ' ' + left}",
        mistake="time",
    )


def _end(thread, ended) -> bool:
    for _ in range(_ATTEMPTS):
        if ended.is_set():
            break
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(_TimeUp))
        ended.wait(_POLL)
    return ended.is_set()


def _takes(function, name) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _fits(function, args, kwargs) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _name_of(function, args, kwargs, tensor) -> str:
    try:
        bound = inspect.signature(function).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return "x"
    for name, value in bound.items():
        if value is tensor:
            return name
        if isinstance(value, tuple):  # of a function that takes *args
            return f"number {1 + next((k for k, part in enumerate(value) if part is tensor), 0)}"
    return next((name for name, value in kwargs.items() if value is tensor), "x")


def _place(error) -> str:
    """Where in the student's own code it happened: the innermost frame outside this package and the libraries.

    An exception that came from another process says it in an attribute ``place``.
    """
    told = getattr(error, "place", None)
    if isinstance(told, str):
        return told
    others = (str(Path(__file__).parent.parent), sysconfig.get_path("stdlib"), "<frozen", "<grading")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(others) and "site-packages" not in frame.filename:
            name = Path(frame.filename).name
            where = "its cell" if re.fullmatch(r"\d+\.py", name) or name.startswith("<ipython") else name
            line = f": {frame.line}" if frame.line else ""
            return f" (line {frame.lineno} of {where}, in {frame.name}{line})"
    return ""


def _hint(result, shape) -> str:
    if result.ndim == 0 and shape:
        return ": one number for the whole batch instead of one for each point"
    if len(shape) == 1 and tuple(result.shape) == (*shape, 1):
        return ": drop the last axis, or it meets a row and makes a table"
    if len(shape) == 1 and tuple(result.shape) == (shape[0], shape[0]):
        return ": a column met a row, (B, 1) and (B,), and made a table"
    return ""
