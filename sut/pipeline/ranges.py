"""NVTX ranges around what a lane does: NVIDIA's profilers then show stages beside the work of the GPU.

Only where a trace is wanted of a run on a GPU and the package ``nvtx`` is installed; elsewhere nothing is in the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from numpy.typing import NDArray

from backends.base import Runner, Slot
from preprocess.base import Geometry, Mark, Target
from sut.config import RunConfig
from sut.qsl.library import Source
from sut.version import NAME


class Nvtx(Protocol):
    """What is used of the package ``nvtx``; ranges are a stack for each thread and domain."""

    def push_range(self, message: str, *, domain: str) -> Any: ...
    def pop_range(self, domain: str) -> Any: ...


def nvtx_for(config: RunConfig) -> Nvtx | None:
    """The package, where ranges are wanted and it is there."""
    if config.trace is None or not config.device.startswith("cuda"):
        return None
    try:
        found: Any = import_module("nvtx")
    except ImportError:
        return None
    return found  # type: ignore[no-any-return]


class RangedRunner(Runner):
    """A runner with a range ``infer`` around each batch."""

    def __init__(self, runner: Runner, nvtx: Nvtx) -> None:
        self._runner, self._nvtx = runner, nvtx

    def slot(self, n: int) -> Slot:
        """As the runner has it."""
        return self._runner.slot(n)

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        """As the runner does it."""
        self._nvtx.push_range(f"infer {slot.n}", domain=NAME)
        try:
            return self._runner.infer(slot)
        finally:
            self._nvtx.pop_range(NAME)
            self.transfers_ns = self._runner.transfers_ns


class RangedSource(Source):
    """A source with a range around each of its stages."""

    def __init__(self, source: Source, nvtx: Nvtx) -> None:
        self._source, self._nvtx = source, nvtx
        self.stages = source.stages

    def fill(self, indices: Sequence[int], target: Target, mark: Mark) -> list[Geometry]:
        """As the source does it."""
        following = iter(self.stages[1:])
        is_open = True
        self._nvtx.push_range(f"{self.stages[0]} {len(indices)}", domain=NAME)

        def marked(stage: str) -> None:
            nonlocal is_open
            mark(stage)
            self._nvtx.pop_range(NAME)
            then = next(following, None)
            is_open = then is not None
            if is_open:
                self._nvtx.push_range(f"{then} {len(indices)}", domain=NAME)

        try:
            return self._source.fill(indices, target, marked)
        finally:
            if is_open:
                self._nvtx.pop_range(NAME)

    def view(self, index: int) -> tuple[NDArray[Any], list[Geometry]] | None:
        """As the source has it."""
        return self._source.view(index)

    def counts(self) -> Mapping[str, int]:
        """As the source tells it."""
        return self._source.counts()

    def close(self) -> None:
        """Close the source."""
        self._source.close()
