r"""Checks of an SDE that a student writes, and of a step back in its time.

An SDE has to agree with itself,

.. math:: f(x, t) = \frac{\alpha'(t)}{\alpha(t)}\,x, \qquad
          g(t)^2 = \frac{d\sigma^2}{dt} - 2\,\frac{\alpha'(t)}{\alpha(t)}\,\sigma(t)^2 .

A wrong step is a right step with other coefficients: one regression on drift and score recovers them, and what remains
is the noise.
"""

import functools
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
    refuse_other_times,
    refuse_shared_noise,
    rms,
    seeded,
)
from scorebook.coursework.reports import Answer, Mistake, Report, judge
from scorebook.lab.arguments import standard_normal
from scorebook.lab.types import Integer, Number
from scorebook.sde import SDE, VPSDE

__all__ = ["check_reverse_step", "check_sde"]

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
    student = Student("sde.alpha(t), sde.sigma(t), sde.drift(x, t), sde.diffusion(t)")
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

        def slope(f):
            return (8 * (f(t + h) - f(t - h)) - f(t + 2 * h) + f(t - 2 * h)) / (12 * h)

        kernel = _Kernel(alpha, sigma, slope(lambda t: ask("alpha", t)), slope(lambda t: ask("sigma", t)))
        answers, mistakes = [], []
        if reference is not None:
            answers += [
                Answer.exact("α(t)", alpha, reference.alpha(t), 1e-4),
                Answer.exact("σ(t)", sigma, reference.sigma(t), 1e-4),
                Answer.exact("drift", drift, reference.drift(x, t), 1e-4),
                Answer.exact("diffusion", diffusion, reference.diffusion(t), 1e-4),
            ]
            mistakes += _sdes_differing(reference, x, t)
        else:
            pull = kernel.rate.unsqueeze(1) * x
            size = max(rms(pull), rms(drift), 1.0)
            answers += [
                Answer("drift", drift, pull, 0.0, 1e-4 * size),
                Answer.exact("squared diffusion g²", diffusion**2, kernel.diffusion_squared(), 1e-4),
            ]
            mistakes += _sdes_inconsistent(kernel, x)
        if callable(getattr(sde, "perturb", None)):
            extra, more = _perturbed(student, sde, alpha, sigma, t, generator)
            answers += extra
            mistakes += more
        return judge(
            "check_sde",
            answers,
            mistakes,
            verified="your SDE agrees with its perturbation kernel"
            if reference is None
            else "your SDE is the right one",
        )

    return under_guard("check_sde", check, student, time_limit=time_limit)


class _Kernel:
    """What the perturbation kernel says of drift and diffusion."""

    def __init__(self, alpha, sigma, alpha_slope, sigma_slope):
        self.sigma, self.sigma_slope, self.rate = sigma, sigma_slope, alpha_slope / alpha
        self.variance, self.variance_slope = sigma**2, 2 * sigma * sigma_slope

    def diffusion_squared(self, *, rate=1.0, pull=-2.0):
        """The kernel's g², with the logarithmic slope of alpha, or its share in g², multiplied by a factor."""
        return self.variance_slope + pull * rate * self.rate * self.variance


def _sdes_inconsistent(kernel, x) -> list[Mistake]:
    right, pull = kernel.diffusion_squared(), kernel.rate.unsqueeze(1) * x

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
        ("root_two", "g is a factor √2 too small", wrong(right / 2)),
        ("root_two", "g is a factor √2 too large", wrong(right * 2)),
        ("root_of_diffusion", "diffusion(t) returns √g, not g", wrong(right.abs().sqrt())),
        ("no_diffusion", "there is no noise", wrong(torch.zeros_like(right))),
    ]
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
        ("alpha_squared", "α(t) lacks the ½ in its exponent: that is α²", {"α(t)": alpha**2}),
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
    return [Mistake(key, words, functools.partial(dict, value)) for key, words, value in entries]


def _perturbed(student, sde, alpha, sigma, t, generator):
    """Hold ``perturb`` against alpha and sigma, and the noise that it reports against the normal law."""
    copies = 256
    points = "perturbed point"
    times = t.repeat_interleave(copies)
    a, s = (v.repeat_interleave(copies).unsqueeze(1) for v in (alpha, sigma))
    x0 = standard_normal((len(times), 2), generator=generator, dtype=_DOUBLE)
    result = student.call(sde.perturb, x0, times, generator=child(generator))
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Refusal("perturb(x0, t) must return a pair, the noisy points and their noise", "shape")
    noisy, noise = (
        student.tensor(part, x0.shape, f"the {what} of perturb(x0, t)")
        for part, what in zip(result, ("first part", "noise"), strict=True)
    )
    refuse_shared_noise(noise)
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
        ("alpha_squared", "perturb multiplies the clean points by α²", {points: a**2 * x0 + s * noise}),
        ("alpha_squared", "perturb multiplies the clean points by √α", {points: a.abs().sqrt() * x0 + s * noise}),
        (
            "uniform_noise",
            "the noise is drawn with rand, uniform on [0, 1], not with randn",
            {"noise's mean": 0.5, "noise's standard deviation": 12**-0.5},
        ),
    ]
    # Two mistakes leave the points right and show in the noise that is returned with them.
    if is_standard((noisy - a * x0) / s):
        if is_standard(noise):
            entries.append(("fresh_noise", "perturb returns other noise than it added", {points: noisy}))
        else:
            law = {"noise's mean": noise.mean(), "noise's standard deviation": noise.std()}
            scaled = {points: a * x0 + noise} | law
            entries.append(("scaled_noise", "perturb returns σ z; the noise z itself is wanted", scaled))
    return answers, [Mistake(key, words, functools.partial(dict, value)) for key, words, value in entries]


def check_reverse_step(step: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold one step of the reverse-time SDE against its known law.

    .. math:: x_{t + \Delta t} = x_t + \left[f(x_t, t) - g(t)^2\, s(x_t, t)\right] \Delta t
              + g(t) \sqrt{|\Delta t|}\; z, \qquad \Delta t < 0

    Regression of the step on :math:`f` and :math:`s` gives the two coefficients, what remains is the noise.

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
    student = Student("step(sde, score, x, t, dt, generator=generator)")
    generator = seeded(seed)

    def check():
        n, d = 4096, 8
        process, t, dt = _telling_step(generator)
        x = 12.0 * standard_normal((n, d), generator=generator, dtype=_DOUBLE)
        phase = 6.0 * torch.rand(d, generator=generator, dtype=_DOUBLE)
        asked = []

        def score(x, t):
            asked.append(t)
            return 12.0 * torch.sin(2.0 * x + phase)

        def run(x, source):
            result = student.call(step, process, score, x.clone(), t.clone(), dt.clone(), generator=source)
            return student.tensor(result, x.shape, "what your step returns")

        new = run(x, child(generator))
        refuse_other_times(asked, t, process)
        refuse_coupled_rows(run, x[:32], generator)
        f, s = process.drift(x, t), score(x, t)
        answers, noise = _regressed(new - x, f, s, dt, process.diffusion(t))
        mistakes = _steps_mistaken(process, t, dt)
        report = judge(
            "check_reverse_step", answers, mistakes, verified="drift, score and noise of your step are right"
        )
        if report.mistake is None:
            _refuse_shared_rest(noise)
        return report

    return under_guard("check_reverse_step", check, student, time_limit=time_limit)


def _telling_step(generator) -> tuple[SDE, Tensor, Tensor]:
    """A random SDE, time and step for which no two mistakes make noise of nearly the same size."""
    while True:
        low, high, start, length = torch.rand(4, generator=generator, dtype=_DOUBLE).tolist()
        process = VPSDE(0.5 + 0.5 * low, 14 + 4 * high)
        t, dt = (torch.tensor(v, dtype=_DOUBLE) for v in (0.5 + 0.2 * start, -0.03 - 0.02 * length))
        g, h = process.diffusion(t), dt.abs()
        root = h.sqrt()
        sizes = torch.stack([g * root, g, g * h, g**2 * root, root, torch.ones_like(g), math.sqrt(2) * g * root])
        if sizes.log().sort().values.diff().min() > 0.08:
            return process, t, dt


def _regressed(change, f, s, dt, g) -> tuple[list[Answer], Tensor]:
    """Coefficients of drift and score, in units of what they should be, and the moments of the rest."""
    n = change.numel()
    columns = torch.stack([f.flatten() * dt, -(g**2) * s.flatten() * dt, torch.ones(n, dtype=_DOUBLE)], 1)
    gram = torch.linalg.inv(columns.mT @ columns)
    coefficients = gram @ (columns.mT @ change.flatten())
    rest = change.flatten() - columns @ coefficients
    spread = (rest.square().sum() / (n - 3)).sqrt()
    errors = spread * gram.diagonal().sqrt()
    size = g * dt.abs().sqrt()
    one, zero = torch.ones((), dtype=_DOUBLE), torch.zeros((), dtype=_DOUBLE)
    # Units: the noise's own size, so that "31 times the right one" can be read off.
    answers = [
        Answer("coefficient of the drift f", coefficients[0], one, errors[0], 1e-6),
        Answer("coefficient of the score −g² s", coefficients[1], one, errors[1], 1e-6),
        Answer("noise's mean", coefficients[2] / size, zero, errors[2] / size, 1e-6),
        Answer("noise's standard deviation", spread, size, spread / math.sqrt(2 * n), 1e-9),
    ]
    if spread > 1e-9:
        z = rest / spread
        answers.append(Answer("noise's fourth moment", (z**4).mean(), 3 * one, math.sqrt(96 / n), 1e-3))
    return answers, rest.reshape(change.shape)


def _steps_mistaken(process, t, dt) -> list[Mistake]:
    g, h = process.diffusion(t), dt.abs()
    size, after = g * h.sqrt(), process.diffusion(t + dt)

    def of(drift=1.0, score=1.0, noise=None, mean=0.0, fourth=3.0):
        return {
            "coefficient of the drift f": drift,
            "coefficient of the score −g² s": score,
            "noise's mean": mean,
            "noise's standard deviation": size if noise is None else noise,
            "noise's fourth moment": fourth,
        }

    # f = -beta x/2 and g^2 = beta: both grow by the same ratio between two times.
    ratio = (after / g) ** 2
    entries = [
        ("no_root_dt", "the noise lacks its √dt", of(noise=g)),
        ("dt_for_root", "the noise is multiplied by dt, where √dt is needed", of(noise=g * h)),
        ("squared_diffusion", "the noise is multiplied by g², where g is needed", of(noise=g**2 * h.sqrt())),
        ("no_diffusion", "the noise lacks its g", of(noise=h.sqrt())),
        ("no_scale", "the noise is z, without g √dt", of(noise=torch.ones_like(g))),
        ("root_two", "the noise is √2 times too large", of(noise=math.sqrt(2) * size)),
        ("no_noise", "there is no noise: half of g² with no noise would be the flow, this is neither", of(noise=0.0)),
        (
            "flow",
            "the score has half of its coefficient and there is no noise: that is the flow",
            of(score=0.5, noise=0.0),
        ),
        ("half_score", "the score has the ½ of the probability flow; the reverse SDE has the whole g²", of(score=0.5)),
        ("diffusion_for_squared", "the score is multiplied by g, where g² is needed", of(score=1 / g)),
        ("no_squared_diffusion", "the score is not multiplied by g²", of(score=1 / g**2)),
        ("score_sign", "the score has the wrong sign", of(score=-1.0)),
        ("drift_sign", "the drift f has the wrong sign", of(drift=-1.0)),
        ("no_drift", "the drift f is missing", of(drift=0.0)),
        ("no_score", "the score is missing: that is the forward SDE run backwards", of(score=0.0)),
        ("time_direction", "the sign of dt is wrong: the step goes away from the data", of(drift=-1.0, score=-1.0)),
        (
            "forward",
            "that is a step of the forward SDE, in positive time and without the score",
            of(drift=-1.0, score=0.0),
        ),
        ("time_reached", "drift and diffusion are taken at t + dt, not at t", of(ratio, ratio, noise=after * h.sqrt())),
        (
            "uniform_noise",
            "the noise is drawn with rand, uniform on [0, 1], not with randn",
            of(noise=size * 12**-0.5, mean=0.5, fourth=1.8),
        ),
        ("uniform_noise", "the noise is uniform on [−1, 1], not normal", of(noise=size * 3**-0.5, fourth=1.8)),
        ("no_step", "drift and score are not multiplied by dt", of(drift=1 / dt, score=1 / dt)),
        ("no_change", "the state does not change", of(0.0, 0.0, 0.0)),
    ]
    return [Mistake(key, words, functools.partial(dict, value)) for key, words, value in entries]


def _refuse_shared_rest(noise):
    spread = noise.std().clamp(min=1e-12)
    d = noise.shape[1]
    if noise.std(0).max() < 0.5 * spread or d * noise.mean(1).var() / spread**2 > d / 2:
        raise Refusal(
            "all states, or all coordinates of a state, get the same noise: draw it in the shape of x", "shared_noise"
        )
