"""Settles what is ``auto`` in a run's own process: by what was tried before, or by trying candidates in warm-up.

The candidates' systems are the product's own, with a few samples of the run's data set, in short windows by turns, so
that what slows the machine down for a while slows down all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sut import tried
from sut.assembly import Assembly
from sut.auto import Basis, Choice, Trial, candidates, decide, fits
from sut.calibrate import Beat, warm_up, window
from sut.cgroup import free_memory, usable_cores
from sut.config import AUTO
from sut.system import SUT

MOST_S = 5.0
LEAST_S = 1.0
"""In a shorter run nothing is tried: nothing could be told apart in its time."""
_WINDOW_S = 0.1
_MOST_ROUNDS = 20
_SAMPLES = 32
_MEMORY_PER_MODEL_BYTE = 4
"""What a loaded model takes at the most, as a multiple of its file: weights as they are, repacked, and activations."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a run is made with, why, and by what it is known where its figure is kept."""

    choice: Choice
    why: str
    key: tried.Key

    def line(self, scenario: str) -> str:
        """What a run is made with and why, in one line."""
        return f"{self.choice.words(scenario)}: {self.why}"

    def facts(self, hint: str | None) -> dict[str, Any]:
        """For ``plan`` of the result. ``hint`` is the backend's own, as the runtime reports it."""
        return {**asdict(self.choice), "hint": hint and hint.lower(), "chosen": self.why}


def settle(parts: Assembly, samples_per_query: int, seconds: float, begin: Callable[[], None], beat: Beat) -> Settled:
    """Choose for a run of so many ``seconds`` (0: nothing is tried). ``begin`` is called before anything is tried."""
    config = parts.config
    found = candidates(config, usable_cores(), parts.model_bytes)
    key = tried.key_of(parts, samples_per_query)
    free = [name for name in _EFFECTIVE.get(config.scenario, AUTO) if getattr(config, name) is None]
    if not free:
        return Settled(found[0], "as asked", key)
    higher = config.scenario in tried.HIGHER_IS_BETTER
    known = tried.read(key)
    trial = known.trial_of(found)
    budget_s = min(MOST_S, seconds)
    is_new = len(found) > 1 and budget_s >= LEAST_S and _may_tell_more(trial, budget_s, higher) and _have_room(parts)
    if is_new:
        begin()
        trial = _try(parts, found, samples_per_query, budget_s, higher, beat)
        _forget_peak()
        tried.keep_trial(key, trial)
        is_new = any(trial.rounds)
    choice, basis = decide(found, trial, [each for each in known.runs if fits(each.choice, config)], higher)
    return Settled(choice, f"{_WHY[basis, is_new]}; --{free[0].replace('_', '-')} fixes it", key)


_EFFECTIVE = {"SingleStream": ("threads",)}
"""Which of the settings do something in a scenario; elsewhere all of them do."""
_WHY: dict[tuple[Basis, bool], str] = {
    ("prior", False): "prior",
    ("prior", True): "prior, and no other was faster beyond the spread",
    ("trial", False): "kept from an earlier run",
    ("trial", True): "measured",
    ("runs", False): "kept from earlier runs",
    ("runs", True): "kept from earlier runs",
}


def _forget_peak() -> None:
    """Count the peak of this process's memory anew: it is told of the run (proc(5): 5 in clear_refs, Linux 4.0)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _may_tell_more(trial: Trial | None, seconds: float, higher_is_better: bool) -> bool:
    return trial is None or (trial.seconds < seconds and trial.is_open(higher_is_better))


def _have_room(parts: Assembly) -> bool:
    """Whether all candidates may be in memory at once."""
    free, size = free_memory(Path("/")), parts.model_bytes or 0
    return free is None or 3 * _MEMORY_PER_MODEL_BYTE * size < free / 2


def _try(
    parts: Assembly, found: list[Choice], samples_per_query: int, budget_s: float, higher_is_better: bool, beat: Beat
) -> Trial:
    """Measure the candidates by turns until it is clear which is best, or the budget is spent.

    One that cannot be run is out of it; where the first cannot, nothing is measured: the run itself will say why. What
    takes so long to load that the budget would be spent is left alone.
    """
    trial = Trial(budget_s, found, [[] for _ in found])
    end = time.perf_counter() + budget_s
    with ExitStack() as stack:
        systems: dict[int, SUT] = {}
        longest_s = 0.0
        for number, choice in enumerate(found):
            begin = time.perf_counter()
            if begin + longest_s > end:
                break
            with suppress(Exception):
                systems[number] = _warm(stack, parts, choice, samples_per_query, beat)
            longest_s = max(longest_s, time.perf_counter() - begin)
        if 0 not in systems or len(systems) < 2:
            return trial
        with suppress(Exception):
            _take_turns(trial, systems, samples_per_query, end, higher_is_better, beat)
    return trial


def _take_turns(
    trial: Trial, systems: Mapping[int, SUT], samples_per_query: int, end: float, higher_is_better: bool, beat: Beat
) -> None:
    order = list(systems.items())
    for _ in range(_MOST_ROUNDS):
        for number, sut in order:
            ready = range(sut.library.performance_count)
            figure = window(sut.config.scenario, sut, ready, samples_per_query, _WINDOW_S, beat)
            trial.rounds[number].append(figure)
        if time.perf_counter() > end or not trial.is_open(higher_is_better):
            return
        order.reverse()


def _warm(stack: ExitStack, parts: Assembly, choice: Choice, samples_per_query: int, beat: Beat) -> SUT:
    """A candidate's system, ready. It keeps no tensors on disk: the run itself does."""
    config = choice.apply(parts.config)
    kept = {} if config.use_preprocessed_dataset else {"preprocessed_dir": None}
    parts = replace(parts, config=config.model_copy(update={"cache": False, **kept}))
    count = min(parts.dataset.count, _SAMPLES)
    sut = stack.enter_context(SUT(parts.config, loaded=lambda count: beat(), performance_samples=count, assembly=parts))
    sut.library.load(range(count))
    warm_up(config.scenario, sut, range(count), samples_per_query, beat)
    return sut
