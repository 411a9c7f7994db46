"""Workers of the second model: processes, or for a channel within the process threads."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from sut.channels.base import ChannelSettings, Receiver, Sender
from sut.channels.registry import open_receiver, open_sender
from sut.errors import one_line
from sut.pipeline.assembly import Assembly
from sut.pipeline.identify.second import Second
from sut.pipeline.identify.worker import Ended, Opened, Orders, serve
from sut.pipeline.lane import Clock
from sut.pipeline.stage import GOODBYE_S, started
from sut.process.clock import name_of
from sut.process.messages import Failed, vocabulary
from sut.process.workers import Ready, Workers

_KINDS = vocabulary(Ready | Opened | Ended | Failed)
_TOLD_S = 2.0
Lost = Callable[[str], None]
"""Called with one line when a worker is gone."""


class Hands(ABC):
    """As many workers as there are crops channels."""

    def __init__(self) -> None:
        self.opened: list[Opened] = []
        """What each has told when it was ready, not in their order."""
        self.ended: list[Ended] = []
        """What each has told at its end."""

    @abstractmethod
    def start(self) -> None:
        """Start them all and wait until they are ready. Raises ``SutError`` where one cannot be."""

    @abstractmethod
    def end(self, tell: Callable[[], None]) -> None:
        """``tell`` them through their channels to end, and wait for it, for seconds."""

    @property
    def processes(self) -> Mapping[str, int]:
        """Numbers of the processes that they are, by name."""
        return {}


class Processes(Hands):
    """Spawned ones, each with a model of its own."""

    def __init__(
        self, parts: Assembly, crops: Sequence[ChannelSettings], answers: ChannelSettings, clock: Clock, lost: Lost
    ) -> None:
        """Raises ``InputError`` for a clock that other processes cannot read."""
        super().__init__()
        orders = [Orders(parts.config, parts.model, each, answers, name_of(clock)) for each in crops]
        self._progress = parts.progress
        module = "sut.pipeline.identify.worker"
        self._workers: Workers[Any] = Workers("identify", module, orders, [], _KINDS, lost, self._hear)

    def start(self) -> None:
        """See ``Hands``."""
        self._workers.start(lambda: self._progress(0, 0))

    def end(self, tell: Callable[[], None]) -> None:
        """See ``Hands``."""
        self._workers.end(tell)

    @property
    def processes(self) -> Mapping[str, int]:
        """See ``Hands``."""
        return self._workers.processes

    def _hear(self, event: object) -> None:
        match event:
            case Opened():
                self.opened.append(event)
            case Ended():
                self.ended.append(event)


class Threads(Hands):
    """In this process, sharing one model."""

    def __init__(
        self, parts: Assembly, crops: Sequence[ChannelSettings], answers: ChannelSettings, clock: Clock, lost: Lost
    ) -> None:
        super().__init__()
        self._parts, self._crops, self._answers, self._clock, self._lost = parts, crops, answers, clock, lost
        self._stack, self._ends = ExitStack(), ExitStack()
        self._is_ending = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """See ``Hands``."""
        parts, stack = self._parts, self._stack
        backend = stack.enter_context(parts.load_backend())
        parts.check_attested(attested := backend.attest())
        for number, settings in enumerate(self._crops):
            second = Second(parts, backend, stack)
            batch_s = second.warm_up()
            crops = self._ends.enter_context(open_receiver(settings))
            answers = self._ends.enter_context(open_sender(self._answers))
            self._threads.append(started(f"identify-{number}", self._serve, second, crops, answers))
            self.opened.append(Opened(crops.address, batch_s, asdict(attested)))

    def _serve(self, second: Second, crops: Receiver, answers: Sender) -> None:
        try:
            serve(second, crops, answers, self._clock)
            self.ended.append(Ended(crops.counters, answers.counters, None))
        except Exception as error:
            if not self._is_ending:
                self._lost(f"{threading.current_thread().name}: {one_line(error)}")

    def end(self, tell: Callable[[], None]) -> None:
        """See ``Hands``."""
        self._is_ending = True
        tell()
        for thread in self._threads:
            thread.join(_TOLD_S)
        self._ends.close()  # whoever was not reached hears of it by that
        for thread in self._threads:
            thread.join(GOODBYE_S)
        self._stack.close()
