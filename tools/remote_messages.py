r"""What two processes may tell each other: numbers, and no more than numbers.

A message is a tree of JSON and blocks of bytes on a :class:`Wire`. A :class:`Parcel` makes the tree from values that
can be written down without running anything: tensors, arrays, numbers, strings, tuples, lists and dicts of them; for
whatever else there is, a stand-in is named. :class:`Opened` makes values of the tree again, of these kinds alone.
"""

import inspect
import itertools
import json
import select
import struct
import types

import numpy as np
import torch

__all__ = [
    "LONGEST",
    "Opened",
    "Parcel",
    "StandIn",
    "StudentError",
    "Wire",
    "as_bytes",
    "cut",
    "described",
    "from_bytes",
    "restored",
]

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
}

# What a message may hold, in the words of :class:`Parcel`.
_KINDS = {
    *("plain", "int", "float", "complex", "list", "tuple", "set", "dict"),
    *("tensor", "array", "generator", "torch", "yours", "proxy", "value"),
}

_FRAME = struct.Struct("!QI")
_SIZE = struct.Struct("!Q")
_LARGEST = 2**31
_POLL = 0.1
_ITEMS = 100_000
LONGEST = 4000


class StudentError(Exception):
    """What a student's process answered cannot be used, or it no longer answers."""


class Wire:
    """Messages over a socket: a tree of JSON and blocks of bytes."""

    def __init__(self, stream):
        self.stream, self.buffer, self.sending, self.pending = stream, bytearray(), False, False

    def send(self, message, blobs):
        """Sends a tree and its blocks; an interrupt that came meanwhile is raised when all has gone."""
        text = json.dumps(message).encode()
        parts = [_FRAME.pack(len(text), len(blobs)), *(_SIZE.pack(len(blob)) for blob in blobs), text, *blobs]
        self.sending = True
        try:
            self.stream.sendall(b"".join(parts))
        except OSError as error:
            raise StudentError(f"the other process is gone: {error}") from None
        finally:
            self.sending = False
        if self.pending:
            self.pending = False
            raise KeyboardInterrupt

    def receive(self):
        """Waits for a message: its tree and its blocks."""
        size, count = _FRAME.unpack(self._take(_FRAME.size, drop=False)[: _FRAME.size])
        if size > _LARGEST or count > 2**20:
            raise StudentError("what came is no message")
        head = _FRAME.size + count * _SIZE.size
        sizes = struct.unpack(f"!{count}Q", self._take(head, drop=False)[_FRAME.size : head])
        if sum(sizes) > _LARGEST:
            raise StudentError("what came is too large")
        whole = self._take(head + size + sum(sizes), drop=True)
        ends = list(itertools.accumulate(sizes, initial=head + size))
        return json.loads(whole[head : head + size]), [whole[a:b] for a, b in itertools.pairwise(ends)]

    def _take(self, count, drop):
        # Short waits: an exception planted in this thread, or a signal, is then heard.
        while len(self.buffer) < count:
            if not select.select([self.stream], [], [], _POLL)[0]:
                continue
            try:
                chunk = self.stream.recv(2**20)
            except OSError as error:
                raise StudentError(f"the other process is gone: {error}") from None
            if not chunk:
                raise StudentError("not finished: the other process has ended")
            self.buffer += chunk
        taken = bytes(self.buffer[:count])
        if drop:
            del self.buffer[:count]
        return taken


class StandIn:
    """Stands for an object of the other side."""

    def __init__(self, peer, number, name, parameters):
        self._peer, self._number, self.__name__ = peer, number, name
        if parameters is not None:
            self.__signature__ = _signature(parameters)


def _signature(parameters):
    return inspect.Signature(
        [
            inspect.Parameter(str(name), inspect._ParameterKind(kind), **({"default": None} if optional else {}))
            for name, kind, optional in parameters
        ]
    )


class Parcel:
    """What one message carries beside its tree: tensors, which autograd follows, and blocks of bytes."""

    def __init__(self, peer):
        self.peer, self.blobs, self.tensors, self.generators, self.same = peer, [], [], [], {}

    def blob(self, content):
        """Keeps a block of bytes; its place among them."""
        self.blobs.append(content)
        return len(self.blobs) - 1

    def pack(self, value):
        """A value as a tree of lists, whose first entry says what it is."""
        if value is None or isinstance(value, (bool, str)):
            return ["plain", cut(value)]
        if isinstance(value, int):
            return ["int", hex(int(value))]
        if isinstance(value, float) and not isinstance(value, np.generic):
            return ["float", float(value).hex()]
        if isinstance(value, complex) and not isinstance(value, np.generic):
            return ["complex", value.real.hex(), value.imag.hex()]
        if isinstance(value, torch.Tensor):
            if id(value) not in self.same:
                self.same[id(value)] = len(self.tensors)
                self.tensors.append(value)
            return ["tensor", self.same[id(value)]]
        if isinstance(value, (np.ndarray, np.generic)):
            return self._array(value)
        if isinstance(value, torch.Generator):
            return self._generator(value)
        if isinstance(value, (list, tuple, set, frozenset)):
            kind = "list" if isinstance(value, list) else "tuple" if isinstance(value, tuple) else "set"
            return [kind, [self.pack(part) for part in value]]
        if isinstance(value, dict):
            return ["dict", [[self.pack(key), self.pack(part)] for key, part in value.items()]]
        if isinstance(value, (torch.dtype, torch.device)):
            return ["torch", type(value).__name__, str(value).removeprefix("torch.")]
        if isinstance(value, (types.GeneratorType, range, map, zip, filter)):
            return ["list", [self.pack(part) for part in itertools.islice(value, _ITEMS)]]
        if isinstance(value, StandIn):
            return ["yours", object.__getattribute__(value, "_number")]
        return self.peer.describe(value, self)

    def _array(self, value):
        if value.dtype.hasobject:
            raise TypeError("an array of Python objects cannot be handed over, only one of numbers")
        array = np.asarray(value)
        blob = self.blob(np.ascontiguousarray(array).tobytes())
        return ["array", array.dtype.str, list(array.shape), blob, isinstance(value, np.generic)]

    def _generator(self, value):
        if id(value) not in self.same:
            self.same[id(value)] = len(self.generators)
            self.generators.append(value)
            return ["generator", len(self.generators) - 1, str(value.device), self.blob(as_bytes(value.get_state()))]
        return ["generator", self.same[id(value)], None, None]


class Opened:
    """The other end: a tree back into values."""

    def __init__(self, peer, blobs, tensors):
        self.peer, self.blobs, self.tensors, self.generators = peer, blobs, tensors, []

    def unpack(self, tree):
        """The value of a tree."""
        kind, *rest = tree
        if kind not in _KINDS:
            raise StudentError("what came is nothing that can be sent")
        return getattr(self, f"_{kind}")(*rest)

    def _plain(self, value):
        return value if value is None or isinstance(value, (bool, str)) else None

    def _int(self, text):
        return int(text, 16)

    def _float(self, text):
        return float.fromhex(text)

    def _complex(self, real, imaginary):
        return complex(float.fromhex(real), float.fromhex(imaginary))

    def _tensor(self, index):
        return self.tensors[index]

    def _array(self, kind, shape, blob, scalar):
        dtype = np.dtype(kind)
        if dtype.hasobject:
            raise StudentError("an array of objects came")
        array = np.frombuffer(self.blobs[blob], dtype=dtype).reshape(shape).copy()
        return array[()] if scalar else array

    def _generator(self, index, device, blob):
        if device is not None:
            generator = torch.Generator(device)
            generator.set_state(from_bytes(self.blobs[blob]))
            self.generators.append(generator)
        return self.generators[index]

    def _list(self, parts):
        return [self.unpack(part) for part in parts]

    def _tuple(self, parts):
        return tuple(self._list(parts))

    def _set(self, parts):
        return set(self._list(parts))

    def _dict(self, parts):
        return {self.unpack(key): self.unpack(value) for key, value in parts}

    def _torch(self, kind, name):
        return _DTYPES[name] if kind == "dtype" else torch.device(name)

    def _yours(self, number):
        return self.peer.objects[number]

    def _proxy(self, number, name, parameters, called, parts):
        return self.peer.proxy(number, name, parameters, called, parts, self)

    def _value(self, blob):
        return self.peer.public(self.blobs[blob], self)


def cut(value):
    """A text of a length and an alphabet that can be sent; other values as they are."""
    return value[: 2**20].encode("utf-8", "replace").decode() if isinstance(value, str) else value


def as_bytes(tensor):
    """The content of a tensor of bytes."""
    return bytes(tensor.numpy())


def from_bytes(content):
    """A tensor of bytes with this content."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def described(tensor, blobs):
    """A tensor without its graph, as an entry of a message."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise TypeError(f"a tensor of layout {tensor.layout} cannot be handed over: make it dense")
    entry = {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "device": str(tensor.device),
    }
    if not tensor.is_meta:
        plain = tensor.resolve_conj().resolve_neg().cpu().contiguous()
        blobs.append(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
        entry["blob"] = len(blobs) - 1
    return entry


def restored(entry, blobs):
    """The tensor that :func:`described` has described."""
    dtype, shape = _DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
    if "blob" not in entry:
        return torch.empty(shape, dtype=dtype, device="meta")
    content = blobs[entry["blob"]]
    flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
    return flat.reshape(shape).to(entry["device"])
