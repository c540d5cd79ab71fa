r"""What a check measured, what it expected, and which known mistake explains the difference.

A check turns a student's code into answers, each a number or a tensor with its true value and the standard error of the
measurement. An answer holds if everywhere

.. math:: |\text{measured} - \text{expected}| \le 5 \times \text{standard error} + \text{tolerance} .

Five standard errors let one right answer in about two million fail. The standard error is that of the measurement, or
that which the right answer has at the same inputs, if it is less: noise of one's own widens no limit.

Where an answer fails, the catalogue of known mistakes is asked: each says what its author would have measured. A
mistake fits if all answers agree with its prediction to the noise of the measurement. The one that agrees best is
named, unless another agrees nearly as well. Where none fits, two mistakes at once are tried.
"""

import html
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scorebook.lab.arguments import as_given
from scorebook.lab.tables import Table, plus_minus, significant
from scorebook.lab.types import Number

__all__ = ["Answer", "Measurement", "Mistake", "Report", "judge", "slips", "spelt"]

_STANDARD_ERRORS = 5.0
# A mistake is named if no other agrees with the numbers so well, up to this share of the limit: 2.5 standard errors.
_RESOLUTION = 0.5
# A tensor is called a multiple of another, or shifted by a number, if this share of it at most is left beside that.
_ALIKE = 1e-3
# Numbers of a point that a message spells out.
_SPELT = 4
# Width to which a report is wrapped in a terminal.
_WIDTH = 100


@dataclass(frozen=True)
class Measurement:
    """One row of a report.

    Attributes:
        quantity: what was measured, in words.
        measured: the number that the student's code gave.
        expected: the true number.
        standard_error: of ``measured``, zero where nothing is random.
        limit: greatest distance from ``expected`` that passes.
    """

    quantity: str
    measured: float
    expected: float
    standard_error: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether ``measured`` lies within ``limit`` of ``expected``."""
        return abs(self.measured - self.expected) <= self.limit


@dataclass(frozen=True)
class Report:
    """The outcome of a check; prints in a terminal and shows as a table in a notebook.

    Attributes:
        name: the check.
        passed: whether all measurements hold.
        diagnosis: what is wrong, in plain words; what was verified, where nothing is.
        measured: the decisive number, that which lies farthest from its true value for its limit; NaN if the code gave
            no numbers.
        expected: its true value.
        standard_error: its standard error, zero where nothing is random.
        mistake: key of the catalogued mistake that explains the measurements, or None.
        measurements: all that was measured.
        cause: the exception that the student's code raised, or None.
    """

    name: str
    passed: bool
    diagnosis: str
    measured: float = math.nan
    expected: float = math.nan
    standard_error: float = math.nan
    mistake: str | None = None
    measurements: tuple[Measurement, ...] = ()
    cause: BaseException | None = field(default=None, repr=False)

    def require(self) -> "Report":
        """Insist on a pass, as an assignment's cell or a test does.

        Returns:
            The report itself, if it passed.

        Raises:
            AssertionError: with the whole report as its message, if it did not; the student's own exception, if there
                was one, is its cause.
        """
        if not self.passed:
            raise AssertionError(str(self)) from self.cause
        return self

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        lines = _wrapped(f"{self._headline} {self.diagnosis}")
        if self.measurements:
            lines += ["", repr(self._table())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        kind = "passed" if self.passed else "failed"
        table = self._table()._repr_html_() if self.measurements else ""
        return (
            f'<div class="scorebook-report scorebook-report-{kind}"><p><strong>{html.escape(self._headline)}</strong> '
            f"{html.escape(self.diagnosis)}</p>{table}</div>"
        )

    @property
    def _headline(self) -> str:
        return f"{'✓' if self.passed else '✗'} {self.name} {'passed' if self.passed else 'failed'}:"

    def _table(self) -> Table:
        rows = [
            [
                row.quantity,
                plus_minus(row.measured, row.standard_error) if row.standard_error > 0 else _number(row.measured),
                _number(row.expected),
                significant(row.limit, 2),
                "✓" if row.holds else "✗",
            ]
            for row in self.measurements
        ]
        return Table(
            ["Quantity", "Measured", "Expected", "Limit", "Holds"],
            rows,
            [False, True, True, True, True],
            css_class="scorebook-table scorebook-claims",
            row_classes=["holds" if row.holds else "fails" for row in self.measurements],
        )


@dataclass(frozen=True, eq=False)
class Answer:
    """Something measured on a student's code, beside its true value.

    Attributes:
        quantity: what it is, in words that follow "your", such as "noise's standard deviation".
        measured: tensor of any shape, double precision.
        expected: its true value, the same shape.
        standard_error: of each entry, or one for all; zero where nothing is random.
        tolerance: difference allowed beside the noise, in the units of the answer.
        right_error: the standard error that the right answer has at the same inputs; None where it is that measured.
        where: callable from the number of a row of the answer to the input it belongs to, in words; or None.
    """

    quantity: str
    measured: Tensor
    expected: Tensor
    standard_error: Tensor | float = 0.0
    tolerance: Number = 0.0
    right_error: Tensor | float | None = None
    where: Callable[[int], str] | None = None

    @classmethod
    def exact(
        cls,
        quantity: str,
        measured: Tensor,
        expected: Tensor,
        tolerance: Number,
        *,
        where: Callable[[int], str] | None = None,
    ) -> "Answer":
        """Make an answer in which nothing is random, allowed to differ by a share of the true one's size."""
        size = max(_rms(expected).item(), 1e-12)
        return cls(quantity, measured, expected, 0.0, tolerance * size, where=where)

    @classmethod
    def mean_of(
        cls,
        quantity: str,
        draws: Tensor,
        expected: Tensor,
        tolerance: Number,
        *,
        right_std: Tensor | float | None = None,
    ) -> "Answer":
        r"""Make an answer from independent draws of it, which lie along the first axis.

        The standard error is estimated from the draws. It is widened, as Student's law has it for that many of them, so
        that five of it are exceeded no more often than five known ones.

        Args:
            quantity: what was drawn.
            draws: shape ``(n, *answer)``, with ``n`` at least 10.
            expected: true mean, shape ``answer``.
            tolerance: difference allowed beside the noise.
            right_std: the standard deviation of one draw of the right answer, if it is known.

        Returns:
            The answer.

        Source: Wallace (1959), "Bounds on normal approximations to Student's and the chi-square distributions".
        """
        freedom = len(draws) - 1
        normal = _STANDARD_ERRORS * (8 * freedom + 3) / (8 * freedom + 1)
        widened = math.sqrt(freedom * math.expm1(normal**2 / freedom)) / _STANDARD_ERRORS
        share = widened / math.sqrt(len(draws))
        right = None if right_std is None else share * as_given(right_std, torch.float64)
        return cls(quantity, draws.mean(0), expected, share * draws.std(0), tolerance, right)

    @property
    def limit(self) -> Tensor:
        """Difference from the truth that passes, for each entry or one for all."""
        error = as_given(self.standard_error, torch.float64)
        if self.right_error is not None:
            error = torch.minimum(error, as_given(self.right_error, torch.float64))
        return _STANDARD_ERRORS * error + float(self.tolerance)

    def misfit(self, prediction: Any, *, slack: Number = 0.0) -> float:
        """Greatest distance from a prediction, in units of what the noise of the measurement allows.

        Args:
            prediction: shaped like the answer, or one number.
            slack: share of the prediction's own distance from the truth that is allowed beside the limit.

        Returns:
            The distance, one or less is agreement; infinite where the prediction or the answer is not finite.
        """
        prediction = as_given(prediction, torch.float64)
        noise = _STANDARD_ERRORS * as_given(self.standard_error, torch.float64) + float(self.tolerance)
        return self._distance(prediction, noise + slack * (prediction - self.expected).abs())

    @property
    def is_loud(self) -> bool:
        """Whether the measurement scatters twice as much as that of the right answer does."""
        error = as_given(self.standard_error, torch.float64)
        return self.right_error is not None and bool((error > 2 * as_given(self.right_error, torch.float64)).any())

    @property
    def departure(self) -> float:
        """Greatest distance from the truth, in limits; one or less passes."""
        return self._distance(self.expected, self.limit)

    def _distance(self, prediction, room) -> float:
        if not (prediction.isfinite().all() and self.measured.isfinite().all()):
            return math.inf
        return ((self.measured - prediction).abs() / room.clamp(min=torch.finfo(torch.float64).tiny)).max().item()

    @property
    def holds(self) -> bool:
        """Whether all entries lie within the limit of their true values."""
        return self.departure <= 1

    def row(self) -> Measurement:
        """Summary in one row: the number itself, or a tensor's relative difference, or its worst entry."""
        error = as_given(self.standard_error, torch.float64)
        if self.measured.ndim == 0:
            return Measurement(
                self.quantity, self.measured.item(), self.expected.item(), error.item(), self.limit.item()
            )
        if bool((error == 0).all()):
            size = _rms(self.expected).clamp(min=torch.finfo(torch.float64).tiny)
            gap = (self.measured - self.expected).abs().max() / size
            return Measurement(
                f"{self.quantity}: greatest difference from the truth, relative to its size",
                gap.item(),
                0.0,
                0.0,
                (self.limit.max() / size).item(),
            )
        gaps = (self.measured - self.expected).abs() / self.limit
        worst = gaps.flatten().argmax()
        entries = [part.expand(self.measured.shape).flatten()[worst].item() for part in (error, self.limit)]
        return Measurement(
            f"{self.quantity} (the worst of {self.measured.numel()})",
            self.measured.flatten()[worst].item(),
            self.expected.flatten()[worst].item(),
            *entries,
        )

    def finding(self) -> str:
        """The difference in words."""
        measured, expected = self.measured.flatten(), self.expected.flatten()
        if self.measured.ndim == 0:
            m, e = measured.item(), expected.item()
            if e == 0:
                return f"your {self.quantity} is {_number(m)} where it should be 0"
            return f"your {self.quantity} is {_times(m / e)} the right one ({_number(m)} for {_number(e)})"
        if not expected.any():
            return f"your {self.quantity} is up to {_number(measured.abs().max().item())} where it should be 0"
        factor = (measured @ expected) / (expected @ expected).clamp(min=torch.finfo(torch.float64).tiny)
        offset = (measured - expected).mean()
        size, noise = _rms(expected), _rms(as_given(self.standard_error, torch.float64))
        resolution = _ALIKE * _rms(measured) + 3 * noise
        if _rms(measured - factor * expected) <= resolution and significant(factor.item(), 3) != significant(1.0, 3):
            return f"your {self.quantity} is {_times(factor.item())} the true one"
        if _rms(measured - expected - offset) <= torch.minimum(resolution, offset.abs() / 2):
            side = "large" if offset > 0 else "small"
            return f"your {self.quantity} is too {side} by {_number(offset.abs().item())} everywhere"
        gap = (_rms(measured - expected) / size.clamp(min=torch.finfo(torch.float64).tiny)).item()
        share = f"{significant(100 * gap, 2)} %" if gap < 2 else _times(gap)
        return f"your {self.quantity} is off by {share} {'of ' if gap < 2 else ''}the true one's size"

    def seen(self) -> str:
        """Where the difference is greatest: the input, what was measured there, and what is right, in a sentence."""
        if self.where is None or self.measured.ndim == 0:
            return ""
        gaps = ((self.measured - self.expected) / self.limit.clamp(min=torch.finfo(torch.float64).tiny)).abs()
        row = int(gaps.flatten(1).max(1).values.argmax()) if gaps.ndim > 1 else int(gaps.argmax())
        return (
            f" At {self.where(row)} it is {spelt(self.measured[row])}, and {spelt(self.expected[row])} would be right."
        )


@dataclass(frozen=True, eq=False)
class Mistake:
    """A well-known wrong answer: an entry of the catalogue.

    Attributes:
        key: short name, the same for the same mistake in all checks.
        words: the mistake in plain words, the end of a sentence.
        predict: callable without arguments that returns what its author would measure, a dict from the quantity of an
            :class:`Answer` to its value; quantities left out are as they should be.
        slack: share of the predicted departure from the truth by which numerical errors may change it.
        also: key of a second mistake made at the same time, or None.
    """

    key: str
    words: str
    predict: Callable[[], dict[str, Any]]
    slack: float = 1e-3
    also: str | None = None

    @property
    def keys(self) -> frozenset[str]:
        """The keys of all that is wrong."""
        return frozenset({self.key} if self.also is None else {self.key, self.also})


def slips(
    formula: Callable[..., dict[str, Any]], wrong: Sequence[tuple[str, str, dict[str, Any]]], *, slack: float = 1e-3
) -> list[Mistake]:
    """Make mistakes of a formula whose parts can be replaced: each wrong part alone, and each two of them together.

    Args:
        formula: callable that returns predictions, as a :class:`Mistake` does; its keywords are the parts that may be
            wrong, right by default.
        wrong: the catalogue: key, words and the parts as the mistake has them. Two that touch the same part are not
            made together.
        slack: as for a :class:`Mistake`.

    Returns:
        The mistakes, single ones first.
    """

    def predicting(parts):
        return lambda: formula(**parts)

    single = [Mistake(key, words, predicting(parts), slack) for key, words, parts in wrong]
    pairs = [
        Mistake(key, f"{words}; and {more}", predicting(parts | others), slack, also)
        for (key, words, parts), (also, more, others) in itertools.combinations(wrong, 2)
        if not parts.keys() & others.keys() and key != also
    ]
    return single + pairs


def judge(name: str, answers: list[Answer], mistakes: list[Mistake], *, verified: str) -> Report:
    """Compare answers with the truth and, where one fails, with the catalogue.

    Args:
        name: the check.
        answers: what was measured, in the order of the report.
        mistakes: the catalogue. One is named where the numbers tell it from all others.
        verified: the diagnosis of a pass.

    Returns:
        The report.
    """
    rows = tuple(answer.row() for answer in answers)
    departures = [answer.departure for answer in answers]
    worst = max(range(len(answers)), key=departures.__getitem__)
    numbers: dict[str, Any] = {
        "measured": rows[worst].measured,
        "expected": rows[worst].expected,
        "standard_error": rows[worst].standard_error,
        "measurements": rows,
    }
    if departures[worst] <= 1:
        return Report(name, True, verified, **numbers)
    finding, seen = answers[worst].finding(), answers[worst].seen()
    if answers[worst].is_loud and all(answer.misfit(answer.expected) <= 1 for answer in answers):
        words = "it scatters so much that its mean says little: the right one has a limit of"
        return Report(
            name, False, f"{finding}: {words} {_number(rows[worst].limit)}.{seen}", mistake="loud_noise", **numbers
        )
    fitting = _fitting(answers, mistakes)
    if not fitting:
        return Report(name, False, f"{finding}.{seen} No known mistake explains it.", **numbers)
    best = fitting[0]
    common = frozenset.intersection(*(mistake.keys for mistake in fitting))
    if not common:
        words = ", or ".join(dict.fromkeys(mistake.words for mistake in fitting[:3]))
        return Report(
            name, False, f"{finding}.{seen} The numbers do not tell which of these it is: {words}.", **numbers
        )
    key = best.key if best.key in common else min(common)
    # The number that the mistake itself moves most is the one to tell.
    return Report(name, False, f"{finding}: {best.words}.{seen}", mistake=key, **numbers)


def _fitting(answers, mistakes) -> list[Mistake]:
    """The mistakes that the numbers leave open, the likeliest first: single ones, or else two at once."""
    single = [(mistake, mistake.predict()) for mistake in mistakes if mistake.also is None]
    found = _within(answers, single)
    if found:
        return found
    pairs = [(mistake, mistake.predict()) for mistake in mistakes if mistake.also is not None]
    found = _within(answers, pairs)
    return found or _within(answers, _together(answers, single))


def _together(answers, single):
    """Pairs of mistakes that show in different answers."""

    def moved(predictions):
        return {a.quantity for a in answers if _moves(a, predictions.get(a.quantity, a.expected))}

    single = [(mistake, predictions, moved(predictions)) for mistake, predictions in single]
    for (one, first, there), (other, second, elsewhere) in itertools.combinations(single, 2):
        if there and elsewhere and not there & elsewhere and one.key != other.key:
            both = {q: second[q] for q in elsewhere if q in second} | {q: first[q] for q in there if q in first}
            words = f"{one.words}; and {other.words}"
            yield Mistake(one.key, words, dict, max(one.slack, other.slack), other.key), both


def _moves(answer, prediction) -> bool:
    prediction = as_given(prediction, torch.float64)
    return not bool(((prediction - answer.expected).abs() <= answer.limit).all())


def _within(answers, candidates) -> list[Mistake]:
    fits: list[tuple[float, int, Mistake]] = []
    for mistake, predictions in candidates:
        misfit = 0.0
        for a in answers:
            misfit = max(misfit, a.misfit(predictions.get(a.quantity, a.expected), slack=mistake.slack))
            if misfit > 1:  # what is measured later may cost more to predict
                break
        if misfit <= 1:
            fits.append((misfit, len(fits), mistake))
    fits.sort(key=lambda fit: fit[:2])
    return [mistake for misfit, _, mistake in fits if misfit <= fits[0][0] + _RESOLUTION]


def spelt(values: Tensor) -> str:
    """A number, or a point in brackets, its first few coordinates."""
    numbers = [significant(value, 3, trim=True) for value in values.flatten()[:_SPELT].tolist()]
    if values.ndim == 0:
        return numbers[0]
    return f"({', '.join(numbers)}{', …' if values.numel() > _SPELT else ''})"


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()


def _number(value: float) -> str:
    return significant(value, 4, trim=True)


def _times(factor: float) -> str:
    return f"{significant(factor, 3, trim=True)} times"


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
