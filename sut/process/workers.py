"""Several processes of one kind that work for this one until they are told to end: started, watched and ended together.

One thread owns them for all their life: the kernel takes the end of a parent (``die_with_parent``) by the thread that
started the child.
"""

from __future__ import annotations

import os
import selectors
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import TypeAdapter

from sut.errors import RunError, SutError, error_of, one_line
from sut.process.child import POLL_S, Child, Lines, Log, end_of, spawn_alone
from sut.process.messages import Failed

T = TypeVar("T")

READY_S = 120.0
"""How long all of them may take to be ready; importing what they need takes seconds where many do it at once."""
_GOODBYE_S = 10.0


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker has all that it needs."""

    event: Literal["ready"] = "ready"


@dataclass(slots=True)
class _Worker(Generic[T]):
    name: str
    child: Child
    lines: Lines[T]
    is_ready: bool = False
    has_ended: bool = False


class Workers(Generic[T]):
    """Processes ``NAME-0``, ``NAME-1``, ... that run ``module``, each with its ``orders``.

    They tell events of ``kinds``: ``Ready`` once, ``Failed``, and others, which ``heard`` gets. ``lost`` is called with
    one line about a worker that ends before it is told to, in a thread of its own: what it raises is raised there.
    """

    def __init__(
        self,
        name: str,
        module: str,
        orders: Sequence[object],
        fds: Sequence[int],
        kinds: TypeAdapter[T],
        lost: Callable[[str], None],
        heard: Callable[[T], None] = lambda event: None,
    ) -> None:
        self._name, self._module, self._orders, self._fds = name, module, orders, fds
        self._kinds, self._lost, self._heard = kinds, lost, heard
        self._workers: list[_Worker[T]] = []
        self._error: BaseException | None = None
        self._are_ready = threading.Event()
        self._is_ending = False
        self._thread = threading.Thread(target=self._own, name=f"owner-of-{name}", daemon=True)

    def start(self, beat: Callable[[], None] = lambda: None) -> None:
        """Start them all, and wait until they are ready; ``beat`` is called meanwhile.

        Raises ``SutError`` in one line where one cannot do its work, ends, or is not ready after two minutes.
        """
        self._thread.start()
        while not self._are_ready.wait(POLL_S):  # bounded by READY_S
            beat()
        if self._error is not None:
            raise self._error

    def end(self, tell: Callable[[], None]) -> None:
        """``tell`` them to end, and wait for it; those that do not within seconds are killed."""
        self._is_ending = True
        tell()
        self._thread.join()

    @property
    def processes(self) -> dict[str, int]:
        """Numbers of the processes that are at work, by name."""
        return {each.name: each.child.process.pid for each in self._workers if not each.has_ended}

    def _own(self) -> None:
        with ExitStack() as stack:
            try:
                for number, orders in enumerate(self._orders):
                    log = Log(stack.enter_context(tempfile.TemporaryFile()))
                    child = stack.enter_context(spawn_alone(self._module, orders, log, self._fds))
                    self._workers.append(_Worker(f"{self._name}-{number}", child, Lines(self._kinds)))
                self._wait_until_ready()
            except BaseException as error:
                self._error = error
                return
            finally:
                self._are_ready.set()
            try:
                message = self._watch()
            except (SutError, ValueError) as error:
                message = one_line(error)
        if message is not None:
            self._lost(message)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while not all(worker.is_ready for worker in self._workers):
            if ended := self._listen():
                raise RunError(self._end_of(ended[0]))
            if self._is_ending or time.monotonic() > deadline:
                late = next(worker.name for worker in self._workers if not worker.is_ready)
                raise RunError(f"{late} was not ready after {READY_S:.0f} s")

    def _watch(self) -> str | None:
        """Until they are to end, and have; what is to be said of one that ended before."""
        deadline: float | None = None
        while not all(worker.has_ended for worker in self._workers):
            for worker in self._listen():
                if not self._is_ending:
                    return self._end_of(worker)
                worker.has_ended = True
            if self._is_ending:
                deadline = deadline or time.monotonic() + _GOODBYE_S
                if time.monotonic() > deadline:
                    break
        return None

    def _listen(self) -> list[_Worker[T]]:
        """Take what they tell, for as long as a fifth of a second. Returns those that have closed their pipe or ended.

        Raises ``SutError`` where one tells that it failed, and ``ValueError`` for what is no event.
        """
        left = [worker for worker in self._workers if not worker.has_ended]
        # Asked first, so that nothing they wrote is missed. What one forked may hold its pipe open for ever.
        ended = [worker for worker in left if worker.child.process.poll() is not None]
        with selectors.DefaultSelector() as selector:
            for worker in left:
                selector.register(worker.child.pipe, selectors.EVENT_READ, worker)
            for key, _ in selector.select(0 if ended else POLL_S):
                worker = key.data
                chunk = os.read(key.fd, 65536)
                if not chunk and worker not in ended:
                    ended.append(worker)
                for event in worker.lines.of(chunk):
                    self._take(worker, event)
        for worker in left:
            worker.child.log.cut()
        return ended

    def _take(self, worker: _Worker[T], event: Any) -> None:
        match event:
            case Ready():
                worker.is_ready = True
            case Failed():
                raise error_of(event.code, f"{worker.name}: {event.named}")
            case _:
                self._heard(event)

    def _end_of(self, worker: _Worker[T]) -> str:
        code = worker.child.wait(_GOODBYE_S)
        how = "closed its pipe but did not end" if code is None else end_of(code, worker.child.log)
        return f"{worker.name}: {how}"
