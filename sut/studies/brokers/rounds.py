"""One round of one form at one fan-out: asked as much as it can do, then one frame at a time."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from sut.errors import RunError
from sut.pipeline.assembly import Assembly
from sut.pipeline.choice import prior
from sut.pipeline.identify.pool import RETURN, SEND, WAIT
from sut.pipeline.identify.second import INFER, PREPROCESS
from sut.results.samples import Samples
from sut.results.schema import conditional
from sut.run.energy.metering import AtRest
from sut.studies.breakdown.cells import outstanding
from sut.studies.brokers.forms import Form
from sut.studies.driving.drive import drive
from sut.studies.driving.driven import Drive
from sut.studies.driving.loads import Closed
from sut.studies.kept import reader_of
from sut.text import Say

TIME_S = 2.0
_WARM_S = 0.3
_FEWEST = 12
"""Frames of a load, however long they take."""
BROKER = "broker"
GROUPS = {
    "first model": (),
    "crops": ("crop", PREPROCESS),
    BROKER: (SEND, WAIT, RETURN),
    "second model": (INFER,),
    "rest": ("issue_delay", "queue", "copy", "complete", "residual"),
}
"""What the stages of a frame belong to; those that stand nowhere are of the first model."""
_GROUP_OF = {stage: group for group, stages in GROUPS.items() for stage in stages}
_FIRST = next(iter(GROUPS))


@dataclass(frozen=True, slots=True)
class Round:
    """What a round came to, as it is kept.

    ``parts_ns`` is the latency of a frame at zero load by ``GROUPS``, around the median; its sum is the latency.
    ``bytes_per_frame`` are those of bodies and spans of all messages, there and back; ``cpu_s_per_frame`` at
    saturation is of all our processes, not of a broker.
    """

    form: str
    fan_out: int
    number: int
    frames_per_second: float
    cpu_s_per_frame: float
    bytes_per_frame: float
    parts_ns: dict[str, float]
    frames: tuple[int, int]
    """Counted at saturation and at zero load."""
    took_s: float

    @property
    def key(self) -> str:
        """Tells it from all others of a study."""
        return f"{self.form}, {self.fan_out} a frame, round {self.number}"

    @property
    def latency_ns(self) -> float:
        """Of a frame at zero load, around the median."""
        return sum(self.parts_ns.values())

    @property
    def broker_share(self) -> float:
        """Of the latency at zero load: what passes in sending, waiting and coming back."""
        return self.parts_ns[BROKER] / self.latency_ns


round_of_line = reader_of(Round)
"""A round from its line of JSON. Raises ``ValueError`` for a line that is none."""


def drives(parts: Assembly) -> list[Drive]:
    """What each form is asked: two batches for every lane outstanding, then one frame at a time."""
    config = prior(parts.config, parts.lane_cores, parts.model_bytes).apply(parts.config)
    seconds, full = config.time_s or TIME_S, outstanding(config)
    return [
        Drive(Closed(full), seconds, _WARM_S, least=max(full, _FEWEST)),
        Drive(Closed(1), seconds, _WARM_S, least=_FEWEST),
    ]


def measure(parts: Assembly, form: Form, fan_out: int, number: int, rest: AtRest, say: Say) -> Round:
    """One round of a form. Raises as ``drive`` does, and ``RunError`` where frames fail."""
    begin_s = time.monotonic()
    there = replace(parts, config=form.config(parts.config, fan_out))
    with tempfile.TemporaryDirectory() as scratch:
        full, alone = drive(there, drives(there), Path(scratch), say=say, rest=rest)
        for driven in (full, alone):
            if not driven.ok:
                raise RunError(driven.first_error or f"{driven.failed} frames failed")
        return Round(
            form=form.name,
            fan_out=fan_out,
            number=number,
            frames_per_second=full.samples_per_second,
            cpu_s_per_frame=full.cpu_seconds_per_sample or 0.0,
            bytes_per_frame=full.carried_bytes_per_sample,
            parts_ns=parts_of(alone.per_sample()),
            frames=(full.samples, alone.samples),
            took_s=time.monotonic() - begin_s,
        )


def parts_of(samples: Samples) -> dict[str, float]:
    """The mean latency of the samples around the median by ``GROUPS``, in ns; of one sample at least."""
    middle, _ = conditional(samples.latency_ns)
    found = dict.fromkeys(GROUPS, 0.0)
    for stage, values in samples.stages_ns.items():
        found[_GROUP_OF.get(stage, _FIRST)] += float(values[middle].mean())
    return found
