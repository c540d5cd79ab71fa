"""Calls that are wrong: a type checker has to refuse every statement, and so does the package when it runs."""

import numpy as np
import torch
from torch import Tensor

from scorebook import (
    controllable_generation,
    lab,
    langevin,
    monte_carlo,
    noise_scales,
    probability_flow,
    score_matching,
    sde,
    sliced_score_matching,
)

mixture = lab.GaussianMixture([0.2, 0.8], [[-1.0, 0.0], [1.0, 0.0]], 0.25)
x = mixture.sample(8, generator=torch.Generator().manual_seed(0))
process = sde.VPSDE()
exact = process.exact_score(mixture)
network = lab.MLP(2, width=8)
observation = controllable_generation.LinearObservation(torch.tensor([[1.0, 0.0]]), torch.tensor([0.5]), 0.1)


def in_time(x: Tensor, t: Tensor) -> Tensor:
    return -x


class WithoutSigma(sde.SDE):
    def alpha(self, t):
        return torch.ones(())


# Each statement below is wrong.

# A score of another kind
langevin.langevin(exact, x, step_size=0.1, n_steps=2)
langevin.langevin(in_time, x, step_size=0.1, n_steps=2)
langevin.langevin(lambda: x, x, step_size=0.1, n_steps=2)
langevin.langevin(lambda x: 1.0, x, step_size=0.1, n_steps=2)
langevin.langevin(mixture, x, step_size=0.1, n_steps=2)
langevin.gradient_ascent(None, x, step_size=0.1, n_steps=2)
sde.euler_maruyama(process, mixture.score, x, n_steps=2)
sde.euler_maruyama(process, lambda x: -x, x, n_steps=2)
sde.euler_maruyama(process, network.layers, x, steps=2)
probability_flow.sample(process, mixture.score, x, n_steps=2)
probability_flow.log_prob(process, "exact", x, n_steps=2)
noise_scales.tweedie(mixture.score, x, 0.5)
controllable_generation.condition(exact, mixture.log_prob)(x, 0.5)
controllable_generation.classifier_free(exact, exact)
score_matching.score_of(1.0, x)

# In another order, or too many, or unknown, or not all of them
sde.euler_maruyama(exact, process, x, n_steps=2)
sde.euler_maruyama(process, exact, x, 2)
langevin.langevin(x, mixture.score, step_size=0.1, n_steps=2)
langevin.langevin(mixture.score, x, step_size=0.1)
langevin.langevin(mixture.score, x, step_size=0.1, n_step=2)
probability_flow.sample(process, exact, x, n_steps=2, tolerance=1e-3)

probability_flow.sample(process, exact, x, n_steps=2, divergence="exact")
sde.VPSDE(beta=20.0)
# Numbers and tensors
langevin.langevin(mixture.score, x, step_size="0.1", n_steps=2)
langevin.langevin(mixture.score, x, step_size=0.1, n_steps=2.5)
langevin.langevin(mixture.score, x, step_size=0.1, n_steps=np.float64(2))
langevin.langevin(mixture.score, x, step_size=0.1, n_steps=2, generator=0)
langevin.langevin(mixture.score, x, step_size=0.1, n_steps=2, generator=np.random.default_rng(0))
langevin.langevin(mixture.score, [[0.0, 1.0]], step_size=0.1, n_steps=2)
langevin.langevin(mixture.score, np.zeros((3, 2)), step_size=0.1, n_steps=2)
monte_carlo.expectation(lambda x: 1.0, x)
lab.GaussianMixture(1.0, [[0.0]], 1.0)
lab.sliced_wasserstein(x, 0.0)
process.beta("0.5")
process.time_grid(2.5)
controllable_generation.LinearObservation(torch.ones(1, 2), torch.zeros(1), "0.1")

# One of several names
sliced_score_matching.random_projections(x, 1, kind="gausian")
process.time_grid(2, spacing="karas")
probability_flow.sample(process, exact, x, method="dopri", n_steps=2)
lab.digits("valid")
lab.mnist("valid")
score_matching.implicit_score_matching_loss(network, x, reduction="sum")

# What comes back
controllable_generation.twisted_particles(exact, process, observation, x, n_steps=2, diagnostics=True).mean()
mixture.sample(3, labels=True).mean()
probability_flow.sample(process, exact, x, n_steps=2, with_log_prob=True).mean()
monte_carlo.expectation(lambda x: x, x).std()
langevin.metropolis_adjusted_langevin(mixture.log_prob, x, step_size=0.1, n_steps=2).mean()
lab.fit(network, score_matching.implicit_score_matching_loss, x, n_steps=1, progress=False).losses.mean()

# Training and own SDEs
lab.fit(lambda x: -x, score_matching.implicit_score_matching_loss, x, n_steps=1)
lab.fit(network, "mse", x, n_steps=1)
lab.fit(network, score_matching.implicit_score_matching_loss, x, n_steps=1, schedule="linear")
lab.fit(network, score_matching.implicit_score_matching_loss, x, n_steps=1, autocast="bfloat16")
lab.in_chunks(lambda x: -x, x, chunk_size=0.5)
process.exact_score(mixture.score)(x, 0.5)
WithoutSigma()
sde.ScoreModel(network)
