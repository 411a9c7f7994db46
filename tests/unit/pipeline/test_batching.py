"""Batches: nothing lost, nothing twice, nothing out of order, whatever the queries and however many lanes take them."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.pipeline.batching import Batch, BatchingPolicy
from sut.pipeline.deadline import PATIENCE, TURN, Deadline, service_times
from sut.pipeline.lane import Lane
from sut.pipeline.queues import DeadlineQueue, PatientQueue, Queue, SharingQueue, queue_for
from sut.run.timing import calibrate, sizes_to_warm, warm_tail

QUERIES = st.lists(st.integers(1, 40), max_size=30)
MAX_BATCH = st.integers(1, 17)
FIRST_ID = 10_000
"""Response ids are LoadGen's pointers: anything but the sample's number."""


def server(max_batch: int, max_wait_ns: int = 0) -> Queue:
    return queue_for(BatchingPolicy(inline=False, max_batch=max_batch, max_wait_ns=max_wait_ns))


def put(queue: Queue, count: int, start: int) -> None:
    """A query of ``count`` samples: sample s has the id 10000 + s and asks for data set entry 7 s."""
    numbers = range(start, start + count)
    queue.put([FIRST_ID + number for number in numbers], [7 * number for number in numbers], start)


def samples_of(batch: Batch) -> list[int]:
    """A batch's sample numbers, after checking that its three descriptions tell the same."""
    numbers = [number for first, count in batch.starts for number in range(first, first + count)]
    assert list(batch.ids) == [FIRST_ID + number for number in numbers]
    assert list(batch.indices) == [7 * number for number in numbers]
    assert len(batch) == len(numbers)
    return numbers


BOUND = 123
KEPT = 120
"""What is left of the bound without the margin."""
SERVICE = {1: 30, 2: 40, 3: 50, 4: 60}


@dataclass
class Clock:
    """A clock that stands until it is set."""

    now: int = 0

    def __call__(self) -> int:
        return self.now


def in_time(clock: Clock, max_batch: int = 4, max_wait_ns: int = 0) -> Queue:
    """A queue that knows that a batch of n takes 20 + 10 n and must end 120 after its oldest sample came."""
    policy = BatchingPolicy(inline=False, max_batch=max_batch, max_wait_ns=max_wait_ns, batching="deadline")
    return queue_for(policy, policy.deadline(SERVICE, BOUND), clock)


def taken(queue: Queue) -> list[list[int]]:
    """Everything that waits, batch by batch."""
    batches = []
    while (batch := queue.take(timeout_s=0)) is not None:
        batches.append(samples_of(batch))
    return batches


@given(sizes=QUERIES, max_batch=MAX_BATCH)
def test_queries_of_any_size_come_out_complete_in_order_and_as_full_as_can_be(sizes: list[int], max_batch: int) -> None:
    queue = server(max_batch)
    for number, size in enumerate(sizes):
        put(queue, size, sum(sizes[:number]))

    batches = taken(queue)

    assert [number for batch in batches for number in batch] == list(range(sum(sizes)))
    assert [len(batch) for batch in batches[:-1]] == [max_batch] * (len(batches) - 1)
    assert all(0 < len(batch) <= max_batch for batch in batches[-1:])


@given(steps=st.lists(st.one_of(st.integers(1, 40), st.none()), max_size=40), max_batch=MAX_BATCH)
def test_puts_and_takes_in_any_turn_keep_the_order(steps: list[int | None], max_batch: int) -> None:
    queue = server(max_batch)
    issued = 0
    out: list[int] = []
    for step in steps:
        if step is not None:
            put(queue, step, issued)
            issued += step
        elif (batch := queue.take(timeout_s=0)) is not None:
            out += samples_of(batch)

    for rest in taken(queue):
        out += rest

    assert out == list(range(issued))


@given(sizes=QUERIES, max_batch=MAX_BATCH)
def test_the_runs_of_a_batch_are_joined_where_they_touch(sizes: list[int], max_batch: int) -> None:
    queue = server(max_batch)
    for number, size in enumerate(sizes):
        put(queue, size, sum(sizes[:number]))

    while (batch := queue.take(timeout_s=0)) is not None:
        assert len(batch.starts) == 1


@pytest.mark.parametrize("batching", ["fifo", "deadline"])
@pytest.mark.parametrize("max_wait_ns", [0, 2_000_000])
@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_lanes_share_the_samples_each_once(lanes: int, max_wait_ns: int, batching: Any) -> None:
    policy = BatchingPolicy(inline=False, max_batch=8, max_wait_ns=max_wait_ns, batching=batching)
    # Half a millisecond a batch, and a bound that much of what comes here in bursts cannot meet.
    queue = queue_for(policy, policy.deadline({1: 200_000, 8: 500_000}, 1_000_000))
    per_lane: list[list[list[int]]] = [[] for _ in range(lanes)]

    def serve(mine: list[list[int]]) -> None:
        while not queue.finished:
            if (batch := queue.take(0.2)) is not None:
                mine.append(samples_of(batch))

    threads = [threading.Thread(target=serve, args=(mine,)) for mine in per_lane]
    for thread in threads:
        thread.start()
    chance = random.Random(7)
    issued = 0
    for _ in range(400):
        size = chance.choice([1, 1, 1, 3, 8, 30])
        put(queue, size, issued)
        issued += size
        if chance.random() < 0.1:
            time.sleep(0.001)
    queue.close()
    for thread in threads:
        thread.join(10)

    assert sorted(number for mine in per_lane for batch in mine for number in batch) == list(range(issued))
    assert all(len(batch) <= 8 for mine in per_lane for batch in mine)
    if batching == "fifo":
        for mine in per_lane:
            firsts = [batch[0] for batch in mine]
            assert firsts == sorted(firsts)
            assert all(batch == sorted(batch) for batch in mine)


def test_take_returns_after_its_timeout() -> None:
    begin = time.monotonic()

    assert server(8).take(0.05) is None

    assert 0.04 < time.monotonic() - begin < 2


def test_a_full_batch_does_not_wait() -> None:
    queue = server(2, max_wait_ns=60_000_000_000)
    put(queue, 2, 0)

    assert taken(queue) == [[0, 1]]


def test_a_short_batch_waits_for_more_until_the_first_ones_time_is_up() -> None:
    queue = server(8, max_wait_ns=500_000_000)
    begin = time.monotonic()
    put(queue, 1, 0)
    late = threading.Timer(0.01, put, (queue, 1, 1))
    late.start()

    batch = queue.take(5)

    assert batch is not None
    assert samples_of(batch) == [0, 1]
    assert 0.495 < time.monotonic() - begin < 5


def test_closing_ends_the_wait_for_more() -> None:
    queue = server(8, max_wait_ns=60_000_000_000)
    put(queue, 1, 0)
    threading.Timer(0.02, queue.close).start()
    begin = time.monotonic()

    assert taken(queue) == [[0]]
    assert time.monotonic() - begin < 30
    assert queue.finished


def test_a_closed_queue_hands_out_what_is_left() -> None:
    queue = server(2)
    put(queue, 5, 0)
    queue.close()

    assert not queue.finished
    assert taken(queue) == [[0, 1], [2, 3], [4]]
    assert queue.finished


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
    ("scenario", "lanes", "inline", "max_wait_ns", "shared_by", "batching"),
    [
        ("SingleStream", 1, True, 0, 1, "fifo"),
        ("SingleStream", 3, True, 0, 1, "fifo"),
        ("MultiStream", 1, True, 0, 1, "fifo"),
        ("MultiStream", 3, False, 0, 3, "fifo"),
        ("Server", 3, False, 5, 1, "deadline"),
        ("Offline", 3, False, 0, 3, "fifo"),
    ],
)
def test_a_scenario_decides_who_works_who_waits_and_who_shares(
    scenario: str, lanes: int, inline: bool, max_wait_ns: int, shared_by: int, batching: str
) -> None:
    policy = BatchingPolicy.of(scenario, 8, 5, None, lanes)

    assert (policy.inline, policy.max_wait_ns) == (inline, max_wait_ns)
    assert (policy.shared_by, policy.batching) == (shared_by, batching)


def test_server_can_be_told_to_stay_first_in_first_out() -> None:
    assert BatchingPolicy.of("Server", 8, 0, None, batching="fifo").batching == "fifo"


@pytest.mark.parametrize(
    ("scenario", "max_wait_ns", "batch_ns", "expected"),
    [
        ("Offline", 5, SERVICE, SharingQueue),
        ("MultiStream", 0, SERVICE, SharingQueue),
        ("Server", 0, {}, Queue),
        ("Server", 5, {}, PatientQueue),
        ("Server", 0, SERVICE, DeadlineQueue),
        ("Server", 5, SERVICE, DeadlineQueue),
    ],
)
def test_each_policy_has_a_queue_of_its_own(
    scenario: str, max_wait_ns: int, batch_ns: dict[int, int], expected: type[Queue]
) -> None:
    policy = BatchingPolicy.of(scenario, 4, max_wait_ns, None, lanes=2)

    assert type(queue_for(policy, policy.deadline(batch_ns, BOUND))) is expected


def lengths(policy: BatchingPolicy, count: int) -> list[int]:
    return [len(batch) for batch in policy.cut(range(count), range(count), 0)]


@pytest.mark.parametrize(
    ("count", "lanes", "sizes", "expected"),
    [
        (100, 2, None, [8] * 11 + [6, 6]),
        (16, 2, None, [8, 8]),
        (17, 2, None, [8, 5, 4]),
        (8, 4, None, [2, 2, 2, 2]),
        (3, 4, None, [1, 1, 1]),
        (9, 1, None, [8, 1]),
        (12, 2, (1, 4, 8), [8, 4]),
        (8, 2, (1, 4, 8), [4, 4]),
        (8, 2, (8,), [8]),
    ],
)
def test_what_is_left_of_a_query_is_shared_evenly(
    count: int, lanes: int, sizes: tuple[int, ...] | None, expected: list[int]
) -> None:
    assert lengths(BatchingPolicy.of("Offline", 8, 0, sizes, lanes), count) == expected


FIXED = st.none() | st.lists(st.integers(1, 20), min_size=1, max_size=4, unique=True).map(lambda s: tuple(sorted(s)))


@given(count=st.integers(1, 300), max_batch=MAX_BATCH, lanes=st.integers(1, 6), sizes=FIXED)
def test_the_last_batches_keep_every_lane_at_work(
    count: int, max_batch: int, lanes: int, sizes: tuple[int, ...] | None
) -> None:
    policy = BatchingPolicy.of("Offline", max_batch, 0, sizes, lanes)
    most = policy.max_batch

    found = lengths(policy, count)
    full = max(0, -(-count // most) - lanes)
    last = found[full:]

    assert sum(found) == count
    assert found[:full] == [most] * full
    assert 0 < len(last) <= lanes
    assert max(found) <= most
    if sizes is None:
        assert max(last) - min(last) <= 1
        assert len(last) == min(lanes, sum(last))
    assert policy.query_sizes(count) == set(found)


@given(counts=QUERIES, max_batch=MAX_BATCH, lanes=st.integers(2, 6), sizes=FIXED)
def test_lanes_get_the_shares_that_a_query_is_cut_into(
    counts: list[int], max_batch: int, lanes: int, sizes: tuple[int, ...] | None
) -> None:
    policy = BatchingPolicy.of("MultiStream", max_batch, 0, sizes, lanes)
    queue = queue_for(policy)
    for number, count in enumerate(counts):
        put(queue, count, sum(counts[:number]))

    batches = taken(queue)

    assert [len(batch) for batch in batches] == [size for count in counts for size in lengths(policy, count)]
    assert [number for batch in batches for number in batch] == list(range(sum(counts)))


def taken_by_two(queue: Queue, samples: int) -> list[int]:
    """Sizes of what two lanes get of one query, each of which is there only once and waits before it comes."""
    with ThreadPoolExecutor(2) as pool:
        lanes = [pool.submit(queue.take, 5) for _ in range(2)]
        while queue._idle < 2:
            time.sleep(0.001)
        put(queue, samples, 0)
        return sorted(len(batch) for lane in lanes if (batch := lane.result()) is not None)


def test_all_lanes_are_woken_for_a_query_that_they_share() -> None:
    assert taken_by_two(queue_for(BatchingPolicy.of("MultiStream", 8, 0, None, lanes=2)), 8) == [4, 4]


def test_another_lane_is_woken_for_what_a_batch_leaves() -> None:
    queue = in_time(Clock())
    times = itertools.chain([0], itertools.repeat(KEPT - SERVICE[2]))
    queue.clock = lambda: next(times)

    assert taken_by_two(queue, 4) == [2, 2]


@dataclass
class Worker:
    """Stands for a lane; keeps how many samples it worked on at a time."""

    sizes: list[int] = field(default_factory=list)

    def rehearse(self, indices: Sequence[int]) -> None:
        self.sizes.append(len(indices))


@given(count=st.integers(1, 300), max_batch=MAX_BATCH, lanes=st.integers(1, 4), sizes=FIXED)
def test_every_size_that_lanes_share_a_query_in_is_warmed(
    count: int, max_batch: int, lanes: int, sizes: tuple[int, ...] | None
) -> None:
    offline = BatchingPolicy.of("Offline", max_batch, 0, sizes, lanes)
    workers = [Worker() for _ in range(lanes)]
    warm_tail(cast("list[Lane]", workers), offline, [0], count)
    warm = {*sizes_to_warm("Offline", offline, 1), *workers[0].sizes}
    for near in range(max(1, count - 1), count + 2):
        assert {offline.padded(size) for size in lengths(offline, near)} <= warm
    assert all(worker.sizes == workers[0].sizes for worker in workers)

    multi = BatchingPolicy.of("MultiStream", max_batch, 0, sizes, lanes)
    assert {multi.padded(size) for size in lengths(multi, count)} == set(sizes_to_warm("MultiStream", multi, count))


@dataclass
class Asked:
    """Stands for a system of some lanes."""

    lanes: list[Any]
    policy: BatchingPolicy
    staged: bool = False

    def ask(self, indices: Sequence[int]) -> None:
        self.lanes[0].rehearse(indices)

    def rehearse(self, indices: Sequence[int]) -> None:
        """It has no workers but its lanes."""


def test_server_is_calibrated_with_all_lanes_at_every_size() -> None:
    workers = [Worker(), Worker()]
    system = Asked(workers, BatchingPolicy.of("Server", 8, 0, (1, 2, 4, 8), lanes=2))

    found = calibrate("Server", system, [0, 1], 1, 0.01, lambda: None)

    assert sorted(found.batch_ns) == [1, 2, 4, 8]
    assert all(took > 0 for took in found.batch_ns.values())
    assert found.slowest_batch_ns >= max(found.batch_ns.values())
    assert {1, 2, 4, 8} <= set(workers[1].sizes)
    assert len(workers[1].sizes) > 4  # more than the warm-up


@pytest.mark.parametrize(("waited", "size"), [(0, 4), (60, 4), (61, 3), (70, 3), (71, 2), (80, 2), (81, 1), (90, 1)])
def test_a_batch_is_as_large_as_the_oldest_can_bear(waited: int, size: int) -> None:
    clock = Clock()
    queue = in_time(clock)
    put(queue, 1, 0)
    clock.now = waited
    put(queue, 4, 1)

    batch = queue.take(0)

    assert batch is not None
    assert samples_of(batch) == list(range(size))


def test_the_hopeless_let_others_go_first_and_are_answered_when_nobody_waits() -> None:
    clock = Clock()
    queue = in_time(clock)
    put(queue, 2, 0)
    clock.now = 60
    put(queue, 2, 2)
    clock.now = KEPT - SERVICE[1] + 1

    assert taken(queue) == [[2, 3], [0, 1]]


def test_the_hopeless_are_answered_so_many_at_a_time_that_a_newcomer_still_makes_it() -> None:
    clock = Clock()
    policy = BatchingPolicy(inline=False, max_batch=8, batching="deadline")
    queue = queue_for(policy, Deadline.of(98, service_times({1: 30, 8: 100}, range(1, 9))), clock)
    put(queue, 8, 0)
    clock.now = 1000

    # 98 are left of the bound: a newcomer needs 30, so what runs then may take 68, which is 4 samples.
    assert taken(queue) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_query_that_turned_hopeless_with_a_part_of_it_taken_loses_nothing() -> None:
    clock = Clock()
    queue = in_time(clock)
    put(queue, 6, 0)
    first = queue.take(0)
    clock.now = 200
    put(queue, 1, 6)

    assert first is not None
    assert samples_of(first) == [0, 1, 2, 3]
    assert taken(queue) == [[6], [4, 5]]


def test_a_hopeless_query_is_not_left_waiting_for_ever() -> None:
    clock = Clock()
    queue = in_time(clock)
    put(queue, 3, 0)
    clock.now = KEPT
    answered: dict[int, int] = {}
    for number in itertools.count(3):
        put(queue, 1, number)
        clock.now += 10
        batch = queue.take(0)
        assert batch is not None
        for sample in samples_of(batch):
            answered[sample] = clock.now
        if len(answered) > number or clock.now > 100 * BOUND:
            break

    # A batch every 10, somebody else waits at all times, and yet now and then one goes along.
    first, second, third = (answered[sample] for sample in (0, 1, 2))
    assert first == PATIENCE * KEPT + 10
    assert (second - first, third - second) == (10 * TURN, 10 * TURN)


@given(
    steps=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=60),
    max_batch=st.integers(1, 6),
)
def test_by_deadline_nothing_is_lost_and_the_oldest_that_can_be_in_time_is(
    steps: list[tuple[int, int]], max_batch: int
) -> None:
    """Each step: time passes; a query of so many samples comes, or, for none, a batch is taken."""
    clock = Clock()
    queue = in_time(clock, max_batch)
    table = service_times(SERVICE, range(1, max_batch + 1))
    arrived: list[int] = []
    waiting: set[int] = set()
    for passed, count in steps:
        clock.now += passed
        if count:
            waiting |= set(range(len(arrived), len(arrived) + count))
            put(queue, count, len(arrived))
            arrived += [clock.now] * count
            continue
        batch = queue.take(0)
        assert (batch is None) == (not waiting)
        if batch is None:
            continue
        numbers = samples_of(batch)
        assert set(numbers) <= waiting
        assert len(numbers) <= max_batch
        hopeful = [number for number in sorted(waiting) if clock.now + table[0] - arrived[number] <= KEPT]
        starved = [number for number in waiting if clock.now - arrived[number] > PATIENCE * KEPT]
        if hopeful and not starved:
            assert numbers[0] == hopeful[0]
            assert clock.now + table[len(numbers) - 1] - arrived[hopeful[0]] <= KEPT
            assert set(numbers) <= set(hopeful)
        waiting -= set(numbers)

    rest = [number for batch in taken(queue) for number in batch]

    assert sorted(rest) == sorted(waiting)


@pytest.mark.parametrize(
    ("batching", "batch_ns", "bound"),
    [
        ("fifo", SERVICE, BOUND),
        ("deadline", {}, BOUND),
        ("deadline", SERVICE, SERVICE[4] * 51),  # a batch takes next to no time
        ("deadline", SERVICE, SERVICE[1]),  # nobody can ever be in time
    ],
)
def test_where_nothing_is_to_be_won_it_stays_first_in_first_out(
    batching: Any, batch_ns: dict[int, int], bound: int
) -> None:
    clock = Clock()
    policy = BatchingPolicy(inline=False, max_batch=4, batching=batching)
    queue = queue_for(policy, policy.deadline(batch_ns, bound), clock)
    put(queue, 3, 0)
    clock.now = bound
    put(queue, 3, 3)

    assert taken(queue) == [[0, 1, 2, 3], [4, 5]]


def test_waiting_for_a_full_batch_ends_in_time_for_it() -> None:
    clock = Clock()
    queue = in_time(clock, max_wait_ns=10**12)
    put(queue, 1, 0)
    clock.now = KEPT - SERVICE[4]

    assert taken(queue) == [[0]]


def test_service_times_of_sizes_between_lie_on_a_line_and_never_fall() -> None:
    padded = [1, 2, 4, 4, 8, 8, 8, 8]

    assert service_times({1: 10, 4: 40, 8: 30}, padded) == [10, 20, 40, 40, 30, 30, 30, 30]
    assert Deadline.of(100, service_times({1: 10, 4: 40, 8: 30}, padded)).service_ns == (10, 20, 40, 40, 40, 40, 40, 40)
