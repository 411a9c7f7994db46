"""What CUDA's API calls take in fresh processes, naive against tiled transpose: what is start-up, order, or the kernel.

Each process makes the calls of ``kernels.lab.api`` once, so every figure is one of a process that has just begun. A
process with the naive and one with the tiled kernel are a pair, in alternating order. Where Nsight Systems is there,
one process of each kernel more is watched by it. The processes are this module, ``python -m sut.studies.api_calls``.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from kernels.gpu import GpuDevice
from kernels.lab import api
from kernels.lab.profiler import API, KERNELS, Summary, find_program, summarize
from kernels.transpose import ImageVariant
from sut.errors import RunError, one_line
from sut.process.child import follow
from sut.process.messages import Failed, from_text, to_text, vocabulary
from sut.process.telling import Teller, carry_out
from sut.results.statistics import Difference, difference, interval

PAIRS = 10
"""Of processes: 20 in all, so that the command takes less than a minute where one takes two seconds."""
LIMIT_S = 60.0
"""How long one may take."""
PROFILER_LIMIT_S = 120.0
"""The same of one that Nsight Systems watches, which writes its report then."""
KERNEL = "kernel, by events"
MODULE_LOADING = "CUDA_MODULE_LOADING"
"""The environment variable that says when kernels are loaded, EAGER or LAZY: from CUDA 12.2 on LAZY where it is not set
(CUDA Programming Guide, "Lazy Loading")."""
_KINDS: tuple[ImageVariant, ImageVariant] = ("naive", "tiled")


@dataclass(frozen=True, slots=True)
class ApiOrders:
    """What a process is to time, or, with the path of ``nsys``, to have timed by that."""

    calls: api.Orders
    nsys: str | None = None


@dataclass(frozen=True, slots=True)
class Came:
    """What a process came to: nanoseconds of each call, or what Nsight Systems saw."""

    took_ns: dict[str, int] = field(default_factory=dict)
    nsys: list[Summary] = field(default_factory=list)
    event: Literal["came"] = "came"


_WORDS: TypeAdapter[Failed | Came] = vocabulary(Failed | Came)


@dataclass(frozen=True, slots=True)
class Row:
    """One call in all processes, in ns by pair; None where it could not be timed."""

    name: str
    naive_ns: Sequence[float | None]
    tiled_ns: Sequence[float | None]
    tiled: Difference
    """The tiled against the naive one; over 1 it is faster."""

    def as_dict(self) -> dict[str, Any]:
        """As ``sut kernels bench --api --json`` prints it."""
        kinds = {"naive": self.naive_ns, "tiled": self.tiled_ns}
        told = {kind: dict(zip(("median_ns", "spread_ns"), middle(ns), strict=True)) for kind, ns in kinds.items()}
        each = {f"{kind}_ns": list(ns) for kind, ns in kinds.items()}
        return {"call": self.name, **told, "difference": asdict(self.tiled), **each}


@dataclass(frozen=True, slots=True)
class ApiTimes:
    """What was found: our rows, those of Nsight Systems by kernel, and why there are none of those."""

    rows: Sequence[Row]
    nsys: Mapping[ImageVariant, Sequence[Summary]]
    why: str


def time_calls(device: GpuDevice, say: Callable[[str], None], side: int = api.SIDE) -> ApiTimes:
    """Time everything on ``device``, which stays open meanwhile: its GPU is awake before the first process begins.

    Raises ``RunError`` that names the process which failed, fell silent or did not end, and ``DeviceError``.
    """
    kernels = api.kernel_ns(device, side, PAIRS)
    took: dict[ImageVariant, list[Mapping[str, int]]] = {kind: [] for kind in _KINDS}
    with tempfile.TemporaryDirectory(prefix="kernels-") as folder:
        orders = api.prepare(device, Path(folder), side)
        for number in range(2 * PAIRS):
            pair, place = divmod(number, 2)
            kind = _KINDS[(pair + place) % 2]
            doing = f"process {number + 1} of {2 * PAIRS} ({kind})"
            say(doing)
            took[kind].append(_came(ApiOrders(orders[kind]), doing, LIMIT_S).took_ns)
        nsys, why = _watched(orders, say)
    by_name = {name: [[ns[name] for ns in took[kind]] for kind in _KINDS] for name in api.ROWS}
    return ApiTimes(compared(by_name | {KERNEL: [kernels[kind] for kind in _KINDS]}), nsys, why)


def compared(by_name: Mapping[str, Sequence[Sequence[float | None]]]) -> list[Row]:
    """Rows of what the naive and the tiled ones took, by the name of the call. All verdicts together are one look."""
    found = []
    for name, (naive, tiled) in by_name.items():
        judged = difference(naive, tiled, higher_is_better=False, verdicts=len(by_name))
        found.append(Row(name, naive, tiled, judged))
    return found


def middle(times_ns: Sequence[float | None]) -> tuple[float | None, float | None]:
    """The median, and the median distance from it."""
    there = [each for each in times_ns if each is not None]
    if not there:
        return None, None
    median = statistics.median(there)
    return median, statistics.median(abs(each - median) for each in there)


def findings(rows: Sequence[Row]) -> Iterator[str]:
    """What the rows say, in sentences: of the order of calls, of the two kernels, and of the kernel's share."""
    by_name = {row.name: row for row in rows}
    # Until a launch is done its kernel has run, too: its order is told by the call alone.
    kinds = [name.removeprefix("first ") for name in by_name if name.startswith("first ") and api.DONE not in name]
    said = []
    for kind in kinds:
        each = [[*row.naive_ns, *row.tiled_ns] for row in (by_name[f"first {kind}"], by_name[f"second {kind}"])]
        second = difference(*each, higher_is_better=False, verdicts=len(kinds))
        if second.verdict == "open":
            said.append(f"the first and the second {kind} cannot be told apart")
        else:
            said.append(f"the first {kind} takes {interval(second)} as long as the second")
    yield f"Order, whichever the kernel: {'; '.join(said)}."
    said = []
    for verdict in ("better", "worse"):
        named = [f"{row.name}, {interval(row.tiled)}" for row in rows if row.tiled.verdict == verdict]
        said += [f"{'faster' if verdict == 'better' else 'slower'} in {'; '.join(named)}"] if named else []
    alike = sum(row.tiled.verdict == "open" for row in rows)
    said += [f"not to be told from naive in {alike} of {len(rows)} rows"] if alike else []
    yield f"Kernel: tiled is {'. It is '.join(said)}."
    yield from _shares(by_name)


def _shares(by_name: Mapping[str, Row]) -> Iterator[str]:
    """What start-up and the kernel are of all that the calls take, by the medians."""
    for kind in _KINDS:
        medians = {name: middle(getattr(row, f"{kind}_ns"))[0] for name, row in by_name.items()}
        kernel_ns = medians.pop(KERNEL)
        all_ns = math.fsum(ns or 0 for name, ns in medians.items() if not name.endswith(api.CALL))
        start_ns = math.fsum(medians[name] or 0 for name in api.START_UP)
        if kernel_ns is not None:
            yield (
                f"Of the {all_ns / 1e6:,.4g} ms of all calls, {kind}, {100 * start_ns / all_ns:.3g} % are start-up "
                f"({', '.join(api.START_UP)}) and {200 * kernel_ns / all_ns:.2g} % both runs of the kernel."
            )


def _came(orders: ApiOrders, doing: str, limit_s: float) -> Came:
    """What a process came to. Raises ``RunError`` where it came to nothing."""
    told = follow("sut.studies.api_calls", orders, _WORDS, doing, silence_s=limit_s)
    if isinstance(told, Came):
        return told
    raise RunError(f"{doing} failed: {told.named if isinstance(told, Failed) else 'it ended without a word'}")


def _watched(
    orders: Mapping[ImageVariant, api.Orders], say: Callable[[str], None]
) -> tuple[Mapping[ImageVariant, Sequence[Summary]], str]:
    """Nsight Systems' rows by kernel; none, and why, where it is not installed or fails."""
    nsys = find_program("nsys")
    if nsys is None:
        return {}, "nsys (Nsight Systems) is not installed"
    found = {}
    for kind in _KINDS:
        doing = f"the {kind} process under nsys"
        say(doing)
        try:
            found[kind] = _came(ApiOrders(orders[kind], str(nsys)), doing, PROFILER_LIMIT_S).nsys
        except RunError as error:
            return {}, one_line(error)
    return found, ""


def _carry_out(text: str, teller: Teller) -> None:
    orders = from_text(ApiOrders, text)
    if orders.nsys is None:
        teller.tell(Came(took_ns=api.carry_out(orders.calls)))
        return
    # No child of ours: a profiler writes down what it saw when Python ends as it does by itself.
    command = [sys.executable, "-P", "-m", "kernels.lab.api", to_text(orders.calls)]
    teller.tell(Came(nsys=summarize(Path(orders.nsys), command, [API, KERNELS])))


if __name__ == "__main__":
    carry_out(_carry_out)
