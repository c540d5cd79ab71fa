"""Why nothing of ``scorebook.coursework.class_guidance`` takes data, and calls of it on right code."""

import torch

from scorebook.coursework import class_guidance as checks
from surface import Call

CODE = "takes a student's code, whose answers test_coursework_mistakes and test_coursework_guard spoil in every way"

NO_DATA = {
    "check_classifier_free": CODE,
    "check_classifier_guidance": CODE,
    "check_label_dropping": CODE,
}


def dropped(labels, p_drop, null, *, generator):
    """Labels of which some are left out, row by row."""
    mask = torch.rand(labels.shape, generator=generator, dtype=torch.float32) < p_drop
    return labels.masked_fill(mask, null)


def without_classifier(model, labels, null, scale):
    """A rightly guided score, from one network."""

    def score(x, t):
        unconditional = model(x, t, torch.full_like(labels, null))
        return unconditional + scale * (model(x, t, labels) - unconditional)

    return score


def with_classifier(sde, model, classifier, labels, scale):
    """A rightly guided score, by a classifier."""

    def score(x, t):
        with torch.enable_grad():
            y = x if x.requires_grad else x.detach().requires_grad_()
            chosen = classifier(y, t).log_softmax(1)[torch.arange(len(y)), labels]
            (gradient,) = torch.autograd.grad(chosen.sum(), y, create_graph=True)
        return model(x, t) + scale * gradient

    return score


WITHOUT_DATA = {
    "check_classifier_free": Call(lambda: checks.check_classifier_free(without_classifier, seed=0)),
    "check_classifier_guidance": Call(lambda: checks.check_classifier_guidance(with_classifier, seed=0)),
    "check_label_dropping": Call(lambda: checks.check_label_dropping(dropped, seed=0)),
}
