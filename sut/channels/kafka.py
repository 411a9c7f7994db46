"""Through any broker that speaks Kafka's protocol: one topic for each channel, of one partition, that its run makes and
deletes.

A sender hands messages to librdkafka, which sends them at once; a delivery that fails is raised by the next put, by
``flush`` or when the sender is closed. Kafka has no bound: the receiver tells in a topic beside the messages' how many
are done with, and a sender asks for its length where it believes the channel to be full. It knows what others have put
by the offsets of its own messages alone, so each of several may have ``capacity`` messages on their way. Nothing is
fetched from that topic, and no group is formed, so that nothing outlives the topics. Whatever Kafka delivers twice is
dropped by its id.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from confluent_kafka import KafkaError, TopicPartition

from plugins.options import option
from sut.channels.base import BrokerCounters, Channel, ChannelSettings, Counters, Receiver, Sender, Taken, waited_ns
from sut.channels.errors import BrokerGone, ChannelClosed, ChannelError, ChannelFull
from sut.channels.kafka_link import Cluster, Count, control_of, topic_of
from sut.channels.wire import Message, pack, unpack
from sut.errors import SutError

_CHECK_S = 1.0
"""How often both ends look whether the topic is still there: not every broker says so to who writes to it."""
_FULL_POLL_S = 0.002
_SIGN_S = 0.2
"""How often a run gives a sign of life, whatever lease others believe in."""


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """What may be set of a channel through Kafka."""

    acks: Literal["all", "1"] = option("all", "whose copy of a message must be written before it counts as sent")
    fetch_wait_ms: int = option(
        10, "how long the broker may hold back an empty answer; Kafka itself answers when there is a message", least=1
    )
    lease_s: float = option(10.0, "after so many seconds without a sign of life another run is over", least=1)


class Kafka(Channel):
    """A topic whose name carries the run's id."""

    name = "kafka"
    options = KafkaOptions

    @classmethod
    def receiver(cls, settings: ChannelSettings) -> Receiver:
        """See ``Channel``."""
        return _KafkaReceiver(settings, cls.read_options(settings.options))

    @classmethod
    def sender(cls, settings: ChannelSettings) -> Sender:
        """See ``Channel``."""
        return _KafkaSender(settings, cls.read_options(settings.options))

    @classmethod
    def clean(cls, settings: ChannelSettings) -> None:
        """See ``Channel``."""
        Cluster(settings).delete(_topics(settings))


def _topics(settings: ChannelSettings) -> tuple[str, str]:
    return topic_of(settings), control_of(topic_of(settings))


def _quantum(settings: ChannelSettings) -> int:
    """How many messages are done with before senders are told."""
    return max(1, settings.capacity // 4)


class _Watch:
    """Looks now and then whether a channel's topic is there."""

    def __init__(self, cluster: Cluster, settings: ChannelSettings) -> None:
        self._cluster, self._settings = cluster, settings
        self._looked = time.monotonic()

    def look(self) -> None:
        """Raises ``ChannelClosed`` where it is not, ``BrokerGone`` where the broker is not."""
        if time.monotonic() < self._looked + _CHECK_S:
            return
        if topic_of(self._settings) not in self._cluster.topics():
            raise _not_there(self._settings, self._cluster)
        self._looked = time.monotonic()


def _not_there(settings: ChannelSettings, cluster: Cluster) -> ChannelClosed:
    return ChannelClosed(
        f"the channel {settings.name} of this run is not open at {cluster.where}: its topic was deleted, or the broker "
        "was started again"
    )


def _counting(counters: Counters) -> Count:
    """What takes librdkafka's statistics. It does not hold the end that holds the client that holds it."""

    def count(statistics: str) -> None:
        found = json.loads(statistics)
        counters.wire_out, counters.wire_in = found["tx_bytes"], found["rx_bytes"]

    return count


class _KafkaSender(Sender):
    def __init__(self, settings: ChannelSettings, options: KafkaOptions) -> None:
        super().__init__(settings)
        self._cluster = Cluster(settings)
        self._topic, self._control = _topics(settings)
        if self._topic not in self._cluster.topics():
            raise _not_there(settings, self._cluster)
        self._watch = _Watch(self._cluster, settings)
        self._producer = self._cluster.producer({"acks": options.acks}, _counting(self.counters))
        self._probe = self._cluster.consumer()
        self._lock = threading.Lock()
        self._end = self._on_their_way = self._done = 0
        self._failed: SutError | None = None
        self._is_over = False

    def _put(self, message: Message, deadline: float) -> int:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._full(message.id)
        try:
            self._producer.poll(0)
            self._watch.look()
            self._wait_for_room(message.id, deadline)
            if self._failed is not None:
                raise self._failed
            self._produce(message)
            return self._depth()
        except (ChannelClosed, BrokerGone):
            self._is_over = True
            raise
        finally:
            self._lock.release()

    def _produce(self, message: Message) -> None:
        value = b"".join(pack(message, time.monotonic_ns()))
        try:
            self._producer.produce(self._topic, value, partition=0, on_delivery=self._delivered)
        except BufferError:
            raise ChannelFull(f"message {message.id} was not put: librdkafka has no room for more") from None
        self._on_their_way += 1
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        self._on_their_way -= 1
        if error is None:
            self._end = max(self._end, message.offset() + 1)
        elif self._failed is None:
            self._failed = self._cluster.told(error)

    def _depth(self) -> int:
        return max(0, self._end - self._done) + self._on_their_way

    def _wait_for_room(self, number: int, deadline: float) -> None:
        while self._depth() >= self.settings.capacity and self._failed is None:
            self._done = _quantum(self.settings) * self._cluster.end(self._probe, self._control, 0)
            if self._depth() < self.settings.capacity:
                return
            if time.monotonic() >= deadline:
                raise self._full(number)
            self._producer.poll(_FULL_POLL_S)
            self._watch.look()

    def flush(self, timeout_s: float) -> None:
        """See ``Sender``."""
        with self._lock:
            left = self._producer.flush(timeout_s)
            failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        if left:
            raise BrokerGone(f"{left} messages did not reach {self._cluster.where} within {timeout_s:g} s")

    def close(self) -> None:
        """See ``Closing``. Raises as ``flush`` does, unless a put has told of the end before."""
        try:
            if self._is_over:
                self._producer.purge()
            else:
                self.flush(self.settings.patience_s)
        finally:
            self._probe.close()


class _KafkaReceiver(Receiver):
    def __init__(self, settings: ChannelSettings, options: KafkaOptions) -> None:
        super().__init__(settings)
        self.durability = f"the broker's own affair, acks={options.acks}"
        self._cluster = Cluster(settings)
        self._topic, self._control = _topics(settings)
        self._consumer = self._cluster.consumer({"fetch.wait.max.ms": options.fetch_wait_ms}, _counting(self.counters))
        self._cluster.delete(_topics(settings))
        self._cluster.remove_dead(self._consumer, options.lease_s)
        # One to a batch: there are brokers whose length of a topic leaves out what else is in the last batch.
        self._producer = self._cluster.producer({"batch.num.messages": 1})
        self._cluster.make(self._control, 2)
        self._cluster.make(self._topic, 1)
        self._consumer.assign([TopicPartition(self._topic, 0, 0)])
        self._watch = _Watch(self._cluster, settings)
        self._reading = threading.Lock()
        self._done = self._told = 0
        self._over = threading.Event()
        self._living = threading.Thread(target=self._live, daemon=True)
        self._living.start()

    def _live(self) -> None:
        """Give signs of life until this end is closed."""
        while not self._over.wait(_SIGN_S):
            self._tell(1)

    def _tell(self, partition: int) -> None:
        with suppress(BufferError):  # a broker that takes nothing is noticed by those who wait for it
            self._producer.produce(self._control, b"", partition=partition)
        self._producer.poll(0)

    def _take(self, most: int, deadline: float) -> list[Taken]:
        if not self._reading.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return []
        try:
            if self._over.is_set():
                raise self._closed()
            first = self._consumer.poll(min(max(0.0, deadline - time.monotonic()), _CHECK_S))
            if first is None:
                self._watch.look()
                return []
            found = [first, *(self._consumer.consume(most - 1, 0) if most > 1 else ())]
            _, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, 0), cached=True)
        finally:
            self._reading.release()
        return [self._taken(each, max(len(found), end - (first.offset() or 0))) for each in found]

    def _taken(self, found: Any, depth: int) -> Taken:
        if (error := found.error()) is not None:
            raise self._cluster.told(error)
        try:
            message, sent_ns = unpack(found.value() or b"")
        except ValueError as error:
            raise ChannelError(f"a record of {self._topic} at {self._cluster.where} is no message: {error}") from None
        return Taken(message, waited_ns(sent_ns), depth)

    def done(self, taken: Sequence[Taken]) -> None:
        with self._book:
            self._done += len(taken)
            quanta = (self._done - self._told) // _quantum(self.settings)
            self._told += quanta * _quantum(self.settings)
        for _ in range(quanta):
            self._tell(0)

    def broker_counters(self) -> BrokerCounters:
        """See ``Receiver``: Kafka tells the number of messages, and nothing of bytes.

        A broker may leave out what else is in the last batch, which are messages that were put at the same time.
        """
        with self._reading:
            return BrokerCounters(self._cluster.end(self._consumer, self._topic, 0))

    def close(self) -> None:
        if self._over.is_set():
            return
        self._over.set()
        self._living.join()
        with self._reading:
            self._consumer.close()  # before its topic goes: there are brokers and clients that do not survive it
        self._producer.flush(self.settings.patience_s)
        with suppress(ChannelError):  # a broker that is gone has told so before
            self._cluster.delete(_topics(self.settings))
