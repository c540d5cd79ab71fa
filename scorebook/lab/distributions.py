r"""Gaussian mixtures: laws whose density, score, noised form and posterior are all known exactly.

.. math:: p(x) = \sum_k w_k\, \mathcal N(x; \mu_k, C_k)

Three facts make them the yardstick of this book. The score is an average of linear fields, weighted by the
probability :math:`r_k(x)` that component :math:`k` produced :math:`x`:

.. math:: \nabla_x \log p(x) = \sum_k r_k(x)\, C_k^{-1}(\mu_k - x)

Noise keeps a mixture a mixture: :math:`\alpha x_0 + \sigma z` has means :math:`\alpha\mu_k` and covariances
:math:`\alpha^2 C_k + \sigma^2 I`. And a linear observation :math:`y = A x + \text{noise}` leaves a mixture as
the posterior.

Each covariance is decomposed once, :math:`C_k = Q_k \Lambda_k Q_k^\top`. Noise moves the eigenvalues and
leaves the eigenvectors alone, so every noise level costs the same few products and no new factorisation.
"""

import copy
import math
from abc import ABC
from collections.abc import Callable
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from scorebook.lab.arguments import (
    as_given,
    expand,
    finite,
    floating,
    non_negative,
    positive,
    positive_integer,
    real,
    require,
    standard_normal,
    uniform,
)
from scorebook.lab.types import Array, Integer, Number, PerRow

__all__ = ["GaussianMixture", "RowwiseMixture"]

# Above this many entries of a (B, K, d) tensor of differences, squared distances come from matrix products.
_LARGEST_DIFFERENCE = 2**16
# Rows of eigenvectors gathered at once when sampling: bounds memory at n * d * d for large n.
_LARGEST_GATHER = 2**24


class _Mixture(ABC):
    """What one mixture and a mixture per row share: the evaluation at points."""

    weights: Tensor
    means: Tensor
    _log_weights: Tensor
    _axes: Tensor | None  # (d, K * d), the eigenvectors of all components side by side; None if isotropic
    _projected_means: Tensor  # (K, d), Q_k^T mu_k
    _variances: Tensor  # eigenvalues, (K, d, 1), or (K, 1) if isotropic; one law per row: B in place of 1
    _alpha: Tensor | None  # None, or one value per row
    _singular: bool

    @property
    def dim(self) -> int:
        """Number of dimensions, ``d``."""
        return self.means.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return self.means.dtype

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.means.device

    def log_prob(self, x: Tensor) -> Tensor:
        r"""Log-density in nats, shape ``(B,)``, at points of shape ``(B, d)``.

        Differentiable in ``x``.

        Raises:
            ValueError: if ``x`` has another shape, is not floating or lives on another device, or if the law
                has no density.
        """
        log_joint, _ = self._evaluate(x)
        return log_joint.logsumexp(0).to(x.dtype)

    def responsibilities(self, x: Tensor) -> Tensor:
        r"""Probability of each component given the point, :math:`r_k(x) = p(k \mid x)`.

        Args:
            x: points, shape ``(B, d)``.

        Returns:
            Probabilities, shape ``(B, K)``; each row sums to one.

        Raises:
            ValueError: as in :meth:`log_prob`.
        """
        log_joint, _ = self._evaluate(x)
        return log_joint.softmax(0).mT.to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        r"""Score in closed form, no autograd involved.

        .. math:: s(x) = \sum_k r_k(x)\, C_k^{-1}(\mu_k - x)

        Args:
            x: points, shape ``(B, d)``.

        Returns:
            Scores, shape ``(B, d)``.

        Raises:
            ValueError: as in :meth:`log_prob`.
        """
        log_joint, pull = self._evaluate(x)
        return pull(log_joint.softmax(0)).mT.to(x.dtype).contiguous()

    # The batch comes last inside: sums then run over the few components and dimensions of long, contiguous rows,
    # several times faster than sums over a last axis of two or three.

    def _evaluate(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return ``log w_k N(x; mu_k, C_k)``, ``(K, B)``, and the map from responsibilities to the score ``(d, B)``."""
        self._check(x)
        x = x.to(torch.promote_types(x.dtype, self.dtype)).mT
        if self._axes is not None:
            squared, log_det, pull = self._along_axes(x, self._axes)
        elif x.device.type == "mps" or x.numel() * len(self.means) <= _LARGEST_DIFFERENCE:
            squared, log_det, pull = self._by_differences(x)
        else:
            squared, log_det, pull = self._by_products(x)
        log_weights = self._log_weights - 0.5 * self.dim * math.log(2 * math.pi)
        return log_weights.unsqueeze(-1) - 0.5 * (log_det + squared), pull

    def _along_axes(self, x: Tensor, axes: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        axes, variances = axes.to(x.dtype), self._variances
        offsets = (axes.mT @ x).unflatten(0, self._projected_means.shape) - self._scaled(self._projected_means)
        scaled = offsets / variances

        def pull(responsibilities: Tensor) -> Tensor:
            return -(axes @ (responsibilities.unsqueeze(1) * scaled).flatten(0, 1))

        return (offsets * scaled).sum(1), variances.log().sum(1), pull

    def _by_differences(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        variances = self._variances
        offsets = x - self._scaled(self.means)
        squared = offsets.square().sum(1) / variances

        def pull(responsibilities: Tensor) -> Tensor:
            return -((responsibilities / variances).unsqueeze(1) * offsets).sum(0)

        return squared, self.dim * variances.log(), pull

    def _by_products(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        # |x - m|^2 = |x|^2 - 2 x.m + |m|^2 cancels at small noise, so it is taken in double precision.
        dtype, x, means, variances = x.dtype, x.double(), self.means.double(), self._variances
        alpha = 1.0 if self._alpha is None else self._alpha.double()
        products, lengths = means @ (alpha * x), alpha**2 * means.square().sum(-1, keepdim=True)
        squared = (x.square().sum(0) - 2 * products + lengths).to(dtype)

        def pull(responsibilities: Tensor) -> Tensor:
            pulls = (responsibilities / variances).double()
            return (alpha * (means.mT @ pulls) - pulls.sum(0) * x).to(dtype)

        return squared / variances, self.dim * variances.log(), pull

    def _scaled(self, means: Tensor) -> Tensor:
        means = means.unsqueeze(-1)
        return means if self._alpha is None else means * self._alpha

    def _check(self, x: Tensor) -> None:
        floating("x", x)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must have shape (B, {self.dim}), got {tuple(x.shape)}")
        if self._alpha is not None and len(self._alpha) not in (1, len(x)):
            raise ValueError(f"x must have {len(self._alpha)} rows, one for each alpha and sigma, got {len(x)} rows")
        if x.device != self.device:
            raise ValueError(f"x is on {x.device} and the mixture on {self.device}; move one with .to(...)")
        if self._singular:
            raise ValueError(
                "this law has no density: it was conditioned on an observation without noise, so it lies on a "
                "subspace; call .diffuse(alpha, sigma) with sigma > 0 first, or condition with noise_std > 0"
            )


class GaussianMixture(_Mixture):
    r"""A mixture of Gaussians, :math:`p(x) = \sum_k w_k \mathcal N(x; \mu_k, C_k)`.

    Args:
        weights: shape ``(K,)``, non-negative, with sum one (small rounding is divided out).
        means: shape ``(K, d)``. Type and device of the mixture are those of ``means`` (a list becomes a
            tensor of the default type).
        covariances: full, shape ``(K, d, d)``; or isotropic variances, shape ``(K,)``; or one variance for
            all, a number. Isotropic mixtures form no matrices: a data set of a thousand images as centres is
            quick.

    Attributes:
        weights: shape ``(K,)``.
        means: shape ``(K, d)``.
        covariances: shape ``(K, d, d)`` or ``(K,)``, as given.

    The densities are differentiable in ``x``, in the weights, means and isotropic variances; gradients with
    respect to full covariances go through an eigendecomposition and are undefined where eigenvalues repeat.

    Raises:
        ValueError: if shapes disagree, a value is not finite, a weight is negative, the weights do not sum to
            one, or a covariance is not symmetric positive definite.

    Example:
        >>> two_modes = GaussianMixture([0.2, 0.8], [[-5.0, -5.0], [5.0, 5.0]], 1.0)
        >>> two_modes.score(torch.zeros(1, 2)).shape
        torch.Size([1, 2])
    """

    def __init__(self, weights: Array, means: Array, covariances: Array | Number):
        listed = not isinstance(means, (Tensor, np.ndarray))
        means = torch.as_tensor(means) if listed else as_given(means)
        if not means.is_complex() and (listed or not means.is_floating_point()):
            means = means.to(torch.get_default_dtype())
        if means.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"means must be of type float32 or float64, got {means.dtype}")
        if means.ndim != 2 or means.numel() == 0:
            raise ValueError(
                f"means must have shape (K, d), one row per component, none empty, got {tuple(means.shape)}"
            )
        finite("means", means)
        weights, covariances = _like("weights", weights, means), _like("covariances", covariances, means)
        _check_weights(weights, len(means))
        if covariances.ndim == 0:
            covariances = covariances.expand(len(means))
        if covariances.ndim == 1:
            _check_shape("covariances", covariances, (len(means),))
            positive("covariances", covariances)
            spectrum, vectors = covariances, None
        else:
            _check_covariances(covariances, means)
            spectrum, vectors = _decompose(covariances)
            if not covariances.is_meta:
                _check_definite(spectrum, covariances)
        self._set(weights, means, covariances, spectrum, vectors)

    def _set(
        self,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        spectrum: Tensor,
        vectors: Tensor | None,
        *,
        singular: bool = False,
    ) -> None:
        self.weights, self.means, self.covariances = weights, means, covariances
        self._log_weights = weights.log() - weights.sum().log()
        self._spectrum, self._variances, self._vectors = spectrum, spectrum.unsqueeze(-1), vectors
        self._singular, self._alpha = singular, None
        if vectors is None:
            self._axes, self._projected_means = None, means
        else:
            self._axes = vectors.permute(1, 0, 2).flatten(1)
            self._projected_means = (means.unsqueeze(-2) @ vectors).squeeze(-2)

    @classmethod
    def _assemble(cls, *parts: Any, singular: bool = False) -> "GaussianMixture":
        """Build from parts known to be right, with no check and no decomposition."""
        mixture = cls.__new__(cls)
        mixture._set(*parts, singular=singular)
        return mixture

    def __repr__(self) -> str:
        kind = "isotropic" if self._vectors is None else "full"
        place = f"{self.dtype}, {self.device}".removeprefix("torch.")
        return f"GaussianMixture({len(self.means)} {kind} components in {self.dim} dimensions, {place})"

    @property
    def mean(self) -> Tensor:
        """Mean of the whole mixture, shape ``(d,)``."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """Covariance of the whole mixture, shape ``(d, d)``: within components plus between them."""
        centred = self.means - self.mean
        between = (self.weights.unsqueeze(-1) * centred).mT @ centred
        if self._vectors is None:
            identity = torch.eye(self.dim, dtype=self.dtype, device=self.device)
            return between + (self.weights @ self.covariances) * identity
        return between + (self.weights[:, None, None] * self.covariances).sum(0)

    def to(self, *args: Any, **kwargs: Any) -> "GaussianMixture":
        """Move to another device or type, with the arguments of ``torch.Tensor.to``.

        A mixture made in float32 and moved to float64 keeps its float32 accuracy: make it in float64 if you
        need that.
        """
        means = self.means.to(*args, **kwargs)
        return self._assemble(
            self.weights.to(means),
            means,
            self.covariances.to(means),
            self._spectrum.to(means),
            None if self._vectors is None else self._vectors.to(means),
            singular=self._singular,
        )

    @overload
    def sample(
        self, n: Integer, *, generator: torch.Generator | None = ..., labels: Literal[False] = ...
    ) -> Tensor: ...
    @overload
    def sample(
        self, n: Integer, *, generator: torch.Generator | None = ..., labels: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def sample(
        self, n: Integer, *, generator: torch.Generator | None = ..., labels: bool
    ) -> Tensor | tuple[Tensor, Tensor]: ...
    @torch.no_grad()
    def sample(
        self, n: Integer, *, generator: torch.Generator | None = None, labels: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        r"""Draw ``n`` independent points.

        Args:
            n: number of points.
            generator: source of randomness; it may live on the CPU whatever the device of the mixture.
            labels: also return which component each point came from.

        Returns:
            Points, shape ``(n, d)``; with ``labels=True`` the pair of points and components, ``(n,)`` int64.

        Raises:
            ValueError: if ``n`` is not a positive integer.
        """
        n = positive_integer("n", n)
        cumulative = self.weights.cumsum(0)
        # Divided by its own last entry, the cumulative sum ends at exactly one, which no uniform number reaches.
        u = uniform((n,), generator=generator, dtype=self.dtype, device=self.device)
        component = torch.searchsorted(cumulative / cumulative[-1], u, right=True)
        noise = standard_normal((n, self.dim), generator=generator, dtype=self.dtype, device=self.device)
        if self._vectors is None:
            noise = noise * self._spectrum[component].sqrt().unsqueeze(-1)
        else:
            noise = noise * self._spectrum[component].sqrt()
            size = max(1, _LARGEST_GATHER // self.dim**2)
            chunks = zip(component.split(size), noise.split(size), strict=True)
            noise = torch.cat([(self._vectors[k] @ z.unsqueeze(-1)).squeeze(-1) for k, z in chunks])
        x = self.means[component] + noise
        return (x, component) if labels else x

    @overload
    def diffuse(self, alpha: Number, sigma: Number) -> "GaussianMixture": ...
    @overload
    def diffuse(self, alpha: PerRow, sigma: PerRow) -> "GaussianMixture | RowwiseMixture": ...
    def diffuse(self, alpha: PerRow, sigma: PerRow) -> "GaussianMixture | RowwiseMixture":
        r"""Law of :math:`\alpha x_0 + \sigma z`, with :math:`x_0` from this mixture and :math:`z` normal.

        .. math:: \sum_k w_k\, \mathcal N(\alpha \mu_k,\; \alpha^2 C_k + \sigma^2 I)

        Args:
            alpha: factor of the signal, scalar or shape ``(B,)``.
            sigma: standard deviation of the noise in the units of ``x``, scalar or shape ``(B,)``.

        Returns:
            A :class:`GaussianMixture` for two scalars; otherwise a :class:`RowwiseMixture`, which evaluates
            row ``b`` of ``x`` under ``alpha[b]`` and ``sigma[b]``.

        Raises:
            ValueError: if a value is not finite, ``sigma`` is negative, both are zero at once, or a shape is
                neither scalar nor ``(B,)``.
        """
        alpha, sigma = self._noise_level("alpha", alpha), self._noise_level("sigma", sigma)
        finite("alpha", alpha)
        non_negative("sigma", sigma)
        if alpha.ndim and sigma.ndim and 1 not in (len(alpha), len(sigma)) and len(alpha) != len(sigma):
            raise ValueError(
                f"alpha and sigma must have as many entries, got shapes {tuple(alpha.shape)} and {tuple(sigma.shape)}"
            )
        require(
            ((alpha != 0) | (sigma != 0)).all(),
            lambda: ValueError("alpha and sigma must not both be zero: a point mass has no density"),
        )
        singular = self._singular and not sigma.is_meta and bool((sigma == 0).any())
        if alpha.ndim or sigma.ndim:
            return RowwiseMixture(self, alpha, sigma, singular=singular)
        signal, noise = alpha**2, sigma**2
        law = copy.copy(self)
        law.means, law._spectrum, law._singular = alpha * self.means, signal * self._spectrum + noise, singular
        law._variances, law._projected_means = law._spectrum.unsqueeze(-1), alpha * self._projected_means
        if self._vectors is None:
            law.covariances = law._spectrum
        else:
            identity = torch.eye(self.dim, dtype=self.dtype, device=self.device)
            law.covariances = signal * self.covariances + noise * identity
        return law

    def condition(self, A: Array, y: Array, noise_std: Number | Tensor) -> "GaussianMixture":
        r"""Exact posterior of ``x`` given :math:`y = A x + \varsigma z`.

        .. math::
            S_k = A C_k A^\top + \varsigma^2 I, \qquad
            w'_k \propto w_k\, \mathcal N(y; A\mu_k, S_k), \\
            \mu'_k = \mu_k + C_k A^\top S_k^{-1} (y - A\mu_k), \qquad
            C'_k = C_k - C_k A^\top S_k^{-1} A C_k

        Args:
            A: matrix, shape ``(m, d)``.
            y: one observation, shape ``(m,)``.
            noise_std: standard deviation of the observation noise, a number in the units of ``y``. Zero is
                allowed if ``A`` has full row rank; the posterior then lies on a subspace: it can be sampled,
                has mean and covariance and can be diffused, and only ``log_prob``, ``score`` and
                ``responsibilities`` are refused until it is.

        Returns:
            The posterior, with full covariances. It is computed in double precision (on the CPU where the
            device has none), then given in the type of this mixture.

        Raises:
            ValueError: if shapes disagree, a value is not finite, ``noise_std`` is negative, or it is zero and
                ``A`` lacks full row rank or this law already lies on a subspace.

        Source: Bishop (2006), eq. 2.113-2.117, one component at a time.
        """
        A, y = _like("A", A, self.means), _like("y", y, self.means)
        if A.ndim != 2 or A.shape[1] != self.dim or A.numel() == 0:
            raise ValueError(f"A must have shape (m, {self.dim}) with m at least 1, got {tuple(A.shape)}")
        _check_shape("y", y, (len(A),))
        finite("A", A)
        finite("y", y)
        if isinstance(noise_std, Tensor):
            _check_shape("noise_std", noise_std, ())
        non_negative("noise_std", noise_std)
        noise_std = float(noise_std.detach() if isinstance(noise_std, Tensor) else noise_std)
        exact = noise_std == 0
        self._check_observation(A, exact)

        A, y, means, spectrum = (_double(v) for v in (A, y, self.means, self._spectrum))
        # With C = L L^T and A L = U diag(s) V^T, everything is diagonal in the directions of U and V. Working
        # on L rather than C halves the digits that a small noise_std costs.
        if self._vectors is None:
            rotation, stretch, directions = torch.linalg.svd(A)
            stretch = spectrum.sqrt().unsqueeze(-1) * stretch
            root = spectrum.sqrt()[:, None, None] * directions.mT
        else:
            root = _double(self._vectors) * spectrum.sqrt().unsqueeze(-2)
            rotation, stretch, directions = torch.linalg.svd(A @ root)
            root = root @ directions.mT
        padded = pad(stretch, (0, len(A) - stretch.shape[-1]))
        spread = padded**2 + noise_std**2
        residual = ((y - means @ A.mT).unsqueeze(-2) @ rotation).squeeze(-2)
        evidence = -0.5 * (residual**2 / spread + spread.log()).sum(-1)
        weights = (_double(self._log_weights) + evidence).softmax(-1)

        gain = (padded / spread * residual)[:, : stretch.shape[-1]]
        gain, stretch = (pad(v, (0, self.dim - v.shape[-1])) for v in (gain, stretch))
        means = means + (root @ gain.unsqueeze(-1)).squeeze(-1)
        noise = torch.full_like(stretch, noise_std)
        shrink = torch.where(stretch == 0, 1, noise / torch.hypot(stretch, noise))
        if self._vectors is None:
            vectors = directions.mT.expand(len(means), -1, -1)
            spectrum = spectrum.unsqueeze(-1) * shrink**2
        else:
            vectors, deviations, _ = torch.linalg.svd(root * shrink.unsqueeze(-2))
            spectrum = deviations**2
        covariances = (vectors * spectrum.unsqueeze(-2)) @ vectors.mT
        parts = (weights, means, covariances, spectrum, vectors)
        singular = exact or self._singular
        return self._assemble(*(v.to(self.device).to(self.dtype) for v in parts), singular=singular)

    def _check_observation(self, A: Tensor, exact: bool) -> None:
        if not exact or A.is_meta:
            return
        if self._singular:
            raise ValueError(
                "noise_std must be positive here: this law already lies on a subspace; "
                "stack both observations into one A and y instead"
            )
        rank = int(torch.linalg.matrix_rank(_double(A)))
        if rank < len(A):
            raise ValueError(
                f"A must have full row rank when noise_std is 0, got rank {rank} with {len(A)} rows; "
                "drop the dependent rows or give a positive noise_std"
            )

    def _noise_level(self, name: str, value: PerRow) -> Tensor:
        level = _like(name, value, self.means)
        if level.ndim > 1 or level.numel() == 0:
            raise ValueError(f"{name} must be a scalar or have shape (B,), got {tuple(level.shape)}")
        return level


class RowwiseMixture(_Mixture):
    r"""The laws of :math:`\alpha_b x_0 + \sigma_b z`, one for each row ``b``.

    Made by :meth:`GaussianMixture.diffuse` when ``alpha`` or ``sigma`` has shape ``(B,)``. ``log_prob``,
    ``score`` and ``responsibilities`` take ``x`` of shape ``(B, d)`` and evaluate row ``b`` under law ``b``.

    Attributes:
        base: the mixture of :math:`x_0`.
        alpha: shape ``(B,)``.
        sigma: shape ``(B,)``.
    """

    def __init__(self, base: GaussianMixture, alpha: Tensor, sigma: Tensor, *, singular: bool = False):
        alpha, sigma = torch.broadcast_tensors(alpha, sigma)
        self.base, self.alpha, self.sigma = base, alpha, sigma
        self.weights, self.means = base.weights, base.means
        self._log_weights, self._axes, self._singular = base._log_weights, base._axes, singular
        self._projected_means, self._alpha = base._projected_means, alpha
        self._variances = alpha**2 * base._variances + sigma**2

    def __repr__(self) -> str:
        return f"RowwiseMixture({len(self.alpha)} noise levels of {self.base!r})"

    @property
    def mean(self) -> Tensor:
        """Mean of each law, shape ``(B, d)``."""
        return self.alpha.unsqueeze(-1) * self.base.mean

    @property
    def covariance(self) -> Tensor:
        """Covariance of each law, shape ``(B, d, d)``."""
        identity = torch.eye(self.dim, dtype=self.dtype, device=self.device)
        signal, noise = self.alpha[:, None, None] ** 2, self.sigma[:, None, None] ** 2
        return signal * self.base.covariance + noise * identity

    def to(self, *args: Any, **kwargs: Any) -> "RowwiseMixture":
        """Move to another device or type, with the arguments of ``torch.Tensor.to``."""
        base = self.base.to(*args, **kwargs)
        return RowwiseMixture(base, self.alpha.to(base.means), self.sigma.to(base.means), singular=self._singular)

    @overload
    def sample(
        self, n: Integer, *, generator: torch.Generator | None = ..., labels: Literal[False] = ...
    ) -> Tensor: ...
    @overload
    def sample(
        self, n: Integer, *, generator: torch.Generator | None = ..., labels: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...
    @overload
    def sample(
        self, n: Integer, *, generator: torch.Generator | None = ..., labels: bool
    ) -> Tensor | tuple[Tensor, Tensor]: ...
    @torch.no_grad()
    def sample(
        self, n: Integer, *, generator: torch.Generator | None = None, labels: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Draw one point from each law; ``n`` must be the number of laws (any ``n`` if there is one).

        Returns:
            Points, shape ``(n, d)``; with ``labels=True`` the pair of points and components, ``(n,)`` int64.

        Raises:
            ValueError: if ``n`` is not the number of laws.
        """
        x, component = self.base.sample(n, generator=generator, labels=True)
        if len(self.alpha) not in (1, n):
            raise ValueError(f"n must be {len(self.alpha)}, one point for each alpha and sigma, got {n}")
        noise = standard_normal(x.shape, generator=generator, dtype=self.dtype, device=self.device)
        x = expand(self.alpha, x) * x + expand(self.sigma, x) * noise
        return (x, component) if labels else x

    def diffuse(self, alpha: PerRow, sigma: PerRow) -> "GaussianMixture | RowwiseMixture":
        r"""Law of :math:`\alpha x + \sigma z` for ``x`` from these laws, as :meth:`GaussianMixture.diffuse`.

        Raises:
            ValueError: as there.
        """
        alpha, sigma = self.base._noise_level("alpha", alpha), self.base._noise_level("sigma", sigma)
        non_negative("sigma", sigma)
        for name, value in (("alpha", alpha), ("sigma", sigma)):
            if value.ndim and 1 not in (len(value), len(self.alpha)) and len(value) != len(self.alpha):
                raise ValueError(f"{name} must have {len(self.alpha)} entries, one for each law, got {len(value)}")
        return self.base.diffuse(alpha * self.alpha, (alpha**2 * self.sigma**2 + sigma**2).sqrt())


def _like(name: str, value: Array | Number, means: Tensor) -> Tensor:
    """Return real numbers in the type and on the device of the means."""
    real(name, value)
    return torch.as_tensor(value, dtype=means.dtype, device=means.device)


def _check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")


def _check_weights(weights: Tensor, n_components: int) -> None:
    _check_shape("weights", weights, (n_components,))
    non_negative("weights", weights)
    # Weights that were rounded to float32 on their way must pass in float64 too.
    tolerance = max(torch.finfo(weights.dtype).eps ** 0.5, 1e-6)
    total = weights.detach().sum()
    if not weights.is_meta and abs(float(total) - 1) > tolerance:
        raise ValueError(f"weights must sum to one within {tolerance:.0e}, got {float(total):.7g}")


def _check_covariances(covariances: Tensor, means: Tensor) -> None:
    n_components, dim = means.shape
    if covariances.shape != (n_components, dim, dim):
        raise ValueError(
            f"covariances must have shape ({n_components}, {dim}, {dim}), or ({n_components},) for isotropic "
            f"variances, or be one variance, got {tuple(covariances.shape)}"
        )
    finite("covariances", covariances)
    if covariances.is_meta:
        return
    asymmetry = (covariances - covariances.mT).abs().amax((-2, -1))
    tolerance = 100 * dim * torch.finfo(covariances.dtype).eps * covariances.abs().amax((-2, -1))
    for k in (asymmetry > tolerance).nonzero().flatten().tolist():
        raise ValueError(
            f"covariances[{k}] must be symmetric positive definite, got one that differs from its transpose "
            f"by {float(asymmetry[k]):.3g}"
        )


def _check_definite(spectrum: Tensor, covariances: Tensor) -> None:
    """Refuse a covariance whose smallest eigenvalue is not above the rounding error of its largest."""
    eps = torch.finfo(covariances.dtype).eps
    floor = spectrum.shape[-1] * eps * spectrum[:, -1].abs()
    for k in (spectrum[:, 0] <= floor).nonzero().flatten().tolist():
        raise ValueError(
            f"covariances[{k}] must be symmetric positive definite, got one with eigenvalues between "
            f"{float(spectrum[k, 0]):.3g} and {float(spectrum[k, -1]):.3g}"
        )


def _double(value: Tensor) -> Tensor:
    """Return ``value`` in double precision, on the CPU where its device has none."""
    return value.cpu().double() if value.device.type == "mps" else value.double()


def _decompose(covariances: Tensor) -> tuple[Tensor, Tensor]:
    spectrum, vectors = torch.linalg.eigh(_double((covariances + covariances.mT) / 2))
    return spectrum.to(covariances), vectors.to(covariances)
