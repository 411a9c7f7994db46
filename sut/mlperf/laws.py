"""What no run of LoadGen's can do, by arithmetic alone: rules over the figures of one performance log.

With n latencies in ascending order LoadGen's percentile p is the one at rank ``int(n x p)``, so that each figure bounds
all latencies below or above it, and so their sum, how many are late, and what lies between. Each law tells what it
follows from. All are exact but for figures that LoadGen rounds (rates, to six digits; times of entries, to 1 ns).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sut.mlperf import official
from sut.mlperf.early import left_out, satisfied
from sut.mlperf.finding import Finding, Rule
from sut.mlperf.logs import DETAIL, Detail
from sut.mlperf.metrics import METRICS, PERCENTILES, ROUNDED, latency_keys, rounded

_WRAPS = 2**64
"""LoadGen's sum of latencies is cut to so many, and what it divides is 0 or more."""
_ENTRY_NS = 1_000_000
"""Entries of the log are dated after what they tell."""
_ESTIMATE = re.compile(
    r"Processed at least (\d+) queries \((\d+)\)\.\s+\* Would discard (\d+) highest latency queries\.\s+"
    r"\* Early stopping (\d+)(?:\.\d+)?th percentile estimate: (\d+)"
)


class Law(Rule):
    """Which of them is broken."""

    LITTLE = "more queries at once than the scenario has (Little's law)"
    MEAN = "the mean is not of latencies that have these percentiles"
    TIME = "the run took less time than its latencies add up to"
    EARLY = "early stopping is not what the figures give"
    LATE = "the late queries are not as many as the percentiles have"
    COUNTS = "queries, samples and rates do not fit together"


@dataclass(frozen=True, slots=True)
class Ranks:
    """Some of ``count`` latencies in ascending order, ns: key and value by rank, itself ascending."""

    count: int
    known: tuple[tuple[int, str, int], ...]

    def around(self, rank: int) -> tuple[float, float]:
        """Between what the latency at a rank lies, give or take one rank."""
        below = [value for at, _, value in self.known if at < rank]
        above = [value for at, _, value in self.known if at > rank]
        return max(below, default=0), min(above, default=math.inf)

    def sums(self) -> tuple[int, int]:
        """The least and the most that all of them can add up to, where the first and the last are known."""
        steps = list(zip(self.known, self.known[1:], strict=False))
        ends = self.known[0][2], self.known[-1][2]
        least = sum((after - at) * low for (at, _, low), (after, _, _) in steps) + ends[1]
        most = sum((after - at) * high for (at, _, _), (after, _, high) in steps) + ends[0]
        return least, most


def ranks(detail: Detail, per_query: bool) -> Ranks | None:
    """Latencies per query, or per sample; None where the least and the most are not there, or they are not in order."""
    queries, each = _whole(detail, "result_query_count"), _whole(detail, "generated_samples_per_query") or 1
    scenario = str(detail.values.get("effective_scenario"))
    if not queries:
        return None
    count = queries if per_query and scenario == "MultiStream" else queries * each
    known = []
    for name, key in latency_keys(scenario if per_query else "").items():
        value = _whole(detail, key)
        rank = {"min": 0, "max": count - 1}.get(name, int(count * PERCENTILES.get(name, 0)))
        if value is not None:
            known.append((rank, key, value))
    values = [value for _, _, value in known]
    ends = known and known[0][0] == 0 and known[-1][0] == count - 1
    return Ranks(count, tuple(known)) if ends and values == sorted(values) and values[0] >= 0 else None


def laws(detail: Detail) -> list[Finding]:
    """Which laws a performance log breaks; those that need figures which it has not are passed over."""
    scenario = str(detail.values.get("effective_scenario"))
    if scenario not in METRICS or detail.values.get("effective_test_mode") != "PerformanceOnly":
        return []
    per_query, per_sample = ranks(detail, per_query=True), ranks(detail, per_query=False)
    found = [*_counts(detail), *_little(detail, per_query), *_time(detail)]
    found += _mean(detail, "result_mean_latency_ns", per_sample)
    if scenario == "MultiStream":
        found += _mean(detail, "result_mean_query_latency_ns", per_query)
    # Where tokens are timed LoadGen judges those, and logs no early_stopping_result; in Offline it says nothing in it.
    if str(detail.values.get("early_stopping_result", "")).strip() and scenario != "Offline":
        found += _early(detail, scenario, per_query)
        if scenario == "Server" and per_query is not None:
            found += _late(detail, per_query)
    return found


def estimate_bounds(detail: Detail, scenario: str, found: Ranks) -> tuple[float, float]:
    """Between what the early-stopping estimate that is the scenario's metric must be.

    It is the latency at a rank that follows from the number of queries: no other is less than the official percentile
    with 99 % confidence. LoadGen's sum may be one rank off. At other percentiles it was seen to come to no good.
    """
    judged = official.PERCENTILES[scenario]
    top = left_out(found.count, judged) if detail.number("effective_target_latency_percentile") == judged else 0
    return found.around(found.count - top) if top else (found.known[0][2], found.known[-1][2])


def _whole(detail: Detail, key: str) -> int | None:
    value = detail.values.get(key)
    return value if type(value) is int and abs(value) < _WRAPS else None


def _broken(rule: Law, key: str, detail: Detail, expected: str) -> Finding:
    return Finding(rule, DETAIL, key, str(detail.values.get(key)), expected)


def _counts(detail: Detail) -> Iterator[Finding]:
    """A query has the samples that were set, unless a setting has LoadGen issue each sample; none is issued that was
    not generated; and ``result_min_queries_met`` is about the queries and samples that there are.
    """
    values, queries = detail.values, _whole(detail, "result_query_count")
    each, wanted = _whole(detail, "generated_samples_per_query"), _whole(detail, "effective_samples_per_query")
    odd = values.get("effective_performance_issue_unique") or values.get("effective_sample_concatenate_permutation")
    if each is not None and wanted is not None and each != wanted and not odd:
        yield _broken(Law.COUNTS, "generated_samples_per_query", detail, f"{wanted} (effective_samples_per_query)")
    generated = _whole(detail, "generated_query_count")
    if queries is not None and generated is not None and queries > generated:
        yield _broken(Law.COUNTS, "result_query_count", detail, f"{generated} at the most (generated_query_count)")
    least, fewest = _whole(detail, "effective_min_query_count"), _whole(detail, "effective_min_sample_count")
    met = values.get("result_min_queries_met")
    if None in (queries, each, least, fewest) or not isinstance(met, bool):
        return
    enough = queries >= least and queries * each >= fewest  # type: ignore[operator]
    if enough and not met:
        yield _broken(Law.COUNTS, "result_min_queries_met", detail, f"true, by {queries} queries")


def _little(detail: Detail, found: Ranks | None) -> Iterator[Finding]:
    """SingleStream issues a query when the last one is answered: until the last is issued all others have had their
    latency, one after the other. So rate x mean latency is 1 at the most (John Little, 1961), and its other rate, by
    its definition, is one by the mean.
    """
    mean = _whole(detail, "result_mean_latency_ns")
    if detail.values.get("effective_scenario") != "SingleStream" or not mean:
        return
    key = "result_qps_without_loadgen_overhead"
    rate = detail.number(key)
    if rate is not None and not math.isclose(rate, 1e9 / mean, rel_tol=ROUNDED):
        yield _broken(Law.COUNTS, key, detail, f"{1e9 / mean:.6g} (one by result_mean_latency_ns)")
    key = "result_qps_with_loadgen_overhead"
    rate = detail.number(key)
    if rate is None or found is None or found.count < 2:
        return
    longest = found.known[-1][2]
    busy_ns = found.count * mean - longest
    most = rounded(0, (found.count - 1) * 1e9 / busy_ns)[1] if busy_ns > 0 else math.inf
    if rate > most:
        at_once = f"{rate * mean / 1e9:.4g} queries at once, for one at the most"
        yield _broken(Law.LITTLE, key, detail, f"{most:.6g} at the most: x the mean latency it is {at_once}")


def _time(detail: Detail) -> Iterator[Finding]:
    """All of a run lies between LoadGen's entries before its first query and after its last answer: the time by its
    rate, the longest latency, where queries follow each other, all latencies together, and min_duration where it was
    met: that is by the time of the last query, by SingleStream's rate of issue and Server's of its schedule.
    """
    scenario, queries = str(detail.values.get("effective_scenario")), _whole(detail, "result_query_count") or 0
    rate_key = {"SingleStream": "result_qps_with_loadgen_overhead", "Server": "result_scheduled_samples_per_sec"}
    key = rate_key.get(scenario, "")
    rate, least_ms = detail.number(key), _whole(detail, "effective_min_duration_ms")
    spent_ns = {key: (queries - 1) * 1e9 / rate} if rate and queries > 1 else {}
    met = detail.values.get("result_min_duration_met")
    if spent_ns and least_ms is not None and isinstance(met, bool):
        low, high = rounded(spent_ns[key], spent_ns[key])
        if (met and high < least_ms * 1e6) or (not met and low > least_ms * 1e6):
            expected = f"{str(not met).lower()}: {spent_ns[key] / 1e9:.6g} s by {key}, for {least_ms / 1000:g} s"
            yield _broken(Law.TIME, "result_min_duration_met", detail, expected)
    begin, end = detail.at_ms.get("generated_query_duration"), detail.at_ms.get("power_end")
    if begin is None or end is None:
        return
    mean_key = latency_keys(scenario)["min"].replace("_min_", "_mean_")
    spent_ns["result_max_latency_ns"] = _whole(detail, "result_max_latency_ns") or 0
    if scenario in ("SingleStream", "MultiStream"):
        spent_ns[mean_key] = queries * (_whole(detail, mean_key) or 0)
    limit_ns = (end - begin) * 1e6 + _ENTRY_NS
    if met is True and least_ms is not None:
        spent_ns["effective_min_duration_ms"] = least_ms * 1e6
    for key, spent in spent_ns.items():
        if spent * (1 - ROUNDED) > limit_ns:
            expected = f"{spent / 1e9:.6g} s to be no more than the {limit_ns / 1e9:.6g} s that the log is of"
            yield _broken(Law.TIME, key, detail, expected)


def _mean(detail: Detail, key: str, found: Ranks | None) -> Iterator[Finding]:
    """The sum lies between what the percentiles allow at least and at most; LoadGen cuts it to 64 bits (some tens of
    millions of samples in Offline pass that) and then divides, without a rest.
    """
    mean = _whole(detail, key)
    if mean is None or found is None:
        return
    least, most = found.sums()
    turns = max(0, -(-(least - (mean + 1) * found.count + 1) // _WRAPS))
    if mean < 0 or mean * found.count + turns * _WRAPS > most:
        expected = f"{least // found.count} to {most // found.count}, by the percentiles"
        yield _broken(Law.MEAN, key, detail, expected)


def _early(detail: Detail, scenario: str, found: Ranks | None) -> Iterator[Finding]:
    """Its verdict follows from the number of queries, in Server from that of the late ones too."""
    judged = official.PERCENTILES[scenario]
    queries, late = _whole(detail, "result_query_count"), _whole(detail, "result_overlatency_query_count") or 0
    if queries is None or detail.number("effective_target_latency_percentile") != judged:
        return
    served = scenario == "Server"
    right = satisfied(queries, late, judged) if served else queries >= official.QUERIES[scenario]
    met = detail.values.get("early_stopping_met")
    if right is not None and isinstance(met, bool) and met is not right:
        words = f"{str(right).lower()}, by {queries} queries" + (f" of which {late} are late" if served else "")
        yield _broken(Law.EARLY, "early_stopping_met", detail, words)
    if scenario == "SingleStream" and found is not None:
        key, inferred = METRICS["MultiStream"][1], official.PERCENTILES["MultiStream"]
        value, top = _whole(detail, key), left_out(queries, inferred)
        low, high = found.around(queries - top) if top else (0, 0)
        if value is not None and not low <= value <= high:
            yield _broken(Law.EARLY, key, detail, f"{low} to {high}, for {queries} queries")
    words = str(detail.values["early_stopping_result"])
    if not served and right and (told := _ESTIMATE.search(words)):
        estimate = _whole(detail, METRICS[scenario][1])
        top = left_out(queries, judged)
        wanted = (official.QUERIES[scenario], queries, top - 1, round(100 * judged), estimate)
        got = tuple(map(int, told.groups()))
        near = abs(got[2] - wanted[2]) <= 1  # LoadGen's sum may be one off
        if (*got[:2], *got[3:]) != (*wanted[:2], *wanted[3:]) or not near:
            expected = "at least {} queries ({}), {} discarded, percentile {}: {}".format(*wanted)
            yield Finding(Law.EARLY, DETAIL, "early_stopping_result", " ".join(words.split()), expected)


def _late(detail: Detail, found: Ranks) -> Iterator[Finding]:
    """The latency at a rank is over the bound where so many are late as stand from there on, and only there."""
    key = "result_overlatency_query_count"
    late, bound = _whole(detail, key), _whole(detail, "effective_target_latency_ns")
    if late is None or bound is None:
        return
    least = max((found.count - rank for rank, _, value in found.known if value > bound), default=0)
    most = min((found.count - rank - 1 for rank, _, value in found.known if value <= bound), default=found.count)
    if not least <= late <= most:
        yield _broken(Law.LATE, key, detail, f"{least} to {most}, by the percentiles")
