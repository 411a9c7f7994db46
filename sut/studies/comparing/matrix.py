"""What is compared: every combination of the values of some settings, each a cell with a config of its own."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sut.config import HOW_KEPT, RunConfig, model_stem
from sut.errors import InputError
from sut.studies.tuning.space import with_settings
from sut.text import printable, shortened

AXES = ("model", "backend", "precision", "preprocess", "boundary", "scenario")
"""Settings whose option takes a comma list; in a cell's name their values stand alone."""
APART = ("model", "boundary", "scenario")
"""Where these differ, cells do not do the same work, so that none can take the place of another."""
MOST_CELLS = 10_000
"""More are not even listed."""

WORDS = {"preprocess": "with ", "boundary": "at ", "scenario": "in "}
"""What stands before their values in a cell's name."""
NOT_COMPARED = HOW_KEPT | {"cache_dir"}
"""Settings that do not change what is run."""
OTHER_WORK = frozenset(
    {"samples_per_query", "qps", "time_s", "max_latency_s", "relax_server", "user_conf", "mlperf_conf", "audit_conf"}
    | {"dataset", "dataset_path", "dataset_list", "count", "performance_sample_count", "weights"}
)
"""What is asked, of which pictures and under which bound. Cells that differ in it are no alternatives."""

Axes = dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One way to run a model. ``settings`` are those that the matrix names, ``label`` tells it from the others."""

    label: str
    settings: Mapping[str, Any]
    config: RunConfig

    @property
    def group(self) -> tuple[str, ...]:
        """The same for cells that do the same work, and so can be chosen between."""
        return tuple(getattr(self.config, key) for key in APART)


def split_list(text: str) -> list[str]:
    """The words of a comma list, each once.

    >>> split_list("opencv, fused,opencv")
    ['opencv', 'fused']
    """
    return list(dict.fromkeys(word.strip() for word in text.split(",")))


def from_file(content: Any, path: Path | None) -> Axes:
    """The lists under ``matrix`` of a YAML file. Raises ``InputError`` where they are not lists of plain values."""
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: matrix is {content!r}, expected lines 'setting: [value, value]'")
    axes: Axes = {}
    for key, values in content.items():
        values = values if isinstance(values, list) else [values]
        if not values or any(isinstance(value, (list, dict)) for value in values):
            raise InputError(f"{path}: matrix: {key} is {values!r}, expected a list of plain values")
        axes[str(key)] = values
    return axes


def count_of(axes: Mapping[str, Sequence[Any]]) -> int:
    """How many cells there are."""
    return math.prod(len(dict.fromkeys(values)) for values in axes.values())


def cells_of(axes: Mapping[str, Sequence[Any]], base: RunConfig) -> list[Cell]:
    """Every combination, the last axis changing fastest.

    Raises ``InputError`` for an unknown setting, a value that it cannot have, a setting by which ways to do the same
    work do not differ, and more cells than ``MOST_CELLS``.
    """
    for key, values in axes.items():
        if key.partition(".")[0] in NOT_COMPARED:
            raise InputError(f"'{key}' is nothing to compare by: it does not change what is run")
        if wrong := [value for value in values if not isinstance(value, Hashable)]:
            raise InputError(
                f"{key} is {shortened(repr(wrong[0]))}, expected a plain value; an entry of a mapping is an axis of "
                "its own, such as backend_options.streams=1,2"
            )
        if key in OTHER_WORK and len(values) > 1:
            raise InputError(
                f"'{key}' is nothing to compare by: it changes what is asked, so that its cells do not do the same "
                "work; give it one value, and make a comparison for each"
            )
    if (count := count_of(axes)) > MOST_CELLS:
        raise InputError(f"a matrix of {count:,} cells, at most {MOST_CELLS:,} are taken; name fewer values")
    unique = {key: list(dict.fromkeys(values)) for key, values in axes.items()}
    told = [key for key, values in unique.items() if len(values) > 1] or ["backend", "precision", "preprocess"]
    found = []
    for values in itertools.product(*unique.values()):
        settings = dict(zip(unique, values, strict=True))
        config = with_settings(base, settings)
        found.append(Cell(label_of(config, told, settings), settings, config))
    _check(found, unique)
    return found


def _check(cells: Sequence[Cell], axes: Axes) -> None:
    if len(axes.get("preprocess", ())) > 1 and not any(cell.config.times_preprocessing for cell in cells):
        raise InputError(
            f"preprocessors are compared where they are timed, got the boundary {cells[0].config.boundary}; "
            "use --boundary jpeg or pixels"
        )
    often = Counter(cell.label for cell in cells)
    if twice := [label for label, times in often.items() if times > 1]:
        raise InputError(f"two cells would both be called '{twice[0]}'; give files of different names")


def label_of(config: RunConfig, told: Sequence[str], settings: Mapping[str, Any]) -> str:
    """A cell's name by the settings that are ``told``.

    >>> config = RunConfig(backend="openvino", precision="int8", preprocess="fused")
    >>> label_of(config, ["precision", "backend", "preprocess", "lanes"], {"lanes": 2})
    'openvino int8 with fused, lanes=2'
    """
    words: list[str] = []
    for key in AXES:
        if key in told:
            value = str(getattr(config, key))
            before = WORDS.get(key, "") if words else ""
            words.append(before + (model_stem(value) if key == "model" else value))
    others = [f"{key.rpartition('.')[2]}={_text(settings[key])}" for key in told if key not in AXES]
    return printable(", ".join([*([" ".join(words)] if words else []), *others]))


def group_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The ``group`` of the cell that a row of compare.json is of."""
    return tuple(row[key] for key in APART)


def within(group: tuple[str, ...], text: str) -> str:
    """``text`` about cells of one group, without what they have in common anyway.

    >>> within(("lite0", "jpeg", "Offline"), "use openvino at jpeg in Offline")
    'use openvino'
    """
    for key, value in zip(APART, group, strict=True):
        text = text.replace(f" {WORDS[key]}{value}", "") if key in WORDS else text
    return text


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)
