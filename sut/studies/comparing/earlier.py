"""Figures of before, from a result.json or compare.json, and whether it has become slower since."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugins.files import LARGE_BYTES, read_file
from sut.config import AUTO, expanded
from sut.errors import InputError, SutError, one_line
from sut.models.content import digest_of, sums_of
from sut.models.folder import model_in
from sut.results.collected import read_result
from sut.results.schema import Result, more_is_better
from sut.results.statistics import difference
from sut.studies.comparing.bench import figure_of
from sut.studies.comparing.consistency import misstated
from sut.studies.comparing.matrix import Cell

ROUNDS = 8
"""Runs of a cell that is held against figures of before, where the budget has room for them."""
_SAME = ("backend", "precision", "preprocess", "boundary", "scenario")
WHERE_TOLD = (
    *("lanes", "threads", "max_batchsize", "fold", "weights", "device", "backend_options", "preprocess_options"),
    *("preprocess_workers", "preprocess_place", "preprocess_batch"),
    *("dataset", "dataset_path", "count", "performance_sample_count", "samples_per_query", "qps"),
    *("identify", "identify_backend", "identify_precision", "identify_options", "identify_workers", "identify_batch"),
    *("channel", "fan_out", "infer_place", "infer_resources", "preprocess_resources"),
)
"""Other settings without which figures are of other work. A compare.json of before they were told does not say."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """A cell of before: what it was, its figures, one for each run, and the machine."""

    settings: Mapping[str, Any]
    figures: tuple[float, ...]
    system: Mapping[str, Any]
    model_sha256: str | None = None
    backend_version: str | None = None
    chooses: bool = False
    """Whether what is set of ``AUTO`` may have been chosen: compare's own runs are told what their first one chose."""

    def __str__(self) -> str:
        return ", ".join(str(self.settings.get(key)) for key in ("model", *_SAME))

    def is_of(self, cell: Cell) -> bool:
        """Whether ``cell`` is the same work done in the same way, as far as the file tells.

        Raises ``InputError`` where it would be, but for another model in a file of the same name.
        """
        now = cell.config.model_dump(mode="json") | dict(cell.settings)
        if Path(str(self.settings.get("model"))).name != Path(cell.config.model).name:
            return False
        told = {*_SAME, *(key for key in (*WHERE_TOLD, *cell.settings) if key in self.settings)} - {"model"}
        if self.chooses:
            told -= {key for key in AUTO if getattr(cell.config, key) is None}
        if not all(self.settings.get(key) == now[key] for key in told):
            return False
        if self.model_sha256 is not None:
            self.check_model(cell, _sha256(cell.config.model))
        return True

    def check_model(self, cell: Cell, sha256: str | None) -> None:
        """Raise ``InputError`` where ``sha256``, that of the cell's model, is another than it was; None is unknown."""
        if sha256 is not None and self.model_sha256 not in (None, sha256):
            raise InputError(
                f"{cell.label}: cannot be held against the baseline: another model; {cell.config.model} has SHA-256 "
                f"{sha256}, the baseline's {self.settings.get('model')} had {self.model_sha256}"
            )


@dataclass(frozen=True, slots=True)
class Since:
    """Now against before: over 1 is better. The interval is None where too little is known."""

    cell: str
    ratio: float
    low: float | None
    high: float | None
    runs: tuple[int, int]
    """Of before, and now."""
    versions: tuple[str, str] | None = None
    """Of the backend, before and now, where they are known to differ."""

    def slower_by(self, share: float) -> bool | None:
        """Whether it is slower by more than ``share``: 0.03 is 3 %; None where that cannot be told."""
        if self.low is None or self.high is None:
            return None
        return True if self.high < 1 - share else False if self.low >= 1 - share else None

    def words(self, share: float | None) -> str:
        """In one line."""
        interval = "" if self.low is None or self.high is None else f" ({self.low:.3f} to {self.high:.3f})"
        runs = f"{self.runs[1]} runs against {self.runs[0]}"
        versions = f", the backend's version is {self.versions[1]}, was {self.versions[0]}" if self.versions else ""
        said = f"{self.cell}: {self.ratio:.3f} x the baseline's speed{interval}, {runs}{versions}"
        if share is None:
            return said
        verdicts = {
            True: f"slower by more than {100 * share:g} %",
            False: f"not slower by more than {100 * share:g} %",
            None: f"whether it is slower by more than {100 * share:g} % cannot be told; more runs on both sides would",
        }
        return f"{said}: {verdicts[self.slower_by(share)]}"


def read_earlier(path: Path) -> list[Earlier]:
    """The cells in a result.json or compare.json. Raises ``InputError`` for one without figures and other files."""
    try:
        content = json.loads(read_file(path, LARGE_BYTES))
        if not isinstance(content, dict) or content.get("schema") != 1:
            raise ValueError("it has no schema 1")
        is_compare = content.get("command") == "compare"
        found = _from_compare(content) if is_compare else [_from_result(read_result(path))]
    except FileNotFoundError:
        raise InputError(f"--baseline {path}: no such file; it takes a result.json or compare.json") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"--baseline {path}: not a result.json or compare.json of this program ({one_line(error)})"
        ) from None
    if not any(each.figures for each in found):
        raise InputError(f"--baseline {path}: it has no figure to compare with")
    return found


def _from_compare(content: Mapping[str, Any]) -> list[Earlier]:
    return [_from_row(row, content.get("system", {})) for row in content["rows"] if row.get("figures")]


def _from_row(row: Mapping[str, Any], system: Mapping[str, Any]) -> Earlier:
    figures = tuple(float(value) for value in row["figures"].values())
    if row.get("metric") and (what := next(misstated(row, statistics.median(figures)), None)):
        raise ValueError(f"edited: '{row['cell']}': {what}")
    return Earlier(
        {**row.get("config", {}), **{key: row[key] for key in (*_SAME, "model")}, **row["settings"]},
        figures,
        system,
        row.get("model_sha256"),
        row.get("backend_version"),
    )


def _from_result(result: Result) -> Earlier:
    figure = None if result.failed or result.mode != "performance" else figure_of(result)
    figures = () if not figure else (figure,)
    return Earlier(result.config, figures, result.system, result.model_sha256, result.backend_version, chooses=True)


def _sha256(model: str) -> str | None:
    """Of a model in a file; None for a known model's name, and for a file that cannot be read: loading it says why."""
    try:
        path = expanded(model)
        return digest_of(sums_of(model_in(path) if path.is_dir() else path))
    except (SutError, OSError, ModuleNotFoundError):
        return None


def since(cell: Cell, figures: Sequence[float], earlier: Earlier, now: Result | None = None) -> Since | None:
    """What has become of a cell, ``now`` its last result; None without figures on one of the sides.

    The runs are no pairs: they lie far apart in time. The interval is that of today's figures against a fixed one,
    widened by sqrt(1 + n / m) for n runs now and m before, which have a spread of their own, taken to be today's.

    Raises ``InputError`` where it was another model.
    """
    if now is not None:
        earlier.check_model(cell, now.model_sha256)
    if not figures or not earlier.figures:
        return None
    runs = (len(earlier.figures), len(figures))
    fixed = [statistics.median(earlier.figures)] * runs[1]
    found = difference(fixed, figures, higher_is_better=more_is_better(cell.config.scenario))
    if found.ratio is None:
        return None
    low, high = found.low, found.high
    if low and high:
        wider = math.sqrt(1 + runs[1] / runs[0])
        low, high = (found.ratio * (end / found.ratio) ** wider for end in (low, high))
    was, is_now = earlier.backend_version, now.backend_version if now else None
    versions = (was, is_now) if was and is_now and was != is_now else None
    return Since(cell.label, found.ratio, low, high, runs, versions)
