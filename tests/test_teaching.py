"""The plan of the term has each section of the chapters once, in order, and its minutes are those of reading."""

import re

import nbformat
import pytest
import slides
from self_tests import place_of

ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (\d+) \| (.+?) \| (.*?) ?\|$", re.M)
RANGE = re.compile(r"\[([^\]]+)\]\((\w+)\.ipynb#([^)]+)\) to \[([^\]]+)\]\(\2\.ipynb#([^)]+)\)")
WORDS_A_MINUTE = 90
# What is no matter of the lecture.
AROUND = re.compile(r"What you will be able|Exercises|What this (page|chapter) claim|Where to read on")


@pytest.fixture(scope="module")
def plan(root):
    return ROW.findall((root / "book" / "teaching.md").read_text(encoding="utf-8"))


def sections(root, page):
    """Titles of a page, each with its words."""
    cells = nbformat.read(root / "book" / f"{page}.ipynb", 4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    parts = re.split(r"^## (.+)$", text, flags=re.M)
    return {parts[i]: len(parts[i + 1].split()) for i in range(1, len(parts), 2)}


def read(root, row):
    """Page and title of each section that is to be read in a week."""
    found = []
    for first, page, first_place, last, last_place in RANGE.findall(row[2]):
        titles = list(sections(root, page))
        assert (place_of(first), place_of(last)) == (first_place, last_place)
        found += [(page, title) for title in titles[titles.index(first) : titles.index(last) + 1]]
    return found


def test_the_term_has_twelve_weeks(plan):
    assert [row[0] for row in plan] == [str(week) for week in range(1, 13)]


def test_each_section_of_a_chapter_is_read_once_and_in_order(root, plan):
    order = [section for row in plan for section in read(root, row)]
    for page in slides.chapters():
        expected = [title for title in sections(root, page) if not AROUND.match(title)]
        assert [title for name, title in order if name == page] == expected
    pages = list(dict.fromkeys(name for name, _ in order if name in slides.chapters()))
    assert pages == slides.chapters()


def test_the_minutes_are_those_of_reading(root, plan):
    for row in plan:
        words = sum(sections(root, page)[title] for page, title in read(root, row))
        assert abs(int(row[3]) - words / WORDS_A_MINUTE) < 0.2 * int(row[3]), row[1]


def test_decks_and_questions_are_those_of_what_is_read(root, plan):
    for row in plan:
        pages = [page for page in dict.fromkeys(page for page, _ in read(root, row)) if page in slides.chapters()]
        assert re.findall(r"\((\w+)\.ipynb#test-yourself\)", row[4]) == pages


def test_each_assignment_goes_out_once_and_comes_back_after_two_weeks(root, plan):
    moves = {}
    for row in plan:
        for number, move, later in re.findall(r"(\d+) (out|due)( a week later)?", row[5]):
            moves[number, move] = int(row[0]) + bool(later)
    masters = sorted((root / "coursework").glob("[0-9]*_*.ipynb"))
    assert {number for number, _ in moves} == {master.name.split("_")[0] for master in masters}
    assert [moves[n, "due"] - moves[n, "out"] for n, move in moves if move == "out"] == [2] * len(masters)
