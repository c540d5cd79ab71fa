"""Why nothing of ``scorebook.coursework.sampling`` takes data."""

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_guard spoil in every way"

NO_DATA = {
    "check_annealed": CODE,
    "check_langevin": CODE,
}
