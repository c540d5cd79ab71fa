"""The calls of ``tests/surface`` in programs that somebody else wrote: what the tests and their subprocesses share.

``python tests/programs.py FILE`` calls everything and writes what came to a file: the test starts it with ``-OO``
and ``-W error``. So there is no ``assert`` here.
"""

import contextlib
import functools
import importlib
import inspect
import io
import pickle
import pkgutil
import sys
import traceback
import warnings
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from unittest import mock

import numpy as np
import public
import surface
import torch
from matplotlib import pyplot as plt

import scorebook
from scorebook.sde import ScoreModel

MODULES = {name: importlib.import_module(f"surface.{name}") for _, name, _ in pkgutil.iter_modules(surface.__path__)}
ROWS = {
    f"{module}.{name}": call
    for module, calls in MODULES.items()
    for kind in ("CALLS", "WITHOUT_DATA")
    for name, call in getattr(calls, kind, {}).items()
}
# What runs longer than that has lost its guard.
MANY_CALLS = 10_000

_PACKAGE = str(Path(scorebook.__file__).parent)


@dataclass(frozen=True)
class Refused:
    """An error, in a form that travels between processes.

    Attributes:
        kind: name of its class.
        text: what it says, notes included.
        ours: whether this package raised it, and not something deeper.
    """

    kind: str
    text: str
    ours: bool


def outcome(call, arguments, *, result=lambda result: result):
    """What a call gives: its :func:`parts`, without their graph, or how it was :class:`Refused`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", ".* proposals were refused because log_prob")  # it names the cause itself
            warnings.filterwarnings("ignore", "Deprecated in traitlets 4.1, use the instance .metadata")  # ipywidgets 7
            return [
                part.detach() if isinstance(part, torch.Tensor) else part
                for part in parts(result(call.run(**arguments)))
            ]
    except Exception as error:
        text = "\n".join([str(error), *getattr(error, "__notes__", [])])
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        return Refused(type(error).__name__, text, place.startswith(_PACKAGE))


def parts(thing, seen=None):
    """All tensors, numbers and words in a result, whatever holds them."""
    seen = set() if seen is None else seen
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, np.ndarray):
        yield torch.as_tensor(thing, device="cpu")
    elif isinstance(thing, float | np.floating):
        yield torch.tensor(float(thing), dtype=torch.float64, device="cpu")
    elif isinstance(thing, bool | np.bool_) or thing is None:
        yield str(thing)
    elif isinstance(thing, Integral):
        yield str(int(thing))
    elif isinstance(thing, str | torch.dtype | torch.device):
        yield str(thing)
    elif id(thing) not in seen:
        seen.add(id(thing))
        if isinstance(thing, torch.nn.Module):
            inside = thing.state_dict().values()
        elif isinstance(thing, dict):
            inside = thing.values()
        elif isinstance(thing, list | tuple | set):
            inside = thing
        elif type(thing).__module__.startswith("scorebook"):
            inside = vars(thing).values()
        else:
            inside = ()
        for part in inside:
            yield from parts(part, seen)


# What is handed to the package in another guise


@contextlib.contextmanager
def dressed(guise):
    """Hand the functions of ``surface.given`` to the package as what ``guise`` makes of them; yield those it made."""
    with contextlib.ExitStack() as patches:
        made = {}
        for calls in MODULES.values():
            for name, thing in list(vars(calls).items()):
                if getattr(thing, "given", False):
                    made[thing] = made[thing] if thing in made else guise(thing)
                    patches.enter_context(mock.patch.object(calls, name, made[thing]))
        yield list(made.values())


class Turning:
    """A function whose first row turns NaN after its first call."""

    def __init__(self, function):
        self.function, self.n_calls = function, 0

    def __call__(self, *args):
        self.n_calls += 1
        if self.n_calls > MANY_CALLS:
            raise TimeoutError("there is no end to the calls")
        value = self.function(*args)
        if self.n_calls > 1 and isinstance(value, torch.Tensor) and value.ndim and len(value):
            value = torch.cat([value[:1] * torch.nan, value[1:]])
        return value


class Module(torch.nn.Module):
    """A function as a module; it counts how often it was called and how often its hook was."""

    def __init__(self, function):
        super().__init__()
        self.function, self.n_calls, self.n_hooks = function, 0, 0
        self.register_forward_hook(self.hook)

    def hook(self, module, inputs, output):
        self.n_hooks += 1

    def forward(self, *args):
        self.n_calls += 1
        return self.function(*args)


class Field(torch.nn.Module):
    """The inner network of a score model, for points of any shape."""

    def forward(self, x, c_noise, **condition):
        return torch.tanh(x)


class Doubled(ScoreModel):
    """A score model that overrides what it is."""

    def forward(self, x, t, **condition):
        return 2 * super().forward(x, t, **condition)


# What is handed to the outermost public function, converted


class Outermost:
    """A context in which whoever calls a public function or method from outside hands over other arguments.

    Args:
        convert: callable from an argument to what is handed over in its place.
        defaults: whether what is not handed over, because it has a default, is converted too.
    """

    def __init__(self, convert, *, defaults=False):
        self.convert, self.defaults = convert, defaults
        self.inside = False

    def __enter__(self):
        self.originals = [(owner, name, inspect.getattr_static(owner, name)) for owner, name in public_attributes()]
        for owner, name, found in self.originals:
            setattr(owner, name, self.wrapped_attribute(found))
        return self

    def __exit__(self, *error):
        for owner, name, found in self.originals:
            setattr(owner, name, found)

    def wrapped_attribute(self, found):
        if isinstance(found, property):
            return property(self.wrapped(found.fget))
        if isinstance(found, classmethod):
            return classmethod(self.wrapped(found.__func__))
        return self.wrapped(found)

    def wrapped(self, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            if self.inside:
                return function(*args, **kwargs)
            self.inside = True
            first = args[:1] if getattr(function, "__name__", "") == "__init__" else ()
            try:
                if self.defaults:
                    kwargs = {**missing(function, args, kwargs), **kwargs}
                args = (*first, *map(self.convert, args[len(first) :]))
                result = function(*args, **{name: self.convert(value) for name, value in kwargs.items()})
                if hasattr(self.convert, "settle"):
                    self.convert.settle()
            finally:
                self.inside = False
            closed = inspect.isfunction(result) or isinstance(result, functools.partial)
            return self.wrapped(result) if closed else result

        return call


@functools.cache
def public_attributes():
    """Where every public function, method and property of the package is found: its owner and its name there."""
    found = []
    for name in public.MODULES.values():
        code = importlib.import_module(name)
        things = {part: getattr(code, part) for part in code.__all__}
        found += [(code, part) for part, thing in things.items() if inspect.isfunction(thing)]
        for kind in filter(inspect.isclass, things.values()):
            for owner in kind.__mro__:
                if owner.__module__.startswith("scorebook"):
                    parts = [part for part in vars(owner) if part == "__init__" or not part.startswith("_")]
                    found += [(owner, part) for part in parts if _is_called(inspect.getattr_static(owner, part))]
    return list(dict.fromkeys(found))


def _is_called(found):
    return inspect.isfunction(found) or isinstance(found, property | classmethod)


def missing(function, args, kwargs):
    """Defaults of a function that a call relies on and could give by name."""
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:  # the function itself will say so
        return {}
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if name not in given and parameter.default is not parameter.empty
    }


def numbers_as(real, whole):
    """A conversion of all numbers of Python, those in tuples and lists too."""

    def convert(value):
        if isinstance(value, tuple | list):
            return type(value)(map(convert, value))
        if isinstance(value, bool):
            return value
        return whole(value) if isinstance(value, int) else real(value) if isinstance(value, float) else value

    return convert


class Copied:
    """A conversion of whatever has a state into a copy of it; counts the copies.

    What a function does to the copy of a module is done to the module, since training changes its argument.
    """

    def __init__(self, copied):
        self.copied, self.n_copies, self.modules = copied, 0, []

    def __call__(self, thing):
        if isinstance(thing, list | tuple):
            return type(thing)(map(self, thing))
        if not has_state(thing):
            return thing
        self.n_copies += 1
        copy = self.copied(thing)
        if isinstance(thing, torch.nn.Module):
            self.modules.append((thing, copy))
        return copy

    def settle(self):
        """Do to the modules what a call has done to their copies."""
        for module, copy in self.modules:
            if isinstance(copy, torch.nn.Module):
                module.load_state_dict(copy.state_dict())
                module.train(copy.training)
        self.modules.clear()


def has_state(thing):
    """Whether something is an object of this package, or a module."""
    known = isinstance(thing, torch.nn.Module) or type(thing).__module__.startswith("scorebook")
    return known and not inspect.isfunction(thing) and not inspect.isclass(thing)


def pickled(thing):
    """A copy by way of bytes."""
    return pickle.loads(pickle.dumps(thing))


def own_style(name):
    """The look in which a row draws, whatever another row or test has set before."""
    drawing = name.partition(".")[0] in {"plots", "widgets"}
    return plt.style.context("default") if drawing else contextlib.nullcontext()


def run(name, *, event=None, arguments=None, enter=contextlib.nullcontext, **options):
    """The outcome of a row in a context."""
    call = ROWS[name]
    arguments = surface.batch(call, event=event) if arguments is None else arguments
    with own_style(name), enter():
        return outcome(call, arguments, **options)


def turned(name):
    """The outcome of a row whose functions turn NaN half-way."""
    with dressed(Turning) as made:
        result = run(name)
    return result if any(function.n_calls > 1 for function in made) else "never called twice"


def saved(results):
    """Bytes that another process can read."""
    stream = io.BytesIO()
    torch.save(results, stream)
    return stream.getvalue()


def everything():
    """What every row gives, in good order and with functions that turn NaN."""
    return {name: (run(name), turned(name)) for name in ROWS}


def in_new_process(connection, records):
    """Call every row with the objects that came as bytes: the child's side of a spawned process."""
    torch.set_num_threads(1)
    results = {}
    for name, record in records.items():
        record = iter(record)
        with Outermost(Copied(lambda thing, record=record: pickle.loads(next(record)))):
            results[name] = run(name)
    connection.send_bytes(saved(results))


def main(file):
    """Write what came of everything, and whether the interpreter dropped asserts and docstrings."""
    torch.set_num_threads(1)
    Path(file).write_bytes(saved((__debug__, main.__doc__ is not None, everything())))


if __name__ == "__main__":
    importlib.import_module("programs").main(sys.argv[1])
