"""Random projections: each law of the book passes, and a scale that is off by a tenth does not."""

import pytest
import torch

from scorebook import coursework
from scorebook.sliced_score_matching import random_projections


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "sphere"])
def test_each_law_of_the_book_passes(kind):
    coursework.check_projections(
        lambda x, n, *, generator: random_projections(x, n, kind=kind, generator=generator)
    ).require()


@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_another_scale_is_refused(scale):
    report = coursework.check_projections(
        lambda x, n, *, generator: scale * random_projections(x, n, kind="gaussian", generator=generator)
    )
    assert not report.passed
    assert report.mistake is None


def test_directions_that_neighbours_share_are_refused():
    def shared(x, n, *, generator):
        return torch.randn(n, len(x) // 2, x.shape[1], generator=generator, dtype=x.dtype).repeat(1, 2, 1)

    assert coursework.check_projections(shared).mistake == "shared_projection"
