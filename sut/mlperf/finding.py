"""What is wrong, or odd, with a log or a submission: a rule, and where it is broken."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Severity(StrEnum):
    """How bad it is."""

    IMPOSSIBLE = "impossible"
    """It contradicts itself, or what a run can do: nothing of it can be believed."""
    INVALID = "invalid"
    """It may be what happened, but it does not count."""
    DOUBT = "doubt"
    """It may count, and is worth a look."""


class Rule(StrEnum):
    """What a finding is about, in words. Members: ``NAME = words, severity``; impossible is the default."""

    severity: Severity

    def __new__(cls, words: str, severity: Severity = Severity.IMPOSSIBLE) -> Self:
        """A member of ``words``, which are its value."""
        member = str.__new__(cls, words)
        member._value_ = words
        member.severity = severity
        return member


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong or odd. ``file`` is named from the folder that was judged, ``field`` as the file does."""

    rule: Rule
    file: str
    field: str
    got: str
    expected: str

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self.rule.severity

    @property
    def contradicts(self) -> bool:
        """Whether the log cannot be believed at all, as opposed to being that of a run that does not count."""
        return self.severity is Severity.IMPOSSIBLE

    def __str__(self) -> str:
        return f"{self.rule} ({self.file}, {self.field}: got {self.got}, expected {self.expected})"
