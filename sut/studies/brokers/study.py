"""Goes round all forms at all fan-outs, within a budget of time, and keeps every round as it is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from statistics import median

from sut.config import RunConfig
from sut.errors import ExitCode, InputError, SetupError, SutError, one_line
from sut.pipeline.assembly import Assembly, assemble
from sut.pipeline.slowdown import check_as_it_is
from sut.process.telling import code_of
from sut.run.energy.metering import AtRest
from sut.run.reporter import Reporter
from sut.studies.brokers.forms import FUSED, Form, missing, why_not
from sut.studies.brokers.rounds import Round, drives, measure, round_of_line
from sut.studies.kept import Kept, header_of, held, study_folder
from sut.studies.tuning.space import with_settings
from sut.text import Say, duration

COMMAND = "study brokers"
FILE = "rounds.jsonl"
_START_S = 6.0
"""What loading both models once is thought to take, before a round has told."""


@contextmanager
def open_study(
    configs: Sequence[RunConfig], forms: Sequence[Form], fan_outs: Sequence[int], rounds: int, console: Reporter
) -> Iterator[Study]:
    """A study that goes on with what an earlier one of the same has left; its folder is its own as long as it lasts.

    Raises ``InputError`` for what cannot be measured, ``SetupError`` where no form but the fused one can be had.
    """
    base = _base_of(configs)
    absent = {form.name: why for form in forms if (why := why_not(form)) is not None}
    there = [form for form in forms if form.name not in absent]
    if len(there) < 2:
        why = "; ".join(f"{name}: {each}" for name, each in absent.items()) or "--forms names no other"
        raise SetupError(f"there is nothing to hold the fused form against: {why}; {missing([*absent])}")
    with console.working("preparing the models") as progress:
        parts = assemble(there[0].config(base, fan_outs[0]), console.note, progress)
    directory = study_folder(base, "brokers", [base.digest(), {form.name: form.channel for form in forms}])
    with held(directory, "a study"):
        kept = Kept.read(directory / FILE, header_of(parts), round_of_line, "a study", overwrite=base.overwrite)
        yield Study(parts, there, [*fan_outs], rounds, kept, absent)


def _base_of(configs: Sequence[RunConfig]) -> RunConfig:
    base = configs[0]
    if len(configs) != 1 or base.mode != "performance":
        raise InputError(f"sut {COMMAND} asks by itself; leave out --accuracy and several scenarios")
    check_as_it_is(base, COMMAND)
    for name in ("channel", "fan_out"):
        if getattr(base, name) != RunConfig.model_fields[name].default:
            raise InputError(f"sut {COMMAND} sets {name} itself, got {getattr(base, name)}; leave it out")
    if base.identify is None:
        raise InputError(f"sut {COMMAND} is about what lies between two models; name the second: --identify MODEL")
    return with_settings(base, {"scenario": "Server"})


@dataclass(slots=True)
class Study:
    """What was measured so far: ``kept`` has the rounds, of earlier commands too."""

    parts: Assembly
    forms: Sequence[Form]
    fan_outs: list[int]
    rounds: int
    kept: Kept[Round]
    absent: dict[str, str]
    """Why this machine does not have a form."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why a form has no more rounds, for something went wrong."""
    words: list[str] = field(default_factory=list)
    codes: list[ExitCode] = field(default_factory=list)

    def done(self, form: str, fan_out: int) -> list[Round]:
        """The rounds of a cell, in their order."""
        there = (each for each in self.kept.rows.values() if (each.form, each.fan_out) == (form, fan_out))
        return sorted((each for each in there if each.number <= self.rounds), key=lambda each: each.number)

    def todo(self) -> list[tuple[int, int, Form]]:
        """Round, fan-out and form of all that is still to be measured, in order: there and back again."""
        found = []
        for number in range(1, self.rounds + 1):
            cells = [*product(self.fan_outs, self.forms)]
            found += [(number, *cell) for cell in (cells if number % 2 else reversed(cells))]
        have = {(each.number, each.fan_out, each.form) for each in self.kept.rows.values()}
        return [each for each in found if (each[0], each[1], each[2].name) not in have]

    def planned_s(self) -> float:
        """What one round of one cell takes, as far as that is known."""
        known = [each.took_s for each in self.kept.rows.values()]
        guess = sum(each.seconds + each.warm_s for each in drives(self.parts)) + _START_S
        return median(known) if known else guess

    def go(self, budget_s: float, say: Say) -> None:
        """Measure all that is to do, until the budget is spent. A form that fails, or is gone, is left out then."""
        begin_s, rest = time.monotonic(), AtRest()
        for number, fan_out, form in self.todo():
            if form.name in self.failed | self.absent or FUSED in self.failed:
                continue
            if self.codes and time.monotonic() - begin_s + self.planned_s() > budget_s:
                self.words.append(
                    f"the budget of {duration(budget_s)} was spent in round {number} of {self.rounds}; the same "
                    "command goes on"
                )
                return
            self._measure(number, fan_out, form, rest, say)

    def _measure(self, number: int, fan_out: int, form: Form, rest: AtRest, say: Say) -> None:
        """One round, which is kept; or why there is none, and no more of this form."""
        what = f"round {number} of {self.rounds}, {form.name}, {fan_out} a frame"
        try:
            found = measure(self.parts, form, fan_out, number, rest, say)
        except (SutError, ModuleNotFoundError) as error:
            code, why = code_of(error), one_line(error)
            (self.absent if code == ExitCode.SETUP and form.name != FUSED else self.failed)[form.name] = why
            self.codes.append(code)
            say(f"{what}: {why}")
        else:
            self.kept.add(found)
            self.codes.append(ExitCode.OK)
            say(f"{what}: {found.frames_per_second:.4g} frames/s, {found.latency_ns / 1e6:.4g} ms alone")
