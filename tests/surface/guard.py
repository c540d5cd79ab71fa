"""Why nothing of ``scorebook.coursework.guard`` takes data."""

NO_DATA = {
    "Refusal": "holds words",
    "Student": "holds a student's code; test_guard shows what it refuses of the answers",
    "under_guard": "takes a check",
}
