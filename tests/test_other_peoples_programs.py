"""Every public function in programs that somebody else wrote is right, or says what is wrong and the cure.

The situations are those of ``SITUATIONS``: under ``inference_mode`` or autocast, in half precision, by ``python -OO``,
with numpy numbers, with a score whose graph is cut, and more. Each function is called in each of them, and what comes
must be one of these:

=========  =============================================================================================================
right      the answer of the plain call, to a hundred roundings; in half precision that of double precision, to ten
gradient   that, and the gradient is the one that differences measure
refused    an error of this package that names the argument and says what to do instead
·          the function takes nothing that the situation could change
=========  =============================================================================================================

The table is printed after the tests, written to ``_build/programs.txt``, and held against ``book/programs.json``, from
which the reference tells it for each function; ``SCOREBOOK_REWRITE=1`` writes that file anew.
"""

import contextlib
import copy
import functools
import importlib
import io
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import programs
import public
import pytest
import surface
import surface.sde as reading
import torch
from matplotlib import pyplot as plt
from programs import ROWS, Copied, Outermost, Refused, dressed, numbers_as, run
from surface import Data, SameDraws

from scorebook import lab, sde
from scorebook.lab.training import History

SINGLE, DOUBLE = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps
ROUNDINGS, HALF_ROUNDINGS = 100, 10
NOTHING = "·"

# Cells that are known to be wrong, by situation. One that is mended must leave the list.
KNOWN_FAULTS = {}

# Public names that are in no program.
EXCUSED = {"sde.SDE": "abstract"} | {
    f"weights.{name}": "changes itself or a model, as a part of fit, which is called"
    for kind, parts in {
        "Average": ("hand_over", "of_buffers", "restore", "update"),
        "Keepsakes": ("put_back", "record", "restore", "state"),
        "Precise": ("forget_gradients", "gradients", "restore", "round", "state"),
    }.items()
    for name in (kind, *(f"{kind}.{part}" for part in parts))
}

GIVEN = "score|field|model|log_prob|drift|f|log_likelihood"


class WrongError(AssertionError):
    """A cell that is neither right nor refused as it should be."""


# How an outcome is judged


def shown(result):
    if isinstance(result, Refused):
        return f"{result.kind}: {result.text}" + ("" if result.ours else " (from deeper than this package)")
    texts = [
        f"{str(part.dtype).removeprefix('torch.')} {part.flatten()[:6].tolist()}"
        if hasattr(part, "dtype")
        else part[:60]
        for part in result
    ]
    return ", ".join(texts[:8])


def plain(part):
    """A tensor of the plain kind, in double precision and on the CPU."""
    return part.as_subclass(torch.Tensor).to("cpu", torch.float64)


def agrees(ours, truth, eps, roundings, sensitivity=None):
    """Whether all parts agree to so many roundings of that size, relative to the greatest number of each part."""
    if len(ours) != len(truth):
        return False
    for k, (a, b) in enumerate(zip(ours, truth, strict=True)):
        if isinstance(a, str) or isinstance(b, str):
            if a != b:
                return False
            continue
        if a.shape != b.shape:
            return False
        a, b = plain(a), plain(b)
        finite = b.isfinite()
        size = b[finite].abs().max().item() if bool(finite.any()) else 0.0
        allowed = roundings * (eps * size + (0 if sensitivity is None else sensitivity[k]))
        if not torch.allclose(a, b, rtol=0, atol=allowed, equal_nan=True):
            return False
    return True


def judged(name, ours, truth, *, eps=SINGLE, roundings=ROUNDINGS, cure=None, dtypes=True, **more):
    """The word for an outcome, or an error that says what is wrong with it."""
    if isinstance(truth, Refused):
        raise WrongError(f"the plain call is refused: {shown(truth)}")
    if isinstance(ours, Refused):
        check_refusal(name, ours, cure)
        return "refused"
    if not agrees(ours, truth, eps, roundings, **more):
        raise WrongError(f"it gives {shown(ours)}, not {shown(truth)}")
    if dtypes:
        for a, b in zip(ours, truth, strict=True):
            if hasattr(a, "dtype") and a.dtype != b.dtype:
                raise WrongError(f"it gives {a.dtype}, not {b.dtype}")
    return "right"


def check_refusal(name, refusal, cure):
    if cure is None:
        raise WrongError(f"refused: {shown(refusal)}")
    if refusal.kind not in ("ValueError", "TypeError", "RuntimeError") or not refusal.ours:
        raise WrongError(f"an obscure error: {shown(refusal)}")
    names = "|".join([kind.name or part for part, kind in ROWS[name].arguments.items()] + [GIVEN])
    if not re.search(rf"\b({names})\b", refusal.text):
        raise WrongError(f"no argument is named: {shown(refusal)}")
    if not re.search(cure, refusal.text):
        raise WrongError(f"the cure ({cure}) is not named: {shown(refusal)}")


@functools.cache
def truth(name, event=None):
    return run(name, event=event)


def tensors(name, *, floating=None, event=None):
    """Names of the arguments that are tensors."""
    return [
        part
        for part, kind in ROWS[name].arguments.items()
        if isinstance(kind, Data) and (floating is None or kind.dtype.is_floating_point == floating)
    ]


def changed(name, change, *, event=None, floating=None):
    """Good arguments, the tensors among them changed."""
    arguments = surface.batch(ROWS[name], event=event)
    return arguments | {part: change(arguments[part]) for part in tensors(name, floating=floating)}


# Contexts


@contextlib.contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def anomaly():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Anomaly Detection")
        context = torch.autograd.detect_anomaly()
    with context:
        yield


# Situations: each takes the name of a row and returns a word, or raises a WrongError.


def within(*contexts, cure=None, **tolerance):
    """The call in each of some contexts."""

    def situation(name):
        words = {judged(name, run(name, enter=context), truth(name), cure=cure, **tolerance) for context in contexts}
        return "/".join(sorted(words))

    return situation


def inference(name):
    """The call inside inference mode, with tensors from outside and with tensors from inside."""

    def everything_inside():
        with torch.inference_mode():
            return run(name)

    outcomes = [run(name, enter=torch.inference_mode), everything_inside()]
    return "/".join(sorted({judged(name, ours, truth(name), cure="inference_mode") for ours in outcomes}))


def with_tensors(make, *, cure=None, floating=None, compare=None):
    """The call outside of everything, with tensors of another make."""

    def situation(name):
        if not tensors(name, floating=floating):
            return NOTHING
        return judged(name, run(name, arguments=changed(name, make, floating=floating)), truth(name), cure=cure)

    return situation


class Tagged(torch.Tensor):
    """A tensor of somebody's own class."""


def inference_tensor(x):
    with torch.inference_mode():
        return x.clone()


def transposed(x):
    """The same numbers, the last axis the slowest in memory, and a gap after each."""
    if x.ndim == 0:
        return x
    spread = torch.stack([x, torch.zeros_like(x)], -1)
    return spread.movedim(-2, 0).contiguous().movedim(0, -2)[..., 0]


def channels_last(name):
    event = next((event for event in ROWS[name].events if len(event) == 3), None)
    if event is None or not tensors(name):
        return NOTHING
    images = [part for part, x in surface.batch(ROWS[name], event=event).items() if getattr(x, "ndim", 0) == 4]
    if not images:
        return NOTHING

    def change(x):
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x

    return judged(name, run(name, arguments=changed(name, change, event=event), event=event), truth(name, event))


def gradient(name):
    """Arguments that ask for gradients: the same numbers, and the gradient that differences measure."""
    asked = tensors(name, floating=True)
    if not asked:
        return NOTHING
    asking = changed(name, lambda x: x.requires_grad_(), floating=True)
    word = judged(name, run(name, arguments=asking), truth(name))
    call = ROWS[name]
    exact = {part: x.double() if x.is_floating_point() else x for part, x in _tensors_of(surface.batch(call)).items()}
    numbers = {part: x for part, x in surface.batch(call).items() if part not in exact}
    rows = [part for part in asked if call.arguments[part].rows]

    def total(arguments):
        with SameDraws():
            found = list(public.tensors_in(call.run(**arguments, **numbers)))
        weighed = [
            (part * torch.cos(torch.arange(part.numel(), dtype=torch.float64)).reshape(part.shape)).sum()
            for part in found
            if part.is_floating_point() and part.requires_grad
        ]
        return sum(weighed) if weighed else None

    leaves = {part: exact[part].clone().requires_grad_() for part in rows}
    value = total(exact | leaves)
    if value is None:
        return word
    gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    for (part, leaf), ours in zip(leaves.items(), gradients, strict=True):
        if ours is None:
            continue
        direction = waves(leaf.detach())
        step = 1e-5
        ends = [
            total(exact | leaves | {part: (leaf + sign * step * direction).detach().requires_grad_()}).item()
            for sign in (1, -1)
        ]
        measured = (ends[0] - ends[1]) / (2 * step)
        size = max(abs(measured), (ours * direction).abs().sum().item(), abs(value.item()))
        if not abs((ours * direction).sum().item() - measured) <= 1e-6 * size:
            raise WrongError(f"the gradient in {part} is {(ours * direction).sum():g}, differences say {measured:g}")
        word = "gradient"
    return word


def _tensors_of(arguments):
    return {part: x for part, x in arguments.items() if isinstance(x, torch.Tensor)}


def cut(name):
    """Functions whose graph is cut: under no_grad, under inference mode, detached."""
    guises = [
        lambda function: torch.no_grad()(function),
        lambda function: torch.inference_mode()(function),
        lambda function: functools.wraps(function)(lambda *args: function(*args).detach()),
    ]
    words = set()
    for guise in guises:
        called = []

        def counted(function, guise=guise, called=called):
            inner = guise(function)
            return lambda *args: called.append(1) or inner(*args)

        with dressed(counted):
            result = run(name)
        if not called:
            return NOTHING
        words.add(judged(name, result, truth(name), cure="no_grad|inference_mode|detach|differentiable|create_graph"))
    return "/".join(sorted(words))


def turning(name):
    """Functions that turn NaN half-way: no number comes out that is not NaN or right, and a sampler refuses."""
    result = programs.turned(name)
    if result == "never called twice":
        return NOTHING
    if isinstance(result, Refused):
        check_refusal(name, result, "NaN|nan|not a number|finite")
        return "refused"
    if ROWS[name].rejects:
        if not all(bool(plain(part).isfinite().all()) for part in result if not isinstance(part, str)):
            raise WrongError(f"NaN is taken: {shown(result)}")
        return "right"
    if ROWS[name].sampler:
        raise WrongError(f"NaN comes out as a sample: {shown(result)}")
    if not any(bool(plain(part).isnan().any()) for part in result if not isinstance(part, str)):
        raise WrongError(f"NaN is swallowed: {shown(result)}")
    return "right"


def in_precision(dtype):
    """All floating tensors in one precision, against double precision on the same numbers."""
    unit = torch.finfo(dtype).eps / 2

    def situation(name):
        if not tensors(name, floating=True):
            return NOTHING
        call = ROWS[name]
        coarse = changed(name, lambda x: x.to(dtype), floating=True)
        fine = {part: x.double() if part in tensors(name, floating=True) else x for part, x in coarse.items()}
        with SameDraws():
            ours = run(name, arguments=coarse)
        with SameDraws():
            best = run(name, arguments=fine)
        if isinstance(best, Refused):  # numbers that rounding takes beyond what double precision lets pass
            fine = changed(name, torch.Tensor.double, floating=True)
            with SameDraws():
                best = run(name, arguments=fine)
        word = judged(
            name,
            ours,
            best,
            eps=max(unit, call.accuracy),
            roundings=HALF_ROUNDINGS,
            sensitivity=None if isinstance(best, Refused) else sensitivity(name, fine, best, unit),
            cure="float32",
            dtypes=False,
        )
        if word == "right" and not call.own_dtype:
            for part, single in zip(ours, truth(name), strict=True):
                if hasattr(part, "dtype") and single.dtype == torch.float32 != part.dtype != dtype:
                    raise WrongError(f"{dtype} gives {part.dtype}")
        return word

    return situation


def sensitivity(name, arguments, best, unit):
    """How far each part of the result moves when the arguments, and what functions return, move by a rounding."""
    moved = torch.zeros(len(best), dtype=torch.float64)
    for seed in range(3):
        random = np.random.default_rng(seed)

        def moving(x, random=random):
            return x * (1 + unit * torch.as_tensor(random.choice([-1.0, 1.0], tuple(x.shape))))

        near = arguments | {part: moving(arguments[part]) for part in tensors(name, floating=True)}
        with SameDraws(), dressed(lambda function, moving=moving: lambda *args: moving(function(*args))):
            result = run(name, arguments=near)
        if isinstance(result, Refused):
            continue
        for k, (a, b) in enumerate(zip(result, best, strict=True)):
            if not isinstance(a, str) and a.is_floating_point() and a.numel() and a.shape == b.shape:
                gap = (plain(a) - plain(b)).abs().nan_to_num(0, 0, 0).max()
                moved[k] = max(moved[k], gap)
    return moved.tolist()


def double(name):
    """Double precision: to its own roundings the same whatever the default type, and it sees what single cannot."""
    if not tensors(name, floating=True):
        return NOTHING
    arguments = changed(name, lambda x: x.double(), floating=True)
    with SameDraws(coarse=torch.float32):
        ours = run(name, arguments=arguments)
    with SameDraws(coarse=torch.float32), default_dtype(torch.float64):
        best = run(name, arguments=arguments)
    if ROWS[name].own_dtype:
        return judged(name, ours, best, dtypes=False)
    word = judged(name, ours, best, eps=max(DOUBLE, ROWS[name].accuracy), cure="float32")
    if word == "right":
        check_response(name, arguments, ours)
    return word


def waves(x):
    """Numbers like ``x``, between -1 and 1, no two of them alike."""
    return torch.sin(1 + torch.arange(x.numel(), dtype=torch.float64)).reshape(x.shape)


def check_response(name, arguments, result):
    """A change of the arguments that single precision cannot see changes the result as a greater one foretells."""

    def moved(share):
        near = arguments | {
            part: arguments[part] * (1 + share * waves(arguments[part]))
            for part in tensors(name, floating=True)
            if ROWS[name].arguments[part].rows
        }
        with SameDraws(coarse=torch.float32):
            return run(name, arguments=near)

    for before, small, great in zip(result, moved(1e-10), moved(1e-6), strict=True):
        if isinstance(before, str) or not before.is_floating_point():
            continue
        seen, foretold = plain(small) - plain(before), 1e-4 * (plain(great) - plain(before))
        finite = foretold.isfinite()  # the error of a single draw is infinite
        seen, foretold, before = seen[finite], foretold[finite], plain(before)[finite]
        if not before.numel():
            continue
        slack = 0.1 * foretold.abs().max() + 1e4 * DOUBLE * before.abs().max()
        if not torch.allclose(seen, foretold, rtol=0, atol=float(slack)):
            raise WrongError(
                f"a change by 1e-10 gives {shown([seen])}, foretold {shown([foretold])}: single precision?"
            )


def double_by_default(name):
    """Double precision as the default type: tensors keep theirs, numbers are taken as double."""
    with SameDraws():
        single = run(name)
    with SameDraws():
        ours = run(name, enter=lambda: default_dtype(torch.float64))
    word = judged(name, ours, single, dtypes=False)
    for part, before in zip(ours, single, strict=True):
        floating = bool(tensors(name, floating=True)) and not ROWS[name].own_dtype
        if floating and hasattr(part, "dtype") and part.dtype != before.dtype:
            raise WrongError(f"float32 gives {part.dtype}")
    return word


def meta_by_default(name):
    """The default device is another: what tensors there are keep theirs, and what has none is made there."""
    ours = run(name, arguments=surface.batch(ROWS[name]), enter=lambda: default_device("meta"))
    if not isinstance(ours, Refused) and any(hasattr(part, "is_meta") and part.is_meta for part in ours):
        if tensors(name):
            raise WrongError("tensors of the CPU give one elsewhere")
        shapes = [tuple(part.shape) if hasattr(part, "shape") else part for part in ours]
        expected = [tuple(part.shape) if hasattr(part, "shape") else part for part in truth(name)]
        if [s for s in shapes if isinstance(s, tuple)] != [s for s in expected if isinstance(s, tuple)]:
            raise WrongError(f"shapes {shapes} on the default device, {expected} on the CPU")
        return "right"
    return judged(name, ours, truth(name), cure="device")


def numpy_numbers(name):
    """Numbers of numpy where numbers of Python stand in the call."""
    words = set()
    for real, whole in ((np.float32, np.int64), (np.float64, np.int32)):
        met = []

        def convert(value, real=real, whole=whole, met=met):
            changed = numbers_as(real, whole)(value)
            if changed is not value:
                met.append(value)
            return changed

        with Outermost(convert, defaults=True):
            ours = run(name)
        with Outermost(numbers_as(lambda value, real=real: float(real(value)), int), defaults=True):
            best = run(name)
        if not met:
            return NOTHING
        words.add(judged(name, ours, best))
    return "/".join(sorted(words))


def hooks(name):
    """A forward hook is called whenever the forward is, and an override is obeyed."""
    with dressed(programs.Module) as modules:
        ours = run(name)
    if not any(module.n_calls for module in modules):
        return NOTHING
    for module in modules:
        if module.n_calls != module.n_hooks:
            raise WrongError(f"{module.n_calls} calls of forward, {module.n_hooks} of its hook")
    word = judged(name, ours, truth(name))
    process = next((made for kind, made in PROCESSES.items() if f".{kind}" in name), sde.VPSDE())
    for kind in (sde.ScoreModel, programs.Doubled):
        hidden, best = through(name, kind(programs.Field(), process), hide=True)
        if isinstance(best, Refused):  # takes no score of time
            continue
        open_calls, ours = through(name, kind(programs.Field(), process), hide=False)
        if isinstance(ours, Refused) and re.search(r"must be (one in noise scale|a model of dx/dt)", ours.text):
            continue
        judged(name, ours, best)
        if open_calls != hidden:
            raise WrongError(f"the hook of a {kind.__name__} is called {open_calls} times, {hidden} in a function")
    return word


PROCESSES = {"VESDE": sde.VESDE(), "SubVPSDE": sde.SubVPSDE(), "StraightPath": sde.StraightPath(), "VPSDE": sde.VPSDE()}


def through(name, model, *, hide):
    """Calls of a model's hook, and the outcome, with the model as every score that is given."""
    calls = []
    model.register_forward_hook(lambda module, inputs, output: calls.append(1))

    def guise(function):
        return (lambda x, t, **condition: model(x, t, **condition)) if hide else model

    with dressed(guise):
        result = run(name)
    return len(calls), result


def state(name):
    """Whatever has a state, copied and sent through bytes on its way into the package and out of it."""
    words = set()
    for copied in (copy.deepcopy, programs.pickled):
        convert = Copied(copied)

        def given_back(module, convert=convert):
            return convert(module)

        with Outermost(convert):
            ours = run(name, result=given_back)
        if not convert.n_copies:
            return NOTHING
        words.add(judged(name, ours, truth(name)))
    return "/".join(sorted(words))


@functools.cache
def spawned():
    """What every row gives in a new process, with the objects that this one has sent."""
    records = {}
    for name in ROWS:
        record = []
        with Outermost(Copied(lambda thing, record=record: record.append(pickle.dumps(thing)) or thing)):
            run(name)
        records[name] = record
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=programs.in_new_process, args=(there, records))
    process.start()
    there.close()
    try:
        found = here.recv_bytes()
    finally:
        process.join()
    return _loaded(found)


def spawn(name):
    return judged(name, spawned()[name], truth(name))


@functools.cache
def started(*options):
    """What every row gives under options of the interpreter."""
    script = Path(programs.__file__)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results"
        done = subprocess.run(
            [sys.executable, *options, script, file],
            env={**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
        asserts, documented, results = _loaded(file.read_bytes())
    assert (asserts, documented) == (False, False)
    return results


def interpreter(*options):
    """The plain call, and the one whose functions turn NaN, where the interpreter drops every assert."""

    def situation(name):
        ours, turned = started(*options)[name]
        here = programs.turned(name)
        if isinstance(here, Refused):
            if turned != here:
                raise WrongError(f"NaN half-way gives {shown(turned)}, not {shown(here)}")
        elif here != "never called twice":
            judged(name, turned, here)
        return judged(name, ours, truth(name))

    return situation


def _loaded(stored):
    return torch.load(io.BytesIO(stored), weights_only=False)


HERE = {
    "inference_mode": inference,
    "inference tensor": with_tensors(inference_tensor, cure="inference"),
    "no_grad": within(torch.no_grad, cure="no_grad"),
    "gradient": gradient,
    "cut score": cut,
    "NaN half-way": turning,
    "autocast": within(
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        lambda: torch.autocast("cpu", dtype=torch.float16),
        eps=torch.finfo(torch.bfloat16).eps / 2,
        roundings=HALF_ROUNDINGS,
        dtypes=False,
    ),
    "float16": in_precision(torch.float16),
    "bfloat16": in_precision(torch.bfloat16),
    "float64": double,
    "default float64": double_by_default,
    "default device": meta_by_default,
    "numpy numbers": numpy_numbers,
    "strides": with_tensors(transposed),
    "channels_last": channels_last,
    "subclass": with_tensors(lambda x: x.as_subclass(Tagged)),
    "parameter": with_tensors(torch.nn.Parameter, floating=True),
    "hooks": hooks,
    "copies": state,
    "deterministic": within(deterministic),
    "anomaly": within(anomaly),
}
ELSEWHERE = {
    "spawn": spawn,
    # Without docstrings it has no asserts either: what `-O` takes out is out here too.
    "-OO -W error": interpreter("-OO", "-W", "error"),
}
SITUATIONS = HERE | ELSEWHERE

REWRITE = "run this file and then cp _build/programs.json book/programs.json"
RECORD = json.loads((Path(__file__).resolve().parent.parent / "book" / "programs.json").read_text(encoding="utf-8"))


def check(name, situations, record_property):
    """Call a row in these situations, and hold what came against the faults that are known and against the record."""
    words, failures = {}, []
    for situation in situations:
        fault = name in KNOWN_FAULTS.get(situation, ())
        try:
            words[situation] = SITUATIONS[situation](name)
        except WrongError as error:
            words[situation] = "WRONG"
            if not fault:
                failures.append(f"{situation}: {error}")
        else:
            if fault:
                failures.append(f"{situation}: mended, take it off the list of known faults")
    record_property("programs", [name, words])
    assert not failures, "\n".join(failures)
    recorded = {situation: word for word, found in RECORD.get(name, {}).items() for situation in found}
    assert words == {s: recorded.get(s, "right") for s in situations}, f"the reference says otherwise: {REWRITE}"


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_call_is_right_or_refused_in_other_peoples_programs(name, record_property):
    check(name, HERE, record_property)


@pytest.mark.xdist_group("programs")
@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_call_is_right_or_refused_in_a_process_of_its_own(name, record_property):
    check(name, ELSEWHERE, record_property)


@pytest.mark.parametrize("name", sorted(name for name in ROWS if re.match(r"coursework_\w+\.check_", name)))
def test_a_check_is_called_with_an_answer_that_it_accepts(name):
    assert ROWS[name].run().passed


def test_a_row_draws_the_same_whatever_style_was_set_before():
    with plt.style.context("default"):
        before = run("plots.photographs")
        lab.use_style()
        after = run("plots.photographs")
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_public_name_is_called():
    names = {f"{module}.{name}" for module, path in public.MODULES.items() for name in names_of(path)}
    called = {name.partition(" (")[0] for name in ROWS}
    assert names - called == set(EXCUSED), "give a line in tests/surface, in CALLS or in WITHOUT_DATA"
    assert called <= names, "a call is left of a name that has gone"
    assert set(RECORD) == {"situations", *ROWS}, f"the reference does not name all calls: {REWRITE}"
    assert set(RECORD["situations"]) == set(SITUATIONS), f"the reference does not name all situations: {REWRITE}"


def names_of(path):
    code = importlib.import_module(path)
    return {*public.functions(code), *(name for name in public.own(code) if isinstance(getattr(code, name), type))}


# The test itself: each of these is wrong in one situation, and that cell has to say so.


def zeros_if(condition):
    return lambda x: 0 * x if condition(x) else 2 * x


def derivative_of_a_score(x):
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        value = reading.score(x)
    return torch.autograd.grad(value.sum(), x)[0] if value.requires_grad else torch.zeros_like(x)


def without_its_hook(x):
    function = reading.score
    return function.forward(x, 0.5) if isinstance(function, torch.nn.Module) else function(x, 0.5)


def by_products_of_great_numbers(x):
    rows = x.reshape(len(x), -1) + 1000
    return rows @ torch.eye(rows.shape[1], dtype=x.dtype) - 1000


def read_as_if_contiguous(x):
    strides = torch.empty(x.shape, device="meta").stride()
    return torch.as_strided(x, x.shape, strides) * 2


BROKEN = {
    "inference_mode": zeros_if(lambda x: torch.is_inference_mode_enabled()),
    "inference tensor": lambda x: x.requires_grad_().detach() * 2,
    "no_grad": zeros_if(lambda x: not torch.is_grad_enabled()),
    "gradient": lambda x: x + x.detach(),
    "cut score": derivative_of_a_score,
    "NaN half-way": lambda x: (reading.score(x) + reading.score(x)).nan_to_num(),
    "autocast": by_products_of_great_numbers,
    "float16": lambda x: (300 * x).square().sqrt(),
    "bfloat16": lambda x: (x + 1000) - 1000,
    "float64": lambda x: 2 * x.float().to(x.dtype),
    "default float64": lambda x: 2 * x.to(torch.get_default_dtype()),
    "default device": lambda x: 2 * torch.as_tensor(x),
    "strides": read_as_if_contiguous,
    "channels_last": read_as_if_contiguous,
    "subclass": zeros_if(lambda x: type(x) is Tagged),
    "parameter": zeros_if(lambda x: isinstance(x, torch.nn.Parameter)),
    "hooks": without_its_hook,
    "deterministic": zeros_if(lambda x: torch.are_deterministic_algorithms_enabled()),
    "anomaly": zeros_if(lambda x: torch.is_anomaly_enabled()),
}


@pytest.fixture
def row(monkeypatch):
    """Makes a row for the length of a test."""

    def made(function):
        monkeypatch.setitem(ROWS, "it", surface.Call(function, x=surface.points(), events=((2,), (2, 3, 4))))
        truth.cache_clear()
        return "it"

    yield made
    truth.cache_clear()


@pytest.mark.parametrize("situation", BROKEN)
def test_a_wrong_answer_is_seen(situation, row):
    with pytest.raises(WrongError):
        SITUATIONS[situation](row(BROKEN[situation]))


@pytest.mark.parametrize("situation", HERE)
def test_a_right_answer_passes(situation, row):
    assert SITUATIONS[situation](row(lambda x: 2 * x)) in ("right", "gradient", NOTHING)


def refusing(message, kind=ValueError):
    def refuse(x):
        if torch.is_inference_mode_enabled():
            # As if it were raised in the package.
            code = compile("def raised(error):\n    raise error", f"{programs._PACKAGE}/somewhere.py", "exec")
            space = {}
            exec(code, space)
            space["raised"](kind(message))
        return 2 * x

    return refuse


def test_a_refusal_names_the_argument_and_the_cure(row):
    assert inference(row(refusing("x cannot be used here: leave torch.inference_mode() first"))) == "refused"
    for message in ("x cannot be used here", "leave torch.inference_mode() first", ""):
        with pytest.raises(WrongError, match=r"is not named|no argument is named"):
            inference(row(refusing(message)))
    with pytest.raises(WrongError, match="obscure"):
        inference(row(refusing("x: leave inference_mode", KeyError)))
    with pytest.raises(WrongError, match="obscure"):  # not raised in the package
        inference(row(lambda x: x if not torch.is_inference_mode_enabled() else x.reshape(1000, 7)))


def test_numbers_of_numpy_that_are_not_taken_are_seen(monkeypatch):
    def strict(name, value):
        if type(value) is not int:
            raise ValueError(f"{name} must be an int")

    monkeypatch.setattr("scorebook.lab.arguments.positive_integer", strict)
    with pytest.raises(WrongError):
        numpy_numbers("arguments.positive_integer")


def test_a_state_that_is_lost_on_the_way_is_seen(monkeypatch):
    monkeypatch.setattr(History, "__reduce__", lambda self: (History, (self.loss[:1], 0.5)), raising=False)
    with pytest.raises(WrongError):
        state("training.History.smoothed")


@pytest.mark.parametrize("situation", ELSEWHERE)
def test_another_answer_of_another_process_is_seen(situation, monkeypatch):
    name = "sde.VPSDE.alpha"
    wrong = [0 * part for part in run(name)]
    monkeypatch.setitem(globals(), "spawned", lambda: {name: wrong})
    monkeypatch.setitem(globals(), "started", lambda *options: {name: (wrong, "never called twice")})
    with pytest.raises(WrongError):
        ELSEWHERE[situation](name)


def test_a_guard_that_python_takes_out_is_seen(monkeypatch):
    name = "sde.euler_maruyama"
    without = (run(name), [torch.full((4, 2), torch.nan)])
    monkeypatch.setitem(globals(), "started", lambda *options: {name: without})
    with pytest.raises(WrongError, match="NaN half-way"):
        ELSEWHERE["-OO -W error"](name)


def test_no_fault_is_known_of_what_does_not_exist():
    assert set(KNOWN_FAULTS) <= set(SITUATIONS)
    assert {name for names in KNOWN_FAULTS.values() for name in names} <= set(ROWS)
