"""Prints what becomes of the answers: ``python -m catalogue third_reading tuned``, among the tests."""

import importlib
import sys
import time

from catalogue import figures, tried

for name in sys.argv[1:] or ("third_reading", "second_reading", "held_out", "tuned"):
    outcomes = []
    for answer in importlib.import_module(f"catalogue.{name}").catalogue.answers:
        begun = time.perf_counter()
        word, report = tried(answer)
        seconds = time.perf_counter() - begun
        outcomes.append((answer, word))
        if word not in ("passes", "named"):
            expected = " + ".join("|".join(sorted(names)) for names in answer.mistakes) or "right"
            print(f"{word:14} {answer.kind}: {answer.name} ({expected}) as {report.mistake}: {report.diagnosis[:150]}")
        if seconds > 4:
            print(f"  {seconds:.1f} s for {answer.kind}: {answer.name}")
    print(name, dict(figures(outcomes)), flush=True)
