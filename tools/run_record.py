"""A Sphinx extension that tells what the execution of the notebooks has left: times, claims, versions, hardware.

Below the title of each notebook stands how long it takes to read and how long its code ran in this build. Three
directives, ``{this-build}``, ``{running-times}`` and ``{measured-claims}``, make the status page from the notebooks as
they were executed, and ``{faults-caught}`` from what ``make mutants`` has left. Nothing is written by hand.
"""

import math
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import editions
import mutants
import nbformat
import shown
from catalogues import MEASURED, QUOTED
from docutils import nodes
from execution_cache import recorded
from jupyter_cache import get_cache
from sphinx.util.docutils import SphinxDirective
from stopwatch import Cost, cost_of

from scorebook.lab.tables import CLAIMS_MIME, plus_minus

__all__ = ["Run", "as_it_is", "budget_of", "reading_minutes", "setup", "shown_table"]

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 60  # seconds of one CPU core, unless the notebook's metadata grants another (scorebook.budget_s)

# Words read in a minute, and how many words a line of code and a displayed formula count for.
PACE, CODE_LINE, FORMULA = 200, 4, 25

CHINESE, CHARACTERS = re.compile("[\u3400-\u9fff]"), 1.5  # Chinese characters that count for a word

# What the notebooks run on, and what makes the pages.
SHOWN = ("torch", "numpy", "scipy", "scikit-learn", "matplotlib", "torchdiffeq", "safetensors", "ipywidgets")
MAKERS = ("jupyter-book", "Sphinx", "myst-nb")


@dataclass
class Run:
    """One notebook as it was executed: its cells, its cost and budget, and the rows of its closing table."""

    cells: list
    cost: Cost
    budget: int

    @property
    def claims(self):
        """All rows that :func:`scorebook.lab.claims` has left, in order."""
        outputs = [output for cell in self.cells if cell.cell_type == "code" for output in cell.outputs]
        return [row for o in outputs for row in o.get("metadata", {}).get(CLAIMS_MIME, {}).get("claims", [])]


def budget_of(notebook):
    """Seconds that a notebook may take on one CPU core."""
    return notebook.metadata.get("scorebook", {}).get("budget_s", BUDGET)


def run_of(app, name):
    """The :class:`Run` of a page, or None where the page is no notebook or was not executed."""
    path = Path(app.srcdir) / f"{name}.ipynb"
    if not path.exists():
        return None
    source = nbformat.read(path, 4)
    cache = get_cache(app.config.nb_execution_cache_path)
    try:
        record = cache.match_cache_notebook(source)
    except KeyError:
        return None
    executed = cache.get_cache_bundle(record.pk).nb
    return Run(executed.cells, cost_of(executed, record.data["execution_seconds"]), budget_of(source))


def reading_minutes(document):
    """Minutes that a page takes to read: words, and a line of code or a formula counted as so many of them."""
    words = 0.0
    for node in document.findall():
        if isinstance(node, nodes.math_block):
            words += FORMULA
        elif isinstance(node, nodes.literal_block):
            words += 0 if _is_output(node) else CODE_LINE * len([line for line in node.astext().splitlines() if line])
        elif isinstance(node, nodes.Text) and not isinstance(node.parent, nodes.literal_block | nodes.math_block):
            text, n_characters = CHINESE.subn(" ", node.astext())
            words += len(text.split()) + n_characters / CHARACTERS
    return max(1, round(words / PACE))


def _is_output(node):
    while node is not None:
        if "cell_output" in node.get("classes", ()):
            return True
        node = node.parent
    return False


def tell_times(app, document, name):
    """Puts the two times below the title of a notebook."""
    run = run_of(app, name)
    title = next(document.findall(nodes.title), None)
    if run is None or title is None:
        return
    line = nodes.paragraph("", at_a_glance(reading_minutes(document), run.cost), classes=["at-a-glance"])
    title.parent.insert(title.parent.index(title) + 1, line)


def at_a_glance(minutes, cost):
    """The line below the title of a notebook."""
    text = f"{minutes} minute{'s' * (minutes > 1)} to read · {math.ceil(cost.seconds)} s to run, in this build"
    if not cost.busy:
        return text
    return f"{text} on a busy machine, {math.ceil(cost.processor_seconds)} s of them on a processor"


def shown_table(header, rows, *, numeric=(), addresses=None):
    """A table like those that :func:`scorebook.lab.table` shows; an entry is a text or a node, a row may have an id."""
    table = nodes.table("", classes=["scorebook-table"])
    group = nodes.tgroup("", *[nodes.colspec("", colwidth=1) for _ in header], cols=len(header))
    lines = []
    for entries, address in zip([header, *rows], [None, *(addresses or [None] * len(rows))], strict=True):
        line = nodes.row("", ids=[address] if address else [])
        for column, entry in enumerate(entries):
            inside = entry if isinstance(entry, nodes.Node) else nodes.Text(str(entry))
            cell = nodes.entry("", nodes.paragraph("", "", inside), classes=["num" if column in numeric else "txt"])
            line += cell
        lines.append(line)
    group += nodes.thead("", lines[0])
    group += nodes.tbody("", *lines[1:])
    table += group
    return nodes.container("", table, classes=["scorebook-table-box"])


def as_it_is(text):
    """A name, version or date, which has no other words in another language."""
    return nodes.inline("", str(text), classes=[shown.AS_IT_IS])


def _pages(app):
    """Names of the executed notebooks in the book's order, with their runs."""
    order = [app.config.root_doc]
    for name in order:
        order += [child for child in app.env.toctree_includes.get(name, []) if child not in order]
    runs = ((name, run_of(app, name)) for name in order)
    return [(name, run) for name, run in runs if run is not None]


def _link(app, here, name, text=None, place=""):
    address = app.builder.get_relative_uri(here, name) + place
    return nodes.reference("", text or app.env.titles[name].astext(), internal=True, refuri=address)


def _git(*arguments):
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace", check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def this_build(app, here):
    """Commit and date of the page, and the machine and versions on which the notebooks were executed."""
    executed = recorded(app.config.nb_execution_cache_path)
    rows = [("Commit", _commit()), ("Built", datetime.now(UTC).strftime("%-d %B %Y"))]
    rows += [(name.capitalize(), as_it_is(executed[name])) for name in ("device", "processor", "system")]
    rows += [(as_it_is("Python"), as_it_is(executed["python"]))]
    versions = {"scorebook": executed["scorebook"]}
    versions |= {name: executed["installed"][name] for name in SHOWN if name in executed["installed"]}
    versions |= {name: metadata.version(name) for name in MAKERS}
    rows += [(as_it_is(name), as_it_is(version)) for name, version in versions.items()]
    return [shown_table(("", "This build"), rows)]


def _commit():
    commit = _git("rev-parse", "--short=10", "HEAD")
    if not commit:
        return "not known, built outside a repository"
    changed = _git("status", "--porcelain", "--untracked-files=no")
    more = [nodes.Text(", with changes that are not committed")] if changed else []
    return nodes.inline("", "", as_it_is(commit), *more)


def running_times(app, here):
    """A row per notebook: its seconds on the clock and on a processor, its budget, its claims."""
    runs = _pages(app)
    rows = [
        (
            _link(app, here, name),
            f"{run.cost.seconds:.0f}",
            _seconds(run.cost.processor_seconds),
            run.budget,
            _link(app, here, here, _count(run), f"#claims-{name}"),
            ", ".join(run.cost.remarks(run.budget)),
        )
        for name, run in runs
    ]
    costs, claims = [run.cost for _, run in runs], sum(len(run.claims) for _, run in runs)
    known = [cost.processor_seconds for cost in costs if cost.processor_seconds is not None]
    seconds, own = sum(cost.seconds for cost in costs), sum(known) if len(known) == len(costs) else None
    rows.append(("All", f"{seconds:.0f}", _seconds(own), "", claims, ""))
    header = ("Page", "Seconds", "on a processor", "Budget", "Claims", "")
    return [shown_table(header, rows, numeric=(1, 2, 3, 4))]


def _seconds(value):
    return "–" if value is None else f"{value:.0f}"


def _count(run):
    return str(len(run.claims))


POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _number(value):
    if isinstance(value, str):
        return value
    digits, _, power = f"{value:.4g}".replace("-", "−").partition("e")
    return digits + (f" × 10{str(int(power.replace('−', '-'))).translate(POWERS)}" if power else "")


def _with_error(value, error):
    return plus_minus(value, error) if error and not isinstance(value, str) else _number(value)


def _text(row):
    return row["text"] + (f" ({row['note']})" if row["note"] else "")


def _measured(row):
    return _with_error(row["measured"], row["error"])


def _expected(row):
    if row["expected"] is not None:
        return f"{_number(row['expected'])} within {_number(row['resolution'])}"
    bounds = [("≥", row["at_least"]), ("≤", row["at_most"])]
    return ", ".join(f"{sign} {_number(bound)}" for sign, bound in bounds if bound is not None)


def _rival(row):
    if row.get("rival") is None:
        return "–"
    number = str(row["rival"]).replace("inf", "∞").replace("-", "−") if isinstance(row["rival"], str) else None
    number = number or _with_error(row["rival"], row["rival_error"])
    return f"{number}: {row['rival_name']}"


def measured_claims(app, here):
    """The closing tables of all pages, one after the other."""
    found = []
    for name, run in _pages(app):
        if not run.claims:
            continue
        rows = [(_text(row), _expected(row), _measured(row), _rival(row)) for row in run.claims]
        section = nodes.section("", ids=[f"claims-{name}"])
        section += nodes.title("", "", _link(app, here, name))
        header = ("Claim", "Expected", "Measured ± standard error", "A wrong answer gives")
        addresses = [f"claim-{name}-{i + 1}" for i in range(len(rows))]
        section += shown_table(header, rows, numeric=(1, 2), addresses=addresses)
        found.append(section)
    return found


STATUS, SHOWN_AT_MOST = "status", 4


def quotes(document):
    """The texts in which a page names what was measured: all that follow that word in its paragraph."""
    words = [word for word in document.findall(nodes.emphasis) if word.astext() in MEASURED]
    return [
        [text for node in word.parent[word.parent.index(word) + 1 :] for text in node.findall(nodes.Text)]
        for word in words
    ]


def quote_claims(app, document, here):
    """Puts the numbers behind the claims that a page names, and leads from each name to its row.

    A Chinese page names them in English too, as the rows have them: here each becomes its row as Chinese readers see it
    in the closing table, if the catalogues have that; the number is the same.
    """
    if not (measured := quotes(document)):
        return
    rows = [(name, i + 1, row) for name, run in _pages(app) for i, row in enumerate(run.claims)]
    chinese = editions.chinese(app)
    words = editions.all_words(here) if chinese else {}
    opening, comma, closing = ("（", "、", "）") if chinese else (" (", ", ", ")")
    for texts in measured:
        for text in texts:
            pieces, end = [], 0
            for quote in QUOTED.finditer(plain := text.astext()):
                named = " ".join(quote[1].split()).replace("’", "'")
                found = [(name, i, row) for name, i, row in rows if named in row["text"].replace("’", "'")]
                if not found:
                    continue
                name, i, row = found[0]
                pieces += [nodes.Text(plain[end : quote.start()])]
                said = shown.said(_text(row), words) or shown.said(row["text"], words)
                pieces += [_link(app, here, STATUS, f"“{said}”" if said else quote[0], f"#claim-{name}-{i}")]
                numbers = [_measured(row) for _, _, row in found[:SHOWN_AT_MOST]]
                numbers += ["…"] * (len(found) > SHOWN_AT_MOST)
                pieces += [nodes.Text(f"{opening}{comma.join(numbers)}{closing}")]
                end = quote.end()
            if pieces:
                text.parent.replace(text, [*pieces, nodes.Text(plain[end:])])


def faults_caught(app, here):
    """A row per module: which part of the small faults put into it the unit tests notice."""
    return [faults_table(mutants.read())]


def faults_table(records):
    """The table of the records, module by module; one that was not tried says so."""
    rows = []
    for path, record in records.items():
        name = as_it_is(path.removeprefix("scorebook/").removesuffix(".py"))  # a phone has room for little more
        if record is None:
            rows.append((name, "not run", "", "", "", ""))
            continue
        same = sum(each["reason"] is not None for each in record["survivors"])
        left = len(record["survivors"]) - same
        when = as_it_is(f"{record['commit']}, {record['date']}")
        rows.append((name, mutants.percent(record), mutants.told(record), left, same, when))
    header = ("Module", "Caught ± standard error", "Faults tried", "Survived", "Equivalent", "Commit, date")
    return shown_table(header, rows, numeric=(1, 2, 3, 4))


class Told(nodes.General, nodes.Element):
    """The place of a table that can be made only after every notebook has run."""


class Tell(SphinxDirective):
    """One of the tables of the status page."""

    def run(self):
        """Marks the place."""
        return [Told("", what=self.name)]


TABLES = {
    "this-build": this_build,
    "running-times": running_times,
    "faults-caught": faults_caught,
    "measured-claims": measured_claims,
}


def fill(app, document, name):
    """Puts the tables in their places."""
    for place in list(document.findall(Told)):
        place.replace_self(TABLES[place["what"]](app, name))
    quote_claims(app, document, name)
    tell_times(app, document, name)


def read_again(app, env, added, changed, removed):
    """Pages with such a table, or with numbers from other pages, are made anew in every build."""
    return [name for name in env.found_docs if name in getattr(env, "scorebook_telling", set())]


def remember(app, document):
    """Notes which pages hold such a table or such numbers."""
    if next(document.findall(Told), None) is not None or quotes(document):
        telling = getattr(app.env, "scorebook_telling", set())
        app.env.scorebook_telling = telling | {app.env.docname}


def setup(app):
    """Registers the extension."""
    app.add_node(Told)
    for name in TABLES:
        app.add_directive(name, Tell)
    app.connect("doctree-read", remember)
    app.connect("env-get-outdated", read_again)
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
