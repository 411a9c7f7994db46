"""What backends on a GPU share, over a GPU that does nothing before it is waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from backends.base import Slot, TensorSpec
from backends.on_gpu import GpuRunner, SharedGpu
from kernels.device import DeviceError
from kernels.gpu import open_device
from kernels.gpu_driver import Driver
from tests.fake_gpu import D2H_BYTES_PER_NS, H2D_BYTES_PER_NS, FakeDriver, plug_in, unplug

INPUTS = (TensorSpec("x", "float32", (None, 3), "NC"),)
OUTPUTS = (TensorSpec("sum", "float64", (None,), "N"),)
PLACES = ("cuda:0", "pinned", "host")


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    made = FakeDriver()
    plug_in(made)
    yield made
    unplug()


@pytest.fixture
def gpu(driver: FakeDriver) -> Iterator[SharedGpu]:
    with_driver = SharedGpu.open("cuda", overlap=True)
    yield with_driver
    if not driver.lost:
        with_driver.close()
        assert not driver.memory, "memory was left on the GPU"


class Summing(GpuRunner):
    """A model that adds up each row. ``model_bytes`` a sample is what it takes beside inputs and outputs."""

    def __init__(self, gpu: SharedGpu, driver: FakeDriver, place: str, model_bytes: int = 0) -> None:
        super().__init__(gpu, place, INPUTS, OUTPUTS)
        self.driver, self.model_bytes = driver, model_bytes
        self.bound: dict[int, Any] = {}

    def _bind(self, n: int) -> None:
        if n * self.model_bytes > self.driver.free_bytes():
            raise MemoryError(f"{n * self.model_bytes} bytes for the model")
        given = self.array(INPUTS[0], n).__cuda_array_interface__
        found = self.array(OUTPUTS[0], n).__cuda_array_interface__
        self.bound[n] = given["data"][0], found["data"][0]

    def _unbind(self) -> None:
        self.bound.clear()

    def _start(self, n: int) -> None:
        given, found = self.bound[n]

        def work() -> float:
            self.driver.array(found, (n,), "float64")[:] = self.driver.array(given, (n, 3), "float32").sum(1)
            return 500.0 * n

        self.driver.enqueue(self.stream, "model", work)


def filled(gpu: SharedGpu, runner: GpuRunner, rows: np.ndarray) -> Slot:
    """The runner's slot with these rows in it; on the GPU they come on another stream, behind an event."""
    slot = runner.slot(len(rows))
    [buffer] = slot.buffers.values()
    if slot.place != gpu.place:
        buffer[:] = rows
        return slot
    stream = gpu.device.new_stream()
    address = buffer.__cuda_array_interface__["data"][0]
    gpu.device.write(address, rows, stream)
    slot.ready = gpu.device.signal(stream)
    return slot


def rows_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 9, (n, 3)).astype(np.float32)


@pytest.mark.parametrize("place", PLACES)
def test_each_batch_has_its_own_answers_at_any_size(gpu: SharedGpu, driver: FakeDriver, place: str) -> None:
    with Summing(gpu, driver, place) as runner:
        for seed, n in enumerate((4, 1, 4, 3, 9, 2)):
            rows = rows_of(n, seed)
            found = runner.infer(filled(gpu, runner, rows))["sum"]

            np.testing.assert_array_equal(found, rows.sum(1))


@pytest.mark.parametrize("place", PLACES)
def test_slots_are_page_locked_where_they_should_be_and_outputs_everywhere(
    gpu: SharedGpu, driver: FakeDriver, place: str
) -> None:
    def is_locked(array: Any) -> bool:
        return any(np.shares_memory(array, memory) for memory in driver.pinned_now)

    with Summing(gpu, driver, place) as runner:
        slot = runner.slot(4)
        found = runner.infer(slot)["sum"]

        if place == gpu.place:
            assert not found.any(), "rows that nobody fills are zeros"
        else:
            assert is_locked(slot.buffers["x"]) is (place == "pinned")
        assert is_locked(found)


def test_one_lane_at_a_time_is_bound(gpu: SharedGpu, driver: FakeDriver) -> None:
    binding, most = [], []

    class Slow(Summing):
        def _bind(self, n: int) -> None:
            binding.append(self)
            time.sleep(0.05)
            most.append(len(binding))
            super()._bind(n)
            binding.remove(self)

    def lane() -> None:
        with Slow(gpu, driver, "pinned") as runner:
            runner.infer(runner.slot(2))

    threads = [threading.Thread(target=lane) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert most == [1, 1, 1]


def test_what_fills_a_slot_on_the_gpu_is_waited_for(gpu: SharedGpu, driver: FakeDriver) -> None:
    with Summing(gpu, driver, "cuda:0") as runner:
        slot = filled(gpu, runner, rows_of(2))
        slot.ready = None  # as if nobody had said that it is still being filled

        assert not np.array_equal(runner.infer(slot)["sum"], rows_of(2).sum(1))
        assert slot.stream == runner.stream


def test_transfers_are_told_by_the_clock_of_the_gpu(gpu: SharedGpu, driver: FakeDriver) -> None:
    with Summing(gpu, driver, "pinned") as runner, Summing(gpu, driver, "cuda:0") as there:
        runner.infer(filled(gpu, runner, rows_of(1000)))
        there.infer(filled(gpu, there, rows_of(1000)))

    assert runner.transfers_ns == (round(12_000 / H2D_BYTES_PER_NS), round(8_000 / D2H_BYTES_PER_NS))
    assert there.transfers_ns == (0, round(8_000 / D2H_BYTES_PER_NS))


@pytest.mark.parametrize("overlap", [True, False])
def test_lanes_have_streams_of_their_own_where_they_may_overlap(driver: FakeDriver, overlap: bool) -> None:
    gpu = SharedGpu.open("cuda", overlap)
    with Summing(gpu, driver, "pinned") as one, Summing(gpu, driver, "pinned") as other:
        assert (one.stream != other.stream) is overlap
        for n in (3, 2):
            np.testing.assert_array_equal(other.infer(filled(gpu, other, rows_of(n)))["sum"], rows_of(n).sum(1))
            np.testing.assert_array_equal(one.infer(filled(gpu, one, rows_of(n, 1)))["sum"], rows_of(n, 1).sum(1))
    gpu.close()


def test_on_one_stream_nothing_of_another_lane_stands_between_a_batchs_events(driver: FakeDriver) -> None:
    gpu = SharedGpu.open("cuda", overlap=False)
    with Summing(gpu, driver, "pinned") as one, Summing(gpu, driver, "pinned") as other:
        for runner in (one, other):
            runner.infer(filled(gpu, runner, rows_of(4)))
        driver.log.clear()
        others = threading.Thread(target=lambda: other.infer(other.slot(4)))
        start = one._start

        def start_beside_another(n: int) -> None:
            others.start()
            others.join(0.2)
            start(n)

        one._start = start_beside_another  # type: ignore[method-assign]
        one.infer(one.slot(4))
        others.join(60)

    assert [name for name, _ in driver.log if name != "record"] == ["h2d", "model", "d2h"] * 2
    assert one.transfers_ns == other.transfers_ns == (round(48 / H2D_BYTES_PER_NS), round(32 / D2H_BYTES_PER_NS))
    gpu.close()


def test_lanes_answer_at_the_same_time_from_threads_of_their_own(gpu: SharedGpu, driver: FakeDriver) -> None:
    wrong = []

    def lane(seed: int) -> None:
        with Summing(gpu, driver, "pinned") as runner:
            for n in (8, 5, 8, 1) * 5:
                found = runner.infer(filled(gpu, runner, rows_of(n, seed)))["sum"]
                if not np.array_equal(found, rows_of(n, seed).sum(1)):
                    wrong.append((seed, n))

    threads = [threading.Thread(target=lane, args=(seed,)) for seed in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert not wrong


@pytest.mark.parametrize("what", ["the model", "inputs and outputs"])
def test_a_batch_that_does_not_fit_names_one_that_does(driver: FakeDriver, what: str) -> None:
    driver.memory_bytes = 9_999
    gpu = SharedGpu.open("cuda", overlap=True)
    with Summing(gpu, driver, "pinned", 1500 if what == "the model" else 0) as runner:
        n, fits = (16, 4) if what == "the model" else (1000, 250)
        with pytest.raises(
            ValueError, match=rf"a batch of {n} does not fit .*{n * 20:,} bytes.*{fits} fits: --max-"
        ) as e:
            runner.infer(runner.slot(n))
        assert "\n" not in str(e.value)

        np.testing.assert_array_equal(runner.infer(filled(gpu, runner, rows_of(fits)))["sum"], rows_of(fits).sum(1))
    gpu.close()


WAITING = {
    "release": lambda device: device.alloc(8).free(),
    "copy": lambda device: device.fill(device.alloc(8), 0),
    "synchronize": lambda device: device.synchronize(),
    "close": lambda device: device.close(),
}
"""What waits for all that a GPU has to do."""


@pytest.mark.parametrize("waits", WAITING)
def test_who_waits_for_all_of_a_gpu_spoils_no_graph_of_another_lane(
    driver: FakeDriver, gpu: SharedGpu, waits: str
) -> None:
    other, failed = open_device("cuda", with_kernels=False), list[BaseException]()

    def wait() -> None:
        try:
            WAITING[waits](other)
        except DeviceError as error:
            failed.append(error)

    thread, stream = threading.Thread(target=wait), gpu.device.new_stream()

    def work() -> None:
        driver.enqueue(stream, "model", lambda: 0.0)
        thread.start()
        thread.join(0.2)  # it is held up until the graph is there, or has spoilt it by then

    graph = gpu.device.capture(stream, work)
    thread.join()

    assert [name for name, _ in graph] == ["model"] and not failed
    other.close()


def test_a_gpu_that_is_closed_frees_its_graphs(driver: FakeDriver) -> None:
    device = open_device("cuda", with_kernels=False)
    stream = device.new_stream()
    graphs = [device.capture(stream, lambda: driver.enqueue(stream, "model", lambda: 0.0)) for _ in range(3)]
    device.drop_graph(graphs[1])
    assert len(driver.graphs) == 2

    device.close()

    assert not driver.graphs


def test_lanes_are_bound_while_nobody_waits_for_all_of_the_gpu(driver: FakeDriver) -> None:
    gpu, other = SharedGpu.open("cuda", overlap=True), open_device("cuda", with_kernels=False)
    freed: list[bool] = []

    class Alone(Summing):
        def _bind(self, n: int) -> None:
            memory = other.alloc(8)
            thread = threading.Thread(target=memory.free)
            thread.start()
            thread.join(0.2)
            freed.append(not thread.is_alive())
            super()._bind(n)

    with Alone(gpu, driver, "pinned") as runner:
        runner.infer(runner.slot(2))
        runner.infer(runner.slot(2))
    assert freed == [False]
    other.close()
    gpu.close()


def test_a_gpu_that_fails_in_the_first_batch_is_not_taken_for_one_with_too_little_memory(driver: FakeDriver) -> None:
    class Lost(Summing):
        def _bind(self, n: int) -> None:
            self.driver.write(1, np.zeros(1), self.stream)
            self._device.synchronize(self.stream)

    gpu = SharedGpu.open("cuda", overlap=True)
    with Lost(gpu, driver, "pinned") as runner:
        slot = runner.slot(2)
        with pytest.raises(DeviceError, match="CUDA_ERROR_ILLEGAL_ADDRESS"), gpu.device.current():
            runner.infer(slot)


def test_where_not_one_sample_fits_that_is_said(driver: FakeDriver) -> None:
    driver.memory_bytes = 16
    gpu = SharedGpu.open("cuda", overlap=True)
    with Summing(gpu, driver, "pinned") as runner, pytest.raises(ValueError, match="not even one sample fits"):
        runner.slot(4)
    gpu.close()


def test_of_a_model_with_a_fixed_batch_no_smaller_one_is_tried(gpu: SharedGpu, driver: FakeDriver) -> None:
    tried = list[int]()

    class Fixed(Summing):
        def __init__(self) -> None:
            GpuRunner.__init__(self, gpu, "pinned", (TensorSpec("x", "float32", (4, 3), "NC"),), OUTPUTS)
            self.bound = {}

        def _bind(self, n: int) -> None:
            tried.append(n)
            raise MemoryError("no memory for the model")

    with Fixed() as runner, pytest.raises(ValueError, match=r"no memory for the model; it takes no smaller batch$"):
        runner.infer(runner.slot(4))
    assert tried == [4]


def test_a_place_that_is_not_this_gpus_is_refused(gpu: SharedGpu, driver: FakeDriver) -> None:
    with pytest.raises(ValueError, match="slots at 'cuda:1' were asked for, expected cuda:0 or host, pinned"):
        Summing(gpu, driver, "cuda:1")


def test_an_output_of_unknown_size_is_refused(gpu: SharedGpu) -> None:
    class Open(Summing):
        def __init__(self) -> None:
            GpuRunner.__init__(self, gpu, "pinned", INPUTS, (TensorSpec("boxes", "float32", (None, None, 4)),))

    with pytest.raises(ValueError, match="boxes"):
        Open()


def test_an_error_of_the_gpu_names_the_batch(gpu: SharedGpu, driver: FakeDriver) -> None:
    with Summing(gpu, driver, "pinned") as runner:
        runner.infer(filled(gpu, runner, rows_of(2)))
        driver.lost = True
        with pytest.raises(DeviceError, match="a batch of 2: CUDA_ERROR_ILLEGAL_ADDRESS"):
            runner.infer(runner.slot(2))
        driver.lost = False


class NoWait(Summing):
    """Mistakes that CUDA does not tell: one class each, found by what they answer or do."""

    def _queue(self, driver: Driver, slot: Slot) -> tuple[int, int]:
        driver_wait = driver.elapsed_ms
        driver.elapsed_ms = lambda begin, end: 0.0  # type: ignore[method-assign]
        try:
            return super()._queue(driver, slot)
        finally:
            driver.elapsed_ms = driver_wait  # type: ignore[method-assign]


class OtherStream(Summing):
    def _start(self, n: int) -> None:
        mine, self.stream = self.stream, self._gpu.device.new_stream()
        super()._start(n)
        self.stream = mine


class StaleBinding(Summing):
    def _unbind(self) -> None:
        self.kept = getattr(self, "kept", {}) | self.bound

    def _bind(self, n: int) -> None:
        super()._bind(n)
        self.bound[n] = getattr(self, "kept", {}).get(n, self.bound[n])


class BatchNotSet(Summing):
    def _start(self, n: int) -> None:
        self.bound.setdefault(min(self.bound), self.bound[n])
        super()._start(min(self.bound))


@pytest.mark.parametrize("mistake", [NoWait, OtherStream, StaleBinding, BatchNotSet])
def test_a_mistake_shows(driver: FakeDriver, mistake: type[Summing]) -> None:
    gpu = SharedGpu.open("cuda", overlap=True)
    runner = mistake(gpu, driver, "pinned")
    right = True
    try:
        for seed, n in enumerate((4, 2, 4, 8, 4)):
            found = runner.infer(filled(gpu, runner, rows_of(n, seed)))["sum"]
            right &= np.array_equal(found, rows_of(n, seed).sum(1))
    except DeviceError:
        right = False
    assert not right


def test_page_locked_memory_that_was_outgrown_is_given_back(gpu: SharedGpu, driver: FakeDriver) -> None:
    with Summing(gpu, driver, "pinned") as runner:
        runner.infer(filled(gpu, runner, rows_of(2)))
        outgrown = [*driver.pinned_now]
        runner.infer(filled(gpu, runner, rows_of(50)))

        assert not {*map(id, outgrown)} & {*map(id, driver.pinned_now)}
        assert len(driver.pinned_now) == 2
    assert not driver.pinned_now


@pytest.mark.parametrize("place", ["pinned", "host"])
def test_rows_that_nobody_filled_are_zero(gpu: SharedGpu, driver: FakeDriver, place: str) -> None:
    with Summing(gpu, driver, place) as runner:
        assert not runner.slot(3).buffers["x"].any()


def test_a_runner_closes_on_a_gpu_that_has_failed(gpu: SharedGpu, driver: FakeDriver) -> None:
    runner = Summing(gpu, driver, "pinned")
    runner.infer(runner.slot(2))
    driver.lost = True

    runner.close()

    assert not runner.bound
