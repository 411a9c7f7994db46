"""Between threads of one process: messages are handed over as they are, nothing is copied."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from sut.channels.base import Channel, ChannelSettings, Receiver, Sender, Taken, waited_ns
from sut.channels.errors import ChannelClosed
from sut.channels.wire import Message
from sut.errors import InputError


class _Room:
    """Messages on their way, each with when it was sent, and how many have not been done with."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.ready: deque[tuple[Message, int]] = deque()
        self.held = 0
        self.closed = False


_OPEN: dict[tuple[str, str], _Room] = {}
"""The channels of this process by run and name."""


class Memory(Channel):
    """A queue of references."""

    name = "memory"

    @classmethod
    def receiver(cls, settings: ChannelSettings) -> Receiver:
        """See ``Channel``."""
        cls.read_options(settings.options)
        room = _OPEN[settings.run, settings.name] = _Room()
        return _MemoryReceiver(settings, room)

    @classmethod
    def sender(cls, settings: ChannelSettings) -> Sender:
        """See ``Channel``."""
        room = _OPEN.get((settings.run, settings.name))
        if room is None:
            raise InputError(
                f"the channel {settings.name} of this run is not open in this process: memory joins threads of one "
                "process, shared joins processes"
            )
        return _MemorySender(settings, room)


class _MemorySender(Sender):
    def __init__(self, settings: ChannelSettings, room: _Room) -> None:
        super().__init__(settings)
        self._room = room

    def _put(self, message: Message, deadline: float) -> int:
        room = self._room
        with room.changed:
            while room.held >= self.settings.capacity and not room.closed:
                if not room.changed.wait(max(0.0, deadline - time.monotonic())):
                    raise self._full(message.id)
            if room.closed:
                raise ChannelClosed(f"message {message.id} was not put: the channel {self.settings.name} is closed")
            room.held += 1
            room.ready.append((message, time.monotonic_ns()))
            room.changed.notify_all()
            return room.held


class _MemoryReceiver(Receiver):
    def __init__(self, settings: ChannelSettings, room: _Room) -> None:
        super().__init__(settings)
        self._room = room

    def _take(self, most: int, deadline: float) -> list[Taken]:
        room = self._room
        with room.changed:
            while not room.ready and not room.closed:
                if not room.changed.wait(max(0.0, deadline - time.monotonic())):
                    return []
            if room.closed:
                raise self._closed()
            depth = len(room.ready)
            batch = [room.ready.popleft() for _ in range(min(most, depth))]
        return [Taken(message, waited_ns(sent_ns), depth) for message, sent_ns in batch]

    def done(self, taken: Sequence[Taken]) -> None:
        with self._room.changed:
            self._room.held -= len(taken)
            self._room.changed.notify_all()

    def close(self) -> None:
        if _OPEN.get((self.settings.run, self.settings.name)) is self._room:
            del _OPEN[self.settings.run, self.settings.name]
        with self._room.changed:
            self._room.closed = True
            self._room.ready.clear()
            self._room.changed.notify_all()
