"""Folders of preprocessed pictures as the reference harness makes them: one ``.npy`` file per picture.

``DIR/<picture's name in the list>.npy`` holds one sample without a batch axis. The harness itself writes such files to
``CACHE_DIR/preprocessed/<data set>/<layout>/``; given CACHE_DIR, that place is looked into as well.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.files import LARGE_BYTES, SMALL_BYTES, open_file, read_file, whole_file
from preprocess.base import Geometry, Preprocessor, Recipe
from sut.datasets.base import DataSet
from sut.datasets.sums import Sum, sum_of
from sut.errors import InputError, one_line, refusing
from sut.files import write_text
from sut.qsl.pictures import Known
from sut.qsl.tensor_store import TensorStore

RECIPE_FILE = "recipe.json"
"""Says of a folder that was filled here which recipe and preprocessor made its tensors."""

SUMS_FILE = "sums.txt"
"""Beside it, a line for each tensor that was made here; the last one counts. Before two spaces and the picture's name:
SHA-256 of the values; bytes and CRC-32 of the picture, and ``dark`` or ``-`` (these three are not in older lines)."""

_DARK = "dark"
_SHOWN = 3
_REFERENCE = "preprocessed"


class PreprocessedDir(TensorStore):
    """A folder of ``.npy`` files: used as it is (``ready``), or filled with what is missing, as the harness does.

    A tensor counts as made here by its values, and in a folder that is used as it is none does.
    """

    def __init__(
        self, folder: Path, dataset: DataSet, recipe: Recipe, preprocessor: type[Preprocessor], *, ready: bool
    ) -> None:
        """Find the tensors.

        ``ready``: every sample must be there; whoever made them answers for the recipe, but a folder that was filled
        here for another one is refused. Otherwise the folder is made, and one with tensors that were not made here for
        this recipe is refused.

        Raises ``InputError`` for a folder that does not fit or cannot be written, naming what is missing.
        """
        self._dataset, self._recipe, self._ready = dataset, recipe, ready
        self._made: dict[str, tuple[str, Known | None]] = {}
        self.foreign: set[int] = set()
        with refusing(f"preprocessed folder {folder}"):
            self._folder = _place(folder, dataset, recipe) if ready else folder
            self.name = f"the preprocessed folder {self._folder}"
            if ready:
                self._check_recipe()
                self._check_there()
            else:
                self._check_origin(preprocessor)
            self._made = self._read_sums()

    def take(self, index: int, row: NDArray[Any]) -> tuple[Geometry, Known] | None:
        """See ``TensorStore``. A tensor older than its picture is made again where the folder may be filled."""
        path = self._path(index)
        try:
            made = path.stat().st_mtime_ns
        except FileNotFoundError:
            if self._ready:
                raise InputError(f"{path} (sample {index}) is not there any more") from None
            return None
        if not self._ready and made <= (self._dataset.root / self._dataset.files[index]).stat().st_mtime_ns:
            return None
        try:
            with open_file(path) as file:
                tensor = np.load(f"/proc/self/fd/{file.fileno()}", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} (sample {index}) is not a whole .npy file: {one_line(error)}") from error
        if not isinstance(tensor, np.ndarray) or (tensor.shape, tensor.dtype) != (row.shape, row.dtype):
            got = f"{tensor.dtype} {tensor.shape}" if isinstance(tensor, np.ndarray) else "several arrays"
            raise InputError(
                f"{path} (sample {index}) is {got}; the recipe {self._recipe.name} needs {row.dtype} {row.shape}"
            )
        row[...] = tensor
        noted, picture = self._made.get(self._dataset.files[index], ("", None))
        made_here = noted == _sum(row)
        if self._ready or not made_here:
            self.foreign.add(index)
        if picture is None or not made_here:
            picture = Known(sum_of(row.tobytes()))
        # The file does not say what was cut out of which picture; only boxes would need it.
        return Geometry(self._recipe.size, self._recipe.size, 1.0, 1.0, 0.0, 0.0), picture

    def keep(self, index: int, row: NDArray[Any], geometry: Geometry, picture: Known) -> None:
        """See ``TensorStore``. The file is there whole or not at all."""
        path = self._path(index)
        with refusing(f"cannot keep {path}", "; make room, or choose another --preprocessed_dir"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                np.save(file, row)
                self._note(index, _sum(row), picture)

    def _note(self, index: int, made: str, picture: Known) -> None:
        """Write down that a tensor was made here, and of what picture, before it is there."""
        name = self._dataset.files[index]
        self._made[name] = (made, picture)
        size, crc32 = picture.content
        with (self._folder / SUMS_FILE).open("ab", 0) as sums:  # a line is one write: others' lines stay whole
            sums.write(os.fsencode(f"{made} {size} {crc32:08x} {_DARK if picture.dark else '-'}  {name}\n"))

    def _read_sums(self) -> dict[str, tuple[str, Known | None]]:
        try:
            lines = os.fsdecode(read_file(self._folder / SUMS_FILE, LARGE_BYTES)).split("\n")
        except FileNotFoundError:
            return {}
        return dict(_noted(line) for line in lines)

    def _path(self, index: int) -> Path:
        return self._folder / f"{self._dataset.files[index]}.npy"

    def _check_recipe(self) -> None:
        """Whoever made the tensors answers for them, but where it is written down for what, it must be this."""
        try:
            found = json.loads(read_file(self._folder / RECIPE_FILE, SMALL_BYTES))["recipe"]
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return  # not from here
        if found != json.loads(json.dumps(asdict(self._recipe))):
            raise self._other(str(found.get("name") if isinstance(found, dict) else found))

    def _check_origin(self, preprocessor: type[Preprocessor]) -> None:
        """A folder to be filled is empty, or was filled by the same preprocessor for the same recipe."""
        note = self._folder / RECIPE_FILE
        made_by = [preprocessor.name, preprocessor.version()]
        ours = json.dumps({"preprocessor": made_by, "recipe": asdict(self._recipe)}, indent=1) + "\n"
        if note.exists():
            if read_file(note, SMALL_BYTES) != ours.encode():
                raise self._other(f"another recipe or version (see {note})")
        elif any(self._path(index).exists() for index in range(self._dataset.count)):
            raise InputError(
                f"{self._folder} has tensors of unknown origin; add --use_preprocessed_dataset to use them as they "
                "are, or choose an empty --preprocessed_dir"
            )
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_text(note, ours)

    def _other(self, found: str) -> InputError:
        return InputError(
            f"{self._folder} was filled for {found}, expected the recipe {self._recipe.name}; "
            "choose another --preprocessed_dir"
        )

    def _check_there(self) -> None:
        missing = [name for name in self._dataset.files if not os.path.exists(f"{self._folder}/{name}.npy")]  # noqa: PTH110
        if missing:
            raise InputError(
                f"{len(missing)} of {self._dataset.count} tensors are missing in {self._folder}: {_named(missing)}; "
                "expected one .npy per picture, named <picture>.npy"
            )


def _noted(line: str) -> tuple[str, tuple[str, Known | None]]:
    """What a line of ``SUMS_FILE`` says: the picture's name, the sum of its tensor, and what is known of it."""
    facts, _, name = line.partition("  ")
    made, *picture = facts.split(" ")
    try:
        size, crc32, dark = picture
        return name, (made, Known(Sum(int(size), int(crc32, 16)), dark == _DARK))
    except ValueError:
        return name, (made, None)


def _sum(row: NDArray[Any]) -> str:
    return hashlib.sha256(row.data).hexdigest()


def _place(folder: Path, dataset: DataSet, recipe: Recipe) -> Path:
    """``folder``, or the place below it where the reference harness keeps the tensors of this data set."""
    if not folder.is_dir():
        raise InputError(f"preprocessed folder {folder} does not exist; --preprocessed_dir takes one with .npy files")
    first = f"{dataset.files[0]}.npy"
    if not (folder / first).exists():
        for place in sorted(folder.glob(f"{_REFERENCE}/{dataset.name}*/{recipe.layout}")):
            if (place / first).exists():
                return place
    return folder


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(f"{name}.npy" for name in names[:_SHOWN]) + more
