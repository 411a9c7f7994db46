"""LoadGen's accuracy log: reading it, and what a submission has of it: its two ends, and ``accuracy.txt``."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugins.files import LARGE_BYTES, read_file
from sut.mlperf.loadgen import Complete
from sut.tasks.base import Payloads
from sut.tasks.top1 import top1_score

WHOLE_BELOW = 10 * 1024
"""Bytes from which on a log is truncated. MLCommons' checker refuses more; its script for truncating takes a smaller
one, beside an ``accuracy.txt`` with a hash, for one that is truncated already, and leaves it as it is."""
END_BYTES = 4096
"""Bytes that are kept of each end."""
CUT = b"\n\n...\n\n"
"""Between them. JSON with answers in hexadecimal has that nowhere."""

SCORE_FILE = "accuracy.txt"
SCORE_LINES = {
    "top1": (
        re.compile(r"^accuracy=(\d+(?:\.\d+)?)%, good=(\d{1,9}), total=(\d{1,9})\b", re.MULTILINE | re.ASCII),
        "accuracy=76.456%, good=38228, total=50000",
    ),
    "mAP": (re.compile(r"^mAP=(\d{1,3}(?:\.\d+)?)%\s*$", re.MULTILINE | re.ASCII), "mAP=53.400%"),
}
"""The line in it that has the score, by the score's name, and such a line. mAP is no part of a total."""


@dataclass(frozen=True, slots=True)
class AccuracyLog:
    """Answers by sample index, in the order of the log.

    MultiStream pads its last query with samples it has asked for before, so that a sample may stand there twice: the
    first answer counts. ``contradicted`` has a later one, by sample index, where it is another.
    """

    answers: dict[int, bytes]
    contradicted: dict[int, bytes]
    entries: int = field(default=0, compare=False)
    """How many answers there are, padding and all."""

    def check_consistent(self, path: Path) -> None:
        """Raise ``ValueError`` where the log, which is at ``path``, has two different answers for a sample."""
        if self.contradicted:
            index, other = next(iter(self.contradicted.items()))
            raise ValueError(
                f"the accuracy log {path} has two different answers for sample {index}: {self.answers[index].hex()} "
                f"and {other.hex()}; the same picture must get the same answer"
            )


def read_accuracy_log(path: Path) -> AccuracyLog:
    """What an ``mlperf_log_accuracy.json`` says. Raises ``ValueError`` for a file that is not such a log."""
    return parse_accuracy_log(accuracy_log_bytes(path), path)


def accuracy_log_bytes(path: Path) -> bytes:
    """The file's content. Raises ``ValueError`` where it cannot be read."""
    try:
        return read_file(path, LARGE_BYTES)
    except OSError as error:
        raise ValueError(
            f"cannot read the accuracy log {path}: {error.strerror}; expected what LoadGen leaves in accuracy mode"
        ) from error


def parse_accuracy_log(raw: bytes, path: Path) -> AccuracyLog:
    """What an accuracy log's content says; ``path`` names it in errors.

    Raises ``ValueError`` for what is not such a log, ends early, or was truncated for a submission.
    """
    if not raw.strip():
        raise ValueError(f"the accuracy log {path} is empty; expected that of a finished run in accuracy mode")
    if is_truncated(raw):
        raise ValueError(
            f"the accuracy log {path} is truncated, as a submission has it: '...' stands for its middle; expected the "
            "whole one, which the run has left"
        )
    try:
        entries = json.loads(raw, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the accuracy log {path} is cut off or not JSON: {error}") from None
    if not isinstance(entries, list):
        raise ValueError(f"the accuracy log {path} holds a JSON {type(entries).__name__}; expected a list of answers")
    if not entries:
        raise ValueError(f"the accuracy log {path} holds no answers; expected that of a run in accuracy mode")
    log = AccuracyLog({}, {}, len(entries))
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


def is_truncated(log: bytes) -> bool:
    """Whether an accuracy log has been truncated for a submission."""
    return CUT in log


def truncated(log: bytes) -> bytes:
    """An accuracy log as a submission has it: its first and last 4096 bytes; a small or truncated one as it is.

    >>> len(truncated(b"0" * 10240)), len(truncated(b"0" * 10239)), len(truncated(truncated(b"0" * 10240)))
    (8199, 10239, 8199)
    """
    return log if len(log) < WHOLE_BELOW else log[:END_BYTES] + CUT + log[-END_BYTES:]


def log_sha256(log: bytes) -> str:
    """SHA-256 of a whole accuracy log, as hex. Raises ``ValueError`` for one that is truncated: its sum is nobody's."""
    if is_truncated(log):
        raise ValueError("the accuracy log is truncated; expected the whole one, whose hash accuracy.txt has")
    return hashlib.sha256(log).hexdigest()


def score_line(name: str, value: float, count: int) -> str:
    """The line of a score that is known by its ``name`` and ``value``, a fraction, over ``count`` samples."""
    return top1_score(round(value * count), count).text if name == "top1" else f"{name}={100 * value:.3f}%"


def accuracy_file(line: str, sha256: str) -> str:
    """The text of a submission's ``accuracy.txt``: the score's line, and ``log_sha256`` of the accuracy log."""
    return f"{line}\nhash={sha256}\n"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError(f"an entry has a key twice, of {', '.join(found)}")
    return found


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
