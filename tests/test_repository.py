"""The address of the book stands once and is repeated nowhere wrongly; what the texts promise exists."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import launch_buttons
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
    address, _, changed = repository.rewrite(ADDRESS, copy)
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
        "https://github.com/someone/a-book.git/",
        "https://github.com/someone/a-book//",
        "https://www.github.com/someone/a-book",
        "HTTPS://GitHub.COM/someone/a-book.GIT",
        "http://github.com/someone/a-book",
        "https://github.com:443/someone/a-book",
        "https://github.com./someone/a-book",
        "github.com/someone/a-book",
        "git+https://github.com/someone/a-book.git",
        "git://github.com/someone/a-book.git",
        "https://name:secret@github.com/someone/a-book.git",
        "https://name:se@cret@github.com/someone/a-book.git",
        "https://secret@github.com/someone/a-book",
        "git@github.com:someone/a-book.git",
        "git@github.com:/someone/a-book.git",
        "org-123@github.com:someone/a-book",
        "github.com:someone/a-book",
        "ssh://git@github.com:22/someone/a-book.git\n",
        "ssh://git@ssh.github.com:443/someone/a-book.git",
        "git@ssh.github.com:someone/a-book.git",
        "https://github.com/someone/a-book?tab=readme-ov-file",
        "https://github.com/someone/a-book#publish-your-own",
        "https://github.com/someone/a-book/settings/pages",
        "https://github.com/someone/a-book/issues/7",
        "https://github.com/someone/a-book.git/info/refs?service=git-upload-pack",
    ],
)
def test_every_way_of_writing_a_remote_gives_the_address_without_secrets(url):
    assert repository.split_address(url) == (ADDRESS, None)


@pytest.mark.parametrize(
    ("url", "address", "branch"),
    [
        (f"{ADDRESS}/tree/main", ADDRESS, "main"),
        (f"{ADDRESS}/tree/main/", ADDRESS, "main"),
        (f"{ADDRESS}/tree/develop", ADDRESS, "develop"),
        (f"{ADDRESS}/tree/master/book/_static", ADDRESS, "master"),
        (f"{ADDRESS}/blob/main/book/tour.ipynb", ADDRESS, "main"),
        (f"{ADDRESS}/blob/develop/README.md#publish", ADDRESS, "develop"),
        ("https://gitlab.com/a/b/c/book.git", "https://gitlab.com/a/b/c/book", None),
        ("https://gitlab.com/a/b/c/book/-/tree/main", "https://gitlab.com/a/b/c/book", "main"),
        ("https://gitlab.com/a/book/-/blob/on/x.ipynb?ref_type=heads", "https://gitlab.com/a/book", "on"),
        ("https://gitlab.com/a/book/-/issues", "https://gitlab.com/a/book", None),
        ("ssh://git@altssh.gitlab.com:443/a/b/book.git", "https://gitlab.com/a/b/book", None),
        ("https://codeberg.org/a/book/src/branch/trunk", "https://codeberg.org/a/book", "trunk"),
        ("https://bitbucket.org/a/book/src/main/README.md", "https://bitbucket.org/a/book", "main"),
        ("https://git.sr.ht/~a/book/tree/trunk", "https://git.sr.ht/~a/book", "trunk"),
        ("git@git.example.org:group/sub/book.git", "https://git.example.org/group/sub/book", None),
        ("https://git.example.org:8443/group/book", "https://git.example.org:8443/group/book", None),
        ("http://git.example.org:3000/group/book", "http://git.example.org:3000/group/book", None),
        ("http://git.example.org/group/book", "https://git.example.org/group/book", None),
        ("ssh://git@git.example.org:2222/group/book", "https://git.example.org/group/book", None),
        ("https://git.example.org/book.git/tree/trunk", "https://git.example.org/book", "trunk"),
        ("https://github.com/null/1e5", "https://github.com/null/1e5", None),
        ("https://github.com/Some-One/Some_One.github.io", "https://github.com/Some-One/Some_One.github.io", None),
    ],
)
def test_an_address_of_a_page_names_its_repository_and_its_branch(url, address, branch):
    assert repository.split_address(url) == (address, branch)
    assert repository.split_address(address) == (address, None)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/srv/git/book",
        "../book",
        "book",
        "file:///srv/book",
        "C:\\books\\book",
        "C:/books/book",
        "work:someone/a-book",
        "https://github.com",
        "https://github.com/",
        "https://github.com/someone",
        "https://github.com/someone/",
        "git@github.com:someone",
        "https://gitlab.com/someone",
        "https://gitlab.com/someone/-/profile",
        "https://github.com/orgs/some/repositories",
        "https://someone.github.io",
        "https://someone.github.io/a-book/",
        "https://group.gitlab.io/a-book/tour.html",
        "https://gist.github.com/someone/0123",
        "https://colab.research.google.com/github/someone/a-book/blob/main/book/tour.ipynb",
        "https://nbviewer.org/github/someone/a-book",
        "https://mybinder.org/v2/gh/someone/a-book/main",
        "https://a-book.readthedocs.io/en/latest",
        "https://raw.githubusercontent.com/someone/a-book/main/README.md",
        "https://github.com/someone/a-book/tree/feature/x",
        "https://github.com/someone/a-book/blob/feature/x/README.md",
        "https://localhost/someone/a-book",
        "https://[::1]/someone/a-book",
        "https://github.com:port/someone/a-book",
        "https://github.com:99999/someone/a-book",
        "https://github.com/someone/..",
        "https://github.com/someone/.git",
        'https://github.com/someone/a"book',
        "https://github.com/someone/a\\book",
        "https://github.com/someone/{book}",
        "https://github.com/someone/a%20book",
        "https://github.com/someone/bü",
        "https://github.com/someone/a-book\nbranch: x",
        "x y",
    ],
)
def test_an_address_that_no_reader_could_open_is_refused(url):
    with pytest.raises(ValueError, match="URL must be the address of a repository on the web"):
        repository.split_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://name:secret@github.com/someone",
        "https://name:sec/secret@github.com/someone/a-book",
        "https://secret@someone.github.io/a",
        "ftp://a:secret@host.org/x",
        "name:secret@host.org:x",
        "https://github.com/someone?token=secret",
    ],
)
def test_a_refusal_keeps_a_secret(url):
    with pytest.raises(ValueError, match="URL must") as refused:
        repository.split_address(url)
    assert "secret" not in str(refused.value)


def state(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "url", ["https://name:secret@github.com/someone/a-book.git", "ssh://x:secret@ssh.github.com:443/someone/a-book"]
)
def test_no_secret_gets_into_a_file(copy, url):
    repository.rewrite(url, copy)
    assert repository.read_address(copy) == ADDRESS
    assert not [path for path, content in state(copy).items() if b"secret" in content]


@pytest.mark.parametrize(
    "branch", ["master", "develop", "feature/x", "on", "null", "1.0", "0x1f", "gh-pages", "2026-01-01"]
)
def test_the_branch_follows_and_stays_a_text_for_yaml(copy, branch):
    assert repository.rewrite(ADDRESS, copy, branch)[1] == branch
    stated = yaml.safe_load((copy / "_config.yml").read_text(encoding="utf-8"))["repository"]
    assert stated == {"url": ADDRESS, "branch": branch, "path_to_book": "book"}
    assert repository.read_branch(copy) == branch


@pytest.mark.parametrize("branch", ["a b", "-x", "a..b", "a/", "/a", "a.lock", "x#y", 'a"b', "a: b", "a?b", ".a", "bü"])
def test_a_name_of_no_branch_is_refused_and_nothing_written(copy, branch):
    before = state(copy)
    with pytest.raises(ValueError, match="BRANCH must be the name of a branch"):
        repository.rewrite(ADDRESS, copy, branch)
    assert state(copy) == before


def test_the_branch_in_the_address_is_taken_unless_another_is_named(copy):
    assert repository.rewrite(f"{ADDRESS}/tree/master", copy)[1] == "master"
    assert repository.rewrite(ADDRESS, copy)[1] == "master"
    assert repository.rewrite(f"{ADDRESS}/tree/main", copy, "trunk")[1] == "trunk"


def test_a_second_time_nothing_changes(copy):
    repository.rewrite(ADDRESS, copy, "trunk")
    before = state(copy)
    assert repository.rewrite(f"{ADDRESS}.git", copy, "trunk") == (ADDRESS, "trunk", [])
    assert state(copy) == before


def test_lines_that_end_as_on_windows_stay_so(copy):
    config = copy / "_config.yml"
    config.write_bytes(config.read_bytes().replace(b"\n", b"\r\n"))
    repository.rewrite(ADDRESS, copy, "trunk")
    assert yaml.safe_load(config.read_text(encoding="utf-8"))["repository"]["branch"] == "trunk"
    assert config.read_bytes().count(b"\n") == config.read_bytes().count(b"\r\n")


@pytest.mark.parametrize("failing", ["write", "replace"])
def test_where_one_file_cannot_be_written_none_is(copy, monkeypatch, failing):
    before, calls = state(copy), []
    owner, name = (repository.tempfile, "mkstemp") if failing == "write" else (repository.Path, "replace")
    real = getattr(owner, name)

    def fails_at_the_fourth(*args, **kwargs):
        calls.append(args)
        if len(calls) == 4:
            raise OSError("the disk is full")
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, fails_at_the_fourth)
    with pytest.raises(OSError, match="the disk is full"):
        repository.rewrite(ADDRESS, copy, "trunk")
    assert state(copy) == before


def test_a_file_that_is_no_text_stops_the_change_before_it_begins(copy):
    with (copy / "README.md").open("ab") as readme:
        readme.write(b"\xff")
    before = state(copy)
    with pytest.raises(ValueError, match=r"README\.md must be text in UTF-8"):
        repository.rewrite(ADDRESS, copy)
    assert state(copy) == before


def test_links_and_rights_of_files_stay(copy):
    readme, elsewhere = copy / "README.md", copy / "elsewhere.md"
    readme.rename(elsewhere)
    elsewhere.chmod(0o640)
    readme.symlink_to(elsewhere)
    repository.rewrite(ADDRESS, copy)
    assert readme.is_symlink()
    assert ADDRESS in elsewhere.read_text(encoding="utf-8")
    assert elsewhere.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("remark", "follows"),
    [
        ("{}.", True),
        ("({})", True),
        ("{}.git", True),
        ("{}/blob/x", True),
        ("{}.js", False),
        ("{}-2", False),
        ("{}2", False),
    ],
)
def test_the_address_is_replaced_where_it_stands_alone(copy, remark, follows):
    old, readme = repository.read_address(copy), copy / "README.md"
    readme.write_text(remark.format(old), encoding="utf-8")
    repository.rewrite(ADDRESS, copy)
    assert readme.read_text(encoding="utf-8") == remark.format(ADDRESS if follows else old)


def git(folder, *arguments):
    options = ["-c", "user.name=x", "-c", "user.email=x@x.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *options, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def fork(copy):
    """The files as a repository on the branch ``master``, whose remote is a fork."""
    git(copy, "init", "--initial-branch", "master")
    git(copy, "remote", "add", "origin", "git@github.com:someone/a-book.git")
    git(copy, "add", ".")
    git(copy, "commit", "-m", "all")
    return copy


REMOTE = ["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk"]
EXISTS = ["update-ref", "refs/remotes/origin/trunk", "HEAD"]


@pytest.mark.parametrize(
    ("commands", "arguments", "branch"),
    [
        pytest.param([], [], "master", id="checked out"),
        pytest.param([["checkout", "-b", "idea"]], [], "idea", id="another checked out"),
        pytest.param([EXISTS, REMOTE], [], "trunk", id="of the remote"),
        pytest.param([EXISTS, REMOTE], ["https://github.com/other/book"], "master", id="not of another remote"),
        pytest.param([["checkout", "--detach"]], [], "main", id="none checked out"),
        pytest.param([EXISTS, REMOTE], ["--branch", "develop"], "develop", id="named"),
        pytest.param([EXISTS, REMOTE], [f"{ADDRESS}/tree/develop"], "develop", id="in the address"),
    ],
)
def test_the_branch_is_that_of_the_remote_or_of_the_checkout(fork, commands, arguments, branch, capsys):
    for command in commands:
        git(fork, *command)
    repository.main(arguments, root=fork)
    assert repository.read_branch(fork) == branch
    assert f"branch {branch} " in capsys.readouterr().out


def test_an_archive_without_git_asks_for_the_address(copy):
    git(copy.parent, "init")
    git(copy.parent, "remote", "add", "origin", "https://github.com/other/around")
    with pytest.raises(SystemExit, match=r"say URL=https://"):
        repository.main([], root=copy)
    repository.main([ADDRESS], root=copy)
    assert (repository.read_address(copy), repository.read_branch(copy)) == (ADDRESS, "main")


def test_where_git_is_not_installed_a_sentence_says_so(fork, monkeypatch):
    monkeypatch.setenv("PATH", str(fork))
    with pytest.raises(SystemExit, match="for want of git"):
        repository.main([], root=fork)
    repository.main([ADDRESS], root=fork)
    assert repository.read_address(fork) == ADDRESS


@pytest.mark.parametrize("url", ["https://github.com/someone", "https://someone.github.io/a-book"])
def test_the_command_refuses_in_one_sentence_and_writes_nothing(fork, url):
    before = state(fork)
    with pytest.raises(SystemExit, match=r"^URL must be"):
        repository.main([url], root=fork)
    assert state(fork) == before


def test_make_hands_the_address_over_as_it_is(root, tmp_path):
    lines = (root / "Makefile").read_text(encoding="utf-8").splitlines()
    (recipe,) = [line for line in lines if "tools/repository.py" in line]
    recipe = recipe.replace("$(BIN)/python", "@printf '<%s>'")
    (tmp_path / "Makefile").write_text(f"repository:\n{recipe}\n", encoding="utf-8")
    url = "https://x.org/a?b=1&c=$(touch spoiled);touch spoiled"
    told = subprocess.run(
        ["make", "-s", f"URL={url.replace('$', '$$')}", "BRANCH=a b"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
    )
    assert told.stdout == f"<tools/repository.py><{url}><--branch><a b>"
    assert not (tmp_path / "spoiled").exists()


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


@pytest.mark.site
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


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("https://github.com/Someone/a-Book", "https://someone.github.io/a-Book/"),
        ("https://github.com/someone/someone.github.io", "https://someone.github.io/"),
        ("https://github.com/SomeOne/someone.github.io", "https://someone.github.io/"),
        ("https://github.com/someone/other.github.io", "https://someone.github.io/other.github.io/"),
        ("https://gitlab.com/someone/a-book", ""),
        ("https://github.com.example.org/someone/a-book", ""),
    ],
)
def test_the_card_names_the_place_where_the_pages_are_published(address, site):
    config = SimpleNamespace(html_theme_options={"repository_url": address}, ogp_site_url="")
    launch_buttons.tell_where_it_is_published(None, config)
    assert config.ogp_site_url == site


@pytest.mark.site
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
    for name in ("Makefile", "README.md"):
        assert "tools/chinese.py --publish" in (root / name).read_text(encoding="utf-8")


def test_what_is_pinned_satisfies_the_package(root):
    pins = {}
    for line in (root / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            (specifier,) = pin.specifier
            assert specifier.operator == "==", line
            pins[pin.name.lower().replace("_", "-")] = specifier.version
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for need in map(Requirement, project["dependencies"] + [each for extra in extras.values() for each in extra]):
        assert all(bound.operator == ">=" for bound in need.specifier), f"{need}: lower bounds only"
        if str(need) not in extras["data"]:
            assert pins[need.name] in need.specifier, need


def test_every_file_states_the_same_version(root):
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert scorebook.__version__ == version
    assert yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert re.search(r"^## (\S+?)[, ]", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)[1] == version
