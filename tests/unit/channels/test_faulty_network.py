"""Messages that are lost, doubled, late, out of order, and connections that are cut, on the way to real brokers."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sut.channels.base import ChannelSettings, Receiver
from sut.channels.errors import BrokerGone, MessageLost
from sut.channels.registry import open_receiver, open_sender
from sut.channels.wire import Message
from tests.brokers import Broker, free_port, kafka_broker, left
from tests.proxy import DELAY_S, KAFKA, REDIS, Fault, Proxy, proxied

SOON_S = 30.0


@dataclass(frozen=True, slots=True)
class Way:
    """A broker behind a proxy, and settings to be reached by it."""

    proxy: Proxy
    channel: str

    def settings(self, **more: Any) -> ChannelSettings:
        url = f"{self.channel}://127.0.0.1:{self.proxy.port}"
        options = {"lease_s": 1.0} if self.channel == "kafka" else {}
        return ChannelSettings(self.channel, uuid.uuid4().hex, **{"url": url, "options": options, "capacity": 8} | more)


@pytest.fixture
def redis_way(the_redis: Broker) -> Iterator[Way]:
    with proxied(the_redis.port, REDIS) as proxy:
        yield Way(proxy, "redis")


@pytest.fixture(scope="module")
def _kafka_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, int]]:
    port = free_port()
    with kafka_broker(tmp_path_factory.mktemp("kafka"), advertised=port) as broker:
        yield broker, port


@pytest.fixture
def kafka_way(_kafka_behind: tuple[Broker, int]) -> Iterator[Way]:
    broker, port = _kafka_behind
    with proxied(broker.port, KAFKA, port=port) as proxy:
        yield Way(proxy, "kafka")


@pytest.fixture(params=["redis", "kafka"])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.getfixturevalue(f"{request.param}_way")
    return found


def received(receiver: Receiver, count: int, further_s: float = 0.3) -> list[int]:
    """So many ids, and whatever comes beyond them."""
    found: list[int] = []
    deadline = time.monotonic() + SOON_S
    while len(found) < count and time.monotonic() < deadline:
        taken = receiver.take(4, 0.2)
        found += [each.message.id for each in taken]
        receiver.done(taken)
    return found + [each.message.id for each in receiver.take(4, further_s)]


def exchanged(way: Way, plan: list[Fault], count: int, **more: Any) -> tuple[list[int], Receiver]:
    """Ids of so many messages in the order in which they came, put one by one while the plan was carried out."""
    with open_receiver(way.settings(**more)) as receiver, open_sender(receiver.address) as sender:
        receiver.announce(range(count))
        way.proxy.plan[:] = plan
        for number in range(count):
            sender.put(Message(number, bytes(100)), SOON_S)
            sender.flush(SOON_S)
        found = received(receiver, count)
        way.proxy.plan.clear()
    assert left(receiver.settings) == []
    return found, receiver


@pytest.mark.parametrize("fault", [Fault.PASS, Fault.DELAY, Fault.CUT_BEFORE])
def test_what_is_late_or_cut_off_comes_once(way: Way, fault: Fault) -> None:
    found, receiver = exchanged(way, [Fault.PASS, fault], 4)

    assert sorted(found) == [0, 1, 2, 3]
    assert receiver.counters.duplicates == 0


@pytest.mark.parametrize("fault", [Fault.DOUBLE, Fault.CUT_AFTER])
def test_what_is_stored_twice_comes_once(way: Way, fault: Fault) -> None:
    found, receiver = exchanged(way, [Fault.PASS, fault], 4)

    assert sorted(found) == [0, 1, 2, 3]
    assert receiver.counters.duplicates == 1


def test_order_is_not_needed(redis_way: Way) -> None:
    found, _ = exchanged(redis_way, [Fault.HOLD], 3)

    assert found == [1, 0, 2]


def test_what_the_broker_loses_is_named(redis_way: Way) -> None:
    with pytest.raises(MessageLost, match=r"1 of the messages .* within 1.5 s: 1$"):
        exchanged(redis_way, [Fault.PASS, Fault.LOSE], 3, lost_after_s=1.5)


def test_a_broker_that_is_too_slow_is_given_up(redis_way: Way) -> None:
    with pytest.raises(BrokerGone, match="did not answer within"):
        exchanged(redis_way, [Fault.DELAY], 1, patience_s=DELAY_S / 2)


def test_a_receiver_that_waits_outlives_its_connection(way: Way) -> None:
    with open_receiver(way.settings()) as receiver, open_sender(receiver.address) as sender:
        found: list[int] = []
        waiting = threading.Thread(target=lambda: found.extend(received(receiver, 1)))
        waiting.start()
        time.sleep(0.2)
        way.proxy.cut()
        sender.put(Message(1, b"x"), SOON_S)
        waiting.join(SOON_S)

        assert found == [1]


def test_what_was_done_with_is_so_in_spite_of_a_cut(redis_way: Way) -> None:
    with open_receiver(redis_way.settings(capacity=1)) as receiver, open_sender(receiver.address) as sender:
        for number in range(6):
            sender.put(Message(number, b"x"), SOON_S)
            taken = receiver.take(1, SOON_S)
            redis_way.proxy.cut()
            receiver.done(taken)

            assert [each.message.id for each in taken] == [number]


@pytest.mark.first(2)
@pytest.mark.parametrize("seed", range(6))
def test_any_faults_in_any_order_lose_and_double_nothing(way: Way, seed: int) -> None:
    harmless = [Fault.PASS, Fault.DOUBLE, Fault.CUT_AFTER, Fault.CUT_BEFORE]
    plan = random.Random(seed).choices(harmless, k=30)
    # Two cuts in a row are a connection that does not last: that ends the run.
    for at in range(1, len(plan)):
        if plan[at] in harmless[2:] and plan[at - 1] in harmless[2:]:
            plan[at] = Fault.PASS
    found, _ = exchanged(way, plan, 30, capacity=64)

    assert Counter(found) == Counter(range(30))
