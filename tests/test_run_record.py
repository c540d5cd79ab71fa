"""The status page says what the rows of the closing tables say, each sign and number as it stands there."""

from types import SimpleNamespace

import catalogues
import nbformat
import pytest
import run_record
from docutils import nodes
from docutils.core import publish_doctree
from myst_parser.parsers.docutils_ import Parser
from stopwatch import Cost

from scorebook.lab.tables import CLAIMS_MIME

ROW = {
    "text": "a law",
    "measured": 0.5012,
    "error": 0.0041,
    "expected": None,
    "at_most": None,
    "at_least": None,
    "resolution": None,
    "note": None,
    "rival": None,
    "rival_error": None,
    "rival_name": None,
    "holds": True,
}


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({"expected": 0.5, "resolution": 0.02}, "0.5 within 0.02"),
        ({"expected": -12345.6, "resolution": 1e-6}, "−1.235 × 10⁴ within 1 × 10⁻⁶"),
        ({"at_most": 1.3}, "≤ 1.3"),
        ({"at_least": 0.9}, "≥ 0.9"),
        ({"at_least": -0.1, "at_most": 0.2}, "≥ −0.1, ≤ 0.2"),
        ({"expected": "inf", "resolution": 1.0}, "inf within 1"),
    ],
)
def test_what_was_expected_has_the_sign_of_its_bound(row, shown):
    assert run_record._expected(ROW | row) == shown


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ({}, "–"),
        ({"rival": 0.7, "rival_error": 0.012, "rival_name": "the median"}, "0.700 ± 0.012: the median"),
        ({"rival": -2.0, "rival_error": 0.0, "rival_name": "no half"}, "−2: no half"),
        ({"rival": "inf", "rival_error": 0.1, "rival_name": "no limit"}, "∞: no limit"),
    ],
)
def test_a_wrong_answer_is_shown_with_its_error_and_its_name(row, shown):
    assert run_record._rival(ROW | row) == shown


# A small book, told by hand


def executed(*claims, budget=60, cost=None):
    """A page whose cells have left these rows, in one output each, among outputs that hold none."""
    code, text = nbformat.v4.new_code_cell(), nbformat.v4.new_markdown_cell("x")
    metadata = [{}, *({CLAIMS_MIME: {"claims": [ROW | row]}} for row in claims)]
    code.outputs = [nbformat.v4.new_output("display_data", metadata=each) for each in metadata]
    code.outputs.append(nbformat.v4.new_output("stream", text="y"))
    return run_record.Run([text, code], cost or Cost(50.0, 49.5), budget)


BOOK = {
    "first": executed({"expected": 0.5, "resolution": 0.02, "note": "at 300 points"}, {"at_most": 1.3, "error": 0.0}),
    "second": executed(budget=90, cost=Cost(200.4, 91.6)),
    "third": executed({"at_least": 0.9, "measured": -2.0, "rival": 0.7, "rival_error": 0.012, "rival_name": "median"}),
}


@pytest.fixture
def app(monkeypatch):
    """A stand-in for Sphinx with that book."""
    monkeypatch.setattr(run_record, "_pages", lambda app: list(app.book.items()))
    titles = {name: nodes.title("", name.capitalize()) for name in BOOK}
    address = SimpleNamespace(get_relative_uri=lambda here, name: f"{here}->{name}")
    config = SimpleNamespace(language="en")
    return SimpleNamespace(book=dict(BOOK), env=SimpleNamespace(titles=titles), builder=address, config=config)


def told(node):
    """The texts of a table, and in which columns numbers stand."""
    rows = [[entry.astext() for entry in row.findall(nodes.entry)] for row in node.findall(nodes.row)]
    first = next(node.findall(nodes.row))
    return rows, [k for k, entry in enumerate(first.findall(nodes.entry)) if entry["classes"] == ["num"]]


def test_the_times_are_those_of_the_runs_and_their_sums(app):
    (table,) = run_record.running_times(app, "status")
    rows, numeric = told(table)
    assert rows == [
        ["Page", "Seconds", "on a processor", "Budget", "Claims", ""],
        ["First", "50", "50", "60", "2", ""],
        ["Second", "200", "92", "90", "0", "over its budget, busy machine"],
        ["Third", "50", "50", "60", "1", ""],
        ["All", "300", "191", "", "3", ""],
    ]
    assert numeric == [1, 2, 3, 4]
    addresses = [link["refuri"] for link in table.findall(nodes.reference)]
    assert addresses[:2] == ["status->first", "status->status#claims-first"]


def test_a_sum_of_which_a_part_is_not_known_is_not_known(app):
    app.book["second"] = executed(cost=Cost(200.4))
    (table,) = run_record.running_times(app, "status")
    rows, _ = told(table)
    assert rows[2][:3] == ["Second", "200", "–"]
    assert rows[-1] == ["All", "300", "–", "", "3", ""]


def test_the_claims_stand_page_by_page_with_what_was_measured(app):
    first, third = run_record.measured_claims(app, "status")  # the second page has none
    assert [first["ids"], third["ids"]] == [["claims-first"], ["claims-third"]]
    assert next(first.findall(nodes.title)).astext() == "First"
    rows, numeric = told(first)
    assert rows == [
        ["Claim", "Expected", "Measured ± standard error", "A wrong answer gives"],
        ["a law (at 300 points)", "0.5 within 0.02", "0.501 ± 0.004", "–"],
        ["a law", "≤ 1.3", "0.5012", "–"],
    ]
    assert numeric == [1, 2]
    assert told(third)[0][1] == ["a law", "≥ 0.9", "−2.000 ± 0.004", "0.700 ± 0.012: median"]


def test_a_page_that_names_a_claim_gets_its_number_and_leads_to_its_row(app):
    _, third = run_record.measured_claims(app, "status")
    assert [row["ids"] for row in third.findall(nodes.row)] == [[], ["claim-third-1"]]
    text = "“a law”, “a\nlaw (no such)”, and what follows"
    before = "Here is “a law”.\n"
    said = nodes.paragraph("", before, nodes.emphasis("", "Measured:"), nodes.Text(f" {text}"))
    other = nodes.paragraph("", "Measured: “a law”")
    document = nodes.container("", said, other)
    app.env.titles["status"] = nodes.title("", "Status")
    assert [[str(t) for t in texts] for texts in run_record.quotes(document)] == [[f" {text}"]]
    run_record.quote_claims(app, document, "notes")
    assert other.astext() == "Measured: “a law”"
    numbers = "(0.501 ± 0.004, 0.5012, −2.000 ± 0.004)"
    assert said.astext() == f"{before}Measured: “a law” {numbers}, “a\nlaw (no such)”, and what follows"
    assert [link["refuri"] for link in said.findall(nodes.reference)] == ["notes->status#claim-first-1"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("“a law”", "“300个点的分布”（0.501 ± 0.004、0.5012、−2.000 ± 0.004）"),
        ("“law”等行", "“300个点的分布”（0.501 ± 0.004、0.5012、−2.000 ± 0.004）等行"),
        ("“no such”", "“no such”"),
        ("“one more”", "“one more”（0.5012）"),
    ],
)
def test_a_chinese_page_names_the_row_in_chinese_with_the_same_number(app, monkeypatch, text, shown):
    app.config.language = "zh_CN"
    app.book["fourth"] = executed({"text": "one more", "error": 0.0})
    monkeypatch.setattr(run_record.editions, "all_words", lambda here: {"a law (at {1} points)": "{1}个点的分布"})
    said = nodes.paragraph("", "书中“a law”。", nodes.emphasis("", "实测"), nodes.Text(f"：{text}"))
    run_record.quote_claims(app, nodes.container("", said), "notes")
    assert said.astext().replace("300 个", "300个") == f"书中“a law”。实测：{shown}"


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_each_claim_that_the_page_on_the_notes_names_gets_its_number(root, app, monkeypatch, language):
    app.config.language = language
    monkeypatch.setattr(run_record.editions, "all_words", lambda here: {})
    text = (root / "book" / "notes.md").read_text(encoding="utf-8")
    names = [" ".join(name.split()) for name in catalogues.QUOTED.findall(text)]
    if language == "zh_CN":
        text = catalogues.translated(text, catalogues.say("notes", root))
    options = {"myst_enable_extensions": ["dollarmath"], "report_level": 5}
    document = publish_doctree(text, parser=Parser(), settings_overrides=options)
    app.book = {"first": executed(*({"text": name} for name in names))}
    run_record.quote_claims(app, document, "notes")
    links = [link for link in document.findall(nodes.reference) if "#claim-" in link.get("refuri", "")]
    assert len(names) > 40
    assert sorted(" ".join(link.astext()[1:-1].split()) for link in links) == sorted(names)


WORDS, FORMULA, LINES = nodes.paragraph("", "word " * 40_000), nodes.math_block("", "a b"), "x = 1\n\ny = x + 2\n"
OUTPUT = nodes.container("", nodes.literal_block("", "1 2 3\n" * 500), classes=["cell_output"])


@pytest.mark.parametrize(
    ("parts", "minutes"),
    [
        ([WORDS], 200),
        ([FORMULA] * 200, 25),
        ([nodes.literal_block("", LINES)] * 100, 4),  # two hundred lines, for empty ones are none
        ([nodes.paragraph("", "word")], 1),
        ([OUTPUT], 1),
        ([WORDS, OUTPUT, *[FORMULA] * 200], 225),
    ],
)
def test_a_page_takes_as_long_as_its_words_lines_and_formulas(parts, minutes):
    page = nodes.container("", *(part.deepcopy() for part in parts))
    assert run_record.reading_minutes(page) == minutes


@pytest.mark.parametrize(
    ("metadata", "seconds"), [({}, 60), ({"scorebook": {}}, 60), ({"scorebook": {"budget_s": 90}}, 90)]
)
def test_a_page_has_a_minute_unless_it_says_otherwise(metadata, seconds):
    assert run_record.budget_of(nbformat.v4.new_notebook(metadata=metadata)) == seconds


def test_the_pages_stand_in_the_order_of_the_book(monkeypatch):
    monkeypatch.setattr(run_record, "run_of", lambda app, name: None if name == "intro" else name.upper())
    includes = {"intro": ["b", "part"], "part": ["a", "b"], "a": ["c"]}
    app = SimpleNamespace(config=SimpleNamespace(root_doc="intro"), env=SimpleNamespace(toctree_includes=includes))
    assert run_record._pages(app) == [("b", "B"), ("part", "PART"), ("a", "A"), ("c", "C")]


def test_the_times_stand_below_the_title_of_a_page_that_was_executed(monkeypatch):
    page = nodes.document(None, None)
    page += nodes.section("", nodes.title("", "Title"), nodes.paragraph("", "word"))
    monkeypatch.setattr(run_record, "run_of", lambda app, name: BOOK.get(name))
    run_record.tell_times(None, page, "none")
    assert [child.astext() for child in page[0]] == ["Title", "word"]
    run_record.tell_times(None, page, "first")
    assert [child.astext() for child in page[0]] == ["Title", "1 minute to read · 50 s to run, in this build", "word"]
    assert page[0][1]["classes"] == ["at-a-glance"]


@pytest.mark.parametrize(
    ("minutes", "cost", "line"),
    [
        (1, Cost(49.2), "1 minute to read · 50 s to run, in this build"),
        (2, Cost(60.0, 49.5), "2 minutes to read · 60 s to run, in this build"),
        (
            2,
            Cost(90.0, 49.5),
            "2 minutes to read · 90 s to run, in this build on a busy machine, 50 s of them on a processor",
        ),
    ],
)
def test_a_page_says_how_long_it_takes(minutes, cost, line):
    assert run_record.at_a_glance(minutes, cost) == line


def test_a_table_is_made_as_its_columns_say():
    box = run_record.shown_table(("a", "b"), [("x", 1), (nodes.strong("", "y"), 2.5)], numeric=(1,))
    (table,), (group,) = box.findall(nodes.table), box.findall(nodes.tgroup)
    assert (box["classes"], table["classes"]) == (["scorebook-table-box"], ["scorebook-table"])
    assert (group["cols"], len(list(box.findall(nodes.colspec)))) == (2, 2)
    assert [len(list(part.findall(nodes.row))) for part in (*box.findall(nodes.thead), *box.findall(nodes.tbody))] == [
        1,
        2,
    ]
    assert told(box)[0] == [["a", "b"], ["x", "1"], ["y", "2.5"]]
    assert [entry["classes"] for entry in box.findall(nodes.entry)] == [["txt"], ["num"]] * 3
    assert next(box.findall(nodes.strong)).astext() == "y"


def test_the_build_says_its_commit_and_whether_that_is_all(monkeypatch):
    known = {
        "device": "d",
        "processor": "p",
        "system": "s",
        "python": "3",
        "scorebook": "0.1",
        "installed": {"torch": "2"},
    }
    monkeypatch.setattr(run_record, "recorded", lambda path: known)
    app = SimpleNamespace(config=SimpleNamespace(nb_execution_cache_path=""))

    def rows(commit, changes):
        monkeypatch.setattr(run_record, "_git", lambda *words: commit if words[0] == "rev-parse" else changes)
        return dict(told(run_record.this_build(app, "status")[0])[0][1:])

    assert rows("0123456789", "")["Commit"] == "0123456789"
    assert rows("0123456789", "M a.py")["Commit"] == "0123456789, with changes that are not committed"
    assert rows(None, None)["Commit"] == "not known, built outside a repository"
    found = rows("0", "")
    assert [found[name] for name in ("Device", "Processor", "System", "Python", "scorebook", "torch")] == [
        *"dps3",
        "0.1",
        "2",
    ]
    assert set(run_record.MAKERS) <= set(found)
    assert "numpy" not in found


def test_names_versions_and_dates_are_no_messages(monkeypatch):
    known = dict.fromkeys(("device", "processor", "system", "python", "scorebook"), "some words")
    monkeypatch.setattr(run_record, "recorded", lambda path: known | {"installed": {"torch": "2"}})
    monkeypatch.setattr(run_record, "_git", lambda *words: "a name")
    app = SimpleNamespace(config=SimpleNamespace(nb_execution_cache_path=""))
    kept = [run_record.this_build(app, "status")[0], run_record.faults_table({"scorebook/lab/tables.py": None})]
    texts = [
        node.astext()
        for table in kept
        for node in table.findall(nodes.Text)
        if not any("notranslate" in parent.get("classes", ()) for parent in above(node))
    ]
    assert not {"some words", "a name", "torch", "scikit-learn", "Sphinx", "lab/tables"} & set(texts)
    assert {"Commit", ", with changes that are not committed", "Device", "Module", "not run"} <= set(texts)


def above(node):
    while (node := node.parent) is not None:
        yield node


def test_a_page_was_executed_where_the_cache_has_its_outputs(tmp_path, monkeypatch):
    notebook = nbformat.v4.new_notebook(
        metadata={"scorebook": {"budget_s": 90}}, cells=[nbformat.v4.new_code_cell("1")]
    )
    nbformat.write(notebook, tmp_path / "there.ipynb")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "new.ipynb")
    done = nbformat.v4.new_notebook(cells=[*notebook.cells, nbformat.v4.new_markdown_cell("2")])

    class Cache:
        def match_cache_notebook(self, source):
            if not source.cells:
                raise KeyError("no such notebook")
            return SimpleNamespace(pk=7, data={"execution_seconds": 12.5})

        def get_cache_bundle(self, key):
            return {7: SimpleNamespace(nb=done)}[key]

    monkeypatch.setattr(run_record, "get_cache", {"cached": Cache()}.get)
    app = SimpleNamespace(srcdir=tmp_path, config=SimpleNamespace(nb_execution_cache_path="cached"))
    assert run_record.run_of(app, "there") == run_record.Run(done.cells, Cost(12.5), 90)
    assert run_record.run_of(app, "new") is None
    assert run_record.run_of(app, "absent") is None


def test_a_page_with_such_a_table_is_made_anew_in_every_build_and_no_other(monkeypatch):
    told_page, other = nodes.document(None, None), nodes.document(None, None)
    told_page += run_record.Told("", what="this-build")
    env = SimpleNamespace(docname="status", found_docs={"status", "intro", "gone"} - {"gone"})
    app = SimpleNamespace(env=env)
    assert run_record.read_again(app, env, (), (), ()) == []
    run_record.remember(app, told_page)
    env.docname = "intro"
    run_record.remember(app, other)
    assert run_record.read_again(app, env, (), (), ()) == ["status"]
    monkeypatch.setitem(run_record.TABLES, "this-build", lambda app, name: [nodes.paragraph("", f"of {name}")])
    monkeypatch.setattr(run_record, "run_of", lambda app, name: None)
    run_record.fill(app, told_page, "status")
    assert told_page.astext() == "of status"


def test_the_extension_brings_its_tables_and_is_told_of_every_page():
    calls = []
    app = SimpleNamespace(
        add_node=lambda node: calls.append(node),
        add_directive=lambda name, directive: calls.append((name, directive)),
        connect=lambda event, hook: calls.append((event, hook)),
    )
    assert run_record.setup(app)["parallel_read_safe"] is False
    tables = [(name, run_record.Tell) for name in run_record.TABLES]
    hooks = {
        "doctree-read": run_record.remember,
        "env-get-outdated": run_record.read_again,
        "doctree-resolved": run_record.fill,
    }
    assert calls == [run_record.Told, *tables, *hooks.items()]


def test_the_faults_that_were_caught_stand_in_columns_of_numbers():
    survivors = [{"reason": None}, {"reason": None}, {"reason": "the same"}]
    record = {"commit": "c", "date": "d", "mutants": 9, "tried": 9, "survivors": survivors}
    rows, numeric = told(run_record.faults_table({"scorebook/lab/a.py": record, "tools/b.py": None}))
    assert rows[1:] == [["lab/a", "75 %", "all 9", "2", "1", "c, d"], ["tools/b", "not run", "", "", "", ""]]
    assert numeric == [1, 2, 3, 4]
