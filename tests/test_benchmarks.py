"""The frame of the benchmarks: statistics, timing, what is stored, and that peers stand on what the book stands on."""

import copy
import itertools
import json
import math
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import benchmark_page
import numpy as np
import pytest
import torch
from docutils import nodes

from benchmarks import book, digits, digits_peers, distances, run, summary, timing, tutorial
from scorebook import lab
from scorebook.lab import training


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


def test_seconds_are_those_of_one_call(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def case():
        now[0] += 0.01

    assert timing.interleaved({"a": case}, 2, at_least=0.03)["a"] == pytest.approx([0.01, 0.01])


@pytest.mark.parametrize(("takes", "asked"), [(0.0004, {}), (0.01, {}), (0.3, {}), (0.01, {"at_least": 0.2})])
def test_a_measurement_lasts_as_long_as_asked_and_the_first_calls_are_not_in_it(takes, asked, monkeypatch):
    now, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def case():
        calls.append(None)
        now[0] += takes if len(calls) > 1 else 7.0

    (seconds,) = timing.interleaved({"a": case}, 3, **asked).values()
    each = max(1, round(asked.get("at_least", 0.05) / takes))
    assert len(calls) == 2 + 3 * each
    assert seconds == pytest.approx([takes] * 3)


def test_rounds_that_are_not_as_many_on_both_sides_are_refused():
    with pytest.raises(ValueError, match="zip"):
        timing.per_evaluation([1.0, 2.0], [1.0], 5)


def test_a_sampler_is_set_against_the_bare_network_of_its_own_round():
    rows = timing.per_evaluation([3.0, 4.0, 9.0], [2.0, 1.0, 3.0], 5)
    assert [row["ratio"] for row in rows] == [1.5, 4.0, 3.0]
    assert [row["seconds"] for row in rows] == [0.6, 0.8, 1.8]
    assert [row["network_seconds"] for row in rows] == [0.4, 0.2, 0.6]
    assert [row["repetition"] for row in rows] == [0, 1, 2]
    assert {row["evaluations"] for row in rows} == {5}


def test_a_distance_between_points_is_summed_over_dimensions_and_averaged_over_points():
    x, y = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    assert distances.root_mean_square(x, y) == pytest.approx(math.sqrt((25 + 9) / 2))


@pytest.mark.parametrize("shift", [0.0, 0.7, -2.0])
def test_samples_that_are_shifted_on_a_line_are_as_far_off_as_the_shift(shift):
    law = lab.GaussianMixture([0.3, 0.7], [[-1.0], [2.0]], [0.04, 0.25])
    law = lab.GaussianMixture(law.weights.double(), law.means.double(), law.covariances.double())
    distance = distances.sliced_wasserstein_to(law, 1000, torch.Generator().manual_seed(0))
    shares = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    x = torch.linspace(-4, 6, 200_001, dtype=torch.float64)
    below = 0.3 * torch.special.ndtr((x + 1) / 0.2) + 0.7 * torch.special.ndtr((x - 2) / 0.5)
    quantiles = x[torch.searchsorted(below, shares)]
    assert distance((quantiles + shift)[:, None]) == pytest.approx(abs(shift), abs=2e-4)


def test_the_quantiles_of_a_normal_law_are_its_own():
    law = lab.GaussianMixture(
        [1.0], torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([4.0], dtype=torch.float64)
    )
    distance = distances.sliced_wasserstein_to(law, 1000, torch.Generator().manual_seed(0))
    quantiles = 0.3 + 2 * torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    assert distance(quantiles[:, None]) < 1e-6


@pytest.mark.parametrize("covariances", [[1e-10], [[[1e-10, 0.0], [0.0, 1e-10]]]])
def test_along_each_direction_counts_how_far_the_points_are_off_in_it(covariances):
    offset = torch.tensor([0.5, -1.0], dtype=torch.float64)
    law = lab.GaussianMixture(*(torch.tensor(v, dtype=torch.float64) for v in ([1.0], [[3.0, 4.0]], covariances)))
    distance = distances.sliced_wasserstein_to(law, 10, torch.Generator().manual_seed(5))
    u = torch.randn(2, 64, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = (offset @ (u / u.norm(dim=0))).abs().mean().item()
    assert distance((law.means + offset).expand(10, 2)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("high", "low"), [(80.0, 0.01), (3.0, 0.0)])
def test_the_exact_flow_of_a_gaussian_is_a_straight_scaling(high, low):
    mean, std = torch.tensor([[1.0, -2.0]], dtype=torch.float64), 0.3
    law = lab.GaussianMixture(torch.ones(1, dtype=torch.float64), mean, torch.tensor([std**2], dtype=torch.float64))
    start = torch.tensor([[5.0, 1.0], [-2.0, 0.0]], dtype=torch.float64)
    end = distances.exact_flow(law, start, high, low)
    expected = mean + (start - mean) * math.sqrt((std**2 + low**2) / (std**2 + high**2))
    torch.testing.assert_close(end, expected, atol=2e-6, rtol=0)


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
    assert json.loads(path.read_text(encoding="utf-8")) == {"overhead": {"about": {}, "rows": []}}
    assert len(list(tmp_path.iterdir())) == 1


def test_a_number_that_is_not_finite_is_left_out_and_told():
    row = {"project": "a", "distance": float("nan"), "seconds": 1.0, "bits": float("inf")}
    assert run.without_infinities(row) == {"project": "a", "seconds": 1.0, "not_finite": "distance, bits"}


def test_an_unknown_benchmark_is_named(capsys):
    with pytest.raises(SystemExit):
        run.main(["speed"])
    assert "'speed' is no benchmark; there are overhead, quality" in capsys.readouterr().err


def test_what_is_not_a_peer_has_the_version_of_the_book(root):
    def pins(path):
        return set(re.findall(r"^[\w.-]+==.*$", path.read_text(encoding="utf-8"), re.M))

    alone = {
        pin.partition("==")[0] for pin in pins(root / "benchmarks/requirements.txt") - pins(root / "requirements.txt")
    }
    assert alone == {"azula", "diffusers", "smalldiffusion", "torchvision"}


def invented_results():
    """Rows such as the benchmarks make, with scorebook ahead in even cases and behind in odd ones."""
    about = {
        "date": "2026-01-02",
        "commit": "0123456789",
        "processor": "a processor",
        "cores": 2,
        "threads": 2,
        "python": "3.11.0",
        "versions": {"scorebook": "0.1.0", "azula": "not installed"},
        "load_before": 0.1,
        "repetitions": 5,
        "seconds": 60.0,
    }

    def times(case, projects=("azula", "torchdiffeq")):
        for r in range(5):
            yield "scorebook", r, (1.0 if case % 2 == 0 else 9.0) + 0.1 * r
            for p in projects:
                yield p, r, 5.0 + 0.1 * r

    overhead = [
        {"sampler": s, "network": n, "batch": 1, "project": p, "name": "x", "repetition": r}
        | {"seconds": v, "network_seconds": 0.01, "ratio": v}
        for s in ("Euler", "flow")
        for i, n in enumerate(("MLP", "UNet"))
        for p, r, v in times(i)
    ]
    quality = [
        {"law": law, "project": p, "solver": "x", "evaluations": n, "repetition": r}
        | {"sliced_wasserstein": v, "rms_to_exact_flow": v}
        for law in ("one", "two")
        for i, n in enumerate((5, 10))
        for p, r, v in times(i)
    ]
    quality += [
        {"law": "one", "project": "the law itself", "repetition": r, "sliced_wasserstein": 0.4} for r in range(5)
    ]
    digits = [
        {"project": p, "budget_s": 15.0 * (i + 1), "repetition": r, "sliced_wasserstein": v, "bits_per_dim": v}
        for i in range(3)
        for p, r, v in times(i)
    ]
    digits += [{"project": "real digits", "repetition": r, "sliced_wasserstein": 0.4} for r in range(5)]
    ways = {
        "divergence": ["divergence", "loop over autograd.grad"],
        "training step": ["sliced loss", "sliced loss, jvp", "exact loss", "exact loss, loop"],
        "likelihood": ["log_prob, exact", "odeint, loop over the trace"],
    }
    divergence = [
        {"task": task, "dimension": d, "project": p, "name": name, "repetition": r, "seconds": v, "peak_megabytes": v}
        for task, names in ways.items()
        for k, name in enumerate(names)
        for i, d in enumerate((2, 8))
        for p, r, v in times(i, ["torch.func"])
        if (p == "scorebook") == (k % 2 == 0)
    ]
    of_book = [{"build": "cold", "page": p, "repetition": 0, "seconds": s} for p, s in (("all", 99.0), ("sde", 40.0))]
    of_book += [{"build": "cached", "page": "all", "repetition": r, "seconds": 5.0 + r} for r in range(5)]
    of_book += [
        {"build": b, "page": p, "repetition": 0, "seconds": s, "processor_seconds": c}
        for b, p, s, c in (("alone", "sde", 40.0, 38.0), ("beside two", "sde", 88.0, 42.0))
    ]
    of_tutorial = [
        {"recipe": p, "sampler": "x", "budget_s": 20.0 * 3**i, "repetition": r, "steps": 9, "evaluations": 7}
        | {"frechet": v, "bits_by_noise": v, "bits_per_dim": v, "seconds_a_digit": 0.1}
        for i in range(3)
        for p, r, v in times(i, ["Song's tutorial"])
    ]
    of_tutorial += [{"recipe": "real digits", "repetition": r, "frechet": 0.4} for r in range(5)]
    rows = {"overhead": overhead, "quality": quality, "digits": digits, "tutorial": of_tutorial}
    rows |= {"divergence": divergence, "book": of_book}
    return {name: {"about": about, "rows": some} for name, some in rows.items()}


@pytest.mark.parametrize("part", benchmark_page.PARTS, ids=" ".join)
def test_every_part_of_the_page_is_made_from_results_or_says_that_there_are_none(part, tmp_path):
    made = benchmark_page.made(*part, invented_results(), tmp_path)
    text = " ".join(node.astext() for node in made)
    assert "Not measured" not in text
    (none,) = benchmark_page.made(*part, {}, tmp_path)
    assert none.astext().startswith("Not measured yet")
    if part[1] == "figure":
        images = list(made[0].findall(nodes.image))
        assert {tuple(sorted(image["classes"])) for image in images} == {
            (f"on-{width}-screens", f"only-{scheme}") for width in ("narrow", "wide") for scheme in ("dark", "light")
        }
        assert {Path(image["uri"]) for image in images} == set(tmp_path.glob(f"{part[0]}*.png"))
        assert all(Path(image["uri"]).stat().st_size > 10_000 and image["alt"] for image in images)


AHEAD, BEHIND, PEER = (1.1, 1.2, 1.3), (9.1, 9.2, 9.3), (5.1, 5.2, 5.3)


def drawn(ax):
    """What an axes shows of each project: places, with the lower quartile, the median and the upper quartile."""
    shown = {}
    for container in ax.containers:
        line, _, (bars,) = container
        x, middle = line.get_data()
        ends = [segment[:, 1] for segment in bars.get_segments()]
        spread = [(at, *np.sort([*end, m])) for at, end, m in zip(x, ends, middle, strict=True)]
        shown[(container.get_label() or "").partition(":")[0]] = spread
    return shown


def expected(*cases):
    return [pytest.approx((at, *of)) for at, of in cases]


def test_the_figure_of_overhead_draws_medians_and_quartiles_of_each_project_side_by_side():
    picture, alt = benchmark_page.overhead_figure(invented_results())
    assert [ax.get_title() for ax in picture.axes] == ["Euler", "flow"]
    for ax in picture.axes:
        shown = drawn(ax)
        assert list(shown) == ["scorebook", "azula", "torchdiffeq"]
        assert shown["scorebook"] == expected((-0.12, AHEAD), (0.88, BEHIND))
        assert shown["azula"] == expected((0, PEER), (1, PEER))
        assert shown["torchdiffeq"] == expected((0.12, PEER), (1.12, PEER))
        assert [list(line.get_ydata()) for line in ax.lines if len(set(line.get_ydata())) == 1][-1] == [1, 1]
    labels = picture.axes[1].get_xticklabels()
    assert [(label.get_position()[0], label.get_text()) for label in labels] == [
        (0, "MLP\nbatch 1"),
        (1, "UNet\nbatch 1"),
    ]
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["scorebook", "azula", "torchdiffeq"]
    assert alt.startswith("2 panels, one for each kind of sampler")
    assert "for 2 network and batch sizes" in alt


def test_the_figure_of_quality_draws_each_law_and_where_the_exact_flow_ends():
    picture, alt = benchmark_page.quality_figure(invented_results())
    assert [ax.get_title() for ax in picture.axes] == ["one", "", "two", ""]
    assert [ax.get_ylabel() for ax in picture.axes[:2]] == list(benchmark_page.QUALITY.values())
    for k, ax in enumerate(picture.axes):
        assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
        assert drawn(ax)["scorebook"] == expected((5, AHEAD), (10, BEHIND))
        assert drawn(ax)["azula"] == expected((5, PEER), (10, PEER))
        floors = [list(line.get_ydata()) for line in ax.lines if line.get_label() == "exact flow"]
        assert floors == ([[0.4, 0.4]] if k == 0 else [])
    assert "for one and two:" in alt


def test_the_figure_of_digits_draws_the_budgets_and_real_digits():
    picture, _ = benchmark_page.digits_figure(invented_results())
    for k, ax in enumerate(picture.axes):
        assert ax.get_ylabel() == list(benchmark_page.DIGITS.values())[k]
        assert drawn(ax)["scorebook"] == expected((15, AHEAD), (30, BEHIND), (45, AHEAD))
        real = [list(line.get_ydata()) for line in ax.lines if line.get_label() == "real digits"]
        assert real == ([[0.4, 0.4]] if k == 0 else [])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["15", "30", "45"]


def test_the_figure_of_the_tutorial_draws_both_recipes_and_real_digits():
    picture, alt = benchmark_page.tutorial_figure(invented_results())
    for k, ax in enumerate(picture.axes):
        assert ax.get_ylabel() == list(benchmark_page.TUTORIAL.values())[k]
        assert drawn(ax)["scorebook"] == expected((20, AHEAD), (60, BEHIND), (180, AHEAD))
        assert drawn(ax)["Song's tutorial"] == expected((20, PEER), (60, PEER), (180, PEER))
        real = [list(line.get_ydata()) for line in ax.lines if line.get_label() == "real digits"]
        assert real == ([[0.4, 0.4]] if k == 0 else [])
    assert "the recipe of Song's tutorial and for scorebook" in alt


def test_what_is_said_of_the_tutorial_follows_the_numbers():
    said = [node.astext() for node in benchmark_page.tutorial_conclusion(invented_results())]
    assert said[0] == (
        "By the Fréchet distance, scorebook is ahead of every peer in 2 of 3 cases, level with the best in 0 and "
        "behind it in 1."
    )
    assert "After 60 s the tutorial's recipe has 5.2; scorebook has no more after 20 s." in said[2]
    assert said[-5].startswith(
        "Sampler by sampler, by the Fréchet distance, scorebook is ahead of every peer in 2 of 3"
    )
    assert said[-4] == "For 60 s, x, Song's tutorial is ahead: 5.2 to 9.2."
    assert said[-3] == "Drawing a digit takes, of the processor, 0.1 s by x of scorebook and 0.1 s by x."
    assert said[-2].startswith("The tutorial's digits were not drawn by Euler-Maruyama after 20 s, by predictor-corr")
    assert said[-1] == "Each recipe was trained from 5 seeds."
    slow = invented_results()
    slow["tutorial"]["rows"] = [row for row in slow["tutorial"]["rows"] if row["repetition"] == 0]
    for row in slow["tutorial"]["rows"]:
        if row["recipe"] == "scorebook":
            row["frechet"] = 99.0
    said = [node.astext() for node in benchmark_page.tutorial_conclusion(slow)]
    assert "After 180 s the tutorial's recipe has 5; scorebook needs longer." in said[2]
    assert said[-1].startswith("Each recipe was trained from 1 seed. With one there is no spread")
    short = invented_results()
    rows = short["tutorial"]["rows"]
    rows += [row | {"sampler": "ODE"} for row in rows if row.get("budget_s") == 20.0 and row["repetition"] < 2]
    short["tutorial"]["rows"] = [row for row in rows if row.get("budget_s") != 180.0 or row["repetition"] == 0]
    said = [node.astext() for node in benchmark_page.tutorial_conclusion(short)]
    assert said[-2] == "The tutorial's digits were drawn by ODE after 20 s from 2 seeds only."
    assert said[-1].startswith(
        "Each recipe was trained from 5 seeds, of these 1 for 180 s. With one there is no spread"
    )
    (table,) = benchmark_page.tutorial_table(invented_results())
    assert cells(table)[1] == ["20 s, Song's tutorial", "x", *["5.2 (5.1–5.3)"] * 3, "9", "7", "0.1"]
    assert cells(table)[-1] == ["real digits", "", "0.4", "", "", "", "", ""]


def test_the_figure_of_the_divergence_draws_a_line_for_each_way():
    picture, alt = benchmark_page.divergence_figure(invented_results())
    assert [ax.get_title() for ax in picture.axes[::2]] == ["exact divergence", "training step", "likelihood"]
    for ax in picture.axes:
        ways = [[m for _, _, m, _ in of] for of in drawn(ax).values()]
        assert ways
        assert all(way == pytest.approx([1.2, 9.2]) or way == pytest.approx([5.2, 5.2]) for way in ways)
        assert all([at for at, *_ in of] == [2, 8] for of in drawn(ax).values())
    legend = [text.get_text() for text in picture.axes[2].get_legend().get_texts()]
    assert sorted(legend) == sorted(
        [
            "scorebook: sliced loss",
            "scorebook: exact loss",
            "torch.func: sliced loss, jvp",
            "torch.func: exact loss, loop",
        ]
    )
    assert len({line.get_linestyle() for line in picture.axes[2].lines}) > 1
    assert [ax.get_xlabel() for ax in picture.axes] == [""] * 4 + ["dimension"] * 2
    assert "each of exact divergence, training step and likelihood:" in alt
    for ax in picture.axes[::2]:
        lines = [container[0] for container in ax.containers]
        looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines]
        assert len(set(looks)) == len(looks)


def test_the_figure_of_the_book_has_the_longest_page_on_top():
    results = invented_results()
    rows = [
        {"build": "cold", "page": p, "repetition": 0, "seconds": s} for p, s in (("all", 99), ("b", 40), ("a", 7.4))
    ]
    results["book"]["rows"] = rows
    picture, _ = benchmark_page.book_figure(results)
    (ax,) = picture.axes
    assert [(bar.get_y() + bar.get_height() / 2, bar.get_width()) for bar in ax.patches] == [(0, 7.4), (1, 40)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [(text.get_text(), text.xy) for text in ax.texts] == [("7", (7.4, 0)), ("40", (40, 1))]


def cells(table):
    """The texts of a table, those in bold between stars."""
    rows = [list(row.findall(nodes.entry)) for row in table.findall(nodes.row)]
    return [[f"*{e.astext()}*" if list(e.findall(nodes.strong)) else e.astext() for e in row] for row in rows]


def test_a_table_marks_who_is_ahead():
    (table,) = benchmark_page.overhead_table(invented_results())
    assert cells(table) == [
        ["", "scorebook", "best peer"],
        ["Euler, MLP, batch 1 (10 ms)", "*1.2*", "5.2 azula"],
        ["Euler, UNet, batch 1 (10 ms)", "9.2", "*5.2 azula*"],
        ["flow, MLP, batch 1 (10 ms)", "*1.2*", "5.2 azula"],
        ["flow, UNet, batch 1 (10 ms)", "9.2", "*5.2 azula*"],
    ]


def test_a_table_leaves_out_where_there_is_nobody_to_compare_with_and_marks_none_that_are_level():
    alone, level = (summary.summary_of(values) for values in ([1.0], [1.0, 2.0, 3.0]))
    cases = {"alone": {"scorebook": (alone, "")}, "theirs": {"azula": (alone, "")}}
    cases["both"] = {"scorebook": (level, ""), "azula": (level, "")}
    assert cells(benchmark_page.comparison(cases, str, "a", "b")) == [["", "a", "b"], ["both", "2", "2 azula"]]
    (said,) = benchmark_page.verdict(cases, str)
    assert said.astext() == (
        "Scorebook is ahead of every peer in 0 of 1 case, level with the best in 1 and behind it in 0."
    )


def test_the_tables_of_quality_and_digits_name_their_cases():
    (table,) = benchmark_page.quality_table(invented_results())
    assert cells(table)[1:3] == [
        ["one, 5 evaluations", "*1.2*", "5.2 azula"],
        ["one, 10 evaluations", "9.2", "*5.2 azula*"],
    ]
    first, table, second, _ = benchmark_page.digits_table(invented_results())
    assert (first.astext(), second.astext()) == ("Sliced Wasserstein distance:", "Bits per dimension:")
    assert cells(table)[1:3] == [["15 s of training", "*1.2*", "5.2 azula"], ["30 s of training", "9.2", "*5.2 azula*"]]


def test_the_table_of_the_divergence_is_of_the_highest_dimension_in_milliseconds():
    results = invented_results()
    for row in results["divergence"]["rows"]:
        row["peak_megabytes"] = 3 * row["seconds"]
    table = cells(benchmark_page.divergence_table(results)[0])
    assert table[0] == ["In 8 dimensions", "ms", "MB"]
    assert table[1] == ["exact divergence: scorebook, divergence", "9,200", "27.6"]


def test_how_it_was_measured_is_told_in_full():
    (told,) = benchmark_page.measured(invented_results(), "overhead")
    assert told.astext() == (
        "Measured on 2 January 2026 in 1 minute on a processor, 2 threads on 2 cores; 0.1 processes at work on average "
        "in the minute before; 5 repetitions; Python 3.11.0, scorebook 0.1.0; commit 0123456789."
    )


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "1 minute"), (29, "1 minute"), (91, "2 minutes"), (600, "10 min")]
)
def test_minutes_are_rounded_and_none_is_one(seconds, words):
    results = invented_results()
    results["overhead"]["about"]["seconds"] = seconds
    assert f"in {words}" in benchmark_page.measured(results, "overhead")[0].astext()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.001, "0.001"),
        (0.000999, "1.0e-03"),
        (-0.5, "-0.5"),
        (12.345, "12.3"),
        (999.4, "999"),
        (1000, "1,000"),
        (1234567.8, "1,234,568"),
    ],
)
def test_a_number_has_three_digits(value, text):
    assert benchmark_page.number(value) == text


def test_words_are_counted_and_listed_as_in_a_sentence():
    assert [benchmark_page.counted(n, "case") for n in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert [benchmark_page.listed("abc"[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_rows_are_chosen_by_all_their_columns():
    rows = [{"a": 1, "b": 2}, {"a": 1, "b": 3}, {"b": 2}]
    results = {"x": {"rows": rows}}
    assert benchmark_page.rows_of(results, "x", a=1, b=2) == [{"a": 1, "b": 2}]
    assert benchmark_page.rows_of(results, "x") == rows
    assert benchmark_page.rows_of(results, "y") == benchmark_page.rows_of({"x": {}}, "x") == []


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [([1, 2, 3], [4, 5, 6], "ahead"), ([4, 5, 6], [1, 2, 3], "behind"), ([1, 4, 6], [3, 5, 7], "level")],
)
def test_ahead_means_that_the_middle_halves_are_apart(ours, theirs, word):
    of = {"scorebook": (summary.summary_of(ours), ""), "azula": (summary.summary_of(theirs), "")}
    assert benchmark_page.standing(of | {"slow": (summary.summary_of([99]), "")}) == (word, "azula")


def test_of_several_entries_of_a_project_the_best_counts():
    rows = [{"n": 1, "project": "azula", "name": name, "s": s} for name, s in (("a", 3.0), ("b", 2.0), ("a", 3.5))]
    assert benchmark_page.best(rows, "s", ["n"]) == {(1,): {"azula": (summary.summary_of([2.0]), "b")}}


def test_a_conclusion_follows_the_numbers():
    said = " ".join(node.astext() for node in benchmark_page.PARTS["overhead", "conclusion"](invented_results()))
    assert "Scorebook is ahead of every peer in 2 of 4 cases, level with the best in 0 and behind it in 2" in said
    assert "For Euler, UNet, batch 1 (10 ms), azula is ahead: 5.2 to 9.2." in said
    assert "the greatest ratio of scorebook is 9.200; 0 of 4 such cases stay within 1.05" in said
    said = benchmark_page.PARTS["book", "conclusion"](invented_results())
    assert "The cold build takes 99 s, of which its 1 notebooks run for 40 s" in said
    assert "it takes 7.0 s (quartiles 6.0 and 8.0 s, 5 repetitions)" in said
    assert said.endswith("none of sde takes more than 2.2 times as long, or 1.11 times the processor.")


def test_each_contest_of_the_divergence_sets_scorebook_against_what_it_names():
    rows = summary.read()["divergence"]["rows"]
    for _, task, ours, theirs in benchmark_page.CONTESTS:
        by = {row["name"]: row["project"] for row in rows if row["task"] == task}
        assert by[ours] == "scorebook"
        assert {by[name] for name in theirs} & {"scorebook"} == set()


def test_the_contests_are_told_as_the_numbers_stand():
    what = {"task": "divergence"}
    rows = [
        what | {"project": p, "name": name, "dimension": d, "repetition": r, "seconds": s, "peak_megabytes": m}
        for r in range(5)
        for d, ours, theirs in ((2, 1, 2), (8, 3, 5), (32, 8, 4))
        for p, name, s, m in (("scorebook", "divergence", ours, 30), ("torch.func", "jacrev", theirs, 10))
    ]
    said = [node.astext() for node in benchmark_page.divergence_conclusion({"divergence": {"rows": rows}})[0]]
    assert said[0] == (
        "In time, exact divergence of scorebook is ahead in 2 of 3 dimensions and behind in 1; in dimension 32 it "
        "needs 2 times as much as torch.func, jacrev."
    )
    assert said[1].startswith("In memory, exact divergence of scorebook is ahead in 0 of 3 dimensions and behind in 3")


@pytest.mark.parametrize("name", run.BENCHMARKS)
def test_what_is_stored_was_measured_five_times_and_says_where(name):
    stored = summary.read()[name]
    about = stored["about"]
    assert about["repetitions"] >= (1 if name == "tutorial" else 5)  # which trains for minutes, and says how often
    assert {"date", "processor", "threads", "commit", "versions", "load_before"} <= set(about)
    assert about["versions"]["torch"].startswith("2.")
    # What executes whole notebooks is measured once.
    rows = [row for row in stored["rows"] if row.get("build") not in ("cold", *book.COMPANY)]
    assert {row["repetition"] for row in rows} == set(range(about["repetitions"]))


def test_the_page_shows_every_part_of_every_benchmark(root):
    shown = re.findall(
        r"^```\{benchmark\} (\w+) (\w+)$", (root / "book" / "benchmarks.md").read_text(encoding="utf-8"), re.M
    )
    assert sorted(shown) == sorted(benchmark_page.PARTS)
    assert {benchmark for benchmark, _ in shown} == set(run.BENCHMARKS)


def test_the_common_likelihood_of_the_digits_is_that_of_a_known_law(monkeypatch):
    images, held_out = lab.digits("train")[0], lab.digits("test")[0]
    digits.check_against_closed_form(images, held_out)
    right = digits.PROCESS.exact_score
    monkeypatch.setattr(digits.PROCESS, "exact_score", lambda law: lambda x, t: 0.95 * right(law)(x, t))
    with pytest.raises(RuntimeError, match="likelihood is off"):
        digits.check_against_closed_form(images, held_out)


def test_the_clock_of_a_learner_stands_still_between_two_budgets(monkeypatch):
    ticks = itertools.count(step=0.01)  # each look at the clock takes a hundredth of a second
    clock = SimpleNamespace(ahead=0.0, perf_counter=lambda: next(ticks) + clock.ahead)
    monkeypatch.setattr(training, "time", clock)
    learner = digits_peers.Scorebook(lab.digits("train")[0], seed=0)
    learner.train_until(0.3)
    first, weights = learner.steps, learner.model.network.trunk.last.weight.clone()
    clock.ahead = 3600.0
    learner.train_until(0.6)
    assert 0 < first < learner.steps
    assert 0.6 <= learner.seconds < 0.65
    assert not torch.equal(weights, learner.model.network.trunk.last.weight)


def test_a_project_that_fails_leaves_the_others_alone(monkeypatch):
    class Failing(digits_peers.Scorebook):
        def denoise(self, y, r):
            raise ImportError("no such peer")

    monkeypatch.setattr(digits, "LEARNERS", {"failing": Failing, "scorebook": digits_peers.Scorebook})
    monkeypatch.setattr(digits, "N_SAMPLES", 40)
    monkeypatch.setenv("SCOREBOOK_BENCH_SECONDS", "0.2 0.4")
    rows = digits.measure(repetitions=1)
    assert [row["error"] for row in rows if row["project"] == "failing"] == ["ImportError: no such peer"]
    measured = [row for row in rows if row["project"] == "scorebook"]
    assert [row["budget_s"] for row in measured] == [0.2, 0.4]
    assert all(row["sliced_wasserstein"] > 0 and row["bits_per_dim"] > 0 for row in measured)
    assert {row["project"] for row in rows if "budget_s" not in row} == {"failing", "real digits", "one Gaussian"}


def test_a_comparison_that_was_broken_off_goes_on_and_leaves_no_process(monkeypatch, tmp_path):
    asked, others = [], []

    def execute(page, python, root):
        asked.append((page, len(others)))
        if len(asked) == 2:
            raise RuntimeError("broken off")
        return {"seconds": 1.0 + len(others), "processor_seconds": 1.0}

    class Other:
        def __init__(self, command):
            others.append(self)

        def kill(self):
            others.remove(self)

        def wait(self):
            assert self not in others

    monkeypatch.setattr(book, "_execute", execute)
    monkeypatch.setattr(book.subprocess, "Popen", Other)
    monkeypatch.setattr(book, "commit", lambda: "0123456789")
    with pytest.raises(RuntimeError, match="broken off"):
        book.beside_others(["sde"], root=tmp_path)
    assert others == []
    rows = book.beside_others(["sde"], root=tmp_path)
    assert asked == [("sde", 0), ("sde", 2), ("sde", 2)]
    assert book.ratios(rows).splitlines()[1].split() == ["sde", "1.0", "3.0", "3.00×", "1.0", "1.0", "1.00×"]


def test_a_busy_process_ends_with_the_benchmark_however_that_ends(root):
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(root)!r})
from benchmarks import book
with book.busy(2):
    print("started", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    # The pipe is open as long as one of the three lives.
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, encoding="utf-8", timeout=1200)
    assert (done.stdout, done.returncode) == ("started\n", -signal.SIGKILL)


# Song's tutorial

MEAN, STD = -0.4, 0.3  # of a law of independent normal pixels in [-1, 1]


def with_the_exact_score(recipe):
    """A learner that knows this law."""
    learner = recipe(torch.zeros(8, 1, 28, 28) + torch.tensor([-1.0, 1.0] * 4).reshape(8, 1, 1, 1), seed=0)
    if recipe is tutorial.Tutorial:
        middle, wide = (MEAN + 1) / 2, STD / 2
        learner.score = lambda x, t: (middle - x) / (wide**2 + learner.noise_std(t) ** 2)
    else:
        law = lab.GaussianMixture([1.0], [[MEAN] * 784], STD**2)
        score = learner.process.exact_score(law)
        learner.model = lambda x, t: score(x.flatten(1), t).reshape(x.shape)
    return learner


@pytest.mark.parametrize("recipe", [tutorial.Tutorial, tutorial.Book])
@pytest.mark.parametrize("r", [0.02, 0.5, 10.0])
def test_a_recipe_is_asked_for_its_denoiser_in_the_units_of_the_page(recipe, r):
    y = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = (MEAN * r**2 + y * STD**2) / (STD**2 + r**2)
    torch.testing.assert_close(with_the_exact_score(recipe).denoise(y, torch.tensor(r)), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("recipe", "sampler"),
    [(recipe, name) for recipe in tutorial.LEARNERS.values() for name in benchmark_page.SAMPLERS_OF_SONG],
)
def test_each_sampler_draws_the_law_whose_score_it_is_given(recipe, sampler):
    draw = with_the_exact_score(recipe).samplers()[sampler]
    x, evaluations = draw(4, torch.Generator().manual_seed(1))
    n = x.numel()
    assert x.shape == (4, 1, 28, 28)
    # 500 steps leave a bias, in the spread most of all; the corrector's step is a tenth too long for a Gaussian.
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(n) + 0.01)
    assert x.std().item() == pytest.approx(STD, rel=4 / math.sqrt(2 * n) + 0.03)
    asked = {tutorial.Tutorial: (500, 1000, evaluations), tutorial.Book: (65, 65, 32)}[recipe]
    assert evaluations == dict(zip(benchmark_page.SAMPLERS_OF_SONG, asked, strict=True))[sampler]


def test_the_network_of_the_tutorial_is_divided_by_the_noise():
    torch.manual_seed(0)
    network = tutorial.TutorialNetwork(lambda t: torch.ones_like(t)).eval()
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([0.1, 0.9])
    plain = network(x, t)
    network.noise_std = lambda t: 2 + t
    torch.testing.assert_close(network(x, t), plain / (2 + t)[:, None, None, None])
    assert plain.shape == x.shape


def test_the_bits_of_fair_coins_told_by_noise_are_one_each_and_spread_evenly_more():
    coins = 2.0 * torch.randint(0, 2, (200, 1, 4, 4), generator=torch.Generator().manual_seed(0)) - 1
    found = tutorial.bits(lambda y, r: torch.tanh(y / r**2), coins, coins, divergence="exact", n_steps=60)
    assert found["bits_by_noise"] == pytest.approx(1, abs=0.02)
    assert found["bits_per_dim"] > 1.2


def test_the_bits_of_normal_pixels_spread_evenly_are_those_of_their_density():
    generator = torch.Generator().manual_seed(0)
    levels = ((MEAN + STD * torch.randn(200, 1, 4, 4, generator=generator) + 1) * 127.5).round().clamp(0, 255)
    x = levels / 127.5 - 1
    found = tutorial.bits(lambda y, r: (MEAN * r**2 + y * STD**2) / (STD**2 + r**2), x, x, divergence="exact")
    entropy = 0.5 * math.log(2 * math.pi * math.e * STD**2) - math.log(tutorial.BIN_WIDTH)
    assert found["bits_per_dim"] == pytest.approx(entropy / math.log(2), abs=0.08)


def test_the_frechet_distance_of_two_normal_laws_is_that_of_means_and_spreads():
    x = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert tutorial.frechet(x, x + torch.tensor([3.0, 0.0, 4.0])) == pytest.approx(25, rel=1e-6)
    assert tutorial.frechet(x, 2 * x) == pytest.approx(x.T.cov().trace().item() + 4 * 0, rel=0.05)


@pytest.mark.parametrize("recipe", [tutorial.Tutorial, tutorial.Book])
def test_a_recipe_that_was_broken_off_goes_on_as_if_it_had_not_been(recipe, monkeypatch):
    images = lab.mnist("train")[0][:70]
    ticks = itertools.count()
    monkeypatch.setattr(tutorial.time, "process_time", lambda: 0.25 * next(ticks))
    whole = recipe(images, seed=0)
    whole.train_until(1.0)
    state = copy.deepcopy(whole.state())
    whole.train_until(2.0)
    other = recipe(images, seed=1)
    other.restore(state)
    other.train_until(2.0)
    assert 0 < state["steps"] < other.steps == whole.steps
    for a, b in zip(whole.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_both_recipes_are_measured_at_each_budget_and_not_twice(monkeypatch, tmp_path):
    monkeypatch.setattr(tutorial, "FOLDER", tmp_path)
    monkeypatch.setattr(tutorial, "N_SAMPLES", 40)
    monkeypatch.setattr(tutorial, "N_TOLD", 2)
    monkeypatch.setattr(tutorial.Tutorial, "n_steps", 3)
    monkeypatch.setattr(tutorial.Tutorial, "by_flow", lambda self, n, generator: (torch.zeros(n, 1, 28, 28), 1))
    monkeypatch.setenv("SCOREBOOK_BENCH_SECONDS", "0.2 0.4")
    rows = tutorial.measure(repetitions=1)
    trained = [row for row in rows if "budget_s" in row]
    assert {(row["recipe"], row["sampler"], row["budget_s"]) for row in trained} == {
        (recipe, sampler, budget)
        for budget in (0.2, 0.4)
        for recipe in tutorial.LEARNERS
        for sampler in benchmark_page.SAMPLERS_OF_SONG
    }
    assert all(row["seconds"] >= row["budget_s"] and row["steps"] >= 1 for row in trained)
    yardsticks = {row["recipe"]: row["frechet"] for row in rows if "budget_s" not in row}
    assert yardsticks["real digits"] < yardsticks["one Gaussian"]
    spent = tutorial.seconds_in_all()
    monkeypatch.setattr(tutorial, "bits", lambda *_: pytest.fail("it was measured before"))
    assert tutorial.measure(repetitions=1) == rows
    assert spent < tutorial.seconds_in_all() < 2 * spent
    # Without time left it gives what it has; broken off between two samplers, it goes on with the second.
    (kept,) = tmp_path.glob("scorebook-0-0.4.json")
    kept.write_text(json.dumps(json.loads(kept.read_text(encoding="utf-8"))[:1]), encoding="utf-8")
    monkeypatch.setenv("SCOREBOOK_BENCH_MINUTES", "0")
    assert len(tutorial.measure(repetitions=1)) == len(rows) - 2
    monkeypatch.delenv("SCOREBOOK_BENCH_MINUTES")
    again = tutorial.measure(repetitions=1)
    assert [row["frechet"] for row in again] == [row["frechet"] for row in rows]
