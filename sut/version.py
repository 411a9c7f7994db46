"""Which version of this project it is, and of which commit."""

from __future__ import annotations

import subprocess
from functools import cache

from plugins.packages import CHECKOUT
from sut import __version__

NAME = "loadgen-vision-sut"


@cache
def commit() -> str | None:
    """The commit of this checkout, ``-dirty`` behind it where files differ from it; None where git cannot tell."""
    if not (CHECKOUT / ".git").exists():  # it may lie in another project's checkout
        return None
    describe = ["git", "--no-optional-locks", "-C", str(CHECKOUT), "describe", "--always", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def own_version() -> str:
    """Version and commit in one word, such as ``0.1.0+g66f119a-dirty``; the version alone without a commit."""
    return f"{__version__}+g{found}" if (found := commit()) else __version__
