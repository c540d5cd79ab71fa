"""Why nothing of ``scorebook.coursework.metropolis`` meets the meta device."""

MEASURES = "measures what a student's code returns, on problems of its own on the CPU"

NOT_DRIVEN = {
    "check_metropolis": MEASURES,
}
