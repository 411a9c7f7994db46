"""What every channel promises, over real brokers: one suite for all of them."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from sut.channels.base import ChannelSettings, Receiver, Sender, Taken
from sut.channels.errors import ChannelClosed, ChannelError, ChannelFull, MessageLost
from sut.channels.registry import clean, open_receiver, open_sender
from sut.channels.wire import Message
from sut.errors import InputError
from tests.brokers import KINDS, Make, left
from tests.children import python_started, run_python

SOON_S = 60.0
"""Within this everything ends that must end at all; a busy machine takes seconds for it."""
BODIES = (
    np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    np.arange(24, dtype=np.uint8).reshape(4, 6).T,
    np.array(3, np.float16),
    np.zeros((0, 3), np.int64),
    np.array([True, False]),
    b"",
    b"\r\n$5\0",
    bytearray(b"many"),
)


def take_all(receiver: Receiver, count: int) -> list[Taken]:
    """As many as that, none of which is done with."""
    found: list[Taken] = []
    deadline = time.monotonic() + SOON_S
    while len(found) < count and time.monotonic() < deadline:
        found += receiver.take(count - len(found), 0.2)
    return found


def until_it_fails(sender: Sender) -> None:
    """Put messages, into a channel that may notice a little later that it has failed."""
    deadline = time.monotonic() + SOON_S
    number = 0
    while time.monotonic() < deadline:
        with suppress(ChannelFull):
            sender.put(Message(number := number + 1, b"x"), 0.1)
        time.sleep(0.01)


def texts(taken: list[Taken]) -> list[bytes]:
    return [bytes(each.message.body) for each in taken]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: f"{type(body).__name__}-{getattr(body, 'shape', '')}")
def test_a_message_comes_as_it_was(make: Make, body: object) -> None:
    with open_receiver(make()) as receiver, open_sender(receiver.address) as sender:
        sender.put(Message(2**63 - 1, body, b"\0spans"), SOON_S)
        [taken] = take_all(receiver, 1)

        assert (taken.message.id, taken.message.spans) == (2**63 - 1, b"\0spans")
        if isinstance(body, np.ndarray):
            assert (taken.message.body.dtype, taken.message.body.shape) == (body.dtype, body.shape)
            np.testing.assert_array_equal(taken.message.body, body)
        else:
            assert bytes(taken.message.body) == body
        receiver.done([taken])


def test_each_message_may_be_of_another_form(make: Make) -> None:
    with open_receiver(make(capacity=1)) as receiver, open_sender(receiver.address) as sender:
        for number, body in enumerate((*BODIES, *BODIES[::-1])):
            sender.put(Message(number, body, bytes(number)), SOON_S)
            [taken] = take_all(receiver, 1)

            found, expected = (np.asarray(memoryview(each)) for each in (taken.message.body, body))
            assert (found.shape, found.tobytes()) == (expected.shape, expected.tobytes())
            assert taken.message.spans == bytes(number)
            receiver.done([taken])


def test_a_reserved_message_is_written_in_place(make: Make) -> None:
    with open_receiver(make(capacity=1)) as receiver, open_sender(receiver.address) as sender:
        sender.drop(sender.reserve(1, (2, 2), np.float32, SOON_S))
        receiver.take(1, 0.1)
        message = sender.reserve(2, (2, 2), np.float32, SOON_S)
        message.body[:] = [[1, 2], [3, 4]]
        sender.put(replace(message, spans=b"s"), SOON_S)
        [taken] = take_all(receiver, 1)

        assert taken.message.body.tolist() == [[1, 2], [3, 4]]
        assert taken.message.spans == b"s"


def test_a_sender_that_goes_leaves_no_room_taken(make: Make) -> None:
    with open_receiver(make(capacity=1)) as receiver:
        with open_sender(receiver.address) as sender:
            sender.reserve(1, (2, 2), np.float32, SOON_S)
        receiver.take(1, 0.1)
        with open_sender(receiver.address) as sender:
            sender.put(Message(2, b"x"), SOON_S)

        assert texts(take_all(receiver, 1)) == [b"x"]


def test_what_was_taken_is_forwarded_like_any_other(make: Make) -> None:
    settings = make()
    with (
        open_receiver(settings) as first,
        open_receiver(replace(settings, name="back")) as second,
        open_sender(first.address) as there,
        open_sender(second.address) as back,
    ):
        message = there.reserve(7, (3,), np.int32, SOON_S)
        message.body[:] = 5
        there.put(message, SOON_S)
        [taken] = take_all(first, 1)
        back.put(taken.message, SOON_S)
        first.done([taken])

        assert take_all(second, 1)[0].message.body.tolist() == [5, 5, 5]


def test_a_full_channel_takes_no_more_until_there_is_room(make: Make) -> None:
    with open_receiver(make(capacity=2)) as receiver, open_sender(receiver.address) as sender:
        for number in (1, 2):
            sender.put(Message(number, b"x"), SOON_S)
        with pytest.raises(ChannelFull, match=r"message 3 .* full of 2 messages"):
            sender.put(Message(3, b"x"), 0.05)
        taken = take_all(receiver, 2)
        with pytest.raises(ChannelFull, match="message 4 "):
            sender.put(Message(4, b"x"), 0.05)
        receiver.done(taken[:1])
        sender.put(Message(5, b"x"), SOON_S)

        assert [each.message.id for each in take_all(receiver, 1)] == [5]


def test_a_sender_that_waits_goes_on_when_there_is_room(make: Make) -> None:
    with open_receiver(make(capacity=1)) as receiver, open_sender(receiver.address) as sender:
        sender.put(Message(1, b"x"), SOON_S)
        waiting = threading.Thread(target=sender.put, args=(Message(2, b"y"), SOON_S))
        waiting.start()
        receiver.done(take_all(receiver, 1))
        waiting.join(SOON_S)

        assert texts(take_all(receiver, 1)) == [b"y"]


def test_no_more_are_taken_than_asked_for_and_none_where_there_are_none(make: Make) -> None:
    with open_receiver(make()) as receiver, open_sender(receiver.address) as sender:
        assert receiver.take(3, 0) == []
        assert receiver.take(3, 0.01) == []
        for number in range(4):
            sender.put(Message(number, b"x"), SOON_S)
        time.sleep(0.1)
        first = receiver.take(3, SOON_S)

        assert 1 <= len(first) <= 3
        assert {each.message.id for each in first + take_all(receiver, 4 - len(first))} == {0, 1, 2, 3}


def test_many_senders_and_takers_lose_and_double_nothing(make: Make) -> None:
    total, workers = 120, 3
    taken = Counter[int]()
    with open_receiver(make(capacity=5)) as receiver:
        receiver.announce(range(total))

        def send(worker: int) -> int:
            with open_sender(receiver.address) as sender:
                for number in range(worker, total, workers):
                    sender.put(Message(number, np.full(50, number)), SOON_S)
                return sender.counters.bytes

        def receive(_: int) -> None:
            deadline = time.monotonic() + SOON_S
            while taken.total() < total and time.monotonic() < deadline:
                found = receiver.take(4, 0.05)
                taken.update(each.message.id for each in found if (each.message.body == each.message.id).all())
                receiver.done(found)

        with ThreadPoolExecutor(2 * workers) as pool:
            takers = [pool.submit(receive, each) for each in range(workers)]
            senders = [pool.submit(send, each) for each in range(workers)]
            for each in takers:
                each.result()
            sent = sum(each.result() for each in senders)

        assert taken == Counter(range(total))
        assert (receiver.counters.messages, receiver.counters.bytes) == (total, sent)
        most = 5 * workers if receiver.settings.channel == "kafka" else 5 + workers
        assert 0 < receiver.counters.most_depth <= most


def test_what_comes_twice_is_given_out_once_and_takes_no_room(make: Make) -> None:
    with open_receiver(make(capacity=2)) as receiver, open_sender(receiver.address) as sender:
        for body in (b"first", b"again"):
            sender.put(Message(1, body), SOON_S)
        taken = take_all(receiver, 1)

        assert texts(taken + receiver.take(2, 0.2)) == [b"first"]
        assert (receiver.counters.messages, receiver.counters.duplicates) == (1, 1)
        sender.put(Message(2, b"x"), SOON_S)


def test_once_some_are_announced_no_other_is_given_out(make: Make) -> None:
    with open_receiver(make()) as receiver, open_sender(receiver.address) as sender:
        receiver.announce([2])
        for number in (1, 2, 2):
            sender.put(Message(number, b"x"), SOON_S)

        assert [each.message.id for each in take_all(receiver, 1)] == [2]
        assert receiver.take(2, 0.2) == []
        assert receiver.counters.duplicates == 2


def test_a_message_that_does_not_come_is_named(make: Make) -> None:
    with open_receiver(make(lost_after_s=2.0)) as receiver, open_sender(receiver.address) as sender:
        receiver.announce([1, 2, 3])
        sender.put(Message(2, b"x"), SOON_S)
        receiver.done(take_all(receiver, 1))
        with pytest.raises(MessageLost, match=r"2 of the messages .* within 2 s: 1, 3$"):
            for _ in range(200):
                assert receiver.take(1, 0.1) == []


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (Message(1, b"x" * 101), InputError, "101 bytes, the channel main takes 100"),
        (Message(1, np.array([None])), ValueError, "array of object"),
        (Message(1, np.zeros((1,) * 9)), ValueError, "9 dimensions"),
        (Message(2**63, b""), ValueError, "message id 9223372036854775808"),
        (Message(-1, b""), ValueError, "message id -1"),
    ],
    ids=["large", "objects", "dimensions", "id", "negative"],
)
def test_what_cannot_be_put_takes_no_room(make: Make, message: Message, kind: type[Exception], text: str) -> None:
    with open_receiver(make(capacity=1, max_bytes=100)) as receiver, open_sender(receiver.address) as sender:
        with pytest.raises(kind, match=text):
            sender.put(message, SOON_S)
        receiver.take(1, 0.05)
        sender.put(Message(5, b"x" * 100), SOON_S)

        assert [each.message.id for each in take_all(receiver, 1)] == [5]


def test_depth_and_wait_are_told(make: Make) -> None:
    with open_receiver(make()) as receiver, open_sender(receiver.address) as sender:
        for number in range(3):
            sender.put(Message(number, b"x"), SOON_S)
        time.sleep(0.2)
        taken = take_all(receiver, 3)

        assert max(each.depth for each in taken) == receiver.counters.most_depth == 3
        assert all(each.waited_ns > 100_000_000 for each in taken)
        assert receiver.counters.waited_ns == sum(each.waited_ns for each in taken)
        assert receiver.counters.most_waited_ns == max(each.waited_ns for each in taken)


def test_runs_do_not_see_each_other(make: Make) -> None:
    with open_receiver(make()) as one, open_receiver(make()) as other, open_sender(one.address) as sender:
        sender.put(Message(1, b"x"), SOON_S)

        assert other.take(1, 0.2) == []
        assert texts(take_all(one, 1)) == [b"x"]


def test_a_closed_channel_says_so_at_both_ends(make: Make) -> None:
    receiver = open_receiver(make())
    with open_sender(receiver.address) as sender:
        receiver.close()
        with pytest.raises(ChannelClosed, match="main"):
            until_it_fails(sender)
        with pytest.raises(ChannelClosed, match="main"):
            receiver.take(1, SOON_S)
    with pytest.raises((ChannelClosed, InputError), match="not open"):
        open_sender(receiver.settings)


def test_closing_ends_a_take_that_waits(make: Make) -> None:
    receiver = open_receiver(make())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(receiver.take, 1, 10 * SOON_S)
        time.sleep(0.2)
        receiver.close()
        with pytest.raises(ChannelClosed, match="is closed"):
            waiting.result(SOON_S)


def test_nothing_is_left(make: Make) -> None:
    settings = make()
    with open_receiver(settings) as receiver, open_sender(receiver.address) as sender:
        sender.put(Message(1, b"x"), SOON_S)
        assert settings.channel in ("memory", "shared") or left(settings)

    assert left(settings) == []


SENDER = """
import json, sys, time
from sut.channels.base import ChannelSettings
from sut.channels.registry import open_sender
from sut.channels.wire import Message
import numpy as np

with open_sender(ChannelSettings(**json.loads(sys.argv[1]))) as sender:
    for number in range(int(sys.argv[2])):
        sender.put(Message(number, np.full((3, 4), number)), 60)
    if len(sys.argv) > 3:
        sender.flush(60)
        print("sent", flush=True)
        time.sleep(600)
"""
RECEIVER = """
import json, sys, time
from dataclasses import asdict
from sut.channels.base import ChannelSettings
from sut.channels.registry import open_receiver

receiver = open_receiver(ChannelSettings(**json.loads(sys.argv[1])))
print(json.dumps(asdict(receiver.address)), flush=True)
time.sleep(600)
"""


between_processes = pytest.mark.parametrize("make", [kind for kind in KINDS if kind != "memory"], indirect=True)


@pytest.mark.slow
@between_processes
def test_a_sender_in_another_process(make: Make, tmp_path: Path) -> None:
    with open_receiver(make()) as receiver, ThreadPoolExecutor(1) as pool:
        arguments = ("-c", SENDER, json.dumps(asdict(receiver.address)), "20")
        child = pool.submit(run_python, *arguments, cwd=tmp_path)
        found = Counter[int]()
        deadline = time.monotonic() + SOON_S
        while found.total() < 20 and time.monotonic() < deadline:
            taken = receiver.take(4, 0.2)
            found.update(int(each.message.body.sum()) // 12 for each in taken)
            receiver.done(taken)

        assert child.result().code == 0, child.result().err
        assert found == Counter(range(20))
        assert receiver.take(1, 0.1) == []


@pytest.mark.slow
@between_processes
@pytest.mark.parametrize("taken_before", [0, 1])
def test_a_sender_that_is_killed_is_noticed_after_what_it_sent(make: Make, tmp_path: Path, taken_before: int) -> None:
    settings = make()
    is_watched = settings.channel == "shared"
    settings = replace(settings, lost_after_s=SOON_S if is_watched else 2.0)
    with open_receiver(settings) as receiver:
        arguments = ("-c", SENDER, json.dumps(asdict(receiver.address)), "3", "stay")
        with python_started(*arguments, cwd=tmp_path) as child:
            assert child.process.stdout is not None
            assert child.process.stdout.readline() == "sent\n"
            receiver.announce(range(4))
            taken = take_all(receiver, taken_before)
            child.process.kill()
            child.process.wait()
        taken += take_all(receiver, 3 - taken_before)
        assert {each.message.id for each in taken} == {0, 1, 2}
        told = rf"process {child.process.pid} ended" if is_watched else "within 2 s: 3$"
        with pytest.raises(ChannelError, match=told):
            take_all(receiver, 1)

    assert left(settings) == []


@pytest.mark.slow
@between_processes
def test_a_receiver_that_is_killed_is_noticed_and_its_remains_are_removed(make: Make, tmp_path: Path) -> None:
    settings = make(capacity=2)
    with python_started("-c", RECEIVER, json.dumps(asdict(settings)), cwd=tmp_path) as child:
        assert child.process.stdout is not None
        address = ChannelSettings(**json.loads(child.process.stdout.readline()))
        with open_sender(address) as sender:
            sender.put(Message(1, b"x"), SOON_S)
            child.process.kill()
            child.process.wait()
            begin = time.monotonic()
            with pytest.raises(ChannelError):
                for number in (2, 3, 4):
                    sender.put(Message(number, b"x"), 1.0)
            assert time.monotonic() - begin < SOON_S
    clean(settings)

    assert left(settings) == []
