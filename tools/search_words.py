"""A Sphinx extension by which the search finds the chapter that treats a term, asked in English or in Chinese.

The search of Sphinx ranks the functions of the reference above the text that derives them, and finds a Chinese word
only on the page that has it, the glossary. Each entry of the glossary ends with a link to the place where its term is
treated. That place gets the term, in both languages and in other spellings, as an entry of the index, which the search
puts first.

When Sphinx builds over an earlier build, it takes from the old search index the words of pages that have not changed,
and forgets their entries. So whenever a page has changed, those that have entries are written anew.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

__all__ = ["setup", "spoken", "terms"]

ENTRY = re.compile(
    r'^(?P<english>\S.*)\n  <span lang="zh-Hans">(?P<chinese>.+?)</span>\\?(?P<text>(?:\n(?:  .*)?)*)', re.M
)
PLACE = re.compile(r"\]\((?P<page>\w+)\.(?:ipynb|md)(?:#(?P<anchor>[^)\s]+))?\)")

LONGEST = 6  # characters: within twice what most queries have

# How Chinese papers write the same.
SPELLINGS = (
    ("朗之万", "郎之万"),
    ("得分", "分数"),
    ("图像修复", "图像补全"),
    ("提议分布", "建议分布"),
    ("校正", "调整"),
)


def spoken(english, chinese):
    """The words under which a term is looked for.

    The search asks that a query be at least half as long as what it finds: the name with which a term begins, and the
    parts of a long Chinese term, are therefore entries of their own.
    """
    words = [english, *re.findall(r"^[A-Z][a-z]+\b", english)]
    for term in re.split(r"[,，;；、/()（）\s]+", chinese):
        words += [term, *(term[i : i + LONGEST] for i in range(len(term) - LONGEST + 1))]
    words += [word.replace(one, other) for word in words for one, other in SPELLINGS if one in word]
    return [word for word in dict.fromkeys(word.lower() for word in words) if len(word) > 1]


def terms(glossary):
    """For each page the words for which it is the place, with the anchor in it."""
    found, shortest = {}, {}
    for entry in sorted(ENTRY.finditer(glossary), key=lambda entry: len(entry["english"])):
        places = list(PLACE.finditer(entry["text"].replace("\n  ", " ")))
        if places:
            page = found.setdefault(places[-1]["page"], [])
            here = (places[-1]["page"], places[-1]["anchor"] or "")
            # Of terms that begin with one name, the shortest is what the name alone stands for.
            words = spoken(entry["english"], entry["chinese"])
            page += [(word, here[1]) for word in words if shortest.setdefault(word, here) == here]
    return found


def _places(app):
    """What :func:`terms` finds in the glossary of a book, if it has one."""
    path = Path(app.srcdir) / "glossary.md"
    return terms(path.read_text(encoding="utf-8")) if path.exists() else {}


def enter(app, document, name):
    """Adds the entries to a page that is the place for some terms."""
    # Where several terms are treated in one place, each leads there.
    words = _places(app).get(name, ())
    there = {anchor for section in document.findall(nodes.section) for anchor in section["ids"]}
    entries = [("single", word, anchor, "main", None) for word, anchor in words if not anchor or anchor in there]
    if entries:
        document.insert(0, addnodes.index(entries=entries))


def anew(app, env):
    """The pages that are to be written with those that have changed, lest the search forget their entries."""
    if not getattr(app, "pages_have_changed", False):
        return []
    own = {name for name, entries in env.get_domain("index").entries.items() if entries}
    return sorted((own | _places(app).keys()) & env.found_docs)


def _remember(app, env, names):
    app.pages_have_changed = bool(names)


def setup(app):
    """Registers the extension."""
    app.connect("doctree-resolved", enter)
    app.connect("env-before-read-docs", _remember)
    app.connect("env-updated", anew)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
