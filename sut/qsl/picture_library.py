"""The sample library of the boundaries ``pixels`` and ``jpeg``: pictures, which are preprocessed inside the clock."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from preprocess.base import BadPicture, Geometry, Mark, Preprocessor, Target
from preprocess.parts.decode import decode
from sut.qsl.library import Library, Loading, Source
from sut.qsl.shared_pictures import SharedPictures


class PictureLibrary(Library):
    """Pictures as they are before the clock: files' bytes (``jpeg``) or decoded pixels (``pixels``)."""

    def __init__(
        self,
        how: Loading,
        boundary: Literal["pixels", "jpeg"],
        shared: SharedPictures | None = None,
        shows_frames: bool = False,
    ) -> None:
        """``shared``: where to hold them for other processes. Sources that show frames decode by themselves."""
        super().__init__(how)
        self._shows_frames = shows_frames
        self._decoded = boundary == "pixels"
        self.shared = shared
        self.held: MutableMapping[int, Any] = {} if shared is None else shared
        with how.make() as one:
            self.stages = one.pixel_stages() if self._decoded else one.stages
            if shows_frames and not self._decoded:
                self.stages = ("decode", *one.pixel_stages())

    def source(self, lane: int = 0) -> Source:
        """A source with a preprocessor of its own."""
        kind = Frames if self._shows_frames else _Preprocess
        return kind(self, self._how.make(lane), self._decoded)

    def close(self) -> None:
        """See ``Library``."""
        if self.shared is not None:
            self.shared.close()

    def _load_chunk(self, chunk: Sequence[int]) -> None:
        for index in chunk:
            with self._blaming(index):
                data = self._read(index)
                self.held[index] = decode(data) if self._decoded else data

    def _drop(self, index: int) -> None:
        del self.held[index]


class _Preprocess(Source):
    def __init__(self, library: PictureLibrary, preprocessor: Preprocessor, decoded: bool) -> None:
        self._library, self._preprocessor, self._decoded = library, preprocessor, decoded
        self.stages = library.stages

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        self._library.require(indices)
        held = [self._library.held[index] for index in indices]
        if self._decoded:
            return self._preprocessor.run_pixels(held, target, mark)
        return self._preprocessor.run(held, target, mark)

    def counts(self) -> Mapping[str, int]:
        return self._preprocessor.counts()

    def close(self) -> None:
        self._preprocessor.close()


class Frames(_Preprocess):
    """Preprocesses from pixels, and shows them: ``frames`` are those of the samples that it filled last.

    uint8 (height, width, 3) in BGR, as OpenCV decodes them.
    """

    frames: Sequence[NDArray[np.uint8]] = ()

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        self._library.require(indices)
        held = [self._library.held[index] for index in indices]
        if not self._decoded:
            held = [_decoded(position, data) for position, data in enumerate(held)]
            mark("decode")
        self.frames = held
        return self._preprocessor.run_pixels(held, target, mark)


def _decoded(position: int, data: bytes) -> NDArray[np.uint8]:
    try:
        return decode(data)
    except ValueError as error:
        raise BadPicture(position, error) from error
