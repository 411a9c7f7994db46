"""The sentence that decides: what to use here, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from sut.config import model_stem
from sut.models.precision.agreement import second_unknown
from sut.results.statistics import FEWEST_PAIRS, Difference, about_pairs, difference, interval
from sut.run.compared import is_reduced
from sut.studies.comparing.comparison import Comparison
from sut.studies.comparing.contest import LOOK, Contest
from sut.studies.comparing.matrix import APART, within
from sut.text import printable

_NEAR = 0.9
"""Of the leader's figure: what is less and still cannot be told from it has had too few runs for its spread."""


def sentence_of(comparison: Comparison) -> str:
    """What to use, and how sure that is; one part for each group of cells that do the same work."""
    parts = []
    for group, contest in comparison.contests.items():
        said = _decision(comparison, contest) + _unseen(comparison, group)
        if len(comparison.contests) > 1:
            said = f"{title_of(group, comparison)}: {within(group, said)}"
        parts.append(said)
    return printable(". ".join(parts))


def _unseen(comparison: Comparison, group: tuple[str, ...]) -> str:
    """That some cells have not been run, of which nothing is known."""
    unseen = sum(cell.group == group and cell.label not in comparison.runs for cell in comparison.cells)
    return f"; {unseen} cell{'s were' if unseen > 1 else ' was'} not looked at" if unseen else ""


def title_of(group: tuple[str, ...], comparison: Comparison) -> str:
    """What tells a group from the others."""
    differ = [at for at in range(len(APART)) if len({each[at] for each in comparison.contests}) > 1]
    return ", ".join(model_stem(group[at]) if APART[at] == "model" else group[at] for at in differ)


def _decision(comparison: Comparison, contest: Contest) -> str:
    leader, baseline = contest.leader, contest.baseline
    if leader is None:
        why = "; ".join(f"{cell}: {reason}" for cell, reason in contest.barred.items())
        return f"nothing can be recommended ({why})"
    if sum(bool(found) for found in contest.figures.values()) == 1:
        which = "is the only cell" if len(contest.figures) == 1 else "is all that could be run"
        return f"{leader} {which}: there is nothing to compare it with"
    gain = contest.versus(leader, baseline)
    if leader == baseline:
        said = f"stay with {baseline}" + ("" if contest.rivals else ": nothing here is faster")
    elif gain is None or gain.pairs < FEWEST_PAIRS:
        pairs = "before any pair" if gain is None else f"after {gain.pairs} pair{'s' * (gain.pairs > 1)}"
        return (
            f"the budget ended {pairs} of runs: so far {leader} is {contest.share(leader, baseline):.2f} x {baseline}, "
            f"which may be chance before there are {FEWEST_PAIRS}; --budget takes more"
        )
    elif gain.verdict == "better":
        said = f"use {leader}: {interval(gain)} against {baseline}{_labels(comparison, leader, baseline)}"
    else:
        said = _undecided(comparison, leader, baseline, gain)
    alike = [cell for cell in contest.rivals if cell != baseline or leader == baseline or gain is None]
    if alike:
        said += f"; {_alike(comparison, contest, leader, alike)}"
    return said + _invalid(comparison, leader) + _barred(contest, leader)


def _undecided(comparison: Comparison, leader: str, baseline: str, gain: Difference) -> str:
    """Two that speed cannot tell apart: what the one costs less is CPU time, if anything."""
    apart = f"{gain.ratio:.2f} x so far{_needed(gain)}"
    cost = _cost(comparison, baseline, leader)
    if cost is None or cost.verdict != "better" or cost.ratio is None:
        return f"stay with {baseline}: {leader} cannot be told from it here ({apart})"
    labels = _labels(comparison, leader, baseline)
    return (
        f"use {leader}: it takes {1 / cost.ratio:.2f} x the CPU time of {baseline}{labels}; by speed the "
        f"two cannot be told apart here ({apart})"
    )


def _labels(comparison: Comparison, cell: str, baseline: str) -> str:
    accuracy = comparison.accuracies.get(cell)
    if accuracy is not None:
        return f" with {accuracy.share} {'right' if accuracy.name == 'top1' else accuracy.name}"
    configs = {each.label: each.config for each in comparison.cells}
    unknown, before = (
        second_unknown(each.identify, each.identify_precision) for each in (configs[cell], configs[baseline])
    )
    of_second = f"; {unknown}" if unknown and unknown != before else ""
    result = comparison.bench.results[cell]
    if result.agreement is not None and result.weights != "random":
        return f" at {result.agreement.short}{of_second}"
    forms = {(configs[each].precision, configs[each].fold) for each in (cell, baseline)}
    if len(forms) == 1 or not is_reduced(configs[cell]):
        return of_second
    weights = ", random weights" if result.weights == "random" else ""
    return f"; its answers are not compared with fp32's{weights}{of_second}"


def _needed(found: Difference) -> str:
    return f", {about_pairs(found.pairs_needed)} would tell" if found.pairs_needed else ""


def _alike(comparison: Comparison, contest: Contest, leader: str, cells: Sequence[str]) -> str:
    """Those that cannot be told from the leader; by their CPU time where that can."""
    cheaper = []
    for cell in cells:
        cost = _cost(comparison, leader, cell)
        if cost is not None and cost.verdict != "open" and cost.ratio is not None:
            cheaper.append(f"{cell} takes {1 / cost.ratio:.2f} x the CPU time")
    found = contest.versus(leader, cells[0])
    needed = _needed(found) if found is not None and len(cells) == 1 else ""
    shares = {cell: contest.share(cell, leader) for cell in cells}
    names = [f"{cell} ({share:.2f} x so far)" if share < _NEAR else cell for cell, share in shares.items()]
    who = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{who} cannot be told from {leader} here{needed}" + "".join(f"; {text}" for text in cheaper)


def _cost(comparison: Comparison, baseline: str, cell: str) -> Difference | None:
    """CPU time a sample of a cell against another's, by the rounds of both; over 1 where it is less."""
    one, two = (
        {run.number: run.cpu_seconds_per_sample for run in comparison.runs[each] if run.number != LOOK}
        for each in (baseline, cell)
    )
    rounds = sorted(one.keys() & two.keys())
    if not rounds:
        return None
    others = sum(any(run.number != LOOK for run in runs) for runs in comparison.runs.values()) - 1
    pairs = [one[each] for each in rounds], [two[each] for each in rounds]
    return difference(*pairs, higher_is_better=False, verdicts=others)


def _invalid(comparison: Comparison, cell: str) -> str:
    """That nothing of what a cell's figures are of was VALID, which is seldom its shortness alone."""
    runs = comparison.runs[cell]
    return "" if any(run.valid for run in runs) else f"; no run of {cell} was VALID: {runs[-1].reason}"


def _barred(contest: Contest, leader: str) -> str:
    """The faster ones that are not recommended, and why."""
    faster = [cell for cell in contest.barred if contest.share(cell, leader) > 1]
    return "".join(f"; {cell} is faster, but {contest.barred[cell]}" for cell in faster)
