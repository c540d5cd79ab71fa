"""Estimates: a hair off passes, a standard error of another formula does not, and a message says on which draws."""

import math

import pytest
import torch

from scorebook import coursework


def mean_of(factor=1.0):
    return lambda values: (values.mean(0), factor * values.std(0) / math.sqrt(len(values)))


@pytest.mark.parametrize(("factor", "passed"), [(1 + 1e-6, True), (1.001, False), (0.999, False), (-1.0, False)])
def test_an_error_passes_to_four_digits(factor, passed):
    assert coursework.check_estimate(mean_of(factor), "mean").passed is passed


def test_a_message_says_what_was_seen_on_which_draws_and_what_would_be_right():
    words = coursework.check_estimate(lambda v: (v.mean(0), v.std(0)), "mean").diagnosis
    for part in ("draws, the first of them", "would be right", "√N times smaller", "in the chapter Monte Carlo"):
        assert part in words


def test_weights_that_underflow_are_seen_though_the_formula_is_right():
    def plain(log_weights):
        return log_weights.exp().sum() ** 2 / log_weights.exp().square().sum()

    assert coursework.check_estimate(plain, "effective_draws").mistake == "underflow"
    assert coursework.check_estimate(lambda w: plain(w - w.max()), "effective_draws").passed


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="kind"):
        coursework.check_estimate(mean_of(), "median")


def test_nan_never_passes():
    report = coursework.check_estimate(lambda v: (v.mean(0), torch.full((3,), math.nan)), "mean")
    assert report.mistake == "not_finite"
