"""Which version of this project it is, and of which commit."""

from __future__ import annotations

import hashlib
import subprocess
from functools import cache
from pathlib import Path

from plugins.files import sha256_of
from plugins.packages import CHECKOUT, OWN_NAMES
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


def source_sha256(root: Path = CHECKOUT) -> str:
    """SHA-256 of what this project is made of, names and contents, as lower-case hex: of what measured, however it is
    called. Hidden files and what Python has compiled do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(path for name in OWN_NAMES for path in (root / name).rglob("*") if path.is_file()):
        name = path.relative_to(root)
        if not any(part.startswith(".") or part == "__pycache__" for part in name.parts):
            digest.update(f"{name.as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
