"""The figures of a page have numbers, captions and addresses, and one of them stands at its head."""

from types import SimpleNamespace

import figures
import folds
import nbformat
import pytest
from docutils import nodes


def cell(index, *shown):
    return nodes.container("", *shown, nb_element="cell_code", cell_index=index)


def shown(thing, caption):
    """What MyST-NB makes of an output of a cell with a caption."""
    return nodes.figure("", nodes.container("", thing, nb_element="mime_bundle"), nodes.caption("", caption))


def picture(name="a.png"):
    return nodes.image(uri=name, alt="what is seen")


def widget():
    return nodes.container("", nodes.Text("a view"), mime_type=figures.WIDGET)


@pytest.fixture
def page():
    first = nodes.section("", nodes.title("", "One"), cell(3, shown(picture(), "Digits.")))
    table = shown(nodes.raw("", "<table></table>", format="html"), "Both.")
    second = nodes.section("", nodes.title("", "Two"), cell(5, shown(picture("b.png"), "Both."), table))
    third = nodes.section("", nodes.title("", "Three"), cell(7, shown(widget(), "Drag it.")))
    return nodes.container(
        "", nodes.section("", nodes.title("", "Title"), nodes.paragraph("", "Text."), first, second, third)
    )


def test_pictures_and_figures_that_live_are_numbered_in_their_order_and_a_table_is_none(page):
    found = figures.numbered(page)
    assert {index: [f["ids"] for f in of] for index, of in found.items()} == {
        3: [["figure-1"]],
        5: [["figure-2"]],
        7: [["figure-3"]],
    }
    captions = [caption.astext() for caption in page.findall(nodes.caption)]
    assert captions == ["Figure 1. Digits.", "Figure 2. Both.", "Figure 3. Drag it."]
    (table,) = page.findall(nodes.raw)
    assert not any(isinstance(node, nodes.figure) for node in (table.parent, table.parent.parent))
    assert table.astext() == "<table></table>"


def with_head(page, index, words, tmp_path, monkeypatch):
    """The page, as the extension leaves it when this cell draws the picture at its head."""
    cells = [nbformat.v4.new_code_cell("pass") for _ in range(8)]
    cells[index].metadata["scorebook"] = {"head": words}
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "page.ipynb")
    monkeypatch.setattr(figures.Figures, "__init__", lambda self, document: setattr(self, "document", document))
    monkeypatch.setattr(figures.Figures, "app", SimpleNamespace(srcdir=tmp_path), raising=False)
    monkeypatch.setattr(figures.Figures, "env", SimpleNamespace(docname="page"), raising=False)
    figures.Figures(page).apply()
    return page[0]


@pytest.mark.parametrize("executed", [True, False])
def test_one_picture_stands_before_the_first_section_and_leads_to_where_it_is_made(
    page, tmp_path, monkeypatch, executed
):
    if not executed:
        for cell in list(page.findall(nodes.figure)):
            cell.parent.remove(cell)
    title = with_head(page, 5, "Two at once.", tmp_path, monkeypatch)
    if not executed:
        assert [type(child) for child in title[:3]] == [nodes.title, nodes.paragraph, nodes.section]
        return
    head = title[2]
    assert head["classes"] == ["headpiece"]
    assert [image["uri"] for image in head.findall(nodes.image)] == ["b.png"]
    assert head[-1].astext() == "Two at once. (Figure 2)"
    (link,) = head.findall(nodes.reference)
    assert link["refid"] == "figure-2"
    assert isinstance(title[3], nodes.section)
    assert len(list(page.findall(nodes.image))) == 3


def test_the_first_picture_of_a_page_goes_to_its_head_and_stands_there_alone(page, tmp_path, monkeypatch):
    title = with_head(page, 3, "Four digits.", tmp_path, monkeypatch)
    head, section = title[2:4]
    assert (head["classes"], head["ids"]) == (["numbered", "headpiece"], ["figure-1"])
    assert head[-1].astext() == "Figure 1. Digits."
    assert [image["uri"] for image in page.findall(nodes.image)] == ["a.png", "b.png"]
    assert [image["uri"] for image in head.findall(nodes.image)] == ["a.png"]
    (words,) = section[1].findall(nodes.paragraph)
    assert words.astext() == "Four digits. (Figure 1)"
    (link,) = words.findall(nodes.reference)
    assert link["refid"] == "figure-1"
    assert list(section.findall(nodes.figure)) == []
    setup = cell(1)
    assert figures.ends_the_opening(setup)
    assert not figures.ends_the_opening(nodes.paragraph("", "Text."))
    folded = nodes.container("", nodes.literal_block("", "plot()\nshow()"), words.deepcopy())
    assert folds.held(folded) == "the code of the figure (2 lines)"
