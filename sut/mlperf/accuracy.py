"""LoadGen's accuracy log: reading it, and the line that MLPerf's script prints about it."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugins.files import LARGE_BYTES, read_file
from sut.mlperf.loadgen import Complete
from sut.tasks.base import Payloads, Score


@dataclass(frozen=True, slots=True)
class AccuracyLog:
    """Answers by sample index, in the order of the log.

    MultiStream pads its last query with samples it has asked for before, so that a sample may stand there twice: the
    first answer counts. ``contradicted`` has a later one, by sample index, where it is another.
    """

    answers: dict[int, bytes]
    contradicted: dict[int, bytes]


def read_accuracy_log(path: Path) -> AccuracyLog:
    """What an ``mlperf_log_accuracy.json`` says.

    Raises ``ValueError`` for a file that is not such a log, or one that ends early.
    """
    try:
        raw = read_file(path, LARGE_BYTES)
    except OSError as error:
        raise ValueError(f"cannot read the accuracy log {path}: {error.strerror}") from error
    if not raw.strip():
        raise ValueError(f"the accuracy log {path} is empty; expected that of a finished run in accuracy mode")
    try:
        entries = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the accuracy log {path} is cut off or not JSON: {error}") from None
    if not isinstance(entries, list):
        raise ValueError(f"the accuracy log {path} holds a JSON {type(entries).__name__}; expected a list of answers")
    if not entries:
        raise ValueError(f"the accuracy log {path} holds no answers; expected that of a run in accuracy mode")
    log = AccuracyLog({}, {})
    for position, entry in enumerate(entries):
        try:
            index, data = _answer(entry)
        except ValueError as error:
            raise ValueError(f"the accuracy log {path}, entry {position}: {error}") from None
        if log.answers.setdefault(index, data) != data:
            log.contradicted[index] = data
    return log


class Answered:
    """Stands between LoadGen and the system in accuracy mode: what was answered, to compare with what was logged.

    The sum is of a CRC-32 per answer, of its sample's index and its bytes, so it is the same in any order.
    """

    def __init__(self, complete: Complete) -> None:
        self._deliver = complete
        self._index: dict[int, int] = {}
        self._lock = threading.Lock()
        self.sum = 0

    def issuing(self, issue: Callable[[Sequence[int], Sequence[int]], None]) -> Callable[..., None]:
        """``issue`` for LoadGen to call."""

        def remembered(ids: Sequence[int], indices: Sequence[int]) -> None:
            self._index.update(zip(ids, indices, strict=True))
            issue(ids, indices)

        return remembered

    def complete(self, ids: Sequence[int], payloads: Payloads | None) -> int:
        """The system's ``complete``."""
        answers = [b""] * len(ids) if payloads is None else map(bytes, payloads)
        found = sum(_crc(self._index[each], answer) for each, answer in zip(ids, answers, strict=True))
        with self._lock:
            self.sum += found
        return self._deliver(ids, payloads)


def logged_sum(path: Path) -> int:
    """The sum of all answers in an accuracy log that ``read_accuracy_log`` has read, as ``Answered`` has it."""
    return sum(_crc(*_answer(entry)) for entry in json.loads(path.read_bytes()))


def _crc(index: int, answer: bytes) -> int:
    return zlib.crc32(answer, index & 0xFFFFFFFF)


def accuracy_txt(score: Score) -> str:
    """The line of ``accuracy.txt``, as MLPerf's script writes it: accuracy in percent.

    >>> accuracy_txt(Score("top1", 0.76456, 38228, 50000))
    'accuracy=76.456%, good=38228, total=50000'
    """
    return f"accuracy={100.0 * score.good / score.count:.3f}%, good={score.good}, total={score.count}"


def _answer(entry: Any) -> tuple[int, bytes]:
    if not isinstance(entry, dict) or "qsl_idx" not in entry or "data" not in entry:
        raise ValueError(f"got {str(entry)[:80]!r}; expected an object with qsl_idx and data")
    index, data = entry["qsl_idx"], entry["data"]
    if type(index) is not int or index < 0:
        raise ValueError(f"qsl_idx is {index!r}; expected an integer of 0 or more")
    if not isinstance(data, str):
        raise ValueError(f"data is {data!r}; expected hexadecimal text")
    try:
        return index, bytes.fromhex(data)
    except ValueError:
        raise ValueError(f"data is {data[:80]!r}; expected hexadecimal text") from None
