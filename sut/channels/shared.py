"""Between processes of one machine: a ring of fixed slots in shared memory, which senders write into and the receiver
reads in place.

What is handed over is the number of a slot, four bytes through a pipe; a second pipe brings free ones back. So the
kernel does the waiting and the waking up, gives each number to one reader, orders memory on any processor, and tells
when the other end is gone. Memory and pipes have no name anywhere: they end with the last process that has them open,
however that ends. Senders find them in the receiver's own ``/proc/PID/fd``.
"""

from __future__ import annotations

import mmap
import os
import select
import struct
import sys
import time
from array import array
from collections.abc import Sequence
from contextlib import suppress
from fcntl import ioctl
from math import prod
from pathlib import Path
from termios import FIONREAD
from typing import Any

import numpy as np

from sut.channels.base import Channel, ChannelSettings, Receiver, Sender, Taken, elsewhere, waited_ns
from sut.channels.errors import ChannelClosed
from sut.channels.wire import (
    FORM,
    HEADER_BYTES,
    Message,
    array_on,
    body_in,
    flat,
    form_of,
    size_of,
    with_body,
    write_head,
)
from sut.errors import InputError, SetupError, reason_of

_ALIGNED = 64
_UNWATCHED = -1
_MOST_SLOTS = 8192
"""Their numbers fit into a pipe, so that giving one back never waits."""
_NUMBER = struct.Struct("=I")
_DROPPED, _HELLO, _BYE, _WAKE = 1 << 29, 1 << 30, 1 << 31, 2**32 - 1
"""What numbers that are no slot's say: a reserved slot is free (its number is added), a sender's process (the same)
comes, it goes, the receiver is closed.
"""


class Shared(Channel):
    """A ring in shared memory."""

    name = "shared"

    @classmethod
    def receiver(cls, settings: ChannelSettings) -> Receiver:
        """See ``Channel``. Raises ``SetupError`` where there is no memory for the ring."""
        cls.read_options(settings.options)
        return _SharedReceiver(settings)

    @classmethod
    def sender(cls, settings: ChannelSettings) -> Sender:
        """See ``Channel``."""
        return _SharedSender(settings)


class _Pipes:
    """Descriptors that are closed when nobody uses them any more: a thread may wait for one while another closes."""

    def __init__(self, numbers: int, waiting: int) -> None:
        self.numbers, self.waiting = numbers, waiting
        """Where numbers are written, and where they are waited for."""
        os.set_blocking(waiting, False)
        self._poll = select.epoll()
        self.watch(waiting)

    def __del__(self) -> None:
        self._poll.close()
        os.close(self.numbers)
        os.close(self.waiting)

    def watch(self, descriptor: int) -> None:
        """``wait`` for this as well, until it is closed."""
        self._poll.register(descriptor, select.EPOLLIN)

    def tell(self, *numbers: int) -> None:
        """Write numbers, for the other end to wait for. Raises ``BrokenPipeError`` where there is none."""
        os.write(self.numbers, array("I", numbers).tobytes())

    def next(self, most: int) -> array[int] | None:
        """Numbers that are there, the other end's; empty where it is gone, None where there are none."""
        try:
            return array("I", os.read(self.waiting, _NUMBER.size * most))
        except BlockingIOError:
            return None

    def wait(self, deadline: float) -> list[int]:
        """Wait until numbers are there, the other end is gone, or what is watched besides is ready; which that is."""
        return [each for each, _ in self._poll.poll(max(0.0, deadline - time.monotonic()))]


def _stride(settings: ChannelSettings) -> int:
    return -(-(HEADER_BYTES + settings.max_bytes) // _ALIGNED) * _ALIGNED


def _title(settings: ChannelSettings) -> str:
    return f"sut-{settings.run}-{settings.name}"


def _mapped(descriptor: int, settings: ChannelSettings, prot: int) -> memoryview:
    """All slots; their pages are there at once, so that no message waits for the kernel to find them."""
    size = settings.capacity * _stride(settings)
    return memoryview(mmap.mmap(descriptor, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, prot))


class _SharedReceiver(Receiver):
    def __init__(self, settings: ChannelSettings) -> None:
        super().__init__(settings)
        size = settings.capacity * _stride(settings)
        if settings.capacity > _MOST_SLOTS:
            raise InputError(f"a ring of {settings.capacity:,} slots: got more than {_MOST_SLOTS:,}")
        self._memory = os.memfd_create(_title(settings))
        try:
            os.posix_fallocate(self._memory, 0, size)
            self._slots = _mapped(self._memory, settings, mmap.PROT_READ)
        except OSError as error:
            os.close(self._memory)
            raise SetupError(
                f"a ring of {settings.capacity} slots takes {size / 2**20:,.0f} MiB of memory: {reason_of(error)}"
            ) from None
        waiting, self._ready = os.pipe()
        self._free, numbers = os.pipe()
        self._pipes: _Pipes | None = _Pipes(numbers, waiting)
        self._pipes.tell(*range(settings.capacity))
        self._processes: dict[int, int] = {}
        """Descriptors of the processes that have senders here, as long as they have."""
        self._senders: dict[int, int] = {}
        self._stride = _stride(settings)
        self._bodies: list[tuple[bytes, Any]] = [(b"", None)] * settings.capacity
        """What lay in each slot last, and its form: the next is mostly of the same, so that no array is made."""

    @property
    def address(self) -> ChannelSettings:
        """See ``Receiver``: the descriptors as this process has them."""
        return elsewhere(self.settings, f"shared:{os.getpid()}:{self._memory}:{self._ready}:{self._free}")

    def _take(self, most: int, deadline: float) -> list[Taken]:
        pipes = self._pipes
        if pipes is None:
            raise self._closed()
        while (found := pipes.next(most)) is None:
            ready = pipes.wait(deadline)
            if pipes.waiting not in ready:
                # What it sent before it ended comes first.
                if (ended := self._ended(ready)) and (found := pipes.next(most)) is None:
                    raise ChannelClosed(f"the sender's process {ended} ended and had not closed the channel")
                if found is not None:
                    break
                if not ready:
                    return []
        slots = [number for number in found if number < _MOST_SLOTS or self._note(number, pipes)]
        depth = len(slots) + (_there(pipes.waiting) if len(found) == most else 0)
        return [self._taken(slot, depth) for slot in slots]

    def _ended(self, ready: list[int]) -> int | None:
        """A process that has ended: one whose descriptor is ready, or that had when it was to be watched."""
        with self._book:
            found = (process for process, each in self._processes.items() if each in ready or each == _UNWATCHED)
            return next(found, None)

    def _taken(self, slot: int, depth: int) -> Taken:
        start = slot * self._stride
        buffer = self._slots[start : start + self._stride]
        form, body = self._bodies[slot]
        if form != buffer[FORM]:
            form, body = self._bodies[slot] = bytes(buffer[FORM]), body_in(buffer)
        message, sent_ns = with_body(buffer, body)
        return Taken(message, waited_ns(sent_ns), depth, slot)

    def _note(self, number: int, pipes: _Pipes) -> bool:
        """What a number says that is no slot's; False. A process is watched as long as it has a sender."""
        if number == _WAKE:
            raise self._closed()
        if number < _HELLO:
            pipes.tell(number - _DROPPED)
            return False
        process, here = (number - _HELLO, 1) if number < _BYE else (number - _BYE, -1)
        with self._book:
            self._senders[process] = self._senders.get(process, 0) + here
            if process != os.getpid() and here > 0 and process not in self._processes:
                self._processes[process] = descriptor = _watched(process)
                if descriptor != _UNWATCHED:
                    pipes.watch(descriptor)
            elif self._senders[process] == 0 and (descriptor := self._processes.pop(process, _UNWATCHED)) >= 0:
                os.close(descriptor)
        return False

    def done(self, taken: Sequence[Taken]) -> None:
        pipes = self._pipes
        if taken and pipes is not None:
            pipes.tell(*(each.token for each in taken))

    def close(self) -> None:
        if self._pipes is None:
            return
        self._pipes = None
        with suppress(OSError):
            os.write(self._ready, _NUMBER.pack(_WAKE))
        watched = (each for each in self._processes.values() if each >= 0)
        for descriptor in (self._ready, self._free, self._memory, *watched):
            os.close(descriptor)


def _watched(process: int) -> int:
    """A descriptor that is ready once a process has ended; none where it has already."""
    try:
        return os.pidfd_open(process)
    except ProcessLookupError:
        return _UNWATCHED


def _there(descriptor: int) -> int:
    """How many numbers a pipe has."""
    return int.from_bytes(ioctl(descriptor, FIONREAD, bytes(4)), sys.byteorder) // _NUMBER.size


class _SharedSender(Sender):
    def __init__(self, settings: ChannelSettings) -> None:
        super().__init__(settings)
        self._stride = _stride(settings)
        self._reserved: dict[int, tuple[int, Any]] = {}
        try:
            _, process, *numbers = settings.url.split(":")
            memory, ready, free = (Path(f"/proc/{int(process)}/fd/{int(each)}") for each in numbers)
            is_ours = _title(settings) in str(memory.readlink())
        except (ValueError, OSError):
            is_ours = False
        if not is_ours:
            raise ChannelClosed(
                f"the channel {settings.name} of this run is not open at {settings.url or 'nowhere'!r}: a sender takes "
                "its receiver's address"
            )
        descriptor = os.open(memory, os.O_RDWR)
        self._slots = _mapped(descriptor, settings, mmap.PROT_READ | mmap.PROT_WRITE)
        os.close(descriptor)
        self._pipes: _Pipes | None = _Pipes(os.open(ready, os.O_WRONLY), os.open(free, os.O_RDONLY | os.O_NONBLOCK))
        self._tell(_HELLO + os.getpid())

    def reserve(self, number: int, shape: tuple[int, ...], dtype: Any, timeout_s: float) -> Message:
        """See ``Sender``."""
        dtype = np.dtype(dtype)
        self._fitting(number, prod(shape) * dtype.itemsize)
        slot = self._slot(number, time.monotonic() + timeout_s)
        start = slot * self._stride
        message = Message(number, array_on(self._slots[start + HEADER_BYTES :], shape, dtype))
        self._slots[start:][FORM] = form_of(message.body)
        self._reserved[number] = slot, message.body
        return message

    def drop(self, message: Message) -> None:
        """See ``Sender``."""
        slot, _ = self._reserved.pop(message.id)
        self._tell(_DROPPED + slot)

    def _put(self, message: Message, deadline: float) -> int:
        slot, body = self._reserved.pop(message.id, (None, None))
        if slot is None:
            slot = self._slot(message.id, deadline)
        try:
            self._fill(slot, message, body is message.body)
        except BaseException:
            self._tell(_DROPPED + slot)
            raise
        return self._tell(slot)

    def _fill(self, slot: int, message: Message, is_there: bool) -> None:
        start = slot * self._stride
        slots, begin = self._slots, start + HEADER_BYTES
        if not is_there:
            slots[start:][FORM] = form_of(message.body)
            slots[begin : begin + size_of(message.body)] = flat(message.body)
        if message.spans:
            end = begin + message.nbytes
            slots[end - len(message.spans) : end] = message.spans
        write_head(slots, start, message, time.monotonic_ns())

    def _slot(self, number: int, deadline: float) -> int:
        """A free slot; waits for one."""
        pipes = self._pipes
        if pipes is None:
            raise self._gone()
        while (found := pipes.next(1)) is None:
            if not pipes.wait(deadline):
                raise self._full(number)
        if not found:
            raise self._gone()
        return found[0]

    def _tell(self, number: int) -> int:
        """Tell the receiver; returns how many slots are not free."""
        pipes = self._pipes
        if pipes is None:
            raise self._gone()
        try:
            pipes.tell(number)
        except BrokenPipeError:
            raise self._gone() from None
        return self.settings.capacity - _there(pipes.waiting)

    def _gone(self) -> ChannelClosed:
        return ChannelClosed(
            f"the channel {self.settings.name} is closed: its receiver, or the process that had it, has ended"
        )

    def close(self) -> None:
        with suppress(ChannelClosed):
            for slot, _ in self._reserved.values():
                self._tell(_DROPPED + slot)
            self._tell(_BYE + os.getpid())
        self._pipes = None
