r"""Noise scales: scores of noised data, learned by denoising, and a sampler that takes the noise away scale by scale.

Noise of standard deviation :math:`\sigma` makes a law that has a score everywhere,

.. math:: p_\sigma = p * N(0, \sigma^2 I), \qquad x = x_0 + \sigma z, \quad x_0 \sim p, \quad z \sim N(0, I).

Its score is a conditional mean, and so can be learned by regression on the noise that was added (Vincent, 2011;
:func:`denoising_score_matching_loss`), and it denoises (Efron, 2011; :func:`tweedie`):

.. math:: \nabla_x \log p_\sigma(x) = E\left[-\frac{z}{\sigma} \,\Big|\, x\right]
          = \frac{E[x_0 \mid x] - x}{\sigma^2} .

One scale is either too small to fill the space or too large to leave the data as they are. Annealed Langevin dynamics
(Song & Ermon, 2019; :func:`annealed_langevin`) walks through many, :math:`\sigma_1 > \dots > \sigma_L`, with steps in
proportion to :math:`\sigma_i^2`. How large the first should be, how dense the others, and how long the steps, follows
from the data and their dimension (Song & Ermon, 2020; :func:`suggest_sigma_max`, :func:`suggest_ratio`,
:func:`suggest_step_size`).

Here :math:`\sigma` is always the standard deviation of all the noise that is in ``x``, in the units of the data.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from scorebook.lab.arguments import (
    at_least_single,
    batch,
    expand,
    finite,
    floating,
    levels,
    one_of,
    one_read,
    positive,
    positive_integer,
    same_shape,
    some_points,
    standard_normal,
    still_finite,
    sum_over_event,
    vectors,
)
from scorebook.lab.calls import at
from scorebook.lab.types import Array, Integer, Number, PerRow, Score
from scorebook.langevin import langevin

__all__ = [
    "annealed_langevin",
    "denoising_score_matching_loss",
    "geometric_noise_scales",
    "suggest_ratio",
    "suggest_sigma_max",
    "suggest_step_size",
    "tweedie",
]

# Pairs of data held at once, so that memory stays bounded whatever the size of the data set.
_LARGEST_CHUNK = 2**24


@one_read()
def denoising_score_matching_loss(
    model: Score,
    x: Tensor,
    sigma: PerRow,
    *,
    weighting: Literal["sigma2"] | Callable[[Tensor], Tensor] = "sigma2",
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Regression of the model on the noise that was added to the data.

    .. math:: \tfrac12\, E\left[\lambda(\sigma)\,\Big\|s_\theta(x + \sigma z, \sigma) + \frac z\sigma\Big\|^2\right],
              \qquad z \sim N(0, I), \quad \lambda = \sigma^2

    The norm sums over dimensions, the expectation is a mean over the batch. The best model is the score of the *noised*
    law, and the loss is then not zero but

    .. math:: \tfrac12\, E\left[\lambda(\sigma)\left(\frac d{\sigma^2}
              - \big\|\nabla \log p_\sigma(x)\big\|^2\right)\right].

    Args:
        model: callable ``(x, sigma) -> tensor like x``.
        x: clean points, shape ``(B, *event)``.
        sigma: noise scale, scalar or one per point, shape ``(B,)``, in the units of ``x``.
        weighting: ``"sigma2"`` for :math:`\lambda = \sigma^2`, with which scales of every size count alike; or a
            callable ``sigma -> weights``, scalar or shape ``(B,)``.
        generator: source of the noise.

    Returns:
        Scalar tensor in single precision at least, in no unit for the default weighting.

    Raises:
        ValueError: if ``sigma`` is not positive or fits no row, ``weighting`` is unknown, or the model returns another
            shape than that of ``x``.

    Source: Vincent (2011), eq. 11; Song & Ermon (2019), eqs. 5 and 6.
    """
    some_points("x", x)
    positive("sigma", sigma)
    if not callable(weighting):
        one_of("weighting", weighting, ("sigma2",))
    _in_noise_scale("model", model)
    sigma = levels("sigma", sigma, x)
    clean = at_least_single(x)
    scale = expand(sigma, clean, "sigma")
    noise = standard_normal(x.shape, generator=generator, dtype=clean.dtype, device=x.device)
    s = at_least_single(same_shape("model", at(model, (clean + scale * noise).to(x.dtype), sigma), x))
    # sigma (s + z/sigma): finite however small sigma is
    squares = sum_over_event((scale * s + noise).square())
    if callable(weighting):
        squares = weighting(sigma) / sigma**2 * squares
    return 0.5 * squares.mean()


@one_read()
def tweedie(score: Score, x: Tensor, sigma: PerRow) -> Tensor:
    r"""Posterior mean of the clean point given a noisy one.

    .. math:: E[x_0 \mid x] = x + \sigma^2\, \nabla_x \log p_\sigma(x)

    No other function of ``x`` comes closer to :math:`x_0` in mean square.

    Args:
        score: callable ``(x, sigma) -> tensor like x``, the score of the noised law.
        x: noisy points, shape ``(B, *event)``.
        sigma: noise scale, scalar or shape ``(B,)``, in the units of ``x``.

    Returns:
        Denoised points, shape ``(B, *event)``.

    Raises:
        ValueError: if ``sigma`` is not positive or fits no row, the score is one in the time of an SDE
            (``sde.at_noise_scale`` carries it over), or it returns another shape than that of ``x``.

    Source: Efron (2011), eq. 1.4.
    """
    batch("x", x)
    positive("sigma", sigma)
    _in_noise_scale("score", score)
    sigma, state = levels("sigma", sigma, x), at_least_single(x)
    s = at_least_single(same_shape("score", at(score, x, sigma), x))
    return (state + expand(sigma, state, "sigma") ** 2 * s).to(x.dtype)


def geometric_noise_scales(
    sigma_max: Number | Tensor,
    sigma_min: Number | Tensor,
    n: Integer,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Noise scales in decreasing order, each the same multiple of the next.

    .. math:: \sigma_i = \sigma_{max} \left(\frac{\sigma_{min}}{\sigma_{max}}\right)^{\frac{i - 1}{n - 1}},
              \qquad i = 1, \dots, n

    Args:
        sigma_max: the first, in the units of the data.
        sigma_min: the last.
        n: how many, at least 2.
        dtype: of the scales; by default that of ``sigma_max`` if it is a tensor, otherwise torch's.
        device: of the scales; by default that of ``sigma_max`` if it is a tensor, otherwise torch's.

    Returns:
        Scales, shape ``(n,)``.

    Raises:
        ValueError: unless ``sigma_max > sigma_min > 0`` and ``n`` is an integer of at least 2.
    """
    positive("sigma_max", sigma_max)
    positive("sigma_min", sigma_min)
    n = positive_integer("n", n)
    if n < 2:
        raise ValueError(f"n must be at least 2, one scale for each end, got {n}")
    if isinstance(sigma_max, Tensor):
        own = sigma_max.dtype if sigma_max.is_floating_point() else torch.get_default_dtype()
        dtype, device = dtype or own, device or sigma_max.device
    else:
        dtype, device = dtype or torch.get_default_dtype(), device or torch.empty(0).device
    own = torch.promote_types(dtype, torch.float32)
    high, low = (torch.as_tensor(end, dtype=own, device=device) for end in (sigma_max, sigma_min))
    for name, end in (("sigma_max", high), ("sigma_min", low)):
        if end.ndim != 0:
            raise ValueError(f"{name} must be one number, got a tensor of shape {tuple(end.shape)}")
    if not high.is_meta and not bool(high > low):
        raise ValueError(f"sigma_max must exceed sigma_min, got {high.item():g} and {low.item():g}")
    fraction = torch.linspace(0, 1, n, dtype=own, device=device)
    inner = torch.exp(high.log() + fraction[1:-1] * (low.log() - high.log()))
    return torch.cat([high.reshape(1), inner, low.reshape(1)]).to(dtype)


def suggest_sigma_max(data: Tensor) -> Tensor:
    r"""Largest noise scale: the greatest distance between two points of the data.

    .. math:: \sigma_1 = \max_{i, j} \|x^{(i)} - x^{(j)}\|

    Under that much noise the components of the noised data, one around each point, overlap so far that a chain passes
    from any to any other. Distances are taken in chunks: memory stays bounded, time grows with the square of ``N``.

    Args:
        data: points, shape ``(N, *event)``, at least two.

    Returns:
        The distance, a scalar tensor in the units of the data and in single precision at least.

    Raises:
        ValueError: if ``data`` is no finite floating tensor of at least two points, or all points are equal.

    Source: Song & Ermon (2020), technique 1.
    """
    floating("data", data)
    if data.ndim == 0 or len(data) < 2 or data.numel() == 0:
        raise ValueError(f"data must hold at least two points, shape (N, *event), got {tuple(data.shape)}")
    finite("data", data)
    points = at_least_single(vectors(data))  # half has no distances on a CPU
    rows = max(1, _LARGEST_CHUNK // len(points))
    greatest = torch.stack(
        [torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist").amax() for part in points.split(rows)]
    ).amax()
    if not greatest.is_meta and greatest == 0:
        raise ValueError("data must hold two different points, got equal ones only")
    return greatest


def suggest_ratio(dim: Integer) -> float:
    r"""Ratio of neighbouring noise scales at which their samples still overlap by half.

    In ``D`` dimensions noise of scale :math:`\sigma` lies in a shell of radius about :math:`\sqrt D\,\sigma` and
    thickness :math:`\sigma/\sqrt 2`. The ratio :math:`\gamma = \sigma_{i-1}/\sigma_i` puts half of the samples of
    :math:`\sigma_i` within three thicknesses of the shell of :math:`\sigma_{i-1}`:

    .. math:: \Phi\big(\sqrt{2D}(\gamma - 1) + 3\gamma\big) - \Phi\big(\sqrt{2D}(\gamma - 1) - 3\gamma\big) = \tfrac12

    For large ``D`` it is about :math:`1 + 3/\sqrt{2D}`.

    Args:
        dim: number of dimensions ``D``, at least 5.

    Returns:
        :math:`\gamma > 1`.

    Raises:
        ValueError: if ``dim`` is no positive integer, or below 5: the shells are then so thick that they overlap by
            more than half at any ratio, and the equation has no root.

    Source: Song & Ermon (2020), technique 2.
    """
    positive_integer("dim", dim)
    root = math.sqrt(2 * dim)
    if root <= 3:
        raise ValueError(f"dim must be at least 5, got {dim}: below that the scales overlap by half at any ratio")

    def overlap(ratio: float) -> float:
        centre = root * (ratio - 1)
        return _normal_cdf(centre + 3 * ratio) - _normal_cdf(centre - 3 * ratio)

    # At 1 the overlap is 0.997; at twice the zero of the second argument it is below Phi(-3).
    return _bisect(lambda ratio: overlap(ratio) > 0.5, 1.0, 2 * root / (root - 3))


def suggest_step_size(sigmas: Array, n_steps_each: Integer) -> float:
    r"""Step of :func:`annealed_langevin` that leaves the variance of the samples as right as it can be.

    For a single data point, the chain arrives at scale :math:`\sigma_i` with variance
    :math:`\sigma_{i-1}^2 = \gamma^2 \sigma_i^2`. With :math:`e = \epsilon/\sigma_L^2`, its variance after ``T`` steps
    is :math:`\sigma_i^2` times

    .. math:: (1 - e)^{2T} \left(\gamma^2 - v\right) + v, \qquad v = \frac{2}{2 - e} .

    This exceeds 1 for every stable step: a small ``e`` leaves what came from the scale before, a large one adds its own
    bias. Between them it has one minimum, whose :math:`\epsilon` is returned.

    Args:
        sigmas: noise scales in geometric progression, decreasing, shape ``(L,)``.
        n_steps_each: steps ``T`` at each scale.

    Returns:
        The step size :math:`\epsilon` at the last scale, in the squared units of the data.

    Raises:
        ValueError: if ``sigmas`` does not decrease, holds a value that is not positive, has fewer than two entries or
            no common ratio; if ``n_steps_each`` is no positive integer.

    Source: Song & Ermon (2020), technique 4.
    """
    sigmas = _checked_scales(sigmas, at_least=2).double()
    positive_integer("n_steps_each", n_steps_each)
    ratios = sigmas[:-1] / sigmas[1:]
    if (ratios.amax() - ratios.amin()) > 1e-3 * ratios.amin():
        raise ValueError(f"sigmas must have a common ratio, got ratios from {ratios.amin():g} to {ratios.amax():g}")
    squared_ratio = (sigmas[0] / sigmas[-1]).item() ** (2 / (len(sigmas) - 1))
    power = 2 * n_steps_each

    def falling(e: float) -> bool:
        # The derivative is this, negated, times a positive factor; each of its two terms only grows with e.
        v = 2 / (2 - e)
        growth = v**2 / 2 * (math.exp(-(power - 1) * math.log1p(-e)) - (1 - e))
        return growth < power * (squared_ratio - v)

    # Beyond the first bound the exponential alone exceeds all that the other side can be.
    high = min(1 - 1e-12, -math.expm1(-math.log(2 + 4 * power * squared_ratio) / (power - 1)))
    return _bisect(falling, 0.0, high) * sigmas[-1].item() ** 2


@torch.no_grad()
def annealed_langevin(
    score: Score,
    x: Tensor,
    sigmas: Array,
    *,
    step_size: PerRow,
    n_steps_each: Integer,
    denoise: bool = True,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> Tensor:
    r"""Langevin dynamics at one noise scale after the other, from the largest to the smallest.

    .. math:: x \leftarrow x + \alpha_i\, s(x, \sigma_i) + \sqrt{2\alpha_i}\; z,
              \qquad \alpha_i = \epsilon\,\frac{\sigma_i^2}{\sigma_L^2}, \qquad z \sim N(0, I)

    The step keeps a constant ratio to the variance of the noise, and so is stable at all scales if it is at the last:
    :math:`\epsilon < 2 \sigma_L^2`.

    Args:
        score: callable ``(x, sigma) -> tensor like x``; ``sigma`` comes as a scalar tensor.
        x: start points, shape ``(B, *event)``, of a spread like that of the first scale.
        sigmas: noise scales, strictly decreasing, shape ``(L,)`` or a sequence of numbers, in the units of ``x``.
        step_size: :math:`\epsilon`, the step at the last scale, in the squared units of ``x``; scalar or shape
            ``(B,)``. Where a paper writes :math:`x + \tfrac{\alpha'}{2} s + \sqrt{\alpha'} z`, give half of its step.
        n_steps_each: steps at each scale.
        denoise: replace the last states by their posterior means (:func:`tweedie`) at the last scale.
        generator: source of the noise.
        trajectory: return all states, shape ``(L * n_steps_each + 1, B, *event)``, start included; the last is
            the denoised one if ``denoise``.

    Returns:
        The last states, shape ``(B, *event)``, or the trajectory.

    Raises:
        ValueError: if ``x`` is not a finite floating tensor, ``sigmas`` does not decrease or holds a value that is not
            positive, ``step_size`` is not positive, ``n_steps_each`` no positive integer, or the score returns another
            shape than that of ``x``.
        RuntimeError: if a chain diverges; the message names the chain, the step and, in a note, the noise scale.

    Source: Song & Ermon (2019), algorithm 1, whose step is twice this one; Song & Ermon (2020), algorithm 1; the final
    denoising is the expected denoised sample of Jolicoeur-Martineau et al. (2021).
    """
    positive_integer("n_steps_each", n_steps_each)
    positive("step_size", step_size)
    _in_noise_scale("score", score)
    scales = at_least_single(_checked_scales(sigmas))
    states = []
    for number, sigma in enumerate(scales, start=1):

        def at_scale(x: Tensor, sigma: Tensor = sigma) -> Tensor:
            return at(score, x, levels("sigma", sigma, x))

        try:
            path = langevin(
                at_scale,
                x,
                step_size=step_size * (sigma / scales[-1]) ** 2,
                n_steps=n_steps_each,
                generator=generator,
                trajectory=trajectory,
            )
        except RuntimeError as error:
            error.add_note(f"This was noise scale {number} of {len(scales)}.")
            raise
        if trajectory:
            states.append(path if number == 1 else path[1:])
            x = path[-1]
        else:
            x = path
    if denoise:
        x = still_finite("denoised states", tweedie(score, x, scales[-1]), "sigma", scales[-1])
    if not trajectory:
        return x
    whole = torch.cat(states)
    whole[-1] = x
    return whole


def _in_noise_scale(name: str, score: object) -> None:
    """Refuse a score that says that its second argument is the time of an SDE, where a noise scale would be put in."""
    sde = getattr(score.func if isinstance(score, functools.partial) else score, "sde", None)
    if sde is not None:
        raise ValueError(
            f"{name} must be one in noise scale, got one in the time of {sde!r}: give "
            f"sde.at_noise_scale({name}, that_sde)"
        )


def _checked_scales(sigmas: Array, *, at_least: int = 1) -> Tensor:
    if not isinstance(sigmas, Tensor):
        sigmas = torch.as_tensor(sigmas, dtype=torch.float64)
    floating("sigmas", sigmas)
    if sigmas.ndim != 1 or len(sigmas) < at_least:
        raise ValueError(f"sigmas must have shape (L,) with L at least {at_least}, got {tuple(sigmas.shape)}")
    positive("sigmas", sigmas)
    if not sigmas.is_meta and not bool((sigmas.diff() < 0).all()):
        raise ValueError(f"sigmas must decrease strictly, got {sigmas.tolist()}")
    return sigmas


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _bisect(is_left: Callable[[float], bool], low: float, high: float) -> float:
    """Return the point between ``low`` and ``high`` up to which ``is_left`` holds, to the last digit."""
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return middle
        low, high = (middle, high) if is_left(middle) else (low, middle)
