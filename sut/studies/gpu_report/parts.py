"""The parts of the GPU report, in the order of their worth, and the process that each runs in.

``python -m sut.studies.gpu_report.parts NAME`` carries out one part and prints what it found as a line of JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from kernels.gpu_library import LIBRARY_VARIABLE
from plugins.driver import installed_driver
from sut.studies.gpu_report import kernels, machine, rightness, served
from sut.studies.gpu_report.child import tell, why_of
from sut.studies.gpu_report.ladder import ladder
from sut.studies.gpu_report.preprocess import preprocess
from sut.studies.gpu_report.schema import PartEnd

Load = Literal["first", "second"]
_WITH_PYCUDA = {LIBRARY_VARIABLE: "pycuda"}


@dataclass(frozen=True, slots=True)
class Part:
    """Finds out one thing about this machine, and raises where it cannot.

    ``least_s`` is what it is planned to take: with less left of the budget it is not begun. That is a plan, not a
    measurement. ``load`` is which of two loads of packages has what it needs, where they come in two.
    """

    work: Callable[[], dict[str, Any]]
    least_s: float
    limit_s: float
    load: Load = "first"
    needs_gpu: bool = True
    may_be_missing: bool = False
    """Whether it needs what nothing else does, so that a report is whole without it."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of its process's environment."""


def _cells(cells: list[served.Cell], load: Load = "first") -> dict[str, Part]:
    """The detector is made anew, which takes longer than loading the others, as does TensorRT's search for kernels."""
    seconds = {served.DETECTOR: (30, 90), served.TENSORRT: (90, 600)}
    return {
        cell.name: Part(
            partial(served.serve, cell),
            *seconds.get(cell.backend, seconds.get(cell.model, (20, 75))),
            load,
            may_be_missing=cell.may_be_missing,
        )
        for cell in cells
    }


_DETECTORS = served.detector_cells()


_FIRST: dict[str, Part] = {
    "gpu": Part(machine.gpu, 2, 35, needs_gpu=False),
    "kernels_check": Part(kernels.kernels_check, 30, 90),
    **{f"labels_{name}": Part(partial(served.labels, name), 25, 75) for name in served.BACKENDS},
    **_cells(served.first_cells()),
    "copy_bandwidth": Part(machine.copy_bandwidth, 3, 30),
    "kernels_bench": Part(kernels.kernels_bench, 50, 120),
    "parity": Part(partial(rightness.parity, ["cuda"]), 20, 60),
    "preprocess": Part(partial(preprocess, "cuda"), 70, 150),
    **_cells(served.next_cells()),
    **_cells(_DETECTORS[:2]),
    "kernels_check_pycuda": Part(kernels.kernels_check, 25, 60, may_be_missing=True, variables=_WITH_PYCUDA),
    "kernels_profile": Part(kernels.kernels_profile, 30, 90, "second", may_be_missing=True),
    "kernels_api": Part(kernels.kernels_api, 40, 120, "second"),
    **_cells(served.dali_cells(), "second"),
    "parity_dali": Part(partial(rightness.parity, rightness.WITH_DALI), 30, 80, "second", may_be_missing=True),
    "preprocess_dali": Part(partial(preprocess, "dali-gpu"), 70, 150, "second", may_be_missing=True),
    "kernels_ran": Part(kernels.kernels_ran, 40, 120, "second"),
    "preprocess_ran": Part(rightness.preprocess_ran, 40, 90, "second"),
    "doctor": Part(machine.doctor, 5, 30, needs_gpu=False),
    "imports": Part(machine.imports, 10, 60, needs_gpu=False),
    **_cells(_DETECTORS[2:]),
    "kernels_memcheck": Part(kernels.kernels_memcheck, 40, 120, "second", may_be_missing=True),
    "kernels_ran_pycuda": Part(kernels.kernels_ran, 40, 120, "second", may_be_missing=True, variables=_WITH_PYCUDA),
}
_REST = [cell for cell in served.all_cells() if cell.name not in _FIRST]
PARTS: dict[str, Part] = {
    **_FIRST,
    "labels_tensorrt": Part(partial(served.labels, served.TENSORRT), 180, 900, may_be_missing=True),
    **_cells(served.tensorrt_cells()),
    "ladder": Part(ladder, 180, 420, "second", may_be_missing=True),
    **_cells(served.option_cells()),
    **_cells(served.detector_cells("dali-gpu"), "second"),
    **_cells([cell for cell in _REST if cell.preprocess != "dali-gpu"]),
    **_cells([cell for cell in _REST if cell.preprocess == "dali-gpu"], "second"),
}
"""By name. The first quarter of an hour has what every figure of ``targets`` comes from; the rest fills the table."""


def carry_out(name: str) -> PartEnd:
    """Do a part's work here. Without a driver none that needs a GPU is begun: it says so at once."""
    part = PARTS[name]
    try:
        if part.needs_gpu:
            installed_driver()
        return PartEnd(ok=True, found=part.work())
    except Exception as error:
        return PartEnd(ok=False, why=why_of(error), not_installed=isinstance(error, ModuleNotFoundError))


if __name__ == "__main__":
    tell(carry_out(sys.argv[1]))
