"""What every public function takes, so that each can be handed what it should refuse; a module for each of the package.

``CALLS`` maps the name of a public function, class, method or property to a :class:`Call` that states each argument
which holds numbers; ``NO_DATA`` maps a name, or a class for all that it has, to the reason why it takes none. A new
public name needs a line in one of the two. What takes none is called too, in ``WITHOUT_DATA``, so that every function
can be tried in the situations of ``tests/programs.py``.
"""

import contextlib
import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

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
        accuracy: relative error that the result has by design, such as the tolerance of a solver.
        rejects: whether it goes on without a value that is not finite, by design.
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
        accuracy=0.0,
        rejects=False,
        **arguments,
    ):
        self.run, self.events, self.by_row, self.sampler, self.arguments = run, events, by_row, sampler, arguments
        self.unused, self.any_shape, self.own_dtype, self.dtype_of = unused, any_shape, own_dtype, dtype_of
        self.accuracy, self.rejects = accuracy, rejects


def batch(call, *, seed=0, n_rows=4, event=None):
    """Good arguments of a call, by name."""
    random, event = np.random.default_rng(seed), call.events[0] if event is None else event
    return {
        name: torch.as_tensor(kind.make(random, n_rows, event)).to(kind.dtype) if isinstance(kind, Data) else kind.value
        for name, kind in call.arguments.items()
    }


class SameDraws(TorchFunctionMode):
    """Gives a call the same normal and uniform numbers in every precision, and to the first rows of every batch.

    Args:
        coarse: a type that can hold the numbers.
    """

    def __init__(self, *, coarse=torch.float64):
        super().__init__()
        self.coarse, self.n_draws = coarse, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in (torch.randn, torch.rand):
            return func(*args, **kwargs)
        random = np.random.default_rng(self.n_draws)
        self.n_draws += 1
        shape = args[0] if len(args) == 1 else args
        numbers = random.standard_normal(shape) if func is torch.randn else random.random(shape)
        return torch.as_tensor(numbers).to(self.coarse).to(kwargs.get("dtype") or torch.get_default_dtype())


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


@contextlib.contextmanager
def outside():
    """Leave whatever situation the caller is in: what is made here was made before."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            torch.device("cpu"),
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.autocast("cpu", enabled=False),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)


def beforehand(make):
    """Make something :func:`outside` of the situation in which it is used, as a program makes its model."""

    @functools.wraps(make)
    def made(*args, **kwargs):
        with outside():
            return make(*args, **kwargs)

    return made


def given(function):
    """Mark a function that is handed to the package; the situations dress it as a module, or cut its graph."""
    function.given = True
    return function


def generator():
    """A source of randomness that gives the same numbers in each call."""
    return torch.Generator().manual_seed(0)


@given
def score(x, *noise_level):
    """A score that any sampler can follow."""
    return -2 * x


@given
def field(x):
    """A field that is no line and bounded nowhere, so that infinity shows."""
    return x - x**3 / 3


@given
def log_prob(x):
    """The log-density to which that score belongs."""
    return -x.flatten(1).square().sum(1) if x.ndim > 1 else -x.square()


WEIGHTS, MEANS, COVARIANCES = (
    [0.3, 0.7],
    [[-1.0, 0.5], [1.0, 0.0]],
    [[[1.0, 0.2], [0.2, 0.5]], [[0.3, 0.0], [0.0, 0.4]]],
)


@beforehand
def mixture():
    """A mixture of two Gaussians in the plane, with full covariances."""
    return GaussianMixture(WEIGHTS, MEANS, COVARIANCES)


@beforehand
def isotropic_mixture():
    """A mixture of two round Gaussians in the plane."""
    return GaussianMixture(WEIGHTS, MEANS, [0.5, 0.8])
