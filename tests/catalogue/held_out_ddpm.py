"""Answers on parametrisations, DDPM and DDIM, of the first pile, written before the check."""

import math

import torch

from catalogue import Catalogue
from scorebook import lab

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


@right("noise to score")
def minus_over_std(x, prediction, alpha_bar):
    return -prediction / torch.sqrt(1 - alpha_bar)


@right("v to clean")
def by_the_lab(x, prediction, alpha_bar):
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return a * x - s * prediction


@right("clean to v")
def through_the_noise(x, prediction, alpha_bar):
    a, s = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    noise = (x - a * prediction) / s
    return a * noise - s * prediction


@right("score to clean")
def by_tweedie(x, prediction, alpha_bar):
    return (x + (1 - alpha_bar) * prediction) / alpha_bar.sqrt()


@right("noise to clean")
def one_point_after_the_other(x, prediction, alpha_bar):
    rows = [(p - (1 - a) ** 0.5 * e) / a**0.5 for p, e, a in zip(x, prediction, alpha_bar, strict=True)]
    return torch.stack(rows)


@wrong("noise to score", "no_sigma")
def the_noise_with_a_minus(x, prediction, alpha_bar):
    return -prediction


@wrong("noise to score", "sign")
def over_std(x, prediction, alpha_bar):
    return prediction / (1 - alpha_bar).sqrt()


@wrong("noise to score", "no_root")
def over_variance(x, prediction, alpha_bar):
    return -prediction / (1 - alpha_bar)


@wrong("noise to clean", "no_root")
def without_roots(x, prediction, alpha_bar):
    return (x - (1 - alpha_bar) * prediction) / alpha_bar


@wrong("noise to clean", "no_alpha")
def not_divided(x, prediction, alpha_bar):
    return x - (1 - alpha_bar).sqrt() * prediction


@wrong("v to clean", "v_sign")
def v_with_a_plus(x, prediction, alpha_bar):
    return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * prediction


@wrong("clean to v", "v_sign")
def v_turned(x, prediction, alpha_bar):
    a, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return s * prediction - a * (x - a * prediction) / s


@wrong("v to noise", "swapped")
def cosine_for_sine(x, prediction, alpha_bar):
    return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * prediction


@wrong("score to clean", "std_for_variance|no_root", "no_alpha")
def std_and_no_alpha(x, prediction, alpha_bar):
    return x + (1 - alpha_bar).sqrt() * prediction


@right("ddpm step")
def posterior_of_ho(model, x, i, betas, *, generator):
    alphas = 1 - betas
    bar = torch.cumprod(alphas, 0)
    before = torch.cat([torch.ones(1, dtype=betas.dtype), bar[:-1]])
    clean = ((x - (1 - bar[i]).sqrt() * model(x, i)) / bar[i].sqrt()).clamp(-1, 1)
    mean = before[i].sqrt() * betas[i] / (1 - bar[i]) * clean + alphas[i].sqrt() * (1 - before[i]) / (1 - bar[i]) * x
    if i == 0:
        return mean
    variance = betas[i] * (1 - before[i]) / (1 - bar[i])
    return mean + variance.sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@right("ddpm step")
def through_noise_and_std(model, x, i, betas, *, generator):
    """The clean point, noised again by what the two levels leave: DDIM with eta 1."""
    bars = [1.0]
    for b in betas.tolist():
        bars.append(bars[-1] * (1 - b))
    now, before = bars[i + 1], bars[i]
    clean = torch.clip((x - math.sqrt(1 - now) * model(x, i)) / math.sqrt(now), -1.0, 1.0)
    noise = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)
    std = math.sqrt((1 - before) / (1 - now) * (1 - now / before))
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return math.sqrt(before) * clean + math.sqrt(max(1 - before - std**2, 0.0)) * noise + std * z * (i > 0)


def _levels(betas, i):
    bar = torch.cumprod(1 - betas, 0)
    return bar[i], bar[i - 1] if i > 0 else torch.ones((), dtype=betas.dtype), betas[i]


def _ddpm(x, clean, now, before, beta):
    return before.sqrt() * beta / (1 - now) * clean + (1 - beta).sqrt() * (1 - before) / (1 - now) * x


@wrong("ddpm step", "no_clipping")
def in_the_form_of_the_noise(model, x, i, betas, *, generator):
    now, before, beta = _levels(betas, i)
    mean = (x - beta / (1 - now).sqrt() * model(x, i)) / (1 - beta).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return mean if i == 0 else mean + (beta * (1 - before) / (1 - now)).sqrt() * z


@wrong("ddpm step", "beta_for_posterior")
def beta_for_the_variance(model, x, i, betas, *, generator):
    now, before, beta = _levels(betas, i)
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return _ddpm(x, clean, now, before, beta) + (i > 0) * beta.sqrt() * z


@wrong("ddpm step", "noisy_end")
def noise_at_the_end_too(model, x, i, betas, *, generator):
    now, before, beta = _levels(betas, i)
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return _ddpm(x, clean, now, before, beta) + (beta * (1 - before) / (1 - now)).clamp(min=1e-2).sqrt() * z


@wrong("ddpm step", "no_root")
def variance_for_std(model, x, i, betas, *, generator):
    now, before, beta = _levels(betas, i)
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return _ddpm(x, clean, now, before, beta) + beta * (1 - before) / (1 - now) * z


@wrong("ddpm step", "off_by_one")
def the_level_after(model, x, i, betas, *, generator):
    bar = torch.cat([torch.ones(1, dtype=betas.dtype), torch.cumprod(1 - betas, 0)])
    now, before, beta = bar[i], bar[max(i - 1, 0)], betas[max(i - 1, 0)]
    if i == 0:
        return x
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return _ddpm(x, clean, now, before, beta) + (beta * (1 - before) / (1 - now)).sqrt() * z


@wrong("ddpm step", "beta_for_alpha_bar|alpha_for_alpha_bar")
def alpha_without_the_product(model, x, i, betas, *, generator):
    now, before, beta = 1 - betas[i], (1 - betas[i - 1] if i else torch.ones((), dtype=betas.dtype)), betas[i]
    clean = ((x - (1 - now).sqrt() * model(x, i)) / now.sqrt()).clamp(-1, 1)
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return _ddpm(x, clean, now, before, beta) + (i > 0) * (beta * (1 - before) / (1 - now)).sqrt() * z


@wrong("ddpm step", "no_clipping", "beta_for_posterior")
def improved_ddpm_without_its_clip(model, x, i, betas, *, generator):
    now, _, beta = _levels(betas, i)
    mean = (x - beta / (1 - now).sqrt() * model(x, i)) / (1 - beta).sqrt()
    return mean + (i > 0) * beta.sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@right("ddim step")
def as_song_writes_it(model, x, i, j, alpha_bars, *, eta, generator):
    now, then = alpha_bars[i], alpha_bars[j] if j >= 0 else torch.ones((), dtype=x.dtype)
    noise = model(x, i)
    clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
    std = eta * ((1 - then) / (1 - now)).sqrt() * (1 - now / then).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then.sqrt() * clean + (1 - then - std**2).clamp(min=0).sqrt() * noise + std * z


@right("ddim step")
def with_the_labs_conversions(model, x, i, j, alpha_bars, *, eta, generator):
    bars = [*alpha_bars.tolist(), 1.0]  # level -1 is the last entry
    a, b, noise = bars[i], bars[j], model(x, i)
    levels = {"alpha": torch.tensor(a).sqrt().to(x), "sigma": torch.tensor(1 - a).sqrt().to(x)}
    clean = lab.convert_prediction(noise, x, **levels, source="noise", target="clean")
    if eta == 0:
        return b**0.5 * clean + (1 - b) ** 0.5 * noise
    variance = eta**2 * (1 - b) / (1 - a) * (1 - a / b)
    kept = math.sqrt(max(1 - b - variance, 0))
    return b**0.5 * clean + kept * noise + variance**0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)


def _clean_of(model, x, i, j, bars):
    now, then = bars[i], bars[j] if j >= 0 else torch.ones((), dtype=x.dtype)
    noise = model(x, i)
    return now, then, noise, (x - (1 - now).sqrt() * noise) / now.sqrt()


@wrong("ddim step", "fresh_noise")
def noised_anew(model, x, i, j, alpha_bars, *, eta, generator):
    _, then, _, clean = _clean_of(model, x, i, j, alpha_bars)
    return then.sqrt() * clean + (1 - then).sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype)


@wrong("ddim step", "eta_ignored")
def always_deterministic(model, x, i, j, alpha_bars, *, eta, generator):
    _, then, noise, clean = _clean_of(model, x, i, j, alpha_bars)
    return then.sqrt() * clean + (1 - then).sqrt() * noise


@wrong("ddim step", "variance_not_taken")
def noise_on_top(model, x, i, j, alpha_bars, *, eta, generator):
    now, then, noise, clean = _clean_of(model, x, i, j, alpha_bars)
    std = eta * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then.sqrt() * clean + (1 - then).sqrt() * noise + std * z


@wrong("ddim step", "no_root")
def roots_left_out(model, x, i, j, alpha_bars, *, eta, generator):
    now, then, noise, _ = _clean_of(model, x, i, j, alpha_bars)
    clean = (x - (1 - now) * noise) / now
    std = eta * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then * clean + (1 - then - std**2).clamp(min=0).sqrt() * noise + std * z


@wrong("ddim step", "same_level|off_by_one")
def back_to_where_it_was(model, x, i, j, alpha_bars, *, eta, generator):
    now, then, noise, clean = _clean_of(model, x, i, j, alpha_bars)
    std = eta * ((1 - then) / (1 - now) * (1 - now / then)).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return now.sqrt() * clean + (1 - now - std**2).clamp(min=0).sqrt() * noise + std * z


@wrong("ddim step", "last_level")
def the_last_entry_for_the_clean_level(model, x, i, j, alpha_bars, *, eta, generator):
    now, then, noise = alpha_bars[i], alpha_bars[j], model(x, i)
    clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
    std = eta * (((1 - then) / (1 - now)) * (1 - now / then)).clamp(min=0).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then.sqrt() * clean + (1 - then - std**2).clamp(min=0).sqrt() * noise + std * z


@wrong("ddim step", "eta_squared", "variance_not_taken")
def eta_under_the_root(model, x, i, j, alpha_bars, *, eta, generator):
    now, then, noise, clean = _clean_of(model, x, i, j, alpha_bars)
    std = (eta * (1 - then) / (1 - now) * (1 - now / then)).sqrt()
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return then.sqrt() * clean + (1 - then).sqrt() * noise + std * z
