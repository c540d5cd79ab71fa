"""A Sphinx extension that numbers the figures of a page and puts the one that stands for the chapter at its head.

A cell that shows a figure has a caption in its metadata, beside the text alternative, ``"mystnb": {"figure":
{"caption": "..."}}``. MyST-NB reads it; here it gets its number, and an address. What else the cell shows, such as a
table, is no figure. The cell with ``"scorebook": {"head": "..."}`` draws the picture that is shown again before the
first section or cell, with these words below it and a link to where it is made. Where it is the first of the page, two
of it would stand close together: then it goes to the head itself, and the words with the link stand in its place. In
Colab a notebook stays as it is.
"""

from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.transforms import SphinxTransform

__all__ = ["AT_THE_HEAD", "Figures", "setup"]

WIDGET = "application/vnd.jupyter.widget-view+json"
AT_THE_HEAD = "stands-at-the-head"  # the class of the words in the place of a picture that has gone to the head


def shows(figure):
    """Whether what a cell has shown is a picture or a figure that lives."""
    return any(True for _ in figure.findall(nodes.image)) or any(
        box.get("mime_type") == WIDGET for box in figure.findall(nodes.container)
    )


def numbered(document):
    """Gives each figure of a page its number and address, and returns them by the index of their cell."""
    of_cells = {}
    for cell in document.findall(
        lambda node: isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"
    ):
        for figure in list(cell.findall(nodes.figure)):
            if not shows(figure):
                parts = [child for child in figure.children if not isinstance(child, nodes.caption | nodes.legend)]
                figure.parent.replace(figure, parts)
                continue
            of_cells.setdefault(cell["cell_index"], []).append(figure)
    number = 0
    for figures in of_cells.values():
        for figure in figures:
            number += 1
            figure["ids"].append(f"figure-{number}")
            figure["classes"].append("numbered")
            for caption in figure.findall(nodes.caption):
                caption.insert(0, nodes.Text(" "))
                caption.insert(0, nodes.strong("", f"Figure {number}."))
    return of_cells


def told(figure, words):
    """The words that are said of a picture elsewhere, with the link to it."""
    identifier = figure["ids"][-1]
    link = nodes.reference("", f"Figure {identifier.removeprefix('figure-')}", refid=identifier, internal=True)
    return [nodes.Text(f"{words} ("), link, nodes.Text(")")]


def headpiece(figure, words):
    """The picture at the head of a page: shown again, or, the first of all, taken from its place.

    Args:
        figure: the figure as it stands in the page.
        words: what is said of it.
    """
    pictures = [image.deepcopy() for image in figure.findall(nodes.image)]
    if figure["ids"][-1] != "figure-1":
        caption = nodes.caption("", "", *told(figure, words))
        return nodes.figure("", *pictures, caption, classes=["headpiece"], ids=["at-the-head"])
    figure.parent.replace(figure, nodes.paragraph("", "", *told(figure, words), classes=[AT_THE_HEAD]))
    captions = [child for child in figure.children if isinstance(child, nodes.caption)]
    return nodes.figure("", *pictures, *captions, classes=[*figure["classes"], "headpiece"], ids=figure["ids"][::-1])


def head_of(path):
    """Index of the cell that draws the picture at the head of a notebook, and the words below it; else None."""
    cells = nbformat.read(path, 4).cells
    heads = [(i, cell.metadata["scorebook"]["head"]) for i, cell in enumerate(cells) if "scorebook" in cell.metadata]
    return heads[0] if heads else None


def ends_the_opening(node):
    """Whether the words with which a page opens end here, at its first section or cell."""
    return isinstance(node, nodes.section) or node.get("nb_element") == "cell_code"


class Figures(SphinxTransform):
    """Numbers the figures of a notebook and puts one of them at its head."""

    default_priority = 610  # each picture has its companions for the dark and for a phone

    def apply(self, **kwargs):
        """Walks the page."""
        figures = numbered(self.document)
        path = Path(self.app.srcdir) / f"{self.env.docname}.ipynb"
        head = head_of(path) if path.exists() else None
        if head is None or head[0] not in figures:
            return  # a page that was not executed has no pictures
        title = next(self.document.findall(nodes.section), None)
        first = next((child for child in title.children if ends_the_opening(child)), None)
        place = title.index(first) if first is not None else len(title)
        title.insert(place, headpiece(figures[head[0]][0], head[1]))


def number_once(app, config):
    """Figures have their own numbers here; an extension for LaTeX switches Sphinx's on, whatever the settings say."""
    config.numfig = False


def setup(app):
    """Registers the extension."""
    app.add_transform(Figures)
    app.connect("config-inited", number_once, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
