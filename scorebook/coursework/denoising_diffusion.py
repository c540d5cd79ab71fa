r"""Checks of diffusion in discrete levels: what a network predicts, and the steps of DDPM and DDIM.

Level :math:`i` of a schedule :math:`\beta_0, \dots, \beta_{T-1}` is a noised point with

.. math:: x_i = \sqrt{\bar\alpha_i}\,x_0 + \sqrt{1 - \bar\alpha_i}\;\epsilon, \qquad
          \bar\alpha_i = \prod_{k \le i} (1 - \beta_k),

and level :math:`-1` the clean point, :math:`\bar\alpha_{-1} = 1`. A network's prediction is whatever the check makes
up, so the mean of a step is known at every point, for the right code and for each wrong one; many copies of a point
tell it from the noise.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.problems import child, refuse_coupled_rows, refuse_dependent_noise, seeded
from scorebook.coursework.reports import Answer, Report, judge, slips, spelt
from scorebook.lab.arguments import as_given, one_of, standard_normal, uniform
from scorebook.lab.types import Integer, Number

__all__ = ["check_conversion", "check_ddim_step", "check_ddpm_step"]

_DOUBLE = torch.float64
_KINDS = ("noise", "clean", "score", "v")
_Entries = list[tuple[str, str, dict[str, Any]]]


def check_conversion(
    convert: Callable[..., Any], conversion: str, *, seed: Integer = 0, time_limit: Number | None = 30.0
) -> Report:
    r"""Hold the conversion of one prediction of a network into another against its formula.

    .. math:: x = \sqrt{\bar\alpha}\,\hat x_0 + \sqrt{1 - \bar\alpha}\;\hat\epsilon, \qquad
              \hat s = -\frac{\hat\epsilon}{\sqrt{1 - \bar\alpha}}, \qquad
              \hat v = \sqrt{\bar\alpha}\,\hat\epsilon - \sqrt{1 - \bar\alpha}\;\hat x_0

    Args:
        convert: the student's callable ``convert(x, prediction, alpha_bar) -> tensor like x``; ``x`` and ``prediction``
            have shape ``(B, d)``, ``alpha_bar`` has shape ``(B, 1)``.
        conversion: which one, such as ``"noise to score"``: two of ``"noise"``, ``"clean"``, ``"score"`` and ``"v"``.
        seed: of points, predictions and levels.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Raises:
        ValueError: if ``conversion`` is not two of the kinds.

    Source: Salimans & Ho (2022), section 4 and appendix D.
    """
    kinds = [f"{one} to {other}" for one in _KINDS for other in _KINDS if one != other]
    one_of("conversion", conversion, kinds)
    source, target = conversion.split(" to ")
    student = Student("convert(x, prediction, alpha_bar)", ("Beyond this book", "Five predictions, one table"))
    generator = seeded(seed)

    def check():
        n, d = 24, 3
        x, prediction = standard_normal((2, n, d), generator=generator, dtype=_DOUBLE)
        alpha_bar = (0.05 + 0.9 * uniform((n, 1), generator=generator, dtype=_DOUBLE)).clone()
        result = student.call(convert, x.clone(), prediction.clone(), alpha_bar.clone())
        values = student.tensor(result, x.shape, f"the {target} that you return")
        name = {"noise": "noise", "clean": "clean point", "score": "score", "v": "v"}[target]

        def formula(**parts):
            return {name: _converted(source, target, x, prediction, alpha_bar, **parts)}

        def where(row):
            return f"x = {spelt(x[row])}, {source} = {spelt(prediction[row])}, ᾱ = {alpha_bar[row].item():.3g}"

        truth = formula()[name]
        return judge(
            "check_conversion",
            [Answer.exact(name, values, truth, 1e-4, where=where)],
            slips(formula, _distinct(formula, _conversions_mistaken(source, target))),
            verified=f"your conversion from {conversion} is right at all levels",
        )

    return under_guard("check_conversion", check, student, time_limit=time_limit)


def _converted(
    source,
    target,
    x,
    p,
    bar,
    a=torch.sqrt,
    s=lambda bar: (1 - bar).sqrt(),
    given=1.0,
    turn=1.0,
    over_alpha=1.0,
    over_sigma=1.0,
    x_factor=1.0,
    square=2,
    plus=-1.0,
    crossed=False,
    read_crossed=False,
    state=False,
    unchanged=0.0,
):
    """A conversion, each part of which may be wrong."""
    alpha, sigma, p = a(bar), s(bar), given * p
    if unchanged:
        return p
    noise, clean = p, p
    if source == "noise":
        clean = (x_factor * x - sigma * p) / alpha**over_alpha
    elif source == "clean":
        noise = (x_factor * x - alpha**over_alpha * p) / sigma**over_sigma
    elif source == "score":
        noise, clean = -(sigma**over_sigma) * p, (x_factor * x + sigma**square * p) / alpha**over_alpha
    else:
        clean, noise = alpha * x - sigma * p, sigma * x + alpha * p
        if read_crossed:
            clean, noise = sigma * x - alpha * p, alpha * x + sigma * p
    clean = x if state else clean
    if target == "v":
        return turn * (sigma * noise + plus * alpha * clean if crossed else alpha * noise + plus * sigma * clean)
    if target == "score":
        return -turn * noise / sigma ** (square - 1 if source != "score" else 1)
    return turn * {"clean": clean, "noise": noise}[target]


def _conversions_mistaken(source, target) -> _Entries:
    sign = "v_sign" if target == "v" else "sign"
    entries: _Entries = [
        ("unchanged", "the prediction is returned as it is", {"unchanged": 1.0}),
        (sign, "the sign is wrong", {"turn": -1.0}),
    ]
    if source == "v":
        entries.append(("v_sign", "the v that you are given has the wrong sign", {"given": -1.0}))
        words = "√ᾱ and √(1 − ᾱ) have changed places where the noise is told from v: ε = √(1 − ᾱ) x + √ᾱ v"
        entries.append(("swapped", words, {"read_crossed": True}))
    else:
        entries.append(("sign", "the prediction enters with the wrong sign", {"given": -1.0}))
    if target == "v":
        words = "the noisy state x stands in v where the clean point belongs: v = √ᾱ ε − √(1 − ᾱ) x₀"
        entries.append(("state_for_clean", words, {"state": True}))
        entries.append(("v_sign", "the two terms of v are added: it is √ᾱ ε − √(1 − ᾱ) x₀", {"plus": 1.0}))
        entries.append(
            ("swapped", "√ᾱ and √(1 − ᾱ) have changed places in v: it is √ᾱ ε − √(1 − ᾱ) x₀", {"crossed": True})
        )
    if target == "score":
        entries += [
            ("no_sigma", "the noise is not divided by √(1 − ᾱ)", {"square": 1}),
            ("no_root", "the noise is divided by 1 − ᾱ, where its root is needed", {"square": 3}),
            ("inverse", "the noise is multiplied by √(1 − ᾱ), not divided", {"square": 0}),
        ]
    if source == "score":
        entries += [
            ("no_sigma", "the score is not multiplied by √(1 − ᾱ)", {"over_sigma": 0.0}),
            ("no_root", "the score is multiplied by 1 − ᾱ, where its root is needed", {"over_sigma": 2.0}),
            ("std_for_variance", "the score is multiplied by √(1 − ᾱ), where 1 − ᾱ is needed", {"square": 1}),
            ("no_sigma", "the score is not multiplied by 1 − ᾱ", {"square": 0}),
        ]
    if source == "clean":
        entries += [
            ("no_sigma", "the difference is not divided by √(1 − ᾱ)", {"over_sigma": 0.0}),
            ("no_root", "the difference is divided by 1 − ᾱ, where its root is needed", {"over_sigma": 2.0}),
            ("inverse", "the difference is multiplied by √(1 − ᾱ), not divided", {"over_sigma": -1.0}),
            ("no_alpha", "the clean point is not multiplied by √ᾱ", {"over_alpha": 0.0}),
        ]
    if source in ("noise", "score"):
        entries.append(("no_alpha", "the division by √ᾱ is missing", {"over_alpha": 0.0}))
        entries.append(("inverse", "√ᾱ multiplies, where it should divide", {"over_alpha": -1.0}))
        entries.append(("no_root", "the division is by ᾱ, where its root is needed", {"over_alpha": 2.0}))
    entries += [
        ("no_root", "ᾱ and 1 − ᾱ stand where their roots are needed", {"a": lambda b: b, "s": lambda b: 1 - b}),
        ("no_root", "1 − ᾱ stands where its root is needed", {"s": lambda b: 1 - b}),
        ("no_root", "ᾱ stands where its root is needed", {"a": lambda b: b}),
        ("sigma_from_alpha", "1 − √ᾱ stands where √(1 − ᾱ) is needed", {"s": lambda b: 1 - b.sqrt()}),
        ("sigma_from_alpha", "√(1 − √ᾱ) stands where √(1 − ᾱ) is needed", {"s": lambda b: (1 - b.sqrt()).sqrt()}),
        ("sigma_from_alpha", "√(1 − ᾱ²) stands where √(1 − ᾱ) is needed", {"s": lambda b: (1 - b**2).sqrt()}),
        ("swapped", "√ᾱ and √(1 − ᾱ) have changed places", {"a": lambda b: (1 - b).sqrt(), "s": torch.sqrt}),
        ("no_sigma", "√(1 − ᾱ) is missing", {"s": torch.ones_like}),
        ("no_alpha", "√ᾱ is missing", {"a": torch.ones_like}),
        ("no_x", "x is missing", {"x_factor": 0.0}),
    ]
    return entries


def _distinct(formula, entries) -> _Entries:
    """Entries without those that change nothing, or the same as one before."""
    seen, kept = [formula()], []
    for entry in entries:
        told = formula(**entry[2])
        if not any(_alike(told, other) for other in seen):
            seen.append(told)
            kept.append(entry)
    return kept


def _alike(one, other) -> bool:
    return all(
        torch.allclose(as_given(one[name], _DOUBLE), as_given(other[name], _DOUBLE), rtol=1e-6, atol=1e-9)
        for name in one
    )


def check_ddpm_step(step: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold the ancestral step of DDPM, with a clipped clean point, against its known law.

    .. math:: x_{i-1} = \frac{\sqrt{\bar\alpha_{i-1}}\,\beta_i}{1 - \bar\alpha_i}\,\hat x_0
              + \frac{\sqrt{1 - \beta_i}\,(1 - \bar\alpha_{i-1})}{1 - \bar\alpha_i}\,x_i
              + \sqrt{\frac{1 - \bar\alpha_{i-1}}{1 - \bar\alpha_i}\,\beta_i}\;z

    where :math:`\hat x_0 = (x_i - \sqrt{1 - \bar\alpha_i}\,\hat\epsilon)/\sqrt{\bar\alpha_i}` is clipped to
    :math:`[-1, 1]`. The step to the clean point, :math:`i = 0`, has no noise.

    Args:
        step: the student's callable ``step(model, x, i, betas, *, generator) -> tensor like x``: the state at level
            ``i - 1``. ``model(x, i)`` predicts the noise, ``x`` has shape ``(B, d)``, ``i`` is an integer from 0 on,
            ``betas`` has shape ``(T,)``. It may do without ``generator``.
        seed: of schedule, states and noise.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Ho et al. (2020), eqs. 6 and 7.
    """
    student = Student("step(model, x, i, betas, generator=generator)", ("Beyond this book", "DDPM: the ancestral step"))
    generator = seeded(seed)

    def check():
        betas = 0.06 + 0.05 * uniform((6,), generator=generator, dtype=_DOUBLE)
        betas = betas + 0.06 * torch.arange(6, dtype=_DOUBLE)[torch.randperm(6, generator=generator)]
        cases = [_Case(student, step, generator, i, (betas,), {}, f"level {i}") for i in (4, 2, 0)]
        return _judged("check_ddpm_step", cases, _ancestral(betas), generator, "your step is that of DDPM")

    return under_guard("check_ddpm_step", check, student, time_limit=time_limit)


def check_ddim_step(step: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold a step of DDIM from any level to any lower one against its known law.

    .. math:: x_j = \sqrt{\bar\alpha_j}\,\hat x_0 + \sqrt{1 - \bar\alpha_j - \varsigma^2}\;\hat\epsilon + \varsigma z,
              \qquad \varsigma = \eta \sqrt{\frac{1 - \bar\alpha_j}{1 - \bar\alpha_i}
              \left(1 - \frac{\bar\alpha_i}{\bar\alpha_j}\right)}

    where :math:`\hat x_0 = (x_i - \sqrt{1 - \bar\alpha_i}\,\hat\epsilon)/\sqrt{\bar\alpha_i}`, not clipped, and
    :math:`\bar\alpha_{-1} = 1`. With :math:`\eta = 0` nothing is drawn, with :math:`\eta = 1` and :math:`j = i - 1` it
    is DDPM's.

    Args:
        step: the student's callable ``step(model, x, i, j, alpha_bars, *, eta, generator) -> tensor like x``: the state
            at level ``j < i``, where ``j = -1`` is the clean point. ``model(x, i)`` predicts the noise, ``x`` has shape
            ``(B, d)``, ``alpha_bars`` has shape ``(T,)``. It may do without ``generator``.
        seed: of schedule, states and noise.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Song, Meng & Ermon (2021), eqs. 12 and 16.
    """
    student = Student(
        "step(model, x, i, j, alpha_bars, eta=..., generator=generator)",
        ("Beyond this book", "DDIM: the flow, with its linear part solved"),
    )
    generator = seeded(seed)

    def check():
        bars = torch.cumprod(0.8 + 0.1 * uniform((7,), generator=generator, dtype=_DOUBLE), 0)
        cases = [
            _Case(student, step, generator, i, (j, bars), {"eta": eta}, f"the step from {i} to {j} with η = {eta}")
            for i, j, eta in ((5, 3, 0.0), (5, 2, 0.6), (3, 1, 1.0), (2, -1, 0.6))
        ]
        verified = "your step is that of DDIM, from level to level and to the clean point"
        return _judged("check_ddim_step", cases, _implicit(bars), generator, verified)

    return under_guard("check_ddim_step", check, student, time_limit=time_limit)


class _Case:
    """A step of the student from many copies of a few points, and what is seen of it."""

    copies = 128

    def __init__(self, student, step, generator, i, places, options, name):
        self.student, self.step, self.i, self.places, self.options = student, step, i, places, options
        self.name, self.asked = name, []
        n, d = 24, 4
        self.x = 1.2 * standard_normal((n, d), generator=generator, dtype=_DOUBLE)
        self.phase = 6.0 * torch.rand(d, generator=generator, dtype=_DOUBLE)
        self.new = self.run(self.x.repeat_interleave(self.copies, 0), child(generator))
        self.refuse_other_levels()
        groups = self.new.reshape(n, self.copies, d)
        self.mean, self.rest = groups.mean(1), groups - groups.mean(1, keepdim=True)
        spread = (self.rest.square().sum() / (n * d * (self.copies - 1))).sqrt()
        self.spread = spread if spread > 1e-5 else 0 * spread  # rounding is no noise

    def model(self, x, i):
        """What stands for a network that predicts noise."""
        self.asked.append(i)
        return 1.3 * torch.sin(2.0 * x + self.phase)

    def run(self, x, source):
        """The student's next states."""
        given = [part.clone() if isinstance(part, Tensor) else part for part in self.places]
        result = self.student.call(self.step, self.model, x.clone(), self.i, *given, **self.options, generator=source)
        return self.student.tensor(result, x.shape, "what your step returns")

    def refuse_other_levels(self):
        """Refuse a network that is asked at another level."""
        for asked in self.asked:
            levels = as_given(asked, _DOUBLE).flatten()
            if bool((levels != self.i).any()):
                raise Refusal(
                    f"the network is asked at level {levels[0].item():.4g}, where the level of the state is {self.i}",
                    "off_by_one" if abs(levels[0].item() - self.i) == 1 else "wrong_level",
                )


@dataclasses.dataclass(frozen=True)
class _Law:
    """Mean and noise of a step, as a formula of its parts, and the usual mistakes."""

    mean: Callable[..., Tensor]
    std: Callable[..., Any]
    entries: Callable[[Sequence[_Case]], _Entries]


def _judged(name, cases, law, generator, verified) -> Report:
    if not any(case.asked for case in cases):
        raise Refusal("the network is never asked", "no_model")

    def formula(draws=(0.0, 1.0, 3.0), last=None, **parts):
        stds = [torch.as_tensor(law.std(case, **parts), dtype=_DOUBLE) for case in cases]
        if last is not None:
            stds[-1] = last
        told = {
            f"mean of the state after {case.name}": law.mean(case, **parts) + draws[0] * std
            for case, std in zip(cases, stds, strict=True)
        }
        fourth = torch.stack([torch.tensor(draws[2] if std > 0 else 3.0, dtype=_DOUBLE) for std in stds])
        return told | {"noise's standard deviation": draws[1] * torch.stack(stds), "noise's fourth moment": fourth}

    truth = formula()
    answers = []
    for case, right in zip(cases, truth["noise's standard deviation"], strict=True):
        quantity, root = f"mean of the state after {case.name}", case.copies**0.5

        def where(row, case=case):
            return f"x = {spelt(case.x[row])}"

        answers.append(
            Answer(quantity, case.mean, truth[quantity], case.spread / root, 1e-4, right / root, where=where)
        )
    n = cases[0].new.numel()
    spreads = torch.stack([case.spread for case in cases])

    def place(row):
        return cases[row].name

    right = truth["noise's standard deviation"]
    answers.append(
        Answer(
            "noise's standard deviation", spreads, right, spreads / (2 * n) ** 0.5, 1e-4, right / (2 * n) ** 0.5, place
        )
    )
    noisy = spreads > 0
    if bool(noisy.any()):
        fourth = torch.stack([((c.rest / c.spread) ** 4).mean() if c.spread > 0 else torch.tensor(3.0) for c in cases])
        error = 5 * math.sqrt(96 / n) * 0.2  # four fifths of the copies' own mean are taken off
        expected = torch.full_like(fourth, 3.0, dtype=_DOUBLE)
        answers.append(Answer("noise's fourth moment", fourth.to(_DOUBLE), expected, error, 0.06, where=place))
    entries = _distinct(formula, law.entries(cases))
    if spreads[-1] > 1e-3:
        entries.append(("noisy_end", "the last step, to the clean point, has noise", {"last": spreads[-1]}))
    report = judge(name, answers, slips(formula, entries), verified=verified)
    if not report.passed and report.mistake is None:
        _refuse_clipped(cases)
    if report.mistake is None:
        for case in cases:
            rows = case.x.repeat_interleave(8, 0)
            refuse_coupled_rows(case.run, rows, generator)
            again = case.run(case.x.repeat_interleave(case.copies, 0), child(generator))
            if case.spread == 0 and (again - case.new).abs().max() > 1e-3:
                raise Refusal(
                    f"all points of the batch get the same noise after {case.name}: draw it in the shape of x",
                    "shared_noise",
                )
            if case.spread > 0:
                again = again.reshape(case.rest.shape) - case.mean.unsqueeze(1)
                refuse_dependent_noise(
                    *(part.transpose(0, 1).reshape(-1, part.shape[2]) / case.spread for part in (case.rest, again))
                )
    return report


def _refuse_clipped(cases):
    """Refuse states of which none lies outside [-1, 1] and many on its ends: they were clipped, noise and all."""
    states = torch.cat([case.new.flatten() for case in cases]).abs()
    if states.max() <= 1 + 1e-6 and (states > 1 - 1e-6).double().mean() > 0.05:
        raise Refusal(
            "the next state is clipped to [−1, 1], noise and all: it is the clean point that is clipped, before the "
            "state is made of it",
            "clipped_state",
        )


_NO_ROOT_CLEAN = "ᾱ and 1 − ᾱ stand in the clean point where their roots are needed"


def _clean_parts(limits) -> _Entries:
    """Mistakes in reading the clean point off the noise."""
    return [
        ("no_root", _NO_ROOT_CLEAN, {"read": lambda x, e, now: (x - (1 - now) * e) / now}),
        ("no_root", "1 − ᾱ stands in the clean point where its root is needed",
         {"read": lambda x, e, now: (x - (1 - now) * e) / now.sqrt()}),
        ("no_root", "ᾱ stands in the clean point where its root is needed",
         {"read": lambda x, e, now: (x - (1 - now).sqrt() * e) / now}),
        ("no_alpha", "the clean point is not divided by √ᾱ", {"read": lambda x, e, now: x - (1 - now).sqrt() * e}),
        ("no_sigma", "the noise in the clean point lacks its √(1 − ᾱ)",
         {"read": lambda x, e, now: (x - e) / now.sqrt()}),
        ("sign", "the predicted noise is added to the state, not taken away",
         {"read": lambda x, e, now: (x + (1 - now).sqrt() * e) / now.sqrt()}),
        ("swapped", "√ᾱ and √(1 − ᾱ) have changed places in the clean point",
         {"read": lambda x, e, now: (x - now.sqrt() * e) / (1 - now).sqrt()}),
        ("clean_for_noise", "the network's prediction is taken for the clean point: it predicts the noise",
         {"read": lambda x, e, now: e}),
        *limits,
    ]  # fmt: skip


def _read(x, e, now):
    return (x - (1 - now).sqrt() * e) / now.sqrt()


def _ancestral(betas) -> _Law:
    one = torch.ones((), dtype=_DOUBLE)

    def levels(i, betas=betas):
        bars = torch.cumprod(1 - betas, 0)
        return bars[i], bars[i - 1] if i > 0 else one, betas[i]

    def shifted(by):
        def of(i):
            k = min(max(i + by, 0), len(betas) - 1)
            now, before, beta = levels(k)
            return (one, one, 0 * one) if i + by < 0 else (now, before, beta)

        return of

    def clip(clean):
        return clean.clamp(-1, 1)

    def noise(case):
        return 1.3 * torch.sin(2.0 * case.x + case.phase)

    def combine(x, e, clean, now, before, beta):
        return before.sqrt() * beta / (1 - now) * clean + (1 - beta).sqrt() * (1 - before) / (1 - now) * x

    def posterior(now, before, beta):
        return (beta * (1 - before) / (1 - now)).clamp(min=0).sqrt()

    def mean(case, at=levels, read=_read, clip=clip, combine=combine, after=lambda m: m, std=None):
        now, before, beta = at(case.i)
        if now == 1:  # a level of no noise, to which some fall back
            return case.x
        x, e = case.x, noise(case)
        return after(combine(x, e, clip(read(x, e, now)), now, before, beta))

    def std(case, at=levels, std=posterior, **parts):
        now, before, beta = at(case.i)
        return std(now, before, beta) if case.i > 0 else 0 * one

    def direction(x, e, clean, now, before, beta):
        return before.sqrt() * clean + (1 - before - posterior(now, before, beta) ** 2).clamp(min=0).sqrt() * e

    def entries(cases) -> _Entries:
        def bars_of(make):
            def of(i):
                bars = make(betas)
                return bars[i], bars[i - 1] if i > 0 else one, betas[i]

            return of

        off = "the levels are one off: ᾱ and β are those of level i {}"
        return [
            ("beta_for_posterior", "the variance is β, where (1 − ᾱᵢ₋₁)/(1 − ᾱᵢ) β is needed",
             {"std": lambda now, before, beta: beta.sqrt()}),
            ("no_root", "the noise is multiplied by the variance, not by its root",
             {"std": lambda now, before, beta: posterior(now, before, beta) ** 2}),
            ("no_root", "the noise is multiplied by β", {"std": lambda now, before, beta: beta}),
            ("no_noise", "there is no noise", {"std": lambda now, before, beta: 0 * beta}),
            ("no_scale", "the noise is z, without its standard deviation", {"std": lambda now, before, beta: one}),
            ("inverse", "the ratio in the variance stands upside down",
             {"std": lambda now, before, beta: (beta * (1 - now) / (1 - before).clamp(min=1e-9)).sqrt()}),
            ("posterior_ratio", "the variance is (1 − ᾱᵢ₋₁)/(1 − ᾱᵢ), without β",
             {"std": lambda now, before, beta: ((1 - before) / (1 - now)).sqrt()}),
            ("off_by_one", off.format("− 1"), {"at": shifted(-1)}),
            ("off_by_one", off.format("+ 1"), {"at": shifted(1)}),
            ("last_level", "ᾱ₋₁ is the last entry of ᾱ, by the index −1; the level before the first is the clean point "
             "with ᾱ = 1", {"at": lambda i: (levels(i)[0], torch.cumprod(1 - betas, 0)[i - 1], betas[i])}),
            ("off_by_one", "ᾱᵢ₋₁ is that of level i itself", {"at": lambda i: (levels(i)[0], levels(i)[0], betas[i])}),
            ("off_by_one", "ᾱᵢ₋₁ is that of level i − 2",
             {"at": lambda i: (levels(i)[0], levels(i - 1)[1] if i > 0 else one, betas[i])}),
            ("off_by_one", "β is that of level i − 1",
             {"at": lambda i: (levels(i)[0], levels(i)[1], betas[max(i - 1, 0)])}),
            ("alpha_for_alpha_bar", "1 − β stands for ᾱ: the product over the levels is missing",
             {"at": bars_of(lambda b: 1 - b)}),
            ("beta_for_alpha_bar", "β stands for ᾱ", {"at": bars_of(lambda b: b)}),
            ("beta_for_alpha_bar", "ᾱ is the product of β, not of 1 − β",
             {"at": bars_of(lambda b: torch.cumprod(b, 0))}),
            ("root_of_alpha_bar", "√ᾱ stands for ᾱ throughout",
             {"at": bars_of(lambda b: torch.cumprod(1 - b, 0).sqrt())}),
            ("sum_for_product", "ᾱ is 1 − Σ β, where the product of 1 − β is needed",
             {"at": bars_of(lambda b: (1 - torch.cumsum(b, 0)).clamp(min=1e-6))}),
            *_clean_parts([
                ("no_clipping", "the clean point is not clipped to [−1, 1]", {"clip": lambda clean: clean}),
                ("clipped_state", "the next state is clipped, where the clean point should be",
                 {"clip": lambda clean: clean, "after": lambda m: m.clamp(-1, 1)}),
                ("clipped_state", "the next state is clipped, too", {"after": lambda m: m.clamp(-1, 1)}),
                ("clipping_range", "the clean point is clipped to [0, 1]", {"clip": lambda clean: clean.clamp(0, 1)}),
            ]),
            ("swapped", "the weights of the clean point and of the state have changed places",
             {"combine": lambda x, e, clean, now, before, beta: combine(clean, e, x, now, before, beta)}),
            ("no_root", "the weights hold ᾱᵢ₋₁ and 1 − β where their roots are needed",
             {"combine": lambda x, e, c, now, before, beta: (before * beta * c + (1 - beta) * (1 - before) * x)
              / (1 - now)}),
            ("no_root", "the weight of the clean point holds ᾱᵢ₋₁ where its root is needed",
             {"combine": lambda x, e, c, now, before, beta: (before * beta * c
              + (1 - beta).sqrt() * (1 - before) * x) / (1 - now)}),
            ("no_root", "the weight of the state holds 1 − β where its root is needed",
             {"combine": lambda x, e, c, now, before, beta: (before.sqrt() * beta * c
              + (1 - beta) * (1 - before) * x) / (1 - now)}),
            ("stale_noise", "the predicted noise is used beside the clipped clean point: tell it anew from the latter",
             {"combine": direction}),
            ("variance_not_taken", "the clean point is noised by the prediction to the next level, and noise is added",
             {"combine": lambda x, e, c, now, before, beta: before.sqrt() * c + (1 - before).sqrt() * e}),
            ("clean_only", "the clean point is returned, not the next state",
             {"combine": lambda x, e, c, now, before, beta: c}),
            ("clean_only", "the clean point is scaled to the next level and noised, and the state x is left out",
             {"combine": lambda x, e, c, now, before, beta: before.sqrt() * c}),
            ("alpha_bar_for_alpha", "√ᾱᵢ stands in the weight of the state where √(1 − βᵢ) is needed",
             {"combine": lambda x, e, c, now, before, beta: (before.sqrt() * beta * c
              + now.sqrt() * (1 - before) * x) / (1 - now)}),
            ("uniform_noise", "the noise is drawn with rand, uniform on [0, 1], not with randn",
             {"draws": (0.5, 12**-0.5, 1.8)}),
            ("uniform_noise", "the noise is uniform on [−1, 1], not normal", {"draws": (0.0, 3**-0.5, 1.8)}),
        ]  # fmt: skip

    return _Law(mean, std, entries)


def _implicit(bars) -> _Law:
    one = torch.ones((), dtype=_DOUBLE)

    def level(k):
        return bars[k] if k >= 0 else one

    def at(i, j):
        return level(i), level(j)

    def size(now, then, eta):
        return eta * ((1 - then) / (1 - now) * (1 - now / then)).clamp(min=0).sqrt()

    def signal(then):
        return then.sqrt()

    def kept(then, std):
        return (1 - then - std**2).clamp(min=0).sqrt()

    def mean(case, at=at, read=_read, clip=lambda c: c, signal=signal, kept=kept, size=size, to=None, std=None):
        now, then = at(case.i, case.places[0])
        x, e, kick = case.x, 1.3 * torch.sin(2.0 * case.x + case.phase), size(now, then, case.options["eta"])
        reached = then if to is None else to(now, then)
        return signal(reached) * clip(read(x, e, now)) + kept(reached, kick) * e

    def std(case, at=at, size=size, std=None, **parts):
        now, then = at(case.i, case.places[0])
        kick = size(now, then, case.options["eta"])
        return kick if std is None else std(kick, then)

    def entries(cases) -> _Entries:
        return [
            ("fresh_noise", "fresh noise takes the place of the predicted one: the step back uses the same noise again",
             {"kept": lambda then, std: 0 * then, "std": lambda kick, then: (1 - then).sqrt()}),
            ("eta_ignored", "η is ignored: nothing is drawn", {"size": lambda now, then, eta: size(now, then, 0.0)}),
            ("eta_ignored", "η is ignored: it is always 1", {"size": lambda now, then, eta: size(now, then, 1.0)}),
            ("eta_inverted", "1 − η stands for η", {"size": lambda now, then, eta: size(now, then, 1 - eta)}),
            ("no_noise", "the noise ς z is missing, though its variance is taken off",
             {"std": lambda kick, then: 0 * kick}),
            ("variance_not_taken", "the variance ς² of the fresh noise is not taken off from 1 − ᾱⱼ",
             {"kept": lambda then, std: (1 - then).sqrt()}),
            ("std_for_variance", "ς stands for ς² beneath the root",
             {"kept": lambda then, std: (1 - then - std).clamp(min=0).sqrt()}),
            ("std_for_variance", "ς is taken off outside the root",
             {"kept": lambda then, std: (1 - then).sqrt() - std}),
            ("eta_squared", "η stands beneath the root", {"size": lambda now, then, eta: size(now, then, eta**0.5)}),
            ("eta_squared", "η is squared", {"size": lambda now, then, eta: size(now, then, eta**2)}),
            ("beta_for_posterior", "ς lacks (1 − ᾱⱼ)/(1 − ᾱᵢ): its square is 1 − ᾱᵢ/ᾱⱼ",
             {"size": lambda now, then, eta: eta * (1 - now / then).clamp(min=0).sqrt()}),
            ("posterior_ratio", "ς lacks 1 − ᾱᵢ/ᾱⱼ",
             {"size": lambda now, then, eta: eta * ((1 - then) / (1 - now)).sqrt()}),
            ("no_root", "ς lacks its root",
             {"size": lambda now, then, eta: eta * ((1 - then) / (1 - now) * (1 - now / then)).clamp(min=0)}),
            ("no_root", "the noise is multiplied by ς², not by ς", {"std": lambda kick, then: kick**2}),
            ("no_scale", "the noise is η z, without the root", {"size": lambda now, then, eta: eta * one}),
            ("no_root", "the weight of the clean point is ᾱⱼ, where its root is needed", {"signal": lambda then: then}),
            ("no_root", "the weight of the predicted noise lacks its root",
             {"kept": lambda then, std: (1 - then - std**2).clamp(min=0)}),
            ("no_root", "ᾱ stands where its root is needed, in the clean point and in its weight",
             {"signal": lambda then: then, "read": lambda x, e, now: (x - (1 - now) * e) / now}),
            ("no_root", "ᾱ stands where its root is needed, in the clean point and in its weight",
             {"signal": lambda then: then, "read": lambda x, e, now: (x - (1 - now).sqrt() * e) / now}),
            ("no_alpha", "the clean point lacks its weight √ᾱⱼ", {"signal": torch.ones_like}),
            ("no_direction", "the predicted noise is missing beside the clean point",
             {"kept": lambda then, std: 0 * then}),
            ("direction_sign", "the predicted noise beside the clean point has the wrong sign",
             {"kept": lambda then, std: -kept(then, std)}),
            ("same_level", "the state is noised again to level i, not to level j",
             {"at": lambda i, j: (level(i), level(i))}),
            ("same_level", "clean point and noise are put together at level i again, not at level j",
             {"to": lambda now, then: now}),
            ("last_level", "ᾱ₋₁ is the last entry of alpha_bars, where level −1 is the clean point with ᾱ = 1",
             {"at": lambda i, j: (level(i), bars[j])}),
            ("off_by_one", "the level that is reached is j + 1", {"at": lambda i, j: (level(i), level(j + 1))}),
            ("off_by_one", "the level that is reached is j − 1",
             {"at": lambda i, j: (level(i), level(max(j - 1, -1)))}),
            ("off_by_one", "the level of the state is taken to be i − 1",
             {"at": lambda i, j: (level(i - 1), level(j))}),
            ("off_by_one", "the level of the state is taken to be i + 1",
             {"at": lambda i, j: (level(i + 1), level(j))}),
            ("off_by_one", "the level that is reached is i − 1, whatever j",
             {"at": lambda i, j: (level(i), level(i - 1))}),
            ("beta_for_alpha_bar", "1 − ᾱ stands for ᾱ", {"at": lambda i, j: (1 - level(i), 1 - level(j))}),
            *_clean_parts([
                ("clipping", "the clean point is clipped, which was not asked for", {"clip": lambda c: c.clamp(-1, 1)}),
            ]),
            ("uniform_noise", "the noise is drawn with rand, uniform on [0, 1], not with randn",
             {"draws": (0.5, 12**-0.5, 1.8)}),
            ("uniform_noise", "the noise is uniform on [−1, 1], not normal", {"draws": (0.0, 3**-0.5, 1.8)}),
        ]  # fmt: skip

    return _Law(mean, std, entries)
