r"""A check of estimates: means of draws, with and without weights, and the standard errors that they carry.

An estimate is a function of its draws, so nothing is left to chance: the draws are handed out, or noted where the
student draws them, and both numbers must be the right functions of them. Problems of four sizes tell the wrong sizes
apart.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.problems import child, seeded
from scorebook.coursework.reports import Answer, Report, judge, slips, spelt
from scorebook.lab.arguments import one_of, standard_normal, uniform
from scorebook.lab.types import Integer, Number

__all__ = ["check_estimate"]

_Kind: TypeAlias = Literal["mean", "antithetic", "importance", "self_normalised", "effective_draws"]
_KINDS = get_args(_Kind)
_CHAPTER = "Monte Carlo"
_SECTIONS = {
    "mean": "Error bars that you may believe",
    "antithetic": "The same draws, a smaller error",
    "importance": "The price of Z, once more",
    "self_normalised": "The price of Z, once more",
    "effective_draws": "The price of Z, once more",
}
_DOUBLE = torch.float64
_SIZES = (7, 11, 18, 29)
# Logarithms of weights that are common only up to a constant: the weights themselves are 0 in double precision.
_SHIFT = -2000.0
_PAIRS = (60, 400, 900)
_TOLERANCE = 1e-4


def check_estimate(
    estimate: Callable[..., Any], kind: _Kind, *, seed: Integer = 0, time_limit: Number | None = 30.0
) -> Report:
    r"""Hold an estimate and its standard error against their formulas, on draws of several sizes.

    - ``mean``: ``estimate(values) -> (mean, standard_error)`` of each column of ``values``, shape ``(N, k)``, where
      :math:`\mathrm{se}^2 = \frac{1}{N(N-1)}\sum_i (f_i - \bar f)^2`
    - ``antithetic``: ``estimate(f, n_pairs, *, generator) -> (mean, standard_error)`` of :math:`E f(z)` for a number
      :math:`z \sim N(0, 1)`, from the pairs :math:`(z, -z)`; their averages are the independent draws. ``f`` takes a
      tensor of any shape, entry by entry
    - ``importance``: ``estimate(values, log_weights) -> (mean, standard_error)``, shapes ``(N,)``, for draws from
      :math:`q` and :math:`w = p/q` with both densities normalised: the mean of :math:`w_i f_i` and its error
    - ``self_normalised``: the same where the weights are known up to a constant,
      :math:`\mu = \sum_i \bar w_i f_i` with :math:`\bar w_i = w_i / \sum_j w_j`, and
      :math:`\mathrm{se}^2 = \sum_i \bar w_i^2 (f_i - \mu)^2`, or that times :math:`N/(N-1)`
    - ``effective_draws``: ``estimate(log_weights) -> number``, :math:`(\sum_i w_i)^2 / \sum_i w_i^2`, the weights known
      up to a constant

    Args:
        estimate: the student's callable. Two numbers may come as a tuple or as an object with ``mean`` and
            ``standard_error``, of torch, NumPy or Python.
        kind: which estimate it is.
        seed: of the draws.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Raises:
        ValueError: if ``kind`` is unknown.

    Source: Owen (2013), sections 2.2, 8.2, 9.1 and 9.2; Kong (1992) for the effective number of draws.
    """
    one_of("kind", kind, _KINDS)
    arguments = {
        "mean": "values",
        "antithetic": "f, n_pairs, generator=generator",
        "effective_draws": "log_weights",
    }
    student = Student(f"estimate({arguments.get(kind, 'values, log_weights')})", (_CHAPTER, _SECTIONS[kind]))
    generator = seeded(seed)
    checks: dict[str, Callable[..., Report]] = {
        "mean": _check_mean,
        "antithetic": _check_antithetic,
        "importance": functools.partial(_check_weighted, normalised=False),
        "self_normalised": functools.partial(_check_weighted, normalised=True),
        "effective_draws": _check_effective_draws,
    }
    return under_guard(
        "check_estimate", lambda: checks[kind](student, estimate, generator), student, time_limit=time_limit
    )


def _tensor(student, value, shape, what) -> Tensor:
    """A number or an array as a tensor."""
    if isinstance(value, (np.ndarray, np.generic, float, int)) and not isinstance(value, bool):
        value = torch.as_tensor(np.asarray(value))
    if isinstance(value, (list, tuple)) and value and not any(isinstance(part, (list, tuple)) for part in value):
        value = torch.stack([_tensor(student, part, (), what) for part in value])
    return student.tensor(value, shape, what)


def _both(student, result, shape) -> tuple[Tensor, Tensor]:
    """Mean and standard error of what a student returned."""
    if hasattr(result, "mean") and hasattr(result, "standard_error"):
        result = result.mean, result.standard_error
    if result is None:
        raise Refusal("the estimate is None: is a return statement missing?", "type")
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        came = f"{len(result)} of them" if isinstance(result, (tuple, list)) else type(result).__name__
        raise Refusal(f"the estimate must be two things, the mean and its standard error, got {came}", "type")
    return _tensor(student, result[0], shape, "the mean"), _tensor(student, result[1], shape, "the standard error")


def _judged(right, measured, draws, mistakes, verified) -> Report:
    """Judge what was estimated from several lots of draws, one row each; ``right`` has each number by its name."""

    def where(row):
        return f"{len(draws[row])} draws, the first of them {spelt(draws[row].flatten()[:4])},"

    answers = [
        Answer.exact(name, torch.stack(got), truth, _TOLERANCE, where=where)
        for (name, truth), got in zip(right.items(), zip(*measured, strict=True), strict=True)
    ]
    return judge("check_estimate", answers, mistakes, verified=verified)


def _of_columns(values, centre=lambda v: v.mean(0), spread=None, ddof=1, power=0.5, over=math.sqrt, scale=1.0):
    """Mean and standard error of each column, where each part may be wrong."""
    deviation = values - values.mean(0) if spread is None else spread(values)
    variance = deviation.square().sum(0) / (len(values) - ddof)
    return centre(values), scale * variance**power / over(len(values))


def _spreads_mistaken() -> list[tuple[str, str, dict[str, Any]]]:
    """What goes wrong in the standard error of independent numbers."""
    return [
        (
            "std_for_error",
            "that is the standard deviation of the draws; the error of their mean is √N times smaller",
            {"over": lambda n: 1.0},
        ),
        (
            "population",
            "the squares are divided by N (ddof = 0); the mean was taken from the same draws, so by N − 1",
            {"ddof": 0},
        ),
        ("population", "the squares are divided by N − 2, not by N − 1", {"ddof": 2}),
        ("no_root", "the standard deviation is divided by N, where √N is needed", {"over": lambda n: n}),
        ("no_root", "the standard deviation is multiplied by √N, not divided by it", {"over": lambda n: n**-0.5}),
        (
            "wrong_n",
            "it is divided by √(N − 1), though the N − 1 stands in the variance",
            {"over": lambda n: (n - 1) ** 0.5},
        ),
        (
            "variance_for_std",
            "that is the squared error, the variance over N: take its root",
            {"power": 1.0, "over": lambda n: n},
        ),
        ("variance_for_std", "the variance, not the standard deviation, is divided by √N", {"power": 1.0}),
        ("interval", "that is half of an interval, 1.96 standard errors", {"scale": 1.96}),
        ("interval", "that is two standard errors", {"scale": 2.0}),
        ("interval", "that is a whole interval, 2 · 1.96 standard errors wide", {"scale": 3.92}),
    ]


def _check_mean(student, estimate, generator) -> Report:
    k = 3
    size = torch.tensor([0.3, 1.0, 4.0], dtype=_DOUBLE)[torch.randperm(k, generator=generator)]
    draws = []
    for n in _SIZES:
        z = standard_normal((n, k), generator=generator, dtype=_DOUBLE)
        draws.append(size * (z + 0.4 * z**2 + 1.5))
    measured = [_both(student, student.call(estimate, values.clone()), (k,)) for values in draws]

    def formula(**parts):
        columns = zip(*(_of_columns(values, **parts) for values in draws), strict=True)
        return dict(zip(("mean", "standard error"), map(torch.stack, columns), strict=True))

    right = formula()
    pooled = {"spread": lambda v: (v - v.mean()).square().mean().sqrt() * v.new_ones(len(v), k)}
    entries = [
        *_spreads_mistaken(),
        (
            "wrong_n",
            "the root is that of the number of entries, N k; a column holds N draws",
            {"over": lambda n: (n * k) ** 0.5},
        ),
        ("wrong_n", "the root is that of the number of columns, not of the draws", {"over": lambda n: k**0.5}),
        ("pooled", "one spread is taken over all columns; each quantity has its own", {**pooled, "ddof": 0}),
        (
            "pooled",
            "one spread is taken over all columns; each quantity has its own",
            {
                "spread": lambda v: (
                    (v - v.mean()).square().mean().mul(v.numel() / (v.numel() - 1)).sqrt() * v.new_ones(len(v), k)
                ),
                "ddof": 0,
            },
        ),
        (
            "pooled",
            "the mean is taken over all columns; each quantity has its own",
            {"centre": lambda v: v.mean() * v.new_ones(k)},
        ),
        ("uncentred", "the mean is not subtracted before the squares are taken", {"spread": lambda v: v, "ddof": 0}),
        ("uncentred", "the mean is not subtracted before the squares are taken", {"spread": lambda v: v}),
        ("absolute", "absolute deviations are averaged, not squares", {"spread": _mean_absolute, "ddof": 0}),
        ("sum", "that is the sum, not the mean", {"centre": lambda v: v.sum(0)}),
        ("median", "that is the median, not the mean", {"centre": lambda v: v.median(0).values}),
        ("median", "that is the median, not the mean", {"centre": lambda v: v.quantile(0.5, 0)}),
        ("wrong_divisor", "the sum is divided by N − 1, not by N", {"centre": lambda v: v.sum(0) / (len(v) - 1)}),
    ]
    return _judged(
        right,
        measured,
        draws,
        slips(formula, entries),
        "your means and standard errors are those of their formulas",
    )


def _mean_absolute(values) -> Tensor:
    return (values - values.mean(0)).abs().mean(0) * torch.ones_like(values)


class _Asked:
    """A function of numbers that notes at which it was asked."""

    def __init__(self, coefficients):
        self.coefficients, self.points = coefficients, []

    def __call__(self, z):
        z = torch.as_tensor(z)
        self.points.append(z.detach().to("cpu", _DOUBLE).flatten().clone())
        return self.value(z)

    def value(self, z):
        """The function: neither even nor odd."""
        a, b, c = self.coefficients
        return a * z + b * z**2 + torch.sin(c * z)


def _check_antithetic(student, estimate, generator) -> Report:
    coefficients = (0.5 + uniform((3,), generator=generator, dtype=_DOUBLE)).tolist()
    seed = child(generator)

    def ask(n, source):
        f = _Asked(coefficients)
        given = _both(student, student.call(estimate, f, n, generator=source), ())
        return given, f.value, torch.cat(f.points) if f.points else torch.zeros(0, dtype=_DOUBLE)

    measured, pairs = [], []
    for n in _PAIRS:
        given, value, z = ask(n, child(generator))
        measured.append(given)
        pairs.append(_paired(z, n))
    if any(z is None for z, _ in pairs):
        _refuse_uniform(torch.cat([z for _, z in pairs]), other_laws=False)
        raise Refusal(
            "the points come in no pairs (z, −z): draw z once, and ask f at z and at −z, so that the errors of a pair "
            "cancel in part",
            "not_mirrored",
        )
    firsts = [z for z, _ in pairs if z is not None]

    def formula(join=lambda a, b: (a + b) / 2, together=False, counted=1.0, **parts):
        means, errors = [], []
        for z in firsts:
            a, b = value(z), value(-z)
            terms = torch.cat([a, b]) if together else join(a, b)
            over = parts.get("over", math.sqrt)
            _, error = _of_columns(terms[:, None], **{**parts, "over": lambda n, over=over: over(counted * n)})
            means.append(join(a, b).mean())
            errors.append(error[0])
        return {"mean": torch.stack(means), "standard error": torch.stack(errors)}

    right = formula()
    entries = [
        *_spreads_mistaken(),
        (
            "independent_pairs",
            "the values are counted as independent draws, but z and −z go together: their pair's average is the draw",
            {"together": True},
        ),
        ("wrong_n", "a pair is counted as two draws: there are n_pairs averages", {"counted": 2.0}),
        ("wrong_n", "the number of draws is taken to be half of n_pairs", {"counted": 0.5}),
        (
            "independent_pairs",
            "the spread is that of single values, over √n_pairs; that of the pairs' averages is asked for",
            {"together": True, "counted": 0.5},
        ),
        (
            "not_halved",
            "the two values of a pair are added, where their average is wanted",
            {"join": lambda a, b: a + b},
        ),
        ("difference", "the second value of a pair is subtracted, not added", {"join": lambda a, b: (a - b) / 2}),
        ("one_side", "only one value of each pair is used", {"join": lambda a, b: a}),
        ("one_side", "only one value of each pair is used", {"join": lambda a, b: b}),
    ]
    report = _judged(
        right,
        measured,
        firsts,
        slips(formula, entries),
        "your mean and standard error are those of the pairs' averages",
    )
    if report.mistake is None:
        _refuse_uniform(torch.cat(firsts))
        if torch.equal(ask(60, seed)[2].sort().values, ask(60, child(generator))[2].sort().values):
            raise Refusal(
                "two calls with different seeds got the same draws: a seed is set inside your function, so draw from "
                "the generator that you are given",
                "fixed_seed",
            )
    return report


def _paired(z, n) -> tuple[Tensor | None, Tensor]:
    """One point of each pair in their order, or None where there are none; and all points."""
    unique = z.unique()
    ordered = unique[unique.abs().sort(stable=True).indices]
    if len(unique) == n or len(unique) < 2:
        words = "f is asked at n_pairs points; each pair has two, z and −z"
        if len(unique) == n and not torch.allclose(ordered[: 2 * (n // 2)][::2].abs(), ordered[1::2].abs()):
            raise Refusal(words, "not_mirrored")
        if len(unique) == n:
            raise Refusal(
                "f is asked at n_pairs points in n_pairs/2 pairs: n_pairs pairs are 2 n_pairs points", "wrong_n"
            )
        raise Refusal(f"f is asked at {len(unique)} points for {n} pairs", "calls")
    mirrored = len(unique) == 2 * n and torch.allclose(ordered[::2], -ordered[1::2])
    if not mirrored:
        return None, unique
    # In the order in which they were drawn, whichever of the two came first.
    _, first = np.unique(z.abs().numpy(), return_index=True)
    return z[torch.from_numpy(np.sort(first))], unique


def _refuse_uniform(z, *, other_laws=True):
    """Refuse draws that are not standard normal in size, to five standard errors."""
    n = len(z)
    square, fourth = z.square().mean().item(), z.pow(4).mean().item()
    if abs(square - 1) < 5 * (2 / n) ** 0.5 and abs(fourth - 3) < 5 * (96 / n) ** 0.5:
        return
    if abs(square - 1 / 3) < 5 * (4 / 45 / n) ** 0.5:
        raise Refusal(
            "the draws are uniform, by rand, where standard normal ones are asked for: randn", "uniform_noise"
        )
    if other_laws:
        raise Refusal(
            f"the draws are not standard normal: the mean of their squares is {square:.3g} for 1, that of their fourth "
            f"powers {fourth:.3g} for 3",
            "wrong_law",
        )


def _weighted_draws(generator):
    """Values with logarithms of weights, which they are not independent of; the weights' mean is not 1."""
    draws = []
    for n in _SIZES:
        z, e = standard_normal((2, n), generator=generator, dtype=_DOUBLE)
        draws.append((1.5 + z, 0.6 * z + 0.6 * e + 0.7))
    return draws


def _check_weighted(student, estimate, generator, *, normalised) -> Report:
    draws = _weighted_draws(generator)
    names = ("mean", "standard error")

    def ask(shift=0.0):
        return [_both(student, student.call(estimate, f.clone(), log_w + shift), ()) for f, log_w in draws]

    def formula(
        weigh=torch.exp, centre="self" if normalised else "plain", error="delta" if normalised else "plain", **parts
    ):
        rows = [_weighted(f, weigh(log_w), centre, error, **parts) for f, log_w in draws]
        return dict(zip(names, map(torch.stack, zip(*rows, strict=True)), strict=True))

    measured, right = ask(), formula()
    if normalised:  # the delta method leaves open whether N/(N − 1) is taken along
        wider = formula(error="delta, ddof 1")
        if torch.allclose(torch.stack([e for _, e in measured]), wider["standard error"], rtol=_TOLERANCE):
            right = wider
    report = _judged(
        right,
        measured,
        [values for values, _ in draws],
        slips(formula, _weights_mistaken(normalised)),
        f"your mean and standard error are those of {'self-normalised' if normalised else 'plain'} importance sampling",
    )
    if report.passed and normalised:
        _refuse_underflow(lambda: ask(_SHIFT), measured)
    return report


def _weighted(f, w, centre, error, ddof=1, power=0.5, over=math.sqrt, scale=1.0) -> tuple[Tensor, Tensor]:
    """Mean and standard error under weights, where each part may be wrong."""
    n = len(f)
    share = w / w.sum()
    mean = {
        "plain": lambda: (w * f).mean(),
        "self": lambda: share @ f,
        "twice": lambda: (share * f).mean(),
        "sum": lambda: (w * f).sum(),
        "unweighted": lambda: f.mean(),
        "product": lambda: f.mean() * w.mean(),
    }[centre]()
    gaps, effective = f - mean, 1 / share.square().sum()
    terms = {"plain": w * f, "plain of shares": n * share * f, "small": share * f, "unweighted": f}.get(error)
    if terms is not None:
        variance = (terms - terms.mean()).square().sum() / (n - ddof)
        return mean, scale * variance**power / over(n)
    square = {
        "delta": lambda: (share * gaps).square().sum(),
        "delta, ddof 1": lambda: (share * gaps).square().sum() * n / (n - 1),
        "delta over n": lambda: (share * gaps).square().sum() / n,
        "raw": lambda: (w * gaps).square().sum(),
        "raw over n": lambda: (w * gaps).square().sum() / n**2,
        "unsquared": lambda: share @ gaps.square(),
        "unsquared over n": lambda: share @ gaps.square() / n,
        "uncentred": lambda: (share * f).square().sum(),
        "uncentred plain": lambda: (w * f).square().mean() / n,
        "unweighted centre": lambda: (share * (f - f.mean())).square().sum(),
        "effective": lambda: share @ gaps.square() / effective,
        "effective, unweighted": lambda: f.var() / effective,
        "effective, unweighted, ddof 0": lambda: f.var(correction=0) / effective,
        "effective, plain": lambda: (w * f).var() / effective,
    }[error]()
    return mean, scale * square**power


def _weights_mistaken(normalised) -> list[tuple[str, str, dict[str, Any]]]:
    spreads = [(key, words, parts) for key, words, parts in _spreads_mistaken() if not normalised or "scale" in parts]
    ess = (
        "the error is a spread over the root of the effective number of draws, which leaves out how weights and values "
        "go together"
    )
    both = [
        *spreads,
        (
            "inverse_weights",
            "the weights are upside down: p/q is needed, and log w = log p − log q",
            {"weigh": lambda log_w: (-log_w).exp()},
        ),
        (
            "log_weights",
            "the logarithms of the weights are used as the weights: take their exponential",
            {"weigh": lambda log_w: log_w},
        ),
        ("squared_weights", "the weights are squared", {"weigh": lambda log_w: (2 * log_w).exp()}),
        ("root_weights", "the roots of the weights are used", {"weigh": lambda log_w: (log_w / 2).exp()}),
        ("no_weights", "the weights are not used", {"centre": "unweighted", "error": "unweighted"}),
        ("no_weights", "the mean is taken without the weights", {"centre": "unweighted"}),
        ("unweighted_error", "the error is that of the bare values, without their weights", {"error": "unweighted"}),
        ("error_by_ess", ess, {"error": "effective"}),
        ("error_by_ess", ess, {"error": "effective, unweighted"}),
        ("error_by_ess", ess, {"error": "effective, unweighted, ddof 0"}),
        ("error_by_ess", ess, {"error": "effective, plain"}),
        (
            "unsquared_weights",
            "the weights are not squared in the error: that is the weighted spread of the values",
            {"error": "unsquared"},
        ),
        (
            "unsquared_weights",
            "the error is the weighted spread over √N, as if all weights were alike",
            {"error": "unsquared over n"},
        ),
        ("sum", "the weighted values are added up, not averaged", {"centre": "sum"}),
    ]
    if not normalised:
        words = (
            "the weights are divided by their sum; both densities are normalised here, so the plain mean is unbiased"
        )
        return [
            *both,
            (
                "shifted_weights",
                "the greatest logarithm was subtracted and not added again: the weights are those divided by the "
                "greatest, and both results are too small by that factor",
                {"weigh": lambda log_w: (log_w - log_w.max()).exp()},
            ),
            ("normalised", words, {"centre": "self", "error": "delta"}),
            ("normalised", words, {"centre": "self", "error": "delta, ddof 1"}),
            ("normalised", words, {"centre": "self"}),
            ("normalised", words, {"centre": "self", "error": "plain of shares"}),
            (
                "normalised",
                "the weights are divided by their sum, and the mean by N once more",
                {"centre": "twice", "error": "small"},
            ),
            ("normalised", "the weights are divided by their sum, and the mean by N once more", {"centre": "twice"}),
            ("normalised", "the error is that of the self-normalised estimate", {"error": "delta"}),
            ("normalised", "the error is that of the self-normalised estimate", {"error": "delta, ddof 1"}),
            ("uncentred", "the mean is not subtracted before the squares are taken", {"error": "uncentred plain"}),
            (
                "product_of_means",
                "values and weights are averaged apart, and their means multiplied",
                {"centre": "product"},
            ),
        ]
    plain = "the error is the plain one, of w f; what is divided by the sum of the weights has the error √Σ w̄²(f − μ)²"
    raw = "the weights are not divided by their sum; they are known only up to a constant"
    return [
        *both,
        ("plain_error", plain, {"error": "plain of shares"}),
        ("plain_error", plain, {"error": "plain of shares", "ddof": 0}),
        ("plain_error", plain, {"error": "plain"}),
        ("plain_error", plain, {"error": "plain", "ddof": 0}),
        ("plain_error", plain, {"error": "small"}),
        ("plain_error", plain, {"error": "small", "over": lambda n: 1.0}),
        ("not_normalised", raw, {"centre": "plain", "error": "plain"}),
        ("not_normalised", raw, {"centre": "plain", "error": "plain", "ddof": 0}),
        ("not_normalised", raw, {"centre": "plain"}),
        ("not_normalised", raw, {"centre": "sum"}),
        ("not_normalised", "the weights in the error are not divided by their sum", {"error": "raw"}),
        ("not_normalised", "the weights in the error are divided by N, not by their sum", {"error": "raw over n"}),
        ("not_normalised", raw, {"centre": "twice"}),
        ("wrong_n", "the error is divided by √N once more: w̄² holds the N already", {"error": "delta over n"}),
        ("uncentred", "the mean is not subtracted before the squares are taken", {"error": "uncentred"}),
        ("unweighted_centre", "the squares are taken around the unweighted mean", {"error": "unweighted centre"}),
        ("variance_for_std", "that is the squared error: take its root", {"power": 1.0}),
    ]


def _refuse_underflow(ask, measured):
    """Refuse what a common factor of the weights changes."""
    words = (
        "with all logarithms of the weights smaller by 2000, which changes nothing, your answer is {}: the weights "
        "underflow to 0. Subtract the greatest logarithm first, or use softmax"
    )
    try:
        again = ask()
    except Refusal as refusal:
        if refusal.mistake in ("not_finite", "exception", "type"):
            raise Refusal(words.format("not finite"), "underflow", refusal.cause) from refusal
        raise
    for one, other in zip(measured, again, strict=True):
        for before, after in zip(one, other, strict=True):
            if not math.isclose(before.item(), after.item(), rel_tol=_TOLERANCE):
                raise Refusal(words.format(f"{after.item():.3g}, where it was {before.item():.3g}"), "underflow")


def _check_effective_draws(student, estimate, generator) -> Report:
    draws = [log_w for _, log_w in _weighted_draws(generator)]

    def ask(shift=0.0):
        return [
            (_tensor(student, student.call(estimate, log_w + shift), (), "the effective number"),) for log_w in draws
        ]

    def formula(of=lambda w: w.sum() ** 2 / w.square().sum(), weigh=torch.exp, after=lambda ess, n: ess):
        return {"effective number of draws": torch.stack([after(of(weigh(log_w)), len(log_w)) for log_w in draws])}

    def shares(w):
        return w / w.sum()

    def spread(w, correction):
        return len(w) / (1 + w.var(correction=correction) / w.mean() ** 2)

    no_square = "the sum of the weights is not squared"
    entries: list[tuple[str, str, dict[str, Any]]] = [
        ("no_square", no_square, {"of": lambda w: w.sum() / w.square().sum()}),
        ("no_square", no_square, {"of": lambda w: (w / w.max()).sum() / (w / w.max()).square().sum()}),
        (
            "no_square",
            "the sum of the weights is missing: 1/Σw² is right for weights of sum 1 alone",
            {"of": lambda w: 1 / w.square().sum()},
        ),
        (
            "no_square",
            "the sum of the weights is missing: 1/Σw² is right for weights of sum 1 alone",
            {"of": lambda w: 1 / (w / w.max()).square().sum()},
        ),
        ("no_square", "the weights are not squared below: that is the sum of the weights", {"of": lambda w: w.sum()}),
        ("inverse", "it is upside down: that is 1 over the effective number", {"after": lambda ess, n: 1 / ess}),
        ("share", "it is divided by N: that is the share of the draws that count", {"after": lambda ess, n: ess / n}),
        ("share", "it is multiplied by N", {"after": lambda ess, n: ess * n}),
        ("root", "that is the root of the effective number", {"after": lambda ess, n: ess**0.5}),
        ("logarithm", "that is the logarithm of the effective number", {"after": lambda ess, n: ess.log()}),
        (
            "entropy",
            "that is the exponential of the weights' entropy, another measure",
            {"of": lambda w: (-(shares(w) * shares(w).log()).sum()).exp()},
        ),
        (
            "entropy",
            "that is the weights' entropy, another measure",
            {"of": lambda w: -(shares(w) * shares(w).log()).sum()},
        ),
        ("greatest", "that is 1 over the greatest weight, another measure", {"of": lambda w: 1 / shares(w).max()}),
        (
            "log_weights",
            "the logarithms of the weights are used as the weights: take their exponential",
            {"weigh": lambda log_w: log_w},
        ),
        (
            "squared_weights",
            "the weights are squared before the formula squares them",
            {"weigh": lambda log_w: (2 * log_w).exp()},
        ),
        (
            "population",
            "the variance of the weights is divided by N − 1; the formula wants N",
            {"of": lambda w: spread(w, 1)},
        ),
        (
            "not_normalised",
            "the weights' variance is not divided by the square of their mean",
            {"of": lambda w: len(w) / (1 + w.var(correction=0))},
        ),
        (
            "not_normalised",
            "the weights' variance is not divided by the square of their mean",
            {"of": lambda w: len(w) / (1 + w.var())},
        ),
        (
            "no_weights",
            "that is the number of draws, whatever their weights",
            {"after": lambda ess, n: ess.new_tensor(n)},
        ),
    ]
    right, measured = formula(), ask()
    report = _judged(
        right,
        measured,
        draws,
        slips(formula, entries),
        "your effective number of draws is that of its formula",
    )
    if report.passed:
        _refuse_underflow(lambda: ask(_SHIFT), measured)
    return report
