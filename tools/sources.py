"""Which files are the project's: all but those whose names ``.gitignore`` lists.

Editors, systems and Jupyter leave ``langevin.py~``, ``.DS_Store`` and ``Untitled.ipynb`` among the sources. What looks
through a folder of the project looks through :func:`files`, so that they are no chapter, no module and no change. Git
is not asked, since the project may have come as a plain archive.
"""

import functools
import os
import sys
from fnmatch import fnmatchcase
from pathlib import Path

__all__ = ["files", "ignored"]

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def _patterns():
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("\\") for line in lines if line and not line.startswith("# ")]


def ignored(path, root=ROOT):
    """Whether ``.gitignore`` lists a file's name, or with a slash at the end that of a folder around it."""
    *folders, name = Path(path).relative_to(root).parts
    return any(
        fnmatchcase(part, pattern.removesuffix("/"))
        for pattern in _patterns()
        for part in (folders if pattern.endswith("/") else [*folders, name])
    )


def files(folder, pattern="*", root=ROOT):
    """The project's files in a folder and below it, in order."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".git" and not ignored(Path(place, name, "any"), root)]
        found += [Path(place, name) for name in names if fnmatchcase(name, pattern)]
    return sorted(path for path in found if path.is_file() and not ignored(path, root))


if __name__ == "__main__":
    print(*[path.relative_to(ROOT).as_posix() for path in files(ROOT, sys.argv[1])], sep="\n")
