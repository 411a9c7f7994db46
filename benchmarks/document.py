"""Figures against what is asked of them, as Markdown; and the sections of docs/performance.md that benchmarks write.

python benchmarks/document.py tables|best [--write NAME] compare.json...

Prints what ``sut compare`` found: ``tables``, one for each file, or ``best``: a line for each, the first cell against
the best of the others. With --write the section NAME of docs/performance.md is that.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEST_ASKED = 0.95
"""What auto must have of the best of the others, at least."""
COLUMNS = ("figure", "ours", "bare", "comes to", "asked", "")

Of = Literal["ratio", "difference", "value"]
Bound = Literal["at least", "at most", "below", "within"]


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked of a figure: of the ``ratio`` or ``difference`` of ours and bare, or of our ``value`` alone.

    ``limit`` has the figure's unit, or none for a ratio; a ratio ``within`` it is not farther from 1. At the limit
    itself only ``below`` is not met.
    """

    of: Of
    bound: Bound
    limit: float

    def met_by(self, value: float) -> bool:
        """Whether ``value`` is on the right side of the limit."""
        return {
            "at least": value >= self.limit,
            "at most": value <= self.limit,
            "below": value < self.limit,
            "within": abs(value - 1) <= self.limit,
        }[self.bound]

    def text(self, unit: str) -> str:
        """The target in words.

        >>> Target("difference", "at most", 0.15).text("ms"), Target("ratio", "within", 0.05).text("ms")
        ('at most 0.15 ms', '1 ± 0.05')
        """
        if self.bound == "within":
            return f"1 ± {self.limit:g}"
        return f"{self.bound} {self.limit:g}" + ("" if self.of == "ratio" else f" {unit}")


@dataclass(slots=True)
class Figure:
    """One figure as measured: values of both sides in ``unit``, pair by pair. ``error`` says why there are no more."""

    title: str
    unit: str
    target: Target
    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def values(self) -> list[float]:
        """What the target is about, of each pair; none where something failed."""
        if self.error is not None:
            return []
        if self.target.of == "value":
            return self.ours
        pairs = list(zip(self.ours, self.bare, strict=True))
        return [ours / bare if self.target.of == "ratio" else ours - bare for ours, bare in pairs]

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None where it was not measured."""
        return self.target.met_by(statistics.median(self.values)) if self.values else None

    def row(self) -> tuple[str, ...]:
        """The cells under ``COLUMNS``."""
        unit = "" if self.target.of == "ratio" else f" {self.unit}"
        ours, bare = (f"{spread(side)} {self.unit}" if side else "-" for side in (self.ours, self.bare))
        verdict = {True: "met", False: "NOT MET", None: f"not measured: {self.error}"}[self.met]
        value = f"{spread(self.values)}{unit}" if self.values else "-"
        return (self.title, ours, bare, value, self.target.text(self.unit), verdict)


def short(value: float) -> str:
    """A number for a table: four significant digits, thousands with commas, never an exponent.

    >>> short(1234567.0), short(0.97126), short(248.5), short(0.00049)
    ('1,234,567', '0.9713', '248.5', '0.0005')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.4f}"


def spread(values: Sequence[float]) -> str:
    """Median and, of several values, smallest and largest; ``-`` for none.

    >>> spread([33.0, 30.9, 31.2])
    '31.2 (30.9 to 33)'
    """
    if not values:
        return "-"
    middle = short(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({short(min(values))} to {short(max(values))})"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]


def figures_table(figures: Sequence[Figure]) -> list[str]:
    """Lines of a Markdown table of figures and whether they are met."""
    return table(COLUMNS, [figure.row() for figure in figures])


def compared(told: Mapping[str, Any]) -> list[str]:
    """What ``sut compare`` wrote into compare.json: where, its sentence and a table."""
    columns = (
        "",
        "lanes, threads, batch",
        "figure",
        "against the first",
        "CPU ms a sample",
        "labels as FP32's",
        "right",
    )
    rows = []
    for row in told["rows"]:
        if row["reason"] is not None:
            rows.append([row["cell"], row["reason"], *["-"] * 5])
            continue
        labels, right, cpu = row["agreement"], row["accuracy"], row["cpu_seconds_per_sample"]
        rows.append([
            row["cell"],
            _used(row),
            _figure(row),
            _ratio(row["ratio"]),
            short(1e3 * cpu) if cpu else "-",
            f"{100 * labels['value']:.1f} %" if labels else "-",
            f"{round(right['value'] * right['count'])} of {right['count']}" if right else "-",
        ])  # fmt: skip
    return [f"{_model(told)}, {_where(told)}:", "", f"> {told['sentence']}", "", *table(columns, rows), ""]


def best(files: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of the first cell of each compare.json against the best of its others, as far as pairs tell.

    Cells that used the same settings as the first are none of the others: only noise tells them from it.
    """
    rows = []
    for told in files:
        first, *others = [row for row in told["rows"] if row["reason"] is None]
        rated = [row for row in others if row["ratio"] and row["used"] != first["used"]]
        rival = max(rated, key=lambda row: (row["ratio"]["low"] is not None, row["ratio"]["value"]))
        ratio = rival["ratio"]
        inverse = {key: ratio[other] and 1 / ratio[other] for key, other in _INVERSE.items()} | {
            "pairs": ratio["pairs"]
        }
        what = f"{first['precision']} on {first['backend']}, {first['scenario']}"
        met = "met" if inverse["value"] >= BEST_ASKED else "NOT MET"
        cells = [f"{_figure(row)} ({_used(row)})" for row in (first, rival)]
        rows.append([f"{_model(told)} {what}", *cells, _ratio(inverse), f"at least {BEST_ASKED}", met])
    columns = ("", "auto (lanes, threads, batch)", "best of the others", "auto against it", "asked", "")
    return [*table(columns, rows), "", f"Measured on {_where(files[0])}." if files else ""]


_INVERSE = {"value": "value", "low": "high", "high": "low"}


def _used(row: Mapping[str, Any]) -> str:
    return ", ".join(str(row["used"].get(key, "-")) for key in ("lanes", "threads", "max_batchsize"))


def _model(told: Mapping[str, Any]) -> str:
    return str(next(row["model"] for row in told["rows"] if row["reason"] is None))


def _where(told: Mapping[str, Any]) -> str:
    system = told["system"]
    return f"{system['cpu']}, {system['cores']} cores, {system['utc'][:10]}"


def _figure(row: Mapping[str, Any]) -> str:
    metric = row["metric"]
    if metric is None or metric["value"] is None:
        return "-"
    return f"{short(metric['value'])}/s" if metric["higher_is_better"] else f"{short(metric['value'] / 1e6)} ms"


def _ratio(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None:
        return "-"
    interval = f" ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio["low"] and ratio["high"] else ""
    return f"{ratio['value']:.2f} x{interval}, {ratio['pairs']} pairs"


def replace_section(text: str, name: str, heading: str, body: str) -> str:
    """``text`` with ``body`` between the markers of ``name``, added at the end under ``heading`` where there are none.

    Raises ``ValueError`` for markers that are not there once and in order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if begin not in text and end not in text:
        text = f"{text.rstrip()}\n\n## {heading}\n\n{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    if text.count(begin) != 1 or text.count(end) != 1 or end not in rest:
        raise ValueError(f"the document has '{begin}' and '{end}' not once each and in this order; mend it by hand")
    return f"{before}{begin}\n\n{body.strip()}\n\n{end}{rest.partition(end)[2]}"


class Parser(argparse.ArgumentParser):
    """Of a benchmark's command line, ``about`` it told as it is written; exit code 1 for wrong usage."""

    def __init__(self, about: str | None) -> None:
        super().__init__(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        super().exit(1 if status else 0, message)


def publish(body: Sequence[str], section: str | None, heading: str, document: Path = DOCUMENT) -> None:
    """Print lines, and put them into a section of a document where one is named."""
    print("\n".join(body))
    if section:
        text = document.read_text(encoding="utf-8")
        document.write_text(replace_section(text, section, heading, "\n".join(body)), encoding="utf-8")


def command_line(arguments: Sequence[str]) -> str:
    """How a benchmark was called.

    >>> command_line(["/somewhere/benchmarks/bare.py", "--pairs", "3", "--write-docs"])
    'python benchmarks/bare.py --pairs 3 --write-docs'
    """
    return shlex.join(["python", f"benchmarks/{Path(arguments[0]).name}", *arguments[1:]])


def main() -> None:
    """Print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("tables", "best"))
    parser.add_argument("files", type=Path, nargs="+", metavar="compare.json")
    parser.add_argument("--write", metavar="NAME", help="section of docs/performance.md")
    given = parser.parse_args()
    found = [json.loads(path.read_text(encoding="utf-8")) for path in given.files]
    body = best(found) if given.kind == "best" else [line for told in found for line in compared(told)]
    publish(body, given.write, str(given.write).capitalize())


if __name__ == "__main__":
    main()
