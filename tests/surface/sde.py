"""The surface of ``scorebook.sde``."""

import torch

from scorebook import sde
from scorebook.lab.networks import TimeMLP
from surface import (
    PLANE,
    Call,
    Data,
    Number,
    beforehand,
    constant,
    generator,
    given,
    isotropic_mixture,
    labels,
    like,
    per_row,
    points,
    score,
)

SDES = {"VESDE": sde.VESDE(), "VPSDE": sde.VPSDE(), "SubVPSDE": sde.SubVPSDE(), "StraightPath": sde.StraightPath()}
VP = SDES["VPSDE"]
TIMES = per_row(0.1, 0.9)
GRID = constant([1.0, 0.6, 0.3, 0.1])


@beforehand
def model(x):
    """A score model with class labels, in the precision of the points."""
    network = TimeMLP(2, width=8, depth=1, n_classes=3, generator=generator())
    torch.nn.init.normal_(network.trunk.last.weight, generator=generator())
    return like(sde.ScoreModel(network, VP), x)


@given
def drift(x, t):
    """The drift of a process that forgets its start."""
    return -x


CALLS = {
    "ScoreModel": Call(
        lambda data_std: sde.ScoreModel(torch.nn.Identity(), VP, data_std).weight(0.5), data_std=Number(1.0)
    ),
    "ScoreModel.forward": Call(
        lambda x, t, label: model(x)(x, t, label=label),
        x=points(),
        t=TIMES,
        label=labels(),
        events=PLANE,
        by_row=True,
    ),
    "ScoreModel.weight": Call(lambda t: model(t).weight(t), t=TIMES, by_row=True),
    "ScoreModel.on_grid": Call(
        lambda times, x: [f(x) for f in model(x).on_grid(times)],
        times=constant([1.0, 0.6, 0.3, 0.1], name="times|t"),
        x=points(),
        events=PLANE,
        by_row=True,
    ),
    "at_noise_scale": Call(
        lambda y, sigma: sde.at_noise_scale(score, VP)(y, sigma), y=points(), sigma=per_row(0.1, 2.0), by_row=True
    ),
    "at_time": Call(lambda x, t: sde.at_time(score, VP)(x, t), x=points(), t=TIMES, by_row=True),
    "euler_maruyama": Call(
        lambda x, times: sde.euler_maruyama(VP, score, x, times=times, generator=generator()),
        x=points(),
        times=GRID,
        by_row=True,
        sampler=True,
    ),
    "euler_maruyama (equal steps)": Call(
        lambda x, t_min: sde.euler_maruyama(VP, score, x, n_steps=2, t_min=t_min, generator=generator()),
        x=points(),
        t_min=Number(0.01),
        by_row=True,
        sampler=True,
    ),
    "log_normal_times": Call(
        lambda mean, std, t_min: sde.log_normal_times(VP, mean=mean, std=std, t_min=t_min)(4, generator()),
        mean=Number(-1.2),
        std=Number(1.2),
        t_min=Number(0.01),
    ),
    "on_grid": Call(
        lambda times, x: [f(x) for f in sde.on_grid(model(x), times)],
        times=constant([1.0, 0.6, 0.3, 0.1], name="times|t"),
        x=points(),
        events=PLANE,
        by_row=True,
    ),
    "predictor_corrector": Call(
        lambda x, times, snr: sde.predictor_corrector(VP, score, x, times=times, snr=snr, generator=generator()),
        x=points(),
        times=GRID,
        snr=Number(0.16),
        by_row=True,
        sampler=True,
    ),
    "reverse_drift": Call(lambda x, t: sde.reverse_drift(VP, score, x, t), x=points(), t=TIMES, by_row=True),
    "score_matching_loss": Call(
        lambda x, labels, p_drop, t_min: sde.score_matching_loss(
            model(x), VP, x, labels=labels, p_drop=p_drop, t_min=t_min, generator=generator()
        ),
        x=points(),
        labels=labels(name="labels|label"),
        p_drop=Number(0.2),
        t_min=Number(0.01),
        events=PLANE,
        accuracy=1e-9,  # the times are drawn in single precision
    ),
    "score_matching_loss (any event)": Call(
        lambda x: sde.score_matching_loss(score, VP, x, weighting="likelihood", generator=generator()),
        x=points(),
        accuracy=1e-9,
    ),
    "denoising_loss": Call(
        lambda x, labels, p_drop: sde.denoising_loss(model(x), x, labels, p_drop=p_drop, generator=generator()),
        x=points(),
        labels=labels(name="labels|label"),
        p_drop=Number(0.2),
        events=PLANE,
        accuracy=1e-9,
    ),
    "simulate": Call(
        lambda x, times, increments: sde.simulate(
            drift, lambda x, t: 1.0, x, times, increments=increments, generator=generator()
        ),
        x=points(name="x|increments"),
        times=GRID,
        increments=Data(lambda random, n, event: random.standard_normal((3, n, *event)), rows=False),
        sampler=True,
    ),
    "time_sampler": Call(
        lambda t_min: sde.time_sampler(VP, uniform_in="log_noise", t_min=t_min)(4, generator()), t_min=Number(0.01)
    ),
}

for name, process in SDES.items():
    CALLS |= {
        f"{name}.alpha": Call(lambda t, process=process: process.alpha(t), t=TIMES, by_row=True),
        f"{name}.denoise": Call(
            lambda x, t, process=process: process.denoise(score, x, t), x=points(), t=TIMES, by_row=True
        ),
        f"{name}.diffusion": Call(lambda t, process=process: process.diffusion(t), t=TIMES, by_row=True),
        f"{name}.drift": Call(
            lambda x, t, process=process: process.drift(x, t),
            x=points(),
            t=TIMES,
            by_row=True,
            unused=("x",) if name == "VESDE" else (),
        ),
        f"{name}.exact_score": Call(
            lambda x, t, process=process: process.exact_score(like(isotropic_mixture(), x))(x, t),
            x=points(),
            t=per_row(0.1, 0.9, name="t|alpha"),
            events=((2,), (2, 1)),
            by_row=True,
        ),
        f"{name}.perturb": Call(
            lambda x0, t, process=process: process.perturb(x0, t, generator=generator()),
            x0=points(),
            t=TIMES,
            by_row=True,
        ),
        f"{name}.prior_log_prob": Call(lambda x, process=process: process.prior_log_prob(x), x=points(), by_row=True),
        f"{name}.sigma": Call(lambda t, process=process: process.sigma(t), t=TIMES, by_row=True),
        f"{name}.time_grid": Call(
            lambda t_min, data_std, process=process: process.time_grid(
                3, t_min=t_min, data_std=data_std, spacing="share"
            ),
            t_min=Number(0.01),
            data_std=Number(2.0),
        ),
        f"{name}.time_of": Call(
            lambda noise_to_signal, process=process: process.time_of(noise_to_signal),
            noise_to_signal=per_row(0.1, 2.0),
            by_row=True,
        ),
    }

for name in ("VPSDE", "SubVPSDE"):
    CALLS |= {
        f"{name}.beta": Call(lambda t, process=SDES[name]: process.beta(t), t=TIMES, by_row=True),
        f"{name}.integrated_beta": Call(lambda t, process=SDES[name]: process.integrated_beta(t), t=TIMES, by_row=True),
        name: Call(
            lambda beta_min, beta_max, name=name: getattr(sde, name)(beta_min, beta_max).alpha(0.5),
            beta_min=Number(0.1),
            beta_max=Number(20.0),
        ),
    }

CALLS["StraightPath"] = Call(lambda signal_left: sde.StraightPath(signal_left).alpha(0.5), signal_left=Number(0.01))
CALLS["VESDE"] = Call(
    lambda sigma_min, sigma_max: sde.VESDE(sigma_min, sigma_max).sigma(0.5),
    sigma_min=Number(0.01),
    sigma_max=Number(50.0),
)

NO_DATA = {f"{name}.sample_prior": "takes a shape" for name in SDES} | {
    "SDE": "abstract",
    "ScoreModel.get_extra_state": "takes none",
    "ScoreModel.set_extra_state": "takes what get_extra_state returned",
    "same_sde": "takes no numbers",
    "sde_of": "takes no numbers",
    "data_std_of": "takes no numbers",
}

WITHOUT_DATA = {
    f"{name}.sample_prior": Call(lambda process=process: process.sample_prior((4, 2), generator=generator()))
    for name, process in SDES.items()
} | {
    "ScoreModel.get_extra_state": Call(lambda: model(None).get_extra_state()),
    "ScoreModel.set_extra_state": Call(lambda: model(None).set_extra_state(model(None).get_extra_state())),
    "same_sde": Call(lambda: sde.same_sde("score", model(None), VP)),
    "sde_of": Call(lambda: sde.sde_of(model(None))),
    "data_std_of": Call(lambda: sde.data_std_of(model(None))),
}
