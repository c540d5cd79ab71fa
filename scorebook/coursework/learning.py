r"""Checks of what one writes to learn a score: the score of a density, a divergence, and the losses.

Scores, divergences and the losses without noise are identities: both sides are computed in double precision at random
points and must agree. A noisy loss is made to be one as well: the model that the student's loss is given notes what it
was asked, so the noise that was drawn is known, and the loss must be the right function of it. What is left to
statistics is the law of that noise.
"""

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
    refuse_shared_noise,
    rms,
    seeded,
)
from scorebook.coursework.reports import Answer, Mistake, Report, judge
from scorebook.lab.arguments import one_of, positive, positive_integer, standard_normal
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.types import Integer, Number
from scorebook.score_matching import score_of

__all__ = ["check_divergence", "check_loss", "check_score"]

_Kind: TypeAlias = Literal["explicit", "implicit", "sliced", "denoising", "sde"]
_KINDS = get_args(_Kind)
_DOUBLE = torch.float64


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
    student = Student("score(x)")
    generator = seeded(seed)

    def check():
        x = distribution.sample(n_points, generator=generator)
        spread = 0.5 * (x.max(0).values - x.min(0).values).clamp(min=0.1)
        x[n_points // 2 :] += spread * standard_normal(
            x[n_points // 2 :].shape, generator=generator, dtype=x.dtype, device=x.device
        )
        truth = score_of(distribution.log_prob, x).to("cpu", _DOUBLE)
        values = student.tensor(student.call(score, x.clone()), x.shape, "the score")
        answer = Answer.exact("score", values, truth, tolerance)
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
    def scaled(factor):
        return lambda: {"score": factor * truth}

    def density():
        return {"score": truth * distribution.log_prob(x).exp().to("cpu", _DOUBLE).unsqueeze(1)}

    mistakes = [
        Mistake("sign", "that is the gradient of minus the log-density", scaled(-1.0)),
        Mistake("mean", "the mean over the batch was taken before the gradient; take the sum", scaled(1 / len(x))),
        Mistake("half", "a factor ½ too many, or a factor 2 lost under the derivative of the square", scaled(0.5)),
        Mistake("twice", "a factor 2 too many: the ½ in the exponent of the density is missing", scaled(2.0)),
        Mistake("density", "that is the gradient of the density itself, not of its logarithm", density),
    ]
    if isinstance(distribution, GaussianMixture):
        mistakes += _mixtures_mistaken(distribution, x)
    return mistakes


def _mixtures_mistaken(law, x) -> list[Mistake]:
    weights, means, x = law.weights.double(), law.means.double(), x.double()
    covariances = law.covariances.double()
    if covariances.ndim == 1:
        covariances = covariances[:, None, None] * torch.eye(law.dim, dtype=_DOUBLE, device=law.device)

    def answer(weigh=weights, precision=None, choose=None):
        part = GaussianMixture(weigh / weigh.sum(), means, covariances)
        r = part.responsibilities(x) if choose is None else choose(part)
        precision = torch.linalg.inv(covariances) if precision is None else precision
        pulls = torch.einsum("kij,bkj->bki", precision, means - x.unsqueeze(1))
        return {"score": torch.einsum("bk,bki->bi", r, pulls).cpu()}

    def single(part):
        return torch.nn.functional.one_hot(part.responsibilities(x).argmax(1), len(means)).double()

    identity = torch.eye(law.dim, dtype=_DOUBLE, device=law.device).expand_as(covariances)
    entries = [
        ("precision", "the difference is not divided by the covariance", {"precision": identity}),
        (
            "std_for_variance",
            "it is divided by the standard deviation, not by the variance",
            {"precision": torch.linalg.inv(_root(covariances))},
        ),
        ("covariance", "it is multiplied by the covariance, not divided by it", {"precision": covariances}),
        (
            "weights",
            "the weights of the components are ignored",
            {"weigh": torch.ones_like(weights)},
        ),
        (
            "prior_weights",
            "the components are averaged with their weights, not with the probability that each produced the point",
            {"choose": lambda part: weights.expand(len(x), -1)},
        ),
        (
            "sum_of_logs",
            "the logarithms of the components are added up, where the logarithm of their sum is wanted",
            {"choose": lambda part: torch.ones(len(x), len(weights), dtype=_DOUBLE, device=law.device)},
        ),
        ("hard", "only the likeliest component is used, not the average over all", {"choose": single}),
    ]
    return [Mistake(key, words, functools.partial(answer, **options)) for key, words, options in entries]


def check_divergence(
    f: Callable[..., Any],
    *,
    exact: bool = True,
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
            64 calls is held against the truth.
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
    student = Student("f(field, x)" if exact else "f(field, x, generator=generator)")
    generator = seeded(seed)

    def check():
        n = 16
        field, x = _field_of_both_signs(n, math.prod(event), generator)
        x = x.reshape(n, *event)
        jacobian = field.jacobian(x)
        truth = _trace(jacobian)
        if exact:
            values = student.tensor(student.call(f, field, x), (n,), "the divergence")
            answer = Answer.exact("divergence", values, truth, 1e-4)
        else:
            answer = _estimated_divergence(student, f, field, x, truth, generator)
        report = judge(
            "check_divergence",
            [answer],
            _divergences_mistaken(field, x, jacobian),
            verified="your divergence is the trace of the Jacobian"
            if exact
            else "the mean of your estimate is the trace of the Jacobian",
        )
        if exact and report.mistake is None:
            refuse_coupling(student, lambda part: f(field, part), x, values, 1e-4 * rms(truth))
        return report

    return under_guard("check_divergence", check, student, time_limit=time_limit)


def _estimated_divergence(student, f, field, x, truth, generator) -> Answer:
    calls, copies = 64, 64
    points = x.repeat_interleave(copies, 0)
    means = []
    for _ in range(calls):
        values = student.call(f, field, points, generator=child(generator))
        means.append(student.tensor(values, (len(points),), "the divergence").reshape(len(x), copies).mean(1))
    draws = torch.stack(means)
    if bool((draws.std(0) < 1e-12 * rms(truth)).all()) and not torch.allclose(draws[0], truth, rtol=1e-6):
        raise Refusal("your estimate gives the same in each call: its projections are not drawn anew", "same_probe")
    return Answer.mean_of("divergence", draws, truth, 1e-9 * rms(truth))


def _divergences_mistaken(field, x, jacobian) -> list[Mistake]:
    d = jacobian.shape[-1]
    trace, total = _trace(jacobian), jacobian.sum((1, 2))
    diagonal = jacobian.diagonal(dim1=1, dim2=2)
    entries = [
        ("sign", "its sign is wrong", -trace),
        ("all_entries", "all entries of the Jacobian are added up, not its diagonal alone", total),
        (
            "unit_projections",
            "it is divided by the dimension: projections of length 1 where E[v vᵀ] = I is needed, or a mean over "
            "dimensions where a sum is",
            trace / d,
        ),
        ("absolute", "the trace stands between bars; it is signed", trace.abs()),
        ("uniform_projections", "the projections are drawn with rand, uniform on [0, 1], not with randn",
         trace / 3 + (total - trace) / 4),
        ("uniform_symmetric", "the projections are uniform on [−1, 1], whose variance is 1/3", trace / 3),
        ("half", "a factor ½ too many", trace / 2),
        ("twice", "a factor 2 too many", 2 * trace),
        ("first", "only the first dimension is differentiated", diagonal[:, 0]),
        ("last", "only the last dimension is kept; add them up", diagonal[:, -1]),
        ("frobenius", "that is the Frobenius norm of the Jacobian", jacobian.square().sum((1, 2)).sqrt()),
        ("frobenius_squared", "that is the squared Frobenius norm of the Jacobian", jacobian.square().sum((1, 2))),
        ("no_derivative", "that is the sum of the field's components, with no derivative",
         field(x).detach().flatten(1).sum(1)),
        ("determinant", "that is the determinant of the Jacobian", torch.linalg.det(jacobian)),
    ]  # fmt: skip
    return [Mistake(key, words, functools.partial(dict, divergence=value)) for key, words, value in entries]


def check_loss(loss: Callable[..., Any], kind: _Kind, *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold a loss and its gradient against the truth, for a random model that is not the optimum.

    The right loss sums over dimensions and is a mean over the batch:

    - ``explicit``: ``loss(model, x, score)``, :math:`\tfrac12 E\|s_\theta(x) - s(x)\|^2`
    - ``implicit``: ``loss(model, x)``, :math:`E[\nabla\cdot s_\theta + \tfrac12\|s_\theta\|^2]`
    - ``sliced``: ``loss(model, x, *, generator)``, :math:`E[v^T\nabla s_\theta v + \tfrac12 (v^T s_\theta)^2]`
    - ``denoising``: ``loss(model, x, sigma, *, generator)``,
      :math:`\tfrac12 E[\sigma^2\|s_\theta(x+\sigma z,\sigma)+z/\sigma\|^2]`
    - ``sde``: ``loss(model, sde, x, *, generator)``,
      :math:`\tfrac12 E[\sigma(t)^2\|s_\theta(x_t,t)+z/\sigma(t)\|^2]`

    They are the losses of ``score_matching``, ``sliced_score_matching``, ``noise_scales`` and ``sde`` with their
    defaults. ``x`` has shape ``(B, d)``, ``sigma`` shape ``(B,)``; the model takes ``(x)``, ``(x, sigma)`` or
    ``(x, t)``, with ``sigma`` or ``t`` a scalar or of shape ``(B,)``.

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
    student = Student(f"loss({arguments.get(kind, 'model, x')}{keywords})")
    generator = seeded(seed)
    check = {
        "explicit": _check_explicit,
        "implicit": _check_implicit,
        "sliced": _check_sliced,
        "denoising": _check_denoising,
        "sde": _check_sde_loss,
    }[kind]
    return under_guard("check_loss", lambda: check(student, loss, generator), student, time_limit=time_limit)


def _check_explicit(student, loss, generator) -> Report:
    n, d = 24, 5
    model, other = _Field(d, generator), _Field(d, generator)
    x = standard_normal((n, d), generator=generator, dtype=_DOUBLE)
    target = other(x).detach()
    squares = (model(x) - target).square()
    right = 0.5 * squares.sum(1).mean()
    plus = 0.5 * (model(x) + target).square().sum(1).mean()
    terms = [
        *_scalings(right, n, d),
        ("sign", "the scores are added, not subtracted", plus),
        ("sign", "the scores are added, not subtracted, and the ½ is missing", 2 * plus),
        ("norm", "the norm is not squared", squares.sum(1).sqrt().mean()),
        ("norm", "the norm is not squared", 0.5 * squares.sum(1).sqrt().mean()),
        ("absolute", "absolute differences are summed, not squares", (model(x) - target).abs().sum(1).mean()),
    ]
    value = student.call(loss, model, x, lambda points: other(points).detach())
    return _judge_loss(student, model, value, right, terms)


def _check_implicit(student, loss, generator) -> Report:
    model, x = _field_of_both_signs(24, 5, generator)
    right, terms = _implicit_terms(model, x)
    return _judge_loss(student, model, student.call(loss, model, x), right, terms)


def _implicit_terms(model, x):
    """The implicit loss, and what becomes of it by the usual mistakes, as functions of the parameters."""
    n, d = x.shape
    s, jacobian = model(x), model.jacobian(x)
    trace, total = _trace(jacobian).mean(), jacobian.sum((1, 2)).mean()
    square = 0.5 * s.square().sum(1).mean()
    right = trace + square
    return right, [
        ("half", "the ½ before the square is missing", trace + 2 * square),
        ("trace_sign", "the trace has the wrong sign", square - trace),
        ("detached", "the trace carries no gradient: pass create_graph=True to autograd.grad", trace.detach() + square),
        *_scalings(right, n, d),
        ("no_trace", "the trace is missing", square),
        ("no_square", "the square of the score is missing", trace),
        ("absolute", "the trace stands between bars; it is signed", _trace(jacobian).abs().mean() + square),
        ("all_entries", "all entries of the Jacobian are added up, not its diagonal alone", total + square),
        ("norm", "the norm of the score is not squared", trace + 0.5 * s.norm(dim=1).mean()),
        ("half_trace", "the trace carries a ½ that belongs to the square alone", 0.5 * trace + square),
        ("mean_square", "the square is averaged over dimensions, not summed", trace + square / d),
        ("unit_projections", "the trace is divided by the dimension", trace / d + square),
    ]


def _check_sliced(student, loss, generator) -> Report:
    n, d, calls = 512, 5, 64
    model = _Field(d, generator, hidden=6)
    x = standard_normal((n, d), generator=generator, dtype=_DOUBLE)
    right, terms = _implicit_terms(model, x)
    s, jacobian = model(x), model.jacobian(x)
    trace, total = _trace(jacobian).mean(), jacobian.sum((1, 2)).mean()
    square, outer = 0.5 * s.square().sum(1).mean(), 0.5 * s.sum(1).square().mean()

    def uniform(diagonal, everything):
        return diagonal / 3 + (everything - diagonal) / 4

    terms = [
        (
            "unit_projections",
            "the projections have length 1, and so E[v vᵀ] = I/d; E[v vᵀ] = I is needed",
            (trace + square) / d,
        ),
        (
            "uniform_projections",
            "the projections are drawn with rand, uniform on [0, 1], not with randn",
            uniform(trace, total) + uniform(square, outer),
        ),
        (
            "uniform_projections",
            "the projections are drawn with rand, uniform on [0, 1], not with randn",
            uniform(trace, total) + square,
        ),
        *terms,
    ]
    draws = [
        _value_and_gradient(student, model, student.call(loss, model, x, generator=child(generator)))
        for _ in range(calls)
    ]
    values, gradients = (torch.stack(each) for each in zip(*draws, strict=True))
    if bool(values.std() < 1e-12 * values.mean().abs()):
        raise Refusal("your loss gives the same in each call: its projections are not drawn anew", "same_probe")
    answers = [
        Answer.mean_of("loss", values, right.detach(), 1e-9),
        Answer.mean_of("gradient", gradients, _flat_gradient(model, right), 1e-9),
    ]
    return judge(
        "check_loss",
        answers,
        _loss_mistakes(model, terms),
        verified=f"over {calls} calls, your loss and its gradient have the right mean",
    )


def _check_denoising(student, loss, generator) -> Report:
    n, d = 2048, 5
    model = _Spy(_Field(d, generator))
    x = standard_normal((n, d), generator=generator, dtype=_DOUBLE)
    sigma = 0.2 + 1.3 * torch.rand(n, generator=generator, dtype=_DOUBLE)
    value = student.call(loss, model, x, sigma, generator=child(generator))
    student.connected(value, (), "the loss")
    noisy, seen = model.only_call()
    if not torch.allclose(seen.expand(n).double(), sigma):
        if torch.allclose(seen.expand(n).double(), sigma**2):
            raise Refusal("the model is given σ², not σ", "variance_for_std")
        raise Refusal("the model is not given the noise scale σ of each point", "noise_scale")
    return _judge_denoising(student, model, value, x, noisy, sigma, torch.ones_like(sigma), sigma, None, [])


def _check_sde_loss(student, loss, generator) -> Report:
    n, d = 2048, 5
    model = _Spy(_Field(d, generator))
    process = random_sde(generator)
    x = standard_normal((n, d), generator=generator, dtype=_DOUBLE)
    value = student.call(loss, model, process, x, generator=child(generator))
    student.connected(value, (), "the loss")
    noisy, t = model.only_call()
    t = t.detach().double().expand(n)
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise Refusal(f"the model is asked at times from {t.min():.3g} to {t.max():.3g}, outside [0, 1]", "time")
    answers = []
    if bool(t.std() > 0):
        # A grid with one random shift has the mean ½ + t_min/2 of independent times and varies less.
        answers = [
            Answer("time's mean", t.mean(), torch.tensor(0.5, dtype=_DOUBLE), 1 / math.sqrt(12 * n), 6e-3),
            Answer(
                "time's standard deviation", t.std(), torch.tensor(12**-0.5, dtype=_DOUBLE), 0.13 / math.sqrt(n), 6e-3
            ),
        ]
    alpha, sigma = process.alpha(t), process.sigma(t)
    return _judge_denoising(student, model, value, x, noisy, t, alpha, sigma, process.diffusion(t), answers)


def _judge_denoising(student, model, value, x, noisy, level, alpha, sigma, diffusion, answers) -> Report:
    n, d = x.shape
    field, noisy = model.field, noisy.detach().to(_DOUBLE)
    a, c = alpha.unsqueeze(1), sigma.unsqueeze(1)
    s, z = field(noisy, level), (noisy - a * x) / c
    if torch.allclose(noisy, x) or torch.allclose(noisy, a * x):
        raise Refusal("the model sees the points without noise", "clean_input")
    refuse_shared_noise(z)

    def half_square(residual, weight=1.0):
        return 0.5 * (weight * residual.square().sum(1)).mean()

    right = half_square(c * s + z)
    terms = [
        *_scalings(right, n, d),
        ("target_sign", "the target −z/σ lacks its minus sign", half_square(c * s - z)),
        ("unweighted", "the weight σ² is missing", half_square(s + z / c)),
        ("weight", "the weight is σ, not σ²", half_square(s + z / c, sigma)),
        ("target_scale", "the target is −z, without its 1/σ", half_square(c * (s + z))),
        ("target_scale", "the target is −z, without its 1/σ, and the weight σ² is missing", half_square(s + z)),
        ("target_variance", "the target is −z/σ², one σ too many", half_square(c * s + z / c)),
        ("target_difference", "the target −σz lacks its 1/σ²", half_square(c * s + c**2 * z)),
        ("norm", "the norm is not squared", (c * s + z).norm(dim=1).mean()),
        (
            "crossed",
            "every answer of the model is compared with the noise of every point, not with its own: shapes such as "
            "(B, 1) and (B,) broadcast to (B, B)",
            half_square(c * s) + half_square(z) + ((c * s).mean(0) * z.mean(0)).sum(),
        ),
    ]
    if diffusion is not None:
        terms.append(("likelihood_weight", "the weight is g², not σ²", half_square(s + z / c, diffusion**2)))
    mistakes = _loss_mistakes(field, terms)

    shape = {"noise's mean": z.mean(), "noise's standard deviation": z.std(), "noise's fourth moment": (z**4).mean()}
    uniform = {"noise's mean": 0.5, "noise's standard deviation": 12**-0.5, "noise's fourth moment": 0.2}
    words = "the noise is drawn with rand, uniform on [0, 1], not with randn"
    mistakes.append(Mistake("uniform_noise", words, lambda: uniform))
    # How else the noisy point may have been made: undoing the mistake then leaves standard normal noise.
    made = [
        ("variance_for_std", "the noise is multiplied by the variance, not by the standard deviation", z / c),
        ("root_of_std", "the noise is multiplied by the root of σ, not by σ", z * c.sqrt()),
        ("no_alpha", "the clean point is not multiplied by α(t)", (noisy - x) / c),
    ]

    def made_of(loss: Tensor) -> dict[str, Any]:
        return shape | _parts(field, loss)

    for key, words, drawn in made:
        if not is_standard(z) and is_standard(drawn):
            losses = [right, *(half_square(c * s + part) for part in (drawn, drawn / c))]
            mistakes += [
                Mistake(key, words, functools.partial(made_of, loss))
                for loss in (*losses, *(2 * loss for loss in losses))
            ]
    value, gradient = _value_and_gradient(student, model, value)
    size = n * d
    law = [
        ("noise's mean", 0.0, size**-0.5),
        ("noise's standard deviation", 1.0, (2 * size) ** -0.5),
        ("noise's fourth moment", 3.0, (96 / size) ** 0.5),
    ]
    answers = [
        Answer.exact("loss", value, right.detach(), 1e-4),
        Answer.exact("gradient", gradient, _flat_gradient(field, right), 1e-4),
        *(Answer(q, shape[q], torch.tensor(truth, dtype=_DOUBLE), error, 1e-6) for q, truth, error in law),
        *answers,
    ]
    return judge(
        "check_loss",
        answers,
        mistakes,
        verified="your loss and its gradient are the right functions of the noise, and the noise is standard normal",
    )


def _scalings(right, n, d):
    """Mistakes that multiply the whole loss."""
    return [
        ("half", "the ½ is missing", 2 * right),
        ("mean_dims", "it is averaged over dimensions; sum over them", right / d),
        ("mse", "it is averaged over dimensions, and the ½ is missing, as in mse_loss", 2 * right / d),
        ("sum_batch", "it is summed over the batch; take the mean", n * right),
        ("sum_batch", "it is summed over the batch, and the ½ is missing", 2 * n * right),
        ("quarter", "a factor ½ too many", 0.5 * right),
        ("sign", "its sign is wrong", -right),
    ]


def _judge_loss(student, model, value, right, terms) -> Report:
    value, gradient = _value_and_gradient(student, model, value)
    answers = [
        Answer("loss", value, right.detach(), 0.0, 1e-4 * max(1.0, right.detach().abs().item())),
        Answer.exact("gradient", gradient, _flat_gradient(model, right), 1e-4),
    ]
    return judge("check_loss", answers, _loss_mistakes(model, terms), verified="your loss and its gradient are right")


def _loss_mistakes(model, terms) -> list[Mistake]:
    return [Mistake(key, words, functools.partial(_parts, model, term)) for key, words, term in terms]


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
        raise Refusal(f"your loss cannot be differentiated in the model's parameters: {error}", cause=error) from error
    if not bool(torch.isfinite(gradient).all()):
        raise Refusal("the gradient of your loss holds NaN or infinity", "not_finite")
    return number, gradient


def _flat_gradient(model, value) -> Tensor:
    parameters = list(model.parameters())
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
        flat = x.flatten(1).to(_DOUBLE)
        hidden = flat @ self.first.mT + self.bias
        if level is not None:
            hidden = hidden + torch.as_tensor(level, dtype=_DOUBLE).reshape(-1, 1)
        return (torch.tanh(hidden) @ self.second.mT + self.offset).reshape(x.shape)

    def jacobian(self, x) -> Tensor:
        slope = 1 - torch.tanh(x.flatten(1) @ self.first.mT + self.bias).square()
        return torch.einsum("ij,bj,jk->bik", self.second, slope, self.first)


class _Spy(nn.Module):
    """A model of two arguments that notes what it was asked."""

    def __init__(self, field):
        super().__init__()
        self.field, self.calls = field, []

    def forward(self, x, level):
        self.calls.append((x, torch.as_tensor(level)))
        return self.field(x, level)

    def only_call(self):
        """The call of the student's loss, which should be one."""
        if len(self.calls) != 1:
            raise Refusal(f"your loss must call the model once, got {len(self.calls)} calls", "calls")
        x, level = self.calls.pop()
        if level.ndim > 1 or (level.ndim == 1 and len(level) not in (1, len(x))):
            raise Refusal(f"the model is given a second argument of shape {tuple(level.shape)}, not (B,)", "shape")
        return x, level


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
