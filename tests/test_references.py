"""The bibliography is complete, and what a page of the book cites is in it."""

import json
import re

import pytest
from pybtex.backends.plaintext import Backend
from pybtex.database import parse_file
from pybtex.plugin import find_plugin

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
            + ["doi, eprint or url"] * (not {"doi", "eprint", "url"} & set(entry.fields))
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
    for page in sorted([*(root / "book").glob("*.md"), *(root / "book").glob("*.ipynb")]):
        text = text_of(page)
        linked = {doi.lower().rstrip(".,;") for doi in DOI.findall(text)} | set(ARXIV.findall(text))
        # The parenthesis that ends a link in Markdown belongs to the identifier only if it was opened in it.
        linked = {one if one.count("(") == one.count(")") else one.rstrip(")") for one in linked}
        if linked - known:
            absent[page.name] = sorted(linked - known)
    assert absent == {}
