"""Puts a pipeline of two models together, as its config has it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from preprocess.base import Mark, Preprocessor
from sut.channels.registry import settings_of
from sut.pipeline.assembly import Assembly
from sut.pipeline.identify.crops import Crop, FanOut
from sut.pipeline.identify.decoder import CROP, Identifier, TwoModels
from sut.pipeline.identify.pool import RETURN, SEND, WAIT, Pool
from sut.pipeline.identify.second import INFER, PREPROCESS, Fused, Labels
from sut.pipeline.lane import Clock, Decoder
from sut.qsl.picture_library import Frames


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
        config, self._parts, self._clock, self._stack = parts.config, parts.second, clock, stack
        self._fan_out = FanOut.of(config.fan_out) if config.fan_out is not None else None
        self.pool: Pool | None = None
        if config.channel == "none":
            self._backend = stack.enter_context(self._parts.load_backend())
            self._parts.check_attested(self._backend.attest())
        else:
            self.pool = Pool(self._parts, config.identify_workers, settings_of(config.channel), clock, run)
            stack.callback(self.pool.close)

    @property
    def stages(self) -> tuple[str, ...]:
        """What follows on those of the first model's task."""
        return (CROP, *(Fused.stages if self.pool is None else ThroughPool.stages))

    def decoder(self, task: Decoder, frames: Frames, lane: int) -> TwoModels:
        """What a lane decodes with, whose frames are those."""
        identifier: Identifier
        if self.pool is None:
            identifier = Fused(self._parts, self._backend, self._stack, self._clock, lane)
        else:
            preprocessor = self._parts.preprocessor_for(self._parts.spec.recipe, lane)
            self._stack.callback(preprocessor.close)
            identifier = ThroughPool(self.pool, preprocessor)
        return TwoModels(task, identifier, self._fan_out, frames)
