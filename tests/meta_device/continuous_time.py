"""Why nothing of ``scorebook.coursework.continuous_time`` meets the meta device."""

MEASURES = "measures what a student's code returns, on problems of its own on the CPU"

NOT_DRIVEN = {
    "check_guidance": MEASURES,
    "check_log_prob": MEASURES,
    "check_probability_flow": MEASURES,
    "check_reverse_step": MEASURES,
    "check_sde": MEASURES,
}
