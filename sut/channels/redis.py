"""Through a Redis: one stream for each channel.

A message is one XADD, with an XLEN behind it that says whether the next one must wait: one round trip. The receiver
reads on from the last entry that it has seen, blocking, and deletes what is done with on a connection of its own, which
a blocked read cannot hold up. So a reply that a cut connection swallows costs nothing: both ends connect once more, the
sender sends again, and what comes twice is dropped by its id.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from plugins.options import option
from sut.channels.base import BrokerCounters, Channel, ChannelSettings, Receiver, Sender, Taken, waited_ns
from sut.channels.errors import ChannelClosed, ChannelError
from sut.channels.redis_link import Link, client_name, durability, lines_of, size_of
from sut.channels.wire import Message, pack, unpack

_KEYS = "sut:channels"
"""The set of all channels' keys, by which those of killed runs are found."""
_CHECK_S = 1.0
"""How often a receiver that waits looks whether its key is there."""
_FULL_POLL_S = 0.001
"""How often a sender asks whether a full channel has room again."""


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """What may be set of a channel through Redis."""

    expiry_s: int = option(3600, "seconds after which keys that nobody uses vanish", least=1, unit="seconds")


class Redis(Channel):
    """A stream whose key carries the run's id, and expires where its run was killed."""

    name = "redis"
    options = RedisOptions

    @classmethod
    def receiver(cls, settings: ChannelSettings) -> Receiver:
        """See ``Channel``."""
        return _RedisReceiver(settings, cls.read_options(settings.options))

    @classmethod
    def sender(cls, settings: ChannelSettings) -> Sender:
        """See ``Channel``."""
        return _RedisSender(settings)

    @classmethod
    def clean(cls, settings: ChannelSettings) -> None:
        """See ``Channel``."""
        link = Link(settings)
        link.call("DEL", key := _key(settings))
        link.call("SREM", _KEYS, key)
        link.close()


def _key(settings: ChannelSettings) -> str:
    return f"sut:{settings.run}:{settings.name}"


class _RedisSender(Sender):
    def __init__(self, settings: ChannelSettings) -> None:
        super().__init__(settings)
        self._link = Link(settings)
        key = _key(settings).encode()
        if not self._link.call("EXISTS", key):
            self._link.close()
            raise ChannelClosed(f"the channel {settings.name} of this run is not open at {self._link.where}")
        # Written by hand, so that a body is copied once and not twice.
        self._head = b"*6\r\n$4\r\nXADD\r\n$%d\r\n%b\r\n$10\r\nNOMKSTREAM\r\n$1\r\n*\r\n$1\r\nm\r\n" % (len(key), key)
        self._length = self._link.pack("XLEN", key)
        self._depth = 0
        self._lock = threading.Lock()
        self._link.forget()

    def _put(self, message: Message, deadline: float) -> int:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._full(message.id)
        try:
            while self._depth >= self.settings.capacity:
                [self._depth] = self._ask(self._length, 1)
                if self._depth >= self.settings.capacity:
                    if time.monotonic() >= deadline:
                        raise self._full(message.id)
                    time.sleep(_FULL_POLL_S)
            pieces = pack(message, time.monotonic_ns())
            size = sum(map(len, pieces))
            put = b"".join((self._head, b"$%d\r\n" % size, *pieces, b"\r\n", self._length))
            entry, self._depth = self._ask(put, 2)
        finally:
            self._lock.release()
        if entry is None:
            raise ChannelClosed(f"message {message.id} was not put: {_vanished(self.settings, self._link)}")
        return int(self._depth)

    def _ask(self, commands: bytes, replies: int) -> list[Any]:
        found = self._link.ask(commands, replies)
        self.counters.wire_out, self.counters.wire_in = self._link.sent, self._link.received
        return found

    def close(self) -> None:
        self._link.close()


def _vanished(settings: ChannelSettings, link: Link) -> str:
    return (
        f"the channel {settings.name} of this run is no longer at {link.where}: closed, or its key was evicted, "
        "deleted or has expired"
    )


class _RedisReceiver(Receiver):
    def __init__(self, settings: ChannelSettings, options: RedisOptions) -> None:
        super().__init__(settings)
        self._options = options
        self._key = _key(settings)
        self._reading, self._deleting = threading.Lock(), threading.Lock()
        self._reads, self._deletes = Link(settings), Link(settings)
        self._last = b"0-0"
        self._held = 0
        self._asked_out = self._asked_in = 0
        self._is_closed = False
        _remove_dead(self._reads, settings.run)
        self._create()
        self.durability, self.remarks = durability(self._reads)
        self._reads.forget()
        self._deletes.forget()

    def _create(self) -> None:
        """An empty stream. Named in the set before it is there, so that it is found whenever we are killed."""
        self._reads.call("SADD", _KEYS, self._key)
        self._reads.call("DEL", self._key)
        self._reads.call("XGROUP", "CREATE", self._key, "made", "$", "MKSTREAM")
        self._reads.call("XGROUP", "DESTROY", self._key, "made")
        self._reads.ask(self._expiries(), 2)

    def _expiries(self) -> bytes:
        self._expires_at = time.monotonic() + self._options.expiry_s
        both = (self._reads.pack("EXPIRE", key, self._options.expiry_s) for key in (self._key, _KEYS))
        return b"".join(both)

    def _take(self, most: int, deadline: float) -> list[Taken]:
        if not self._reading.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return []
        try:
            if self._is_closed:
                raise self._closed()
            depth, entries = self._read(most, min(max(0.0, deadline - time.monotonic()), _CHECK_S))
        finally:
            self._reading.release()
        return [self._taken(entry, value, max(depth, len(entries))) for entry, (_, value) in entries]

    def _read(self, most: int, wait_s: float) -> tuple[int, Sequence[Any]]:
        """How many entries nobody has taken yet, and the next of them."""
        is_due = time.monotonic() > self._expires_at - 0.75 * self._options.expiry_s
        before = self._expiries() if is_due else b""
        block = ("BLOCK", milliseconds) if (milliseconds := int(1000 * wait_s)) else ()
        read = self._reads.pack("XREAD", "COUNT", most, *block, "STREAMS", self._key, self._last)
        commands = before + self._reads.pack("XLEN", self._key) + read
        *_, length, streams = self._reads.ask(commands, 4 if is_due else 2, wait_s)
        self._count_wire()
        if streams is None:
            self._check_key()
            return 0, ()
        [[_, entries]] = streams
        self._last = entries[-1][0]
        with self._book:
            depth = length - self._held
            self._held += len(entries)
        return depth, entries

    def _check_key(self) -> None:
        """A blocked read does not tell that there is nothing to read from."""
        if not self._reads.call("EXISTS", self._key):
            if self._is_closed:
                raise self._closed()
            raise ChannelClosed(_vanished(self.settings, self._reads))

    def _taken(self, entry: bytes, value: bytes, depth: int) -> Taken:
        try:
            message, sent_ns = unpack(value)
        except ValueError as error:
            raise ChannelError(f"an entry of {self._key} at {self._reads.where} is no message: {error}") from None
        return Taken(message, waited_ns(sent_ns), depth, entry)

    def done(self, taken: Sequence[Taken]) -> None:
        if not taken:
            return
        with self._deleting:  # answered at once: a sender may wait for the room, and the connection may have been cut
            self._deletes.call("XDEL", self._key, *(each.token for each in taken))
        with self._book:
            self._held -= len(taken)
        self._count_wire()

    def _count_wire(self) -> None:
        links = (self._reads, self._deletes)
        self.counters.wire_out = sum(link.sent for link in links) - self._asked_out
        self.counters.wire_in = sum(link.received for link in links) - self._asked_in

    def broker_counters(self) -> BrokerCounters:
        """See ``Receiver``; without the bytes of asking for them. Exact only where nobody else uses the server."""
        with self._deleting:
            about, stats = self._deletes.pack("XINFO", "STREAM", self._key), self._deletes.pack("INFO", "stats")
            [told] = self._deletes.ask(about, 1)
            self._asked_out += len(about) + len(stats)
            self._asked_in += size_of(told)
            [text] = self._deletes.ask(stats, 1)
            lines = lines_of(text)
            counted = BrokerCounters(
                dict(zip(told[::2], told[1::2], strict=True)).get(b"entries-added"),
                int(lines["total_net_input_bytes"]) - self._asked_out,
                int(lines["total_net_output_bytes"]) - self._asked_in,
            )
            self._asked_in += size_of(text)
        self._count_wire()
        return counted

    def close(self) -> None:
        self._is_closed = True
        with suppress(ChannelError), self._deleting:  # a server that is gone has told so before
            self._deletes.call("DEL", self._key)
            self._deletes.call("SREM", _KEYS, self._key)
        with self._reading:
            self._reads.close()
        self._deletes.close()


def _remove_dead(link: Link, own: str) -> None:
    """Remove the keys of runs that are over: those that have no connection to the server any more.

    Where the server does not let us see connections, expiry alone removes them.
    """
    try:
        clients = link.call("CLIENT", "LIST").decode(errors="replace")
    except ChannelError:
        return
    alive = {word.removeprefix("name=") for word in clients.split() if word.startswith("name=")}
    for key in link.call("SMEMBERS", _KEYS):
        _, run, _ = key.decode().split(":")
        if run != own and client_name(run) not in alive:
            link.call("DEL", key)
            link.call("SREM", _KEYS, key)
