"""Behind a channel: lanes put crops into it, workers put labels into another, one thread here takes those.

Crops of all lanes are numbered, and so are their labels: one that does not come in time is a message that was lost on
either way, and fails the run with its number. Each worker has a crops channel of its own, all labels come through one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TypeVar

import numpy as np

from preprocess.base import Mark, Preprocessor, unmarked
from sut.channels.base import Sender, Taken
from sut.channels.errors import ChannelClosed, ChannelFull
from sut.channels.registry import open_receiver, open_sender
from sut.config import RunConfig
from sut.errors import RunError, SutError, one_line
from sut.pipeline.assembly import Assembly
from sut.pipeline.identify.crops import Crop
from sut.pipeline.identify.hands import Hands, Processes, Threads
from sut.pipeline.identify.messages import END, Carried, Told
from sut.pipeline.identify.second import INFER, PREPROCESS, Labels
from sut.pipeline.identify.settings import ANSWERS, BATCHES, CROPS, PATIENCE_S, channels_of, new_run, remove
from sut.pipeline.lane import Clock, ended
from sut.pipeline.stage import POLL_S
from sut.qsl.library import Rows

SEND, WAIT, RETURN = "identify/send", "identify/wait", "identify/return"
T = TypeVar("T")
_MOST_TAKEN = 256
_MOMENT_S = 2.0
_SLOWER = 20
"""Times as long as in warm-up a batch may take, as for the watchdog of a run."""


_NOTHING = Told(0, 0, 0, 0)


@dataclass(slots=True)
class _Asked:
    """Crops of one lane that are on their way, and what the worker said of the one that came back the last."""

    labels: Labels
    left: int
    last: int = 0
    told: Told = _NOTHING
    failed: str | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Pool:
    """The second model's workers. Lanes ask it, several at a time."""

    def __init__(self, config: RunConfig, parts: Assembly, clock: Clock, run: str | None = None) -> None:
        """``config`` is the run's, ``parts`` are the second model's; ``run`` is its id, by chance unless told.

        Raises ``SutError`` in one line where there is no such channel, no room for it, or no worker.
        """
        recipe = parts.spec.recipe
        self._clock, self._sample, self._dtype = clock, recipe.sample_shape, np.dtype(recipe.dtype)
        self.crop_bytes = int(np.prod(self._sample)) * self._dtype.itemsize
        self.crops, answers = channels_of(config, run or new_run(), self.crop_bytes)
        self.carried = {CROPS: Carried(), ANSWERS: Carried()}
        self._numbers = count()
        self._asked: dict[int, tuple[_Asked, int, int]] = {}
        """By crop: who asked, which of its crops it is, and which worker has it."""
        self._outstanding = [0] * len(self.crops)
        self._lock = threading.Lock()
        self._broken: str | None = None
        self._is_over = threading.Event()
        self._patience_s = PATIENCE_S
        self._is_closing = False
        self.answers = open_receiver(answers)
        try:
            self.broker_before = self.broker_after = self.answers.broker_counters()
            kind = Threads if config.channel == "memory" else Processes
            self.hands: Hands = kind(parts, self.crops, self.answers.address, clock, self._lost)
        except BaseException:
            self.answers.close()
            raise
        self.senders: list[Sender] = []
        self._collector = threading.Thread(target=self._collect, name="answers", daemon=True)
        try:
            self.hands.start()
            addresses = {each.crops.name: each.crops for each in self.hands.opened}
            self._bound_waits(max(each.batch_s for each in self.hands.opened))
            self.senders += [open_sender(addresses[each.name]) for each in self.crops]
        except BaseException:
            self.close()
            raise
        self._collector.start()

    def _bound_waits(self, batch_s: float) -> None:
        """How long a crop may be on its way where a batch takes so long: a slow model loses no messages."""
        self._patience_s = max(PATIENCE_S, _SLOWER * (BATCHES + 1) * batch_s)
        self.answers.settings = replace(self.answers.settings, lost_after_s=self._patience_s)

    def start(self) -> None:
        """A run begins: what is remembered is of it."""
        self.carried = {CROPS: Carried(), ANSWERS: Carried()}

    def ask(self, crops: Sequence[Crop], preprocessor: Preprocessor, mark: Mark) -> Labels:
        """The labels of crops, each preprocessed into the channel's own memory where it has any.

        Raises ``RunError`` where a worker or the channel fails, and what preprocessing raises.
        """
        clock, begin, preprocessed_ns = self._clock, self._clock(), 0
        asked = _Asked(np.empty(len(crops), np.float32), len(crops))
        sent: list[tuple[int, int]] = []
        for place, crop in enumerate(crops):
            took_ns = self._put(asked, place, crop, preprocessor)
            preprocessed_ns += took_ns
            sent.append((preprocessed_ns, clock()))
        while crops and not asked.done.wait(POLL_S):
            self._check()
        if asked.failed is not None:
            raise RunError(asked.failed)
        self._check()
        before_ns, sent_ns = sent[asked.last] if sent else (0, begin)
        told = asked.told
        ended(mark, PREPROCESS, begin + before_ns)
        # A worker may have begun before this thread, which it took the core of, came to look at the clock.
        ended(mark, SEND, min(sent_ns, told.begin_ns))
        ended(mark, WAIT, told.begin_ns)
        ended(mark, INFER, told.end_ns)
        return asked.labels

    def _put(self, asked: _Asked, place: int, crop: Crop, preprocessor: Preprocessor) -> int:
        """Send one crop to the worker with the fewest. Returns what preprocessing took, in ns."""
        with self._lock:
            number = next(self._numbers)
            worker = self._outstanding.index(min(self._outstanding))
            self._outstanding[worker] += 1
            self._asked[number] = asked, place, worker
        try:
            return self._send(self.senders[worker], number, crop, preprocessor)
        except BaseException:
            self.answers.withdraw([number])
            with self._lock:
                if self._asked.pop(number, None) is not None:
                    self._outstanding[worker] -= 1
            self._check()  # who owns the worker knows better why a channel failed
            raise

    def _send(self, sender: Sender, number: int, crop: Crop, preprocessor: Preprocessor) -> int:
        message = self._patiently(partial(sender.reserve, number, self._sample, self._dtype))
        began = self._clock()
        try:
            preprocessor.run_pixels([crop], Rows.of(message.body[np.newaxis]), unmarked)
        except BaseException:
            sender.drop(message)
            raise
        took_ns = self._clock() - began
        self.answers.announce([number])
        self._patiently(partial(sender.put, message))
        return took_ns

    def _patiently(self, work: Callable[[float], T]) -> T:
        """``work`` that waits so many seconds for room, again and again while there are workers to make some."""
        deadline = time.monotonic() + self._patience_s
        while True:
            self._check()
            try:
                return work(POLL_S)
            except ChannelFull:
                if time.monotonic() > deadline:
                    raise

    def _check(self) -> None:
        if self._broken is not None:
            raise RunError(self._broken)

    def _collect(self) -> None:
        """One thread: takes labels and gives them to who asked, until all is done."""
        try:
            while not self._is_closing:
                if taken := self.answers.take(_MOST_TAKEN, POLL_S):
                    for each in taken:
                        self._give(each)
                    self.answers.done(taken)
        except ChannelClosed as error:
            # Who owns the worker knows best why it is gone, and may learn of it a moment later.
            if not self._is_closing and not self._is_over.wait(_MOMENT_S):
                self._lost(one_line(error))
        except Exception as error:
            self._lost(one_line(error))

    def _give(self, taken: Taken) -> None:
        message, told = taken.message, Told.of(taken.message.spans)
        self.carried[ANSWERS].take(taken)
        self.carried[CROPS].add(self.crop_bytes, told.depth, told.waited_ns)
        with self._lock:
            asked, place, worker = self._asked.pop(message.id)
            self._outstanding[worker] -= 1
        if told.failed:
            asked.failed = f"identifying a crop: {bytes(message.body).decode(errors='replace')}"
        else:
            asked.labels[place] = np.frombuffer(message.body, "<f4")[0]
        asked.left -= 1
        if not asked.left:
            asked.last, asked.told = place, told
            asked.done.set()

    def _lost(self, why: str) -> None:
        """No label will come any more: nobody is left waiting, and the run comes to its end."""
        with self._lock:
            self._broken = self._broken or why
            self._is_over.set()
            waiting = {id(asked): asked for asked, _, _ in self._asked.values()}
        for asked in waiting.values():
            asked.done.set()
        raise RunError(why)

    @property
    def processes(self) -> Mapping[str, int]:
        """Numbers of the workers' processes, by name."""
        return self.hands.processes

    def close(self) -> None:
        """Have the workers end, and leave nothing in the channel, whatever has happened to them."""
        self.hands.end(self._say_goodbye)
        self._is_closing = True
        for sender in self.senders:
            with suppress(SutError):
                sender.close()
        if self._broken is None:
            with suppress(SutError):
                self.broker_after = self.answers.broker_counters()
        with suppress(SutError):
            self.answers.close()
        if self._collector.is_alive():
            self._collector.join()
        if len(self.hands.ended) < len(self.crops):  # one that was killed has left its channel behind
            remove(self.crops)

    def _say_goodbye(self) -> None:
        for sender in self.senders:
            with suppress(SutError):
                sender.put(END, POLL_S)
