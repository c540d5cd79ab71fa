"""Conversions, DDPM and DDIM: right answers pass on many seeds, each mistake that the checks know has an author."""

import graded
import pytest
from catalogue import CHECKS, tuned_ddpm

from scorebook import coursework, lab

KINDS = ("ddpm step", "ddim step", "noise to score", "noise to clean", "clean to noise", "clean to v", "v to score")


def answers(kind):
    return [answer for answer in tuned_ddpm.catalogue.answers if answer.kind == kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_answer_passes_on_many_seeds(kind):
    right = next(answer for answer in answers(kind) if not answer.mistakes)
    graded.passes(lambda seed: CHECKS[kind](right.function, seed))


@pytest.mark.parametrize("kind", ["ddpm step", "ddim step"])
def test_every_mistake_in_the_catalogue_has_an_author(monkeypatch, kind):
    right = next(answer for answer in answers(kind) if not answer.mistakes)
    known = graded.catalogued(monkeypatch, lambda seed: CHECKS[kind](right.function, seed))
    assert known <= graded.authored("ddpm step", "ddim step")


@pytest.mark.parametrize(("source", "target"), [("noise", "clean"), ("score", "velocity"), ("clean", "noise")])
def test_the_conversions_of_the_lab_are_those_of_the_check(source, target):
    def convert(x, prediction, alpha_bar):
        alpha, sigma = alpha_bar[:, 0].sqrt(), (1 - alpha_bar[:, 0]).sqrt()
        return lab.convert_prediction(prediction, x, alpha, sigma, source=source, target=target)

    conversion = f"{source} to {target}".replace("velocity", "v")
    coursework.check_conversion(convert, conversion).require()


def test_a_conversion_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="conversion"):
        coursework.check_conversion(lambda x, p, b: p, "noise to noise")
