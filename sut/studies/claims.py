"""Claims of a source, each a predicate over what was measured here, and the verdict that comes of it.

A predicate is a pure function of figures, a value for each round, so that it can be asked of planted ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from typing import Any, Literal, Self

from sut.results.statistics import Difference, difference

Value = float | None
Figures = Mapping[str, Mapping[str, Sequence[Value]]]
"""By part, and by the name of a figure in it: a value for each round, in their order, None where a round has none."""
Verdict = Literal["holds", "does not hold", "cannot be told", "cannot be tested here", "not measured yet"]
_VERDICTS: dict[bool | None, Verdict] = {True: "holds", False: "does not hold", None: "cannot be told"}
DECIDED = (*_VERDICTS.values(),)
"""The verdicts on what was measured."""


class UntestableError(Exception):
    """A claim that this machine cannot decide, or a part that it cannot measure; the text says why."""


class AbsentError(Exception):
    """A figure that a claim needs and nobody has measured."""


@dataclass(frozen=True, slots=True)
class Ours:
    """What was measured, in words, and whether the claim holds; None where its limit lies within the interval.

    ``found`` is the ratio that was held against the limit, where it was one.
    """

    holds: bool | None
    words: str
    found: Difference | None = field(default=None, compare=False, repr=False)

    def told(self, words: str) -> Self:
        """The same in more words; ``{}`` in them is where those that it has go."""
        return replace(self, words=words.replace("{}", self.words, 1))


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of a ``figure`` of a source: what it ``says``, and ``theirs``, the source's own number, where it has one.

    ``judge`` holds it against the figures of ``parts``. ``command`` is what measures it by itself, and shows more.
    """

    key: str
    figure: str
    says: str
    theirs: str | None
    parts: tuple[str, ...]
    judge: Callable[[Figures], Ours]
    command: str


def judged(claim: Claim, figures: Figures, absent: Mapping[str, str]) -> tuple[Verdict, Ours]:
    """The verdict on a claim, and our figure, or in words why there is none; ``absent``: by part, why it cannot be."""
    try:
        ours = claim.judge(figures)
    except UntestableError as error:
        return "cannot be tested here", Ours(None, str(error))
    except AbsentError as error:
        why = next((absent[part] for part in claim.parts if part in absent), None)
        return ("cannot be tested here", Ours(None, why)) if why else ("not measured yet", Ours(None, str(error)))
    return _VERDICTS[ours.holds], ours


def row_of(claim: Claim, verdict: Verdict, ours: Ours, why: str) -> dict[str, Any]:
    """A claim and what came of it as ``study.json`` has it; ``why`` there is no figure, where there is none."""
    is_decided = verdict in DECIDED
    return {
        "claim": claim.key,
        "figure": claim.figure,
        "says": claim.says,
        "theirs": claim.theirs,
        "verdict": verdict,
        "ours": ours.words if is_decided else None,
        "reason": None if is_decided else why,
        "ratio": asdict(ours.found) if ours.found else None,
        "command": f"./run_local.sh {claim.command}",
    }


# ---- figures with an interval, against a limit


def values(figures: Figures, part: str, name: str) -> Sequence[Value]:
    """A figure of a part by rounds. Raises ``AbsentError`` where no round has it."""
    if part not in figures:
        raise AbsentError(f"no round of {part} was measured")
    found = figures[part].get(name, ())
    if all(each is None for each in found):
        raise AbsentError(f"no round of {part} has measured {name}")
    return found


def compared(
    before: Sequence[Value], after: Sequence[Value], *, higher_is_better: bool = True, verdicts: int = 1
) -> Difference:
    """``after`` against ``before``, by the rounds that both have. See ``difference``."""
    sides = [list(side) for side in zip(*zip_longest(before, after), strict=True)] or [[], []]
    return difference(*sides, higher_is_better=higher_is_better, verdicts=verdicts)


def share(parts: Sequence[Value]) -> Difference:
    """A share of which there is one for each round, as a ratio to the whole."""
    return difference([1.0] * len(parts), parts, higher_is_better=True)


def lost(found: Difference) -> Difference:
    """What is lost, where ``found`` is what is left of a whole."""
    value, low, high = (None if each is None else 1 - each for each in (found.ratio, found.low, found.high))
    return replace(found, ratio=value, low=high, high=low)


def at_least(limit: float, found: Difference, unit: str = " x") -> Ours:
    """Whether a ratio with its interval is ``limit`` or more; without an interval that cannot be told.

    >>> at_least(3.7, Difference(4.0, 3.8, 4.2, 5, "better", None))
    Ours(holds=True, words='4 x (3.8 to 4.2)')
    """
    holds = None
    if found.low is not None and found.high is not None:
        holds = True if found.low >= limit else False if found.high < limit else None
    return Ours(holds, in_figures(found, unit), found)


def differs(found: Difference, least: float = 0.05) -> Ours:
    """Whether a ratio is told from 1; not if all of its interval is nearer to that than ``least``.

    >>> differs(Difference(1.01, 0.99, 1.03, 5, "open", None)).holds
    False
    """
    holds = True if found.verdict != "open" else None
    if found.low is None or found.high is None:
        holds = None
    elif 1 - least < found.low and found.high < 1 + least:
        holds = False
    return Ours(holds, in_figures(found), found)


def in_figures(found: Difference, unit: str = " x") -> str:
    """A ratio and its interval in a unit. Raises ``AbsentError`` where no round has both sides."""
    if found.ratio is None:
        raise AbsentError("no round has a figure for it")
    factor = 100 if unit == " %" else 1
    words = f"{factor * found.ratio:.3g}{unit}"
    if found.low is None or found.high is None:
        return f"{words}, no interval of so few rounds"
    return f"{words} ({factor * found.low:.3g} to {factor * found.high:.3g})"


def all_of(each: Sequence[Ours]) -> bool | None:
    """Whether all hold: not if one does not, and not told if one is not told."""
    holds = [ours.holds for ours in each]
    return False if False in holds else None if None in holds else True
