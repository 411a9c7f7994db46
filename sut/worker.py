"""One scenario run, in a process of its own: ``python -m sut.worker``, started by the supervisor.

It reads its orders from standard input (one JSON line), tells what happens over a pipe (one JSON line per event), and
writes ledger and counters into memory that the supervisor maps too. LoadGen can abort, hang and ignore Ctrl-C; the
supervisor cannot, so everything that must survive happens there.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from backends.base import DeviceNotFound
from kernels.device import DeviceNotFound as GpuNotFound
from sut.errors import ExitCode, RunError, SutError, one_line

_BEAT_S = 0.5
_CALIBRATION_SHARE = 0.2
_CALIBRATION_MAX_S = 1.5
_CALIBRATION_MIN_OFFLINE_S = 0.5
"""A rate taken from a shorter time makes short Offline runs INVALID where the machine is noisy."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Orders:
    """What the supervisor wants done. The descriptors are inherited.

    ``config`` is a dumped ``RunConfig``, ``prepared`` the dumped ``Prepared`` model.
    """

    config: dict[str, Any]
    prepared: dict[str, Any] | None
    directory: str
    events_fd: int
    memory_fd: int
    started: float


class Events:
    """The pipe to the supervisor. Threads share it; a line is one write."""

    def __init__(self, descriptor: int) -> None:
        self._pipe = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = threading.Lock()
        self._last_beat = 0.0
        self._loaded = 0

    def send(self, event: str, **fields: Any) -> None:
        """Tell the supervisor something. A supervisor that is gone is not told."""
        with self._lock, suppress(OSError):
            self._pipe.write(json.dumps({"event": event, **fields}) + "\n")
            self._pipe.flush()

    def beat(self, _: int = 0) -> None:
        """Tell that there is progress, twice a second at the most."""
        now = time.monotonic()
        if now - self._last_beat > _BEAT_S:
            self._last_beat = now
            self.send("beat", loaded=self._loaded)

    def loaded(self, count: int) -> None:
        """Tell that so many more samples are loaded."""
        self._loaded += count
        self.beat()


def main() -> None:
    """Carry out the orders on standard input and exit."""
    _live_and_die_with_parent()
    orders = Orders(**json.loads(sys.stdin.readline()))
    events = Events(orders.events_fd)
    threading.Thread(target=_exit_when_left_alone, daemon=True).start()
    try:
        _work(orders, events)
    except BaseException as error:
        _give_up(events, error)
    sys.stdout.flush()
    # Not a normal exit: runtimes with threads of their own have been seen to crash in their destructors.
    os._exit(ExitCode.OK)


def _live_and_die_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _exit_when_left_alone() -> None:
    """The supervisor keeps our standard input open for as long as it lives."""
    while os.read(0, 1):
        pass
    os._exit(ExitCode.INTERRUPTED)


def _give_up(events: Events, error: BaseException) -> NoReturn:
    code = code_of(error)
    text = one_line(error)
    if code == ExitCode.FAILED and not isinstance(error, SutError):
        text = f"{type(error).__name__}: {text}"
    events.send("error", code=int(code), message=text, traceback=traceback.format_exc())
    os._exit(code)


def code_of(error: BaseException) -> ExitCode:
    """What an error of our own, of a backend or of a preprocessor means for the exit code."""
    if isinstance(error, SutError):
        return error.exit_code
    if isinstance(error, (ModuleNotFoundError, DeviceNotFound, GpuNotFound)):
        return ExitCode.SETUP
    return ExitCode.USAGE if isinstance(error, ValueError) else ExitCode.FAILED


def _work(orders: Orders, events: Events) -> None:
    begin = time.time()
    events.send("phase", phase="import")
    from sut import loadgen
    from sut.assembly import assemble
    from sut.calibrate import calibrate, warm_tail
    from sut.config import RunConfig
    from sut.ledger import Counter, Ledger
    from sut.parity import measure_quickly
    from sut.planning import apply_calibration, apply_flags, make_plan
    from sut.preparation import Prepared
    from sut.system import SUT
    from sut.userconf import read_conf

    config = RunConfig(**orders.config)
    directory = Path(orders.directory)
    parts = assemble(config, prepared=Prepared.load(orders.prepared) if orders.prepared else None)
    conf = read_conf(config.user_conf) if config.user_conf else None
    confs = [path for path in (config.mlperf_conf, config.user_conf) if path]
    rules = parts.spec.loadgen_model
    settings = loadgen.settings_for(rules, config.scenario, config.mode, confs)
    notes = [*apply_flags(settings, config, conf, rules), *(parts.model.notes if parts.model else ())]
    at_a_time = min(settings.performance_sample_count_override or parts.dataset.count, parts.dataset.count)
    imported = time.time()

    events.send("phase", phase="load")
    sut = SUT(
        config,
        loaded=events.loaded,
        tell=lambda message: events.send("failure", message=message),
        performance_samples=at_a_time,
        assembly=parts,
    )
    loaded = time.time()
    attested = sut.backend.attest()
    events.send("attested", attested=asdict(attested), backend_version=type(sut.backend).version())
    if emulated := attested.details.get("emulated"):
        notes.append(f"emulated: {emulated}")

    if sut.backend.inputs and not config.use_preprocessed_dataset:
        parity = measure_quickly(parts.preprocessor_for, parts.spec.recipe)
        events.send("parity", parity=parity.model_dump())

    # In performance mode LoadGen loads these and no others; loading them here names a bad picture before the clock.
    ready = range(at_a_time if config.mode != "accuracy" else min(at_a_time, sut.policy.max_batch))
    events.send("phase", phase="samples", samples=len(ready))
    sut.library.load(ready)
    if config.mode != "accuracy":
        notes += sut.library.notes()

    events.send("phase", phase="calibrate")
    budget_s = min(_CALIBRATION_MAX_S, _CALIBRATION_SHARE * settings.min_duration_ms / 1000)
    if config.scenario == "Offline":
        budget_s = max(budget_s, _CALIBRATION_MIN_OFFLINE_S)
    try:
        measured = calibrate(
            config.scenario,
            sut,
            ready,
            settings.multi_stream_samples_per_query,
            budget_s,
            events.beat,
        )
    except BaseException as error:
        # The parts fitted together when they were loaded: what fails now fails in the work itself.
        what = one_line(error) if isinstance(error, RunError) else f"{type(error).__name__}: {one_line(error)}"
        raise RunError(f"failed before the run, in warm-up: {what}") from error
    notes += apply_calibration(settings, config, conf, rules, measured)
    sut.know_service_times(measured.batch_ns, int(settings.server_target_latency_ns))
    free = shutil.disk_usage(directory).free
    plan = make_plan(settings, config, measured, parts.dataset.count, free, notes)
    if config.scenario == "Offline":
        warm_tail(sut.lanes, sut.policy, ready, plan.samples)
    if config.mode == "accuracy":
        sut.library.unload(ready)

    shape = sut.ledger_shape(plan.most_samples, plan.trace)
    os.ftruncate(orders.memory_fd, shape.nbytes)
    ledger = Ledger(shape, mmap.mmap(orders.memory_fd, shape.nbytes))
    ledger.words[Counter.PLANNED] = plan.samples
    sut.start(ledger)
    events.send(
        "plan",
        plan=asdict(plan),
        line=plan.line(),
        shape=asdict(shape),
        calibration=asdict(measured),
        cold_start_s={
            "import": imported - orders.started,
            "load": loaded - imported,
            "first": measured.first_ns / 1e9,
        },
        setup_s=time.time() - begin,
        server_target_qps=settings.server_target_qps,
        server_target_latency_ns=int(settings.server_target_latency_ns),
        offline_expected_qps=settings.offline_expected_qps,
    )

    callbacks = loadgen.Callbacks(
        issue=_never_raising(sut.issue, events),
        flush=sut.flush,
        load=_never_raising(sut.library.load, events),
        unload=_never_raising(sut.library.unload, events),
    )
    # What is alive now stays: the collector need not look through it again in the middle of a run.
    gc.collect()
    gc.freeze()
    ledger.words[Counter.RUN_START_NS] = time.time_ns()
    events.send("phase", phase="run")
    cpu = time.process_time()
    loadgen.run(
        callbacks,
        settings,
        parts.dataset.count,
        at_a_time,
        directory,
        config.audit_conf and config.audit_conf.resolve(),
        plan.trace,
    )
    cpu_s = time.process_time() - cpu
    events.send("phase", phase="finish")
    sut.close()
    events.send(
        "finished",
        cpu_s=cpu_s,
        host_peak_bytes=_peak_memory_bytes(),
        failed_samples=sut.failures.samples,
        first_error=sut.failures.first_error,
        traceback=sut.failures.first_traceback,
        notes=[*sut.notes(), *(sut.library.notes() if config.mode == "accuracy" else [])],
    )


def _never_raising(callback: Callable[..., None], events: Events) -> Callable[..., None]:
    """An exception that reached LoadGen would crash the process a moment later, without a word."""

    def guarded(*arguments: Sequence[int]) -> None:
        try:
            callback(*arguments)
        except BaseException as error:
            _give_up(events, error)

    return guarded


def _peak_memory_bytes() -> int | None:
    """Peak resident memory of this process. (``ru_maxrss`` would count what its parent held when it was started.)"""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


if __name__ == "__main__":
    main()
