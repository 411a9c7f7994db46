"""The only door to ``mlperf_loadgen``: settings in, answers through, logs out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import mlperf_loadgen as lg
import numpy as np
from numpy.typing import NDArray

from sut.errors import InputError
from sut.mlperf.official import benchmark_of
from sut.tasks.base import Payloads

Complete = Callable[[Sequence[int], Payloads | None], int]
"""Hands the answers of some samples to who asked; None for samples that failed. Returns when it did so, in ns."""

Settings = Any
"""``mlperf_loadgen.TestSettings``, which has no type stubs."""

MODES = {
    "performance": lg.TestMode.PerformanceOnly,
    "accuracy": lg.TestMode.AccuracyOnly,
    "find_peak": lg.TestMode.FindPeakPerformance,
}

# FromConfig's third argument: the rules inside the wheel, or the named file alone. Its mode 1 reads both, but only on
# the first call of a process: a second one leaves the seeds at 0.
_EMBEDDED = 0
_FILE_ONLY = 2


def settings_for(model: str, scenario: str, mode: str, confs: Sequence[Path]) -> Settings:
    """The embedded mlperf.conf's settings for a model and scenario, then each file of ``confs`` on top.

    ``model`` and ``scenario`` must be spelled as in mlperf.conf, which says of yolo not how many samples Offline must
    have: the table does. Raises ``InputError`` if LoadGen refuses a file.
    """
    settings = lg.TestSettings()
    for path, kind in ((b"", _EMBEDDED), *((os.fsencode(conf), _FILE_ONLY) for conf in confs)):
        if settings.FromConfig(path, model, scenario, kind) != 0:
            raise InputError(f"{os.fsdecode(path) or 'the embedded mlperf.conf'}: LoadGen refuses it")
        if kind == _EMBEDDED and scenario == "Offline":
            settings.min_query_count = max(settings.min_query_count, benchmark_of(model, model).offline_samples)
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = MODES[mode]
    return settings


_ASKED = {
    "SingleStream": ("single_stream_expected_latency_ns",),
    "MultiStream": ("multi_stream_expected_latency_ns", "multi_stream_samples_per_query"),
    "Server": ("server_target_qps", "server_target_latency_ns"),
    "Offline": ("offline_expected_qps",),
}


def asked(settings: Settings, samples: int, performance_samples: int) -> dict[str, str | int | float]:
    """What the detail log of a run with these settings and so many samples must say, by its keys."""
    scenario = settings.scenario.name
    names = ("min_duration_ms", "min_query_count", "performance_sample_count_override", *_ASKED[scenario])
    return {
        "effective_scenario": scenario,
        "effective_test_mode": settings.mode.name,
        "qsl_reported_total_count": samples,
        "qsl_reported_performance_count": performance_samples,
        **{f"requested_{name}": getattr(settings, name) for name in names},
    }


def obey_audit(settings: Settings, scenario: str, path: Path) -> None:
    """Set what LoadGen will take from an audit.config when it starts, so that it is planned for."""
    if settings.FromConfig(os.fsencode(path), "*", scenario, _FILE_ONLY) != 0:
        raise InputError(f"{path}: LoadGen refuses it")


def complete(ids: Sequence[int], payloads: Payloads | None) -> int:
    """Give LoadGen the answers of some samples, None for samples that failed. Returns when it was called, in ns.

    LoadGen copies the data while it is called, but wakes the issuer first: the memory that the answers lie in belongs
    to the calling thread alone, which writes there again only after the call has returned.
    """
    held = _Joined(payloads) if isinstance(payloads, list) else payloads
    built = responses(ids, held)
    now = time.time_ns()
    lg.QuerySamplesComplete(built)
    return now


class _Joined:
    """Answers of different lengths in one piece of memory, for as long as this object lives."""

    def __init__(self, payloads: list[bytes]) -> None:
        self.sizes = [len(payload) for payload in payloads]
        self.memory = np.frombuffer(b"".join(payloads) or b"\0", np.uint8)


class _Pool(threading.local):
    """A thread's own response objects, one per row of a thread's own memory.

    Making and freeing a response takes three times as long as giving an existing one another id.
    """

    def __init__(self) -> None:
        self.answers: NDArray[Any] = np.empty((0, 0), np.uint8)
        self.made: list[Any] = []

    def responses(self, ids: Sequence[int], payloads: NDArray[Any]) -> list[Any]:
        """Responses for ``ids`` with copies of the rows of ``payloads``."""
        count = len(ids)
        answers = self.answers
        if count > len(answers) or payloads.dtype != answers.dtype or payloads.shape[1:] != answers.shape[1:]:
            self._make(max(count, len(answers)), payloads)
        self.answers[:count] = payloads
        made = self.made[:count]
        for response, each in zip(made, ids, strict=True):
            response.id = each
        return made

    def _make(self, count: int, like: NDArray[Any]) -> None:
        self.answers = np.zeros((count, *like.shape[1:]), like.dtype)
        first, size = self.answers.ctypes.data, self.answers.strides[0]
        self.made = [lg.QuerySampleResponse(0, first + size * row, size) for row in range(count)]


_pool = _Pool()


def responses(ids: Sequence[int], payloads: NDArray[Any] | _Joined | None) -> list[Any]:
    """LoadGen's response objects, good until the next call of the same thread.

    They point into memory of this thread, or into ``payloads`` where those are of different lengths.
    """
    if payloads is None:
        return [lg.QuerySampleResponse(each, 0, 0) for each in ids]
    if isinstance(payloads, _Joined):
        sizes = payloads.sizes
        places = accumulate(sizes[:-1], initial=payloads.memory.ctypes.data)
        return [lg.QuerySampleResponse(*parts) for parts in zip(ids, places, sizes, strict=True)]
    return _pool.responses(ids, payloads)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What LoadGen calls. They run in the thread that called ``run`` and must not raise: the process would crash."""

    issue: Callable[[Sequence[int], Sequence[int]], None]
    flush: Callable[[], None]
    load: Callable[[Sequence[int]], None]
    unload: Callable[[Sequence[int]], None]
    name: Callable[[], str] | None = None
    """Of a system that is reached over a network, what it is called: asked before the first query and after the last,
    each time by a round trip."""


def run(
    callbacks: Callbacks,
    settings: Settings,
    samples: int,
    performance_samples: int,
    output: Path,
    audit: Path | None,
    trace: bool,
) -> None:
    """Run one test to its end; LoadGen's logs are in ``output``, which must exist.

    ``audit`` is an audit.config to obey. Without one, a file of that name in the current directory is not looked at.
    """
    logs = lg.LogSettings()
    logs.log_output.outdir = os.fsencode(output)  # any bytes, where a str had to be UTF-8
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = trace
    qsl = lg.ConstructQSL(samples, performance_samples, callbacks.load, callbacks.unload)
    sut, destroy = _constructed(callbacks)
    try:
        lg.StartTestWithLogSettings(sut, qsl, settings, logs, b"" if audit is None else os.fsencode(audit))
    finally:
        destroy(sut)
        lg.DestroyQSL(qsl)


def _constructed(callbacks: Callbacks) -> tuple[Any, Callable[[Any], None]]:
    """The system as LoadGen knows it, and what destroys that: only the one over a network can say its name."""
    if callbacks.name is None:
        return lg.ConstructFastSUT(callbacks.issue, callbacks.flush), lg.DestroyFastSUT

    def issue(samples: Sequence[Any]) -> None:
        callbacks.issue([each.id for each in samples], [each.index for each in samples])

    return lg.ConstructQDL(issue, callbacks.flush, callbacks.name), lg.DestroyQDL
