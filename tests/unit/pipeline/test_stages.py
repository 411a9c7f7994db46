"""A pipeline as a list of stages: which there are, who hears of a query, and what lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from preprocess.base import Geometry
from sut.config import make_config
from sut.errors import RunError
from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.channel import Channel, Patience, trays_for
from sut.pipeline.ledger import Counter
from sut.pipeline.stage import Stage, StageSettings, entry, stages_of
from sut.pipeline.staged import Preprocess
from sut.pipeline.trays import Trays
from sut.qsl.library import Source
from tests.unit.staged_bench import RECIPE, STAGES, WHERE, Bench, taken


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
