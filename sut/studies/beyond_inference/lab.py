"""What the parts of a study of claims are measured with, what they find, and how that is kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sut.config import RunConfig, make_config
from sut.errors import SetupError, SutError, one_line
from sut.pipeline.assembly import assemble
from sut.run.energy.metering import AtRest
from sut.run.reporter import Reporter
from sut.studies.claims import Value
from sut.studies.generated import generated_pictures
from sut.studies.kept import reader_of
from sut.studies.ladder.rungs import Ladder
from sut.studies.sweeping.grids import first_devices, on_gpu
from sut.studies.sweeping.study import where_devices_begin
from sut.studies.tuning.space import with_settings

MOST_DEVICES = 4
"""Of those that there are, as many as the paper's figure has."""
_OF_THE_SYSTEM = (
    *("backend", "backend_options", "device", "preprocess", "preprocess_options", "preprocess_workers", "affinity"),
    *("lanes", "threads", "max_batchsize", "time_s", "watchdog_s", "debug"),
)
"""What holds of other models too."""


@dataclass(slots=True)
class Lab:
    """One study's machine and model: ``base`` preprocesses on the CPU. ``directory`` has what the parts leave."""

    base: RunConfig
    ladder: Ladder
    ladder_base: RunConfig
    own_ladder: bool
    """Whether the user has brought it."""
    rounds: int
    directory: Path
    console: Reporter
    model_bytes: int | None = None
    no_gpu: str | None = None
    """Why nothing can be preprocessed on a GPU here; None where it can be."""
    rest: AtRest = field(default_factory=AtRest)

    def config(self, pictures: str, way: str = "cpu", of: RunConfig | None = None) -> RunConfig:
        """``of``, or the base, over generated pictures of a size, preprocessed on the CPU or by ``way`` ``gpu``."""
        base = of or self.base
        settings = generated_pictures(pictures, self.console.note) | {"boundary": "jpeg"}
        settings |= {"output": self.directory / "runs", "power_log": None}
        settings |= on_gpu(base) if way == "gpu" else {}
        return with_settings(base, settings)

    def other_model(self, name: str) -> RunConfig:
        """The same system with another model, in FP32 and with random weights."""
        given = self.base.model_dump(exclude_unset=True)
        kept = {key: given[key] for key in _OF_THE_SYSTEM if key in given}
        return make_config(kept | {"model": name, "weights": "random"})

    def on_devices(self) -> RunConfig:
        """The base where its devices are counted from."""
        return with_settings(self.base, where_devices_begin(self.base))

    @property
    def devices(self) -> int:
        """How many devices of the first one's kind there are, four at the most."""
        for count in range(MOST_DEVICES, 1, -1):
            with suppress(SetupError):
                return len(first_devices(self.on_devices(), count))
        return 1

    def look_for_gpu(self) -> None:
        """Find out whether anything can be preprocessed on a GPU here."""
        try:
            assemble(self.config("medium", "gpu"), self.console.note)
        except (SutError, ModuleNotFoundError) as error:
            self.no_gpu = one_line(error)


@dataclass(frozen=True, slots=True)
class Found:
    """The figures of a round by name, a value each, or one for each round of a part that measures all at once.

    ``parity`` has, by its name, what no speed of a preprocessor is shown without.
    """

    figures: dict[str, list[Value]]
    parity: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Round:
    """A round of a part, as it is kept."""

    part: str
    number: int
    found: Found
    took_s: float

    @property
    def key(self) -> str:
        """Tells it from all others of a study."""
        return f"{self.part}, round {self.number}"


round_of_line = reader_of(Round)
"""A round from its line of JSON. Raises ``ValueError`` for a line that is none."""


Need = Callable[[Lab], str | None]
"""Why a machine and model do not have what a part needs; None where they have it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Measures what some claims need, a round at a time, and raises where it cannot.

    ``seconds`` is what a round is planned to take: a plan, not a measurement, and without what models take to be made
    the first time. ``at_once``: it measures all rounds in one. ``needs`` say, before anything is measured, why this
    machine cannot.
    """

    measure: Callable[[Lab, int], Found]
    seconds: float
    at_once: bool = False
    needs: tuple[Need, ...] = ()

    def why_not(self, lab: Lab) -> str | None:
        """Why this machine cannot measure it; None where it can."""
        return next((why for need in self.needs if (why := need(lab)) is not None), None)


def preprocessing_on_gpu(lab: Lab) -> str | None:
    """The need of a GPU that preprocesses."""
    return lab.no_gpu


def several_devices(lab: Lab) -> str | None:
    """The need of more than one device."""
    return None if lab.devices > 1 else f"the backend {lab.base.backend} has one device of its kind here"


def not_planted(why: str) -> Need:
    """The need of a backend that does not only sleep as planted."""
    return lambda lab: f"the backend simulated {why}" if lab.base.backend == "simulated" else None
