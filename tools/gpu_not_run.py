"""Lists, function by function, what no report in docs/gpu/ has run on hardware: python tools/gpu_not_run.py

Writes docs/gpu/README.md. A report counts where tools/gpu_report.sh made it on a GPU and its part kernels_ran ended
well: it names the kernels that were launched, with results equal to the oracle's, and the functions that were called.
The part preprocess_ran names the functions of preprocessing.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kernels.device import SOURCES, entry_points  # noqa: E402 - found by the line above

FOLDER = ROOT / "docs/gpu"
GPU_ONLY = ("gpu", "gpu_driver", "gpu_pycuda", "gpu_cupy", "bench", "peers", "profiler")
"""The modules of kernels/ that need a GPU; the others run in host form in every test."""
OTHERS: dict[str, tuple[str, ...]] = {
    "preprocess/cuda.py": (
        "OnDevice.__init__",
        "OnDevice.run",
        "OnDevice.run_pixels",
        "OnDevice.counts",
        "OnDevice.close",
        "Cuda.__init__",
        "Cuda.version",
        "Cuda.check_machine",
        "check_parts",
    ),
    "preprocess/gpu_decode.py": (
        "DevicePixels.of",
        "GpuDecoder.takes",
        "NvImageCodec.__init__",
        "NvImageCodec.version",
        "NvImageCodec.decode",
        "NvImageCodec.close",
    ),
    "preprocess/dali_gpu.py": (
        "DaliMixed.__init__",
        "DaliMixed.version",
        "DaliMixed.decode",
        "DaliMixed.close",
        "DaliGpu.__init__",
        "DaliGpu.version",
        "DaliGpu.check_machine",
        "DaliGpuResize.__init__",
        "DaliGpuResize.close",
        "mixed_graph",
        "resize_pipeline",
    ),
    "preprocess/device_memory.py": ("Growing.of", "DeviceArray.__init__", "lent_slot"),
    "sut/device_library.py": (
        "DeviceLibrary.__init__",
        "DeviceLibrary.source",
        "DeviceLibrary.close",
        "_DeviceGather.fill",
    ),
}
"""By file, the functions and methods outside kernels/ that need a GPU, or do there what tests do in host form."""
HEAD = """# On hardware

What `tools/gpu_report.sh` found on machines with a GPU, one folder a report, and what none of them has run. This page
is written by `tools/gpu_not_run.py`; a test keeps it so.

All kernels run in host form, under sanitizers and equal to the oracle to the bit, in every test, and compile for all
architectures. *Not run on hardware* means that nobody has seen them on a GPU: no claim is made about them there.
"""


def kernels() -> list[str]:
    """Every entry point, as ``module.name``."""
    paths = sorted(SOURCES.glob("*.cu"))
    return [f"{path.stem}.{name}" for path in paths for name in entry_points(path)]


def functions(module: str) -> Iterator[str]:
    """Functions and methods with a body of their own, as ``module.Class.name``; protocols have none."""
    tree = ast.parse((SOURCES / f"{module}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield f"{module}.{node.name}"
        elif isinstance(node, ast.ClassDef) and not any(ast.unparse(base) == "Protocol" for base in node.bases):
            yield from (f"{module}.{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef))


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
    groups = {
        f"kernels/{path.name}": [n for n in kernels() if n.startswith(f"{path.stem}.")]
        for path in sorted(SOURCES.glob("*.cu"))
    }
    groups |= {f"kernels/{module}.py": list(functions(module)) for module in GPU_ONLY}
    # In the report a name begins with the module: kernels/ is left out there, other folders are not.
    shown = {file: {name: name.partition(".")[2] for name in names} for file, names in groups.items()}
    for file, names in OTHERS.items():
        shown[file] = {f"{file.removesuffix('.py').replace('/', '.')}.{name}": name for name in names}
    for file, by_name in shown.items():
        missing = [short for name, short in by_name.items() if name not in ran]
        if missing:
            lines += [f"`{file}`, {len(missing)} of {len(by_name)}:", ""]
            lines += [f"- `{short}`" for short in missing]
            lines.append("")
    if lines[-2] == "## Not run on hardware":
        lines += ["Nothing: the reports above have run every one.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "README.md").write_text(page(), encoding="utf-8")
