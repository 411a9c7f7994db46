"""Sections of docs/performance.md that the benchmarks write: each between two markers of its own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from benchmarks.overhead_report import INTRODUCTION


def replace_section(text: str, name: str, heading: str, body: str) -> str:
    """``text`` with ``body`` between the markers of ``name``, added at the end under ``heading`` where there are none.

    Raises ``ValueError`` for markers that are not there once and in order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text and end not in text:
        text = f"{text.rstrip()}\n\n## {heading}\n\n{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
        raise ValueError(f"the document has '{begin}' and '{end}' not once each and in this order; mend it by hand")
    return f"{before}{begin}\n\n{body.strip()}\n\n{end}{rest.partition(end)[2]}"


def write_section(document: Path, name: str, heading: str, body: str) -> None:
    """Put ``body`` into the document, which is begun where it is not there."""
    text = document.read_text(encoding="utf-8") if document.exists() else INTRODUCTION
    document.write_text(replace_section(text, name, heading, body), encoding="utf-8")


def command_line(script: str, arguments: Sequence[str]) -> str:
    """How a benchmark was called, without ``--output`` and ``--from``: where one machine kept a file is its own matter.

    >>> command_line("cpu.py", ["--repeat", "3", "--output", "here.json", "--write-docs"])
    'python benchmarks/cpu.py --repeat 3 --write-docs'
    """
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in ("--output", "--from"):
            next(words, None)
        elif not word.startswith(("--output=", "--from=")):
            kept.append(word)
    return shlex.join(["python", f"benchmarks/{script}", *kept])
