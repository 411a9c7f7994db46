"""What is left in shared memory when nobody uses it any more."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
_WAIT_S = 60
"""For what a test beside this one killed and has not cleared away yet; what is left for good outlasts it."""


def files() -> set[Path]:
    """What has a name there now."""
    return set(FOLDER.iterdir())


def left_since(before: set[Path]) -> set[Path]:
    """Our files that are not of ``before`` and that no process holds: tests that run beside this one have theirs."""
    deadline = time.monotonic() + _WAIT_S
    while (left := _unheld(before)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _unheld(before: set[Path]) -> set[Path]:
    came = {}
    for path in files() - before:
        with suppress(FileNotFoundError):
            came[path] = path.lstat()
    device, held = FOLDER.stat().st_dev, {*_held()}
    ours = {path for path, file in came.items() if file.st_uid == os.getuid() and (device, file.st_ino) not in held}
    return {path for path in ours if not path.is_symlink()} & files()


def _held() -> Iterator[tuple[int, int]]:
    """Device and inode of what processes have open, or mapped from there, by whatever name it had then."""
    device = FOLDER.stat().st_dev
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            for line in (process / "maps").read_text().splitlines():
                if f" {FOLDER}/" in line:
                    yield device, int(line.split()[4])
        with suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    file = descriptor.stat()
                    yield file.st_dev, file.st_ino
