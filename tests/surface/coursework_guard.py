"""Why nothing of ``scorebook.coursework.guard`` takes data, and calls of it."""

from scorebook.coursework import guard, reports
from surface import Call, points

NO_DATA = {
    "Refusal": "holds words",
    "Student": "holds a student's code; test_coursework_guard shows what it refuses of the answers",
    "under_guard": "takes a check",
}

WITHOUT_DATA = {
    "Refusal": Call(lambda: str(guard.Refusal("it is None", "type"))),
    "Student": Call(lambda: guard.Student("f(x)").signature),
    "Student.call": Call(lambda x: guard.Student("f(x)").call(lambda x: 2 * x, x), x=points()),
    "Student.connected": Call(lambda x: guard.Student("f(x)").connected(x, x.shape, "it"), x=points()),
    "Student.seconds": Call(lambda: guard.Student("f(x)").seconds),
    "Student.tensor": Call(lambda x: guard.Student("f(x)").tensor(x, x.shape, "it"), x=points(), own_dtype=True),
    "Student.wall_seconds": Call(lambda: guard.Student("f(x)").wall_seconds),
    "under_guard": Call(
        lambda: guard.under_guard(
            "check", lambda: reports.Report("check", True, "right"), guard.Student("f()"), time_limit=30.0
        )
    ),
}
