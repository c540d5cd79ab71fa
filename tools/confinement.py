"""Shuts a process off from the files, the processes and the network of its machine, as far as the kernel can.

Linux has Landlock for this since version 5.13 (2021), without privileges and without a container: a process gives up
rights, for itself and all that it starts, and cannot have them back. Signals and abstract sockets join in version 6.12,
TCP in 6.7. Elsewhere nothing is shut, and :func:`confine` says so.

Source: Salaün, "Landlock: unprivileged access control", Documentation/userspace-api/landlock.rst of Linux.
"""

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["confine", "level"]

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_NO_NEW_PRIVILEGES = 38
_PATH_BENEATH = 1

_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE
_CONNECT = 1 << 1
_SOCKETS_AND_SIGNALS = 3


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _call(number, *arguments):
    library = ctypes.CDLL(None, use_errno=True)
    result = library.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def level():
    """The version of Landlock that this machine offers, 0 for none."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        return _call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except (OSError, AttributeError):
        return 0


def confine(readable, writable):
    """Gives up, for this process and those it starts, all files but these, signals to others, and new TCP connections.

    The names in folders stay visible, their contents do not. To be called before there is a second thread.

    Args:
        readable: folders and files that may be read and executed.
        writable: folders and files that may be changed as well.

    Returns:
        The version of Landlock, 0 where there is none and nothing has changed.
    """
    version = level()
    if not version:
        return 0
    everything = (1 << (13 if version < 2 else 14 if version < 3 else 15)) - 1
    rules = _Ruleset(everything, _CONNECT if version >= 4 else 0, _SOCKETS_AND_SIGNALS if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _call(_CREATE, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    read = _EXECUTE | _READ | _LIST
    for path, allowed in [("/", _LIST), *((p, read) for p in readable), *((p, everything) for p in writable)]:
        _allow(ruleset, Path(path), allowed & everything)
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    _call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)
    return version


def _allow(ruleset, path, allowed):
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    rule = _Beneath(allowed if path.is_dir() else allowed & _OF_FILES, parent)
    _call(_ADD, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    os.close(parent)
