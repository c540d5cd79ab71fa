r"""Tables in a page, and the table of claims that closes it and must hold.

A claim is a row: what the page said, what was expected, what the run measured and how uncertain that is. A
claim of equality names the resolution at which it is meant, and holds only if

.. math:: |\text{measured} - \text{expected}| \le \text{resolution} \quad\text{and}\quad
          4 \times \text{standard error} \le \text{resolution},

so that a measurement too noisy to contradict the claim cannot confirm it. A bound must hold with four
standard errors to spare.

A row that no answer could fail claims nothing. So a row names its rival, a wrong answer that somebody might give, and
the number that it leads to by the same procedure; the row must refuse that number, with four standard errors to spare.

The few claims by which a page wants to be remembered are told above the table, each in a sentence that takes its
numbers from the row; the table itself is then folded, grouped by the section in which each claim is made.
"""

import html
import math
import re
import string
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Protocol, TypeAlias, TypeGuard

from torch import Tensor

from scorebook.lab.arguments import as_given, positive_integer
from scorebook.lab.types import Integer, Number

__all__ = ["CLAIMS_MIME", "Claim", "Table", "claims", "plus_minus", "significant", "table"]


CLAIMS_MIME = "application/vnd.scorebook.claims+json"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MINUS = "−"


class _Estimate(Protocol):
    """A mean that knows its error, such as ``scorebook.monte_carlo.Estimate``."""

    @property
    def mean(self) -> Any: ...
    @property
    def standard_error(self) -> Any: ...


_Measured: TypeAlias = Number | Tensor | _Estimate


class Table:
    """A table that shows itself: as HTML in a page, as aligned text in a terminal.

    Args:
        header: the names of the columns.
        rows: one sequence of texts per row.
        numeric: whether each column holds numbers, which are set flush right.
        caption: a line above the table.
        css_class: class of the HTML element.
        row_classes: class of each row, for the looks.
    """

    def __init__(
        self,
        header: Iterable[str],
        rows: Iterable[Iterable[str]],
        numeric: Iterable[bool],
        *,
        caption: str | None = None,
        css_class: str = "scorebook-table",
        row_classes: Sequence[str] | None = None,
    ):
        self.header = [_with_minus(name) for name in header]
        self.rows = [[_with_minus(text) for text in row] for row in rows]
        self.numeric, self.css_class = list(numeric), css_class
        self.caption = None if caption is None else _with_minus(caption)
        self.row_classes = row_classes or [""] * len(self.rows)

    def __repr__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        aligned = [
            "  ".join(
                cell.rjust(w) if right else cell.ljust(w)
                for cell, w, right in zip(line, widths, self.numeric, strict=True)
            ).rstrip()
            for line in lines
        ]
        rule = "  ".join("-" * w for w in widths)
        return "\n".join(([self.caption] if self.caption else []) + [aligned[0], rule, *aligned[1:]])

    @property
    def _sides(self) -> list[str]:
        return ["num" if right else "txt" for right in self.numeric]

    def _lines(self) -> list[str]:
        lines = []
        for row, row_class in zip(self.rows, self.row_classes, strict=True):
            cells = "".join(
                f'<td class="{s}" data-label="{html.escape(h)}">{html.escape(c)}</td>'
                for s, h, c in zip(self._sides, self.header, row, strict=True)
            )
            lines.append(f'<tr class="{row_class}">{cells}</tr>' if row_class else f"<tr>{cells}</tr>")
        return lines

    def _body(self) -> str:
        return "".join(self._lines())

    def _repr_html_(self) -> str:
        head = "".join(
            f'<th scope="col" class="{s}">{html.escape(h)}</th>' for s, h in zip(self._sides, self.header, strict=True)
        )
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return (
            f'<div class="scorebook-table-box"><table class="{self.css_class}">{caption}'
            f"<thead><tr>{head}</tr></thead><tbody>{self._body()}</tbody></table></div>"
        )


def _with_minus(text: str) -> str:
    """A text in which the sign of a number is a minus, not a hyphen."""
    return re.sub(r"(?<![\w.,\-\[])-(?=[\d∞])", _MINUS, text)


def table(columns: dict[str, Any], *, digits: Integer = 3, caption: str | None = None) -> Table:
    r"""Make a table of named columns; as the last expression of a cell it shows itself.

    Numbers carry ``digits`` significant digits, fewer where the whole column needs fewer. A value with
    ``.mean`` and ``.standard_error`` is shown as "0.501 ± 0.004", to the digit at which the error begins.

    Args:
        columns: dict from name to column: a list or one-dimensional tensor of numbers, texts or estimates, or
            an estimate whose ``.mean`` is one-dimensional. A single number or text is a column of one entry.
        digits: significant digits of a number.
        caption: a line above the table.

    Returns:
        The table.

    Raises:
        ValueError: if there is no column, or columns differ in length or are not one-dimensional.
    """
    positive_integer("digits", digits)
    if not isinstance(columns, dict) or not columns:
        raise ValueError(f"columns must be a dict with at least one column, got {columns!r}")
    entries = {str(name): _entries(name, column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in entries.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns must be of equal length, got {lengths}")
    texts = [_texts(column, digits) for column in entries.values()]
    numeric = [not any(isinstance(e, str) for e in column) for column in entries.values()]
    return Table(entries, zip(*texts, strict=True), numeric, caption=caption)


class Claim:
    r"""One row of a closing table: what the page claims and what was measured.

    Args:
        text: the claim, in words.
        measured: a number, a tensor of one element, or an estimate with ``.mean`` and ``.standard_error``.
        expected: the true value, for a claim of equality.
        at_most: an upper bound, for a claim of inequality.
        at_least: a lower bound; together with ``at_most`` it makes an interval.
        error: standard error of ``measured``; taken from an estimate.
        resolution: the difference from ``expected`` that the claim allows. Equality needs it, and four
            standard errors must fit in it.
        note: a word on how it was measured.
        rival: what a plausible wrong answer gives by the same procedure: the naive method, the classic slip, the
            baseline, no effect. A number, a tensor of one element, or an estimate; where it has no standard error of
            its own it is taken to be as uncertain as ``measured``. Infinity stands for an answer that diverges.
        rival_name: that answer, in words.
        headline: a sentence for the top of the table, with ``{measured}`` and at least one of ``{expected}`` and
            ``{rival}``, where the row's numbers are put in, the first with its error. A bound reads "at most 0.2",
            "at least 0.05" or "0.4 to 0.6".

    Raises:
        ValueError: if the claim is neither an equality nor a bound, is both, or an equality states no
            resolution; if a rival has no name, a name no rival, or the rival is NaN; if a headline has other fields
            than these, or lacks them.
    """

    def __init__(
        self,
        text: str,
        measured: _Measured,
        expected: Number | Tensor | None = None,
        *,
        at_most: Number | Tensor | None = None,
        at_least: Number | Tensor | None = None,
        error: Number | Tensor = 0.0,
        resolution: Number | Tensor | None = None,
        note: str | None = None,
        rival: _Measured | None = None,
        rival_name: str | None = None,
        headline: str | None = None,
    ):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"text must say what is claimed, got {text!r}")
        self.text, self.note = text, note
        if _is_estimate(measured):
            error = measured.standard_error
            measured = measured.mean
        self.measured = _number("measured", measured)
        self.error = _number("error", error)
        self.expected = None if expected is None else _number("expected", expected)
        self.at_most = None if at_most is None else _number("at_most", at_most)
        self.at_least = None if at_least is None else _number("at_least", at_least)
        self.resolution = None if resolution is None else _number("resolution", resolution)
        self._allowed = self.resolution or 0.0
        bounded = self.at_most is not None or self.at_least is not None
        if (self.expected is not None) == bounded:
            raise ValueError(f"a claim needs either expected or a bound (at_most, at_least), not both: {text!r}")
        if self.expected is not None and self.resolution is None:
            raise ValueError(f"resolution must be stated where expected is: {text!r}")
        if bounded and self.resolution is not None:
            raise ValueError(f"resolution belongs to expected, a bound needs none: {text!r}")
        if self.error < 0 or (self.resolution is not None and self.resolution < 0):
            raise ValueError(f"error and resolution must be non-negative: {text!r}")
        if (rival is None) != (rival_name is None):
            raise ValueError(f"rival and rival_name go together, got {rival!r} and {rival_name!r}: {text!r}")
        if rival is not None and not str(rival_name).strip():
            raise ValueError(f"rival_name must say which wrong answer that is, got {rival_name!r}: {text!r}")
        self.rival, self.rival_name, self.rival_error = None, rival_name, None
        if rival is not None:
            rival, rival_error = (rival.mean, rival.standard_error) if _is_estimate(rival) else (rival, self.error)
            self.rival, self.rival_error = _number("rival", rival), _number("the error of rival", rival_error)
            if math.isnan(self.rival) or not self.rival_error >= 0:
                raise ValueError(
                    f"rival must be a number with a non-negative error, got {self.rival:g} and {self.rival_error:g}: "
                    f"{text!r}"
                )
        self.headline = headline
        if headline is not None:
            fields = _fields(headline)
            known = {"measured", "expected"} | ({"rival"} if self.rival is not None else set())
            if "measured" not in fields or len(fields) < 2 or not fields <= known:
                raise ValueError(
                    f"headline must be a sentence with {{measured}} and at least one more of "
                    f"{', '.join(f'{{{name}}}' for name in sorted(known - {'measured'}))}, got {headline!r}: {text!r}"
                )

    @property
    def told(self) -> list[tuple[str | None, str]] | None:
        """The headline in pieces, each a field's name, or None, and its text; None where the row has no headline."""
        if self.headline is None:
            return None
        _, expected, measured, *_ = self._cells()
        bounds = {"≥": "at least", "≤": "at most"}
        if self.at_least is not None and self.at_most is not None:
            expected = " to ".join(significant(x, 6, trim=True) for x in (self.at_least, self.at_most))
        values = {
            "measured": measured,
            "expected": bounds.get(expected[0], "") + expected[1:] if expected[0] in bounds else expected,
            "rival": self._rival_cell(self._unit).removesuffix(f": {self.rival_name}"),
        }
        values["expected"] = values["expected"].partition(" within ")[0]
        pieces: list[tuple[str | None, str]] = []
        for words, field, _, _ in string.Formatter().parse(self.headline):
            pieces += [(None, words)] if words else []
            pieces += [(field, values[field])] if field else []
        return pieces

    @property
    def weakness(self) -> str | None:
        """How the rival would pass this row, or None where the row refuses it or names none."""
        if self.rival is None:
            return None
        slack, name = 4 * (self.rival_error or 0.0), f"{self.rival_name}, {self.rival:.6g}"
        if self.expected is not None:
            refused = abs(self.rival - self.expected) - slack > self._allowed
        else:
            above = self.at_most is not None and self.rival - slack > self.at_most
            refused = above or (self.at_least is not None and self.rival + slack < self.at_least)
        spare = f" within four standard errors of {self.rival_error:.2g}" if slack else ""
        return None if refused else f"this row cannot fail: {name}, would pass it too{spare}"

    @property
    def shortcoming(self) -> str | None:
        """Why the measurement does not bear the claim out, or None where it does."""
        slack = 4 * self.error
        if not math.isfinite(self.measured) or not math.isfinite(self.error):
            return f"measured {self.measured:g} with standard error {self.error:g}, which are not both numbers"
        if self.expected is not None:
            gap = abs(self.measured - self.expected)
            if not gap <= self._allowed:
                return (
                    f"measured {self.measured:.6g} (standard error {self.error:.2g}), "
                    f"expected {self.expected:.6g}: {gap:.3g} apart, more than the resolution {self.resolution:g}"
                )
            if not slack <= self._allowed:
                return (
                    f"measured {self.measured:.6g}, but four standard errors are {slack:.3g}, "
                    f"more than the resolution {self.resolution:g}: too noisy to tell"
                )
        if self.at_most is not None and not self.measured + slack <= self.at_most:
            return (
                f"measured {self.measured:.6g} + four standard errors of {self.error:.2g} = "
                f"{self.measured + slack:.6g}, which is not at most {self.at_most:g}"
            )
        if self.at_least is not None and not self.measured - slack >= self.at_least:
            return (
                f"measured {self.measured:.6g} - four standard errors of {self.error:.2g} = "
                f"{self.measured - slack:.6g}, which is not at least {self.at_least:g}"
            )
        return None

    @property
    def holds(self) -> bool:
        """Whether the measurement bears the claim out, and would not bear out its rival."""
        return self.shortcoming is None and self.weakness is None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain data; numbers that are not finite become their names."""
        names = ["text", "measured", "error", "expected", "at_most", "at_least", "resolution", "note"]
        names += ["rival", "rival_error", "rival_name"]
        row = {name: getattr(self, name) for name in names} | {"holds": self.holds}
        row["headline"] = "".join(words for _, words in self.told) if self.told else None
        return {k: v if not isinstance(v, float) or math.isfinite(v) else str(v) for k, v in row.items()}

    @property
    def _unit(self) -> float:
        return self.error or self.resolution or 0.0

    def _cells(self) -> list[str]:
        unit = self._unit
        if self.expected is not None:
            expected = significant(self.expected, _digits_to(self.expected, unit))
        else:
            low = "" if self.at_least is None else f"≥ {significant(self.at_least, 6, trim=True)}"
            high = "" if self.at_most is None else f"≤ {significant(self.at_most, 6, trim=True)}"
            expected = ", ".join(t for t in (low, high) if t)
        measured = (
            plus_minus(self.measured, self.error)
            if self.error > 0
            else significant(self.measured, _digits_to(self.measured, unit))
        )
        if self.resolution:
            expected += f" within {significant(self.resolution, 3, trim=True)}"
        text = self.text if not self.note else f"{self.text} ({self.note})"
        return [text, expected, measured, self._rival_cell(unit), "✓" if self.holds else "✗"]

    def _rival_cell(self, unit: float) -> str:
        if self.rival is None:
            return "–"
        if self.rival_error and math.isfinite(self.rival):
            number = plus_minus(self.rival, self.rival_error)
        elif math.isinf(self.rival):
            number = "∞" if self.rival > 0 else f"{_MINUS}∞"
        else:  # to a hundredth of its distance from what is expected
            marks = [mark for mark in (self.expected, self.at_most, self.at_least) if mark is not None]
            apart = min(abs(self.rival - mark) for mark in marks) / 100
            number = significant(self.rival, _digits_to(self.rival, max(unit, apart)))
        return f"{number}: {self.rival_name}"


class _Claims(Table):
    def __init__(self, sections: Mapping[str | None, Sequence[Claim]]):
        header = ["Claim", "Expected", "Measured ± standard error", "A wrong answer gives", "Holds"]
        self.sections = sections
        self.claims = [row for rows in sections.values() for row in rows]
        super().__init__(
            header,
            [row._cells() for row in self.claims],
            [False, True, True, False, True],
            css_class="scorebook-table scorebook-claims",
            row_classes=["holds" if row.holds else "fails" for row in self.claims],
        )

    def __repr__(self) -> str:
        told = [f"* {''.join(words for _, words in row.told)}" for row in self.claims if row.told]
        return "\n".join([*told, *([""] if told else []), super().__repr__()])

    def _body(self) -> str:
        # In a narrow column "0.5 within 0.02" breaks after the number.
        lines, body = (line.replace(" within ", " within&nbsp;") for line in self._lines()), []
        for title, rows in self.sections.items():
            if title is not None:
                name = html.escape(title)
                body.append(
                    f'<tr class="section"><th colspan="{len(self.header)}" scope="rowgroup" '
                    f'data-section="{name}">{name}</th></tr>'
                )
            body.extend(next(lines) for _ in rows)
        return "".join(body)

    def _repr_html_(self) -> str:
        table = super()._repr_html_()
        told = [row for row in self.claims if row.told]
        if not told:
            return table
        sentences = "".join(
            f'<li class="{"holds" if row.holds else "fails"}">'
            + "".join(
                f'<span class="{field}">{html.escape(words)}</span>' if field else html.escape(words)
                for field, words in row.told or []
            )
            + "</li>"
            for row in told
        )
        open_, n = ("" if all(row.holds for row in self.claims) else " open"), len(self.claims)
        words = f"All {n} claims" if n > 1 else "The claim"
        return (
            f'<ul class="scorebook-headlines">{sentences}</ul><details class="scorebook-rows"{open_}>'
            f"<summary>{words}, with what a wrong answer gives</summary>{table}</details>"
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        # The rows travel as metadata of the output: as one more of its forms they would be a MIME type that the
        # book's build does not know, which is a warning there.
        shown = {"text/plain": repr(self), "text/html": self._repr_html_()}
        data = [row.to_dict() | {"section": title} for title, rows in self.sections.items() for row in rows]
        return shown, {CLAIMS_MIME: {"claims": data}}


def claims(rows: Iterable[Claim] | Mapping[str, Iterable[Claim]]) -> None:
    """Show the closing table of a page and insist on every row.

    The table is shown whether or not its rows hold. Where rows have headlines, these are shown first, and the table is
    folded below them, open where a row fails. Its rows also stay in the executed notebook as data, in the metadata of
    the output under ``CLAIMS_MIME``, where other pages collect them.

    Args:
        rows: a sequence of :class:`Claim`; or a dict of such, by the title of the section of the page in which the
            claims are made, to which the published page then leads.

    Raises:
        ValueError: if there is no row, or one is not a :class:`Claim`.
        AssertionError: if a row fails, or its rival would pass it; the message gives the numbers of each.
    """
    sections: dict[str | None, list[Claim]]
    sections = {title: list(of) for title, of in rows.items()} if isinstance(rows, Mapping) else {None: list(rows)}
    for title, of in sections.items():
        if not of or not all(isinstance(row, Claim) for row in of):
            where = f" under {title!r}" if title is not None else ""
            raise ValueError(f"rows must be a non-empty sequence of Claim, got {[type(r).__name__ for r in of]}{where}")
    if not sections:
        raise ValueError("rows must be a non-empty sequence of Claim, got {}")
    shown = _Claims(sections)
    _show(shown)
    failures = [
        f"- {row.text}: " + "; ".join(filter(None, [row.shortcoming, row.weakness]))
        for row in shown.claims
        if not row.holds
    ]
    if failures:
        raise AssertionError(f"{len(failures)} of {len(shown.claims)} claims fail:\n" + "\n".join(failures))


def _fields(sentence: Any) -> set[str]:
    try:
        pieces = list(string.Formatter().parse(sentence))
        if any(form or conversion for _, _, form, conversion in pieces):
            raise ValueError
        return {field for _, field, _, _ in pieces if field is not None}
    except (TypeError, ValueError):
        raise ValueError(f"headline must be a sentence with names alone in braces, got {sentence!r}") from None


def _display() -> Callable[[Table], Any]:
    try:
        from IPython.display import display
    except ImportError:
        return print
    return display


def _show(thing: Table) -> None:
    try:
        _display()(thing)
    except UnicodeEncodeError:  # the terminal has no ± or none of the superscripts
        encoding = sys.stdout.encoding
        print(str(thing).encode(encoding, "replace").decode(encoding))


def _is_estimate(value: Any) -> TypeGuard[_Estimate]:
    return hasattr(value, "standard_error") and hasattr(value, "mean")


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be one number, got a tensor of shape {tuple(value.shape)}")
        value = value.item()
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None


def _entries(name: str, column: Any) -> list[Any]:
    if isinstance(column, (str, Real)):
        return [column]
    if _is_estimate(column):
        mean, error = as_given(column.mean), as_given(column.standard_error)
        if mean.ndim > 1 or mean.shape != error.shape:
            raise ValueError(f"column {name!r} must be one-dimensional, got an estimate of shape {tuple(mean.shape)}")
        return list(zip(mean.reshape(-1).tolist(), error.reshape(-1).tolist(), strict=True))
    if not isinstance(column, (list, tuple, range)):
        column = as_given(column).detach().cpu()
        if column.ndim > 1:
            raise ValueError(f"column {name!r} must be one-dimensional, got shape {tuple(column.shape)}")
        column = column.reshape(-1).tolist()
    return [_entry(name, value) for value in column]


def _entry(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, Integral)):
        return value
    if _is_estimate(value):
        return _number(f"column {name!r}", value.mean), _number(f"column {name!r}", value.standard_error)
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    return _number(f"an entry of column {name!r}", value)


def _texts(entries: list[Any], digits: Integer) -> list[str]:
    floats = [e for e in entries if isinstance(e, float)]
    needed = next((k for k in range(1, digits) if all(_rounded(v, k) == _rounded(v, digits) for v in floats)), digits)
    return [_text(entry, needed) for entry in entries]


def _rounded(value: float, digits: Integer) -> str:
    return f"{float(f'{value:.{digits}g}'):.15g}"


def _text(entry: Any, digits: Integer) -> str:
    if entry is None:
        return "–"
    if isinstance(entry, bool):
        return "yes" if entry else "no"
    if isinstance(entry, str):
        return entry
    if isinstance(entry, tuple):
        return plus_minus(*entry)
    if isinstance(entry, Integral):
        return str(int(entry)).replace("-", _MINUS)
    return significant(entry, digits)


def significant(value: Number, digits: Integer, *, trim: bool = False) -> str:
    """Return a number as text, to so many significant digits: ``0.0125``, ``3.2 × 10⁻⁷``.

    Args:
        value: the number.
        digits: how many.
        trim: whether to leave out zeros at the end.
    """
    if not math.isfinite(value):
        return str(value).replace("-", _MINUS)
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])
    if -4 <= exponent < 6:
        text = f"{value:.{max(digits - 1 - exponent, 0)}f}"
        text = text.rstrip("0").rstrip(".") if trim and "." in text else text
    else:
        mantissa = f"{value:.{digits - 1}e}".split("e")[0]
        mantissa = mantissa.rstrip("0").rstrip(".") if trim and "." in mantissa else mantissa
        text = f"{mantissa} × 10{str(exponent).translate(_SUPERSCRIPT)}"
    return text.replace("-", _MINUS)


def plus_minus(mean: Number, error: Number) -> str:
    """Return an estimate as text, to the digits that its error leaves: ``0.501 ± 0.004``.

    Args:
        mean: a number.
        error: its standard error, in the same unit.
    """
    mean, error = float(mean), float(error)
    if not (math.isfinite(mean) and math.isfinite(error)) or error == 0:
        return f"{significant(mean, 3)} ± {significant(error, 1)}"
    # One digit of the error; two where it begins with 1, or rounding would change it by up to a third.
    rounded = f"{error:.0e}"
    digits = 2 if rounded[0] == "1" else 1
    exponent = int(rounded.split("e")[1])
    decimals = digits - 1 - exponent
    power = max(int(f"{max(abs(mean), error):e}".split("e")[1]), exponent)
    if (decimals > 6 or exponent >= 6) and power != 0:
        inner = plus_minus(mean / 10.0**power, error / 10.0**power)
        return f"({inner}) × 10{str(power).translate(_SUPERSCRIPT)}"
    decimals = max(decimals, 0)
    shown = f"{mean:.{decimals}f}"
    if float(shown) == 0:
        shown = shown.removeprefix("-")  # zero has no sign
    return f"{shown} ± {error:.{decimals}f}".replace("-", _MINUS)


def _digits_to(value: float, unit: float) -> int:
    if unit <= 0 or value == 0 or not math.isfinite(value):
        return 3
    return min(max(math.floor(math.log10(abs(value))) - math.floor(math.log10(unit)) + 1, 3), 12)
