r"""Stochastic differential equations: noise added in continuous time, and taken away again.

.. math:: dx = f(x, t)\,dt + g(t)\,dw, \qquad t \in [0, 1]

carries data at :math:`t = 0` to noise at :math:`t = 1`. Every SDE here is linear in :math:`x`, so its perturbation
kernel is Gaussian, :math:`p(x_t \mid x_0) = N(\alpha(t)\,x_0, \sigma(t)^2 I)`, with

.. math:: f(x, t) = \frac{\alpha'(t)}{\alpha(t)}\,x, \qquad
          g(t)^2 = \frac{d\sigma^2}{dt} - 2\,\frac{\alpha'(t)}{\alpha(t)}\,\sigma(t)^2 .

The law is reversed (Anderson, 1982) by

.. math:: dx = \left[f(x, t) - g(t)^2\,\nabla_x \log p_t(x)\right] dt + g(t)\,d\bar w, \qquad dt < 0 .

The sign of time is written once: in the decreasing grid of times, whose differences are the negative ``dt``.

Source: Song et al. (2021), "Score-based generative modeling through stochastic differential equations".
"""

import abc
import functools
import json
import math
import numbers
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from scorebook.lab.arguments import (
    as_floating,
    at_least_single,
    batch,
    double,
    expand,
    finite,
    floating,
    inner_time,
    integers,
    levels,
    non_negative,
    one_of,
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
    unit_time,
    vectors,
)
from scorebook.lab.calls import at, layers, one_time_for_all, takes_one_time, time_per_row
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.gradients import checked, outside_inference_mode, recording
from scorebook.lab.types import Array, Field, GivenScore, Integer, Number, PerRow, Score, TimeSampler

__all__ = [
    "SDE",
    "VESDE",
    "VPSDE",
    "ScoreModel",
    "StraightPath",
    "SubVPSDE",
    "at_noise_scale",
    "at_time",
    "data_std_of",
    "denoising_loss",
    "euler_maruyama",
    "log_normal_times",
    "on_grid",
    "predictor_corrector",
    "reverse_drift",
    "same_sde",
    "score_matching_loss",
    "sde_of",
    "simulate",
    "time_sampler",
]

# A noise scale in single precision may lie a hair beside the ends.
_ROUNDING = 1e-6

# Of the bisection: the parts of an interval in each round, and the rounds, down to a rounding of double precision.
_SECTIONS, _ROUNDS = 256, 7
# A time beside 0, for slopes: there the standard deviation may be a root, which has none.
_BESIDE_ZERO = 1e-8

# Times and relative tolerance at which the kernels of two SDEs are held against each other. What differs by less makes
# no difference that a sample could show.
_PROBES = (0.0, 0.25, 0.5, 0.75, 1.0)
_SAME_KERNEL = 1e-5

# Where alpha underflows, for the steps of a grid.
_LARGEST_RATIO = 1e300
# Noise over signal beyond which double precision holds nothing of the signal: a grid has no steps to spend there.
_DROWNED = 1e16

# The function of the noise-to-signal ratio, over the data's scale, in which a grid's times are even, and its inverse.
_Callable = TypeVar("_Callable", bound=Callable[..., Any] | None)
_Kernel: TypeAlias = tuple[list[float], list[float]]
_Spacing: TypeAlias = Literal["uniform", "karras", "share", "angle", "log"]
_SPACINGS: dict[str, tuple[Field, Field]] = {
    "karras": (lambda ratio: ratio ** (1 / 7), lambda even: even**7),
    "share": (lambda ratio: 1 / (1 + 1 / ratio), lambda even: even / (1 - even)),
    "angle": (torch.arctan, torch.tan),
    "log": (torch.log, torch.exp),
}


class _Otherwise:
    """What an attribute is where neither a class nor an object says."""

    def __init__(self, compute: Callable[[Any], Any]):
        self.compute, self.__doc__ = compute, compute.__doc__

    def __get__(self, thing: Any, kind: type | None = None) -> Any:
        return self if thing is None else self.compute(thing)


def _of_checked_times(name: str, function: Callable[[Any, Tensor], Tensor | float]) -> Callable[[Any, PerRow], Tensor]:
    """A method that is written for a tensor of times in [0, 1], made to take any and to return their shape."""

    @functools.wraps(function)
    def of_times(self: Any, t: PerRow) -> Tensor:
        times = unit_time(t)
        values = function(self, times)
        if isinstance(values, numbers.Real):
            values = torch.full_like(times, float(values))
        return same_shape(f"{type(self).__name__}.{name}", values, times)

    return of_times


class SDE(abc.ABC):
    r"""A linear SDE on :math:`t \in [0, 1]` with a Gaussian perturbation kernel.

    Times ``t`` are numbers (taken in double precision), scalar tensors or tensors of shape ``(B,)``; states ``x`` have
    shape ``(B, *event)``. Whatever depends on ``t`` alone is returned in the shape of ``t``, in single precision at
    least. A time outside [0, 1] raises a ``ValueError``.

    One of your own needs :meth:`alpha` and :meth:`sigma` only, written for a tensor of times:

        >>> class Cosine(SDE):
        ...     def alpha(self, t):
        ...         return torch.cos(1.55 * t)
        ...
        ...     def sigma(self, t):
        ...         return torch.sin(1.55 * t)
        >>> Cosine().time_grid(3, spacing="angle")
        tensor([1.0000, 0.6670, 0.3340, 0.0010])

    Drift and diffusion then follow by autograd, and times from noise levels by bisection. What you know in closed form
    you may write too: it is faster. The factor :math:`\alpha` has to stay positive, and :math:`\sigma/\alpha` to grow,
    for an SDE adds noise and takes none away. Where it ends is ``prior_std``, by default :math:`\sigma(1)`: the prior
    is right as far as :math:`\alpha(1)` is small beside it.
    """

    @_Otherwise
    def prior_std(self) -> float:
        """Standard deviation of the prior, the law from which reverse-time sampling starts; in the units of ``x``."""
        return float(self.sigma(1.0).detach())

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in ("alpha", "sigma"):
            if name in vars(cls):
                setattr(cls, name, _of_checked_times(name, vars(cls)[name]))

    # One of your own is written for a tensor, with whatever hints, and takes numbers too.
    @abc.abstractmethod
    def alpha(self, t: Any) -> Any:
        r"""Factor :math:`\alpha(t)` by which the mean of the data has shrunk at time ``t``."""

    @abc.abstractmethod
    def sigma(self, t: Any) -> Any:
        r"""Standard deviation :math:`\sigma(t)` of the noise at time ``t``, in the units of ``x``."""

    def drift(self, x: Tensor, t: Any) -> Tensor:
        r"""Drift :math:`f(x, t) = x\,\alpha'(t)/\alpha(t)`, shape ``(B, *event)``.

        Raises:
            ValueError: if :math:`\alpha(t)` is not positive, or autograd does not follow it.
        """
        return expand(self._shrinking(unit_time(t)), x, "t") * x

    def diffusion(self, t: Any) -> Tensor:
        r"""Diffusion :math:`g(t)`, in ``x`` per root of time: :math:`g^2 = (\sigma^2)' - 2\sigma^2\alpha'/\alpha`.

        Raises:
            ValueError: if :math:`\sigma/\alpha` does not grow at ``t``, :math:`\alpha(t)` is not positive, or autograd
                does not follow them.
        """
        t = unit_time(t)
        variance = self.sigma(t) ** 2
        square = self._slope("sigma", lambda t: self.sigma(t) ** 2, t, variance) - 2 * self._shrinking(t) * variance
        grows = square >= -_ROUNDING * variance
        require(
            grows.all(),
            lambda: ValueError(
                "sigma(t)/alpha(t) must grow with t, for an SDE adds noise and takes none away; that of "
                f"{self!r} falls at t={t[~grows].flatten()[0]:g}"
            ),
        )
        return square.clamp(min=0).sqrt()

    def _shrinking(self, t: Tensor) -> Tensor:
        r"""The rate :math:`\alpha'/\alpha`."""
        alpha = self.alpha(t)
        require(
            (alpha > 0).all(),
            lambda: ValueError(
                f"alpha(t) must be positive on [0, 1], got {alpha[~(alpha > 0)].flatten()[0]:g} from {self!r} at "
                f"t={t[~(alpha > 0)].flatten()[0]:g}: where no signal is left, end a little before"
            ),
        )
        return self._slope("alpha", self.alpha, t, alpha) / alpha

    @outside_inference_mode()
    def _slope(self, name: str, function: Field, t: Tensor, at_t: Tensor) -> Tensor:
        """Derivative of a function of time, time by time. At 0, where roots have none, it is that of a time beside.

        ``at_t``, the function at ``t``, tells whether anybody asks for a gradient through it.
        """
        with recording(double(t).clamp(min=_BESIDE_ZERO)) as inside:
            values = checked(f"{name}(t)", function, inside, of=getattr(type(self), name), argument="t")
            if not values.requires_grad:  # a constant
                return torch.zeros_like(t)
            (slope,) = torch.autograd.grad(
                values.sum(), inside, create_graph=at_t.requires_grad, allow_unused=True, materialize_grads=True
            )
        return slope.to(t.dtype)

    def _inverse_ratio(self, ratio: Tensor) -> Tensor:
        r"""Inverse of :math:`\sigma(t)/\alpha(t)`; outside of [0, 1] where it never takes that value."""
        with torch.no_grad():
            wanted = double(ratio).reshape(-1)
            shares = torch.arange(_SECTIONS, dtype=wanted.dtype, device=wanted.device).unsqueeze(1) / _SECTIONS
            start, width = torch.zeros_like(wanted), 1.0
            for _ in range(_ROUNDS):
                # Bisection that cuts in many parts at once: up to where the ratio is below the wanted one.
                times = start + width * shares
                passed = self._is_passed(times.flatten(), wanted.repeat(_SECTIONS)).reshape(times.shape)
                require(
                    (passed[:-1] | ~passed[1:]).all(),
                    lambda: ValueError(f"sigma(t)/alpha(t) must grow with t; that of {self!r} takes a value twice"),
                )
                start = start + width / _SECTIONS * (passed.sum(0) - 1).clamp(min=0)
                width = width / _SECTIONS
            ends = wanted.new_tensor([0.0, 1.0])
            growth = self._slope("sigma", lambda t: torch.log(self.sigma(t) / self.alpha(t)), ends, ends)
            early, late = _ROUNDING * growth.clamp(1, 1e5)
            before = ~self._is_passed(torch.zeros_like(wanted), wanted * (1 + early))
            after = self._is_passed(torch.ones_like(wanted), wanted * (1 - late))
            t = torch.where(before, -1.0, torch.where(after, 2.0, start + width / 2)).reshape(ratio.shape)
        if ratio.requires_grad and torch.is_grad_enabled():
            slope = self._slope("sigma", lambda t: self.sigma(t) / self.alpha(t), t.clamp(0, 1), t)
            t = t + (ratio - ratio.detach()) / slope
        return t.to(ratio.dtype)

    def _is_passed(self, t: Tensor, ratio: Tensor) -> Tensor:
        """Whether sigma/alpha is at most a ratio, without a quotient."""
        return self.sigma(t) <= ratio * self.alpha(t)

    def _log_noise_to_signal(self, t: PerRow) -> Tensor:
        return torch.log(self.sigma(t) / self.alpha(t))

    @one_read()
    def time_of(self, noise_to_signal: PerRow) -> Tensor:
        r"""Time at which :math:`\sigma(t)/\alpha(t)` equals ``noise_to_signal``; the inverse of that ratio.

        Args:
            noise_to_signal: scalar or shape ``(B,)``.

        Returns:
            Times in [0, 1], shaped like ``noise_to_signal``.

        Raises:
            ValueError: if a ratio is negative or not reached at any time in [0, 1].
        """
        non_negative("noise_to_signal", noise_to_signal)
        t = self._inverse_ratio(at_least_single(as_floating("noise_to_signal", noise_to_signal)))
        reached = (t >= -_ROUNDING) & (t <= 1 + _ROUNDING)
        require(reached.all(), functools.partial(self._out_of_range, noise_to_signal))
        return t.clamp(0, 1)

    def _out_of_range(self, noise_to_signal: PerRow) -> ValueError:
        low, high = (float(self.sigma(end) / self.alpha(end)) for end in (0.0, 1.0))
        given = torch.as_tensor(noise_to_signal)
        return ValueError(
            f"noise_to_signal must lie in [{low:g}, {high:g}], the range of sigma(t)/alpha(t) on [0, 1], "
            f"got values from {given.min():g} to {given.max():g}"
        )

    @one_read()
    def perturb(self, x0: Tensor, t: PerRow, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        r"""Draw :math:`x_t = \alpha(t)\,x_0 + \sigma(t)\,z` from the perturbation kernel.

        Args:
            x0: clean points, shape ``(B, *event)``.
            t: scalar or shape ``(B,)``.
            generator: source of the noise.

        Returns:
            ``(x_t, z)``, the noisy points and the standard normal noise in them, each shaped like ``x0``.
        """
        batch("x0", x0)
        noise = standard_normal(x0.shape, generator=generator, dtype=x0.dtype, device=x0.device)
        clean, drawn = at_least_single(x0), at_least_single(noise)
        noisy = expand(self.alpha(t), clean, "t") * clean + expand(self.sigma(t), clean, "t") * drawn
        return noisy.to(x0.dtype), noise

    def sample_prior(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw from the prior :math:`N(0, s^2 I)` with ``s = prior_std``; ``shape`` is ``(B, *event)``."""
        return self.prior_std * standard_normal(shape, generator=generator, dtype=dtype, device=device)

    def prior_log_prob(self, x: Tensor) -> Tensor:
        """Log-density of the prior at ``x``, in nats and in single precision at least, shape ``(B,)``."""
        batch("x", x)
        z = vectors(at_least_single(x) / self.prior_std)
        return -0.5 * (z**2).sum(1) - z.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(self.prior_std))

    def time_grid(
        self,
        n_steps: Integer,
        *,
        t_min: Number = 1e-3,
        spacing: _Spacing = "uniform",
        data_std: Number = 1.0,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        r"""Times from 1 down to ``t_min``, shape ``(n_steps + 1,)``, on the CPU.

        Args:
            n_steps: number of steps between them.
            t_min: last time, in (0, 1).
            spacing: ``"uniform"`` in ``t``, or ``"karras"``: uniform in :math:`(\sigma/\alpha)^{1/7}`, which takes
                small steps where the noise is small (Karras et al., 2022, eq. 5); ``"share"``: uniform in the share
                of noise :math:`\sigma/(\alpha s + \sigma)`, for :math:`s = 1` the time of flow matching (Liu et al.,
                2023), for few steps of a method of higher order; ``"angle"``: uniform in
                :math:`\arctan(\sigma/(\alpha s))`, the cosine schedule (Nichol & Dhariwal, 2021); or ``"log"``:
                uniform in :math:`\log(\sigma/\alpha)`. Ratios count up to :math:`10^{16} s`: from t = 1, where all
                signal may be lost, the first step goes that far.
            data_std: standard deviation :math:`s` of the data, in their units, for ``"share"`` and ``"angle"``.
            dtype: of the times; by default torch's.

        Raises:
            ValueError: if ``n_steps`` is no positive integer, ``t_min`` not in (0, 1), ``spacing`` unknown or
                ``data_std`` not positive.
        """
        positive_integer("n_steps", n_steps)
        positive("data_std", data_std)
        one_of("spacing", spacing, ("uniform", *_SPACINGS))
        inner_time("t_min", t_min)
        ends = torch.tensor([1.0, float(t_min)], dtype=torch.float64, device="cpu")
        # The ends are known. Computed, the first could be lost: near t = 1 all signal may be below the rounding.
        fraction = torch.linspace(0, 1, n_steps + 1, dtype=torch.float64, device="cpu")[1:-1]
        if spacing == "uniform":
            between = 1 + fraction * (ends[1] - 1)
        else:
            even, back = _SPACINGS[spacing]
            high, low = even((self.sigma(ends) / (self.alpha(ends) * data_std)).clamp(max=_DROWNED))
            between = self.time_of(back(high + fraction * (low - high)) * float(data_std))
        return torch.cat([ends[:1], between, ends[1:]]).to(dtype or torch.get_default_dtype())

    def exact_score(self, mixture: GaussianMixture) -> GivenScore:
        r"""Score of the diffused law of a mixture, :math:`\nabla_x \log p_t(x)`, in closed form.

        Args:
            mixture: the law of the clean points :math:`x_0`, a ``lab.GaussianMixture``.

        Returns:
            ``score(x, t)`` with ``t`` scalar or of shape ``(B,)``; an event of several axes is taken as one vector. Its
            ``sde`` is this one, its ``data_std`` the root of the mean variance of the mixture.
        """
        score = functools.partial(self._exact_score, mixture)
        std = mixture.covariance.detach().diagonal().mean().sqrt()
        vars(score).update(sde=self, data_std=None if std.is_meta else float(std))
        return score

    @one_read()
    def _exact_score(self, mixture: GaussianMixture, x: Tensor, t: PerRow) -> Tensor:
        batch("x", x)
        return mixture.diffuse(self.alpha(t), self.sigma(t)).score(vectors(x)).reshape(x.shape)

    @one_read()
    def denoise(self, score: Score, x: Tensor, t: PerRow) -> Tensor:
        r"""Posterior mean of the clean point, :math:`E[x_0 \mid x_t] = (x_t + \sigma^2 s)/\alpha`, shaped like ``x``.

        Raises:
            ValueError: if ``score`` returns another shape than that of ``x``, or belongs to another SDE; if at time
                ``t`` the signal in ``x`` is below its rounding, so that it says nothing about the clean point.

        Source: Efron (2011), eq. 1.4, for :math:`x_t/\alpha`.
        """
        batch("x", x)
        s = at_least_single(same_shape("score", at(same_sde("score", score, self), x, t), x))
        state, alpha, sigma = at_least_single(x), self.alpha(t), self.sigma(t)
        require(
            (alpha > torch.finfo(x.dtype).eps * sigma).all(),
            lambda: ValueError(
                f"t must leave a signal in x: alpha(t) falls to {float(alpha.min()):.3g} there, below the rounding of "
                f"{x.dtype}. Denoise at an earlier time, in a finer type, or under a smaller beta_max or sigma_max"
            ),
        )
        return ((state + expand(sigma, state, "t") ** 2 * s) / expand(alpha, state, "t")).to(x.dtype)


@final
class VESDE(SDE):
    r"""Variance exploding: :math:`f = 0`, :math:`\sigma(t) = \sigma_{min} (\sigma_{max}/\sigma_{min})^t`.

    .. math:: dx = \sigma(t) \sqrt{2 \log(\sigma_{max}/\sigma_{min})}\; dw

    Noise starts at :math:`\sigma(0) = \sigma_{min}`, not at 0: data at ``t = 0`` are already noisy by that much.
    Song et al. (2021), eqs. 29 and 30, which start at 0 by a jump, agree with this for every ``t > 0``.

    Args:
        sigma_min: noise at ``t = 0``, in the units of the data.
        sigma_max: noise at ``t = 1``; it should exceed the greatest distance between data.

    Raises:
        ValueError: unless ``0 < sigma_min < sigma_max``.
    """

    def __init__(self, sigma_min: Number = 0.01, sigma_max: Number = 50.0):
        positive("sigma_min", sigma_min)
        positive("sigma_max", sigma_max)
        if sigma_min >= sigma_max:
            raise ValueError(f"sigma_min must be below sigma_max, got {sigma_min:g} and {sigma_max:g}")
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self.prior_std = self.sigma_max
        self._log_ratio = math.log(sigma_max / sigma_min)

    def __repr__(self) -> str:
        return f"VESDE(sigma_min={self.sigma_min:.9g}, sigma_max={self.sigma_max:.9g})"

    def alpha(self, t: Any) -> Tensor:
        """1: the mean stays."""
        return torch.ones_like(t)

    def sigma(self, t: Any) -> Tensor:
        r""":math:`\sigma_{min} (\sigma_{max}/\sigma_{min})^t`."""
        return self.sigma_min * torch.exp(self._log_ratio * t)

    def drift(self, x: Tensor, t: PerRow) -> Tensor:
        """0."""
        expand(unit_time(t), x, "t")
        return torch.zeros_like(x)

    def diffusion(self, t: PerRow) -> Tensor:
        r""":math:`\sigma(t) \sqrt{2 \log(\sigma_{max}/\sigma_{min})}`, the root of :math:`d\sigma^2/dt`."""
        return self.sigma(t) * math.sqrt(2 * self._log_ratio)

    def _inverse_ratio(self, ratio: Tensor) -> Tensor:
        r""":math:`t = \log(r/\sigma_{min}) / \log(\sigma_{max}/\sigma_{min})`."""
        return torch.log(ratio / self.sigma_min) / self._log_ratio


class _LinearBeta(SDE):
    r"""The drift that VP and sub-VP share: :math:`\beta(t) = \beta_{min} + t(\beta_{max} - \beta_{min})`."""

    prior_std = 1.0

    def __init__(self, beta_min: Number = 0.1, beta_max: Number = 20.0):
        positive("beta_min", beta_min)
        positive("beta_max", beta_max)
        if beta_min > beta_max:
            raise ValueError(f"beta_min must not exceed beta_max, got {beta_min:g} and {beta_max:g}")
        self.beta_min, self.beta_max = float(beta_min), float(beta_max)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(beta_min={self.beta_min:.9g}, beta_max={self.beta_max:.9g})"

    def beta(self, t: PerRow) -> Tensor:
        """Rate of noising at ``t``, per unit of time."""
        return self.beta_min + unit_time(t) * (self.beta_max - self.beta_min)

    def integrated_beta(self, t: PerRow) -> Tensor:
        r""":math:`B(t) = \int_0^t \beta(s)\,ds`, without unit."""
        return self._integral(unit_time(t))

    def _integral(self, t: Tensor) -> Tensor:
        return t * (self.beta_min + 0.5 * t * (self.beta_max - self.beta_min))

    def alpha(self, t: Any) -> Tensor:
        r""":math:`e^{-B(t)/2}`."""
        return torch.exp(-0.5 * self._integral(t))

    def _log_noise_to_signal(self, t: PerRow) -> Tensor:
        return torch.log(self.sigma(t)) + 0.5 * self.integrated_beta(t)  # finite where alpha underflows

    def drift(self, x: Tensor, t: PerRow) -> Tensor:
        r""":math:`-\beta(t)\,x/2`."""
        return -0.5 * expand(self.beta(t), x, "t") * x

    def _inverse_integral(self, integral: Tensor) -> Tensor:
        slope = self.beta_max - self.beta_min
        # The root of the quadratic in the form that loses no digits for small integrals.
        return 2 * integral / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * integral))


@final
class VPSDE(_LinearBeta):
    r"""Variance preserving: data of unit variance keep it.

    .. math:: dx = -\tfrac12 \beta(t)\,x\,dt + \sqrt{\beta(t)}\,dw, \qquad
              \alpha = e^{-B/2}, \quad \sigma^2 = 1 - e^{-B}

    with :math:`\beta(t) = \beta_{min} + t(\beta_{max} - \beta_{min})` and its integral :math:`B(t)`.
    Source: Song et al. (2021), eqs. 32 and 33.

    Args:
        beta_min: rate of noising at ``t = 0``, per unit of time.
        beta_max: rate at ``t = 1``.

    Raises:
        ValueError: unless ``0 < beta_min <= beta_max``.
    """

    def sigma(self, t: Any) -> Tensor:
        r""":math:`\sqrt{1 - e^{-B(t)}}`."""
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def diffusion(self, t: PerRow) -> Tensor:
        r""":math:`\sqrt{\beta(t)}`."""
        return torch.sqrt(self.beta(t))

    def _inverse_ratio(self, ratio: Tensor) -> Tensor:
        r"""From :math:`B = \log(1 + r^2)`, without the square of a ratio above 1."""
        above, below = ratio.clamp(min=1), ratio.clamp(max=1)
        return self._inverse_integral(2 * torch.log(above) + torch.log1p((below / above) ** 2))


@final
class SubVPSDE(_LinearBeta):
    r"""Sub-variance preserving: the drift of :class:`VPSDE` with less noise on the way.

    .. math:: dx = -\tfrac12 \beta(t)\,x\,dt + \sqrt{\beta(t)\,(1 - e^{-2B(t)})}\,dw, \qquad
              \alpha = e^{-B/2}, \quad \sigma = 1 - e^{-B}

    Source: Song et al. (2021), eqs. 34 and 35. Arguments and errors as for :class:`VPSDE`.
    """

    def sigma(self, t: Any) -> Tensor:
        r""":math:`1 - e^{-B(t)}`."""
        return -torch.expm1(-self._integral(t))

    def diffusion(self, t: PerRow) -> Tensor:
        r""":math:`\sqrt{\beta(t)\,(1 - e^{-2B(t)})}`."""
        return torch.sqrt(-self.beta(t) * torch.expm1(-2 * self.integrated_beta(t)))

    def _inverse_ratio(self, ratio: Tensor) -> Tensor:
        r"""From :math:`r = 2 \sinh(B/2)`."""
        return self._inverse_integral(2 * torch.asinh(0.5 * ratio))


@final
class StraightPath(SDE):
    r"""The path of flow matching, a straight line from each point to each noise, as an SDE.

    .. math:: dx = -\frac{1 - \epsilon}{\alpha}\,x\,dt + \sqrt{\frac{2t}{\alpha}}\,dw, \qquad
              \alpha = 1 - (1 - \epsilon)\,t, \quad \sigma = t

    A little signal :math:`\epsilon` is left at ``t = 1``: with none, drift and diffusion would grow without bound. They
    are steep there all the same. The default solver of the flow does not meet them; Euler steps do, of which a sampler
    wants fifty or more. Source: Lipman et al. (2023), eq. 20, with time from data to noise; Liu et al. (2023)
    for :math:`\epsilon = 0`.

    Args:
        signal_left: :math:`\epsilon`, the factor of the data at ``t = 1``.

    Raises:
        ValueError: unless ``0 < signal_left < 1``.
    """

    prior_std = 1.0

    def __init__(self, signal_left: Number = 1e-3):
        positive("signal_left", signal_left)
        if signal_left >= 1:
            raise ValueError(f"signal_left must be below 1, got {signal_left:g}")
        self.signal_left = float(signal_left)

    def __repr__(self) -> str:
        return f"StraightPath(signal_left={self.signal_left:.9g})"

    def alpha(self, t: Any) -> Tensor:
        r""":math:`1 - (1 - \epsilon)\,t`."""
        return (1 - t) + self.signal_left * t

    def sigma(self, t: Any) -> Tensor:
        """``t``."""
        return t.clone()

    def drift(self, x: Tensor, t: PerRow) -> Tensor:
        r""":math:`-(1 - \epsilon)\,x/\alpha`."""
        return -expand((1 - self.signal_left) / self.alpha(t), x, "t") * x

    def diffusion(self, t: PerRow) -> Tensor:
        r""":math:`\sqrt{2t/\alpha}`."""
        return torch.sqrt(2 * self.sigma(t) / self.alpha(t))

    def _inverse_ratio(self, ratio: Tensor) -> Tensor:
        r""":math:`t = r/(1 + (1 - \epsilon)\,r)`."""
        return 1 / (1 / ratio + (1 - self.signal_left))


def sde_of(score: object) -> SDE | None:
    """The SDE to whose time a score says that it belongs, or ``None`` where it does not say.

    It says so by an attribute ``sde``. A :class:`ScoreModel` has one, so have exact scores, guided scores and what
    ``given`` makes of a model; give one to a score of your own, and samplers will refuse it with another SDE. Seen
    through are ``functools.partial``, ``torch.compile``, bound methods such as ``model.forward``, and the wrappers of
    PyTorch that hold the model as their ``module``. A ``lambda`` hides it.
    """
    return _said_by(score, "sde", SDE)


def data_std_of(score: object) -> float | None:
    """The standard deviation of the data that a score says it is for, or ``None`` where it does not say.

    It says so by an attribute ``data_std``, as a :class:`ScoreModel`, exact scores and what is made of them do, and is
    looked for as by :func:`sde_of`.
    """
    return _said_by(score, "data_std", (int, float))


def _said_by(score: object, name: str, kind: Any) -> Any:
    said = (getattr(layer, name, None) for layer in layers(score))
    return next((own for own in said if isinstance(own, kind)), None)


def same_sde(name: str, score: _Callable, sde: SDE) -> _Callable:
    r"""Return ``score`` unless it says that it belongs to another SDE.

    Two SDEs are the same if their kernels are: :math:`\alpha` and :math:`\sigma` agree at five times to a relative
    :math:`10^{-5}`, whatever the class or the object. Copies are the same, and so is a class of your own that computes
    the same kernel in another way.

    Args:
        name: the name by which the message calls ``score``.
        score: any callable; only one that has an SDE by :func:`sde_of` is compared.
        sde: the SDE that it should belong to.

    Raises:
        ValueError: if it belongs to another.
    """
    own = sde_of(score)
    if own is None or own is sde or _same_kernel(_kernel(own), _kernel(sde)):
        return score
    raise ValueError(
        f"{name} belongs to {own!r}, but the sde is {sde!r}: times and noise would not match. Take the former as sde, "
        f"or carry the score over by at_time(at_noise_scale({name}, its_sde), sde)"
    )


@one_read()
def reverse_drift(sde: SDE, score: Score, x: Tensor, t: PerRow) -> Tensor:
    r"""Drift of the reverse-time SDE, :math:`f(x, t) - g(t)^2\,s(x, t)`, to be integrated with ``dt < 0``.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.
        x: states, shape ``(B, *event)``.
        t: scalar or shape ``(B,)``.

    Raises:
        ValueError: if ``score`` returns another shape than that of ``x``, or belongs to another SDE.

    Source: Anderson (1982); Song et al. (2021), eq. 6.
    """
    batch("x", x)
    same_sde("score", score, sde)
    state = at_least_single(x)
    s = at_least_single(same_shape("score", at(score, x, t), x))
    return (sde.drift(state, t) - expand(sde.diffusion(t), state, "t") ** 2 * s).to(x.dtype)


@final
class ScoreModel(nn.Module):
    r"""A network made into a score of all noise levels, with inputs and targets of unit scale.

    With :math:`r = \sigma/\alpha` and data of standard deviation :math:`s`, the network :math:`F` sees
    :math:`c_{in}\,x/\alpha` and :math:`c_{noise}`, and the denoised point is a blend of input and output:

    .. math::
        \hat x_0 = \frac{s^2}{r^2 + s^2}\,\frac{x}{\alpha}
        + \frac{r s}{\sqrt{r^2 + s^2}}\,F(c_{in}\,x/\alpha, c_{noise}),
        \quad c_{in} = \frac{1}{\sqrt{r^2 + s^2}}, \quad c_{noise} = \tfrac14 \log r

    The score is :math:`(\alpha \hat x_0 - x)/\sigma^2`, computed as

    .. math:: s(x, t) = -\frac{x}{\sigma^2 + \alpha^2 s^2} + \frac{\alpha s}{\sigma \sqrt{\sigma^2 + \alpha^2 s^2}}\,F,

    which subtracts no two nearly equal numbers where :math:`\sigma` is small. With :math:`F = 0` it is the exact
    score of Gaussian data of standard deviation :math:`s`.

    Weights mean nothing without the SDE and the scale for which they were trained. Samplers, likelihoods, losses and
    guidance refuse a model of another SDE than the one they are given (:func:`same_sde`), and a ``state_dict`` carries
    both, in the entry ``_extra_state``: bytes of JSON, a tensor of ``uint8`` as any other entry is one of numbers.

    Args:
        network: module called as ``network(x, c_noise, **condition)``, returns a tensor like ``x``.
        sde: the SDE whose marginals are scored.
        data_std: standard deviation :math:`s` of the data, in their units.

    Raises:
        ValueError: if ``data_std`` is not positive, the network returns another shape than that of ``x``, or ``t`` is a
            time without noise (0 under VP and sub-VP), where a learned score has no meaning; in ``load_state_dict``, if
            the state belongs to another SDE or ``data_std``.

    Warns:
        UserWarning: in ``load_state_dict``, if the state does not say to which SDE and ``data_std`` it belongs, as
            those written by early versions do not.

    Source: Karras et al. (2022), table 1, with :math:`\sigma/\alpha` for their :math:`\sigma`.
    """

    def __init__(self, network: nn.Module, sde: SDE, data_std: Number = 1.0):
        super().__init__()
        positive("data_std", data_std)
        self.network, self.sde, self.data_std = network, sde, float(data_std)

    @one_time_for_all
    @one_read()
    def forward(self, x: Tensor, t: PerRow, **condition: Any) -> Tensor:
        """Score at ``x``, shape ``(B, *event)``, and time ``t``, scalar or ``(B,)``; conditions go to the network."""
        batch("x", x)
        return self._score(x, *self._coefficients(levels("t", t, x)), **condition)

    def on_grid(self, times: Tensor) -> list[Callable[..., Tensor]]:
        """See the function :func:`on_grid`: what depends on time alone is computed once, for all times together.

        Only where a call of the model is a call of :meth:`forward` and nothing else. With a hook, in a subclass, or
        where the model was compiled in place, each evaluation is a call as ever.
        """
        _check_grid(times)
        if not self._is_plain():
            return [functools.partial(_at, self, t) for t in times]
        return [
            lambda x, at_t=at_t, **condition: self._score(x, *at_t, **condition)
            for at_t in zip(*self._coefficients(times), strict=True)
        ]

    def _is_plain(self) -> bool:
        kinds = ("forward", "forward_pre", "backward", "backward_pre")
        hooks = [getattr(self, f"_{kind}_hooks") for kind in kinds]
        hooks += [getattr(every_module, f"_global_{kind}_hooks") for kind in kinds]
        overridden = "forward" in vars(self) or self._compiled_call_impl is not None
        return type(self) is ScoreModel and not overridden and not any(hooks)

    def _coefficients(self, t: Tensor) -> list[Tensor]:
        precise = double(t)
        alpha, sigma = self.sde.alpha(precise), self.sde.sigma(precise)
        positive("sigma(t)", sigma)
        total = torch.sqrt(sigma**2 + (alpha * self.data_std) ** 2)
        c_noise = self.sde._log_noise_to_signal(precise) / 4
        require(
            c_noise.isfinite().all(),
            lambda: ValueError(
                f"alpha(t) must be positive, got 0 from {self.sde!r}: end where a little signal is left"
            ),
        )
        return [c.to(t.dtype) for c in (total, c_noise, alpha * self.data_std / (sigma * total))]

    def _score(self, x: Tensor, total: Tensor, c_noise: Tensor, c_out: Tensor, **condition: Any) -> Tensor:
        batch("x", x)
        state = at_least_single(x)
        total = expand(total, state, "t")
        scaled = state / total
        if not takes_one_time(self.network):
            c_noise = time_per_row(c_noise, x)
        output = at_least_single(same_shape("network", self.network(scaled.to(x.dtype), c_noise, **condition), x))
        return (expand(c_out, state) * output - scaled / total).to(x.dtype)

    def get_extra_state(self) -> Tensor:
        """What the weights belong to: the kernel of the SDE and ``data_std``, as bytes of JSON; for ``state_dict``."""
        said = {"sde": repr(self.sde), "data_std": self.data_std}
        if not isinstance(self.sde, nn.Module):  # such a one has parameters in the state, and learns them
            said["alpha"], said["sigma"] = _kernel(self.sde)
        return torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor | None) -> None:
        """Compare what a state says it belongs to with what the model is; for ``load_state_dict``."""
        if state is None:
            warnings.warn(
                "the state does not say to which sde and data_std its weights belong, so that they could not be "
                f"compared with {self.sde!r} and data_std={self.data_std:g} of the model",
                stacklevel=2,
            )
            return
        said = json.loads(bytes(state.tolist()))
        if not math.isclose(said["data_std"], self.data_std, rel_tol=_SAME_KERNEL):
            raise ValueError(f"data_std is {self.data_std:g}, but the state belongs to data_std={said['data_std']:g}")
        learned = isinstance(self.sde, nn.Module) or "alpha" not in said
        if not learned and not _same_kernel((said["alpha"], said["sigma"]), _kernel(self.sde)):
            raise ValueError(f"sde is {self.sde!r}, but the state belongs to {said['sde']}")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        # A state of before there was this entry is not incomplete: what is missing is named by the warning.
        state_dict.setdefault(f"{prefix}_extra_state", None)
        super()._load_from_state_dict(state_dict, prefix, *others)

    @one_read()
    def weight(self, t: PerRow) -> Tensor:
        r"""Weight :math:`\lambda(t)` under which the network's own error counts alike at all times, shape of ``t``.

        .. math:: \lambda(t) = \frac{\sigma^2\,(\sigma^2 + \alpha^2 s^2)}{\alpha^2 s^2},

        one over the square of the factor in front of :math:`F`; ``weighting=model.weight`` passes it to
        :func:`score_matching_loss`. Source: Karras et al. (2022), table 1, in units of the score.

        Raises:
            ValueError: at a time that leaves no signal in ``x``, by the rounding of ``t``.
        """
        t = at_least_single(as_floating("t", t))
        alpha, sigma = self.sde.alpha(double(t)), self.sde.sigma(double(t))
        signal = alpha * self.data_std
        require(
            (signal > torch.finfo(t.dtype).eps * sigma).all(),
            lambda: ValueError(
                f"t must leave a signal in x, or weight(t) counts nothing but rounding: alpha(t) falls to "
                f"{float(alpha.min()):.3g}. Draw earlier times, choose weighting='sigma2', or a smaller beta_max"
            ),
        )
        return (sigma**2 * (sigma**2 + signal**2) / signal**2).to(t.dtype)


def on_grid(score: Callable[..., Tensor], times: Tensor) -> list[Callable[..., Tensor]]:
    """A score at fixed times: for each of the ``times``, shape ``(n,)``, a callable ``x -> tensor like x``.

    A sampler knows its times in advance. A score makes use of that by an ``on_grid(times)`` of its own, a method of its
    class or an attribute: a :class:`ScoreModel` has it, and so have the scores that ``given``, ``classifier_free`` and
    guidance make. Any other score is called as ever.
    """
    _check_grid(times)
    # Not what getattr finds: a model compiled by torch.compile hands the method on, and would not be the one called.
    if "on_grid" in vars(type(score)) or "on_grid" in getattr(score, "__dict__", ()):
        made: Any = score
        return made.on_grid(times)
    return [functools.partial(_at, score, t) for t in times]


def _at(score: Callable[..., Tensor], t: Tensor, x: Tensor, **condition: Any) -> Tensor:
    return at(score, x, t, **condition)


@one_read()
def score_matching_loss(
    model: Callable[..., Tensor],
    sde: SDE,
    x: Tensor,
    *,
    labels: Array | None = None,
    p_drop: Number = 0.0,
    weighting: Literal["sigma2", "likelihood"] | Callable[[Tensor], Tensor] = "sigma2",
    sample_times: TimeSampler | None = None,
    t_min: Number = 1e-3,
    generator: torch.Generator | None = None,
    **conditions: Any,
) -> Tensor:
    r"""Denoising score matching over all times.

    .. math:: L = \tfrac12\,E_{t, x_0, z}\left[\lambda(t)\,\Big\|s_\theta(x_t, t) + \frac{z}{\sigma(t)}\Big\|^2\right],
              \qquad x_t = \alpha(t)\,x_0 + \sigma(t)\,z

    The norm sums over dimensions, the expectation is a mean over the batch. The minimum is not zero.

    Args:
        model: callable ``(x, t) -> tensor like x``; with ``labels`` it is called as ``model(x, t, label=...)``, with
            ``conditions`` as ``model(x, t, **conditions)``.
        sde: the SDE that perturbs.
        x: clean points, shape ``(B, *event)``.
        labels: classes, integer tensor of shape ``(B,)``, or None.
        p_drop: probability with which a label is replaced by -1, "no label", and what else the point is conditioned
            on by zeros (classifier-free guidance needs both). If zero is a value of yours, give the network a column of
            ones as well, which tells the two apart.
        weighting: ``"sigma2"`` for :math:`\lambda = \sigma^2`, which makes all times count alike; ``"likelihood"`` for
            :math:`\lambda = g^2`, which bounds the log-likelihood (Song et al., 2021b); or a callable ``t -> (B,)``.
        sample_times: callable ``(n, generator) -> (n,)`` times in [0, 1], such as a :func:`time_sampler`; by default
            independent and uniform on ``[t_min, 1]``.
        t_min: least time that the default draws, in (0, 1).
        generator: source of the times, the noise and the drops.
        conditions: by the name under which the model takes it, whatever else the points are conditioned on: a tensor
            with a row for each, ``(B, *any)``, or a list, tuple or dictionary of such.

    Returns:
        Scalar tensor, in single precision at least.

    Raises:
        ValueError: for an unknown weighting, ``t_min`` outside (0, 1), ``p_drop`` outside [0, 1], labels or conditions
            of another shape, a model that returns another shape, or a model or weighting of another SDE.

    Source: Song et al. (2021), eq. 7.
    """
    same_sde("model", model, sde)
    if callable(weighting):
        same_sde("weighting", weighting, sde)
    else:
        one_of("weighting", weighting, ("sigma2", "likelihood"))
    if not 0 <= p_drop <= 1:
        raise ValueError(f"p_drop must be a probability in [0, 1], got {p_drop!r}")
    some_points("x", x)
    if labels is not None or conditions:
        dropped = uniform((len(x),), generator=generator, device=x.device) < float(p_drop)
        conditions = {name: _without(name, part, dropped) for name, part in conditions.items()}
    if labels is not None:
        labels = integers("labels", labels).to(x.device)
        if labels.shape != (len(x),):
            raise ValueError(f"labels must have shape ({len(x)},), got {tuple(labels.shape)}")
        conditions["label"] = torch.where(dropped, -1, labels)
    if sample_times is None:
        sample_times = time_sampler(sde, low_discrepancy=False, t_min=t_min)
    t = levels("sample_times", sample_times(len(x), generator), x)
    x_t, noise = sde.perturb(x, t, generator=generator)
    s = at_least_single(same_shape("model", at(model, x_t, t, **conditions), x))
    sigma = sde.sigma(t)
    squares = sum_over_event((expand(sigma, s) * s + noise).square())  # sigma (s + z/sigma): finite for every sigma
    if callable(weighting):
        squares = weighting(t) / sigma**2 * squares
    elif weighting == "likelihood":
        squares = (sde.diffusion(t) / sigma) ** 2 * squares
    return 0.5 * squares.mean()


def _without(name: str, condition: Any, dropped: Tensor) -> Any:
    """A condition, or all parts of it, with zeros in the rows that are dropped."""
    if isinstance(condition, dict):
        return {key: _without(name, part, dropped) for key, part in condition.items()}
    if isinstance(condition, (tuple, list)):
        return type(condition)(_without(name, part, dropped) for part in condition)
    if not isinstance(condition, Tensor) or condition.ndim == 0 or len(condition) != len(dropped):
        came = tuple(condition.shape) if isinstance(condition, Tensor) else type(condition).__name__
        raise ValueError(f"{name} must be a tensor of shape ({len(dropped)}, *any), one row per point, got {came}")
    return condition.masked_fill(dropped.to(condition.device).reshape(-1, *[1] * (condition.ndim - 1)), 0)


def denoising_loss(
    model: Callable[..., Tensor],
    x: Tensor,
    labels: Array | None = None,
    *,
    p_drop: Number = 0.0,
    sample_times: TimeSampler | None = None,
    generator: torch.Generator | None = None,
    **conditions: Any,
) -> Tensor:
    r"""The loss of a :class:`ScoreModel` in its own SDE and under its own weight; what to train with, as a rule.

    It is :func:`score_matching_loss` with ``model.sde`` and ``weighting=model.weight``, under which the error of the
    network itself counts alike at all times. Nothing is left to enclose: ``lab.fit(model, sde.denoising_loss, x)``
    trains a model, with ``(x, labels)`` one that knows labels, with ``{"x": x, "context": context}`` one whose network
    takes a ``context``.

    Args:
        model: a :class:`ScoreModel`, or what wraps one and hands on its ``sde`` and ``weight``.
        x: clean points, shape ``(B, *event)``.
        labels: classes, integer tensor of shape ``(B,)``, or None.
        p_drop: probability with which labels and conditions are left out of a row.
        sample_times: callable ``(n, generator) -> (n,)`` times; by default independent and uniform on [0.001, 1].
        generator: source of the times, the noise and the drops.
        conditions: whatever else the network takes, by name; all four as for :func:`score_matching_loss`.

    Returns:
        Scalar tensor, in single precision at least.

    Raises:
        ValueError: as :func:`score_matching_loss`; if the model does not say its SDE and its weight.

    Source: Karras et al. (2022), eq. 108, in units of the score.
    """
    sde, weight = sde_of(model), getattr(model, "weight", None)
    if sde is None or not callable(weight):
        raise ValueError(
            f"model must be a ScoreModel, with an sde and a weight of its own, got {type(model).__name__}: wrap the "
            "network, ScoreModel(network, sde, data_std), or take score_matching_loss"
        )
    return score_matching_loss(
        model,
        sde,
        x,
        labels=labels,
        p_drop=p_drop,
        weighting=weight,
        sample_times=sample_times,
        generator=generator,
        **conditions,
    )


def time_sampler(
    sde: SDE, *, uniform_in: Literal["t", "log_noise"] = "t", low_discrepancy: bool = True, t_min: Number = 1e-3
) -> TimeSampler:
    r"""Times for :func:`score_matching_loss`, drawn so that its estimate varies less.

    Low discrepancy: one uniform number shifts an even grid, :math:`u_i = (u + i/n) \bmod 1`, so that each batch covers
    the interval evenly, while each :math:`u_i` alone is uniform and the mean unbiased.

    Uniform in the logarithm of the noise-to-signal ratio :math:`r = \sigma/\alpha`: since
    :math:`d \log r^2/dt = g^2/\sigma^2`, such times have the density :math:`q(t) \propto g(t)^2/\sigma(t)^2`. They are
    the importance sampling for likelihood weighting, which then is the weight :math:`\sigma^2` up to a constant:

    .. math:: \int_{t_{min}}^1 g^2\, E\|\cdot\|^2\,dt
              = \log\frac{r(1)^2}{r(t_{min})^2}\; E_{t \sim q}\left[\sigma^2\, E\|\cdot\|^2\right] .

    Args:
        sde: the SDE in whose time to draw.
        uniform_in: ``"t"``, or ``"log_noise"`` for :math:`\log r`.
        low_discrepancy: spread the times of a batch evenly instead of drawing them independently.
        t_min: least time, in (0, 1).

    Returns:
        Callable ``(n, generator) -> (n,)``, times in ``[t_min, 1]``.

    Raises:
        ValueError: if ``t_min`` lies outside (0, 1) or ``uniform_in`` is unknown.

    Source: Kingma et al. (2021), "Variational diffusion models", for the low discrepancy; Song et al. (2021b), "Maximum
    likelihood training of score-based diffusion models", for the importance sampling.
    """
    one_of("uniform_in", uniform_in, ("t", "log_noise"))
    inner_time("t_min", t_min)

    return functools.partial(_sample_times, sde, uniform_in, low_discrepancy, float(t_min))


def _sample_times(
    sde: SDE, uniform_in: str, low_discrepancy: bool, t_min: float, n: int, generator: torch.Generator | None = None
) -> Tensor:
    device = "cpu" if generator is None else generator.device
    u = uniform((1 if low_discrepancy else n,), generator=generator, device=device)
    if low_discrepancy:
        u = (u + torch.arange(n, dtype=u.dtype, device=device) / n) % 1
    if uniform_in == "t":
        return t_min + (1 - t_min) * u
    low, high = (sde._log_noise_to_signal(end) for end in (t_min, 1.0))
    ratio = torch.exp(low + (high - low) * double(u)).clamp(max=_LARGEST_RATIO)
    return sde.time_of(ratio).clamp(min=t_min).to(u.dtype)


def log_normal_times(sde: SDE, *, mean: Number = -1.2, std: Number = 1.2, t_min: Number = 1e-3) -> TimeSampler:
    r"""Times whose noise-to-signal ratio is log-normal, :math:`\log(\sigma/\alpha) \sim N(\text{mean}, \text{std}^2)`.

    Training then dwells on the noise levels where data take shape; what falls outside the range of the SDE is moved to
    its ends.

    Args:
        sde: the SDE in whose time the draws are wanted.
        mean: mean of the logarithm of the ratio, for data of about unit scale.
        std: its standard deviation, positive.
        t_min: least time, in (0, 1).

    Returns:
        Callable ``(n, generator) -> (n,)`` times, the ``sample_times`` of :func:`score_matching_loss`.

    Raises:
        ValueError: if ``std`` is not positive or ``t_min`` not in (0, 1).

    Source: Karras et al. (2022), table 1.
    """
    finite("mean", mean)
    positive("std", std)
    inner_time("t_min", t_min)
    ends = torch.tensor([t_min, 1.0], dtype=torch.float64, device="cpu")
    low, high = (sde.sigma(ends) / sde.alpha(ends)).clamp(max=_LARGEST_RATIO).tolist()
    return functools.partial(_log_normal_times, sde, float(mean), float(std), float(t_min), low, high)


def _log_normal_times(
    sde: SDE,
    mean: float,
    std: float,
    t_min: float,
    low: float,
    high: float,
    n: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    normal = standard_normal((n,), generator=generator, dtype=torch.float64, device="cpu")
    return sde.time_of(torch.exp(mean + std * normal).clamp(low, high)).clamp(t_min, 1.0)


def at_noise_scale(score: Score, sde: SDE) -> GivenScore:
    r"""A score in time seen as a score in noise scale, for ``tweedie`` and ``annealed_langevin``.

    The law of :math:`x_0 + \sigma z` is that of :math:`x_t/\alpha(t)` at the time where the noise-to-signal ratio
    :math:`\sigma(t)/\alpha(t)` is :math:`\sigma`. Hence

    .. math:: s(y, \sigma) = \alpha(t)\,s_t(\alpha(t)\,y, t) .

    Args:
        score: callable ``(x, t) -> tensor like x``.
        sde: the SDE in whose time ``score`` is given.

    Returns:
        ``score(y, sigma)``, ``sigma`` scalar or ``(B,)``, in the units of the data. It raises a ``ValueError`` for a
        noise scale that the SDE never has.

    Raises:
        ValueError: if ``score`` belongs to another SDE.
    """
    same_sde("score", score, sde)

    return functools.partial(_at_noise_scale, score, sde)


@one_read()
def _at_noise_scale(score: Callable[..., Tensor], sde: SDE, y: Tensor, sigma: PerRow, **condition: Any) -> Tensor:
    batch("y", y)
    non_negative("sigma", sigma)
    t = sde.time_of(levels("sigma", sigma, y))
    alpha = expand(sde.alpha(t), y, "sigma")
    return alpha * at(score, alpha * y, t, **condition)


def at_time(score: Score, sde: SDE) -> GivenScore:
    r"""The inverse of :func:`at_noise_scale`: a score in noise scale seen as a score in time.

    .. math:: s_t(x, t) = \frac{1}{\alpha(t)}\, s\!\left(\frac{x}{\alpha(t)}, \frac{\sigma(t)}{\alpha(t)}\right)

    Args:
        score: callable ``(y, sigma) -> tensor like y``.
        sde: the SDE in whose time the score is wanted.

    Returns:
        ``score(x, t)``, ``t`` scalar or ``(B,)``, for the samplers of this chapter and the next.

    Raises:
        ValueError: if ``score`` belongs to an SDE: then its second argument is a time already.
    """
    if (own := sde_of(score)) is not None:
        raise ValueError(f"score must be one in noise scale, got one in the time of {own!r}")

    score_at_time = functools.partial(_at_time, score, sde)
    vars(score_at_time)["sde"] = sde
    return score_at_time


@one_read()
def _at_time(score: Callable[..., Tensor], sde: SDE, x: Tensor, t: PerRow, **condition: Any) -> Tensor:
    batch("x", x)
    t = levels("t", t, x)
    alpha = sde.alpha(t)
    return at(score, x / expand(alpha, x, "t"), sde.sigma(t) / alpha, **condition) / expand(alpha, x, "t")


@torch.no_grad()
def simulate(
    drift: Score,
    diffusion: Callable[[Tensor, Tensor], Number | Tensor],
    x: Tensor,
    times: Tensor,
    *,
    increments: Tensor | None = None,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> Tensor:
    r"""Euler-Maruyama for any SDE with diagonal noise, forwards or backwards.

    .. math:: x_{k+1} = x_k + f(x_k, t_k)\,\Delta t_k + g(x_k, t_k)\,\Delta w_k,
              \qquad \Delta t_k = t_{k+1} - t_k, \quad \Delta w_k \sim N(0, |\Delta t_k| I)

    Args:
        drift: callable ``(x, t) -> tensor like x``.
        diffusion: callable ``(x, t)`` that returns a number, a tensor of shape ``(B,)`` or a tensor like ``x``.
        x: states at ``times[0]``, shape ``(B, *event)``.
        times: increasing or decreasing, shape ``(n + 1,)``.
        increments: the Brownian increments, shape ``(n, B, *event)``, where the path matters (strong convergence);
            drawn from ``generator`` by default.
        generator: source of the increments.
        trajectory: return all states, shape ``(n + 1, B, *event)``.

    Returns:
        States at ``times[-1]``, shape ``(B, *event)``, or the trajectory.

    Raises:
        ValueError: if ``times`` is neither increasing nor decreasing, or shapes do not fit.
        RuntimeError: if a state is no longer finite; the message says when, and how many rows.

    Source: Maruyama (1955); Kloeden & Platen (1992), section 10.2.
    """
    batch("x", x)
    finite("x", x)
    _check_monotone(times)
    n_steps = len(times) - 1
    if increments is not None:
        floating("increments", increments)
        if increments.shape != (n_steps, *x.shape):
            raise ValueError(f"increments must have shape {(n_steps, *x.shape)}, got {tuple(increments.shape)}")
        finite("increments", increments)
        increments = at_least_single(increments.to(x.dtype))
    dtype, state = x.dtype, at_least_single(x)
    steps = (times if times.is_floating_point() else times.to(state.dtype)).diff()
    states = [x]
    for k, (t, dt) in enumerate(zip(times[:-1], steps, strict=True)):
        if increments is None:
            dw = expand(dt.abs().sqrt(), state) * standard_normal(
                x.shape, generator=generator, dtype=state.dtype, device=x.device
            )
        else:
            dw = increments[k]
        with one_read():
            g = diffusion(x, t)
            if not (isinstance(g, Tensor) and g.shape == x.shape):
                g = expand(g, state, "diffusion")  # a (B,) tensor must not meet a (B, B) one by accident
            state = state + same_shape("drift", drift(x, t), x).to(state.dtype) * expand(dt, state) + g * dw
            x = still_finite("states", state.to(dtype), "t", times[k + 1])
        if trajectory:
            states.append(x)
    return torch.stack(states) if trajectory else x


def euler_maruyama(
    sde: SDE,
    score: Score,
    x: Tensor,
    *,
    n_steps: Integer | None = None,
    t_min: Number = 1e-3,
    times: Tensor | None = None,
    denoise: bool = True,
    constraint: Score | None = None,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> Tensor:
    r"""Sample by the reverse SDE, discretised by Euler-Maruyama with ``dt < 0``.

    .. math:: x \leftarrow x + \left[f(x, t) - g(t)^2 s(x, t)\right] \Delta t + g(t) \sqrt{|\Delta t|}\; z

    The score is evaluated ``n_steps`` times, and once more to denoise.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``; exact, learned or guided.
        x: states at the first time, as a rule ``sde.sample_prior(...)``, shape ``(B, *event)``.
        n_steps: number of equal steps from 1 to ``t_min``.
        t_min: last time; below it the score of data on a manifold has no bound.
        times: a decreasing grid instead of ``n_steps`` and ``t_min``, such as ``sde.time_grid(50, spacing="karras")``.
        denoise: replace the last state by its posterior mean, which takes away the noise still left at the last time.
        constraint: callable ``(x, t) -> x`` applied after each update, at the time reached, and at time 0 after
            denoising.
        generator: source of the noise.
        trajectory: return all states.

    Returns:
        Samples, shape ``(B, *event)``, or the trajectory ``(n_steps + 1, B, *event)``, start included; the last state
        is the denoised one where ``denoise``.

    Raises:
        ValueError: if not exactly one of ``n_steps`` and ``times`` is given, ``times`` does not decrease, a time lies
            outside [0, 1], ``x`` is not finite, score or constraint returns another shape or no real numbers, or
            belongs to another SDE.
        RuntimeError: if a state is no longer finite; the message says at which time, and how many rows.

    Source: Song et al. (2021), section 4.1.
    """
    return predictor_corrector(
        sde,
        score,
        x,
        n_steps=n_steps,
        n_corrector_steps=0,
        t_min=t_min,
        times=times,
        denoise=denoise,
        constraint=constraint,
        generator=generator,
        trajectory=trajectory,
    )


@torch.no_grad()
def predictor_corrector(
    sde: SDE,
    score: Score,
    x: Tensor,
    *,
    n_steps: Integer | None = None,
    n_corrector_steps: Integer = 1,
    snr: Number = 0.16,
    t_min: Number = 1e-3,
    times: Tensor | None = None,
    denoise: bool = True,
    constraint: Score | None = None,
    generator: torch.Generator | None = None,
    trajectory: bool = False,
) -> Tensor:
    r"""Sample by the reverse SDE, each step followed by Langevin steps at the time reached.

    The corrector's step :math:`\epsilon = 2\,(\mathrm{snr}\;\sigma(t))^2` is the same for all samples,

    .. math:: x \leftarrow x + \epsilon\,s(x, t) + \sqrt{2 \epsilon}\;z .

    Where the score has its typical norm :math:`\|z\|/\sigma(t)`, the drift of such a step is ``snr`` times its noise,
    hence the name: a ratio of signal to noise. Measuring the norm over the batch would couple the samples, measuring it
    per sample blows up in low dimension, where a single norm is often small.

    The score is evaluated ``n_steps * (1 + n_corrector_steps)`` times, and once more to denoise.

    Args:
        sde: the forward SDE.
        score: callable ``(x, t) -> tensor like x``.
        x: states at the first time, shape ``(B, *event)``.
        n_steps: number of predictor steps.
        n_corrector_steps: Langevin steps after each of them; 0 is :func:`euler_maruyama`.
        snr: signal-to-noise ratio of a corrector step, positive.
        t_min: last time; see :func:`euler_maruyama` for this and the other arguments.
        times: a decreasing grid instead of ``n_steps`` and ``t_min``.
        denoise: replace the last state by its posterior mean.
        constraint: callable ``(x, t) -> x``, applied after each update of predictor and corrector.
        generator: source of the noise.
        trajectory: return the states after each predictor-corrector pair.

    Returns:
        Samples, shape ``(B, *event)``, or the trajectory ``(n_steps + 1, B, *event)``.

    Raises:
        ValueError: as :func:`euler_maruyama`; if ``snr`` is not positive or ``n_corrector_steps`` is negative.
        RuntimeError: as :func:`euler_maruyama`.

    Source: Song et al. (2021), algorithms 4 and 5, with :math:`\sigma(t)` for their ratio of norms.
    """
    same_sde("score", score, sde)
    same_sde("constraint", constraint, sde)
    positive("snr", snr)
    if n_corrector_steps != 0:
        positive_integer("n_corrector_steps", n_corrector_steps)
    batch("x", x)
    finite("x", x)
    times = levels("times", _reverse_times(sde, n_steps, t_min, times), x)

    # Between the evaluations the state is kept in single precision at least: in half, small steps would round to none.
    dtype, state = x.dtype, at_least_single(x)

    def normal() -> Tensor:
        return standard_normal(x.shape, generator=generator, dtype=state.dtype, device=x.device)

    def evaluate(at_t: Field, state: Tensor) -> Tensor:
        return same_shape("score", at_t(state.to(dtype)), state).to(state.dtype)

    def constrain(state: Tensor, t: Tensor) -> Tensor:
        if constraint is None:
            return state
        return same_shape("constraint", constraint(state.to(dtype), t), state).to(state.dtype)

    # What depends on time alone is computed once for all steps. The drift is linear in x: its rate is its value at 1.
    dts = times.diff()
    rates, diffusions = sde.drift(torch.ones_like(dts), times[:-1]), sde.diffusion(times[:-1])
    steps = zip(times[1:], dts, rates, diffusions**2, diffusions * dts.abs().sqrt(), strict=True)
    corrector_steps = 2 * (float(snr) * sde.sigma(times[1:])) ** 2
    corrections = list(zip(corrector_steps, torch.sqrt(2 * corrector_steps), strict=True))
    scores = on_grid(score, times if n_corrector_steps else times[:-1])

    states = [x]
    for k, (t_next, dt, rate, diffusion2, noise_std) in enumerate(steps):
        with one_read():
            state = state + (rate * state - diffusion2 * evaluate(scores[k], state)) * dt + noise_std * normal()
            state = constrain(state, t_next)
            for _ in range(n_corrector_steps):
                step, corrector_noise_std = corrections[k]
                state = state + step * evaluate(scores[k + 1], state) + corrector_noise_std * normal()
                state = constrain(state, t_next)
            still_finite("states", state.to(dtype), "t", t_next)
        if trajectory:
            states.append(state.to(dtype))
    if denoise:
        with one_read():
            state = constrain(sde.denoise(score, state.to(dtype), times[-1]), torch.zeros_like(times[-1]))
            still_finite("denoised states", state.to(dtype), "t", times[-1])
    states[-1] = state.to(dtype)
    return torch.stack(states) if trajectory else states[-1]


@torch.no_grad()
def _kernel(sde: SDE) -> _Kernel:
    """Signal and noise at some times, which are all that an SDE with a Gaussian kernel is."""
    times = [torch.tensor(t, dtype=torch.float64, device="cpu") for t in _PROBES]
    return [float(sde.alpha(t)) for t in times], [float(sde.sigma(t)) for t in times]


def _same_kernel(kernel: _Kernel, other: _Kernel) -> bool:
    pairs = zip([*kernel[0], *kernel[1]], [*other[0], *other[1]], strict=True)
    return all(math.isclose(a, b, rel_tol=_SAME_KERNEL) for a, b in pairs)


def _reverse_times(sde: SDE, n_steps: Integer | None, t_min: Number, times: Tensor | None) -> Tensor:
    if times is None and n_steps is not None:
        return sde.time_grid(n_steps, t_min=t_min, dtype=torch.float64)
    if times is None or n_steps is not None:
        raise ValueError(f"give exactly one of n_steps and times, got n_steps={n_steps!r}, times={times!r}")
    _check_monotone(times)
    if not times.is_meta and times[0] < times[-1]:
        raise ValueError(f"times must decrease, got {times[0]:g} to {times[-1]:g}")
    return times


def _check_grid(times: Tensor) -> None:
    floating("times", times)
    if times.ndim != 1:
        raise ValueError(f"times must have shape (n,), got {tuple(times.shape)}")


def _check_monotone(times: Tensor) -> None:
    if not isinstance(times, Tensor) or times.ndim != 1 or len(times) < 2:
        shape = tuple(times.shape) if isinstance(times, Tensor) else type(times).__name__
        raise ValueError(f"times must be a tensor of at least two times, got {shape}")
    if times.is_complex() or times.dtype == torch.bool:
        raise ValueError(f"times must be numbers, got {times.dtype}")
    finite("times", times)
    steps = times.diff()
    if not times.is_meta and not (bool((steps > 0).all()) or bool((steps < 0).all())):
        raise ValueError("times must increase or decrease throughout, got steps of both signs or of zero")
