"""Where in a tree a result stands, and what is known of it from there."""

from __future__ import annotations

from dataclasses import dataclass

from sut.mlperf import official
from sut.mlperf.official import Benchmark
from sut.mlperf.tree.systems import System


@dataclass(frozen=True, slots=True)
class Place:
    """A scenario's folder. ``system``: what its file says; ``model`` its model's folder."""

    division: str
    results: str
    system: System
    model: str
    benchmark: Benchmark
    scenario: str

    @property
    def path(self) -> str:
        """Its folder, from the root."""
        return f"{self.model}/{self.scenario}"

    @property
    def closed(self) -> bool:
        """Whether the closed division's rules hold: in the network division, too."""
        return self.division != "open"

    def may_infer(self, scenario: str) -> bool:
        """Whether this result may be inferred from another scenario's; on the edge."""
        kind = self.system.kind
        edge = self.division != "network" and (kind is None or "edge" in kind)
        return edge and scenario in official.INFERRED.get(self.scenario, ())
