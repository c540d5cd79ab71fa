"""Why nothing of ``scorebook.coursework.problems`` meets the meta device."""

PROBLEM = "serves the checks, whose problems are on the CPU"

NOT_DRIVEN = {
    "child": PROBLEM,
    "continued": PROBLEM,
    "drift_rate": PROBLEM,
    "is_standard": PROBLEM,
    "random_mixture": PROBLEM,
    "random_sde": PROBLEM,
    "refuse_coupled_rows": PROBLEM,
    "refuse_coupling": PROBLEM,
    "refuse_dependent_noise": PROBLEM,
    "refuse_loud_noise": PROBLEM,
    "refuse_other_times": PROBLEM,
    "rms": PROBLEM,
    "seeded": PROBLEM,
}
