"""Why nothing of ``scorebook.coursework.sliced_score_matching`` takes data, and calls of it on the book's own code."""

from scorebook import sliced_score_matching
from scorebook.coursework import sliced_score_matching as checks
from surface import Call

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {
    "check_projections": CODE,
}

WITHOUT_DATA = {
    "check_projections": Call(lambda: checks.check_projections(sliced_score_matching.random_projections, seed=0)),
}
