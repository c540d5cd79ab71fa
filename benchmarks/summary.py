"""From rows of repeated measurements to medians with their spread."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

__all__ = ["RESULTS", "Summary", "read", "summarise", "summary_of"]

RESULTS = Path(__file__).with_name("results.json")


@dataclass(frozen=True)
class Summary:
    """The median of ``n`` repetitions, and the quartiles between which the middle half of them lies."""

    median: float
    low: float
    high: float
    n: int


def summary_of(values) -> Summary:
    """Median and quartiles of numbers; the quartiles are interpolated linearly, as NumPy does by default.

    Raises:
        ValueError: if there is no number.
    """
    values = list(values)
    if not values:
        raise ValueError("values must hold at least one number, got none")
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return Summary(median(values), low, high, len(values))


def summarise(rows, by, value) -> dict[tuple, Summary]:
    """The :class:`Summary` of one column for each combination of the others, in the order of their first rows.

    Args:
        rows: flat dicts, one for each repetition of each case; those that lack a column of ``by`` are left out.
        by: names of the columns that tell one case from another.
        value: name of the column to summarise.

    Returns:
        Summaries, by tuples of the values of ``by``.
    """
    groups = {}
    for row in rows:
        if value in row and all(name in row for name in by):
            groups.setdefault(tuple(row[name] for name in by), []).append(row[value])
    return {case: summary_of(values) for case, values in groups.items()}


def read(path=RESULTS) -> dict:
    """The stored results: for each benchmark ``about``, how it was measured, and ``rows``, what came out."""
    return json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).exists() else {}
