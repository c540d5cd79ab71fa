"""The built book in a real browser, with no network: every page shows all it has, to everyone, and moves."""

import copy
import json
import re
import shutil
import subprocess
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import catalogues
import editions
import night
import numpy as np
import playwright.sync_api as playwright
import pytest
import run_record
import yaml
from book_pdf import print_book, served
from browser import fetch
from bs4 import BeautifulSoup
from execution_cache import cache_path
from matplotlib.colors import to_rgb
from night import contrast, pictures_of
from pypdf import PdfReader

from scorebook import lab

ROOT = Path(__file__).resolve().parent.parent
LONGEST_WAIT = 300_000  # milliseconds, on a machine that does much else

# What the theme makes beside the pages that are written.
MADE = ["genindex", "py-modindex", "search", "404"]
# Shared by all pages, hence loaded once.
SHARED = ("_static/", "searchindex.js")
HEAVIEST = 4_000_000


def written_pages():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [toc["root"]]
    parts = toc.get("parts", [toc])
    for part in parts:
        entries = list(part.get("chapters", []))
        while entries:
            entry = entries.pop(0)
            names.append(entry["file"])
            entries = entry.get("sections", []) + entries
    return [name.removesuffix(".md").removesuffix(".ipynb") for name in names]


def source(name):
    """Text and code of a page as it was written."""
    name = name.removeprefix(CHINESE)
    notebook, markdown = (ROOT / "book" / f"{name}{suffix}" for suffix in (".ipynb", ".md"))
    if not notebook.exists():
        return (markdown.read_text(encoding="utf-8"), "") if markdown.exists() else ("", "")
    texts = defaultdict(list)
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        texts[cell["cell_type"]].append("".join(cell["source"]))
    return "\n".join(texts["markdown"]), "\n".join(texts["code"])


def lives(name):
    """The figures that live in a page, in order."""
    text, code = source(name)
    return re.findall(r"^```\{live\} (\w+)", text, re.M) + re.findall(r"\blab\.live\(\s*[\"'](\w+)", code)


PAGES = written_pages() + MADE
CHINESE = "zh/"  # where the pages of the second edition lie, once it is whole
PRINTED = "table.scorebook-table, div.output.stream, div.output.text_plain"
PICTURES = "article :is(div.cell_output, figure.headpiece) img"
NEAR = 2  # of these, after an answer
NOTEBOOKS = [name for name in PAGES if (ROOT / "book" / f"{name}.ipynb").exists()]
LIVE = [name for name in PAGES if lives(name)]
EXPLORED = [name for name in PAGES if re.search(r"\bexplorer\(", source(name)[1])]
EDITIONS = ["", CHINESE] if editions.wanted() else [""]
PAGES = [f"{edition}{name}" for edition in EDITIONS for name in PAGES]


def in_both(names):
    """These pages of both editions."""
    return [f"{edition}{name}" for edition in EDITIONS for name in names]


@pytest.fixture(scope="module")
def address(site):
    with served(site) as address:
        yield address


@pytest.fixture(scope="module")
def visited(request, chromium, address):
    """A page opened and at rest, and whatever went wrong from then until the last test on it."""
    name = request.param
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(LONGEST_WAIT)
    page.name, page.troubles, page.answers = name, [], []

    def answer(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            page.troubles.append(f"foreign request: {route.request.url}")
            route.abort()

    context.route("**/*", answer)
    page.on("requestfailed", lambda r: page.troubles.append(f"failed request: {r.url[:200]}"))
    page.on("response", lambda answer: page.answers.append(answer))
    page.on("pageerror", lambda error: page.troubles.append(f"script error: {error}"))
    page.on("console", lambda m: m.type == "error" and page.troubles.append(f"console: {m.text}"))
    page.goto(f"{address}{name}.html", wait_until="load")
    page.wait_for_function("!window.MathJax?.startup || MathJax.startup.promise.then(() => true)")
    try:
        page.wait_for_function(
            "[...document.querySelectorAll('script[type=\"application/vnd.jupyter.widget-view+json\"]')]"
            ".every(view => view.parentElement.querySelector('.jupyter-widgets, .scorebook-live'))"
        )
    except playwright.TimeoutError:
        page.troubles.append("a widget is not shown")
    # Chromium's own word for a quiet network is not always given on a busy machine.
    page.wait_for_function("[...document.images].every(image => image.complete || image.loading === 'lazy')")
    page.opened = list(page.answers)  # what is fetched to open it, in one size and one theme
    page.wait_for_function("document.fonts.ready.then(() => document.fonts.status === 'loaded')")
    yield page
    context.close()


on_every_page = pytest.mark.parametrize("visited", PAGES, indirect=True)


@on_every_page
def test_mathematics_is_rendered(visited):
    text, _ = source(visited.name)
    formulas = visited.locator(".math")
    if re.search(
        r"(?<!\\)\$[^$]+\$|```\{math\}", re.sub(r"```(?!\{math\}).*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    ):
        assert formulas.count() > 0
    unset = formulas.evaluate_all("all => all.filter(e => !e.querySelector('mjx-container')).map(e => e.textContent)")
    assert unset == []
    # MathJax prints a macro that it does not know in red.
    wrong = visited.locator('mjx-merror, [data-mjx-error], mjx-container [style*="color: red"]')
    assert wrong.evaluate_all("all => all.map(e => e.closest('.math').textContent)") == []
    raw = visited.locator("article").evaluate_all(
        """articles => articles.map(article => {
            const copy = article.cloneNode(true);
            copy.querySelectorAll("pre, code, mjx-container, script, style").forEach(e => e.remove());
            return copy.textContent;
        }).join(" ")"""
    )
    assert re.findall(r"\$[^$\n]{1,200}\$|\\[a-zA-Z]+\{", raw) == []


@on_every_page
def test_every_picture_says_what_it_shows(visited):
    images = visited.locator("article img, .navbar-brand img")
    silent = images.evaluate_all(
        """all => all.filter(i => !i.alt.trim() || !(i.complete && i.naturalWidth
            || i.matches(".only-dark, .on-narrow-screens")))
            .map(i => i.outerHTML.slice(0, 200))"""
    )
    assert silent == []


@on_every_page
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_nothing_keeps_a_reader_out(visited, scheme, width):
    visited.set_viewport_size({"width": width, "height": 900})
    visited.emulate_media(color_scheme=scheme)
    visited.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
    visited.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    # Colours that fade from one theme to the other have no contrast of their own.
    visited.evaluate("document.getAnimations().forEach(one => { try { one.finish() } catch { one.cancel() } })")
    assert (failure := fetch(tests=True)) is None, f"npm brings no axe-core: {failure}"
    if not visited.evaluate("Boolean(window.axe)"):
        # Given a loader of modules, axe would register with it instead of standing by itself.
        axe = (ROOT / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
        visited.evaluate(f"(() => {{ const define = undefined, module = undefined; {axe} }})()")
    levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = visited.evaluate("levels => axe.run(document, {runOnly: levels, resultTypes: ['violations']})", levels)
    assert [
        f"{violation['id']}: {node['html'][:200]} {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ] == []


@on_every_page
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_no_page_scrolls_sideways(visited, width):
    visited.set_viewport_size({"width": width, "height": 900})
    visited.wait_for_function("width => innerWidth === width", arg=width)
    assert visited.evaluate("document.scrollingElement.scrollWidth") <= width
    beyond = visited.locator("article > section *").evaluate_all(
        """all => all.filter(e => {
            if (!e.getClientRects().length || e.getBoundingClientRect().right <= innerWidth + 1) return false;
            for (let box = e.parentElement; box; box = box.parentElement) {
                if (getComputedStyle(box).overflowX !== "visible" && box.tagName !== "BODY" && box.tagName !== "HTML"
                    && box.getBoundingClientRect().right <= innerWidth + 1) return false;
                if (getComputedStyle(box).position === "absolute" && box.tagName.startsWith("MJX")) return false;
            }
            return true;
        }).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert beyond == []


@pytest.mark.parametrize("visited", in_both([*NOTEBOOKS, "status", "benchmarks"]), indirect=True)
def test_a_table_of_the_run_is_read_on_a_phone(visited):
    visited.set_viewport_size({"width": 390, "height": 900})
    visited.wait_for_function("innerWidth === 390")
    visited.locator("details.scorebook-rows").evaluate_all("all => all.forEach(rows => { rows.open = true; })")
    cards = visited.locator("table.scorebook-claims tbody td:not(:first-child)").evaluate_all(
        """all => all.filter(cell => cell.getBoundingClientRect().right > innerWidth
            || getComputedStyle(cell, "::before").content === "none").map(cell => cell.textContent)"""
    )
    assert cards == []
    uncued = visited.locator(".scorebook-table-box:not(:has(.scorebook-claims))").evaluate_all(
        """all => all.filter(box => box.scrollWidth > box.clientWidth + 1).filter(box => {
            const key = box.querySelector("tbody td"), before = key.getBoundingClientRect().left;
            box.scrollLeft = box.scrollWidth;
            const stays = Math.abs(key.getBoundingClientRect().left - before) < 1;
            box.scrollLeft = 0;
            return !stays || getComputedStyle(box).backgroundImage === "none";
        }).map(box => box.textContent.slice(0, 60))"""
    )
    assert uncued == []


@pytest.mark.parametrize("visited", in_both(EXPLORED), indirect=True)
def test_every_explorer_moves_by_key_and_by_mouse(visited):
    visited.set_viewport_size({"width": 1280, "height": 900})
    explorers = visited.locator(".scorebook-explorer")
    explorers.first.wait_for(state="attached")
    assert explorers.count() >= len(re.findall(r"\bexplorer\(", source(visited.name)[1]))
    # An explorer may lie in a solution that is folded away.
    visited.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    for number in range(explorers.count()):
        explorer = explorers.nth(number)
        handle = explorer.locator(".noUi-handle")
        play, stop = explorer.locator("button").nth(0), explorer.locator("button").nth(1)

        def shown(explorer=explorer):
            return explorer.locator("img").evaluate("image => [image.src, image.alt]")

        def changed(before, explorer=explorer):
            explorer.page.wait_for_function(
                "([explorer, before]) => explorer.querySelector('img')?.src !== before",
                arg=[explorer.element_handle(), before],
            )
            return shown(explorer)

        def spoken(handle=handle):
            return handle.get_attribute("aria-valuetext")

        label = handle.get_attribute("aria-label")
        assert label
        stop.click()
        handle.focus()
        frame, alt = shown()
        assert f"({label}: {spoken()})" in alt
        visited.keyboard.press("ArrowRight")
        second, second_alt = changed(frame)
        assert second_alt != alt
        assert f"({label}: {spoken()})" in second_alt
        assert explorer.locator(".widget-readout").inner_text() == spoken()
        visited.keyboard.press("Home")
        assert changed(second) == [frame, alt]
        play.focus()
        visited.keyboard.press("Enter")
        changed(frame)
        signs = "b => [...b.querySelectorAll('svg')].filter(s => s.getClientRects().length).length"
        letter = "b => getComputedStyle(b.querySelector('i'), '::before').content !== 'none'"
        assert play.evaluate(signs) + play.evaluate(letter) == 1
        stop.click()
        explorer.page.wait_for_function(
            "([explorer, first]) => explorer.querySelector('img')?.src === first",
            arg=[explorer.element_handle(), frame],
        )
        track = explorer.locator(".noUi-base").bounding_box()
        visited.mouse.click(track["x"] + track["width"] - 2, track["y"] + track["height"] / 2)
        changed(frame)


@pytest.mark.parametrize("visited", in_both(LIVE), indirect=True)
def test_every_figure_that_lives_is_there_and_moves_without_a_kernel(visited):
    visited.set_viewport_size({"width": 1280, "height": 900})
    words = catalogues.words(catalogues.LIVE) if visited.name.startswith(CHINESE) else {}
    figures = visited.locator(".scorebook-live")
    figures.first.wait_for()
    assert figures.evaluate_all("all => all.map(figure => figure.dataset.figure)") == lives(visited.name) != []
    for figure in figures.all():
        figure.scroll_into_view_if_needed()
        assert figure.locator("output[data-measured]").count() > 0
        figure.get_by_role("button", name=words.get("Reset", "Reset")).click()
        step = figure.get_by_role("button", name=words.get("Step", "Step"), exact=True)
        if step.count():
            before = int(figure.get_attribute("data-steps"))
            for _ in range(20):
                step.click()
            moved = "([figure, before]) => Number(figure.dataset.steps) > before"
            visited.wait_for_function(moved, arg=[figure.element_handle(), before])
        measured = figure.locator("output").evaluate_all(
            "all => all.map(output => parseFloat(output.dataset.measured))"
        )
        assert any(number == number for number in measured)


@pytest.mark.parametrize("visited", in_both(EXPLORED), indirect=True)
def test_an_explorer_fits_a_thumb(visited):
    visited.set_viewport_size({"width": 390, "height": 900})
    visited.wait_for_function("innerWidth === 390")
    visited.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    for explorer in visited.locator(".scorebook-explorer").all():
        handle, track = (explorer.locator(part).bounding_box() for part in (".noUi-handle", ".noUi-base"))
        assert min(handle["width"], handle["height"]) >= 24
        assert track["width"] >= 250
        assert handle["x"] >= 0
        assert track["x"] + track["width"] <= 390


@on_every_page
def test_a_page_needs_nothing_but_the_book(visited):
    missing = [f"{answer.status}: {answer.url}" for answer in visited.answers if answer.status >= 400]
    assert visited.troubles + missing == []


@on_every_page
def test_a_page_is_light(visited, address):
    own = [a for a in visited.opened if not a.url.removeprefix(address).removeprefix(CHINESE).startswith(SHARED)]
    sizes = {answer.url: len(answer.body()) for answer in own if answer.url.startswith(address) and answer.ok}
    assert sum(sizes.values()) <= HEAVIEST, sizes


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("Tweedie", "noise_scales.html#"),
        ("Hutchinson", "sliced_score_matching.html#"),
        ("annealed_langevin", "api.html#scorebook.noise_scales.annealed_langevin"),
        ("guidance", "controllable_generation.html#"),
        ("langevin", "langevin.html#"),
        ("朗之万", "langevin.html#"),
        ("郎之万", "langevin.html#"),
        ("得分匹配", "score_matching.html"),
        ("分数匹配", "score_matching.html"),
        ("概率流", "probability_flow.html#"),
    ],
)
def test_the_search_leads_first_to_the_place_that_treats_the_words(chromium, address, words, place):
    search = chromium.new_page()
    search.set_default_timeout(LONGEST_WAIT)
    search.goto(f"{address}search.html?q={words}")
    first = search.locator("#search-results ul.search > li").first
    assert first.locator("a").get_attribute("href").startswith(place)
    if place.endswith("#"):
        assert not re.search(r"\\[a-z(\[]", first.inner_text())
        first.locator(".context").wait_for()
        assert not re.search(r"\\[a-z(\[]", first.inner_text())
        first.locator("a").click()
        search.wait_for_function("document.querySelector(decodeURIComponent(location.hash))")
    search.close()


@pytest.mark.parametrize("edition", EDITIONS[1:])
@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("朗之万", "langevin.html"),
        ("得分匹配", "score_matching.html"),
        ("分数匹配", "score_matching.html"),
        ("概率流", "probability_flow.html"),
    ],
)
def test_the_search_of_the_chinese_edition_finds_words(chromium, address, edition, words, place):
    search = chromium.new_page()
    search.set_default_timeout(LONGEST_WAIT)
    search.goto(f"{address}{edition}search.html?q={words}")
    search.locator("#search-results ul.search > li").first.wait_for()
    found = search.locator("#search-results ul.search > li a").evaluate_all(
        "all => all.map(a => a.getAttribute('href'))"
    )
    assert any(link.startswith(place) for link in found[:3])
    search.close()


@pytest.mark.parametrize("edition", EDITIONS[1:])
@pytest.mark.parametrize("name", ["index", "langevin", "status", "search", "genindex"])
def test_each_page_leads_to_itself_in_the_other_language_and_back(site, edition, name):
    english, other = soup(site, name), soup(site, f"{edition}{name}")
    there, back = (page.select_one("a.scorebook-language")["href"] for page in (english, other))
    assert (there, back) == (f"{edition}{name}.html", f"../{name}.html")
    assert (english.html["lang"], other.html["lang"]) == ("en", "zh-CN")


def test_every_box_of_the_map_leads_to_its_chapter(chromium, address):
    chapters = written_pages()[1:11]
    for width, shown in ((1280, "wide"), (390, "narrow")):
        context = chromium.new_context(viewport={"width": width, "height": 900})
        page = context.new_page()
        page.set_default_timeout(LONGEST_WAIT)
        page.goto(f"{address}index.html")
        boxes = page.locator("svg.scorebook-map:visible a")
        assert boxes.evaluate_all("all => all.map(a => a.getAttribute('href'))") == [f"{c}.html" for c in chapters]
        assert page.locator("svg.scorebook-map:visible").get_attribute("class") == f"scorebook-map on-{shown}-screens"
        sizes = boxes.locator("text").evaluate_all(
            "all => all.map(t => parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getScreenCTM().a)"
        )
        assert min(sizes) >= 9
        for box in boxes.all():
            frame = box.locator("rect").bounding_box()
            for words in box.locator("text").all():
                assert words.bounding_box()["x"] + words.bounding_box()["width"] <= frame["x"] + frame["width"]
        boxes.nth(3).click()
        page.wait_for_url(f"{address}{chapters[3]}.html")
        page.goto(f"{address}index.html")
        page.get_by_role("link", name="Go on with").click()
        page.wait_for_url(f"{address}{chapters[3]}.html")
        context.close()


@pytest.mark.parametrize("missing", ["no-such-page.html", "in/no/such/folder/", "book/old%20name"])
def test_a_page_that_is_not_there_is_answered_in_the_looks_of_the_book_wherever_it_is_published(
    chromium, site, tmp_path, missing
):
    (tmp_path / "published").symlink_to(site)
    with served(tmp_path) as address:
        context = chromium.new_context()
        page = context.new_page()
        page.set_default_timeout(LONGEST_WAIT)
        text = (site / "404.html").read_text(encoding="utf-8")
        there = f"{address}published/"
        page.route(f"{there}{missing}", lambda route: route.fulfill(status=404, body=text, content_type="text/html"))
        page.goto(there + missing)
        assert "not in the book" in page.locator("article h1").inner_text()
        serif = page.locator("article h1").evaluate("h => getComputedStyle(h).fontFamily")
        assert "Source Serif" in serif
        page.locator("article").get_by_role("link", name="the tour").click()
        page.wait_for_url(f"{there}tour.html")
        context.close()


def test_code_that_is_folded_says_what_it_holds_and_stays_as_the_reader_leaves_it(chromium, address):
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(LONGEST_WAIT)
    page.goto(f"{address}monte_carlo.html")
    folds = page.locator(".bd-article details.hide")
    told = folds.evaluate_all("all => all.map(f => f.querySelector('summary .collapsed').textContent)")
    assert told[0] == "Show the setup"
    assert re.fullmatch(r"Show the code of the claims \(\d+ lines\)", told[-1])
    assert any(re.fullmatch(r"Show the code of the figure \(\d+ lines\)", words) for words in told)
    assert "Show the solution" in told
    assert [words for words in told if "cell" in words] == []

    def opened():
        page.wait_for_load_state("load")
        return folds.evaluate_all("all => all.map(fold => fold.open)")

    solutions = [words == "Show the solution" for words in told]
    code = [not solution for solution in solutions]
    assert opened() == [False] * len(told)
    folds.nth(1).locator("summary").click()
    one = [i == 1 for i in range(len(told))]
    assert opened() == one
    page.reload()
    assert opened() == one
    switch = page.get_by_role("button", name="Show all code")
    assert switch.get_attribute("aria-pressed") == "false"
    switch.click()
    assert opened() == code
    page.goto(f"{address}langevin.html")
    assert page.locator(".bd-article details.hide").first.evaluate("fold => fold.open")
    page.goto(f"{address}monte_carlo.html")
    assert opened() == code
    assert switch.get_attribute("aria-pressed") == "true"
    switch.click()
    page.reload()
    assert opened() == [False] * len(told)
    context.close()


@pytest.mark.parametrize("visited", NOTEBOOKS, indirect=True)
def test_a_figure_is_at_home_in_the_dark(visited):
    visited.set_viewport_size({"width": 1280, "height": 900})
    visited.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    # A picture far below is fetched only when it is wanted, and until then it has no size.
    visited.evaluate("for (const image of document.images) image.loading = 'eager'")
    for scheme in ("light", "dark"):
        visited.emulate_media(color_scheme=scheme)
        visited.wait_for_function("scheme => document.documentElement.dataset.theme === scheme", arg=scheme)
        visited.wait_for_function("[...document.images].every(image => image.complete)")
        shown = visited.locator(f"{PICTURES}:visible").evaluate_all(
            "all => all.filter(image => !image.closest('.scorebook-explorer')).map(image => image.className)"
        )
        assert shown
        assert [classes for classes in shown if f"only-{scheme}" not in classes.split()] == []
        assert [classes for classes in shown if "on-narrow-screens" in classes.split()] == []
    # The first pixel of each is paper, hence like the page around it.
    strange = visited.evaluate(
        """async () => {
            const page = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
            const strange = [];
            for (const image of document.querySelectorAll("article :is(div.cell_output, .headpiece) img.only-dark")) {
                image.loading = "eager";
                await image.decode();
                const canvas = new OffscreenCanvas(1, 1).getContext("2d");
                canvas.drawImage(image, 0, 0);
                const paper = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
                const around = getComputedStyle(image).backgroundColor;
                if (paper.some((part, i) => Math.abs(part - page[i]) > 2) || around !== "rgba(0, 0, 0, 0)")
                    strange.push(`${image.alt.slice(0, 60)}: ${paper} on ${page}, around it ${around}`);
            }
            return strange;
        }"""
    )
    visited.emulate_media(color_scheme="light")
    assert strange == []


@pytest.mark.parametrize("visited", PAGES, indirect=True)
def test_no_line_of_code_or_of_what_it_printed_is_cut(visited):
    for width in (390, 820, 1280):
        visited.set_viewport_size({"width": width, "height": 900})
        visited.wait_for_function("width => innerWidth === width", arg=width)
        cut = visited.locator("article pre").evaluate_all(
            "all => all.filter(pre => pre.scrollWidth > pre.clientWidth + 1).map(pre => pre.textContent.slice(0, 80))"
        )
        assert cut == []


def executed(name):
    """A notebook as it was executed for the site."""
    kept = SimpleNamespace(nb_execution_cache_path=cache_path("cpu"))
    return run_record.run_of(SimpleNamespace(srcdir=ROOT / "book", config=kept), name)


@pytest.mark.parametrize("visited", NOTEBOOKS, indirect=True)
def test_the_letters_of_a_figure_are_read_on_a_phone(visited):
    visited.set_viewport_size({"width": 390, "height": 900})
    visited.wait_for_function("innerWidth === 390")
    visited.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    visited.evaluate("for (const image of document.images) image.loading = 'eager'")
    visited.wait_for_function("[...document.images].every(image => image.complete)")
    shown = visited.locator(f"{PICTURES}:visible").evaluate_all(
        """all => all.filter(image => !image.closest(".scorebook-explorer, .scorebook-live")).map(
            image => [image.currentSrc, image.getBoundingClientRect().width, image.naturalWidth])"""
    )
    written = {}
    for stem, picture in pictures_of(executed(visited.name)).items():
        written |= {stem: picture.texts, f"{stem}-narrow": picture.narrow.texts if picture.narrow else None}
    small = []
    for address, width, natural in shown:
        texts = written[Path(urlparse(address).path).stem.removesuffix("-dark")]
        # A picture has two of its pixels for one of the page.
        sizes = [size * width / (natural / 2) for size, _ in texts]
        if sizes and min(sizes) < 9:
            small.append(f"{min(sizes):.1f} px in {address}")
    assert shown
    assert small == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_letters_of_a_figure_are_read_on_a_light_and_on_a_dark_page(site, name):
    page = np.array(night.PAGE) / 255
    pictures = [p for picture in pictures_of(executed(name)).values() for p in (picture, picture.narrow) if p]
    faint = {
        colour
        for picture in pictures
        for _, colour in picture.texts
        if colour != "#ffffff"  # which stands on something dark
        and (contrast(to_rgb(colour), np.ones(3)) < 4.5 or contrast(night.turned(np.array(to_rgb(colour))), page) < 4.5)
    }
    assert faint == set()
    assert pictures


@pytest.mark.parametrize("visited", in_both(NOTEBOOKS), indirect=True)
def test_figures_are_numbered_one_after_the_other_and_one_stands_at_the_head(visited):
    visited.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    captions = visited.locator("article figure.numbered > figcaption:visible").all_inner_texts()
    assert len(captions) == visited.locator("article figure.numbered").count()
    told = [re.match(r"\s*(?:Figure|图) (\d+)\.\s+\S", caption) for caption in captions]
    assert [int(match[1]) for match in told] == list(range(1, len(captions) + 1)) != []
    pictures = visited.locator("article div.cell_output img").evaluate_all(
        "all => all.filter(i => !i.closest('figure.numbered, .scorebook-explorer, .scorebook-live')).map(i => i.alt)"
    )
    assert pictures == []
    visited.set_viewport_size({"width": 1280, "height": 900})
    visited.wait_for_function("innerWidth === 1280")
    head = visited.locator("article figure.headpiece")
    assert head.locator("img:visible").count() == 1
    height, gap = visited.evaluate(  # at one moment, for the page may still move
        """() => {
            const head = document.querySelector("article figure.headpiece").getBoundingClientRect();
            return [head.height, document.querySelector("article h2").getBoundingClientRect().top - head.bottom];
        }"""
    )
    assert height > 80
    assert gap >= 0
    words = head.locator("figcaption")
    if head.get_attribute("id") == "figure-1":  # it has come here, and these words stand in its place
        words = visited.locator("article div.cell_output .stands-at-the-head")
    number = re.search(r"[(（](?:Figure|图) (\d+)[)）]", words.inner_text())[1]
    assert words.locator("a:not(.headerlink)").get_attribute("href") == f"#figure-{number}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_line_begins_with_the_mark_that_follows_a_formula(site, name):
    """A browser may end a line at any formula, unless what touches it is in one box with it."""
    formulas = soup(site, name).select("article :is(p, li) span.math")
    formulas = [formula for formula in formulas if not formula.find_parent("figcaption")]
    after = [formula.next_sibling for formula in formulas if "held" not in formula.parent.get("class", [])]
    loose = [text for text in after if isinstance(text, str) and re.match(r"[,.;:?!)]", text)]
    assert (loose, len(formulas) > 0) == ([], True)


@pytest.mark.parametrize("visited", LIVE, indirect=True)
def test_a_slider_of_a_figure_that_lives_has_room_for_its_stops(visited):
    for width in (390, 820, 1280):
        visited.set_viewport_size({"width": width, "height": 900})
        visited.wait_for_function(f"innerWidth === {width}")
        tracks = visited.locator(".scorebook-live label.sl-slider input").evaluate_all(
            "all => all.map(track => track.getBoundingClientRect().width)"
        )
        assert all(track >= 120 for track in tracks)


@pytest.mark.parametrize("visited", NOTEBOOKS, indirect=True)
def test_no_picture_stands_twice_within_two_screens(visited):
    visited.set_viewport_size({"width": 1280, "height": 900})
    visited.wait_for_function("innerWidth === 1280")
    places = visited.evaluate(
        """() => [...document.querySelectorAll("article img")].filter(i => i.checkVisibility())
            .map(i => [i.src, i.getBoundingClientRect().top])"""
    )
    apart = [abs(a - b) for k, (one, a) in enumerate(places) for two, b in places[:k] if one == two]
    assert all(gap > 1800 for gap in apart)
    assert places


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_answer_to_a_guess_quotes_what_the_run_printed(site, name):
    """It stands in one of the two tables or lines that come next; not which number there it is."""
    page = soup(site, name)
    outputs = {id(part) for part in page.select(PRINTED)}
    guesses = [
        p.find_parent("blockquote") or p.parent for p in page.select("article p") if "Before you read on" in p.text
    ]
    assert guesses
    for guess in guesses:
        answer = guess.find("details") or guess.find_next("details")
        shown = [part for part in answer.find_all_next() if id(part) in outputs][:NEAR]
        numbers = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", " ".join(part.get_text(" ") for part in shown))
        numbers = [float(found.replace(",", "")) for found in numbers]
        told = copy.copy(answer)
        for formula in told.select(".math"):
            formula.decompose()
        for quoted in re.findall(r"(?<![\w.])\d+\.\d+(?!\w)", told.get_text(" ")):
            if (name, quoted) in {("tour", "1.5"), ("monte_carlo", "3.2")}:
                continue  # where readers lose the digit; the root of ten
            half = 0.501 * 10.0 ** -len(quoted.split(".")[1])
            assert any(abs(number - float(quoted)) <= half for number in numbers), (quoted, told.get_text(" "))


@pytest.mark.parametrize("visited", in_both(NOTEBOOKS), indirect=True)
def test_no_table_of_the_run_scrolls_on_a_desk(visited):
    visited.set_viewport_size({"width": 1280, "height": 900})
    visited.wait_for_function("innerWidth === 1280")
    visited.locator("details.scorebook-rows").evaluate_all("all => all.forEach(rows => { rows.open = true; })")
    # What is opened tells so in a task of its own, and what fits the tables answers to that.
    visited.evaluate("() => new Promise(done => setTimeout(() => requestAnimationFrame(done), 200))")
    wide = visited.locator(".scorebook-table-box:visible").evaluate_all(
        """all => all.filter(box => box.scrollWidth > box.clientWidth + 1)
            .map(box => `${box.scrollWidth} in ${box.clientWidth}: ${box.textContent.slice(0, 60)}`)"""
    )
    assert wide == []


def printed(page, target):
    """Number of pages of a page on paper, and of its blocks of code, none of which is cut."""
    page.pdf(path=target, prefer_css_page_size=True, print_background=True)
    page.emulate_media(media="print")
    blocks = page.locator("article div.cell_input pre").evaluate_all(
        "all => all.filter(pre => pre.getClientRects().length).map(pre => pre.scrollWidth > pre.clientWidth + 1)"
    )
    page.emulate_media(media="screen")
    assert not any(blocks)
    return len(PdfReader(target).pages), len(blocks)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_chapter_is_printed_on_twenty_pages_and_with_all_code_where_it_is_shown(chromium, address, tmp_path, name):
    page = chromium.new_page()
    page.set_default_timeout(LONGEST_WAIT)
    page.goto(f"{address}{name}.html", wait_until="load")
    page.wait_for_function("!window.MathJax?.startup || MathJax.startup.promise.then(() => true)")
    n_pages, n_blocks = printed(page, tmp_path / "short.pdf")
    assert n_pages <= 20
    if name == "langevin":
        page.get_by_role("button", name="Show all code").click()
        all_pages, all_blocks = printed(page, tmp_path / "full.pdf")
        assert all_pages > n_pages
        assert all_blocks > 3 * n_blocks
    page.close()


@pytest.mark.parametrize("edition", EDITIONS)
def test_the_book_becomes_one_pdf(chromium, site, tmp_path, edition):
    site = site / edition
    print_book(chromium, site, tmp_path / "book.pdf")
    book = PdfReader(tmp_path / "book.pdf")
    written = written_pages()
    assert len(book.pages) >= len(written)
    bookmarks = {entry.title for entry in book.outline if not isinstance(entry, list)}
    titles = {soup(site, name).h1.get_text() for name in written}
    assert {title.rstrip("#").strip() for title in titles} <= bookmarks
    links = [link.get_object() for page in book.pages for link in page.get("/Annots") or []]
    addresses = [str(link["/A"].get("/URI", "")) for link in links if "/A" in link]
    assert [address for address in addresses if "127.0.0.1" in address or address.startswith("file:")] == []
    assert sum("/Dest" in link for link in links) >= len(written) - 1
    # The fonts of the pages and of their formulas are the book's own; Chromium embeds such fonts as Type 3.
    assert sum("/Type3" in kinds_of_fonts(page) for page in book.pages) > len(book.pages) / 2


def kinds_of_fonts(page):
    fonts = page["/Resources"].get_object().get("/Font")
    return {font.get_object()["/Subtype"] for font in (fonts.get_object().values() if fonts else ())}


def soup(site, name):
    return BeautifulSoup((site / f"{name}.html").read_text("utf-8"), "html.parser")


TOLD = {
    "": r"[1-9]\d* minutes? to read · [1-9]\d* s to run, in this build( on a busy machine, [1-9]\d* s of them on a "
    r"processor)?",
    CHINESE: r"阅读约 [1-9]\d* 分钟 · 本次构建(运行|在繁忙的机器上运行) [1-9]\d* 秒(，其中处理器 [1-9]\d* 秒)?",
}


@pytest.mark.parametrize("name", NOTEBOOKS)
@pytest.mark.parametrize("edition", EDITIONS)
def test_a_notebook_says_how_long_it_takes_and_can_be_taken_along(site, edition, name):
    page = soup(site, edition + name)
    assert re.fullmatch(TOLD[edition], page.select_one("article .at-a-glance").get_text())
    (download,) = {link["href"] for link in page.select('a.btn-download-source-button[href$=".ipynb"]')}
    taken = json.loads((site / edition / download).read_text("utf-8"))
    written = (ROOT / "book" / f"{name}.ipynb").read_text("utf-8")
    if edition:
        written = catalogues.translated_notebook(written, catalogues.say(name))
    assert [cell["source"] for cell in taken["cells"]] == [cell["source"] for cell in json.loads(written)["cells"]]


@pytest.mark.parametrize("edition", EDITIONS[1:])
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_numbers_of_a_closing_table_are_the_same_in_both_editions(site, edition, name):
    def measured(page):
        return [row.select("td.num")[1].get_text() for row in page.select("table.scorebook-claims tr.holds")]

    english, other = (measured(soup(site, f"{which}{name}")) for which in ("", edition))
    assert english == other != []


def test_the_status_page_repeats_every_claim_of_every_page(site):
    status = soup(site, "status")
    for name in NOTEBOOKS:
        own = soup(site, name).select("table.scorebook-claims tbody tr:not(.section)")
        told = status.select(f"#claims-{name} tbody tr")
        assert len(own) == len(told) > 0
        assert told[0].p.get_text().replace("’", "'").startswith(own[0].td.get_text().split("'")[0])
    ask = ["git", "rev-parse", "HEAD"] if shutil.which("git") else ["true"]
    head = subprocess.run(ask, cwd=ROOT, capture_output=True, encoding="utf-8").stdout
    commit = next(row.find_all("td")[1].get_text() for row in status.select("tr") if "Commit" in row.get_text())
    assert not head or head.startswith(commit.strip().split(",")[0])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_wrong_answer_put_into_its_row_is_refused(site, name):
    run = executed(name)
    assert run.claims
    for row in run.claims:
        kind = {key: row[key] for key in ("expected", "at_least", "at_most", "resolution") if row[key] is not None}
        assert lab.Claim(row["text"], float(row["measured"]), error=float(row["error"]), **kind).holds
        injected = lab.Claim(row["text"], float(row["rival"]), error=float(row["rival_error"]), **kind)
        assert not injected.holds, f"{row['text']}: {row['rival_name']} gives {row['rival']} and would pass"


def test_what_the_notes_call_measured_is_among_the_claims(site):
    text = (ROOT / "book" / "notes.md").read_text(encoding="utf-8")
    measured = re.findall(r"^\*Measured:\*.*(?:\n(?![\n*]).+)*", text, re.M)
    named = [" ".join(claim.split()) for claim in re.findall(r"“([^”]+)”", "\n".join(measured))]
    claims = " ".join(soup(site, "status").article.get_text().replace("’", "'").split())
    assert len(named) > 40
    assert [claim for claim in named if claim not in claims] == []


class Anchors(HTMLParser):
    """The links of a page and the places in it that can be linked to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.places, self.scripts = [], {""}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.places |= {attributes[key] for key in ("id", "name") if attributes.get(key)}
        link = attributes.get("href") if tag in ("a", "link") else attributes.get("src")
        if link and not re.match(r"[a-z][a-z+.-]*:|//|#$", link):
            self.links.append(link)
        if tag == "script" and attributes.get("src"):
            self.scripts.append(attributes["src"])


@pytest.fixture(scope="module")
def anchors(site):
    return {path.relative_to(site).as_posix(): Anchors(path.read_text("utf-8")) for path in built(site)}


def built(site):
    return [path for path in site.rglob("*.html") if "_static" not in path.relative_to(site).parts]


def test_every_built_page_is_looked_at(site):
    assert {path.relative_to(site).as_posix() for path in built(site)} == {f"{name}.html" for name in PAGES}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(site, anchors, name):
    dead = []
    for link in anchors[f"{name}.html"].links:
        path, place = urldefrag(link)
        target = urljoin(f"{name}.html", unquote(path).partition("?")[0]) if path else f"{name}.html"
        if not (site / target).is_file() or (target in anchors and unquote(place) not in anchors[target].places):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("name", PAGES)
def test_widget_scripts_are_loaded_only_where_there_is_a_widget(site, anchors, name):
    has_widget = "application/vnd.jupyter.widget-view+json" in (site / f"{name}.html").read_text("utf-8")
    assert any("html-manager" in script for script in anchors[f"{name}.html"].scripts) == has_widget
    assert any("require" in script for script in anchors[f"{name}.html"].scripts) == has_widget
