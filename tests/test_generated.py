"""Tools overwrite, and ``make clean`` removes, what tools have written, and nothing that a person wrote."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import generated
import pretrain
import pytest


def write(path, content=b"mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def state(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def built(tmp_path):
    """A clone in which everything was made, in a folder with a space."""
    root = tmp_path / "a clone"
    names = ["_build/.doctrees/index.doctree", "_build/.site", "_build/programs.json", "_build/company/0123.json"]
    names += ["_build/.jupyter_cache/0123456789abcdef/global.db", "_build/jupyter_execute/a.png", "_build/surface.txt"]
    names += [
        "_build/colab/venv/bin/python",
        "_build/.settings/matplotlib/x",
        ".pytest_cache/README.md",
        ".ruff_cache/x",
        ".mypy_cache/x",
    ]
    names += [".hypothesis/examples/x", ".import_linter_cache/x", "_build/jupyter_execute/b.png"]
    for name in names:
        write(root / name, b"made")
    generated.write(root / "_build", {"scorebook.pdf": b"%PDF \0 made"})
    build(root)
    return root


def build(root, **pages):
    """What a build does, of a page, its style and the ``pages``; its copies keep the dates of what was copied."""
    html = root / "_build" / "html"
    app = SimpleNamespace(outdir=html)
    generated.began(app, None)
    for name in ("index.html", "_static/a.css", *pages):
        write(html / name, pages.get(name, b"made"))
        os.utime(html / name, (0, 0))
    generated.note_pages(app, None, root)


def test_clean_removes_what_was_made(built):
    write(built / "book" / "index.md")
    assert generated.clean(built) == []
    assert state(built) == {"book/index.md": b"mine"}
    assert not (built / "_build").exists()


@pytest.mark.parametrize(
    "name",
    [
        "_build/notes.md",
        "_build/notes/html/index.html",
        "_build/coursework/submitted/ada/1_score/1_score.ipynb",
        "_build/coursework/nbgrader/gradebook.db",
        "_build/coursework/nbgrader/submitted/ada/1_score/1_score.ipynb",
        "_build/scorebook.pdf",
        "_build/scorebook (annotated).pdf",
        "_build/html.zip",
        "_build/html/CNAME",
        "_build/html/my own/page.html",
        "_build/html/index.html",
        "coursework/html/index.html",
    ],
)
def test_clean_keeps_what_a_person_wrote_and_says_so(built, name):
    write(built / name)
    kept = generated.clean(built)
    assert state(built).pop(name) == b"mine"
    assert [path.relative_to(built).as_posix() for path in kept] == ["/".join(name.split("/")[:2])] * name.startswith(
        "_b"
    )


@pytest.mark.parametrize("name", ["CNAME", "notes/index.html"])
def test_a_later_build_takes_nobodys_file_for_its_own(built, name):
    write(built / "_build" / "html" / name)
    build(built, new=b"made")
    generated.clean(built)
    assert state(built) == {f"_build/html/{name}": b"mine"}


def test_pages_of_which_nobody_knows_who_wrote_them_stay(built):
    (built / "_build" / generated.NOTES).unlink()
    kept = generated.clean(built)
    assert [path.name for path in kept] == ["html", "scorebook.pdf"]
    assert len(state(built / "_build" / "html")) == 2


def test_the_build_of_another_folder_is_not_noted(tmp_path):
    app = SimpleNamespace(outdir=tmp_path / "_build" / "epub")
    generated.began(app, None)
    write(app.outdir / "index.html")
    generated.note_pages(app, None, tmp_path)
    assert not (tmp_path / "_build" / generated.NOTES).exists()


def test_each_build_of_the_book_notes_its_pages(root):
    assert "\n    generated: tools\n" in (root / "_config.yml").read_text(encoding="utf-8")


def test_clean_follows_no_link(built, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere / "page.html")
    shutil.rmtree(built / "_build" / "html")
    (built / "_build" / "html").symlink_to(elsewhere)
    generated.clean(built)
    assert state(elsewhere) == {"page.html": b"mine"}


@pytest.mark.parametrize("notes", [b"", b"{", None])
def test_clean_keeps_what_it_cannot_tell(built, notes):
    path = built / "_build" / generated.NOTES
    path.write_bytes(notes) if notes is not None else path.unlink()
    generated.clean(built)
    assert (built / "_build" / "scorebook.pdf").exists()


def test_clean_has_nothing_to_do_in_a_fresh_clone(tmp_path):
    assert generated.clean(tmp_path) == []
    generated.clean(tmp_path)


def test_make_clean_runs_it_with_any_python_and_no_environment(root, built):
    shutil.copytree(root / "tools", built / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "Makefile", built)
    write(built / "_build" / "notes.md")
    command = ["make", "clean", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=built, capture_output=True, encoding="utf-8", check=True)
    assert "kept, for no tool has written it so: _build/notes.md" in done.stdout
    assert {path.name for path in (built / "_build").iterdir()} == {"notes.md"}
    assert not (built / ".venv").exists()


def test_what_was_written_is_written_anew(tmp_path):
    generated.write(tmp_path / "new", {"a.txt": b"1", "b.txt": b"1"})
    generated.write(tmp_path / "new", {"a.txt": b"2"})
    (tmp_path / "new" / "b.txt").unlink()
    generated.write(tmp_path / "new", {"b.txt": b"3"})
    assert ((tmp_path / "new" / "a.txt").read_bytes(), (tmp_path / "new" / "b.txt").read_bytes()) == (b"2", b"3")


@pytest.mark.parametrize("how", ["changed", "made before", "a folder", "a link that leads nowhere"])
def test_what_a_person_wrote_is_never_overwritten_and_nothing_else_is_written(tmp_path, how):
    generated.write(tmp_path, {"first.txt": b"1"})
    if how == "changed":
        generated.write(tmp_path, {"mine.txt": b"1"})
    path = tmp_path / "mine.txt"
    if how == "a folder":
        write(path / "inside.txt")
    elif how == "a link that leads nowhere":
        path.symlink_to(tmp_path / "nowhere")
    else:
        write(path)
    before = state(tmp_path)
    for attempt in (generated.write, generated.guard):
        with pytest.raises(FileExistsError, match=r"mine\.txt: not written, since somebody else.*Move it away"):
            attempt(tmp_path, {"first.txt": b"2", "mine.txt": b"2"})
    with pytest.raises(FileExistsError):
        generated.guard(tmp_path, ["first.txt", "mine.txt"])
    assert state(tmp_path) == before


def test_the_same_bytes_and_other_line_ends_are_nobodys_change(tmp_path):
    write(tmp_path / "same.txt", b"made\n")
    generated.write(tmp_path, {"same.txt": b"made\n", "text.txt": b"a\nb\n"})
    write(tmp_path / "text.txt", b"a\r\nb\r\n")
    generated.write(tmp_path, {"text.txt": b"new\n"})
    assert (tmp_path / "text.txt").read_bytes() == b"new\n"


@pytest.mark.parametrize("folder", ["book/_static", "scorebook/lab/weights"])
def test_what_lies_in_the_repository_is_noted_as_it_lies_there(root, folder):
    noted = generated._noted(root / folder)
    assert len(noted) >= 2
    generated.guard(root / folder, list(noted))


def test_weights_that_somebody_has_put_there_are_not_trained_over(tmp_path, monkeypatch):
    write(tmp_path / "digits.json")
    monkeypatch.setattr(pretrain, "make", lambda name, folder: pytest.fail("it trains"))
    with pytest.raises(SystemExit, match=r"digits\.json: not written"):
        pretrain.main(["digits", "--into", str(tmp_path)])


def test_to_measure_anew_changes_the_figures_of_a_card_and_its_digest_alone(tmp_path, monkeypatch, root):
    shipped = root / "scorebook" / "lab" / "weights"
    folder = shutil.copytree(shipped, tmp_path / "weights")
    figures = {"held-out loss, label given": {"value": 1.0, "error": 0.1, "n": 2, "of": "a test"}}
    monkeypatch.setattr(pretrain, "measure", lambda network, card, **options: figures)
    monkeypatch.setattr(pretrain, "train", lambda card: pytest.fail("it trains"))
    pretrain.main(["digits", "--remeasure", "--into", str(folder)])
    card = json.loads((shipped / "digits.json").read_text(encoding="utf-8")) | {"figures": figures}
    assert json.loads((folder / "digits.json").read_text(encoding="utf-8")) == card
    noted = generated._noted(folder)
    assert {name for name, digest in generated._noted(shipped).items() if noted[name] != digest} == {"digits.json"}
    generated.guard(folder, list(noted))
    others = [path.name for path in folder.iterdir() if path.name not in ("digits.json", generated.NOTES)]
    assert all((folder / name).read_bytes() == (shipped / name).read_bytes() for name in others)
