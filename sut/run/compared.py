"""What a run in a reduced precision is compared with: the same model, backend and device in FP32.

What both answer is counted in a process of its own (``python -m sut.run.compared``): two models are loaded for it,
and neither belongs into the process that watches the runs, nor into the one that is measured. The answer is kept, so
it is made once per model, precision, backend and data set.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.base import Geometry
from sut.config import RunConfig
from sut.errors import ExitCode, error_of
from sut.models.precision.agreement import NOT_COMPARED, Scores, Side, measure, reduced_name
from sut.models.preparation import Prepared, check_unchanged
from sut.pipeline.assembly import Assembly, assemble
from sut.process.cgroup import usable_cores
from sut.process.child import follow
from sut.process.messages import STEPS, Failed, from_text
from sut.process.telling import Teller, carry_out
from sut.tasks.agreement import Agreement, Tally
from sut.tasks.registry import find_task
from sut.text import Progress, Say

_WORTH_TELLING_S = 5.0


@dataclass(frozen=True, slots=True)
class ComparisonOrders:
    """What is to be compared with its FP32 form."""

    config: RunConfig
    prepared: Prepared


class _NotKept(Exception):
    """The answer is not kept yet: both models have to run."""


def is_reduced(config: RunConfig) -> bool:
    """Whether labels could differ from those of the plain FP32 model."""
    return config.precision != "fp32" or config.fold


def why_not_compared(parts: Assembly) -> str | None:
    """Why a model in a reduced precision, or folded, cannot be compared with FP32; None for any other.

    None, too, for a file that was quantised already: the model's own notes say that.
    """
    if not is_reduced(parts.config) or parts.model is None or parts.model.quantised:
        return None
    tally = find_task(parts.spec.task).tally
    if tally is None:
        return f"the answers {NOT_COMPARED}: the task {parts.spec.task} has nothing to compare them by"
    what = f"the {tally.result.kind} {NOT_COMPARED}"
    if not parts.config.reads_pictures:
        return f"{what}: there are no pictures to compare on, only tensors"
    if parts.config.agreement == 0:
        return f"{what}: --agreement 0"
    if parts.config.agreement is None and parts.model.weights == "random":
        return f"{what}: those of random weights mean nothing (--agreement {tally.default} compares them all the same)"
    try:
        tally.check()
    except ModuleNotFoundError as error:
        return f"{what}: {error}"
    return None


def compared_with_fp32(parts: Assembly, say: Say, progress: Progress) -> Agreement | None:
    """How far the answers are those of the FP32 model.

    None where the model is run as it is, has no FP32 form, or ``why_not_compared`` says why. Raises ``InputError``,
    ``SetupError`` or ``RunError`` where that cannot be found out.
    """
    if not is_reduced(parts.config) or parts.model is None or parts.model.quantised or why_not_compared(parts):
        return None
    sides = (side_of(_reference_of(parts), _not_here), side_of(parts, _not_here))
    tally, crops = _tally(parts)
    doing = f"comparing {reduced_name(parts.config.precision, parts.config.fold)} with fp32"
    try:
        return measure(*sides, parts.dataset, progress, crops=crops, say=say, tally=tally)
    except _NotKept:
        count = min(crops, parts.dataset.count) if tally.whole else crops
        say(f"{doing} on {count:,} {_samples_of(tally)}, once, before the runs")
    _compare_in_child(parts, _forecasting(doing, progress, say, _samples_of(tally)))
    return measure(*sides, parts.dataset, progress, crops=crops, tally=tally)


def _tally(parts: Assembly) -> tuple[type[Tally], int]:
    """What counts, and the samples to count on."""
    tally, asked = find_task(parts.spec.task).tally, parts.config.agreement
    assert tally is not None
    return tally, tally.default if asked is None else asked


def _samples_of(tally: type[Tally]) -> str:
    return "pictures" if tally.whole else "crops"


def _forecasting(doing: str, progress: Progress, say: Say, samples: str) -> Progress:
    """``progress`` that tells as soon as that is known how long all of it takes, where it takes long."""
    seen: list[tuple[int, float]] = []

    def step(done: int, total: int) -> None:
        if len(seen) < 2:
            seen.append((done, time.monotonic()))
            if len(seen) == 2:
                (before, began), (after, now) = seen
                left_s = (total - after) * (now - began) / max(1, after - before)
                if left_s >= _WORTH_TELLING_S:
                    say(f"{doing} takes about {left_s:.0f} s more; --agreement N sets the number of {samples}")
        progress(done, total)

    return step


def _reference_of(parts: Assembly) -> Assembly:
    config = parts.config.model_copy(update={"precision": "fp32", "fold": False, "backend_options": {}})
    return assemble(config, progress=parts.progress)


def side_of(parts: Assembly, scores: Scores) -> Side:
    """One of the two models that are compared: what ``parts`` run, and what answers for it."""
    assert parts.model is not None
    config, backend = parts.config, parts.backend
    run = (backend.name, backend.version(), config.precision)
    return Side(parts.model.file, parts.spec.recipe, *run, scores, config.outputs, parts.spec.task_options)


def _not_here(samples: NDArray[Any], geometries: Sequence[Geometry]) -> NDArray[Any]:
    raise _NotKept


def _compare_in_child(parts: Assembly, progress: Progress) -> None:
    """Have both models run. Raises what the child raised, and ``RunError`` where it falls silent or dies."""
    assert parts.model is not None
    doing = f"comparing {reduced_name(parts.config.precision, parts.config.fold)} with fp32"
    failed = follow("sut.run.compared", ComparisonOrders(parts.config, parts.model), STEPS, doing, progress)
    if isinstance(failed, Failed):
        # As the run itself would have ended, whatever is compared.
        whole = failed.code in (ExitCode.USAGE, ExitCode.SETUP)
        raise error_of(failed.code, failed.message if whole else f"{doing} failed: {failed.message}")


def _compare(text: str, teller: Teller) -> None:
    orders = from_text(ComparisonOrders, text)
    one = {"device": orders.config.devices[0], "affinity": None, "lanes": 1, "threads": usable_cores()}
    config = orders.config.off_cluster.model_copy(update=one)
    parts = assemble(config, progress=teller.step, prepared=orders.prepared)
    with ExitStack() as stack:
        both = (_reference_of(parts), parts)
        reference, reduced = (side_of(each, scores_of(each, stack)) for each in both)
        for each in both:
            check_unchanged(each.model)  # the answer is kept by what was loaded
        tally, crops = _tally(parts)
        measure(reference, reduced, parts.dataset, parts.progress, crops=crops, tally=tally)


def scores_of(parts: Assembly, stack: ExitStack) -> Scores:
    """Load a model, and run it on samples, in batches that its backend takes."""
    backend = stack.enter_context(parts.load_backend())
    parts.check_attested(backend.attest())
    runner = stack.enter_context(backend.runner())
    task = parts.task_for(backend)
    sizes = backend.batch_sizes

    def scores(samples: NDArray[Any], geometries: Sequence[Geometry]) -> NDArray[Any]:
        found = []
        step = next((size for size in sizes if size >= len(samples)), sizes[-1]) if sizes else len(samples)
        for at in range(0, len(samples), step):
            some = samples[at : at + step]
            slot = runner.slot(step)
            [buffer] = slot.buffers.values()
            buffer[: len(some)] = some
            found.append(task.judged(runner.infer(slot), geometries[at : at + step], step))
        return np.concatenate(found)

    return scores


if __name__ == "__main__":
    carry_out(_compare)
