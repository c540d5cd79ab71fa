"""Answers on guidance by classes, of the first pile, written before the check."""

import torch
from torch.nn.functional import one_hot

from catalogue import Catalogue

catalogue = Catalogue()
right, wrong = catalogue.right, catalogue.wrong


@right("label dropping")
def by_where(labels, p_drop, null, *, generator):
    return torch.where(torch.rand(len(labels), generator=generator) < p_drop, null, labels)


@right("label dropping")
def by_bernoulli(labels, p_drop, null, *, generator):
    drop = torch.bernoulli(torch.full(labels.shape, float(p_drop)), generator=generator).bool()
    return labels.masked_fill(drop, null)


@right("label dropping")
def keeping_the_others(labels, p_drop, null):
    kept = torch.rand(labels.shape) >= p_drop
    return kept * labels + ~kept * null


@wrong("label dropping", "whole_batch")
def a_coin_for_the_batch(labels, p_drop, null, *, generator):
    return torch.full_like(labels, null) if torch.rand((), generator=generator) < p_drop else labels.clone()


@wrong("label dropping", "label_zero")
def dropped_to_zero(labels, p_drop, null, *, generator):
    return labels * (torch.rand(labels.shape, generator=generator) >= p_drop)


@wrong("label dropping", "mask")
def keeps_what_should_go(labels, p_drop, null, *, generator):
    return torch.where(torch.rand(len(labels), generator=generator) < p_drop, labels, null)


@wrong("label dropping", "mutation")
def in_place(labels, p_drop, null, *, generator):
    labels[torch.rand(len(labels), generator=generator) < p_drop] = null
    return labels


@wrong("label dropping", "fixed_rows|fixed_share")
def the_first_rows(labels, p_drop, null, *, generator):
    labels = labels.clone()
    labels[: round(p_drop * len(labels))] = null
    return labels


@wrong("label dropping", "mask", "label_zero")
def mask_and_zero(labels, p_drop, null, *, generator):
    return labels * (torch.rand(labels.shape, generator=generator) < p_drop)


@right("classifier-free")
def formula_of_the_book(model, labels, null, scale):
    def score(x, t):
        without = model(x, t, torch.full_like(labels, null))
        return without + scale * (model(x, t, labels) - without)

    return score


@right("classifier-free")
def in_one_batch(model, labels, null, scale):
    def score(x, t):
        t = torch.as_tensor(t, dtype=x.dtype).expand(len(x))
        both = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([labels, torch.full_like(labels, null)]))
        conditional, unconditional = both.chunk(2)
        return scale * conditional + (1 - scale) * unconditional

    return score


@wrong("classifier-free", "one_plus_scale")
def as_ho_and_salimans_write(model, labels, null, scale):
    def score(x, t):
        return (1 + scale) * model(x, t, labels) - scale * model(x, t, torch.full_like(labels, null))

    return score


@wrong("classifier-free", "label_zero")
def class_zero_for_no_class(model, labels, null, scale):
    def score(x, t):
        without = model(x, t, torch.zeros_like(labels))
        return without + scale * (model(x, t, labels) - without)

    return score


@wrong("classifier-free", "unconditional_sign")
def plus_for_minus(model, labels, null, scale):
    def score(x, t):
        return scale * model(x, t, labels) + (scale - 1) * model(x, t, torch.full_like(labels, null))

    return score


@wrong("classifier-free", "swapped")
def the_two_exchanged(model, labels, null, scale):
    def score(x, t):
        with_label, without = model(x, t, labels), model(x, t, torch.full_like(labels, null))
        return with_label + scale * (without - with_label)

    return score


@wrong("classifier-free", "detached")
def under_no_grad(model, labels, null, scale):
    @torch.no_grad()
    def score(x, t):
        without = model(x, t, torch.full_like(labels, null))
        return without + scale * (model(x, t, labels) - without)

    return score


@wrong("classifier-free", "no_base")
def the_difference_alone(model, labels, null, scale):
    return lambda x, t: scale * (model(x, t, labels) - model(x, t, torch.full_like(labels, null)))


@wrong("classifier-free", "one_plus_scale", "label_zero")
def theirs_with_zero(model, labels, null, scale):
    return lambda x, t: (1 + scale) * model(x, t, labels) - scale * model(x, t, 0 * labels)


@right("classifier guidance")
def by_cross_entropy(sde, model, classifier, labels, scale):
    def score(x, t):
        with torch.enable_grad():
            y = x if x.requires_grad else x.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(classifier(y, t), labels, reduction="sum")
            (g,) = torch.autograd.grad(loss, y, create_graph=True)
        return model(x, t) - scale * g

    return score


@right("classifier guidance of noise")
def noise_less_sigma_times_gradient(sde, model, classifier, labels, scale):
    def noise(x, t):
        with torch.enable_grad():
            y = x if x.requires_grad else x.detach().requires_grad_()
            picked = classifier(y, t).log_softmax(-1).gather(1, labels[:, None]).sum()
            (g,) = torch.autograd.grad(picked, y, create_graph=True)
        return model(x, t) - scale * sde.sigma(torch.as_tensor(t)).reshape(-1, 1) * g

    return noise


def _gradient(value, x):
    with torch.enable_grad():
        y = x if x.requires_grad else x.detach().requires_grad_()
        return torch.autograd.grad(value(y), y, create_graph=True)[0]


@wrong("classifier guidance", "mean_batch")
def cross_entropy_as_it_comes(sde, model, classifier, labels, scale):
    def score(x, t):
        g = _gradient(lambda y: torch.nn.functional.cross_entropy(classifier(y, t), labels), x)
        return model(x, t) - scale * g

    return score


@wrong("classifier guidance", "guidance_sign")
def gradient_of_the_loss(sde, model, classifier, labels, scale):
    def score(x, t):
        g = _gradient(lambda y: torch.nn.functional.cross_entropy(classifier(y, t), labels, reduction="sum"), x)
        return model(x, t) + scale * g

    return score


@wrong("classifier guidance", "logits")
def raw_logits(sde, model, classifier, labels, scale):
    def score(x, t):
        return model(x, t) + scale * _gradient(lambda y: (one_hot(labels, 3) * classifier(y, t)).sum(), x)

    return score


@wrong("classifier guidance", "no_log|probability")
def probability_for_its_logarithm(sde, model, classifier, labels, scale):
    def score(x, t):
        g = _gradient(lambda y: classifier(y, t).softmax(1)[torch.arange(len(y)), labels].sum(), x)
        return model(x, t) + scale * g

    return score


@wrong("classifier guidance", "clean_time|wrong_time")
def classifier_at_time_zero(sde, model, classifier, labels, scale):
    def score(x, t):
        g = _gradient(
            lambda y: (
                classifier(y, torch.zeros_like(torch.as_tensor(t))).log_softmax(1)[torch.arange(len(y)), labels].sum()
            ),
            x,
        )
        return model(x, t) + scale * g

    return score


@wrong("classifier guidance", "detached")
def score_without_graph(sde, model, classifier, labels, scale):
    def score(x, t):
        g = _gradient(lambda y: classifier(y, t).log_softmax(1)[torch.arange(len(y)), labels].sum(), x)
        return (model(x, t) + scale * g).detach()

    return score


@wrong("classifier guidance of noise", "score_for_noise")
def noise_guided_like_a_score(sde, model, classifier, labels, scale):
    def noise(x, t):
        g = _gradient(lambda y: classifier(y, t).log_softmax(1)[torch.arange(len(y)), labels].sum(), x)
        return model(x, t) + scale * g

    return noise


@wrong("classifier guidance of noise", "variance_for_std")
def sigma_squared(sde, model, classifier, labels, scale):
    def noise(x, t):
        g = _gradient(lambda y: classifier(y, t).log_softmax(1)[torch.arange(len(y)), labels].sum(), x)
        return model(x, t) - scale * sde.sigma(torch.as_tensor(t)).reshape(-1, 1) ** 2 * g

    return noise


@wrong("classifier guidance of noise", "no_sigma", "mean_batch")
def no_sigma_and_a_mean(sde, model, classifier, labels, scale):
    def noise(x, t):
        return model(x, t) + scale * _gradient(lambda y: torch.nn.functional.cross_entropy(classifier(y, t), labels), x)

    return noise
