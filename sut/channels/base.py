"""The seam of channels: what both ends of each promise, whatever carries the messages.

A channel has one receiver, whose process owns it and opens it first, and any number of senders, in the threads of that
process or in others. It is bounded: a message takes its room until the receiver is ``done`` with it, and senders wait
while there is none. Each message comes at least once and is given out once; their order is not promised.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from re import fullmatch
from typing import Any

import numpy as np

from plugins.base import Closing, Plugin
from sut.channels.errors import ChannelClosed, ChannelFull, MessageLost
from sut.channels.wire import Message, check
from sut.config.secrets import PASSWORD, shows_secret
from sut.errors import InputError, cut_list

_REMEMBERED = 65_536
"""Ids that a receiver remembers where nobody announces any, or four times as many as can be on their way."""


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """What an end is opened with, plain enough for any process's orders.

    ``channel`` is one of ``sut/channels/registry.py``, ``run`` the run's id and ``name`` the channel's in it. ``url``
    says where the broker is, or what else a channel needs to be found; its password is in the environment alone, see
    ``sut.config.secrets``. ``capacity`` is the most messages that are in it, ``max_bytes`` the most of body and spans.
    """

    channel: str
    run: str
    name: str = "main"
    url: str = ""
    capacity: int = 64
    max_bytes: int = 1 << 20
    patience_s: float = 5.0
    """How long a broker may take to answer, in seconds."""
    lost_after_s: float = 30.0
    """How long after it was announced a message counts as lost, in seconds."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, text in (("run", self.run), ("name", self.name)):
            if not fullmatch("[A-Za-z0-9_-]{1,64}", text):
                raise InputError(f"a channel's {what}: got {text!r}, expected up to 64 letters, digits, - and _")
        if self.capacity < 1 or self.max_bytes < 1:
            raise InputError(f"a channel for {self.capacity} messages of {self.max_bytes} bytes: expected 1 or more")
        if shows_secret(self.url):
            raise InputError(f"a channel's URL has a password here: it belongs into the environment, as {PASSWORD}")


@dataclass(frozen=True, slots=True, eq=False)
class Taken:
    """A message that was taken: how long after it was sent, how many there were to take then, itself included.

    ``token`` is what its channel knows it by.
    """

    message: Message
    waited_ns: int
    depth: int
    token: Any = None


@dataclass(slots=True)
class Counters:
    """What went through one end. ``bytes`` are those of bodies and spans, duplicates not among them.

    ``wire_out`` and ``wire_in`` are bytes to and from a broker for messages, with all that its protocol puts around
    them; 0 where that cannot be told, or there is no broker.
    """

    messages: int = 0
    bytes: int = 0
    duplicates: int = 0
    most_depth: int = 0
    waited_ns: int = 0
    most_waited_ns: int = 0
    wire_out: int = 0
    wire_in: int = 0


@dataclass(frozen=True, slots=True)
class BrokerCounters:
    """What a broker counted itself, so far: differences are what a run did.

    ``messages`` that this channel's keys, or topic, had; ``bytes_in`` and ``bytes_out`` of all that its server read and
    wrote, whoever asked, None where it does not tell.
    """

    messages: int | None
    bytes_in: int | None = None
    bytes_out: int | None = None


class Sender(Closing, ABC):
    """One end: puts messages in. Several threads may share it."""

    def __init__(self, settings: ChannelSettings) -> None:
        self.settings = settings
        self.counters = Counters()
        self._counting = threading.Lock()

    def reserve(self, number: int, shape: tuple[int, ...], dtype: Any, timeout_s: float) -> Message:
        """A message whose body is an array to be written into: in a ring, so that putting it copies nothing.

        It is put, or another with its id, its body and spans, or it is dropped. Raises as ``put`` does.
        """
        return Message(number, np.empty(shape, dtype))

    def drop(self, message: Message) -> None:
        """A reserved message will not be put."""

    def put(self, message: Message, timeout_s: float) -> None:
        """Put a message in, waiting for room.

        Raises ``ChannelFull`` where there is none within ``timeout_s``, ``InputError`` for a message that is larger
        than ``max_bytes``, ``ValueError`` for one that no channel takes, and a ``ChannelError`` where the channel
        failed, be it with an earlier message; that takes ``patience_s`` more at most.
        """
        check(message)
        nbytes = self._fitting(message.id, message.nbytes)
        depth = self._put(message, time.monotonic() + timeout_s)
        with self._counting:
            self.counters.messages += 1
            self.counters.bytes += nbytes
            self.counters.most_depth = max(self.counters.most_depth, depth)

    def flush(self, timeout_s: float) -> None:
        """Wait until all that was put is in the channel, should this process end: some send while it goes on.

        Raises ``ChannelError`` for what did not reach it within ``timeout_s``.
        """

    @abstractmethod
    def _put(self, message: Message, deadline: float) -> int:
        """The same; returns how many messages are in the channel then, as far as this end can know."""

    def _fitting(self, number: int, nbytes: int) -> int:
        if nbytes > self.settings.max_bytes:
            raise InputError(
                f"message {number} has {nbytes:,} bytes, the channel {self.settings.name} takes "
                f"{self.settings.max_bytes:,}: open it with a larger max_bytes"
            )
        return nbytes

    def _full(self, number: int) -> ChannelFull:
        return ChannelFull(
            f"message {number} was not put: the channel {self.settings.name} stayed full of "
            f"{self.settings.capacity} messages"
        )


class Receiver(Closing, ABC):
    """The other end, of which there is one: takes messages out. Several threads may share it."""

    durability = "none"
    """What survives where the broker's process, or its machine, ends: as the broker itself says, in words."""
    remarks: tuple[str, ...] = ()
    """What else the user should know of this broker."""

    def __init__(self, settings: ChannelSettings) -> None:
        self.settings = settings
        self.counters = Counters()
        self._book = threading.Lock()
        self._announced: OrderedDict[int, float] = OrderedDict()
        self._is_told = False
        self._recent: OrderedDict[int, None] = OrderedDict()

    @property
    def address(self) -> ChannelSettings:
        """What senders open their ends with."""
        return self.settings

    def announce(self, ids: Iterable[int]) -> None:
        """These messages will be put now, told before they are: from the first call on no other is given out."""
        lost_at = time.monotonic() + self.settings.lost_after_s
        with self._book:
            self._is_told = True
            self._announced.update(dict.fromkeys(ids, lost_at))

    def withdraw(self, ids: Iterable[int]) -> None:
        """These messages, which were announced, will not be put after all: one that comes is none of ours."""
        with self._book:
            for number in ids:
                self._announced.pop(number, None)

    def take(self, most: int, timeout_s: float) -> list[Taken]:
        """Up to ``most`` messages, waiting for the first; none where nothing came within ``timeout_s``.

        Raises ``MessageLost`` where an announced one is late by more than ``lost_after_s``, ``ChannelClosed`` once this
        end was closed, and another ``ChannelError`` where the channel failed.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            arrived = self._take(most, deadline)
            with self._book:
                fresh = [each for each in arrived if self._is_new(each.message.id)]
                self._count(fresh, len(arrived) - len(fresh))
                late = self._late()
            if len(fresh) < len(arrived):
                self.done([each for each in arrived if each not in fresh])
            if late:
                raise MessageLost(
                    f"{len(late)} of the messages announced in the channel {self.settings.name} did not come within "
                    f"{self.settings.lost_after_s:g} s: {', '.join(cut_list(late))}"
                )
            if fresh or time.monotonic() >= deadline:
                return fresh

    @abstractmethod
    def _take(self, most: int, deadline: float) -> list[Taken]:
        """The same, with what may have come before."""

    @abstractmethod
    def done(self, taken: Sequence[Taken]) -> None:
        """Nothing of these is read any more: their room is free."""

    def _closed(self) -> ChannelClosed:
        return ChannelClosed(f"the channel {self.settings.name} is closed")

    def broker_counters(self) -> BrokerCounters | None:
        """What the broker counted so far; None where there is none."""
        return None

    def _count(self, fresh: Sequence[Taken], duplicates: int) -> None:
        counters = self.counters
        counters.duplicates += duplicates
        counters.messages += len(fresh)
        for each in fresh:
            counters.bytes += each.message.nbytes
            counters.most_depth = max(counters.most_depth, each.depth)
            counters.waited_ns += each.waited_ns
            counters.most_waited_ns = max(counters.most_waited_ns, each.waited_ns)

    def _is_new(self, number: int) -> bool:
        if self._is_told:
            return self._announced.pop(number, None) is not None
        if number in self._recent:
            return False
        self._recent[number] = None
        if len(self._recent) > max(_REMEMBERED, 4 * self.settings.capacity):
            self._recent.popitem(last=False)
        return True

    def _late(self) -> list[str]:
        """The ids that were announced too long ago: they were announced in this order."""
        if not self._announced or next(iter(self._announced.values())) > (now := time.monotonic()):
            return []
        return [str(number) for number, lost_at in self._announced.items() if lost_at <= now]


class Channel(Plugin, ABC):
    """One way to carry messages: how its ends are opened, and how what a run left behind is removed."""

    @classmethod
    @abstractmethod
    def receiver(cls, settings: ChannelSettings) -> Receiver:
        """Open the channel. What killed runs have left at the broker is removed first; closing removes one's own.

        Raises ``InputError`` for a bad URL, option or password, ``SetupError`` where the broker cannot be reached.
        """

    @classmethod
    @abstractmethod
    def sender(cls, settings: ChannelSettings) -> Sender:
        """Open a sender of an open channel, with its ``address``. Raises as ``receiver`` does."""

    @classmethod
    def clean(cls, settings: ChannelSettings) -> None:
        """Remove what a channel has left at the broker, of a run whose process was ended, say. Raises the same."""


def waited_ns(sent_ns: int) -> int:
    """How long ago that was on the machine's monotonic clock, which its processes share."""
    return max(0, time.monotonic_ns() - sent_ns)


def elsewhere(settings: ChannelSettings, url: str) -> ChannelSettings:
    """The same settings with the place where the channel is found."""
    return replace(settings, url=url)
