"""The page: results to HTML. Everything that it says stands in the results; nothing is asked of this machine."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from sut.errors import cut_list
from sut.files import write_text
from sut.mlperf.metrics import PERCENTILES as SHARES
from sut.results.collected import Found, Skipped
from sut.results.machine import named
from sut.results.page import words
from sut.results.page.charts import batch_histogram, latency_curve
from sut.results.page.figures import Number, number
from sut.results.page.runs import Run, order, runs_of
from sut.results.page.shares import MODEL, Split, gains, slowest, splits
from sut.results.page.stage_bars import css_of, stage_bar
from sut.results.page.study import Study
from sut.results.page.tables import Column, Decision, Shown, Table, beside, figures
from sut.results.schema import setting
from sut.results.wording import agreement_lines, energy_lines, identified_lines, parity_lines, scaling_lines, verdict
from sut.text import printable_lines

MOST_DETAILS = 12
"""Results with charts of their own; the rest is in the tables."""
_MOST_ROWS = 64

_HERE = Path(__file__).parent
_SPLIT_TITLES = {
    "middle": "a typical picture (around p50)",
    "tail": "the slowest in a hundred (from p99 up)",
    "mean": "the mean",
    "work": "the work on a picture, without waiting",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A stage in a bar."""

    name: str
    css: str
    time: Number
    share: Number


@dataclass(frozen=True, slots=True)
class Bar:
    """How a picture's time splits up."""

    title: str
    total: Number
    parts: Sequence[Part]
    svg: Markup


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, and its figures."""

    svg: Markup
    table: Table


@dataclass(frozen=True, slots=True)
class Section:
    """A run with its charts."""

    run: Run
    verdict: Shown
    bars: Sequence[Bar]
    stages: Table
    latency: Chart | None
    batches: Chart | None


def make_page(
    found: Sequence[Found],
    comparisons: Sequence[Decision] = (),
    skipped: Sequence[Skipped] = (),
    studies: Sequence[Study] = (),
) -> str:
    """The HTML of a page about these results, of which there is at least one, or a comparison, or a study."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()  # no other script may run
    html = _template().render(
        script=Markup(script),
        style=Markup(style),
        script_hash=digest,
        comparisons=comparisons,
        studies=studies,
        skipped=skipped,
        words=words,
        title=_title(found, comparisons, studies),
        **_content(found, [each.best for each in comparisons]),
    )
    return printable_lines(html)  # a name may hold what turns the text around, or what no file can


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def write_page(
    path: Path,
    found: Sequence[Found],
    comparisons: Sequence[Decision] = (),
    skipped: Sequence[Skipped] = (),
    studies: Sequence[Study] = (),
) -> None:
    """Write the page so that it is there whole or not at all. Raises ``OSError``."""
    write_text(path, make_page(found, comparisons, skipped, studies))


def _content(found: Sequence[Found], best: Sequence[Path | None]) -> dict[str, Any]:
    runs = runs_of(found)
    runs.sort(key=order)
    results = [run.result for run in runs]
    lead = words.lead_of([run for run in runs if run.path in best]) or words.lead_of(runs)
    chosen = _chosen(runs)
    return {
        "runs": runs,
        "machines": list(dict.fromkeys(named(result.system) for result in results)),
        "started": sorted(result.started for result in results),
        "sentence": words.deciding(runs) if runs else (),
        "lead": lead,
        "slowest": slowest(lead.result) if lead else 0,
        "amdahl": words.amdahl(lead) if lead else (),
        "bars": [_bar(lead, split, "lead") for split in splits(lead.result)] if lead else [],
        "tables": _tables(runs),
        "has_gains": any(gains(run) for run in runs if run.is_performance),
        "warnings": words.warnings(runs) if runs else [],
        "broken": cut_list(list(dict.fromkeys(rule for result in results for rule in result.rules_broken))),
        "official": [run for run in runs if run.result.rules_compliant],
        "parity": cut_list(parity_lines(results)),
        "agreement": cut_list(agreement_lines(results)),
        "energy": cut_list([line for run in runs for line in energy_lines([run.result])]),
        "scaling": cut_list(scaling_lines(results)),
        "identified": cut_list(identified_lines(results)),
        "details": [_detail(run) for run in chosen],
        "setups": _setups(runs),
    }


def _title(found: Sequence[Found], comparisons: Sequence[Decision], studies: Sequence[Study]) -> str:
    models = list(dict.fromkeys(each.result.model for each in found))
    if models:
        return models[0] if len(models) == 1 else f"{len(models)} models"
    titles = [*(["A comparison"] if comparisons else []), *(study.title for study in studies)]
    return titles[0] if len(titles) == 1 else f"{len(titles)} studies"


def _chosen(runs: Sequence[Run]) -> list[Run]:
    """Those that get charts: of each kind the first, then of each the second, and so on; in the order of the table."""
    places: defaultdict[str, itertools.count[int]] = defaultdict(itertools.count)
    ranked = sorted((next(places[run.kind]), position) for position, run in enumerate(runs))
    return [runs[position] for position in sorted(position for _, position in ranked[:MOST_DETAILS])]


def _tables(runs: Sequence[Run]) -> list[Table]:
    """One table of all runs of one configuration; of several, one for each kind, as they have different figures."""
    if len({run.setup for run in runs}) == 1:
        names = [Shown((run.name,), (words.scenario(run.kind),)) for run in runs]
        return [_table(runs, runs[0].setup, Column("asked", names), is_sortable=False)]
    found = []
    for kind in dict.fromkeys(run.kind for run in runs):
        some = [run for run in runs if run.kind == kind]
        labels = Column("configuration", [Shown((run.label,)) for run in some])
        found.append(_table(some, f"{kind}: {words.scenario(kind)}", labels, is_sortable=len(some) > 1))
    return found


def _table(runs: Sequence[Run], caption: str, first: Column, is_sortable: bool) -> Table:
    def all_of(unit: str, *steps: str) -> list[Number | None]:
        return [run.number(unit, *steps) for run in runs]

    timed = [(splits(run.result), gains(run)) if run.is_performance else ([], None) for run in runs]
    shares = [[share for split in found if (share := split.share(MODEL))] for found, _ in timed]
    gained = [number(gain.gain_without_inference, "%") if gain else None for _, gain in timed]
    columns = [
        Column("result", [_verdict(run) for run in runs], is_numeric=False),
        Column("figure", [_figure(run) for run in runs]),
        figures("p50 ms", all_of("ms", "latency_ns", "p50")),
        figures("p99 ms", all_of("ms", "latency_ns", "p99")),
        figures("per second", all_of("", "samples_per_second")),
        figures("pictures", all_of("", "samples")),
        figures("CPU ms a picture", all_of("ms of s", "cpu_seconds_per_sample")),
        Column("model, % of p50 | p99", [beside(each) for each in shares]),
        Column("if it were free, %", [Shown(("+", each) if each else ()) for each in gained]),
    ]
    return Table(caption, first, columns, is_sortable)


def _verdict(run: Run) -> Shown:
    word = verdict(run.result.mode, run.result.valid, run.result.failed)
    return Shown((word,), badge="good" if word in ("VALID", "done") else "bad")


def _figure(run: Run) -> Shown:
    """What MLPerf compares by."""
    metric, accuracy = run.result.metric, run.result.accuracy
    if accuracy is not None:
        figure, unit = run.number("%", "accuracy", "value"), f"% {accuracy.name}"
    elif metric is not None and metric.percentile is not None:
        figure, unit = run.number("ms", "metric", "value"), f"ms {metric.percentile}"
    else:
        figure, unit = run.number("", "metric", "value"), "/s"
    return Shown((figure,), (f" {unit}",)) if figure else Shown()


def _bar(run: Run, split: Split, key: str) -> Bar:
    title = f"{run.kind}, {_SPLIT_TITLES[split.of]}"
    parts = []
    for name in split.parts:
        steps = ("cost_ns", name) if split.of == "work" else ("stages_ns", name, split.of)
        time, share = run.number("ms", *steps), split.share(name)
        if time and share and time.raw:
            parts.append(Part(name, css_of(name), time, share))
    svg = stage_bar(f"{key}-{split.of}", f"Where the time goes: {title}", split.parts)
    return Bar(_SPLIT_TITLES[split.of], Number(split.total_ns, "ms"), parts, svg)


def _detail(run: Run) -> Section:
    names = list(run.result.stages_ns)
    stages = Table(
        caption="",
        first=Column("stage", [Shown((name,), (words.STAGES.get(name, ""),)) for name in names]),
        columns=[
            figures(heading, [run.number("ms", "stages_ns", name, key) for name in names])
            for key, heading in _STAGE_COLUMNS.items()
        ],
        is_sortable=False,
    )
    if not run.is_performance:
        return Section(run, _verdict(run), [], stages, None, None)
    bars = [_bar(run, split, f"r{run.index}") for split in splits(run.result)]
    return Section(run, _verdict(run), bars, stages, _latency(run), _batches(run))


_STAGE_COLUMNS = {
    "mean": "mean", "p50": "own p50", "p99": "own p99", "middle": "around p50", "tail": "from p99 up",
}  # fmt: skip


def _latency(run: Run) -> Chart | None:
    """The distribution through the percentiles that the result has."""
    names = {"min": 0.0, **SHARES, "max": 1.0}
    numbers = {name: run.number("ms", "latency_ns", name) for name in names}
    points = [(name, each.raw / 1e6, names[name]) for name, each in numbers.items() if each]
    if len(points) < 2 or any(later[1] < earlier[1] for earlier, later in itertools.pairwise(points)):
        return None
    what = "queries" if run.result.scenario == "MultiStream" else "pictures"
    svg = latency_curve(f"r{run.index}-latency", f"{run.kind}: which share of the {what} took how long at most", points)
    rows = Column("percentile", [Shown((name.replace("_", "."),)) for name in numbers])
    return Chart(svg, Table("", rows, [figures("ms", list(numbers.values()))], is_sortable=False))


def _batches(run: Run) -> Chart | None:
    counts: dict[int, Number] = {}
    for size in run.result.batch_sizes:
        count = run.number("", "batch_sizes", size)
        if size.isascii() and size.isdigit() and len(size) < 10 and count and count.raw > 0:
            counts[int(size)] = count
    if not counts:
        return None
    raw: Mapping[int, float] = {size: count.raw for size, count in counts.items()}
    svg = batch_histogram(f"r{run.index}-batches", f"{run.kind}: how large the batches were", raw)
    sizes = sorted(counts)[:_MOST_ROWS]
    more = f", and {len(counts) - len(sizes):,} sizes more" if len(counts) > len(sizes) else ""
    rows = Column(f"pictures in a batch{more}", [Shown((f"{size:,}",)) for size in sizes])
    return Chart(svg, Table("", rows, [figures("batches", [counts[size] for size in sizes])], is_sortable=False))


def _setups(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What ran on what, once for each configuration."""
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(run.setup, run)
    return [(setup, _facts(run)) for setup, run in list(found.items())[:MOST_DETAILS]]


def _facts(run: Run) -> list[tuple[str, str]]:
    result, system, attested = run.result, run.result.system, run.result.attested
    used = {name: setting(result, name) for name in _SHOWN_SETTINGS}
    told = {
        "Model": f"{result.model}, {result.weights or 'no'} weights",
        "Model's SHA-256": result.model_sha256,
        "Backend": f"{result.backend} {result.backend_version or ''}",
        "Device": f"{result.device} {result.device_name or ''}",
        "Really executed": ", ".join(str(attested[key]) for key in ("provider", "precision") if attested.get(key)),
        "Clock": words.BOUNDARIES.get(result.boundary, result.boundary),
        "Preprocessor": f"{result.preprocess}, recipe {result.recipe.get('name', '?')}",
        "Data set": str(setting(result, "dataset_path") or setting(result, "dataset") or "demo"),
        "Settings": ", ".join(f"{name} {'auto' if value is None else value}" for name, value in used.items()),
        "Chosen": setting(result, "chosen"),
        "Machine": f"{named(system)}, memory {system.get('memory', '?')}, {system.get('platform', '')}",
        "Software": ", ".join(f"{name} {version}" for name, version in result.versions.items() if version),
    }
    return [(name, str(text).strip()) for name, text in told.items() if text]


_SHOWN_SETTINGS = ("lanes", "threads", "max_batchsize", "hint", "preprocess_workers")
