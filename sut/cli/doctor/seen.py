"""What one library sees of the GPUs here: a program, so that a library that crashes ends nothing else.

``python -P seen.py NAME`` prints one line of JSON. It needs the standard library and what it looks at, no more. Has not
seen a GPU yet.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Seen:
    """How many GPUs a library sees, None where it does not say; and what else is to be told of it."""

    gpus: int | None
    words: str


def _pycuda() -> Seen:
    driver, version = import_module("pycuda.driver"), import_module("pycuda").VERSION_TEXT
    driver.init()
    return Seen(driver.Device.count(), f"{version}, built for CUDA {'.'.join(map(str, driver.get_version()[:2]))}")


def _cupy() -> Seen:
    library: Any = import_module("cupy")
    runtime = library.cuda.runtime
    return Seen(runtime.getDeviceCount(), f"{library.__version__}, CUDA {_dotted(runtime.runtimeGetVersion())}")


def _torch() -> Seen:
    library: Any = import_module("torch")
    if not library.version.cuda:
        return Seen(0, f"{library.__version__}, built for the CPU alone")
    cuda, words = library.cuda, f"{library.__version__}, built for CUDA {library.version.cuda}"
    count, built = cuda.device_count(), cuda.get_arch_list()
    if not cuda.is_available():
        return Seen(0, f"{words}; torch.cuda.is_available() says no")
    for number in range(count):
        major, minor = cuda.get_device_capability(number)
        if not any(_runs(each, major, minor) for each in built):
            words += f"; it has no code for sm_{major}{minor} of cuda:{number}"
    return Seen(count, words)


def _nvimgcodec() -> Seen:
    library: Any = import_module("nvidia.nvimgcodec")
    return Seen(None, f"{library.__version__}, built for CUDA {_dotted(library.__cuda_version__)}")


def _dali() -> Seen:
    library: Any = import_module("nvidia.dali")
    count = import_module("nvidia.dali.backend").GetCUDADeviceCount()
    # 13492 is 13.4.92.
    return Seen(count, f"{library.__version__}, built for CUDA {library.__cuda_version__!s:.2}")


def _cudnn() -> Seen:
    library = _loaded("libcudnn.so.9")
    library.cudnnGetVersion.restype = library.cudnnGetCudartVersion.restype = ctypes.c_size_t
    number = library.cudnnGetVersion()
    version = f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return Seen(None, f"{version}, built for CUDA {_dotted(library.cudnnGetCudartVersion())}")


def _nvjpeg() -> Seen:
    """Asks for the engines of each GPU, in its primary context: nvJPEG tells them of the current one."""
    library = _loaded("libnvjpeg.so.13", "libnvjpeg.so.12")
    driver = ctypes.CDLL("libcuda.so.1")
    count, context = ctypes.c_int(), ctypes.c_void_p()
    _check("cuInit", driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)))
    found = []
    for number in range(count.value):
        code = driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), number) or driver.cuCtxSetCurrent(context)
        _check(f"the context of GPU {number}", code)
        handle, engines, cores = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
        _check("nvjpegCreateSimple", library.nvjpegCreateSimple(ctypes.byref(handle)))
        told = library.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
        library.nvjpegDestroy(handle)
        _check("nvjpegGetHardwareDecoderInfo", told)
        found.append(f"{engines.value * max(1, cores.value)} on cuda:{number}")
    return Seen(count.value, f"JPEG engines: {', '.join(found)}")


LIBRARIES = {
    "pycuda": _pycuda,
    "cupy": _cupy,
    "torch": _torch,
    "nvimgcodec": _nvimgcodec,
    "dali": _dali,
    "cudnn": _cudnn,
    "nvjpeg": _nvjpeg,
}


def _loaded(*files: str) -> ctypes.CDLL:
    """The first library that is there: from NVIDIA's wheels, else where the system looks. Raises ``OSError``."""
    paths = [path for file in files for path in (*_in_wheels(file), file)]
    for path in paths[:-1]:
        with suppress(OSError):
            return ctypes.CDLL(path)
    return ctypes.CDLL(paths[-1])


def _in_wheels(file: str) -> Iterator[str]:
    package = find_spec("nvidia")
    for folder in (package and package.submodule_search_locations) or ():
        yield from map(str, sorted(Path(folder).glob(f"*/lib/{file}")))


def _runs(built: str, major: int, minor: int) -> bool:
    """Whether code for ``sm_80`` or ``compute_90`` runs on a GPU: of an older minor version, or compiled once more."""
    found = re.match(r"(sm|compute)_(\d+)(\d)", built)
    if found is None:
        return False
    theirs = int(found[2]), int(found[3])
    return theirs <= (major, minor) and (found[1] == "compute" or theirs[0] == major)


def _dotted(version: int) -> str:
    """CUDA's number of a version in words: 13030 is 13.3."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _check(what: str, code: int) -> None:
    if code:
        raise RuntimeError(f"{what} fails ({code})")


def main(name: str) -> None:
    """Look through one library, and print what came of it."""
    try:
        said: dict[str, Any] = asdict(LIBRARIES[name]())
    except BaseException as error:
        said = {"trouble": f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"}
    print(f"\n{json.dumps({'library': name, **said})}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
