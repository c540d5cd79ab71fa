"""A formula within a sentence has the marks that touch it on its line."""

import punctuation
import pytest
from docutils import nodes


def page(*children):
    """A document with one paragraph, in which the odd pieces are formulas."""
    pieces = [nodes.math("", text) if k % 2 else nodes.Text(text) for k, text in enumerate(children)]
    return nodes.container("", nodes.paragraph("", "", *pieces))


def shown(document):
    """The paragraph with its formulas in dollars and its boxes in braces."""

    def text(node):
        if isinstance(node, nodes.Text):
            return str(node)
        inner = "".join(map(text, node.children))
        return f"${inner}$" if isinstance(node, nodes.math) else f"{{{inner}}}"

    return "".join(map(text, document[0].children))


def run(document):
    transform = punctuation.HeldMarks.__new__(punctuation.HeldMarks)
    transform.document = document
    transform.run()
    return document


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (("where it has ", "g^2", ", because no noise"), "where it has {$g^2$,} because no noise"),
        (("(", "x", "). The rest"), "{($x$).} The rest"),
        (("with respect to ", "x", ""), "with respect to $x$"),
        (("with ", "x", " and (so) ", "y", "."), "with $x$ and (so) {$y$.}"),
        (("a ", "d", "-th of it, a ", "d", "-dimensional one"), "a {$d$-th} of it, a $d$-dimensional one"),
    ],
)
def test_marks_stay_with_the_formula_that_they_touch(pieces, expected):
    assert shown(run(page(*pieces))) == expected


def test_a_formula_that_begins_its_paragraph_or_ends_it_is_left_alone():
    paragraph = nodes.paragraph("", "", nodes.math("", "x"))
    run(nodes.container("", paragraph))
    assert [type(node) for node in paragraph] == [nodes.math]


def test_the_words_of_a_caption_stay_as_they_are():
    caption = nodes.caption("", "", nodes.Text("Times "), nodes.math("", "d"), nodes.Text(", the score."))
    run(nodes.container("", nodes.figure("", caption)))
    assert [type(node) for node in caption] == [nodes.Text, nodes.math, nodes.Text]


def test_the_extension_is_registered_for_pages_that_are_read_and_written_side_by_side():
    registered = []
    app = type("App", (), {"add_post_transform": staticmethod(registered.append)})()
    assert punctuation.setup(app) == {"parallel_read_safe": True, "parallel_write_safe": True}
    assert registered == [punctuation.HeldMarks]
