"""Lists, function by function, what no report in docs/gpu/ has run on hardware: python tools/gpu_not_run.py

Writes docs/gpu/README.md. A report counts where tools/gpu_report.sh made it on a GPU and its part kernels_ran ended
well: it names the kernels that were launched, with results equal to the oracle's, and the functions that were called.
The part preprocess_ran names the functions of preprocessing.
"""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kernels.device import SOURCES, entry_points  # noqa: E402 - found by the line above

FOLDER = ROOT / "docs/gpu"
GPU_ONLY = (
    *("gpu", "gpu_driver", "gpu_library", "gpu_pycuda", "gpu_cupy"),
    *("lab/api", "lab/bench", "lab/peers", "lab/profiler"),
)
"""The modules of kernels/ that need a GPU; the others run in host form in every test."""
OTHER_FILES = (
    "backends/pytorch_gpu.py",
    "plugins/driver.py",
    "plugins/nvml.py",
    "preprocess/cuda.py",
    "preprocess/parts/gpu_decode.py",
    "preprocess/dali_gpu.py",
    "preprocess/dali.py",
    "preprocess/parts/device_memory.py",
    "sut/cli/doctor/seen.py",
    "sut/qsl/device_library.py",
    "sut/run/gpu_watch.py",
)
"""The files outside kernels/ that work on a GPU; of the one for DALI on the CPU, what ``dali_gpu.py`` takes from it."""
HEAD = """# On hardware

What `tools/gpu_report.sh` found on machines with a GPU, one folder a report, and what none of them has run. This page
is written by `tools/gpu_not_run.py`; a test keeps it so.

A report begins with what is asked of it: met, NOT MET or not measured. Its exit code is 0 where every part ran and all
results are right. A speed that misses its target is shown and changes nothing: it says something of the project and of
that GPU, not of the report. What is there only to compare with (ncu or nsys, ONNX Runtime for CUDA, DALI) may be
missing, and is shown as not installed.

All kernels run in host form, under sanitizers and equal to the oracle to the bit, in every test, and compile for all
architectures. *Not run on hardware* means that nobody has seen them on a GPU: no claim is made about them there.

Mended, not run: what was found wrong by reading, and by calling the real libraries without a GPU. Tests over stand-ins
cover it; none of it has been seen on a GPU.

- Closing a GPU releases PyCUDA's primary context (`PyCudaDriver.close`). Real PyCUDA, over a driver that only notes
  what is called, calls `cuDevicePrimaryCtxRelease` there, where it called `cuCtxDetach`.
- A PyCUDA that is installed but does not import is named wherever CuPy stands for it; `SUT_CUDA_LIBRARY` insists on
  one (`find_library`).
- Only the errors of failed kernels, 700 to 719, mark a GPU as lost (`ends_context`).
- Streams do not wait for the default one (`new_stream`). Copies and fills without a stream come behind all that was
  started before, and have ended when they return. What is copied to a GPU on a stream is kept until that has been
  waited for (`GpuDevice.write`).
- Decoders are made and used while the GPU that was asked for is the current one (`GpuDevice.current`).
- Warm-up begins with the largest batch, so that nvImageCodec's decoders and DALI's pipelines are not made once a size;
  loading makes one preprocessor for each worker thread.
- A cubin's key has the compiler's version and build, not its file's time: a cache copied to another host serves there.
- The report says in ONNX Runtime's own words why CUDA failed, and leaves nothing on the GPU when SIGTERM or SIGHUP
  ends it.
"""


def modules() -> dict[str, Path]:
    """The .cu files by the name of their module."""
    paths = sorted(SOURCES.rglob("*.cu"))
    return {str(path.relative_to(SOURCES).with_suffix("")): path for path in paths}


def functions(path: Path) -> list[str]:
    """Functions and methods with a body of their own, as ``Class.name``; protocols and abstract methods have none."""
    found = []
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef):
            found.append(node.name)
        elif isinstance(node, ast.ClassDef) and not any(ast.unparse(base) == "Protocol" for base in node.bases):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            found += [f"{node.name}.{each.name}" for each in methods if not _is_abstract(each)]
    return found


def _is_abstract(function: ast.FunctionDef) -> bool:
    return any(ast.unparse(each) == "abstractmethod" for each in function.decorator_list)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _taken(path: Path, module: str) -> set[str]:
    """What a file imports from ``module`` by name."""
    imports = [node for node in _tree(path).body if isinstance(node, ast.ImportFrom) and node.module == module]
    return {each.name for node in imports for each in node.names}


def others() -> dict[str, list[str]]:
    """By file, the functions and methods outside kernels/ that need a GPU, or do there what tests do in host form."""
    found = {file: functions(ROOT / file) for file in OTHER_FILES}
    taken = _taken(ROOT / "preprocess/dali_gpu.py", "preprocess.dali")
    found["preprocess/dali.py"] = [name for name in found["preprocess/dali.py"] if name.partition(".")[0] in taken]
    return found


OTHERS = others()


def page(folder: Path = FOLDER) -> str:
    """The whole page, from the reports in the folders below ``folder``."""
    ran: set[str] = set()
    reports = []
    for path in sorted(folder.glob("*/report.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        part = report["parts"].get("kernels_ran", {"ok": False})
        device = "did not run the kernels"
        if part["ok"]:
            ran |= {*part["found"]["kernels"], *part["found"]["functions"]}
            device = part["found"]["device"]
        part = report["parts"].get("preprocess_ran", {"ok": False})
        if part["ok"]:
            ran |= set(part["found"]["functions"])
        reports.append(f"- [{path.parent.name}]({path.parent.name}/report.md), made {report['made']}: {device}")
    lines = [HEAD, "## Reports", "", *(reports or ["None yet."]), "", "## Not run on hardware", ""]
    # In the report a name begins with the module: kernels/ is left out there, other folders are not.
    shown = [(f"kernels/{module}.cu", module, list(entry_points(path))) for module, path in modules().items()]
    shown += [(f"kernels/{each}.py", each, functions(SOURCES / f"{each}.py")) for each in GPU_ONLY]
    shown += [(file, file.removesuffix(".py").replace("/", "."), names) for file, names in OTHERS.items()]
    for file, module, names in shown:
        if missing := [name for name in names if f"{module}.{name}" not in ran]:
            lines += [f"`{file}`, {len(missing)} of {len(names)}:", "", *(f"- `{name}`" for name in missing), ""]
    if lines[-2] == "## Not run on hardware":
        lines += ["Nothing: the reports above have run every one.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "README.md").write_text(page(), encoding="utf-8")
