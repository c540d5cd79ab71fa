"""Why nothing of ``scorebook.lab.tables`` meets the meta device."""

SHOWS = "shows numbers, which a meta tensor has not"

NOT_DRIVEN = {
    "Claim": SHOWS,
    "Table": SHOWS,
    "claims": SHOWS,
    "plus_minus": SHOWS,
    "significant": SHOWS,
    "table": SHOWS,
}
