"""Lanes, threads and batch where they are ``auto``: what is a good guess, what else is tried, and what is taken.

Pure functions: ``sut.run.trial`` measures, ``sut.run.tried`` keeps what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from sut.config import AUTO, RunConfig
from sut.pipeline.choice import Choice, _shares_cores, _spread, prior
from sut.results.statistics import difference

_MOST_CANDIDATES = 3
_NEAR_S = 3600.0
"""Between two runs that may be a pair: farther apart the machine may have become faster or slower by itself."""

Figures = list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


@dataclass(slots=True)
class Trial:
    """Candidates that were measured side by side for so many seconds at the most, each with its figure per round."""

    seconds: float
    choices: list[Choice]
    rounds: list[Figures]
    is_busy: bool = False
    """Whether others were seen at work meanwhile: the fewer cores are left, the more they favour few threads."""

    def is_open(self, higher_is_better: bool) -> bool:
        """Whether more rounds may tell more: of one that is neither better nor worse than the first so far.

        What could not be measured, while the first could, is out of it.
        """
        first, *others = self.rounds
        return not first or any(_verdict(each, first, higher_is_better) == "open" for each in others if each)


@dataclass(frozen=True, slots=True)
class ChoiceRun:
    """The figure of a finished run that was made with one choice, and when it ended, in seconds since 1970."""

    choice: Choice
    figure: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    at: Annotated[float, Field(allow_inf_nan=False)]

    def may_pair(self, other: ChoiceRun) -> bool:
        """Whether what slowed down one of the two slowed down the other, where nothing lies between them."""
        return self.choice != other.choice and abs(self.at - other.at) <= _NEAR_S


def followed_by(runs: Sequence[ChoiceRun], run: ChoiceRun) -> list[ChoiceRun]:
    """``runs``, the oldest first, and one more, without the one before it where that is in no pair any more.

    So one choice that is run again and again does not push out the pairs it was chosen by.
    """
    is_lone = bool(runs) and not any(runs[-1].may_pair(beside) for beside in (*runs[-2:-1], run))
    return [*(runs[:-1] if is_lone else runs), run]


def candidates(config: RunConfig, cores: int, model_bytes: int | None) -> list[Choice]:
    """The prior, and what may be better: three at the most, each of which leaves everything that is set as it is.

    The prior alone where cores are not what is shared, and in Server, whose figure is the rate that it is asked.
    """
    first = prior(config, cores, model_bytes)
    units = config.units
    each = max(1, cores // units)
    if not _shares_cores(config, model_bytes) or config.scenario == "Server":
        return [first]
    if config.scenario == "Offline":
        others = [replace(first, max_batchsize=size) for size in (2 * first.max_batchsize, first.max_batchsize // 2)]
        others.append(replace(first, lanes=units, threads=each))
    elif config.scenario == "MultiStream":
        lanes = _spread(each)
        others = [replace(first, lanes=units * lanes, threads=each // lanes)]
    else:
        others = [replace(first, threads=max(1, each // 2))]
    return list(dict.fromkeys([first, *(other for other in others if fits(other, config))]))[:_MOST_CANDIDATES]


def with_effect(scenario: str) -> tuple[str, ...]:
    """Which of the settings do something in a scenario."""
    return ("threads",) if scenario == "SingleStream" else AUTO


def fixed(used: Mapping[str, int], scenario: str) -> dict[str, int]:
    """The settings that make other runs do as one did that ``used`` these."""
    return {name: used[name] for name in with_effect(scenario) if name in used}


def fits(choice: Choice, config: RunConfig) -> bool:
    """Whether a choice leaves everything that is set as it is."""
    return all(getattr(config, name) in (None, value) for name, value in asdict(choice).items())


Basis = Literal["prior", "trial", "runs"]
"""What a choice was taken by."""


def decide(
    found: Sequence[Choice], trial: Trial | None, runs: Sequence[ChoiceRun], higher_is_better: bool
) -> tuple[Choice, Basis]:
    """The choice to take, and by what: the prior stays unless another was better beyond the spread.

    ``found`` are the candidates, the prior first. ``runs`` are finished ones of any choices that may be taken, the
    oldest first: being the real thing, they have the last word, as far as they were made side by side.
    """
    best = found[0]
    basis: Basis = "prior"
    if trial is not None:
        rounds = dict(zip(trial.choices, trial.rounds, strict=True))
        for choice in found[1:]:
            if _verdict(rounds[choice], rounds[best], higher_is_better) == "better":
                best = choice
        if any(rounds.values()) and (best != found[0] or not trial.is_open(higher_is_better)):
            basis = "trial"
    for choice in dict.fromkeys(each.choice for each in runs):
        if _verdict(*_side_by_side(runs, choice, best), higher_is_better) == "better":
            best, basis = choice, "runs"
    return best, basis


def _side_by_side(runs: Sequence[ChoiceRun], choice: Choice, than: Choice) -> tuple[Figures, Figures]:
    """Figures of a choice and of another one, from pairs of runs that follow each other."""
    figures: tuple[Figures, Figures] = [], []
    before: ChoiceRun | None = None
    for run in (each for each in runs if each.choice in (choice, than)):
        if before is not None and before.may_pair(run):
            for each in (before, run):
                figures[each.choice == than].append(each.figure)
            before = None
        else:
            before = run
    return figures


def _verdict(figures: Figures, than: Figures, higher_is_better: bool) -> str:
    """How figures compare with another choice's, the first with the first: a trial may end within a round."""
    pairs = min(len(figures), len(than))
    if not pairs:
        return "open"
    return difference(than[:pairs], figures[:pairs], higher_is_better=higher_is_better).verdict
