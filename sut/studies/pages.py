"""Studies on pages: each study writes one study.json, and brings what reads that again for a page.

A study.json is ``{"schema": 1, "command": ..., "rows": [...], "system": {...}, ...}``, as ``--json`` prints it. Its
reader is a pure function from that to a ``Study``, in a module of its own beside the study.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from plugins.files import LARGE_BYTES, read_file
from sut.errors import cut, one_line, writing
from sut.files import write_text
from sut.results.collected import Skipped
from sut.results.machine import system_facts
from sut.results.page.study import Study
from sut.results.schema import PAGE, STUDY, dump_json
from sut.run.reporter import Reporter

SCHEMA = 1
Reader = Callable[[Mapping[str, Any], str], Study]
"""``study_of(content, key)``: the study in the content of a file; ``key`` begins the names of its charts.

Raises ``ValueError``, ``KeyError`` or ``TypeError`` for content that its study did not write."""

READERS: dict[str, str] = {
    "breakdown": "sut.studies.breakdown.page",
    "plan": "sut.studies.capacity.page",
    "study beyond-inference": "sut.studies.beyond_inference.page",
    "study brokers": "sut.studies.brokers.page",
    "study energy": "sut.studies.energy.page",
    "study ladder": "sut.studies.ladder.page",
    "study models": "sut.studies.models.page",
    "study shortcuts": "sut.studies.shortcuts.page",
    "sweep": "sut.studies.sweeping.page",
    "tune": "sut.studies.tuning.page",
    "whatif": "sut.studies.whatif.page",
}
"""By command the module that has its ``study_of``."""


def keep_study(folder: Path, command: str, told: Mapping[str, Any]) -> None:
    """Write a study's file, as far as it has come. Raises ``InputError`` where it cannot be written."""
    content = {"schema": SCHEMA, "command": command, **told, "system": system_facts()}
    with writing(folder):
        write_text(folder / STUDY, dump_json(content))


def leave_study(folder: Path, command: str, told: Mapping[str, Any], console: Reporter) -> None:
    """Write a study's file, and the page of it. Raises ``InputError`` where the file cannot be written."""
    keep_study(folder, command, told)
    page = folder / PAGE
    try:
        from sut.results.page.page import write_page

        write_page(page, [], studies=[read_study(folder / STUDY, "s0")])
    except Exception as error:  # whatever it is: what was measured is kept
        console.note(f"{page}: no page was written: {one_line(error)}")
    else:
        console.page(page)


def read_studies(files: Sequence[Path]) -> tuple[list[Study], list[Skipped]]:
    """The studies in files, each once, and what is none."""
    found: list[Study] = []
    skipped: list[Skipped] = []
    for file in {os.path.realpath(file): file for file in files}.values():
        try:
            found.append(read_study(file, f"s{len(found)}"))
        except ValueError as error:
            skipped.append(Skipped(file, str(error)))
    return found, skipped


def read_study(path: Path, key: str) -> Study:
    """The study in a file. Raises ``ValueError`` that says why it is none."""
    try:
        content = json.loads(read_file(path, LARGE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read: {one_line(error)}") from None
    command = content.get("command") if isinstance(content, dict) else None
    if not isinstance(command, str) or command not in READERS:
        raise ValueError("it is not what a study writes")
    if (schema := content.get("schema")) != SCHEMA:
        raise ValueError(f"it has schema {cut(str(schema))}, expected {SCHEMA}; read it with the version that wrote it")
    read: Reader = import_module(READERS[command]).study_of
    try:
        return read(content, key)
    except (ValueError, KeyError, TypeError, ArithmeticError, IndexError) as error:
        raise ValueError(
            f"edited, or not written by sut {command}: {type(error).__name__}: {one_line(error)}"
        ) from None
