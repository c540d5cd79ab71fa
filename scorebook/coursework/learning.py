r"""Checks of what one writes to learn a score: the score of a density, a divergence, and the losses.

Scores, divergences and the losses without noise are identities: both sides are computed in double precision at random
points and must agree. A noisy loss is made to be one as well: the model that the student's loss is given notes what it
was asked, so the noise that was drawn is known, and the loss must be the right function of it. What is left to
statistics is the law of that noise.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.problems import (
    child,
    is_standard,
    random_sde,
    refuse_coupling,
    refuse_dependent_noise,
    refuse_loud_noise,
    rms,
    seeded,
)
from scorebook.coursework.reports import Answer, Mistake, Report, judge, slips, spelt
from scorebook.lab.arguments import one_of, positive, positive_integer, standard_normal
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.types import Integer, Number
from scorebook.score_matching import score_of

__all__ = ["check_divergence", "check_loss", "check_score"]

_Kind: TypeAlias = Literal["explicit", "implicit", "sliced", "plain_sliced", "reduced_sliced", "denoising", "sde"]
_KINDS = get_args(_Kind)
_CHAPTERS = {
    "explicit": ("Score matching", "Explicit score matching"),
    "implicit": ("Score matching", "Getting rid of the unknown score"),
    "sliced": ("Sliced score matching", "Getting rid of the unknown score"),
    "plain_sliced": ("Sliced score matching", "Getting rid of the unknown score"),
    "reduced_sliced": ("Sliced score matching", "What it costs in noise"),
    "denoising": ("Noise scales", "Guess the noise, and you have the score"),
    "sde": ("SDEs", "Learning the score of all times"),
}
_DOUBLE = torch.float64
# How much greater than that of the right answer the variance of an estimate may be.
_LOUD = 2.0
# What becomes of a trace whose random projections do not meet.
_ONE_SIDE = "the product with the projection stands on one side alone: multiply by v once more"
_TWO_SIDES = (
    "the Jacobian is multiplied by one direction, and the result by something else: only vᵀ ∇s v, with the same v on "
    "both sides, has the trace for its mean"
)
# Times that differ by less are the same; and how many batches are drawn where each has one time.
_SAME_TIME, _BATCHES = 1e-6, 400


def check_score(
    score: Callable[..., Any],
    distribution: Any,
    *,
    tolerance: Number = 1e-4,
    n_points: Integer = 64,
    seed: Integer = 0,
    time_limit: Number | None = 30.0,
) -> Report:
    r"""Hold a score against that of a known law, at random points.

    .. math:: s(x) = \nabla_x \log p(x)

    Half of the points are drawn from the law, half from around it, where its density is low. A trained network passes
    only with a ``tolerance`` that says how good it has to be.

    Args:
        score: the student's callable ``score(x) -> tensor like x``, with ``x`` of shape ``(B, d)`` in the type and on
            the device of the law.
        distribution: the law, such as a ``lab.GaussianMixture``: it has ``sample(n, generator=)`` and ``log_prob(x)``.
        tolerance: greatest difference in any entry, relative to the root mean square of the true score.
        n_points: number of points.
        seed: of the points.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Raises:
        ValueError: if ``distribution`` cannot be sampled or has no ``log_prob``, or a number is not as described.

    Source: Hyvärinen (2005), section 2.
    """
    positive("tolerance", tolerance)
    positive_integer("n_points", n_points)
    for method in ("sample", "log_prob"):
        if not callable(getattr(distribution, method, None)):
            raise ValueError(f"distribution must have a method {method}, got {type(distribution).__name__}")
    student = Student("score(x)", ("Score matching", "The score does not see Z"))
    generator = seeded(seed)

    def check():
        x = distribution.sample(n_points, generator=generator)
        spread = 0.5 * (x.max(0).values - x.min(0).values).clamp(min=0.1)
        x[n_points // 2 :] += spread * standard_normal(
            x[n_points // 2 :].shape, generator=generator, dtype=x.dtype, device=x.device
        )
        truth = score_of(distribution.log_prob, x).to("cpu", _DOUBLE)
        values = student.tensor(student.call(score, x.clone()), x.shape, "the score")
        answer = Answer.exact("score", values, truth, tolerance, where=lambda row: f"x = {spelt(x[row])}")
        report = judge(
            "check_score",
            [answer],
            _scores_mistaken(distribution, x, truth),
            verified=f"your score is that of the law at {len(x)} points",
        )
        if report.mistake is None:
            refuse_coupling(student, score, x, values, tolerance * rms(truth))
        return report

    return under_guard("check_score", check, student, time_limit=time_limit)


def _scores_mistaken(distribution, x, truth) -> list[Mistake]:
    def density():
        return truth * distribution.log_prob(x).exp().to("cpu", _DOUBLE).unsqueeze(1)

    formula, entries = (
        _mixtures_mistaken(distribution, x) if isinstance(distribution, GaussianMixture) else (lambda: truth, [])
    )

    def scaled(sign=1.0, factor=1.0, batch: Any = 1.0, of_density=False, **parts):
        return {"score": sign * factor * batch * (density() if of_density else formula(**parts))}

    def row(k):
        return torch.nn.functional.one_hot(torch.tensor(k), len(x)).double().unsqueeze(1)

    scalings: list[tuple[str, str, dict[str, Any]]] = [
        ("sign", "that is the gradient of minus the log-density", {"sign": -1.0}),
        ("mean", "the mean over the batch was taken before the gradient; take the sum", {"batch": 1 / len(x)}),
        *(
            (
                "one_row",
                "only one row of the batch has a gradient: differentiate the sum over the batch",
                {"batch": row(k)},
            )
            for k in (0, len(x) - 1)
        ),
        ("half", "a factor ½ too many, or a factor 2 lost under the derivative of the square", {"factor": 0.5}),
        ("twice", "a factor 2 too many: the ½ in the exponent of the density is missing", {"factor": 2.0}),
        ("density", "that is the gradient of the density itself, not of its logarithm", {"of_density": True}),
    ]

    def added_up():
        return {"score": truth.cumsum(0)}

    def over_again():
        return {"score": truth * torch.arange(1, len(x) + 1).unsqueeze(1)}

    words = "the gradients of the points add up from one to the next: clear x.grad, or use autograd.grad"
    again = "the gradient of the batch is added to itself once more for each point: clear x.grad, or use autograd.grad"
    sums = [Mistake("accumulated", words, added_up), Mistake("accumulated", again, over_again)]
    return [*slips(scaled, scalings + entries), *sums]


def _mixtures_mistaken(law, x) -> tuple[Callable[..., Tensor], list[tuple[str, str, dict[str, Any]]]]:
    """The score of a mixture as a formula of its parts, and what becomes of the parts by the usual mistakes."""
    weights, means, x = law.weights.double(), law.means.double(), x.double()
    covariances = law.covariances.double()
    if covariances.ndim == 1:
        covariances = covariances[:, None, None] * torch.eye(law.dim, dtype=_DOUBLE, device=law.device)
    gaps, right = means - x.unsqueeze(1), torch.linalg.inv(covariances)

    def square(metric):
        return torch.einsum("bki,kij,bkj->bk", gaps, metric, gaps)

    log_weights = weights.log()

    def formula(logs=log_weights, determinant=0.5, exponent=0.5, metric=right, precision=right, choose=None, pull=gaps):
        parts = logs - exponent * square(metric) + determinant * torch.logdet(right)
        r = parts.softmax(1) if choose is None else choose(parts)
        return torch.einsum("bk,kij,bkj->bi", r, precision, pull).cpu()

    def single(parts):
        return torch.nn.functional.one_hot(parts.argmax(1), len(means)).double()

    identity = torch.eye(law.dim, dtype=_DOUBLE, device=law.device).expand_as(covariances)
    spreads = covariances.diagonal(dim1=1, dim2=2)
    root, twice = torch.linalg.inv(_root(covariances)), right @ right
    inside = "in the probability that a component produced the point"
    return formula, [
        ("precision", "the difference is not divided by the covariance", {"precision": identity}),
        (
            "std_for_variance",
            "it is divided by the standard deviation, not by the variance",
            {"precision": root},
        ),
        ("covariance", "it is multiplied by the covariance, not divided by it", {"precision": covariances}),
        *(
            (
                "variance_for_std",
                f"the variance is taken for a standard deviation, as by Normal(mean, variance), and so squared {where}",
                parts,
            )
            for where, parts in (
                ("throughout", {"precision": twice, "metric": twice, "determinant": 1.0}),
                ("where the difference is divided by it", {"precision": twice}),
                (inside, {"metric": twice, "determinant": 1.0}),
            )
        ),
        (
            "diagonal",
            "it is divided by the variances alone, without what is beside the diagonal of the covariance",
            {"precision": torch.diag_embed(1 / spreads)},
        ),
        (
            "diagonal",
            "only the diagonal of the inverse covariance is used",
            {"precision": torch.diag_embed(right.diagonal(dim1=1, dim2=2))},
        ),
        (
            "std_for_variance",
            "one triangular factor of the covariance is divided by; Σ = L Lᵀ needs both",
            {"precision": torch.linalg.inv(torch.linalg.cholesky(covariances))},
        ),
        ("no_mean", "the mean is not subtracted from the point", {"pull": (-x).unsqueeze(1).expand_as(gaps)}),
        ("weights", "the weights of the components are ignored", {"logs": torch.zeros_like(weights)}),
        ("weights", "the weights of the components stand in the exponent without their logarithm", {"logs": weights}),
        (
            "normaliser",
            f"the factor v^(−d/2) of each component's density is v^(−1/2) {inside}, whatever d",
            {"determinant": 0.5 / law.dim},
        ),
        (
            "normaliser",
            f"the factor v^(−d/2) of each component's density is missing {inside}",
            {"determinant": 0.0},
        ),
        (
            "normaliser",
            f"the factor v^(−d/2) of each component's density stands {inside} without its root",
            {"determinant": 1.0},
        ),
        ("exponent", f"the ½ in the exponent is missing {inside}", {"exponent": 1.0}),
        ("exponent", f"the exponent has a ½ too many {inside}", {"exponent": 0.25}),
        ("exponent", f"the exponent is divided by the standard deviation {inside}", {"metric": root}),
        ("exponent", f"the exponent is not divided by the variance {inside}", {"metric": identity}),
        ("exponent", f"the exponent is multiplied by the variance {inside}", {"metric": covariances}),
        (
            "prior_weights",
            "the components are averaged with their weights, not with the probability that each produced the point",
            {"choose": lambda parts: weights.expand(len(x), -1)},
        ),
        (
            "sum_of_logs",
            "the logarithms of the components are added up, where the logarithm of their sum is wanted",
            {"choose": torch.ones_like},
        ),
        ("hard", "only the likeliest component is used, not the average over all", {"choose": single}),
    ]


def check_divergence(
    f: Callable[..., Any],
    *,
    exact: bool = True,
    differentiable: bool = False,
    event_shape: Sequence[Integer] = (5,),
    seed: Integer = 0,
    time_limit: Number | None = 30.0,
) -> Report:
    r"""Hold a divergence, or an unbiased estimate of it, against the trace of a Jacobian that is known.

    .. math:: \nabla \cdot s(x) = \mathrm{tr}\,\nabla s(x)

    The field is :math:`W_2 \tanh(W_1 x + b)` with random weights: its Jacobian is neither symmetric nor constant.

    Args:
        f: the student's callable. ``f(field, x) -> (B,)`` with ``field(x) -> tensor like x`` and ``x`` of shape
            ``(B, *event)``; for an estimate ``f(field, x, *, generator) -> (B,)``.
        exact: whether the exact divergence is wanted; False for an estimate by random projections, whose mean over
            64 calls is held against the truth, and whose spread is
            at most 1.5 times that of one Gaussian projection.
        differentiable: whether the exact divergence has to carry a gradient to the field's parameters, as a loss needs
            it (``create_graph=True``). Where it need not, finite differences will do.
        event_shape: shape of one point.
        seed: of field, points and projections.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Raises:
        ValueError: if ``event_shape`` holds anything but positive integers.

    Source: Hutchinson (1990) for the estimate.
    """
    event = [positive_integer("event_shape", size) for size in event_shape]
    if differentiable and not exact:
        raise ValueError("differentiable must be False where an estimate is asked for, got True with exact=False")
    student = Student(
        "f(field, x)" if exact else "f(field, x, generator=generator)",
        ("Score matching", "What the trace costs") if exact else ("Sliced score matching", "One more node"),
    )
    generator = seeded(seed)

    def check():
        n = 16
        field, x = _field_of_both_signs(n, math.prod(event), generator)
        field.requires_grad_(differentiable)
        x = x.reshape(n, *event)
        jacobian = field.jacobian(x)
        truth = _trace(jacobian)
        if exact:
            return _check_exact_divergence(student, f, field, x, truth, jacobian)
        return _check_estimated_divergence(student, f, field, x, truth, jacobian, generator)

    return under_guard("check_divergence", check, student, time_limit=time_limit)


def _check_exact_divergence(student, f, field, x, truth, jacobian) -> Report:
    given = student.call(f, field, x)
    values = student.tensor(given, (len(x),), "the divergence")
    answer = Answer.exact("divergence", values, truth.detach(), 1e-4, where=lambda row: f"x = {spelt(x[row])}")
    report = judge(
        "check_divergence",
        [answer],
        _divergences_mistaken(field, x, jacobian.detach()),
        verified="your divergence is the trace of the Jacobian",
    )
    if report.mistake is None:
        refuse_coupling(student, lambda part: f(field, part), x, values, 1e-4 * rms(truth))
    if report.passed and truth.requires_grad:
        right = _flat_gradient(field, truth.sum())
        gradient = _flat_gradient(field, given.sum()) if given.requires_grad else torch.zeros_like(right)
        if rms(gradient - right) > 1e-3 * rms(right):
            raise Refusal(
                "the values are right, but their gradient in the field's parameters is "
                f"{'not' if given.requires_grad else 'missing'}: in a loss the divergence is differentiated again, so "
                "pass create_graph=True to autograd.grad, and detach nothing",
                "detached",
            )
    return report


def _check_estimated_divergence(student, f, field, x, truth, jacobian, generator) -> Report:
    calls, copies = 64, 64
    points = x.repeat_interleave(copies, 0)
    draws = torch.stack(
        [
            student.tensor(
                student.call(f, field, points, generator=child(generator)), (len(points),), "the divergence"
            ).reshape(len(x), copies)
            for _ in range(calls)
        ]
    )
    # The law of one Gaussian projection is known: Var[vᵀ J v] = 2 ‖(J + Jᵀ)/2‖². Copies may share their projection.
    allowed = 2 * (0.5 * (jacobian + jacobian.mT)).square().sum((1, 2))
    variance, means = draws.permute(1, 0, 2).flatten(1).var(1), draws.mean(2)
    shared = (copies * means.var(0) / variance.clamp(min=1e-24)).clamp(1, copies)
    right_std = _LOUD**0.5 * (allowed * shared / copies).sqrt()
    answer = Answer.mean_of("divergence", means, truth, 1e-9 * rms(truth), right_std=right_std)
    mistakes = _divergences_mistaken(field, x, jacobian)
    mistakes += _added_up(answer, lambda k: {"divergence": k * truth})
    mistakes = _told_by_length(mistakes, jacobian, variance.mean().item())
    mistakes = _told_by_spread(mistakes, jacobian, variance)
    report = judge(
        "check_divergence", [answer], mistakes, verified="the mean of your estimate is the trace of the Jacobian"
    )
    if report.mistake is None or report.mistake == "loud_noise":
        if bool((means.std(0) < 1e-12 * rms(truth)).all()) and not report.passed:
            raise Refusal("your estimate gives the same in each call: its projections are not drawn anew", "same_probe")
        refuse_loud_noise("estimate", variance.mean().sqrt().item(), allowed.mean().sqrt().item())
    return report


def _told_by_spread(mistakes, jacobian, variance) -> list[Mistake]:
    """The mistakes without one that has the mean of another, 0, and not the spread that was measured."""
    ones = [jacobian.sum(k).square().sum(1) for k in (1, 2)]
    spreads = {"two_probes": [jacobian.square().sum((1, 2))], "no_second_projection": ones}
    if not bool((variance > 1e-24).all()):
        return [m for m in mistakes if "two_probes" not in m.keys]
    gaps = {key: min((variance / right).log().std().item() for right in rights) for key, rights in spreads.items()}
    near, far = sorted(gaps, key=lambda key: gaps[key])
    return [m for m in mistakes if far not in m.keys] if gaps[near] < 0.5 * gaps[far] else mistakes


def _told_by_length(mistakes, jacobian, variance) -> list[Mistake]:
    """The mistakes without projections of length 1 that spread unlike such, or others that have their mean."""
    d, trace, diagonal = jacobian.shape[-1], _trace(jacobian), jacobian.diagonal(dim1=1, dim2=2).square().sum(1)
    square = (0.5 * (jacobian + jacobian.mT)).square().sum((1, 2))
    signs = 2 * (square - diagonal)  # of vᵀ J v with signs for v
    of_unit = [
        (2 * square + trace**2) / (d * (d + 2)) - trace**2 / d**2,  # on the sphere
        diagonal / d - trace**2 / d**2,  # along one axis
        2 * square / d**2,  # a mean over dimensions, of normal projections
        signs / d**2,  # or of signs
        0 * trace,  # or of the trace itself
    ]
    lengths = {"unit_projections": of_unit, "uniform_symmetric": [(1 / 5 - 1 / 9) * diagonal + signs / 9]}

    def gap(key):
        return min(abs(math.log(max(variance, 1e-24) / max(spread.mean().item(), 1e-24))) for spread in lengths[key])

    if d == 3:  # 1/d is also the variance of a number uniform on [−1, 1]
        far = max(lengths, key=gap)
        mistakes = [m for m in mistakes if far not in m.keys]
    if variance > 4 * max(spread.mean().item() for spread in of_unit):
        mistakes = [m for m in mistakes if "unit_projections" not in m.keys]  # they are quiet
    return mistakes


def _added_up(answer, predict) -> list[Mistake]:
    """The mistake of adding up estimates of several projections, for the number of them that fits best."""
    scale = (answer.measured * answer.expected).sum() / answer.expected.square().sum()
    k = round(scale.item()) if bool(scale.isfinite()) else 0
    if k < 3:
        return []
    words = f"the estimates along {k} projections are added up, where their mean is wanted"
    return [Mistake("projections_added", words, lambda: predict(k))]


def _divergences_mistaken(field, x, jacobian) -> list[Mistake]:
    d = jacobian.shape[-1]
    trace, total = _trace(jacobian), jacobian.sum((1, 2))
    diagonal = jacobian.diagonal(dim1=1, dim2=2)

    def formula(sign=1.0, factor=1.0, dims=1.0, of=trace):
        return {"divergence": sign * factor * dims * of}

    found = slips(formula, [
        ("sign", "its sign is wrong", {"sign": -1.0}),
        ("all_entries", "all entries of the Jacobian are added up, not its diagonal alone", {"of": total}),
        (
            "unit_projections",
            "it is divided by the dimension: projections of length 1 where E[v vᵀ] = I is needed, or a mean over "
            "dimensions where a sum is",
            {"dims": 1 / d},
        ),
        (
            "unit_projections",
            "it is divided by the dimension twice: projections of length 1, and a mean over dimensions",
            {"dims": 1 / d**2},
        ),
        ("absolute", "the trace stands between bars; it is signed", {"of": trace.abs()}),
        ("absolute", "the entries of the diagonal stand between bars; they are signed", {"of": diagonal.abs().sum(1)}),
        ("uniform_projections", "the projections hold zeros and ones; signs are ±1",
         {"of": trace / 2 + (total - trace) / 4}),
        ("uniform_projections", "the projections are drawn with rand, uniform on [0, 1], not with randn",
         {"of": trace / 3 + (total - trace) / 4}),
        ("uniform_symmetric", "the projections are uniform on [−1, 1], whose variance is 1/3", {"of": trace / 3}),
        ("half", "a factor ½ too many", {"factor": 0.5}),
        ("twice", "a factor 2 too many", {"factor": 2.0}),
        ("first", "only the first dimension is differentiated", {"of": diagonal[:, 0]}),
        ("last", "only the last dimension is kept; add them up", {"of": diagonal[:, -1]}),
        ("dimension_missing", "the last dimension is left out", {"of": diagonal[:, :-1].sum(1)}),
        ("dimension_missing", "the first dimension is left out", {"of": diagonal[:, 1:].sum(1)}),
        ("accumulated", "the gradients of the dimensions add up in x.grad: clear it, or use autograd.grad",
         {"of": torch.triu(jacobian).sum((1, 2))}),
        ("no_second_projection", _ONE_SIDE, {"of": 0 * trace}),
        ("two_probes", _TWO_SIDES, {"of": 0 * trace}),
        ("frobenius", "that is the Frobenius norm of the Jacobian", {"of": jacobian.square().sum((1, 2)).sqrt()}),
        ("frobenius_squared", "that is the squared Frobenius norm of the Jacobian",
         {"of": jacobian.square().sum((1, 2))}),
        ("no_derivative", "that is the sum of the field's components, with no derivative",
         {"of": field(x).detach().flatten(1).sum(1)}),
        ("determinant", "that is the determinant of the Jacobian", {"of": torch.linalg.det(jacobian)}),
        ("determinant", "that is log |det J|, the change of volume of a map: of a flow it is the trace, with no "
         "logarithm", {"of": torch.linalg.slogdet(jacobian).logabsdet}),
        ("sparse_signs", "the projections have variance 2/3, as those drawn from −1, 0 and 1 do",
         {"of": 2 * trace / 3}),
    ])  # fmt: skip
    # A number tells that a factor is wrong, and not which two factors made it.
    laws = {"uniform_symmetric", "sparse_signs"}
    factors = laws | {"unit_projections", "half", "twice"}
    return [m for m in found if m.also is None or not (m.keys & laws and m.keys <= factors)]


def check_loss(loss: Callable[..., Any], kind: _Kind, *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold a loss and its gradient against the truth, for a random model that is not the optimum.

    The right loss sums over dimensions and is a mean over the batch:

    - ``explicit``: ``loss(model, x, score)``, :math:`\tfrac12 E\|s_\theta(x) - s(x)\|^2`
    - ``implicit``: ``loss(model, x)``, :math:`E[\nabla\cdot s_\theta + \tfrac12\|s_\theta\|^2]`
    - ``sliced``: ``loss(model, x, *, generator)``, :math:`E[v^T\nabla s_\theta v + \tfrac12 (v^T s_\theta)^2]`
    - ``plain_sliced``: the same, and each point has directions of its own
    - ``reduced_sliced``: ``loss(model, x, *, generator)``, the variance-reduced form
      :math:`E[v^T\nabla s_\theta v + \tfrac12 \|s_\theta\|^2]`, and each point has directions of its own
    - ``denoising``: ``loss(model, x, sigma, *, generator)``,
      :math:`\tfrac12 E[\sigma^2\|s_\theta(x+\sigma z,\sigma)+z/\sigma\|^2]`
    - ``sde``: ``loss(model, sde, x, *, generator)``,
      :math:`\tfrac12 E[\sigma(t)^2\|s_\theta(x_t,t)+z/\sigma(t)\|^2]`

    They are the losses of ``score_matching``, ``sliced_score_matching``, ``noise_scales`` and ``sde`` with their
    defaults. ``x`` has shape ``(B, d)``, ``sigma`` shape ``(B,)``; the model takes ``(x)``, ``(x, sigma)`` or
    ``(x, t)``, with ``sigma`` or ``t`` a scalar or of shape ``(B,)``. It may be called in chunks, more than once, or
    under ``torch.vmap``.

    Times are uniform on ``[t_min, 1]`` with ``t_min`` below 0.01: one for each point, one for the whole batch, or
    spread evenly. Times of another law are right with the weight that makes up for it, the inverse of their density.

    Args:
        loss: the student's callable; it returns a scalar tensor, differentiable in the model's parameters.
        kind: which loss it is.
        seed: of model, points and noise.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Raises:
        ValueError: if ``kind`` is unknown.

    Source: Hyvärinen (2005), theorem 1; Song et al. (2019), section 3; Vincent (2011), eq. 11; Song et al. (2021),
    eq. 7.
    """
    one_of("kind", kind, _KINDS)
    keywords = "" if kind in ("explicit", "implicit") else ", generator=generator"
    arguments = {"explicit": "model, x, score", "denoising": "model, x, sigma", "sde": "model, sde, x"}
    student = Student(f"loss({arguments.get(kind, 'model, x')}{keywords})", _CHAPTERS[kind])
    generator = seeded(seed)
    checks: dict[str, Callable[..., Report]] = {
        "explicit": _check_explicit,
        "implicit": _check_implicit,
        "sliced": _check_sliced,
        "plain_sliced": functools.partial(_check_sliced_form, reduced=False),
        "reduced_sliced": functools.partial(_check_sliced_form, reduced=True),
        "denoising": _check_denoising,
        "sde": _check_sde_loss,
    }
    return under_guard("check_loss", lambda: checks[kind](student, loss, generator), student, time_limit=time_limit)


def _check_explicit(student, loss, generator) -> Report:
    n, d = 24, 5
    model, other = _Field(d, generator), _Field(d, generator)
    x = standard_normal((n, d), generator=generator, dtype=_DOUBLE)
    target = other(x).detach()
    s = model(x)

    def formula(sign=-1.0, signed=False, summed=False, **parts):
        gap = s + sign * target
        if summed:
            return _reduced(gap.sum(1, keepdim=True).square(), **parts)
        return _reduced(gap if signed else gap.square(), **parts)

    entries = [
        *_REDUCTIONS,
        ("sign", "the scores are added, not subtracted", {"sign": 1.0}),
        ("absolute", "absolute differences are summed, not squares", {"power": 0.5, "factor": 1.0}),
        ("absolute", "absolute differences are summed, not squares", {"power": 0.5}),
        ("squared_sum", "the differences are added before they are squared; the squares are to be added",
         {"summed": True}),
        ("no_square", "the differences are not squared, and cancel", {"signed": True}),
        ("no_square", "the differences are not squared, and cancel; the ½ is missing", {"signed": True, "factor": 1.0}),
    ]  # fmt: skip
    value = student.call(loss, model, x, lambda points: other(points).detach())
    return _judge_loss(student, model, value, formula, entries)


def _check_implicit(student, loss, generator) -> Report:
    model, x = _field_of_both_signs(24, 5, generator)
    formula, entries = _implicit(model, x)
    return _judge_loss(student, model, student.call(loss, model, x), formula, entries)


def _implicit(model, x):
    """The implicit loss as a formula of its parts, and what becomes of them by the usual mistakes."""
    n, d = x.shape
    s, jacobian = model(x), model.jacobian(x)
    squares = s.square().sum(1)
    traces, totals = _trace(jacobian), jacobian.sum((1, 2))

    def formula(trace=traces, turn=1.0, weight=1.0, half=0.5, square=squares, scale=1.0, dims=1.0, batch=1.0):
        return scale * dims * batch * (turn * weight * trace + half * square).mean()

    return formula, [
        ("half", "the ½ before the square is missing", {"half": 1.0}),
        ("half", "the ½ is missing: the whole loss is twice as large", {"scale": 2.0}),
        ("trace_sign", "the trace has the wrong sign", {"turn": -1.0}),
        (
            "detached",
            "the trace carries no gradient: pass create_graph=True to autograd.grad",
            {"trace": traces.detach()},
        ),
        ("mean_dims", "it is averaged over dimensions; sum over them", {"dims": 1 / d}),
        ("sum_batch", "it is summed over the batch; take the mean", {"batch": n}),
        ("quarter", "a factor ½ too many", {"scale": 0.5}),
        ("sign", "its sign is wrong", {"scale": -1.0}),
        ("no_trace", "the trace is missing", {"trace": 0 * traces, "turn": 1.0, "weight": 1.0}),
        ("no_square", "the square of the score is missing", {"square": 0 * squares, "half": 0.5}),
        (
            "squared_sum",
            "the components of the score are added before they are squared; the squares are to be added",
            {"square": s.sum(1).square()},
        ),
        ("absolute", "the trace stands between bars; it is signed", {"trace": traces.abs()}),
        ("trace_squared", "the trace is squared; it is signed, and stands there as it is", {"trace": traces.square()}),
        ("all_entries", "all entries of the Jacobian are added up, not its diagonal alone", {"trace": totals}),
        ("norm", "the norm of the score is not squared", {"square": squares.sqrt()}),
        ("half_trace", "the trace carries a ½ that belongs to the square alone", {"weight": 0.5}),
        ("mean_square", "the square is averaged over dimensions, not summed", {"square": squares / d}),
        ("unit_projections", "the trace is divided by the dimension", {"weight": 1 / d}),
    ]


def _check_sliced(student, loss, generator) -> Report:
    model = _Field(5, generator, hidden=6)
    x = standard_normal((512, 5), generator=generator, dtype=_DOUBLE)
    report = _by_its_mean(student, loss, model, x, generator)
    if report.passed or report.mistake not in (None, "no_trace"):
        return report
    apart = _projections_apart(student, loss, model, x, generator)
    return report if apart is None else dataclasses.replace(report, diagnosis=f"{apart[1]}.", mistake=apart[0])


def _projections_apart(student, loss, field, x, generator) -> tuple[str, str] | None:
    """How the projections of a loss fail to meet, so that its trace is lost: key and words; None where they do not."""
    model, values, lots = _Directed(field), [], []
    for _ in range(24):
        model.forget()
        values.append(student.tensor(student.call(loss, model, x, generator=child(generator)), (), "the loss"))
        v = model.seen(len(x))[1]
        if model.asked == 1 and not model.forms:  # by differences it would be asked more than once
            return "no_trace", "the trace is missing: the model is not differentiated in x"
        if v is None or v.shape != x.shape:
            return None
        lots.append(v)
    s, jacobian = field(x).detach(), field.jacobian(x).detach()
    rests = torch.stack(values) - torch.stack([0.5 * (s * v).sum(1).square().mean() for v in lots])
    if any(torch.allclose(rests[0], once.mean(), rtol=1e-6) for once in _once(lots[0], jacobian)):
        return "no_second_projection", _ONE_SIDE
    return ("two_probes", _TWO_SIDES) if _is_of_other_directions(field, x, lots, rests, len(x)) else None


def _once(v, jacobian) -> tuple[Tensor, Tensor]:
    """Products of a Jacobian with a projection on one side alone, added up over the other."""
    return torch.einsum("bi,bij->b", v, jacobian), torch.einsum("bij,bj->b", jacobian, v)


def _by_its_mean(student, loss, model, x, generator) -> Report:
    d, calls = x.shape[1], 64
    implicit, entries = _implicit(model, x)
    s, jacobian = model(x), model.jacobian(x)
    trace, total = _trace(jacobian), jacobian.sum((1, 2))
    square, outer = s.square().sum(1), s.sum(1).square()

    def uniform(diagonal, everything):
        return diagonal / 3 + (everything - diagonal) / 4

    words = "the projections are drawn with rand, uniform on [0, 1], not with randn"
    entries = [
        (
            "unit_projections",
            "the projections have length 1, and so E[v vᵀ] = I/d; E[v vᵀ] = I is needed",
            {"dims": 1 / d},
        ),
        (
            "uniform_projections",
            words,
            {"trace": uniform(trace, total), "square": uniform(square, outer)},
        ),
        ("uniform_projections", words, {"trace": uniform(trace, total)}),
        ("all_entries", "the only projection is (1, …, 1)", {"trace": total, "square": outer}),
        (
            "no_square",
            "the square of the score is missing; or the slice vᵀs is not squared, whose mean is 0",
            {"square": 0 * square, "half": 0.5},
        ),
        *(entry for entry in entries if entry[0] not in ("mean_dims", "no_square")),
    ]
    right = implicit()
    value, gradient = right.detach(), _flat_gradient(model, right)
    draws = [
        _value_and_gradient(student, model, student.call(loss, model, x, generator=child(generator)))
        for _ in range(calls)
    ]
    values, gradients = (torch.stack(each) for each in zip(*draws, strict=True))
    # The right loss scatters most where one Gaussian projection serves the whole batch.
    spread = [_value_and_gradient(student, model, _sliced(model, x, generator)) for _ in range(calls)]
    value_std, gradient_std = (1.5 * torch.stack(each).std(0) for each in zip(*spread, strict=True))
    answers = [
        Answer.mean_of("loss", values, value, 1e-9, right_std=value_std),
        Answer.mean_of("gradient", gradients, gradient, 1e-9, right_std=gradient_std),
    ]
    mistakes = _loss_mistakes(model, implicit, entries)
    mistakes += _added_up(answers[0], lambda k: {"loss": k * value, "gradient": k * gradient})
    report = judge(
        "check_loss",
        answers,
        mistakes,
        verified=f"over {calls} calls, your loss and its gradient have the right mean",
    )
    if report.mistake is None or report.mistake == "loud_noise":
        if bool(values.std() < 1e-12 * values.mean().abs()):
            raise Refusal("your loss gives the same in each call: its projections are not drawn anew", "same_probe")
        refuse_loud_noise("loss", values.std().item(), value_std.item())
    return report


def _check_sliced_form(student, loss, generator, *, reduced) -> Report:
    n, d, calls = 24, 4, 24
    field, x = _field_of_both_signs(n, d, generator)
    model = _Directed(field)

    def asked():
        model.forget()
        value = student.call(loss, model, x, generator=child(generator))
        return value, *model.seen(n)

    value, points, v = asked()
    still = False
    measured = _value_and_gradient(student, field, value)
    if v is not None:
        values, _, lots = zip(*(asked() for _ in range(calls)), strict=True)
        drawn = [v, *(lot for lot in lots if lot is not None and lot.shape == v.shape)]
        losses = torch.stack([student.tensor(each, (), "the loss") for each in (value, *values)])
        still = len(drawn) > calls and torch.equal(drawn[0], drawn[1]) and bool(losses.std() > 0)
        if len(drawn) <= calls or still:
            v = None  # not the directions of a slice: something else is differentiated
    if v is not None:
        _refuse_shared_directions(drawn, n)
        # Who looks first whether the model can be differentiated takes the directions last.
        for rows in dict.fromkeys((len(v), n)):
            last = torch.cat([lot[-rows:] for lot in drawn])
            report = _judge_directed(field, points[-rows:], v[-rows:], last, measured, n, reduced)
            if report.passed or report.mistake is not None or "do not tell" in report.diagnosis:
                return report
    report = _by_its_mean(student, loss, field, x, generator)
    if v is None and report.passed:  # a trace of both signs may average to little
        report = _by_its_mean(student, loss, _uphill(d, generator), x, generator)
    if still and not report.passed and report.mistake in (None, "no_trace"):
        words = (
            "what is differentiated is not the product of the score and the direction: it is the same in each call, "
            "and only the result is multiplied by a direction"
        )
        return dataclasses.replace(report, diagnosis=f"{words}.", mistake="trace_of_other")
    if v is None:
        return report
    if report.passed:
        words = "its mean is right, but it is not the form that is asked for along the directions that it takes"
        return dataclasses.replace(report, passed=False, diagnosis=f"{words}.", mistake=None)
    if report.mistake in (None, "no_trace") and _is_of_other_directions(field, points, drawn, losses, n):
        return dataclasses.replace(report, diagnosis=f"{_TWO_SIDES}.", mistake="two_probes")
    return report


def _uphill(d, generator) -> "_Field":
    """A random field whose Jacobian has a trace far above zero at every point."""
    field = _Field(d, generator)
    field.second.data = field.first.data.mT.clone()
    return field


def _is_of_other_directions(field, x, lots, losses, n) -> bool:
    """Whether a loss varies as slices do, and not with those along the directions that it was seen to take."""
    s, jacobian = field(x).detach(), field.jacobian(x).detach()
    slices = torch.stack([torch.einsum("bi,bij,bj->b", v, jacobian, v).mean() for v in lots])
    squares = torch.stack([(s * v).sum(1).square().mean() for v in lots])
    if not is_standard(torch.cat(lots)):
        return False
    shares = [torch.corrcoef(torch.stack([losses - half * squares, slices]))[0, 1].abs() for half in (0.0, 0.5, 1.0)]
    return bool(max(shares) < 0.7 and slices.std() / 4 < losses.std() < 4 * slices.std())


def _judge_directed(field, x, v, drawn, measured, n, reduced) -> Report:
    """Judge a sliced loss by the directions that it was seen to take, shape ``(m n, d)``."""
    d, s, jacobian = x.shape[1], field(x), field.jacobian(x)
    slices, lots = torch.einsum("bi,bij,bj->b", v, jacobian, v), len(v) // n
    slopes, norms = (s * v).sum(1), s.square().sum(1)
    moments = ("mean square of the directions", "mean product of two coordinates of the directions")
    square, other = (norms, slopes.square()) if reduced else (slopes.square(), norms)

    def formula(trace=slices, turn=1.0, weight=1.0, half=0.5, square=square, scale=1.0, law=(1.0, 0.0)):
        term = scale * (turn * weight * trace + half * square).mean()
        return _parts(field, term) | dict(zip(moments, law, strict=True))

    form = (
        ("not_reduced", "the square is that of the slice, (vᵀs)²; its mean over v is known, and the variance-reduced "
         "form has ‖s‖² there", {"square": other})
        if reduced
        else ("reduced", "the square is the whole ‖s‖²: that is the variance-reduced form; the plain one has (vᵀs)²",
              {"square": other})
    )  # fmt: skip
    entries: list[tuple[str, str, dict[str, Any]]] = [
        ("half", "the ½ before the square is missing", {"half": 1.0}),
        ("half", "the ½ is missing: the whole loss is twice as large", {"scale": 2.0}),
        ("trace_sign", "the slice of the Jacobian has the wrong sign", {"turn": -1.0}),
        (
            "detached",
            "the slice of the Jacobian carries no gradient: pass create_graph=True to autograd.grad",
            {"trace": slices.detach()},
        ),
        form,
        ("mean_dims", "it is averaged over dimensions; sum over them", {"scale": 1 / d}),
        ("mean_dims", "the products of the slice are averaged over dimensions, not summed", {"weight": 1 / d}),
        ("sum_batch", "it is summed over the batch; take the mean", {"scale": n}),
        ("sum_batch", "it is summed over batch and directions; take the mean", {"scale": n * lots}),
        ("quarter", "a factor ½ too many", {"scale": 0.5}),
        ("half_trace", "the slice of the Jacobian carries a ½ that belongs to the square alone", {"weight": 0.5}),
        ("sign", "its sign is wrong", {"scale": -1.0}),
        ("square_sign", "the square has the wrong sign", {"half": -0.5}),
        ("no_square", "the square of the score is missing", {"half": 0.0}),
        ("absolute", "the slice of the Jacobian stands between bars; it is signed", {"trace": slices.abs()}),
        ("norm", "the square lacks its square", {"square": square.clamp(min=1e-24).sqrt()}),
        ("norm", "the slice vᵀs of the score is not squared", {"square": slopes}),
        ("mean_square", "the square is averaged over dimensions, not summed", {"square": norms / d}),
        (
            "squared_mean",
            "the mean of vᵀs is squared; the mean of its square is needed",
            {"square": slopes.mean() ** 2},
        ),
        ("squared_slice", "the slice of the Jacobian is squared", {"trace": slices.square()}),
        *(("no_second_projection", _ONE_SIDE, {"trace": once}) for once in _once(v, jacobian)),
        (
            "squared_sum",
            "the components of the score are added before they are squared; the squares are to be added",
            {"square": s.sum(1).square()},
        ),
        ("uniform_symmetric", "the directions are uniform on [−1, 1], whose variance is 1/3", {"law": (1 / 3, 0.0)}),
        ("sparse_signs", "the directions have variance 2/3, as those drawn from −1, 0 and 1 do", {"law": (2 / 3, 0.0)}),
        (
            "uniform_projections",
            "the directions are drawn with rand, uniform on [0, 1], not with randn",
            {"law": (1 / 3, 0.25)},
        ),
        ("uniform_projections", "the directions hold zeros and ones; signs are ±1", {"law": (0.5, 0.25)}),
        (
            "unit_projections",
            "the directions have length 1, and so E[v vᵀ] = I/d; E[v vᵀ] = I is needed",
            {"law": (1 / d, 0.0)},
        ),
        ("all_entries", "the only direction is (1, …, 1)", {"law": (1.0, 1.0)}),
    ]
    if lots > 1:
        words = f"the slices along {lots} directions are added up, where their mean is wanted"
        entries += [
            ("projections_added", words, {"scale": lots}),
            ("projections_added", words, {"weight": lots}),
            ("projections_added", f"{words}, and the square with them", {"weight": lots, "half": 0.5 * lots}),
        ]
    right = formula()
    second = drawn.mT @ drawn / len(drawn)
    right_error, error = (max(2.0, d - 1.0) / drawn.numel()) ** 0.5, drawn.square().std() / drawn.numel() ** 0.5
    found = (second.diagonal().mean(), (second.sum() - second.trace()) / (d * (d - 1)))
    answers = [
        Answer("loss", measured[0], right["loss"], 0.0, 1e-4 * max(1.0, right["loss"].abs().item())),
        Answer.exact("gradient", measured[1], right["gradient"], 1e-4),
        *(
            Answer(name, value, torch.tensor(right[name], dtype=_DOUBLE), error, 1e-6, most)
            for name, value, error, most in zip(
                moments, found, (error, len(drawn) ** -0.5), (right_error, len(drawn) ** -0.5), strict=True
            )
        ),
    ]
    which = "variance-reduced" if reduced else "plain"
    return judge(
        "check_loss",
        answers,
        slips(formula, entries),
        verified=f"your loss and its gradient are the {which} form along your directions, and E[v vᵀ] = I",
    )


def _refuse_shared_directions(lots, n):
    """Refuse directions that the points of a batch, or two calls, share; each lot is of shape ``(m n, d)``."""
    if any(len(lot) > 1 and bool((lot[:n] - lot[0]).abs().max() < 1e-12) for lot in lots):
        raise Refusal(
            "all points of the batch get the same direction, and their errors do not average out: draw it in the shape "
            "of x",
            "shared_projection",
        )
    if len(lots) > 1 and torch.equal(lots[0], lots[1]):
        raise Refusal(
            "two calls with different seeds got the same directions: a seed is set inside your function, so draw from "
            "the generator that you are given",
            "fixed_seed",
        )
    half = n // 2
    if (
        all(torch.equal(lot[:half].abs(), lot[half : 2 * half].abs()) for lot in lots)
        and len(lots[0].abs().unique()) > 2
    ):
        raise Refusal("the second half of the batch gets the directions of the first", "shared_projection")


class _Direction(torch.autograd.Function):
    """Passes points or scores on, and notes along what they are differentiated."""

    @staticmethod
    def forward(x, spy):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.spy = inputs[1]

    @staticmethod
    def backward(ctx, gradient):
        ctx.spy("backward", gradient)
        return gradient, None

    @staticmethod
    def jvp(ctx, tangent, _):
        ctx.spy("forward", tangent)
        return tangent.clone()

    @staticmethod
    def vmap(info, in_dims, x, spy):
        """Leaves what is mapped as it is."""
        spy("mapped", x)
        return x.clone(), in_dims[0]


class _Directed(nn.Module):
    """A model that notes along which directions it is differentiated, forwards or backwards."""

    def __init__(self, field):
        super().__init__()
        self.field = field
        self.forget()

    def forget(self):
        """Begin anew."""
        self.points, self.directions, self.forms, self.listening, self.asked = [], [], [], True, 0

    def forward(self, x):
        self.asked += 1
        kept = x.detach()

        def note(at, form, direction):
            if form == at and self.listening:
                self.points.append(kept)
                self.directions.append(direction.detach())
            self.forms.append(form)

        inside = _Direction.apply(x, functools.partial(note, "forward"))
        return _Direction.apply(self.field(inside), functools.partial(note, "backward"))

    def seen(self, n) -> tuple[Tensor, Tensor | None]:
        """The points and the directions, shape ``(m n, d)``; None where they cannot be told. It listens no longer."""
        self.listening = False
        points, directions, self.points, self.directions = self.points, self.directions, [], []
        if not directions or "mapped" in self.forms:
            return torch.zeros(0), None
        try:
            v = torch.cat([each.reshape(-1, each.shape[-1]).to(_DOUBLE) for each in directions])
            x = torch.cat([each.reshape(-1, each.shape[-1]).to(_DOUBLE) for each in points])
            whole = v.shape == x.shape and len(v) % n == 0 and bool(v.isfinite().all())
        except RuntimeError:  # a batch of gradients at once: that is a Jacobian
            return torch.zeros(0), None
        axes = bool(((v == 0) | (v == 1)).all() and (v.sum(1) == 1).all())  # a Jacobian, row by row
        return (x, v.clone()) if whole and not axes else (x, None)


def _sliced(model, x, generator) -> Tensor:
    v = standard_normal(x.shape[1:], generator=generator, dtype=_DOUBLE)
    s, jacobian = model(x), model.jacobian(x)
    return (torch.einsum("i,bij,j->b", v, jacobian, v) + 0.5 * (s @ v).square()).mean()


def _check_denoising(student, loss, generator) -> Report:
    n, d = 2048, 5
    model = _Spy(_Field(d, generator))
    x = standard_normal((n, d), generator=generator, dtype=_DOUBLE)
    sigma = 0.2 + 1.3 * torch.rand(n, generator=generator, dtype=_DOUBLE)

    def asked():
        model.forget()
        value = student.call(loss, model, x, sigma, generator=child(generator))
        student.connected(value, (), "the loss")
        return value, *model.seen(x)

    value, noisy, told = asked()
    scale = sigma.repeat(len(noisy) // n)
    if not torch.allclose(told, scale):
        if torch.allclose(told, scale**2):
            raise Refusal("the model is given σ², not σ", "variance_for_std")
        k = int((told - scale).abs().argmax())
        raise Refusal(
            f"the model is not given the noise scale σ of each point: it is given {told[k]:.3g} for point {k % n}, "
            f"whose σ is {scale[k]:.3g}",
            "noise_scale",
        )
    problem = _Noised(model.field, x, noisy, scale, torch.ones_like(scale), scale)
    report = _judge_denoising(student, model, value, problem, [])
    if report.mistake is None and _of_its_noise(report):
        _, again, _ = asked()
        refuse_dependent_noise(problem.noise()[:n], ((again[:n] - x) / sigma.unsqueeze(1)))
    return report


def _check_sde_loss(student, loss, generator) -> Report:
    n, d = 2048, 5
    model = _Spy(_Field(d, generator))
    process = random_sde(generator)
    x = standard_normal((n, d), generator=generator, dtype=_DOUBLE)

    def asked(points):
        model.forget()
        value = student.call(loss, model, process, points, generator=child(generator))
        student.connected(value, (), "the loss")
        noisy, t = model.seen(points)
        if not bool(((t >= 0) & (t <= 1)).all()):
            raise Refusal(f"the model is asked at times from {t.min():.3g} to {t.max():.3g}, outside [0, 1]", "time")
        return value, noisy, t

    value, noisy, t = asked(x)
    alpha, sigma = process.alpha(t), process.sigma(t)
    problem = _Noised(model.field, x, noisy, t, alpha, sigma, process)
    report = _judge_denoising(student, model, value, problem, _law_of_times(t))
    if report.mistake is not None or not _of_its_noise(report):
        return report
    _, again, later = asked(x)
    _refuse_fixed_times(t, later, lambda: asked(x[:8])[2])
    noise = (again - process.alpha(later).unsqueeze(1) * x.repeat(len(again) // n, 1)) / process.sigma(later)[:, None]
    refuse_dependent_noise(problem.noise()[:n], noise[:n])
    return report


def _of_its_noise(report) -> bool:
    """Whether a loss and its gradient are the right functions of the noise, whatever that is."""
    return report.passed or all(row.holds for row in report.measurements[:2])


def _law_of_times(t) -> list[Answer]:
    """Mean and standard deviation of times; both those of uniform ones, unless all are the same."""
    if t.std() < _SAME_TIME:
        return []
    # A grid with one random shift has the mean ½ + t_min/2 of independent times and varies less.
    n = len(t)
    truth = torch.tensor([0.5, 12**-0.5], dtype=_DOUBLE)
    return [
        Answer("time's mean", t.mean(), truth[0], 1 / math.sqrt(12 * n), 6e-3),
        Answer("time's standard deviation", t.std(), truth[1], 0.13 / math.sqrt(n), 6e-3),
    ]


def _refuse_fixed_times(t, later, draw):
    """Refuse times that are the same in each call, and judge the law of those that are the same for a whole batch."""
    same = t.std() < _SAME_TIME
    if len(t) == len(later) and torch.equal(t, later) and not same:
        gaps = t.sort().values.diff()
        if gaps.std() > 1e-3 * gaps.mean():
            raise Refusal("two calls with different seeds got the same times: a seed is set inside your function, so "
                          "draw from the generator that you are given", "fixed_seed")  # fmt: skip
    if not same:
        return
    drawn = torch.stack([draw()[0] for _ in range(_BATCHES)])
    if drawn.std() < _SAME_TIME:
        raise Refusal(
            f"the model is asked at t = {drawn[0]:.4g} alone, in every call: draw the time, uniform on [t_min, 1]",
            "fixed_time",
        )
    if not all(answer.holds for answer in _law_of_times(drawn)):
        raise Refusal(
            f"the times, one for each batch, are not uniform on [t_min, 1]: over {_BATCHES} calls their mean is "
            f"{drawn.mean():.3g} for 0.5 and their standard deviation {drawn.std():.3g} for 0.289",
            "wrong_times",
        )


class _Noised:
    """What a model was asked in a loss with noise, and the noise that follows from it."""

    def __init__(self, field, x, noisy, level, alpha, sigma, process=None):
        self.field, self.batch, self.process = field, len(x), process
        self.x, self.noisy, self.level = x.repeat(len(noisy) // len(x), 1), noisy, level
        self.alpha, self.sigma = alpha.unsqueeze(1), sigma.unsqueeze(1)

    def noise(self, alpha=None, sigma=None):
        """The noise, if the noisy points were made by these factors."""
        alpha, sigma = (self.alpha if alpha is None else alpha), (self.sigma if sigma is None else sigma)
        return (self.noisy - alpha * self.x) / sigma

    def made_otherwise(self):
        """How else the noisy points may have been made: undoing the mistake then leaves standard normal noise."""
        a, c = self.alpha, self.sigma
        ways = [
            ("variance_for_std", "the noise is multiplied by the variance, not by the standard deviation", a, c**2),
            ("root_of_std", "the noise is multiplied by the root of σ, not by σ", a, c.sqrt()),
            ("no_sigma", "the noise is not multiplied by σ", a, torch.ones_like(c)),
        ]
        if self.process is not None:
            g = self.process.diffusion(self.level).unsqueeze(1)
            ways += [
                ("no_alpha", "the clean point is not multiplied by α(t)", torch.ones_like(a), c),
                ("alpha_squared", "the clean point is multiplied by α², not by α", a**2, c),
                ("alpha_squared", "the clean point is multiplied by √α, not by α", a.sqrt(), c),
                ("diffusion_for_sigma", "the noise is multiplied by g(t), not by σ(t)", a, g),
            ]
        for key, words, alpha, sigma in ways:
            if is_standard(self.noise(alpha, sigma)):
                yield key, words, self.noise(alpha, sigma), self.alpha, self.sigma
        yield from self.told_otherwise()

    def told_otherwise(self):
        """Which time the points may have, if the model is told another: the noise is standard there."""
        if self.process is None:
            return
        for key, words, t in (
            (
                "noise_scale",
                "the model is told σ(t), where it takes the time t",
                _time_of_sigma(self.process, self.level),
            ),
            ("wrong_time", "the model is told 1 − t, where it takes the time t", 1 - self.level),
            ("wrong_time", "the model is told t², where it takes the time t", self.level.sqrt()),
            ("wrong_time", "the model is told √t, where it takes the time t", self.level**2),
        ):
            alpha, sigma = (part(t.clamp(1e-9, 1)).unsqueeze(1) for part in (self.process.alpha, self.process.sigma))
            if is_standard(self.noise(alpha, sigma)):
                yield key, words, self.noise(alpha, sigma), alpha, sigma


def _time_of_sigma(process, sigma) -> Tensor:
    """The time at which the noise has a given scale, by bisection."""
    low, high = torch.zeros_like(sigma), torch.ones_like(sigma)
    for _ in range(60):
        middle = 0.5 * (low + high)
        late = process.sigma(middle) > sigma
        low, high = torch.where(late, low, middle), torch.where(late, middle, high)
    return 0.5 * (low + high)


def _judge_denoising(student, model, value, problem, answers) -> Report:
    n, d = problem.noisy.shape
    field, z = problem.field, problem.noise()
    for clean in (problem.x, problem.alpha * problem.x):
        if torch.allclose(problem.noisy, clean):
            raise Refusal("the model sees the points without noise", "clean_input")
    s = field(problem.noisy, problem.level)
    own = {"noise's mean": z.mean(), "noise's standard deviation": z.std(), "noise's fourth moment": (z**4).mean()}
    times = {answer.quantity: answer.measured for answer in answers}
    standard = {"noise's mean": 0.0, "noise's standard deviation": 1.0, "noise's fourth moment": 3.0}
    uniform = {"noise's mean": 0.5, "noise's standard deviation": 12**-0.5, "noise's fourth moment": 0.2}

    def loss(c=problem.sigma, z=z, turn=1.0, target=-1, weight=2, of=None, **parts):
        """The loss, where the weight and the target are powers of the noise scale."""
        residual = s + turn * c**target * z
        power = c**weight if of is None else of
        if parts.get("over") == "crossed":
            c = c**target * c
            return 0.5 * (
                ((c * s) ** 2).sum(1).mean() + z.square().sum(1).mean() + 2 * ((c * s).mean(0) * z.mean(0)).sum()
            )
        if parts.get("over") == "weight crossed":
            return 0.5 * power.mean() * residual.square().sum(1).mean()
        return _reduced(power * residual.square(), **parts)

    def formula(law=standard, **parts):
        return law | _parts(field, loss(**parts))

    entries = [
        *_REDUCTIONS,
        ("target_sign", "the target −z/σ lacks its minus sign", {"turn": -1.0}),
        ("unweighted", "the weight σ² is missing", {"weight": 0}),
        ("weight", "the weight is σ, not σ²", {"weight": 1}),
        ("inverse_weight", "the weight is 1/σ², upside down", {"weight": -2}),
        ("squared_weight", "the weight is σ⁴, not σ²", {"weight": 4}),
        ("target_scale", "the target is −z, without its 1/σ", {"target": 0}),
        ("target_variance", "the target is −z/σ², one σ too many", {"target": -2}),
        ("target_difference", "the target −σz lacks its 1/σ²", {"target": 1}),
        (
            "noise_prediction",
            "the model is fitted to the noise z itself; the target of a score is −z/σ",
            {"target": 0, "turn": -1.0, "weight": 0},
        ),
        (
            "crossed",
            "every answer of the model is compared with the noise of every point, not with its own: shapes such as "
            "(B, 1) and (B,) broadcast to (B, B)",
            {"over": "crossed"},
        ),
        (
            "crossed",
            "every square is weighed with the σ² of every point, not with its own: (B, 1) times (B,) is (B, B)",
            {"over": "weight crossed"},
        ),
        ("uniform_noise", "the noise is drawn with rand, uniform on [0, 1], not with randn", {"law": uniform}),
    ]
    if problem.process is not None:
        square = problem.process.diffusion(problem.level).unsqueeze(1) ** 2
        entries.append(("likelihood_weight", "the weight is g², not σ²", {"of": square}))
    for key, words, drawn, _, c in problem.made_otherwise():
        if c is problem.sigma:
            entries += [(key, words, {"law": own, "z": drawn}), (key, words, {"law": own})]
        else:  # the model was told another time
            entries.append((key, words, {"law": own | times, "c": c, "z": drawn}))
    number, gradient = _value_and_gradient(student, model, value)
    right = loss()
    law = [
        ("noise's mean", 0.0, (n * d) ** -0.5),
        ("noise's standard deviation", 1.0, (2 * n * d) ** -0.5),
        ("noise's fourth moment", 3.0, (96 / (n * d)) ** 0.5),
    ]
    answers = [
        Answer.exact("loss", number, right.detach(), 1e-4),
        Answer.exact("gradient", gradient, _flat_gradient(field, right), 1e-4),
        *(Answer(q, own[q], torch.tensor(truth, dtype=_DOUBLE), error, 1e-6) for q, truth, error in law),
        *answers,
    ]
    report = judge(
        "check_loss",
        answers,
        slips(formula, entries),
        verified="your loss and its gradient are the right functions of the noise, and the noise is standard normal",
    )
    if report.passed or report.mistake is not None:
        return report
    return _by_its_outputs(model, value, problem, answers, report)


def _by_its_outputs(model, value, problem, answers, report) -> Report:
    """What the gradient at the model's outputs tells of a loss that no formula explains: its targets and weights."""
    slope = model.gradient_at_outputs(value)
    fine = [answer.holds for answer in answers]
    if all(fine[:5]) and not all(fine[5:]):
        t = problem.level
        refused = (
            f"the times are not uniform on [t_min, 1]: their mean is {t.mean():.3g} for 0.5 and their standard "
            f"deviation {t.std():.3g} for 0.289"
        )
        return dataclasses.replace(report, diagnosis=f"{refused}.", mistake="wrong_times")
    if slope is None or not is_standard(problem.noise()):
        return report
    s, z, c = problem.field(problem.noisy, problem.level).detach(), problem.noise(), problem.sigma
    slope, right = len(z) * slope, c * (c * s + z)
    target = slope / c - c * s
    if is_standard(target) and abs((target * z).mean().item()) < 5 / z.numel() ** 0.5:
        words = "the target holds other noise than the point: draw z once, and use it for both"
        return dataclasses.replace(report, diagnosis=f"{words}.", mistake="fresh_target")
    weight = (slope * right).sum(1) / right.square().sum(1)
    weighed = bool((slope - weight.unsqueeze(1) * right).abs().max() < 1e-4 * slope.abs().max())
    value_too = math.isclose(value.item(), (0.5 * weight * (c * s + z).square().sum(1)).mean().item(), rel_tol=1e-4)
    if problem.process is None or not (weighed and value_too):
        return report
    t = problem.level
    moments = [
        Answer(f"weighted mean of t^{k}", (w := weight * t**k).mean(), torch.tensor(1 / (k + 1), dtype=_DOUBLE),
               w.std() / len(t) ** 0.5, 6e-3, 3 / len(t) ** 0.5)
        for k in range(3)
    ]  # fmt: skip
    if all(answer.holds for answer in moments):
        return dataclasses.replace(
            report,
            passed=True,
            diagnosis="your times are drawn from a density of your own, and your weights make up for it",
            measurements=tuple(answer.row() for answer in (*moments, *answers[2:5])),
            measured=moments[0].measured.item(),
            expected=1.0,
            standard_error=float(moments[0].standard_error),
        )
    return report


# Mistakes that touch the whole of a loss that is a mean of sums of squares.
_REDUCTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("half", "the ½ is missing", {"factor": 1.0}),
    ("mean_dims", "it is averaged over dimensions; sum over them", {"over": "dimensions"}),
    (
        "mse",
        "it is averaged over dimensions, and the ½ is missing, as in mse_loss",
        {"factor": 1.0, "over": "dimensions"},
    ),
    ("sum_batch", "it is summed over the batch; take the mean", {"over": "batch"}),
    ("sum_batch", "it is summed over the batch, and the ½ is missing", {"factor": 1.0, "over": "batch"}),
    ("quarter", "a factor ½ too many", {"factor": 0.25}),
    ("sign", "its sign is wrong", {"factor": -0.5}),
    ("norm", "the norm is not squared", {"over": "norm", "factor": 1.0}),
    ("norm", "the norm is not squared", {"over": "norm"}),
]


def _reduced(squares, factor=0.5, over="", power=1.0) -> Tensor:
    """A loss made of squares, shape ``(B, d)``: half the mean over the batch of their sums, or something else."""
    sums = (squares**power).sum(1)
    if over == "norm":
        return factor * sums.sqrt().mean()
    return factor * sums.mean() * {"": 1.0, "dimensions": 1 / squares.shape[1], "batch": len(squares)}[over]


def _judge_loss(student, model, value, formula, entries) -> Report:
    value, gradient = _value_and_gradient(student, model, value)
    right = formula()
    answers = [
        Answer("loss", value, right.detach(), 0.0, 1e-4 * max(1.0, right.detach().abs().item())),
        Answer.exact("gradient", gradient, _flat_gradient(model, right), 1e-4),
    ]
    mistakes = _loss_mistakes(model, formula, entries)
    return judge("check_loss", answers, mistakes, verified="your loss and its gradient are right")


def _loss_mistakes(model, formula, entries) -> list[Mistake]:
    return slips(lambda **parts: _parts(model, formula(**parts)), entries)


def _parts(model, term) -> dict[str, Tensor]:
    return {"loss": term.detach(), "gradient": _flat_gradient(model, term)}


def _value_and_gradient(student, model, value) -> tuple[Tensor, Tensor]:
    value = student.connected(value, (), "the loss")
    number = student.tensor(value, (), "the loss")
    if not value.requires_grad:
        raise Refusal(
            "your loss does not depend on the model's parameters by autograd, so nothing would be learned: it was "
            "detached, computed under no_grad, or turned into a number",
            "no_gradient",
        )
    try:
        gradient = _flat_gradient(model, value)
    except RuntimeError as error:
        if "backward through the graph a second time" in str(error):
            raise Refusal(
                "your loss cannot be differentiated in the model's parameters: the derivative inside it has used up "
                "the graph; pass create_graph=True to autograd.grad",
                "detached",
                error,
            ) from error
        raise Refusal(f"your loss cannot be differentiated in the model's parameters: {error}", cause=error) from error
    if not bool(torch.isfinite(gradient).all()):
        raise Refusal("the gradient of your loss holds NaN or infinity", "not_finite")
    return number, gradient


def _flat_gradient(model, value) -> Tensor:
    parameters = list(model.parameters())
    if not value.requires_grad:  # a mistaken formula that left the model out
        return torch.cat([torch.zeros_like(parameter).flatten() for parameter in parameters])
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True, allow_unused=True)
    return torch.cat([gradient.detach().flatten() for gradient in gradients])


class _Field(nn.Module):
    r"""A random field :math:`W_2 \tanh(W_1 x + b) + c`, with its Jacobian in closed form."""

    def __init__(self, dim, generator, hidden=8):
        super().__init__()

        def draw(*shape):
            return nn.Parameter(standard_normal(shape, generator=generator, dtype=_DOUBLE))

        self.first, self.bias, self.second = draw(hidden, dim), draw(hidden), draw(dim, hidden)
        self.offset = draw(dim)

    def forward(self, x, level=None):
        flat = x.reshape(-1, self.first.shape[1]).to(_DOUBLE)  # one point alone, under vmap, or a batch of them
        hidden = flat @ self.first.mT + self.bias
        if level is not None:
            hidden = hidden + torch.as_tensor(level, dtype=_DOUBLE).reshape(-1, 1)
        return (torch.tanh(hidden) @ self.second.mT + self.offset).reshape(x.shape)

    def jacobian(self, x) -> Tensor:
        slope = 1 - torch.tanh(x.flatten(1) @ self.first.mT + self.bias).square()
        return torch.einsum("ij,bj,jk->bik", self.second, slope, self.first)


class _Noted(torch.autograd.Function):
    """Passes points on and notes them, with what the model is told beside them; under ``vmap`` too."""

    @staticmethod
    def forward(x, level, spy):
        spy.note(x, level)
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return tangent.clone()

    @staticmethod
    def vmap(info, in_dims, x, level, spy):
        """Notes the points of all calls at once."""
        n = info.batch_size
        x, level = (
            part.expand(n, *part.shape) if at is None else part.movedim(at, 0)
            for part, at in ((x, in_dims[0]), (level, in_dims[1]))
        )
        rows = x.reshape(-1, x.shape[-1])
        spy.note(rows, level.reshape(n, -1).expand(n, len(rows) // n).reshape(-1))
        spy.mapped = True
        return x.clone(), 0


class _Spy(nn.Module):
    """A model of two arguments that notes what it was asked."""

    def __init__(self, field):
        super().__init__()
        self.field = field
        self.forget()

    def forget(self):
        """Begin anew."""
        self.calls, self.outputs, self.mapped = [], [], False

    def note(self, x, level):
        """Keep what was asked."""
        self.calls.append((x.detach().to(_DOUBLE).clone(), level.detach().to(_DOUBLE).clone()))

    def forward(self, x, level):
        level = torch.as_tensor(level)
        out = self.field(_Noted.apply(x, level, self), level)
        self.outputs.append(out)
        return out

    def seen(self, x) -> tuple[Tensor, Tensor]:
        """The points at which the model was asked, ``(k B, d)``, and what it was told: batch after batch.

        The same call made again counts once, and one at the clean points not at all.
        """
        n, d = x.shape
        self._kept: list[list[int]] = []
        points: list[Tensor] = []
        levels: list[Tensor] = []
        for number, (asked, level) in enumerate(self.calls):
            rows = asked.reshape(-1, d)
            if level.ndim > 1 or (level.ndim == 1 and len(level) not in (1, len(rows))):
                raise Refusal(f"the model is given a second argument of shape {tuple(level.shape)}, not (B,)", "shape")
            told = level.reshape(-1).expand(len(rows))
            same = next((k for k, (p, q) in enumerate(zip(points, levels, strict=True))
                         if torch.equal(p, rows) and torch.equal(q, told)), None)  # fmt: skip
            if same is not None:
                self._kept[same].append(number)
                continue
            points.append(rows)
            levels.append(told)
            self._kept.append([number])
        if not points:
            raise Refusal("your loss does not ask the model", "calls")
        noisy = [k for k, rows in enumerate(points) if not torch.equal(rows, x)] or range(len(points))
        self._kept = [self._kept[k] for k in noisy]
        total = sum(len(points[k]) for k in noisy)
        if total % n:
            raise Refusal(f"your loss asks the model at {total} points for a batch of {n}", "calls")
        return torch.cat([points[k] for k in noisy]), torch.cat([levels[k] for k in noisy])

    def gradient_at_outputs(self, value) -> Tensor | None:
        """Gradient of a loss in what the model answered, row by row as :meth:`seen`; None where it cannot be had."""
        if self.mapped:
            return None
        outputs = [[self.outputs[k] for k in same if self.outputs[k].requires_grad] for same in self._kept]
        if not all(outputs):
            return None
        flat = [out for same in outputs for out in same]
        slopes = iter(torch.autograd.grad(value, flat, retain_graph=True, allow_unused=True, materialize_grads=True))
        return torch.cat([torch.stack([next(slopes) for _ in same]).sum(0) for same in outputs]).to(_DOUBLE)


def _field_of_both_signs(n, dim, generator) -> tuple[_Field, Tensor]:
    """A field and points where its divergence takes both signs, so that bars show, and is large, so that factors do."""
    while True:
        field = _Field(dim, generator)
        x = standard_normal((n, dim), generator=generator, dtype=_DOUBLE)
        jacobian = field.jacobian(x).detach()
        trace, size = _trace(jacobian), jacobian.square().sum((1, 2)).mean().sqrt()
        if min(trace.max(), -trace.min()) > 0.2 * rms(trace) and trace.abs().max() > size:
            return field, x


def _trace(jacobian) -> Tensor:
    return jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)


def _root(covariances) -> Tensor:
    values, vectors = torch.linalg.eigh(covariances)
    return vectors @ torch.diag_embed(values.sqrt()) @ vectors.mT
