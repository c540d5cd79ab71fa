"""Why nothing of ``scorebook.lab.tables`` takes data."""

SHOWN = "shows numbers as they are, NaN and infinity too; test_tables shows that a claim of them fails"

NO_DATA = {
    "Claim": SHOWN,
    "Table": "holds words",
    "claims": SHOWN,
    "plus_minus": SHOWN,
    "significant": SHOWN,
    "table": SHOWN,
}
