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
from punctuation import CLOSING
from questions import bank, inline
from sphinx.errors import ExtensionError

__all__ = ["chapter", "place_of", "setup", "with_self_test"]

INTRODUCTION = (
    "Choose an answer: it folds open and says why it is right, or why one could think so and where the thought breaks. "
    "Nothing leaves the page."
)
FORMULA = '<span class="math notranslate nohighlight">{}</span>'
TITLE, SEE = "Test yourself", "See {section}."


def place_of(title):
    """The address of the section of a title within its page, as MyST makes it from what is no formula."""
    tokens = MarkdownIt("commonmark").use(dollarmath_plugin).parseInline(title)[0].children
    return default_slugify("".join(token.content for token in tokens if token.type in {"text", "code_inline"}))


def _held(html):
    """Puts each formula and the marks that follow it into one box, as ``punctuation`` does in the text of a page."""
    before, after = map(re.escape, FORMULA.split("{}"))
    return re.sub(rf"{before}[^<]*{after}{CLOSING.pattern}", r'<span class="held">\g<0></span>', html)


def _option(option, letter, section, say):
    verdict = say("Right.") if option.right else say("No.")
    link = f"[{say(section)}](#{place_of(section)})"
    more = f" {say(SEE).replace('{section}', link)}" if option.right else ""
    return (
        f"<details><summary><b>{letter}</b> <span>{_held(inline(say(option.text), FORMULA))}</span></summary>\n\n"
        f"**{verdict}** {say(' '.join(option.why.split()))}{more}\n\n</details>"
    )


def _question(question, number, say):
    options = "\n\n".join(
        _option(option, letter, question.section, say)
        for letter, option in zip("ABCDEF", question.options, strict=False)
    )
    return (
        f'<div class="self-test" id="test-{question.id}">\n\n'
        f"**{number}.** {say(' '.join(question.ask.split()))}\n\n{options}\n\n</div>"
    )


def chapter(questions, say=str):
    """The section of a page that holds these questions, in Markdown; ``say`` puts each text into other words."""
    texts = [_question(question, number, say) for number, question in enumerate(questions, 1)]
    return "\n\n".join([f"## {say(TITLE)}", say(INTRODUCTION), *texts])


def with_self_test(notebook, questions, say=str):
    """A notebook with the questions before its exercises.

    Args:
        notebook: the notebook, as JSON.
        questions: as :func:`questions.bank` returns them.
        say: puts a text of the page into the language of the edition.

    Raises:
        ValueError: a notebook without the heading, or with more than one.
    """
    content = json.loads(notebook)
    texts = [cell for cell in content["cells"] if cell["cell_type"] == "markdown"]
    heading = f"## {say('Exercises')}"
    place = re.compile(rf"^{re.escape(heading)}$", re.M)
    found = [cell for cell in texts if place.search("".join(cell["source"]))]
    if len(found) != 1:
        raise ValueError(f"expected one heading {heading!r} to put the questions before, found {len(found)}")
    before, after = place.split("".join(found[0]["source"]), maxsplit=1)
    found[0]["source"] = f"{before}{chapter(questions, say)}\n\n{heading}{after}"
    return json.dumps(content)


def put_in(app, name, source):
    """Puts the questions into the source of a page, if it has some."""
    path = Path(app.srcdir) / "questions" / f"{name}.yaml"
    if path.exists():
        app.env.note_dependency(str(path))
        try:
            from editions import sayer  # which needs this module's words

            say = sayer(app, name)
            source[0] = with_self_test(source[0], bank(path), say)
        except ValueError as error:
            raise ExtensionError(f"{name}: {error}") from error


def setup(app):
    """Registers the extension."""
    app.connect("source-read", put_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
