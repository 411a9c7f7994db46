"""A lane: stamps in order, answers for the right samples, and an error that costs answers but never a response."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.base import Runner, Slot, TensorSpec
from preprocess.base import BadPicture, Geometry, Recipe, Target
from sut.errors import RunError
from sut.models.registry import MODELS
from sut.pipeline import staged
from sut.pipeline.batching import Batch, BatchingPolicy
from sut.pipeline.channel import Channel
from sut.pipeline.lane import Failures, Lane, Recorder, Surroundings, lane_stages
from sut.pipeline.ledger import Counter, Ledger, LedgerShape
from sut.pipeline.trays import Filled, Trays
from sut.qsl.library import Source
from sut.results.stages import answered
from sut.tasks.base import Payloads
from sut.tasks.classification import Classification

FILES = ("cat.jpg", "dog.jpg", "cow.jpg", "hen.jpg")


class Doubler(Runner):
    """Answers twice what stands in the row; fails when told to."""

    def __init__(self, error: BaseException | None = None, rows_missing: int = 0) -> None:
        self.error = error
        self.rows_missing = rows_missing
        self.sizes: list[int] = []

    def slot(self, n: int) -> Slot:
        self.sizes.append(n)
        return Slot(n, {"input": np.full(n, -1)})

    def infer(self, slot: Slot) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        return {"label": 2 * slot.buffers["input"][: slot.n - self.rows_missing]}


class Numbers(Source):
    """A library whose sample i is the number i; sample 3 cannot be had, ``bad`` is no picture."""

    def __init__(self, stages: tuple[str, ...] = ("preprocess",), marked: tuple[str, ...] | None = None) -> None:
        self.stages = stages
        self.marked = stages if marked is None else marked
        self.bad: int | None = None

    def fill(self, indices: Sequence[int], target: Target, mark: Callable[[str], None]) -> list[Geometry]:
        if 3 in indices:
            raise ValueError("sample 3 is not loaded")
        if self.bad in indices:
            raise BadPicture(list(indices).index(self.bad), "no\npicture")
        target.buffers["input"][: len(indices)] = indices
        for stage in self.marked:
            mark(stage)
        return []


@dataclass
class Ticks:
    """A clock of whole ticks, one per reading."""

    count: Any = field(default_factory=lambda: itertools.count(1))

    def __call__(self) -> int:
        return next(self.count)


@dataclass
class Bench:
    """A lane with everything around it that a test looks at."""

    runner: Doubler
    sizes: tuple[int, ...] | None = None
    task: type[Classification] = Classification
    source: Numbers = field(default_factory=Numbers)
    transfers: bool = False
    told: list[str] = field(default_factory=list)
    completed: list[tuple[list[int], list[float] | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = Ticks()
        lane = lane_stages(self.transfers, self.task.stages)
        self.ledger = Ledger(LedgerShape.of(100, stages=(*self.source.stages, *lane)))
        self.failures = Failures(lambda index: FILES[index], self.told.append)
        self.recorder = Recorder(self.ledger)
        shared = Surroundings(
            task=self.task.of(MODELS["efficientnet-lite0"], [TensorSpec("label", "int64", (None,), "N")]),
            policy=BatchingPolicy(False, 8, sizes=self.sizes),
            recorder=self.recorder,
            failures=self.failures,
            complete=self.complete,
            clock=self.clock,
            transfers=self.transfers,
        )
        self.lane = Lane(self.runner, self.source, shared, number=7)

    def complete(self, ids: Sequence[int], payloads: Payloads | None) -> int:
        answers = None if payloads is None else np.asarray(payloads).tolist()
        self.completed.append((list(ids), answers))
        return self.clock()

    def process(self, *indices: int, start: int = 0) -> None:
        ids = [100 + number for number in range(start, start + len(indices))]
        self.ledger.words[Counter.ISSUED] += len(indices)
        self.lane.process(Batch(ids, indices, [(start, len(indices))]))

    def counts(self) -> dict[str, int]:
        names = (Counter.DONE, Counter.FAILED, Counter.BATCHES, Counter.PADDED, Counter.HEARTBEAT)
        return {which.name: int(self.ledger.counters[which]) for which in names}


def test_answers_go_to_the_samples_that_asked() -> None:
    bench = Bench(Doubler())

    bench.process(2, 0, 1)

    assert bench.completed == [([100, 101, 102], [4.0, 0.0, 2.0])]
    assert bench.counts() == {"DONE": 3, "FAILED": 0, "BATCHES": 1, "PADDED": 0, "HEARTBEAT": 1}
    assert bench.failures.first_error is None


def test_what_was_preprocessed_elsewhere_keeps_its_index_and_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    lane = SimpleNamespace(
        number=0,
        lent=lambda storage, rows: None,
        slot=lambda n: Slot(n, {"input": np.zeros((n, 3, 1, 1), np.float32)}),
        answer=lambda slot, indices, geometries, stamps: given.append((slot.buffers["input"], indices, geometries)),
    )
    channel = Channel(Recipe(name="dot", size=1, fit="stretch", interpolation="linear"), Trays(1, 4, True), 4)
    channel.storage[:] = np.arange(len(channel.storage)).reshape(-1, 1, 1, 1)
    geometries = [Geometry(128, 64, 0.5, 0.5, 0, -32), Geometry(16, 32, 2, 2, -8, 0)]
    samples = [Filled(100, 5, 0, 3, geometries[0]), Filled(101, 2, 1, 1, geometries[1])]
    channel.reserve(4)
    monkeypatch.setattr(staged, "finish", lambda *told: None)

    staged._process(lane, samples, channel, SimpleNamespace(clock=Ticks()))

    [(rows, indices, places)] = given
    assert (rows[:, 0, 0, 0].tolist(), indices, places) == ([3, 1], [5, 2], geometries)


def lane_that_takes(sizes: tuple[int, ...] | None = None, lend_to: str | None = "input") -> Lane:
    bench = Bench(Doubler(), sizes=sizes)
    return Lane(bench.runner, bench.source, bench.lane._shared, lend_to)


def test_rows_that_follow_each_other_are_inferred_where_they_lie() -> None:
    storage = np.arange(12).reshape(6, 2)

    slot = lane_that_takes().lent(storage, [2, 3, 4])

    assert slot is not None and slot.n == 3
    assert np.shares_memory(slot.buffers["input"], storage)
    assert slot.buffers["input"].tolist() == [[4, 5], [6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("lane", "rows"),
    [
        (lane_that_takes(), [1, 2, 4]),  # one between them failed
        (lane_that_takes(sizes=(1, 4)), [1, 2, 3]),  # it is padded to four rows
        (lane_that_takes(lend_to=None), [1, 2]),  # a GPU's slots are its own
    ],
)
def test_other_rows_are_copied(lane: Lane, rows: list[int]) -> None:
    assert lane.lent(np.zeros((6, 2)), rows) is None


def test_stages_follow_each_other_without_a_reading_between_them() -> None:
    bench = Bench(Doubler())

    bench.process(2, 0, 1)

    assert bench.ledger.rows[0].tolist() == [3, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8]


class Copies(Classification):
    """Decodes in two stages."""

    stages = ("postprocess", "copy")

    def decode(self, *args: Any) -> NDArray[np.float32]:
        labels = super().decode(*args[:-1])
        args[-1]("postprocess")
        return labels


def test_a_task_has_stages_of_its_own() -> None:
    bench = Bench(Doubler(), task=Copies)

    bench.process(0)

    assert bench.ledger.shape.stages[-3:] == ("postprocess", "copy", "complete")
    assert bench.ledger.rows[0].tolist() == [1, 0, 7, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9]


def test_copies_that_the_device_timed_are_stages_of_their_own() -> None:
    runner = Doubler()
    runner.transfers_ns = (30, 2)
    bench = Bench(runner, transfers=True)
    bench.clock.count = itertools.count(100, 100)

    bench.process(2, 0, 1)

    # The call lasts from 300 to 400; what the copies leave of it is the model's.
    stamps = [100, 200, 300, 330, 330, 398, 398, 400, 500, 600, 700, 800]
    assert bench.ledger.rows[0].tolist() == [3, 0, 7, *stamps]


def test_copies_never_take_longer_than_the_call_that_they_are_in() -> None:
    runner = Doubler()
    runner.transfers_ns = (300, 200)
    bench = Bench(runner, transfers=True)
    bench.clock.count = itertools.count(100, 100)

    bench.process(2)

    assert bench.ledger.rows[0].tolist()[5:11] == [300, 400, 400, 400, 400, 400]


def test_a_batch_that_failed_has_all_stages_too() -> None:
    bench = Bench(Doubler(), transfers=True)

    bench.process(3)

    assert len(set(bench.ledger.rows[0].tolist()[3:-2])) == 1
    assert bench.counts()["FAILED"] == 1


def test_each_stage_of_the_source_has_a_begin_and_an_end() -> None:
    bench = Bench(Doubler(), source=Numbers(("decode", "resize")))

    bench.process(2)

    # The reading at the end of a stage is the begin of the next one of the same source; after the last it is dropped.
    assert bench.ledger.rows[0].tolist() == [1, 0, 7, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("marked", [("decode",), ("decode", "resize", "resize")])
def test_a_source_that_marks_other_stages_than_it_has_fails_the_sample(marked: tuple[str, ...]) -> None:
    bench = Bench(Doubler(), source=Numbers(("decode", "resize"), marked))

    bench.process(2)

    assert bench.completed == [([100], None)]
    assert "stages were marked, expected decode, resize" in (bench.failures.first_error or "")


def test_padding_is_counted_and_not_answered() -> None:
    bench = Bench(Doubler(), sizes=(1, 4, 8))

    bench.process(2, 0, 1)
    bench.process(1, start=3)

    assert bench.runner.sizes == [4, 1]
    assert [answers for _, answers in bench.completed] == [[4.0, 0.0, 2.0], [2.0]]
    assert bench.counts()["PADDED"] == 1
    assert bench.ledger.rows[:2, :3].tolist() == [[3, 1, 7], [1, 0, 7]]


def test_work_alone_completes_and_records_nothing() -> None:
    bench = Bench(Doubler())

    payloads, stamps = bench.lane.work([2, 1])

    assert np.asarray(payloads).tolist() == [4.0, 2.0]
    assert stamps == [1, 2, 3, 4, 5, 6]
    assert bench.completed == []
    assert set(bench.counts().values()) == {0}


def test_a_rehearsal_answers_and_leaves_no_trace() -> None:
    bench = Bench(Doubler(), sizes=(4,))

    payloads = bench.lane.rehearse([2, 1])

    assert np.asarray(payloads).tolist() == [4.0, 2.0]
    assert bench.runner.sizes == [4]
    assert (bench.completed, bench.told, bench.failures.samples) == ([], [], 0)
    assert set(bench.counts().values()) == {0}


@pytest.mark.parametrize(
    ("bad", "indices", "error"),
    [
        (1, (1,), "dog.jpg: BadPicture: no picture"),
        (1, (0, 2, 1), "dog.jpg: BadPicture: no picture"),
        (None, (0, 3), "cat.jpg (in a batch of 2): ValueError: sample 3 is not loaded"),
        (None, (3,), "hen.jpg: ValueError: sample 3 is not loaded"),
    ],
)
def test_a_rehearsal_that_fails_names_the_file_and_fails_no_sample(
    bad: int | None, indices: tuple[int, ...], error: str
) -> None:
    bench = Bench(Doubler())
    bench.source.bad = bad

    with pytest.raises(RunError) as failed:
        bench.lane.rehearse(indices)

    assert str(failed.value) == error
    assert isinstance(failed.value.__cause__, ValueError)
    assert (bench.completed, bench.told, bench.failures.first_error) == ([], [], None)
    assert set(bench.counts().values()) == {0}


def test_what_stops_the_process_is_no_failure_of_a_rehearsal() -> None:
    bench = Bench(Doubler(KeyboardInterrupt()))

    with pytest.raises(KeyboardInterrupt):
        bench.lane.rehearse([0])


def test_a_bad_picture_in_a_batch_is_named_by_its_place() -> None:
    bench = Bench(Doubler())
    bench.source.bad = 2

    bench.process(0, 1, 2)

    assert bench.completed == [([100, 101, 102], None)]
    assert bench.told == ["cow.jpg: BadPicture: no picture"]


@pytest.mark.parametrize(
    ("runner", "indices", "error"),
    [
        (Doubler(RuntimeError("out of\nmemory")), (2,), "cow.jpg: RuntimeError: out of memory"),
        (Doubler(RuntimeError("x")), (2, 1), "cow.jpg (in a batch of 2): RuntimeError: x"),
        (Doubler(KeyboardInterrupt()), (0,), "cat.jpg: KeyboardInterrupt: KeyboardInterrupt"),
        (Doubler(SystemExit(3)), (0,), "cat.jpg: SystemExit: 3"),
        (Doubler(), (1, 3), "dog.jpg (in a batch of 2): ValueError: sample 3 is not loaded"),
        (Doubler(rows_missing=1), (1, 2), "dog.jpg (in a batch of 2): ValueError: output 'label' returned 1 rows"),
    ],
)
def test_whatever_goes_wrong_every_sample_is_completed_and_named(
    runner: Doubler, indices: tuple[int, ...], error: str
) -> None:
    bench = Bench(runner)

    bench.process(*indices)

    assert bench.completed == [([100 + number for number in range(len(indices))], None)]
    assert bench.counts() == {
        "DONE": len(indices), "FAILED": len(indices), "BATCHES": 1, "PADDED": 0, "HEARTBEAT": 1,
    }  # fmt: skip
    assert answered(bench.ledger).tolist() == list(range(len(indices)))
    assert bench.failures.first_error is not None
    assert bench.failures.first_error.startswith(error)
    assert bench.told == [bench.failures.first_error]


class Forgetful(Classification):
    """Leaves the last answer out."""

    def decode(self, *given: Any) -> np.ndarray[Any, Any]:
        return super().decode(*given)[:-1]


def test_rows_that_are_missing_from_the_padding_alone_fail_the_batch() -> None:
    bench = Bench(Doubler(rows_missing=1), sizes=(4,))

    bench.process(2)

    assert bench.completed == [([100], None)]
    assert bench.failures.first_error == "cow.jpg: ValueError: output 'label' returned 3 rows for a batch of 4"


def test_a_task_that_leaves_an_answer_out_fails_the_batch() -> None:
    bench = Bench(Doubler(), task=Forgetful)

    bench.process(2, 1)

    assert bench.completed == [([100, 101], None)]
    assert bench.failures.first_error == "cow.jpg (in a batch of 2): ValueError: 1 answers for 2 samples"


def test_the_first_error_is_kept_and_told_once_and_all_are_counted() -> None:
    bench = Bench(Doubler(RuntimeError("first")))

    bench.process(0)
    bench.runner.error = RuntimeError("second")
    bench.process(1, 2, start=1)
    bench.runner.error = None
    bench.process(1, start=3)

    assert bench.failures.samples == 3
    assert bench.told == ["cat.jpg: RuntimeError: first"]
    assert bench.completed[-1] == ([103], [2.0])
    assert bench.counts() == {"DONE": 4, "FAILED": 3, "BATCHES": 3, "PADDED": 0, "HEARTBEAT": 3}


def test_failures_of_many_lanes_are_all_counted() -> None:
    failures = Failures(lambda index: FILES[index])

    def fail() -> None:
        for _ in range(2000):
            failures.record(RuntimeError("x"), [0, 1])

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures.samples == 16_000


def test_another_ledger_is_used_from_then_on() -> None:
    bench = Bench(Doubler())
    bench.process(0)
    other = Ledger(LedgerShape.of(10))

    bench.recorder.ledger = other
    bench.process(1)

    assert bench.counts()["DONE"] == 1
    assert other.counters[Counter.DONE] == 1
