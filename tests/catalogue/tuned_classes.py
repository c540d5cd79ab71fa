"""Answers on which the checks of guidance by classes were mended.

The factories write down an answer once, with the place of each slip as an argument.
"""

import torch

from catalogue import Catalogue

catalogue = Catalogue()


def add(kind, answers):
    """Answers of one kind: name, function, mistakes."""
    for name, function, *mistakes in answers:
        catalogue.add(kind, name, function, *mistakes)


# Labels dropped in training.


def coins(labels, p, generator):
    return torch.rand(labels.shape, generator=generator) < p


def drop(mask=coins, to=lambda labels, null: torch.full_like(labels, null)):
    """Student's dropping of labels, with the place of each usual mistake as an argument."""

    def dropped(labels, p_drop, null, *, generator):
        return torch.where(mask(labels, p_drop, generator), to(labels, null), labels)

    return dropped


def of_fixed_seed(labels, p, generator):
    return coins(labels, p, torch.Generator().manual_seed(5))


def one_coin(labels, p, generator):
    return coins(labels[:1], p, generator).expand(labels.shape)


def a_coin_for_each_class(labels, p, generator):
    return coins(torch.zeros(8), p, generator)[labels]


def exactly_so_many(labels, p, generator):
    return torch.randperm(len(labels), generator=generator) < round(p * len(labels))


def one_after_the_other(labels, p_drop, null):
    return torch.tensor([null if torch.rand(()) < p_drop else y for y in labels.tolist()])


add("label dropping", [
    ("by_hand", drop()),
    ("one_after_the_other", one_after_the_other),
    ("as_floats", lambda labels, p_drop, null, generator: drop()(labels, p_drop, null, generator=generator).float()),
    ("one_coin", drop(one_coin), "whole_batch"),
    ("coins_for_halves", drop(lambda y, p, g: coins(y[:2], p, g).repeat_interleave(len(y) // 2)), "whole_batch"),
    ("coins_for_classes", drop(a_coin_for_each_class), "by_class"),
    ("to_zero", drop(to=lambda y, null: 0 * y), "label_zero"),
    ("to_ten", drop(to=lambda y, null: 0 * y + 10), "other_null"),
    ("to_the_next_class", drop(to=lambda y, null: (y + 1) % 3), "labels_changed"),
    ("inverted", drop(lambda y, p, g: ~coins(y, p, g)), "mask"),
    ("never", drop(lambda y, p, g: coins(y, 0.0, g)), "no_dropping"),
    ("always", drop(lambda y, p, g: coins(y, 2.0, g)), "all_dropped"),
    ("squared", drop(lambda y, p, g: coins(y, p**2, g)), "squared"),
    ("half", drop(lambda y, p, g: coins(y, 0.5, g)), "half"),
    ("randn", drop(lambda y, p, g: torch.randn(y.shape, generator=g) < p), "normal_for_uniform"),
    ("fixed_seed", drop(of_fixed_seed), "fixed_seed"),
    ("first_rows", drop(lambda y, p, g: torch.arange(len(y)) < p * len(y)), "fixed_rows"),
    ("exactly_so_many", drop(exactly_so_many), "fixed_share"),
    ("inverted_to_zero", drop(lambda y, p, g: ~coins(y, p, g), lambda y, null: 0 * y), "mask", "label_zero"),
    ("one_coin_to_zero", drop(one_coin, lambda y, null: 0 * y), "whole_batch", "label_zero"),
])  # fmt: skip


# Guidance without a classifier.


def free(weights=lambda w: (w, 1 - w), none=lambda y, null: torch.full_like(y, null), given=lambda y: y,
         keep=lambda c, u: (c, u), asked=lambda t: t):  # fmt: skip
    """Student's classifier-free guidance, with the place of each usual mistake as an argument."""

    def guided(model, labels, null, scale):
        def score(x, t):
            c, u = keep(model(x, asked(t), given(labels)), model(x, asked(t), none(labels, null)))
            a, b = weights(scale)
            return a * c + b * u

        return score

    return guided


def normed(model, labels, null, scale):
    def score(x, t):
        c, u = model(x, t, labels), model(x, t, torch.full_like(labels, null))
        g = u + scale * (c - u)
        return g * c.norm() / g.norm()

    return score


def row_after_row(model, labels, null, scale):
    def score(x, t):
        rows = []
        for k in range(len(x)):
            c, u = (model(x[k : k + 1], t, y) for y in (labels[k : k + 1], torch.tensor([null])))
            rows.append((1 - scale) * u + scale * c)
        return torch.cat(rows)

    return score


add("classifier-free", [
    ("by_hand", free()),
    ("row_after_row", row_after_row),
    ("one_plus", free(lambda w: (1 + w, -w)), "one_plus_scale"),
    ("minus_one", free(lambda w: (w - 1, 2 - w)), "one_plus_scale"),
    ("swapped", free(lambda w: (1 - w, w)), "swapped"),
    ("sign_of_the_second", free(lambda w: (w, w - 1)), "unconditional_sign"),
    ("theirs_with_plus", free(lambda w: (1 + w, w)), "unconditional_sign"),
    ("sum_in_the_bracket", free(lambda w: (w, 1 + w)), "unconditional_sign"),
    ("no_base", free(lambda w: (w, -w)), "no_base"),
    ("no_second", free(lambda w: (w, 0.0)), "no_unconditional"),
    ("conditional", free(lambda w: (1.0, 0.0)), "no_guidance"),
    ("unconditional", free(lambda w: (0.0, 1.0)), "no_condition"),
    ("bracket", free(lambda w: (1.0, 1 - w)), "bracket"),
    ("label_zero", free(none=lambda y, null: 0 * y), "label_zero"),
    ("first_label", free(given=lambda y: y[:1].expand_as(y)), "one_label"),
    ("label_of_its_own", free(none=lambda y, null: torch.full_like(y, 7)), "unknown_label"),
    ("detached", free(keep=lambda c, u: (c.detach(), u.detach())), "detached"),
    ("second_detached", free(keep=lambda c, u: (c, u.detach())), "detached"),
    ("first_detached", free(keep=lambda c, u: (c.detach(), u)), "detached"),
    ("another_time", free(asked=lambda t: 1 - t), "wrong_time"),
    ("at_sigma", free(asked=lambda t: (1 - torch.exp(-0.1 * t - 9.95 * t**2)).sqrt()), "noise_scale"),
    ("norm_of_the_batch", normed, "coupled"),
    ("one_plus_to_zero", free(lambda w: (1 + w, -w), lambda y, null: 0 * y), "one_plus_scale", "label_zero"),
    ("swapped_first_label", free(lambda w: (1 - w, w), given=lambda y: y[:1].expand_as(y)), "swapped", "one_label"),
    ("no_base_detached", free(lambda w: (w, -w), keep=lambda c, u: (c.detach(), u.detach())), "no_base", "detached"),
])  # fmt: skip


# Guidance by a classifier.


def log_of(logits, labels):
    return logits.log_softmax(1)[torch.arange(len(labels)), labels]


def by_classifier(size=lambda sde, t: 1.0, value=log_of, reduce=torch.sum, point=lambda sde, model, x, t: x,
                  at=lambda t: t, graph=True, base=1.0, scale=lambda w: w, after=lambda s: s,
                  labels_of=lambda y: y):  # fmt: skip
    """Student's classifier guidance, with the place of each usual mistake as an argument."""

    def guided(sde, model, classifier, labels, scale_given):
        def function(x, t):
            with torch.enable_grad():
                y = x if x.requires_grad else x.detach().requires_grad_()
                logits = classifier(point(sde, model, y, t), at(t))
                (g,) = torch.autograd.grad(reduce(value(logits, labels_of(labels))), y, create_graph=graph)
            return after(base * model(x, t) + scale(scale_given) * size(sde, t) * g)

        return function

    return guided


def backward(sde, model, classifier, labels, scale):
    """By .grad, in a graph that is kept."""

    def function(x, t):
        y = x.clone() if x.requires_grad else x.detach().clone().requires_grad_()
        y.retain_grad()
        (g,) = torch.autograd.grad(log_of(classifier(y, t), labels).sum(), y, create_graph=True)
        return model(x, t) + scale * g

    return function


add("classifier guidance", [
    ("by_hand", by_classifier()),
    ("on_a_copy", backward),
    ("mean", by_classifier(reduce=torch.mean), "mean_batch"),
    ("sign", by_classifier(scale=lambda w: -w), "guidance_sign"),
    ("logits", by_classifier(value=lambda z, y: z[torch.arange(len(y)), y]), "logits"),
    ("probability", by_classifier(value=lambda z, y: z.softmax(1)[torch.arange(len(y)), y]), "probability"),
    ("all_classes", by_classifier(value=lambda z, y: z.log_softmax(1)), "all_classes"),
    ("first_label", by_classifier(labels_of=lambda y: y[:1].expand_as(y)), "one_label"),
    ("class_zero", by_classifier(labels_of=lambda y: 0 * y), "label_zero"),
    ("denoised", by_classifier(point=lambda sde, m, x, t: (x + sde.sigma(t) ** 2 * m(x, t)) / sde.alpha(t)),
     "clean_point"),
    ("over_alpha", by_classifier(point=lambda sde, m, x, t: x / sde.alpha(t)), "clean_point"),
    ("at_zero", by_classifier(at=lambda t: 0 * t), "clean_time"),
    ("at_one_minus_t", by_classifier(at=lambda t: 1 - t), "clean_time|wrong_time"),
    ("no_guidance", by_classifier(scale=lambda w: 0.0), "no_guidance"),
    ("no_base", by_classifier(base=0.0), "no_base"),
    ("no_scale", by_classifier(scale=lambda w: 1.0), "scale_ignored"),
    ("one_plus", by_classifier(scale=lambda w: 1 + w), "one_plus_scale"),
    ("no_graph", by_classifier(graph=False), "detached"),
    ("detached", by_classifier(after=lambda s: s.detach()), "detached"),
    ("sigma", by_classifier(lambda sde, t: sde.sigma(t)), "extra_sigma"),
    ("sigma_squared", by_classifier(lambda sde, t: sde.sigma(t) ** 2), "extra_sigma"),
    ("as_noise", by_classifier(lambda sde, t: -sde.sigma(t)), "noise_for_score"),
    ("mean_and_sign", by_classifier(reduce=torch.mean, size=lambda sde, t: -1.0), "mean_batch", "guidance_sign"),
    ("zero_and_no_base", by_classifier(at=lambda t: 0 * t, base=0.0), "clean_time", "no_base"),
    ("logits_and_sigma", by_classifier(lambda sde, t: sde.sigma(t), lambda z, y: z[torch.arange(len(y)), y]),
     "logits", "extra_sigma"),
])  # fmt: skip
add("classifier guidance of noise", [
    ("by_hand", by_classifier(lambda sde, t: -sde.sigma(t))),
    ("as_a_score", by_classifier(), "score_for_noise"),
    ("no_sigma", by_classifier(lambda sde, t: -1.0), "no_sigma"),
    ("sign", by_classifier(lambda sde, t: sde.sigma(t)), "guidance_sign"),
    ("variance", by_classifier(lambda sde, t: -(sde.sigma(t) ** 2)), "variance_for_std"),
    ("over_sigma", by_classifier(lambda sde, t: -1 / sde.sigma(t)), "variance_for_std"),
    ("mean", by_classifier(lambda sde, t: -sde.sigma(t), reduce=torch.mean), "mean_batch"),
    ("no_graph", by_classifier(lambda sde, t: -sde.sigma(t), graph=False), "detached"),
    ("variance_and_mean", by_classifier(lambda sde, t: -(sde.sigma(t) ** 2), reduce=torch.mean), "variance_for_std",
     "mean_batch"),
])  # fmt: skip
