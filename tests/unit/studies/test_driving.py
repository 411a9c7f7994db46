"""Loads on planted devices that sleep: what is asked when, and what is taken down, failures and faults included."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends.base import Slot
from backends.simulated import SimulatedRunner
from sut.config import make_config
from sut.errors import InputError, RunError
from sut.pipeline.assembly import assemble
from sut.pipeline.system import SUT
from sut.process.clock import Pair
from sut.studies.driving import asking
from sut.studies.driving.asking import Answers, Asking, clock
from sut.studies.driving.drive import _Heard, drive
from sut.studies.driving.driven import Drive, Driven, Ready
from sut.studies.driving.driver import Driver
from sut.studies.driving.loads import Alone, Bursts, Closed, FromFile, Load, OpenLoad, Poisson, arrivals_ns

MS = 1_000_000


def config(a_ms: float, b_ms: float = 0.0, **settings: Any) -> Any:
    planted = {"a_ms": a_ms, "b_ms": b_ms}
    return make_config({"backend": "simulated", "backend_options": planted, "scenario": "Server", **settings})


@contextmanager
def driver(a_ms: float, b_ms: float = 0.0, watchdog_s: float = 30.0, **settings: Any) -> Iterator[Driver]:
    answers, parts = Answers(), assemble(config(a_ms, b_ms, **settings))
    with SUT(parts.config, complete=answers.complete, clock=clock, assembly=parts) as sut:
        sut.library.load(range(3))
        yield Driver(sut, answers, range(3), watchdog_s)


def faulty(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> None:
    """Have every batch of the simulated backend do something ``before``."""
    infer = SimulatedRunner.infer

    def planted(self: SimulatedRunner, slot: Slot) -> Mapping[str, Any]:
        before()
        return infer(self, slot)

    monkeypatch.setattr(SimulatedRunner, "infer", planted)


def stalling(monkeypatch: pytest.MonkeyPatch, after: int, for_s: float) -> None:
    """The backend stalls once, after so many batches."""
    batches = itertools.count()

    def stall() -> None:
        if next(batches) == after:
            time.sleep(for_s)

    faulty(monkeypatch, stall)


# ---- when what is asked


def test_arrivals_are_a_poisson_process() -> None:
    gaps = np.diff(arrivals_ns(Poisson(1000, seed=3), 20.0)) / 1e9

    # Mean and deviation of an exponential distribution are the same; of 20,000 gaps both are known to 1 %.
    assert gaps.mean() == pytest.approx(1e-3, rel=0.03)
    assert gaps.std() == pytest.approx(1e-3, rel=0.03)
    assert not np.array_equal(arrivals_ns(Poisson(10, 1), 2.0), arrivals_ns(Poisson(10, 2), 2.0))


def test_bursts_come_at_once_and_at_equal_intervals() -> None:
    found = arrivals_ns(Bursts(3, rate=6), 1.0)

    assert found.tolist() == [0, 0, 0, 500 * MS, 500 * MS, 500 * MS]


def test_arrivals_of_a_file_up_to_the_end_of_the_load(tmp_path: Path) -> None:
    (tmp_path / "arrivals").write_text("0\n0.25\n\n0.25\n2.5\n")

    assert arrivals_ns(FromFile(tmp_path / "arrivals"), 2.0).tolist() == [0, 250 * MS, 250 * MS]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0\n1\n0.5\n", "line 3: 0.5 s comes after 1 s; times of arrival cannot go back"),
        ("0\nsoon\n", "line 2: got 'soon', expected a time of arrival in seconds"),
        ("-1\n", "line 1: got '-1', expected"),
        ("0\nnan\n", "line 2: got 'nan', expected"),
        ("\n", "no times of arrival"),
    ],
)
def test_a_file_that_is_no_list_of_arrivals_is_told_by_its_line(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "arrivals").write_text(text)

    with pytest.raises(InputError, match=expected):
        arrivals_ns(FromFile(tmp_path / "arrivals"), 10.0)


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        arrivals_ns(FromFile(Path("nowhere")), 1.0)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Closed(0), "from 1 to 65,536 can be outstanding"),
        (lambda: Closed(65_537), "from 1 to 65,536 can be outstanding"),
        (lambda: Poisson(0.0), "expected a number over 0"),
        (lambda: Alone(float("inf")), "expected a number over 0"),
        (lambda: Bursts(0, 1.0), "from 1 to 65,536 can come at once"),
        (lambda: arrivals_ns(Poisson(1e6), 10.0), "10,000,000 requests, more than the 2,000,000"),
    ],
)
def test_what_cannot_be_asked_is_refused(make: Callable[[], object], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        make()


# ---- what is taken down


@pytest.mark.timed
def test_a_closed_loop_keeps_so_many_outstanding(tmp_path: Path) -> None:
    with driver(50, max_batchsize=2) as one:
        found = one.drive(Drive(Closed(4), 1.0, warm_s=0.2), 0, tmp_path)

    # No faster than planted; on a busy machine it may be slower, but Little's law holds on any.
    assert found.ok and 10 < found.samples_per_second <= 40.1
    assert found.batch_sizes.keys() == {2}
    latency = found.per_sample().latency_ns
    assert latency.min() >= 50 * MS
    assert found.samples_per_second * latency.mean() / 1e9 == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("load", [Closed(3), Poisson(30), Bursts(3, 12), Alone(10)])
def test_the_stages_of_every_sample_add_up(tmp_path: Path, load: Load) -> None:
    with driver(20, max_batchsize=2) as one:
        before_s = time.time()
        found = one.drive(Drive(load, 0.5), 7, tmp_path)
    samples = found.per_sample()

    assert found.ok and found.path == tmp_path / "samples-7.npz" and found.load == load
    assert len(samples.latency_ns) == found.samples > 0
    assert {"issue_delay", "queue", "infer", "residual"} <= samples.stages_ns.keys()
    assert np.array_equal(sum(samples.stages_ns.values()), samples.latency_ns)
    assert (samples.stages_ns["issue_delay"] >= 0).all()
    assert np.median(samples.stages_ns["residual"] / samples.latency_ns) <= 0.02
    assert set(samples.index) <= {0, 1, 2}
    assert before_s <= found.begin_s + 0.01 and found.begin_s + found.duration_s <= time.time() + 0.01
    assert found.host_bytes and found.cpu_seconds_per_sample and found.gpu_bytes is None


def test_requests_that_come_alone_never_wait(tmp_path: Path) -> None:
    with driver(50) as one:
        found = one.drive(Drive(Alone(100, seed=1), 1.0), 0, tmp_path)
    samples = found.per_sample()

    # A hundred a second are asked for, and no more than twenty can be answered one after another.
    assert 10 <= found.samples <= 20
    assert found.batch_sizes.keys() == {1}
    assert np.median(samples.stages_ns["queue"]) < 5 * MS
    assert (np.diff(samples.scheduled_ns) >= 50 * MS).all()


def test_the_gaps_of_zero_load_count_from_one_request_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on only where somebody sleeps, or is answered, which takes 50 ms."""
    now, asked_at = [0], list[int]()
    one: Any = object.__new__(Asking)

    def sleep_until(at: int) -> bool:
        now[0] = max(now[0], at)
        return len(asked_at) < 20

    def issue(at: int, count: int) -> None:
        asked_at.append(at)
        now[0] += 50 * MS

    one.begin_ns, one._sleep_until, one._issue = 0, sleep_until, issue
    one._goes_on, one._patience_s, one._answers = lambda waiting: True, lambda: 0.0, SimpleNamespace(take=lambda s: 1)
    monkeypatch.setattr(asking, "clock", lambda: now[0])

    one._alone(Alone(10, seed=1))

    drawn = np.random.default_rng(1).exponential(0.1, 20)[1:] * 1e9
    assert np.diff(asked_at) == pytest.approx(np.maximum(drawn, 50 * MS), abs=1)


def test_so_many_samples_are_all_counted(tmp_path: Path) -> None:
    with driver(5) as one:
        found = one.drive(Drive(Poisson(1000), 60.0, samples=10), 0, tmp_path)
        closed = one.drive(Drive(Closed(1), 60.0, samples=10), 1, tmp_path)

    assert found.samples == 10 and found.duration_s < 60
    # The first is over before the measurement begins; where who asks is quicker than the count of it, so is the second.
    assert closed.samples in (8, 9)


def test_a_closed_loop_is_measured_once_all_that_came_at_once_are_answered(tmp_path: Path) -> None:
    with driver(20, max_batchsize=1) as one:
        found = one.drive(Drive(Closed(10), 0.1), 0, tmp_path)

    # The first of ten waits for nobody, each one later for nine others.
    assert found.per_sample().latency_ns.min() >= 100 * MS


# ---- a stall


def late(driven: Driven) -> int:
    return int((driven.per_sample().latency_ns > 100 * MS).sum())


@pytest.mark.parametrize(("load", "least", "most"), [(Poisson(100, seed=5), 25, 80), (Closed(4), 1, 8)])
def test_a_stall_is_seen_by_all_who_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: OpenLoad | Closed, least: int, most: int
) -> None:
    """Of 100 requests a second 40 come in the first 400 of 500 ms; a closed loop asks nobody then."""
    with driver(4) as one:
        stalling(monkeypatch, after=20, for_s=0.5)
        found = one.drive(Drive(load, 1.5), 0, tmp_path)

    assert least <= late(found) <= most


# ---- faults


def test_a_sample_that_fails_spoils_its_load_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        if bad:
            bad.clear()
            raise OSError("the device is gone")

    bad = [True]
    faulty(monkeypatch, fail)
    with driver(5) as one:
        first, second = (one.drive(Drive(Closed(1), 0.1), number, tmp_path) for number in range(2))

    assert not first.ok and first.failed == 1
    assert first.first_error is not None and first.first_error.endswith(".jpg: OSError: the device is gone")
    assert second.ok and second.failed == 0


def test_answers_that_stay_away_end_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    faulty(monkeypatch, go_on.wait)
    with driver(1, watchdog_s=0.5, max_batchsize=4) as one:
        with pytest.raises(RunError, match=r"5 outstanding: no answer for 0\.5 s with 5 of 5 requests outstanding"):
            one.drive(Drive(Closed(5), 60.0), 0, tmp_path)
        go_on.set()


def test_a_clock_that_is_set_spoils_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0, *[2_000_000_000] * 100])

    def look() -> list[Pair]:
        now = time.monotonic_ns()
        return [Pair(now, now + next(readings), now)]

    monkeypatch.setattr(asking, "look", look)
    with driver(5) as one:
        found = one.drive(Drive(Closed(1), 0.5), 0, tmp_path)

    assert not found.ok and found.first_error == "the system clock was set by +2.000 s while the load went on"


def test_nothing_asked_in_the_time_is_no_figure(tmp_path: Path) -> None:
    with driver(5) as one:
        found = one.drive(Drive(Poisson(0.001), 0.1), 0, tmp_path)

    assert found.samples == 0 and found.first_error == "no sample counts in 0.1 s; ask for more seconds"


def test_a_closed_loop_goes_on_until_enough_were_answered(tmp_path: Path) -> None:
    with driver(100) as one:
        found = one.drive(Drive(Closed(1), 0.05, least=3), 0, tmp_path)

    assert found.ok and found.samples >= 3 and found.duration_s >= 0.25


# ---- in a process of its own


def test_a_process_is_driven_through_one_load_after_another(tmp_path: Path) -> None:
    told: list[Driven] = []
    ready: list[Ready] = []
    parts = assemble(config(20, max_batchsize=2))
    drives = [Drive(Closed(2), 0.3), Drive(Poisson(20), 0.3)]

    found = drive(parts, drives, tmp_path / "new", cores=1, told=told.append, ready=ready.append)

    assert found == told and [each.load for each in found] == [each.load for each in drives]
    assert all(each.ok and len(each.per_sample().index) == each.samples for each in found)
    assert (ready[0].cores, ready[0].max_batchsize) == (1, 2)
    assert ready[0].pace.batch_ns.keys() == {1, 2} and ready[0].parity is None


def test_what_cannot_be_loaded_is_told_as_of_a_run(tmp_path: Path) -> None:
    parts = assemble(config(20, device="sim:0").model_copy(update={"backend_options": {"devices": 2}}))

    with pytest.raises(InputError, match="backend option devices goes with the device cpu"):
        drive(parts, [Drive(Closed(1), 0.1)], tmp_path)


def test_arrivals_are_looked_at_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        drive(assemble(config(20)), [Drive(FromFile(tmp_path / "nowhere"), 1.0)], tmp_path)


def test_what_was_seen_of_gpus_is_a_loads() -> None:
    gpu = SimpleNamespace(peak_bytes=3, memory_bytes=8)
    heard = _Heard([0, 1], lambda: None, lambda driven: None, lambda ready: None)  # type: ignore[arg-type, return-value]

    for gpus, expected in (
        ([gpu, gpu], {"gpu_bytes": 6, "gpu_memory_bytes": 16}),
        ([gpu, SimpleNamespace(**vars(gpu) | {"peak_bytes": None})], {"gpu_bytes": None, "gpu_memory_bytes": 16}),
        (None, {"gpu_bytes": None, "gpu_memory_bytes": None}),
    ):
        heard._watch = SimpleNamespace(found=lambda gpus=gpus: (gpus, []))  # type: ignore[assignment]
        assert heard._of_gpus() == expected


@pytest.mark.parametrize("failed", [0, 1])
def test_a_load_with_samples_that_failed_has_no_energy(failed: int) -> None:
    heard = _Heard([], lambda: None, lambda driven: None, lambda ready: None)  # type: ignore[arg-type, return-value]
    heard._metering = SimpleNamespace(energy=lambda window, samples: ({"cpu": samples}, []))  # type: ignore[assignment]
    event = SimpleNamespace(done=4.0, failed=failed, begin_s=1.0, duration_s=2.0)

    told = heard._energy(event)  # type: ignore[arg-type]

    assert told == ({} if failed else {"energy": {"cpu": 4.0}, "energy_notes": ()})
