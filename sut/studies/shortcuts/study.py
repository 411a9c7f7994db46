"""What ``sut study shortcuts`` finds: a row for each shortcut and size of pictures, against the exact way."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from plugins.registry import suggest
from preprocess.fused import Fused
from sut.config import RunConfig
from sut.datasets.mosaics import SIZES
from sut.errors import InputError, SutError, one_line
from sut.pipeline.assembly import assemble
from sut.pipeline.identify.settings import check_one_model
from sut.pipeline.loading import load_backend
from sut.pipeline.slowdown import check_as_it_is
from sut.results.parity import preprocessed_levels
from sut.results.statistics import difference
from sut.run.reporter import Reporter
from sut.studies.shortcuts.bench import Examined, Timed, Way, examine, time_pairs
from sut.studies.shortcuts.pictures import LABELLED, TIMED, files, write_pictures
from sut.tasks.agreement import LabelTally
from sut.tasks.registry import find_task

OPTIONS = tuple(each.name for each in fields(Fused.options))
"""The shortcuts of the preprocessor ``fused``."""
PRECISIONS = ("bf16", "fp16", "int8")
TOGETHER = "together"
"""All of the preprocessor's shortcuts, and int8."""
_OWN = ("preprocess", "preprocess_options", "boundary", "precision", "fold", "lanes", "threads", "max_batchsize")
"""Settings that the study makes itself."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A shortcut, and what it sets."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Priced:
    """What was measured of a shortcut; or the ``reason`` why there is none."""

    shortcut: Shortcut
    examined: Examined | None = None
    timed: Timed | None = None
    reason: str | None = None


def base_of(configs: Sequence[RunConfig]) -> RunConfig:
    """The exact way: ``fused`` and FP32, one thread, one picture at a time. Raises ``InputError`` for what has none."""
    base = configs[0]
    if len(configs) != 1 or base.mode != "performance":
        raise InputError("sut study shortcuts asks its pictures itself; leave out --accuracy and several scenarios")
    check_as_it_is(base, "study shortcuts")
    check_one_model(base, "sut study shortcuts times")
    if taken := next((name for name in _OWN if name in base.model_fields_set), None):
        raise InputError(f"sut study shortcuts does not take the setting {taken}: it sets that itself; leave it out")
    one = {"preprocess": "fused", "boundary": "jpeg", "lanes": 1, "threads": 1, "max_batchsize": 1}
    return base.model_copy(update={**one, "scenario": "SingleStream"})


def chosen_of(names: str | None) -> list[Shortcut]:
    """Those that a comma list names, None for all: the preprocessor's, lower precisions, and what goes together.

    Raises ``InputError`` for a name that is none.
    """
    ways: dict[str, dict[str, Any]] = {name: {"preprocess_options": {name: True}} for name in OPTIONS}
    ways |= {name: {"precision": name} for name in PRECISIONS}
    ways[TOGETHER] = {"preprocess_options": dict.fromkeys(OPTIONS, True), "precision": "int8"}
    wanted = list(ways) if names is None else [name.strip() for name in names.split(",")]
    if unknown := next((name for name in wanted if name not in ways), None):
        raise InputError(f"--only: unknown shortcut '{unknown}'; {suggest(unknown, ways)}")
    return [Shortcut(name, ways[name]) for name in wanted]


def price(
    base: RunConfig,
    chosen: Sequence[Shortcut],
    console: Reporter,
    pairs: int,
    timed: Mapping[str, int] = TIMED,
    labelled: Mapping[str, int] = LABELLED,
) -> dict[str, Any]:
    """What ``study.json`` has: a row for each shortcut and size.

    ``timed`` and ``labelled`` are how many pictures there are of each size.

    Raises ``InputError``, ``SetupError`` or ``RunError`` where the exact way cannot be measured; why a shortcut cannot
    stands in its row.
    """
    way = _way(base, console)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        console.note("making pictures: small, medium and large")
        write_pictures(folder, dict(timed), dict(labelled))
        console.note("the exact way: labels, levels, memory")
        exact = _examined(folder, way, "measuring the exact way")
        found = [_priced(folder, base, way, each, pairs, console) for each in chosen]
    rows = [row for each in found for row in rows_of(each, exact)]
    weights = way.prepared.weights if way.prepared else None
    return {"rows": rows, "model": base.model, "backend": base.backend, "weights": weights}


def _way(config: RunConfig, console: Reporter) -> Way:
    """What a config runs, its model's file made. Raises as ``assemble`` does, and where answers are no labels."""
    with console.working("preparing the model") as progress:
        parts = assemble(config, console.note, progress)
    if find_task(parts.spec.task).tally is not LabelTally:
        raise InputError(f"{config.model} gives no labels to compare (task {parts.spec.task}); name a classifier")
    return Way(config, parts.model)


def _examined(folder: Path, way: Way, doing: str) -> Examined:
    """What one way answers and needs, after all of it is compiled in here: who compiles holds 60 MB more."""
    parts = assemble(way.config, prepared=way.prepared)
    pictures = [files(folder, size, "timed")[0] for size in SIZES]
    preprocessed_levels(parts.preprocessor_for, parts.spec.recipe, pictures)
    return examine(folder, way, doing)


def _priced(folder: Path, base: RunConfig, exact: Way, shortcut: Shortcut, pairs: int, console: Reporter) -> Priced:
    config = base.model_copy(update=dict(shortcut.settings))
    has = load_backend(config.backend).precisions_on(config.devices[0])
    if config.precision not in has:
        return Priced(shortcut, reason=f"{config.backend} has no {config.precision} on {config.device}")
    console.note(f"{shortcut.name}: labels, levels and memory, then {pairs} pairs for each size")
    try:
        way = _way(config, console)
        examined = _examined(folder, way, f"measuring {shortcut.name}")
        return Priced(shortcut, examined, time_pairs(folder, exact, way, pairs, f"timing {shortcut.name}"))
    except (SutError, ModuleNotFoundError) as error:
        return Priced(shortcut, reason=one_line(error))


def rows_of(priced: Priced, exact: Examined) -> Iterator[dict[str, Any]]:
    """The rows of a shortcut: one for each size, or one with the reason why there is none.

    ``speed`` is the ratio of CPU time for a picture from JPEG to label, over 1 where the shortcut is faster.
    """
    named = {"shortcut": priced.shortcut.name, "settings": dict(priced.shortcut.settings)}
    examined, timed = priced.examined, priced.timed
    if examined is None or timed is None:
        yield named | {"pictures": None, "reason": priced.reason}
        return
    for size in SIZES:
        before, after = zip(*timed.cpu_s[size], strict=True)
        tally = LabelTally()
        tally.add(np.array(exact.labels[size]), np.array(examined.labels[size]))
        peak, base_peak = examined.peak_bytes[size], exact.peak_bytes[size]
        yield named | {
            "pictures": size,
            "speed": asdict(difference(before, after, higher_is_better=False)),
            "cpu_seconds_per_picture": {"exact": statistics.median(before), "shortcut": statistics.median(after)},
            "memory_bytes": {"exact": base_peak, "shortcut": peak},
            "parity": examined.parity[size].model_dump(),
            "exact_parity": exact.parity[size].model_dump(),
            "labels": asdict(tally.agreement(f"{len(exact.labels[size])} crops of the demo photos, {size}")),
            "reason": None,
        }


def sentences_of(content: Mapping[str, Any]) -> list[str]:
    """Of a ``study.json`` the decision, then what else must be known."""
    rows = content["rows"]
    unpriced = [f"{row['shortcut']} is not priced: {row['reason']}" for row in rows if row["reason"]]
    random = "; the weights are random, so that labels say nothing" * (content["weights"] == "random")
    return [
        f"{content['model']} on {content['backend']}: " + "; ".join(_fastest(rows, size) for size in SIZES) + random,
        "Speed is CPU time from JPEG to label, a picture at a time on one thread, in pairs with the exact way (fused, "
        "fp32); memory is the peak of the whole process; levels are against the oracle, on mosaics of much detail.",
        "Labels are compared with the exact way's, on crops of eleven photos that were resized to the size: large ones "
        "have less detail than a camera's, and the interval takes crops as independent, which makes it too narrow.",
        *unpriced,
    ]


def _fastest(rows: Sequence[Mapping[str, Any]], size: str) -> str:
    faster = [
        row
        for row in rows
        if row["pictures"] == size and row["shortcut"] != TOGETHER and row["speed"]["verdict"] == "better"
    ]
    if not faster:
        return f"on {size} pictures none alone is faster that can be told"
    best = max(faster, key=lambda row: float(row["speed"]["ratio"]))
    speed, labels = best["speed"], in_percent(best["labels"])
    gain = f"{speed['ratio']:.3g} x ({speed['low']:.3g} to {speed['high']:.3g})"
    return f"on {size} pictures {best['shortcut']} gains most alone, {gain} at {labels} % same labels"


def in_percent(labels: Mapping[str, Any]) -> str:
    """A share of labels and its 95 % interval.

    >>> in_percent({"value": 0.985, "low": 0.957, "high": 0.995})
    '98.5 (95.7 to 99.5)'
    """
    return f"{100 * labels['value']:.3g} ({100 * labels['low']:.3g} to {100 * labels['high']:.3g})"
