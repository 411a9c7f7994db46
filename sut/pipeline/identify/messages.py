"""What crops and their labels look like in a channel, and what is remembered of every message."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import numpy as np

from sut.channels.base import Taken
from sut.channels.wire import Message

FILE = "messages.npz"
"""Each message of a run, beside its result, where samples are kept."""
END = Message((1 << 62) + 1, b"")
"""Tells a worker that no more crops will come."""
_SPANS = Struct("<4q?")
_MOST_REMEMBERED = 1_000_000


class Told(NamedTuple):
    """What a worker says beside a label: when it took the crop up and had the answer (ns of the run's clock), how long
    the crop had waited (ns), how many there were to take; ``failed``: the answer is no label but an error's text.
    """

    begin_ns: int
    end_ns: int
    waited_ns: int
    depth: int
    failed: bool = False

    def packed(self) -> bytes:
        """As a message's spans."""
        return _SPANS.pack(*self)

    @classmethod
    def of(cls, spans: bytes) -> Told:
        """The opposite."""
        return cls(*_SPANS.unpack(spans))


@dataclass(slots=True)
class Carried:
    """What one direction of a channel has carried in a run: each message's bytes, the depth that it was taken at, and
    how long it waited, in ns; of the first million.
    """

    messages: int = 0
    bytes: int = 0
    each_bytes: array[int] = field(default_factory=lambda: array("q"))
    each_depth: array[int] = field(default_factory=lambda: array("q"))
    each_waited_ns: array[int] = field(default_factory=lambda: array("q"))

    def add(self, nbytes: int, depth: int, waited_ns: int) -> None:
        """One more message."""
        self.messages += 1
        self.bytes += nbytes
        if self.messages <= _MOST_REMEMBERED:
            self.each_bytes.append(nbytes)
            self.each_depth.append(depth)
            self.each_waited_ns.append(waited_ns)

    def take(self, taken: Taken) -> None:
        """The same of one that was taken here."""
        self.add(taken.message.nbytes, taken.depth, taken.waited_ns)

    def columns(self, name: str) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """Arrays of int64 (messages,), to be kept by name."""
        kept = {"bytes": self.each_bytes, "depth": self.each_depth, "waited_ns": self.each_waited_ns}
        return {f"{name}:{what}": np.array(values, np.int64) for what, values in kept.items()}


def save(folder: Path, carried: Mapping[str, Carried]) -> None:
    """Write all messages into a folder as NumPy's .npz. Raises ``OSError``."""
    columns = {key: values for name, each in carried.items() for key, values in each.columns(name).items()}
    np.savez(folder / FILE, **columns)  # type: ignore[arg-type]
