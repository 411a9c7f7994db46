"""The process that is driven: ``python -m sut.studies.driving.child``, started by ``drive``."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from sut.errors import RunError, one_line
from sut.models.preparation import check_unchanged
from sut.pipeline.assembly import assemble
from sut.pipeline.system import SUT
from sut.process.cgroup import allowed_cores, usable_cores
from sut.process.messages import from_text
from sut.process.telling import Teller, carry_out
from sut.results.parity import measure_quickly
from sut.run.pulse import Pulse
from sut.run.timing import calibrate
from sut.studies.driving.asking import Answers, clock
from sut.studies.driving.driven import Begun, Driven, Orders, Ready
from sut.studies.driving.driver import Driver

_CALIBRATION_S = 0.5
_WATCHDOG_S = 30.0


def _be_driven(text: str, teller: Teller) -> None:
    orders = from_text(Orders, text)
    if orders.cores is not None:
        _stay_on(orders.cores)
    pulse = Pulse(teller)
    parts = assemble(orders.config, progress=pulse.step, prepared=orders.prepared)
    answers = Answers()
    own = partial(SUT, orders.config, complete=answers.complete, clock=clock, loaded=pulse.loaded)
    with own(assembly=parts, run=orders.run or None) as sut:
        check_unchanged(orders.prepared)
        ready = range(sut.library.performance_count)
        pulse.samples = len(ready)
        sut.library.load(ready)
        warmed = _warmed(sut, ready, pulse)
        teller.tell(warmed)
        watchdog_s = sut.config.watchdog_s or max(_WATCHDOG_S, 20 * warmed.pace.slowest_batch_ns / 1e9)
        driver = Driver(sut, answers, ready, watchdog_s, pulse.beat)
        driven: list[Driven] = []
        for number, drive in enumerate(orders.drives):
            teller.tell(Begun(number))
            driven.append(driver.drive(drive.after(driven), number, orders.directory))
            teller.tell(driven[-1])


def _stay_on(cores: int) -> None:
    """Let all threads of this process, and those to come, run on the first so many of the cores that they may."""
    chosen = sorted(allowed_cores())[:cores]
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), chosen)


def _warmed(sut: SUT, ready: range, pulse: Pulse) -> Ready:
    """Run every batch size in every lane, and measure what a run would before it begins."""
    try:
        pace = calibrate("Server", sut, ready, 1, _CALIBRATION_S, pulse.beat)
    except Exception as error:
        what = one_line(error) if isinstance(error, RunError) else f"{type(error).__name__}: {one_line(error)}"
        raise RunError(f"failed in warm-up: {what}") from error
    config, bound_s = sut.config, sut.config.max_latency_s
    if bound_s is not None:
        sut.know_service_times(pace.batch_ns, int(1e9 * bound_s))
    timed = config.times_preprocessing and bool(sut.backend.inputs)
    parity = measure_quickly(sut.parts.preprocessor_for, sut.parts.spec.recipe) if timed else None
    return Ready(
        pace=pace,
        lanes=config.lane_count,
        threads=config.threads_per_lane,
        max_batchsize=sut.policy.max_batch,
        workers=config.preprocess_workers if sut.staged else 0,
        cores=usable_cores(),
        parity=parity,
    )


if __name__ == "__main__":
    carry_out(_be_driven)
