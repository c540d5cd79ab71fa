"""Why nothing of ``scorebook.coursework.guard`` meets the meta device."""

NOT_DRIVEN = {
    "Refusal": "holds words",
    "Student": "refuses a tensor without values, which test_coursework_guard shows",
    "under_guard": "takes no tensor",
}
