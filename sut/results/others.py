"""What other programs leave of a run: the reference harness's results.json, and LoadGen's logs alone."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from plugins.files import SMALL_BYTES, read_file
from sut.errors import one_line
from sut.mlperf.logs import DETAIL, Detail, read_detail
from sut.mlperf.metrics import METRICS, latency_keys
from sut.results.schema import REFERENCE_FILE, REFERENCE_PERCENTILES
from sut.text import shortened

_MODES = {
    "PerformanceOnly": "performance",
    "AccuracyOnly": "accuracy",
    "FindPeakPerformance": "find_peak",
    "SubmissionRun": "submission",
}
_ENTRY = "TestScenario."
_MODEL = re.compile(r"\bmodel_name='([^']+)'")
"""In the reference harness's ``cmdline``, which is argparse's words for all options."""


def read_other(folder: Path) -> dict[str, Any]:
    """What a folder has of a result, by the names of result.json, and its ``source``; what it has not is not there.

    Where both are there LoadGen's figures count, and the harness says what ran. Raises ``ValueError`` where they cannot
    be read or are none.
    """
    try:
        harness = _reference(folder / REFERENCE_FILE) if (folder / REFERENCE_FILE).exists() else {}
        logged = _logged(read_detail(folder)) if (folder / DETAIL).exists() else {}
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError, OSError) as error:
        raise ValueError(f"not what LoadGen or the reference harness writes: {one_line(error)}") from error
    return {**harness, **logged, "source": "reference" if harness else "LoadGen"}


def _logged(detail: Detail) -> dict[str, Any]:
    """A run by LoadGen's own log, whose ``notes`` are the errors in it."""
    values = detail.values
    scenario = str(values.get("effective_scenario"))
    if scenario not in METRICS:
        raise ValueError(f"{DETAIL} has no scenario that is known, got '{scenario}'")
    mode = _MODES.get(str(values.get("effective_test_mode")), "performance")
    facts: dict[str, Any] = {
        "scenario": scenario,
        "mode": mode,
        "valid": None if mode == "accuracy" and detail.complete else detail.valid,
        "invalid_reasons": [] if detail.complete else ["LoadGen's log has no end"],
        "started": values.get("test_datetime"),
        "versions": {"mlcommons-loadgen": values.get("loadgen_version")},
        "notes": list(detail.errors),
    }
    if mode == "accuracy":
        return {**facts, "samples": detail.generated_samples}
    name, key, higher = METRICS[scenario]
    metric = detail.number(key)
    queries = detail.number("result_query_count")
    each = detail.number("generated_samples_per_query")
    latency = {ours: detail.number(theirs) for ours, theirs in latency_keys(scenario).items()}
    return {
        **facts,
        "metric": {"name": name, "value": metric or None, "higher_is_better": higher},
        "samples_per_second": metric if higher else None,
        "queries": None if queries is None else int(queries),
        "samples": None if queries is None or each is None else int(queries * each),
        "latency_ns": {ours: None if value is None else int(value) for ours, value in latency.items()},
    }


def _reference(path: Path) -> dict[str, Any]:
    """The one scenario in a results.json; ``accuracy`` there is in percent, times in seconds."""
    content = from_json(read_file(path, SMALL_BYTES))
    scenarios = [name for name in content if name.startswith(_ENTRY)]
    if len(scenarios) != 1:
        raise ValueError(f"{REFERENCE_FILE} has {len(scenarios)} scenarios, expected one '{_ENTRY}...'")
    entry = content[scenarios[0]]
    config = content.get("args")
    named = _MODEL.search(str(content.get("cmdline")))
    total = int(entry.get("total_items") or 0)
    has_accuracy = "accuracy" in entry and total
    latency = {ours: entry["percentiles"].get(theirs) for theirs, ours in REFERENCE_PERCENTILES.items()}
    time = content.get("time")
    return {
        "model": _text(config, "model") if isinstance(config, Mapping) else named and named[1],
        "backend": _text(content, "runtime"),
        "backend_version": _text(content, "version"),
        "config": config if isinstance(config, Mapping) else {},
        "scenario": scenarios[0].removeprefix(_ENTRY),
        "mode": "accuracy" if "accuracy" in entry else "performance",
        "samples": int(entry["count"]),
        "samples_per_second": _number(entry, "qps"),
        "duration_s": _number(entry, "took"),
        "latency_ns": {name: _ns(seconds) for name, seconds in {"mean": entry.get("mean"), **latency}.items()},
        "accuracy": {"name": "top1", "value": entry["good_items"] / total, "count": total} if has_accuracy else None,
        # Only the reference harness's own is a date.
        "started": datetime.fromtimestamp(time, UTC).isoformat() if isinstance(time, int) and time > 1e9 else None,
    }


def _text(content: Mapping[str, Any], name: str) -> str | None:
    value = content.get(name)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is {shortened(repr(value))}, no text")
    return value


def _number(content: Mapping[str, Any], name: str) -> float | None:
    value = content.get(name)
    if value is not None and not (type(value) in (int, float) and math.isfinite(value)):
        raise TypeError(f"{name} is {shortened(repr(value))}, no number")
    return value


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None or seconds != seconds else round(1e9 * seconds)  # NaN where there was no query
