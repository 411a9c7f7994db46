"""The way to a Ray cluster: found, reached and left in bounded time, and watched as long as this process needs it.

This and ``member.py`` beside it are all that imports Ray.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sut.config import CLUSTER
from sut.errors import RunError, SetupError, one_line, reason_of
from sut.process.signals import ENDING
from sut.text import Progress

JOIN_S = 20.0
"""How long joining may take: on two busy cores it took 0.8 s."""
_PROBE_S = 5.0
_LOOK_S = 0.5
"""Ray would end this process after a minute without a head, and without a word of ours."""
_MISSES = 2
_INSTALL = "pip install 'ray>=2.60,<3'"

Process = tuple[str, int]
"""An actor's name, and how often it was made again."""


class Cluster:
    """The cluster that this process is joined to, and what became of the work on it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.redone: Counter[str] = Counter()
        """Batches that were asked again since their node was lost, by the name of the actor."""
        self.cpu_ns: dict[Process, int] = {}
        """CPU time of each actor's process, in ns, when it answered the last time; of those that were lost, too."""
        self.counted: dict[Process, Mapping[str, int]] = {}
        """``Preprocessor.counts`` of each."""
        self._lock = threading.Lock()
        self._is_lost = False

    def lost(self, message: str) -> None:
        """What the run stands on is gone: tell it once, in a thread of its own, as if that had died of it."""
        with self._lock:
            is_first, self._is_lost = not self._is_lost, True
        if is_first:
            threading.Thread(target=_raise, args=(message,), name="lost", daemon=True).start()

    def notes(self) -> list[str]:
        """What a reader of the result must know: what was done again."""
        total = sum(self.redone.values())
        by = ", ".join(f"{name} {count:,}" for name, count in self.redone.items())
        return [f"batches done again since a node of the cluster was lost: {total:,} ({by})"] if total else []


def _raise(message: str) -> None:
    raise RunError(message)


@cache
def joined(address: str) -> Cluster:
    """This process's cluster; joined once, and left when the process ends, with which its actors end.

    Raises ``ModuleNotFoundError`` without Ray, and ``SetupError`` in one line where nobody answers at ``address``
    (``auto``, ``HOST:PORT``, ``ray://HOST:PORT``), it is no Ray cluster, or one of other versions.
    """
    place = _found() if address == "auto" else address
    head = place.removeprefix("ray://")
    host, _, port = head.rpartition(":")
    _probe(host, int(port), _PROBE_S)
    if host in ("127.0.0.1", "localhost"):
        # Else Ray takes this machine's outer address for that, at which a cluster that is bound to loopback is not.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with _own_signals():
        _init(place)
    cluster = Cluster(place)
    threading.Thread(target=_watch, args=(cluster, host, int(port)), name="watch-head", daemon=True).start()
    return cluster


def _found() -> str:
    """Where Ray says that this machine's cluster is. Raises ``SetupError`` where it says none, or what is none."""
    if (address := os.environ.get("RAY_ADDRESS", "auto")) not in ("", "auto"):
        if not CLUSTER.fullmatch(address):
            raise SetupError(f"RAY_ADDRESS is {address!r}, expected auto, HOST:PORT or ray://HOST:PORT")
        return address
    told = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    with suppress(OSError):
        if address := told.read_text(encoding="utf-8").strip():
            return address
    raise SetupError(
        "no Ray cluster runs on this machine: start one with ray start --head, or give --cluster HOST:PORT"
    )


def _probe(host: str, port: int, limit_s: float) -> None:
    try:
        socket.create_connection((host, port), limit_s).close()
    except (OSError, OverflowError) as error:
        raise SetupError(
            f"no Ray cluster answers at {host}:{port} ({reason_of(error)}): start its head, or give the address of one"
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes over what ends a process: give it back."""
    before = {which: signal.getsignal(which) for which in (*ENDING, signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for which, handler in before.items():
                signal.signal(which, handler)


def _init(address: str) -> None:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"--cluster needs Ray: {_INSTALL}", name="ray") from error
    failed: list[BaseException] = []

    def init() -> None:
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=init, name="join-cluster", daemon=True)
    thread.start()
    thread.join(JOIN_S)
    if thread.is_alive():
        raise SetupError(
            f"what answers at {address} let nobody join within {JOIN_S:.0f} s: it is no Ray head, or an "
            "ill one, or this machine is no node of its cluster (ray start --address, or --cluster ray://HOST:PORT)"
        )
    if failed:
        raise SetupError(_why(failed[0], address)) from failed[0]


def _why(error: BaseException, address: str) -> str:
    """What kept this process from joining, in one line."""
    text = one_line(error)
    if isinstance(error, ModuleNotFoundError):
        return f"--cluster {address} needs more of Ray ({text}): pip install 'ray[client]>=2.60,<3'"
    if "ersion mismatch" in text:
        return f"the Ray cluster at {address} is of other versions: {text}"
    return f"the Ray cluster at {address} cannot be joined: {type(error).__name__}: {text}"


def _watch(cluster: Cluster, host: str, port: int) -> None:
    """Say that the head is gone before Ray ends this process for it."""
    missed = 0
    while missed < _MISSES:
        time.sleep(_LOOK_S)
        try:
            socket.create_connection((host, port), _PROBE_S).close()
            missed = 0
        except OSError:
            missed += 1
    cluster.lost(f"the head of the Ray cluster at {host}:{port} is gone")


Beat = Callable[[], None]


def beating(progress: Progress) -> Beat:
    """What tells that this process goes on while it waits for others."""
    return lambda: progress(0, 0)


def nodes() -> list[Mapping[str, Any]]:
    """The nodes that live, as Ray tells of them."""
    import ray

    found: list[Mapping[str, Any]] = ray.nodes()
    return [node for node in found if node["Alive"]]
