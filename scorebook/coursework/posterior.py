r"""Checks of posteriors and of what is said about them: draws, the coverage of their intervals, and ranks of the truth.

Data that are :math:`N(0, s^2 I)`, observed as :math:`y = A x + \varsigma z`, have Gaussian posteriors,

.. math:: \Sigma = s^2 I - s^4 A^\top (s^2 A A^\top + \varsigma^2 I)^{-1} A, \qquad
          \mu(y) = s^2 A^\top (s^2 A A^\top + \varsigma^2 I)^{-1} y,

for which pseudoinverse guidance is exact: what draws are off by is the student's doing, or that of finite steps.
"""

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from scorebook.controllable_generation import diffusion_posterior, pseudoinverse_guidance
from scorebook.coursework.guard import Refusal, Student, under_guard
from scorebook.coursework.problems import child, refuse_dependent_noise, seeded
from scorebook.coursework.reports import Answer, Mistake, Report, judge, slips
from scorebook.lab.diagnostics import covered
from scorebook.lab.distributions import GaussianMixture
from scorebook.lab.observations import LinearObservation
from scorebook.lab.types import Integer, Number
from scorebook.sde import VPSDE, euler_maruyama

__all__ = ["check_coverage", "check_posterior", "check_ranks"]

_DOUBLE = torch.float64
_LEVELS = (0.5, 0.8, 0.9)
_MEAN, _COVARIANCE = "mean of the draws of a problem", "covariance of the draws, in units of the posterior's"


def check_posterior(sampler: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 60.0) -> Report:
    r"""Hold draws of many posteriors against the exact ones.

    Measured are the mean of the draws for each problem, their covariance around it, and that no two draws share noise.

    Args:
        sampler: the student's callable
            ``sampler(sde, score, observation, n_draws, *, data_std, generator) -> (n_draws, B, d)``, where
            ``observation`` is a :class:`.LinearObservation` with ``B`` observations ``y``, one a problem, and ``score``
            that of data :math:`N(0, s^2 I)` with :math:`s` = ``data_std``. It may do without ``generator``.
        seed: of the problems and of the noise.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report. For finite steps it allows 6 percent of a posterior's standard deviation and 8 of its covariance.

    Source: Bishop (2006), eqs. 2.113 to 2.117.
    """
    student = Student(
        "sampler(sde, score, observation, n_draws, data_std=..., generator=generator)",
        ("Controllable generation", "Linear inverse problems, with error bars"),
    )
    generator = seeded(seed)

    def check():
        n, b, d = 160, 12, 3
        process = VPSDE()
        data_std = 2 + torch.rand((), generator=generator, dtype=_DOUBLE).item()
        noise_std = 0.62 + 0.06 * torch.rand((), generator=generator, dtype=_DOUBLE).item()
        matrix = _well_posed(generator)
        x = data_std * torch.randn(b, d, generator=generator, dtype=_DOUBLE)
        y = x @ matrix.T + noise_std * torch.randn(b, 2, generator=generator, dtype=_DOUBLE)
        law = GaussianMixture([1.0], torch.zeros(1, d, dtype=_DOUBLE), torch.tensor([data_std**2], dtype=_DOUBLE))
        score = process.exact_score(law)
        observation = LinearObservation(matrix, y, noise_std)

        def run(source):
            answer = student.call(sampler, process, score, observation, n, data_std=data_std, generator=source)
            return student.tensor(answer, (n, b, d), "what your sampler returns")

        draws = run(child(generator))
        mean, covariance = _posterior(y, matrix, data_std, noise_std)
        whiten = torch.linalg.inv(torch.linalg.cholesky(covariance))
        std, one = covariance.diagonal().sqrt(), torch.eye(d, dtype=_DOUBLE)
        room = 0.06 * std.max().item()
        found = _covariance(draws, whiten)
        answers = [
            Answer.mean_of(_MEAN, draws, mean, room, right_std=std),
            Answer(_COVARIANCE, found, one, _error(found, n * b), 0.08, _error(one, n * b)),
        ]
        mistakes = _posteriors_mistaken(process, score, draws, mean, whiten, y, matrix, data_std, noise_std)
        report = judge("check_posterior", answers, mistakes, verified="your draws are those of the posteriors")
        if report.passed:
            again = run(child(generator))
            z, other = (((part - mean) @ whiten.T).reshape(n * b, d) for part in (draws, again))
            refuse_dependent_noise(z, other)
            few = [
                student.call(
                    sampler, process, score, observation, 2, data_std=s, generator=torch.Generator().manual_seed(1)
                )
                for s in (data_std, 1.0)
            ]
            if torch.equal(*few):
                raise Refusal(
                    "your draws do not depend on data_std: the guidance takes the data for N(0, I)", "no_data_std"
                )
        return report

    return under_guard("check_posterior", check, student, time_limit=time_limit)


def _well_posed(generator) -> Tensor:
    """Two directions in three dimensions, neither parallel nor of one length."""
    directions = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=_DOUBLE)).Q[:2]
    return torch.tensor([[0.7], [1.2]], dtype=_DOUBLE) * directions


def _posterior(y, matrix, data_std, noise_std) -> tuple[Tensor, Tensor]:
    variance = data_std**2
    inner = variance * matrix @ matrix.T + noise_std**2 * torch.eye(len(matrix), dtype=_DOUBLE)
    gain = variance * torch.linalg.solve(inner, matrix).T
    return y @ gain.T, variance * (torch.eye(matrix.shape[1], dtype=_DOUBLE) - gain @ matrix)


def _covariance(draws, whiten) -> Tensor:
    """Covariance within a problem, over all problems, in coordinates in which that of the posterior is one."""
    gaps = (draws - draws.mean(0)) @ whiten.T
    return torch.einsum("nbi,nbj->ij", gaps, gaps) / ((draws.shape[0] - 1) * draws.shape[1])


def _error(covariance, n) -> Tensor:
    """Standard error of each entry of a covariance of ``n`` normal draws."""
    variance = covariance.diagonal()
    return ((variance[:, None] * variance + covariance.square()) / n).sqrt()


def _posteriors_mistaken(process, score, draws, mean, whiten, y, matrix, data_std, noise_std) -> list[Mistake]:
    n, b, d = draws.shape
    own = _posterior(y, matrix, data_std, noise_std)[1]

    def told(centre, covariance):
        return {_MEAN: centre, _COVARIANCE: whiten @ covariance @ whiten.T}

    def told_with(noise):
        return lambda: told(*_posterior(y, matrix, data_std, noise))

    def simulated(guide):
        """What comes of another guidance: drawn, for no formula has it."""

        def run():
            source = torch.Generator().manual_seed(1)
            start = process.sample_prior((n * b, d), generator=source, dtype=_DOUBLE)
            guided = guide(LinearObservation(matrix, y.repeat(n, 1), noise_std))
            drawn = euler_maruyama(process, guided, start, n_steps=100, generator=source).reshape(n, b, d)
            return {_MEAN: drawn.mean(0), _COVARIANCE: _covariance(drawn, whiten)}

        return run

    def mixed():
        """Draws of one problem that are those of several: which, the order of the rows says."""
        centre = mean[(torch.arange(n * b) // n).reshape(n, b)]
        gaps = centre - centre.mean(0)
        return told(centre.mean(0), own + torch.einsum("nbi,nbj->ij", gaps, gaps) / (n * b))

    def first():
        return told(mean[:1].expand(b, d), own)

    centred, none = draws.mean(0), {_COVARIANCE: torch.zeros(d, d, dtype=_DOUBLE)}
    elsewhere = bool((centred - mean).abs().max() > 1e-3 * data_std)
    words_shared = (
        "all draws of a problem are one and the same: start and noise are drawn for one and repeated, where each draw "
        "needs its own"
    )
    candidates = [
        Mistake(
            "no_noise_variance",
            "the observation's noise is forgotten: y = A x is taken to be exact",
            told_with(1e-9),
            0.05,
        ),
        Mistake(
            "std_for_variance",
            "the noise's standard deviation stands where its variance is needed",
            told_with(noise_std**0.5),
            0.05,
        ),
        Mistake(
            "std_for_variance",
            "the noise's variance is taken for its standard deviation",
            told_with(noise_std**2),
            0.05,
        ),
        Mistake(
            "no_guidance",
            "the observation is not used: these are draws of the prior",
            lambda: told(torch.zeros(b, d, dtype=_DOUBLE), data_std**2 * torch.eye(d, dtype=_DOUBLE)),
            0.05,
        ),
        Mistake(
            "point_estimate",
            "these are not draws but the posterior's mean: it has no spread",
            lambda: {_MEAN: mean} | none,
        ),
        Mistake(
            "no_root",
            "the normal numbers are multiplied by the posterior's covariance, where a root of it is needed, such as "
            "Cholesky's factor",
            lambda: told(mean, own @ own),
            0.05,
        ),
        Mistake(
            "mixed_problems",
            "the draws of one problem are those of several: rows that are repeated one by one (repeat_interleave) come "
            "in another order than a whole batch that is repeated",
            mixed,
            0.05,
        ),
        Mistake("one_problem", "all problems are answered with the first one's observation", first, 0.05),
        Mistake(
            "neglected_spread",
            "the clean point is put at its mean and its spread neglected: that is diffusion posterior sampling",
            simulated(lambda observation: diffusion_posterior(score, process, observation)),
            0.05,
        ),
    ]
    candidates.append(
        Mistake(
            "no_data_std",
            "data_std does not reach the guidance, which takes the data for N(0, I)",
            simulated(lambda observation: pseudoinverse_guidance(score, process, observation)),
            0.05,
        )
    )
    if elsewhere:
        candidates.append(Mistake("shared_noise", words_shared, lambda: {_MEAN: centred} | none))
    return candidates


def check_coverage(f: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold a coverage and its error, :math:`\bar c \pm \mathrm{std}(c_b)/\sqrt B`, against those of the same draws.

    The draws are skewed, of another size in each problem, and too narrow; the coordinates of a problem depend on each
    other, so that its error is that of a mean over problems.

    Args:
        f: the student's callable ``f(draws, truth, level) -> (share, standard_error)``, two numbers; ``draws`` of shape
            ``(n, B, d)``, ``truth`` of shape ``(B, d)``.
        seed: of draws and truths.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report. It allows differences of 0.02 and 0.002, by which rules for quantiles differ.

    Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), theorem 1.
    """
    student = Student("f(draws, truth, level)", ("Controllable generation", "Linear inverse problems, with error bars"))
    generator = seeded(seed)

    def check():
        draws, truth = _skewed(300, 200, generator)
        share, error = [], []
        for level in _LEVELS:
            answer = student.call(f, draws.clone(), truth.clone(), level)
            if not isinstance(answer, (tuple, list)) or len(answer) != 2:
                raise Refusal(
                    f"your function must return two numbers, the share and its error, got {_kind(answer)}", "type"
                )
            for values, part, what in zip((share, error), answer, ("share", "standard error"), strict=True):
                part = torch.as_tensor(part, dtype=_DOUBLE) if isinstance(part, (int, float)) else part
                values.append(student.tensor(part, (), f"the {what}"))
        right = _told([covered(draws, truth, level=level) for level in _LEVELS], len(draws))
        answers = [
            Answer("share", torch.stack(share), right["share"], 0.0, 0.02, where=_at_level),
            Answer("standard error", torch.stack(error), right["standard error"], 0.0, 2e-3, where=_at_level),
        ]
        return judge(
            "check_coverage",
            answers,
            _coverages_mistaken(draws, truth),
            verified="your share is that of the draws, and its error that of a mean over problems",
        )

    return under_guard("check_coverage", check, student, time_limit=time_limit)


def _at_level(row: int) -> str:
    return f"level {_LEVELS[row]:g}"


def _kind(answer) -> str:
    return f"{len(answer)} of them" if isinstance(answer, (tuple, list)) else type(answer).__name__


def _skewed(n, b, generator) -> tuple[Tensor, Tensor]:
    """Draws and truths of skewed laws whose size and place differ from problem to problem; the draws are too narrow."""

    def correlated(*shape):
        common = torch.randn(*shape, 1, generator=generator, dtype=_DOUBLE)
        return 0.95 * common + math.sqrt(1 - 0.95**2) * torch.randn(*shape, 3, generator=generator, dtype=_DOUBLE)

    size = 10 ** torch.rand(b, 1, generator=generator, dtype=_DOUBLE)
    place = 30 * torch.randn(b, 1, generator=generator, dtype=_DOUBLE)
    return tuple(place + size * (0.9 * z).exp() for z in (0.7 * correlated(n, b), correlated(b)))


def _between(low_of, high_of):
    return lambda draws, truth, level: ((low_of(draws, level) <= truth) & (truth <= high_of(draws, level))).double()


def _told(
    found,
    n,
    share=lambda inside, level: inside.mean(),
    error=lambda inside, level, n: inside.mean(1).std() / math.sqrt(len(inside)),
) -> dict[str, Tensor]:
    """What a coverage tells from what is covered at each level, by ``n`` draws each, where each part may be wrong."""
    pairs = list(zip(found, _LEVELS, strict=True))
    errors = [torch.as_tensor(error(part, level, n), dtype=_DOUBLE) for part, level in pairs]
    return {
        "share": torch.stack([share(part, level) for part, level in pairs]),
        "standard error": torch.stack(errors),
    }


def _coverages_mistaken(draws, truth) -> list[Mistake]:
    def score(level):
        return NormalDist().inv_cdf((1 + level) / 2)

    def quantile(of, share):
        return of.quantile(share, dim=0)

    def pooled(share_of):
        return lambda x, level: x.flatten(0, 1).quantile(share_of(level), dim=0)

    def centred(share_of):
        def end(x, level):
            gaps = (x - x.mean(0)).flatten(0, 1)
            return x.mean(0) + gaps.quantile(share_of(level), dim=0)

        return end

    def low(level):
        return (1 - level) / 2

    def high(level):
        return (1 + level) / 2

    def normal_ends(times):
        return _between(lambda x, q: x.mean(0) - times(q) * x.std(0), lambda x, q: x.mean(0) + times(q) * x.std(0))

    def of_entries(inside, level, n):
        return inside.std() / math.sqrt(inside.numel())

    words_pooled = "one interval is taken for all problems, from all their draws: each problem has its own"
    entries: list[tuple[str, str, dict[str, Any]]] = [
        (
            "normal_interval",
            "the interval is mean ± z standard deviations, which is that of a normal law: take the draws' quantiles",
            {"inside": normal_ends(score)},
        ),
        (
            "normal_interval",
            "the interval is mean ± one standard deviation, whatever the level: take the draws' quantiles",
            {"inside": normal_ends(lambda q: 1.0)},
        ),
        ("pooled", words_pooled, {"inside": _between(pooled(low), pooled(high))}),
        (
            "pooled",
            "one width is taken for all problems, from all their draws around their means: each problem has its own",
            {"inside": _between(centred(low), centred(high))},
        ),
        (
            "pooled",
            "the interval is that of the truths of all problems, the prior's, not of the draws of each",
            {"inside": lambda x, t, q: _between(lambda x, q: quantile(t, low(q)),
                                                lambda x, q: quantile(t, high(q)))(x, t, q)},
        ),
        (
            "full_tails",
            "1 − q is left out on either side, (1 − q)/2 should be",
            {"inside": _between(lambda x, q: quantile(x, min(1 - q, q)), lambda x, q: quantile(x, max(1 - q, q)))},
        ),
        ("one_sided", "the interval has no lower end", {"inside": _between(lambda x, q: x.amin(0) - math.inf,
                                                                         lambda x, q: quantile(x, q))}),
        ("one_sided", "the interval has no upper end", {"inside": _between(lambda x, q: quantile(x, 1 - q),
                                                                         lambda x, q: x.amax(0) + math.inf)}),
        ("range", "the interval is the range of all draws, whatever the level",
         {"inside": _between(lambda x, q: x.amin(0), lambda x, q: x.amax(0))}),
        ("joint", "a problem counts only where all its coordinates are covered: that is another question",
         {"share": lambda inside, q: (inside > 0.5).all(1).double().mean()}),
        ("complement", "that is the share of truths outside", {"share": lambda inside, q: 1 - inside.mean()}),
        ("level_returned", "that is the level, not what the draws cover",
         {"share": lambda inside, q: torch.tensor(q, dtype=_DOUBLE)}),
        (
            "dependent_entries",
            "the error takes the coordinates of a problem for independent: average over them first, and take the "
            "error over problems",
            {"error": of_entries},
        ),
        (
            "dependent_entries",
            "the error is √(p(1 − p)/B), as if a problem were covered or not as a whole: the spread of the problems' "
            "own shares says what it is",
            {"error": lambda inside, q, n: (inside.mean() * (1 - inside.mean()) / len(inside)).sqrt()},
        ),
        ("no_root_n", "the spread of the problems' shares is not divided by √B",
         {"error": lambda inside, q, n: inside.mean(1).std()}),
        ("divided_by_n", "the spread of the problems' shares is divided by B, not by √B",
         {"error": lambda inside, q, n: inside.mean(1).std() / len(inside)}),
        ("variance_for_std", "the variance of the problems' shares stands where their standard deviation is needed",
         {"error": lambda inside, q, n: inside.mean(1).var() / len(inside)}),
        ("variance_for_std", "the variance of the problems' shares stands where their standard deviation is needed",
         {"error": lambda inside, q, n: inside.mean(1).var() / math.sqrt(len(inside))}),
        ("number_of_draws", "the error is divided by the root of the number of draws; it is the problems that are "
                            "independent", {"error": lambda inside, q, n: inside.mean(1).std() / math.sqrt(n)}),
    ]  # fmt: skip

    found: dict[Any, list[Tensor]] = {}

    def formula(inside=lambda draws, truth, level: covered(draws, truth, level=level), **parts):
        if inside not in found:
            found[inside] = [inside(draws, truth, level) for level in _LEVELS]
        return _told(found[inside], len(draws), **parts)

    return slips(formula, entries, slack=0.05)  # by which rules for quantiles differ


def check_ranks(f: Callable[..., Any], *, seed: Integer = 0, time_limit: Number | None = 30.0) -> Report:
    r"""Hold ranks against a count, :math:`\#\{j : \theta_j < \theta\}`: how many draws lie below a truth.

    Args:
        f: the student's callable ``f(draws, truth) -> (B, d)``; ``draws`` of shape ``(n, B, d)``, ``truth`` of shape
            ``(B, d)``. Whole numbers from 0 to ``n``, of any dtype.
        seed: of draws and truths.
        time_limit: processor seconds for the student's code; None for no limit.

    Returns:
        The report.

    Source: Talts, Betancourt, Simpson, Vehtari & Gelman (2018), section 4.
    """
    student = Student("f(draws, truth)", ("Controllable generation", "Linear inverse problems, with error bars"))
    generator = seeded(seed)

    def check():
        n = 30
        draws, truth = _skewed(n, 40, generator)
        found = student.tensor(student.call(f, draws.clone(), truth.clone()), truth.shape, "the ranks")
        right = (draws < truth).sum(0).double()
        pooled = (draws.flatten(0, 1)[:, None] < truth).sum(0).double()
        centred = draws - draws.mean(0)
        entries = [
            ("above", "the draws above the truth are counted, not those below", n - right),
            ("share", "the count is divided by the number of draws: that is a share, not a rank", right / n),
            ("share", "the count is divided by n + 1: that is a share, not a rank", right / (n + 1)),
            ("from_one", "the ranks begin at 1: a truth below all draws has rank 0", right + 1),
            ("pooled", "the draws of all problems are counted: a truth has its rank among those of its own", pooled),
            *(("pooled", "the draws of all problems are counted, and the count is divided by the number of problems: a "
               "truth has its rank among those of its own", part)
              for part in (pooled / truth.shape[0], (pooled / truth.shape[0]).round(), pooled // truth.shape[0])),
            ("pooled", "the truth's rank is that among the truths of other problems",
             (truth[:, None] < truth).sum(0).double()),
            ("flat_rank", "whether the truth lies above the draws' mean is all that is told",
             (truth > draws.mean(0)).double()),
            ("size", "draws are compared by their distance from the mean, without its side",
             (centred.abs() < (truth - draws.mean(0)).abs()).sum(0).double()),
        ]  # fmt: skip
        answer = Answer("rank", found, right, 0.0, 1e-6, where=lambda row: f"problem {row}")
        mistakes = [Mistake(key, words, lambda value=value: {"rank": value}) for key, words, value in entries]
        return judge("check_ranks", [answer], mistakes, verified="your ranks are those of the truths")

    return under_guard("check_ranks", check, student, time_limit=time_limit)
