"""Settles what is ``auto`` in a run's own process: by what was tried before, or by trying candidates in warm-up.

The candidates' systems are the product's own, with a few samples of the run's data set, in short windows by turns, so
that what slows the machine down for a while slows down all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from sut.pipeline.assembly import Assembly
from sut.pipeline.choice import Choice
from sut.pipeline.system import SUT
from sut.process.cgroup import free_memory
from sut.process.memory import forget_peak
from sut.results.quiet import Look, between, look
from sut.results.schema import more_is_better
from sut.run import tried
from sut.run.auto import Basis, Trial, candidates, decide, fits, with_effect
from sut.run.timing import Beat, window
from sut.run.tried import Settled

MOST_S = 5.0
LEAST_S = 1.0
"""In a shorter run nothing is tried: nothing could be told apart in its time."""
_LEAST_TURNS_S = 3.0
_WINDOW_S = 0.1
_MOST_ROUNDS = 20
_SAMPLES = 32
_MEMORY_PER_MODEL_BYTE = 4
"""What a loaded model takes at the most, as a multiple of its file: weights as they are, repacked, and activations."""


def settle(
    parts: Assembly, samples_per_query: int, seconds: float, is_quiet: bool, begin: Callable[[], None], beat: Beat
) -> Settled:
    """Choose for a run of so many ``seconds`` (0: nothing is tried). ``begin`` is called before anything is tried.

    Where the machine ``is_quiet``, what was tried on a busy one is tried again.
    """
    config = parts.config
    found = candidates(config, parts.lane_cores, parts.model_bytes)
    key = tried.key_of(parts, samples_per_query)
    free = [name for name in with_effect(config.scenario) if getattr(config, name) is None]
    if not free:
        return Settled(found[0], "as asked", key)
    higher = more_is_better(config.scenario)
    known = tried.read(key)
    trial = known.trial_of(found)
    budget_s = min(MOST_S, seconds)
    # Each candidate has workers of the second model, where it has any: they would all be at work at once.
    may_try = len(found) > 1 and budget_s >= LEAST_S and _have_room(parts) and config.channel == config.serve == "none"
    if is_new := may_try and _may_tell_more(trial, budget_s, is_quiet, higher):
        begin()
        # In case that this process does not live to tell: a candidate may crash it. Once more, as it may be Ctrl-C.
        was_cut_off = trial is not None and not any(trial.rounds)
        tried.keep_trial(key, Trial(budget_s if was_cut_off else 0.0, found, [[] for _ in found]))
        trial = _try(parts, found, samples_per_query, seconds, higher, beat)
        forget_peak()  # it is told of the run
        tried.keep_trial(key, trial)
        is_new = any(trial.rounds)
    choice, basis = decide(found, trial, [each for each in known.runs if fits(each.choice, config)], higher)
    return Settled(choice, f"{_WHY[basis, is_new]}; --{free[0].replace('_', '-')} fixes it", key)


_WHY: dict[tuple[Basis, bool], str] = {
    ("prior", False): "guessed",
    ("prior", True): "guessed, and no other was faster beyond the spread",
    ("trial", False): "kept from an earlier run",
    ("trial", True): "measured",
    ("runs", False): "kept from earlier runs",
    ("runs", True): "kept from earlier runs",
}


def is_undisturbed(since: Look) -> bool | None:
    """Whether neither others nor the host have taken much of the cores since then; None where that cannot be told.

    How long our own threads waited does not count: candidates have more threads than cores.
    """
    return replace(between(since, look(os.getppid())), own_wait_share=0.0).is_quiet


def _may_tell_more(trial: Trial | None, seconds: float, is_quiet: bool, higher_is_better: bool) -> bool:
    if trial is None or (trial.is_busy and is_quiet):
        return True
    return trial.seconds < seconds and trial.is_open(higher_is_better)


def _have_room(parts: Assembly) -> bool:
    """Whether all candidates may be in memory at once."""
    free = free_memory(Path("/"))
    size = sum(each.model_bytes or 0 for each in (parts, parts.second) if each is not None)
    return free is None or 3 * _MEMORY_PER_MODEL_BYTE * size < free / 2


def _try(
    parts: Assembly, found: list[Choice], samples_per_query: int, seconds: float, higher_is_better: bool, beat: Beat
) -> Trial:
    """Measure the candidates by turns until it is clear which is best, or the time is spent.

    One that cannot be run is out of it; where the first cannot, nothing is measured: the run itself will say why. What
    would take the whole budget to load is left alone; what was loaded has some time for its turns in any case.
    """
    trial = Trial(min(MOST_S, seconds), found, [[] for _ in found])
    begin = time.perf_counter()
    with ExitStack() as stack:
        systems: dict[Choice, SUT] = {}
        ready: dict[int, Callable[[float], float]] = {}
        longest_s = 0.0
        for number, choice in enumerate(found):
            at_s, system = time.perf_counter() - begin, _system(choice, found, parts.config.preprocess_workers > 0)
            if system not in systems and at_s + longest_s > trial.seconds:
                break
            with suppress(Exception):
                if system not in systems:
                    systems[system] = _load(stack, parts, system, beat)
                measure = partial(_figure, systems[system], samples_per_query, choice.max_batchsize, beat=beat)
                measure(0.0)
                ready[number] = measure
            longest_s = max(longest_s, time.perf_counter() - begin - at_s)
        loaded_s = time.perf_counter() - begin
        end_s = min(seconds, max(MOST_S, loaded_s + _LEAST_TURNS_S))
        if 0 in ready and len(ready) > 1:
            since = look(os.getppid())
            with suppress(Exception):
                _take_turns(trial, ready, begin + end_s, higher_is_better)
            trial.is_busy = is_undisturbed(since) is False
    return trial


def _system(choice: Choice, found: Sequence[Choice], staged: bool) -> Choice:
    """What a candidate is measured on: those that differ in the batch alone share one, with the largest of them.

    Not where workers preprocess: they fill its largest batch.
    """
    same = (each for each in found if replace(each, max_batchsize=1) == replace(choice, max_batchsize=1))
    return choice if staged else max(same, key=lambda each: each.max_batchsize)


def _load(stack: ExitStack, parts: Assembly, choice: Choice, beat: Beat) -> SUT:
    """A system with a few samples. It keeps no tensors on disk: the run itself does."""
    config = choice.apply(parts.config)
    kept = {} if config.use_preprocessed_dataset else {"preprocessed_dir": None}
    parts = replace(parts, config=config.model_copy(update={"cache": False, **kept}))
    few = min(parts.dataset.count, _SAMPLES)
    sut = stack.enter_context(SUT(parts.config, loaded=lambda count: beat(), performance_samples=few, assembly=parts))
    sut.library.load(range(few))
    return sut


def _figure(sut: SUT, samples_per_query: int, max_batch: int, seconds: float, *, beat: Beat) -> float:
    loaded = range(sut.library.performance_count)
    return window(sut.config.scenario, sut, loaded, samples_per_query, max_batch, seconds, beat)


def _take_turns(
    trial: Trial, ready: Mapping[int, Callable[[float], float]], end: float, higher_is_better: bool
) -> None:
    order = list(ready.items())
    for _ in range(_MOST_ROUNDS):
        for number, measure in order:
            trial.rounds[number].append(measure(_WINDOW_S))
        if time.perf_counter() > end or not trial.is_open(higher_is_better):
            return
        order.reverse()
