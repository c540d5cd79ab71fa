"""Answers on which the check of whole samplers was mended.

The factories write down an answer once, with the place of each slip as an argument.
"""

import itertools

import torch

from catalogue import Catalogue, normal
from scorebook import sde as continuous

catalogue = Catalogue()
right, wrong = catalogue.add, catalogue.add


def grid(n_steps, t_min):
    return torch.linspace(1, t_min, n_steps + 1, dtype=torch.float64)


def denoised(sde, score, x, t, generator):
    return (x + sde.sigma(t) ** 2 * score(x, t)) / sde.alpha(t)


def sampler(
    start=lambda sde: sde.prior_std,
    times=grid,
    asked=lambda sde, t, s: t,
    drift=lambda sde, x, t: sde.drift(x, t),
    pull=lambda g: g**2,
    kick=lambda g, h: g * h**0.5,
    turn=1.0,
    draw=normal,
    draw_start=normal,
    end=denoised,
    noise=lambda k, n, z: z,
):
    """Student's sampler, with the place of each usual mistake as an argument."""

    def sample(sde, score, shape, *, n_steps, t_min, generator):
        x = start(sde) * draw_start(torch.zeros(shape, dtype=torch.float64), generator)
        steps = list(itertools.pairwise(times(n_steps, t_min)))
        for k, (t, s) in enumerate(steps):
            g, dt = sde.diffusion(t), s - t
            change = (drift(sde, x, t) - pull(g) * score(x, asked(sde, t, s))) * dt
            x = x + turn * change + kick(g, dt.abs()) * noise(k, len(steps), draw(x, generator))
        return end(sde, score, x, s, generator)

    return sample


def the_books(sde, score, shape, *, n_steps, t_min, generator):
    start = sde.sample_prior(shape, generator=generator, dtype=torch.float64)
    return continuous.euler_maruyama(sde, score, start, n_steps=n_steps, t_min=t_min, generator=generator)


def with_the_noise_before_the_drift(sde, score, shape, n_steps, t_min):
    x, h = torch.randn(shape) * sde.sigma(1.0), (1.0 - t_min) / n_steps
    for k in range(n_steps):
        t = torch.full((len(x),), 1.0 - k * h)
        kick, s = sde.diffusion(t)[:, None] * h**0.5 * torch.randn_like(x), score(x, t)
        x = x + kick + h * (sde.diffusion(t)[:, None] ** 2 * s - sde.drift(x, t))
    return sde.denoise(score, x, torch.tensor(t_min))


def norm_of_the_batch(sde, score, shape, *, n_steps, t_min, generator):
    def bounded(x, t):
        s = score(x, t)
        return s * (1 if s.norm() < 1e9 else 0.5) * (1 + 1e-7 * s.norm())

    return sampler()(sde, bounded, shape, n_steps=n_steps, t_min=t_min, generator=generator)


def uniform(x, generator):
    return torch.rand(x.shape, generator=generator, dtype=x.dtype)


def of_fixed_seed(x, generator):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)


def for_all_rows(x, generator):
    return torch.randn(x.shape[1:], generator=generator, dtype=x.dtype).expand_as(x)


def for_all_coordinates(x, generator):
    return torch.randn((len(x), 1), generator=generator, dtype=x.dtype).expand_as(x)


def for_half_the_batch(x, generator):
    half = torch.randn((len(x) // 2, x.shape[1]), generator=generator, dtype=x.dtype)
    return torch.cat([half, half])


def ends(x_factor=lambda a, s: 1 / a, s_factor=lambda a, s: s**2 / a, left=lambda a, s: 0.0):
    """An end of a sampler, whose factors of state, score and noise follow from alpha and sigma."""

    def end(sde, score, x, t, generator):
        a, s = sde.alpha(t), sde.sigma(t)
        return x_factor(a, s) * x + s_factor(a, s) * score(x, t) + left(a, s) * normal(x, generator)

    return end


def one_step_more(sde, score, x, t, generator, noise=0.0):
    g = sde.diffusion(t)
    x = x - (sde.drift(x, t) - g**2 * score(x, t)) * t
    return x + noise * g * t**0.5 * normal(x, generator)


def last_step_left_out(end_time):
    def sample(sde, score, shape, *, n_steps, t_min, generator):
        times = grid(n_steps, t_min)
        shortened = sampler(
            times=lambda n, t_min: times[:-1],
            end=lambda sde, score, x, t, g: denoised(sde, score, x, times[end_time], g),
        )
        return shortened(sde, score, shape, n_steps=n_steps, t_min=t_min, generator=generator)

    return sample


right("sampler", "the_books", the_books)
right("sampler", "by_hand", sampler())
right("sampler", "noise_first", with_the_noise_before_the_drift)
right("sampler", "no_kick_for_a_zero", sampler(noise=lambda k, n, z: z.clone()))
for name, function, *mistakes in [
    ("upwards", sampler(times=lambda n, t_min: grid(n, t_min).flip(0)), "grid_direction"),
    ("standard_start", sampler(start=lambda sde: 1.0), "prior_std"),
    ("variance_of_the_prior", sampler(start=lambda sde: sde.prior_std**2), "prior_std"),
    ("start_of_the_data", sampler(start=lambda sde: sde.sigma(0.0)), "prior_std|no_prior"),
    ("start_at_zero", sampler(start=lambda sde: 0.0), "no_prior"),
    ("start_from_rand", sampler(draw_start=uniform), "uniform_noise"),
    ("start_of_fixed_seed", sampler(draw_start=of_fixed_seed), "fixed_seed"),
    ("one_start_for_all", sampler(draw_start=for_all_rows), "shared_noise"),
    ("half_a_batch_of_starts", sampler(draw_start=for_half_the_batch), "shared_noise"),
    ("no_denoising", sampler(end=lambda sde, score, x, t, g: x), "no_denoising"),
    ("asked_and_not_used", sampler(end=ends(lambda a, s: 1.0, lambda a, s: 0.0)), "no_denoising"),
    ("divided_only", sampler(end=ends(s_factor=lambda a, s: 0.0)), "no_denoising"),
    ("one_step_more", sampler(end=one_step_more), "no_denoising"),
    ("one_noisy_step_more", sampler(end=lambda *a: one_step_more(*a, noise=1.0)), "no_denoising"),
    ("noise_at_the_end", sampler(end=ends(left=lambda a, s: s)), "noisy_end"),
    ("a_little_noise_at_the_end", sampler(end=ends(left=lambda a, s: 0.1 * s)), "noisy_end"),
    ("sigma_at_the_end", sampler(end=ends(s_factor=lambda a, s: s / a)), "denoising_variance"),
    ("bare_score_at_the_end", sampler(end=ends(s_factor=lambda a, s: 1 / a)), "denoising_variance"),
    ("down_at_the_end", sampler(end=ends(s_factor=lambda a, s: -(s**2) / a)), "denoising_sign"),
    ("no_alpha", sampler(end=ends(lambda a, s: 1.0, lambda a, s: s**2)), "no_alpha"),
    ("x_without_alpha", sampler(end=ends(lambda a, s: 1.0)), "no_alpha"),
    ("times_alpha", sampler(end=ends(lambda a, s: a, lambda a, s: a * s**2)), "no_alpha"),
    ("dt_sign", sampler(turn=-1.0), "time_direction"),
    ("no_root_dt", sampler(kick=lambda g, h: g), "no_root_dt"),
    ("dt_for_root", sampler(kick=lambda g, h: g * h), "dt_for_root"),
    ("squared_diffusion", sampler(kick=lambda g, h: g**2 * h**0.5), "squared_diffusion"),
    ("no_diffusion", sampler(kick=lambda g, h: h**0.5), "no_diffusion"),
    ("no_noise", sampler(kick=lambda g, h: 0.0), "no_noise"),
    ("flow", sampler(kick=lambda g, h: 0.0, pull=lambda g: 0.5 * g**2), "flow"),
    ("half_score", sampler(pull=lambda g: 0.5 * g**2), "half_score"),
    ("diffusion_for_squared", sampler(pull=lambda g: g), "diffusion_for_squared"),
    ("score_sign", sampler(pull=lambda g: -(g**2)), "score_sign"),
    ("no_score", sampler(pull=lambda g: 0.0), "no_score"),
    ("drift_sign", sampler(drift=lambda sde, x, t: -sde.drift(x, t)), "drift_sign"),
    ("no_drift", sampler(drift=lambda sde, x, t: 0.0), "no_drift"),
    ("own_drift", sampler(drift=lambda sde, x, t: -0.5 * sde.diffusion(t) ** 2 * x), "own_drift"),
    ("rand", sampler(draw=uniform), "uniform_noise"),
    ("asked_at_the_next_time", sampler(asked=lambda sde, t, s: s), "time_reached"),
    ("asked_at_sigma", sampler(asked=lambda sde, t, s: sde.sigma(t)), "noise_scale"),
    ("asked_at_one_minus_t", sampler(asked=lambda sde, t, s: 1 - t), "wrong_time"),
    ("asked_half_way", sampler(asked=lambda sde, t, s: (t + s) / 2), "wrong_time"),
    ("fixed_steps", sampler(times=lambda n, t_min: grid(50, t_min)), "fixed_steps"),
    ("one_point_too_few", sampler(times=lambda n, t_min: grid(n - 1, t_min)), "step_missing"),
    ("one_step_too_many", sampler(times=lambda n, t_min: grid(n + 1, t_min)), "extra_step"),
    ("t_min_ignored", sampler(times=lambda n, t_min: grid(n, 0.0)), "t_min_ignored"),
    ("a_thousandth", sampler(times=lambda n, t_min: grid(n, 1e-3)), "t_min_ignored"),
    ("steps_of_unequal_length", sampler(times=lambda n, t_min: grid(n, t_min**0.5) ** 2), "wrong_spacing"),
    ("last_step_left_out", last_step_left_out(-1), "no_last_step"),
    ("last_step_left_out_and_denoised_there", last_step_left_out(-2), "no_last_step"),
    ("same_noise", sampler(draw=of_fixed_seed), "same_noise|fixed_seed"),
    ("a_row_for_all", sampler(draw=for_all_rows), "shared_noise"),
    ("a_column_for_all", sampler(draw=for_all_coordinates), "shared_noise"),
    ("half_a_batch", sampler(draw=for_half_the_batch), "shared_noise"),
    ("norm_of_the_batch", norm_of_the_batch, "coupled"),
    ("no_last_noise", sampler(noise=lambda k, n, z: z * (k < n - 1)), "no_last_noise"),
    ("half_standard", sampler(pull=lambda g: 0.5 * g**2, start=lambda sde: 1.0), "half_score", "prior_std"),
    ("dt_and_no_end", sampler(kick=lambda g, h: g * h, end=lambda *given: given[2]), "dt_for_root", "no_denoising"),
    ("drift_and_end", sampler(drift=lambda sde, x, t: 0.0, end=ends(lambda a, s: 1.0)), "no_drift", "no_alpha"),
    ("rand_and_sign", sampler(draw_start=uniform, pull=lambda g: -(g**2)), "uniform_noise", "score_sign"),
    ("t_min_and_root", sampler(times=lambda n, t: grid(n, 1e-5), kick=lambda g, h: g), "t_min_ignored", "no_root_dt"),
    ("shared_and_half", sampler(draw=for_all_coordinates, pull=lambda g: 0.5 * g**2), "shared_noise", "half_score"),
]:  # fmt: skip
    wrong("sampler", name, function, *mistakes)


def asked_twice(sde, score, shape, *, n_steps, t_min, generator):
    def anew(x, t):
        score(x, t)
        return score(x, t)

    return sampler()(sde, anew, shape, n_steps=n_steps, t_min=t_min, generator=generator)


def asked_in_two_halves(sde, score, shape, *, n_steps, t_min, generator):
    def halves(x, t):
        return torch.cat([score(part, t) for part in x.chunk(2)])

    return sampler()(sde, halves, shape, n_steps=n_steps, t_min=t_min, generator=generator)


def looks_once_more(sde, score, shape, *, n_steps, t_min, generator):
    x = sampler()(sde, score, shape, n_steps=n_steps, t_min=t_min, generator=generator)
    return x + 0 * score(x, torch.tensor(t_min))


wrong("sampler", "asked_twice", asked_twice, "double_calls")
wrong("sampler", "asked_in_two_halves", asked_in_two_halves, "calls")
wrong("sampler", "looks_once_more", looks_once_more, "extra_call")
