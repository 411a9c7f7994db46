"""What a comparison is asked for: its cells, its time, and whether that can be."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import typer

import backends.registry
import preprocess.registry
from sut.config import RunConfig, expanded
from sut.errors import InputError, SetupError, SutError
from sut.models.registry import for_file
from sut.pipeline.loading import load_backend, load_preprocessor
from sut.run.planning import EARLY_STOPPING_QUERIES, OVERHEAD_S, check_effect
from sut.studies.bare import has_loop
from sut.studies.comparing.automatic import Available, available, cells_to_try, like, put_off
from sut.studies.comparing.earlier import Earlier
from sut.studies.comparing.matrix import APART, Axes, Cell, cells_of
from sut.studies.tuning.space import with_settings
from sut.text import duration, printable

Say = Callable[[str], None]

_TIME_S = 2.0
"""Of a run. Starting one takes longer than that: more runs say more than longer ones."""
_SHARE_OF_FIRST_LOOK = 1 / 3
"""Of the budget: where a look at all that works takes more, preprocessors are tried with the best of the rest only."""
_ANY_RECIPE = "pytorch"
"""How pictures are prepared for a stranger's file where nobody says: for its speed one way is as good as another."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is wanted of a comparison, besides its cells."""

    budget_s: float
    bare: bool
    yes: bool
    price_per_hour: float | None
    earlier: list[Earlier]
    fail_if_slower: float | None
    accuracy: bool


def base_of(configs: Sequence[RunConfig]) -> RunConfig:
    """What all cells have in common, as the options of ``sut run`` say it. Raises ``InputError`` for no comparison."""
    base = configs[0]
    if base.mode != "performance":
        raise InputError(f"sut compare compares speed, got mode: {base.mode}; leave it out")
    if any(config.scenario == "Server" for config in configs) and base.qps is None:
        raise InputError(
            "in Server all cells are asked at one rate and compared by p99: add --qps R that all of them can bear"
        )
    boundary = base.boundary if "boundary" in base.model_fields_set else "jpeg"
    return with_settings(base, {"time_s": base.time_s or _TIME_S, "boundary": boundary})


def share_of(text: str) -> float:
    """A percentage as a share.

    >>> share_of("3%"), share_of("0.5 %")
    (0.03, 0.005)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text.strip())
    if found is None or float(found[1]) >= 100:
        raise InputError(f"--fail-if-slower takes a percentage such as 3%, got '{printable(text)}'")
    return float(found[1]) / 100


def with_recipe(base: RunConfig, say: Say) -> RunConfig:
    """``base``, with a recipe for a file that nobody has said anything of: its speed hardly depends on it."""
    if not base.is_file or base.recipe is not None or base.model_name is not None:
        return base
    path = expanded(base.model)
    try:
        for_file(path, None)
    except SutError:
        if not path.is_file():
            raise
        say(
            f"{path.name}: nobody says how its pictures are prepared; for their speed the recipe {_ANY_RECIPE} is "
            "taken, answers mean nothing then; --recipe names the right one"
        )
        return with_settings(base, {"recipe": _ANY_RECIPE})
    return base


@dataclass(frozen=True, slots=True)
class Cells:
    """What is compared: ``now``, and ``later`` what waits for the best of these. ``absent`` is what cannot be tried."""

    now: list[Cell]
    later: list[Cell]
    absent: dict[str, str]


def find_cells(axes: Axes, base: RunConfig, asked: Asked, say: Say) -> tuple[Cells, Asked]:
    """The cells of the matrix; without one, and with nothing to hold against a baseline, all that works here.

    Axes that only set groups apart are no matrix: in each group there is one cell, and nothing to choose.

    Where looking at all of them takes longer than the budget, whoever is there is asked; the answer is in what is asked
    for then. Raises ``InputError`` for a no, where nobody is there, and for an option that no cell can use.
    """
    if any(len(values) > 1 for key, values in axes.items() if key not in APART) or asked.earlier:
        _check_names(axes)
        cells = cells_of(axes, base)
        check_effect([cell.config for cell in cells])
        return Cells(cells, [], {}), _agreed(cells, asked)
    apart = {key: values for key, values in axes.items() if len(values) > 1}
    base = with_settings(base, {key: values[0] for key, values in axes.items()})
    _check_names({"backend": [base.backend], "preprocess": [base.preprocess]})
    groups = [cell.config for cell in cells_of(apart, base)]
    timed = next((each for each in groups if each.times_preprocessing), groups[0])
    found = _available(timed)
    names = [f"{name} ({', '.join(precisions)})" for name, precisions in found.backends.items()]
    say(
        f"no matrix is given: all that works here is tried, in {_words(each.scenario for each in groups)} at the "
        f"boundary {_words(each.boundary for each in groups)}: {', '.join(names)}; "
        f"preprocessors {', '.join(found.preprocessors)}"
    )
    cells = _in_each_group(cells_to_try(found, timed), apart, base)
    check_effect([cell.config for cell in cells])
    if _look_s(cells, asked) <= _SHARE_OF_FIRST_LOOK * asked.budget_s:
        return Cells(cells, [], found.absent), asked
    now, later = put_off(cells)
    more = [each for cell in {cell.group: cell for cell in now}.values() for each in like(cell, later)]
    return Cells(now, later, found.absent), _agreed([*now, *more], asked)


def _words(names: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(names))


def _available(base: RunConfig) -> Available:
    """What works here. Raises ``SetupError`` with the reasons where no backend or no preprocessor does."""
    found = available(base)
    for kind, names, known in (
        ("backend", found.backends, backends.registry.names()),
        ("preprocessor", found.preprocessors, preprocess.registry.names()),
    ):
        if not names:
            reasons = [f"{name}: {why}" for name, why in found.absent.items() if name in known]
            raise SetupError(f"no {kind} works here: {'; '.join(reasons)}")
    return found


def _in_each_group(cells: Sequence[Cell], apart: Axes, base: RunConfig) -> list[Cell]:
    """The cells once in each group that ``apart`` makes; where preprocessing is not timed with the first one only."""
    if not apart:
        return list(cells)
    tried = [cell.settings for cell in cells]
    first = tried[0]["preprocess"]
    axes = {key: [settings[key] for settings in tried] for key in tried[0]}
    return [
        cell
        for cell in cells_of(apart | axes, base)
        if {key: cell.settings[key] for key in axes} in tried
        and (cell.config.times_preprocessing or cell.config.preprocess == first)
    ]


def _check_names(axes: Axes) -> None:
    """Refuse unknown names. What is known and not installed will be a row."""
    for name in axes.get("backend", ()):
        if name not in backends.registry.names():
            load_backend(str(name))
    for name in axes.get("preprocess", ()):
        if name not in preprocess.registry.names():
            load_preprocessor(str(name))


def _look_s(cells: Sequence[Cell], asked: Asked) -> float:
    """About what one look at each of the cells takes, as far as that is known before one has run."""
    in_all = 0.0
    for config in (cell.config for cell in cells):
        run_s = config.time_s or _TIME_S
        if config.scenario == "Server" and config.qps is not None:
            run_s = max(run_s, EARLY_STOPPING_QUERIES["Server"] / config.qps)
        in_all += (run_s + OVERHEAD_S) * (2 if asked.bare and has_loop(config) else 1)  # the loop takes about as much
    return in_all


def _is_there_somebody() -> bool:
    return bool(sys.stdin and sys.stdin.isatty() and sys.stderr.isatty())


def _agreed(cells: Sequence[Cell], asked: Asked) -> Asked:
    """What is asked for, after a look at the cells was agreed to where it takes longer than the budget."""
    needed_s = _look_s(cells, asked)
    if needed_s <= asked.budget_s or asked.yes:
        return asked
    # MultiStream asks a number of queries that take as long as the model does.
    about = "at least" if any(cell.config.scenario == "MultiStream" for cell in cells) else "about"
    look = f"one look at each takes {about} {duration(needed_s)}"
    text = f"{len(cells):,} cell{'s' if len(cells) > 1 else ''}: {look}, the budget is {duration(asked.budget_s)}"
    if _is_there_somebody() and typer.confirm(f"{text}. Look at all of them?", err=True):
        return replace(asked, yes=True)
    raise InputError(f"{text}; name fewer values, give a longer --budget, or --yes to look at all of them")
