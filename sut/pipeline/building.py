"""From a system's parts to its pipeline: lanes with what they fill slots from, and the stages that they are in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from backends.base import Loaded, Runner
from sut.pipeline.assembly import Assembly
from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.channel import Channel, trays_for
from sut.pipeline.fused import Fused, Inline
from sut.pipeline.identify.build import Identification
from sut.pipeline.lane import Lane, Surroundings
from sut.pipeline.ranges import Nvtx, RangedRunner, RangedSource
from sut.pipeline.slowdown import Slowdown
from sut.pipeline.stage import Stage, StageSettings
from sut.pipeline.staged import Infer, Preprocess
from sut.pipeline.trays import Trays
from sut.qsl.library import Library, Source
from sut.qsl.picture_library import Frames, PictureLibrary


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes lanes and stages of one system; what is to be closed goes onto ``stack``."""

    parts: Assembly
    backend: Loaded
    library: Library
    policy: BatchingPolicy
    shared: Surroundings
    stack: ExitStack
    slowdown: Slowdown | None = None
    nvtx: Nvtx | None = None
    second: Identification | None = None
    sources: list[Source] = field(default_factory=list)
    """All that were made, as the library made them."""

    def lanes(self) -> list[Lane]:
        """As many as the config has, on its units in turn."""
        one = self.backend.reads_host_arrays and len(self.backend.inputs) == 1 and self.policy.padded(1) == 1
        lend_to = self.backend.inputs[0].name if one else None
        place = self.parts.place_for(self.backend)
        runners = [self.stack.enter_context(self._runner(place)) for _ in range(self.parts.config.requests_at_once)]
        units = self.parts.units
        several = len(units) > 1 or units[0].cores is not None
        return [
            Lane(each, self._source(n), self._shared_by(n), lend_to, n, units[n % len(units)] if several else None)
            for n, each in enumerate(runners)
        ]

    def _shared_by(self, lane: int) -> Surroundings:
        """What a lane shares with others, whose source was made; with two models it decodes by itself."""
        if self.second is None:
            return self.shared
        frames = self.sources[lane]
        assert isinstance(frames, Frames)
        return replace(self.shared, task=self.second.decoder(self.shared.task, frames, lane))

    def stages(self, settings: Sequence[StageSettings], lanes: Sequence[Lane]) -> list[Stage]:
        """The pipeline, of which ``lanes`` do the last stage."""
        if len(settings) == 1:
            return [Inline(lanes[0], self.policy) if self.policy.inline else Fused(lanes, self.policy)]
        before, infer = settings
        trays = trays_for(before, infer, fill_up=self.parts.config.scenario != "Server")
        if before.place == "process":
            return self._in_processes(before, infer, trays, lanes)
        channel = Channel(self.parts.spec.recipe, trays, infer.batch, infer.max_wait_ns)
        sources = [self._source(n) for n in range(before.workers)]
        cores = self.parts.affinity.preprocess
        return [Preprocess(before, sources, channel, self.shared, cores), Infer(lanes, channel, self.shared)]

    def _in_processes(
        self, before: StageSettings, infer: StageSettings, trays: Trays, lanes: Sequence[Lane]
    ) -> list[Stage]:
        from sut.pipeline.processes import preprocess_in_processes  # which a run in one process need not hold

        assert isinstance(self.library, PictureLibrary) and self.library.shared is not None
        pictures, stages = self.library.shared, self.library.stages
        preprocess, channel = preprocess_in_processes(
            before, infer, self.parts, pictures, stages, trays, self.shared, self.stack
        )
        return [preprocess, Infer(lanes, channel, self.shared)]

    def _runner(self, place: str) -> Runner:
        runner = self.backend.runner(place)
        if self.slowdown:
            runner = self.slowdown.runner(runner)
        return RangedRunner(runner, self.nvtx) if self.nvtx is not None else runner

    def _source(self, lane: int) -> Source:
        source = self.library.source(lane)
        if self.nvtx is not None:
            source = RangedSource(source, self.nvtx)
        self.sources.append(source)
        self.stack.callback(source.close)
        return self.slowdown.source(source) if self.slowdown else source
