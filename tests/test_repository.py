"""The address of the book stands once and is repeated nowhere wrongly; what the texts promise exists."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import requires

import pytest
import repository
import yaml
from packaging.requirements import Requirement
from sources import files

import scorebook

ADDRESS = "https://github.com/someone/a-book"


@pytest.fixture
def copy(root, tmp_path):
    """The files that state the address, in a folder of their own."""
    for path in repository.files_with_address(root):
        target = tmp_path / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path


def texts(root):
    for path in files(root):
        data = path.read_bytes()
        if b"\0" not in data:
            yield path.relative_to(root).as_posix(), data.decode("utf-8")


def test_the_configuration_states_the_address_as_the_tool_reads_it(root):
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    assert (
        repository.read_address(root)
        == config["repository"]["url"]
        == repository.web_address(config["repository"]["url"])
    )


def test_the_setup_cell_and_the_citation_repeat_the_address(root):
    address = repository.read_address(root)
    assert f'REPOSITORY = "{address}"' in (root / "tools" / "setup_cell.ipy").read_text(encoding="utf-8")
    assert yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))["repository-code"] == address


def test_no_file_states_the_address_that_the_tool_does_not_rewrite(root):
    known = {path.relative_to(root).as_posix() for path in repository.files_with_address(root)}
    stating = {name for name, text in texts(root) if repository.read_address(root) in text}
    assert stating <= known


def test_a_new_address_replaces_the_old_one_everywhere(copy):
    old = repository.read_address(copy)
    address, changed = repository.rewrite(ADDRESS, copy)
    assert address == ADDRESS == repository.read_address(copy)
    assert set(changed) >= {path.relative_to(copy) for path in (copy / "book").glob("*.ipynb")}
    for path in repository.files_with_address(copy):
        text = path.read_text(encoding="utf-8")
        assert old not in text, path
        if path.suffix == ".ipynb":
            assert f'REPOSITORY = "{ADDRESS}"\n' in "".join(json.loads(text)["cells"][setup_index(text)]["source"])


def setup_index(text):
    return next(i for i, cell in enumerate(json.loads(text)["cells"]) if cell["cell_type"] == "code")


def test_rewriting_back_restores_every_byte(copy, root):
    repository.rewrite(ADDRESS, copy)
    repository.rewrite(repository.read_address(root), copy)
    for path in repository.files_with_address(copy):
        assert path.read_bytes() == (root / path.relative_to(copy)).read_bytes(), path


def test_an_address_that_only_begins_like_ours_is_left_alone(copy):
    with (copy / "README.md").open("a", encoding="utf-8") as readme:
        readme.write(f"\n{repository.read_address(copy)}-fork\n")
    other = f"{repository.read_address(copy)}-fork"
    repository.rewrite(ADDRESS, copy)
    assert other in (copy / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/someone/a-book",
        "https://github.com/someone/a-book/",
        "https://github.com/someone/a-book.git",
        "https://name:secret@github.com/someone/a-book.git",
        "git@github.com:someone/a-book.git",
        "ssh://git@github.com:22/someone/a-book.git\n",
    ],
)
def test_every_way_of_writing_a_remote_gives_the_address_without_secrets(url):
    assert repository.web_address(url) == ADDRESS


@pytest.mark.parametrize(
    "url", ["", "/srv/git/book", "../book", "book", "file:///srv/book", "https://github.com", "x y"]
)
def test_an_address_that_no_reader_could_open_is_refused(url):
    with pytest.raises(ValueError, match="URL must be the address of a repository on the web"):
        repository.web_address(url)


@pytest.mark.site
def small_book(root, tmp_path, address, text):
    """What the build of a book with one page says, and that page."""
    book = tmp_path / "book"
    shutil.copytree(root / "book" / "_static", book / "_static")  # what the configuration names
    shutil.copy(root / "book" / "references.bib", book)
    notebook = {
        "cells": [{"cell_type": "markdown", "id": "title", "metadata": {}, "source": text}],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (book / "index.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\n", encoding="utf-8")
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config["repository"]["url"] = address
    extensions = {name: str(root / "tools") for name in ("launch_buttons", "strict_build")}
    config["sphinx"]["local_extensions"] = extensions
    config["execute"]["execute_notebooks"] = "off"
    (tmp_path / "_config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = "import sys; from jupyter_book.cli.main import main; main(sys.argv[1:])"
    options = ["--config", tmp_path / "_config.yml", "--toc", tmp_path / "_toc.yml", "--path-output", tmp_path]
    done = subprocess.run(
        [sys.executable, "-c", command, "build", book, *options, "-W", "-n", "--keep-going", "-q"],
        capture_output=True,
        encoding="utf-8",
    )
    page = tmp_path / "_build" / "html" / "index.html"
    return done.returncode, done.stdout + done.stderr, page.read_text(encoding="utf-8") if page.exists() else ""


@pytest.mark.parametrize(
    ("address", "colab", "buttons"),
    [
        ("https://elsewhere.invalid/a-book", False, False),
        ("https://gitlab.com/someone/a-book", False, True),
        (ADDRESS, True, True),
    ],
)
def test_a_page_links_to_the_repository_only_where_the_link_leads_somewhere(root, tmp_path, address, colab, buttons):
    code, said, page = small_book(root, tmp_path, address, "# Page")
    assert code == 0, said
    assert ("colab.research.google.com/github/someone/a-book/blob/main/book/index.ipynb" in page) == colab
    assert ("colab.research.google.com" in page) == colab
    assert (f'href="{address}"' in page) == buttons
    assert ('content="https://someone.github.io/a-book/_static/card.png"' in page) == colab
    assert ".invalid/" not in page


@pytest.mark.parametrize(("text", "passes"), [("![](_static/card.png)", False), ("![Digits](_static/card.png)", True)])
def test_a_picture_without_words_stops_the_build(root, tmp_path, text, passes):
    code, said, _ = small_book(root, tmp_path, ADDRESS, f"# Page\n\n{text}")
    assert (code == 0) == passes, said
    assert ("a picture without alt text" in said) != passes


def targets(root):
    return set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.M))


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", ".ci/run", ".github/workflows/test.yml", ".github/workflows/gpu.yml"]
)
def test_every_command_that_a_text_names_exists(root, name):
    text = (root / name).read_text(encoding="utf-8")
    commands = re.findall(r"(?:^|`|run: |&& )make ((?:[a-z-]+ ?)+)", text, re.M)
    assert commands, "the text names no command"
    named = {word for command in commands for word in command.split() if not word.startswith("-")}
    assert named <= targets(root)


def test_the_readme_and_the_makefile_and_the_tests_build_the_book_alike(root):
    line = 'jupyter-book build book --config _config.yml --toc "{}/_toc.yml" --path-output . -W -n --keep-going'
    assert line.format("$$PWD") in (root / "Makefile").read_text(encoding="utf-8")
    assert line.format("$PWD") in (root / "README.md").read_text(encoding="utf-8")


def test_what_is_pinned_satisfies_the_package(root):
    pins = {}
    for line in (root / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            (specifier,) = pin.specifier
            assert specifier.operator == "==", line
            pins[pin.name.lower().replace("_", "-")] = specifier.version
    for need in map(Requirement, requires("scorebook")):
        assert all(bound.operator == ">=" for bound in need.specifier), f"{need}: lower bounds only"
        if need.marker is None or not need.marker.evaluate({"extra": "data"}):
            assert pins[need.name] in need.specifier, need


def test_every_file_states_the_same_version(root):
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert scorebook.__version__ == version
    assert yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert re.search(r"^## (\S+?)[, ]", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1] == version
