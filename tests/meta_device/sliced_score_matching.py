"""Calls of ``scorebook.sliced_score_matching`` on the meta device."""

from meta_device import generator, points, score
from scorebook import sliced_score_matching

DRIVEN = {
    "value_and_slices": lambda: sliced_score_matching.value_and_slices(score, points(2, 2), points(2, 2)[None]),
    "random_projections": lambda: [
        sliced_score_matching.random_projections(points(2, 2), 3, kind=kind, generator=generator())
        for kind in ("rademacher", "gaussian", "sphere")
    ],
    "sliced_divergence": lambda: sliced_score_matching.sliced_divergence(score, points(), points()),
    "sliced_score_matching_loss": lambda: [
        sliced_score_matching.sliced_score_matching_loss(
            score, points(2, 2), n_projections=2, variance_reduced=reduced, generator=generator()
        )
        for reduced in (True, False)
    ],
}
