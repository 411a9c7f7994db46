"""Preprocessing by actors on a cluster: sources that have them do it, for the threads that fill what lanes infer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from numpy.typing import NDArray

from preprocess.base import Geometry, Mark, Target
from sut.pipeline.assembly import Assembly
from sut.pipeline.cluster.actors import Made, Prepare, PreprocessOrders
from sut.pipeline.cluster.member import Member
from sut.pipeline.cluster.session import Cluster, beating
from sut.pipeline.lane import Clock, ended
from sut.qsl.library import Source
from sut.qsl.picture_library import PictureLibrary
from sut.version import source_sha256

CARRY = "carry"
"""What pictures and tensors are on their way to and from an actor."""


class Prepared:
    """A tensor where an actor has made it, which can be made again from its picture."""

    def __init__(self, reference: Any, member: Member, picture: Any) -> None:
        self.reference = reference
        self._member, self._picture = member, picture

    def again(self) -> None:
        """See ``Tensor``."""
        _, self.reference = self._member.ask("prepare", self._picture, returns=2)


class _ByActor(Source):
    def __init__(self, library: PictureLibrary, member: Member, clock: Clock, by_reference: bool) -> None:
        self._library, self._member, self._clock, self._by_reference = library, member, clock, by_reference
        self.stages = (CARRY, *library.stages)

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        self._library.require(indices)
        began, member = self._clock(), self._member
        pictures = [self._library.held[index] for index in indices]
        made, *references = member.ask("prepare", *pictures, returns=1 + len(pictures))
        [buffer] = target.buffers.values()
        if self._by_reference:
            for row, (reference, picture) in enumerate(zip(references, pictures, strict=True)):
                buffer[row] = Prepared(reference, member, picture)
        else:
            self._fetch(buffer, references, pictures)
        self._mark(mark, made, began)
        member.cluster.cpu_ns[member.process], member.cluster.counted[member.process] = made.cpu_ns, made.counts
        geometries: list[Geometry] = made.geometries
        return geometries

    def _fetch(self, buffer: NDArray[Any], references: Sequence[Any], pictures: Sequence[Any]) -> None:
        for row, (reference, picture) in enumerate(zip(references, pictures, strict=True)):
            buffer[row] = self._member.fetch(Prepared(reference, self._member, picture))

    def _mark(self, mark: Mark, made: Made, began: int) -> None:
        """The way there and back counts as one, before the actor's stages: its clock is not ours."""
        at = max(began, self._clock() - sum(made.stages_ns))
        for stage, taken_ns in zip(self.stages, (0, *made.stages_ns), strict=True):
            at += taken_ns
            ended(mark, stage, at)


class Preparing:
    """The actors that preprocess for one system, as many as it has workers; ``stack`` ends them."""

    def __init__(
        self, parts: Assembly, cluster: Cluster, library: PictureLibrary, clock: Clock, stack: ExitStack
    ) -> None:
        """Raises ``SutError`` in one line where one has no place, or cannot be made."""
        config, self._library, self._clock = parts.config, library, clock
        self.stages = (CARRY, *library.stages)
        """What its sources mark."""
        self._by_reference = config.infer_place == "ray"
        self._members: list[Member] = []
        orders = PreprocessOrders(
            source_sha256(),
            config.preprocess,
            parts.preprocess_options_of(),
            parts.spec.recipe,
            library.stages,
            config.boundary == "pixels",
        )
        for number in range(config.preprocess_workers):
            member = Member(
                cluster,
                f"preprocess-{number}",
                Prepare,
                config.preprocess_resources,
                lambda each: each.load(orders),
                config.redo_lost,
                beating(parts.progress),
            )
            stack.callback(member.close)
            self._members.append(member)
        for member in self._members:
            member.start()

    def source(self, number: int) -> Source:
        """A new source, whose work the actors do in turn."""
        member = self._members[number % len(self._members)]
        return _ByActor(self._library, member, self._clock, self._by_reference)
