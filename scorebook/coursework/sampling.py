r"""Checks of samplers that follow a score: Langevin dynamics, at one noise scale and through many.

For a Gaussian target the score is linear, and so is a step: each coordinate of a chain obeys
:math:`x \leftarrow (1 - \epsilon/v)\,x + c\,z`. What the chain is after any number of steps is then known without
sampling error,

.. math:: E[x_n] = a^n x_0, \qquad \mathrm{Var}[x_n] = c^2\,(1 + a^2 + \dots + a^{2(n-1)}), \qquad a = 1 - \epsilon/v,

for the right sampler and for each of the wrong ones; coordinates of different variance :math:`v` tell them apart.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.problems import child, refuse_coupled_rows, seeded
from scorebook.coursework.reports import Answer, Mistake, Report, judge
from scorebook.lab.types import Integer, Number

__all__ = ["check_annealed", "check_langevin"]

_DOUBLE = torch.float64
_CHAINS = 4096
# Starts much wider than the noise: the factor by which a chain shrinks its start is then seen precisely.
_START = 20.0


def check_langevin(sampler: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold a Langevin sampler against the known law of its chains.

    .. math:: x_{k+1} = x_k + \epsilon\, s(x_k) + \sqrt{2\epsilon}\, z_k

    Measured after one step and after seven, from a Gaussian target: the factor by which the start has shrunk, the mean,
    spread and fourth moment of the noise, its independence between chains and between coordinates, and that no chain
    moves another.

    Args:
        sampler: the student's callable ``sampler(score, x, *, step_size, n_steps, generator) -> tensor like x``, the
            last states; ``score(x) -> tensor like x``, ``x`` of shape ``(B, d)``. It may do without ``generator``.
        seed: of target, starts and noise.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Roberts & Tweedie (1996); the module :mod:`scorebook.langevin` for the formulas.
    """
    student = Student("sampler(score, x, step_size=..., n_steps=..., generator=generator)")
    generator = seeded(seed)

    def check():
        d, n_steps = 8, 7
        variances = torch.linspace(0.5, 2.0, d, dtype=_DOUBLE)[torch.randperm(d, generator=generator)]
        step = 0.04 + 0.06 * torch.rand((), generator=generator, dtype=torch.float32).item()

        def score(x):
            return -x / variances.to(x)

        def run(x, n_steps, source):
            result = student.call(sampler, score, x.clone(), step_size=step, n_steps=n_steps, generator=source)
            return student.tensor(result, x.shape, "what your sampler returns")

        x = _starts(_CHAINS, d, generator)
        one, many = run(x, 1, child(generator)), run(x, n_steps, child(generator))
        refuse_coupled_rows(lambda x, source: run(x, 2, source), x[:64], generator)
        answers = _answers("after one step", x, one, 1 - step / variances, math.sqrt(2 * step), shape=True)
        mean, std = _after([(1 - step / variances, math.sqrt(2 * step))] * n_steps)
        answers += _answers(f"after {n_steps} steps", x, many, mean, std)
        mistakes = _langevins_mistaken(variances, step, n_steps)
        report = judge(
            "check_langevin",
            answers,
            mistakes,
            verified="your chains have the mean, spread and independence they should",
        )
        if report.mistake is None:
            _refuse_shared(x, one)
        return report

    return under_guard("check_langevin", check, student, time_limit=time_limit)


def _langevins_mistaken(variances, step, n_steps) -> list[Mistake]:
    root = math.sqrt(2 * step)
    one, many = "after one step", f"after {n_steps} steps"

    def linear(drift, noise, mean=0.0, steps=n_steps, first=1):
        """Each step adds ``drift * score + noise * z + mean``."""

        def predict():
            step_of = [(1 - drift / variances, noise)]
            return _predicted(one, step_of * first, mean) | _predicted(many, step_of * steps, mean)

        return predict

    def same_noise():
        a = 1 - step / variances
        std = root * sum(a**k for k in range(n_steps))
        return {f"standard deviation of the noise {many}": std}

    def noise_at_the_end():
        a = 1 - step / variances
        return {f"standard deviation of the noise {many}": torch.full_like(a, root)}

    fourth = {f"fourth moment of the noise {one}": 1.8}
    entries = [
        ("epsilon_for_two_epsilon", "the noise is √ε z, where √(2ε) z is needed", linear(step, math.sqrt(step))),
        ("no_root", "the noise lacks its root: it is 2ε z, not √(2ε) z", linear(step, 2 * step)),
        ("no_root", "the noise is ε z: the root and the 2 are missing", linear(step, step)),
        ("outer_two", "the 2 stands outside the root: 2√ε z, not √(2ε) z", linear(step, 2 * math.sqrt(step))),
        ("outer_two", "the noise is √2 ε z: the root covers the 2 alone", linear(step, math.sqrt(2) * step)),
        ("no_noise", "there is no noise: that is gradient ascent", linear(step, 0.0)),
        ("no_scale", "the noise is z, without √(2ε)", linear(step, 1.0)),
        ("no_scale", "the noise is √2 z, without √ε", linear(step, math.sqrt(2.0))),
        ("drift_sign", "the step goes down the score, not up", linear(-step, root)),
        (
            "half_step",
            "the step is ε/2 s + √ε z, of half the size: in the book's convention it is ε s + √(2ε) z",
            linear(step / 2, math.sqrt(step)),
        ),
        ("half_drift", "the drift is ε/2 s where the noise √(2ε) z needs ε s", linear(step / 2, root)),
        ("double_drift", "the drift is 2ε s where the noise √(2ε) z needs ε s", linear(2 * step, root)),
        ("no_drift", "the score is not used: there is only noise", linear(0.0, root)),
        ("no_step", "the score is not multiplied by the step", linear(1.0, root)),
        ("squared_drift", "the score is multiplied by ε², not ε", linear(step**2, root)),
        ("root_drift", "the score is multiplied by √(2ε), like the noise", linear(root, root)),
        ("step_missing", "one step too few", linear(step, root, steps=n_steps - 1, first=0)),
        ("extra_step", "one step too many", linear(step, root, steps=n_steps + 1, first=2)),
        ("one_step", "only one step is made, whatever n_steps", linear(step, root, steps=1)),
        ("same_noise", "the same noise is used in each step: draw it inside the loop", same_noise),
        ("noise_once", "noise is added once, after the last step, not in each", noise_at_the_end),
        (
            "uniform_noise",
            "the noise is drawn with rand, uniform on [0, 1], not with randn",
            lambda: (
                linear(step, root * 12**-0.5, root / 2)() | {f"fourth moment of the noise {one}": torch.tensor(1.8)}
            ),
        ),
        (
            "uniform_noise",
            "the noise is uniform on [−1, 1], not normal",
            lambda: linear(step, root * 3**-0.5)() | fourth,
        ),
    ]
    return [Mistake(*entry) for entry in entries]


def check_annealed(
    sampler: Callable[..., Any], *, denoise: bool = True, seed: Integer = 0, time_limit: Number | None = 30.0
) -> Report:
    r"""Hold annealed Langevin dynamics against the known law of its chains.

    .. math:: x \leftarrow x + \alpha_i\, s(x, \sigma_i) + \sqrt{2\alpha_i}\; z,
              \qquad \alpha_i = \epsilon\,\frac{\sigma_i^2}{\sigma_L^2}

    at each of the scales in turn, from the largest to the smallest, and at the end one denoising step
    :math:`x + \sigma_L^2\, s(x, \sigma_L)`. The data are Gaussian, so the law of the result is known.

    Args:
        sampler: the student's callable
            ``sampler(score, x, sigmas, *, step_size, n_steps_each, generator) -> tensor like x``, the last states;
            ``score(x, sigma) -> tensor like x``, ``x`` of shape ``(B, d)``, ``sigmas`` a decreasing tensor ``(L,)``,
            ``step_size`` the step :math:`\epsilon` at the last scale. It may do without ``generator``.
        denoise: whether the denoising step at the end is asked for.
        seed: of target, starts and noise.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Song & Ermon (2019), algorithm 1, whose step is twice this one; Jolicoeur-Martineau et al. (2021) for the
    denoising, their expected denoised sample.
    """
    student = Student("sampler(score, x, sigmas, step_size=..., n_steps_each=..., generator=generator)")
    generator = seeded(seed)

    def check():
        d, n_steps = 8, 3
        variances = torch.linspace(0.2, 3.0, d, dtype=_DOUBLE)[torch.randperm(d, generator=generator)]
        last = 0.5 + 0.1 * torch.rand((), generator=generator, dtype=torch.float32).item()
        sigmas = last * torch.tensor([2.25, 1.5, 1.0], dtype=_DOUBLE)
        step = last**2 * (0.08 + 0.04 * torch.rand((), generator=generator, dtype=torch.float32).item())

        def score(x, sigma):
            sigma = torch.as_tensor(sigma, dtype=_DOUBLE)
            if sigma.ndim > 1 or (sigma.ndim == 1 and len(sigma) not in (1, len(x))):
                raise Refusal(f"the score is given a noise scale of shape {tuple(sigma.shape)}, not a scalar", "shape")
            return -x / (variances + sigma.reshape(-1, 1) ** 2)

        def run(x, source):
            result = student.call(
                sampler, score, x.clone(), sigmas.clone(), step_size=step, n_steps_each=n_steps, generator=source
            )
            return student.tensor(result, x.shape, "what your sampler returns")

        x = _starts(_CHAINS, d, generator)
        path = _annealing(variances, sigmas, step, n_steps)
        end = _denoising(variances, sigmas[-1]) if denoise else []
        end_state = run(x, child(generator))
        refuse_coupled_rows(run, x[:64], generator)
        answers = _answers("at the end", x, end_state, *_after(path + end))
        mistakes = _annealings_mistaken(variances, sigmas, step, n_steps, denoise)
        report = judge(
            "check_annealed",
            answers,
            mistakes,
            verified="your chains have the mean, spread and independence they should",
        )
        if report.mistake is None:
            _refuse_shared(x, end_state)
        return report

    return under_guard("check_annealed", check, student, time_limit=time_limit)


def _annealing(variances, sigmas, step, n_steps, *, drift=1.0, noise=None, power=2.0, asked=None) -> list[Any]:
    """Factor and noise of each step, as functions of the step size at each scale."""
    noise = noise or (lambda size: math.sqrt(2 * size))
    path = []
    for number, sigma in enumerate(sigmas.tolist()):
        size = step * (sigma / sigmas[-1].item()) ** power
        seen = sigma if asked is None else asked(sigma, number)
        path += [(1 - drift * size / (variances + seen**2), noise(size))] * n_steps
    return path


def _denoising(variances, sigma) -> list[Any]:
    return [(variances / (variances + sigma**2), 0.0)]


def _annealings_mistaken(variances, sigmas, step, n_steps, denoise) -> list[Mistake]:
    last = sigmas[-1].item()

    def path(scales=sigmas, steps=n_steps, final=denoise, end=None, mean=0.0, size=step, **options):
        def predict():
            steps_of = _annealing(variances, scales, size, steps, **options)
            if final:
                steps_of = steps_of + (_denoising(variances, last) if end is None else end)
            return _predicted("at the end", steps_of, mean)

        return predict

    # A scale for the step other than the last: the size of each step relative to it.
    to_first = step * (last / sigmas[0].item()) ** 2
    before_last = step * (sigmas[-2].item() / last) ** 2
    noisy_end = [(1 - last**2 / (variances + last**2), math.sqrt(2) * last)]
    upwards = sigmas.flip(0)
    rising = [
        (1 - step * (s / last) ** 2 / (variances + s**2), math.sqrt(2 * step) * s / last)
        for s in upwards.tolist()
        for _ in range(n_steps)
    ]

    def ascending():
        return _predicted("at the end", rising + (_denoising(variances, last) if denoise else []), 0.0)

    def ascending_end():
        return _predicted("at the end", rising + (_denoising(variances, sigmas[0]) if denoise else []), 0.0)

    entries = [
        ("no_denoising", "the denoising step at the end, x + σ² s(x, σ), is missing", path(final=False))
        if denoise
        else ("denoising", "the last state is denoised, which was not asked for", path(final=True)),
        ("epsilon_for_two_epsilon", "the noise is √α z, where √(2α) z is needed", path(noise=math.sqrt)),
        ("no_root", "the noise lacks its root: it is 2α z, not √(2α) z", path(noise=lambda a: 2 * a)),
        ("no_root", "the noise is α z: the root and the 2 are missing", path(noise=lambda a: a)),
        ("outer_two", "the 2 stands outside the root: 2√α z, not √(2α) z", path(noise=lambda a: 2 * math.sqrt(a))),
        ("no_noise", "there is no noise", path(noise=lambda a: 0.0)),
        ("no_scale", "the noise is z, without √(2α)", path(noise=lambda a: 1.0)),
        ("drift_sign", "the step goes down the score, not up", path(drift=-1.0)),
        (
            "half_step",
            "the step is α/2 s + √α z, of half the size: in the book's convention it is α s + √(2α) z",
            path(drift=0.5, noise=math.sqrt),
        ),
        ("half_drift", "the drift is α/2 s where the noise √(2α) z needs α s", path(drift=0.5)),
        ("constant_step", "the step is the same at all scales: it lacks the factor σᵢ²/σ_L²", path(power=0.0)),
        ("unsquared_step", "the step grows with σᵢ/σ_L, not with its square", path(power=1.0)),
        ("inverse_step", "the factor of the step is σ_L²/σᵢ², upside down", path(power=-2.0)),
        ("first_scale", "the step is measured at the first scale, not at the last", path(size=to_first)),
        ("ascending", "the scales are taken from the smallest to the largest", ascending),
        ("ascending", "the scales are taken from the smallest to the largest", ascending_end),
        ("scale_missing", "the last scale is left out", path(scales=sigmas[:-1], size=before_last)),
        (
            "scale_missing",
            "the last scale is left out",
            path(scales=sigmas[:-1], size=before_last, end=_denoising(variances, sigmas[-2])),
        ),
        ("scale_missing", "the first scale is left out", path(scales=sigmas[1:])),
        ("one_scale", "only the last scale is used", path(scales=sigmas[-1:])),
        ("one_step", "only one step is made at each scale, whatever n_steps_each", path(steps=1)),
        ("step_missing", "one step too few at each scale", path(steps=n_steps - 1)),
        ("extra_step", "one step too many at each scale", path(steps=n_steps + 1)),
        ("variance_for_std", "the score is given σ², not σ", path(asked=lambda s, k: s**2)),
        ("wrong_scale", "the score is given the number of the scale, not the scale", path(asked=lambda s, k: k)),
        ("wrong_scale", "the score is given the last scale throughout", path(asked=lambda s, k: last)),
        ("wrong_scale", "the score is given the first scale throughout", path(asked=lambda s, k: sigmas[0].item())),
        ("noisy_end", "the last, denoising step adds noise", path(end=noisy_end)),
        (
            "denoising_variance",
            "the denoising step is x + σ s, not x + σ² s",
            path(end=[(1 - last / (variances + last**2), 0.0)]),
        ),
        (
            "uniform_noise",
            "the noise is drawn with rand, uniform on [0, 1], not with randn",
            path(noise=lambda a: math.sqrt(a / 6), mean=12**0.5 / 2),
        ),
    ]
    return [Mistake(*entry) for entry in entries]


def _starts(n, d, generator) -> Tensor:
    """Starts of both signs in equal number, far out, each coordinate in an order of its own."""
    signs = torch.ones(n, d, dtype=_DOUBLE)
    signs[: n // 2] = -1
    order = torch.rand(n, d, generator=generator, dtype=_DOUBLE).argsort(0)
    return _START * signs.gather(0, order)


def _after(path) -> tuple[Tensor, Tensor]:
    """Factor of the start and standard deviation of the noise after steps ``x <- a x + c z``, per coordinate."""
    factor, variance = 1.0, 0.0
    for a, c in path:
        factor, variance = factor * a, a**2 * variance + c**2
    return torch.as_tensor(factor, dtype=_DOUBLE), torch.as_tensor(variance, dtype=_DOUBLE).sqrt()


def _predicted(name, path, mean) -> dict[str, Tensor]:
    """Predict the answers of a path; ``mean`` is that of the noise, in each step or in units of its deviation."""
    factor, std = _after(path)
    shift = 0.0
    for a, c in path:
        shift = a * shift + mean * (c if name == "at the end" else 1.0)
    shape = {f"factor of the start {name}": factor, f"standard deviation of the noise {name}": std}
    return shape | {f"mean of the noise {name}": torch.as_tensor(shift, dtype=_DOUBLE)}


def _answers(name, x, result, factor, std, *, shape=False) -> list[Answer]:
    """Measure the factor of the start and the moments of what is added to it, per coordinate."""
    n, d = x.shape
    floor = 1e-9 * _START
    # Starts of equal number and opposite sign: factor and mean are estimated independently.
    slope, mean = (result * x).mean(0) / _START**2, result.mean(0)
    noise = result - slope * x - mean
    spread = (noise.square().sum(0) / (n - 2)).sqrt()
    spread = torch.where(spread > floor, spread, 0.0)  # rounding is no noise
    error = spread / math.sqrt(n)
    factor, std = (torch.as_tensor(part, dtype=_DOUBLE).expand(d) for part in (factor, std))
    answers = [
        Answer(f"factor of the start {name}", slope, factor, error / _START, 1e-9),
        Answer(f"mean of the noise {name}", mean, torch.zeros(d, dtype=_DOUBLE), error, floor),
        Answer(f"standard deviation of the noise {name}", spread, std, spread / math.sqrt(2 * n), floor),
    ]
    if shape and bool((spread > 0).all()):
        fourth, truth = ((noise / spread) ** 4).mean(), torch.tensor(3.0, dtype=_DOUBLE)
        answers.append(Answer(f"fourth moment of the noise {name}", fourth, truth, math.sqrt(96 / (n * d)), 1e-3))
    return answers


def _refuse_shared(x, result):
    """Refuse noise that is the same for all chains, or for all coordinates of a chain."""
    slope = (result * x).mean(0) / _START**2
    noise = result - slope * x
    if bool(noise.std(0).max() < 1e-9 * _START) and bool(noise.abs().max() > 1e-6):
        raise Refusal("all chains get the same noise: draw it in the shape of x", "shared_noise")
    scaled = noise - noise.mean(0)
    spread = scaled.std(0)
    if bool((spread > 1e-9).all()):
        correlation = torch.corrcoef(scaled.T)
        off = correlation - torch.eye(len(correlation), dtype=_DOUBLE)
        if bool(off.abs().max() > 0.9):
            raise Refusal("all coordinates of a chain get the same noise: draw it in the shape of x", "shared_noise")
