"""Why nothing of ``scorebook.coursework.reports`` takes data."""

ANSWERS = "takes what the checks measured, which may be anything: test_reports shows that NaN never passes"

NO_DATA = {
    "Answer": ANSWERS,
    "Measurement": "holds numbers",
    "Mistake": "holds words",
    "Report": "holds words and numbers",
    "judge": ANSWERS,
}
