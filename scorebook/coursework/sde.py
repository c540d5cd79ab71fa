r"""Checks of an SDE that a student writes, of a step back in its time, and of a whole sampler.

An SDE has to agree with itself,

.. math:: f(x, t) = \frac{\alpha'(t)}{\alpha(t)}\,x, \qquad
          g(t)^2 = \frac{d\sigma^2}{dt} - 2\,\frac{\alpha'(t)}{\alpha(t)}\,\sigma(t)^2 .

A wrong step is a right step with other coefficients: one regression on state and score recovers them, and what remains
is the noise. A sampler shows each of its steps to the score that it asks: the states and times of the calls say what it
started from, what each step did, and what became of the last state.
"""

import functools
import itertools
import math
import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.problems import (
    child,
    drift_rate,
    is_standard,
    refuse_coupled_rows,
    refuse_dependent_noise,
    refuse_other_times,
    rms,
    seeded,
)
from scorebook.coursework.reports import Answer, Mistake, Report, judge, slips, spelt
from scorebook.lab.arguments import as_given, standard_normal
from scorebook.lab.types import Integer, Number
from scorebook.sde import SDE, VESDE, VPSDE, SubVPSDE

__all__ = ["check_reverse_step", "check_sampler", "check_sde"]

_DOUBLE = torch.float64


def check_sde(sde: Any, *, reference: SDE | None = None, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold an SDE against its own perturbation kernel, and against a reference if there is one.

    .. math:: f(x, t) = \frac{\alpha'(t)}{\alpha(t)}\,x, \qquad
              g(t)^2 = \frac{d\sigma^2}{dt} - 2\,\frac{\alpha'(t)}{\alpha(t)}\,\sigma(t)^2

    The derivatives are taken by differences. Without a reference an SDE can only be inconsistent: which of two
    functions is wrong then follows from what the mistakes would do, drift and diffusion being suspected before the
    kernel.

    Args:
        sde: the student's object, with the methods of :class:`scorebook.sde.SDE` that matter: ``alpha(t)``,
            ``sigma(t)``, ``drift(x, t)`` and ``diffusion(t)``, for ``t`` of shape ``(B,)`` in double precision; and, if
            it has it, ``perturb(x0, t, *, generator) -> (x_t, noise)``.
        reference: what it should be, such as ``sde.VPSDE()``.
        seed: of points, times and noise.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Raises:
        ValueError: if ``reference`` is no SDE.

    Source: Särkkä & Solin (2019), eqs. 5.50 and 5.51, for the moments of a linear SDE.
    """
    if reference is not None and not isinstance(reference, SDE):
        raise ValueError(f"reference must be a scorebook.sde.SDE or None, got {type(reference).__name__}")
    student = Student(
        "sde.alpha(t), sde.sigma(t), sde.drift(x, t), sde.diffusion(t)", ("SDEs", "Three ways to add noise")
    )
    generator = seeded(seed)

    def check():
        for method in ("alpha", "sigma", "drift", "diffusion"):
            if not callable(student.call(getattr, sde, method, None)):
                raise Refusal(f"your SDE has no method {method}", "signature")
        # Differences of the fourth order over h: neither their own error nor single precision shows in the answers.
        n, d, h = 16, 3, 1e-2
        t = 0.1 + 0.8 * (torch.arange(n, dtype=_DOUBLE) + torch.rand(n, generator=generator, dtype=_DOUBLE)) / n
        x = standard_normal((n, d), generator=generator, dtype=_DOUBLE)

        def ask(method, *arguments, shape=(n,)):
            result = student.call(getattr(sde, method), *arguments)
            if isinstance(result, numbers.Real) and not isinstance(result, bool):
                result = torch.as_tensor(result, dtype=_DOUBLE)
            if isinstance(result, Tensor) and result.ndim == 0 and shape == (n,):
                result = result.expand(n)
            return student.tensor(result, shape, f"{method}({'x, ' if shape == (n, d) else ''}t)")

        alpha, sigma = ask("alpha", t), ask("sigma", t)
        drift, diffusion = ask("drift", x, t, shape=(n, d)), ask("diffusion", t)
        if bool((sigma <= 0).any()) or bool((alpha == 0).any()):
            raise Refusal("sigma(t) must be positive and alpha(t) must not vanish between t = 0.1 and 0.9", "range")

        def at(row):
            return f"t = {t[row]:.3g}"

        def beside(row):
            return f"x = {spelt(x[row])}, t = {t[row]:.3g}"

        def slope(f):
            return (8 * (f(t + h) - f(t - h)) - f(t + 2 * h) + f(t - 2 * h)) / (12 * h)

        kernel = _Kernel(alpha, sigma, slope(lambda t: ask("alpha", t)), slope(lambda t: ask("sigma", t)))
        answers, mistakes = [], []
        if reference is not None:
            answers += [
                Answer.exact("α(t)", alpha, reference.alpha(t), 1e-4, where=at),
                Answer.exact("σ(t)", sigma, reference.sigma(t), 1e-4, where=at),
                Answer.exact("drift", drift, reference.drift(x, t), 1e-4, where=beside),
                Answer.exact("diffusion", diffusion, reference.diffusion(t), 1e-4, where=at),
            ]
            mistakes += _sdes_differing(reference, x, t)
        else:
            pull = kernel.rate.unsqueeze(1) * x
            size = max(rms(pull), rms(drift), 1.0)
            answers += [
                Answer("drift", drift, pull, 0.0, 1e-4 * size, where=beside),
                Answer.exact("squared diffusion g²", diffusion**2, kernel.diffusion_squared(), 1e-4, where=at),
            ]
            mistakes += _sdes_inconsistent(kernel, x, t, alpha)
        noises = None
        if callable(getattr(sde, "perturb", None)):
            extra, more, noises = _perturbed(student, sde, alpha, sigma, diffusion, t, generator)
            answers += extra
            mistakes += more
        report = judge(
            "check_sde",
            answers,
            mistakes,
            verified="your SDE agrees with its perturbation kernel"
            if reference is None
            else "your SDE is the right one",
        )
        if report.mistake is None and noises is not None:
            refuse_dependent_noise(*noises)
        return report

    return under_guard("check_sde", check, student, time_limit=time_limit)


class _Kernel:
    """What the perturbation kernel says of drift and diffusion."""

    def __init__(self, alpha, sigma, alpha_slope, sigma_slope):
        self.sigma, self.sigma_slope, self.rate = sigma, sigma_slope, alpha_slope / alpha
        self.variance, self.variance_slope = sigma**2, 2 * sigma * sigma_slope

    def diffusion_squared(self, *, rate=1.0, pull=-2.0):
        """The kernel's g², with the logarithmic slope of alpha, or its share in g², multiplied by a factor."""
        return self.variance_slope + pull * rate * self.rate * self.variance


def _sdes_inconsistent(kernel, x, t, alpha) -> list[Mistake]:
    right, pull = kernel.diffusion_squared(), kernel.rate.unsqueeze(1) * x
    # Of B = β(t) t the exponent of alpha is t times the rate, and drift and diffusion hold the true one.
    mean_rate = alpha.abs().log() / t

    def wrong(squared=right, drift=pull):
        return {"drift": drift, "squared diffusion g²": squared}

    entries = [
        ("squared_diffusion", "diffusion(t) returns g², not g", wrong(right**2)),
        ("drift_sign", "the drift has the wrong sign", wrong(drift=-pull)),
        ("half", "the drift lacks its ½", wrong(drift=2 * pull)),
        ("half_drift", "the drift has a ½ too many", wrong(drift=0.5 * pull)),
        ("no_drift", "there is no drift, and yet α(t) changes", wrong(drift=torch.zeros_like(x))),
        # Were alpha(t) squared, or sigma(t) the variance, drift and diffusion would fit the mended kernel.
        (
            "alpha_squared",
            "α(t) lacks the ½ in its exponent, drift and diffusion are right",
            wrong(kernel.diffusion_squared(rate=0.5), 0.5 * pull),
        ),
        (
            "alpha_squared",
            "α(t) has a ½ too many in its exponent, drift and diffusion are right",
            wrong(kernel.diffusion_squared(rate=2.0), 2 * pull),
        ),
        (
            "variance_for_std",
            "σ(t) is the variance, its root is wanted; drift and diffusion are right",
            wrong(kernel.sigma_slope - 2 * kernel.rate * kernel.sigma),
        ),
        (
            "root_of_std",
            "σ(t) has a root too many, drift and diffusion are right",
            wrong(4 * kernel.sigma**3 * kernel.sigma_slope - 2 * kernel.rate * kernel.sigma**4),
        ),
        ("variance_slope", "g² is dσ²/dt, and the term −2 α'/α σ² is missing", wrong(kernel.variance_slope)),
        ("variance_slope", "the term −2 α'/α σ² of g² has the wrong sign", wrong(kernel.diffusion_squared(pull=2.0))),
        ("variance_slope", "the term −2 α'/α σ² of g² lacks its 2", wrong(kernel.diffusion_squared(pull=-1.0))),
        (
            "sigma_for_diffusion",
            "diffusion(t) returns σ(t), the size of the noise; g is the rate at which it comes",
            wrong(kernel.variance),
        ),
        (
            "sigma_slope",
            "g is dσ/dt, the slope of σ; it is the variance whose slope is g², less the drift's share",
            wrong(kernel.sigma_slope**2),
        ),
        ("root_two", "g is a factor √2 too small", wrong(right / 2)),
        ("root_two", "g is a factor √2 too large", wrong(right * 2)),
        ("root_of_diffusion", "diffusion(t) returns √g, not g", wrong(right.abs().sqrt())),
        ("no_diffusion", "there is no noise", wrong(torch.zeros_like(right))),
    ]
    if not torch.allclose(mean_rate, kernel.rate, rtol=1e-3):  # of a constant β that is the integral
        words = (
            "α(t) and σ(t) hold β(t) t, where the integral of β from 0 to t is needed; drift and diffusion are right"
        )
        entries.append(("integral", words, wrong(-2 * mean_rate, mean_rate.unsqueeze(1) * x)))
    for words, squared in (
        ("σ(t) is √(1 − α), where √(1 − α²) is needed; drift and diffusion are right", 1 - alpha),
        ("σ(t) is 1 − α, where √(1 − α²) is needed; drift and diffusion are right", (1 - alpha) ** 2),
    ):
        if torch.allclose(kernel.variance, squared, rtol=1e-3):
            entries.append(("sigma_from_alpha", words, wrong(-2 * kernel.rate)))
    return [Mistake(key, words, functools.partial(dict, value)) for key, words, value in entries]


def _sdes_differing(reference, x, t) -> list[Mistake]:
    alpha, sigma = reference.alpha(t), reference.sigma(t)
    drift, diffusion = reference.drift(x, t), reference.diffusion(t)
    entries = [
        ("squared_diffusion", "that is g², not g", {"diffusion": diffusion**2}),
        ("drift_sign", "its sign is wrong", {"drift": -drift}),
        ("half", "the drift lacks its ½", {"drift": 2 * drift}),
        ("half_drift", "the drift has a ½ too many", {"drift": 0.5 * drift}),
        ("no_drift", "there is no drift", {"drift": torch.zeros_like(x)}),
        ("no_x", "the drift lacks its x: it is the same at all points",
         {"drift": drift_rate(reference, t).unsqueeze(1).expand_as(x)}),
        ("alpha_sign", "the exponent of α(t) has the wrong sign: that is 1/α", {"α(t)": 1 / alpha}),
        ("diffusion_for_sigma", "σ(t) is g(t), the rate at which noise comes; wanted is how much has come",
         {"σ(t)": diffusion}),
        ("alpha_squared", "α(t) lacks the ½ in its exponent: that is α²", {"α(t)": alpha**2}),
        ("alpha_squared", "α(t) has a ½ too many in its exponent: that is √α", {"α(t)": alpha.abs().sqrt()}),
        ("variance_for_std", "that is the variance; σ(t) is its root", {"σ(t)": sigma**2}),
        ("root_of_std", "a root too many", {"σ(t)": sigma.sqrt()}),
        ("sigma_for_diffusion", "that is σ(t); g is the rate at which noise comes", {"diffusion": sigma}),
        ("root_two", "a factor √2 too few", {"diffusion": diffusion / math.sqrt(2)}),
        ("root_two", "a factor √2 too many", {"diffusion": diffusion * math.sqrt(2)}),
        ("root_of_diffusion", "that is √g, not g", {"diffusion": diffusion.sqrt()}),
        ("sigma_from_alpha", "σ(t) is √(1 − α), where √(1 − α²) is needed", {"σ(t)": (1 - alpha).clamp(min=0).sqrt()}),
        ("sigma_from_alpha", "σ(t) is 1 − α, where √(1 − α²) is needed", {"σ(t)": 1 - alpha}),
        ("no_diffusion", "there is no noise", {"diffusion": torch.zeros_like(diffusion)}),
        ("other_sde", "σ(t) and g are those of VP, without the sub",
         {"σ(t)": (1 - alpha**2).clamp(min=0).sqrt(),
          "diffusion": (-2 * drift_rate(reference, t)).clamp(min=0).sqrt()}),
    ]  # fmt: skip
    if isinstance(reference, VPSDE | SubVPSDE):
        wrong = reference.beta(t) * t
        sigma_of = torch.sqrt if isinstance(reference, VPSDE) else torch.ones_like(t).mul
        words = "the integral of β is taken to be β(t) t"
        entries += [
            ("integral", words, {"α(t)": (-wrong / 2).exp(), "σ(t)": sigma_of(-torch.expm1(-wrong))}),
            ("integral", words, {"α(t)": (-wrong / 2).exp()}),
            ("integral", words, {"σ(t)": sigma_of(-torch.expm1(-wrong))}),
        ]
        higher = type(reference)(reference.beta_min, reference.beta_min + reference.beta_max)
        entries.append(
            ("beta_max", "β(t) is β_min + β_max t, and ends at the sum of both; its slope is β_max − β_min",
             {"α(t)": higher.alpha(t), "σ(t)": higher.sigma(t), "drift": higher.drift(x, t),
              "diffusion": higher.diffusion(t)}))  # fmt: skip
    return [Mistake(key, words, functools.partial(dict, value)) for key, words, value in entries]


def _perturbed(student, sde, alpha, sigma, diffusion, t, generator):
    """Hold ``perturb`` against alpha and sigma, and the noise that it reports against the normal law."""
    copies = 256
    points = "perturbed point"
    times = t.repeat_interleave(copies)
    a, s, g = (v.repeat_interleave(copies).unsqueeze(1) for v in (alpha, sigma, diffusion))
    x0 = standard_normal((len(times), 2), generator=generator, dtype=_DOUBLE)

    def perturbed():
        result = student.call(sde.perturb, x0, times, generator=child(generator))
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Refusal("perturb(x0, t) must return a pair, the noisy points and their noise", "shape")
        return [
            student.tensor(part, x0.shape, f"the {what} of perturb(x0, t)")
            for part, what in zip(result, ("first part", "noise"), strict=True)
        ]

    noisy, noise = perturbed()
    n = noise.numel()
    answers = [
        Answer.exact(points, noisy, a * x0 + s * noise, 1e-4),
        Answer("noise's mean", noise.mean(), torch.zeros((), dtype=_DOUBLE), n**-0.5, 1e-6),
        Answer("noise's standard deviation", noise.std(), torch.ones((), dtype=_DOUBLE), (2 * n) ** -0.5, 1e-6),
    ]
    entries = [
        ("variance_for_std", "perturb multiplies the noise by the variance", {points: a * x0 + s**2 * noise}),
        ("root_of_std", "perturb multiplies the noise by the root of σ", {points: a * x0 + s.sqrt() * noise}),
        ("no_alpha", "perturb forgets to multiply the clean points by α(t)", {points: x0 + s * noise}),
        ("no_sigma", "perturb forgets to multiply the noise by σ(t)", {points: a * x0 + noise}),
        ("diffusion_for_sigma", "perturb multiplies the noise by g(t), the rate at which it comes, not by σ(t)",
         {points: a * x0 + g * noise}),
        ("alpha_squared", "perturb multiplies the clean points by α²", {points: a**2 * x0 + s * noise}),
        ("alpha_squared", "perturb multiplies the clean points by √α", {points: a.abs().sqrt() * x0 + s * noise}),
        (
            "uniform_noise",
            "the noise is drawn with rand, uniform on [0, 1], not with randn",
            {"noise's mean": 0.5, "noise's standard deviation": 12**-0.5},
        ),
    ]  # fmt: skip
    # Two mistakes leave the points right and show in the noise that is returned with them.
    added = (noisy - a * x0) / s
    if is_standard(added):
        if is_standard(noise):
            if torch.corrcoef(torch.stack([added.flatten(), noise.flatten()]))[0, 1].abs() < 0.5:
                entries.append(("fresh_noise", "perturb returns other noise than it added", {points: noisy}))
        else:
            law = {"noise's mean": noise.mean(), "noise's standard deviation": noise.std()}
            scaled = {points: a * x0 + noise} | law
            entries.append(("scaled_noise", "perturb returns σ z; the noise z itself is wanted", scaled))
    mistakes = [Mistake(key, words, functools.partial(dict, value)) for key, words, value in entries]
    return answers, mistakes, (noise, perturbed()[1])


def check_reverse_step(step: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold one step of the reverse-time SDE against its known law.

    .. math:: x_{t + \Delta t} = x_t + \left[f(x_t, t) - g(t)^2\, s(x_t, t)\right] \Delta t
              + g(t) \sqrt{|\Delta t|}\; z, \qquad \Delta t < 0

    It is taken under all three kinds of SDE. Regression of the step on :math:`x` and :math:`s` gives the coefficients
    of drift and score, what remains is the noise.

    Args:
        step: the student's callable ``step(sde, score, x, t, dt, *, generator) -> tensor like x``: the state at
            ``t + dt``. ``sde`` is one of the book's, ``score(x, t) -> tensor like x``, ``x`` of shape ``(B, d)``, ``t``
            and ``dt`` scalar tensors with ``dt < 0``. It may do without ``generator``.
        seed: of SDE, states, time and noise.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Song et al. (2021), eq. 6; Maruyama (1955).
    """
    student = Student("step(sde, score, x, t, dt, generator=generator)", ("SDEs", "Time in reverse"))
    generator = seeded(seed)

    def check():
        steps = [_Step(student, step, kind, generator) for kind in ("VP", "sub-VP", "VE")]
        refuse_coupled_rows(steps[0].run, steps[0].x[:32], generator)
        answers = _measured(steps)
        mistakes = slips(*_steps_mistaken(steps))
        report = judge(
            "check_reverse_step",
            answers,
            mistakes,
            verified="drift, score and noise of your step are right, under all three kinds of SDE",
        )
        # Where nothing drifts, as under VE, a step that begins with the drift has not moved the state.
        if not report.passed and report.mistake is None and any(one.moved_first for one in steps):
            raise Refusal(
                "the score is asked at a state that has been moved already: drift, score and noise of a step all "
                "belong to the state x from which it starts",
                "order",
            )
        if report.mistake is None:
            for one in steps:
                one.refuse_dependent_noise(exact=answers[0].holds and answers[1].holds)
        return report

    return under_guard("check_reverse_step", check, student, time_limit=time_limit)


class _Increment:
    """What becomes of states in one step under one SDE, and what a regression on state and score tells of it."""

    def __init__(self, process, t, dt, x, s, new):
        self.process, self.t, self.dt, self.x, self.s, self.new = process, t, dt, x, s, new
        self.g, self.rate = process.diffusion(t), drift_rate(process, t.reshape(1))[0]
        self.size = self.g * dt.abs().sqrt()
        # In units of what they should be; where there is no drift, of the pull that goes with g under VP.
        self.pull = self.rate if self.rate != 0 else -0.5 * self.g**2
        self.regress()

    def __str__(self):
        return f"{self.process!r}, t = {spelt(self.t)}, dt = {spelt(self.dt)}"

    def regress(self):
        """Coefficients of state and score and the mean of the rest, with their errors; the rest, and its spread."""
        change = self.new - self.x
        n = change.numel()
        columns = torch.stack(
            [
                self.pull * self.dt * self.x.flatten(),
                -(self.g**2) * self.dt * self.s.flatten(),
                self.size * torch.ones(n, dtype=_DOUBLE),
            ],
            1,
        )
        gram = torch.linalg.inv(columns.mT @ columns)
        self.coefficients = gram @ (columns.mT @ change.flatten())
        self.rest = change - (columns @ self.coefficients).reshape(change.shape)
        spread = (self.rest.square().sum() / (n - 3)).sqrt()
        self.spread = spread if spread > 1e-4 * self.size else 0 * spread  # rounding is no noise
        self.errors, self.right_errors = (std * gram.diagonal().sqrt() for std in (self.spread, self.size))


class _Step(_Increment):
    """One step of the student under one SDE."""

    def __init__(self, student, step, kind, generator):
        n, d = 2048, 8
        self.student, self.step, self.generator = student, step, generator
        self.process, self.t, self.dt = _telling_step(kind, generator)
        x = 12.0 * standard_normal((n, d), generator=generator, dtype=_DOUBLE)
        self.phase = 6.0 * torch.rand(d, generator=generator, dtype=_DOUBLE)
        self.asked, self.states = [], []
        new = self.run(x, child(generator))
        refuse_other_times(self.asked, self.t, self.process, dt=self.dt)
        self.moved_first = bool(self.states) and all(
            s.shape == x.shape and not torch.allclose(s, x, rtol=1e-3) for s in self.states
        )
        super().__init__(self.process, self.t, self.dt, x, self.score(x, self.t), new)

    def score(self, x, t):
        """A score that no multiple of the state comes near."""
        self.asked.append(t)
        self.states.append(x.detach().to(_DOUBLE))
        return 12.0 * torch.sin(2.0 * x + self.phase)

    def run(self, x, source):
        """The student's next states."""
        result = self.student.call(
            self.step, self.process, self.score, x.clone(), self.t.clone(), self.dt.clone(), generator=source
        )
        return self.student.tensor(result, x.shape, "what your step returns")

    def refuse_dependent_noise(self, *, exact):
        """Refuse noise that is not drawn anew; ``exact`` says that drift and score are right."""
        again, turned = self.run(self.x, child(self.generator)), None
        if exact:
            drift = self.process.drift(self.x, self.t) - self.g**2 * self.score(self.x, self.t)
            expected = self.x + drift * self.dt
        else:  # what remains may hold more than noise
            expected = self.new - self.rest
            turned = (self.run(self.x.flip(0), child(self.generator)).flip(0) - expected) / self.size
        refuse_dependent_noise((self.new - expected) / self.size, (again - expected) / self.size, turned)


def _telling_step(kind, generator) -> tuple[SDE, Tensor, Tensor]:
    """A random SDE, time and step for which no two mistakes make noise of nearly the same size."""
    while True:
        low, high, start, length = torch.rand(4, generator=generator, dtype=_DOUBLE).tolist()
        process: SDE = {
            "VP": VPSDE(0.5 + 0.5 * low, 14 + 4 * high),
            "sub-VP": SubVPSDE(0.5 + 0.5 * low, 3 + 2 * high),
            "VE": VESDE(0.1 + 0.1 * low, 5 + 5 * high),
        }[kind]
        t, dt = (torch.tensor(v, dtype=_DOUBLE) for v in (0.55 + 0.2 * start, -0.03 - 0.02 * length))
        g, h = process.diffusion(t), dt.abs()
        root = h.sqrt()
        others = (g**2 * root, g.sqrt() * root, root, torch.ones_like(g))
        sizes = torch.stack([g * root, g, g * h, *others, math.sqrt(2) * g * root])
        if sizes.log().sort().values.diff().min() > 0.08:
            return process, t, dt


def _measured(steps) -> list[Answer]:
    """Coefficients and moments of the noise, one number for each SDE."""

    def each(value):
        return torch.stack([torch.as_tensor(value(one), dtype=_DOUBLE) for one in steps])

    def where(row):
        return str(steps[row])

    n = steps[0].x.numel()
    ones = torch.ones(len(steps), dtype=_DOUBLE)
    moved = each(lambda one: one.rate != 0)
    names = ["coefficient of the drift f", "coefficient of the score −g² s", "noise's mean"]
    answers = [
        Answer(
            name,
            each(lambda one, k=k: one.coefficients[k]),
            truth,
            each(lambda one, k=k: one.errors[k]),
            1e-5,
            each(lambda one, k=k: one.right_errors[k]),
            where,
        )
        for k, (name, truth) in enumerate(zip(names, (moved, ones, 0 * ones), strict=True))
    ]
    spread = each(lambda one: one.spread / one.size)
    root = math.sqrt(2 * n)
    answers.append(Answer("noise's standard deviation", spread, ones, spread / root, 1e-4, ones / root, where))
    if bool((spread > 0).all()):
        fourth = each(lambda one: ((one.rest / one.spread) ** 4).mean())
        answers.append(Answer("noise's fourth moment", fourth, 3 * ones, math.sqrt(96 / n), 1e-3, where=where))
    return answers


def _steps_mistaken(steps) -> tuple[Callable[..., dict[str, Any]], list[tuple[str, str, dict[str, Any]]]]:
    """What is measured of steps as a formula of their parts, and the parts as the usual mistakes have them."""

    def each(value):
        return torch.stack([torch.as_tensor(value(one), dtype=_DOUBLE) for one in steps])

    g, h, dt = each(lambda one: one.g), each(lambda one: one.dt.abs()), each(lambda one: one.dt)
    sigma = each(lambda one: one.process.sigma(one.t))
    moved, root = each(lambda one: one.rate != 0), h.sqrt()
    late = each(lambda one: one.process.diffusion(one.t + one.dt)) / g
    late_drift = each(lambda one: drift_rate(one.process, (one.t + one.dt).reshape(1))[0]) / each(lambda one: one.pull)
    own = -0.5 * g**2 / each(lambda one: one.pull)
    standard, uniform, symmetric = (0.0, 1.0, 3.0), (0.5, 12**-0.5, 1.8), (0.0, 3**-0.5, 1.8)

    def formula(drift=moved, score=1.0, turn=1.0, noise=1.0, law=standard):
        def all_three(value):
            return torch.as_tensor(value, dtype=_DOUBLE) * torch.ones_like(g)

        return {
            "coefficient of the drift f": all_three(turn * drift),
            "coefficient of the score −g² s": all_three(turn * score),
            "noise's mean": all_three(noise * law[0]),
            "noise's standard deviation": all_three(noise * law[1]),
            "noise's fourth moment": all_three(law[2]),
        }

    return formula, [
        ("no_root_dt", "the noise lacks its √dt", {"noise": 1 / root}),
        ("dt_for_root", "the noise is multiplied by dt, where √dt is needed", {"noise": root}),
        ("squared_diffusion", "the noise is multiplied by g², where g is needed", {"noise": g}),
        ("root_of_diffusion", "g stands beneath the root: √(g |dt|) z, where g √|dt| z is needed",
         {"noise": 1 / g.sqrt()}),
        ("sigma_for_diffusion", "σ(t) stands for g(t), in the score's coefficient and before the noise",
         {"score": (sigma / g) ** 2, "noise": sigma / g}),
        ("sigma_for_diffusion", "the score is multiplied by σ², where g² is needed", {"score": (sigma / g) ** 2}),
        ("sigma_for_diffusion", "the noise is multiplied by σ(t), where g(t) is needed", {"noise": sigma / g}),
        ("no_diffusion", "the noise lacks its g", {"noise": 1 / g}),
        ("no_scale", "the noise is z, without g √dt", {"noise": 1 / (g * root)}),
        ("root_two", "the noise is √2 times too large", {"noise": math.sqrt(2)}),
        ("no_noise", "there is no noise: half of g² with no noise would be the flow, this is neither", {"noise": 0.0}),
        (
            "flow",
            "the score has half of its coefficient and there is no noise: that is the flow",
            {"score": 0.5, "noise": 0.0},
        ),
        ("half_score", "the score has the ½ of the probability flow; the reverse SDE has the whole g²", {"score": 0.5}),
        ("diffusion_for_squared", "the score is multiplied by g, where g² is needed", {"score": 1 / g}),
        ("no_squared_diffusion", "the score is not multiplied by g²", {"score": 1 / g**2}),
        ("score_sign", "the score has the wrong sign", {"score": -1.0}),
        ("drift_sign", "the drift f has the wrong sign", {"drift": -moved}),
        ("no_drift", "the drift f is missing", {"drift": 0 * moved}),
        ("half_drift", "the drift f has a ½ too many", {"drift": 0.5 * moved}),
        ("double_drift", "the drift f is twice as large as it should be", {"drift": 2 * moved}),
        (
            "own_drift",
            "the drift is −g² x/2, which is that of VP alone: take f from the SDE that you are given",
            {"drift": own},
        ),
        ("own_drift", "the drift is −g x/2: it is not made of g; take f from the SDE that you are given",
         {"drift": own / g}),
        ("own_drift", "the drift is −g² x: it is not made of g; take f from the SDE that you are given",
         {"drift": 2 * own}),
        ("no_score", "the score is missing: that is the forward SDE run backwards", {"score": 0.0}),
        ("time_direction", "the sign of dt is wrong: the step goes away from the data", {"turn": -1.0}),
        (
            "forward",
            "that is a step of the forward SDE, in positive time and without the score",
            {"turn": -1.0, "score": 0.0},
        ),
        ("time_reached", "drift and diffusion are taken at t + dt, not at t",
         {"drift": late_drift * moved, "score": late**2, "noise": late}),
        ("time_reached", "the diffusion of the noise is taken at t + dt, not at t", {"noise": late}),
        ("uniform_noise", "the noise is drawn with rand, uniform on [0, 1], not with randn", {"law": uniform}),
        ("uniform_noise", "the noise is uniform on [−1, 1], not normal", {"law": symmetric}),
        ("no_step", "drift and score are not multiplied by dt", {"drift": moved / dt, "score": 1 / dt}),
        ("no_step", "drift and score are not multiplied by dt", {"drift": moved / h, "score": 1 / h}),
        ("no_change", "the state does not change", {"drift": 0 * moved, "score": 0.0, "noise": 0.0}),
    ]  # fmt: skip


def check_sampler(sampler: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold a whole sampler of the reverse-time SDE against what it has to do, from the prior to the last state.

    .. math:: x \sim N(0, \sigma_1^2 I), \qquad
              x \leftarrow x + \left[f(x, t_k) - g(t_k)^2\, s(x, t_k)\right] \Delta t
              + g(t_k) \sqrt{|\Delta t|}\; z_k, \qquad
              \hat x_0 = \frac{x + \sigma(t_{min})^2\, s(x, t_{min})}{\alpha(t_{min})}

    on equal steps from 1 down to ``t_min``. The score is asked once in each step, for all samples at once, and once for
    the denoising at the end, which adds no noise: ``n_steps + 1`` calls. It notes the states and times at which it is
    asked, under all three kinds of SDE, each with another number of steps.

    Args:
        sampler: the student's callable ``sampler(sde, score, shape, *, n_steps, t_min, generator) -> tensor`` of that
            shape. ``sde`` is one of the book's, with its ``prior_std``; ``score(x, t) -> tensor like x``, ``shape`` is
            ``(B, d)``. It may do without ``generator``.
        seed: of SDEs, least time and noise.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Song et al. (2021), eq. 6 and appendix D; Jolicoeur-Martineau et al. (2021) for the denoising.
    """
    student = Student("sampler(sde, score, shape, n_steps=..., t_min=..., generator=generator)", ("SDEs", "Sampling"))
    generator = seeded(seed)

    def check():
        kinds = ("VP", "sub-VP", "VE")
        runs = [_Run(student, sampler, kind, k, generator) for kind, k in zip(kinds, (4, 3, 5), strict=True)]
        _refuse_fixed_steps(runs)
        for run in runs:
            run.refuse_other_calls()
            run.refuse_a_start_at_zero()
        rows = 64
        refuse_coupled_rows(
            lambda offset, source: runs[0].sampled(source, offset),
            torch.ones(rows, runs[0].shape[1]).double(),
            generator,
        )
        steps = [step for run in runs for step in run.steps()]
        ends = [_End(run) for run in runs]
        answers = _started(runs) + _measured(steps) + _ended(ends)
        report = judge(
            "check_sampler",
            answers,
            _samplers_mistaken(runs, steps, ends),
            verified="start, steps and end of your sampler are right, under all three kinds of SDE",
        )
        if report.mistake is None:
            for run in runs:
                run.refuse_dependent_noise(steps)
        return report

    return under_guard("check_sampler", check, student, time_limit=time_limit)


class _Run:
    """A run of a student's sampler under one SDE: the states and times at which it asked for the score."""

    _KEPT = 64

    def __init__(self, student, sampler, kind, n_steps, generator):
        self.student, self.sampler, self.n_steps, self.generator = student, sampler, n_steps, generator
        low, high, last = torch.rand(3, generator=generator, dtype=_DOUBLE).tolist()
        self.process: SDE = {
            "VP": VPSDE(0.5 + 0.5 * low, 14 + 4 * high),
            "sub-VP": SubVPSDE(0.5 + 0.5 * low, 14 + 4 * high),
            "VE": VESDE(0.2 + 0.1 * low, 3 + 2 * high),
        }[kind]
        self.t_min = 0.2 + 0.15 * last
        self.due = torch.linspace(1, self.t_min, n_steps + 1, dtype=_DOUBLE)
        self.shape = (2048, 8)
        self.phase = 6.0 * torch.rand(self.shape[1], generator=generator, dtype=_DOUBLE)
        self.states, self.times = [], []
        self.end = self.sampled(child(generator), self.phase.expand(self.shape), note=True)

    def __str__(self):
        return f"{self.process!r}, n_steps = {self.n_steps}, t_min = {self.t_min:.3g}"

    def sampled(self, source, phase, *, note=False):
        """The student's samples, under a score with a phase for each row."""
        shape = tuple(phase.shape)

        def score(x, t):
            if tuple(x.shape) != shape:
                raise Refusal(
                    f"the score is asked for points of shape {tuple(x.shape)}: ask it for all samples at once, {shape}",
                    "calls",
                )
            if note:
                self._note(x, t)
            return (4.0 * torch.sin(2.0 * x.to(_DOUBLE) + phase)).to(x.dtype)

        result = self.student.call(
            self.sampler,
            self.process,
            score,
            shape,
            n_steps=self.n_steps,
            t_min=self.t_min,
            generator=source,
        )
        return self.student.tensor(result, shape, "what your sampler returns")

    def _note(self, x, t):
        times = as_given(t, _DOUBLE).flatten()
        if bool((times != times[0]).any()):
            raise Refusal("the score is asked at several times at once: all samples are at the same time", "wrong_time")
        if len(self.times) < self._KEPT:
            self.states.append(self.student.tensor(x, self.shape, "a state for which the score is asked"))
        self.times.append(times[0].item())

    def score(self, k):
        """The score as it was given in a call."""
        return 4.0 * torch.sin(2.0 * self.states[k] + self.phase)

    def steps(self) -> list[_Increment]:
        """The steps from one call to the next, at the times at which they should be made."""
        return [
            _Increment(self.process, t, later - t, self.states[k], self.score(k), self.states[k + 1])
            for k, (t, later) in enumerate(itertools.pairwise(self.due))
        ]

    def refuse_other_calls(self):
        """Refuse a sampler that asks for the score more or less often than it should, or at other times."""
        asked = torch.tensor(self.times, dtype=_DOUBLE)
        if _same_times(asked, self.due):
            return
        words, key = self._named(asked)
        numbers = len(asked), len(self.due)
        calls = "" if numbers[0] == numbers[1] else f" in {numbers[0]} calls"
        right = "" if numbers[0] == numbers[1] else f" in {numbers[1]} calls"
        raise Refusal(
            f"{words}. Under {self} the score is asked at t = {_listed(asked)}{calls}, and {_listed(self.due)}{right} "
            "would be right",
            key,
        )

    def refuse_a_start_at_zero(self):
        """Refuse a sampler whose first states are all 0, on which no regression is possible."""
        if not self.states[0].any():
            raise Refusal(
                f"all samples start at 0 under {self}, where noise of standard deviation {self.process.prior_std:.3g} "
                "would be right",
                "no_prior",
            )

    def _named(self, asked) -> tuple[str, str]:
        n, due = self.n_steps, self.due
        if len(asked) == 0:
            return "the score is never asked", "no_score"
        if _same_times(asked, due[:-1]):
            if _End(self).is_denoised():
                return "the last step is missing: the state before it is denoised, at its own time", "no_last_step"
            return "the denoising at the end is missing, with its call of the score at t_min", "no_denoising"
        if _same_times(asked, torch.cat([due[:-2], due[-1:]])):
            return "the last step is missing: the state before it is denoised as if it were at t_min", "no_last_step"
        up = due.flip(0)
        if any(_same_times(asked, times) for times in (up, up[:-1], up[1:], torch.cat([up[:-1], due[-1:]]))):
            return "the grid has the wrong direction: it goes from the data up to the noise", "grid_direction"

        def grids(points, last):
            grid = torch.linspace(1, last, points, dtype=_DOUBLE)
            return (grid, grid[:-1], torch.cat([grid[:-1], due[-1:]]))

        number = torch.arange(n + 1, dtype=_DOUBLE)
        known: list[tuple[str, str, list[Tensor]]] = [
            ("the grid has n_steps points, and so one step too few", "step_missing", [*grids(n, self.t_min)]),
            ("there is one step too many", "extra_step", [*grids(n + 2, self.t_min)]),
            (
                "t_min is ignored",
                "t_min_ignored",
                [g for last in (0.0, 1e-3, 1e-5, 1e-2, 1e-4) for g in grids(n + 1, last)]
                + [1 - number[:-1] / n],
            ),
            (
                "the score is asked at the time which the step reaches, t + dt, not at that from which it starts",
                "time_reached",
                [torch.cat([due[1:], due[-1:]]), due[1:]],
            ),
            (
                "the score is asked in the middle of each step, not at the time from which it starts",
                "wrong_time",
                [torch.cat([(due[1:] + due[:-1]) / 2, due[-1:]]), (due[1:] + due[:-1]) / 2],
            ),
            (
                "the score is asked at σ(t), where the time t is wanted",
                "noise_scale",
                self._ends(self.process.sigma(due)),
            ),
            ("the score is asked at 1 − t, where the time t is wanted", "wrong_time", self._ends(1 - due)),
            (
                "the score is asked at the number of the step, where the time t is wanted",
                "wrong_time",
                self._ends(number) + self._ends(number.flip(0)),
            ),
            (
                "the score is asked at the same time in all steps",
                "wrong_time",
                self._ends(torch.full_like(due, asked[0])),
            ),
            (
                "the score is asked twice in each step: ask once and keep it",
                "double_calls",
                [torch.cat([due[:-1].repeat_interleave(2), due[-1:]]), due.repeat_interleave(2)],
            ),
            ("the score is asked once more at the end", "extra_call", [torch.cat([due, due[-1:]])]),
            ("the score is asked once more at the start", "extra_call", [torch.cat([due[:1], due])]),
            (
                "the score is asked once more, at time 0",
                "extra_call",
                [torch.cat([due, torch.zeros(1, dtype=_DOUBLE)])],
            ),
        ]  # fmt: skip
        for words, key, grids_of in known:
            if any(_same_times(asked, times) for times in grids_of):
                return words, key
        if len(asked) != len(due):
            return f"the score is asked {len(asked)} times, where n_steps + 1 = {len(due)} is right", "calls"
        ends = abs(asked[0] - 1) < 1e-4 and abs(asked[-1] - self.t_min) < 1e-4
        if ends and bool((asked.diff() < 0).all()):
            return "the steps are not equal", "wrong_spacing"
        return "the score is asked at other times than those of the grid", "wrong_time"

    def _ends(self, times):
        """Times that are wrong throughout, or everywhere but in the last call."""
        return [times, torch.cat([times[:-1], self.due[-1:]]), times[:-1]]

    def refuse_dependent_noise(self, steps):
        """Refuse a start or noise that is not drawn anew for each run, sample, coordinate and step."""
        first = self.states[0] / self.process.prior_std
        mine = [step for step in steps if step.process is self.process]
        kept, (self.states, self.times) = self.states, ([], [])
        self.sampled(child(self.generator), self.phase.expand(self.shape), note=True)
        again, self.states = self.states[0] / self.process.prior_std, kept
        refuse_dependent_noise(first, again)
        noises = [first, *(step.rest / step.size for step in mine)]
        for step, noise in zip(mine, noises[1:], strict=True):
            drift = step.process.drift(step.x, step.t) - step.g**2 * step.s
            exact = (step.new - step.x - drift * step.dt) / step.size
            if step.spread > 0 and exact.std(0).max() < 1e-2:
                raise Refusal(
                    f"all points of the batch get the same noise, in the step at {step}: draw it in the shape of x",
                    "shared_noise",
                )
            refuse_dependent_noise(noise)
        for k, (one, other) in enumerate(itertools.pairwise(noises)):
            if other.std() > 0 and torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].abs() > 0.3:
                where = "of the start" if k == 0 else f"of step {k}"
                raise Refusal(
                    f"the noise {where} comes again in step {k + 1}, under {self}: draw it anew in each step",
                    "same_noise",
                )


def _refuse_fixed_steps(runs):
    counts = {len(run.times) for run in runs}
    if len(counts) == 1 and counts != {0}:
        (count,) = counts
        asked = ", ".join(str(run.n_steps) for run in runs)
        raise Refusal(
            f"n_steps is ignored: the score is asked {count} times, whether n_steps is {asked}; n_steps + 1 calls "
            "would be right",
            "fixed_steps",
        )


def _same_times(one, other) -> bool:
    return one.shape == other.shape and bool(((one - other).abs() < 1e-4 * other.abs().clamp(min=0.1)).all())


def _listed(times) -> str:
    numbers = [f"{t:.3g}" for t in times[:8].tolist()]
    return ", ".join(numbers) + (", …" if len(times) > 8 else "")


class _End:
    """What a sampler makes of its last state: the coefficients of state and score, and the noise that is left."""

    def __init__(self, run):
        k = len(run.states) - 1
        self.run, self.t = run, torch.tensor(run.times[k], dtype=_DOUBLE).clamp(0, 1)
        self.alpha, self.sigma = run.process.alpha(self.t), run.process.sigma(self.t)
        columns = torch.stack(
            [
                run.states[k].flatten() / self.alpha,
                self.sigma**2 / self.alpha * run.score(k).flatten(),
                torch.ones(run.end.numel(), dtype=_DOUBLE),
            ],
            1,
        )
        gram = torch.linalg.inv(columns.mT @ columns)
        self.coefficients = gram @ (columns.mT @ run.end.flatten())
        spread = (run.end.flatten() - columns @ self.coefficients).std()
        self.noise, self.errors = spread / self.sigma, spread * gram.diagonal().sqrt()

    def is_denoised(self) -> bool:
        """Whether it is the denoised state at the time of the last call."""
        return bool((self.coefficients[:2] - 1).abs().max() < 1e-2 and self.noise < 1e-2)


def _started(runs) -> list[Answer]:
    starts = torch.stack([run.states[0] / run.process.prior_std for run in runs])
    n, ones = starts[0].numel(), torch.ones(len(runs), dtype=_DOUBLE)

    def where(row):
        return f"the start under {runs[row].process!r}, in units of its prior_std,"

    std = starts.flatten(1).std(1)
    answers = [
        Answer("start's mean", starts.flatten(1).mean(1), 0 * ones, std / n**0.5, 1e-6, ones / n**0.5, where),
        Answer("start's standard deviation", std, ones, std / (2 * n) ** 0.5, 1e-6, ones / (2 * n) ** 0.5, where),
    ]
    if bool((std > 0).all()):
        flat = starts.flatten(1)
        fourth = (((flat - flat.mean(1, keepdim=True)) / std[:, None]) ** 4).mean(1)
        answers.append(Answer("start's fourth moment", fourth, 3 * ones, math.sqrt(96 / n), 1e-3, where=where))
    return answers


def _ended(ends) -> list[Answer]:
    ones = torch.ones(len(ends), dtype=_DOUBLE)

    def where(row):
        return f"the end under {ends[row].run}"

    values, errors = (torch.stack([getattr(end, name) for end in ends]) for name in ("coefficients", "errors"))
    noise = torch.stack([end.noise for end in ends])
    return [
        Answer("coefficient of x/α at the end", values[:, 0], ones, errors[:, 0], 1e-3, where=where),
        Answer("coefficient of σ² s/α at the end", values[:, 1], ones, errors[:, 1], 5e-3, where=where),
        Answer("noise at the end, over σ", noise, 0 * ones, 0.0, 5e-3, where=where),
    ]


def _samplers_mistaken(runs, steps, ends) -> list[Mistake]:
    of_steps, wrong_steps = _steps_mistaken(steps)

    def each(value, things):
        return torch.stack([torch.as_tensor(value(one), dtype=_DOUBLE) for one in things])

    def every(value):
        return torch.as_tensor(value, dtype=_DOUBLE) * torch.ones(len(runs), dtype=_DOUBLE)

    prior = each(lambda run: run.process.prior_std, runs)
    data = each(lambda run: run.process.sigma(0.0), runs)
    alpha, sigma = each(lambda end: end.alpha, ends), each(lambda end: end.sigma, ends)
    found = each(lambda end: end.noise, ends)
    t = each(lambda end: end.t, ends)
    g = each(lambda end: end.run.process.diffusion(end.t), ends)
    rate = each(lambda end: drift_rate(end.run.process, end.t.reshape(1))[0], ends)
    standard, uniform, symmetric = (0.0, 1.0, 3.0), (0.5, 12**-0.5, 1.8), (0.0, 3**-0.5, 1.8)
    last = torch.tensor([0.0 if k == run.n_steps - 1 else 1.0 for run in runs for k in range(run.n_steps)]).double()

    def formula(start=1.0, start_law=standard, state=1.0, tweedie=1.0, left=0.0, **parts):
        return of_steps(**parts) | {
            "start's mean": every(start * start_law[0]),
            "start's standard deviation": every(start * start_law[1]),
            "start's fourth moment": every(start_law[2]),
            "coefficient of x/α at the end": every(state),
            "coefficient of σ² s/α at the end": every(tweedie),
            "noise at the end, over σ": every(left),
        }

    step = {"state": alpha * (1 - rate * t), "tweedie": alpha * g**2 * t / sigma**2}
    entries: list[tuple[str, str, dict[str, Any]]] = [
        ("prior_std", "it starts from N(0, I), not with the standard deviation of the prior", {"start": 1 / prior}),
        ("prior_std", "the start is multiplied by the prior's variance, not its standard deviation", {"start": prior}),
        ("prior_std", "it starts with the root of the prior's standard deviation", {"start": prior**-0.5}),
        ("prior_std", "it starts with σ(t_min), not with the prior's standard deviation", {"start": sigma / prior}),
        ("prior_std", "it starts with σ(0), not with the standard deviation of the prior", {"start": data / prior}),
        ("uniform_noise", "the start is drawn with rand, uniform on [0, 1], not with randn", {"start_law": uniform}),
        ("uniform_noise", "the start is uniform on [−1, 1], not normal", {"start_law": symmetric}),
        ("no_last_noise", "the last step has no noise: only the denoising has none", {"noise": last}),
        ("no_denoising", "the last state is returned as it is, not denoised", {"state": alpha, "tweedie": 0.0}),
        ("no_denoising", "the last state is divided by α, and its noise is not taken away", {"tweedie": 0.0}),
        ("no_denoising", "at the end stands one more step of the reverse SDE, to time 0, not the denoising", step),
        (
            "no_denoising",
            "at the end stands one more step of the reverse SDE, with noise, not the denoising",
            step | {"left": g * t.sqrt() / sigma},
        ),
        ("denoising_variance", "the denoising adds σ s, where σ² s is needed", {"tweedie": 1 / sigma}),
        ("denoising_variance", "the denoising adds s, without σ²", {"tweedie": 1 / sigma**2}),
        ("denoising_variance", "the denoising adds g² s, where σ² s is needed", {"tweedie": g**2 / sigma**2}),
        ("denoising_sign", "the denoising goes down the score, not up", {"tweedie": -1.0}),
        ("no_alpha", "the denoised point lacks its 1/α", {"state": alpha, "tweedie": alpha}),
        ("no_alpha", "in the denoised point x is not divided by α", {"state": alpha}),
        ("no_alpha", "in the denoised point σ² s is not divided by α", {"tweedie": alpha}),
        ("no_alpha", "the denoised point is multiplied by α, not divided", {"state": alpha**2, "tweedie": alpha**2}),
    ]  # fmt: skip
    if bool((found > 2e-2).all()):
        entries.append(("noisy_end", "noise is added after the denoising: the last state has none", {"left": found}))
    return slips(formula, wrong_steps + entries)
