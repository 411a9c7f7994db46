"""What ``sut parity`` finds: preprocessors against the oracle, and whether a classifier sees the difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import ModelFile
from backends.registry import load
from plugins.errors import DeviceNotFound
from plugins.files import utf8_path
from preprocess import registry
from preprocess.base import Preprocessor, Recipe
from sut.errors import InputError, SetupError, one_line
from sut.models.registry import find
from sut.process.cgroup import usable_cores
from sut.process.streams import tell
from sut.results.parity import Levels, compare, crops, noise, oracle_levels, photos, preprocessed_levels, sizes
from sut.results.schema import Parity
from sut.tasks.registry import find_task

JUDGE = "efficientnet-lite0"
"""The model that labels the crops, whichever model's recipe is measured."""
_NOISE, _SIZES = 4, 22
_BATCH = 8


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One preprocessor on one set of pictures. ``labels_same`` of its pictures got the oracle's label."""

    preprocess: str
    version: str
    pictures: str
    parity: Parity
    labels_same: int | None = None

    def as_json(self, recipe: Recipe) -> dict[str, Any]:
        """The row as ``--json`` prints it; ``parity`` has the fields of result.json."""
        return {
            "preprocess": self.preprocess,
            "preprocess_version": self.version,
            "recipe": recipe.name,
            "pictures": self.pictures,
            "parity": self.parity.model_dump(),
            "within_1_level": self.parity.within_1_level,
            "labels_same": self.labels_same,
            "labels": None if self.labels_same is None else self.parity.pictures,
        }


def preprocessors_of(names: str | None) -> list[type[Preprocessor]]:
    """The classes that are named; without names all that are installed, and the others are told.

    Raises ``InputError`` for an unknown name, ``ModuleNotFoundError`` for a named one that is not installed.
    """
    found = []
    for name in names.split(",") if names is not None else registry.names():
        try:
            loaded = registry.load(name.strip())
            if loaded.computes_pixels or names is not None:
                found.append(loaded)
        except ValueError as error:
            raise InputError(one_line(error)) from error
        except ModuleNotFoundError as error:
            if names is not None:
                raise
            tell(f"left out: {one_line(error)}")
    return found


def measure_all(preprocessors: Sequence[type[Preprocessor]], recipe: Recipe) -> list[ParityRow]:
    """A row for each preprocessor and set of pictures.

    Raises ``InputError`` for a preprocessor that does not take the recipe or a picture, ``SetupError`` for one without
    its device.
    """
    sets = {"photos": photos(), "noise": noise(_NOISE), "sizes": sizes(_SIZES)}
    label = _judge(recipe)
    if label:  # without one they are photos once more, and 99 large inputs would take gigabytes
        sets["crops"] = crops()
    truth = {name: oracle_levels(recipe, encoded) for name, encoded in sets.items()}
    labels = label(truth["crops"][0]) if label else None
    rows = []
    for each in preprocessors:
        for name, encoded in sets.items():
            try:
                got = preprocessed_levels(each, recipe, encoded)
            except ValueError as error:
                raise InputError(f"the preprocessor {each.name}: {one_line(error)}") from error
            except DeviceNotFound as error:
                raise SetupError(f"the preprocessor {each.name}: {one_line(error)}") from error
            same = int((label(got) == labels).sum()) if label and name == "crops" else None
            rows.append(ParityRow(each.name, each.version(), name, compare(got, *truth[name]), same))
    return rows


def _judge(recipe: Recipe) -> Callable[[Levels], NDArray[np.float32]] | None:
    """What labels pixels of ``recipe`` with the trained default model; None where its input has another size.

    Takes pixels before normalisation, (n, size, size, 3), and returns labels, (n).
    """
    spec = find(JUDGE)
    wanted = spec.recipe
    if recipe.size != wanted.size:
        return None
    path = spec.build("trained", tell)
    with utf8_path(path) as named:
        backend = load("onnxruntime").load(ModelFile(named), "cpu", 1, usable_cores())
    runner = backend.runner()
    mean, std = np.array(wanted.mean, np.float32), np.array(wanted.std, np.float32)
    task = find_task(spec.task).of(spec, backend.outputs)

    def label(pixels: Levels) -> NDArray[np.float32]:
        found = []
        for at in range(0, len(pixels), _BATCH):
            batch = pixels[at : at + _BATCH]
            ordered = batch if recipe.colour_order == wanted.colour_order else batch[..., ::-1]
            slot = runner.slot(len(batch))
            [buffer] = slot.buffers.values()
            buffer[...] = ((ordered - mean) / std).transpose(0, 3, 1, 2)
            found.append(np.asarray(task.decode(runner.infer(slot), range(len(batch)), (), slot.n)))
        return np.concatenate(found)

    return label
