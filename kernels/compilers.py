"""The compilers of the kernels: NVRTC, from NVIDIA's wheel or a toolkit, else nvcc. Neither needs a GPU to compile.

Both get the same text and the same options and give a cubin, machine code of one architecture, so that nothing is left
to the driver's own compiler. A cubin runs on GPUs of the same major architecture from its own minor one on.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kernels.device import DeviceError
from plugins.errors import DeviceNotFound

OPTIONS = ("--std=c++17", "--fmad=false")
"""NVRTC and nvcc know both. Without fused multiply-add float32 results are those of the host form, bit for bit."""
WHEELS = {13: "nvidia-cuda-nvrtc", 12: "nvidia-cuda-nvrtc-cu12"}
"""NVRTC's distribution for each CUDA that is supported, newest first."""
_HEADER, _SEGMENT, _NOTE = struct.Struct("<4sB27xQ14xHH"), struct.Struct("<I4xQ16xQ"), struct.Struct("<III4s")
"""Of a 64-bit ELF file (System V ABI): its header up to the number of segments, the head of a segment and of a note."""
_NOTES, _BUILD_ID = 4, (3, b"GNU\0")
"""Type of a segment with notes; type and name of the note that a linker writes with --build-id."""
_SYSTEM_TOOLKIT = Path("/usr/local/cuda")
_LIMIT_S = 300


class CompileError(DeviceError):
    """A compiler refused a source or failed; one line with its first complaint."""


@dataclass(frozen=True, slots=True)
class KernelSource:
    """The text of one module and of the headers beside it, by file name."""

    name: str
    """File name, ``resize.cu``."""
    text: str
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, folder: Path, module: str) -> KernelSource:
        """Read ``module``.cu and every .cuh in ``folder``. Raises ``ValueError`` for a module that is not there."""
        path = folder / f"{module}.cu"
        if not path.is_file():
            known = ", ".join(sorted(each.stem for each in folder.glob("*.cu")))
            raise ValueError(f"no kernels called '{module}' in {folder}; there are: {known}")
        headers = tuple((each.name, each.read_text(encoding="utf-8")) for each in sorted(folder.glob("*.cuh")))
        return cls(path.name, path.read_text(encoding="utf-8"), headers)


@dataclass(frozen=True, slots=True)
class Compiled:
    """A cubin, and what the assembler said of registers and spills, which ``kernels/lab/resources.py`` reads."""

    cubin: bytes
    log: str


class Compiler(Protocol):
    """One installed compiler."""

    @property
    def label(self) -> str:
        """Name and version, as shown: ``NVRTC 13.0``."""

    @property
    def identity(self) -> str:
        """What tells it from any other build of itself: part of a cubin's key."""

    @property
    def major(self) -> int:
        """The CUDA it belongs to: the driver must be of this CUDA, or newer."""

    @property
    def architectures(self) -> tuple[str, ...]:
        """What it can generate code for, ascending: ``sm_75``."""

    def compile(self, source: KernelSource, architecture: str) -> Compiled:
        """Compile for exactly ``architecture``. Raises ``CompileError``."""


def find_compiler(newest_cuda: int | None = None, gpu: str | None = None) -> Compiler:
    """The first of NVRTC and nvcc that is there, works and fits; NVRTC of the newest CUDA first.

    ``newest_cuda`` is the driver's CUDA: a driver loads no cubin that a newer CUDA made, so newer compilers are left
    out. It is at least the oldest CUDA in ``WHEELS``. ``gpu`` is an architecture that it must compile for. Raises
    ``ModuleNotFoundError`` where none is left, with the command that installs one, and ``DeviceNotFound`` where one is
    but none has code for ``gpu``.
    """
    newer: list[str] = []
    without: list[DeviceNotFound] = []
    for compiler in _installed():
        if newest_cuda is not None and compiler.major > newest_cuda:
            newer.append(compiler.label)
            continue
        try:
            if gpu is not None:
                architecture_for(gpu, compiler)
            return compiler
        except DeviceNotFound as error:
            without.append(error)
    if without:
        raise without[0]
    wheel = next(name for cuda, name in WHEELS.items() if newest_cuda is None or cuda <= newest_cuda)
    labels = ", ".join(dict.fromkeys(newer))
    wanted = f" of the driver's CUDA {newest_cuda} ({labels} is newer)" if newer else ", neither is there"
    raise ModuleNotFoundError(f"compiling the kernels needs NVRTC or nvcc{wanted}: pip install {wheel}")


def architecture_for(gpu: str, compiler: Compiler) -> str:
    """What ``compiler`` must compile for, so that the code runs on ``gpu`` (``sm_90``): that, or its next older minor.

    Raises ``DeviceNotFound`` where it has nothing of the GPU's major architecture that is old enough.
    """
    wanted = _number(gpu)
    fitting = [
        name for name in compiler.architectures if wanted // 10 == _number(name) // 10 and _number(name) <= wanted
    ]
    if not fitting:
        known = ", ".join(compiler.architectures)
        older = wanted < _number(compiler.architectures[0])
        do = f"pip install {WHEELS[12]} (CUDA 12 still has it)" if older else "install a newer NVRTC or nvcc"
        raise DeviceNotFound(f"{compiler.label} has no {gpu}; it has {known}: {do}")
    return max(fitting, key=_number)


def _number(architecture: str) -> int:
    return int(architecture.removeprefix("sm_"))


def _installed() -> Iterator[Compiler]:
    for path in _nvrtc_libraries():
        with suppress(OSError, AttributeError):  # built for another machine, or too old to make cubins
            yield Nvrtc(path)
    for path in _nvcc_programs():
        with suppress(OSError, subprocess.SubprocessError, CompileError):
            yield Nvcc(path)


def _toolkits() -> list[Path]:
    named = [Path(folder) for name in ("CUDA_HOME", "CUDA_PATH") if (folder := os.environ.get(name))]
    return [*named, _SYSTEM_TOOLKIT]


def _nvrtc_libraries() -> list[Path]:
    """Wheels before toolkits, newest CUDA first; the wheel of CUDA 12 keeps it in another folder than that of 13."""
    wheels = [folder for entry in sys.path for folder in Path(entry, "nvidia").glob("*/lib")]
    found = []
    for folders in (wheels, [kit / "lib64" for kit in _toolkits()]):
        files = [path for folder in folders for path in folder.glob("libnvrtc.so.[1-9][0-9]")]
        found += sorted(files, key=lambda path: path.suffix, reverse=True)
    return found


def _nvcc_programs() -> list[Path]:
    on_path = shutil.which("nvcc")
    found = [Path(on_path)] if on_path else []
    return [*found, *(path for kit in _toolkits() if (path := kit / "bin" / "nvcc").is_file())]


class Nvrtc:
    """NVRTC through ctypes. The functions and their order are those of nvrtc.h (NVIDIA's NVRTC manual)."""

    def __init__(self, path: Path) -> None:
        """Load the library. Raises ``OSError`` where it does not load, ``AttributeError`` for one older than 11.2."""
        # NVRTC looks for its other half by name only, in vain where the folder is on no search path: a wheel's is not.
        # Once loaded, it is found by that name.
        self._builtins = [ctypes.CDLL(str(half)) for half in path.parent.glob("libnvrtc-builtins.so.*.*")]
        self._library = ctypes.CDLL(str(path))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        for name in ("nvrtcGetCUBIN", "nvrtcGetSupportedArchs"):
            getattr(self._library, name)
        major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", numbers)
        self.major = major.value
        self.label = f"NVRTC {major.value}.{minor.value}"
        self.identity = f"{self.label}, build {build_id(path)}"
        self.architectures = tuple(f"sm_{number}" for number in sorted(numbers))

    def compile(self, source: KernelSource, architecture: str) -> Compiled:
        """See ``Compiler``."""
        headers = [(name.encode(), text.encode()) for name, text in source.headers]
        texts = (ctypes.c_char_p * len(headers))(*(text for _, text in headers))
        names = (ctypes.c_char_p * len(headers))(*(name for name, _ in headers))
        program = ctypes.c_void_p()
        main = (source.text.encode(), source.name.encode())
        self._call("nvrtcCreateProgram", ctypes.byref(program), *main, len(headers), texts, names)
        try:
            given = [*OPTIONS, f"--gpu-architecture={architecture}", "--ptxas-options=--verbose"]
            options = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
            code = self._library.nvrtcCompileProgram(program, len(given), options)
            log = self._read("nvrtcGetProgramLog", program).decode(errors="replace").rstrip("\0")
            if code:
                raise CompileError(_complaint(self.label, source, architecture, log, self._meaning(code)))
            return Compiled(self._read("nvrtcGetCUBIN", program), log)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _read(self, name: str, program: ctypes.c_void_p) -> bytes:
        """What a pair of functions gives: ``name`` + Size, then ``name``."""
        size = ctypes.c_size_t()
        self._call(f"{name}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(name, program, buffer)
        return buffer.raw

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(self._library, name)(*arguments):
            raise CompileError(f"{name} failed: {self._meaning(code)}")

    def _meaning(self, code: int) -> str:
        return bytes(self._library.nvrtcGetErrorString(code)).decode()


def build_id(library: Path) -> str:
    """What tells a library from any other build of it, on every machine: its ELF build id, or else its SHA-256."""
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        with suppress(struct.error):  # cut short, or no ELF file
            magic, bits, segments, step, count = _HEADER.unpack_from(data)
            for number in range(count if (magic, bits) == (b"\x7fELF", 2) else 0):
                segment, at, size = _SEGMENT.unpack_from(data, segments + step * number)
                end = at + size if segment == _NOTES else at
                while at < end:
                    name_length, length, note, name = _NOTE.unpack_from(data, at)
                    begin = at + 12 + -(-name_length // 4) * 4
                    if (note, name) == _BUILD_ID:
                        return data[begin : begin + length].hex()
                    at = begin + -(-length // 4) * 4
        return hashlib.sha256(data).hexdigest()


class Nvcc:
    """nvcc as a program; it needs a host compiler, which NVRTC does not."""

    def __init__(self, path: Path) -> None:
        """Ask it for its version. Raises ``OSError`` or ``SubprocessError`` where it does not start."""
        self._path = path
        said = self._run("--version")
        found = re.search(r"release (\d+)\.(\d+), (V[\d.]+)", said)
        if not found:
            raise CompileError(f"{path} --version does not name a release: {' '.join(said.split())[:200]}")
        self.major = int(found[1])
        self.label = f"nvcc {found[1]}.{found[2]}"
        self.identity = f"nvcc {found[3]}, {said.splitlines()[-1]}"
        self.architectures = tuple(
            sorted(set(re.findall(r"^sm_\d+$", self._run("--list-gpu-code"), re.M)), key=_number)
        )

    def compile(self, source: KernelSource, architecture: str) -> Compiled:
        """See ``Compiler``. Works on copies, so that it compiles what was hashed."""
        with tempfile.TemporaryDirectory(prefix="kernels-") as name:
            folder = Path(name)
            for file, text in ((source.name, source.text), *source.headers):
                (folder / file).write_text(text, encoding="utf-8")
            command = [str(self._path), "-cubin", f"-arch={architecture}", *OPTIONS, "-Xptxas=--verbose"]
            try:
                done = subprocess.run(
                    [*command, "-o", "out.cubin", source.name],
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=_LIMIT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise CompileError(f"{self.label} did not compile {source.name} within {_LIMIT_S} s") from None
            log = done.stdout + done.stderr
            if done.returncode:
                raise CompileError(_complaint(self.label, source, architecture, log, f"exit code {done.returncode}"))
            return Compiled((folder / "out.cubin").read_bytes(), log)

    def _run(self, option: str) -> str:
        command = [str(self._path), option]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def _complaint(label: str, source: KernelSource, architecture: str, log: str, otherwise: str) -> str:
    """One line: the first error in ``log``, which names file and line."""
    errors = [line.strip() for line in log.splitlines() if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE)]
    return f"{label} cannot compile {source.name} for {architecture}: {errors[0] if errors else otherwise}"
