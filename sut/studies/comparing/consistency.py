"""Whether a compare.json agrees with itself: what it tells of its figures must follow from them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sut.results.schema import more_is_better
from sut.results.statistics import FEWEST_PAIRS
from sut.studies.comparing.contest import LOOK, Contest
from sut.studies.comparing.matrix import group_of, within
from sut.text import shortened

_INTERVAL = r"([\d.e+-]+) x \(([\d.e+-]+) to ([\d.e+-]+)\)"
_ROUNDED = 0.01
"""How far a figure in a sentence may be from what it is of."""
_NARROWEST = 0.5
"""Of the interval that the pairs leave today: another version may have reckoned a little otherwise."""


def contradiction(content: Mapping[str, Any]) -> str | None:
    """What of the content of a compare.json cannot be together, in words: somebody has edited it. None: nothing.

    Where something is not even of the type that it should be, that is what is said.
    """
    try:
        return next(_contradictions(content), None)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        return f"a row is none that is written ({type(error).__name__}: {shortened(str(error))})"


def _contradictions(content: Mapping[str, Any]) -> Iterator[str]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in content["rows"]:
        if row.get("figures"):
            groups.setdefault(row["against"], []).append(row)
        elif row.get("verdict") == "best" or row.get("ratio") or (row.get("metric") or {}).get("value") is not None:
            yield f"'{shortened(row['cell'])}' has no figures, but what follows from such"
    best: dict[str, Mapping[str, Any]] = {}
    for baseline, rows in groups.items():
        contest = _contest(baseline, rows)
        for row in rows:
            for what in (*misstated(row, contest.figure(row["cell"]) or 0.0), *_ratio(contest, row)):
                yield f"'{shortened(row['cell'])}': {what}"
        chosen = [row for row in rows if row["verdict"] == "best"]
        if len(chosen) != (contest.leader is not None):
            yield f"{len(chosen)} cells are the best against '{shortened(baseline)}'"
        elif chosen:
            best[baseline] = chosen[0]
            yield from _leads(contest, chosen[0]["cell"])
    yield from _sentence(content["sentence"], best, [row for rows in groups.values() for row in rows])


def _contest(baseline: str, rows: Sequence[Mapping[str, Any]]) -> Contest:
    """The contest that the rows of one group are of."""
    found = Contest(baseline, more_is_better(rows[0]["scenario"]))
    for row in rows:
        for number, figure in row["figures"].items():
            if not 0 < figure < math.inf:
                raise ValueError(f"a figure is {figure}")
            found.add(row["cell"], int(number), figure)
        if row["barred"]:
            found.barred[row["cell"]] = row["barred"]
    return found


def misstated(row: Mapping[str, Any], median: float) -> Iterator[str]:
    """What a row says of the ``median`` of its figures, and is not so."""
    higher_is_better = more_is_better(row["scenario"])
    told = {"samples_per_second": row["samples_per_second"]} if higher_is_better else {}
    if row["metric"]:
        told["metric"] = row["metric"]["value"]
        if row["metric"]["higher_is_better"] != higher_is_better:
            yield f"higher_is_better is not so in {shortened(row['scenario'])}"
    for name, value in told.items():
        if value is None or not math.isclose(value, median):
            yield f"{name} is {value}, but the median of its figures {median:.10g}"


def _ratio(contest: Contest, row: Mapping[str, Any]) -> Iterator[str]:
    """Against what the pairs of rounds say; how exactly they are reckoned with is not asked."""
    cell, ratio = row["cell"], row["ratio"]
    share = contest.share(cell, contest.baseline)
    if ratio is None or cell == contest.baseline:
        if ratio is not None or (share and cell != contest.baseline):
            yield f"it has {'no' if ratio is None else 'a'} ratio to '{shortened(contest.baseline)}'"
        return
    value, low, high, verdict = (ratio[name] for name in ("value", "low", "high", "verdict"))
    found = contest.versus(cell, contest.baseline)
    least, most = _bounds(contest, cell) if found else (share, share)
    if ratio["pairs"] != (found.pairs if found else 0):
        yield f"its ratio is of {ratio['pairs']} pairs, its figures of {found.pairs if found else 0}"
    elif not least * (1 - 1e-9) <= value <= most * (1 + 1e-9):
        yield f"its ratio is {value:.10g}, but {least:.10g} to {most:.10g} by its figures"
    elif low is None or high is None or ratio["pairs"] < FEWEST_PAIRS:
        if verdict != "open":
            yield f"its ratio is called {shortened(verdict)} without an interval"
    elif not low <= value <= high or verdict != ("better" if low > 1 else "worse" if high < 1 else "open"):
        yield f"its ratio is {value:.10g} ({low:.10g} to {high:.10g}), called {shortened(verdict)}"
    elif found and found.low and found.high and math.log(high / low) < _NARROWEST * math.log(found.high / found.low):
        yield f"its ratio's interval is {low:.10g} to {high:.10g}, narrower than its figures allow"


def _bounds(contest: Contest, cell: str) -> tuple[float, float]:
    """The least and the greatest ratio to the baseline among the pairs."""
    mine, theirs = contest.figures[cell], contest.figures[contest.baseline]
    ratios = [mine[number] / theirs[number] for number in (mine.keys() & theirs.keys()) - {LOOK}]
    ratios = ratios if contest.higher_is_better else [1 / each for each in ratios]
    return min(ratios), max(ratios)


def _leads(contest: Contest, cell: str) -> Iterator[str]:
    leader = contest.leader
    if cell in contest.barred:
        yield f"'{shortened(cell)}' is the best, although it is not to be chosen"
    elif leader and contest.share(cell, contest.baseline) < contest.share(leader, contest.baseline):
        yield f"'{shortened(cell)}' is the best, but by its figures '{shortened(leader)}' is"


def _sentence(sentence: str, best: Mapping[str, Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of all groups: the best of each is named, nothing else is to be used, and by as much as its row says."""
    is_apart = len({group_of(row) for row in rows}) > 1
    names = {_name(row, is_apart) for row in best.values()}
    for row in best.values():
        name, ratio = _name(row, is_apart), row["ratio"] or {}
        if name not in sentence:
            yield f"the sentence does not name the best, '{shortened(name)}'"
        said = [each.groups() for each in re.finditer(f"use {re.escape(name)}: {_INTERVAL}", sentence)]
        right = [ratio[each] for each in ("value", "low", "high")] if ratio.get("verdict") == "better" else []
        if right and not any(all(map(_is_near, map(float, each), right)) for each in said):
            yield f"the sentence does not say to use '{shortened(name)}' and what its ratio is"
        if said and not right and not is_apart:
            yield f"the sentence says by what '{shortened(name)}' is better, which it is not"
    if not is_apart and sentence.startswith("use ") and not any(sentence.startswith(f"use {name}: ") for name in names):
        yield "the sentence says to use what is not the best"
    for name in {_name(row, is_apart) for row in rows} - names:
        if f": use {name}: " in sentence:
            yield f"the sentence says to use '{shortened(name)}', which is not the best"


def _name(row: Mapping[str, Any], is_apart: bool) -> str:
    """A cell's name in the sentence: where groups are told apart, without what their titles say."""
    cell = str(row["cell"])
    return within(group_of(row), cell) if is_apart else cell


def _is_near(told: float, value: float) -> bool:
    return math.isclose(told, value, rel_tol=_ROUNDED, abs_tol=_ROUNDED)
