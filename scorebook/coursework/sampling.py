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
from scorebook.coursework.problems import (
    child,
    refuse_coupled_rows,
    refuse_dependent_noise,
    seeded,
)
from scorebook.coursework.reports import Answer, Mistake, Report, judge, slips
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
    student = Student(
        "sampler(score, x, step_size=..., n_steps=..., generator=generator)",
        ("Langevin dynamics", "The update, in the two ways it is written"),
    )
    generator = seeded(seed)

    def check():
        d, n_steps = 8, 7
        variances = torch.linspace(0.5, 2.0, d, dtype=_DOUBLE)[torch.randperm(d, generator=generator)]
        step = 0.04 + 0.06 * torch.rand((), generator=generator, dtype=torch.float32).item()

        def score(x):
            return -x / variances.to(x)

        def run(x, n_steps, source, score=score):
            result = student.call(sampler, score, x.clone(), step_size=step, n_steps=n_steps, generator=source)
            return student.tensor(result, x.shape, "what your sampler returns")

        x = _starts(_CHAINS, d, generator)
        one, many = run(x, 1, child(generator)), run(x, n_steps, child(generator))
        refuse_coupled_rows(lambda x, source: run(x, 2, source), x[:64], generator)
        factor, std, _ = _chain(variances, [(step, math.sqrt(2 * step), 0.0)])
        answers = _answers("after one step", x, one, factor, std, variances, shape=True)
        many_factor, many_std, _ = _chain(variances, [(step, math.sqrt(2 * step), 0.0)] * n_steps)
        answers += _answers(f"after {n_steps} steps", x, many, many_factor, many_std, variances)
        mistakes = _langevins_mistaken(variances, step, n_steps)
        report = judge(
            "check_langevin",
            answers,
            mistakes,
            verified="your chains have the mean, spread and independence they should",
        )
        if report.mistake is None:
            again = run(x, 1, child(generator))
            _refuse_dependent(lambda x, source: run(x, 1, source), x, answers, (one, again), factor, std, generator)
        if not report.passed and report.mistake is None:
            _refuse_normalised(run, score, x[:64], generator)
        return report

    return under_guard("check_langevin", check, student, time_limit=time_limit)


def _langevins_mistaken(variances, step, n_steps) -> list[Mistake]:
    root = math.sqrt(2 * step)

    def formula(drift=step, kick=root, law=(0.0, 1.0, 3.0), steps=lambda n: n, share=lambda k: 1.0, **how):
        predictions = {}
        for name, n in (("after one step", 1), (f"after {n_steps} steps", n_steps)):
            path = [(share(k) * drift, share(k) ** 0.5 * kick, 0.0) for k in range(1, steps(n) + 1)]
            predictions |= _told(name, _chain(variances, path, **how), law)
        return predictions | {"fourth moment of the noise after one step": law[2]}

    uniform, symmetric = (0.5, 12**-0.5, 1.8), (0.0, 3**-0.5, 1.8)
    return slips(formula, [
        ("epsilon_for_two_epsilon", "the noise is √ε z, where √(2ε) z is needed", {"kick": math.sqrt(step)}),
        ("no_root", "the noise lacks its root: it is 2ε z, not √(2ε) z", {"kick": 2 * step}),
        ("no_root", "the noise is ε z: the root and the 2 are missing", {"kick": step}),
        ("outer_two", "the 2 stands outside the root: 2√ε z, not √(2ε) z", {"kick": 2 * math.sqrt(step)}),
        ("root_half", "the noise is √(ε/2) z, half of what is needed", {"kick": math.sqrt(step / 2)}),
        ("outer_two", "the noise is √2 ε z: the root covers the 2 alone", {"kick": math.sqrt(2) * step}),
        ("no_noise", "there is no noise: that is gradient ascent", {"kick": 0.0}),
        ("no_scale", "the noise is z, without √(2ε)", {"kick": 1.0}),
        ("no_scale", "the noise is √2 z, without √ε", {"kick": math.sqrt(2.0)}),
        ("drift_sign", "the step goes down the score, not up", {"drift": -step}),
        (
            "half_step",
            "the step is ε/2 s + √ε z, of half the size: in the book's convention it is ε s + √(2ε) z",
            {"drift": step / 2, "kick": math.sqrt(step)},
        ),
        ("common_factor", "ε stands before score and noise alike, ε (s/2 + z)", {"drift": step / 2, "kick": step}),
        ("half_drift", "the drift is ε/2 s where the noise √(2ε) z needs ε s", {"drift": step / 2}),
        ("double_drift", "the drift is 2ε s where the noise √(2ε) z needs ε s", {"drift": 2 * step}),
        ("no_drift", "the score is not used: there is only noise", {"drift": 0.0}),
        ("no_step", "the score is not multiplied by the step", {"drift": 1.0}),
        ("squared_drift", "the score is multiplied by ε², not ε", {"drift": step**2}),
        ("root_drift", "the score is multiplied by √(2ε), like the noise", {"drift": root}),
        ("step_missing", "one step too few", {"steps": lambda n: n - 1}),
        ("extra_step", "one step too many", {"steps": lambda n: n + 1}),
        ("one_step", "only one step is made, whatever n_steps", {"steps": lambda n: 1}),
        ("decaying_step", "the step shrinks from step to step, as ε/k; it is ε in each", {"share": lambda k: 1 / k}),
        ("decaying_step", "the step shrinks from step to step, as ε/√k; it is ε in each",
         {"share": lambda k: k**-0.5}),
        ("same_noise", "the same noise is used in each step: draw it inside the loop", {"noise": "same"}),
        ("noise_once", "noise is added once, after the last step, not in each", {"noise": "last"}),
        ("no_last_noise", "the last step has no noise: Langevin dynamics has it in every step", {"noise": "quiet end"}),
        ("stale_score", "the score is asked once, at the start, not anew in each step", {"stale": "start"}),
        ("stale_score", "the score is that of the state before, one step late", {"stale": "before"}),
        ("uniform_noise", "the noise is drawn with rand, uniform on [0, 1], not with randn", {"law": uniform}),
        ("uniform_noise", "the noise is uniform on [−1, 1], not normal", {"law": symmetric}),
    ])  # fmt: skip


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
    student = Student(
        "sampler(score, x, sigmas, step_size=..., n_steps_each=..., generator=generator)",
        ("Noise scales", "Annealed Langevin dynamics"),
    )
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
        factor, std, _ = _annealing(variances, sigmas, step, n_steps, end="denoised" if denoise else "noisy")
        end_state = run(x, child(generator))
        refuse_coupled_rows(run, x[:64], generator)
        answers = _answers("at the end", x, end_state, factor, std, variances)
        mistakes = _annealings_mistaken(variances, sigmas, step, n_steps, denoise)
        report = judge(
            "check_annealed",
            answers,
            mistakes,
            verified="your chains have the mean, spread and independence they should",
        )
        if report.mistake is None:
            _refuse_dependent(run, x, answers, (end_state, run(x, child(generator))), factor, std, generator)
        if report.passed and denoise:
            quiet = _annealing(variances, sigmas, step, n_steps, end="denoised", noise="quiet end")[1]
            _refuse_quiet_end(answers[-1].measured / std, quiet / std, x.numel())
        return report

    return under_guard("check_annealed", check, student, time_limit=time_limit)


def _annealing(
    variances,
    sigmas,
    step,
    n_steps,
    *,
    end,
    drift=1.0,
    kick=lambda size: math.sqrt(2 * size),
    louder=lambda sigma: 1.0,
    size=lambda sigma, last: (sigma / last) ** 2,
    asked=lambda sigmas, k: sigmas[k],
    asked_last=None,
    order=lambda sigmas: sigmas,
    last_of=lambda sigmas: sigmas[-1],
    noise="fresh",
):
    """What annealed dynamics makes of a start, where each part may be wrong."""
    scales, first, last = order(sigmas.tolist()), sigmas[0].item(), sigmas[-1].item()
    path = []
    for k, sigma in enumerate(scales):
        length = step * size(sigma, last)
        path += [(drift * length, louder(sigma) * kick(length), asked(scales, k))] * n_steps
    sigma = last_of(scales)
    path += {
        "noisy": [],
        "denoised": [(sigma**2, 0.0, sigma if asked_last is None else asked_last)],
        "denoised by σ": [(sigma, 0.0, sigma)],
        "denoised at the first": [(first**2, 0.0, first)],
        "half denoised": [(0.5 * sigma**2, 0.0, sigma)],
        "twice denoised": [(2 * sigma**2, 0.0, sigma)],
        "denoised and noised": [(sigma**2, math.sqrt(2) * sigma, sigma)],
    }[end]
    return _chain(variances, path, noise={"once a level": n_steps}.get(noise, noise))


def _annealings_mistaken(variances, sigmas, step, n_steps, denoise) -> list[Mistake]:
    first, last = sigmas[0].item(), sigmas[-1].item()
    right = "denoised" if denoise else "noisy"

    def formula(law=(0.0, 1.0, 3.0), end=right, n=n_steps, **parts):
        return _told("at the end", _annealing(variances, sigmas, step, n, end=end, **parts), law)

    before_last = (sigmas[-2].item() / last) ** 2
    return slips(formula, [
        ("no_denoising", "the denoising step at the end, x + σ² s(x, σ), is missing", {"end": "noisy"})
        if denoise
        else ("denoising", "the last state is denoised, which was not asked for", {"end": "denoised"}),
        ("epsilon_for_two_epsilon", "the noise is √α z, where √(2α) z is needed", {"kick": math.sqrt}),
        ("no_root", "the noise lacks its root: it is 2α z, not √(2α) z", {"kick": lambda a: 2 * a}),
        ("no_root", "the noise is α z: the root and the 2 are missing", {"kick": lambda a: a}),
        ("outer_two", "the 2 stands outside the root: 2√α z, not √(2α) z", {"kick": lambda a: 2 * math.sqrt(a)}),
        ("no_noise", "there is no noise", {"kick": lambda a: 0.0}),
        ("no_scale", "the noise is z, without √(2α)", {"kick": lambda a: 1.0}),
        ("drift_sign", "the step goes down the score, not up", {"drift": -1.0}),
        (
            "half_step",
            "the step is α/2 s + √α z, of half the size: in the book's convention it is α s + √(2α) z",
            {"drift": 0.5, "kick": math.sqrt},
        ),
        ("half_drift", "the drift is α/2 s where the noise √(2α) z needs α s", {"drift": 0.5}),
        ("constant_step", "the step is the same at all scales, without σᵢ²/σ_L²", {"size": lambda s, last: 1}),
        ("unsquared_step", "the step grows with σᵢ/σ_L, not with its square", {"size": lambda s, last: s / last}),
        ("inverse_step", "the step has the factor σ_L²/σᵢ², upside down", {"size": lambda s, last: (last / s) ** 2}),
        ("no_last_scale", "the step is ε σᵢ², without the division by σ_L²", {"size": lambda s, last: s**2}),
        ("no_last_scale", "the step is ε σᵢ: neither divided by σ_L nor squared", {"size": lambda s, last: s}),
        ("first_scale", "the step is measured at the first scale, not at the last",
         {"size": lambda s, last: (s / first) ** 2}),
        ("ascending", "the scales are taken from the smallest to the largest",
         {"order": lambda s: s[::-1], "last_of": lambda s: last}),
        ("ascending", "the scales are taken from the smallest to the largest", {"order": lambda s: s[::-1]}),
        ("scale_missing", "the last scale is left out", {"order": lambda s: s[:-1], "last_of": lambda s: last}),
        ("scale_missing", "the last scale is left out", {"order": lambda s: s[:-1]}),
        ("scale_missing", "the last scale is left out",
         {"order": lambda s: s[:-1], "last_of": lambda s: last, "size": lambda s, last: (s / last) ** 2 / before_last}),
        ("scale_missing", "the last scale is left out",
         {"order": lambda s: s[:-1], "size": lambda s, last: (s / last) ** 2 / before_last}),
        ("scale_missing", "the first scale is left out", {"order": lambda s: s[1:]}),
        ("one_scale", "only the last scale is used", {"order": lambda s: s[-1:]}),
        ("one_step", "only one step is made at each scale, whatever n_steps_each", {"n": 1}),
        ("step_missing", "one step too few at each scale", {"n": n_steps - 1}),
        ("extra_step", "one step too many at each scale", {"n": n_steps + 1}),
        ("variance_for_std", "the score is given σ², not σ", {"asked": lambda s, k: s[k] ** 2}),
        ("wrong_scale", "the score is given the number of the scale, not the scale", {"asked": lambda s, k: k}),
        *(("wrong_scale", f"the score is given the number of the scale, counted from {one}, not the scale",
           {"asked": lambda s, k, one=one: k + one} | end)
          for one, end in ((0, {"asked_last": len(sigmas) - 1}), (1, {}), (1, {"asked_last": len(sigmas)}))),
        ("wrong_scale", "the score is given the last scale throughout", {"asked": lambda s, k: last}),
        ("wrong_scale", "the score is given the first scale throughout", {"asked": lambda s, k: first}),
        ("wrong_scale", "the score is given the next scale, one too small",
         {"asked": lambda s, k: s[min(k + 1, len(s) - 1)]}),
        ("wrong_scale", "the score is given the scale before, one too large", {"asked": lambda s, k: s[max(k - 1, 0)]}),
        ("same_noise", "the same noise is used in each step: draw it inside the loop", {"noise": "same"}),
        ("same_noise", "the noise is drawn once at each scale, not in each step", {"noise": "once a level"}),
        ("no_last_noise", "the last step at the last scale has no noise", {"noise": "quiet end"}),
        ("noisy_end", "the last, denoising step adds noise", {"end": "denoised and noised"}),
        ("denoising_variance", "the denoising step is x + σ s, not x + σ² s", {"end": "denoised by σ"}),
        ("denoising_scale", "the denoising step is taken at the first scale, where the last is needed",
         {"end": "denoised at the first"}),
        ("denoising_half", "the denoising step is x + σ²/2 s: Tweedie's formula has no ½", {"end": "half denoised"}),
        ("denoising_half", "the denoising step is x + 2σ² s: Tweedie's formula has no 2", {"end": "twice denoised"}),
        ("noise_sigma", "the noise is multiplied by σᵢ besides √(2α)", {"louder": lambda sigma: sigma}),
        ("noise_sigma", "the noise is σᵢ z, where √(2α) z is needed",
         {"louder": lambda sigma: sigma, "kick": lambda a: 1.0}),
        ("uniform_noise", "the noise is drawn with rand, uniform on [0, 1], not with randn",
         {"law": (0.5, 12**-0.5, 1.8)}),
    ])  # fmt: skip


def _refuse_quiet_end(spread, quiet, n):
    """Refuse chains that lack the last noise, of which the denoising leaves too little to be seen in one coordinate."""
    off, error = spread.mean() - 1, (2 * n) ** -0.5
    if off.abs() > 5 * error:
        silent = (spread.mean() - quiet.mean()).abs() < 5 * error
        words = (
            "the last step at the last scale has no noise" if silent else "the noise has not the size it should have"
        )
        raise Refusal(
            f"the noise at the end has, over all coordinates, {spread.mean():.3f} ± {error:.3f} times the "
            f"standard deviation of the right one: {words}",
            "no_last_noise" if silent else None,
        )


def _refuse_normalised(run, score, x, generator):
    """Refuse a sampler to which a score of twice the length is the same."""
    seed = child(generator)
    state = torch.random.get_rng_state()
    ends = []
    for factor in (1.0, 2.0):
        torch.random.set_rng_state(state)
        ends.append(run(x, 1, seed.clone_state(), lambda x, factor=factor: factor * score(x)))
    if torch.allclose(*ends, rtol=1e-9, atol=1e-9) and not torch.allclose(ends[0], x):
        raise Refusal(
            "a score of twice the length changes nothing: it is divided by its norm, where its length is part of the "
            "step ε s(x)",
            "normalised_score",
        )


def _starts(n, d, generator) -> Tensor:
    """Starts of both signs in equal number, far out, each coordinate in an order of its own."""
    signs = torch.ones(n, d, dtype=_DOUBLE)
    signs[: n // 2] = -1
    order = torch.rand(n, d, generator=generator, dtype=_DOUBLE).argsort(0)
    return _START * signs.gather(0, order)


def _chain(variances, path, *, noise="fresh", stale="") -> tuple[Tensor, Tensor, Tensor]:
    """Factor of the start, standard deviation of the noise, and sum of its coefficients, after linear steps.

    Args:
        variances: of the target's coordinates.
        path: for each step the factor of the score, that of the noise, and the scale of noise that the score is given.
        noise: ``"fresh"`` in each step; ``"same"`` in all, or in as many as a number says; in the ``"last"`` alone, or
            in all but it, with a ``"quiet end"``.
        stale: where the score is asked: at the ``"start"``, or at the state ``"before"``; else at the present one.
    """
    state = torch.zeros(len(path) + 1, len(variances), dtype=_DOUBLE)
    state[0] = 1.0
    start = before = state
    with_noise = [k for k, (_, kick, _) in enumerate(path) if kick]
    for k, (drift, kick, sigma) in enumerate(path):
        at = {"start": start, "before": before}.get(stale, state)
        new = state - drift / (variances + sigma**2) * at
        row = 1 if noise == "same" else k // noise + 1 if isinstance(noise, int) else k + 1
        last = k == with_noise[-1] if with_noise else False
        if (noise != "last" or last) and (noise != "quiet end" or not last):
            new[row] += kick
        before, state = state, new
    return state[0], state[1:].norm(dim=0), state[1:].sum(0)


def _told(name, chain, law) -> dict[str, Tensor]:
    """What is measured of a chain whose noise has the mean and the standard deviation of a law."""
    factor, std, total = chain
    return {
        f"factor of the start {name}": factor,
        f"mean of the noise {name}": law[0] * total,
        f"standard deviation of the noise {name}": law[1] * std,
    }


def _answers(name, x, result, factor, std, variances, *, shape=False) -> list[Answer]:
    """Measure the factor of the start and the moments of what is added to it, per coordinate."""
    n, d = x.shape
    floor = 1e-9 * _START
    # Starts of equal number and opposite sign: factor and mean are estimated independently.
    slope, mean = (result * x).mean(0) / _START**2, result.mean(0)
    noise = result - slope * x - mean
    spread = (noise.square().sum(0) / (n - 2)).sqrt()
    spread = torch.where(spread > 1e-6 * _START, spread, 0.0)  # rounding is no noise
    error, right = spread / math.sqrt(n), std / math.sqrt(n)

    def where(row):
        return f"a coordinate of variance {variances[row].item():.3g}"

    answers = [
        Answer(f"factor of the start {name}", slope, factor, error / _START, 1e-6, right / _START, where),
        Answer(f"mean of the noise {name}", mean, torch.zeros(d, dtype=_DOUBLE), error, 1e-6, right, where),
        Answer(
            f"standard deviation of the noise {name}",
            spread,
            std,
            spread / math.sqrt(2 * n),
            floor,
            std / math.sqrt(2 * n),
            where,
        ),
    ]
    if shape and bool((spread > 0).all()):
        fourth, truth = ((noise / spread) ** 4).mean(), torch.tensor(3.0, dtype=_DOUBLE)
        answers.append(Answer(f"fourth moment of the noise {name}", fourth, truth, math.sqrt(96 / (n * d)), 1e-3))
    return answers


def _refuse_dependent(run, x, answers, results, factor, std, generator):
    """Refuse noise that is not drawn anew for each call, chain and coordinate; ``results`` are those of two calls."""
    if not (answers[0].holds and answers[1].holds):  # what the chains make of their starts is not known
        factor = (results[0] * x).mean(0) / _START**2
        results = (*results, run(x.flip(0), child(generator)).flip(0))
    refuse_dependent_noise(*((result - factor * x) / std for result in results))
