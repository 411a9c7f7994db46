"""Is what ``sut whatif`` predicts what comes? The gain from the preprocessor opencv to fused, foretold and measured.

python benchmarks/whatif.py [--repeats 10] [--rounds 6] [--scenario Offline] [--time 2] [--pictures NAME]
                            [--set KEY=VALUE] [--write SECTION]

Foretold from runs of opencv alone, in which decode, resize and normalize take the share of their time that fused's own
stage times imply, and all else is stretched; measured by runs of fused. A round is a run of opencv, of fused and of
that world, in turns; a repeat is so many rounds, and right where the measured gain lies in the foretold interval.
Nine of ten are asked for. Exit code: 0 measured, whatever came out; 1 wrong usage; 3 a run failed.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.document import Figure, Parser, Target, command_line, figures_table, publish, table
from benchmarks.overhead_sides import measured
from sut.cli.console import BriefConsole
from sut.config import RunConfig, make_config
from sut.config.words import assign, parse_assignment
from sut.errors import ExitCode, SutError, one_line
from sut.results.statistics import FEWEST_PAIRS, Difference, difference
from sut.studies.generated import SETS, generated_pictures
from sut.studies.whatif.bench import Bench
from sut.studies.whatif.worlds import World

ASKED = Target("value", "at least", 90)
COLUMNS = ("repeat", "decode takes", "resize, normalize take", "foretold", "measured", "")
_BEHIND_DECODING = ("resize", "normalize")
"""What fused does in its one stage ``preprocess``."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """A gain as it was foretold and measured, and the world it was foretold from."""

    world: World
    foretold: Difference
    measured: Difference

    @property
    def is_right(self) -> bool:
        """Whether the measured gain lies in the foretold interval."""
        low, high, value = self.foretold.low, self.foretold.high, self.measured.ratio
        return low is not None and high is not None and value is not None and low <= value <= high

    def row(self, number: int) -> list[str]:
        """The cells under ``COLUMNS``."""
        shares = dict(self.world.shares)
        told = [f"{100 * shares[stage]:.0f} %" for stage in ("decode", "resize")]
        foretold = _words(self.foretold)
        return [str(number), *told, foretold, _words(self.measured), "in it" if self.is_right else "NOT IN IT"]


def _words(found: Difference) -> str:
    if found.ratio is None:
        return "-"
    ends = f" ({found.low:.3f} to {found.high:.3f})" if found.low is not None else ""
    return f"{found.ratio:.3f} x{ends}"


def world_of(opencv: Sequence[Mapping[str, int]], fused: Sequence[Mapping[str, int]]) -> World:
    """The world in which opencv's stages take what fused's do, by the busy times of both, median over runs."""
    before, after = (
        {stage: statistics.median(each[stage] for each in runs) for stage in runs[0]} for runs in (opencv, fused)
    )
    behind = after["preprocess"] / sum(before[stage] for stage in _BEHIND_DECODING)
    return World((("decode", after["decode"] / before["decode"]), *((stage, behind) for stage in _BEHIND_DECODING)))


def repeat(base: RunConfig, rounds: int, work: Path, number: int) -> Repeat:
    """One repeat. Raises ``SutError`` for a run that fails."""
    console = BriefConsole()
    opencv = Bench(base.model_copy(update={"preprocess": "opencv"}), work / "opencv", console)
    opencv.look()
    fused = Bench(opencv.base.model_copy(update={"preprocess": "fused"}), work / "fused", console)
    fused.look()
    figures: dict[str, list[float | None]] = {"opencv": [], "fused": [], "world": []}
    for at in range(rounds):
        for name, bench in (("opencv", opencv), ("fused", fused)) if at % 2 else (("fused", fused), ("opencv", opencv)):
            figures[name].append(bench.figure(World()))
        world = world_of(*([each.cost_ns for each in bench.results] for bench in (opencv, fused)))
        figures["world"].append(opencv.figure(world))
        _say(f"repeat {number}, round {at + 1} of {rounds}: { ({name: each[-1] for name, each in figures.items()}) }")
    foretold, came = (
        difference(figures["opencv"], figures[side], higher_is_better=opencv.higher_is_better)
        for side in ("world", "fused")
    )
    return Repeat(world, foretold, came)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _settings(words: Sequence[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for word in words:
        assign(settings, *parse_assignment(word))
    return settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--repeats", type=int, default=10, help="how often (10)")
    parser.add_argument("--rounds", type=int, default=6, help=f"of a repeat (6); an interval takes {FEWEST_PAIRS}")
    parser.add_argument("--scenario", default="Offline", choices=("SingleStream", "MultiStream", "Offline"))
    parser.add_argument("--time", type=float, default=2.0, help="seconds of a run (2)")
    parser.add_argument("--pictures", choices=SETS, help="a generated set instead of the demo's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any setting of a YAML file")
    parser.add_argument("--write", metavar="SECTION", help="of docs/performance.md, such as whatif")
    given = parser.parse_args(arguments)
    before = os.getloadavg()[0]
    repeats = []
    with tempfile.TemporaryDirectory(prefix="whatif-") as work:
        try:
            pictures = generated_pictures(given.pictures, _say) if given.pictures else {"dataset": "demo"}
            settings = {"boundary": "jpeg", **pictures, **_settings(given.set)}
            base = make_config({**settings, "scenario": given.scenario, "time_s": given.time})
            for number in range(1, given.repeats + 1):
                repeats.append(repeat(base, given.rounds, Path(work) / str(number), number))
        except SutError as error:
            _say(f"error: {one_line(error)}")
            return 1 if error.exit_code is ExitCode.USAGE else 3
    share = 100 * sum(each.is_right for each in repeats) / len(repeats)
    what = f"{base.model} on {base.backend}, {base.scenario}, {given.pictures or 'demo'} pictures"
    title = f"{what}: foretold interval holds the measured gain of fused"
    figure = Figure(title, "% of the repeats", ASKED, ours=[share])
    rows = [each.row(number) for number, each in enumerate(repeats, 1)]
    body = [measured(command_line(sys.argv), before), "", *figures_table([figure]), "", *table(COLUMNS, rows)]
    publish(body, given.write, "What a faster stage would gain")
    return 0


if __name__ == "__main__":
    sys.exit(main())
