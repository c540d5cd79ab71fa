"""What of a model moves in the course of a training run: weights, their moving average, what modules keep beside them.

:func:`~scorebook.lab.training.fit` is made of these. Each can say what of it belongs into a checkpoint (``state``) and
go on from what was read (``restore``).
"""

import copy
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["Average", "Keepsakes", "Precise", "check_extra_states", "check_weights", "load_weights"]


class Precise:
    """The trained parameters as Adam sees them, in single precision at least.

    A step of 0.001 is lost on a weight of 1 in half precision, and so is what a square of 0.0001 adds to a mean. Of
    parameters in half precision Adam therefore has a copy, and the model what the copy rounds to.

    Args:
        parameters: trained parameters of a model.

    Attributes:
        parameters: the same in their order, or copies of them.
        copies: pairs of a parameter in half precision and its copy.
    """

    def __init__(self, parameters: list[nn.Parameter]):
        self.of_model = parameters
        self.parameters = [
            p if _precise(p.dtype) == p.dtype else nn.Parameter(p.detach().to(_precise(p.dtype))) for p in parameters
        ]
        self.copies = [(p, precise) for p, precise in zip(parameters, self.parameters, strict=True) if p is not precise]

    def forget_gradients(self) -> None:
        """Leave no gradient, in the model or here."""
        for parameter in (*self.of_model, *self.parameters):
            parameter.grad = None

    def gradients(self) -> list[Tensor]:
        """The gradients of the model, which :attr:`parameters` have from here on, dense and precise."""
        for parameter in self.of_model:
            if parameter.grad is not None and parameter.grad.layout != torch.strided:  # of a sparse embedding
                parameter.grad = parameter.grad.to_dense()
        for parameter, precise in self.copies:
            precise.grad = None if parameter.grad is None else parameter.grad.to(precise.dtype)
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    @torch.no_grad()
    def round(self) -> None:
        """Give the model what the copies round to."""
        for parameter, precise in self.copies:
            parameter.copy_(precise)

    def state(self) -> list[Tensor | None]:
        """The copies, and ``None`` where the model has the parameter itself."""
        pairs = zip(self.of_model, self.parameters, strict=True)
        return [None if precise is parameter else precise.detach() for parameter, precise in pairs]

    @torch.no_grad()
    def restore(self, state: list[Tensor | None]) -> None:
        """Take over copies; where there is none, what the model has."""
        for parameter, precise, written in zip(self.of_model, self.parameters, state, strict=True):
            precise.copy_(parameter if written is None else written)


class Average:
    """The moving average of weights and buffers, in single precision at least.

    Buffers are averaged like the weights to which they belong, such as the statistics of a BatchNorm. The vectors of a
    spectral norm are not: a mean of unit vectors is none.

    Args:
        model: the module that is trained.
        precise: its trained parameters.
        decay: greatest decay, in (0, 1).

    Attributes:
        means: the averages, by the names that parameters and buffers have in the model.
    """

    def __init__(self, model: nn.Module, precise: Precise, decay: float):
        self.model, self.decay = model, decay
        self.means: dict[str, Tensor] = {}
        copies = {id(p): copy_of_p for p, copy_of_p in precise.copies}
        trained = {name: copies.get(id(p), p) for name, p in model.named_parameters() if p.requires_grad}
        self.trained = {name: p for name, p in trained.items() if _has_fractions(p)}
        self.as_they_are = set(_spectral_vectors(model))

    def _others(self) -> dict[str, Tensor]:
        """Buffers, and parameters that are not trained and may yet be set by the loss."""
        others: dict[str, Tensor] = {n: p for n, p in self.model.named_parameters() if not p.requires_grad}
        others |= {name: b for name, b in self.model.named_buffers() if name not in self.as_they_are}
        return {name: tensor for name, tensor in others.items() if _has_fractions(tensor)}

    @torch.no_grad()
    def update(self, n: int) -> None:
        """Take in the weights after step ``n``."""
        decay = min(self.decay, n / (n + 9))
        others = self._others()
        for name, tensor in (self.trained | others).items():
            if name not in self.means or self.means[name].shape != tensor.shape:
                self.means[name] = tensor.detach().to(_precise(tensor.dtype), copy=True)
        get_ema_multi_avg_fn(decay)([self.means[name] for name in self.trained], [*self.trained.values()], n)
        for name, tensor in others.items():
            mean, tensor = self.means[name], tensor.to(self.means[name].dtype)
            # What stays the same may be infinite, as in a mask, and has no difference then.
            mean.copy_(torch.where(mean == tensor, mean, torch.lerp(mean, tensor, 1 - decay)))

    def of_buffers(self) -> list[Tensor]:
        """The averages of the buffers."""
        return [self.means[name] for name, _ in self.model.named_buffers() if name in self.means]

    @torch.no_grad()
    def hand_over(self) -> None:
        """Give the model the means."""
        for name, tensor in (*self.model.named_parameters(), *self.model.named_buffers()):
            if name in self.means and self.means[name].shape == tensor.shape:
                _set(tensor, self.means[name].to(tensor.dtype))

    def restore(self, means: dict[str, Tensor]) -> None:
        """Take over averages that were read."""
        for name, tensor in (self.trained | self._others()).items():
            if name in means:
                self.means[name] = means[name].to(tensor.device, _precise(tensor.dtype))


class Keepsakes:
    """What modules keep beside their weights as it was when last recorded: buffers, generators of their own."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.generators = {
            f"{name}.{attribute}": value
            for name, module in model.named_modules()
            for attribute, value in vars(module).items()
            if isinstance(value, torch.Generator)
        }
        self.record()

    def _buffers(self) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
        for prefix, module in self.model.named_modules():
            for name, buffer in module.named_buffers(recurse=False):
                if buffer.layout == torch.strided:
                    yield f"{prefix}.{name}".removeprefix("."), module, name, buffer

    def record(self) -> None:
        """Keep what there is now."""
        self.buffers = {path: (buffer, buffer.detach().clone()) for path, _, _, buffer in self._buffers()}
        self.states = {path: generator.get_state() for path, generator in self.generators.items()}

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the modules what was recorded."""
        for path, module, name, buffer in self._buffers():
            kept, value = self.buffers.get(path, (buffer, None))
            if kept is not buffer:
                setattr(module, name, kept)
            if value is not None and kept.shape == value.shape:
                _set(kept, value)
        for path, state in self.states.items():
            self.generators[path].set_state(state)

    def state(self, weights: dict[str, Any]) -> dict[str, Any]:
        """What is not among the weights that are written."""
        buffers = {path: value for path, (_, value) in self.buffers.items() if path not in weights}
        return {"buffers": buffers, "generators": self.states}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Take over what was read, and record it."""
        for path, value in state["buffers"].items():
            _set_buffer(self.model, path, value)
        for path, value in state["generators"].items():
            if path in self.generators:
                self.generators[path].set_state(value)
        self.record()


def check_weights(state: dict[str, Any], model: nn.Module, path: Path) -> None:
    """Raise a ``ValueError`` if the weights of a checkpoint have other names, shapes or types than those of a model.

    Args:
        state: parts of a checkpoint by name, as :func:`scorebook.lab.resumption.of_today` gives them.
        model: the module that is to go on from it.
        path: where it was read, for the message.
    """
    own, written = (
        {name: value for name, value in entries.items() if not name.endswith("_extra_state")}
        for entries in (model.state_dict(), state["model"])
    )
    # A buffer may have come, gone or grown in the course of the run; one that has not is in the description.
    may_vary = {name for name, _ in _registered_buffers(model)} if state["description"] else set()
    differing = sorted((own.keys() ^ written.keys()) - may_vary) or [
        f"{name} {tuple(written[name].shape)} {written[name].dtype}"
        for name in own
        if name not in may_vary and (own[name].shape != written[name].shape or own[name].dtype != written[name].dtype)
    ]
    if differing:
        raise ValueError(
            f"checkpoint {path} belongs to another model (first difference: {differing[0]}); it is left as it is"
        )


def check_extra_states(weights: dict[str, Tensor], model: nn.Module, path: Path) -> None:
    """Let each module compare its extra state with the one that was written, if it does, and keep its own."""
    for prefix, module in model.named_modules():
        name = f"{prefix}._extra_state".removeprefix(".")
        if name in weights:
            own = copy.deepcopy(module.get_extra_state())
            try:
                module.set_extra_state(copy.deepcopy(weights[name]))
            except Exception as error:
                raise ValueError(f"checkpoint {path} belongs to another model: {error}; it is left as it is") from error
            finally:
                with suppress(Exception):
                    module.set_extra_state(own)


def load_weights(weights: dict[str, Tensor], model: nn.Module) -> None:
    """Give a model weights that were read, and buffers that have come or grown since it was made."""
    for name, buffer in _registered_buffers(model):
        value = weights.get(name)
        # One that has come or grown in the course of the run, or that is expanded, cannot be written to.
        if value is not None and (buffer is None or buffer.shape != value.shape or 0 in buffer.stride()):
            _set_buffer(model, name, value)
    model.load_state_dict(weights, strict=False)


def _registered_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    """Paths of all buffers and what they are, those without a value included."""
    for prefix, module in model.named_modules():
        for name, buffer in module._buffers.items():
            yield f"{prefix}.{name}".removeprefix("."), buffer


def _set_buffer(model: nn.Module, path: str, value: Tensor) -> None:
    prefix, _, name = path.rpartition(".")
    module = model.get_submodule(prefix)
    buffer = module._buffers.get(name)
    device = next(model.parameters()).device if buffer is None else buffer.device
    setattr(module, name, value.to(device, copy=True))


def _set(tensor: Tensor, value: Tensor) -> None:
    if tensor.is_meta or not torch.equal(tensor, value):  # an expanded one can be read and not written
        tensor.copy_(value)


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _has_fractions(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and (tensor.is_floating_point() or tensor.is_complex())


def _spectral_vectors(model: nn.Module) -> Iterator[str]:
    """Paths of the buffers in which a spectral norm keeps its vectors."""
    for prefix, module in model.named_modules():
        hooks = [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, SpectralNorm)]
        names = [f"{hook.name}_{vector}" for hook in hooks for vector in "uv"]
        if isinstance(module, ParametrizationList):
            names += [name for name, _ in module.named_buffers()]
        yield from (f"{prefix}.{name}".removeprefix(".") for name in names)
