"""Has a model in lower precision and its FP32 form answer to the same pictures, and keeps what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plugins.files import SMALL_BYTES, read_file
from preprocess.base import Geometry, Recipe
from sut.datasets.base import DataSet
from sut.errors import InputError, reason_of
from sut.files import cached
from sut.models.content import content_digest
from sut.models.precision.calibration import Picture, random_crops, read_picture, with_geometries
from sut.tasks.agreement import Agreement, LabelTally, Tally
from sut.text import Progress, Say

NOT_COMPARED = "are not compared with fp32"
"""What of a result is not: ``the labels`` or ``the boxes`` stands in front of it, the reason behind."""

COMPARISON = 2
"""To be raised with every change of the crops, of how answers are compared or of what is kept: it is part of the cache
key."""

_SEED = 20_200_714
_BATCH = 20

Scores = Callable[[NDArray[Any], Sequence[Geometry]], NDArray[Any]]
"""Runs a model on samples (n, *recipe.sample_shape), and tells of each what its task judges: ``Task.judged``."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models: what runs, and how. ``scores`` is called only where the answer is not kept yet."""

    model: Path
    recipe: Recipe
    backend: str
    version: str
    """Of the backend's runtime."""
    precision: str
    """As executed: ``fp32``, ``bf16``, ``int8``."""
    scores: Scores
    outputs: tuple[str, ...] | None = None
    """Those among which the one that answers was chosen; None for all of them."""
    task_options: Mapping[str, Any] = field(default_factory=dict)
    """What else its task was told of reading the outputs."""

    def facts(self) -> dict[str, Any]:
        """What the labels depend on."""
        return {
            "model": content_digest(self.model),
            "recipe": asdict(self.recipe),
            "backend": [self.backend, self.version, self.precision],
            **({"outputs": self.outputs} if self.outputs else {}),
            **({"task options": dict(self.task_options)} if self.task_options else {}),
        }


def measure(
    reference: Side,
    reduced: Side,
    dataset: DataSet,
    progress: Progress,
    *,
    crops: int,
    seed: int = _SEED,
    say: Say = lambda text: None,
    tally: type[Tally] = LabelTally,
) -> Agreement:
    """Compare two models on crops of a data set's pictures, drawn at random from ``seed``: the same ones each time.

    For a ``tally`` of whole pictures it is ``crops`` of these at the most, spread over the data set.

    The answer is kept by the content of both files and of the pictures, how they were run, and the crops' number and
    seed; ``say`` is told where a kept one was damaged. Raises ``InputError`` for a picture that does not do, and as
    ``tally`` and ``cached`` do.
    """
    indices = range(dataset.count)
    if not indices or crops < 1:
        raise InputError(f"{crops} crops of {dataset.count} pictures to compare on, expected one or more of both")
    if dataset.count > crops:
        indices = range(0, dataset.count, -(-dataset.count // crops))
    pictures = hashlib.sha256()
    try:
        for index in indices:
            pictures.update(hashlib.sha256(dataset.read(index)).digest())
    except OSError as error:
        raise InputError(f"{error.filename}, which is to compare on: {reason_of(error)}") from error
    key = {
        "comparison": COMPARISON,
        "reference": reference.facts(),
        "reduced": reduced.facts(),
        "crops": [crops, seed, pictures.hexdigest()],
        **({"of whole pictures": tally.result.kind} if tally.whole else {}),
    }

    def make(path: Path) -> None:
        decoded = (read_picture(dataset, index, "compare on") for index in indices)
        source = f"{len(indices):,} picture{'s' * (len(indices) > 1)}"
        samples: Iterable[Picture]
        if tally.whole:
            samples, count = decoded, len(indices)
        else:
            samples, count = random_crops(decoded, len(indices), crops, seed), crops
            source = f"{crops:,} crops of {source}"
        found = agree(reference, reduced, samples, count, progress, source, tally)
        path.write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")

    name = f"{reduced.model.stem}-{reduced.backend}-{reduced.precision}-agreement.json"
    path = cached(name, json.dumps(key, sort_keys=True), make, say, quietly=True)
    return tally.result(**json.loads(read_file(path, SMALL_BYTES)))


def agree(
    reference: Side,
    reduced: Side,
    samples: Iterable[Picture],
    count: int,
    progress: Progress,
    source: str,
    tally: type[Tally] = LabelTally,
) -> Agreement:
    """Compare two models on ``count`` pictures, which ``source`` names, here and now. Raises as ``tally`` does."""
    found = tally()
    left = iter(samples)
    done = 0
    while batch := list(islice(left, _BATCH)):
        same = reference.recipe == reduced.recipe
        tensors = with_geometries(batch, len(batch), reference.recipe)
        others = tensors if same else with_geometries(batch, len(batch), reduced.recipe)
        # A copy: a runner's outputs last until its next call.
        found.add(np.array(reference.scores(*tensors)), np.asarray(reduced.scores(*others)))
        done += len(batch)
        progress(done, count)
    return found.agreement(source)


def reduced_name(precision: str, fold: bool) -> str:
    """What a model in a reduced precision is called where its labels are compared."""
    return f"{precision}, folded," if fold else precision


def second_unknown(identify: str | None, precision: str) -> str | None:
    """What is said of a second model in a reduced precision, whose labels nobody compares; None for any other."""
    if identify is None or precision == "fp32":
        return None
    return f"{precision} of the second model: its labels against fp32's are not known"
