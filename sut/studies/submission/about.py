"""What only a person knows of a submission: one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict


class About(BaseModel):
    """The file's content. What is not told here is taken from the results."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    submitter: str
    """Name of the organisation, as its folder is called: letters, digits, ``_``, ``-`` and ``.``."""
    division: Literal["closed", "open"]
    """``closed``: MLPerf's model and rules; ``open``: any model, no accuracy floor, no audits."""
    system: str
    """Name of the system, as its folder and file are called."""
    system_type: Literal["edge", "datacenter,edge"] = "edge"
    """Closed: ``datacenter,edge`` adds Server."""
    status: Literal["available", "preview", "rdi"] = "available"
    """Whether the system can be bought."""
    scenarios: tuple[str, ...] = ()
    """Which to submit; empty: all that the division asks for, in open all that were run."""
    inferred: Mapping[str, str] = {}
    """Scenarios that are inferred, and from which: ``Offline: SingleStream``. Edge only."""
    model: str | None = None
    """Open: name of the model's folder; else the result's own."""
    fields: Mapping[str, str] = {}
    """Fields of systems/SYSTEM.json that a program cannot know, or knows wrongly: these win."""
