r"""What a check measured, what it expected, and which known mistake explains the difference.

A check turns a student's code into answers, each a number or a tensor with its true value and the standard error of the
measurement. An answer holds if everywhere

.. math:: |\text{measured} - \text{expected}| \le 5 \times \text{standard error} + \text{tolerance} .

Five standard errors let one right answer in about two million fail. Where one fails, the catalogue of known mistakes
is asked: each says what its author would have measured. A mistake fits if all answers agree with its prediction to the
same limit, and the one that agrees best is named.
"""

import html
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scorebook.lab.arguments import as_given
from scorebook.lab.tables import Table, plus_minus, significant
from scorebook.lab.types import Number

__all__ = ["Answer", "Measurement", "Mistake", "Report", "judge"]

_STANDARD_ERRORS = 5.0
# Two mistakes that explain the numbers equally well up to this share of the limit: the one listed first is named.
_RESOLUTION = 0.02
# A tensor is called a multiple of another, or shifted by a number, if this share of it at most is left beside that.
_ALIKE = 1e-3
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
    """

    quantity: str
    measured: Tensor
    expected: Tensor
    standard_error: Tensor | float = 0.0
    tolerance: Number = 0.0

    @classmethod
    def exact(cls, quantity: str, measured: Tensor, expected: Tensor, tolerance: Number) -> "Answer":
        """Make an answer in which nothing is random, allowed to differ by a share of the true one's size."""
        return cls(quantity, measured, expected, 0.0, tolerance * max(_rms(expected).item(), 1e-12))

    @classmethod
    def mean_of(cls, quantity: str, draws: Tensor, expected: Tensor, tolerance: Number) -> "Answer":
        r"""Make an answer from independent draws of it, which lie along the first axis.

        The standard error is estimated from the draws. It is widened, as Student's law has it for that many of them, so
        that five of it are exceeded no more often than five known ones.

        Args:
            quantity: what was drawn.
            draws: shape ``(n, *answer)``, with ``n`` at least 10.
            expected: true mean, shape ``answer``.
            tolerance: difference allowed beside the noise.

        Returns:
            The answer.

        Source: Wallace (1959), "Bounds on normal approximations to Student's and the chi-square distributions".
        """
        freedom = len(draws) - 1
        normal = _STANDARD_ERRORS * (8 * freedom + 3) / (8 * freedom + 1)
        widened = math.sqrt(freedom * math.expm1(normal**2 / freedom)) / _STANDARD_ERRORS
        return cls(quantity, draws.mean(0), expected, widened * draws.std(0) / math.sqrt(len(draws)), tolerance)

    @property
    def limit(self) -> Tensor:
        """Difference that passes, for each entry or one for all."""
        return _STANDARD_ERRORS * as_given(self.standard_error, torch.float64) + float(self.tolerance)

    def misfit(self, prediction: Any, *, slack: Number = 0.0) -> float:
        """Greatest distance from a prediction, in limits; one or less is agreement.

        Args:
            prediction: shaped like the answer, or one number.
            slack: share of the prediction's own distance from the truth that is allowed beside the limit.

        Returns:
            The distance; infinite where the prediction or the answer is not finite.
        """
        prediction = as_given(prediction, torch.float64)
        if not (prediction.isfinite().all() and self.measured.isfinite().all()):
            return math.inf
        limit = (self.limit + slack * (prediction - self.expected).abs()).clamp(min=torch.finfo(torch.float64).tiny)
        return ((self.measured - prediction).abs() / limit).max().item()

    @property
    def holds(self) -> bool:
        """Whether all entries lie within the limit of their true values."""
        return self.misfit(self.expected) <= 1

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
        factor = (measured @ expected) / (expected @ expected).clamp(min=torch.finfo(torch.float64).tiny)
        offset = (measured - expected).mean()
        size, noise = _rms(expected), _rms(as_given(self.standard_error, torch.float64))
        resolution = _ALIKE * _rms(measured) + 3 * noise
        if _rms(measured - factor * expected) <= resolution:
            return f"your {self.quantity} is {_times(factor.item())} the true one"
        if _rms(measured - expected - offset) <= resolution:
            side = "large" if offset > 0 else "small"
            return f"your {self.quantity} is too {side} by {_number(offset.abs().item())} everywhere"
        gap = (_rms(measured - expected) / size.clamp(min=torch.finfo(torch.float64).tiny)).item()
        share = f"{significant(100 * gap, 2)} %" if gap < 2 else _times(gap)
        return f"your {self.quantity} is off by {share} {'of ' if gap < 2 else ''}the true one's size"


@dataclass(frozen=True, eq=False)
class Mistake:
    """A well-known wrong answer: an entry of the catalogue.

    Attributes:
        key: short name, the same for the same mistake in all checks.
        words: the mistake in plain words, the end of a sentence.
        predict: callable without arguments that returns what its author would measure, a dict from the quantity of an
            :class:`Answer` to its value; quantities left out are as they should be.
        slack: share of the predicted departure from the truth by which numerical errors may change it.
    """

    key: str
    words: str
    predict: Callable[[], dict[str, Any]]
    slack: float = 1e-3


def judge(name: str, answers: list[Answer], mistakes: list[Mistake], *, verified: str) -> Report:
    """Compare answers with the truth and, where one fails, with the catalogue.

    Args:
        name: the check.
        answers: what was measured, in the order of the report.
        mistakes: the catalogue; where two fit equally well the first is named.
        verified: the diagnosis of a pass.

    Returns:
        The report.
    """
    rows = tuple(answer.row() for answer in answers)
    misfits = [answer.misfit(answer.expected) for answer in answers]
    worst = max(range(len(answers)), key=misfits.__getitem__)
    numbers: dict[str, Any] = {
        "measured": rows[worst].measured,
        "expected": rows[worst].expected,
        "standard_error": rows[worst].standard_error,
        "measurements": rows,
    }
    if misfits[worst] <= 1:
        return Report(name, True, verified, **numbers)
    found = _best(answers, mistakes)
    if found is None:
        return Report(name, False, f"{answers[worst].finding()}. No known mistake explains it.", **numbers)
    # The number that the mistake itself moves most is the one to tell.
    return Report(name, False, f"{answers[worst].finding()}: {found.words}.", mistake=found.key, **numbers)


def _best(answers, mistakes) -> Mistake | None:
    found, least = None, 1.0
    for mistake in mistakes:
        predictions = mistake.predict()
        misfit = max(
            answer.misfit(predictions.get(answer.quantity, answer.expected), slack=mistake.slack) for answer in answers
        )
        if misfit <= 1 and (found is None or misfit < least - _RESOLUTION):
            found, least = mistake, misfit
    return found


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
