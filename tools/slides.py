r"""A deck of slides for each chapter, cut from the chapter itself: ``make slides``.

A file of ``book/slides`` says which pieces of its chapter make a slide, and writes none of them anew:

.. code-block:: yaml

    - section: The score does not see Z               # heading of the slide, and where its pieces stand
      show:
      - say: Take the logarithm of the model          # the sentence that begins so, or "it begins so ... and ends so"
      - formula: s_\theta(x) = \nabla_x               # the displayed formula that contains this
      - picture: score-matching-004                   # the figure of the cell of this name
      - table: score-matching-010                     # its table
      - live: score-matching-019                      # the still of its figure that lives; on the page it moves
    - ask: scaled-landscape                           # a question of the bank, to be voted on

Numbers, figures and tables are those of the last run; the last slide has the headlines of the closing table. The
questions of a section are the speaker's notes of its first slide, with the reasons for and against each option (press
S); those of sections without a slide stand in the notes of the last. A deck asks nobody else for anything: reveal.js,
MathJax and the typeface lie beside it.
"""

import html
import re
import shutil
import sys
from pathlib import Path

import nbformat
import yaml
from browser import ROOT, copy_packages, fetch
from bs4 import BeautifulSoup
from execution_cache import cache_path
from jupyter_cache import get_cache
from questions import bank, inline

from scorebook import lab

__all__ = ["Chapter", "chapters", "deck", "executed", "main", "write_decks"]

FOLDER = ROOT / "book" / "slides"
ASSETS = "assets"

# Folder of the package, below node_modules, and what of it a deck loads.
PACKAGES = {
    "reveal.js": ("LICENSE",),
    "reveal.js/dist": ("reset.css", "reveal.css", "reveal.js"),
    "reveal.js/plugin/notes": ("notes.js",),
    "mathjax": ("LICENSE",),
    "mathjax/es5": ("tex-chtml.js", "input/tex/*", "output/chtml/fonts/*", "a11y/*", "sre/*", "ui/*"),
    "@fontsource-variable/source-serif-4": ("index.css", "wght-italic.css", "files/*-wght-*.woff2", "LICENSE"),
}

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: slides</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="assets/@fontsource-variable/source-serif-4/index.css">
<link rel="stylesheet" href="assets/@fontsource-variable/source-serif-4/wght-italic.css">
<link rel="stylesheet" href="assets/reveal.js/dist/reset.css">
<link rel="stylesheet" href="assets/reveal.js/dist/reveal.css">
<link rel="stylesheet" href="assets/slides.css">
</head>
<body>
<div class="reveal"><div class="slides">
{slides}
</div></div>
<script>window.MathJax = {{chtml: {{matchFontHeight: false}}, options: {{enableMenu: false}}}};</script>
<script defer src="assets/mathjax/es5/tex-chtml.js"></script>
<script src="assets/reveal.js/dist/reveal.js"></script>
<script src="assets/reveal.js/plugin/notes/notes.js"></script>
<script>
Reveal.initialize({{
  width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: true, transition: "none",
  pdfMaxPagesPerSlide: 1,
  plugins: [RevealNotes],
}});
</script>
</body>
</html>
"""

FORMULA = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
# A stop that ends a sentence: after it, space and no small letter. What stands between dollars is no sentence.
STOP = re.compile(r"(?:\$[^$]*\$|`[^`]*`|[^.!?$`]|[.!?](?!\s|$)|[.](?=\s[a-z]))*[.!?]?")


class Chapter:
    """The pieces of an executed notebook.

    Args:
        notebook: the notebook, with its outputs.
    """

    def __init__(self, notebook):
        self.cells = {cell.id: cell for cell in notebook.cells}
        self.text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        self.sections = re.findall(r"^###? (.+)$", self.text, re.M)
        self.title = re.search(r"^# (.+)$", self.text, re.M)[1]
        prose = FORMULA.sub("\n\n", re.sub(r"^> ?", "", self.text, flags=re.M))
        self.paragraphs = [" ".join(block.split()) for block in re.split(r"\n\s*\n", prose)]

    def sentence(self, words):
        """The sentence that begins with some words; with an ellipsis among them, from the first part to the last."""
        begin, _, end = words.partition(" ... ")
        found = [block[block.index(begin) :] for block in self.paragraphs if begin in block]
        if len(found) != 1:
            raise ValueError(f"{len(found)} paragraphs of the chapter have the words {begin!r}, expected one")
        if not end:
            return STOP.match(found[0])[0].rstrip(": ,;")
        if end not in found[0]:
            raise ValueError(f"the words {end!r} do not follow {begin!r} in one paragraph")
        return found[0][: found[0].index(end) + len(end)]

    def formula(self, piece):
        """The displayed formula that contains a piece of TeX."""
        squeezed = "".join(piece.split())
        found = [one for one in FORMULA.findall(self.text) if squeezed in "".join(one.split())]
        if len(found) != 1:
            raise ValueError(f"{len(found)} formulas of the chapter contain {piece!r}, expected one")
        return " ".join(found[0].split())

    def goals(self):
        """What a reader will be able to do."""
        listed = self.text.split("## What you will be able to do", 1)[1].split("\n## ")[0]
        return [" ".join(item.split()) for item in re.split(r"^- ", listed, flags=re.M)[1:]]

    def _outputs(self, name, kind):
        if name not in self.cells:
            raise ValueError(f"the chapter has no cell {name!r}")
        cell = self.cells[name]
        outputs = [output.data[kind] for output in cell.get("outputs", []) if kind in output.get("data", {})]
        if not outputs:
            raise ValueError(f"the cell {name!r} has no output of the kind {kind}")
        return cell, outputs[0]

    def picture(self, name):
        """The figure of a cell, as it came, and its text alternative."""
        cell, data = self._outputs(name, "image/png")
        return "".join(data.split()), cell.metadata["mystnb"]["image"]["alt"]

    def live(self, name):
        """The name of the figure that lives in a cell, and its text alternative."""
        cell = self.cells.get(name)
        found = cell and re.search(r'lab\.live\("(\w+)"', cell.source)
        if not found:
            raise ValueError(f"the chapter has no figure that lives in a cell {name!r}")
        return found[1], cell.metadata["mystnb"]["image"]["alt"]

    def table(self, name):
        """The table of a cell, in HTML."""
        _, data = self._outputs(name, "text/html")
        return str(BeautifulSoup(data, "html.parser").find("table"))

    def headlines(self):
        """The sentences of the closing table."""
        outputs = [out for cell in self.cells.values() for out in cell.get("outputs", [])]
        pages = [
            BeautifulSoup(out.data["text/html"], "html.parser") for out in outputs if "text/html" in out.get("data", {})
        ]
        return [item.decode_contents() for page in pages for item in page.select(".scorebook-headlines li")]


def _prose(text):
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    return inline(text)


def _piece(chapter, entry):
    (kind, what), *more = entry.items()
    if more:
        raise ValueError(f"expected one piece an entry, got {sorted(entry)}")
    if kind == "say":
        said = chapter.sentence(what)
        return f"<p>{_prose(said[0].upper() + said[1:])}</p>"
    if kind == "formula":
        return rf'<div class="formula">\[{html.escape(chapter.formula(what))}\]</div>'
    if kind == "picture":
        data, alt = chapter.picture(what)
        return f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}">'
    if kind == "table":
        return f'<div class="table">{chapter.table(what)}</div>'
    if kind == "live":
        name, alt = chapter.live(what)
        return f'<img src="{ASSETS}/stills/{name}.png" alt="{html.escape(alt)}">'
    raise ValueError(f"expected say, formula, picture, table or live, got {kind!r}")


def _reasons(question):
    rows = [
        f"<li>{'<b>Right</b>' if option.right else 'Wrong'}: {inline(option.text)} {inline(option.why)}</li>"
        for option in question.options
    ]
    return f"<p>{inline(question.ask)}</p><ol type='A'>{''.join(rows)}</ol>"


def _slide(title, body, notes="", kind=""):
    aside = f'<aside class="notes">{notes}</aside>' if notes else ""
    return f'<section class="{kind}"><h2>{title}</h2>\n{body}\n{aside}</section>'


def deck(notebook, entries, questions):
    """The slides of a chapter, as one page.

    Args:
        notebook: the executed notebook.
        entries: what the file of ``book/slides`` holds.
        questions: the bank of the chapter.

    Raises:
        ValueError: an entry that asks for what the chapter does not have.
    """
    chapter = Chapter(notebook)
    asked = {question.id: question for question in questions}
    told = set()
    goals = "".join(f"<li>{_prose(goal)}</li>" for goal in chapter.goals())
    name, _, rest = chapter.title.partition(": ")
    slides = [
        f'<section class="title"><h1>{_prose(name)}</h1><p>{_prose(rest[:1].upper() + rest[1:])}</p></section>',
        _slide("What you will be able to do", f"<ul>{goals}</ul>"),
    ]
    for entry in entries:
        if "ask" in entry:
            if entry["ask"] not in asked:
                raise ValueError(f"the bank has no question {entry['ask']!r}")
            question = asked[entry["ask"]]
            options = "".join(f"<li>{inline(option.text)}</li>" for option in question.options)
            body = f"<p>{inline(question.ask)}</p><ol type='A'>{options}</ol>"
            slides.append(_slide("A question", body, _reasons(question), "question"))
            continue
        section = entry["section"]
        if section not in chapter.sections:
            raise ValueError(f"the chapter has no section {section!r}")
        notes = [] if section in told else [_reasons(q) for q in questions if q.section == section]
        told.add(section)
        body = "\n".join(_piece(chapter, piece) for piece in entry["show"])
        slides.append(_slide(_prose(entry.get("title", section)), body, "".join(notes)))
    items = "".join(f"<li>{line}</li>" for line in chapter.headlines())
    left = [_reasons(question) for question in questions if question.section not in told]
    slides.append(_slide("What the run has measured", f'<ul class="headlines">{items}</ul>', "".join(left)))
    return PAGE.format(title=html.escape(name), slides="\n".join(slides))


def executed(name, root=ROOT):
    """The notebook of a chapter with the outputs of its last run.

    Raises:
        KeyError: if it has not been run as it stands.
    """
    notebook = nbformat.read(root / "book" / f"{name}.ipynb", 4)
    return get_cache(cache_path(lab.device().type, root)).merge_match_into_notebook(notebook)[1]


def chapters():
    """Names of the chapters that have a deck, in the order of the book."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [page["file"] for part in toc["parts"] for page in part["chapters"]]
    return [name for name in names if (FOLDER / f"{name}.yaml").exists()]


def write_decks(folder, notebooks):
    """Writes the decks, what they load, and a page that leads to them.

    Args:
        folder: where to; made if it is not there.
        notebooks: name of the chapter to its executed notebook.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    links = []
    for name, notebook in notebooks.items():
        entries = yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        try:
            page = deck(notebook, entries, bank(ROOT / "book" / "questions" / f"{name}.yaml"))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
        links.append(f'<li><a href="{name}.html">{html.escape(Chapter(notebook).title)}</a></li>')
    copy_packages(PACKAGES, folder / ASSETS)
    shutil.copy2(FOLDER / "slides.css", folder / ASSETS)
    stills = folder / ASSETS / "stills"
    shutil.copytree(ROOT / "scorebook" / "lab" / "live" / "stills", stills, dirs_exist_ok=True)
    (folder / "index.html").write_text(
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Slides</title>'
        f"<h1>Slides</h1><ol>{''.join(links)}</ol></html>\n",
        encoding="utf-8",
    )


def main():
    """Writes all decks to ``_build/slides``."""
    if (failure := fetch()) is not None:
        sys.exit(f"The slides need reveal.js and MathJax, which npm could not fetch:\n{failure}")
    target = ROOT / "_build" / "slides"
    write_decks(target, {name: executed(name) for name in chapters()})
    print("The slides are ready. Open", (target / "index.html").as_uri())


if __name__ == "__main__":
    main()
