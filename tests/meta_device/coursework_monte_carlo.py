"""Why nothing of ``scorebook.coursework.monte_carlo`` meets the meta device."""

MEASURES = "measures what a student's code returns, on problems of its own on the CPU"

NOT_DRIVEN = {
    "check_estimate": MEASURES,
}
