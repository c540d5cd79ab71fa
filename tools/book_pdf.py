"""The whole book as one PDF, printed by Chromium from the built pages: ``make pdf``.

The pages become one document first, so that links between them stay links, the headings become bookmarks, and the
pages are numbered through. Formulas are set by the same MathJax as on the web, and an explorer is shown as three of its
frames.
"""

import base64
import functools
import html
import http.server
import json
import re
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import playwright.sync_api as playwright
import yaml
from bs4 import BeautifulSoup
from chromium import NoChromiumError, launched
from generated import guard, write

__all__ = ["combine", "print_book", "served"]

ROOT = Path(__file__).resolve().parent.parent
NAME = "book-in-one-piece.html"
STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
SUBTITLE = {"en": "Score-based generative modelling, measured.", "zh-CN": "基于得分函数的生成模型，逐条测量。"}
PATIENCE = 300_000  # milliseconds

STYLE = """
@page { size: A4; margin: 20mm 18mm 22mm; }
html { font-size: 15px; }
body { background: #fff; padding: 0; }
main { display: block; max-width: none; }
main > section { break-before: page; }
main > section.cover { break-before: auto; display: flex; flex-direction: column; min-height: 235mm; }
.cover img { width: 34mm; margin-top: 30mm; }
main .cover.bd-article .name { font-size: 3.4rem; font-weight: 600; margin: 8mm 0 0; }
.cover p { font-size: 1.3rem; }
.cover ol { margin-top: auto; font-size: 0.95rem; columns: 2; list-style: none; padding: 0; }
.cover li.part { font-weight: 600; margin-top: 0.6rem; break-after: avoid; }
.part-title { font-size: 0.9rem; color: #51606e; margin: 0; }
h1, h2, h3, h4 { break-after: avoid; }
/* On one line: a bookmark loses the space where a title breaks. */
main .bd-article h1 { font-size: 1.6rem; white-space: nowrap; }
blockquote, figure, img, table, .strip, mjx-container[display="true"] { break-inside: avoid; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.72rem; }
.strip { display: grid; grid-template-columns: repeat(auto-fit, minmax(0, 1fr)); gap: 4mm; margin: 4mm 0; }
.strip.wide { grid-template-columns: 1fr; }
.strip figure { margin: 0; }
.strip img { width: 100%; height: auto; }
.strip figcaption { font: 0.75rem var(--sb-sans); color: #51606e; text-align: center; }
.bd-article div.cell_output { overflow: visible; }
.scorebook-table-box, .pst-scrollable-table-container, div.math { overflow: visible !important; }
table.scorebook-table { font-size: 0.72rem !important; }
table.scorebook-table :is(th, td) { padding: 0.25rem 0.45rem !important; min-width: 0 !important; }
.at-a-glance, .headerlink, .copybtn, details > summary { display: none !important; }
.self-test details > summary { display: block !important; }
"""

FOOTER = (
    '<div style="width: 100%; font: 8px sans-serif; color: #51606e; text-align: center">'
    '<span class="pageNumber"></span></div>'
)


def table_of_contents():
    """The name of the first page, and the parts: caption and names of their pages."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return toc["root"], [(part["caption"], [page["file"] for page in part["chapters"]]) for part in toc["parts"]]


def frames(model, models):
    """The pictures of an explorer, as ``img`` elements."""
    state = models[model]["state"]
    found = BeautifulSoup(str(state.get("value", "")), "html.parser").find_all("img")
    for child in state.get("children", []):
        found += frames(child.removeprefix("IPY_MODEL_"), models)
    return found


def still(pictures):
    """The first, the middle and the last picture of an explorer, in a row or, if they are wide, below each other."""
    chosen = [pictures[i] for i in sorted({0, len(pictures) // 2, len(pictures) - 1})]
    wide = int(chosen[0].get("width", 0)) > 1.2 * int(chosen[0].get("height", 1))
    shown = []
    for picture in chosen:
        value = re.search(r"\(([^()]*)\)$", picture["alt"])
        shown.append(f"<figure>{picture}<figcaption>{html.escape(value[1] if value else '')}</figcaption></figure>")
    return f'<div class="strip{" wide" if wide else ""}">{"".join(shown)}</div>'


def article(site, name, names):
    """The content of one page, made ready to stand beside the others."""
    page = BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    models = {}
    for script in page.find_all("script", type=STATE):
        models |= json.loads(script.string)["state"]
    body = page.select_one("article.bd-article")
    for script in body.find_all("script"):
        if script.get("type") == VIEW:
            pictures = frames(json.loads(script.string)["model_id"], models)
            if pictures:
                script.replace_with(BeautifulSoup(still(pictures), "html.parser"))
                continue
        script.decompose()
    for details in body.find_all("details"):
        details["open"] = ""
    for element in body.find_all(id=True):
        element["id"] = f"{name}--{element['id']}"
    for link in body.find_all("a", href=True):
        target, place = urldefrag(urljoin(f"{name}.html", link["href"]))
        if target.removesuffix(".html") in names:
            link["href"] = f"#{target.removesuffix('.html')}" + (f"--{place}" if place else "")
        elif ":" not in link["href"]:
            link.unwrap()  # an index or a file, which the PDF does not have
    return "".join(str(child) for child in body.contents), page


def combine(site):
    """One HTML document of all pages of the built book in ``site``, in its language."""
    root, parts = table_of_contents()
    captions = BeautifulSoup((site / f"{root}.html").read_text(encoding="utf-8"), "html.parser").select(
        ".bd-links__title + * p.caption, .bd-links p.caption, nav p.caption"
    )
    said = list(dict.fromkeys(caption.get_text().strip() for caption in captions))
    parts = [(own, pages) for own, (_, pages) in zip(said, parts, strict=True)]
    names = [root] + [name for _, pages in parts for name in pages]
    content, entries, head, language = [], [], None, "en"
    for caption, pages in [(None, [root]), *parts]:
        for name in pages:
            text, page = article(site, name, names)
            head, language = head or page.head, page.html["lang"]
            title = page.select_one("article.bd-article h1")
            title = re.sub(r"#$", "", title.get_text().strip())
            if caption and name == pages[0]:
                entries.append(f'<li class="part">{html.escape(caption)}</li>')
            if name != root:
                entries.append(f'<li><a href="#{name}">{html.escape(title)}</a></li>')
            above = f'<p class="part-title">{html.escape(caption)}</p>' if caption else ""
            content.append(f'<section id="{name}" class="bd-article">{above}{text}</section>')
    kept = [str(link) for link in head.find_all("link", rel="stylesheet")]
    kept += [str(script) for script in head.find_all("script") if "mathjax" in str(script).lower()]
    logo = base64.b64encode((ROOT / "book" / "_static" / "logo.svg").read_bytes()).decode()
    cover = (
        f'<section class="cover bd-article"><img alt="" src="data:image/svg+xml;base64,{logo}">'
        f'<p class="name">scorebook</p>'
        f"<p>{SUBTITLE[language]}</p><ol>{''.join(entries)}</ol></section>"
    )
    return (
        f'<!DOCTYPE html><html lang="{language}" class="all-code" data-theme="light" data-mode="light">'
        '<head><meta charset="utf-8">'
        f"<title>scorebook</title>{''.join(kept)}<style>{STYLE}</style></head>"
        f'<body class="bd-content"><main>{cover}{"".join(content)}</main></body></html>'
    )


@contextmanager
def served(site):
    """Address under which a folder is served as long as it is needed."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()


def print_book(browser, site, target):
    """Writes the book in ``site`` to the file ``target``.

    Args:
        browser: a Chromium of Playwright.
        site: folder of the built pages.
        target: the PDF.

    Raises:
        RuntimeError: if a formula could not be set.
    """
    document = combine(site)
    with served(site) as address:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.route(f"**/{NAME}", lambda route: route.fulfill(body=document, content_type="text/html"))
        page.goto(address + NAME, wait_until="load")
        page.wait_for_function("MathJax.startup.promise.then(() => true)")
        unset = page.locator(".math:not(:has(mjx-container)), mjx-merror").all_inner_texts()
        if unset:
            raise RuntimeError(f"{len(unset)} formulas could not be set, the first of them {unset[0]!r}")
        page.evaluate("document.fonts.ready.then(() => true)")
        page.pdf(
            path=target,
            prefer_css_page_size=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )
        page.close()


def main(site=ROOT / "_build" / "html", target=ROOT / "_build" / "scorebook.pdf"):
    """Prints the built book next to its pages.

    Args:
        site: the folder of the pages.
        target: the PDF.
    """
    try:
        guard(target.parent, [target.name])
        with tempfile.TemporaryDirectory() as folder:
            printed = Path(folder) / target.name
            with playwright.sync_playwright() as driver, launched(driver) as chromium:
                print_book(chromium, site, printed)
            write(target.parent, {target.name: printed.read_bytes()})
    except NoChromiumError as error:
        sys.exit(f"make pdf prints with Chromium, and {error}")
    except FileExistsError as error:
        sys.exit(str(error))
    print(f"The book is in {target.relative_to(ROOT)} ({target.stat().st_size / 1e6:.1f} MB).")


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
