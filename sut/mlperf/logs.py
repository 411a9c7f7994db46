"""Reads what LoadGen wrote: the detail log, its summary, the per-sample trace."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.files import LARGE_BYTES, open_file, read_file

Int64Array = NDArray[np.int64]

DETAIL = "mlperf_log_detail.txt"
SUMMARY = "mlperf_log_summary.txt"
ACCURACY = "mlperf_log_accuracy.json"
TRACE = "mlperf_log_trace.json"

OFFICIAL_SEEDS = {
    "qsl_rng_seed": 2085463073848966840,
    "sample_index_rng_seed": 2747215439041700203,
    "schedule_rng_seed": 16159082839903944936,
}
"""Round v6.1's seeds, as LoadGen 6.0 embeds them."""

SEEDS_V6_0 = {
    "qsl_rng_seed": 2465351861681999779,
    "sample_index_rng_seed": 14276810075590677512,
    "schedule_rng_seed": 3936089224930324775,
}
"""Round v6.0's seeds, as MLCommons' submission checker has them."""

KNOWN_SEEDS = (OFFICIAL_SEEDS, SEEDS_V6_0)

_PREFIX = ":::MLLOG "
_ONCE = ("requested_", "effective_", "result_", "early_stopping_", "num_")
"""How keys begin that LoadGen writes once in a run."""
_SAMPLE = re.compile(
    rb'"sample_seq":(\d+),"query_seq":(\d+),"sample_idx":(\d+),"issue_start_ns":(-?\d+),"complete_ns":(-?\d+)'
)


@dataclass(frozen=True, slots=True)
class Detail:
    """The detail log: last value per key, and every entry that is marked as an error.

    ``generated_samples``: how many samples LoadGen made up, in all sets of an accuracy run or probes of a search.
    ``at_ms``: when it came to each of the last values, since it began. ``earlier``: by the keys of settings and results
    that stand there more than once, another value that stood there before.
    """

    values: dict[str, Any]
    errors: tuple[str, ...]
    generated_samples: int = 0
    at_ms: Mapping[str, float] = field(default_factory=dict)
    earlier: Mapping[str, Any] = field(default_factory=dict)

    def number(self, key: str) -> float | None:
        """A value as a number, None where it is absent, or more than one has room for."""
        value = self.values.get(key)
        try:
            return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
        except OverflowError:
            return None

    @property
    def complete(self) -> bool:
        """Whether LoadGen came to the end of its run and wrote it all down."""
        last = "power_end" if self.values.get("effective_test_mode") == "AccuracyOnly" else "num_errors"
        return last in self.values or "num_errors" in self.values

    @property
    def power_window(self) -> tuple[float, float] | None:
        """When LoadGen began to ask and had all answers, seconds since 1970, to the millisecond; None without them.

        ``power_begin`` and ``power_end``, in UTC whatever the machine's time zone is; the same where all was answered
        within a millisecond.
        """
        try:
            begin, end = (
                datetime.strptime(str(self.values.get(key)), "%m-%d-%Y %H:%M:%S.%f").replace(tzinfo=UTC).timestamp()
                for key in ("power_begin", "power_end")
            )
        except ValueError:
            return None
        return (begin, end) if begin <= end else None

    @property
    def valid(self) -> bool:
        """LoadGen's own verdict on a performance run."""
        return self.values.get("result_validity") == "VALID"


@dataclass(frozen=True, slots=True)
class Trace:
    """LoadGen's own record per sample in order of issue: data set index, issue delay and latency in ns."""

    index: Int64Array
    issue_delay_ns: Int64Array
    latency_ns: Int64Array


def read_detail(directory: Path) -> Detail:
    """Parse ``mlperf_log_detail.txt``. Raises ``ValueError`` if there is none; a cut one gives what it has."""
    values: dict[str, Any] = {}
    errors: list[str] = []
    generated = 0
    at_ms: dict[str, float] = {}
    earlier: dict[str, Any] = {}
    for line in read_lines(directory / DETAIL):
        if not line.startswith(_PREFIX):
            continue
        try:
            entry = json.loads(line[len(_PREFIX) :])
            key, value, about = entry["key"], entry["value"], entry.get("metadata") or {}
        except (ValueError, LookupError, TypeError, AttributeError):  # cut off, or no entry at all
            continue
        if not isinstance(key, str):
            continue
        if key in values and key.startswith(_ONCE) and values[key] != value:
            earlier[key] = values[key]
        values[key] = value
        if isinstance(when := entry.get("time_ms"), int | float):
            at_ms[key] = when
        count = values.get("generated_query_count")
        if key == "generated_samples_per_query" and isinstance(value, int) and isinstance(count, int):
            generated += value * count
        if about.get("is_error"):
            errors.append(f"{key}: {value}")
    return Detail(values, tuple(errors), generated, at_ms, earlier)


def read_summary(directory: Path) -> dict[str, str]:
    """``mlperf_log_summary.txt``: what stands before and after the colon of each line. Raises ``ValueError``."""
    return summary_fields(read_lines(directory / SUMMARY))


def summary_fields(lines: Iterable[str]) -> dict[str, str]:
    """What stands before and after the colon of each line."""
    parts = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, colon, value in parts if colon}


def read_lines(path: Path) -> list[str]:
    """A log's lines. Raises ``ValueError`` where it cannot be read."""
    try:
        return read_file(path, LARGE_BYTES).decode(errors="replace").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error


def read_trace(directory: Path) -> tuple[Trace, Int64Array]:
    """Per-sample times from ``mlperf_log_trace.json``, in order of issue, and the query each sample belongs to.

    The file is not valid JSON, so it is read entry by entry. Raises ``ValueError`` where there is none or samples are
    missing from the sequence.
    """
    path = directory / TRACE
    try:
        with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            flat = [int(group) for match in _SAMPLE.finditer(content) for group in match.groups()]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    table = np.array(flat, np.int64).reshape(-1, 5)
    table = table[np.argsort(table[:, 0], kind="stable")]
    if not np.array_equal(table[:, 0], np.arange(len(table))):
        raise ValueError(f"{path}: its {len(table)} samples are not numbered 0 to {len(table) - 1}")
    return Trace(table[:, 2].copy(), table[:, 3].copy(), table[:, 4].copy()), table[:, 1].copy()
