r"""Checks of guidance by classes: labels that are dropped in training, guidance without a classifier and with one.

The networks that a check hands out are made up, one smooth function for each class, so a guided score is known at every
point, for the right code and for each wrong one.
"""

import math
from collections.abc import Callable
from typing import Any

import torch

from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.problems import child, refuse_other_times, seeded
from scorebook.coursework.reports import Answer, Report, judge, slips, spelt
from scorebook.lab.arguments import as_given, one_of, standard_normal
from scorebook.lab.types import Integer, Number
from scorebook.sde import VPSDE

__all__ = ["check_classifier_free", "check_classifier_guidance", "check_label_dropping"]

_DOUBLE = torch.float64
_CLASSES = 3
_Entries = list[tuple[str, str, dict[str, Any]]]


def check_label_dropping(drop: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold the dropping of labels, as classifier-free guidance needs it in training, against its law.

    Each label of a batch is replaced by the null label with probability :math:`p`, by itself, and anew in each call.

    Args:
        drop: the student's callable ``drop(labels, p_drop, null, *, generator) -> labels``: ``labels`` are integers of
            shape ``(B,)``, ``null`` the integer that says "no class", which is no label. It may do without
            ``generator``.
        seed: of labels and draws.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Ho & Salimans (2022), algorithm 1.
    """
    student = Student("drop(labels, p_drop, null, generator=generator)", ("Controllable generation", "Classes"))
    generator = seeded(seed)

    def check():
        calls, n = 48, 512
        p = 0.1 + 0.15 * torch.rand((), generator=generator, dtype=_DOUBLE).item()
        null = (-1, _CLASSES)[int(torch.randint(2, (), generator=generator))]
        labels = torch.randint(_CLASSES, (n,), generator=generator)
        rows = []
        for _ in range(calls):
            result = student.call(drop, labels.clone(), p, null, generator=child(generator))
            rows.append(student.tensor(result, (n,), "what you return").round().long())
        after = torch.stack(rows)
        said = f"p_drop = {p:.3g}, null = {null}, {n} labels of {_CLASSES} classes"
        _refuse_other_labels(after, labels, null, said)
        dropped = (after == null).double()
        _refuse_dependent_drops(dropped, labels, p, said)
        share, scatter = dropped.mean(), math.sqrt(p * (1 - p) / (calls * n))
        answers = [Answer("share of dropped labels", share, torch.tensor(p, dtype=_DOUBLE), scatter, 1e-9)]
        entries: _Entries = [
            ("mask", "the mask is the other way round: dropped is what should be kept", {"share": 1 - p}),
            ("no_dropping", "no label is dropped", {"share": 0.0}),
            ("all_dropped", "every label is dropped", {"share": 1.0}),
            ("squared", "labels are dropped with probability p²", {"share": p**2}),
            ("half", "labels are dropped with probability 1/2, whatever p_drop", {"share": 0.5}),
            ("normal_for_uniform", "p is compared with a normal number, not with one that is uniform on [0, 1]",
             {"share": 0.5 * (1 + math.erf(p / math.sqrt(2)))}),
        ]  # fmt: skip

        def formula(share=p):
            return {"share of dropped labels": torch.tensor(share, dtype=_DOUBLE)}

        verified = "labels are dropped row by row, with the right probability"
        return judge("check_label_dropping", answers, slips(formula, entries), verified=verified)

    return under_guard("check_label_dropping", check, student, time_limit=time_limit)


def _refuse_other_labels(after, labels, null, said):
    strange = (after != labels) & (after != null)
    if not strange.any():
        return
    call, row = strange.nonzero()[0].tolist()
    seen = f" With {said}, label {labels[row].item()} became {after[call, row].item()}; itself or {null} would be right"
    values = after[strange].unique().tolist()
    if values == [0]:
        raise Refusal(f"a dropped label becomes 0, which is a class: the null label was given.{seen}", "label_zero")
    if len(values) == 1:
        raise Refusal(f"a dropped label becomes {values[0]}, which is not the null label.{seen}", "other_null")
    raise Refusal(f"labels are changed into other labels.{seen}", "labels_changed")


def _refuse_dependent_drops(dropped, labels, p, said):
    n, shares = dropped.shape[1], dropped.mean(1)
    if bool(((shares == 0) | (shares == 1)).all()) and len(shares.unique()) == 2:
        raise Refusal(
            f"the labels of a batch are dropped all or none: with {said}, each row by itself would be right",
            "whole_batch",
        )
    if 0 < shares[0] < 1 and bool((dropped == dropped[0]).all()):
        ordered = bool((dropped[0].diff() != 0).sum() == 1)
        if ordered:
            words, key = "the same rows are dropped in each call, those at one end of the batch", "fixed_rows"
        else:
            words, key = "two calls with different seeds drop the same rows: a seed is set inside", "fixed_seed"
        raise Refusal(f"{words}; with {said}, rows drawn anew would be right", key)
    of_class = [dropped[:, labels == k] for k in range(_CLASSES)]
    if all(bool(((part.mean(1) == 0) | (part.mean(1) == 1)).all()) for part in of_class) and 0 < dropped.mean() < 1:
        raise Refusal(
            f"all labels of a class are dropped together: with {said}, each row by itself is right", "by_class"
        )
    scatter = shares.std().item()
    expected = (shares.mean() * (1 - shares.mean()) / n).sqrt().item()
    if 0 < shares.mean() < 1 and scatter < 0.3 * expected:
        raise Refusal(
            f"exactly {int(dropped[0].sum())} labels are dropped in each call: with {said}, their number should vary, "
            f"for each row is dropped by itself with probability p_drop = {p:.3g}",
            "fixed_share",
        )
    if scatter > 2 * expected:
        raise Refusal(
            f"the share of dropped labels scatters by {scatter:.3g} from call to call, where rows dropped each "
            f"by itself scatter by {expected:.3g}: with {said}, some rows hang together",
            "whole_batch",
        )


class _Problem:
    """Points, labels and made-up networks on which a guided score is known."""

    def __init__(self, generator):
        n, d = 16, 3
        self.process = VPSDE()
        self.x = 1.5 * standard_normal((n, d), generator=generator, dtype=_DOUBLE)
        self.labels = torch.randint(_CLASSES, (n,), generator=generator)
        self.labels[:2] = torch.tensor([1, 2])  # so that not all are of one class
        self.null = (-1, _CLASSES)[int(torch.randint(2, (), generator=generator))]
        self.times = (
            0.2 + 0.3 * torch.arange(3, dtype=_DOUBLE) + 0.1 * torch.rand(3, generator=generator, dtype=_DOUBLE)
        )
        self.scale = 2 + torch.rand((), generator=generator, dtype=_DOUBLE).item()
        self.mix = standard_normal((_CLASSES + 1, d, d), generator=generator, dtype=_DOUBLE)
        self.shift = standard_normal((_CLASSES + 1, d), generator=generator, dtype=_DOUBLE)
        self.weights = standard_normal((d, _CLASSES), generator=generator, dtype=_DOUBLE)
        self.direction = standard_normal((n, d), generator=generator, dtype=_DOUBLE)
        self.asked: list[Any] = []

    def network(self, x, t, labels):
        """A smooth function of point and time for each class, and one for none."""
        which = torch.where(labels == self.null, _CLASSES, labels)
        time = as_given(t, _DOUBLE).reshape(-1, 1)
        inside = torch.einsum("bij,bj->bi", self.mix[which], x.to(_DOUBLE))
        return torch.sin(inside + self.shift[which] * (1 + time)).to(x.dtype)

    def model(self, x, t, labels):
        """The same as a student gets it."""
        self.asked.append(t)
        labels = as_given(labels, _DOUBLE).long().reshape(-1)
        if labels.numel() == 1:
            labels = labels.expand(len(x))
        if len(labels) != len(x):
            raise Refusal(f"the network is given {len(labels)} labels for {len(x)} points", "shape")
        strange = (labels != self.null) & ((labels < 0) | (labels >= _CLASSES))
        if strange.any():
            raise Refusal(
                f"the network is given the label {labels[strange][0].item()}: the classes are 0 to {_CLASSES - 1}, "
                f"and the null label is {self.null}",
                "unknown_label",
            )
        return self.network(x, t, labels)

    def without_class(self, x, t):
        """The network of no class."""
        return self.network(x, t, torch.full((len(x),), self.null))

    def logits(self, x, t):
        """What a classifier of noised points says."""
        time = as_given(t, _DOUBLE).reshape(-1, 1)
        x64 = x.to(_DOUBLE)
        bowl = 0.3 * x64.square().sum(1, keepdim=True) * self.shift[:_CLASSES, 0]
        return (torch.sin(x64 @ self.weights) * (1 + 2 * time) + bowl).to(x.dtype)

    def measured(self, student, guided, what):
        """The student's values at all times, and their derivatives along a direction."""
        values, slopes = [], []
        for t in self.times:
            self.asked.clear()
            x = self.x.clone().requires_grad_()
            result = student.connected(student.call(guided, x, t.clone()), x.shape, what)
            values.append(student.tensor(result, x.shape, what))
            refuse_other_times(self.asked, t, self.process)
            slope = None
            if result.requires_grad:
                (slope,) = torch.autograd.grad((result * self.direction.to(result)).sum(), x, allow_unused=True)
            slopes.append(torch.zeros_like(self.x) if slope is None else slope.to(_DOUBLE))
        moved = torch.cat([self.x[:8], 3 * self.x[8:] + 1])
        again = student.tensor(student.call(guided, moved, self.times[-1].clone()), self.x.shape, what)
        return torch.stack(values), torch.stack(slopes), again[:8]

    def told(self, name, function, slope_of=None):
        """Predictions of a guided function ``(x, t) -> tensor``: its values and its slopes."""
        values, slopes = [], []
        for t in self.times:
            x = self.x.clone().requires_grad_()
            result = function(x, t)
            values.append(result.detach())
            through = result if slope_of is None else slope_of(x, t)
            if through is None or not through.requires_grad:
                slopes.append(torch.zeros_like(self.x))
            else:
                slopes.append(torch.autograd.grad((through * self.direction).sum(), x)[0])
        return {name: torch.stack(values), f"gradient through the {name}": torch.stack(slopes)}

    def answers(self, name, values, slopes, truth):
        """Values and slopes beside the truth."""

        def where(row):
            return f"t = {self.times[row].item():.3g}, where the first point is {spelt(self.x[0])},"

        quantities = (name, f"gradient through the {name}")
        return [
            Answer.exact(quantity, measured, truth[quantity], 1e-4, where=where)
            for quantity, measured in zip(quantities, (values, slopes), strict=True)
        ]

    def refuse_coupling(self, values, again):
        """Refuse a function whose answer for a point moves with the other points."""
        if (again - values[-1][:8]).abs().max() > 1e-4 * values.abs().max():
            raise Refusal(
                "your answer for a point depends on the other points of its batch: a mean or norm over the batch axis",
                "coupled",
            )


def check_classifier_free(guided: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold classifier-free guidance against its formula, for a network that takes labels.

    .. math:: s(x, t) + w\,\big[s(x, t \mid y) - s(x, t)\big]

    So :math:`w = 0` is the unconditional score and :math:`w = 1` the conditional one; Ho and Salimans write
    :math:`1 + w` for this :math:`w`. The guided score stays differentiable.

    Args:
        guided: the student's callable ``guided(model, labels, null, scale) -> score``, with ``score(x, t)``;
            ``model(x, t, labels)`` is the network, ``labels`` are integers of shape ``(B,)``, ``null`` is the integer
            that stands for no class.
        seed: of networks, points, labels and times.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Ho & Salimans (2022), eq. 6.
    """
    student = Student("guided(model, labels, null, scale)(x, t)", ("Controllable generation", "Classes"))
    generator = seeded(seed)

    def check():
        problem = _Problem(generator)
        w, name = problem.scale, "guided score"
        score = student.call(guided, problem.model, problem.labels.clone(), problem.null, w)
        if not callable(score):
            raise Refusal(f"guided(...) must return a callable score(x, t), got {type(score).__name__}", "type")
        values, slopes, again = problem.measured(student, score, "the guided score")

        def formula(weights=(w, 1 - w), null=None, labels=None, kept=(1.0, 1.0), spread=None):
            given = problem.labels if labels is None else labels
            none = torch.full_like(given, problem.null) if null is None else null

            def at(x, t, kept=(1.0, 1.0)):
                parts = (problem.network(x, t, given), problem.network(x, t, none))
                total = sum(a * k * part for a, k, part in zip(weights, kept, parts, strict=True))
                return total if spread is None else total * spread(parts[0]) / spread(total)

            return problem.told(name, at, lambda x, t: at(x, t, kept))

        zero, first = torch.zeros_like(problem.labels), problem.labels[:1].expand_as(problem.labels)
        entries: _Entries = [
            ("one_plus_scale", "w is that of Ho and Salimans, 1 + w for this w: the weights are 1 + w and −w",
             {"weights": (1 + w, -w)}),
            ("one_plus_scale", "w − 1 stands for w", {"weights": (w - 1, 2 - w)}),
            ("swapped", "the two scores have changed places", {"weights": (1 - w, w)}),
            ("unconditional_sign", "the unconditional score has the wrong sign", {"weights": (w, w - 1)}),
            ("unconditional_sign", "the two scores are added, with weights w and 1 + w", {"weights": (1 + w, w)}),
            ("unconditional_sign", "the two scores are added, with weights w and 1", {"weights": (w, 1.0)}),
            ("unconditional_sign", "inside the bracket stands a sum, where a difference is needed",
             {"weights": (w, 1 + w)}),
            ("no_base", "the unconditional score before the bracket is missing", {"weights": (w, -w)}),
            ("no_unconditional", "the unconditional score is missing", {"weights": (w, 0.0)}),
            ("no_guidance", "that is the conditional score, without guidance", {"weights": (1.0, 0.0)}),
            ("no_condition", "that is the unconditional score: the labels are not used", {"weights": (0.0, 1.0)}),
            ("bracket", "only one score of the bracket is multiplied by w: s + w s(y) − s", {"weights": (w, 0.0)}),
            ("bracket", "only one score of the bracket is multiplied by w", {"weights": (1.0, 1 - w)}),
            ("bracket", "w is missing before one score of the bracket", {"weights": (w, 0.0)}),
            ("label_zero", "class 0 is taken for no class: the null label was given", {"null": zero}),
            ("one_label", "the label of the first point is given to all", {"labels": first}),
            *(("rescaled", "the guided score is divided by its own spread and multiplied by that of the conditional "
               "one: that is a later device, which was not asked for", {"spread": spread})
              for spread in (lambda s: s.std(1, keepdim=True), lambda s: s.norm(dim=1, keepdim=True))),
            ("detached", "the score is detached: no gradient flows through it", {"kept": (0.0, 0.0)}),
            ("detached", "the unconditional score is detached", {"kept": (1.0, 0.0)}),
            ("detached", "the conditional score is detached", {"kept": (0.0, 1.0)}),
        ]  # fmt: skip
        entries = list({(key, str(parts)): (key, words, parts) for key, words, parts in entries[::-1]}.values())[::-1]
        entries = [e for e in entries if e[0] != "bracket" or e[2]["weights"] != (w, 0.0)]
        truth = formula()
        report = judge("check_classifier_free", problem.answers(name, values, slopes, truth), slips(formula, entries),
                       verified="your score is guided as it should be, and stays differentiable")  # fmt: skip
        if report.mistake is None:
            problem.refuse_coupling(values, again)
        return report

    return under_guard("check_classifier_free", check, student, time_limit=time_limit)


def check_classifier_guidance(
    guided: Callable[..., Any], *, kind: str = "score", seed: Integer = 0, time_limit: Number | None = 30.0
) -> Report:
    r"""Hold guidance by a classifier of noised points against its formula, for a score or for predicted noise.

    .. math:: \hat s = s(x, t) + w\,\nabla_x \log p_t(y \mid x), \qquad
              \hat\epsilon = \epsilon(x, t) - w\,\sigma(t)\,\nabla_x \log p_t(y \mid x)

    The result stays differentiable, so the gradient has to keep its graph.

    Args:
        guided: the student's callable ``guided(sde, model, classifier, labels, scale) -> function`` of ``(x, t)``, of
            the same kind as ``model(x, t)``; ``classifier(x, t)`` returns logits, shape ``(B, 3)``, ``labels`` are
            integers of shape ``(B,)``, ``sde`` is one of the book's.
        kind: what the model predicts, ``"score"`` or ``"noise"``.
        seed: of networks, points, labels and times.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Raises:
        ValueError: if ``kind`` is neither.

    Source: Dhariwal & Nichol (2021), algorithms 1 and 2.
    """
    one_of("kind", kind, ("score", "noise"))
    student = Student("guided(sde, model, classifier, labels, scale)(x, t)", ("Controllable generation", "Classes"))
    generator = seeded(seed)

    def check():
        problem, asked = _Problem(generator), []
        w, name = problem.scale, f"guided {kind}"
        process, labels = problem.process, problem.labels

        def classifier(x, t):
            asked.append(t)
            return problem.logits(x, t)

        def model(x, t):
            problem.asked.append(t)
            return problem.without_class(x, t)

        function = student.call(guided, process, model, classifier, labels.clone(), w)
        if not callable(function):
            raise Refusal(f"guided(...) must return a callable (x, t), got {type(function).__name__}", "type")
        values, slopes, again = problem.measured(student, function, f"the {name}")
        at_zero = bool(asked) and all(bool((as_given(t, _DOUBLE) == 0).all()) for t in asked)
        rows = torch.arange(len(labels))

        def gradient(x, t, log, point, time):
            y = point(x, t)
            value = log(problem.logits(y, time(t)), labels)
            return torch.autograd.grad(value.sum(), x, create_graph=True)[0]

        def right_log(logits, labels):
            return logits.log_softmax(1)[rows, labels]

        def formula(
            factor=1.0, log=right_log, point=lambda x, t: x, time=lambda t: t, share=1.0, base=1.0, kept=(1.0, 1.0),
            sigma=None, scale=w,
        ):  # fmt: skip
            power = (lambda s: s) if sigma is None else sigma

            def at(x, t, kept=(1.0, 1.0)):
                s = process.sigma(t)
                size = (1.0 if sigma is None else power(s)) if kind == "score" else -power(s)
                g = gradient(x, t, log, point, time)
                return kept[0] * base * problem.without_class(x, t) + kept[1] * factor * size * share * scale * g

            return problem.told(name, at, lambda x, t: at(x, t, kept))

        def denoised(x, t):
            a, s = process.alpha(t), process.sigma(t)
            step = s**2 * problem.without_class(x, t) if kind == "score" else -s * problem.without_class(x, t)
            return (x + step) / a

        n = len(labels)
        entries: _Entries = [
            ("guidance_sign", "the gradient has the wrong sign", {"factor": -1.0}),
            ("mean_batch", "the gradient is that of a mean over the batch, and so divided by its size: take the sum",
             {"share": 1 / n}),
            ("logits", "the logit itself is differentiated: its log-softmax is the logarithm of the probability",
             {"log": lambda logits, labels: logits[rows, labels]}),
            ("probability", "the probability is differentiated, not its logarithm",
             {"log": lambda logits, labels: logits.softmax(1)[rows, labels]}),
            ("all_classes", "the logarithms of all classes are added, where that of the label is needed",
             {"log": lambda logits, labels: logits.log_softmax(1)}),
            ("one_label", "the label of the first point is given to all",
             {"log": lambda logits, labels: logits.log_softmax(1)[rows, labels[:1].expand_as(labels)]}),
            ("label_zero", "the labels are not used: it is the gradient for class 0",
             {"log": lambda logits, labels: logits.log_softmax(1)[:, 0]}),
            ("clean_point", "the classifier is given the denoised point: it was made for noised ones",
             {"point": denoised}),
            ("clean_point", "the classifier is given x/α", {"point": lambda x, t: x / process.alpha(t)}),
            ("no_guidance", "there is no guidance", {"factor": 0.0}),
            ("no_base", f"the {kind} itself is missing: that is the gradient alone", {"base": 0.0}),
            ("scale_ignored", "the scale w is not used", {"scale": 1.0}),
            ("one_plus_scale", "the factor is 1 + w, where w is asked for", {"scale": 1 + w}),
            ("detached", "the result is detached: no gradient flows through it", {"kept": (0.0, 0.0)}),
            ("detached", "the gradient of the classifier has no graph: it needs create_graph=True",
             {"kept": (1.0, 0.0)}),
            ("detached", f"the {kind} of the model is detached", {"kept": (0.0, 1.0)}),
        ]  # fmt: skip
        if at_zero:
            entries.append(
                ("clean_time", "the classifier is asked at time 0, where t is needed", {"time": torch.zeros_like})
            )
        else:
            entries += [
                ("clean_time", "the classifier is asked at another time", {"time": lambda t: 0 * t}),
                ("clean_time", "the classifier is asked at 1 − t, where t is needed", {"time": lambda t: 1 - t}),
                ("noise_scale", "the classifier is given σ(t), where the time t is wanted", {"time": process.sigma}),
            ]
        if kind == "score":
            entries += [
                ("extra_sigma", "the gradient is multiplied by σ², which belongs to a denoised point, not to a score",
                 {"sigma": lambda s: s**2}),
                ("extra_sigma", "the gradient is multiplied by σ, which belongs to predicted noise",
                 {"sigma": lambda s: s}),
                ("noise_for_score", "the score is guided like predicted noise, by −σ w ∇ log p",
                 {"sigma": lambda s: -s}),
            ]  # fmt: skip
        else:
            entries += [
                ("score_for_noise", "the noise is guided like a score: it needs −σ before the gradient",
                 {"sigma": lambda s: -torch.ones_like(s)}),
                ("no_sigma", "σ is missing before the gradient", {"sigma": torch.ones_like}),
                ("variance_for_std", "σ² stands before the gradient, where σ is needed", {"sigma": lambda s: s**2}),
                ("variance_for_std", "1/σ stands before the gradient, where σ is needed", {"sigma": lambda s: 1 / s}),
                ("sigma_from_alpha", "√(1 − α) stands before the gradient, where σ = √(1 − α²) is needed",
                 {"sigma": lambda s: (1 - (1 - s**2).sqrt()).sqrt()}),
                ("sigma_from_alpha", "1 − α stands before the gradient, where σ = √(1 − α²) is needed",
                 {"sigma": lambda s: 1 - (1 - s**2).sqrt()}),
            ]  # fmt: skip
        verified = f"your {kind} is guided as it should be, and stays differentiable"
        answers = problem.answers(name, values, slopes, formula())
        report = judge("check_classifier_guidance", answers, slips(formula, entries), verified=verified)
        if report.mistake is None:
            problem.refuse_coupling(values, again)
        return report

    return under_guard("check_classifier_guidance", check, student, time_limit=time_limit)
