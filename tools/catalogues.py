r"""The texts of the book as messages, and the catalogues that hold their translations: one ``.po`` file a page.

A message is what a reader sees as one piece: a paragraph, a heading, a cell of a table, the summary of a fold, an
option of a question. It is Markdown, its lines joined, so that breaking a paragraph anew changes no message.
:func:`pieces` finds the messages of a source and :func:`translated` puts translations in their places; what is around
them, marks of quotes and lists, fences and tags, stays. So a page, and a notebook to take along, come from the same
catalogue.

What is shown but stands in no source, such as the cells of a table that a notebook has computed, is a message in
which each number is a field, ``{1}``, ``{2}``: see :mod:`shown`.
"""

import calendar
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import yaml
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from mdit_py_plugins.dollarmath import dollarmath_plugin  # noqa: F401 - the parser below needs it installed
from myst_parser.config.main import MdParserConfig
from myst_parser.mdit_to_docutils.base import DocutilsRenderer
from myst_parser.parsers.mdit import create_md_parser
from questions import bank

__all__ = [
    "COMMON",
    "LANGUAGE",
    "MEASURED",
    "QUOTED",
    "Piece",
    "captions",
    "catalogue",
    "flat",
    "messages",
    "needs_words",
    "parser",
    "path_of",
    "pattern",
    "pieces",
    "say",
    "sources",
    "spaced",
    "translated",
    "translated_notebook",
    "write",
]

ROOT = Path(__file__).resolve().parent.parent
LANGUAGE = "zh_CN"
COMMON, LIVE = "common", "live"  # the catalogues that belong to no page

UNTRANSLATED = ("api", "references")  # the reference of the package, and the list of what others have written

# What a page says before it names claims, and how it names one.
MEASURED, QUOTED = ("Measured:", "实测"), re.compile("“([^”]+)”")

# Directives whose content is Markdown, whose content is one message, and whose lines are "name: text".
CONTAINERS = {"div", "note", "warning", "tip", "important", "admonition", "margin", "dropdown", "seealso"}
ONE_MESSAGE = {"button-ref"}
OPTION = re.compile(r":(?P<name>[\w-]+):\s*(?P<value>.*)")
NAMED = re.compile(r"```\{(?P<name>[\w-]+)\}|:::+\{(?P<other>[\w-]+)\}")
PREFIX = re.compile(r"[\s>]*(?:(?:[-*+]|\d+[.)]|#{1,6})\s+)*[\s>]*")
MONTHS = list(calendar.month_name)[1:]
PLAIN = r"\d+(?:\.\d+)?(?:e[−+-]?\d+)?"
DATE = re.compile(rf"(\d{{1,2}}) ({'|'.join(MONTHS)}) (\d{{4}})")
NUMBER = re.compile(
    rf"\b{DATE.pattern}\b|(?<![A-Za-z_{{])[−-]?(?:\d+(?:,\d{{3}})+(?:\.\d+)?|{PLAIN})(?: ± {PLAIN})?"
    r"(?: × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?"
)
HAN = r"\u3400-\u9fff"
TAGGED = re.compile(r"(?<=>)(?P<text>[^<>]+)(?=<)|\balt=\"(?P<alt>[^\"]+)\"")
ENTRY = re.compile(r'^(?P<term>\S.*)\n(?P<name>  <span lang="zh-Hans">.+?</span>\\?)\n', re.M)


@dataclass(frozen=True)
class Piece:
    """A message and its place.

    Args:
        text: the message.
        line: the line of its source on which it begins, from 1; of a notebook, within its cell.
        cell: the id of the cell, in a notebook.
        kind: what it is: ``paragraph``, ``heading``, ``cell``, ``summary``, ``option``, ``question``.
    """

    text: str
    line: int
    cell: str = ""
    kind: str = "paragraph"


@functools.cache
def parser():
    """The parser of the book's Markdown, with what Jupyter Book adds to it."""
    extensions = {"colon_fence", "dollarmath", "linkify", "substitution", "tasklist"}  # as Jupyter Book sets them
    return create_md_parser(MdParserConfig(enable_extensions=extensions, dmath_double_inline=True), DocutilsRenderer)


def flat(text):
    """A text with its lines joined; breaks that are meant, a backslash at the end of a line, stay."""
    lines = [" ".join(line.split()) for line in re.split(r"\\\n", text)]
    return "\\\n".join(lines)


def needs_words(text):
    """Whether a text has something to translate: a word outside formulas and code, and no Chinese but as an example."""
    own = re.sub(r'<span lang="zh-Hans">.*?</span>', " ", text, flags=re.DOTALL)
    bare = re.sub(r"\$\$.+?\$\$|\$[^$]+\$|`[^`]*`|https?://\S+|<[^>]*>", " ", own, flags=re.DOTALL)
    return bool(re.search(r"[A-Za-z]{2}", bare)) and not re.search(f"[{HAN}]", own)


def pattern(text):
    """A text with a field for each number, and the numbers."""
    numbers = []

    def field(match):
        numbers.append(match[0])
        return f"{{{len(numbers)}}}"

    return NUMBER.sub(field, " ".join(text.split())), numbers


def _name(token):
    named = re.match(r"\{([\w-]+)\}", token.info.strip())
    return named[1] if named else None


class _Walk:
    """One pass over a source: finds the pieces, and, given a translator, replaces them."""

    def __init__(self, source, say=None):
        self.lines, self.say, self.found, self.new = source.split("\n"), say, [], {}

    def note(self, text, line, kind):
        text = flat(text)
        if not needs_words(text):
            return text
        self.found.append(Piece(text, line + 1, kind=kind))
        return self.say(text) if self.say else text

    def run(self):
        tokens = parser().parse("\n".join(self.lines), {})
        row = None
        for i, token in enumerate(tokens):
            if token.type == "tr_open":
                row = token.map[0], []
            elif token.type == "tr_close":
                self.row(*row)
                row = None
            elif token.type == "inline" and token.content.strip():
                if row is not None:
                    row[1].append(token.content)
                    continue
                kind = "heading" if tokens[i - 1].type == "heading_open" else "paragraph"
                self.text(token, kind)
            elif token.type == "html_block":
                self.html(token)
            elif token.type in {"fence", "colon_fence"} and _name(token):
                self.directive(token, _name(token))
        return self

    def text(self, token, kind):
        begin, end = token.map
        first = token.content.split("\n")[0]
        at = self.lines[begin].find(first)
        before = self.lines[begin][: max(at, 0)]
        if at < 0 or PREFIX.fullmatch(before) is None:
            raise ValueError(f"line {begin + 1}: cannot tell the marks before the text in {self.lines[begin]!r}")
        text = self.note(token.content, begin, kind)
        if self.say and text != flat(token.content):
            further = re.sub(r"[^\s>]", " ", before)
            self.new[begin, end] = [(before if i == 0 else further) + t for i, t in enumerate(text.split("\n"))]

    def row(self, begin, cells):
        said = [self.note(cell, begin, "cell") for cell in cells]
        if self.say and said != [flat(cell) for cell in cells]:
            before = re.match(r"[\s>]*", self.lines[begin])[0]
            self.new[begin, begin + 1] = [before + "| " + " | ".join(s.replace("|", r"\|") for s in said) + " |"]

    def html(self, token):
        begin, end = token.map
        raw = "\n".join(self.lines[begin:end])
        for found in TAGGED.finditer(token.content):
            text = found["text"] or found["alt"]
            if needs_words(text):
                said = self.note(text.strip(), begin + token.content[: found.start()].count("\n"), "summary")
                if text not in raw:
                    raise ValueError(f"line {begin + 1}: a text in HTML goes over several lines of a quote: {text!r}")
                raw = raw.replace(text, said, 1)
        if self.say:
            self.new[begin, end] = raw.split("\n")

    def directive(self, token, name):
        begin, end = token.map
        inside = self.lines[begin + 1 : end - 1]
        if name == "glossary":
            inside = self.glossary(inside, begin + 1)
        elif name in {"chapter-map", "routes"}:
            inside = [self.pair(name, line, begin + 1 + i) for i, line in enumerate(inside)]
        elif name == "image":
            inside = [self.option(line, begin + 1 + i) for i, line in enumerate(inside)]
        elif name in ONE_MESSAGE:
            inside = [
                line if OPTION.match(line) or not line.strip() else self.note(line, begin + 1 + i, "button")
                for i, line in enumerate(inside)
            ]
        elif name in CONTAINERS:
            inner = _Walk("\n".join(inside), self.say).run()
            self.found += [Piece(p.text, p.line + begin + 1, kind=p.kind) for p in inner.found]
            inside = inner.result()
        else:
            return
        if self.say:
            self.new[begin + 1, end - 1] = inside

    def pair(self, directive, line, number):
        """Of ``page: what it is about`` the text, of ``Part I: learn a score`` too, of ``name: pages`` the name."""
        name, colon, text = line.partition(":")
        if not colon:
            return line
        if directive == "routes":
            return f"{self.note(name.strip(), number, 'cell')}:{text}"
        return f"{name}: {self.note(text.strip(), number, 'cell')}"

    def option(self, line, number):
        found = OPTION.match(line)
        if not found or found["name"] != "alt":
            return line
        return f":alt: {self.note(found['value'], number, 'alt')}"

    def glossary(self, lines, begin):
        """The meanings; the English terms stay, for by these the pages name them, and their Chinese names."""
        text, done, at = "\n".join(lines), [], 0
        entries = list(ENTRY.finditer(text))
        for entry, following in zip(entries, [*entries[1:], None], strict=True):
            end = following.start() if following else len(text)
            body = text[entry.end() : end]
            meaning = re.sub(r"^  ", "", body, flags=re.M)
            inner = _Walk(meaning, self.say).run()
            offset = begin + text[: entry.end()].count("\n")
            self.found += [Piece(p.text, p.line + offset, kind="meaning") for p in inner.found]
            said = "\n".join(f"  {line}" if line else line for line in inner.result())
            done += [text[at : entry.end()], said if self.say else body]
            at = end
        return ("".join(done) + text[at:]).split("\n")

    def result(self):
        lines, at = [], 0
        for (begin, end), new in sorted(self.new.items()):
            lines += self.lines[at:begin] + new
            at = end
        return lines + self.lines[at:]


def pieces(source):
    """The messages of a Markdown source, in order."""
    return _Walk(source).run().found


def translated(source, say):
    """A Markdown source with each message put into other words.

    Args:
        source: the Markdown.
        say: from a message to what takes its place.
    """
    return "\n".join(_Walk(source, say).run().result())


def sources(name, root=ROOT):
    """The files from which the messages of a page come: its text, and its questions."""
    candidates = [root / "book" / f"{name}{suffix}" for suffix in (".md", ".ipynb")]
    candidates.append(root / "book" / "questions" / f"{name}.yaml")
    return [path for path in candidates if path.exists()]


def cells(path):
    """Id and source of each cell of text of a notebook."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [(c["id"], "".join(c["source"])) for c in content["cells"] if c["cell_type"] == "markdown"]


def captions(path):
    """The messages that stand beside the code of a notebook: what a figure says in its caption, and to who sees none.

    They are shown with the figures, so each number is a field, as in all that code has made.
    """
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        told = cell["metadata"].get("mystnb", {})
        texts = {
            "alternative": told.get("image", {}).get("alt"),
            "caption": told.get("figure", {}).get("caption"),
            "head": cell["metadata"].get("scorebook", {}).get("head"),
        }
        for kind, text in texts.items():
            if cell["cell_type"] == "code" and text and needs_words(text):
                words = pattern(text)[0] + " ({reference})" * (kind == "head")
                found.append(Piece(words, 0, cell["id"], kind))
    return found


def messages(name, root=ROOT):
    """The messages of a page, in order: :class:`Piece` s, with the file each comes from.

    Args:
        name: of the page.
        root: the repository.
    """
    found = []
    for path in sources(name, root):
        if path.suffix == ".md":
            found += [(path, piece) for piece in pieces(path.read_text(encoding="utf-8"))]
        elif path.suffix == ".ipynb":
            for cell, text in cells(path):
                found += [(path, Piece(p.text, p.line, cell, p.kind)) for p in pieces(text)]
            found += [(path, piece) for piece in captions(path)]
        else:
            for question in bank(path):
                texts = [question.ask] + [text for o in question.options for text in (o.text, o.why)]
                found += [(path, Piece(flat(t), 0, question.id, "question")) for t in texts if needs_words(t)]
    return found


def path_of(name, root=ROOT):
    """The catalogue of a page."""
    return root / "locale" / LANGUAGE / "LC_MESSAGES" / f"{name}.po"


def pages(root=ROOT):
    """The pages of the book that are translated, in order."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    names = [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]
    return [name for name in names if name not in UNTRANSLATED]


def catalogue(name, root=ROOT):
    """The catalogue of a page as Babel reads it; an empty one where there is none yet."""
    path = path_of(name, root)
    if not path.exists():
        return Catalog(locale=LANGUAGE, project="scorebook", version="0.1", charset="utf-8")
    with path.open("rb") as file:
        return read_po(file, locale=LANGUAGE)


def write(name, catalog, root=ROOT):
    """Writes a catalogue, with no line broken and no date, so that a change is seen as what it is."""
    path = path_of(name, root)
    path.parent.mkdir(parents=True, exist_ok=True)
    for message in catalog:
        message.flags -= {"python-format", "python-brace-format"}  # a formula is no format
    with path.open("wb") as file:
        write_po(file, catalog, width=0, omit_header=True)
    text = path.read_text(encoding="utf-8")
    head = (
        'msgid ""\nmsgstr ""\n"Language: zh_CN\\n"\n"MIME-Version: 1.0\\n"\n'
        '"Content-Type: text/plain; charset=utf-8\\n"\n"Content-Transfer-Encoding: 8bit\\n"\n\n'
    )
    path.write_text(head + text, encoding="utf-8")


FENCED = re.compile(r"(\$\$.+?\$\$|\$[^$]+\$|`[^`]+`|\]\([^)]*\)|<[^>]*>)", re.DOTALL)
ROLE = re.compile(r"(.*?)(\{[\w:]+\})?", re.DOTALL)  # what stands before a role, and its name
BESIDE = re.compile(rf"(?<=[{HAN}])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[{HAN}])")


def spaced(text):
    """A Chinese text with a space between Chinese and Latin words, numbers, formulas and code, as one sets it."""
    parts = FENCED.split(text)
    for i in range(0, len(parts), 2):
        parts[i] = BESIDE.sub(" ", parts[i])
    for i in range(1, len(parts), 2):
        if parts[i][0] not in "$`":
            continue
        before, role = ROLE.fullmatch(parts[i - 1]).groups("")
        shown = re.sub(r"\s*<[^>]*>$", "", parts[i].strip("`")) if role else ""
        first, last = (c if re.match(f"[{HAN}]", c) else "x" for c in (shown[:1], shown[-1:]))
        if BESIDE.search(before[-1:] + first):
            parts[i - 1] = f"{before} {role}"
        if BESIDE.search(last + parts[i + 1][:1]):
            parts[i + 1] = " " + parts[i + 1]
    return "".join(parts)


@functools.cache
def _words(path, changed):
    with path.open("rb") as file:
        found = read_po(file, locale=LANGUAGE)
    return {m.id: spaced(m.string) for m in found if m.id and m.string and not m.fuzzy}


def words(name, root=ROOT):
    """Message to translation of one catalogue, what is fuzzy or missing left out."""
    path = path_of(name, root)
    return _words(path, path.stat().st_mtime_ns) if path.exists() else {}


def say(name, root=ROOT):
    """A function from a message of a page to its translation; what has none stays as it is."""
    known = words(COMMON, root) | words(name, root)
    return lambda text: known.get(flat(text), text)


def translated_notebook(notebook, say):
    """A notebook, as JSON, with its texts put into other words; code stays."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = translated("".join(cell["source"]), say).splitlines(keepends=True)
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
