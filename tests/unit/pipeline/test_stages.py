"""A pipeline as a list of stages: which there are, who hears of a query, and what lies between them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from backends.base import TensorSpec
from preprocess.base import Geometry, Recipe
from sut.config import make_config
from sut.errors import RunError
from sut.models.registry import MODELS
from sut.pipeline import process_channel
from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.channel import Channel, Patience, trays_for
from sut.pipeline.lane import Failures, Recorder, Surroundings, lane_stages
from sut.pipeline.ledger import Counter, Ledger, LedgerShape
from sut.pipeline.preprocess_worker import Job, in_runs
from sut.pipeline.process_channel import ProcessChannel
from sut.pipeline.shared import DONE, JOB, Layout, SharedRows, memory_for
from sut.pipeline.stage import Stage, StageSettings, entry, stages_of
from sut.pipeline.staged import Preprocess
from sut.pipeline.trays import Filled, Trays
from sut.qsl.library import Source
from sut.qsl.shared_pictures import SharedPictures, Span
from sut.tasks.classification import Classification

RECIPE = Recipe(name="dot", size=1, fit="stretch", interpolation="linear")
WHERE = Geometry(4, 3, 0.5, 0.25, 1, 2)
STAGES = ("decode", "resize")
FILES = ("cat.jpg", "dog.jpg", "cow.jpg", "hen.jpg")


def settings_of(scenario: str, has_inputs: bool = True, **changes: Any) -> tuple[StageSettings, ...]:
    config = make_config({"scenario": scenario, "boundary": "jpeg", "lanes": 2, "max_batchsize": 4, **changes})
    wait_ns = int(config.max_wait_ms * 1e6)
    policy = BatchingPolicy.of(scenario, config.largest_batch, wait_ns, None, config.lane_count)
    return stages_of(config, policy, has_inputs)


@pytest.mark.parametrize(
    ("scenario", "changes", "place"),
    [
        ("SingleStream", {}, "caller"),
        ("MultiStream", {"lanes": 1}, "caller"),
        ("MultiStream", {}, "thread"),
        ("Server", {}, "thread"),
        ("Offline", {}, "thread"),
        ("Offline", {"preprocess_workers": 3, "boundary": "tensor"}, "thread"),
        ("Offline", {"preprocess_workers": 3, "has_inputs": False}, "thread"),
    ],
)
def test_without_workers_there_is_one_stage(scenario: str, changes: dict[str, Any], place: str) -> None:
    [infer] = settings_of(scenario, **changes)

    assert (infer.name, infer.workers, infer.batch, infer.place) == ("infer", changes.get("lanes", 2), 4, place)


def test_every_stage_has_workers_a_batch_a_wait_and_a_place() -> None:
    workers = {"preprocess_workers": 3, "preprocess_place": "process", "preprocess_batch": 2}

    assert settings_of("Server", max_wait_ms=1.5, **workers) == (
        StageSettings("preprocess", 3, 2, 0, "process"),
        StageSettings("infer", 2, 4, 1_500_000, "thread"),
    )
    assert settings_of("Offline", preprocess_workers=1, preprocess_batch=100)[0].batch == 4, "no more than a tray has"


def test_the_last_stage_hears_of_a_query_before_the_first_gets_it() -> None:
    heard: list[str] = []

    class Named(Stage):
        def __init__(self, name: str) -> None:
            self.name = name

        def put(self, ids: Sequence[int], indices: Sequence[int], start: int) -> None:
            heard.append(f"{self.name} {list(ids)} {list(indices)} {start}")

    first, last = Named("first"), Named("last")

    entry([first, last])([7], [3], 9)

    assert heard == ["last [7] [3] 9", "first [7] [3] 9"]
    assert entry([first]) == first.put, "one stage alone is called without anything in between"


@pytest.mark.parametrize(
    ("workers", "batch", "lanes", "largest", "trays"),
    [(1, 1, 1, 1, 3), (4, 1, 2, 8, 4), (9, 1, 1, 8, 4), (2, 4, 2, 4, 5)],
)
def test_there_are_trays_for_everybody(workers: int, batch: int, lanes: int, largest: int, trays: int) -> None:
    before, infer = StageSettings("preprocess", workers, batch), StageSettings("infer", lanes, largest)

    assert trays_for(before, infer, fill_up=True).capacity == trays * largest


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("sut.pipeline.channel.time", type("Time", (), {"monotonic": lambda: now[0]}))
    return now


def test_the_first_of_a_batch_waits_for_more_and_no_longer(clock: list[float]) -> None:
    patience = Patience(4, 2_000_000_000)

    assert patience.left_s(0) is None
    assert patience.left_s(1) == 2
    clock[0] += 1.5
    assert patience.left_s(3) == 0.5
    clock[0] += 0.5
    assert patience.left_s(3) == 0, "it goes as it is"
    assert patience.left_s(1) == 2, "the next begins anew"
    assert patience.left_s(4) == 0, "a full batch waits for nobody"


def test_without_a_wait_what_is_ready_goes(clock: list[float]) -> None:
    assert (Patience(4, 0).left_s(1), Patience(4, 0).left_s(0)) == (0, None)


@dataclass
class Bench:
    """What the threads of a run share, and what came of it."""

    completed: list[tuple[list[int], bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = LedgerShape.of(100, stages=("gather", *lane_stages(False)), before=STAGES)
        self.ledger = Ledger(shape)
        self.failures = Failures(lambda index: FILES[index])
        self.shared = Surroundings(
            task=Classification.of(MODELS["efficientnet-lite0"], [TensorSpec("label", "int64", (None,), "N")]),
            policy=BatchingPolicy(False, 4),
            recorder=Recorder(self.ledger),
            failures=self.failures,
            complete=self.complete,
            clock=time.time_ns,
        )

    def complete(self, ids: Sequence[int], payloads: Any) -> int:
        self.completed.append((list(ids), payloads is not None))
        return time.time_ns()


class Numbers(Source):
    """Sample i is the number i; the last file cannot be had."""

    stages = STAGES

    def fill(self, indices: Sequence[int], target: Any, mark: Any) -> list[Geometry]:
        if 3 in indices:
            raise ValueError("hens cannot be had")
        target.buffers["rows"][: len(indices), 0, 0, 0] = indices
        for stage in STAGES:
            mark(stage)
        return [WHERE] * len(indices)


def taken(channel: Channel | ProcessChannel, count: int) -> list[Filled]:
    """So many samples out of a channel."""
    found: list[Filled] = []
    deadline = time.monotonic() + 60
    while len(found) < count and time.monotonic() < deadline:
        found += channel.take(0)
    return found


@pytest.mark.parametrize("batch", [1, 2])
def test_threads_fill_rows_for_who_asked(batch: int) -> None:
    bench = Bench()
    channel = Channel(RECIPE, Trays(3, 4, fill_up=True), 4)
    stage = Preprocess(StageSettings("preprocess", 2, batch), [Numbers(), Numbers()], channel, bench.shared)

    channel.announce(4)
    stage.put([70, 71, 72, 73], [2, 0, 1, 0], 10)
    samples = sorted(taken(channel, 4), key=lambda sample: sample.number)
    stage.close()

    assert [(sample.id, sample.index, sample.number) for sample in samples] == [
        (70, 2, 10),
        (71, 0, 11),
        (72, 1, 12),
        (73, 0, 13),
    ]
    assert [channel.storage[sample.row, 0, 0, 0] for sample in samples] == [2, 0, 1, 0]
    assert (bench.ledger.before[10:14, :-1] > 0).all() and (bench.ledger.before[:10] == 0).all()
    assert channel.finished


def test_a_batch_that_cannot_be_had_is_answered_with_nothing_and_named() -> None:
    bench = Bench()
    channel = Channel(RECIPE, Trays(3, 4, fill_up=True), 4)
    stage = Preprocess(StageSettings("preprocess", 1, 2), [Numbers()], channel, bench.shared)

    channel.announce(3)
    stage.put([70, 71, 72], [0, 3, 1], 0)
    [sample] = taken(channel, 1)
    stage.close()

    assert (sample.id, bench.completed) == (72, [([70, 71], False)])
    assert bench.failures.first_error == "cat.jpg (in a batch of 2): ValueError: hens cannot be had"
    assert bench.ledger.counters[Counter.FAILED] == 2


def test_threads_are_rehearsed_each_and_a_bad_file_is_named() -> None:
    channel = Channel(RECIPE, Trays(3, 4, fill_up=True), 4)
    stage = Preprocess(StageSettings("preprocess", 2, 1), [Numbers(), Numbers()], channel, Bench().shared)

    stage.rehearse([0, 1])
    with pytest.raises(RunError, match=r"^hen.jpg: ValueError: hens cannot be had$"):
        stage.rehearse([0, 3])

    assert (channel.storage[:] != 3).all()


def test_jobs_are_done_together_as_far_as_their_rows_follow_each_other() -> None:
    jobs = [Job(number, Span(0, 1), row) for number, row in enumerate([4, 5, 6, 0, 1, 7])]

    assert [[job.row for job in some] for some in in_runs(jobs)] == [[4, 5, 6], [0, 1], [7]]
    assert in_runs(jobs[:1]) == [jobs[:1]]


LAYOUT = Layout.of(8, RECIPE, STAGES)


class Process(threading.Thread):
    """Does what a worker's process does, by the same descriptors and bytes. ``does`` says how a picture fares."""

    def __init__(self, channel: ProcessChannel, memory: int, pictures: SharedPictures) -> None:
        super().__init__(daemon=True)
        self._jobs, self._done, self._pictures = channel.jobs, channel.done_in, pictures
        self._rows = SharedRows(LAYOUT, memory)
        self.lies = False
        self.met: list[int] = []

    def run(self) -> None:
        while found := os.read(self._jobs, JOB.size):
            number, offset, nbytes, row, _, _ = JOB.unpack(found)
            self.met.append(number)
            if nbytes < 0:
                self._rows.tell_failed(row, number, "ValueError", "the sample is not loaded", (1, 2, 3))
            elif (picture := os.pread(self._pictures.descriptor, nbytes, offset)) == b"bad":
                self._rows.tell_failed(row, number, "BadPicture", "no picture", (1, 2, 3))
            else:
                self._rows.storage[row] = len(picture)
                self._rows.tell(row, number + self.lies, WHERE, (1, 2, 3))
            os.write(self._done, DONE.pack(row, 5))


@contextmanager
def channel_of(
    bench: Bench, pictures: SharedPictures, fill_up: bool = True
) -> Iterator[tuple[ProcessChannel, Process]]:
    memory = memory_for(LAYOUT)
    infer = StageSettings("infer", 1, 4)
    channel = ProcessChannel(SharedRows(LAYOUT, memory), Trays(2, 4, fill_up), infer, pictures, bench.shared)
    worker = Process(channel, memory, pictures)
    try:
        yield channel, worker
    finally:
        channel.close_jobs()
        if worker.is_alive():
            worker.join()
        channel.close()
        channel.close_pipes()


@pytest.fixture
def pictures() -> SharedPictures:
    held = SharedPictures()
    for index, picture in enumerate((b"a", b"bb", b"ccc", b"bad")):
        held[index] = picture
    return held


@pytest.mark.parametrize("fill_up", [True, False])
def test_more_than_there_are_rows_for_comes_through_in_turn(pictures: SharedPictures, fill_up: bool) -> None:
    bench = Bench()
    with channel_of(bench, pictures, fill_up) as (channel, worker):
        worker.start()
        channel.announce(30)
        channel.ask(range(100, 130), [number % 3 for number in range(30)], 0)
        found: list[Filled] = []
        while len(found) < 30:
            samples = taken(channel, 1)
            assert [channel.storage[each.row, 0, 0, 0] for each in samples] == [each.index + 1 for each in samples]
            found += samples
            channel.done([each.row for each in samples])

        channel.drain()

    assert sorted((each.id, each.index, each.number) for each in found) == [
        (100 + number, number % 3, number) for number in range(30)
    ]
    assert {each.geometry for each in found} == {WHERE}
    assert bench.ledger.before[:30].tolist() == [[1, 2, 3, 5]] * 30
    assert channel.finished and bench.completed == []


def test_what_cannot_be_had_is_answered_with_nothing_by_the_lane_that_hears_of_it(pictures: SharedPictures) -> None:
    bench = Bench()
    with channel_of(bench, pictures) as (channel, worker):
        worker.start()
        channel.announce(3)
        channel.ask([70, 71, 72], [3, 0, 2], 0)
        del pictures.spans[2]
        channel.announce(1)
        channel.ask([73], [2], 3)
        samples = taken(channel, 2)

    assert {sample.id for sample in samples} == {71, 72}
    assert sorted(bench.completed) == [([70], False), ([73], False)]
    assert bench.failures.first_error == "hen.jpg: BadPicture: no picture"
    assert bench.failures.samples == bench.ledger.counters[Counter.FAILED] == 2


def test_a_rehearsal_leaves_no_trace_and_names_a_bad_file(pictures: SharedPictures) -> None:
    bench = Bench()
    with channel_of(bench, pictures) as (channel, worker):
        worker.start()
        channel.rehearse([0, 1] * 20)
        with pytest.raises(RunError, match=r"^hen.jpg: BadPicture: no picture$"):
            channel.rehearse([0, 3])
        channel.announce(1)
        channel.ask([70], [1], 0)
        [sample] = taken(channel, 1)

    assert (sample.id, bench.completed, bench.failures.samples) == (70, [], 0)
    assert len(worker.met) == 43


def test_a_rehearsal_whose_workers_are_gone_answers_nobody(pictures: SharedPictures) -> None:
    bench = Bench()
    with channel_of(bench, pictures) as (channel, _):

        def rehearse() -> None:
            with pytest.raises(RunError, match="was killed"):
                channel.rehearse([0, 1])

        rehearsal = threading.Thread(target=rehearse)
        rehearsal.start()
        os.read(channel.jobs, 1)  # it has been asked
        channel.give_up("preprocess-0: its process was killed")
        rehearsal.join(60)

    assert not rehearsal.is_alive()
    assert (bench.completed, bench.failures.samples, bench.ledger.before.any()) == ([], 0, False)


def test_when_all_workers_are_gone_nobody_waits(pictures: SharedPictures) -> None:
    bench = Bench()
    with channel_of(bench, pictures) as (channel, _):
        channel.announce(20)
        channel.ask(range(20), [0] * 20, 0)

        channel.give_up("preprocess-0: its process was killed")
        channel.announce(3000)
        channel.ask(range(20, 3020), [0] * 3000, 20)
        channel.drain()

        assert channel.take(0) == []
        with pytest.raises(RunError, match="preprocess-0: its process was killed"):
            channel.rehearse([0])

    assert sorted(each for ids, is_answered in bench.completed for each in ids if not is_answered) == [*range(3020)]
    assert bench.failures.first_error == "cat.jpg: RunError: preprocess-0: its process was killed"


def test_an_answer_for_another_sample_is_none(pictures: SharedPictures) -> None:
    with channel_of(Bench(), pictures) as (channel, worker):
        worker.lies = True
        worker.start()
        channel.announce(1)
        channel.ask([70], [0], 4)

        with pytest.raises(RunError, match="preprocess-5 answered for sample 5, not 4"):
            taken(channel, 1)


def test_a_rehearsal_has_an_end(pictures: SharedPictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_channel, "_REHEARSAL_S", 0.1)
    with channel_of(Bench(), pictures) as (channel, _), pytest.raises(RunError, match="2 samples took over 0 s"):
        channel.rehearse([0, 1])


def test_a_lane_that_rests_takes_nothing_and_hears_for_nobody(pictures: SharedPictures) -> None:
    with channel_of(Bench(), pictures) as (channel, worker):
        worker.start()
        channel.rest({0})
        channel.announce(1)
        channel.ask([70], [1], 0)

        assert (channel.take(0), [sample.id for sample in channel.take(1)]) == ([], [70])

        channel.rest(())
        channel.announce(1)
        channel.ask([71], [1], 1)
        assert [sample.id for sample in taken(channel, 1)] == [71]
