"""Runs the parts of a GPU report, each in a process of its own that may fail alone, and keeps what they found.

A part fails the report where it does not come to its end or finds something wrong, and a result that is not as right as
``targets`` asks fails it too. What is not installed and nothing else needs does not, nor does a speed that is missed,
nor what the budget left no time for: these are shown.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from plugins.registry import suggest
from sut.errors import ExitCode, InputError, reason_of, writing
from sut.files import write_text
from sut.process.child import environment
from sut.process.signals import undisturbed
from sut.process.streams import tell, tell_error
from sut.process.telling import die_with_parent
from sut.results.machine import system_facts
from sut.results.schema import FILE as RESULT
from sut.studies.gpu_report.child import last_line
from sut.studies.gpu_report.machine import gpu_processes, versions
from sut.studies.gpu_report.page import cell, markdown
from sut.studies.gpu_report.parts import PARTS, Load, Part
from sut.studies.gpu_report.schema import FILE, PAGE, RESULTS, PartEnd, Report, read_report
from sut.studies.gpu_report.targets import targets

GONE_S = 10.0
"""How long the driver may take to forget processes that were ended."""
_WRITING_S = 3.0
"""Of the budget, for what comes after the last part."""


def make_report(folder: Path, asked: Sequence[str], load: Load | None, budget_s: float | None) -> ExitCode:
    """Write the report into ``folder``: all of it, the parts of one load, or those that are ``asked`` for.

    Others are kept from the report that is there. Returns 0; 2 where there is no NVIDIA GPU; 3 where a part failed or
    found something wrong, or left a process on the GPU. Raises ``InputError`` for a part that is not known, and a
    folder that cannot be written or has another GPU's report.
    """
    deadline = None if budget_s is None else time.monotonic() + budget_s - _WRITING_S
    if unknown := [name for name in asked if name not in PARTS]:
        raise InputError(f"no part '{unknown[0]}'; {suggest(unknown[0], PARTS)}")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    parts = {"gpu": run_part("gpu", PARTS["gpu"], folder, PARTS["gpu"].limit_s)}
    parts = _earlier(folder, parts["gpu"]) | parts
    report = Report(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        machine=system_facts(),
        gpu=parts["gpu"].found.get("gpus", []),
        budget_s=budget_s,
        parts=parts,
    )
    try:
        with _leaving_nothing() as left:
            for name in _chosen(asked, load, parts):
                parts[name] = _within(deadline, name, folder, parts.get(name))
                # After each part: one that takes the machine down leaves what the others found.
                report = _write(folder, report, parts, left)
    finally:
        report = _write(folder, report, parts, left)
    tell(f"{folder / PAGE}")
    return _verdict(report)


def _chosen(asked: Sequence[str], load: Load | None, parts: dict[str, PartEnd]) -> list[str]:
    """What is to be run, in the order of its worth: of the second load, first what the first one cannot have run."""
    if asked:
        return [name for name in asked if name != "gpu"]
    names = [name for name in PARTS if name != "gpu"]
    if load is None:
        return names
    mine = [name for name in names if PARTS[name].load == load]
    missing = [name for name in names if name not in mine and name in parts and not parts[name].ok]
    return mine + (missing if load == "second" else [])


def _within(deadline: float | None, name: str, folder: Path, earlier: PartEnd | None) -> PartEnd:
    """A part in what is left of the budget; where that is too little, what an earlier report has of it."""
    part = PARTS[name]
    left_s = part.limit_s if deadline is None else deadline - time.monotonic()
    if left_s < part.least_s:
        why = f"{max(0, left_s):.0f} s of the budget were left, it takes about {part.least_s:.0f} s"
        tell(f"{name}: left out: {why}")
        return earlier or PartEnd(ok=False, why=why, left_out=True)
    tell(f"{name} ...")
    return run_part(name, part, folder, min(part.limit_s, left_s))


def run_part(name: str, part: Part, folder: Path, limit_s: float) -> PartEnd:
    """One part in a process of its own, which is gone afterwards with all that it has started."""
    begin, home = time.monotonic(), folder / RESULTS / name
    shutil.rmtree(home, ignore_errors=True)
    with TemporaryFile() as out, TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sut.studies.gpu_report.parts", name],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**environment(), **part.variables, "OUTPUT_DIR": str(home.absolute())},
            start_new_session=True,  # what it starts must not outlive it: it would take the GPU from the next
            preexec_fn=die_with_parent,
        )
        why = f"no end after {limit_s:.0f} s"
        try:
            code = process.wait(limit_s)
            why = f"ended with {code}: {last_line(_text(err))}"
        except subprocess.TimeoutExpired:
            pass
        finally:
            with undisturbed():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        end = _last_told(_text(out))
    if not end.ok and end.why is None:
        end = end.model_copy(update={"why": why})
    results = sorted(str(path.parent.relative_to(folder)) for path in home.rglob(RESULT))
    took_s = round(time.monotonic() - begin, 1)
    return end.model_copy(update={"took_s": took_s, "limit_s": round(limit_s, 1), "results": results})


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _last_told(said: str) -> PartEnd:
    """The last that a part's process told, among whatever libraries print there; of one that told nothing, nothing."""
    for line in reversed(said.splitlines()):
        with suppress(ValueError):
            return PartEnd.model_validate_json(line)
    return PartEnd(ok=False)


@contextmanager
def _leaving_nothing() -> Iterator[list[str]]:
    """Afterwards the list has the processes that came to the GPU meanwhile and did not go."""
    before = gpu_processes()
    left: list[str] = []
    try:
        yield left
    finally:
        deadline = time.monotonic() + GONE_S
        while (found := gpu_processes() - before) and time.monotonic() < deadline:
            time.sleep(0.5)
        left += sorted(found)


def _earlier(folder: Path, gpu_now: PartEnd) -> dict[str, PartEnd]:
    """The parts of a report that is there. Raises ``InputError`` where another GPU made it, or it cannot be read."""
    try:
        report = read_report(folder)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / FILE}: no report to go on with ({reason_of(error)}); choose another --output"
        ) from error
    if report.gpu and report.gpu != gpu_now.found.get("gpus"):
        made_on = "; ".join(gpu["name"] for gpu in report.gpu)
        raise InputError(f"{folder} has a report of {made_on}, which is not what is here; choose another --output")
    return report.parts


def _write(folder: Path, report: Report, parts: dict[str, PartEnd], left: Sequence[str]) -> Report:
    ordered = {name: parts[name] for name in PARTS if name in parts}
    whole = report.model_copy(update={"parts": ordered, "left_on_gpu": list(left)})
    whole = whole.model_copy(update={"targets": [each.row() for each in targets(whole.found)]})
    with writing(folder):
        write_text(folder / FILE, whole.model_dump_json(by_alias=True, indent=1) + "\n")
        write_text(folder / PAGE, markdown(whole))
    return whole


def failed(report: Report) -> dict[str, str]:
    """What did not run, or is wrong: why, by name."""
    found = {}
    for name, part in report.parts.items():
        if not part.ok:
            if not (part.left_out or (part.not_installed and PARTS[name].may_be_missing)):
                found[name] = part.why or "no reason is known"
        elif wrong := part.found.get("wrong"):
            cases = f" of {cases}" if (cases := part.found.get("cases")) else ""
            found[name] = f"{len(wrong)} wrong{cases}, the first: {wrong[0]['why']}"
    for row in report.targets:
        if row["kind"] == "result" and row["verdict"] == "NOT MET":
            found[row["target"]] = f"{cell(row['measured'])}, expected {row['asked']}"
    if report.left_on_gpu:
        found["left on the GPU"] = "; ".join(report.left_on_gpu)
    return found


def _verdict(report: Report) -> ExitCode:
    for row in report.targets:
        tell(f"{row['verdict']}: {row['target']}, {row['asked']}: {cell(row['measured'])}")
    wrong = failed(report)
    for name, why in wrong.items():
        tell_error(f"{name}: {why}")
    if not report.parts["gpu"].ok:
        return ExitCode.SETUP
    return ExitCode.FAILED if wrong else ExitCode.OK
