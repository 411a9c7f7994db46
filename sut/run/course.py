"""The course of a run, in the process that it has for itself: what is asked for is made ready, measured, and run."""

from __future__ import annotations

import gc
import mmap
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from backends.base import Traffic as Sent
from kernels.gpu_library import found_library
from sut.errors import RunError, one_line
from sut.mlperf import loadgen
from sut.mlperf.accuracy import Answered
from sut.mlperf.audit import read_audit
from sut.mlperf.userconf import read_conf
from sut.models.preparation import check_unchanged
from sut.pipeline.assembly import assemble
from sut.pipeline.ledger import Counter, Ledger
from sut.pipeline.system import SUT
from sut.process.affinity import cores_of_processes, cores_of_threads
from sut.process.cgroup import Periods, cpu_periods, cpu_quota, free_memory, held_back, most_throttled
from sut.process.memory import peak_bytes
from sut.process.messages import from_text
from sut.process.telling import Teller
from sut.results.parity import measure_quickly
from sut.results.quiet import Look, Quiet, between, look
from sut.results.schema import CpuQuota, Scaling, Traffic
from sut.run.answers import check
from sut.run.closed import end_where_broken, settings_broken
from sut.run.events import Checked, Failure, Finished, Flushed, Loaded, Orders, Planned, Preprocessed
from sut.run.identified import identified_by
from sut.run.network import end_when_gone, network_name, on_this_machine, weights_told
from sut.run.overload import fitting_qps, stop_overload
from sut.run.planning import Plan, Room, apply_calibration, make_plan, settings_before
from sut.run.pulse import Phase, Pulse, never_raising
from sut.run.scaling import scaling
from sut.run.timing import Pace, calibrate, warm_tail
from sut.run.trial import is_undisturbed, settle

_CALIBRATION_SHARE = 0.2
_CALIBRATION_MAX_S = 1.5
_CALIBRATION_MIN_OFFLINE_S = 0.5
"""A rate taken from a shorter time makes short Offline runs INVALID where the machine is noisy."""


_TOLD = ("emulated", "fallback", "training", "different_devices")
"""What is attested that a reader must know."""


class Course:
    """One run. ``began`` is a look at the machine before there was anything of it."""

    def __init__(self, orders: str, teller: Teller, pulse: Pulse, began: Look) -> None:
        self._orders = from_text(Orders, orders)
        self._teller, self._tell, self._pulse, self._began = teller, teller.tell, pulse, began
        self._config = config = self._orders.config
        self._cold_start_s: dict[str, float] = {}
        self._lap_s = self._orders.started_s
        self._broken: list[str] = []
        """Rules of MLPerf that are found to be broken in here."""
        self._traffic_before: Sent | None = None
        self._late_notes: list[str] = []
        """What is found out only in the run."""
        check_unchanged(self._orders.prepared)
        self._parts = assemble(config, progress=pulse.step, prepared=self._orders.prepared)
        self._rules = self._parts.spec.loadgen_model
        self._conf = read_conf(config.user_conf) if config.user_conf else None
        self._audit = read_audit(config.audit_conf, config.scenario, config.mode) if config.audit_conf else None
        self._settings, self._notes = self._settings_and_notes()
        count = self._parts.dataset.count
        self._at_a_time = min(self._settings.performance_sample_count_override or count, count)
        self._per_query = self._settings.multi_stream_samples_per_query
        self._sum = Answered(loadgen.complete) if self._is_accuracy else None

    def go(self) -> None:
        """All of it."""
        self._lap("import")
        self._settle()
        sut = self._load()
        self._tell_what_is_loaded(sut)
        self._check_parity(sut)
        ready = self._load_samples(sut)
        self._check_answers(sut, ready)
        measured = self._calibrate(sut, ready)
        self._scaling = self._scale(sut, ready)
        overload = self._set_what_is_open(sut, measured)
        self._end_where_broken(sut)
        plan = self._plan(measured, overload)
        self._warm_up_the_rest(sut, plan, ready)
        self._open_ledger(sut, plan)
        self._tell_plan(sut, plan, measured, overload)
        spent = self._run(sut, plan)
        self._finish(sut, *spent)

    @property
    def _is_accuracy(self) -> bool:
        return self._config.mode == "accuracy"

    def _lap(self, name: str) -> None:
        """Put down what it took to come here from where the last of these was, for ``cold_start_s``."""
        now = time.monotonic()
        self._cold_start_s[name], self._lap_s = now - self._lap_s, now

    def _settings_and_notes(self) -> tuple[loadgen.Settings, list[str]]:
        """What LoadGen is told before anything is measured, and what the user is."""
        settings, notes = settings_before(self._config, self._rules)
        self._obey_audit(settings)
        if self._audit is not None:
            notes.append(self._audit.words)
        if self._config.slowdown:
            notes.append("stages are stretched on purpose (slowdown): no figure of this run is the system's own")
        return settings, [*notes, *(self._parts.model.notes if self._parts.model else ())]

    def _obey_audit(self, settings: loadgen.Settings) -> None:
        """What LoadGen will do by itself when it starts, after all else was set."""
        if self._config.audit_conf is not None:
            loadgen.obey_audit(settings, self._config.scenario, self._config.audit_conf)

    def _settle(self) -> None:
        """Choose what is ``auto``: from here on there are numbers."""
        self._tell(Phase("load"))
        seconds = self._settings.min_duration_ms / 1000 if self._config.mode == "performance" else 0.0
        is_quiet = is_undisturbed(self._began) is True

        def begin() -> None:
            self._tell(Phase("choose"))

        self._settled = settle(self._parts, self._per_query, seconds, is_quiet, begin, self._pulse.beat)
        self._config = self._settled.choice.apply(self._config)
        self._parts = replace(self._parts, config=self._config)
        self._lap("choose")

    def _load(self) -> SUT:
        def failed(message: str) -> None:
            self._tell(Failure(message))
            if self._parts.backend.model_elsewhere:
                threading.Thread(target=end_when_gone, args=(sut,), name="servers", daemon=True).start()

        self._tell(Phase("load"))
        try:
            sut = SUT(
                self._config,
                loaded=self._pulse.loaded,
                tell=failed,
                performance_samples=self._at_a_time,
                assembly=self._parts,
                complete=self._sum.complete if self._sum else loadgen.complete,
                run=self._orders.run,
            )
            self._lap("load")
        finally:
            check_unchanged(self._parts.model)
            if self._parts.second is not None:
                check_unchanged(self._parts.second.model)
        return sut

    def _tell_what_is_loaded(self, sut: SUT) -> None:
        model, attested, version = self._parts.model, sut.backend.attest(), self._parts.backend.version()
        sums, details = model.loaded_sha256 if model else {}, attested.details
        self._tell(Loaded(sums, asdict(attested), attested.device_name, version, sut.output))
        self._notes += [f"{key}: {details[key]}" for key in _TOLD if key in details]
        self._attested = asdict(attested)
        self._broken += on_this_machine(self._config, self._parts)
        self._notes += weights_told(self._config, self._parts, self._attested)
        if attested.precision == "unknown":
            self._notes.append(f"in which precision {attested.device_name} executes the model, it does not tell")
        if model is not None and model.quantised and (work := details.get("multiply_accumulates")):
            self._notes.append(f"{self._config.backend} executes the quantised file's multiply-accumulates in {work}")

    def _check_parity(self, sut: SUT) -> None:
        forwards = self._parts.preprocessor.forwards()
        if not sut.backend.inputs or self._config.use_preprocessed_dataset or forwards:
            return
        taken = self._parts.shortcuts
        parity = measure_quickly(self._parts.preprocessor_for, self._parts.spec.recipe, with_large=bool(taken))
        self._tell(Preprocessed(parity))
        if taken:
            mean = f"{parity.mean_levels:.2g} levels on average"
            self._notes.append(f"{self._config.preprocess} takes {', '.join(taken)}: its pixels are off by {mean}")
        if not parity.within_1_level:
            off = f"{parity.max_levels} levels > 1 level" if parity.max_levels > 1 else "its padding is not exact"
            self._broken.append(f"parity of {self._config.preprocess}: {off}")

    def _load_samples(self, sut: SUT) -> range:
        """Load what calibration works on.

        In performance mode LoadGen loads these and no others; loading them here names a bad picture before the clock.
        """
        ready = range(min(self._at_a_time, sut.policy.max_batch) if self._is_accuracy else self._at_a_time)
        self._pulse.samples = len(ready)
        self._tell(Phase("samples"))
        sut.library.load(ready)
        if not self._is_accuracy:
            self._notes += sut.library.notes()
            self._broken += sut.library.rules_broken()
        return ready

    def _check_answers(self, sut: SUT, ready: range) -> None:
        self._tell(Phase("calibrate"))
        with _in_warm_up():
            found = check(sut, ready, self._per_query, self._pulse.beat)
        self._tell(Checked(found.answers, found.depends))
        self._notes += found.notes
        self._broken += found.broken

    def _calibrate(self, sut: SUT, ready: range) -> Pace:
        with _in_warm_up():
            return calibrate(self._config.scenario, sut, ready, self._per_query, self._budget_s, self._pulse.beat)

    def _scale(self, sut: SUT, ready: range) -> Scaling | None:
        if len(sut.parts.units) == 1 or self._config.scenario == "SingleStream":
            return None
        with _in_warm_up():
            found = scaling(sut, ready, self._per_query, self._budget_s, self._pulse.beat)
        if found is None:
            self._notes.append(
                "scaling is unknown: twice the work took hardly longer, so the machine was busy meanwhile"
            )
        return found

    @property
    def _budget_s(self) -> float:
        """Seconds for what is measured before a run of this length."""
        budget_s: float = min(_CALIBRATION_MAX_S, _CALIBRATION_SHARE * self._settings.min_duration_ms / 1000)
        return max(budget_s, _CALIBRATION_MIN_OFFLINE_S) if self._config.scenario == "Offline" else budget_s

    def _set_what_is_open(self, sut: SUT, measured: Pace) -> str | None:
        """Tell LoadGen and the batching what was measured.

        Returns what the user is told of a Server run that is asked for too much, and that LoadGen will stop.
        """
        config, settings, overload = self._config, self._settings, None
        self._room = Room(shutil.disk_usage(self._orders.directory).free, free_memory(Path("/")))
        self._notes += apply_calibration(settings, config, self._conf, self._rules, measured, self._room.memory)
        self._obey_audit(settings)
        if config.scenario == "Server" and (overload := stop_overload(settings, config, self._is_open, measured)):
            self._notes.append(overload)
        sut.know_service_times(measured.batch_ns, int(settings.server_target_latency_ns))
        return overload

    def _end_where_broken(self, sut: SUT) -> None:
        """Of a run by ``--rules``: all is known now that can be before LoadGen asks."""
        told = settings_broken(self._config, self._parts, self._settings, self._audit, self._attested)
        end_where_broken(self._config, [*told, *self._broken, *sut.library.rules_broken()])

    def _is_open(self, key: str) -> bool:
        return self._conf is None or not self._conf.sets(self._rules, "Server", key)

    def _plan(self, measured: Pace, overload: str | None) -> Plan:
        count, is_overload = self._parts.dataset.count, overload is not None
        return make_plan(self._settings, self._config, measured, count, self._room, self._notes, is_overload)

    def _warm_up_the_rest(self, sut: SUT, plan: Plan, ready: range) -> None:
        if self._config.scenario == "Offline":
            warm_tail(sut.lanes, sut.policy, ready, plan.samples)
        if self._is_accuracy:
            sut.library.unload(ready)

    def _open_ledger(self, sut: SUT, plan: Plan) -> None:
        """Make the run's ledger in the supervisor's memory."""
        shape = sut.ledger_shape(plan.most_samples, plan.trace)
        os.ftruncate(self._orders.memory_fd, shape.nbytes)
        ledger = Ledger(shape, mmap.mmap(self._orders.memory_fd, shape.nbytes))
        ledger.words[Counter.PLANNED] = plan.samples
        sut.start(ledger)

    def _tell_plan(self, sut: SUT, plan: Plan, measured: Pace, overload: str | None) -> None:
        config, settings = self._config, self._settings
        self._tell(
            Planned(
                plan=plan,
                settled=self._settled,
                hint=sut.backend.attest().details.get("performance_hint"),
                calibration=measured,
                shape=sut.ledger.shape,
                asked=loadgen.asked(settings, self._parts.dataset.count, self._at_a_time),
                rules_broken=tuple(self._broken),
                cold_start_s={**self._cold_start_s, "first": measured.first_ns / 1e9},
                audit=self._audit,
                overload=overload,
                fitting_qps=fitting_qps(config, settings, measured) if config.scenario == "Server" else None,
                min_query_count=settings.min_query_count,
                server_target_qps=settings.server_target_qps,
                scaling=self._scaling,
                units=tuple(unit.name for unit in sut.parts.units),
                thread_cores=self._thread_cores(sut),
            )
        )

    def _thread_cores(self, sut: SUT) -> dict[str, str]:
        """On which cores the threads are, that which asks being this one; nothing where nobody has asked for any."""
        if self._config.affinity is None:
            return {}
        with sut.asking():
            return cores_of_threads() | cores_of_processes(sut.processes)

    def _run(self, sut: SUT, plan: Plan) -> tuple[float, Quiet, CpuQuota | None]:
        """Let LoadGen ask. Returns the CPU time that took in seconds, and what disturbed it."""
        callbacks = self._callbacks(sut)
        # What is alive now stays: the collector need not look through it again in the middle of a run.
        gc.collect()
        gc.freeze()
        sut.ledger.words[Counter.RUN_START_NS] = time.monotonic_ns()
        sut.ledger.words[Counter.RUN_START_SYSTEM_NS] = time.time_ns()
        # In accuracy mode LoadGen loads pictures first, and generates little.
        self._tell(Phase("run" if self._is_accuracy else "generate"))
        self._traffic_before = sut.backend.traffic()
        periods, ready, cpu = cpu_periods(Path("/")), look(os.getppid()), sut.cpu_s()
        audit = self._config.audit_conf and self._config.audit_conf.resolve()
        sizes = (self._parts.dataset.count, self._at_a_time)
        with sut.asking():
            loadgen.run(callbacks, self._settings, *sizes, self._orders.directory, audit, plan.trace)
        cpu_s = sut.cpu_s() - cpu
        quiet = between(ready, look(os.getppid()), before=between(self._began, ready))
        return cpu_s, quiet, self._held_back(periods)

    def _callbacks(self, sut: SUT) -> loadgen.Callbacks:
        def flush() -> None:
            """Told, because LoadGen needs long for what comes then if it has asked much."""
            sut.flush()
            if self._config.mode == "performance":
                self._tell(Flushed())

        issue = self._sum.issuing(sut.issue) if self._sum else sut.issue
        calls = (issue, flush, sut.library.load, sut.library.unload)
        asked, flushed, load, unload = (never_raising(call, self._teller) for call in calls)
        is_far = self._parts.backend.model_elsewhere
        name = never_raising(lambda: network_name(sut), self._teller) if is_far else None
        return loadgen.Callbacks(asked, flushed, load, unload, name)

    def _held_back(self, before: Periods) -> CpuQuota | None:
        """The quota of cores and what it did to the run; more than a little is told, and breaks a rule."""
        cores, spent = cpu_quota(Path("/")), most_throttled(before, cpu_periods(Path("/")))
        if cores is None or spent is None:
            return None
        periods, throttled = spent
        if told := held_back(cores, periods, throttled):
            self._late_notes.append(told)
            self._broken.append(told)
        return CpuQuota(cores=cores, periods=periods, throttled_periods=throttled)

    def _traffic(self, sut: SUT) -> Traffic | None:
        """What went to servers in the run alone."""
        before, now = self._traffic_before, sut.backend.traffic()
        if before is None or now is None:
            return None
        return Traffic(
            requests=now.requests - before.requests,
            sent_bytes=now.sent_bytes - before.sent_bytes,
            received_bytes=now.received_bytes - before.received_bytes,
        )

    def _finish(self, sut: SUT, cpu_s: float, quiet: Quiet, quota: CpuQuota | None) -> None:
        """Tell what is known only afterwards."""
        self._tell(Phase("finish"))
        if self._parts.model is not None and len(self._parts.model.loads) > 1:
            check_unchanged(self._parts.model)  # runtimes map weights in files of their own, and read them all along
        traffic = self._traffic(sut)
        never_raising(sut.backend.check_unchanged, self._teller)()
        sut.close()
        identified = identified_by(sut.second) if sut.second is not None else None
        if sut.second is not None and self._config.keep_samples:
            sut.second.save(self._orders.directory)
        data_broken, data_notes = [], []
        if self._is_accuracy:
            data_broken, data_notes = sut.library.rules_broken(), sut.library.notes()
        self._tell(
            Finished(
                cpu_s=cpu_s,
                clock_change_ns=self._pulse.look_at_clock(),
                host_peak_bytes=peak_bytes(),
                first_error=sut.failures.first_error,
                cpu_quota=quota,
                quiet=quiet,
                rules_broken=(*self._broken, *sut.redone(), *data_broken),
                data_broken=bool(data_broken),
                answers_sum=self._sum.sum if self._sum else None,
                notes=(*self._late_notes, *sut.notes(), *data_notes),
                identified=identified,
                traffic=traffic,
                cuda_library=found_library(),
            )
        )


@contextmanager
def _in_warm_up() -> Iterator[None]:
    """The parts fitted together when they were loaded: what fails now fails in the work itself."""
    try:
        yield
    except BaseException as error:
        what = one_line(error) if isinstance(error, RunError) else f"{type(error).__name__}: {one_line(error)}"
        raise RunError(f"failed before the run, in warm-up: {what}") from error
