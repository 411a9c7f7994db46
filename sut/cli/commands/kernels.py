"""``sut kernels``: the CUDA kernels checked, explained, timed and profiled; the first two need no GPU."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plugins.driver import installed_driver
from plugins.errors import DeviceNotFound
from sut.errors import ExitCode, InputError, RunError, SetupError, one_line
from sut.process.streams import print_json, tell

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kernels.device import Device
    from kernels.lab.bench import Timing
    from kernels.lab.check import Place, Row
    from kernels.lab.explain import Explanation
    from kernels.lab.profiler import Profiled
    from kernels.resize import Interpolation

HELP = """Check, explain and time the CUDA kernels.

Example: ./run_local.sh kernels check
"""
CHECK_HELP = """Every kernel against the oracle, to the bit: on the GPU where there is one, else in host form.

Example: ./run_local.sh kernels check --device host

The host form is the same CUDA C, compiled by g++ under AddressSanitizer and UndefinedBehaviorSanitizer.
Exit code: 0 all equal; 1 wrong usage; 2 something is not installed, or no such device; 3 a kernel is wrong or failed.
"""
EXPLAIN_HELP = """Why the kernels are as fast as they are: sectors a request, bank conflicts, bytes moved. Needs no GPU.

Example: ./run_local.sh kernels explain --bandwidth 4300

Counted in host form. The time is that of all sectors at the bandwidth given, in GB/s (10^9 bytes) read and written
together, as sut kernels bench measures it for a copy: too long where sectors are asked for again, since caches answer
those. Without --bandwidth none is predicted.
Exit code: 0; 1 wrong usage; 2 g++ is missing.
"""
BENCH_HELP = """Time the kernels on a GPU beside a copy, separate launches, and CuPy, PyTorch and DALI where installed.

Example: ./run_local.sh kernels bench --device cuda:0

Median of many passes over inputs that no cache holds. Where another library fails its row says why. Exit code: 0;
1 wrong usage; 2 no GPU, or something is not installed; 3 the GPU has too little memory, or a kernel failed.
"""
PROFILE_HELP = """What NVIDIA's profiler counts of the explained kernels, beside predictions. Needs a GPU, ncu and g++.

Example: ./run_local.sh kernels profile

The predictions are counted in host form, which g++ compiles. nsys in the place of ncu gives times alone. Exit code: 0;
1 wrong usage; 2 no GPU, no profiler or no g++; 3 a kernel or the profiler failed.
"""

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
GpuOption = Annotated[str, typer.Option("--device", help="cuda, or cuda:N.")]


def register(app: typer.Typer) -> None:
    """Add the commands ``kernels check``, ``explain``, ``bench`` and ``profile`` to ``app``."""
    kernels = typer.Typer(help=HELP, rich_markup_mode=None)
    for name, help_text, command in (
        ("check", CHECK_HELP, check),
        ("explain", EXPLAIN_HELP, explain),
        ("bench", BENCH_HELP, bench),
        ("profile", PROFILE_HELP, profile),
    ):
        kernels.command(name, help=help_text)(command)
    app.add_typer(kernels, name="kernels")


def check(
    device: Annotated[str | None, typer.Option(help="cuda, cuda:N or host; default: a GPU if there is one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """See CHECK_HELP."""
    from kernels.lab.check import check as check_all

    with _told(), _open(device) as (opened, details):
        tell(f"checking on {details}")
        rows = list(check_all(opened, _truth))
    if as_json:
        print_json(
            "kernels check", [{"device": opened.name, "architecture": opened.architecture, **asdict(r)} for r in rows]
        )
    else:
        _show_check(rows, opened.name)
    if not all(row.ok for row in rows):
        raise typer.Exit(ExitCode.FAILED)


def explain(
    bandwidth: Annotated[float | None, typer.Option(help="GB/s of a copy, read and written together.")] = None,
    as_json: JsonOption = False,
) -> None:
    """See EXPLAIN_HELP."""
    if bandwidth is not None and not 0 < bandwidth < math.inf:
        raise InputError(f"--bandwidth is {bandwidth:g}, expected a number of GB/s over 0")
    with _told():
        explanations = _explanations()
    if as_json:
        print_json("kernels explain", [_explained(each, bandwidth) for each in explanations])
    else:
        _show_explained(explanations, bandwidth)


def bench(
    device: GpuOption = "cuda",
    repeat: Annotated[int, typer.Option(min=1, help="Passes over the inputs; the median counts.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """See BENCH_HELP."""
    from kernels.gpu import open_device

    with _told(), open_device(device) as gpu:
        from kernels.lab.bench import check_memory, run

        tell(f"timing on {gpu.details}")
        check_memory(gpu)
        timings = []
        for timing in run(gpu, repeat):
            tell(f"{timing.group}: {timing.kernel}")
            timings.append(timing)
        details = gpu.details
    copy = timings[0]
    if as_json:
        print_json("kernels bench", [_timed(timing, copy, details) for timing in timings])
    else:
        _show_timings(timings, copy)


def profile(device: GpuOption = "cuda", as_json: JsonOption = False) -> None:
    """See PROFILE_HELP."""
    from kernels.gpu import open_device
    from kernels.lab.profiler import beside, count

    with _told():
        profiler = _profiler()
        with open_device(device) as gpu:
            tell(f"{profiler.name} on {gpu.details}")
        profiled = beside(_explanations(), count(profiler, device))
    if as_json:
        print_json("kernels profile", [_counted(each) for each in profiled])
    else:
        _show_profiled(profiled)


@contextmanager
def _told() -> Iterator[None]:
    """What the kernels raise, as the exit codes of the commands know it."""
    from kernels.device import DeviceError

    try:
        yield
    except (DeviceNotFound, ModuleNotFoundError) as error:
        raise SetupError(one_line(error)) from error
    except ValueError as error:
        raise InputError(one_line(error)) from error
    except DeviceError as error:
        raise RunError(one_line(error)) from error


@contextmanager
def _open(name: str | None) -> Iterator[tuple[Device, str]]:
    """The device, and one line about it. Without a name: a GPU where a driver shows one, else the host form."""
    from kernels.gpu import open_device

    why = ""
    if name is None:
        try:
            name = "cuda" if installed_driver().gpus else "host"
        except DeviceNotFound as error:
            name, why = "host", f" ({one_line(error)})"
    if name == "host":
        from kernels.host import HostDevice

        with HostDevice() as host:
            yield host, f"the host form{why}"
    elif name == "cpu":
        raise InputError("unknown device 'cpu', expected cuda, cuda:N, or host for the kernels without a GPU")
    else:
        with open_device(name) as gpu:
            yield gpu, gpu.details


def _profiler() -> Path:
    """Raises ``SetupError`` with all that is missing, the GPU and g++ too."""
    from kernels.host.build import find_compiler
    from kernels.lab.profiler import find_profiler

    missing = []
    for find in (find_profiler, find_compiler, installed_driver):
        try:
            find()
        except (DeviceNotFound, ModuleNotFoundError) as error:
            missing.append(one_line(error))
    if missing:
        raise SetupError("; and ".join(missing))
    return find_profiler()


def _truth(pixels: NDArray[np.uint8], place: Place, interpolation: Interpolation) -> NDArray[np.uint8]:
    from preprocess.oracle import Fit, resize_fit

    return resize_fit(pixels, Fit(**asdict(place)), interpolation)


def _explanations() -> list[Explanation]:
    from kernels.host import HostDevice
    from kernels.lab.explain import CASES
    from kernels.lab.explain import explain as explain_all

    with HostDevice(count=True) as device:
        return explain_all(device, CASES)


def _explained(each: Explanation, bandwidth: float | None) -> dict[str, Any]:
    """A row of ``explain --json``."""
    return {
        "kernel": each.case.kernel,
        "shape": each.case.shape,
        "read_sectors_per_request": each.sectors_per_request("read"),
        "write_sectors_per_request": each.sectors_per_request("write"),
        "max_conflict_ways": each.max_ways,
        "mean_conflict_ways": each.mean_ways,
        "moved_bytes": each.moved_bytes,
        "needed_bytes": each.case.needed_bytes,
        "predicted_us": None if bandwidth is None else 1e6 * each.predicted_s(1e9 * bandwidth),
        "why": each.case.why,
        "lines": [asdict(site) for site in each.sites],
    }


def _timed(timing: Timing, copy: Timing, details: str) -> dict[str, Any]:
    """A row of ``bench --json``."""
    return {
        "device": details,
        **asdict(timing),
        "bytes_per_second": None if timing.gpu_ms is None else 1e3 * timing.bytes / timing.gpu_ms,
        "share_of_copy": timing.share_of(copy),
    }


def _counted(each: Profiled) -> dict[str, Any]:
    """A row of ``profile --json``."""
    return {
        "kernel": each.kernel,
        "shape": each.shape,
        "predicted": {
            "read_sectors_per_request": each.predicted.sectors_per_request("read"),
            "write_sectors_per_request": each.predicted.sectors_per_request("write"),
            "conflicts": each.predicted_conflicts,
        },
        "counted": {
            "read_sectors_per_request": each.sectors_per_request("ld"),
            "write_sectors_per_request": each.sectors_per_request("st"),
            "conflicts": each.conflicts,
            "time_us": each.time_us,
        },
        "metrics": dict(each.counted),
    }


def _show_check(rows: Sequence[Row], device: str) -> None:
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.kernel, row.dtype, row.layout].append(row)
    lines = []
    for (kernel, dtype, layout), members in groups.items():
        wrong = [row.case for row in members if not row.ok]
        largest = max(row.largest_difference for row in members)
        verdict = "equal" if not wrong else f"WRONG: {'; '.join(wrong)}"
        lines.append([kernel, dtype, layout, str(len(members)), f"{largest:g}", verdict])
    _table(["kernel", "dtype", "layout", ">cases", ">max diff", "verdict"], lines)
    wrong_rows = sum(not row.ok for row in rows)
    print(f"{len(rows) - wrong_rows} of {len(rows)} cases equal to the oracle on {device}")


def _show_explained(explanations: Sequence[Explanation], bandwidth: float | None) -> None:
    headings = ["kernel", ">read", ">write", ">ways", ">moved KiB", ">needed"]
    lines = [
        [
            each.case.kernel,
            _figure(each.sectors_per_request("read")),
            _figure(each.sectors_per_request("write")),
            _figure(each.max_ways),
            f"{each.moved_bytes / 1024:,.0f}",
            f"{100 * each.efficiency:.0f} %",
            *([] if bandwidth is None else [f"{1e6 * each.predicted_s(1e9 * bandwidth):.3g}"]),
        ]
        for each in explanations
    ]
    _table([*headings, *([] if bandwidth is None else [">us"])], lines)
    _say("read, write: sectors a request; ways: the worst bank conflict, 1 is none; needed: share of what is moved")
    _say(
        "Counted is what is asked of the L1 cache. Sectors asked for again come from a cache, so memory moves fewer "
        "bytes, at the least those needed."
    )
    for each in explanations:
        _say(f"\n{each.case.kernel}, {each.case.shape}: {each.case.why}")


def _show_timings(timings: Sequence[Timing], copy: Timing) -> None:
    group = ""
    lines = []
    groups = list(dict.fromkeys(timing.group for timing in timings))
    # Other libraries come last, each to its group.
    for timing in sorted(timings, key=lambda each: groups.index(each.group)):
        if timing.group != group:
            group = timing.group
            lines.append([group, "", "", "", ""])
        share = timing.share_of(copy)
        lines.append(
            [
                f"  {timing.kernel}",
                _figure(timing.gpu_ms, 4),
                _figure(timing.wall_ms, 4),
                "" if timing.gpu_ms is None else f"{timing.bytes / timing.gpu_ms / 1e6:,.0f}",
                "" if share is None else f"{share:.2f}",
            ]
        )
    _table(["kernel", ">GPU ms", ">wall ms", ">GB/s", ">of copy"], lines)
    _say("GPU: between events; wall: until the GPU is idle; GB/s: what must be read and written, once each")
    for timing in timings:
        if timing.why:
            _say(f"not measured: {timing.group}, {timing.kernel}: {timing.why}")


def _show_profiled(profiled: Sequence[Profiled]) -> None:
    def pair(predicted: float | None, counted: float | None) -> str:
        return f"{_figure(predicted)} / {_figure(counted)}"

    lines = [
        [
            each.kernel,
            pair(each.predicted.sectors_per_request("read"), each.sectors_per_request("ld")),
            pair(each.predicted.sectors_per_request("write"), each.sectors_per_request("st")),
            pair(each.predicted_conflicts, each.conflicts),
            _figure(each.time_us),
        ]
        for each in profiled
    ]
    _table(["kernel", ">read", ">write", ">conflicts", ">us"], lines)
    _say("predicted / counted; read, write: sectors per request; conflicts: wavefronts that bank conflicts cost")


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}g}" if value < 1e4 else f"{value:,.0f}"


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table; a heading that begins with > is right-justified."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        right = heading.startswith(">")
        table.add_column(heading.lstrip(">"), justify="right" if right else "left", overflow="fold", no_wrap=right)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    Console(highlight=False).print(table)


def _say(text: str) -> None:
    """Print text that is wrapped to the terminal."""
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False).print(Text(text))
