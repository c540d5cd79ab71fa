"""What is public in the package: the names for which tests that look at every function have to answer."""

import importlib
import inspect
import pkgutil
import types

import torch

import scorebook


def key(name):
    """The word for a module in tests and records: ``sde``, and ``coursework_sde`` for the checks of that chapter."""
    *_, folder, own = name.split(".")
    return f"coursework_{own}" if folder == "coursework" else own


def own(module):
    """Public names of a module, but for what it shows of another."""
    return [name for name in module.__all__ if getattr(getattr(module, name), "__module__", None) == module.__name__]


def _speaks(name, is_package):
    """Whether a module has public names of its own: most packages only show those of their modules."""
    return not name.rpartition(".")[2].startswith("_") and (not is_package or bool(own(importlib.import_module(name))))


MODULES = {
    key(name): name
    for _, name, is_package in pkgutil.walk_packages(scorebook.__path__, "scorebook.")
    if _speaks(name, is_package)
}


def functions(module):
    """Public functions of a module; of its public classes that are not abstract, the methods and properties."""
    for name in own(module):
        thing = getattr(module, name)
        if inspect.isclass(thing):
            methods = [] if inspect.isabstract(thing) else [part for part in dir(thing) if _is_method(thing, part)]
            yield from (f"{name}.{part}" for part in methods)
        elif callable(thing) and not isinstance(thing, types.GenericAlias):
            yield name


def _is_method(kind, part):
    """Whether a class has a public method or property of that name which the package, and not torch, defines."""
    found = inspect.getattr_static(kind, part)
    found = getattr(found, "fget", getattr(found, "__func__", found))
    return inspect.isfunction(found) and found.__module__.startswith("scorebook") and not part.startswith("_")


def tensors_in(thing, seen=None):
    """All tensors in a result, whatever holds them."""
    seen = set() if seen is None else seen
    if isinstance(thing, torch.Tensor):
        yield thing
        return
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.nn.Module):
        yield from thing.state_dict().values()
    elif isinstance(thing, dict):
        for part in thing.values():
            yield from tensors_in(part, seen)
    elif isinstance(thing, (list, tuple, set)):
        for part in thing:
            yield from tensors_in(part, seen)
    elif type(thing).__module__.startswith("scorebook"):
        yield from tensors_in(vars(thing), seen)
