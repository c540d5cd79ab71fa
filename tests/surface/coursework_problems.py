"""Why nothing of ``scorebook.coursework.problems`` takes data, and calls of it."""

import torch

from scorebook import sde
from scorebook.coursework import problems
from scorebook.coursework.guard import Student
from surface import Call, beforehand, generator, points

DRAWS = "draws a problem"
ANSWERS = "looks at what a student's code returned, in double precision: test_coursework_problems shows what it refuses"

NO_DATA = {
    "child": DRAWS,
    "continued": "takes an SDE",
    "drift_rate": "takes times of its own problem",
    "is_standard": ANSWERS,
    "random_mixture": DRAWS,
    "random_sde": DRAWS,
    "refuse_coupled_rows": ANSWERS,
    "refuse_coupling": ANSWERS,
    "refuse_dependent_noise": ANSWERS,
    "refuse_loud_noise": ANSWERS,
    "refuse_other_times": ANSWERS,
    "rms": ANSWERS,
    "seeded": "takes a whole number",
}


@beforehand
def draws():
    """Independent standard normal numbers, in double precision."""
    return torch.randn(64, 3, generator=generator(), dtype=torch.float64)


def moved(x, source):
    """A step of each row by itself."""
    return 0.5 * x


def asked_once(t):
    """A score that was asked where it should be."""
    return problems.refuse_other_times([t], t, sde.VPSDE())


WITHOUT_DATA = {
    "child": Call(lambda: problems.child(generator()).initial_seed()),
    "continued": Call(lambda: problems.continued(sde.VPSDE()).alpha(-draws()[:, 0].sigmoid())),
    "drift_rate": Call(lambda: problems.drift_rate(sde.VPSDE(), draws()[:, 0].sigmoid())),
    "is_standard": Call(lambda: problems.is_standard(draws())),
    "random_mixture": Call(lambda: problems.random_mixture(2, generator()).means),
    "random_sde": Call(lambda: repr(problems.random_sde(generator()))),
    "refuse_coupled_rows": Call(lambda: problems.refuse_coupled_rows(moved, draws(), generator())),
    "refuse_coupling": Call(
        lambda x: problems.refuse_coupling(Student("f(x)"), lambda x: 2 * x, x.double(), 2 * x.double(), 1e-6),
        x=points(),
    ),
    "refuse_dependent_noise": Call(lambda: problems.refuse_dependent_noise(draws())),
    "refuse_loud_noise": Call(lambda: problems.refuse_loud_noise("estimate", 1.0, 1.0)),
    "refuse_other_times": Call(lambda: asked_once(draws()[0, 0])),
    "rms": Call(lambda: problems.rms(draws())),
    "seeded": Call(lambda: problems.seeded(3).initial_seed()),
}
