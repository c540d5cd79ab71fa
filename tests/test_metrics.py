"""Distances between samples are held against closed forms, scipy and their own null laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scorebook.lab import metrics
from scorebook.lab.metrics import energy_distance, mode_weights, sliced_wasserstein

F64 = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


# Sliced Wasserstein


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 40), m=st.integers(1, 40), seed=st.integers(0, 1000))
def test_in_one_dimension_it_is_scipys_wasserstein_distance(n, m, seed):
    x, y = normal(n, seed=seed), 2 * normal(m, seed=seed + 1) + 0.5
    expected = stats.wasserstein_distance(x.numpy(), y.numpy())
    assert float(sliced_wasserstein(x, y, n_projections=3)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("p", [1, 1.5, 2, 4])
@pytest.mark.parametrize(("n", "m"), [(12, 12), (12, 18), (7, 5)])
def test_unequal_sizes_are_matched_as_if_each_sample_were_repeated(n, m, p):
    x, y = normal(n, 3), normal(m, 3, seed=1)
    repeated = sliced_wasserstein(x.repeat_interleave(m, 0), y.repeat_interleave(n, 0), p=p, generator=generator(2))
    torch.testing.assert_close(sliced_wasserstein(x, y, p=p, generator=generator(2)), repeated)


@pytest.mark.parametrize("dim", [1, 2, 3, 16])
@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_shift_costs_its_mean_shadow(dim, p):
    """W_p of a shifted copy is |theta . shift| in each direction; its p-th moment on the sphere is known."""
    x = normal(200, dim)
    shift = torch.zeros(dim, dtype=F64)
    shift[0] = 2.0
    log_moment = math.lgamma(dim / 2) + math.lgamma((p + 1) / 2) - math.lgamma(0.5) - math.lgamma((dim + p) / 2)
    n_projections = 4000
    powers = [
        float(sliced_wasserstein(x, x + shift, n_projections=n_projections // 40, p=p, generator=generator(s))) ** p
        for s in range(40)
    ]
    error = np.std(powers, ddof=1) / math.sqrt(40)
    assert abs(np.mean(powers) - 2**p * math.exp(log_moment)) <= 4 * error + 1e-12


def test_shifted_gaussians_are_their_shift_apart():
    """Independent samples: only the sampling error separates the estimate from |shift| / sqrt(d)."""
    shift = torch.tensor([3.0, 0.0, 0.0, 4.0], dtype=F64)
    x, y = normal(4000, 4), normal(4000, 4, seed=1) + shift
    measured = float(sliced_wasserstein(x, y, p=2, n_projections=200, generator=generator()))
    sphere = normal(4, 200, seed=0)
    shadows = (shift @ (sphere / sphere.norm(dim=0))).square()
    error_of_directions = float(shadows.std()) / math.sqrt(200) / (2 * 2.5)
    assert abs(measured - 2.5) <= 4 * (error_of_directions + math.sqrt(2 / 4000))


def test_it_is_symmetric_and_zero_for_a_shuffled_copy():
    x, y = normal(50, 2), normal(30, 2, seed=1)
    there, back = (sliced_wasserstein(a, b, generator=generator()) for a, b in ((x, y), (y, x)))
    torch.testing.assert_close(there, back)
    assert sliced_wasserstein(x, x[torch.randperm(50, generator=generator())]) < 1e-15


def test_images_are_flattened():
    x, y = normal(20, 1, 8, 8), normal(30, 1, 8, 8, seed=1)
    flat = sliced_wasserstein(x.flatten(1), y.flatten(1), generator=generator())
    torch.testing.assert_close(sliced_wasserstein(x, y, generator=generator()), flat)


@pytest.mark.parametrize("largest", [1, 700])
def test_chunks_change_nothing(monkeypatch, largest):
    x, y = normal(60, 3), normal(40, 3, seed=1)
    whole = sliced_wasserstein(x, y, generator=generator()), energy_distance(x, y), mode_weights(x, y[:4])
    monkeypatch.setattr(metrics, "_LARGEST_CHUNK", largest)
    parts = sliced_wasserstein(x, y, generator=generator()), energy_distance(x, y), mode_weights(x, y[:4])
    torch.testing.assert_close(parts, whole)


def test_directions_come_from_the_generator_alone():
    x, y = normal(20, 3), normal(20, 3, seed=1)
    before = torch.get_rng_state()
    first, again, other = (sliced_wasserstein(x, y, n_projections=5, generator=generator(s)) for s in (1, 1, 2))
    assert first == again
    assert first != other
    assert torch.equal(torch.get_rng_state(), before)


def test_distance_can_be_descended():
    """Moving x down the gradient brings it nearer to y."""
    x, y = normal(64, 2).requires_grad_(), normal(48, 2, seed=1) + 2
    distance = sliced_wasserstein(x, y, p=2, generator=generator())
    (gradient,) = torch.autograd.grad(distance, x)
    moved = sliced_wasserstein(x.detach() - 64 * gradient, y, p=2, generator=generator())
    assert moved < 0.8 * distance.detach()


# Energy distance


@pytest.mark.parametrize(("n", "m"), [(2, 2), (7, 5), (40, 40)])
def test_energy_distance_is_the_plain_triple_sum(n, m):
    x, y = normal(n, 2, 2), normal(m, 2, 2, seed=1)

    def mean_distance(a, b, pairs):
        return sum(float((u - v).norm()) for u in a for v in b) / pairs

    expected = 2 * mean_distance(x, y, n * m) - mean_distance(x, x, n * (n - 1)) - mean_distance(y, y, m * (m - 1))
    assert float(energy_distance(x, y)) == pytest.approx(expected, rel=1e-10)


def test_energy_distance_of_one_law_to_itself_scatters_around_zero():
    values = torch.stack([energy_distance(normal(20, 3, seed=s), normal(30, 3, seed=1000 + s)) for s in range(400)])
    assert abs(float(values.mean())) <= 4 * float(values.std()) / math.sqrt(400)
    assert (values < 0).any()


def test_energy_distance_of_shifted_normals_has_its_closed_form():
    """E|N(shift, 2)| is known: twice that, minus 2 E|N(0, 2)|."""
    shift = 1.3
    expected = 2 * (
        2 * math.exp(-(shift**2) / 4) / math.sqrt(math.pi) + shift * math.erf(shift / 2) - 2 / math.sqrt(math.pi)
    )
    values = torch.stack([energy_distance(normal(100, seed=s), normal(80, seed=1000 + s) + shift) for s in range(200)])
    assert abs(float(values.mean()) - expected) <= 4 * float(values.std()) / math.sqrt(200)


def test_energy_distance_keeps_its_digits_far_from_the_origin():
    """In float32 the shift by 1000 must not drown distances of order one."""
    x, y = normal(200, 2), normal(200, 2, seed=1) + 1
    expected = energy_distance(x, y)
    torch.testing.assert_close(
        energy_distance((x + 1000).float(), (y + 1000).float()).double(), expected, rtol=0, atol=1e-3
    )


# Mode weights


def test_mode_weights_count_the_nearest_mode():
    means = torch.tensor([[-5.0, -5.0], [5.0, 5.0], [0.0, 9.0]], dtype=F64)
    labels = torch.tensor([0] * 5 + [1] * 12 + [2] * 3)
    x = means[labels] + 0.3 * normal(20, 2)
    torch.testing.assert_close(mode_weights(x, means), torch.tensor([0.25, 0.6, 0.15], dtype=F64))
    torch.testing.assert_close(mode_weights(x.reshape(20, 1, 2), means.reshape(3, 1, 2)), mode_weights(x, means))


def test_mode_weights_of_a_mixture_are_its_weights():
    labels = torch.multinomial(torch.tensor([0.2, 0.8]), 20_000, replacement=True, generator=generator())
    means = torch.tensor([[-5.0, -5.0], [5.0, 5.0]])
    share = mode_weights(means[labels] + normal(20_000, 2, dtype=torch.float32), means)
    assert abs(float(share[0]) - 0.2) <= 4 * math.sqrt(0.16 / 20_000)
    assert float(share.sum()) == pytest.approx(1)


# Types, devices, errors


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_results_have_the_type_of_the_samples(dtype):
    x, y = normal(9, 2, dtype=dtype), normal(9, 2, seed=1, dtype=dtype)
    assert {sliced_wasserstein(x, y).dtype, energy_distance(x, y).dtype, mode_weights(x, y).dtype} == {dtype}


def test_everything_runs_on_the_meta_device():
    x, y = torch.empty(9, 2, device="meta"), torch.empty(7, 2, device="meta")
    assert sliced_wasserstein(x, y, generator=generator()).is_meta
    assert energy_distance(x, y).is_meta
    assert mode_weights(x, y).shape == (7,)


METRICS = pytest.mark.parametrize("metric", [sliced_wasserstein, energy_distance, mode_weights])


@METRICS
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(4, 3), r"x and (y|means) must agree .*\(4, 2\) and \(4, 3\)"),
        (torch.zeros(0, 2), torch.zeros(4, 2), r"x must hold at least one point, .*got \(0, 2\)"),
        (torch.zeros(4, 2), torch.zeros(0, 2), r"(y|means) must hold at least one point, .*got \(0, 2\)"),
        (torch.zeros(4, 2), torch.tensor(1.0), r"(y|means) must have shape \(B, \*event\), got a scalar"),
        (torch.full((4, 2), math.nan), torch.zeros(4, 2), r"x must be finite, got nan"),
        (torch.zeros(4, 2), torch.full((4, 2), math.inf), r"(y|means) must be finite, got inf"),
        (torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, 2), r"x must be a floating tensor, got torch.int64"),
        ([[0.0]], torch.zeros(4, 2), r"x must be a floating tensor, got list"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(metric, x, y, message):
    with pytest.raises(ValueError, match=message):
        metric(x, y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_projections": 0}, "n_projections must be a positive integer, got 0"),
        ({"p": 0.5}, r"p must be a number of at least 1, got 0\.5"),
        ({"p": math.inf}, "p must be a number of at least 1, got inf"),
    ],
)
def test_sliced_wasserstein_names_the_option_that_is_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        sliced_wasserstein(torch.zeros(4, 2), torch.zeros(4, 2), **options)


def test_energy_distance_needs_pairs():
    with pytest.raises(ValueError, match="y must hold at least 2 samples, got 1"):
        energy_distance(torch.zeros(4, 2), torch.zeros(1, 2))
