"""What a lane does with the outputs of the first model: boxes, crops, their labels, one answer for each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from preprocess.base import Geometry, Mark, unmarked
from sut.pipeline.identify.crops import Crop, FanOut, answers, boxes_of, cut
from sut.pipeline.lane import Decoder
from sut.qsl.picture_library import Frames

CROP = "crop"


class Identifier(Protocol):
    """One lane's way to the second model."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Parts of the time that ``identify`` takes, in order; their names begin with ``identify/``."""

    def identify(self, crops: Sequence[Crop], mark: Mark) -> NDArray[np.float32]:
        """The label of each crop; ``mark`` is called with the end of each of ``stages`` but the last."""


class TwoModels:
    """The decoder of a lane that has two models. It answers as a detector does, with labels for categories."""

    def __init__(self, task: Decoder, identifier: Identifier, fan_out: FanOut | None, source: Frames) -> None:
        """``task`` reads the first model's outputs, ``source`` has the frames that they are of."""
        self.stages = (*task.stages, CROP, *identifier.stages)
        self._task, self._identifier, self._fan_out = task, identifier, fan_out
        self._source = source
        self.forget()

    def forget(self) -> None:
        """Count from here on."""
        self.frames = self.cut = self.crops = 0
        """Frames that the first model has answered, crops cut out of them, and those of them that were identified."""

    def decode(
        self,
        outputs: Mapping[str, Any],
        indices: Sequence[int],
        geometries: Sequence[Geometry],
        rows: int,
        mark: Mark = unmarked,
    ) -> list[bytes]:
        """See ``Task.decode``, and ``crops.answers``. All crops of the frames of a batch are identified together."""
        found = self._task.decode(outputs, indices, geometries, rows, mark)
        mark(self._task.stages[-1])
        boxes = [
            boxes_of(index, answer if isinstance(answer, bytes) else None, self._fan_out)
            for index, answer in zip(indices, found, strict=True)
        ]
        crops = [crop for frame, each in zip(self._source.frames, boxes, strict=True) for crop in cut(frame, each)]
        self.frames += len(boxes)
        self.cut += len(crops)
        mark(CROP)
        labels = self._identifier.identify(crops, mark)
        self.crops += len(crops)
        return answers(boxes, labels)
