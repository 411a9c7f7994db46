"""Runs one scenario in a child process, watches it, and knows what happened to it whatever that was.

Every wait has a bound: a child that makes no progress for the watchdog's time is killed, an interrupted one at once.
What the ledger recorded until then survives, because its memory is ours too.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sut.config import RunConfig
from sut.errors import ExitCode, one_line
from sut.models.preparation import Prepared
from sut.pipeline.identify.settings import cleaned_up, new_run
from sut.pipeline.ledger import Counter, Ledger, LedgerShape
from sut.process.cgroup import bytes_told, usable_cores
from sut.process.child import Child, Lines, Log, signal_name, spawn
from sut.process.clock import Steps, is_step, larger_change, look
from sut.process.messages import Failed, Step
from sut.process.signals import Noted
from sut.results.gpus import GpuUse
from sut.results.schema import Parity
from sut.results.stages import own_latency_ns
from sut.run.energy.metering import Metering
from sut.run.events import STORY, Checked, Event, Failure, Finished, Flushed, Loaded, Orders, Planned, Preprocessed
from sut.run.overrun import holders, why_long
from sut.run.pulse import Clock, Phase
from sut.run.reporter import Observer, Progress
from sut.version import own_version

WORKER_LOG = "worker.log"
_WATCHDOG_S = 30.0
_SETUP_WATCHDOG_S = 300.0
_GOODBYE_S = 15.0
_GROWTH_BYTES = 2**20
_GENERATION_SLACK = 20
"""A busy machine generates queries, and makes a summary of them, many times slower than a quiet one."""
_P99_WINDOW = 20_000
"""Samples that the p99 on the screen looks back at: looking must cost the run nothing."""


@dataclass(slots=True)
class Outcome:
    """What is known of a run after its process has ended. ``error`` is set if it did not come to its end."""

    started: float
    phase: str = "import"
    loaded: Loaded | None = None
    parity: Parity | None = None
    checked: Checked | None = None
    plan: Planned | None = None
    failure: str | None = None
    """What the first sample that failed, failed of."""
    flushed: bool = False
    finished: Finished | None = None
    ledger: Ledger | None = None
    error: str | None = None
    code: ExitCode = ExitCode.OK
    traceback: str | None = None
    interrupted: bool = False
    run_s: float | None = None
    load_average: tuple[float, float, float] = field(default_factory=os.getloadavg)
    """Of the machine, before there was a process."""
    version: str = field(default_factory=own_version)
    """Of this project, before there was a process."""
    notes: list[str] = field(default_factory=list)
    """What was noticed from outside."""
    clock_change_ns: int | None = None
    """The largest change of the system clock against the monotonic one that either process saw."""
    gpus: list[GpuUse] | None = None
    metering: Metering | None = None
    """What read the meters while it went."""

    def counter(self, which: Counter) -> int:
        """A counter of the run, 0 if it never started."""
        return int(self.ledger.counters[which]) if self.ledger is not None else 0


def supervise(
    config: RunConfig, prepared: Prepared | None, directory: Path, observer: Observer, outcome: Outcome, ending: Noted
) -> None:
    """Run one scenario to its end, however it ends, and put down in ``outcome`` what is known of it.

    What the child does, and a signal that comes to ``ending``, are outcomes; what is raised is a fault of this side.
    """
    memory = os.memfd_create("ledger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        run = new_run()
        orders = Orders(config, prepared, directory, memory, time.monotonic(), run)
        with (
            cleaned_up(config, run),
            (directory / WORKER_LOG).open("wb+") as log,
            spawn("sut.run.worker", orders, Log(log), [memory]) as child,
        ):
            _Watch(config, child, memory, outcome, observer, ending).watch()
    finally:
        os.close(memory)


class _Watch:
    """Follows the child by what it tells, by the memory that it shares and by the clocks."""

    def __init__(
        self, config: RunConfig, child: Child, memory: int, outcome: Outcome, observer: Observer, ending: Noted
    ) -> None:
        self._config, self._child, self._memory = config, child, memory
        self._outcome, self._observer, self._ending = outcome, observer, ending
        self._lines = Lines(STORY)
        self._clocks = Steps()
        self._clocks.see(look())
        self._moved = time.monotonic()
        self._seen = (-1, -1, -1)
        self._generated_s = 0.0
        self._resident: tuple[int, int] | None = None
        self._cores = usable_cores()

    def watch(self) -> None:
        """Follow the child until it has closed its end of the pipe, or there is a reason to stop it."""
        for chunk in self._child.chunks():
            understood = self._hear(chunk)
            self._show()
            if not understood or self._clock_was_set() or self._interrupted() or self._stalled():
                return
        self._say_goodbye()
        self._clock_was_set()

    def _hear(self, chunk: bytes) -> bool:
        """Take what the child told; False if that was no word of ours."""
        try:
            for event in self._lines.of(chunk):
                self._take(event)
        except Exception as error:  # it may be anybody's word, in any form
            self._fail(f"what the run's process told cannot be taken: {type(error).__name__}: {one_line(error)}")
            return False
        return True

    def _fail(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        self._outcome.error = message
        self._outcome.code = code

    def _interrupted(self) -> bool:
        if not self._ending.came:
            return False
        outcome = self._outcome
        outcome.interrupted = True
        outcome.code = ExitCode.INTERRUPTED
        self._hear(self._child.rest())
        self._notice_first_query()
        if outcome.phase == "run":
            outcome.run_s = self.elapsed_s()
        return True

    def _clock_was_set(self) -> bool:
        self._clocks.see(look())
        self._see_clock(self._clocks.change_ns)
        outcome, change_ns = self._outcome, self._outcome.clock_change_ns
        if change_ns is None or not is_step(change_ns):
            return False
        begun = outcome.counter(Counter.RUN_START_NS) > 0
        when = f"{self.elapsed_s():.1f} s into the run" if begun else f"in the phase '{outcome.phase}'"
        self._fail(f"the system clock was set by {change_ns / 1e9:+.3f} s, {when}: LoadGen counts by it")
        return True

    def _take(self, event: Event) -> None:
        self._moved = time.monotonic()
        outcome = self._outcome
        match event:
            case Phase():
                outcome.phase = event.phase
                self._observer.phase(event.phase)
            case Step():
                if outcome.phase in ("load", "samples") and event.total:
                    self._observer.loading(outcome.phase, event.done, event.total)
            case Loaded():
                outcome.loaded = event
            case Preprocessed():
                outcome.parity = event.parity
            case Checked():
                outcome.checked = event
            case Planned():
                outcome.plan, outcome.ledger = event, self._open_ledger(event.shape)
                self._observer.plan(event)
            case Failure():
                outcome.failure = event.message
                self._observer.failure(event.message)
            case Flushed():
                outcome.flushed = True
            case Clock():
                self._see_clock(event.clock_change_ns)
            case Finished():
                outcome.finished = event
                self._see_clock(event.clock_change_ns)
            case Failed():
                self._fail(event.named if event.code == ExitCode.FAILED else event.message, event.code)
                outcome.traceback = event.traceback

    def _open_ledger(self, shape: LedgerShape) -> Ledger:
        # Whoever cut it off would end this process too, by SIGBUS.
        fcntl.fcntl(self._memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return Ledger(shape, mmap.mmap(self._memory, shape.nbytes))

    def _see_clock(self, change_ns: int | None) -> None:
        self._outcome.clock_change_ns = larger_change(change_ns, self._outcome.clock_change_ns)

    def _notice_first_query(self) -> None:
        """The run begins with it; who issues it has no time to tell."""
        outcome = self._outcome
        if outcome.phase == "generate" and outcome.counter(Counter.ISSUED):
            self._generated_s, self._moved = self.elapsed_s(), time.monotonic()
            outcome.phase = "run"
            self._observer.phase("run")

    def _generating(self) -> bool:
        """Whether LoadGen still generates queries: it has issued none yet. It says nothing meanwhile, but it grows."""
        self._notice_first_query()
        planned = self._outcome.plan
        if self._outcome.phase != "generate" or planned is None:
            return False
        # 0 where that cannot be told.
        plan, resident = planned.plan, bytes_told(Path(f"/proc/{self._child.process.pid}/status"), "VmRSS") or 0
        first, last = self._resident or (resident, resident)
        # Less, too: LoadGen copies what it has into twice the memory, and frees the old one.
        if abs(resident - last) > _GROWTH_BYTES or not self._resident:
            self._resident, self._moved = (first, resident), time.monotonic()
        share = max(0, resident - first) / max(1, plan.generation_bytes)
        self._observer.generating(_left_s(self.elapsed_s(), share, plan.generation_s))
        return True

    def _wrapping_up(self) -> bool:
        """Whether all is answered, and LoadGen makes its summary of it, again without a word."""
        outcome = self._outcome
        if outcome.phase != "run" or not outcome.flushed:
            return False
        if outcome.counter(Counter.DONE) < outcome.counter(Counter.ISSUED):
            return False
        self._observer.phase("finish")
        return True

    def _show(self) -> None:
        outcome, planned = self._outcome, self._outcome.plan
        if self._generating() or self._wrapping_up() or outcome.phase != "run":
            return
        if outcome.ledger is None or planned is None:
            return
        done, expected = outcome.counter(Counter.DONE), outcome.counter(Counter.PLANNED)
        self._see_progress(done, outcome.counter(Counter.ISSUED), outcome.counter(Counter.HEARTBEAT))
        elapsed = outcome.run_s = self.elapsed_s()
        share = min(1.0, done / expected) if expected else 0.0
        left = _left_s(elapsed, share, planned.plan.seconds)
        latency = own_latency_ns(outcome.ledger, last=_P99_WINDOW)
        p99 = int(np.percentile(latency, 99)) if len(latency) else None
        failed = outcome.counter(Counter.FAILED)
        self._observer.progress(Progress(done, expected, elapsed, left, done / elapsed, p99, failed))
        if outcome.notes or planned.overload:  # which is the cause, and told
            return
        load = os.getloadavg()[0]
        if why := why_long(planned.plan, planned.min_query_count, done, elapsed, load, self._cores):
            outcome.notes.append(why)
            self._observer.note(why)

    def _see_progress(self, done: int, issued: int, beats: int) -> None:
        """A query that is issued is progress only where nothing waits: LoadGen's Server asks on whoever answers."""
        was_done, was_issued, were_beats = self._seen
        if (done, beats) != (was_done, were_beats) or (was_done == was_issued and issued != was_issued):
            self._moved = time.monotonic()
        self._seen = (done, issued, beats)

    def elapsed_s(self) -> float:
        """Seconds since the phase 'run' began, or 'generate' before it."""
        started_s = self._outcome.counter(Counter.RUN_START_NS) / 1e9
        return max(1e-3, time.monotonic() - started_s - self._generated_s)

    def _limit_s(self) -> float:
        asked_s, planned = self._config.watchdog_s, self._outcome.plan
        if self._outcome.phase not in ("generate", "run", "finish") or planned is None:
            return asked_s or _SETUP_WATCHDOG_S
        # A search generates anew for each of its runs. What is generated must be taken down as well.
        silent = self._outcome.phase != "run" or self._config.mode == "find_peak" or self._wrapping_up()
        silent_s = _GENERATION_SLACK * planned.plan.generation_s if silent else 0.0
        if asked_s is not None:
            return max(asked_s, silent_s)
        batch_s = planned.calibration.slowest_batch_ns / 1e9
        # LoadGen itself may pause between two queries of a slow Server schedule.
        gap_s = 1 / planned.server_target_qps if self._config.scenario == "Server" else 0.0
        return max(_WATCHDOG_S, 20 * batch_s, 20 * gap_s, silent_s)

    def _stalled(self) -> bool:
        limit = self._limit_s()
        if time.monotonic() - self._moved <= limit:
            return False
        outcome = self._outcome
        waiting = outcome.counter(Counter.ISSUED) - outcome.counter(Counter.DONE)
        where = f"in the phase '{outcome.phase}'"
        if outcome.phase == "run":
            names = " or ".join(self._holders())
            where = f"with {waiting} samples outstanding" + (f", the first of them on {names}" if names else "")
        self._fail(f"no progress for {limit:.0f} s {where}: the run was stopped (--watchdog sets the time)")
        return True

    def _holders(self) -> list[str]:
        """Which of several devices may have the first sample that waits, as far as the order of answers tells."""
        ledger, planned, config = self._outcome.ledger, self._outcome.plan, self._config
        by_deadline = config.scenario == "Server" and config.batching == "deadline"  # may answer later ones first
        if ledger is None or planned is None or by_deadline:
            return []
        return holders(ledger, planned.units, planned.settled.choice.lanes)

    def _say_goodbye(self) -> None:
        """The pipe is closed: the process is ending, in its own way or in another."""
        self._notice_first_query()
        code = self._child.wait(_GOODBYE_S, self._interrupted)
        outcome = self._outcome
        if outcome.interrupted or outcome.error is not None:
            return
        process, where = "the run's process", f"in the phase '{outcome.phase}'"
        if code is None:
            self._fail(f"{process} closed its pipe but did not end; it was stopped")
        elif code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            self._fail(f"{process} was killed by {signal_name(-code)}{hint} {where}")
        elif code > 0 or outcome.finished is None:
            self._fail(f"{process} ended by itself with exit code {code} {where}")
        elif self._lines.rest:
            self._fail(f"{process} ended in the middle of a word: {self._lines.rest[:80]!r}")


def _left_s(elapsed_s: float, share: float, planned_s: float) -> float:
    """Seconds that are left of something of which a share is done; at its beginning by the plan."""
    return elapsed_s * max(0.0, 1 - share) / share if share > 0.05 else max(0.0, planned_s - elapsed_s)
