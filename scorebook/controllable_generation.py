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
spread of an isotropic Gaussian. Both are biased, unless the prior is what they assume.

Source: Song et al. (2021), section 5 and appendix I.
"""

import functools
import math

import torch
from torch import Tensor

from scorebook.lab.arguments import (
    at_least_single,
    batch,
    boolean,
    expand,
    finite,
    fits,
    floating,
    integers,
    levels,
    non_negative,
    one_per_row,
    one_read,
    positive,
    require,
    same_shape,
    some_points,
    standard_normal,
    sum_over_event,
    vectors,
)
from scorebook.lab.calls import at
from scorebook.lab.gradients import checked, outside_inference_mode, recording
from scorebook.lab.observations import LinearObservation
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
]


def condition(score, log_likelihood, *, scale=1.0):
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
def _conditioned(x, t, at_t, *, log_likelihood, scale) -> Tensor:
    batch("x", x)

    def likelihood_at_t(x):
        return one_per_row("log_likelihood", at(log_likelihood, x, t), x)

    def depending(x):
        values = checked("log_likelihood", likelihood_at_t, x, of=log_likelihood)
        _check_depends("log_likelihood", values)
        return values

    return same_shape("score", at_t(x), x) + expand(scale, x, "scale") * score_of(depending, x)


def _guided(sde, core, /, *scores, **settings):
    """A score made of others, at times that are known in advance too: ``core(x, t, *scores at t, **settings)``."""
    guided = _belonging_to(sde, _at_once, core, scores, settings)
    guided.data_std = next((std for score in scores if (std := data_std_of(score)) is not None), None)
    guided.on_grid = functools.partial(_on_grid, core, scores, settings)
    return guided


@one_read()
def _at_once(core, scores, settings, x, t) -> Tensor:
    return core(x, t, *(lambda x, score=score: at(score, x, t) for score in scores), **settings)


def _on_grid(core, scores, settings, times) -> list:
    rows = zip(times, *(on_grid(score, times) for score in scores), strict=True)
    return [functools.partial(_at_known, core, settings, t, at_t) for t, *at_t in rows]


@one_read()
def _at_known(core, settings, t, at_t, x) -> Tensor:
    return core(x, t, *at_t, **settings)


def _belonging_to(sde, function, *arguments):
    """``function`` closed over its first arguments, with the SDE to which it belongs; closures cannot be pickled."""
    closed = functools.partial(function, *arguments)
    closed.sde, closed.data_std = sde, data_std_of(function)
    return closed


def class_log_likelihood(classifier, labels):
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


def _class_log_likelihood(classifier, labels, x, t) -> Tensor:
    logits = _logits(classifier, x, t)
    wanted = labels.to(x.device).expand(len(x)) if labels.ndim == 0 else labels.to(x.device)
    wanted = _checked_labels(wanted, len(x), logits.shape[1])
    return logits.log_softmax(1).gather(1, wanted.unsqueeze(1)).squeeze(1)


@one_read()
def classifier_loss(classifier, sde: SDE, x: Tensor, labels: Tensor, *, sample_times=None, generator=None) -> Tensor:
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


def given(model, **conditions):
    """Close a conditional model over its condition, which makes it a score.

    Args:
        model: callable ``(x, t, **conditions) -> tensor like x``.
        conditions: keywords for each call, such as ``label=torch.tensor([3, 3, 7])``.

    Returns:
        Callable ``(x, t) -> tensor like x``, a ``functools.partial`` that can be pickled where the model can.
    """
    closed = _belonging_to(sde_of(model), functools.partial(model, **conditions))
    closed.on_grid = functools.partial(_given_on_grid, model, conditions)
    return closed


def _given_on_grid(model, conditions, times) -> list:
    return [functools.partial(at_t, **conditions) for at_t in on_grid(model, times)]


def classifier_free(conditional, unconditional, scale):
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


def _classifier_free(x, t, conditional, unconditional, *, scale) -> Tensor:
    batch("x", x)
    without = same_shape("unconditional", unconditional(x), x)
    return without + expand(scale, x, "scale") * (same_shape("conditional", conditional(x), x) - without)


def diffusion_posterior(score, sde: SDE, observation: LinearObservation, *, scale=1.0, limit: float | None = 1.0):
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
    prior = functools.partial(_through_denoiser, score, sde, observation)
    return _guided(sde, _at_the_mean, score, prior=prior, sde=sde, observation=observation, scale=scale, limit=limit)


def _at_the_mean(x, t, at_t, *, prior, sde, observation, scale, limit) -> Tensor:
    def weigh(residual):
        return residual / expand(observation.noise_std, residual, "noise_std") ** 2

    s, guidance = prior(x, t, at_t, weigh)
    guidance = expand(scale, guidance, "scale") * guidance
    if limit is not None:
        # The floor keeps the derivative of the root finite where there is no guidance.
        floor = torch.finfo(guidance.dtype).tiny
        length = sum_over_event(guidance.square()).clamp(min=floor).sqrt()
        excess = length * expand(sde.sigma(t), length) / (limit * math.sqrt(math.prod(x.shape[1:])))
        guidance = guidance / expand(excess.clamp(min=1), guidance)
    return (s + guidance).to(x.dtype)


def pseudoinverse_guidance(score, sde: SDE, observation: LinearObservation, *, data_std: float = 1.0):
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
    prior = functools.partial(_through_denoiser, score, sde, observation)
    return _guided(sde, _around_the_mean, score, prior=prior, sde=sde, observation=observation, data_std=data_std)


def _around_the_mean(x, t, at_t, *, prior, sde, observation, data_std) -> Tensor:
    noise, signal = sde.sigma(t) ** 2, (sde.alpha(t) * data_std) ** 2
    variance = noise * data_std**2 / (noise + signal)
    s, guidance = prior(x, t, at_t, lambda r: observation.solve(r, variance))
    return (s + guidance).to(x.dtype)


def replace_known(sde: SDE, y: Tensor, mask: Tensor, *, generator=None):
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
def _replaced(sde, y, mask, generator, x, t) -> Tensor:
    batch("x", x)
    fits("y", y, x)
    fits("mask", mask, x)
    t = torch.as_tensor(t, device=x.device)
    noise = standard_normal(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    sigma = torch.where(t == 0, torch.zeros_like(sde.sigma(t)), sde.sigma(t))
    return torch.where(mask.to(x.device), expand(sde.alpha(t), x, "t") * y.to(x) + expand(sigma, x, "t") * noise, x)


def colour_basis(*, dtype=None, device=None) -> Tensor:
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


def in_basis(score, basis: Tensor):
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


def _in_basis(z, t, at_t, *, basis) -> Tensor:
    floating("x", z)
    if z.ndim < 2 or z.shape[1] != len(basis):
        raise ValueError(f"basis acts on {len(basis)} channels, got x of shape {tuple(z.shape)}")
    q = basis.to(z)
    x = torch.einsum("ij,bi...->bj...", q, z)
    return torch.einsum("ij,bj...->bi...", q, same_shape("score", at_t(x), x))


@outside_inference_mode()
def _through_denoiser(score, sde, observation, x, t, at_t, weigh) -> tuple[Tensor, Tensor]:
    r"""Score at ``x``, and :math:`(\partial A\hat x_0/\partial x)^\top w` with weights ``w`` from the residual.

    Both in single precision at least. The product is linear in the weights: they are brought to a size at which the
    score meets about :math:`\sigma` of them, which half precision can hold.
    """
    batch("x", x)
    differentiable = torch.is_grad_enabled()
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    # Signal below the rounding of x says nothing about y, nor could the quotient by alpha be told from noise.
    told = alpha > torch.finfo(x.dtype).eps * sigma
    alpha = torch.where(told, alpha, 1)

    with recording(at_least_single(x)) as inside:
        s = at_least_single(
            same_shape("score", checked("score", lambda state: at_t(state.to(x.dtype)), inside, of=score), x)
        )
        _check_depends("score", s)
        denoised = (inside + expand(sigma, inside, "t") ** 2 * s) / expand(alpha, inside, "t")
        predicted = observation.predict(denoised)
        residual = observation.residual_of(predicted)
        weights = weigh(residual if differentiable else residual.detach())
        size = vectors(weights.detach()).abs().amax(1)
        size = size.clamp(min=torch.finfo(size.dtype).tiny)
        size = size * expand(sigma.clamp(min=1) / alpha, size)
        weights = weights / expand(size, weights)
        (guidance,) = torch.autograd.grad(predicted, inside, weights, create_graph=differentiable)
        guidance = guidance * expand(size * expand(told, size), guidance)
    return (s, guidance) if differentiable else (s.detach(), guidance)


def _check_depends(name, values) -> None:
    if not values.requires_grad:
        raise ValueError(f"{name} must be differentiable in x, got a result without a gradient (detached or no_grad?)")


def _logits(classifier, x, t) -> Tensor:
    logits = at(classifier, x, t)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"classifier must return shape ({len(x)}, n_classes), got {came}")
    return logits


def _checked_labels(labels, n, n_classes) -> Tensor:
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one per point, got {tuple(labels.shape)}")
    require(
        ((labels >= 0) & (labels < n_classes)).all(),
        lambda: ValueError(f"labels must lie in 0 ... {n_classes - 1}, got {labels.min()} ... {labels.max()}"),
    )
    # What is out of range may be refused a little later: until then it must not be looked up.
    return labels.clamp(0, n_classes - 1)
