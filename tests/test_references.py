"""The bibliography is complete, and what the pages of reference cite or repeat is there."""

import json
import re
import unicodedata

import pytest
from pybtex.backends.plaintext import Backend
from pybtex.database import parse_file
from pybtex.plugin import find_plugin
from sources import files

BACKEND = Backend()
DOI = re.compile(r"doi\.org/(10\.\d{4,}/[^\s\"'<>]*[\w)])")
ARXIV = re.compile(r"arxiv\.org/(?:abs|pdf)/(\d{4}\.\d{4,5})")


@pytest.fixture(scope="module")
def entries(root):
    return parse_file(str(root / "book" / "references.bib")).entries


def rendered(entry):
    (formatted,) = find_plugin("pybtex.style.formatting", "plain")().format_entries([entry])
    return formatted.text.render(BACKEND)


def identifiers(entry):
    """What a link to the work may hold."""
    fields = entry.fields
    text = " ".join(fields.get(name, "") for name in ("url", "doi", "eprint"))
    own = {fields.get("doi", "").lower(), fields.get("eprint", "")} | set(ARXIV.findall(text))
    return own - {""}


def on_paper(entry):
    """Whether the work is older than addresses and can be found on a shelf."""
    shelf = {"techreport": {"institution", "number"}, "article": {"journal", "volume", "pages"}}
    return int(entry.fields["year"]) < 1995 and entry.type in shelf and shelf[entry.type] <= set(entry.fields)


def text_of(page):
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_every_entry_says_who_what_when_and_where(entries):
    lacking = {
        key: missing
        for key, entry in entries.items()
        if (
            missing := [name for name in ("title", "year") if not entry.fields.get(name)]
            + ["author"] * ("author" not in entry.persons)
            + ["doi, eprint or url"] * (not ({"doi", "eprint", "url"} & set(entry.fields) or on_paper(entry)))
        )
    }
    assert lacking == {}


def test_every_entry_renders_with_its_authors_its_year_and_nothing_raw(entries):
    assert len(entries) > 30
    for key, entry in entries.items():
        text = rendered(entry)
        for person in entry.persons["author"]:
            assert " ".join(person.last_names).strip("{}") in text, key
        assert entry.fields["year"] in text, key
        assert not re.search(r"[{}$\\]", text), f"{key}: {text}"


def test_no_work_is_listed_twice(entries):
    seen = [name for entry in entries.values() for name in identifiers(entry)]
    assert sorted({name for name in seen if seen.count(name) > 1}) == []
    titles = [re.sub(r"\W+", " ", entry.fields["title"]).lower() for entry in entries.values()]
    assert len(set(titles)) == len(titles)


def test_an_arxiv_number_and_a_doi_are_fields_of_their_own(entries):
    hidden = [key for key, entry in entries.items() if re.search(r"arxiv\.org|doi\.org", entry.fields.get("url", ""))]
    assert hidden == []


def test_every_work_that_a_page_links_to_is_in_the_bibliography(root, entries):
    known = set().union(*map(identifiers, entries.values()))
    absent = {}
    for page in [*files(root / "book", "*.md"), *files(root / "book", "*.ipynb")]:
        text = text_of(page)
        linked = {doi.lower().rstrip(".,;") for doi in DOI.findall(text)} | set(ARXIV.findall(text))
        # The parenthesis that ends a link in Markdown belongs to the identifier only if it was opened in it.
        linked = {one if one.count("(") == one.count(")") else one.rstrip(")") for one in linked}
        if linked - known:
            absent[page.name] = sorted(linked - known)
    assert absent == {}


def test_every_work_that_a_docstring_names_is_in_the_bibliography(root, entries):
    known = {
        (name, entry.fields["year"])
        for entry in entries.values()
        for person in entry.persons["author"]
        for name in [" ".join(person.last_names).strip("{}").rsplit("-")[-1].rsplit()[-1]]
    }
    named = {
        match
        for module in files(root / "scorebook", "*.py")
        for match in re.findall(r"(\w+)(?: et al\.)?,? \(((?:19|20)\d\d)[a-z]?\)", module.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert sorted(named - known) == []


def test_every_claim_that_the_notes_page_quotes_is_made_by_a_chapter(root):
    code = "\n".join(
        "".join(cell["source"])
        for page in files(root / "book", "*.ipynb")
        for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code" and "Claim(" in "".join(cell["source"])
    )
    quoted = re.findall(r"“(.+?)”", re.sub(r"\s+", " ", text_of(root / "book" / "notes.md")))
    assert len(quoted) > 30
    assert [claim for claim in quoted if claim not in code] == []


def test_each_correction_of_the_notes_stands_at_its_place_and_in_the_list(root):
    text = text_of(root / "book" / "notes.md")
    numbers = [str(n) for n in range(1, 24)]
    assert re.findall(r"^\(correction-(\d+)\)=$", text, re.M) == numbers
    assert re.findall(r"^(\d+)\. .*\]\(#correction-\1\)", text, re.M) == numbers


def test_the_glossary_says_the_same_in_both_directions(root):
    text = text_of(root / "book" / "glossary.md")
    forth = re.findall(r"^(\S.*)\n  <span lang=\"zh-Hans\">(.+)</span>\\$", text, re.M)
    back = re.findall(r"^\| <span lang=\"zh-Hans\">(.+)</span> \| \{term\}`(.+)` \|$", text, re.M)
    assert len(forth) > 70
    assert sorted(forth) == sorted((english, chinese) for chinese, english in back)
    assert [english for english, _ in forth] == sorted((english for english, _ in forth), key=order_of)


def order_of(term):
    return re.sub(r"[^a-z ]", "", unicodedata.normalize("NFD", term.lower()))
