"""A Sphinx extension that shows what the benchmarks have measured, from ``benchmarks/results.json`` alone.

The directive ``{benchmark} <benchmark> <part>`` stands in the page for a figure, a table, a paragraph of conclusions or
one on how it was measured. Each is made from the stored rows when the page is read, so that a new run changes numbers,
pictures and conclusions together.

Two projects count as level where the middle halves of their repetitions overlap; otherwise the better median is ahead.
"""

import os
import sys
from datetime import date
from io import BytesIO
from pathlib import Path

import matplotlib
from docutils import nodes
from matplotlib.figure import Figure
from night import Drawn, accompany
from run_record import as_it_is, shown_table
from sphinx.util.docutils import SphinxDirective

from scorebook.lab._pages import stack

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are no part of the installed package

from benchmarks.summary import RESULTS, read, summarise, summary_of  # noqa: E402

__all__ = ["PARTS", "best", "setup", "standing"]

STYLE = ROOT / "scorebook" / "lab" / "scorebook.mplstyle"
OURS = "scorebook"
MADE = "scorebook-made"  # the class of a sentence that was made from the results
# One colour and one mark for each project, the same in all figures.
LOOKS = {
    "scorebook": ("#0072B2", "o"),
    "azula": ("#D55E00", "s"),
    "smalldiffusion": ("#009E73", "^"),
    "diffusers": ("#CC79A7", "D"),
    "torchdiffeq": ("#E69F00", "v"),
    "Song's tutorial": ("#D55E00", "s"),
    "by hand": ("#22303c", "P"),
    "torch.func": ("#56B4E9", "X"),
}
OTHERS = ("#6b7a89", "*")
DASHES = ("-", "--", ":", "-.")


def number(value) -> str:
    """Three digits, without an exponent where that reads well."""
    return (
        f"{value:.3g}"
        if 1e-3 <= abs(value) < 1000 or value == 0
        else f"{value:,.0f}"
        if value >= 1000
        else f"{value:.1e}"
    )


def between(summary) -> str:
    """A median with its quartiles, where they are apart."""
    low, high = number(summary.low), number(summary.high)
    return number(summary.median) + (f" ({low}–{high})" if low != high else "")


def counted(n, noun) -> str:
    """A number with its noun."""
    return f"{n} {noun}" + ("" if n == 1 else "s")


def listed(words) -> str:
    """Words joined as in a sentence."""
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" and {words[-1]}"


def rows_of(results, benchmark, **wanted):
    """The rows of a benchmark whose columns have these values."""
    rows = results.get(benchmark, {}).get("rows", [])
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def best(rows, value, cases, *, project="project", name="name"):
    """For each case, each project's lowest :class:`~benchmarks.summary.Summary` among its entries.

    Args:
        rows: of one benchmark.
        value: column in which less is better.
        cases: columns that tell the cases apart.
        project: column of the project.
        name: column that tells apart the several entries of one project.

    Returns:
        ``{case: {project: (summary, name)}}``.
    """
    rows = [{name: ""} | row for row in rows]
    found = {}
    for key, summary in summarise(rows, [*cases, project, name], value).items():
        of = found.setdefault(key[: len(cases)], {})
        if key[-2] not in of or summary.median < of[key[-2]][0].median:
            of[key[-2]] = (summary, key[-1])
    return found


def standing(of, projects=None) -> tuple[str, str]:
    """Whether scorebook is ``"ahead"`` of, ``"level"`` with or ``"behind"`` the best peer, and which that is."""
    peers = {p: s for p, (s, _) in of.items() if p != OURS and (projects is None or p in projects)}
    peer = min(peers, key=lambda p: peers[p].median)
    ours, theirs = of[OURS][0], peers[peer]
    if ours.low <= theirs.high and theirs.low <= ours.high:
        return "level", peer
    return ("ahead" if ours.median < theirs.median else "behind"), peer


def points(lines):
    """A list, one point for each of the lines, texts or nodes; no node where there is none."""
    lines = [line if isinstance(line, nodes.Node) else nodes.Text(line) for line in lines]
    items = [nodes.list_item("", nodes.paragraph("", "", line)) for line in lines]
    return [nodes.bullet_list("", *items)] if items else []


def verdict(cases, naming, by=""):
    """A paragraph on where scorebook stands in all cases, and a list of those in which a peer is ahead."""
    found = {case: standing(of) for case, of in cases.items() if OURS in of and len(of) > 1}
    count = {word: sum(w == word for w, _ in found.values()) for word in ("ahead", "level", "behind")}
    text = (
        f"{by}scorebook is ahead of every peer in {count['ahead']} of {counted(len(found), 'case')}, level with the "
        f"best in {count['level']} and behind it in {count['behind']}."
    )
    text = text[0].upper() + text[1:]
    lines = []
    for case, (word, peer) in found.items():
        if word == "behind":
            ours, theirs = cases[case][OURS][0].median, cases[case][peer][0].median
            lines.append(f"For {naming(case)}, {peer} is ahead: {number(theirs)} to {number(ours)}.")
    return [nodes.paragraph("", text), *points(lines)]


def comparison(cases, naming, ours_heading, peers_heading):
    """A table of scorebook beside the best peer, case by case; the better number is marked where they are not level."""
    lines = []
    for case, of in cases.items():
        if OURS not in of or len(of) < 2:
            continue
        word, peer = standing(of)
        mine, theirs = number(of[OURS][0].median), f"{number(of[peer][0].median)} {peer}"
        lines.append(
            (
                naming(case),
                nodes.strong("", mine) if word == "ahead" else mine,
                nodes.strong("", theirs) if word == "behind" else theirs,
            )
        )
    return shown_table(("", ours_heading, peers_heading), lines, numeric=(1,))


def figure(width, height, *grid, **options):
    """A figure in the book's style with its axes in one list."""
    picture = Figure(figsize=(width, height))
    return picture, picture.subplots(*grid, squeeze=False, **options).ravel().tolist()


def look(project):
    """Colour and mark of a project."""
    return LOOKS.get(project, OTHERS)


def bars(ax, positions, summaries, project, **options):
    """Medians with their quartiles."""
    colour, mark = look(project)
    middle = [s.median for s in summaries]
    spread = [[s.median - s.low for s in summaries], [s.high - s.median for s in summaries]]
    options = {"linestyle": "-", "label": project, "markersize": 5, "linewidth": 1.3} | options
    ax.errorbar(positions, middle, yerr=spread, color=colour, marker=mark, **options)


def legend(picture, axes, n_columns=3):
    """One legend for all axes, below them."""
    entries = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in entries}
    picture.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=n_columns)


# 1. Overhead


def overhead_cases(results):
    return best(rows_of(results, "overhead"), "ratio", ["sampler", "network", "batch"])


def overhead_figure(results):
    cases = overhead_cases(results)
    samplers = list(dict.fromkeys(sampler for sampler, _, _ in cases))
    networks = list(dict.fromkeys((network, batch) for _, network, batch in cases))
    picture, axes = figure(6.4, 2.3 * len(samplers) + 0.6, len(samplers), 1, sharex=True)
    for ax, sampler in zip(axes, samplers, strict=True):
        projects = dict.fromkeys(p for (s, _, _), of in cases.items() if s == sampler for p in of)
        for k, project in enumerate(projects):
            shift = 0.12 * (k - (len(projects) - 1) / 2)
            places = [i for i, case in enumerate(networks) if project in cases[sampler, *case]]
            summaries = [cases[sampler, *networks[i]][project][0] for i in places]
            bars(ax, [i + shift for i in places], summaries, project, linestyle="none")
        ax.axhline(1, color="#6b7a89", linewidth=0.8)
        ax.set(title=sampler, ylabel="times the network")
        ax.grid(axis="y")
    axes[-1].set_xticks(range(len(networks)), [f"{network}\nbatch {batch}" for network, batch in networks])
    legend(picture, axes)
    return picture, (
        f"{counted(len(samplers), 'panel')}, one for each kind of sampler: time of an evaluation in the sampler over "
        f"that of the bare network, for {counted(len(networks), 'network and batch size')}, scorebook beside its "
        "peers, medians with quartiles. The table below has the numbers."
    )


def overhead_naming(results):
    milliseconds = summarise(rows_of(results, "overhead"), ["sampler", "network", "batch"], "network_seconds")
    return lambda case: f"{case[0]}, {case[1]}, batch {case[2]} ({number(1e3 * milliseconds[case].median)} ms)"


def overhead_table(results):
    return [comparison(overhead_cases(results), overhead_naming(results), "scorebook", "best peer")]


def overhead_conclusion(results):
    cases, slow = overhead_cases(results), 5e-3
    milliseconds = summarise(rows_of(results, "overhead"), ["sampler", "network", "batch"], "network_seconds")
    ratios = [of[OURS][0].median for case, of in cases.items() if milliseconds[case].median >= slow]
    said = verdict(cases, overhead_naming(results))
    if ratios:
        text = (
            f"Where the network takes 5 ms or more, the greatest ratio of scorebook is {max(ratios):.3f}; "
            f"{sum(ratio <= 1.05 for ratio in ratios)} of {len(ratios)} such cases stay within 1.05."
        )
        said.append(nodes.paragraph("", text))
    return said


# 2. Quality


QUALITY = {"sliced_wasserstein": "sliced Wasserstein distance", "rms_to_exact_flow": "distance to the exact flow"}


def quality_cases(results, value="sliced_wasserstein"):
    return best(rows_of(results, "quality"), value, ["law", "evaluations"], name="solver")


def quality_figure(results):
    laws = list(dict.fromkeys(law for law, _ in quality_cases(results)))
    picture, axes = figure(6.4, 3.1 * len(laws) + 0.6, len(laws), 2, sharex=True)
    for i, law in enumerate(laws):
        for ax, (value, words) in zip(axes[2 * i : 2 * i + 2], QUALITY.items(), strict=True):
            mine = {n: of for (at, n), of in quality_cases(results, value).items() if at == law}
            for project in dict.fromkeys(p for of in mine.values() for p in of):
                counts = sorted(n for n, of in mine.items() if project in of)
                bars(ax, counts, [mine[n][project][0] for n in counts], project)
            floor = [
                row[value] for row in rows_of(results, "quality", law=law) if "evaluations" not in row and value in row
            ]
            if floor:
                ax.axhline(summary_of(floor).median, color=OTHERS[0], linestyle="--", linewidth=1, label="exact flow")
            ax.set(xscale="log", yscale="log", ylabel=words, title=law if value == "sliced_wasserstein" else "")
            ax.set_xticks(sorted(mine), [str(n) for n in sorted(mine)])
            ax.minorticks_off()
            ax.grid(axis="y")
    for ax in axes[-2:]:
        ax.set_xlabel("evaluations of the score")
    legend(picture, axes)
    return picture, (
        f"Curves against the number of evaluations, on logarithmic axes, for {listed(laws)}: the sliced Wasserstein "
        "distance of samples to the law, and the distance of each sample to where the exact flow leads, for scorebook "
        "and the best sampler of each peer, medians with quartiles. A dashed line marks the exact flow."
    )


def quality_naming(case):
    return ", ".join([*map(str, case[:-1]), f"{case[-1]} evaluations"])


def quality_table(results):
    return [comparison(quality_cases(results), quality_naming, "scorebook", "best peer")]


def quality_conclusion(results):
    said, used = [], {}
    for value, words in QUALITY.items():
        cases = quality_cases(results, value)
        said += verdict(cases, quality_naming, by=f"by the {words}, ")
        for of in cases.values():
            for project, (_, name) in of.items():
                used.setdefault(project, {})[name] = None
    said.append(nodes.paragraph("", "The samplers that come out best of their project somewhere:"))
    return said + points(as_it_is(f"{project}: {listed(names)}.") for project, names in used.items())


# 3. Digits

DIGITS = {"sliced_wasserstein": "sliced Wasserstein distance", "bits_per_dim": "bits per dimension"}


def digits_cases(results, value):
    return best(rows_of(results, "digits"), value, ["budget_s"])


def digits_figure(results):
    picture, axes = figure(6.4, 6.6, 2, 1, sharex=True)
    for ax, (value, words) in zip(axes, DIGITS.items(), strict=True):
        cases = digits_cases(results, value)
        for project in dict.fromkeys(p for of in cases.values() for p in of):
            budgets = sorted(s for (s,), of in cases.items() if project in of)
            bars(ax, budgets, [cases[s,][project][0] for s in budgets], project)
        ticks = sorted(s for (s,) in cases)
        ax.set(ylabel=words)
        ax.set_xticks(ticks, [f"{s:g}" for s in ticks])
        ax.grid(axis="y")
    real = summarise([r for r in rows_of(results, "digits") if "budget_s" not in r], ["project"], "sliced_wasserstein")
    for (project,), summary in real.items():
        if project == "real digits":
            axes[0].axhline(summary.median, color=OTHERS[0], linestyle="--", linewidth=1, label=project)
    axes[-1].set_xlabel("seconds of training")
    legend(picture, axes)
    return picture, (
        "Two panels against the seconds of training: the sliced Wasserstein distance of samples to held-out digits, "
        "and held-out bits per dimension, for each project, medians with quartiles. A dashed line marks real digits."
    )


def digits_naming(case):
    return f"{case[0]:g} s of training"


def digits_table(results):
    shown = []
    for value, words in DIGITS.items():
        shown.append(nodes.paragraph("", f"{words[0].upper()}{words[1:]}:"))
        shown.append(comparison(digits_cases(results, value), digits_naming, "scorebook", "best peer"))
    return shown


def digits_conclusion(results):
    return [
        node
        for value, words in DIGITS.items()
        for node in verdict(digits_cases(results, value), digits_naming, by=f"by the {words}, ")
    ]


# 4. Song's tutorial

TUTORIAL = {"frechet": "Fréchet distance", "bits_by_noise": "bits per dimension, by noise"}
TUTORIAL_BITS = TUTORIAL | {"bits_per_dim": "bits per dimension, spread evenly"}
SONG, SAMPLERS_OF_SONG = "Song's tutorial", ("Euler-Maruyama", "predictor-corrector", "ODE")


def tutorial_cases(results, value):
    return best(rows_of(results, "tutorial"), value, ["budget_s"], project="recipe", name="sampler")


def tutorial_figure(results):
    picture, axes = figure(6.4, 6.6, 2, 1, sharex=True)
    for ax, (value, words) in zip(axes, TUTORIAL.items(), strict=True):
        cases = tutorial_cases(results, value)
        for recipe in dict.fromkeys(r for of in cases.values() for r in of):
            budgets = sorted(s for (s,), of in cases.items() if recipe in of)
            bars(ax, budgets, [cases[s,][recipe][0] for s in budgets], recipe)
        ticks = sorted(s for (s,) in cases)
        ax.set(ylabel=words, xscale="log", yscale="log" if value == "frechet" else "linear")
        ax.set_xticks(ticks, [f"{s:g}" for s in ticks])
        ax.minorticks_off()
        ax.grid(axis="y")
    yardsticks = [row for row in rows_of(results, "tutorial") if "budget_s" not in row]
    real = summarise(yardsticks, ["recipe"], "frechet")
    for ((recipe,), summary), dashes in zip(real.items(), DASHES[1:], strict=False):
        axes[0].axhline(summary.median, color=OTHERS[0], linestyle=dashes, linewidth=1, label=recipe)
    axes[-1].set_xlabel("seconds of the processor in training")
    legend(picture, axes, n_columns=2)
    return picture, (
        "Two panels against the seconds of the processor in training: the Fréchet distance of new digits to held-out "
        "ones, by the best sampler of each recipe, and held-out bits per dimension, for the recipe of Song's tutorial "
        "and for scorebook, medians with quartiles. Lines mark real digits and one Gaussian."
    )


def tutorial_naming(case):
    return f"{case[0]:g} s of training"


def tutorial_table(results):
    rows = rows_of(results, "tutorial")
    by = ["budget_s", "recipe", "sampler"]
    found = {value: summarise(rows, by, value) for value in (*TUTORIAL_BITS, "steps", "evaluations", "seconds_a_digit")}
    lines = [
        (
            f"{case[0]:g} s, {case[1]}",
            case[2],
            *(between(found[value][case]) for value in TUTORIAL_BITS),
            *(number(found[value][case].median) for value in found if value not in TUTORIAL_BITS),
        )
        for case in sorted(found["frechet"])
    ]
    yardsticks = summarise([row for row in rows if "budget_s" not in row], ["recipe"], "frechet")
    lines += [(recipe, "", between(summary), *[""] * 5) for (recipe,), summary in yardsticks.items()]
    headings = ("trained", "sampler", "Fréchet", "bits, by noise", "bits, evenly", "steps", "evaluations", "s a digit")
    return [shown_table(headings, lines, numeric=tuple(range(2, len(headings))))]


def tutorial_conclusion(results):
    found = []
    for value, words in TUTORIAL_BITS.items():
        cases = tutorial_cases(results, value)
        found += verdict(cases, tutorial_naming, by=f"by the {words}, ")
        lines = []
        for (budget,), of in cases.items():
            if SONG not in of or OURS not in of:
                continue
            theirs = of[SONG][0].median
            reached = [s for (s,), ours in cases.items() if OURS in ours and ours[OURS][0].median <= theirs]
            said = (
                f"scorebook has no more after {min(reached):g} s"
                if reached and min(reached) <= budget
                else "scorebook needs longer"
            )
            lines.append(f"After {budget:g} s the tutorial's recipe has {number(theirs)}; {said}.")
        found += points(lines)
    rows = [row for row in rows_of(results, "tutorial") if "budget_s" in row]
    alike = best(rows, "frechet", ["budget_s", "sampler"], project="recipe", name="recipe")
    found += verdict(
        alike, lambda case: f"{case[0]:g} s, {case[1]}", by="sampler by sampler, by the Fréchet distance, "
    )
    costs = summarise(rows, ["recipe", "sampler"], "seconds_a_digit")
    said = [
        f"{number(cost.median)} s by {sampler}" + (" of scorebook" if recipe == OURS else "")
        for (recipe, sampler), cost in costs.items()
    ]
    found.append(nodes.paragraph("", f"Drawing a digit takes, of the processor, {listed(said)}."))
    drawn = summarise([row for row in rows if row["recipe"] == SONG], ["budget_s", "sampler"], "frechet")
    seeds = {s: len({row["repetition"] for row in rows if row["budget_s"] == s}) for s in sorted({s for s, _ in drawn})}
    cases = [(s, sampler) for s in seeds for sampler in SAMPLERS_OF_SONG]
    lacking = [f"by {sampler} after {s:g} s" for s, sampler in cases if (s, sampler) not in drawn]
    if lacking:
        found.append(nodes.paragraph("", f"The tutorial's digits were not drawn {listed(lacking)}."))
    rare = [
        f"by {sampler} after {s:g} s from {counted(drawn[s, sampler].n, 'seed')}"
        for s, sampler in cases
        if (s, sampler) in drawn and drawn[s, sampler].n < seeds[s]
    ]
    if rare:
        found.append(nodes.paragraph("", f"The tutorial's digits were drawn {listed(rare)} only."))
    n = max(seeds.values())
    fewer = [f"{few} for {s:g} s" for s, few in seeds.items() if few < n]
    of_these = f", of these {listed(fewer)}" if fewer else ""
    alone = " With one there is no spread, and whoever is ahead is so in this run." if 1 in seeds.values() else ""
    return [*found, nodes.paragraph("", f"Each recipe was trained from {counted(n, 'seed')}{of_these}.{alone}")]


# 5. Divergence

TASKS = {"divergence": "exact divergence", "training step": "training step", "likelihood": "likelihood"}


def divergence_figure(results):
    rows = rows_of(results, "divergence")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    picture, axes = figure(6.4, 3.4 * len(tasks), len(tasks), 2, sharex=True)
    for i, task in enumerate(tasks):
        for ax, value, words in zip(
            axes[2 * i : 2 * i + 2], ("seconds", "peak_megabytes"), ("seconds", "megabytes"), strict=True
        ):
            found = summarise(rows_of(results, "divergence", task=task), ["project", "name", "dimension"], value)
            ways = list(dict.fromkeys(key[:2] for key in found))
            for project, name in ways:
                dimensions = sorted(d for p, n, d in found if (p, n) == (project, name))
                nth = [n for p, n in ways if p == project].index(name)
                label = f"{project}: {name}" if value == "seconds" else None
                summaries = [found[project, name, d] for d in dimensions]
                bars(ax, dimensions, summaries, project, label=label, linestyle=DASHES[nth], markersize=3.5)
            ax.set(xscale="log", yscale="log", ylabel=words, title=TASKS.get(task, task) if value == "seconds" else "")
            if value == "seconds":
                ax.legend(fontsize=8, loc="upper left")
                ax.set_ylim(top=ax.get_ylim()[1] * 60)  # room for the legend
    for ax in axes[-2:]:
        ax.set_xlabel("dimension")
    return picture, (
        f"A row of two panels for each of {listed(TASKS.get(task, task) for task in tasks)}: seconds and peak "
        "megabytes against the dimension, on logarithmic axes, for scorebook and other ways, medians with quartiles."
    )


def divergence_table(results):
    rows = rows_of(results, "divergence")
    top = max(row["dimension"] for row in rows)
    keys = ["task", "project", "name"]
    seconds, megabytes = (
        summarise(rows_of(results, "divergence", dimension=top), keys, value) for value in ("seconds", "peak_megabytes")
    )
    lines = [
        (
            f"{TASKS.get(task, task)}: {project}, {name}",
            number(1e3 * s.median),
            number(megabytes[task, project, name].median),
        )
        for (task, project, name), s in seconds.items()
    ]
    return [shown_table((f"In {top} dimensions", "ms", "MB"), lines, numeric=(1, 2))]


# What of scorebook is compared with what of the others: the same task, done as exactly.
CONTESTS = (
    ("exact divergence", "divergence", "divergence", ("loop over autograd.grad", "jacrev", "jacfwd")),
    ("the step with the sliced loss", "training step", "sliced loss", ("sliced loss, jvp",)),
    ("the step with the exact loss", "training step", "exact loss", ("exact loss, loop",)),
    ("the exact likelihood", "likelihood", "log_prob, exact", ("odeint, loop over the trace",)),
)


def divergence_conclusion(results):
    said = []
    for what, task, ours, theirs in CONTESTS:
        rows = [row for row in rows_of(results, "divergence", task=task) if row["name"] in (ours, *theirs)]
        for value, word in (("seconds", "time"), ("peak_megabytes", "memory")):
            cases = best(rows, value, ["dimension"])
            found = {dimension: standing(of) for (dimension,), of in cases.items()}
            behind = [dimension for dimension, (w, _) in found.items() if w == "behind"]
            text = f"In {word}, {what} of scorebook is ahead in {sum(w == 'ahead' for w, _ in found.values())} of "
            text += f"{counted(len(found), 'dimension')} and behind in {len(behind)}"
            if behind:
                peer = found[behind[-1]][1]
                of = cases[behind[-1],]
                times = of[OURS][0].median / of[peer][0].median
                text += f"; in dimension {behind[-1]} it needs {number(times)} times as much as {peer}, {of[peer][1]}"
            said.append(text + ".")
    return points(said)


# 6. The book


def book_seconds(results):
    rows = rows_of(results, "book", build="cold")
    return {key[0]: s.median for key, s in summarise(rows, ["page"], "seconds").items()}


def book_figure(results):
    pages = {page: s for page, s in book_seconds(results).items() if page != "all"}
    order = sorted(pages, key=pages.get)
    picture, (ax,) = figure(6.4, 0.3 * len(order) + 0.9, 1, 1)
    ax.barh(order, [pages[page] for page in order], color=LOOKS[OURS][0], height=0.65)
    for i, page in enumerate(order):
        ax.annotate(f"{pages[page]:.0f}", (pages[page], i), (4, 0), textcoords="offset points", va="center", fontsize=9)
    ax.set(xlabel="seconds to execute, in a cold build")
    ax.tick_params(axis="y", length=0)
    return picture, "Bars: seconds that each notebook of the book takes to execute in a cold build, the longest on top."


def book_conclusion(results):
    seconds = book_seconds(results)
    cached = summarise(rows_of(results, "book", build="cached", page="all"), ["page"], "seconds")["all",]
    pages = {page: s for page, s in seconds.items() if page != "all"}
    longest = max(pages, key=pages.get)
    return (
        f"The cold build takes {seconds['all']:.0f} s, of which its {len(pages)} notebooks run for "
        f"{sum(pages.values()):.0f} s; the longest is {longest} with {pages[longest]:.0f} s. Repeated with nothing "
        f"changed it takes {cached.median:.1f} s (quartiles {cached.low:.1f} and {cached.high:.1f} s, "
        f"{counted(cached.n, 'repetition')}). " + beside_others(results)
    ).strip()


def beside_others(results):
    """How much longer chapters take beside two processes that never rest, or nothing where that was not measured."""
    alone, beside = (rows_of(results, "book", build=name) for name in ("alone", "beside two"))
    if not beside:
        return ""
    worst = {}
    for unit in ("seconds", "processor_seconds"):
        of_page = {row["page"]: row[unit] for row in alone}
        worst[unit] = max(row[unit] / of_page[row["page"]] for row in beside)
    return (
        f"Beside two processes that never rest, none of {listed(row['page'] for row in beside)} takes more than "
        f"{worst['seconds']:.1f} times as long, or {worst['processor_seconds']:.2f} times the processor."
    )


# All of them


def measured(results, benchmark):
    """When, where and on what a benchmark was measured."""
    about = results[benchmark]["about"]
    day = date.fromisoformat(about["date"])
    versions = {name: version for name, version in about["versions"].items() if version != "not installed"}
    begin = f"Measured on {day.day} {day:%B %Y} in {counted(max(1, round(about['seconds'] / 60)), 'minute')} on "
    where = (
        f", {counted(about['threads'], 'thread')} on {counted(about['cores'], 'core')}; "
        f"{about['load_before']} processes at work on average in the minute before; "
        f"{counted(about['repetitions'], 'repetition')}; "
    )
    on_what = f"Python {about['python']}, {listed(f'{name} {version}' for name, version in versions.items())}"
    commit, comma, more = (about["commit"] or "").partition(",")
    text = [nodes.Text(begin), as_it_is(about["processor"]), nodes.Text(where), as_it_is(on_what)]
    text += [nodes.Text("; commit "), as_it_is(commit), nodes.Text(comma + more)] if commit else []
    return [nodes.paragraph("", "", *text, nodes.Text("."))]


PARTS = {
    ("overhead", "figure"): overhead_figure,
    ("overhead", "table"): overhead_table,
    ("overhead", "conclusion"): overhead_conclusion,
    ("quality", "figure"): quality_figure,
    ("quality", "table"): quality_table,
    ("quality", "conclusion"): quality_conclusion,
    ("digits", "figure"): digits_figure,
    ("digits", "table"): digits_table,
    ("digits", "conclusion"): digits_conclusion,
    ("tutorial", "figure"): tutorial_figure,
    ("tutorial", "table"): tutorial_table,
    ("tutorial", "conclusion"): tutorial_conclusion,
    ("divergence", "figure"): divergence_figure,
    ("divergence", "table"): divergence_table,
    ("divergence", "conclusion"): divergence_conclusion,
    ("book", "figure"): book_figure,
    ("book", "conclusion"): book_conclusion,
}
PARTS |= {
    (name, "measured"): lambda results, name=name: measured(results, name)
    for name in ("overhead", "quality", "digits", "tutorial", "divergence", "book")
}


def _sentence(text):
    return nodes.paragraph("", text, classes=[MADE])


def made(benchmark, part, results, folder):
    """The nodes of one part; a picture is saved in ``folder`` and named by its path."""
    if not rows_of(results, benchmark):
        return [_sentence(f"Not measured yet in this copy of the book: make bench ONLY={benchmark}.")]
    with matplotlib.style.context(STYLE):
        shown = PARTS[benchmark, part](results)
        if isinstance(shown, str):
            return [_sentence(shown)]
        if isinstance(shown, list):
            for each in shown:
                if isinstance(each, nodes.paragraph | nodes.bullet_list):
                    for paragraph in each.findall(nodes.paragraph):
                        paragraph["classes"].append(MADE)
            return shown
        picture, words = shown
        path = folder / f"{benchmark}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn = rendering(picture)
        if stack(picture):
            drawn.narrow = rendering(picture)
    image = nodes.image("", uri=str(path), alt=words, **drawn.size)
    for old in folder.glob(f"{benchmark}*.png"):
        old.unlink()
    path.write_bytes(drawn.data)
    box = nodes.container("", image, classes=["cell_output"])
    accompany(image, path, drawn)
    return [box]


def rendering(picture):
    """A figure as it is now, at twice the pixels for sharp screens."""
    data = BytesIO()
    picture.savefig(data, dpi=200)
    return Drawn(data.getvalue(), {"width": f"{picture.get_figwidth() * 100:.0f}px"}, [])


class Benchmark(SphinxDirective):
    """A part of the page of benchmarks: the name of a benchmark, and which of its parts."""

    required_arguments = 2

    def run(self):
        """Makes the part from the stored results."""
        benchmark, part = self.arguments
        if (benchmark, part) not in PARTS:
            raise self.error(f"no part {part!r} of a benchmark {benchmark!r}")
        for path in (RESULTS, Path(__file__)):
            self.env.note_dependency(str(path))
        source = Path(self.env.srcdir)
        shown = made(benchmark, part, read(), Path(self.env.app.outdir).parent / "benchmarks")
        for container in shown:
            for image in container.findall(nodes.image):
                image["uri"] = os.path.relpath(image["uri"], source / Path(self.env.docname).parent)
        return shown


def setup(app):
    """Registers the extension."""
    app.add_directive("benchmark", Benchmark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
