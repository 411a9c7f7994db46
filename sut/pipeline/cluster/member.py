"""One actor on the cluster as this process has it: made, asked within bounds, and made again where that is wanted."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, NoReturn, Protocol, TypeVar

import ray
from ray.exceptions import GetTimeoutError, ObjectLostError, RayActorError, RayError, RayTaskError

from preprocess.base import BadPicture
from sut.errors import ExitCode, RunError, SetupError, SutError, error_of, one_line
from sut.pipeline.cluster.session import Beat, Cluster, Process, nodes
from sut.pipeline.shared import Remote
from sut.process.telling import code_of

T = TypeVar("T")

PLACED_S = 60.0
"""How long an actor may wait for a node with room, and for its process there."""
LOADED_S = 600.0
"""A runtime may compile the model meanwhile."""
ANSWER_S = 60.0
"""How long an answer may take, unless batches were slow before."""
_SLOWEST = 100
_BEAT_S = 0.5
_MOST_TRIES = 5
_OWN = {"CPU": "num_cpus", "GPU": "num_gpus"}


class Raised(Exception):
    """What an actor's method raised, as its arguments: whatever is raised there, this can be sent."""

    def __init__(self, kind: str, text: str, code: int | None = None, position: int | None = None) -> None:
        super().__init__(kind, text, code, position)

    @classmethod
    def of(cls, error: Exception) -> Raised:
        """``error`` in the words that are told of it, with what else decides what becomes of it."""
        code, position = code_of(error), error.position if isinstance(error, BadPicture) else None
        is_told = isinstance(error, SutError) or code == ExitCode.SETUP
        return cls(type(error).__name__, one_line(error), code if is_told else None, position)

    @property
    def here(self) -> Exception:
        """What is raised in its place in this process."""
        kind, text, code, position = self.args
        if position is not None:
            return BadPicture(position, text)
        return error_of(code, text) if code is not None else Remote(kind, text)


def telling(method: Callable[..., T]) -> Callable[..., T]:
    """A method of an actor that raises ``Raised`` alone."""

    @wraps(method)
    def told(*arguments: Any) -> T:
        try:
            return method(*arguments)
        except Exception as error:
            raise Raised.of(error) from None

    return told


class TensorLost(Exception):
    """A tensor that was asked about has gone with its node."""


class Tensor(Protocol):
    """A tensor on the cluster, which can be made again."""

    reference: Any

    def again(self) -> None:
        """Have it made again: it went with its node."""


@dataclass(frozen=True, slots=True)
class Where:
    """The node of an actor, by Ray's id and the name of its host."""

    node: str
    host: str

    def __str__(self) -> str:
        return f"node {self.node[:8]} ({self.host})"


def here() -> Where:
    """Where this process is, which is an actor's."""
    import socket

    return Where(ray.get_runtime_context().get_node_id(), socket.gethostname())


class _Ended(SetupError):
    """An actor has ended before it could do anything."""


class Member:
    """An actor of class ``kind`` on the cluster, called ``name``, with these ``resources`` of its node.

    Whenever it was made, ``begin`` has it load what it needs. Threads share it; it does one thing after the other.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        kind: type[Any],
        resources: Mapping[str, float],
        begin: Callable[[Member], None],
        redo: bool,
        beat: Beat,
    ) -> None:
        self.cluster, self.name, self._kind, self._resources = cluster, name, kind, resources
        self._begin, self._redo, self._beat = begin, redo, beat
        self.where: Where | None = None
        self._slowest_s = 0.0
        self._made = 0
        """How often it was made."""
        self._lock = threading.RLock()
        _check_there_is_room(name, resources)
        self._actor = self._new()

    @property
    def on(self) -> str:
        """Name and node, for messages."""
        return self.name if self.where is None else f"{self.name} on {self.where}"

    @property
    def process(self) -> Process:
        """What tells the process that it is now from those that it was before."""
        return self.name, self._made

    def start(self) -> None:
        """Wait until it is placed, and have it load what it needs. Raises ``SutError`` in one line.

        For some seconds the cluster may not know that a node is gone, and place it there: then it is made again.
        """
        deadline = time.monotonic() + PLACED_S
        with self._lock:
            while True:
                try:
                    self.where = self._answer(self._actor.where.remote(), PLACED_S)
                    self._begin(self)
                    break
                except _Ended:
                    if time.monotonic() > deadline:
                        raise
                time.sleep(_BEAT_S)
                self._renew()
            self._made += 1

    def load(self, *arguments: Any) -> Any:
        """What its method ``load`` gives. Raises ``SetupError`` or ``InputError`` for what it lacks."""
        try:
            return self._answer(self._actor.load.remote(*arguments), LOADED_S)
        except SutError as error:
            raise error if self.name in str(error) else type(error)(f"{self.on}: {one_line(error)}") from error
        except Remote as error:
            raise RunError(f"{self.on}: {error.kind}: {one_line(error)}") from error

    def ask(self, method: str, *arguments: Any, returns: int = 1) -> Any:
        """What a method gives; of one that ``returns`` several objects, the first, and references to the others.

        Raises what the method raised, ``TensorLost`` where a reference among the arguments leads to nothing any more,
        and ``RunError`` where the actor is lost, or does not answer in time.
        """
        for _ in range(_MOST_TRIES):
            made, began = self._made, time.monotonic()
            try:
                called = getattr(self._actor, method).options(num_returns=returns).remote(*arguments)
                first, *others = called if returns > 1 else [called]
                answer = ray.get(first, timeout=max(ANSWER_S, _SLOWEST * self._slowest_s))
            except (GetTimeoutError, RayError) as error:
                self._failed(error, made, time.monotonic() - began)
                continue
            self._slowest_s = max(self._slowest_s, time.monotonic() - began)
            return (answer, *others) if returns > 1 else answer
        raise RunError(f"{self.on}: asked {_MOST_TRIES} times, and each time it was lost")

    def fetch(self, tensor: Tensor) -> Any:
        """A tensor itself. Raises ``RunError`` where it is lost and is not to be made again, or does not come."""
        for _ in range(_MOST_TRIES):
            try:
                return ray.get(tensor.reference, timeout=ANSWER_S)
            except ObjectLostError as error:
                self.again([tensor], error)
            except GetTimeoutError as error:
                self._lost(f"a tensor of {self.on} did not come within {ANSWER_S:.0f} s", error)
        raise RunError(f"{self.on}: a tensor was lost {_MOST_TRIES} times")

    def again(self, tensors: Iterable[Tensor], error: Exception) -> None:
        """Have lost tensors of a batch made again, where that is wanted. Raises ``RunError`` where not."""
        if not self._redo:
            self._lost(f"tensors for {self.on} are lost with their node: {first_words(error)}", error)
        self.cluster.redone[self.name] += 1
        for tensor in tensors:
            tensor.again()

    def _failed(self, error: Exception, made: int, waited_s: float) -> None:
        """What to do about an error of Ray's: raise what it stands for, or have the actor made again."""
        if isinstance(error, ObjectLostError):
            raise TensorLost(one_line(error)) from error
        if isinstance(error, RayTaskError) and not isinstance(error, RayActorError):
            _raise_cause(error)
        if isinstance(error, GetTimeoutError):
            self._lost(f"{self.on} gave no answer within {waited_s:.0f} s", error)
        if not isinstance(error, RayActorError) or not self._redo:
            self._lost(f"{self.on} is lost: {type(error).__name__}: {first_words(error)}", error)
        self.cluster.redone[self.name] += 1
        self._make_again(made)

    def _lost(self, message: str, error: Exception) -> NoReturn:
        self.cluster.lost(message)
        raise RunError(message) from error

    def _make_again(self, made: int) -> None:
        """Another actor in its place, unless another thread has seen to that."""
        with self._lock:
            if self._made != made:
                return
            try:
                self._renew()
                self.start()
            except SutError as error:
                self._lost(f"{self.on} is lost and cannot be made again: {one_line(error)}", error)

    def _renew(self) -> None:
        """Another actor in its place. Raises ``SetupError`` where no node could have it."""
        self._let_go()
        _check_there_is_room(self.name, self._resources)
        self._actor = self._new()

    def _new(self) -> Any:
        own = {_OWN[name]: amount for name, amount in self._resources.items() if name in _OWN}
        others = {name: amount for name, amount in self._resources.items() if name not in _OWN}
        made = ray.remote(**{"num_cpus": 0, **own}, resources=others, scheduling_strategy="SPREAD", max_restarts=0)
        return made(self._kind).remote()

    def _answer(self, reference: Any, limit_s: float) -> Any:
        """What comes of something that takes long. Raises ``SutError`` in one line, or what the method raised."""
        deadline = time.monotonic() + limit_s
        while not ray.wait([reference], timeout=_BEAT_S, fetch_local=False)[0]:
            self._beat()
            if time.monotonic() > deadline:
                wanted = words(self._resources)
                raise SetupError(
                    f"{self.on} was not ready after {limit_s:.0f} s: no node has {wanted} to spare, or its is too busy"
                )
        try:
            return ray.get(reference, timeout=ANSWER_S)
        except RayActorError as error:
            if missing := re.search(r"No module named '[\w.]+'", str(error)):
                raise SetupError(
                    f"{self.on}: its node cannot import this project or what it needs ({missing[0]}): start Ray there "
                    "with this version of it on PYTHONPATH"
                ) from error
            raise _Ended(f"{self.on} ended while it was made: {one_line(error)}") from error
        except RayTaskError as error:
            _raise_cause(error)

    def _let_go(self) -> None:
        ray.kill(self._actor)

    def close(self) -> None:
        """End it."""
        self._let_go()


def _raise_cause(error: RayTaskError) -> NoReturn:
    cause = error.cause
    if isinstance(cause, ObjectLostError):
        raise TensorLost(one_line(cause)) from error
    raise cause.here if isinstance(cause, Raised) else RunError(first_words(error)) from None


def first_words(error: BaseException) -> str:
    """The first line that says something of an error of Ray's, whose texts have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(RunError(" ".join(lines[:1]) or type(error).__name__))


def words(resources: Mapping[str, float]) -> str:
    """Resources in words.

    >>> words({"CPU": 1.0, "node_a": 0.1})
    'CPU 1, node_a 0.1'
    """
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())


def _check_there_is_room(name: str, resources: Mapping[str, float]) -> None:
    """Raise ``SetupError`` where no node could have an actor even if it had nothing else: it would wait for ever."""
    there = nodes()
    if not any(all(node["Resources"].get(key, 0) >= need for key, need in resources.items()) for node in there):
        has = "; ".join(
            words({key: amount for key, amount in node["Resources"].items() if key != "memory" and ":" not in key})
            for node in there
        )
        raise SetupError(f"no node of the cluster has {words(resources)} for {name}; they have {has or 'nothing'}")
