"""``sut accuracy``: score any LoadGen accuracy log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sut.cli.emit import emit, prose
from sut.errors import ExitCode, InputError, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from sut.mlperf.official import Benchmark
    from sut.mlperf.scoring import Scored

HELP = """Score a LoadGen accuracy log, whoever made it, as MLPerf's scripts do, and more strictly.

Example: ./run_local.sh accuracy output/.../Offline/accuracy --val-map /data/imagenet/val_map.txt

Example: ./run_local.sh accuracy output/.../Offline/accuracy --annotations /data/coco/annotations/instances_val2017.json

LOG is an mlperf_log_accuracy.json, or the folder that holds it: a classifier's, with --val-map, or a detector's, with
--annotations. The first two lines printed are those of a submission's accuracy.txt. What is not the whole log of a run
over that list is refused with the reason: missing samples, a log that an audit sampled or that is truncated; labels of
another type, empty ones, a score near chance; boxes of another sample or of a category that the annotations lack.

MLPerf's target applies to lists of as many pictures as its own, ImageNet's to that very list. YOLO has two, of which
--model-name says yours; without it both are told, and the lower counts.

Exit code: 0 scored; 1 refused; 2 pycocotools, for boxes, is not installed; 4 the target applies and is missed.
"""


def register(app: typer.Typer) -> None:
    """Add the command ``accuracy`` to ``app``."""
    app.command(help=HELP)(accuracy)


def accuracy(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="The accuracy log, or the folder that holds it.")],
    val_map: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The data set's list, a 'name label' a line; no picture is needed."),
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The data set's boxes, in COCO's form; no picture is needed.")
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(help="Whose target a detector's log must meet, such as yolo-99; default: all are told."),
    ] = None,
    dtype: Annotated[
        Literal["float32", "int32", "int64"] | None,
        typer.Option(help="What the labels are written in; default: what their bytes say."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")] = False,
) -> ExitCode:
    """See HELP."""
    if (val_map is None) == (annotations is None):
        raise InputError("give either --val-map FILE, for a classifier's log, or --annotations FILE, for a detector's")
    if val_map is not None:
        if model_name is not None:
            raise InputError(f"--model-name {model_name} is a detector's; give --annotations FILE in --val-map's place")
        row, lines = _labels(log, val_map, dtype)
    else:
        assert annotations is not None
        if dtype is not None:
            raise InputError(f"--dtype {dtype} is of labels, and boxes are float32; leave it out")
        row, lines = _boxes(log, annotations, model_name)
    emit("accuracy", [row], lines, as_json)
    return ExitCode.INVALID if row["met"] is False else ExitCode.OK


Told = tuple[dict[str, Any], Iterator["RenderableType"]]
"""The row and the lines of a score."""


def _labels(log: Path, val_map: Path, dtype: str | None) -> Told:
    from sut.datasets.imagenet import read_val_map
    from sut.mlperf import official
    from sut.tasks.top1 import MOST_CLASSES, Top1

    listed = read_val_map(val_map, MOST_CLASSES)
    scored = _scored(log, listed.truth, dtype)
    score = scored.score
    assert isinstance(score, Top1)
    target = official.BENCHMARKS[official.MODEL].target if listed.is_imagenet() else None
    met = None if target is None else score.value >= target
    row = _row(scored, target, met) | {"good": score.good, "dtype": scored.dtype}

    def lines() -> Iterator[RenderableType]:
        yield f"labels in {scored.dtype}"
        if score.always is not None:
            yield f"every answer is the label {score.always:g}"
        yield from _unsure(scored)
        if target is None:
            yield prose("the list is not that of MLPerf's 50,000 pictures, so its target does not apply")
        else:
            yield prose(f"MLPerf's 50,000 pictures: the target of {100 * target:g} % is {'met' if met else 'missed'}")

    return row, _lines(scored, lines())


def _boxes(log: Path, annotations: Path, model_name: str | None) -> Told:
    from sut.datasets.annotations import read_annotations
    from sut.tasks.detection.coco_map import MeanAP

    truth = read_annotations(annotations, "--annotations").truth
    scored = _scored(log, truth, None)
    score = scored.score
    assert isinstance(score, MeanAP)
    targets = _targets(score.count, model_name)
    lowest = min((each.target for each in targets), default=None)
    met = None if lowest is None else score.value >= lowest
    row = _row(scored, lowest, met) | {
        "boxes": score.boxes,
        "empty": score.empty,
        "outside": score.outside,
        "contradicted": scored.contradicted,
        "targets": {each.name: each.target for each in targets},
    }

    def lines() -> Iterator[RenderableType]:
        yield f"{score.boxes:,} boxes; {score.empty:,} of {score.count:,} pictures have none"
        if not score.boxes:
            yield prose("not one box in any picture: the score is 0 whatever the pictures show")
        if score.outside:
            yield f"{score.outside:,} boxes reach over the edge of their picture; they are scored as they are"
        if truth.outside:
            yield f"{truth.outside:,} annotated boxes do, too"
        if scored.contradicted:
            yield f"samples with two different answers, of which the first counts: {scored.contradicted}"
        yield from _unsure(scored)
        yield from map(prose, _verdicts(score.value, score.count, targets, model_name))

    return row, _lines(scored, lines())


def _targets(pictures: int, model_name: str | None) -> list[Benchmark]:
    """What MLPerf asks of detectors on a data set of so many pictures; of one alone, where it is named."""
    from sut.mlperf.official import BENCHMARKS

    detectors = {each.name: each for each in BENCHMARKS.values() if each.metric == "mAP"}
    if model_name is not None and model_name not in detectors:
        raise InputError(f"--model-name is '{model_name}'; expected a detector of MLPerf's: {', '.join(detectors)}")
    return [each for each in detectors.values() if each.pictures == pictures and model_name in (None, each.name)]


def _verdicts(value: float, pictures: int, targets: list[Benchmark], model_name: str | None) -> Iterator[str]:
    whose = f"{model_name}'s" if model_name else "a detector's"
    if not targets:
        yield f"{pictures:,} pictures are not as many as MLPerf's list has, so {whose} target does not apply"
    for each in targets:
        verdict = "met" if value >= each.target else "missed"
        yield (
            f"{pictures:,} pictures, as many as MLPerf's list has: {each.name}'s target of {100 * each.target:g} % is "
            f"{verdict}"
        )


def _scored(log: Path, truth: Any, dtype: str | None) -> Scored:
    from sut.mlperf.scoring import score_file

    try:
        return score_file(log, truth, dtype)
    except ValueError as error:
        raise InputError(one_line(error)) from error


def _row(scored: Scored, target: float | None, met: bool | None) -> dict[str, Any]:
    return {
        "file": str(scored.path),
        "name": scored.score.name,
        "value": scored.score.value,
        "count": scored.score.count,
        "target": target,
        "met": met,
        "sha256": scored.sha256,
        "settings_known": scored.settings_known,
    }


def _lines(scored: Scored, more: Iterator[RenderableType]) -> Iterator[RenderableType]:
    from sut.mlperf.accuracy import accuracy_file

    yield from accuracy_file(scored.score.text, scored.sha256).splitlines()
    yield from more


def _unsure(scored: Scored) -> Iterator[RenderableType]:
    from sut.mlperf.logs import DETAIL

    if not scored.settings_known:
        yield prose(f"there is no {DETAIL} beside it: whether an audit sampled it was told by the count alone")
