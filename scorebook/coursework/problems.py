"""What the checks share: problems drawn at random, on which no mistake hides, and answers refused on any problem."""

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
    "drift_rate",
    "is_standard",
    "random_mixture",
    "random_sde",
    "refuse_coupled_rows",
    "refuse_coupling",
    "refuse_other_times",
    "refuse_shared_noise",
    "rms",
    "seeded",
]

_DOUBLE = torch.float64


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


def refuse_coupling(student: Student, function: Callable[..., Any], x: Tensor, values: Tensor, limit: Number) -> None:
    """Refuse a function whose answer for a point changes with the other points of its batch."""
    few = max(1, len(x) // 4)
    for batch in (x[:few].clone(), torch.cat([x[:few], 3 * x[few:] + 1])):
        answer = student.call(function, batch)
        alone = student.tensor(answer, (len(batch), *values.shape[1:]), "the answer to another batch")[:few]
        if (alone - values[:few]).abs().max() > limit + 1e-9:
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


def refuse_shared_noise(z: Tensor) -> None:
    """Refuse noise, shape ``(B, d)``, that is the same in all rows or in all columns."""
    resolution = 1e-4 * z.abs().max()
    if bool((z - z[:1]).abs().max() < resolution):
        raise Refusal("all points of the batch get the same noise: draw it in the shape of x", "shared_noise")
    if bool((z - z[:, :1]).abs().max() < resolution):
        raise Refusal("all coordinates of a point get the same noise: draw it in the shape of x", "shared_noise")


def refuse_other_times(asked: Sequence[Any], t: Tensor, process: SDE) -> None:
    """Refuse a score that is asked at another time, where that can be told."""
    if not asked:
        return
    time = as_given(asked[0], _DOUBLE).flatten()
    if not torch.allclose(time, t):
        if torch.allclose(time, process.sigma(t)):
            raise Refusal("the score is asked at σ(t), where the time t is wanted", "noise_scale")
        if torch.allclose(time, 1 - t):
            raise Refusal("the score is asked at 1 − t, where the time t is wanted", "wrong_time")
