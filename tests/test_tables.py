"""Tables show what they are given, and a claim holds only where the measurement can bear it."""

import builtins
import json
import re
from types import SimpleNamespace

import claimed
import pytest
import torch
from docutils import nodes
from docutils.utils import new_document
from IPython.core.formatters import DisplayFormatter

from scorebook import lab
from scorebook.lab import tables


def estimate(mean, standard_error):
    return SimpleNamespace(mean=torch.tensor(mean), standard_error=torch.tensor(standard_error))


def rows_of(thing):
    return [line.split("  ") for line in repr(thing).splitlines()]


@pytest.mark.parametrize(
    ("column", "shown"),
    [
        ([0.05, 0.2, 0.5], ["0.05", "0.2", "0.5"]),
        (torch.tensor([1.02564, 1.1111, 4 / 3]), ["1.03", "1.11", "1.33"]),
        (torch.tensor([1.0, 1.25], requires_grad=True), ["1.00", "1.25"]),
        ([12345.6, 0.0001234], ["12346", "0.000123"]),
        ([2.5e7, -3.4e-7], ["2.5 × 10⁷", "−3.4 × 10⁻⁷"]),
        (torch.tensor([3, -7]), ["3", "−7"]),
        ([float("nan"), float("-inf")], ["nan", "−inf"]),
        ([True, None], ["yes", "–"]),
        (["exact", "<b>"], ["exact", "<b>"]),
        ([estimate(0.5012, 0.0041), estimate(0.5, 0.0014)], ["0.501 ± 0.004", "0.5000 ± 0.0014"]),
        ([estimate(2.9021, 0.0099), estimate(3.0, 0.96)], ["2.902 ± 0.010", "3.0 ± 1.0"]),
        (estimate([12345.0, 1e-9], [140.0, 3e-10]), ["12345 ± 140", "(1.0 ± 0.3) × 10⁻⁹"]),
        (estimate(2.0, 0.5), ["2.0 ± 0.5"]),
        ([estimate(-0.001, 0.02), estimate(-0.01, 0.02)], ["0.00 ± 0.02", "−0.01 ± 0.02"]),
        (estimate(2.5, 3e-8), ["2.50000000 ± 0.00000003"]),
        (estimate(-1234.5, 3e-7), ["(−1.2345000000 ± 0.0000000003) × 10³"]),
        (7, ["7"]),
        ("word", ["word"]),
    ],
)
def test_a_value_is_shown_to_the_digits_it_deserves(column, shown):
    assert [row[0] for row in lab.table({"x": column}).rows] == shown


def test_digits_are_significant_digits():
    assert lab.table({"x": [3.14159]}, digits=5).rows == [["3.1416"]]


def test_the_sign_of_a_number_in_a_text_is_a_minus():
    told = {"at -2 to -1": ["(-2, -1)", "2026-11-30 x-1 1e-07", "-∞ for -0.5 nats", "x[-1], --n -n"]}
    shown = repr(lab.table(told, caption="from -3"))
    assert [line.strip() for line in shown.splitlines()] == [
        "from −3",
        "at −2 to −1",
        "-" * 20,
        "(−2, −1)",
        "2026-11-30 x-1 1e-07",
        "−∞ for −0.5 nats",
        "x[-1], --n -n",
    ]


def test_a_terminal_gets_aligned_text():
    shown = repr(lab.table({"name": ["a", "bcd"], "count": [5, 100]}, caption="Two rows"))
    assert shown == "Two rows\nname  count\n----  -----\na         5\nbcd     100"


def test_a_page_gets_a_table_with_escaped_text_and_named_columns():
    page = lab.table({"a < b": ["<script>", "x"]}, caption="5 > 3")._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert '<th scope="col" class="txt">a &lt; b</th>' in page
    assert '<td class="txt" data-label="a &lt; b">x</td>' in page
    assert "<caption>5 &gt; 3</caption>" in page


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({}, "at least one column"),
        ([1, 2], "must be a dict"),
        ({"a": [1, 2], "b": [1]}, "equal length, got {'a': 2, 'b': 1}"),
        ({"a": torch.zeros(2, 2)}, "column 'a' must be one-dimensional"),
        ({"a": [torch.zeros(2)]}, "one number, got a tensor of shape"),
        ({"a": [object()]}, "an entry of column 'a' must be a number"),
        ({"a": estimate([[1.0]], [[1.0]])}, "column 'a' must be one-dimensional"),
    ],
)
def test_a_table_refuses_what_is_no_table(columns, complaint):
    with pytest.raises(ValueError, match=complaint):
        lab.table(columns)


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        ({"measured": 0.51, "expected": 0.5, "resolution": 0.02}, True),
        ({"measured": 0.53, "expected": 0.5, "resolution": 0.02}, False),
        ({"measured": 0.47, "expected": 0.5, "resolution": 0.02}, False),
        ({"measured": 0.5, "expected": 0.5, "resolution": 0.02, "error": 0.005}, True),
        ({"measured": 0.5, "expected": 0.5, "resolution": 0.02, "error": 0.0051}, False),
        ({"measured": 0, "expected": 0, "resolution": 0}, True),
        ({"measured": 1.2, "at_most": 1.3}, True),
        ({"measured": 1.2, "at_most": 1.3, "error": 0.024}, True),
        ({"measured": 1.2, "at_most": 1.3, "error": 0.026}, False),
        ({"measured": 1.4, "at_most": 1.3}, False),
        ({"measured": 0.95, "at_least": 0.9, "error": 0.012}, True),
        ({"measured": 0.95, "at_least": 0.9, "error": 0.013}, False),
        ({"measured": 0.85, "at_least": 0.9}, False),
        ({"measured": 1.0, "at_least": 0.9, "at_most": 1.1, "error": 0.02}, True),
        ({"measured": 1.2, "at_least": 0.9, "at_most": 1.1}, False),
        ({"measured": 0.8, "at_least": 0.9, "at_most": 1.1}, False),
        ({"measured": float("nan"), "expected": 0.5, "resolution": 9}, False),
        ({"measured": 0.5, "expected": float("nan"), "resolution": 9}, False),
        ({"measured": 0.5, "expected": 0.5, "resolution": 9, "error": float("nan")}, False),
        ({"measured": float("nan"), "at_most": 1}, False),
        ({"measured": float("-inf"), "at_most": 1}, False),
        ({"measured": 0.5, "at_most": float("nan")}, False),
        (
            {"measured": torch.tensor([[0.5]], requires_grad=True), "expected": torch.tensor(0.5), "resolution": 0.1},
            True,
        ),
        ({"measured": estimate(0.5, 0.02), "expected": 0.5, "resolution": 0.1}, True),
        ({"measured": estimate(0.5, 0.03), "expected": 0.5, "resolution": 0.1}, False),
    ],
)
def test_a_claim_holds_only_with_four_standard_errors_to_spare(arguments, holds):
    assert lab.Claim("a law", **arguments).holds is holds


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"measured": 1.0}, "either expected or a bound"),
        ({"measured": 1.0, "expected": 1.0, "at_most": 2.0, "resolution": 1.0}, "either expected or a bound"),
        ({"measured": 1.0, "expected": 1.0}, "resolution must be stated"),
        ({"measured": 1.0, "at_most": 2.0, "resolution": 1.0}, "a bound needs none"),
        ({"measured": 1.0, "at_most": 2.0, "error": -1.0}, "non-negative"),
        ({"measured": torch.zeros(2), "at_most": 2.0}, "measured must be one number"),
        ({"measured": "high", "at_most": 2.0}, "measured must be a number"),
        ({"measured": 1.0, "at_most": 2.0, "rival": 3.0}, "rival and rival_name go together"),
        ({"measured": 1.0, "at_most": 2.0, "rival_name": "no effect"}, "rival and rival_name go together"),
        ({"measured": 1.0, "at_most": 2.0, "rival": 3.0, "rival_name": " "}, "which wrong answer"),
        ({"measured": 1.0, "at_most": 2.0, "rival": float("nan"), "rival_name": "slip"}, "rival must be a number"),
        ({"measured": 1.0, "at_most": 2.0, "rival": estimate(3.0, -1.0), "rival_name": "slip"}, "rival must be"),
    ],
)
def test_a_claim_that_says_too_little_or_too_much_is_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        lab.Claim("a law", **arguments)


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        ({"expected": 0.5, "resolution": 0.02, "rival": 0.53}, True),
        ({"expected": 0.5, "resolution": 0.02, "rival": 0.47}, True),
        ({"expected": 0.5, "resolution": 0.02, "rival": 0.519}, False),
        ({"expected": 0.5, "resolution": 0.02, "rival": 0.481}, False),
        # As uncertain as the measurement, unless it has an error of its own.
        ({"expected": 0.5, "resolution": 0.02, "error": 0.002, "rival": 0.527}, False),
        ({"expected": 0.5, "resolution": 0.02, "error": 0.002, "rival": 0.529}, True),
        ({"expected": 0.5, "resolution": 0.02, "error": 0.002, "rival": estimate(0.527, 0.001)}, True),
        ({"expected": 0.5, "resolution": 0.02, "rival": estimate(0.473, 0.002)}, False),
        ({"expected": 0.5, "resolution": 0.02, "rival": estimate(0.471, 0.002)}, True),
        ({"expected": 0.5, "resolution": 0.02, "rival": torch.tensor([0.9], requires_grad=True)}, True),
        ({"expected": 0.5, "resolution": 0.02, "rival": float("inf")}, True),
        ({"at_most": 1.3, "rival": 1.31}, True),
        ({"at_most": 1.3, "rival": 1.3}, False),
        ({"at_most": 1.3, "rival": -9}, False),
        ({"at_most": 1.3, "rival": estimate(1.4, 0.026)}, False),
        ({"at_most": 1.3, "rival": estimate(1.4, 0.024)}, True),
        ({"at_least": 0.4, "rival": 0.39}, True),
        ({"at_least": 0.4, "rival": 0.4}, False),
        ({"at_least": 0.4, "rival": estimate(0.3, 0.026)}, False),
        ({"at_least": 0.4, "at_most": 0.6, "rival": 0.7}, True),
        ({"at_least": 0.4, "at_most": 0.6, "rival": 0.3}, True),
        ({"at_least": 0.4, "at_most": 0.6, "rival": 0.55}, False),
    ],
)
def test_a_row_must_refuse_its_rival(arguments, refused):
    row = lab.Claim("a law", 0.5, rival_name="the median", **arguments)
    assert row.shortcoming is None
    assert row.holds is refused
    assert (row.weakness is None) is refused
    if not refused:
        with pytest.raises(AssertionError, match=r"a law: this row cannot fail: the median, .* would pass it too"):
            lab.claims([row])


def test_a_rival_put_in_the_place_of_what_was_measured_fails():
    stated = {"expected": 2.0, "resolution": 0.1, "error": 0.02}
    row = lab.Claim("a law", 2.01, rival=2.3, rival_name="no factor", **stated)
    assert row.holds
    assert not lab.Claim("a law", row.rival, **stated).holds


def test_a_page_shows_what_a_wrong_answer_gives(capsys):
    rows = [
        lab.Claim("mean", 0.501, 0.5, error=0.004, resolution=0.02, rival=0.7, rival_name="the median"),
        lab.Claim("share", 0.8, at_least=0.7, rival=estimate(0.5, 0.012), rival_name="plain <chain>"),
        lab.Claim("norm", 1.0, at_most=2.0, rival=float("inf"), rival_name="no limit"),
        lab.Claim("bound", 1.0, at_most=2.0),
    ]
    lab.claims(rows)
    lines = capsys.readouterr().out.splitlines()
    wrong = ["0.700 ± 0.004: the median", "0.500 ± 0.012: plain <chain>", "∞: no limit", "–"]
    for line, words in zip(lines[2:], wrong, strict=True):
        assert words in line
    assert "0.500 within 0.02" in lines[2]
    page = tables._Claims({None: rows})._repr_html_()
    assert "plain &lt;chain&gt;" in page


def headed(**changes):
    row = {"expected": 0.5, "error": 0.004, "resolution": 0.02, "rival": 0.7, "rival_name": "the median"}
    return (
        {"headline": "The mean is {measured}, where {expected} is true and the median gives {rival}."} | row | changes
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "The mean is 0.501 ± 0.004, where 0.500 is true and the median gives 0.700 ± 0.004."),
        (
            {"headline": "{measured}, {expected}", "expected": None, "resolution": None, "at_most": 0.6},
            "0.501 ± 0.004, at most 0.6",
        ),
        (
            {"headline": "{measured}, {expected}", "expected": None, "resolution": None, "at_least": 0.4, "rival": 0.1},
            "0.501 ± 0.004, at least 0.4",
        ),
        (
            {
                "headline": "{expected}: {measured}",
                "expected": None,
                "resolution": None,
                "at_least": 0.4,
                "at_most": 0.6,
            },
            "0.4 to 0.6: 0.501 ± 0.004",
        ),
        ({"headline": "{measured} against {rival}", "rival": float("inf")}, "0.501 ± 0.004 against ∞"),
    ],
)
def test_a_headline_is_a_sentence_with_the_numbers_of_its_row(changes, said):
    row = lab.Claim("mean", 0.501, **headed(**changes))
    assert "".join(words for _, words in row.told) == said == row.to_dict()["headline"]


@pytest.mark.parametrize(
    "changes",
    [
        {"headline": "The mean is 0.501."},
        {"headline": "The mean is {measured}."},
        {"headline": "The truth is {expected}, the median gives {rival}."},
        {"headline": "{measured} {expected} {error}"},
        {"headline": "{measured} {expected} {"},
        {"headline": "{measured:.2f} where {expected} is true"},
        {"headline": "{measured!r} where {expected} is true"},
        {"headline": 3},
        {"headline": "{measured} {rival}", "rival": None, "rival_name": None},
    ],
)
def test_a_headline_without_the_numbers_is_refused(changes):
    with pytest.raises(ValueError, match="headline must be a sentence"):
        lab.Claim("mean", 0.501, **headed(**changes))


def test_headlines_stand_above_the_rows_which_are_folded_unless_one_fails(capsys):
    first, other = lab.Claim("a <mean>", 0.501, **headed()), lab.Claim("share", 0.5, at_least=0.4)
    lab.claims({"One & two": [first], "Three": [other]})
    assert capsys.readouterr().out.splitlines()[0].startswith("* The mean is 0.501 ± 0.004, where")
    page = tables._Claims({"One & two": [first], "Three": [other]})._repr_html_()
    assert page.index("The mean is") < page.index('<details class="scorebook-rows"><summary>All 2 claims')
    groups = re.findall(r'<tr class="section"><th colspan="5" scope="rowgroup" data-section="([^"]*)">', page)
    assert groups == ["One &amp; two", "Three"]
    assert page.index("One &amp; two") < page.index("a &lt;mean&gt;") < page.index("Three") < page.index("share")
    assert page.count("<tr") == 1 + 2 + 2
    assert "0.500 within&nbsp;0.02" in page
    failing = tables._Claims({"One": [lab.Claim("mean", 0.8, **headed())]})._repr_html_()
    assert '<details class="scorebook-rows" open>' in failing
    assert '<li class="fails">' in failing
    assert "<details" not in tables._Claims({None: [other]})._repr_html_()


def test_each_group_of_claims_is_the_section_that_it_names():
    sections = {
        "Noise": "noise",
        "Noise and data": "both",
        "Sampling, slowly": "slow",
        "Levels a": "a",
        "Levels b": "b",
        "A b": "b",
        "A c": "c",
    }
    assert claimed.section_of(sections, "Noise") == "noise"
    assert claimed.section_of(sections, "Sampling") == "slow"
    assert claimed.section_of(sections, "Sam") is None
    assert claimed.section_of(sections, "A") is None
    assert claimed.section_of(sections, "Guidance") is None


def test_a_page_leads_from_each_group_to_its_section(caplog):
    row = lab.Claim("share", 0.5, at_least=0.4)
    shown = tables._Claims({"One & two": [row], "Three": [row], "Bayes' rule": [row]})
    page = new_document("page")
    page += nodes.section("", nodes.title("", "One & two, and more"), ids=["one-two"])
    page += nodes.section("", nodes.title("", "Bayes’ rule"), ids=["bayes-rule"])
    page += nodes.raw("", shown._repr_html_(), format="html")
    claimed.lead(None, page, "page")
    (told,) = page.findall(nodes.raw)
    assert '<a class="reference internal" href="#one-two">One &amp; two</a></th>' in told.astext()
    assert '<a class="reference internal" href="#bayes-rule">' in told.astext()
    assert told.astext().count("<a ") == 2
    assert "no one section has this title" in caplog.text


def test_a_rival_has_no_more_digits_than_tell_it_from_what_is_expected():
    row = lab.Claim("a", 1.0911, at_most=1.5, error=0.0005, rival=estimate(720.1321, 0.0), rival_name="b")
    assert row._cells()[3] == "720: b"
    row = lab.Claim("a", 0.6931472, 0.6931472, resolution=1e-6, rival=estimate(0.6930011, 0.0), rival_name="b")
    assert row._cells()[3] == "0.693001: b"


def test_the_closing_table_is_shown_even_where_it_fails_and_names_each_failure(capsys):
    rows = [
        lab.Claim("mean", 0.501, 0.5, error=0.004, resolution=0.02),
        lab.Claim("variance", 1.25, 1.0, error=0.01, resolution=0.1),
        lab.Claim("distance", 1.4, at_most=1.3, error=0.01),
    ]
    with pytest.raises(AssertionError) as caught:
        lab.claims(rows)
    message = str(caught.value)
    assert "2 of 3 claims fail" in message
    assert "variance: measured 1.25 (standard error 0.01), expected 1: 0.25 apart" in message
    assert "distance: measured 1.4 + four standard errors of 0.01 = 1.44, which is not at most 1.3" in message
    assert "mean" not in message
    shown = capsys.readouterr().out
    assert "0.501 ± 0.004" in shown
    assert [line.split()[-1] for line in shown.splitlines()[2:]] == ["✓", "✗", "✗"]


def test_the_closing_table_is_shown_where_ipython_is_missing(capsys, monkeypatch):
    real = builtins.__import__

    def without_ipython(name, *arguments, **keywords):
        if name.startswith("IPython"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_ipython)
    assert lab.claims([lab.Claim("a law", 1.0, at_most=2.0)]) is None
    assert "a law" in capsys.readouterr().out


@pytest.mark.parametrize("rows", [[], ["a law"], {}, {"One": []}, {"One": ["a law"]}])
def test_a_closing_table_needs_claims(rows):
    with pytest.raises(ValueError, match="non-empty sequence of Claim"):
        lab.claims(rows)


def test_rows_stay_in_the_notebook_as_data(monkeypatch):
    shown = []
    monkeypatch.setattr(tables, "_show", shown.append)
    with pytest.raises(AssertionError):
        lab.claims([lab.Claim("a law", float("nan"), 0.5, resolution=0.1, note="one run")])
    bundle, metadata = DisplayFormatter().format(shown[0])
    assert {"text/plain", "text/html"} == set(bundle)
    (row,) = json.loads(json.dumps(metadata[tables.CLAIMS_MIME], allow_nan=False))["claims"]
    assert row == {
        "text": "a law",
        "measured": "nan",
        "error": 0.0,
        "expected": 0.5,
        "at_most": None,
        "at_least": None,
        "resolution": 0.1,
        "note": "one run",
        "rival": None,
        "rival_error": None,
        "rival_name": None,
        "headline": None,
        "section": None,
        "holds": False,
    }
