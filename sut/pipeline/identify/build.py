"""Puts a pipeline of two models together, as its config has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from preprocess.base import Mark, Preprocessor
from sut.models.precision.agreement import second_unknown
from sut.pipeline.assembly import Assembly
from sut.pipeline.identify.crops import Crop, FanOut
from sut.pipeline.identify.decoder import CROP, Identifier, TwoModels
from sut.pipeline.identify.messages import save
from sut.pipeline.identify.pool import RETURN, SEND, WAIT, Pool
from sut.pipeline.identify.second import INFER, PREPROCESS, Fused, Labels
from sut.pipeline.lane import Clock, Decoder
from sut.qsl.picture_library import Frames
from sut.tasks.base import Payloads
from sut.tasks.detection.likeness import BoxLook, boxes_of

_NOTHING = "nothing was identified: no frame had a box, so the second model did no work"


class ThroughPool:
    """A lane's own way to workers behind a channel."""

    stages: tuple[str, ...] = (PREPROCESS, SEND, WAIT, INFER, RETURN)

    def __init__(self, pool: Pool, preprocessor: Preprocessor) -> None:
        self._pool, self._preprocessor = pool, preprocessor

    def identify(self, crops: Sequence[Crop], mark: Mark) -> Labels:
        """See ``Identifier``. The parts are those of the crop whose label came the last."""
        return self._pool.ask(crops, self._preprocessor, mark)


class Identification:
    """The second model of one system, and the decoders of its lanes; what is to be closed goes onto ``stack``."""

    def __init__(self, parts: Assembly, clock: Clock, stack: ExitStack, run: str | None = None) -> None:
        """``parts`` are the first model's, which has a second. Raises ``SutError`` as ``Pool`` does."""
        assert parts.second is not None
        config, self.parts, self._clock, self._stack = parts.config, parts.second, clock, stack
        self._fan_out = FanOut.of(config.fan_out) if config.fan_out is not None else None
        self._decoders: list[TwoModels] = []
        self.pool: Pool | None = None
        if config.channel == "none":
            self._backend = stack.enter_context(self.parts.load_backend())
            self.parts.check_attested(attested := self._backend.attest())
            self._attested = asdict(attested)
        else:
            self.pool = Pool(config, self.parts, clock, run)
            stack.callback(self.pool.close)

    @property
    def stages(self) -> tuple[str, ...]:
        """What follows on those of the first model's task."""
        return (CROP, *(Fused.stages if self.pool is None else ThroughPool.stages))

    def decoder(self, task: Decoder, frames: Frames, lane: int) -> TwoModels:
        """What a lane decodes with, whose frames are those."""
        identifier: Identifier
        if self.pool is None:
            identifier = Fused(self.parts, self._backend, self._stack, self._clock, lane)
        else:
            preprocessor = self.parts.preprocessor_for(self.parts.spec.recipe, lane)
            self._stack.callback(preprocessor.close)
            identifier = ThroughPool(self.pool, preprocessor)
        self._decoders.append(TwoModels(task, identifier, self._fan_out, frames))
        return self._decoders[-1]

    def looks(self, payloads: Payloads) -> list[BoxLook]:
        """The answers of one batch as they are compared with others: boxes, whatever the first model answers."""
        return [BoxLook(boxes_of(bytes(answer))) for answer in payloads]

    @property
    def processes(self) -> Mapping[str, int]:
        """Numbers of the processes that identify, by name."""
        return self.pool.processes if self.pool is not None else {}

    def start(self) -> None:
        """A run begins: what is told of crops and channel is of it."""
        for decoder in self._decoders:
            decoder.forget()
        if self.pool is not None:
            self.pool.start()

    @property
    def attested(self) -> Mapping[str, Any]:
        """What executes, as the runtime tells."""
        return self._attested if self.pool is None else self.pool.hands.opened[0].attested

    @property
    def identified(self) -> int:
        """Crops that were identified in the run."""
        return sum(decoder.crops for decoder in self._decoders)

    def notes(self) -> Sequence[str]:
        """What a reader of the result must know of the crops and of the channel's broker."""
        remarks = self.pool.answers.remarks if self.pool is not None else ()
        unknown = second_unknown(self.parts.spec.name, self.parts.config.precision)
        # Where nothing was identified, either model may have raised for all that it was given: then that is told.
        has_frames, has_boxes = any(each.frames for each in self._decoders), any(each.cut for each in self._decoders)
        nothing = has_frames and not has_boxes
        return [*([unknown] if unknown else ()), *([_NOTHING] if nothing else ()), *remarks]

    def save(self, folder: Path) -> None:
        """Keep each message of the run in a folder. Raises ``OSError``."""
        if self.pool is not None:
            save(folder, self.pool.carried)
