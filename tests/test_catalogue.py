"""What becomes of answers as students write them: the figures of the catalogues, printed and held to their aim."""

import functools
import itertools

import catalogue
import pytest
from catalogue import held_out, second_reading, third_reading, tuned

from scorebook import coursework

# One worker tries each answer, once.
pytestmark = pytest.mark.xdist_group("catalogue")

CATALOGUES = {
    "third": third_reading.catalogue,
    "second": second_reading.catalogue,
    "first": held_out.catalogue,
    "tuned": tuned.catalogue,
}


@functools.cache
def outcomes(name):
    """Every answer of a catalogue with what becomes of it, and the report."""
    return [(answer, *catalogue.tried(answer)) for answer in CATALOGUES[name].answers]


def figures(name):
    return catalogue.figures((answer, word) for answer, word, _ in outcomes(name))


def table():
    """The figures as the page for teachers has them."""
    rows = [
        ("right answers", "right", None),
        ("of them refused", "right refused", None),
        ("wrong answers", None, None),
        ("of them accepted", "wrong accepted", None),
        ("single mistakes that a check can name", "single labelled", None),
        ("of them named rightly", "single named", "single labelled"),
        ("not named", "single not named", "single labelled"),
        ("named wrongly", "single named wrongly", "single labelled"),
        ("pairs of mistakes", "pair labelled", None),
        ("of them with one named rightly", "pair named", "pair labelled"),
    ]
    lines = ["| | third pile | second pile | first pile | tuned |", "|---|---|---|---|---|"]
    for words, key, of in rows:
        cells = []
        for name in CATALOGUES:
            count = figures(name)
            number = count["single"] + count["pair"] if key is None else count[key]
            cells.append(f"{number}" if of is None else f"{number} ({100 * number / count[of]:.0f} %)")
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def told(name, *words):
    """The answers of a catalogue of which one of some words is said, for the message of a failure."""
    return [f"{a.kind}: {a.name}: {report.diagnosis}" for a, word, report in outcomes(name) if word in words]


@pytest.mark.parametrize("name", CATALOGUES)
def test_a_catalogue_holds_answers_of_every_kind(name):
    answers = CATALOGUES[name].answers
    assert {answer.kind for answer in answers} <= set(catalogue.CHECKS)
    assert len({(answer.kind, answer.name) for answer in answers}) == len(answers) >= 60
    assert {len(answer.mistakes) for answer in answers} == {0, 1, 2}


def test_the_catalogues_share_no_answer():
    functions = [{answer.function for answer in found.answers} for found in CATALOGUES.values()]
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(functions, 2))


@pytest.mark.parametrize("name", CATALOGUES)
def test_its_figures_are_printed(name, capsys):
    with capsys.disabled():
        print(f"\n{name}: {dict(figures(name))}")


def test_the_page_for_teachers_has_the_figures():
    page = (catalogue.MASTERS.parent / "book" / "coursework.md").read_text(encoding="utf-8")
    assert table() in page, f"the page should have\n{table()}"


@pytest.mark.parametrize("name", CATALOGUES)
def test_no_right_answer_of_a_catalogue_is_refused(name):
    assert not told(name, "refused")


@pytest.mark.parametrize("name", CATALOGUES)
def test_no_wrong_answer_of_a_catalogue_is_accepted(name):
    assert not told(name, "accepted")


@pytest.mark.parametrize("name", CATALOGUES)
def test_no_mistake_of_a_catalogue_has_the_name_of_another(name):
    assert not told(name, "named wrongly")


@pytest.mark.parametrize("name", CATALOGUES)
def test_nearly_all_mistakes_of_a_catalogue_are_named(name):
    count = figures(name)
    assert count["single named"] >= 0.95 * count["single labelled"], told(name, "not named")
    assert count["pair named"] >= 0.8 * count["pair labelled"]


def test_a_catalogue_sees_a_check_that_lets_everything_pass(monkeypatch):
    for check in ("check_langevin", "check_loss"):
        monkeypatch.setattr(coursework, check, lambda *args, **options: coursework.Report("check", True, "fine"))
    wrong = [a for a in tuned.catalogue.answers if a.kind in ("langevin", "denoising loss") and a.mistakes]
    assert {catalogue.tried(answer)[0] for answer in wrong} == {"accepted"}
