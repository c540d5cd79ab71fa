r"""What a page shows and no source has: cells of tables, claims, folds, alternative texts, the words of live figures.

They come out of code and carry the numbers of the run. A message is such a text with a field for each number,
``{1}``, ``{2}``; its translation has the same fields, wherever Chinese puts them, and the numbers of the English page
go there. So no notebook is executed for a second edition, and its numbers are those of the first. :func:`of_pages`
finds the messages in the English pages as they were built, :func:`translate` puts the translations into a page.
"""

import re
from collections import Counter
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString, Tag
from catalogues import COMMON, DATE, HAN, LIVE, MONTHS, needs_words, pages, pattern, spaced, words

__all__ = ["AS_IT_IS", "FRAME", "fill", "left_over", "live_messages", "of_pages", "said", "translate", "units"]

ROOT = Path(__file__).resolve().parent.parent

FIELD = re.compile(r"\{(\d+)\}")

# What code has made, in an article.
REGIONS = (
    ".scorebook-table-box",
    ".scorebook-headlines",
    "details.scorebook-rows > summary",
    ".at-a-glance",
    "div.cell details.hide > summary",
    "svg.scorebook-map",
    ".cell_output img[alt]",
    "figcaption",
    ".stands-at-the-head",
    ".scorebook-explorer",
    "p.scorebook-made",
)
AS_IT_IS = "notranslate"  # the class of a name, a version, a date
SILENT = {"pre", "code", "script", "style", "math", "kbd", "noscript"}
ATTRIBUTES = ("alt", "aria-label", "title", "placeholder", "data-label")

# What the theme, and the book's own script, say in English whatever the language.
FRAME = (
    "Learn a score", "Sample with a score", "Continuous time", "Begin here", "Beyond", "Teach", "Use", "Reference",
    "Code under the MIT licence, text and figures under CC BY 4.0.",
    "Show all code", "the solution", "Go on with {1}", "Light", "Dark", "System Settings", "Color mode: {1}",
    "Link to this heading", "Link to this term", "Home", "Colab", "Launch Colab", "Expand section", "Site navigation",
    "On this page", "Table of Contents", "Toggle hidden content", "Search", "Print to PDF", "Download this page",
    "Fullscreen mode", "Toggle primary sidebar",
    "Toggle secondary sidebar", "Back to top", "Contents", "Previous", "Next",
    "Figure {1}.", "Figure {1}", "Search this book...", "© Copyright the scorebook authors. {br}", "Color mode", "Page",
    "{1} h", "{1} ¼ h", "{1} ½ h", "{1} ¾ h",
    "{1} minute to read · {2} s to run, in this build", "{1} minutes to read · {2} s to run, in this build",
    "{1} minute to read · {2} s to run, in this build on a busy machine, {3} s of them on a processor",
    "{1} minutes to read · {2} s to run, in this build on a busy machine, {3} s of them on a processor",
    "Claim", "Expected", "Measured ± standard error", "A wrong answer gives", "Holds", "{1} within {2}",
    "at least {1}", "at most {1}", "{1} to {2}", "All {1} claims, with what a wrong answer gives",
    "The package", "References", "Test yourself", "Right.", "No.", "See {section}.",
    "over its budget", "busy machine", "over its budget, busy machine", "not run",
    "not known, built outside a repository", "{notranslate}, with changes that are not committed",
)  # fmt: skip


def fill(message, numbers):
    """A translated message with the numbers in its fields."""
    return FIELD.sub(lambda field: numbers[int(field[1]) - 1], message)


def _typed(text):
    """A text as it was typed: the build makes quotation marks round."""
    return text.translate(str.maketrans({"’": "'", "“": '"', "”": '"'}))


def _is_text(node):
    return type(node) is NavigableString and node.strip()


def _silent(tag):
    classes = tag.get("class", ())
    return tag.name in SILENT or "math" in classes or AS_IT_IS in classes or tag.get("translate") == "no"


def units(tag):
    """The pieces of text below a tag, each with what puts another text in its place.

    A piece is what one element says itself; an element within it is a field, ``{measured}`` if that is its class,
    and has pieces of its own.

    Yields:
        The text and a function that takes the new one.
    """
    if _silent(tag):
        return
    for name in ATTRIBUTES:
        if tag.get(name):
            yield tag[name], lambda text, name=name: tag.__setitem__(name, text)
    inner = [child for child in tag.children if isinstance(child, Tag)]
    if any(_is_text(child) for child in tag.children):
        fields, words = {}, []
        for child in tag.children:
            if isinstance(child, Tag):
                name = _field(child)
                while name in fields:
                    name = name[:-1] + "x" + name[-1]
                fields[name] = child
                words.append(name)
            elif type(child) is NavigableString:
                words.append(str(child))
        number = words[0] if "caption-text" in tag.get("class", ()) and words[0] == "{strong}" else ""
        text = "".join(words).removeprefix(number)
        yield text, lambda text: _refill(tag, f"{number} {text}" if number else text, fields)
    for child in inner:
        yield from units(child)


def _field(tag):
    """What stands for an element within a text: a formula and code as in Markdown, else its class or its name."""
    if "math" in tag.get("class", ()):
        return f"${tag.get_text()[2:-2]}$"
    if tag.name == "code":
        return f"`{tag.get_text()}`"
    return f"{{{(tag.get('class') or [tag.name])[0]}}}"


def _refill(tag, text, fields):
    for child in list(tag.children):
        child.extract()
    for piece in re.split(r"(\{[\w-]+\}|\$[^$]+\$|`[^`]+`)", text):
        if piece in fields:
            tag.append(fields[piece])
        elif piece:
            tag.append(NavigableString(piece))


def _worth(text):
    return needs_words(re.sub(r"\{[\w-]+\}", " ", text))


def in_regions(soup):
    """The messages of a page that code has made."""
    article = soup.select_one("article") or soup
    found = {}
    for selector in REGIONS:
        for place in article.select(selector):
            for text, _ in units(place):
                if _worth(message := pattern(_typed(text))[0]):
                    found.setdefault(message)
    return list(found)


def of_pages(root=ROOT):
    """For each page that is built its messages; what several pages share is in the common catalogue.

    Without a built page its entry is missing, and nothing is known of what it shows.
    """
    site, found = root / "_build" / "html", {}
    for name in pages(root):
        path = site / f"{name}.html"
        if path.exists():
            found[name] = in_regions(BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser"))
    count = Counter(text for name, texts in found.items() if name != "status" for text in texts)
    shared = [text for text, n in count.items() if n > 1 or re.match(r"(Show|Hide) the |\{1\} minutes? to read", text)]
    if "status" in found:  # it repeats the claims and the titles of all pages
        theirs = {
            text: chinese for name in pages(root) if name != "status" for text, chinese in words(name, root).items()
        }
        found["status"] = [text for text in found["status"] if text not in count and said(text, theirs) is None]
    known = {*FRAME, *shared}
    found = {name: [text for text in texts if text not in known] for name, texts in found.items()}
    from self_tests import INTRODUCTION  # which needs the catalogues

    return found | {COMMON: [*FRAME, INTRODUCTION, *shared], LIVE: live_messages(root)}


STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`')
LABEL = re.compile(r'\b(?:label|title|hint|alt)\s*:\s*"([^"]+)"')
OPTIONS = re.compile(r'\["\w+", "([^"]+)"\]')


def live_messages(root=ROOT):
    """The words of the figures that live, out of their sources."""
    found = dict.fromkeys(("Run", "Pause", "Step", "Reset", "Link", "seed"))
    for path in sorted((root / "scorebook" / "lab" / "live").glob("f*/*.js")):
        code = re.sub(r"^\s*(?://|/?\*).*$", "", path.read_text(encoding="utf-8"), flags=re.M)
        texts = [*LABEL.findall(code), *OPTIONS.findall(code)]
        for plain, template in STRING.findall(code):
            text = plain or template
            if re.search(r"[A-Za-z]{2,}.*\s", text) and not re.search(
                r"[;=]|px\b|\brgba|\bsl-|^\(|\bgot \$|must be|is named", text
            ):
                texts.append(text)
        for text in texts:
            n = iter(range(1, 20))
            text = re.sub(r"\$\{(?:[^{}]|\{[^{}]*\})*\}", lambda _: f"{{{next(n)}}}", text)  # noqa: B023 - used at once
            if needs_words(re.sub(r"\{\d+\}", " ", text)):
                found.setdefault(" ".join(text.replace('\\"', '"').split()))
    return list(found)


def said(text, known):
    """A text that code has made in other words, with its numbers; None where the catalogues do not have it."""
    message, numbers = pattern(_typed(text))
    found = known.get(message)
    if found is None and message != " ".join(text.split()):
        found = known.get(" ".join(_typed(text).split()))  # a number that belongs to a name
    if found is None and DATE.fullmatch(text.strip()):
        found = message
    return None if found is None else spaced(fill(found, [_in_chinese(number) for number in numbers]))


def _in_chinese(number):
    """A date as Chinese writes it; any other number as it is."""
    if not (day := DATE.fullmatch(number)):
        return number
    return f"{day[3]}年{MONTHS.index(day[2]) + 1}月{day[1]}日"


def translate(soup, known):
    """Puts every text of a page that the catalogues have into their words; what they have not stays."""
    for text, put in list(units(soup)):
        if (other := said(text, known)) is not None:
            put(other)


FOREIGN = (
    "[lang=en], .highlight, #references, .bibliography, .scorebook-live, [lang=zh-Hans], dl.glossary dt, .std-term"
)
WORK = re.compile(r"\(\d{4}[a-z]?\)[.,]? .*\{reference\}", re.DOTALL)  # its authors, year and title, and where it is
SENTENCE = re.compile(r"[A-Za-z][A-Za-z'’-]*(?:[ ,]+[A-Za-z][A-Za-z'’-]*){3,}")


def left_over(soup):
    """The English that a Chinese page still shows: texts of four words and more without a Chinese one."""
    article = soup.select_one("article") or soup
    for foreign in article.select(FOREIGN):
        foreign.decompose()
    found = []
    for text, _ in units(article):
        if not re.search(f"[{HAN}]", text) and SENTENCE.search(text) and _worth(text) and not WORK.search(text):
            found.append(" ".join(text.split())[:120])
    return found
