"""Pages are tested and printed with a Chromium that is there, whatever the machine has installed."""

import os
import subprocess
from types import SimpleNamespace

import chromium
import playwright.sync_api as playwright
import pytest


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A search path on which nothing is installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def install(folder, name, script="#!/bin/sh\nexit 1\n"):
    file = folder / name
    file.write_text(script, encoding="utf-8")
    file.chmod(0o755)
    return str(file)


class Driver:
    """Stands for Playwright: starts what is in ``good`` and nothing else."""

    def __init__(self, *good):
        self.good, self.chromium, self.tried = good, self, []

    def launch(self, executable_path, **_):
        self.tried.append(executable_path)
        if executable_path not in self.good:
            raise playwright.Error(f"{executable_path} is no browser\nand much more")
        return SimpleNamespace(close=lambda: None, path=executable_path)


def test_an_installed_browser_goes_before_the_packaged_one(path, monkeypatch):
    google, packaged = install(path, "google-chrome"), str(path / "packaged")
    monkeypatch.setattr(chromium, "unpacked", lambda root: packaged)
    with chromium.launched(Driver(google, packaged)) as found:
        assert found.path == google


def test_an_installed_browser_that_does_not_start_is_passed_over(path, monkeypatch):
    broken, packaged = install(path, "chromium"), str(path / "packaged")
    monkeypatch.setattr(chromium, "unpacked", lambda root: packaged)
    driver = Driver(packaged)
    with chromium.launched(driver) as found:
        assert found.path == packaged
    assert driver.tried == [broken, packaged]


def test_where_none_starts_it_is_said_what_was_tried(path, monkeypatch):
    broken = install(path, "chromium")
    monkeypatch.setattr(chromium, "fetch", lambda root, tests: "npm error code ENOTFOUND")
    with pytest.raises(chromium.NoChromiumError) as caught, chromium.launched(Driver()):
        pass
    assert f"{broken}: {broken} is no browser" in str(caught.value)
    assert "@sparticuz/chromium: npm error code ENOTFOUND" in str(caught.value)


@pytest.mark.parametrize("code", [0, 1])
def test_the_package_is_unpacked_whole_or_not_at_all(tmp_path, monkeypatch, code):
    (tmp_path / "node_modules").mkdir()
    calls = []

    def node(arguments, *, env, **_):
        calls.append(arguments)
        assert {env["TMPDIR"], env["TMP"], env["TEMP"]} == {env["TMPDIR"]}
        with open(os.path.join(env["TMPDIR"], "chromium"), "w", encoding="utf-8"):
            return subprocess.CompletedProcess(arguments, code, stdout="", stderr="no space left")

    monkeypatch.setattr(chromium, "node", node)
    monkeypatch.setattr(chromium, "fetch", lambda root, tests: None)
    if code:
        with pytest.raises(OSError, match="no space left"):
            chromium.unpacked(tmp_path)
        assert list((tmp_path / "node_modules").iterdir()) == []
    else:
        assert chromium.unpacked(tmp_path) == chromium.unpacked(tmp_path)
        assert chromium.unpacked(tmp_path).exists()
        assert len(calls) == 1
        assert [file.name for file in (tmp_path / "node_modules").iterdir()] == [".chromium"]


@pytest.mark.site
def test_latin_and_chinese_are_set_in_real_letters():
    """A character that no typeface has is drawn as a box, the same for all."""
    with playwright.sync_playwright() as driver, chromium.launched(driver) as browser:
        page = browser.new_page()

        def drawn(character):
            page.set_content(f"<p style='font: 40px serif; width: 60px'>{character}</p>")
            return page.locator("p").screenshot()

        pictures = [drawn(character) for character in "朗之万得W\U000f0000"]
    assert len(set(pictures)) == len(pictures)


def test_the_run_ends_by_saying_that_the_pages_were_not_opened(pytestconfig):
    (conftest,) = [plugin for plugin in pytestconfig.pluginmanager.get_plugins() if hasattr(plugin, "tell_unopened")]
    lines = []
    reporter = SimpleNamespace(
        stats={
            "skipped": [
                SimpleNamespace(longrepr=("test_site.py", 60, f"Skipped: {reason}"), user_properties=[])
                for reason in ("no CUDA device", "no Chromium starts on this machine. npm error", "no Chromium starts")
            ]
        },
        section=lambda *_, **__: None,
        write_line=lambda line, **style: lines.append((line, style)),
    )
    conftest.pytest_terminal_summary(reporter)
    ((line, style),) = lines
    assert "2 tests of the pages were NOT run: no Chromium starts on this machine. npm error" in line
    assert style == {"red": True, "bold": True}
