"""Where ready tensors may come from, and go to, besides preprocessing: what a tensor store is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Set
from typing import Any

from numpy.typing import NDArray

from preprocess.base import Geometry
from sut.qsl.pictures import Known


class TensorStore(ABC):
    """Tensors of one data set and one recipe on disk. Used by several threads at once, for different samples."""

    name: str
    """What it is and where, for the user: "the tensor cache /home/me/..."."""
    foreign: Set[int] = frozenset()
    """Samples taken from it that are not known to have been made here."""

    def prepare(self, indices: Iterable[int]) -> None:
        """Get ready to keep these samples. Raises ``InputError`` where it is known beforehand that they do not fit."""

    @abstractmethod
    def take(self, index: int, row: NDArray[Any]) -> tuple[Geometry, Known] | None:
        """Fill ``row`` with sample ``index`` and say what preprocessing did and what is known of the picture; None, and
        anything in ``row``, if it is not there or not the tensor of the picture as it is now.

        ``row`` has the recipe's dtype and sample shape and is C-contiguous. Raises ``InputError`` for a tensor that
        cannot be used, ``OSError`` for a picture that is not there.
        """

    @abstractmethod
    def keep(self, index: int, row: NDArray[Any], geometry: Geometry, picture: Known) -> None:
        """Keep a sample for which ``take``, called before its picture was read, found nothing.

        What is known of the picture is kept with it, so that a run on ready tensors says what the first one said.

        Raises ``InputError`` where it cannot be written.
        """

    def close(self) -> None:
        """Give back what it holds."""
