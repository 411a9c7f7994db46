"""What is wrong with a report, as ``sut verify`` tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sut.errors import one_line
from sut.text import printable, shortened


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``file`` is named within the report, ``field`` as the file itself names it."""

    file: str
    field: str
    got: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file}, {self.field}: got {self.got}, expected {self.expected}"


def told(value: object) -> str:
    """A value in a few words on one line."""
    return "nothing" if value is None else shortened(printable(str(value)))


def named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a mapping by the names that they have from outside."""
    return {f"{prefix}.{key}": value for key, value in values.items()}


def differing(file: str, got: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Finding]:
    """A finding for each of the ``expected`` fields that is another in ``got``. What is not there is None."""
    for field, value in expected.items():
        if got.get(field) != value:
            yield Finding(file, field, told(got.get(field)), told(value))


def found_by(file: str, *checks: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What all checks find. One that cannot make sense of ``file`` says so: somebody may have put anything into it."""
    found: list[Finding] = []
    for check in checks:
        try:
            found += check()
        except Exception as error:
            found.append(Finding(file, "content", f"{type(error).__name__}: {one_line(error)}", "what a run leaves"))
    return found
