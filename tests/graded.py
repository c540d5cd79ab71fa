"""How the checks of the coursework are themselves graded: right answers pass, wrong ones are refused and named.

Ordinary runs take few seeds; ``make test-full`` sets ``SCOREBOOK_SEEDS=200``.
"""

import os

from catalogue import tuned

from scorebook.coursework import (
    class_guidance,
    controllable_generation,
    denoising_diffusion,
    learning,
    probability_flow,
    sampling,
    sde,
)

FULL = int(os.environ.get("SCOREBOOK_SEEDS", "0"))


def passes(check):
    """Of 200 seeds a right answer may fail on one."""
    n_seeds = FULL or 10
    failures = [report for report in map(check, range(n_seeds)) if not report.passed]
    assert len(failures) <= n_seeds // 200, f"{len(failures)} of {n_seeds} fail, the first:\n{failures[0]}"


def is_named(check, *mistakes):
    """A wrong answer fails on every seed, and on 19 of 20 by its name."""
    n_seeds = FULL or 2
    reports = [check(seed) for seed in range(n_seeds)]
    passed = [seed for seed, report in enumerate(reports) if report.passed]
    assert not passed, f"seeds {passed} of {n_seeds} pass"
    misnamed = [report for report in reports if report.mistake not in mistakes]
    assert len(misnamed) <= n_seeds // 20, (
        f"{len(misnamed)} of {n_seeds} are called otherwise, the first {misnamed[0].mistake}:\n{misnamed[0]}"
    )
    assert all(report.diagnosis.count(".") for report in reports)


def authored(*kinds):
    """The mistakes of which the tuned catalogue has an author, for answers of some kinds."""
    answers = (answer for answer in tuned.catalogue.answers if answer.kind in kinds)
    return {name for answer in answers for names in answer.mistakes for name in names}


def catalogued(monkeypatch, check):
    """Keys of the mistakes that a check knows, over a few seeds."""
    keys = set()
    for module in (
        learning,
        sampling,
        sde,
        probability_flow,
        controllable_generation,
        denoising_diffusion,
        class_guidance,
    ):

        def listening(name, answers, mistakes, *, verified, judge=module.judge):
            keys.update(mistake.key for mistake in mistakes)
            return judge(name, answers, mistakes, verified=verified)

        monkeypatch.setattr(module, "judge", listening)
    for seed in range(3):
        check(seed)
    assert keys
    return keys
