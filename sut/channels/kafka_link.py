"""A Kafka cluster as its clients see it: how it is reached, which topics it has, what its errors mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from sut.channels.base import ChannelSettings
from sut.channels.errors import BrokerFull, BrokerGone, ChannelClosed, ChannelError, password, redacted
from sut.channels.wire import HEADER_BYTES
from sut.config.secrets import PASSWORD
from sut.errors import InputError, SetupError, SutError, one_line

Count = Callable[[str], None]
"""Takes librdkafka's statistics, JSON, once a second."""
_DEFAULT = "kafka://127.0.0.1:9092"
_FRAMING = 1024
"""Bytes that Kafka puts around one message, and room to spare."""
_MEANT = {
    "MSG_SIZE_TOO_LARGE": InputError,
    "INVALID_MSG_SIZE": InputError,
    "UNKNOWN_TOPIC_OR_PART": ChannelClosed,
    "_UNKNOWN_TOPIC": ChannelClosed,
    "_UNKNOWN_PARTITION": ChannelClosed,
    "_MSG_TIMED_OUT": BrokerGone,
    "_TIMED_OUT": BrokerGone,
    "_TRANSPORT": BrokerGone,
    "_ALL_BROKERS_DOWN": BrokerGone,
    "KAFKA_STORAGE_ERROR": BrokerFull,
}
"""What is raised for an error of Kafka's, by its name."""


def topic_of(settings: ChannelSettings) -> str:
    """The topic with a channel's messages."""
    return f"sut-{settings.run}-{settings.name}"


def control_of(topic: str) -> str:
    """The topic beside it: partition 0 has an empty message for some that are done with, 1 some a second of the run."""
    return f"{topic}.control"


class _Heard:
    """What librdkafka says of itself; keeps what says most: all brokers are down because of what the first one said."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing was said yet."""
        self.said = ""
        self.is_refused = self._is_sure = False

    def __call__(self, error: KafkaError) -> None:
        refused = error.name() == "_AUTHENTICATION"
        if refused or not self._is_sure:
            self.said, self.is_refused = _said(error), refused
            self._is_sure = error.name() != "_ALL_BROKERS_DOWN"


class Cluster:
    """The brokers behind a URL: ``kafka://[USER@]HOST:PORT[,HOST:PORT...]``, behind ``?`` what librdkafka calls it.

    Raises ``InputError`` for a bad URL or password, ``SetupError`` where no broker answers.
    """

    def __init__(self, settings: ChannelSettings) -> None:
        self._url = settings.url or _DEFAULT
        self.where = f"the Kafka at {self._url}"
        self._settings = settings
        self._heard = _Heard()
        with self._refusing():
            self._admin = AdminClient(self._configured())
        try:
            self.topics()
        except BrokerGone as error:
            if self._heard.is_refused:
                raise InputError(
                    f"{self.where} refuses us: {self._heard.said}; set {PASSWORD}, and the user in the URL"
                ) from None
            raise SetupError(str(error)) from None

    def _configured(self, more: Mapping[str, Any] = {}) -> dict[str, Any]:
        parts = urlsplit(self._url)
        user, _, hosts = parts.netloc.rpartition("@")
        if parts.scheme != "kafka" or not hosts:
            raise ValueError(f"got a channel at {self._url!r}, expected a URL kafka://HOST:PORT")
        patience_ms = max(10, int(1000 * self._settings.patience_s))
        secret = {"sasl.username": unquote(user), "sasl.password": password() or ""} if user else {}
        return {
            "bootstrap.servers": hosts,
            "client.id": f"sut-{self._settings.run}",
            "log_level": 0,  # it would go to stderr, whatever was asked for
            "error_cb": self._heard,
            "socket.timeout.ms": patience_ms,
            "reconnect.backoff.max.ms": 500,
            **secret,
            **dict(parse_qsl(parts.query)),
            **more,
        }

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Raises ``InputError`` for settings that librdkafka does not take."""
        try:
            yield
        except KafkaException as error:
            raise InputError(f"{self.where}: {_said(error.args[0])}") from None

    def producer(self, more: Mapping[str, Any] = {}, count: Count | None = None) -> Producer:
        """A producer that sends at once, with ``more`` settings of librdkafka's; ``count`` gets its statistics."""
        sizes = {"message.max.bytes": self._most_bytes(), "linger.ms": 0, "allow.auto.create.topics": False}
        timeout = {"message.timeout.ms": max(10, int(1000 * self._settings.patience_s))}
        with self._refusing():
            return Producer(self._configured({**sizes, **timeout, **_counted(count), **more}))

    def consumer(self, more: Mapping[str, Any] = {}, count: Count | None = None) -> Consumer:
        """The same of a consumer, who shares partitions with nobody."""
        group = {"group.id": f"sut-{self._settings.run}", "enable.auto.commit": False}
        sizes = {"fetch.message.max.bytes": self._most_bytes()}
        with self._refusing():
            return Consumer(self._configured({**group, **sizes, **_counted(count), **more}))

    def _most_bytes(self) -> int:
        return max(self._settings.max_bytes + HEADER_BYTES + _FRAMING, 1000)

    def topics(self) -> frozenset[str]:
        """The names of all topics. Raises ``BrokerGone`` where none tells them in time."""
        self._heard.forget()
        try:
            return frozenset(self._admin.list_topics(timeout=self._settings.patience_s).topics)
        except KafkaException as error:
            self._admin.poll(0)
            why = self._heard.said or _said(error.args[0])
            raise BrokerGone(f"{self.where} does not answer within {self._settings.patience_s:g} s: {why}") from None

    def make(self, name: str, partitions: int) -> None:
        """Make a topic of one copy. Raises ``ChannelError``."""
        config = {"max.message.bytes": str(self._most_bytes())}
        self._wait(self._admin.create_topics([NewTopic(name, partitions, 1, config=config)]))

    def delete(self, names: Iterable[str]) -> None:
        """Delete those topics that there are, until there are none. Raises ``ChannelError``."""
        deadline = time.monotonic() + self._settings.patience_s
        wanted = frozenset(names)
        while there := sorted(self.topics() & wanted):
            try:
                self._wait(self._admin.delete_topics(there))
            except ChannelError:
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise ChannelError(f"{self.where} does not delete {', '.join(there)}")

    def _wait(self, changes: Mapping[str, Future[None]]) -> None:
        for change in changes.values():
            try:
                change.result(self._settings.patience_s)
            except KafkaException as error:
                raise self.told(error.args[0]) from None
            except TimeoutError:
                raise BrokerGone(f"{self.where} did not make or delete a topic in time") from None

    def told(self, error: KafkaError) -> SutError:
        """What to raise for an error of Kafka's."""
        text = f"the channel {self._settings.name} failed at {self.where}: {_said(error)}"
        return _MEANT.get(error.name(), ChannelError)(text)

    def end(self, consumer: Consumer, topic: str, partition: int) -> int:
        """How many messages a partition has had. Raises ``ChannelError``."""
        try:
            found = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=self._settings.patience_s, cached=False
            )
        except KafkaException as error:
            raise self.told(error.args[0]) from None
        if found is None:
            raise BrokerGone(f"{self.where} did not tell how many messages {topic} has")
        return int(found[1])

    def remove_dead(self, consumer: Consumer, lease_s: float) -> None:
        """Delete the topics of runs that are over: nothing of theirs has been written for ``lease_s``."""
        own = f"sut-{self._settings.run}-"
        others = [
            name
            for name in self.topics()
            if name.startswith("sut-") and name.endswith(control_of("")) and not name.startswith(own)
        ]
        if not (before := self._signs(consumer, others)):
            return
        time.sleep(lease_s)
        after = self._signs(consumer, self.topics() & before.keys())
        dead = [name for name, signs in after.items() if signs == before[name]]
        self.delete([*dead, *(name.removesuffix(control_of("")) for name in dead)])

    def _signs(self, consumer: Consumer, topics: Iterable[str]) -> dict[str, int]:
        """How many signs of life runs have given, but for those that have deleted their topic since it was listed."""
        found = {}
        for name in topics:
            with suppress(ChannelClosed):
                found[name] = self.end(consumer, name, 1)
        return found


def _counted(count: Count | None) -> dict[str, Any]:
    return {"stats_cb": count, "statistics.interval.ms": 1000} if count else {}


def _said(error: KafkaError) -> str:
    return redacted(one_line(Exception(error.str())))
