"""What a study of energy has found: rows without words, and what they say in sentences."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sut.results.energy import Energy, gross_joules
from sut.results.statistics import Difference, difference, in_words
from sut.results.wording import RANDOM_WEIGHTS, milliseconds
from sut.studies.driving.driven import Driven
from sut.studies.energy.cell import Cell

METERS = {"cpu": "CPU", "gpu": "GPU", "external": "external"}
UNMEASURED = (
    "energy is not measured: no counter of a CPU or GPU can be read here, and no --power-log was given (docs/energy.md "
    "says what it takes); CPU time is the process's own"
)


def rows_of(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for each cell: figures are medians of its rounds, null is what was not measured.

    ``against_first`` has for ``cpu_time`` and each meter the difference to the first preprocessor that was measured on
    the same pictures, by rounds that both have; over 1 is less.
    """
    firsts = {cell.pictures: cell for cell in reversed(cells) if cell.rounds}
    return [_row(cell, firsts.get(cell.pictures, cell)) for cell in cells]


def _row(cell: Cell, first: Cell) -> dict[str, Any]:
    rounds, ready = cell.rounds, cell.ready
    notes = dict.fromkeys(note for each in rounds for note in each.energy_notes)
    return {
        "pictures": cell.pictures,
        "preprocess": cell.preprocess,
        "reason": cell.reason,
        "failed": cell.failed,
        "rounds": len(rounds),
        "samples": sum(each.samples for each in rounds),
        "samples_per_second": _median([each.samples_per_second for each in rounds]),
        "cpu_seconds_per_sample": _median([each.cpu_seconds_per_sample for each in rounds]),
        "energy": _energy(rounds),
        "notes": list(notes),
        "first": None if cell is first else first.preprocess,
        "against_first": {} if cell is first else _against(first, cell),
        "lanes": ready.lanes if ready else None,
        "threads": ready.threads if ready else None,
        "max_batchsize": ready.max_batchsize if ready else None,
        "parity": ready.parity.model_dump() if ready and ready.parity else None,
    }


def _energy(rounds: Sequence[Driven]) -> dict[str, Any] | None:
    """By meter the medians of the rounds, where every round has it."""
    found = {}
    for kind in METERS:
        some = [each.energy[kind] for each in rounds if each.energy and kind in each.energy]
        if some and len(some) == len(rounds):
            found[kind] = asdict(
                Energy(
                    some[0].source,
                    statistics.median(each.gross_joules_per_sample for each in some),
                    _median([each.net_joules_per_sample for each in some]),
                    some[0].idle_watts,
                )
            )
    return found or None


def _median(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return statistics.median(known) if known and len(known) == len(values) else None


def _against(first: Cell, cell: Cell) -> dict[str, Any]:
    both = list(zip(first.rounds, cell.rounds, strict=False))
    found = {}
    for name in ("cpu_time", *METERS):
        pairs = [(_figure(one, name), _figure(other, name)) for one, other in both]
        known = [(one, other) for one, other in pairs if one and other]
        if known:
            found[name] = asdict(difference(*zip(*known, strict=True), higher_is_better=False))
    return found


def _figure(driven: Driven, name: str) -> float | None:
    return driven.cpu_seconds_per_sample if name == "cpu_time" else gross_joules(driven.energy, name)


def words_of(told: Mapping[str, Any]) -> Iterator[str]:
    """What the study says. ``told`` has the rows and what else is written down."""
    rows: Sequence[Mapping[str, Any]] = told["rows"]
    measured = [row for row in rows if row["rounds"]]
    for row in measured:
        energy = {METERS[kind]: each["gross_joules_per_sample"] for kind, each in (row["energy"] or {}).items()}
        joules = "".join(f", {name} {value:.3g} J" for name, value in energy.items())
        cpu_s = row["cpu_seconds_per_sample"]
        taken = milliseconds(None if cpu_s is None else 1e9 * cpu_s)
        yield f"{row['pictures']} pictures with {row['preprocess']} take {taken} ms of CPU time{joules} each"
    for row in measured:
        for name, found in row["against_first"].items():
            what = "CPU time" if name == "cpu_time" else f"{METERS[name]} energy"
            words = in_words(Difference(**found))
            yield f"{row['pictures']} pictures, {what}: {row['preprocess']} against {row['first']}: {words}"
    if measured and not any(row["energy"] or row["notes"] for row in measured):
        yield UNMEASURED
    yield from dict.fromkeys(note for row in measured for note in row["notes"])
    for row in rows:
        if row["reason"]:
            yield f"{row['pictures']} pictures, {row['preprocess']}: does not run here: {row['reason']}"
    if told["weights"] == "random":
        yield RANDOM_WEIGHTS
