"""Compiles the kernels, and the server that runs them, for the host: g++ with its sanitizers, kept by what went in."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from shutil import which

from kernels.device import DeviceError, entry_points
from plugins.cache import cache_dir, code_dir, entry, private_dir

HERE = Path(__file__).parent
MISSING = "the host form of the kernels needs g++ (Debian: apt-get install g++)"

_SANITIZERS = ("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all")
# Each module is a library of its own, whose static data is nobody else's (-fno-gnu-unique, -Bsymbolic); no strict
# aliasing, since kernels read several elements as one word, which a GPU's compiler allows.
_KERNEL_FLAGS = (
    *("-std=c++17", "-O1", "-g1", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-gnu-unique", "-fno-strict-aliasing"),
    *("-Wl,-Bsymbolic", "-fno-omit-frame-pointer", "-ffp-contract=off", "-DKERNELS_HOST", *_SANITIZERS),
)
_SERVER_SOURCES = ("server.cpp", "block.cpp", "counting.cpp")
# The server itself is not instrumented: it poisons the red zones' neighbours, and counts with what speed there is.
SERVER_FLAGS = ("-std=c++17", "-O2", "-g1", "-fPIC")
_LINK_FLAGS = ("-rdynamic", "-ldl", *_SANITIZERS)
_LIMIT_S = 300.0


def server() -> Path:
    """The server's executable. Raises ``ModuleNotFoundError`` without g++, ``DeviceError`` where g++ refuses."""
    sources = [HERE / name for name in _SERVER_SOURCES]
    headers = sorted(HERE.glob("*.hpp"))

    def make(target: Path) -> None:
        objects = [str(target.with_name(f"{source.stem}.o")) for source in sources]
        for source, compiled in zip(sources, objects, strict=True):
            run_compiler([*SERVER_FLAGS, "-c", str(source), "-o", compiled])
        run_compiler([*objects, "-o", str(target), *_LINK_FLAGS])
        for compiled in objects:
            Path(compiled).unlink()

    return _kept("server", [*sources, *headers], (*SERVER_FLAGS, *_LINK_FLAGS), make)


def module(source: Path, includes: Path) -> Path:
    """The library of one .cu file, which finds its headers in ``includes``.

    Raises as ``server`` does, and ``ValueError`` for a file that is not there.
    """
    source = source.absolute()
    names = tuple(entry_points(source))
    headers = [HERE / "cuda.hpp", *sorted(includes.glob("*.cuh"))]

    def make(target: Path) -> None:
        quoted = ", ".join(f'"{name}"' for name in names)
        calls = ", ".join(f"host::Caller<{name}>::call" for name in names)
        text = (
            f'#include "{source}"\n'
            f"static const char* const names[] = {{{quoted}}};\n"
            f"static const host::Entry entries[] = {{{calls}}};\n"
            f"KERNELS_MODULE({len(names)}, names, entries)\n"
        )
        wrapper = target.with_suffix(".cpp")
        wrapper.write_text(text, encoding="utf-8")
        flags = [*_KERNEL_FLAGS, f"-I{includes.absolute()}", "-include", str(HERE / "cuda.hpp")]
        run_compiler([*flags, str(wrapper), "-o", str(target)])
        wrapper.unlink()

    # The path counts too: it is in the sanitizers' reports.
    return _kept(f"{source.stem}.so", [source, *headers], (*_KERNEL_FLAGS, str(source)), make)


def _kept(name: str, inputs: list[Path], flags: tuple[str, ...], make: Callable[[Path], None]) -> Path:
    """The cached file that ``make`` writes from ``inputs``: looked up by their contents, the flags and the compiler."""
    key = hashlib.sha256("\0".join((*flags, *find_compiler())).encode())
    for path in inputs:
        key.update(path.name.encode() + b"\0" + path.read_bytes())
    try:
        return entry(code_dir("kernels-host") or private_dir(), name, key.hexdigest(), make)
    except OSError as error:
        where = f"the host form in {cache_dir() / 'kernels-host'}"
        raise ValueError(f"cannot keep {where}: {error.strerror}; set SUT_CACHE_DIR to a folder") from error


def find_compiler() -> tuple[str, str]:
    """The path of g++ and its version. Raises ``ModuleNotFoundError`` where it is missing."""
    path = which("g++")
    if path is None:
        raise ModuleNotFoundError(MISSING)
    return path, _version(path)


@lru_cache(maxsize=4)
def _version(path: str) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    return said.partition("\n")[0]


def run_compiler(arguments: list[str]) -> None:
    """Run g++. Raises ``DeviceError`` with its first complaint."""
    command = [find_compiler()[0], *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"g++ has not compiled the host form within {_LIMIT_S:g} s") from None
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit code {done.returncode}"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise DeviceError(f"g++ cannot compile the host form: {first.strip()}")
