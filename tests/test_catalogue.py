"""What becomes of answers as students write them: the figures of the two catalogues, printed."""

import catalogue
import pytest
from catalogue import held_out

CATALOGUES = {"held_out": held_out.catalogue}


def outcomes(name):
    """Every answer of a catalogue with what becomes of it."""
    return [(answer, catalogue.tried(answer)[0]) for answer in CATALOGUES[name].answers]


@pytest.mark.parametrize("name", CATALOGUES)
def test_a_catalogue_holds_answers_of_every_kind(name):
    answers = CATALOGUES[name].answers
    assert {answer.kind for answer in answers} == set(catalogue.CHECKS)
    assert len({(answer.kind, answer.name) for answer in answers}) == len(answers) >= 60
    assert {len(answer.mistakes) for answer in answers} == {0, 1, 2}


@pytest.mark.parametrize("name", CATALOGUES)
def test_its_figures_are_printed(name, capsys):
    figures = catalogue.figures(outcomes(name))
    with capsys.disabled():
        print(f"\n{name}: {dict(figures)}")
