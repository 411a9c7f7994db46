"""``sut kernels``: the CUDA kernels checked, explained, timed and profiled; the first two need no GPU."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from plugins.errors import DeviceNotFound
from sut.cli.emit import emit, grid, prose
from sut.errors import ExitCode, InputError, RunError, SetupError, one_line
from sut.process.streams import tell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kernels.gpu import GpuDevice
    from kernels.lab.bench import Timing
    from kernels.lab.check import CaseResult
    from kernels.lab.explain import Explanation
    from kernels.lab.profiler import Profiled, Summary
    from kernels.transpose import ImageVariant
    from sut.studies.api_calls import ApiTimes

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

Median of many passes over inputs that no cache holds. Where another library fails its row says why. With --api what
each call of CUDA's API takes in 20 fresh processes, naive transpose against tiled, beside nsys where installed.
Exit code: 0; 1 wrong usage; 2 no GPU, or something is not installed; 3 the GPU has too little memory, or a kernel or a
process failed.
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
    kernels.command(help=CHECK_HELP)(check)
    kernels.command(help=EXPLAIN_HELP)(explain)
    kernels.command(help=BENCH_HELP)(bench)
    kernels.command(help=PROFILE_HELP)(profile)
    app.add_typer(kernels, name="kernels")


def check(
    device: Annotated[str | None, typer.Option(help="cuda, cuda:N or host; default: a GPU if there is one.")] = None,
    as_json: JsonOption = False,
) -> None:
    """See CHECK_HELP."""
    from kernels.lab.check import check as check_all
    from kernels.lab.check import open_any
    from preprocess.oracle import resize_fit

    with _told(), open_any(device) as (opened, details):
        tell(f"checking on {details}")
        rows = list(check_all(opened, resize_fit))
    on = {"device": opened.name, "architecture": opened.architecture}
    emit("kernels check", [on | asdict(row) for row in rows], _checked(rows, opened.name), as_json)
    if not all(row.ok for row in rows):
        raise typer.Exit(ExitCode.FAILED)


def explain(
    bandwidth: Annotated[float | None, typer.Option(help="GB/s of a copy, read and written together.")] = None,
    as_json: JsonOption = False,
) -> None:
    """See EXPLAIN_HELP."""
    if bandwidth is not None and not 0 < bandwidth < math.inf:
        raise InputError(f"--bandwidth is {bandwidth:g}, expected a number of GB/s over 0")
    from kernels.lab.explain import explain_all

    with _told():
        found = explain_all()
    bytes_per_second = None if bandwidth is None else 1e9 * bandwidth
    emit(
        "kernels explain", [each.row(bytes_per_second) for each in found], _explained(found, bytes_per_second), as_json
    )


def bench(
    device: GpuOption = "cuda",
    repeat: Annotated[
        int | None, typer.Option(min=1, help="Passes over the inputs, of which the median counts; 30.")
    ] = None,
    api: Annotated[
        bool, typer.Option("--api", help="Time the calls of CUDA's API in fresh processes instead.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """See BENCH_HELP."""
    if api and repeat is not None:
        raise InputError("--repeat has no effect with --api; leave it out")
    from kernels.gpu import open_device

    with _told(), open_device(device) as gpu:
        from kernels.lab.bench import REPEATS, check_memory, run

        tell(f"timing on {gpu.details}")
        if api:
            _bench_api(gpu, as_json)
            return
        check_memory(gpu)
        timings = []
        for timing in run(gpu, repeat or REPEATS):
            tell(f"{timing.group}: {timing.kernel}")
            timings.append(timing)
        details = gpu.details
    copy = timings[0]
    emit("kernels bench", [timing.row(copy, details) for timing in timings], _timed(timings, copy), as_json)


def _bench_api(gpu: GpuDevice, as_json: bool) -> None:
    from sut.studies.api_calls import MODULE_LOADING, findings, time_calls

    found = time_calls(gpu, tell)
    emit(
        "kernels bench",
        [row.as_dict() for row in found.rows],
        _called(found),
        as_json,
        device=gpu.details,
        module_loading=os.environ.get(MODULE_LOADING),
        findings=list(findings(found.rows)),
        nsys={kind: [asdict(row) for row in rows] for kind, rows in found.nsys.items()},
        why=found.why,
    )


def profile(device: GpuOption = "cuda", as_json: JsonOption = False) -> None:
    """See PROFILE_HELP."""
    from kernels.gpu import open_device
    from kernels.lab.explain import explain_all
    from kernels.lab.profiler import beside, count, find_all

    with _told():
        profiler = find_all()
        with open_device(device) as gpu:
            tell(f"{profiler.name} on {gpu.details}")
        profiled = beside(explain_all(), count(profiler, device))
    emit("kernels profile", [each.row for each in profiled], _profiled(profiled), as_json)


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


def _checked(rows: Sequence[CaseResult], device: str) -> Iterator[RenderableType]:
    groups: dict[tuple[str, str, str], list[CaseResult]] = defaultdict(list)
    for row in rows:
        groups[row.kernel, row.dtype, row.layout].append(row)
    lines = []
    for (kernel, dtype, layout), members in groups.items():
        wrong = [row.case for row in members if not row.ok]
        largest = max(row.largest_difference for row in members)
        verdict = "equal" if not wrong else f"WRONG: {'; '.join(wrong)}"
        lines.append([kernel, dtype, layout, str(len(members)), f"{largest:g}", verdict])
    yield grid(["kernel", "dtype", "layout", ">cases", ">max diff", "verdict"], lines)
    wrong_rows = sum(not row.ok for row in rows)
    yield f"{len(rows) - wrong_rows} of {len(rows)} cases equal to the oracle on {device}"


def _explained(explanations: Sequence[Explanation], rate: float | None) -> Iterator[RenderableType]:
    headings = ["kernel", ">read", ">write", ">ways", ">moved KiB", ">needed", *[">us"] * (rate is not None)]
    lines = [
        [
            each.case.kernel,
            _figure(each.sectors_per_request("read")),
            _figure(each.sectors_per_request("write")),
            _figure(each.max_ways),
            f"{each.moved_bytes / 1024:,.0f}",
            f"{100 * each.efficiency:.0f} %",
            *([] if rate is None else [f"{1e6 * each.predicted_s(rate):.3g}"]),
        ]
        for each in explanations
    ]
    yield grid(headings, lines)
    yield prose(
        "read, write: sectors a request; ways: the worst bank conflict, 1 is none; needed: share of what is moved"
    )
    yield prose(
        "Counted is what is asked of the L1 cache. Sectors asked for again come from a cache, so memory moves fewer "
        "bytes, at the least those needed."
    )
    for each in explanations:
        yield prose(f"\n{each.case.kernel}, {each.case.shape}: {each.case.why}")


def _timed(timings: Sequence[Timing], copy: Timing) -> Iterator[RenderableType]:
    lines = []
    # Other libraries come last, each to its group.
    for group in dict.fromkeys(timing.group for timing in timings):
        lines.append([group])
        for timing in (each for each in timings if each.group == group):
            share = timing.share_of(copy)
            rate = "" if timing.gpu_ms is None else f"{timing.bytes / timing.gpu_ms / 1e6:,.0f}"
            times = (_figure(timing.gpu_ms, 4), _figure(timing.wall_ms, 4))
            lines.append([f"  {timing.kernel}", *times, rate, "" if share is None else f"{share:.2f}"])
    yield grid(["kernel", ">GPU ms", ">wall ms", ">GB/s", ">of copy"], lines)
    yield prose("GPU: between events; wall: until the GPU is idle; GB/s: what must be read and written, once each")
    for timing in timings:
        if timing.why:
            yield prose(f"not measured: {timing.group}, {timing.kernel}: {timing.why}")


def _called(found: ApiTimes) -> Iterator[RenderableType]:
    from sut.results.statistics import interval
    from sut.studies.api_calls import MODULE_LOADING, PAIRS, findings, middle

    def us(ns: float | None) -> str:
        return _figure(None if ns is None else ns / 1e3, 4)

    lines = []
    for row in found.rows:
        told = "cannot be told apart" if row.tiled.verdict == "open" else interval(row.tiled)
        lines.append([row.name, *map(us, (*middle(row.naive_ns), *middle(row.tiled_ns))), told])
    yield grid(["<call", ">naive us", ">spread", ">tiled us", ">spread", "tiled is faster"], lines)
    yield prose(
        f"median of {PAIRS} processes each (the kernel: of as many runs in this one), and the median distance from it; "
        "faster: by pairs, where it is beyond their spread"
    )
    for sentence in findings(found.rows):
        yield prose(sentence)
    yield prose(f"{MODULE_LOADING} is {os.environ.get(MODULE_LOADING, 'not set')}")
    if found.why:
        yield prose(f"no rows of nsys: {found.why}")
    else:
        yield _watched(found.nsys, us)


def _watched(nsys: Mapping[ImageVariant, Sequence[Summary]], us: Callable[[float], str]) -> RenderableType:
    """What Nsight Systems saw of one process of each kernel, by what was called."""
    names = dict.fromkeys(row.name for rows in nsys.values() for row in rows)
    by_kind = [{row.name: row for row in rows} for rows in nsys.values()]
    lines = []
    for name in names:
        seen = [rows.get(name) for rows in by_kind]
        figures = [["-"] * 3 if row is None else [f"{row.calls:.0f}", us(row.total_ns), us(row.max_ns)] for row in seen]
        lines.append([name, *(figure for each in figures for figure in each)])
    headings = [heading for kind in nsys for heading in (f">{kind}", ">us", ">longest")]
    return grid(["nsys: one process each", *headings], lines)


def _profiled(profiled: Sequence[Profiled]) -> Iterator[RenderableType]:
    def pair(predicted: float | None, counted: float | None) -> str:
        return f"{_figure(predicted)} / {_figure(counted)}"

    lines = [
        [
            each.predicted.case.kernel,
            pair(each.predicted.sectors_per_request("read"), each.sectors_per_request("ld")),
            pair(each.predicted.sectors_per_request("write"), each.sectors_per_request("st")),
            pair(each.predicted_conflicts, each.conflicts),
            _figure(each.time_us),
        ]
        for each in profiled
    ]
    yield grid(["kernel", ">read", ">write", ">conflicts", ">us"], lines)
    yield prose("predicted / counted; read, write: sectors per request; conflicts: wavefronts that bank conflicts cost")


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}g}" if value < 1e4 else f"{value:,.0f}"
