"""What a run in a reduced precision is compared with: the same model, backend and device in FP32.

The labels of both are counted in a process of its own (``python -m sut.run.compared``): two models are loaded for it,
and neither belongs into the process that watches the runs, nor into the one that is measured. The answer is kept, so
it is made once per model, precision, backend and data set.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sut.config import RunConfig
from sut.errors import ExitCode, error_of
from sut.models.precision.agreement import NOT_COMPARED, LabelAgreement, Scores, Side, measure, reduced_name
from sut.models.preparation import Prepared, check_unchanged
from sut.pipeline.assembly import Assembly, assemble
from sut.process.cgroup import usable_cores
from sut.process.child import follow
from sut.process.messages import STEPS, Failed, Step, from_text
from sut.process.telling import Teller, carry_out
from sut.tasks.classification import Classification
from sut.text import Progress, Say

CROPS = 1000
"""Crops to compare on where nobody says how many: an interval of 1.4 percentage points around 95 %."""
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
    if parts.spec.task != "classification":
        return f"{NOT_COMPARED}: the task {parts.spec.task} has none"
    if not parts.config.reads_pictures:
        return f"{NOT_COMPARED}: there are no pictures to compare on, only tensors"
    if parts.config.agreement == 0:
        return f"{NOT_COMPARED}: --agreement 0"
    if parts.config.agreement is None and parts.model.weights == "random":
        return f"{NOT_COMPARED}: those of random weights mean nothing (--agreement {CROPS} compares them all the same)"
    return None


def compared_with_fp32(parts: Assembly, say: Say, progress: Progress) -> LabelAgreement | None:
    """How many labels are those of the FP32 model.

    None where the model is run as it is, has no FP32 form, or ``why_not_compared`` says why. Raises ``InputError``,
    ``SetupError`` or ``RunError`` where that cannot be found out.
    """
    if not is_reduced(parts.config) or parts.model is None or parts.model.quantised or why_not_compared(parts):
        return None
    sides = (side_of(_reference_of(parts), _not_here), side_of(parts, _not_here))
    crops = _crops(parts.config)
    doing = f"comparing {reduced_name(parts.config.precision, parts.config.fold)} with fp32"
    try:
        return measure(*sides, parts.dataset, progress, crops=crops, say=say)
    except _NotKept:
        say(f"{doing} on {crops:,} crops, once, before the runs")
    _compare_in_child(parts, _forecasting(doing, progress, say))
    return measure(*sides, parts.dataset, progress, crops=crops)


def _crops(config: RunConfig) -> int:
    return CROPS if config.agreement is None else config.agreement


def _forecasting(doing: str, progress: Progress, say: Say) -> Progress:
    """``progress`` that tells as soon as that is known how long all of it takes, where it takes long."""
    seen: list[tuple[int, float]] = []

    def step(done: int, total: int) -> None:
        if len(seen) < 2:
            seen.append((done, time.monotonic()))
            if len(seen) == 2:
                (before, began), (after, now) = seen
                left_s = (total - after) * (now - began) / max(1, after - before)
                if left_s >= _WORTH_TELLING_S:
                    say(f"{doing} takes about {left_s:.0f} s more; --agreement N sets the number of crops")
        progress(done, total)

    return step


def _reference_of(parts: Assembly) -> Assembly:
    return assemble(parts.config.model_copy(update={"precision": "fp32", "fold": False, "backend_options": {}}))


def side_of(parts: Assembly, scores: Scores) -> Side:
    """One of the two models that are compared: what ``parts`` run, and what answers for it."""
    assert parts.model is not None
    config, backend = parts.config, parts.backend
    run = (backend.name, backend.version(), config.precision)
    return Side(parts.model.file, parts.spec.recipe, *run, scores, config.outputs)


def _not_here(samples: NDArray[Any]) -> NDArray[Any]:
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
    config = orders.config.model_copy(update={"lanes": 1, "threads": usable_cores()})
    parts = assemble(config, prepared=orders.prepared)
    with ExitStack() as stack:
        both = (_reference_of(parts), parts)
        reference, reduced = (side_of(each, scores_of(each, stack)) for each in both)
        for each in both:
            check_unchanged(each.model)  # the answer is kept by what was loaded
        crops = _crops(config)
        measure(reference, reduced, parts.dataset, lambda *now: teller.tell(Step(*now)), crops=crops)


def scores_of(parts: Assembly, stack: ExitStack) -> Scores:
    """Load a model, and run it on samples, in batches that its backend takes."""
    backend = stack.enter_context(parts.load_backend())
    parts.check_attested(backend.attest())
    runner = stack.enter_context(backend.runner())
    task = parts.task_for(backend)
    assert isinstance(task, Classification)
    name = task.output.name
    sizes = backend.batch_sizes

    def scores(samples: NDArray[Any]) -> NDArray[Any]:
        found = []
        step = next((size for size in sizes if size >= len(samples)), sizes[-1]) if sizes else len(samples)
        for at in range(0, len(samples), step):
            some = samples[at : at + step]
            slot = runner.slot(step)
            [buffer] = slot.buffers.values()
            buffer[: len(some)] = some
            answers = np.asarray(runner.infer(slot)[name])[: len(some)]
            # A copy: a runner's outputs last until its next call.
            found.append(np.array(answers.reshape(len(some), -1) if answers.ndim > 2 else answers))
        return np.concatenate(found)

    return scores


if __name__ == "__main__":
    carry_out(_compare)
