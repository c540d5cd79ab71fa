"""Why nothing of ``scorebook.coursework.monte_carlo`` takes data, and calls of it on the book's own code."""

from scorebook import monte_carlo
from scorebook.coursework import monte_carlo as checks
from surface import Call

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {
    "check_estimate": CODE,
}

WITHOUT_DATA = {
    "check_estimate": Call(lambda: checks.check_estimate(monte_carlo.effective_draws, "effective_draws", seed=0)),
}
