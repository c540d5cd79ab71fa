"""Why nothing of ``scorebook.coursework.reports`` meets the meta device."""

COMPARES = "compares numbers, which a meta tensor has not"

NOT_DRIVEN = {
    "Answer": COMPARES,
    "Measurement": "holds numbers",
    "Mistake": "holds words",
    "Report": "holds words and numbers",
    "judge": COMPARES,
    "slips": "makes mistakes, which hold words",
    "spelt": "reads numbers, which a meta tensor has not",
}
