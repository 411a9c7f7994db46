"""A tune from its first run to its verdict: search, for Server find and confirm the rate, best against default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sut.config import RunConfig
from sut.errors import ExitCode
from sut.models.precision.agreement import reduced_name, second_unknown
from sut.results.statistics import FEWEST_PAIRS, Difference, difference, in_words
from sut.run.compared import is_reduced
from sut.run.planning import EARLY_STOPPING_QUERIES
from sut.studies.tuning.rate import RESOLUTION, confirm_rate, search_rate, too_slow_for_any_rate
from sut.studies.tuning.search import SHORTEST_S, Measure, Search, halve, round_seconds, round_sizes
from sut.studies.tuning.space import DEFAULT, Point, tidy
from sut.studies.tuning.state import Job, Measured
from sut.studies.tuning.words import why_it_fails, why_nothing

MOST_PAIRS = 20
"""Of the best against the default. A gain of 5 % is told by half as many where runs vary by 2 %."""
_HOPELESS_FROM = 8
_HOPELESS = 5 * MOST_PAIRS
_FIRST_SHARE = 0.8
"""Of the estimated highest rate, at which Server's points are compared first: there p99 tells them apart."""

Estimate = Callable[[RunConfig, Measured], float | None]
"""The highest rate Server can be expected to hold, from the batch times that a run has measured."""


@dataclass(slots=True)
class TuneOutcome:
    """What a tune came to. ``chosen`` are the settings to use; ``rate`` the confirmed one of Server.

    ``pairs`` are (best, default); ``gain`` is the best's figure against the default's, ``cost`` its CPU time a sample.
    ``words`` say what happened, for the user.
    """

    search: Search = field(default_factory=lambda: Search((), DEFAULT))
    probes: list[Measured] = field(default_factory=list)
    confirmations: list[Measured] = field(default_factory=list)
    pairs: list[tuple[Measured, Measured]] = field(default_factory=list)
    gain: Difference | None = None
    cost: Difference | None = None
    best: Point | None = None
    chosen: Point | None = None
    rate: float | None = None
    words: list[str] = field(default_factory=list)
    code: ExitCode = ExitCode.OK


def gain_of(pairs: Sequence[tuple[Measured, Measured]]) -> Difference:
    """The best's figure against the default's."""
    best, default = ([row.figure for row in side] for side in zip(*pairs, strict=True))
    return difference(default, best, higher_is_better=any(row.higher_is_better for pair in pairs for row in pair))


def cost_of(pairs: Sequence[tuple[Measured, Measured]]) -> Difference:
    """The best's CPU time a sample against the default's."""
    best, default = ([row.cpu_seconds_per_sample for row in side] for side in zip(*pairs, strict=True))
    return difference(default, best, higher_is_better=False)


def no_more_pairs(run: int, found: Difference) -> bool:
    """Whether what was ``found`` by so many pairs is the last word: a decision, or more would not make it one."""
    if found.verdict != "open" or run >= MOST_PAIRS or run - found.pairs >= FEWEST_PAIRS:
        return True
    return found.pairs >= _HOPELESS_FROM and (found.pairs_needed is None or found.pairs_needed > _HOPELESS)


@dataclass(frozen=True, slots=True)
class Tuner:
    """Tunes ``base`` over ``points``, the first of which is the default; ``measure`` makes a run.

    The longest runs are of ``base.time_s``, which must be set. ``may_go_on`` says before each run of the search whether
    there is time left for it. ``pin`` fixes a setting for all further runs.
    """

    base: RunConfig
    points: Sequence[Point]
    measure: Measure
    estimate: Estimate
    rounds: int | None = None
    may_go_on: Callable[[], bool] = lambda: True
    pin: Callable[..., None] = lambda **settings: None

    @property
    def time_s(self) -> float:
        """Seconds of the longest runs."""
        assert self.base.time_s is not None
        return self.base.time_s

    def run(self) -> TuneOutcome:
        """The whole tune."""
        outcome = self._server() if self.base.scenario == "Server" else self._settings()
        if outcome.code == ExitCode.OK:
            outcome.words += self._agreements(outcome)
        return outcome

    def _search(self, qps: float | None = None) -> Search:
        sizes = round_sizes(len(self.points), self.rounds)
        return halve(self.points, sizes, round_seconds(len(sizes), self.time_s), self.measure, self.may_go_on, qps)

    def _settings(self) -> TuneOutcome:
        search = self._search()
        outcome = TuneOutcome(search, best=search.best)
        if search.best is None:
            return _nothing(outcome, [row for rows in search.rounds for row in rows])
        self._note_budget(outcome)
        if search.best == DEFAULT:
            outcome.chosen = DEFAULT
            outcome.words.append(f"no gain: the default is the best of {_points(search)}")
        else:
            self._pairs(outcome, search.best, None)
        return outcome

    def _server(self) -> TuneOutcome:
        # What it measures before it runs is what counts. Asked fast, a slow system is soonest done with its queries.
        qps = EARLY_STOPPING_QUERIES["Server"] / SHORTEST_S
        scout = self.measure(Job("scout", 1, 1, DEFAULT, min(SHORTEST_S, self.time_s), qps))
        if self.base.relax_server and self.base.max_latency_s is None and scout.bound_ns:
            self.pin(max_latency_s=scout.bound_ns / 1e9)  # else it would follow each run's own calibration
        start = self.base.qps or self._expected(DEFAULT, scout)
        outcome = TuneOutcome(best=DEFAULT)
        if start is None or (len(self.points) == 1 and too_slow_for_any_rate(scout)):
            return _nothing(outcome, [scout])
        if len(self.points) > 1:
            outcome.search = search = self._search(tidy(_FIRST_SHARE * start))
            tried = [row for rows in search.rounds for row in rows]
            if search.best is None:
                return _nothing(outcome, [scout, *tried])
            self._note_budget(outcome)
            outcome.best = search.best
            mine = [row for row in tried if row.point == search.best]
            start = self.base.qps or self._expected(search.best, mine[-1]) or start
        else:
            mine = [scout]
        best = outcome.best or DEFAULT
        known = max((row.qps for row in mine if row.valid and row.qps), default=None)

        def ask(phase: str, of: int) -> Callable[[float, int], Measured]:
            return lambda qps, number: self.measure(Job(phase, number, max(of, number), best, self.time_s, qps))

        outcome.probes = search_rate(max(start, known or 0.0), ask("rate", 8), known)
        highest = max((row.qps for row in outcome.probes if row.valid and row.qps), default=known)
        if highest is None:
            return _nothing(outcome, outcome.probes)
        outcome.rate, outcome.confirmations = confirm_rate(highest, ask("confirm", 3))
        if outcome.rate is None:
            return _unconfirmed(outcome, highest)
        _explain(outcome)
        outcome.chosen = best
        if best != DEFAULT:
            self._pairs(outcome, best, outcome.rate)
        elif len(self.points) > 1:
            points = _points(outcome.search)
            outcome.words.append(f"no gain from other settings: the default is the best of {points}")
        return outcome

    def _expected(self, point: Point, row: Measured) -> float | None:
        """The estimated highest rate; without an estimate half of what the system got done."""
        if (estimated := self.estimate(point.apply(self.base), row)) is not None:
            return tidy(estimated)
        return tidy(0.5 * row.samples_per_second) if row.samples_per_second else None

    def _pairs(self, outcome: TuneOutcome, best: Point, qps: float | None) -> None:
        """Run pairs until they tell, and choose."""
        while outcome.gain is None or not no_more_pairs(len(outcome.pairs), outcome.gain):
            found: dict[Point, Measured] = {}
            pair = len(outcome.pairs)
            for at, point in enumerate((best, DEFAULT) if pair % 2 == 0 else (DEFAULT, best)):
                number = 2 * pair + at + 1
                found[point] = self.measure(Job("pairs", number, 2 * MOST_PAIRS, point, self.time_s, qps))
            outcome.pairs.append((found[best], found[DEFAULT]))
            outcome.gain = gain_of(outcome.pairs)
        outcome.cost = cost_of(outcome.pairs)
        _choose(outcome, best)

    def _note_budget(self, outcome: TuneOutcome) -> None:
        if outcome.search.cut:
            outcome.words.append(
                f"the budget ended the search in round {len(outcome.search.rounds)}; the best until then counts"
            )

    def _agreements(self, outcome: TuneOutcome) -> list[str]:
        """What became of the labels, for every reduced precision that ran: no speed is told without it."""
        rows = [row for rows in (*outcome.search.rounds, *outcome.pairs) for row in rows]
        rows += [*outcome.probes, *outcome.confirmations]
        said: dict[str, str | None] = {}
        seconds: dict[str, None] = {}
        for row in rows:
            config = row.point.apply(self.base)
            if is_reduced(config) and not row.failed:
                name = reduced_name(config.precision, config.fold)
                said[name] = said.get(name) or row.agreement_line
            if not row.failed and (unknown := second_unknown(config.identify, config.identify_precision)):
                seconds[unknown] = None
        none = "against fp32: no run says how many labels are the same"
        return [*(line or f"{name} {none}" for name, line in said.items()), *seconds]


def _points(search: Search) -> str:
    """How many points were run, which are not all where the budget ended the first round."""
    count = len(search.rounds[0])
    return f"{count} point{'s' if count > 1 else ''}"


def _nothing(outcome: TuneOutcome, rows: Sequence[Measured]) -> TuneOutcome:
    outcome.best = outcome.chosen = None
    outcome.code = ExitCode.FAILED if all(row.failed for row in rows) else ExitCode.INVALID
    outcome.words.append(why_nothing(rows))
    return outcome


def _unconfirmed(outcome: TuneOutcome, highest: float) -> TuneOutcome:
    lowest = min(row.qps for row in outcome.confirmations if row.qps)
    outcome.code = ExitCode.INVALID
    reasons = outcome.confirmations[-1].invalid_reasons
    outcome.words.append(
        f"{highest:g} queries/s was VALID once, but no rate down to {lowest:g} was three times in a row: the machine "
        f"is too noisy for this bound. Relax it (--max-latency), or use a longer --time ({'; '.join(reasons)})"
    )
    return outcome


def _explain(outcome: TuneOutcome) -> None:
    """Say why the next higher rate fails."""
    rate = outcome.rate or 0.0
    asked = [row for row in (*outcome.probes, *outcome.confirmations) if row.qps]
    times = sum(row.valid for row in outcome.confirmations if row.qps == rate)
    outcome.words.append(f"highest VALID rate: {rate:g} queries/s, VALID {times} times out of {times} when confirmed")
    failing = [row for row in asked if not row.valid and (row.qps or 0) > rate]
    if not failing:
        tried = max(row.qps or 0 for row in asked)
        outcome.words.append(f"no rate was INVALID up to {tried:g} queries/s; it may hold more: begin there with --qps")
        return
    lowest = min(failing, key=lambda row: (row.qps or 0, row.p99_ns or 0))
    again = [row for row in asked if row.qps == lowest.qps]
    tries = f" ({sum(row.valid for row in again)} of {len(again)} runs were VALID)" if len(again) > 1 else ""
    outcome.words.append(f"why not more: {why_it_fails(lowest, outcome.confirmations[-1])}{tries}")
    if (lowest.qps or 0) > rate * RESOLUTION * 1.01:
        outcome.words.append(f"the search ended before it had looked between {rate:g} and {lowest.qps:g} queries/s")


def _choose(outcome: TuneOutcome, best: Point) -> None:
    """Take the best or the default, by what the pairs showed."""
    gain, cost, say = outcome.gain, outcome.cost, outcome.words.append
    assert gain is not None and cost is not None
    server = outcome.rate is not None
    held = sum(default.valid for _, default in outcome.pairs)
    if server:
        own = sum(row.valid for row, _ in outcome.pairs)
        pairs = len(outcome.pairs)
        say(f"at {outcome.rate:g} queries/s the best is VALID {own} times out of {pairs}, the default {held}")
    told = f"{'p99' if server else 'the figure'}: {in_words(gain, cost)}"
    outcome.chosen = best
    if gain.verdict == "better":
        say(f"gain by {told}")
    elif server and held < len(outcome.pairs):
        say(f"no gain by {told}; but the default does not hold this rate, so the best stays")
    elif gain.verdict == "open" and cost.verdict == "better":
        say(f"no gain by {told}; so the best stays")
    else:
        outcome.chosen = DEFAULT
        say(f"no gain by {told}; the default stays")
