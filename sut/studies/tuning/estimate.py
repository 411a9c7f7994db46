"""Where the search for Server's rate begins: what batching alone could hold with the batch times that were measured."""

from __future__ import annotations

from sut.config import RunConfig
from sut.pipeline.deadline import service_times
from sut.run.planning import EARLY_STOPPING_QUERIES
from sut.studies.simulation import highest_rate
from sut.studies.tuning.state import Measured

_SIGMA = 0.05
"""How much the time of a batch varies on a machine that does other things, too."""
_QUERIES = 20_000


def estimate(config: RunConfig, row: Measured) -> float | None:
    """The highest rate in queries/s that ``config`` can be expected to hold in a run of its ``time_s``.

    From the batch times and the bound of ``row``, a Server run of the same settings or similar ones. None where it has
    none, or where not even single queries are in time.
    """
    if not row.batch_ns or row.bound_ns is None:
        return None
    batch_ns = {int(size): took for size, took in row.batch_ns.items()}
    largest = min(config.max_batchsize or max(batch_ns), max(batch_ns))
    service_ns = service_times(batch_ns, range(1, largest + 1))
    rate, queries = 0.0, 0
    for _ in range(2):  # how many may be late depends on how many are asked, which depends on the rate
        queries = max(EARLY_STOPPING_QUERIES["Server"], int((config.time_s or 0.0) * rate))
        rate = highest_rate(
            service_ns,
            int(row.bound_ns),
            config.lanes or row.used.get("lanes", 1),
            by_deadline=config.batching == "deadline" and not config.stages_preprocessing,
            run_queries=queries,
            sigma=_SIGMA,
            queries=_QUERIES,
        )
    return rate or None
