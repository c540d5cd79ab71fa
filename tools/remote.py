r"""Two processes that call each other's functions and hand over nothing but numbers.

Grading has a student's notebook in one process and the tests in another. What a test needs of the student is a
function, here a proxy that sends its arguments across and gets back what can be written down without running anything:
tensors, arrays, numbers, strings, tuples, lists and dicts of them. Whatever else a student's function returns stays
where it is, and a proxy stands for it. The side of the tests never unpickles; what it sends may be pickled, for the
student to read.

A function that a test gives to a student's, such as a score, stays with the test: the student's side gets a proxy too,
and each call of it comes back across. Autograd works through both kinds of proxies and so do
``torch.func``'s ``vmap``, ``jvp``, ``grad`` and ``jacrev`` on the student's. The side that computed a value keeps its
graph, called a record; the other holds the value as the output of a :class:`Node`, whose derivatives are questions
about the record. Three questions are enough: what is f(x), what is :math:`v^\top J` (a pull), what is :math:`J u` (a
push); the answer to each has a record of its own.
"""

import builtins
import contextlib
import functools
import inspect
import io
import itertools
import json
import linecache
import os
import pickle
import select
import signal
import socket
import struct
import sys
import threading
import traceback
import types

import numpy as np
import psutil
import torch

__all__ = ["Given", "Judge", "Remote", "Student", "StudentError"]

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
        *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    )
}

# What one side may ask the other.
_ASKED = {"call", "pull", "push", "fetch", "attribute"}

# What a message may hold, in the words of :class:`_Parcel`.
_KINDS = {
    *("plain", "int", "float", "complex", "list", "tuple", "set", "dict"),
    *("tensor", "array", "generator", "torch", "yours", "proxy", "value"),
}

_FRAME = struct.Struct("!QI")
_SIZE = struct.Struct("!Q")
_LARGEST = 2**31
_POLL = 0.1
_ITEMS = 100_000
_LONGEST = 4000

# What a student's exception may be on the side of the tests. None of them is more than a message.
_KNOWN = {name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)}


class StudentError(Exception):
    """What a student's process answered cannot be used, or it no longer answers."""


class _Stopped(BaseException):
    """An exception of the tests on its way through a student's code, which no ``except Exception`` may hold up."""


class _Wire:
    """Messages over a socket: a tree of JSON and blocks of bytes."""

    def __init__(self, stream):
        self.stream, self.buffer, self.sending, self.pending = stream, bytearray(), False, False

    def send(self, message, blobs):
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


class _Parcel:
    """What one message carries beside its tree: tensors, which autograd follows, and blocks of bytes."""

    def __init__(self, peer):
        self.peer, self.blobs, self.tensors, self.generators, self.same = peer, [], [], [], {}

    def blob(self, content):
        self.blobs.append(content)
        return len(self.blobs) - 1

    def pack(self, value):
        """A value as a tree of lists, whose first entry says what it is."""
        if value is None or isinstance(value, (bool, str)):
            return ["plain", _cut(value)]
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
        if isinstance(value, (Given, GivenModule, Remote)):
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
            return ["generator", len(self.generators) - 1, str(value.device), self.blob(_bytes(value.get_state()))]
        return ["generator", self.same[id(value)], None, None]


class _Opened:
    """The other end: a tree back into values."""

    def __init__(self, peer, blobs, tensors):
        self.peer, self.blobs, self.tensors, self.generators = peer, blobs, tensors, []

    def unpack(self, tree):
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
            generator.set_state(_from_bytes(self.blobs[blob]))
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


class _Record:
    """A computation of this side: what came out, and what the other side may differentiate it in."""

    def __init__(self, outputs, inputs):
        self.outputs, self.inputs = outputs, inputs


def _cut(value):
    return value[: 2**20].encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _bytes(tensor):
    return bytes(tensor.numpy())


def _from_bytes(content):
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _described(tensor, blobs):
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


def _restored(entry, blobs):
    dtype, shape = _DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
    if "blob" not in entry:
        return torch.empty(shape, dtype=dtype, device="meta")
    content = blobs[entry["blob"]]
    flat = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
    return flat.reshape(shape).to(entry["device"])


def _floating(tensor):
    return tensor.is_floating_point() or tensor.is_complex()


def _tracked(tensor):
    """Whether somebody may differentiate in a tensor: autograd, or a transform of ``torch.func`` around it."""
    return _floating(tensor) and (tensor.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(tensor))


class Node(torch.autograd.Function):
    """The output of a question to the other side, in the graph of this one.

    The first tensor is an anchor that requires a gradient: the other side's value may depend on parameters of its own.
    """

    @staticmethod
    def forward(question, *tensors):
        """Ask; a first output that nobody uses stands in where the answer holds no tensor."""
        return torch.zeros(()), *question.ask(tensors[1:])

    @staticmethod
    def setup_context(ctx, inputs, output):
        question, *tensors = inputs
        ctx.question = question
        ctx.save_for_backward(*tensors[1:])
        ctx.save_for_forward(*tensors[1:])
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(
            output[0], *(t for t, flag in zip(output[1:], question.connected, strict=True) if not flag)
        )

    @staticmethod
    def backward(ctx, _, *gradients):
        return None, None, *ctx.question.pull(ctx.saved_tensors, gradients)

    @staticmethod
    def jvp(ctx, _, anchor, *tangents):
        return None, *ctx.question.push(ctx.saved_tensors, tangents)

    @staticmethod
    def vmap(info, in_dims, question, anchor, *tensors):
        inner, moved, place = question.batched(info.batch_size, in_dims[2:], tensors)
        outputs = Node.apply(inner, anchor, *moved)
        question.adopt(inner)
        return outputs, (None, *[place] * (len(outputs) - 1))


class _Question:
    """Something to be asked as soon as its tensors are plain ones, and what was answered."""

    def __init__(self, peer, message, blobs, *, record=None, n_inputs=0, layers=(), extras=0):
        self.peer, self.message, self.blobs = peer, message, blobs
        self.n_inputs = n_inputs  # tensors that the answer depends on and the other side has already
        self.layers, self.extras = layers, extras
        self.enabled = torch.is_grad_enabled()
        self.connected, self.record, self.tree, self.opened = [], None, None, None

    def ask(self, tensors):
        """Sends the question and returns the tensors of the answer."""
        blobs = list(self.blobs)
        shipped = [_described(t, blobs) for t in tensors[self.n_inputs :]]
        extra = {"tensors": shipped, "enabled": self.enabled, "layers": self.layers, "extras": self.extras}
        reply, blobs = self.peer.ask({**self.message, **extra}, blobs)
        outputs = [_restored(entry, blobs) for entry in reply["tensors"]]
        self.connected = [
            bool(entry.get("connected")) and _floating(t) for entry, t in zip(reply["tensors"], outputs, strict=True)
        ]
        self.record, self.tree, self.reply, self.opened = reply.get("record"), reply["value"], reply, blobs
        for entry, output in zip(reply["tensors"], outputs, strict=True):
            if entry.get("export") is not None:
                self.peer.imports[entry["export"]] = output
        return outputs

    def adopt(self, inner):
        self.connected, self.record, self.tree = inner.connected, inner.record, inner.tree
        self.reply, self.opened = inner.reply, inner.opened

    def batched(self, size, dims, tensors):
        """The same question about a batch of its tensors, those tensors, and the axis of the batch in the answer."""
        inner = _Question(
            self.peer, self.message, self.blobs, n_inputs=self.n_inputs, layers=self.layers, extras=self.extras
        )
        inner.enabled = self.enabled
        if self.message["kind"] == "call":
            flags = [dim is not None or needed for dim, needed in zip(dims, self.message["needs"], strict=True)]
            inner.layers = (*self.layers, flags)
            return (
                inner,
                [_spread(t, dim, 0, size) if flag else t for t, dim, flag in zip(tensors, dims, flags, strict=True)],
                0,
            )
        known, asked = dims[: self.n_inputs], dims[self.n_inputs :]
        own = any(dim is not None for dim in known)  # a batch that the record has too
        place = self.extras if own else 0
        inner.extras += not own
        moved = [_spread(t, dim, place, size) for t, dim in zip(tensors[self.n_inputs :], asked, strict=True)]
        inputs = [t if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, known, strict=False)]
        return inner, [*inputs, *moved], place

    def pull(self, inputs, gradients):
        """Gradients in the inputs, for those of the outputs."""
        return self._derived("pull", inputs, gradients, len(inputs))

    def push(self, inputs, tangents):
        """Tangents of the outputs, for those of the inputs."""
        found = self._derived("push", inputs, tangents, len(self.connected))
        return [None if not flag else t for t, flag in zip(found, self.connected, strict=True)]

    def _derived(self, kind, inputs, given, count):
        present = [k for k, part in enumerate(given) if part is not None]
        if self.record is None or not present:
            return [None] * count
        message = {"kind": kind, "record": self.record, "given": present}
        question = _Question(self.peer, message, [], n_inputs=len(inputs))
        given, again = _unbatched([given[k] for k in present])
        question.extras = again is not None
        _, *outputs = Node.apply(question, self.peer.anchor, *inputs, *given)
        found = [None] * count
        for k, output in zip(question.reply["present"], outputs, strict=True):
            found[k] = output if again is None else again(output)
        return found


class _Settled(_Question):
    """A question of the tests' side whose answer has come: its place in the graph depends on what came in between."""

    def __init__(self, question, outputs):
        self.__dict__.update(question.__dict__)
        self.outputs = outputs

    def ask(self, tensors):
        return self.outputs

    def _derived(self, kind, inputs, given, count):
        present = [k for k, part in enumerate(given) if part is not None]
        if self.record is None or not present:
            return [None] * count
        if self.reply.get("hidden") and torch.is_grad_enabled():
            raise StudentError(
                "a test can differentiate once what a student's function made of the test's own functions"
            )
        question = _Question(
            self.peer, {"kind": kind, "record": self.record, "given": present}, [], n_inputs=len(inputs)
        )
        tensors = [*inputs, *(given[k] for k in present)]
        outputs = self.peer.settle(question, question.ask(tensors), tensors)
        found = [None] * count
        for k, output in zip(question.reply["present"], outputs, strict=True):
            if kind == "pull" and output.shape != inputs[k].shape:
                raise StudentError("a gradient of another shape came")
            found[k] = output
        return found


def _unbatched(tensors):
    """Tensors with their batch as first axis, where ``is_grads_batched`` hides it, and how to hide it again."""
    hidden = [torch._C._functorch.is_legacy_batchedtensor(t) for t in tensors]
    if not any(hidden):
        return tensors, None
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    size = torch._remove_batch_dim(tensors[hidden.index(True)], level, 1, 0).shape[0]
    return [torch._remove_batch_dim(t, level, size, 0) for t in tensors], lambda t: torch._add_batch_dim(t, 0, level)


def _spread(tensor, dim, place, size):
    if dim is not None:
        return tensor.movedim(dim, place)
    tensor = tensor.unsqueeze(place)
    return tensor.expand(*tensor.shape[:place], size, *tensor.shape[place + 1 :])


class _Peer:
    """One of the two sides."""

    def __init__(self, stream):
        self.wire, self.objects, self.numbers = _Wire(stream), {}, {}
        self.counter, self.exported = itertools.count(), itertools.count()
        self.records, self.exports, self.imports, self.raised = {}, {}, {}, {}
        self.anchor = torch.zeros((), requires_grad=True)

    def forget(self):
        """Lets go of the graphs, which no other test needs."""
        for kept in (self.records, self.exports, self.imports, self.raised):
            kept.clear()

    def number_of(self, value):
        """The name of an object of this side, which stays as long as this side does."""
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.objects)
            self.objects[len(self.objects)] = value
        return self.numbers[id(value)]

    def describe(self, value, parcel):
        called = callable(value)
        return ["proxy", self.number_of(value), _name(value), _parameters(value) if called else None, called, None]

    def ask(self, message, blobs):
        """Sends a question, and answers those of the other side until the reply comes."""
        number = next(self.counter)
        self.wire.send({**message, "number": number}, blobs)
        try:
            while True:
                reply, blobs = self.wire.receive()
                if reply["kind"] in ("reply", "fail"):
                    if reply["number"] == number:
                        break
                else:
                    self.answer(reply, blobs)
        except StudentError:
            raise
        except BaseException:
            self.abandon()
            raise
        if reply["kind"] == "fail":
            raise self.failure(reply)
        return reply, blobs

    def abandon(self):
        """Nobody waits for the answer any more."""

    def call(self, number, args, kwargs):
        """Calls an object of the other side."""
        parcel = _Parcel(self)
        tree = [parcel.pack(list(args)), parcel.pack(kwargs)]
        enabled = torch.is_grad_enabled()
        needs = [enabled and _tracked(t) for t in parcel.tensors]
        message = {"kind": "call", "object": number, "arguments": tree, "needs": needs, **self.surroundings()}
        question = _Question(self, message, parcel.blobs)
        outputs = self.put(question, parcel.tensors)
        for generator, blob in zip(parcel.generators, question.reply["generators"], strict=True):
            generator.set_state(_from_bytes(question.opened[blob]))
        return _Opened(self, question.opened, outputs).unpack(question.tree)

    def surroundings(self):
        return {}

    def answer(self, message, blobs):
        """Does what the other side asks, and replies."""
        number = message["number"]
        try:
            if message["kind"] not in _ASKED:
                raise StudentError("nobody knows what is asked for")
            reply, sent = getattr(self, f"on_{message['kind']}")(message, blobs)
        except BaseException as error:
            reply, sent = {"kind": "fail", **self.told(error)}, []
        self.wire.send({"kind": "reply", **reply, "number": number}, sent)

    def on_call(self, message, blobs):
        target = self.objects[message["object"]]
        inputs = [_restored(entry, blobs) for entry in message["tensors"]]
        for tensor, needed in zip(inputs, message["needs"], strict=True):
            if needed:
                tensor.requires_grad_()
        before = [(tensor._version, tensor.requires_grad) for tensor in inputs]
        outside, trees, generators = _Parcel(self), [], []

        def evaluated(*tensors):
            opened = _Opened(self, blobs, tensors)
            args, kwargs = (opened.unpack(part) for part in message["arguments"])
            parcel = _Parcel(self)
            trees.append(parcel.pack(target(*args, **kwargs)))
            generators.extend(opened.generators)
            outside.blobs, outside.generators = parcel.blobs, parcel.generators
            return tuple(parcel.tensors)

        function = evaluated
        for flags in message["layers"]:
            function = torch.vmap(
                function, in_dims=tuple(0 if flag else None for flag in flags), randomness="different"
            )
        with torch.set_grad_enabled(message["enabled"]):
            outputs = function(*inputs)
        sent = outside.blobs
        reply = self.recorded(outputs, inputs, sent, message)
        reply |= {"value": trees[-1], "generators": [], "changed": [], "asks": []}
        for generator in generators:
            sent.append(_bytes(generator.get_state()))
            reply["generators"].append(len(sent) - 1)
        for k, (tensor, (version, asked)) in enumerate(zip(inputs, before, strict=True)):
            if tensor._version != version:
                reply["changed"].append([k, _described(tensor, sent)])
            if tensor.requires_grad and not asked:
                reply["asks"].append(k)
        return reply, sent

    def recorded(self, outputs, inputs, sent, message):
        """The part of a reply that has the tensors, and keeps their graphs for questions to come."""
        entries = []
        for output in outputs:
            entry = _described(output, sent)
            if output.requires_grad:
                entry["connected"] = True
            entries.append(entry)
        reply = {"tensors": entries}
        if any(output.requires_grad for output in outputs):
            hidden = self.hidden(reply)
            reply["record"] = len(self.records)
            self.records[len(self.records)] = _Record(outputs, [*inputs, *hidden])
            self.export(outputs, entries)
        return reply

    def hidden(self, reply):
        return []

    def export(self, outputs, entries):
        pass

    def on_pull(self, message, blobs):
        record, create = self.records[message["record"]], message["enabled"]
        given = [_restored(entry, blobs) for entry in message["tensors"]]
        pairs = [(record.outputs[k], v) for k, v in zip(message["given"], given, strict=True)]
        if create:
            given = [v.requires_grad_() for v in given]
        pairs = [(output, v) for output, v in pairs if output.requires_grad]
        wanted = [k for k, tensor in enumerate(record.inputs) if tensor.requires_grad]
        found = _gradients(
            [output for output, _ in pairs],
            [record.inputs[k] for k in wanted],
            [v for _, v in pairs],
            create,
            message["extras"],
        )
        return self._derivatives(dict(zip(wanted, found, strict=True)), [*record.inputs, *given], message)

    def on_push(self, message, blobs):
        record, create = self.records[message["record"]], message["enabled"]
        given = [_restored(entry, blobs) for entry in message["tensors"]]
        if create:
            given = [u.requires_grad_() for u in given]
        moved = [k for k, output in enumerate(record.outputs) if output.requires_grad]
        weights = [torch.zeros_like(record.outputs[k]).requires_grad_() for k in moved]
        asked = [k for k in message["given"] if record.inputs[k].requires_grad]
        rows = _gradients([record.outputs[k] for k in moved], [record.inputs[k] for k in asked], weights, True, 0)
        tangents = dict(zip(message["given"], given, strict=True))
        pairs = [
            (row, tangents[k]) for k, row in zip(asked, rows, strict=True) if row is not None and row.requires_grad
        ]
        found = _gradients([row for row, _ in pairs], weights, [u for _, u in pairs], create, message["extras"])
        found = [torch.zeros_like(w) if part is None else part for w, part in zip(weights, found, strict=True)]
        return self._derivatives(dict(zip(moved, found, strict=True)), [*record.inputs, *given], message)

    def _derivatives(self, found, inputs, message):
        present = [k for k, part in found.items() if part is not None]
        sent = []
        reply = self.recorded([found[k] for k in present], inputs, sent, message)
        return {**reply, "present": present, "value": None}, sent

    def told(self, error):
        """An exception as a message."""
        if isinstance(error, _Stopped):
            return {"yours": error.args[0]}
        if isinstance(error, Exception) and getattr(error, "_of_the_tests", None) is not None:
            return {"yours": error._of_the_tests}
        return self.about(error)

    def about(self, error):
        try:
            text = str(error)
        except Exception:
            text = ""
        return {"type": type(error).__name__, "text": _cut(text[:_LONGEST])}


def _gradients(outputs, inputs, given, create, extras):
    """``torch.autograd.grad``, of each output by itself under ``extras`` leading axes of what is given."""
    if not outputs or not inputs:
        return [None] * len(inputs)
    options = {"create_graph": create, "retain_graph": True, "allow_unused": True}
    with torch.enable_grad():
        if not extras:
            return list(torch.autograd.grad(outputs, inputs, given, **options))
        leading = given[0].shape[:extras]
        flat = [v.reshape(-1, *v.shape[extras:]) for v in given]
        found = torch.autograd.grad(outputs, inputs, flat, is_grads_batched=True, **options)
        return [None if part is None else part.reshape(*leading, *part.shape[1:]) for part in found]


def _name(value):
    name = getattr(value, "__name__", None)
    return name[:200] if isinstance(name, str) else type(value).__name__


def _parameters(value):
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return None
    return [[p.name, int(p.kind), p.default is not p.empty] for p in parameters]


def _signature(parameters):
    return inspect.Signature(
        [
            inspect.Parameter(str(name), inspect._ParameterKind(kind), **({"default": None} if optional else {}))
            for name, kind, optional in parameters
        ]
    )


class Remote:
    """Stands for an object of the student's on the side of the tests. It computes nothing and equals nothing."""

    def __init__(self, peer, number, name, parameters):
        self._peer, self._number, self.__name__ = peer, number, name
        if parameters is not None:
            self.__signature__ = _signature(parameters)

    def __getattr__(self, name):
        if name.startswith("__") or "_peer" not in self.__dict__:
            raise AttributeError(name)
        return self._peer.attribute(self._number, name)

    def __repr__(self):
        return f"<{self.__name__} of the notebook>"

    def seconds_elsewhere(self):
        """Processor seconds that the student's process has computed."""
        return self._peer.seconds()


class _RemoteCallable(Remote):
    def __call__(self, *args, **kwargs):
        return self._peer.call(self._number, args, kwargs)


class Judge(_Peer):
    """The side of the tests."""

    def __init__(self, stream, pid):
        super().__init__(stream)
        self.pid, self.spent, self._state = pid, 0.0, None

    def bind(self, names, namespace):
        """Puts what the student has given some names to where a test looks for it, and takes the rest away."""
        self.forget()
        parcel_less = {"kind": "fetch", "tensors": [], "enabled": True, "layers": [], "extras": 0}
        for name in names:
            reply, blobs = self.ask({**parcel_less, "name": name}, [])
            namespace.pop(name, None)
            if reply["value"] is not None:
                tensors = [_restored(entry, blobs) for entry in reply["tensors"]]
                namespace[name] = _Opened(self, blobs, tensors).unpack(reply["value"])

    def rest(self):
        """The test is over: the student's process may go on with its cells."""
        self.wire.send({"kind": "pause", "number": next(self.counter)}, [])

    def attribute(self, number, name):
        """What an attribute of an object of the student's is."""
        reply, blobs = self.ask({"kind": "attribute", "object": number, "name": name}, [])
        tensors = [_restored(entry, blobs) for entry in reply["tensors"]]
        return _Opened(self, blobs, tensors).unpack(reply["value"])

    def proxy(self, number, name, parameters, called, parts, opened):
        """What stands here for an object of the student's."""
        return (_RemoteCallable if called else Remote)(self, int(number), str(name), parameters)

    def public(self, blob, opened):
        """Refuses what would have to be unpickled."""
        raise StudentError("what came is not plain data")

    def surroundings(self):
        """The state of the global generator, where somebody has set it since."""
        state = torch.get_rng_state()
        if self._state is not None and torch.equal(state, self._state):
            return {}
        self._state = state
        return {"seeded": _bytes(state).hex()}

    def put(self, question, tensors):
        """Asks, and gives the tensors of the answer their place in the graph."""
        outputs = question.ask(tensors)
        for k, entry in question.reply["changed"]:
            _replace(tensors[k], _restored(entry, question.opened))
        for k in question.reply["asks"]:
            tensors[k].requires_grad_()
        return self.settle(question, outputs, tensors)

    def settle(self, question, outputs, tensors):
        """The tensors of an answer, connected to what they were made of: what was sent, and what was asked since."""
        if not any(question.connected):
            return outputs
        hidden = [self.exports[k] for k in question.reply.get("hidden", [])]
        with torch.enable_grad():
            return list(Node.apply(_Settled(question, outputs), self.anchor, *tensors, *hidden)[1:])

    def export(self, outputs, entries):
        """Keeps what the other side may hand back as part of its own answer."""
        for output, entry in zip(outputs, entries, strict=True):
            if output.requires_grad:
                entry["export"] = next(self.exported)
                self.exports[entry["export"]] = output

    def describe(self, value, parcel):
        """A callable stays here; of the book's own objects the student gets a copy."""
        if isinstance(value, torch.nn.Module):
            parts = []
            for name, parameter in value.named_parameters():
                export = next(self.exported)
                self.exports[export] = parameter
                parts.append([name, _described(parameter, parcel.blobs), export, parameter.requires_grad])
            return ["proxy", self.number_of(value), _name(value), _parameters(value), True, parts]
        if not callable(value) and type(value).__module__.split(".")[0] == "scorebook":
            with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError):
                return ["value", parcel.blob(_pickled(value, parcel))]
        return super().describe(value, parcel)

    def on_attribute(self, message, blobs):
        """A number of a function that was handed out, or anything public of another object."""
        value = self.objects[message["object"]]
        name = message["name"]
        if name.startswith("_"):
            raise AttributeError(f"{name!r} is not for you")
        found = getattr(value, name)
        if callable(value) and not isinstance(found, (bool, int, float, str)):
            raise AttributeError(f"{_name(value)} has no attribute {name!r} for you")
        return _single(self, found)

    def on_fetch(self, message, blobs):
        """Refuses to be asked for a name."""
        raise StudentError("the tests give nothing away")

    def about(self, error):
        """Keeps an exception of the tests, so that it can go on when it comes back."""
        self.raised[len(self.raised)] = error
        stops = not isinstance(error, Exception)
        return {**super().about(error), "key": len(self.raised) - 1, "stops": stops}

    def failure(self, reply):
        """The student's exception, of a kind that Python has itself, with the student's line in its message."""
        if "yours" in reply:
            return self.raised[reply["yours"]]
        name, text, place = (str(reply.get(key, ""))[:_LONGEST] for key in ("type", "text", "place"))
        kind = _KNOWN.get(name)
        error = kind((text or name) + place) if kind in _PLAIN else StudentError(f"{name}: {text}{place}")
        error.place = ""  # which is said already
        return error

    def abandon(self):
        """Interrupts the student's process, for whose answer nobody waits."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGINT)

    def seconds(self):
        """Processor seconds of the student's process so far."""
        with contextlib.suppress(psutil.Error):
            self.spent = sum(psutil.Process(self.pid).cpu_times()[:4])
        return self.spent


def _constructible(kind):
    try:
        return str(kind("a")) in ("a", "'a'")
    except Exception:
        return False


_PLAIN = {kind for kind in _KNOWN.values() if _constructible(kind)}


def _single(peer, value):
    """A reply that holds one value and no graph."""
    parcel = _Parcel(peer)
    tree = parcel.pack(value)
    return {"value": tree, "tensors": [_described(t, parcel.blobs) for t in parcel.tensors]}, parcel.blobs


def _replace(tensor, value):
    with torch.no_grad():
        if tensor.shape == value.shape and tensor.dtype == value.dtype:
            tensor.copy_(value)
        else:
            tensor.data = value


def _pickled(value, parcel):
    """An object of the book's, in which functions and what needs a graph stay on this side."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file)

    def persistent(part):
        if isinstance(part, (Remote, types.FunctionType, types.MethodType, torch.nn.Module)):
            if isinstance(part, types.FunctionType) and (part.__module__ or "").startswith("scorebook"):
                return None
            return json.dumps(parcel.pack(part))
        if isinstance(part, torch.Tensor):
            part = part.detach()
            return json.dumps(["copy", _described(part, parcel.blobs)])
        if isinstance(part, torch.Generator):
            return json.dumps(parcel.pack(part))
        return None

    pickler.persistent_id = persistent
    pickler.dump(value)
    return file.getvalue()


class Given:
    """Stands for a function or an object of the tests, on the student's side."""

    def __init__(self, peer, number, name, parameters):
        self._peer, self._number, self.__name__ = peer, number, name
        if parameters is not None:
            self.__signature__ = _signature(parameters)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self._peer.attribute(self._number, name)

    def __deepcopy__(self, memo):
        return self


class _GivenCallable(Given):
    def __call__(self, *args, **kwargs):
        return self._peer.call(self._number, args, kwargs)


class GivenModule(torch.nn.Module):
    """Stands for a network of the tests, with copies of its parameters."""

    def __init__(self, peer, number, name, parameters):
        super().__init__()
        self._peer, self._number, self.__name__ = peer, number, name

    def forward(self, *args, **kwargs):
        """Asks the network."""
        return self._peer.call(self._number, args, kwargs)


class Student(_Peer):
    """The side of the student's notebook."""

    def __init__(self, stream, namespace, refused=contextlib.nullcontext):
        super().__init__(stream)
        self.namespace, self.given, self.refused, self.depth = namespace, {}, refused, 0

    def serve(self):
        """Answers the tests until they pause."""
        self.forget()
        before = None
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGINT, self._interrupted)
        try:
            with self.refused():
                while True:
                    try:
                        message, blobs = self.wire.receive()
                    except KeyboardInterrupt:
                        continue
                    if message["kind"] == "pause":
                        return
                    if message["kind"] not in ("reply", "fail"):
                        self.answer(message, blobs)
        finally:
            if before is not None:
                signal.signal(signal.SIGINT, before)

    def _interrupted(self, number, frame):
        if self.wire.sending:
            self.wire.pending = True
        elif self.depth:
            raise KeyboardInterrupt

    def answer(self, message, blobs):
        """Does what is asked; a late interrupt meets nobody."""
        with contextlib.suppress(KeyboardInterrupt):
            super().answer(message, blobs)

    def on_call(self, message, blobs):
        """Calls, with the global generator as the tests have set it."""
        if "seeded" in message:
            torch.set_rng_state(_from_bytes(bytes.fromhex(message["seeded"])))
        self.depth += 1
        try:
            return super().on_call(message, blobs)
        finally:
            self.depth -= 1

    def on_fetch(self, message, blobs):
        """What the notebook has under a name."""
        if message["name"] not in self.namespace:
            return {"value": None, "tensors": []}, []
        return _single(self, self.namespace[message["name"]])

    def on_attribute(self, message, blobs):
        """An attribute of an object."""
        return _single(self, getattr(self.objects[message["object"]], message["name"]))

    def attribute(self, number, name):
        """What an attribute of an object of the tests is."""
        reply, blobs = self.ask({"kind": "attribute", "object": number, "name": name}, [])
        tensors = [_restored(entry, blobs) for entry in reply["tensors"]]
        return _Opened(self, blobs, tensors).unpack(reply["value"])

    def put(self, question, tensors):
        """Asks from within the graph, and within the transforms of ``torch.func``."""
        return list(Node.apply(question, self.anchor, *tensors)[1:])

    def hidden(self, reply):
        """What came from the tests, on which an answer may depend beside its arguments."""
        reply["hidden"] = list(self.imports)
        return list(self.imports.values())

    def proxy(self, number, name, parameters, called, parts, opened):
        """What stands here for a function, a network or another object of the tests."""
        kind = _GivenCallable if called else Given
        if number not in self.given:
            self.given[number] = (kind if parts is None else GivenModule)(self, number, name, parameters)
        found = self.given[number]
        for path, entry, export, asked in parts or []:
            *modules, leaf = path.split(".")
            place = functools.reduce(_child, modules, found)
            parameter = torch.nn.Parameter(_restored(entry, opened.blobs), requires_grad=asked)
            place.register_parameter(leaf, parameter)
            self.imports[export] = parameter
        return found

    def public(self, blob, opened):
        """A copy of an object of the book's."""
        unpickler = pickle.Unpickler(io.BytesIO(blob))
        unpickler.persistent_load = lambda text: self._part(json.loads(text), opened)
        return unpickler.load()

    def _part(self, tree, opened):
        return _restored(tree[1], opened.blobs) if tree[0] == "copy" else opened.unpack(tree)

    def about(self, error):
        """An exception, and the line of the notebook."""
        told = super().about(error)
        with contextlib.suppress(Exception):
            told["place"] = _line_of(error)
        return told

    def failure(self, reply):
        """An exception of the tests, under the name it has there."""
        if "yours" in reply:  # an exception of the student's that came back through a function of the tests
            return StudentError("an exception of your own came back")
        if reply["stops"]:
            return _Stopped(reply["key"])
        kind = _KNOWN.get(reply["type"])
        error = kind(reply["text"]) if kind in _PLAIN else RuntimeError(f"{reply['type']}: {reply['text']}")
        error._of_the_tests = reply["key"]
        return error


def _line_of(error):
    """The innermost line of the notebook that an exception came through."""
    place = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_globals is vars(sys.modules["__main__"]):
            line = linecache.getline(frame.f_code.co_filename, number).strip()
            place = f" (line {number} of its cell, in {frame.f_code.co_name}: {line})"
    return place


def _child(module, name):
    if not hasattr(module, name):
        module.add_module(name, torch.nn.Module())
    return getattr(module, name)


def pair():
    """Two ends of one line."""
    return socket.socketpair()
