"""The surface of ``scorebook.monte_carlo``."""

import torch

from scorebook import monte_carlo
from surface import Call, constant, given, points


def estimate(result):
    """The tensors of an estimate."""
    return result.mean, result.standard_error


@given
def squares(x):
    """Squares that integers can hold too."""
    return (0.5 * x).square()


def controlled(x, control_mean):
    """The mean of a square, corrected by the draws themselves."""
    return estimate(
        monte_carlo.control_variate(
            lambda x: 1 + squares(x).reshape(len(x), -1).sum(1),
            lambda x: 0.5 * x.reshape(len(x), -1)[:, 0],
            x,
            control_mean,
        )
    )


CALLS = {
    "control_variate": Call(controlled, x=points(), control_mean=constant(0.0)),
    "effective_draws": Call(
        lambda log_weights: monte_carlo.effective_draws(log_weights), log_weights=points(means=(-torch.inf,))
    ),
    "expectation": Call(lambda x: estimate(monte_carlo.expectation(squares, x)), x=points()),
    "running_expectation": Call(lambda x: estimate(monte_carlo.running_expectation(squares, x)), x=points()),
}
