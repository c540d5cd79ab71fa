"""A Sphinx extension that puts the questions of a chapter's bank before its exercises, to be tried by the reader.

The page needs no script: each option is a fold, which says when it is opened whether it is right, and why. The
notebook itself stays as it is, for in Colab a fold in a text is all that there would be. What the bank is,
``tools/questions.py`` tells.
"""

import json
import re
from pathlib import Path

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from myst_parser.mdit_to_docutils.base import default_slugify
from questions import bank, inline
from sphinx.errors import ExtensionError

__all__ = ["chapter", "place_of", "setup", "with_self_test"]

INTRODUCTION = (
    "Choose an answer: it folds open and says why it is right, or why one could think so and where the thought breaks. "
    "Nothing leaves the page."
)
FORMULA = '<span class="math notranslate nohighlight">{}</span>'
BEFORE = re.compile(r"^## Exercises$", re.M)


def place_of(title):
    """The address of the section of a title within its page, as MyST makes it from what is no formula."""
    tokens = MarkdownIt("commonmark").use(dollarmath_plugin).parseInline(title)[0].children
    return default_slugify("".join(token.content for token in tokens if token.type in {"text", "code_inline"}))


def _option(option, letter, section):
    verdict = "Right." if option.right else "No."
    more = f" See [{section}](#{place_of(section)})." if option.right else ""
    return (
        f"<details><summary><b>{letter}</b> <span>{inline(option.text, FORMULA)}</span></summary>\n\n"
        f"**{verdict}** {' '.join(option.why.split())}{more}\n\n</details>"
    )


def _question(question, number):
    options = "\n\n".join(
        _option(option, letter, question.section) for letter, option in zip("ABCDEF", question.options, strict=False)
    )
    return (
        f'<div class="self-test" id="test-{question.id}">\n\n'
        f"**{number}.** {' '.join(question.ask.split())}\n\n{options}\n\n</div>"
    )


def chapter(questions):
    """The section of a page that holds these questions, in Markdown."""
    texts = [_question(question, number) for number, question in enumerate(questions, 1)]
    return "\n\n".join(["## Test yourself", INTRODUCTION, *texts])


def with_self_test(notebook, questions):
    """A notebook with the questions before its exercises.

    Args:
        notebook: the notebook, as JSON.
        questions: as :func:`questions.bank` returns them.

    Raises:
        ValueError: a notebook without the heading, or with more than one.
    """
    content = json.loads(notebook)
    texts = [cell for cell in content["cells"] if cell["cell_type"] == "markdown"]
    found = [cell for cell in texts if BEFORE.search("".join(cell["source"]))]
    if len(found) != 1:
        raise ValueError(f"expected one heading '## Exercises' to put the questions before, found {len(found)}")
    before, after = BEFORE.split("".join(found[0]["source"]), 1)
    found[0]["source"] = f"{before}{chapter(questions)}\n\n## Exercises{after}"
    return json.dumps(content)


def put_in(app, name, source):
    """Puts the questions into the source of a page, if it has some."""
    path = Path(app.srcdir) / "questions" / f"{name}.yaml"
    if path.exists():
        app.env.note_dependency(str(path))
        try:
            source[0] = with_self_test(source[0], bank(path))
        except ValueError as error:
            raise ExtensionError(f"{name}: {error}") from error


def setup(app):
    """Registers the extension."""
    app.connect("source-read", put_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
