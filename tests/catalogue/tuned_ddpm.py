"""Answers on which the checks of parametrisations, of DDPM and of DDIM were mended.

The factories write down an answer once, with the place of each slip as an argument.
"""

import torch

from catalogue import Catalogue, normal

catalogue = Catalogue()


def add(kind, answers):
    """Answers of one kind: name, function, mistakes."""
    for name, function, *mistakes in answers:
        catalogue.add(kind, name, function, *mistakes)


# What a network predicts.


def root(b):
    return b.sqrt()


def rest(b):
    return (1 - b).sqrt()


add("noise to score", [
    ("by_hand", lambda x, p, b: -p / rest(b)),
    ("through_the_clean", lambda x, p, b: (root(b) * ((x - rest(b) * p) / root(b)) - x) / (1 - b)),
    ("no_sigma", lambda x, p, b: -p, "no_sigma"),
    ("no_sign", lambda x, p, b: p / rest(b), "sign"),
    ("no_root", lambda x, p, b: -p / (1 - b), "no_root"),
    ("times", lambda x, p, b: -p * rest(b), "times|inverse"),
    ("alpha", lambda x, p, b: -p / root(b), "swapped"),
    ("unchanged", lambda x, p, b: p, "unchanged"),
    ("root_and_sign", lambda x, p, b: p / (1 - b), "no_root", "sign"),
])  # fmt: skip
add("noise to clean", [
    ("by_hand", lambda x, p, b: (x - rest(b) * p) / root(b)),
    ("roots", lambda x, p, b: (x - (1 - b) * p) / b, "no_root"),
    ("root_of_sigma", lambda x, p, b: (x - (1 - b) * p) / root(b), "no_root"),
    ("no_alpha", lambda x, p, b: x - rest(b) * p, "no_alpha"),
    ("no_sigma", lambda x, p, b: (x - p) / root(b), "no_sigma"),
    ("plus", lambda x, p, b: (x + rest(b) * p) / root(b), "sign"),
    ("swapped", lambda x, p, b: (x - root(b) * p) / rest(b), "swapped"),
    ("one_minus_root", lambda x, p, b: (x - (1 - root(b)) * p) / root(b), "sigma_from_alpha"),
    ("plus_and_no_alpha", lambda x, p, b: x + rest(b) * p, "sign", "no_alpha"),
])  # fmt: skip
add("clean to noise", [
    ("by_hand", lambda x, p, b: (x - root(b) * p) / rest(b)),
    ("no_division", lambda x, p, b: x - root(b) * p, "no_sigma"),
    ("no_alpha", lambda x, p, b: (x - p) / rest(b), "no_alpha"),
    ("variance", lambda x, p, b: (x - root(b) * p) / (1 - b), "no_root"),
    ("turned", lambda x, p, b: (root(b) * p - x) / rest(b), "sign"),
])  # fmt: skip
add("clean to score", [
    ("by_hand", lambda x, p, b: (root(b) * p - x) / (1 - b)),
    ("std", lambda x, p, b: (root(b) * p - x) / rest(b), "no_sigma"),
    ("no_alpha", lambda x, p, b: (p - x) / (1 - b), "no_alpha"),
    ("turned", lambda x, p, b: (x - root(b) * p) / (1 - b), "sign"),
])  # fmt: skip
add("clean to v", [
    ("by_hand", lambda x, p, b: (root(b) * x - p) / rest(b)),
    ("turned", lambda x, p, b: (p - root(b) * x) / rest(b), "v_sign"),
    ("added", lambda x, p, b: root(b) * (x - root(b) * p) / rest(b) + rest(b) * p, "v_sign"),
])  # fmt: skip
add("noise to v", [
    ("by_hand", lambda x, p, b: (p - rest(b) * x) / root(b)),
    ("added", lambda x, p, b: root(b) * p + rest(b) * (x - rest(b) * p) / root(b), "v_sign"),
    ("swapped", lambda x, p, b: (p - root(b) * x) / rest(b), "swapped"),
])  # fmt: skip
add("score to noise", [
    ("by_hand", lambda x, p, b: -rest(b) * p),
    ("no_sigma", lambda x, p, b: -p, "no_sigma"),
    ("no_root", lambda x, p, b: -(1 - b) * p, "no_root"),
    ("no_sign", lambda x, p, b: rest(b) * p, "sign"),
])  # fmt: skip
add("score to clean", [
    ("by_hand", lambda x, p, b: (x + (1 - b) * p) / root(b)),
    ("std", lambda x, p, b: (x + rest(b) * p) / root(b), "std_for_variance"),
    ("bare", lambda x, p, b: (x + p) / root(b), "no_sigma"),
    ("no_alpha", lambda x, p, b: x + (1 - b) * p, "no_alpha"),
    ("minus", lambda x, p, b: (x - (1 - b) * p) / root(b), "sign"),
])  # fmt: skip
add("v to clean", [
    ("by_hand", lambda x, p, b: root(b) * x - rest(b) * p),
    ("plus", lambda x, p, b: root(b) * x + rest(b) * p, "v_sign"),
    ("swapped", lambda x, p, b: rest(b) * x - root(b) * p, "swapped"),
    ("roots", lambda x, p, b: b * x - (1 - b) * p, "no_root"),
])  # fmt: skip
add("v to noise", [
    ("by_hand", lambda x, p, b: rest(b) * x + root(b) * p),
    ("minus", lambda x, p, b: rest(b) * x - root(b) * p, "v_sign"),
    ("roots", lambda x, p, b: (1 - b) * x + b * p, "no_root"),
])  # fmt: skip
add("v to score", [
    ("by_hand", lambda x, p, b: -(rest(b) * x + root(b) * p) / rest(b)),
    ("minus_the_noise", lambda x, p, b: -(rest(b) * x + root(b) * p), "no_sigma"),
    ("v_sign", lambda x, p, b: -(rest(b) * x - root(b) * p) / rest(b), "v_sign"),
    ("sign", lambda x, p, b: (rest(b) * x + root(b) * p) / rest(b), "sign"),
])  # fmt: skip


# DDPM.


def levels(betas, i):
    bars = torch.cumprod(1 - betas, 0)
    return bars[i], bars[i - 1] if i > 0 else torch.ones_like(bars[0]), betas[i]


def read(x, e, now):
    return (x - (1 - now).sqrt() * e) / now.sqrt()


def combine(x, e, clean, now, before, beta):
    return (before.sqrt() * beta * clean + (1 - beta).sqrt() * (1 - before) * x) / (1 - now)


def posterior(now, before, beta):
    return ((1 - before) / (1 - now) * beta).sqrt()


def ddpm(
    at=levels,
    read=read,
    clip=lambda c: c.clamp(-1, 1),
    combine=combine,
    std=posterior,
    last=0.0,
    draw=normal,
    asked=lambda i: i,
    after=lambda m: m,
):
    """Student's ancestral step, with the place of each usual mistake as an argument."""

    def step(model, x, i, betas, *, generator):
        now, before, beta = at(betas, i)
        e = model(x, asked(i))
        mean = after(combine(x, e, clip(read(x, e, now)), now, before, beta))
        kick = std(now, before, beta) if i > 0 else last
        return mean + kick * draw(x, generator)

    return step


def of_bars(make):
    def at(betas, i):
        bars = make(betas)
        return bars[i], bars[i - 1] if i > 0 else torch.ones_like(bars[0]), betas[i]

    return at


def one_level_before(model, x, i, betas, *, generator):
    padded = torch.cat([betas[:1], betas])
    bars = torch.cat([torch.ones_like(betas[:1]), torch.cumprod(1 - betas, 0)])
    return x if i == 0 else ddpm(at=of_bars(lambda b: bars))(model, x, i, padded, generator=generator)


def level_after(betas, i):
    return levels(betas, i + 1)


def in_single_precision(model, x, i, betas, generator):
    return ddpm()(lambda x, i: model(x.double(), i).float(), x.float(), i, betas.float(), generator=generator)


def uniform(x, generator):
    return torch.rand(x.shape, generator=generator, dtype=x.dtype)


def of_fixed_seed(x, generator):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)


def for_all_rows(x, generator):
    return torch.randn(x.shape[1:], generator=generator, dtype=x.dtype).expand_as(x)


def of_noise(x, e, clean, now, before, beta):
    return (x - beta / (1 - now).sqrt() * e) / (1 - beta).sqrt()


def renoised(x, e, clean, now, before, beta):
    e = (x - now.sqrt() * clean) / (1 - now).sqrt()
    return before.sqrt() * clean + (1 - before - posterior(now, before, beta) ** 2).clamp(min=0).sqrt() * e


def stale(x, e, clean, now, before, beta):
    return before.sqrt() * clean + (1 - before - posterior(now, before, beta) ** 2).clamp(min=0).sqrt() * e


add("ddpm step", [
    ("by_hand", ddpm()),
    ("noised_anew", ddpm(combine=renoised)),
    ("in_single_precision", in_single_precision),
    ("never_asked", lambda model, x, i, betas, generator: x, "no_model"),
    ("beta", ddpm(std=lambda now, before, beta: beta.sqrt()), "beta_for_posterior"),
    ("variance_for_std", ddpm(std=lambda *level: posterior(*level) ** 2), "no_root"),
    ("beta_for_std", ddpm(std=lambda now, before, beta: beta), "no_root"),
    ("no_noise", ddpm(std=lambda *level: 0.0), "no_noise"),
    ("bare_noise", ddpm(std=lambda *level: 1.0), "no_scale"),
    ("upside_down", ddpm(std=lambda now, before, beta: ((1 - now) / (1 - before) * beta).sqrt()), "inverse"),
    ("ratio_alone", ddpm(std=lambda now, before, beta: ((1 - before) / (1 - now)).sqrt()), "posterior_ratio"),
    ("noise_to_the_end", ddpm(last=0.2), "noisy_end"),
    ("one_level_before", one_level_before, "off_by_one"),
    ("level_after", ddpm(at=level_after), "off_by_one"),
    ("asked_one_before", ddpm(asked=lambda i: i - 1), "off_by_one"),
    ("asked_at_a_share", ddpm(asked=lambda i: i / 6), "wrong_level"),
    ("alpha", ddpm(at=of_bars(lambda b: 1 - b)), "alpha_for_alpha_bar"),
    ("beta_for_bar", ddpm(at=of_bars(lambda b: b)), "beta_for_alpha_bar"),
    ("product_of_betas", ddpm(at=of_bars(lambda b: torch.cumprod(b, 0))), "beta_for_alpha_bar"),
    ("root_of_bar", ddpm(at=of_bars(lambda b: torch.cumprod(1 - b, 0).sqrt())), "root_of_alpha_bar"),
    ("sum_of_betas", ddpm(at=of_bars(lambda b: (1 - torch.cumsum(b, 0)).clamp(min=1e-6))), "sum_for_product"),
    ("read_without_roots", ddpm(read=lambda x, e, now: (x - (1 - now) * e) / now), "no_root"),
    ("read_without_alpha", ddpm(read=lambda x, e, now: x - (1 - now).sqrt() * e), "no_alpha"),
    ("read_without_sigma", ddpm(read=lambda x, e, now: (x - e) / now.sqrt()), "no_sigma"),
    ("read_with_plus", ddpm(read=lambda x, e, now: (x + (1 - now).sqrt() * e) / now.sqrt()), "sign"),
    ("read_swapped", ddpm(read=lambda x, e, now: (x - now.sqrt() * e) / (1 - now).sqrt()), "swapped"),
    ("noise_for_clean", ddpm(read=lambda x, e, now: e), "clean_for_noise"),
    ("no_clipping", ddpm(clip=lambda c: c), "no_clipping"),
    ("in_terms_of_the_noise", ddpm(combine=of_noise), "no_clipping"),
    ("state_clipped", ddpm(clip=lambda c: c, after=lambda m: m.clamp(-1, 1)), "clipped_state"),
    ("both_clipped", ddpm(after=lambda m: m.clamp(-1, 1)), "clipped_state"),
    ("clipped_to_grey", ddpm(clip=lambda c: c.clamp(0, 1)), "clipping_range"),
    ("weights_swapped", ddpm(combine=lambda x, e, c, *level: combine(c, e, x, *level)), "swapped"),
    ("stale_noise", ddpm(combine=stale), "stale_noise"),
    ("noised_by_the_prediction", ddpm(combine=lambda x, e, c, now, before, beta: before.sqrt() * c
                                      + (1 - before).sqrt() * e), "variance_not_taken"),
    ("clean_returned", ddpm(combine=lambda x, e, c, *level: c), "clean_only"),
    ("weights_without_roots", ddpm(combine=lambda x, e, c, now, before, beta: (before * beta * c
                                   + (1 - beta) * (1 - before) * x) / (1 - now)), "no_root"),
    ("rand", ddpm(draw=uniform), "uniform_noise"),
    ("fixed_seed", ddpm(draw=of_fixed_seed), "fixed_seed"),
    ("a_row_for_all", ddpm(draw=for_all_rows), "shared_noise"),
    ("beta_and_no_clip", ddpm(combine=of_noise, std=lambda now, before, beta: beta.sqrt()), "no_clipping",
     "beta_for_posterior"),
    ("no_noise_and_sign", ddpm(read=lambda x, e, now: (x + (1 - now).sqrt() * e) / now.sqrt(),
                               std=lambda *level: 0.0), "no_noise", "sign"),
    ("roots_and_beta", ddpm(read=lambda x, e, now: (x - (1 - now) * e) / now,
                            std=lambda now, before, beta: beta.sqrt()), "no_root", "beta_for_posterior"),
    ("beta_to_the_end", ddpm(std=lambda now, before, beta: beta.sqrt(), last=0.3), "beta_for_posterior", "noisy_end"),
])  # fmt: skip


# DDIM.


def size(now, then, eta):
    return eta * ((1 - then) / (1 - now) * (1 - now / then)).clamp(min=0).sqrt()


def kept(then, std):
    return (1 - then - std**2).clamp(min=0).sqrt()


def bar(bars, k):
    return bars[k] if k >= 0 else torch.ones_like(bars[0])


def ddim(
    at=lambda bars, i, j: (bar(bars, i), bar(bars, j)),
    read=read,
    clip=lambda c: c,
    signal=torch.sqrt,
    kept=kept,
    size=size,
    kick=lambda std, then: std,
    draw=normal,
    asked=lambda i: i,
):
    """Student's step of DDIM, with the place of each usual mistake as an argument."""

    def step(model, x, i, j, alpha_bars, *, eta, generator):
        now, then = at(alpha_bars, i, j)
        e, std = model(x, asked(i)), size(now, then, eta)
        mean = signal(then) * clip(read(x, e, now)) + kept(then, std) * e
        return mean + kick(std, then) * draw(x, generator)

    return step


def drawn_only_if_needed(model, x, i, j, alpha_bars, eta, generator=None):
    mean = ddim(draw=lambda x, g: 0 * x)(model, x, i, j, alpha_bars, eta=eta, generator=generator)
    return mean if eta == 0 or j < 0 else mean + size(alpha_bars[i], alpha_bars[j], eta) * normal(x, generator)


add("ddim step", [
    ("by_hand", ddim()),
    ("drawn_only_if_needed", drawn_only_if_needed),
    ("fresh_noise", ddim(kept=lambda then, std: 0.0, kick=lambda std, then: (1 - then).sqrt()), "fresh_noise"),
    ("nothing_drawn", ddim(size=lambda now, then, eta: size(now, then, 0.0)), "eta_ignored"),
    ("always_one", ddim(size=lambda now, then, eta: size(now, then, 1.0)), "eta_ignored"),
    ("eta_inverted", ddim(size=lambda now, then, eta: size(now, then, 1 - eta)), "eta_inverted"),
    ("noise_left_out", ddim(kick=lambda std, then: 0.0), "no_noise"),
    ("variance_stays", ddim(kept=lambda then, std: (1 - then).sqrt()), "variance_not_taken"),
    ("std_beneath_the_root", ddim(kept=lambda then, std: (1 - then - std).clamp(min=0).sqrt()), "std_for_variance"),
    ("std_outside", ddim(kept=lambda then, std: (1 - then).sqrt() - std), "std_for_variance"),
    ("eta_beneath_the_root", ddim(size=lambda now, then, eta: size(now, then, eta**0.5)), "eta_squared"),
    ("eta_squared", ddim(size=lambda now, then, eta: size(now, then, eta**2)), "eta_squared"),
    ("as_beta", ddim(size=lambda now, then, eta: eta * (1 - now / then).sqrt()), "beta_for_posterior"),
    ("ratio_alone", ddim(size=lambda now, then, eta: eta * ((1 - then) / (1 - now)).sqrt()), "posterior_ratio"),
    ("no_root_of_size", ddim(size=lambda now, then, eta: eta * (1 - then) / (1 - now) * (1 - now / then)), "no_root"),
    ("variance_times_noise", ddim(kick=lambda std, then: std**2), "no_root"),
    ("bare_eta", ddim(size=lambda now, then, eta: torch.as_tensor(eta)), "no_scale"),
    ("no_root_of_signal", ddim(signal=lambda then: then), "no_root"),
    ("no_root_of_direction", ddim(kept=lambda then, std: (1 - then - std**2).clamp(min=0)), "no_root"),
    ("no_signal", ddim(signal=torch.ones_like), "no_alpha"),
    ("no_direction", ddim(kept=lambda then, std: 0.0), "no_direction"),
    ("direction_turned", ddim(kept=lambda then, std: -kept(then, std)), "direction_sign"),
    ("same_level", ddim(at=lambda bars, i, j: (bars[i], bars[i])), "same_level"),
    ("last_entry", ddim(at=lambda bars, i, j: (bars[i], bars[j])), "last_level"),
    ("one_above", ddim(at=lambda bars, i, j: (bars[i], bars[j + 1])), "off_by_one"),
    ("one_below_for_now", ddim(at=lambda bars, i, j: (bars[i - 1], bar(bars, j))), "off_by_one"),
    ("next_level_whatever_j", ddim(at=lambda bars, i, j: (bars[i], bars[i - 1])), "off_by_one"),
    ("asked_at_j", ddim(asked=lambda i: i - 2), "wrong_level|off_by_one"),
    ("read_without_roots", ddim(read=lambda x, e, now: (x - (1 - now) * e) / now), "no_root"),
    ("read_without_alpha", ddim(read=lambda x, e, now: x - (1 - now).sqrt() * e), "no_alpha"),
    ("read_with_plus", ddim(read=lambda x, e, now: (x + (1 - now).sqrt() * e) / now.sqrt()), "sign"),
    ("clipped", ddim(clip=lambda c: c.clamp(-1, 1)), "clipping"),
    ("rand", ddim(draw=uniform), "uniform_noise"),
    ("a_row_for_all", ddim(draw=for_all_rows), "shared_noise"),
    ("fixed_seed", ddim(draw=of_fixed_seed), "fixed_seed"),
    ("clipped_and_eta", ddim(clip=lambda c: c.clamp(-1, 1), size=lambda now, then, eta: size(now, then, 0.0)),
     "clipping", "eta_ignored"),
    ("sign_and_variance", ddim(read=lambda x, e, now: (x + (1 - now).sqrt() * e) / now.sqrt(),
                               kept=lambda then, std: (1 - then).sqrt()), "sign", "variance_not_taken"),
])  # fmt: skip
