"""The libraries of the pages are pinned and their own, and block quotes that have a name get its look."""

import json
import logging
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import browser
import pytest
from docutils.core import publish_doctree
from docutils.nodes import block_quote
from myst_parser.docutils_ import Parser
from named_blocks import NamedBlocks


def test_the_lock_names_versions_and_hashes_and_no_host(root):
    asked = json.loads((root / "package.json").read_text(encoding="utf-8"))
    text = (root / "package-lock.json").read_text(encoding="utf-8")
    packages = json.loads(text)["packages"]
    assert '"resolved"' not in text
    for name, version in (asked["dependencies"] | asked["devDependencies"]).items():
        assert packages[f"node_modules/{name}"]["version"] == version
    assert [name for name, entry in packages.items() if name and not entry["integrity"].startswith("sha512-")] == []


def test_the_fallback_of_the_pages_has_the_version_that_the_lock_has(root):
    from sphinx.ext.mathjax import MATHJAX_URL

    pinned = json.loads((root / "package.json").read_text(encoding="utf-8"))["dependencies"]["mathjax"]
    assert re.search(r"mathjax@(\d+)", MATHJAX_URL)[1] == pinned.split(".")[0]


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "package-lock.json").write_text("one", encoding="utf-8")
    (tmp_path / "node_modules").mkdir()
    return tmp_path


def npm_that_ends_with(code, calls):
    def npm(command, **_):
        calls.append(command)
        return subprocess.CompletedProcess(command, code, stdout="", stderr="npm error code ENOTFOUND\n")

    return npm


def test_libraries_are_fetched_once_for_each_lock(checkout, monkeypatch):
    calls = []
    monkeypatch.setattr(browser, "npm", npm_that_ends_with(0, calls))
    assert [browser.fetch(checkout), browser.fetch(checkout)] == [None, None]
    assert len(calls) == 1
    assert calls[0][:2] == ["ci", "--ignore-scripts"]
    (checkout / "package-lock.json").write_text("two", encoding="utf-8")
    browser.fetch(checkout)
    assert len(calls) == 2


def test_two_at_a_time_fetch_once(checkout, monkeypatch):
    calls, inside = [], []

    def npm(command, **_):
        inside.append(len(inside) + 1 - len(calls))
        time.sleep(0.2)
        calls.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="", stderr="")

    monkeypatch.setattr(browser, "npm", npm)
    with ThreadPoolExecutor(4) as pool:
        assert (
            list(pool.map(lambda tests: browser.fetch(checkout, tests=tests), [True, True, True, True])) == [None] * 4
        )
    assert len(calls) == 1
    assert inside == [1]


def test_a_reader_fetches_nothing_that_only_the_tests_need(checkout, monkeypatch):
    calls = []
    monkeypatch.setattr(browser, "npm", npm_that_ends_with(0, calls))
    for tests in (False, False, True, True, False):
        browser.fetch(checkout, tests=tests)
    assert ["--omit=dev" in call for call in calls] == [True, False]


def test_a_build_without_a_network_says_so_and_falls_back(checkout, monkeypatch, caplog):
    calls = []
    monkeypatch.setattr(browser, "npm", npm_that_ends_with(1, calls))
    assert browser.fetch(checkout) == "npm error code ENOTFOUND"
    assert browser.fetch(checkout) is not None
    assert len(calls) == 2

    monkeypatch.setattr(browser, "fetch", lambda: "npm error code ENOTFOUND")
    app, config = SimpleNamespace(), SimpleNamespace(mathjax_path="public", nb_ipywidgets_js={"public": {}})
    browser.use_own_libraries(app, config)
    assert config.mathjax_path == "public"
    assert list(config.nb_ipywidgets_js) == ["browser/widgets.js", "public"]

    monkeypatch.setattr(browser, "logger", logging.getLogger("browser"))
    with caplog.at_level(logging.INFO):
        browser.tell(app, None)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert "could not be fetched" in record.message
    assert "ENOTFOUND" in record.message


@pytest.mark.parametrize(
    ("text", "classes", "ids"),
    [
        ("> **Exercise 2.** Show it.", ["named", "exercise"], ["exercise-2"]),
        ("> **Exercise.** Show it.", ["named", "exercise"], []),
        ("> **Theorem (Hyvärinen, 2005).** It holds.", ["named", "theorem"], []),
        ("> **In the notes.** They say $x$.\n>\n> And more.", ["named", "notes"], []),
        ("> A quotation. **Exercise 1.** is not its name.", [], []),
        ("> *Exercise 1.* is not strong.", [], []),
        ("> **Exercises** are many.", [], []),
        ("> - a list", [], []),
    ],
)
def test_a_block_quote_is_known_by_its_first_words(text, classes, ids):
    document = publish_doctree(text, parser=Parser(), settings_overrides={"myst_enable_extensions": ["dollarmath"]})
    NamedBlocks(document).apply()
    (quote,) = document.findall(block_quote)
    assert quote["classes"] == classes
    assert quote["ids"] == ids
    assert all(document.ids[name] is quote for name in ids)


def test_two_exercises_of_one_number_have_one_address():
    document = publish_doctree("> **Exercise 1.** A\n\ntext\n\n> **Exercise 1.** B", parser=Parser())
    NamedBlocks(document).apply()
    assert [quote["ids"] for quote in document.findall(block_quote)] == [["exercise-1"], []]
