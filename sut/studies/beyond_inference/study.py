"""Goes round the parts that claims need, within a budget of time, and keeps every round as it is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from sut.config import RunConfig, make_config
from sut.errors import ExitCode, InputError, SutError, one_line
from sut.pipeline.assembly import assemble
from sut.pipeline.slowdown import check_as_it_is
from sut.process.telling import code_of
from sut.results.statistics import FEWEST_PAIRS
from sut.run.energy.power_log import check_power_log
from sut.run.reporter import Reporter
from sut.studies.beyond_inference.lab import Lab, Part, Parts, Round, round_of_line
from sut.studies.claims import Claim, Figures, UntestableError, Value
from sut.studies.kept import Kept, header_of, held, study_folder
from sut.studies.ladder.rungs import DEFAULT, ON_GPU, read_ladder
from sut.studies.sweeping.grids import on_gpu
from sut.studies.tuning.space import with_settings
from sut.text import Say, duration

SOURCES = ("sut.studies.beyond_inference.paper",)
"""Modules of claims: each has ``CLAIMS``, and by name the ``PARTS`` that they need. A study of other figures of the
paper adds its own here."""
FILE = "rounds.jsonl"
_PICTURES = ("dataset", "dataset_path", "dataset_list", "count")


def claims_of(figures: str | None) -> list[Claim]:
    """The claims of all sources, or of the figures in a comma list. Raises ``InputError`` for one that has none."""
    known: list[Claim] = [claim for source in SOURCES for claim in import_module(source).CLAIMS]
    if figures is None:
        return known
    words = [word.strip() for word in figures.split(",")]
    names = list(dict.fromkeys(claim.figure for claim in known))
    if unknown := [word for word in words if word not in names]:
        raise InputError(f"--figures: no claim of a figure '{unknown[0]}'; expected {', '.join(names)}")
    return [claim for claim in known if claim.figure in words]


def parts_of(claims: Sequence[Claim]) -> Parts:
    """The parts that claims need, by name, in the order of their worth."""
    known: dict[str, Part] = {name: part for source in SOURCES for name, part in import_module(source).PARTS.items()}
    needed = {name for claim in claims for name in claim.parts}
    return {name: part for name, part in known.items() if name in needed}


@contextmanager
def open_study(
    configs: Sequence[RunConfig], claims: Sequence[Claim], ladder: Path | None, rounds: int, console: Reporter
) -> Iterator[Study]:
    """A study that goes on with what an earlier one of the same has left; its folder is its own as long as it lasts.

    Raises ``InputError`` for what cannot be measured.
    """
    base = _base_of(configs)
    rungs, settings = read_ladder(ladder or (ON_GPU if base.device.startswith("cuda") else DEFAULT))
    asked = [base.digest(), rungs.model_dump(mode="json")]
    directory = study_folder(base, f"beyond-inference-{base.backend}", asked)
    lab = Lab(base, rungs, make_config(settings), ladder is not None, rounds, directory, console)
    with console.working("preparing the model") as progress:
        found = assemble(lab.config("medium"), console.note, progress)
        lab.config("large")  # whose pictures are not made within a round
        lab.look_for_gpu()
    lab.model_bytes = found.model_bytes
    weights = found.model.weights if found.model else None
    with held(directory, "a study"):
        kept = Kept.read(directory / FILE, header_of(found), round_of_line, "a study", overwrite=base.overwrite)
        yield Study(lab, claims, parts_of(claims), kept, found.spec.name, weights)


def _base_of(configs: Sequence[RunConfig]) -> RunConfig:
    base = configs[0]
    if len(configs) != 1 or base.mode != "performance":
        raise InputError("sut study beyond-inference asks by itself; leave out --accuracy and several scenarios")
    check_as_it_is(base, "study beyond-inference")
    for name in _PICTURES:
        if name in base.model_fields_set:
            raise InputError(f"sut study beyond-inference generates the paper's sizes of pictures; leave {name} out")
    if on_gpu(base) == {"preprocess": base.preprocess}:
        raise InputError(
            f"--preprocess {base.preprocess} is on the GPU; name what preprocesses on the CPU: opencv, fused"
        )
    if base.power_log is not None:
        check_power_log(base.power_log)
    return with_settings(base, {"boundary": "jpeg"})


@dataclass(slots=True)
class Study:
    """What was measured so far: ``kept`` has the rounds, of earlier commands too."""

    lab: Lab
    claims: Sequence[Claim]
    parts: Parts
    kept: Kept[Round]
    model: str
    weights: str | None
    absent: dict[str, str] = field(default_factory=dict)
    """Why this machine cannot measure a part."""
    left_out: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    codes: list[ExitCode] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)

    @property
    def spent_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._begun

    def done(self, name: str) -> list[Round]:
        """The rounds of a part, in their order."""
        return sorted((each for each in self.kept.rows.values() if each.part == name), key=lambda each: each.number)

    def todo(self, name: str) -> list[int]:
        """The numbers of the rounds that are still to be measured."""
        there = {each.number for each in self.done(name)}
        return [number for number in range(1, self.parts[name].rounds(self.lab.rounds) + 1) if number not in there]

    def planned_s(self, name: str) -> float:
        """What a round of a part is thought to take: as long as the shortest, since the first may make a model."""
        return min((each.took_s for each in self.done(name)), default=self.parts[name].seconds)

    def plan(self, budget_s: float) -> dict[str, float]:
        """The parts that fit into the budget with all of their rounds, and what they are thought to take.

        Raises ``InputError`` where none fits and nothing was measured earlier.
        """
        chosen: dict[str, float] = {}
        for name, part in self.parts.items():
            takes_s = len(self.todo(name)) * self.planned_s(name)
            if not takes_s:
                continue
            if (why := part.why_not(self.lab)) is not None:
                self.absent[name] = why
            elif sum(chosen.values()) + takes_s > budget_s:
                self.left_out[name] = f"it takes about {duration(takes_s)}, which --budget does not leave"
            else:
                chosen[name] = takes_s
        if self.left_out and not chosen and not self.kept.rows:
            takes_s, name = min((len(self.todo(name)) * self.planned_s(name), name) for name in self.left_out)
            raise InputError(
                f"nothing fits into the --budget of {duration(budget_s)}: the shortest part, {name}, takes about "
                f"{duration(takes_s)}; give more, or fewer --rounds, which tell nothing below {FEWEST_PAIRS}"
            )
        return chosen

    def go(self, chosen: Mapping[str, float], budget_s: float, say: Say) -> None:
        """Measure round by round, all parts in turn, there and back again, until all is done or the budget spent."""
        for number in range(1, self.lab.rounds + 1):
            for name in chosen if number % 2 else reversed([*chosen]):
                if number not in self.todo(name) or {name} & {*self.absent, *self.left_out, *self.failed}:
                    continue
                if self.codes and self.spent_s + self.planned_s(name) > budget_s:
                    self.left_out[name] = f"the budget was spent before round {number}; the same command goes on"
                    continue
                self._measure(name, number, say)

    def _measure(self, name: str, number: int, say: Say) -> None:
        """One round, whose figures are kept; or why there are none, and no more of this part."""
        begin_s = self.spent_s
        try:
            found = self.parts[name].measure(self.lab, number)
        except UntestableError as error:
            self.absent[name] = one_line(error)
        except (SutError, ModuleNotFoundError) as error:
            code = code_of(error)
            (self.absent if code == ExitCode.SETUP else self.failed)[name] = one_line(error)
            self.codes += [] if code == ExitCode.SETUP else [code]
        else:
            took_s = self.spent_s - begin_s
            self.kept.add(Round(name, number, found.figures, found.absent, found.parity, took_s))
            self.codes.append(ExitCode.OK)
        why = self.absent.get(name) or self.failed.get(name)
        rounds = self.parts[name].rounds(self.lab.rounds)
        say(f"{name}, round {number} of {rounds}: {why or duration(self.spent_s - begin_s)}")

    def figures(self) -> Figures:
        """What all rounds have measured: see ``Figures``."""
        found: dict[str, dict[str, Sequence[Value]]] = {}
        for name in self.parts:
            rounds = self.done(name)
            if self.parts[name].at_once or not rounds:
                found |= {name: {**rounds[0].figures}} if rounds else {}
                continue
            numbers = range(1, rounds[-1].number + 1)
            by_number = {each.number: each.figures for each in rounds}
            names = dict.fromkeys(key for each in rounds for key in each.figures)
            found[name] = {key: [_single(by_number.get(number, {}).get(key)) for number in numbers] for key in names}
        return found

    def reasons(self) -> dict[str, dict[str, str]]:
        """Why figures are absent that this machine cannot have: by part and figure, "" for all of a part."""
        found = {name: {"": why} for name, why in self.absent.items()}
        for each in self.kept.rows.values():
            found[each.part] = found.get(each.part, {}) | each.absent
        return found


def _single(values: Sequence[Value] | None) -> Value:
    return values[0] if values else None
