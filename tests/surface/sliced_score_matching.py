"""The surface of ``scorebook.sliced_score_matching``."""

from scorebook import sliced_score_matching
from surface import Call, field, generator, points

CALLS = {
    "random_projections": Call(
        lambda x: [
            sliced_score_matching.random_projections(x, 1, kind=kind, generator=generator())
            for kind in ("rademacher", "gaussian", "sphere")
        ],
        x=points(values_matter=False),
    ),
    "sliced_divergence": Call(
        lambda x, v: sliced_score_matching.sliced_divergence(field, x, v), x=points(), v=points(), by_row=True
    ),
    "sliced_score_matching_loss": Call(
        lambda x: sliced_score_matching.sliced_score_matching_loss(field, x, generator=generator()), x=points()
    ),
    "value_and_slices": Call(
        lambda x, v: [
            part.movedim(-1, 0) if part.shape == (1, len(x)) else part
            for part in sliced_score_matching.value_and_slices(field, x, v[None])
        ],
        x=points(),
        v=points(),
        by_row=True,
    ),
}
