"""What every notebook keeps to, so that it reads alike in the book, in Jupyter and in Colab."""

import ast
import re
from pathlib import Path

import claimed
import nbformat
import pytest
import yaml
from sources import files

# Pages whose closing tables have rows that name no wrong answer yet. The list is to end empty.
WITHOUT_RIVALS: set[str] = set()

# Sections that run code and open with no guess, and why.
WITHOUT_A_GUESS = {
    "tour.ipynb": {"The data": "shows what there is to learn from"},
    "mnist.ipynb": {"Five thousand digits, and a network": "shows what there is to learn from, and by what"},
    "controllable_generation.ipynb": {"Twelve grey digits": "its picture stands at the head of the page"},
    "mistakes.ipynb": {"Which symptom, which mistake": "the closing table"},
}
# On every page: nothing is measured there, or nothing for the first time.
NEVER_GUESSED = r"What you will be able to do|Exercises|Make it yours|What this (page|chapter) claim.*|Where .*"
GUESS = "> **Before you read on.**"

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = [path.name for path in files(ROOT / "book", "*.ipynb")]
SETUP = (ROOT / "tools" / "setup_cell.ipy").read_text(encoding="utf-8").rstrip("\n")

# What MyST would render and Colab would show as raw text.
MYST = {
    "a role": r"\{[\w:+.-]+\}`",
    "a directive": r"^\s*(?:`{3,}|~{3,})\s*\{",
    "a colon fence": r"^\s*:{3,}",
    "a target": r"^\s*\([\w-]+\)=\s*$",
    "a comment": r"^%",
    "a block break": r"^\+\+\+",
    "a substitution": r"\{\{.*?\}\}",
    "a link without text": r"\[\]\(",
    "a footnote": r"\[\^[\w-]+\]",
}


def myst_in(text):
    """What a text uses of MyST beyond CommonMark, formulas and code set aside."""
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+?\$", "", text, flags=re.S)
    found = {"a directive"} if re.search(MYST["a directive"], text, re.M) else set()
    fences, spans = r"^(`{3,}|~{3,}).*?^\1", r"(?<![`}])(`+)(?!`).+?(?<!`)\1(?!`)"
    for code in (fences, spans):
        text = re.sub(code, "", text, flags=re.S | re.M)
    return found | {name for name, pattern in MYST.items() if re.search(pattern, text, re.M)}


@pytest.fixture(scope="module", params=NOTEBOOKS)
def notebook(request):
    """One notebook of the book after the other."""
    # nbformat.read would repair what is asked about here.
    return nbformat.v4.reads((ROOT / "book" / request.param).read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_the_file_is_valid_and_its_cells_have_names_of_their_own(notebook):
    names = [cell.id for cell in notebook.cells]
    assert len(set(names)) == len(names)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"


def test_it_is_kept_without_outputs(notebook):
    assert [cell.id for cell in code_cells(notebook) if cell.outputs or cell.execution_count is not None] == []
    assert "widgets" not in notebook.metadata


def test_it_begins_with_a_title_and_the_setup_cell_of_all(notebook):
    assert notebook.cells[0].cell_type == "markdown"
    assert re.match(r"# \S", notebook.cells[0].source)
    assert (
        sum(len(re.findall(r"^# ", cell.source, re.M)) for cell in notebook.cells if cell.cell_type == "markdown") == 1
    )
    setup = code_cells(notebook)[0]
    assert setup.source == SETUP
    assert setup.metadata.tags == ["hide-input"]
    assert setup.metadata.cellView == "form"


def test_its_text_reads_alike_in_the_book_and_in_colab(notebook):
    texts = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    assert {cell.id: found for cell in texts if (found := myst_in(cell.source))} == {}


def test_a_solution_is_folded_in_the_book_and_in_colab(notebook):
    for cell in code_cells(notebook):
        assert not re.search(r"#@title|#  +@title", cell.source), f"{cell.id}: write '# @title'"
        if cell.source.startswith("# @title Solution"):
            assert "hide-cell" in cell.metadata.get("tags", []), cell.id
            assert cell.metadata.get("cellView") == "form", cell.id


def test_each_of_its_figures_has_a_caption_and_one_stands_at_its_head(notebook):
    for cell in code_cells(notebook):
        told = cell.metadata.get("mystnb", {})
        figure = "image" in told or "lab.explorer(" in cell.source or "lab.live(" in cell.source
        caption = told.get("figure", {}).get("caption", "")
        assert bool(caption) == figure, cell.id
        assert caption == "" or re.fullmatch(r"[^\n]{10,400}[.?]", caption), cell.id
    heads = [cell.metadata["scorebook"]["head"] for cell in code_cells(notebook) if "scorebook" in cell.metadata]
    assert len(heads) == 1
    assert heads[0].endswith(".")


def sections(notebook):
    """Each heading below the title, and what follows it: text, and the code that runs there."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found[-1][1].append(cell)
            continue
        for part in re.split(r"(?m)^(?=#{1,6} )", cell.source):
            if title := re.match(r"#{1,6} (.+)", part):
                found.append((title[1], []))
            if part and found:
                found[-1][1].append(part)
    return found[1:]


def has_something_to_show(cell):
    """Whether a code cell draws, prints, or ends with a value."""
    drawn = "image" in cell.metadata.get("mystnb", {})
    return drawn or "print(" in cell.source or isinstance(ast.parse(cell.source).body[-1], ast.Expr)


def opens_with_a_guess(parts):
    """Whether a guess, with its answer folded, stands before anything that the section's code has to show."""
    for part in parts:
        if isinstance(part, str) and GUESS in part:
            return bool(re.search(r"^> <details><summary>Answer</summary>$", part, re.M))
        if not isinstance(part, str) and has_something_to_show(part):
            return False
    return False


def test_each_section_that_measures_opens_with_a_guess_whose_answer_is_folded(request, notebook):
    name = request.node.callspec.params["notebook"]
    without = [
        title
        for title, parts in sections(notebook)
        if any(not isinstance(part, str) for part in parts)
        and not re.fullmatch(NEVER_GUESSED, title)
        and not opens_with_a_guess(parts)
    ]
    assert without == list(WITHOUT_A_GUESS.get(name, {}))


def test_its_claims_are_asserted(notebook):
    assert any("lab.claims(" in cell.source for cell in code_cells(notebook))


def test_its_time_budget_is_one_that_the_book_grants(notebook):
    budget = notebook.metadata.get("scorebook", {}).get("budget_s", 60)
    assert budget in (60, 90)
    assert f"*Budget: {budget} seconds on one CPU core" in notebook.cells[0].source


def pages(toc):
    """File names of all entries of a table of contents."""
    if isinstance(toc, dict):
        return [toc[key] for key in ("root", "file") if key in toc] + pages(list(toc.values()))
    return [page for part in toc for page in pages(part)] if isinstance(toc, list) else []


def test_the_table_of_contents_lists_every_notebook_and_only_pages_that_exist():
    listed = pages(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    files = [path for page in listed for path in (ROOT / "book").glob(f"{page}.*") if path.suffix in (".md", ".ipynb")]
    assert len(files) == len(listed) == len(set(listed))
    assert {path.name for path in files} >= set(NOTEBOOKS)


@pytest.mark.parametrize(
    "text",
    [
        "see {ref}`here`",
        "```{note}\nx\n```",
        ":::{tip}\nx\n:::",
        "(label)=\n# Title",
        "[](langevin.ipynb)",
        "% hidden",
        "+++",
        "{{ x }}",
        "a footnote[^1]",
    ],
)
def test_what_only_myst_renders_is_seen(text):
    assert myst_in(text)


@pytest.mark.parametrize(
    "text",
    [
        r"$\mathrm{E}$ and $\{{x}\}$",
        "$$\n\\frac{{a}}{b}\n$$",
        "`{x}` and `a[^1]`",
        "```python\n{{1}}\n```",
        "> quote\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        "<details><summary>Hint</summary>\n\ntext\n\n</details>",
        "[text](langevin.ipynb) (aside)",
    ],
)
def test_what_both_render_is_left_alone(text):
    assert not myst_in(text)


def rows_without_rival(code):
    """The first argument of each ``lab.Claim`` in a text of Python that names no rival."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    claims = [call for call in calls if getattr(call.func, "attr", getattr(call.func, "id", None)) == "Claim"]
    return [
        ast.unparse(claim.args[0])
        for claim in claims
        if not {"rival", "rival_name"} <= {keyword.arg for keyword in claim.keywords}
    ]


def test_a_row_without_a_rival_is_found():
    code = "lab.claims([lab.Claim('a', 1, at_most=2, rival=3, rival_name='b'), *(Claim(f'c{i}', i) for i in r)])"
    assert rows_without_rival(code) == ["f'c{i}'"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_row_of_the_closing_table_names_the_wrong_answer_that_it_refuses(name):
    cells = nbformat.read(ROOT / "book" / name, 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code" and re.search(r"\bClaim\(", cell.source))
    assert bool(rows_without_rival(code)) == (name in WITHOUT_RIVALS), rows_without_rival(code)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_closing_table_is_grouped_by_section_and_opens_with_a_few_headlines(name):
    cells = nbformat.read(ROOT / "book" / name, 4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    titles = {title.strip(): str(i) for i, title in enumerate(re.findall(r"^#+ (.+)$", text, re.M))}
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code" and re.search(r"\bClaim\(", cell.source))
    closing = ast.parse(code)
    calls = [node for node in ast.walk(closing) if isinstance(node, ast.Call)]
    headlines = [keyword for call in calls for keyword in call.keywords if keyword.arg == "headline"]
    groups = [
        key.value
        for node in ast.walk(closing)
        if isinstance(node, ast.Dict) and any("Claim(" in ast.unparse(value) for value in node.values)
        for key in node.keys
    ]
    assert 4 <= len(headlines) <= 6
    assert len(groups) == len(set(groups)) >= 1
    assert [group for group in groups if claimed.section_of(titles, group) is None] == []
