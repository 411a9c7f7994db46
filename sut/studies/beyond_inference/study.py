"""Goes round the parts that claims need, within a budget of time, and keeps every round as it is measured."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from sut.config import RunConfig, make_config
from sut.errors import ExitCode, InputError, SutError, one_line
from sut.pipeline.assembly import assemble
from sut.pipeline.identify.settings import check_one_model
from sut.pipeline.slowdown import check_as_it_is
from sut.process.telling import code_of
from sut.results.statistics import FEWEST_PAIRS
from sut.run.energy.power_log import check_power_log
from sut.run.reporter import Reporter
from sut.studies.beyond_inference.lab import Lab, Part, Round, round_of_line
from sut.studies.beyond_inference.paper import CLAIMS
from sut.studies.beyond_inference.parts import PARTS
from sut.studies.claims import Claim, Figures, UntestableError, Value
from sut.studies.kept import Kept, header_of, held, study_folder
from sut.studies.ladder.rungs import DEFAULT, ON_GPU, read_ladder
from sut.studies.sweeping.grids import on_gpu
from sut.studies.tuning.space import with_settings
from sut.text import Say, duration

FILE = "rounds.jsonl"
_PICTURES = ("dataset", "dataset_path", "dataset_list", "count")


def claims_of(figures: str | None) -> list[Claim]:
    """All claims, or those of the figures in a comma list. Raises ``InputError`` for one that has none."""
    names = list(dict.fromkeys(claim.figure for claim in CLAIMS))
    words = names if figures is None else [word.strip() for word in figures.split(",")]
    if unknown := [word for word in words if word not in names]:
        raise InputError(f"--figures: no claim of a figure '{unknown[0]}'; expected {', '.join(names)}")
    return [claim for claim in CLAIMS if claim.figure in words]


def parts_of(claims: Sequence[Claim]) -> dict[str, Part]:
    """The parts that claims need, by name, in the order of their worth."""
    needed = {name for claim in claims for name in claim.parts}
    return {name: part for name, part in PARTS.items() if name in needed}


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
    base, command = configs[0], "study beyond-inference"
    if len(configs) != 1 or base.mode != "performance":
        raise InputError(f"sut {command} asks by itself; leave out --accuracy and several scenarios")
    check_as_it_is(base, command)
    check_one_model(base, f"sut {command} tells the share of")
    if given := [name for name in _PICTURES if name in base.model_fields_set]:
        raise InputError(f"sut {command} generates the paper's sizes of pictures; leave {given[0]} out")
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
    parts: Mapping[str, Part]
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
        """The rounds of a part, in their order, without a gap."""
        return sorted((each for each in self.kept.rows.values() if each.part == name), key=lambda each: each.number)

    def todo(self, name: str) -> range:
        """The numbers of the rounds that are still to be measured."""
        return range(len(self.done(name)) + 1, self._rounds(name) + 1)

    def _rounds(self, name: str) -> int:
        return 1 if self.parts[name].at_once else self.lab.rounds

    def planned_s(self, name: str) -> float:
        """What a round of a part is thought to take: as long as the shortest, since the first may make a model."""
        return min((each.took_s for each in self.done(name)), default=self.parts[name].seconds)

    def plan(self, budget_s: float) -> dict[str, float]:
        """The parts that fit into the budget with all of their rounds, and what they are thought to take.

        Raises ``InputError`` where none fits and nothing was measured earlier.
        """
        chosen: dict[str, float] = {}
        takes = {name: len(self.todo(name)) * self.planned_s(name) for name in self.parts if self.todo(name)}
        for name, takes_s in takes.items():
            if (why := self.parts[name].why_not(self.lab)) is not None:
                self.absent[name] = why
            elif sum(chosen.values()) + takes_s > budget_s:
                self.left_out[name] = f"it takes about {duration(takes_s)}, which --budget does not leave"
            else:
                chosen[name] = takes_s
        if self.left_out and not chosen and not self.kept.rows:
            shortest = min(self.left_out, key=lambda name: takes[name])
            raise InputError(
                f"nothing fits into the --budget of {duration(budget_s)}: the shortest part, {shortest}, takes about "
                f"{duration(takes[shortest])}; give more, or fewer --rounds, which tell nothing below {FEWEST_PAIRS}"
            )
        return chosen

    def go(self, chosen: Mapping[str, float], budget_s: float, say: Say) -> None:
        """Measure round by round, all parts in turn, there and back again, until all is done or the budget spent."""
        for number in range(1, self.lab.rounds + 1):
            for name in chosen if number % 2 else reversed([*chosen]):
                if number not in self.todo(name) or name in self.absent | self.left_out | self.failed:
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
            self.kept.add(Round(name, number, found, self.spent_s - begin_s))
            self.codes.append(ExitCode.OK)
        why = self.absent.get(name) or self.failed.get(name)
        say(f"{name}, round {number} of {self._rounds(name)}: {why or duration(self.spent_s - begin_s)}")

    def figures(self) -> Figures:
        """What all rounds have measured: see ``Figures``."""
        found: dict[str, dict[str, list[Value]]] = {}
        for name in self.parts:
            rounds = [each.found.figures for each in self.done(name)]
            keys = dict.fromkeys(key for each in rounds for key in each)
            found |= (
                {name: {key: [*chain(*(each.get(key, [None]) for each in rounds))] for key in keys}} if keys else {}
            )
        return found
