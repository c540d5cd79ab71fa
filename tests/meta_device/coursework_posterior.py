"""Why nothing of ``scorebook.coursework.posterior`` meets the meta device."""

MEASURES = "measures what a student's code returns, on problems of its own on the CPU"

NOT_DRIVEN = {"check_coverage": MEASURES, "check_posterior": MEASURES, "check_ranks": MEASURES}
