"""Why nothing of ``scorebook.coursework.denoising_diffusion`` takes data, and calls of it on right code."""

import torch

from scorebook.coursework import denoising_diffusion as checks
from surface import Call

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {
    "check_conversion": CODE,
    "check_ddim_step": CODE,
    "check_ddpm_step": CODE,
}


def minus_over_std(x, prediction, alpha_bar):
    """A right conversion from noise to score."""
    return -prediction / (1 - alpha_bar).sqrt()


def implicit(model, x, i, j, alpha_bars, *, eta, generator):
    """A right step of DDIM."""
    now, then = alpha_bars[i], alpha_bars[j] if j >= 0 else torch.ones_like(alpha_bars[i])
    noise = model(x, i)
    std = eta * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
    return then.sqrt() * clean + (1 - then - std**2).clamp(min=0).sqrt() * noise + std * z


def ancestral(model, x, i, betas, *, generator):
    """A right step of DDPM."""
    bars = torch.cumprod(1 - betas, 0)
    now, before = bars[i], bars[i - 1] if i > 0 else torch.ones_like(bars[i])
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    mean = (before.sqrt() * betas[i] * clean + (1 - betas[i]).sqrt() * (1 - before) * x) / (1 - now)
    std = ((1 - before) / (1 - now) * betas[i]).sqrt()
    return mean + std * torch.randn(x.shape, generator=generator, dtype=x.dtype)


WITHOUT_DATA = {
    "check_conversion": Call(lambda: checks.check_conversion(minus_over_std, "noise to score", seed=0)),
    "check_ddim_step": Call(lambda: checks.check_ddim_step(implicit, seed=0)),
    "check_ddpm_step": Call(lambda: checks.check_ddpm_step(ancestral, seed=0)),
}
