"""A Sphinx extension that makes ``404.html``, which a server shows in the place of a page that is not there.

It is shown under whatever address was asked for, in any folder, and the book may be published in a folder itself. So
the page looks for the book: the nearest folder above in which the book's style lies is the one to which its links lead.
"""

__all__ = ["BODY", "SEEK", "setup"]

# Styles and links that follow are resolved against the base, so it must be known before them.
SEEK = """<script>
for (let folder = new URL(".", location.href); ; folder = new URL("..", folder)) {
  const asked = new XMLHttpRequest();
  asked.open("HEAD", new URL("_static/scorebook.css", folder), false);
  try { asked.send(); } catch { break; }
  if (asked.status === 200) {
    const base = document.createElement("base");
    base.href = folder;
    document.head.prepend(base);
    break;
  }
  if (folder.pathname === "/") break;
}
</script>
"""

BODY = """<section id="not-found">
<h1>This page is not in the book</h1>
<p>The address may be misspelled, or the page may have another name by now.
Go to <a class="reference internal" href="index.html">the first page</a> with the map of all chapters,
begin with <a class="reference internal" href="tour.html">the tour</a>,
or <a class="reference internal" href="search.html">search the book</a>.</p>
</section>
"""


def page(app):
    """The page, in the book's looks."""
    yield "404", {"title": "Not in the book", "body": BODY, "metatags": SEEK}, "page.html"


def setup(app):
    """Registers the extension."""
    app.connect("html-collect-pages", page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
