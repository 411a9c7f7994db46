"""``sut parity``: preprocessors against the oracle, and whether a classifier sees the difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plugins.errors import DeviceNotFound
from sut.errors import InputError, SetupError, one_line
from sut.process.streams import print_json, tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from preprocess.base import Preprocessor, Recipe
    from sut.results.parity import Levels
    from sut.results.schema import Parity

HELP = """Measure how far preprocessors are from the oracle, in levels of 255 before normalisation.

Example: ./run_local.sh parity --preprocess opencv,dali --model resnet50

On the demo photos, white noise, photos squeezed to random sizes, and crops of the photos; of the crops, how many get
the same label from the trained EfficientNet-Lite0, whichever model's recipe is measured. Without --preprocess: all that
are installed. A measurement, so the exit code is 0 however far they are; 1 wrong usage; 2 something is not installed.
"""

_JUDGE = "efficientnet-lite0"
_NOISE, _SIZES = 4, 22
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Row:
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


def register(app: typer.Typer) -> None:
    """Add the command ``parity`` to ``app``."""
    app.command(help=HELP)(parity)


def parity(
    preprocess: Annotated[
        str | None, typer.Option(help="Preprocessors, comma list; default: all that are installed.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help=f"The known model whose recipe is measured; default {_JUDGE}.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """See HELP."""
    from sut.models.registry import find

    recipe = find(model or _JUDGE).recipe
    found = _preprocessors(preprocess)
    rows = _measured(found, recipe)
    if as_json:
        print_json("parity", [row.as_json(recipe) for row in rows])
        return
    if model is None:
        tell(f"recipe {recipe.name}, for want of another: --model NAME takes that of a known model")
    _show(rows, recipe)


def _preprocessors(names: str | None) -> list[type[Preprocessor]]:
    """The classes that are named; without names all that are installed, and the others are told.

    Raises ``InputError`` for an unknown name, ``ModuleNotFoundError`` for a named one that is not installed.
    """
    from preprocess import registry

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


def _measured(preprocessors: Sequence[type[Preprocessor]], recipe: Recipe) -> list[Row]:
    from sut.results.parity import compare, crops, noise, oracle_levels, photos, preprocessed_levels, sizes

    sets = {"photos": photos(), "noise": noise(_NOISE), "sizes": sizes(_SIZES), "crops": crops()}
    truth = {name: oracle_levels(recipe, encoded) for name, encoded in sets.items()}
    label = _judge(recipe)
    labels = label(truth["crops"]) if label else None
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
            rows.append(Row(each.name, each.version(), name, compare(got, truth[name]), same))
    return rows


def _judge(recipe: Recipe) -> Callable[[Levels], NDArray[np.float32]] | None:
    """What labels pixels of ``recipe`` with the trained default model; None where its input has another size.

    Takes pixels before normalisation, (n, size, size, 3), and returns labels, (n).
    """
    import numpy as np

    from backends.base import ModelFile
    from backends.registry import load
    from plugins.files import utf8_path
    from sut.config import usable_cores
    from sut.models.registry import find
    from sut.tasks.registry import find_task

    spec = find(_JUDGE)
    wanted = spec.recipe
    if recipe.size != wanted.size:
        return None
    path = spec.build("trained", tell)
    with utf8_path(path) as named:
        backend = load("onnxruntime").load(ModelFile(named), "cpu", 1, usable_cores())
    runner = backend.runner()
    mean, std = np.array(wanted.mean, np.float32), np.array(wanted.std, np.float32)
    task = find_task(spec.task).for_outputs(backend.outputs, spec.classes, spec.label_offset)

    def label(pixels: Levels) -> NDArray[np.float32]:
        found = []
        for at in range(0, len(pixels), _BATCH):
            batch = pixels[at : at + _BATCH]
            ordered = batch if recipe.colour_order == wanted.colour_order else batch[..., ::-1]
            slot = runner.slot(len(batch))
            [buffer] = slot.buffers.values()
            buffer[...] = ((ordered - mean) / std).transpose(0, 3, 1, 2)
            found.append(np.asarray(task.decode(runner.infer(slot), len(batch), (), slot.n)))
        return np.concatenate(found)

    return label


def _show(rows: Sequence[Row], recipe: Recipe) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    out = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("preprocessor", overflow="fold")
    table.add_column("pictures", no_wrap=True)
    for heading in ("n", "max", "mean", "% over 1", "PSNR dB", "same label"):
        table.add_column(heading, justify="right", no_wrap=True)
    within: dict[str, bool] = {}
    for row in rows:
        first = row.preprocess not in within
        within[row.preprocess] = within.get(row.preprocess, True) and row.parity.within_1_level
        table.add_row(f"{row.preprocess} {row.version}" if first else "", row.pictures, *_figures(row))
    out.print(table)
    out.print(Text(f"recipe {recipe.name}; max and mean in levels of 255 before normalisation"))
    for name, is_within in within.items():
        out.print(Text(f"{name} within 1 level: {'yes' if is_within else 'no'}"))


def _figures(row: Row) -> list[str]:
    parity = row.parity
    psnr = "equal" if parity.psnr_db is None else f"{parity.psnr_db:.1f}"
    same = "" if row.labels_same is None else f"{row.labels_same} of {parity.pictures}"
    share = f"{100 * parity.share_over_1:.3g}"
    return [str(parity.pictures), str(parity.max_levels), f"{parity.mean_levels:.2g}", share, psnr, same]
