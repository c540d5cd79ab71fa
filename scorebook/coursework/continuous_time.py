r"""Checks of what one writes for continuous time: an SDE, a step back, the flow, its likelihood, and guidance.

An SDE has to agree with itself,

.. math:: f(x, t) = \frac{\alpha'(t)}{\alpha(t)}\,x, \qquad
          g(t)^2 = \frac{d\sigma^2}{dt} - 2\,\frac{\alpha'(t)}{\alpha(t)}\,\sigma(t)^2 ,

and the other checks hold a student's code against the book's SDEs with random rates, for which a Gaussian mixture has
the exact score at any time. A wrong step is a right step with other coefficients: one regression on drift and score
recovers them, and what remains is the noise.
"""

import contextlib
import math
import numbers

import numpy as np
import torch
from torch import Tensor

from scorebook.controllable_generation import LinearObservation
from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.learning import (
    _child,
    _generator,
    _random_sde,
    _refuse_coupling,
    _refuse_shared_noise,
    _rms,
    _standard,
)
from scorebook.coursework.reports import Answer, Mistake, Report, judge
from scorebook.coursework.sampling import _refuse_coupled_rows
from scorebook.lab.arguments import positive, standard_normal
from scorebook.lab.distributions import GaussianMixture
from scorebook.score_matching import score_of
from scorebook.sde import SDE, VESDE, VPSDE

__all__ = ["check_guidance", "check_log_prob", "check_probability_flow", "check_reverse_step", "check_sde"]

_DOUBLE = torch.float64
# Calls of the score after which a solver of adaptive steps has chosen a few of them.
_FEW_CALLS = 40


def check_sde(sde, *, reference: SDE | None = None, seed: int = 0, time_limit: float | None = 30.0) -> Report:
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
    generator = _generator(seed)

    def check():
        for method in ("alpha", "sigma", "drift", "diffusion"):
            if not callable(student.call(lambda m=method: getattr(sde, m, None))):
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
            size = max(_rms(pull), _rms(drift), 1.0)
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
    return [Mistake(key, words, lambda value=value: value) for key, words, value in entries]


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
         {"σ(t)": (1 - alpha**2).clamp(min=0).sqrt(), "diffusion": (-2 * _rate(reference, t)).clamp(min=0).sqrt()}),
    ]  # fmt: skip
    return [Mistake(key, words, lambda value=value: value) for key, words, value in entries]


def _rate(sde, t) -> Tensor:
    return sde.drift(torch.ones(len(t), 1, dtype=_DOUBLE), t).squeeze(1)


def _perturbed(student, sde, alpha, sigma, t, generator):
    """Hold ``perturb`` against alpha and sigma, and the noise that it reports against the normal law."""
    copies = 256
    points = "perturbed point"
    times = t.repeat_interleave(copies)
    a, s = (v.repeat_interleave(copies).unsqueeze(1) for v in (alpha, sigma))
    x0 = standard_normal((len(times), 2), generator=generator, dtype=_DOUBLE)
    result = student.call(sde.perturb, x0, times, generator=_child(generator))
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise Refusal("perturb(x0, t) must return a pair, the noisy points and their noise", "shape")
    noisy, noise = (
        student.tensor(part, x0.shape, f"the {what} of perturb(x0, t)")
        for part, what in zip(result, ("first part", "noise"), strict=True)
    )
    _refuse_shared_noise(noise)
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
    if _standard((noisy - a * x0) / s):
        if _standard(noise):
            entries.append(("fresh_noise", "perturb returns other noise than it added", {points: noisy}))
        else:
            law = {"noise's mean": noise.mean(), "noise's standard deviation": noise.std()}
            scaled = {points: a * x0 + noise} | law
            entries.append(("scaled_noise", "perturb returns σ z; the noise z itself is wanted", scaled))
    return answers, [Mistake(key, words, lambda value=value: value) for key, words, value in entries]


def check_reverse_step(step, *, seed: int = 0, time_limit: float | None = 30.0) -> Report:
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
    generator = _generator(seed)

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

        new = run(x, _child(generator))
        _check_times(asked, t, process)
        _refuse_coupled_rows(run, x[:32], generator)
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


def _check_times(asked, t, process):
    """Refuse a score that is asked at another time, where that can be told."""
    if not asked:
        return
    time = torch.as_tensor(asked[0], dtype=_DOUBLE).flatten()
    if not torch.allclose(time, t):
        if torch.allclose(time, process.sigma(t)):
            raise Refusal("the score is asked at σ(t), where the time t is wanted", "noise_scale")
        if torch.allclose(time, 1 - t):
            raise Refusal("the score is asked at 1 − t, where the time t is wanted", "wrong_time")


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
    return [Mistake(key, words, lambda value=value: value) for key, words, value in entries]


def _refuse_shared_rest(noise):
    spread = noise.std().clamp(min=1e-12)
    d = noise.shape[1]
    if noise.std(0).max() < 0.5 * spread or d * noise.mean(1).var() / spread**2 > d / 2:
        raise Refusal(
            "all states, or all coordinates of a state, get the same noise: draw it in the shape of x", "shared_noise"
        )


def check_probability_flow(velocity, *, seed: int = 0, time_limit: float | None = 30.0) -> Report:
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
    generator = _generator(seed)

    def check():
        n, d = 16, 3
        low, high = (1 + torch.rand(2, generator=generator, dtype=torch.float32)).tolist()
        exploding = VESDE(0.1 * low, 5.0 * high)
        x = 1.5 * standard_normal((n, d), generator=generator, dtype=_DOUBLE)
        law, parts = _random_mixture(d, generator), []
        for process in (_random_sde(generator), exploding):
            times = 0.2 + 0.6 * torch.rand(3, generator=generator, dtype=_DOUBLE)
            field, asked = _field_of(student, velocity, process, process.exact_score(law))
            values = torch.stack([_ask_field(student, field, t, x) for t in times])
            g = process.diffusion(times).reshape(-1, 1, 1).expand_as(values)
            f = torch.stack([process.drift(x, t) for t in times])
            parts.append((values, f, torch.stack([process.exact_score(law)(x, t) for t in times]), g))
            _check_times(asked[:1], times[0], process)
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
            [Mistake(key, words, lambda v=value: {"velocity": v}) for key, words, value in entries],
            verified="your velocity is that of the probability flow",
        )
        if report.mistake is None:
            _refuse_coupling(student, lambda part: field(times[-1], part), x, values[-1], 1e-4 * _rms(truth[-1]))
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
    f,
    *,
    bin_width: float | None = None,
    tolerance: float = 0.05,
    seed: int = 0,
    time_limit: float | None = 60.0,
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
    generator = _generator(seed)

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
            return student.call(f, process, score, rows, *extra, generator=_child(generator))

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
        mistakes = [
            Mistake(key, words, lambda v=value: {name: scale * v() + shift}, slack=0.02)
            for key, words, value in parts.mistakes()
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


def _spied(ask, score, x) -> tuple[list, bool]:
    """Times of the first calls of the score, and whether each saw a probe of its own."""
    times, seen = [], []

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
    return [Mistake(key, words, lambda v=value: {name: v()}) for key, words, value in entries]


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
        rate = drift * _rate(self.process, t).unsqueeze(1) + kappa * g.unsqueeze(1) ** power / total
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


def check_guidance(
    score,
    observation: LinearObservation,
    *,
    prior: GaussianMixture | None = None,
    sde: SDE | None = None,
    tolerance: float = 1e-3,
    seed: int = 0,
    time_limit: float | None = 30.0,
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
        ValueError: if ``observation`` is no :class:`scorebook.controllable_generation.LinearObservation`, holds more
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
    generator = _generator(seed)

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
            _refuse_coupling(
                student, lambda part: score(part, times[-1]), points[-1], values[-n:], tolerance * _rms(truth)
            )
        return report

    return under_guard("check_guidance", check, student, time_limit=time_limit)


def _dimension(observation) -> int:
    if observation._matrix is not None:
        return observation._matrix.shape[1]
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
    return [Mistake(key, words, lambda value=value: {"guided score": value()}) for key, words, value in entries]


def _random_mixture(d, generator) -> GaussianMixture:
    k = 3
    weights = 0.2 + torch.rand(k, generator=generator, dtype=_DOUBLE)
    means = 1.5 * standard_normal((k, d), generator=generator, dtype=_DOUBLE)
    variances = 0.1 + torch.rand(k, generator=generator, dtype=_DOUBLE)
    return GaussianMixture(weights / weights.sum(), means, variances)
