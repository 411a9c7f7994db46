"""Looks at the answers to a few samples before the clock, for a model that answers wrongly without an error.

The samples are real ones, through the lane that will answer them in the run (fill, infer, decode). Each is answered
alone, twice: two answers to one picture are no answer. Then they are answered at places all over the largest batch:
whose labels change with what else is in it (softmax or batch norm over the batch, dynamic quantisation) or with the
row, gives other labels in SingleStream than in Offline. That is told, and breaks a rule, but is the model's own
business. Where there are several devices, or core sets, the first lane of each answers all that once more: as the
first one's did. And where the model shows labels alone, the scores that it chose them from are looked at once, for as
many samples as the largest batch has: its ArgMax answers 0 for NaN.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sut.errors import RunError, one_line
from sut.models.argmax import expose_scores
from sut.models.content import normalises_in_training
from sut.pipeline.batching import BatchingPolicy
from sut.pipeline.lane import Lane
from sut.pipeline.system import SUT
from sut.results.schema import Answers
from sut.run.timing import Beat, sizes_to_warm
from sut.tasks.likeness import Look

MOST_ALONE = 4
"""Samples that are answered alone: with the batch of 8, 0.1 s on one core for EfficientNet-Lite0."""
MOST_BEHIND = 8
"""Rows of the batches in which the scores behind labels are looked at: for memory beside the run's own model."""
BEYOND_ROUNDING = {"fp32": 0.005, "int8": 0.005, "bf16": 0.02, "fp16": 0.02}
"""The same of another batch size, by precision. On a Xeon, with ONNX Runtime and OpenVINO, EfficientNet-Lite0 and
ResNet-50 were less than 1e-5 apart in fp32, bf16 and int8; Lite0 quantised dynamically was 0.01 apart."""

BUDGET_S = 1.0
"""After so long no further sample is looked at: a slow model is known by fewer."""


@dataclass(slots=True)
class Examined:
    """What a reader of the result must know: figures, notes, and what breaks MLPerf's rules."""

    answers: Answers | None = None
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    depends: bool = False
    """Whether a label or the scores were seen to change with what else is asked, be it by a near tie."""

    def tell_broken(self, text: str) -> None:
        """Put a text into the notes and the broken rules, once."""
        if text not in self.broken:
            self.notes.append(text)
            self.broken.append(text)


def check(sut: SUT, indices: Sequence[int], samples_per_query: int, beat: Beat) -> Examined:
    """Look at the answers to the first of some loaded samples. ``beat`` is called after each step.

    Nothing is done where no model is run. Raises ``RunError`` where a sample cannot be answered, gets two different
    answers, from one device or from two, or has scores that are not finite.
    """
    found = Examined()
    if not (sut.parts.has_model and sut.backend.inputs):
        return found
    if sut.parts.model is not None and (output := sut.task.hides_scores) is not None:
        _look_behind(sut, output, indices[: sut.policy.max_batch], found, beat)
    alone, took_s = _alone(sut, indices, found, beat)
    seen = dict(zip(indices, alone, strict=False))
    _compare_units(sut, [([index], [look]) for index, look in seen.items()], True, found, beat)
    found.answers = Answers(checked=len(alone), largest_batch=None, batch_dependent_share=None, near_ties=0)
    if sut.policy.max_batch > 1:
        needed = sut.policy.padded(sut.policy.max_batch) in sizes_to_warm(
            sut.config.scenario, sut.policy, samples_per_query
        )
        rows, batch = _in_batch(sut, indices, len(alone), found, took_s, needed)
        pairs = [(seen[index], answer) for index, answer in zip(rows, batch, strict=True) if index in seen]
        _compare(pairs, len(batch), BEYOND_ROUNDING[sut.config.precision], found)
        _compare_units(sut, [(rows, batch)] if rows else [], needed, found, beat)
        seen = dict(zip(rows, batch, strict=True)) | seen
        beat()
    gists = {look.gist for look in seen.values()}
    if len(gists) == 1 and len(seen) > 1 and sut.config.mode != "accuracy" and (gist := gists.pop()) is not None:
        # In accuracy mode the log tells of them all.
        found.notes.append(f"all {len(seen)} samples looked at before the run {gist}")
    return found


def _alone(sut: SUT, indices: Sequence[int], found: Examined, beat: Beat) -> tuple[list[Look], float]:
    """The answers to samples alone, and how long one took, in seconds."""
    answers: list[Look] = []
    begin = time.perf_counter()
    took_s = 0.0
    for index in indices[:MOST_ALONE]:
        [first] = _ask(sut, [index], sut.lanes[0])
        beat()
        asked = time.perf_counter()
        [second] = _ask(sut, [index], sut.lanes[0])
        now = time.perf_counter()
        beat()
        if (how := first.unlike(second)) is not None:
            _tell_change(sut, index, "when asked twice", how, found)
        answers.append(first)
        took_s = now - asked
        if now - begin > BUDGET_S:
            break
    return answers, took_s


def _compare_units(
    sut: SUT, batches: Sequence[tuple[list[int], Sequence[Look]]], needed: bool, found: Examined, beat: Beat
) -> None:
    """Have the first lane of each other unit answer these batches, which are told with the first unit's answers."""
    for lane in sut.lanes[1 : len(sut.parts.units)]:
        for indices, firsts in batches:
            seconds = _ask_batch(sut, indices, lane, needed, found)
            beat()
            # None where a batch that is not needed fails.
            for index, first, second in zip(indices, firsts, seconds, strict=False):
                if (how := first.unlike(second)) is not None:
                    _tell_change(sut, index, f"{sut.lanes[0].on} and {lane.on}", how, found)


def _tell_change(sut: SUT, index: int, asked: str, how: str, found: Examined) -> None:
    """Raise ``RunError`` for two answers to one picture, ``asked`` as those words say.

    A batch norm in training mode is told instead, as it is where it shows within a batch only: ONNX Runtime keeps its
    statistics from one batch to the next, OpenVINO does not.
    """
    if sut.parts.model is None or not normalises_in_training(sut.parts.model.onnx):
        raise RunError(f"{sut.failures.name_of(index)}: the model answers the same picture differently {asked}: {how}")
    found.depends = True
    found.tell_broken("answers depend on what was asked before: the model has a batch norm in training mode")


def spread(indices: Sequence[int], alone: int, size: int) -> list[int]:
    """A batch of samples, a row each: the first ``alone`` ones in about every second row, from the first to the last.

    The rows between have other samples, where there are others. A small batch has each of the first at least once,
    as far as it goes.

    >>> spread(range(11), 4, 8)
    [0, 4, 1, 5, 6, 2, 7, 3]
    """
    places = {round(row) for row in np.linspace(0, size - 1, max(min(alone, size), size // 2))}
    looked_at, others = cycle(indices[:alone]), cycle(indices[alone:] or indices)
    return [next(looked_at if row in places else others) for row in range(size)]


def _in_batch(
    sut: SUT, indices: Sequence[int], alone: int, found: Examined, took_s: float, needed: bool
) -> tuple[list[int], Sequence[Look]]:
    """Samples and their answers within the largest batch, in which the first ``alone`` ones are spread.

    None, with a note, if the run does not need it and the model cannot.
    """
    size = sut.policy.max_batch
    if not needed and size * took_s > 2 * BUDGET_S:
        size = int(2 * BUDGET_S / took_s)
        if size < 2:
            found.notes.append(f"answers were not compared with those in a batch: one picture takes {took_s:.2g} s")
            return [], []
    rows = spread(indices, alone, size)
    answers = _ask_batch(sut, rows, sut.lanes[0], needed, found)
    return (rows, answers) if answers else ([], [])


def _ask_batch(sut: SUT, indices: list[int], lane: Lane, needed: bool, found: Examined) -> Sequence[Look]:
    """Answers to a batch; none, with a note, if the run does not need it and the lane cannot."""
    try:
        return _ask(sut, indices, lane)
    except RunError as error:
        if needed:
            raise
        found.notes.append(f"answers were not compared with those in a batch of {len(indices)}, which fails: {error}")
        return []


def _compare(pairs: list[tuple[Look, Look]], size: int, beyond: float, found: Examined) -> None:
    """Put into ``found`` how the answers in a batch of ``size`` (none: there was no batch) differ from those alone.

    Values that differ are told where the answers agree and most are further apart than ``beyond``.
    """
    if not pairs or found.answers is None:
        return
    kind = pairs[0][0]
    shares = [alone.apart(batch) for alone, batch in pairs]
    others = [(alone, batch) for alone, batch in pairs if alone.other_than(batch) is not None]
    ties = sum(alone.near_tie(batch) for alone, batch in others)
    changed = len(others) - ties
    found.depends |= bool(others)
    if changed:
        found.tell_broken(
            f"answers depend on the batch: {changed} of {len(pairs)} {kind.answers} differ between alone and a batch "
            f"of {size}"
        )
    elif 2 * sum(share > beyond for share in shares) > len(pairs):
        found.depends = True
        found.notes.append(
            f"{kind.values} depend on the batch, though the {kind.answers} agree: they differ by up to "
            f"{100 * max(shares):.2g} % of their range between alone and a batch of {size}"
        )
    found.answers = found.answers.model_copy(
        update={"largest_batch": size, "batch_dependent_share": changed / len(pairs), "near_ties": ties}
    )


def _ask(sut: SUT, indices: list[int], lane: Lane) -> Sequence[Look]:
    payloads, outputs = lane.examine(indices)
    return sut.task.looks(payloads, outputs) if sut.second is None else sut.second.looks(payloads)


def _look_behind(sut: SUT, output: str, indices: Sequence[int], found: Examined, beat: Beat) -> None:
    """Raise ``RunError`` where the scores behind labels are not finite; that they cannot be looked at breaks a rule."""
    model = sut.parts.model
    assert model is not None
    behind = f"the scores behind {output}"
    path = model.file if model.file.suffix == model.source.suffix else model.onnx
    try:
        with TemporaryDirectory(prefix="sut-scores-") as folder:
            copy = Path(folder) / path.name
            name = expose_scores(path, output, copy)
            if name is None:
                found.tell_broken(f"{behind} were not looked at: no ArgMax or TopK is found that computes it")
                return
            bad = _first_not_finite(
                sut, copy, "fp32" if path != model.file else sut.config.precision, name, indices, beat
            )
    except Exception as error:
        # A second model may not fit beside the first, or not be possible in this form: the run's own does its work.
        found.tell_broken(f"{behind} were not looked at: {one_line(error)}")
        return
    if bad is not None:
        raise RunError(f"{sut.failures.name_of(bad)}: {behind} are not finite (NaN or inf in {name})")
    if path != model.file:
        found.notes.append(f"{behind} were looked at in fp32, in the ONNX file that was converted")


def _first_not_finite(
    sut: SUT, file: Path, precision: str, name: str, indices: Sequence[int], beat: Beat
) -> int | None:
    """The first sample whose best score in the output ``name`` of another model file is not finite; None if all are.

    On the first device.
    """
    parts, config = sut.parts, sut.config
    assert parts.model is not None
    told: dict[str, Any] = {"lanes": 1, "threads": config.threads_per_lane, "precision": precision}
    told["device"], affinity = config.devices[0], replace(parts.affinity, lanes=parts.affinity.lanes[:1])
    model = replace(parts.model, file=file)
    second = replace(parts, config=config.model_copy(update=told), model=model, affinity=affinity)
    with ExitStack() as stack:
        backend = stack.enter_context(second.load_backend())
        runner = stack.enter_context(backend.runner(second.place_for(backend)))
        source = stack.enter_context(closing(sut.library.source()))
        beat()
        policy = BatchingPolicy.of("Offline", MOST_BEHIND, 0, backend.batch_sizes)
        # A run of single pictures does not need a model that takes more.
        step = policy.padded(1 if config.scenario == "SingleStream" else policy.max_batch)
        for at in range(0, len(indices), step):
            some = indices[at : at + step]
            slot = runner.slot(policy.padded(len(some)))
            source.fill(some, slot, lambda stage: None)
            values = np.asarray(runner.infer(slot)[name])
            if values.shape[:1] != (slot.n,):
                raise ValueError(f"{name} has shape {values.shape} for a batch of {slot.n}")
            finite = np.isfinite(values.reshape(slot.n, -1).max(axis=1)[: len(some)])  # NaN wins every max
            beat()
            if not finite.all():
                return some[int(finite.argmin())]
    return None
