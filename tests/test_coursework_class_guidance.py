"""Guidance by classes: right answers pass on many seeds, each mistake that the checks know has an author."""

import graded
import pytest
from catalogue import CHECKS, tuned_classes

from scorebook import controllable_generation, coursework

KINDS = ("label dropping", "classifier-free", "classifier guidance", "classifier guidance of noise")


def right(kind):
    return next(a.function for a in tuned_classes.catalogue.answers if a.kind == kind and not a.mistakes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_answer_passes_on_many_seeds(kind):
    graded.passes(lambda seed: CHECKS[kind](right(kind), seed))


@pytest.mark.parametrize("kind", KINDS)
def test_every_mistake_in_the_catalogue_has_an_author(monkeypatch, kind):
    known = graded.catalogued(monkeypatch, lambda seed: CHECKS[kind](right(kind), seed))
    assert known <= graded.authored(*KINDS)


def test_the_books_own_guidance_passes():
    def guided(model, labels, null, scale):
        def conditional(x, t):
            return model(x, t, labels)

        def unconditional(x, t):
            return model(x, t, 0 * labels + null)

        return controllable_generation.classifier_free(conditional, unconditional, scale)

    coursework.check_classifier_free(guided).require()


def test_a_kind_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="kind"):
        coursework.check_classifier_guidance(lambda *given: None, kind="v")
