"""Generated pictures of the benchmark's sizes, as folders in the cache that runs read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from plugins.files import sha256_of
from sut.datasets import mosaics
from sut.files import cached
from sut.text import Say

SETS = {"small": 24, "medium": 24, "large": 6, "mix": 18}
"""How many pictures of each there are: enough that one is not the one before, and few of those that take long."""

LIST = "pictures.txt"
"""Of their names, in the folder of generated pictures."""

Files = Sequence[tuple[str, bytes, int]]
"""Name, content and label of each, as ``mosaics.pictures`` gives them."""


def generated_pictures(name: str, say: Say) -> dict[str, Any]:
    """The settings that make a run read the set ``name``, which is made where it is not there yet."""
    return in_folder(made(name, f"{name} {SETS[name]}", partial(mosaics.pictures, name, SETS[name]), say))


def in_folder(path: Path) -> dict[str, Any]:
    """The settings that make a run read the pictures of a folder."""
    return {"dataset": "folder", "dataset_path": str(path)}


def made(name: str, key: str, make: Callable[[], Files], say: Say) -> Path:
    """The folder in the cache with what ``make`` makes; ``key`` and the code of mosaics say whether it is the same."""

    def write(path: Path) -> None:
        files = make()
        for file, data, _ in files:
            (path.parent / file).write_bytes(data)
        path.write_text("".join(f"{file}\n" for file, _, _ in files), encoding="utf-8")

    whole = f"{key} {sha256_of(Path(mosaics.__file__))}"
    return cached(LIST, whole, write, lambda text: say(f"{name} pictures: {text}")).parent
