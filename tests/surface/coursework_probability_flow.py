"""Why nothing of ``scorebook.coursework.probability_flow`` takes data, and calls of it on the book's own code."""

from scorebook import probability_flow
from scorebook.coursework import probability_flow as checks
from surface import Call

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {
    "check_log_prob": CODE,
    "check_probability_flow": CODE,
}


def likelihood(process, score, x):
    """A right likelihood under the probability flow."""
    return probability_flow.log_prob(process, score, x, method="rk4", times=process.time_grid(8, spacing="karras"))


WITHOUT_DATA = {
    "check_log_prob": Call(lambda: checks.check_log_prob(likelihood, seed=0)),
    "check_probability_flow": Call(lambda: checks.check_probability_flow(probability_flow.velocity, seed=0)),
}
