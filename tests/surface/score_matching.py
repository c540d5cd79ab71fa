"""The surface of ``scorebook.score_matching``."""

from scorebook import score_matching
from surface import Call, field, log_prob, points, score

CALLS = {
    "divergence": Call(lambda x: score_matching.divergence(field, x), x=points(), by_row=True),
    "explicit_score_matching_loss": Call(
        lambda x: score_matching.explicit_score_matching_loss(field, x, score), x=points()
    ),
    "fisher_divergence": Call(lambda x: score_matching.fisher_divergence(field, score, x), x=points()),
    "implicit_score_matching_loss": Call(lambda x: score_matching.implicit_score_matching_loss(field, x), x=points()),
    "integrate_score": Call(
        lambda x, origin: score_matching.integrate_score(score, x, origin, n_nodes=3),
        x=points(),
        origin=points(),
        by_row=True,
    ),
    "score_of": Call(lambda x: score_matching.score_of(log_prob, x), x=points(), by_row=True),
    "value_and_divergence": Call(
        lambda x: score_matching.value_and_divergence(field, x, chunk_size=1), x=points(), by_row=True
    ),
}
