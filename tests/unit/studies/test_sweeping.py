"""What a sweep reads out of its points, which points it has, and that none is measured twice."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sut.cli.console import BriefConsole
from sut.config import make_config
from sut.errors import InputError, RunError, SetupError
from sut.pipeline.assembly import assemble
from sut.pipeline.loading import load_backend
from sut.results.energy import Energy
from sut.results.samples import Samples
from sut.run.timing import Pace
from sut.studies.driving.driven import Drive, Driven, Ready
from sut.studies.driving.loads import Alone, Closed, FromFile, Poisson
from sut.studies.kept import Kept
from sut.studies.sweeping import bench as bench_module
from sut.studies.sweeping import curves, grids
from sut.studies.sweeping.bench import Bench
from sut.studies.sweeping.findings import closed_findings, open_findings, scaling_findings
from sut.studies.sweeping.grids import (
    WAYS,
    Asked,
    Cell,
    as_offline,
    cells,
    parse_arrivals,
    parse_concurrency,
    parse_range,
    parse_rates,
)
from sut.studies.sweeping.loops import Loops
from sut.studies.sweeping.points import Job, Point, point_of_line
from sut.studies.sweeping.report import line_of, tables, words_of
from sut.studies.sweeping.study import run_sweep

MS = 1_000_000
A_MS, B_MS, BATCH = 50.0, 10.0, 8
"""A planted device: a batch of n takes A + n B."""
GIB = 2**30


def closed(n: int, rate: float, round_: int = 1, p99_ms: float = 10.0, **more: Any) -> Point:
    latency = {"mean": 5.0 * MS, "p50": 5.0 * MS, "p99": p99_ms * MS}
    return Point(
        f"{n} {round_}", "closed", f"{n} outstanding", round_, 1.0, n, samples=10, lanes=1, max_batchsize=BATCH,
        samples_per_second=rate, latency_ns=latency, cost_ns={"decode": 1.0, "infer": 9.0}, **more,
    )  # fmt: skip


def planted(n: int) -> float:
    """Samples per second of the planted device with ``n`` outstanding."""
    size = min(n, BATCH)
    return 1000 * size / (A_MS + size * B_MS)


def of_rate(rate: float, round_: int, p99_ms: float, late: int | None = 0) -> Point:
    latency = {"mean": 1.0 * MS, "p50": 1.0 * MS, "p99": p99_ms * MS}
    name = f"{rate} {round_}"
    return Point(name, "open", f"{rate}/s", round_, 1.0, rate=rate, samples=100, latency_ns=latency, late=late)


def scaled(way: str, devices: int, rate: float, busy_ms: float = 0.0) -> Point:
    key = f"{way} {devices}"
    return Point(
        key, "scaling", "6 outstanding", 1, 1.0, cores=2, devices=devices, way=way, pictures="medium", samples=10,
        lanes=devices, workers=2, samples_per_second=rate, cost_ns={"decode": busy_ms * MS, "gather": 1.0},
        latency_ns={"p99": 1.0},
    )  # fmt: skip


# ---- curves


def test_plateau_and_knee_are_the_planted_ones() -> None:
    points = [closed(2**power, planted(2**power)) for power in range(13)]
    top = planted(BATCH)
    # n / (A + n B) = 0.95 of the plateau, solved for n.
    knee = 0.95 * top * A_MS / (1000 - 0.95 * top * B_MS)

    assert curves.plateau(points) == pytest.approx(top)
    assert curves.knee(points) == pytest.approx(knee, rel=0.10)
    assert curves.decline(points) is None


def test_a_decline_takes_nothing_from_the_plateau() -> None:
    rates = {16: 100, 32: 100, 64: 100, 128: 50, 256: 40, 512: 30, 1024: 20, 2048: 10}

    assert curves.plateau([closed(n, rate) for n, rate in rates.items()]) == 100


def test_without_enough_outstanding_the_highest_is_the_plateau() -> None:
    assert curves.plateau([closed(1, 10), closed(4, 30)]) == 30
    assert curves.plateau([]) is None and curves.knee([]) is None


def test_a_decline_is_where_throughput_stays_under_the_plateau() -> None:
    rates = {16: 100, 32: 90, 64: 100, 128: 100, 256: 90, 512: 80}

    assert curves.decline([closed(n, rate) for n, rate in rates.items()]) == pytest.approx(128 + 128 * 5 / 10)


def test_memory_is_full_at_95_percent_between_two_points() -> None:
    points = [closed(n, 1, gpu_bytes=n * GIB, gpu_memory_bytes=100 * GIB, host_bytes=GIB) for n in (80, 90, 100)]

    full = curves.memory_full(points, 100 * GIB)

    assert full == pytest.approx(95)
    assert curves.memory_full([closed(1, 1, host_bytes=GIB)], 100 * GIB) is None
    assert curves.memory_full([closed(1, 1)], None) is None
    assert curves.sets_in_with_memory(104, full) and not curves.sets_in_with_memory(105, full)
    assert not curves.sets_in_with_memory(104, None)


def test_the_best_point_has_most_throughput_within_the_limit() -> None:
    points = [closed(1, 10, p99_ms=10), closed(4, 30, p99_ms=50), closed(8, 40, p99_ms=51)]

    assert curves.best_under(points, 50 * MS) == points[1]
    assert curves.best_under(points, 9 * MS) is None


def test_a_rate_holds_by_its_usual_round_and_is_safe_by_all() -> None:
    p99_ms = {10: (5, 5, 5), 20: (5, 9, 11), 30: (9, 11, 11), 40: (5, 5, 5)}
    points = [of_rate(rate, at, each) for rate, rounds in p99_ms.items() for at, each in enumerate(rounds, 1)]

    found = curves.rates_within(points, 10 * MS)

    # What is measured beyond a rate that does not hold was luck.
    assert (found.highest, found.safe, found.below) == (20, 10, 0.5)
    assert curves.rates_within(points, 4 * MS) == curves.Rates(None, None)


def test_a_rate_with_too_many_late_ones_does_not_hold() -> None:
    assert curves.rates_within([of_rate(10, 1, 5, late=2)], 10 * MS).highest is None
    assert curves.rates_within([of_rate(10, 1, 5, late=1)], 10 * MS).highest == 10


def test_cores_per_device_by_pairs() -> None:
    alone = [scaled(WAYS[2], n, 40.0 * n * wobble) for n, wobble in enumerate((1.0, 1.01, 0.99, 1.0), 1)]
    cpu = [scaled(WAYS[0], n, 20.0, busy_ms=100) for n in range(1, 5)]

    found = curves.cores_per_device(alone, cpu)

    assert found.ratio == pytest.approx(4, rel=0.01)
    assert found.low is not None and found.high is not None and found.low < 4 < found.high


# ---- findings and words


def test_the_words_of_a_closed_loop() -> None:
    points = [closed(2**power, planted(2**power), p99_ms=2**power) for power in range(13)]

    words = words_of(closed_findings(points, 20 * MS, 8 * GIB))

    assert words == [
        "plateau: 61.54 samples/s, 95 % of it from 7.28 outstanding on; the limiting stage is infer",
        "best under 20 ms: 61.54 samples/s with 8 outstanding, p99 8 ms",
        "no decline up to 4,096 outstanding",
    ]
    assert (
        "95 % of it from 64 outstanding, the fewest that were asked, on"
        in words_of(closed_findings(points[6:], None, None))[0]
    )


@pytest.mark.parametrize(
    ("low", "expected"),
    [
        ((80, 81, 79, 80), "throughput declines from 96 outstanding on, to 0.8 x"),
        ((80, 130, 90, 105), "throughput looks lower from 96 outstanding on, but cannot be told apart"),
    ],
)
def test_a_decline_is_one_only_beyond_its_spread(low: tuple[float, ...], expected: str) -> None:
    points = [closed(32, 100.0), closed(64, 100.0), closed(128, low[0])]
    for at in range(2, 6):
        points += [closed(32, 100.0 + at / 10, at), closed(128, low[at - 2], at)]

    found = closed_findings(points, None, None)

    assert found["decline_concurrency"] == pytest.approx(80, rel=0.25)
    assert any(word.startswith(expected.split(" from ")[0]) for word in words_of(found))


def test_the_round_in_which_the_best_was_picked_tells_no_decline() -> None:
    points = [closed(32, 300.0), closed(128, 10.0)]
    points += [closed(n, 100.0 + at, at) for at in range(2, 6) for n in (32, 128)]

    found = curves.decline_by_pairs(points)

    assert (found.pairs, found.ratio, found.verdict) == (4, 1.0, "open")


@pytest.mark.parametrize(
    ("concurrency", "workers", "mean_batch", "expected"),
    [(32, 4, 2.2, "decode"), (32, 4, 8.0, "infer"), (2, 4, 1.0, "infer"), (32, 0, 2.2, "infer")],
)
def test_small_batches_behind_workers_are_no_limit_of_inference(
    concurrency: int, workers: int, mean_batch: float, expected: str
) -> None:
    """Four workers make 40 a second; lanes that wait for them take two at a time, for which they need as long."""
    cost = {"decode": 100.0 * MS, "gather": 1.0, "infer": 54.0 * MS if workers else 110.0 * MS}
    point = replace(
        closed(concurrency, 40.0), cost_ns=cost, lanes=2, workers=workers, mean_batch=mean_batch, max_batchsize=8
    )

    assert curves.limit_of(point) == expected


def test_the_words_of_an_open_loop() -> None:
    points = [of_rate(rate, at, p99) for at in (1, 2, 3) for rate, p99 in ((10, 5), (20, 5 + 3 * at), (30, 50))]
    zero = [Point(name, "zero", name, 1, 1.0, samples=9, latency_ns={"p50": 1.0 * MS, "p99": MS}) for name in "ab"]

    found = open_findings(points + zero, 12 * MS)

    assert found["rate_p99"][1] == {"rate": 20, "p99_ns": 11 * MS, "low_ns": 8 * MS, "high_ns": 14 * MS}
    assert found["zero_load"]["ratio"] == 1.0
    assert words_of(found)[1] == "highest rate within the bound: 20/s; in all of 3 rounds up to 10/s, 50 % below"
    assert "highest_rate" not in open_findings(points, None) and open_findings([], None) == {}
    assert words_of(open_findings(points, MS)) == ["no rate that was asked holds the bound"]


def test_the_words_of_scaling() -> None:
    points = [scaled(WAYS[2], n, 40.0 * n + n / 10) for n in range(1, 5)]
    points += [scaled(WAYS[0], n, 20.0, busy_ms=100) for n in range(1, 5)]
    points += [replace(each, cores=1, samples_per_second=5.0) for each in points]  # the CPU with a core less

    medium, large, limit = words_of(scaling_findings(points))

    assert medium.startswith("medium pictures: cores per device = I / P = 40.1 / 10 = 4.01 (")
    assert medium.endswith("), measured on 2 cores")
    assert large == "large pictures: cores per device cannot be told: not both of its rates were measured"
    assert limit == "medium pictures, preprocessed on the CPU: with 4 devices and 2 cores decode limits"


def test_tables_fit_80_columns_and_have_the_usual_round() -> None:
    points = [of_rate(20, at, p99) for at, p99 in ((1, 9), (2, 5), (3, 7))]
    points += [Point.without(job(Closed(2)), SetupError("no GPU"))]
    points += [scaled(WAYS[0], 1, rate) for rate in (90.0, 20.0, 10.0)]

    (_, _, line), (_, headings, scaling) = tables(points)

    assert len(line) == 1 and "7" in line[0]
    assert headings[:2] == (">cores", ">devices") and scaling == [["2", "1", "20", "-", "-"]]


# ---- which points there are


@pytest.mark.parametrize(
    ("parse", "expected"),
    [
        (lambda: parse_concurrency("0"), "--concurrency takes numbers from 1"),
        (lambda: parse_concurrency("8..4"), "--concurrency takes numbers from 1"),
        (lambda: parse_concurrency("many"), "got 'many'"),
        (lambda: parse_range("1..99", "--devices"), "expected numbers from 1 to 16"),
        (lambda: parse_rates("10,-1"), "--rates takes auto, none"),
        (lambda: parse_rates("fast"), "--rates takes auto, none"),
        (lambda: parse_rates("nan"), "--rates takes auto, none"),
        (lambda: parse_arrivals("burst:x"), "--arrivals burst:K"),
        (lambda: parse_arrivals("burst:0"), "bursts of 0 requests: from 1 to 65,536 can come at once"),
    ],
)
def test_words_that_say_nothing_are_told(parse: Callable[[], object], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        parse()


def test_what_the_words_say() -> None:
    assert parse_concurrency(None) == tuple(2**power for power in range(13))
    assert parse_range("1..4", "--cores") == (1, 2, 3, 4) and parse_range(None, "--cores") is None
    bursts = parse_arrivals("burst:4")
    assert not isinstance(bursts, FromFile) and bursts(8.0, 1).words == "8/s in bursts of 4"
    assert parse_arrivals("times.txt") == FromFile(Path("times.txt"))


def asked(**more: Any) -> Asked:
    usual = {"concurrency": (1,), "rates": (), "arrivals": Poisson, "seconds": 1.0, "budget_s": 60.0}
    return Asked(**usual | more)


def test_scaling_has_every_way_size_and_number_of_devices() -> None:
    one, two = (make_config({"backend": "simulated", "device": name}) for name in ("cpu", "sim:2,sim:0"))

    assert len(cells(asked(devices=(1, 2, 3, 4)), one)) == 24
    for base, devices in ((one, 1), (two, 2)):
        assert {(each.cores, each.devices) for each in cells(asked(cores=(1, 2)), base)} == {(1, devices), (2, devices)}


@pytest.mark.parametrize(
    ("devices", "budget_s", "rounds"),
    [((1, 2), 200.0, 2), ((1, 2), 15.0, 1), ((1, 2, 3, 4), 200.0, 1), ((1,), 200.0, 4)],
)
def test_scaling_is_repeated_until_there_are_four_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: tuple[int, ...], budget_s: float, rounds: int
) -> None:
    planted_drive(monkeypatch, lambda n, again: 10.0)
    seconds = itertools.count()
    monkeypatch.setattr(bench_module, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    monkeypatch.setattr(grids, "generated_pictures", lambda name, say: {"dataset": "demo"})
    study = loops(tmp_path, devices=devices, cores=(1,), budget_s=budget_s)

    points = list(study.scaling())

    by_round = [
        [(point.way, point.pictures, point.devices) for point in points if point.ok and point.round == number]
        for number in range(1, rounds + 2)
    ]
    assert len(by_round[0]) >= 4 * len(devices) and by_round[rounds] == []  # preprocessing on a GPU needs one
    assert by_round[:rounds] == [by_round[0][:: -1 if at % 2 else 1] for at in range(rounds)]
    assert study.notes == []


@pytest.mark.parametrize(
    ("settings", "device"),
    [({}, "sim:0"), ({"device": "sim:3"}, "sim:3"), ({"device": "sim:3,sim:1"}, "sim:3,sim:1")],
)
def test_devices_are_counted_from_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], device: str
) -> None:
    planted_drive(monkeypatch, lambda n, again: 10.0)
    monkeypatch.setattr(grids, "generated_pictures", lambda name, say: {"dataset": "demo"})
    config = make_config({"backend": "simulated", "preprocess": "simulated", "output": tmp_path, **settings})

    found = run_sweep([config], asked(devices=(1, 2), cores=(1,)), BriefConsole())

    assert found.told["config"]["device"] == device
    assert {(each.devices, each.samples_per_second) for each in found.points} == {(1, 10.0), (2, 10.0)}


def test_more_devices_than_there_are_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    config = make_config({"backend": "simulated", "device": "cpu", "output": tmp_path})

    with pytest.raises(SetupError, match="2 devices were asked for, simulated has cpu"):
        run_sweep([config], asked(devices=(1, 2)), BriefConsole())


def test_lanes_that_are_auto_are_offlines() -> None:
    config = make_config({"scenario": "SingleStream"})

    found = as_offline(config, 4, model_bytes=20_000_000)

    assert (found.scenario, found.lanes, found.threads, found.max_batchsize) == ("Server", 4, 1, 4)
    assert as_offline(make_config({"lanes": 2, "scenario": "Offline"}), 4, 20_000_000).lanes == 2


def test_a_cell_is_a_system_of_its_own(cache: Path) -> None:
    simulated = {"backend": "simulated", "preprocess": "simulated", "device": "sim:0"}
    base = make_config({**simulated, "scenario": "Server", "boundary": "jpeg"})

    cpu, gpu, alone = (Cell(way, "medium", 3, 2).config(base, None, lambda text: None) for way in WAYS)

    assert (cpu.boundary, cpu.preprocess_workers, cpu.lanes) == ("jpeg", 3, 2)
    assert (gpu.boundary, gpu.preprocess_workers) == ("jpeg", 3) and set(gpu.preprocess_options.values()) == {0}
    assert (alone.boundary, alone.device) == ("tensor", "sim:0,sim:1")
    two_each = Cell(WAYS[2], "medium", 3, 3).config(base.model_copy(update={"lanes": 2}), None, lambda text: None)
    assert (two_each.device, two_each.lanes) == ("sim:0,sim:1,sim:2", 6)
    real = Cell(WAYS[1], "medium", 3, 1).config(make_config({"scenario": "Server"}), 1, lambda text: None)
    assert (real.preprocess, real.device) == ("cuda", "cpu")


@pytest.mark.parametrize(
    ("named", "devices", "device", "lanes"),
    [
        ("cuda:0,cuda:1", 1, "cuda:0", 2),
        ("cuda:3,cuda:1,cuda:0", 2, "cuda:3,cuda:1", 4),
        ("cuda:2", 1, "cuda:2", 6),
        ("cuda:2", 2, "cuda:2,cuda:3", 12),
        ("cuda", 1, "cuda", 6),
        ("cuda", 3, "cuda,cuda:1,cuda:2", 18),
        ("cpu", 1, "cpu", 6),
    ],
)
def test_a_cell_has_the_devices_that_were_named_or_those_behind_it(
    monkeypatch: pytest.MonkeyPatch, named: str, devices: int, device: str, lanes: int
) -> None:
    four_gpus(monkeypatch)
    base = make_config({"device": named, "scenario": "Server", "lanes": 4 if named == "cuda:0,cuda:1" else 6})

    found = Cell(WAYS[2], "medium", 3, devices).config(base, 1, lambda text: None)

    assert (found.device, found.lanes) == (make_config({"device": device}).device, lanes)


@pytest.mark.parametrize(
    ("named", "has"), [("cuda:3", "cuda:3"), ("cpu", "cpu"), ("cuda:7", "cuda:7"), ("cuda:1,cuda:0", "cuda:1, cuda:0")]
)
def test_a_cell_of_more_devices_than_there_are_says_so(monkeypatch: pytest.MonkeyPatch, named: str, has: str) -> None:
    four_gpus(monkeypatch)

    with pytest.raises(SetupError, match=f"^3 devices were asked for, onnxruntime has {has}; --device names where"):
        Cell(WAYS[2], "medium", 3, 3).config(make_config({"device": named, "scenario": "Server"}), 1, lambda text: None)


def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    there = classmethod(lambda cls: ["cpu", *(f"cuda:{number}" for number in range(4)), "npu:0"])
    monkeypatch.setattr(load_backend("onnxruntime"), "devices", there)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"concurrency": (100_000,)}, "from 1 to 65,536 can be outstanding"),
        ({"arrivals": "0\n2\n1\n"}, "line 3: 1 s comes after 2 s; times of arrival cannot go back"),
        ({"concurrency": None, "rates": None}, "nothing to measure: give --concurrency"),
        ({"concurrency": None}, "nothing to measure: give --concurrency"),
        ({"rates": (1e9,)}, "more than the 2,000,000 that can be recorded"),
        ({"devices": (1,)}, "choose boundaries and pictures themselves; leave boundary out"),
        (
            {"devices": (1, 2), "affinity": "lanes=0/1"},
            "than --affinity lanes=0/1 has core sets for the lanes; leave one of them out",
        ),
    ],
)
def test_what_cannot_be_swept_is_told_before_anything_is_measured(
    tmp_path: Path, more: dict[str, Any], expected: str
) -> None:
    if "arrivals" in more:
        (tmp_path / "times").write_text(more["arrivals"])
        more = {"arrivals": FromFile(tmp_path / "times")}
    where = {"affinity": more.pop("affinity")} if "affinity" in more else {"boundary": "jpeg"}
    config = make_config({"backend": "simulated", "output": tmp_path, **where})

    with pytest.raises(InputError, match=expected):
        run_sweep([config], asked(**more), BriefConsole())


# ---- points on disk


def job(load: Any, seconds: float = 0.2, **more: Any) -> Job:
    return Job("closed", Drive(load, seconds), **more)


def test_a_point_is_read_as_it_was_written() -> None:
    energy = {"cpu": Energy("planted", 2.5, 1.5, 7.0)}
    point = closed(4, 30, batch_sizes={4: 2}, gpu_bytes=1, energy=energy)

    [(_, headings, [line])] = tables([point])
    assert line[headings.index(">CPU\nJ")] == "2.5" and ">GPU\nJ" not in headings
    assert point_of_line(json.dumps(asdict(point))) == point
    with pytest.raises(ValueError, match="rate"):
        point_of_line(json.dumps(asdict(point) | {"rate": "fast"}))


def test_a_point_that_failed_and_one_that_cannot_be_had_here_are_two_things() -> None:
    failed, missing = (Point.without(job(Closed(2)), error) for error in (RunError("it broke"), SetupError("no GPU")))

    assert (failed.ok, failed.first_error) == (False, "it broke")
    assert (missing.ok, missing.first_error, missing.left_out) == (False, None, "no GPU")
    assert line_of(failed) == "2 outstanding: does not count: it broke"
    assert line_of(missing) == "2 outstanding: left out: no GPU"


def test_a_point_counts_who_is_over_the_bound_and_all_waiting_before_work(tmp_path: Path) -> None:
    latency = np.array([10, 20, 30, 40]) * MS
    stages = {"issue_delay": latency // 10, "queue": latency // 5, "infer": latency - latency // 10 - latency // 5}
    Samples(np.zeros(4, np.int32), latency * 0, latency, stages).save(tmp_path / "samples.npz")
    ready = Ready(Pace(1, 1), 1, 1, 4, 0, 2, None)
    driven = Driven(0, Poisson(4.0), 1.0, 4, 0, None, 4.0, {1: 2, 2: 1}, {}, 0.5, GIB, tmp_path / "samples.npz")

    point = Point.of(Job("open", Drive(Poisson(4.0), 1.0), limit_ns=20 * MS), ready, driven, 1.0)

    assert (point.late, point.late_share, point.mean_batch) == (2, 0.5, 4 / 3)
    assert point.queueing_share == pytest.approx(0.3) and point.latency_ns["mean"] == 25 * MS


def test_what_a_point_is_makes_its_key(tmp_path: Path) -> None:
    (tmp_path / "times").write_text("0\n")
    load = FromFile(tmp_path / "times")
    keys = {job(Closed(2)).key, job(Closed(2), 0.3).key, job(Closed(2), round=2).key, job(Closed(2), limit_ns=5).key}
    before = job(load).key
    (tmp_path / "times").write_text("1\n")

    assert len(keys) == 4 and job(load).key != before


def test_no_point_is_measured_twice(tmp_path: Path) -> None:
    planted_device = {"backend": "simulated", "backend_options": {"a_ms": 20, "b_ms": 0}, "scenario": "Server"}
    parts = assemble(make_config(planted_device))
    told: list[Point] = []

    def bench() -> Bench:
        kept = Kept.read(tmp_path / "points.jsonl", {}, point_of_line, "a sweep", overwrite=False)
        return Bench(kept, told.append)

    first = bench()(parts, [job(Closed(1))])
    both = bench()(parts, [job(Closed(2)), job(Closed(1))])

    assert both[1] == first[0] and [each.concurrency for each in both] == [2, 1]
    assert [each.concurrency for each in told] == [1, 1, 2]
    point = first[0]
    assert point.ok and point.samples and point.latency_ns["p50"] >= 20 * MS
    assert math.isclose(sum(point.stages_ns.values()), point.latency_ns["mean"], rel_tol=1e-6)
    assert point.host_bytes and point.cpu_seconds_per_sample and point.energy is None
    assert point.mean_batch == 1 and point.queueing_share is not None and np.isfinite(point.took_s)


# ---- the course of a sweep, on a system that answers at once with what was planted


def planted_drive(monkeypatch: pytest.MonkeyPatch, rate_of: Callable[[int, int], float]) -> list[Drive]:
    """Every load is answered without a process: a closed loop of n as ``rate_of`` (n, how often before) says."""
    asked_for: list[Drive] = []

    def drive(
        parts: Any,
        drives: list[Drive],
        directory: Path,
        *,
        cores: Any,
        told: Callable[[Driven], None],
        ready: Any,
        rest: object,
    ) -> None:
        config = parts.config
        ready(Ready(Pace(1, 1), config.lane_count, 1, config.largest_batch, 0, 2, None))
        for number, each in enumerate(drives):
            load = each.load
            again = sum(before.load == load for before in asked_for)
            asked_for.append(each)
            rate = rate_of(load.concurrency, again) if isinstance(load, Closed) else getattr(load, "rate", 1.0)
            times = np.full(4, 10 * MS)
            stages = {"issue_delay": times * 0, "queue": times // 2, "infer": times // 2, "residual": times * 0}
            Samples(np.zeros(4, np.int32), times * 0, times, stages).save(directory / f"samples-{number}.npz")
            path = directory / f"samples-{number}.npz"
            told(Driven(number, load, 1.0, 4, 0, None, rate, {4: 1}, {"infer": 9.0}, 0.5, GIB, path))

    monkeypatch.setattr(bench_module, "drive", drive)
    return asked_for


def loops(tmp_path: Path, **more: Any) -> Loops:
    config = {"backend": "simulated", "device": "sim:0", "scenario": "Server", "max_batchsize": 4}
    parts = assemble(make_config(config))
    kept = Kept.read(tmp_path / "points.jsonl", {}, point_of_line, "a sweep", overwrite=False)
    return Loops(parts, asked(**more), Bench(kept, lambda point: None), BriefConsole())


def test_the_budget_ends_the_closed_loop_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted_drive(monkeypatch, lambda n, again: min(10.0, 3.0 * n))
    study = loops(tmp_path, concurrency=parse_concurrency(None), budget_s=540.0)

    points = study.closed()

    # With 2,048 outstanding at 10 a second it takes 205 s until they are answered, and as long again afterwards.
    assert [point.concurrency for point in points] == [2**power for power in range(11)]
    assert study.notes == ["2,048 outstanding and more left out: the budget is spent; --budget allows more"]


def test_what_looks_like_a_decline_is_measured_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drives = planted_drive(monkeypatch, lambda n, again: 1000.0 + again / 100 if n < 128 else 500.0 + again / 100)
    study = loops(tmp_path, concurrency=(1, 8, 64, 128), budget_s=100.0)

    found = closed_findings(study.closed(), None, None)

    again = [each.load.concurrency for each in drives[4:] if isinstance(each.load, Closed)]
    assert again == [1, 128] * 4 and found["decline"]["verdict"] == "worse" and found["decline"]["pairs"] == 4
    assert words_of(found)[-1].startswith("throughput declines from 70 outstanding on, to 0.5 x")


def test_an_open_loop_has_zero_load_and_three_rounds_of_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drives = planted_drive(monkeypatch, lambda n, again: 100.0 * min(n, 4))
    study = loops(tmp_path, concurrency=(1, 8), budget_s=400.0, limit_ns=20 * MS)

    found = open_findings(study.open(study.closed()), 20 * MS)

    zero, rounds = drives[2:4], drives[4:]
    assert [each.load for each in zero] == [Alone(20.0), Poisson(20.0)]
    assert [each.load for each in rounds[::8]] == [Poisson(80.0, seed) for seed in (1, 2, 3)] and len(rounds) == 24
    assert (found["highest_rate"], found["safe_rate"], found["rounds"]) == (380.0, 380.0, 3)
    assert study.notes == []


def test_a_round_that_the_budget_does_not_allow_is_left_out_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drives = planted_drive(monkeypatch, lambda n, again: 100.0)
    study = loops(tmp_path, concurrency=None, rates=(1.0, 2.0), budget_s=32.0)

    study.open([])

    # A round takes 20 samples of each rate: 20 s and 10 s, and a second between them.
    assert [each.load for each in drives] == [Poisson(rate, seed) for seed in (1, 2, 3) for rate in (1.0, 2.0)]
    study = loops(tmp_path / "again", concurrency=None, rates=(1.0, 2.0), budget_s=30.0)
    (tmp_path / "again").mkdir()
    study.open([])
    assert study.notes == ["1/s at random (round 2 of 3) and more left out: the budget is spent"]
