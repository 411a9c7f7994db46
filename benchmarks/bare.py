"""What is left of the backend's own speed: a run and its bare loop in turns, for each cell of YAML files.

python benchmarks/bare.py FILE... [--pairs 7] [--write-docs]

Takes the files of ``sut compare --config``, whose column ``of bare`` is one such pair. The loop is
``sut.studies.bare``'s: the same backend at the same boundary with the lanes, threads and batch that the run before it
used, for as long. Exit code: 0 measured, whatever came out; 1 wrong usage; 3 a side could not be run.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.document import Figure, Parser, Target, command_line, figures_table, publish
from benchmarks.overhead_sides import MeasurementError, measured
from sut.cli.console import BriefConsole
from sut.config import RunConfig, read_config_file
from sut.errors import ExitCode, SutError, one_line
from sut.pipeline.assembly import assemble
from sut.results.schema import Result, used
from sut.studies.bare import run_bare
from sut.studies.comparing.bench import CellBench
from sut.studies.comparing.matrix import Cell, cells_of, from_file

FEW_QUERIES = 150
"""MultiStream's least count here: LoadGen's own (662), which is for a verdict, takes a minute where a CPU is slow."""
SAMPLES_PER_QUERY = 8
_LIMIT_S = 600.0

FIGURES = {
    "Offline": ("", "samples/s", Target("ratio", "at least", 0.94)),
    "SingleStream": (" p50", "ms", Target("difference", "at most", 0.3)),
    "MultiStream": ("-8 p99", "ms", Target("ratio", "at most", 1.1)),
}
"""Per scenario: what of it, its unit, and what is asked."""


def sides(result: Result, cell: Cell) -> tuple[float, float]:
    """The figure of a run, and of the loop that does its work, which is run now."""
    config = cell.config.model_copy(update=used(result))
    parts = replace(assemble(config), config=config)
    bare = run_bare(parts, SAMPLES_PER_QUERY, result.duration_s or 1.0, f"{cell.label}, bare")
    ours, alone = {
        "Offline": (result.samples_per_second, bare.samples_per_second),
        "SingleStream": (result.latency_ns.get("p50"), bare.p50_ns),
        "MultiStream": (result.latency_ns.get("p99"), bare.p99_ns),
    }[config.scenario]
    if not ours or not alone:
        raise MeasurementError(f"{cell.label}: {ours} and {alone} are no pair")
    scale = 1.0 if config.scenario == "Offline" else 1e-6
    return ours * scale, alone * scale


def measure(path: Path, pairs: int, work: Path) -> list[Figure]:
    """Every cell of a file. Raises ``SutError`` where one is wrong, ``MeasurementError`` where one does not run."""
    content = read_config_file(path)
    axes = from_file(content.pop("matrix"), path)
    cells = cells_of(axes, RunConfig(**content | {"user_conf": work / "few.conf"}))
    bench = CellBench(work / path.stem, BriefConsole(), _say, _LIMIT_S)
    figures = []
    for cell in cells:
        if (error := bench.prepare(cell)) is not None:
            raise MeasurementError(f"{path}: {cell.label}: {one_line(error)}")
        config = cell.config
        which, unit, target = FIGURES[config.scenario]
        title = f"{config.model} {config.precision} on {config.backend} at {config.boundary}, {config.scenario}{which}"
        figures.append(Figure(title, unit, target))
        for number in range(1, pairs + 1):
            run = bench.run(cell, number)
            if run.failed:
                raise MeasurementError(f"{path}: {cell.label}: {run.reason}")
            ours, bare = sides(bench.results[cell.label], cell)
            figures[-1].ours.append(ours)
            figures[-1].bare.append(bare)
            _say(f"{title} {number} of {pairs}: {ours:.4g}, bare {bare:.4g} {unit}")
    return figures


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--pairs", type=int, default=7, help="of each cell (7)")
    parser.add_argument("--write-docs", action="store_true", help="write docs/performance.md")
    given = parser.parse_args(arguments)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bare-") as work:
        (Path(work) / "few.conf").write_text(f"*.MultiStream.min_query_count = {FEW_QUERIES}\n", encoding="utf-8")
        try:
            figures = [figure for path in given.files for figure in measure(path, given.pairs, Path(work))]
        except (SutError, MeasurementError) as error:
            _say(f"error: {one_line(error)}")
            return 1 if isinstance(error, SutError) and error.exit_code is ExitCode.USAGE else 3
    body = [measured(command_line(sys.argv), before), "", *figures_table(figures)]
    publish(body, "bare" if given.write_docs else None, "Beside the backend alone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
