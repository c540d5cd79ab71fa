"""Why nothing of ``scorebook.coursework.learning`` takes data, and calls of it on the book's own code."""

from scorebook import noise_scales, score_matching
from scorebook.coursework import learning
from surface import Call, mixture

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {
    "check_divergence": CODE,
    "check_loss": CODE,
    "check_score": CODE,
}

WITHOUT_DATA = {
    "check_divergence": Call(lambda: learning.check_divergence(score_matching.divergence, seed=0)),
    "check_loss": Call(lambda: learning.check_loss(noise_scales.denoising_score_matching_loss, "denoising", seed=0)),
    "check_score": Call(lambda: learning.check_score(mixture().score, mixture(), seed=0)),
}
