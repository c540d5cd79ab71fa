"""What a run depends on beside its weights, as lines of text that can be kept and compared.

A tensor becomes its shape, its type and a digest of its bytes. A module becomes the classes of its parts and the
attributes that are neither parameters nor buffers: the rate of a dropout, the scale of the data. A function becomes its
name, a digest of its compiled code, and what it refers to: its defaults, what it encloses, the global names of its own
file. Each line has a path for a name, such as ``loss.keywords['weighting']``, so that a difference can be pointed at.

What cannot be compared between two processes (generators, devices, open files, what PyTorch compiles) has no line, or
the name of its class alone.
"""

import functools
import hashlib
import sys
from collections.abc import Iterable
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["describe", "difference", "fingerprint"]

_LONGEST, _DEEPEST, _MOST = 200, 8, 10_000
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) | {"device"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, torch.dtype, torch.Size)
_PACKAGES = ("scorebook", "torch")  # their code changes with a version, not with a run
_WITHOUT_LINE = (ModuleType, torch.device, torch.Generator)
_PYTHON = f"{sys.implementation.cache_tag} {'with' if __debug__ else 'without'} asserts"  # bytecode depends on it


def fingerprint(tensor: Tensor) -> str:
    """Type, shape and a digest of the values of a tensor, the same on every device.

    Args:
        tensor: of any type and layout; one without values (on the ``meta`` device) has no digest.
    """
    what = f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
    if tensor.is_meta:
        return what
    digest = hashlib.sha256()
    plain = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    for part in plain.resolve_conj().resolve_neg().reshape(-1).split(2**24):  # so that not all is copied at once
        digest.update(part.cpu().contiguous().view(torch.uint8).numpy())
    return f"{what} {digest.hexdigest()[:16]}"


def describe(
    name: str,
    value: object,
    *,
    apart_from: Iterable[object] = (),
    read_before: dict[int, tuple[Tensor, int, str]] | None = None,
) -> dict[str, str]:
    """Lines of text that say what a value is, down to all that it holds.

    Args:
        name: where the paths of the lines begin.
        value: anything: a module, a function, a number, an object of a class of yours.
        apart_from: objects that get no line wherever they are met.
        read_before: dictionary that keeps what was read of tensors, for a value that is described several times: a
            tensor that nobody has written to since is not read again.

    Returns:
        The lines, by path.
    """
    description = _Description(apart_from, {} if read_before is None else read_before)
    description.add(name, value, 0)
    return description.lines


def difference(before: dict[str, str], now: dict[str, str]) -> str | None:
    """The first line on which two descriptions differ, in words; ``None`` if they agree.

    A line that only one of them has is passed over: what holds parts has a line that tells which. So is compiled code
    where it was compiled by another version of Python.
    """
    for path, text in before.items():
        if path.endswith(": code") and before.get("python") != now.get("python"):
            continue
        if path != "python" and now.get(path, text) != text:
            return f"{path} was {text}, is {now[path]}"
    return None


class _Description:
    def __init__(self, apart_from: Iterable[object], read_before: dict[int, tuple[Tensor, int, str]]):
        self.lines, self.read_before = {"python": _PYTHON}, read_before
        self.seen = {id(thing): thing for thing in apart_from}

    def add(self, path: str, value: object, depth: int) -> None:
        if type(value) in _PLAIN:
            self.line(path, repr(value))
        elif isinstance(value, Enum):
            self.line(path, str(value))
        elif isinstance(value, Tensor):
            if id(value) not in self.seen:
                self.line(path, self.read(value))
        elif isinstance(value, (np.ndarray, np.generic)):
            self.line(path, f"{value.dtype} {value.shape} {_digest(value.tobytes())}")
        elif isinstance(value, (type, BuiltinFunctionType)):
            self.line(path, value.__qualname__)
        elif isinstance(value, _WITHOUT_LINE) or id(value) in self.seen:
            return
        elif depth < _DEEPEST and len(self.lines) < _MOST:
            self.seen[id(value)] = value
            self.parts(path, value, depth + 1)

    def line(self, path: str, text: str) -> None:
        self.lines[path] = text if len(text) <= _LONGEST else f"{text[:40]}... {_digest(text.encode())}"

    def read(self, tensor: Tensor) -> str:
        if tensor.is_inference():  # nobody counts how often it was written to
            return fingerprint(tensor)
        found = self.read_before.get(id(tensor))
        if found is None or found[0] is not tensor or found[1] != tensor._version:
            found = self.read_before[id(tensor)] = tensor, tensor._version, fingerprint(tensor)
        return found[2]

    def parts(self, path: str, value: object, depth: int) -> None:
        if isinstance(value, functools.partial):
            self.add(path, value.func, depth)
            given = ", ".join([f"{len(value.args)} arguments", *sorted(value.keywords)])
            self.line(path, f"{self.lines.get(path, 'partial')} with {given}")
            for number, argument in enumerate(value.args):
                self.add(f"{path}.args[{number}]", argument, depth)
            for name, argument in value.keywords.items():
                self.add(f"{path}.keywords[{name!r}]", argument, depth)
        elif isinstance(value, MethodType):
            self.add(path, value.__func__, depth)
            self.add(f"{path}.self", value.__self__, depth)
        elif isinstance(value, FunctionType):
            self.function(path, value, depth)
        elif isinstance(value, (list, tuple)):
            self.line(path, f"{type(value).__name__} of {len(value)}")
            for number, part in enumerate(value):
                self.add(f"{path}[{number}]", part, depth)
        elif isinstance(value, dict):
            self.line(path, f"{type(value).__name__} of {', '.join(map(_name, value))}")
            for key, part in value.items():
                self.add(f"{path}[{_name(key)}]", part, depth)
        elif isinstance(value, (set, frozenset)):
            self.line(path, f"{type(value).__name__} of {', '.join(sorted(map(_name, value)))}")
        else:
            self.thing(path, value, depth)

    def function(self, path: str, function: FunctionType, depth: int) -> None:
        code, own = function.__code__, function.__globals__
        self.line(path, function.__name__)
        positional = code.co_varnames[: code.co_argcount]
        defaults = function.__defaults__ or ()
        given = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
        enclosed = {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                enclosed[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        named = {}
        if (function.__module__ or "").partition(".")[0] not in _PACKAGES:
            self.lines[f"{path}: code"] = _digest(_compiled(code))
            named = {name: own[name] for name in sorted(_names(code)) if name in own}
        for name, part in (given | (function.__kwdefaults__ or {}) | enclosed | named).items():
            if isinstance(part, FunctionType) and part.__globals__ is not own:
                self.line(f"{path}.{name}", part.__name__)  # another file's; it is not this run that changes it
            else:
                self.add(f"{path}.{name}", part, depth)

    def thing(self, path: str, value: object, depth: int) -> None:
        """A module, or an object of some class."""
        kind = type(value)
        self.line(path, kind.__qualname__)
        if kind.__module__.startswith("torch._"):
            return
        attributes = vars(value) if hasattr(value, "__dict__") else {}
        if isinstance(value, nn.Module):
            attributes = {name: part for name, part in attributes.items() if name not in _OF_EVERY_MODULE}
            children = dict(value.named_children())
            self.line(f"{path}: modules", ", ".join(children) or "none")
            attributes |= children
            depth = min(depth, 1)  # modules hold modules to any depth
        elif isinstance(call := vars(kind).get("__call__"), FunctionType):
            self.add(f"{path}.__call__", call, depth)
        self.line(f"{path}: attributes", ", ".join(sorted(attributes)) or "none")
        for name, part in attributes.items():
            self.add(f"{path}.{name}", part, depth)


def _names(code: CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _compiled(code: CodeType) -> bytes:
    parts = [code.co_code, repr((code.co_names, code.co_varnames)).encode()]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            parts.append(_compiled(constant))
        else:
            parts.append(repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant).encode())
    return b"\0".join(parts)


def _name(key: object) -> str:
    return repr(key) if type(key) in _PLAIN else type(key).__name__


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
