"""A Sphinx extension that keeps a formula and the marks which touch it on one line.

For a browser a formula within a sentence is a box, before and after which any line may end: the comma that follows it
would begin the next line. Captions are left as they are, for their words are looked up when a page is put into Chinese;
Chinese marks are held there (``editions``).
"""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

__all__ = ["CLOSING", "HeldMarks", "setup"]

OPENING = re.compile(r"[(\[“‘\"]+\Z")
CLOSING = re.compile(r"(?:[,.;:?!)\]”’'\"]|-\w{1,3}\b)+")


class HeldMarks(SphinxPostTransform):
    """Puts each formula and the marks beside it into one box."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs):
        """Walks the page."""
        for formula in list(self.document.findall(nodes.math)):
            if not any(isinstance(node, nodes.caption) for node in parents(formula)):
                hold(formula)


def parents(node):
    """The nodes around a node, from the nearest on."""
    while (node := node.parent) is not None:
        yield node


def hold(formula):
    """Takes the marks from the texts on both sides of a formula into a box with it."""
    parent, place = formula.parent, formula.parent.index(formula)
    before = parent[place - 1] if place else None
    after = parent[place + 1] if place + 1 < len(parent) else None
    opening = OPENING.search(before) if isinstance(before, nodes.Text) else None
    closing = CLOSING.match(after) if isinstance(after, nodes.Text) else None
    if not opening and not closing:
        return
    held = nodes.inline("", classes=["held"])
    parent.replace(formula, held)
    if opening:
        parent.replace(before, nodes.Text(before[: opening.start()]))
        held.append(nodes.Text(opening[0]))
    held.append(formula)
    if closing:
        parent.replace(after, nodes.Text(after[closing.end() :]))
        held.append(nodes.Text(closing[0]))


def setup(app):
    """Registers the extension."""
    app.add_post_transform(HeldMarks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
