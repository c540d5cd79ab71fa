r"""Checks of a student's probability flow and of its likelihood.

Both are held against the book's SDEs with random rates, for which a Gaussian mixture has the exact score at any time.
"""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.problems import (
    child,
    drift_rate,
    random_mixture,
    random_sde,
    refuse_coupling,
    refuse_other_times,
    rms,
    seeded,
)
from scorebook.coursework.reports import Answer, Mistake, Report, judge
from scorebook.lab.arguments import positive, standard_normal
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.types import Integer, Number
from scorebook.sde import VESDE, VPSDE

__all__ = ["check_log_prob", "check_probability_flow"]

_DOUBLE = torch.float64
# Calls of the score after which a solver of adaptive steps has chosen a few of them.
_FEW_CALLS = 40


def check_probability_flow(
    velocity: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0
) -> Report:
    r"""Hold the velocity of the probability flow against the truth, for two random SDEs and a random mixture.

    .. math:: v(x, t) = f(x, t) - \tfrac12\, g(t)^2\, \nabla_x \log p_t(x)

    Args:
        velocity: the student's callable ``velocity(sde, score) -> field``, with ``field(t, x) -> tensor like x``, time
            first as solvers want it; ``sde`` is one of the book's, ``score(x, t)``, ``x`` of shape ``(B, d)``, ``t`` a
            scalar tensor.
        seed: of SDE, mixture, points and times.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Song et al. (2021), eq. 13.
    """
    student = Student("velocity(sde, score)(t, x)")
    generator = seeded(seed)

    def check():
        n, d = 16, 3
        low, high = (1 + torch.rand(2, generator=generator, dtype=torch.float32)).tolist()
        exploding = VESDE(0.1 * low, 5.0 * high)
        x = 1.5 * standard_normal((n, d), generator=generator, dtype=_DOUBLE)
        law, parts = random_mixture(d, generator), []
        for process in (random_sde(generator), exploding):
            times = 0.2 + 0.6 * torch.rand(3, generator=generator, dtype=_DOUBLE)
            field, asked = _field_of(student, velocity, process, process.exact_score(law))
            values = torch.stack([_ask_field(student, field, t, x) for t in times])
            g = process.diffusion(times).reshape(-1, 1, 1).expand_as(values)
            f = torch.stack([process.drift(x, t) for t in times])
            parts.append((values, f, torch.stack([process.exact_score(law)(x, t) for t in times]), g))
            refuse_other_times(asked[:1], times[0], process)
        values, f, s, g = (torch.cat(part) for part in zip(*parts, strict=True))
        truth = f - 0.5 * g**2 * s
        entries = [
            ("half", "the ½ before g² is missing: that is the drift of the reverse SDE", f - g**2 * s),
            ("diffusion_for_squared", "the score is multiplied by ½ g, where ½ g² is needed", f - 0.5 * g * s),
            ("diffusion_for_squared", "the score is multiplied by g, where ½ g² is needed", f - g * s),
            ("no_squared_diffusion", "the score is multiplied by ½, without g²", f - 0.5 * s),
            ("score_sign", "the score has the wrong sign", f + 0.5 * g**2 * s),
            ("score_sign", "the score has the wrong sign, and the ½ is missing", f + g**2 * s),
            ("time_direction", "the whole velocity has the wrong sign", -truth),
            ("no_drift", "the drift f is missing", -0.5 * g**2 * s),
            ("no_score", "the score is missing", f),
            ("drift_sign", "the drift f has the wrong sign", -f - 0.5 * g**2 * s),
            ("half_drift", "the ½ stands before the drift as well", 0.5 * f - 0.5 * g**2 * s),
            ("quarter", "the ½ is squared along with g", f - 0.25 * g**2 * s),
        ]
        report = judge(
            "check_probability_flow",
            [Answer.exact("velocity", values, truth, 1e-4)],
            [Mistake(key, words, functools.partial(dict, velocity=value)) for key, words, value in entries],
            verified="your velocity is that of the probability flow",
        )
        if report.mistake is None:
            refuse_coupling(student, lambda part: field(times[-1], part), x, values[-1], 1e-4 * rms(truth[-1]))
        return report

    return under_guard("check_probability_flow", check, student, time_limit=time_limit)


def _field_of(student, velocity, process, exact):
    """The student's field, and the times at which it will have asked for the score."""
    asked = []

    def score(x, t):
        asked.append(t)
        return exact(x, t)

    field = student.call(velocity, process, score)
    if not callable(field):
        raise Refusal(f"velocity(sde, score) must return a callable field(t, x), got {type(field).__name__}", "type")
    return field, asked


def _ask_field(student, field, t, x) -> Tensor:
    try:
        return student.tensor(student.call(field, t.clone(), x.clone()), x.shape, "the velocity")
    except Refusal as refusal:
        try:
            student.tensor(student.call(field, x.clone(), t.clone()), x.shape, "the velocity")
        except Refusal:
            raise refusal from None
        raise Refusal(
            "the field works as field(x, t); solvers call field(t, x), with the time first", "argument_order"
        ) from None


def check_log_prob(
    f: Callable[..., Any],
    *,
    bin_width: Number | None = None,
    tolerance: Number = 0.05,
    seed: Integer = 0,
    time_limit: Number | None = 60.0,
) -> Report:
    r"""Hold the likelihood under the probability flow against the exact one, for correlated Gaussian data.

    .. math:: \log p(x) = \log p_1(x(1)) + \int_{t_{min}}^1 \nabla \cdot v(x(t), t)\,dt

    The flow of a Gaussian is linear, so the path, its divergence and the prior's term are known, for the right code and
    for each wrong one.

    Args:
        f: the student's callable ``f(sde, score, x) -> (B,)``, log-densities in nats; ``sde`` is one of the book's
            VP SDEs, ``score(x, t)``, ``x`` of shape ``(B, d)``. With ``bin_width`` it is called as
            ``f(sde, score, x, bin_width)`` and returns bits per dimension. A random estimate of the divergence
            is allowed; a keyword ``generator`` is passed if it is taken.
        bin_width: width of the bins of the data, in the units of ``x``; None for log-densities.
        tolerance: difference allowed beside the noise of an estimate, in nats for the whole point: for the solver, and
            for the least time, which is the student's choice below 0.01.
        seed: of SDE, data and points.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Raises:
        ValueError: if ``bin_width`` or ``tolerance`` is not positive.

    Source: Song et al. (2021), eq. 39; Theis et al. (2016) for the bits.
    """
    positive("tolerance", tolerance)
    if bin_width is not None:
        positive("bin_width", bin_width)
    student = Student("f(sde, score, x)" if bin_width is None else "f(sde, score, x, bin_width)")
    generator = seeded(seed)

    def check():
        points, copies = 6, 16
        process = VPSDE(0.1 + 0.2 * torch.rand((), generator=generator, dtype=torch.float32).item(), 4.0)
        variances = torch.tensor([0.15, 0.3, 0.8], dtype=_DOUBLE)
        d, axes = len(variances), _telling_axes(variances, generator)
        covariance = (axes * variances @ axes.mT).unsqueeze(0)
        law = GaussianMixture(torch.ones(1, dtype=_DOUBLE), torch.zeros(1, d, dtype=_DOUBLE), covariance)
        exact = process.exact_score(law)
        x = law.sample(points, generator=generator)
        extra = () if bin_width is None else (bin_width,)
        rows = x.repeat_interleave(copies, 0)

        def score(x, t):
            return exact(x.to(_DOUBLE), torch.as_tensor(t, dtype=_DOUBLE)).to(x.dtype)

        def ask(score, rows):
            return student.call(f, process, score, rows, *extra, generator=child(generator))

        _refuse_fresh_probes(ask, score, x)
        values = ask(score, rows)
        values = student.tensor(values, (len(rows),), "the log-density").reshape(points, copies)
        parts = _FlowParts(process, variances, x @ axes, axes)
        scale, shift, name = 1.0, 0.0, "log-density"
        if bin_width is not None:
            scale, shift, name = -1 / (d * math.log(2)), -math.log2(bin_width), "bits per dimension"
        truth = scale * parts.log_prob() + shift
        # The flow is linear: an estimate of its divergence varies alike at all points, and they share their error.
        error = (values.var(1).mean() / copies).sqrt()
        answer = Answer(name, values.mean(1), truth, error, tolerance * abs(scale))

        def told(value):
            return {name: scale * value() + shift}

        mistakes = [
            Mistake(key, words, functools.partial(told, value), slack=0.02) for key, words, value in parts.mistakes()
        ]
        mistakes += _units_mistaken(name, parts, d, bin_width)
        return judge("check_log_prob", [answer], mistakes, verified=f"your {name} is that of the probability flow")

    return under_guard("check_log_prob", check, student, time_limit=time_limit)


class _Enough(BaseException):
    """Ends a call of which enough has been seen; no ``except Exception`` catches it."""


def _refuse_fresh_probes(ask, score, x):
    """Refuse an adaptive solver whose right-hand side is no function: each call draws another probe.

    What the score is differentiated along is seen in the gradient that arrives at it. Probes that never come again are
    harmless in a solver of fixed steps; an adaptive one, whose steps then change with the probes, they ruin.
    """
    times, fresh = _spied(ask, score, x)
    if fresh and times != _spied(ask, score, x)[0]:
        raise Refusal(
            "a new probe is drawn at every call, so the right-hand side is no function and an adaptive solver takes "
            "its jumps for stiffness: draw the probe once and keep it",
            "fresh_probe",
        )


def _spied(ask, score, x) -> tuple[list[Any], bool]:
    """Times of the first calls of the score, and whether each saw a probe of its own."""
    times: list[Any] = []
    seen: list[Any] = []

    def note(gradient):
        try:
            direction = gradient / gradient.flatten()[0]
            seen.append(tuple(round(v, 6) for v in direction.flatten().tolist()))
        except RuntimeError:  # a batch of gradients at once: that is an exact divergence
            seen.append(None)

    def spy(x, t):
        if len(times) == _FEW_CALLS:
            raise _Enough
        times.append(torch.as_tensor(t).flatten()[0].item())
        s = score(x, t)
        if s.requires_grad:
            s.register_hook(note)
        return s

    with contextlib.suppress(_Enough):
        ask(spy, x)
    # Of a few signs two draws may agree by chance; a probe that is kept agrees throughout.
    return times, len(seen) >= 6 and None not in seen and len(set(seen)) > 0.9 * len(seen)


def _telling_axes(variances, generator) -> Tensor:
    """Random axes along which no wrong sum over the Jacobian comes close to its trace, or to another wrong one."""
    growth = -0.5 * variances.log()
    trace = growth.sum()
    others = trace * torch.tensor([1.0, 1 / 2, 1 / len(variances), 0.0, -1.0], dtype=_DOUBLE)
    while True:
        axes = torch.linalg.qr(standard_normal((len(variances),) * 2, generator=generator, dtype=_DOUBLE)).Q
        if ((axes * growth @ axes.mT).sum() - others).abs().min() > 0.15:
            return axes


def _units_mistaken(name, parts, d, bin_width) -> list[Mistake]:
    right, log_two = parts.log_prob, math.log(2)
    if bin_width is None:
        entries = [
            ("negative", "that is the negative log-density", lambda: -right()),
            ("bits", "it is in bits; nats are asked for", lambda: right() / log_two),
            ("per_dimension", "it is divided by the dimension", lambda: right() / d),
        ]
    else:
        width = math.log(bin_width)
        entries = [
            ("bin_width", "the width of a bin is forgotten, log₂ Δ per dimension", lambda: -right() / (d * log_two)),
            ("bin_width", "log₂ Δ enters with the wrong sign", lambda: (-right() / d + width) / log_two),
            ("bin_width", "log Δ enters once, not once for each dimension", lambda: -(right() + width) / (d * log_two)),
            ("bin_width", "Δ stands in place of its logarithm", lambda: -(right() / d + bin_width) / log_two),
            ("nats", "it is in nats; divide by log 2", lambda: -(right() / d + width)),
            ("total", "it is not divided by the dimension", lambda: -(right() + d * width) / log_two),
            ("negative", "it lacks its minus sign", lambda: (right() / d + width) / log_two),
            ("dequantization", "it is 8 bits off: the offset is that of 256 grey values on [0, 1]",
             lambda: -right() / (d * log_two) + 8),
            ("dequantization", "it is 7 bits off: the offset is that of 256 grey values on [−1, 1]",
             lambda: -right() / (d * log_two) + 7),
        ]  # fmt: skip

    def told(value):
        return {name: value()}

    return [Mistake(key, words, functools.partial(told, value)) for key, words, value in entries]


class _FlowParts:
    r"""The terms of the likelihood for Gaussian data, along the eigenvectors of their covariance.

    With the velocity :math:`f - \kappa\,g^2 s` each coordinate obeys a linear equation
    :math:`\dot x = a_i(t)\,x`, so :math:`x_i(1) = x_i e^{A_i}` and the divergence's integral is :math:`\sum_i A_i`.
    """

    def __init__(self, process, variances, x, axes):
        self.process, self.variances, self.x, self.axes = process, variances, x, axes

    def growth(self, kappa=0.5, drift=1.0, power=2, t_min=1e-3):
        """The integrals ``A_i``, by Gauss and Legendre's rule in pieces, shape ``(d,)``."""
        edges = torch.logspace(math.log10(t_min), 0, 13, dtype=_DOUBLE)
        nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(12))
        width = edges.diff().unsqueeze(1)
        t = (edges[:-1].unsqueeze(1) + 0.5 * width * (1 + nodes)).flatten()
        weight = (0.5 * width * weights).flatten()
        alpha, sigma, g = self.process.alpha(t), self.process.sigma(t), self.process.diffusion(t)
        total = alpha.unsqueeze(1) ** 2 * self.variances + sigma.unsqueeze(1) ** 2
        rate = drift * drift_rate(self.process, t).unsqueeze(1) + kappa * g.unsqueeze(1) ** power / total
        return weight @ rate

    def prior(self, growth):
        return self.process.prior_log_prob(self.x * growth.exp())

    def log_prob(self, **options):
        growth = self.growth(**options)
        return self.prior(growth) + growth.sum()

    def mistakes(self):
        growth, d = self.growth(), len(self.variances)
        matrix = self.axes * growth @ self.axes.mT
        prior = self.prior(growth)
        return [
            ("no_prior", "the prior's term log p₁(x(1)) is missing", lambda: growth.sum().expand(len(self.x))),
            ("no_divergence", "the divergence's integral is missing", lambda: prior),
            ("divergence_sign", "the divergence's integral has the wrong sign", lambda: prior - growth.sum()),
            ("half", "the ½ before g² is missing in the velocity", lambda: self.log_prob(kappa=1.0)),
            ("score_sign", "the score has the wrong sign in the velocity", lambda: self.log_prob(kappa=-0.5)),
            ("no_drift", "the drift f is missing in the velocity", lambda: self.log_prob(drift=0.0)),
            ("diffusion_for_squared", "the velocity has g where it needs g²", lambda: self.log_prob(power=1)),
            (
                "no_constant",
                "the prior's constant −d/2 log 2π is missing",
                lambda: prior + growth.sum() + 0.5 * d * math.log(2 * math.pi),
            ),
            (
                "no_constant",
                "the prior's constant −½ log 2π enters once, not once for each dimension",
                lambda: prior + growth.sum() + 0.5 * (d - 1) * math.log(2 * math.pi),
            ),
            ("prior_at_start", "the prior is taken at x, not at the end x(1) of its path",
             lambda: self.process.prior_log_prob(self.x) + growth.sum()),
            ("unit_projections", "the divergence is divided by the dimension: projections of length 1, or a mean",
             lambda: prior + growth.sum() / d),
            ("all_entries", "all entries of the Jacobian are added up, not its diagonal alone",
             lambda: prior + matrix.sum()),
            ("half_divergence", "the divergence's integral has a ½ too many", lambda: prior + growth.sum() / 2),
        ]  # fmt: skip
