"""The question bank: one file a chapter in ``book/questions``, and its export to Moodle.

A question asks what one would see, and each of its options says why it is right, or why it tempts and is wrong:

.. code-block:: yaml

    - id: unit-of-a-score                        # its place on the page is #test-unit-of-a-score
      section: The score does not see Z          # where the chapter treats it
      ask: What is the unit of a score, if $x$ is a length in metres?
      options:
      - wrong: Metres.
        why: That is the unit of $x$ itself.
      - right: One over metres.
        why: A logarithm is a pure number, and it is divided by a change of $x$.
      numbers: {"0.5": 1 / 2}                    # each number of the options, as an expression that is computed
      check: [1 < 2]                             # what else must be true

Texts are inline Markdown with ``$`` for formulas. ``tests/test_questions.py`` computes the numbers and tries the
checks, from what ``tests/question_truths.py`` has. ``make questions`` writes the bank in Moodle's GIFT format, one file
a chapter.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from mdit_py_plugins.dollarmath import dollarmath_plugin

__all__ = ["Option", "Question", "bank", "banks", "gift", "inline", "main"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "book" / "questions"

KEYS = {"id", "section", "ask", "options"}
MAY = {"numbers", "check"}


@dataclass(frozen=True)
class Option:
    """One answer to choose."""

    text: str
    why: str
    right: bool


@dataclass(frozen=True)
class Question:
    """A question with its options, in the order in which they are shown."""

    id: str
    section: str
    ask: str
    options: tuple[Option, ...]
    numbers: dict[str, str]
    check: tuple[str, ...]

    @property
    def right(self):
        """The position of the right option."""
        return [option.right for option in self.options].index(True)


def _option(entry, where):
    kinds = [kind for kind in ("right", "wrong") if kind in entry]
    if len(kinds) != 1 or set(entry) != {*kinds, "why"}:
        raise ValueError(f"{where}: an option has 'why' and either 'right' or 'wrong', this one has {sorted(entry)}")
    return Option(entry[kinds[0]], entry["why"], kinds == ["right"])


def _question(entry, path):
    where = f"{path.name}, {entry.get('id', 'a question without id')}"
    if not set(entry) >= KEYS or not set(entry) <= KEYS | MAY:
        raise ValueError(f"{where}: expected the keys {sorted(KEYS)}, and maybe {sorted(MAY)}, got {sorted(entry)}")
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry["id"]):
        raise ValueError(f"{where}: an id is of small letters, digits and single hyphens")
    options = tuple(_option(option, where) for option in entry["options"])
    if sum(option.right for option in options) != 1 or len(options) < 3:
        raise ValueError(f"{where}: expected three options or more and one right one among them")
    numbers, check = entry.get("numbers", {}), tuple(entry.get("check", ()))
    return Question(entry["id"], entry["section"], entry["ask"], options, numbers, check)


def bank(path):
    """The questions of one file.

    Args:
        path: the YAML file.

    Returns:
        A list of :class:`Question`, in the order of the file.

    Raises:
        ValueError: an entry that is no question, or two of one id.
    """
    entries = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # 0.10 stays what was typed
    questions = [_question(entry, Path(path)) for entry in entries]
    ids = [question.id for question in questions]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise ValueError(f"{Path(path).name}: two questions have the id {twice[0]}")
    return questions


def banks(folder=FOLDER):
    """All questions: chapter to list, in alphabetical order."""
    return {path.stem: bank(path) for path in sorted(Path(folder).glob("*.yaml"))}


def inline(text, formula="{}"):
    r"""Inline Markdown as HTML, with ``\(...\)`` for formulas.

    Args:
        text: the Markdown.
        formula: what to put around each formula, with ``{}`` in its place.
    """
    markdown = MarkdownIt("commonmark").use(dollarmath_plugin, double_inline=True)
    markdown.add_render_rule(
        "math_inline", lambda self, tokens, i, *_: formula.format(rf"\({escapeHtml(tokens[i].content)}\)")
    )
    return markdown.renderInline(" ".join(text.split()))


def _escaped(html):
    # Moodle reads \n as a line and \{ as a brace, so \nabla would break in two: its own backslash comes first.
    return re.sub(r"[\\~=#{}:]", r"\\\g<0>", html)


def gift(chapter, questions):
    """The questions in Moodle's GIFT format, with the reasons as feedback.

    Args:
        chapter: the category they go to.
        questions: as :func:`bank` returns them.

    Source: the description of the GIFT format in Moodle's documentation.
    """
    blocks = [f"$CATEGORY: scorebook/{chapter}\n"]
    for question in questions:
        options = [
            f"{'=' if option.right else '~'}{_escaped(inline(option.text))}#{_escaped(inline(option.why))}"
            for option in question.options
        ]
        head = f"::{chapter} {question.id}::[html]{_escaped(inline(question.ask))}"
        blocks.append("\n".join([f"{head} {{", *options, "}\n"]))
    return "\n".join(blocks)


def main(folder):
    """Writes a file for each chapter, and says where.

    Args:
        folder: where to; it is made if it is not there.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    everything = banks()
    for chapter, questions in everything.items():
        (folder / f"{chapter}.gift").write_text(gift(chapter, questions), encoding="utf-8")
    print(f"{sum(map(len, everything.values()))} questions, in {len(everything)} files for Moodle: {folder}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_build" / "questions")
