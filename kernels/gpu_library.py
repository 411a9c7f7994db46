"""Which library reaches a GPU: PyCUDA or CuPy."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType

from kernels.gpu_driver import Driver

LIBRARY_VARIABLE = "SUT_CUDA_LIBRARY"
"""The environment variable that insists on ``pycuda`` or ``cupy``."""
_found: list[str] = []


def found_library() -> str | None:
    """What GPUs are reached through in this process, as ``find_library`` has called it; None where nobody asked."""
    return _found[-1] if _found else None


def find_library(cuda: int) -> tuple[Callable[[int], Driver], str]:
    """What opens a GPU, and how it is called: PyCUDA where it can be imported, else CuPy, or what is insisted on.

    The name tells, too, why PyCUDA is not used where it is installed. ``cuda`` is the driver's. Raises ``ValueError``
    where something else is insisted on, and ``ModuleNotFoundError`` where none of those that may be used imports.
    """
    known = {"pycuda": _pycuda, "cupy": _cupy}
    wanted = os.environ.get(LIBRARY_VARIABLE)
    if wanted and wanted not in known:
        raise ValueError(f"{LIBRARY_VARIABLE} is '{wanted}', expected pycuda or cupy")
    troubles: list[str] = []
    for name in [wanted] if wanted else known:
        try:
            make, label = known[name]()
            _found.append(f"{label} ({'; '.join(troubles)})" if troubles else label)
            return make, _found[-1]
        except Exception as error:
            installed = not (isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == name)
            if installed or wanted:
                troubles.append(f"{name} {f'does not import: {one_line(error)}' if installed else 'is not installed'}")
    through = f"{wanted}, which {LIBRARY_VARIABLE} insists on" if wanted else "PyCUDA or CuPy"
    packages = {"cupy": f"cupy-cuda{cuda}x", "pycuda": "pycuda where a C++ compiler and the CUDA headers are"}
    raise ModuleNotFoundError(
        f"kernels run on a GPU through {through} ({'; '.join(troubles) or 'neither is installed'}):"
        f" pip install {packages[wanted] if wanted else ', or '.join(packages.values())}"
    )


def _pycuda() -> tuple[Callable[[int], Driver], str]:
    from kernels.gpu_pycuda import PyCudaDriver

    cuda = importlib.import_module("pycuda.driver")
    package: ModuleType = importlib.import_module("pycuda")
    return (lambda index: PyCudaDriver(cuda, index)), f"PyCUDA {package.VERSION_TEXT}"


def _cupy() -> tuple[Callable[[int], Driver], str]:
    from kernels.gpu_cupy import CuPyDriver

    cupy = importlib.import_module("cupy")
    return (lambda index: CuPyDriver(cupy, index)), f"CuPy {cupy.__version__}"


def one_line(error: BaseException) -> str:
    """What an error says, without line ends; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
