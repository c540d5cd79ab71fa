"""Posteriors, coverages, ranks and verdicts on which their checks were mended."""

import itertools
import math
from statistics import NormalDist

import torch

from catalogue import Catalogue
from scorebook import controllable_generation as control
from scorebook import lab, probability_flow
from scorebook import sde as continuous
from scorebook.controllable_generation import LinearObservation

catalogue = Catalogue()
right = wrong = catalogue.add  # a right answer has no mistakes


# Draws of posteriors.


def sampler(
    noise=lambda std: std,
    y=lambda y, n: y.repeat(n, 1),
    guide=lambda score, sde, seen, data_std: control.pseudoinverse_guidance(score, sde, seen, data_std=data_std),
    seeds=lambda generator: generator,
    shape=lambda n, b, d: (n, b, d),
    reshape=lambda x, n, b, d: x.reshape(n, b, d),
    solve=lambda sde, score, x, generator: probability_flow.sample(sde, score, x, n_steps=30),
):
    """Student's draws, by the flow, where each part may be wrong."""

    def draw(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
        n, b, d = n_draws, len(observation.y), observation.matrix.shape[1]
        generator = seeds(generator)
        start = sde.sample_prior(shape(n, b, d), generator=generator, dtype=observation.y.dtype)
        copies = start.shape[0]
        seen = LinearObservation(observation.matrix, y(observation.y, copies), noise(observation.noise_std))
        x = start.expand(copies, b, d).reshape(-1, d)
        x = solve(sde, guide(score, sde, seen, data_std), x, generator)
        return reshape(x, copies, b, d).expand(n, b, d)

    return draw


def one_by_one(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    """A loop over the problems."""
    drawn = []
    for y in observation.y:
        seen = LinearObservation(observation.matrix, y, observation.noise_std)
        start = sde.sample_prior((n_draws, observation.matrix.shape[1]), generator=generator, dtype=y.dtype)
        guided = control.pseudoinverse_guidance(score, sde, seen, data_std=data_std)
        drawn.append(probability_flow.sample(sde, guided, start, n_steps=20))
    return torch.stack(drawn, dim=1)


def exactly(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    """By conditioning the Gaussian, which needs no sampler."""
    d = observation.matrix.shape[1]
    law = lab.GaussianMixture([1.0], torch.zeros(1, d), torch.tensor([data_std**2])).to(observation.y.dtype)
    each = [law.condition(observation.matrix, y, observation.noise_std) for y in observation.y]
    return torch.stack([posterior.sample(n_draws, generator=generator) for posterior in each], dim=1)


def its_mean(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    """The posterior's mean, again and again."""
    d = observation.matrix.shape[1]
    law = lab.GaussianMixture([1.0], torch.zeros(1, d), torch.tensor([data_std**2])).to(observation.y.dtype)
    means = [law.condition(observation.matrix, y, observation.noise_std).mean for y in observation.y]
    return torch.stack(means).expand(n_draws, -1, -1)


def in_steps_of_noise(sde, score, x, generator):
    """By the reverse SDE."""
    return continuous.euler_maruyama(sde, score, x, n_steps=150, generator=generator)


right("posterior", "by_the_flow", sampler())
right("posterior", "by_the_sde", sampler(solve=in_steps_of_noise))
right("posterior", "one_by_one", one_by_one)
right("posterior", "exactly", exactly)
right(
    "posterior",
    "interleaved_both_ways",
    sampler(y=lambda y, n: y.repeat_interleave(n, 0), reshape=lambda x, n, b, d: x.reshape(b, n, d).transpose(0, 1)),
)

POSTERIORS = {
    "noise_forgotten": (dict(noise=lambda std: 1e-4), "no_noise_variance"),
    "variance_for_std": (dict(noise=lambda std: std**2), "std_for_variance"),
    "std_for_variance": (dict(noise=lambda std: std**0.5), "std_for_variance"),
    "draws_of_the_prior": (dict(guide=lambda score, *more: score), "no_guidance"),
    "rows_in_two_orders": (dict(y=lambda y, n: y.repeat_interleave(n, 0)), "mixed_problems"),
    "reshaped_in_another_order": (
        dict(reshape=lambda x, n, b, d: x.reshape(b, n, d).transpose(0, 1)),
        "mixed_problems",
    ),
    "one_draw_repeated": (dict(shape=lambda n, b, d: (1, b, d)), "shared_noise"),
    "first_observation_for_all": (dict(y=lambda y, n: y[:1].repeat(n * len(y), 1)), "one_problem"),
    "seed_set_inside": (dict(seeds=lambda generator: torch.Generator().manual_seed(3)), "fixed_seed|shared_noise"),
    "no_data_std": (
        dict(
            guide=lambda score, sde, seen, data_std: control.pseudoinverse_guidance(score, sde, seen),
            solve=in_steps_of_noise,
        ),
        "no_data_std",
    ),
    "diffusion_posterior_sampling": (
        dict(
            guide=lambda score, sde, seen, data_std: control.diffusion_posterior(score, sde, seen),
            solve=in_steps_of_noise,
        ),
        "neglected_spread",
    ),
}
for name, (parts, mistake) in POSTERIORS.items():
    wrong("posterior", name, sampler(**parts), mistake)
wrong("posterior", "mean_repeated", its_mean, "point_estimate")


# Coverage and its error.


def quantiles(draws, truth, level):
    return draws.quantile((1 - level) / 2, dim=0), draws.quantile((1 + level) / 2, dim=0)


def z(level):
    return NormalDist().inv_cdf((1 + level) / 2)


def root_of(b):
    return b**0.5


def covering(
    interval=quantiles,
    share=lambda inside, level: inside.mean().item(),
    error=lambda inside, n: (inside.mean(1).std() / len(inside) ** 0.5).item(),
):
    """Student's coverage, where each part may be wrong."""

    def coverage(draws, truth, level):
        low, high = interval(draws, truth, level)
        inside = ((low <= truth) & (truth <= high)).double()
        return share(inside, level), error(inside, len(draws))

    return coverage


def with_python(draws, truth, level):
    """In loops."""
    shares = []
    for row in range(truth.shape[0]):
        held = 0
        for j in range(truth.shape[1]):
            column = sorted(draws[:, row, j].tolist())
            k = (1 - level) / 2 * (len(column) - 1)
            held += column[math.floor(k)] <= truth[row, j] <= column[math.ceil(len(column) - 1 - k)]
        shares.append(held / truth.shape[1])
    mean = sum(shares) / len(shares)
    return mean, math.sqrt(sum((s - mean) ** 2 for s in shares) / (len(shares) - 1) / len(shares))


def by_lab(draws, truth, level):
    """The book's own, where it is not forbidden."""
    estimate = lab.coverage(draws, truth, level=level)
    return estimate.mean, estimate.standard_error


right("coverage", "quantiles", covering())
right("coverage", "plain_python", with_python)
right("coverage", "the_books", by_lab)
right(
    "coverage",
    "population_error",
    covering(error=lambda inside, n: inside.mean(1).std(correction=0) / len(inside) ** 0.5),
)
right("coverage", "single_precision", lambda draws, truth, level: covering()(draws.float(), truth.float(), level))

PARTS = {
    "mean_and_z_stds": (
        "interval",
        lambda x, t, q: (x.mean(0) - z(q) * x.std(0), x.mean(0) + z(q) * x.std(0)),
        "normal_interval",
    ),
    "mean_and_one_std": ("interval", lambda x, t, q: (x.mean(0) - x.std(0), x.mean(0) + x.std(0)), "normal_interval"),
    "one_pooled_quantile": (
        "interval",
        lambda x, t, q: (x.flatten(0, 1).quantile((1 - q) / 2, 0), x.flatten(0, 1).quantile((1 + q) / 2, 0)),
        "pooled",
    ),
    "one_pooled_width": (
        "interval",
        lambda x, t, q: (
            x.mean(0) + (x - x.mean(0)).flatten(0, 1).quantile((1 - q) / 2, 0),
            x.mean(0) + (x - x.mean(0)).flatten(0, 1).quantile((1 + q) / 2, 0),
        ),
        "pooled",
    ),
    "interval_of_the_prior": (
        "interval",
        lambda x, t, q: (t.quantile((1 - q) / 2, 0), t.quantile((1 + q) / 2, 0)),
        "pooled",
    ),
    "whole_tails": (
        "interval",
        lambda x, t, q: (x.quantile(min(q, 1 - q), 0), x.quantile(max(q, 1 - q), 0)),
        "full_tails",
    ),
    "no_lower_end": ("interval", lambda x, t, q: (torch.full_like(t, -math.inf), x.quantile(q, 0)), "one_sided"),
    "no_upper_end": ("interval", lambda x, t, q: (x.quantile(1 - q, 0), torch.full_like(t, math.inf)), "one_sided"),
    "range_of_the_draws": ("interval", lambda x, t, q: (x.amin(0), x.amax(0)), "range"),
    "all_coordinates_at_once": ("share", lambda inside, q: inside.prod(1).mean(), "joint"),
    "share_outside": ("share", lambda inside, q: 1 - inside.mean(), "complement"),
    "the_level": ("share", lambda inside, q: q, "level_returned"),
    "error_over_entries": ("error", lambda inside, n: inside.std() / inside.numel() ** 0.5, "dependent_entries"),
    "binomial_over_problems": (
        "error",
        lambda inside, n: (inside.mean() * (1 - inside.mean()) / len(inside)) ** 0.5,
        "dependent_entries",
    ),
    "no_root": ("error", lambda inside, n: inside.mean(1).std(), "no_root_n"),
    "divided_by_n": ("error", lambda inside, n: inside.mean(1).std() / len(inside), "divided_by_n"),
    "variance": ("error", lambda inside, n: inside.mean(1).var() / len(inside), "variance_for_std"),
    "over_draws": ("error", lambda inside, n: inside.mean(1).std() / n**0.5, "number_of_draws"),
}
for name, (part, value, mistake) in PARTS.items():
    wrong("coverage", name, covering(**{part: value}), mistake)
FEW = ("mean_and_z_stds", "one_pooled_quantile", "whole_tails", "share_outside", "error_over_entries", "no_root")
for one, other in itertools.combinations(FEW, 2):
    (part, value, mistake), (other_part, other_value, second) = PARTS[one], PARTS[other]
    if part != other_part:
        wrong("coverage", f"{one}_and_{other}", covering(**{part: value, other_part: other_value}), mistake, second)


# Ranks.

right("ranks", "counted", lambda draws, truth: (draws < truth).sum(0))
right("ranks", "sorted", lambda draws, truth: torch.cat([truth[None], draws]).argsort(0).argsort(0)[0])
right("ranks", "floating", lambda draws, truth: (draws < truth).double().sum(0))
right("ranks", "not_above", lambda draws, truth: len(draws) - (draws > truth).sum(0))
RANKS = {
    "above": (lambda draws, truth: (draws > truth).sum(0), "above"),
    "mean_of_a_condition": (lambda draws, truth: (draws < truth).double().mean(0), "share"),
    "over_n_plus_one": (lambda draws, truth: (draws < truth).sum(0) / (len(draws) + 1), "share"),
    "from_one": (lambda draws, truth: torch.cat([truth[None], draws]).argsort(0).argsort(0)[0] + 1, "from_one"),
    "among_all_draws": (lambda draws, truth: (draws.flatten(0, 1)[:, None] < truth).sum(0), "pooled"),
    "among_truths": (lambda draws, truth: truth.argsort(0).argsort(0), "pooled"),
    "above_the_mean": (lambda draws, truth: (truth > draws.mean(0)).long(), "flat_rank"),
    "of_distances": (
        lambda draws, truth: ((draws - draws.mean(0)).abs() < (truth - draws.mean(0)).abs()).sum(0),
        "size",
    ),
}
for name, (function, mistake) in RANKS.items():
    wrong("ranks", name, function, mistake)


# Verdicts, which cells of the assignment judge.


def moments(draws, truth):
    """Means over coordinates, for each problem, of the place of the truth and of its square."""
    u = ((draws < truth).sum(0) + 0.5) / (len(draws) + 1) - 0.5
    return u.mean(1), 12 * u.square().mean(1)


def verdict(limit=4.0, over=root_of, shift=True, flipped=False, spread=True):
    """Student's verdict, where each part may be wrong."""

    def judge(draws, truth):
        place, square = moments(draws, truth)
        if shift and abs(place.mean()) > limit * place.std() / over(len(place)):
            return "shifted"
        off = (square.mean() - 1) / (square.std() / over(len(square)))
        if spread and abs(off) > limit:
            return "too narrow" if (off > 0) != flipped else "too wide"
        return "right"

    return judge


right("verdict cells", "by_moments", verdict())
right("verdict cells", "with_three_errors", verdict(limit=3.5))
wrong("verdict cells", "by_taste", verdict(limit=0.05, over=lambda n: 1.0), "threshold")
wrong("verdict cells", "sides_exchanged", verdict(flipped=True), "sides")
wrong("verdict cells", "no_shift", verdict(shift=False), "shift")
wrong("verdict cells", "only_shift", verdict(spread=False), "spread")
wrong("verdict cells", "one_error", verdict(limit=0.5), "threshold")
wrong("verdict cells", "always_right", lambda draws, truth: "right", "constant")
