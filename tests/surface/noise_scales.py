"""The surface of ``scorebook.noise_scales``."""

from scorebook import noise_scales
from surface import Call, constant, generator, per_row, points, score

SCALES = constant([1.0, 0.5, 0.25])

CALLS = {
    "annealed_langevin": Call(
        lambda x, sigmas, step_size: noise_scales.annealed_langevin(
            score, x, sigmas, step_size=step_size, n_steps_each=2, generator=generator()
        ),
        x=points(),
        sigmas=SCALES,
        step_size=per_row(0.01, 0.02),
        by_row=True,
        sampler=True,
    ),
    "denoising_score_matching_loss": Call(
        lambda x, sigma: noise_scales.denoising_score_matching_loss(score, x, sigma, generator=generator()),
        x=points(),
        sigma=per_row(0.1, 2.0),
    ),
    "geometric_noise_scales": Call(
        lambda sigma_max, sigma_min: noise_scales.geometric_noise_scales(sigma_max, sigma_min, 4),
        sigma_max=constant(2.0),
        sigma_min=constant(0.5),
    ),
    "suggest_sigma_max": Call(lambda data: noise_scales.suggest_sigma_max(data), data=points()),
    "suggest_step_size": Call(lambda sigmas: noise_scales.suggest_step_size(sigmas, 5), sigmas=SCALES),
    "tweedie": Call(
        lambda x, sigma: noise_scales.tweedie(score, x, sigma), x=points(), sigma=per_row(0.1, 2.0), by_row=True
    ),
}

NO_DATA = {"suggest_ratio": "takes a whole number"}

WITHOUT_DATA = {"suggest_ratio": Call(lambda: noise_scales.suggest_ratio(8))}
