"""Results side by side: what differs between them, what is the same, and each as one flat row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sut.config import NOT_HASHED, RunConfig
from sut.errors import one_line
from sut.mlperf.logs import DETAIL
from sut.mlperf.metrics import METRICS
from sut.mlperf.reference_results import REFERENCE_FILE
from sut.results.collected import Collected, Found, Skipped
from sut.results.machine import differs
from sut.results.others import read_other
from sut.results.schema import CONFIGURED, Result

_IDENTITY = ("model", "model_sha256", "weights", "backend", "backend_version", *CONFIGURED[1:])
_TOLD_BY = {"model_sha256": "model", "backend_version": "backend"}
"""What is a column of its own only where one of the other's names stands for several."""
_NOT_SETTINGS = {*NOT_HASHED, *_IDENTITY} - {"audit_conf"}
_USED = {"lanes": "lanes", "threads": "threads", "max_batchsize": "max_batchsize", "hint": "backend_options.hint"}
"""What a plan says of a run, by the setting that it takes the place of: there, nothing may have been asked for."""
_NOT_FLAT = ("recipe", "attested", "calibration", "versions", "loaded_sha256", "answers")
_FIELDS = [field.alias or name for name, field in Result.model_fields.items()]


@dataclass(frozen=True, slots=True)
class Row:
    """One result. ``facts`` have the names of result.json, all of them; what another program did not tell is None.

    ``source``: ``result.json``, ``reference`` (its harness's results.json) or ``LoadGen`` (only its logs).
    """

    path: Path
    source: str
    facts: Mapping[str, Any]
    is_busy: bool = False
    """Whether the machine had other work during the run."""
    failed: bool = False
    """Whether the run failed, as opposed to ending INVALID; another program does not tell."""

    @classmethod
    def of(cls, found: Found) -> Row:
        """One of our own."""
        facts = found.result.model_dump(mode="json", by_alias=True)
        return cls(found.path, "result.json", facts, found.result.is_busy, found.result.failed)

    @property
    def folder(self) -> str:
        """The last two folders of where it lies."""
        return "/".join(self.path.absolute().parts[-3:-1])

    @property
    def settings(self) -> dict[str, Any]:
        """What was run, by name: the identity, then every setting, as used where the plan says so."""
        plan = self.facts["plan"] or {}
        config = dict(_leaves("", self.facts["config"] or {}))
        used = {setting: plan[name] for name, setting in _USED.items() if plan.get(name) is not None}
        kept = {name: value for name, value in (config | used).items() if name.partition(".")[0] not in _NOT_SETTINGS}
        return {name: self.facts[name] for name in _IDENTITY} | kept

    @property
    def flat(self) -> dict[str, Any]:
        """All that fits into one line: names within others have a dot, texts of a list are one text."""
        return dict(_leaves("", {name: value for name, value in self.facts.items() if name not in _NOT_FLAT}))


def rows_of(collected: Collected) -> tuple[list[Row], list[Skipped]]:
    """A row for each result, by model, weights, scenario and mode, the best figure first; and what cannot be read."""
    rows = [Row.of(found) for found in collected.found]
    skipped = list(collected.skipped)
    for folder in collected.others:
        try:
            facts = read_other(folder)
        except ValueError as error:
            skipped.append(Skipped(folder, one_line(error)))
            continue
        source = facts.pop("source")
        path = folder / (REFERENCE_FILE if source == "reference" else DETAIL)
        rows.append(Row(path, source, dict.fromkeys(_FIELDS) | facts))
    return sorted(rows, key=_order), skipped


def _order(row: Row) -> tuple[Any, ...]:
    facts = row.facts
    scenario = list(METRICS).index(facts["scenario"]) if facts["scenario"] in METRICS else len(METRICS)
    metric, accuracy = facts["metric"] or {}, facts["accuracy"] or {}
    figure = metric.get("value") or accuracy.get("value")
    worse = 0.0 if figure is None else figure if metric.get("higher_is_better") is False else -figure
    identity = (facts["model"] or "~", facts["weights"] or "", facts["boundary"] or "~", scenario)
    return (*identity, facts["mode"] != "performance", figure is None, worse, str(row.path))


def _leaves(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(f"{prefix}{name}.", inner)
        else:
            yield prefix + name, "; ".join(map(str, inner)) if isinstance(inner, list | tuple) else inner


def differing(rows: Sequence[Row]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Settings in words: those that differ, with one text per row, and those that are the same in all rows.

    Of the same ones, what is nobody's choice is left out. A setting that a result does not know, such as an older one,
    makes no difference, and has an empty text.
    """
    settings = [row.settings for row in rows]
    names = dict.fromkeys(name for each in settings for name in each)
    differ: dict[str, list[str]] = {}
    same: dict[str, str] = {}
    for name in names:
        texts = [text_of(each[name]) if name in each else "" for each in settings]
        told = [each[_TOLD_BY.get(name, name)] for each in settings] if name in _TOLD_BY else []
        if len({*texts} - {""}) > 1:
            if not told or len({*zip(told, texts, strict=True)}) > len({*told}):
                differ[name] = texts
        elif "" not in texts and texts[0] != _unless_asked(name):
            same[name] = texts[0]
    return differ, same


def _unless_asked(name: str) -> str:
    field = RunConfig.model_fields.get(name) if name not in _IDENTITY else None
    return "-" if field is None else text_of(field.get_default(call_default_factory=True))


def text_of(value: object) -> str:
    """A setting in words.

    >>> text_of(True), text_of(None), text_of(2.0), text_of("jpeg")
    ('yes', '-', '2', 'jpeg')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def flat_rows(rows: Sequence[Row]) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns that all rows have together, in the order of result.json, and the rows by column."""
    flat = [{"path": str(row.path), "source": row.source, **row.flat} for row in rows]
    names = list(dict.fromkeys(name for each in flat for name in each))
    parents = {name[:at] for name in names for at, character in enumerate(name) if character == "."}
    order = {name: number for number, name in enumerate(("path", "source", *_FIELDS))}
    kept = [name for name in names if name not in parents]
    return sorted(kept, key=lambda name: order[name.partition(".")[0]]), flat


def machines(rows: Sequence[Row]) -> list[str]:
    """What tells the machines apart that the results are of, in words; empty where it may be one."""
    found: list[Mapping[str, Any]] = []
    for row in rows:
        system = row.facts["system"] or {}
        if all(differs(one, system) for one in found):
            found.append(system)
    return list(dict.fromkeys(words for other in found[1:] for words in differs(found[0], other)))
