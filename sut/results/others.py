"""What other programs leave of a run: the reference harness's results.json, and LoadGen's logs alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sut.errors import one_line
from sut.mlperf.logs import DETAIL, Detail, read_detail
from sut.mlperf.metrics import METRICS, latency_keys
from sut.mlperf.reference_results import REFERENCE_FILE, REFERENCE_PERCENTILES, read_reference

_MODES = {
    "PerformanceOnly": "performance",
    "AccuracyOnly": "accuracy",
    "FindPeakPerformance": "find_peak",
    "SubmissionRun": "submission",
}


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
        # Local time, of a zone that nobody knows, whatever the Z behind it says.
        "started": str(values.get("test_datetime", "")).removesuffix("Z") or None,
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
    harness = read_reference(path)
    if len(harness.entries) != 1:
        raise ValueError(f"{REFERENCE_FILE} has {len(harness.entries)} scenarios, expected one")
    [entry] = harness.entries
    if (count := entry["count"]) is None or not entry.percentiles:
        raise ValueError(f"{REFERENCE_FILE} has no count, or no percentiles")
    total, good = entry["total_items"], entry["good_items"]
    scored = {"name": "top1", "value": good / total, "count": int(total)} if total and good is not None else None
    model = harness.option("model_name") if harness.options is None else harness.options.get("model")
    if model is not None and not isinstance(model, str):
        raise ValueError(f"args.model is {model!r:.80}, no text")
    latency = {name: entry.percentiles.get(name) for name in REFERENCE_PERCENTILES.values()}
    time = harness.time
    return {
        "model": model,
        "backend": harness.runtime,
        "backend_version": harness.version,
        "config": harness.options or {},
        "scenario": entry.scenario,
        "mode": "performance" if entry["accuracy"] is None else "accuracy",
        "samples": int(count),
        "samples_per_second": entry["qps"],
        "duration_s": entry["took"],
        "latency_ns": {name: _ns(seconds) for name, seconds in {"mean": entry["mean"], **latency}.items()},
        "accuracy": None if entry["accuracy"] is None else scored,
        # Only the reference harness's own is a date.
        "started": datetime.fromtimestamp(time, UTC).isoformat() if isinstance(time, int) and time > 1e9 else None,
    }


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(1e9 * seconds)
