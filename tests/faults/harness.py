"""Runs one fault in a child process with a limit, and judges what came of it.

However a run ends, it must not be called VALID for work that was not done, hang, show a traceback, leave a process
behind, or lose its result.json.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.children import Finished
from tests.faults import planted
from tests.integration.support import Sut

LIMIT_S = 60.0
"""How long any run here may take. On an idle machine it takes two seconds; a watchdog of two bites in four."""

Kind = Literal["false VALID", "hang", "traceback", "orphan", "no result.json", "other"]

FAST = ("--set", "backend_options.a_ms=0.3", "--set", "backend_options.b_ms=0.05", "--time", "0.3")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, and how the run must end.

    ``at`` is the function it strikes in (``module:name``), at its call number ``call`` on that ``side``; ``do`` is
    Python that runs before the call, ``after`` behind it, with its ``result``. ``prepare`` makes files for it, in the
    run's folder, and gives more options. ``in_run``: it strikes after LoadGen has started. ``result``: whether the
    run's directory was made, so that there must be a result.json. ``{root}`` in a value of ``environment`` is the folder
    of the fault.
    """

    name: str
    group: str
    codes: tuple[int, ...]
    at: str = ""
    do: str = ""
    after: str = ""
    call: int = 1
    side: Literal["child", "parent", "worker"] = "child"
    options: tuple[str, ...] = ()
    scenario: str = "SingleStream"
    prepare: Callable[[Sut], Sequence[str]] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    in_run: bool = True
    result: bool = True
    valid: int = 0
    """How many of the results may be VALID all the same: those of the command's other scenarios."""
    says: str = ""
    """A part of what it must say: on stderr, in the table or in the result's reasons and notes."""
    worst: bool = False
    """Whether it is one of those that every full check runs."""

    def arguments(self, sut: Sut) -> list[str]:
        """The options of ``sut run``."""
        found = [*self.options, *(self.prepare(sut) if self.prepare else ())]
        if "--backend" not in found:
            found = ["--backend", "simulated", *FAST, *found]
        if self.scenario == "Server" and "--qps" not in found:
            found += ["--qps", "1500", "--max-latency", "10"]
        return [*(() if "--scenario" in found else ("--scenario", self.scenario)), *found]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one fault. ``problems`` is empty where all is as it must be."""

    fault: Fault
    code: int | None
    seconds: float
    said: str
    struck: Mapping[str, Any]
    problems: Sequence[tuple[Kind, str]]

    @property
    def place(self) -> tuple[str, int, str]:
        """File and line that it struck, and with what; of a fault in the input the option and what was given."""
        if self.struck:
            return self.struck["file"], self.struck["line"], self.struck["message"]
        return "input", 0, self.fault.name


def run_fault(fault: Fault, root: Path) -> Verdict:
    """Plant the fault in a run in the new folder ``root``, and judge it."""
    root.mkdir(parents=True, exist_ok=True)
    sut = Sut(root)
    shutil.copy(planted.__file__, sut.packages / "sitecustomize.py")
    planned = {"at": fault.at, "do": fault.do, "after": fault.after, "call": fault.call, "side": fault.side}
    planned["when"] = "run" if fault.in_run else "any"
    variables = {name: value.replace("{root}", str(root)) for name, value in fault.environment.items()}
    variables["SUT_FAULT"] = json.dumps(planned)
    arguments = fault.arguments(sut)
    try:
        with sut.started(*arguments, **variables) as running:
            finished = running.finish(LIMIT_S)
    except pytest.fail.Exception as error:
        return Verdict(fault, None, LIMIT_S, str(error), _struck(sut), [("hang", str(error))])
    struck = _struck(sut)
    problems = [*judge(fault, finished, struck)]
    return Verdict(fault, finished.code, finished.seconds, _said(finished), struck, problems)


def judge(fault: Fault, finished: Finished, struck: Mapping[str, Any]) -> list[tuple[Kind, str]]:
    """What is wrong with how a run ended, by kind."""
    found: list[tuple[Kind, str]] = []
    texts = finished.out + finished.err
    if "Traceback" in texts:
        found.append(("traceback", finished.err[-600:]))
    if finished.left:
        found.append(("orphan", "; ".join(finished.left)))
    if fault.result and not finished.results:
        found.append(("no result.json", finished.err[-600:]))
    claims = [result for result in finished.results.values() if result["valid"] or _met(result)]
    if 0 not in fault.codes and (finished.code == 0 or len(claims) > fault.valid):
        found.append(("false VALID", f"exit {finished.code}, {len(claims)} results claim to be valid"))
    if finished.code not in fault.codes:
        found.append(("other", f"exit {finished.code}, expected {fault.codes}: {finished.err[-600:]}"))
    if finished.code in (1, 2, 3, 130) and len(finished.errors) != 1:
        found.append(("other", f"{len(finished.errors)} lines of error, expected 1: {finished.err[-600:]}"))
    if fault.at and not struck:
        found.append(("other", "it never struck"))
    elif fault.at and struck["in_run"] != fault.in_run:
        found.append(("other", f"struck with LoadGen {'' if struck['in_run'] else 'not '}started"))
    if fault.says and fault.says not in texts + json.dumps([*finished.results.values()], ensure_ascii=False):
        found.append(("other", f"does not say {fault.says!r}: {finished.err[-600:]}"))
    return found


def _met(result: Mapping[str, Any]) -> bool:
    return bool(result["accuracy"] and result["accuracy"]["met"])


def _said(finished: Finished) -> str:
    """The one line that matters."""
    if finished.errors:
        return finished.errors[-1]
    lines = [line for line in finished.err.splitlines() if "INVALID" in line]
    return (lines or finished.out.splitlines() or [""])[0]


def _struck(sut: Sut) -> Mapping[str, Any]:
    path = sut.folder / "struck"
    if not path.exists():
        return {}
    first: Mapping[str, Any] = json.loads(path.read_text().splitlines()[0])
    return first
