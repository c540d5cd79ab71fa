"""Why nothing of ``scorebook.coursework.continuous_time`` takes data."""

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_guard spoil in every way"

NO_DATA = {
    "check_guidance": CODE,
    "check_log_prob": CODE,
    "check_probability_flow": CODE,
    "check_reverse_step": CODE,
    "check_sde": CODE,
}
