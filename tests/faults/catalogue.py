"""Every fault there is, and the worst of them."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

from tests.faults import before, in_run, outside
from tests.faults.harness import Fault, run_fault

FAULTS: tuple[Fault, ...] = (
    *in_run.RAISED,
    *in_run.LIES,
    *in_run.PROCESS,
    *outside.SIGNALS,
    *outside.LOGS,
    *outside.EXCHANGED,
    *outside.DISK,
    *outside.PARENT,
    *before.MODELS,
    *before.ODD,
    *before.FILES,
    *before.PICTURES,
    *before.SETTINGS,
    *before.PLACES,
    *before.PACKAGES,
    *before.CACHE,
    *before.NAMES,
    *before.CLOCK,
)
WORST = tuple(fault for fault in FAULTS if fault.worst)


def run_number(number: int, root: str) -> tuple[Any, ...]:
    """One fault by its number, as some of them cannot be sent to another process; the verdict without its fault."""
    return astuple(run_fault(FAULTS[number], Path(root) / str(number)))[1:]
