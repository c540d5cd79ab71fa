"""Calls of ``scorebook.monte_carlo`` on the meta device."""

from meta_device import points, times
from scorebook import monte_carlo

DRIVEN = {
    "control_variate": lambda: monte_carlo.control_variate(lambda x: x[:, 0], lambda x: x, points(), 0.0),
    "effective_draws": lambda: monte_carlo.effective_draws(times()),
    "expectation": lambda: [monte_carlo.expectation(f, points()) for f in (lambda x: x, lambda x: x[:, 0] > 0)],
    "running_expectation": lambda: monte_carlo.running_expectation(lambda x: x, points()),
}
