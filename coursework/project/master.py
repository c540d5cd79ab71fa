"""The entry to beat: the book's own sampler for few evaluations, which solves the flow in another variable."""

from scorebook import probability_flow


def sample(score, sde, x, n_evaluations, *, data_std):
    """Samples by a multistep method of third order, in the angle between signal and noise."""
    return probability_flow.sample(sde, score, x, n_steps=n_evaluations, data_std=data_std)
