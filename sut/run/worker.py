"""One scenario run, in a process of its own: ``python -m sut.run.worker``, started by the supervisor.

Its orders are JSON on the command line; it tells what happens over a pipe (one JSON line per event), and writes ledger
and counters into memory that the supervisor maps too. LoadGen can abort, hang and ignore Ctrl-C; the supervisor cannot,
so everything that must survive happens there.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sut.errors import ExitCode, RunError, one_line
from sut.pipeline.ledger import Counter, Ledger
from sut.process.cgroup import Periods, cpu_periods, cpu_quota, free_memory, held_back, most_throttled
from sut.process.child import die_with_parent
from sut.process.signals import ENDING
from sut.results.quiet import between, look
from sut.run.events import Events, Orders, give_up, in_the_run, never_raising

if TYPE_CHECKING:
    from sut.pipeline.system import SUT
    from sut.results.schema import CpuQuota
    from sut.run.planning import Plan
    from sut.run.timing import Calibration

_CALIBRATION_SHARE = 0.2
_CALIBRATION_MAX_S = 1.5
_CALIBRATION_MIN_OFFLINE_S = 0.5
"""A rate taken from a shorter time makes short Offline runs INVALID where the machine is noisy."""


def main() -> None:
    """Carry out the orders on the command line and exit."""
    die_with_parent()
    for which in ENDING:
        # The supervisor hears them too, and ends this process. Not ignored: what is started in here would inherit that.
        signal.signal(which, lambda number, frame: None)
    orders, events = Orders(**json.loads(sys.argv[1])), Events(int(sys.argv[2]))
    # A lane that dies answers nobody any more, and LoadGen would wait for it.
    threading.excepthook = lambda died: give_up(events, in_the_run(died.exc_value or died.exc_type()))
    threading.Thread(target=events.watch, daemon=True).start()
    try:
        _Run(orders, events).go()
    except BaseException as error:
        give_up(events, error)
    with suppress(OSError):  # a full disk: what was printed is not worth the run
        sys.stdout.flush()
    # Not a normal exit: runtimes with threads of their own have been seen to crash in their destructors.
    os._exit(ExitCode.OK)


class _Run:
    """One run, phase by phase. What is imported here is what takes long, so the supervisor is told before."""

    def __init__(self, orders: Orders, events: Events) -> None:
        self._began_s = time.monotonic()
        self._began = look(os.getppid())
        self._orders = orders
        self._events = events
        events.send("phase", phase="import")
        from sut.config import RunConfig
        from sut.mlperf import loadgen
        from sut.mlperf.accuracy import Answered
        from sut.mlperf.audit import read_audit
        from sut.mlperf.userconf import read_conf
        from sut.models.preparation import Prepared, check_unchanged
        from sut.pipeline.assembly import assemble
        from sut.run.planning import apply_flags

        self._config = config = RunConfig(**orders.config)
        self._directory = Path(orders.directory)
        prepared = Prepared.load(orders.prepared) if orders.prepared else None
        check_unchanged(prepared)
        self._parts = assemble(config, prepared=prepared)
        self._conf = read_conf(config.user_conf) if config.user_conf else None
        confs = [path for path in (config.mlperf_conf, config.user_conf) if path]
        self._rules = self._parts.spec.loadgen_model
        self._settings = loadgen.settings_for(self._rules, config.scenario, config.mode, confs)
        self._notes = apply_flags(self._settings, config, self._conf, self._rules)
        self._broken: list[str] = []
        """Rules of MLPerf that are found to be broken in here."""
        self._audit = read_audit(config.audit_conf, config.scenario, config.mode) if config.audit_conf else None
        self._obey_audit()
        if self._audit is not None:
            self._notes.append(self._audit.words)
            self._broken.append(f"an audit ({self._audit.test or self._audit.file}) is no result")
        self._notes += self._parts.model.notes if self._parts.model else ()
        count = self._parts.dataset.count
        self._at_a_time = min(self._settings.performance_sample_count_override or count, count)
        self._answered = Answered(loadgen.complete) if config.mode == "accuracy" else None
        self._late_notes: list[str] = []
        """What is found out only in the run."""
        self._imported_s = time.monotonic()

    def _obey_audit(self) -> None:
        """What LoadGen will do by itself when it starts, after all else was set."""
        from sut.mlperf.loadgen import obey_audit

        if self._config.audit_conf is not None:
            obey_audit(self._settings, self._config.scenario, self._config.audit_conf)

    def go(self) -> None:
        """All of it."""
        self._settle()
        sut = self._load()
        ready = self._load_samples(sut)
        self._check_answers(sut, ready)
        measured = self._calibrate(sut, ready)
        plan = self._plan(sut, measured, ready)
        self._run(sut, plan)

    def _settle(self) -> None:
        """Choose what is ``auto``: from here on there are numbers."""
        from sut.run.trial import is_undisturbed, settle

        settings, events = self._settings, self._events
        events.send("phase", phase="load")
        seconds = settings.min_duration_ms / 1000 if self._config.mode == "performance" else 0.0

        def begin() -> None:
            events.send("phase", phase="choose")

        per_query = settings.multi_stream_samples_per_query
        is_quiet = is_undisturbed(self._began) is True
        self._settled = found = settle(self._parts, per_query, seconds, is_quiet, begin, events.beat)
        self._config = found.choice.apply(self._config)
        self._parts = replace(self._parts, config=self._config)
        self._settled_s = time.monotonic()

    def _load(self) -> SUT:
        from sut.mlperf import loadgen
        from sut.models.preparation import check_unchanged
        from sut.pipeline.system import SUT
        from sut.results.parity import measure_quickly

        events, parts = self._events, self._parts
        events.send("phase", phase="load")
        try:
            sut = SUT(
                self._config,
                loaded=events.loaded,
                tell=lambda message: events.send("failure", message=message),
                performance_samples=self._at_a_time,
                assembly=parts,
                complete=self._answered.complete if self._answered else loadgen.complete,
            )
            self._loaded_s = time.monotonic()
        finally:
            check_unchanged(parts.model)
        if parts.model is not None:
            events.send("loaded", sha256=parts.model.loaded_sha256)
        attested = sut.backend.attest()
        version = type(sut.backend).version()
        events.send("attested", attested=asdict(attested), backend_version=version, output=sut.output)
        self._notes += [
            f"{key}: {attested.details[key]}" for key in ("emulated", "fallback") if key in attested.details
        ]
        if parts.model is not None and parts.model.quantised and (work := attested.details.get("multiply_accumulates")):
            self._notes.append(f"{self._config.backend} executes the quantised file's multiply-accumulates in {work}")
        if sut.backend.inputs and not self._config.use_preprocessed_dataset:
            parity = measure_quickly(parts.preprocessor_for, parts.spec.recipe)
            events.send("parity", parity=parity.model_dump())
            if not parity.within_1_level:
                self._broken.append(f"parity of {self._config.preprocess}: {parity.max_levels} levels > 1 level")
        return sut

    def _load_samples(self, sut: SUT) -> range:
        """Load what calibration works on.

        In performance mode LoadGen loads these and no others; loading them here names a bad picture before the clock.
        """
        accuracy = self._config.mode == "accuracy"
        ready = range(min(self._at_a_time, sut.policy.max_batch) if accuracy else self._at_a_time)
        self._events.send("phase", phase="samples", samples=len(ready))
        sut.library.load(ready)
        if not accuracy:
            self._notes += sut.library.notes()
            self._broken += sut.library.rules_broken()
        return ready

    def _check_answers(self, sut: SUT, ready: range) -> None:
        from sut.run.answers import check

        self._events.send("phase", phase="calibrate")
        with _in_warm_up():
            found = check(sut, ready, self._settings.multi_stream_samples_per_query, self._events.beat)
        self._events.send("answers", answers=found.answers and found.answers.model_dump(), depend=found.depends)
        self._notes += found.notes
        self._broken += found.broken

    def _calibrate(self, sut: SUT, ready: range) -> Calibration:
        from sut.run.timing import calibrate

        settings, scenario = self._settings, self._config.scenario
        budget_s = min(_CALIBRATION_MAX_S, _CALIBRATION_SHARE * settings.min_duration_ms / 1000)
        if scenario == "Offline":
            budget_s = max(budget_s, _CALIBRATION_MIN_OFFLINE_S)
        with _in_warm_up():
            return calibrate(scenario, sut, ready, settings.multi_stream_samples_per_query, budget_s, self._events.beat)

    def _plan(self, sut: SUT, measured: Calibration, ready: range) -> Plan:
        """Decide on the run, make its ledger in the supervisor's memory, and tell it both."""
        from sut.mlperf import loadgen
        from sut.run.overload import fitting_qps
        from sut.run.planning import Room, apply_calibration, make_plan
        from sut.run.timing import warm_tail

        config, settings = self._config, self._settings
        free = Room(shutil.disk_usage(self._directory).free, free_memory(Path("/")))
        self._notes += apply_calibration(settings, config, self._conf, self._rules, measured, free.memory)
        self._obey_audit()
        overload = self._stop_overload(measured)
        sut.know_service_times(measured.batch_ns, int(settings.server_target_latency_ns))
        plan = make_plan(settings, config, measured, self._parts.dataset.count, free, self._notes, bool(overload))
        if config.scenario == "Offline":
            warm_tail(sut.lanes, sut.policy, ready, plan.samples)
        if config.mode == "accuracy":
            sut.library.unload(ready)
        shape = sut.ledger_shape(plan.most_samples, plan.trace)
        os.ftruncate(self._orders.memory_fd, shape.nbytes)
        ledger = Ledger(shape, mmap.mmap(self._orders.memory_fd, shape.nbytes))
        ledger.words[Counter.PLANNED] = plan.samples
        sut.start(ledger)
        self._events.send(
            "plan",
            plan=asdict(plan) | self._settled.facts(sut.backend.attest().details.get("performance_hint")),
            line=plan.line(),
            settled=self._settled.line(config.scenario),
            tried=self._settled.key,
            asked=loadgen.asked(settings, self._parts.dataset.count, self._at_a_time),
            rules_broken=self._broken,
            shape=asdict(shape),
            calibration=asdict(measured),
            cold_start_s={
                "import": self._imported_s - self._orders.started_s,
                "choose": self._settled_s - self._imported_s,
                "load": self._loaded_s - self._settled_s,
                "first": measured.first_ns / 1e9,
            },
            setup_s=time.monotonic() - self._began_s,
            audit=self._audit.model_dump() if self._audit else None,
            overload=overload,
            fitting_qps=fitting_qps(config, settings, measured) if config.scenario == "Server" else None,
            min_query_count=settings.min_query_count,
            server_target_qps=settings.server_target_qps,
            server_target_latency_ns=int(settings.server_target_latency_ns),
            offline_expected_qps=settings.offline_expected_qps,
        )
        return plan

    def _stop_overload(self, measured: Calibration) -> str | None:
        """Have LoadGen stop a Server run that is asked for too much. Returns what the user is told of it."""
        from sut.run.overload import stop_overload

        def unset(key: str) -> bool:
            return self._conf is None or not self._conf.sets(self._rules, "Server", key)

        if self._config.scenario != "Server":
            return None
        words = stop_overload(self._settings, self._config, unset, measured)
        self._notes += [words] if words else []
        return words

    def _run(self, sut: SUT, plan: Plan) -> None:
        """Let LoadGen ask, and tell what is known only afterwards."""
        from sut.mlperf import loadgen
        from sut.models.preparation import check_unchanged

        events, config = self._events, self._config
        callbacks = loadgen.Callbacks(
            issue=never_raising(self._answered.issuing(sut.issue) if self._answered else sut.issue, events),
            flush=never_raising(lambda: self._flushed(sut), events),
            load=never_raising(sut.library.load, events),
            unload=never_raising(sut.library.unload, events),
        )
        # What is alive now stays: the collector need not look through it again in the middle of a run.
        gc.collect()
        gc.freeze()
        sut.ledger.words[Counter.RUN_START_NS] = time.monotonic_ns()
        sut.ledger.words[Counter.RUN_START_SYSTEM_NS] = time.time_ns()
        # In accuracy mode LoadGen loads pictures first, and generates little.
        events.send("phase", phase="run" if config.mode == "accuracy" else "generate")
        periods = cpu_periods(Path("/"))
        ready = look(os.getppid())
        cpu = time.process_time()
        audit = config.audit_conf and config.audit_conf.resolve()
        sizes = (self._parts.dataset.count, self._at_a_time)
        loadgen.run(callbacks, self._settings, *sizes, self._directory, audit, plan.trace)
        cpu_s = time.process_time() - cpu
        quiet = between(ready, look(os.getppid()), before=between(self._began, ready))
        quota = self._held_back(periods)
        events.send("phase", phase="finish")
        if self._parts.model is not None and len(self._parts.model.loads) > 1:
            check_unchanged(self._parts.model)  # runtimes map weights in files of their own, and read them all along
        sut.close()
        data_broken = sut.library.rules_broken() if config.mode == "accuracy" else []
        events.send(
            "finished",
            cpu_s=cpu_s,
            clock_change_ns=events.look_at_clock(),
            host_peak_bytes=_peak_memory_bytes(),
            failed_samples=sut.failures.samples,
            first_error=sut.failures.first_error,
            traceback=sut.failures.first_traceback,
            cpu_quota=quota.model_dump() if quota else None,
            quiet=asdict(quiet),
            rules_broken=[*self._broken, *data_broken],
            data_broken=bool(data_broken),
            answers_sum=self._answered.sum if self._answered else None,
            notes=[*self._late_notes, *sut.notes(), *(sut.library.notes() if config.mode == "accuracy" else [])],
        )

    def _flushed(self, sut: SUT) -> None:
        """LoadGen has asked its last. Told, because it needs long for what comes then if it has asked much."""
        sut.flush()
        if self._config.mode == "performance":
            self._events.send("flushed")

    def _held_back(self, before: Periods) -> CpuQuota | None:
        """The quota of cores and what it did to the run; more than a little is told, and breaks a rule."""
        from sut.results.schema import CpuQuota

        cores = cpu_quota(Path("/"))
        spent = most_throttled(before, cpu_periods(Path("/")))
        if cores is None or spent is None:
            return None
        periods, throttled = spent
        if told := held_back(cores, periods, throttled):
            self._late_notes.append(told)
            self._broken.append(told)
        return CpuQuota(cores=cores, periods=periods, throttled_periods=throttled)


@contextmanager
def _in_warm_up() -> Iterator[None]:
    """The parts fitted together when they were loaded: what fails now fails in the work itself."""
    try:
        yield
    except BaseException as error:
        what = one_line(error) if isinstance(error, RunError) else f"{type(error).__name__}: {one_line(error)}"
        raise RunError(f"failed before the run, in warm-up: {what}") from error


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
