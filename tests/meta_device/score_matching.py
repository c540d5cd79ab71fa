"""Calls of ``scorebook.score_matching`` on the meta device."""

from meta_device import points, score
from scorebook import score_matching

DRIVEN = {
    "divergence": lambda: [score_matching.divergence(score, points(2, 2), chunk_size=size) for size in (None, 3)],
}
