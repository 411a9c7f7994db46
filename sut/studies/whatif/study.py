"""Round by round: the world as it is, and each in which a stage is faster, there and back again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sut.config import RunConfig
from sut.errors import InputError
from sut.mlperf.official import benchmark_of
from sut.pipeline.assembly import Assembly
from sut.pipeline.identify.settings import check_one_model
from sut.pipeline.lane import lane_stages
from sut.pipeline.slowdown import NOT_STRETCHED, check_names
from sut.results.statistics import FEWEST_PAIRS, Difference, difference
from sut.studies.whatif.bench import Bench
from sut.studies.whatif.worlds import World
from sut.tasks.registry import find_task
from sut.text import Say

LEAST_SHARE = 0.01
"""Of the busy time: what a smaller stage could gain is less than runs can tell."""
TIME_S = 2.0
"""Of a run in the world as it is."""


@dataclass(slots=True)
class Found:
    """What the rounds came to: ``figures`` of each world, round by round."""

    worlds: list[World]
    words: list[str] = field(default_factory=list)
    figures: dict[World, list[float | None]] = field(default_factory=dict)

    def gain(self, world: World, higher_is_better: bool) -> Difference:
        """A world against the one as it is, by the rounds that have both: over 1 where it is better."""
        before, after = self.figures.get(World(), []), self.figures.get(world, [])
        pairs = min(len(before), len(after))
        return difference(before[:pairs], after[:pairs], higher_is_better=higher_is_better)


def usual_scenario(config: RunConfig, parts: Assembly) -> str:
    """Server where it has a bound that somebody set, MLPerf or the user; else SingleStream."""
    bound = benchmark_of(parts.spec.name, parts.spec.loadgen_model).server_bound_ms
    return "Server" if bound or config.max_latency_s else "SingleStream"


def stages_of(config: RunConfig, parts: Assembly) -> list[str]:
    """The stages of a sample that can be stretched, in order, as far as the classes of its parts tell them."""
    preprocessor = parts.preprocessor
    filling = {"jpeg": preprocessor.stages, "pixels": preprocessor.pixel_stages()}
    lane = lane_stages(config.device.startswith("cuda"), find_task(parts.spec.task).stages)
    return [*filling.get(config.boundary, ("preprocess",)), *(each for each in lane if each not in NOT_STRETCHED)]


def worth_asking(worlds: Sequence[World], cost_ns: Mapping[str, float]) -> tuple[list[World], list[str]]:
    """The worlds of stages that take ``LEAST_SHARE`` of the busy time at least, and a line on the others."""
    all_ns = sum(cost_ns.values())
    small = [
        stage
        for stage in dict.fromkeys(stage for world in worlds for stage, _ in world.shares)
        if cost_ns.get(stage, 0) < LEAST_SHARE * all_ns
    ]
    kept = [world for world in worlds if not {stage for stage, _ in world.shares} & {*small}]
    if not small or not kept:
        return list(worlds), []
    told = f"{', '.join(small)}: under {100 * LEAST_SHARE:g} % of the busy time, not asked; --stage {small[0]} asks"
    return kept, [told]


def chosen_stages(text: str, stages: Sequence[str]) -> list[str]:
    """The stages of a comma list, or ``all``, in the order of the pipeline. Raises ``InputError``."""
    words = [word.strip() for word in text.split(",")]
    if words == ["all"]:
        return list(stages)
    check_names(dict.fromkeys(words, 1.0), stages)
    return [stage for stage in stages if stage in words]


def check_config(configs: Sequence[RunConfig]) -> RunConfig:
    """The one run that is asked about. Raises ``InputError`` for several, and for what is no world as it is."""
    if len(configs) != 1 or configs[0].mode != "performance":
        raise InputError("sut whatif asks about one scenario in performance mode; give one --scenario")
    if configs[0].slowdown:
        raise InputError("sut whatif stretches stages by itself; leave the setting slowdown out")
    check_one_model(configs[0], "sut whatif stretches the stages of")
    if configs[0].rules:
        asked = f"--rules {configs[0].rules}"
        raise InputError(f"{asked} refuses stretched stages, and sut whatif stretches them; leave it out")
    return configs[0]


def run_rounds(
    bench: Bench, found: Found, rounds: int | None, budget_s: float, say: Say, keep: Callable[[Found], object]
) -> None:
    """Run all worlds of ``found`` ``rounds`` times, or as often as the budget allows; ``keep`` is called after each.

    Worlds that the budget does not reach in the first round are left out, the last ones. Raises what a run raises.
    """
    begin, worlds, number = time.monotonic(), found.worlds, 0
    while True:
        number += 1
        round_begin, runs = time.monotonic(), bench.runs
        order = [World(), *found.worlds]
        for at, world in enumerate(order if number % 2 else reversed(order)):
            if number == 1 and at > 1 and time.monotonic() - begin > budget_s and rounds is None:
                found.words.append(f"{len(order) - at} of {len(worlds)} were not looked at; --budget takes more")
                found.worlds = order[1:at]
                break
            found.figures.setdefault(world, []).append(bench.figure(world))
        took_s = time.monotonic() - round_begin
        keep(found)
        say(f"round {number}: {1 + len(found.worlds)} figures in {took_s:.0f} s")
        next_s = took_s * (1 + len(found.worlds)) / max(1, bench.runs - runs)  # a rate is searched for only once
        if number == rounds or (rounds is None and time.monotonic() - begin + next_s > budget_s):
            break
    if number < FEWEST_PAIRS:
        found.words.append(
            f"{number} round{'s' * (number > 1)}: an interval takes {FEWEST_PAIRS}; --budget or --rounds"
        )
