"""The channel between processes: what goes through it, whatever a worker does, and that nobody waits for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sut.config import make_config
from sut.errors import InputError, RunError
from sut.pipeline import process_channel
from sut.pipeline.ledger import Counter
from sut.pipeline.preprocess_worker import Job, in_runs
from sut.pipeline.process_channel import ProcessChannel
from sut.pipeline.shared import DONE, JOB, Layout, SharedRows, memory_for
from sut.pipeline.stage import StageSettings
from sut.pipeline.system import SUT
from sut.pipeline.trays import Filled, Trays
from sut.qsl.shared_pictures import SharedPictures, Span
from tests.unit.staged_bench import RECIPE, STAGES, WHERE, Bench, taken


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


def test_a_clock_that_other_processes_cannot_read_is_refused_before_any_is_started() -> None:
    workers = {"preprocess_workers": 1, "preprocess_place": "process"}
    config = make_config({"backend": "simulated", "boundary": "jpeg", "dataset": "demo", **workers})

    with pytest.raises(InputError, match="stamp by a clock of the machine: system, monotonic"):
        SUT(config, clock=lambda: 7)
