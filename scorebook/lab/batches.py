"""Data of your own, row by row: tensors, arrays, data sets.

Whatever the data are, training asks for one thing: the batch that belongs to given rows. Here :func:`rows_of` makes
that of

* a tensor, or what becomes one: a NumPy array, a pandas or polars frame;
* several with as many rows each, in a tuple, or by name in a dictionary; each may in turn be a list, a tuple or a
  dictionary of tensors, such as a condition in several parts;
* a map-style ``torch.utils.data.Dataset`` or anything else with ``len(data)`` and ``data[i]``, whose items are
  collated as a ``DataLoader`` does; or such a loader, for its data set, its way of collating and its batch size.

Which rows come next is decided in one place, by :func:`~scorebook.lab.training.fit`, and is in the checkpoint. So a
loader's own order is not used, and one that cannot be put in another order, a stream, is refused.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from scorebook.lab.arguments import finite
from scorebook.lab.fingerprints import fingerprint
from scorebook.lab.types import Integer

__all__ = ["GlobalDraws", "batch_size_of", "rows_of"]

_PROBES = 16
_OWN_NAMES = ("model", "generator")


def rows_of(data: Any, dtypes: Sequence[torch.dtype]) -> "_InMemory | _Items":
    """Data as rows, of which batches can be taken.

    Args:
        data: as described in the module; the first tensor is the points, and holds floating-point numbers.
        dtypes: types of the weights. Floating-point numbers of another type come out in the first of these.

    Returns:
        An object with ``len()``; ``take(rows, device)``, which gives the positional and the named arguments that a loss
        gets for these rows; ``describe()``, lines of text that say which data they are; and ``tensors``, what of the
        data is held in memory.

    Raises:
        ValueError: if data are none of these, have no rows, different numbers of them, points that are no
            floating-point numbers, a value that is not finite, or an order of their own. What a data set holds is seen
            as it is read.
    """
    collate = default_collate
    if isinstance(data, DataLoader):
        _check_order(data)
        data, collate = data.dataset, data.collate_fn
    if isinstance(data, IterableDataset):
        raise ValueError(
            "data must be such that any row can be read at any time, or a run could not be resumed to the same bits, "
            f"got {type(data).__name__}, a stream: give a data set with __getitem__ and __len__, or draw the points "
            "inside the loss, from its generator"
        )
    if type(data) is TensorDataset and collate is default_collate:
        data = data.tensors
    data = _as_tensor(data)
    if isinstance(data, Tensor):
        return _InMemory((data,), {}, dtypes)
    if isinstance(data, dict):
        return _InMemory((), data, dtypes)
    if isinstance(data, (tuple, list)):
        return _InMemory(tuple(data), {}, dtypes)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _Items(data, collate, dtypes)
    raise ValueError(
        "data must be a tensor, a tuple or dictionary of tensors, a data set or a DataLoader, "
        f"got {type(data).__name__}"
    )


def batch_size_of(data: Any, batch_size: Integer | None) -> Integer:
    """The size that is asked for, else that of a ``DataLoader``, else 128."""
    if batch_size is not None:
        return batch_size
    return (data.batch_size if isinstance(data, DataLoader) else None) or 128


class _Rows:
    def __init__(self, dtypes: Sequence[torch.dtype]):
        self.dtypes = [dtype.to_real() for dtype in dtypes]

    def _to(self, device: torch.device | str, part: Tensor) -> Tensor:
        return part.to(device, _dtype_for(part, self.dtypes))


class _InMemory(_Rows):
    """Tensors with as many rows each."""

    def __init__(self, positional: tuple[Any, ...], named: dict[str, Any], dtypes: Sequence[torch.dtype]):
        super().__init__(dtypes)
        _check_names(named)
        self.positional, self.named = _mapped(_held, positional), _mapped(_held, named)
        self.leaves = dict(_leaves("data", self.positional or self.named))
        self.tensors = [*self.leaves.values()]
        if any(part.ndim == 0 or len(part) == 0 for part in self.tensors) or not self.tensors:
            raise ValueError(f"data must have at least one row, got shapes {[tuple(t.shape) for t in self.tensors]}")
        if len({len(part) for part in self.tensors}) > 1:
            raise ValueError(f"data must have as many rows in each tensor, got {[len(t) for t in self.tensors]}")
        _check_points(self.tensors[0], dtypes)
        for part in self.tensors:
            finite("data", part)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def take(self, rows: Tensor, device: torch.device | str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def of_rows(part: Tensor) -> Tensor:
            return self._to(device, part[rows.to(part.device)])

        return _mapped(of_rows, self.positional), _mapped(of_rows, self.named)

    def describe(self) -> dict[str, str]:
        parts = ", ".join(map(repr, self.named)) or f"{len(self.positional)} in order"
        return {"data": parts} | {path: fingerprint(part) for path, part in self.leaves.items()}


class _Items(_Rows):
    """A map-style data set. It is described by some of its items, as far as they come out alike when read again."""

    tensors: Sequence[Tensor] = ()

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any], dtypes: Sequence[torch.dtype]):
        super().__init__(dtypes)
        self.dataset, self.collate = dataset, collate
        if len(dataset) == 0:
            raise ValueError(f"data must have at least one row, got an empty {type(dataset).__name__}")

    def __len__(self) -> int:
        return len(self.dataset)

    def _read(self, rows: Tensor) -> Any:
        numbers = rows.tolist()
        several = getattr(self.dataset, "__getitems__", None)
        return self.collate(several(numbers) if several else [self.dataset[number] for number in numbers])

    def take(self, rows: Tensor, device: torch.device | str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        batch = self._read(rows)
        if isinstance(batch, dict):
            positional, named = (), batch
            _check_names(named)
        else:
            positional, named = (tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)), {}
        leaves = dict(_leaves("data", positional or named))
        points = next(iter(leaves.values()), None)
        if points is None or any(not isinstance(part, Tensor) or len(part) != len(rows) for part in leaves.values()):
            came = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in leaves.values()]
            raise ValueError(f"data must make of {len(rows)} items tensors with a row for each of them, got {came}")
        _check_points(points, self.dtypes)
        for path, part in leaves.items():
            if not part.is_meta and not bool(torch.isfinite(part).all()):
                bad = int((~torch.isfinite(part).reshape(len(part), -1).all(1)).nonzero()[0])
                raise ValueError(f"data must be finite, got NaN or infinity in {path} of item {int(rows[bad])}")

        def moved(part: Tensor) -> Tensor:
            return self._to(device, part)

        return _mapped(moved, positional), _mapped(moved, named)

    def describe(self) -> dict[str, str]:
        lines = {"data": f"{type(self.dataset).__name__} of {len(self)}"}
        draws = GlobalDraws()
        try:
            for row in torch.linspace(0, len(self) - 1, min(_PROBES, len(self)), dtype=torch.float64).round().long():
                once, again = (self._probed(draws, row) for _ in range(2))
                lines |= {path: line for path, line in once.items() if again.get(path) == line}
        finally:
            draws.put_back()
        return lines

    def _probed(self, draws: "GlobalDraws", row: Tensor) -> dict[str, str]:
        draws.seed(int(row))
        leaves = _leaves(f"data[{int(row)}]", self._read(row.reshape(1)))
        return {path: fingerprint(part) if isinstance(part, Tensor) else repr(part) for path, part in leaves}


class GlobalDraws:
    """The global generators of PyTorch, NumPy and Python, lent for a while to whoever draws from them.

    Such are layers like dropout, and data sets that turn or crop their items at random. They are seeded for each step,
    so that they need no place in a checkpoint; afterwards they are as if nobody had drawn.

    Args:
        devices: beside the CPU, where PyTorch's generators are lent.
        own: a generator that is left out.
    """

    def __init__(self, devices: Iterable[torch.device] = (), own: torch.Generator | None = None):
        devices = {torch.device("cpu"), *(device for device in devices if device.type in ("cuda", "mps"))}
        known = [device for device in devices if _global_generator(device) is not own]
        self._of_torch = [(device, _global_generator(device).get_state()) for device in known]
        self._of_numpy, self._of_python = np.random.get_state(), random.getstate()  # noqa: NPY002

    def seed(self, number: Integer) -> None:
        """Let all of them draw what follows from a number of 56 bits."""
        number = int(number)
        for device, _ in self._of_torch:
            _global_generator(device).manual_seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002
        random.seed(number)

    def put_back(self) -> None:
        """Leave them as they were."""
        for device, before in self._of_torch:
            _global_generator(device).set_state(before)
        np.random.set_state(self._of_numpy)  # noqa: NPY002
        random.setstate(self._of_python)


def _global_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index]
    return torch.mps._get_default_mps_generator() if device.type == "mps" else torch.default_generator


def _check_order(loader: DataLoader[Any]) -> None:
    if isinstance(loader.dataset, IterableDataset):
        return
    sampler: Any = loader.sampler
    dataset: Any = loader.dataset
    shuffled = isinstance(sampler, RandomSampler) and not sampler.replacement and len(sampler) == len(dataset)
    if loader.batch_size is None or not (shuffled or isinstance(sampler, (SequentialSampler, DistributedSampler))):
        kind = type(loader.batch_sampler if loader.batch_size is None else sampler).__name__
        raise ValueError(
            "data must be a DataLoader that goes through its data set in order or shuffled, for the order of the rows "
            f"is that of the run, got one with a {kind}: for some rows give a torch.utils.data.Subset, and weigh them "
            "in the loss"
        )


def _check_names(named: dict[Any, Any]) -> None:
    for name in named:
        if not isinstance(name, str) or name in _OWN_NAMES:
            raise ValueError(f"data must name arguments of the loss, and not {' or '.join(_OWN_NAMES)}, got {name!r}")


def _check_points(points: Tensor, dtypes: Sequence[torch.dtype]) -> None:
    if points.is_floating_point():
        return
    scaled = ": scale them first, as in data.float() / 255" if points.dtype == torch.uint8 else ""
    raise ValueError(
        f"data must be points in floating-point numbers, which come out as {dtypes[0]} like the weights of the model, "
        f"got {points.dtype}{scaled}"
    )


def _dtype_for(part: Tensor, dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """The type in which the loss gets a tensor: its own, but for floating-point numbers that no weight has."""
    return part.dtype if part.dtype in dtypes or not part.is_floating_point() else dtypes[0]


def _held(part: Any) -> Tensor:
    part = _as_tensor(part)
    if not isinstance(part, Tensor):
        raise ValueError(f"data must be a tensor or hold tensors, got {type(part).__name__}")
    return part.detach()


def _as_tensor(part: Any) -> Any:
    """A tensor, made of an array or a frame without a copy where that can be; anything else as it is."""
    if hasattr(part, "to_numpy"):
        part = part.to_numpy()
    if not isinstance(part, np.ndarray):
        return part
    array = np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("=")).reshape(part.shape)
    try:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except TypeError as error:
        raise ValueError(f"data must be numbers, got an array of {part.dtype}") from error


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _mapped(function, part) for name, part in tree.items()}
    if isinstance(tree, (tuple, list)):
        return (tuple if isinstance(tree, tuple) else list)(_mapped(function, part) for part in tree)
    return function(tree)


def _leaves(path: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """Path and tensor of each part, in order."""
    if isinstance(tree, dict):
        for name, part in tree.items():
            yield from _leaves(f"{path}[{name!r}]", part)
    elif isinstance(tree, (tuple, list)):
        for number, part in enumerate(tree):
            yield from _leaves(f"{path}[{number}]", part)
    else:
        yield path, tree
