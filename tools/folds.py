"""A Sphinx extension that says on each folded cell what it holds, in place of "Show code cell source".

What a cell has drawn, tabulated or claimed is told from its output, so that nobody has to write it; a cell that says
``code_prompt_show`` for itself keeps its own words. An open cell whose code is long is marked: it is left out where a
chapter is printed without its code.
"""

from docutils import nodes
from figures import AT_THE_HEAD
from sphinx.transforms.post_transforms import SphinxPostTransform

__all__ = ["FoldedCells", "held", "setup"]

LONG = 20  # lines, up to which code is printed with the text
OWN_WORDS = "{type}"  # in the words that MyST-NB uses where the cell has none


def held(cell, *, first=False):
    """What a folded cell holds, in words that follow "Show" and "Hide"."""
    code = cell[0].astext()
    if code.startswith("# @title Solution"):
        return "the solution"
    if first:
        return "the setup"
    html = " ".join(raw.astext() for raw in cell.findall(nodes.raw))
    seen = {
        "claims": "scorebook-claims" in html,
        "table": "scorebook-table" in html and "scorebook-claims" not in html,
        "explorer": "widget-view+json" in html,
        "figure": any(
            isinstance(node, nodes.image) or AT_THE_HEAD in node.get("classes", ())
            for node in cell.findall(nodes.Element)
        ),
    }
    made = [what for what, there in seen.items() if there]
    n_lines = len(code.splitlines())
    lines = f"{n_lines} lines" if n_lines > 1 else "1 line"
    return (f"the code of the {' and the '.join(made)}" if made else "the code") + f" ({lines})"


class FoldedCells(SphinxPostTransform):
    """Names what each folded cell holds, before MyST-NB folds it."""

    default_priority = 198  # MyST-NB folds at 199, when the outputs have been chosen

    def run(self, **kwargs):
        """Walks the page."""
        cells = [node for node in self.document.findall(nodes.container) if node.get("nb_element") == "cell_code"]
        for cell in cells:
            if not cell.get("hide_mode") and cell.children and len(cell[0].astext().splitlines()) > LONG:
                cell[0]["classes"].append("long")
            if cell.get("hide_mode") and cell.children:
                what = held(cell, first=cell is cells[0])
                for key, verb in (("prompt_show", "Show"), ("prompt_hide", "Hide")):
                    if OWN_WORDS in cell[key]:
                        cell[key] = f"{verb} {what}"


def setup(app):
    """Registers the extension."""
    app.add_post_transform(FoldedCells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
