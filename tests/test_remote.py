"""The line between a student's process and the tests: across it all is as in one process, but for what is secret."""

import contextlib
import os
import signal
import sys
import threading

import numpy as np
import pytest
import remote
import torch
from torch import nn

from scorebook import controllable_generation, coursework, sde
from scorebook.coursework import guard
from scorebook.coursework.guard import Student, under_guard
from scorebook.coursework.reports import Report


def loop(field, x):
    """A divergence, coordinate by coordinate."""
    x = x.detach().clone().requires_grad_()
    values = field(x)
    rows = [torch.autograd.grad(values[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
    return torch.stack(rows).sum(0)


def in_x_itself(field, x):
    x = x if x.requires_grad else x.clone().requires_grad_()
    values = field(x)
    return sum(torch.autograd.grad(values[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1]))


def detached(field, x):
    return loop(field, x).detach()


def reverse_by_row(field, x):
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: field(row[None])[0]))(x)
    return jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)


def forward_by_row(field, x):
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda row: field(row[None])[0]))(x)
    return jacobian.diagonal(dim1=-2, dim2=-1).sum(-1)


def reverse_of_the_sum(field, x):
    return torch.einsum("ibi->b", torch.func.jacrev(lambda rows: field(rows).sum(0))(x))


def functional(field, x):
    jacobian = torch.autograd.functional.jacobian(lambda rows: field(rows).sum(0), x, create_graph=True)
    return torch.einsum("ibi->b", jacobian)


def functional_vectorized(field, x):
    jacobian = torch.autograd.functional.jacobian(lambda rows: field(rows).sum(0), x, create_graph=True, vectorize=True)
    return torch.einsum("ibi->b", jacobian)


def one_row_after_the_other(field, x):
    jacobian = torch.autograd.functional.jacobian
    return torch.stack([torch.trace(jacobian(lambda r: field(r[None])[0], row, create_graph=True)) for row in x])


def basis(x):
    return torch.eye(x.shape[1], dtype=x.dtype)[:, None].expand(-1, len(x), -1)


def pushed(field, x):
    return sum(torch.func.jvp(field, (x,), (v,))[1][:, i] for i, v in enumerate(basis(x)))


def pulled(field, x):
    _, pull = torch.func.vjp(field, x)
    return torch.einsum("ibi->b", torch.func.vmap(pull)(basis(x))[0])


def all_gradients_at_once(field, x):
    x = x.detach().clone().requires_grad_()
    gradients = torch.autograd.grad(field(x), x, basis(x), is_grads_batched=True, create_graph=True)[0]
    return torch.einsum("ibi->b", gradients)


def dual_numbers(field, x):
    total = 0
    for i, v in enumerate(basis(x)):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, v.contiguous())
            total = total + torch.autograd.forward_ad.unpack_dual(field(dual)).tangent[:, i]
    return total


def differences(field, x):
    return sum((field(x + 1e-4 * v) - field(x - 1e-4 * v))[:, i] / 2e-4 for i, v in enumerate(basis(x)))


def with_weights(field, x):
    return loop(field, x) + sum(parameter.square().sum() for parameter in field.parameters())


def of_itself(field, x):
    return field(2 * field(x) + x).sum(1)


STYLES = [
    *(loop, in_x_itself, detached, reverse_by_row, forward_by_row, reverse_of_the_sum, functional),
    *(functional_vectorized, one_row_after_the_other, pushed, pulled, all_gradients_at_once, dual_numbers),
    *(differences, with_weights, of_itself),
]


def langevin(score, x, *, step_size, n_steps, generator=None):
    for _ in range(n_steps):
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = x + step_size * score(x) + (2 * step_size) ** 0.5 * z
    return x


def guided(score, process, observation):
    return controllable_generation.pseudoinverse_guidance(score, process, observation)


def everything(x):
    """One of each kind of value that can be sent."""
    return {
        "numbers": (True, 7, 10**40, 0.1, float("inf"), 1j, None),
        "texts": ["é", "half a character: \ud800".encode("utf-8", "replace").decode()],
        "arrays": [np.arange(6.0).reshape(2, 3), np.float32(0.5), np.array(True)],
        "tensors": [x.to(kind) for kind in (torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64)],
        "empty": torch.zeros(0, 3),
        (1, 2): {3},
        "kinds": [torch.float64, torch.device("cpu")],
        "many": (n**2 for n in range(3)),
    }


def mutates(x, y):
    x += 1
    y.requires_grad_()
    return x


def noisy():
    return torch.rand(3)


class Holder:
    """An object that cannot be sent."""

    level = 2

    def times(self, x):
        return self.level * x

    def __eq__(self, other):
        return True

    __hash__ = None


def fails(kind):
    raise {"own": KeyError("x"), "strange": type("Strange", (Exception,), {})("a"), "exit": SystemExit(3)}[kind]


def calls(f, x):
    return f(x)


def catches(f, x):
    try:
        return f(x)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def spies(f, name):
    return getattr(f, name)


def asks(given, name):
    """What the tests say of an attribute, whatever stands for the object here."""
    inside = object.__getattribute__(given, "__dict__")
    return inside["_peer"].attribute(inside["_number"], name)


def endless():
    while True:
        pass


def network(width):
    torch.manual_seed(0)
    return nn.Linear(width, width)


FUNCTIONS = [
    *(
        *STYLES,
        langevin,
        guided,
        everything,
        mutates,
        noisy,
        Holder,
        fails,
        calls,
        catches,
        spies,
        asks,
        endless,
        network,
    )
]


@pytest.fixture
def line():
    """The tests' side of a line to a process that has the functions above."""
    ours, theirs = remote.pair()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        ours.close()
        with contextlib.suppress(BaseException):
            torch.set_num_threads(1)
            remote.Student(theirs, {f.__name__: f for f in FUNCTIONS}).serve()
        os._exit(0)
    theirs.close()
    judge = remote.Judge(ours, pid)
    names = {}
    judge.bind([f.__name__ for f in FUNCTIONS], names)
    judge.functions = names
    yield judge
    with contextlib.suppress(remote.StudentError, ProcessLookupError):
        judge.rest()
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64))
        self.second = nn.Parameter(torch.randn(3, 4, generator=generator, dtype=torch.float64))
        self.secret = torch.ones(3)
        self.asked = 0

    def forward(self, x):
        self.asked += 1
        return torch.tanh(x @ self.first.mT) @ self.second.mT


def points():
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("style", STYLES)
def test_values_and_gradients_are_those_of_one_process_in_whatever_style_they_are_computed(style, line):
    found = []
    for f in (style, line.functions[style.__name__]):
        field, x = Field(), points().requires_grad_()
        value = f(field, x)
        gradients = []
        if value.requires_grad:
            gradients = torch.autograd.grad(
                value.square().sum(), [*field.parameters(), x], allow_unused=True, materialize_grads=True
            )
        found.append((value, *gradients))
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(there, here)
        assert there.requires_grad == here.requires_grad


def test_a_function_of_the_tests_is_called_as_often_as_in_one_process(line):
    counts = []
    for f in (loop, line.functions["loop"]):
        field = Field()
        f(field, points())
        counts.append(field.asked)
    assert counts == [1, 1]


def test_a_sampler_draws_what_it_would_draw_here_and_moves_the_generator(line):
    found = []
    for f in (langevin, line.functions["langevin"]):
        generator = torch.Generator().manual_seed(3)
        drawn = f(lambda x: -x, points(), step_size=0.1, n_steps=5, generator=generator)
        found.append((drawn, torch.rand(2, generator=generator)))
    for here, there in zip(*found, strict=True):
        assert torch.equal(here, there)


def test_the_global_seed_reaches_the_student_and_two_calls_differ(line):
    torch.manual_seed(4)
    expected = [torch.rand(3), torch.rand(3)]
    torch.manual_seed(4)
    assert torch.equal(line.functions["noisy"](), expected[0])
    assert torch.equal(line.functions["noisy"](), expected[1])


def test_the_books_objects_arrive_as_copies_and_a_function_that_comes_back_can_be_called(line):
    observation = controllable_generation.LinearObservation(
        torch.eye(2, dtype=torch.float64)[:1], torch.ones(1, dtype=torch.float64), 0.5
    )
    process = sde.VPSDE()
    made = line.functions["guided"](lambda x, t: -x, process, observation)
    here = guided(lambda x, t: -x, process, observation)
    x, t = points()[:, :2], torch.tensor(0.5, dtype=torch.float64)
    torch.testing.assert_close(made(x, t), here(x, t))


def test_plain_values_cross_the_line_whole(line):
    x = torch.tensor([0.0, 1.0, -2.5])
    here, there = everything(x), line.functions["everything"](x)
    here["many"] = [0, 1, 4]
    assert list(there) == list(here)
    for name in ("numbers", "texts", (1, 2), "kinds", "many"):
        assert there[name] == here[name]
    assert [type(part) for part in there["numbers"]] == [type(part) for part in here["numbers"]]
    for a, b in zip(there["arrays"], here["arrays"], strict=True):
        assert type(a) is type(b)
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    for a, b in zip([*there["tensors"], there["empty"]], [*here["tensors"], here["empty"]], strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_what_a_student_does_to_an_argument_is_seen_here(line):
    x, y = torch.zeros(2), torch.zeros(2)
    line.functions["mutates"](x, y)
    assert torch.equal(x, torch.ones(2))
    assert y.requires_grad
    student = Student("f(x, y)")
    report = under_guard(
        "check",
        lambda: student.call(line.functions["mutates"], x, y) and Report("check", True, ""),
        student,
        time_limit=60,
    )
    assert "changes its argument x in place" in report.diagnosis


def test_what_cannot_be_sent_stays_there_and_equals_nothing(line):
    held = line.functions["Holder"]()
    assert held.times(3) == 6
    assert held.level == 2
    assert held != 6
    for wrong in (lambda: held + 1, lambda: float(held), lambda: torch.as_tensor(held), lambda: held(1)):
        with pytest.raises((TypeError, RuntimeError, ValueError)):
            wrong()


def test_a_student_gets_numbers_of_a_function_and_nothing_else(line):
    field = Field()
    field.level = 3

    def closure(x):
        return field.secret

    closure.truth = torch.ones(3)
    for f, name in ((closure, "__closure__"), (closure, "truth"), (closure, "__globals__"), (points, "_peer")):
        with pytest.raises((AttributeError, remote.StudentError, TypeError)):
            line.functions["spies"](f, name).shape  # noqa: B018
    with pytest.raises((AttributeError, remote.StudentError)):
        line.functions["spies"](field, "secret")
    holder = Holder()
    holder._truth = 7
    for name in ("_truth", "__dict__", "__class__", "__init__"):
        with pytest.raises(AttributeError, match="not for you"):
            line.functions["asks"](holder, name)
    assert line.functions["asks"](holder, "level") == 2
    closure.data_std = 0.5
    assert line.functions["spies"](closure, "data_std") == 0.5


def test_an_exception_of_the_students_is_one_of_pythons_own(line):
    with pytest.raises(KeyError, match="x"):
        line.functions["fails"]("own")
    with pytest.raises(remote.StudentError, match="Strange: a"):
        line.functions["fails"]("strange")
    with pytest.raises(remote.StudentError, match="SystemExit: 3"):
        line.functions["fails"]("exit")


class Enough(BaseException):
    """Ends a call from within."""


def test_an_exception_of_the_tests_comes_back_as_itself(line):
    def raises(error):
        def f(x):
            raise error

        return f

    refused, enough = ValueError("t must lie in [0, 1]"), Enough()
    assert line.functions["catches"](raises(refused), 1) == "ValueError: t must lie in [0, 1]"
    with pytest.raises(ValueError, match="must lie") as raised:
        line.functions["calls"](raises(refused), 1)
    assert raised.value is refused
    with pytest.raises(Enough) as raised:
        line.functions["catches"](raises(enough), 1)
    assert raised.value is enough


def test_the_modes_of_the_tests_hold_there(line):
    model = line.functions["network"](3)
    x = torch.ones(2, 3)
    assert model(x).requires_grad
    with torch.no_grad():
        assert not model(x).requires_grad


def test_an_endless_function_is_given_up_after_the_time_that_it_computes_and_the_line_goes_on(line, monkeypatch):
    monkeypatch.setattr(guard, "_PATIENCE", 10**6)  # on a busy machine the wall's limit would come first
    student = Student("f()")
    report = under_guard(
        "check", lambda: student.call(line.functions["endless"]) or Report("check", True, ""), student, time_limit=0.5
    )
    assert report.mistake == "time"
    assert "computed for more than 0.5 seconds" in report.diagnosis
    assert line.functions["calls"](lambda x: x + 1, 2) == 3


def test_a_check_runs_across_the_line_and_in_a_thread(line):
    reports = []
    thread = threading.Thread(target=lambda: reports.append(coursework.check_langevin(line.functions["langevin"])))
    thread.start()
    thread.join()
    assert reports[0].passed
    assert coursework.check_divergence(line.functions["loop"]).passed
    assert (
        coursework.check_divergence(line.functions["detached"]).passed == coursework.check_divergence(detached).passed
    )


def test_a_process_that_has_ended_is_an_error(line):
    os.kill(line.pid, signal.SIGKILL)
    with pytest.raises(remote.StudentError, match=r"ended|gone"):
        line.functions["noisy"]()


@pytest.mark.parametrize(
    ("tree", "error"),
    [
        (["value", 0], remote.StudentError),
        (["yours", 5], KeyError),
        (["array", "|O", [1], 0, False], remote.StudentError),
        (["array", "<f8", [10**9], 0, False], ValueError),
        (["tensor", 7], IndexError),
        (["torch", "dtype", "qint8"], KeyError),
        (["no_such_kind"], remote.StudentError),
        (["_class__"], remote.StudentError),
        (["_getattribute__", "peer"], remote.StudentError),
    ],
)
def test_a_forged_answer_is_refused_and_never_unpickled(tree, error, tmp_path):
    ours, theirs = remote.pair()
    judge, forger = remote.Judge(ours, os.getpid()), remote.Student(theirs, {})
    bomb = f"cposix\nmkdir\n(S'{tmp_path / 'harm'}'\ntR."
    forger.on_fetch = lambda message, blobs: ({"value": tree, "tensors": []}, [bomb.encode()])
    thread = threading.Thread(target=forger.serve, daemon=True)
    thread.start()
    with pytest.raises(error):
        judge.bind(["x"], {})
    judge.rest()
    thread.join()
    assert not (tmp_path / "harm").exists()
