"""The part of the GPU report about the speed of preprocessing from JPEGs."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from kernels import gpu
from kernels.device import DeviceArray
from preprocess import registry
from preprocess.base import Preprocessor, Recipe, unmarked
from preprocess.cuda import BY_CPU, OnDevice
from preprocess.parts.gpu_decode import JpegEngine
from preprocess.parts.self_test import DecoderNotUsable
from sut.datasets import mosaics
from sut.models.registry import find
from sut.process.cgroup import usable_cores
from sut.qsl.library import Rows
from sut.studies.gpu_report.child import noted, tell_so_far, why_of

ENGINE, NVJPEG, CPU = "JPEG engine", "nvJPEG", "CPU"
"""The decoders: the GPU's own, nvJPEG's kernels (whose Huffman codes a CPU reads), libjpeg-turbo through OpenCV."""
SHARED = 0.5
"""Of a batch: for the JPEG engine, the rest for nvJPEG's kernels beside it."""
BATCH = 32
CPU_BATCH = 4
"""Pictures that a CPU's thread takes at a time, so that it does not keep the others waiting at the end."""
SECONDS = 1.5
MODEL = "resnet50"

Run = Callable[[Sequence[bytes]], object]


class Feed:
    """Pictures round and round, for whoever is free: lanes that take from one feed share the work by demand."""

    def __init__(self, pictures: Sequence[bytes]) -> None:
        self._pictures = itertools.cycle(pictures)
        self._lock = threading.Lock()

    def take(self, count: int) -> list[bytes]:
        """The next ``count``."""
        with self._lock:
            return list(itertools.islice(self._pictures, count))


@dataclass(frozen=True, slots=True)
class Lane:
    """What one thread does.

    ``start`` puts what has to be closed on the stack, and returns what preprocesses the ``batch`` pictures it is given.
    """

    decoder: str
    start: Callable[[ExitStack], Run]
    batch: int = BATCH


def rate(lanes: Sequence[Lane], pictures: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Pictures per second of each decoder, while all ``lanes`` take from one feed for ``seconds``.

    Two batches go before the clock. A lane that fails ends the others, and its error is raised.
    """
    feed, ready = Feed(pictures), threading.Barrier(len(lanes))

    def work(lane: Lane) -> tuple[int, float, float]:
        try:
            with ExitStack() as stack:
                run = lane.start(stack)
                for _ in range(2):
                    run(feed.take(lane.batch))
                ready.wait()
                done, begin = 0, time.perf_counter()
                while not done or time.perf_counter() - begin < seconds:
                    run(feed.take(lane.batch))
                    done += lane.batch
                return done, begin, time.perf_counter()
        except BaseException:
            ready.abort()
            raise

    with ThreadPoolExecutor(len(lanes)) as pool:
        running = [pool.submit(work, lane) for lane in lanes]
    errors = [error for each in running if (error := each.exception())]
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    found = [each.result() for each in running]
    took = max(end for _, _, end in found) - min(begin for _, begin, _ in found)
    done: Counter[str] = Counter()
    for lane, (pictures_done, _, _) in zip(lanes, found, strict=True):
        done[lane.decoder] += pictures_done
    return {decoder: count / took for decoder, count in done.items()}


def preprocess(name: str, seconds: float = SECONDS) -> dict[str, Any]:
    """Files to the model's input, nothing else running: medium pictures, from host memory to the GPU's.

    Each decoder of the preprocessor ``name`` alone, at one to as many lanes as there are cores; JPEG engine and nvJPEG
    sharing each batch, by a fixed share and by the library's own; and all three taking from one feed. ``of_sum`` is a
    row's rate over the sum of the best rates that its decoders had alone: 1 where they help each other fully. The first
    row writes to host memory.
    """
    make = registry.load(name)
    bench = Bench(find(MODEL).recipe, _pictures(), seconds, usable_cores())
    bench.time("opencv", [Lanes(CPU, registry.load("opencv"), {}, bench.cores)], to="host")
    # Through the same kernels to the same memory as the others.
    bench.time("opencv", [Lanes(CPU, _only_cpu(), {}, bench.cores)])
    with noted(name, bench.wrong):
        bench.jpeg_engine = has_engine()
        bench.time_all(name, make)
    return bench.found


@dataclass(frozen=True, slots=True)
class Lanes:
    """``count`` lanes of a kind: preprocessors that ``make`` makes with ``options``, and what decodes for them."""

    decoder: str
    make: Any
    options: Mapping[str, Any]
    count: int


class Bench:
    """Rates of preprocessors, one row of ``table`` each; what failed is ``wrong``."""

    def __init__(self, recipe: Recipe, pictures: Sequence[bytes], seconds: float, cores: int) -> None:
        self.recipe, self.pictures, self.seconds, self.cores = recipe, pictures, seconds, cores
        self.table: list[dict[str, Any]] = []
        self.wrong: list[dict[str, Any]] = []
        self.jpeg_engine = False

    @property
    def found(self) -> dict[str, Any]:
        """All of it so far."""
        return {
            "model": MODEL,
            "batch": BATCH,
            "cores": self.cores,
            "seconds": self.seconds,
            "jpeg_engine": self.jpeg_engine,
            "wrong": self.wrong,
            "table": self.table,
        }

    def time_all(self, name: str, make: Any) -> None:
        """The rows of one preprocessor on the GPU.

        Without a JPEG engine there are none of it: nvJPEG's kernels would do its share, without a word.
        """
        engine = self.jpeg_engine
        alone = {NVJPEG: 0.0} | ({ENGINE: 1.0} if engine else {})
        for decoder, share in alone.items():
            for lanes in counts(self.cores):
                self.time(name, [Lanes(decoder, make, {"hw_share": share}, lanes)])
        if engine:
            own = "adaptive" if name == "cuda" else make.options().hw_share
            for lanes in (1, 2, 4):
                for shared in (SHARED, own):
                    # One thread would do the engine's share and nvJPEG's one after the other.
                    options = {"hw_share": shared, "threads": max(2, self.cores // lanes)}
                    self.time(name, [Lanes(f"{ENGINE} and {NVJPEG}", make, options, lanes)])
        best = {decoder: row["lanes"] for decoder in alone if (row := self.best(name, decoder))}
        if best.keys() != alone.keys():
            return
        engines = best.get(ENGINE, 0)
        # nvJPEG's lanes and the CPU's want the same cores.
        for kernels in sorted({1, self.cores // 4, self.cores // 2, best[NVJPEG]} - {0}):
            groups = [
                Lanes(NVJPEG, make, {"hw_share": 0.0}, kernels),
                Lanes(CPU, _only_cpu(), {}, max(1, self.cores - engines - kernels)),
            ]
            self.time(name, [Lanes(ENGINE, make, {"hw_share": 1.0}, engines), *groups] if engine else groups)

    def time(self, name: str, groups: Sequence[Lanes], to: str = "cuda:0") -> None:
        """One row: all lanes of ``groups`` at once."""
        by_cpu: Counter[str] = Counter()
        lanes = []
        for group in groups:
            batch = CPU_BATCH if group.decoder == CPU else BATCH
            counted = None if group.decoder == CPU else by_cpu
            start = partial(_start, group.make, self.recipe, group.options, counted, batch, to)
            lanes += [Lane(group.decoder, start, batch)] * group.count
        one = groups[0] if len(groups) == 1 else None
        row: dict[str, Any] = {
            "preprocess": name,
            "decoders": ", ".join(group.decoder for group in groups),
            "to": to,
            "lanes": one.count if one else [group.count for group in groups],
            "hw_share": one.options.get("hw_share") if one else None,
            "threads": one.options.get("threads", 1) if one else 1,
        }
        try:
            rates = rate(lanes, self.pictures, self.seconds)
        except Exception as error:
            self.wrong.append({**row, "why": why_of(error)})
            return
        if by_cpu.total():
            why = f"the CPU decoded {by_cpu.total()} pictures that {name} was given to decode on the GPU"
            self.wrong.append({**row, "why": why})
            return
        row["pictures_per_second"] = sum(rates.values())
        row["of_sum"] = self.of_sum(row)
        row["each"] = {decoder: round(found) for decoder, found in rates.items()} if len(rates) > 1 else None
        self.table.append(row)
        tell_so_far(self.found)

    def of_sum(self, row: Mapping[str, Any]) -> float | None:
        """A row's rate over the sum of the best that its decoders had alone; None where that is not known of each."""
        decoders = row["decoders"].replace(" and ", ", ").split(", ")
        alone = [self.best("opencv" if decoder == CPU else row["preprocess"], decoder) for decoder in decoders]
        if len(decoders) == 1 or None in alone:
            return None
        return float(row["pictures_per_second"] / sum(best["pictures_per_second"] for best in alone if best))

    def best(self, name: str, decoder: str) -> dict[str, Any] | None:
        """The fastest row of a decoder alone that writes to the GPU's memory."""
        rows = [
            row for row in self.table if (row["preprocess"], row["decoders"]) == (name, decoder) and row["to"] != "host"
        ]
        return max(rows, key=lambda row: float(row["pictures_per_second"]), default=None)


def counts(cores: int) -> list[int]:
    """Numbers of lanes to try: one, doubled up to the number of cores.

    >>> counts(1), counts(6), counts(16)
    ([1], [1, 2, 4, 6], [1, 2, 4, 8, 16])
    """
    doubled = itertools.takewhile(lambda count: count < cores, (2**power for power in range(64)))
    return [*doubled, cores]


def _start(
    make: Callable[..., Preprocessor],
    recipe: Recipe,
    options: Mapping[str, Any],
    counted: Counter[str] | None,
    batch: int,
    to: str,
    stack: ExitStack,
) -> Run:
    """One lane's preprocessor and its rows; ``counted`` is told what the CPU decoded for a decoder on the GPU."""
    working = stack.enter_context(make(recipe, **options))
    if counted is not None:
        stack.callback(lambda: counted.update({BY_CPU: working.counts()[BY_CPU]}))
    rows = np.empty((batch, *recipe.sample_shape), recipe.dtype)
    to_write: Any = Rows.of(rows)
    if to != "host":
        device = stack.enter_context(gpu.open_device("cuda:0"))
        to_write = target(device.alloc(rows.nbytes).address, rows)
    return lambda pictures: working.run(pictures, to_write, unmarked)


def _only_cpu() -> Any:
    """A preprocessor whose pictures are all decoded by the CPU, then uploaded, resized and normalised on the GPU."""
    takes_nothing: Any = SimpleNamespace(takes=lambda data: False, close=lambda: None)

    class OnlyCpu(OnDevice):
        name = "cpu"

        def __init__(self, recipe: Recipe) -> None:
            super().__init__(recipe, gpu.open_device("cuda:0"), takes_nothing, "cuda:0")

        @classmethod
        def version(cls) -> str:
            return "none"

    return OnlyCpu


def has_engine() -> bool:
    """Whether the GPU has a JPEG engine that decodes."""
    try:
        JpegEngine(0).close()
    except (DecoderNotUsable, ModuleNotFoundError):
        return False
    return True


def target(address: int, like: Any) -> Any:
    """Rows of the shape and type of ``like`` at an address of the GPU's memory, to be written to."""
    return Rows(len(like), {"rows": DeviceArray(address, like.shape, like.dtype.name)}, "cuda:0")


def _pictures() -> list[bytes]:
    return [data for _, data, _ in mosaics.pictures("medium", BATCH)]
