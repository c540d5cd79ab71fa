"""Calls of ``scorebook.sde`` on the meta device."""

import torch

from meta_device import generator, labels, mixture, points, score, times
from scorebook import sde
from scorebook.lab.networks import TimeMLP

ALL = {"VESDE": sde.VESDE(), "VPSDE": sde.VPSDE(), "SubVPSDE": sde.SubVPSDE(), "StraightPath": sde.StraightPath()}
VP = ALL["VPSDE"]
GRID = torch.linspace(1, 0.1, 4)


def model():
    """A score model with class labels."""
    return sde.ScoreModel(TimeMLP(2, n_classes=3).to("meta"), VP)


DRIVEN = {
    "ScoreModel.weight": lambda: model().weight(times()),
    "ScoreModel.forward": lambda: [model()(points(), t, label=labels()) for t in (0.5, times())],
    "ScoreModel.on_grid": lambda: [s(points(), label=labels()) for s in model().on_grid(GRID.to("meta"))],
    "at_noise_scale": lambda: [sde.at_noise_scale(score, VP)(points(), sigma) for sigma in (0.5, times())],
    "at_time": lambda: [sde.at_time(score, VP)(points(), t) for t in (0.5, times())],
    "euler_maruyama": lambda: [
        sde.euler_maruyama(VP, model(), points(), n_steps=3, generator=generator(), trajectory=True),
        sde.euler_maruyama(VP, score, points(), times=GRID, constraint=lambda x, t: x * t),
    ],
    "on_grid": lambda: [at_t(points()) for s in (model(), score) for at_t in sde.on_grid(s, GRID.to("meta"))],
    "predictor_corrector": lambda: sde.predictor_corrector(
        VP, score, points(1, 4, 4), n_steps=3, generator=generator()
    ),
    "reverse_drift": lambda: [sde.reverse_drift(VP, score, points(), t) for t in (0.5, times())],
    "score_matching_loss": lambda: [
        sde.score_matching_loss(model(), VP, points(), labels=labels(), p_drop=0.5, weighting=w, generator=generator())
        for w in ("sigma2", "likelihood", lambda t: t)
    ],
    "denoising_loss": lambda: sde.denoising_loss(model(), points(), labels(), p_drop=0.5, generator=generator()),
    "simulate": lambda: [
        sde.simulate(lambda x, t: -x, lambda x, t, g=g: g, points(), GRID, generator=generator())
        for g in (1.0, times(), points())
    ],
}

for name, one in ALL.items():
    DRIVEN |= {
        f"{name}.alpha": lambda one=one: one.alpha(times()),
        f"{name}.denoise": lambda one=one: [one.denoise(score, points(), t) for t in (0.5, times())],
        f"{name}.diffusion": lambda one=one: one.diffusion(times()),
        f"{name}.drift": lambda one=one: [one.drift(points(), t) for t in (0.5, times())],
        f"{name}.exact_score": lambda one=one: [one.exact_score(mixture())(points(), t) for t in (0.5, times())],
        f"{name}.perturb": lambda one=one: [one.perturb(points(), t, generator=generator()) for t in (0.5, times())],
        f"{name}.prior_log_prob": lambda one=one: one.prior_log_prob(points(1, 4, 4)),
        f"{name}.sample_prior": lambda one=one: one.sample_prior((8, 2), generator=generator(), device="meta"),
        f"{name}.sigma": lambda one=one: one.sigma(times()),
        f"{name}.time_of": lambda one=one: one.time_of(times()),
    }

for name in ("VPSDE", "SubVPSDE"):
    DRIVEN |= {
        f"{name}.beta": lambda name=name: ALL[name].beta(times()),
        f"{name}.integrated_beta": lambda name=name: ALL[name].integrated_beta(times()),
    }

NOT_DRIVEN = {
    "ScoreModel.get_extra_state": "takes no tensor; its bytes stay on the CPU",
    "ScoreModel.set_extra_state": "takes bytes, on whatever device",
    "same_sde": "takes no tensor",
    "sde_of": "takes no tensor",
    "data_std_of": "takes no tensor",
    "log_normal_times": "draws from numbers alone; the loss moves the times to the device of the data",
    "time_sampler": "draws times on the generator's device; the loss, which moves them, is driven",
} | {f"{name}.time_grid": "takes no tensor; the samplers, which move the grid, are driven" for name in ALL}
