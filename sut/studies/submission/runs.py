"""The finished runs that a submission is made of, as they lie in the folder of one configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sut.config import RunConfig
from sut.errors import InputError
from sut.mlperf import official
from sut.mlperf.official import Benchmark
from sut.models.registry import MODELS
from sut.results.collected import Found, collect
from sut.results.schema import Result
from sut.studies.submission.about import About

ROLES = ("performance", "accuracy", *official.AUDITS)
"""What a run is for, and the name of its folder below that of its scenario."""
SCENARIOS = (*official.EDGE, "Server")
"""In MLPerf's order."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: ``folder`` has its result.json, and LoadGen's logs as they were written."""

    folder: Path
    result: Result

    @property
    def name(self) -> str:
        """Scenario and role, as messages name it."""
        return f"{self.result.scenario} {role_of(self.result)}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One scenario: its runs by role, as far as they are there.

    ``inferred_from``: the scenario whose runs stand for this one's, which are then the same.
    """

    scenario: str
    runs: Mapping[str, Run]
    inferred_from: str | None = None


@dataclass(frozen=True, slots=True)
class Runs:
    """All runs of one configuration. ``home`` is their folder; ``entries`` by scenario, in MLPerf's order."""

    home: Path
    entries: Mapping[str, Entry]

    @property
    def benchmark(self) -> Benchmark:
        """That of the first of them; whether the others are of one model is a matter of its own."""
        first = next((run for entry in self.entries.values() for run in entry.runs.values()), None)
        return official.BENCHMARKS[official.MODEL] if first is None else benchmark_of(first.result)

    def all(self) -> list[Run]:
        """Each run once: of an inferred scenario none, since they are the other's."""
        entries = [entry for entry in self.entries.values() if entry.inferred_from is None]
        return [entry.runs[role] for entry in entries for role in ROLES if role in entry.runs]


def role_of(result: Result) -> str | None:
    """What a run is for; None where that is nothing of a submission, such as a search."""
    role = result.mode if result.audit is None else result.audit.test
    return role if role in ROLES else None


def benchmark_of(result: Result) -> Benchmark:
    """The benchmark that a run is of, or by whose rules it is judged."""
    return official.benchmark_of(result.model, result.loadgen_model)


def benchmark_asked(config: RunConfig) -> Benchmark:
    """The same of a run that is to be made, as far as the name tells that its model is given."""
    name = (config.model_name or config.model).lower().replace("_", "-")
    known = MODELS.get(name)
    return official.benchmark_of(name, known.loadgen_model if known else official.MODEL)


def roles_of(about: About, benchmark: Benchmark) -> tuple[str, ...]:
    """The runs that each scenario needs."""
    return (*ROLES[:2], *benchmark.audits) if about.is_closed else ROLES[:2]


def scenarios_of(about: About, benchmark: Benchmark) -> tuple[str, ...]:
    """The scenarios that are asked for; none in the open division where that are all that were run.

    Raises ``InputError`` for a benchmark that the network division does not have.
    """
    if about.scenarios or about.division == "open":
        return about.scenarios
    if about.division == "network":
        if not benchmark.datacenter:
            raise InputError(f"{benchmark.name} is not in MLPerf's datacenter suite, as the network division is")
        return benchmark.datacenter
    return benchmark.scenarios if about.system_type == "datacenter,edge" else official.EDGE


def read_runs(paths: Sequence[Path], about: About) -> Runs:
    """The runs below ``paths``, a HOME or several folders, that ``about`` asks for.

    What a later run has renamed is not taken unless it is named. Raises ``InputError`` where there is none, for all
    results that cannot be read, and where there are two for one place.
    """
    found = by_place(paths, about)
    doubles = [f"{' '.join(place)}: {_listed(each)}" for place, each in found.items() if len(each) > 1]
    if doubles:
        raise InputError(
            f"there are two runs for one place; which one counts? Name its folder instead: {'; '.join(doubles)}"
        )
    if not found:
        where = ", ".join(map(str, paths))
        raise InputError(f"{where}: no result of a run that this submission asks for; --plan shows what to run")
    return runs_of({place: each[0] for place, each in found.items()}, about)


def by_place(paths: Sequence[Path], about: About) -> dict[tuple[str, str], list[Found]]:
    """Results below ``paths`` by scenario and role, those that ``about`` asks for and does not infer, oldest first.

    Raises ``InputError`` with all those that cannot be read.
    """
    collected = collect(paths)
    if collected.skipped:
        reasons = [f"{each.path}: {each.reason}" for each in collected.skipped]
        raise InputError(f"not to be read, make them again or name others: {'; '.join(reasons)}")
    found: dict[tuple[str, str], list[Found]] = {}
    for each in sorted(collected.found, key=lambda each: each.result.started):
        scenario, role, benchmark = each.result.scenario, role_of(each.result), benchmark_of(each.result)
        is_asked = scenario in (scenarios_of(about, benchmark) or SCENARIOS) and scenario not in about.inferred
        if role in roles_of(about, benchmark) and is_asked:
            found.setdefault((scenario, role), []).append(each)
    return found


def runs_of(found: Mapping[tuple[str, str], Found], about: About) -> Runs:
    """One result for each place, and what is inferred from them."""
    runs: dict[str, dict[str, Run]] = {}
    for (scenario, role), each in sorted(found.items(), key=lambda item: ROLES.index(item[0][1])):
        runs.setdefault(scenario, {})[role] = Run(each.path.parent, each.result)
    entries = {scenario: Entry(scenario, each) for scenario, each in runs.items()}
    for scenario, source in about.inferred.items():
        if source in runs and scenario in (about.scenarios or SCENARIOS):
            entries[scenario] = Entry(scenario, runs[source], inferred_from=source)
    ordered = {scenario: entries[scenario] for scenario in SCENARIOS if scenario in entries}
    home = next((run.folder.parent.parent for each in runs.values() for run in each.values()), Path())
    return Runs(home, ordered)


def _listed(found: Sequence[Found]) -> str:
    return " and ".join(f"{each.path.parent} of {each.result.started}" for each in found)
