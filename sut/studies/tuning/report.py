"""What a tune leaves: a picture of the search, rows for ``--json``, a YAML file for ``--config``."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from plugins.packages import CHECKOUT
from sut.config import HOW_KEPT, RunConfig
from sut.results.machine import named, system_facts
from sut.results.wording import milliseconds, verdict
from sut.studies.tuning.bench import figure_words
from sut.studies.tuning.search import ranked
from sut.studies.tuning.space import Point
from sut.studies.tuning.state import Measured
from sut.studies.tuning.tuner import TuneOutcome

_SHOWN = 24
_BAR = 18
_NOT_WRITTEN = HOW_KEPT | {"time_s"}


def picture(outcome: TuneOutcome) -> RenderableType:
    """Every point as far as it came, best first, and every rate that was probed, each with a bar."""
    parts: list[RenderableType] = []
    if outcome.search.rounds:
        parts.append(_points(outcome.search.rounds))
    if outcome.probes:
        parts.append(_rates(outcome))
    if outcome.pairs:
        parts.append(_pairs(outcome))
    return Group(*(each for part in parts for each in (part, Text())))


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        side: Literal["left", "right"] = "left" if heading in ("settings", "result", "") else "right"
        table.add_column(heading, justify=side, no_wrap=heading != "settings", overflow="fold")
    return table


def _points(rounds: Sequence[Sequence[Measured]]) -> Table:
    """The last run of each point; the bar is how good it was against the best of its round."""
    table = _table("settings", "round", "result", "figure", "")
    last: dict[Point, tuple[int, Measured]] = {}
    for number, rows in enumerate(rounds, 1):
        last |= {row.point: (number, row) for row in rows}
    shown = 0
    for number in range(len(rounds), 0, -1):
        rows = rounds[number - 1]
        order = ranked(rows)
        for row in (*order, *(each for each in rows if each.figure is None)):
            if last[row.point] != (number, row):
                continue
            if (shown := shown + 1) <= _SHOWN:
                share = (row.better_than(order[0].figure or 0.0) or 0.0) if row in order else 0.0
                came_to = verdict("performance", row.valid, row.failed)
                table.add_row(row.point.label, str(number), came_to, figure_words(row), _bar(share))
    if shown > _SHOWN:
        table.add_row(f"and {shown - _SHOWN} more; --json lists them all")
    return table


def _rates(outcome: TuneOutcome) -> Table:
    """Each rate asked; the bar is p99 against the latency bound, full at twice the bound."""
    table = _table("queries/s", "VALID", "p99 ms", "0 .. bound .. 2 x")
    asked: dict[float, list[Measured]] = {}
    for row in (*outcome.probes, *outcome.confirmations):
        asked.setdefault(row.qps or 0.0, []).append(row)
    for rate, rows in sorted(asked.items()):
        p99 = max((row.p99_ns for row in rows if row.p99_ns is not None), default=None)
        bound = next((row.bound_ns for row in rows if row.bound_ns), None)
        share = p99 / bound / 2 if p99 is not None and bound else 0.0
        told = f"{rate:g}" + (" *" if rate == outcome.rate else "  ")
        valid = f"{sum(row.valid for row in rows)} of {len(rows)}"
        table.add_row(told, valid, milliseconds(p99), _bar(share))
    return table


def _pairs(outcome: TuneOutcome) -> Table:
    table = _table("pair", "best", "default", "ratio")
    for number, (best, default) in enumerate(outcome.pairs, 1):
        ratio = best.better_than(default.figure or 0.0)
        cells = [figure_words(row) + ("" if row.valid else " INVALID") for row in (best, default)]
        table.add_row(str(number), *cells, "-" if ratio is None else f"{ratio:.3f}")
    return table


def _bar(share: float) -> Bar:
    return Bar(size=1.0, begin=0.0, end=min(1.0, share), width=_BAR)


def svg(outcome: TuneOutcome, title: str) -> str:
    """The picture as a terminal of 100 columns shows it: an SVG file's text, which loads nothing from elsewhere."""
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False)
    for part in (picture(outcome), *map(Text, outcome.words)):
        console.print(part)
    return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)


def outcome_of(outcome: TuneOutcome, config: RunConfig | None) -> dict[str, Any]:
    """The verdict, for ``--json``."""
    return {
        "best": dict(outcome.best.settings) if outcome.best is not None else None,
        "chosen": dict(outcome.chosen.settings) if outcome.chosen is not None else None,
        "gain": asdict(outcome.gain) if outcome.gain else None,
        "is_gain": outcome.gain is not None and outcome.gain.verdict == "better",
        "cost": asdict(outcome.cost) if outcome.cost else None,
        "queries_per_second": outcome.rate,
        "words": outcome.words,
        "config": what_is_set(config) if config is not None else None,
    }


def what_is_set(config: RunConfig) -> dict[str, Any]:
    """The scenario, and what of a config differs from the defaults, with whole paths, as ``--config`` takes it."""
    shipped = CHECKOUT / "user.conf"
    found = {"scenario": config.scenario, **config.model_dump(mode="json", exclude_defaults=True)}
    for name in found:
        if isinstance(path := getattr(config, name), Path):
            found[name] = str(path.expanduser().resolve())
    if config.user_conf is not None and config.user_conf.resolve() == shipped.resolve():
        del found["user_conf"]
    for name in ("model", "recipe"):
        if name not in found:
            continue
        path = Path(found[name]).expanduser()
        if path.is_file() or ("/" in found[name] and path.is_dir()):
            found[name] = str(path.resolve())
    return {name: value for name, value in found.items() if name not in _NOT_WRITTEN}


def yaml_text(config: RunConfig, outcome: TuneOutcome, rows: Sequence[Measured]) -> str:
    """The file for ``--config``: the settings, under comments that say where they come from."""
    comments = [
        f"Found by sut tune, {max(row.started for row in rows)}, {len(rows)} runs.",
        f"Machine: {named(system_facts())}; on another one tune again.",
        *(word[0].upper() + word[1:] for word in outcome.words),
        "Run it: ./run_local.sh --config THIS_FILE; without --time MLPerf's own durations apply.",
    ]
    head = "".join(f"# {' '.join(line.split())}\n" for line in comments)
    return head + yaml.safe_dump(what_is_set(config), sort_keys=False, allow_unicode=True)
