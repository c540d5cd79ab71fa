"""Calls of ``scorebook.langevin`` on the meta device."""

from meta_device import generator, log_prob, points, score, times
from scorebook import langevin

DRIVEN = {
    "autocorrelation": lambda: langevin.autocorrelation(points(4, 2), max_lag=3),
    "effective_sample_size": lambda: langevin.effective_sample_size(points(4, 2)),
    "gradient_ascent": lambda: langevin.gradient_ascent(score, points(), step_size=times(), n_steps=2),
    "langevin": lambda: langevin.langevin(score, points(), step_size=0.1, n_steps=2, generator=generator()),
    "metropolis_adjusted_langevin": lambda: langevin.metropolis_adjusted_langevin(
        log_prob, points(), step_size=0.1, n_steps=2, generator=generator(), trajectory=True
    ),
}
