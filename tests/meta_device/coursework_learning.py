"""Why nothing of ``scorebook.coursework.learning`` meets the meta device."""

MEASURES = "measures what a student's code returns, on problems of its own on the CPU"

NOT_DRIVEN = {
    "check_divergence": MEASURES,
    "check_loss": MEASURES,
    "check_score": MEASURES,
}
