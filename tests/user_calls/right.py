"""Calls as users write them, all of them right: a type checker has to accept every line, and every line runs."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scorebook import (
    controllable_generation,
    coursework,
    lab,
    langevin,
    monte_carlo,
    noise_scales,
    probability_flow,
    score_matching,
    sde,
    sliced_score_matching,
)
from scorebook.lab.types import Field, Loss, Score

generator = torch.Generator().manual_seed(0)
mixture = lab.GaussianMixture([0.2, 0.8], [[-1.0, 0.0], [1.0, 0.0]], 0.25)
x = mixture.sample(8, generator=generator)
process = sde.VPSDE()


# Scores of every kind: a method, a lambda, a partial, a function with hints or without, an object, a module.


def unhinted(x):
    return -x


def hinted(x: torch.Tensor) -> torch.Tensor:
    return -x


def scaled(factor: float, x: Tensor) -> Tensor:
    return -factor * x


class Callable:
    def __call__(self, x: Tensor) -> Tensor:
        return -x


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


fields: list[Field] = [
    mixture.score,
    lambda x: -x,
    functools.partial(scaled, 0.5),
    unhinted,
    hinted,
    Callable(),
    Network(),
]
for field in fields:
    langevin.langevin(field, x, step_size=0.1, n_steps=2, generator=generator)
langevin.langevin(mixture.score, x, step_size=0.1, n_steps=2)
langevin.langevin(lambda x: -x, x, step_size=0.1, n_steps=2)
langevin.langevin(functools.partial(scaled, 0.5), x, step_size=0.1, n_steps=2)
langevin.langevin(nn.Linear(2, 2), x, step_size=0.1, n_steps=2)
langevin.gradient_ascent(nn.Sequential(nn.Linear(2, 2)), x, step_size=torch.full((8,), 0.1), n_steps=2)
states, acceptance_rate = langevin.metropolis_adjusted_langevin(mixture.log_prob, x, step_size=0.1, n_steps=2)
print(states.shape, acceptance_rate.mean())


# NumPy's numbers where Python's are taken

langevin.langevin(mixture.score, x, step_size=np.float64(0.1), n_steps=np.int64(2))
langevin.langevin(mixture.score, x, step_size=np.float32(0.1), n_steps=np.arange(1, 4)[1])
lab.moons(np.int32(10), noise=np.float32(0.1))
lab.MLP(np.int64(2), width=np.int64(8))
lab.GaussianMixture(np.array([0.5, 0.5]), np.zeros((2, 2)), np.ones(2)).sample(np.int64(3))
monte_carlo.expectation(lambda x: x[:, 0] > 0, x).interval(np.float64(0.9))


# Estimates, losses, noise scales

estimate = monte_carlo.expectation(lambda x: x.square().sum(1), x)
print(estimate.mean.item(), estimate.standard_error.item(), estimate.n)
monte_carlo.control_variate(lambda x: x[:, 0] ** 2, lambda x: x, x, [0.6, 0.0])
network = lab.MLP(2, width=8, generator=generator)
score_matching.implicit_score_matching_loss(network, x).backward()
sliced_score_matching.sliced_score_matching_loss(network, x, kind="gaussian").backward()
score_matching.score_of(mixture.log_prob, x).sum().item()
for kind in ("rademacher", "gaussian", "sphere"):
    sliced_score_matching.random_projections(x, 1, kind=kind)
sigmas = noise_scales.geometric_noise_scales(2.0, 0.1, 3)
noise_scales.annealed_langevin(lambda x, sigma: -x / (1 + sigma**2), x, sigmas, step_size=1e-3, n_steps_each=2)
noise_scales.annealed_langevin(lambda x, sigma: -x, x, [2.0, 0.5], step_size=1e-3, n_steps_each=2)
noise_scales.tweedie(lambda x, sigma: -x, x, 0.5)
noise_scales.denoising_score_matching_loss(lambda x, sigma: -x, x, sigmas[0], weighting=lambda sigma: sigma**2)


# Training

history = lab.fit(network, score_matching.implicit_score_matching_loss, x, n_steps=2, progress=False)
print(history.smoothed(2), history.stopped_early)
lab.fit(network, lambda model, x: model(x).square().mean(), x, n_steps=1, progress=False)
loss: Loss = functools.partial(sliced_score_matching.sliced_score_matching_loss, n_projections=2)
lab.fit(network, loss, {"x": x.numpy()}, n_steps=np.int64(1), changed="lr", progress=False)
lab.fit(network, loss, torch.utils.data.TensorDataset(x), n_steps=1, progress=False)
drawn = lab.in_chunks(lambda z: sde.VPSDE().denoise(lambda x, t: -x, z, 0.5), x, chunk_size=np.int64(2))
lab.fit(network, loss, x, n_steps=1, autocast=torch.bfloat16, changed=["autocast"], progress=False)
lab.fit(network, loss, x, n_steps=1, batch_size=4, ema_decay=None, generator=generator, progress=False)


# Pictures and tables

axes = lab.density(mixture.log_prob, extent=(-3, 3, -3, 3), resolution=4)
lab.samples(x, axes, color="black")
lab.score_field(mixture.score, extent=[-3.0, 3.0, -3.0, 3.0], resolution=np.int64(4), ax=axes)
lab.claims([lab.Claim("the mean is small", estimate, at_most=10.0), lab.Claim("one", 1, 1, resolution=0.1)])
lab.table({"step": [0.1, 0.2], "measured": torch.tensor([1.0, 2.0])})
images, labels = lab.digits("test")
images, labels = lab.mnist("test")
print(Path("."), images.shape, labels.shape)
points, components = mixture.sample(3, labels=True)
print(points.shape, components.shape)


# Continuous time: scores of (x, t)


class OwnNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(torch.cat([x, t.expand(len(x))[:, None]], dim=1))


class Guided:
    def __init__(self, score: Score):
        self.score = score

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        return self.score(x, torch.as_tensor(t))


def flat(x: Tensor, t: Tensor, factor: float = 1.0) -> Tensor:
    return -factor * x


exact = process.exact_score(mixture)
print(exact(x, 0.5).shape, exact(x, torch.full((8,), 0.5)).shape)
model = sde.ScoreModel(OwnNetwork(), process)
scores: list[Score] = [
    exact,
    model,
    OwnNetwork(),
    Guided(exact),
    lambda x, t: -x,
    flat,
    functools.partial(flat, factor=2.0),
]
start = process.sample_prior((8, 2), generator=generator)
for score in scores:
    sde.euler_maruyama(process, score, start, n_steps=2)
sde.euler_maruyama(process, lambda x, t: -x, start, n_steps=2)
sde.predictor_corrector(process, exact, start, times=process.time_grid(2, spacing="karras"), constraint=lambda x, t: x)
sde.score_matching_loss(model, process, x, weighting=model.weight, sample_times=sde.time_sampler(process)).backward()
sde.score_matching_loss(
    model, process, x, sample_times=lambda n, generator: torch.rand(n, generator=generator)
).backward()
lab.fit(model, lambda model, x: sde.score_matching_loss(model, process, x), x, n_steps=1, progress=False)
print(sde.simulate(lambda x, t: -x, lambda x, t: 1.0, x, torch.linspace(0, 1, 3)).shape)
print(process.alpha(0.5) + process.sigma(torch.tensor(0.5)), process.time_of(np.float64(1.0)))
noise_scales.tweedie(sde.at_noise_scale(exact, process), x, 0.5)

images = probability_flow.sample(process, exact, start, n_steps=2)
print(images.shape)
images, log_prob = probability_flow.sample(process, exact, start, n_steps=2, with_log_prob=True)
print(log_prob.shape)
for with_log_prob in (False, True):
    probability_flow.sample(process, exact, start, n_steps=2, with_log_prob=with_log_prob)
print(probability_flow.encode(process, exact, x, n_steps=np.int64(2)).shape)
probability_flow.log_prob(
    process, exact, x, n_steps=2, divergence="hutchinson", prior=process.prior_log_prob
).mean().item()
probability_flow.log_prob(
    process,
    exact,
    x,
    n_steps=2,
    prior=torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 1.0), 1),
)

observation = controllable_generation.LinearObservation(torch.tensor([[1.0, 0.0]]), torch.tensor([0.5]), 0.1)
guided = controllable_generation.pseudoinverse_guidance(exact, process, observation)
sde.euler_maruyama(process, guided, start, n_steps=2)
guided = controllable_generation.condition(exact, lambda x, t: -x.square().sum(1), scale=torch.ones(8))
print(guided(x, 0.5).shape)
controllable_generation.classifier_free(exact, lambda x, t: -x, 2.0)
labelled = controllable_generation.given(sde.ScoreModel(lab.TimeMLP(2, n_classes=3), process), label=torch.tensor(1))
print(labelled(x, 0.5).shape)


# An SDE of one's own: hinted, or not, or with more than it needs


class Cosine(sde.SDE):
    def alpha(self, t):
        return torch.cos(1.55 * t)

    def sigma(self, t):
        return torch.sin(1.55 * t)


class Straight(sde.SDE):
    def alpha(self, t: Tensor) -> Tensor:
        return 1 - 0.99 * t

    def sigma(self, t: Tensor) -> Tensor:
        return 0.01 + 0.99 * t

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return super().drift(x, t)


class Exploding(sde.SDE):
    def alpha(self, t: Tensor) -> float:
        return 1.0

    def sigma(self, t: torch.Tensor | float) -> torch.Tensor:
        return 0.01 * 1000 ** torch.as_tensor(t)


for own in (Cosine(), Straight(), Exploding()):
    noise = own.sample_prior((4, 2), generator=generator)
    print(sde.euler_maruyama(own, own.exact_score(mixture), noise, n_steps=2).shape)
samples = controllable_generation.twisted_particles(exact, process, observation, start, n_steps=2)
print(samples.mean())
samples, log_weights, sizes = controllable_generation.twisted_particles(
    exact, process, lambda x: -x.square().sum(1), start, n_steps=2, diagnostics=True
)
print(sizes.mean())


# Coursework

report = coursework.check_score(mixture.score, mixture)
print(report.passed)
