"""The ledger: what it records, that its join with LoadGen's trace closes, and that a wrong join is no join."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sut.mlperf.logs import Trace
from sut.mlperf.metrics import percentile_stats
from sut.pipeline.ledger import MAX_RECORDED_SAMPLES, PIPELINE_STAGES, Counter, Ledger, LedgerShape
from sut.results.stages import (
    PAUSE_NS,
    LedgerError,
    answered,
    batch_sizes,
    join,
    latency_bounds,
    own_latency_ns,
)

BEGIN_NS = 1_763_000_000_000_000_000
"""A time of the system clock: what does not fit into a double must not pass through one."""


@dataclass(frozen=True)
class Run:
    """A run as it would be recorded: batches of consecutive samples, with the times of each."""

    ledger: Ledger
    trace: Trace
    sizes: list[int]
    issue_delay_ns: list[int]
    handed_ns: list[int]


@st.composite
def runs(draw: st.DrawFn, stages: tuple[str, ...] = PIPELINE_STAGES, min_batches: int = 1) -> Run:
    """Batches of any size, whose stages take any time, with any gap between them, and any delay of the issue."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=min_batches, max_size=8))
    times = st.integers(0, 5_000_000)
    ledger = Ledger(LedgerShape.of(sum(sizes), stages=stages))
    index, delays, latencies, handed_ns = [], [], [], []
    start, now = 0, BEGIN_NS
    for number, size in enumerate(sizes):
        now += draw(times)
        issued, delay = now, draw(times)
        indices = draw(st.lists(st.integers(0, 10), min_size=size, max_size=size))
        ledger.issue(start, indices, issued)
        stamps = []
        for _ in range(2 * len(stages)):
            now += draw(times)
            stamps.append(now)
        ledger.batch(number, [(start, size)], 0, stamps, 0)
        start += size
        ledger.words[Counter.ISSUED] = start
        ledger.words[Counter.BATCHES] = number + 1
        index += indices
        delays += [delay] * size
        latencies += [now - issued + delay + draw(times)] * size
        handed_ns.append(now)
    trace = Trace(np.array(index), np.array(delays), np.array(latencies))
    return Run(ledger, trace, sizes, delays, handed_ns)


@given(runs())
def test_the_stages_of_every_sample_add_up_to_its_latency(run: Run) -> None:
    stages = join(run.ledger, run.trace)

    total = sum(stages.per_sample.values())
    assert np.array_equal(total, run.trace.latency_ns)
    assert np.array_equal(stages.latency_ns, run.trace.latency_ns)
    assert list(stages.per_sample) == ["issue_delay", "queue", *PIPELINE_STAGES, "residual"]


@given(runs())
def test_without_a_trace_latency_ends_with_the_handing_over(run: Run) -> None:
    stages = join(run.ledger, None)

    expected = np.repeat(run.handed_ns, run.sizes) - run.ledger.issued_ns
    assert np.array_equal(stages.latency_ns, expected)
    assert np.array_equal(own_latency_ns(run.ledger), expected)
    assert list(stages.per_sample) == ["queue", *PIPELINE_STAGES]


@given(runs())
def test_cost_is_the_busy_time_shared_by_the_batch(run: Run) -> None:
    stages = join(run.ledger, run.trace)

    for name, cost in stages.cost_ns.items():
        firsts = np.cumsum([0, *run.sizes[:-1]])
        assert cost == pytest.approx(stages.per_sample[name][firsts].sum() / sum(run.sizes))
    assert set(stages.cost_ns) == set(PIPELINE_STAGES)
    assert stages.batch_sizes == {size: run.sizes.count(size) for size in run.sizes}


def test_what_a_worker_does_at_once_is_shared_by_the_samples_that_it_is_done_for() -> None:
    ledger = Ledger(LedgerShape.of(5, stages=("gather", "infer"), before=("decode", "resize")))
    ledger.issue(0, [0, 1, 2, 3, 4], BEGIN_NS)
    # The first two by worker 0, the next two at that very time by worker 1, the last alone.
    for number, (at, worker) in enumerate([(0, 0), (0, 0), (0, 1), (0, 1), (9_000, 0)]):
        took = 6_000 if number < 4 else 1_000
        ledger.prepared(number, [BEGIN_NS + at, BEGIN_NS + at + took, BEGIN_NS + at + took + 500], worker)
        ledger.batch(number, [(number, 1)], 0, [BEGIN_NS + 20_000] * 4, 0)
    ledger.words[Counter.ISSUED] = ledger.words[Counter.BATCHES] = 5

    stages = join(ledger, None)

    assert stages.per_sample["decode"].tolist() == [6_000] * 4 + [1_000]
    assert stages.cost_ns["decode"] == (2 * 6_000 + 1_000) / 5
    assert stages.cost_ns["resize"] == 3 * 500 / 5


def recorded(indices: list[int], batch: int = 3) -> tuple[Ledger, Trace]:
    """Samples issued and answered in batches: 10 us per stage, 100 us from one batch to the next, 2 us in no stage."""
    ledger = Ledger(LedgerShape.of(len(indices)))
    latency = []
    for number, start in enumerate(range(0, len(indices), batch)):
        some = indices[start : start + batch]
        at = BEGIN_NS + 100_000 * number
        ledger.issue(start, some, at)
        ledger.batch(number, [(start, len(some))], 1, [at + 10_000 * step for step in (1, 2, 2, 3, 3, 4, 4, 5)], 0)
        ledger.words[Counter.BATCHES] = number + 1
        latency += [52_000] * len(some)
    ledger.words[Counter.ISSUED] = len(indices)
    return ledger, Trace(np.array(indices), np.zeros(len(indices), np.int64), np.array(latency))


def test_a_known_run_has_its_known_stages() -> None:
    stages = join(*recorded([4, 1, 0, 2]))

    assert {name: set(values.tolist()) for name, values in stages.per_sample.items()} == {
        "issue_delay": {0},
        "queue": {10_000},
        "preprocess": {10_000},
        "infer": {10_000},
        "postprocess": {10_000},
        "complete": {10_000},
        "residual": {2_000},
    }


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_trace_shifted_by_one_sample_does_not_join(shift: int) -> None:
    ledger, trace = recorded([4, 1, 0, 2, 5, 3, 3, 1])
    shifted = Trace(*(np.roll(column, shift) for column in (trace.index, trace.issue_delay_ns, trace.latency_ns)))

    join(ledger, trace)
    with pytest.raises(LedgerError, match="same order"):
        join(ledger, shifted)


@pytest.mark.parametrize("indices", [[4, 1, 0, 2, 5, 3], [7] * 6])
@pytest.mark.parametrize("part", [slice(1, None), slice(None, -1), slice(0, 0)])
def test_a_trace_that_lacks_a_sample_does_not_join(indices: list[int], part: slice) -> None:
    ledger, trace = recorded(indices)

    with pytest.raises(LedgerError, match="6 issued"):
        join(ledger, Trace(trace.index[part], trace.issue_delay_ns[part], trace.latency_ns[part]))


def test_a_trace_of_more_samples_does_not_join() -> None:
    ledger, trace = recorded([7] * 4)
    more = Trace(*(np.append(column, column[-1]) for column in (trace.index, trace.issue_delay_ns, trace.latency_ns)))

    with pytest.raises(LedgerError):
        join(ledger, more)


def test_samples_without_an_answer_are_left_out() -> None:
    ledger, trace = recorded([4, 1, 0, 2])
    ledger.batch_of[1] = 0

    stages = join(ledger, replace(trace, latency_ns=np.array([51_000, 0, 52_000, 53_000])))

    assert answered(ledger).tolist() == [0, 2, 3]
    assert stages.latency_ns.tolist() == [51_000, 52_000, 53_000]


def test_a_run_that_answered_nothing_has_empty_stages() -> None:
    stages = join(Ledger(LedgerShape.of(5)), None)

    assert len(stages.latency_ns) == 0
    assert (stages.cost_ns, stages.batch_sizes) == ({}, {})


@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=20),
    samples=st.integers(1, 40),
    batches=st.integers(1, 12),
    one_query=st.booleans(),
)
def test_beyond_its_capacity_only_records_are_lost(
    sizes: list[int], samples: int, batches: int, one_query: bool
) -> None:
    total = sum(sizes)
    indices = [3 * number % 11 for number in range(total)]
    shape = LedgerShape.of(samples, batches)
    ledger = Ledger(shape)
    if one_query:
        ledger.issue(0, indices, BEGIN_NS)
    start = 0
    for number, size in enumerate(sizes):
        if not one_query:
            ledger.issue(start, indices[start : start + size], BEGIN_NS + number)
        ledger.batch(number, [(start, size)], 0, range(BEGIN_NS, BEGIN_NS + 8), 0)
        start += size
    ledger.words[Counter.ISSUED] = ledger.words[Counter.DONE] = total
    ledger.words[Counter.BATCHES] = len(sizes)

    trace = Trace(np.array(indices), np.zeros(total, np.int64), np.full(total, 99))
    stages = join(ledger, trace)

    kept = min(samples, sum(sizes[: shape.batches]))
    assert len(stages.latency_ns) == min(kept, total)
    assert answered(ledger).tolist() == list(range(min(kept, total)))
    assert sum(batch_sizes(ledger).values()) == min(len(sizes), shape.batches)
    assert ledger.counters[Counter.DONE] == total


def test_a_batch_of_several_runs_is_recorded_for_each() -> None:
    ledger = Ledger(LedgerShape.of(10))
    ledger.words[Counter.ISSUED] = 10
    ledger.words[Counter.BATCHES] = 1

    ledger.batch(0, [(0, 1), (4, 3)], 2, range(8), 5)

    assert answered(ledger).tolist() == [0, 4, 5, 6]
    assert ledger.rows[0, :3].tolist() == [4, 2, 5]
    assert batch_sizes(ledger) == {4: 1}


@pytest.mark.parametrize("last", [1, 3, 100])
def test_the_latency_of_the_last_answered_samples(last: int) -> None:
    ledger, _ = recorded([4, 1, 0, 2])
    ledger.rows[1, -1] += 7
    ledger.counters[Counter.DONE] = 4

    assert own_latency_ns(ledger, last).tolist() == [50_000, 50_000, 50_000, 50_007][-last:]


@dataclass(frozen=True)
class Asked:
    """A run as LoadGen and the ledger have it: LoadGen's latency of each query, of each sample elsewhere."""

    scenario: str
    per_query: int
    ledger: Ledger
    latency_ns: list[int]


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    """One query after the other, each in batches of one; before and behind each stamp of ours any time passes."""
    scenario = draw(st.sampled_from(["SingleStream", "MultiStream", "Server", "Offline"]))
    times = st.integers(0, 5_000_000)
    per_query = {"MultiStream": 2, "Offline": 6}.get(scenario, 1)
    queries = 1 if scenario == "Offline" else draw(st.integers(1, 8))
    ledger = Ledger(LedgerShape.of(queries * per_query, stages=("complete",)))
    ledger.words[Counter.RUN_START_SYSTEM_NS] = BEGIN_NS
    now, latencies, number = BEGIN_NS, [], 0
    for _ in range(queries):
        scheduled = now + draw(times)
        now = scheduled + draw(times)
        ledger.issue(number, [0] * per_query, now)
        heard = []
        for sample in range(number, number + per_query):
            now += draw(times)
            ledger.batch(sample, [(sample, 1)], 0, [0, now], 0)
            now += draw(times)
            heard.append(now)
        number += per_query
        if scenario == "MultiStream":
            latencies.append(draw(st.sampled_from(heard)) - scheduled)  # whichever of its threads comes last
        else:
            latencies += [each - scheduled for each in heard]
    ledger.words[Counter.ISSUED] = ledger.words[Counter.BATCHES] = number
    return Asked(scenario, per_query if scenario == "MultiStream" else 1, ledger, latencies)


@given(asked())
def test_whatever_passes_between_the_stamps_loadgens_percentiles_are_within_the_ledgers_bounds(run: Asked) -> None:
    bounds = latency_bounds(run.ledger, run.scenario, run.per_query)

    assert bounds is not None
    least, most = (percentile_stats(each) for each in bounds)
    for name, got in percentile_stats(np.array(run.latency_ns)).items():
        low, high = least[name], most[name]
        assert got is not None and low is not None and high is not None
        assert low <= got <= high


def test_in_single_stream_neighbours_bound_a_query() -> None:
    ledger, _ = recorded([3, 1, 4], batch=1)
    ledger.words[Counter.RUN_START_SYSTEM_NS] = 0
    ends, issued = ledger.rows[:3, -1], ledger.issued_ns[:3]

    bounds = latency_bounds(ledger, "SingleStream", 1)

    assert bounds is not None
    assert bounds[0].tolist() == (ends - issued).tolist()
    assert bounds[1].tolist() == [issued[1], issued[2] - ends[0], ends[2] + PAUSE_NS - ends[1]]


@pytest.mark.parametrize("what", ["unanswered", "more than recorded", "half a query"])
def test_of_samples_that_the_ledger_has_not_all_it_has_no_bounds(what: str) -> None:
    ledger, _ = recorded([3, 1, 4], batch=1)
    if what == "unanswered":
        ledger.batch_of[1] = 0
    elif what == "more than recorded":
        ledger.words[Counter.ISSUED] = 4

    assert latency_bounds(ledger, "MultiStream", 2 if what == "half a query" else 1) is None


def test_two_views_of_the_same_memory_see_the_same_run() -> None:
    shape = LedgerShape.of(4)
    memory = mmap.mmap(-1, shape.nbytes)
    written, read = Ledger(shape, memory), Ledger(shape, memory)

    written.issue(0, [3, 1, 2, 0], BEGIN_NS)
    written.batch(0, [(0, 4)], 0, range(8), 0)
    written.words[Counter.ISSUED] = 4

    assert read.counters[Counter.ISSUED] == 4
    assert read.index_of.tolist() == [3, 1, 2, 0]
    assert answered(read).tolist() == [0, 1, 2, 3]


@given(samples=st.integers(1, 200), batches=st.integers(1, 200), stages=st.integers(1, 6))
def test_the_arrays_fill_the_block_and_do_not_overlap(samples: int, batches: int, stages: int) -> None:
    shape = LedgerShape.of(samples, batches, tuple(f"stage{number}" for number in range(stages)))
    block = bytearray(shape.nbytes)
    ledger = Ledger(shape, block)

    arrays = (ledger.counters, ledger.rows, ledger.issued_ns, ledger.batch_of, ledger.index_of)
    for array in arrays:
        array += 1

    assert all((array == 1).all() for array in arrays)
    assert sum(array.nbytes for array in arrays) == len(block)


def test_a_ledger_has_at_least_one_sample_and_at_most_its_limit() -> None:
    assert LedgerShape.of(0).samples == 1
    assert LedgerShape.of(10**12).samples == MAX_RECORDED_SAMPLES
    assert LedgerShape.of(5, 9).batches == 5
