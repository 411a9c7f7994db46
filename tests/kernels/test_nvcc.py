"""The real compilers, where they are installed: every kernel compiles for every architecture, and nothing spills."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from kernels import compilers
from kernels.compile import cubin
from kernels.compilers import OPTIONS, CompileError, Compiler, KernelSource, Nvcc, Nvrtc
from kernels.device import SOURCES, entry_points
from kernels.lab.resources import Resources, resources
from tests.core import needs

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
ONE = "sm_90"
MODULES = sorted(str(path.relative_to(SOURCES).with_suffix("")) for path in SOURCES.rglob("*.cu"))

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for helper
    96 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Function properties for second
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 8 bytes cumulative stack size, 4224 bytes smem, 376 bytes cmem[0]
ptxas info    : Compile time = 3.2 ms
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers, 376 bytes cmem[0]
"""
SPILLING = """
extern "C" __global__ void __launch_bounds__(1024, 2) greedy(const float* in, float* out) {
    float v[64];
    for (int i = 0; i < 64; ++i) v[i] = in[i * 1024 + threadIdx.x];
    __syncthreads();
    for (int k = 0; k < 64; ++k)
        for (int i = 0; i < 64; ++i) v[i] = v[i] * v[(i + k) % 64] + 1.0f;
    for (int i = 0; i < 64; ++i) out[i * 1024 + threadIdx.x] = v[i];
}
"""


def nvcc() -> Compiler:
    for path in compilers._nvcc_programs():
        return Nvcc(path)
    pytest.skip("nvcc is not installed")


def nvrtc() -> Compiler:
    return Nvrtc(compilers._nvrtc_libraries()[0])


@pytest.fixture(scope="module", params=[nvcc, pytest.param(nvrtc, marks=needs("gpu-cu13"))], ids=["nvcc", "nvrtc"])
def compiler(request: pytest.FixtureRequest) -> Compiler:
    found: Compiler = request.param()
    return found


def compile_and_judge(compiler: Compiler, module: str, architecture: str) -> None:
    if architecture not in compiler.architectures:
        pytest.skip(f"{compiler.label} has no {architecture}")
    compiled = compiler.compile(KernelSource.read(SOURCES, module), architecture)
    found = resources(compiled.log)
    assert set(found) == set(entry_points(SOURCES / f"{module}.cu"))
    assert {name: each.spill_bytes for name, each in found.items() if each.spill_bytes} == {}
    # 48 KiB is what a block may have on every GPU without asking for more.
    assert max(each.shared_bytes for each in found.values()) <= 48 * 1024
    assert compiled.cubin.startswith(b"\x7fELF")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_compiles_without_spills(compiler: Compiler, module: str) -> None:
    compile_and_judge(compiler, module, ONE)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != ONE])
@pytest.mark.parametrize("module", MODULES)
def test_a_module_compiles_without_spills_for_all(compiler: Compiler, module: str, architecture: str) -> None:
    compile_and_judge(compiler, module, architecture)


@needs("gpu-cu13")
def test_the_two_agree_on_what_the_kernels_take() -> None:
    source = KernelSource.read(SOURCES, MODULES[0])
    by_nvcc, by_nvrtc = (resources(make().compile(source, ONE).log) for make in (nvcc, nvrtc))
    assert {name: each.shared_bytes for name, each in by_nvcc.items()} == {
        name: each.shared_bytes for name, each in by_nvrtc.items()
    }


def test_a_spill_would_be_seen(compiler: Compiler) -> None:
    found = resources(compiler.compile(KernelSource("greedy.cu", SPILLING, ()), ONE).log)
    assert found["greedy"].spill_bytes > 0
    assert found["greedy"].registers <= 32


def test_an_error_is_one_line_with_its_place(compiler: Compiler) -> None:
    with pytest.raises(CompileError) as caught:
        compiler.compile(
            KernelSource(
                "wrong.cu", '#include "a.cuh"\n__device__ int f() {\n  return nothing;\n}\n', (("a.cuh", ""),)
            ),
            ONE,
        )
    assert str(caught.value).startswith(f"{compiler.label} cannot compile wrong.cu for {ONE}: wrong.cu(3): error")
    assert "\n" not in str(caught.value)


def test_a_header_that_is_not_there(compiler: Compiler) -> None:
    with pytest.raises(CompileError, match=r"memory\.cuh"):
        compiler.compile(KernelSource("wrong.cu", '#include "memory.cuh"\n', ()), ONE)


def test_an_architecture_it_does_not_have(compiler: Compiler) -> None:
    assert "sm_52" not in compiler.architectures or compiler.major < 13
    with pytest.raises(CompileError, match="sm_20"):
        compiler.compile(KernelSource("empty.cu", "", ()), "sm_20")


def test_the_cache_over_the_real_thing(compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUT_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "a.cu").write_text('extern "C" __global__ void a(int* p) { *p = 1; }')
    first = cubin("a", ONE, compiler, tmp_path)
    monkeypatch.setattr(type(compiler), "compile", None)  # whoever compiles now fails
    assert cubin("a", ONE, compiler, tmp_path) == first


@needs("gpu-cu13")
def test_a_fresh_host_finds_what_the_same_nvrtc_compiled(tmp_path: Path) -> None:
    original = compilers._nvrtc_libraries()[0]
    for path in original.parent.glob("libnvrtc*.so*"):
        shutil.copyfile(path, tmp_path / path.name)
    copy = tmp_path / original.name
    assert copy.stat().st_mtime_ns != original.stat().st_mtime_ns

    assert Nvrtc(copy).identity == Nvrtc(original).identity
    assert Nvrtc(copy).identity.endswith(f", build {compilers.build_id(copy)}")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_libraries_are_told_apart_by_build_id_or_else_by_all_of_them(tmp_path: Path) -> None:
    def build(name: str, code: str, option: str) -> str:
        command = ["g++", "-shared", "-x", "c++", f"-Wl,--build-id={option}", "-o", str(tmp_path / name), "-"]
        subprocess.run(command, input=code, text=True, check=True)
        return compilers.build_id(tmp_path / name)

    assert build("told", "int one;", "0x" + "5a" * 20) == "5a" * 20
    assert build("other", "int other;", "sha1") != build("third", "int another;", "sha1")
    without, begin = build("without", "int one;", "none"), (tmp_path / "told").read_bytes()[:80]
    assert without == hashlib.sha256((tmp_path / "without").read_bytes()).hexdigest()
    (tmp_path / "cut").write_bytes(begin)
    assert compilers.build_id(tmp_path / "cut") == hashlib.sha256(begin).hexdigest()


def test_no_multiplication_is_fused_with_an_addition(compiler: Compiler) -> None:
    """float32 results equal the host form's only where each operation rounds; ptxas is asked for the same."""
    text = 'extern "C" __global__ void a(float* p, float x, float y) { *p = *p * x + y; }'
    plain = compiler.compile(KernelSource("a.cu", text, ()), ONE).cubin
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(compilers, "OPTIONS", tuple(option for option in OPTIONS if "fmad" not in option))
        fused = compiler.compile(KernelSource("a.cu", text, ()), ONE).cubin
    assert plain != fused


def test_the_log_is_read() -> None:
    assert resources(LOG) == {"second": Resources(32, 4224, 8, 28), "first": Resources(10, 0, 0, 0)}
    assert resources("") == {}
    with pytest.raises(ValueError, match="does not tell the resources of first"):
        resources("ptxas info    : Compiling entry function 'first' for 'sm_90'\nother words\n")
