"""What of a sound log is worth a look: it may all be as it should. Nothing here makes a run count for less."""

from __future__ import annotations

from collections.abc import Iterator

from sut.errors import short
from sut.mlperf.finding import Finding, Rule, Severity
from sut.mlperf.logs import DETAIL, Detail
from sut.mlperf.metrics import METRICS, latency_keys

_ROUND_MS = (1, 2, 5, 10, 20, 50, 100)
"""Batching timeouts as people set them."""
_ABOVE = 1.1
"""How far above a timeout the shortest latency is where what comes after it is short."""
_STEADY = 0.04
"""From the least to p99, of the least: official logs of systems without a timeout have 0.06 to 1."""
_MANY = 3
"""Times: more than any forecast is off by."""
DIFFERS_BY_RIGHT = "min_query_count"
"""LoadGen takes all samples in accuracy mode, whatever it was asked for."""


class Doubt(Rule):
    """What it is about."""

    FLOOR = "a floor just above a round time, with next to no spread: a batching timeout?", Severity.DOUBT
    LONG = "the run took many times its min_duration", Severity.DOUBT
    OPTION = "an option without effect", Severity.DOUBT


def doubts(detail: Detail) -> list[Finding]:
    """What is odd about a log that came to its end."""
    if str(detail.values.get("effective_scenario")) not in METRICS:
        return []
    found = list(_options(detail))
    if detail.values.get("effective_test_mode") == "PerformanceOnly":
        found += [*_floor(detail), *_long(detail)]
    return found


def _floor(detail: Detail) -> Iterator[Finding]:
    """A system that waits for more samples where none can come (SingleStream, and MultiStream's next query) answers a
    little after its timeout, and nearly always so: what the work adds, and how it varies, is small beside the wait.

    An honest system that is that steady and happens to need a little over a round time looks the same, and a timeout
    that is not round is not seen.
    """
    scenario = str(detail.values.get("effective_scenario"))
    keys = latency_keys(scenario)
    least, high = detail.number(keys["min"]), detail.number(keys["p99"])
    if scenario not in ("SingleStream", "MultiStream") or least is None or high is None or least <= 0:
        return
    for wait_ms in _ROUND_MS:
        if wait_ms * 1e6 <= least <= _ABOVE * wait_ms * 1e6 and 0 <= high - least < _STEADY * least:
            got = f"{least / 1e6:.4g} ms, and p99 only {(high - least) / 1e6:.2g} ms more"
            expected = f"no wait of {wait_ms} ms for a batch that nothing can fill in {scenario}"
            yield Finding(Doubt.FLOOR, DETAIL, keys["min"], got, expected)


def _long(detail: Detail) -> Iterator[Finding]:
    """Offline issues 1.1 x target_qps x min_duration samples or as many as it must, whatever they take: who told it too
    high a rate waits. Where few were asked for, or must be, the run is long because the system is slow.
    """
    scenario, wanted_ms = detail.values["effective_scenario"], detail.number("effective_min_duration_ms")
    if not wanted_ms:
        return
    if scenario == "Offline":
        told, rate = detail.number("effective_target_qps"), detail.number("result_samples_per_second")
        longest_ns, asked = detail.number("result_max_latency_ns"), detail.number("requested_min_query_count") or 0
        samples = detail.number("generated_samples_per_query") or detail.number("effective_samples_per_query") or 0
        if not told or not rate or not longest_ns or samples <= asked:
            return
        if longest_ns > _MANY * wanted_ms * 1e6 and told > _MANY * rate:
            expected = (
                f"some {short(rate)}, the true rate: it took {longest_ns / 1e9:,.0f} s for {wanted_ms / 1000:g} s"
            )
            yield Finding(Doubt.LONG, DETAIL, "effective_target_qps", short(told), expected)
        return
    mean = detail.number(latency_keys(str(scenario))["min"].replace("_min_", "_mean_"))
    queries, least = detail.number("result_query_count"), detail.number("effective_min_query_count")
    if scenario == "Server" or not mean or not queries or least is None or queries <= least:
        return
    if queries * mean > _MANY * wanted_ms * 1e6:
        expected = f"about {least:g}, or what {wanted_ms / 1000:g} s give: it took {queries * mean / 1e9:,.0f} s"
        yield Finding(Doubt.LONG, DETAIL, "result_query_count", f"{queries:g}", expected)


def _options(detail: Detail) -> Iterator[Finding]:
    """Settings that came into effect as something else, and such as LoadGen does not look at in this scenario or mode,
    or without another one.
    """
    values = detail.values
    for key, value in values.items():
        stem = key.removeprefix("requested_")
        effective = values.get(f"effective_{stem}", value)
        if stem not in (key, DIFFERS_BY_RIGHT) and effective != value:
            yield Finding(Doubt.OPTION, DETAIL, key, str(value), f"{effective} (effective_{stem})")
    accuracy = values.get("effective_test_mode") == "AccuracyOnly"
    sampled = values.get("effective_accuracy_log_sampling_target") or values.get("effective_accuracy_log_probability")
    same = values.get("effective_performance_issue_same")
    idle = {
        "effective_max_duration_ms": (values["effective_scenario"] == "Offline", "0: Offline's one query is not cut"),
        "effective_performance_issue_same_index": (not same, "0, without performance_issue_same"),
        "effective_accuracy_log_rng_seed": (not sampled, "0, without a sample of the answers to log"),
        "effective_accuracy_log_sampling_target": (accuracy, "0: accuracy mode logs all answers"),
        "effective_accuracy_log_probability": (accuracy, "0: accuracy mode logs all answers"),
        "effective_performance_issue_same": (accuracy, "false: accuracy mode issues each sample once"),
        "effective_performance_issue_unique": (accuracy, "false: accuracy mode issues each sample once"),
    }
    for key, (without, expected) in idle.items():
        if without and (got := values.get(key)):
            yield Finding(Doubt.OPTION, DETAIL, key, str(got), expected)
