"""What the tests share: where the repository is, and the built book."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import fetch
from hypothesis import settings
from once import once

from scorebook import lab

# Every run draws the same examples, and a busy machine is not a failure.
settings.register_profile("book", deadline=None, derandomize=True)
settings.load_profile("book")

lab.use_one_thread()

# What a shell starts in the background is born deaf to Ctrl-C, and tests that send it would wait without end.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium. Where none starts its tests are skipped; on a machine of CI they fail."""
    import playwright.sync_api as playwright  # the oldest environment has none, and opens no page
    from chromium import NoChromiumError, launched

    with playwright.sync_playwright() as driver, contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(launched(driver))
        except NoChromiumError as error:
            pytest.fail(str(error)) if os.environ.get("CI") else pytest.skip(str(error))


def pytest_terminal_summary(terminalreporter):
    """Prints what became of each input and of each call, writes it to files, and says what could not be run."""
    tell_unopened(terminalreporter)
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    reports = [report for report in reports if getattr(report, "when", None) == "call"]
    properties = [pair for report in reports for pair in report.user_properties]
    rows = sorted(value for key, value in properties if key == "surface")
    rows = [(f"{module}.{name}", argument, words) for module, name, argument, words in rows]
    _show(terminalreporter, "what becomes of bad input", ("function", "argument"), rows, "surface.txt")
    calls = {}
    for name, words in (value for key, value in properties if key == "programs"):
        calls[name] = calls.get(name, {}) | words
    n_words = max(map(len, calls.values()), default=0)
    rows = [(name, words) for name, words in sorted(calls.items()) if len(words) == n_words]
    _show(terminalreporter, "what becomes of each call in other people's programs", ("function",), rows, "programs.txt")
    if rows:
        record = {"situations": list(rows[0][1])} | {name: _by_word(words) for name, words in rows}
        text = ",\n".join(f'"{name}": {json.dumps(words, ensure_ascii=False)}' for name, words in record.items())
        (ROOT / "_build" / "programs.json").write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


def tell_unopened(terminalreporter):
    """Says in one loud line that the pages were not opened."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])]
    unopened = [reason.removeprefix("Skipped: ") for reason in reasons if "no Chromium starts" in reason]
    if unopened:
        line = f"{len(unopened)} tests of the pages were NOT run: {unopened[0]}"
        terminalreporter.write_line(line, red=True, bold=True)


def _by_word(words):
    """The situations for each word but "right", which goes without saying."""
    return {word: [s for s in words if words[s] == word] for word in sorted({*words.values()} - {"right"})}


def _show(terminalreporter, title, heads, rows, file):
    if not rows:
        return
    lines = [[*heads, *rows[0][-1]]]
    lines += [[*row[:-1], *row[-1].values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    terminalreporter.section(title)
    for line in table:
        terminalreporter.write_line(line)
    path = ROOT / "_build" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(table) + "\n", encoding="utf-8")


@pytest.fixture(autouse=True)
def _global_seeds():
    """What draws from the global generators draws the same in each run, whichever tests went before."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator of students who name none
    random.seed(0)


@pytest.fixture(scope="session")
def root():
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def site(root, request):
    """Folder of the built book, brought up to date. A test that asks for it runs after all others."""
    run = getattr(request.config, "workerinput", {}).get("testrunuid")
    once(run, root / "_build" / ".site", lambda: build(root))
    return root / "_build" / "html"


def build(root):
    """Builds the book."""
    fetch(root, tests=True)  # before the build would fetch less; where it fails, the tests that need it say so
    command = [
        sys.executable,
        Path(sys.executable).with_name("jupyter-book"),
        "build",
        "book",
        "--config",
        "_config.yml",
    ]
    command += ["--toc", root / "_toc.yml", "--path-output", ".", "-W", "-n", "--keep-going"]
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8")
    if not done.returncode:  # and the Chinese edition, once it is whole
        second = [sys.executable, root / "tools" / "chinese.py", "--publish"]
        done = subprocess.run(second, cwd=root, capture_output=True, encoding="utf-8")
    if done.returncode:
        complaints = [line for line in (done.stdout + done.stderr).splitlines() if "WARNING" in line or "ERROR" in line]
        pytest.fail("the book does not build:\n" + ("\n".join(complaints) or done.stderr[-3000:]), pytrace=False)
