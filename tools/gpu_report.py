"""The report behind ``gpu_report.sh``: each part runs in a process of its own and may fail alone.

A part fails the report where it does not run or finds something wrong, and a result that is not as right as
``gpu_targets.py`` asks fails it too. What is not installed and is there only to compare with does not, and neither does
a speed that is missed: both are shown.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_parts import PARTS
from gpu_preprocess import why_of
from gpu_targets import targets

# The package has ONNX Runtime send nothing, which some parts import by themselves.
from sut.process.telling import die_with_parent

INTERRUPTED = 130
"""Exit code after SIGTERM or SIGHUP."""
PART_LIMIT_S = 240
LONGER_S = {"preprocess": 420}
"""Limits of parts that take longer."""
MAY_BE_MISSING = frozenset({"onnxruntime_cuda", "kernels_profile"})
"""Parts that need what nothing else needs: ONNX Runtime for CUDA, ncu or nsys."""


def run_part(name: str) -> dict[str, Any]:
    """One part in a process of its own: ``{"ok": True, ...}``, or ``ok`` False and why."""
    begin, limit_s = time.monotonic(), LONGER_S.get(name, PART_LIMIT_S)
    process = subprocess.Popen(
        [sys.executable, __file__, "--part", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # what it starts must not outlive it: it would take the GPU from the next
    )
    try:
        stdout, stderr = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"ok": False, "why": f"no end after {limit_s} s"}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    took = round(time.monotonic() - begin, 1)
    try:
        return {**json.loads(stdout.splitlines()[-1]), "took_s": took}
    except (IndexError, ValueError):
        return {"ok": False, "why": f"ended with {process.returncode}: {stderr.strip()[-500:]}", "took_s": took}


def is_missing(name: str, part: Mapping[str, Any]) -> bool:
    """Whether a part did not run for want of something that only it needs."""
    return name in MAY_BE_MISSING and bool(part.get("not_installed"))


def failed(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Parts that did not run, or found something wrong: why, by name.

    >>> failed({"gpu": {"ok": True, "found": {}}, "kernels_check": {"ok": True, "found": {"cases": 2, "wrong": [{}]}}})
    {'kernels_check': '1 wrong of 2'}
    >>> failed({name: {"ok": False, "why": "no ncu", "not_installed": True} for name in ("kernels_profile", "parity")})
    {'parity': 'no ncu'}
    """
    found = {}
    for name, part in parts.items():
        if not part["ok"]:
            if not is_missing(name, part):
                found[name] = part["why"]
            continue
        wrong, cases = part["found"].get("wrong", ()), part["found"].get("cases")
        if wrong:
            first = f", the first: {wrong[0]['why']}" if "why" in wrong[0] else ""
            found[name] = f"{len(wrong)} wrong" + ("" if cases is None else f" of {cases}") + first
        elif name == "kernels_check" and (not cases or part["found"].get("exit_code")):
            found[name] = f"ended with {part['found'].get('exit_code')}, {cases or 0} cases"
    return found


def judged(parts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The targets as rows, from the parts that ran."""
    return [each.row() for each in targets({name: part["found"] for name, part in parts.items() if part["ok"]})]


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a page.

    >>> print(markdown({"made": "now", "targets": [], "parts": {"gpu": {"ok": False, "why": "no driver"}}}))
    # GPU report
    <BLANKLINE>
    Made now.
    <BLANKLINE>
    ## gpu
    <BLANKLINE>
    Did not run: no driver
    <BLANKLINE>
    """
    lines = ["# GPU report", "", f"Made {report['made']}.", ""]
    if report["targets"]:
        lines += ["## Targets", "", "A result that is NOT MET fails the report, a speed does not.", ""]
        lines += [*_table(report["targets"]), ""]
    for name, part in report["parts"].items():
        lines += [f"## {name}", ""]
        if not part["ok"]:
            lines += [f"{'Not installed' if is_missing(name, part) else 'Did not run'}: {part['why']}", ""]
            continue
        lines += [*_items(part["found"]), ""]
    return "\n".join(lines)


def _items(found: Mapping[str, Any]) -> Sequence[str]:
    if isinstance(found.get("rows"), list):
        rows = [row for row in found["rows"] if isinstance(row, dict)]
        return [f"- {row.get('name')}: {row.get('status')}, {row.get('found')}" for row in rows]
    lines = [f"- {key}: `{json.dumps(value)}`" for key, value in found.items() if key != "table"]
    if table := found.get("table"):
        lines += ["", *_table(table)]
    return lines


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    head = [f"| {' | '.join(rows[0])} |", f"|{' --- |' * len(rows[0])}"]
    return [*head, *(f"| {' | '.join(_cell(value) for value in row.values())} |" for row in rows)]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(arguments: Sequence[str]) -> int:
    """Write the report, all of it or the parts that are named; others are kept from the report that is there.

    1 for a part that is not known; 2 where there is no NVIDIA GPU; 3 where a part failed or found something wrong.
    """
    if arguments[0] == "--part":
        try:
            print(json.dumps({"ok": True, "found": PARTS[arguments[1]]()}))
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError)
            print(json.dumps({"ok": False, "why": why_of(error), "not_installed": missing}))
        return 0
    out, names = Path(arguments[0]), arguments[1:] or tuple(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        print(f"error: no part '{unknown[0]}', expected some of {', '.join(PARTS)}", file=sys.stderr)
        return 1
    first = run_part("gpu")
    if not first["ok"]:
        print(f"error: no NVIDIA GPU here: nvidia-smi does not answer ({first['why']})", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    parts = {**_earlier(out, first), "gpu": first}
    for name in names:
        if name != "gpu":
            print(f"{name} ...", file=sys.stderr, flush=True)
            parts[name] = run_part(name)
        # After each part: one that takes the machine down leaves what the others found.
        _write(out, {name: parts[name] for name in PARTS if name in parts})
    print(out / "report.md", file=sys.stderr)
    wrong = failed(parts)
    for name, part in parts.items():
        if is_missing(name, part):
            print(f"not installed: {name}: {part['why']}", file=sys.stderr)
    for row in judged(parts):
        print(f"{row['verdict']}: {row['target']}, {row['asked']}: {_cell(row['measured'])}", file=sys.stderr)
        if row["kind"] == "result" and row["verdict"] == "NOT MET":
            wrong[row["target"]] = f"{_cell(row['measured'])}, expected {row['asked']}"
    for name, why in wrong.items():
        print(f"error: {name}: {why}", file=sys.stderr)
    return 3 if wrong else 0


def _earlier(out: Path, gpu_now: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a report that is there and was made on this GPU."""
    with suppress(OSError, ValueError, KeyError):
        parts: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))["parts"]
        if parts["gpu"]["found"] == gpu_now["found"]:
            return parts
    return {}


def _write(out: Path, parts: Mapping[str, Any]) -> None:
    made = datetime.now(UTC).isoformat(timespec="seconds")
    report = {"schema": 2, "made": made, "targets": judged(parts), "parts": parts}
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown(report), encoding="utf-8")


def _interrupted(which: int, frame: object) -> None:
    """Leave by way of ``run_part``, which ends the part that is running and all that it has started."""
    sys.exit(INTERRUPTED)


if __name__ == "__main__":
    if sys.argv[1] == "--part":
        die_with_parent()
    else:
        for each in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(each) is not signal.SIG_IGN:  # nohup
                signal.signal(each, _interrupted)
    sys.exit(main(sys.argv[1:]))
