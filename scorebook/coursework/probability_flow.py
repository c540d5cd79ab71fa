r"""Checks of a student's probability flow and of its likelihood.

Both are held against the book's SDEs with random rates, for which a Gaussian mixture has the exact score at any time.
"""

import contextlib
import copy
import dataclasses
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
    continued,
    drift_rate,
    random_mixture,
    random_sde,
    refuse_coupling,
    refuse_loud_noise,
    refuse_other_times,
    rms,
    seeded,
)
from scorebook.coursework.reports import Answer, Mistake, Report, judge, slips, spelt
from scorebook.lab.arguments import positive, standard_normal
from scorebook.lab.types import Integer, Number
from scorebook.sde import SDE, VESDE, SubVPSDE

__all__ = ["check_log_prob", "check_probability_flow"]

_DOUBLE = torch.float64
# Calls of the score after which a solver of adaptive steps has chosen a few of them.
_FEW_CALLS = 40
# Steps of Euler up to which its own error is looked for, and the least time from which a path begins too late.
_COARSE, _LATE = 100, 0.02
# Relative difference of a gradient that the solver of a right likelihood may leave.
_SLOPES = 0.05
# How often a random estimate is asked for: where every point has a probe of its own, and where all share one.
_CALLS = {False: 12, True: 24}


def check_probability_flow(
    velocity: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0
) -> Report:
    r"""Hold the velocity of the probability flow against the truth, for three random SDEs and a random mixture.

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
    student = Student("velocity(sde, score)(t, x)", ("Probability flow", "Where the half comes from"))
    generator = seeded(seed)

    def check():
        n, d = 16, 3
        low, high, more = (1 + torch.rand(3, generator=generator, dtype=torch.float32)).tolist()
        processes = (random_sde(generator), SubVPSDE(low, 4 + 2 * more), VESDE(0.1 * low, 5.0 * high))
        x = 1.5 * standard_normal((n, d), generator=generator, dtype=_DOUBLE)
        law, parts, inputs = random_mixture(d, generator), [], []
        for process in processes:
            times = 0.2 + 0.6 * torch.rand(3, generator=generator, dtype=_DOUBLE)
            field, asked = _field_of(student, velocity, process, process.exact_score(law))
            for t in times:
                asked.clear()
                values = _ask_field(student, field, t, x)
                refuse_other_times(asked, t, process)
                moments = (t, 0 * t, 1 - t, torch.ones_like(t))
                sizes = (*(process.diffusion(s).expand_as(x) for s in moments), process.sigma(t).expand_as(x))
                pulls = (process.drift(x, s) for s in moments[1:])
                parts.append((values, process.drift(x, t), process.exact_score(law)(x, t), *sizes, *pulls))
                inputs.append(f"{process!r}, t = {t.item():.3g}")
        values, f, s, g, *others = (torch.cat(part) for part in zip(*parts, strict=True))
        truth, at = f - 0.5 * g**2 * s, x.repeat(len(parts), 1)

        def formula(drift=f, half=0.5, power=2, turn=1.0, sign=1.0, g=g):
            return {"velocity": sign * (drift - turn * half * g**power * s)}

        entries = [
            ("half", "the ½ before g² is missing: that is the drift of the reverse SDE", {"half": 1.0}),
            ("diffusion_for_squared", "the score is multiplied by ½ g, where ½ g² is needed", {"power": 1}),
            ("diffusion_for_squared", "the score is multiplied by g, where ½ g² is needed", {"power": 1, "half": 1.0}),
            ("no_squared_diffusion", "the score is multiplied by ½, without g²", {"power": 0}),
            ("score_sign", "the score has the wrong sign", {"turn": -1.0}),
            ("time_direction", "the whole velocity has the wrong sign", {"sign": -1.0}),
            ("no_drift", "the drift f is missing", {"drift": 0 * f}),
            ("no_score", "the score is missing", {"half": 0.0, "power": 2, "turn": 1.0}),
            ("drift_sign", "the drift f has the wrong sign", {"drift": -f}),
            ("half_drift", "the ½ stands before the drift as well", {"drift": 0.5 * f}),
            ("double_drift", "the drift f is twice as large as it should be", {"drift": 2 * f}),
            (
                "own_drift",
                "the drift is −g² x/2, which is that of VP alone: take f from the SDE that you are given",
                {"drift": -0.5 * g**2 * at},
            ),
            (
                "own_drift",
                "the drift is −g² x: it is not made of g; take f from the SDE that you are given",
                {"drift": -(g**2) * at},
            ),
            (
                "own_drift",
                "the drift is −g x/2: it is not made of g; take f from the SDE that you are given",
                {"drift": -0.5 * g * at},
            ),
            *(
                ("diffusion_time", f"g is taken at {when}, not at the time t", {"g": value})
                for when, value in zip(("t = 0", "1 − t", "t = 1"), others[:3], strict=True)
            ),
            *(
                ("drift_time", f"the drift f is taken at {when}, not at the time t", {"drift": value})
                for when, value in zip(("t = 0", "1 − t", "t = 1"), others[4:], strict=True)
            ),
            ("quarter", "the ½ is squared along with g", {"half": 0.25}),
            ("sigma_for_diffusion", "σ(t) stands for g(t), the rate at which noise comes", {"g": others[3]}),
        ]
        report = judge(
            "check_probability_flow",
            [
                Answer.exact(
                    "velocity",
                    values,
                    truth,
                    1e-4,
                    where=lambda row: f"x = {spelt(x[row % n])}, {inputs[row // n]}",
                )
            ],
            slips(formula, entries),
            verified="your velocity is that of the probability flow, under all three kinds of SDE",
        )
        if report.mistake is None:
            refuse_coupling(student, lambda part: field(times[-1], part), x, values[-n:], 1e-4 * rms(truth[-n:]))
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
    sde: SDE | None = None,
    differentiable: bool = False,
    tolerance: Number = 0.05,
    seed: Integer = 0,
    time_limit: Number | None = 60.0,
) -> Report:
    r"""Hold the likelihood under the probability flow against the exact one, for correlated Gaussian data.

    .. math:: \log p(x) = \log p_1(x(1)) + \int_{t_{min}}^1 \nabla \cdot v(x(t), t)\,dt

    The flow of a Gaussian is linear, so the path, its divergence and the prior's term are known, for the right code and
    for each wrong one.

    Args:
        f: the student's callable ``f(sde, score, x) -> (B,)``, log-densities in nats; ``sde`` is one of the book's,
            which here answers beside [0, 1] too, where adaptive solvers look; ``score(x, t)``, ``x`` of shape
            ``(B, d)``. With ``bin_width`` it is called as
            ``f(sde, score, x, bin_width)`` and returns bits per dimension. A random estimate of the divergence
            is allowed; a keyword ``generator`` is passed if it is taken.
        bin_width: width of the bins of the data, in the units of ``x``; None for log-densities.
        sde: the SDE of the flow. None for a sub-VP SDE of random rates, whose drift is not
            :math:`-\tfrac12 g^2 x` and whose prior is :math:`N(0, I)`; under a :class:`.VESDE` the prior is another.
        differentiable: whether the log-densities have to carry a gradient to the score's parameters, as training by
            likelihood needs it, along the path and through an exact divergence (``create_graph=True``).
        tolerance: difference allowed beside the noise of an estimate, in nats for the whole point: for the solver, and
            for the least time, which is the student's choice below 0.01.
        seed: of SDE, data and points.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Raises:
        ValueError: if ``bin_width`` or ``tolerance`` is not positive, or ``sde`` is no SDE.

    Source: Song et al. (2021), eq. 39; Theis et al. (2016) for the bits.
    """
    positive("tolerance", tolerance)
    if bin_width is not None:
        positive("bin_width", bin_width)
    if sde is not None and not isinstance(sde, SDE):
        raise ValueError(f"sde must be a scorebook.sde.SDE or None, got {type(sde).__name__}")
    student = Student(
        "f(sde, score, x)" if bin_width is None else "f(sde, score, x, bin_width)",
        ("Probability flow", "The likelihood of a point"),
    )
    generator = seeded(seed)

    def check():
        points, copies = 6, 16
        low = 0.1 + 0.2 * torch.rand((), generator=generator, dtype=torch.float32).item()
        process = continued(_telling_process(low, bin_width) if sde is None else copy.copy(sde))
        variances = torch.tensor([0.05, 0.3, 0.8], dtype=_DOUBLE)
        d, axes = len(variances), _telling_axes(variances, generator)
        x = variances.sqrt() * standard_normal((points, d), generator=generator, dtype=_DOUBLE) @ axes.mT
        extra = () if bin_width is None else (bin_width,)
        rows = x.repeat_interleave(copies, 0)

        def score(x, t, variances=variances):
            t = torch.as_tensor(t, dtype=_DOUBLE)
            spread = process.alpha(t)[..., None] ** 2 * variances + process.sigma(t)[..., None] ** 2
            return (-(x.to(_DOUBLE) @ axes) / spread @ axes.mT).to(x.dtype)

        def ask(score, rows):
            return student.call(f, process, score, rows, *extra, generator=child(generator))

        def measured(score=score):
            return student.tensor(ask(score, rows), (len(rows),), "the log-density").reshape(points, copies)

        _refuse_fresh_probes(ask, score, x)
        spy = _Watched(score)
        draws = [measured(spy), measured()]
        parts = _FlowParts(process, variances, x @ axes, axes)
        scale, shift, name = 1.0, 0.0, "log-density"
        if bin_width is not None:
            scale, shift, name = -1 / (d * math.log(2)), -math.log2(bin_width), "bits per dimension"
        truth = scale * parts.log_prob() + shift
        right = abs(scale) * math.sqrt(2) * parts.growth().norm().item()  # of one Gaussian probe that is kept

        def differ():
            return not all(torch.allclose(draws[0], other, rtol=1e-9, atol=1e-9) for other in draws[1:])

        if not differ() and (draws[0].mean(1) - truth).abs().max() > tolerance * abs(scale):
            draws += [measured() for _ in range(3)]  # of a few signs, two draws may agree by chance
        random = differ()
        if random:
            # Copies that share their probe in a call tell less, so more calls are made.
            first = torch.stack(draws)
            shared = bool(first.std(2).max() < 1e-3 * first.std(0).max())
            draws += [measured() for _ in range(_CALLS[shared] - len(draws))]
        values = torch.stack(draws)
        if random:
            answers = _estimated(name, values, truth, tolerance * abs(scale), right)
        else:
            answers = [Answer(name, values[0].mean(1), truth, 0.0, tolerance * abs(scale))]
        answers[0] = dataclasses.replace(answers[0], where=lambda row: f"x = {spelt(x[row])}")
        formula, entries = parts.mistakes()

        def as_measured(value):
            return {name: value, f"{name}, mean over the points": value.mean()}

        def told(units=lambda v: scale * v + shift, **wrong):
            return as_measured(units(formula(**wrong)))

        probe = spy.probe(process)
        if not random:
            entries = [e for e in entries if not e[0].startswith("uniform") and e[0] != "projections_added"]
        elif probe is not None:  # seen, so nothing else need be the matter with the divergence
            entries = [entry for entry in entries if entry[0] == probe or entry[2].keys().isdisjoint({"of", "weight"})]
        mistakes = slips(told, _units_mistaken(d, bin_width) + entries, slack=0.02)
        # Who leaves nothing of the density may have divided it away: that is no evidence of two omissions.
        mistakes = [mistake for mistake in mistakes if mistake.keys != {"no_prior", "no_divergence"}]
        mistakes += parts.off_the_path(spy.times, lambda value: as_measured(scale * value + shift))
        report = judge("check_log_prob", answers, mistakes, verified=f"your {name} is that of the probability flow")
        if not report.passed and report.mistake is None and not random:
            _refuse_division_by_batch(student, lambda rows: ask(score, rows), x[:1], truth[:1], tolerance * abs(scale))
        if random and report.passed:
            refuse_loud_noise(name, values.permute(1, 0, 2).flatten(1).std(1).mean().item(), right)
        if report.passed and differentiable:
            known = variances.clone().requires_grad_()
            total = scale * _FlowParts(process, known, x @ axes, axes).log_prob().sum()
            told = variances.clone().requires_grad_()
            given = ask(lambda x, t: score(x, t, told), x.clone())
            _refuse_detached(given, told, torch.autograd.grad(total, known)[0])
        return report

    return under_guard("check_log_prob", check, student, time_limit=time_limit)


def _refuse_division_by_batch(student, ask, x, truth, tolerance):
    """Refuse what is right for a point that is alone in its batch, and not beside others."""
    try:
        alone = student.tensor(ask(x.clone()), (1,), "the answer to a single point")
    except Refusal:  # what was judged is the answer to many
        return
    if bool((alone - truth).abs().max() <= tolerance):
        raise Refusal(
            "your answer for a point depends on the other points of its batch: it is right where the point is alone. "
            "Divide by the number of dimensions of a point, not by that of all entries, and take no mean over the "
            "batch",
            "mean_batch",
        )


def _estimated(name, values, truth, tolerance, right) -> list[Answer]:
    """The mean of random estimates, shape ``(calls, points, copies)``, at each point and over them, with its error.

    The flow is linear: an estimate of its divergence varies alike at all points, and they share their error.
    """
    answers = []
    for quantity, groups, expected in (
        (name, values, truth),
        (f"{name}, mean over the points", (values - truth.unsqueeze(1)).flatten(1).unsqueeze(1), truth.mean()),
    ):
        means, copies = groups.mean(2), groups.shape[2]
        variance, spread = groups.permute(1, 0, 2).flatten(1).var(1).mean(), means.var(0).mean().sqrt()
        shared = (copies * spread**2 / variance.clamp(min=1e-24)).clamp(1, copies)
        draws = spread * _unit_draws(len(values))
        limits = Answer.mean_of(
            quantity, draws, 0 * expected, tolerance, right_std=1.5 * right * (shared / copies).sqrt()
        )
        measured = means.mean(0) if quantity == name else means.mean() + expected
        answers.append(dataclasses.replace(limits, measured=measured, expected=expected))
    return answers


def _refuse_detached(given, parameters, right):
    """Refuse log-densities whose gradient in the score's parameters is missing, or lacks a part."""
    gradient = torch.zeros_like(right)
    if given.requires_grad:
        (gradient,) = torch.autograd.grad(given.sum(), parameters, allow_unused=True, materialize_grads=True)
    if rms(gradient - right) > _SLOPES * rms(right):
        raise Refusal(
            "the values are right, but their gradient in the score's parameters is "
            f"{'not' if bool(gradient.any()) else 'missing'}: it is {spelt(gradient)}, and {spelt(right)} would be "
            "right. Path and divergence are differentiated again: pass create_graph=True to autograd.grad, and detach "
            "nothing",
            "detached",
        )


def _unit_draws(n) -> Tensor:
    """Numbers of mean 0 and standard deviation 1."""
    draws = torch.linspace(-1, 1, n, dtype=_DOUBLE)
    return draws / draws.std()


class _Watched:
    """A score that notes when it was asked, and along what it was first differentiated."""

    def __init__(self, score):
        self.score, self.times, self.first = score, [], None

    def __call__(self, x, t):
        self.times.append(torch.as_tensor(t).flatten()[0].item())
        s = self.score(x, t)
        if s.requires_grad and self.first is None:
            s.register_hook(functools.partial(self._note, self.times[-1]))
        return s

    def _note(self, t, gradient):
        if self.first is None:
            self.first = t, gradient.detach()

    def probe(self, process) -> str | None:
        """The wrong law that its first probe had, if there was one and the velocity is right."""
        if self.first is None:
            return None
        t, gradient = self.first
        try:
            probe = -2 * gradient.to(_DOUBLE) / process.diffusion(t) ** 2
            norms = probe.norm(dim=-1)
        except RuntimeError:  # a batch of gradients at once: that is an exact divergence
            return None
        if bool((probe == 0).any()) or bool((probe.abs() > 1.001).any()):
            return None
        if bool((norms - 1).abs().max() < 1e-3):
            return "unit_projections"
        if bool((probe.abs() > 0.999).all()):
            return None
        return "uniform_projections" if bool((probe >= 0).all()) else "uniform_symmetric"


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


def _telling_process(low, bin_width) -> SubVPSDE:
    """An SDE whose drift's divergence is not log Δ for each dimension: who forgets either is told which it was."""
    process = SubVPSDE(low, 8.0)
    drift = 0.25 * (process.beta_min + process.beta_max)  # ½ ∫ β dt
    return process if bin_width is None or abs(abs(math.log(bin_width)) - drift) > 0.4 else SubVPSDE(low, 12.0)


def _telling_axes(variances, generator) -> Tensor:
    """Random axes along which no wrong sum over the Jacobian comes close to its trace, or to another wrong one."""
    growth = -0.5 * variances.log()
    trace = growth.sum()
    others = trace * torch.tensor([1.0, 1 / 2, 1 / 3, 1 / len(variances), 0.0, -1.0], dtype=_DOUBLE)
    while True:
        axes = torch.linalg.qr(standard_normal((len(variances),) * 2, generator=generator, dtype=_DOUBLE)).Q
        if ((axes * growth @ axes.mT).sum() - others).abs().min() > 0.15:
            return axes


def _units_mistaken(d, bin_width) -> list[tuple[str, str, dict[str, Any]]]:
    """What becomes of a log-density in nats, ``v``, by mistakes of units and signs."""
    log_two = math.log(2)
    if bin_width is None:
        return [
            ("negative", "that is the negative log-density", {"units": lambda v: -v}),
            ("bits", "it is in bits; nats are asked for", {"units": lambda v: v / log_two}),
            ("per_dimension", "it is divided by the dimension", {"units": lambda v: v / d}),
        ]
    width = math.log(bin_width)
    return [
        ("bin_width", "the width of a bin is forgotten, log₂ Δ per dimension", {"units": lambda v: -v / (d * log_two)}),
        ("bin_width", "log₂ Δ enters with the wrong sign", {"units": lambda v: (-v / d + width) / log_two}),
        ("bin_width", "log Δ enters once, not once for each dimension",
         {"units": lambda v: -(v + width) / (d * log_two)}),
        ("bin_width", "Δ stands in place of its logarithm", {"units": lambda v: -(v / d + bin_width) / log_two}),
        ("nats", "it is in nats; divide by log 2", {"units": lambda v: -(v / d + width)}),
        ("nats", "the width of a bin enters in nats, by log Δ where log₂ Δ is needed",
         {"units": lambda v: -v / (d * log_two) - width}),
        ("nats", "the density enters in nats, the width of a bin in bits",
         {"units": lambda v: -v / d - width / log_two}),
        ("total", "it is not divided by the dimension", {"units": lambda v: -(v + d * width) / log_two}),
        ("negative", "it lacks its minus sign", {"units": lambda v: (v / d + width) / log_two}),
        ("dequantization", "it is 8 bits off: the offset is that of 256 grey values on [0, 1]",
         {"units": lambda v: -v / (d * log_two) + 8}),
        ("dequantization", "it is 7 bits off: the offset is that of 256 grey values on [−1, 1]",
         {"units": lambda v: -v / (d * log_two) + 7}),
    ]  # fmt: skip


class _FlowParts:
    r"""The terms of the likelihood for Gaussian data, along the eigenvectors of their covariance.

    With the velocity :math:`f - \kappa\,g^2 s` each coordinate obeys a linear equation
    :math:`\dot x = a_i(t)\,x`, so :math:`x_i(1) = x_i e^{A_i}` and the divergence's integral is :math:`\sum_i A_i`.
    """

    def __init__(self, process, variances, x, axes):
        self.process, self.variances, self.x, self.axes = process, variances, x, axes

    def rates(self, t, kappa=0.5, drift=1.0, power=2, own=False):
        """The rates ``a_i`` at times of shape ``(n,)``, shape ``(n, d)``; ``own`` takes -g²/2 for the drift's."""
        alpha, sigma, g = (part.unsqueeze(1) for part in (f(t) for f in (
            self.process.alpha, self.process.sigma, self.process.diffusion)))  # fmt: skip
        pull = -0.5 * g**2 if own else drift_rate(self.process, t).unsqueeze(1)
        return drift * pull + kappa * g**power / (alpha**2 * self.variances + sigma**2)

    def growth(self, t_min=1e-3, **options):
        """The integrals ``A_i``, by Gauss and Legendre's rule in pieces, shape ``(d,)``."""
        edges = torch.logspace(math.log10(t_min), 0, 13, dtype=_DOUBLE)
        nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(12))
        width = edges.diff().unsqueeze(1)
        t = (edges[:-1].unsqueeze(1) + 0.5 * width * (1 + nodes)).flatten()
        return (0.5 * width * weights).flatten() @ self.rates(t, **options)

    def prior(self, growth):
        """Log-density of the prior at the end of the path."""
        return self.process.prior_log_prob(self.x * growth.exp())

    def log_prob(self):
        """The exact log-density."""
        growth = self.growth()
        return self.prior(growth) + growth.sum()

    def mistakes(self):
        """The log-density as a formula of its parts, and what becomes of them by the usual mistakes."""
        d = len(self.variances)
        constant = 0.5 * math.log(2 * math.pi)

        def trace(growth):
            return growth.sum()

        def everything(growth):
            return (self.axes * growth @ self.axes.mT).sum()

        def formula(prior=self.prior, way=1.0, turn=1.0, weight=1.0, of=trace, more=0.0, **velocity):
            growth = way * self.growth(**velocity)
            return prior(growth) + more + turn * weight * of(growth)

        def of_width(std):
            def prior(growth):
                return -0.5 * (self.x * growth.exp() / std).square().sum(1) - d * (constant + math.log(std))

            return prior

        drift_alone, score_alone = self.growth(kappa=0.0).sum(), self.growth(drift=0.0, kappa=-1.0, power=0).sum()
        priors = [] if self.process.prior_std == 1 else [
            ("prior_std", "the prior is taken to be N(0, I): that of this SDE has the standard deviation prior_std",
             {"prior": of_width(1.0)}),
            *(("std_for_variance", f"the prior's {words}", {"prior": of_width(std)}) for words, std in (
                ("standard deviation stands where its variance is needed", self.process.prior_std**0.5),
                ("variance is taken for its standard deviation", self.process.prior_std**2))),
            ("prior_std", "the logarithm of the prior's standard deviation is missing, which enters for each dimension",
             {"more": d * math.log(self.process.prior_std)}),
            ("prior_std", "the logarithm of the prior's standard deviation enters once, not once for each dimension",
             {"more": (d - 1) * math.log(self.process.prior_std)}),
        ]  # fmt: skip
        return formula, [
            *priors,
            ("no_prior", "the prior's term log p₁(x(1)) is missing", {"prior": lambda growth: 0 * self.x[:, 0]}),
            ("no_divergence", "the divergence's integral is missing", {"of": lambda growth: 0.0}),
            ("divergence_sign", "the divergence's integral has the wrong sign", {"turn": -1.0}),
            ("half", "the ½ before g² is missing in the velocity", {"kappa": 1.0}),
            ("score_sign", "the score has the wrong sign in the velocity", {"kappa": -0.5}),
            ("no_drift", "the drift f is missing in the velocity", {"drift": 0.0}),
            (
                "own_drift",
                "the drift is −g² x/2, which is that of VP alone: take f from the SDE that you are given",
                {"own": True},
            ),
            ("diffusion_for_squared", "the velocity has g where it needs g²", {"power": 1}),
            (
                "drift_divergence",
                "the drift f is left out of the divergence: its own is −½ β(t) d",
                {"of": lambda growth: growth.sum() - drift_alone},
            ),
            (
                "score_divergence",
                "the divergence is that of the score alone; it is the velocity f − ½ g² s whose divergence is needed",
                {"of": lambda growth: score_alone},
            ),
            ("backwards", "the path is run from t = 1 down: a point of the data is its other end", {"way": -1.0}),
            (
                "backwards",
                "the path is run from t = 1 down, and the divergence's integral enters with the sign of the way up",
                {"way": -1.0, "turn": -1.0},
            ),
            ("no_constant", "the prior's constant −d/2 log 2π is missing", {"more": d * constant}),
            (
                "no_constant",
                "the prior's constant −½ log 2π enters once, not once for each dimension",
                {"more": (d - 1) * constant},
            ),
            ("prior_at_start", "the prior is taken at x, not at the end x(1) of its path",
             {"prior": lambda growth: self.process.prior_log_prob(self.x)}),
            ("unit_projections", "the divergence is divided by the dimension: projections of length 1, or a mean",
             {"weight": 1 / d}),
            *(("projections_added", f"the answers of {k} probes are added up, where their mean is wanted",
               {"weight": float(k)}) for k in range(2, 11)),
            ("uniform_symmetric", "the probe is uniform on [−1, 1], whose variance is 1/3", {"weight": 1 / 3}),
            ("uniform_projections", "the probe is drawn with rand, uniform on [0, 1], not with randn",
             {"of": lambda growth: growth.sum() / 3 + (everything(growth) - growth.sum()) / 4}),
            ("all_entries", "all entries of the Jacobian are added up, not its diagonal alone", {"of": everything}),
            ("half_divergence", "the divergence's integral has a ½ too many", {"weight": 0.5}),
            ("bits", "the divergence's integral is in bits, the prior in nats", {"weight": 1 / math.log(2)}),
            ("bits", "the prior is in bits, the divergence's integral in nats",
             {"prior": lambda growth: self.prior(growth) / math.log(2)}),
        ]  # fmt: skip

    def off_the_path(self, asked, told) -> list[Mistake]:
        """A path that begins too late, or Euler's own error, where the times at which the score was asked are few."""
        times = sorted({round(t, 9) for t in asked})
        if times and _LATE < times[0] < 1:
            late = self.growth(times[0])
            words = f"the path begins at t = {times[0]:.3g}: the point belongs to t = t_min, close to 0"
            return [Mistake("time_range", words, lambda: told(self.prior(late) + late.sum()), slack=0.02)]
        if not 2 <= len(times) <= _COARSE or not 0 <= times[0] < times[-1] < 1:
            return []
        t = torch.tensor([*times, 1.0], dtype=_DOUBLE)
        steps = t.diff().unsqueeze(1) * self.rates(t[:-1])

        def predict():
            end = self.x * (1 + steps).prod(0)
            return told(self.process.prior_log_prob(end) + steps.sum())

        words = f"{len(times)} steps of Euler are too coarse: take more, or a method of higher order"
        return [Mistake("coarse", words, predict, slack=0.02)]
