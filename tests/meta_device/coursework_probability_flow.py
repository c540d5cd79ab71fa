"""Why nothing of ``scorebook.coursework.probability_flow`` meets the meta device."""

MEASURES = "measures what a student's code returns, on problems of its own on the CPU"

NOT_DRIVEN = {
    "check_log_prob": MEASURES,
    "check_probability_flow": MEASURES,
}
