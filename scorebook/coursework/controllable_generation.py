r"""A check of guidance: a student's guided score against the exact score of the posterior of a mixture."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from scorebook.coursework.guard import Student, under_guard
from scorebook.coursework.problems import refuse_coupling, rms, seeded
from scorebook.coursework.reports import Answer, Mistake, Report, judge
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
    student = Student("score(x, t)")
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
            [Answer.exact("guided score", values, truth, tolerance)],
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
    plain = exact(x, t)
    likelihood = truth - plain
    alpha, sigma = process.alpha(t).unsqueeze(1), process.sigma(t).unsqueeze(1)
    r = (sigma**2 / (sigma**2 + alpha**2)).squeeze(1)
    eye = torch.eye(len(matrix), dtype=_DOUBLE)

    def gradient(log_likelihood):
        return score_of(log_likelihood, x)

    def clean(points, std=noise_std, spread=0.0):
        gap = y - points @ matrix.mT
        covariance = torch.as_tensor(spread, dtype=_DOUBLE).reshape(-1, 1, 1) * (matrix @ matrix.mT) + std**2 * eye
        return -0.5 * (gap * torch.linalg.solve(covariance, gap.unsqueeze(-1)).squeeze(-1)).sum(1)

    def denoised(x):
        return (x + sigma**2 * exact(x, t)) / alpha

    way = denoised(x) - x

    def frozen(x):
        """The denoised point without its derivative: as if it moved along with x."""
        return x + way

    words_clean = (
        "the likelihood is that of a clean point, put at the noisy one; p_t(y | x_t) averages over p(x₀ | x_t)"
    )
    entries = [
        ("clean_likelihood", words_clean, lambda: plain + gradient(clean)),
        ("clean_likelihood", words_clean, lambda: plain + gradient(lambda x: clean(x / alpha))),
        ("no_guidance", "the observation is not used: that is the prior's score", lambda: plain),
        ("no_prior", "the prior's score is missing: that is the likelihood's gradient alone", lambda: likelihood),
        ("guidance_sign", "the guidance has the wrong sign", lambda: plain - likelihood),
        ("double_guidance", "the guidance enters twice", lambda: plain + 2 * likelihood),
        ("half_guidance", "the guidance has a ½ too many", lambda: plain + 0.5 * likelihood),
        (
            "neglected_spread",
            "the clean point is put at its mean and its spread neglected: that is diffusion posterior sampling",
            lambda: plain + gradient(lambda x: clean(denoised(x))),
        ),
        (
            "std_for_variance",
            "the residual is divided by the noise's standard deviation, not its variance",
            lambda: plain + noise_std * gradient(lambda x: clean(denoised(x))),
        ),
        (
            "no_noise_variance",
            "the residual is not divided by the noise's variance",
            lambda: plain + noise_std**2 * gradient(lambda x: clean(denoised(x))),
        ),
        (
            "no_jacobian",
            "the gradient does not go through the denoised point: it was detached, and its Jacobian is missing",
            lambda: plain + gradient(lambda x: clean(frozen(x), spread=r)),
        ),
        (
            "no_jacobian",
            "the gradient does not go through the denoised point, and its spread is neglected",
            lambda: plain + gradient(lambda x: clean(frozen(x))),
        ),
        (
            "isotropic",
            "the spread of the clean point is taken to be that of unit Gaussian data: pseudoinverse guidance, which is "
            "an approximation here",
            lambda: plain + gradient(lambda x: clean(denoised(x), spread=r)),
        ),
        (
            "sigma_spread",
            "the spread of the clean point is taken to be σ², without the data's own",
            lambda: plain + gradient(lambda x: clean(denoised(x), spread=sigma.squeeze(1) ** 2)),
        ),
        (
            "sigma_spread",
            "the spread of the clean point is taken to be (σ/α)², without the data's own",
            lambda: plain + gradient(lambda x: clean(denoised(x), spread=(sigma / alpha).squeeze(1) ** 2)),
        ),
        (
            "no_alpha",
            "the denoised point lacks its 1/α",
            lambda: plain + gradient(lambda x: clean(alpha * denoised(x), spread=r)),
        ),
    ]

    def told(value):
        return {"guided score": value()}

    return [Mistake(key, words, functools.partial(told, value)) for key, words, value in entries]
