"""Answers as students write them, handed to the checks: which are refused, and by which name.

Four catalogues: ``tuned``, on which the checks were mended; ``held_out``, the first pile, which was written first and
on which they were mended once its figures had been told; ``second_reading``, the second pile, written before that and
read after it, once; and ``third_reading``, the third, whose authors knew what is asked of an answer and not how it is
checked, and put aside the mistakes of textbooks. What each pile showed on its one reading was mended, too. Each answer
is right, or holds one mistake, or a pair;
``test_catalogue`` prints what becomes of them.

The answers to the tasks of the assignments that no check of the package judges are handed to the cells of the master
that do.
"""

import ast
import contextlib
import dataclasses
import functools
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nbformat
import torch

from scorebook import coursework, lab, sde
from scorebook.controllable_generation import LinearObservation

DOUBLE = torch.float64
MASTERS = Path(__file__).resolve().parents[2] / "coursework"
SEEDS = (0, 1)

GAUSSIAN = (
    torch.tensor([1.0, -2.0, 0.5], dtype=DOUBLE),
    torch.tensor([[2.0, 0.6, 0.0], [0.6, 0.5, 0.1], [0.0, 0.1, 0.7]], dtype=DOUBLE),
)
MIXTURE = (
    torch.tensor([0.2, 0.5, 0.3], dtype=DOUBLE),
    torch.tensor([[-2.0, 0.0], [1.0, 1.0], [2.0, -2.0]], dtype=DOUBLE),
    torch.tensor([0.3, 1.0, 0.5], dtype=DOUBLE),
)
MATRIX = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=DOUBLE)
WIDTH = 0.1


def normal(x, generator=None):
    """Standard normal noise like ``x``, as the assignments ask for it."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype)


def _score_of_gaussian(f, seed):
    mean, covariance = GAUSSIAN
    law = lab.GaussianMixture(torch.ones(1), mean[None], covariance[None]).to(DOUBLE)
    return coursework.check_score(lambda x: f(x, mean, covariance), law, seed=seed)


def _score_of_mixture(f, seed):
    return coursework.check_score(lambda x: f(x, *MIXTURE), lab.GaussianMixture(*MIXTURE), seed=seed)


def _score_by_autograd(f, seed):
    law = lab.GaussianMixture(*MIXTURE)
    return coursework.check_score(lambda x: f(law.log_prob, x), law, seed=seed)


def _guided(f, seed, matrix):
    law = lab.GaussianMixture(torch.ones(1), torch.zeros(1, matrix.shape[1]), torch.tensor([4.0])).to(DOUBLE)
    process = sde.VPSDE()
    observation = LinearObservation(matrix, torch.tensor([0.7, -1.2], dtype=DOUBLE), 0.3)
    score = f(process.exact_score(law), process, observation, data_std=2.0)
    return coursework.check_guidance(score, observation, prior=law, seed=seed)


class _NoDisplay(ast.NodeTransformer):
    """Takes ``display(...)`` off a check, so that a cell runs where no notebook is."""

    def visit_Call(self, node):
        """Puts the argument in place of the call."""
        self.generic_visit(node)
        return node.args[0] if isinstance(node.func, ast.Name) and node.func.id == "display" else node


# Tasks whose cell defines more than one function, in its order.
_DEFINED = {"shrink": ("shrink", "shrink_adjoint")}


@functools.cache
def _cells(assignment, task):
    """The cells of a master up to the last test of a task, each with its name, without the tests of other tasks."""
    found = []
    for cell in nbformat.read(MASTERS / f"{assignment}.ipynb", 4).cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        of_others = name is not None and cell.metadata["nbgrader"]["grade"] and not name.startswith(f"{task}_")
        if cell.cell_type == "code" and "%pip" not in cell.source and not of_others:
            tree = ast.fix_missing_locations(_NoDisplay().visit(ast.parse(cell.source)))
            code = compile(tree, assignment, "exec")
            if "subplots" not in code.co_names:  # a figure of what the student has done so far
                found.append((name, code))
    last = max(k for k, (name, _) in enumerate(found) if name is not None and name.startswith(f"{task}_"))
    return found[: last + 1]


def _by_cells(assignment, task):
    """Hands an answer to the cells of a master that test a task: what a cell asserts is the diagnosis."""

    def check(f, seed):
        del seed  # the cells hold their own
        space = {}
        with contextlib.redirect_stdout(io.StringIO()):
            for name, code in _cells(assignment, task):
                try:
                    exec(code, space)
                except Exception as error:
                    if name is None or not name.startswith(f"{task}_"):
                        raise
                    return coursework.Report(name, False, f"{type(error).__name__}: {error}")
                if name == task:
                    space.update({task: f} if callable(f) else dict(zip(_DEFINED[task], f, strict=True)))
        return coursework.Report(task, True, "all cells pass")

    return check


# What an answer of each kind is called with.
CHECKS = {
    "gaussian score": _score_of_gaussian,
    "mixture score": _score_of_mixture,
    "score by autograd": _score_by_autograd,
    "divergence": lambda f, seed: coursework.check_divergence(f, seed=seed),
    "differentiable divergence": lambda f, seed: coursework.check_divergence(
        f,
        **({"differentiable": True} if "differentiable" in coursework.check_divergence.__kwdefaults__ else {}),
        seed=seed,
    ),
    "estimate in 3 dimensions": lambda f, seed: coursework.check_divergence(
        f, exact=False, event_shape=(3,), seed=seed
    ),
    "estimate": lambda f, seed: coursework.check_divergence(f, exact=False, seed=seed),
    **{
        f"{kind} loss": lambda f, seed, kind=kind: coursework.check_loss(f, kind, seed=seed)
        for kind in ("explicit", "implicit", "sliced", "denoising", "sde")
    },
    "langevin": lambda f, seed: coursework.check_langevin(f, seed=seed),
    "annealed": lambda f, seed: coursework.check_annealed(f, seed=seed),
    "sde": lambda f, seed: coursework.check_sde(f(), reference=sde.VPSDE(), seed=seed),
    "sde alone": lambda f, seed: coursework.check_sde(f(), seed=seed),
    "sampler": lambda f, seed: coursework.check_sampler(f, seed=seed),
    **{
        f"{one} to {other}": lambda f, seed, kinds=f"{one} to {other}": coursework.check_conversion(f, kinds, seed=seed)
        for one in ("noise", "clean", "score", "v")
        for other in ("noise", "clean", "score", "v")
        if one != other
    },
    "label dropping": lambda f, seed: coursework.check_label_dropping(f, seed=seed),
    "classifier-free": lambda f, seed: coursework.check_classifier_free(f, seed=seed),
    "classifier guidance": lambda f, seed: coursework.check_classifier_guidance(f, seed=seed),
    "classifier guidance of noise": lambda f, seed: coursework.check_classifier_guidance(f, kind="noise", seed=seed),
    "ddpm step": lambda f, seed: coursework.check_ddpm_step(f, seed=seed),
    "ddim step": lambda f, seed: coursework.check_ddim_step(f, seed=seed),
    "reverse step": lambda f, seed: coursework.check_reverse_step(f, seed=seed),
    "flow": lambda f, seed: coursework.check_probability_flow(f, seed=seed),
    "log prob": lambda f, seed: coursework.check_log_prob(f, seed=seed),
    "log prob under VE": lambda f, seed: coursework.check_log_prob(f, sde=sde.VESDE(0.1, 10.0), seed=seed),
    "differentiable log prob": lambda f, seed: coursework.check_log_prob(f, differentiable=True, seed=seed),
    "bits": lambda f, seed: coursework.check_log_prob(f, bin_width=WIDTH, seed=seed),
    "mean estimate": lambda f, seed: coursework.check_estimate(f, "mean", seed=seed),
    "antithetic estimate": lambda f, seed: coursework.check_estimate(f, "antithetic", seed=seed),
    "importance estimate": lambda f, seed: coursework.check_estimate(f, "importance", seed=seed),
    "self-normalised estimate": lambda f, seed: coursework.check_estimate(f, "self_normalised", seed=seed),
    "effective draws": lambda f, seed: coursework.check_estimate(f, "effective_draws", seed=seed),
    "metropolis": lambda f, seed: coursework.check_metropolis(f, seed=seed),
    "projections": lambda f, seed: coursework.check_projections(f, seed=seed),
    "plain sliced loss": lambda f, seed: coursework.check_loss(f, "plain_sliced", seed=seed),
    "reduced sliced loss": lambda f, seed: coursework.check_loss(f, "reduced_sliced", seed=seed),
    "guidance": lambda f, seed: _guided(f, seed, MATRIX),
    "inpainting guidance": lambda f, seed: _guided(f, seed, torch.eye(4, dtype=DOUBLE)[:2]),
    "posterior": lambda f, seed: coursework.check_posterior(f, seed=seed),
    "coverage": lambda f, seed: coursework.check_coverage(f, seed=seed),
    "ranks": lambda f, seed: coursework.check_ranks(f, seed=seed),
    "verdict cells": _by_cells("9_posterior", "verdict"),
    "predictor-corrector cells": _by_cells("3_sampler", "predictor_corrector"),
    "posterior cells": _by_cells("4_inverse_problem", "sample_posterior"),
    "coverage cells": _by_cells("4_inverse_problem", "coverage"),
    "shrink cells": _by_cells("4_inverse_problem", "shrink"),
    "fisher cells": _by_cells("1_score", "fisher_divergence"),
}


@dataclasses.dataclass(frozen=True)
class Answer:
    """One student's answer.

    Attributes:
        kind: key of ``CHECKS``.
        name: that of the function.
        function: the student's own.
        mistakes: what is wrong with it: none, one or two, each a set of names that say so.
        labelled: whether the check can name a mistake; a cell of an assignment only asserts.
    """

    kind: str
    name: str
    function: Callable
    mistakes: tuple[frozenset[str], ...]

    @property
    def labelled(self):
        return not self.kind.endswith("cells")

    def becomes(self, seed):
        """One word for what a check says of it, and the report."""
        report = CHECKS[self.kind](self.function, seed)
        if report.passed:
            return ("accepted" if self.mistakes else "passes"), report
        if not self.mistakes:
            return "refused", report
        if report.mistake is None or not self.labelled:
            return "not named", report
        return ("named" if any(report.mistake in names for names in self.mistakes) else "named wrongly"), report


class Catalogue:
    """Answers, gathered by decorators."""

    def __init__(self):
        self.answers = []

    def right(self, kind):
        """A right answer."""
        return self.wrong(kind)

    def wrong(self, kind, *mistakes):
        """An answer with one mistake or two; where several names would say it, they stand between bars."""

        def keep(function):
            self.add(kind, function.__name__, function, *mistakes)
            return function

        return keep

    def include(self, other):
        """Takes in the answers of another catalogue."""
        self.answers += other.answers

    def add(self, kind, name, function, *mistakes):
        """An answer under a name of its own."""
        names = tuple(frozenset(mistake.split("|")) for mistake in mistakes)
        self.answers.append(Answer(kind, name, function, names))


# From the worst to the best: of several seeds the worst counts.
WORDS = ("accepted", "refused", "named wrongly", "not named", "named", "passes")


def tried(answer, seeds=SEEDS):
    """The worst that becomes of an answer over the seeds, and its report."""
    seeds = seeds if answer.labelled else seeds[:1]  # cells hold their own seeds
    return min((answer.becomes(seed) for seed in seeds), key=lambda outcome: WORDS.index(outcome[0]))


def figures(outcomes):
    """Count what became of answers: a dict from words to numbers.

    Args:
        outcomes: pairs of an answer and its word.
    """
    count = Counter()
    for answer, word in outcomes:
        group = ("right", "single", "pair")[len(answer.mistakes)]
        count[group] += 1
        if group == "right":
            count["right refused"] += word == "refused"
            continue
        count["wrong accepted"] += word == "accepted"
        if answer.labelled:
            count[f"{group} labelled"] += 1
            for each in ("named", "not named", "named wrongly"):
                count[f"{group} {each}"] += word == each
    return count
