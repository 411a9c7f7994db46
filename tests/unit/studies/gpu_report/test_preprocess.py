"""The speed of preprocessing in the GPU report, planned and counted without a GPU."""

from __future__ import annotations

import doctest
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import make_dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from kernels import gpu
from preprocess import registry
from preprocess.cuda import BY_CPU
from preprocess.opencv import OpenCV
from sut.models.registry import find
from sut.results.parity import photos
from sut.studies.gpu_report import preprocess as preprocessing
from tests.unit.device_form import HostForm


def test_its_examples_hold() -> None:
    assert doctest.testmod(preprocessing).failed == 0


class OnGpu(OpenCV):
    """In the place of a preprocessor on a GPU, and counted like one."""

    by_cpu = 0
    options = make_dataclass("Options", [("hw_share", float, 0.65)])

    def __init__(self, recipe: Any, *, hw_share: Any = 0.65, threads: int = 1) -> None:
        if hw_share == 1.0 and self.name == "dali-gpu":
            raise ValueError("no JPEG\nengine")
        super().__init__(recipe)

    def counts(self) -> dict[str, int]:
        return {BY_CPU: self.by_cpu, "batches were copied": 5}


class Told:
    """Stands in for ``rate``: what it was asked, and rates in turn."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Counter[str]]] = []

    def __call__(self, lanes: Any, pictures: Any, seconds: float) -> dict[str, float]:
        found = Counter(lane.decoder for lane in lanes)
        self.asked.append((len(lanes), found))
        assert all(lane.batch == (4 if lane.decoder == "CPU" else 32) for lane in lanes)
        with ExitStack() as stack:
            for lane in lanes:
                lane.start(stack)
        return {decoder: 100.0 * count for decoder, count in found.items()}


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """The plan of the timing without the time: 6 cores, and a GPU that lets anybody open it."""
    fakes = {name: type(name, (OnGpu,), {"name": name}) for name in ("cuda", "dali-gpu")}
    told = Told()
    memory = SimpleNamespace(alloc=lambda nbytes: SimpleNamespace(address=0), close=lambda: None)
    monkeypatch.setattr(registry, "load", lambda name: fakes.get(name, OpenCV))
    monkeypatch.setattr(gpu, "open_device", lambda name: nullcontext(memory))
    monkeypatch.setattr(preprocessing, "_only_cpu", lambda: OpenCV)
    monkeypatch.setattr(preprocessing, "_pictures", lambda: [b""])
    monkeypatch.setattr(preprocessing, "has_engine", lambda: True)
    monkeypatch.setattr(preprocessing, "rate", told)
    monkeypatch.setattr(preprocessing, "usable_cores", lambda: 6)
    yield told


def test_each_decoder_is_timed_alone_and_all_together(timed: Told) -> None:
    found = preprocessing.preprocess("cuda", seconds=0)

    cpu, engine, nvjpeg = ("CPU", "JPEG engine", "nvJPEG")
    both = "JPEG engine and nvJPEG"
    shared = "JPEG engine, nvJPEG, CPU"
    assert [(row["decoders"], row["lanes"], row["hw_share"], row["threads"]) for row in found["table"]] == [
        *[(cpu, 6, None, 1)] * 2,
        *((nvjpeg, lanes, 0.0, 1) for lanes in (1, 2, 4, 6)),
        *((engine, lanes, 1.0, 1) for lanes in (1, 2, 4, 6)),
        *((both, lanes, share, threads) for lanes, threads in ((1, 6), (2, 3), (4, 2)) for share in (0.5, "adaptive")),
        *((shared, [6, kernels, 1], None, 1) for kernels in (1, 3, 6)),
    ]
    assert [row["preprocess"] for row in found["table"]] == ["opencv"] * 2 + ["cuda"] * 17
    assert [row["to"] for row in found["table"][:2]] == ["host", "cuda:0"]
    rows = {(row["decoders"], str(row["lanes"])): row for row in found["table"]}
    assert rows[both, "2"]["of_sum"] == pytest.approx(200 / 1200)
    together = rows[shared, "[6, 3, 1]"]
    assert together["of_sum"] == pytest.approx(1000 / (600 + 600 + 600))
    assert together["each"] == {engine: 600, nvjpeg: 300, cpu: 100}
    assert rows[nvjpeg, "1"]["of_sum"] is None


def test_a_decoder_that_fails_leaves_nothing_to_hold_the_sum_against(timed: Told) -> None:
    found = preprocessing.preprocess("dali-gpu", seconds=0)

    both = "JPEG engine and nvJPEG"
    assert [row["decoders"] for row in found["table"][2:]] == ["nvJPEG"] * 4 + [both] * 6
    assert {row["hw_share"] for row in found["table"] if row["decoders"] == both} == {0.5, 0.65}
    assert [(row["hw_share"], row["why"]) for row in found["wrong"]] == [(1.0, "ValueError: no JPEG engine")] * 4
    assert timed.asked[-1] == (4, Counter({both: 4}))
    assert found["table"][-1]["of_sum"] is None, "one of the two has no rate"


def test_without_a_jpeg_engine_nobody_does_its_share(timed: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "has_engine", lambda: False)

    found = preprocessing.preprocess("cuda", seconds=0)

    assert not found["jpeg_engine"] and not found["wrong"]
    assert {row["decoders"] for row in found["table"]} == {"CPU", "nvJPEG", "nvJPEG, CPU"}
    shared = [row for row in found["table"] if row["decoders"] == "nvJPEG, CPU"]
    assert [row["lanes"] for row in shared] == [[1, 5], [3, 3], [6, 1]]


def test_pictures_that_the_cpu_decoded_in_the_place_of_the_gpu_are_wrong(
    timed: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnGpu, "by_cpu", 3)

    found = preprocessing.preprocess("cuda", seconds=0)

    assert {row["preprocess"] for row in found["table"]} == {"opencv"}
    assert found["wrong"][0]["why"] == "the CPU decoded 3 pictures that cuda was given to decode on the GPU"


def test_what_was_timed_is_told_row_by_row(timed: Told, capsys: pytest.CaptureFixture[str]) -> None:
    found = preprocessing.preprocess("cuda", seconds=0)

    told = [json.loads(line)["found"]["table"] for line in capsys.readouterr().out.splitlines()]
    assert told == [found["table"][:count] for count in range(1, len(found["table"]) + 1)]


def lane(run: Callable[[list[bytes]], Any], decoder: str = "x", batch: int = 4) -> Any:
    return preprocessing.Lane(decoder, lambda stack: run, batch)


def test_a_rate_counts_the_pictures_of_all_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(preprocessing.time, "perf_counter", lambda: next(clock))
    runs: list[list[bytes]] = []

    found = preprocessing.rate([lane(runs.append)], [b"a", b"b", b"c"], seconds=3)

    # The clock goes on by one at each look: begin 0; looks at 1, 2 and 3 (the first batch needs none); the end 4.
    assert (len(runs) - 2, found) == (3, {"x": 4 * 3 / 4})
    assert b"".join(b"".join(batch) for batch in runs) == b"abcabcabcabcabcabcab"


def test_lanes_share_by_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lane is held up until the other has taken five: each picture goes to one of them, whoever is free."""
    taken: dict[str, list[bytes]] = {"slow": [], "fast": []}
    enough = threading.Event()

    def slow(pictures: list[bytes]) -> None:
        taken["slow"] += pictures
        assert len(taken["slow"]) <= 2 or enough.wait(60)  # two go before the clock

    def fast(pictures: list[bytes]) -> None:
        taken["fast"] += pictures
        if len(taken["fast"]) >= 2 + 5:
            enough.set()

    # The clock goes on by one with each batch, of whichever lane.
    monkeypatch.setattr(preprocessing.time, "perf_counter", lambda: len(taken["slow"]) + len(taken["fast"]))
    lanes = [lane(slow, "slow", 1), lane(fast, "fast", 1)]

    found = preprocessing.rate(lanes, [bytes([at]) for at in range(256)], seconds=10)

    assert set(found) == {"slow", "fast"}
    assert len(taken["fast"]) >= 2 + 5
    everybody = taken["slow"] + taken["fast"]
    assert sorted(everybody) == [bytes([at]) for at in range(len(everybody))], "each once, and none left out"


def test_a_lane_that_fails_ends_the_others() -> None:
    def start(stack: ExitStack) -> Any:
        raise ValueError("too little memory")

    lanes = [lane(len), lane(len), preprocessing.Lane("x", start)]
    with pytest.raises(ValueError, match="too little memory"):
        preprocessing.rate(lanes, [b""], seconds=0)


def test_what_is_timed_writes_to_the_device(gpu_in_host_form: type[HostForm]) -> None:
    counted: Counter[str] = Counter()
    recipe = find("resnet50").recipe
    start = partial(preprocessing._start, gpu_in_host_form, recipe, {}, counted, 2, "cuda:0")

    assert preprocessing.rate([preprocessing.Lane("x", start, 2)], [photos()[0]] * 2, seconds=0)["x"] > 0
    assert counted == Counter({BY_CPU: 0})


def test_the_cpus_lanes_decode_by_the_cpu_and_write_to_the_device(gpu_in_host_form: type[HostForm]) -> None:
    recipe = find("resnet50").recipe
    counted: Counter[str] = Counter()
    start = partial(preprocessing._start, preprocessing._only_cpu(), recipe, {}, counted, 2, "cuda:0")

    assert preprocessing.rate([preprocessing.Lane("CPU", start, 2)], [photos()[0]] * 2, seconds=0)["CPU"] > 0
    assert counted[BY_CPU] == 2 * 3
