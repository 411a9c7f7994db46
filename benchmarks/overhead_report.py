"""Figures, verdicts and tables of ``overhead.py``: pure functions, no measuring."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

BEGIN = "<!-- overhead:begin (written by benchmarks/overhead.py, not by hand) -->"
END = "<!-- overhead:end -->"

INTRODUCTION = f"""# Performance

What this system costs on top of what it drives: the same work done through `sut run` and done bare, side by side.

**How it is measured.** Every figure has two sides, measured in turn (ours, bare, ours, bare, ...) by one call of
`benchmarks/overhead.py`, each time in a fresh process that is warmed before the clock starts. Our side is always the
product as users run it, `python -m sut run`, read from its `result.json` and LoadGen's log. The bare side is a loop of
its own over a plain ONNX Runtime session (same model file, threads, batch, prepared inputs and number of batches), or
LoadGen with a callback that only answers. The tables show medians, and the smallest and largest value in brackets.

**How to read it.** Compare the two sides of a row. Do not compare absolute times with those of another machine, and
not with another run of this one: the load averages say how quiet it was. A spread wider than the distance to the
target means that the verdict is not worth much; repeat it on a quieter machine.

**How to repeat it.** `python benchmarks/overhead.py --repeat 5 --seconds 10 --write-docs` measures all of it and
rewrites what is below; `--only NAME,...` picks figures, `--output FILE` keeps every single value as JSON. No test
depends on these times.

{BEGIN}
{END}
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked of a figure: ``ratio`` or ``difference`` of ours and bare, or our ``value`` alone.

    ``limit`` has the figure's unit, or none for a ratio. At the limit itself only ``below`` is not met.
    """

    of: Literal["ratio", "difference", "value"]
    bound: Literal["at least", "at most", "below"]
    limit: float

    def met_by(self, value: float) -> bool:
        """Whether ``value`` is on the right side of the limit."""
        if self.bound == "at least":
            return value >= self.limit
        return value <= self.limit if self.bound == "at most" else value < self.limit

    def text(self, unit: str) -> str:
        """The target in words: ``ratio at least 0.97``, ``below 2 ms``."""
        if self.of == "value":
            return f"{self.bound} {self.limit:g} {unit}"
        return f"{self.of} {self.bound} {self.limit:g}" + (f" {unit}" if self.of == "difference" else "")


@dataclass(slots=True)
class Figure:
    """One figure as measured: all values of both sides in ``unit``. ``error`` says why there are none or fewer."""

    name: str
    title: str
    unit: str
    target: Target
    how: str
    ours: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    details: list[Mapping[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def value(self) -> float | None:
        """What the target is about, from the medians; None where something was not measured."""
        if self.error is not None or not self.ours or (not self.bare and self.target.of != "value"):
            return None
        ours = statistics.median(self.ours)
        if self.target.of == "value":
            return ours
        bare = statistics.median(self.bare)
        return ratio(ours, bare) if self.target.of == "ratio" else ours - bare

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where it was not measured."""
        return None if self.value is None else self.target.met_by(self.value)

    def row(self) -> tuple[str, str, str, str, str, str]:
        """Title, ours, bare, what it comes to, target, verdict: the cells of a table."""
        unit = "" if self.target.of == "ratio" else f" {self.unit}"
        value = "-" if self.value is None else f"{short(self.value)}{unit}"
        ours, bare = (spread(side) + (f" {self.unit}" if side else "") for side in (self.ours, self.bare))
        verdict = {True: "met", False: "NOT MET", None: "not measured"}[self.met]
        return (self.title, ours, bare, value, self.target.text(self.unit), verdict)

    def as_json(self) -> dict[str, Any]:
        """Everything that is known of the figure."""
        return {
            "name": self.name,
            "title": self.title,
            "unit": self.unit,
            "how": self.how,
            "ours": self.ours,
            "bare": self.bare,
            "ours_median": statistics.median(self.ours) if self.ours else None,
            "bare_median": statistics.median(self.bare) if self.bare else None,
            "value": self.value,
            "target": self.target.text(self.unit),
            "met": self.met,
            "error": self.error,
            "details": self.details,
        }


COLUMNS = ("figure", "ours", "bare", "comes to", "target", "verdict")


def ratio(ours: float, bare: float) -> float:
    """``ours / bare``. Raises ``ValueError`` for a bare side that is not positive: nothing can be said then."""
    if bare <= 0:
        raise ValueError(f"the bare side is {bare:g}, expected a positive figure to divide by")
    return ours / bare


def short(value: float) -> str:
    """A number for a table: four significant digits, thousands with commas, never an exponent.

    >>> short(1234567.0), short(0.97126), short(248.5), short(12.0)
    ('1,234,567', '0.9713', '248.5', '12')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.4f}"


def spread(values: Sequence[float]) -> str:
    """Median and, of several values, smallest and largest: ``31.2 (30.9-33.0)``; ``-`` for none."""
    if not values:
        return "-"
    middle = short(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({short(min(values))} to {short(max(values))})"


def markdown(figures: Sequence[Figure], facts: Mapping[str, Any], settings: str) -> str:
    """The section between the markers: machine, table, and how each figure came about."""
    lines = [f"Measured {facts['utc']} with `{settings}`.", ""]
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items() if name != "utc"]
    lines += ["", "| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in figure.row()) + " |" for figure in figures]
    lines += [""]
    for figure in figures:
        failed = f" Not measured: {figure.error}." if figure.error else ""
        lines.append(f"- **{figure.title}** (`{figure.name}`): {figure.how}{failed}")
    return "\n".join(lines)


def replace_section(text: str, body: str) -> str:
    """``text`` with what stands between the markers replaced by ``body``; all else is kept to the letter.

    Raises ``ValueError`` unless both markers are there once and in order.
    """
    if (begins := text.count(BEGIN)) != 1 or (ends := text.count(END)) != 1:
        found = f"{begins} times '{BEGIN}'" if begins != 1 else f"{ends} times '{END}'"
        raise ValueError(f"the document has {found}, expected each marker once")
    before, _, rest = text.partition(BEGIN)
    if END not in rest:
        raise ValueError(f"the document has '{END}' before '{BEGIN}'; swap them")
    return f"{before}{BEGIN}\n\n{body.strip()}\n\n{END}{rest.partition(END)[2]}"
