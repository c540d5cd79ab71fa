"""Posteriors, coverages and ranks that no check was tuned on."""

import numpy as np
import torch

from catalogue import Catalogue
from scorebook import controllable_generation as control
from scorebook import probability_flow
from scorebook import sde as continuous
from scorebook.controllable_generation import LinearObservation

catalogue = Catalogue()


@catalogue.right("posterior")
def posterior_by_the_flow(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    b, d = len(observation.y), observation.matrix.shape[1]
    seen = LinearObservation(observation.matrix, torch.cat([observation.y] * n_draws), observation.noise_std)
    guided = control.pseudoinverse_guidance(score, sde, seen, data_std=data_std)
    start = sde.sample_prior((n_draws * b, d), generator=generator, dtype=seen.y.dtype)
    return probability_flow.sample(sde, guided, start, n_steps=40).reshape(n_draws, b, d)


@catalogue.wrong("posterior", "no_noise_variance")
def posterior_of_clean_observations(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    b, d = len(observation.y), observation.matrix.shape[1]
    seen = LinearObservation(observation.matrix, observation.y.repeat(n_draws, 1), 1e-3)
    guided = control.pseudoinverse_guidance(score, sde, seen, data_std=data_std)
    start = sde.sample_prior((n_draws * b, d), generator=generator, dtype=seen.y.dtype)
    return probability_flow.sample(sde, guided, start, n_steps=60).reshape(n_draws, b, d)


@catalogue.wrong("posterior", "shared_noise|fixed_seed")
def posterior_of_one_start(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    b, d = len(observation.y), observation.matrix.shape[1]
    seen = LinearObservation(observation.matrix, observation.y.repeat(n_draws, 1), observation.noise_std)
    guided = control.pseudoinverse_guidance(score, sde, seen, data_std=data_std)
    start = sde.sample_prior((n_draws, 1, d), generator=generator, dtype=seen.y.dtype).expand(n_draws, b, d)
    return probability_flow.sample(sde, guided, start.reshape(-1, d), n_steps=40).reshape(n_draws, b, d)


@catalogue.wrong("posterior", "mixed_problems")
def posterior_with_two_orders_of_rows(sde, score, observation, n_draws, *, data_std=1.0, generator=None):
    b, d = len(observation.y), observation.matrix.shape[1]
    rows = torch.arange(b).repeat_interleave(n_draws)
    seen = LinearObservation(observation.matrix, observation.y[rows], observation.noise_std)
    guided = control.pseudoinverse_guidance(score, sde, seen, data_std=data_std)
    start = sde.sample_prior((n_draws * b, d), generator=generator, dtype=seen.y.dtype)
    return continuous.euler_maruyama(sde, guided, start, n_steps=120, generator=generator).reshape(n_draws, b, d)


@catalogue.right("coverage")
def coverage_by_sorting(draws, truth, level):
    ordered, n = draws.sort(0).values, len(draws)
    k = max(1, round((n + 1) * (1 - level) / 2))
    inside = ((ordered[k - 1] < truth) & (truth < ordered[n - k])).float().mean(1)
    return inside.mean().item(), (inside.std() / len(inside) ** 0.5).item()


@catalogue.right("coverage")
def coverage_by_numpy(draws, truth, level):
    low, high = np.percentile(draws.numpy(), [50 * (1 - level), 50 * (1 + level)], axis=0)
    inside = ((low < truth.numpy()) & (truth.numpy() < high)).mean(1)
    return float(inside.mean()), float(inside.std() / (len(inside) - 1) ** 0.5)


@catalogue.wrong("coverage", "normal_interval")
def coverage_by_two_sigma(draws, truth, level):
    z = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(0.5 + level / 2))
    inside = ((truth - draws.mean(0)).abs() < z * draws.std(0)).double().mean(1)
    return inside.mean(), inside.std() / len(inside) ** 0.5


@catalogue.wrong("coverage", "pooled")
def coverage_with_one_quantile(draws, truth, level):
    low, high = torch.quantile(draws.flatten(), torch.tensor([(1 - level) / 2, (1 + level) / 2]).double())
    inside = ((low <= truth) & (truth <= high)).double().mean(1)
    return inside.mean(), inside.std() / len(inside) ** 0.5


@catalogue.wrong("coverage", "dependent_entries")
def coverage_with_the_error_of_a_count(draws, truth, level):
    low, high = draws.quantile((1 - level) / 2, 0), draws.quantile((1 + level) / 2, 0)
    inside = ((low <= truth) & (truth <= high)).double()
    p = inside.mean()
    return p, (p * (1 - p) / inside.numel()) ** 0.5


@catalogue.wrong("coverage", "full_tails", "no_root_n")
def coverage_with_whole_tails(draws, truth, level):
    low, high = draws.quantile(min(level, 1 - level), 0), draws.quantile(max(level, 1 - level), 0)
    inside = ((low <= truth) & (truth <= high)).double().mean(1)
    return inside.mean(), inside.std()


@catalogue.right("ranks")
def ranks_by_searching(draws, truth):
    ordered = draws.permute(1, 2, 0).contiguous().sort(-1).values
    return torch.searchsorted(ordered, truth[..., None]).squeeze(-1)


@catalogue.wrong("ranks", "above")
def ranks_from_the_top(draws, truth):
    return torch.count_nonzero(draws >= truth, dim=0)


@catalogue.wrong("ranks", "share")
def ranks_as_probabilities(draws, truth):
    return (draws <= truth).double().mean(0)
