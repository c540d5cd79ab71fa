r"""What a network predicts about the noise in a point, and how one answer becomes another.

A noisy point is :math:`x = \alpha x_0 + \sigma \varepsilon`. Its score, the expected noise, the expected clean point
and the expected velocities are all the same knowledge: given ``x``, any one of them fixes the others, because the mean
of that equation, :math:`x = \alpha \hat x_0 + \sigma \hat\varepsilon`, leaves one unknown.

============== ================================================== ===============================================
kind           what is predicted                                  gives :math:`\hat x_0` as
============== ================================================== ===============================================
``"score"``    :math:`s = -\hat\varepsilon/\sigma`                :math:`(x + \sigma^2 s)/\alpha`
``"noise"``    :math:`\hat\varepsilon`                            :math:`(x - \sigma\hat\varepsilon)/\alpha`
``"clean"``    :math:`\hat x_0`                                   itself
``"velocity"`` :math:`v = \alpha\hat\varepsilon - \sigma\hat x_0` :math:`(\alpha x - \sigma v)/(\alpha^2 + \sigma^2)`
``"flow"``     :math:`u = \hat\varepsilon - \hat x_0`             :math:`(x - \sigma u)/(\alpha + \sigma)`
============== ================================================== ===============================================

``"velocity"`` is the ``v`` of Salimans & Ho (2022): where :math:`\alpha = \cos\phi` and :math:`\sigma = \sin\phi`, it
is the speed :math:`dx/d\phi` of the point on its arc from data to noise. ``"flow"`` is the velocity of flow matching:
the speed :math:`dx/dt` on the straight path :math:`\alpha = 1 - t, \sigma = t` (Lipman et al., 2023; Liu et al., 2023).
On any other path of :math:`\alpha, \sigma` it is as good a coordinate of the same knowledge, but nobody's speed.
"""

from typing import Literal, TypeAlias, get_args

from torch import Tensor

from scorebook.lab.arguments import at_least_single, batch, expand, floating, non_negative, one_of, positive
from scorebook.lab.types import PerRow

__all__ = ["convert_prediction"]

_Kind: TypeAlias = Literal["score", "noise", "clean", "velocity", "flow"]
_KINDS = get_args(_Kind)


def convert_prediction(
    prediction: Tensor, x: Tensor, alpha: PerRow, sigma: PerRow, *, source: _Kind, target: _Kind
) -> Tensor:
    r"""Turn a prediction of one kind into the prediction of another kind that says the same.

    Every conversion reads :math:`\hat x_0` or :math:`\hat\varepsilon` off the source by the table above, completes the
    pair by :math:`x = \alpha\hat x_0 + \sigma\hat\varepsilon`, and forms the target from it. It is affine in the
    prediction, so expectations convert like the draws of which they are the mean.

    Args:
        prediction: shape ``(B, *event)``, what a network of kind ``source`` returns at ``x``.
        x: noisy points :math:`\alpha x_0 + \sigma\varepsilon`, shape ``(B, *event)``.
        alpha: factor of the signal, scalar or shape ``(B,)``, non-negative.
        sigma: standard deviation of the noise, scalar or shape ``(B,)``, non-negative, in the units of ``x``.
        source: kind of ``prediction``: ``"score"``, ``"noise"``, ``"clean"``, ``"velocity"`` or ``"flow"``.
        target: kind that is wanted, one of the same.

    Returns:
        The prediction of kind ``target``, shape ``(B, *event)``, in the dtype of ``x``.

    Raises:
        ValueError: if a kind is unknown; ``prediction`` is not shaped like ``x``; ``alpha`` or ``sigma`` is negative,
            not finite or fits no row; or the conversion divides by zero: by ``alpha`` where the clean point must be
            told from the noise or the score, by ``sigma`` where the noise must be told from the clean point and
            wherever the target is the score, by both where both vanish.

    Source: Salimans & Ho (2022), section 4, for ``"velocity"``; Lipman et al. (2023) for ``"flow"``; Kingma & Gao
    (2023) for all of them as one prediction under different weights.
    """
    one_of("source", source, _KINDS)
    one_of("target", target, _KINDS)
    batch("x", x)
    floating("prediction", prediction)
    if prediction.shape != x.shape:
        raise ValueError(f"prediction must have shape {tuple(x.shape)} like x, got {tuple(prediction.shape)}")
    non_negative("alpha", alpha)
    non_negative("sigma", sigma)
    dtype, x = x.dtype, at_least_single(x)
    prediction, alpha, sigma = prediction.to(x.dtype), expand(alpha, x, "alpha"), expand(sigma, x, "sigma")
    if source == target:
        return prediction.to(dtype)
    clean_given = source == "clean"
    noise_given = source in ("score", "noise")
    if noise_given and target not in ("score", "noise"):
        positive("alpha", alpha)
    if target == "score" or (clean_given and target != "clean"):
        positive("sigma", sigma)
    if not (clean_given or noise_given):
        positive("alpha + sigma", alpha + sigma)

    if clean_given:
        clean, noise = prediction, (x - alpha * prediction) / sigma
    elif noise_given:
        noise = prediction if source == "noise" else -sigma * prediction
        clean = (x - sigma * noise) / alpha  # not asked for where alpha may vanish
    elif source == "velocity":
        total = alpha**2 + sigma**2
        clean, noise = (alpha * x - sigma * prediction) / total, (sigma * x + alpha * prediction) / total
    else:
        clean, noise = (x - sigma * prediction) / (alpha + sigma), (x + alpha * prediction) / (alpha + sigma)

    if target == "score":
        wanted = -noise / sigma
    elif target == "noise":
        wanted = noise
    elif target == "clean":
        wanted = clean
    else:
        wanted = alpha * noise - sigma * clean if target == "velocity" else noise - clean
    return wanted.to(dtype)
