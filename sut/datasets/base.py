"""A data set: files in the order of their list, with labels where there are any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DataSet:
    """Pictures in the order of the data set's list: sample i is line i, and LoadGen's ``qsl_idx`` is that number.

    ``labels`` is int32 of shape (count,), or None for a folder without labels.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    labels: NDArray[np.int32] | None

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.files)

    def read(self, index: int) -> bytes:
        """The bytes of one file."""
        return (self.root / self.files[index]).read_bytes()
