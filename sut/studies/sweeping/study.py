"""What ``sut sweep`` does: loops over how much is asked, or systems of more cores and devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sut.config import RunConfig
from sut.errors import InputError
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.identify.settings import check_one_model
from sut.pipeline.loading import load_backend
from sut.pipeline.slowdown import check_as_it_is
from sut.process.cgroup import bytes_told, memory_limit
from sut.process.streams import tell
from sut.results.wording import RANDOM_WEIGHTS
from sut.run.planning import check_effect
from sut.run.reporter import Reporter
from sut.studies.driving.loads import FromFile, arrivals_ns
from sut.studies.kept import Kept, header_of, held, study_folder
from sut.studies.sweeping.bench import Bench
from sut.studies.sweeping.findings import closed_findings, open_findings, scaling_findings
from sut.studies.sweeping.grids import Asked, first_devices
from sut.studies.sweeping.loops import Loops
from sut.studies.sweeping.points import Point, point_of_line
from sut.studies.sweeping.report import line_of, words_of
from sut.studies.tuning.report import what_is_set
from sut.studies.tuning.space import with_settings

FILE = "points.jsonl"


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep has measured, and what is told of it beside its points; it is kept in ``directory``."""

    directory: Path
    points: list[Point]
    told: dict[str, Any]


def run_sweep(configs: Sequence[RunConfig], asked: Asked, console: Reporter) -> SweepResult:
    """All of it. Raises ``InputError`` for what cannot be swept."""
    base = _base_of(configs, asked)
    with console.working("preparing the model") as progress:
        parts = assemble(base, console.note, progress)
    directory = directory_of(base)
    with held(directory, "a sweep"):
        kept = Kept.read(directory / FILE, header_of(parts), point_of_line, "a sweep", overwrite=base.overwrite)
        there = len(kept.rows)
        tell(f"sweep: files: {directory}")
        if there:
            tell(f"points there already: {there}; it goes on behind them; --overwrite starts anew")
        loops = Loops(parts, asked, Bench(kept, lambda point: tell(line_of(point))), console)
        try:
            found = _measure(loops, asked)
        except KeyboardInterrupt:
            tell(f"points kept: {len(kept.rows)}; the same command without --overwrite goes on behind them")
            raise
    return SweepResult(directory, list(loops.bench.points.values()), _told(parts, loops, found))


def _told(parts: Assembly, loops: Loops, found: dict[str, Any]) -> dict[str, Any]:
    words, parity = [*words_of(found), *loops.notes], loops.bench.parity
    if parts.model is not None and parts.model.weights == "random":
        words.append(RANDOM_WEIGHTS)
    if parity is not None:
        words.append(f"parity of {parts.config.preprocess}: {parity.line()}")
    return {
        "outcome": found,
        "words": words,
        "parity": parity.model_dump() if parity is not None else None,
        "model": parts.spec.name,
        "backend": parts.config.backend,
        "config": what_is_set(parts.config),
    }


def _base_of(configs: Sequence[RunConfig], asked: Asked) -> RunConfig:
    config = configs[0]
    if len(configs) != 1 or config.mode != "performance":
        raise InputError("sut sweep asks by itself, in no scenario and mode of LoadGen's; leave them out")
    check_as_it_is(config, "sweep")
    base = config.model_copy(update={"scenario": "Server"})
    if asked.is_scaling:
        check_one_model(config, "--cores and --devices scale the parts of")
        for name in ("boundary", "dataset", "dataset_path", "dataset_list"):
            if name in config.model_fields_set:
                raise InputError(f"--cores and --devices choose boundaries and pictures themselves; leave {name} out")
        if asked.devices and base.lane_sets > 1:
            raise InputError(
                f"--devices has systems of other numbers of devices than --affinity {base.affinity} has core sets for "
                "the lanes; leave one of them out"
            )
        base = with_settings(base, {"boundary": "jpeg"} | (where_devices_begin(base) if asked.devices else {}))
        first_devices(base, max(asked.devices or (1,)))  # which refuses more than there are
    elif isinstance(asked.arrivals, FromFile):
        arrivals_ns(asked.arrivals, asked.seconds)  # which refuses a file that cannot be read, or goes back in time
    else:
        if asked.concurrency is None and not asked.rates:
            raise InputError("nothing to measure: give --concurrency, --rates R1,R2, or --arrivals FILE")
        for rate in asked.rates or ():
            arrivals_ns(asked.arrivals(rate, 1), asked.seconds)  # which refuses more than can be recorded
    check_effect([base])
    return base


def where_devices_begin(base: RunConfig) -> dict[str, Any]:
    """Where none is named, devices that are counted are those beside the CPU, if the backend lists any."""
    if "device" in base.model_fields_set:
        return {}
    others = [name for name in load_backend(base.backend).devices() if name != "cpu"]
    return {"device": others[0]} if others else {}


def directory_of(base: RunConfig) -> Path:
    """Where the sweeps of this configuration are kept."""
    return study_folder(base, f"sweep-{base.backend}", [base.digest(), "sweep"])


def _measure(loops: Loops, asked: Asked) -> dict[str, Any]:
    """Measure everything; returns what was found."""
    if asked.is_scaling:
        return scaling_findings(list(loops.scaling()))
    closed = loops.closed()
    opened = loops.open(closed)
    host_bytes = memory_limit(Path("/")) or bytes_told(Path("/proc/meminfo"), "MemTotal")
    return closed_findings(closed, asked.limit_ns, host_bytes) | open_findings(opened, asked.limit_ns)
