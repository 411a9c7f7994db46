"""``sut parity``: preprocessors against the oracle, and whether a classifier sees the difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from sut.cli.emit import emit, grid, prose
from sut.process.streams import tell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from preprocess.base import Recipe
    from sut.studies.parity import ParityRow

HELP = """Measure how far preprocessors are from the oracle, in levels of 255 before normalisation.

Example: ./run_local.sh parity --preprocess opencv,dali --model resnet50

On the demo photos, white noise, photos squeezed to random sizes, and, for a recipe with the input size of the trained
EfficientNet-Lite0, crops of the photos, of which it gives how many the same label. Where a recipe pads, the figures but
max are of what the pictures cover, and padding must be exact. Without --preprocess: all that are installed. A
measurement, so the exit code is 0 however far they are; 1 wrong usage; 2 something is not installed.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``parity`` to ``app``."""
    app.command(help=HELP)(parity)


def parity(
    preprocess: Annotated[
        str | None, typer.Option(help="Preprocessors, comma list; default: all that are installed.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The known model whose recipe is measured; default efficientnet-lite0.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """See HELP."""
    from sut.models.registry import find
    from sut.studies.parity import JUDGE, measure_all, preprocessors_of

    recipe = find(model or JUDGE).recipe
    rows = measure_all(preprocessors_of(preprocess), recipe)
    if model is None and not as_json:
        tell(f"recipe {recipe.name}, for want of another: --model NAME takes that of a known model")
    emit("parity", [row.as_json(recipe) for row in rows], _table(rows, recipe), as_json)


def _table(rows: Sequence[ParityRow], recipe: Recipe) -> Iterator[RenderableType]:
    lines = []
    within = []
    for name, mine in groupby(rows, lambda row: f"{row.preprocess} {row.version}"):
        of_one = list(mine)
        lines += [[name if at == 0 else "", row.pictures, *_figures(row)] for at, row in enumerate(of_one)]
        equal = all(row.parity.within_1_level for row in of_one)
        within.append(f"{of_one[0].preprocess} within 1 level: {'yes' if equal else 'no'}")
    yield grid(("preprocessor", "<pictures", ">n", ">max", ">mean", ">% over 1", ">PSNR dB", ">same label"), lines)
    yield prose(f"recipe {recipe.name}; max and mean in levels of 255 before normalisation")
    yield from map(prose, within)


def _figures(row: ParityRow) -> list[str]:
    parity = row.parity
    psnr = "equal" if parity.psnr_db is None else f"{parity.psnr_db:.1f}"
    same = "" if row.labels_same is None else f"{row.labels_same} of {parity.pictures}"
    share = f"{100 * parity.share_over_1:.3g}"
    return [str(parity.pictures), str(parity.max_levels), f"{parity.mean_levels:.2g}", share, psnr, same]
