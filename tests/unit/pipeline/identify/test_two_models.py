"""Two models in one pipeline: labels, stages and messages, whatever lies between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from backends.simulated import Simulated
from sut.channels.base import ChannelSettings
from sut.channels.errors import ChannelError
from sut.channels.wire import Message
from sut.config import make_config
from sut.errors import InputError, RunError, SetupError, SutError
from sut.pipeline.identify.messages import END, Carried, Told
from sut.pipeline.identify.pool import Pool
from sut.pipeline.identify.settings import cleaned_up
from sut.pipeline.system import SUT
from sut.results.stages import join
from sut.run.identified import identified_by
from sut.tasks.base import Payloads

FRAMES = 6
FAST = {"a_ms": 0.0, "b_ms": 0.0}


class Answers:
    """What a system has answered, by the number of the request."""

    def __init__(self) -> None:
        self.found: dict[int, bytes | None] = {}
        self.changed = threading.Condition()

    def complete(self, ids: Sequence[int], payloads: Payloads | None) -> int:
        with self.changed:
            for number, each in enumerate(ids):
                assert each not in self.found, "answered twice"
                self.found[each] = None if payloads is None else bytes(payloads[number])
            self.changed.notify_all()
        return time.time_ns()

    def of(self, count: int) -> list[bytes | None]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.found) == count, 60)
        return [self.found[number] for number in range(count)]


@contextmanager
def system(channel: str, **changes: Any) -> Iterator[tuple[SUT, Answers]]:
    """With devices that only take time; what they answer depends on the crop."""
    settings = {
        "backend": "simulated",
        "backend_options": FAST,
        "identify": "efficientnet-lite0",
        "identify_options": FAST,
        "boundary": "pixels",
        "channel": channel,
        "fan_out": "3",
        "scenario": "Offline",
        "lanes": 2,
        "max_batchsize": 2,
        "count": FRAMES,
    }
    answers = Answers()
    with SUT(make_config(settings | changes), complete=answers.complete) as sut:
        sut.library.load(range(FRAMES))
        yield sut, answers


def answered(channel: str, order: Sequence[int] = range(FRAMES), **changes: Any) -> list[bytes | None]:
    with system(channel, **changes) as (sut, answers):
        sut.issue(list(range(len(order))), list(order))
        return answers.of(len(order))


@pytest.fixture(scope="module")
def fused() -> list[bytes | None]:
    return answered("none")


def labels_in(answer: bytes | None) -> list[float]:
    assert answer is not None
    found: list[float] = np.frombuffer(answer, "<f4").reshape(-1, 7)[:, 6].tolist()
    return found


def test_each_frame_has_its_own_labels(fused: list[bytes | None]) -> None:
    assert [len(labels_in(each)) for each in fused] == [3] * FRAMES
    assert len({tuple(labels_in(each)) for each in fused}) > 2, "or nothing could be mixed up"
    for index, each in enumerate(fused):
        assert set(np.frombuffer(each or b"", "<f4").reshape(-1, 7)[:, 0]) == {index}


@pytest.mark.parametrize("channel", ["memory", "shared"])
def test_labels_are_those_of_the_fused_pipeline(channel: str, fused: list[bytes | None]) -> None:
    assert answered(channel) == fused


@pytest.mark.parametrize("channel", ["none", "memory"])
@pytest.mark.parametrize("changes", [{"identify_batch": 1}, {"identify_batch": 2, "lanes": 1}, {"max_batchsize": 6}])
def test_labels_depend_on_no_batch(channel: str, changes: dict[str, Any], fused: list[bytes | None]) -> None:
    assert answered(channel, **changes) == fused


@pytest.mark.parametrize("channel", ["none", "memory"])
def test_labels_depend_on_no_order(channel: str, fused: list[bytes | None]) -> None:
    order = [4, 0, 5, 2, 1, 3]

    assert answered(channel, order) == [fused[index] for index in order]


def test_several_workers_share_the_crops(fused: list[bytes | None]) -> None:
    with system("memory", identify_workers=3, identify_options={"a_ms": 5.0, "b_ms": 0.0}) as (sut, answers):
        sut.issue(list(range(FRAMES)), list(range(FRAMES)))
        found = answers.of(FRAMES)
        assert sut.second is not None and sut.second.pool is not None
        pool = sut.second.pool
    assert [labels_in(each) for each in found] == [labels_in(each) for each in fused]
    assert min(each.crops.messages for each in pool.hands.ended) > 1, "one of them had nothing but the word to end"


def test_a_second_model_in_a_reduced_precision_says_what_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Simulated, "precisions", {"fp32": "fp32", "int8": "int8"})
    with system("none", identify_precision="int8") as (sut, answers):
        sut.issue([0], [0])
        answers.of(1)
        assert sut.notes() == ["int8 of the second model: its labels against fp32's are not known"]


@pytest.mark.parametrize("channel", ["none", "memory"])
def test_a_frame_may_have_no_crops_and_that_none_has_any_is_said(channel: str) -> None:
    with system(channel, fan_out="0") as (sut, answers):
        sut.issue(list(range(FRAMES)), list(range(FRAMES)))
        assert answers.of(FRAMES) == [b""] * FRAMES
        assert any(note.startswith("nothing was identified") for note in sut.notes())
    assert sut.second is not None and identified_by(sut.second).identified == 0


@pytest.mark.parametrize("channel", ["memory", "shared"])
def test_ten_thousand_crops_go_through_a_channel_of_a_few(channel: str) -> None:
    with system(channel, fan_out="10000", lanes=1) as (sut, answers):
        sut.issue([0], [0])
        [found] = answers.of(1)
        assert sut.second is not None and sut.second.pool is not None
        room = sut.second.pool.crops[0].capacity
        carried = sut.second.pool.carried["crops"]
    assert len(labels_in(found)) == 10_000
    assert carried.messages == 10_000
    assert max(carried.each_depth) <= room == 32


@pytest.mark.parametrize(
    ("channel", "parts"),
    [
        ("none", ["identify/preprocess", "identify/infer"]),
        ("memory", ["identify/preprocess", "identify/send", "identify/wait", "identify/infer", "identify/return"]),
    ],
)
def test_the_parts_of_identifying_add_up_to_the_latency(channel: str, parts: list[str]) -> None:
    planted = {"a_ms": 20.0, "b_ms": 0.0}
    with system(channel, identify_options=planted, scenario="SingleStream") as (sut, answers):
        sut.start()
        for index in range(FRAMES):
            sut.issue([index], [index])
        answers.of(FRAMES)
    stages = join(sut.ledger, None)  # a batch is recorded after it was answered
    names = [name for name in stages.per_sample if name.startswith("identify/")]
    assert names == parts
    assert [*stages.per_sample][-len(parts) - 3 : -len(parts) - 1] == ["postprocess", "crop"]
    assert all((values >= 0).all() for values in stages.per_sample.values())
    whole = np.sum([*stages.per_sample.values()], axis=0)
    # What is stamped twice in a row, the end of a stage and the begin of the next, is all that may lie between them.
    assert (whole <= stages.latency_ns).all() and (stages.latency_ns - whole < 20e6).all()
    assert (stages.per_sample["identify/infer"] >= 20e6).all()


def test_a_worker_that_begins_before_its_sender_goes_on_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sends may lose its core to whom it wakes up; what that does meanwhile is no part of sending."""
    with system("memory", identify_options={"a_ms": 300.0, "b_ms": 0.0}, fan_out="1", lanes=1) as (sut, answers):
        assert sut.second is not None and sut.second.pool is not None
        [sender] = sut.second.pool.senders
        put = sender.put

        def put_and_wait(message: Message, timeout_s: float) -> None:
            put(message, timeout_s)
            assert taken.wait(60)

        taken = threading.Event()
        give = sut.second.pool._give
        monkeypatch.setattr(sut.second.pool, "_give", lambda each: (give(each), taken.set()))
        monkeypatch.setattr(sender, "put", put_and_wait)
        sut.start()
        sut.issue([0], [0])
        answers.of(1)
        monkeypatch.undo()
    stages = join(sut.ledger, None)  # a batch is recorded after it was answered
    [infer], [send] = (stages.per_sample[f"identify/{each}"] for each in ("infer", "send"))
    assert infer >= 300e6
    assert send < infer, "only until the worker began"


def test_a_run_remembers_its_own_messages_and_none_of_the_warm_up() -> None:
    with system("memory", lanes=1) as (sut, answers):
        sut.lanes[0].rehearse([0, 1])
        sut.start()
        sut.issue(list(range(FRAMES)), list(range(FRAMES)))
        answers.of(FRAMES)
        assert sut.second is not None
    told = identified_by(sut.second)
    assert told.crops is not None and told.answers is not None
    assert (told.crops.messages, told.crops.all_messages) == (3 * FRAMES, 3 * FRAMES + 6)
    assert (told.answers.messages, told.answers.all_messages) == (3 * FRAMES, 3 * FRAMES + 6)
    assert told.crops.bytes == 3 * FRAMES * 4 * 3 * 224 * 224, "float32: simulated devices take no pixels"
    assert (told.crops.broker_messages, told.broker, told.workers) == (None, None, 1)
    assert told.identified == 3 * FRAMES and not sut.second.notes()


@pytest.mark.parametrize("channel", ["none", "memory"])
def test_what_the_second_model_raises_fails_the_frame(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with system(channel, lanes=1) as (sut, answers):
        from sut.pipeline.identify import second

        def fail(*_: object) -> Any:
            raise ValueError("no such face")

        monkeypatch.setattr(second.Second, "labels", fail)
        sut.issue([0], [0])
        assert answers.of(1) == [None]
        assert not sut.notes(), "there were boxes"
    assert sut.failures.first_error is not None and "ValueError: no such face" in sut.failures.first_error
    assert sut.failures.samples == 1


def test_where_the_first_model_raises_nothing_is_said_of_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    with system("none", lanes=1) as (sut, answers):

        def fail(*_: object) -> Any:
            raise ValueError("no such frame")

        assert sut.second is not None
        monkeypatch.setattr(sut.second._decoders[0]._task, "decode", fail)
        sut.issue([0], [0])
        assert answers.of(1) == [None]
        assert not sut.notes()
    assert sut.failures.first_error is not None and "no such frame" in sut.failures.first_error


def test_a_crop_that_cannot_be_preprocessed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with system("memory", lanes=1) as (sut, answers), pool_of(sut) as pool:

        def fail(*_: object) -> Any:
            raise ValueError("too small")

        way = sut.second._decoders[0]._identifier if sut.second else None
        monkeypatch.setattr(way._preprocessor, "run_pixels", fail)  # type: ignore[union-attr]
        sut.issue([0], [0])
        assert answers.of(1) == [None]
        assert (pool._asked, pool._outstanding, [*pool.answers._announced]) == ({}, [0], [])
    assert sut.failures.first_error is not None and "too small" in sut.failures.first_error


@contextmanager
def pool_of(sut: SUT) -> Iterator[Pool]:
    assert sut.second is not None and sut.second.pool is not None
    yield sut.second.pool


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_is_gone_leaves_nobody_waiting() -> None:
    with system("memory", identify_options={"a_ms": 200.0, "b_ms": 0.0}) as (sut, answers), pool_of(sut) as pool:
        sut.issue(list(range(FRAMES)), list(range(FRAMES)))
        with pytest.raises(RunError, match="identify-0: it is gone"):
            pool._lost("identify-0: it is gone")
        assert answers.of(FRAMES).count(None) >= FRAMES - 2
        sut.issue([FRAMES], [0])
        assert answers.of(FRAMES + 1)[-1] is None
    assert sut.failures.first_error is not None and "identify-0: it is gone" in sut.failures.first_error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_who_waits_for_room_hears_that_the_worker_is_gone() -> None:
    slow = {"a_ms": 1000.0, "b_ms": 0.0}
    with system("memory", identify_options=slow, fan_out="500") as (sut, answers), pool_of(sut) as pool:
        sut.issue([0, 1], [0, 1])
        deadline = time.monotonic() + 60
        while pool.carried["crops"].messages < 8 and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(RunError, match="identify-0: it is gone"):
            pool._lost("identify-0: it is gone")
        began = time.monotonic()
        assert answers.of(2) == [None, None]
        assert time.monotonic() - began < 30, "the channel was full, and nobody would have taken anything"
        assert pool._asked.keys() <= set(range(100)), "what could not be put is not waited for"
    assert sut.failures.first_error is not None and "identify-0: it is gone" in sut.failures.first_error


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_label_that_does_not_come_fails_the_run_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sut.pipeline.identify.pool.PATIENCE_S", 0.5)
    with system("memory", lanes=1) as (sut, answers), pool_of(sut) as pool:
        [sender] = pool.senders
        put = sender.put

        def lose(message: Message, timeout_s: float) -> None:
            if message.id != 1:
                put(message, timeout_s)

        monkeypatch.setattr(sender, "put", lose)
        sut.issue([0], [0])
        assert answers.of(1) == [None]
        monkeypatch.undo()
    assert sut.failures.first_error is not None
    assert "1 of the messages announced in the channel answers did not come within 0.5 s: 1" in sut.failures.first_error


@pytest.mark.parametrize(("batch_ms", "bound_s"), [(0.0, 60), (1000.0, 100)])
def test_a_slow_second_model_loses_no_messages(batch_ms: float, bound_s: float) -> None:
    """Those that wait before a crop, and its own batch, may take twenty times as long as in warm-up."""
    slow = {"a_ms": batch_ms, "b_ms": 0.0}
    with system("memory", identify_options=slow, identify_batch=1) as (sut, _), pool_of(sut) as pool:
        assert pool.answers.settings.lost_after_s == pytest.approx(bound_s, rel=0.1)


def test_a_label_that_comes_twice_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with system("memory", lanes=1) as (sut, answers), pool_of(sut) as pool:
        [sender] = pool.senders
        put = sender.put

        def twice(message: Message, timeout_s: float) -> None:
            put(message, timeout_s)
            if message is not END:
                put(Message(message.id, message.body), timeout_s)

        monkeypatch.setattr(sender, "put", twice)
        sut.issue(list(range(FRAMES)), list(range(FRAMES)))
        found = answers.of(FRAMES)
    assert [len(labels_in(each)) for each in found] == [3] * FRAMES
    told = identified_by(sut.second) if sut.second else None
    assert told is not None and told.crops is not None and told.answers is not None
    assert told.answers.messages == 3 * FRAMES
    assert told.crops.duplicates == 3 * FRAMES


def failing_clean(cleaned: list[str], error: type[SutError] = ChannelError) -> Callable[[ChannelSettings], None]:
    def clean(settings: ChannelSettings) -> None:
        cleaned.append(settings.name)
        raise error("it cannot be removed")

    return clean


@pytest.mark.parametrize(
    ("error", "tried"), [(ChannelError, ["crops-0", "crops-1", "answers"]), (SetupError, ["crops-0"])]
)
def test_a_channel_that_cannot_be_removed_keeps_no_other_but_a_broker_that_is_gone_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, error: type[SutError], tried: list[str]
) -> None:
    cleaned: list[str] = []
    monkeypatch.setattr("sut.pipeline.identify.settings.clean", failing_clean(cleaned, error))
    config = make_config(
        {"identify": "efficientnet-lite0", "boundary": "jpeg", "channel": "redis", "identify_workers": 2}
    )
    with cleaned_up(config, "run"):
        assert cleaned == []
    assert cleaned == tried


def test_a_pool_whose_workers_were_killed_removes_each_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[str] = []
    monkeypatch.setattr("sut.pipeline.identify.settings.clean", failing_clean(cleaned))
    with system("memory", identify_workers=2) as (sut, _), pool_of(sut) as pool:
        end = pool.hands.end
        monkeypatch.setattr(pool.hands, "end", lambda tell: (end(tell), pool.hands.ended.clear()))
    assert cleaned == ["crops-0", "crops-1"]


def test_a_clock_that_other_processes_cannot_read_is_refused() -> None:
    config = make_config(
        {
            "backend": "simulated",
            "identify": "efficientnet-lite0",
            "boundary": "pixels",
            "channel": "shared",
            "fan_out": 1,
        }
    )
    with pytest.raises(InputError, match="clock of the machine"):
        SUT(config, clock=lambda: 0)


def test_what_a_worker_says_survives_as_bytes() -> None:
    told = Told(1, 2**62, 3, 4, True)

    assert Told.of(told.packed()) == told


def test_each_message_is_remembered_up_to_a_million(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sut.pipeline.identify.messages._MOST_REMEMBERED", 2)
    carried = Carried()
    for number in range(3):
        carried.add(10, number, 100 * number)

    assert (carried.messages, carried.bytes) == (3, 30)
    columns = carried.columns("crops")
    assert {name: values.tolist() for name, values in columns.items()} == {
        "crops:bytes": [10, 10],
        "crops:depth": [0, 1],
        "crops:waited_ns": [0, 100],
    }
