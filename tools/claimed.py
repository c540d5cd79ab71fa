"""A Sphinx extension that leads from the closing table of a page to the sections in which its claims are made.

:func:`scorebook.lab.claims` groups the rows by the titles of sections, which a notebook cannot link to. Here each title
becomes a link to the section of that title, or to the one whose title begins so; where there is none the build warns.
"""

import html
import re

from docutils import nodes
from sphinx.util import logging

__all__ = ["lead", "plain", "section_of", "setup"]

GROUP = re.compile(r'<th ([^>]*)data-section="([^"]*)">([^<]*)</th>')

logger = logging.getLogger(__name__)


def section_of(sections, title):
    """The one section that a title names.

    Args:
        sections: title to id, of a page.
        title: a whole title, or as many of its first words as tell it from others.

    Returns:
        The id, or None where no section or more than one is meant.
    """
    if title in sections:
        return sections[title]
    begun = [i for whole, i in sections.items() if re.match(rf"{re.escape(title)}\b", whole)]
    return begun[0] if len(begun) == 1 else None


def plain(title):
    """A title as it was typed: the build makes an apostrophe round."""
    return title.replace("’", "'")


def lead(app, document, name):
    """Puts the links into a page."""
    tables = [raw for raw in document.findall(nodes.raw) if raw.get("format") == "html" and GROUP.search(raw.astext())]
    # A section of another edition says what it is called in English, as the outputs of its cells do.
    named = ((section.get("english") or section[0].astext(), section) for section in document.findall(nodes.section))
    sections = {plain(title): section["ids"][0] for title, section in named} if tables else {}

    def linked(group):
        place = section_of(sections, title := plain(html.unescape(group[2])))
        if place is None:
            logger.warning("claims are grouped under %r, and no one section has this title", title, location=name)
            return group[0]
        return f'<th {group[1]}><a class="reference internal" href="#{place}">{group[3]}</a></th>'

    for raw in tables:
        raw.rawsource = GROUP.sub(linked, raw.astext())
        raw.children = [nodes.Text(raw.rawsource)]


def setup(app):
    """Registers the extension."""
    app.connect("doctree-resolved", lead)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
