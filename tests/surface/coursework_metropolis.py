"""Why nothing of ``scorebook.coursework.metropolis`` takes data, and calls of it on the book's own code."""

from scorebook import langevin
from scorebook.coursework import metropolis
from surface import Call

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {
    "check_metropolis": CODE,
}

WITHOUT_DATA = {
    "check_metropolis": Call(lambda: metropolis.check_metropolis(langevin.metropolis_adjusted_langevin, seed=0)),
}
