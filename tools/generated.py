"""What the tools have written, told from what people wrote: the one is overwritten and swept away, the other never.

A tool that writes files for people to keep writes them through :func:`write`, which notes the digest of each in a file
``.generated`` beside them. A file that is not noted there, or no longer is as noted, is somebody's own. ``make clean``
runs this file: it removes what is noted in ``_build``, and the folders that tools fill out of sight. As a Sphinx
extension it notes which pages a build has written, for somebody may put a file of their own among them.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

__all__ = ["clean", "guard", "note", "own", "prune", "setup", "unix", "write"]

ROOT = Path(__file__).resolve().parent.parent
NOTES = ".generated"

# Filled by Jupyter Book, the test run and the tools, and by nobody's hand.
FILES = (".npm", ".site", "surface.txt", "programs.txt", "programs.json")
FOLDERS = (
    ".doctrees",
    "jupyter_execute",
    ".jupyter_cache",
    ".settings",
    "chinese",
    "colab",
    "company",
    "mutants",
    "questions",
    "slides",
)
PAGES = "html"
CACHES = (".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", ".import_linter_cache")


def unix(content):
    """The bytes of a file as they are, or of a text, as they are where lines end as on Unix."""
    return content if b"\0" in content else content.replace(b"\r\n", b"\n")


def _digest(content):
    return hashlib.sha256(unix(content)).hexdigest()


def _noted(folder):
    try:
        return json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def _note(folder, noted):
    (folder / NOTES).write_text(json.dumps(noted, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def write(folder, contents):
    """Writes files into a folder, over those that were written so before, and over no others.

    Args:
        folder: where to; made if it is not there.
        contents: name to bytes.

    Raises:
        FileExistsError: if somebody has written or changed one of the files; then none is written.
    """
    guard(folder, contents)
    noted = _noted(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        noted[name] = _digest(content)
        _note(folder, noted)


def guard(folder, contents):
    """Raises ``FileExistsError`` if :func:`write` would; for what takes long, before it begins, with names only."""
    if found := own(folder, contents):
        raise FileExistsError(
            f"{', '.join(str(folder / x) for x in found)}: not written, since somebody else made this file or has "
            "changed it. Move it away or delete it, and run this again"
        )


def own(folder, contents):
    """The names among ``contents`` of the files that :func:`write` would refuse to write over."""
    noted = _noted(folder)
    new = contents if isinstance(contents, dict) else dict.fromkeys(contents)
    return [name for name in new if _is_own(folder / name, noted.get(name), new[name])]


def prune(folder, names):
    """Removes from a folder what :func:`write` has written there under other names than these.

    Returns:
        The other names that stay, since somebody has changed the files.
    """
    noted, kept = _noted(folder), []
    for name in sorted(noted.keys() - set(names)):
        if _is_own(folder / name, noted[name]):
            kept.append(name)
            continue
        (folder / name).unlink(missing_ok=True)
        place = (folder / name).parent
        if place != folder and place.is_dir() and not any(place.iterdir()):
            place.rmdir()
        del noted[name]
    _note(folder, noted)
    return kept


def _is_own(path, noted, content=None):
    if not path.exists() and not path.is_symlink():
        return False
    there = _digest(path.read_bytes()) if path.is_file() else None
    return there is None or (there != noted and (content is None or there != _digest(content)))


def clean(root=ROOT):
    """Removes what was generated.

    Returns:
        What stays in ``_build``, since people have put it there.
    """
    build = root / "_build"
    for folder in [*(build / name for name in FOLDERS), *(root / name for name in CACHES)]:
        if folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder)
    for name in FILES:
        (build / name).unlink(missing_ok=True)
    noted = _noted(build)
    for name, digest in noted.items():
        if not _is_own(build / name, digest):
            (build / name).unlink(missing_ok=True)
    for place, _, _ in os.walk(build / PAGES, topdown=False):
        if not os.listdir(place):
            os.rmdir(place)
    if not any((build / name).exists() for name in noted):
        (build / NOTES).unlink(missing_ok=True)
    if build.is_dir() and not build.is_symlink() and not any(build.iterdir()):
        build.rmdir()
    return sorted(path for path in build.glob("*") if path.name != NOTES)


def began(app, config):
    """Remembers when a build has begun, by the clock of the file system, whose next tick tells what follows."""
    Path(app.outdir).mkdir(parents=True, exist_ok=True)
    before = _tick(app.outdir)
    while (now := _tick(app.outdir)) == before:
        time.sleep(0.001)
    app.scorebook_began = now


def _tick(folder):
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_ctime_ns


def note(paths, root=ROOT):
    """Notes files in ``_build`` as written by a tool.

    Args:
        paths: the files.
        root: the repository.
    """
    build = root / "_build"
    _note(build, _noted(build) | {path.relative_to(build).as_posix(): _digest(path.read_bytes()) for path in paths})


def note_pages(app, error, root=ROOT):
    """Notes which pages are this build's. A copied file keeps its date, but not that of its last change of any kind."""
    pages, build = Path(app.outdir), root / "_build"
    if pages.resolve() != (build / PAGES).resolve():
        return
    note([p for p in pages.rglob("*") if p.is_file() and p.lstat().st_ctime_ns >= app.scorebook_began], root)


def setup(app):
    """Registers the extension."""
    app.connect("config-inited", began)
    app.connect("build-finished", note_pages, priority=1000)  # after those that still write something
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    for kept in clean():
        print(f"kept, for no tool has written it so: {kept.relative_to(ROOT)}")
