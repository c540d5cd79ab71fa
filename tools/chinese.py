"""Builds the Chinese edition of the book: ``make chinese``, and, once it is whole, as a part of ``make book``.

The edition is built in ``_build/chinese/html`` from the outputs that the English one has left in its cache; no
notebook is executed. While messages lack a translation it is a draft, to be looked at there. When none does,
``--publish`` puts it into the book, under ``zh/``, and the pages of both lead to each other; when some do, it names
them, each with its page and line, and fails. Who changes the English text and writes no Chinese builds with
``EDITIONS=en``.

``--notebooks FOLDER`` writes the chapters as Chinese notebooks instead, and ``--run`` executes them there.
"""

import surroundings  # noqa: F401 - before all others: it sets what the others' imports read

# isort: split
import argparse
import os
import shutil
import sys
from pathlib import Path

import catalogues
import editions
import translations
import yaml

__all__ = ["build", "notebooks", "publish", "settings"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "chinese"


def settings(root=ROOT):
    """The configuration of the book with another language, as a file beside the edition."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    config["sphinx"]["config"]["language"] = catalogues.LANGUAGE
    path = FOLDER / "_config.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def build(*, whole, pages=()):
    """Builds the edition.

    Args:
        whole: whether it is to stand below the English one; a draft leads to it where it lies.
        pages: the names of those to build, or all.

    Returns:
        True where nothing is wrong.
    """
    from jupyter_book.sphinx import build_sphinx

    os.environ["SCOREBOOK_OTHER_EDITION"] = "../" if whole else "../../html/"
    sources = ROOT / "book"
    ended = build_sphinx(
        str(sources),
        str(FOLDER / "html"),
        path_config=settings(),
        confoverrides={
            "external_toc_path": os.path.relpath(ROOT / "_toc.yml", sources),
            "nitpicky": True,
            "latex_individualpages": False,
        },
        noconfig=True,
        doctreedir=str(FOLDER / ".doctrees"),
        filenames=[str(path) for name in pages for path in catalogues.sources(name)[:1]],
        warningiserror=whole,
        keep_going=True,
    )
    return ended == 0


def publish(root=ROOT):
    """Puts the edition below the English one, in the place of an earlier one."""
    from generated import note

    target = root / "_build" / "html" / "zh"
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(FOLDER / "html", target, ignore=shutil.ignore_patterns(".buildinfo", ".doctrees"))
    note([path for path in target.rglob("*") if path.is_file()])


def notebooks(folder, names=()):
    """Writes the chapters as notebooks in Chinese; code, outputs and the setup cell are those of the English ones.

    Args:
        folder: where to.
        names: of chapters; all whose catalogue is whole, if none.

    Returns:
        The paths.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names or catalogues.pages():
        source = ROOT / "book" / f"{name}.ipynb"
        if source.exists() and (names or not translations.left(name)):
            text = catalogues.translated_notebook(source.read_text(encoding="utf-8"), catalogues.say(name))
            (folder / source.name).write_text(text, encoding="utf-8")
            written.append(folder / source.name)
    return written


def run(paths):
    """Executes notebooks where they lie; raises what a cell raises."""
    import nbformat
    from nbclient import NotebookClient

    for path in paths:
        notebook = nbformat.read(path, 4)
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(path.parent)}}).execute()
        print(f"{path.name} runs", flush=True)


def main(arguments):
    """What the command line asks for; how it ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--publish", action="store_true")
    parser.add_argument("--notebooks", type=Path)
    parser.add_argument("--run", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.notebooks:
        written = notebooks(asked.notebooks, asked.pages)
        names = ", ".join(path.stem for path in written) or "no page is whole"
        print(f"{len(written)} notebooks in {asked.notebooks}: {names}")
        if asked.run:
            run(written)
        return 0
    if asked.publish and not editions.wanted():
        return 0
    whole, names = translations.whole(), [*catalogues.pages(), catalogues.COMMON, catalogues.LIVE]
    faults = [fault for name in names for fault in translations.complaints(name)]
    if asked.publish:
        faults += [f"{place}: {state}: {text[:90]}" for name in names for place, state, text in translations.left(name)]
    if faults:
        print("The Chinese edition does not say what the English one says; make translate brings the messages there.")
        print(*faults, sep="\n")
        return 1
    if not build(whole=whole, pages=asked.pages):
        return 1
    if asked.publish:
        publish()
    print(
        f"The Chinese edition{'' if whole else ', a draft,'} is ready. Open", (FOLDER / "html" / "index.html").as_uri()
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
