"""The story of a run as its process tells it: orders in, events out; whoever follows it reads them by attribute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from sut.config import RunConfig
from sut.mlperf.audit import Audit
from sut.models.preparation import Prepared
from sut.pipeline.ledger import LedgerShape
from sut.process.messages import Failed, Step, vocabulary
from sut.results.identified import Identified
from sut.results.quiet import Quiet
from sut.results.schema import Answers, CpuQuota, Parity, Scaling, Traffic
from sut.run.planning import Plan
from sut.run.pulse import Clock, Phase
from sut.run.timing import Pace
from sut.run.tried import Settled


@dataclass(frozen=True, slots=True)
class Orders:
    """What the supervisor wants done. The descriptor is inherited, ``started_s`` a time of the monotonic clock."""

    config: RunConfig
    prepared: Prepared | None
    directory: Path
    memory_fd: int
    started_s: float
    run: str
    """Its id in a broker."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model is loaded: the files that were opened for it, and what the runtime says of what executes."""

    sha256: Mapping[str, str]
    attested: Mapping[str, Any]
    """A dumped ``Attestation``, in which a backend may say more than we know of."""
    device_name: str
    backend_version: str
    output: str | None
    event: Literal["loaded"] = "loaded"


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """How far the preprocessor is from the oracle."""

    parity: Parity
    event: Literal["preprocessed"] = "preprocessed"


@dataclass(frozen=True, slots=True)
class Checked:
    """What the answers to some samples are like, and whether they depend on what else is asked."""

    answers: Answers | None
    depend: bool
    event: Literal["checked"] = "checked"


@dataclass(frozen=True, slots=True)
class Planned:
    """All is known of the run but how it ends, and its ledger has its shape.

    ``rules_broken`` are those that are broken by then, ``hint`` is the backend's own; of ``Settings`` those that the
    run is watched by.
    """

    plan: Plan
    settled: Settled
    hint: str | None
    calibration: Pace
    shape: LedgerShape
    asked: Mapping[str, str | int | float]
    """What LoadGen's log must say."""
    rules_broken: tuple[str, ...]
    cold_start_s: Mapping[str, float]
    audit: Audit | None
    overload: str | None
    """What the user is told of a Server run that is asked for too much."""
    fitting_qps: float | None
    """A rate of Server that should be answered in time."""
    min_query_count: int
    server_target_qps: float
    scaling: Scaling | None = None
    units: tuple[str, ...] = ()
    """The devices, or core sets, by name, on which the lanes are in turn."""
    thread_cores: Mapping[str, str] = field(default_factory=dict)
    event: Literal["planned"] = "planned"

    def facts(self) -> dict[str, Any]:
        """``plan`` of the result."""
        chosen = {"hint": self.hint and self.hint.lower(), "chosen": self.settled.why}
        return asdict(self.plan) | asdict(self.settled.choice) | chosen


@dataclass(frozen=True, slots=True)
class Failure:
    """The first sample has failed."""

    message: str
    event: Literal["failure"] = "failure"


@dataclass(frozen=True, slots=True)
class Flushed:
    """LoadGen has asked its last."""

    event: Literal["flushed"] = "flushed"


@dataclass(frozen=True, slots=True)
class Finished:
    """The run came to its end. ``answers_sum`` is that of all answers in accuracy mode; ``cpu_s`` is CPU time in it."""

    cpu_s: float
    clock_change_ns: int | None
    host_peak_bytes: int | None
    first_error: str | None
    cpu_quota: CpuQuota | None
    quiet: Quiet
    rules_broken: tuple[str, ...]
    data_broken: bool
    """Whether the data is not what MLPerf's rules ask for."""
    answers_sum: int | None
    notes: tuple[str, ...]
    identified: Identified | None = None
    """The second model of a pipeline of two, and its channel."""
    traffic: Traffic | None = None
    """What went to servers, and came back."""
    cuda_library: str | None = None
    """What loaded the kernels, or gave a backend its memory on a GPU."""
    event: Literal["finished"] = "finished"


Event = Phase | Step | Clock | Loaded | Preprocessed | Checked | Planned | Failure | Flushed | Finished | Failed

STORY: TypeAdapter[Event] = vocabulary(Event)
