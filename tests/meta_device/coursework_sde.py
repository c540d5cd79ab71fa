"""Why nothing of ``scorebook.coursework.sde`` meets the meta device."""

MEASURES = "measures what a student's code returns, on problems of its own on the CPU"

NOT_DRIVEN = {
    "check_reverse_step": MEASURES,
    "check_sampler": MEASURES,
    "check_sde": MEASURES,
}
