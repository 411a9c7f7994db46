"""Workers that are processes against threads, and the way of a tensor between them: ``python benchmarks/processes.py``.

Decoding alone: the demo's photos through 1 and 2 workers of each place, by turns, while the lane only gives answers and
the driver is blocked. The hand-over: one sample at a time with pauses, from when the last stage of preprocessing ended
to when the lane has the tensor, and from the call to when the worker began; by the ledger's own stamps. Figures mean
something on a quiet machine only; how quiet it was is told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from sut.config import RunConfig
from sut.pipeline.ledger import STAMPS, Ledger
from sut.pipeline.system import SUT
from sut.results.quiet import between, look

SYSTEMS = (("thread", 1), ("thread", 2), ("process", 1), ("process", 2))
NOTHING = {"a_ms": 0.0, "b_ms": 0.0, "jitter": 0.0}
NO_TIME = {"decode_ms": 0.0, "resize_ms": 0.0, "normalize_ms": 0.0}


def config_of(place: str, workers: int, scenario: str, preprocess: str, options: dict[str, float]) -> RunConfig:
    """A system whose lane gives answers at once; in Offline eight together, so that it takes little of the cores."""
    return RunConfig.model_validate(
        {
            **{"backend": "simulated", "backend_options": NOTHING, "scenario": scenario, "dataset": "demo"},
            **{"preprocess": preprocess, "preprocess_options": options, "boundary": "jpeg", "lanes": 1},
            **{"preprocess_workers": workers, "preprocess_place": place, "max_batchsize": 8},
        }
    )


@contextmanager
def loaded(config: RunConfig) -> Iterator[SUT]:
    """A system with all of the demo's photos, whose workers are warm."""
    with SUT(config) as sut:
        sut.library.load(range(sut.library.count))
        sut.start()
        sut.rehearse(range(sut.library.count))
        yield sut


def rates(preprocess: str, seconds: float, rounds: int) -> list[dict[str, object]]:
    """Photos per second of each system, the median of its turns."""
    found: dict[tuple[str, int], list[float]] = {system: [] for system in SYSTEMS}
    for number in range(rounds):
        for system in SYSTEMS if number % 2 == 0 else reversed(SYSTEMS):
            with loaded(config_of(*system, "Offline", preprocess, {})) as sut:
                asked, begin = [*range(sut.library.count)] * 20, time.perf_counter()
                done = 0
                while (took := time.perf_counter() - begin) < seconds:
                    sut.ask(asked)
                    done += len(asked)
                found[system].append(done / took)
    return [
        {"place": place, "workers": workers, "photos_per_s": round(statistics.median(each), 1), "turns": len(each)}
        for (place, workers), each in found.items()
    ]


def hand_over(place: str, samples: int, pause_s: float) -> dict[str, object]:
    """Percentiles in us of the way to a worker and back, one sample at a time."""
    with loaded(config_of(place, 1, "SingleStream", "simulated", NO_TIME)) as sut:
        ledger = Ledger(sut.ledger_shape(samples, False))
        sut.start(ledger)
        for number in range(samples):
            time.sleep(pause_s)
            sut.ask([number % sut.library.count])
        rows = ledger.rows[ledger.batch_of[:samples] - 1]
        before = ledger.before[:samples]
        back = rows[:, STAMPS + 1] - before[:, -2]
        there = before[:, 0] - ledger.issued_ns[:samples]
    told = {"place": place, "samples": samples, "tensor_bytes": int(np.prod((3, 224, 224))) * 4}
    for name, spans in (("to_worker", there), ("to_lane", back)):
        told |= {f"{name}_p{q}_us": round(float(np.percentile(spans, q)) / 1000, 1) for q in (50, 90, 99)}
    return told


def main() -> None:
    """Measure and print JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preprocess", default="opencv", help="what decodes (default: opencv)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each system")
    parser.add_argument("--samples", type=int, default=1000, help="tensors that are handed over")
    given = parser.parse_args()
    began = look(os.getpid())
    for row in rates(given.preprocess, given.seconds, given.rounds):
        print(json.dumps(row), flush=True)
    for place in ("thread", "process"):
        print(json.dumps(hand_over(place, given.samples, 0.002)), flush=True)
    print(json.dumps({"machine": between(began, look(os.getpid())).line()}))


if __name__ == "__main__":
    main()
