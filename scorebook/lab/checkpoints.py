"""Checkpoints on a disk that may be full, beside processes that may be killed, under a person who presses Ctrl-C.

What stands under the name of a checkpoint is a whole one, at any moment: it is written beside its place, forced to the
disk, and takes the name in one stroke. Bytes that have changed since are noticed, and nothing that is read is executed.
:func:`~scorebook.lab.training.fit` says what is in it.
"""

import os
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from glob import escape
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Self
from zipfile import ZipFile

import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["HeldInterrupt", "clear_leftovers", "read", "readable", "usable_path", "write"]


def usable_path(checkpoint: str | os.PathLike[str]) -> Path:
    """The path with its links followed, once it is known that a file can be made beside it."""
    path = Path(checkpoint).resolve()
    if path.is_dir():
        raise ValueError(f"checkpoint must be the path of a file, got the folder {path}")
    if path.exists() and not path.is_file():
        raise ValueError(f"checkpoint must be the path of a file, got the pipe or device {path}")
    clear_leftovers(path)
    trial = _fresh(path)
    try:
        trial.touch()
        trial.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"checkpoint must lie in a folder that exists and can be written, got {path} ({reason})"
        ) from error
    return path


def read(path: str | os.PathLike[str], parts: Mapping[str, set[str]]) -> dict[str, Any]:
    """What a checkpoint holds, if it is whole and nobody has changed it.

    Args:
        path: of the file.
        parts: for each format that is known, by the name in its entry ``format``, the entries that it must have.

    Raises:
        ValueError: if it is damaged, of another kind, or needs code to be read.
    """
    try:
        with ZipFile(path) as archive:  # torch.load takes a byte that has changed on the disk for a weight
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"checkpoint {path} cannot be read ({reason}); it is left as it is") from error
    if not isinstance(state, dict) or state.keys() != parts.get(str(state.get("format"))):
        raise ValueError(f"checkpoint {path} is not a whole one of {' or '.join(parts)}; it is left as it is")
    return state


def readable(name: str, value: object) -> None:
    """Raise a ``ValueError`` if a checkpoint that holds the value could not be read again."""
    content = BytesIO()
    try:
        torch.save(value, content)
        content.seek(0)
        torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{name} cannot be kept in a checkpoint, from which only tensors, numbers, strings and their lists, "
            f"tuples and dictionaries are read again, so that no file can run code; got a {type(value).__name__} "
            f"({type(error).__name__})"
        ) from error


def write(state: dict[str, Any], path: Path) -> None:
    """Replace ``path`` in one stroke: a crash leaves the old file or the new one, never half of one."""
    content = BytesIO()
    torch.save(state, content)
    fresh = _fresh(path)
    try:
        with _opened(fresh) as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:  # still under the lock: without it the file passes for a leftover
                os.replace(fresh, path)
        if fcntl is None:  # there an open file cannot be renamed
            os.replace(fresh, path)
    except OSError as error:
        earlier = "the one written before is whole" if path.is_file() else "there is no earlier one"
        raise OSError(
            f"checkpoint {path} of step {state['step']} could not be written ({error.strerror or error}); {earlier}. "
            "Make room there or name another path, and call fit again: it goes on from the checkpoint it finds"
        ) from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def _fresh(path: Path) -> Path:
    """Where this process writes a checkpoint before it takes its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.new")


def _opened(fresh: Path) -> BinaryIO:
    """A new file under a lock. Until it has the lock, whoever clears leftovers may take it away: then once more."""
    while True:
        file = fresh.open("wb")
        with suppress(OSError):  # some network folders have no locks
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)  # the one who clears holds it for a moment
        if _is_at(file, fresh):
            return file
        file.close()


def clear_leftovers(path: Path) -> None:
    """Remove what killed processes left of a checkpoint; one that is being written is locked."""
    for leftover in path.parent.glob(f".{escape(path.name)}.*.new"):
        with suppress(OSError):
            if fcntl is None:  # there an open file cannot be removed
                leftover.unlink()
                continue
            with leftover.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(file, leftover):
                    leftover.unlink()


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether the open file is the one that has this name now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


class HeldInterrupt:
    """Hold Ctrl-C back until the step under way is complete; a second one acts at once."""

    def __enter__(self) -> Self:
        self.came = False
        self.held = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self.held:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self.held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if kind is None:
            self.deliver()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def deliver(self) -> None:
        """Raise the ``KeyboardInterrupt`` that was held back, if one was."""
        if self.came:
            raise KeyboardInterrupt
