"""A Sphinx extension for the first page: the map of the chapters, and how long a reader needs.

``{chapter-map}`` draws the parts and chapters of the table of contents, each box a link to its page, twice: across, and
downwards for a phone. The drawing stands in the page itself, so that it takes the colours of the page, light or dark.
Each line of the directive names a page or a part and says what it is about.

``{routes}`` tables ways through the book: each line is a name, a colon and the pages; their minutes are counted.
"""

import html
import re

from docutils import nodes
from run_record import reading_minutes, shown_table
from sphinx.util.docutils import SphinxDirective

__all__ = ["ChapterMap", "Routes", "drawn", "length", "setup"]

GAP, EDGE = 20, 16
BOX_HEIGHT = 70


class Wanted(nodes.General, nodes.Element):
    """A place that is filled when every page has been read."""


class ChapterMap(SphinxDirective):
    """The map: ``page: what it is about`` on each line; a part is named by its caption."""

    has_content = True

    def run(self):
        """Marks the place."""
        return [Wanted("", what="map", lines=pairs(self))]


class Routes(SphinxDirective):
    """Ways through the book: ``name: page, page`` on each line, ``all`` for every page that is a notebook."""

    has_content = True

    def run(self):
        """Marks the place."""
        return [Wanted("", what="routes", lines=pairs(self))]


def pairs(directive):
    """The two sides of each line."""
    lines = [line.partition(":") for line in directive.content if line.strip()]
    if bare := [name for name, colon, _ in lines if not colon]:
        raise directive.error(f"a line of {{{directive.name}}} must read 'name: text', got {bare[0]!r}")
    return [(name.strip(), text.strip()) for name, _, text in lines]


def short(title):
    """The title of a page without what follows its colon."""
    return re.split("[:：]", title)[0]


def box(x, y, width, kind, page):
    """A chapter: a link around a rectangle, its title and what it is about."""
    address, title, about = (html.escape(text) for text in page)
    return (
        f'<a href="{address}" class="{kind}"><rect x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="8"/>'
        f'<text x="{x + 16}" y="{y + 30}" class="name">{title}</text>'
        f'<text x="{x + 16}" y="{y + 53}">{about}</text></a>'
    )


def column(x, y, width, number, part):
    """A part, downwards: its heading, its chapters, an arrow from each to the next; and where it ends."""
    caption, pages = part
    drawing = [
        f'<text x="{x}" y="{y + 14}" class="part-{number}"><tspan class="name">Part {"I" * number}</tspan> '
        f"{html.escape(caption)}</text>"
    ]
    y += 30
    for i, page in enumerate(pages):
        if i:
            drawing.append(f'<path d="M{x + width / 2} {y - GAP}v{GAP - 3}m-4 -5l4 5l4 -5"/>')
        drawing.append(box(x, y, width, f"part-{number}", page))
        y += BOX_HEIGHT + GAP
    return drawing, y


def drawn(first, parts, *, across):
    """The map as SVG.

    Args:
        first: address, title and subject of the page that comes before the parts.
        parts: caption and pages of each part.
        across: the parts beside each other, or else below each other.
    """
    width = 960 if across else 400
    inner = width - 2 * EDGE
    drawing, top = [box(EDGE, EDGE, inner, "first", first)], EDGE + BOX_HEIGHT + GAP + 4
    bottom = top
    each = (inner - (len(parts) - 1) * GAP) / len(parts) if across else inner
    for i, part in enumerate(parts):
        x, y = (EDGE + i * (each + GAP), top) if across else (EDGE, bottom)
        lines, end = column(round(x, 1), y, round(each, 1), i + 1, part)
        drawing += lines
        bottom = max(bottom, end + (0 if across else 8))
    shown = "wide" if across else "narrow"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom}" role="group" '
        f'aria-label="A map of the book" class="scorebook-map on-{shown}-screens">{"".join(drawing)}</svg>'
    )


def map_of(app, here, lines):
    """The two drawings."""
    about = dict(lines)
    order = app.env.toctree_includes[app.config.root_doc]
    unknown = [name for name in about if name not in order and " " not in name]
    if unknown:
        raise ValueError(f"{{chapter-map}} in {here} names pages that are not in _toc.yml: {', '.join(unknown)}")

    def page(name):
        return app.builder.get_relative_uri(here, name), short(app.env.titles[name].astext()), about[name]

    first, *rest = lines
    parts = []
    for name, text in rest:
        if name in order:
            parts[-1][1].append(page(name))
        else:
            parts.append((text, []))
    svg = drawn(page(first[0]), parts, across=True) + drawn(page(first[0]), parts, across=False)
    return nodes.raw("", svg, format="html")


def length(minutes):
    """Minutes as one says them: to a quarter of an hour where there are many."""
    if minutes < 90:
        return f"{minutes} min"
    quarters = round(minutes / 15)
    return f"{quarters // 4}{('', ' ¼', ' ½', ' ¾')[quarters % 4]} h"


def routes(app, here, lines):
    """A row for each way: its pages, linked, and the time to read them."""
    order = app.env.toctree_includes[app.config.root_doc]
    notebooks = [name for name in order if app.env.doc2path(name).endswith(".ipynb")]
    rows = []
    for name, text in lines:
        pages = notebooks if text == "all" else [page.strip() for page in text.split(",")]
        minutes = sum(reading_minutes(app.env.get_doctree(page)) for page in pages)
        linked = nodes.inline()
        if text == "all":
            linked += nodes.Text("every chapter")
        else:
            for i, page in enumerate(pages):
                linked += [nodes.Text(", ")] * (i > 0)
                address = app.builder.get_relative_uri(here, page)
                linked += nodes.reference("", short(app.env.titles[page].astext()), internal=True, refuri=address)
        rows.append((name, linked, length(minutes)))
    return shown_table(("If you have", "go through", "to read"), rows, numeric=(2,))


MAKERS = {"map": map_of, "routes": routes}


def fill(app, document, name):
    """Puts what was wanted in its place."""
    for place in list(document.findall(Wanted)):
        place.replace_self(MAKERS[place["what"]](app, name, place["lines"]))


def setup(app):
    """Registers the extension."""
    app.add_node(Wanted)
    app.add_directive("chapter-map", ChapterMap)
    app.add_directive("routes", Routes)
    app.connect("doctree-resolved", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
