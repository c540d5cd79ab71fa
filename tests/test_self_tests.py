"""The questions of a chapter stand on its page, before the exercises, and each option folds open without a script."""

import json
import re

import nbformat
import playwright.sync_api as playwright
import pytest
import questions
import self_tests
from book_pdf import served
from bs4 import BeautifulSoup

BANKS = questions.banks()
LONGEST_WAIT = 300_000  # milliseconds, on a machine that does much else


def notebook(root, chapter):
    return (root / "book" / f"{chapter}.ipynb").read_text(encoding="utf-8")


@pytest.mark.parametrize("chapter", BANKS)
def test_a_notebook_gets_one_section_more_and_keeps_all_else(root, chapter):
    before = nbformat.reads(notebook(root, chapter), 4)
    after = nbformat.reads(self_tests.with_self_test(notebook(root, chapter), BANKS[chapter]), 4)
    changed = [a for a, b in zip(before.cells, after.cells, strict=True) if a != b]
    assert [cell.cell_type for cell in changed] == ["markdown"]
    texts = ["\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown") for nb in (before, after)]
    added = f"{self_tests.chapter(BANKS[chapter])}\n\n"
    assert texts[1].replace(added, "") == texts[0]
    assert texts[1].index(added) + len(added) == texts[1].index("## Exercises\n")


@pytest.mark.parametrize("chapter", BANKS)
def test_each_option_has_its_own_verdict_and_letter(chapter):
    text = self_tests.chapter(BANKS[chapter])
    options = [(letter, option) for q in BANKS[chapter] for letter, option in zip("ABCD", q.options, strict=True)]
    expected = [(letter, "Right" if option.right else "No") for letter, option in options]
    assert re.findall(r"<summary><b>(\w)</b>.*?</summary>\n\n\*\*(\w+)\.\*\* ", text) == expected


@pytest.mark.parametrize(
    ("text", "held"),
    [("Is it $N(0, I)$?", ["?"]), ("$x$ for $y$, or $z$", [","]), ("$x$ alone", [])],
)
def test_the_marks_of_an_option_stay_with_their_formula(text, held):
    option = questions.Option(text, "So it is.", right=True)
    shown = self_tests.chapter([questions.Question("one", "Sampling", "Which?", (option,), {}, ())])
    boxes = BeautifulSoup(shown, "html.parser").select("summary .held")
    assert [box.get_text()[len(box.find(class_="math").get_text()) :] for box in boxes] == held


@pytest.mark.parametrize("n", [0, 2])
def test_a_notebook_without_one_place_for_the_questions_is_refused(n):
    cells = [{"cell_type": "markdown", "source": ["## Exercises\n", "\n", "One."]}] * n
    with pytest.raises(ValueError, match=f"'## Exercises'.*found {n}"):
        self_tests.with_self_test(json.dumps({"cells": cells}), BANKS["sde"])


def test_a_page_without_a_bank_stays_as_it_is(tmp_path):
    class App:
        srcdir = tmp_path

    source = ["text"]
    self_tests.put_in(App(), "index", source)
    assert source == ["text"]


@pytest.mark.parametrize(
    ("title", "place"),
    [
        ("Accept or refuse: the step without bias", "accept-or-refuse-the-step-without-bias"),
        ("Which scales? Ask the data", "which-scales-ask-the-data"),
        (r"Without the $\sqrt d$", "without-the-"),
    ],
)
def test_the_address_of_a_section_is_that_of_myst(title, place):
    assert self_tests.place_of(title) == place


@pytest.fixture(scope="module")
def address(site):
    with served(site) as address:
        yield address


@pytest.mark.parametrize("chapter", BANKS)
def test_the_page_has_each_question_of_the_bank_with_its_options_in_order(site, chapter):
    page = BeautifulSoup((site / f"{chapter}.html").read_text(encoding="utf-8"), "html.parser")
    section = page.select_one("section#test-yourself")
    assert [found["id"] for found in section.select(".self-test")] == [f"test-{q.id}" for q in BANKS[chapter]]
    titles = [title.get_text() for title in page.select("section > h2")]
    assert re.match("Exercises", titles[[title.startswith("Test yourself") for title in titles].index(True) + 1])
    for found, question in zip(section.select(".self-test"), BANKS[chapter], strict=True):
        folds = found.find_all("details", recursive=False)
        verdicts = [fold.find("strong").get_text() for fold in folds]
        assert verdicts == ["Right." if option.right else "No." for option in question.options]
        assert not any(fold.has_attr("open") for fold in folds)
        (link,) = found.select("a.reference")
        assert folds[question.right] in link.parents
        assert page.find(id=link["href"].removeprefix("#")).find(["h2", "h3"]).get_text().startswith(link.get_text())


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without"])
def test_an_option_opens_by_key_and_by_mouse_and_says_what_it_is_worth(chromium, address, scripts):
    context = chromium.new_context(viewport={"width": 390, "height": 900}, java_script_enabled=scripts)
    page = context.new_page()
    page.set_default_timeout(LONGEST_WAIT)
    page.goto(f"{address}langevin.html#test-value-of-a-run")
    question = page.locator("#test-value-of-a-run")
    verdicts = question.locator("details > p, details > summary ~ *")
    assert [verdict.is_visible() for verdict in verdicts.all()] == [False] * 4
    first, second = (question.locator("summary").nth(i) for i in (0, 1))
    first.focus()
    page.keyboard.press("Enter")
    playwright.expect(verdicts.nth(0)).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    playwright.expect(verdicts.nth(1)).to_be_visible()
    second.click()
    playwright.expect(verdicts.nth(1)).to_be_hidden()
    playwright.expect(verdicts.nth(2)).to_be_hidden()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("chapter", BANKS)
def test_the_answers_keep_nobody_out_when_they_are_open(chromium, root, address, chapter, scheme):
    context = chromium.new_context(viewport={"width": 390, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(LONGEST_WAIT)
    page.goto(f"{address}{chapter}.html#test-yourself")
    page.wait_for_function("!window.MathJax?.startup || MathJax.startup.promise.then(() => true)")
    page.evaluate("document.querySelectorAll('.self-test details').forEach(fold => { fold.open = true })")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    page.evaluate("document.getAnimations().forEach(one => { try { one.finish() } catch { one.cancel() } })")
    axe = (root / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    page.evaluate(f"(() => {{ const define = undefined, module = undefined; {axe} }})()")
    levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = page.evaluate("levels => axe.run('#test-yourself', {runOnly: levels, resultTypes: ['violations']})", levels)
    assert [f"{v['id']}: {node['html'][:200]}" for v in found["violations"] for node in v["nodes"]] == []
    small = page.locator(".self-test summary").evaluate_all("all => all.filter(e => e.offsetHeight < 24).length")
    assert small == 0
    context.close()
