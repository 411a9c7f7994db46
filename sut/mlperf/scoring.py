"""The score of anybody's accuracy log, or why it has none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sut.mlperf import official
from sut.mlperf.accuracy import accuracy_log_bytes, log_sha256, parse_accuracy_log
from sut.mlperf.logs import ACCURACY, DETAIL, read_detail
from sut.tasks.base import Score
from sut.tasks.chance import near_chance
from sut.tasks.detection.coco_map import score_boxes
from sut.tasks.detection.truth import BoxTruth
from sut.tasks.top1 import Labels, Top1, answers_as_labels, sample_indices, top1

_IMAGENET_CLASSES = 1000
_WHOLE_MODES = ("AccuracyOnly", "SubmissionRun")
"""Of LoadGen's modes those that log every answer."""
_SAMPLING = ("effective_accuracy_log_sampling_target", "effective_accuracy_log_probability")

_PADDING = official.MULTISTREAM_SAMPLES
"""Answers that a query of MultiStream has beyond the samples of a tiny list."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A whole log's score. ``dtype`` is what its labels are written in, ``sha256`` the log's.

    ``settings_known``: whether LoadGen's detail log is beside it, which says that no audit sampled it. ``contradicted``
    are samples with a second answer that is another: of boxes, whose last bits may depend on what else is in the batch,
    the first counts, as for MLPerf's script; of labels the log is refused.
    """

    path: Path
    score: Score
    dtype: str | None
    sha256: str
    settings_known: bool
    contradicted: int = 0


def score_file(path: Path, truth: NDArray[np.int32] | BoxTruth, dtype: str | None = None) -> Scored:
    """Score the accuracy log at ``path``, or in that folder, against the truth of the data set that was asked.

    Labels (in ``dtype``, where that is given) give a ``Top1``, boxes a ``MeanAP``. Raises ``ModuleNotFoundError`` where
    what scores boxes is not installed, and ``ValueError`` for what is no whole accuracy log of these samples, for one
    that an audit sampled, for answers that are none, and for a top-1 that is near chance.
    """
    file = path / ACCURACY if path.is_dir() else path
    content = accuracy_log_bytes(file)
    settings_known = os.path.lexists(file.with_name(DETAIL))
    if settings_known:
        _check_settings(file.parent)
    log = parse_accuracy_log(content, file)
    count = len(truth.image_ids) if isinstance(truth, BoxTruth) else len(truth)
    if not isinstance(truth, BoxTruth):
        log.check_consistent(file)
    try:
        if not settings_known and log.entries > 2 * count + _PADDING:
            raise ValueError(
                f"{log.entries} answers for {count} samples; an accuracy run asks each once, so this is of a "
                "performance run, as of an audit (TEST01); give the log of the accuracy run"
            )
        score, found = _scored(log.answers, truth, dtype)
    except ValueError as error:
        raise ValueError(f"the accuracy log {file}: {error}") from None
    return Scored(file, score, found, log_sha256(content), settings_known, len(log.contradicted))


def _check_settings(folder: Path) -> None:
    """Raise ``ValueError`` where LoadGen's detail log is of a run that does not log every answer."""
    detail = read_detail(folder)
    mode = detail.values.get("effective_test_mode")
    told = {"effective_test_mode": mode} if mode not in _WHOLE_MODES else {}
    told |= {key: detail.values[key] for key in _SAMPLING if detail.values.get(key) not in (None, 0)}
    if told:
        said = ", ".join(f"{key} {value}" for key, value in told.items())
        raise ValueError(
            f"{folder / DETAIL} has {said}; expected effective_test_mode AccuracyOnly and no sampling: an audit "
            "(TEST01) has LoadGen log a sample of the answers; give the log of the accuracy run"
        )


def _asked(answers: dict[int, bytes], count: int) -> NDArray[np.intp]:
    try:
        return sample_indices(answers, count)
    except ValueError as error:
        few = 2 * len(answers) < count
        remedy = "an audit (TEST01) or a run with --count logs so few" if few else "is the list that of this run?"
        raise ValueError(f"{error}; expected one for each line of the list: {remedy}") from None


def _scored(
    answers: dict[int, bytes], truth: NDArray[np.int32] | BoxTruth, dtype: str | None
) -> tuple[Score, str | None]:
    if isinstance(truth, BoxTruth):
        _asked(answers, len(truth.image_ids))
        return score_boxes(answers, truth), None
    right, most = truth[_asked(answers, len(truth))], int(truth.max()) + 1
    found = answers_as_labels(answers, max(most, _IMAGENET_CLASSES), dtype)
    score, classes = top1(found.values, right), max(most, 2)
    if near_chance(score, classes):
        raise ValueError(_near_chance(score, found, right, classes))
    return score, found.dtype


def _near_chance(score: Top1, found: Labels, right: NDArray[np.int32], classes: int) -> str:
    shifted = {offset: top1(found.values + offset, right) for offset in (-1, 1)}
    better = [
        f"with {offset:+d} on each answer it would be {_percent(other)} %: mend that in the answers or in the list"
        for offset, other in shifted.items()
        if not near_chance(other, classes)
    ]
    said = better[0] if better else f"no offset of 1 mends it, read as {found.dtype}; is the list that of this run?"
    return f"top-1 of {_percent(score)} % ({score.good} of {score.count}) is near chance: label offset or dtype? {said}"


def _percent(score: Top1) -> str:
    return f"{100 * score.value:.3f}"
