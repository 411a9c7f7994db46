"""What LoadGen generates beforehand: as much as LoadGen itself says, and no more than the margins allow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sut.run.generation import COMFORTABLE, LOADGEN_QUERY_NS, Generated, expected_latency_ns


@given(query_ns=st.integers(0, 10**12), seconds=st.floats(0.01, 10_000), comfortable=st.integers(1, COMFORTABLE))
def test_there_are_one_and_a_half_to_six_times_the_queries_that_will_be_needed(
    query_ns: int, seconds: float, comfortable: int
) -> None:
    generated = 2 * seconds * 1e9 / expected_latency_ns(query_ns, seconds, comfortable)

    needed = seconds * 1e9 / (query_ns + LOADGEN_QUERY_NS)
    assert 1.499 * needed <= generated <= 6.001 * needed
    assert generated <= max(1.001 * comfortable, 1.501 * needed, 6.001)


def test_few_queries_keep_the_whole_margin_and_many_the_least() -> None:
    slow_ns, fast_ns = 10_000_000, 0

    assert 2 * 600e9 / expected_latency_ns(slow_ns, 600) * (slow_ns + LOADGEN_QUERY_NS) / 600e9 > 5.99
    assert 2 * 600e9 / expected_latency_ns(fast_ns, 600) * LOADGEN_QUERY_NS / 600e9 < 1.51


def test_beyond_a_power_of_two_the_queries_are_in_memory_twice() -> None:
    below, beyond = Generated(2**24, 1), Generated(2**24 + 1, 1)

    assert beyond.nbytes > 1.3 * below.nbytes
    assert beyond.seconds < 1.001 * below.seconds


def test_more_samples_need_more_memory_and_time() -> None:
    for one, more in (
        (Generated(1000, 1), Generated(1000, 8)),
        (Generated(1000, 8), Generated(2000, 8)),
        (Generated(1, 1000, offline=True), Generated(1, 2000, offline=True)),
    ):
        assert one.nbytes < more.nbytes
        assert one.seconds < more.seconds
