"""Time to quality on the digits: how good is each project after 15, 30 and 60 seconds of training?

Every project trains the tour's network on the same batches, by its own target, weighting and time sampling (see
:mod:`benchmarks.digits_peers`). At 15, 30 and 60 seconds of training the clock stands still and two numbers are taken:

* the sliced Wasserstein distance of new digits, from the project's own sampler at 50 evaluations of the network, to the
  digits held out, as the tour measures it;
* the bits per dimension of the digits held out, from one likelihood for all: the probability flow of the learned
  denoiser between the noise-to-signal ratios 10 and 0.02, on the same grid, with the same dequantization and probes.

Since nothing may know at 15 seconds whether it goes on to 60, no step size falls towards an end: all are constant, and
the weights are averaged. ``SCOREBOOK_BENCH_SECONDS`` holds other budgets ("3 6") for a quick trial.
"""

import math
import os
import traceback

import torch

from benchmarks.digits_peers import BIN, LEARNERS, SHAPE
from scorebook import lab, probability_flow, sde

__all__ = ["bits_per_dim", "distance", "measure"]

BUDGETS = (15.0, 30.0, 60.0)  # seconds of training
N_SAMPLES = 3600
PROCESS = sde.VESDE(sigma_min=0.02, sigma_max=10.0)  # that of the common likelihood


def measure(repetitions=5):
    """Rows of ``sliced_wasserstein`` and ``bits_per_dim``, by ``project``, ``budget_s`` and ``repetition``.

    The rows of the projects ``"real digits"`` (training digits instead of new ones) and ``"one Gaussian"`` (of their
    mean and covariance) are what the others are to be read against. A project that fails has the row ``error`` instead.
    """
    budgets = [float(text) for text in os.environ.get("SCOREBOOK_BENCH_SECONDS", "").split()] or list(BUDGETS)
    images, held_out = lab.digits("train")[0], lab.digits("test")[0]
    rows = [row | {"repetition": seed, "seed": seed} for seed in range(repetitions) for row in yardsticks(images, seed)]
    check_against_closed_form(images, held_out)
    for seed in range(repetitions):
        for name in list(LEARNERS)[:: -1 if seed % 2 else 1]:
            case = {"project": name, "repetition": seed, "seed": seed}
            try:
                LEARNERS[name](images, seed).train_until(0.2)  # the first calls of anything are slow
                learner = LEARNERS[name](images, seed)
                for budget in budgets:
                    learner.train_until(budget)
                    rows.append(case | {"budget_s": budget} | quality(learner, held_out))
                    print(rows[-1], flush=True)
            except Exception as error:  # the others go on
                traceback.print_exc()
                rows.append(case | {"error": f"{type(error).__name__}: {error}"})
    return rows


def quality(learner, held_out) -> dict:
    """What a learner knows at this moment."""

    def score(y, t):
        sigma = PROCESS.sigma(t)
        return (learner.denoise(y, sigma) - y) / sigma**2

    measured = {
        "sliced_wasserstein": distance(learner.sample(N_SAMPLES), held_out),
        "bits_per_dim": bits_per_dim(score, held_out),
    }
    if not all(math.isfinite(number) for number in measured.values()):
        raise ArithmeticError(f"not finite after {learner.steps} steps: {measured}")
    return {"steps": learner.steps, "seconds": learner.seconds} | measured


def distance(pictures, held_out, *, n_draws=20, seed=0) -> float:
    """Mean sliced Wasserstein distance of as many pictures as were held out to those."""
    generator = torch.Generator().manual_seed(seed)
    n = len(held_out)
    rounds = math.ceil(n_draws * n / len(pictures))
    order = torch.cat([torch.randperm(len(pictures), generator=generator) for _ in range(rounds)])
    draws = [pictures[order[i * n : (i + 1) * n]] for i in range(n_draws)]
    return (
        sum(lab.sliced_wasserstein(x, held_out, n_projections=500, generator=generator).item() for x in draws) / n_draws
    )


def bits_per_dim(score, held_out, *, n_steps=50, divergence="hutchinson", seed=0) -> float:
    """Bits per dimension of the digits held out, under the probability flow of ``score(x, t)`` in ``PROCESS``."""
    generator = torch.Generator().manual_seed(seed)
    x = probability_flow.dequantize(held_out, BIN, generator=generator)
    log_density = probability_flow.log_prob(
        PROCESS,
        score,
        x,
        divergence=divergence,
        method="heun2",
        times=PROCESS.time_grid(n_steps, spacing="karras"),
        generator=generator,
    )
    return probability_flow.bits_per_dim(log_density, math.prod(SHAPE), BIN).mean().item()


def gaussian_of(images, seed=0):
    """The Gaussian with the mean and covariance of dequantized digits."""
    x = probability_flow.dequantize(images, BIN, generator=torch.Generator().manual_seed(seed)).flatten(1).double()
    return lab.GaussianMixture(torch.ones(1), x.mean(0, keepdim=True), torch.cov(x.T).unsqueeze(0))


def yardsticks(images, seed) -> list[dict]:
    """What real digits and a Gaussian get."""
    held_out = lab.digits("test")[0]
    generator = torch.Generator().manual_seed(seed)
    gaussian = gaussian_of(images, seed)
    drawn = gaussian.sample(N_SAMPLES, generator=generator).float().reshape(-1, *SHAPE)
    x = probability_flow.dequantize(held_out, BIN, generator=torch.Generator().manual_seed(0)).flatten(1)
    bits = probability_flow.bits_per_dim(gaussian.log_prob(x.double()), x.shape[1], BIN).mean().item()
    return [
        {"project": "real digits", "sliced_wasserstein": distance(images, held_out, seed=seed)},
        {"project": "one Gaussian", "sliced_wasserstein": distance(drawn, held_out, seed=seed), "bits_per_dim": bits},
    ]


def check_against_closed_form(images, held_out) -> None:
    """Hold the likelihood against that of a Gaussian, whose score and density are known.

    Raises:
        RuntimeError: if they differ by more than 0.01 bits per dimension.
    """
    gaussian = gaussian_of(images)
    x = probability_flow.dequantize(held_out, BIN, generator=torch.Generator().manual_seed(0)).flatten(1).double()
    start = PROCESS.time_grid(50, spacing="karras")[-1]
    noised = gaussian.diffuse(PROCESS.alpha(start), PROCESS.sigma(start))
    exact = probability_flow.bits_per_dim(noised.log_prob(x), x.shape[1], BIN).mean().item()
    measured = bits_per_dim(PROCESS.exact_score(gaussian), held_out.double())
    print(f"one Gaussian by the common likelihood: {measured:.4f} bits per dimension, exactly {exact:.4f}", flush=True)
    if not abs(measured - exact) < 0.01:
        raise RuntimeError(f"the likelihood is off: {measured:.4f} bits per dimension instead of {exact:.4f}")
