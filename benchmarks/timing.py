"""Seconds of calls that take turns, so that a machine that slows down slows all of them alike."""

import time

__all__ = ["interleaved", "per_evaluation"]


def interleaved(cases, repetitions: int, *, at_least: float = 0.05, calls: int | None = None):
    """Time each of several callables ``repetitions`` times, one after the other in every round.

    A first call, which warms caches up, is not counted, and tells how many calls a measurement needs to last
    ``at_least`` seconds. Every other round goes through the cases backwards.

    Args:
        cases: callables without arguments, by name.
        repetitions: rounds.
        at_least: seconds that one measurement shall take.
        calls: calls in one measurement, instead of as many as ``at_least`` asks for.

    Returns:
        Seconds per call, a list of ``repetitions`` numbers for each name.
    """
    counts = {}
    for name, case in cases.items():
        case()
        counts[name] = calls or max(1, round(at_least / max(_seconds(case, 1), 1e-9)))
    taken = {name: [] for name in cases}
    for repetition in range(repetitions):
        names = list(cases)[:: -1 if repetition % 2 else 1]
        for name in names:
            taken[name].append(_seconds(cases[name], counts[name]) / counts[name])
    return taken


def per_evaluation(taken, bare, n: int) -> list[dict]:
    """Rows for a sampler that calls its network ``n`` times, each beside the bare network in the same round.

    Args:
        taken: seconds of the sampler, one number for each round.
        bare: seconds of ``n`` calls of the bare network in the same rounds.
        n: evaluations.
    """
    return [
        {
            "evaluations": n,
            "repetition": repetition,
            "seconds": whole / n,
            "network_seconds": network / n,
            "ratio": whole / network,
        }
        for repetition, (whole, network) in enumerate(zip(taken, bare, strict=True))
    ]


def _seconds(case, calls) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        case()
    return time.perf_counter() - start
