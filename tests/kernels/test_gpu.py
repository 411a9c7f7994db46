"""A GPU device over PyCUDA and over CuPy, on stand-ins that keep their rules; what a machine without a GPU says."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import plugins.driver
from kernels import compilers, gpu_stopwatch
from kernels import gpu as gpu_module
from kernels.device import DeviceError
from kernels.gpu import GpuDevice, open_device
from kernels.gpu_driver import OwnerThread
from kernels.gpu_library import found_library
from plugins.driver import Installed, installed_driver
from plugins.errors import DeviceNotFound
from tests.children import CHECKOUT, run_python
from tests.kernels.fakes import MEMORY_BYTES, FakeCompiler, FakeLibcuda, FakePyCuda, Gpu, fake_cupy

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
OWNER = "owner of cuda:0"


@dataclass
class Machine:
    """What a test may spoil before it opens a device."""

    gpu: Gpu
    libcuda: FakeLibcuda
    compilers: list[FakeCompiler]
    library: str


def prepare(monkeypatch: pytest.MonkeyPatch, cache: str, library: str) -> Machine:
    """A machine whose GPU is reached through ``library``."""
    made = Machine(Gpu(), FakeLibcuda(), [FakeCompiler()], library)
    monkeypatch.setenv("SUT_CACHE_DIR", cache)
    monkeypatch.delenv("SUT_CUDA_LIBRARY", raising=False)
    monkeypatch.setattr(plugins.driver.ctypes, "CDLL", lambda name: made.libcuda)
    monkeypatch.setattr(compilers, "_installed", lambda: iter(made.compilers))
    monkeypatch.setattr(gpu_stopwatch, "BALLAST_BYTES", 64)
    install(monkeypatch, made)
    return made


@pytest.fixture(params=["PyCUDA", "CuPy"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    made = prepare(monkeypatch, str(tmp_path), request.param)
    gc.freeze()  # whatever else was imported makes collecting take half a second
    yield made
    gc.collect()
    gc.unfreeze()
    assert gpu_module._open == {}, "a test left a device open"


def install(monkeypatch: pytest.MonkeyPatch, machine: Machine, built: int = 13) -> None:
    """Put the library of ``machine`` in place, the other one out of it."""
    version = machine.libcuda.version
    for name in ("pycuda", "pycuda.driver", "cupy"):
        monkeypatch.setitem(sys.modules, name, None)
    if machine.library == "PyCUDA":
        package = ModuleType("pycuda")
        package.VERSION_TEXT = "2025.1.2"  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pycuda", package)
        monkeypatch.setitem(sys.modules, "pycuda.driver", FakePyCuda(machine.gpu, built, version))
    else:
        monkeypatch.setitem(sys.modules, "cupy", fake_cupy(machine.gpu, built, version))


@pytest.fixture
def device(machine: Machine) -> Iterator[GpuDevice]:
    with open_device("cuda:0") as opened:
        yield opened


def transpose(device: GpuDevice, stream: int | None = None) -> None:
    """Start one small launch of a real kernel's name and arguments."""
    with device.alloc(64) as source, device.alloc(64) as target:
        args = (source, target, np.int32(4), np.int32(4))
        device.launch("transpose", "transpose_naive_f32", (1, 1, 1), (16, 16, 1), args, stream)


def test_it_says_what_is_in_use(machine: Machine, device: GpuDevice) -> None:
    version = {"PyCUDA": "PyCUDA 2025.1.2", "CuPy": "CuPy 14.2.0"}[machine.library]
    assert (device.name, device.architecture) == ("Fake H200", "sm_90")
    assert device.details == (
        f"Fake H200 (sm_90) through {version}, driver with CUDA 13.0, kernels for sm_90 by Fake 13.0"
    )


def test_pycuda_comes_before_cupy(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(Gpu()))
    with open_device("gpu") as device:
        assert f"through {machine.library} " in device.details


def test_what_is_uploaded_comes_back(device: GpuDevice) -> None:
    array = np.arange(60, dtype=np.float32).reshape(5, 12)[:, ::2]
    with device.upload(array) as buffer:
        np.testing.assert_array_equal(device.download(buffer, array.shape, array.dtype), array)
        with device.alloc(buffer.nbytes) as other:
            device.gather(other, [buffer])
            device.fill(buffer, 0xAB)
            np.testing.assert_array_equal(device.download(other, array.shape, array.dtype), array)
        assert (device.download(buffer, 120, np.uint8) == 0xAB).all()


def test_buffers_are_gathered_one_behind_the_other_where_they_fit(device: GpuDevice) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    buffers = [device.upload(row) for row in rows]
    with device.upload(np.full(20, -1, np.float32)) as target:
        device.gather(target, [buffers[2], buffers[0], buffers[2]], device.new_stream())
        device.synchronize()
        expected = [*rows[2], *rows[0], *rows[2], *[-1] * 8]
        np.testing.assert_array_equal(device.download(target, 20, np.float32), expected)
        with pytest.raises(ValueError, match="has 80 bytes, expected at least 96"):
            device.gather(target, buffers * 2)


def test_an_array_lives_until_its_copy_has_been_waited_for(device: GpuDevice) -> None:
    def sent(stream: int) -> weakref.ref[np.ndarray]:
        array = np.arange(16, dtype=np.uint8)
        device.upload(array, memory, stream)
        return weakref.ref(array)

    waits: list[Callable[[int], object]] = [
        device.synchronize,
        lambda stream: device.synchronize(),
        lambda stream: device.download(memory, 16, np.uint8, stream),
    ]
    other = device.new_stream()
    with device.alloc(16) as memory:
        for wait in waits:
            stream = device.new_stream()
            array = sent(stream)
            device.synchronize(other)
            assert array() is not None
            wait(stream)
            assert array() is None


def test_streams_do_not_wait_for_the_default_one_which_is_waited_for_instead(
    machine: Machine, device: GpuDevice
) -> None:
    device.new_stream()
    assert machine.gpu.blocking == 0
    with device.alloc(64) as one, device.alloc(64) as other:
        for work in (
            lambda: device.upload(np.zeros(64, np.uint8), one),
            lambda: device.fill(one, 1),
            lambda: device.gather(other, [one]),
            lambda: device.download(other, 64, np.uint8),
        ):
            machine.gpu.calls.clear()
            work()
            first, *between, last = (call.partition(" ")[0] for call in machine.gpu.calls)
            assert first == last == {"PyCUDA": "cuCtxSynchronize", "CuPy": "cudaDeviceSynchronize"}[machine.library]
            assert between


def test_a_launch_has_its_arguments_its_stream_and_the_cubin(machine: Machine, device: GpuDevice) -> None:
    stream = device.new_stream()
    with device.alloc(64) as source, device.alloc(64) as target:
        args = (source, target, np.int32(3), np.int32(5))
        device.launch("transpose", "transpose_naive_f32", (2, 1, 1), (16, 16, 1), args, stream)
        device.launch("transpose", "transpose_naive_u8", (1, 1, 1), (16, 16, 1), args)
        device.launch("transpose", "transpose_naive_f32", (1, 1, 1), (16, 16, 1), args)
        first, second, third = machine.gpu.launches
        assert first.args == (np.uint64(source.address), np.uint64(target.address), np.int32(3), np.int32(5))
    assert [type(arg) for arg in first.args] == [np.uint64, np.uint64, np.int32, np.int32]
    assert (first.function, first.grid, first.block) == ("transpose_naive_f32", (2, 1, 1), (16, 16, 1))
    assert (first.stream, second.stream, third.stream) == (stream, None, None)
    assert machine.compilers[0].compiled == ["transpose.cu sm_90"]
    assert len(machine.gpu.loaded) == 1
    assert machine.gpu.loaded[0].startswith(b"\x7fELF")


def test_launches_are_made_where_they_are_asked_for_and_things_by_the_owner(
    machine: Machine, device: GpuDevice
) -> None:
    lane = threading.Thread(target=lambda: transpose(device, device.new_stream()), name="lane")
    lane.start()
    lane.join()

    assert [launch.thread for launch in machine.gpu.launches] == ["lane"]
    made = ("Alloc", "Malloc", "Free", "StreamCreate", "ModuleLoad", "GetFunction", "EventCreate")
    makers = {call.partition(" in ")[2] for call in machine.gpu.calls if any(part in call for part in made)}
    assert makers == {OWNER}


def test_a_lane_that_waits_holds_up_nobody(machine: Machine, device: GpuDevice) -> None:
    waiting, released = threading.Event(), threading.Event()
    stream = device.new_stream()
    call = machine.gpu.call

    def slow(name: str) -> None:
        call(name)
        if "StreamSynchronize" in name:
            waiting.set()
            assert released.wait(30)

    machine.gpu.call = slow  # type: ignore[method-assign]
    lane = threading.Thread(target=lambda: device.synchronize(stream))
    lane.start()
    assert waiting.wait(30)
    transpose(device, device.new_stream())
    assert len(machine.gpu.launches) == 1
    released.set()
    lane.join()


def test_time_is_that_between_two_events_behind_copies_on_the_stream_of_the_work(
    machine: Machine, device: GpuDevice
) -> None:
    def work(stream: int) -> None:
        transpose(device, stream)
        machine.gpu.clock_ms += 2.0

    assert device.timed_ms(work) == 2.5
    assert device.timed_ms(work) == 2.5
    stream = machine.gpu.launches[0].stream
    assert stream in machine.gpu.streams
    once = [*["copy"] * gpu_stopwatch.FIRST_COPIES, "event", "launch", "event"]
    assert machine.gpu.queued == [(what, stream) for what in once * 2]
    assert sum("EventCreate" in call for call in machine.gpu.calls) == 2
    assert sum("StreamCreate" in call for call in machine.gpu.calls) == 1


def test_what_the_host_started_too_late_is_timed_again_behind_more_copies(machine: Machine, device: GpuDevice) -> None:
    machine.gpu.late = 2
    times = iter([3.0, 3.0, 1.0, 1.0])

    def work(stream: int) -> None:
        machine.gpu.clock_ms += next(times)

    assert device.timed_ms(work) == 1.5
    first = gpu_stopwatch.FIRST_COPIES
    assert machine.gpu.queued.count(("copy", machine.gpu.queued[0][1])) == (1 + 2 + 4) * first
    machine.gpu.queued.clear()
    assert device.timed_ms(work) == 1.5
    assert [what for what, _ in machine.gpu.queued] == ["copy"] * 4 * first + ["event"] * 2


def test_a_host_that_is_always_too_late_gets_no_time(machine: Machine, device: GpuDevice) -> None:
    machine.gpu.late = 1000
    worked: list[int] = []
    assert device.timed_ms(worked.append) is None
    doubled = gpu_stopwatch.MOST_COPIES // gpu_stopwatch.FIRST_COPIES
    assert len(worked) == doubled.bit_length()
    assert device.timed_ms(worked.append) is None
    assert len(worked) == doubled.bit_length() + 1
    assert [what for what, _ in machine.gpu.queued].count(
        "copy"
    ) == 3 * gpu_stopwatch.MOST_COPIES - gpu_stopwatch.FIRST_COPIES
    machine.gpu.late = 0
    assert device.timed_ms(worked.append) == 0.5


def test_closing_frees_what_is_left(machine: Machine) -> None:
    device = open_device("cuda")
    device.alloc(100)
    freed = device.alloc(100)
    freed.free()
    device.new_stream()
    device.timed_ms(lambda stream: None)
    device.close()
    gc.collect()

    assert (machine.gpu.memory, machine.gpu.streams) == ({}, set())
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.synchronize()
    assert not any(thread.name == OWNER for thread in threading.enumerate())


def test_memory_that_is_freed_after_its_device_was_closed(machine: Machine) -> None:
    device = open_device("cuda")
    kept = device.alloc(100)
    device.close()
    late = threading.Thread(target=kept.free, daemon=True)
    late.start()
    late.join(30)
    assert not late.is_alive()
    assert machine.gpu.memory == {}


def test_no_gpu_is_named_but_the_one_in_use(machine: Machine) -> None:
    with open_device("cuda:1") as device:
        transpose(device, device.new_stream())
        lane = threading.Thread(target=device.synchronize)
        lane.start()
        lane.join()
    assert set(machine.gpu.named) == {1}


def test_a_gpu_is_current_where_other_libraries_are_asked(machine: Machine) -> None:
    seen: list[bool] = []

    def ask(device: GpuDevice) -> None:
        seen.append(machine.gpu.current())
        with device.current():
            seen.append(machine.gpu.current())
            device.synchronize()
            seen.append(machine.gpu.current())

    with open_device("cuda:1") as device:
        lane = threading.Thread(target=ask, args=[device])
        lane.start()
        lane.join()
    assert seen == [False, True, True]
    assert set(machine.gpu.named) == {1}


def test_a_gpu_opened_twice_has_one_owner_and_one_set_of_kernels(machine: Machine) -> None:
    with open_device("cuda:0") as first:
        with open_device("gpu:0") as second:
            transpose(first)
            transpose(second)
            kept = first.alloc(10)
            with pytest.raises(ValueError, match="belongs to"):
                second.fill(kept, 0)
            assert sum(thread.name == OWNER for thread in threading.enumerate()) == 1
        transpose(first)
        assert len(machine.gpu.memory) == 1
    assert len(machine.gpu.loaded) == 1


def test_the_primary_context_is_released_as_often_as_it_is_retained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare(monkeypatch, str(tmp_path), "PyCUDA")
    with open_device("cuda:0"), open_device("gpu:0"):
        pass
    gc.collect()
    cuda = sys.modules["pycuda.driver"]
    assert (cuda.retained, cuda.released) == (1, 1)  # type: ignore[attr-defined]
    assert capfd.readouterr().err == ""


def test_too_little_memory(machine: Machine, device: GpuDevice) -> None:
    with pytest.raises(DeviceError) as caught:
        device.alloc(MEMORY_BYTES + 1)
    assert str(caught.value) == (
        f"Fake H200 cannot give {MEMORY_BYTES + 1} bytes ({MEMORY_BYTES} are free): cuMemAlloc failed: out of memory;"
        " use a smaller batch, or end what else uses the GPU"
    )
    device.alloc(MEMORY_BYTES).free()  # goes on working


@pytest.mark.parametrize("call", ["StreamSynchronize", "LaunchKernel"])
def test_what_the_driver_says_is_one_line_with_the_kernel(machine: Machine, device: GpuDevice, call: str) -> None:
    transpose(device)
    stream = device.new_stream()
    for prefix in ("cu", "cuda"):
        machine.gpu.fail[prefix + call] = "an illegal\nmemory access was encountered"

    with pytest.raises(DeviceError) as caught:
        transpose(device, stream)
        device.synchronize(stream)

    text = str(caught.value)
    assert "failed: an illegal memory access was encountered" in text
    assert "last launched was transpose_naive_f32" in text
    assert "\n" not in text


def test_an_error_at_freeing_does_not_hide_the_first(machine: Machine, device: GpuDevice) -> None:
    for prefix in ("cu", "cuda"):
        for call in ("LaunchKernel", "MemFree", "Free"):
            machine.gpu.fail[prefix + call] = "an illegal memory access was encountered"
    with pytest.raises(DeviceError, match="the launch of transpose_naive_f32"):
        transpose(device)


def test_an_error_that_the_context_survives_hides_no_later_one(machine: Machine, device: GpuDevice) -> None:
    buffer = device.alloc(64)
    for prefix in ("cu", "cuda"):
        machine.gpu.fail[prefix + "LaunchKernel"] = "invalid argument"
    with pytest.raises(DeviceError, match="invalid argument"):
        transpose(device)
    machine.gpu.lost = True
    with pytest.raises(DeviceError, match=r"freeing memory: .*illegal memory access"):
        buffer.free()
    machine.gpu.lost = False  # so that this device can be closed as any other


def lose(machine: Machine) -> str:
    """All that a device holds, then a kernel that ends its context; what the user is told."""
    with (
        pytest.raises(DeviceError) as caught,
        open_device("cuda:1") as other,
        open_device("cuda:1") as device,
        device.alloc(64),
    ):
        device.alloc(64)
        other.new_stream()
        transpose(other)
        transpose(device, device.new_stream())
        device.timed_ms(lambda stream: None)
        machine.gpu.lost = True
        machine.gpu.calls.clear()
        device.synchronize()
    return str(caught.value)


def test_of_a_lost_context_nothing_is_freed(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    told = lose(machine)
    gc.collect()

    assert told.endswith("illegal memory access was encountered (last launched was transpose_naive_f32)")
    assert machine.gpu.calls
    assert [call for call in machine.gpu.calls if "Synchronize" not in call] == []
    assert capfd.readouterr().err == ""


def test_freeing_tells_what_a_kernel_did_before(machine: Machine, device: GpuDevice) -> None:
    buffer = device.alloc(64)
    transpose(device)
    machine.gpu.lost = True
    with pytest.raises(
        DeviceError, match=r"freeing memory: .*illegal memory access .*last launched was transpose_naive"
    ):
        buffer.free()
    machine.gpu.lost = False  # so that this device can be closed as any other


@pytest.mark.parametrize("library", ["PyCUDA", "CuPy"])
def test_nothing_is_said_of_a_lost_context_when_python_ends(library: str, tmp_path: Path) -> None:
    script = (
        "import sys, pytest\n"
        "from tests.kernels.test_gpu import lose, prepare\n"
        "patch = pytest.MonkeyPatch()\n"
        "print(lose(prepare(patch, *sys.argv[1:])))\n"
    )
    done = run_python("-c", script, tmp_path, library, cwd=CHECKOUT)
    assert (done.code, done.err) == (0, "")
    assert "an illegal memory access was encountered" in done.out


def test_a_stream_of_somebody_else_is_refused(machine: Machine, device: GpuDevice) -> None:
    with pytest.raises(ValueError, match="stream 99 is not one of Fake H200"):
        device.synchronize(99)
    assert not any("Synchronize" in call for call in machine.gpu.calls)


@pytest.mark.parametrize("name", ["cuda:x", "cpu", "cuda:", "cuda:-1", "", "cuda:0 "])
def test_a_name_that_is_no_gpu(name: str) -> None:
    with pytest.raises(ValueError, match="unknown device"):
        open_device(name)


def test_an_index_that_does_not_exist(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(DeviceNotFound) as caught:
        open_device("cuda:2")
    assert str(caught.value) == "no GPU cuda:2 here; there is: cuda:0, cuda:1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    machine.libcuda.gpus = 0
    with pytest.raises(DeviceNotFound, match=r"no GPU cuda:0 here \(CUDA_VISIBLE_DEVICES is ''\); there is: none"):
        open_device("cuda")


def test_a_driver_older_than_any_cuda_in_use(machine: Machine) -> None:
    machine.libcuda.version = 11040
    with pytest.raises(DeviceNotFound) as caught:
        open_device("cuda")
    assert str(caught.value) == "the NVIDIA driver has CUDA 11.4, at least 12 is needed: update the driver"


def test_a_library_built_for_a_newer_cuda_than_the_driver(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.libcuda.version = 12040
    install(monkeypatch, machine, built=13)
    with pytest.raises(DeviceNotFound) as caught:
        open_device("cuda")
    assert "CUDA 13, the driver has CUDA 12.4: update the driver, or " in str(caught.value)
    assert {"CuPy": "pip install cupy-cuda12x", "PyCUDA": "CUDA 12 toolkit"}[machine.library] in str(caught.value)
    assert not any(thread.name == OWNER for thread in threading.enumerate())


def test_a_gpu_that_the_compiler_does_not_know(machine: Machine) -> None:
    machine.compilers[0].architectures = ("sm_100",)
    with pytest.raises(DeviceNotFound, match=r"Fake 13\.0 has no sm_90; it has sm_100: "):
        open_device("cuda")
    assert not any(thread.name == OWNER for thread in threading.enumerate())
    if machine.library == "PyCUDA":  # a thread that ends with a context pushed would end the process
        assert not machine.gpu.current()


def test_the_compiler_is_one_that_knows_the_gpu_and_is_no_newer_than_the_driver(machine: Machine) -> None:
    machine.compilers[:0] = [
        FakeCompiler("Newer 14.0", major=14),
        FakeCompiler("Other 13.1", architectures=("sm_100",)),
    ]
    with open_device("cuda") as device:
        assert device.details.endswith("kernels for sm_90 by Fake 13.0")


def test_no_compiler(machine: Machine) -> None:
    machine.compilers.clear()
    with pytest.raises(ModuleNotFoundError, match=r"neither is there: pip install nvidia-cuda-nvrtc$"):
        open_device("cuda")
    assert not any(thread.name == OWNER for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("broken", "fragment"),
    [
        (None, "through PyCUDA or CuPy (neither is installed): pip install cupy-cuda13x, or pycuda "),
        ("libcurand.so.10: cannot open", "(pycuda does not import: libcurand.so.10: cannot open): pip install"),
    ],
)
def test_no_library(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str | None, fragment: str
) -> None:
    for name in ("pycuda", "pycuda.driver", "cupy"):
        monkeypatch.setitem(sys.modules, name, None)
    if broken:
        break_pycuda(monkeypatch, tmp_path, broken)
    with pytest.raises(ModuleNotFoundError) as caught:
        open_device("cuda")
    assert fragment in str(caught.value)


def break_pycuda(monkeypatch: pytest.MonkeyPatch, folder: Path, why: str) -> None:
    """Install a PyCUDA that does not import."""
    for name in ("pycuda", "pycuda.driver"):
        monkeypatch.delitem(sys.modules, name)
    (folder / "pycuda").mkdir()
    (folder / "pycuda/__init__.py").write_text("")
    (folder / "pycuda/driver.py").write_text(f"raise ImportError({why!r})")
    monkeypatch.syspath_prepend(str(folder))


def test_a_pycuda_that_does_not_import_is_not_replaced_without_a_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prepare(monkeypatch, str(tmp_path), "CuPy")
    break_pycuda(monkeypatch, tmp_path, "libcurand.so.10:\ncannot open")
    with open_device("cuda") as device:
        assert " through CuPy 14.2.0 (pycuda does not import: libcurand.so.10: cannot open), driver " in device.details


def test_the_library_that_is_insisted_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = prepare(monkeypatch, str(tmp_path), "PyCUDA")
    monkeypatch.setenv("SUT_CUDA_LIBRARY", "cupy")
    with pytest.raises(ModuleNotFoundError) as caught:
        open_device("cuda")
    assert str(caught.value) == (
        "kernels run on a GPU through cupy, which SUT_CUDA_LIBRARY insists on (cupy is not installed):"
        " pip install cupy-cuda13x"
    )
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(machine.gpu))
    with open_device("cuda") as device:
        assert " through CuPy 14.2.0, driver " in device.details
    assert found_library() == "CuPy 14.2.0"


def test_a_library_that_nobody_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prepare(monkeypatch, str(tmp_path), "PyCUDA")
    monkeypatch.setenv("SUT_CUDA_LIBRARY", "PyTorch")
    with pytest.raises(ValueError, match=r"^SUT_CUDA_LIBRARY is 'PyTorch', expected pycuda or cupy$"):
        open_device("cuda")


def test_a_driver_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.driver.ctypes, "CDLL", lambda name: FakeLibcuda(init=803))
    with pytest.raises(DeviceNotFound) as caught:
        installed_driver()
    assert str(caught.value) == (
        "the NVIDIA driver does not start: driver / library mismatch (CUDA error 803); nvidia-smi may say more"
    )


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(plugins.driver.ctypes, "CDLL", missing)
    with pytest.raises(DeviceNotFound, match=r"no NVIDIA driver \(libcuda\.so\.1 does not load\): install one, or"):
        open_device("cuda")


def test_a_driver_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins.driver.ctypes, "CDLL", lambda name: FakeLibcuda(version=12080, gpus=4))
    assert installed_driver() == Installed(12, 8, 4)


def test_the_owner_runs_in_order_raises_and_answers_itself() -> None:
    owner = OwnerThread("owner")
    seen = [owner(lambda: threading.current_thread().name)]
    seen.append(owner(lambda: owner(lambda: threading.current_thread().name)))
    with pytest.raises(KeyError):
        owner(lambda: {}["nothing"])
    owner.close()
    assert seen == ["owner", "owner"]


def test_page_locked_memory_is_the_hosts_until_the_device_is_closed(machine: Machine) -> None:
    with open_device("cuda", with_kernels=False) as device:
        array = device.pinned((2, 3), "float32")
        array[:] = 7
        stream = device.new_stream()
        memory = device.upload(array, stream=stream)

        assert (array.shape, array.dtype) == ((2, 3), np.float32)
        np.testing.assert_array_equal(device.download(memory, (2, 3), "float32", stream), array)
        assert machine.gpu.pinned == 1
    assert machine.gpu.pinned == 0


def test_a_stream_can_wait_for_what_another_was_told(machine: Machine, device: GpuDevice) -> None:
    one, other = device.new_stream(), device.new_stream()

    signal = device.signal(one)
    device.call("waiting for the other", other, lambda driver: driver.wait(signal, other))

    assert machine.gpu.queued[-2:] == [("event", one), ("wait", other)]
    assert device.signal(one) is signal


def test_no_compiler_has_to_be_there_where_no_kernel_runs(machine: Machine) -> None:
    machine.compilers.clear()
    with open_device("cuda", with_kernels=False) as device:
        assert "kernels" not in device.details
        with pytest.raises(ModuleNotFoundError, match="NVRTC"):
            open_device("cuda")
        machine.compilers.append(FakeCompiler())
        with open_device("cuda") as other:
            transpose(other)
            assert "kernels for sm_90" in other.details
    with pytest.raises(DeviceError, match="has been closed"):
        device.free_bytes()
