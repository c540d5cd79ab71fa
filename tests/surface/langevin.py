"""The surface of ``scorebook.langevin``."""

from scorebook import langevin
from surface import Call, Data, generator, log_prob, per_row, points, score

CHAIN = {"x": points(), "step_size": per_row(0.05, 0.2)}
PATH = Data(lambda random, n, event: random.standard_normal((6, n, *event)), rows=False)

CALLS = {
    "autocorrelation": Call(lambda path: langevin.autocorrelation(path), path=PATH),
    "effective_sample_size": Call(lambda path: langevin.effective_sample_size(path), path=PATH),
    "gradient_ascent": Call(
        lambda x, step_size: langevin.gradient_ascent(score, x, step_size=step_size, n_steps=2),
        **CHAIN,
        by_row=True,
        sampler=True,
    ),
    "langevin": Call(
        lambda x, step_size: langevin.langevin(score, x, step_size=step_size, n_steps=2, generator=generator()),
        **CHAIN,
        by_row=True,
        sampler=True,
    ),
    "metropolis_adjusted_langevin": Call(
        lambda x, step_size: langevin.metropolis_adjusted_langevin(
            log_prob, x, step_size=step_size, n_steps=2, generator=generator()
        ),
        **CHAIN,
        by_row=True,
        sampler=True,
        rejects=True,
    ),
}
