"""Reports: what passes, which mistake is named, and how it reads."""

import math

import pytest
import torch

from scorebook.coursework import Report
from scorebook.coursework.reports import Answer, Mistake, judge, slips, spelt


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def answer(measured, expected=1.0, error=0.1, tolerance=0.0, quantity="step"):
    return Answer(quantity, number(measured), number(expected), error, tolerance)


TWICE = Mistake("twice", "a factor 2 too many", lambda: {"step": 2.0})
NEARLY_TWICE = Mistake("nearly_twice", "a factor 1.9 too many", lambda: {"step": 1.9})
NEVER = Mistake("never", "it is not a number", lambda: {"step": math.nan})


@pytest.mark.parametrize(
    ("measured", "passed"), [(1.0, True), (1.49, True), (1.51, False), (0.51, True), (0.49, False)]
)
def test_five_standard_errors_are_allowed(measured, passed):
    assert judge("check", [answer(measured)], [], verified="right").passed is passed


def test_tolerance_comes_on_top_of_the_noise():
    assert judge("check", [answer(1.7, tolerance=0.25)], [], verified="right")
    assert not judge("check", [answer(1.8, tolerance=0.25)], [], verified="right")


def test_the_mistake_that_fits_best_is_named_where_the_numbers_tell_it_from_the_others():
    mistakes = [NEVER, NEARLY_TWICE, TWICE]
    assert judge("check", [answer(2.02, error=0.01)], mistakes, verified="right").mistake == "twice"
    assert judge("check", [answer(1.88, error=0.01)], mistakes, verified="right").mistake == "nearly_twice"
    report = judge("check", [answer(1.98)], mistakes, verified="right")
    assert report.mistake is None
    assert "do not tell which of these it is: a factor 2 too many, or a factor 1.9 too many" in report.diagnosis


@pytest.mark.parametrize(("off", "named"), [(0.6, "twice"), (0.4, None)])
def test_of_two_mistakes_that_fit_the_better_is_named_where_it_is_so_by_half_of_the_room(off, named):
    """The other one, 0.1 away from what was measured, is off by this share of what the noise allows."""
    report = judge("check", [answer(2.0, error=0.1 / off / 5, tolerance=0.0)], [NEARLY_TWICE, TWICE], verified="right")
    assert report.mistake == named


@pytest.mark.parametrize(("measured", "named"), [(2.19, "twice"), (2.21, None)])
def test_a_mistake_explains_no_more_than_the_tolerance(measured, named):
    report = judge("check", [answer(measured, error=0.0, tolerance=0.2)], [TWICE], verified="right")
    assert report.mistake == named


def test_the_same_mistake_in_two_forms_is_one():
    again = Mistake("twice", "the same", lambda: {"step": 2.0})
    assert judge("check", [answer(2.0)], [again, TWICE], verified="right").mistake == "twice"


def test_two_mistakes_in_different_answers_are_both_told():
    mean = Mistake("mean", "the mean is 3", lambda: {"mean": 3.0})
    report = judge("check", [answer(2.0), answer(3.0, quantity="mean")], [TWICE, mean], verified="right")
    assert report.mistake in ("twice", "mean")
    assert "a factor 2 too many; and the mean is 3" in report.diagnosis


def test_slips_are_made_alone_and_together_unless_they_touch_one_part():
    def formula(factor=1.0, sign=1.0):
        return {"step": factor * sign}

    made = slips(
        formula, [("twice", "2", {"factor": 2.0}), ("half", "½", {"factor": 0.5}), ("sign", "−", {"sign": -1.0})]
    )
    found = {tuple(sorted(m.keys)): m.predict()["step"] for m in made}
    assert found == {("twice",): 2, ("half",): 0.5, ("sign",): -1, ("sign", "twice"): -2, ("half", "sign"): -0.5}


def test_noise_of_ones_own_widens_no_limit():
    loud = Answer("step", number(4.0), number(1.0), 1.0, right_error=0.1)
    assert loud.limit == pytest.approx(0.5)
    report = judge("check", [loud], [TWICE], verified="right")
    assert report.mistake == "loud_noise"
    assert (
        judge("check", [Answer("step", number(1.3), number(1.0), 0.01, 0.0, 0.1)], [], verified="right").passed is False
    )


def test_a_report_tells_the_input_what_came_and_what_is_right():
    field = Answer.exact("field", number([[1.0, 2.0], [3.0, 0.0]]), number([[1.0, 2.0], [3.0, 4.0]]), 1e-6,
                         where="x = ({}, 0)".format)  # fmt: skip
    assert field.seen() == " At x = (1, 0) it is (3, 0), and (3, 4) would be right."
    assert field.seen() in judge("check", [field], [], verified="right").diagnosis
    assert spelt(torch.arange(6.0)) == "(0, 1, 2, 3, …)"
    assert spelt(torch.arange(4.0)) == "(0, 1, 2, 3)"
    assert spelt(torch.tensor(0.25)) == "0.25"


def test_a_mistake_must_explain_all_answers():
    other = answer(5.0, 1.0, quantity="other")
    report = judge("check", [answer(2.0), other], [TWICE], verified="right")
    assert report.mistake is None
    assert report.diagnosis == "your other is 5 times the right one (5 for 1). No known mistake explains it."


def test_slack_grows_with_the_predicted_departure():
    loose = Mistake("loose", "roughly 11", lambda: {"step": 11.0}, slack=0.05)
    assert judge("check", [answer(11.9)], [loose], verified="right").mistake == "loose"
    assert judge("check", [answer(12.1)], [loose], verified="right").mistake is None


@pytest.mark.parametrize("values", [[math.nan], [math.nan, 1.0], [1.0, math.nan], [1.0, math.inf]])
def test_what_is_not_finite_never_passes(values):
    assert not judge("check", [answer(value) for value in values], [TWICE], verified="right")


@pytest.mark.parametrize("n", [20, 64, 400])
def test_few_draws_widen_their_error_as_students_law_demands(n):
    draws = torch.linspace(-1, 1, n, dtype=torch.float64)
    answer = Answer.mean_of("step", draws, number(0.0), 0.0)
    plain = draws.std() / n**0.5
    # scipy.stats.t.isf(2.8665157187919333e-07, n - 1), the tail of five standard deviations
    quantile = {20: 7.3526, 64: 5.5654, 400: 5.0826}[n]
    assert (answer.limit / plain).item() == pytest.approx(quantile, rel=0.01)


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ([-1.0, -2.0, -3.0], "your field is −1 times the true one"),
        ([1.0, 2.0, 0.0], "your field is off by 80 % of the true one's size"),
        ([3.0, 4.0, 5.0], "your field is too large by 2 everywhere"),
        ([1.0, 2.0, 7.5], "your field is off by 120 % of the true one's size"),
        ([1.0, 2.0, 30.0], "your field is off by 7.22 times the true one's size"),
    ],
)
def test_a_tensor_is_told_as_a_multiple_where_it_is_one(measured, words):
    field = Answer.exact("field", number(measured), number([1.0, 2.0, 3.0]), 1e-6)
    assert field.finding() == words


def test_a_multiple_that_reads_as_one_is_told_as_a_difference():
    expected = number([1.0, 2.0, -300.0])  # whose multiples are no nearer to an offset
    assert Answer.exact("field", 1.006 * expected, expected, 1e-6).finding() == "your field is 1.01 times the true one"
    assert Answer.exact("field", 1.0004 * expected, expected, 1e-6).finding() == (
        "your field is off by 0.040 % of the true one's size"
    )


def test_a_tensor_is_summed_up_by_its_greatest_gap_or_by_its_worst_entry():
    measured, expected = number([30.0, 44.0, 1.0]), number([30.0, 40.0, 0.0])
    size = (2500 / 3) ** 0.5
    (exact,) = judge("check", [Answer.exact("field", measured, expected, 0.5)], [], verified="right").measurements
    assert exact.quantity == "field: greatest difference from the truth, relative to its size"
    assert (exact.measured, exact.expected, exact.standard_error) == (pytest.approx(4 / size), 0, 0)
    assert exact.limit == pytest.approx(0.5)
    noisy = Answer("field", measured, expected, number([1.0, 1.0, 0.1]), 0.1)
    (worst,) = judge("check", [noisy], [], verified="right").measurements
    assert worst.quantity == "field (the worst of 3)"
    assert (worst.measured, worst.expected, worst.standard_error) == (1.0, 0.0, 0.1)
    assert worst.limit == pytest.approx(5 * 0.1 + 0.1)


def test_the_known_spread_of_a_draw_is_that_of_as_many():
    draws = torch.linspace(-1, 1, 20, dtype=torch.float64)
    answer = Answer.mean_of("step", draws, number(0.0), 0.0, right_std=0.5 * draws.std())
    assert answer.right_error.item() == pytest.approx(0.5 * answer.standard_error.item())
    assert not answer.is_loud
    assert Answer.mean_of("step", draws, number(0.0), 0.0, right_std=0.49 * draws.std()).is_loud


def test_a_number_that_should_be_zero_is_told_as_it_is():
    assert answer(0.7, 0.0, quantity="mean").finding() == "your mean is 0.7 where it should be 0"


def failing():
    return judge("check_step", [answer(2.0), answer(1.0, quantity="<b>mean</b>")], [TWICE], verified="right")


def test_a_report_holds_the_decisive_number():
    report = failing()
    assert (report.measured, report.expected, report.standard_error) == (2.0, 1.0, 0.1)
    assert [row.holds for row in report.measurements] == [False, True]


def test_a_report_reads_well_in_a_terminal():
    lines = repr(failing()).splitlines()
    assert lines[0] == "✗ check_step failed: your step is 2 times the right one (2 for 1): a factor 2 too many."
    assert [line.split() for line in lines[2:]] == [
        ["Quantity", "Measured", "Expected", "Limit", "Holds"],
        ["-----------", "-----------", "--------", "-----", "-----"],
        ["step", "2.00", "±", "0.10", "1", "0.50", "✗"],
        ["<b>mean</b>", "1.00", "±", "0.10", "1", "0.50", "✓"],
    ]


@pytest.mark.parametrize("length", range(1, 12))
def test_a_line_of_a_report_is_as_full_as_a_hundred_letters_allow(length):
    lines = repr(Report("check", False, f"{'w' * length} " * 300)).splitlines()
    assert 100 - length <= min(map(len, lines[:-1])) <= max(map(len, lines)) <= 100


def test_a_report_is_a_table_in_a_notebook_and_trusts_no_text():
    page = failing()._repr_html_()
    assert "<table" in page
    assert "&lt;b&gt;mean" in page
    assert "<b>mean" not in page
    assert "<table" not in Report("check", False, "<script>")._repr_html_()
    assert "&lt;script&gt;" in Report("check", False, "<script>")._repr_html_()


def test_require_raises_the_diagnosis_and_returns_a_pass():
    passed = judge("check", [answer(1.0)], [], verified="all is right")
    assert passed.require() is passed
    assert "all is right" in repr(passed)
    with pytest.raises(AssertionError, match="a factor 2 too many"):
        failing().require()
    cause = ZeroDivisionError("division by zero")
    with pytest.raises(AssertionError) as raised:
        Report("check", False, "it raised", cause=cause).require()
    assert raised.value.__cause__ is cause
