"""Sets the address of this repository wherever the book has to repeat it.

The address stands in ``_config.yml``; the setup cell of every notebook, the README and the citation file repeat it,
since Colab, a reader and a reference manager look there. Usage: ``make repository URL=https://...``; without ``URL``
the address of the remote ``origin`` is taken.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from sources import files

__all__ = ["files_with_address", "main", "read_address", "rewrite", "web_address"]

ROOT = Path(__file__).resolve().parent.parent


def web_address(url):
    """The https address of a repository, given any address that git takes for it.

    Raises:
        ValueError: if the address is none that a reader's browser and pip could both open.
    """
    url = url.strip()
    if scp := re.fullmatch(r"(?:\w[\w.-]*@)?([\w.-]+\.[\w-]+):(?!//)(\S+)", url):
        url = f"https://{scp[1]}/{scp[2]}"
    web = re.fullmatch(r"(?:https?|ssh|git)://(?:[^@/]*@)?([\w.-]+\.[\w-]+)(?::\d+)?/([\w.~/-]+?)(?:\.git)?/*", url)
    if not web:
        raise ValueError(
            f"URL must be the address of a repository on the web, like https://host/name/book, got {url!r}"
        )
    return f"https://{web[1]}/{web[2]}"


def read_address(root=ROOT):
    """The address that ``_config.yml`` states."""
    return re.search(r"^repository:\n  url: (\S+)$", (root / "_config.yml").read_text(encoding="utf-8"), re.M)[1]


def files_with_address(root=ROOT):
    """The files that state the address."""
    named = ("_config.yml", "README.md", "CITATION.cff", "tools/setup_cell.ipy")
    notebooks = [path for folder in ("book", "coursework") for path in files(root / folder, "*.ipynb", root)]
    return [root / name for name in named] + notebooks


def rewrite(url, root=ROOT):
    """Puts a new address in the place of the present one, and returns it with the files that have changed."""
    old, new = read_address(root), web_address(url)
    stated = re.compile(re.escape(old) + r"(?![\w~-])")
    changed = []
    for path in files_with_address(root):
        before = path.read_bytes().decode("utf-8")
        after = stated.sub(new, before)
        if after != before:
            path.write_bytes(after.encode("utf-8"))
            changed.append(path.relative_to(root))
    return new, changed


def main(arguments=None):
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", nargs="?", help="address of the repository; default: the remote origin of this checkout")
    url = parser.parse_args(arguments).url
    if url is None:
        asked = subprocess.run(
            ["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, encoding="utf-8", errors="replace"
        )
        if asked.returncode:
            sys.exit("This checkout has no remote named origin: say make repository URL=https://...")
        url = asked.stdout
    try:
        address, changed = rewrite(url)
    except ValueError as error:
        sys.exit(str(error))
    for path in changed:
        print(f"  {path}")
    print(f"The book's repository is {address}. Commit the files above and push.")


if __name__ == "__main__":
    main()
