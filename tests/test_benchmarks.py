"""The frame of the benchmarks: statistics, timing, what is stored, and that peers stand on what the book stands on."""

import json
import re

import numpy as np
import pytest

from benchmarks import run, summary, timing


@pytest.mark.parametrize("values", [[3.0], [1.0, 2.0], [5.0, 1.0, 4.0, 2.0, 3.0], [0.1, 7.0, 7.0, 2.5, 1e3, 1e-3]])
def test_a_summary_is_the_median_with_the_quartiles(values):
    found = summary.summary_of(values)
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    assert (found.low, found.median, found.high) == pytest.approx((low, median, high))
    assert found.n == len(values)


def test_a_summary_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one number"):
        summary.summary_of([])


def test_rows_are_summarised_case_by_case():
    rows = [{"project": p, "n": n, "repetition": r, "s": 10 * n + r} for p in "ab" for n in (1, 2) for r in range(5)]
    rows.append({"project": "a", "other": 3.0})
    found = summary.summarise(rows, ["project", "n"], "s")
    assert list(found) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
    assert found["a", 2] == summary.Summary(22, 21, 23, 5)


def test_measurements_take_turns():
    calls = []
    cases = {name: lambda name=name: calls.append(name) for name in "abc"}
    taken = timing.interleaved(cases, 3, calls=1)
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 3, "b": 3, "c": 3}
    assert "".join(calls)[-9:] == "abccbaabc"


def test_seconds_are_those_of_one_call():
    import time

    taken = timing.interleaved({"sleep": lambda: time.sleep(0.01)}, 2, at_least=0.03)
    assert all(0.01 <= seconds < 0.02 for seconds in taken["sleep"])


def test_a_part_that_is_measured_again_leaves_the_others_alone(tmp_path):
    path = tmp_path / "results.json"
    rows = [{"project": "scorebook", "repetition": 0, "seconds": 0.5}]
    run.store("overhead", {"date": "2026-01-01"}, rows, path)
    run.store("digits", {}, [], path)
    run.store("overhead", {"date": "2026-01-02"}, rows * 2, path)
    assert summary.read(path) == {
        "digits": {"about": {}, "rows": []},
        "overhead": {"about": {"date": "2026-01-02"}, "rows": rows * 2},
    }
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("entry", [[1.0], None, {"a": 1}, float("nan"), float("inf")])
def test_a_row_that_no_page_could_show_is_refused_and_earlier_results_stay(tmp_path, entry):
    path = tmp_path / "results.json"
    run.store("overhead", {}, [], path)
    with pytest.raises(ValueError):  # noqa: PT011 - json's message and ours
        run.store("overhead", {}, [{"seconds": entry}], path)
    assert json.loads(path.read_text()) == {"overhead": {"about": {}, "rows": []}}
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unknown_benchmark_is_named(capsys):
    with pytest.raises(SystemExit):
        run.main(["speed"])
    assert "'speed' is no benchmark; there are overhead, quality" in capsys.readouterr().err


def test_what_is_not_a_peer_has_the_version_of_the_book(root):
    def pins(path):
        return set(re.findall(r"^[\w.-]+==.*$", path.read_text(), re.M))

    alone = {
        pin.partition("==")[0] for pin in pins(root / "benchmarks/requirements.txt") - pins(root / "requirements.txt")
    }
    assert alone == {"azula", "diffusers", "smalldiffusion"}
