"""Why nothing of ``scorebook.coursework.sde`` takes data, and calls of it on the book's own code."""

import torch

from scorebook import sde
from scorebook.coursework import sde as checks
from surface import Call

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {
    "check_reverse_step": CODE,
    "check_sampler": CODE,
    "check_sde": CODE,
}


def euler(process, score, x, t, dt, *, generator):
    """A right step of the reverse-time SDE."""
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x + sde.reverse_drift(process, score, x, t) * dt + process.diffusion(t) * dt.abs().sqrt() * noise


def sampler(process, score, shape, *, n_steps, t_min, generator):
    """A right sampler of the reverse-time SDE."""
    start = process.sample_prior(shape, generator=generator, dtype=torch.float32)
    return sde.euler_maruyama(process, score, start, n_steps=n_steps, t_min=t_min, generator=generator)


WITHOUT_DATA = {
    "check_reverse_step": Call(lambda: checks.check_reverse_step(euler, seed=0)),
    "check_sampler": Call(lambda: checks.check_sampler(sampler, seed=0)),
    "check_sde": Call(lambda: checks.check_sde(sde.SubVPSDE(), seed=0)),
}
