"""Why nothing of ``scorebook.coursework.learning`` takes data."""

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_guard spoil in every way"

NO_DATA = {
    "check_divergence": CODE,
    "check_loss": CODE,
    "check_score": CODE,
}
