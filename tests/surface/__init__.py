"""What every public function takes, so that each can be handed what it should refuse; a module for each of the package.

``CALLS`` maps the name of a public function, class, method or property to a :class:`Call` that states each argument
which holds numbers; ``NO_DATA`` maps a name, or a class for all that it has, to the reason why it takes none. A new
public name needs a line in one of the two.
"""

from dataclasses import dataclass

import numpy as np
import torch

from scorebook.lab.distributions import GaussianMixture

# Shapes of one point: vectors, images, and points that are numbers.
EVENTS = ((2,), (3,), (1, 2, 3), ())
VECTORS = ((2,), (3,))
PLANE = ((2,),)
IMAGES = ((1, 4, 4), (3, 5, 4))


@dataclass(frozen=True)
class Data:
    """An argument that is a tensor, or may be one.

    Attributes:
        make: callable ``(random, n_rows, event) -> array``; ``random`` is a generator of NumPy.
        dtype: of the tensor.
        rows: whether the first axis runs over the points of a batch; otherwise it has nothing to do with them.
        values_matter: whether the result depends on the values at all, and not on the shape alone.
        name: under which a refusal names the argument, where that differs; several with ``|`` between them.
        means: numbers that are not finite and yet mean something here.
    """

    make: object
    dtype: torch.dtype = torch.float32
    rows: bool = True
    values_matter: bool = True
    name: str | None = None
    means: tuple = ()


@dataclass(frozen=True)
class Number:
    """An argument that is one number of Python."""

    value: float
    name: str | None = None


class Call:
    """How a public function is called.

    Args:
        run: callable that takes the arguments below by name and returns the result.
        events: shapes of a point among which to draw.
        by_row: whether each row of every tensor of the result belongs to the same row of the arguments. Such a function
            may hand NaN and infinity on, to that row alone.
        sampler: whether the result must not drag a graph behind it.
        unused: names of arguments on some of whose values the result does not depend.
        any_shape: whether it works number by number, one number alone included.
        own_dtype: whether the result has a precision of its own, whatever that of the arguments.
        dtype_of: the argument in whose precision the result is, by default ``x`` or else the first; ``"widest"`` for
            that of the most precise.
        arguments: :class:`Data` and :class:`Number` by name.
    """

    def __init__(
        self,
        run,
        *,
        events=EVENTS,
        by_row=False,
        sampler=False,
        unused=(),
        any_shape=False,
        own_dtype=False,
        dtype_of=None,
        **arguments,
    ):
        self.run, self.events, self.by_row, self.sampler, self.arguments = run, events, by_row, sampler, arguments
        self.unused, self.any_shape, self.own_dtype, self.dtype_of = unused, any_shape, own_dtype, dtype_of


def points(**options):
    """Points of a batch, shape ``(B, *event)``."""
    return Data(lambda random, n, event: random.standard_normal((n, *event)), **options)


def per_row(low, high, **options):
    """A number for each point of a batch, or one for all."""
    return Data(lambda random, n, event: random.uniform(low, high, n), **options)


def constant(values, **options):
    """A tensor whose shape has nothing to do with the batch."""
    return Data(lambda random, n, event: np.array(values), rows=False, **options)


def labels(n_classes=3, **options):
    """A class for each point of a batch."""
    return Data(lambda random, n, event: random.integers(0, n_classes, n), dtype=torch.int64, **options)


def like(thing, x):
    """A network or a tensor in the precision of ``x``, or as it is where ``x`` has none that it can take."""
    return thing.to(x.dtype) if getattr(x, "dtype", None) in (torch.float32, torch.float64) else thing


def generator():
    """A source of randomness that gives the same numbers in each call."""
    return torch.Generator().manual_seed(0)


def score(x, *noise_level):
    """A score that any sampler can follow."""
    return -2 * x


def field(x):
    """A field that is no line and bounded nowhere, so that infinity shows."""
    return x - x**3 / 3


def log_prob(x):
    """The log-density to which that score belongs."""
    return -x.flatten(1).square().sum(1) if x.ndim > 1 else -x.square()


WEIGHTS, MEANS, COVARIANCES = (
    [0.3, 0.7],
    [[-1.0, 0.5], [1.0, 0.0]],
    [[[1.0, 0.2], [0.2, 0.5]], [[0.3, 0.0], [0.0, 0.4]]],
)


def mixture():
    """A mixture of two Gaussians in the plane, with full covariances."""
    return GaussianMixture(WEIGHTS, MEANS, COVARIANCES)


def isotropic_mixture():
    """A mixture of two round Gaussians in the plane."""
    return GaussianMixture(WEIGHTS, MEANS, [0.5, 0.8])
