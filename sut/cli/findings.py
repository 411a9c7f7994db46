"""What a judge has found, as commands print it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sut.mlperf.finding import Finding


def finding_rows(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as ``--json`` has them."""
    return [
        {
            "severity": each.severity.value,
            "rule": each.rule.value,
            "file": each.file,
            "field": each.field,
            "got": each.got,
            "expected": each.expected,
        }
        for each in findings
    ]


def finding_lines(findings: Iterable[Finding]) -> Iterator[str]:
    """A line for each."""
    for each in findings:
        yield f"{each.severity}: {each.file}: {each.field}: got {each.got}, expected {each.expected} ({each.rule})"
