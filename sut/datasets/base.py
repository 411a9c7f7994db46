"""A data set: files in the order of their list, with labels where there are any."""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plugins.files import LARGE_BYTES, read_file
from sut.datasets.sums import Sums

IMAGENET_PICTURES = 50_000
"""In ImageNet's validation set of 2012, which is MLPerf's."""
IMAGENET_SHA256 = "4138c0cd92d2dffea9353a9339c9f352361b7c6c267d2ff989b366f154188257"
"""Of MLPerf's val_map.txt: ``ILSVRC2012_val_00000001.JPEG 65`` and so on, a line each, in the order of the names."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """Pictures in the order of the data set's list: sample i is line i, and LoadGen's ``qsl_idx`` is that number.

    ``truth`` is what answers are scored against, which only the task understands: labels are int32 of shape (count,).
    None for a folder without any. ``sums`` is what the files are known by; ``sizes`` the width and height of each
    picture where the list has them; ``whole`` is False where the list goes on.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    truth: Any
    sums: Sums | None = None
    sizes: tuple[tuple[int, int], ...] | None = None
    whole: bool = True

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.files)

    def read(self, index: int) -> bytes:
        """The bytes of one file.

        Raises ``OSError`` where it is none, or of more than 1 GiB, and ``InputError``, which names it, for one that its
        sum does not fit.
        """
        path = self.root / self.files[index]
        data = read_file(path, LARGE_BYTES)
        if self.sums is not None:
            self.sums.check(self.files[index], path, data)
        return data

    def is_imagenet(self) -> bool:
        """Whether the list is that of ImageNet's validation set, in whatever folders the files lie.

        The order counts: LoadGen asks for numbers, and in performance mode for those of the first lines only. The
        files' content is not looked at.
        """
        if not isinstance(self.truth, np.ndarray) or self.count != IMAGENET_PICTURES:
            return False
        names = (posixpath.basename(file) for file in self.files)
        lines = (f"{name} {label}\n" for name, label in zip(names, self.truth.tolist(), strict=True))
        return hashlib.sha256("".join(lines).encode("utf-8", "backslashreplace")).hexdigest() == IMAGENET_SHA256
