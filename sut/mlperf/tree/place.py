"""Where in a tree a result stands, and what is known of it from there."""

from __future__ import annotations

from dataclasses import dataclass

from sut.mlperf import official
from sut.mlperf.official import Benchmark


@dataclass(frozen=True, slots=True)
class Place:
    """A scenario's folder. ``kind``: its system's type, None where that is not told; ``model`` its model's folder."""

    division: str
    system: str
    kind: str | None
    model: str
    benchmark: Benchmark
    scenario: str

    @property
    def path(self) -> str:
        """Its folder, from the root."""
        return f"{self.model}/{self.scenario}"

    @property
    def closed(self) -> bool:
        """Whether the closed division's rules hold."""
        return self.division == "closed"

    def may_infer(self, scenario: str) -> bool:
        """Whether this result may be inferred from another scenario's; on the edge."""
        edge = self.kind is None or "edge" in self.kind
        return edge and scenario in official.INFERRED.get(self.scenario, ())
