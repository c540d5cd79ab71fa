"""Calls of ``scorebook.score_matching`` on the meta device."""

import torch

from meta_device import log_prob, points, score
from scorebook import score_matching

DRIVEN = {
    "divergence": lambda: [
        score_matching.divergence(field, points(2, 2), chunk_size=size)
        for field in (score, torch.tanh)
        for size in (None, 3, 1)
    ],
    "explicit_score_matching_loss": lambda: [
        score_matching.explicit_score_matching_loss(torch.tanh, points(), score, reduction=reduction)
        for reduction in ("mean", "none")
    ],
    "fisher_divergence": lambda: score_matching.fisher_divergence(torch.tanh, score, points()),
    "implicit_score_matching_loss": lambda: [
        score_matching.implicit_score_matching_loss(torch.tanh, points(2, 2), chunk_size=size) for size in (None, 3)
    ],
    "integrate_score": lambda: [
        score_matching.integrate_score(score, points(), origin) for origin in (points(), points()[0])
    ],
    "score_of": lambda: score_matching.score_of(log_prob, points(2, 2)),
    "value_and_divergence": lambda: score_matching.value_and_divergence(torch.tanh, points(2, 2)),
}
