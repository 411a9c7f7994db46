"""Batches: nothing lost, nothing twice, nothing out of order, whatever the queries and however many lanes take them."""

from __future__ import annotations

import random
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.batching import Batch, Batcher, BatchingPolicy

QUERIES = st.lists(st.integers(1, 40), max_size=30)
MAX_BATCH = st.integers(1, 17)
FIRST_ID = 10_000
"""Response ids are LoadGen's pointers: anything but the sample's number."""


def server(max_batch: int, max_wait_ns: int = 0) -> Batcher:
    return Batcher(BatchingPolicy(inline=False, max_batch=max_batch, max_wait_ns=max_wait_ns))


def put(batcher: Batcher, count: int, start: int) -> None:
    """A query of ``count`` samples: sample s has the id 10000 + s and asks for data set entry 7 s."""
    numbers = range(start, start + count)
    batcher.put([FIRST_ID + number for number in numbers], [7 * number for number in numbers], start)


def samples_of(batch: Batch) -> list[int]:
    """A batch's sample numbers, after checking that its three descriptions tell the same."""
    numbers = [number for first, count in batch.starts for number in range(first, first + count)]
    assert list(batch.ids) == [FIRST_ID + number for number in numbers]
    assert list(batch.indices) == [7 * number for number in numbers]
    assert len(batch) == len(numbers)
    return numbers


def taken(batcher: Batcher) -> list[list[int]]:
    """Everything that waits, batch by batch."""
    batches = []
    while (batch := batcher.take(timeout_s=0)) is not None:
        batches.append(samples_of(batch))
    return batches


@given(sizes=QUERIES, max_batch=MAX_BATCH)
def test_queries_of_any_size_come_out_complete_in_order_and_as_full_as_can_be(sizes: list[int], max_batch: int) -> None:
    batcher = server(max_batch)
    for number, size in enumerate(sizes):
        put(batcher, size, sum(sizes[:number]))

    batches = taken(batcher)

    assert [number for batch in batches for number in batch] == list(range(sum(sizes)))
    assert [len(batch) for batch in batches[:-1]] == [max_batch] * (len(batches) - 1)
    assert all(0 < len(batch) <= max_batch for batch in batches[-1:])


@given(steps=st.lists(st.one_of(st.integers(1, 40), st.none()), max_size=40), max_batch=MAX_BATCH)
def test_puts_and_takes_in_any_turn_keep_the_order(steps: list[int | None], max_batch: int) -> None:
    batcher = server(max_batch)
    issued = 0
    out: list[int] = []
    for step in steps:
        if step is not None:
            put(batcher, step, issued)
            issued += step
        elif (batch := batcher.take(timeout_s=0)) is not None:
            out += samples_of(batch)

    for rest in taken(batcher):
        out += rest

    assert out == list(range(issued))


@given(sizes=QUERIES, max_batch=MAX_BATCH)
def test_the_runs_of_a_batch_are_joined_where_they_touch(sizes: list[int], max_batch: int) -> None:
    batcher = server(max_batch)
    for number, size in enumerate(sizes):
        put(batcher, size, sum(sizes[:number]))

    while (batch := batcher.take(timeout_s=0)) is not None:
        assert len(batch.starts) == 1


@pytest.mark.parametrize("max_wait_ns", [0, 2_000_000])
@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_lanes_share_the_samples_each_once(lanes: int, max_wait_ns: int) -> None:
    batcher = server(8, max_wait_ns)
    per_lane: list[list[list[int]]] = [[] for _ in range(lanes)]

    def serve(mine: list[list[int]]) -> None:
        while not batcher.finished:
            if (batch := batcher.take(0.2)) is not None:
                mine.append(samples_of(batch))

    threads = [threading.Thread(target=serve, args=(mine,)) for mine in per_lane]
    for thread in threads:
        thread.start()
    chance = random.Random(7)
    issued = 0
    for _ in range(400):
        size = chance.choice([1, 1, 1, 3, 8, 30])
        put(batcher, size, issued)
        issued += size
        if chance.random() < 0.1:
            time.sleep(0.001)
    batcher.close()
    for thread in threads:
        thread.join(10)

    assert sorted(number for mine in per_lane for batch in mine for number in batch) == list(range(issued))
    for mine in per_lane:
        firsts = [batch[0] for batch in mine]
        assert firsts == sorted(firsts)
        assert all(batch == sorted(batch) and len(batch) <= 8 for batch in mine)


def test_take_returns_after_its_timeout() -> None:
    begin = time.monotonic()

    assert server(8).take(0.05) is None

    assert 0.04 < time.monotonic() - begin < 2


def test_a_full_batch_does_not_wait() -> None:
    batcher = server(2, max_wait_ns=60_000_000_000)
    put(batcher, 2, 0)

    assert taken(batcher) == [[0, 1]]


def test_a_short_batch_waits_for_more_until_the_first_ones_time_is_up() -> None:
    batcher = server(8, max_wait_ns=50_000_000)
    begin = time.monotonic()
    put(batcher, 1, 0)
    late = threading.Timer(0.01, put, (batcher, 1, 1))
    late.start()

    batch = batcher.take(1)

    assert batch is not None
    assert samples_of(batch) == [0, 1]
    assert 0.045 < time.monotonic() - begin < 2


def test_closing_ends_the_wait_for_more() -> None:
    batcher = server(8, max_wait_ns=60_000_000_000)
    put(batcher, 1, 0)
    threading.Timer(0.02, batcher.close).start()
    begin = time.monotonic()

    assert taken(batcher) == [[0]]
    assert time.monotonic() - begin < 30
    assert batcher.finished


def test_a_closed_batcher_hands_out_what_is_left() -> None:
    batcher = server(2)
    put(batcher, 5, 0)
    batcher.close()

    assert not batcher.finished
    assert taken(batcher) == [[0, 1], [2, 3], [4]]
    assert batcher.finished


@given(count=st.integers(1, 60), max_batch=MAX_BATCH, start=st.integers(0, 1000))
def test_cut_makes_full_batches_and_a_rest(count: int, max_batch: int, start: int) -> None:
    policy = BatchingPolicy(inline=True, max_batch=max_batch)
    numbers = range(start, start + count)

    batches = policy.cut([FIRST_ID + number for number in numbers], [7 * number for number in numbers], start)

    assert [number for batch in batches for number in samples_of(batch)] == list(numbers)
    assert [len(batch) for batch in batches[:-1]] == [max_batch] * (len(batches) - 1)
    assert 0 < len(batches[-1]) <= max_batch


@given(
    sizes=st.lists(st.integers(1, 64), min_size=1, max_size=6, unique=True).map(sorted),
    asked=st.integers(1, 100),
    scenario=st.sampled_from(("SingleStream", "MultiStream", "Server", "Offline")),
)
def test_every_batch_is_padded_to_the_next_size_the_backend_takes(sizes: list[int], asked: int, scenario: str) -> None:
    policy = BatchingPolicy.of(scenario, asked, 0, tuple(sizes))

    assert policy.max_batch == min(asked, sizes[-1])
    for n in range(1, policy.max_batch + 1):
        assert policy.padded(n) == min(size for size in sizes if size >= n)


def test_without_fixed_sizes_nothing_is_padded() -> None:
    policy = BatchingPolicy.of("Offline", 100, 0, None)

    assert [policy.padded(n) for n in (1, 7, 100)] == [1, 7, 100]


@pytest.mark.parametrize(
    ("scenario", "inline", "max_wait_ns"),
    [("SingleStream", True, 0), ("MultiStream", True, 0), ("Server", False, 5), ("Offline", False, 0)],
)
def test_a_scenario_decides_who_works_and_who_waits(scenario: str, inline: bool, max_wait_ns: int) -> None:
    policy = BatchingPolicy.of(scenario, 8, 5, None)

    assert (policy.inline, policy.max_wait_ns) == (inline, max_wait_ns)
