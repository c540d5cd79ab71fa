"""Is another project of our name installed? PyPI's ``scorebook`` is one, and is imported by the same name.

Ours is distributed as ``scorebook-diffusion``, so whatever is installed as ``scorebook`` is not ours, but for what a
clone has installed before it took that name.
"""

import sys
from importlib import metadata

__all__ = ["complaint"]


def complaint():
    """What is wrong where another project named scorebook is installed in this environment, else None."""
    for found in metadata.distributions(name="scorebook"):
        if "Score-based" not in str(found.metadata["Summary"]):
            return (
                f"Another project named scorebook (version {found.version}) is installed in {sys.prefix}, and import "
                "scorebook may find it instead of this package. Never say pip install scorebook: remove this "
                "environment, and run make again"
            )
    return None


if __name__ == "__main__":
    sys.exit(complaint())
