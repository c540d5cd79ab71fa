r"""A check of guidance: a student's guided score against the exact score of the posterior of a mixture."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scorebook.coursework.guard import Student, under_guard
from scorebook.coursework.problems import refuse_coupling, rms, seeded
from scorebook.coursework.reports import Answer, Mistake, Report, judge, slips, spelt
from scorebook.lab.arguments import positive
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.observations import LinearObservation
from scorebook.lab.types import Integer, Number
from scorebook.score_matching import score_of
from scorebook.sde import SDE, VPSDE

__all__ = ["check_guidance"]

_DOUBLE = torch.float64


def check_guidance(
    score: Callable[..., Any],
    observation: LinearObservation,
    *,
    prior: GaussianMixture | None = None,
    sde: SDE | None = None,
    tolerance: Number = 1e-3,
    seed: Integer = 0,
    time_limit: Number | None = 30.0,
) -> Report:
    r"""Hold a guided score against the exact score of the posterior, at random points and times.

    .. math:: \nabla_x \log p_t(x \mid y) = \nabla_x \log p_t(x) + \nabla_x \log p_t(y \mid x)

    Args:
        score: the student's guided score ``(x, t) -> tensor like x``, made for ``observation``, ``prior`` and ``sde``;
            ``x`` has shape ``(B, d)`` in double precision, ``t`` is a scalar tensor.
        observation: what was observed, a ``LinearObservation`` with one ``y`` for all samples.
        prior: law of the clean points; by default standard normal, for which pseudoinverse guidance is exact.
        sde: the SDE in whose time the score is given; ``VPSDE()`` by default.
        tolerance: greatest difference in any entry, relative to the root mean square of the true score. An
            approximation passes only with a tolerance that says how good it has to be.
        seed: of points and times.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Raises:
        ValueError: if ``observation`` is no :class:`.LinearObservation`, holds more
            than one observation, or does not fit ``prior``.

    Source: Song et al. (2021), eq. 14; Bishop (2006), eqs. 2.113 to 2.117, for the posterior.
    """
    positive("tolerance", tolerance)
    if not isinstance(observation, LinearObservation):
        raise ValueError(f"observation must be a LinearObservation, got {type(observation).__name__}")
    if len(observation.y) != 1:
        raise ValueError(f"observation must hold one y for all samples, got {len(observation.y)}")
    process = sde or VPSDE()
    dim = _dimension(observation) if prior is None else prior.dim
    law = (prior or GaussianMixture([1.0], torch.zeros(1, dim, dtype=_DOUBLE, device="cpu"), 1.0)).to(_DOUBLE)
    matrix = observation.predict(torch.eye(dim, dtype=_DOUBLE, device="cpu")).mT
    y, noise_std = observation.y[0].to(_DOUBLE), float(observation.noise_std)
    posterior = law.condition(matrix, y, noise_std)
    student = Student("score(x, t)", ("Controllable generation", "Which likelihood?"))
    generator = seeded(seed)

    def check():
        n = 16
        times = torch.tensor([0.15, 0.35, 0.6, 0.85], dtype=_DOUBLE)
        times = times + 0.1 * torch.rand(4, generator=generator, dtype=_DOUBLE)
        values, points = [], []
        for t in times:
            x, _ = process.perturb(law.sample(n, generator=generator), t, generator=generator)
            points.append(x)
            values.append(student.tensor(student.call(score, x.clone(), t.clone()), x.shape, "the guided score"))
        x, values = torch.cat(points), torch.cat(values)
        t = times.repeat_interleave(n)
        truth = process.exact_score(posterior)(x, t)
        report = judge(
            "check_guidance",
            [
                Answer.exact(
                    "guided score", values, truth, tolerance, where=lambda row: f"x = {spelt(x[row])}, t = {t[row]:.3g}"
                )
            ],
            _guidances_mistaken(process, law, matrix, y, noise_std, x, t, truth),
            verified="your guided score is that of the posterior",
        )
        if report.mistake is None:
            refuse_coupling(
                student, lambda part: score(part, times[-1]), points[-1], values[-n:], tolerance * rms(truth)
            )
        return report

    return under_guard("check_guidance", check, student, time_limit=time_limit)


def _dimension(observation) -> int:
    if observation.matrix is not None:
        return observation.matrix.shape[1]
    raise ValueError("prior must be given where the observation is made of callables: it says how many dimensions")


def _guidances_mistaken(process, law, matrix, y, noise_std, x, t, truth) -> list[Mistake]:
    exact = process.exact_score(law)
    prior = exact(x, t)
    likelihood = truth - prior
    alpha, sigma = process.alpha(t).unsqueeze(1), process.sigma(t).unsqueeze(1)
    data_std = law.covariance.diagonal().mean().sqrt()

    def variance(s):
        return (sigma**2 * s**2 / (sigma**2 + alpha**2 * s**2)).squeeze(1)

    def tweedie(points, factor=sigma**2):
        return (points + factor * exact(points, t)) / alpha

    way, fixed = tweedie(x) - x, sigma**2 * prior

    def gaussian(gap, operator, spread, noise=noise_std):
        covariance = spread.reshape(-1, 1, 1) * (operator @ operator.mT) + noise**2 * torch.eye(len(y), dtype=_DOUBLE)
        return -0.5 * (gap * torch.linalg.solve(covariance, gap.unsqueeze(-1)).squeeze(-1)).sum(1)

    def guidance(clean=tweedie, spread=None, operator=matrix, residual=None):
        """Gradient of a likelihood, Gaussian around an estimate of the clean point unless it is another one."""
        spread = variance(data_std) if spread is None else spread

        def log_likelihood(points):
            gap = y - clean(points) @ operator.mT
            return gaussian(gap, operator, spread) if residual is None else residual(gap)

        return score_of(log_likelihood, x)

    def formula(prior=prior, turn=1.0, factor=1.0, **parts):
        return {"guided score": prior + turn * factor * (guidance(**parts) if parts else likelihood)}

    none = torch.zeros_like(t)
    words_clean = (
        "the likelihood is that of a clean point, put at the noisy one; p_t(y | x_t) averages over p(x₀ | x_t)"
    )
    entries: list[tuple[str, str, dict[str, Any]]] = [
        ("clean_likelihood", words_clean, {"clean": lambda points: points, "spread": none}),
        ("clean_likelihood", words_clean, {"clean": lambda points: points / alpha, "spread": none}),
        ("no_guidance", "the observation is not used: that is the prior's score", {"turn": 1.0, "factor": 0.0}),
        ("no_prior", "the prior's score is missing: that is the likelihood's gradient alone", {"prior": 0 * prior}),
        ("guidance_sign", "the guidance has the wrong sign", {"turn": -1.0}),
        ("double_guidance", "the guidance enters twice", {"factor": 2.0}),
        ("half_guidance", "the guidance has a ½ too many", {"factor": 0.5}),
        (
            "neglected_spread",
            "the clean point is put at its mean and its spread neglected: that is diffusion posterior sampling",
            {"spread": none},
        ),
        (
            "std_for_variance",
            "the residual is divided by the noise's standard deviation, not its variance",
            {"residual": lambda gap: -0.5 * gap.square().sum(1) / noise_std},
        ),
        (
            "std_for_variance",
            "the spread of the clean point enters by its standard deviation, not its variance",
            {"spread": variance(data_std).sqrt()},
        ),
        (
            "std_for_variance",
            "the denoised point is (x + σ s)/α, where (x + σ² s)/α is needed",
            {"clean": lambda points: tweedie(points, sigma)},
        ),
        (
            "no_noise_variance",
            "the residual is not divided by the noise's variance",
            {"residual": lambda gap: -0.5 * gap.square().sum(1)},
        ),
        (
            "no_noise_variance",
            "the observation's noise is left out, as if y = A x were exact",
            {"residual": lambda gap: gaussian(gap, matrix, variance(data_std), 1e-6)},
        ),
        *(
            ("norm", "the norm of the residual is not squared",
             {"residual": lambda gap, scale=scale: -scale * gap.norm(dim=1)})
            for scale in (1.0, 0.5, 1 / noise_std**2, 0.5 / noise_std**2, 1 / noise_std, 0.5 / noise_std)
        ),
        (
            "no_jacobian",
            "the gradient does not go through the denoised point: it was detached, and its Jacobian is missing",
            {"clean": lambda points: points + way},
        ),
        (
            "no_jacobian",
            "the gradient does not go through the score in the denoised point: it was detached",
            {"clean": lambda points: (points + fixed) / alpha},
        ),
        (
            "isotropic",
            "the spread of the clean point is taken to be that of unit Gaussian data: pseudoinverse guidance, which is "
            "an approximation here",
            {"spread": variance(1.0)},
        ),
        (
            "sigma_spread",
            "the spread of the clean point is taken to be (σ/α)², without the data's own",
            {"spread": (sigma / alpha).squeeze(1) ** 2},
        ),
        ("no_alpha", "the denoised point lacks its 1/α", {"clean": lambda points: alpha * tweedie(points)}),
    ]  # fmt: skip
    if not torch.allclose(sigma.squeeze(1) ** 2, variance(1.0)):  # under VP that is the spread of unit data
        words = "the spread of the clean point is taken to be σ², without the data's own"
        entries.append(("sigma_spread", words, {"spread": sigma.squeeze(1) ** 2}))
    hidden = _complement(matrix)
    if hidden is not None:
        words = "the mask is the other way round: guided are the coordinates that were not observed"
        entries.append(("mask", words, {"operator": hidden}))
    return slips(formula, entries)


def _complement(matrix) -> Tensor | None:
    """The coordinates that an observation of half of them leaves out, or None where it is no such observation."""
    m, d = matrix.shape
    seen = matrix.sum(0)
    if 2 * m != d or not torch.equal(matrix, torch.eye(d, dtype=_DOUBLE)[seen.nonzero().flatten()]):
        return None
    return torch.eye(d, dtype=_DOUBLE)[(seen == 0).nonzero().flatten()]
