"""``sut audit``: TEST01 and TEST04 for finished runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sut.cli.emit import emit, grid, prose
from sut.errors import ExitCode, InputError, short

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sut.studies.audits import Audited

HELP = """Run MLPerf's audits TEST01 and TEST04 for finished runs, and verify them; of detectors TEST01 alone.

Example: ./run_local.sh audit output/resnet50/onnxruntime-cpu-opencv-fp32-tensor-0a1b2c3d

FOLDER is that of a configuration, which sut run has told, or of one scenario in it. Each scenario with a VALID
performance run is run once for each audit, with the same configuration; TEST01 needs its accuracy run, too. An
audit.config is there only as long as the runs take. TEST01: every answer that LoadGen logged is that of the accuracy
run, byte for byte, and the score is that of the performance run within 10 %; TEST04: one sample asked all along makes
it at most 10 % faster. Leaves the verify files of a submission beside the logs (docs/audits.md).
Exit code: 0 all passed; 1 runs are missing or do not belong together; 3 a run failed; 4 an audit is failed.
"""

_SHOWN = 10
"""Findings of one audit that are told in full; --json has all."""


def register(app: typer.Typer) -> None:
    """Add the command ``audit`` to ``app``."""
    app.command(help=HELP)(audit)


def audit(
    folder: Annotated[Path, typer.Argument(help="Folder of a configuration's runs, or of one of its scenarios.")],
    test: Annotated[
        str | None, typer.Option(help="Which audits, comma list; default: all that MLPerf asks of the model.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Which scenarios, comma list; default: all that were run.")
    ] = None,
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="Run nothing: verify audits that were run before.")
    ] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="For short runs: scores are told, and fail no audit.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove an earlier audit instead of renaming it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> ExitCode:
    """See HELP."""
    from sut.cli.console import Console
    from sut.config.words import parse_scenarios
    from sut.studies.audits import TESTS
    from sut.studies.audits import audit as run_audits

    tests = None if test is None else tuple(dict.fromkeys(word.strip().upper() for word in test.split(",")))
    if unknown := [word for word in tests or () if word not in TESTS]:
        raise InputError(f"--test {unknown[0]!r}: no such audit; there are {', '.join(TESTS)}")
    if verify_only and overwrite:
        raise InputError("--overwrite has no effect with --verify-only, which runs nothing; leave one of them out")
    outcome = run_audits(
        folder,
        Console(as_json),
        shlex.join(sys.argv),
        tests=tests,
        scenarios=parse_scenarios(scenario) if scenario else None,
        verify_only=verify_only,
        rehearse=rehearse,
        overwrite=overwrite,
    )
    emit(
        "audit",
        [row.as_json() for row in outcome.rows],
        audit_table(outcome.rows, rehearse),
        as_json,
        rehearsal=rehearse,
    )
    return outcome.code


def audit_table(rows: Sequence[Audited], rehearse: bool) -> Iterator[RenderableType]:
    """What audits came to, and each finding in a line."""
    from sut.mlperf.verify_audit import RELAXED

    if not rows:
        return
    headings = ("<scenario", "<test", "<verdict", ">reference", ">audit", ">ratio", ">same answers")
    yield grid(headings, map(_line, rows))
    for row in rows:
        findings = row.verified.findings if row.verified else ()
        for each in findings[:_SHOWN]:
            relaxed = ", relaxed in a rehearsal" if rehearse and each.rule in RELAXED else ""
            yield prose(f"{row.scenario} {row.test}{relaxed}: {each}")
        if len(findings) > _SHOWN:
            yield prose(f"{row.scenario} {row.test}: and {len(findings) - _SHOWN:,} more; --json has all")


def _line(row: Audited) -> list[str]:
    found = row.verified
    words = {ExitCode.OK: "passed", ExitCode.INVALID: "FAILED", ExitCode.INTERRUPTED: "interrupted"}
    verdict = words.get(row.code, "run failed")
    if found is None:
        return [row.scenario, row.test, verdict, "-", "-", "-", "-"]
    answers = found.answers
    ratio = "-" if found.ratio is None else f"{found.ratio:.3f}"
    same = "-" if answers is None else f"{answers.known - answers.mismatches:,} of {answers.entries:,}"
    return [
        row.scenario,
        row.test,
        verdict,
        *(_figure(row, each) for each in (found.reference, found.score)),
        ratio,
        same,
    ]


def _figure(row: Audited, value: float | None) -> str:
    from sut.mlperf.metrics import METRICS

    if value is None:
        return "-"
    return f"{short(value)}/s" if METRICS[row.scenario][2] else f"{value / 1e6:.4g} ms"
