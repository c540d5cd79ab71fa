"""The status page says what the rows of the closing tables say, each sign and number as it stands there."""

import pytest
import run_record

ROW = {
    "text": "a law",
    "measured": 0.5012,
    "error": 0.0041,
    "expected": None,
    "at_most": None,
    "at_least": None,
    "resolution": None,
    "note": None,
    "rival": None,
    "rival_error": None,
    "rival_name": None,
    "holds": True,
}


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"expected": 0.5, "resolution": 0.02}, "0.5 within 0.02"),
        ({"expected": -12345.6, "resolution": 1e-6}, "−1.235e+04 within 1e−06"),
        ({"at_most": 1.3}, "≤ 1.3"),
        ({"at_least": 0.9}, "≥ 0.9"),
        ({"at_least": -0.1, "at_most": 0.2}, "≥ −0.1, ≤ 0.2"),
        ({"expected": "inf", "resolution": 1.0}, "inf within 1"),
    ],
)
def test_what_was_expected_has_the_sign_of_its_bound(row, shown):
    assert run_record._expected(ROW | row) == shown


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({}, "–"),
        ({"rival": 0.7, "rival_error": 0.012, "rival_name": "the median"}, "0.7 ± 0.012: the median"),
        ({"rival": -2.0, "rival_error": 0.0, "rival_name": "no half"}, "−2: no half"),
        ({"rival": "inf", "rival_error": 0.1, "rival_name": "no limit"}, "∞: no limit"),
    ],
)
def test_a_wrong_answer_is_shown_with_its_error_and_its_name(row, shown):
    assert run_record._rival(ROW | row) == shown
