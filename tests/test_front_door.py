"""The first page's map and its hours, the words under which the search finds a chapter, and what a fold says."""

import json

import folds
import front_door
import pytest
import search_words
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document
from sphinx.application import Sphinx

FIRST = ("tour.html", "The tour", "all of it")
PARTS = [("learn", [("a.html", "A & B", "one"), ("b.html", "B", "two")]), ("sample", [("c.html", "C", "three")])]


@pytest.mark.parametrize("across", [True, False])
def test_the_map_has_a_box_for_each_chapter_that_leads_there_and_none_lies_on_another(across):
    svg = BeautifulSoup(front_door.drawn(FIRST, PARTS, across=across), "html.parser").svg
    boxes = svg.find_all("a")
    assert [box["href"] for box in boxes] == ["tour.html", "a.html", "b.html", "c.html"]
    assert [box.find(class_="name").get_text() for box in boxes] == ["The tour", "A & B", "B", "C"]
    frames = [[float(box.rect[key]) for key in ("x", "y", "width", "height")] for box in boxes]
    _, _, width, height = map(float, svg["viewbox"].split())
    for i, (x, y, w, h) in enumerate(frames):
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        assert not any(x < u + v and u < x + w and y < s + t and s < y + h for u, s, v, t in frames[:i])
    assert "#" not in str(svg).replace("#part", "")  # it has no colour of its own


@pytest.mark.parametrize(
    ("minutes", "said"), [(1, "1 min"), (89, "89 min"), (90, "1 ½ h"), (127, "2 h"), (128, "2 ¼ h"), (300, "5 h")]
)
def test_minutes_are_told_as_hours_where_there_are_many(minutes, said):
    assert front_door.length(minutes) == said


GLOSSARY = """```{glossary}
Tweedie's formula
  <span lang="zh-Hans">Tweedie 公式</span>\\
  The mean of $x_0$. See [Noise
  scales](noise_scales.ipynb#the-same-arrow).

annealed Langevin dynamics
  <span lang="zh-Hans">退火朗之万动力学</span>\\
  Beside [Langevin](langevin.ipynb#one). See [Noise scales](noise_scales.ipynb#annealed).

Tweedie moment projection
  <span lang="zh-Hans">矩投影</span>\\
  See [Control](controllable_generation.ipynb#moments).

score matching
  <span lang="zh-Hans">得分匹配</span>\\
  See [Score matching](score_matching.ipynb).
```
"""


def test_a_place_is_found_by_its_term_in_both_languages_and_in_other_spellings():
    found = search_words.terms(GLOSSARY)
    assert set(found) == {"noise_scales", "score_matching", "controllable_generation"}
    assert "tweedie" not in dict(found["controllable_generation"])
    assert ("tweedie moment projection", "moments") in found["controllable_generation"]
    assert ("tweedie", "the-same-arrow") in found["noise_scales"]
    assert ("tweedie's formula", "the-same-arrow") in found["noise_scales"]
    assert {("得分匹配", ""), ("分数匹配", ""), ("score matching", "")} == set(found["score_matching"])
    # A name inside a term belongs to another entry.
    assert ("langevin", "annealed") not in found["noise_scales"]
    words = [word for word, anchor in found["noise_scales"] if anchor == "annealed"]
    for query in ("朗之万", "郎之万", "朗之万动力学", "退火"):
        assert any(query in word and len(query) >= len(word) / 2 for word in words) == (len(query) > 2), query


def found_by_the_search(folder):
    """The entries of a search index, each with the pages to which it leads."""
    index = json.loads((folder / "html" / "searchindex.js").read_text(encoding="utf-8")[len("Search.setIndex(") : -1])
    return {word: {index["docnames"][place[0]] for place in places} for word, places in index["indexentries"].items()}


def test_the_search_remembers_the_terms_of_pages_that_have_not_changed(tmp_path):
    pages = {
        "index": "# Book\n\n```{toctree}\nglossary\nnoise_scales\nother\n```\n",
        "glossary": "# Glossary\n\n" + GLOSSARY,
        "noise_scales": "# Noise\n\n## The same arrow\n\n## Annealed\n",
        "other": "# Other\n\n```{py:function} f()\n```\n",
    }
    for name, text in pages.items():
        (tmp_path / f"{name}.md").write_text(text, encoding="utf-8")
    settings = {"extensions": ["myst_parser", "search_words"], "suppress_warnings": ["*"]}

    def built():
        app = Sphinx(tmp_path, None, tmp_path / "html", tmp_path / "trees", "html", settings, status=None, warning=None)
        app.build()
        return found_by_the_search(tmp_path)

    first = built()
    assert first["tweedie"] == {"noise_scales"}
    assert any("other" in places for places in first.values())
    (tmp_path / "index.md").write_text(pages["index"] + "\nA line.\n", encoding="utf-8")
    assert built() == first


def cell(code, *outputs):
    return nodes.container("", nodes.literal_block("", code), *outputs, nb_element="cell_code")


@pytest.mark.parametrize(
    ("outputs", "code", "said"),
    [
        ((), "x = 1", "the code (1 line)"),
        ((nodes.image(),), "x = 1\nplot(x)", "the code of the figure (2 lines)"),
        ((nodes.raw("", '<table class="scorebook-table">'),), "t", "the code of the table (1 line)"),
        ((nodes.raw("", '<table class="scorebook-table scorebook-claims">'),), "t", "the code of the claims (1 line)"),
        (
            (nodes.image(), nodes.raw("", '<table class="scorebook-table">')),
            "t",
            "the code of the table and the figure (1 line)",
        ),
        ((nodes.image(),), "# @title Solution\nplot(x)", "the solution"),
    ],
)
def test_a_fold_says_what_its_cell_has_shown(outputs, code, said):
    assert folds.held(cell(code, *outputs)) == said


def test_the_first_fold_of_a_page_is_its_setup():
    assert folds.held(cell("import torch"), first=True) == "the setup"


def test_the_cells_of_a_page_are_walked_and_own_words_stay():
    """Folded ones are named, the first as the setup; open ones are marked where they are long."""
    prompts = {"prompt_show": "Show {type}", "prompt_hide": "Hide {type}"}
    longer_than_twenty, twenty = ("\n".join("x" * n) for n in (21, 20))
    made = [cell("import torch"), cell("x = 1\ny = 2"), cell("x = 1"), cell(longer_than_twenty, nodes.image())]
    made += [cell(twenty, nodes.image()), cell("z = 3")]
    for folded in (made[0], made[1], made[5]):
        folded.attributes.update(prompts | {"hide_mode": "input"})
    made[5]["prompt_show"] = "Look"
    page = new_document("page")
    page += [*made, nodes.container("", nb_element="cell_code")]
    folds.FoldedCells(page).run()
    assert [made[0][key] for key in prompts] == ["Show the setup", "Hide the setup"]
    assert [made[1][key] for key in prompts] == ["Show the code (2 lines)", "Hide the code (2 lines)"]
    assert [made[5][key] for key in prompts] == ["Look", "Hide the code (1 line)"]
    assert [each[0]["classes"] for each in made] == [[], [], [], ["long"], [], []]
    assert "prompt_show" not in made[2]


def test_the_folds_are_registered_for_pages_that_are_read_and_written_side_by_side():
    registered = []
    app = type("App", (), {"add_post_transform": staticmethod(registered.append)})
    assert folds.setup(app) == {"parallel_read_safe": True, "parallel_write_safe": True}
    assert registered == [folds.FoldedCells]
