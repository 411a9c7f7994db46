"""Worlds in slow motion, the search for a rate, and what is told of both."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from sut.config import RunConfig
from sut.errors import InputError
from sut.mlperf.logs import Detail
from sut.pipeline.deadline import Deadline
from sut.studies.simulation import simulate
from sut.studies.whatif import report
from sut.studies.whatif.bench import Bench
from sut.studies.whatif.page import study_of
from sut.studies.whatif.rate import MOST_PROBES, Asked, Search
from sut.studies.whatif.study import Found, check_config, chosen_stages, run_rounds, worth_asking
from sut.studies.whatif.worlds import World, read_percents, worlds_of

STAGES = ["decode", "resize", "infer", "postprocess"]


def test_all_but_the_faster_stage_are_stretched_and_so_is_what_is_asked() -> None:
    base = RunConfig(scenario="Server", time_s=2.0, qps=50.0, max_latency_s=0.015, max_wait_ms=3.0)

    config = World.of("decode", 50).config(base, STAGES)

    assert config.slowdown == {"resize": 2.0, "infer": 2.0, "postprocess": 2.0}
    assert (config.time_s, config.qps, config.max_latency_s, config.max_wait_ms) == (4.0, 25.0, 0.03, 6.0)
    assert World().config(base, STAGES) == base


def test_several_stages_at_once_are_as_fast_as_the_fastest_needs() -> None:
    world = World((("decode", 0.25), ("resize", 0.5)))

    assert world.slowdown(STAGES) == {"resize": 2.0, "infer": 4.0, "postprocess": 4.0}


def test_a_stage_that_would_be_slower_is_stretched_more() -> None:
    assert World((("decode", 2.0),)).slowdown(STAGES) == {"decode": 2.0}


def test_amdahls_law_is_of_busy_times() -> None:
    assert World.of("decode", 50).amdahl({"decode": 60, "infer": 40}) == pytest.approx(1 / 0.7)
    assert World().amdahl({"decode": 60}) == 1


def test_the_first_speed_up_is_asked_of_every_stage_first() -> None:
    assert worlds_of(["decode", "infer"], [30, 10])[:2] == [World.of("decode", 30), World.of("infer", 30)]


@pytest.mark.parametrize("text", ["0", "96", "fast", "", "-5", "nan"])
def test_a_speed_up_is_a_percentage(text: str) -> None:
    with pytest.raises(InputError, match="--faster takes percent from 1 to 95"):
        read_percents(text)


def test_stages_are_those_of_the_run() -> None:
    assert chosen_stages("infer, decode", STAGES) == ["decode", "infer"]
    assert chosen_stages("all", STAGES) == STAGES
    with pytest.raises(InputError, match="unknown stage 'infr'; did you mean infer"):
        chosen_stages("infr", STAGES)
    with pytest.raises(InputError, match="gather cannot be stretched"):
        chosen_stages("gather", STAGES)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"mode": "accuracy"}, "performance mode"),
        ({"slowdown": {"infer": 2.0}}, "leave the setting slowdown out"),
        ({"rules": "closed"}, "--rules closed refuses"),
    ],
)
def test_what_is_no_world_as_it_is(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError, match=error):
        check_config([RunConfig(**settings)])


@pytest.mark.parametrize("bound_rate", [40.0, 87.0, 300.0])
@pytest.mark.parametrize("power", [12.0, 30.0, 70.0])
@pytest.mark.parametrize("usual", [None, 25.0])
def test_the_rate_at_the_bound_is_found(bound_rate: float, power: float, usual: float | None) -> None:
    search = Search(usual)

    def ask(rate: float) -> None:
        search.asked.append(Asked(rate, round(690 * min(1.0, 0.01 * (rate / bound_rate) ** power)), 690))

    ask(100.0)
    while not search.is_settled:
        ask(search.next_rate)

    assert search.rate == pytest.approx(bound_rate, rel=0.03 if power > 12 else 0.05)
    assert len(search.asked) <= MOST_PROBES


def test_a_search_ends_where_nothing_is_ever_late() -> None:
    search = Search(asked=[Asked(100.0, 0, 690)])
    while not search.is_settled:
        search.asked.append(Asked(search.next_rate, 0, 690))

    assert len(search.asked) == MOST_PROBES and search.asked[-1].rate > 200


def test_the_power_is_what_runs_at_different_rates_tell() -> None:
    apart = [Asked(90.0, 2, 690), Asked(100.0, 7, 690), Asked(111.0, 24, 690)]
    together = [Asked(100.0, 5, 690), Asked(100.1, 9, 690)]

    assert Search(asked=apart).power == pytest.approx(math.log(24.5 / 2.5) / math.log(111 / 90), rel=0.1)
    assert Search(30.0, together).power == pytest.approx(30, rel=0.02)
    assert Search(30.0).power == 30


def test_small_stages_are_not_asked_unless_they_are_all() -> None:
    worlds = worlds_of(["decode", "postprocess"], [30, 10])

    kept, words = worth_asking(worlds, {"decode": 995, "postprocess": 5})

    assert kept == worlds_of(["decode"], [30, 10])
    assert words == ["postprocess: under 1 % of the busy time, not asked; --stage postprocess asks"]
    assert worth_asking(worlds_of(["postprocess"], [30]), {"decode": 995, "postprocess": 5})[1] == []


class Told(Bench):
    """A bench that makes no runs: a world's figure is the next of its list."""

    def __init__(self, figures: dict[World, list[float]], scenario: str = "Offline") -> None:
        self.base = RunConfig(scenario=cast(Any, scenario))
        self.path, self.bound_ns, self.stages = Path(), None, STAGES
        self.results = [
            cast(Any, SimpleNamespace(cost_ns={"decode": 50, "infer": 50}, stages_ns={}, scenario=scenario))
        ]
        self.results[0].model, self.results[0].weights = "some", "random"
        self._figures, self.order, self.runs = figures, list[World](), 0

    def figure(self, world: World) -> float:
        self.order.append(world)
        self.runs += 1
        return self._figures[world].pop(0)


FASTER = World.of("decode", 50)


def rounds(bench: Told, count: int) -> Found:
    found = Found([FASTER])
    run_rounds(bench, found, count, 60, lambda text: None, lambda found: None)
    return found


def test_rounds_go_there_and_back_again_and_pairs_tell() -> None:
    bench = Told({World(): [100, 102, 98, 100, 101], FASTER: [150, 152, 149, 150, 152]})

    found = rounds(bench, 5)
    [row] = report.rows_of(found, bench)

    assert bench.order[:4] == [World(), FASTER, FASTER, World()]
    assert row["change_percent"]["value"] == pytest.approx(50.3, abs=0.5)
    assert row["change_percent"]["low"] < 50.3 < row["change_percent"]["high"]
    assert row["amdahl_percent"] == pytest.approx(100 / 3)
    assert row["beyond_amdahl_percent"] == pytest.approx(row["change_percent"]["value"] - 100 / 3)
    assert re.fullmatch(
        r"decode 50 % faster: Offline rate \+50.\d % \(.*\); by Amdahl's law \+33.3 %", told(found, bench)
    )


def told(found: Found, bench: Told) -> str:
    return str(report.told_of(found, bench)["sentences"][0])


def test_a_latency_falls_and_so_its_interval_is_turned_around() -> None:
    bench = Told({World(): [100.0, 101, 99, 100], FASTER: [75.0, 76, 74, 75]}, "SingleStream")

    [row] = report.rows_of(rounds(bench, 4), bench)

    change = row["change_percent"]
    assert change["low"] < change["value"] < change["high"] < 0
    assert change["value"] == pytest.approx(-25, abs=0.5) and row["amdahl_percent"] == pytest.approx(-25)


def test_few_rounds_have_no_interval_and_say_so() -> None:
    bench = Told({World(): [100], FASTER: [150]})

    found = rounds(bench, 1)

    assert "no interval yet" in told(found, bench)
    assert report.told_of(found, bench)["notes"] == [
        "1 round: an interval takes 4; --budget or --rounds",
        "the weights are random: times are real, answers mean nothing",
    ]


def test_a_budget_that_is_spent_leaves_worlds_out_and_says_so() -> None:
    other = World.of("infer", 50)
    bench = Told({World(): [100], FASTER: [150]})
    found = Found([FASTER, other])

    run_rounds(bench, found, None, 0.0, lambda text: None, lambda found: None)

    assert found.worlds == [FASTER]
    assert found.words[0] == "1 of 2 were not looked at; --budget takes more"


def test_a_page_has_the_curve_with_its_intervals_and_the_law_beside_it() -> None:
    bench = Told({World(): [100, 101, 99, 100], FASTER: [150, 151, 149, 150]})
    content = report.told_of(rounds(bench, 4), bench)

    study = study_of(content, "s0")

    [figure], [table] = study.figures, study.tables
    assert figure.svg.count("<circle") == 4 and figure.svg.count('class="line s0"') == 2
    bars = [path.split("M")[1].split("V") for path in figure.svg.split('class="line s0" d="')[1:] if "V" in path[:30]]
    assert bars and all(begin.split()[1] != end.split('"')[0] for begin, end in bars), "from low to high"
    assert [name for _, name in figure.legend] == ["foretold", "by Amdahl"]
    assert "% faster" in study.sentences[0] and len(table.first.cells) == 1


class Clockless(Bench):
    """Server on 8 lanes, one query at a time, each stage 50 ms: by the simulation, which needs no time."""

    def __init__(self, cut: str = "") -> None:
        super().__init__(RunConfig(scenario="Server", time_s=1.0), Path(), cast(Any, None))
        self._ms = {stage: 35.0 if stage == cut else 50.0 for stage in ("decode", "normalize", "infer")}
        self._queries = np.cumsum(np.random.default_rng(0).exponential(1e9, 3000))

    def _run(self, config: RunConfig) -> tuple[Any, Detail]:
        took = {stage: config.slowdown.get(stage, 1.0) * ms * 1e6 for stage, ms in self._ms.items()}
        bound_ns = round((config.max_latency_s or 0.18) * 1e9)
        one = round(sum(took.values()))
        arrived = (self._queries / (config.qps or 1.0)).astype(np.int64)
        late = int((simulate(arrived, [one], 8, Deadline.of(bound_ns, [one])) > bound_ns).sum())
        told = {"result_overlatency_query_count": late, "effective_target_latency_ns": bound_ns}
        calibration = {"batch_ns": {"1": one}, "idle_query_ns": one}
        result = SimpleNamespace(
            **{"scenario": "Server", "queries": len(arrived), "latency_ns": {"p99": 1}, "cost_ns": took},
            **{"calibration": calibration, "plan": None, "config": {"lanes": 8}},
        )
        return result, Detail(told, ())


@pytest.mark.parametrize("stage", ["decode", "normalize", "infer"])
def test_servers_rate_is_foretold_where_amdahls_law_is_blind(stage: str) -> None:
    bench, cut = Clockless(), Clockless(stage)
    bench.look()
    cut.look()

    before = bench.figure(World()) or 0.0
    real = (cut.figure(World()) or 0.0) / before
    foretold = (bench.figure(World.of(stage, 30)) or 0.0) / before
    again = (bench.figure(World.of(stage, 30)) or 0.0) / before

    assert foretold == pytest.approx(real, rel=0.05) and again == pytest.approx(real, rel=0.05)
    assert World.of(stage, 30).amdahl(bench.results[-1].cost_ns) < 0.9 * real


@pytest.mark.parametrize(("scenario", "expected"), [("Offline", 20.0), ("SingleStream", 5.0)])
def test_a_figure_is_told_at_the_speed_of_our_clock(scenario: Any, expected: float) -> None:
    class Once(Bench):
        def _run(self, config: RunConfig) -> tuple[Any, Detail]:
            told = {"scenario": scenario, "samples_per_second": 10.0, "latency_ns": {"p90": 10}}
            return SimpleNamespace(**told), Detail({}, ())

    bench = Once(RunConfig(scenario=scenario, time_s=1.0), Path(), cast(Any, None))

    assert bench.figure(FASTER) == expected


def test_where_no_rate_is_in_time_it_is_said() -> None:
    bench = Clockless()
    bench.base = bench.base.model_copy(update={"max_latency_s": 0.1})

    with pytest.raises(InputError, match=r"one picture takes 150 ms, longer than Server's latency bound of 100 ms"):
        bench.look()
