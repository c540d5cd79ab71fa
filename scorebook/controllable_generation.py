r"""Controllable generation: samples of a posterior from the score of a prior.

Bayes' rule for the law at time :math:`t` loses its constant when one takes the gradient:

.. math:: \nabla_x \log p_t(x \mid y) = \nabla_x \log p_t(x) + \nabla_x \log p_t(y \mid x)

So guidance is a function from score to score, and every sampler becomes a conditional one with no change to it. The
likelihood needed is that of the *noisy* point, an average over the clean points that it may have come from,

.. math:: p_t(y \mid x_t) = \int p(y \mid x_0)\, p(x_0 \mid x_t)\, dx_0 ,

and not :math:`p(y \mid x)` of the observation. A classifier can learn it (:func:`classifier_loss`,
:func:`condition`), two scores can stand for it (:func:`classifier_free`), and for a linear observation
:math:`y = A x_0 + \varsigma z` (:class:`.LinearObservation`) it can be approximated with the prior's score alone:
:func:`diffusion_posterior` puts all of :math:`p(x_0 \mid x_t)` at its mean, :func:`pseudoinverse_guidance` gives it the
spread of an isotropic Gaussian, :func:`tweedie_moment_projection` the covariance that the score knows. All are biased,
unless the prior is what they assume. :func:`twisted_particles` corrects them: many samples move at once, each weighted
by how far its guidance was from right, and those of little weight give way to copies of the others.

Source: Song et al. (2021), section 5 and appendix I; Wu et al. (2023) for the particles.
"""

import functools
import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from torch import Tensor

from scorebook.lab.arguments import (
    at_least_single,
    batch,
    boolean,
    double,
    expand,
    finite,
    fits,
    floating,
    integers,
    levels,
    non_negative,
    one_of,
    one_per_row,
    one_read,
    positive,
    positive_integer,
    require,
    same_shape,
    some_points,
    standard_normal,
    still_finite,
    sum_over_event,
    uniform,
    vectors,
)
from scorebook.lab.calls import at
from scorebook.lab.gradients import checked, outside_inference_mode, recording
from scorebook.lab.observations import LinearObservation
from scorebook.lab.types import Array, Field, GivenScore, Integer, LogDensity, Number, PerRow, Score, TimeSampler
from scorebook.score_matching import score_of
from scorebook.sde import SDE, data_std_of, on_grid, same_sde, sde_of, time_sampler

__all__ = [
    "LinearObservation",
    "class_log_likelihood",
    "classifier_free",
    "classifier_loss",
    "colour_basis",
    "condition",
    "diffusion_posterior",
    "given",
    "in_basis",
    "pseudoinverse_guidance",
    "replace_known",
    "tweedie_moment_projection",
    "twisted_particles",
]

# Last time of the particles; there they are denoised.
_T_MIN = 1e-3
# Particles are drawn anew where they are worth less than this share of their number.
_WORN = 0.5


def condition(score: Score, log_likelihood: Score, *, scale: PerRow = 1.0) -> GivenScore:
    r"""Bayes' rule for scores: guidance by a time-dependent likelihood.

    .. math:: s(x, t) + w\, \nabla_x \log p_t(y \mid x)

    At :math:`w = 1` this is the score of the posterior, if the likelihood is that of the noisy point. Another ``scale``
    is not the score of any diffused law: :math:`p_t(x)\,p_t(y \mid x)^w` is a law at each ``t``, but noise does not
    carry one into the other.

    Args:
        score: callable ``(x, t) -> tensor like x``.
        log_likelihood: callable ``(x, t) -> (B,)``, :math:`\log p_t(y \mid x)` up to a constant, row by row and
            differentiable in ``x``.
        scale: :math:`w`, scalar or one per sample, shape ``(B,)``.

    Returns:
        A score, ``(x, t) -> tensor like x``; differentiable in ``x`` where both callables are.

    Raises:
        ValueError: if ``scale`` is negative or not finite; on a call, if ``score`` returns another shape than that of
            ``x``, or ``log_likelihood`` another than ``(B,)``, a tensor that does not depend on ``x``, or one whose
            dependence on ``x`` is hidden from autograd (:func:`scorebook.lab.gradients.checked`).

    Source: Dhariwal & Nichol (2021), algorithm 1; Song et al. (2021), eq. 14.
    """
    non_negative("scale", scale)
    return _guided(sde_of(score), _conditioned, score, log_likelihood=log_likelihood, scale=scale)


@outside_inference_mode()
def _conditioned(x: Tensor, t: Any, at_t: Field, *, log_likelihood: Callable[..., Tensor], scale: PerRow) -> Tensor:
    batch("x", x)

    def likelihood_at_t(x: Tensor) -> Tensor:
        return one_per_row("log_likelihood", at(log_likelihood, x, t), x)

    def depending(x: Tensor) -> Tensor:
        values = checked("log_likelihood", likelihood_at_t, x, of=log_likelihood)
        _check_depends("log_likelihood", values)
        return values

    return same_shape("score", at_t(x), x) + expand(scale, x, "scale") * score_of(depending, x)


def _guided(
    sde: SDE | None, core: Callable[..., Tensor], /, *scores: Callable[..., Tensor], **settings: Any
) -> GivenScore:
    """A score made of others, at times that are known in advance too: ``core(x, t, *scores at t, **settings)``."""
    guided = _belonging_to(sde, _at_once, core, scores, settings)
    data_std = next((std for score in scores if (std := data_std_of(score)) is not None), None)
    vars(guided).update(data_std=data_std, on_grid=functools.partial(_on_grid, core, scores, settings))
    return guided


@one_read()
def _at_once(
    core: Callable[..., Tensor], scores: tuple[Callable[..., Tensor], ...], settings: dict[str, Any], x: Tensor, t: Any
) -> Tensor:
    return core(x, t, *(lambda x, score=score: at(score, x, t) for score in scores), **settings)


def _on_grid(
    core: Callable[..., Tensor], scores: tuple[Callable[..., Tensor], ...], settings: dict[str, Any], times: Tensor
) -> list[Callable[..., Tensor]]:
    rows = zip(times, *(on_grid(score, times) for score in scores), strict=True)
    return [functools.partial(_at_known, core, settings, t, at_t) for t, *at_t in rows]


@one_read()
def _at_known(core: Callable[..., Tensor], settings: dict[str, Any], t: Any, at_t: Any, x: Tensor) -> Tensor:
    return core(x, t, *at_t, **settings)


def _belonging_to(sde: SDE | None, function: Callable[..., Tensor], *arguments: Any) -> GivenScore:
    """``function`` closed over its first arguments, with the SDE to which it belongs; closures cannot be pickled."""
    closed = functools.partial(function, *arguments)
    vars(closed).update(sde=sde, data_std=data_std_of(function))
    return closed


def class_log_likelihood(classifier: Score, labels: Array | Integer) -> GivenScore:
    r"""Log-probability of a class, :math:`\log p_t(\text{label} \mid x)`, from a classifier's logits.

    Args:
        classifier: callable ``(x, t) -> logits (B, n_classes)``, trained on noised points.
        labels: the wanted classes, an integer or integers of shape ``(B,)``.

    Returns:
        Callable ``(x, t) -> (B,)`` for :func:`condition`.

    Raises:
        ValueError: if ``labels`` are no integers; on a call, if they are not one per row or out of range, or the
            classifier returns another shape.
    """
    return functools.partial(_class_log_likelihood, classifier, integers("labels", labels))


def _class_log_likelihood(classifier: Callable[..., Tensor], labels: Tensor, x: Tensor, t: Any) -> Tensor:
    logits = _logits(classifier, x, t)
    wanted = labels.to(x.device).expand(len(x)) if labels.ndim == 0 else labels.to(x.device)
    wanted = _checked_labels(wanted, len(x), logits.shape[1])
    return logits.log_softmax(1).gather(1, wanted.unsqueeze(1)).squeeze(1)


@one_read()
def classifier_loss(
    classifier: Score,
    sde: SDE,
    x: Tensor,
    labels: Array,
    *,
    sample_times: TimeSampler | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Cross-entropy of a classifier on noised points, over all times.

    .. math:: E_{t, x_0, z}\left[-\log p_\theta(\text{label} \mid \alpha(t)\,x_0 + \sigma(t)\,z,\ t)\right]

    Its minimum is the exact :math:`p_t(\text{label} \mid x)`.

    Args:
        classifier: callable ``(x, t) -> logits (B, n_classes)``.
        sde: the SDE that perturbs.
        x: clean points, shape ``(B, *event)``.
        labels: their classes, integers of shape ``(B,)``.
        sample_times: callable ``(n, generator) -> (n,)`` times in [0, 1]; by default those of
            :func:`scorebook.sde.time_sampler`.
        generator: source of the times and the noise.

    Returns:
        Scalar tensor, in nats.

    Raises:
        ValueError: if labels are no integers, not one per point or out of range, or the classifier returns another
            shape than ``(B, n_classes)``.

    Source: Dhariwal & Nichol (2021), section 4.
    """
    some_points("x", x)
    labels = integers("labels", labels).to(x.device)
    t = levels("sample_times", (sample_times or time_sampler(sde))(len(x), generator), x)
    noisy, _ = sde.perturb(x, t, generator=generator)
    logits = _logits(classifier, noisy, t)
    return torch.nn.functional.cross_entropy(logits, _checked_labels(labels, len(x), logits.shape[1]))


def given(model: Callable[..., Tensor], **conditions: Any) -> GivenScore:
    """Close a conditional model over its condition, which makes it a score.

    Args:
        model: callable ``(x, t, **conditions) -> tensor like x``.
        conditions: keywords for each call, such as ``label=torch.tensor([3, 3, 7])``.

    Returns:
        Callable ``(x, t) -> tensor like x``, a ``functools.partial`` that can be pickled where the model can.
    """
    closed = _belonging_to(sde_of(model), functools.partial(model, **conditions))
    vars(closed)["on_grid"] = functools.partial(_given_on_grid, model, conditions)
    return closed


def _given_on_grid(
    model: Callable[..., Tensor], conditions: dict[str, Any], times: Tensor
) -> list[Callable[..., Tensor]]:
    return [functools.partial(at_t, **conditions) for at_t in on_grid(model, times)]


def classifier_free(conditional: Score, unconditional: Score, scale: PerRow) -> GivenScore:
    r"""Guidance without a classifier, from two scores.

    .. math:: s(x, t) + w\,\big[s(x, t \mid y) - s(x, t)\big]

    The bracket is :math:`\nabla_x \log p_t(y \mid x)`, by Bayes' rule. So 0 is the unconditional score, 1 the
    conditional one, and a larger ``scale`` goes beyond it. (Ho and Salimans write :math:`1 + w` for this :math:`w`.)

    Args:
        conditional: callable ``(x, t) -> tensor like x``.
        unconditional: callable ``(x, t) -> tensor like x``.
        scale: :math:`w`, scalar or one per sample, shape ``(B,)``.

    Returns:
        A score, ``(x, t) -> tensor like x``, two evaluations per call.

    Raises:
        ValueError: if ``scale`` is negative or not finite, or the scores belong to two SDEs; on a call, if a score
            returns another shape than that of ``x``.

    Source: Ho & Salimans (2022), eq. 6.
    """
    non_negative("scale", scale)
    sde = sde_of(unconditional)
    if sde is not None:
        same_sde("conditional", conditional, sde)
    return _guided(sde or sde_of(conditional), _classifier_free, conditional, unconditional, scale=scale)


def _classifier_free(
    x: Tensor, t: Any, conditional: Callable[..., Tensor], unconditional: Callable[..., Tensor], *, scale: PerRow
) -> Tensor:
    batch("x", x)
    without = same_shape("unconditional", unconditional(x), x)
    return without + expand(scale, x, "scale") * (same_shape("conditional", conditional(x), x) - without)


def diffusion_posterior(
    score: Score, sde: SDE, observation: LinearObservation, *, scale: PerRow = 1.0, limit: Number | None = 1.0
) -> GivenScore:
    r"""Diffusion posterior sampling: the clean likelihood, at the denoised point.

    .. math:: s(x, t) + w\, \nabla_x \log N\big(y;\ A \hat x_0(x, t),\ \varsigma^2 I\big),
              \qquad \hat x_0 = E[x_0 \mid x_t = x]

    All of :math:`p(x_0 \mid x_t)` is put at its mean. The spread that is neglected makes the likelihood too sharp, the
    more so the earlier the time, and small :math:`\varsigma` make the raw gradient diverge in any practical number of
    steps. The published cure divides by the norm of the residual, which makes the answer depend on the number of steps.
    Here the guidance keeps its direction, and its length is held below that of a typical score of pure noise,
    :math:`\|z\|/\sigma(t) \approx \sqrt d/\sigma(t)`:

    .. math:: \|\text{guidance}\| \le \text{limit} \cdot \sqrt{d}\,/\,\sigma(t) \quad\text{for each sample.}

    Args:
        score: callable ``(x, t) -> tensor like x``, differentiable in ``x``.
        sde: the SDE in whose time the score is given.
        observation: what was seen.
        scale: :math:`w`, scalar or one per sample, shape ``(B,)``; it multiplies before the limit applies.
        limit: bound on the length of the guidance, in lengths of a typical score; ``None`` for no bound.

    Returns:
        A score, ``(x, t) -> tensor like x``, at the cost of one evaluation and one backward pass through it.

    Raises:
        ValueError: if ``scale`` is negative or not finite, ``limit`` not positive, or the score belongs to another SDE;
            on a call, if shapes do not fit or the score is not differentiable in ``x``.

    Source: Chung et al. (2023), eq. 16, with another normalisation than their algorithm 1.
    """
    same_sde("score", score, sde)
    non_negative("scale", scale)
    if limit is not None:
        positive("limit", limit)
    prior = functools.partial(_through_denoiser, score, sde, observation.predict)
    return _guided(sde, _at_the_mean, score, prior=prior, sde=sde, observation=observation, scale=scale, limit=limit)


def _at_the_mean(
    x: Tensor,
    t: Any,
    at_t: Field,
    *,
    prior: Callable[..., Tensor],
    sde: SDE,
    observation: LinearObservation,
    scale: PerRow,
    limit: Number | None,
) -> Tensor:
    def weigh(predicted: Tensor, pull: Field) -> Any:
        residual = observation.residual_of(predicted)
        return _with_log_density(residual, residual / expand(observation.noise_std, residual, "noise_std") ** 2)

    s, guidance, _ = prior(x, t, at_t, weigh)
    guidance = expand(scale, guidance, "scale") * guidance
    return (s + (guidance if limit is None else _bounded(guidance, sde, t, float(limit)))).to(x.dtype)


def _bounded(guidance: Tensor, sde: SDE, t: Any, limit: float) -> Tensor:
    # The floor keeps the derivative of the root finite where there is no guidance.
    length = sum_over_event(guidance.square()).clamp(min=torch.finfo(guidance.dtype).tiny).sqrt()
    excess = length * expand(sde.sigma(t), length) / (limit * math.sqrt(math.prod(guidance.shape[1:])))
    return guidance / expand(excess.clamp(min=1), guidance)


def pseudoinverse_guidance(
    score: Score, sde: SDE, observation: LinearObservation, *, data_std: Number = 1.0
) -> GivenScore:
    r"""Pseudoinverse guidance: the clean point is uncertain, by an isotropic Gaussian around its estimate.

    .. math:: s(x, t) + \nabla_x \log N\big(y;\ A \hat x_0(x, t),\ r_t^2 A A^\top + \varsigma^2 I\big),
              \qquad r_t^2 = \frac{\sigma^2 s^2}{\sigma^2 + \alpha^2 s^2},

    where the covariance is held fixed under the gradient. :math:`r_t^2` is the variance of :math:`p(x_0 \mid x_t)` for
    Gaussian data of standard deviation :math:`s`: for those the result is exact. Correlated data are pulled
    too little along the directions in which they vary most, and clusters too far apart are not chosen by their weight.

    Args:
        score: callable ``(x, t) -> tensor like x``, differentiable in ``x``.
        sde: the SDE in whose time the score is given.
        observation: what was seen.
        data_std: standard deviation :math:`s` of the clean data, in their units.

    Returns:
        A score, ``(x, t) -> tensor like x``, at the cost of one evaluation and one backward pass through it.

    Raises:
        ValueError: if ``data_std`` is not positive, or the score belongs to another SDE; on a call, if shapes do not
            fit or the score is not differentiable in ``x``.
        RuntimeError: on a call, if the conjugate gradients do not converge.

    Source: Song et al. (2023), "Pseudoinverse-guided diffusion models for inverse problems", eqs. 7 and 8.
    """
    same_sde("score", score, sde)
    positive("data_std", data_std)
    prior = functools.partial(_through_denoiser, score, sde, observation.predict)
    return _guided(sde, _around_the_mean, score, prior=prior, sde=sde, observation=observation, data_std=data_std)


def _around_the_mean(
    x: Tensor,
    t: Any,
    at_t: Field,
    *,
    prior: Callable[..., Tensor],
    sde: SDE,
    observation: LinearObservation,
    data_std: Number,
) -> Tensor:
    weigh = functools.partial(_by_isotropic_spread, sde, observation, data_std, t)
    s, guidance, _ = prior(x, t, at_t, weigh)
    return (s + guidance).to(x.dtype)


def _by_isotropic_spread(
    sde: SDE, observation: LinearObservation, data_std: Number, t: Any, predicted: Tensor, pull: Field
) -> tuple[Tensor, Tensor]:
    noise, signal = sde.sigma(t) ** 2, (sde.alpha(t) * data_std) ** 2
    residual = observation.residual_of(predicted)
    return _with_log_density(residual, observation.solve(residual, noise * data_std**2 / (noise + signal)))


def _with_log_density(residual: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of a residual, and the log-density of the Gaussian that they come from, up to a constant."""
    return weights, -0.5 * sum_over_event(residual * weights)


def tweedie_moment_projection(score: Score, sde: SDE, observation: LinearObservation) -> GivenScore:
    r"""Tweedie moment projection: the clean point is uncertain by the covariance that the score itself knows.

    .. math:: s(x, t) + \Big(\frac{\partial A \hat x_0}{\partial x}\Big)^{\!\top}
              \big(A\,C\,A^\top + \varsigma^2 I\big)^{-1} \big(y - A \hat x_0(x, t)\big),
              \qquad C = \mathrm{Cov}[x_0 \mid x_t = x] = \frac{\sigma^2}{\alpha}\,\frac{\partial \hat x_0}{\partial x}

    Mean and covariance of :math:`p(x_0 \mid x_t)` are right, its shape is taken to be Gaussian: so this is the score of
    the posterior for every Gaussian prior, round or not, and biased where clusters compete. The derivative of a learned
    score need be neither symmetric nor positive: its symmetric part is taken, and no variance below zero.

    Args:
        score: callable ``(x, t) -> tensor like x``, differentiable in ``x``.
        sde: the SDE in whose time the score is given.
        observation: what was seen, in few numbers: each of them costs a backward pass.

    Returns:
        A score, ``(x, t) -> tensor like x``, at the cost of one evaluation and ``m + 1`` backward passes through it,
        for ``m`` numbers seen.

    Raises:
        ValueError: if the score belongs to another SDE; on a call, if shapes do not fit or the score is not
            differentiable in ``x``.

    Source: Boys et al. (2024), section 3.
    """
    same_sde("score", score, sde)
    prior = functools.partial(_through_denoiser, score, sde, observation.predict)
    return _guided(sde, _moment_projected, score, prior=prior, sde=sde, observation=observation)


def _moment_projected(
    x: Tensor, t: Any, at_t: Field, *, prior: Callable[..., Tensor], sde: SDE, observation: LinearObservation
) -> Tensor:
    weigh = functools.partial(_by_tweedie_spread, sde, observation, t)
    s, guidance, _ = prior(x, t, at_t, weigh)
    return (s + guidance).to(x.dtype)


def _by_tweedie_spread(
    sde: SDE, observation: LinearObservation, t: Any, predicted: Tensor, pull: Field
) -> tuple[Tensor, Tensor]:
    residual = observation.residual_of(predicted)
    n_seen = math.prod(predicted.shape[1:])
    identity = torch.eye(n_seen, dtype=predicted.dtype, device=predicted.device)
    directions = identity.reshape(n_seen, 1, *predicted.shape[1:])
    columns = [vectors(observation.predict(pull(direction.expand_as(predicted)))) for direction in directions]
    spread, (alpha, _) = torch.stack(columns, dim=2), _signal(sde, t, predicted)
    spread = expand(sde.sigma(t) ** 2 / alpha, spread, "t") * (spread + spread.mT) / 2
    spread = (
        _positive_part(at_least_single(spread)) + expand(observation.noise_std, spread, "noise_std") ** 2 * identity
    )
    weights = torch.linalg.solve(spread, vectors(residual).unsqueeze(2)).reshape(residual.shape)
    weights, log_density = _with_log_density(residual, weights)
    return weights, log_density - 0.5 * torch.linalg.slogdet(spread).logabsdet


def _positive_part(matrix: Tensor) -> Tensor:
    """Symmetric matrices with their negative eigenvalues set to zero, and the derivative of that."""
    with torch.autocast("cpu" if matrix.is_meta else matrix.device.type, enabled=False):
        values, axes = torch.linalg.eigh(matrix.detach())
        kept, gaps = values.clamp(min=0), values.unsqueeze(2) - values.unsqueeze(1)
        slopes = (kept.unsqueeze(2) - kept.unsqueeze(1)) / torch.where(gaps == 0, 1, gaps)
        slopes = torch.where(gaps == 0, (values > 0).to(slopes.dtype).unsqueeze(2), slopes)
        change = axes.mT @ (matrix - matrix.detach()) @ axes
        return axes @ (torch.diag_embed(kept) + slopes * change) @ axes.mT


@overload
def twisted_particles(
    score: Score,
    sde: SDE,
    observation: LinearObservation | LogDensity,
    x: Tensor,
    *,
    n_steps: Integer,
    twist: Literal["pseudoinverse", "tweedie"] = ...,
    data_std: Number = ...,
    generator: torch.Generator | None = ...,
    diagnostics: Literal[False] = ...,
) -> Tensor: ...
@overload
def twisted_particles(
    score: Score,
    sde: SDE,
    observation: LinearObservation | LogDensity,
    x: Tensor,
    *,
    n_steps: Integer,
    twist: Literal["pseudoinverse", "tweedie"] = ...,
    data_std: Number = ...,
    generator: torch.Generator | None = ...,
    diagnostics: Literal[True],
) -> tuple[Tensor, Tensor, Tensor]: ...
@overload
def twisted_particles(
    score: Score,
    sde: SDE,
    observation: LinearObservation | LogDensity,
    x: Tensor,
    *,
    n_steps: Integer,
    twist: Literal["pseudoinverse", "tweedie"] = ...,
    data_std: Number = ...,
    generator: torch.Generator | None = ...,
    diagnostics: bool,
) -> Tensor | tuple[Tensor, Tensor, Tensor]: ...
@torch.no_grad()
def twisted_particles(
    score: Score,
    sde: SDE,
    observation: LinearObservation | LogDensity,
    x: Tensor,
    *,
    n_steps: Integer,
    twist: Literal["pseudoinverse", "tweedie"] = "pseudoinverse",
    data_std: Number = 1.0,
    generator: torch.Generator | None = None,
    diagnostics: bool = False,
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    r"""Sample a posterior by sequential Monte Carlo, whose bias falls as the number of particles grows.

    A *twist* :math:`\psi_t(x)` stands for :math:`p_t(y \mid x)`; the last, at the denoised point, is the likelihood
    itself. From :math:`t` to :math:`u < t` the prior's sampler steps by the kernel

    .. math:: k(x_u \mid x_t) = N\Big(
              \frac{\alpha_{tu}\sigma_u^2\,x_t + \alpha_u\sigma_{tu}^2\,\hat x_0(x_t)}{\sigma_t^2},
              \;\sigma_{tu}^2\,\frac{\sigma_u^2 + \alpha_u^2 s^2}{\sigma_t^2 + \alpha_t^2 s^2}\,I\Big),
              \qquad \alpha_{tu} = \frac{\alpha_t}{\alpha_u}, \quad
              \sigma_{tu}^2 = \sigma_t^2 - \alpha_{tu}^2\sigma_u^2,

    which is exact for Gaussian data of standard deviation :math:`s`. Particles move by that kernel with
    :math:`\nabla \log \psi_t` added to the score, and their weights take back what it did:

    .. math:: w \leftarrow w\;\frac{k(x_u \mid x_t)}{k_\psi(x_u \mid x_t)}\;\frac{\psi_u(x_u)}{\psi_t(x_t)} .

    Where they are worth less than half of their number, :math:`1/\sum w^2` of normalised weights, they are drawn anew
    in proportion to the weights. With more and more particles the samples are those of the prior's sampler given
    :math:`y`, whatever the twist; what remains is the error of the score and of the steps, which are even in the angle
    :math:`\arctan(\sigma/(\alpha s))`. How many that takes the twist decides. Its gradient is held below
    :math:`\sqrt d/\sigma(t)`: a longer one gives the ratio of kernels a tail that no number of particles tames.

    Args:
        score: callable ``(x, t) -> tensor like x``, the score of the prior, differentiable in ``x``.
        sde: the SDE in whose time the score is given.
        observation: a :class:`.LinearObservation`. With one ``y``, all particles are of one posterior; with one for
            each, particles of equal ``y``, in blocks of equal length, are clouds of their own. Or, for whatever else is
            known of a clean point, a callable ``x0 -> (B,)``: its log-likelihood in nats, differentiable.
        x: draws of the prior of the SDE, one a particle, shape ``(B, *event)``.
        n_steps: number of steps.
        twist: ``"pseudoinverse"``, the Gaussian of :func:`pseudoinverse_guidance`; or ``"tweedie"``, that of
            :func:`tweedie_moment_projection`, which serves data far from a round Gaussian better, at a backward pass
            for each number seen. For a callable either is its average around the denoised point, by a
            second-order expansion along its gradient, to the power :math:`\alpha^2 s^2/(\sigma^2 + \alpha^2 s^2)`.
        data_std: standard deviation :math:`s` of the clean data, in their units.
        generator: source of the noise and of the draws.
        diagnostics: also return log-weights and effective sample sizes.

    Returns:
        Samples of equal weight, shaped like ``x``: not independent, with copies among them. With ``diagnostics``, a
        tuple of these; of the log-weights before the last draw, shape ``(B,)``, whose exponentials average to an
        unbiased estimate of the evidence :math:`p(y)` under the prior's sampler; and of the effective sample sizes
        before each step and at the end, shape ``(n_steps + 1,)``, or ``(n_steps + 1, G)`` for ``G`` clouds.

    Raises:
        ValueError: if the score belongs to another SDE or is not differentiable in ``x``, ``x`` is empty or not finite,
            ``n_steps`` is no positive integer, ``data_std`` is not positive, ``twist`` is unknown, the rows of ``y``
            are not in blocks of equal length, or shapes do not fit.
        RuntimeError: if a state is no longer finite, no particle has a likelihood above zero, or the conjugate
            gradients do not converge.

    Warns:
        UserWarning: if the particles collapse: their effective number, less one, or the effective number of those at
            the start from which the samples descend, falls below a hundredth of them. That both stay above proves
            nothing, for no weight tells of what no particle has found.

    Source: Wu et al. (2023), algorithm 1.
    """
    same_sde("score", score, sde)
    some_points("x", x)
    n_steps = positive_integer("n_steps", n_steps)
    one_of("twist", twist, ("pseudoinverse", "tweedie"))
    positive("data_std", data_std)
    data_std = float(data_std)
    clouds = (_n_clouds(observation, len(x)), -1)
    observe, likelihood, weigh_at = _twist(sde, observation, twist, data_std)
    grid = _even_in_angle(sde, n_steps, data_std)
    times = levels("times", grid, x)
    prior = functools.partial(_through_denoiser, score, sde, observe)

    def guided(state: Tensor, t: Any, at_t: Field) -> Any:
        s, guidance, log_twist = prior(state.to(x.dtype), t, at_t, weigh_at(t))
        alpha, _ = _signal(sde, t, state)
        noise = expand(sde.sigma(t) ** 2, state)
        denoised, push = state + noise * s, noise * _bounded(guidance, sde, t, 1.0)
        return denoised / expand(alpha, state), push / expand(alpha, state), log_twist

    steps = zip(itertools.pairwise(grid), times[1:], on_grid(score, times[1:]), strict=True)
    with one_read():
        state = at_least_single(x)
        denoised, push, log_twist = guided(state, times[0], on_grid(score, times[:1])[0])
        log_weights = log_twist.reshape(clouds)
        sizes = [_effective_size(log_weights, times[0])]
    root = torch.arange(len(x), device=x.device)
    for (t, u), time, at_time in steps:
        with one_read():
            worn = sizes[-1] < _WORN * log_weights.shape[1]
            log_weights, chosen = _drawn_anew(log_weights, worn, generator)
            state, denoised, push, log_twist, root = (part[chosen] for part in (state, denoised, push, log_twist, root))
            kept, gain, std = (expand(part, state) for part in _kernel(sde, t, u, data_std))
            z = standard_normal(x.shape, generator=generator, dtype=state.dtype, device=x.device)
            state = still_finite("states", kept * state + gain * (denoised + push) + std * z, "t", time)
            log_ratio = -sum_over_event(gain * push / std * (z + gain * push / (2 * std)))
            before = log_twist
            if len(sizes) == n_steps:
                denoised = at_least_single(sde.denoise(score, state.to(x.dtype), time))
                log_twist = likelihood(denoised)
            else:
                denoised, push, log_twist = guided(state, time, at_time)
            log_weights = log_weights + (log_ratio + log_twist - before).reshape(clouds)
            sizes.append(_effective_size(log_weights, time))
    all_sizes = torch.stack(sizes)
    _warn_of_collapse(all_sizes, _families(log_weights, root), grid, log_weights.shape[1])
    _, chosen = _drawn_anew(log_weights, sizes[-1] >= 0, generator)
    samples = denoised[chosen].to(x.dtype)
    return (samples, log_weights.flatten(), all_sizes.squeeze(1)) if diagnostics else samples


def _n_clouds(observation: LinearObservation | LogDensity, n: int) -> int:
    if not isinstance(observation, LinearObservation):
        if not callable(observation):
            came = type(observation).__name__
            raise ValueError(f"observation must be a LinearObservation or a callable x0 -> (B,), got {came}")
        return 1
    if len(observation.y) in {1, n} and not observation.y.is_meta:
        y = vectors(observation.y)
        starts = [0, *((y[1:] != y[:-1]).any(1).nonzero().flatten() + 1).tolist()]
        size = len(y) // len(starts)
        if starts != list(range(0, len(y), size)) or (size == 1 < len(y)):
            raise ValueError(
                "y must be the same for all particles of a cloud, in blocks of equal length of two or more, "
                f"got {len(starts)} blocks in {len(y)} rows"
            )
        return len(starts)
    return 1


def _twist(sde: SDE, observation: LinearObservation | LogDensity, kind: str, data_std: float) -> Any:
    """What to see of a denoised point, the likelihood of a clean one, and for each time how to weigh what is seen."""
    if isinstance(observation, LinearObservation):
        by_kind: dict[str, tuple[Any, ...]] = {
            "pseudoinverse": (_by_isotropic_spread, data_std),
            "tweedie": (_by_tweedie_spread,),
        }
        spread, *arguments = by_kind[kind]
        return (
            observation.predict,
            observation.log_likelihood,
            lambda t: functools.partial(spread, sde, observation, *arguments, t),
        )

    def likelihood(x0: Tensor) -> Any:
        return one_per_row("observation", observation(x0), x0)

    highest = torch.tensor(-math.inf, dtype=torch.float64)

    def weigh(spread: Tensor, trust: Tensor, predicted: Tensor, _: Field) -> tuple[Tensor, Tensor]:
        nonlocal highest
        weights, log_average, seen = _smoothed(see, predicted, spread, highest)
        highest = seen
        return expand(trust, weights) * weights, trust * log_average

    def see(x0: Tensor) -> Tensor:
        return checked("observation", likelihood, x0, of=observation)

    def weigh_at(t: Any) -> Any:
        noise, signal = sde.sigma(t) ** 2, (sde.alpha(t) * data_std) ** 2
        return functools.partial(weigh, noise * data_std**2 / (noise + signal), signal / (noise + signal))

    return lambda x0: x0, likelihood, weigh_at


def _smoothed(see: Field, x0: Tensor, spread: Tensor, highest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""The average of a likelihood around ``x0``, from its value, slope and curvature along the slope.

    Let :math:`\ell` be its logarithm, :math:`g` the slope and :math:`\kappa` the curvature. In the direction of
    :math:`g`, with spread :math:`r^2`,

    .. math:: \log \mathrm E\, e^{\ell} \approx \ell + \frac{r^2\,|g|^2}{2\,(1 + r^2 \kappa)}
              - \tfrac12 \log(1 + r^2 \kappa), \qquad \nabla \approx \frac{g}{1 + r^2 \kappa},

    exact for one linear reading with Gaussian noise. An average is below what it is taken of: the curvature is held
    above that of a square with this value and slope whose top is the highest value that any particle has seen.

    Returns:
        Slope and logarithm of the average, and the highest value seen so far.
    """
    with recording(x0.detach()) as at:
        value = see(at)
        (slope,) = torch.autograd.grad(value.sum(), at, create_graph=True)
        flat = not slope.requires_grad
        bent = at * 0 if flat else torch.autograd.grad(sum_over_event(slope * slope.detach()).sum(), at)[0]
    value, slope = value.detach(), slope.detach()
    steep = sum_over_event(slope * slope)
    highest = torch.maximum(highest.to(value), value.max())
    curvature = -sum_over_event(bent.detach() * slope) / steep.clamp(min=torch.finfo(steep.dtype).tiny)
    widened = 1 + spread * torch.maximum(curvature, steep / (2 * (highest - value) + 1))
    return slope / expand(widened, slope), value + spread * steep / (2 * widened) - widened.log() / 2, highest


def _even_in_angle(sde: SDE, n_steps: int, data_std: float) -> Tensor:
    ends = torch.tensor([1.0, _T_MIN], dtype=torch.float64, device="cpu")
    first, last = torch.arctan(sde.sigma(ends) / (sde.alpha(ends) * data_std))
    share = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64, device="cpu")[1:-1]
    return torch.cat([ends[:1], sde.time_of(data_std * torch.tan(first + share * (last - first))), ends[1:]])


def _kernel(sde: SDE, t: Any, u: Tensor, data_std: float) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of the state and of the denoised point in the mean of a step, and its standard deviation."""
    alpha_t, alpha_u, noise_t, noise_u = sde.alpha(t), sde.alpha(u), sde.sigma(t) ** 2, sde.sigma(u) ** 2
    ratio = alpha_t / alpha_u
    added = noise_t - ratio**2 * noise_u
    total_t, total_u = (noise + (alpha * data_std) ** 2 for noise, alpha in ((noise_t, alpha_t), (noise_u, alpha_u)))
    return ratio * noise_u / noise_t, alpha_u * added / noise_t, torch.sqrt(added * total_u / total_t)


def _effective_size(log_weights: Tensor, t: Any) -> Tensor:
    def refusal() -> Any:
        return RuntimeError(
            f"no particle explains the observation at t={float(t):g}: all weights are zero, or one is not a number"
        )

    require(log_weights.amax(1).isfinite().all(), refusal)
    return 1 / log_weights.softmax(1).square().sum(1)


def _drawn_anew(log_weights: Tensor, worn: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Weights after systematic resampling of the clouds that are worn, and which particles were drawn."""
    n_clouds, n = log_weights.shape
    sums = double(log_weights.softmax(1)).cumsum(1)
    shift = uniform((n_clouds, 1), generator=generator, dtype=sums.dtype, device=sums.device)
    marks = (shift + torch.arange(n, dtype=sums.dtype, device=sums.device)) / n
    drawn = torch.searchsorted(sums / sums[:, -1:], marks, right=True).clamp(max=n - 1)
    own = torch.arange(n, device=log_weights.device)
    mean = log_weights.logsumexp(1, keepdim=True) - math.log(n)
    chosen = torch.where(worn.unsqueeze(1), drawn, own) + n * torch.arange(n_clouds, device=own.device).unsqueeze(1)
    return torch.where(worn.unsqueeze(1), mean, log_weights), chosen.flatten()


def _families(log_weights: Tensor, root: Tensor) -> Tensor:
    """Effective number of particles at the start from which those of each cloud descend."""
    shares = log_weights.softmax(1).flatten()
    return 1 / torch.zeros_like(shares).index_add_(0, root, shares).reshape(log_weights.shape).square().sum(1)


def _warn_of_collapse(sizes: Tensor, families: Tensor, times: Tensor, n: int) -> None:
    if sizes.is_meta or n == 1:
        return
    if bool((sizes < 1 + n / 100).any()):
        step = int(sizes.amin(1).argmin())
        seen = f"at t={float(times[step]):.3g} {n} of them were worth {float(sizes.min()):.3g}"
    elif bool((families < n / 100).any()):
        seen = f"the samples descend from {float(families.min()):.3g} of {n} at the start"
    else:
        return
    warnings.warn(
        f"the particles collapsed: {seen}. Take more particles or steps, a better twist, or an observation with more "
        "noise",
        stacklevel=4,  # of them one is torch.no_grad's
    )


def replace_known(sde: SDE, y: Tensor, mask: Tensor, *, generator: torch.Generator | None = None) -> GivenScore:
    r"""Inpainting by replacement: known coordinates are overwritten by noised data after each step.

    .. math:: x_i \leftarrow \alpha(t)\,y_i + \sigma(t)\,z_i \quad\text{where known,}\qquad z \sim N(0, I)
              \text{ fresh each time}

    The unknown part is moved by the score of the joint noised law, which weighs the known part as if it were as
    uncertain as its noise: the result is biased, and a finer grid of times does not help. Kept to show that; corrector
    steps in between repair most of it. At ``t = 0``, which the samplers pass after denoising, the known part is ``y``.

    Args:
        sde: the SDE that is being reversed.
        y: data, shape ``event`` or ``(B, *event)``; what stands in its unknown part does not matter.
        mask: true where ``y`` is known, shape ``event`` or ``(B, *event)``.
        generator: source of the noise.

    Returns:
        Callable ``(x, t) -> x``, the ``constraint`` of the samplers of ``scorebook.sde``.

    Raises:
        ValueError: if ``mask`` is not boolean or of a shape that does not fit ``y``, or a known value is not finite; on
            a call, if they do not fit ``x``.

    Source: Song et al. (2021), appendix I.2.
    """
    boolean("mask", mask)
    floating("y", y)
    if mask.shape[1:] != y.shape:
        fits("mask", mask, y, of="y")
    finite("y", torch.where(mask, y, 0.0))
    return _belonging_to(sde, _replaced, sde, y, mask, generator)


@one_read()
def _replaced(sde: SDE, y: Tensor, mask: Tensor, generator: torch.Generator | None, x: Tensor, t: Any) -> Tensor:
    batch("x", x)
    fits("y", y, x)
    fits("mask", mask, x)
    t = torch.as_tensor(t, device=x.device)
    noise = standard_normal(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    sigma = torch.where(t == 0, torch.zeros_like(sde.sigma(t)), sde.sigma(t))
    return torch.where(mask.to(x.device), expand(sde.alpha(t), x, "t") * y.to(x) + expand(sigma, x, "t") * noise, x)


def colour_basis(*, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    r"""Orthogonal basis of colour space whose first direction is grey.

    .. math:: Q = \begin{pmatrix} 1/\sqrt3 & 1/\sqrt3 & 1/\sqrt3 \\ 2/\sqrt6 & -1/\sqrt6 & -1/\sqrt6 \\
              0 & 1/\sqrt2 & -1/\sqrt2 \end{pmatrix}

    In the channels :math:`Q x` the grey picture is the first channel and the colours are the other two, so that
    colorization is inpainting. White noise stays white noise under :math:`Q`.

    Returns:
        :math:`Q`, shape ``(3, 3)``, with :math:`Q Q^\top = I`.

    Source: Song et al. (2021), appendix I.3.
    """
    rows = [[1 / 3, 1 / 3, 1 / 3], [2 / 3, -1 / 6, -1 / 6], [0.0, 0.5, -0.5]]
    squares = torch.tensor(rows, dtype=dtype or torch.get_default_dtype(), device=device)
    return squares.sign() * squares.abs().sqrt()


def in_basis(score: Score, basis: Tensor) -> GivenScore:
    r"""A score seen in other coordinates of the channels.

    .. math:: s_z(z, t) = Q\, s(Q^\top z, t) \quad\text{for}\quad z = Q x,\ Q Q^\top = I

    Args:
        score: callable ``(x, t) -> tensor like x``, for ``x`` of shape ``(B, n, *rest)``.
        basis: orthogonal :math:`Q`, shape ``(n, n)``, which acts on axis 1.

    Returns:
        Callable ``(z, t) -> tensor like z``.

    Raises:
        ValueError: if ``basis`` is not orthogonal; on a call, if it does not fit ``z`` or the score returns another
            shape.
    """
    floating("basis", basis)
    if basis.ndim != 2 or basis.shape[0] != basis.shape[1]:
        raise ValueError(f"basis must be a square matrix, got {tuple(basis.shape)}")
    # No matrix product: autocast would round it.
    rows = at_least_single(basis)
    products, rounding = (rows.unsqueeze(1) * rows).sum(-1), torch.finfo(basis.dtype).eps
    identity = torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    if not basis.is_meta and not torch.allclose(products, identity, atol=max(1e-5, 4 * rounding)):
        raise ValueError("basis must be orthogonal: basis @ basis.T is not the identity")
    return _guided(sde_of(score), _in_basis, score, basis=basis)


def _in_basis(z: Tensor, t: Any, at_t: Field, *, basis: Tensor) -> Tensor:
    floating("x", z)
    if z.ndim < 2 or z.shape[1] != len(basis):
        raise ValueError(f"basis acts on {len(basis)} channels, got x of shape {tuple(z.shape)}")
    q = basis.to(z)
    x = torch.einsum("ij,bi...->bj...", q, z)
    return torch.einsum("ij,bj...->bi...", q, same_shape("score", at_t(x), x))


@outside_inference_mode()
def _through_denoiser(
    score: Callable[..., Tensor],
    sde: SDE,
    observe: Callable[..., Tensor],
    x: Tensor,
    t: Any,
    at_t: Field,
    weigh: Callable[..., Any],
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Score at ``x``, :math:`(\partial f(\hat x_0)/\partial x)^\top w`, and the second thing that ``weigh`` returns.

    ``observe`` is :math:`f`, and ``weigh`` makes of its value, and of the map from weights to the product, the weights
    and another number for each row. All are in single precision at least. The product is linear in the weights: they
    are brought to a size at which the score meets about :math:`\sigma` of them, which half precision can hold.
    """
    batch("x", x)
    differentiable = torch.is_grad_enabled()
    sigma, (alpha, told) = sde.sigma(t), _signal(sde, t, x)

    with recording(at_least_single(x)) as inside:
        s = at_least_single(
            same_shape("score", checked("score", lambda state: at_t(state.to(x.dtype)), inside, of=score), x)
        )
        _check_depends("score", s)
        denoised = (inside + expand(sigma, inside, "t") ** 2 * s) / expand(alpha, inside, "t")
        seen = observe(denoised)

        def pull(weights: Tensor) -> Tensor:
            size = vectors(weights.detach()).abs().amax(1)
            size = size.clamp(min=torch.finfo(size.dtype).tiny)
            size = size * expand(sigma.clamp(min=1) / alpha, size)
            scaled = weights / expand(size, weights)
            options = {"create_graph": differentiable, "retain_graph": True}
            (product,) = torch.autograd.grad(seen, inside, scaled, **options)
            return product * expand(size * expand(told, size), product)

        weights, value = weigh(seen if differentiable else seen.detach(), pull)
        guidance = pull(weights)
    return (s, guidance, value) if differentiable else (s.detach(), guidance, value.detach())


def _signal(sde: SDE, t: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """``alpha(t)``, or 1 where the signal is below the rounding of ``x``, and whether it is above.

    Below, it says nothing about the clean point, nor could a quotient by ``alpha`` be told from noise.
    """
    alpha = sde.alpha(t)
    told = alpha > torch.finfo(x.dtype).eps * sde.sigma(t)
    return torch.where(told, alpha, 1), told


def _check_depends(name: str, values: Tensor) -> None:
    if not values.requires_grad:
        raise ValueError(f"{name} must be differentiable in x, got a result without a gradient (detached or no_grad?)")


def _logits(classifier: Callable[..., Tensor], x: Tensor, t: Any) -> Tensor:
    logits = at(classifier, x, t)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"classifier must return shape ({len(x)}, n_classes), got {came}")
    return logits


def _checked_labels(labels: Tensor, n: int, n_classes: int) -> Tensor:
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one per point, got {tuple(labels.shape)}")
    require(
        ((labels >= 0) & (labels < n_classes)).all(),
        lambda: ValueError(f"labels must lie in 0 ... {n_classes - 1}, got {labels.min()} ... {labels.max()}"),
    )
    # What is out of range may be refused a little later: until then it must not be looked up.
    return labels.clamp(0, n_classes - 1)
