"""A first entry: the probability flow by Euler's method, in equal steps of time."""

from itertools import pairwise


def sample(score, sde, x, n_evaluations, *, data_std):
    """Samples of the law whose score is given.

    Args:
        score: ``score(x, t) -> tensor like x``, the score of the noised law; ``t`` a scalar tensor.
        sde: the SDE in whose time it is given.
        x: starts, draws of the SDE's prior, shape ``(B, d)``.
        n_evaluations: how often ``score`` may be called.
        data_std: standard deviation of the data, of all coordinates together.

    Returns:
        Samples, shape ``(B, d)``.
    """
    times = sde.time_grid(n_evaluations).to(x)
    for t, t_next in pairwise(times):
        g = sde.diffusion(t)
        x = x + (sde.drift(x, t) - 0.5 * g**2 * score(x, t)) * (t_next - t)
    return x
