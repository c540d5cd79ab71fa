"""The oldest environment that the package promises to run in, as requirements for ``make lowest``.

What ``pyproject.toml`` bounds from below, for the package, its widgets and its data, is pinned to its bound. What these
need in turn pip chooses to fit them. The other tools, which build and test, are those of ``requirements.txt``.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What the package takes through others, in the version that fits them.
LEFT_TO_PIP = {"scipy"}
# What no test imports: its place is taken by one that reads two images.
LEFT_OUT = {"torchvision"}
# What would be too new, by the package that needs it: Matplotlib 3.8 calls what pyparsing 3.3 warns of, and ipywidgets
# 7 what ipykernel warns of since 6.18, which is an error under `python -W error`.
NOT_NEWER = {"matplotlib": "pyparsing<3.3", "ipywidgets": "ipykernel<6.18"}


def lower_bounds(project: dict) -> dict[str, str]:
    """Each dependency and the least version that it may have."""
    bounds = {}
    extras = project["optional-dependencies"]
    for requirement in project["dependencies"] + extras["widgets"] + extras["data"]:
        bounded = re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement)
        if bounded is None:
            raise ValueError(f"pyproject.toml must give each dependency one lower bound, name>=version: {requirement}")
        if bounded[1] not in LEFT_OUT:
            bounds[bounded[1].lower()] = bounded[2]
    return bounds


def requirements(pyproject: str, locked: str) -> list[str]:
    """Requirements of the oldest environment, from the texts of ``pyproject.toml`` and ``requirements.txt``."""
    said = tomllib.loads(pyproject)
    bounds = lower_bounds(said["project"])
    older = [limit for name, limit in NOT_NEWER.items() if name in bounds]
    chosen = bounds.keys() | LEFT_TO_PIP | {limit.partition("<")[0] for limit in older}
    pins = [line for line in locked.splitlines() if line and not line.startswith("#")]
    others = [pin for pin in pins if pin.partition("==")[0].lower() not in chosen]
    # Tests build the archives in this environment, not in one of their own.
    building = said.get("build-system", {}).get("requires", [])
    return [f"{name}=={version}" for name, version in bounds.items()] + older + building + others


if __name__ == "__main__":
    texts = ((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "requirements.txt"))
    print(*requirements(*texts), sep="\n")
