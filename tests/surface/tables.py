"""Why nothing of ``scorebook.lab.tables`` takes data, and calls of it."""

import contextlib
import io

from scorebook.lab import tables
from surface import Call, constant

SHOWN = "shows numbers as they are, NaN and infinity too; test_tables shows that a claim of them fails"

NO_DATA = {
    "Claim": SHOWN,
    "Table": "holds words",
    "claims": SHOWN,
    "plus_minus": SHOWN,
    "significant": SHOWN,
    "table": SHOWN,
}


def shown():
    """What the closing table prints."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        tables.claims([claim()])
    return text.getvalue()


def claim():
    """A claim that holds."""
    headline = "A third is {measured}, of {expected}."
    return tables.Claim("a third", 0.3334, 1 / 3, error=0.0001, resolution=0.001, headline=headline)


WITHOUT_DATA = {
    "Claim": Call(lambda: claim().measured),
    "Claim.holds": Call(lambda: claim().holds),
    "Claim.shortcoming": Call(lambda: claim().shortcoming),
    "Claim.weakness": Call(lambda: claim().weakness),
    "Claim.to_dict": Call(lambda: claim().to_dict()),
    "Claim.told": Call(lambda: claim().told),
    "Table": Call(lambda: repr(tables.Table(["n"], [["1"]], [True]))),
    "claims": Call(shown),
    "plus_minus": Call(lambda: tables.plus_minus(0.5012, 0.004)),
    "significant": Call(lambda: tables.significant(0.0125, 2)),
    "table": Call(lambda x: repr(tables.table({"n": [1, 2], "x": x})), x=constant([0.5, 0.25])),
}
