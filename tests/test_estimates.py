import math

import pytest
import torch

from scorebook.lab.estimates import Estimate, mean_of, standard_error


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("mean", "error", "n", "text"),
    [
        (0.50132, 0.0041, 10000, "0.501 ± 0.004 (n=10000)"),
        (-1.5, 0.0123, 50, "−1.500 ± 0.012 (n=50)"),
        (2.0, math.inf, 1, "2.00 ± inf (n=1)"),
        ([1.0, 2.0], [0.2, 0.3], 7, "[1.0 ± 0.2, 2.0 ± 0.3] (n=7)"),
        ([1.0, 2.0], [0.2, 0.3], torch.tensor([3, 4]), "[1.0 ± 0.2, 2.0 ± 0.3] (n=3...4)"),
        ([[1.0, 2.0]], [[0.2, 0.3]], 7, "2 estimates of shape (1, 2) (n=7)"),
    ],
)
def test_an_estimate_prints_to_the_digit_at_which_its_error_begins(mean, error, n, text):
    assert str(Estimate(torch.tensor(mean), torch.tensor(error), n)) == text


def test_a_mean_is_within_its_errors_of_the_truth_as_often_as_they_say():
    estimate = [mean_of(0.3 + normal(50, 2, seed=seed)) for seed in range(500)]
    wrong_by = torch.stack([(e.mean - 0.3) / e.standard_error for e in estimate])
    assert wrong_by.mean().abs() < 4 / math.sqrt(1000)
    # Student's law with 49 degrees of freedom has variance 49/47 and kurtosis 3 + 6/45.
    assert abs(wrong_by.square().mean() - 49 / 47) < 4 * math.sqrt(2.2 / 1000)


def test_a_mean_keeps_the_gradient_of_its_values_and_its_error_has_none():
    values = normal(10, 3).requires_grad_()
    estimate = mean_of(values)
    (gradient,) = torch.autograd.grad(estimate.mean.sum(), values)
    torch.testing.assert_close(gradient, torch.full((10, 3), 0.1, dtype=torch.float64))
    assert not estimate.standard_error.requires_grad
    assert estimate.n == 10


def test_one_value_says_nothing_of_its_own_error():
    assert mean_of(normal(1)).standard_error == math.inf
    assert standard_error(torch.tensor([4.0, 4.0]), torch.tensor([4, 0])).tolist() == [1.0, math.inf]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.ones(0, 2), "values must hold at least one value"),
        (torch.ones(()), "values must hold at least one value"),
        (torch.ones(3, dtype=torch.int64), "values must be a floating tensor"),
        (torch.tensor([1.0, math.nan]), "values must be finite"),
    ],
)
def test_what_has_no_mean_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        mean_of(values)
