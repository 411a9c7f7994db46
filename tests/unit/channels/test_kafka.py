"""What goes wrong with a broker of Kafka's protocol: each ends in a line, in bounded time, and leaves nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sut.channels.base import BrokerCounters, ChannelSettings, Receiver, Sender
from sut.channels.errors import BrokerGone, ChannelClosed, ChannelError, ChannelFull
from sut.channels.kafka_link import Cluster, control_of, topic_of
from sut.channels.registry import clean, open_receiver, open_sender
from sut.channels.wire import HEADER_BYTES, Message
from sut.config.secrets import PASSWORD
from sut.errors import InputError, SetupError
from tests.brokers import Broker, free_port, kafka_broker, left
from tests.children import python_started

SOON_S = 20.0


def settings_of(broker: Broker, **more: Any) -> ChannelSettings:
    given: dict[str, Any] = {"url": f"kafka://127.0.0.1:{broker.port}", "options": {"lease_s": 1.0}} | more
    return ChannelSettings("kafka", uuid.uuid4().hex, **given)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Broker]:
    """A broker that this test may spoil."""
    with kafka_broker(tmp_path) as broker:
        yield broker


def ends(settings: ChannelSettings) -> tuple[Receiver, Sender]:
    receiver = open_receiver(settings)
    return receiver, open_sender(receiver.address)


def received(receiver: Receiver, count: int) -> list[int]:
    found: list[int] = []
    deadline = time.monotonic() + SOON_S
    while len(found) < count and time.monotonic() < deadline:
        taken = receiver.take(4, 0.2)
        found += [each.message.id for each in taken]
        receiver.done(taken)
    return found


def test_its_own_counter_is_ours(the_kafka: Broker) -> None:
    receiver, sender = ends(settings_of(the_kafka))
    with receiver, sender:
        assert receiver.broker_counters() == BrokerCounters(0)
        for number in range(20):
            sender.put(Message(number, bytes(number * 1000)), SOON_S)
            assert received(receiver, 1) == [number]

        assert receiver.broker_counters() == BrokerCounters(20)
        assert receiver.counters.messages == sender.counters.messages == 20
        payload = sender.counters.bytes + 20 * HEADER_BYTES
        deadline, number = time.monotonic() + SOON_S, 100
        while time.monotonic() < deadline and min(sender.counters.wire_out, receiver.counters.wire_in) < payload:
            sender.put(Message(number := number + 1, b""), SOON_S)
            received(receiver, 1)
        assert min(sender.counters.wire_out, receiver.counters.wire_in) > payload


def test_what_durability_is_depends_on_the_broker(the_kafka: Broker) -> None:
    with open_receiver(settings_of(the_kafka, options={"lease_s": 1.0, "acks": "1"})) as receiver:
        assert receiver.durability == "the broker's own affair, acks=1"


def test_a_broker_that_is_not_there() -> None:
    url = f"kafka://127.0.0.1:{free_port()}"
    with pytest.raises(
        SetupError, match=r"^the Kafka at kafka://127.0.0.1:\d+ does not answer within 0.5 s: .*refused"
    ):
        open_receiver(ChannelSettings("kafka", "run", url=url, patience_s=0.5))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://127.0.0.1", "expected a URL kafka://HOST:PORT"),
        ("kafka://", "expected a URL kafka://HOST:PORT"),
        ("kafka://127.0.0.1:1?no.such.thing=1", 'No such configuration property: "no.such.thing"'),
    ],
)
def test_what_is_no_url_of_a_kafka(url: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        open_receiver(ChannelSettings("kafka", "run", url=url))


def test_a_user_that_the_broker_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "secret")
    with kafka_broker(tmp_path, "--authentication") as broker:
        url = f"kafka://me@127.0.0.1:{broker.port}?security.protocol=SASL_PLAINTEXT&sasl.mechanism=SCRAM-SHA-512"
        with pytest.raises(InputError, match=rf"refuses us: .*SASL.*; set {PASSWORD}") as raised:
            open_receiver(ChannelSettings("kafka", "run", url=url, patience_s=5.0))
        assert "secret" not in str(raised.value)


def test_a_broker_that_dies_in_the_run(own: Broker) -> None:
    receiver, sender = ends(settings_of(own, patience_s=1.0))
    sender.put(Message(1, b"x"), SOON_S)
    assert received(receiver, 1) == [1]
    own.kill()
    begin = time.monotonic()
    with pytest.raises(BrokerGone, match="does not answer within 1 s"):
        receiver.take(1, SOON_S)
    with pytest.raises(ChannelError):
        for number in range(2, 2000):
            sender.put(Message(number, b"x"), 0.5)
            time.sleep(0.01)
    sender.close()
    receiver.close()
    assert time.monotonic() - begin < SOON_S


def test_what_was_put_and_not_delivered_is_told_at_the_end(own: Broker) -> None:
    receiver, sender = ends(settings_of(own, patience_s=1.0))
    own.kill()
    sender.put(Message(1, b"x"), SOON_S)
    with pytest.raises(ChannelError):
        sender.close()
    receiver.close()


def test_a_broker_that_is_started_again_has_lost_what_it_held(own: Broker) -> None:
    receiver, sender = ends(settings_of(own, patience_s=3.0))
    own.kill()
    own.start()
    with pytest.raises(ChannelError, match=r"not open|not answer"):
        for _ in range(20):
            assert receiver.take(1, 1.0) == []
    with pytest.raises(ChannelError):
        for number in range(2000):
            sender.put(Message(number, b"x"), 0.5)
            time.sleep(0.01)
    receiver.close()


def test_what_others_write_into_the_topic_is_no_message(the_kafka: Broker) -> None:
    receiver, sender = ends(settings_of(the_kafka))
    with receiver, sender:
        producer = Cluster(receiver.settings).producer()
        producer.produce(topic_of(receiver.settings), b"other", partition=0)
        producer.flush(SOON_S)
        with pytest.raises(ChannelError, match="is no message"):
            received(receiver, 1)


def test_topics_that_vanish_are_told_at_both_ends(the_kafka: Broker) -> None:
    receiver, sender = ends(settings_of(the_kafka))
    receiver._consumer.unassign()  # type: ignore[attr-defined]  # a fetch of a topic that goes ends librdkafka here
    receiver.take(1, 0.5)
    clean(receiver.settings)
    with pytest.raises(ChannelClosed, match="its topic was deleted"):
        receiver.take(1, SOON_S)
    with pytest.raises(ChannelClosed, match="its topic was deleted"):
        for number in range(2000):
            try:
                sender.put(Message(number, b"x"), 0.1)
            except ChannelFull:
                continue
    receiver.close()
    sender.close()
    assert left(receiver.settings) == []


def test_a_run_does_not_wait_for_its_own_channels(the_kafka: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    first = settings_of(the_kafka, name="answers")
    with open_receiver(first):
        monkeypatch.setattr("sut.channels.kafka_link.time.sleep", lambda seconds: pytest.fail("it waits"))
        with open_receiver(replace(first, name="crops")):
            assert len(left(first)) == 4


def test_topics_that_another_run_deletes_before_they_are_read_are_gone(
    the_kafka: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted, own = settings_of(the_kafka), settings_of(the_kafka)
    topics = Cluster.topics
    monkeypatch.setattr(Cluster, "topics", lambda cluster: topics(cluster) | {control_of(topic_of(deleted))})
    with open_receiver(own):
        assert len(left(own)) == 2
    monkeypatch.undo()
    assert left(own) == []


@pytest.mark.slow
def test_the_next_run_removes_what_a_killed_one_left_and_nothing_of_a_living_one(
    the_kafka: Broker, tmp_path: Path
) -> None:
    script = (
        "import json, sys, time\n"
        "from sut.channels.base import ChannelSettings\n"
        "from sut.channels.registry import open_receiver\n"
        "receiver = open_receiver(ChannelSettings(**json.loads(sys.argv[1])))\n"
        "print('open', flush=True)\n"
        "time.sleep(600)\n"
    )
    killed, living = settings_of(the_kafka), settings_of(the_kafka)
    with open_receiver(living), python_started("-c", script, json.dumps(asdict(killed)), cwd=tmp_path) as child:
        assert child.process.stdout is not None
        assert child.process.stdout.readline() == "open\n"
        assert len(left(killed)) == 2
        child.process.kill()
        child.process.wait()
        open_receiver(settings_of(the_kafka, options={"lease_s": 5.0})).close()

        assert left(killed) == []
        assert sorted(left(living)) == sorted([topic_of(living), control_of(topic_of(living))])
    assert left(living) == []
