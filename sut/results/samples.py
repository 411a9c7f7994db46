"""What each sample of a run went through, kept beside its result: for what a mean or a percentile cannot tell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sut.errors import InputError, one_line
from sut.mlperf.logs import Int64Array
from sut.pipeline.ledger import Ledger
from sut.results.stages import Stages, answered

FILE = "samples.npz"
_STAGE = "stage:"


@dataclass(frozen=True, slots=True)
class Samples:
    """The answered samples of a run in the order of issue; arrays of (n,), times in ns.

    ``index`` is the data set's, ``scheduled_ns`` of the system clock, ``stages_ns`` by name in the order in which a
    sample meets them: where the latency is LoadGen's they add up to it, with ``residual``.
    """

    index: NDArray[np.int32]
    scheduled_ns: Int64Array
    latency_ns: Int64Array
    stages_ns: dict[str, Int64Array]

    @classmethod
    def of(cls, ledger: Ledger, stages: Stages) -> Self:
        """The samples of a ledger, and what was read back of it."""
        who = answered(ledger)
        issued = ledger.issued_ns[who]
        delay = stages.per_sample.get("issue_delay", np.zeros_like(issued))
        return cls(ledger.index_of[who].copy(), issued - delay, stages.latency_ns, stages.per_sample)

    def save(self, path: Path) -> None:
        """Write them as NumPy's .npz. Raises ``OSError``."""
        stages: dict[str, Any] = {f"{_STAGE}{name}": values for name, values in self.stages_ns.items()}
        np.savez(path, index=self.index, scheduled_ns=self.scheduled_ns, latency_ns=self.latency_ns, **stages)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote. Raises ``InputError``."""
        try:
            with np.load(path, allow_pickle=False) as file:
                stages = {name.removeprefix(_STAGE): file[name] for name in file.files if name.startswith(_STAGE)}
                return cls(file["index"], file["scheduled_ns"], file["latency_ns"], stages)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: no samples of a run: {one_line(error)}") from error
