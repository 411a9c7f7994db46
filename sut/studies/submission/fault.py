"""What keeps runs from being a submission, and what of it a rehearsal, or the open division, lets pass."""

from __future__ import annotations

from dataclasses import dataclass

from sut.studies.proof.finding import Finding

ACCURACY = "accuracy target"
SCORE = "an audit's score"
REHEARSED = frozenset(
    {
        *("short run", "few queries", "few samples", "few samples loaded"),
        *(
            "few pictures",
            "more pictures",
            "part of a list",
            "another model",
            "another model file",
            "a retired benchmark",
        ),
        *("unseen weights", "a server here"),
        *(ACCURACY, SCORE),
    }
)
"""What a rehearsal relaxes: rules by their names in ``sut/mlperf/short.py``, and those that are judged here."""
OPEN = frozenset({"another model", "another model file", "own calibration", "a retired benchmark"})
"""What the open division does not ask for."""

UNFINISHED = frozenset({"no end", "no log"})
"""What follows from a run that was cut short, of which that is told."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault in one line, and the ``name`` of the rule that it breaks where somebody may relax that."""

    text: str
    name: str | None = None

    @classmethod
    def of(cls, where: str, field: str, got: str, expected: str, name: str | None = None) -> Fault:
        """A fault in the words of a finding. ``where``: scenario and role, and the file if it is not result.json."""
        return cls(str(Finding(where, field, got, expected)), name)

    @property
    def is_relaxed(self) -> bool:
        """Whether a rehearsal lets it pass."""
        return self.name in REHEARSED
