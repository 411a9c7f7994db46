"""Parts of the GPU report about preprocessing: how fast from JPEGs, and which functions ran there at all."""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PREPROCESSORS = ("cuda", "dali-gpu", "dali-gpu-resize")
TIMED = ("cuda", "dali-gpu")
SHARED = 0.5
"""Of a batch: for the JPEG engine, the rest for nvJPEG's kernels beside it."""
LANES = (1, 4)
BATCH = 32
SECONDS = 3.0
MODEL = "resnet50"

Run = Callable[[], object]


def rate(start: Callable[[ExitStack], Run], lanes: int, batch: int, seconds: float) -> float:
    """Pictures per second of ``lanes`` threads, each with what ``start`` made for it, which it runs for ``seconds``.

    ``start`` puts what has to be closed on the stack, and returns what runs one batch. Two batches go before the clock.
    A lane that fails ends the others, and its error is raised.
    """
    ready = threading.Barrier(lanes)

    def lane() -> tuple[int, float, float]:
        try:
            with ExitStack() as stack:
                run = start(stack)
                for _ in range(2):
                    run()
                ready.wait()
                batches, begin = 0, time.perf_counter()
                while not batches or time.perf_counter() - begin < seconds:
                    run()
                    batches += 1
                return batches, begin, time.perf_counter()
        except BaseException:
            ready.abort()
            raise

    with ThreadPoolExecutor(lanes) as pool:
        running = [pool.submit(lane) for _ in range(lanes)]
    errors = [error for each in running if (error := each.exception())]
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    found = [each.result() for each in running]
    took = max(end for _, _, end in found) - min(begin for _, begin, _ in found)
    return batch * sum(batches for batches, _, _ in found) / took


def preprocess(seconds: float = SECONDS) -> dict[str, Any]:
    """Files to the model's input, nothing else running: medium pictures, from host memory to where the model reads.

    A row's ``of_decoders_alone`` is its rate over that of the JPEG engine alone plus that of nvJPEG's kernels alone, at
    as many lanes: 1 where the two help each other fully. ``by_cpu`` says what the GPU did not decode.
    """
    from preprocess import registry
    from sut.config import usable_cores
    from sut.models.registry import find

    recipe = find(MODEL).recipe
    encoded = _pictures()
    table, wrong = [], []
    cores = usable_cores()
    settings: list[tuple[str, dict[str, float], int]] = [("opencv", {}, cores)]
    for name in TIMED:
        try:
            default = inspect.signature(registry.load(name)).parameters["hw_share"].default
        except (ImportError, OSError) as error:
            wrong.append({"preprocess": name, "why": f"{type(error).__name__}: {error}"})
            continue
        shares = sorted({0.0, SHARED, 1.0, default})
        settings += [(name, {"hw_share": share}, lanes) for lanes in LANES for share in shares]
    for name, options, lanes in settings:
        counted: Counter[str] = Counter()
        row: dict[str, Any] = {"preprocess": name, "hw_share": options.get("hw_share"), "lanes": lanes}
        try:
            start = partial(_lane, registry.load(name), recipe, encoded, options, counted)
            row["pictures_per_second"] = rate(start, lanes, len(encoded), seconds)
        except Exception as error:
            wrong.append({**row, "why": f"{type(error).__name__}: {' '.join(str(error).split())}"})
            continue
        row["of_decoders_alone"] = None
        row["by_cpu"] = sum(times for what, times in counted.items() if "CPU" in what)
        table.append(row)
    if not table:
        raise RuntimeError(f"nothing was timed: {wrong}")
    compare(table)
    return {"model": MODEL, "batch": len(encoded), "cores": cores, "seconds": seconds, "wrong": wrong, "table": table}


def compare(table: Sequence[dict[str, Any]]) -> None:
    """Set ``of_decoders_alone`` of the rows that share the work.

    >>> rows = [{"preprocess": "cuda", "lanes": 1, "hw_share": share, "pictures_per_second": rate,
    ...     "of_decoders_alone": None} for share, rate in ((0.0, 100.0), (0.5, 270.0), (1.0, 200.0))]
    >>> compare(rows)
    >>> [row["of_decoders_alone"] for row in rows]
    [None, 0.9, None]
    """
    rates = {(row["preprocess"], row["lanes"], row["hw_share"]): row["pictures_per_second"] for row in table}
    for (name, lanes, share), found in rates.items():
        alone = [rates[name, lanes, end] for end in (0.0, 1.0) if (name, lanes, end) in rates]
        if share is not None and 0 < share < 1 and len(alone) == 2:
            row = next(r for r in table if (r["preprocess"], r["lanes"], r["hw_share"]) == (name, lanes, share))
            row["of_decoders_alone"] = found / sum(alone)


def preprocess_ran() -> dict[str, Any]:
    """Which functions of preprocess/ and of the library of the boundary ``device`` were called on this GPU.

    Rows in the GPU's memory are compared with those that came to host memory. Nothing is timed.
    """
    functions: set[str] = set()
    folders = tuple(f"{ROOT / name}/" for name in ("preprocess", "sut"))
    with_parity = {}

    def watch(frame: Any, event: str, argument: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(folders):
            functions.add(f"{Path(file).parent.name}.{Path(file).stem}.{frame.f_code.co_qualname}")

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        for name in PREPROCESSORS:
            with_parity[name] = exercise(name)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {"parity": with_parity, "functions": sorted(functions)}


def exercise(name: str) -> Mapping[str, Any]:
    """Parity of the preprocessor ``name``; raises ``RuntimeError`` where rows differ by the way they took."""
    import numpy as np

    from kernels.gpu import open_device
    from preprocess import registry
    from preprocess.opencv import decode_at
    from sut.datasets.demo import open_demo
    from sut.device_library import DeviceLibrary
    from sut.library import Rows
    from sut.models.registry import find
    from sut.parity import measure_quickly

    recipe = find(MODEL).recipe
    make = registry.load(name)
    found: dict[str, Any] = {"version": make.version(), **measure_quickly(make, recipe).model_dump()}
    demo = open_demo()
    indices = list(range(4))
    expected = np.empty((len(indices), *recipe.sample_shape), recipe.dtype)
    with make(recipe) as working:
        # One by one, as the library does: decoders may choose another way for a batch.
        for index in indices:
            working.run([demo.read(index)], Rows.of(expected[index : index + 1]), _unmarked)
        pixels = [decode_at(0, demo.read(index)) for index in indices]
        working.run_pixels(pixels, Rows.of(np.empty_like(expected)), _unmarked)
        found["counts"] = dict(working.counts())
    with open_device("cuda:0") as device:
        opened = open_device("cuda:0")
        library = DeviceLibrary(
            demo, recipe, partial(make, recipe), len(indices), 1, device=opened, copy=opened.copy, place="cuda:0"
        )
        try:
            library.load(indices)
            slot = device.alloc(expected.nbytes)
            library.source().fill(indices, _target(slot.address, expected), _unmarked)
            got = device.download(slot, expected.shape, expected.dtype)
        finally:
            library.close()
    if not np.array_equal(got, expected):
        raise RuntimeError(f"{name}: rows in the GPU's memory differ from those in host memory")
    return found


def _lane(
    make: Any, recipe: Any, encoded: Sequence[bytes], options: Mapping[str, float], counted: Counter[str], stack: Any
) -> Run:
    """One lane's preprocessor and its rows, in the GPU's memory where it writes there."""
    import numpy as np

    from kernels.gpu import open_device
    from sut.library import Rows

    working = stack.enter_context(make(recipe, **options))
    stack.callback(lambda: counted.update(working.counts()))
    rows = np.empty((len(encoded), *recipe.sample_shape), recipe.dtype)
    target = Rows.of(rows)
    if "cuda" in make.places:
        device = stack.enter_context(open_device("cuda:0"))
        target = _target(device.alloc(rows.nbytes).address, rows)
    return lambda: working.run(encoded, target, _unmarked)


def _target(address: int, like: Any) -> Any:
    from preprocess.device_memory import DeviceArray
    from sut.library import Rows

    return Rows(len(like), {"rows": DeviceArray(address, like.shape, like.dtype.name)}, "cuda:0")


def _pictures() -> list[bytes]:
    sys.path.insert(0, str(Path(__file__).parent))
    made = importlib.import_module("make_pictures").pictures("medium", BATCH)
    return [data for _, data, _ in made]


def _unmarked(stage: str) -> None:
    """What is timed here is the whole."""
