"""Which compiler is chosen, and that the cache never gives anything but what was compiled from just this."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from kernels import compile as compile_module
from kernels import compilers
from kernels.compile import cubin, key_of
from kernels.compilers import CompileError, KernelSource, architecture_for, find_compiler
from plugins.errors import DeviceNotFound
from tests.kernels.fakes import FakeCompiler


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "one.cu").write_text('#include "memory.cuh"\nextern "C" __global__ void one(int n) {}\n')
    (folder / "two.cu").write_text("// two\n")
    (folder / "memory.cuh").write_text("// shared\n")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


def only_file(cache: Path) -> Path:
    [path] = cache.rglob("*.cubin")
    return path


def test_the_second_time_nothing_is_compiled(sources: Path, cache: Path) -> None:
    compiler = FakeCompiler()

    first = cubin("one", "sm_90", compiler, sources)

    assert cubin("one", "sm_90", compiler, sources) == first
    assert compiler.compiled == ["one.cu sm_90"]
    assert only_file(cache).name == "one-sm_90.cubin"
    assert only_file(cache).read_bytes() == first


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: b"\x7fELF" + b"another compiler's cubin" * 20,
    ],
    ids=["cut by a byte", "cut in half", "empty", "longer", "flipped", "foreign"],
)
def test_a_spoilt_file_is_made_anew(sources: Path, cache: Path, spoil: object) -> None:
    compiler = FakeCompiler()
    right = cubin("one", "sm_90", compiler, sources)
    path = only_file(cache)
    whole = path.read_bytes()
    path.write_bytes(spoil(whole))  # type: ignore[operator]

    assert cubin("one", "sm_90", compiler, sources) == right
    assert len(compiler.compiled) == 2
    assert path.read_bytes() == whole


def test_a_whole_file_of_another_key_is_not_taken_for_this_one(sources: Path, cache: Path) -> None:
    compiler = FakeCompiler()
    cubin("one", "sm_90", compiler, sources)
    stale = only_file(cache).parent
    (sources / "memory.cuh").write_text("// changed\n")
    fresh = cubin("one", "sm_90", compiler, sources)
    [path] = set(cache.iterdir()) - {stale}

    shutil.rmtree(path)
    stale.rename(path)

    assert cubin("one", "sm_90", compiler, sources) == fresh
    assert len(compiler.compiled) == 3


def test_everything_a_cubin_depends_on_is_in_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    source = KernelSource("a.cu", "text", (("b.cuh", "header"),))
    keys = [
        key_of(source, "sm_90", FakeCompiler()),
        key_of(source, "sm_89", FakeCompiler()),
        key_of(source, "sm_90", FakeCompiler(identity="Fake 13.0.2")),
        key_of(replace(source, text="text "), "sm_90", FakeCompiler()),
        key_of(replace(source, name="c.cu"), "sm_90", FakeCompiler()),
        key_of(replace(source, headers=(("b.cuh", "other"),)), "sm_90", FakeCompiler()),
        key_of(replace(source, headers=(("c.cuh", "header"),)), "sm_90", FakeCompiler()),
        key_of(replace(source, headers=()), "sm_90", FakeCompiler()),
        key_of(replace(source, text="text" + "b.cuh"), "sm_90", FakeCompiler()),
    ]
    monkeypatch.setattr(compile_module, "OPTIONS", ("--std=c++17",))
    keys.append(key_of(source, "sm_90", FakeCompiler()))

    assert len(set(keys)) == len(keys)
    assert key_of(source, "sm_90", FakeCompiler()) == keys[-1]


def test_many_at_once_leave_one_whole_file(sources: Path, cache: Path) -> None:
    at_once = 6
    compiler = FakeCompiler(before=threading.Barrier(at_once))
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(cubin("one", "sm_90", compiler, sources))) for _ in range(at_once)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(compiler.compiled) == at_once
    assert len(found) == at_once
    assert set(found) == {cubin("one", "sm_90", compiler, sources)}
    assert len(compiler.compiled) == at_once
    assert [path.parent for path in cache.rglob("*.cubin")] == list(cache.iterdir())


def test_without_a_cache_folder_it_compiles_each_time(sources: Path, cache: Path) -> None:
    cache.parent.write_text("a file where the folder would be")
    compiler = FakeCompiler()

    assert cubin("one", "sm_90", compiler, sources) == cubin("one", "sm_90", compiler, sources)
    assert len(compiler.compiled) == 2


def test_what_does_not_compile_is_not_kept(sources: Path, cache: Path) -> None:
    (sources / "one.cu").write_text("broken")
    with pytest.raises(CompileError, match="cannot compile"):
        cubin("one", "sm_90", FakeCompiler(), sources)
    assert not list(cache.rglob("*.cubin"))


def test_a_module_that_is_not_there(sources: Path) -> None:
    with pytest.raises(ValueError, match=r"no kernels called 'three' in .*; there are: one, two$"):
        cubin("three", "sm_90", FakeCompiler(), sources)


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [("sm_75", "sm_75"), ("sm_90", "sm_90"), ("sm_87", "sm_86"), ("sm_89", "sm_86"), ("sm_80", "sm_80")],
)
def test_a_cubin_runs_on_its_own_and_later_minors(gpu: str, expected: str) -> None:
    assert architecture_for(gpu, FakeCompiler()) == expected


@pytest.mark.parametrize(
    ("gpu", "fragment"),
    [
        ("sm_52", "Fake 13.0 has no sm_52; it has sm_75, sm_80, sm_86, sm_90: pip install nvidia-cuda-nvrtc-cu12 "),
        ("sm_70", "pip install nvidia-cuda-nvrtc-cu12 "),  # same major as sm_75, but older
        ("sm_100", "Fake 13.0 has no sm_100; it has sm_75, sm_80, sm_86, sm_90: install a newer"),
        ("sm_120", "install a newer"),
    ],
)
def test_an_architecture_that_a_compiler_does_not_have(gpu: str, fragment: str) -> None:
    with pytest.raises(DeviceNotFound) as caught:
        architecture_for(gpu, FakeCompiler())
    assert fragment in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "expected"), [(None, "NVRTC 13.1"), (14, "NVRTC 13.1"), (13, "NVRTC 13.1"), (12, "NVRTC 12.9")]
)
def test_the_first_compiler_that_the_driver_can_follow(
    monkeypatch: pytest.MonkeyPatch, driver: int | None, expected: str
) -> None:
    installed = [FakeCompiler("NVRTC 13.1"), FakeCompiler("NVRTC 12.9", major=12), FakeCompiler("nvcc 13.0")]
    monkeypatch.setattr(compilers, "_installed", lambda: iter(installed))
    assert find_compiler(driver).label == expected


def test_a_compiler_that_does_not_know_the_gpu_makes_way_for_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [FakeCompiler("NVRTC 13.1"), FakeCompiler("NVRTC 12.9", major=12, architectures=("sm_52", "sm_90"))]
    monkeypatch.setattr(compilers, "_installed", lambda: iter(installed))
    assert find_compiler(13, "sm_52").label == "NVRTC 12.9"
    assert find_compiler(13, "sm_90").label == "NVRTC 13.1"
    with pytest.raises(DeviceNotFound, match=r"NVRTC 13\.1 has no sm_35"):
        find_compiler(13, "sm_35")


@pytest.mark.parametrize(
    ("installed", "driver", "message"),
    [
        ([], None, "compiling the kernels needs NVRTC or nvcc, neither is there: pip install nvidia-cuda-nvrtc"),
        ([], 12, "compiling the kernels needs NVRTC or nvcc, neither is there: pip install nvidia-cuda-nvrtc-cu12"),
        (
            [FakeCompiler("nvcc 13.0")],
            12,
            "compiling the kernels needs NVRTC or nvcc of the driver's CUDA 12 (nvcc 13.0 is newer):"
            " pip install nvidia-cuda-nvrtc-cu12",
        ),
    ],
)
def test_no_compiler(
    monkeypatch: pytest.MonkeyPatch, installed: list[FakeCompiler], driver: int | None, message: str
) -> None:
    monkeypatch.setattr(compilers, "_installed", lambda: iter(installed))
    with pytest.raises(ModuleNotFoundError) as caught:
        find_compiler(driver)
    assert str(caught.value) == message


def test_nvrtc_of_wheels_comes_before_toolkits_and_nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheels, kit = tmp_path / "site-packages" / "nvidia", tmp_path / "kit"
    libraries = [
        wheels / "cu13/lib/libnvrtc.so.13",
        wheels / "cuda_nvrtc/lib/libnvrtc.so.12",
        kit / "lib64/libnvrtc.so.13",
    ]
    others = [wheels / "cu13/lib/libnvrtc.alt.so.13", wheels / "cu13/lib/libnvrtc-builtins.so.13.0", kit / "bin/nvcc"]
    for path in [*libraries, *others, kit / "lib64/libnvrtc.so.13.0.88"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not a library")
    monkeypatch.setenv("CUDA_HOME", str(kit))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setattr(compilers, "_SYSTEM_TOOLKIT", tmp_path / "none")
    monkeypatch.setattr(compilers.shutil, "which", lambda name: None)
    monkeypatch.setattr(compilers.sys, "path", [str(tmp_path), str(wheels.parent)])

    assert compilers._nvrtc_libraries() == libraries
    assert compilers._nvcc_programs() == [kit / "bin/nvcc"]
    with pytest.raises(ModuleNotFoundError, match="neither is there"):  # none of them works
        find_compiler()
