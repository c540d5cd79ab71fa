r"""The rounds of the open project: what a sampler makes of laws that nobody has seen, with a given number of scores.

This file runs in the kernel of the tests (``tools/leaderboard.py``); the sampler that it holds against the laws is in
another process, and so is all that it computes. What it may ask is counted here: a call of the score for all samples is
one evaluation, and a call for half of them is half of one.

The laws are made anew from a seed that is drawn when a run begins. In each the score is exact and fresh draws are to be
had without end, so that a distance has a truth: what as many draws of the law itself would give.
"""

import json
from pathlib import Path

import torch

from scorebook import lab
from scorebook import sde as continuous

__all__ = ["EVALUATIONS", "Budget", "hold", "laws", "measured"]

EVALUATIONS = (4, 8, 16)
SAMPLES, REFERENCE, FLOORS = 400, 2000, 6
PROCESS = continuous.VPSDE()


class OverdrawnError(Exception):
    """The score was asked more often than said."""


class Budget:
    """A score that counts what it is asked, and refuses what is too much.

    Args:
        score: the score, ``(x, t) -> tensor like x``.
        n_samples: rows that make one evaluation.
        n_evaluations: how many there are.
    """

    def __init__(self, score, n_samples, n_evaluations):
        self.score, self.left = score, n_samples * n_evaluations
        self.n_samples, self.n_evaluations, self.rows = n_samples, n_evaluations, 0

    def __call__(self, x, t):
        """The score, where there is some left to ask."""
        self.rows += len(x)
        if self.overdrawn:
            raise OverdrawnError(f"the score was asked for more than {self.n_evaluations} evaluations")
        return self.score(x, t)

    @property
    def overdrawn(self):
        """Whether too much was asked, be it that the refusal was caught and hidden."""
        return self.rows > self.left

    @property
    def evaluations(self):
        """What was asked, in evaluations of all samples."""
        return self.rows / self.n_samples


def laws(seed):
    """By name, laws of three kinds, each with the points of which it is made; none of them was there before."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    angle = 1 + 9 * torch.linspace(0, 1, 60, dtype=torch.float64).sqrt()
    spiral = angle[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1) / 6
    turn = torch.linalg.qr(normal(2, 2)).Q
    images = lab.digits("train")[0].flatten(1).double()
    chosen = images[torch.randperm(len(images), generator=generator)[:150]]
    # Nobody who knows the digits knows these: each pixel at another place, and some in negative.
    pixels, sign = torch.randperm(64, generator=generator), normal(64).sign()
    centres = {"clusters in 8 dimensions": 1.5 * normal(10, 8), "a spiral": spiral @ turn, "digits in disguise": (
        chosen[:, pixels] * sign
    )}  # fmt: skip
    variances = {"clusters in 8 dimensions": 0.05 + 0.3 * uniform(10), "a spiral": 0.02, "digits in disguise": 0.04}
    found = {}
    for name, means in centres.items():
        weights = 0.5 + uniform(len(means))
        found[name] = lab.GaussianMixture(weights / weights.sum(), means, variances[name]).to(torch.float64)
    return found


def _checked(answer, x):
    """What is wrong with what came back, or None."""
    if not isinstance(answer, torch.Tensor) or answer.shape != x.shape:
        came = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        return f"expected a tensor of shape {tuple(x.shape)}, got {came}"
    return None if bool(torch.isfinite(answer).all()) else "some samples are not finite"


def measured(sample, law, n_evaluations, seed):
    """What a sampler makes of one law with one number of evaluations, as a dict.

    ``ratio`` is the sliced Wasserstein distance to fresh draws, over that of as many draws of the law itself: 1 is what
    an exact sampler has. ``copied`` is the share of samples within a third of the distance that fresh draws have from
    the points of which the law is made. ``remark`` says why there is no ratio.
    """
    generator = torch.Generator().manual_seed(seed)
    x = PROCESS.sample_prior((SAMPLES, law.dim), generator=generator, dtype=torch.float64)
    reference = law.sample(REFERENCE, generator=generator)
    data_std = reference.std(0).square().mean().sqrt().item()
    budget = Budget(PROCESS.exact_score(law), SAMPLES, n_evaluations)
    try:
        answer = sample(budget, PROCESS, x.clone(), n_evaluations, data_std=data_std)
        remark = _checked(answer, x)
    except Exception as error:
        remark = f"{type(error).__name__}: {error}"
    if budget.overdrawn:
        remark = f"the score was asked for more than {n_evaluations} evaluations"
    if remark:
        return {"remark": remark, "evaluations": budget.evaluations}
    answer = answer.detach().double()

    def distance(points):
        return lab.sliced_wasserstein(
            points, reference, n_projections=100, generator=torch.Generator().manual_seed(seed)
        ).item()

    floors = [distance(law.sample(SAMPLES, generator=generator)) for _ in range(FLOORS)]
    usual = lab.nearest(law.sample(SAMPLES, generator=generator), law.means)[0].mean()
    copied = (lab.nearest(answer, law.means)[0] < usual / 3).double().mean().item()
    return {
        "ratio": distance(answer) / (sum(floors) / FLOORS),
        "evaluations": budget.evaluations,
        "copied": copied,
        "remark": "",
    }


def hold(sample, seed, path):
    """Hold a sampler against all laws with each number of evaluations, and write what was measured as JSON.

    Args:
        sample: ``sample(score, sde, x, n_evaluations, *, data_std) -> tensor like x``.
        seed: of laws, starts and fresh draws.
        path: of the file.
    """
    rounds = [
        {"law": name, "n": n} | measured(sample, law, n, seed + 1000 * k + n)
        for k, (name, law) in enumerate(laws(seed).items())
        for n in EVALUATIONS
    ]
    Path(path).write_text(json.dumps(rounds), encoding="utf-8")
