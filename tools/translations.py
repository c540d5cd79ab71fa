r"""Keeps the catalogues in step with the book, and refuses a translation that has drifted from its message.

``make translate`` writes into each catalogue the messages that its page has now, and lists what is left to do. A
message that has changed keeps its old translation, marked fuzzy, until somebody has looked at it. ``make translate
PAGES=langevin`` does the same for one page and says whatever is wrong on it, with the page and the line.

A translation must have the formulas, numbers, links, code and citations of its message, each the same number of
times; the Chinese terms of the glossary for its English ones; Chinese punctuation; and about the length that one
expects. What may differ, and why, is told in ``locale/zh_CN/exceptions.yaml``.
"""

import functools
import re
import statistics
import sys
from collections import Counter
from pathlib import Path

import yaml
from babel.messages.catalog import Catalog
from catalogues import (
    COMMON,
    FENCED,
    HAN,
    LANGUAGE,
    LIVE,
    MEASURED,
    QUOTED,
    catalogue,
    messages,
    pages,
    parser,
    words,
    write,
)

__all__ = ["complaints", "exceptions", "left", "main", "problems", "terms", "update", "whole"]

ROOT = Path(__file__).resolve().parent.parent

FORMULA = re.compile(r"\$\$(?P<display>.+?)\$\$|(?<!\\)\$(?P<inline>[^$]+)\$", re.DOTALL)
CODE = re.compile(r"(?<!\})(`+)(.+?)\1", re.DOTALL)
ROLE = re.compile(r"\{([\w:]+)\}`(?:[^`<]*<([^>`]+)>|([^`]+))`")
LINK = re.compile(r"\]\(([^)\s]+)(?:\s\"[^\"]*\")?\)|<(https?://[^>]+)>")
NUMBER = re.compile(r"(?<![A-Za-z0-9_])\d+(?:,\d{3})+(?:\.\d+)?|(?<![A-Za-z_\d.])\d+(?:\.\d+)?")
FIELD = re.compile(r"\{(\w+)\}")
TITLE = r"\(\d{4}[a-z]?\)[.,]\s[^*\[]+"  # of a paper, after its year
HALF_WIDTH = re.compile(rf"[{HAN}]\s?[,;:?!](?!\w)|[{HAN}][.](?![\w.])|[{HAN}]\(|\)[{HAN}]\(|[,;:?!]\s*[{HAN}]")
BOUNDS = (0.7, 3.6)  # Chinese characters and Latin words for each word of English
WORTH_A_LOOK = (1.0, 2.6)


def _formulas(text):
    """Each formula without its spaces; words that stand in it as text may be put into Chinese."""
    found = []
    for match in FORMULA.finditer(text):
        formula = re.sub(r"\\(?:text|textrm|mbox)\{[^{}]*\}", r"\\text{}", match["display"] or match["inline"])
        found.append(re.sub(r"\s+", "", formula))
    return Counter(found)


def parts(text):
    """What a translation has to keep: a counter for each kind."""
    bare = FORMULA.sub(" ", text)
    roles = Counter(f"{role} {target or own}" for role, target, own in ROLE.findall(bare))
    bare = ROLE.sub(" ", bare)
    code = Counter(found[1] for found in CODE.findall(bare))
    bare = CODE.sub(" ", bare)
    links = Counter(one or other for one, other in LINK.findall(bare))
    bare = LINK.sub(" ", bare)
    fields = Counter(FIELD.findall(bare))
    bare = FIELD.sub(" ", bare)
    claims = re.split(r"\*(?:" + "|".join(MEASURED) + r")\*", text)[1:]
    numbers = Counter(n.replace(",", "") for n in NUMBER.findall(bare))
    return {
        "formula": _formulas(text),
        "number": numbers,
        "link": links,
        "code": code,
        "role": roles,
        "field": fields,
        "claim": Counter(claim for named in claims for claim in QUOTED.findall(named)),
    }


def _told(counter):
    return ", ".join(f"{thing}" + (f" ({n} times)" if n > 1 else "") for thing, n in sorted(counter.items()))


def _length(english, chinese):
    """Chinese characters and Latin words for each word of English, formulas, code and links apart."""
    plain = [re.sub(r"[*_\\|]", " ", FENCED.sub(" ", text)) for text in (english, chinese)]
    n_words = len(re.findall(r"[A-Za-z0-9][\w'’-]*", plain[0]))
    size = len(re.findall(f"[{HAN}]", plain[1])) + len(re.findall(r"[A-Za-z0-9][\w'’.-]*", plain[1]))
    return n_words, size / max(n_words, 1)


@functools.cache
def exceptions(root=ROOT):
    """What may differ: ``terms``, further Chinese for an English term, and ``messages``, by how they begin."""
    path = root / "locale" / LANGUAGE / "exceptions.yaml"
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"terms": {}, "messages": {}} | (found or {})


@functools.cache
def terms(root=ROOT):
    """English term to the Chinese ones that the glossary and its exceptions allow; the longest term first."""
    path, found = root / "book" / "glossary.md", {}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    for english, chinese in re.findall(r'^(\S.*)\n  <span lang="zh-Hans">(.+?)</span>', text, re.M):
        names = [name.strip() for name in re.split(r"[,，;；、/（）()]", chinese) if name.strip()]
        names += [english] * bool(re.fullmatch(r"[A-Z-]{2,}", english))  # an abbreviation is read in Chinese too
        found[english] = names + exceptions(root)["terms"].get(english, [])
    if unknown := exceptions(root)["terms"].keys() - found.keys():
        raise ValueError(f"exceptions.yaml names terms that are not in the glossary: {', '.join(sorted(unknown))}")
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


@functools.cache
def _pattern(term):
    """The term, a plural too, whatever its first letter; an abbreviation as it is."""
    escaped = re.escape(term).replace(r"\ ", r"[\s-]+").replace(r"\-", r"[\s-]")
    plural = r"(?:s|es)?" if term[-1].isalpha() and not term.isupper() else ""
    flags = 0 if re.search(r"[A-Z]{2}", term) else re.IGNORECASE
    return re.compile(rf"(?<![\w-]){escaped}{plural}(?![\w-])", flags)


def _lost_terms(english, chinese, root):
    for kept in re.findall(rf"{TITLE}|\*[^*]+\*|\"[^\"]+\"|“[^”]+”", english):  # what stays as it is
        english = english.replace(kept, " ") if kept in chinese else english
    english = re.sub(r"\{py:\w+\}`[^`<]*`", " ", english)  # a name in the package, which is no English
    bare = FORMULA.sub(" ", LINK.sub(" ", CODE.sub(" ", re.sub(r"\{[\w:]+\}`([^`<]*)(?:<[^>]*>)?`", r"\1", english))))
    for term, names in terms(root).items():
        bare, n = _pattern(term).subn(" ", bare)
        if n and not any(name.replace(" ", "").lower() in chinese.replace(" ", "").lower() for name in names):
            yield f"the term {term!r} is {' or '.join(names)} in the glossary, and none of these is in the translation"


def _inline(text):
    return parser().parseInline(text, {})[0].children


def problems(english, chinese, root=ROOT):
    """What is wrong with a translation, each in a sentence; nothing where all is well."""
    allowed = next((may for begin, may in exceptions(root)["messages"].items() if english.startswith(begin)), ())
    found = []
    before, after = parts(english), parts(chinese)
    for kind, expected in before.items():
        missing, added = expected - after[kind], after[kind] - expected
        if kind == "formula":  # Chinese names a thing again where English has a pronoun
            missing, added = (
                {f: 1 for f in one if f not in other}
                for one, other in ((expected, after[kind]), (after[kind], expected))
            )
        if missing and kind not in allowed:
            found.append(f"the {kind} {_told(missing)} is missing in the translation")
        if added and kind not in allowed:
            found.append(f"the {kind} {_told(added)} is not in the message")
    if "term" not in allowed:
        found += _lost_terms(english, chinese, root)
    if not re.search(f"[{HAN}]", chinese):
        return found  # a name that stays as it is
    plain = FENCED.sub("x", chinese)
    if "punctuation" not in allowed and (wrong := HALF_WIDTH.search(plain)):
        found.append(
            f"punctuation of half width beside Chinese: {plain[max(wrong.start() - 4, 0) : wrong.end() + 4]!r}"
        )
    stars = ["".join(t.content for t in _inline(text) if t.type == "text").count("*") for text in (english, chinese)]
    if stars[1] > stars[0]:
        found.append(
            "a mark of emphasis is not closed, or stands where Markdown does not see it: put no punctuation "
            "just inside it"
        )
    strong = [sum(t.type == "strong_open" for t in _inline(text)) for text in (english, chinese)]
    if strong[0] != strong[1] and "strong" not in allowed:
        found.append(f"{strong[0]} strong passages in the message and {strong[1]} in the translation")
    n_words, ratio = _length(english, chinese)
    if n_words >= 12 and not BOUNDS[0] <= ratio <= BOUNDS[1] and "length" not in allowed:
        found.append(f"{ratio:.1f} characters for each English word, where {BOUNDS[0]} to {BOUNDS[1]} are expected")
    if (left_over := untranslated(chinese)) and "english" not in allowed:
        found.append(f"an English sentence stands in the translation: {left_over!r}")
    return found


def untranslated(text):
    """The first run of five or more English words in a text, outside formulas, code, links, titles and names."""
    plain = re.sub(rf"{TITLE}|\*[^*]+\*|“[^”]*”|\"[^\"]*\"|\[[^\]]*\]", " x, ", FENCED.sub(" x, ", text))
    for run in re.findall(r"[A-Za-z][A-Za-z'’-]*(?:[ ,]+[A-Za-z][A-Za-z'’-]*){4,}", plain):
        if sum(word.islower() for word in re.split(r"[ ,]+", run)) >= 4:
            return run
    return None


def _where(path, piece, root):
    place = f"{path.relative_to(root)}"
    return f"{place}, cell {piece.cell}, line {piece.line}" if piece.cell else f"{place}:{piece.line}"


def update(name, shown=(), root=ROOT, elsewhere=None):
    """Writes the messages of a page into its catalogue; what has changed keeps its translation, marked fuzzy.

    Args:
        name: of the page.
        shown: texts that the page shows and no source has.
        root: the repository.
        elsewhere: translations in other catalogues, for a text that was shared by pages, or is from now on.

    Returns:
        The catalogue.
    """
    old, template = catalogue(name, root), Catalog(charset="utf-8")
    for path, piece in messages(name, root):
        template.add(piece.text, auto_comments=[f"{piece.cell or path.name} {piece.kind}"])
    for text in shown:
        if text not in template:
            template.add(text, auto_comments=["shown"])
    had = {message.id for message in old if message.id}
    old.update(template, no_fuzzy_matching=False)
    for message in old:
        if message.id and message.id not in had and message.id in (elsewhere or {}):
            message.string = elsewhere[message.id]
            message.flags.discard("fuzzy")
    write(name, old, root)
    return old


def left(name, root=ROOT):
    """Where something is left to do on a page: place, what, and the message."""
    found, known = [], catalogue(name, root)
    here, seen = messages(name, root), set()
    for path, piece in here:
        if piece.text in seen:
            continue
        seen.add(piece.text)
        message = known.get(piece.text)
        if piece.text in words(COMMON, root):
            continue
        if message is None or not message.string:
            found.append((_where(path, piece, root), "missing", piece.text))
        elif message.fuzzy:
            found.append((_where(path, piece, root), "fuzzy", piece.text))
    for message in known:
        if message.id and message.id not in seen and (not message.string or message.fuzzy):
            state = "fuzzy" if message.fuzzy else "missing"
            found.append((f"{name}, shown by the page", state, message.id))
    return found


def complaints(name, root=ROOT):
    """What is wrong with the translations that a page has, each with its place."""
    places = {}
    for path, piece in messages(name, root):
        places.setdefault(piece.text, _where(path, piece, root))
    found = []
    for message in catalogue(name, root):
        if message.id and message.string and not message.fuzzy:
            place = places.get(message.id, f"{name}, shown by the page")
            found += [
                f"{place}: {problem}\n    {message.id[:90]}" for problem in problems(message.id, message.string, root)
            ]
    return found


def whole(root=ROOT):
    """Whether no page has a message that is missing or fuzzy, so that the edition may be published."""
    names = [*pages(root), COMMON, LIVE]
    return all(_page_is_whole(name, root) for name in names)


def _page_is_whole(name, root):
    return any(m.id for m in catalogue(name, root)) and not left(name, root)


def _report(name, root, *, long):
    todo, wrong = left(name, root), complaints(name, root)
    n = sum(len(text.split()) for _, _, text in todo)
    print(f"{name:26} {len(todo):5} messages, {n:6} words left, {len(wrong):4} faults")
    if long:
        for place, state, text in todo:
            print(f"{place}: {state}: {text[:90]}")
        print(*wrong, sep="\n")
        pairs = [(m.id, m.string) for m in catalogue(name, root) if m.id and m.string and not m.fuzzy]
        ratios = [(ratio, e) for e, c in pairs for n, ratio in [_length(e, c)] if n >= 12]
        if ratios:
            print(
                f"{statistics.median(r for r, _ in ratios):.2f} characters for each word in the median; worth a look:"
            )
            for ratio, english in sorted(ratios):
                if not WORTH_A_LOOK[0] <= ratio <= WORTH_A_LOOK[1]:
                    print(f"  {ratio:.2f}  {english[:90]}")
    return len(todo), n, len(wrong)


def main(names, root=ROOT):
    """Brings catalogues up to date, and prints what is left; the number of faults."""
    from shown import of_pages  # it needs the built pages

    found = of_pages(root)
    elsewhere = {text: chinese for name in [*pages(root), COMMON] for text, chinese in words(name, root).items()}
    for name in [*pages(root), COMMON, LIVE]:
        if not names or name in names or name in (COMMON, LIVE):
            shown = found.get(name, [])
            if name not in found or (name == COMMON and not all(page in found for page in pages(root))):
                # Not built: what the catalogue has from another build stays.
                kept = [m.id for m in catalogue(name, root) if m.id and "shown" in m.auto_comments]
                shown = list(dict.fromkeys([*shown, *kept]))
            update(name, shown, root, elsewhere)
    wanted = names or [*pages(root), COMMON, LIVE]
    totals = [_report(name, root, long=bool(names)) for name in wanted]
    print(
        f"{'all of these':26} {sum(t[0] for t in totals):5} messages, {sum(t[1] for t in totals):6} words left, "
        f"{sum(t[2] for t in totals):4} faults"
    )
    return sum(t[2] for t in totals)


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
