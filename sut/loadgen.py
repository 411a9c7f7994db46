"""The only door to ``mlperf_loadgen``: settings in, answers through, logs out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlperf_loadgen as lg
import numpy as np

from sut.errors import InputError
from sut.tasks.base import Payloads

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


def version() -> str:
    """Version of the LoadGen wheel."""
    from importlib.metadata import version as version_of

    return version_of("mlcommons-loadgen")


def settings_for(model: str, scenario: str, mode: str, confs: Sequence[Path]) -> Settings:
    """The embedded mlperf.conf's settings for a model and scenario, then each file of ``confs`` on top.

    ``model`` and ``scenario`` must be spelled as in mlperf.conf. Raises ``InputError`` if LoadGen refuses a file.
    """
    settings = lg.TestSettings()
    for path, kind in (("", _EMBEDDED), *((str(conf), _FILE_ONLY) for conf in confs)):
        if settings.FromConfig(path, model, scenario, kind) != 0:
            raise InputError(f"{path or 'the embedded mlperf.conf'}: LoadGen refuses it")
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = MODES[mode]
    return settings


def complete(ids: Sequence[int], payloads: Payloads | None) -> int:
    """Give LoadGen the answers of some samples, None for samples that failed. Returns when it was called, in ns.

    LoadGen copies the data while it is called, but wakes the issuer first: the memory the answers lie in must be theirs
    alone until it has returned, which holding ``payloads`` here sees to.
    """
    response = lg.QuerySampleResponse
    if payloads is None:
        responses = [response(each, 0, 0) for each in ids]
    elif isinstance(payloads, np.ndarray):
        size = payloads.strides[0]
        first = payloads.ctypes.data
        places = range(first, first + size * len(ids), size)
        responses = [response(each, at, size) for each, at in zip(ids, places, strict=True)]
    else:
        joined = np.frombuffer(b"".join(payloads) or b"\0", np.uint8)
        responses = []
        at = joined.ctypes.data
        for each, payload in zip(ids, payloads, strict=True):
            responses.append(response(each, at, len(payload)))
            at += len(payload)
    now = time.time_ns()
    lg.QuerySamplesComplete(responses)
    return now


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What LoadGen calls. They run in the thread that called ``run`` and must not raise: the process would crash."""

    issue: Callable[[Sequence[int], Sequence[int]], None]
    flush: Callable[[], None]
    load: Callable[[Sequence[int]], None]
    unload: Callable[[Sequence[int]], None]


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
    logs.log_output.outdir = str(output)
    logs.log_output.copy_summary_to_stdout = False
    logs.enable_trace = trace
    qsl = lg.ConstructQSL(samples, performance_samples, callbacks.load, callbacks.unload)
    sut = lg.ConstructFastSUT(callbacks.issue, callbacks.flush)
    try:
        lg.StartTestWithLogSettings(sut, qsl, settings, logs, "" if audit is None else str(audit))
    finally:
        lg.DestroyFastSUT(sut)
        lg.DestroyQSL(qsl)
