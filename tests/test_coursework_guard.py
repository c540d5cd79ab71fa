"""Hostile student code: whatever it does, a report comes of it, in time, and nothing of the caller's is changed."""

import contextlib
import signal
import threading
import time

import pytest
import torch

from scorebook import coursework, langevin, sde
from scorebook.coursework import guard
from scorebook.coursework.guard import Student, under_guard
from scorebook.coursework.reports import Report

# Each check with code that takes its first arguments and ends in an answer of some kind.
CHECKS = {
    "check_score": lambda f, **options: coursework.check_score(f, two_points(), **options),
    "check_divergence": coursework.check_divergence,
    "check_divergence by projections": lambda f, **options: coursework.check_divergence(f, exact=False, **options),
    "check_loss, explicit": lambda f, **options: coursework.check_loss(f, "explicit", **options),
    "check_loss, implicit": lambda f, **options: coursework.check_loss(f, "implicit", **options),
    "check_loss, sliced": lambda f, **options: coursework.check_loss(f, "sliced", **options),
    "check_loss, denoising": lambda f, **options: coursework.check_loss(f, "denoising", **options),
    "check_loss, sde": lambda f, **options: coursework.check_loss(f, "sde", **options),
    "check_langevin": coursework.check_langevin,
    "check_annealed": coursework.check_annealed,
    "check_sde": lambda f, **options: coursework.check_sde(WithEverything(f), **options),
    "check_reverse_step": coursework.check_reverse_step,
    "check_probability_flow": coursework.check_probability_flow,
    "check_probability_flow's field": lambda f, **options: coursework.check_probability_flow(
        lambda sde, score: f, **options
    ),
    "check_log_prob": coursework.check_log_prob,
    "check_guidance": lambda f, **options: coursework.check_guidance(f, observed(), **options),
}


def two_points():
    from scorebook import lab

    return lab.GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], 0.3)


def observed():
    from scorebook.controllable_generation import LinearObservation

    return LinearObservation(torch.eye(2, dtype=torch.float64)[:1], torch.ones(1, dtype=torch.float64), 0.5)


class WithEverything:
    """An SDE all of whose methods are the same hostile function."""

    def __init__(self, function):
        self.alpha = self.sigma = self.drift = self.diffusion = self.perturb = function


def raises(*arguments, **options):
    return 1 / 0


def stub(*arguments, **options):
    raise NotImplementedError


def leaves(*arguments, **options):
    raise SystemExit(3)


def recurses(*arguments, **options):
    return recurses(*arguments, **options)


def nothing(*arguments, **options):
    return None


def text(*arguments, **options):
    return "0.5"


def wrong_shape(*arguments, **options):
    return torch.zeros(3, 1, 7)


def empty(*arguments, **options):
    return torch.zeros(0)


def without_values(*arguments, **options):
    return torch.zeros(1, device="meta")


def complex_numbers(*arguments, **options):
    return torch.zeros(1, dtype=torch.complex64)


def not_numbers(*arguments, **options):
    like = next((a for a in arguments if isinstance(a, torch.Tensor)), torch.zeros(()))
    return torch.full_like(like, torch.nan)


def no_arguments():
    return 0


HOSTILE = {
    "raises": (raises, "your code raised ZeroDivisionError: division by zero (line"),
    "a stub": (stub, "there is no answer yet"),
    "exit": (leaves, "your code ended the program: it raised SystemExit: 3"),
    "recursion": (recurses, "RecursionError"),
    "None": (nothing, ""),
    "text": (text, "got str"),
    "shape": (wrong_shape, ""),
    "empty": (empty, ""),
    "meta": (without_values, ""),
    "complex": (complex_numbers, ""),
    "NaN": (not_numbers, ""),
    "signature": (no_arguments, "could not be called as"),
    "not callable": (3, ""),
}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("check", CHECKS)
def test_hostile_code_becomes_a_report(check, hostile):
    function, words = HOSTILE[hostile]
    report = CHECKS[check](function)
    assert not report.passed
    assert isinstance(report, Report)
    # A velocity that is no callable, or a perturbation, is refused before the code is asked.
    if "flow" not in check and check != "check_sde":
        assert words in report.diagnosis
    assert repr(report)
    assert report._repr_html_()
    with pytest.raises(AssertionError):
        report.require()


def endless(*arguments, **options):
    while True:
        pass


def deaf(*arguments, **options):
    while not LET_GO.is_set():
        with contextlib.suppress(BaseException):
            time.sleep(0.001)


def endless_in_torch(*arguments, **options):
    while True:
        torch.zeros(10) + 1


LET_GO = threading.Event()


@pytest.mark.parametrize("check", CHECKS)
def test_an_endless_loop_is_given_up_and_ended(check, monkeypatch):
    monkeypatch.setattr(guard, "_PATIENCE", 10**6)  # on a busy machine the wall's limit would come first
    before = set(threading.enumerate())
    report = CHECKS[check](endless, time_limit=0.05)
    assert report.mistake == "time"
    assert "computed for more than 0.05 seconds" in report.diagnosis
    assert "could not be stopped" not in report.diagnosis
    for thread in set(threading.enumerate()) - before:
        thread.join()


def test_code_that_nothing_stops_is_left_behind_and_the_report_says_so(monkeypatch):
    monkeypatch.setattr(guard, "_ATTEMPTS", 3)
    LET_GO.clear()
    report = coursework.check_langevin(deaf, time_limit=0.05)
    LET_GO.set()
    assert report.mistake == "time"
    assert "could not be stopped and goes on" in report.diagnosis


def test_a_loop_of_tensor_operations_is_ended():
    report = coursework.check_langevin(endless_in_torch, time_limit=0.05)
    assert report.mistake == "time"
    assert "could not be stopped" not in report.diagnosis


def test_a_check_runs_outside_the_main_thread_and_leaves_alarms_alone():
    reports = []
    thread = threading.Thread(target=lambda: reports.append(coursework.check_langevin(endless, time_limit=0.05)))
    before = signal.getsignal(signal.SIGALRM)
    thread.start()
    thread.join()
    assert reports[0].mistake == "time"
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_readers_own_interrupt_ends_the_check():
    rounds = [0]

    def counts(*arguments, **options):
        while True:
            rounds[0] += 1

    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        coursework.check_langevin(counts, time_limit=None)
    assert rounds[0] > 0
    time.sleep(0.1)
    before = rounds[0]
    time.sleep(0.1)
    assert rounds[0] == before  # what threading says of an interrupted thread is not to be relied on


def computes(seconds):
    begun = time.thread_time()
    while time.thread_time() - begun < seconds:
        pass


def test_only_the_students_time_counts():
    student = Student("f()")

    def check():
        computes(0.3)
        student.call(lambda: None)
        return Report("check", True, "slow, but not by the student")

    assert under_guard("check", check, student, time_limit=0.2)


def test_only_what_is_computed_counts_and_not_what_a_busy_machine_keeps_waiting():
    student = Student("f()")

    def check():
        student.call(computes, 0.02)
        student.call(time.sleep, 0.6)
        return Report("check", True, "slow, but not by its computing")

    assert under_guard("check", check, student, time_limit=0.5)
    assert 0.02 <= student.seconds < 0.5
    assert student.wall_seconds >= 0.62


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="no clock of a thread on this system")
def test_a_thread_left_behind_does_not_eat_the_time_of_the_next_check():
    student, let_go = Student("f()"), threading.Event()

    def left_behind():
        while not let_go.is_set():
            pass

    def check():
        student.call(computes, 0.1)
        return Report("check", True, "done")

    thread = threading.Thread(target=left_behind)
    thread.start()
    assert under_guard("check", check, student, time_limit=5)
    let_go.set()
    thread.join()
    assert 0.1 <= student.seconds < 0.15


def test_code_that_waits_for_nothing_is_given_up_too():
    def sleeps(*arguments, **options):
        while True:
            time.sleep(0.01)

    report = coursework.check_langevin(sleeps, time_limit=0.05)
    assert report.mistake == "time"
    assert "during 0.5 seconds (10 times time_limit), most of them idle" in report.diagnosis
    assert "could not be stopped" not in report.diagnosis


def test_the_seconds_of_several_calls_add_up():
    student = Student("f()")
    for _ in range(3):
        student.call(lambda: student.call(computes, 0.05))
    assert 0.15 <= student.seconds < 0.3


def test_no_limit_is_no_limit():
    student = Student("f()")

    def check():
        student.call(time.sleep, 0.2)
        return Report("check", True, "done")

    assert under_guard("check", check, student, time_limit=None)


@pytest.mark.parametrize("limit", [0, -1, "soon", True, float("nan")])
def test_a_time_limit_must_be_positive(limit):
    with pytest.raises(ValueError, match="time_limit must be a positive number of seconds or None"):
        coursework.check_langevin(langevin.langevin, time_limit=limit)


def test_a_seed_must_be_an_integer():
    with pytest.raises(ValueError, match="seed must be an integer, got 'x'"):
        coursework.check_langevin(langevin.langevin, seed="x")


def in_place_sampler(score, x, *, step_size, n_steps, generator):
    for _ in range(n_steps):
        x += step_size * score(x) + (2 * step_size) ** 0.5 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x


def in_place_step(process, score, x, t, dt, *, generator):
    t += dt
    return x


@pytest.mark.parametrize(
    ("check", "function", "name"),
    [
        (coursework.check_langevin, in_place_sampler, "x"),
        (coursework.check_reverse_step, in_place_step, "t"),
        (CHECKS["check_score"], lambda points: points.mul_(-1), "points"),
        (coursework.check_annealed, lambda score, x, *rest, **options: (rest[0].mul_(2), x)[1], "number 1"),
    ],
)
def test_changed_inputs_are_refused_by_name(check, function, name):
    report = check(function)
    assert report.mistake == "mutation"
    assert f"changes its argument {name} in place" in report.diagnosis


def test_the_global_seed_and_type_are_put_back():
    def careless(score, x, *, step_size, n_steps, generator):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        return x + torch.rand(1)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    coursework.check_langevin(careless)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_default_dtype() == torch.float32


def test_a_callers_mode_does_not_reach_the_student():
    with torch.no_grad():
        assert coursework.check_divergence(lambda field, x: trace(field, x))


def trace(field, x):
    x = x.clone().requires_grad_()
    out = field(x)
    return sum(torch.autograd.grad(out[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(x.shape[1]))


def test_the_place_of_an_error_is_in_the_students_file():
    def broken(process, score, x, t, dt, generator):
        return sde.reverse_drift(process, score, x, t + 5)

    report = coursework.check_reverse_step(broken)
    assert (
        "of test_coursework_guard.py, in broken: return sde.reverse_drift(process, score, x, t + 5))"
        in report.diagnosis
    )
    assert isinstance(report.cause, ValueError)


@pytest.mark.parametrize(
    ("shape", "wanted", "words"),
    [
        ((), (5,), ": one number for the whole batch instead of one for each point"),
        ((), (5, 2), ": one number for the whole batch instead of one for each point"),
        ((5, 1), (5,), ": drop the last axis, or it meets a row and makes a table"),
        ((5, 5), (5,), ": a column met a row, (B, 1) and (B,), and made a table"),
        *[(shape, (5,), "") for shape in ((4,), (1, 5), (5, 2), (4, 4), (4, 5), (5, 4))],
        *[((5,), (5, 2), ""), ((5, 5), (5, 2), ""), ((5, 2, 1), (5, 2), ""), ((1,), (), "")],
    ],
)
def test_a_wrong_shape_is_told_with_how_one_comes_to_it(shape, wanted, words):
    with pytest.raises(guard.Refusal) as refused:
        Student("f()").tensor(torch.zeros(shape), wanted, "the loss")
    assert str(refused.value) == f"the loss must have shape {wanted}, got {shape}{words}"


@pytest.mark.parametrize("function", [3, None, torch.zeros(2)])
def test_what_is_no_function_is_refused_with_a_generator_too(function):
    with pytest.raises(guard.Refusal, match=r"could not be called as f\(x\)"):
        Student("f(x)").call(function, torch.zeros(2), generator=torch.Generator())


def test_a_generator_is_passed_only_to_who_takes_it():
    student = Student("f()")
    assert student.call(lambda *, generator: generator, generator=3) == 3
    assert student.call(lambda **options: options, generator=3) == {"generator": 3}
    assert student.call(lambda: "none", generator=3) == "none"
