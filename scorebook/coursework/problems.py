"""What the checks share: problems drawn at random, on which no mistake hides, and answers refused on any problem."""

import functools
import itertools
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from scorebook.coursework.guard import Refusal, Student
from scorebook.lab.arguments import as_given, standard_normal, uniform
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.types import Integer, Number
from scorebook.sde import SDE, VPSDE, SubVPSDE

__all__ = [
    "child",
    "continued",
    "drift_rate",
    "is_standard",
    "random_mixture",
    "random_sde",
    "refuse_coupled_rows",
    "refuse_coupling",
    "refuse_dependent_noise",
    "refuse_loud_noise",
    "refuse_other_times",
    "rms",
    "seeded",
]

_DOUBLE = torch.float64
# Correlations of independent draws lie within this many standard errors of 0.
_SURE = 6.5
# Noise below this share of the size that it should have is none: rounding, in single precision.
_NO_NOISE = 1e-4
_FIXED_SEED = (
    "two calls with different seeds got the same noise: a seed is set inside your function, so draw from the generator "
    "that you are given"
)


def seeded(seed: Integer) -> torch.Generator:
    """A generator of its own for each check; raises a ``ValueError`` unless ``seed`` is an integer."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise ValueError(f"seed must be an integer, got {seed!r}")
    return torch.Generator().manual_seed(int(seed))


def child(generator: torch.Generator) -> torch.Generator:
    """Return a generator for the student, so that what they draw does not move the check's own draws."""
    return torch.Generator().manual_seed(_seed(generator))


def _seed(generator) -> int:
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))


def random_sde(generator: torch.Generator) -> SDE:
    """An SDE that shrinks its points as well as noising them: where it does not, mistakes about that would not show."""
    kind = (VPSDE, SubVPSDE)[int(torch.randint(2, (), generator=generator, device=generator.device))]
    low, high = uniform((2,), generator=generator, dtype=torch.float32).tolist()
    return kind(0.5 + low, 6 + 6 * high)


def random_mixture(d: int, generator: torch.Generator) -> GaussianMixture:
    """A mixture of three round Gaussians of random weights, means and variances, in ``d`` dimensions."""
    k = 3
    weights = 0.2 + uniform((k,), generator=generator, dtype=_DOUBLE)
    means = 1.5 * standard_normal((k, d), generator=generator, dtype=_DOUBLE)
    variances = 0.1 + uniform((k,), generator=generator, dtype=_DOUBLE)
    return GaussianMixture(weights / weights.sum(), means, variances)


def drift_rate(sde: SDE, t: Tensor) -> Tensor:
    """Rate at which an SDE's drift moves a point at 1, for times of shape ``(B,)``; it is linear in the point."""
    return sde.drift(torch.ones(len(t), 1, dtype=_DOUBLE, device=t.device), t).squeeze(1)


def rms(values: Tensor) -> float:
    """Root mean square."""
    return values.detach().square().mean().sqrt().item()


def is_standard(z: Tensor) -> bool:
    """Whether mean and standard deviation of numbers are those of the standard normal law, to five standard errors."""
    n = z.numel()
    return abs(z.mean().item()) < 5 * n**-0.5 and abs(z.std().item() - 1) < 5 * (2 * n) ** -0.5


def continued(process: SDE) -> SDE:
    """Let an SDE answer at any time, as mirrored in the ends of [0, 1]; it is changed in place and returned.

    An adaptive solver steps past the last time and interpolates back, which no student can know.
    """
    for name in ("alpha", "sigma", "diffusion", "beta", "integrated_beta"):
        if hasattr(process, name):
            setattr(process, name, functools.partial(_mirrored, getattr(process, name)))
    process.drift = functools.partial(_mirrored_field, process.drift)  # type: ignore[method-assign]
    return process


def _inside(t) -> Tensor:
    t = t if isinstance(t, Tensor) else torch.as_tensor(t, dtype=_DOUBLE, device="cpu")
    return ((t + 1).remainder(2) - 1).abs()


def _mirrored(of_time, t) -> Tensor:
    return of_time(_inside(t))


def _mirrored_field(field, x, t) -> Tensor:
    return field(x, _inside(t))


def refuse_coupling(student: Student, function: Callable[..., Any], x: Tensor, values: Tensor, limit: Number) -> None:
    """Refuse a function whose answer for a point changes from call to call, or with the other points of its batch."""
    again = student.tensor(student.call(function, x.clone()), values.shape, "the answer to a second call")
    if (again - values).abs().max() > limit + 1e-9:
        raise Refusal("your answer changes from call to call, on the same points: something in it is random", "random")
    few = max(1, len(x) // 4)
    first, last = slice(None, few), slice(-few, None)
    for batch, rows in (
        (x[:few].clone(), first),
        (torch.cat([x[:few], 3 * x[few:] + 1]), first),
        (torch.cat([3 * x[:-few] + 1, x[-few:]]), last),
    ):
        answer = student.call(function, batch)
        alone = student.tensor(answer, (len(batch), *values.shape[1:]), "the answer to another batch")[rows]
        if (alone - values[rows]).abs().max() > limit + 1e-9:
            raise Refusal(
                "your answer for a point depends on the other points of its batch: batch normalisation, or a sum, mean "
                "or norm taken over the batch axis",
                "coupled",
            )


def refuse_coupled_rows(
    run: Callable[[Tensor, torch.Generator], Tensor], x: Tensor, generator: torch.Generator
) -> None:
    """Refuse a sampler in which a row moves when others start elsewhere; ``run(x, generator)`` runs it."""
    half, seed = len(x) // 2, _seed(generator)
    state = torch.random.get_rng_state()

    def again(x):
        torch.random.set_rng_state(state)
        return run(x, torch.Generator().manual_seed(seed))[:half]

    first, repeated = again(x), again(x)
    moved = again(torch.cat([x[:half], 3 * x[half:]]))
    # Noise that follows neither the generator nor the global seed hides what others do.
    if torch.equal(first, repeated) and bool((first - moved).abs().max() > 1e-9 * x.abs().max()):
        raise Refusal(
            "a sample moves when others of its batch start elsewhere: a norm, mean or step size is taken over the "
            "batch; take it for each sample",
            "coupled",
        )


def refuse_dependent_noise(z: Tensor, again: Tensor | None = None, turned: Tensor | None = None) -> None:
    """Refuse noise that is not drawn anew for each call, each point and each coordinate.

    Args:
        z: the noise of one call, shape ``(B, d)``, in units of the size that it should have. Where it is far below
            that, there is none to be judged.
        again: the noise of a second call, with another seed; None where there was no second.
        turned: that of a third, of which the batch was turned round, in the order of the first; None where ``z`` is
            noise and nothing else. What more is in it comes again by right, and goes with its point, where noise of a
            fixed seed stays in its place.
    """
    if z.abs().max() < _NO_NOISE:
        return
    if bool(z.std(0).max() < _NO_NOISE * z.abs().max()):
        raise Refusal("all points of the batch get the same noise: draw it in the shape of x", "shared_noise")
    if z.shape[1] > 1 and bool(z.std(1).max() < _NO_NOISE * z.abs().max()):
        raise Refusal("all coordinates of a point get the same noise: draw it in the shape of x", "shared_noise")
    if again is not None and _is_of_fixed_seed(z, again, turned):
        raise Refusal(_FIXED_SEED, "fixed_seed")
    advice = "draw it in the shape of x, one number for each coordinate of each point"
    z = (z - z.mean(0)) / z.std(0)
    for i, j in itertools.combinations(range(z.shape[1]), 2):
        if _alike(z[:, i], z[:, j]):
            raise Refusal(f"coordinates {i} and {j} of a point get the same noise, or one moves the other: {advice}",
                          "shared_noise")  # fmt: skip
    n = len(z)
    for lag in sorted({1, 2, 4, 8, n // 4, n // 2, -(-n // 2)}):
        if _alike(z[lag:], z[:-lag]):
            raise Refusal(f"points 0 and {lag} of a batch get the same noise, or one moves the other, and so do all "
                          f"that lie {lag} apart: {advice}", "shared_noise")  # fmt: skip
    continuous = 2 < (z**4).mean() < 4  # numbers such as ±1 come again by right
    if continuous and _share_of_twins(z) > 0.5:
        raise Refusal(f"most numbers of the noise come more than once: {advice}", "shared_noise")


def _is_of_fixed_seed(z, again, turned) -> bool:
    if turned is None:
        return bool(torch.corrcoef(torch.stack([z.flatten(), again.flatten()]))[0, 1].abs() > 0.3)
    near = 1e-9 * z.abs().max()
    return bool((again - z).abs().max() <= near) and bool((turned - z).abs().max() > near)


def _alike(one, other) -> bool:
    """Whether two draws depend on each other, to first order or in size, as independent ones do not in a lifetime."""
    pairs = ((one.flatten(), other.flatten()), (one.flatten() ** 2, other.flatten() ** 2))
    limit = _SURE / one.numel() ** 0.5
    return any(bool(torch.corrcoef(torch.stack(pair))[0, 1].abs() > limit) for pair in pairs)


def _share_of_twins(z) -> float:
    """Share of numbers that come again, to a third of the mean gap between numbers, with whatever sign."""
    gaps = z.abs().flatten().sort().values.diff() < 0.3 * z.std() / z.numel()
    twin = torch.zeros(z.numel(), dtype=torch.bool, device=z.device)
    twin[1:] |= gaps
    twin[:-1] |= gaps
    return twin.double().mean().item()


def refuse_loud_noise(what: str, spread: Number, right: Number) -> None:
    """Refuse an estimate that scatters much more than the right one does at the same inputs."""
    if spread > 1.5 * right:
        raise Refusal(
            f"your {what} scatters by {spread:.3g} around its mean, the right one by {right:.3g} at most: whatever "
            "else is in it is noise that says nothing",
            "loud_noise",
        )


def _asked_elsewhere(asked: Sequence[Any], t: Tensor) -> Tensor | None:
    """The time farthest from ``t`` at which a score was asked, or None where it was always asked at ``t``."""
    times = [as_given(time, _DOUBLE).flatten() for time in asked]
    if not times:
        return None
    other = torch.cat(times)
    farthest = other[(other - t).abs().argmax()]
    return None if torch.isclose(farthest, t.to(_DOUBLE), rtol=1e-5, atol=1e-6) else farthest


def refuse_other_times(asked: Sequence[Any], t: Tensor, process: SDE, *, dt: Tensor | None = None) -> None:
    """Refuse a score that is asked at any other time than ``t``."""
    time = _asked_elsewhere(asked, t)
    if time is None:
        return
    known = [(process.sigma(t), "σ(t)", "noise_scale"), (1 - t, "1 − t", "wrong_time")]
    if dt is not None:
        known += [(t + dt, "t + dt", "time_reached"), (t + dt / 2, "t + dt/2", "wrong_time")]
    known += [(torch.zeros_like(t), "0", "wrong_time"), (t / 2, "t/2", "wrong_time"), (t**2, "t²", "wrong_time")]
    near = [(words, key) for value, words, key in known if torch.isclose(value.to(_DOUBLE), time, atol=1e-6)]
    words, key = near[0] if len(near) == 1 else ("another time", "wrong_time")
    raise Refusal(
        f"the score is asked at {words}, where the time t is wanted: at {time.item():.4g}, where t = {t.item():.4g} "
        f"would be right under {process!r}",
        key,
    )
