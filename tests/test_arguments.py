"""Every refusal names the argument, what came and what was expected; one number meets a whole batch."""

import math

import numpy as np
import pytest
import torch

from scorebook.lab.arguments import (
    boolean,
    expand,
    finite,
    fits,
    inner_time,
    levels,
    non_negative,
    one_of,
    one_per_row,
    one_read,
    positive,
    positive_integer,
    require,
    same_shape,
    some_points,
    standard_normal,
    sum_over_event,
    uniform,
    unit_time,
    vectors,
)

# expand


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 1, 8, 8)])
def test_expand_multiplies_row_by_row(shape):
    x, value = torch.rand(shape), torch.tensor([1.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(expand(value, x) * x, torch.stack([v * row for v, row in zip(value, x, strict=True)]))


@pytest.mark.parametrize("value", [2, 2.0, torch.tensor(2), torch.tensor([2.0])])
def test_expand_lets_one_number_serve_every_row(value):
    x = torch.rand(4, 3, dtype=torch.float64)
    factor = expand(value, x)
    assert factor.dtype == torch.float64
    torch.testing.assert_close(factor * x, 2 * x)


def test_expand_takes_type_and_device_of_x():
    x = torch.empty(4, 2, dtype=torch.float64, device="meta")
    factor = expand(torch.ones(4), x)
    assert (factor.dtype, factor.device, factor.shape) == (torch.float64, x.device, (4, 1))


@pytest.mark.parametrize("shape", [(3,), (4, 1), (4, 2)])
def test_expand_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"one value per row, shape \(4,\), got"):
        expand(torch.ones(shape), torch.ones(4, 2))


# standard_normal


def test_standard_normal_follows_the_generator_alone():
    before = torch.get_rng_state()
    first, again = (standard_normal((5, 2), generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)


def test_standard_normal_moves_what_a_cpu_generator_draws():
    generator = torch.Generator().manual_seed(0)
    x = standard_normal((5, 2), generator=generator, dtype=torch.float64, device="meta")
    assert (x.shape, x.dtype, x.device.type) == ((5, 2), torch.float64, "meta")
    following = torch.randn(1, generator=generator)
    torch.randn(5, 2, generator=generator.manual_seed(0), dtype=torch.float64)
    assert torch.equal(torch.randn(1, generator=generator), following)


def test_standard_normal_is_standard_and_normal():
    x = standard_normal((20_000,), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        values = x**power
        assert abs(float(values.mean()) - moment) <= 4 * float(values.std()) / math.sqrt(20_000)


# Checks of values

TENSOR = torch.tensor


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (positive, [1, 0.5, np.float32(0.5), np.uint8(1), TENSOR(2), TENSOR([1.0, 2.0])]),
        (non_negative, [0, 0.0, 1, np.int16(0), np.float16(0), TENSOR(0), TENSOR([0.0, 2.0])]),
        (finite, [-1, 0.0, np.float64(-1), np.int64(-1), TENSOR([-1, 0]), TENSOR([[1e30]])]),
    ],
)
def test_good_values_pass(check, good):
    for value in good:
        assert check("size", value) is None


@pytest.mark.parametrize("value", [1, 1000, np.int64(10), np.uint8(1)])
def test_a_whole_number_is_pythons_afterwards(value):
    passed = positive_integer("size", value)
    assert passed == value
    assert type(passed) is int


@pytest.mark.parametrize(
    ("check", "bad", "message"),
    [
        (positive, 0, "size must be positive and finite, got 0"),
        (positive, -0.1, r"size must be positive and finite, got -0\.1"),
        (positive, math.inf, "size must be positive and finite, got inf"),
        (positive, math.nan, "size must be positive and finite, got nan"),
        (positive, TENSOR([1.0, 0.0, -2.0]), r"size must be positive and finite, got 0 among 3 value\(s\)"),
        (positive, TENSOR([1.0, math.inf]), "size must be positive and finite, got inf"),
        (positive, TENSOR([1.0, math.nan]), "size must be positive and finite, got nan"),
        (positive, TENSOR(-1), "size must be positive and finite, got -1"),
        (positive, "1", "size must be a number or a tensor, got '1'"),
        (positive, True, "size must be a number or a tensor, got True"),
        (positive, None, "size must be a number or a tensor, got None"),
        (positive, np.float32(-0.5), "size must be positive and finite, got .*-0.5"),
        (positive, np.float32("nan"), "size must be positive and finite, got .*nan"),
        (positive, np.bool_(True), "size must be a number or a tensor, got .*True"),
        (non_negative, -1, "size must be non-negative and finite, got -1"),
        (non_negative, TENSOR([0.0, -3.0]), "size must be non-negative and finite, got -3"),
        (non_negative, math.nan, "size must be non-negative and finite, got nan"),
        (finite, math.nan, "size must be finite, got nan"),
        (finite, -math.inf, "size must be finite, got -inf"),
        (finite, TENSOR([[0.0, -math.inf]]), r"size must be finite, got -inf among 2 value\(s\)"),
        (positive_integer, 0, "size must be a positive integer, got 0"),
        (positive_integer, 2.0, r"size must be a positive integer, got 2\.0"),
        (positive_integer, np.int64(0), "size must be a positive integer, got .*0"),
        (positive_integer, np.float64(2), "size must be a positive integer, got .*2"),
        (positive_integer, np.bool_(True), "size must be a positive integer, got .*True"),
        (positive_integer, True, "size must be a positive integer, got True"),
        (positive_integer, "3", "size must be a positive integer, got '3'"),
    ],
)
def test_bad_values_are_named(check, bad, message):
    with pytest.raises(ValueError, match=message):
        check("size", bad)


@pytest.mark.parametrize("check", [positive, non_negative, finite])
def test_values_are_not_asked_for_where_there_are_none(check):
    check("size", torch.empty(3, device="meta"))


# one_of, same_shape


def test_one_of_lists_the_options():
    one_of("kind", "b", ("a", "b"))
    with pytest.raises(ValueError, match="kind must be one of 'a', 'b', got 'c'"):
        one_of("kind", "c", ("a", "b"))


def test_same_shape_returns_what_it_approves():
    x = torch.zeros(3, 2)
    output = torch.ones(3, 2)
    assert same_shape("score", output, x) is output


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(3), r"score must return shape \(3, 2\) like its input, got \(3,\)"),
        (0.0, r"score must return a tensor of shape \(3, 2\), got float"),
        (None, r"score must return a tensor of shape \(3, 2\), got NoneType"),
    ],
)
def test_same_shape_names_what_came(output, message):
    with pytest.raises(ValueError, match=message):
        same_shape("score", output, torch.zeros(3, 2))


@pytest.mark.parametrize("output", [torch.zeros(3, 1), torch.zeros(2), torch.zeros(()), 1.0])
def test_one_per_row_takes_one_number_for_each_row(output):
    assert one_per_row("f", torch.zeros(3), torch.zeros(3, 2)).shape == (3,)
    with pytest.raises(ValueError, match=r"f must return one number per row, shape \(3,\), got"):
        one_per_row("f", output, torch.zeros(3, 2))


def test_what_fits_is_shaped_like_all_rows_one_row_or_an_event():
    x = torch.zeros(3, 2, 4)
    for shape in ((3, 2, 4), (1, 2, 4), (2, 4)):
        fits("mask", torch.zeros(shape), x)
    for shape in ((4,), (2, 2, 4), (1, 3, 2, 4), ()):
        with pytest.raises(ValueError, match=r"mask must have the shape of y, \(3, 2, 4\)"):
            fits("mask", torch.zeros(shape), x, of="y")


@pytest.mark.parametrize("x", [torch.empty(0, 2), torch.empty(2, 0), torch.tensor([1.0, math.nan]), torch.tensor(1.0)])
def test_some_points_are_a_batch_of_finite_ones(x):
    some_points("x", torch.zeros(1))
    with pytest.raises(ValueError, match="x must"):
        some_points("x", x)


@pytest.mark.parametrize("mask", [torch.ones(3), torch.ones(3, dtype=torch.uint8), [True, False]])
def test_boolean_takes_no_numbers_for_truth(mask):
    boolean("mask", torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask must be a boolean tensor, got"):
        boolean("mask", mask)


# Rows and times


@pytest.mark.parametrize("event", [(), (1,), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("n_rows", [0, 1, 4])
def test_the_numbers_of_a_point_are_summed_whatever_its_shape(n_rows, event):
    x = torch.arange(n_rows * math.prod(event), dtype=torch.float64).reshape(n_rows, *event)
    assert vectors(x).shape == (n_rows, math.prod(event))
    expected = torch.tensor([float(sum(row.flatten().tolist())) for row in x], dtype=torch.float64)
    assert torch.equal(sum_over_event(x), expected.reshape(n_rows))


def test_uniform_numbers_fill_the_unit_interval_and_follow_the_generator_alone():
    before = torch.get_rng_state()
    first, again = (uniform((1000, 2), generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    assert bool(((first >= 0) & (first < 1)).all())
    assert (first.mean() - 0.5).abs() < 4 / math.sqrt(12 * first.numel())
    assert uniform((3,), generator=torch.Generator().manual_seed(0), device="meta").is_meta


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_levels_have_the_precision_of_the_points_but_single_at_least(dtype):
    assert levels("t", 0.3, torch.zeros(2, dtype=dtype)).dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("t", [1 + 1e-7, 0.0, torch.tensor([0.0, 1.0]), torch.tensor(1)])
def test_a_time_of_the_unit_interval_is_returned_as_a_tensor(t):
    assert torch.equal(unit_time(t).double(), torch.as_tensor(t, dtype=torch.float64))


@pytest.mark.parametrize("t", [1 + 1e-5, -1e-7, math.nan, torch.tensor([0.5, 1.1]), torch.tensor([math.nan, 0.5])])
def test_a_time_outside_of_it_is_refused(t):
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
        unit_time(t)


@pytest.mark.parametrize("t", [0.0, 1.0, -0.1, math.nan])
def test_an_inner_time_is_neither_end(t):
    inner_time("t_min", 1e-9)
    with pytest.raises(ValueError, match=r"t_min must lie in \(0, 1\), got"):
        inner_time("t_min", t)


# one_read


@pytest.mark.parametrize("through", [torch.func.jacrev, torch.func.jacfwd])
def test_checks_are_read_below_the_derivatives_of_torch_func(through):
    def square(x):
        with one_read():
            require((x > 0).all(), lambda: ValueError("x must be positive"))
            require((x < 2).all(), lambda: ValueError("x must be below 2"))
        return x**2

    x = torch.tensor([0.5, 1.5])
    assert torch.equal(through(square)(x), torch.diag(2 * x))
    with pytest.raises(ValueError, match="x must be below 2"):
        through(square)(2 * x)
