"""What ``sut study ladder`` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sut.config import RunConfig
from sut.errors import ExitCode, InputError
from sut.models.registry import find
from sut.pipeline.slowdown import check_as_it_is
from sut.run.reporter import Reporter
from sut.studies.generated import LIST, generated_pictures
from sut.studies.ladder.climb import LEAST, Climb
from sut.studies.ladder.report import rows_of, words_of
from sut.studies.ladder.rungs import Ladder, check_rungs
from sut.studies.tuning.space import with_settings

_PICTURES = {"dataset", "dataset_path", "dataset_list"}


def run_ladder(
    ladder: Ladder, base: RunConfig, rounds: int | None, budget_s: float, console: Reporter
) -> tuple[dict[str, Any], ExitCode]:
    """Measure all rungs: the rows and what all of them have in common, as it is written down, and the exit code.

    That is of a failure where a rung failed, of something missing where none runs, else that all is well. Raises
    ``InputError`` for what no machine could run.
    """
    pictures = None if _PICTURES & base.model_fields_set else ladder.pictures
    base = _base_of(base, ladder, pictures, console)
    climb = Climb(ladder, base, console)
    climb.go(rounds, budget_s)
    rows = rows_of(climb.steps)
    told: dict[str, Any] = {
        "rows": rows,
        "model": base.model_name or base.model,
        "weights": base.weights,
        "device": base.device,
        "pictures": pictures,
        "concurrency": ladder.concurrency,
        "seconds": ladder.seconds,
        "least": LEAST,
    }
    told["words"] = list(words_of(told))
    if any(row["failed"] for row in rows):
        return told, ExitCode.FAILED
    return told, ExitCode.OK if any(row["rounds"] for row in rows) else ExitCode.SETUP


def _base_of(given: RunConfig, ladder: Ladder, pictures: str | None, console: Reporter) -> RunConfig:
    """What holds on all rungs, with generated ``pictures`` where nobody brings others.

    Raises ``InputError`` for what cannot be.
    """
    if given.mode != "performance":
        raise InputError("sut study ladder measures throughput; it has no other mode")
    check_as_it_is(given, "study ladder")
    if not given.is_file:
        find(given.model)
    # A closed loop of requests for single pictures, as Server's are.
    base = with_settings(given, {"scenario": "Server", "boundary": "jpeg"})
    check_rungs(ladder, base)
    if pictures is None:
        return base
    more = generated_pictures(pictures, console.note)
    if base.weights == "random" and base.calibration_list is None:
        # Nothing is to be learned from more of them, and a large model takes seconds for each.
        more["calibration_list"] = str(Path(more["dataset_path"]) / LIST)
    return with_settings(base, more)
