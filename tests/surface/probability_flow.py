"""The surface of ``scorebook.probability_flow``."""

from scorebook import probability_flow
from scorebook.sde import VPSDE
from surface import Call, Number, constant, generator, given, labels, per_row, points, score

SDE = VPSDE()
SOLVER = {"method": "heun2", "n_steps": 3}
TOLERANCES = {"rtol": Number(1e-3), "atol": Number(1e-3), "t_min": Number(0.01)}


def likelihood(divergence):
    """The call of the log-likelihood with one kind of divergence."""
    return lambda x: probability_flow.log_prob(SDE, score, x, divergence=divergence, generator=generator(), **SOLVER)


@given
def labelled(x, t, label):
    """A velocity that knows classes."""
    return -2 * x + label.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


CALLS = {
    "bits_per_dim": Call(
        lambda log_prob, bin_width: probability_flow.bits_per_dim(log_prob, 2, bin_width),
        log_prob=per_row(-9.0, 0.0),
        bin_width=Number(0.125),
        by_row=True,
    ),
    "dequantize": Call(
        lambda x, bin_width: probability_flow.dequantize(x, bin_width, generator=generator()),
        x=points(),
        bin_width=Number(0.125),
        by_row=True,
        any_shape=True,
    ),
    "encode": Call(lambda x: probability_flow.encode(SDE, score, x, **SOLVER), x=points(), by_row=True, sampler=True),
    "flow_matching_loss": Call(
        lambda x, labels, p_drop: probability_flow.flow_matching_loss(
            labelled, x, labels, p_drop=p_drop, generator=generator()
        ),
        x=points(),
        labels=labels(name="labels|label"),
        p_drop=Number(0.2),
        accuracy=1e-9,  # the times are drawn in single precision
    ),
    "interpolate": Call(
        lambda x_a, x_b, weights: probability_flow.interpolate(SDE, score, x_a, x_b, weights, **SOLVER),
        x_a=points(),
        x_b=points(),
        weights=constant([0.0, 0.5, 1.0]),
        sampler=True,
    ),
    "log_prob": Call(likelihood("exact"), x=points(), by_row=True, sampler=True),
    "log_prob (hutchinson)": Call(likelihood("hutchinson"), x=points(), sampler=True),
    "sample": Call(
        lambda x, times: probability_flow.sample(SDE, score, x, method="heun2", times=times),
        x=points(),
        times=constant([1.0, 0.5, 0.1]),
        by_row=True,
        sampler=True,
    ),
    "sample (adams)": Call(
        lambda x, times, data_std: probability_flow.sample(
            SDE, score, x, method="adams", times=times, data_std=data_std
        ),
        x=points(),
        times=constant([1.0, 0.5, 0.1]),
        data_std=Number(2.0),
        by_row=True,
        sampler=True,
    ),
    "sample (with_log_prob)": Call(
        lambda x: probability_flow.sample(SDE, score, x, n_steps=3, with_log_prob=True),
        x=points(),
        by_row=True,
        sampler=True,
    ),
    "sample (differentiable)": Call(
        lambda x: probability_flow.sample(SDE, score, x, n_steps=3, differentiable=True), x=points(), by_row=True
    ),
    "log_prob (differentiable)": Call(
        lambda x: probability_flow.log_prob(SDE, score, x, n_steps=3, differentiable=True), x=points(), by_row=True
    ),
    "log_prob (adams)": Call(
        lambda x, t_min: probability_flow.log_prob(SDE, score, x, n_steps=3, t_min=t_min),
        x=points(),
        t_min=Number(0.01),
        by_row=True,
        sampler=True,
    ),
    "sample (adaptive)": Call(
        lambda x, rtol, atol, t_min: probability_flow.sample(SDE, score, x, rtol=rtol, atol=atol, t_min=t_min),
        x=points(),
        **TOLERANCES,
        sampler=True,
        accuracy=1e-3,
    ),
    "score_from_velocity": Call(
        lambda x, t: probability_flow.score_from_velocity(SDE, score)(x, t),
        x=points(),
        t=per_row(0.1, 0.9),
        by_row=True,
    ),
    "velocity": Call(
        lambda t, x: probability_flow.velocity(SDE, score)(t, x), t=per_row(0.1, 0.9), x=points(), by_row=True
    ),
}
