"""Results as a page shows them: each with a label that tells it from the others, in the order in which they stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sut.config import SCENARIOS
from sut.results.collected import Found
from sut.results.page.figures import Number, finite, number
from sut.results.rows import Row, differing
from sut.results.schema import Result, setting
from sut.results.wording import kind

_NO_SETUP = ("scenario", "mode", "time_s")
"""In what the runs of one configuration may differ."""
_ALWAYS = ("backend", "device", "precision")
"""What a label says where nothing differs."""
_UNSAID = ("", "-", "no")
"""Settings that are neither set nor on."""


@dataclass(frozen=True, slots=True)
class Run:
    """One result, the page's number ``index``.

    ``setup`` names its configuration, ``label`` what tells it from the others of its kind, if anything does.
    """

    index: int
    path: Path
    result: Result
    setup: str = ""
    label: str = ""

    @property
    def row(self) -> Row:
        """The result as ``sut show`` has it."""
        return Row.of(Found(self.path, self.result))

    @property
    def is_performance(self) -> bool:
        """Whether it is a measurement of speed, as opposed to accuracy and LoadGen's search."""
        return self.result.mode == "performance"

    @property
    def kind(self) -> str:
        """Scenario or mode: results of one kind have the same figure."""
        return kind(self.result)

    @property
    def name(self) -> str:
        """What the run is called where others may stand beside it."""
        return f"{self.kind}, {self.label}" if self.label else self.kind

    def number(self, unit: str, *steps: str) -> Number | None:
        """The figure that stands in the result under ``steps``, to be shown in ``unit``; None where there is none."""
        value: object = self.result
        for step in steps:
            value = value.get(step) if isinstance(value, Mapping) else getattr(value, step, None)
        return number(value, unit, f"{self.index}:{'.'.join(steps)}")

    def whole(self, name: str, default: int) -> int:
        """A setting, as it was really used where that is known, that is a whole number of at least 0."""
        found = finite(setting(self.result, name))
        return default if found is None or found < 0 else int(found)


def runs_of(found: Sequence[Found]) -> list[Run]:
    """The results in order, with their labels."""
    runs = [Run(index, each.path, each.result) for index, each in enumerate(found)]
    setups = _setups(runs)
    often = Counter(zip(setups, (run.kind for run in runs), strict=True))
    labelled = []
    for run, setup in zip(runs, setups, strict=True):
        words = [setup] if len(set(setups)) > 1 else []
        words += [run.result.started] if often[setup, run.kind] > 1 else []
        labelled.append(replace(run, setup=setup, label=" · ".join(words)))
    return labelled


def _setups(runs: Sequence[Run]) -> list[str]:
    """What tells each run's configuration from the others', as it was asked for."""
    asked = [replace(run.row, facts={**run.row.facts, "plan": None}) for run in runs]
    differ = {name: texts for name, texts in differing(asked)[0].items() if name not in _NO_SETUP} if asked else {}
    if not differ:
        return [" · ".join(str(getattr(run.result, name)) for name in _ALWAYS) for run in runs]
    told = [[_said(name, texts[i]) for name, texts in differ.items()] for i in range(len(runs))]
    return [" · ".join(filter(None, words)) or "nothing set" for words in told]


def _said(name: str, text: str) -> str:
    if name in Result.model_fields:  # such as the backend, whose name says enough
        words = {"weights": f"{text} weights", "model_sha256": f"file {text[:8]}"}
        return words.get(name, text)
    return "" if text in _UNSAID else f"{name} {text}"


def order(run: Run) -> tuple[int, bool, float, str]:
    """Sorts results: by kind, then those that count before those that do not, then the best figure first."""
    kinds = (*SCENARIOS, "peak search", "accuracy")
    metric = run.result.metric
    value = finite(metric.value) if metric else None
    best_first = float("inf") if metric is None or value is None else -value if metric.higher_is_better else value
    place = kinds.index(run.kind) if run.kind in kinds else len(kinds)
    return place, run.result.valid is False, best_first, run.label
