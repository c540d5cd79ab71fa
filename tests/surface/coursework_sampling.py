"""Why nothing of ``scorebook.coursework.sampling`` takes data, and calls of it on the book's own code."""

from scorebook import langevin, noise_scales
from scorebook.coursework import sampling
from surface import Call

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {
    "check_annealed": CODE,
    "check_langevin": CODE,
}

WITHOUT_DATA = {
    "check_annealed": Call(lambda: sampling.check_annealed(noise_scales.annealed_langevin, seed=0)),
    "check_langevin": Call(lambda: sampling.check_langevin(langevin.langevin, seed=0)),
}
