"""Every public function, handed what a careless caller may hand it, gives the right answer or says what is wrong.

Each argument that holds numbers is spoiled in every way of ``KINDS``, in three batches, and the answer must be one
of these:

========  ==============================================================================================================
right     the answer that the same numbers in good form give
rounding  the same but for the order of its sums, to a hundred roundings
row only  a row that is not finite gives such a row, and every other row is what it was, bit for bit
refused   an error of this package, not one from inside PyTorch, that names the argument
========  ==============================================================================================================

Whatever the answer, no argument is changed. ``tests/surface`` says how each function is called; the table of all of
this is printed after the tests and written to ``_build/surface.txt``.
"""

import dataclasses
import functools
import importlib
import math
import pkgutil
import re
import traceback
import warnings
from pathlib import Path

import public
import pytest
import surface
import torch
from surface import Data, Number, SameDraws

import scorebook

MODULES = {name: importlib.import_module(f"surface.{name}") for _, name, _ in pkgutil.iter_modules(surface.__path__)}
CASES = [(module, name) for module in MODULES for name in getattr(MODULES[module], "CALLS", {})]

PACKAGE = str(Path(scorebook.__file__).parent)
ROUNDINGS = 100


@dataclasses.dataclass(frozen=True)
class Example:
    """The numbers and shape of a batch, and where and how it is hit."""

    seed: int
    n_rows: int
    event: int
    hit: int
    variant: int


# A vector, an image and a point that is a number, where a call takes each.
EXAMPLES = [
    Example(seed=0, n_rows=3, event=0, hit=0, variant=0),
    Example(seed=1287, n_rows=4, event=2, hit=502, variant=1),
    Example(seed=431, n_rows=5, event=3, hit=518, variant=2),
]


# One call and its answer


def event_of(call, example):
    """Shape of a point."""
    return call.events[example.event % len(call.events)]


def batch(call, example):
    """Good arguments of a call, by name."""
    return surface.batch(call, seed=example.seed, n_rows=example.n_rows, event=event_of(call, example))


@functools.lru_cache(maxsize=len(EXAMPLES))
def clean_answer(call, example):
    """Tensors that the good arguments give."""
    return answer(call, batch(call, example))


def answer(call, arguments, *spoiled):
    """Tensors of the result, detached, or ``None`` where one of the spoiled arguments is refused."""
    kept = {name: value.detach().clone() for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    refusal = result = None
    with warnings.catch_warnings(), SameDraws():
        warnings.simplefilter("error")
        try:
            result = list(public.tensors_in(call.run(**arguments)))
        except Exception as error:
            refusal = error
    for name, value in kept.items():
        assert same(arguments[name].detach(), value), f"{name} was changed in place"
    if refusal is not None:
        check_refusal(call, refusal, spoiled)
        return None
    if call.sampler:
        assert not any(tensor.requires_grad for tensor in result), "the sampler's result drags a graph behind it"
    return [tensor.detach() for tensor in result]


def check_refusal(call, error, spoiled):
    came = f"{type(error).__name__}: {error}"
    assert spoiled, f"good arguments are refused: {came}"
    assert isinstance(error, (ValueError, TypeError)), f"obscure error {came}"
    assert traceback.extract_tb(error.__traceback__)[-1].filename.startswith(PACKAGE), f"not refused here but by {came}"
    names = {call.arguments[name].name or name for name in spoiled}
    assert any(re.search(rf"\b({name})\b", str(error)) for name in names), (
        f"{' or '.join(names)} is not named by {came}"
    )


def same(a, b):
    """Whether two tensors agree bit for bit, NaN with NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def close(ours, truth, dtype):
    """Whether all tensors agree to a hundred roundings of that precision, of the size of the greatest number."""
    if len(ours) != len(truth) or any(a.shape != b.shape for a, b in zip(ours, truth, strict=True)):
        return False
    for a, b in zip(ours, truth, strict=True):
        a, b = a.double(), b.double()
        finite = b.isfinite()
        size = b[finite].abs().max().item() if bool(finite.any()) else 0.0
        if not torch.allclose(a, b, rtol=0, atol=ROUNDINGS * torch.finfo(dtype).eps * size, equal_nan=True):
            return False
    return True


def shown(tensors):
    return ", ".join(f"{tensor.dtype} {tensor.flatten()[:6].tolist()}" for tensor in tensors)


def data_of(call, *, floating=None, rows=None):
    """Names of the arguments that are tensors, of one kind if asked."""
    return [
        name
        for name, kind in call.arguments.items()
        if isinstance(kind, Data)
        and (floating is None or kind.dtype.is_floating_point == floating)
        and (rows is None or kind.rows == rows)
    ]


# Kinds of bad input: each takes a call, good arguments, the name of one of them and the example, and returns the word
# for what happened, or None where the kind does not apply.


def not_finite(*values):
    def spoil(call, arguments, name, example):
        kind, bad = call.arguments[name], values[example.variant % len(values)]
        if isinstance(kind, Number):
            result = answer(call, arguments | {name: bad}, name)
            assert result is None, f"{bad} is taken and gives {shown(result)}"
            return "refused"
        if not kind.dtype.is_floating_point:
            return None
        clean = clean_answer(call, example)
        spoiled = arguments[name].clone()
        entry = example.hit % spoiled.numel()
        spoiled.view(-1)[entry] = bad
        result = answer(call, arguments | {name: spoiled}, name)
        if result is None:
            return "refused"
        if bad in kind.means:
            assert not any(bool(tensor.isnan().any()) for tensor in result), f"{bad} gives {shown(result)}"
            return "right"
        if not kind.values_matter:
            assert all(map(same, result, clean)), f"{bad} changes the result to {shown(result)}"
            return "right"
        assert call.by_row, f"{bad} is taken and gives {shown(result)}"
        assert kind.rows, f"{bad} is taken for all rows and gives {shown(result)}"
        hit = entry * example.n_rows // spoiled.numel()
        others = [row for row in range(example.n_rows) if row != hit]
        for ours, before in zip(result, clean, strict=True):
            assert len(ours) == example.n_rows, f"a result of shape {tuple(ours.shape)} has no rows to compare"
            assert same(ours[others], before[others]), f"{bad} in row {hit} changes other rows"
            # What never depends on the argument, such as the noise that was drawn, stays as it is.
            assert same(ours, before) or not bool(ours[hit].isfinite().all()), (
                f"{bad} in row {hit} is swallowed and gives {ours[hit].tolist()}"
            )
        assert not all(map(same, result, clean)) or name in call.unused, f"{bad} in row {hit} leaves no trace"
        return "row only"

    return spoil


def of_dtype(*dtypes):
    def spoil(call, arguments, name, example):
        kind, dtype = call.arguments[name], dtypes[example.variant % len(dtypes)]
        if isinstance(kind, Number) or kind.dtype == dtype:
            return None
        value = arguments[name]
        if dtype == torch.bool:
            spoiled = value > value.double().median()
        elif dtype.is_complex:
            spoiled = value + 1j
        else:
            spoiled = value.double().ceil().to(dtype)
        result = answer(call, arguments | {name: spoiled}, name)
        if result is None:
            return "refused"
        assert not dtype.is_complex, f"{dtype} is taken and gives {shown(result)}"
        truth = answer(call, arguments | {name: spoiled.to(kind.dtype)}, name)
        assert truth is not None, f"{dtype} is taken where {kind.dtype} of the same numbers is refused"
        assert close(result, truth, torch.float32), f"{dtype} gives {shown(result)}, not {shown(truth)}"
        return "right"

    return spoil


def numpy_array(call, arguments, name, example):
    if isinstance(call.arguments[name], Number):
        return None
    clean = clean_answer(call, example)
    result = answer(call, arguments | {name: arguments[name].numpy()}, name)
    if result is None:
        return "refused"
    assert close(result, clean, torch.float32), f"an array gives {shown(result)}, not {shown(clean)}"
    return "right"


def in_precision(dtype, coarser, *, may_be_refused=False):
    """All floating tensors in one precision, held against the answer in another to the rounding of the coarser."""

    def spoil(call, arguments, name, example):
        floating = data_of(call, floating=True)
        if name != (floating or [None])[0]:
            return None
        cast = {part: arguments[part].to(dtype) for part in floating}
        result = answer(call, arguments | cast, *floating) if may_be_refused else answer(call, arguments | cast)
        if result is None:
            return "refused"
        truth = answer(call, arguments | {part: value.float() for part, value in cast.items()})
        assert close(result, truth, coarser), f"{dtype} gives {shown(result)}, float32 {shown(truth)}"
        for ours, single in zip(result, truth, strict=True):
            expected = {single.dtype, dtype} if may_be_refused else {dtype}
            assert not single.is_floating_point() or ours.dtype in expected or call.own_dtype, (
                f"{dtype} gives {shown(result)}"
            )
        return "right"

    return spoil


def mixed(call, arguments, name, example):
    """One tensor in double precision, the others in single."""
    if name not in (floating := data_of(call, floating=True)) or len(floating) < 2:
        return None
    result = answer(call, arguments | {name: arguments[name].double()}, *floating)
    if result is None:
        return "refused"
    clean = clean_answer(call, example)
    assert close(result, clean, torch.float32), f"it gives {shown(result)}, float32 alone {shown(clean)}"
    first = call.dtype_of or ("x" if "x" in floating else floating[0])
    for ours, single in zip(result, clean, strict=True):
        expected = torch.float64 if first in (name, "widest") else torch.float32
        assert not single.is_floating_point() or ours.dtype == expected or call.own_dtype, (
            f"{first} decides the type, yet {name} in double precision gives {shown(result)}"
        )
    return "right"


def no_rows(call, arguments, name, example):
    joint = data_of(call, rows=True)
    if isinstance(call.arguments[name], Number) or arguments[name].ndim == 0:
        return None
    if name in joint and name != joint[0]:
        return None
    emptied = joint if name in joint else [name]
    result = answer(call, arguments | {part: arguments[part][:0] for part in emptied}, *emptied)
    if result is None:
        return "refused"
    assert all(tensor.numel() == 0 for tensor in result), f"no rows give {shown(result)}"
    return "right"


def one_row(call, arguments, name, example):
    joint = data_of(call, rows=True)
    if name != (joint or [None])[0]:
        return None
    result = answer(call, arguments | {part: arguments[part][:1] for part in joint}, *joint)
    if result is None:
        return "refused"
    if call.by_row:
        first = [tensor[:1] for tensor in clean_answer(call, example)]
        assert close(result, first, torch.float32), f"one row gives {shown(result)}, among others {shown(first)}"
    assert not any(bool(tensor.isnan().any()) for tensor in result), f"one row gives {shown(result)}"
    return "right"


def scalar(call, arguments, name, example):
    if isinstance(call.arguments[name], Number) or arguments[name].ndim == 0:
        return None
    value = arguments[name].flatten()[0]
    result = answer(call, arguments | {name: value}, name)
    if result is None:
        return "refused"
    truth = answer(call, arguments | {name: torch.full_like(arguments[name], value.item())}, name)
    if truth is not None and not call.any_shape:
        spread = [tensor.expand_as(full) for tensor, full in zip(result, truth, strict=True)]
        assert close(spread, truth, torch.float32), f"a number gives {shown(result)}, for every row {shown(truth)}"
    assert not any(bool(tensor.isnan().any()) for tensor in result), f"a number gives {shown(result)}"
    return "right"


def other_shape(call, arguments, name, example):
    """One row too few or too many, or one coordinate too many, where another argument tells how many there must be."""
    if name not in (joint := data_of(call, rows=True)):
        return None
    value, variants = arguments[name], []
    if len(joint) > 1:
        variants += [value[:-1], torch.cat([value, value[:1]])]
    alike = [part for part in joint if arguments[part].shape == value.shape]
    if value.ndim > 1 and (len(call.events) == 1 or len(alike) > 1):
        variants += [torch.cat([value, value[..., :1]], -1)]
    if len(alike) > 1 and event_of(call, example):  # a column of numbers is a batch of its own
        variants += [value.unsqueeze(1)]
    for spoiled in variants:
        result = answer(call, arguments | {name: spoiled}, *joint)
        assert result is None, (
            f"shape {tuple(spoiled.shape)} for {tuple(value.shape)} is taken and gives {shown(result)}"
        )
    return "refused" if variants else None


def strided(call, arguments, name, example):
    """The same numbers in another order of memory."""
    if isinstance(call.arguments[name], Number) or (value := arguments[name]).ndim == 0:
        return None
    twice = torch.stack([value, torch.zeros_like(value)], -1)[..., 0]
    layouts = [twice, value.mT.contiguous().mT if value.ndim > 1 else twice]
    if call.arguments[name].rows:
        layouts.append(value[:1].expand(value.shape))
    spoiled = layouts[example.variant % len(layouts)]
    result = answer(call, arguments | {name: spoiled}, name)
    truth = answer(call, arguments | {name: spoiled.contiguous()}, name)
    if result is truth is None:  # equal rows may be no good data
        return None
    if all(map(same, result, truth)):
        return "right"
    assert close(result, truth, torch.float32), f"it gives {shown(result)}, not {shown(truth)}"
    return "rounding"


def with_gradient(call, arguments, name, example):
    """All tensors ask for gradients: the numbers stay, and nothing is left behind on them."""
    if name != (data_of(call, floating=True) or [None])[0]:
        return None
    asking = {part: arguments[part].clone().requires_grad_() for part in data_of(call, floating=True)}
    result, clean = answer(call, arguments | asking), clean_answer(call, example)
    assert all(map(same, result, clean)), f"it gives {shown(result)}, not {shown(clean)}"
    assert all(value.requires_grad and value.is_leaf and value.grad is None for value in asking.values())
    return "right"


KINDS = {
    "NaN": not_finite(math.nan),
    "infinite": not_finite(math.inf, -math.inf),
    "integer": of_dtype(torch.int64, torch.int32, torch.uint8),
    "boolean": of_dtype(torch.bool),
    "complex": of_dtype(torch.complex64),
    "NumPy": numpy_array,
    "half": in_precision(torch.float16, torch.float16, may_be_refused=True),
    "double": in_precision(torch.float64, torch.float32),
    "mixed": mixed,
    "no rows": no_rows,
    "one row": one_row,
    "scalar": scalar,
    "shape": other_shape,
    "strided": strided,
    "gradient": with_gradient,
}


def judged(call, name, kind):
    """The words for what happened to an argument in the examples of one kind, or what went wrong."""
    words = set()
    try:
        for example in EXAMPLES:
            words.add(KINDS[kind](call, batch(call, example), name, example))
    except AssertionError as error:
        return "WRONG", str(error).partition("\nassert ")[0]
    return "/".join(sorted(words - {None})) or "·", None


@pytest.mark.parametrize(("module", "name"), CASES)
def test_bad_input_gives_the_right_answer_or_is_refused_by_name(module, name, record_property):
    call, failures = MODULES[module].CALLS[name], []
    for argument in call.arguments:
        row = {}
        for kind in KINDS:
            row[kind], failure = judged(call, argument, kind)
            failures += [f"{kind} in {argument}: {failure}"] if failure else []
        record_property("surface", [module, name, argument, row])
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("module", sorted(public.MODULES))
def test_every_public_name_is_called_or_takes_no_data(module):
    code = importlib.import_module(public.MODULES[module])
    names = set(public.functions(code)) | {name for name in public.own(code) if isinstance(getattr(code, name), type)}
    called = {name.partition(" (")[0] for name in getattr(MODULES.get(module), "CALLS", {})}
    excused = getattr(MODULES.get(module), "NO_DATA", {})
    missing = {name for name in names - called if name not in excused and name.partition(".")[0] not in excused}
    assert not missing, f"give a line in tests/surface/{module}.py to: {', '.join(sorted(missing))}"
    assert called | set(excused) <= names, "a call or an excuse is left of a name that has gone"
    assert not called & set(excused), "these are called and excused"
    assert all(reason.strip() for reason in excused.values())


def test_every_file_of_calls_belongs_to_a_module():
    assert set(MODULES) <= set(public.MODULES)
