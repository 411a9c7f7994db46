"""Which runs come next, and what they mean: cells that do the same work, against each other.

Every cell is looked at once, which decides what is worth more time and nothing else. From then on runs come in rounds,
one of each cell that is still of interest and one of the baseline, one right after the other, so that what slows the
machine down for a while slows down all of them; two cells are compared by the rounds that have both. A cell that is
known to be worse than the leader is not run again.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from sut.results.statistics import FEWEST_PAIRS, Difference, difference

LOOK = 0
"""The number of the round in which every cell is looked at."""
BEHIND = 0.5
"""Of the leader's figure: a cell with less is looked at once more at the end, and if it still has less is not pursued,
which its row says. A matrix has too many cells for all of them to be run a dozen times."""


@dataclass(slots=True)
class Contest:
    """Figures of cells, by name. ``figures`` has a figure for each round that the cell ran in and has one.

    ``barred`` are cells that nobody would choose however fast they are, and why; the baseline is the first cell.
    """

    baseline: str
    higher_is_better: bool
    figures: dict[str, dict[int, float]] = field(default_factory=dict)
    barred: dict[str, str] = field(default_factory=dict)

    def add(self, cell: str, number: int, figure: float | None) -> None:
        """Take in a run of round ``number``; without a figure it counts as not run."""
        found = self.figures.setdefault(cell, {})
        if figure:
            found[number] = figure

    def figure(self, cell: str) -> float | None:
        """The median of a cell's figures."""
        found = self.figures.get(cell)
        return statistics.median(found.values()) if found else None

    def share(self, cell: str, other: str) -> float:
        """How good a cell is against another: over 1 where it is better, 0 without a figure.

        By the medians of the rounds that both have, without any by the first look.
        """
        one, two = self.figures.get(cell, {}), self.figures.get(other, {})
        both = one.keys() & two.keys()
        if not both:
            return 0.0
        mine, theirs = (statistics.median(each[at] for at in both - {LOOK} or both) for each in (one, two))
        return mine / theirs if self.higher_is_better else theirs / mine

    def versus(self, cell: str, other: str) -> Difference | None:
        """A cell against another, by the rounds that have both, behind the first look; None where none has.

        Who is ahead of many that are the same is so by luck: that another is worse than it is one verdict of as many
        as cells take part. Against the baseline, which was there before, each stands for itself.
        """
        one, two = self.figures.get(cell, {}), self.figures.get(other, {})
        rounds = sorted((one.keys() & two.keys()) - {LOOK})
        if not rounds or cell == other:
            return None
        pairs = ([two[each] for each in rounds], [one[each] for each in rounds])
        others = sum(len(found.keys() - {LOOK}) > 0 for found in self.figures.values()) - 1
        verdicts = 1 if self.baseline in (cell, other) else others
        return difference(*pairs, higher_is_better=self.higher_is_better, verdicts=verdicts)

    @property
    def leader(self) -> str | None:
        """The best cell that may be chosen, by how good each is against the baseline; None where there is none."""
        able = [cell for cell in self.figures if self.figures[cell] and cell not in self.barred]
        return max(able, key=lambda cell: self.share(cell, self.baseline), default=None)

    def is_behind(self, cell: str) -> bool:
        """Whether a cell is so far from the leader that it is not pursued."""
        leader = self.leader
        return leader is not None and self.share(cell, leader) < BEHIND

    @property
    def rivals(self) -> list[str]:
        """Those that could be as good as the leader for all that is known, the nearest first."""
        leader = self.leader
        if leader is None:
            return []
        able = [cell for cell in self.figures if self.figures[cell] and cell not in self.barred and cell != leader]
        found = [cell for cell in able if not self.is_behind(cell) and self._is_open(leader, cell)]
        return sorted(found, key=lambda cell: -self.share(cell, leader))

    def _is_open(self, cell: str, other: str) -> bool:
        found = self.versus(cell, other)
        return found is None or found.verdict == "open"

    def next_round(self, number: int, seconds: Mapping[str, float], left_s: float) -> list[str]:
        """The cells of the next round in order; none where all is settled, or no two fit into the time that is left.

        ``seconds`` is what a run of each cell takes. Rivals take part where the time lasts for as many rounds with
        them as the leader and the baseline need. Every other round goes the other way round.
        """
        leader = self.leader
        if leader is None:
            return []
        rivals = self.rivals
        if not rivals and (leader == self.baseline or not self._is_open(leader, self.baseline)):
            return self._second_look(leader, seconds, left_s)
        chosen = list(dict.fromkeys((leader, self.baseline)))
        found = self.versus(leader, self.baseline)
        rounds = max(1, FEWEST_PAIRS - (found.pairs if found is not None else 0))
        for rival in rivals:
            fits = rounds * sum(seconds[each] for each in (*chosen, rival)) <= left_s
            if rival not in chosen and (fits or len(chosen) < 2):
                chosen.append(rival)
        if len(chosen) < 2 or sum(seconds[each] for each in chosen) > left_s:
            return []
        ordered = [cell for cell in self.figures if cell in chosen]
        return ordered if number % 2 else ordered[::-1]

    def _second_look(self, leader: str, seconds: Mapping[str, float], left_s: float) -> list[str]:
        """The leader, and those that one look alone has put far behind it, the nearest first, as far as time lasts."""
        able = [cell for cell in self.figures if self.is_behind(cell) and cell not in self.barred]
        doubtful = [cell for cell in able if not (self.figures[cell].keys() & self.figures[leader].keys()) - {LOOK}]
        chosen = [leader]
        for cell in sorted(doubtful, key=lambda cell: -self.share(cell, leader)):
            if sum(seconds[each] for each in (*chosen, cell)) <= left_s:
                chosen.append(cell)
        return chosen if len(chosen) > 1 else []
