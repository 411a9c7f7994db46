"""report.json: what each part of a GPU report came to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FILE, PAGE = "report.json", "report.md"
RESULTS = "results"
"""The folder of what runs leave, in it one for each part that has any."""

Found = Mapping[str, Any]


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartEnd(_Told):
    """What became of one part: what it ``found``, or ``why`` that is not all."""

    ok: bool
    """Whether it came to its end. What it found may be wrong all the same."""
    found: dict[str, Any] = {}
    """Of a part that did not come to its end, what it had found by then."""
    why: str | None = None
    """Why it did not, in one line."""
    not_installed: bool = False
    """Whether that was for want of something to install."""
    left_out: bool = False
    """Whether it was not even begun, since the budget was spent."""
    took_s: float = 0.0
    limit_s: float = 0.0
    results: list[str] = []
    """Folders of results, below that of the report: in each a result.json and LoadGen's logs."""


class Report(_Told):
    """The whole of it. ``parts`` are by name, in the order of their worth."""

    schema_: Literal[3] = Field(default=3, alias="schema")
    made: str
    """ISO 8601, in UTC."""
    versions: dict[str, str | None]
    """Of this project (with its commit), Python and the packages; None where one is not installed."""
    machine: dict[str, Any]
    gpu: list[dict[str, str]]
    """As ``nvidia-smi`` tells them; empty where it does not answer."""
    budget_s: float | None
    left_on_gpu: list[str] = []
    """Processes that a part left on the GPU."""
    targets: list[dict[str, Any]] = []
    parts: dict[str, PartEnd]

    @property
    def found(self) -> dict[str, Found]:
        """What the parts found, of those that came to their end."""
        return {name: part.found for name, part in self.parts.items() if part.ok}


def read_report(folder: Path) -> Report:
    """The report in a folder. Raises ``OSError`` where there is none, ``ValueError`` where it cannot be understood."""
    return Report.model_validate_json((folder / FILE).read_bytes())
