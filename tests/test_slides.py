"""The decks say what the chapters say, fit the screen, ask nobody for anything, and give the speaker the questions."""

import nbformat
import pytest
import questions
import slides
import yaml
from book_pdf import served
from bs4 import BeautifulSoup
from pypdf import PdfReader

LONGEST_WAIT = 300_000  # milliseconds, on a machine that does much else
CHAPTERS = slides.chapters()

TEXT = r"""# A chapter: and more

## What you will be able to do

- Do one thing,
  in two lines.
- Do $a < b$.

## First

It begins here, e.g. with $v = 0.5$. Then [it](page.md) goes on: and ends! A third *sentence* stands
before a formula,

$$a = b \tag{1}$$

> **A note.** In a quotation.

### Second

$$a = c$$
"""


def small():
    table = "<div><table><tr><td>1.5</td></tr></table></div>"
    closing = '<ul class="scorebook-headlines"><li>It is <b>1</b>.</li></ul>'
    cells = [
        nbformat.v4.new_markdown_cell(TEXT, id="text"),
        nbformat.v4.new_code_cell("plot()", id="figure", metadata={"mystnb": {"image": {"alt": 'A "dot"'}}}),
        nbformat.v4.new_code_cell("table()", id="table"),
        nbformat.v4.new_code_cell(
            'lab.live("langevin")', id="live", metadata={"mystnb": {"image": {"alt": "Two modes"}}}
        ),
        nbformat.v4.new_code_cell("claims()", id="claims"),
    ]
    for cell, data in zip(
        (cells[1], cells[2], cells[4]),
        ({"image/png": "aGk=\n"}, {"text/html": table}, {"text/html": closing}),
        strict=True,
    ):
        cell.outputs = [nbformat.v4.new_output("display_data", data=data)]
    return nbformat.v4.new_notebook(cells=cells)


def question(name="one", section="First"):
    options = [questions.Option(f"{name} {text}", f"why {text}", text == "b") for text in "abc"]
    return questions.Question(name, section, f"What of {name}?", tuple(options), {}, ())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("It begins", "It begins here, e.g. with $v = 0.5$."),
        ("begins here", "begins here, e.g. with $v = 0.5$."),
        ("Then [it]", "Then [it](page.md) goes on: and ends!"),
        ("A third", "A third *sentence* stands before a formula"),
        ("It begins ... and ends!", "It begins here, e.g. with $v = 0.5$. Then [it](page.md) goes on: and ends!"),
        ("In a", "In a quotation."),
    ],
)
def test_a_sentence_is_cut_where_it_ends(words, found):
    assert slides.Chapter(small()).sentence(words) == found


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        ({"say": "Nothing of it"}, "0 paragraphs of the chapter have the words 'Nothing of it'"),
        ({"say": "It begins ... not there"}, "'not there' do not follow"),
        ({"formula": "a ="}, "2 formulas of the chapter contain 'a ='"),
        ({"formula": "d"}, "0 formulas"),
        ({"picture": "nowhere"}, "no cell 'nowhere'"),
        ({"picture": "table"}, "no output of the kind image/png"),
        ({"live": "figure"}, "no figure that lives in a cell 'figure'"),
        ({"draw": "figure"}, "expected say, formula"),
        ({"say": "It begins", "formula": "a ="}, "one piece an entry"),
    ],
)
def test_what_the_chapter_does_not_have_is_named(piece, message):
    with pytest.raises(ValueError, match=message):
        slides.deck(small(), [{"section": "First", "show": [piece]}], [])


def test_a_section_and_a_question_that_are_not_there_are_named():
    with pytest.raises(ValueError, match="no section 'Third'"):
        slides.deck(small(), [{"section": "Third", "show": []}], [])
    with pytest.raises(ValueError, match="no question 'two'"):
        slides.deck(small(), [{"ask": "two"}], [question()])


def test_a_deck_has_what_its_file_lists_and_the_reasons_in_the_notes():
    entries = [
        {"section": "First", "show": [{"say": "It begins"}, {"formula": "a = b"}]},
        {"section": "First", "title": "Again", "show": [{"picture": "figure"}, {"table": "table"}, {"live": "live"}]},
        {"ask": "one"},
    ]
    page = BeautifulSoup(slides.deck(small(), entries, [question(), question("two", "Second")]), "html.parser")
    found = page.select(".slides > section")
    titles = [slide.find(["h1", "h2"]).get_text() for slide in found]
    assert titles == [
        "A chapter",
        "What you will be able to do",
        "First",
        "Again",
        "A question",
        "What the run has measured",
    ]
    assert [item.get_text() for item in found[1].find_all("li")] == ["Do one thing, in two lines.", r"Do \(a < b\)."]
    assert found[2].p.get_text() == r"It begins here, e.g. with \(v = 0.5\)."
    assert found[2].select_one(".formula").get_text() == r"\[a = b \tag{1}\]"
    assert [(image["src"], image["alt"]) for image in found[3].find_all("img")] == [
        ("data:image/png;base64,aGk=", 'A "dot"'),
        ("assets/stills/langevin.png", "Two modes"),
    ]
    assert found[3].td.get_text() == "1.5"
    notes = [slide.aside.extract().get_text() if slide.aside else "" for slide in found]
    assert ["why b" in note for note in notes] == [False, False, True, False, True, True]
    assert ["two" in note for note in notes] == [False] * 5 + [True]
    assert "why" not in found[4].get_text()
    assert found[5].li.get_text() == "It is 1."


def entries_of(name):
    return yaml.load((slides.FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def test_each_chapter_with_questions_has_a_deck():
    assert sorted(CHAPTERS) == sorted(questions.banks())


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_pieces_of_a_deck_stand_in_its_chapter(root, name):
    chapter = slides.Chapter(nbformat.read(root / "book" / f"{name}.ipynb", 4))
    asked = {found.id for found in questions.banks()[name]}
    order = []
    for entry in entries_of(name):
        if "ask" in entry:
            assert entry["ask"] in asked
            continue
        order.append(chapter.sections.index(entry["section"]))
        for kind, what in (piece for one in entry["show"] for piece in one.items()):
            if kind == "say":
                said = questions.inline(chapter.sentence(what))
                assert "*" not in said, said
                assert "$" not in said, said
            elif kind == "formula":
                chapter.formula(what)
            elif kind == "live":
                chapter.live(what)
            else:
                assert chapter.cells[what].cell_type == "code"
    assert order == sorted(order)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_deck_is_as_long_as_a_lecture(name):
    assert 12 <= len(entries_of(name)) + 3 <= 25


@pytest.fixture(scope="module")
def decks(site, tmp_path_factory):
    """The decks, from the outputs with which the site was built."""
    folder = tmp_path_factory.mktemp("slides")
    slides.write_decks(folder, {name: slides.executed(name) for name in CHAPTERS})
    return folder


BEYOND = """() => {
    const slide = Reveal.getCurrentSlide(), found = [];
    const size = [slide.scrollWidth, slide.scrollHeight];
    if (size[0] > 1280 || size[1] > 720) found.push(size.join(" x "));
    for (const piece of slide.querySelectorAll("h1, h2, p, li, table, img, mjx-container")) {
        const box = piece.getBoundingClientRect(), outside = box.left < 0 || box.right > 1280 || box.bottom > 720;
        if (box.width && outside) found.push(piece.outerHTML.slice(0, 80));
    }
    for (const image of slide.querySelectorAll("img")) {
        if (!image.alt.trim() || !image.naturalWidth || image.clientHeight < 240) found.push(image.alt.slice(0, 80));
    }
    const unset = slide.querySelectorAll('mjx-merror, [data-mjx-error], mjx-container [style*="color: red"]');
    return [...found, ...[...unset].map(one => one.outerHTML.slice(0, 80))];
}"""


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_slide_fits_the_screen_and_keeps_nobody_out(chromium, root, decks, name):
    context = chromium.new_context(viewport={"width": 1280, "height": 720})
    page, troubles = context.new_page(), []
    page.set_default_timeout(LONGEST_WAIT)
    with served(decks) as address:

        def answer(route):
            if route.request.url.startswith((address, "data:", "blob:")):
                route.continue_()
            else:
                troubles.append(f"foreign request: {route.request.url}")
                route.abort()

        context.route("**/*", answer)
        page.on("response", lambda r: r.status >= 400 and troubles.append(f"{r.status}: {r.url}"))
        page.on("pageerror", lambda error: troubles.append(f"script error: {error}"))
        page.goto(f"{address}{name}.html")
        page.wait_for_function("MathJax.startup && MathJax.startup.promise.then(() => true)")
        page.wait_for_function("document.fonts.ready.then(() => document.fonts.status === 'loaded')")
        axe = (root / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
        page.evaluate(f"(() => {{ const define = undefined, module = undefined; {axe} }})()")
        beyond, barred = [], []
        n_slides = page.evaluate("Reveal.getTotalSlides()")
        for number in range(n_slides):
            page.evaluate("number => Reveal.slide(number)", number)
            beyond += [(number + 1, *page.evaluate(BEYOND))]
            found = page.evaluate(
                "levels => axe.run(Reveal.getCurrentSlide(), {runOnly: levels, resultTypes: ['violations']})",
                ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
            )
            barred += [(number + 1, v["id"], v["nodes"][0]["html"][:120]) for v in found["violations"]]
        assert [found for found in beyond if len(found) > 1] == []
        assert barred == []
        assert troubles == []
        assert n_slides == len(entries_of(name)) + 3
        assert page.locator(".headlines li").count() >= 3
        said = page.locator("aside.notes").all_text_contents()
        for question in questions.banks()[name]:
            right = BeautifulSoup(questions.inline(question.options[question.right].why), "html.parser").get_text()
            assert any(right.split(r"\(")[0] in note for note in said), question.id
    context.close()


def test_a_table_that_is_too_wide_is_seen(chromium, decks):
    with served(decks) as address:
        page = chromium.new_page(viewport={"width": 1280, "height": 720})
        page.set_default_timeout(LONGEST_WAIT)
        page.goto(f"{address}langevin.html")
        page.wait_for_function("Reveal.isReady()")
        page.evaluate("Reveal.slide(1)")
        assert page.evaluate(BEYOND) == []
        page.evaluate("document.querySelector('.present ul').innerHTML += '<li>One more.</li>'.repeat(20)")
        assert page.evaluate(BEYOND) != []
        page.close()


def test_a_deck_is_printed_a_slide_a_page(chromium, decks, tmp_path):
    with served(decks) as address:
        page = chromium.new_page()
        page.set_default_timeout(LONGEST_WAIT)
        page.goto(f"{address}controllable_generation.html?print-pdf")
        page.wait_for_function(
            "document.querySelectorAll('.pdf-page').length && MathJax.startup.promise.then(() => true)"
        )
        page.pdf(path=tmp_path / "deck.pdf", prefer_css_page_size=True)
        page.close()
    assert len(PdfReader(tmp_path / "deck.pdf").pages) == len(entries_of("controllable_generation")) + 3


def test_a_chapter_that_was_not_run_as_it_stands_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(slides, "cache_path", lambda *_: tmp_path / "cache")
    (tmp_path / "book").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("never_run = 1")])
    nbformat.write(notebook, tmp_path / "book" / "sde.ipynb")
    with pytest.raises(KeyError):
        slides.executed("sde", root=tmp_path)
