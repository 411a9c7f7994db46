"""What processes of ours tell each other, as frozen classes: orders in one JSON text, and events, each on a line.

The one way from them to JSON and back. What cannot be read as one of the kinds that are expected is an error: a word
nobody knows, a field too many or too few, a value of another type. Paths that are not UTF-8 pass as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from sut.errors import ExitCode

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """So many steps of so many are done."""

    done: int
    total: int
    event: Literal["step"] = "step"


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a process ends without having done its work, and the exit code that this means for us.

    ``kind`` is the error's class where it is none of ours, ``errno`` the number of an error of the system.
    """

    code: ExitCode
    message: str
    kind: str | None = None
    traceback: str | None = None
    errno: int | None = None
    event: Literal["failed"] = "failed"

    @property
    def named(self) -> str:
        """The message behind the error's class, without which other people's messages may say little."""
        return f"{self.kind}: {self.message}" if self.kind else self.message


def vocabulary(kinds: Any) -> TypeAdapter[Any]:
    """What reads one of some kinds of events, each told by its field ``event``; built when it is first used."""
    known = Annotated[kinds, Field(discriminator="event")]
    return TypeAdapter(known, config=ConfigDict(extra="forbid", defer_build=True))


STEPS: TypeAdapter[Step | Failed] = vocabulary(Step | Failed)
"""Of a process whose work leaves nothing to tell of but how far it is."""


def to_line(event: object) -> bytes:
    """An event as a line of JSON."""
    return json.dumps(_plain(_adapter(type(event)).dump_python(event))).encode() + b"\n"


def from_line(kinds: TypeAdapter[T], line: bytes) -> T:
    """The opposite of ``to_line``. Raises ``ValueError`` in one line for what is no event of these kinds."""
    try:
        words = json.loads(line)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, dict):
        raise ValueError(f"not a line of JSON: {line[:80]!r}")
    try:
        return kinds.validate_python(words)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"not one of its events: {where and f'{where}: '}{first['msg']}: {line[:80]!r}") from None


def to_text(orders: object) -> str:
    """Orders as JSON. What a config in them has left open stays so."""
    return json.dumps(_plain(_adapter(type(orders)).dump_python(orders, exclude_unset=True)))


def from_text(kind: type[T], text: str) -> T:
    """The opposite of ``to_text``."""
    orders: T = _adapter(kind).validate_python(json.loads(text))
    return orders


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Made once for each kind: that takes longer than an event does."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _plain(value: Any) -> Any:
    """What JSON has for a value. pydantic's own way there refuses names that are not UTF-8 where they are keys."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
