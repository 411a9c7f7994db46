"""What LoadGen generates before its first query: how many queries, in how much memory, for how long.

It does so inside StartTest, without a callback, and keeps all of it until the end of the run.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from sut.mlperf.loadgen import Settings
from sut.pipeline.ledger import MAX_RECORDED_SAMPLES

# Seen with LoadGen 6.0.17 on two busy cores of an Intel Xeon, by peak and resident memory at the first query of 1 to
# 16 million samples in each scenario: SingleStream and Server 316 bytes a query, MultiStream 649 with its eight
# samples; just beyond a power of two 555 and 887 at the peak, because the vector that holds the queries is copied into
# one of twice the size. Offline with the Python lists of its one query: 152 bytes a sample, 148 in a whole run.
_QUERY_BYTES = 280
_GROWING_BYTES = 510
_SAMPLE_BYTES = 48
_OFFLINE_BYTES = 155
_ANSWERED_BYTES = 24
"""LoadGen's copies of a sample's latency, at the end."""
_RECORDED_BYTES = 100
"""A sample of the ledger, if each is a batch of its own."""

# 0.8 to 1.6 us a query were seen there, 1.1 to 2.1 with eight samples, 0.1 us a sample of Offline's one query.
_QUERY_S = 1.4e-6
_SAMPLE_S = 0.1e-6

COMFORTABLE = 2_000_000
"""Queries that are generated in a few seconds, in well under a gigabyte (MultiStream: 1.5)."""
_MARGIN = 6.0
_LEAST_MARGIN = 1.5
LOADGEN_QUERY_NS = 16_000
"""What LoadGen and Python need per query besides the work, at the least: 16 to 25 us were seen on two cores."""


@dataclass(frozen=True, slots=True)
class Generated:
    """So many queries of so many samples each; ``offline``: the one query goes through Python as a whole."""

    queries: int
    per_query: int
    offline: bool = False

    @property
    def samples(self) -> int:
        """Samples of all queries."""
        return self.queries * self.per_query

    @property
    def seconds(self) -> float:
        """How long it takes to generate them, about; several times that on a busy machine."""
        return _QUERY_S * self.queries + _SAMPLE_S * self.samples

    @property
    def nbytes(self) -> int:
        """The most memory that they take, and their answers with them."""
        recorded = _RECORDED_BYTES * min(self.samples, MAX_RECORDED_SAMPLES)
        if self.offline:
            return _OFFLINE_BYTES * self.samples + recorded
        kept = self.queries * (_QUERY_BYTES + _SAMPLE_BYTES * self.per_query)
        copied = 1 << max(0, (self.queries - 1).bit_length() - 1)
        growing = copied * (_GROWING_BYTES + _SAMPLE_BYTES * self.per_query)
        return max(growing, kept + _ANSWERED_BYTES * self.samples + recorded)


def generated(settings: Settings, scenario: str, seconds: float, loaded: int) -> Generated:
    """What LoadGen 6.0 generates for a performance run of that min_duration, with ``loaded`` samples to draw from."""
    per_query = int(settings.multi_stream_samples_per_query) if scenario == "MultiStream" else 1
    least = int(settings.min_query_count)
    unique = bool(settings.performance_issue_unique)
    if scenario == "Offline":
        at_a_time = int(settings.performance_sample_count_override) or loaded
        if unique:  # of fewer samples than fit it makes no query at all, and crashes
            return Generated(loaded // at_a_time, at_a_time, offline=True)
        return Generated(1, max(least, int(1.1 * seconds * float(settings.offline_expected_qps))), offline=True)
    if unique:
        return Generated(math.ceil(loaded / per_query), per_query)
    if scenario == "Server":
        return Generated(max(least, math.ceil(seconds * settings.server_target_qps)), per_query)
    single = settings.single_stream_expected_latency_ns
    expected = settings.multi_stream_expected_latency_ns if scenario == "MultiStream" else single
    return Generated(max(least, math.ceil(2 * seconds * 1e9 / expected) + (seconds > 0)), per_query)


def expected_latency_ns(query_ns: int, seconds: float, comfortable: int = COMFORTABLE) -> float:
    """What to tell LoadGen that a query takes, so that it does not run out of queries.

    LoadGen generates 2 x duration / latency queries and ends INVALID where the system is so much faster that these are
    used up. There are six times as many as will be needed, or fewer where that is more than ``comfortable``, but never
    less than one and a half times as many.

    >>> expected_latency_ns(2_984_000, 600)
    1000000.0
    """
    one_ns = query_ns + LOADGEN_QUERY_NS
    needed = max(1.0, seconds * 1e9 / one_ns)
    margin = min(_MARGIN, max(_LEAST_MARGIN, comfortable / needed))
    return 2 * one_ns / margin


def longest_s(settings: Settings, scenario: str, seconds: float, loaded: int, limit_bytes: float) -> int:
    """The most whole seconds of min_duration, up to ``seconds``, whose queries fit; 0 where not even one's do."""
    lengths = range(1, math.ceil(seconds))
    return bisect_right(lengths, limit_bytes, key=lambda length: generated(settings, scenario, length, loaded).nbytes)
