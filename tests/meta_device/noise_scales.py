"""Calls of ``scorebook.noise_scales`` on the meta device."""

import torch

from meta_device import generator, mixture, points, score, times
from scorebook import noise_scales

DRIVEN = {
    "annealed_langevin": lambda: [
        noise_scales.annealed_langevin(
            model,
            points(),
            sigmas,
            step_size=step,
            n_steps_each=2,
            generator=generator(),
            trajectory=True,
        )
        for model, sigmas, step in (
            (lambda x, sigma: mixture().diffuse(1.0, sigma).score(x), [2.0, 1.0], 0.1),
            (score, torch.tensor([2.0, 1.0]), times()),
            (score, torch.empty(2, device="meta"), times()),
        )
    ],
    "denoising_score_matching_loss": lambda: [
        noise_scales.denoising_score_matching_loss(
            score, points(1, 4, 4), sigma, weighting=weighting, generator=generator()
        )
        for sigma in (0.5, times())
        for weighting in ("sigma2", lambda sigma: 1 / sigma)
    ],
    "geometric_noise_scales": lambda: noise_scales.geometric_noise_scales(torch.empty((), device="meta"), 0.1, 5),
    "suggest_sigma_max": lambda: noise_scales.suggest_sigma_max(points(1, 4, 4)),
    "tweedie": lambda: [noise_scales.tweedie(score, points(1, 4, 4), sigma) for sigma in (0.5, times())],
}

NOT_DRIVEN = {
    "suggest_ratio": "takes no tensor",
    "suggest_step_size": "gives a number, which its scales decide",
}
