r"""Networks for scores: small, smooth, and the same function of each row of a batch.

A network here maps ``x`` of shape ``(B, *event)`` and, where it knows time, a number ``t`` per row to a tensor
like ``x``. Three properties matter more than size:

* **Smooth.** Activations are SiLU, so a field may be differentiated twice, as score matching by parts does.
* **Row by row.** No layer looks across the batch: batch-mates never change an output.
* **Any time scale.** ``t`` enters through sines and cosines whose frequencies are octaves apart,

  .. math:: \gamma(t) = \big(\sin 2^k t,\ \cos 2^k t\big), \quad k = -3, \dots, 4,

  with periods from 50 down to 0.4: fit for a plain ``t`` in [0, 1] and for the logarithm of a noise scale (-5 to 5).
  A noise scale that spans decades should come as its logarithm, as ``scorebook.sde.ScoreModel`` hands it over.

Networks that know time end in a layer of zeros: at the start they are the zero function, whatever their width.

The first weights come from ``generator``, or from PyTorch's global one if that is ``None``, as in every PyTorch layer.
With a generator given, the global random state is neither read nor moved.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorebook.lab.arguments import positive_integer, real, recordable, require
from scorebook.lab.calls import one_time_for_all
from scorebook.lab.types import Integer, PerRow

__all__ = ["MLP", "NoisyClassifier", "TimeMLP", "UNet", "initialise"]

_Network = TypeVar("_Network", bound=nn.Module)
_OCTAVES = range(-3, 5)
_TIME_WIDTH = 64


class MLP(nn.Module):
    """A plain perceptron without time: a score or, with ``out_dim=1``, an energy.

    Args:
        event_shape: shape of one sample, an ``int`` for vectors.
        width: units of each hidden layer.
        depth: number of hidden layers.
        out_dim: ``None`` gives an output like ``x``, 1 one number per row, otherwise that many per row.
        generator: source of the first weights.

    Shapes:
        ``(B, *event)`` to ``(B, *event)``, ``(B,)`` or ``(B, out_dim)``.

    Raises:
        ValueError: if a size is not a positive integer, or ``x`` has another event shape or dtype.
    """

    def __init__(
        self,
        event_shape: Integer | Sequence[Integer],
        *,
        width: Integer = 128,
        depth: Integer = 2,
        out_dim: Integer | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.event_shape = _event_shape(event_shape)
        width, depth = positive_integer("width", width), positive_integer("depth", depth)
        self.out_dim = None if out_dim is None else positive_integer("out_dim", out_dim)
        n_event = math.prod(self.event_shape)
        layers: list[nn.Module] = [_linear(n_event, width), nn.SiLU()]
        for _ in range(depth - 1):
            layers += [_linear(width, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers, _linear(width, self.out_dim or n_event))
        initialise(self, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return the field at ``x``, or one row of outputs for each row."""
        first = cast(nn.Linear, self.layers[0])
        x = _checked_event(x, self.event_shape, first.weight.dtype)
        out = self.layers(x.reshape(len(x), first.in_features))
        if self.out_dim is None:
            return out.reshape(x.shape)
        return out.squeeze(1) if self.out_dim == 1 else out


class TimeMLP(nn.Module):
    """A residual perceptron that knows time and, if asked, a class label.

    Args:
        event_shape: shape of one sample, an ``int`` for vectors.
        width: units of each hidden layer; the default has about half a million weights for 64 inputs.
        depth: number of residual blocks, two linear layers each.
        n_classes: number of class labels, ``None`` for a network without labels.
        generator: source of the first weights.

    Shapes:
        ``x (B, *event)``, ``t`` scalar or ``(B,)``, ``label`` integers ``(B,)`` to ``(B, *event)``.

    Raises:
        ValueError: if a size is not a positive integer, if ``x``, ``t`` or ``label`` has the wrong shape or dtype, if a
            label is out of range, or if a label comes to a network without classes.
    """

    def __init__(
        self,
        event_shape: Integer | Sequence[Integer],
        *,
        width: Integer = 256,
        depth: Integer = 3,
        n_classes: Integer | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.event_shape = _event_shape(event_shape)
        n_event = math.prod(self.event_shape)
        self.trunk = _ResidualMLP(n_event, n_event, width, depth, n_classes)
        initialise(self, generator=generator)

    @one_time_for_all
    def forward(self, x: Tensor, t: PerRow, label: Integer | Tensor | None = None) -> Tensor:
        """Return the field at ``(x, t)``; ``label`` -1 or ``None`` means that no class is given."""
        x = _checked_event(x, self.event_shape, self.trunk.first.weight.dtype)
        return self.trunk(x.reshape(len(x), self.trunk.first.in_features), t, label).reshape(x.shape)


class NoisyClassifier(nn.Module):
    """A classifier of noised points: logits of the class of ``x_0`` given ``x_t`` and ``t``.

    Bring ``x`` to about unit scale first where the noise makes it large (a variance-exploding process): divide it by
    its standard deviation at ``t``.

    Args:
        event_shape: shape of one sample, an ``int`` for vectors.
        n_classes: number of classes.
        width: units of each hidden layer.
        depth: number of residual blocks, two linear layers each.
        generator: source of the first weights.

    Shapes:
        ``x (B, *event)``, ``t`` scalar or ``(B,)`` to logits ``(B, n_classes)``.

    Raises:
        ValueError: if a size is not a positive integer, or if ``x`` or ``t`` has the wrong shape or dtype.
    """

    def __init__(
        self,
        event_shape: Integer | Sequence[Integer],
        n_classes: Integer,
        *,
        width: Integer = 128,
        depth: Integer = 2,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.event_shape = _event_shape(event_shape)
        n_classes = positive_integer("n_classes", n_classes)
        self.trunk = _ResidualMLP(math.prod(self.event_shape), n_classes, width, depth, None)
        initialise(self, generator=generator)

    @one_time_for_all
    def forward(self, x: Tensor, t: PerRow) -> Tensor:
        """Return unnormalised log-probabilities of the classes, shape ``(B, n_classes)``."""
        x = _checked_event(x, self.event_shape, self.trunk.first.weight.dtype)
        return self.trunk(x.reshape(len(x), self.trunk.first.in_features), t, None)


class UNet(nn.Module):
    """A small U-shaped convolutional network for images of any size, written for 8x8 to 32x32.

    Two halvings and back; a residual block with the time embedding at each resolution, attention at the lowest one,
    and skip connections by concatenation. Sides that are not multiples of 4 are padded with zeros inside.

    Args:
        channels: number of image channels.
        width: channels at full resolution, doubled at the lower ones.
        n_classes: number of class labels, ``None`` for a network without labels.
        generator: source of the first weights.

    Shapes:
        ``x (B, channels, H, W)``, ``t`` scalar or ``(B,)``, ``label`` integers ``(B,)`` to ``(B, channels, H, W)``.

    Raises:
        ValueError: as :class:`TimeMLP`.
    """

    def __init__(
        self,
        channels: Integer,
        *,
        width: Integer = 32,
        n_classes: Integer | None = None,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.channels = channels = positive_integer("channels", channels)
        width = positive_integer("width", width)
        self.embed = _Embedding(_TIME_WIDTH, n_classes)
        self.first = _conv(channels, width)
        self.down_1 = _ConvBlock(width, width)
        self.down_2 = _ConvBlock(width, 2 * width)
        self.middle_1 = _ConvBlock(2 * width, 2 * width)
        self.attention = _Attention(2 * width)
        self.middle_2 = _ConvBlock(2 * width, 2 * width)
        self.up_2 = _ConvBlock(4 * width, width)
        self.up_1 = _ConvBlock(2 * width, width)
        self.last_norm = _group_norm(width)
        self.last = _starting_at_zero(_conv(width, channels))
        initialise(self, generator=generator)

    @one_time_for_all
    def forward(self, x: Tensor, t: PerRow, label: Integer | Tensor | None = None) -> Tensor:
        """Return the field at ``(x, t)``; ``label`` -1 or ``None`` means that no class is given."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"x must have shape (B, {self.channels}, H, W), got {tuple(x.shape)}")
        _check_dtype(x, self.first.weight.dtype)
        embedding = self.embed(x, t, label)
        height, width = x.shape[2:]
        padded = F.pad(x, (0, -width % 4, 0, -height % 4))

        full = self.down_1(self.first(padded), embedding)
        half = self.down_2(F.avg_pool2d(full, 2), embedding)
        quarter = self.middle_1(F.avg_pool2d(half, 2), embedding)
        quarter = self.middle_2(self.attention(quarter), embedding)
        up = self.up_2(torch.cat([_double(quarter), half], dim=1), embedding)
        up = self.up_1(torch.cat([_double(up), full], dim=1), embedding)
        return self.last(F.silu(self.last_norm(up)))[:, :, :height, :width]


def initialise(network: _Network, *, generator: torch.Generator | None = None) -> _Network:
    r"""Draw every weight of ``network`` anew, in place.

    Weights and biases of linear and convolutional layers are uniform within :math:`\pm 1/\sqrt{\text{fan in}}`
    (PyTorch's own rule), embeddings are standard normal, norms start as the identity, and the last layers of the
    networks of this module that know time start at zero.

    Args:
        network: a module made of linear, convolutional, embedding and norm layers.
        generator: source of the random numbers. They are drawn on its own device, so that a CPU generator gives the
            same weights on every device.

    Returns:
        The same ``network``.

    Raises:
        ValueError: if a layer of another kind holds parameters.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters():
                _fill(parameter, torch.rand, generator, scale=2 * bound, shift=-bound)
            if getattr(layer, "starts_at_zero", False):
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)
        elif isinstance(layer, nn.Embedding):
            _fill(layer.weight, torch.randn, generator)
        elif isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif next(layer.parameters(recurse=False), None) is not None:
            raise ValueError(f"network has parameters in {name!r}, a {type(layer).__name__}, whose start is unknown")
    return network


@torch.no_grad()
def _fill(
    parameter: Tensor,
    draw: Callable[..., Tensor],
    generator: torch.Generator | None,
    scale: float = 1.0,
    shift: float = 0.0,
) -> None:
    device = parameter.device if generator is None else generator.device
    numbers = draw(parameter.shape, generator=generator, dtype=parameter.dtype, device=device)
    parameter.copy_(numbers * scale + shift)


def _default_device() -> torch.device:
    # Not torch.get_default_device(): in PyTorch 2.6 it does not see a device that a with statement has set.
    return torch.empty(0).device


# Layers are made without PyTorch's own start, which would move the global random state.
def _linear(n_in: int, n_out: int) -> nn.Linear:
    return nn.utils.skip_init(nn.Linear, n_in, n_out, device=_default_device())


def _conv(n_in: int, n_out: int, size: int = 3) -> nn.Conv2d:
    return nn.utils.skip_init(nn.Conv2d, n_in, n_out, size, padding=size // 2, device=_default_device())


def _group_norm(n: int) -> nn.GroupNorm:
    # About four channels a group: a group of one would cancel the time embedding, which is constant on a channel.
    return nn.GroupNorm(math.gcd(n, max(1, n // 4)), n)


def _starting_at_zero(layer: _Network) -> _Network:
    vars(layer)["starts_at_zero"] = True
    return layer


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


class _Embedding(nn.Module):
    """Time and label as one vector per row: ``(B, n)``, or ``(1, n)`` if all rows share them."""

    def __init__(self, n: int, n_classes: Integer | None):
        super().__init__()
        self.from_time = nn.Sequential(_linear(2 * len(_OCTAVES), n), nn.SiLU(), _linear(n, n))
        self.n_classes = None if n_classes is None else positive_integer("n_classes", n_classes)
        if self.n_classes is not None:
            self.from_label = nn.utils.skip_init(nn.Embedding, self.n_classes + 1, n, device=_default_device())

    def forward(self, x: Tensor, t: PerRow, label: Integer | Tensor | None) -> Tensor:
        real("t", t)
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device)
        if t.ndim > 1 or (t.ndim == 1 and len(t) not in (1, len(x))):
            raise ValueError(f"t must be a scalar or have shape ({len(x)},), got {tuple(t.shape)}")
        octaves = 2.0 ** torch.arange(_OCTAVES.start, _OCTAVES.stop, dtype=x.dtype, device=x.device)
        angles = t.reshape(-1, 1) * octaves
        embedding = self.from_time(torch.cat([angles.sin(), angles.cos()], dim=1))
        if self.n_classes is None:
            if label is not None:
                raise ValueError("label was given to a network without classes: make it with n_classes=...")
            return F.silu(embedding)
        return F.silu(embedding + self.from_label(_row(x, label, self.n_classes)))


def _row(x: Tensor, label: Integer | Tensor | None, none: int) -> Tensor:
    if label is None:
        return torch.full((1,), none, device=x.device)
    label = torch.as_tensor(label, device=x.device)
    if label.dtype == torch.bool or label.is_floating_point() or label.is_complex():
        raise ValueError(f"label must hold integers, got {label.dtype}")
    label = label.long()  # bytes have no -1
    if label.ndim > 1 or (label.ndim == 1 and len(label) not in (1, len(x))):
        raise ValueError(f"label must be a scalar or have shape ({len(x)},), got {tuple(label.shape)}")
    require(
        ((label >= -1) & (label < none)).all(),
        lambda: ValueError(
            f"label must lie in 0 ... {none - 1}, or be -1 for none, got {label.min()} ... {label.max()}"
        ),
    )
    # What is out of range may be refused a little later: until then it must not be looked up.
    return torch.where(label < 0, none, label.clamp(max=none)).reshape(-1)


class _ResidualMLP(nn.Module):
    def __init__(self, n_in: int, n_out: int, width: Integer, depth: Integer, n_classes: Integer | None):
        super().__init__()
        width, depth = positive_integer("width", width), positive_integer("depth", depth)
        self.embed = _Embedding(_TIME_WIDTH, n_classes)
        self.first = _linear(n_in, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        # Without the norms the output grows with the input, and a sampler that strays from the data runs away.
        self.norm = nn.LayerNorm(width)
        self.last = _starting_at_zero(_linear(width, n_out))

    def forward(self, x: Tensor, t: PerRow, label: Integer | Tensor | None) -> Tensor:
        embedding = self.embed(x, t, label)
        h = self.first(x)
        for block in self.blocks:
            h = block(h, embedding)
        return self.last(self.norm(h))


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = _linear(width, width)
        self.time = _linear(_TIME_WIDTH, width)
        self.outer = _linear(width, width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        inner = self.inner(self.norm(h)) + self.time(embedding)
        return h + self.outer(F.silu(inner))


class _ConvBlock(nn.Module):
    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.norm_in = _group_norm(n_in)
        self.inner = _conv(n_in, n_out)
        self.time = _linear(_TIME_WIDTH, n_out)
        self.norm_out = _group_norm(n_out)
        self.outer = _conv(n_out, n_out)
        self.skip = _conv(n_in, n_out, size=1) if n_in != n_out else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        inner = self.inner(F.silu(self.norm_in(h))) + self.time(embedding)[:, :, None, None]
        return self.skip(h) + self.outer(F.silu(self.norm_out(inner)))


class _Attention(nn.Module):
    """Each place looks at all others. Written out, since fused kernels cannot be differentiated twice."""

    def __init__(self, n: int):
        super().__init__()
        self.norm = _group_norm(n)
        self.query_key_value = _conv(n, 3 * n, size=1)
        self.out = _conv(n, n, size=1)

    def forward(self, h: Tensor) -> Tensor:
        query, key, value = self.query_key_value(self.norm(h)).flatten(2).chunk(3, dim=1)
        weights = (query.transpose(1, 2) @ key / math.sqrt(h.shape[1])).softmax(dim=2)
        return h + self.out((value @ weights.transpose(1, 2)).reshape(h.shape))


def _event_shape(event_shape: Integer | Sequence[Integer]) -> tuple[int, ...]:
    sides = event_shape if isinstance(event_shape, (tuple, list)) else (event_shape,)
    return tuple(positive_integer("event_shape", side) for side in sides)


def _checked_event(x: Tensor, event_shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    if x.shape[1:] != event_shape or x.ndim == 0:
        expected = ", ".join(map(str, ("B", *event_shape)))
        raise ValueError(f"x must have shape ({expected}), got {tuple(x.shape)}")
    _check_dtype(x, dtype)
    return recordable(x)


def _check_dtype(x: Tensor, dtype: torch.dtype) -> None:
    if x.dtype != dtype:
        raise ValueError(f"x must be {dtype} like the weights of the network, got {x.dtype}")
