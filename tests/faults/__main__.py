"""``python -m tests.faults``: throw every fault at the product, and write the scoreboard to docs/reliability.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import get_args

from tests.children import CHECKOUT
from tests.faults.catalogue import FAULTS, run_number
from tests.faults.harness import Fault, Kind, Verdict

DOCUMENT = CHECKOUT / "docs" / "reliability.md"
_WIDTH = 110


def main() -> int:
    """Run what the command line asks for; 1 where anything is not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="only faults whose name or group has one of these words")
    parser.add_argument("--jobs", type=int, default=2, help="how many at once (default 2)")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name}; only with all faults")
    options = parser.parse_args()
    chosen = [
        each for each in FAULTS if not options.words or any(w in f"{each.group}: {each.name}" for w in options.words)
    ]
    begin = time.monotonic()
    verdicts = throw(chosen, options.jobs)
    took_s = time.monotonic() - begin
    print(f"{len(verdicts)} faults in {took_s:.0f} s: {_counts(verdicts)}")
    twice = [place for place, count in Counter(each.place for each in verdicts).items() if count > 1]
    for place in twice:
        print(f"twice: {place}")
    if options.write and chosen == list(FAULTS):
        DOCUMENT.write_text(document(verdicts, took_s, options.jobs), encoding="utf-8")
    return 1 if twice or any(verdict.problems for verdict in verdicts) else 0


def throw(faults: Sequence[Fault], jobs: int) -> list[Verdict]:
    """Run faults, ``jobs`` at once, in the order given; each that goes wrong is printed at once."""
    found: dict[int, Verdict] = {}
    # Processes: a run's start looks at signals, which only a main thread may.
    with tempfile.TemporaryDirectory() as root, ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        futures = {pool.submit(run_number, FAULTS.index(fault), root): fault for fault in faults}
        for future in as_completed(futures):
            verdict = Verdict(futures[future], *future.result())
            found[FAULTS.index(verdict.fault)] = verdict
            mark = "ok" if not verdict.problems else "BAD"
            print(
                f"{len(found):4} {mark:3} {verdict.seconds:5.1f} s exit {verdict.code}  {verdict.fault.group}: {verdict.fault.name}"
            )
            print(f"           {verdict.said}")
            for kind, text in verdict.problems:
                print(f"         * {kind}: {text}")
            sys.stdout.flush()
    return [found[number] for number in sorted(found)]


def _counts(verdicts: Sequence[Verdict]) -> str:
    found = Counter(kind for verdict in verdicts for kind, _ in verdict.problems)
    return ", ".join(f"{found[kind]} {kind}" for kind in get_args(Kind))


def document(verdicts: Sequence[Verdict], took_s: float, jobs: int) -> str:
    """The text of docs/reliability.md."""
    in_run = sum(bool(verdict.struck.get("in_run")) for verdict in verdicts)
    found = Counter(kind for verdict in verdicts for kind, _ in verdict.problems)
    lines = [
        "# What happens when things go wrong",
        "",
        f"{len(verdicts)} faults, each planted in a run of its own with a limit of time; {in_run} of them strike after LoadGen has",
        "started. `.venv/bin/python -m tests.faults --write` throws them all and writes this page",
        f"({took_s / 60:.1f} minutes on two cores, {jobs} at a time); `./run_tests.sh --all` throws the worst of them.",
        "",
        "| scoreboard | |",
        "| --- | --- |",
        *(
            f"| {kind if kind != 'other' else 'another exit code or other words than expected'} | {found[kind]} |"
            for kind in get_args(Kind)
        ),
        "",
        "Exit codes: 0 done and VALID; 1 wrong input; 2 not installed; 3 FAILED; 4 INVALID; 130 interrupted.",
    ]
    group = ""
    for verdict in verdicts:
        if verdict.fault.group != group:
            group = verdict.fault.group
            lines += [
                "",
                f"## {group[0].upper()}{group[1:]}",
                "",
                "| fault | exit | what was said |",
                "| --- | --- | --- |",
            ]
        lines.append(f"| {_cell(verdict.fault.name)} | {verdict.code} | {_cell(_short(verdict.said))} |")
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    """One line without the folders of this machine."""
    words = " ".join(text.replace(f"{CHECKOUT}/", "").replace(tempfile.gettempdir(), "").split())
    return words if len(words) <= _WIDTH else words[: _WIDTH - 3] + "..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
