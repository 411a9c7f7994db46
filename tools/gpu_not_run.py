"""Writes docs/gpu/README.md: which reports were accepted, how to make one, what no hardware has run, by function.

A report counts where docs/gpu/NAME/ has its report.json and verified.json, what ``sut verify FILE --json`` said of it,
and that is accepted. Its parts name the kernels that were launched, with results equal to the oracle's, and the
functions that were called on a GPU.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kernels.device import SOURCES, entry_points  # noqa: E402 - found by the line above
from plugins.packages import OWN_NAMES  # noqa: E402

FOLDER = ROOT / "docs/gpu"
VERIFIED, REPORT = "verified.json", "report.json"

_OTHERS = re.compile(r"(cupy|cupyx|pycuda|pynvml|torch|nvidia|tensorrt\w*)(\.|$)|lib(cuda|nvidia-ml)\.so")
"""What other people's modules and libraries are called that nothing but a GPU is for, or PyTorch."""
_OURS = re.compile(
    r"(kernels\.gpu\w*|backends\.on_gpu|plugins\.nvml|preprocess\.parts\.(gpu_decode|device_memory))(\.|$)"
)
"""Modules of ours that nothing but a GPU is for, some of which import nothing that tells."""
RUN_ANYWHERE = {
    "backends/onnxruntime_executed.py": "reads what any session tells of itself",
    "kernels/compilers.py": "finds NVRTC and nvcc, which need no GPU",
    "kernels/lab/check.py": "checks the host form, too, in every test",
    "preprocess/registry.py": "says what to install",
    "sut/cli/commands/kernels.py": "opens the device that is asked for",
    "sut/cli/doctor/gpus.py": "says what is not there",
    "sut/cli/doctor/installed.py": "says what is not there",
    "sut/models/sources/torch_pickle.py": "knows names in PyTorch's files, without PyTorch",
    "sut/pipeline/assembly.py": "puts together what is chosen",
    "sut/results/gpus.py": "keeps what was seen",
    "sut/run/course.py": "is any run's",
    "sut/studies/bare.py": "goes round on a CPU in every test",
    "sut/studies/gpu_report/": "is the report itself",
}
"""Files and folders that name such a thing, and why what they do there is not listed."""
DALI, ON_GPU = "preprocess/dali.py", "preprocess/dali_gpu.py"
"""Of the one for DALI on the CPU only what the other takes from it is listed."""
WIDTH = 120

HEAD = """# On hardware

Which GPUs this project was measured on, how to make such a report, and what no GPU has run yet. This page is written by
`tools/gpu_not_run.py`; a test keeps it so.

## Accepted reports

"""
NONE_YET = "None yet.\n"
STRANGERS = """
`./run_local.sh verify FILE` accepted each of these files: nothing in it contradicts LoadGen's logs, itself, or the
version that made it. What that shows and what it cannot is in [proof.md](../proof.md). A speed that is NOT MET says
something of the project and of that GPU, not of the report.

## A report of your GPU

For any NVIDIA GPU from sm_75 on, such as the free T4 of a hosted notebook (CUDA 12: extra `gpu-cu12`; for CUDA 13
`gpu-cu13`; step 3 takes what fits the driver). It takes a quarter of an hour once all is there, which are up to 7 GB,
and sends nothing by itself. In a notebook, put `!` before a command:

1. `git clone` this project, and enter its folder.
2. `./run_local.sh doctor` says what it finds of the GPU, and the command for each part that is missing.
3. `./run_local.sh report gpu --output my-gpu --budget 900` keeps what it has found after every part.
4. `./run_local.sh verify my-gpu.zip` says of the one file that it leaves what everybody else will see.
5. Send `my-gpu.zip` to who keeps this project. It describes the machine, and has paths of its folders: look first.

TensorRT is in no extra: it comes with NVIDIA's own installer. To have it in the report, and to run it alone, after
step 3:

```
.venv/bin/python -m pip install tensorrt-cu13    # CUDA 12: tensorrt-cu12; for RTX GPUs tensorrt-rtx-cu13 does
./run_local.sh tensorrt resnet50 gpu --weights random
./run_local.sh tensorrt resnet50 gpu --weights random --precision int8 --fold --scenario all
./run_local.sh report gpu --output my-gpu --part labels_tensorrt --part tensorrt_resnet50_int8_device_folded
```

The last adds these parts to the report of step 3; the others of TensorRT are in [report.md](../report.md). Each builds
an engine first, which is planned to take up to ten minutes and is kept. Then step 4 as before: the file has these runs
too, and is judged with them.

Whoever gets it: in the commit that made it, `./run_local.sh verify FILE --json > docs/gpu/NAME/verified.json`; its
`report.json` and `report.md` beside that; then `tools/gpu_not_run.py`.

## Mended, not run

Found wrong by reading, and by calling the real libraries without a GPU. Tests over stand-ins cover it; none of it has
been seen on a GPU.

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

## Not run on hardware

All kernels run in host form, under sanitizers and equal to the oracle to the bit, in every test, and compile for all
architectures. What is listed here nobody has seen on a GPU: no claim is made about it there. Several GPUs in one run
(`--device cuda:0,cuda:1`, `sut/pipeline/devices.py`) have been stand-ins only.

"""


class Listed(NamedTuple):
    """A file, what its functions are called in a report before their own names, and these."""

    file: str
    module: str
    names: list[str]


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


def gpu_files(root: Path = ROOT) -> list[str]:
    """The product's Python files that name, to import it or to open it, what only a GPU is for."""
    paths = sorted(path for name in OWN_NAMES for path in (root / name).rglob("*.py"))
    return [path.relative_to(root).as_posix() for path in paths if _names_gpu(path, root)]


def _names_gpu(path: Path, root: Path) -> bool:
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    return bool(_OURS.match(module)) or any(_OTHERS.match(name) or _OURS.match(name) for name in _named(path))


def _named(path: Path) -> Iterator[str]:
    """Modules that a file imports, and words that could be one: some are imported by name."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            yield node.value


def is_anywhere(file: str) -> bool:
    """Whether ``RUN_ANYWHERE`` says why a file is not listed."""
    return any(file == each or (each.endswith("/") and file.startswith(each)) for each in RUN_ANYWHERE)


def listed() -> list[Listed]:
    """The kernels, and by file the functions that need a GPU, or do there what tests do in host form or on a CPU."""
    kernels = {str(path.relative_to(SOURCES).with_suffix("")): path for path in sorted(SOURCES.rglob("*.cu"))}
    found = [Listed(f"kernels/{module}.cu", module, list(entry_points(path))) for module, path in kernels.items()]
    for file in gpu_files():
        if is_anywhere(file):
            continue
        names = functions(ROOT / file)
        if file == DALI:
            taken = _taken(ROOT / ON_GPU, "preprocess.dali")
            names = [name for name in names if name.partition(".")[0] in taken]
        # In a report a name begins with the module: kernels/ is left out there, other folders are not.
        module = file.removesuffix(".py").removeprefix("kernels/")
        found.append(Listed(file, module if file.startswith("kernels/") else module.replace("/", "."), names))
    return [each for each in found if each.names]


def _taken(path: Path, module: str) -> set[str]:
    """What a file imports from ``module`` by name."""
    imports = [node for node in _tree(path).body if isinstance(node, ast.ImportFrom) and node.module == module]
    return {each.name for node in imports for each in node.names}


def accepted(folder: Path) -> dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """By the names of their folders, what was said of reports that were accepted, and the reports."""
    found = {}
    for path in sorted(folder.glob(f"*/{VERIFIED}")):
        verified, report = (json.loads((path.parent / name).read_text(encoding="utf-8")) for name in (VERIFIED, REPORT))
        if (
            verified["accepted"]
            and verified["gpu"]
            and (verified["made"], verified["gpu"]) == (report["made"], report["gpu"])
        ):
            found[path.parent.name] = verified, report
    return found


def _row(name: str, verified: Mapping[str, Any]) -> str:
    """A line of the table."""
    gpu = verified["gpu"][0] if verified["gpu"] else {}
    architecture = f"sm_{gpu['compute_cap'].replace('.', '')}" if "compute_cap" in gpu else "-"
    cuda = sorted({found[1] for word in verified["installed"] if (found := re.search(r"cu(?:da)?(1\d)", word))})
    driver = f"{gpu.get('driver_version', '-')}, CUDA {' and '.join(cuda) or 'unknown'}"
    by_verdict: dict[str, list[str]] = {}
    for row in verified["targets"]:
        by_verdict.setdefault(row["verdict"], []).append(row["target"])
    verdicts = [f"{verdict}: {'; '.join(targets)}" for verdict, targets in by_verdict.items() if verdict != "met"]
    verdicts = [f"{len(by_verdict.get('met', ()))} of {len(verified['targets'])} met", *verdicts]
    shown = f"[{gpu.get('name', 'none')}]({name}/report.md)"
    made = verified["made"].partition("T")[0]
    return f"| {shown} | {architecture} | {driver} | {made} | `{verified['sha256']}` | {'<br>'.join(verdicts)} |"


def _ran(report: Mapping[str, Any]) -> set[str]:
    """Kernels and functions that a report's parts name, of those that came to their end."""
    parts = [part["found"] for part in report["parts"].values() if part["ok"]]
    return {name for found in parts for key in ("kernels", "functions") for name in found.get(key, ())}


def page(folder: Path = FOLDER) -> str:
    """The whole page, from the reports in the folders below ``folder``."""
    reports = accepted(folder)
    ran = {name for _, report in reports.values() for name in _ran(report)}
    head = "| GPU | architecture | driver | made | SHA-256 of the file | targets |\n|" + " --- |" * 6
    rows = "\n".join([head, *(_row(name, verified) for name, (verified, _) in reports.items())]) + "\n"
    lines = [line for each in listed() if (line := _line(each, ran))] or ["Nothing: the reports above have run all."]
    return HEAD + (rows if reports else NONE_YET) + STRANGERS + "\n".join(lines) + "\n"


def _line(each: Listed, ran: set[str]) -> str:
    """What of a file has not run; empty where all of it has."""
    missing = [f"`{name}`" for name in each.names if f"{each.module}.{name}" not in ran]
    text = f"- `{each.file}`, {len(missing)} of {len(each.names)}: {', '.join(missing)}"
    whole = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", **whole) if missing else ""


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "README.md").write_text(page(), encoding="utf-8")
