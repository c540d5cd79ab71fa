import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scorebook import monte_carlo
from scorebook.monte_carlo import control_variate, effective_draws, expectation, running_expectation

numbers = st.floats(-1e3, 1e3, allow_subnormal=False)
samples = st.lists(numbers, min_size=2, max_size=30).map(lambda v: torch.tensor(v, dtype=torch.float64))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def identity(x):
    return x


# expectation


@given(samples)
def test_mean_and_error_are_those_of_their_formulas(x):
    estimate = expectation(identity, x)
    n, mean = len(x), sum(x.tolist()) / len(x)
    error = math.sqrt(sum((v - mean) ** 2 for v in x.tolist()) / (n * (n - 1)))
    assert estimate.mean.item() == pytest.approx(mean, abs=1e-9)
    assert estimate.standard_error.item() == pytest.approx(error, abs=1e-9)
    assert estimate.n == n


@given(samples, st.floats(-10, 10), st.floats(-10, 10))
def test_expectation_is_linear_and_the_error_scales_with_the_slope(x, a, b):
    plain, mapped = expectation(identity, x), expectation(lambda x: a * x + b, x)
    torch.testing.assert_close(mapped.mean, a * plain.mean + b, rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(mapped.standard_error, abs(a) * plain.standard_error, rtol=1e-6, atol=1e-6)


@given(st.integers(2, 60), st.data())
def test_the_mean_of_a_condition_is_its_frequency_with_a_binomial_error(n, data):
    hits = data.draw(st.integers(0, n))
    estimate = expectation(lambda x: x < hits, torch.arange(n))
    share = hits / n
    assert estimate.mean.item() == pytest.approx(share, rel=1e-6)
    assert estimate.standard_error.item() == pytest.approx(math.sqrt(share * (1 - share) / (n - 1)), rel=1e-5)


def test_an_estimate_stays_what_it_was():
    estimate = expectation(lambda x: x, torch.arange(4.0))
    with pytest.raises(AttributeError, match="cannot assign"):
        estimate.n = 400


def test_the_standard_error_is_the_spread_of_the_mean_over_repetitions():
    repetitions, n = 4000, 50
    estimate = expectation(torch.exp, torch.rand(n, repetitions, generator=generator(), dtype=torch.float64))
    true_variance = ((math.e**2 - 1) / 2 - (math.e - 1) ** 2) / n
    for measured in (estimate.mean.var(), estimate.standard_error.square().mean()):
        # The variance of the variance of a nearly normal mean is 2 / repetitions of its square; that of the
        # estimated one is below it.
        assert abs(measured.item() / true_variance - 1) < 4 * math.sqrt(2 / repetitions)
    assert abs(estimate.mean.mean().item() - (math.e - 1)) < 4 * math.sqrt(true_variance / repetitions)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99])
def test_the_interval_covers_the_truth_as_often_as_it_says(level):
    repetitions = 20_000
    draws = torch.rand(400, repetitions, generator=generator(1))
    low, high = expectation(identity, draws).interval(level)
    covered = ((low < 0.5) & (high > 0.5)).double().mean().item()
    assert abs(covered - level) < 4 * math.sqrt(level * (1 - level) / repetitions)


@pytest.mark.parametrize("dim", [1, 10, 100])
def test_the_error_falls_as_the_root_of_the_number_of_draws_in_any_dimension(dim):
    repetitions, sizes = 200, torch.tensor([8.0, 32, 128, 512])
    wave = torch.ones(dim, dtype=torch.float64) / math.sqrt(dim)
    errors = []
    for n in sizes.int().tolist():
        draws = normal(n * repetitions, dim, seed=n).reshape(n, repetitions, dim)
        error = expectation(lambda x: (x @ wave).cos(), draws).mean - math.exp(-0.5)
        errors.append(error.square().mean().sqrt())
    steps = sizes.log() - sizes.log().mean()
    slope = (steps @ torch.stack(errors).log().float()) / steps.square().sum()
    spread = math.sqrt(1 / (2 * repetitions)) / steps.norm().item()
    assert abs(slope.item() + 0.5) < 4 * spread


def test_an_estimate_can_have_any_shape():
    x = normal(200, 3, 2)
    estimate = expectation(lambda x: x.flatten(1)[:, :, None] * x.flatten(1)[:, None], x)
    torch.testing.assert_close(estimate.mean, torch.cov(x.flatten(1).T, correction=0) + _outer(x.flatten(1).mean(0)))
    assert estimate.standard_error.shape == (6, 6)


def _outer(v):
    return v[:, None] * v


def test_the_gradient_of_the_average_is_the_average_of_the_gradients():
    x = normal(64)
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    estimate = expectation(lambda x: (theta * x).sin(), x)
    (gradient,) = torch.autograd.grad(estimate.mean, theta)
    torch.testing.assert_close(gradient, (x * (0.7 * x).cos()).mean())
    assert not estimate.standard_error.requires_grad


def test_one_draw_claims_nothing_about_its_error():
    estimate = expectation(identity, torch.tensor([3.0]))
    assert estimate.mean == 3
    assert estimate.standard_error == math.inf
    assert estimate.interval() == (-math.inf, math.inf)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_the_draws_is_kept(dtype):
    x = normal(20, dtype=dtype)
    for estimate in (expectation(identity, x), running_expectation(identity, x), expectation(lambda x: x > 0, x)):
        assert estimate.mean.dtype == estimate.standard_error.dtype == dtype


# running_expectation


@given(samples, st.sampled_from([0.0, 1e8]))
def test_the_running_average_is_the_average_of_the_first_draws(x, offset):
    x = x + offset
    running = running_expectation(identity, x)
    for k in range(len(x)):
        prefix = expectation(identity, x[: k + 1])
        torch.testing.assert_close(running[k].mean, prefix.mean, rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(running[k].standard_error, prefix.standard_error, rtol=1e-5, atol=1e-5)
        assert running[k].n == prefix.n


def test_the_running_average_of_many_single_precision_draws_keeps_its_digits():
    x = 1000 + normal(300_000, dtype=torch.float32)
    running = running_expectation(identity, x)
    exact = running_expectation(identity, x.double())
    torch.testing.assert_close(running.mean.double(), exact.mean, rtol=1e-7, atol=0)
    torch.testing.assert_close(running.standard_error[1:].double(), exact.standard_error[1:], rtol=1e-6, atol=1e-9)


def test_a_running_average_can_have_any_shape_and_a_gradient():
    x = normal(30, 2, 3)
    theta = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    running = running_expectation(lambda x: theta * x, x)
    assert running.mean.shape == running.standard_error.shape == (30, 2, 3)
    (gradient,) = torch.autograd.grad(running.mean[9].sum(), theta)
    torch.testing.assert_close(gradient, x[:10].mean(0))


def test_an_index_selects_mean_error_and_number_of_draws():
    running = running_expectation(identity, normal(100))
    chosen = running[[9, 99]]
    assert chosen.n.tolist() == [10, 100]
    torch.testing.assert_close(chosen.mean, running.mean[[9, 99]])
    assert expectation(lambda x: x, normal(100, 3))[1].n == 100


# control_variate


def test_a_corrected_average_has_a_gradient_and_its_error_has_none():
    """With the control fixed, that of the average is the average of the gradients, corrected alike."""
    x = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    estimate = control_variate(lambda x: theta * (x + x**3), identity, x, 0.0)
    (gradient,) = torch.autograd.grad(estimate.mean, theta)
    torch.testing.assert_close(gradient, control_variate(lambda x: x + x**3, identity, x, 0.0).mean)
    assert not estimate.standard_error.requires_grad


@given(samples.filter(lambda x: x.std() > 1e-3 and len(x) > 3), st.floats(-5, 5), st.floats(-5, 5), numbers)
def test_a_control_that_explains_everything_leaves_no_error(x, slope, intercept, known):
    estimate = control_variate(lambda x: slope * x + intercept, identity, x, known)
    scale = 1 + abs(slope) * (abs(known) + x.abs().max().item()) + abs(intercept)
    assert abs(estimate.mean.item() - (slope * known + intercept)) < 1e-9 * scale
    assert estimate.standard_error.item() < 1e-9 * scale


@pytest.mark.parametrize("order", [1, 2])
def test_the_control_removes_the_share_of_variance_that_it_explains(order):
    # Shifted Legendre polynomials are uncorrelated under the uniform law, with E[P_k^2] = 1 / (2k + 1).
    def legendre(x):
        return torch.stack([2 * x - 1, 6 * x**2 - 6 * x + 1], dim=-1)[..., :order]

    means_of_products = torch.tensor([3 - math.e, 7 * math.e - 19], dtype=torch.float64)[:order]  # E[P_k e^x]
    slopes = torch.tensor([3.0, 5.0], dtype=torch.float64)[:order] * means_of_products
    residual_variance = (math.e**2 - 1) / 2 - (math.e - 1) ** 2 - (slopes @ means_of_products).item()

    repetitions, n = 1000, 500
    draws = torch.rand(repetitions, n, generator=generator(3), dtype=torch.float64)
    estimates = [control_variate(torch.exp, legendre, x, 0.0) for x in draws]
    means = torch.stack([e.mean for e in estimates])
    claimed = torch.stack([e.standard_error for e in estimates]).square()
    true = residual_variance / n
    assert abs(means.var().item() / true - 1) < 4 * math.sqrt(2 / repetitions)
    assert abs(claimed.mean().item() / true - 1) < 4 * claimed.std().item() / true / math.sqrt(repetitions)

    # The fitted slope and the control's own error are correlated: to first order the estimate is
    # E[g^2 residual] / (n Var g) too low.
    grid = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    residual = grid.exp() - (math.e - 1) - legendre(grid) @ slopes
    scales = torch.tensor([3.0, 5.0], dtype=torch.float64)[:order]
    bias = -((legendre(grid).square() @ scales) * residual).mean().item() / n
    assert abs(means.mean().item() - (math.e - 1) - bias) < 4 * math.sqrt(true / repetitions)


@pytest.mark.parametrize("k", [1, 2])
def test_the_error_of_few_draws_counts_what_was_fitted_to_them(k):
    """As in linear regression: the average and a slope for each control are fitted."""
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(k), dtype=torch.float64)
    estimate = control_variate(lambda x: x[:, 2], lambda x: x[:, :k], x, torch.zeros(k, dtype=torch.float64))
    design = torch.cat([torch.ones(7, 1, dtype=torch.float64), x[:, :k]], dim=1)
    residual = x[:, 2] - design @ torch.linalg.lstsq(design, x[:, 2]).solution
    assert estimate.standard_error.item() == pytest.approx((residual.square().sum() / (7 - k - 1) / 7).sqrt().item())


def test_a_useless_control_changes_nothing_much():
    x = normal(5000, 2)
    plain = expectation(lambda x: x[:, 0].exp(), x)
    controlled = control_variate(lambda x: x[:, 0].exp(), lambda x: x[:, 1], x, 0.0)
    assert controlled.standard_error.item() == pytest.approx(plain.standard_error.item(), rel=0.01)


def test_equal_or_constant_controls_do_no_harm():
    x = normal(500)
    once = control_variate(torch.exp, identity, x, 0.0)
    twice = control_variate(torch.exp, lambda x: torch.stack([x, x, torch.ones_like(x)], 1), x, [0.0, 0.0, 1.0])
    torch.testing.assert_close(twice.mean, once.mean)
    torch.testing.assert_close(twice.standard_error, once.standard_error, rtol=0.01, atol=0)


# effective_draws


@given(st.integers(1, 50), st.floats(-1e4, 1e4))
def test_equal_weights_are_worth_their_number(n, log_weight):
    log_weights = torch.full((n,), log_weight, dtype=torch.float64)
    assert effective_draws(log_weights).item() == pytest.approx(n, rel=1e-8)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=20), st.floats(-1e3, 1e3))
def test_a_sample_is_worth_between_one_draw_and_all_of_them_whatever_the_constant(values, shift):
    log_weights = torch.tensor(values, dtype=torch.float64)
    size = effective_draws(log_weights)
    weights = (log_weights - log_weights.max()).exp()
    torch.testing.assert_close(size, weights.sum() ** 2 / weights.square().sum())
    torch.testing.assert_close(effective_draws(log_weights + shift), size, rtol=1e-8, atol=0)
    assert 1 - 1e-9 <= size.item() <= len(values) * (1 + 1e-9)


def test_weights_of_zero_count_for_nothing():
    assert effective_draws(torch.tensor([0.0, -math.inf, 0.0, -math.inf])).item() == pytest.approx(2)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_effective_share_falls_geometrically_with_the_dimension(dim):
    # Target N(0, I), draws from N(0, 1.5 I): E[w]^2 / E[w^2] = (sqrt(2 v - 1) / v)^d at v = 1.5.
    n, variance = 400_000, 1.5
    x = math.sqrt(variance) * normal(n, dim)
    log_weights = -0.5 * x.square().sum(1) * (1 - 1 / variance)
    expected = (math.sqrt(2 * variance - 1) / variance) ** dim
    weights = log_weights.exp()
    ratio = 2 * weights / weights.mean() - weights.square() / weights.square().mean()
    error = expected * ratio.std().item() / math.sqrt(n)
    assert abs(effective_draws(log_weights).item() / n - expected) < 4 * error


def test_weights_of_many_samples_are_taken_column_by_column():
    log_weights = normal(40, 3, 2)
    sizes = effective_draws(log_weights)
    assert sizes.shape == (3, 2)
    torch.testing.assert_close(sizes[1, 1], effective_draws(log_weights[:, 1, 1]))


# What is refused


@pytest.mark.parametrize("function", [expectation, running_expectation, lambda f, x: control_variate(f, f, x, 0.0)])
@pytest.mark.parametrize(
    ("f", "x", "match"),
    [
        (identity, torch.empty(0), "x must hold at least one draw"),
        (identity, torch.tensor(1.0), "x must hold at least one draw"),
        (identity, [1.0, 2.0], "x must hold at least one draw"),
        (identity, torch.tensor([1.0, math.nan, 2.0, 3.0]), "x must be finite, got nan"),
        (torch.log, torch.tensor([1.0, 0.0, 2.0, 3.0]), r"f\(x\) must be finite, got -inf"),
        (torch.mean, torch.ones(5), "f must return one value for each of the 5 draws"),
        (lambda x: x[:-1], torch.ones(5), "f must return one value for each of the 5 draws"),
        (lambda x: 1.0, torch.ones(5), "f must return one value for each of the 5 draws, got float"),
        (lambda x: 1j * x, torch.ones(5), "f must return real values"),
    ],
)
def test_bad_draws_and_bad_functions_are_refused(function, f, x, match):
    with pytest.raises(ValueError, match=match):
        function(f, x)


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, math.nan, "high"])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match="level must be a number between 0 and 1"):
        expectation(identity, torch.ones(3)).interval(level)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((lambda x: x[:, None], identity, torch.ones(5), 0.0), "f must return shape"),
        ((identity, lambda x: x[:, None, None], torch.ones(5), 0.0), "control must return shape"),
        ((identity, lambda x: x[1:], torch.ones(5), 0.0), "control must return one value"),
        ((identity, identity, torch.ones(5), [0.0, 0.0]), "control_mean must be a number or have shape"),
        ((identity, identity, torch.ones(5), math.nan), "control_mean must be finite"),
        ((identity, identity, torch.ones(2), 0.0), "x must hold more than 2 draws"),
    ],
)
def test_controls_that_do_not_fit_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        control_variate(*arguments)


@pytest.mark.parametrize(
    ("log_weights", "match"),
    [
        (torch.empty(0), "at least one weight"),
        (torch.tensor(0.0), "at least one weight"),
        (torch.tensor([0.0, math.nan]), "below infinity"),
        (torch.tensor([0.0, math.inf]), "below infinity"),
        (torch.tensor([-math.inf, -math.inf]), "a weight above zero"),
    ],
)
def test_weights_that_mean_nothing_are_refused(log_weights, match):
    with pytest.raises(ValueError, match=match):
        effective_draws(log_weights)


def test_the_earlier_name_of_effective_draws_works_and_warns():
    log_weights = torch.tensor([0.0, 1.0, -1.0])
    with pytest.warns(DeprecationWarning, match="is called effective_draws now"):
        found = monte_carlo.effective_sample_size(log_weights)
    assert torch.equal(found, effective_draws(log_weights))
