r"""Sets the address of this repository, and its branch, wherever the book has to repeat them.

Both stand in ``_config.yml``; the setup cell of every notebook, the README and the citation file repeat the address,
since Colab, a reader and a reference manager look there. Usage: ``make repository URL=https://... BRANCH=main``.
Without ``URL`` the address of the remote ``origin`` is taken. Without ``BRANCH`` it is the one that the address names
(``.../tree/develop``), else that on which the remote stands, else the one that is checked out.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from sources import files

__all__ = [
    "files_with_address",
    "main",
    "read_address",
    "read_branch",
    "rewrite",
    "split_address",
    "web_address",
    "write_all",
]

ROOT = Path(__file__).resolve().parent.parent

# Other names under which git reaches a host: past a firewall, and out of habit.
HOSTS = {
    "www.github.com": "github.com",
    "ssh.github.com": "github.com",
    "www.gitlab.com": "gitlab.com",
    "altssh.gitlab.com": "gitlab.com",
    "www.bitbucket.org": "bitbucket.org",
    "altssh.bitbucket.org": "bitbucket.org",
    "www.codeberg.org": "codeberg.org",
}
# Where a repository is a name below a user's or a group's; the first three have no groups in groups.
OWNED = ("github.com", "bitbucket.org", "codeberg.org", "gitlab.com", "git.sr.ht")
NO_SUBGROUPS = OWNED[:3]
# What GitHub shows in the place of a user.
NO_USERS = (
    "apps",
    "enterprise",
    "features",
    "marketplace",
    "orgs",
    "search",
    "settings",
    "sponsors",
    "topics",
    "users",
)
# Where a notebook of a repository can be seen, run or installed from; the repository lies elsewhere.
VIEWERS = r"(^|\.)(google\.com|nbviewer\.org|jupyter\.org|mybinder\.org|pypi\.org|readthedocs\.(io|org)|netlify\.app)$"
# What a forge puts between a repository and a branch in the addresses of its pages.
VIEWS = ("tree", "blob", "raw", "edit", "blame", "commits", "src")


def _refusal(url, why):
    # A name and a password, or a token, may be in it.
    shown = re.sub(r"[?#].*", "", re.sub(r"^([\w+]*://)?.*@", r"\1***@", url, flags=re.S), flags=re.S)
    return ValueError(
        f"URL must be the address of a repository on the web, like https://host/name/book, got {shown!r}: {why}"
    )


def split_address(url):
    """The https address of a repository and, where it names one, the branch.

    Args:
        url: any address that git takes for it, or that of a page about it.

    Returns:
        The address without anything secret in it, and the branch or None.

    Raises:
        ValueError: if the address is none that a reader's browser and pip could both open.
    """
    given, url = url, url.strip().removeprefix("git+")
    if re.search(r"\s", url):
        raise _refusal(given, "there is a gap in it")
    if re.match(r"[\w-]+(\.[\w-]+)+/", url):
        url = f"https://{url}"
    elif scp := re.fullmatch(r"(?:[^@/:\s]+@)?([\w-]+(?:\.[\w-]+)+):(?!//)(.+)", url):
        url = f"ssh://{scp[1]}/{scp[2].lstrip('/')}"
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").removesuffix("."), parts.port
    except ValueError:
        raise _refusal(given, "its host or its port cannot be read") from None
    if parts.scheme not in ("http", "https", "ssh", "git"):
        raise _refusal(given, "it has to begin with https://")
    if not re.fullmatch(r"[a-z\d-]+(\.[a-z\d-]+)+", host):
        raise _refusal(given, f"{host!r} is no host that others could reach")
    host = HOSTS.get(host, host)
    if pages := re.fullmatch(r"([^.]+)\.(github|gitlab)\.io", host):
        raise _refusal(given, f"the pages are published there; the repository is https://{pages[2]}.com/{pages[1]}/...")
    forge = re.search(r"(^|\.)(github|githubusercontent|gitlab|bitbucket)\.(com|org|dev)$", host) and host not in OWNED
    if forge or re.search(VIEWERS, host):
        raise _refusal(given, f"{host} serves no repositories")
    names, branch = _below(parts.path, host, given)
    # ssh's port says nothing of the pages. Where http was asked for at a port of its own, https is not to be had there.
    web = parts.scheme in ("http", "https") and port not in (None, 80, 443)
    scheme = "http" if web and parts.scheme == "http" else "https"
    return f"{scheme}://{host}{f':{port}' if web else ''}/{'/'.join(names)}", branch


def _below(path, host, given):
    """The names that make a repository's path, and the branch where the path goes on to one."""
    names = [name for name in path.split("/") if name]
    end = min(2, len(names)) if host in NO_SUBGROUPS else _end(names)
    names, rest = names[:end], names[end:]
    if len(names) < (2 if host in OWNED else 1):
        raise _refusal(given, "it names no repository" + (", only its owner" if names else ""))
    if host == "github.com" and names[0].lower() in NO_USERS:
        raise _refusal(given, f"github.com/{names[0]} is no user")
    names[-1] = re.sub(r"\.git$", "", names[-1], flags=re.I)
    for name in names:
        if not re.fullmatch(r"~?[\w.-]+", name, re.ASCII) or set(name) <= {"."}:
            raise _refusal(given, f"{name!r} is no name that every program would read alike")
    return names, _branch(rest, given)


def _end(names):
    """How many names the repository's own path has, where groups may lie in groups."""
    for i, name in enumerate(names):
        if name.lower().endswith(".git"):
            return i + 1
        if name == "-" or (name in VIEWS and i >= 2):
            return i
    return len(names)


def _branch(rest, given):
    rest = rest[1:] if rest[:1] == ["-"] else rest
    if rest[:1] not in [[view] for view in VIEWS]:
        return None
    view, rest = rest[0], rest[1:]
    if view == "src" and rest[:1] == ["branch"]:
        rest = rest[1:]
    # Names of branches have slashes, too. A file needs one name at least, and git keeps no branch below another.
    if len(rest) > 1 and rest[0] not in ("main", "master") and (view == "tree" or len(rest) > 2):
        raise _refusal(given, "where its branch ends is not to be seen: give the repository's address, and BRANCH=...")
    return rest[0] if rest else None


def web_address(url):
    """The https address of a repository, as :func:`split_address` reads it."""
    return split_address(url)[0]


def _stated(name, text):
    """What the configuration states of the repository under a name, as YAML would read it, and where it stands."""
    found = re.search(rf"^repository:[ \t]*\r?\n(?:[ \t]+.*\n|#.*\n|\r?\n)*?[ \t]+{name}:[ \t]*([^\s#]+)", text, re.M)
    if not found:
        raise ValueError(f"_config.yml must state {name} below repository")
    return found


def read_address(root=ROOT):
    """The address that ``_config.yml`` states."""
    return _stated("url", (root / "_config.yml").read_text(encoding="utf-8"))[1].strip("\"'")


def read_branch(root=ROOT):
    """The branch that ``_config.yml`` states."""
    return _stated("branch", (root / "_config.yml").read_text(encoding="utf-8"))[1].strip("\"'")


NOTEBOOKS = ("book", "coursework", "locale")


def files_with_address(root=ROOT):
    """The files that state the address."""
    named = ("_config.yml", "README.md", "CITATION.cff", "tools/setup_cell.ipy")
    notebooks = [path for folder in NOTEBOOKS for path in files(root / folder, "*.ipynb", root)]
    # A fork may have dropped the citation, but not the configuration.
    return [root / name for name in named if name == named[0] or (root / name).exists()] + notebooks


def rewrite(url, root=ROOT, branch=None):
    """Puts a new address and branch in the place of the present ones.

    Args:
        url: the address, in any form that :func:`split_address` reads.
        root: the repository.
        branch: the branch that holds the book; default: the one that ``url`` names, else the present one.

    Returns:
        The address, the branch, and the files that have changed: all that had to, or, if one cannot be written, none.
    """
    old, (new, named) = read_address(root), split_address(url)
    branch = branch or named or read_branch(root)
    if not _is_branch(branch):
        raise ValueError(f"BRANCH must be the name of a branch, got {branch!r}")
    # Not within a longer name: book-2, book.js. At the end of a sentence, and before .git, it is the address.
    stated = re.compile(rf"(?<![\w@]){re.escape(old)}(?!(?!\.git\b)\.?[\w~-])")
    contents = {}
    for path in files_with_address(root):
        try:
            before = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} must be text in UTF-8: {error}") from None
        after = stated.sub(new, before)
        if path.name == "_config.yml":
            found = _stated("branch", after)
            # In quotes: YAML would take on, null and 1.0 for something else.
            after = after[: found.start(1)] + json.dumps(branch) + after[found.end(1) :]
        if after != before:
            contents[path] = after.encode("utf-8")
    write_all(contents)
    return new, branch, [path.relative_to(root) for path in contents]


def _is_branch(name):
    """Whether git would take the name for a branch, and the address of a page would show it as it is."""
    parts = name.split("/")
    bad = any(not part or part.startswith(".") or part.endswith((".", ".lock")) or ".." in part for part in parts)
    return bool(re.fullmatch(r"(?!-)[\w./+-]+", name, re.ASCII)) and not bad


def write_all(contents):
    """Writes bytes into files: into all, or, if one cannot be written, into none."""
    contents = {Path(os.path.realpath(path)): content for path, content in contents.items()}
    before = {path: path.read_bytes() for path in contents}
    ready, done = {}, []
    try:
        for path, content in contents.items():
            if not os.access(path, os.W_OK):
                raise PermissionError(f"{path} may not be written")
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".new")
            ready[path] = Path(name)
            with open(handle, "wb") as file:
                file.write(content)
            ready[path].chmod(path.stat().st_mode)
        for path, new in ready.items():
            new.replace(path)
            done.append(path)
    except BaseException:
        for path in done:
            path.write_bytes(before[path])
        raise
    finally:
        for new in ready.values():
            with suppress(FileNotFoundError):
                new.unlink()


def _git(root, *arguments):
    """What git answers, or None where it is not there, knows no answer, or would speak of another repository."""
    if not (root / ".git").exists():
        return None
    try:
        asked = subprocess.run(["git", *arguments], cwd=root, capture_output=True, encoding="utf-8", errors="replace")
    except OSError:
        return None
    return asked.stdout.strip() or None if asked.returncode == 0 else None


def remote_address(root=ROOT):
    """The address from which the checkout was cloned, or None."""
    return _git(root, "remote", "get-url", "origin")


def remote_branch(address, root=ROOT):
    """The branch on which a repository stands, if the checkout is a clone of it, else the one checked out, or None."""
    origin, head = remote_address(root), None
    with suppress(ValueError):
        if origin and web_address(origin).lower() == address.lower():
            head = _git(root, "symbolic-ref", "--short", "refs/remotes/origin/HEAD")
    return head.removeprefix("origin/") if head else _git(root, "branch", "--show-current")


def main(arguments=None, root=ROOT):
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url", nargs="?", help="address of the repository; default: the remote origin of this checkout")
    parser.add_argument("--branch", help="the branch that holds the book; default: the one on which the remote stands")
    given = parser.parse_args(arguments)
    url = given.url or remote_address(root)
    if url is None:
        sys.exit(
            "Nobody knows where this copy came from, for want of git or of a remote named origin: say URL=https://..."
        )
    try:
        address, named = split_address(url)
        branch = given.branch or named or remote_branch(address, root)
        address, branch, changed = rewrite(url, root, branch)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    for path in changed:
        print(f"  {path}")
    print(f"The book's repository is {address}, and Colab opens its branch {branch} (BRANCH=... for another).")
    print("Commit the files above and push." if changed else "Every file says so already.")


if __name__ == "__main__":
    main()
