"""A Sphinx extension that gives a look and an address to the block quotes which begin with their name.

In a notebook an exercise is a plain block quote, ``> **Exercise 1.** ...``, which every reader of notebooks shows well.
In the book it gets the class ``exercise`` and, if it is numbered, the address ``#exercise-1``; likewise theorems,
definitions, remarks and what the source notes say. A Chinese name gives the look and the address of the English one.
"""

import re

from docutils import nodes
from sphinx.transforms import SphinxTransform

__all__ = ["NamedBlocks", "setup"]

KINDS = {
    "exercise": "exercise",
    "theorem": "theorem",
    "proposition": "theorem",
    "lemma": "theorem",
    "corollary": "theorem",
    "definition": "theorem",
    "algorithm": "theorem",
    "proof": "proof",
    "in the notes": "notes",
    "not in the surviving text": "notes",
    "remark": "remark",
    "note": "remark",
    "warning": "warning",
    "caution": "warning",
}
CHINESE = {
    "练习": "exercise",
    "定理": "theorem",
    "命题": "proposition",
    "引理": "lemma",
    "推论": "corollary",
    "定义": "definition",
    "算法": "algorithm",
    "证明": "proof",
    "讲义中": "in the notes",
    "现存讲义中没有": "not in the surviving text",
    "评注": "remark",
    "说明": "note",
    "警告": "warning",
    "当心": "caution",
}
NAME = re.compile(rf"({'|'.join([*KINDS, *CHINESE])})\b(?:\s+(\d+))?", re.IGNORECASE)


class NamedBlocks(SphinxTransform):
    """Marks each block quote whose first words are strong and name a kind."""

    default_priority = 700

    def apply(self, **kwargs):
        """Walks the page."""
        for quote in self.document.findall(nodes.block_quote):
            paragraph = quote[0] if len(quote) and isinstance(quote[0], nodes.paragraph) else ()
            # The parser puts an empty text before a strong one.
            words = [child for child in paragraph if child.astext()]
            name = NAME.match(words[0].astext()) if words and isinstance(words[0], nodes.strong) else None
            if not name:
                continue
            kind = CHINESE.get(name[1], name[1].lower())
            quote["classes"] += ["named", KINDS[kind]]
            identifier = nodes.make_id(f"{kind} {name[2] or ''}")
            if name[2] and identifier not in self.document.ids:
                quote["ids"].append(identifier)
                self.document.ids[identifier] = quote


def setup(app):
    """Registers the extension."""
    app.add_transform(NamedBlocks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
