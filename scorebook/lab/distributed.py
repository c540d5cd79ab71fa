r"""Several processes that work as one, on the GPUs of one machine or of many.

``torchrun --nproc-per-node 4 train.py`` starts the same script four times. Each process has a number, its rank, and a
GPU of its own (:func:`~scorebook.lab.devices.device`). Of the :math:`N` rows of a batch, rank :math:`r` of :math:`R`
takes :math:`n_r`, equal to one row; a mean over all of them, and its gradient, is

.. math:: \frac1N \sum_{i=1}^{N} \ell_i = \sum_{r=1}^{R} \frac{n_r}{N}\, \bar\ell_r,

where :math:`\bar\ell_r` is the mean over the rows of rank :math:`r`. So the processes compute what one would, if
two things hold. What is to be the same on all ranks, the weights and the order of the data, comes from rank 0. What is
to be independent, the noise of different rows, comes from a generator of each rank (:func:`own_generator`).

What one process has to do for many rows it can do for some at a time: :func:`in_chunks`.

Started without ``torchrun`` there is one process, and each function here does without the others what it says. All but
:func:`rank`, :func:`n_ranks`, :func:`over_ranks` and :func:`in_chunks` are what
:func:`~scorebook.lab.training.fit` is made of: they want the processes to be joined, and to be called on every rank.
"""

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from scorebook.lab.arguments import positive_integer
from scorebook.lab.devices import is_watched
from scorebook.lab.types import Integer

__all__ = [
    "alike",
    "any_rank",
    "common_state",
    "copy_from_first",
    "from_first",
    "in_chunks",
    "join",
    "n_ranks",
    "over_ranks",
    "own_generator",
    "rank",
    "share",
    "summed",
]

_Result = TypeVar("_Result")


def rank() -> int:
    """Number of this process among those that ``torchrun`` started, from 0; 0 if there is only one."""
    return dist.get_rank() if _joined() else int(os.environ.get("RANK", 0)) if _launched() else 0


def n_ranks() -> int:
    """Number of processes that ``torchrun`` started; 1 without it."""
    return dist.get_world_size() if _joined() else int(os.environ["WORLD_SIZE"]) if _launched() else 1


def over_ranks(function: Callable[..., Tensor], *tensors: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Give each process a share of the rows, and every process the results for all of them, in order.

    Call it on all ranks, with the same rows. In a single process it calls the function with all rows. Samples and
    likelihoods go over all GPUs so::

        x = lab.over_ranks(lambda x: probability_flow.sample(process, model, x), x)

    A function that draws at random takes a ``generator``, and gets the one that is given here, or under ``torchrun``
    one of its own rank. Draw from no other: a generator from outside is in the same state on all ranks, so that rows
    of different ranks would share their noise. ::

        def reverse(x, generator):
            return sde.euler_maruyama(process, model, x, n_steps=500, generator=generator)

        x = lab.over_ranks(reverse, x, generator=generator)

    Args:
        function: callable ``(*rows) -> tensor`` with one result for each row, shape ``(n, *any)``; called with
            ``generator=`` if one is given. It gets at least one row, or is not called: no gradient flows through it.
        tensors: at least one, with as many rows each.
        generator: source of randomness. It then is in the same state on all ranks, that of rank 0.

    Returns:
        The results of all rows, shape ``(N, *any)``, the same tensor on all ranks.

    Raises:
        ValueError: if ``tensors`` are not as described or differ between ranks in their number of rows, or the
            function does not return a row for each row.
        RuntimeError: if the function raised on another rank; on its own rank, its error is raised.
    """
    n = _checked_rows(tensors)
    join(tensors[0].device)
    keywords = {} if generator is None else {"generator": generator}
    if n_ranks() == 1:
        return _checked_result(function(*tensors, **keywords), n)

    alike(tensors=f"{n} rows each")
    if generator is not None:
        common_state(generator)
        keywords = {"generator": own_generator(generator)}
    own = [share(rows) for rows in tensors]
    result, error = None, None
    try:
        if len(own[0]):
            result = _checked_result(function(*own, **keywords), len(own[0]))
    except Exception as caught:  # the other ranks wait for this one, and have to hear of it
        error = caught
    _raise_together(error)
    return _gathered_rows(result, n, tensors[0].device)


def in_chunks(
    function: Callable[..., Tensor],
    *tensors: Tensor,
    chunk_size: Integer = 500,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Tensor:
    """Give a function some of the rows at a time, and put the results for all of them together, in order.

    What the function needs in memory then depends on the chunk and not on the number of rows; beside it there are the
    rows and the results, and the time is linear. Ten thousand digits, whose labels go along with their noise::

        def draw(z, label):
            return probability_flow.sample(process, control.given(model, label=label), z, n_steps=16)

        x = lab.in_chunks(draw, noise, labels)

    On several GPUs each takes its share in chunks: ``lab.over_ranks(lambda z: lab.in_chunks(draw, z), noise)``.

    Args:
        function: callable ``(*rows) -> tensor`` with one result for each row, shape ``(n, *any)``; called with
            ``generator=`` if one is given. No gradient flows through it. Results may lie on another device than the
            rows, such as a CPU with more memory.
        tensors: at least one, with as many rows each.
        chunk_size: rows at a time, the last ones excepted, which may be fewer.
        generator: source of randomness, from which one chunk draws after the other. The results then depend on
            ``chunk_size``, and are what they would be in distribution.
        progress: show a bar while a person is watching; a page that is built or a log shows none.

    Returns:
        The results of all rows, shape ``(N, *any)``. Those of a function that treats each row by itself are, to
        rounding, those of one call with all rows. An adaptive solver chooses its steps for each chunk.

    Raises:
        ValueError: if ``tensors`` or ``chunk_size`` are not as described, if the function does not return a row for
            each row, or rows of another shape or type than before.
    """
    n, size = _checked_rows(tensors), positive_integer("chunk_size", chunk_size)
    keywords = {} if generator is None else {"generator": generator}
    whole: Tensor | None = None
    shown = progress and rank() == 0 and n > size and is_watched()
    with tqdm(total=n, leave=False, mininterval=0.2, disable=not shown) as bar:
        for start in range(0, n, size):
            rows = [tensor[start : start + size] for tensor in tensors]
            result = _checked_result(function(*rows, **keywords), len(rows[0]))
            if whole is None:
                whole = result.new_empty(n, *result.shape[1:])
            if (result.shape[1:], result.dtype) != (whole.shape[1:], whole.dtype):
                raise ValueError(
                    f"function must return rows alike for all chunks, got {tuple(result.shape[1:])} {result.dtype} "
                    f"and before {tuple(whole.shape[1:])} {whole.dtype}"
                )
            whole[start : start + size] = result
            del result
            bar.update(len(rows[0]))
    assert whole is not None
    return whole


def join(device: torch.device | str | None = None) -> None:
    """Join the processes that ``torchrun`` started; nothing to do in a single one, or where a group stands already.

    NCCL carries tensors between GPUs and Gloo between CPUs. A group that you initialised yourself is used as it is.

    Args:
        device: where this process computes; a GPU becomes the current one.

    Raises:
        ValueError: for a device that is neither a CPU nor a CUDA device: no others can exchange tensors.
    """
    if not _joined() and not _launched():
        return
    device = torch.device("cpu" if device is None else device)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(
            f"under torchrun tensors must be on a CPU or a CUDA device, got {device}; set SCOREBOOK_DEVICE=cpu"
        )
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    if not _joined():
        both = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if both else "gloo")
        atexit.register(_leave)


def share(rows: Tensor) -> Tensor:
    """Rows of this rank: all shares in order are the whole, and none is longer than another by more than one."""
    return rows.tensor_split(n_ranks())[rank()]


def own_generator(generator: torch.Generator) -> torch.Generator:
    """A generator for this rank alone, where there are several ranks; else the one given.

    Its seed is drawn from ``generator``, which is in the same state on all ranks and stays so. That state therefore
    decides what every rank draws from here on, on however many ranks.
    """
    if n_ranks() == 1:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    return torch.Generator(generator.device).manual_seed(seed + rank())


def common_state(generator: torch.Generator) -> None:
    """Set a generator to the state that it has on rank 0."""
    if n_ranks() > 1:
        generator.set_state(from_first(generator.get_state))


def from_first(function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function on rank 0 only; every rank gets its result, or raises its error, once it is done."""
    if n_ranks() == 1:
        return function(*arguments)
    sent: list[Any] = [None, None]  # a result or an error
    if rank() == 0:
        try:
            sent[0] = function(*arguments)
        except Exception as caught:  # the other ranks wait for this one, and have to hear of it
            sent[1] = caught
    dist.broadcast_object_list(sent, src=0)
    result, error = sent
    if error is not None:
        raise error
    return result


def summed(value: Tensor) -> Tensor:
    """Sum of a tensor over all ranks, the same on each."""
    total = value.clone()
    if n_ranks() > 1:
        dist.all_reduce(total)
    return total


def copy_from_first(tensor: Tensor) -> None:
    """Overwrite a tensor with what it is on rank 0."""
    if n_ranks() > 1:
        dist.broadcast(tensor, src=0)


def any_rank(condition: bool, device: torch.device | str | None = None) -> bool:
    """Whether a condition holds on this rank or another, so that all of them decide alike.

    Args:
        condition: whether it holds here.
        device: where this process computes; the CPU by default.
    """
    if n_ranks() == 1:
        return bool(condition)
    votes = torch.tensor(int(condition), device=device)
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes.item())


def alike(**values: Any) -> None:
    """Raise a ``ValueError`` on all ranks if a value differs between two of them, and name it."""
    theirs = _gathered(values)
    for name, value in theirs[0].items():
        for number, others in enumerate(theirs):
            if others[name] != value:
                raise ValueError(
                    f"{name} must be the same in all processes, got {value!r} in process 0 "
                    f"and {others[name]!r} in process {number}"
                )


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def _launched() -> bool:
    return dist.is_available() and "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", 1)) > 1


def _leave() -> None:
    # After an error the others may be busy, and leaving would wait for them; torchrun ends them once this one has gone.
    if _joined() and not hasattr(sys, "last_value"):
        dist.destroy_process_group()


def _gathered(value: _Result) -> list[_Result]:
    """What each rank has, in order."""
    found = [value] * n_ranks()
    if n_ranks() > 1:
        dist.all_gather_object(found, value)
    return found


def _raise_together(error: Exception | None) -> None:
    messages = _gathered(None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for number, message in enumerate(messages):
        if message is not None:
            raise RuntimeError(f"process {number} of {n_ranks()} failed: {message}")


def _gathered_rows(result: Tensor | None, n: int, device: torch.device) -> Tensor:
    """The results of all ranks, one after the other; ``None`` stands for those of a rank without rows."""
    kinds = _gathered(None if result is None else (result.shape[1:], result.dtype))
    event, dtype = next(kind for kind in kinds if kind is not None)
    _raise_together(
        None
        if result is None or kinds[rank()] == kinds[0]
        else ValueError(
            f"function must return rows alike on all ranks, got {tuple(result.shape[1:])} {result.dtype} "
            f"and on rank 0 {tuple(event)} {dtype}"
        )
    )
    sizes = [len(part) for part in torch.arange(n).tensor_split(n_ranks())]
    padded = torch.zeros(sizes[0], *event, dtype=dtype, device=device)  # all pieces have to be of one size
    if result is not None:
        padded[: len(result)] = result
    pieces = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(pieces, padded)
    whole = torch.cat([piece[:size] for piece, size in zip(pieces, sizes, strict=True)])
    return whole if result is None else whole.to(result.device)


def _checked_rows(tensors: tuple[Tensor, ...]) -> int:
    if not tensors or not all(isinstance(t, Tensor) and t.ndim > 0 for t in tensors):
        came = [tuple(t.shape) if isinstance(t, Tensor) else type(t).__name__ for t in tensors]
        raise ValueError(f"tensors must be at least one tensor of shape (N, *any), got {came}")
    if len({len(t) for t in tensors}) > 1 or len(tensors[0]) == 0:
        raise ValueError(f"tensors must have as many rows each, and at least one, got {[len(t) for t in tensors]}")
    return len(tensors[0])


def _checked_result(result: Tensor, n: int) -> Tensor:
    if not isinstance(result, Tensor) or result.ndim == 0 or len(result) != n:
        came = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(f"function must return one row for each of {n} rows, got {came}")
    return result.detach()
