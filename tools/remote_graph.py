r"""The other side's values in the graph of this one, for autograd and for ``torch.func``.

The side that computed a value keeps its graph, called a :class:`Record`; the other holds the value as the output of a
:class:`Node`, whose derivatives are questions about the record. Three questions are enough: what is f(x), what is
:math:`v^\top J` (a pull), what is :math:`J u` (a push); the answer to each has a record of its own.
"""

import torch
from remote_messages import StudentError, described, restored

__all__ = ["Node", "Question", "Record", "Settled", "gradients_of", "tracked"]


class Record:
    """A computation of this side: what came out, and what the other side may differentiate it in."""

    def __init__(self, outputs, inputs):
        self.outputs, self.inputs = outputs, inputs


def _floating(tensor):
    return tensor.is_floating_point() or tensor.is_complex()


def tracked(tensor):
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
        """Keep what the derivatives are taken in; what hangs on no input has none."""
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
        """Ask for the gradients in the inputs."""
        return None, None, *ctx.question.pull(ctx.saved_tensors, gradients)

    @staticmethod
    def jvp(ctx, _, anchor, *tangents):
        """Ask for the tangents of the outputs."""
        return None, *ctx.question.push(ctx.saved_tensors, tangents)

    @staticmethod
    def vmap(info, in_dims, question, anchor, *tensors):
        """Ask the same of a batch."""
        inner, moved, place = question.batched(info.batch_size, in_dims[2:], tensors)
        outputs = Node.apply(inner, anchor, *moved)
        question.adopt(inner)
        return outputs, (None, *[place] * (len(outputs) - 1))


class Question:
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
        shipped = [described(t, blobs) for t in tensors[self.n_inputs :]]
        extra = {"tensors": shipped, "enabled": self.enabled, "layers": self.layers, "extras": self.extras}
        reply, blobs = self.peer.ask({**self.message, **extra}, blobs)
        outputs = [restored(entry, blobs) for entry in reply["tensors"]]
        self.connected = [
            bool(entry.get("connected")) and _floating(t) for entry, t in zip(reply["tensors"], outputs, strict=True)
        ]
        self.record, self.tree, self.reply, self.opened = reply.get("record"), reply["value"], reply, blobs
        for entry, output in zip(reply["tensors"], outputs, strict=True):
            if entry.get("export") is not None:
                self.peer.imports[entry["export"]] = output
        return outputs

    def adopt(self, inner):
        """Takes the answer to another question for one's own."""
        self.connected, self.record, self.tree = inner.connected, inner.record, inner.tree
        self.reply, self.opened = inner.reply, inner.opened

    def batched(self, size, dims, tensors):
        """The same question about a batch of its tensors, those tensors, and the axis of the batch in the answer."""
        inner = Question(
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
        question = Question(self.peer, message, [], n_inputs=len(inputs))
        given, again = _unbatched([given[k] for k in present])
        question.extras = again is not None
        _, *outputs = Node.apply(question, self.peer.anchor, *inputs, *given)
        found = [None] * count
        for k, output in zip(question.reply["present"], outputs, strict=True):
            found[k] = output if again is None else again(output)
        return found


class Settled(Question):
    """A question of the tests' side whose answer has come: its place in the graph depends on what came in between."""

    def __init__(self, question, outputs):
        self.__dict__.update(question.__dict__)
        self.outputs = outputs

    def ask(self, tensors):
        """The tensors of the answer that has come."""
        return self.outputs

    def _derived(self, kind, inputs, given, count):
        present = [k for k, part in enumerate(given) if part is not None]
        if self.record is None or not present:
            return [None] * count
        if self.reply.get("hidden") and torch.is_grad_enabled():
            raise StudentError(
                "a test can differentiate once what a student's function made of the test's own functions"
            )
        question = Question(
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


def gradients_of(outputs, inputs, given, create, extras):
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
