"""A Sphinx extension that tells of each function in whose programs it works: as measured by the tests, not by hand.

``tests/test_other_peoples_programs.py`` calls every public function in every situation and holds what came against
``book/programs.json``. From that file each entry of the reference gets a line, and the directive ``{situations}`` a
table in which functions that answer alike share a row.
"""

import json
from pathlib import Path

from run_record import shown_table
from sphinx.util.docutils import SphinxDirective

__all__ = ["Situations", "groups", "line_of", "setup"]

RECORD = Path(__file__).resolve().parent.parent / "book" / "programs.json"
ADDRESS = "in-other-peoples-programs"
RIGHT, EVERY_OTHER = "right in all", "every other function"


def answers():
    """What became of each function: for each word the situations, those of all its rows together."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    order = record.pop("situations")
    found = {}
    for name, words in record.items():
        function = found.setdefault(name.partition(" (")[0], {})
        for word, situations in words.items():
            for part in word.split("/"):
                function[part] = {*function.get(part, ()), *situations}
    return {
        name: {word: [s for s in order if s in words.get(word, ())] for word in ("refused", "gradient")}
        for name, words in found.items()
    }


def line_of(words):
    """What the reference says below a function."""
    text = f"refuses {', '.join(words['refused'])}" if words["refused"] else RIGHT
    return text + ("; gradients flow through it" if words["gradient"] else "")


def groups(found):
    """Functions that answer alike, by that answer, the greatest group first."""
    together = {}
    for name, words in sorted(found.items()):
        together.setdefault(line_of(words), []).append(name)
    return sorted(together.items(), key=lambda group: -len(group[1]))


def tell(app, what, name, thing, options, lines):
    """Adds the line to a docstring."""
    parts = name.replace(".coursework.", ".coursework_").split(".")
    words = next((FOUND[key] for key in (".".join(parts[-2:]), ".".join(parts[-3:])) if key in FOUND), None)
    if words is not None:
        lines += ["", f":ref:`Situations <{ADDRESS}>`: {line_of(words)}.", ""]


class Situations(SphinxDirective):
    """The table of all functions."""

    def run(self):
        """Makes it."""
        self.env.note_dependency(str(RECORD))
        rows = [(line, EVERY_OTHER if line == RIGHT else ", ".join(names)) for line, names in groups(FOUND)]
        rows.sort(key=lambda row: row[1] == EVERY_OTHER)
        return [shown_table(("Answer", "Functions"), rows)]


FOUND = answers()


def setup(app):
    """Registers the extension."""
    app.add_directive("situations", Situations)
    app.connect("autodoc-process-docstring", tell)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
