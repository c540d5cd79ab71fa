r"""A Sphinx extension for the book's second edition, in Chinese, from the same pages, outputs and addresses.

When Sphinx reads a page, its text is put into Chinese message by message (:mod:`catalogues`); what the page shows
beyond its text follows when all pages are written (:mod:`shown`). Each section keeps the address that it has in
English, so that every link, in either edition and from one to the other, leads to the same place. A page that has an
English sentence left is a warning, and so a failure.

In the English edition it adds to each page the way to its other language, once no message lacks a translation.
"""

import json
import os
import re
from pathlib import Path

import catalogues
import nbformat
import shown
import translations
from bs4 import BeautifulSoup, NavigableString
from docutils import nodes
from jupyter_cache import get_cache
from myst_parser.mdit_to_docutils.base import default_slugify
from sphinx.errors import ConfigError
from sphinx.search.zh import SearchChinese
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

__all__ = ["Addresses", "SearchWords", "all_words", "plain_title", "sayer", "setup", "slug_of", "wanted"]

ROOT = Path(__file__).resolve().parent.parent
SWITCH = "language-switch.html"
NAMES = {"en": ("English", "en"), "zh_CN": ("中文", "zh-CN")}
WORDS = "scorebook-words.js"
# Names of people, and parts of terms, by which one looks for a longer term.
NAMES_IN_TERMS = (
    "朗之万",
    "福克",
    "普朗克",
    "费舍尔",
    "蒙特卡洛",
    "布朗运动",
    "概率流",
    "得分",
    "流匹配",
    "哈钦森",
    "欧拉",
    "丸山",
)
MARK = "data-said"

logger = logging.getLogger(__name__)

# The titles of the page that is being read: Chinese, as MyST sees it, to English.
_titles = {}


def _root(app):
    return Path(app.srcdir).parent


def chinese(app):
    """Whether this build is of the Chinese edition."""
    return app.config.language == catalogues.LANGUAGE


def plain_title(markdown):
    """A title as MyST sees it when it makes an address: its words and its code, without formulas."""
    (inline,) = catalogues.parser().parseInline(markdown, {})
    return "".join(t.content for t in inline.children if t.type in {"text", "code_inline"})


def slug_of(title):
    """The address of a section within its page: that of its English title."""
    return default_slugify(_titles.get(title, title))


def wanted():
    """Whether the book is built in Chinese too: unless ``EDITIONS=en`` says otherwise."""
    return "zh" in os.environ.get("EDITIONS", "en zh").split()


def settle(app, config):
    """Sets what the Chinese edition needs before anything is read; in English, the switch, if there are two."""
    both = config.scorebook_other_edition
    if not chinese(app):
        both = both or ("zh/" if wanted() and translations.whole(_root(app)) else "")
        config.scorebook_other_edition = both
    if both:
        config.templates_path = [*config.templates_path, str(ROOT / "tools" / "templates")]
        options = config.html_theme_options
        options["article_header_end"] = [SWITCH, "article-header-buttons.html"]
    if chinese(app):
        config.myst_heading_slug_func = "editions.slug_of"
        config.html_search_options = {"dict": str(dictionary(_root(app)))}
        config.html_theme_options["path_to_docs"] = f"locale/{catalogues.LANGUAGE}/notebooks"
        app.add_js_file(WORDS, priority=100)
        app.add_js_file("scorebook-other-language.js", priority=600)


def dictionary(root=ROOT):
    """The terms of the glossary as words for the search, in a file as jieba reads it."""
    path = root / "_build" / "chinese" / "words.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {
        name for names in translations.terms(root).values() for name in names if re.search(f"[{catalogues.HAN}]", name)
    }
    found |= {name.replace("得分", "分数") for name in found} | set(NAMES_IN_TERMS)
    path.write_text("".join(f"{name.replace(' ', '')} 100000\n" for name in sorted(found)), encoding="utf-8")
    return path


def execute_nothing(app, config):
    """Keeps the Chinese edition from executing a notebook: it shows what the English one has left, or no outputs."""
    if chinese(app):
        cache = get_cache(config.nb_execution_cache_path)
        absent = [path.name for path in Path(app.srcdir).glob("*.ipynb") if not _is_cached(cache, path)]
        config.nb_execution_excludepatterns = [*config.nb_execution_excludepatterns, *absent]
        if absent and config.scorebook_other_edition == "../":
            raise ConfigError(
                f"these notebooks have no outputs yet: {', '.join(absent)}; build the English pages first"
            )


def _is_cached(cache, path):
    try:
        cache.match_cache_notebook(nbformat.read(path, 4))
    except KeyError:
        return False
    return True


def sayer(app, name):
    """What puts the words of a page into the language of the edition."""
    return catalogues.say(name, _root(app)) if chinese(app) and name not in catalogues.UNTRANSLATED else str


def put_into_chinese(app, name, source):
    """Puts the text of a page into Chinese, before any other extension sees it."""
    if not chinese(app) or name in catalogues.UNTRANSLATED:
        _titles.clear()
        return
    root = _root(app)
    for path in (catalogues.path_of(name, root), catalogues.path_of(catalogues.COMMON, root)):
        app.env.note_dependency(str(path))
    say = catalogues.say(name, root)
    _titles.clear()
    headings = [piece.text for _, piece in catalogues.messages(name, root) if piece.kind == "heading"]
    for text in (*headings, "Test yourself"):  # the latter from tools/self_tests.py
        _titles[plain_title(say(text))] = plain_title(text)
    notebook = app.env.doc2path(name).endswith(".ipynb")
    translate = catalogues.translated_notebook if notebook else catalogues.translated
    source[0] = translate(source[0], say)


class Addresses(SphinxTransform):
    """Gives each section of a Chinese page the address of its English one."""

    default_priority = 5

    def apply(self, **kwargs):
        """Walks the page."""
        if self.config.language != catalogues.LANGUAGE:
            return
        known = {default_slugify(english): english for english in _titles.values()}
        slugs = self.env.metadata[self.env.docname].get("myst_slugs", {})
        taken = set()
        for section in self.document.findall(nodes.section):
            slug = section.get("slug")
            if slug is None:
                continue
            section["english"] = known.get(slug, section[0].astext())
            # As docutils does it, a second section of the same name keeps a number.
            identifier = nodes.make_id(section["english"])
            if not identifier or identifier in taken:
                continue
            taken.add(identifier)
            old = section["ids"][0]
            section["ids"] = [identifier, *section["ids"][1:]]
            self.document.ids[identifier] = section
            if slug in slugs:
                line, _, text = slugs[slug]
                slugs[slug] = (line, identifier, text)
            self.document.nameids = {n: identifier if i == old else i for n, i in self.document.nameids.items()}


def lead_across(app, page, template, context, doctree):
    """Tells a page, and what reads it, where it stands in the other language."""
    other = app.config.scorebook_other_edition
    if not other:
        return
    here = f"{page}.html"
    up = "../" * page.count("/")
    name, lang = NAMES["en" if chinese(app) else catalogues.LANGUAGE]
    context |= {"other_language": name, "other_lang": lang, "other_page": f"{up}{other}{here}"}
    own = NAMES[app.config.language][1]
    links = {own: here, lang: f"{up}{other}{here}", "x-default": f"{up}{other}{here}" if chinese(app) else here}
    tags = "".join(f'<link rel="alternate" hreflang="{lang}" href="{to}" />\n' for lang, to in links.items())
    context["metatags"] = context.get("metatags", "") + "\n" + tags


def words_of_script(root=ROOT):
    """The words of the live figures, and of the book's own script, as JavaScript."""
    words = catalogues.words(catalogues.COMMON, root) | catalogues.words(catalogues.LIVE, root)
    return f"window.scorebookWords = {json.dumps(words, ensure_ascii=False)};\n"


def write_words(app):
    """Puts the words where the pages load them from."""
    if chinese(app) and app.builder.format == "html":
        folder = Path(app.outdir) / "_static"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WORDS).write_text(words_of_script(_root(app)), encoding="utf-8")
        script = (ROOT / "book" / "_browser" / "other-language.js").read_text(encoding="utf-8")
        (folder / "scorebook-other-language.js").write_text(script, encoding="utf-8")


def finish(app, error):
    """Puts what the pages show beyond their texts into Chinese, and tells what is left in English."""
    if error or not chinese(app) or app.builder.format != "html":
        return
    site, root = Path(app.outdir), _root(app)
    for path in sorted(site.glob("*.html")):
        text = path.read_text(encoding="utf-8")
        if MARK not in text[:600]:
            path.write_text(said(path.stem, text, root), encoding="utf-8")
    for path in sorted((site / "_sources").glob("*.ipynb")):
        original = (Path(app.srcdir) / path.name).read_text(encoding="utf-8")
        path.write_text(catalogues.translated_notebook(original, catalogues.say(path.stem, root)), encoding="utf-8")


def all_words(name, root=ROOT):
    """The words of all catalogues: the status page repeats what all others claim, and the contents name them.

    What several say in their own way is said as the page of that name says it.
    """
    words = catalogues.words(catalogues.COMMON, root)
    for other in (*catalogues.pages(root), name):
        words = words | catalogues.words(other, root)
    return words


def said(name, text, root=ROOT):
    """A page in Chinese: its tables, captions and controls too; with a mark, so that it is not done twice."""
    soup = BeautifulSoup(text, "html.parser")
    soup.html[MARK] = ""
    if name in catalogues.UNTRANSLATED and (article := soup.select_one("article")):
        article["lang"], article["translate"] = "en", "no"
    words = all_words(name, root)
    if name in catalogues.pages(root) and not translations.left(name, root):
        for message in shown.in_regions(soup):
            if message not in words and shown.said(message, words) is None:
                logger.warning("no translation of what the page shows: %s", message, location=name, type="scorebook")
    shown.translate(soup, words)
    if name in catalogues.UNTRANSLATED and soup.select_one("article h1"):
        title = soup.select_one("article h1")
        title["lang"], first = NAMES[catalogues.LANGUAGE][1], next(title.strings)
        first.replace_with(words.get(first.strip(), first))
    for emphasis in soup.select("article em"):
        text = emphasis.get_text()
        if not re.search(f"[{catalogues.HAN}]", text):  # the title of a book or a journal
            emphasis["class"], emphasis["lang"] = [*emphasis.get("class", []), "title"], "en"
        elif len(text) > 12:  # dots below a whole sentence are a rash
            emphasis["class"] = [*emphasis.get("class", []), "long"]
    hold_punctuation(soup)
    done = str(soup)
    if name in catalogues.pages(root) and not translations.left(name, root):
        for left in shown.left_over(soup):
            logger.warning("English is left on the Chinese page: %s", left, location=name, type="scorebook")
    return done


CLOSING = re.compile("[，。；：、？！）」』”]+")


def hold_punctuation(soup):
    """Keeps each mark that follows a formula on its line; for a browser a formula is a box, which any line may end."""
    for formula in soup.select("span.math"):
        after = formula.next_sibling
        marks = CLOSING.match(after) if type(after) is NavigableString else None
        if marks:
            held = soup.new_tag("span", attrs={"class": "held"})
            formula.wrap(held)
            held.append(NavigableString(marks[0]))
            after.replace_with(NavigableString(after[marks.end() :]))


class SearchWords(SearchChinese):
    """Chinese in the search: words by jieba, which knows the terms of the glossary, and a query cut into such words.

    In the browser there is no dictionary but the index itself: a run of Chinese is cut from the left into the longest
    words that some page has.
    """

    js_splitter_code = """
var splitQuery = (query) => query
  .split(/([\\u3400-\\u9fff]+)|[^\\p{Letter}\\p{Number}_\\p{Emoji_Presentation}]+/gu)
  .filter((run) => run)
  .flatMap((run) => {
    const terms = typeof Search === "object" && Search._index?.terms;
    if (!terms || !/[\\u3400-\\u9fff]/.test(run)) return [run];
    const titles = Search._index.titleterms ?? {}, words = [];
    for (let at = 0; at < run.length; ) {
      let end = run.length;
      while (end > at + 1 && !(run.slice(at, end) in terms) && !(run.slice(at, end) in titles)) end--;
      if (end > at + 1) words.push(run.slice(at, end));
      at = end;
    }
    return words.length ? words : [run];
  });
"""

    def init(self, options):
        """Loads the dictionary, in silence."""
        import jieba

        jieba.setLogLevel(60)
        super().init(options)


def setup(app):
    """Registers the extension."""
    app.add_config_value("scorebook_other_edition", os.environ.get("SCOREBOOK_OTHER_EDITION", ""), "html", str)
    app.add_search_language(SearchWords)
    app.add_transform(Addresses)
    app.connect("config-inited", settle)
    app.connect("config-inited", execute_nothing, priority=900)  # when the cache is known
    app.connect("source-read", put_into_chinese, priority=400)
    app.connect("builder-inited", write_words)
    app.connect("html-page-context", lead_across)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
